/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_IOVA_STATE_H
#define DMACORE_IOVA_STATE_H

/**
 * DOC: Two-step mapping
 *
 * Addresses first, memory later. A range of addresses of the device is reserved once; then memory is linked
 * into it piece by piece, and unlinked, as often as needed, without looking for addresses again:
 *
 *	struct dmacore_iova_state state = DMACORE_IOVA_STATE_EMPTY;
 *
 *	error = dmacore_iova_state_reserve(device, 0x80000000, 64 * 4096, NULL, &state);
 *	if (dmacore_iova_state_is_reserved(&state)) {
 *		error = dmacore_iova_state_link(&state, 0, 0x80000000, 4096, DMACORE_TO_DEVICE, 0);
 *		error = dmacore_iova_state_link(&state, 4096, 0x80007000, 8192, DMACORE_TO_DEVICE, 0);
 *		error = dmacore_iova_state_sync(&state, 0, 12288);
 *		... the device reads 12288 bytes at dmacore_iova_state_address(&state) ...
 *	}
 *	error = dmacore_iova_state_destroy(&state);
 *
 * Only an IOMMU puts memory where the caller wants it. Where addresses mean nothing, because the device
 * reaches memory directly or as its mapping functions say, reserving succeeds and says so: then each piece is
 * mapped by itself (dmacore_map_phys()). In a hybrid domain it does while memory is reached directly.
 *
 * A link is a piece of memory at an offset into the range. Pages, 4096 bytes, are the unit of translation,
 * so a link lies at the same place of its pages on both sides, and no two links share a page: all
 * links but the first start where a page does, and all but the last end where one does. Between links there
 * may be holes; an access there is a fault.
 *
 * What the device may not have whole, as the neighbour of a link on its page when the device is not
 * trusted, is bounced (bounce.h): the ends of such a link are copied to pages of their own, in which all else
 * is zero, whatever alignment the device asks for.
 *
 * The state is the caller's memory, of which the library knows nothing once the range is freed. It remembers
 * what was linked: syncing, unlinking and destroying go by that alone. Calls for one state come one after
 * another; those for other states of the same device may come at the same time.
 *
 * Stability: may change before 1.0.
 */

#include "mapping.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;

/**
 * struct dmacore_iova_state - a range of addresses that is reserved, and what is linked into it
 * @opaque: the library's
 *
 * Starts as DMACORE_IOVA_STATE_EMPTY, and is that again when its range is freed. It may be moved, but not
 * copied.
 */
struct dmacore_iova_state {
	uint64_t opaque[8];
};

#define DMACORE_IOVA_STATE_EMPTY \
	{                        \
		{                \
			0        \
		}                \
	}

/* What is to be ready besides, bits. */
enum dmacore_iova_state_flags {
	/* The tables that all of the range may need. An unlink may give back those that it leaves empty. */
	DMACORE_IOVA_STATE_PAGE_TABLES = 1,
};

/**
 * struct dmacore_iova_state_options - what is to be ready before memory is linked
 * @struct_size: sizeof(struct dmacore_iova_state_options)
 * @links: how many links there are to be records for, at most 2^20. A link that finds none looks for memory
 *   for more
 * @bounced_pages: how many pages there are to be for ends that are bounced, at most 65536. A link that
 *   finds none takes one from the pool then
 * @flags: bits of enum dmacore_iova_state_flags
 * @reserved: zero
 */
struct dmacore_iova_state_options {
	size_t struct_size;
	uint32_t links;
	uint32_t bounced_pages;
	uint32_t flags;
	uint32_t reserved;
};

#define DMACORE_IOVA_STATE_OPTIONS_INIT                               \
	{                                                             \
		sizeof(struct dmacore_iova_state_options), 0, 0, 0, 0 \
	}

/**
 * dmacore_iova_state_reserve() - reserve addresses of a device
 * @device: the device that will use them
 * @phys: where the memory starts that will be linked first: the addresses start at the same place of a page,
 *   and of a larger leaf if they can
 * @size: bytes, at least 1
 * @options: what is to be ready; NULL: nothing, all is made when it is needed
 * @state: DMACORE_IOVA_STATE_EMPTY; receives the range, or that none is needed
 *
 * The range counts as one mapping of the device: its domain cannot be changed before the range is freed.
 *
 * Context: as dmacore_map_phys().
 * Ownership: @state belongs to the library until the range is freed, but may be moved.
 * Return: 0, also where addresses mean nothing (dmacore_iova_state_is_reserved()), or
 *   -EINVAL  @device or @state is NULL, @state is in use, @size is 0 or too large for any range, a
 *            number in @options is too large, a flag unknown, @reserved not zero, or the structure too
 *            short. Never succeeds if retried.
 *   -E2BIG   @options is longer than known and not zero there. Never.
 *   -ENXIO   the device has no streaming mask. Not until it is set.
 *   -EPERM   the device is attached to nothing, blocked, or attached to a domain in which its owner maps by
 *            itself. Not until it is attached elsewhere.
 *   -ERANGE  no addresses that are so many are in the device's reach. Not under this mask.
 *   -ENOSPC  there are none free, or no pages in the bounce pool. May succeed later.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_reserve(struct dmacore_device *device, dmacore_phys_t phys, uint64_t size,
			       const struct dmacore_iova_state_options *options,
			       struct dmacore_iova_state *state);

/**
 * dmacore_iova_state_is_reserved() - whether a state has addresses to link memory to
 * @state: the state, or NULL
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: whether it has. If not, though the reserve call succeeded, each piece is to be mapped by itself.
 */
bool dmacore_iova_state_is_reserved(const struct dmacore_iova_state *state);

/**
 * dmacore_iova_state_address() - the device's address of offset 0
 * @state: a state that has a range
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: the address; 0 if the state has no range.
 */
dmacore_dma_t dmacore_iova_state_address(const struct dmacore_iova_state *state);

/**
 * dmacore_iova_state_link() - map memory into a reserved range
 * @state: a state that has a range
 * @offset: where in the range, in bytes from its first
 * @phys: the memory
 * @size: bytes, at least 1
 * @direction: one of enum dmacore_direction (mapping.h)
 * @attributes: bits of enum dmacore_attributes (mapping.h)
 *
 * Hands the memory to the device, as dmacore_map_phys() does. Needs memory only for what was not reserved. A
 * link that fails changes nothing, and leaves all others.
 *
 * Context: as dmacore_map_phys().
 * Ownership: the memory stays whose it was and must outlive the link.
 * Return: 0, or
 *   -EINVAL  @state is NULL or has no range, @size is 0, or the direction or an attribute is unknown. Also,
 *            with a report, when the device's driver has gone since, and the range with it. Never succeeds if
 *            retried.
 *   -E2BIG   it does not end within the range. Never.
 *   -ENXIO   the device has no streaming mask any more. Not until it is set.
 *   -EFAULT  @phys lies at another place of its page than @offset does for the device. Never.
 *   -EEXIST  a page of it is linked already. Not before that is unlinked.
 *   -EREMOTEIO  it is memory of a peer that is used by its bus address, or cannot be reached (peer.h). Leave a
 *            hole, and map it by itself. Not while the route is the same.
 *   -ERANGE  it wraps, or is too wide for the page table, or must be copied and is MMIO or no pool is in reach.
 *            Never.
 *   -EOPNOTSUPP  DMACORE_ATTR_REQUIRE_COHERENT, and the device is not coherent, or it must be copied. Never.
 *   -ENOSPC  the bounce pool is full. May succeed later.
 *   -ENOMEM  no memory for what was not reserved. May succeed later.
 *   any other: what the backend (sys/backend.h) or the callback of a memory region that is copied failed with.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_link(struct dmacore_iova_state *state, uint64_t offset, dmacore_phys_t phys,
			    uint64_t size, uint32_t direction, uint32_t attributes);

/**
 * dmacore_iova_state_sync() - let the device see what was linked
 * @state: a state that has a range
 * @offset: where in the range
 * @size: bytes, all of which are linked
 *
 * Once for any number of links, before the device is told of them. No invalidation is due for addresses that
 * were not mapped; what was written before is seen by a device that is told afterwards.
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @state is NULL or has no range, @size is 0, or a byte is not linked. Not before it is.
 *   -E2BIG   it does not end within the range. Never.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_sync(struct dmacore_iova_state *state, uint64_t offset, uint64_t size);

/**
 * dmacore_iova_state_sync_for_cpu() - lend bytes that are linked to the CPU
 * @state: a state that has a range
 * @offset: where in the range
 * @size: bytes, all of which are linked, in any number of links
 *
 * As dmacore_sync_for_cpu(), in the direction that each link was given.
 *
 * Context: as dmacore_sync_for_cpu().
 * Ownership: the bytes are lent to the CPU.
 * Return: 0, or
 *   -EINVAL, -E2BIG  as dmacore_iova_state_sync().
 *   any other: what a memory region's callback returned to what is bounced.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_sync_for_cpu(struct dmacore_iova_state *state, uint64_t offset,
				    uint64_t size);

/**
 * dmacore_iova_state_sync_for_device() - give bytes that are linked back to the device
 * @state: a state that has a range
 * @offset: where in the range
 * @size: bytes, all of which are linked, in any number of links
 *
 * As dmacore_sync_for_device(), in the direction that each link was given.
 *
 * Context: as dmacore_sync_for_device().
 * Ownership: the bytes are the device's.
 * Return: as dmacore_iova_state_sync_for_cpu().
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_sync_for_device(struct dmacore_iova_state *state, uint64_t offset,
				       uint64_t size);

/**
 * dmacore_iova_state_unlink() - end links
 * @state: a state that has a range
 * @offset: where one link starts
 * @size: up to where the same or another ends: whole links, and what holes there are between them
 *
 * Strict (domain.h), in a lazy domain too, with one invalidation for all of them: when this returns no access
 * through them is under way, and what the device wrote is in memory. The addresses stay reserved. Needs no
 * memory.
 *
 * Context: as dmacore_unmap() in a strict domain.
 * Ownership: the memory is the CPU's again.
 * Return: 0, or
 *   -EINVAL  @state is NULL or has no range, or @offset and @size do not agree with where links start and end;
 *            nothing changed. Never succeeds if retried.
 *   -E2BIG   it does not end within the range; nothing changed. Never.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_unlink(struct dmacore_iova_state *state, uint64_t offset, uint64_t size);

/**
 * dmacore_iova_state_free() - free a range into which nothing is linked
 * @state: a state, with a range or without
 *
 * Context: as dmacore_unmap().
 * Ownership: the addresses are the device's to give out again, and @state the caller's: it is
 *   DMACORE_IOVA_STATE_EMPTY.
 * Return: 0, or
 *   -EINVAL  @state is NULL, or not in use, or its range went with the device's driver, which is reported; then
 *            it is the caller's all the same. Never succeeds if retried.
 *   -EBUSY   something is linked; nothing changed. Not before it is unlinked.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_free(struct dmacore_iova_state *state);

/**
 * dmacore_iova_state_destroy() - end all links and free the range
 * @state: a state, with a range or without
 *
 * As strictly as the domain wants it, as dmacore_unmap(): in a lazy domain by its next flush; with one
 * invalidation at most. Needs no memory.
 *
 * Context: as dmacore_unmap().
 * Ownership: the memory is the CPU's again, in a lazy domain after the next flush, but for what is bounced,
 *   which is at once; @state as with dmacore_iova_state_free().
 * Return: 0, or
 *   -EINVAL  @state is NULL, or not in use, or its range went with the device's driver, which is reported; then
 *            it is the caller's all the same. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_iova_state_destroy(struct dmacore_iova_state *state);

DMACORE_END_DECLS

#endif /* DMACORE_IOVA_STATE_H */
