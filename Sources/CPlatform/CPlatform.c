/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* For sched_getcpu() and syscall(). */
#define _GNU_SOURCE
#include "CPlatform.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif
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

#ifdef __x86_64__
/* Whether the kernel keeps all that registers of 64 bytes have: see the Intel manual, volume 1, 15.2. */
static bool keeps_wide_registers(void)
{
	unsigned int a, b, c, d;
	uint32_t low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & 0xe6) == 0xe6;
}

bool cplatform_copies_wide(void)
{
	unsigned int a, b, c, d;

#ifdef CPLATFORM_THREAD_SANITIZER
	/* It does not see what is copied so. */
	return false;
#endif
	/* The processors before those that have AVX512-VBMI2 run slower after they have used such registers. */
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX512F) &&
	       (c & bit_AVX512VBMI2) && keeps_wide_registers();
}

__attribute__((target("avx512f"))) void cplatform_copy_wide(void *to, const void *from, size_t size)
{
	const __m512i *source = from, *end = (const __m512i *)((const char *)from + size);
	__m512i *target = to;

	for (; source < end; source += 4, target += 4) {
		__m512i first = _mm512_load_si512(source);
		__m512i second = _mm512_load_si512(source + 1);
		__m512i third = _mm512_load_si512(source + 2);
		__m512i fourth = _mm512_load_si512(source + 3);

		_mm512_store_si512(target, first);
		_mm512_store_si512(target + 1, second);
		_mm512_store_si512(target + 2, third);
		_mm512_store_si512(target + 3, fourth);
	}
}
#else
bool cplatform_copies_wide(void)
{
	return false;
}

void cplatform_copy_wide(void *to, const void *from, size_t size)
{
	memcpy(to, from, size);
}
#endif

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
