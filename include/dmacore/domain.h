/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_DOMAIN_H
#define DMACORE_DOMAIN_H

/**
 * DOC: Domain
 *
 * A domain is one address space of an IOMMU; a device behind the IOMMU uses the domain that its group
 * is attached to (group.h), and is blocked while that is none.
 *
 *	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
 *	struct dmacore_domain *domain;
 *
 *	options.type = DMACORE_DOMAIN_DMA;
 *	error = dmacore_domain_create(iommu, &options, &domain);
 *	error = dmacore_domain_attach(domain, device);
 *
 * In a DMA domain the mapping calls (mapping.h, coherent.h) allocate the addresses and fill in the
 * page table. In an unmanaged domain the caller does both, and the mapping calls refuse:
 *
 *	error = dmacore_domain_map(domain, 0x10000, 0x80000000, 4096, DMACORE_ACCESS_READ);
 *	... the device reads at 0x10000 ...
 *	error = dmacore_domain_unmap(domain, 0x10000, 4096, 0, NULL);
 *
 * In an identity domain every device address is the physical address, or what a device's DMA ranges
 * make of it (device.h). In a blocked domain none leads anywhere.
 *
 * A hybrid domain is both: the memory of the system that is in this process (memory.h) has its physical
 * addresses in it, all of it and for every device, and mapping calls map beside that. What a device
 * reaches at those addresses, under its mask, is mapped directly, without a page table and without a
 * record, though the domain counts such mappings; the rest is mapped as in a DMA domain, at addresses
 * that no memory has. Each mapping is undone as it was made, whatever the masks are by then. Memory that
 * is added or removed is followed; what has no room in the window is mapped like the rest, until it is
 * followed again and there is: where addresses were given out by then, or memory comes back with other
 * ends while what was there is mapped directly still. Pages that are not whole, and reserved regions, are
 * not in the window.
 *
 *	options.type = DMACORE_DOMAIN_HYBRID;
 *	error = dmacore_domain_create(iommu, &options, &domain);
 *	... a device with a streaming mask of 64 bits and a coherent one of 32 has both kinds ...
 *
 * A domain whose page tables have a place for it (DMACORE_PAGETABLE_DIRTY) can note what devices
 * write, for who copies the memory of a running machine:
 *
 *	uint64_t bitmap[16] = { 0 };
 *
 *	error = dmacore_domain_set_dirty_tracking(domain, true);
 *	... copy all of the memory; then, again and again, what was written meanwhile:
 *	error = dmacore_domain_read_dirty(domain, dma, size, DMACORE_DIRTY_CLEAR, bitmap);
 *
 * A write through a view counts when it is done, before the call that makes it returns. A zero-copy
 * mapping for writing counts as long as it lives, and once more when it ends. What is noted goes with
 * the mapping: read it before you unmap.
 *
 * A nested domain is an IOMMU's second translation that a guest makes by itself (stage 1), in front of the
 * one that confines the guest (stage 2). That is an unmanaged domain, its parent, in which the guest's
 * physical memory is mapped at guest-physical addresses. The guest's tables lie in that memory:
 *
 *	struct dmacore_walk_options guest = DMACORE_WALK_OPTIONS_INIT;
 *	struct dmacore_domain_options stages = DMACORE_DOMAIN_OPTIONS_INIT;
 *	struct dmacore_domain *nested;
 *
 *	guest.format = DMACORE_PAGETABLE_X86_64;
 *	guest.root = 0x1000;
 *	stages.type = DMACORE_DOMAIN_NESTED;
 *	stages.parent = domain;
 *	stages.guest_table = &guest;
 *	error = dmacore_domain_create(iommu, &stages, &nested);
 *	... attach it; then, whenever the guest invalidates what it has changed:
 *	error = dmacore_domain_invalidate(nested, 0x10000, 0x10fff);
 *
 * Each access walks the guest's tables as they are at that moment and reaches what both stages permit, as
 * dmacore_pagetable_walk() says it of two stages, without privilege. The tables are read by words where the
 * parent lets devices read, in memory of this process at a multiple of 8, not by callbacks of regions. The
 * library notes in them neither accesses nor writes: those the parent notes, at guest-physical addresses.
 * An unmap in the parent is strict for the nested domains too. A fault says which stage refused (fault.h).
 *
 * What an unmap takes. There are three promises that it can make about the device and the range:
 *
 * (1) no access that starts after the call returned goes through the mapping;
 * (2) none goes through a cached copy of the translation. The library keeps no such copies. What a
 *     translate call answered, or a zero-copy mapping holds, is a copy of the caller's;
 * (3) no access through the mapping is in flight, so that the memory may be given to somebody else.
 *
 * Strict is what makes all of them when it returns, for which it waits for accesses in flight. In a
 * lazy DMA domain dmacore_unmap() does not wait: it makes (1) and (2), queues the range, and (3)
 * holds after the next flush of the domain, which waits once for all that is queued. Until then the
 * addresses are not given out again, and a device that is in the middle of an access may still read
 * the old memory or write to it. Coherent memory is freed strictly in every domain.
 *
 * A lazy domain is flushed when as many ranges are queued as @flush_entries says, when they are as
 * old as @flush_age says and dmacore_system_tick() is called, when a mapping call finds no free
 * address, and by dmacore_domain_flush(). Pages that a processor queues may be free sooner, without a
 * flush, where no access is in flight and no backend has anything to flush. So whoever wants (3) at a
 * certain point says so:
 *
 *	... the driver unmaps its buffers ...
 *	error = dmacore_domain_flush(domain);
 *	... the buffers may be freed ...
 *
 * Where an IOMMU has a backend (sys/backend.h), calls that make a domain, attach it, map in it, or start
 * or read dirty tracking return what the backend fails with too, with everything as it was.
 *
 * Stability: may change before 1.0.
 */

#include "fault.h"
#include "page_request.h"
#include "pagetable.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_domain;
struct dmacore_group;
struct dmacore_iommu;

enum dmacore_domain_type {
	/* Addresses are physical. */
	DMACORE_DOMAIN_IDENTITY = 1,
	/* The mapping calls map. */
	DMACORE_DOMAIN_DMA = 2,
	/* Nothing is mapped, and nothing can be: each access is a fault. */
	DMACORE_DOMAIN_BLOCKED = 3,
	/* The caller maps, by dmacore_domain_map(). */
	DMACORE_DOMAIN_UNMANAGED = 4,
	/* The mapping calls map, and unmaps of theirs are lazy. In all else DMACORE_DOMAIN_DMA. */
	DMACORE_DOMAIN_DMA_LAZY = 5,
	/* Tables of a guest translate, and an unmanaged domain what they lead to. */
	DMACORE_DOMAIN_NESTED = 6,
	/* Memory has its own addresses, and the mapping calls map what a device does not reach there. */
	DMACORE_DOMAIN_HYBRID = 7,
};

/* Beside those of enum dmacore_unmap_flags (pagetable.h). */
enum dmacore_domain_unmap_flags {
	/* Do not wait: of the three promises above only (1) holds until dmacore_domain_sync(). */
	DMACORE_UNMAP_UNSYNCED = 256,
};

/**
 * struct dmacore_domain_options - how a domain is made
 * @struct_size: sizeof(struct dmacore_domain_options)
 * @type: one of enum dmacore_domain_type
 * @flags: zero
 * @first: a DMA or a hybrid domain: lowest address to give out, a multiple of 4096; 0: 4096, so
 *   that no mapping starts at address 0
 * @last: a DMA or a hybrid domain: highest address to give out, inclusive, one less than a
 *   multiple of 4096; 0: the highest that the page table can translate
 * @flush_entries: DMACORE_DOMAIN_DMA_LAZY: the queued ranges that make a flush, at most 65536, of
 *   32 bytes each; 1: every unmap flushes, unless another thread does; 0: 256. Where several processors
 *   unmap, each may have up to seven pages more in the queue, if this is a multiple of 8 of at least 64
 * @reserved: zero
 * @flush_age: DMACORE_DOMAIN_DMA_LAZY: nanoseconds after which a queued range makes a tick flush;
 *   0: 10 ms
 * @group: the group whose devices' reserved regions (reserved.h) it honours; NULL: none. Looked at while
 *   the domain is made. A nested domain honours what its parent does
 * @parent: DMACORE_DOMAIN_NESTED: an unmanaged domain of the same IOMMU, which it holds on to
 * @guest_table: DMACORE_DOMAIN_NESTED: the guest's tables (pagetable.h), with a guest-physical root, and
 *   with @read, @opaque and @second_stage NULL; copied
 * @fault: receives the faults of devices, and of PASIDs, that are attached to it (fault.h); NULL: nobody
 *   does
 * @page_request: is told what those ask for (page_request.h); NULL: nobody is, and the answer is
 *   DMACORE_PAGE_RESPONSE_INVALID. Not for a blocked domain, in which nothing can be mapped
 * @opaque: passed to both
 */
struct dmacore_domain_options {
	size_t struct_size;
	uint32_t type;
	uint32_t flags;
	dmacore_iova_t first;
	dmacore_iova_t last;
	uint32_t flush_entries;
	uint32_t reserved;
	uint64_t flush_age;
	struct dmacore_group *group;
	struct dmacore_domain *parent;
	const struct dmacore_walk_options *guest_table;
	dmacore_domain_fault_fn fault;
	dmacore_page_request_fn page_request;
	void *opaque;
};

#define DMACORE_DOMAIN_OPTIONS_INIT                                                                \
	{                                                                                          \
		sizeof(struct dmacore_domain_options), DMACORE_DOMAIN_DMA, 0, 0, 0, 0, 0, 0, NULL, \
			NULL, NULL, NULL, NULL, NULL                                               \
	}

/**
 * struct dmacore_domain_segment - a run of bytes in physical memory
 * @phys: first physical address, a multiple of the page tables' granule
 * @size: bytes, a multiple of the granule, not 0
 */
struct dmacore_domain_segment {
	dmacore_phys_t phys;
	uint64_t size;
};

/**
 * struct dmacore_domain_statistics - what a domain holds
 * @struct_size: set to sizeof(struct dmacore_domain_statistics) before the call
 * @device_count: devices attached
 * @mapping_count: IOVA ranges in use by mapping calls, queued ones among them
 * @iova_bytes: bytes that they take: a range of up to 64 pages above 4 GiB mostly takes a power of two
 *   of pages, if the domain has 4 GiB there
 * @mapped_bytes: bytes that the page table translates
 * @table_count: table pages in use
 * @table_bytes: bytes in them
 * @queued_count: IOVA ranges that are unmapped and wait for a flush
 * @queued_bytes: bytes in them
 * @flush_count: flushes that had something to do
 *
 * All but @device_count are 0 in identity, blocked and nested domains.
 */
struct dmacore_domain_statistics {
	size_t struct_size;
	uint64_t device_count;
	uint64_t mapping_count;
	uint64_t iova_bytes;
	uint64_t mapped_bytes;
	uint64_t table_count;
	uint64_t table_bytes;
	uint64_t queued_count;
	uint64_t queued_bytes;
	uint64_t flush_count;
};

/**
 * dmacore_domain_create() - make a domain of an IOMMU
 * @iommu: the IOMMU
 * @options: how; NULL: a DMA domain over all that the page table can translate
 * @out_domain: receives the domain, or NULL on failure
 *
 * Context: any thread; locked (group, rank 3, if there is one; for a lazy domain lazy domains, rank 6,
 *   and flush queue, rank 7; for a hybrid domain IOVA cache, rank 8, IOVA store, rank 9, and windows, rank
 *   14); calls the IOMMU's table allocator, and for a hybrid domain may wait for accesses in flight to end.
 * Ownership: the caller gives the domain back with dmacore_domain_destroy(); it holds on to the
 *   IOMMU and to its parent. What @options->opaque points to must outlive it, and every call of the two
 *   callbacks.
 * Return: 0, or
 *   -EINVAL  @iommu or @out_domain is NULL, the type is unknown, a flag or a reserved member is
 *            set, @first or @last is not aligned, they are the wrong way round, @flush_entries is
 *            above 65536, a member is given for a domain of a type that it is not for, the group is
 *            of another system, a nested domain has no parent that can be one or no tables, these are
 *            none (see dmacore_pagetable_walk()), or a structure is too short. Never succeeds if retried.
 *   -ERANGE  @last is above what the page table can translate, or a region that must be mapped 1:1 is.
 *            Never.
 *   -EAGAIN  the IOMMU is announced and not there. Once it has started.
 *   -EOPNOTSUPP  a DMA or a hybrid domain: the IOMMU's page tables have a granule of more than 4096
 *            bytes; a lazy one: the IOMMU has no DMACORE_IOMMU_DEFERRED_FLUSH; a hybrid one: the system
 *            is flat; a nested one: the format of the guest's tables lacks a feature. Never.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_domain_create(struct dmacore_iommu *iommu, const struct dmacore_domain_options *options,
			  struct dmacore_domain **out_domain);

/**
 * dmacore_domain_destroy() - give a domain back
 * @domain: the domain, or NULL
 *
 * Detach it first; see the lifetime rule in system.h: a group holds on to its default domain, a
 * device to the one that it is attached to, and a nested domain to its parent. What is queued in a lazy
 * domain ends with it; no access is in flight in a domain that no device is attached to.
 *
 * Context: any thread; locked (flush queue, rank 7, for a DMA or a hybrid domain; lazy domains, rank 6, for
 *   one that was lazy; windows, rank 14, for a hybrid one); calls the table allocator, and may call the
 *   report callback.
 * Ownership: @domain may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_domain_destroy(struct dmacore_domain *domain);

/**
 * dmacore_domain_attach() - make a domain the default domain of a device's group
 * @domain: the domain
 * @device: a device behind the same IOMMU, whose group has no default domain
 *
 * All devices of the group (group.h) are attached; a device that was made without saying otherwise is
 * alone in its group.
 *
 * A direct mapping that no record is kept of has its address to itself for as long as the device lives:
 * a DMA or hybrid domain to which a device comes that may have some (see DMACORE_DEVICE_TRACK_DIRECT)
 * gives out no bus addresses of the memory that the system has then (memory.h), to no device; nor any from
 * the lowest to the highest at which the device has had registers mapped (DMACORE_ATTR_MMIO). If they are
 * not free it is flushed for that. Some may stay kept when this fails. (On a flat system, which
 * does not say what is memory, a DMA domain gives them out.)
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; for a domain that gives out
 *   addresses flush queue, rank 7, and as iova.h; windows, rank 14); may wait for accesses in flight
 *   to end; calls nothing back.
 * Ownership: the group and its devices hold on to the domain until it is detached, or they are
 *   destroyed.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the device is not behind the domain's IOMMU. Never succeeds if
 *            retried.
 *   -EBUSY   the group has a default domain, this one or another. Succeeds once it is detached. Or an
 *            address that is to be kept from being given out is given out, for which other devices have
 *            to unmap it.
 *   -ENOMEM  no memory to keep them. May succeed later.
 *   -EPERM   the group is owned; not until it is released. Or a device of the group may not have such a
 *            domain: it is an identity, a hybrid or a lazy domain, and the device is not trusted
 *            (DMACORE_DEVICE_UNTRUSTED), or it does not honour the device's reserved regions
 *            (reserved.h); never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_attach(struct dmacore_domain *domain, struct dmacore_device *device);

/**
 * dmacore_domain_replace() - make a domain the default domain of a group instead of another
 * @domain: the domain
 * @device: a device behind the same IOMMU
 *
 * As dmacore_domain_attach(), and without a gap: an access of the group's devices sees the old domain
 * or the new one. When the call returns none through the old one is in flight, but inside the
 * callbacks of memory regions.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: the group and its devices let go of the old domain and hold on to the new one.
 * Return: 0, also if @domain is the default domain; or
 *   -EINVAL  a pointer is NULL, or the device is not behind the domain's IOMMU. Never succeeds if
 *            retried.
 *   -EBUSY   the group is in use by the DMA API, or a device of it has live mappings or a mapping
 *            call running, or as there about addresses. Succeeds once that has ended.
 *   -ENOMEM  as there.
 *   -EPERM   as there.
 */
DMACORE_MUST_CHECK
int dmacore_domain_replace(struct dmacore_domain *domain, struct dmacore_device *device);

/**
 * dmacore_domain_detach() - take the default domain from a device's group
 * @domain: the default domain
 * @device: the device
 *
 * When the call returns the devices of the group are blocked and no access of them is in flight, but
 * inside the callbacks of memory regions. Direct mappings that no record is kept of (see
 * DMACORE_DEVICE_TRACK_DIRECT) end without a word.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: the group and its devices let go of the domain.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the domain is not the default domain. Never succeeds if retried.
 *   -EBUSY   the group is in use by the DMA API, or a device of it has live mappings or a mapping
 *            call running. Succeeds once that has ended.
 *   -EPERM   the group is owned; not until it is released. Or a device of it has a region that must
 *            always be mapped 1:1; never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_detach(struct dmacore_domain *domain, struct dmacore_device *device);

/**
 * dmacore_domain_map() - map a range in an unmanaged domain
 * @domain: the domain
 * @iova: first address of the devices, a multiple of the page tables' granule
 * @phys: first physical address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 * @access: what devices may do there: bits of enum dmacore_access, of read, write and execute one at
 *   least
 *
 * The largest leaves that fit are used. The range need not be in the system's memory; an access to a
 * part that is not there faults. Calls on ranges that do not overlap go on beside each other; the
 * caller does not make calls on overlapping ranges at once.
 *
 * Context: any thread; lock-free, but for notifiers (rank 13); calls the table allocator and notifiers,
 *   and may wait for accesses in flight to end.
 * Ownership: the memory stays whose it was and must outlive the mapping. On a flat system it must
 *   be memory of this process.
 * Return: 0, or with nothing changed
 *   -EINVAL  @domain is NULL, something is not aligned, the size is 0, the access permits nothing or
 *            has unknown bits. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain is not unmanaged, or the page tables cannot express the access. Never.
 *   -EPERM   a part is reserved (reserved.h) in the domain. Never.
 *   -ERANGE  a range wraps, or is too wide for the page tables. Never.
 *   -EEXIST  a part is mapped. Not until that is unmapped.
 *   -ENOMEM  no memory for table pages. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_domain_map(struct dmacore_domain *domain, dmacore_iova_t iova, dmacore_phys_t phys,
		       uint64_t size, uint32_t access);

/**
 * dmacore_domain_map_list() - map scattered memory to one range in an unmanaged domain
 * @domain: the domain
 * @iova: first address of the devices, a multiple of the page tables' granule
 * @segments: the memory, in the order of the devices' addresses
 * @count: how many segments, at least 1
 * @access: as for dmacore_domain_map()
 *
 * As dmacore_domain_map() for one segment after the other, where segments that adjoin are one, for
 * larger leaves; but all are mapped or none. While the call runs, devices may reach those that are
 * mapped already; when it has failed none is reached, and no access through one is in flight but those
 * that mapping.h names. Table pages that were made for a part may stay.
 *
 * Context: any thread; lock-free, but for notifiers (rank 13) and zero-copy mappings (rank 5) when a part
 *   is unmapped again; calls the table allocator and notifiers, which are told of each segment, and may
 *   wait for accesses in flight to end, and call the report callback.
 * Ownership: the memory stays whose it was and must outlive the mapping; @segments is the caller's
 *   again.
 * Return: 0, or with everything mapped as before
 *   -EINVAL  a pointer is NULL, @count is 0, something is not aligned, a size is 0, the access permits
 *            nothing or has unknown bits. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain is not unmanaged, or the page tables cannot express the access. Never.
 *   -EPERM   a part is reserved (reserved.h) in the domain. Never.
 *   -ERANGE  a range wraps, or is too wide for the page tables. Never.
 *   -EEXIST  a part of the devices' addresses is mapped. Not until that is unmapped.
 *   -ENOMEM  no memory for table pages. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_domain_map_list(struct dmacore_domain *domain, dmacore_iova_t iova,
			    const struct dmacore_domain_segment *segments, size_t count,
			    uint32_t access);

/**
 * dmacore_domain_unmap() - unmap a range in an unmanaged domain
 * @domain: the domain
 * @iova: first address of the devices, a multiple of the page tables' granule
 * @size: bytes, a multiple of the granule, not 0
 * @flags: bits of enum dmacore_unmap_flags (pagetable.h) and enum dmacore_domain_unmap_flags
 * @out_unmapped: receives how many bytes were unmapped; may be NULL
 *
 * Strict, without DMACORE_UNMAP_UNSYNCED: when the call returns the three promises above hold for what
 * it unmapped, with the exceptions that mapping.h names. A zero-copy mapping that holds a part is
 * reported (DMACORE_REPORT_WARNING), unless a notifier's callback ends it; without waiting not one that
 * is being made just then. For what goes on beside it, a call that splits a leaf is one on the range of
 * the whole leaf.
 *
 * Context: any thread; locked (zero-copy mappings, rank 5; notifiers, rank 13); waits for accesses in
 *   flight to end; calls the table allocator and notifiers, and may call the report callback.
 * Ownership: the memory that was mapped is the caller's again.
 * Return: 0, also if nothing was mapped there; or with nothing changed
 *   -EINVAL  @domain is NULL, something is not aligned, the size is 0, or a flag is unknown. Never
 *            succeeds if retried.
 *   -EOPNOTSUPP  the domain is not unmanaged, or an end of the range cuts through a leaf and
 *            DMACORE_UNMAP_SPLIT is not given. Never.
 *   -ERANGE  the range wraps, or is too wide for the page tables. Never.
 *   -ENOMEM  DMACORE_UNMAP_SPLIT: no memory for table pages. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_domain_unmap(struct dmacore_domain *domain, dmacore_iova_t iova, uint64_t size,
			 uint32_t flags, uint64_t *out_unmapped);

/**
 * dmacore_domain_sync() - end accesses through what was unmapped without waiting
 * @domain: an unmanaged domain
 *
 * When the call returns the three promises above hold for every unmap that returned before it, with the
 * exceptions that mapping.h names. Many unmaps with DMACORE_UNMAP_UNSYNCED and one such call invalidate
 * cached translations once, and wait once:
 *
 *	for (size_t i = 0; i < count; i++)
 *		error = dmacore_domain_unmap(domain, iova[i], 4096, DMACORE_UNMAP_UNSYNCED, NULL);
 *	error = dmacore_domain_sync(domain);
 *	... the memory may be given to somebody else ...
 *
 * Context: any thread; lock-free; waits for accesses in flight to end; calls nothing back.
 * Ownership: the memory that was mapped is the caller's again.
 * Return: 0, or
 *   -EINVAL  @domain is NULL. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain is not unmanaged. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_sync(struct dmacore_domain *domain);

/**
 * dmacore_domain_flush() - let nothing be queued in a DMA domain
 * @domain: the domain
 *
 * When the call returns (3) holds for every unmap that returned before it, and their addresses may
 * be given out again. In a domain that is not lazy, such as a hybrid one, there is nothing to do.
 *
 * Context: any thread; locked (flush queue, rank 7; IOVA cache, rank 8; IOVA store, rank 9); waits
 *   for accesses in flight to end, and for a flush that another thread has begun; calls nothing
 *   back.
 * Ownership: the memory of those unmaps may be given to anybody.
 * Return: 0, or
 *   -EINVAL  @domain is NULL. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain is neither a DMA nor a hybrid domain. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_flush(struct dmacore_domain *domain);

/**
 * dmacore_domain_set_bypass() - let memory be mapped directly in a hybrid domain, or not
 * @domain: a hybrid domain
 * @is_on: whether mapping calls may use the memory's own addresses; at first they may
 *
 * When it is turned off, mapping calls map everything as in a DMA domain, and devices no longer reach
 * memory that is not mapped for them: what of the window has no live direct mapping is gone when this
 * returns, and the rest goes piece by piece, each with the last unmap in it. A piece is the memory of one
 * region. What devices have not unmapped when they leave the domain goes with the last device, in the call
 * by which that leaves. When it is turned on again the window is filled again. Addresses of memory are
 * given out for nothing else all the while.
 *
 * Context: any thread, but not within a table allocator or a function of a backend; locked (IOVA store,
 *   rank 9; notifiers, rank 13); waits for accesses in flight to end; may call the table allocator, the
 *   backend and the domain's notifiers.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @domain is NULL. Never succeeds if retried.
 *   -EOPNOTSUPP  it is no hybrid domain. Never.
 *   -ENOMEM  no memory for table pages: bypass is on, and a part of memory is not in the window. Succeeds
 *            for the rest if it is turned on once more, and there is memory.
 */
DMACORE_MUST_CHECK
int dmacore_domain_set_bypass(struct dmacore_domain *domain, bool is_on);

/**
 * dmacore_domain_invalidate() - say that a guest has changed its tables
 * @domain: a nested domain
 * @first: first address of the devices whose translation has changed; 0 for all
 * @last: last address, inclusive; UINT64_MAX for all
 *
 * The library keeps no copies of translations, so that accesses that start after a change go by it
 * without this call. When this returns, none is in flight by what the tables said before, but inside the
 * callbacks of memory regions; and the domain's notifiers have been told that the range was unmapped, as
 * it is left to a replay to find what is mapped there. A zero-copy mapping leads where it led; it is not
 * reported, because a guest may invalidate what it has not changed: a listener may end it. Needs no
 * memory.
 *
 * Context: any thread; locked (notifiers, rank 13); waits for accesses in flight to end; calls notifiers.
 * Ownership: what the guest has taken out of its tables it may use for something else.
 * Return: 0, or
 *   -EINVAL  @domain is NULL, or @last is below @first. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain is not nested. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_invalidate(struct dmacore_domain *domain, dmacore_iova_t first,
			      dmacore_iova_t last);

/**
 * dmacore_domain_translate() - look up where an address leads in a domain
 * @domain: the domain, of any type
 * @iova: the address
 * @access: what is to be permitted; 0: any
 * @out_translation: receives the range of addresses around @iova that is translated alike
 *
 * What the answer says may have been unmapped by the time that it is used.
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the access has unknown bits. Never succeeds if retried.
 *   -ENOENT  nothing is mapped there; also, if the domain is nested, by tables that are wrong. Not until it
 *            is.
 *   -EACCES  what is mapped there does not permit @access. Not until it is mapped otherwise.
 *   -EPERM   the domain is blocked. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_translate(struct dmacore_domain *domain, dmacore_iova_t iova, uint32_t access,
			     struct dmacore_translation *out_translation);

/**
 * dmacore_domain_set_dirty_tracking() - let writes of devices be noted, or not
 * @domain: a DMA, a hybrid or an unmanaged domain
 * @is_tracked: whether they are
 *
 * They are not, at first. Every write that ends after a call which switches noting on is noted, and
 * what was noted before is forgotten. After a call that switches it off the page tables are not
 * written to for a view, and what was noted stays. A call that changes nothing does nothing.
 *
 * Context: any thread, but one such call at a time for a domain; lock-free; looks at all of the page
 *   table when it switches noting on; waits for accesses in flight to end; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @domain is NULL. Never succeeds if retried.
 *   -EOPNOTSUPP  the domain has no page tables of its own, or the IOMMU has no
 *            DMACORE_IOMMU_DIRTY_TRACKING. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_set_dirty_tracking(struct dmacore_domain *domain, bool is_tracked);

/**
 * dmacore_domain_read_dirty() - find out what devices have written
 * @domain: a DMA, a hybrid or an unmanaged domain
 * @iova: first address of the devices, a multiple of the page tables' granule
 * @size: bytes, a multiple of the granule, not 0
 * @flags: bits of enum dmacore_dirty_flags (pagetable.h)
 * @bitmap: a bit for each granule of the range, the lowest of the first word for the first; bits are
 *   set here, and none is cleared
 *
 * A write is noted for its whole leaf, so that all granules of that are marked, as far as they lie in
 * the range; map in small leaves what is to be told apart. No write that had ended before the call is
 * missed. With DMACORE_DIRTY_CLEAR a write that is under way meanwhile is in memory when the call
 * returns, or noted for the next call, or both. A write that a callback of a memory region carries out
 * is noted when that returns, if the device uses the domain then.
 *
 * Context: any thread; locked (zero-copy mappings, rank 5); with DMACORE_DIRTY_CLEAR waits for
 *   accesses in flight to end; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or with @bitmap as it was
 *   -EINVAL  a pointer is NULL, the size is 0, something is not aligned, or a flag is unknown. Never
 *            succeeds if retried.
 *   -ERANGE  the range wraps, or is too wide for the page tables. Never.
 *   -EOPNOTSUPP  the domain has no page tables of its own, or the IOMMU has no
 *            DMACORE_IOMMU_DIRTY_TRACKING. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_read_dirty(struct dmacore_domain *domain, dmacore_iova_t iova, uint64_t size,
			      uint32_t flags, uint64_t *bitmap);

/**
 * dmacore_domain_statistics() - read what a domain holds
 * @domain: the domain
 * @out_statistics: receives the numbers; @out_statistics->struct_size says how many of them there
 *   is room for
 *
 * Numbers read beside mapping calls need not be of one moment.
 *
 * Context: any thread; locked (flush queue, rank 7; IOVA cache, rank 8; IOVA store, rank 9); calls
 *   nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_statistics(struct dmacore_domain *domain,
			      struct dmacore_domain_statistics *out_statistics);

DMACORE_END_DECLS

#endif /* DMACORE_DOMAIN_H */
