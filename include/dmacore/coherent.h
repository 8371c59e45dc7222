/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_COHERENT_H
#define DMACORE_COHERENT_H

/**
 * DOC: Coherent memory
 *
 * Memory that CPU and device use at the same time, without sync calls: queues, descriptors,
 * doorbells.
 *
 *	dmacore_dma_t dma;
 *	void *queue;
 *
 *	error = dmacore_alloc_coherent(device, 4096, &queue, &dma);
 *	... CPU and device share it ...
 *	error = dmacore_free_coherent(device, 4096, queue, dma);
 *
 * It comes from the system's memory allocator (system.h), or from memory that is declared the device's
 * own: what lies on its board, or what nothing else may be in. Then all of it comes from there, that of
 * pools (coherent_pool.h) too, or not at all. The device has it at the addresses that it has all memory
 * at: those of its bus, for which it may have DMA ranges (device.h), or those that its domain gives out.
 *
 *	error = dmacore_declare_coherent_memory(device, 0x10000000, 1 << 20);
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/**
 * dmacore_alloc_coherent() - allocate memory that a device and the CPU share
 * @device: the device
 * @size: bytes, at least 1; rounded up to the page size, 4096
 * @out_cpu: receives the address for the CPU
 * @out_dma: receives the address for the device
 *
 * The memory is zeroed and starts at a multiple of the page size on both sides. A record is kept
 * of it on every path. The device may read and write it. The memory region that it lies in cannot
 * be removed until it is freed.
 *
 * Context: any thread; locked (device mappings, rank 4; flush queue, rank 7; IOVA cache, rank 8;
 *   IOVA store, rank 9); calls the memory allocator, and may call the table allocator, the domain's
 *   notifiers (rank 13), the device's mapping functions (sys/mapping_ops.h) and the system's cache, and wait
 *   for accesses in flight to end.
 * Ownership: the memory is the caller's until dmacore_free_coherent().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @size is 0 or rounds up to 2^64. Never succeeds if retried.
 *   -ENXIO   the device has no coherent mask. Not until it is set.
 *   -EPERM   the device is behind an IOMMU and attached to no domain, a blocked one, or an unmanaged
 *            or a nested one, which is reported too. Not until it is attached to another. Or its mapping
 *            functions are an empty table. Never.
 *   -EOPNOTSUPP  the system was given no memory allocator, and is not flat, or the device is not coherent
 *            (DMACORE_DEVICE_NONCOHERENT), and no memory is declared. Never.
 *   -EFAULT  the memory allocator, or the mapping functions' alloc, gave memory that is not inside a
 *            writable region of the system, or does not start at a multiple of the page size on both
 *            sides. Never.
 *   -ERANGE  on the direct path the memory lies above the coherent mask or the bus limit, or in no
 *            DMA range of the device; through an IOMMU too few addresses of the domain lie under them
 *            and in such a range. Not under this mask.
 *   -EREMOTEIO  the memory allocator gave memory of a peer (peer.h) that the device does not reach. Never.
 *   -ENOSPC  no free IOVA under the limit. May succeed later.
 *   -ENOMEM  no memory, or not so much in a row of what is declared, under the coherent mask and the bus
 *            limit. May succeed later.
 *   -EIO     the device's mapping functions gave an address that they may not give, which is reported.
 *   any other: what the mapping functions' map or alloc returned.
 */
DMACORE_MUST_CHECK
int dmacore_alloc_coherent(struct dmacore_device *device, uint64_t size, void **out_cpu,
			   dmacore_dma_t *out_dma);

/**
 * dmacore_free_coherent() - free memory from dmacore_alloc_coherent()
 * @device: the device
 * @size: the size that was asked for
 * @cpu: the CPU's address
 * @dma: the device's address
 *
 * Strict (domain.h), in a lazy domain too. Needs no memory and cannot fail for an allocation that
 * lives.
 *
 * Context: any thread; locked (device mappings, rank 4, and inside it zero-copy mappings, rank 5;
 *   IOVA cache, rank 8; IOVA store, rank 9); waits for accesses in flight to end; calls the memory
 *   allocator, and may call the domain's notifiers (rank 13), the device's mapping functions and the report
 *   callback.
 * Ownership: the memory may not be used afterwards.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or there is no such allocation of this device; nothing changed.
 *            Never succeeds if retried.
 *   -EBUSY   a zero-copy mapping holds the memory, by a view of this device or, through an IOMMU, of
 *            any device of the domain; nothing changed. Succeeds once it is gone.
 */
DMACORE_MUST_CHECK
int dmacore_free_coherent(struct dmacore_device *device, uint64_t size, void *cpu,
			  dmacore_dma_t dma);

/**
 * dmacore_declare_coherent_memory() - make memory a device's own
 * @device: the device
 * @phys: first physical address, a multiple of 4096
 * @size: bytes, a multiple of 4096, not 0
 *
 * Coherent allocations of the device come from here on from this memory, and fail when it is full; those
 * that live stay what they are. The memory lies in one region that devices may write, and that is not
 * backed by callbacks; the region cannot be removed meanwhile. It need not be zeroed. For a device that is
 * not coherent it is not cached, as the memory allocator's is.
 *
 * The declaration outlives the device's drivers, and ends with the device.
 *
 * Context: any thread; locked (device mappings, rank 4); calls nothing back.
 * Ownership: the memory is the device's until dmacore_release_coherent_memory(), or until the device is
 *   destroyed and no zero-copy mapping holds any: nobody else may use it.
 * Return: 0, or
 *   -EINVAL  @device is NULL, @phys or @size is not a multiple of 4096, @size is 0, or the range wraps.
 *            Never succeeds if retried.
 *   -EBUSY   the device has declared memory. Succeeds once it is released.
 *   -EFAULT  the range is not inside one region, devices may not write that, or its bytes do not start at
 *            a page in the process. Not while the region is there.
 *   -EOPNOTSUPP  callbacks back the region. Never.
 *   -ENOMEM  no memory to note what is allocated. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_declare_coherent_memory(struct dmacore_device *device, dmacore_phys_t phys,
				    uint64_t size);

/**
 * dmacore_release_coherent_memory() - end that memory is a device's own
 * @device: the device
 *
 * Coherent allocations come from the system's memory allocator again.
 *
 * Context: any thread; locked (device mappings, rank 4); calls nothing back.
 * Ownership: the memory is the caller's again.
 * Return: 0, or
 *   -EINVAL  @device is NULL. Never succeeds if retried.
 *   -ENOENT  the device has no declared memory. Not until there is some.
 *   -EBUSY   an allocation in it lives. Succeeds once they are freed.
 */
DMACORE_MUST_CHECK
int dmacore_release_coherent_memory(struct dmacore_device *device);

DMACORE_END_DECLS

#endif /* DMACORE_COHERENT_H */
