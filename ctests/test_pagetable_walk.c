/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/check.h"

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

/* Physical memory of the test: pages from here on, as many as fit. */
#define MEMORY_PHYS UINT64_C(0x40000000)
#define MEMORY_PAGES 64

struct memory {
	uint64_t words[MEMORY_PAGES * PAGE / 8];
	unsigned reads;
	/* What reads outside of memory return. */
	int error;
};

static int read_word(dmacore_phys_t phys, uint64_t *out_word, void *opaque)
{
	struct memory *memory = opaque;

	memory->reads++;
	assert_int_equal(phys % 8, 0);
	if (phys < MEMORY_PHYS || phys - MEMORY_PHYS >= sizeof(memory->words))
		return memory->error;
	*out_word = memory->words[(phys - MEMORY_PHYS) / 8];
	return 0;
}

static uint64_t *word_at(struct memory *memory, unsigned page, unsigned index)
{
	return &memory->words[page * 512 + index];
}

static uint64_t page_phys(unsigned page)
{
	return MEMORY_PHYS + page * PAGE;
}

/* Four levels of VT-d's second stage in pages 0 to 3, which lead 0x5000 to 0x9000. */
static void fill_vtd(struct memory *memory)
{
	for (unsigned page = 0; page < 3; page++)
		*word_at(memory, page, 0) = page_phys(page + 1) | 3;
	*word_at(memory, 3, 5) = 0x9003;
}

static struct dmacore_walk_options walk_options(struct memory *memory)
{
	struct dmacore_walk_options options = DMACORE_WALK_OPTIONS_INIT;

	options.root = MEMORY_PHYS;
	options.read = read_word;
	options.opaque = memory;
	return options;
}

static int setup(void **state)
{
	struct memory *memory = calloc(1, sizeof(*memory));

	assert_non_null(memory);
	memory->error = -EIO;
	fill_vtd(memory);
	*state = memory;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

#define assert_walks(options, iova, wanted, first_, last_, target_, access_)             \
	do {                                                                             \
		struct dmacore_translation found_;                                       \
                                                                                         \
		memset(&found_, 0xff, sizeof(found_));                                   \
		assert_ok(dmacore_pagetable_walk(options, iova, wanted, &found_, NULL)); \
		assert_int_equal(found_.first, first_);                                  \
		assert_int_equal(found_.last, last_);                                    \
		assert_int_equal(found_.target, target_);                                \
		assert_int_equal(found_.access, access_);                                \
		assert_int_equal(found_.reserved, 0);                                    \
	} while (0)

/* A walk that ends in a fault, which is the rest of the arguments, and writes no translation. */
#define assert_faults(options, iova, wanted, ...)                                             \
	do {                                                                                  \
		const struct dmacore_walk_fault expected_ = { __VA_ARGS__ };                  \
		struct dmacore_translation found_, before_;                                   \
		struct dmacore_walk_fault fault_;                                             \
                                                                                              \
		memset(&found_, 0x5a, sizeof(found_));                                        \
		memset(&fault_, 0xff, sizeof(fault_));                                        \
		before_ = found_;                                                             \
		assert_fails(dmacore_pagetable_walk(options, iova, wanted, &found_, &fault_), \
			     EFAULT);                                                         \
		assert_memory_equal(&found_, &before_, sizeof(found_));                       \
		assert_memory_equal(&fault_, &expected_, sizeof(fault_));                     \
		assert_fails(dmacore_pagetable_walk(options, iova, wanted, &found_, NULL),    \
			     EFAULT);                                                         \
	} while (0)

/* A call that is refused, reads no table and writes no output. */
#define assert_refused(memory, options, wanted, error)                                          \
	do {                                                                                    \
		struct dmacore_translation found_, before_;                                     \
		struct dmacore_walk_fault fault_, no_fault_;                                    \
                                                                                                \
		memset(&found_, 0x5a, sizeof(found_));                                          \
		memset(&fault_, 0x5a, sizeof(fault_));                                          \
		before_ = found_;                                                               \
		no_fault_ = fault_;                                                             \
		assert_fails(dmacore_pagetable_walk(options, 0x5000, wanted, &found_, &fault_), \
			     error);                                                            \
		assert_memory_equal(&found_, &before_, sizeof(found_));                         \
		assert_memory_equal(&fault_, &no_fault_, sizeof(fault_));                       \
		assert_int_equal((memory)->reads, 0);                                           \
	} while (0)

static void pagetable_walk__gives_the_leaf(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);

	assert_walks(&options, 0x5678, 0, 0x5000, 0x5fff, 0x9000, BOTH);
	assert_int_equal(memory->reads, 4);
	assert_walks(&options, 0x5678, BOTH, 0x5000, 0x5fff, 0x9000, BOTH);
	*word_at(memory, 2, 1) = 0x200081;
	assert_walks(&options, 0x234567, READ, 0x200000, 0x3fffff, 0x200000, READ);
}

static void pagetable_walk__combines_the_permissions_of_all_levels(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);

	*word_at(memory, 1, 0) = page_phys(2) | 1;
	assert_walks(&options, 0x5000, 0, 0x5000, 0x5fff, 0x9000, READ);
	assert_faults(&options, 0x5000, WRITE, .input = 0x5000, .word = page_phys(3) + 40,
		      .reason = DMACORE_WALK_FAULT_DENIED, .stage = 1);
	*word_at(memory, 3, 5) = 0x9002;
	assert_faults(&options, 0x5000, 0, .input = 0x5000, .word = page_phys(3) + 40,
		      .reason = DMACORE_WALK_FAULT_DENIED, .stage = 1);
}

static void pagetable_walk__tells_why_and_where_it_ended(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);

	assert_faults(&options, 0x6000, 0, .input = 0x6000, .word = page_phys(3) + 48,
		      .reason = DMACORE_WALK_FAULT_NOT_PRESENT, .stage = 1);
	assert_faults(&options, UINT64_C(1) << 40, 0, .input = UINT64_C(1) << 40,
		      .word = MEMORY_PHYS + 16, .reason = DMACORE_WALK_FAULT_NOT_PRESENT,
		      .stage = 1, .level = 3);
	*word_at(memory, 0, 1) = 0x83;
	assert_faults(&options, UINT64_C(1) << 39, 0, .input = UINT64_C(1) << 39,
		      .word = MEMORY_PHYS + 8, .reason = DMACORE_WALK_FAULT_RESERVED, .stage = 1,
		      .level = 3);
	assert_faults(&options, UINT64_C(1) << 48, READ, .input = UINT64_C(1) << 48,
		      .reason = DMACORE_WALK_FAULT_INPUT_WIDTH, .stage = 1, .level = 3);
	*word_at(memory, 1, 0) = 0x1003;
	assert_faults(&options, 0x5000, READ, .input = 0x5000, .word = 0x1000,
		      .reason = DMACORE_WALK_FAULT_TABLE_READ, .stage = 1, .level = 1,
		      .error = -EIO);
	/* Anything but 0 is a failure. */
	memory->error = 3;
	assert_faults(&options, 0x5000, READ, .input = 0x5000, .word = 0x1000,
		      .reason = DMACORE_WALK_FAULT_TABLE_READ, .stage = 1, .level = 1, .error = 3);
	options.output_bits = 40;
	options.root = UINT64_C(1) << 40;
	assert_faults(&options, 0x5000, READ, .input = 0x5000, .word = UINT64_C(1) << 40,
		      .reason = DMACORE_WALK_FAULT_OUTPUT_WIDTH, .stage = 1, .level = 3);
}

static void pagetable_walk__tells_an_access_flag_fault(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);

	options.format = DMACORE_PAGETABLE_ARM64_STAGE1;
	*word_at(memory, 3, 5) = 0x9043;
	assert_faults(&options, 0x5000, READ, .input = 0x5000, .word = page_phys(3) + 40,
		      .reason = DMACORE_WALK_FAULT_NOT_ACCESSED, .stage = 1);
	options.features = DMACORE_PAGETABLE_DIRTY;
	assert_walks(&options, 0x5000, READ, 0x5000, 0x5fff, 0x9000, BOTH | DMACORE_ACCESS_EXECUTE);
}

static void pagetable_walk__denies_privileged_leaves_without_privilege(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);
	const uint32_t all = BOTH | DMACORE_ACCESS_EXECUTE | DMACORE_ACCESS_PRIVILEGED;

	/* The words are the same in x86-64, where bit 2 is for users. */
	options.format = DMACORE_PAGETABLE_X86_64;
	assert_walks(&options, 0x5000, 0, 0x5000, 0x5fff, 0x9000, all);
	assert_walks(&options, 0x5000, all, 0x5000, 0x5fff, 0x9000, all);
	assert_faults(&options, 0x5000, READ, .input = 0x5000, .word = page_phys(3) + 40,
		      .reason = DMACORE_WALK_FAULT_DENIED, .stage = 1);
}

static void pagetable_walk__follows_amd_entries_past_levels(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory);
	const uint64_t both = UINT64_C(3) << 61 | 1;

	options.format = DMACORE_PAGETABLE_AMD_V1;
	options.levels = 6;
	*word_at(memory, 0, 0) = page_phys(3) | both | 1 << 9;
	*word_at(memory, 3, 5) = 0x9000 | both;
	assert_walks(&options, 0x5000, BOTH, 0x5000, 0x5fff, 0x9000, BOTH);
	assert_faults(&options, 0x205000, BOTH, .input = 0x205000, .word = MEMORY_PHYS,
		      .reason = DMACORE_WALK_FAULT_NOT_PRESENT, .stage = 1, .level = 5);
}

static void pagetable_walk__translates_the_addresses_of_the_first_stage(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options first = walk_options(memory);
	struct dmacore_walk_options second = walk_options(memory);

	/* The first stage's tables are in pages 4 to 7, at addresses from 0 on. */
	first.format = DMACORE_PAGETABLE_X86_64;
	first.root = 0;
	first.second_stage = &second;
	for (unsigned page = 0; page < 3; page++)
		*word_at(memory, page + 4, 0) = (page + 1) * PAGE | 7;
	*word_at(memory, 7, 8) = 0x5007;
	for (unsigned page = 0; page < 4; page++)
		*word_at(memory, 3, page) = page_phys(page + 4) | 1;
	assert_walks(&first, 0x8765, 0, 0x8000, 0x8fff, 0x9000, BOTH | DMACORE_ACCESS_EXECUTE);
	assert_int_equal(memory->reads, 5 * 5 - 1);
	*word_at(memory, 3, 5) = 0;
	assert_faults(&first, 0x8765, READ, .input = 0x5765, .word = page_phys(3) + 40,
		      .reason = DMACORE_WALK_FAULT_NOT_PRESENT, .stage = 2);
	*word_at(memory, 3, 2) = page_phys(6) | 2;
	assert_faults(&first, 0x8765, READ, .input = 0x2000, .word = page_phys(3) + 16,
		      .reason = DMACORE_WALK_FAULT_DENIED, .stage = 2, .is_table_access = 1);
	*word_at(memory, 3, 2) = page_phys(6) | 1;
	*word_at(memory, 6, 0) = 0;
	assert_faults(&first, 0x8765, READ, .input = 0x8765, .word = 0x2000,
		      .reason = DMACORE_WALK_FAULT_NOT_PRESENT, .stage = 1, .level = 1);
}

static void pagetable_walk__rejects_bad_arguments(void **state)
{
	struct memory *memory = *state;
	struct dmacore_walk_options options = walk_options(memory), bad;
	struct dmacore_walk_options second = walk_options(memory), third = second;

	assert_refused(memory, NULL, READ, EINVAL);
	assert_fails(dmacore_pagetable_walk(&options, 0x5000, READ, NULL, NULL), EINVAL);
	assert_refused(memory, &options, DMACORE_ACCESS_MMIO, EINVAL);
	assert_refused(memory, &options, DMACORE_ACCESS_CACHEABLE, EINVAL);
	assert_refused(memory, &options, 64, EINVAL);
#define assert_bad(member, value, error)                   \
	do {                                               \
		bad = options;                             \
		bad.member = value;                        \
		assert_refused(memory, &bad, READ, error); \
		/* The same in a second stage. */          \
		second = bad;                              \
		bad = options;                             \
		bad.second_stage = &second;                \
		assert_refused(memory, &bad, READ, error); \
	} while (0)
	assert_bad(format, 0, EINVAL);
	assert_bad(format, 8, EINVAL);
	assert_bad(levels, 2, EINVAL);
	assert_bad(levels, UINT32_MAX, EINVAL);
	assert_bad(input_bits, 47, EINVAL);
	assert_bad(output_bits, 53, EINVAL);
	assert_bad(output_bits, UINT32_MAX, EINVAL);
	assert_bad(granule, 16384, EINVAL);
	assert_bad(features, DMACORE_PAGETABLE_RUNS, EOPNOTSUPP);
	assert_bad(features, 1u << 31, EOPNOTSUPP);
	assert_bad(root, MEMORY_PHYS + 8, EINVAL);
	assert_bad(read, NULL, EINVAL);
	assert_bad(struct_size, sizeof(bad) - 1, EINVAL);
	assert_bad(struct_size, SIZE_MAX, E2BIG);
	bad = options;
	second = options;
	second.second_stage = &third;
	bad.second_stage = &second;
	assert_refused(memory, &bad, READ, EINVAL);
}

static void pagetable_walk__checks_the_size_of_its_options(void **state)
{
	struct memory *memory = *state;
	LATER(struct dmacore_walk_options) later = { .known = walk_options(memory) };

	later.known.struct_size = 0;
	assert_refused(memory, &later.known, READ, EINVAL);
	later.known.struct_size = sizeof(later);
	later.unknown = 1;
	assert_refused(memory, &later.known, READ, E2BIG);
	later.unknown = 0;
	assert_walks(&later.known, 0x5000, READ, 0x5000, 0x5fff, 0x9000, BOTH);
}

/* The pages of a table that the library made, as another would read them. */
static int read_host(dmacore_phys_t phys, uint64_t *out_word, void *opaque)
{
	(void)opaque;
	*out_word = __atomic_load_n((uint64_t *)(uintptr_t)phys, __ATOMIC_ACQUIRE);
	return 0;
}

static void pagetable_walk__finds_in_every_format_what_the_library_mapped(void **state)
{
	struct memory *memory = *state;

	for (uint32_t format = DMACORE_PAGETABLE_VTD_SECOND_STAGE;
	     format <= DMACORE_PAGETABLE_RISCV_SECOND_STAGE; format++) {
		struct dmacore_pagetable_options made = DMACORE_PAGETABLE_OPTIONS_INIT;
		struct dmacore_walk_options options = walk_options(memory);
		struct dmacore_pagetable *table;

		made.format = format;
		options.format = format;
		options.read = read_host;
		assert_ok(dmacore_pagetable_create(&made, &table));
		assert_ok(dmacore_pagetable_root(table, &options.root));
		assert_ok(dmacore_pagetable_map(table, 0x5000, 0x9000, PAGE, BOTH));
		assert_ok(dmacore_pagetable_map(table, 2 * MIB, 4 * MIB, 2 * MIB, READ));
		assert_walks(&options, 0x5fff, BOTH, 0x5000, 0x5fff, 0x9000, BOTH);
		assert_walks(&options, 3 * MIB, READ, 2 * MIB, 4 * MIB - 1, 4 * MIB, READ);
		dmacore_pagetable_destroy(table);
	}
}

#define test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(pagetable_walk__gives_the_leaf),
		test(pagetable_walk__combines_the_permissions_of_all_levels),
		test(pagetable_walk__tells_why_and_where_it_ended),
		test(pagetable_walk__tells_an_access_flag_fault),
		test(pagetable_walk__denies_privileged_leaves_without_privilege),
		test(pagetable_walk__follows_amd_entries_past_levels),
		test(pagetable_walk__translates_the_addresses_of_the_first_stage),
		test(pagetable_walk__rejects_bad_arguments),
		test(pagetable_walk__checks_the_size_of_its_options),
		test(pagetable_walk__finds_in_every_format_what_the_library_mapped),
	};

	return run_group("pagetable_walk", tests);
}
