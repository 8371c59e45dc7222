/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_TABLES_H
#define SUPPORT_WALKER_TABLES_H

/*
 * Random tables of the library, the same for every format and walker: where the walker gets to must
 * be what dmacore_pagetable_translate() says.
 */

#include "walker.h"

/* What tables of a format can be like. */
struct walker_tables {
	const char *name;
	uint32_t format;
	struct walker_geometry geometry;
	/* Up to a zero: sizes of leaves, the smallest first, and what mappings permit. */
	uint64_t leaves[8];
	uint32_t accesses[8];
	/* What walks want; none: to read, or to write. */
	uint32_t wanted[8];
	/* Where the mappings lead, ends included. */
	uint64_t target_first, target_last;
	/* Whether the walker takes addresses beyond the width for others. */
	bool wraps;
	/* Inputs that the IOMMU treats specially, ends included; both 0: none. */
	uint64_t hole_first, hole_last;
	unsigned table_count;
};

struct walker_range {
	uint64_t iova;
	uint64_t phys;
	uint64_t size;
	uint32_t access;
	/* Wholly or in part. */
	bool unmapped;
};

#define WALKER_RANGES_MAX 32

struct walker_run {
	struct walker *walker;
	const struct walker_tables *tables;
	struct dmacore_pagetable *pagetable;
	uint64_t seed, random;
	unsigned table;
	/* The inputs that the mappings of this table lie in. */
	uint64_t window_first, window_last;
	struct walker_range ranges[WALKER_RANGES_MAX];
	unsigned range_count;
	/* How many walks ended how. */
	unsigned long reached, absent, denied, beyond;
};

static inline uint64_t walker_random(struct walker_run *run, uint64_t bound)
{
	return random_next(&run->random) % bound;
}

/* One of some values, which end with a zero. */
static inline uint64_t walker_pick(struct walker_run *run, const uint64_t *values)
{
	unsigned count = 0;

	while (values[count])
		count++;
	return values[walker_random(run, count)];
}

static inline uint32_t walker_pick_access(struct walker_run *run, const uint32_t *accesses)
{
	unsigned count = 0;

	while (accesses[count])
		count++;
	return accesses[walker_random(run, count)];
}

/* A random range, or one that does not fit, which is left out. */
static inline void walker_map_one(struct walker_run *run)
{
	const struct walker_tables *tables = run->tables;
	uint64_t leaf = walker_pick(run, tables->leaves);
	uint64_t window = run->window_last - run->window_first + 1;
	uint64_t targets = tables->target_last - tables->target_first + 1;
	struct walker_range range = { .size = leaf * (1 + walker_random(run, 3)) };
	int error;

	range.access = walker_pick_access(run, tables->accesses);
	range.iova = run->window_first + walker_random(run, window) / leaf * leaf;
	range.phys = tables->target_first + walker_random(run, targets) / leaf * leaf;
	switch (walker_random(run, 6)) {
	case 0:
		/* Smaller leaves in front of the large one. */
		range.iova -= 3 * tables->leaves[0];
		range.phys -= 3 * tables->leaves[0];
		range.size += 3 * tables->leaves[0];
		break;
	case 1:
		/* And behind it. */
		range.size += (1 + walker_random(run, 20)) * tables->leaves[0];
		break;
	case 2:
		/* Addresses that permit smaller leaves only, in a size that does not cost much. */
		range.phys += tables->leaves[0];
		if (range.size > 4 * MIB)
			range.size = 4 * MIB;
		break;
	default:
		break;
	}
	if (range.iova < run->window_first || range.size - 1 > run->window_last - range.iova ||
	    range.iova > run->window_last || range.phys < tables->target_first ||
	    range.phys > tables->target_last || range.size - 1 > tables->target_last - range.phys ||
	    run->range_count == WALKER_RANGES_MAX)
		return;
	error = dmacore_pagetable_map(run->pagetable, range.iova, range.phys, range.size,
				      range.access);
	if (error == -EEXIST)
		return;
	assert_ok(error);
	run->ranges[run->range_count++] = range;
}

/* Unmaps a whole range, or a part of one. */
static inline void walker_unmap_one(struct walker_run *run)
{
	uint64_t granule = run->tables->leaves[0], first = 0, size, unmapped;
	struct walker_range *range;
	int error;

	if (run->range_count == 0)
		return;
	range = &run->ranges[walker_random(run, run->range_count)];
	size = range->size;
	if (walker_random(run, 2)) {
		first = walker_random(run, size / granule) * granule;
		size = (1 + walker_random(run, (size - first) / granule)) * granule;
	}
	error = dmacore_pagetable_unmap(run->pagetable, range->iova + first, size,
					DMACORE_UNMAP_CROSS_HOLES, &unmapped);
	/* It may cut through a leaf, of this range or of one that came to where this one was. */
	if (error == -EOPNOTSUPP)
		return;
	assert_ok(error);
	range->unmapped = true;
}

/* An address that tells something: inside a range, at its ends, beside it, or anywhere. */
static inline uint64_t walker_choose(struct walker_run *run)
{
	const struct walker_tables *tables = run->tables;
	uint64_t window = run->window_last - run->window_first + 1, iova;
	uint64_t granule = tables->leaves[0];
	uint64_t width = DMACORE_BIT_MASK(tables->geometry.input_bits);

	do {
		const struct walker_range *range =
			run->range_count ? &run->ranges[walker_random(run, run->range_count)] :
					   NULL;
		unsigned kind = walker_random(run, 16);

		if (!range || kind == 0) {
			iova = run->window_first + walker_random(run, window);
		} else if (kind == 1) {
			/* Beyond the width, where the low bits alone would find something. */
			iova = range->iova + walker_random(run, range->size);
			if (width != UINT64_MAX)
				iova |= (width + 1)
					<< walker_random(run, 64 - tables->geometry.input_bits);
		} else if (kind == 2) {
			iova = range->iova - 1 - walker_random(run, 2) * granule;
		} else if (kind == 3) {
			iova = range->iova + range->size + walker_random(run, 2) * granule;
		} else if (kind < 7) {
			iova = range->iova + walker_random(run, 2) * walker_random(run, granule);
		} else if (kind < 10) {
			iova = range->iova + range->size - 1 -
			       walker_random(run, 2) * walker_random(run, granule);
		} else {
			iova = range->iova + walker_random(run, range->size);
		}
		iova &= ~UINT64_C(7);
	} while ((tables->hole_last && iova >= tables->hole_first && iova <= tables->hole_last) ||
		 (tables->wraps && iova > width));
	return iova;
}

/* What the library says. An address is given for denied accesses too, which may not get there. */
static inline uint32_t walker_expect(struct walker_run *run, uint64_t iova, uint32_t access,
				     uint64_t *out_phys)
{
	struct dmacore_translation found;
	int error = dmacore_pagetable_translate(run->pagetable, iova, access, &found);

	*out_phys = WALK_NOWHERE;
	if (error == -ENOENT)
		return iova > DMACORE_BIT_MASK(run->tables->geometry.input_bits) ? WALK_BEYOND :
										   WALK_ABSENT;
	if (error == -EACCES)
		assert_ok(dmacore_pagetable_translate(run->pagetable, iova, 0, &found));
	else
		assert_ok(error);
	*out_phys = found.target + (iova - found.first);
	return error ? WALK_DENIED : WALK_REACHED;
}

static inline void walker_compare(struct walker_run *run)
{
	const uint32_t usual[] = { DMACORE_ACCESS_READ, DMACORE_ACCESS_WRITE, 0 };
	const uint32_t *wanted = *run->tables->wanted ? run->tables->wanted : usual;
	struct walk walks[WALKS_MAX];
	uint32_t results[WALKS_MAX];
	uint64_t targets[WALKS_MAX];
	unsigned wrong = 0;

	for (unsigned i = 0; i < WALKS_MAX; i++) {
		struct walk *walk = &walks[i];

		*walk = (struct walk){
			.iova = walker_choose(run),
			.access = walker_pick_access(run, wanted),
		};
		results[i] = walker_expect(run, walk->iova, walk->access, &targets[i]);
		if (targets[i] != WALK_NOWHERE && run->walker->mark)
			run->walker->mark(run->walker, targets[i]);
	}
	run->walker->walk(run->walker, walks, WALKS_MAX);
	for (unsigned i = 0; i < WALKS_MAX; i++) {
		run->reached += results[i] == WALK_REACHED;
		run->absent += results[i] == WALK_ABSENT;
		run->denied += results[i] == WALK_DENIED;
		run->beyond += results[i] == WALK_BEYOND;
		if (!walk_is(&walks[i], results[i], targets[i])) {
			walk_print(&walks[i], results[i], targets[i]);
			wrong++;
		}
	}
	if (!wrong)
		return;
	for (unsigned i = 0; i < run->range_count; i++) {
		const struct walker_range *range = &run->ranges[i];

		print_error("map(0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx32 ")%s\n",
			    range->iova, range->phys, range->size, range->access,
			    range->unmapped ? ", of which some was unmapped" : "");
	}
	fail_msg("%s: %u walks of table %u differ, DMACORE_SEED=0x%" PRIx64, run->tables->name,
		 wrong, run->table, run->seed);
}

static inline void walker_run_table(struct walker_run *run)
{
	uint64_t largest = 0, window, width = DMACORE_BIT_MASK(run->tables->geometry.input_bits);
	unsigned map_count = 1 + walker_random(run, 16);

	for (const uint64_t *leaf = run->tables->leaves; *leaf; leaf++)
		largest = *leaf;
	/* A few of the largest leaves, so that ranges are near each other. */
	window = 8 * largest - 1;
	if (window > width)
		window = width;
	switch (walker_random(run, 4)) {
	case 0:
		run->window_first = 0;
		break;
	case 1:
		run->window_first = width - window;
		break;
	default:
		run->window_first = walker_random(run, (width - window) / largest + 1) * largest;
		break;
	}
	run->window_last = run->window_first + window;

	run->pagetable =
		walker_make_table(run->walker, run->tables->format, &run->tables->geometry);
	run->range_count = 0;
	for (unsigned i = 0; i < map_count; i++)
		walker_map_one(run);
	walker_compare(run);
	for (unsigned i = 0; i < map_count; i++) {
		if (walker_random(run, 2))
			walker_unmap_one(run);
		else
			walker_map_one(run);
	}
	walker_compare(run);
	dmacore_pagetable_destroy(run->pagetable);
	assert_int_equal(run->walker->used_count, 0);
}

static inline uint64_t walker_setting(const char *name, uint64_t usual)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : usual;
}

/*
 * Random tables of a format, each compared before and after some of it is unmapped. DMACORE_SEED
 * repeats a run, DMACORE_STEPS says how many tables.
 */
static inline void walker_run_tables(struct walker *walker, const struct walker_tables *tables)
{
	struct timespec now;
	struct walker_run run = { .walker = walker, .tables = tables };
	unsigned count = walker_setting("DMACORE_STEPS", tables->table_count);

	clock_gettime(CLOCK_REALTIME, &now);
	run.seed = now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
	run.seed = walker_setting("DMACORE_SEED", random_next(&run.seed));
	run.random = run.seed;
	print_message("%s: DMACORE_SEED=0x%" PRIx64 "\n", tables->name, run.seed);
	for (run.table = 0; run.table < count; run.table++)
		walker_run_table(&run);
	print_message(
		"%s: %u tables agree: %lu walks reached, %lu absent, %lu denied, %lu beyond\n",
		tables->name, count, run.reached, run.absent, run.denied, run.beyond);
}

#endif /* SUPPORT_WALKER_TABLES_H */
