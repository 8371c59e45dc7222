/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_ARENA_H
#define DMACORE_BENCH_ARENA_H

/*
 * Memory that neither side of a comparison shall be measured by: cells of one size, from one run
 * that is in place before the clock starts and that the kernel may back with large pages, as it
 * backs its own memory. The cell that was freed last is given out first.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A table of 1 GiB in pages of 4 KiB takes 515 of them, 100000 ranges of IOVAs 6.1 MiB. */
#define ARENA_SIZE ((size_t)16 << 20)
#define ARENA_ALIGNMENT ((size_t)2 << 20)

struct arena {
	size_t cell_size;
	uint8_t *memory;
	size_t used;
	/* A freed cell starts with the address of the one that was freed before it. */
	void *freed;
};

static inline void *arena_allocate(struct arena *arena)
{
	void *cell = arena->freed;

	if (cell != NULL) {
		memcpy(&arena->freed, cell, sizeof(arena->freed));
		return cell;
	}
	if (arena->memory == NULL) {
		arena->memory = aligned_alloc(ARENA_ALIGNMENT, ARENA_SIZE);
		if (arena->memory == NULL)
			return NULL;
		(void)madvise(arena->memory, ARENA_SIZE, MADV_HUGEPAGE);
		memset(arena->memory, 0, ARENA_SIZE);
	}
	if (arena->used + arena->cell_size > ARENA_SIZE)
		return NULL;
	cell = arena->memory + arena->used;
	arena->used += arena->cell_size;
	return cell;
}

static inline void arena_free(struct arena *arena, void *cell)
{
	memcpy(cell, &arena->freed, sizeof(arena->freed));
	arena->freed = cell;
}

#endif /* DMACORE_BENCH_ARENA_H */
