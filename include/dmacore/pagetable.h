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
 * ones are the caller's to serialize. A call that splits a leaf is one on the range of the whole leaf.
 * A table page that is not needed any more is retired: kept until
 * dmacore_pagetable_reclaim(), because a walker may still be inside it. These are the tables that an
 * unmapped range covers, that a larger leaf replaces, and that dmacore_pagetable_trim() finds empty.
 *
 * dmacore_pagetable_walk() walks foreign tables: those that a guest or other software makes, in the same
 * formats.
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
	/*
	 * x86-64 paging: VT-d first stage, AMD v2. 4 or 5 levels for 48 or 57 bits of signed input, and
	 * without DMACORE_PAGETABLE_SIGNED_INPUT for 47 or 56; 52 of output; leaves of 4 KiB, 2 MiB and
	 * 1 GiB; access read, to which write, execute, privileged and MMIO may be added.
	 */
	DMACORE_PAGETABLE_X86_64 = 2,
	/*
	 * AMD host tables, "v1": 3 levels that grow to 6 for 64 bits of input, unless input_bits says
	 * less, for higher inputs and not for larger leaves; 52 of output; leaves of each power of two
	 * from 4 KiB to 2^51 but 512 GiB; access read, write or both, and cacheable with
	 * DMACORE_PAGETABLE_COHERENCE.
	 */
	DMACORE_PAGETABLE_AMD_V1 = 3,
	/*
	 * ARM VMSAv8-64, stage 1: granules of 4, 16 and 64 KiB; 32 to 48 bits of input and output, with
	 * 64 KiB 52; leaves of 4 KiB, 2 MiB and 1 GiB, of 16 KiB and 32 MiB, of 64 KiB and 512 MiB, and
	 * 4 TiB where output has 52 bits, and with DMACORE_PAGETABLE_RUNS of their contiguous runs;
	 * access read, to which write, execute, privileged, and MMIO or cacheable may be added.
	 */
	DMACORE_PAGETABLE_ARM64_STAGE1 = 4,
	/* Stage 2 of the same, whose roots may be wider; access as there, but write alone, not privileged. */
	DMACORE_PAGETABLE_ARM64_STAGE2 = 5,
	/*
	 * RISC-V first stage: Sv39, Sv48 and Sv57, of 3, 4 and 5 levels of signed input, 56 bits of
	 * output; leaves of the spans of all levels, and with DMACORE_PAGETABLE_RUNS of 64 KiB; access
	 * read, execute or both, to which write (beside read), privileged, and with
	 * DMACORE_PAGETABLE_MEMORY_TYPES MMIO may be added.
	 */
	DMACORE_PAGETABLE_RISCV_FIRST_STAGE = 6,
	/* RISC-V second stage: Sv39x4, Sv48x4 and Sv57x4, of two bits more, unsigned; never privileged. */
	DMACORE_PAGETABLE_RISCV_SECOND_STAGE = 7,
};

/* What hardware can do that not all of its kind can: bits, combined with |. Formats have some of them. */
enum dmacore_pagetable_features {
	/* A leaf can be made coherent with the caches of processors: DMACORE_ACCESS_CACHEABLE. */
	DMACORE_PAGETABLE_COHERENCE = 1,
	/* Hardware notes in a leaf that it was written through: see dmacore_pagetable_read_dirty(). */
	DMACORE_PAGETABLE_DIRTY = 2,
	/* Runs of entries can be marked as one leaf. */
	DMACORE_PAGETABLE_RUNS = 4,
	/* Input addresses are signed: the upper half of them ends at 2^64 - 1. */
	DMACORE_PAGETABLE_SIGNED_INPUT = 8,
	/* A leaf can say that it leads to registers: DMACORE_ACCESS_MMIO. */
	DMACORE_PAGETABLE_MEMORY_TYPES = 16,
};

enum dmacore_unmap_flags {
	/* Go on behind ranges that are not mapped, instead of stopping at the first. */
	DMACORE_UNMAP_CROSS_HOLES = 1,
	/* Make a leaf that an end of the range cuts through into smaller ones, instead of refusing. */
	DMACORE_UNMAP_SPLIT = 2,
};

enum dmacore_dirty_flags {
	/* What is read counts as not written through from here on. */
	DMACORE_DIRTY_CLEAR = 1,
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
 *   addresses are aligned, the physical one below 2^52 and within the table's output_bits, and
 *   returns 0; or returns a negated errno value, which is taken as -ENOMEM, and so is a page that is
 *   not like that, which goes back to @free. It need not zero the page
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
 * @levels: number of levels; 0: what the format has mostly, 4 where it can
 * @input_bits: width of input addresses; 0: what the levels resolve
 * @output_bits: width of output addresses, and of those of table pages; 0: the format's. Less than 48
 *   takes an allocator, because the heap's pages may lie beyond
 * @granule: bytes of the smallest leaf, for formats that have several sizes; 0: 4096
 * @features: bits of enum dmacore_pagetable_features
 * @allocator: where table pages come from; copied; NULL: the heap, where the physical address of a
 *   page is its address in this process
 */
struct dmacore_pagetable_options {
	size_t struct_size;
	uint32_t format;
	uint32_t levels;
	uint32_t input_bits;
	uint32_t output_bits;
	uint32_t granule;
	uint32_t features;
	const struct dmacore_table_allocator *allocator;
};

#define DMACORE_PAGETABLE_OPTIONS_INIT \
	{ sizeof(struct dmacore_pagetable_options), DMACORE_PAGETABLE_VTD_SECOND_STAGE, \
	  0, 0, 0, 0, 0, NULL }

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
 * struct dmacore_walk_options - tables that somebody else makes, to be walked as hardware does
 * @struct_size: sizeof(struct dmacore_walk_options)
 * @format: one of enum dmacore_pagetable_format
 * @levels: as in struct dmacore_pagetable_options, but that AMD host tables do not grow: their mode,
 *   1 to 6, or 0 for 3
 * @input_bits: as there
 * @output_bits: as there: the width that the hardware has
 * @granule: as there
 * @features: as there: what the hardware does with words. DMACORE_PAGETABLE_DIRTY says that it sets
 *   accessed and dirty bits, so that their absence is no fault
 * @root: the physical address of the root, or with a second stage an input of that; a multiple of the
 *   root's size
 * @read: reads the 8 bytes at @phys, a multiple of 8, as they lie in memory, at once, and returns 0;
 *   or returns something else, which ends the walk
 * @opaque: passed to @read
 * @second_stage: what the addresses in these tables, and those that they lead to, are translated by;
 *   NULL: they are physical. A second stage has no second stage
 *
 * The words are little-endian. Whatever they are, the walk ends: it calls @read once for each level
 * at the most; with two stages, of n and m levels, (n + 1) * (m + 1) - 1 times.
 */
struct dmacore_walk_options {
	size_t struct_size;
	uint32_t format;
	uint32_t levels;
	uint32_t input_bits;
	uint32_t output_bits;
	uint32_t granule;
	uint32_t features;
	dmacore_phys_t root;
	int (*read)(dmacore_phys_t phys, uint64_t *out_word, void *opaque);
	void *opaque;
	const struct dmacore_walk_options *second_stage;
};

#define DMACORE_WALK_OPTIONS_INIT \
	{ sizeof(struct dmacore_walk_options), DMACORE_PAGETABLE_VTD_SECOND_STAGE, \
	  0, 0, 0, 0, 0, 0, NULL, NULL, NULL }

enum dmacore_walk_fault_reason {
	/* The word says that nothing is mapped there. */
	DMACORE_WALK_FAULT_NOT_PRESENT = 1,
	/* The word has bits that hardware demands to be otherwise. */
	DMACORE_WALK_FAULT_RESERVED = 2,
	/* The tables and the leaf, whose word it is, together do not permit what was wanted, or anything. */
	DMACORE_WALK_FAULT_DENIED = 3,
	/* The input is wider than the tables resolve, or not canonical. There is no word. */
	DMACORE_WALK_FAULT_INPUT_WIDTH = 4,
	/*
	 * The root is above the output width, and the word was not read; or, with the ARM formats, the
	 * address in the word is. Of others such a word is DMACORE_WALK_FAULT_RESERVED.
	 */
	DMACORE_WALK_FAULT_OUTPUT_WIDTH = 5,
	/*
	 * The word is a leaf whose accessed bit is clear, and hardware does not set it: ARM's access flag
	 * fault, RISC-V's page fault.
	 */
	DMACORE_WALK_FAULT_NOT_ACCESSED = 6,
	/* The callback could not read the word. */
	DMACORE_WALK_FAULT_TABLE_READ = 7,
};

/**
 * struct dmacore_walk_fault - why a walk ended without a leaf, and where
 * @input: the address that the stage could not translate: of a second stage, what the first gave
 * @word: where the word is: its physical address, but an input of the second stage if there is one
 *   and the fault is of the first; 0 without a word
 * @reason: one of enum dmacore_walk_fault_reason
 * @stage: 1, or 2 for a second stage
 * @level: of the table that the word is in, 0 is that of the smallest leaves; without a word the
 *   root's
 * @error: what the callback returned, or 0 if it did not fail
 * @is_table_access: 1 if the second stage was to lead to a word of the first one, @input; else 0
 * @reserved: zero
 */
struct dmacore_walk_fault {
	uint64_t input;
	uint64_t word;
	uint32_t reason;
	uint32_t stage;
	uint32_t level;
	int32_t error;
	uint32_t is_table_access;
	uint32_t reserved;
};

/**
 * struct dmacore_pagetable_vtd - what VT-d has to be told of a second-stage table
 * @struct_size: set to sizeof(struct dmacore_pagetable_vtd) before the call
 * @root: SSPTPTR of a context or PASID table entry, an address
 * @levels: number of levels
 * @address_width: AW of the same entry: 1, 2 or 3
 * @host_address_bits: the host address width that the table was made for, which must not be larger
 *   than the hardware's
 * @reserved: zero
 */
struct dmacore_pagetable_vtd {
	size_t struct_size;
	dmacore_phys_t root;
	uint32_t levels;
	uint32_t address_width;
	uint32_t host_address_bits;
	uint32_t reserved;
};

/**
 * struct dmacore_pagetable_x86_64 - what a walker of x86-64 tables has to be told
 * @struct_size: set to sizeof(struct dmacore_pagetable_x86_64) before the call
 * @root: CR3, FSPTPTR of a PASID table entry of VT-d, or an entry of AMD's GCR3 table: an address
 * @levels: number of levels
 * @paging_mode: FSPM of a PASID table entry, CR4.LA57, AMD's GuestPagingMode: 0 for 4 levels, 1 for 5
 * @no_execute_enable: NXE of a PASID table entry, EFER.NXE: 1
 * @write_protect_enable: WPE of a PASID table entry, CR0.WP, so that requests with privilege heed
 *   read-only leaves: 1
 */
struct dmacore_pagetable_x86_64 {
	size_t struct_size;
	dmacore_phys_t root;
	uint32_t levels;
	uint32_t paging_mode;
	uint32_t no_execute_enable;
	uint32_t write_protect_enable;
};

/**
 * struct dmacore_pagetable_amd_v1 - what an AMD IOMMU has to be told of a host table
 * @struct_size: set to sizeof(struct dmacore_pagetable_amd_v1) before the call
 * @root: Host Page Table Root Pointer of a device table entry, an address
 * @mode: Mode of the same: the number of levels
 * @read: IR of the same: 1, the tables decide
 * @write: IW of the same: 1
 * @host_access_dirty: HAD of the same: 3 if the table was made with DMACORE_PAGETABLE_DIRTY, else 0
 * @device_table_entry: the first 8 bytes of the entry, of all these and its valid bits V and TV
 */
struct dmacore_pagetable_amd_v1 {
	size_t struct_size;
	dmacore_phys_t root;
	uint32_t mode;
	uint32_t read;
	uint32_t write;
	uint32_t host_access_dirty;
	uint64_t device_table_entry;
};

/**
 * struct dmacore_pagetable_arm64_stage1 - what a walker of ARM stage 1 tables has to be told
 * @struct_size: set to sizeof(struct dmacore_pagetable_arm64_stage1) before the call
 * @ttbr0: TTBR0_EL1, without an ASID
 * @tcr: TCR_EL1 of the fields below, and of EPD1, because there is no table for the upper half
 * @mair: MAIR_EL1
 * @t0sz: 64 less the bits of an input
 * @tg0: granule: 0 is 4 KiB, 1 is 64 KiB, 2 is 16 KiB
 * @sh0: shareability of the tables: 3, inner
 * @irgn0: inner cacheability of the tables: 1, write-back that allocates on reads and writes
 * @orgn0: outer cacheability of the tables: 1
 * @ips: width of outputs: 0 to 6 are 32, 36, 40, 42, 44, 48 and 52 bits
 * @ha: 1 if hardware is to set access flags, as DMACORE_PAGETABLE_DIRTY demands, else 0
 * @hd: 1 if hardware is to note writes, likewise
 *
 * The context descriptor of an SMMU has the same fields, in other places.
 */
struct dmacore_pagetable_arm64_stage1 {
	size_t struct_size;
	uint64_t ttbr0;
	uint64_t tcr;
	uint64_t mair;
	uint32_t t0sz;
	uint32_t tg0;
	uint32_t sh0;
	uint32_t irgn0;
	uint32_t orgn0;
	uint32_t ips;
	uint32_t ha;
	uint32_t hd;
};

/**
 * struct dmacore_pagetable_arm64_stage2 - what a walker of ARM stage 2 tables has to be told
 * @struct_size: set to sizeof(struct dmacore_pagetable_arm64_stage2) before the call
 * @vttbr: VTTBR_EL2, without a VMID
 * @vtcr: VTCR_EL2 of the fields below
 * @t0sz: 64 less the bits of an input
 * @sl0: the encoded level of the root
 * @tg0: as in struct dmacore_pagetable_arm64_stage1, and the next four
 * @sh0: see there
 * @irgn0: see there
 * @orgn0: see there
 * @ps: see there, ips
 * @ha: see there
 * @hd: see there
 * @start_level: the level of the root, as ARM counts: 3 has the smallest leaves
 * @table_count: how many tables side by side are the root
 * @reserved: zero
 *
 * The stream table entry of an SMMU has the same fields, in other places.
 */
struct dmacore_pagetable_arm64_stage2 {
	size_t struct_size;
	uint64_t vttbr;
	uint64_t vtcr;
	uint32_t t0sz;
	uint32_t sl0;
	uint32_t tg0;
	uint32_t sh0;
	uint32_t irgn0;
	uint32_t orgn0;
	uint32_t ps;
	uint32_t ha;
	uint32_t hd;
	uint32_t start_level;
	uint32_t table_count;
	uint32_t reserved;
};

/**
 * struct dmacore_pagetable_riscv - what a walker of RISC-V tables has to be told
 * @struct_size: set to sizeof(struct dmacore_pagetable_riscv) before the call
 * @page_number: PPN of satp or hgatp: the number of the root's page
 * @value: the register, without an ASID or VMID
 * @mode: MODE of the same: 8, 9 and 10 for 3, 4 and 5 levels
 * @is_second_stage: 1 if it is hgatp, 0 if it is satp
 *
 * The device context of a RISC-V IOMMU has the same fields in iohgatp and fsc.
 */
struct dmacore_pagetable_riscv {
	size_t struct_size;
	uint64_t page_number;
	uint64_t value;
	uint32_t mode;
	uint32_t is_second_stage;
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
 *   -EINVAL  @out_pagetable is NULL, the format is unknown or has no such levels, widths or
 *            granule, output_bits leave out the heap and there is no allocator, a structure is too
 *            short, or an allocator lacks a function. Never succeeds if retried.
 *   -EOPNOTSUPP  the format lacks a feature. Never.
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
 * @out_phys: receives the address, which stays the same while the table lives, unless the format has
 *   tables that grow
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
 * @iova: first input address, a multiple of the granule
 * @phys: first output address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 * @access: what is permitted: bits of enum dmacore_access, of read, write and execute one at least
 *
 * Uses the largest leaves that both addresses and the size allow. A walker that runs meanwhile
 * sees each leaf either whole or not at all.
 *
 * Context: any thread, see Concurrency above; lock-free; calls the table allocator.
 * Ownership: the memory at @phys stays whose it was.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL, the size is 0, something is not aligned, or @access permits
 *            nothing or has unknown bits. Never succeeds if retried.
 *   -EOPNOTSUPP  the format cannot express @access. Never.
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
 * @iova: first input address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 * @flags: bits of enum dmacore_unmap_flags
 * @out_size: receives the bytes unmapped; may be NULL
 *
 * Stops at the first address that is not mapped, unless DMACORE_UNMAP_CROSS_HOLES is given. No
 * walk that starts after the call returned finds what was unmapped; a translation that somebody
 * cached is the caller's to invalidate. Retires the tables that the range covers, if it comes to
 * their ends. Needs no memory, unless a leaf is split.
 *
 * Context: any thread, see Concurrency above; lock-free; calls nothing back, but the table allocator
 *   for a leaf to be split.
 * Ownership: nothing changes hands.
 * Return: 0, also when nothing was mapped, or
 *   -EINVAL  @pagetable is NULL, the size is 0, something is not aligned, or a flag is unknown.
 *            Never succeeds if retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 *   -EOPNOTSUPP  an end of the range cuts through a larger leaf, whether a hole lies before it or
 *            not; nothing was unmapped. Never for this range; unmap the whole leaf, which
 *            dmacore_pagetable_translate() tells, or give DMACORE_UNMAP_SPLIT.
 *   -ENOMEM  no memory to split a leaf; nothing was unmapped. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_unmap(struct dmacore_pagetable *pagetable, dmacore_iova_t iova, uint64_t size,
			    uint32_t flags, uint64_t *out_size);

/**
 * dmacore_pagetable_translate() - look an input address up
 * @pagetable: the table
 * @iova: the input address
 * @access: what is wanted, bits of enum dmacore_access, DMACORE_ACCESS_PRIVILEGED for a request with
 *   privilege; 0: find out what is permitted
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
 * dmacore_pagetable_reserve() - make the tables that mapping a range may need
 * @pagetable: the table
 * @iova: first input address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 *
 * Mapping anything in the range needs no memory from here on. The tables stay until an unmapped range
 * covers them, or dmacore_pagetable_trim() does. What is mapped stays mapped.
 *
 * Context: any thread, see Concurrency above; lock-free; calls the table allocator.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL, the size is 0, or something is not aligned. Never succeeds if
 *            retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 *   -ENOMEM  no memory; nothing has changed. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_reserve(struct dmacore_pagetable *pagetable, dmacore_iova_t iova,
			      uint64_t size);

/**
 * dmacore_pagetable_trim() - retire the tables in which nothing is mapped
 * @pagetable: the table
 * @first: first input address, a multiple of the granule
 * @last: last input address, inclusive; the next one is a multiple of the granule
 *
 * Only tables go whose input addresses all lie in the range. Needs no memory.
 *
 * Context: any thread, while no other maps, reserves or unmaps anything in the range; lock-free;
 *   calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL, @last is below @first, or something is not aligned. Never succeeds
 *            if retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_trim(struct dmacore_pagetable *pagetable, dmacore_iova_t first,
			   dmacore_iova_t last);

/**
 * dmacore_pagetable_read_dirty() - find out what was written through a table
 * @pagetable: the table, made with DMACORE_PAGETABLE_DIRTY
 * @iova: first input address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 * @flags: bits of enum dmacore_dirty_flags
 * @bitmap: a bit for each granule of the range, the lowest of the first word for the first; bits are
 *   set here, and none is cleared
 *
 * Hardware notes writes leaf by leaf; so all granules of a leaf are marked, as far as they lie in the
 * range. What a device writes by a cached translation after a leaf was cleared is noted only once
 * that is invalidated: clear, invalidate, and take what is noted then for the next time.
 *
 * Context: any thread, see Concurrency above; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the size is 0, something is not aligned, or a flag is unknown. Never
 *            succeeds if retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 *   -EOPNOTSUPP  the table was made without DMACORE_PAGETABLE_DIRTY. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_read_dirty(struct dmacore_pagetable *pagetable, dmacore_iova_t iova,
				 uint64_t size, uint32_t flags, uint64_t *bitmap);

/**
 * dmacore_pagetable_track_dirty() - let writes be noted, or not
 * @pagetable: the table, made with DMACORE_PAGETABLE_DIRTY
 * @iova: first input address, a multiple of the granule
 * @size: bytes, a multiple of the granule, not 0
 * @is_tracked: whether from here on writes are noted
 *
 * Leaves that are mapped start as tracked and not written through. Those that are not tracked count
 * as written through, so that hardware need not write to the table.
 *
 * Context: any thread, see Concurrency above; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @pagetable is NULL, the size is 0, or something is not aligned. Never succeeds if
 *            retried.
 *   -ERANGE  the range does not fit the table's width. Never.
 *   -EOPNOTSUPP  the table was made without DMACORE_PAGETABLE_DIRTY. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_track_dirty(struct dmacore_pagetable *pagetable, dmacore_iova_t iova,
				  uint64_t size, bool is_tracked);

/**
 * dmacore_pagetable_reclaim() - free the table pages that are retired
 * @pagetable: the table
 *
 * The caller says by this call that no walker is inside those pages: every walk that began before
 * the last call that changed the table has ended, and nothing has cached an address of a table. The
 * same goes for calls on ranges that overlapped.
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
 * Walks all tables. Numbers read beside map and unmap calls need not be of one moment.
 *
 * Context: any thread, also beside map and unmap, but not beside reclaim; lock-free; calls nothing
 *   back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_statistics(struct dmacore_pagetable *pagetable,
				 struct dmacore_pagetable_statistics *out_statistics);

/**
 * dmacore_pagetable_vtd() - what hardware has to be told of a table of VT-d second-stage format
 * @pagetable: the table
 * @out_vtd: receives the fields; its struct_size says how many of them there is room for
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_vtd(struct dmacore_pagetable *pagetable,
			  struct dmacore_pagetable_vtd *out_vtd);

/**
 * dmacore_pagetable_x86_64() - what hardware has to be told of a table of x86-64 format
 * @pagetable: the table
 * @out_x86_64: receives the fields; its struct_size says how many of them there is room for
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_x86_64(struct dmacore_pagetable *pagetable,
			     struct dmacore_pagetable_x86_64 *out_x86_64);

/**
 * dmacore_pagetable_amd_v1() - what hardware has to be told of a table of AMD host format
 * @pagetable: the table
 * @out_amd_v1: receives the fields; its struct_size says how many of them there is room for
 *
 * Root and mode are of one moment: mapping may make the table grow, which changes both.
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_amd_v1(struct dmacore_pagetable *pagetable,
			     struct dmacore_pagetable_amd_v1 *out_amd_v1);

/**
 * dmacore_pagetable_arm64_stage1() - what hardware has to be told of a table of ARM stage 1 format
 * @pagetable: the table
 * @out_arm64_stage1: receives the fields; its struct_size says how many of them there is room for
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_arm64_stage1(struct dmacore_pagetable *pagetable,
				   struct dmacore_pagetable_arm64_stage1 *out_arm64_stage1);

/**
 * dmacore_pagetable_arm64_stage2() - what hardware has to be told of a table of ARM stage 2 format
 * @pagetable: the table
 * @out_arm64_stage2: receives the fields; its struct_size says how many of them there is room for
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_arm64_stage2(struct dmacore_pagetable *pagetable,
				   struct dmacore_pagetable_arm64_stage2 *out_arm64_stage2);

/**
 * dmacore_pagetable_riscv() - what hardware has to be told of a table of RISC-V format
 * @pagetable: the table
 * @out_riscv: receives the fields; its struct_size says how many of them there is room for
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EOPNOTSUPP  the table is of another format. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_riscv(struct dmacore_pagetable *pagetable,
			    struct dmacore_pagetable_riscv *out_riscv);

/**
 * dmacore_pagetable_walk() - look an input address up in tables that somebody else makes
 * @options: the tables
 * @iova: the input address
 * @access: what is wanted: read, write and execute, and privileged if the request has privilege;
 *   without the first three: find out what is permitted
 * @out_translation: receives the leaf that @iova lies in; with two stages, what lies in the leaves of
 *   both. A run of entries that differ counts as single leaves, because only one of them was read
 * @out_fault: receives what is wrong, if the result is -EFAULT; may be NULL
 *
 * Nothing in the tables is trusted, and all may change meanwhile; each word is read once. Nothing is
 * written: neither that a leaf was accessed nor that it was written through.
 *
 * What is permitted is what hardware makes of the words of all levels, less what modes of a processor
 * forbid. Of a leaf that is not privileged it is what requests without privilege may do. A request
 * without privilege for a privileged leaf is denied. With two stages, both must permit: reads of
 * tables too, and no request has privilege in the second, which takes a fetch for a read if its format
 * knows no fetches. Memory is that of registers if one stage says so, and cacheable if all stages
 * say so whose formats can.
 *
 * Context: any thread; takes no lock and no memory; calls @options->read.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EFAULT  the walk ended without a leaf that permits @access: see @out_fault. Not until the tables
 *            change.
 *   -EINVAL  a pointer is NULL that may not be, @access has other bits, the format is unknown or has
 *            no such levels, widths or granule, a root is not aligned, a structure is too short, or a
 *            second stage has a second stage. Never succeeds if retried.
 *   -EOPNOTSUPP  a format lacks a feature. Never.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 */
DMACORE_MUST_CHECK
int dmacore_pagetable_walk(const struct dmacore_walk_options *options, dmacore_iova_t iova,
			   uint32_t access, struct dmacore_translation *out_translation,
			   struct dmacore_walk_fault *out_fault);

DMACORE_END_DECLS

#endif /* DMACORE_PAGETABLE_H */
