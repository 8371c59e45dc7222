/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Domains whose addresses are the caller's, and those in which there are none. */

#include "support/machine.h"

#include <sys/mman.h>

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)
#define EXECUTE DMACORE_ACCESS_EXECUTE
#define PRIVILEGED DMACORE_ACCESS_PRIVILEGED

/* The first address behind what four levels translate, and behind what the words can name. */
#define INPUT_END (UINT64_C(1) << 48)
#define OUTPUT_END (UINT64_C(1) << 52)

/* A test on a machine whose device is attached to a domain of this type. */
#define test_in(type, path, function)                                                          \
	{                                                                                      \
#function " (" #type ", " #path ")", function, type##_setup, machine_teardown, \
			(void *)(uintptr_t)(path)                                              \
	}

/* On a flat system too, where physical addresses are those of the process. */
#define test_in_both(type, function) \
	test_in(type, TRANSLATED, function), test_in(type, FLAT | TRANSLATED, function)

/* Replaces everything from the IOMMU on by one with such tables, and an unmanaged domain. */
static void use_tables(struct machine *machine, const struct dmacore_pagetable_options *tables)
{
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	options.pagetable = tables;
	assert_ok(dmacore_iommu_create(machine->system, &options, &machine->iommu));
	machine->device = make_device(machine);
	machine->domain = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

static uint64_t phys_of(struct machine *machine, void *host)
{
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, host, 1, &phys));
	return phys;
}

/* Lets the device reach pages of this process at an address. */
static void map_host(struct machine *machine, uint64_t iova, void *host, uint64_t pages,
		     uint32_t access)
{
	assert_ok(dmacore_domain_map(machine->domain, iova, phys_of(machine, host), pages * PAGE,
				     access));
}

static uint64_t unmap(struct machine *machine, uint64_t iova, uint64_t size, uint32_t flags)
{
	uint64_t unmapped = UNTOUCHED;

	assert_ok(dmacore_domain_unmap(machine->domain, iova, size, flags, &unmapped));
	return unmapped;
}

static uint64_t mapped_bytes(struct machine *machine)
{
	return domain_statistics(machine->domain).mapped_bytes;
}

/* What is said of an address of the domain. */
static struct dmacore_translation look_up(struct machine *machine, uint64_t iova)
{
	struct dmacore_translation found;

	assert_ok(dmacore_domain_translate(machine->domain, iova, 0, &found));
	assert_int_equal(found.reserved, 0);
	return found;
}

#define assert_leads_nowhere(machine, iova)                                                 \
	do {                                                                                \
		struct dmacore_translation found_;                                          \
                                                                                            \
		assert_fails(dmacore_domain_translate((machine)->domain, iova, 0, &found_), \
			     ENOENT);                                                       \
	} while (0)

/* An address whose leaf is of this size and leads there. */
static void assert_leads_to(struct machine *machine, uint64_t iova, uint64_t phys, uint64_t size)
{
	struct dmacore_translation found = look_up(machine, iova);

	assert_int_equal(found.last - found.first + 1, size);
	assert_int_equal(found.target + (iova - found.first), phys);
}

/* A look-up that fails and leaves its output alone. */
static void assert_translates_nothing(struct dmacore_domain *domain, uint64_t iova, uint32_t access,
				      int error)
{
	struct dmacore_translation found, before;

	memset(&found, 0x5a, sizeof(found));
	before = found;
	assert_fails(dmacore_domain_translate(domain, iova, access, &found), error);
	assert_memory_equal(&found, &before, sizeof(found));
}

/* Mapping. */

static void domain_map__lets_a_device_do_what_it_permits(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[2 * PAGE], before[PAGE];

	map_host(machine, 0x10000, machine->low, 1, BOTH);
	map_host(machine, 0x11000, machine->high + PAGE, 1, READ);
	map_host(machine, 0x13000, machine->next, 1, WRITE);
	fill(machine->low, PAGE, 1);
	fill(machine->high + PAGE, PAGE, 2);
	assert_ok(dmacore_view_read(machine->view, 0x10000, bytes, 2 * PAGE));
	assert_memory_equal(bytes, machine->low, PAGE);
	assert_memory_equal(bytes + PAGE, machine->high + PAGE, PAGE);
	fill(bytes, PAGE, 3);
	assert_ok(dmacore_view_write(machine->view, 0x10000, bytes, PAGE));
	assert_memory_equal(machine->low, bytes, PAGE);
	assert_ok(dmacore_view_write(machine->view, 0x13000, bytes, PAGE));
	assert_memory_equal(machine->next, bytes, PAGE);
	assert_no_faults(machine);

	/* A part that is read-only, one that is write-only, and one that is not mapped. */
	memcpy(before, machine->low, PAGE);
	memset(bytes, 0x77, sizeof(bytes));
	assert_fails(dmacore_view_write(machine->view, 0x10000, bytes, 2 * PAGE), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x11000, 0x11fff, WRITE);
	assert_memory_equal(machine->low, before, PAGE);
	assert_fails(dmacore_view_read(machine->view, 0x13ffe, bytes, 2), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x13ffe, 0x13fff, READ);
	assert_fails(dmacore_view_read(machine->view, 0x11ff0, bytes, 32), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 0x12000, 0x1200f, READ);
	assert_int_equal(bytes[0], 0x77);
}

static void domain_map__reaches_all_devices_of_the_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *second = make_device(machine);
	struct dmacore_view *view;
	uint8_t byte = 0;

	assert_ok(dmacore_view_create(second, &view));
	map_host(machine, 0, machine->low, 1, READ);
	machine->low[5] = 55;
	/* Also one that is attached afterwards. */
	assert_ok(dmacore_domain_attach(machine->domain, second));
	assert_ok(dmacore_view_read(view, 5, &byte, 1));
	assert_int_equal(byte, 55);
	assert_ok(dmacore_view_read(machine->view, 5, &byte, 1));
	dmacore_view_destroy(view);
	dmacore_device_destroy(second);
}

static void domain_map__needs_no_memory_at_the_other_end(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[2];

	/* The last page of a region and what is behind it. */
	assert_ok(dmacore_domain_map(machine->domain, 0x10000, HIGH_BASE + RAM_SIZE - PAGE,
				     2 * PAGE, BOTH));
	assert_ok(dmacore_view_read(machine->view, 0x10ffe, bytes, 2));
	assert_fails(dmacore_view_read(machine->view, 0x10fff, bytes, 2), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, 0x11000, 0x11000, READ);
	assert_fails(dmacore_view_write(machine->view, 0x11000, bytes, 2), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, 0x11000, 0x11001, WRITE);
}

static void domain_map__uses_the_largest_leaves_that_fit(void **state)
{
	struct machine *machine = *state;
	/* A page, an odd number of pages up to 2 MiB, 2 MiB, and 1 GiB, and behind it the same. */
	const uint64_t first = 2 * GIB - 2 * MIB - PAGE, size = GIB + 2 * (2 * MIB + PAGE);

	assert_ok(dmacore_domain_map(machine->domain, first, first + 4 * GIB, size, READ));
	assert_leads_to(machine, first, first + 4 * GIB, PAGE);
	assert_leads_to(machine, first + PAGE, first + PAGE + 4 * GIB, 2 * MIB);
	assert_leads_to(machine, 2 * GIB + 12345, 6 * GIB + 12345, GIB);
	assert_leads_to(machine, 3 * GIB, 7 * GIB, 2 * MIB);
	assert_leads_to(machine, first + size - 1, first + size - 1 + 4 * GIB, PAGE);
	assert_int_equal(mapped_bytes(machine), size);
	/* Both addresses have to be aligned. */
	assert_ok(dmacore_domain_map(machine->domain, 4 * MIB, MIB, 2 * MIB, READ));
	assert_leads_to(machine, 4 * MIB, MIB, PAGE);
}

static void domain_map__takes_the_ends_of_the_address_space(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_domain_map(machine->domain, 0, OUTPUT_END - PAGE, PAGE, READ));
	assert_ok(dmacore_domain_map(machine->domain, INPUT_END - PAGE, 0, PAGE, READ));
	assert_leads_to(machine, 0, OUTPUT_END - PAGE, PAGE);
	assert_leads_to(machine, PAGE - 1, OUTPUT_END - 1, PAGE);
	assert_leads_to(machine, INPUT_END - 1, PAGE - 1, PAGE);
	assert_leads_nowhere(machine, PAGE);
	assert_leads_nowhere(machine, INPUT_END - PAGE - 1);
	assert_leads_nowhere(machine, INPUT_END);
	assert_leads_nowhere(machine, UINT64_MAX);
	assert_int_equal(unmap(machine, 0, INPUT_END, DMACORE_UNMAP_CROSS_HOLES), 2 * PAGE);
}

static void domain_map__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	const uint64_t top = 0 - PAGE;
	const struct {
		uint64_t iova;
		uint64_t phys;
		uint64_t size;
		uint32_t access;
		int error;
	} wrong[] = {
		{ 1, 0, PAGE, READ, EINVAL },
		{ 0x1800, 0, PAGE, READ, EINVAL },
		{ 0, 1, PAGE, READ, EINVAL },
		{ 0, 0x1800, PAGE, READ, EINVAL },
		{ 0, 0, 0, READ, EINVAL },
		{ 0, 0, 1, READ, EINVAL },
		{ 0, 0, PAGE + 0x800, READ, EINVAL },
		{ 0x800, 0x800, PAGE - 0x800, READ, EINVAL },
		{ 0, 0, PAGE, 0, EINVAL },
		{ 0, 0, PAGE, PRIVILEGED, EINVAL },
		{ 0, 0, PAGE, DMACORE_ACCESS_MMIO | DMACORE_ACCESS_CACHEABLE, EINVAL },
		{ 0, 0, PAGE, READ | 64, EINVAL },
		{ 0, 0, PAGE, READ | UINT32_C(1) << 31, EINVAL },
		/* This format has none of these. */
		{ 0, 0, PAGE, EXECUTE, EOPNOTSUPP },
		{ 0, 0, PAGE, READ | PRIVILEGED, EOPNOTSUPP },
		{ 0, 0, PAGE, BOTH | DMACORE_ACCESS_MMIO, EOPNOTSUPP },
		{ 0, 0, PAGE, BOTH | DMACORE_ACCESS_CACHEABLE, EOPNOTSUPP },
		{ INPUT_END, 0, PAGE, READ, ERANGE },
		{ INPUT_END - PAGE, 0, 2 * PAGE, READ, ERANGE },
		{ top, 0, PAGE, READ, ERANGE },
		{ top, 0, 2 * PAGE, READ, ERANGE },
		{ PAGE, 0, top, READ, ERANGE },
		{ 0, OUTPUT_END, PAGE, READ, ERANGE },
		{ 0, OUTPUT_END - PAGE, 2 * PAGE, READ, ERANGE },
		{ 0, top, PAGE, READ, ERANGE },
		{ 0, top, 2 * PAGE, READ, ERANGE },
	};
	unsigned live = machine->tables.live;

	assert_fails(dmacore_domain_map(NULL, 0, 0, PAGE, READ), EINVAL);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_fails(dmacore_domain_map(machine->domain, wrong[i].iova, wrong[i].phys,
						wrong[i].size, wrong[i].access),
			     wrong[i].error);
		assert_int_equal(mapped_bytes(machine), 0);
		assert_int_equal(machine->tables.live, live);
	}
}

static void domain_map__leaves_alone_what_is_mapped(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint64_t iova;
		uint64_t size;
	} overlapping[] = {
		{ 0x11000, PAGE },
		{ 0x10000, 2 * PAGE },
		{ 0x12000, 2 * PAGE },
		{ 0, 64 * PAGE },
		/* Only the first and only the last page of it are mapped. */
		{ 0x12000, 2 * MIB },
		{ 0x11000 - 2 * PAGE, 3 * PAGE },
	};

	assert_ok(dmacore_domain_map(machine->domain, 0x11000, GIB, 2 * PAGE, READ));
	for (unsigned i = 0; i < sizeof(overlapping) / sizeof(*overlapping); i++) {
		assert_fails(dmacore_domain_map(machine->domain, overlapping[i].iova, 0,
						overlapping[i].size, BOTH),
			     EEXIST);
		assert_int_equal(mapped_bytes(machine), 2 * PAGE);
		assert_leads_to(machine, 0x11000, GIB, PAGE);
		assert_int_equal(look_up(machine, 0x12000).access, READ);
		assert_leads_nowhere(machine, 0x10fff);
		assert_leads_nowhere(machine, 0x13000);
	}
	assert_int_equal(unmap(machine, 0x11000, 2 * PAGE, 0), 2 * PAGE);
	assert_ok(dmacore_domain_map(machine->domain, 0, 0, 64 * PAGE, BOTH));
}

static void domain_map__and_unmap_are_for_unmanaged_domains_alone(void **state)
{
	struct machine *machine = *state;
	const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				   DMACORE_DOMAIN_BLOCKED };

	for (unsigned i = 0; i < sizeof(types) / sizeof(*types); i++) {
		struct dmacore_domain *domain = make_domain(machine, types[i], 0, 0);
		uint64_t unmapped;

		assert_fails(dmacore_domain_map(domain, PAGE, LOW_BASE, PAGE, READ), EOPNOTSUPP);
		assert_fails_untouched(dmacore_domain_unmap(domain, PAGE, PAGE, 0, &unmapped),
				       EOPNOTSUPP, unmapped);
		assert_int_equal(domain_statistics(domain).mapped_bytes, 0);
		dmacore_domain_destroy(domain);
	}
}

static void domain_map__changes_nothing_when_the_table_allocator_is_empty(void **state)
{
	struct machine *machine = *state;
	unsigned live = machine->tables.live;

	/* Three tables, of which the first ones are there to be had. */
	for (int left = 0; left < 3; left++) {
		machine->tables.left = left;
		assert_fails(dmacore_domain_map(machine->domain, GIB, 0, PAGE, READ), ENOMEM);
		assert_int_equal(machine->tables.live, live);
		assert_int_equal(mapped_bytes(machine), 0);
		assert_leads_nowhere(machine, GIB);
	}
	machine->tables.left = 3;
	assert_ok(dmacore_domain_map(machine->domain, GIB, 0, PAGE, READ));
	machine->tables.left = -1;
}

/* Each round leaves a table behind that waits for readers; there are fewer pages than rounds. */
static void domain_map__gets_tables_back_that_wait_for_readers(void **state)
{
	struct machine *machine = *state;

	for (uint64_t i = 0; i < 4 * TABLE_POOL_PAGES; i++) {
		assert_ok(dmacore_domain_map(machine->domain, i * 2 * MIB, PAGE, 2 * MIB, READ));
		assert_int_equal(unmap(machine, i * 2 * MIB, 2 * MIB, 0), 2 * MIB);
	}
	assert_int_equal(mapped_bytes(machine), 0);
	assert_int_equal(domain_statistics(machine->domain).table_count, machine->tables.live);
}

/* Unmapping. */

static void domain_unmap__ends_what_devices_do_there(void **state)
{
	struct machine *machine = *state;
	uint8_t bytes[PAGE];

	map_host(machine, 0x10000, machine->low, 3, BOTH);
	assert_int_equal(unmap(machine, 0x11000, PAGE, 0), PAGE);
	assert_ok(dmacore_view_read(machine->view, 0x10000, bytes, PAGE));
	assert_ok(dmacore_view_write(machine->view, 0x12000, bytes, PAGE));
	assert_fails(dmacore_view_read(machine->view, 0x11000, bytes, PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 0x11000, 0x11fff, READ);
	assert_fails(dmacore_view_write(machine->view, 0x11fff, bytes, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 0x11fff, 0x11fff, WRITE);
	/* To be mapped elsewhere. */
	map_host(machine, 0x11000, machine->next, 1, BOTH);
	memset(bytes, 0x31, PAGE);
	assert_ok(dmacore_view_write(machine->view, 0x11000, bytes, PAGE));
	assert_memory_equal(machine->next, bytes, PAGE);
	assert_int_equal(machine->low[PAGE], 0);
}

static void domain_unmap__of_nothing_succeeds(void **state)
{
	struct machine *machine = *state;

	assert_int_equal(unmap(machine, 0, PAGE, 0), 0);
	assert_int_equal(unmap(machine, GIB, GIB, DMACORE_UNMAP_CROSS_HOLES), 0);
	assert_int_equal(unmap(machine, GIB, GIB, DMACORE_UNMAP_SPLIT), 0);
	assert_int_equal(unmap(machine, 0, INPUT_END, 3), 0);
	assert_ok(dmacore_domain_unmap(machine->domain, 0, PAGE, 0, NULL));
}

static void domain_unmap__need_not_say_how_much(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_domain_map(machine->domain, 0, 0, PAGE, READ));
	assert_ok(dmacore_domain_unmap(machine->domain, 0, PAGE, 0, NULL));
	assert_int_equal(mapped_bytes(machine), 0);
}

static void domain_unmap__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	const uint64_t top = 0 - PAGE;
	const struct {
		uint64_t iova;
		uint64_t size;
		uint32_t flags;
		int error;
	} wrong[] = {
		{ 1, PAGE, 0, EINVAL },
		{ 0x800, PAGE, 0, EINVAL },
		{ 0, 0, 0, EINVAL },
		{ 0, 1, 0, EINVAL },
		{ 0, PAGE + 0x800, 0, EINVAL },
		{ 0x800, PAGE - 0x800, 0, EINVAL },
		{ 0, PAGE, 4, EINVAL },
		{ 0, PAGE, UINT32_C(1) << 31 | DMACORE_UNMAP_SPLIT, EINVAL },
		{ INPUT_END, PAGE, 0, ERANGE },
		{ INPUT_END - PAGE, 2 * PAGE, 0, ERANGE },
		{ 0, INPUT_END + PAGE, DMACORE_UNMAP_CROSS_HOLES, ERANGE },
		{ top, PAGE, 0, ERANGE },
		{ top, 2 * PAGE, 0, ERANGE },
		{ PAGE, top, 0, ERANGE },
	};
	uint64_t unmapped;

	assert_ok(dmacore_domain_map(machine->domain, 0, 0, 2 * PAGE, READ));
	assert_ok(dmacore_domain_map(machine->domain, INPUT_END - PAGE, 0, PAGE, READ));
	assert_fails_untouched(dmacore_domain_unmap(NULL, 0, PAGE, 0, &unmapped), EINVAL, unmapped);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_fails_untouched(dmacore_domain_unmap(machine->domain, wrong[i].iova,
							    wrong[i].size, wrong[i].flags,
							    &unmapped),
				       wrong[i].error, unmapped);
		assert_int_equal(mapped_bytes(machine), 3 * PAGE);
	}
}

static void domain_unmap__stops_at_the_first_hole(void **state)
{
	struct machine *machine = *state;

	map_host(machine, 0x10000, machine->low, 2, READ);
	map_host(machine, 0x13000, machine->low, 1, READ);
	/* Before anything is mapped, and in the middle. */
	assert_int_equal(unmap(machine, 0xf000, 5 * PAGE, 0), 0);
	assert_int_equal(mapped_bytes(machine), 3 * PAGE);
	assert_int_equal(unmap(machine, 0x10000, 4 * PAGE, 0), 2 * PAGE);
	assert_leads_nowhere(machine, 0x11000);
	assert_int_equal(look_up(machine, 0x13000).access, READ);
}

static void domain_unmap__crosses_holes_when_told_to(void **state)
{
	struct machine *machine = *state;

	map_host(machine, 0x10000, machine->low, 2, READ);
	map_host(machine, 0x13000, machine->low, 2, READ);
	map_host(machine, 100 * GIB, machine->low, 1, READ);
	assert_int_equal(unmap(machine, 0, 0x14000, DMACORE_UNMAP_CROSS_HOLES), 3 * PAGE);
	assert_leads_nowhere(machine, 0x13000);
	assert_int_equal(look_up(machine, 0x14000).access, READ);
	assert_int_equal(unmap(machine, 0, INPUT_END, DMACORE_UNMAP_CROSS_HOLES), 2 * PAGE);
	assert_int_equal(mapped_bytes(machine), 0);
}

static void domain_unmap__cuts_no_leaf_unless_told_to(void **state)
{
	struct machine *machine = *state;
	const struct {
		uint64_t iova;
		uint64_t size;
	} cutting[] = {
		{ GIB, PAGE },
		{ GIB + PAGE, 2 * MIB - PAGE },
		{ GIB + MIB, 2 * MIB },
		{ GIB - PAGE, 2 * PAGE },
		{ GIB - PAGE, 2 * MIB },
		{ 0, 2 * GIB - PAGE },
		{ GIB + PAGE, GIB - PAGE },
	};

	assert_ok(dmacore_domain_map(machine->domain, GIB, GIB, 2 * MIB, READ));
	assert_ok(dmacore_domain_map(machine->domain, 2 * GIB - 2 * MIB, GIB, 2 * MIB, READ));
	for (unsigned i = 0; i < sizeof(cutting) / sizeof(*cutting); i++) {
		uint64_t unmapped;

		for (uint32_t flags = 0; flags <= DMACORE_UNMAP_CROSS_HOLES; flags++)
			assert_fails_untouched(
				dmacore_domain_unmap(machine->domain, cutting[i].iova,
						     cutting[i].size, flags, &unmapped),
				EOPNOTSUPP, unmapped);
		assert_leads_to(machine, GIB, GIB, 2 * MIB);
		assert_leads_to(machine, 2 * GIB - 1, GIB + 2 * MIB - 1, 2 * MIB);
	}
	assert_int_equal(unmap(machine, GIB, GIB, DMACORE_UNMAP_CROSS_HOLES), 4 * MIB);
}

static void domain_unmap__splits_leaves_at_its_ends(void **state)
{
	struct machine *machine = *state;

	/* One leaf of 1 GiB without a page in its middle. */
	assert_ok(dmacore_domain_map(machine->domain, GIB, 5 * GIB, GIB, BOTH));
	assert_leads_to(machine, GIB, 5 * GIB, GIB);
	assert_int_equal(unmap(machine, GIB + 8 * MIB + PAGE, PAGE, DMACORE_UNMAP_SPLIT), PAGE);
	assert_int_equal(mapped_bytes(machine), GIB - PAGE);
	assert_leads_to(machine, GIB + 6 * MIB, 5 * GIB + 6 * MIB, 2 * MIB);
	assert_leads_to(machine, GIB + 8 * MIB, 5 * GIB + 8 * MIB, PAGE);
	assert_leads_nowhere(machine, GIB + 8 * MIB + PAGE);
	assert_leads_to(machine, GIB + 8 * MIB + 2 * PAGE, 5 * GIB + 8 * MIB + 2 * PAGE, PAGE);
	assert_leads_to(machine, GIB + 10 * MIB, 5 * GIB + 10 * MIB, 2 * MIB);
	assert_int_equal(look_up(machine, 2 * GIB - 1).access, BOTH);
	/* Both ends at once, from the hole to the middle of another leaf. */
	assert_int_equal(unmap(machine, GIB + 8 * MIB + 2 * PAGE, 8 * MIB, DMACORE_UNMAP_SPLIT),
			 8 * MIB);
	assert_leads_nowhere(machine, GIB + 16 * MIB);
	assert_leads_nowhere(machine, GIB + 16 * MIB + PAGE);
	assert_leads_to(machine, GIB + 16 * MIB + 2 * PAGE, 5 * GIB + 16 * MIB + 2 * PAGE, PAGE);
	assert_int_equal(mapped_bytes(machine), GIB - PAGE - 8 * MIB);
}

/*
 * Whoever maps behind the range may have the tables there freed at any moment. Here they cannot be
 * read while the calls run.
 */
static void domain_unmap__looks_at_no_table_of_its_neighbours(void **state)
{
	struct machine *machine = *state;
	bool used[TABLE_POOL_PAGES];
	uint8_t *behind = NULL;

	assert_ok(dmacore_domain_map(machine->domain, 2 * MIB, 0, 2 * MIB, READ));
	memcpy(used, machine->tables.used, sizeof(used));
	assert_ok(dmacore_domain_map(machine->domain, 4 * MIB, 0, PAGE, READ));
	for (unsigned i = 0; i < TABLE_POOL_PAGES; i++)
		if (machine->tables.used[i] && !used[i])
			behind = machine->tables.bytes + i * PAGE;
	assert_non_null(behind);
	assert_int_equal(mprotect(behind, PAGE, PROT_NONE), 0);
	assert_int_equal(unmap(machine, 3 * MIB, MIB, DMACORE_UNMAP_SPLIT), MIB);
	assert_int_equal(unmap(machine, 2 * MIB, MIB, 0), MIB);
	assert_ok(dmacore_domain_map(machine->domain, 4 * MIB - PAGE, 0, PAGE, READ));
	assert_int_equal(unmap(machine, 0, 4 * MIB, 3), PAGE);
	assert_int_equal(mprotect(behind, PAGE, PROT_READ | PROT_WRITE), 0);
	assert_leads_to(machine, 4 * MIB, 0, PAGE);
}

/* Memory in a leaf large enough to be split. */
static void domain_unmap__leaves_the_rest_of_a_leaf_to_devices(void **state)
{
	struct machine *machine = *state;
	uint8_t *memory = aligned_alloc(2 * MIB, 2 * MIB), byte;
	const uint64_t iova = 6 * MIB;

	assert_non_null(memory);
	if (!(machine->path & FLAT))
		add_host_region(machine->system, 4 * GIB + 2 * MIB, 2 * MIB, memory, 0);
	map_host(machine, iova, memory, 2 * MIB / PAGE, BOTH);
	assert_int_equal(look_up(machine, iova).last, iova + 2 * MIB - 1);
	memory[3 * PAGE - 1] = 1;
	memory[4 * PAGE] = 2;
	assert_int_equal(unmap(machine, iova + 3 * PAGE, PAGE, DMACORE_UNMAP_SPLIT), PAGE);
	assert_ok(dmacore_view_read(machine->view, iova + 3 * PAGE - 1, &byte, 1));
	assert_int_equal(byte, 1);
	assert_ok(dmacore_view_read(machine->view, iova + 4 * PAGE, &byte, 1));
	assert_int_equal(byte, 2);
	assert_fails(dmacore_view_read(machine->view, iova + 3 * PAGE, &byte, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, iova + 3 * PAGE, iova + 3 * PAGE, READ);
	assert_int_equal(unmap(machine, iova, 2 * MIB, DMACORE_UNMAP_CROSS_HOLES), 2 * MIB - PAGE);
	if (!(machine->path & FLAT))
		assert_ok(dmacore_memory_remove(machine->system, 4 * GIB + 2 * MIB, 2 * MIB));
	free(memory);
}

static void domain_unmap__splits_nothing_when_the_table_allocator_is_empty(void **state)
{
	struct machine *machine = *state;
	unsigned live;
	uint64_t unmapped;
	int left = 0;

	assert_ok(dmacore_domain_map(machine->domain, GIB, 0, GIB, READ));
	live = machine->tables.live;
	/* Two tables at least: one of leaves of 2 MiB, and one of pages. */
	for (;; left++) {
		machine->tables.left = left;
		unmapped = UNTOUCHED;
		if (!dmacore_domain_unmap(machine->domain, GIB + PAGE, PAGE, DMACORE_UNMAP_SPLIT,
					  &unmapped))
			break;
		assert_fails_untouched(dmacore_domain_unmap(machine->domain, GIB + PAGE, PAGE,
							    DMACORE_UNMAP_SPLIT, &unmapped),
				       ENOMEM, unmapped);
		assert_int_equal(machine->tables.live, live);
		assert_leads_to(machine, GIB + PAGE, PAGE, GIB);
		assert_true(left < 16);
	}
	machine->tables.left = -1;
	assert_true(left >= 2);
	assert_int_equal(unmapped, PAGE);
	assert_int_equal(machine->tables.live, live + 2);
}

static void domain_unmap__reports_what_a_zero_copy_mapping_holds(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	const struct report_record *report;
	struct dmacore_view_mapping *mapping;
	size_t count;

	map_host(machine, 0x10000, machine->low, 4, BOTH);
	assert_ok(
		dmacore_view_map(machine->view, 0x11800, PAGE, BOTH, &mapping, &segments, &count));
	/* Pages that it does not hold. */
	assert_int_equal(unmap(machine, 0x10000, PAGE, 0), PAGE);
	assert_int_equal(unmap(machine, 0x13000, PAGE, 0), PAGE);
	assert_no_reports(&machine->reports);
	assert_int_equal(unmap(machine, 0x12000, PAGE, 0), PAGE);
	report = reports_take(&machine->reports);
	assert_int_equal(report->level, DMACORE_REPORT_WARNING);
	assert_int_equal(report->error, EBUSY);
	assert_string_equal(report->object, "domain");
	/* What is not mapped any more is not reported again; the bytes stay good. */
	assert_int_equal(unmap(machine, 0x12000, PAGE, 0), 0);
	assert_no_reports(&machine->reports);
	assert_int_equal(count, 1);
	memset(segments[0].host, 0x66, segments[0].size);
	assert_int_equal(machine->low[3 * PAGE - 0x801], 0x66);
	dmacore_view_unmap(mapping);
	assert_int_equal(unmap(machine, 0x11000, PAGE, 0), PAGE);
}

static void domain_unmap__reports_nothing_that_stays_mapped_behind_a_hole(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	map_host(machine, 0x10000, machine->low, 1, READ);
	map_host(machine, 0x12000, machine->low, 1, READ);
	assert_ok(
		dmacore_view_map(machine->view, 0x12000, PAGE, READ, &mapping, &segments, &count));
	assert_int_equal(unmap(machine, 0x10000, 3 * PAGE, 0), PAGE);
	assert_no_reports(&machine->reports);
	assert_int_equal(unmap(machine, 0x10000, 3 * PAGE, DMACORE_UNMAP_CROSS_HOLES), PAGE);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	dmacore_view_unmap(mapping);
}

/* Looking up. */

static void domain_translate__tells_the_leaf_around_an_address(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation found;

	assert_ok(dmacore_domain_map(machine->domain, 4 * MIB, 8 * MIB, 2 * MIB, READ));
	assert_ok(dmacore_domain_map(machine->domain, 0x1000, 0x7000, PAGE, WRITE));
	memset(&found, 0x5a, sizeof(found));
	assert_ok(dmacore_domain_translate(machine->domain, 5 * MIB + 77, READ, &found));
	assert_int_equal(found.first, 4 * MIB);
	assert_int_equal(found.last, 6 * MIB - 1);
	assert_int_equal(found.target, 8 * MIB);
	assert_int_equal(found.access, READ);
	assert_int_equal(found.reserved, 0);
	/* A request with privilege may do what all may. */
	assert_ok(dmacore_domain_translate(machine->domain, 0x1fff, WRITE | PRIVILEGED, &found));
	assert_int_equal(found.first, 0x1000);
	assert_int_equal(found.last, 0x1fff);
	assert_int_equal(found.target, 0x7000);
	assert_int_equal(found.access, WRITE);
}

static void domain_translate__refuses_what_is_not_permitted(void **state)
{
	struct machine *machine = *state;
	const uint32_t denied[] = { WRITE,
				    BOTH,
				    EXECUTE,
				    READ | EXECUTE,
				    READ | DMACORE_ACCESS_MMIO,
				    DMACORE_ACCESS_CACHEABLE };

	assert_ok(dmacore_domain_map(machine->domain, 0x1000, 0x7000, PAGE, READ));
	for (unsigned i = 0; i < sizeof(denied) / sizeof(*denied); i++)
		assert_translates_nothing(machine->domain, 0x1000, denied[i], EACCES);
	/* Where nothing is mapped, and where nothing can be. */
	assert_translates_nothing(machine->domain, 0xfff, READ, ENOENT);
	assert_translates_nothing(machine->domain, 0x2000, 0, ENOENT);
	assert_translates_nothing(machine->domain, INPUT_END + 0x1000, 0, ENOENT);
	assert_translates_nothing(machine->domain, UINT64_MAX, WRITE, ENOENT);
	/* A look-up is no access. */
	assert_no_faults(machine);
}

static void domain_translate__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_domain_map(machine->domain, 0, 0, PAGE, READ));
	assert_translates_nothing(NULL, 0, READ, EINVAL);
	assert_translates_nothing(machine->domain, 0, 64, EINVAL);
	assert_translates_nothing(machine->domain, 0, READ | UINT32_C(1) << 31, EINVAL);
	assert_fails(dmacore_domain_translate(machine->domain, 0, READ, NULL), EINVAL);
}

static void domain_translate__finds_what_mapping_calls_map(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 10, 20, DMACORE_TO_DEVICE);
	struct dmacore_translation found;

	assert_ok(dmacore_domain_translate(machine->domain, dma, READ, &found));
	assert_int_equal(found.first, dma - 10);
	assert_int_equal(found.last, dma - 10 + PAGE - 1);
	assert_int_equal(found.target, phys_of(machine, machine->low));
	assert_int_equal(found.access, READ);
	assert_translates_nothing(machine->domain, dma, WRITE, EACCES);
	assert_ok(dmacore_unmap(machine->device, dma, 20, DMACORE_TO_DEVICE, 0));
	assert_translates_nothing(machine->domain, dma, 0, ENOENT);
}

static void domain_translate__leaves_addresses_as_they_are_in_an_identity_domain(void **state)
{
	struct machine *machine = *state;
	const uint64_t addresses[] = { 0, LOW_BASE, UINT64_MAX };
	struct dmacore_translation found;

	for (unsigned i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
		assert_ok(dmacore_domain_translate(machine->domain, addresses[i], BOTH, &found));
		assert_int_equal(found.first, 0);
		assert_int_equal(found.last, UINT64_MAX);
		assert_int_equal(found.target, 0);
		assert_int_equal(found.access, BOTH);
		assert_int_equal(found.reserved, 0);
	}
	assert_translates_nothing(machine->domain, LOW_BASE, EXECUTE, EACCES);
	assert_translates_nothing(machine->domain, LOW_BASE, READ | DMACORE_ACCESS_MMIO, EACCES);
	assert_translates_nothing(machine->domain, LOW_BASE, 64, EINVAL);
}

static void domain_translate__finds_nothing_in_a_blocked_domain(void **state)
{
	struct machine *machine = *state;

	assert_translates_nothing(machine->domain, 0, 0, EPERM);
	assert_translates_nothing(machine->domain, LOW_BASE, READ, EPERM);
	assert_translates_nothing(machine->domain, UINT64_MAX, EXECUTE, EPERM);
	assert_translates_nothing(machine->domain, LOW_BASE, 64, EINVAL);
	assert_fails(dmacore_domain_translate(machine->domain, 0, 0, NULL), EINVAL);
	assert_no_faults(machine);
}

/* Other tables. */

static void domain_map__of_a_privileged_leaf_keeps_devices_out(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_translation found;
	uint8_t bytes[8] = { 0 };
	size_t count;

	tables.format = DMACORE_PAGETABLE_X86_64;
	tables.allocator = &machine->tables.allocator;
	use_tables(machine, &tables);
	map_host(machine, 0x10000, machine->low, 1, BOTH | PRIVILEGED);
	map_host(machine, 0x11000, machine->low + PAGE, 1, BOTH | EXECUTE);
	assert_fails(dmacore_view_read(machine->view, 0x10ff8, bytes, 8), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x10ff8, 0x10fff, READ);
	assert_fails(dmacore_view_write(machine->view, 0x10000, bytes, 8), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x10000, 0x10007, WRITE);
	assert_creates_nothing(
		dmacore_view_map(machine->view, 0x10000, 8, READ, &mapping, &segments, &count),
		EACCES, mapping);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x10000, 0x10007, READ);
	assert_fails(dmacore_view_translate(machine->view, 0x10000, READ, &found), EACCES);
	/* Who asks what is permitted is told. */
	assert_ok(dmacore_view_translate(machine->view, 0x10000, 0, &found));
	assert_int_equal(found.access, BOTH | PRIVILEGED);
	assert_translates_nothing(machine->domain, 0x10000, WRITE, EACCES);
	assert_ok(dmacore_domain_translate(machine->domain, 0x10000, WRITE | PRIVILEGED, &found));
	assert_int_equal(found.access, BOTH | PRIVILEGED);
	/* What lies beside it is anybody's. */
	assert_ok(dmacore_view_write(machine->view, 0x11000, bytes, 8));
	assert_ok(dmacore_domain_translate(machine->domain, 0x11000, EXECUTE, &found));
}

static void domain_map__of_instructions_alone_lets_no_device_read(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_translation found;
	uint8_t byte;

	tables.format = DMACORE_PAGETABLE_RISCV_FIRST_STAGE;
	tables.allocator = &machine->tables.allocator;
	use_tables(machine, &tables);
	map_host(machine, 0x10000, machine->low, 1, EXECUTE);
	assert_fails(dmacore_view_read(machine->view, 0x10000, &byte, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, 0x10000, 0x10000, READ);
	assert_ok(dmacore_domain_translate(machine->domain, 0x10000, EXECUTE, &found));
	assert_int_equal(found.access, EXECUTE);
	/* This format cannot permit writing without reading. */
	assert_fails(dmacore_domain_map(machine->domain, 0x11000, LOW_BASE, PAGE, WRITE),
		     EOPNOTSUPP);
}

static void domain_create__of_large_granules_makes_unmanaged_domains_alone(void **state)
{
	struct machine *machine = *state;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	uint8_t *memory = aligned_alloc(UINT64_C(64) << 10, UINT64_C(64) << 10), byte = 0;
	const uint64_t granule = UINT64_C(64) << 10;

	assert_non_null(memory);
	memset(memory, 9, granule);
	add_host_region(machine->system, 4 * GIB + granule * 16, granule, memory, 0);
	tables.format = DMACORE_PAGETABLE_ARM64_STAGE1;
	tables.granule = (uint32_t)granule;
	use_tables(machine, &tables);
	assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), EOPNOTSUPP,
			       domain);
	assert_creates_nothing(dmacore_domain_create(machine->iommu, NULL, &domain), EOPNOTSUPP,
			       domain);
	options.type = DMACORE_DOMAIN_BLOCKED;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	dmacore_domain_destroy(domain);

	/* Its granule is the unit of all that the calls are given. */
	assert_fails(dmacore_domain_map(machine->domain, PAGE, 4 * GIB, granule, READ), EINVAL);
	assert_fails(dmacore_domain_map(machine->domain, 0, 4 * GIB + PAGE, granule, READ), EINVAL);
	assert_fails(dmacore_domain_map(machine->domain, 0, 4 * GIB, PAGE, READ), EINVAL);
	map_host(machine, granule, memory, granule / PAGE, READ);
	assert_ok(dmacore_view_read(machine->view, 2 * granule - 1, &byte, 1));
	assert_int_equal(byte, 9);
	assert_int_equal(look_up(machine, granule).last, 2 * granule - 1);
	assert_fails(dmacore_domain_unmap(machine->domain, granule + PAGE, granule, 0, NULL),
		     EINVAL);
	assert_fails(dmacore_domain_unmap(machine->domain, granule, PAGE, 0, NULL), EINVAL);
	assert_int_equal(unmap(machine, granule, granule, 0), granule);
	assert_ok(dmacore_memory_remove(machine->system, 4 * GIB + granule * 16, granule));
	free(memory);
}

/* Mapping calls. */

/* A mapping call of each kind that is refused, and by what it says leaves nothing behind. */
static void check_mapping_calls(struct machine *machine, bool is_reported)
{
	struct snapshot before = take_snapshot(machine), after;
	unsigned live = machine->tables.live;
	const uint64_t phys = phys_of(machine, machine->low);
	dmacore_dma_t dma;
	void *cpu;

	for (unsigned call = 0; call < 3; call++) {
		cpu = machine->low;
		if (call == 0)
			assert_fails_untouched(dmacore_map_single(machine->device, machine->low,
								  PAGE, DMACORE_TO_DEVICE, 0, &dma),
					       EPERM, dma);
		else if (call == 1)
			assert_fails_untouched(dmacore_map_phys(machine->device, phys, PAGE,
								DMACORE_TO_DEVICE, 0, &dma),
					       EPERM, dma);
		else
			assert_fails_untouched(
				dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EPERM,
				dma);
		assert_ptr_equal(cpu, machine->low);
		if (is_reported) {
			const struct report_record *report = reports_take(&machine->reports);

			assert_int_equal(report->level, DMACORE_REPORT_ERROR);
			assert_int_equal(report->error, EPERM);
			assert_string_equal(report->object, "disk0");
		}
		assert_no_reports(&machine->reports);
	}
	after = take_snapshot(machine);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_int_equal(machine->tables.live, live);
	/* Nobody was asked for memory that is of no use. */
	assert_int_equal(machine->pool.calls, 0);
	assert_no_faults(machine);
	/* Nothing holds on to the domain. */
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static void map_single__is_refused_and_reported_in_an_unmanaged_domain(void **state)
{
	struct machine *machine = *state;

	check_mapping_calls(machine, true);
	/* What the owner maps is no mapping of these calls. */
	map_host(machine, 0x10000, machine->low, 1, BOTH);
	assert_misuse(machine,
		      dmacore_unmap(machine->device, 0x10000, PAGE, DMACORE_BIDIRECTIONAL, 0));
	assert_misuse(machine,
		      dmacore_sync_for_cpu(machine->device, 0x10000, PAGE, DMACORE_BIDIRECTIONAL));
	assert_int_equal(mapped_bytes(machine), PAGE);
}

static void map_single__is_refused_in_a_blocked_domain(void **state)
{
	check_mapping_calls(*state, false);
}

/* The domain and its devices. */

static void view_read__faults_as_blocked_in_a_blocked_domain(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_translation found;
	const uint64_t phys = phys_of(machine, machine->low);
	uint8_t bytes[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	size_t count;

	assert_fails(dmacore_view_read(machine->view, phys, bytes, 8), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, phys, phys + 7, READ);
	assert_int_equal(bytes[0], 1);
	assert_fails(dmacore_view_write(machine->view, phys, bytes, 8), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, phys, phys + 7, WRITE);
	assert_int_equal(machine->low[0], 0);
	assert_fails(dmacore_view_write(machine->view, UINT64_MAX, bytes, 1), EPERM);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, UINT64_MAX, UINT64_MAX, WRITE);
	assert_creates_nothing(
		dmacore_view_map(machine->view, phys, 8, BOTH, &mapping, &segments, &count), EPERM,
		mapping);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, phys, phys + 7, BOTH);
	assert_fails(dmacore_view_translate(machine->view, phys, 0, &found), EPERM);
}

static void domain_attach__takes_a_device_from_one_type_to_the_next(void **state)
{
	struct machine *machine = *state;
	const uint64_t phys = phys_of(machine, machine->low);
	uint8_t byte;

	/* What was mapped stays in the domain; the device sees it only while it is there. */
	struct dmacore_domain *unmanaged = machine->domain;
	struct dmacore_domain *blocked = make_domain(machine, DMACORE_DOMAIN_BLOCKED, 0, 0);

	assert_ok(dmacore_domain_map(unmanaged, phys, phys, PAGE, READ));
	for (unsigned round = 0; round < 3; round++) {
		assert_ok(dmacore_view_read(machine->view, phys, &byte, 1));
		assert_fails(dmacore_domain_attach(blocked, machine->device), EBUSY);
		assert_ok(dmacore_domain_detach(unmanaged, machine->device));
		assert_ok(dmacore_domain_attach(blocked, machine->device));
		assert_int_equal(domain_statistics(unmanaged).device_count, 0);
		assert_int_equal(domain_statistics(blocked).device_count, 1);
		assert_fails(dmacore_view_read(machine->view, phys, &byte, 1), EPERM);
		assert_faulted(machine, DMACORE_FAULT_BLOCKED, phys, phys, READ);
		assert_ok(dmacore_domain_detach(blocked, machine->device));
		assert_ok(dmacore_domain_attach(unmanaged, machine->device));
	}
	dmacore_domain_destroy(blocked);
}

static void domain_destroy__gives_back_the_tables_of_what_is_mapped(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domain;
	unsigned live = machine->tables.live;

	domain = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	assert_int_equal(machine->tables.live, live + 1);
	for (uint64_t i = 0; i < 8; i++)
		assert_ok(dmacore_domain_map(domain, i * 33 * GIB, i * PAGE, PAGE, READ));
	/* Tables that are retired, too. */
	assert_ok(dmacore_domain_map(domain, 2 * MIB, PAGE, 4 * MIB, READ));
	assert_ok(dmacore_domain_unmap(domain, 2 * MIB, 4 * MIB, 0, NULL));
	assert_true(machine->tables.live > live + 16);
	dmacore_domain_destroy(domain);
	assert_int_equal(machine->tables.live, live);
}

static void domain_statistics__counts_what_the_caller_maps(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_statistics statistics = domain_statistics(machine->domain);

	assert_int_equal(statistics.device_count, 1);
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.table_count, 1);
	assert_ok(dmacore_domain_map(machine->domain, 0, 0, 2 * MIB + 3 * PAGE, READ));
	assert_ok(dmacore_domain_map(machine->domain, GIB, 0, PAGE, BOTH));
	statistics = domain_statistics(machine->domain);
	assert_int_equal(statistics.mapped_bytes, 2 * MIB + 4 * PAGE);
	/* These are of mapping calls alone. */
	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.iova_bytes, 0);
	/* The root, one below it, and two of each lower level. */
	assert_int_equal(statistics.table_count, 6);
	assert_int_equal(statistics.table_count, machine->tables.live);
	assert_int_equal(statistics.table_bytes, 6 * PAGE);
	assert_int_equal(unmap(machine, 0, 2 * MIB + 3 * PAGE, 0), 2 * MIB + 3 * PAGE);
	assert_int_equal(mapped_bytes(machine), PAGE);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(device_statistics(machine->device).map_total, 0);
}

static void domain_statistics__are_zero_in_a_blocked_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_statistics statistics = domain_statistics(machine->domain);

	assert_int_equal(statistics.device_count, 1);
	assert_int_equal(statistics.mapping_count, 0);
	assert_int_equal(statistics.iova_bytes, 0);
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.table_count, 0);
	assert_int_equal(statistics.table_bytes, 0);
	assert_int_equal(machine->tables.live, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_in_both(unmanaged, domain_map__lets_a_device_do_what_it_permits),
		test_in_both(unmanaged, domain_map__reaches_all_devices_of_the_domain),
		test_in(unmanaged, TRANSLATED, domain_map__needs_no_memory_at_the_other_end),
		test_in(unmanaged, TRANSLATED, domain_map__uses_the_largest_leaves_that_fit),
		test_in(unmanaged, TRANSLATED, domain_map__takes_the_ends_of_the_address_space),
		test_in(unmanaged, TRANSLATED, domain_map__rejects_bad_arguments),
		test_in(unmanaged, TRANSLATED, domain_map__leaves_alone_what_is_mapped),
		test_on_translated(domain_map__and_unmap_are_for_unmanaged_domains_alone),
		test_in(unmanaged, TRANSLATED,
			domain_map__changes_nothing_when_the_table_allocator_is_empty),
		test_in(unmanaged, TRANSLATED, domain_map__gets_tables_back_that_wait_for_readers),
		test_in_both(unmanaged, domain_unmap__ends_what_devices_do_there),
		test_in(unmanaged, TRANSLATED, domain_unmap__of_nothing_succeeds),
		test_in(unmanaged, TRANSLATED, domain_unmap__need_not_say_how_much),
		test_in(unmanaged, TRANSLATED, domain_unmap__rejects_bad_arguments),
		test_in_both(unmanaged, domain_unmap__stops_at_the_first_hole),
		test_in_both(unmanaged, domain_unmap__crosses_holes_when_told_to),
		test_in(unmanaged, TRANSLATED, domain_unmap__cuts_no_leaf_unless_told_to),
		test_in(unmanaged, TRANSLATED, domain_unmap__splits_leaves_at_its_ends),
		test_in(unmanaged, TRANSLATED, domain_unmap__looks_at_no_table_of_its_neighbours),
		test_in_both(unmanaged, domain_unmap__leaves_the_rest_of_a_leaf_to_devices),
		test_in(unmanaged, TRANSLATED,
			domain_unmap__splits_nothing_when_the_table_allocator_is_empty),
		test_in_both(unmanaged, domain_unmap__reports_what_a_zero_copy_mapping_holds),
		test_in_both(unmanaged,
			     domain_unmap__reports_nothing_that_stays_mapped_behind_a_hole),
		test_in(unmanaged, TRANSLATED, domain_translate__tells_the_leaf_around_an_address),
		test_in(unmanaged, TRANSLATED, domain_translate__refuses_what_is_not_permitted),
		test_in(unmanaged, TRANSLATED, domain_translate__rejects_bad_arguments),
		test_on_translated(domain_translate__finds_what_mapping_calls_map),
		test_on(IDENTITY,
			domain_translate__leaves_addresses_as_they_are_in_an_identity_domain),
		test_in(blocked, TRANSLATED, domain_translate__finds_nothing_in_a_blocked_domain),
		test_in(unmanaged, TRANSLATED, domain_map__of_a_privileged_leaf_keeps_devices_out),
		test_in(unmanaged, TRANSLATED,
			domain_map__of_instructions_alone_lets_no_device_read),
		test_in(unmanaged, TRANSLATED,
			domain_create__of_large_granules_makes_unmanaged_domains_alone),
		test_in_both(unmanaged, map_single__is_refused_and_reported_in_an_unmanaged_domain),
		test_in_both(blocked, map_single__is_refused_in_a_blocked_domain),
		test_in(blocked, TRACKED | TRANSLATED, map_single__is_refused_in_a_blocked_domain),
		test_in_both(blocked, view_read__faults_as_blocked_in_a_blocked_domain),
		test_in(blocked, TRACKED | TRANSLATED,
			view_read__faults_as_blocked_in_a_blocked_domain),
		test_in_both(unmanaged, domain_attach__takes_a_device_from_one_type_to_the_next),
		test_in(unmanaged, TRANSLATED,
			domain_destroy__gives_back_the_tables_of_what_is_mapped),
		test_in_both(unmanaged, domain_statistics__counts_what_the_caller_maps),
		test_in(blocked, TRANSLATED, domain_statistics__are_zero_in_a_blocked_domain),
	};

	return run_group("domain map", tests);
}
