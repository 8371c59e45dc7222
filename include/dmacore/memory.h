/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_MEMORY_H
#define DMACORE_MEMORY_H

/**
 * DOC: The physical memory of a system
 *
 * A system's memory is a set of regions that do not overlap. What backs a region decides how a
 * device reaches it: memory of this process (a pointer, or a file that the library maps) is read
 * and written in place and can be handed out without a copy; callbacks are called for each access
 * and are never handed out.
 *
 *	struct dmacore_memory_region ram = DMACORE_MEMORY_REGION_INIT;
 *
 *	ram.base = 0x80000000;
 *	ram.size = 64 << 20;
 *	ram.backing = DMACORE_MEMORY_HOST;
 *	ram.host = malloc(ram.size);
 *	error = dmacore_memory_add(system, &ram);
 *
 * A flat system (DMACORE_SYSTEM_FLAT) has no regions: there a physical address is an address of
 * this process.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_system;

enum dmacore_memory_backing {
	/* @host points to the bytes; they stay the caller's. */
	DMACORE_MEMORY_HOST = 1,
	/*
	 * @fd and @fd_offset name the bytes; the library maps them, shared, while the region lives.
	 * Who shortens the file meanwhile makes an access to what is gone raise SIGBUS.
	 */
	DMACORE_MEMORY_FD = 2,
	/* @read and @write are called for each access. */
	DMACORE_MEMORY_CALLBACKS = 3,
};

enum dmacore_memory_flags {
	/* Devices may not write here: such an access is denied. */
	DMACORE_MEMORY_READ_ONLY = 1,
};

/**
 * typedef dmacore_memory_read_fn - reads from a region that callbacks back
 *
 * @offset is in bytes from the region's base; @offset and @size lie inside the region. Called on
 * the thread whose access it serves, with no lock held; several threads may call it at once.
 * Returns 0, or a negated errno value that the access then fails with.
 */
typedef int (*dmacore_memory_read_fn)(uint64_t offset, void *buffer, size_t size, void *opaque);

/**
 * typedef dmacore_memory_write_fn - writes to a region that callbacks back
 *
 * As &dmacore_memory_read_fn.
 */
typedef int (*dmacore_memory_write_fn)(uint64_t offset, const void *buffer, size_t size,
				       void *opaque);

/**
 * struct dmacore_memory_region - one range of physical memory and what backs it
 * @struct_size: sizeof(struct dmacore_memory_region)
 * @backing: one of enum dmacore_memory_backing
 * @flags: bits of enum dmacore_memory_flags
 * @base: first physical address
 * @size: bytes, at least 1; the region may end at the last byte of the 64-bit space
 * @host: DMACORE_MEMORY_HOST: the first byte
 * @fd: DMACORE_MEMORY_FD: a file; the library keeps no descriptor, so it may be closed afterwards
 * @fd_offset: DMACORE_MEMORY_FD: where in the file the region starts, a multiple of the page size
 * @read: DMACORE_MEMORY_CALLBACKS: serves reads
 * @write: DMACORE_MEMORY_CALLBACKS: serves writes; may be NULL with DMACORE_MEMORY_READ_ONLY
 * @opaque: passed to @read and @write
 */
struct dmacore_memory_region {
	size_t struct_size;
	uint32_t backing;
	uint32_t flags;
	dmacore_phys_t base;
	uint64_t size;
	void *host;
	int fd;
	uint64_t fd_offset;
	dmacore_memory_read_fn read;
	dmacore_memory_write_fn write;
	void *opaque;
};

#define DMACORE_MEMORY_REGION_INIT \
	{ sizeof(struct dmacore_memory_region), 0, 0, 0, 0, NULL, -1, 0, NULL, NULL, NULL }

/**
 * dmacore_memory_add() - add a region to a system's memory
 * @system: the system
 * @region: the region; copied
 *
 * Devices reach the region as soon as the call returns.
 *
 * Hybrid domains (domain.h) follow: when this returns it is in their windows, or has no room there.
 *
 * Context: any thread, but not within a table allocator or a function of a backend, which may be called
 *   while a window changes; locked (memory map, rank 2; IOVA cache, rank 8; IOVA store, rank 9; notifiers,
 *   rank 13; windows, rank 14); may wait for accesses in flight to end; calls the table allocators and
 *   notifiers of hybrid domains.
 * Ownership: the memory behind @region->host stays the caller's and must outlive the region.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @backing or a flag is unknown, the size is 0, the range of physical
 *            or of host addresses wraps, what @backing needs is missing, or @fd_offset is not
 *            page-aligned. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -EEXIST  the region overlaps another, in physical or in host addresses. Never, while that
 *            one is there.
 *   -EOPNOTSUPP  the system is flat. Never.
 *   -EBADF   @fd is not an open file. Never.
 *   -EACCES  @fd is not open for reading, or not open for writing or sealed against it where the
 *            region is writable. Never.
 *   -ENODEV  @fd cannot be mapped, or is too short for the region. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_memory_add(struct dmacore_system *system, const struct dmacore_memory_region *region);

/**
 * dmacore_memory_remove() - take a region out of a system's memory
 * @system: the system
 * @base: the base of the region
 * @size: its size
 *
 * When the call returns no device reaches the region and no access to it is in flight. Mappings of
 * the region stay; an access through one of them faults.
 *
 * Context: as dmacore_memory_add(), but always waits for accesses in flight to end. Inside a callback of
 *   the region itself it returns -EBUSY.
 * Ownership: the memory of a region that DMACORE_MEMORY_HOST backs is the caller's alone again.
 * Return: 0, or
 *   -EINVAL  @system is NULL, or @size is 0. Never succeeds if retried.
 *   -ENOENT  there is no region of exactly this base and size. Never.
 *   -EBUSY   a zero-copy mapping of a view, an allocation or declared memory (coherent.h) holds it, or a
 *            callback of it is running. Succeeds once they are gone.
 *   -ENOMEM  no memory for the new map. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_memory_remove(struct dmacore_system *system, dmacore_phys_t base, uint64_t size);

/**
 * dmacore_memory_phys_to_host() - the process address of physical memory
 * @system: the system
 * @phys: first physical address
 * @size: bytes, at least 1
 * @out_host: receives the address of @phys; @size bytes are contiguous there
 *
 * The address stays good until the region is removed, which the caller must not let happen while
 * using it; a view's zero-copy mapping prevents it.
 *
 * Context: any thread; lock-free.
 * Ownership: the memory stays whose it was.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, or the range wraps. Never succeeds if retried.
 *   -EFAULT  the range does not lie inside one region. Not until memory is added there.
 *   -EOPNOTSUPP  callbacks back the region, so that it has no address. Never.
 */
DMACORE_MUST_CHECK
int dmacore_memory_phys_to_host(struct dmacore_system *system, dmacore_phys_t phys, uint64_t size,
				void **out_host);

/**
 * dmacore_memory_host_to_phys() - the physical address of process memory
 * @system: the system
 * @host: first byte
 * @size: bytes, at least 1
 * @out_phys: receives the physical address of @host; @size bytes are contiguous there
 *
 * Context: any thread; lock-free.
 * Ownership: the memory stays whose it was.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, @size is 0, or the range wraps. Never succeeds if retried.
 *   -EFAULT  the range does not lie inside one region. Not until memory is added there.
 */
DMACORE_MUST_CHECK
int dmacore_memory_host_to_phys(struct dmacore_system *system, const void *host, uint64_t size,
				dmacore_phys_t *out_phys);

DMACORE_END_DECLS

#endif /* DMACORE_MEMORY_H */
