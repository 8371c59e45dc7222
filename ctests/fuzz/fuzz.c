/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "fuzz.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * Larger requests fail, so that a hostile size costs neither memory nor time. The largest that the
 * library makes for itself is that of a chunk of table pages.
 */
#define ALLOCATION_SIZE_MAX (2u << 20)

/* So do requests beyond this many at once, or so many bytes: as many table pages, of the smallest. */
#define ALLOCATION_COUNT_MAX (1l << 14)
#define ALLOCATION_BYTES_MAX (64ul << 20)

#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define REAL(name) __interceptor_##name
#endif
#endif
#ifndef REAL
#define REAL(name) __libc_##name
#endif

void *REAL(memalign)(size_t alignment, size_t size);
void REAL(free)(void *memory);

static _Thread_local struct {
	bool is_counting;
	bool is_failing;
	bool has_failed;
	unsigned int countdown;
	long live;
	size_t live_bytes;
} allocation;

/* On what the address sanitizer's own start-up calls, before it is ready for calls of others. */
#define UNSANITIZED __attribute__((no_sanitize("address")))

UNSANITIZED static bool allocation_must_fail(size_t size)
{
	if (!allocation.is_counting)
		return false;
	if (allocation.is_failing && allocation.countdown-- == 0) {
		allocation.is_failing = false;
		return true;
	}
	return size > ALLOCATION_SIZE_MAX || allocation.live >= ALLOCATION_COUNT_MAX ||
	       allocation.live_bytes + size > ALLOCATION_BYTES_MAX;
}

UNSANITIZED int posix_memalign(void **out_memory, size_t alignment, size_t size)
{
	if (allocation_must_fail(size)) {
		allocation.has_failed = true;
		return ENOMEM;
	}

	void *memory = REAL(memalign)(alignment, size);

	if (memory == NULL)
		return ENOMEM;
	if (allocation.is_counting) {
		allocation.live++;
		allocation.live_bytes += malloc_usable_size(memory);
	}
	*out_memory = memory;
	return 0;
}

UNSANITIZED void free(void *memory)
{
	if (allocation.is_counting && memory != NULL) {
		allocation.live--;
		allocation.live_bytes -= malloc_usable_size(memory);
	}
	REAL(free)(memory);
}

void allocation_begin(void)
{
	allocation.is_counting = true;
	allocation.is_failing = false;
	allocation.has_failed = false;
	allocation.live = 0;
	allocation.live_bytes = 0;
}

long allocation_end(void)
{
	allocation.is_counting = false;
	return allocation.live;
}

void allocation_fail_after(unsigned int count)
{
	allocation.is_failing = true;
	allocation.countdown = count;
	allocation.has_failed = false;
}

bool allocation_has_failed(void)
{
	bool has_failed = allocation.has_failed;

	allocation.is_failing = false;
	allocation.has_failed = false;
	return has_failed;
}

uint64_t take_number(struct program *program)
{
	uint8_t shape = take8(program);
	uint64_t number = 0;

	switch (shape >> 5) {
	case 0:
	case 1:
		return shape & 0x3f;
	case 2:
		return (uint64_t)take16(program) << 12;
	case 3:
		return (uint64_t)take16(program) << 12 | (shape & 0x1f);
	case 4:
		return UINT64_C(1) << (take8(program) & 63);
	case 5:
		return (UINT64_C(1) << (take8(program) & 63)) + (shape & 0x1f) - 16;
	case 6:
		return UINT64_MAX - ((uint64_t)take8(program) << (shape & 0x1f));
	default:
		for (int i = 0; i < 8; i++)
			number = number << 8 | take8(program);
		return number;
	}
}

void fuzz_trace(const char *format, ...)
{
	static int is_on = -1;
	va_list arguments;

	if (is_on < 0)
		is_on = getenv("DMACORE_FUZZ_TRACE") != NULL;
	if (!is_on)
		return;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

void fuzz_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: the library broke a rule: %s\n", file, line, what);
	abort();
}
