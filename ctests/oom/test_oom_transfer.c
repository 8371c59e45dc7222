/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/pools.h"
#include "support/transfers.h"

/* More than a list has room for without memory. */
#define MANY 100

struct source {
	const struct dmacore_phys_range *ranges;
	size_t count;
};

static bool next_range(uint64_t cursor[2], struct dmacore_phys_range *range, void *opaque)
{
	const struct source *source = opaque;

	if (cursor[0] == source->count)
		return false;
	*range = source->ranges[cursor[0]++];
	return true;
}

/* Ranges of @size bytes, the first at @first, of which none adjoins the next. */
static void add_ranges(struct job *job, size_t count, uint64_t first, uint64_t size)
{
	for (size_t i = 0; i < count; i++)
		job_add(job, LOW_BASE + (first + i * 3 * PAGE) % RAM_SIZE, size);
}

/* Maps with every allocation failing in turn. */
static void map_after_failures(struct machine *machine, struct job *job,
			       struct dmacore_bounce_pool *pool)
{
	struct snapshot left = take_snapshot(machine);
	uint64_t used = pool ? used_slots(pool) : 0;

	assert_survives_failures(job_map(job), {
		struct snapshot now = take_snapshot(machine);

		assert_job_empty(job);
		assert_int_equal(left.device.mapping_count, now.device.mapping_count);
		assert_int_equal(left.device.mapping_bytes, now.device.mapping_bytes);
		assert_int_equal(left.domain.mapping_count, now.domain.mapping_count);
		assert_int_equal(left.domain.mapped_bytes, now.domain.mapped_bytes);
		assert_int_equal(pool ? used_slots(pool) : 0, used);
	});
}

/* What follows on a map needs no memory. */
static void use_and_end(struct job *job)
{
	assert_needs_no_memory({
		job_go(job, 0, 7);
		job_go(job, job_size(job) / 2, 7);
		assert_ok(dmacore_transfer_sync_for_cpu(job->device, &job->transfer, 0, 0));
		assert_ok(dmacore_transfer_sync_for_device(job->device, &job->transfer, 1, 9));
		assert_ok(job_unmap(job));
	});
	assert_job_empty(job);
}

/* As an array and by a callback, and with a limit of segments, which are counted. */
static void check_forms(struct machine *machine, struct job *job, struct dmacore_bounce_pool *pool)
{
	struct source source = { job->ranges, job->request.count };

	map_after_failures(machine, job, pool);
	use_and_end(job);
	job->request.max_segments = SEGMENTS_MAX;
	map_after_failures(machine, job, pool);
	use_and_end(job);
	job->request.max_segments = 0;
	job->request.ranges = NULL;
	job->request.next = next_range;
	job->request.opaque = &source;
	map_after_failures(machine, job, pool);
	use_and_end(job);
}

static void check_machine(struct machine *machine, struct dmacore_bounce_pool *pool)
{
	const uint32_t flags[] = { 0, DMACORE_TRANSFER_REPLACEABLE };
	static struct job job;

	for (unsigned i = 0; i < 2; i++) {
		/* One range, and ranges that meet at pages. */
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags[i];
		add_ranges(&job, 1, 5, 3000);
		check_forms(machine, &job, pool);
		job_start(&job, machine->device, DMACORE_TO_DEVICE);
		job.request.flags = flags[i];
		add_ranges(&job, 4, 0, PAGE);
		check_forms(machine, &job, pool);
	}
	/* Ranges that do not, few and many. */
	job_start(&job, machine->device, DMACORE_FROM_DEVICE);
	add_ranges(&job, 3, 5, 100);
	check_forms(machine, &job, pool);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	add_ranges(&job, MANY, 16, 8);
	check_forms(machine, &job, pool);
	/* With registers, which are no part of the rest. */
	job_start(&job, machine->device, DMACORE_TO_DEVICE);
	job_add(&job, LOW_BASE, PAGE);
	job_add_flagged(&job, LOW_BASE + 4 * PAGE, PAGE, DMACORE_RANGE_MMIO);
	if (!pool)
		check_forms(machine, &job, pool);
}

static void transfer_map__changes_nothing_when_an_allocation_fails(void **state)
{
	const enum path paths[] = { DIRECT, TRACKED, IDENTITY, TRANSLATED,
				    HEAP_TABLES | TRANSLATED };
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		machine_start(&machine, paths[i]);
		check_machine(&machine, NULL);
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

/* All of it, or the pages that ranges do not fill. */
static void transfer_map__gives_copies_back_when_an_allocation_fails(void **state)
{
	const enum path paths[] = { DIRECT, TRANSLATED };
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct dmacore_bounce_pool *pool;

		machine_start(&machine, paths[i]);
		use_device(&machine, i ? DMACORE_DEVICE_UNTRUSTED : DMACORE_DEVICE_FORCE_BOUNCE,
			   UINT64_MAX, 44 * PAGE, &pool);
		/* There is no page for each of many. */
		{
			static struct job job;

			job_start(&job, machine.device, DMACORE_BIDIRECTIONAL);
			add_ranges(&job, 20, 16, 8);
			check_forms(&machine, &job, pool);
			job_start(&job, machine.device, DMACORE_FROM_DEVICE);
			job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
			job_add(&job, LOW_BASE + 100, PAGE - 100);
			job_add(&job, LOW_BASE + 4 * PAGE, PAGE);
			job_add(&job, LOW_BASE + 8 * PAGE, 30);
			check_forms(&machine, &job, pool);
		}
		assert_int_equal(used_slots(pool), 0);
		end_pool(&machine, pool);
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

/* Nothing of what is direct is remembered, nor of small memory that has one range. */
static void transfer_map__needs_no_memory_for_what_is_said_in_two_words(void **state)
{
	const enum path paths[] = { DIRECT, HEAP_TABLES | TRANSLATED };
	static struct machine machine;
	static struct job job;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		machine_start(&machine, paths[i]);
		job_start(&job, machine.device, DMACORE_BIDIRECTIONAL);
		add_ranges(&job, 4, 0, PAGE);
		/* Tables and addresses come by the chunk. */
		for (unsigned round = 0; round < 200; round++) {
			assert_ok(job_map(&job));
			assert_ok(job_unmap(&job));
		}
		assert_needs_no_memory(assert_ok(job_map(&job)));
		use_and_end(&job);
		machine_stop(&machine);
	}
}

/* The tables are there, and the record of the range has room for as many links. */
static void transfer_replace__needs_no_memory_through_an_iommu(void **state)
{
	const enum path paths[] = { TRANSLATED, HEAP_TABLES | TRANSLATED };
	unsigned live = oom.live_count;
	static struct machine machine;
	static struct job job;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		machine_start(&machine, paths[i]);
		job_start(&job, machine.device, DMACORE_BIDIRECTIONAL);
		job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
		add_ranges(&job, 40, 0, PAGE);
		assert_ok(job_map(&job));
		assert_needs_no_memory({
			for (unsigned range = 0; range < 40; range++)
				assert_ok(dmacore_transfer_replace(
					job.device, &job.transfer, range * PAGE,
					NEXT_BASE + range % 16 * PAGE, PAGE));
			assert_ok(job_unmap(&job));
		});
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

/* Elsewhere memory may be needed; without it the old memory is mapped as it was. */
static void transfer_replace__keeps_the_old_memory_when_an_allocation_fails(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	static struct job job;
	struct dmacore_bounce_pool *pool;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t used;
		unsigned page = 0;

		machine_start(&machine, i ? TRANSLATED : DIRECT);
		use_device(&machine, i ? DMACORE_DEVICE_UNTRUSTED : DMACORE_DEVICE_FORCE_BOUNCE,
			   UINT64_MAX, 44 * PAGE, &pool);
		job_start(&job, machine.device, DMACORE_BIDIRECTIONAL);
		job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
		job_add(&job, LOW_BASE + 100, PAGE - 100);
		job_add(&job, LOW_BASE + 4 * PAGE, 50);
		job_run(&job);
		used = used_slots(pool);
		for (unsigned round = 0; round < 8; round++) {
			page = round % 2 ? 0 : 9;
			assert_survives_failures(
				dmacore_transfer_replace(job.device, &job.transfer, 0,
							 LOW_BASE + page * PAGE + 100, PAGE - 100),
				{
					assert_int_equal(used_slots(pool), used);
					job_go(&job, 0, 7);
					assert_int_equal(machine.reports.count, 0);
				});
			assert_int_equal(used_slots(pool), used);
			job.ranges[0].phys = LOW_BASE + page * PAGE + 100;
			job_go(&job, 0, 7);
			job_check(&machine, &job);
		}
		use_and_end(&job);
		assert_int_equal(used_slots(pool), 0);
		end_pool(&machine, pool);
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfer_map__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(transfer_map__gives_copies_back_when_an_allocation_fails),
		cmocka_unit_test(transfer_map__needs_no_memory_for_what_is_said_in_two_words),
		cmocka_unit_test(transfer_replace__needs_no_memory_through_an_iommu),
		cmocka_unit_test(transfer_replace__keeps_the_old_memory_when_an_allocation_fails),
	};

	return run_oom_group("oom transfer", tests, NULL);
}
