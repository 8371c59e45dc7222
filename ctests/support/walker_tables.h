/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_TABLES_H
#define SUPPORT_WALKER_TABLES_H

/*
 * Tables of the library, the same for every format and walker: leaves of each kind one by one, where
 * the walker must get to what was mapped; and random ones, where it must get to what
 * dmacore_pagetable_translate() says.
 */

#include "walker.h"

/* What tables of a format can be like. */
struct walker_tables {
	const char *name;
	uint32_t format;
	struct walker_geometry geometry;
	/* Up to a zero: sizes of leaves, the smallest first, and what mappings permit. */
	uint64_t leaves[24];
	uint32_t accesses[16];
	/* What walks want, of enum walk_access; none: to read, or to write. */
	uint32_t wanted[8];
	/* Where the mappings lead, ends included. */
	uint64_t target_first, target_last;
	/* Whether the walker ignores the bits of an address above those that the levels translate. */
	bool wraps;
	/* Inputs that the IOMMU treats specially, ends included; both 0: none. */
	uint64_t hole_first, hole_last;
	unsigned table_count;
};

static const uint32_t walker_usual_accesses[] = { WALK_READ, WALK_WRITE, 0 };

static inline const uint32_t *walker_wanted(const struct walker_tables *tables)
{
	return *tables->wanted ? tables->wanted : walker_usual_accesses;
}

/* The highest input, but of signed ones the highest of the lower half. */
static inline uint64_t walker_width(const struct walker_geometry *geometry)
{
	return DMACORE_BIT_MASK(geometry->input_bits - geometry->is_signed);
}

static inline bool walker_is_hole(const struct walker_tables *tables, uint64_t iova)
{
	return tables->hole_last && iova >= tables->hole_first && iova <= tables->hole_last;
}

/* Leaves one by one. */

/* Adds walks to both ends of a mapping that is one leaf, and beside it. */
static inline void walker_add_leaf(struct walker_batch *batch, const struct walker_tables *tables,
				   uint64_t iova, uint64_t phys, uint64_t size, uint32_t access,
				   uint64_t beside)
{
	const uint32_t *wanted = walker_wanted(tables);
	uint64_t last = size - 8;

	for (unsigned i = 0; wanted[i]; i++) {
		uint32_t result = walker_permits(access, wanted[i]) ? WALK_REACHED : WALK_DENIED;

		walker_batch_add(batch, iova, wanted[i], result, phys);
		if (!walker_is_hole(tables, iova + last))
			walker_batch_add(batch, iova + last, wanted[i], result, phys + last);
	}
	if (!walker_is_hole(tables, beside))
		walker_batch_add(batch, beside, wanted[0], WALK_ABSENT, WALK_NOWHERE);
}

static inline void walker_end_leaves(struct walker_batch *batch, const struct walker_tables *tables,
				     uint64_t size)
{
	walker_batch_run(batch);
	if (batch->wrong)
		fail_msg("%s: %u walks of leaves of 0x%" PRIx64 " bytes differ", tables->name,
			 batch->wrong, size);
}

/*
 * Leaves of one size, one for each set of permissions: in turns at the lowest and the highest inputs,
 * each beside a hole of the same size. Gives how many fit.
 */
static inline unsigned walker_check_leaves_of(struct walker *walker,
					      struct dmacore_pagetable *table,
					      const struct walker_tables *tables, uint64_t size)
{
	struct walker_batch batch = { .walker = walker };
	struct walker_geometry geometry = tables->geometry;
	uint64_t width = walker_width(&geometry), top = geometry.is_signed ? UINT64_MAX : width;
	uint64_t phys = (tables->target_first + size - 1) / size * size;
	uint64_t room = tables->target_last - phys, iovas[16], targets[16], unmapped;
	unsigned count = 0;

	for (; tables->accesses[count] && 2 * count + 2 < width / size + 1; count++) {
		uint64_t before = count * size;

		iovas[count] = count % 2 ? top - before + 1 : before;
		/* Where nothing else leads, while there is room. */
		targets[count] = phys + (before < room && room - before >= size - 1 ? before : 0);
		assert_ok(dmacore_pagetable_map(table, iovas[count], targets[count], size,
						tables->accesses[count]));
	}
	walker_load(walker, table, &geometry);
	for (unsigned i = 0; i < count; i++)
		walker_add_leaf(&batch, tables, iovas[i], targets[i], size, tables->accesses[i],
				i % 2 ? iovas[i] - 8 : iovas[i] + size);
	walker_end_leaves(&batch, tables, size);
	for (unsigned i = 0; i < count; i++) {
		assert_ok(dmacore_pagetable_unmap(table, iovas[i], size, 0, &unmapped));
		assert_true(unmapped == size);
	}
	for (unsigned i = 0; i < count; i++)
		walker_batch_add(&batch, iovas[i], walker_wanted(tables)[0], WALK_ABSENT,
				 WALK_NOWHERE);
	walker_end_leaves(&batch, tables, size);
	return count;
}

static inline void walker_check_leaves(struct walker *walker, const struct walker_tables *tables)
{
	struct dmacore_pagetable *table =
		walker_make_table(walker, tables->format, &tables->geometry);
	unsigned count = 0;

	for (const uint64_t *leaf = tables->leaves; *leaf; leaf++) {
		unsigned found = walker_check_leaves_of(walker, table, tables, *leaf);

		assert_true(found > 0);
		count += found;
	}
	dmacore_pagetable_destroy(table);
	print_message("%s: %u leaves are found\n", tables->name, count);
}

/* Random tables. */

struct walker_range {
	uint64_t iova;
	uint64_t phys;
	uint64_t size;
	uint32_t access;
	/* Wholly or in part. */
	bool unmapped;
};

#define WALKER_RANGES_MAX 32
/* Each time that a table is compared. Many tables tell more than many walks of few. */
#define WALKER_WALKS 4

struct walker_run {
	struct walker *walker;
	const struct walker_tables *tables;
	struct dmacore_pagetable *pagetable;
	/* That of the table as it is, which may have grown. */
	struct walker_geometry geometry;
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
	uint64_t width = walker_width(&tables->geometry);
	unsigned bits = tables->geometry.input_bits - tables->geometry.is_signed;

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
				iova ^= (width + 1) << walker_random(run, 64 - bits);
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
		if (tables->wraps)
			iova &= DMACORE_BIT_MASK(12 + 9 * run->geometry.levels);
	} while (walker_is_hole(tables, iova));
	return iova;
}

/* What the library says. An address is given for denied accesses too, which may not get there. */
static inline uint32_t walker_expect(struct walker_run *run, uint64_t iova, uint32_t access,
				     uint64_t *out_phys)
{
	uint64_t width = walker_width(&run->tables->geometry);
	uint64_t upper = run->tables->geometry.is_signed ? ~width : UINT64_MAX;
	uint32_t wanted = access & WALK_RIGHTS;
	struct dmacore_translation found;
	int error;

	if (!(access & WALK_USER))
		wanted |= DMACORE_ACCESS_PRIVILEGED;
	error = dmacore_pagetable_translate(run->pagetable, iova, wanted, &found);

	*out_phys = WALK_NOWHERE;
	if (error == -ENOENT)
		return iova > width && iova < upper ? WALK_BEYOND : WALK_ABSENT;
	if (error == -EACCES)
		assert_ok(dmacore_pagetable_translate(run->pagetable, iova, 0, &found));
	else
		assert_ok(error);
	/* Without rights it is asked what is permitted, which is never denied. */
	assert_true(!(access & WALK_RIGHTS) || walker_permits(found.access, access) == !error);
	*out_phys = found.target + (iova - found.first);
	return walker_permits(found.access, access) ? WALK_REACHED : WALK_DENIED;
}

static inline void walker_compare(struct walker_run *run)
{
	struct walker_batch batch = { .walker = run->walker };

	walker_load(run->walker, run->pagetable, &run->geometry);
	for (unsigned i = 0; i < WALKER_WALKS; i++) {
		uint64_t iova = walker_choose(run), phys;
		uint32_t access = walker_pick_access(run, walker_wanted(run->tables));
		uint32_t result = walker_expect(run, iova, access, &phys);

		run->reached += result == WALK_REACHED;
		run->absent += result == WALK_ABSENT;
		run->denied += result == WALK_DENIED;
		run->beyond += result == WALK_BEYOND;
		walker_batch_add(&batch, iova, access, result, phys);
	}
	walker_batch_run(&batch);
	if (!batch.wrong)
		return;
	for (unsigned i = 0; i < run->range_count; i++) {
		const struct walker_range *range = &run->ranges[i];

		print_error("map(0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx32 ")%s\n",
			    range->iova, range->phys, range->size, range->access,
			    range->unmapped ? ", of which some was unmapped" : "");
	}
	fail_msg("%s: %u walks of table %u differ, DMACORE_SEED=0x%" PRIx64, run->tables->name,
		 batch.wrong, run->table, run->seed);
}

static inline void walker_run_table(struct walker_run *run)
{
	uint64_t largest = 0, window, width = walker_width(&run->tables->geometry);
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
	/* The upper half of signed inputs. */
	if (run->tables->geometry.is_signed && walker_random(run, 2))
		run->window_first |= ~width;
	run->window_last = run->window_first + window;

	run->geometry = run->tables->geometry;
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
