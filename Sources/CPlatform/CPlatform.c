/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* For sched_getcpu(). */
#define _GNU_SOURCE
#include "CPlatform.h"

void *cplatform_allocate(size_t size, size_t alignment)
{
	int saved = errno;
	void *memory = NULL;
	int error = posix_memalign(&memory, alignment, size);

	errno = saved;
	return error ? NULL : memory;
}

int cplatform_ask_current_cpu(void)
{
	int saved = errno;
	int cpu = sched_getcpu();

	if (cpu < 0)
		errno = saved;
	return cpu;
}
