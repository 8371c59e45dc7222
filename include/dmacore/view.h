/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_VIEW_H
#define DMACORE_VIEW_H

/**
 * DOC: A device's view of memory
 *
 * The device's side: an emulated device makes its DMA through a view, with the addresses that its
 * driver told it.
 *
 *	struct dmacore_view *view;
 *
 *	error = dmacore_view_create(device, &view);
 *	error = dmacore_view_read(view, dma, buffer, size);
 *	if (error == -ENOENT || error == -EACCES)
 *		... the access was refused: a fault was recorded ...
 *
 * An access may cross pages, regions and mappings. The whole range is checked before the first
 * byte moves, so that a refused access moves none; when a mapping goes away in the middle of an
 * access, the access stops there.
 *
 * Translation takes no lock. Two accesses that overlap in memory, or an access and the CPU, are
 * not ordered by the library.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_view;
struct dmacore_view_mapping;

/**
 * struct dmacore_view_segment - a run of bytes in this process
 * @host: the first byte
 * @size: bytes, at least 1
 */
struct dmacore_view_segment {
	void *host;
	uint64_t size;
};

/**
 * struct dmacore_block - a naturally aligned power of two of addresses that lead alike
 * @first: first address, a multiple of the size
 * @mask: the size less one; UINT64_MAX: all 2^64 addresses
 * @phys: physical address of @first, a multiple of the size, and the block is contiguous from there;
 *   0 if @access is 0
 * @access: what is permitted in all of it, bits of enum dmacore_access; 0: nothing, or not what was
 *   wanted
 * @reserved: zero
 */
struct dmacore_block {
	dmacore_dma_t first;
	uint64_t mask;
	dmacore_phys_t phys;
	uint32_t access;
	uint32_t reserved;
};

/**
 * dmacore_view_create() - make a view of a device's address space
 * @device: the device
 * @out_view: receives the view, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the view back with dmacore_view_destroy(); it holds on to the
 *   device.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_view_create(struct dmacore_device *device, struct dmacore_view **out_view);

/**
 * dmacore_view_create_pasid() - make a view of what a device's requests with a PASID reach
 * @device: the device
 * @pasid: the PASID that they carry
 * @out_view: receives the view, or NULL on failure
 *
 * They reach what is mapped in the domain that is attached to the PASID (group.h), and nothing while there
 * is none.
 *
 * Context: any thread; locked (group, rank 3); calls nothing back.
 * Ownership: as dmacore_view_create().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @pasid is 0, or the device's requests cannot carry it. Never succeeds if
 *            retried.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_view_create_pasid(struct dmacore_device *device, uint32_t pasid,
			      struct dmacore_view **out_view);

/**
 * dmacore_view_destroy() - give a view back
 * @view: the view, or NULL
 *
 * Its zero-copy mappings stay until they are unmapped.
 *
 * Context: any thread, while no other uses @view; may end a device that was destroyed before, with
 *   its callbacks.
 * Ownership: @view may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_view_destroy(struct dmacore_view *view);

/**
 * dmacore_view_translate() - look an address of the device up
 * @view: the view
 * @dma: the address
 * @access: what is wanted, bits of enum dmacore_access; 0: find out what is permitted
 * @out_translation: receives the range around @dma that is known to be contiguous, its physical
 *   address, and what is permitted there
 *
 * A look-up: it records no fault. Whether there is memory at the target is not checked.
 *
 * Context: any thread; lock-free, but for a directly mapped device with
 *   DMACORE_DEVICE_TRACK_DIRECT (device mappings, rank 4); calls nothing back.
 * Ownership: nothing changes hands; the answer holds until the range is unmapped.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @access has unknown bits. Never succeeds if retried.
 *   -ENOENT  nothing is mapped at @dma. Not until it is mapped.
 *   -EACCES  not all of @access is permitted. Not until it is mapped anew.
 *   -EPERM   the device is behind an IOMMU and attached to no domain or a blocked one. Not until it
 *            is attached to another.
 *   -EFAULT  in a nested domain, a word of the guest's tables is wrong or cannot be read. Not until they
 *            change.
 */
DMACORE_MUST_CHECK
int dmacore_view_translate(struct dmacore_view *view, dmacore_dma_t dma, uint32_t access,
			   struct dmacore_translation *out_translation);

/**
 * dmacore_view_translate_block() - look an address of the device up, for a cache of aligned blocks
 * @view: the view
 * @dma: the address
 * @access: what is wanted, as in dmacore_view_translate()
 * @out_block: receives the largest block around @dma that one look-up tells of
 *
 * A look-up: it records no fault, and an address that leads nowhere, or may not be accessed so, is an
 * answer. Whether there is memory at the target is not checked. Addresses beside the block may lead on
 * like it, because its size depends on how the device reaches memory:
 *
 * - through a page table: the leaf, or the run of entries that are one leaf, which @dma lies in; else
 *   the hole as far as an empty entry of one table goes, which is a granule at least;
 * - through a guest's tables and a page table: what such leaves or holes of both have in common;
 * - directly, with DMACORE_DEVICE_TRACK_DIRECT: as much of one mapping as is a block; where none permits
 *   what is wanted, of the addresses from @dma on, and that may be @dma alone;
 * - directly without records, or blocked: all addresses.
 *
 * Context: any thread; lock-free, but for a directly mapped device with
 *   DMACORE_DEVICE_TRACK_DIRECT (device mappings, rank 4); calls nothing back.
 * Ownership: nothing changes hands; the answer holds until something is mapped or unmapped there.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @access has unknown bits. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_view_translate_block(struct dmacore_view *view, dmacore_dma_t dma, uint32_t access,
				 struct dmacore_block *out_block);

/**
 * dmacore_view_read() - read memory as the device
 * @view: the view
 * @dma: first address
 * @buffer: receives the bytes
 * @size: bytes; 0 reads none and succeeds
 *
 * Context: any thread; lock-free, but for a directly mapped device with
 *   DMACORE_DEVICE_TRACK_DIRECT (device mappings, rank 4); calls the callbacks of memory regions
 *   and, on a fault, those of the domain and of the device (fault.h); then it may free a domain that was
 *   destroyed meanwhile, and so call the table allocator.
 * Ownership: @buffer stays the caller's.
 * Return: 0, or
 *   -EINVAL  @view or @buffer is NULL, also for no bytes, the range wraps, or @size is above
 *            PTRDIFF_MAX, as that of no buffer is. Never succeeds if retried.
 *   -ENOENT  a part is not mapped. Faults.
 *   -EACCES  a part may not be read. Faults.
 *   -EFAULT  a part leads to where there is no memory, or a guest's tables are wrong. Faults.
 *   -EPERM   the device is behind an IOMMU and attached to no domain or a blocked one. Faults.
 *   -EOPNOTSUPP  the system is flat and the device directly mapped without
 *            DMACORE_DEVICE_TRACK_DIRECT. Never.
 *   any other: what a region's callback returned.
 */
DMACORE_MUST_CHECK
int dmacore_view_read(struct dmacore_view *view, dmacore_dma_t dma, void *buffer, size_t size);

/**
 * dmacore_view_write() - write memory as the device
 * @view: the view
 * @dma: first address
 * @buffer: the bytes
 * @size: how many; 0 writes none and succeeds
 *
 * Context: as dmacore_view_read().
 * Ownership: @buffer stays the caller's.
 * Return: 0, or
 *   -EINVAL  @view or @buffer is NULL, also for no bytes, the range wraps, or @size is above
 *            PTRDIFF_MAX, as that of no buffer is. Never succeeds if retried.
 *   -ENOENT  a part is not mapped. Faults.
 *   -EACCES  a part may not be written. Faults.
 *   -EFAULT  a part leads to where there is no memory, or a guest's tables are wrong. Faults.
 *   -EPERM   the device is behind an IOMMU and attached to no domain or a blocked one. Faults.
 *   -EOPNOTSUPP  the system is flat and the device directly mapped without
 *            DMACORE_DEVICE_TRACK_DIRECT. Never.
 *   any other: what a region's callback returned.
 */
DMACORE_MUST_CHECK
int dmacore_view_write(struct dmacore_view *view, dmacore_dma_t dma, const void *buffer,
		       size_t size);

/**
 * dmacore_view_map() - reach memory as the device without a copy
 * @view: the view
 * @dma: first address
 * @size: bytes, at least 1
 * @access: what will be done, one bit of enum dmacore_access at least
 * @out_mapping: receives the mapping, or NULL on failure
 * @out_segments: receives the runs of bytes that make up the range, in order; as few as can be
 * @out_count: receives how many
 *
 * The memory regions concerned cannot be removed while the mapping lives. Unmapping the range on the
 * driver's side meanwhile is reported; the segments stay good. Through a nested domain (domain.h), that
 * is an unmap in the parent of what the range led to when the mapping was made. There, a guest may let a
 * small table lead from ever so many addresses: bound @size by what the device may ask for.
 *
 * Context: any thread; locked (zero-copy mappings, rank 5; and device mappings, rank 4, for a
 *   directly mapped device with DMACORE_DEVICE_TRACK_DIRECT); on a fault as dmacore_view_read().
 * Ownership: the segments live in the mapping, until dmacore_view_unmap(). The mapping holds on to
 *   the device.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, the range wraps, or @access is 0 or has unknown bits.
 *            Never succeeds if retried.
 *   -ENOENT  a part is not mapped. Faults.
 *   -EACCES  a part may not be accessed like that. Faults.
 *   -EFAULT  a part leads to where there is no memory, or a guest's tables are wrong. Faults.
 *   -EPERM   the device is behind an IOMMU and attached to no domain or a blocked one. Faults.
 *   -EOPNOTSUPP  callbacks back a part, or the system is flat and the device directly mapped
 *            without DMACORE_DEVICE_TRACK_DIRECT. Use read and write for the former.
 *   -EAGAIN  mappings changed meanwhile, again and again. Should succeed if retried.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_view_map(struct dmacore_view *view, dmacore_dma_t dma, uint64_t size, uint32_t access,
		     struct dmacore_view_mapping **out_mapping,
		     const struct dmacore_view_segment **out_segments, size_t *out_count);

/**
 * dmacore_view_unmap() - end a zero-copy mapping
 * @mapping: the mapping, or NULL
 *
 * Context: any thread; locked (zero-copy mappings, rank 5); may end a device that was destroyed
 *   before, with its callbacks.
 * Ownership: @mapping and its segments may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_view_unmap(struct dmacore_view_mapping *mapping);

DMACORE_END_DECLS

#endif /* DMACORE_VIEW_H */
