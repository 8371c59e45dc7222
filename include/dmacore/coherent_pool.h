/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_COHERENT_POOL_H
#define DMACORE_COHERENT_POOL_H

/**
 * DOC: Coherent pool
 *
 * Objects of one size in coherent memory (coherent.h), many to a page: descriptors, commands,
 * completions.
 *
 *	struct dmacore_coherent_pool_options options = DMACORE_COHERENT_POOL_OPTIONS_INIT;
 *	struct dmacore_coherent_pool *pool;
 *	dmacore_dma_t dma;
 *	void *command;
 *
 *	options.size = 64;
 *	options.alignment = 64;
 *	error = dmacore_coherent_pool_create(device, &options, &pool);
 *	error = dmacore_coherent_pool_alloc(pool, &command, &dma);
 *	... CPU and device share it ...
 *	error = dmacore_coherent_pool_free(pool, command, dma);
 *	dmacore_coherent_pool_destroy(pool);
 *
 * The pool takes pages as dmacore_alloc_coherent() does, when it needs one, and keeps them until it is
 * destroyed: they count among the device's live mappings, and keep its domain where it is. What the
 * pool knows of its objects lies elsewhere, where no device can write.
 *
 * A pool is for objects up to a page. Larger ones are as many calls of dmacore_alloc_coherent().
 *
 * When the device is taken from its driver (driver.h) or destroyed, the pages are freed with all else
 * that is left. The pool is then good for nothing but dmacore_coherent_pool_destroy(). All calls here with
 * a pool count as mapping calls of its device.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_coherent_pool;
struct dmacore_device;

/**
 * struct dmacore_coherent_pool_options - how a pool is made
 * @struct_size: sizeof(struct dmacore_coherent_pool_options)
 * @flags: zero
 * @reserved: zero
 * @size: bytes of an object, 1 to 4096
 * @alignment: objects start at multiples of this on both sides: a power of two up to 4096; below 8: 8
 * @boundary: no object crosses a multiple of this on either side: a power of two, not below @size; 0:
 *   there is none
 */
struct dmacore_coherent_pool_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	uint64_t size;
	uint64_t alignment;
	uint64_t boundary;
};

#define DMACORE_COHERENT_POOL_OPTIONS_INIT \
	{ sizeof(struct dmacore_coherent_pool_options), 0, 0, 0, 0, 0 }

/**
 * dmacore_coherent_pool_create() - make a pool of a device
 * @device: the device
 * @options: how; NULL is -EINVAL, as there is no usual size
 * @out_pool: receives the pool, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the pool back with dmacore_coherent_pool_destroy(); it holds on to the
 *   device.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, a flag or @reserved is set, the size, the alignment or the boundary is
 *            none, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_coherent_pool_create(struct dmacore_device *device,
				 const struct dmacore_coherent_pool_options *options,
				 struct dmacore_coherent_pool **out_pool);

/**
 * dmacore_coherent_pool_destroy() - give a pool back
 * @pool: the pool, or NULL
 *
 * Objects that have not been freed are reported (DMACORE_REPORT_WARNING). The pages in which they lie, and
 * those that a zero-copy mapping of a view holds, stay allocated for the device, which can still reach
 * them, until it is taken from its driver or destroyed.
 *
 * Context: any thread, while no other call is made with @pool; as dmacore_free_coherent().
 * Ownership: @pool may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_coherent_pool_destroy(struct dmacore_coherent_pool *pool);

/**
 * dmacore_coherent_pool_alloc() - take an object out of a pool
 * @pool: the pool
 * @out_cpu: receives the address for the CPU
 * @out_dma: receives the address for the device
 *
 * The object is zeroed. Takes constant time while the pool has a free one.
 *
 * Context: any thread; locked (coherent pool, rank 17); where the pool has no free object, as
 *   dmacore_alloc_coherent().
 * Ownership: the object is the caller's until dmacore_coherent_pool_free().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -ENODEV  the device was taken from its driver since the pool was made, or destroyed. Never.
 *   any other but -EINVAL: what dmacore_alloc_coherent() returned for a page.
 */
DMACORE_MUST_CHECK
int dmacore_coherent_pool_alloc(struct dmacore_coherent_pool *pool, void **out_cpu,
				dmacore_dma_t *out_dma);

/**
 * dmacore_coherent_pool_free() - put an object back into its pool
 * @pool: the pool
 * @cpu: the CPU's address
 * @dma: the device's address
 *
 * The device keeps reaching the object, whose page stays mapped. What is no object of the pool, and what
 * is free already, is refused and reported. Takes a time that is logarithmic in the number of pages;
 * needs no memory.
 *
 * Context: any thread; locked (coherent pool, rank 17); may call the report callback.
 * Ownership: the object may not be used afterwards.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or there is no such object that has been taken; nothing changed. Never
 *            succeeds if retried.
 *   -ENODEV  the device was taken from its driver since the pool was made, or destroyed, and the object
 *            is gone. Never.
 */
DMACORE_MUST_CHECK
int dmacore_coherent_pool_free(struct dmacore_coherent_pool *pool, void *cpu, dmacore_dma_t dma);

DMACORE_END_DECLS

#endif /* DMACORE_COHERENT_POOL_H */
