/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_NONCONTIGUOUS_H
#define DMACORE_NONCONTIGUOUS_H

/**
 * DOC: Noncontiguous memory
 *
 * A large buffer that is one range for the device, and in memory as few runs of bytes as can be had:
 * frames of a camera, the rings of a capture card.
 *
 *	const struct dmacore_memory_segment *segments;
 *	dmacore_dma_t dma;
 *	size_t count;
 *
 *	error = dmacore_alloc_noncontiguous(device, size, DMACORE_FROM_DEVICE, 0, &dma,
 *		&segments, &count);
 *	... the device writes at dma ...
 *	error = dmacore_sync_for_cpu(device, dma, size, DMACORE_FROM_DEVICE);
 *	... the CPU reads segments[0].cpu, segments[1].cpu ...
 *	error = dmacore_free_noncontiguous(device, size, dma);
 *
 * It belongs to the device like a buffer that is mapped (mapping.h), and to the CPU in between by the
 * sync calls.
 *
 * Through an IOMMU the system's memory allocator is asked for all of it, and then for halves of what it
 * does not have, down to a page. A device that is mapped directly must have it in one run, and so must
 * the heap of the process, where that is the memory of a flat system.
 *
 * Stability: may change before 1.0.
 */

#include "mapping.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/**
 * struct dmacore_memory_segment - a run of bytes of allocated memory
 * @cpu: the first byte, at a multiple of 4096
 * @phys: its physical address
 * @size: bytes, a multiple of 4096
 */
struct dmacore_memory_segment {
	void *cpu;
	dmacore_phys_t phys;
	uint64_t size;
};

/**
 * dmacore_alloc_noncontiguous() - allocate a buffer that is one range for a device
 * @device: the device
 * @size: bytes, at least 1; rounded up to the page size, 4096
 * @direction: one of enum dmacore_direction (mapping.h)
 * @attributes: bits of enum dmacore_attributes (mapping.h), but DMACORE_ATTR_MMIO
 * @out_dma: receives the address for the device, a multiple of 4096
 * @out_segments: receives the runs of bytes that make up the range, in its order
 * @out_count: receives how many
 *
 * The memory is zeroed, and under the streaming mask. It is the device's, until dmacore_sync_for_cpu(). A
 * record is kept of it on every path. The memory regions that it lies in cannot be removed until it is
 * freed.
 *
 * Context: as dmacore_alloc_coherent().
 * Ownership: the memory is the caller's until dmacore_free_noncontiguous(), and the segments until then
 *   the library's.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0 or rounds up to 2^64, or the direction or an attribute is
 *            unknown. Never succeeds if retried.
 *   -ENXIO   the device has no streaming mask. Not until it is set.
 *   -EOPNOTSUPP  DMACORE_ATTR_REQUIRE_COHERENT, and the device is not coherent; or the system was given no
 *            memory allocator, and is not flat, or the device is not coherent. Never.
 *   any other: as dmacore_alloc_coherent(), under the streaming mask, and never from declared memory.
 */
DMACORE_MUST_CHECK
int dmacore_alloc_noncontiguous(struct dmacore_device *device, uint64_t size, uint32_t direction,
				uint32_t attributes, dmacore_dma_t *out_dma,
				const struct dmacore_memory_segment **out_segments,
				size_t *out_count);

/**
 * dmacore_free_noncontiguous() - free memory from dmacore_alloc_noncontiguous()
 * @device: the device
 * @size: the size that was asked for
 * @dma: the device's address
 *
 * Strict (domain.h), in a lazy domain too. Needs no memory and cannot fail for an allocation that lives.
 *
 * Context: as dmacore_free_coherent().
 * Ownership: neither the memory nor the segments may be used afterwards.
 * Return: 0, or
 *   -EINVAL  @device is NULL, or there is no such allocation of this device; nothing changed. Never
 *            succeeds if retried.
 *   -EBUSY   as dmacore_free_coherent().
 */
DMACORE_MUST_CHECK
int dmacore_free_noncontiguous(struct dmacore_device *device, uint64_t size, dmacore_dma_t dma);

DMACORE_END_DECLS

#endif /* DMACORE_NONCONTIGUOUS_H */
