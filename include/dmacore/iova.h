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
 * Every range starts at a multiple of the granule and is a multiple of it long. Allocation goes
 * from the top down, so that low addresses stay free for devices that reach no others.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_iova_space;

/**
 * struct dmacore_iova_space_options - how an IOVA space is made
 * @struct_size: sizeof(struct dmacore_iova_space_options)
 * @flags: zero
 * @reserved: zero
 * @granule: bytes, a power of two; 0: 4096
 * @first: lowest address, a multiple of @granule
 * @last: highest address, inclusive, one less than a multiple of @granule; 0: the highest of the
 *   64-bit space
 */
struct dmacore_iova_space_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	uint64_t granule;
	dmacore_iova_t first;
	dmacore_iova_t last;
};

#define DMACORE_IOVA_SPACE_OPTIONS_INIT \
	{ sizeof(struct dmacore_iova_space_options), 0, 0, 0, 0, 0 }

/**
 * struct dmacore_iova_space_statistics - what an IOVA space holds
 * @struct_size: set to sizeof(struct dmacore_iova_space_statistics) before the call
 * @allocated_count: allocated ranges
 * @allocated_bytes: bytes in them
 * @reserved_count: reserved ranges
 * @reserved_bytes: bytes in them
 * @free_bytes: bytes in neither
 * @largest_free_bytes: bytes of the longest free range
 *
 * Of bytes, UINT64_MAX stands for 2^64 too.
 */
struct dmacore_iova_space_statistics {
	size_t struct_size;
	uint64_t allocated_count;
	uint64_t allocated_bytes;
	uint64_t reserved_count;
	uint64_t reserved_bytes;
	uint64_t free_bytes;
	uint64_t largest_free_bytes;
};

/**
 * dmacore_iova_space_create() - make an IOVA space, all of it free
 * @options: how; NULL: 4 KiB granules over the whole 64-bit space
 * @out_space: receives the space, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the space back with dmacore_iova_space_destroy().
 * Return: 0, or
 *   -EINVAL  @out_space is NULL, @granule is no power of two, @first or @last is not aligned to it
 *            or they are the wrong way round, a flag is set, a reserved member is not zero, or the
 *            structure is too short. Never succeeds if retried.
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
 * Context: any thread, while no other uses @space.
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
 * Takes the highest place that fits. It finds one whenever there is one.
 *
 * Context: any thread; locked (IOVA space, rank 5); calls nothing back.
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
 * dmacore_iova_space_free() - free an allocated range
 * @space: the space
 * @iova: the first address, as allocated
 * @size: the size that was asked for at allocation; rounded up to the granule alike
 *
 * Needs no memory and cannot fail for a range that is allocated.
 *
 * Context: any thread; locked (IOVA space, rank 5); calls nothing back.
 * Ownership: the range is the caller's no longer.
 * Return: 0, or
 *   -EINVAL  @space is NULL, or no allocated range starts at @iova and has this size. Never
 *            succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_free(struct dmacore_iova_space *space, dmacore_iova_t iova, uint64_t size);

/**
 * dmacore_iova_space_reserve() - keep a range from being allocated
 * @space: the space
 * @first: lowest address, a multiple of the granule
 * @last: highest address, inclusive, one less than a multiple of the granule
 *
 * Context: any thread; locked (IOVA space, rank 5); calls nothing back.
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
 * Context: any thread; locked (IOVA space, rank 5); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @space is NULL, or there is no reserved range of exactly these ends. Never succeeds
 *            if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_unreserve(struct dmacore_iova_space *space, dmacore_iova_t first,
				 dmacore_iova_t last);

/**
 * dmacore_iova_space_statistics() - read what an IOVA space holds
 * @space: the space
 * @out_statistics: receives the numbers, all of one moment; @out_statistics->struct_size says how
 *   many of them there is room for
 *
 * Context: any thread; locked (IOVA space, rank 5); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_iova_space_statistics(struct dmacore_iova_space *space,
				  struct dmacore_iova_space_statistics *out_statistics);

DMACORE_END_DECLS

#endif /* DMACORE_IOVA_H */
