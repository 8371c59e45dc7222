/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define THREADS 4
#define ROUNDS 1000

/* A thread may not use cmocka's checks: it counts what was wrong, and the test looks at the end. */
struct worker {
	struct machine *machine;
	struct dmacore_device *device;
	struct dmacore_view *view;
	void *shared;
	unsigned index;
	unsigned wrong;
	/* Where it was wrong first, if the thread says. */
	unsigned line;
	atomic_bool *stop;
	pthread_t thread;
};

static void start(struct worker *worker, void *(*run)(void *worker))
{
	assert_ok(pthread_create(&worker->thread, NULL, run, worker));
}

static void join(struct worker *worker)
{
	assert_ok(pthread_join(worker->thread, NULL));
	if (worker->wrong && worker->line)
		print_error("thread %u: wrong %u times, first in line %u\n", worker->index,
			    worker->wrong, worker->line);
	assert_int_equal(worker->wrong, 0);
}

/* Maps pieces of memory of its own, moves bytes both ways through the view, and unmaps. */
static void *map_move_unmap(void *opaque)
{
	struct worker *worker = opaque;
	uint8_t *own = worker->machine->low + worker->index * 4 * PAGE;
	uint8_t bytes[4 * PAGE], back[4 * PAGE];
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t offset = random_next(&seed) % (3 * PAGE);
		uint64_t size = 1 + random_next(&seed) % PAGE;
		dmacore_dma_t dma;

		fill(bytes, size, random_next(&seed));
		if (dmacore_map_single(worker->device, own + offset, size, DMACORE_BIDIRECTIONAL, 0,
				       &dma)) {
			worker->wrong++;
			continue;
		}
		worker->wrong += dmacore_view_write(worker->view, dma, bytes, size) != 0;
		worker->wrong +=
			dmacore_sync_for_cpu(worker->device, dma, size, DMACORE_BIDIRECTIONAL) != 0;
		worker->wrong += memcmp(own + offset, bytes, size) != 0;
		worker->wrong += dmacore_view_read(worker->view, dma, back, size) != 0;
		worker->wrong += memcmp(back, bytes, size) != 0;
		worker->wrong +=
			dmacore_unmap(worker->device, dma, size, DMACORE_BIDIRECTIONAL, 0) != 0;
	}
	return NULL;
}

static void map_single__and_unmap_work_from_many_threads_on_one_device(void **state)
{
	struct machine *machine = *state;
	struct worker workers[THREADS] = { 0 };

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .machine = machine,
					      .device = machine->device,
					      .view = machine->view,
					      .index = i };
		start(&workers[i], map_move_unmap);
	}
	for (unsigned i = 0; i < THREADS; i++)
		join(&workers[i]);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(device_statistics(machine->device).map_total, THREADS * ROUNDS);
	if (machine->path & TRANSLATED) {
		assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	}
}

static void map_single__and_unmap_work_from_a_thread_per_device(void **state)
{
	struct machine *machine = *state;
	struct worker workers[THREADS] = { 0 };

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .machine = machine, .index = i };
		workers[i].device = make_device(machine);
		if (machine->domain)
			assert_ok(dmacore_domain_attach(machine->domain, workers[i].device));
		assert_ok(dmacore_view_create(workers[i].device, &workers[i].view));
		start(&workers[i], map_move_unmap);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		join(&workers[i]);
		assert_int_equal(device_statistics(workers[i].device).mapping_count, 0);
		assert_int_equal(device_statistics(workers[i].device).fault_total, 0);
		dmacore_view_destroy(workers[i].view);
		dmacore_device_destroy(workers[i].device);
	}
}

/* What a thread reads or writes again and again. */
struct steady {
	dmacore_dma_t dma;
	uint8_t bytes[RAM_SIZE];
	/* What the access comes to in the end. */
	int error;
};

/* Reads one mapping that stays, until it is told to stop. */
static void *read_steadily(void *opaque)
{
	struct worker *worker = opaque;
	const struct steady *steady = worker->shared;
	uint8_t bytes[PAGE];

	/* A page of them will do. */
	while (!atomic_load(worker->stop)) {
		struct dmacore_translation found;

		worker->wrong += dmacore_view_read(worker->view, steady->dma, bytes, PAGE) != 0;
		worker->wrong += memcmp(bytes, steady->bytes, PAGE) != 0;
		worker->wrong += dmacore_view_translate(worker->view, steady->dma,
							DMACORE_ACCESS_READ, &found) != 0;
	}
	return NULL;
}

static void view_read__is_steady_while_others_map_and_unmap(void **state)
{
	struct machine *machine = *state;
	struct worker readers[2] = { 0 };
	static struct steady steady;
	atomic_bool stop = false;

	steady.dma = map_for(machine, machine->low, PAGE, DMACORE_TO_DEVICE);
	fill(machine->low, PAGE, 1);
	memcpy(steady.bytes, machine->low, PAGE);
	for (unsigned i = 0; i < 2; i++) {
		readers[i] =
			(struct worker){ .view = machine->view, .shared = &steady, .stop = &stop };
		start(&readers[i], read_steadily);
	}
	/* Other pages of the same tables, and other regions of the same memory map. */
	for (unsigned round = 0; round < ROUNDS; round++) {
		dmacore_dma_t dma =
			map_for(machine, machine->low + PAGE, 3 * PAGE, DMACORE_BIDIRECTIONAL);

		assert_ok(dmacore_unmap(machine->device, dma, 3 * PAGE, DMACORE_BIDIRECTIONAL, 0));
		if (round % 8 == 0 && !(machine->path & FLAT)) {
			assert_ok(dmacore_memory_remove(machine->system, HIGH_BASE, RAM_SIZE));
			add_host_region(machine->system, HIGH_BASE, RAM_SIZE, machine->high, 0);
		}
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		join(&readers[i]);
	assert_ok(dmacore_unmap(machine->device, steady.dma, PAGE, DMACORE_TO_DEVICE, 0));
}

/* Writes as the device until it is refused. */
static void *write_until_refused(void *opaque)
{
	struct worker *worker = opaque;
	const struct steady *steady = worker->shared;
	int error;

	do
		error = dmacore_view_write(worker->view, steady->dma, steady->bytes, RAM_SIZE);
	while (!error);
	worker->wrong += error != steady->error;
	return NULL;
}

/*
 * A device without a callback, which writes all the time while @begin gives it memory and @end
 * takes that away. When @end returns no write is in flight: the memory is the caller's, whole.
 */
static void check_in_flight(struct machine *machine, int error,
			    void (*begin)(struct machine *machine, struct dmacore_device *device,
					  struct steady *steady),
			    void (*end)(struct machine *machine, struct dmacore_device *device,
					const struct steady *steady))
{
	enum { TIMES = 40 };
	struct dmacore_device_options options = device_options(machine);
	static uint8_t ours[RAM_SIZE];
	static struct steady steady;
	struct dmacore_device *device;
	struct dmacore_view *view;

	options.fault = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &view));
	steady.error = error;
	memset(steady.bytes, 0xdd, RAM_SIZE);
	memset(ours, 0x11, RAM_SIZE);
	for (unsigned round = 0; round < TIMES; round++) {
		volatile uint8_t *last = machine->high + RAM_SIZE - 1;
		struct worker writer = { .view = view, .shared = &steady };

		memset(machine->high, 0, RAM_SIZE);
		begin(machine, device, &steady);
		start(&writer, write_until_refused);
		while (*last == 0)
			sched_yield();
		end(machine, device, &steady);
		memcpy(machine->high, ours, RAM_SIZE);
		join(&writer);
		assert_memory_equal(machine->high, ours, RAM_SIZE);
	}
	assert_int_equal(device_statistics(device).fault_total, TIMES);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

static void map_high(struct machine *machine, struct dmacore_device *device, struct steady *steady)
{
	assert_ok(dmacore_map_single(device, machine->high, RAM_SIZE, DMACORE_FROM_DEVICE, 0,
				     &steady->dma));
}

static void unmap_high(struct machine *machine, struct dmacore_device *device,
		       const struct steady *steady)
{
	(void)machine;
	assert_ok(dmacore_unmap(device, steady->dma, RAM_SIZE, DMACORE_FROM_DEVICE, 0));
}

static void unmap__waits_for_accesses_in_flight(void **state)
{
	check_in_flight(*state, -ENOENT, map_high, unmap_high);
}

static void domain_map_high(struct machine *machine, struct dmacore_device *device,
			    struct steady *steady)
{
	(void)device;
	steady->dma = GIB;
	assert_ok(dmacore_domain_map(machine->domain, GIB, HIGH_BASE, RAM_SIZE,
				     DMACORE_ACCESS_WRITE));
}

static void domain_unmap_high(struct machine *machine, struct dmacore_device *device,
			      const struct steady *steady)
{
	(void)device;
	assert_ok(dmacore_domain_unmap(machine->domain, steady->dma, RAM_SIZE, 0, NULL));
}

static void domain_unmap__waits_for_accesses_in_flight(void **state)
{
	struct machine *machine = *state;

	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	check_in_flight(machine, -ENOENT, domain_map_high, domain_unmap_high);
}

static void add_high(struct machine *machine, struct dmacore_device *device, struct steady *steady)
{
	(void)device;
	steady->dma = HIGH_BASE + RAM_SIZE;
	add_host_region(machine->system, steady->dma, RAM_SIZE, machine->high, 0);
}

static void remove_high(struct machine *machine, struct dmacore_device *device,
			const struct steady *steady)
{
	(void)device;
	assert_ok(dmacore_memory_remove(machine->system, steady->dma, RAM_SIZE));
}

static void memory_remove__waits_for_accesses_in_flight(void **state)
{
	struct machine *machine = *state;

	/* The same bytes at an address of their own. */
	assert_ok(dmacore_memory_remove(machine->system, HIGH_BASE, RAM_SIZE));
	check_in_flight(machine, -EFAULT, add_high, remove_high);
}

struct gate {
	struct dmacore_system *system;
	atomic_bool entered;
	atomic_bool leave;
};

static int wait_at_gate(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	struct gate *gate = opaque;

	(void)offset;
	memset(buffer, 0, size);
	atomic_store(&gate->entered, true);
	while (!atomic_load(&gate->leave))
		sched_yield();
	return 0;
}

static void *read_through_gate(void *opaque)
{
	struct worker *worker = opaque;
	uint8_t byte;

	worker->wrong += dmacore_view_read(worker->view, NEXT_BASE + RAM_SIZE, &byte, 1) != 0;
	return NULL;
}

static void memory_remove__is_refused_while_a_callback_runs(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct gate gate = { .system = machine->system };
	struct worker reader = { .view = machine->view };

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.base = NEXT_BASE + RAM_SIZE;
	region.size = PAGE;
	region.read = wait_at_gate;
	region.opaque = &gate;
	assert_ok(dmacore_memory_add(machine->system, &region));
	start(&reader, read_through_gate);
	while (!atomic_load(&gate.entered))
		sched_yield();
	assert_fails(dmacore_memory_remove(machine->system, region.base, PAGE), EBUSY);
	atomic_store(&gate.leave, true);
	join(&reader);
	assert_ok(dmacore_memory_remove(machine->system, region.base, PAGE));
}

/* Maps and unmaps in a range of its own, which shares tables with its neighbours'. */
static void *map_own_range(void *opaque)
{
	struct worker *worker = opaque;
	struct dmacore_pagetable *table = worker->shared;
	const uint64_t first = GIB + worker->index * 64 * PAGE;
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < 4 * ROUNDS; round++) {
		uint64_t iova = first + random_next(&seed) % 32 * PAGE;
		uint64_t size = (1 + random_next(&seed) % 32) * PAGE;
		struct dmacore_translation found;
		uint64_t unmapped = 0;

		worker->wrong += dmacore_pagetable_map(table, iova, iova + GIB, size,
						       DMACORE_ACCESS_READ) != 0;
		worker->wrong += dmacore_pagetable_translate(table, iova + size - 1,
							     DMACORE_ACCESS_READ, &found) != 0;
		worker->wrong += found.target != iova + size - PAGE + GIB;
		/* A page that stays, at the seam of all ranges. */
		worker->wrong += dmacore_pagetable_translate(table, GIB - PAGE, 0, &found) != 0;
		worker->wrong += dmacore_pagetable_unmap(table, iova, size, 0, &unmapped) != 0;
		worker->wrong += unmapped != size;
		worker->wrong += dmacore_pagetable_translate(table, iova, 0, &found) != -ENOENT;
	}
	return NULL;
}

static void pagetable_map__works_on_ranges_beside_each_other(void **state)
{
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };
	struct worker workers[THREADS] = { 0 };
	struct dmacore_pagetable *table;

	(void)state;
	assert_ok(dmacore_pagetable_create(NULL, &table));
	assert_ok(dmacore_pagetable_map(table, GIB - PAGE, 0, PAGE, DMACORE_ACCESS_READ));
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .shared = table, .index = i };
		start(&workers[i], map_own_range);
	}
	for (unsigned i = 0; i < THREADS; i++)
		join(&workers[i]);
	assert_ok(dmacore_pagetable_statistics(table, &statistics));
	assert_int_equal(statistics.mapped_bytes, PAGE);
	/* The root, one below it, and one of each lower level on both sides of the GiB. */
	assert_int_equal(statistics.table_count, 6);
	dmacore_pagetable_destroy(table);
}

/* What a worker has of the domain: a table's span, and a half that it shares with a neighbour. */
#define OWN_SIZE (3 * MIB)
#define OWN_FIRST (GIB - MIB)

/*
 * Maps pages of memory of its own for the device, has them read and written, and unmaps them; and
 * at times a large leaf, which it splits, where the pages had a table.
 */
static void *domain_map_own_range(void *opaque)
{
	struct worker *worker = opaque;
	struct dmacore_domain *domain = worker->machine->domain;
	const uint64_t first = OWN_FIRST + worker->index * OWN_SIZE;
	const uint64_t large = (first + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
	uint8_t *own = worker->machine->low + worker->index * 4 * PAGE;
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t iova = first + random_next(&seed) % (OWN_SIZE / PAGE - 4) * PAGE;
		uint64_t size = (1 + random_next(&seed) % 4) * PAGE;
		uint8_t bytes[4 * PAGE];
		uint64_t unmapped = 0;

		worker->wrong +=
			dmacore_domain_map(domain, iova, LOW_BASE + worker->index * 4 * PAGE, size,
					   DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE) != 0;
		fill(bytes, size, random_next(&seed));
		worker->wrong += dmacore_view_write(worker->view, iova, bytes, size) != 0;
		worker->wrong += memcmp(own, bytes, size) != 0;
		/* All of its range, and so the table that lies in it. */
		worker->wrong += dmacore_domain_unmap(domain, first, OWN_SIZE,
						      DMACORE_UNMAP_CROSS_HOLES, &unmapped) != 0;
		worker->wrong += unmapped != size;
		worker->wrong += dmacore_view_read(worker->view, iova, bytes, 1) != -ENOENT;
		if (round % 4 != 0)
			continue;
		worker->wrong +=
			dmacore_domain_map(domain, large, 0, 2 * MIB, DMACORE_ACCESS_READ) != 0;
		/* To its end, behind which a neighbour may map and unmap. */
		worker->wrong += dmacore_domain_unmap(domain, large + PAGE, 2 * MIB - PAGE,
						      DMACORE_UNMAP_SPLIT, &unmapped) != 0;
		worker->wrong += unmapped != 2 * MIB - PAGE;
		worker->wrong += dmacore_domain_unmap(domain, large, PAGE, 0, &unmapped) != 0;
		worker->wrong += unmapped != PAGE;
	}
	return NULL;
}

/* Looks at any place that others map and unmap, and at one that stays. */
static void *domain_translate_anything(void *opaque)
{
	struct worker *worker = opaque;
	uint64_t seed = worker->index;

	while (!atomic_load(worker->stop)) {
		uint64_t iova = OWN_FIRST + random_next(&seed) % (THREADS * OWN_SIZE);
		struct dmacore_translation found;
		uint8_t byte = 0;
		int error = dmacore_domain_translate(worker->machine->domain, iova,
						     DMACORE_ACCESS_READ, &found);

		worker->wrong += error && error != -ENOENT;
		worker->wrong += !error && (found.first > iova || found.last < iova);
		worker->wrong += dmacore_view_read(worker->view, 5, &byte, 1) != 0;
		worker->wrong += byte != 55;
	}
	return NULL;
}

static void domain_map__works_on_ranges_beside_each_other(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct worker mappers[THREADS] = { 0 }, readers[2] = { 0 };
	struct dmacore_device *device;
	struct dmacore_view *view;
	atomic_bool stop = false;

	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	/* Faults are wanted here, and none need be told. */
	options.fault = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &view));
	machine->high[5] = 55;
	assert_ok(dmacore_domain_map(machine->domain, 0, HIGH_BASE, PAGE, DMACORE_ACCESS_READ));
	for (unsigned i = 0; i < 2; i++) {
		readers[i] = (struct worker){
			.machine = machine, .view = view, .index = i, .stop = &stop
		};
		start(&readers[i], domain_translate_anything);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		mappers[i] = (struct worker){ .machine = machine, .view = view, .index = i };
		start(&mappers[i], domain_map_own_range);
	}
	for (unsigned i = 0; i < THREADS; i++)
		join(&mappers[i]);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		join(&readers[i]);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, PAGE);
	assert_int_equal(domain_statistics(machine->domain).table_count, machine->tables.live);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

/* Small pages and a large leaf in the same places by turns, so that leaves replace tables. */
static void *map_small_and_large(void *opaque)
{
	struct worker *worker = opaque;
	struct machine *machine = worker->machine;

	for (unsigned round = 0; round < ROUNDS; round++) {
		dmacore_dma_t dma[4];
		int error = dmacore_map_phys(worker->device, GIB, 2 * MIB, DMACORE_TO_DEVICE, 0,
					     &dma[0]);

		worker->wrong += error && error != -ENOSPC;
		if (!error)
			worker->wrong += dmacore_unmap(worker->device, dma[0], 2 * MIB,
						       DMACORE_TO_DEVICE, 0) != 0;
		for (unsigned i = 0; i < 4; i++)
			worker->wrong += dmacore_map_single(worker->device, machine->low, PAGE,
							    DMACORE_TO_DEVICE, 0, &dma[i]) != 0;
		for (unsigned i = 0; i < 4; i++)
			worker->wrong += dmacore_unmap(worker->device, dma[i], PAGE,
						       DMACORE_TO_DEVICE, 0) != 0;
	}
	return NULL;
}

static void *translate_anything(void *opaque)
{
	struct worker *worker = opaque;
	uint64_t seed = 1;

	while (!atomic_load(worker->stop)) {
		uint64_t dma = random_next(&seed) % (8 * MIB);
		struct dmacore_translation found;
		int error = dmacore_view_translate(worker->view, dma, DMACORE_ACCESS_READ, &found);

		worker->wrong += error && error != -ENOENT;
		worker->wrong += !error && (found.first > dma || found.last < dma);
	}
	return NULL;
}

static void view_translate__is_safe_while_leaves_replace_tables(void **state)
{
	struct machine *machine = *state;
	struct worker walker = { .view = machine->view };
	struct worker mappers[2] = { 0 };
	atomic_bool stop = false;

	/* Room for two large leaves, of which one is small pages at times. */
	machine_narrow(machine, 2 * MIB, 6 * MIB - 1);
	walker.stop = &stop;
	start(&walker, translate_anything);
	for (unsigned i = 0; i < 2; i++) {
		mappers[i] = (struct worker){ .machine = machine, .device = machine->device };
		start(&mappers[i], map_small_and_large);
	}
	for (unsigned i = 0; i < 2; i++)
		join(&mappers[i]);
	atomic_store(&stop, true);
	join(&walker);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

struct meeting {
	struct dmacore_pagetable *table;
	/* Two counts of rounds: begun by the test, done by the thread. */
	atomic_uint begun;
	atomic_uint done;
};

/* In each round maps a page in tables that nobody has made yet, just when the test does too. */
static void *map_at_once(void *opaque)
{
	struct worker *worker = opaque;
	struct meeting *meeting = worker->shared;

	for (unsigned round = 1; round <= 4 * ROUNDS; round++) {
		while (atomic_load(&meeting->begun) != round)
			sched_yield();
		worker->wrong += dmacore_pagetable_map(meeting->table, GIB, 0, PAGE,
						       DMACORE_ACCESS_READ) != 0;
		atomic_store(&meeting->done, round);
	}
	return NULL;
}

static void pagetable_map__makes_each_table_once(void **state)
{
	struct meeting meeting = { .begun = 0 };
	struct worker worker = { .shared = &meeting };

	(void)state;
	start(&worker, map_at_once);
	for (unsigned round = 1; round <= 4 * ROUNDS; round++) {
		struct dmacore_pagetable_statistics statistics = {
			.struct_size = sizeof(statistics),
		};
		struct dmacore_translation found;

		assert_ok(dmacore_pagetable_create(NULL, &meeting.table));
		atomic_store(&meeting.begun, round);
		assert_ok(dmacore_pagetable_map(meeting.table, GIB + PAGE, PAGE, PAGE,
						DMACORE_ACCESS_READ));
		while (atomic_load(&meeting.done) != round)
			sched_yield();
		assert_ok(dmacore_pagetable_translate(meeting.table, GIB, 0, &found));
		assert_int_equal(found.target, 0);
		assert_ok(dmacore_pagetable_translate(meeting.table, GIB + PAGE, 0, &found));
		assert_int_equal(found.target, PAGE);
		assert_ok(dmacore_pagetable_statistics(meeting.table, &statistics));
		assert_int_equal(statistics.table_count, 4);
		assert_int_equal(statistics.mapped_bytes, 2 * PAGE);
		dmacore_pagetable_destroy(meeting.table);
	}
	join(&worker);
}

#define SPACE_PAGES 512

struct ownership {
	struct dmacore_iova_space *space;
	atomic_uint owners[SPACE_PAGES];
};

/* Allocates and frees, and finds every page that it is given free of other owners. */
static void *own_pages(void *opaque)
{
	struct worker *worker = opaque;
	struct ownership *ownership = worker->shared;
	struct {
		dmacore_iova_t iova;
		uint64_t pages;
	} live[16];
	unsigned count = 0;
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < 8 * ROUNDS || count; round++) {
		bool grow = round < 8 * ROUNDS && count < 16 && random_next(&seed) % 2;

		if (grow) {
			uint64_t pages = 1 + random_next(&seed) % 7;
			dmacore_iova_t iova;
			int error = dmacore_iova_space_allocate(ownership->space, pages * PAGE, 0,
								UINT64_MAX, &iova);

			worker->wrong += error && error != -ENOSPC;
			if (error)
				continue;
			for (uint64_t i = 0; i < pages; i++)
				worker->wrong +=
					atomic_fetch_add(&ownership->owners[iova / PAGE + i], 1) !=
					0;
			live[count].iova = iova;
			live[count++].pages = pages;
		} else if (count) {
			unsigned which = random_next(&seed) % count;

			for (uint64_t i = 0; i < live[which].pages; i++)
				atomic_fetch_sub(&ownership->owners[live[which].iova / PAGE + i],
						 1);
			worker->wrong += dmacore_iova_space_free(ownership->space, live[which].iova,
								 live[which].pages * PAGE) != 0;
			live[which] = live[--count];
		}
	}
	return NULL;
}

static void iova_space_allocate__gives_no_address_to_two_threads(void **state)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };
	static struct ownership ownership;
	struct worker workers[THREADS] = { 0 };
	dmacore_iova_t iova;

	(void)state;
	options.last = SPACE_PAGES * PAGE - 1;
	assert_ok(dmacore_iova_space_create(&options, &ownership.space));
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .shared = &ownership, .index = i };
		start(&workers[i], own_pages);
	}
	for (unsigned i = 0; i < THREADS; i++)
		join(&workers[i]);
	assert_ok(dmacore_iova_space_statistics(ownership.space, &statistics));
	assert_int_equal(statistics.allocated_count, 0);
	assert_int_equal(statistics.refused_frees, 0);
	/* Whatever caches hold, all of it is there for whoever wants it in one piece. */
	assert_ok(dmacore_iova_space_allocate(ownership.space, SPACE_PAGES * PAGE, 0, UINT64_MAX,
					      &iova));
	assert_int_equal(iova, 0);
	dmacore_iova_space_destroy(ownership.space);
}

/* A queue of ranges from the threads that allocate to those that free. */
#define PASSED_MAX 64

struct passing {
	struct dmacore_iova_space *space;
	atomic_uint owners[SPACE_PAGES];
	pthread_mutex_t lock;
	struct {
		dmacore_iova_t iova;
		uint64_t pages;
	} passed[PASSED_MAX];
	unsigned count;
	unsigned givers;
};

#define PASSING_BASE (4 * GIB - SPACE_PAGES / 2 * PAGE)

/* Allocates, for a device of 32 bits or of 64 by the worker's number, and passes on. */
static void *allocate_and_pass(void *opaque)
{
	struct worker *worker = opaque;
	struct passing *passing = worker->shared;
	uint64_t limit = worker->index % 2 ? UINT32_MAX : UINT64_MAX;
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < 8 * ROUNDS; round++) {
		uint64_t pages = 1 + random_next(&seed) % 8;
		dmacore_iova_t iova;
		int error =
			dmacore_iova_space_allocate(passing->space, pages * PAGE, 0, limit, &iova);
		bool is_passed = false;

		worker->wrong += error && error != -ENOSPC;
		if (error) {
			sched_yield();
			continue;
		}
		worker->wrong += iova + pages * PAGE - 1 > limit;
		for (uint64_t i = 0; i < pages; i++)
			worker->wrong +=
				atomic_fetch_add(&passing->owners[(iova - PASSING_BASE) / PAGE + i],
						 1) != 0;
		while (!is_passed) {
			pthread_mutex_lock(&passing->lock);
			is_passed = passing->count < PASSED_MAX;
			if (is_passed) {
				passing->passed[passing->count].iova = iova;
				passing->passed[passing->count++].pages = pages;
			}
			pthread_mutex_unlock(&passing->lock);
			if (!is_passed)
				sched_yield();
		}
	}
	pthread_mutex_lock(&passing->lock);
	passing->givers--;
	pthread_mutex_unlock(&passing->lock);
	return NULL;
}

static void *take_and_free(void *opaque)
{
	struct worker *worker = opaque;
	struct passing *passing = worker->shared;
	bool is_over = false;

	for (unsigned round = 0; !is_over; round++) {
		dmacore_iova_t iova = 0;
		uint64_t pages = 0;

		pthread_mutex_lock(&passing->lock);
		if (passing->count) {
			iova = passing->passed[--passing->count].iova;
			pages = passing->passed[passing->count].pages;
		} else {
			is_over = passing->givers == 0;
		}
		pthread_mutex_unlock(&passing->lock);
		for (uint64_t i = 0; i < pages; i++)
			atomic_fetch_sub(&passing->owners[(iova - PASSING_BASE) / PAGE + i], 1);
		if (pages)
			worker->wrong +=
				dmacore_iova_space_free(passing->space, iova, pages * PAGE) != 0;
		else
			sched_yield();
		if (round % 1024 == 0)
			worker->wrong += dmacore_iova_space_drain(passing->space) != 0;
	}
	return NULL;
}

static void iova_space_free__takes_what_another_thread_allocated(void **state)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };
	static struct passing passing = { .lock = PTHREAD_MUTEX_INITIALIZER, .givers = THREADS };
	struct worker givers[THREADS] = { 0 }, takers[2] = { 0 };
	dmacore_iova_t iova;

	(void)state;
	options.first = PASSING_BASE;
	options.last = PASSING_BASE + SPACE_PAGES * PAGE - 1;
	assert_ok(dmacore_iova_space_create(&options, &passing.space));
	for (unsigned i = 0; i < THREADS; i++) {
		givers[i] = (struct worker){ .shared = &passing, .index = i };
		start(&givers[i], allocate_and_pass);
	}
	for (unsigned i = 0; i < 2; i++) {
		takers[i] = (struct worker){ .shared = &passing };
		start(&takers[i], take_and_free);
	}
	for (unsigned i = 0; i < THREADS; i++)
		join(&givers[i]);
	for (unsigned i = 0; i < 2; i++)
		join(&takers[i]);
	assert_ok(dmacore_iova_space_statistics(passing.space, &statistics));
	assert_int_equal(statistics.allocated_count, 0);
	assert_int_equal(statistics.refused_frees, 0);
	assert_ok(dmacore_iova_space_allocate(passing.space, SPACE_PAGES * PAGE, 0, UINT64_MAX,
					      &iova));
	assert_int_equal(iova, PASSING_BASE);
	dmacore_iova_space_destroy(passing.space);
}

/* Two devices of a group, and domains in each of which one address leads elsewhere. */
#define CONTEST_FIRST UINT64_C(0x10000)
#define CONTEST_LAST UINT64_C(0xfffff)
#define CONTEST_SPOT (CONTEST_LAST + 1 - PAGE)
#define OWNERS 2

/* The default domain is one of two. Behind them, each owner has one. */
enum { DEFAULTS = 2, CONTEST_DOMAINS = DEFAULTS + OWNERS };

struct contest {
	struct dmacore_device *devices[2];
	struct dmacore_view *views[2];
	struct dmacore_domain *domains[CONTEST_DOMAINS];
	struct dmacore_dma_owner owners[OWNERS];
	/*
	 * What is known of where the group is: a count of changes, times CONTEST_DOMAINS + 1, and a
	 * domain's number plus one, or 0 for nothing. Only who owns the group changes it.
	 */
	atomic_uint known;
	/* How often a user, or a mapper, got what it wanted. */
	atomic_uint uses;
	atomic_uint maps;
};

/* The number of the domain that a device is in, by what a view finds; -EPERM if it is blocked. */
static int find_domain(struct dmacore_view *view)
{
	struct dmacore_translation found;
	int error = dmacore_view_translate(view, CONTEST_SPOT, DMACORE_ACCESS_READ, &found);

	if (error)
		return error;
	if (found.first != CONTEST_SPOT || found.target < LOW_BASE)
		return -ERANGE;
	return (int)((found.target - LOW_BASE) / PAGE);
}

static void make_known(struct contest *contest, unsigned what)
{
	unsigned changes = atomic_load(&contest->known) / (CONTEST_DOMAINS + 1) + 1;

	atomic_store(&contest->known, changes * (CONTEST_DOMAINS + 1) + what);
}

/* What a thread finds wrong, and the line where it first did. */
#define EXPECT_NOT(wrong_)                               \
	do {                                             \
		if (wrong_) {                            \
			worker->wrong++;                 \
			if (worker->line == 0)           \
				worker->line = __LINE__; \
		}                                        \
	} while (0)

/* A call that may have to wait for others to end their mappings. */
#define UNTIL_NOT_BUSY(call)                        \
	({                                          \
		int error_;                         \
                                                    \
		while ((error_ = (call)) == -EBUSY) \
			sched_yield();              \
		error_;                             \
	})

/* Claims the group, by turns through either device, and has it in the owner's domain for a while. */
static void *own_group(void *opaque)
{
	struct worker *worker = opaque;
	struct contest *contest = worker->shared;
	struct dmacore_dma_owner *owner = &contest->owners[worker->index];
	int own = DEFAULTS + (int)worker->index;

	for (unsigned round = 0; round < ROUNDS / 32;) {
		struct dmacore_device *device = contest->devices[round % 2];
		int error = dmacore_device_claim_dma_owner(device, owner);

		if (error) {
			EXPECT_NOT(error != -EBUSY && error != -EPERM);
			sched_yield();
			continue;
		}
		round++;
		for (unsigned i = 0; i < 2; i++)
			EXPECT_NOT(find_domain(contest->views[i]) != -EPERM);
		EXPECT_NOT(dmacore_device_use_default_domain(device) != -EBUSY);
		EXPECT_NOT(UNTIL_NOT_BUSY(dmacore_device_attach(device, contest->domains[own],
								owner)) != 0);
		make_known(contest, own + 1);
		for (unsigned i = 0; i < 32; i++)
			EXPECT_NOT(find_domain(contest->views[i % 2]) != own);
		make_known(contest, 0);
		if (round % 3 == 0) {
			EXPECT_NOT(UNTIL_NOT_BUSY(dmacore_device_detach(device, owner)) != 0);
			for (unsigned i = 0; i < 2; i++)
				EXPECT_NOT(find_domain(contest->views[i]) != -EPERM);
		}
		EXPECT_NOT(UNTIL_NOT_BUSY(dmacore_device_release_dma_owner(device, owner)) != 0);
		sched_yield();
	}
	return NULL;
}

/* Changes the default domain, or takes it away for a while, when nobody has the group. */
static void *replace_default(void *opaque)
{
	struct worker *worker = opaque;
	struct contest *contest = worker->shared;
	uint64_t seed = worker->index;

	while (!atomic_load(worker->stop)) {
		uint64_t random = random_next(&seed);
		struct dmacore_device *device = contest->devices[random % 2];
		struct dmacore_domain *domain = contest->domains[random / 2 % DEFAULTS];
		int error;

		if (random % 16 < 12) {
			error = dmacore_domain_replace(domain, device);
		} else if (random % 16 < 14) {
			/* It may be the other one that is the default domain. */
			error = dmacore_domain_detach(domain, device);
			if (error == -EINVAL)
				error = 0;
		} else {
			error = dmacore_domain_attach(domain, device);
		}
		EXPECT_NOT(error && error != -EBUSY && error != -EPERM);
		sched_yield();
	}
	return NULL;
}

/* Maps a page of its own and finds it there; tells whether the device could map. */
static bool map_and_find(struct worker *worker)
{
	struct contest *contest = worker->shared;
	uint8_t *page = worker->machine->high + worker->index * PAGE;
	struct dmacore_device *device = contest->devices[worker->index % 2];
	struct dmacore_translation found = { 0 };
	dmacore_dma_t dma;
	int error = dmacore_map_single(device, page, PAGE, DMACORE_TO_DEVICE, 0, &dma);

	EXPECT_NOT(error && error != -EPERM);
	if (error)
		return false;
	/* While it lives the domain stays. */
	for (unsigned i = 0; i < 4; i++) {
		EXPECT_NOT(dmacore_view_translate(contest->views[i % 2], dma, 0, &found) != 0);
		EXPECT_NOT(found.target != HIGH_BASE + worker->index * PAGE);
	}
	EXPECT_NOT(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0) != 0);
	return true;
}

/* Maps by and by, whoever has the group. */
static void *map_in_any_domain(void *opaque)
{
	struct worker *worker = opaque;
	struct contest *contest = worker->shared;

	while (!atomic_load(worker->stop)) {
		if (map_and_find(worker))
			atomic_fetch_add(&contest->maps, 1);
		sched_yield();
	}
	return NULL;
}

/* Says that it uses the DMA API, and then relies on the default domain. */
static void *use_default(void *opaque)
{
	struct worker *worker = opaque;
	struct contest *contest = worker->shared;
	struct dmacore_device *device = contest->devices[worker->index % 2];

	while (!atomic_load(worker->stop)) {
		int error = dmacore_device_use_default_domain(device), domain;

		if (error) {
			EXPECT_NOT(error != -EBUSY && error != -ENODEV);
			sched_yield();
			continue;
		}
		atomic_fetch_add(&contest->uses, 1);
		domain = find_domain(contest->views[0]);
		EXPECT_NOT(domain < 0 || domain >= DEFAULTS);
		EXPECT_NOT(!map_and_find(worker));
		for (unsigned i = 0; i < 2; i++)
			EXPECT_NOT(find_domain(contest->views[i]) != domain);
		EXPECT_NOT(dmacore_device_unuse_default_domain(device) != 0);
		sched_yield();
	}
	return NULL;
}

/* Looks all the time where the devices are. */
static void *look_around(void *opaque)
{
	struct worker *worker = opaque;
	struct contest *contest = worker->shared;

	for (unsigned round = 0; !atomic_load(worker->stop); round++) {
		unsigned known = atomic_load(&contest->known);
		int domain = find_domain(contest->views[round % 2]);

		EXPECT_NOT(domain >= CONTEST_DOMAINS || (domain < 0 && domain != -EPERM));
		if (known % (CONTEST_DOMAINS + 1) != 0 && atomic_load(&contest->known) == known)
			EXPECT_NOT(domain + 1 != (int)(known % (CONTEST_DOMAINS + 1)));
	}
	return NULL;
}

static void group__is_in_no_domain_but_that_of_who_has_it(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	static struct contest contest;
	struct worker owners[OWNERS] = { 0 }, others[6] = { 0 };
	void *(*const run[6])(void *) = { map_in_any_domain, map_in_any_domain, use_default,
					  use_default,	     replace_default,	look_around };
	struct dmacore_device *helpers[CONTEST_DOMAINS];
	dmacore_dma_t dma;
	atomic_bool stop = false;
	unsigned tables = machine->tables.live;

	memset(&contest, 0, sizeof(contest));
	/* A device outside of the group has the address in each domain. */
	for (unsigned i = 0; i < CONTEST_DOMAINS; i++) {
		contest.domains[i] =
			make_domain(machine, DMACORE_DOMAIN_DMA, CONTEST_FIRST, CONTEST_LAST);
		helpers[i] = make_device(machine);
		assert_ok(dmacore_domain_attach(contest.domains[i], helpers[i]));
		assert_ok(dmacore_map_single(helpers[i], machine->low + i * PAGE, PAGE,
					     DMACORE_TO_DEVICE, 0, &dma));
		assert_int_equal(dma, CONTEST_SPOT);
	}
	assert_ok(dmacore_group_create(machine->system, &options.group));
	for (unsigned i = 0; i < 2; i++) {
		assert_ok(dmacore_device_create(machine->system, &options, &contest.devices[i]));
		assert_ok(dmacore_view_create(contest.devices[i], &contest.views[i]));
		contest.owners[i] = owner;
	}
	dmacore_group_destroy(options.group);

	for (unsigned i = 0; i < 6; i++) {
		others[i] = (struct worker){
			.machine = machine, .shared = &contest, .index = i, .stop = &stop
		};
		start(&others[i], run[i]);
	}
	for (unsigned i = 0; i < OWNERS; i++) {
		owners[i] = (struct worker){ .shared = &contest, .index = i };
		start(&owners[i], own_group);
	}
	for (unsigned i = 0; i < OWNERS; i++)
		join(&owners[i]);
	/* Everybody got a turn. */
	while (atomic_load(&contest.uses) < 10 || atomic_load(&contest.maps) < 10)
		sched_yield();
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 6; i++)
		join(&others[i]);

	for (unsigned i = 0; i < 2; i++) {
		dmacore_view_destroy(contest.views[i]);
		dmacore_device_destroy(contest.devices[i]);
	}
	for (unsigned i = 0; i < CONTEST_DOMAINS; i++) {
		assert_int_equal(domain_statistics(contest.domains[i]).device_count, 1);
		assert_int_equal(domain_statistics(contest.domains[i]).mapped_bytes, PAGE);
		assert_ok(dmacore_unmap(helpers[i], CONTEST_SPOT, PAGE, DMACORE_TO_DEVICE, 0));
		dmacore_device_destroy(helpers[i]);
		dmacore_domain_destroy(contest.domains[i]);
	}
	assert_int_equal(machine->tables.live, tables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_recorded(map_single__and_unmap_work_from_many_threads_on_one_device),
		test_on_recorded(map_single__and_unmap_work_from_a_thread_per_device),
		test_on_recorded(view_read__is_steady_while_others_map_and_unmap),
		test_on(TRACKED, unmap__waits_for_accesses_in_flight),
		test_on_translated(unmap__waits_for_accesses_in_flight),
		test_on_translated(domain_unmap__waits_for_accesses_in_flight),
		test_on(DIRECT, memory_remove__waits_for_accesses_in_flight),
		test_on(DIRECT, memory_remove__is_refused_while_a_callback_runs),
		test_on_translated(view_translate__is_safe_while_leaves_replace_tables),
		test_on(TRANSLATED, domain_map__works_on_ranges_beside_each_other),
		test_on_translated(group__is_in_no_domain_but_that_of_who_has_it),
		cmocka_unit_test(pagetable_map__works_on_ranges_beside_each_other),
		cmocka_unit_test(pagetable_map__makes_each_table_once),
		cmocka_unit_test(iova_space_allocate__gives_no_address_to_two_threads),
		cmocka_unit_test(iova_space_free__takes_what_another_thread_allocated),
	};

	return run_group("threads", tests);
}
