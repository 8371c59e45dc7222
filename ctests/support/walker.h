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

/*
 * What a walk wants, bits. The library says of a mapping that it is for requests with privilege
 * alone, a walker of a walk that it has none: walker_permits() and walker_tables.h translate.
 */
enum walk_access {
	WALK_READ = DMACORE_ACCESS_READ,
	WALK_WRITE = DMACORE_ACCESS_WRITE,
	WALK_EXECUTE = DMACORE_ACCESS_EXECUTE,
	WALK_USER = 8,
};

#define WALK_RIGHTS (WALK_READ | WALK_WRITE | WALK_EXECUTE)

/* Whether a mapping that permits @access, of enum dmacore_access, permits a walk. */
static inline bool walker_permits(uint32_t access, uint32_t wanted)
{
	return !(wanted & WALK_RIGHTS & ~access) &&
	       !((wanted & WALK_USER) && (access & DMACORE_ACCESS_PRIVILEGED));
}

struct walk {
	uint64_t iova;
	/* Of enum walk_access. */
	uint32_t access;
	/* What the walker answers: of enum walk_result, and where it got to, if it is known. */
	uint32_t result;
	uint64_t phys;
	/* The reason in the words of the hardware; 0: none. */
	uint32_t reason;
};

#define WALK_NOWHERE UINT64_MAX

/* What a walker must know of a table, apart from its root; and the library, to make it. */
struct walker_geometry {
	unsigned levels;
	unsigned input_bits;
	uint64_t granule;
	/* Of enum dmacore_pagetable_features. */
	uint32_t features;
	/* Whether the bits above those of the input repeat the highest of them, instead of being 0. */
	bool is_signed;
};

/* Of a table without features. */
#define WALKER_GEOMETRY(levels_, input_bits_, granule_)                                 \
	{                                                                               \
		.levels = (levels_), .input_bits = (input_bits_), .granule = (granule_) \
	}

/* So many walks are done at once. */
#define WALKS_MAX 32

#define WALKER_POOL_PAGES 8192

/* Pages of QEMU's memory that the walker needs itself lie before the pool of table pages. */
#define WALKER_OWN_PAGES 256

/* From here on they are for tables that a test writes by hand. */
#define WALKER_HAND_PAGE 64

struct walker {
	struct qemu qemu;
	bool running;
	/* Walks were begun. It stays set when a test fails in the midst of them. */
	bool busy;
	/* A walker's own pages, and behind them those of the tables. */
	uint64_t base;
	struct dmacore_table_allocator allocator;
	unsigned used_count;
	bool used[WALKER_POOL_PAGES];
	/* Points the walker at a table. */
	void (*load)(struct walker *walker, uint64_t root, const struct walker_geometry *geometry);
	/* How many levels a table has that may have grown since it had @levels; NULL: none grows. */
	unsigned (*count_levels)(struct walker *walker, uint64_t root, unsigned levels);
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

/*
 * Whether a walker that an earlier test has started can be used as it is, for starting one takes
 * longer than most tests. One that a test has failed with is stopped.
 */
static inline bool walker_is_ready(struct walker *walker)
{
	if (walker->busy || walker->used_count > 0)
		walker_stop(walker);
	if (!walker->running)
		return false;
	for (unsigned i = WALKER_HAND_PAGE; i < WALKER_OWN_PAGES; i++)
		memset(qemu_memory(&walker->qemu, walker_page(walker, i)), 0, PAGE);
	return true;
}

/* Points the walker at a table of the library, and finds out what its geometry is by now. */
static inline void walker_load(struct walker *walker, struct dmacore_pagetable *table,
			       struct walker_geometry *geometry)
{
	dmacore_phys_t root;

	assert_ok(dmacore_pagetable_root(table, &root));
	if (walker->count_levels)
		geometry->levels = walker->count_levels(walker, root, geometry->levels);
	walker->load(walker, root, geometry);
}

/* A table of the library in QEMU's memory, which the walker walks from now on. */
static inline struct dmacore_pagetable *walker_make_table(struct walker *walker, uint32_t format,
							  const struct walker_geometry *geometry)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct walker_geometry found = *geometry;
	struct dmacore_pagetable *table;

	options.format = format;
	options.levels = geometry->levels;
	options.input_bits = geometry->input_bits;
	options.granule = geometry->granule;
	options.features = geometry->features;
	options.allocator = &walker->allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	walker_load(walker, table, &found);
	assert_int_equal(found.levels, geometry->levels);
	return table;
}

static inline void walker_walk_all(struct walker *walker, struct walk *walks, unsigned count)
{
	walker->busy = true;
	walker->walk(walker, walks, count);
	walker->busy = false;
}

/* One walk. The marked word is where it may end. */
static inline struct walk walker_walk(struct walker *walker, uint64_t iova, uint32_t access,
				      uint64_t marked)
{
	struct walk walk = { .iova = iova, .access = access };

	if (walker->mark && marked != WALK_NOWHERE)
		walker->mark(walker, marked);
	walker_walk_all(walker, &walk, 1);
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

/* Walks whose ends are known, which are done some at a time. The table must stay as it is. */
struct walker_batch {
	struct walker *walker;
	unsigned count;
	/* How many ended otherwise than they should. */
	unsigned wrong;
	struct walk walks[WALKS_MAX];
	uint32_t results[WALKS_MAX];
	uint64_t targets[WALKS_MAX];
};

static inline void walker_batch_run(struct walker_batch *batch)
{
	if (batch->count > 0)
		walker_walk_all(batch->walker, batch->walks, batch->count);
	for (unsigned i = 0; i < batch->count; i++) {
		const struct walk *walk = &batch->walks[i];

		if (!walk_is(walk, batch->results[i], batch->targets[i])) {
			walk_print(walk, batch->results[i], batch->targets[i]);
			batch->wrong++;
		}
	}
	batch->count = 0;
}

/* @phys is where the walk should end, or must not, or WALK_NOWHERE. */
static inline void walker_batch_add(struct walker_batch *batch, uint64_t iova, uint32_t access,
				    uint32_t result, uint64_t phys)
{
	unsigned i = batch->count++;

	batch->walks[i] = (struct walk){ .iova = iova, .access = access };
	batch->results[i] = result;
	batch->targets[i] = phys;
	if (phys != WALK_NOWHERE && batch->walker->mark)
		batch->walker->mark(batch->walker, phys);
	if (batch->count == WALKS_MAX)
		walker_batch_run(batch);
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
