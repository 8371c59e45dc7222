/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_H
#define SUPPORT_WALKER_H

/*
 * Walkers of page tables that others wrote: QEMU's models of IOMMUs and CPUs. Each says for an
 * input address and an access which address they reach, or why they reach none. What is here is the
 * same for all of them: pages for tables in QEMU's memory, and walks. One walker each is in
 * walker_NAME.h; what tables they are tried with is in walker_tables.h.
 */

#include "qemu.h"

/* Why a walk ends. A walker that cannot tell some of these apart answers with all of them. */
enum walk_result {
	WALK_REACHED = 1,
	/* No leaf. */
	WALK_ABSENT = 2,
	/* A leaf that does not permit the access. */
	WALK_DENIED = 4,
	/* The address has more bits than the table translates. */
	WALK_BEYOND = 8,
	/* An entry that the format does not allow. */
	WALK_MALFORMED = 16,
};

struct walk {
	uint64_t iova;
	uint32_t access;
	/* What the walker answers: of enum walk_result, and where it got to, if it is known. */
	uint32_t result;
	uint64_t phys;
	/* The reason in the words of the hardware; 0: none. */
	uint32_t reason;
};

#define WALK_NOWHERE UINT64_MAX

/* What a walker must know of a table, apart from its root. */
struct walker_geometry {
	unsigned levels;
	unsigned input_bits;
	uint64_t granule;
};

/* So many walks are done at once. */
#define WALKS_MAX 32

#define WALKER_POOL_PAGES 8192

/* Pages of QEMU's memory that the walker needs itself lie before the pool of table pages. */
#define WALKER_OWN_PAGES 256

struct walker {
	struct qemu qemu;
	bool running;
	/* A walker's own pages, and behind them those of the tables. */
	uint64_t base;
	struct dmacore_table_allocator allocator;
	unsigned used_count;
	bool used[WALKER_POOL_PAGES];
	/* Points the walker at a table. */
	void (*load)(struct walker *walker, uint64_t root, const struct walker_geometry *geometry);
	/* Answers for each of @count walks, at most WALKS_MAX. */
	void (*walk)(struct walker *walker, struct walk *walks, unsigned count);
	/* Makes a word recognizable, if the walker finds out by that where it got to. */
	void (*mark)(struct walker *walker, uint64_t phys);
	/* What walkers of one kind share, and what is of one alone. */
	void *device;
	uint64_t state[8];
};

/* The walker's own page of some number. */
static inline uint64_t walker_page(const struct walker *walker, unsigned index)
{
	assert_true(index < WALKER_OWN_PAGES);
	return walker->base + index * PAGE;
}

static inline uint64_t walker_pool(const struct walker *walker)
{
	return walker->base + WALKER_OWN_PAGES * PAGE;
}

/* Tables of any size, each at a multiple of it; a small one takes a page of its own. */
static inline int walker_allocate(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct walker *walker = opaque;
	unsigned count = (size + PAGE - 1) / PAGE;

	for (unsigned first = 0; first + count <= WALKER_POOL_PAGES; first += count) {
		uint64_t phys = walker_pool(walker) + first * PAGE;
		unsigned i = 0;

		while (i < count && !walker->used[first + i])
			i++;
		if (i < count || phys % size != 0)
			continue;
		memset(walker->used + first, true, count);
		walker->used_count += count;
		out_page->phys = phys;
		out_page->host = qemu_memory(&walker->qemu, phys);
		/* Not zeroed: that is the library's task. */
		memset(out_page->host, 0xff, size);
		return 0;
	}
	return -ENOMEM;
}

static inline void walker_free(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct walker *walker = opaque;
	unsigned first = (page->phys - walker_pool(walker)) / PAGE;
	unsigned count = (size + PAGE - 1) / PAGE;

	/* What a walker finds here afterwards leads nowhere. */
	memset(page->host, 0, size);
	memset(walker->used + first, false, count);
	walker->used_count -= count;
}

static inline void walker_start(struct walker *walker, const struct qemu_plan *plan, uint64_t base)
{
	memset(walker, 0, sizeof(*walker));
	qemu_start(&walker->qemu, plan);
	walker->running = true;
	walker->base = base;
	walker->allocator = (struct dmacore_table_allocator)DMACORE_TABLE_ALLOCATOR_INIT;
	walker->allocator.allocate = walker_allocate;
	walker->allocator.free = walker_free;
	walker->allocator.opaque = walker;
}

static inline void walker_stop(struct walker *walker)
{
	if (walker->running)
		qemu_stop(&walker->qemu);
	walker->running = false;
}

/* A table of the library in QEMU's memory, which the walker walks from now on. */
static inline struct dmacore_pagetable *walker_make_table(struct walker *walker, uint32_t format,
							  const struct walker_geometry *geometry)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	dmacore_phys_t root;

	options.format = format;
	options.levels = geometry->levels;
	options.allocator = &walker->allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	assert_ok(dmacore_pagetable_root(table, &root));
	walker->load(walker, root, geometry);
	return table;
}

/* One walk. The marked word is where it may end. */
static inline struct walk walker_walk(struct walker *walker, uint64_t iova, uint32_t access,
				      uint64_t marked)
{
	struct walk walk = { .iova = iova, .access = access };

	if (walker->mark && marked != WALK_NOWHERE)
		walker->mark(walker, marked);
	walker->walk(walker, &walk, 1);
	return walk;
}

static inline const char *walk_result_name(uint32_t result)
{
	switch (result) {
	case WALK_REACHED:
		return "reached";
	case WALK_ABSENT:
		return "absent";
	case WALK_DENIED:
		return "denied";
	case WALK_ABSENT | WALK_DENIED:
		return "absent or denied";
	case WALK_BEYOND:
		return "beyond the width";
	case WALK_ABSENT | WALK_BEYOND:
		return "absent or beyond the width";
	case WALK_MALFORMED:
		return "malformed";
	default:
		return "something else";
	}
}

/* Whether a walk ended as expected, by the result and, if it got somewhere, the address. */
static inline bool walk_is(const struct walk *walk, uint32_t result, uint64_t phys)
{
	return result == WALK_REACHED ? walk->result == result && walk->phys == phys :
					(walk->result & result) != 0;
}

static inline void walk_print(const struct walk *walk, uint32_t result, uint64_t phys)
{
	print_error("0x%" PRIx64 ", access 0x%" PRIx32 ": expected is %s, 0x%" PRIx64
		    "; the walker says %s, 0x%" PRIx64 ", reason 0x%" PRIx32 "\n",
		    walk->iova, walk->access, walk_result_name(result), phys,
		    walk_result_name(walk->result), walk->phys, walk->reason);
}

#define assert_reaches(walker, iova_, access_, phys_)                           \
	do {                                                                    \
		struct walk walk_ = walker_walk(walker, iova_, access_, phys_); \
                                                                                \
		if (!walk_is(&walk_, WALK_REACHED, phys_)) {                    \
			walk_print(&walk_, WALK_REACHED, phys_);                \
			fail();                                                 \
		}                                                               \
	} while (0)

/* @marked is an address that the walk might wrongly get to, or WALK_NOWHERE. */
#define assert_reaches_nothing(walker, iova_, access_, result_, reason_, marked)    \
	do {                                                                        \
		struct walk walk_ = walker_walk(walker, iova_, access_, marked);    \
                                                                                    \
		if (!walk_is(&walk_, result_, 0) || walk_.reason != (reason_)) {    \
			walk_print(&walk_, result_, WALK_NOWHERE);                  \
			fail_msg("the reason should be 0x%x", (unsigned)(reason_)); \
		}                                                                   \
	} while (0)

#endif /* SUPPORT_WALKER_H */
