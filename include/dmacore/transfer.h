/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_TRANSFER_H
#define DMACORE_TRANSFER_H

/**
 * DOC: Transfers
 *
 * One code path for a driver, whatever its memory is and however the device reaches it: a request says which
 * memory, a transfer is that memory mapped, and an iterator yields what to tell the device.
 *
 *	struct dmacore_phys_range memory[2] = { { 0x80000000, 8192, 0, 0 }, { 0x80007000, 4096, 0, 0 } };
 *	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;
 *	struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
 *	struct dmacore_transfer_iterator iterator;
 *	struct dmacore_segment segments[16];
 *	size_t count = 0;
 *
 *	request.ranges = memory;
 *	request.count = 2;
 *	request.direction = DMACORE_TO_DEVICE;
 *	error = dmacore_transfer_map(device, &request, &transfer);
 *	error = dmacore_transfer_begin(device, &request, &transfer, 0, &iterator);
 *	while (!dmacore_transfer_next(&iterator, segments, 16, &count) && count > 0)
 *		... tell the device of that many segments ...
 *	error = dmacore_transfer_unmap(device, &transfer);
 *
 * The ranges are an array, or come from a callback: of the pages of a request, a page list, an iovec.
 *
 * What becomes of them:
 *
 * - If the device reaches all of it directly, the segments are the ranges. Nothing is remembered of them:
 *   the iterator reads them from the request.
 * - If an IOMMU translates and all ranges meet at pages (each but the first starts where a page does, each
 *   but the last ends where one does), all of it has one range of addresses, and is one segment as far as
 *   the device's limits let it (dmacore_device_set_limits(): if nothing else is said, 64 KiB).
 * - Else each part takes the path that it would take alone (mapping.h): directly, bounced, at the bus
 *   addresses of a peer, as the device's mapping functions say; and all that is translated has one range of
 *   addresses, with gaps where ranges do not meet at pages.
 *
 * In the first two cases the caller's 16 bytes are all that there is, beside the mapping's own record
 * (mapping.h). In the last the library allocates a list of what it has mapped; for a registration, too.
 *
 * The iterator puts together what is contiguous for the device, and cuts it where a segment may not go
 * on: at the most bytes, in whole pages if there is one in them, and at a boundary. Registers
 * (DMACORE_RANGE_MMIO) and what has bus addresses of a peer are segments of their own.
 *
 * A registration is a transfer that lasts, and whose ranges are replaced one by one while the device uses the
 * others (DMACORE_TRANSFER_REPLACEABLE): through an IOMMU at addresses that stay. Its ranges meet at pages; or at
 * larger blocks, if the device's min_align_mask (device.h) asks for those.
 *
 * A transfer is ended before its device is.
 *
 * Calls for one transfer come one after another; those for others may come at the same time.
 *
 * Stability: may change before 1.0.
 */

#include "mapping.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/* What a range of memory is, bits. */
enum dmacore_range_flags {
	/* Registers of a device, as with DMACORE_ATTR_MMIO. */
	DMACORE_RANGE_MMIO = 1,
};

/**
 * struct dmacore_phys_range - some memory
 * @phys: first physical address
 * @size: bytes; 0: none
 * @flags: bits of enum dmacore_range_flags
 * @reserved: zero
 */
struct dmacore_phys_range {
	dmacore_phys_t phys;
	uint64_t size;
	uint32_t flags;
	uint32_t reserved;
};

/**
 * typedef dmacore_next_range_fn - yields the ranges of a request, one after another
 *
 * Puts the next range into @range and returns true, or returns false behind the last. It has @cursor to
 * itself, to remember where it is: two zeroes when the ranges are to come from the first on, which they are
 * several times. Each time they are the same.
 *
 * Called on the thread whose call it is, with no lock held. It may call any function of the library, but
 * destroy no object that the call concerns, nor change what is attached to what.
 */
typedef bool (*dmacore_next_range_fn)(uint64_t cursor[2], struct dmacore_phys_range *range,
				      void *opaque);

/* What a transfer is to be like, bits. */
enum dmacore_transfer_flags {
	/* Its memory can be replaced (dmacore_transfer_replace()). */
	DMACORE_TRANSFER_REPLACEABLE = 1,
};

/**
 * struct dmacore_transfer_request - what to transfer, and what the device takes
 * @struct_size: sizeof(struct dmacore_transfer_request)
 * @ranges: the memory; NULL: @next yields it
 * @count: how many ranges there are
 * @next: yields the memory; NULL: it is in @ranges
 * @opaque: for @next
 * @direction: one of enum dmacore_direction (mapping.h)
 * @attributes: bits of enum dmacore_attributes (mapping.h)
 * @flags: bits of enum dmacore_transfer_flags
 * @reserved: zero
 * @max_segments: the most segments; 0: any number
 * @max_segment_size: the most bytes of one; 0: as many as the device's limit (device.h)
 * @segment_boundary_mask: no segment crosses a multiple of this plus one, a power of two; 0: as the device's
 *   limit
 *
 * Of the device's limits and those of the request the lower ones hold.
 */
struct dmacore_transfer_request {
	size_t struct_size;
	const struct dmacore_phys_range *ranges;
	size_t count;
	dmacore_next_range_fn next;
	void *opaque;
	uint32_t direction;
	uint32_t attributes;
	uint32_t flags;
	uint32_t reserved;
	uint64_t max_segments;
	uint64_t max_segment_size;
	uint64_t segment_boundary_mask;
};

#define DMACORE_TRANSFER_REQUEST_INIT                                                              \
	{                                                                                          \
		sizeof(struct dmacore_transfer_request), NULL, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, \
	}

/**
 * struct dmacore_transfer - memory that is mapped
 * @opaque: the library's
 *
 * Starts as DMACORE_TRANSFER_EMPTY, and is that again when it is unmapped. It may be moved, but not copied.
 */
struct dmacore_transfer {
	uint64_t opaque[2];
};

#define DMACORE_TRANSFER_EMPTY \
	{                      \
		{              \
			0, 0   \
		}              \
	}

/**
 * struct dmacore_segment - what to tell a device
 * @dma: its first address
 * @size: bytes, not 0
 */
struct dmacore_segment {
	dmacore_dma_t dma;
	uint64_t size;
};

/**
 * struct dmacore_transfer_iterator - where in a transfer somebody is
 * @opaque: the library's
 *
 * On the caller's stack, mostly. Nothing has to be done with one that is not used any more.
 */
struct dmacore_transfer_iterator {
	uint64_t opaque[16];
};

/**
 * dmacore_transfer_map() - map memory for a device
 * @device: the device that will access it
 * @request: which memory, and how
 * @transfer: DMACORE_TRANSFER_EMPTY; receives the mapping
 *
 * Hands the memory to the device, as dmacore_map_phys() does with each range. All of it is mapped, or nothing.
 *
 * Context: any thread; as dmacore_map_phys(); calls the request's @next.
 * Ownership: the memory stays whose it was and must outlive the mapping. @transfer belongs to the library
 *   until it is unmapped. The request and its ranges may go, but must be there, the same, for
 *   dmacore_transfer_begin().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or both or none of @ranges and @next; @transfer is in use; the direction, an
 *            attribute or a flag is unknown; @reserved is not zero; the structure is too short; a mask is no
 *            power of two less one; a range wraps; there are no bytes; the ranges of a registration do not
 *            meet at pages; or @next yielded other bytes the second time. Never succeeds if retried.
 *   -E2BIG   there are more segments than @max_segments, or more bytes than 2^47 - 1, or more ranges than a
 *            registration may have, 2^20; or the structure is longer than known and not zero there. Never.
 *   -ENOSPC, -ENOMEM  as dmacore_map_phys(), also no memory for a list. May succeed later.
 *   any other: as dmacore_map_phys() for a range.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_map(struct dmacore_device *device,
			 const struct dmacore_transfer_request *request,
			 struct dmacore_transfer *transfer);

/**
 * dmacore_transfer_begin() - start to go through the segments of a transfer
 * @device: the device it is mapped for
 * @request: the request that it was mapped by
 * @transfer: the transfer
 * @offset: the byte to start at, counted from the transfer's first
 * @iterator: receives the place
 *
 * The request's limits of size and boundary are those of the segments.
 *
 * Context: any thread; takes no lock; may call the request's @next.
 * Ownership: @iterator is good until the transfer is unmapped or a part of it replaced, and as long as the
 *   request and its ranges are there.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the transfer is not mapped, the request is none, or its ranges end before
 *            @offset. Never succeeds if retried.
 *   -EFAULT  as dmacore_transfer_next(), before @offset in the same range.
 *   -E2BIG   @offset is not within the transfer; or as dmacore_transfer_map() for the structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_begin(struct dmacore_device *device,
			   const struct dmacore_transfer_request *request,
			   const struct dmacore_transfer *transfer, uint64_t offset,
			   struct dmacore_transfer_iterator *iterator);

/**
 * dmacore_transfer_next() - get the segments that come next
 * @iterator: the place, which moves on
 * @segments: receives them
 * @capacity: how many there is room for, at least 1
 * @out_count: receives how many there are; fewer than @capacity only behind the last
 *
 * Allocates nothing.
 *
 * Context: any thread; takes no lock; may call the request's @next.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @capacity is 0, or the ranges of the request are not those that were mapped.
 *            Never succeeds if retried.
 *   -EFAULT  what was there could not be mapped again (dmacore_transfer_replace()). Not before it is replaced.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_next(struct dmacore_transfer_iterator *iterator,
			  struct dmacore_segment *segments, size_t capacity, size_t *out_count);

/**
 * dmacore_transfer_size() - how many bytes a transfer has
 * @transfer: the transfer, or NULL
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: the bytes; 0 if nothing is mapped.
 */
uint64_t dmacore_transfer_size(const struct dmacore_transfer *transfer);

/**
 * dmacore_transfer_sync_for_cpu() - lend bytes of a transfer to the CPU
 * @device: the device it is mapped for
 * @transfer: the transfer
 * @offset: the first byte, counted from the transfer's first
 * @size: bytes; 0: all from @offset on
 *
 * As dmacore_sync_for_cpu(), for bytes of any number of ranges.
 *
 * Context: any thread; as dmacore_sync_for_cpu().
 * Ownership: the bytes are lent to the CPU.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the transfer is not mapped, or is no mapping of this device, as far as records
 *            are kept (mapping.h). Never succeeds if retried.
 *   -E2BIG   the bytes are not all within the transfer. Never.
 *   any other: what a memory region's callback returned to what is bounced.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_sync_for_cpu(struct dmacore_device *device,
				  const struct dmacore_transfer *transfer, uint64_t offset,
				  uint64_t size);

/**
 * dmacore_transfer_sync_for_device() - give bytes of a transfer back to the device
 * @device: the device it is mapped for
 * @transfer: the transfer
 * @offset: the first byte, counted from the transfer's first
 * @size: bytes; 0: all from @offset on
 *
 * As dmacore_sync_for_device(), for bytes of any number of ranges.
 *
 * Context: as dmacore_transfer_sync_for_cpu().
 * Ownership: the bytes are the device's.
 * Return: as dmacore_transfer_sync_for_cpu().
 */
DMACORE_MUST_CHECK
int dmacore_transfer_sync_for_device(struct dmacore_device *device,
				     const struct dmacore_transfer *transfer, uint64_t offset,
				     uint64_t size);

/**
 * dmacore_transfer_replace() - let other memory take the place of a part of a registration
 * @device: the device it is mapped for
 * @transfer: a transfer that was mapped with DMACORE_TRANSFER_REPLACEABLE
 * @offset: where a range of it starts, counted from its first byte
 * @phys: the memory
 * @size: bytes: those of that range
 *
 * The old memory is unmapped, strictly (domain.h), in a lazy domain too, then the new is mapped in its place,
 * with the registration's direction and attributes; meanwhile an access there is a fault, and all other
 * ranges stay as they are. Through an IOMMU the addresses stay; elsewhere those of this range are others,
 * which an iterator from @offset on tells. What the policy refuses changes nothing.
 *
 * Context: any thread; as dmacore_unmap() and dmacore_map_phys().
 * Ownership: the old memory is the CPU's again, with what the device wrote; the new is the device's.
 * Return: 0, or an error. Then the old memory is mapped, still or again; should that fail too, which is
 *   reported (DMACORE_REPORT_WARNING), nothing is there: an iterator that comes there fails, and a sync passes
 *   it over.
 *   -EINVAL  a pointer is NULL, the transfer is not mapped, or not to be replaced, no range of this size is at
 *            @offset, or the new memory wraps, or lies at another place of its page than the old. Never
 *            succeeds if retried.
 *   any other: as dmacore_map_phys() for the new memory.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_replace(struct dmacore_device *device, struct dmacore_transfer *transfer,
			     uint64_t offset, dmacore_phys_t phys, uint64_t size);

/**
 * dmacore_transfer_unmap() - end a transfer
 * @device: the device it is mapped for
 * @transfer: the transfer
 *
 * As strictly as the domain wants it, as dmacore_unmap(), for all that is translated with one invalidation at
 * most. Needs no memory.
 *
 * Context: any thread; as dmacore_unmap().
 * Ownership: the memory is the CPU's again, whole, in a lazy domain after the next flush; @transfer is
 *   DMACORE_TRANSFER_EMPTY.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the transfer is not mapped; or, which is reported, it is no mapping of this
 *            device. Another's is not changed. If its driver has gone since, the mapping went with it: then
 *            what was allocated for it is freed, and DMACORE_TRANSFER_EMPTY may be assigned. Never succeeds if
 *            retried.
 */
DMACORE_MUST_CHECK
int dmacore_transfer_unmap(struct dmacore_device *device, struct dmacore_transfer *transfer);

DMACORE_END_DECLS

#endif /* DMACORE_TRANSFER_H */
