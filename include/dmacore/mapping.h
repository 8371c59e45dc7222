/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_MAPPING_H
#define DMACORE_MAPPING_H

/**
 * DOC: DMA mapping
 *
 * The driver's side: a mapping call turns a buffer into an address that the device may use until
 * the buffer is unmapped.
 *
 *	dmacore_dma_t dma;
 *
 *	error = dmacore_map_single(device, buffer, size, DMACORE_TO_DEVICE, 0, &dma);
 *	... the device reads the buffer at dma ...
 *	error = dmacore_unmap(device, dma, size, DMACORE_TO_DEVICE, 0);
 *
 * Who may touch the buffer:
 *
 *	           map                     sync_for_cpu
 *	  CPU ------------> device <-------------------------> CPU, for a while
 *	   ^                  |            sync_for_device
 *	   +------------------+
 *	          unmap
 *
 * What the CPU writes while it has a part is the device's after dmacore_sync_for_device(), for just the part
 * that it was lent. Unmapping hands back what the device has: where there is a copy, in a cache or a bounce
 * buffer, what was lent and written and not given back is lost.
 *
 * The mapping remembers how it was made. Where a record is kept of it (always where a page table is
 * filled in; on the direct path with DMACORE_DEVICE_TRACK_DIRECT) an unmap or sync with the wrong
 * address, size, direction or device is refused, reported and changes nothing.
 *
 * Unmapping is strict but in a lazy domain (domain.h names what an unmap promises, 1 to 3). When
 * dmacore_unmap() returns no access of the device through the mapping will start (1), none comes
 * from a cached translation (2), and none through a view is in flight (3): the memory may be given
 * to somebody else at once, in a lazy domain after the next flush. There are three exceptions: a
 * zero-copy mapping of the range, which unmap reports (DMACORE_REPORT_WARNING; in a lazy domain not
 * one that is being made just then); an access that is inside a callback of a memory region, which
 * may itself unmap; and a direct mapping without a record, whose end takes nothing from a device
 * that reaches all memory anyway.
 *
 * For a device that does not see the caches of the processors (DMACORE_DEVICE_NONCOHERENT) these calls
 * make caches and memory agree, by the system's @cache: all of the buffer when it is mapped, what is
 * synced, and when it is unmapped all of it, if the device writes.
 *
 * What is bounced (bounce.h) is a copy, which these calls make: of all of the buffer when it is mapped, back
 * when it is unmapped if the device writes, and of what is synced. What such a mapping needs is always kept.
 *
 * A device may have mapping functions (sys/mapping_ops.h). Then these calls call those, with no lock held,
 * for what is not direct, and a record is kept of every mapping.
 *
 * Which path a mapping takes (enum dmacore_path) is decided when it is made, for the range that is mapped,
 * and dmacore_device_explain() tells it beforehand.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/* Who writes a buffer, seen from memory: the values of the kernel's enum dma_data_direction. */
enum dmacore_direction {
	/* The device reads and writes. */
	DMACORE_BIDIRECTIONAL = 0,
	/* The device reads. */
	DMACORE_TO_DEVICE = 1,
	/* The device writes. */
	DMACORE_FROM_DEVICE = 2,
};

/*
 * What a mapping call is told beside addresses: bits, with the values of the kernel's DMA_ATTR_*. Those of
 * unmap and sync calls are the ones that the mapping was made with.
 */
enum dmacore_attributes {
	/* The device's accesses may pass one another. A hint, without an effect on the path. */
	DMACORE_ATTR_WEAK_ORDERING = 1 << 1,
	/*
	 * Leave the processors' caches alone when mapping and unmapping, but for a copy that the library has
	 * written, and copy nothing back when what is bounced is unmapped: the caller syncs what is used.
	 */
	DMACORE_ATTR_SKIP_CPU_SYNC = 1 << 5,
	/* Report no failure of this call: the caller copes. */
	DMACORE_ATTR_NO_WARN = 1 << 8,
	/* Only requests with privilege reach it, where the page table's format can tell. */
	DMACORE_ATTR_PRIVILEGED = 1 << 9,
	/* The range is that of a device's registers, not memory: it has no caches to maintain. */
	DMACORE_ATTR_MMIO = 1 << 10,
	/* Fail rather than need sync calls: for users of the buffer that cannot make any. */
	DMACORE_ATTR_REQUIRE_COHERENT = 1 << 12,
};

/* How a mapping reaches what it leads to. */
enum dmacore_path {
	/* Not at all. */
	DMACORE_PATH_REFUSED = 0,
	/* At the memory's own address, or what the device's DMA ranges make of it. */
	DMACORE_PATH_DIRECT = 1,
	/* Directly, at a bounce buffer that is copied to and from. */
	DMACORE_PATH_BOUNCED = 2,
	/* At addresses that the IOMMU translates. */
	DMACORE_PATH_IOMMU = 3,
	/* Likewise, and the pages at the ends are in a bounce buffer. */
	DMACORE_PATH_IOMMU_BOUNCED = 4,
	/* At the bus address of another device's memory, past all IOMMUs. */
	DMACORE_PATH_BUS_ADDRESS = 5,
	/* As functions of the caller's say (sys/mapping_ops.h). */
	DMACORE_PATH_OPS = 6,
};

/**
 * dmacore_map_single() - map one buffer for a device
 * @device: the device that will access the buffer
 * @buffer: first byte; any alignment; inside one region of the system's memory, or anywhere on a
 *   flat system
 * @size: bytes, at least 1
 * @direction: one of enum dmacore_direction
 * @attributes: bits of enum dmacore_attributes, but DMACORE_ATTR_MMIO
 * @out_dma: receives the device's address of @buffer
 *
 * From success until dmacore_unmap() the buffer belongs to the device: the CPU may not touch it
 * except between dmacore_sync_for_cpu() and dmacore_sync_for_device(). Through an IOMMU the device
 * reaches the whole 4 KiB pages that the buffer lies in.
 *
 * Context: any thread; locked (device mappings, rank 4; flush queue, rank 7; IOVA cache, rank 8; IOVA
 *   store, rank 9) where a record is kept, and to bounce (bounce area, rank 15; bounce chunks, rank 18),
 *   lock-free otherwise; may call the table allocator, the domain's notifiers (rank 13), the system's cache
 *   and the device's mapping functions, and to bounce the callbacks of memory regions and the memory
 *   allocator; may wait for accesses in flight, and to bounce for mapping calls under way, to end.
 * Ownership: @buffer stays the caller's and must outlive the mapping.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, the buffer wraps, or the direction or an attribute is
 *            unknown. Never succeeds if retried.
 *   -ENXIO   the device has no streaming mask. Not until it is set.
 *   -EPERM   the device is behind an IOMMU and attached to no domain, a blocked one, or an unmanaged
 *            or a nested one, which is reported too. Not until it is attached to another. Or its mapping
 *            functions are an empty table. Never.
 *   -EFAULT  the buffer is not in the system's memory. Never.
 *   -ERANGE  the buffer cannot be reached, nor be bounced, because there is no pool in reach or it is
 *            that of registers: on the direct path it lies above the mask or the bus
 *            limit, or in no DMA range of the device; through an IOMMU its physical address is too
 *            wide for the page table, or the addresses of the domain that lie in a row under the mask
 *            and the bus limit, and in a DMA range, are too few for it, or the device is not trusted and the
 *            buffer not of whole pages; or a peer's bus addresses are not under the mask and the bus limit, or
 *            what the direct path would give. Not under this mask, or without a pool.
 *   -EREMOTEIO  it is memory of a peer (peer.h) that the device does not reach, or only in part that of one.
 *            Not until access control changes. Or a part of a page of a peer's, through an IOMMU, for a device
 *            that is not trusted. Never.
 *   -EOPNOTSUPP  DMACORE_ATTR_REQUIRE_COHERENT, and the device is not coherent, or the buffer would be
 *            bounced. Never.
 *   -ENOSPC  no free IOVA under the limit, or no room in the bounce pool. May succeed later.
 *   -ENOMEM  no memory for table pages, for the record, or for the bounce pool to grow. May succeed
 *            later.
 *   -EIO     the device's mapping functions gave an address that they may not give, which is reported.
 *   any other: what a memory region's callback returned to a buffer that is bounced, or the mapping
 *            functions' map.
 */
DMACORE_MUST_CHECK
int dmacore_map_single(struct dmacore_device *device, void *buffer, uint64_t size,
		       uint32_t direction, uint32_t attributes, dmacore_dma_t *out_dma);

/**
 * dmacore_map_phys() - map a range of physical memory for a device
 * @device: the device that will access the memory
 * @phys: first physical address; any alignment
 * @size: bytes, at least 1
 * @direction: one of enum dmacore_direction
 * @attributes: bits of enum dmacore_attributes
 * @out_dma: receives the device's address of @phys
 *
 * As dmacore_map_single(), for memory known by its physical address. The range need not be in the
 * system's memory; an access to a part that is not there faults.
 *
 * Context: any thread; locked (device mappings, rank 4; flush queue, rank 7; IOVA cache, rank 8; IOVA
 *   store, rank 9) where a record is kept, and to bounce (bounce area, rank 15; bounce chunks, rank 18),
 *   lock-free otherwise; may call what dmacore_map_single() may; may wait for accesses in flight to end.
 * Ownership: the memory stays whose it was and must outlive the mapping. On a flat system it must
 *   be memory of this process.
 * Return: 0, or as dmacore_map_single(), without -EFAULT.
 */
DMACORE_MUST_CHECK
int dmacore_map_phys(struct dmacore_device *device, dmacore_phys_t phys, uint64_t size,
		     uint32_t direction, uint32_t attributes, dmacore_dma_t *out_dma);

/**
 * dmacore_map_resource() - map registers of another device
 * @device: the device that will access them
 * @phys: first physical address; any alignment
 * @size: bytes, at least 1
 * @direction: one of enum dmacore_direction
 * @attributes: bits of enum dmacore_attributes; DMACORE_ATTR_MMIO goes without saying
 * @out_dma: receives the device's address of @phys
 *
 * As dmacore_map_phys() with DMACORE_ATTR_MMIO. dmacore_unmap() is told that attribute too.
 *
 * Context: as dmacore_map_phys().
 * Ownership: as dmacore_map_phys().
 * Return: 0, or as dmacore_map_phys().
 */
DMACORE_MUST_CHECK
int dmacore_map_resource(struct dmacore_device *device, dmacore_phys_t phys, uint64_t size,
			 uint32_t direction, uint32_t attributes, dmacore_dma_t *out_dma);

/**
 * dmacore_unmap() - end a mapping
 * @device: the device it was made for
 * @dma: the address that the map call gave
 * @size: the size that it was given
 * @direction: the direction that it was given
 * @attributes: the attributes that it was given
 *
 * Where a record is kept, everything is checked against it. On the direct path without
 * DMACORE_DEVICE_TRACK_DIRECT the address carries no record: there the range and the direction are
 * checked for being possible at all, and nothing else.
 *
 * Needs no memory and cannot fail for a mapping that lives, whatever has become of the device's
 * masks since it was made.
 *
 * Context: any thread; locked (device mappings, rank 4; flush queue, rank 7; IOVA cache, rank 8; IOVA
 *   store, rank 9; bounce area, rank 15; bounce chunks, rank 18) where a record is kept or memory was
 *   copied, lock-free otherwise; waits for accesses in flight to end, in a lazy domain once for many calls;
 *   may call the domain's notifiers (rank 13), the system's cache, the device's mapping functions, the
 *   report callback and, for what was bounced, the callbacks of memory regions, whose failures are reported,
 *   and the memory allocator; of a mapping by bus address may end a peer (peers, rank 16) and a device that
 *   were destroyed before.
 * Ownership: the buffer is the CPU's again, whole; in a lazy domain after the next flush.
 * Return: 0, or
 *   -EINVAL  @device is NULL, @size is 0, the range wraps, the direction or an attribute is unknown,
 *            or there is no such mapping of this device; nothing changed. Never succeeds if
 *            retried.
 */
DMACORE_MUST_CHECK
int dmacore_unmap(struct dmacore_device *device, dmacore_dma_t dma, uint64_t size,
		  uint32_t direction, uint32_t attributes);

/**
 * dmacore_sync_for_cpu() - lend a mapped buffer to the CPU
 * @device: the device it is mapped for
 * @dma: first address; any inside one mapping
 * @size: bytes, at least 1, that lie in that mapping
 * @direction: the direction that the mapping was given
 *
 * Afterwards the CPU sees what the device has written, and may touch these bytes until
 * dmacore_sync_for_device().
 *
 * Context: any thread; locked (device mappings, rank 4; bounce area, rank 15; bounce chunks, rank 18)
 *   where a record is kept or memory was copied, lock-free otherwise; may call the system's cache, the
 *   device's mapping functions, the report callback and, for what is bounced, the callbacks of memory
 *   regions.
 * Ownership: the bytes are lent to the CPU.
 * Return: 0, or
 *   -EINVAL  @device is NULL, @size is 0, the range wraps, the direction is unknown, or the range
 *            lies in no mapping of this device and direction. Never succeeds if retried.
 *   any other: what a memory region's callback returned to a mapping that is bounced, or the mapping
 *            functions' sync.
 */
DMACORE_MUST_CHECK
int dmacore_sync_for_cpu(struct dmacore_device *device, dmacore_dma_t dma, uint64_t size,
			 uint32_t direction);

/**
 * dmacore_sync_for_device() - give a mapped buffer back to the device
 * @device: the device it is mapped for
 * @dma: first address; any inside one mapping
 * @size: bytes, at least 1, that lie in that mapping
 * @direction: the direction that the mapping was given
 *
 * Afterwards the device sees what the CPU has written.
 *
 * Context: as dmacore_sync_for_cpu().
 * Ownership: the bytes are the device's.
 * Return: 0, or
 *   -EINVAL  as dmacore_sync_for_cpu(). Never succeeds if retried.
 *   any other: likewise.
 */
DMACORE_MUST_CHECK
int dmacore_sync_for_device(struct dmacore_device *device, dmacore_dma_t dma, uint64_t size,
			    uint32_t direction);

/**
 * dmacore_need_sync() - whether sync calls do anything for a mapping
 * @device: the device it was made for
 * @dma: an address inside it
 *
 * Who has asked may leave sync calls out for that mapping when they need not be. They need not be
 * where the device sees the caches of the processors, which see its writes, and the mapping is neither
 * bounced nor one that mapping functions sync.
 *
 * Context: any thread; locked (device mappings, rank 4; bounce chunks, rank 18) while something is
 *   bounced, or if mapping functions sync, lock-free otherwise.
 * Ownership: nothing changes hands.
 * Return: whether to call dmacore_sync_for_cpu() and dmacore_sync_for_device(); false if @device is NULL.
 */
bool dmacore_need_sync(struct dmacore_device *device, dmacore_dma_t dma);

/**
 * dmacore_need_unmap() - whether dmacore_unmap() does anything for a device's mappings
 * @device: the device
 *
 * Who has asked may forget about mappings instead of unmapping them, if they need not be. To be asked
 * when all of them are made: of a device that is mapped directly, which sees the caches of the processors,
 * and whose mappings are not tracked and none of them bounced, none may be one that needs it.
 *
 * Context: any thread; lock-free.
 * Ownership: nothing changes hands.
 * Return: whether to call dmacore_unmap(); false if @device is NULL.
 */
bool dmacore_need_unmap(struct dmacore_device *device);

DMACORE_END_DECLS

#endif /* DMACORE_MAPPING_H */
