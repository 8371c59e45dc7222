/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* For sched_getcpu() and syscall(). */
#define _GNU_SOURCE
#include "CPlatform.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>

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

void cplatform_sleep(void)
{
	struct timespec time = { 0, 50000 };
	int saved = errno;

	nanosleep(&time, NULL);
	errno = saved;
}

/* glibc has no function for membarrier(2). Does not change errno. */
static __attribute__((noinline)) bool membarrier(int command)
{
	int saved = errno;
	bool is_done = syscall(SYS_membarrier, command, 0, 0) == 0;

	errno = saved;
	return is_done;
}

bool cplatform_prepare_barrier(void)
{
	return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

void cplatform_barrier(void)
{
	/*
	 * It fails when the kernel has no memory for it, or the process has taken the call away from itself.
	 * Then there is time: without a fence of its own a processor takes less than a microsecond to let
	 * others see what it stores.
	 */
	for (int tries = 0; tries < 3 && !membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED); tries++)
		cplatform_sleep();
}
