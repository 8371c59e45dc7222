/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_FUZZ_H
#define DMACORE_FUZZ_H

/*
 * What the fuzzers share: a reader of the input, a check that ends the process, a trace of the
 * calls, and the library's memory allocation, which is counted and made to fail.
 *
 * An input is a program: each area reads it byte by byte and turns it into calls of the library.
 * Every input is a valid program; one that ends early goes on with zeros.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry point, one per area. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct program {
	const uint8_t *next;
	const uint8_t *end;
};

static inline bool program_is_over(const struct program *program)
{
	return program->next == program->end;
}

static inline uint8_t take8(struct program *program)
{
	return program_is_over(program) ? 0 : *program->next++;
}

static inline uint16_t take16(struct program *program)
{
	uint16_t low = take8(program);

	return (uint16_t)(low | take8(program) << 8);
}

/* A number of the kind that breaks things: small, near a power of two, near 2^64, or anything. */
uint64_t take_number(struct program *program);

/* DMACORE_FUZZ_TRACE=1 in the environment prints the calls of an input as they are made. */
__attribute__((format(printf, 1, 2))) void fuzz_trace(const char *format, ...);

__attribute__((noreturn)) void fuzz_fail(const char *file, int line, const char *what);

#define CHECK(condition)                                           \
	do {                                                       \
		if (!(condition))                                  \
			fuzz_fail(__FILE__, __LINE__, #condition); \
	} while (0)

/*
 * The library allocates with posix_memalign() and free(), which the dynamic or static linker finds
 * here first. Between begin and end the calls of this thread are counted; end returns how many
 * allocations were not freed, so the area itself may use these two functions and no others.
 */
void allocation_begin(void);
long allocation_end(void);

/* Makes the allocation after the next @count fail, once. */
void allocation_fail_after(unsigned int count);

/* Takes the order back; tells whether an allocation has failed since allocation_fail_after(). */
bool allocation_has_failed(void);

#endif /* DMACORE_FUZZ_H */
