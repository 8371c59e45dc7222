/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_SYSTEM_H
#define DMACORE_SYSTEM_H

/**
 * DOC: System
 *
 * A system is one machine: its memory, and the IOMMUs and devices that are made for it. A process
 * may have any number of systems; they share nothing.
 *
 *	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
 *	struct dmacore_system *system;
 *
 *	options.flags = DMACORE_SYSTEM_FLAT;
 *	error = dmacore_system_create(&options, &system);
 *
 * Lifetime. Every object holds on to the objects it was made from: a view to its device, a device
 * and a domain to their IOMMU, all of them to the system. Destroying an object that is still held
 * is reported (DMACORE_REPORT_WARNING) and takes effect when the last holder is destroyed, so no
 * order of destroy calls is unsafe; the handle itself may not be used after its destroy call. A call
 * that may be the one to end such an object says so, and takes the locks then that its destroy call
 * names.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_bounce_pool;
struct dmacore_system;

enum dmacore_system_flags {
	/* Physical addresses are addresses of this process; there are no memory regions. */
	DMACORE_SYSTEM_FLAT = 1,
};

/**
 * struct dmacore_memory_allocator - where memory that is allocated for devices comes from
 * @struct_size: sizeof(struct dmacore_memory_allocator)
 * @allocate: returns @size bytes, a multiple of the page size, at an address that is a multiple of
 *   @alignment, whose last physical address is at most @limit; or NULL. The bytes must lie inside
 *   one memory region of the system, and need not be zeroed
 * @free: takes back what @allocate returned, with the same size
 * @opaque: passed to both
 *
 * Both are called with no lock held, on the thread that allocates or frees; several threads may
 * call them at once.
 */
struct dmacore_memory_allocator {
	size_t struct_size;
	void *(*allocate)(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque);
	void (*free)(void *host, uint64_t size, void *opaque);
	void *opaque;
};

#define DMACORE_MEMORY_ALLOCATOR_INIT \
	{ sizeof(struct dmacore_memory_allocator), NULL, NULL, NULL }

struct dmacore_device_options;
struct dmacore_group;

/**
 * typedef dmacore_find_group_fn - say which group a device is to be put into
 * @options: what the device is being made with
 * @opaque: as in struct dmacore_system_options
 *
 * For buses of which the library knows nothing. Asked by dmacore_device_create(), under no lock, for
 * devices that are given neither a group nor a topology. Returns a group of the system, which the caller
 * keeps a handle of until dmacore_device_create() has returned; or NULL: the device has one to itself.
 */
typedef struct dmacore_group *(*dmacore_find_group_fn)(const struct dmacore_device_options *options,
						       void *opaque);

/**
 * typedef dmacore_cache_fn - let the processors' caches and memory agree about a range
 * @phys: first physical address
 * @size: bytes, which need not be whole lines of a cache
 * @direction: of the mapping, one of enum dmacore_direction (mapping.h)
 * @is_for_cpu: false: the device gets the range: what the caches have of it is written back, and forgotten
 *   where the device writes; true: the processors get it, after the device wrote: what the caches have is
 *   forgotten
 * @opaque: as in struct dmacore_system_options
 *
 * For devices with DMACORE_DEVICE_NONCOHERENT alone: when something was mapped, be it a part of a list of
 * which another part then fails; when it was unmapped; and for the part that is synced; for memory that was allocated coherent once, when it was cleared. Not for
 * the processors where the device only reads. Called on the thread that maps, with no lock held.
 */
typedef void (*dmacore_cache_fn)(dmacore_phys_t phys, uint64_t size, uint32_t direction,
				 bool is_for_cpu, void *opaque);

/**
 * struct dmacore_system_options - how a system is made
 * @struct_size: sizeof(struct dmacore_system_options)
 * @flags: bits of enum dmacore_system_flags
 * @default_domain: what default domain groups get when a driver that does not mind is bound to a device
 *   (driver.h): DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_DMA_LAZY or
 *   DMACORE_DOMAIN_HYBRID (domain.h); 0: DMACORE_DOMAIN_DMA
 * @report: receives messages for people; NULL: nobody does
 * @report_opaque: passed to @report
 * @memory_allocator: for dmacore_alloc_coherent(), coherent pools, noncontiguous memory and bounce pools;
 *   copied; NULL: the heap of the process on a flat system, and no such allocations on others
 * @find_group: says which group a device is put into; NULL: nobody does
 * @find_group_opaque: passed to @find_group
 * @cache: lets caches and memory agree; NULL: there is nothing to do, as on most machines, and no device
 *   for which there would be. With it, @memory_allocator gives memory that is not cached; of that of bounce
 *   pools it may be, for which @cache is called
 * @cache_opaque: passed to @cache
 */
struct dmacore_system_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t default_domain;
	dmacore_report_fn report;
	void *report_opaque;
	const struct dmacore_memory_allocator *memory_allocator;
	dmacore_find_group_fn find_group;
	void *find_group_opaque;
	dmacore_cache_fn cache;
	void *cache_opaque;
};

#define DMACORE_SYSTEM_OPTIONS_INIT \
	{ sizeof(struct dmacore_system_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/**
 * dmacore_system_create() - make a system
 * @options: how; NULL: all defaults
 * @out_system: receives the system, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the system back with dmacore_system_destroy(). What
 *   @options->memory_allocator and @options->report point to must outlive the system.
 * Return: 0, or
 *   -EINVAL  @out_system is NULL, a flag or the type of default domains is unknown, a structure is
 *            too short, or an allocator lacks a function. Never succeeds if retried.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 *   -EOPNOTSUPP  default domains are to be hybrid, which no domain of a flat system can be. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_system_create(const struct dmacore_system_options *options,
			  struct dmacore_system **out_system);

/**
 * dmacore_system_destroy() - give a system back
 * @system: the system, or NULL
 *
 * Destroy its devices, domains and IOMMUs first; see the lifetime rule above. Its bounce pool is taken from
 * it, as by dmacore_system_set_bounce_pool().
 *
 * Context: any thread; takes no lock of its own; may call the report callback; with a bounce pool, as
 *   dmacore_system_set_bounce_pool().
 * Ownership: @system may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_system_destroy(struct dmacore_system *system);

/**
 * dmacore_system_tick() - say what time it is
 * @system: the system
 * @now: nanoseconds on a clock of the caller's, from any start, such as CLOCK_MONOTONIC
 *
 * The library has no thread and reads no clock. A program that has lazy domains (domain.h) calls
 * this from time to time. Those in which a range has been queued for the @flush_age that they were
 * made with, counted from the last tick before the unmap, are flushed, with one wait for all of
 * them; one that another thread is flushing just then is left to the next tick. A clock that went
 * backwards makes flushes early, and so does the first tick; none comes late for it. Ticks may come
 * from several threads at once.
 *
 * Context: any thread; locked (lazy domains, rank 6, and inside it flush queue, rank 7; IOVA cache,
 *   rank 8; IOVA store, rank 9); may wait for accesses in flight to end; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @system is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_system_tick(struct dmacore_system *system, uint64_t now);

/**
 * dmacore_system_set_bounce_pool() - say which bounce pool the system's devices use
 * @system: the system
 * @pool: a pool of this system (bounce.h); NULL: none
 *
 * For devices that have none of their own. What is mapped keeps its pool.
 *
 * Context: any thread; locked (bounce area, rank 15; bounce chunks, rank 18); may wait for accesses in
 *   flight and mapping calls under way to end; may free a pool that was destroyed, and so call the memory
 *   allocator.
 * Ownership: the system holds on to the pool until another is set, or the system is destroyed.
 * Return: 0, or
 *   -EINVAL  @system is NULL, or the pool is of another system. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_system_set_bounce_pool(struct dmacore_system *system, struct dmacore_bounce_pool *pool);

DMACORE_END_DECLS

#endif /* DMACORE_SYSTEM_H */
