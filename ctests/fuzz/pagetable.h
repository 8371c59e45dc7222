/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_FUZZ_PAGETABLE_H
#define DMACORE_FUZZ_PAGETABLE_H

/*
 * What the parts of the fuzzer of page tables share: pagetable_fuzz.c makes the calls,
 * pagetable_shapes.c says what tables there are, pagetable_twin.c is the naive twin of one,
 * pagetable_judges.c has its pages and compares.
 */

#include <dmacore/pagetable.h>

#include "fuzz.h"

#include <stddef.h>

/* What a table is made for. The widths are those that the table has, never 0. */
struct shape {
	const char *name;
	uint32_t format;
	uint32_t granule;
	uint32_t levels;
	uint32_t input_bits;
	uint32_t output_bits;
	/* In the table of shapes all that the format has, in a shape that was taken those chosen. */
	uint32_t features;
};

/* One of all, with some of its features. */
struct shape take_shape(struct program *program);

/* What pagetable.h says of the tables of a shape. */

bool shape_is_signed(const struct shape *shape);

/* The highest input; of signed ones, of the lower half. */
uint64_t shape_low_last(const struct shape *shape);

/* The sizes of leaves, a bit each. */
uint64_t shape_leaf_sizes(const struct shape *shape);

bool shape_can_express(const struct shape *shape, uint32_t access);

/* The highest input of so many levels; of signed ones, of the lower half. */
uint64_t shape_reach_last(const struct shape *shape, unsigned int levels);

/* The bytes of input that an entry covers, counted from the lowest level. */
uint64_t shape_span(const struct shape *shape, unsigned int level);

/* The bytes of the root: all others have the granule's. */
uint64_t shape_root_size(const struct shape *shape);

#define LEAVES_MAX 2048

struct leaf {
	uint64_t first;
	uint64_t last;
	uint64_t target;
	uint32_t access;
	/* It counts as written through. */
	bool is_dirty;
};

/* A sorted array of leaves. */
struct twin {
	struct shape shape;
	/* What is said of the shape above. */
	bool is_signed;
	uint64_t low_last;
	uint64_t leaf_sizes;
	/* The highest input that it has grown to: a table grows for addresses, not for larger leaves. */
	uint64_t reach_last;
	size_t count;
	/* Sorted by address; no two overlap. */
	struct leaf leaves[LEAVES_MAX];
};

void twin_start(struct twin *twin, const struct shape *shape);

/* The index of the first leaf that ends at @iova or above. */
size_t twin_index(const struct twin *twin, uint64_t iova);

/* The leaf that @iova lies in, or NULL. */
struct leaf *twin_find(struct twin *twin, uint64_t iova);

/* Whether a request may do what it wants, or is to be told what is permitted. */
bool leaf_permits(const struct leaf *leaf, uint32_t wanted);

uint64_t twin_mapped_bytes(const struct twin *twin);

/* Adds the levels that an address needs, of those that can be mapped. */
void twin_grow(struct twin *twin, uint64_t last);

/*
 * What the calls must return. Of -1 the twin does not know: the call makes more leaves than it holds;
 * it has changed nothing then.
 */
int twin_check_range(const struct twin *twin, uint64_t iova, uint64_t size);
int twin_map(struct twin *twin, uint64_t iova, uint64_t phys, uint64_t size, uint32_t access);
int twin_unmap(struct twin *twin, uint64_t iova, uint64_t size, uint32_t flags, uint64_t *out_size);
int twin_trim(const struct twin *twin, uint64_t first, uint64_t last);

#define PAGES_MAX 2048

/* Room for the largest root, and a physical address for each page, whatever its size. */
#define SLOT_SIZE (UINT64_C(1) << 20)

/*
 * The table pages that the library holds. Their physical addresses are near the end of what hardware
 * of the table's width can address, and not those of the process, so that a walker that takes one for
 * the other is found out.
 */
struct pages {
	/* Pages of the heap: physical addresses are those of the process. */
	bool is_heap;
	uint64_t first_phys;
	uint64_t granule;
	uint64_t root_size;
	unsigned int count;
	uint64_t bytes;
	void *hosts[PAGES_MAX];
	/* Allocations until one fails; 0: none will. */
	unsigned int countdown;
	bool has_failed;
};

struct run {
	struct program program;
	struct twin twin;
	struct pages pages;
	struct dmacore_pagetable *table;
};

/* A table of the twin's shape, in which nothing is mapped. */
void create_table(struct run *run, bool is_heap);

/* The allocations of the next call: some succeed, and then one fails. */
void starve(struct run *run, unsigned int page_count, unsigned int count);

/* Takes the order back; tells whether an allocation has failed since. */
bool was_starved(struct run *run);

/* Whether @iova leads where the twin says, by all judges; @access is what the request wants. */
void check_translation(struct run *run, uint64_t iova, uint32_t access);

/* The ends of a range that a call was about, and the addresses beside it. */
void check_around(struct run *run, uint64_t iova, uint64_t size);

void check_statistics(struct run *run, bool is_reclaimed);

/*
 * A table grows as far as it has to, or in a call that fails perhaps not as far; and never shrinks.
 * @before is the twin's reach before the call, which returned @result.
 */
void check_growth(struct run *run, uint64_t before, int result);

#endif /* DMACORE_FUZZ_PAGETABLE_H */
