/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BOUNCE_H
#define DMACORE_BOUNCE_H

/**
 * DOC: Bounce pool
 *
 * A device that does not reach a buffer can be given a copy of it in memory that it reaches. A bounce
 * pool is such memory. It is made for a system, and devices use it whose buffers need it:
 *
 *	struct dmacore_bounce_pool_options options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
 *	struct dmacore_bounce_pool *pool;
 *
 *	options.size = 1 << 20;
 *	options.size_max = 64 << 20;
 *	options.limit = DMACORE_BIT_MASK(32);
 *	error = dmacore_bounce_pool_create(system, &options, &pool);
 *	error = dmacore_system_set_bounce_pool(system, pool);
 *
 * What is bounced, and nothing else, while there is a pool in reach:
 *
 * - what is mapped directly and lies above the mask or the bus limit, or in no DMA range of the device;
 * - through an IOMMU, for a device that is not trusted (DMACORE_DEVICE_UNTRUSTED): the first and the last
 *   page of a buffer, where it does not fill them, so that its neighbours there stay out of reach. What
 *   the device finds around the buffer is zero;
 * - all that is mapped directly for a device with DMACORE_DEVICE_FORCE_BOUNCE, and through an IOMMU, the
 *   pages that are not filled;
 * - all that is mapped for a device that is not trusted and behind no IOMMU;
 * - what the bus moves so that it loses low bits that the device asks for (@min_align_mask of struct
 *   dmacore_device_limits).
 *
 * What is bounced is copied to the pool when it is mapped, in every direction, so that what the device
 * does not write keeps its content; and back when it is unmapped, if the device writes. Syncing copies the
 * part that is synced: for the CPU if the device writes, and for the device always, so that what the CPU has
 * written there is kept too. So give back just what was lent. Memory that is not there reads as zeroes, and
 * is not written.
 *
 * The address that the device gets has the lowest 12 bits of the buffer's if that is as large as a page
 * or mapped through an IOMMU, and those that the device asks for (@min_align_mask). Where it need keep none
 * it starts at a multiple of 2048.
 *
 * A pool consists of chunks, runs of memory that it gets from the system's memory allocator (system.h),
 * and of 2048-byte slots in them. A copy takes slots in a row. A processor keeps a few that were given
 * back there at hand, which are free all the same: whoever finds no others gets them. A mapping fails
 * for want of them with -ENOSPC only when no chunk that the device reaches had so many free at a moment
 * within the call, and then the pool could not grow by so many, or others have taken these since. Pools
 * do not shrink.
 *
 * Stability: may change before 1.0.
 */

#include "system.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_bounce_pool;
struct dmacore_system;

/**
 * struct dmacore_bounce_pool_options - how a bounce pool is made
 * @struct_size: sizeof(struct dmacore_bounce_pool_options)
 * @flags: zero
 * @reserved: zero
 * @size: bytes that it starts with, and grows by if nobody needs more, a multiple of 4096; 0: 1 MiB
 * @size_max: bytes that it grows to, a multiple of 4096, at least @size, at most 2^41; 0: 64 MiB, or @size
 *   if that is more. As large as @size: it does not grow
 * @limit: highest physical address of its memory; 0: no limit
 */
struct dmacore_bounce_pool_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	uint64_t size;
	uint64_t size_max;
	dmacore_phys_t limit;
};

#define DMACORE_BOUNCE_POOL_OPTIONS_INIT \
	{ sizeof(struct dmacore_bounce_pool_options), 0, 0, 0, 0, 0 }

/**
 * struct dmacore_bounce_pool_statistics - what a bounce pool holds and has done
 * @struct_size: set to sizeof(struct dmacore_bounce_pool_statistics) before the call
 * @slot_count: slots, of 2048 bytes each
 * @used_count: slots in use
 * @used_count_max: the most of them at one time, since the pool was made or
 *   dmacore_bounce_pool_reset_high_water() was called; slots that a processor has at hand, up to 15 single
 *   ones and 15 pages, count among them when another takes some
 * @chunk_count: runs of memory that it consists of: one, and one for each time that it grew
 * @full_count: mappings that failed because it was full
 * @copied_to_pool: bytes that were copied into slots
 * @copied_from_pool: bytes that were copied out of them
 */
struct dmacore_bounce_pool_statistics {
	size_t struct_size;
	uint64_t slot_count;
	uint64_t used_count;
	uint64_t used_count_max;
	uint64_t chunk_count;
	uint64_t full_count;
	uint64_t copied_to_pool;
	uint64_t copied_from_pool;
};

/**
 * dmacore_bounce_pool_create() - make a bounce pool
 * @system: the system whose memory it is
 * @options: how; NULL: all defaults
 * @out_pool: receives the pool, or NULL on failure
 *
 * It is used by the devices that are made with it (device.h), or those of a system that it is set for.
 *
 * Context: any thread; locked (bounce chunks, rank 18); calls the system's memory allocator.
 * Ownership: the caller gives the pool back with dmacore_bounce_pool_destroy(); it holds on to the
 *   system.
 * Return: 0, or
 *   -EINVAL  @system or @out_pool is NULL, a flag or a reserved member is set, a size is not a multiple
 *            of 4096, @size is above @size_max or that above 2^41, or the structure is too short. Never
 *            succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -EOPNOTSUPP  the system has no memory allocator and is not flat. Never.
 *   -EFAULT  the memory allocator gave memory that is not the system's, not writable or not whole
 *            pages. Not until that is mended.
 *   -ERANGE  it gave memory above @limit. Likewise.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_bounce_pool_create(struct dmacore_system *system,
			       const struct dmacore_bounce_pool_options *options,
			       struct dmacore_bounce_pool **out_pool);

/**
 * dmacore_bounce_pool_destroy() - give a bounce pool back
 * @pool: the pool, or NULL
 *
 * Take it from the system and destroy its devices first; see the lifetime rule in system.h: they hold on
 * to it, and so do live mappings. Its memory is freed when the last of them ends.
 *
 * Context: any thread; locked (bounce chunks, rank 18); may call the memory allocator and the report
 *   callback.
 * Ownership: @pool may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_bounce_pool_destroy(struct dmacore_bounce_pool *pool);

/**
 * dmacore_bounce_pool_statistics() - read what a bounce pool holds and has done
 * @pool: the pool
 * @out_statistics: receives the numbers; @out_statistics->struct_size says how many of them there
 *   is room for
 *
 * Context: any thread; locked (bounce area, rank 15); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_bounce_pool_statistics(struct dmacore_bounce_pool *pool,
				   struct dmacore_bounce_pool_statistics *out_statistics);

/**
 * dmacore_bounce_pool_reset_high_water() - count the most slots in use from now on
 * @pool: the pool
 *
 * Slots that processors have at hand are no longer.
 *
 * Context: any thread; locked (bounce area, rank 15); waits for mapping calls under way; calls nothing
 *   back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @pool is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_bounce_pool_reset_high_water(struct dmacore_bounce_pool *pool);

DMACORE_END_DECLS

#endif /* DMACORE_BOUNCE_H */
