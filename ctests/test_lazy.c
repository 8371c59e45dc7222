/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* DMA domains whose unmaps are lazy, and what flushes them. */

#include "support/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* More than the default, so that ticks before it are none too early by chance. */
#define AGE UINT64_C(1000000)
/* Times of other magnitudes than ages. */
#define START (UINT64_C(1) << 40)

static struct dmacore_domain *make_lazy(struct machine *machine, uint32_t entries, uint64_t age,
					uint64_t last)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = DMACORE_DOMAIN_DMA_LAZY;
	options.flush_entries = entries;
	options.flush_age = age;
	options.last = last;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	return domain;
}

/* Replaces the domain of the machine's device by a lazy one. */
static void use_lazy(struct machine *machine, uint32_t entries, uint64_t age, uint64_t last)
{
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = make_lazy(machine, entries, age, last);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static int lazy_setup(void **state)
{
	machine_setup(state);
	use_lazy(*state, 4, AGE, 0);
	return 0;
}

/* On a machine whose device is in a lazy domain with batches of four. */
#define test_lazily(function)                                                                    \
	{                                                                                        \
#function, function, lazy_setup, machine_teardown, (void *)(uintptr_t)TRANSLATED \
	}

static dmacore_dma_t map_pages(struct machine *machine, uint64_t pages)
{
	return map_for(machine, machine->low, pages * PAGE, DMACORE_TO_DEVICE);
}

static void unmap_pages(struct machine *machine, dmacore_dma_t dma, uint64_t pages)
{
	assert_ok(dmacore_unmap(machine->device, dma, pages * PAGE, DMACORE_TO_DEVICE, 0));
}

static dmacore_dma_t map_and_unmap(struct machine *machine)
{
	dmacore_dma_t dma = map_pages(machine, 1);

	unmap_pages(machine, dma, 1);
	return dma;
}

#define assert_queued(domain, count, flushes)                                             \
	do {                                                                              \
		struct dmacore_domain_statistics statistics_ = domain_statistics(domain); \
                                                                                          \
		assert_int_equal(statistics_.queued_count, count);                        \
		assert_int_equal(statistics_.flush_count, flushes);                       \
	} while (0)

/* Options. */

static void domain_create__takes_what_makes_a_flush_for_lazy_domains_alone(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	for (uint32_t type = DMACORE_DOMAIN_IDENTITY; type < DMACORE_DOMAIN_DMA_LAZY; type++) {
		options.type = type;
		options.flush_entries = 1;
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain),
				       EINVAL, domain);
		options.flush_entries = 0;
		options.flush_age = 1;
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain),
				       EINVAL, domain);
		options.flush_age = 0;
		options.reserved = 1;
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain),
				       EINVAL, domain);
		options.reserved = 0;
	}
	options.type = DMACORE_DOMAIN_DMA_LAZY;
	options.reserved = 1;
	assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), EINVAL,
			       domain);
	options.reserved = 0;
	options.flags = 1;
	assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), EINVAL,
			       domain);
}

static void domain_create__takes_batches_of_up_to_65536(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	static const uint32_t too_many[] = { 65537, UINT32_MAX };
	struct dmacore_domain *domain;

	options.type = DMACORE_DOMAIN_DMA_LAZY;
	for (unsigned i = 0; i < 2; i++) {
		options.flush_entries = too_many[i];
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain),
				       EINVAL, domain);
	}
	dmacore_domain_destroy(make_lazy(machine, 65536, UINT64_MAX, 0));
}

static void domain_create__checks_bounds_of_lazy_domains_too(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	options.type = DMACORE_DOMAIN_DMA_LAZY;
	options.first = 0x1800;
	assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), EINVAL,
			       domain);
	options.first = 0;
	options.last = UINT64_MAX;
	assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), ERANGE,
			       domain);
}

/* What an unmap does at once, and what not. */

static void unmap__lets_nothing_through_at_once(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_and_unmap(machine);
	struct dmacore_translation found;
	uint8_t byte;

	assert_queued(machine->domain, 1, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_fails(dmacore_domain_translate(machine->domain, dma, 0, &found), ENOENT);
	assert_fails(dmacore_view_read(machine->view, dma, &byte, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, dma, dma, DMACORE_ACCESS_READ);
	/* It is unmapped, and a second time it is misuse. */
	assert_misuse(machine, dmacore_unmap(machine->device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_queued(machine->domain, 1, 0);
}

static void unmap__keeps_the_addresses_until_the_flush(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t first = map_and_unmap(machine), second = map_pages(machine, 1);

	/* A strict domain gives the same page again. */
	assert_int_not_equal(second, first);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 2);
	assert_int_equal(domain_statistics(machine->domain).iova_bytes, 2 * PAGE);
	assert_int_equal(domain_statistics(machine->domain).queued_bytes, PAGE);
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_queued(machine->domain, 0, 1);
	assert_int_equal(domain_statistics(machine->domain).queued_bytes, 0);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 1);
	assert_int_equal(map_pages(machine, 1), first);
	unmap_pages(machine, first, 1);
	unmap_pages(machine, second, 1);
}

static void unmap__counts_the_whole_pages_that_wait(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->low + 100, PAGE, DMACORE_FROM_DEVICE);

	assert_ok(dmacore_unmap(machine->device, dma, PAGE, DMACORE_FROM_DEVICE, 0));
	assert_int_equal(domain_statistics(machine->domain).queued_bytes, 2 * PAGE);
}

static void unmap__reports_a_zero_copy_mapping_at_once(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_pages(machine, 2);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	assert_ok(dmacore_view_map(machine->view, dma + PAGE, 1, DMACORE_ACCESS_READ, &mapping,
				   &segments, &count));
	unmap_pages(machine, dma, 2);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	/* Nor does the flush wait for it. */
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_queued(machine->domain, 0, 1);
	/* It is of no later mapping at the same addresses. */
	assert_int_equal(map_pages(machine, 2), dma);
	unmap_pages(machine, dma, 2);
	dmacore_view_unmap(mapping);
}

static void free_coherent__is_strict_in_a_lazy_domain(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma, again;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
	assert_queued(machine->domain, 0, 0);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &again));
	assert_int_equal(again, dma);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, again));
}

/* What flushes. */

static void unmap__flushes_once_for_each_full_batch(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma[9];

	for (unsigned i = 0; i < 9; i++)
		dma[i] = map_pages(machine, 1);
	for (unsigned i = 0; i < 9; i++) {
		unmap_pages(machine, dma[i], 1);
		assert_queued(machine->domain, (i + 1) % 4, (i + 1) / 4);
	}
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 1);
}

static void unmap__flushes_the_default_number_of_ranges(void **state)
{
	struct machine *machine = *state;

	use_lazy(machine, 0, 0, 0);
	for (unsigned i = 0; i < 255; i++)
		(void)map_and_unmap(machine);
	assert_queued(machine->domain, 255, 0);
	(void)map_and_unmap(machine);
	assert_queued(machine->domain, 0, 1);
}

static void unmap__frees_pages_without_a_flush_where_no_access_is_in_flight(void **state)
{
	struct machine *machine = *state;

	use_lazy(machine, 0, 0, 0);
	for (unsigned i = 0; i < 1000; i++) {
		(void)map_and_unmap(machine);
		/* Some for each processor that the thread has been on. */
		assert_in_range(domain_statistics(machine->domain).queued_count, 0, 100);
	}
	assert_int_equal(domain_statistics(machine->domain).flush_count, 0);
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_int_equal(domain_statistics(machine->domain).queued_count, 0);
}

static void unmap__queues_nothing_in_batches_of_one(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;

	use_lazy(machine, 1, AGE, 0);
	dma = map_and_unmap(machine);
	assert_queued(machine->domain, 0, 1);
	assert_int_equal(map_and_unmap(machine), dma);
	assert_queued(machine->domain, 0, 2);
}

static void tick__flushes_what_is_old_enough(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_system_tick(machine->system, START));
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, START + AGE - 1));
	assert_queued(machine->domain, 1, 0);
	/* The first range of the batch counts. */
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, START + AGE));
	assert_queued(machine->domain, 0, 1);
	/* The next one's age starts with that tick. */
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, START + 2 * AGE - 1));
	assert_queued(machine->domain, 1, 1);
	assert_ok(dmacore_system_tick(machine->system, START + 2 * AGE));
	assert_queued(machine->domain, 0, 2);
	/* With nothing queued there is nothing to flush. */
	assert_ok(dmacore_system_tick(machine->system, START + 9 * AGE));
	assert_queued(machine->domain, 0, 2);
}

static void tick__flushes_after_ten_milliseconds_by_default(void **state)
{
	struct machine *machine = *state;

	use_lazy(machine, 0, 0, 0);
	assert_ok(dmacore_system_tick(machine->system, START));
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, START + 9999999));
	assert_queued(machine->domain, 1, 0);
	assert_ok(dmacore_system_tick(machine->system, START + 10000000));
	assert_queued(machine->domain, 0, 1);
}

static void tick__bears_a_clock_that_goes_backwards_or_wraps(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_system_tick(machine->system, START));
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, START - 1));
	assert_queued(machine->domain, 0, 1);
	assert_ok(dmacore_system_tick(machine->system, 0));
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, UINT64_MAX));
	assert_queued(machine->domain, 0, 2);
	(void)map_and_unmap(machine);
	assert_ok(dmacore_system_tick(machine->system, AGE - 2));
	assert_queued(machine->domain, 1, 2);
	assert_ok(dmacore_system_tick(machine->system, AGE - 1));
	assert_queued(machine->domain, 0, 3);
}

static void tick__flushes_each_lazy_domain_by_its_own_age(void **state)
{
	struct machine *machine = *state;
	struct dmacore_domain *domains[3];
	struct dmacore_device *devices[3];
	dmacore_dma_t dma;

	assert_ok(dmacore_system_tick(machine->system, START));
	for (unsigned i = 0; i < 3; i++) {
		domains[i] = make_lazy(machine, 4, (i + 1) * AGE, 0);
		devices[i] = make_device(machine);
		assert_ok(dmacore_domain_attach(domains[i], devices[i]));
		assert_ok(dmacore_map_single(devices[i], machine->low, 1, DMACORE_TO_DEVICE, 0,
					     &dma));
		assert_ok(dmacore_unmap(devices[i], dma, 1, DMACORE_TO_DEVICE, 0));
	}
	assert_ok(dmacore_system_tick(machine->system, START + 2 * AGE));
	assert_queued(domains[0], 0, 1);
	assert_queued(domains[1], 0, 1);
	assert_queued(domains[2], 1, 0);
	/* In the middle of the list, and then at its ends. */
	for (unsigned i = 1; i < 4; i++) {
		dmacore_device_destroy(devices[i % 3]);
		dmacore_domain_destroy(domains[i % 3]);
		(void)map_and_unmap(machine);
		assert_ok(dmacore_system_tick(machine->system, START + (2 + i) * AGE));
		assert_queued(machine->domain, 0, i);
	}
}

static void tick__rejects_null(void **state)
{
	(void)state;
	assert_fails(dmacore_system_tick(NULL, 0), EINVAL);
}

static void tick__has_nothing_to_do_without_lazy_domains(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_system_tick(machine->system, 0));
	assert_ok(dmacore_system_tick(machine->system, UINT64_MAX));
}

static void flush__has_nothing_to_do_in_a_strict_domain(void **state)
{
	struct machine *machine = *state;

	(void)map_and_unmap(machine);
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_queued(machine->domain, 0, 0);
}

static void flush__is_not_counted_with_nothing_queued(void **state)
{
	struct machine *machine = *state;

	assert_ok(dmacore_domain_flush(machine->domain));
	assert_queued(machine->domain, 0, 0);
}

static void flush__rejects_what_is_no_dma_domain(void **state)
{
	static const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_BLOCKED,
					  DMACORE_DOMAIN_UNMANAGED };
	struct machine *machine = *state;

	assert_fails(dmacore_domain_flush(NULL), EINVAL);
	for (unsigned i = 0; i < 3; i++) {
		struct dmacore_domain *domain = make_domain(machine, types[i], 0, 0);

		assert_fails(dmacore_domain_flush(domain), EOPNOTSUPP);
		assert_queued(domain, 0, 0);
		dmacore_domain_destroy(domain);
	}
}

static void map__flushes_when_no_address_is_free(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma, none;

	/* Three pages, and a batch that is never full. */
	use_lazy(machine, 100, AGE, 4 * PAGE - 1);
	for (unsigned i = 0; i < 3; i++)
		(void)map_and_unmap(machine);
	assert_queued(machine->domain, 3, 0);
	dma = map_pages(machine, 1);
	assert_queued(machine->domain, 0, 1);
	/* A range that no single one which waits has room for. */
	unmap_pages(machine, dma, 1);
	(void)map_and_unmap(machine);
	dma = map_pages(machine, 3);
	assert_queued(machine->domain, 0, 2);
	/* Now there is none, waiting or not. */
	assert_fails_untouched(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &none),
		ENOSPC, none);
	/* Ranges are queued again after that. */
	unmap_pages(machine, dma, 3);
	assert_queued(machine->domain, 1, 2);
}

static void alloc_coherent__flushes_when_no_address_is_free(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	use_lazy(machine, 100, AGE, 2 * PAGE - 1);
	(void)map_and_unmap(machine);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	assert_queued(machine->domain, 0, 1);
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, dma));
}

/* Ends. */

static void domain_detach__is_not_kept_by_what_is_queued(void **state)
{
	struct machine *machine = *state;

	(void)map_and_unmap(machine);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_queued(machine->domain, 1, 0);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	(void)map_and_unmap(machine);
	assert_queued(machine->domain, 2, 0);
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_queued(machine->domain, 0, 1);
}

static void domain_destroy__takes_a_full_queue_along(void **state)
{
	struct machine *machine = *state;

	for (unsigned i = 0; i < 3; i++)
		(void)map_and_unmap(machine);
	assert_queued(machine->domain, 3, 0);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = NULL;
	assert_ok(dmacore_system_tick(machine->system, START));
}

static void device_destroy__queues_what_it_unmaps(void **state)
{
	struct machine *machine = *state;

	(void)map_pages(machine, 1);
	(void)map_pages(machine, 1);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_queued(machine->domain, 2, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

static void device_destroy__unmaps_coherent_memory_strictly(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma;
	void *cpu;

	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_queued(machine->domain, 0, 0);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
}

/* Threads. */

struct writer {
	struct dmacore_view *view;
	dmacore_dma_t dma;
	uint8_t bytes[RAM_SIZE];
	unsigned wrong;
};

static void *write_until_refused(void *opaque)
{
	struct writer *writer = opaque;
	int error;

	do
		error = dmacore_view_write(writer->view, writer->dma, writer->bytes, RAM_SIZE);
	while (!error);
	writer->wrong += error != -ENOENT;
	return NULL;
}

/* How the round waits until no write is in flight. */
static void flush_in(struct machine *machine, unsigned how)
{
	switch (how) {
	case 0:
		assert_ok(dmacore_domain_flush(machine->domain));
		break;
	case 1:
		assert_ok(dmacore_system_tick(machine->system, START));
		assert_ok(dmacore_system_tick(machine->system, START + AGE));
		break;
	default:
		for (unsigned i = 1; i < 4; i++)
			(void)map_and_unmap(machine);
		break;
	}
}

/* After the flush the memory is the caller's, whole. */
static void flush__waits_for_accesses_in_flight(void **state)
{
	struct machine *machine = *state;
	static struct writer writer;
	static uint8_t ours[RAM_SIZE];

	writer = (struct writer){ .view = machine->view };
	memset(writer.bytes, 0xdd, RAM_SIZE);
	memset(ours, 0x11, RAM_SIZE);
	for (unsigned round = 0; round < 30; round++) {
		volatile uint8_t *last = machine->high + RAM_SIZE - 1;
		pthread_t thread;

		memset(machine->high, 0, RAM_SIZE);
		writer.dma = map_for(machine, machine->high, RAM_SIZE, DMACORE_FROM_DEVICE);
		assert_ok(pthread_create(&thread, NULL, write_until_refused, &writer));
		while (*last == 0)
			sched_yield();
		assert_ok(dmacore_unmap(machine->device, writer.dma, RAM_SIZE, DMACORE_FROM_DEVICE,
					0));
		assert_queued(machine->domain, 1, round);
		flush_in(machine, round % 3);
		assert_queued(machine->domain, 0, round + 1);
		memcpy(machine->high, ours, RAM_SIZE);
		assert_ok(pthread_join(thread, NULL));
		assert_memory_equal(machine->high, ours, RAM_SIZE);
		(void)faults_take(machine);
	}
	assert_int_equal(writer.wrong, 0);
}

#define WORKERS 3
/* Beside two ranges of four pages there is room for a third wherever those lie. */
#define CROWD_PAGES 20

struct crowd {
	struct machine *machine;
	/* Who has each page of the domain. */
	atomic_uint owners[CROWD_PAGES + 1];
	atomic_bool stop;
};

struct worker {
	struct crowd *crowd;
	unsigned index;
	unsigned wrong;
	pthread_t thread;
};

/* Nobody else may have a page that the thread has mapped. */
static void *map_and_mark(void *opaque)
{
	struct worker *worker = opaque;
	struct machine *machine = worker->crowd->machine;
	uint64_t seed = worker->index;

	for (unsigned round = 0; round < 3000; round++) {
		uint64_t pages = 1 + random_next(&seed) % 4;
		unsigned free = 0;
		dmacore_dma_t dma;

		/* Each has four pages at most; what waits is theirs as well. */
		if (dmacore_map_phys(machine->device, LOW_BASE, pages * PAGE, DMACORE_TO_DEVICE, 0,
				     &dma)) {
			worker->wrong++;
			continue;
		}
		for (uint64_t i = 0; i < pages; i++, free = 0)
			worker->wrong += !atomic_compare_exchange_strong(
				&worker->crowd->owners[dma / PAGE + i], &free, worker->index + 1);
		for (uint64_t i = 0; i < pages; i++)
			atomic_store(&worker->crowd->owners[dma / PAGE + i], 0);
		worker->wrong += dmacore_unmap(machine->device, dma, pages * PAGE,
					       DMACORE_TO_DEVICE, 0) != 0;
	}
	return NULL;
}

static void *tick_and_flush(void *opaque)
{
	struct worker *worker = opaque;
	struct machine *machine = worker->crowd->machine;

	for (uint64_t now = START; !atomic_load(&worker->crowd->stop); now += AGE / 2) {
		worker->wrong += dmacore_system_tick(machine->system, now) != 0;
		if (worker->index % 2 == 0)
			worker->wrong += dmacore_domain_flush(machine->domain) != 0;
	}
	return NULL;
}

/* Little room, so that every way to flush meets every other one. */
static void map__gives_no_address_out_twice_beside_flushes(void **state)
{
	struct machine *machine = *state;
	static struct crowd crowd;
	struct worker workers[WORKERS + 2];

	use_lazy(machine, 4, AGE, (CROWD_PAGES + 1) * PAGE - 1);
	crowd.machine = machine;
	for (unsigned i = 0; i < WORKERS + 2; i++) {
		workers[i] = (struct worker){ .crowd = &crowd, .index = i };
		assert_ok(pthread_create(&workers[i].thread, NULL,
					 i < WORKERS ? map_and_mark : tick_and_flush, &workers[i]));
	}
	for (unsigned i = 0; i < WORKERS + 2; i++) {
		if (i == WORKERS)
			atomic_store(&crowd.stop, true);
		assert_ok(pthread_join(workers[i].thread, NULL));
		assert_int_equal(workers[i].wrong, 0);
	}
	assert_ok(dmacore_domain_flush(machine->domain));
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

static void *tick_alone(void *opaque)
{
	struct worker *worker = opaque;

	for (uint64_t now = 0; !atomic_load(&worker->crowd->stop); now += AGE)
		worker->wrong += dmacore_system_tick(worker->crowd->machine->system, now) != 0;
	return NULL;
}

/* Nor does a tick make it look as if somebody else held the domain, which would be reported. */
static void domain_destroy__may_meet_a_tick(void **state)
{
	struct machine *machine = *state;
	static struct crowd crowd;
	struct worker ticker = { .crowd = &crowd };

	crowd.machine = machine;
	atomic_store(&crowd.stop, false);
	assert_ok(pthread_create(&ticker.thread, NULL, tick_alone, &ticker));
	for (unsigned round = 0; round < 500; round++) {
		use_lazy(machine, 100, 1, 0);
		for (unsigned i = 0; i < 50; i++)
			(void)map_and_unmap(machine);
	}
	atomic_store(&crowd.stop, true);
	assert_ok(pthread_join(ticker.thread, NULL));
	assert_int_equal(ticker.wrong, 0);
	assert_no_reports(&machine->reports);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(domain_create__takes_what_makes_a_flush_for_lazy_domains_alone),
		test_on_translated(domain_create__takes_batches_of_up_to_65536),
		test_on_translated(domain_create__checks_bounds_of_lazy_domains_too),
		test_lazily(unmap__lets_nothing_through_at_once),
		test_lazily(unmap__keeps_the_addresses_until_the_flush),
		test_lazily(unmap__counts_the_whole_pages_that_wait),
		test_lazily(unmap__reports_a_zero_copy_mapping_at_once),
		test_lazily(free_coherent__is_strict_in_a_lazy_domain),
		test_lazily(unmap__flushes_once_for_each_full_batch),
		test_lazily(unmap__flushes_the_default_number_of_ranges),
		test_on(TRANSLATED | HEAP_TABLES,
			unmap__frees_pages_without_a_flush_where_no_access_is_in_flight),
		test_lazily(unmap__queues_nothing_in_batches_of_one),
		test_lazily(tick__flushes_what_is_old_enough),
		test_lazily(tick__flushes_after_ten_milliseconds_by_default),
		test_lazily(tick__bears_a_clock_that_goes_backwards_or_wraps),
		test_lazily(tick__flushes_each_lazy_domain_by_its_own_age),
		cmocka_unit_test(tick__rejects_null),
		test_on_translated(tick__has_nothing_to_do_without_lazy_domains),
		test_on_translated(flush__has_nothing_to_do_in_a_strict_domain),
		test_lazily(flush__is_not_counted_with_nothing_queued),
		test_lazily(flush__rejects_what_is_no_dma_domain),
		test_lazily(map__flushes_when_no_address_is_free),
		test_lazily(alloc_coherent__flushes_when_no_address_is_free),
		test_lazily(domain_detach__is_not_kept_by_what_is_queued),
		test_lazily(domain_destroy__takes_a_full_queue_along),
		test_lazily(device_destroy__queues_what_it_unmaps),
		test_lazily(device_destroy__unmaps_coherent_memory_strictly),
		test_lazily(flush__waits_for_accesses_in_flight),
		test_lazily(map__gives_no_address_out_twice_beside_flushes),
		test_lazily(domain_destroy__may_meet_a_tick),
	};

	return run_group("lazy domains", tests);
}
