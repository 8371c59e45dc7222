/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Scattered memory that is mapped in one call. */

#include "support/machine.h"

#include <sys/mman.h>

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

#define BASE UINT64_C(0x40000000)

#define test_list(function)                                             \
	{                                                               \
#function, function, unmanaged_setup, machine_teardown, \
			(void *)(uintptr_t)TRANSLATED                   \
	}

static uint64_t mapped_bytes(struct machine *machine)
{
	return domain_statistics(machine->domain).mapped_bytes;
}

static void assert_leads_to(struct machine *machine, uint64_t iova, uint64_t phys, uint64_t size)
{
	struct dmacore_translation found;

	assert_ok(dmacore_domain_translate(machine->domain, iova, 0, &found));
	assert_int_equal(found.last - found.first + 1, size);
	assert_int_equal(found.target + (iova - found.first), phys);
}

/* A call that fails and leaves nothing of its range behind, and all that is around it. */
static void assert_maps_nothing(struct machine *machine, uint64_t iova,
				const struct dmacore_domain_segment *segments, size_t count,
				uint32_t access, int error)
{
	uint64_t before = mapped_bytes(machine);

	assert_fails(dmacore_domain_map_list(machine->domain, iova, segments, count, access),
		     error);
	assert_int_equal(mapped_bytes(machine), before);
}

static void domain_map_list__maps_one_segment_behind_the_other(void **state)
{
	static const struct dmacore_domain_segment segments[] = {
		{ HIGH_BASE + 3 * PAGE, PAGE },
		{ LOW_BASE, 2 * PAGE },
		/* Memory may be there more than once, and in any order. */
		{ LOW_BASE + PAGE, PAGE },
		{ LOW_BASE, PAGE },
	};
	static const uint64_t pages[] = { HIGH_BASE + 3 * PAGE, LOW_BASE, LOW_BASE + PAGE,
					  LOW_BASE + PAGE, LOW_BASE };
	struct machine *machine = *state;
	uint8_t bytes[5 * PAGE];

	assert_ok(dmacore_domain_map_list(machine->domain, BASE + PAGE, segments, COUNT(segments),
					  BOTH));
	for (unsigned i = 0; i < COUNT(pages); i++)
		assert_leads_to(machine, BASE + (i + 1) * PAGE, pages[i], PAGE);
	assert_int_equal(mapped_bytes(machine), 5 * PAGE);
	fill(machine->low, RAM_SIZE, 1);
	fill(machine->high, RAM_SIZE, 2);
	assert_ok(dmacore_view_read(machine->view, BASE + PAGE, bytes, sizeof(bytes)));
	assert_memory_equal(bytes, machine->high + 3 * PAGE, PAGE);
	assert_memory_equal(bytes + PAGE, machine->low, 2 * PAGE);
	assert_memory_equal(bytes + 3 * PAGE, machine->low + PAGE, PAGE);
	assert_memory_equal(bytes + 4 * PAGE, machine->low, PAGE);
	/* What is permitted is the same for all of them. */
	assert_ok(dmacore_domain_map_list(machine->domain, BASE + 9 * PAGE, segments, 2, READ));
	assert_fails(dmacore_view_write(machine->view, BASE + 11 * PAGE, bytes, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, BASE + 11 * PAGE, BASE + 11 * PAGE, WRITE);
}

static void domain_map_list__makes_large_leaves_of_segments_that_adjoin(void **state)
{
	struct dmacore_domain_segment segments[512 + 2];
	struct machine *machine = *state;

	for (unsigned i = 0; i < 512; i++)
		segments[i + 1] = (struct dmacore_domain_segment){ 4 * GIB + i * PAGE, PAGE };
	/* What is before and behind in the devices' addresses is not in memory. */
	segments[0] = (struct dmacore_domain_segment){ 4 * GIB, PAGE };
	segments[513] = (struct dmacore_domain_segment){ 8 * GIB, PAGE };
	assert_ok(dmacore_domain_map_list(machine->domain, BASE - PAGE, segments, COUNT(segments),
					  BOTH));
	assert_leads_to(machine, BASE - PAGE, 4 * GIB, PAGE);
	assert_leads_to(machine, BASE + 5, 4 * GIB + 5, 2 * MIB);
	assert_leads_to(machine, BASE + 2 * MIB, 8 * GIB, PAGE);
	assert_int_equal(mapped_bytes(machine), 2 * MIB + 2 * PAGE);
	assert_ok(dmacore_domain_unmap(machine->domain, BASE - PAGE, 2 * MIB + 2 * PAGE, 0, NULL));
	/* Of segments of any size. */
	segments[0] = (struct dmacore_domain_segment){ 4 * GIB, GIB - PAGE };
	segments[1] = (struct dmacore_domain_segment){ 5 * GIB - PAGE, GIB };
	segments[2] = (struct dmacore_domain_segment){ 6 * GIB - PAGE, PAGE };
	assert_ok(dmacore_domain_map_list(machine->domain, BASE, segments, 3, BOTH));
	assert_leads_to(machine, BASE, 4 * GIB, GIB);
	assert_leads_to(machine, BASE + GIB, 5 * GIB, GIB);
}

static void domain_map_list__changes_nothing_when_a_part_is_mapped(void **state)
{
	static const struct dmacore_domain_segment segments[] = {
		{ LOW_BASE, 2 * PAGE },
		{ 4 * GIB, 4 * MIB },
		{ HIGH_BASE, PAGE },
	};
	const uint64_t size = 4 * MIB + 3 * PAGE;
	struct machine *machine = *state;

	/* The first page, one in the middle of a large leaf, the last. */
	const uint64_t spots[] = { 0, MIB, size - PAGE };

	for (unsigned i = 0; i < COUNT(spots); i++) {
		assert_ok(dmacore_domain_map(machine->domain, BASE + spots[i], NEXT_BASE, PAGE,
					     READ));
		assert_maps_nothing(machine, BASE, segments, COUNT(segments), BOTH, EEXIST);
		assert_leads_to(machine, BASE + spots[i], NEXT_BASE, PAGE);
		assert_ok(dmacore_domain_unmap(machine->domain, BASE + spots[i], PAGE, 0, NULL));
	}
	/* What adjoins is in nobody's way. */
	assert_ok(dmacore_domain_map(machine->domain, BASE - PAGE, NEXT_BASE, PAGE, READ));
	assert_ok(dmacore_domain_map(machine->domain, BASE + size, NEXT_BASE, PAGE, READ));
	assert_ok(dmacore_domain_map_list(machine->domain, BASE, segments, COUNT(segments), BOTH));
	assert_int_equal(mapped_bytes(machine), size + 2 * PAGE);
}

static void domain_map_list__rejects_what_is_no_list(void **state)
{
	static const struct dmacore_domain_segment good = { LOW_BASE, PAGE };
	static const struct {
		struct dmacore_domain_segment segment;
		int error;
	} bad[] = {
		{ { LOW_BASE, 0 }, EINVAL },
		{ { LOW_BASE + 1, PAGE }, EINVAL },
		{ { LOW_BASE, PAGE / 2 }, EINVAL },
		{ { LOW_BASE, PAGE + 1 }, EINVAL },
		/* Adjoining what is before, and not aligned by itself. */
		{ { LOW_BASE + PAGE, PAGE / 2 }, EINVAL },
		{ { UINT64_MAX - PAGE + 1, 2 * PAGE }, ERANGE },
		{ { PAGE, UINT64_MAX - PAGE + 1 }, ERANGE },
		/* More than the words name. */
		{ { UINT64_C(1) << 52, PAGE }, ERANGE },
		{ { (UINT64_C(1) << 52) - PAGE, 2 * PAGE }, ERANGE },
		{ { UINT64_MAX - PAGE + 1, PAGE }, ERANGE },
		{ { 0, UINT64_C(1) << 48 }, ERANGE },
		{ { 0, UINT64_MAX - PAGE + 1 }, ERANGE },
	};
	struct machine *machine = *state;

	for (unsigned i = 0; i < COUNT(bad); i++)
		for (unsigned place = 0; place < 3; place++) {
			struct dmacore_domain_segment segments[3] = { good, good, good };

			segments[place] = bad[i].segment;
			assert_maps_nothing(machine, BASE, segments, 3, BOTH, bad[i].error);
		}
	assert_fails(dmacore_domain_map_list(NULL, BASE, &good, 1, BOTH), EINVAL);
	assert_maps_nothing(machine, BASE, NULL, 1, BOTH, EINVAL);
	assert_maps_nothing(machine, BASE, &good, 0, BOTH, EINVAL);
	assert_maps_nothing(machine, BASE, &good, SIZE_MAX, BOTH, EINVAL);
	assert_maps_nothing(machine, BASE + 1, &good, 1, BOTH, EINVAL);
	assert_maps_nothing(machine, BASE, &good, 1, 0, EINVAL);
	assert_maps_nothing(machine, BASE, &good, 1, 64, EINVAL);
	assert_maps_nothing(machine, BASE, &good, 1, DMACORE_ACCESS_EXECUTE, EOPNOTSUPP);
}

static void domain_map_list__ends_with_the_addresses(void **state)
{
	static const struct dmacore_domain_segment segments[] = {
		{ HIGH_BASE, PAGE },
		{ LOW_BASE, PAGE },
	};
	const uint64_t end = UINT64_C(1) << 48;
	struct machine *machine = *state;

	assert_maps_nothing(machine, end - PAGE, segments, 2, BOTH, ERANGE);
	assert_maps_nothing(machine, end, segments, 2, BOTH, ERANGE);
	assert_ok(dmacore_domain_map_list(machine->domain, end - 2 * PAGE, segments, 2, BOTH));
	assert_leads_to(machine, end - PAGE, LOW_BASE, PAGE);
	/* The list wraps in the middle of a segment, and between two. */
	assert_maps_nothing(machine, UINT64_MAX - PAGE + 1, segments, 2, BOTH, ERANGE);
	assert_maps_nothing(machine, UINT64_MAX - 2 * PAGE + 1, segments, 2, BOTH, ERANGE);
}

static void domain_map_list__reaches_the_last_address_there_is(void **state)
{
	static const struct dmacore_domain_segment segments[] = {
		{ HIGH_BASE, PAGE },
		{ LOW_BASE, PAGE },
		{ HIGH_BASE, PAGE },
	};
	struct machine *machine = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct dmacore_iommu *iommu;
	struct dmacore_translation found;

	tables.format = DMACORE_PAGETABLE_AMD_V1;
	options.pagetable = &tables;
	domain_options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	assert_ok(dmacore_domain_create(iommu, &domain_options, &domain));
	/* One more would be at address 0, where nothing may come to lie. */
	assert_fails(dmacore_domain_map_list(domain, UINT64_MAX - 2 * PAGE + 1, segments, 3, BOTH),
		     ERANGE);
	assert_int_equal(domain_statistics(domain).mapped_bytes, 0);
	assert_ok(dmacore_domain_map_list(domain, UINT64_MAX - 2 * PAGE + 1, segments, 2, BOTH));
	assert_ok(dmacore_domain_translate(domain, UINT64_MAX, 0, &found));
	assert_int_equal(found.target + (UINT64_MAX - found.first), LOW_BASE + PAGE - 1);
	assert_int_equal(domain_statistics(domain).mapped_bytes, 2 * PAGE);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
}

static void domain_map_list__is_for_unmanaged_domains(void **state)
{
	static const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
					  DMACORE_DOMAIN_BLOCKED };
	static const struct dmacore_domain_segment segment = { LOW_BASE, PAGE };
	struct machine *machine = *state;

	for (unsigned i = 0; i < COUNT(types); i++) {
		machine_use(machine, types[i]);
		assert_maps_nothing(machine, BASE, &segment, 1, BOTH, EOPNOTSUPP);
	}
}

/* The list is read while it is there and no further. */
static void domain_map_list__reads_no_segment_behind_the_last(void **state)
{
	struct machine *machine = *state;
	uint8_t *pages =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct dmacore_domain_segment *segments = (void *)(pages + PAGE);

	assert_true(pages != MAP_FAILED);
	assert_int_equal(mprotect(pages + PAGE, PAGE, PROT_NONE), 0);
	segments[-2] = (struct dmacore_domain_segment){ LOW_BASE, PAGE };
	segments[-1] = (struct dmacore_domain_segment){ LOW_BASE + PAGE, PAGE };
	assert_ok(dmacore_domain_map_list(machine->domain, BASE, segments - 2, 2, BOTH));
	assert_maps_nothing(machine, BASE - PAGE, segments - 2, 2, BOTH, EEXIST);
	assert_int_equal(munmap(pages, 2 * PAGE), 0);
}

static void domain_map_list__unmaps_what_it_mapped_when_tables_run_out(void **state)
{
	struct dmacore_domain_segment segments[8];
	struct machine *machine = *state;
	unsigned failures = 0;

	/* Each of them in a table of its own. */
	for (unsigned i = 0; i < COUNT(segments); i++)
		segments[i] = (struct dmacore_domain_segment){ i % 2 ? 2 * MIB : LOW_BASE,
							       i % 2 ? 2 * MIB : PAGE };
	for (int left = 0;; left++) {
		int error;

		machine->tables.left = left;
		error = dmacore_domain_map_list(machine->domain, BASE, segments, COUNT(segments),
						BOTH);
		machine->tables.left = -1;
		if (!error)
			break;
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(mapped_bytes(machine), 0);
		failures++;
	}
	assert_true(failures > 0);
	assert_int_equal(mapped_bytes(machine), 4 * (2 * MIB + PAGE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_list(domain_map_list__maps_one_segment_behind_the_other),
		test_list(domain_map_list__makes_large_leaves_of_segments_that_adjoin),
		test_list(domain_map_list__changes_nothing_when_a_part_is_mapped),
		test_list(domain_map_list__rejects_what_is_no_list),
		test_list(domain_map_list__ends_with_the_addresses),
		test_list(domain_map_list__reaches_the_last_address_there_is),
		test_list(domain_map_list__is_for_unmanaged_domains),
		test_list(domain_map_list__reads_no_segment_behind_the_last),
		test_list(domain_map_list__unmaps_what_it_mapped_when_tables_run_out),
	};

	return run_group("domain list", tests);
}
