/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_DEVICE_H
#define DMACORE_DEVICE_H

/**
 * DOC: Device
 *
 * A device is something that reads and writes memory by itself. Its driver maps buffers for it
 * (mapping.h, coherent.h); an emulated device makes its accesses through a view (view.h).
 *
 *	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
 *	struct dmacore_device *device;
 *
 *	options.name = "nvme0";
 *	options.iommu = iommu;
 *	options.streaming_mask = DMACORE_BIT_MASK(64);
 *	options.coherent_mask = DMACORE_BIT_MASK(32);
 *	error = dmacore_device_create(system, &options, &device);
 *
 * A device with no IOMMU, or attached to an identity domain, is mapped directly: the address that
 * the device is told is the physical address, or what its DMA ranges make of that. A device attached
 * to a DMA domain is mapped through the IOMMU, and one attached to a hybrid domain either way. A device
 * that is made with mapping functions (sys/mapping_ops.h) is mapped as those say. A device
 * attached to an unmanaged or a nested domain reaches what that maps, and its mapping calls refuse. A
 * device behind an IOMMU that is attached to no domain, or to a blocked one, is blocked.
 *
 * Masks are the highest address that the device can put on the bus: the streaming mask for buffers
 * that are mapped, the coherent mask for memory that is allocated. A device whose mask is 0 has
 * none, and the calls that need it refuse. They bound what the driver is given; a view makes any
 * access that the device asks for, as a bus does.
 *
 * DMA ranges say which physical memory the device's bus has, and at which bus addresses: what
 * firmware calls "dma-ranges".
 *
 *	const struct dmacore_dma_range ranges[] = {
 *		{ .bus = 0xc0000000, .phys = 0, .size = 0x40000000 },
 *	};
 *
 *	options.ranges = ranges;
 *	options.range_count = 1;
 *
 * A device that is mapped directly gets bus addresses, which masks and the bus limit are compared
 * with, and only memory that lies in one range, or in several that adjoin on both sides. Behind an
 * IOMMU the ranges say which addresses the bus passes to it, and nothing is added to them: mapping
 * calls give out no others. On either path an access through a view to an address in no range meets
 * nothing mapped.
 *
 * Stability: may change before 1.0.
 */

#include "fault.h"
#include "page_request.h"
#include "reserved.h"
#include "topology.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_bounce_pool;
struct dmacore_device;
struct dmacore_group;
struct dmacore_iommu;
struct dmacore_mapping_ops;
struct dmacore_system;

enum dmacore_device_flags {
	/*
	 * Keep a record of direct mappings too. Then a wrong unmap of one is found, the device
	 * reaches through its view what is mapped for it and nothing else, and the device's
	 * statistics count them. Costs a lock and a tree insertion a mapping. On a flat system a view
	 * of a directly mapped device transfers nothing without it, because nothing tells what is
	 * memory there. In a hybrid domain the device reaches the whole window all the same.
	 */
	DMACORE_DEVICE_TRACK_DIRECT = 1,
	/*
	 * Nobody vouches for it: a device on an external port, say. Its group never has an identity,
	 * a hybrid or a lazy domain, and a driver is bound to it only behind an IOMMU. Without one, whatever
	 * is mapped for it is bounced; by mapping functions, whole pages alone are mapped.
	 */
	DMACORE_DEVICE_UNTRUSTED = 2,
	/*
	 * One function of a slot whose functions may reach each other: they have no access control. The
	 * first of its IDs says which slot.
	 */
	DMACORE_DEVICE_SHARES_SLOT = 4,
	/*
	 * Its accesses go past the caches of the processors, as firmware says of it. What is mapped for
	 * it is written back and forgotten by the system's @cache (system.h) where that is needed, and
	 * nowhere else.
	 */
	DMACORE_DEVICE_NONCOHERENT = 8,
	/*
	 * Whatever is mapped for it directly is bounced (bounce.h), within its reach or not, and through
	 * an IOMMU what does not fill its pages.
	 */
	DMACORE_DEVICE_FORCE_BOUNCE = 16,
};

/* The longest name of a device, its terminating null byte included. */
#define DMACORE_DEVICE_NAME_SIZE 32

/* The most DMA ranges of a device. */
#define DMACORE_DMA_RANGES_MAX 64

/**
 * struct dmacore_dma_range - physical memory as a device's bus has it
 * @bus: first bus address, a multiple of 4096
 * @phys: first physical address, a multiple of 4096
 * @size: bytes, a multiple of 4096, not 0
 */
struct dmacore_dma_range {
	dmacore_dma_t bus;
	dmacore_phys_t phys;
	uint64_t size;
};

/**
 * struct dmacore_device_options - how a device is made
 * @struct_size: sizeof(struct dmacore_device_options)
 * @flags: bits of enum dmacore_device_flags
 * @fault_capacity: faults that the ring holds, at most 65536; 0: 64
 * @name: what reports call it, less than DMACORE_DEVICE_NAME_SIZE bytes long; copied; NULL:
 *   "device"
 * @iommu: the IOMMU it is behind; NULL: none
 * @streaming_mask: see above
 * @coherent_mask: see above
 * @bus_limit: highest address that the bus between device and memory passes, whatever the masks
 *   say; 0: no such limit
 * @fault: receives faults; NULL: nobody does
 * @fault_opaque: passed to @fault
 * @group: the group to join (group.h), whose other devices are behind the same IOMMU; NULL: the one that
 *   it belongs to by the topology (topology.h), or one of its own. The device is attached to what the
 *   group is attached to
 * @reserved_regions: addresses that are not free to be mapped for it (reserved.h); copied
 * @reserved_region_count: how many
 * @bridge: the bridge that it is below (topology.h); NULL: a root bus, or no bus that this concerns
 * @ids: the IDs that its requests carry at the IOMMU, copied; of a PCI function its requester ID first
 *   (segment, bus, device and function: 16, 8, 5 and 3 bits), and then the aliases
 * @id_count: how many, at most DMACORE_DEVICE_IDS_MAX
 * @ranges: DMA ranges, of which no two overlap, be it in bus or in physical addresses; copied
 * @range_count: how many, at most DMACORE_DMA_RANGES_MAX; 0: bus addresses are physical addresses,
 *   and the bus has all of them
 * @pasid_count: its requests may carry PASIDs below this (group.h); 0: none
 * @page_request_capacity: how many page requests of it may be collected or wait for an answer
 *   (page_request.h), at most DMACORE_PAGE_REQUESTS_MAX; 0: it cannot ask. Each page request group takes
 *   memory for so many, of 24 bytes each, as long as it is there
 * @page_response: receives the answers to page requests; NULL only if it cannot ask
 * @page_response_opaque: passed to @page_response
 * @bounce_pool: the pool that is used for it, and no other (bounce.h); NULL: the one that is set for the
 *   system when something is mapped
 * @mapping_ops: functions of the caller's that map memory for it (sys/mapping_ops.h); copied; NULL: none.
 *   It is behind no IOMMU then, has no DMA ranges, and nothing is bounced for it: neither
 *   DMACORE_DEVICE_FORCE_BOUNCE nor @bounce_pool goes with them, and an untrusted device bypasses none
 * @mapping_ops_opaque: passed to them
 */
struct dmacore_device_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t fault_capacity;
	const char *name;
	struct dmacore_iommu *iommu;
	dmacore_dma_t streaming_mask;
	dmacore_dma_t coherent_mask;
	dmacore_dma_t bus_limit;
	dmacore_fault_fn fault;
	void *fault_opaque;
	struct dmacore_group *group;
	const struct dmacore_reserved_region *reserved_regions;
	size_t reserved_region_count;
	struct dmacore_bridge *bridge;
	const uint32_t *ids;
	size_t id_count;
	const struct dmacore_dma_range *ranges;
	size_t range_count;
	uint32_t pasid_count;
	uint32_t page_request_capacity;
	dmacore_page_response_fn page_response;
	void *page_response_opaque;
	struct dmacore_bounce_pool *bounce_pool;
	const struct dmacore_mapping_ops *mapping_ops;
	void *mapping_ops_opaque;
};

#define DMACORE_DEVICE_OPTIONS_INIT \
	{ sizeof(struct dmacore_device_options), 0, 0, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, \
	  NULL, 0, NULL, NULL, 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL }

/* For what a device uses an address: by which of its masks that must be reached. */
enum dmacore_mapping_kind {
	/* A buffer that is mapped (mapping.h). */
	DMACORE_STREAMING = 0,
	/* Memory that is allocated coherent (coherent.h). */
	DMACORE_COHERENT = 1,
};

/* Why a mapping takes its path, bits: docs/POLICY.md has the order in which they are asked. */
enum dmacore_path_reason {
	/* The device is behind no IOMMU. */
	DMACORE_REASON_NO_IOMMU = 1,
	/* Its domain is an identity domain. */
	DMACORE_REASON_IDENTITY = 2,
	/* Its domain translates. */
	DMACORE_REASON_TRANSLATES = 4,
	/* The memory has its own addresses in the hybrid domain, or lies in the window of bypass. */
	DMACORE_REASON_IN_WINDOW = 8,
	/* It has not. */
	DMACORE_REASON_OUTSIDE_WINDOW = 16,
	/* Its last address is above the mask or the bus limit. */
	DMACORE_REASON_ABOVE_LIMIT = 32,
	/* It lies in no run of the device's DMA ranges; or there are ranges, and so no window. */
	DMACORE_REASON_OUTSIDE_RANGES = 64,
	/* Its last address has more bits than the page table's outputs. */
	DMACORE_REASON_TOO_WIDE = 128,
	/* The device has no mask for this kind. */
	DMACORE_REASON_NO_MASK = 256,
	/* The device is attached to nothing, or to a blocked domain. */
	DMACORE_REASON_BLOCKED = 512,
	/* The owner of its domain maps by itself. */
	DMACORE_REASON_OWNED = 1024,
	/* DMACORE_ATTR_REQUIRE_COHERENT, and the device is not coherent. */
	DMACORE_REASON_NOT_COHERENT = 2048,
	/* The device is not trusted, and others may have something on the pages at the buffer's ends. */
	DMACORE_REASON_UNTRUSTED_PAGE = 4096,
	/* The device is made with DMACORE_DEVICE_FORCE_BOUNCE, or is not trusted and behind no IOMMU. */
	DMACORE_REASON_FORCED_BOUNCE = 8192,
	/* There is no bounce pool (bounce.h). */
	DMACORE_REASON_NO_POOL = 16384,
	/* It is memory of a peer (peer.h), or would have bus addresses of one. */
	DMACORE_REASON_PEER = 1 << 15,
	/* The device does not reach that peer, or only a part of the memory is of one. */
	DMACORE_REASON_PEER_UNREACHABLE = 1 << 16,
	/* Bypass is turned off (dmacore_domain_set_bypass()), or mapping functions offer none. */
	DMACORE_REASON_NO_BYPASS = 1 << 17,
	/* The device has mapping functions (sys/mapping_ops.h). */
	DMACORE_REASON_OPS = 1 << 18,
	/* They are an empty table: nobody has configured the device. */
	DMACORE_REASON_NOT_CONFIGURED = 1 << 19,
	/* Its low bits there are not those that the device asks for (@min_align_mask). */
	DMACORE_REASON_MISALIGNED = 1 << 20,
};

/**
 * struct dmacore_explanation - which path memory takes to a device, and why
 * @struct_size: set to sizeof(struct dmacore_explanation) before the call
 * @path: one of enum dmacore_path (mapping.h)
 * @reasons: bits of enum dmacore_path_reason
 * @error: the errno value that a mapping call fails with, positive; 0 if it is not refused. It may still
 *   fail for want of addresses or memory
 * @reserved: zero
 * @limit: the highest address that the mask and the bus limit leave; 0: there is no mask
 */
struct dmacore_explanation {
	size_t struct_size;
	uint32_t path;
	uint32_t reasons;
	int32_t error;
	uint32_t reserved;
	dmacore_dma_t limit;
};

/**
 * struct dmacore_beyond - the live mappings that lie above an address, at least in part
 * @struct_size: set to sizeof(struct dmacore_beyond) before the call
 * @count: how many there are that a record is kept of
 * @first: the lowest first address of those, or 0
 * @last: the highest last address of those, or 0
 * @is_complete: whether there can be no others: 0 where direct mappings without a record may be live,
 *   because the device has been mapped directly and is not made with DMACORE_DEVICE_TRACK_DIRECT
 * @reserved: zero
 *
 * dmacore_device_list_mappings() says which they are.
 */
struct dmacore_beyond {
	size_t struct_size;
	uint64_t count;
	dmacore_dma_t first;
	dmacore_dma_t last;
	uint32_t is_complete;
	uint32_t reserved;
};

#define DMACORE_BEYOND_INIT \
	{ sizeof(struct dmacore_beyond), 0, 0, 0, 0, 0 }

/**
 * struct dmacore_mapping_info - a live mapping
 * @first: first address of the device
 * @last: last address, inclusive
 * @kind: one of enum dmacore_mapping_kind
 * @path: one of enum dmacore_path (mapping.h)
 * @direction: one of enum dmacore_direction (mapping.h)
 * @attributes: bits of enum dmacore_attributes (mapping.h)
 *
 * Of a list (scatterlist.h), what an IOMMU translates is one, from its first segment to its last, and each
 * other segment is one.
 */
struct dmacore_mapping_info {
	dmacore_dma_t first;
	dmacore_dma_t last;
	uint32_t kind;
	uint32_t path;
	uint32_t direction;
	uint32_t attributes;
};

/**
 * struct dmacore_mapping_limits - what mapping calls of a device can do
 * @struct_size: set to sizeof(struct dmacore_mapping_limits) before the call
 * @max_size: the most bytes of one mapping that find room wherever they start, while nothing is mapped: in the
 *   domain's addresses under the mask, between what is reserved there; or directly, under the mask. If some
 *   memory, or all, is bounced: in the pool that is in reach, unless a segment_boundary_mask wants more
 * @optimal_size: up to so many bytes a mapping costs least: @max_size, if mapping functions do not say
 *   otherwise, as freed addresses of every size are kept at hand
 * @merge_boundary_mask: buffers that end and begin at multiples of this plus one become one segment of
 *   a list, as far as its limits allow; 0: none do that are not contiguous, or, in a hybrid domain, not all. Of mapping functions what
 *   they say of theirs
 * @required_mask: the smallest mask, a power of two less one, with which nothing is out of reach: of
 *   all memory that has bytes in this process, on a direct path; of the lowest 4 GiB of addresses,
 *   through an IOMMU; or what mapping functions say. On a flat system memory is where processes have it:
 *   below 2^48
 * @is_addressing_limited: 1: with the streaming mask, the bus limit and the DMA ranges some of that
 *   memory is out of reach directly, and there is no IOMMU to help; 0: none is
 * @reserved: zero
 */
struct dmacore_mapping_limits {
	size_t struct_size;
	uint64_t max_size;
	uint64_t optimal_size;
	uint64_t merge_boundary_mask;
	dmacore_dma_t required_mask;
	uint32_t is_addressing_limited;
	uint32_t reserved;
};

/**
 * struct dmacore_device_limits - what the device's hardware can be told in one piece
 * @struct_size: sizeof(struct dmacore_device_limits)
 * @max_segment_size: the most bytes of a segment of a list; 0: 65536
 * @segment_boundary_mask: no segment of a list crosses a multiple of this plus one, a power of two; 0:
 *   there is no such boundary
 * @min_align_mask: the bits of an address, a power of two less one, that the device's address has in
 *   common with the memory's; 0: none but what the path keeps anyway, below a page through an IOMMU
 */
struct dmacore_device_limits {
	size_t struct_size;
	uint64_t max_segment_size;
	uint64_t segment_boundary_mask;
	uint64_t min_align_mask;
};

#define DMACORE_DEVICE_LIMITS_INIT \
	{ sizeof(struct dmacore_device_limits), 0, 0, 0 }

/**
 * struct dmacore_device_statistics - what a device has mapped and done
 * @struct_size: set to sizeof(struct dmacore_device_statistics) before the call
 * @mapping_count: live mappings and coherent allocations that a record is kept of
 * @mapping_bytes: bytes in them
 * @map_total: such mappings and allocations made since the device was made
 * @fault_total: faults since the device was made
 * @fault_lost: those of @fault_total that found the ring full
 */
struct dmacore_device_statistics {
	size_t struct_size;
	uint64_t mapping_count;
	uint64_t mapping_bytes;
	uint64_t map_total;
	uint64_t fault_total;
	uint64_t fault_lost;
};

/**
 * dmacore_device_create() - make a device
 * @system: the system it belongs to
 * @options: how; NULL: all defaults, which leave it without a mask
 * @out_device: receives the device, or NULL on failure
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; topology, rank 12; windows,
 *   rank 14); may call the system's find_group, and @options->mapping_ops->supported with the device,
 *   which is not in its group yet.
 * Ownership: the caller gives the device back with dmacore_device_destroy(); it holds on to the
 *   system, to the IOMMU, to the bridge, to the bounce pool and to its group. What @options->fault_opaque,
 *   @options->page_response_opaque and @options->mapping_ops_opaque point to must outlive it.
 * Return: 0, or
 *   -EINVAL  @system or @out_device is NULL, a flag is unknown, @options->pasid_count is above
 *            2^20, the name or the ring is too long, page requests are too many or nobody receives their
 *            answers, the IOMMU, the group or the bounce pool is of another system, the group's devices
 *            are behind another IOMMU, it belongs to another group by the topology than to @options->group, a reserved
 *            region is none, there are too many of those or of IDs, the bridge is of another system,
 *            a function of a slot has no ID, the DMA ranges are too many or NULL, one of them is not
 *            aligned, empty, wraps or overlaps another, the device is not coherent and the system has
 *            no @cache, a mapping function needs another that is not there, or does not go with the
 *            rest, or a structure is too short. Never succeeds if
 *            retried.
 *   -EBUSY   by the topology it belongs to two groups, which there are. Not until one is gone.
 *   -EPERM   the device is not trusted, and the group is in an identity, a hybrid or a lazy domain; or
 *            its reserved regions are not honoured by the domain that the group is in, or goes back to;
 *            or one is direct, and the group is owned. Not until that is changed.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 *   any other: what @options->mapping_ops->supported returned.
 */
DMACORE_MUST_CHECK
int dmacore_device_create(struct dmacore_system *system,
			  const struct dmacore_device_options *options,
			  struct dmacore_device **out_device);

/**
 * dmacore_device_destroy() - give a device back
 * @device: the device, or NULL
 *
 * Takes it from its driver (driver.h), as dmacore_device_unbind() does, and out of its group, which is
 * free again with its last device. Mappings that are live are unmapped, memory that was allocated for it is
 * freed, and both are reported (DMACORE_REPORT_WARNING). Allocated memory that a zero-copy mapping of another
 * device holds, or of a view of this one, is never freed, and the report says so. Destroy its views
 * first; see the lifetime rule in system.h. Views that are left reach nothing. While the driver's probe
 * or remove runs, all this is done after that; who needs to know that the driver has gone unbinds first,
 * until that does not return -EBUSY.
 *
 * Context: any thread, while no other thread makes a mapping call for @device; locked (group, rank 3;
 *   device mappings, rank 4; bindings, rank 11; topology, rank 12; windows, rank 14; bounce area, rank
 *   15; bounce chunks, rank 18); waits for the device's accesses in flight, and mapping calls under
 *   way, to end; may call the driver's remove, the report callback, the memory allocator, the mapping
 *   functions, page_response and the domain's notifiers (rank 13); may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: @device may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_device_destroy(struct dmacore_device *device);

/**
 * dmacore_device_set_mask() - set the masks for what is mapped and for what is allocated
 * @device: the device
 * @mask: highest address that the device reaches; 0: it has no mask
 * @out_beyond: receives which live mappings and allocations lie above @mask; may be NULL
 *
 * Live mappings stay as they are, and are synced and unmapped as they were made.
 *
 * Context: any thread; locked (device mappings, rank 4; bounce chunks, rank 18); looks at each mapping
 *   above @mask if @out_beyond is given; may call the device's mapping functions, with no lock held.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @device is NULL, or the structure is too short; nothing changed. Never succeeds if retried.
 *   -E2BIG   the structure's size is that of no structure; nothing changed. Never.
 *   -EPERM   the device's mapping functions are an empty table, and @mask is not 0. Never.
 *   any other: what the mapping functions' supported returned; nothing changed.
 */
DMACORE_MUST_CHECK
int dmacore_device_set_mask(struct dmacore_device *device, dmacore_dma_t mask,
			    struct dmacore_beyond *out_beyond);

/**
 * dmacore_device_set_streaming_mask() - set the mask for buffers that are mapped
 * @device: the device
 * @mask: highest address that the device reaches; 0: it has no mask
 * @out_beyond: receives which live mappings lie above @mask; may be NULL
 *
 * As dmacore_device_set_mask(), for mappings alone.
 *
 * Context: as dmacore_device_set_mask().
 * Ownership: nothing changes hands.
 * Return: 0, or as dmacore_device_set_mask().
 */
DMACORE_MUST_CHECK
int dmacore_device_set_streaming_mask(struct dmacore_device *device, dmacore_dma_t mask,
				      struct dmacore_beyond *out_beyond);

/**
 * dmacore_device_set_coherent_mask() - set the mask for memory that is allocated
 * @device: the device
 * @mask: highest address that the device reaches; 0: it has no mask
 * @out_beyond: receives which live coherent allocations lie above @mask; may be NULL
 *
 * As dmacore_device_set_mask(), for allocations alone.
 *
 * Context: as dmacore_device_set_mask().
 * Ownership: nothing changes hands.
 * Return: 0, or as dmacore_device_set_mask().
 */
DMACORE_MUST_CHECK
int dmacore_device_set_coherent_mask(struct dmacore_device *device, dmacore_dma_t mask,
				     struct dmacore_beyond *out_beyond);

/**
 * dmacore_device_set_bus_limit() - set what the bus between device and memory passes
 * @device: the device
 * @limit: highest address that it passes; 0: all
 * @out_beyond: receives which live mappings and allocations lie above @limit; may be NULL
 *
 * As dmacore_device_set_mask().
 *
 * Context: as dmacore_device_set_mask().
 * Ownership: nothing changes hands.
 * Return: 0, or as dmacore_device_set_mask().
 */
DMACORE_MUST_CHECK
int dmacore_device_set_bus_limit(struct dmacore_device *device, dmacore_dma_t limit,
				 struct dmacore_beyond *out_beyond);

/**
 * dmacore_device_set_ranges() - set which physical memory the bus has, and where
 * @device: the device
 * @ranges: DMA ranges, as in struct dmacore_device_options; copied
 * @range_count: how many; 0: bus addresses are physical addresses, and the bus has all of them
 *
 * Live mappings are synced and unmapped as they were made. Whether the device still reaches them is the
 * bus's to say, and so the new ranges' for its views. The memory of ranges that are set for the first time
 * is kept until the device ends. A device gets no copies where other memory was by other ranges, as that may
 * be mapped there.
 *
 * Context: any thread; locked (device mappings, rank 4); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @device is NULL, the ranges are none, as in dmacore_device_create(), or it has mapping functions.
 *            Never succeeds if retried.
 *   -EBUSY   memory of the system would be where the device has, or may have, live copies (bounce.h).
 *            Succeeds once these are unmapped. What is just being mapped, or memory that comes later, is not
 *            looked at.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_device_set_ranges(struct dmacore_device *device, const struct dmacore_dma_range *ranges,
			      size_t range_count);

/**
 * dmacore_device_list_mappings() - which mappings of a device live
 * @device: the device
 * @first: first address of a range
 * @last: its last address, inclusive
 * @out: receives those that a record is kept of and that overlap the range, those of lower addresses
 *   first; may be NULL if @capacity is 0
 * @capacity: how many there is room for
 * @out_count: receives how many there are, which may be more than @capacity
 *
 * Context: any thread; locked (device mappings, rank 4; bounce chunks, rank 18); looks at each mapping in
 *   the range; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @last is below @first. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_device_list_mappings(struct dmacore_device *device, dmacore_dma_t first,
				 dmacore_dma_t last, struct dmacore_mapping_info *out,
				 size_t capacity, size_t *out_count);

/**
 * dmacore_device_explain() - say which path memory takes to a device, and why
 * @device: the device
 * @phys: first physical address of the memory
 * @size: bytes, at least 1
 * @kind: one of enum dmacore_mapping_kind
 * @attributes: bits of enum dmacore_attributes (mapping.h)
 * @out: receives the decision that a mapping call would make now; @out->struct_size says how much of it
 *   there is room for
 *
 * Maps nothing.
 *
 * Context: any thread; lock-free, but locked (device mappings, rank 4) if the device has mapping functions;
 *   calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, the range wraps, @kind or an attribute is unknown, or the
 *            structure is too short. Never succeeds if retried.
 *   -E2BIG   the structure's size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_device_explain(struct dmacore_device *device, dmacore_phys_t phys, uint64_t size,
			   uint32_t kind, uint32_t attributes, struct dmacore_explanation *out);

/**
 * dmacore_explanation_describe() - put an explanation into words
 * @explanation: what dmacore_device_explain() gave
 * @out: receives one sentence without a line end, cut off where there is no room, and a null byte
 * @size: bytes at @out, at least 1; 256 are enough
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, the path is unknown, or the structure is too short. Never
 *            succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 */
DMACORE_MUST_CHECK
int dmacore_explanation_describe(const struct dmacore_explanation *explanation, char *out,
				 size_t size);

/**
 * dmacore_device_mapping_limits() - read what mapping calls of a device can do
 * @device: the device
 * @out: receives the limits, for the domain, masks and ranges that it has now; @out->struct_size says how
 *   many of them there is room for
 *
 * A device that no mapping call succeeds for has a maximum of 0.
 *
 * Context: any thread; lock-free; looks at each memory region; may call the device's mapping functions.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_device_mapping_limits(struct dmacore_device *device,
				  struct dmacore_mapping_limits *out);

/**
 * dmacore_device_set_limits() - say what the device's hardware can be told in one piece
 * @device: the device
 * @limits: what it can be told; copied
 *
 * A driver does this before it maps anything. Mappings that are live stay as they are; of one that is
 * being made meanwhile some limits may be the old ones.
 *
 * Context: any thread; locked (device mappings, rank 4); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, a mask is no power of two less one, or the structure is too short. Never
 *            succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 */
DMACORE_MUST_CHECK
int dmacore_device_set_limits(struct dmacore_device *device,
			      const struct dmacore_device_limits *limits);

/**
 * dmacore_device_statistics() - read what a device has mapped and done
 * @device: the device
 * @out_statistics: receives the numbers; @out_statistics->struct_size says how many of them there
 *   is room for
 *
 * Context: any thread; locked (device mappings, rank 4; fault ring, rank 10); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_device_statistics(struct dmacore_device *device,
			      struct dmacore_device_statistics *out_statistics);

DMACORE_END_DECLS

#endif /* DMACORE_DEVICE_H */
