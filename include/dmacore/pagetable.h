/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_PAGETABLE_H
#define DMACORE_PAGETABLE_H

/**
 * DOC: I/O page table
 *
 * A page table in the format of a real IOMMU, bit for bit, so that hardware or an emulator could
 * walk it. It stands alone: it knows no device, keeps no translation cached, and invalidates none.
 *
 *	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
 *	struct dmacore_pagetable *pagetable;
 *	struct dmacore_translation translation;
 *
 *	options.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE;
 *	error = dmacore_pagetable_create(&options, &pagetable);
 *	error = dmacore_pagetable_map(pagetable, 0x1000, 0x80000000, 8192, DMACORE_ACCESS_READ);
 *	error = dmacore_pagetable_translate(pagetable, 0x1234, DMACORE_ACCESS_READ, &translation);
 *
 * Concurrency. Translation takes no lock and may run beside anything but destroy and reclaim.
 * Calls that map and unmap may run beside each other on ranges that do not overlap; overlapping
 * ones are the caller's to serialize. A table page that a larger leaf has replaced is kept until
 * dmacore_pagetable_reclaim(), because a walker may still be inside it.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_pagetable;

enum dmacore_pagetable_format {
	/*
	 * Intel VT-d second stage: 3, 4 or 5 levels for 39, 48 or 57 bits of input, 52 of output;
	 * leaves of 4 KiB, 2 MiB and 1 GiB; access read, write or both.
	 */
	DMACORE_PAGETABLE_VTD_SECOND_STAGE = 1,
};

enum dmacore_unmap_flags {
	/* Go on behind ranges that are not mapped, instead of stopping at the first. */
	DMACORE_UNMAP_CROSS_HOLES = 1,
};

/**
 * struct dmacore_table_page - one page of a table
 * @host: its address in this process, aligned to its size
 * @phys: its address as the walker sees it, aligned to its size
 */
struct dmacore_table_page {
	void *host;
	dmacore_phys_t phys;
};

/**
 * struct dmacore_table_allocator - where table pages come from
 * @struct_size: sizeof(struct dmacore_table_allocator)
 * @allocate: fills in @out_page with a page of @size bytes, a power of two, to which both
 *   addresses are aligned, the physical one below 2^52, and returns 0; or returns a negated errno
 *   value, which is taken as -ENOMEM, and so is a page that is not like that, which goes back to
 *   @free. It need not zero the page
 * @free: takes back a page that @allocate gave, with the same size
 * @opaque: passed to both
 *
 * The library writes the words of the tables to these pages and reads there what is mapped, but
 * never follows a table address that it reads there: who else writes to a page can spoil the
 * translations in it and the count of mapped bytes, and nothing else. What a spoiled translation
 * leads to is another matter: on a flat system that is any address of the process, so keep such
 * pages from those who are not trusted with it. A walker in hardware must see the caches of the
 * CPU.
 *
 * Both are called with no lock held, on the thread that maps, unmaps or destroys; several threads
 * may call them at once.
 */
struct dmacore_table_allocator {
	size_t struct_size;
	int (*allocate)(size_t size, struct dmacore_table_page *out_page, void *opaque);
	void (*free)(const struct dmacore_table_page *page, size_t size, void *opaque);
	void *opaque;
};

#define DMACORE_TABLE_ALLOCATOR_INIT \
	{ sizeof(struct dmacore_table_allocator), NULL, NULL, NULL }

/**
 * struct dmacore_pagetable_options - how a page table is made
 * @struct_size: sizeof(struct dmacore_pagetable_options)
 * @format: one of enum dmacore_pagetable_format
 * @levels: number of levels; 0: 4
 * @reserved: zero
 * @allocator: where table pages come from; copied; NULL: the heap, where the physical address of a
 *   page is its address in this process
 */
struct dmacore_pagetable_options {
	size_t struct_size;
	uint32_t format;
	uint32_t levels;
	uint64_t reserved;
	const struct dmacore_table_allocator *allocator;
};

#define DMACORE_PAGETABLE_OPTIONS_INIT \
	{ sizeof(struct dmacore_pagetable_options), DMACORE_PAGETABLE_VTD_SECOND_STAGE, 0, 0, NULL }

/**
 * struct dmacore_pagetable_statistics - what a page table holds
 * @struct_size: set to sizeof(struct dmacore_pagetable_statistics) before the call
 * @table_count: table pages in use, the root and those that wait for reclaim included
 * @table_bytes: bytes in them
 * @retired_count: those of @table_count that wait for dmacore_pagetable_reclaim()
 * @mapped_bytes: bytes of input that are mapped
 */
struct dmacore_pagetable_statistics {
	size_t struct_size;
	uint64_t table_count;
	uint64_t table_bytes;
	uint64_t retired_count;
	uint64_t mapped_bytes;
};

/**
 * dmacore_pagetable_create() - make a page table in which nothing is mapped
 * @options: how; NULL: VT-d second stage, 4 levels, on the heap
 * @out_pagetable: receives the table, or NULL on failure
 *
 * Context: any thread; takes no lock; calls the table allocator.
 * Ownership: the caller gives the table back with dmacore_pagetable_destroy(). What the table
 *   allocator points to must outlive it.
 * Return: 0, or
 *   -EINVAL  @out_pagetable is NULL, the format or the number of levels is unknown, a reserved
 *            member is not zero, a structure is too short, or an allocator lacks a function. Never
 *            succeeds if retried.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_create(const struct dmacore_pagetable_options *options,
			     struct dmacore_pagetable **out_pagetable);

/**
 * dmacore_pagetable_destroy() - give a page table back
 * @pagetable: the table, or NULL
 *
 * Context: any thread, while no other uses @pagetable; calls the table allocator.
 * Ownership: @pagetable may not be used afterwards, and no walker may be inside its pages.
 * Return: nothing; cannot fail.
 */
void dmacore_pagetable_destroy(struct dmacore_pagetable *pagetable);

/**
 * dmacore_pagetable_root() - the physical address of the root table
 * @pagetable: the table
 * @out_phys: receives the address, which stays the same while the table lives
 *
 * Context: any thread; lock-free.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_root(struct dmacore_pagetable *pagetable, dmacore_phys_t *out_phys);

/**
 * dmacore_pagetable_map() - map a range
 * @pagetable: the table
 * @iova: first input address, a multiple of 4096
 * @phys: first output address, a multiple of 4096
 * @size: bytes, a multiple of 4096, at least 4096
 * @access: what is permitted, one bit of enum dmacore_access at least
 *
 * Uses the largest leaves that both addresses and the size allow. A walker that runs meanwhile
 * sees each leaf either whole or not at all.
 *
 * Context: any thread, see Concurrency above; lock-free; calls the table allocator.
 * Ownership: the memory at @phys stays whose it was.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL, the size is 0, something is not aligned, or @access is 0 or has
 *            unknown bits. Never succeeds if retried.
 *   -ERANGE  the input range does not fit the table's width, or the output range the format's.
 *            Never.
 *   -EEXIST  a part of the range is mapped. Succeeds once it is unmapped.
 *   -ENOMEM  no memory for table pages. May succeed later.
 *   In all these cases the range holds what it held before.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_map(struct dmacore_pagetable *pagetable, dmacore_iova_t iova,
			  dmacore_phys_t phys, uint64_t size, uint32_t access);

/**
 * dmacore_pagetable_unmap() - unmap a range
 * @pagetable: the table
 * @iova: first input address, a multiple of 4096
 * @size: bytes, a multiple of 4096, at least 4096
 * @flags: bits of enum dmacore_unmap_flags
 * @out_size: receives the bytes unmapped; may be NULL
 *
 * Stops at the first address that is not mapped, unless DMACORE_UNMAP_CROSS_HOLES is given. No
 * walk that starts after the call returned finds what was unmapped; a translation that somebody
 * cached is the caller's to invalidate. Needs no memory.
 *
 * Context: any thread, see Concurrency above; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, also when nothing was mapped, or
 *   -EINVAL  @pagetable is NULL, the size is 0, something is not aligned, or a flag is unknown.
 *            Never succeeds if retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 *   -EOPNOTSUPP  an end of the range cuts through a larger leaf, whether a hole lies before it or
 *            not; nothing was unmapped. Never for this range; unmap the whole leaf, which
 *            dmacore_pagetable_translate() tells.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_unmap(struct dmacore_pagetable *pagetable, dmacore_iova_t iova, uint64_t size,
			    uint32_t flags, uint64_t *out_size);

/**
 * dmacore_pagetable_translate() - look an input address up
 * @pagetable: the table
 * @iova: the input address
 * @access: what is wanted, bits of enum dmacore_access; 0: find out what is permitted
 * @out_translation: receives the leaf that @iova lies in
 *
 * Context: any thread, also beside map and unmap; lock-free; calls nothing back.
 * Ownership: nothing changes hands; the answer holds until the range is unmapped.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @access has unknown bits. Never succeeds if retried.
 *   -ENOENT  @iova is not mapped, or outside the table's width. Not until it is mapped.
 *   -EACCES  @iova is mapped, and not all of @access is permitted. Not until it is mapped anew.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_translate(struct dmacore_pagetable *pagetable, dmacore_iova_t iova,
				uint32_t access, struct dmacore_translation *out_translation);

/**
 * dmacore_pagetable_reclaim() - free the table pages that larger leaves have replaced
 * @pagetable: the table
 *
 * The caller says by this call that no walker is inside those pages: every walk that began before
 * the last map call has ended, and nothing has cached an address of a table.
 *
 * Context: any thread, see above; lock-free; calls the table allocator.
 * Ownership: the pages go back to the table allocator.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_reclaim(struct dmacore_pagetable *pagetable);

/**
 * dmacore_pagetable_statistics() - read what a page table holds
 * @pagetable: the table
 * @out_statistics: receives the numbers; @out_statistics->struct_size says how many of them there
 *   is room for
 *
 * Numbers read beside map and unmap calls need not be of one moment.
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_statistics(struct dmacore_pagetable *pagetable,
				 struct dmacore_pagetable_statistics *out_statistics);

DMACORE_END_DECLS

#endif /* DMACORE_PAGETABLE_H */
