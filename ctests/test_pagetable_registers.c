/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/check.h"

/* Where the test puts every root, a multiple of the largest. Those of 52 bits have more above. */
#define ROOT_PHYS UINT64_C(0x123456780000)

struct pages {
	struct dmacore_table_allocator allocator;
	uint64_t next_phys;
};

static int allocate_page(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct pages *pages = opaque;

	out_page->host = aligned_alloc(size, size);
	out_page->phys = pages->next_phys;
	pages->next_phys += 0x10000;
	return out_page->host == NULL ? -ENOMEM : 0;
}

static void free_page(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	(void)size;
	(void)opaque;
	free(page->host);
}

static struct pages pages;

static struct dmacore_pagetable *make(uint32_t format, uint32_t levels, uint32_t input_bits,
				      uint32_t output_bits, uint32_t granule, uint32_t features)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_pagetable *table;

	pages.allocator = (struct dmacore_table_allocator)DMACORE_TABLE_ALLOCATOR_INIT;
	pages.allocator.allocate = allocate_page;
	pages.allocator.free = free_page;
	pages.allocator.opaque = &pages;
	pages.next_phys = ROOT_PHYS;
	if (output_bits == 52)
		pages.next_phys |= UINT64_C(0xa) << 48;
	options.format = format;
	options.levels = levels;
	options.input_bits = input_bits;
	options.output_bits = output_bits;
	options.granule = granule;
	options.features = features;
	options.allocator = &pages.allocator;
	assert_ok(dmacore_pagetable_create(&options, &table));
	return table;
}

/* Fills in a structure, compares it with the members that are given, and ends the table. */
#define assert_fields(name, table_, ...)                                \
	do {                                                            \
		struct name expected_ = { __VA_ARGS__ };                \
		struct name told_;                                      \
		struct dmacore_pagetable *made_ = table_;               \
                                                                        \
		memset(&told_, 0x5a, sizeof(told_));                    \
		expected_.struct_size = sizeof(told_);                  \
		told_.struct_size = sizeof(told_);                      \
		assert_ok(name(made_, &told_));                         \
		assert_memory_equal(&told_, &expected_, sizeof(told_)); \
		dmacore_pagetable_destroy(made_);                       \
	} while (0)

static void pagetable_vtd__tells_the_fields_of_a_context(void **state)
{
	(void)state;
	for (uint32_t levels = 3; levels <= 5; levels++)
		assert_fields(dmacore_pagetable_vtd,
			      make(DMACORE_PAGETABLE_VTD_SECOND_STAGE, levels, 0, 48, 0, 0),
			      .root = ROOT_PHYS, .levels = levels, .address_width = levels - 2,
			      .host_address_bits = 48);
}

static void pagetable_x86_64__tells_the_fields_of_a_first_stage(void **state)
{
	(void)state;
	for (uint32_t levels = 4; levels <= 5; levels++)
		assert_fields(dmacore_pagetable_x86_64,
			      make(DMACORE_PAGETABLE_X86_64, levels, 0, 0, 0, 0), .root = ROOT_PHYS,
			      .levels = levels, .paging_mode = levels - 4, .no_execute_enable = 1,
			      .write_protect_enable = 1);
}

static void pagetable_amd_v1__tells_the_fields_of_a_device_table_entry(void **state)
{
	(void)state;
	/* IR and IW, the root, Mode 3, TV and V. */
	assert_fields(dmacore_pagetable_amd_v1, make(DMACORE_PAGETABLE_AMD_V1, 0, 0, 0, 0, 0),
		      .root = ROOT_PHYS, .mode = 3, .read = 1, .write = 1,
		      .device_table_entry = UINT64_C(0x6000123456780603));
	/* Mode 6 and HAD 3. */
	assert_fields(dmacore_pagetable_amd_v1,
		      make(DMACORE_PAGETABLE_AMD_V1, 6, 0, 0, 0, DMACORE_PAGETABLE_DIRTY),
		      .root = ROOT_PHYS, .mode = 6, .read = 1, .write = 1, .host_access_dirty = 3,
		      .device_table_entry = UINT64_C(0x6000123456780d83));
}

static void pagetable_amd_v1__follows_a_table_that_grows(void **state)
{
	struct dmacore_pagetable *table = make(DMACORE_PAGETABLE_AMD_V1, 1, 0, 0, 0, 0);
	struct dmacore_pagetable_amd_v1 got = { .struct_size = sizeof(got) };
	dmacore_phys_t root;

	(void)state;
	assert_ok(dmacore_pagetable_amd_v1(table, &got));
	assert_int_equal(got.mode, 1);
	assert_ok(dmacore_pagetable_map(table, UINT64_C(1) << 40, 0, PAGE, DMACORE_ACCESS_READ));
	assert_ok(dmacore_pagetable_amd_v1(table, &got));
	assert_ok(dmacore_pagetable_root(table, &root));
	assert_int_equal(got.mode, 4);
	assert_int_equal(got.root, root);
	assert_true(root != ROOT_PHYS);
	assert_int_equal(got.device_table_entry, UINT64_C(0x6000000000000803) | root);
	dmacore_pagetable_destroy(table);
}

static void pagetable_arm64_stage1__tells_the_registers(void **state)
{
	(void)state;
	/* IPS 5, EPD1, TG0 0, SH0 3, ORGN0 and IRGN0 1, T0SZ 16. */
	assert_fields(dmacore_pagetable_arm64_stage1,
		      make(DMACORE_PAGETABLE_ARM64_STAGE1, 0, 0, 0, 0, 0), .ttbr0 = ROOT_PHYS,
		      .tcr = UINT64_C(0x500803510), .mair = 0x04ff44, .t0sz = 16, .sh0 = 3,
		      .irgn0 = 1, .orgn0 = 1, .ips = 5);
	/* HD and HA, IPS 5, TG0 2, T0SZ 25. The root is 16 KiB. */
	assert_fields(
		dmacore_pagetable_arm64_stage1,
		make(DMACORE_PAGETABLE_ARM64_STAGE1, 0, 39, 48, 16384, DMACORE_PAGETABLE_DIRTY),
		.ttbr0 = ROOT_PHYS, .tcr = UINT64_C(0x1850080b519), .mair = 0x04ff44, .t0sz = 25,
		.tg0 = 2, .sh0 = 3, .irgn0 = 1, .orgn0 = 1, .ips = 5, .ha = 1, .hd = 1);
	/* IPS 6, TG0 1, T0SZ 12; bits 48 to 51 of the root are in bits 2 to 5. */
	assert_fields(dmacore_pagetable_arm64_stage1,
		      make(DMACORE_PAGETABLE_ARM64_STAGE1, 0, 52, 52, 65536, 0),
		      .ttbr0 = ROOT_PHYS | 0xa << 2, .tcr = UINT64_C(0x60080750c), .mair = 0x04ff44,
		      .t0sz = 12, .tg0 = 1, .sh0 = 3, .irgn0 = 1, .orgn0 = 1, .ips = 6);
}

static void pagetable_arm64_stage2__tells_the_registers(void **state)
{
	(void)state;
	/* 4 levels: SL0 2; PS 5. */
	assert_fields(dmacore_pagetable_arm64_stage2,
		      make(DMACORE_PAGETABLE_ARM64_STAGE2, 4, 48, 48, 0, 0), .vttbr = ROOT_PHYS,
		      .vtcr = 0x80053590, .t0sz = 16, .sl0 = 2, .sh0 = 3, .irgn0 = 1, .orgn0 = 1,
		      .ps = 5, .start_level = 0, .table_count = 1);
	/* 3 levels of 43 bits of input: SL0 1, 16 tables. */
	assert_fields(dmacore_pagetable_arm64_stage2,
		      make(DMACORE_PAGETABLE_ARM64_STAGE2, 3, 43, 48, 0, 0), .vttbr = ROOT_PHYS,
		      .vtcr = 0x80053555, .t0sz = 21, .sl0 = 1, .sh0 = 3, .irgn0 = 1, .orgn0 = 1,
		      .ps = 5, .start_level = 1, .table_count = 16);
	/* 64 KiB, 2 levels: SL0 1; HD and HA. */
	assert_fields(
		dmacore_pagetable_arm64_stage2,
		make(DMACORE_PAGETABLE_ARM64_STAGE2, 2, 42, 48, 65536, DMACORE_PAGETABLE_DIRTY),
		.vttbr = ROOT_PHYS, .vtcr = 0x80657556, .t0sz = 22, .sl0 = 1, .tg0 = 1, .sh0 = 3,
		.irgn0 = 1, .orgn0 = 1, .ps = 5, .ha = 1, .hd = 1, .start_level = 2,
		.table_count = 1);
}

static void pagetable_riscv__tells_the_register(void **state)
{
	(void)state;
	for (uint64_t levels = 3; levels <= 5; levels++) {
		uint64_t value = (5 + levels) << 60 | UINT64_C(0x123456780);

		assert_fields(dmacore_pagetable_riscv,
			      make(DMACORE_PAGETABLE_RISCV_FIRST_STAGE, levels, 0, 0, 0, 0),
			      .page_number = 0x123456780, .value = value, .mode = 5 + levels);
		assert_fields(dmacore_pagetable_riscv,
			      make(DMACORE_PAGETABLE_RISCV_SECOND_STAGE, levels, 0, 0, 0, 0),
			      .page_number = 0x123456780, .value = value, .mode = 5 + levels,
			      .is_second_stage = 1);
	}
}

/* Each format has one function, and the others refuse it. */
static void pagetable_registers__are_refused_for_other_formats(void **state)
{
	(void)state;
	for (uint32_t format = DMACORE_PAGETABLE_VTD_SECOND_STAGE;
	     format <= DMACORE_PAGETABLE_RISCV_SECOND_STAGE; format++) {
		struct dmacore_pagetable *table = make(format, 0, 0, 0, 0, 0);

#define assert_only(name, is_own)                                                 \
	do {                                                                      \
		struct name fields_ = { .struct_size = sizeof(fields_) };         \
                                                                                  \
		assert_result(name(table, &fields_), (is_own) ? 0 : -EOPNOTSUPP); \
		assert_fails(name(NULL, &fields_), EINVAL);                       \
		assert_fails(name(table, NULL), EINVAL);                          \
		if (is_own)                                                       \
			check_statistics_size(struct name, name(table, options)); \
	} while (0)
		assert_only(dmacore_pagetable_vtd, format == DMACORE_PAGETABLE_VTD_SECOND_STAGE);
		assert_only(dmacore_pagetable_x86_64, format == DMACORE_PAGETABLE_X86_64);
		assert_only(dmacore_pagetable_amd_v1, format == DMACORE_PAGETABLE_AMD_V1);
		assert_only(dmacore_pagetable_arm64_stage1,
			    format == DMACORE_PAGETABLE_ARM64_STAGE1);
		assert_only(dmacore_pagetable_arm64_stage2,
			    format == DMACORE_PAGETABLE_ARM64_STAGE2);
		assert_only(dmacore_pagetable_riscv,
			    format == DMACORE_PAGETABLE_RISCV_FIRST_STAGE ||
				    format == DMACORE_PAGETABLE_RISCV_SECOND_STAGE);
		dmacore_pagetable_destroy(table);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pagetable_vtd__tells_the_fields_of_a_context),
		cmocka_unit_test(pagetable_x86_64__tells_the_fields_of_a_first_stage),
		cmocka_unit_test(pagetable_amd_v1__tells_the_fields_of_a_device_table_entry),
		cmocka_unit_test(pagetable_amd_v1__follows_a_table_that_grows),
		cmocka_unit_test(pagetable_arm64_stage1__tells_the_registers),
		cmocka_unit_test(pagetable_arm64_stage2__tells_the_registers),
		cmocka_unit_test(pagetable_riscv__tells_the_register),
		cmocka_unit_test(pagetable_registers__are_refused_for_other_formats),
	};

	return run_group("pagetable_registers", tests);
}
