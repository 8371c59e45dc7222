/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/machine.h"

#define COUNT 300

static void assert_unchanged(struct machine *machine, const struct snapshot *before)
{
	struct snapshot after = take_snapshot(machine);

	assert_memory_equal(before, &after, sizeof(after));
	assert_no_reports(&machine->reports);
}

static const enum path paths[] = { TRACKED, IDENTITY | TRACKED, TRANSLATED, FLAT | TRACKED,
				   FLAT | TRANSLATED };

#define PATH_COUNT (sizeof(paths) / sizeof(*paths))

/* Maps and unmaps many buffers on one path, with every allocation failing in turn. */
static void check_map(enum path path, bool by_phys)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	dmacore_dma_t dma[COUNT];
	dmacore_phys_t phys;
	unsigned long failures;

	machine_start(&machine, path);
	assert_ok(dmacore_memory_host_to_phys(machine.system, machine.low, 1, &phys));
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i++) {
		struct snapshot before = take_snapshot(&machine);

		dma[i] = UNTOUCHED;
		assert_survives_failures(
			by_phys ? dmacore_map_phys(machine.device, phys + i, 100, DMACORE_TO_DEVICE,
						   0, &dma[i]) :
				  dmacore_map_single(machine.device, machine.low + i, 100,
						     DMACORE_TO_DEVICE, 0, &dma[i]),
			{
				assert_true(dma[i] == UNTOUCHED);
				assert_unchanged(&machine, &before);
			});
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (unsigned i = 0; i < COUNT; i++) {
			struct dmacore_translation found;
			struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
			uint8_t byte;

			assert_ok(dmacore_view_translate(machine.view, dma[i], 0, &found));
			assert_ok(dmacore_view_read(machine.view, dma[i], &byte, 1));
			assert_ok(dmacore_sync_for_cpu(machine.device, dma[i], 100,
						       DMACORE_TO_DEVICE));
			assert_ok(dmacore_sync_for_device(machine.device, dma[i], 100,
							  DMACORE_TO_DEVICE));
			assert_ok(dmacore_device_set_streaming_mask(machine.device, 1, &beyond));
			assert_int_equal(beyond.count, COUNT - i);
			assert_ok(dmacore_unmap(machine.device, dma[i], 100, DMACORE_TO_DEVICE, 0));
		}
		assert_fails(dmacore_unmap(machine.device, dma[0], 100, DMACORE_TO_DEVICE, 0),
			     EINVAL);
		reports_forget(&machine.reports);
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void map_single__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_map(paths[i], false);
}

static void map_phys__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_map(paths[i], true);
}

/* On the heap of the IOMMU itself, where the tables are the library's allocations too. */
static void map_single__changes_nothing_when_a_table_on_the_heap_fails(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	struct dmacore_device_options options;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_domain_statistics before;
	dmacore_dma_t dma = UNTOUCHED;
	unsigned long failures;

	(void)state;
	machine_start(&machine, DIRECT);
	options = device_options(&machine);
	assert_ok(dmacore_iommu_create(machine.system, NULL, &iommu));
	assert_ok(dmacore_domain_create(iommu, NULL, &domain));
	options.iommu = iommu;
	assert_ok(dmacore_device_create(machine.system, &options, &device));
	assert_ok(dmacore_domain_attach(domain, device));
	before = domain_statistics(domain);
	failures = oom.failures;
	assert_survives_failures(
		dmacore_map_single(device, machine.low, PAGE, DMACORE_TO_DEVICE, 0, &dma), {
			struct dmacore_domain_statistics after = domain_statistics(domain);

			assert_true(dma == UNTOUCHED);
			assert_memory_equal(&before, &after, sizeof(after));
		});
	/* Three tables, and what the records need. */
	assert_true(oom.failures >= failures + 3);
	assert_needs_no_memory({
		assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		dmacore_device_destroy(device);
		dmacore_domain_destroy(domain);
		dmacore_iommu_destroy(iommu);
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

/* More allocations than one refill of records serves. */
static void check_coherent(enum path path)
{
	enum { ALLOCATIONS = 80 };
	unsigned live = oom.live_count;
	static struct machine machine;
	dmacore_dma_t dma[ALLOCATIONS];
	void *cpu[ALLOCATIONS];
	unsigned long failures;
	struct snapshot before;

	machine_start(&machine, path);
	failures = oom.failures;
	for (unsigned i = 0; i < ALLOCATIONS; i++) {
		before = take_snapshot(&machine);
		dma[i] = UNTOUCHED;
		assert_survives_failures(
			dmacore_alloc_coherent(machine.device, PAGE, &cpu[i], &dma[i]), {
				assert_true(dma[i] == UNTOUCHED);
				assert_int_equal(machine.pool.live, path & FLAT ? 0 : i);
				assert_unchanged(&machine, &before);
			});
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory({
		for (unsigned i = 0; i < ALLOCATIONS; i++)
			assert_ok(dmacore_free_coherent(machine.device, PAGE, cpu[i], dma[i]));
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

static void alloc_coherent__changes_nothing_when_an_allocation_fails(void **state)
{
	(void)state;
	check_coherent(DIRECT);
	check_coherent(FLAT);
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_coherent(paths[i]);
}

static void alloc_coherent__gives_its_memory_back_when_the_tables_run_out(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	struct snapshot before;
	dmacore_dma_t dma = UNTOUCHED;
	void *cpu;

	(void)state;
	machine_start(&machine, TRANSLATED);
	before = take_snapshot(&machine);
	for (int left = 0;; left++) {
		int error;

		machine.tables.left = left;
		error = dmacore_alloc_coherent(machine.device, PAGE, &cpu, &dma);
		machine.tables.left = -1;
		if (!error)
			break;
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(machine.pool.live, 0);
		assert_unchanged(&machine, &before);
	}
	assert_ok(dmacore_free_coherent(machine.device, PAGE, cpu, dma));
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void check_view_map(enum path path)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	dmacore_dma_t dma;
	size_t count;

	machine_start(&machine, path);
	dma = map_for(&machine, machine.low, RAM_SIZE, DMACORE_BIDIRECTIONAL);
	assert_creates_after_failures(dmacore_view_map(machine.view, dma + 5, RAM_SIZE - 9,
						       DMACORE_ACCESS_READ, &mapping, &segments,
						       &count),
				      mapping);
	assert_needs_no_memory({
		assert_ok(dmacore_unmap(machine.device, dma, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0));
		assert_reported(&machine, DMACORE_REPORT_WARNING);
		dmacore_view_unmap(mapping);
	});
	/* A failed mapping pins nothing. */
	if (!(path & FLAT))
		assert_ok(dmacore_memory_remove(machine.system, LOW_BASE, RAM_SIZE));
	assert_needs_no_memory(machine_stop(&machine));
	assert_int_equal(oom.live_count, live);
}

static void view_map__unwinds_every_failed_allocation(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++)
		check_view_map(paths[i]);
}

/* Whose allocations fail, and where the tables of the domain come from. */
enum failing {
	/* The library's, of which the tables on the heap are. */
	HEAP,
	/* The library's, beside tables from a hook. */
	BESIDE_HOOK,
	/* The hook's. */
	HOOK,
	FAILING_COUNT,
};

/* An unmanaged domain, and the machine that it belongs to. */
struct owner {
	enum failing failing;
	struct machine machine;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	/* What oom.failures was, less the failures of the hook, which it does not count. */
	unsigned long failures;
};

static void owner_start(struct owner *owner, enum failing failing)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	memset(owner, 0, sizeof(*owner));
	owner->failing = failing;
	machine_start(&owner->machine, TRANSLATED);
	if (failing == HEAP)
		assert_ok(dmacore_iommu_create(owner->machine.system, NULL, &owner->iommu));
	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(owner->iommu ? owner->iommu : owner->machine.iommu,
					&options, &owner->domain));
	owner->failures = oom.failures;
}

static void owner_stop(struct owner *owner)
{
	assert_needs_no_memory({
		dmacore_domain_destroy(owner->domain);
		dmacore_iommu_destroy(owner->iommu);
		machine_stop(&owner->machine);
	});
}

/* Makes @call with each allocation failing in turn, none of which changes anything, until it succeeds. */
#define assert_owner_survives(owner, call)                                                        \
	do {                                                                                      \
		struct dmacore_domain_statistics before_ = domain_statistics((owner)->domain);    \
		struct table_pool *tables_ = &(owner)->machine.tables;                            \
		unsigned live_ = tables_->live;                                                   \
                                                                                                  \
		for (int left_ = 0; (owner)->failing == HOOK; left_++) {                          \
			int error_;                                                               \
                                                                                                  \
			tables_->left = left_;                                                    \
			error_ = (call);                                                          \
			tables_->left = -1;                                                       \
			if (!error_)                                                              \
				break;                                                            \
			assert_int_equal(error_, -ENOMEM);                                        \
			(owner)->failures--;                                                      \
			assert_owner_unchanged(owner, &before_, live_);                           \
		}                                                                                 \
		if ((owner)->failing != HOOK)                                                     \
			assert_survives_failures(call,                                            \
						 assert_owner_unchanged(owner, &before_, live_)); \
	} while (0)

static void assert_owner_unchanged(struct owner *owner,
				   const struct dmacore_domain_statistics *before, unsigned live)
{
	struct dmacore_domain_statistics after = domain_statistics(owner->domain);

	assert_memory_equal(before, &after, sizeof(after));
	assert_int_equal(owner->machine.tables.live, live);
	assert_no_reports(&owner->machine.reports);
}

/* Ranges that need tables on each level, and at last many of them. */
static void domain_map__changes_nothing_when_an_allocation_fails(void **state)
{
	static const struct {
		uint64_t iova;
		uint64_t phys;
		uint64_t size;
	} ranges[] = {
		{ 0, 0, PAGE },
		{ GIB - PAGE, 0, 2 * PAGE },
		{ 512 * GIB - 2 * MIB - PAGE, 0, 4 * MIB + 2 * PAGE },
		{ 700 * GIB, PAGE, 40 * MIB },
	};
	enum { RANGES = sizeof(ranges) / sizeof(*ranges) };
	static struct owner owner;

	(void)state;
	for (enum failing failing = 0; failing < FAILING_COUNT; failing++) {
		unsigned live = oom.live_count;

		owner_start(&owner, failing);
		for (unsigned i = 0; i < RANGES; i++) {
			struct dmacore_translation found;

			assert_fails(
				dmacore_domain_translate(owner.domain, ranges[i].iova, 0, &found),
				ENOENT);
			assert_owner_survives(&owner,
					      dmacore_domain_map(owner.domain, ranges[i].iova,
								 ranges[i].phys, ranges[i].size,
								 DMACORE_ACCESS_READ));
		}
		assert_true(oom.failures > owner.failures);
		assert_needs_no_memory({
			for (unsigned i = 0; i < RANGES; i++) {
				struct dmacore_translation found;
				uint64_t unmapped;

				assert_ok(dmacore_domain_translate(owner.domain, ranges[i].iova, 0,
								   &found));
				assert_ok(dmacore_domain_unmap(owner.domain, ranges[i].iova,
							       ranges[i].size, 0, &unmapped));
				assert_int_equal(unmapped, ranges[i].size);
			}
		});
		owner_stop(&owner);
		assert_int_equal(oom.live_count, live);
	}
}

/* Scattered, each piece with tables of its own; and what is written is found without memory. */
static void domain_map_list__maps_nothing_when_an_allocation_fails(void **state)
{
	static const struct dmacore_domain_segment segments[] = {
		{ 0, 2 * MIB - PAGE }, { GIB, PAGE },	     { 4 * GIB, 2 * MIB },
		{ 8 * GIB, GIB },      { 5 * GIB, 3 * MIB },
	};
	const uint64_t iova = 512 * GIB - 2 * MIB, size = GIB + 7 * MIB;
	static struct machine machine;
	unsigned live = oom.live_count;
	unsigned long failures = 0;
	const unsigned count = sizeof(segments) / sizeof(*segments);

	(void)state;
	for (unsigned hook = 0; hook < 2; hook++) {
		struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
		struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
		struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
		struct dmacore_iommu_capabilities capabilities = {
			.struct_size = sizeof(capabilities),
		};
		struct dmacore_iommu *iommu;
		struct dmacore_domain *domain;
		uint64_t bits[4] = { 0 };

		machine_start(&machine, TRANSLATED);
		tables.features = DMACORE_PAGETABLE_DIRTY;
		tables.allocator = hook ? &machine.tables.allocator : NULL;
		options.pagetable = &tables;
		domain_options.type = DMACORE_DOMAIN_UNMANAGED;
		assert_ok(dmacore_iommu_create(machine.system, &options, &iommu));
		assert_ok(dmacore_domain_create(iommu, &domain_options, &domain));
		for (int left = 0;; left++) {
			int error;

			machine.tables.left = hook ? left : -1;
			oom.left = hook ? -1 : left;
			error = dmacore_domain_map_list(domain, iova, segments, count,
							DMACORE_ACCESS_WRITE);
			machine.tables.left = -1;
			oom.left = -1;
			if (!error)
				break;
			assert_int_equal(error, -ENOMEM);
			assert_int_equal(domain_statistics(domain).mapped_bytes, 0);
			failures++;
		}
		assert_int_equal(domain_statistics(domain).mapped_bytes, size);
		assert_needs_no_memory({
			assert_ok(dmacore_iommu_capabilities(iommu, &capabilities));
			assert_ok(dmacore_domain_set_dirty_tracking(domain, true));
			assert_ok(dmacore_domain_read_dirty(domain, iova, MIB, DMACORE_DIRTY_CLEAR,
							    bits));
			assert_ok(dmacore_domain_set_dirty_tracking(domain, false));
			assert_ok(dmacore_domain_unmap(domain, iova, size, 0, NULL));
			assert_int_equal(domain_statistics(domain).mapped_bytes, 0);
			dmacore_domain_destroy(domain);
			dmacore_iommu_destroy(iommu);
			machine_stop(&machine);
		});
		assert_int_equal(oom.live_count, live);
	}
	assert_true(failures > 4);
}

static void domain_unmap__splits_nothing_when_an_allocation_fails(void **state)
{
	static struct owner owner;

	(void)state;
	for (enum failing failing = 0; failing < FAILING_COUNT; failing++) {
		/* Four tables each; more than are taken from the heap at once, or what the hook has. */
		const unsigned count = failing == HEAP ? 80 : 14;
		unsigned live = oom.live_count;

		owner_start(&owner, failing);
		assert_ok(dmacore_domain_map(owner.domain, 0, 0, 2 * count * GIB,
					     DMACORE_ACCESS_READ));
		owner.failures = oom.failures;
		for (unsigned i = 0; i < count; i++) {
			const uint64_t first = 2 * i * GIB;
			struct dmacore_translation found;
			uint64_t unmapped = UNTOUCHED;

			/* Both ends cut a leaf. */
			assert_owner_survives(
				&owner, (assert_true(unmapped == UNTOUCHED),
					 dmacore_domain_unmap(owner.domain, first + PAGE,
							      2 * GIB - 2 * PAGE,
							      DMACORE_UNMAP_SPLIT, &unmapped)));
			assert_int_equal(unmapped, 2 * GIB - 2 * PAGE);
			assert_ok(dmacore_domain_translate(owner.domain, first, 0, &found));
			assert_int_equal(found.last, first + PAGE - 1);
			assert_ok(dmacore_domain_translate(owner.domain, first + 2 * GIB - 1, 0,
							   &found));
			assert_int_equal(found.target, first + 2 * GIB - PAGE);
		}
		assert_true(oom.failures > owner.failures);
		assert_needs_no_memory({
			uint64_t unmapped;

			assert_ok(dmacore_domain_unmap(owner.domain, 0, 2 * count * GIB,
						       DMACORE_UNMAP_CROSS_HOLES, &unmapped));
			assert_int_equal(unmapped, 2 * count * PAGE);
		});
		owner_stop(&owner);
		assert_int_equal(oom.live_count, live);
	}
}

/* Tables that wait for readers are memory too. */
static void domain_map__frees_what_waits_for_readers_before_it_fails(void **state)
{
	static struct owner owner;
	unsigned live = oom.live_count;
	uint64_t size = 8 * MIB;

	(void)state;
	owner_start(&owner, HOOK);
	assert_ok(dmacore_domain_map(owner.domain, 0, PAGE, size, DMACORE_ACCESS_READ));
	assert_ok(dmacore_domain_unmap(owner.domain, 0, size, 0, NULL));
	owner.machine.tables.left = 0;
	assert_fails(dmacore_domain_map(owner.domain, GIB, PAGE, PAGE, DMACORE_ACCESS_READ),
		     ENOMEM);
	owner.machine.tables.left = -1;
	/* The four tables are gone; those above them stay. */
	assert_int_equal(domain_statistics(owner.domain).table_count, 3);
	assert_int_equal(domain_statistics(owner.domain).mapped_bytes, 0);
	owner_stop(&owner);
	assert_int_equal(oom.live_count, live);
}

/* Every way to flush, with the records and the batches that are there. */
static void unmap__needs_no_memory_in_a_lazy_domain(void **state)
{
	enum { LAZY_COUNT = 100 };
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	unsigned live = oom.live_count;
	static struct machine machine;
	dmacore_dma_t dma[LAZY_COUNT];

	(void)state;
	machine_start(&machine, TRANSLATED);
	assert_ok(dmacore_domain_detach(machine.domain, machine.device));
	dmacore_domain_destroy(machine.domain);
	options.type = DMACORE_DOMAIN_DMA_LAZY;
	options.flush_entries = 8;
	/* One page more than is mapped at once. */
	options.last = (LAZY_COUNT + 2) * PAGE - 1;
	assert_ok(dmacore_domain_create(machine.iommu, &options, &machine.domain));
	assert_ok(dmacore_domain_attach(machine.domain, machine.device));
	for (unsigned i = 0; i < LAZY_COUNT; i++)
		assert_survives_failures(dmacore_map_single(machine.device, machine.low, 100,
							    DMACORE_TO_DEVICE, 0, &dma[i]),
					 assert_no_reports(&machine.reports));
	assert_needs_no_memory({
		for (unsigned i = 0; i < LAZY_COUNT; i++) {
			assert_ok(dmacore_unmap(machine.device, dma[i], 100, DMACORE_TO_DEVICE, 0));
			if (i % 16 == 9)
				assert_ok(dmacore_system_tick(machine.system, i << 30));
			if (i % 16 == 13)
				assert_ok(dmacore_domain_flush(machine.domain));
		}
		/* Since the last flush, when 94 were unmapped. */
		assert_int_equal(domain_statistics(machine.domain).queued_count, 6);
		machine_stop(&machine);
	});
	assert_int_equal(oom.live_count, live);
}

/* What is live when a device is destroyed is undone without memory too. */
static void device_destroy__needs_no_memory(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	dmacore_dma_t dma;
	void *cpu;

	(void)state;
	for (unsigned i = 0; i < PATH_COUNT; i++) {
		machine_start(&machine, paths[i]);
		for (unsigned n = 0; n < 8; n++) {
			(void)map_for(&machine, machine.low + n, PAGE, DMACORE_TO_DEVICE);
			assert_ok(dmacore_alloc_coherent(machine.device, PAGE, &cpu, &dma));
		}
		assert_needs_no_memory({
			dmacore_device_destroy(machine.device);
			machine.device = NULL;
			dmacore_view_destroy(machine.view);
			machine.view = NULL;
		});
		assert_true(machine.reports.count > 0);
		reports_forget(&machine.reports);
		machine_stop(&machine);
		assert_int_equal(oom.live_count, live);
	}
}

/* Mapped where the bus has it, by ranges that are at @bus. */
static void assert_on_bus(struct machine *machine, uint64_t bus)
{
	dmacore_dma_t dma = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	uint8_t byte = 0;

	machine->low[5] = 77;
	assert_int_equal(dma, bus);
	assert_ok(dmacore_view_read(machine->view, dma + 5, &byte, 1));
	assert_int_equal(byte, 77);
	assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, 0));
}

/* Its first ranges, others in their place, none, and some that it has had before. */
static void set_ranges__changes_nothing_when_an_allocation_fails(void **state)
{
	const enum path all[] = { DIRECT, TRACKED, IDENTITY, IDENTITY | TRACKED };
	const struct dmacore_dma_range one = { 0x10000000, LOW_BASE, RAM_SIZE };
	const struct dmacore_dma_range two[] = { { 0x30000000, NEXT_BASE, RAM_SIZE },
						 { 0x20000000, LOW_BASE, RAM_SIZE } };
	const struct step {
		const struct dmacore_dma_range *ranges;
		size_t count;
		uint64_t bus;
	} steps[] = { { NULL, 0, LOW_BASE }, { &one, 1, one.bus },   { two, 2, two[1].bus },
		      { NULL, 0, LOW_BASE }, { two, 2, two[1].bus }, { &one, 1, one.bus } };
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct dmacore_device *device;
		dmacore_dma_t kept;

		machine_start(&machine, all[i]);
		device = machine.device;
		kept = map_for(&machine, machine.low, 100, DMACORE_TO_DEVICE);
		for (unsigned n = 1; n < sizeof(steps) / sizeof(*steps); n++) {
			const struct step *step = &steps[n];
			struct snapshot before = take_snapshot(&machine);
			unsigned live_before = oom.live_count;
			unsigned long failures = oom.failures;

			assert_survives_failures(
				dmacore_device_set_ranges(device, step->ranges, step->count), {
					assert_int_equal(oom.live_count, live_before);
					assert_unchanged(&machine, &before);
					assert_on_bus(&machine, step[-1].bus);
					/* Which counts what has been mapped so far. */
					before = take_snapshot(&machine);
				});
			assert_true(oom.failures > failures);
			assert_on_bus(&machine, step->bus);
			/* Of ranges that it has had before nothing is kept twice. */
			assert_true(n < 3 || oom.live_count == live_before);
		}
		assert_ok(dmacore_unmap(device, kept, 100, DMACORE_TO_DEVICE, 0));
		machine_stop(&machine);
		assert_int_equal(oom.live_count, live);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_single__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(map_single__changes_nothing_when_a_table_on_the_heap_fails),
		cmocka_unit_test(map_phys__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(alloc_coherent__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(alloc_coherent__gives_its_memory_back_when_the_tables_run_out),
		cmocka_unit_test(view_map__unwinds_every_failed_allocation),
		cmocka_unit_test(domain_map__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(domain_map_list__maps_nothing_when_an_allocation_fails),
		cmocka_unit_test(domain_unmap__splits_nothing_when_an_allocation_fails),
		cmocka_unit_test(domain_map__frees_what_waits_for_readers_before_it_fails),
		cmocka_unit_test(unmap__needs_no_memory_in_a_lazy_domain),
		cmocka_unit_test(set_ranges__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(device_destroy__needs_no_memory),
	};

	return run_oom_group("oom mapping", tests, NULL);
}
