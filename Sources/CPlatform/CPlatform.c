/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* For sched_getcpu(). */
#define _GNU_SOURCE
#include "CPlatform.h"

int cplatform_ask_current_cpu(void)
{
	int saved = errno;
	int cpu = sched_getcpu();

	if (cpu < 0)
		errno = saved;
	return cpu;
}
