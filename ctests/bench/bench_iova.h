/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_IOVA_H
#define DMACORE_BENCH_IOVA_H

/*
 * What the benchmarks of the IOVA allocator share: a space of ours or of a peer's with the ranges
 * that are allocated in it, and the calls of each side in one form. The calls are inlined into the
 * loops, which are written once and inlined too, so that a loop runs the same instructions for all
 * sides and calls each side's functions directly.
 */

#include <dmacore/iova.h>

#include "bench.h"

#define PAGE_SHIFT 12
#define PAGE (UINT64_C(1) << PAGE_SHIFT)
#define LIMIT DMACORE_BIT_MASK(48)
#define LIMIT_32 DMACORE_BIT_MASK(32)

#define INLINE static inline __attribute__((always_inline))

struct range {
	/* In bytes for us, in pages for a peer. */
	uint64_t first;
	uint32_t pages;
	/* It was got under the 32-bit limit. */
	uint32_t is_low;
};

/* What is freed next, and what is allocated in its place. */
struct step {
	uint32_t index;
	uint16_t pages;
	uint16_t is_low;
};

struct live {
	/* Of one side alone. */
	struct dmacore_iova_space *space;
	const struct linux_iova *linux_iova;
	struct iova_domain *domain;
	const struct gtree_peer *gtree;
	struct gtree_space *tree;
	/* How many addresses a page has. */
	uint64_t unit;
	uint64_t count;
	struct range *ranges;
	/* For churn: steps that are repeated, of a number that is a power of two. */
	const struct step *steps;
	uint64_t step_mask;
	uint64_t position;
	/* How often nothing was found under the 32-bit limit. */
	uint64_t refused_count;
	/* Of a ring: the pages of each range, which is aligned to its size. */
	uint64_t pages;
};

typedef uint64_t (*allocate_fn)(const struct live *live, uint64_t pages, bool is_low);
typedef bool (*free_fn)(const struct live *live, const struct range *range);

struct dmacore_iova_space *bench_create_space(uint64_t last);

/* Makes a space, of the peer's where one is given, and memory for @count ranges. */
void bench_open_live(struct live *live, uint64_t count, const struct linux_peer *linux_peer,
		     const struct gtree_peer *gtree);

/*
 * Checks that no two ranges overlap, that none leaves the space or its limit, that those of a ring
 * are aligned, and that ours counts them and has refused nothing; ends the space.
 */
void bench_close_live(struct live *live);

/* Our statistics of a space. */
struct dmacore_iova_space_statistics bench_statistics(const struct live *live);

/*
 * A range, or 0: every space starts at the second page. No alignment is asked for; a power of two
 * gets its natural one, as it does from Linux through its caches, and the ring checks that.
 */
INLINE uint64_t allocate_ours(const struct live *live, uint64_t pages, bool is_low)
{
	dmacore_iova_t iova;
	int error = dmacore_iova_space_allocate(live->space, pages << PAGE_SHIFT, 0,
						is_low ? LIMIT_32 : LIMIT, &iova);

	return error == 0 ? iova : 0;
}

INLINE bool free_ours(const struct live *live, const struct range *range)
{
	return dmacore_iova_space_free(live->space, range->first,
				       (uint64_t)range->pages << PAGE_SHIFT) == 0;
}

INLINE uint64_t allocate_linux_fast(const struct live *live, uint64_t pages, bool is_low)
{
	return live->linux_iova->alloc_iova_fast(live->domain, pages,
						 (is_low ? LIMIT_32 : LIMIT) >> PAGE_SHIFT, true);
}

INLINE bool free_linux_fast(const struct live *live, const struct range *range)
{
	live->linux_iova->free_iova_fast(live->domain, range->first, range->pages);
	return true;
}

/* Unaligned, which is what we are asked for too, and past the caches. */
INLINE uint64_t allocate_linux(const struct live *live, uint64_t pages, bool is_low)
{
	return live->linux_iova->first(live->linux_iova->alloc_iova(
		live->domain, pages, (is_low ? LIMIT_32 : LIMIT) >> PAGE_SHIFT, false));
}

INLINE bool free_linux(const struct live *live, const struct range *range)
{
	live->linux_iova->free_iova(live->domain, range->first);
	return true;
}

/* It knows no limits. */
INLINE uint64_t allocate_gtree(const struct live *live, uint64_t pages, bool is_low)
{
	uint64_t first;

	(void)is_low;
	return live->gtree->allocate(live->tree, pages, &first) ? first : 0;
}

INLINE bool free_gtree(const struct live *live, const struct range *range)
{
	live->gtree->free(live->tree, range->first);
	return true;
}

/* A ring of requests: the oldest range is freed, another of the same size allocated. */

#define IN_FLIGHT 64

INLINE bool ring(struct live *live, uint64_t count, allocate_fn allocate, free_fn free_range)
{
	uint64_t pages = live->pages;
	bool is_fine = true;

	for (uint64_t i = 0; i < count; i++) {
		struct range *range = &live->ranges[i % IN_FLIGHT];

		is_fine &= free_range(live, range);
		range->first = allocate(live, pages, false);
		is_fine &= range->first != 0;
	}
	return is_fine;
}

void bench_run_ring(void *context, uint64_t count);
void bench_run_linux_ring(void *context, uint64_t count);

/* Allocates what is in flight. */
void bench_fill_ring(struct live *live, uint64_t pages);

/* The areas of the allocator. */
void bench_iova_threads(const struct linux_peer *linux_peer);
void bench_iova_churn(const struct linux_peer *linux_peer);

#endif /* DMACORE_BENCH_IOVA_H */
