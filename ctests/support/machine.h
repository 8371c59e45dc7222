/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_MACHINE_H
#define SUPPORT_MACHINE_H

/*
 * A machine to test on: memory, one device and its view, and a record of every report and fault.
 * A report or a fault that a test does not ask for fails it when the machine stops.
 */

#include "check.h"
#include "tables.h"

/* How the device of a machine reaches memory; DIRECT, or IDENTITY or TRANSLATED, and flags. */
enum path {
	DIRECT = 0,
	/* Behind an IOMMU, attached to an identity domain. */
	IDENTITY = 1,
	/* Behind an IOMMU, attached to a DMA domain. */
	TRANSLATED = 2,
	/* With DMACORE_DEVICE_TRACK_DIRECT. */
	TRACKED = 4,
	/* A flat system. */
	FLAT = 8,
	/* The page tables are the library's own pages, so that small mappings have no records. */
	HEAP_TABLES = 16,
};

#define RAM_SIZE (16 * PAGE)

/* All attributes that there are. */
#define ATTRIBUTES                                                                        \
	(DMACORE_ATTR_WEAK_ORDERING | DMACORE_ATTR_SKIP_CPU_SYNC | DMACORE_ATTR_NO_WARN | \
	 DMACORE_ATTR_PRIVILEGED | DMACORE_ATTR_MMIO | DMACORE_ATTR_REQUIRE_COHERENT)

/* Two regions that adjoin in physical memory and not in the process, and one above 4 GiB. */
#define LOW_BASE UINT64_C(0x80000000)
#define NEXT_BASE (LOW_BASE + RAM_SIZE)
#define HIGH_BASE UINT64_C(0x100000000)

/* Where the memory allocator of a machine that is not flat takes coherent memory from. */
#define POOL_LOW_BASE UINT64_C(0x90000000)
#define POOL_HIGH_BASE UINT64_C(0x200000000)
#define POOL_PAGES 48

#define RECORDS_MAX 32

struct report_record {
	uint32_t level;
	int32_t error;
	char object[64];
	char text[256];
};

struct reports {
	struct report_record at[RECORDS_MAX];
	unsigned count;
	unsigned taken;
	/* Reports that break the rules of struct dmacore_report. */
	unsigned malformed;
	/* A device to make and destroy a view of in the callback. */
	struct dmacore_device *watched;
};

struct coherent_pool {
	struct dmacore_memory_allocator allocator;
	/* POOL_PAGES below 4 GiB and as many above, in this order. */
	uint8_t *bytes;
	bool used[2 * POOL_PAGES];
	unsigned live;
	unsigned calls;
	/* Allocations that still succeed; negative: all. */
	int left;
	/* Takes memory above the limit that it is given. */
	bool ignores_limit;
	/* Returns this instead of memory of its own. */
	void *foreign;
	unsigned wrong;
	/* The last request. */
	uint64_t size;
	uint64_t alignment;
	uint64_t limit;
};

struct faults {
	struct dmacore_fault at[RECORDS_MAX];
	struct dmacore_device *device;
	unsigned count;
	unsigned taken;
};

struct machine {
	enum path path;
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_view *view;
	/* RAM_SIZE bytes each; on a flat system simply memory. */
	uint8_t *low;
	uint8_t *next;
	uint8_t *high;
	uint8_t *arena;
	struct coherent_pool pool;
	struct table_pool tables;
	struct reports reports;
	struct faults faults;
};

static inline void reports_record(const struct dmacore_report *report, void *opaque)
{
	struct reports *reports = opaque;
	struct report_record *record = &reports->at[reports->count % RECORDS_MAX];

	if (report->struct_size != sizeof(*report) || !report->object || !report->text ||
	    !*report->text || strlen(report->text) > 255 || strchr(report->text, '\n') ||
	    report->level > DMACORE_REPORT_WARNING || report->error < 0) {
		reports->malformed++;
		return;
	}
	if (reports->watched) {
		struct dmacore_view *view;

		assert_ok(dmacore_view_create(reports->watched, &view));
		dmacore_view_destroy(view);
	}
	reports->count++;
	record->level = report->level;
	record->error = report->error;
	snprintf(record->object, sizeof(record->object), "%s", report->object);
	snprintf(record->text, sizeof(record->text), "%s", report->text);
}

/* The oldest report that was not taken yet. */
static inline const struct report_record *reports_take(struct reports *reports)
{
	assert_true(reports->count <= RECORDS_MAX);
	if (reports->taken == reports->count)
		fail_msg("nothing was reported");
	return &reports->at[reports->taken++];
}

static inline void reports_forget(struct reports *reports)
{
	reports->taken = reports->count = 0;
}

static inline void assert_no_reports(const struct reports *reports)
{
	assert_int_equal(reports->malformed, 0);
	if (reports->taken != reports->count)
		fail_msg("unexpected report about %s: %s", reports->at[reports->taken].object,
			 reports->at[reports->taken].text);
}

/* Exactly one report, of this level. */
#define assert_reported(machine, level_)                                            \
	do {                                                                        \
		assert_int_equal(reports_take(&(machine)->reports)->level, level_); \
		assert_no_reports(&(machine)->reports);                             \
	} while (0)

/* A misuse that is refused with -EINVAL and reported once. */
#define assert_misuse(machine, call)                            \
	do {                                                    \
		assert_fails(call, EINVAL);                     \
		assert_reported(machine, DMACORE_REPORT_ERROR); \
	} while (0)

static inline void faults_record(struct dmacore_device *device, const struct dmacore_fault *fault,
				 void *opaque)
{
	struct faults *faults = opaque;

	faults->device = device;
	faults->at[faults->count++ % RECORDS_MAX] = *fault;
}

/* The oldest fault in the device's ring, which the callback must have been given alike. */
static inline struct dmacore_fault faults_take(struct machine *machine)
{
	struct faults *faults = &machine->faults;
	struct dmacore_fault fault;
	size_t count = 0;

	memset(&fault, 0, sizeof(fault));
	assert_ok(dmacore_fault_take(machine->device, &fault, 1, &count, NULL));
	if (count != 1)
		fail_msg("no fault was recorded");
	assert_true(faults->taken < faults->count && faults->count <= RECORDS_MAX);
	assert_memory_equal(&fault, &faults->at[faults->taken], sizeof(fault));
	faults->taken++;
	assert_ptr_equal(faults->device, machine->device);
	return fault;
}

static inline void assert_no_faults(struct machine *machine)
{
	struct dmacore_fault fault;
	size_t count;

	assert_ok(dmacore_fault_take(machine->device, &fault, 1, &count, NULL));
	assert_int_equal(count, 0);
	assert_int_equal(machine->faults.taken, machine->faults.count);
}

/* Exactly one fault, of this reason, range and wish. */
#define assert_faulted(machine, reason_, first_, last_, access_)    \
	do {                                                        \
		struct dmacore_fault taken_ = faults_take(machine); \
                                                                    \
		assert_int_equal(taken_.reason, reason_);           \
		assert_int_equal(taken_.first, first_);             \
		assert_int_equal(taken_.last, last_);               \
		assert_int_equal(taken_.access, access_);           \
		assert_no_faults(machine);                          \
	} while (0)

static inline void *coherent_pool_allocate(uint64_t size, uint64_t alignment, dmacore_phys_t limit,
					   void *opaque)
{
	struct coherent_pool *pool = opaque;
	uint64_t count = size / PAGE;

	pool->calls++;
	pool->size = size;
	pool->alignment = alignment;
	pool->limit = limit;
	if (size == 0 || size % PAGE || alignment == 0 || (alignment & (alignment - 1)))
		pool->wrong++;
	if (pool->left == 0)
		return NULL;
	pool->left -= pool->left > 0;
	if (pool->foreign) {
		pool->live++;
		return pool->foreign;
	}
	/* Above 4 GiB first, so that a limit that is not passed on is found out. */
	for (unsigned half = 2; half-- > 0;) {
		uint64_t base = half ? POOL_HIGH_BASE : POOL_LOW_BASE;
		uint64_t run = 0;

		for (uint64_t i = 0; i < POOL_PAGES; i++) {
			uint64_t first = half * POOL_PAGES + i + 1 - count;

			run = pool->used[half * POOL_PAGES + i] ? 0 : run + 1;
			if (run < count || (base + (i + 1 - count) * PAGE) % alignment)
				continue;
			if (base + (i + 1) * PAGE - 1 > limit && !pool->ignores_limit)
				continue;
			memset(pool->used + first, true, count);
			pool->live++;
			/* Not zeroed: that is the library's task. */
			memset(pool->bytes + first * PAGE, 0xa5, size);
			return pool->bytes + first * PAGE;
		}
	}
	return NULL;
}

static inline void coherent_pool_free(void *host, uint64_t size, void *opaque)
{
	struct coherent_pool *pool = opaque;
	uint64_t offset = (uint8_t *)host - pool->bytes;

	pool->calls++;
	if (pool->foreign && host == pool->foreign) {
		pool->live--;
		return;
	}
	if (offset % PAGE || size % PAGE || offset + size > 2 * POOL_PAGES * PAGE) {
		pool->wrong++;
		return;
	}
	for (uint64_t i = offset / PAGE; i < (offset + size) / PAGE; i++) {
		pool->wrong += !pool->used[i];
		pool->used[i] = false;
	}
	pool->live--;
}

/* Adds a region of this process's memory. */
static inline void add_host_region(struct dmacore_system *system, uint64_t base, uint64_t size,
				   void *host, uint32_t flags)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

	region.backing = DMACORE_MEMORY_HOST;
	region.flags = flags;
	region.base = base;
	region.size = size;
	region.host = host;
	assert_ok(dmacore_memory_add(system, &region));
}

/* The options of a machine's device, for tests that make another. */
static inline struct dmacore_device_options device_options(struct machine *machine)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;

	options.name = "disk0";
	options.iommu = machine->iommu;
	options.flags = machine->path & TRACKED ? DMACORE_DEVICE_TRACK_DIRECT : 0;
	options.streaming_mask = DMACORE_BIT_MASK(64);
	options.coherent_mask = DMACORE_BIT_MASK(64);
	options.fault = faults_record;
	options.fault_opaque = &machine->faults;
	return options;
}

static inline struct dmacore_device *make_device(struct machine *machine)
{
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;

	assert_ok(dmacore_device_create(machine->system, &options, &device));
	return device;
}

static inline struct dmacore_bridge *make_bridge(struct machine *machine,
						 struct dmacore_bridge *parent, uint32_t flags)
{
	struct dmacore_bridge_options options = DMACORE_BRIDGE_OPTIONS_INIT;
	struct dmacore_bridge *bridge;

	options.parent = parent;
	options.flags = flags;
	assert_ok(dmacore_bridge_create(machine->system, &options, &bridge));
	return bridge;
}

static inline struct dmacore_domain *make_domain(struct machine *machine, uint32_t type,
						 uint64_t first, uint64_t last)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = type;
	options.first = first;
	options.last = last;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	return domain;
}

static inline void machine_start(struct machine *machine, enum path path)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_pagetable_options pagetable = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options iommu = DMACORE_IOMMU_OPTIONS_INIT;

	memset(machine, 0, sizeof(*machine));
	machine->path = path;
	table_pool_start(&machine->tables);

	/* The order in the process is another than in physical memory, and nothing adjoins. */
	machine->arena = aligned_alloc(PAGE, 5 * RAM_SIZE + 2 * POOL_PAGES * PAGE);
	assert_non_null(machine->arena);
	memset(machine->arena, 0, 5 * RAM_SIZE);
	machine->next = machine->arena;
	machine->low = machine->arena + 2 * RAM_SIZE;
	machine->high = machine->arena + 4 * RAM_SIZE;
	machine->pool.bytes = machine->arena + 5 * RAM_SIZE;
	machine->pool.left = -1;
	machine->pool.allocator = (struct dmacore_memory_allocator)DMACORE_MEMORY_ALLOCATOR_INIT;
	machine->pool.allocator.allocate = coherent_pool_allocate;
	machine->pool.allocator.free = coherent_pool_free;
	machine->pool.allocator.opaque = &machine->pool;

	system.flags = path & FLAT ? DMACORE_SYSTEM_FLAT : 0;
	system.report = reports_record;
	system.report_opaque = &machine->reports;
	system.memory_allocator = path & FLAT ? NULL : &machine->pool.allocator;
	assert_ok(dmacore_system_create(&system, &machine->system));
	if (!(path & FLAT)) {
		uint8_t *pool = machine->pool.bytes;
		uint64_t half = POOL_PAGES * PAGE;

		add_host_region(machine->system, LOW_BASE, RAM_SIZE, machine->low, 0);
		add_host_region(machine->system, NEXT_BASE, RAM_SIZE, machine->next, 0);
		add_host_region(machine->system, HIGH_BASE, RAM_SIZE, machine->high, 0);
		add_host_region(machine->system, POOL_LOW_BASE, half, pool, 0);
		add_host_region(machine->system, POOL_HIGH_BASE, half, pool + half, 0);
	}
	if (path & (IDENTITY | TRANSLATED)) {
		if (!(path & HEAP_TABLES))
			pagetable.allocator = &machine->tables.allocator;
		iommu.pagetable = &pagetable;
		assert_ok(dmacore_iommu_create(machine->system, &iommu, &machine->iommu));
	}
	machine->device = make_device(machine);
	if (machine->iommu) {
		uint32_t type = path & IDENTITY ? DMACORE_DOMAIN_IDENTITY : DMACORE_DOMAIN_DMA;

		machine->domain = make_domain(machine, type, 0, 0);
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	}
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

/* Whether memory has its own address in a hybrid domain, and may be read and written there. */
static inline bool is_in_window(struct dmacore_domain *domain, uint64_t address)
{
	struct dmacore_translation found;

	return dmacore_domain_translate(domain, address, DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE,
					&found) == 0 &&
	       found.target + (address - found.first) == address;
}

static inline void machine_replace_domain(struct machine *machine, uint32_t type, uint64_t first,
					  uint64_t last)
{
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = make_domain(machine, type, first, last);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

/* Replaces the domain of the machine's device by a DMA domain of these ends. */
static inline void machine_narrow(struct machine *machine, uint64_t first, uint64_t last)
{
	machine_replace_domain(machine, DMACORE_DOMAIN_DMA, first, last);
}

/* Replaces the domain of the machine's device by one of this type. */
static inline void machine_use(struct machine *machine, uint32_t type)
{
	machine_replace_domain(machine, type, 0, 0);
}

/* Gives everything back and looks that nothing is left, and nothing was said unasked. */
static inline void machine_stop(struct machine *machine)
{
	if (machine->device)
		assert_no_faults(machine);
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
	assert_no_reports(&machine->reports);
	table_pool_stop(&machine->tables);
	assert_int_equal(machine->pool.live, 0);
	assert_int_equal(machine->pool.wrong, 0);
	free(machine->arena);
}

static inline int machine_setup(void **state)
{
	struct machine *machine = malloc(sizeof(*machine));

	assert_non_null(machine);
	machine_start(machine, (enum path)(uintptr_t)*state);
	*state = machine;
	return 0;
}

/* The same, with the device in a domain in which the caller maps, or in one in which nothing is. */
static inline int unmanaged_setup(void **state)
{
	machine_setup(state);
	machine_use(*state, DMACORE_DOMAIN_UNMANAGED);
	return 0;
}

static inline int blocked_setup(void **state)
{
	machine_setup(state);
	machine_use(*state, DMACORE_DOMAIN_BLOCKED);
	return 0;
}

static inline int machine_teardown(void **state)
{
	machine_stop(*state);
	free(*state);
	return 0;
}

/* A test on a machine of this path, which it finds in *state. */
#define test_on(path, function)                                                      \
	{                                                                            \
#function " (" #path ")", function, machine_setup, machine_teardown, \
			(void *)(uintptr_t)(path)                                    \
	}

/* The same test through an IOMMU, with each kind of page tables. */
#define test_on_translated(function) \
	test_on(TRANSLATED, function), test_on(TRANSLATED | HEAP_TABLES, function)

/* The same test on each path on which it is known what is mapped and the view reaches memory. */
#define test_on_recorded(function)                                               \
	test_on(TRACKED, function), test_on(IDENTITY | TRACKED, function),       \
		test_on_translated(function), test_on(FLAT | TRACKED, function), \
		test_on(FLAT | TRANSLATED, function),                            \
		test_on(FLAT | TRANSLATED | HEAP_TABLES, function)

/* The same test on every path. */
#define test_on_all(function)                                                                     \
	test_on(DIRECT, function), test_on(IDENTITY, function), test_on(FLAT | DIRECT, function), \
		test_on_recorded(function)

/* Calls that a test makes again and again. */

static inline dmacore_dma_t map_for(struct machine *machine, void *buffer, uint64_t size,
				    uint32_t direction)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_single(machine->device, buffer, size, direction, 0, &dma));
	return dma;
}

/* Maps and unmaps a page twice, so that all is at hand that the next call needs for one. */
static inline void get_ready(struct machine *machine)
{
	for (int i = 0; i < 2; i++) {
		dmacore_dma_t dma = map_for(machine, machine->low, 1, DMACORE_TO_DEVICE);

		assert_ok(dmacore_unmap(machine->device, dma, 1, DMACORE_TO_DEVICE, 0));
	}
}

static inline struct dmacore_device_statistics device_statistics(struct dmacore_device *device)
{
	struct dmacore_device_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_device_statistics(device, &statistics));
	return statistics;
}

static inline struct dmacore_domain_statistics domain_statistics(struct dmacore_domain *domain)
{
	struct dmacore_domain_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_domain_statistics(domain, &statistics));
	return statistics;
}

/* What a mapping call that fails may not change. */
struct snapshot {
	struct dmacore_device_statistics device;
	struct dmacore_domain_statistics domain;
};

static inline struct snapshot take_snapshot(struct machine *machine)
{
	struct snapshot snapshot;

	memset(&snapshot, 0, sizeof(snapshot));
	snapshot.device = device_statistics(machine->device);
	if (machine->domain)
		snapshot.domain = domain_statistics(machine->domain);
	return snapshot;
}

/* Bytes that differ from place to place and from seed to seed. */
static inline void fill(void *bytes, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)bytes)[i] = (uint8_t)(random_next(&seed) >> 32);
}

/* Bytes for all of the machine's memory. */
static inline void fill_memory(struct machine *machine)
{
	fill(machine->low, RAM_SIZE, 1);
	fill(machine->next, RAM_SIZE, 2);
	fill(machine->high, RAM_SIZE, 3);
}

/* What lies at a physical address of the machine's three regions. */
static inline uint8_t *memory_at(struct machine *machine, dmacore_phys_t phys)
{
	if (phys >= HIGH_BASE)
		return machine->high + (phys - HIGH_BASE);
	return phys >= NEXT_BASE ? machine->next + (phys - NEXT_BASE) :
				   machine->low + (phys - LOW_BASE);
}

#endif /* SUPPORT_MACHINE_H */
