/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/check.h"
#include "support/tables.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

/* A table in pages that the test owns. */
struct fixture {
	struct table_pool pool;
	struct dmacore_pagetable *table;
	unsigned levels;
	struct leaves leaves;
};

static struct dmacore_pagetable *make_table(struct table_pool *pool, unsigned levels)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	options.levels = levels;
	options.allocator = pool ? &pool->allocator : NULL;
	assert_ok(dmacore_pagetable_create(&options, &table));
	return table;
}

static int fixture_setup(void **state)
{
	struct fixture *fixture = malloc(sizeof(*fixture));

	assert_non_null(fixture);
	fixture->levels = (unsigned)(uintptr_t)*state;
	table_pool_start(&fixture->pool);
	fixture->table = make_table(&fixture->pool, fixture->levels);
	*state = fixture;
	return 0;
}

static int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	dmacore_pagetable_destroy(fixture->table);
	table_pool_stop(&fixture->pool);
	free(fixture);
	return 0;
}

#define test_of(levels, function)                                                             \
	{                                                                                     \
#function " (" #levels " levels)", function, fixture_setup, fixture_teardown, \
			(void *)(uintptr_t)(levels)                                           \
	}

#define test_of_each(function) test_of(3, function), test_of(4, function), test_of(5, function)

static uint64_t root_of(struct fixture *fixture)
{
	dmacore_phys_t root;

	assert_ok(dmacore_pagetable_root(fixture->table, &root));
	return root;
}

static struct dmacore_pagetable_statistics statistics_of(struct dmacore_pagetable *table)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_pagetable_statistics(table, &statistics));
	return statistics;
}

/* Reads the table by hand into fixture->leaves and looks that the statistics say the same. */
static const struct leaves *walk(struct fixture *fixture)
{
	struct dmacore_pagetable_statistics statistics = statistics_of(fixture->table);
	struct leaves *leaves = &fixture->leaves;
	uint64_t mapped = 0;

	leaves_read(leaves, &fixture->pool, root_of(fixture), fixture->levels);
	for (unsigned i = 0; i < leaves->count; i++)
		mapped += leaves->at[i].size;
	assert_int_equal(statistics.mapped_bytes, mapped);
	assert_int_equal(statistics.table_count, leaves->tables + statistics.retired_count);
	assert_int_equal(statistics.table_count, fixture->pool.live);
	assert_int_equal(statistics.table_bytes, statistics.table_count * PAGE);
	return leaves;
}

/* The bits of the addresses that a table of this many levels translates. */
static uint64_t width_end(const struct fixture *fixture)
{
	return UINT64_C(1) << (12 + 9 * fixture->levels);
}

#define assert_leaf(leaves, index, iova_, phys_, size_, access_)       \
	do {                                                           \
		assert_true((index) < (leaves)->count);                \
		assert_int_equal((leaves)->at[index].iova, iova_);     \
		assert_int_equal((leaves)->at[index].phys, phys_);     \
		assert_int_equal((leaves)->at[index].size, size_);     \
		assert_int_equal((leaves)->at[index].access, access_); \
	} while (0)

#define assert_translates(table, iova, wanted, first_, size_, target_, access_)       \
	do {                                                                          \
		struct dmacore_translation found_;                                    \
                                                                                      \
		memset(&found_, 0xff, sizeof(found_));                                \
		assert_ok(dmacore_pagetable_translate(table, iova, wanted, &found_)); \
		assert_int_equal(found_.first, first_);                               \
		assert_int_equal(found_.last, (first_) + ((size_)-1));                \
		assert_int_equal(found_.target, target_);                             \
		assert_int_equal(found_.access, access_);                             \
		assert_int_equal(found_.reserved, 0);                                 \
	} while (0)

#define assert_translates_nothing(table, iova, wanted, error)                                   \
	do {                                                                                    \
		struct dmacore_translation found_, before_;                                     \
                                                                                                \
		memset(&found_, 0x5a, sizeof(found_));                                          \
		before_ = found_;                                                               \
		assert_fails(dmacore_pagetable_translate(table, iova, wanted, &found_), error); \
		assert_memory_equal(&found_, &before_, sizeof(found_));                         \
	} while (0)

#define assert_unmaps(table, iova, size, flags, expected)                                 \
	do {                                                                              \
		uint64_t unmapped_ = UNTOUCHED;                                           \
                                                                                          \
		assert_ok(dmacore_pagetable_unmap(table, iova, size, flags, &unmapped_)); \
		assert_int_equal(unmapped_, expected);                                    \
	} while (0)

#define assert_unmaps_nothing(table, iova, size, flags, error)                                \
	do {                                                                                  \
		uint64_t unmapped_;                                                           \
                                                                                              \
		assert_fails_untouched(                                                       \
			dmacore_pagetable_unmap(table, iova, size, flags, &unmapped_), error, \
			unmapped_);                                                           \
	} while (0)

/* A call that must leave every word of every table as it is. */
#define assert_changes_nothing(fixture, check)                                                 \
	do {                                                                                   \
		struct dmacore_pagetable_statistics before_ = statistics_of((fixture)->table), \
						    after_;                                    \
		size_t size_ = TABLE_POOL_PAGES * PAGE;                                        \
		uint8_t *words_ = malloc(size_);                                               \
                                                                                               \
		assert_non_null(words_);                                                       \
		memcpy(words_, (fixture)->pool.bytes, size_);                                  \
		check;                                                                         \
		after_ = statistics_of((fixture)->table);                                      \
		assert_memory_equal(words_, (fixture)->pool.bytes, size_);                     \
		assert_memory_equal(&before_, &after_, sizeof(before_));                       \
		free(words_);                                                                  \
	} while (0)

/* Creation. */

static void pagetable_create__takes_defaults_without_options(void **state)
{
	struct dmacore_pagetable *table;
	uint64_t last = (UINT64_C(1) << 48) - PAGE;

	(void)state;
	assert_ok(dmacore_pagetable_create(NULL, &table));
	assert_ok(dmacore_pagetable_map(table, last, 0, PAGE, BOTH));
	assert_fails(dmacore_pagetable_map(table, last + PAGE, 0, PAGE, BOTH), ERANGE);
	assert_translates(table, last, BOTH, last, PAGE, 0, BOTH);
	dmacore_pagetable_destroy(table);
}

static void pagetable_create__zero_levels_are_four(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = make_table(&fixture->pool, 0);

	assert_ok(dmacore_pagetable_map(table, width_end(fixture) - PAGE, 0, PAGE, BOTH));
	assert_fails(dmacore_pagetable_map(table, width_end(fixture), 0, PAGE, BOTH), ERANGE);
	dmacore_pagetable_destroy(table);
}

static void pagetable_create__makes_an_empty_root(void **state)
{
	struct fixture *fixture = *state;
	const struct leaves *leaves = walk(fixture);

	assert_int_equal(leaves->count, 0);
	assert_int_equal(leaves->tables, 1);
	assert_int_equal(statistics_of(fixture->table).retired_count, 0);
}

static void pagetable_create__rejects_bad_options(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	const uint32_t formats[] = { 0, 8, UINT32_MAX };
	const uint32_t levels[] = { 1, 2, 6, 64, UINT32_MAX };

	(void)state;
	assert_fails(dmacore_pagetable_create(&options, NULL), EINVAL);
	assert_fails(dmacore_pagetable_create(NULL, NULL), EINVAL);
	for (unsigned i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		options.format = formats[i];
		assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	}
	options.format = DMACORE_PAGETABLE_VTD_SECOND_STAGE;
	for (unsigned i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
		options.levels = levels[i];
		assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	}
	options.levels = 0;
	options.input_bits = 40;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	options.input_bits = 0;
	options.output_bits = 53;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	/* Then the heap has no page for it. */
	options.output_bits = 47;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	options.output_bits = 0;
	options.granule = 8192;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	options.granule = 4096;
	options.features = UINT32_C(1) << 31;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EOPNOTSUPP, table);
}

static void pagetable_create__checks_the_size_of_its_options(void **state)
{
	struct dmacore_pagetable_options good = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	(void)state;
	check_struct_size(struct dmacore_pagetable_options, good,
			  dmacore_pagetable_create(options, &table), table,
			  dmacore_pagetable_destroy);
}

static void pagetable_create__checks_the_size_of_the_allocator(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_table_allocator good = fixture->pool.allocator;
	struct dmacore_pagetable_options table_options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	check_struct_size(struct dmacore_table_allocator, good,
			  (table_options.allocator = options,
			   dmacore_pagetable_create(&table_options, &table)),
			  table, dmacore_pagetable_destroy);
}

static void pagetable_create__rejects_an_allocator_without_a_function(void **state)
{
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	(void)state;
	options.allocator = &allocator;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	allocator.allocate = table_pool_allocate;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
	allocator.allocate = NULL;
	allocator.free = table_pool_free;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), EINVAL, table);
}

static void pagetable_create__gives_pages_back_that_it_cannot_use(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	struct table_pool pool;
	const uint64_t skews[][2] = {
		{ 8, 0 },
		{ 0, 8 },
		{ 0, UINT64_C(1) << 52 },
		{ 0, UINT64_C(1) << 46 },
	};

	(void)state;
	table_pool_start(&pool);
	options.allocator = &pool.allocator;
	/*
	 * An address in the process, a physical one, one that no table word can hold, and one that the
	 * hardware does not have.
	 */
	for (unsigned i = 0; i < 4; i++) {
		options.output_bits = i == 3 ? 46 : 0;
		pool.host_skew = skews[i][0];
		pool.phys_skew = skews[i][1];
		assert_creates_nothing(dmacore_pagetable_create(&options, &table), ENOMEM, table);
		assert_int_equal(pool.live, 0);
		pool.host_skew = pool.phys_skew = 0;
		/* The same while mapping: then the root is there already. */
		assert_ok(dmacore_pagetable_create(&options, &table));
		pool.host_skew = skews[i][0];
		pool.phys_skew = skews[i][1];
		assert_fails(dmacore_pagetable_map(table, 0, 0, PAGE, BOTH), ENOMEM);
		assert_int_equal(pool.live, 1);
		pool.host_skew = pool.phys_skew = 0;
		assert_int_equal(statistics_of(table).table_count, 1);
		assert_int_equal(statistics_of(table).mapped_bytes, 0);
		dmacore_pagetable_destroy(table);
	}
	table_pool_stop(&pool);
}

static void pagetable_create__reports_an_empty_allocator(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;
	struct table_pool pool;

	(void)state;
	table_pool_start(&pool);
	options.allocator = &pool.allocator;
	pool.left = 0;
	assert_creates_nothing(dmacore_pagetable_create(&options, &table), ENOMEM, table);
	table_pool_stop(&pool);
}

static void pagetable_create__copies_the_allocator(void **state)
{
	struct fixture *fixture = *state;

	memset(&fixture->pool.allocator, 0xff, sizeof(fixture->pool.allocator));
	assert_ok(dmacore_pagetable_map(fixture->table, 0, 0, PAGE, BOTH));
	assert_int_equal(walk(fixture)->count, 1);
}

static void pagetable_destroy__gives_every_page_back(void **state)
{
	struct fixture *fixture = *state;
	unsigned live = fixture->pool.live;
	struct dmacore_pagetable *table = make_table(&fixture->pool, fixture->levels);

	for (uint64_t i = 0; i < 8; i++)
		assert_ok(dmacore_pagetable_map(table, i * GIB, 0, 3 * PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 8 * GIB, GIB, GIB, READ));
	assert_true(fixture->pool.live > live + 8);
	dmacore_pagetable_destroy(table);
	assert_int_equal(fixture->pool.live, live);
	dmacore_pagetable_destroy(NULL);
}

static void pagetable_root__is_the_allocators_address_and_stays(void **state)
{
	struct fixture *fixture = *state;
	uint64_t root = root_of(fixture);

	/* The pool was empty, and its first page was asked for first. */
	assert_int_equal(root, TABLE_POOL_PHYS);
	assert_ok(dmacore_pagetable_map(fixture->table, 0, 0, 4 * MIB, BOTH));
	assert_int_equal(root_of(fixture), root);
	assert_unmaps(fixture->table, 0, 4 * MIB, 0, 4 * MIB);
	assert_int_equal(root_of(fixture), root);
}

static void pagetable_root__rejects_null(void **state)
{
	struct fixture *fixture = *state;
	dmacore_phys_t root;

	assert_fails_untouched(dmacore_pagetable_root(NULL, &root), EINVAL, root);
	assert_fails(dmacore_pagetable_root(fixture->table, NULL), EINVAL);
}

/* Mapping. */

/* Each word on the way to one page, by index arithmetic alone. */
static void pagetable_map__writes_the_words_of_the_specification(void **state)
{
	struct fixture *fixture = *state;
	const uint64_t iova = width_end(fixture) - GIB - 3 * MIB - 5 * PAGE;
	const uint64_t phys = UINT64_C(0x000fedcba9876000);
	const uint32_t accesses[] = { READ, WRITE, BOTH };

	for (unsigned i = 0; i < 3; i++) {
		uint64_t table = root_of(fixture);

		assert_ok(dmacore_pagetable_map(fixture->table, iova, phys, PAGE, accesses[i]));
		for (unsigned level = fixture->levels - 1; level > 0; level--) {
			unsigned index = (iova >> (12 + 9 * level)) & 511;
			uint64_t word = table_words(&fixture->pool, table)[index];

			assert_int_equal(word & 0xfff, 3);
			assert_int_equal(word >> 52, 0);
			table = word & VTD_ADDRESS;
		}
		assert_int_equal(table_words(&fixture->pool, table)[(iova >> 12) & 511],
				 phys | accesses[i]);
		assert_int_equal(walk(fixture)->count, 1);
		assert_int_equal(walk(fixture)->tables, fixture->levels);
		assert_unmaps(fixture->table, iova, PAGE, 0, PAGE);
		assert_int_equal(table_words(&fixture->pool, table)[(iova >> 12) & 511], 0);
	}
}

static void pagetable_map__writes_large_leaves_with_bit_7(void **state)
{
	struct fixture *fixture = *state;
	const struct leaves *leaves;

	assert_ok(dmacore_pagetable_map(fixture->table, 2 * MIB, 6 * MIB, 2 * MIB, READ));
	assert_ok(dmacore_pagetable_map(fixture->table, 3 * GIB, 7 * GIB, GIB, WRITE));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 2);
	assert_leaf(leaves, 0, 2 * MIB, 6 * MIB, 2 * MIB, READ);
	assert_leaf(leaves, 1, 3 * GIB, 7 * GIB, GIB, WRITE);
	/* The root and what leads to a table of 2 MiB leaves; the 1 GiB leaf shares it. */
	assert_int_equal(leaves->tables, fixture->levels - 1);
}

static void pagetable_map__takes_both_ends_of_the_width(void **state)
{
	struct fixture *fixture = *state;
	uint64_t end = width_end(fixture);
	const struct leaves *leaves;

	assert_ok(dmacore_pagetable_map(fixture->table, 0, (UINT64_C(1) << 52) - PAGE, PAGE, READ));
	assert_ok(dmacore_pagetable_map(fixture->table, end - PAGE, 0, PAGE, READ));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 2);
	assert_leaf(leaves, 0, 0, (UINT64_C(1) << 52) - PAGE, PAGE, READ);
	assert_leaf(leaves, 1, end - PAGE, 0, PAGE, READ);
	assert_translates(fixture->table, end - 1, READ, end - PAGE, PAGE, 0, READ);
}

static void pagetable_map__rejects_bad_arguments(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_changes_nothing(fixture, {
		assert_fails(dmacore_pagetable_map(NULL, 0, 0, PAGE, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 0, 0, 0, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 1, 0, PAGE, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 0, 2048, PAGE, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 0, 0, 4095, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 0, 0, PAGE + 1, READ), EINVAL);
		assert_fails(dmacore_pagetable_map(table, 0, 0, PAGE, 0), EINVAL);
		for (unsigned bit = 2; bit < 32; bit++)
			assert_fails(
				dmacore_pagetable_map(table, 0, 0, PAGE, READ | UINT32_C(1) << bit),
				bit < 6 ? EOPNOTSUPP : EINVAL);
	});
}

static void pagetable_map__refuses_what_does_not_fit_the_format(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint64_t end = width_end(fixture), phys_end = UINT64_C(1) << 52;
	uint64_t top = UINT64_MAX - PAGE + 1;

	assert_changes_nothing(fixture, {
		assert_fails(dmacore_pagetable_map(table, end, 0, PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, end - PAGE, 0, 2 * PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, 0, end + PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, top, 0, PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, top, 0, 2 * PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, 0, top, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, phys_end, PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, phys_end - PAGE, 2 * PAGE, READ),
			     ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, top, PAGE, READ), ERANGE);
		assert_fails(dmacore_pagetable_map(table, 0, top, 2 * PAGE, READ), ERANGE);
	});
}

static void pagetable_map__uses_the_largest_leaves_that_fit(void **state)
{
	struct fixture *fixture = *state;
	const struct leaves *leaves;

	/* 4 KiB up to the first 2 MiB, 2 MiB up to the first GiB, and down again. */
	assert_ok(dmacore_pagetable_map(fixture->table, GIB - 2 * MIB - 2 * PAGE,
					5 * GIB - 2 * MIB - 2 * PAGE, GIB + 4 * MIB + 3 * PAGE,
					BOTH));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 6);
	assert_leaf(leaves, 0, GIB - 2 * MIB - 2 * PAGE, 5 * GIB - 2 * MIB - 2 * PAGE, PAGE, BOTH);
	assert_leaf(leaves, 1, GIB - 2 * MIB - PAGE, 5 * GIB - 2 * MIB - PAGE, PAGE, BOTH);
	assert_leaf(leaves, 2, GIB - 2 * MIB, 5 * GIB - 2 * MIB, 2 * MIB, BOTH);
	assert_leaf(leaves, 3, GIB, 5 * GIB, GIB, BOTH);
	assert_leaf(leaves, 4, 2 * GIB, 6 * GIB, 2 * MIB, BOTH);
	assert_leaf(leaves, 5, 2 * GIB + 2 * MIB, 6 * GIB + 2 * MIB, PAGE, BOTH);
}

static void pagetable_map__needs_both_addresses_aligned_for_a_large_leaf(void **state)
{
	struct fixture *fixture = *state;
	const struct leaves *leaves;

	/* One page off: 4 KiB leaves alone. */
	assert_ok(dmacore_pagetable_map(fixture->table, 2 * MIB, 2 * MIB + PAGE, 2 * MIB, READ));
	assert_int_equal(walk(fixture)->count, 512);
	assert_unmaps(fixture->table, 2 * MIB, 2 * MIB, 0, 2 * MIB);

	/* 2 MiB off: no leaf of 1 GiB. */
	assert_ok(dmacore_pagetable_map(fixture->table, GIB, 2 * MIB, GIB, READ));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 512);
	for (unsigned i = 0; i < 512; i++)
		assert_leaf(leaves, i, GIB + i * 2 * MIB, 2 * MIB + i * 2 * MIB, 2 * MIB, READ);
}

/* A range that ends one page before a 2 MiB boundary of the input and none of the output. */
static void pagetable_map__boundary_case_has_exact_leaves(void **state)
{
	struct fixture *fixture = *state;
	const struct leaves *leaves;

	assert_ok(dmacore_pagetable_map(fixture->table, 0xfef80000, UINT64_C(0x208b95d000), 0x20000,
					BOTH));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 32);
	assert_int_equal(leaves->tables, fixture->levels);
	for (unsigned i = 0; i < 32; i++)
		assert_leaf(leaves, i, 0xfef80000 + i * PAGE, UINT64_C(0x208b95d000) + i * PAGE,
			    PAGE, BOTH);
	assert_translates_nothing(fixture->table, 0xfef7ffff, 0, ENOENT);
	assert_translates_nothing(fixture->table, 0xfefa0000, 0, ENOENT);
	assert_unmaps(fixture->table, 0xfef80000, 0x20000, 0, 0x20000);
	assert_int_equal(walk(fixture)->count, 0);
}

static void pagetable_map__mixed_case_has_exactly_twenty_leaves(void **state)
{
	struct fixture *fixture = *state;
	const uint64_t first = UINT64_C(0x3fe400000), end = UINT64_C(0x4c0600000);
	const struct leaves *leaves;
	uint64_t next = first;

	assert_ok(dmacore_pagetable_map(fixture->table, first, first, end - first, BOTH));
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 20);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t size = i >= 14 && i < 17 ? GIB : 2 * MIB;

		assert_leaf(leaves, i, next, next, size, BOTH);
		next += size;
	}
	assert_int_equal(next, end);
	/* Two tables of 2 MiB leaves, and one of each level above. */
	assert_int_equal(leaves->tables, 2 + fixture->levels - 2);
	assert_unmaps(fixture->table, first, end - first, 0, end - first);
	assert_int_equal(walk(fixture)->count, 0);
}

static void pagetable_map__refuses_what_is_mapped_and_changes_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_map(table, 4 * MIB, 0, 2 * MIB, READ));
	assert_ok(dmacore_pagetable_map(table, 8 * MIB + 7 * PAGE, 0, PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 2 * GIB, 0, GIB, READ));
	assert_changes_nothing(fixture, {
		/* The same again, and other sizes over and under a leaf. */
		assert_fails(dmacore_pagetable_map(table, 4 * MIB, 0, 2 * MIB, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 4 * MIB, 0, PAGE, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 6 * MIB - PAGE, 0, PAGE, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 8 * MIB, 0, 2 * MIB, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 8 * MIB + 7 * PAGE, 0, PAGE, READ),
			     EEXIST);
		assert_fails(dmacore_pagetable_map(table, 0, 0, GIB, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 2 * GIB, 0, PAGE, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 3 * GIB - 2 * MIB, 0, 2 * MIB, READ),
			     EEXIST);
		/* Free at both ends, taken in the middle or at the very end. */
		assert_fails(
			dmacore_pagetable_map(table, 4 * MIB - PAGE, 0, 2 * MIB + 2 * PAGE, READ),
			EEXIST);
		assert_fails(dmacore_pagetable_map(table, 8 * MIB, PAGE, 8 * PAGE, READ), EEXIST);
		assert_fails(dmacore_pagetable_map(table, 10 * MIB, 0, 2 * GIB, READ), EEXIST);
	});
	/* What adjoins is free. */
	assert_ok(dmacore_pagetable_map(table, 4 * MIB - PAGE, 0, PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 6 * MIB, 0, PAGE, READ));
}

static void pagetable_map__undoes_what_it_did_when_tables_run_out(void **state)
{
	struct fixture *fixture = *state;
	unsigned needed = fixture->levels - 1 + 2;
	uint64_t first = 4 * GIB - PAGE;

	/* Two pages on both sides of a GiB: two tables of the lowest two levels each. */
	for (unsigned left = 0; left < needed; left++) {
		struct dmacore_pagetable *table = make_table(&fixture->pool, fixture->levels);
		struct dmacore_pagetable_statistics statistics;

		fixture->pool.left = (int)left;
		assert_fails(dmacore_pagetable_map(table, first, 0, 2 * PAGE, READ), ENOMEM);
		fixture->pool.left = -1;
		statistics = statistics_of(table);
		assert_int_equal(statistics.mapped_bytes, 0);
		assert_translates_nothing(table, first, 0, ENOENT);
		assert_translates_nothing(table, first + PAGE, 0, ENOENT);
		/* The root of this table, and that of the fixture's. */
		assert_int_equal(statistics.table_count, 1);
		assert_int_equal(fixture->pool.live, 2);
		assert_ok(dmacore_pagetable_map(table, first, 0, 2 * PAGE, READ));
		dmacore_pagetable_destroy(table);
		assert_int_equal(fixture->pool.live, 1);
	}
	fixture->pool.left = (int)needed;
	assert_ok(dmacore_pagetable_map(fixture->table, first, 0, 2 * PAGE, READ));
	assert_int_equal(fixture->pool.left, 0);
	fixture->pool.left = -1;
}

/* Unmapping. */

static void pagetable_unmap__stops_at_the_first_hole(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	const struct leaves *leaves;

	assert_ok(dmacore_pagetable_map(table, 0, 0, 2 * PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 3 * PAGE, 0, 2 * PAGE, READ));
	assert_unmaps(table, 0, 5 * PAGE, 0, 2 * PAGE);
	leaves = walk(fixture);
	assert_int_equal(leaves->count, 2);
	assert_leaf(leaves, 0, 3 * PAGE, 0, PAGE, READ);
	/* It begins with a hole: nothing is done, and that is no error. */
	assert_unmaps(table, 0, 5 * PAGE, 0, 0);
	assert_int_equal(walk(fixture)->count, 2);
	/* A hole of many tables. */
	assert_ok(dmacore_pagetable_map(table, 7 * GIB, 0, PAGE, READ));
	assert_unmaps(table, 3 * PAGE, 7 * GIB, 0, 2 * PAGE);
	assert_translates(table, 7 * GIB, READ, 7 * GIB, PAGE, 0, READ);
}

static void pagetable_unmap__crosses_holes_on_request(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint32_t cross = DMACORE_UNMAP_CROSS_HOLES;

	assert_unmaps(table, 0, width_end(fixture), cross, 0);
	assert_ok(dmacore_pagetable_map(table, PAGE, 0, 2 * PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 4 * MIB, 0, 2 * MIB, READ));
	assert_ok(dmacore_pagetable_map(table, 3 * GIB, 0, GIB, READ));
	assert_ok(dmacore_pagetable_map(table, width_end(fixture) - PAGE, 0, PAGE, READ));
	assert_unmaps(table, 2 * PAGE, width_end(fixture) - 2 * PAGE, cross,
		      PAGE + 2 * MIB + GIB + PAGE);
	assert_int_equal(walk(fixture)->count, 1);
	assert_unmaps(table, 0, width_end(fixture), cross, PAGE);
	assert_int_equal(walk(fixture)->count, 0);
}

static void pagetable_unmap__takes_leaves_of_every_size_at_once(void **state)
{
	struct fixture *fixture = *state;
	uint64_t first = GIB - 2 * MIB - PAGE, size = GIB + 4 * MIB + 2 * PAGE;

	assert_ok(dmacore_pagetable_map(fixture->table, first, first, size, BOTH));
	assert_int_equal(walk(fixture)->count, 5);
	assert_unmaps(fixture->table, first, size, 0, size);
	assert_int_equal(walk(fixture)->count, 0);
	assert_translates_nothing(fixture->table, GIB, 0, ENOENT);
}

static void pagetable_unmap__needs_no_place_for_the_size(void **state)
{
	struct fixture *fixture = *state;

	assert_ok(dmacore_pagetable_map(fixture->table, 0, 0, PAGE, READ));
	assert_ok(dmacore_pagetable_unmap(fixture->table, 0, PAGE, 0, NULL));
	assert_int_equal(walk(fixture)->count, 0);
}

static void pagetable_unmap__refuses_to_cut_a_large_leaf(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint32_t cross = DMACORE_UNMAP_CROSS_HOLES;

	assert_ok(dmacore_pagetable_map(table, 2 * MIB - PAGE, 2 * MIB - PAGE, 2 * MIB + 2 * PAGE,
					READ));
	assert_ok(dmacore_pagetable_map(table, GIB, GIB, GIB, READ));
	assert_changes_nothing(fixture, {
		/* Inside, at the head, at the tail, and with pages beside it. */
		assert_unmaps_nothing(table, 2 * MIB + PAGE, PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 2 * MIB, PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 4 * MIB - PAGE, PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 2 * MIB - PAGE, 2 * PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 4 * MIB - PAGE, 2 * PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, GIB, 2 * MIB, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 2 * GIB - PAGE, PAGE, 0, EOPNOTSUPP);
		assert_unmaps_nothing(table, 0, GIB + PAGE, cross, EOPNOTSUPP);
		assert_unmaps_nothing(table, 2 * MIB + PAGE, GIB, cross, EOPNOTSUPP);
	});
	assert_unmaps(table, 2 * MIB - PAGE, 2 * MIB + 2 * PAGE, 0, 2 * MIB + 2 * PAGE);
}

static void pagetable_unmap__rejects_bad_arguments(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint64_t end = width_end(fixture), top = UINT64_MAX - PAGE + 1;

	assert_ok(dmacore_pagetable_map(table, 0, 0, PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, end - PAGE, 0, PAGE, READ));
	assert_changes_nothing(fixture, {
		assert_unmaps_nothing(NULL, 0, PAGE, 0, EINVAL);
		assert_unmaps_nothing(table, 0, 0, 0, EINVAL);
		assert_unmaps_nothing(table, 1, PAGE, 0, EINVAL);
		assert_unmaps_nothing(table, 0, PAGE + 1, 0, EINVAL);
		for (unsigned bit = 2; bit < 32; bit++)
			assert_unmaps_nothing(table, 0, PAGE, UINT32_C(1) << bit, EINVAL);
		assert_unmaps_nothing(table, end, PAGE, 0, ERANGE);
		assert_unmaps_nothing(table, end - PAGE, 2 * PAGE, 0, ERANGE);
		assert_unmaps_nothing(table, top, PAGE, 0, ERANGE);
		assert_unmaps_nothing(table, top, 2 * PAGE, 0, ERANGE);
		assert_unmaps_nothing(table, 0, top, DMACORE_UNMAP_CROSS_HOLES, ERANGE);
	});
}

/* Translation. */

static void pagetable_translate__gives_the_leaf(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_map(table, 3 * PAGE, 7 * PAGE, PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 2 * MIB, 6 * MIB, 2 * MIB, WRITE));
	assert_ok(dmacore_pagetable_map(table, GIB, 5 * GIB, GIB, BOTH));
	/* The target belongs to the leaf's first address, whichever address was asked for. */
	assert_translates(table, 3 * PAGE, READ, 3 * PAGE, PAGE, 7 * PAGE, READ);
	assert_translates(table, 4 * PAGE - 1, READ, 3 * PAGE, PAGE, 7 * PAGE, READ);
	assert_translates(table, 3 * MIB + 5, WRITE, 2 * MIB, 2 * MIB, 6 * MIB, WRITE);
	assert_translates(table, 2 * GIB - 1, BOTH, GIB, GIB, 5 * GIB, BOTH);
	/* Nothing wanted finds out what is permitted. */
	assert_translates(table, 3 * PAGE, 0, 3 * PAGE, PAGE, 7 * PAGE, READ);
	assert_translates(table, 2 * MIB, 0, 2 * MIB, 2 * MIB, 6 * MIB, WRITE);
}

static void pagetable_translate__tells_a_miss_from_a_denial(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_map(table, PAGE, 0, PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 2 * PAGE, 0, PAGE, WRITE));
	assert_translates_nothing(table, PAGE, WRITE, EACCES);
	assert_translates_nothing(table, PAGE, BOTH, EACCES);
	assert_translates_nothing(table, 2 * PAGE, READ, EACCES);
	assert_translates_nothing(table, 0, READ, ENOENT);
	assert_translates_nothing(table, PAGE - 1, 0, ENOENT);
	assert_translates_nothing(table, 3 * PAGE, BOTH, ENOENT);
	assert_translates_nothing(table, GIB, 0, ENOENT);
	/* Outside the width, where the low bits alone would find the page. */
	assert_translates_nothing(table, width_end(fixture) + PAGE, READ, ENOENT);
	assert_translates_nothing(table, (UINT64_C(1) << 63) + PAGE, READ, ENOENT);
	assert_translates_nothing(table, UINT64_MAX, 0, ENOENT);
}

static void pagetable_translate__rejects_bad_arguments(void **state)
{
	struct fixture *fixture = *state;

	assert_ok(dmacore_pagetable_map(fixture->table, 0, 0, PAGE, BOTH));
	assert_translates_nothing(NULL, 0, READ, EINVAL);
	assert_fails(dmacore_pagetable_translate(fixture->table, 0, READ, NULL), EINVAL);
	for (unsigned bit = 2; bit < 32; bit++)
		if (UINT32_C(1) << bit != DMACORE_ACCESS_PRIVILEGED)
			assert_translates_nothing(fixture->table, 0, UINT32_C(1) << bit,
						  bit < 6 ? EACCES : EINVAL);
	for (uint32_t below = 1; below <= 65; below++)
		assert_translates_nothing(fixture->table, 0, -below, EINVAL);
}

static void pagetable_translate__asks_for_privilege_where_it_is_needed(void **state)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	const uint32_t privileged = DMACORE_ACCESS_PRIVILEGED;
	struct dmacore_pagetable *table;

	(void)state;
	options.format = DMACORE_PAGETABLE_X86_64;
	assert_ok(dmacore_pagetable_create(&options, &table));
	assert_ok(dmacore_pagetable_map(table, 0, 0, PAGE, BOTH | privileged));
	assert_ok(dmacore_pagetable_map(table, PAGE, 2 * PAGE, PAGE, READ));
	assert_translates_nothing(table, 0, READ, EACCES);
	assert_translates(table, 0, READ | privileged, 0, PAGE, 0, BOTH | privileged);
	assert_translates(table, 0, 0, 0, PAGE, 0, BOTH | privileged);
	/* Privilege does no harm. */
	assert_translates(table, PAGE, READ | privileged, PAGE, PAGE, 2 * PAGE, READ);
	dmacore_pagetable_destroy(table);
}

/* Tables that are made ahead, and tables that nothing needs any more. */

static void pagetable_reserve__lets_a_later_map_need_no_memory(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_reserve(table, 2 * MIB - PAGE, 2 * MIB + 2 * PAGE));
	assert_int_equal(statistics_of(table).mapped_bytes, 0);
	fixture->pool.left = 0;
	assert_fails(dmacore_pagetable_map(table, 8 * GIB, 0, PAGE, READ), ENOMEM);
	assert_ok(dmacore_pagetable_map(table, 2 * MIB - PAGE, PAGE, 2 * PAGE, READ));
	assert_ok(dmacore_pagetable_map(table, 4 * MIB, PAGE, PAGE, READ));
	assert_unmaps(table, 4 * MIB, PAGE, 0, PAGE);
	/* Also by a leaf that needs none of the tables. */
	assert_unmaps(table, 2 * MIB - PAGE, 2 * PAGE, 0, 2 * PAGE);
	assert_ok(dmacore_pagetable_map(table, 2 * MIB, 2 * MIB, 2 * MIB, READ));
	fixture->pool.left = -1;
}

static void pagetable_reserve__changes_nothing_when_it_fails(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint64_t end = UINT64_C(1) << (12 + 9 * fixture->levels);

	fixture->pool.left = 1;
	assert_fails(dmacore_pagetable_reserve(table, 0, 4 * MIB), ENOMEM);
	assert_int_equal(fixture->pool.live, 1);
	assert_changes_nothing(fixture, {
		assert_fails(dmacore_pagetable_reserve(NULL, 0, PAGE), EINVAL);
		assert_fails(dmacore_pagetable_reserve(table, 0, 0), EINVAL);
		assert_fails(dmacore_pagetable_reserve(table, 1, PAGE), EINVAL);
		assert_fails(dmacore_pagetable_reserve(table, end - PAGE, 2 * PAGE), ERANGE);
	});
	fixture->pool.left = -1;
}

static void pagetable_unmap__retires_the_tables_that_it_covers(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	unsigned live;

	assert_ok(dmacore_pagetable_map(table, 2 * MIB - PAGE, PAGE, 4 * MIB + 2 * PAGE, READ));
	live = fixture->pool.live;
	/* All of two tables, and a page of those on both sides. */
	assert_unmaps(table, 2 * MIB - PAGE, 4 * MIB + 2 * PAGE, 0, 4 * MIB + 2 * PAGE);
	assert_int_equal(statistics_of(table).retired_count, 2);
	assert_int_equal(fixture->pool.live, live);
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_int_equal(fixture->pool.live, live - 2);
}

static void pagetable_trim__retires_empty_tables_alone(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	unsigned live;

	for (unsigned i = 0; i < 4; i++)
		assert_ok(dmacore_pagetable_map(table, 2 * MIB * i, 0, PAGE, READ));
	live = fixture->pool.live;
	for (unsigned i = 1; i < 4; i++)
		assert_unmaps(table, 2 * MIB * i, PAGE, 0, PAGE);
	/* One is in use, and one reaches out of the range. */
	assert_ok(dmacore_pagetable_trim(table, 0, 8 * MIB - PAGE - 1));
	assert_int_equal(statistics_of(table).retired_count, 2);
	assert_ok(dmacore_pagetable_trim(table, 0, 512 * GIB - 1));
	assert_int_equal(statistics_of(table).retired_count, 3);
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_int_equal(fixture->pool.live, live - 3);
	assert_int_equal(walk(fixture)->count, 1);
	assert_unmaps(table, 0, PAGE, 0, PAGE);
	assert_ok(dmacore_pagetable_trim(table, 0, 512 * GIB - 1));
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_in_range(fixture->pool.live, 1, 3);
}

/* Single pages here and there, each unmapped again: what bounds the memory of tables is trim. */
static void pagetable_trim__bounds_the_memory_of_tables(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	for (unsigned i = 0; i < 2000; i++) {
		uint64_t iova = i * UINT64_C(7) % 256 * GIB;

		assert_ok(dmacore_pagetable_map(table, iova, iova, PAGE, READ));
		assert_unmaps(table, iova, PAGE, 0, PAGE);
		assert_ok(dmacore_pagetable_trim(table, 0, 512 * GIB - 1));
		assert_ok(dmacore_pagetable_reclaim(table));
		assert_in_range(fixture->pool.live, 1, 4);
	}
}

static void pagetable_trim__rejects_bad_arguments(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	uint64_t end = UINT64_C(1) << (12 + 9 * fixture->levels);

	assert_fails(dmacore_pagetable_trim(NULL, 0, PAGE - 1), EINVAL);
	assert_fails(dmacore_pagetable_trim(table, PAGE, PAGE - 1), EINVAL);
	assert_fails(dmacore_pagetable_trim(table, 1, PAGE - 1), EINVAL);
	assert_fails(dmacore_pagetable_trim(table, 0, PAGE), EINVAL);
	assert_fails(dmacore_pagetable_trim(table, end - PAGE, end + PAGE - 1), ERANGE);
}

/* Leaves that are cut in two. */

static void pagetable_unmap__splits_a_leaf_when_told_to(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_map(table, GIB, 4 * GIB, GIB, BOTH));
	assert_unmaps(table, GIB + 2 * MIB + PAGE, PAGE, DMACORE_UNMAP_SPLIT, PAGE);
	/* 511 leaves of 2 MiB and 511 pages. */
	assert_int_equal(walk(fixture)->count, 511 + 511);
	assert_translates(table, GIB, BOTH, GIB, 2 * MIB, 4 * GIB, BOTH);
	assert_translates(table, GIB + 2 * MIB, BOTH, GIB + 2 * MIB, PAGE, 4 * GIB + 2 * MIB, BOTH);
	assert_translates_nothing(table, GIB + 2 * MIB + PAGE, 0, ENOENT);
	assert_translates(table, GIB + 2 * MIB + 2 * PAGE, BOTH, GIB + 2 * MIB + 2 * PAGE, PAGE,
			  4 * GIB + 2 * MIB + 2 * PAGE, BOTH);
	assert_translates(table, 2 * GIB - 1, BOTH, 2 * GIB - 2 * MIB, 2 * MIB, 5 * GIB - 2 * MIB,
			  BOTH);
}

static void pagetable_unmap__splits_nothing_without_memory(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;

	assert_ok(dmacore_pagetable_map(table, 0, 0, 2 * GIB, READ));
	/* Both ends cut a leaf, and there is memory for one of them. */
	for (int left = 0; left < 4; left++) {
		unsigned live = fixture->pool.live;

		fixture->pool.left = left;
		assert_unmaps_nothing(table, GIB - PAGE, 2 * PAGE, DMACORE_UNMAP_SPLIT, ENOMEM);
		assert_int_equal(fixture->pool.live, live);
		assert_int_equal(walk(fixture)->count, 2);
	}
	fixture->pool.left = -1;
	assert_unmaps(table, GIB - PAGE, 2 * PAGE, DMACORE_UNMAP_SPLIT, 2 * PAGE);
}

/* What hardware notes. */

static struct dmacore_pagetable *make_dirty_table(struct fixture *fixture)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	options.levels = fixture->levels;
	options.features = DMACORE_PAGETABLE_DIRTY;
	options.allocator = &fixture->pool.allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	return table;
}

/* Sets bit 9 of the leaf, as VT-d does when a device writes through it. */
static void write_through(struct fixture *fixture, struct dmacore_pagetable *table, uint64_t iova)
{
	uint64_t phys, *word;

	assert_ok(dmacore_pagetable_root(table, &phys));
	for (unsigned level = fixture->levels - 1;; level--) {
		word = &table_words(&fixture->pool, phys)[iova >> (12 + 9 * level) & 511];
		if (level == 0 || *word & VTD_PAGE_SIZE)
			break;
		phys = *word & VTD_ADDRESS;
	}
	*word |= UINT64_C(1) << 9;
}

static void pagetable_read_dirty__reads_and_clears_what_was_written_through(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = make_dirty_table(fixture);
	uint64_t bits[9 + 1] = { 0 };

	assert_ok(dmacore_pagetable_map(table, 0, 0, 2 * MIB + 8 * PAGE, BOTH));
	assert_ok(dmacore_pagetable_read_dirty(table, 0, 2 * MIB + 8 * PAGE, 0, bits));
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(bits[i], 0);
	write_through(fixture, table, 2 * MIB + 3 * PAGE);
	/* Read twice, as it was not cleared; the first granule of the range is the first bit. */
	for (unsigned i = 0; i < 2; i++) {
		bits[0] = 0;
		assert_ok(dmacore_pagetable_read_dirty(table, 2 * MIB + PAGE, 7 * PAGE,
						       i ? DMACORE_DIRTY_CLEAR : 0, bits));
		assert_int_equal(bits[0], 1 << 2);
	}
	/* Bits that are set stay. */
	assert_ok(dmacore_pagetable_read_dirty(table, 2 * MIB + PAGE, 7 * PAGE, 0, bits));
	assert_int_equal(bits[0], 1 << 2);
	/* All granules of a large leaf, as far as they lie in the range. */
	bits[0] = 0;
	write_through(fixture, table, 0);
	assert_ok(dmacore_pagetable_read_dirty(table, 100 * PAGE, 2 * MIB - 100 * PAGE,
					       DMACORE_DIRTY_CLEAR, bits));
	for (unsigned i = 0; i < 6; i++)
		assert_true(bits[i] == UINT64_MAX);
	assert_true(bits[6] == (UINT64_C(1) << (412 - 384)) - 1);
	assert_true(bits[7] == 0);
	dmacore_pagetable_destroy(table);
}

static void pagetable_track_dirty__switches_the_noting_off_and_on(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = make_dirty_table(fixture);
	uint64_t bits = 0;

	assert_ok(dmacore_pagetable_map(table, 0, 0, 8 * PAGE, BOTH));
	assert_ok(dmacore_pagetable_track_dirty(table, 2 * PAGE, 3 * PAGE, false));
	assert_ok(dmacore_pagetable_read_dirty(table, 0, 8 * PAGE, 0, &bits));
	assert_int_equal(bits, 7 << 2);
	bits = 0;
	assert_ok(dmacore_pagetable_track_dirty(table, 3 * PAGE, PAGE, true));
	assert_ok(dmacore_pagetable_read_dirty(table, 0, 8 * PAGE, 0, &bits));
	assert_int_equal(bits, 5 << 2);
	dmacore_pagetable_destroy(table);
}

static void pagetable_read_dirty__rejects_bad_arguments(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = make_dirty_table(fixture);
	uint64_t bits = 0, end = UINT64_C(1) << (12 + 9 * fixture->levels);

	assert_fails(dmacore_pagetable_read_dirty(NULL, 0, PAGE, 0, &bits), EINVAL);
	assert_fails(dmacore_pagetable_read_dirty(table, 0, PAGE, 0, NULL), EINVAL);
	assert_fails(dmacore_pagetable_read_dirty(table, 0, 0, 0, &bits), EINVAL);
	assert_fails(dmacore_pagetable_read_dirty(table, 1, PAGE, 0, &bits), EINVAL);
	for (unsigned bit = 1; bit < 32; bit++)
		assert_fails(
			dmacore_pagetable_read_dirty(table, 0, PAGE, UINT32_C(1) << bit, &bits),
			EINVAL);
	assert_fails(dmacore_pagetable_read_dirty(table, end, PAGE, 0, &bits), ERANGE);
	assert_fails(dmacore_pagetable_read_dirty(fixture->table, 0, PAGE, 0, &bits), EOPNOTSUPP);
	assert_fails(dmacore_pagetable_track_dirty(NULL, 0, PAGE, true), EINVAL);
	assert_fails(dmacore_pagetable_track_dirty(table, 0, 0, true), EINVAL);
	assert_fails(dmacore_pagetable_track_dirty(table, PAGE - 1, PAGE, true), EINVAL);
	assert_fails(dmacore_pagetable_track_dirty(table, end - PAGE, 2 * PAGE, true), ERANGE);
	assert_fails(dmacore_pagetable_track_dirty(fixture->table, 0, PAGE, true), EOPNOTSUPP);
	assert_int_equal(bits, 0);
	dmacore_pagetable_destroy(table);
}

/* Tables that larger leaves replace. */

static void pagetable_reclaim__frees_a_table_that_a_2m_leaf_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	unsigned live;

	assert_ok(dmacore_pagetable_map(table, 2 * MIB, PAGE, 2 * MIB, READ));
	for (unsigned i = 0; i < 512; i++)
		assert_unmaps(table, 2 * MIB + i * PAGE, PAGE, 0, PAGE);
	live = fixture->pool.live;
	assert_ok(dmacore_pagetable_map(table, 2 * MIB, 4 * MIB, 2 * MIB, READ));
	assert_translates(table, 2 * MIB, READ, 2 * MIB, 2 * MIB, 4 * MIB, READ);
	/* A walker may still be inside the page, so it stays. */
	assert_int_equal(statistics_of(table).retired_count, 1);
	assert_int_equal(fixture->pool.live, live);
	assert_int_equal(walk(fixture)->count, 1);

	assert_ok(dmacore_pagetable_reclaim(table));
	assert_int_equal(statistics_of(table).retired_count, 0);
	assert_int_equal(fixture->pool.live, live - 1);
	assert_int_equal(walk(fixture)->count, 1);
	assert_translates(table, 2 * MIB, READ, 2 * MIB, 2 * MIB, 4 * MIB, READ);
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_int_equal(fixture->pool.live, live - 1);
}

static void pagetable_reclaim__frees_every_table_that_a_1g_leaf_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable *table = fixture->table;
	unsigned live;

	/* A table of 2 MiB entries with three tables of pages below it. */
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_pagetable_map(table, GIB + i * 64 * MIB, 0, PAGE, READ));
	assert_changes_nothing(
		fixture, assert_fails(dmacore_pagetable_map(table, GIB, 0, GIB, READ), EEXIST));
	for (unsigned i = 0; i < 3; i++)
		assert_unmaps(table, GIB + i * 64 * MIB, PAGE, 0, PAGE);
	live = fixture->pool.live;
	assert_ok(dmacore_pagetable_map(table, GIB, 0, GIB, READ));
	assert_int_equal(walk(fixture)->count, 1);
	assert_int_equal(statistics_of(table).retired_count, 4);
	assert_ok(dmacore_pagetable_reclaim(table));
	assert_int_equal(fixture->pool.live, live - 4);
	assert_int_equal(walk(fixture)->count, 1);
	/* Below a leaf there is nothing to unmap but the whole of it. */
	assert_unmaps(table, GIB, GIB, 0, GIB);
}

static void pagetable_reclaim__is_done_by_destroy_otherwise(void **state)
{
	struct fixture *fixture = *state;
	unsigned live = fixture->pool.live;
	struct dmacore_pagetable *table = make_table(&fixture->pool, fixture->levels);

	assert_ok(dmacore_pagetable_map(table, 2 * MIB, 0, PAGE, READ));
	assert_unmaps(table, 2 * MIB, PAGE, 0, PAGE);
	assert_ok(dmacore_pagetable_map(table, 2 * MIB, 0, 2 * MIB, READ));
	assert_int_equal(statistics_of(table).retired_count, 1);
	dmacore_pagetable_destroy(table);
	assert_int_equal(fixture->pool.live, live);
}

static void pagetable_reclaim__rejects_null(void **state)
{
	(void)state;
	assert_fails(dmacore_pagetable_reclaim(NULL), EINVAL);
}

static void pagetable_statistics__rejects_null(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_fails(dmacore_pagetable_statistics(NULL, &statistics), EINVAL);
	assert_fails(dmacore_pagetable_statistics(fixture->table, NULL), EINVAL);
}

static void pagetable_statistics__checks_the_size_of_the_structure(void **state)
{
	struct fixture *fixture = *state;

	check_statistics_size(struct dmacore_pagetable_statistics,
			      dmacore_pagetable_statistics(fixture->table, options));
}

/*
 * Somebody else writes to the table pages: translations may be lost or invented, but no call may
 * crash, and every page goes back to its owner once.
 */
static void pagetable_map__survives_scribbling_over_its_pages(void **state)
{
	struct fixture *fixture = *state;
	struct dmacore_translation translation;
	uint64_t seed = fixture->levels, unmapped;

	for (unsigned round = 0; round < 300; round++) {
		uint64_t iova = random_next(&seed) % (width_end(fixture) / PAGE) * PAGE;
		uint64_t size = PAGE << random_next(&seed) % 20;
		uint64_t near = random_next(&seed) % 4096 * PAGE;
		uint32_t flags = random_next(&seed) % 2;
		int mapped;

		for (unsigned i = 0; i < TABLE_POOL_PAGES; i++) {
			uint64_t *words = (uint64_t *)(void *)(fixture->pool.bytes + i * PAGE);

			if (!fixture->pool.used[i] || random_next(&seed) % 4)
				continue;
			for (unsigned n = 0; n < 512; n++) {
				switch (random_next(&seed) % 6) {
				case 0:
					words[n] = 0;
					break;
				case 1:
					words[n] = random_next(&seed);
					break;
				case 2:
					/* A table in the pool, this one itself perhaps. */
					words[n] = (TABLE_POOL_PHYS +
						    random_next(&seed) % TABLE_POOL_PAGES * PAGE) |
						   3;
					break;
				case 3:
					words[n] = UINT64_MAX;
					break;
				default:
					break;
				}
			}
		}
		/* Any result will do; what counts is that there is one. */
		mapped = dmacore_pagetable_map(fixture->table, near, near, PAGE, BOTH);
		assert_in_set((uint64_t)-mapped,
			      ((const LargestIntegralType[]){ 0, EEXIST, ENOMEM }), 3);
		mapped = dmacore_pagetable_map(fixture->table, iova, 0, size, BOTH);
		assert_true(mapped <= 0);
		mapped = dmacore_pagetable_translate(fixture->table, near, 0, &translation);
		assert_true(mapped <= 0);
		mapped = dmacore_pagetable_unmap(fixture->table, near, size, flags, &unmapped);
		assert_true(mapped <= 0);
		mapped = dmacore_pagetable_unmap(fixture->table, 0, width_end(fixture), flags,
						 &unmapped);
		assert_true(mapped <= 0);
		if (round % 16 == 0)
			assert_ok(dmacore_pagetable_reclaim(fixture->table));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pagetable_create__takes_defaults_without_options),
		test_of(4, pagetable_create__zero_levels_are_four),
		test_of_each(pagetable_create__makes_an_empty_root),
		cmocka_unit_test(pagetable_create__rejects_bad_options),
		cmocka_unit_test(pagetable_create__checks_the_size_of_its_options),
		test_of(4, pagetable_create__checks_the_size_of_the_allocator),
		cmocka_unit_test(pagetable_create__rejects_an_allocator_without_a_function),
		cmocka_unit_test(pagetable_create__gives_pages_back_that_it_cannot_use),
		cmocka_unit_test(pagetable_create__reports_an_empty_allocator),
		test_of(4, pagetable_create__copies_the_allocator),
		test_of_each(pagetable_destroy__gives_every_page_back),
		test_of_each(pagetable_root__is_the_allocators_address_and_stays),
		test_of(4, pagetable_root__rejects_null),
		test_of_each(pagetable_map__writes_the_words_of_the_specification),
		test_of_each(pagetable_map__writes_large_leaves_with_bit_7),
		test_of_each(pagetable_map__takes_both_ends_of_the_width),
		test_of(4, pagetable_map__rejects_bad_arguments),
		test_of_each(pagetable_map__refuses_what_does_not_fit_the_format),
		test_of_each(pagetable_map__uses_the_largest_leaves_that_fit),
		test_of(4, pagetable_map__needs_both_addresses_aligned_for_a_large_leaf),
		test_of_each(pagetable_map__boundary_case_has_exact_leaves),
		test_of_each(pagetable_map__mixed_case_has_exactly_twenty_leaves),
		test_of_each(pagetable_map__refuses_what_is_mapped_and_changes_nothing),
		test_of_each(pagetable_map__undoes_what_it_did_when_tables_run_out),
		test_of_each(pagetable_map__survives_scribbling_over_its_pages),
		test_of_each(pagetable_unmap__stops_at_the_first_hole),
		test_of_each(pagetable_unmap__crosses_holes_on_request),
		test_of_each(pagetable_unmap__takes_leaves_of_every_size_at_once),
		test_of(4, pagetable_unmap__needs_no_place_for_the_size),
		test_of_each(pagetable_unmap__refuses_to_cut_a_large_leaf),
		test_of_each(pagetable_unmap__rejects_bad_arguments),
		test_of_each(pagetable_translate__gives_the_leaf),
		test_of_each(pagetable_translate__tells_a_miss_from_a_denial),
		test_of(4, pagetable_translate__rejects_bad_arguments),
		test_of_each(pagetable_reclaim__frees_a_table_that_a_2m_leaf_replaced),
		test_of_each(pagetable_reclaim__frees_every_table_that_a_1g_leaf_replaced),
		test_of_each(pagetable_reclaim__is_done_by_destroy_otherwise),
		test_of(4, pagetable_reserve__lets_a_later_map_need_no_memory),
		test_of(4, pagetable_reserve__changes_nothing_when_it_fails),
		test_of(3, pagetable_unmap__retires_the_tables_that_it_covers),
		test_of(3, pagetable_trim__retires_empty_tables_alone),
		test_of(4, pagetable_trim__bounds_the_memory_of_tables),
		test_of(4, pagetable_trim__rejects_bad_arguments),
		test_of(3, pagetable_unmap__splits_a_leaf_when_told_to),
		test_of(4, pagetable_unmap__splits_nothing_without_memory),
		test_of(3, pagetable_read_dirty__reads_and_clears_what_was_written_through),
		test_of(4, pagetable_track_dirty__switches_the_noting_off_and_on),
		test_of(4, pagetable_read_dirty__rejects_bad_arguments),
		cmocka_unit_test(pagetable_reclaim__rejects_null),
		cmocka_unit_test(pagetable_translate__asks_for_privilege_where_it_is_needed),
		test_of(4, pagetable_statistics__rejects_null),
		test_of(4, pagetable_statistics__checks_the_size_of_the_structure),
	};

	return run_group("pagetable", tests);
}
