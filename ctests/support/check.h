/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_CHECK_H
#define SUPPORT_CHECK_H

/*
 * What each test program shares: cmocka, the whole of dmacore, and the checks of a result. This
 * header comes first in every test, because cmocka needs the standard headers before its own.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dmacore.h>

/* The page of the tables and of coherent memory. */
#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* What an output holds before a call that must leave it alone. */
#define UNTOUCHED UINT64_C(0x5a5aa5a5deadbeef)

/* The call's result, in decimal, so that an errno can be read off a failure. */
#define assert_result(call, expected)                                                 \
	do {                                                                          \
		int got_ = (call);                                                    \
		int expected_ = (expected);                                           \
                                                                                      \
		if (got_ != expected_)                                                \
			fail_msg("%s gave %d instead of %d", #call, got_, expected_); \
	} while (0)

#define assert_ok(call) assert_result(call, 0)
#define assert_fails(call, error) assert_result(call, -(error))

/* A call that fails and must leave @output, of a scalar type, as it was. */
#define assert_fails_untouched(call, error, output)                     \
	do {                                                            \
		(output) = (__typeof__(output))UNTOUCHED;               \
		assert_fails(call, error);                              \
		assert_true((output) == (__typeof__(output))UNTOUCHED); \
	} while (0)

/* A create call that fails and must set its handle to NULL. */
#define assert_creates_nothing(call, error, handle)      \
	do {                                             \
		(handle) = (void *)(uintptr_t)UNTOUCHED; \
		assert_fails(call, error);               \
		assert_null(handle);                     \
	} while (0)

/* Options as a longer, later release would pass them. */
#define LATER(type)               \
	struct {                  \
		type known;       \
		uint64_t unknown; \
	}

/*
 * The rule of every options structure, here one of type @type with the values of @good: shorter
 * than the first release's is refused, longer is accepted while the rest is zero. @create is the
 * call to make; in it `options` is the structure, and it sets @handle, which @destroy takes.
 */
#define check_struct_size(type, good, create, handle, destroy)           \
	do {                                                             \
		LATER(type) later_ = { .known = (good), .unknown = 0 };  \
		const type *options = &later_.known;                     \
                                                                         \
		later_.known.struct_size = 0;                            \
		assert_creates_nothing(create, EINVAL, handle);          \
		later_.known.struct_size = sizeof(type) - 1;             \
		assert_creates_nothing(create, EINVAL, handle);          \
		later_.known.struct_size = sizeof(later_);               \
		later_.unknown = UINT64_C(1) << 63;                      \
		assert_creates_nothing(create, E2BIG, handle);           \
		/* A size that no structure has is not read that far. */ \
		later_.unknown = 0;                                      \
		later_.known.struct_size = SIZE_MAX;                     \
		assert_creates_nothing(create, E2BIG, handle);           \
		later_.known.struct_size = sizeof(later_);               \
		assert_ok(create);                                       \
		assert_non_null(handle);                                 \
		destroy(handle);                                         \
	} while (0)

/* The same for a statistics structure, which @read, a call, fills in: @options is the structure. */
#define check_statistics_size(type, read)                               \
	do {                                                            \
		LATER(type) later_, before_;                            \
		type *options = &later_.known;                          \
                                                                        \
		memset(&later_, 0x5a, sizeof(later_));                  \
		options->struct_size = 0;                               \
		before_ = later_;                                       \
		assert_fails(read, EINVAL);                             \
		assert_memory_equal(&later_, &before_, sizeof(later_)); \
		options->struct_size = sizeof(type) - 1;                \
		before_ = later_;                                       \
		assert_fails(read, EINVAL);                             \
		assert_memory_equal(&later_, &before_, sizeof(later_)); \
		options->struct_size = SIZE_MAX;                        \
		before_ = later_;                                       \
		assert_fails(read, E2BIG);                              \
		assert_memory_equal(&later_, &before_, sizeof(later_)); \
		/* Filled in, and nothing behind it is touched. */      \
		options->struct_size = sizeof(type);                    \
		assert_ok(read);                                        \
		assert_int_equal(options->struct_size, sizeof(type));   \
		assert_true(later_.unknown == before_.unknown);         \
		/* What the library does not know it sets to zero. */   \
		options->struct_size = sizeof(later_);                  \
		assert_ok(read);                                        \
		assert_int_equal(options->struct_size, sizeof(later_)); \
		assert_true(later_.unknown == 0);                       \
	} while (0)

/* Runs the tests and makes an exit status of it: the number of failures would wrap, or mean 77. */
#define run_group(name, tests) (cmocka_run_group_tests_name(name, tests, NULL, NULL) != 0)

/* Whether the program runs under valgrind, which replaces the allocation calls by its own. */
static inline bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

/* The exit status that says that a program was skipped. */
#define EXIT_SKIPPED 77

/* A small generator, so that a run can be repeated from its seed anywhere. */
static inline uint64_t random_next(uint64_t *state)
{
	/* The generator called splitmix64. */
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

#endif /* SUPPORT_CHECK_H */
