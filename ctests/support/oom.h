/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_OOM_H
#define SUPPORT_OOM_H

/*
 * Memory that runs out when a test says so. The program defines what the library imports to get
 * memory, and the dynamic linker makes the library use it: what is tested is the library as it
 * ships. Included by one file of a program. The tests allocate with malloc, which stays as it is.
 */

#include "check.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OOM_LIVE_MAX 65536

static struct {
	/* Allocations that still succeed; negative: all. */
	long left;
	/* Allocations that were asked for, and those that failed. */
	unsigned long calls;
	unsigned long failures;
	/* What was allocated and not freed yet. */
	void *live[OOM_LIVE_MAX];
	unsigned live_count;
} oom = { .left = -1 };

extern void __libc_free(void *memory);

static inline bool oom_permits(void)
{
	oom.calls++;
	if (oom.left == 0 || oom.live_count == OOM_LIVE_MAX) {
		oom.failures++;
		return false;
	}
	oom.left -= oom.left > 0;
	return true;
}

static inline void oom_forget(void *memory)
{
	for (unsigned i = oom.live_count; i-- > 0;) {
		if (oom.live[i] != memory)
			continue;
		oom.live[i] = oom.live[--oom.live_count];
		return;
	}
}

/* The address sanitizer brings allocation functions of its own, as valgrind does. */
#ifndef __SANITIZE_ADDRESS__

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	if (!oom_permits())
		return ENOMEM;
	*memory = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
	oom.live[oom.live_count++] = *memory;
	return 0;
}

void free(void *memory)
{
	if (memory)
		oom_forget(memory);
	__libc_free(memory);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	long result;

	if (!oom_permits()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	result = syscall(SYS_mmap, address, size, protection, flags, fd, offset);
	if (result != -1)
		oom.live[oom.live_count++] = (void *)result;
	return (void *)result;
}

int munmap(void *address, size_t size)
{
	oom_forget(address);
	return (int)syscall(SYS_munmap, address, size);
}

#endif

/*
 * Makes @call again and again, with one allocation more each time, until it succeeds. Each failure
 * must be -ENOMEM; @unchanged, a statement, checks the state behind it.
 */
#define assert_survives_failures(call, unchanged)             \
	do {                                                  \
		int result_;                                  \
                                                              \
		for (long permitted_ = 0;; permitted_++) {    \
			unsigned long failed_ = oom.failures; \
                                                              \
			assert_true(permitted_ < 100);        \
			oom.left = permitted_;                \
			result_ = (call);                     \
			oom.left = -1;                        \
			if (result_ == 0)                     \
				break;                        \
			assert_int_equal(result_, -ENOMEM);   \
			assert_true(oom.failures > failed_);  \
			unchanged;                            \
		}                                             \
	} while (0)

/* The same for a create call, which must leave nothing behind and set its handle to NULL. */
#define assert_creates_after_failures(call, handle)              \
	do {                                                     \
		unsigned live_ = oom.live_count;                 \
		unsigned long before_ = oom.failures;            \
                                                                 \
		(handle) = (void *)(uintptr_t)UNTOUCHED;         \
		assert_survives_failures(call, {                 \
			assert_null(handle);                     \
			assert_int_equal(oom.live_count, live_); \
			(handle) = (void *)(uintptr_t)UNTOUCHED; \
		});                                              \
		assert_true(oom.failures > before_);             \
	} while (0)

/* Statements that must ask for no memory. */
#define assert_needs_no_memory(statements)           \
	do {                                         \
		unsigned long calls_ = oom.calls;    \
                                                     \
		statements;                          \
		assert_int_equal(oom.calls, calls_); \
	} while (0)

/* Whether the library gets its memory from elsewhere, so that there is nothing to test. */
static bool oom_is_bypassed(void)
{
#ifdef __SANITIZE_ADDRESS__
	return true;
#else
	return under_valgrind();
#endif
}

/* Runs the tests, or says that they were skipped. */
#define run_oom_group(name, tests, setup)   \
	(oom_is_bypassed() ? EXIT_SKIPPED : \
			     cmocka_run_group_tests_name(name, tests, setup, NULL) != 0)

#endif /* SUPPORT_OOM_H */
