/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_SCATTERLIST_H
#define DMACORE_SCATTERLIST_H

/**
 * DOC: Scatter-gather lists
 *
 * Buffers that lie in several places of memory are mapped by one call, and become as few segments for the
 * device as its limits allow (dmacore_device_set_limits()):
 *
 *	struct dmacore_sg list[2], *segment = list;
 *	size_t count;
 *
 *	dmacore_sg_init(list, 2);
 *	dmacore_sg_set(&list[0], 0x80000000, 8192, 0);
 *	dmacore_sg_set(&list[1], 0x80007000, 4096, 0);
 *	error = dmacore_map_list(device, list, 2, DMACORE_TO_DEVICE, 0, 0, &count);
 *	for (size_t i = 0; i < count; i++, segment = dmacore_sg_next(segment))
 *		... tell the device segment->dma and segment->dma_size ...
 *	error = dmacore_unmap_list(device, list, 2, DMACORE_TO_DEVICE, 0);
 *
 * The list is the caller's memory: an array of entries, or several that are chained. Each entry says where
 * memory is, and has room for a segment: the segments are in the first entries, however many entries they
 * were made of. The bytes of the list are those of the segments, in order. What the caller says of memory is
 * read once, by the map call. The segments stay as they were written until the list is unmapped: sync
 * and unmap calls refuse a list that has others, as far as records are kept (mapping.h). What an IOMMU
 * translates has one record for all of the list, which knows all of its segments; of other segments each has
 * its own, if any, so that nobody misses one which is no longer in the list, or finds one that is in it twice
 * before the first of the two has ended.
 *
 * What becomes one segment:
 *
 * - entries that are contiguous in memory, and those that are contiguous for the device because an IOMMU puts
 *   them so: a list has one range of addresses there, and what starts at a page follows without a gap on
 *   what ends with one;
 * - but nothing longer than the device's max_segment_size, and nothing across a multiple of
 *   segment_boundary_mask plus one; unless min_align_mask (device.h) makes a copy keep low bits with which
 *   each place for it does;
 * - registers (DMACORE_SG_MMIO) and memory of peers (peer.h) stay segments of their own, and are cut only
 *   where they are longer or cross a boundary.
 *
 * An entry is cut only if it has no room in a segment: where it crosses a boundary on the direct path, and
 * where it is longer than max_segment_size, at a multiple of 4096 bytes from its start if so many fit. What is
 * bounced (bounce.h) is cut in halves until the parts find slots, so that its size has no limit but the
 * pool's: at multiples of 4096, what is less of 2048, and of min_align_mask plus one. Segments that are more
 * than the entries need room: entries of size 0 have it.
 *
 * Each part of a list takes the path that it would take alone. Through an IOMMU, memory that is contiguous
 * is looked at as a whole: of a device that is not trusted the pages are bounced that the list fills in part.
 *
 * Stability: may change before 1.0.
 */

#include "mapping.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/* What an entry of a list is, bits. */
enum dmacore_sg_flags {
	/* Registers of a device, as with DMACORE_ATTR_MMIO. */
	DMACORE_SG_MMIO = 1,
	/* No memory, and no room for a segment: the list goes on at @next. The only bit of its entry. */
	DMACORE_SG_CHAIN = 2,
	/* The last entry of the list. */
	DMACORE_SG_LAST = 4,
};

/**
 * struct dmacore_sg - an entry of a list
 * @phys: first physical address
 * @size: bytes; 0: no memory, but room for a segment
 * @next: where the list goes on, if this is a chain entry: at an entry that is none
 * @flags: bits of enum dmacore_sg_flags
 * @dma_flags: of the segment: DMACORE_SG_MMIO if it is of registers
 * @path: of the segment: how the device reaches it, one of enum dmacore_path (mapping.h)
 * @dma: of the segment: the device's address
 * @dma_size: of the segment: bytes; 0 in the first entry that has none
 *
 * The first four are the caller's, the others are set by dmacore_map_list().
 */
struct dmacore_sg {
	dmacore_phys_t phys;
	uint64_t size;
	struct dmacore_sg *next;
	uint32_t flags;
	uint16_t dma_flags;
	uint16_t path;
	dmacore_dma_t dma;
	uint64_t dma_size;
};

/**
 * dmacore_sg_init() - make an array a list
 * @list: the array
 * @count: how many entries, at least 1
 *
 * Each entry is room for a segment, until it is set. The last one is marked as that.
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the array is the caller's, and not mapped.
 * Return: nothing; cannot fail.
 */
static inline void dmacore_sg_init(struct dmacore_sg *list, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		list[i].phys = 0;
		list[i].size = 0;
		list[i].next = NULL;
		list[i].flags = i + 1 == count ? DMACORE_SG_LAST : 0;
		list[i].dma_flags = 0;
		list[i].path = 0;
		list[i].dma = 0;
		list[i].dma_size = 0;
	}
}

/**
 * dmacore_sg_set() - say which memory an entry is
 * @entry: the entry; the last one stays that
 * @phys: first physical address
 * @size: bytes
 * @flags: DMACORE_SG_MMIO or 0
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: nothing; cannot fail.
 */
static inline void dmacore_sg_set(struct dmacore_sg *entry, dmacore_phys_t phys, uint64_t size,
				  uint32_t flags)
{
	entry->phys = phys;
	entry->size = size;
	entry->flags = (entry->flags & DMACORE_SG_LAST) | flags;
}

/**
 * dmacore_sg_chain() - let a list go on elsewhere
 * @entry: the entry from which it does; what was its last one, often
 * @next: the entry at which it goes on
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: @next must outlive the list.
 * Return: nothing; cannot fail.
 */
static inline void dmacore_sg_chain(struct dmacore_sg *entry, struct dmacore_sg *next)
{
	entry->next = next;
	entry->flags = DMACORE_SG_CHAIN;
}

/**
 * dmacore_sg_next() - the entry behind another, along chains
 * @entry: the entry
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: the entry, or NULL behind the last one.
 */
static inline struct dmacore_sg *dmacore_sg_next(struct dmacore_sg *entry)
{
	if (entry->flags & DMACORE_SG_LAST)
		return NULL;
	entry++;
	return entry->flags & DMACORE_SG_CHAIN ? entry->next : entry;
}

/**
 * dmacore_map_list() - map a list for a device
 * @device: the device that will access the memory
 * @list: the first entry, which is no chain entry
 * @count: how many entries, without chain entries; the last of them and no other is marked as that
 * @direction: one of enum dmacore_direction
 * @attributes: bits of enum dmacore_attributes; DMACORE_ATTR_MMIO: all entries are registers
 * @max_segments: the most segments that the device takes; 0: as many as there are entries
 * @out_count: receives how many segments there are
 *
 * As dmacore_map_phys() for each entry, in one mapping: all of it is mapped, or nothing, with the list as it
 * was. Of what takes no record nothing is allocated, and for a list that becomes up to 32 parts nothing but
 * what a single mapping may need.
 *
 * Whether the list has LAST at @count is what keeps a chain that loops from being followed.
 *
 * Context: any thread; as dmacore_map_phys().
 * Ownership: the memory stays whose it was and must outlive the mapping; so must the segments in @list, which
 *   nobody else may write to during the call.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the direction, an attribute or a flag is unknown, an entry wraps, the list
 *            has no bytes, its end is not marked at @count or before, or a chain entry has another bit, leads
 *            nowhere or to a chain entry. Never succeeds if retried.
 *   -E2BIG   there are more segments than @max_segments or entries. Not under these limits, nor this list.
 *   -ENOSPC, -ENOMEM  as dmacore_map_phys(); also no memory to work with a long list. May succeed later; but
 *            not where bits that the addresses keep (min_align_mask) are as many as those below a boundary, and
 *            leave no place for what the list has between two.
 *   any other: as dmacore_map_phys() for an entry.
 */
DMACORE_MUST_CHECK
int dmacore_map_list(struct dmacore_device *device, struct dmacore_sg *list, size_t count,
		     uint32_t direction, uint32_t attributes, size_t max_segments,
		     size_t *out_count);

/**
 * dmacore_unmap_list() - end the mapping of a list
 * @device: the device it was made for
 * @list: the list that it was made of, with its segments
 * @count: the count that it was given
 * @direction: the direction that it was given
 * @attributes: the attributes that it was given
 *
 * As dmacore_unmap(), which does not end a segment of a list. Everything is checked against the records that
 * are kept, before anything changes; what the entries say of memory is not looked at.
 *
 * Context: any thread; as dmacore_unmap().
 * Ownership: the memory is the CPU's again, whole, and the list the caller's to change; in a lazy domain
 *   after the next flush.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the direction or an attribute is unknown, @count is less than there are
 *            segments, or these are no mapping of this device; nothing changed, unless one with a record of
 *            its own is there twice. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_unmap_list(struct dmacore_device *device, struct dmacore_sg *list, size_t count,
		       uint32_t direction, uint32_t attributes);

/**
 * dmacore_sync_list_for_cpu() - lend bytes of a mapped list to the CPU
 * @device: the device it is mapped for
 * @list: the list, with its segments
 * @count: the count that it was given
 * @offset: the first byte, counted from the list's first
 * @size: bytes; 0: all from @offset on
 * @direction: the direction that the mapping was given
 *
 * As dmacore_sync_for_cpu(), for bytes in any number of entries.
 *
 * Context: any thread; as dmacore_sync_for_cpu().
 * Ownership: the bytes are lent to the CPU.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the direction is unknown, @count is less than there are segments, these are
 *            no mapping of this device and direction, or have not so many bytes; as far as records are kept.
 *            Never succeeds if retried.
 *   any other: what a memory region's callback returned to what is bounced.
 */
DMACORE_MUST_CHECK
int dmacore_sync_list_for_cpu(struct dmacore_device *device, struct dmacore_sg *list, size_t count,
			      uint64_t offset, uint64_t size, uint32_t direction);

/**
 * dmacore_sync_list_for_device() - give bytes of a mapped list back to the device
 * @device: the device it is mapped for
 * @list: the list, with its segments
 * @count: the count that it was given
 * @offset: the first byte, counted from the list's first
 * @size: bytes; 0: all from @offset on
 * @direction: the direction that the mapping was given
 *
 * As dmacore_sync_for_device(), for bytes in any number of entries.
 *
 * Context: as dmacore_sync_list_for_cpu().
 * Ownership: the bytes are the device's.
 * Return: 0, or
 *   -EINVAL  as dmacore_sync_list_for_cpu(). Never succeeds if retried.
 *   any other: likewise.
 */
DMACORE_MUST_CHECK
int dmacore_sync_list_for_device(struct dmacore_device *device, struct dmacore_sg *list,
				 size_t count, uint64_t offset, uint64_t size, uint32_t direction);

DMACORE_END_DECLS

#endif /* DMACORE_SCATTERLIST_H */
