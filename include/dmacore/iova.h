/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_IOVA_H
#define DMACORE_IOVA_H

/**
 * DOC: IOVA space
 *
 * An IOVA space knows which ranges of I/O virtual addresses are in use and finds free ones. It
 * stands alone: it knows no device and no page table, and holds no memory inside the space.
 *
 *	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
 *	struct dmacore_iova_space *space;
 *	dmacore_iova_t iova;
 *
 *	options.first = 0x1000;
 *	options.last = UINT32_MAX;
 *	error = dmacore_iova_space_create(&options, &space);
 *	error = dmacore_iova_space_allocate(space, 8192, 0, UINT64_MAX, &iova);
 *
 * Every range starts at a multiple of the granule and is a multiple of it long; no more than the
 * size rounded up to the granule is ever taken.
 *
 * Where an allocation lies. Addresses below 4 GiB are kept for devices that reach no others: an
 * allocation whose limit is higher gets one of them only when nothing above is left. Above, it gets
 * whichever place is at hand; below, the highest. dmacore_iova_space_allocate_with() has a say in
 * it. There is a place whenever a free range fulfils the constraints: -ENOSPC is exact.
 *
 * Caches. A range of a power of two of granules, aligned to its size, stays in a cache of the
 * processor when it is freed, and goes to the next who wants one like it, there or elsewhere.
 * Cached ranges are free: every cache gives back what it has before an allocation or a reservation
 * fails. Caches of a size that is not used any more empty themselves while others allocate, and
 * dmacore_iova_space_drain() empties all at once.
 *
 * Wrong frees. Freeing a range that is not allocated, twice, or with a wrong size never harms the
 * space. What went into a cache like that may be handed out, so that two have it, until the range
 * comes back from the caches; then it is refused, counted and reported. A space that is made with
 * DMACORE_IOVA_SPACE_CHECKED has no caches, and refuses it at once; an allocation in it, unless the
 * constraints say otherwise, gets the highest place, so that the same calls have the same results.
 *
 * Costs. Allocating and freeing take a time that grows with the logarithm of the number of ranges,
 * however they lie, for any size at the alignment of the granule, for powers of two at their natural
 * alignment, and whenever there is a free range of size + alignment (twice that with a boundary)
 * within the limits. For the rest the search goes through those free ranges that are long enough;
 * @searched_gaps of the statistics counts them. Metadata takes at most 40 bytes for each range in
 * use, beside 8 for each that is cached, and a fixed part for each processor.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_iova_space;

enum dmacore_iova_space_flags {
	/* Every free is checked at once, and nothing is cached. */
	DMACORE_IOVA_SPACE_CHECKED = 1,
};

/**
 * struct dmacore_iova_space_options - how an IOVA space is made
 * @struct_size: sizeof(struct dmacore_iova_space_options)
 * @flags: bits of enum dmacore_iova_space_flags
 * @reserved: zero
 * @granule: bytes, a power of two; 0: 4096
 * @first: lowest address, a multiple of @granule
 * @last: highest address, inclusive, one less than a multiple of @granule; 0: the highest of the
 *   64-bit space
 * @report: receives messages about wrong frees; NULL: nobody does
 * @report_opaque: passed to @report
 */
struct dmacore_iova_space_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	uint64_t granule;
	dmacore_iova_t first;
	dmacore_iova_t last;
	dmacore_report_fn report;
	void *report_opaque;
};

#define DMACORE_IOVA_SPACE_OPTIONS_INIT \
	{ sizeof(struct dmacore_iova_space_options), 0, 0, 0, 0, 0, NULL, NULL }

enum dmacore_iova_placement {
	/* Any place above 4 GiB while there is one; below, the highest, aligned for the caches. */
	DMACORE_IOVA_ANYWHERE = 0,
	/* From the highest address down. */
	DMACORE_IOVA_TOP_DOWN = 1,
	/* From the lowest address up. */
	DMACORE_IOVA_BOTTOM_UP = 2,
	/* At @first, or nowhere. */
	DMACORE_IOVA_EXACT = 3,
};

/**
 * struct dmacore_iova_constraints - where a range may lie
 * @struct_size: sizeof(struct dmacore_iova_constraints)
 * @placement: one of enum dmacore_iova_placement
 * @reserved: zero
 * @alignment: a power of two; 0: the granule, as is every smaller one
 * @skew: the address is this much more than a multiple of @alignment; a multiple of the granule,
 *   below @alignment. For devices that preserve the low bits of an address
 * @boundary: the range crosses no multiple of this power of two, which is not less than the size
 *   rounded up to the granule; 0: it may cross any
 * @first: lowest address that the range may have
 * @last: highest address that the range may have, inclusive
 *
 * Top-down is: in the highest free range in which size and alignment certainly find room
 * (whichever way it lies), as high as it can be; only where there is none, in the highest in which
 * they happen to. At the alignment of the granule, or a natural one, both are the same. Bottom-up
 * is its mirror image. Ranges that caches hold are looked at only when no other is left.
 */
struct dmacore_iova_constraints {
	size_t struct_size;
	uint32_t placement;
	uint32_t reserved;
	uint64_t alignment;
	uint64_t skew;
	uint64_t boundary;
	dmacore_iova_t first;
	dmacore_iova_t last;
};

#define DMACORE_IOVA_CONSTRAINTS_INIT \
	{ sizeof(struct dmacore_iova_constraints), 0, 0, 0, 0, 0, 0, UINT64_MAX }

/**
 * struct dmacore_iova_space_statistics - what an IOVA space holds and has done
 * @struct_size: set to sizeof(struct dmacore_iova_space_statistics) before the call
 * @allocated_count: allocated ranges
 * @allocated_bytes: bytes in them
 * @reserved_count: reserved ranges
 * @reserved_bytes: bytes in them
 * @free_bytes: bytes in neither, cached ones among them
 * @largest_free_bytes: bytes of the longest free range, not counting what is cached
 * @cached_count: ranges in caches
 * @cached_bytes: bytes in them
 * @taken_count_max: the most ranges that were allocated or cached at once
 * @taken_bytes_max: the most bytes in such ranges
 * @cache_allocations: allocations that a cache served
 * @cache_frees: frees that went into a cache
 * @store_allocations: allocations that no cache served
 * @store_frees: frees that no cache took, and ranges that came back from caches
 * @refused_frees: frees, and ranges from caches, that were no allocated range
 * @drains: how often all caches gave back what they had
 * @searched_gaps: free ranges looked at in searches that had to go through many
 * @metadata_bytes: memory that the space takes, but for the space itself
 *
 * Of bytes, UINT64_MAX stands for 2^64 too. While a range is cached that was freed twice,
 * @allocated_count and @allocated_bytes may be too low by it.
 */
struct dmacore_iova_space_statistics {
	size_t struct_size;
	uint64_t allocated_count;
	uint64_t allocated_bytes;
	uint64_t reserved_count;
	uint64_t reserved_bytes;
	uint64_t free_bytes;
	uint64_t largest_free_bytes;
	uint64_t cached_count;
	uint64_t cached_bytes;
	uint64_t taken_count_max;
	uint64_t taken_bytes_max;
	uint64_t cache_allocations;
	uint64_t cache_frees;
	uint64_t store_allocations;
	uint64_t store_frees;
	uint64_t refused_frees;
	uint64_t drains;
	uint64_t searched_gaps;
	uint64_t metadata_bytes;
};

enum dmacore_iova_use {
	DMACORE_IOVA_FREE = 0,
	DMACORE_IOVA_ALLOCATED = 1,
	DMACORE_IOVA_RESERVED = 2,
};

/**
 * typedef dmacore_iova_visit_fn - receives one range of a space
 *
 * Called on the thread that visits, with no lock held: it may call any function of the space but
 * dmacore_iova_space_destroy(). @use is one of enum dmacore_iova_use. Returns whether to go on.
 */
typedef bool (*dmacore_iova_visit_fn)(dmacore_iova_t first, dmacore_iova_t last, uint32_t use,
				      void *opaque);

/**
 * typedef dmacore_iova_dump_fn - receives one line of text about a space
 *
 * Called like dmacore_iova_visit_fn. @line has no line end, at most 255 bytes, and is valid during
 * the call alone.
 */
typedef void (*dmacore_iova_dump_fn)(const char *line, void *opaque);

/**
 * dmacore_iova_space_create() - make an IOVA space, all of it free
 * @options: how; NULL: 4 KiB granules over the whole 64-bit space, with caches
 * @out_space: receives the space, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the space back with dmacore_iova_space_destroy(). What
 *   @options->report points to must outlive the space.
 * Return: 0, or
 *   -EINVAL  @out_space is NULL, @granule is no power of two, @first or @last is not aligned to it
 *            or they are the wrong way round, a flag is unknown, a reserved member is not zero, or
 *            the structure is too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_create(const struct dmacore_iova_space_options *options,
			      struct dmacore_iova_space **out_space);

/**
 * dmacore_iova_space_destroy() - give an IOVA space back
 * @space: the space, or NULL
 *
 * Ranges that are still allocated or reserved go with it.
 *
 * Context: any thread, while no other uses @space; takes no lock; calls nothing back.
 * Ownership: @space may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_iova_space_destroy(struct dmacore_iova_space *space);

/**
 * dmacore_iova_space_allocate() - allocate a free range
 * @space: the space
 * @size: bytes, at least 1; rounded up to the granule
 * @alignment: the range starts at a multiple of this, a power of two; 0: the granule
 * @limit: no byte of the range lies above this address; UINT64_MAX: the space's own end
 * @out_iova: receives the first address
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9), while no memory is
 *   allocated; may call the report callback, about earlier frees.
 * Ownership: the range is the caller's until dmacore_iova_space_free().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0 or rounds up to 2^64, or @alignment is no power of two.
 *            Never succeeds if retried.
 *   -ENOSPC  no free range fits. May succeed once ranges are freed or unreserved.
 *   -ENOMEM  no memory to record the range. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_allocate(struct dmacore_iova_space *space, uint64_t size, uint64_t alignment,
				dmacore_iova_t limit, dmacore_iova_t *out_iova);

/**
 * dmacore_iova_space_allocate_with() - allocate a free range under constraints
 * @space: the space
 * @size: bytes, at least 1; rounded up to the granule
 * @constraints: where the range may lie; NULL: anywhere
 * @out_iova: receives the first address
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9), while no memory is
 *   allocated; may call the report callback, about earlier frees.
 * Ownership: the range is the caller's until dmacore_iova_space_free().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0 or rounds up to 2^64, or the constraints are not as they
 *            should be: a member that is no power of two, @skew not below @alignment or no multiple
 *            of the granule, @boundary less than the rounded size, @first above @last, for
 *            DMACORE_IOVA_EXACT no multiple of the granule, an unknown placement, a reserved member
 *            that is not zero, or the structure too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOSPC  no free range fits. May succeed once ranges are freed or unreserved, unless the
 *            constraints contradict each other.
 *   -ENOMEM  no memory to record the range. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_allocate_with(struct dmacore_iova_space *space, uint64_t size,
				     const struct dmacore_iova_constraints *constraints,
				     dmacore_iova_t *out_iova);

/**
 * dmacore_iova_space_free() - free an allocated range
 * @space: the space
 * @iova: the first address, as allocated
 * @size: the size that was asked for at allocation; rounded up to the granule alike
 *
 * Needs no memory and cannot fail for a range that is allocated. Any thread may free what another
 * allocated.
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9); may call the report
 *   callback.
 * Ownership: the range is the caller's no longer.
 * Return: 0, or
 *   -EINVAL  @space is NULL, or it was seen that no allocated range starts at @iova and has this
 *            size: in a checked space always. That is reported, too. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_free(struct dmacore_iova_space *space, dmacore_iova_t iova, uint64_t size);

/**
 * dmacore_iova_space_reserve() - keep a range from being allocated
 * @space: the space
 * @first: lowest address, a multiple of the granule
 * @last: highest address, inclusive, one less than a multiple of the granule
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9), while no memory is
 *   allocated; may call the report callback, about earlier frees.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @space is NULL, an end is not aligned, or they are the wrong way round. Never
 *            succeeds if retried.
 *   -ERANGE  the range reaches out of the space. Never.
 *   -EBUSY   a part is allocated or reserved. May succeed once it is freed or unreserved.
 *   -ENOMEM  no memory to record the range. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_reserve(struct dmacore_iova_space *space, dmacore_iova_t first,
			       dmacore_iova_t last);

/**
 * dmacore_iova_space_unreserve() - let a reserved range be allocated again
 * @space: the space
 * @first: lowest address, as reserved
 * @last: highest address, as reserved
 *
 * Needs no memory.
 *
 * Context: any thread; locked (IOVA store, rank 9); may call the report callback, about earlier
 *   frees.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @space is NULL, or there is no reserved range of exactly these ends. Never succeeds
 *            if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_unreserve(struct dmacore_iova_space *space, dmacore_iova_t first,
				 dmacore_iova_t last);

/**
 * dmacore_iova_space_drain() - empty all caches
 * @space: the space
 *
 * Every cached range goes back to the space, and the memory of the caches to the heap. Takes a time
 * that grows with the number of cached ranges, during which other threads wait.
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9); may call the report
 *   callback, about earlier frees.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @space is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_drain(struct dmacore_iova_space *space);

/**
 * dmacore_iova_space_largest_free() - find the length of the longest free range
 * @space: the space
 * @first: no byte of the range lies below this address
 * @last: no byte of the range lies above this address
 * @out_bytes: receives the length, whole granules; 0: there is none; UINT64_MAX stands for 2^64 too
 *
 * What is cached does not count; dmacore_iova_space_drain() leaves nothing cached.
 *
 * Context: any thread; locked (IOVA store, rank 9); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @first is above @last. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_largest_free(struct dmacore_iova_space *space, dmacore_iova_t first,
				    dmacore_iova_t last, uint64_t *out_bytes);

/**
 * dmacore_iova_space_statistics() - read what an IOVA space holds and has done
 * @space: the space
 * @out_statistics: receives the numbers, all of one moment; @out_statistics->struct_size says how
 *   many of them there is room for
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_statistics(struct dmacore_iova_space *space,
				  struct dmacore_iova_space_statistics *out_statistics);

/**
 * dmacore_iova_space_visit() - go through the ranges of a space
 * @space: the space
 * @visit: called for each range, free or in use, from the lowest address up, until it returns false
 * @opaque: passed to @visit
 *
 * Empties the caches first, so that what was freed is free. Ranges that change meanwhile are seen as
 * they were or as they are; those seen are in order, and together cover the space.
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9); calls @visit, and may call
 *   the report callback.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_visit(struct dmacore_iova_space *space, dmacore_iova_visit_fn visit,
			     void *opaque);

/**
 * dmacore_iova_space_dump() - describe a space in text, for a person
 * @space: the space
 * @dump: called for each line
 * @opaque: passed to @dump
 *
 * Says how much is in use, draws where, and counts the free ranges by their lengths: whoever wonders
 * why nothing fits sees whether the space is full or in pieces. Empties the caches first. The text
 * is for people and may change with any release.
 *
 * Context: any thread; locked (IOVA cache, rank 8; IOVA store, rank 9); calls @dump, and may call
 *   the report callback.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_dump(struct dmacore_iova_space *space, dmacore_iova_dump_fn dump,
			    void *opaque);

DMACORE_END_DECLS

#endif /* DMACORE_IOVA_H */
