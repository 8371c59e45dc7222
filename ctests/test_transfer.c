/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Transfers: memory is mapped by one call, whatever it is, and an iterator says what to tell the device. */

#include "support/hardware.h"
#include "support/peers.h"
#include "support/pools.h"
#include "support/transfers.h"

#define LOW_MASK DMACORE_BIT_MASK(32)

/* Nothing is left of what was mapped. */
static void assert_nothing_mapped(struct machine *machine)
{
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_int_equal(device_statistics(machine->device).mapping_bytes, 0);
}

/* What all paths have in common. */

static void transfer__is_two_words_and_its_iterator_sixteen(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct dmacore_transfer), 16);
	assert_int_equal(sizeof(struct dmacore_transfer_iterator), 128);
	assert_int_equal(sizeof(struct dmacore_segment), 16);
	assert_int_equal(sizeof(struct dmacore_phys_range), 24);
}

static void transfer__leads_to_its_memory(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	/* Ranges of one byte, none, part of a page, and across pages; the second region adjoins the first. */
	job_add(&job, LOW_BASE + 5, 1);
	job_add(&job, HIGH_BASE, 0);
	job_add(&job, LOW_BASE + 6, 2 * PAGE);
	job_add(&job, HIGH_BASE + 3 * PAGE - 7, 100);
	job_add(&job, NEXT_BASE - PAGE, 2 * PAGE);
	job_run(&job);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_job_empty(&job);
	assert_nothing_mapped(machine);
	/* It can be used again, and ended once. */
	job_run(&job);
	assert_ok(job_unmap(&job));
	assert_fails(job_unmap(&job), EINVAL);
	assert_nothing_mapped(machine);
}

static void transfer__of_pages_leads_to_them(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job_add(&job, LOW_BASE + 3 * PAGE + 100, PAGE - 100);
		job_add(&job, LOW_BASE, 2 * PAGE);
		job_add(&job, HIGH_BASE + 5 * PAGE, PAGE);
		job_add(&job, LOW_BASE + 7 * PAGE, 9);
		job_run(&job);
		job_check(machine, &job);
		assert_ok(job_unmap(&job));
		assert_job_empty(&job);
		assert_nothing_mapped(machine);
	}
}

static void transfer_begin__starts_at_any_byte(void **state)
{
	struct machine *machine = *state;
	struct dmacore_transfer_iterator iterator;
	struct job job;

	fill_memory(machine);
	for (unsigned variant = 0; variant < 3; variant++) {
		uint64_t size;
		uint8_t expected[64], byte;

		job_start(&job, machine->device, DMACORE_TO_DEVICE);
		job.request.flags = variant == 2 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		if (variant == 0) {
			job_add(&job, LOW_BASE + 20, 13);
			job_add(&job, LOW_BASE + 33, 4);
			job_add(&job, HIGH_BASE + 1, 40);
			job_add(&job, LOW_BASE + PAGE, 7);
		} else {
			job_add(&job, LOW_BASE + PAGE - 30, 30);
			job_add(&job, HIGH_BASE + 4 * PAGE, 34);
		}
		size = job_size(&job);
		assert_int_equal(size, 64);
		assert_ok(job_map(&job));
		job_copy_memory(machine, &job, expected, false);
		for (uint64_t offset = 0; offset < size; offset++) {
			uint64_t left = 0;

			job_go(&job, offset, 1 + offset % 5);
			for (size_t i = 0; i < job.count; i++)
				left += job.segments[i].size;
			assert_int_equal(left, size - offset);
			assert_ok(dmacore_view_read(machine->view, job.segments[0].dma, &byte, 1));
			assert_int_equal(byte, expected[offset]);
		}
		assert_fails(dmacore_transfer_begin(machine->device, &job.request, &job.transfer,
						    size, &iterator),
			     E2BIG);
		assert_fails(dmacore_transfer_begin(machine->device, &job.request, &job.transfer,
						    UINT64_MAX, &iterator),
			     E2BIG);
		assert_ok(job_unmap(&job));
	}
}

/* No segment has more bytes than one may, nor reaches over a boundary, and none could be put together. */
static void check_limits(struct job *job, uint64_t size, uint64_t boundary_mask)
{
	uint64_t all = 0;

	job_go(job, 0, 3);
	for (size_t i = 0; i < job->count; i++) {
		const struct dmacore_segment *segment = &job->segments[i];

		assert_true(segment->size <= size);
		assert_true((segment->dma & boundary_mask) + (segment->size - 1) <= boundary_mask);
		if (i > 0 && segment[-1].dma + segment[-1].size == segment->dma)
			assert_true(segment[-1].size == (size < PAGE ? size : size / PAGE * PAGE) ||
				    (segment->dma & boundary_mask) == 0);
		all += segment->size;
	}
	assert_int_equal(all, job_size(job));
}

static void transfer_next__obeys_the_limits_of_device_and_request(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct job job;

	fill_memory(machine);
	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job_add(&job, LOW_BASE + 9, 5 * PAGE - 9);
		job_add(&job, HIGH_BASE + 2 * PAGE, 4 * PAGE);
		job_add(&job, LOW_BASE + 6 * PAGE, PAGE + 1);
		limits.max_segment_size = 0;
		limits.segment_boundary_mask = 0;
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		job.request.max_segment_size = 1000;
		assert_ok(job_map(&job));
		check_limits(&job, 1000, UINT64_MAX);
		job_check(machine, &job);
		job.request.max_segment_size = 2 * PAGE + 100;
		check_limits(&job, 2 * PAGE + 100, UINT64_MAX);
		job.request.segment_boundary_mask = 2 * PAGE - 1;
		check_limits(&job, 2 * PAGE + 100, 2 * PAGE - 1);
		job.request.segment_boundary_mask = 255;
		check_limits(&job, 2 * PAGE + 100, 255);
		job.request.max_segment_size = 0;
		job.request.segment_boundary_mask = 0;
		check_limits(&job, 65536, UINT64_MAX);
		limits.max_segment_size = PAGE;
		limits.segment_boundary_mask = 4 * PAGE - 1;
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		check_limits(&job, PAGE, 4 * PAGE - 1);
		job.request.max_segment_size = 2 * PAGE;
		job.request.segment_boundary_mask = UINT64_MAX;
		check_limits(&job, PAGE, 4 * PAGE - 1);
		job_go(&job, 0, 64);
		job_check(machine, &job);
		assert_ok(job_unmap(&job));
	}
}

static void transfer_map__refuses_more_segments_than_the_request_takes(void **state)
{
	struct machine *machine = *state;
	struct job job;
	size_t count;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE, 3 * PAGE);
	job_add(&job, HIGH_BASE + 2 * PAGE, PAGE);
	job_add(&job, LOW_BASE + 8 * PAGE, 100);
	job.request.max_segment_size = 1024;
	job_run(&job);
	count = job.count;
	assert_ok(job_unmap(&job));
	job.request.max_segments = count;
	job_run(&job);
	assert_ok(job_unmap(&job));
	job.request.max_segments = count - 1;
	assert_fails(job_map(&job), E2BIG);
	assert_job_empty(&job);
	assert_nothing_mapped(machine);
	job.request.max_segments = 1;
	assert_fails(job_map(&job), E2BIG);
	assert_job_empty(&job);
	assert_nothing_mapped(machine);
}

/* Yields what a job has, and from the round @lies on something else. */
struct teller {
	struct job *job;
	unsigned rounds;
	unsigned lies;
	int lie;
};

static bool tell(uint64_t cursor[2], struct dmacore_phys_range *range, void *opaque)
{
	struct teller *teller = opaque;
	bool is_lying;

	teller->rounds += cursor[0] == 0;
	is_lying = teller->rounds >= teller->lies;
	assert_int_equal(cursor[1], cursor[0] * 3);
	if (cursor[0] == teller->job->request.count - (is_lying && teller->lie == 0))
		return false;
	*range = teller->job->ranges[cursor[0]];
	if (is_lying && teller->lie == 1)
		range->size += PAGE;
	if (is_lying && teller->lie == 2)
		range->flags = 8;
	if (is_lying && teller->lie == 3)
		range->phys = UINT64_MAX;
	if (is_lying && teller->lie == 4)
		range->size = PAGE / 2;
	cursor[0]++;
	cursor[1] += 3;
	return true;
}

static void transfer_map__takes_ranges_from_a_callback(void **state)
{
	struct machine *machine = *state;
	struct job job;
	struct teller teller = { .job = &job, .lies = UINT32_MAX };
	size_t count;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE + 17, 100);
	job_add(&job, LOW_BASE, 0);
	job_add(&job, HIGH_BASE + 40, 2 * PAGE);
	job_add(&job, LOW_BASE + 4 * PAGE, PAGE);
	job_run(&job);
	count = job.count;
	assert_ok(job_unmap(&job));
	job.request.ranges = NULL;
	job.request.next = tell;
	job.request.opaque = &teller;
	job_run(&job);
	assert_int_equal(job.count, count);
	job_check(machine, &job);
	job_go(&job, 110, 2);
	assert_ok(job_unmap(&job));
}

/* Whatever the callback says, nothing but what it said is mapped, and all of that is ended. */
static void transfer_map__survives_a_callback_that_lies(void **state)
{
	struct machine *machine = *state;

	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		for (unsigned lies = 1; lies < 5; lies++) {
			for (int lie = 0; lie < 5; lie++) {
				struct job job;
				struct teller teller = { &job, 0, lies, lie };
				struct dmacore_transfer_iterator iterator;
				int error;

				job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
				job_add(&job, LOW_BASE + 2 * PAGE, PAGE);
				job_add(&job, HIGH_BASE + 3 * PAGE, PAGE);
				job_add(&job, LOW_BASE + 7 * PAGE, PAGE);
				job.request.flags = flags;
				job.request.ranges = NULL;
				job.request.next = tell;
				job.request.opaque = &teller;
				error = job_map(&job);
				if (error) {
					assert_int_equal(error, -EINVAL);
					assert_job_empty(&job);
				} else if (!dmacore_transfer_begin(machine->device, &job.request,
								   &job.transfer, 0, &iterator)) {
					size_t count = 1;
					uint64_t size = 0;

					error = 0;
					while (!error && count > 0) {
						error = dmacore_transfer_next(
							&iterator, job.segments, 1, &count);
						size += !error && count ? job.segments[0].size : 0;
					}
					assert_true(error == -EINVAL ||
						    size == dmacore_transfer_size(&job.transfer));
				}
				if (dmacore_transfer_size(&job.transfer) > 0)
					assert_ok(job_unmap(&job));
				assert_nothing_mapped(machine);
			}
		}
	}
}

static void transfer__checks_its_arguments(void **state)
{
	struct machine *machine = *state;
	struct dmacore_transfer_iterator iterator;
	struct dmacore_segment segment;
	struct snapshot before = take_snapshot(machine), after;
	struct job job;
	size_t count;

	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE, PAGE);
	assert_fails(dmacore_transfer_map(NULL, &job.request, &job.transfer), EINVAL);
	assert_fails(dmacore_transfer_map(machine->device, NULL, &job.transfer), EINVAL);
	assert_fails(dmacore_transfer_map(machine->device, &job.request, NULL), EINVAL);
	job.request.ranges = NULL;
	assert_fails(job_map(&job), EINVAL);
	job.request.next = tell;
	job.request.ranges = job.ranges;
	assert_fails(job_map(&job), EINVAL);
	job.request.next = NULL;
	job.request.count = 0;
	assert_fails(job_map(&job), EINVAL);
	job.request.count = 1;
	job.ranges[0].size = 0;
	assert_fails(job_map(&job), EINVAL);
	job.ranges[0].size = UINT64_MAX;
	assert_fails(job_map(&job), EINVAL);
	job.ranges[0].phys = 0;
	assert_fails(job_map(&job), E2BIG);
	job.ranges[0].phys = LOW_BASE;
	job.ranges[0].size = PAGE;
	job.ranges[0].flags = 2;
	assert_fails(job_map(&job), EINVAL);
	job.ranges[0].flags = 0;
	for (unsigned bit = 0; bit < 32; bit++) {
		job.ranges[0].reserved = UINT32_C(1) << bit;
		assert_fails(job_map(&job), EINVAL);
	}
	job.ranges[0].reserved = 0;
	job.request.direction = 3;
	assert_fails(job_map(&job), EINVAL);
	job.request.direction = DMACORE_BIDIRECTIONAL;
	job.request.attributes = 4;
	assert_fails(job_map(&job), EINVAL);
	job.request.attributes = 0;
	job.request.flags = 2;
	assert_fails(job_map(&job), EINVAL);
	job.request.flags = 0;
	job.request.reserved = 1;
	assert_fails(job_map(&job), EINVAL);
	job.request.reserved = 0;
	job.request.segment_boundary_mask = 5;
	assert_fails(job_map(&job), EINVAL);
	job.request.segment_boundary_mask = 0;
	job.request.struct_size--;
	assert_fails(job_map(&job), EINVAL);
	job.request.struct_size++;
	assert_job_empty(&job);
	/* What is not mapped. */
	assert_fails(job_unmap(&job), EINVAL);
	assert_fails(
		dmacore_transfer_begin(machine->device, &job.request, &job.transfer, 0, &iterator),
		EINVAL);
	assert_fails(dmacore_transfer_sync_for_cpu(machine->device, &job.transfer, 0, 0), EINVAL);
	assert_fails(dmacore_transfer_sync_for_device(machine->device, &job.transfer, 0, 0),
		     EINVAL);
	assert_fails(dmacore_transfer_replace(machine->device, &job.transfer, 0, LOW_BASE, PAGE),
		     EINVAL);
	assert_int_equal(dmacore_transfer_size(NULL), 0);
	/* What is. */
	assert_ok(job_map(&job));
	assert_fails(job_map(&job), EINVAL);
	assert_fails(dmacore_transfer_begin(NULL, &job.request, &job.transfer, 0, &iterator),
		     EINVAL);
	assert_fails(dmacore_transfer_begin(machine->device, NULL, &job.transfer, 0, &iterator),
		     EINVAL);
	assert_fails(dmacore_transfer_begin(machine->device, &job.request, NULL, 0, &iterator),
		     EINVAL);
	assert_fails(dmacore_transfer_begin(machine->device, &job.request, &job.transfer, 0, NULL),
		     EINVAL);
	assert_ok(
		dmacore_transfer_begin(machine->device, &job.request, &job.transfer, 0, &iterator));
	assert_fails(dmacore_transfer_next(NULL, &segment, 1, &count), EINVAL);
	assert_fails(dmacore_transfer_next(&iterator, NULL, 1, &count), EINVAL);
	assert_fails(dmacore_transfer_next(&iterator, &segment, 0, &count), EINVAL);
	assert_fails(dmacore_transfer_next(&iterator, &segment, 1, NULL), EINVAL);
	assert_fails(dmacore_transfer_sync_for_cpu(NULL, &job.transfer, 0, 0), EINVAL);
	assert_fails(dmacore_transfer_sync_for_cpu(machine->device, NULL, 0, 0), EINVAL);
	assert_fails(dmacore_transfer_sync_for_device(NULL, &job.transfer, 0, 0), EINVAL);
	assert_fails(dmacore_transfer_sync_for_device(machine->device, NULL, 0, 0), EINVAL);
	assert_fails(dmacore_transfer_sync_for_cpu(machine->device, &job.transfer, PAGE, 0), E2BIG);
	assert_fails(dmacore_transfer_sync_for_cpu(machine->device, &job.transfer, 1, PAGE), E2BIG);
	assert_fails(dmacore_transfer_sync_for_device(machine->device, &job.transfer, UINT64_MAX,
						      UINT64_MAX),
		     E2BIG);
	assert_ok(dmacore_transfer_sync_for_device(machine->device, &job.transfer, 1, PAGE - 1));
	assert_fails(dmacore_transfer_replace(machine->device, &job.transfer, 0, LOW_BASE, PAGE),
		     EINVAL);
	assert_fails(dmacore_transfer_replace(NULL, &job.transfer, 0, LOW_BASE, PAGE), EINVAL);
	assert_fails(dmacore_transfer_replace(machine->device, NULL, 0, LOW_BASE, PAGE), EINVAL);
	assert_fails(dmacore_transfer_unmap(NULL, &job.transfer), EINVAL);
	assert_fails(dmacore_transfer_unmap(machine->device, NULL), EINVAL);
	assert_ok(job_unmap(&job));
	after = take_snapshot(machine);
	assert_int_equal(before.device.mapping_count, after.device.mapping_count);
	assert_int_equal(before.domain.iova_bytes, after.domain.iova_bytes);
	assert_int_equal(before.domain.mapped_bytes, after.domain.mapped_bytes);
}

/* Direct. */

static void transfer__that_is_direct_has_the_ranges_as_segments(void **state)
{
	struct machine *machine = *state;
	struct job job;

	job_start(&job, machine->device, DMACORE_TO_DEVICE);
	job_add(&job, LOW_BASE + 5, 1);
	job_add(&job, LOW_BASE + 6, 10);
	job_add(&job, HIGH_BASE, 3);
	/* Another order than in memory. */
	job_add(&job, LOW_BASE + PAGE, 5);
	job_add_flagged(&job, LOW_BASE + PAGE + 5, 6, DMACORE_RANGE_MMIO);
	job_add(&job, LOW_BASE + PAGE + 11, 2);
	job_run(&job);
	assert_int_equal(job.count, 5);
	assert_job_segment(&job, 0, LOW_BASE + 5, 11);
	assert_job_segment(&job, 1, HIGH_BASE, 3);
	assert_job_segment(&job, 2, LOW_BASE + PAGE, 5);
	assert_job_segment(&job, 3, LOW_BASE + PAGE + 5, 6);
	assert_job_segment(&job, 4, LOW_BASE + PAGE + 11, 2);
	/* Nothing is kept of it, and nothing to be ended. */
	assert_nothing_mapped(machine);
	assert_false(dmacore_need_unmap(machine->device));
	assert_ok(job_unmap(&job));
}

static void transfer__goes_by_the_ranges_of_the_bus(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_range windows[2] = {
		{ .bus = 0, .phys = LOW_BASE, .size = 4 * PAGE },
		{ .bus = 4 * PAGE, .phys = HIGH_BASE, .size = 4 * PAGE },
	};
	struct job job;

	fill_memory(machine);
	assert_ok(dmacore_device_set_ranges(machine->device, windows, 2));
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE + PAGE, 3 * PAGE);
	/* What is contiguous for the device is one segment. */
	job_add(&job, HIGH_BASE, 2 * PAGE);
	job_run(&job);
	assert_int_equal(job.count, 1);
	assert_job_segment(&job, 0, PAGE, 5 * PAGE);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	/* What the bus does not have. */
	job_add(&job, LOW_BASE + 4 * PAGE, PAGE);
	assert_fails(job_map(&job), ERANGE);
	assert_job_empty(&job);
}

/* Through an IOMMU. */

static void transfer__of_pages_is_one_segment(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	for (unsigned round = 0; round < 3; round++) {
		struct dmacore_domain_statistics before = domain_statistics(machine->domain);

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job_add(&job, LOW_BASE + 9 * PAGE - 40, 40);
		job_add(&job, HIGH_BASE + 3 * PAGE, PAGE);
		job_add(&job, LOW_BASE + PAGE, 3 * PAGE);
		job_add(&job, LOW_BASE + 11 * PAGE, 1);
		/* Contiguous in memory: within a page too. */
		job_add(&job, LOW_BASE + 11 * PAGE + 1, 7);
		job_run(&job);
		assert_int_equal(job.count, 1);
		assert_int_equal(job.segments[0].size, 48 + 4 * PAGE);
		assert_int_equal(job.segments[0].dma % PAGE, PAGE - 40);
		assert_int_equal(device_statistics(machine->device).mapping_count, 1);
		assert_int_equal(device_statistics(machine->device).mapping_bytes, 48 + 4 * PAGE);
		job_check(machine, &job);
		/* Nothing before or behind it is in reach. */
		{
			uint8_t byte;
			dmacore_dma_t first = job.segments[0].dma & ~(uint64_t)(PAGE - 1);

			assert_fails(dmacore_view_read(machine->view, first - 1, &byte, 1), ENOENT);
			assert_fails(dmacore_view_read(machine->view, first + 6 * PAGE, &byte, 1),
				     ENOENT);
			faults_take(machine);
			faults_take(machine);
		}
		assert_ok(job_unmap(&job));
		assert_nothing_mapped(machine);
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, before.iova_bytes);
	}
}

/* So many pages that no tag has room for them, and as many as one has. */
static void transfer__of_many_pages_is_one_segment(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	for (unsigned pages = 60; pages <= RANGES_MAX; pages += 4) {
		for (unsigned round = 0; round < 2; round++) {
			uint8_t bytes[8];

			job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
			for (unsigned i = 0; i < pages; i++)
				job_add(&job, LOW_BASE + i * 7 % 16 * PAGE, PAGE);
			job_run(&job);
			/* The device's own limit is 64 KiB. */
			assert_int_equal(job.count, (pages + 15) / 16);
			for (unsigned i = 0; i < pages; i++) {
				assert_ok(dmacore_view_read(
					machine->view, job.segments[0].dma + i * PAGE, bytes, 8));
				assert_memory_equal(bytes, machine->low + i * 7 % 16 * PAGE, 8);
			}
			assert_int_equal(device_statistics(machine->device).mapping_count, 1);
			assert_ok(dmacore_transfer_sync_for_cpu(machine->device, &job.transfer,
								5 * PAGE, 50 * PAGE));
			assert_ok(job_unmap(&job));
			assert_nothing_mapped(machine);
			assert_fails(
				dmacore_view_read(machine->view, job.segments[0].dma, bytes, 8),
				ENOENT);
			faults_take(machine);
			machine->faults.taken = machine->faults.count = 0;
		}
	}
}

static void transfer__of_what_does_not_meet_at_pages_has_gaps(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE + 100, 100);
	job_add(&job, HIGH_BASE + PAGE, PAGE);
	job_add(&job, LOW_BASE + 4 * PAGE, 10);
	job_run(&job);
	assert_int_equal(job.count, 2);
	assert_int_equal(job.segments[0].dma % PAGE, 100);
	assert_int_equal(job.segments[1].size, PAGE + 10);
	assert_int_equal(job.segments[1].dma, (job.segments[0].dma | (PAGE - 1)) + 1);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

static void transfer__permits_what_its_direction_says(void **state)
{
	struct machine *machine = *state;
	uint8_t byte = 1;

	for (uint32_t direction = DMACORE_TO_DEVICE; direction <= DMACORE_FROM_DEVICE;
	     direction++) {
		struct job job;

		job_start(&job, machine->device, direction);
		job_add(&job, LOW_BASE, PAGE);
		job_add(&job, LOW_BASE + 4 * PAGE, PAGE);
		for (unsigned round = 0; round < 2; round++) {
			const dmacore_dma_t last = 2 * PAGE - 1;

			job_run(&job);
			if (direction == DMACORE_TO_DEVICE) {
				assert_ok(dmacore_view_read(machine->view,
							    job.segments[0].dma + last, &byte, 1));
				assert_fails(dmacore_view_write(machine->view,
								job.segments[0].dma + last, &byte,
								1),
					     EACCES);
			} else {
				assert_ok(dmacore_view_write(machine->view,
							     job.segments[0].dma + last, &byte, 1));
				assert_fails(dmacore_view_read(machine->view,
							       job.segments[0].dma + last, &byte,
							       1),
					     EACCES);
			}
			faults_take(machine);
			assert_ok(job_unmap(&job));
		}
	}
}

static void transfer__is_no_other_mapping(void **state)
{
	struct machine *machine = *state;
	struct dmacore_sg sg;
	dmacore_dma_t dma;
	struct job job;

	for (unsigned round = 0; round < 4; round++) {
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = round == 3 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		if (round == 2)
			job_add(&job, LOW_BASE + 10, 10);
		job_add(&job, LOW_BASE, PAGE);
		job_add(&job, LOW_BASE + 4 * PAGE, PAGE);
		job_run(&job);
		dma = job.segments[job.count - 1].dma;
		assert_misuse(machine, dmacore_unmap(machine->device, dma, 2 * PAGE,
						     DMACORE_BIDIRECTIONAL, 0));
		assert_misuse(machine,
			      dmacore_unmap(machine->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
		assert_misuse(machine, dmacore_sync_for_cpu(machine->device, dma, PAGE,
							    DMACORE_BIDIRECTIONAL));
		dmacore_sg_init(&sg, 1);
		sg.dma = dma;
		sg.dma_size = 2 * PAGE;
		sg.path = DMACORE_PATH_IOMMU;
		assert_misuse(machine, dmacore_unmap_list(machine->device, &sg, 1,
							  DMACORE_BIDIRECTIONAL, 0));
		assert_misuse(machine, dmacore_sync_list_for_cpu(machine->device, &sg, 1, 0, 0,
								 DMACORE_BIDIRECTIONAL));
		assert_ok(job_unmap(&job));
	}
	/* Nor the other way round. */
	job_run(&job);
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

static void transfer__refuses_who_may_not_map(void **state)
{
	struct machine *machine = *state;
	struct job job;

	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job.request.attributes = DMACORE_ATTR_NO_WARN;
		job_add(&job, LOW_BASE, PAGE);
		job_add(&job, HIGH_BASE, PAGE);
		assert_fails(job_map(&job), EPERM);
		assert_job_empty(&job);
		reports_forget(&machine->reports);
	}
}

static void transfer__in_a_hybrid_domain_takes_the_path_of_each_part(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, LOW_BASE, PAGE);
	job_add(&job, HIGH_BASE + 7 * PAGE, PAGE);
	job_run(&job);
	assert_job_segment(&job, 0, LOW_BASE, PAGE);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_ok(dmacore_device_set_streaming_mask(machine->device, LOW_MASK, NULL));
	job_run(&job);
	assert_int_equal(job.count, 2);
	assert_job_segment(&job, 0, LOW_BASE, PAGE);
	assert_true(job.segments[1].dma < HIGH_BASE);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

/* A device behind an IOMMU with a backend that hears of every mapping. */
struct stage {
	struct machine machine;
	struct hardware hardware;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
};

/* So many mappings of the backend's fail. */
static unsigned refusals;

static int refuse_some(void *handle, dmacore_iova_t iova, dmacore_phys_t phys, uint64_t size,
		       uint32_t access, void *opaque)
{
	if (refusals > 0) {
		refusals--;
		return -EIO;
	}
	return hardware_map(handle, iova, phys, size, access, opaque);
}

static int stage_setup(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_device_options device;

	assert_non_null(stage);
	refusals = 0;
	machine_start(&stage->machine, DIRECT);
	hardware_start(&stage->hardware);
	stage->hardware.ops.map = refuse_some;
	stage->iommu = hardware_iommu(&stage->hardware, &stage->machine);
	domain.type = DMACORE_DOMAIN_DMA;
	assert_ok(dmacore_domain_create(stage->iommu, &domain, &stage->domain));
	device = device_options(&stage->machine);
	device.iommu = stage->iommu;
	assert_ok(dmacore_device_create(stage->machine.system, &device, &stage->device));
	assert_ok(dmacore_domain_attach(stage->domain, stage->device));
	*state = stage;
	return 0;
}

static int stage_teardown(void **state)
{
	struct stage *stage = *state;

	dmacore_device_destroy(stage->device);
	dmacore_domain_destroy(stage->domain);
	dmacore_iommu_destroy(stage->iommu);
	machine_stop(&stage->machine);
	assert_int_equal(stage->hardware.wrong, 0);
	free(stage);
	return 0;
}

#define stage_test(function)                                           \
	{                                                              \
#function, function, stage_setup, stage_teardown, NULL \
	}

/* What most transfers are: pages, again pages, whose addresses are in caches now, gaps, a registration, many. */
static void stage_add(struct stage *stage, struct job *job, unsigned variant)
{
	job_start(job, stage->device, DMACORE_BIDIRECTIONAL);
	job->request.flags = variant == 3 ? DMACORE_TRANSFER_REPLACEABLE : 0;
	for (unsigned i = 0; i < (variant == 4 ? 100 : 20); i++)
		job_add(job, LOW_BASE + i * (variant == 4 ? 1 : 3) % 16 * PAGE,
			variant == 2 ? 100 : PAGE);
}

/* One invalidation for a transfer, however many ranges it has, and none when it is mapped. */
static void transfer_unmap__invalidates_once(void **state)
{
	struct stage *stage = *state;
	struct job job;

	for (unsigned variant = 0; variant < 5; variant++) {
		unsigned before = stage->hardware.flush_count;

		stage_add(stage, &job, variant);
		job_run(&job);
		assert_int_equal(stage->hardware.flush_count, before);
		assert_ok(job_unmap(&job));
		assert_int_equal(stage->hardware.flush_count, before + 1);
		assert_false(hardware_is_stale(&stage->hardware));
	}
	/* A replacement needs one of its own. */
	stage_add(stage, &job, 3);
	job_run(&job);
	{
		unsigned before = stage->hardware.flush_count;

		assert_ok(dmacore_transfer_replace(stage->device, &job.transfer, 2 * PAGE,
						   HIGH_BASE + PAGE, PAGE));
		assert_int_equal(stage->hardware.flush_count, before + 1);
	}
	assert_ok(job_unmap(&job));
}

static void transfer_map__undoes_itself_wherever_it_fails(void **state)
{
	struct stage *stage = *state;
	const struct hardware_domain *domain = hardware_at(&stage->hardware, 0);
	struct job job;

	for (unsigned variant = 0; variant < 5; variant++) {
		struct dmacore_domain_statistics before = domain_statistics(stage->domain), after;
		int left = 0, error;

		do {
			stage_add(stage, &job, variant);
			stage->hardware.left = left;
			error = job_map(&job);
			stage->hardware.left = -1;
			if (!error)
				break;
			assert_int_equal(error, -EIO);
			assert_job_empty(&job);
			assert_int_equal(domain->run_count, 0);
			assert_false(hardware_is_stale(&stage->hardware));
			assert_int_equal(device_statistics(stage->device).mapping_count, 0);
			after = domain_statistics(stage->domain);
			assert_int_equal(after.iova_bytes, before.iova_bytes);
			assert_int_equal(after.mapped_bytes, before.mapped_bytes);
			left++;
		} while (true);
		assert_true(left >= (variant == 4 ? 7 : 20));
		assert_ok(job_unmap(&job));
	}
}

static void transfer_replace__that_fails_says_whether_the_old_memory_is_back(void **state)
{
	struct stage *stage = *state;
	struct dmacore_transfer_iterator iterator;
	struct dmacore_view *view;
	struct job job;
	dmacore_dma_t dma;
	uint8_t bytes[8];
	size_t count;

	assert_ok(dmacore_view_create(stage->device, &view));
	fill_memory(&stage->machine);
	job_start(&job, stage->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	for (unsigned i = 0; i < 3; i++)
		job_add(&job, LOW_BASE + i * 3 * PAGE, PAGE);
	job_run(&job);
	dma = job.segments[0].dma;
	refusals = 1;
	assert_fails(dmacore_transfer_replace(stage->device, &job.transfer, PAGE, HIGH_BASE, PAGE),
		     EIO);
	assert_no_reports(&stage->machine.reports);
	assert_ok(dmacore_view_read(view, dma + PAGE, bytes, 8));
	assert_memory_equal(bytes, stage->machine.low + 3 * PAGE, 8);
	refusals = 2;
	assert_fails(dmacore_transfer_replace(stage->device, &job.transfer, PAGE, HIGH_BASE, PAGE),
		     EIO);
	assert_reported(&stage->machine, DMACORE_REPORT_WARNING);
	/* There is a hole, which is not told as a segment, and stays one while nothing takes its place. */
	assert_fails(dmacore_view_read(view, dma + PAGE, bytes, 8), ENOENT);
	assert_ok(dmacore_view_read(view, dma + 2 * PAGE, bytes, 8));
	assert_ok(dmacore_transfer_begin(stage->device, &job.request, &job.transfer, 0, &iterator));
	assert_fails(dmacore_transfer_next(&iterator, job.segments, 8, &count), EFAULT);
	assert_ok(dmacore_transfer_begin(stage->device, &job.request, &job.transfer, 2 * PAGE,
					 &iterator));
	assert_ok(dmacore_transfer_next(&iterator, job.segments, 8, &count));
	assert_int_equal(count, 1);
	assert_ok(dmacore_transfer_sync_for_cpu(stage->device, &job.transfer, 0, 0));
	refusals = 1;
	assert_fails(dmacore_transfer_replace(stage->device, &job.transfer, PAGE, HIGH_BASE, PAGE),
		     EIO);
	assert_no_reports(&stage->machine.reports);
	assert_ok(dmacore_transfer_replace(stage->device, &job.transfer, PAGE, HIGH_BASE, PAGE));
	assert_ok(dmacore_view_read(view, dma + PAGE, bytes, 8));
	assert_memory_equal(bytes, stage->machine.high, 8);
	job_go(&job, 0, 8);
	assert_int_equal(job.count, 1);
	assert_ok(job_unmap(&job));
	stage->machine.faults.taken = stage->machine.faults.count = 0;
	dmacore_view_destroy(view);
}

static void transfer_unmap__is_lazy_where_the_domain_is(void **state)
{
	struct machine *machine = *state;
	uint8_t byte;

	machine_use(machine, DMACORE_DOMAIN_DMA_LAZY);
	for (unsigned variant = 0; variant < 3; variant++) {
		struct job job;

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = variant == 2 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		if (variant == 1)
			job_add(&job, LOW_BASE + 8 * PAGE, 7);
		job_add(&job, LOW_BASE, PAGE);
		job_add(&job, HIGH_BASE, PAGE);
		job_run(&job);
		assert_ok(job_unmap(&job));
		assert_true(domain_statistics(machine->domain).iova_bytes > 0);
		assert_fails(dmacore_view_read(machine->view, job.segments[0].dma, &byte, 1),
			     ENOENT);
		faults_take(machine);
		assert_ok(dmacore_domain_flush(machine->domain));
		assert_int_equal(domain_statistics(machine->domain).iova_bytes, 0);
	}
}

/* Bounced. */

static void transfer__bounces_what_is_out_of_reach(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;

	fill_memory(machine);
	use_device(machine, 0, LOW_MASK, 32 * PAGE, &pool);
	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		struct job job;

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job_add(&job, LOW_BASE + 3 * PAGE, PAGE);
		job_add(&job, HIGH_BASE + 4 * PAGE, 2 * PAGE);
		job_add(&job, LOW_BASE + 8 * PAGE, 77);
		job_run(&job);
		assert_job_segment(&job, 0, LOW_BASE + 3 * PAGE, PAGE);
		assert_job_segment(&job, job.count - 1, LOW_BASE + 8 * PAGE, 77);
		assert_true(used_slots(pool) > 0);
		job_check(machine, &job);
		/* A part is handed over alone. */
		assert_ok(dmacore_view_write(machine->view, job.segments[1].dma + 8, "abcdef", 6));
		assert_ok(dmacore_transfer_sync_for_cpu(machine->device, &job.transfer, PAGE + 10,
							2));
		assert_memory_equal(machine->high + 4 * PAGE + 10, "cd", 2);
		assert_memory_not_equal(machine->high + 4 * PAGE + 8, "ab", 2);
		assert_memory_not_equal(machine->high + 4 * PAGE + 12, "ef", 2);
		/* The rest when it ends. */
		assert_ok(job_unmap(&job));
		assert_memory_equal(machine->high + 4 * PAGE + 8, "abcdef", 6);
		assert_int_equal(used_slots(pool), 0);
		assert_nothing_mapped(machine);
	}
	end_pool(machine, pool);
}

/* In parts, where there is no place for all of it in one. */
static void transfer__is_bounced_in_parts_where_slots_are_few(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct job small[3], job;
	uint64_t used;

	fill_memory(machine);
	use_device(machine, 0, LOW_MASK, 16 * PAGE, &pool);
	for (unsigned i = 0; i < 3; i++) {
		job_start(&small[i], machine->device, DMACORE_BIDIRECTIONAL);
		job_add(&small[i], HIGH_BASE + i * PAGE, PAGE);
		job_run(&small[i]);
	}
	/* One page, and thirteen others. */
	assert_ok(job_unmap(&small[1]));
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&job, HIGH_BASE + 2 * PAGE, 14 * PAGE);
	job_run(&job);
	assert_true(job.count > 1);
	job_check(machine, &job);
	/* Now it is full: nothing is left of one that fails. */
	job_start(&small[1], machine->device, DMACORE_BIDIRECTIONAL);
	job_add(&small[1], LOW_BASE, PAGE);
	job_add(&small[1], HIGH_BASE, PAGE);
	used = used_slots(pool);
	assert_fails(job_map(&small[1]), ENOSPC);
	assert_job_empty(&small[1]);
	assert_int_equal(used_slots(pool), used);
	assert_ok(job_unmap(&job));
	assert_ok(job_unmap(&small[0]));
	assert_ok(job_unmap(&small[2]));
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

static void transfer__bounces_the_ends_for_who_is_not_trusted(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 16 * PAGE, &pool);
	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		struct job job;
		uint8_t bytes[PAGE], zeroes[PAGE] = { 0 };

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job_add(&job, LOW_BASE + 3 * PAGE + 16, PAGE - 16);
		job_add(&job, HIGH_BASE + 4 * PAGE, PAGE);
		job_add(&job, LOW_BASE + 8 * PAGE, 77);
		job_run(&job);
		assert_int_equal(job.count, 1);
		job_check(machine, &job);
		/* Neighbours on the same pages are not in reach. */
		assert_ok(dmacore_view_read(machine->view, job.segments[0].dma - 16, bytes, 16));
		assert_memory_equal(bytes, zeroes, 16);
		assert_ok(dmacore_view_read(machine->view,
					    job.segments[0].dma + job.segments[0].size, bytes,
					    PAGE - 77));
		assert_memory_equal(bytes, zeroes, PAGE - 77);
		assert_ok(job_unmap(&job));
		assert_int_equal(used_slots(pool), 0);
	}
	end_pool(machine, pool);
}

/* Peers. */

static void transfer__goes_by_bus_addresses_of_peers_beside_memory(void **state)
{
	struct board *board = *state;
	struct dmacore_device *provider = add_behind_iommu(board, board->hub, 0);
	struct dmacore_device *client = add_behind_iommu(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);
	struct dmacore_view *view;

	assert_ok(dmacore_domain_attach(board->machine.domain, client));
	assert_ok(dmacore_view_create(client, &view));
	fill_memory(&board->machine);
	for (unsigned flags = 0; flags <= DMACORE_TRANSFER_REPLACEABLE; flags++) {
		uint8_t bytes[PAGE];
		struct job job;

		job_start(&job, client, DMACORE_BIDIRECTIONAL);
		job.request.flags = flags;
		job_add(&job, LOW_BASE + PAGE, PAGE);
		job_add(&job, BAR_PHYS + 2 * PAGE, PAGE);
		job_add(&job, LOW_BASE + 5 * PAGE, PAGE);
		job_run(&job);
		assert_int_equal(job.count, 3);
		assert_job_segment(&job, 1, BAR_BUS + 2 * PAGE, PAGE);
		assert_ok(dmacore_view_read(view, job.segments[0].dma, bytes, PAGE));
		assert_memory_equal(bytes, board->machine.low + PAGE, PAGE);
		assert_ok(dmacore_view_read(view, job.segments[1].dma, bytes, PAGE));
		assert_memory_equal(bytes, board->bar + 2 * PAGE, PAGE);
		assert_ok(dmacore_view_read(view, job.segments[2].dma, bytes, PAGE));
		assert_memory_equal(bytes, board->machine.low + 5 * PAGE, PAGE);
		assert_ok(dmacore_transfer_sync_for_cpu(client, &job.transfer, 0, 0));
		if (flags) {
			/* One takes the place of the other. */
			assert_ok(dmacore_transfer_replace(client, &job.transfer, PAGE,
							   LOW_BASE + 9 * PAGE, PAGE));
			assert_ok(dmacore_transfer_replace(client, &job.transfer, 2 * PAGE,
							   BAR_PHYS, PAGE));
			job.ranges[1].phys = LOW_BASE + 9 * PAGE;
			job.ranges[2].phys = BAR_PHYS;
			job_go(&job, 0, 8);
			assert_int_equal(job.count, 2);
			assert_int_equal(job.segments[0].size, 2 * PAGE);
			assert_job_segment(&job, 1, BAR_BUS, PAGE);
		}
		assert_ok(job_unmap(&job));
		assert_int_equal(device_statistics(client).mapping_count, 0);
	}
	dmacore_view_destroy(view);
	dmacore_peer_destroy(peer);
	remove_devices(board);
}

/* Registrations. */

static void transfer_replace__keeps_addresses_and_neighbours(void **state)
{
	struct machine *machine = *state;
	struct job job;
	struct dmacore_segment before;
	uint8_t bytes[PAGE];

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job_add(&job, LOW_BASE + 2 * PAGE - 8, 8);
	for (unsigned i = 0; i < 6; i++)
		job_add(&job, LOW_BASE + (3 + i) * PAGE, PAGE);
	job_add(&job, LOW_BASE + 12 * PAGE, 100);
	job_run(&job);
	assert_int_equal(job.count, 1);
	before = job.segments[0];
	for (unsigned i = 0; i < 24; i++) {
		/* Each in turn, the ends too. */
		unsigned index = i * 5 % 8;
		dmacore_phys_t phys = (i / 8 & 1 ? HIGH_BASE : NEXT_BASE) + index * PAGE +
				      job.ranges[index].phys % PAGE;
		uint64_t offset = index == 0 ? 0 : 8 + (index - 1) * PAGE;
		dmacore_phys_t old = job.ranges[index].phys;

		assert_ok(dmacore_view_write(machine->view, before.dma + offset, "old", 3));
		assert_ok(dmacore_transfer_replace(machine->device, &job.transfer, offset, phys,
						   job.ranges[index].size));
		assert_memory_equal(memory_at(machine, old), "old", 3);
		job.ranges[index].phys = phys;
		assert_ok(dmacore_view_read(machine->view, before.dma + offset, bytes,
					    job.ranges[index].size));
		assert_memory_equal(bytes, memory_at(machine, phys), job.ranges[index].size);
		assert_ok(dmacore_view_write(machine->view, before.dma + offset, "new", 3));
		assert_memory_equal(memory_at(machine, phys), "new", 3);
		assert_memory_equal(memory_at(machine, old), "old", 3);
		job_go(&job, 0, 8);
		assert_int_equal(job.count, 1);
		assert_int_equal(job.segments[0].dma, before.dma);
		assert_int_equal(job.segments[0].size, before.size);
		assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	}
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

static void transfer_replace__takes_whole_ranges_at_the_same_place(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job_add(&job, LOW_BASE + PAGE - 8, 8);
	job_add(&job, LOW_BASE + 3 * PAGE, 2 * PAGE);
	job_add(&job, LOW_BASE + 7 * PAGE, PAGE);
	job_run(&job);
#define replace(offset, phys, size) \
	dmacore_transfer_replace(machine->device, &job.transfer, offset, phys, size)
	assert_fails(replace(8, HIGH_BASE, PAGE), EINVAL);
	assert_fails(replace(8, HIGH_BASE, 3 * PAGE), EINVAL);
	assert_fails(replace(8, HIGH_BASE, 0), EINVAL);
	assert_fails(replace(8 + PAGE, HIGH_BASE, PAGE), EINVAL);
	assert_fails(replace(9, HIGH_BASE, 2 * PAGE - 1), EINVAL);
	assert_fails(replace(8, HIGH_BASE + 1, 2 * PAGE), EINVAL);
	assert_fails(replace(8, UINT64_MAX - PAGE + 1, 2 * PAGE), EINVAL);
	assert_fails(replace(0, HIGH_BASE, 8), EINVAL);
	assert_fails(replace(8 + 3 * PAGE, HIGH_BASE, PAGE), EINVAL);
	assert_fails(replace(UINT64_MAX, HIGH_BASE, PAGE), EINVAL);
	job_check(machine, &job);
	assert_ok(replace(8 + 2 * PAGE, HIGH_BASE, PAGE));
	assert_ok(replace(8, HIGH_BASE + PAGE, 2 * PAGE));
	assert_ok(replace(0, HIGH_BASE + 4 * PAGE - 8, 8));
#undef replace
	job.ranges[0].phys = HIGH_BASE + 4 * PAGE - 8;
	job.ranges[1].phys = HIGH_BASE + PAGE;
	job.ranges[2].phys = HIGH_BASE;
	job_go(&job, 0, 4);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	/* What does not meet at pages is no registration. */
	job.ranges[1].size--;
	assert_fails(job_map(&job), EINVAL);
	job.ranges[1].size++;
	job.ranges[2].phys++;
	assert_fails(job_map(&job), EINVAL);
	assert_job_empty(&job);
	assert_nothing_mapped(machine);
}

/* Where addresses mean nothing those of the range are others afterwards. */
static void transfer_replace__tells_new_addresses_where_there_is_no_iommu(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	for (unsigned i = 0; i < 4; i++)
		job_add(&job, LOW_BASE + i * PAGE, PAGE);
	job_run(&job);
	assert_ok(dmacore_transfer_replace(machine->device, &job.transfer, 2 * PAGE, HIGH_BASE,
					   PAGE));
	job.ranges[2].phys = HIGH_BASE;
	job_go(&job, 2 * PAGE, 8);
	assert_job_segment(&job, 0, HIGH_BASE, PAGE);
	assert_job_segment(&job, 1, LOW_BASE + 3 * PAGE, PAGE);
	job_go(&job, 0, 8);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

/* What the policy refuses is known before the old memory is taken away. */
static void transfer_replace__that_is_refused_changes_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	uint8_t byte = 0x77;
	struct job job;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 3 * PAGE, &pool);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	/* So that nothing is copied back when the old memory is unmapped. */
	job.request.attributes = DMACORE_ATTR_SKIP_CPU_SYNC;
	job_add(&job, LOW_BASE + 8, 100);
	job_run(&job);
	assert_ok(dmacore_view_write(machine->view, job.segments[0].dma + 5, &byte, 1));
	assert_fails(dmacore_transfer_replace(machine->device, &job.transfer, 0,
					      (UINT64_C(1) << 60) + 8, 100),
		     ERANGE);
	byte = 0;
	assert_ok(dmacore_view_read(machine->view, job.segments[0].dma + 5, &byte, 1));
	assert_int_equal(byte, 0x77);
	assert_ok(job_unmap(&job));
	end_pool(machine, pool);
}

static void transfer_replace__is_refused_where_a_new_mask_does_not_reach(void **state)
{
	struct machine *machine = *state;
	struct job job;

	fill_memory(machine);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job_add(&job, HIGH_BASE, PAGE);
	job_run(&job);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, LOW_MASK, NULL));
	assert_fails(
		dmacore_transfer_replace(machine->device, &job.transfer, 0, HIGH_BASE + PAGE, PAGE),
		ERANGE);
	job_go(&job, 0, 4);
	job_check(machine, &job);
	assert_ok(dmacore_transfer_replace(machine->device, &job.transfer, 0, LOW_BASE, PAGE));
	job.ranges[0].phys = LOW_BASE;
	job_go(&job, 0, 4);
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_nothing_mapped(machine);
}

static void transfer_next__puts_neighbours_of_a_registration_together(void **state)
{
	struct machine *machine = *state;
	struct job job;

	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job.request.max_segments = 2;
	job_add(&job, LOW_BASE, PAGE);
	job_add(&job, LOW_BASE + PAGE, 2 * PAGE);
	job_add_flagged(&job, LOW_BASE + 3 * PAGE, PAGE, DMACORE_RANGE_MMIO);
	job_run(&job);
	assert_int_equal(job.count, 2);
	assert_job_segment(&job, 0, LOW_BASE, 3 * PAGE);
	assert_job_segment(&job, 1, LOW_BASE + 3 * PAGE, PAGE);
	assert_ok(job_unmap(&job));
}

/* The bits that addresses have in common with memory's; those of a range follow one another. */
static void transfer_map__aligns_a_registration_as_the_device_asks(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct job job;

	fill_memory(machine);
	limits.min_align_mask = 4 * PAGE - 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job_add(&job, LOW_BASE + 3 * PAGE, PAGE);
	job_add(&job, LOW_BASE + 8 * PAGE, 4 * PAGE);
	job_add(&job, LOW_BASE, 7);
	job_run(&job);
	assert_int_equal(job.segments[0].dma & limits.min_align_mask, 3 * PAGE);
	job_check(machine, &job);
	assert_fails(
		dmacore_transfer_replace(machine->device, &job.transfer, 0, LOW_BASE + PAGE, PAGE),
		EINVAL);
	assert_ok(dmacore_transfer_replace(machine->device, &job.transfer, 0, LOW_BASE + 7 * PAGE,
					   PAGE));
	assert_ok(job_unmap(&job));
	job.ranges[1].size = PAGE;
	assert_fails(job_map(&job), EINVAL);
	assert_job_empty(&job);
}

/* A replacement that fails leaves what was there. */
static void transfer_replace__that_fails_leaves_the_old_memory(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct job job;

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 3 * PAGE, &pool);
	job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
	job.request.flags = DMACORE_TRANSFER_REPLACEABLE;
	job_add(&job, LOW_BASE, PAGE);
	job_add(&job, LOW_BASE + 3 * PAGE, PAGE);
	job_add(&job, LOW_BASE + 9 * PAGE, 100);
	job_run(&job);
	job_check(machine, &job);
	/* Too wide for the page table. */
	assert_fails(dmacore_transfer_replace(machine->device, &job.transfer, PAGE,
					      UINT64_C(1) << 60, PAGE),
		     ERANGE);
	job_check(machine, &job);
	/* And what is bounced. */
	assert_fails(dmacore_transfer_replace(machine->device, &job.transfer, 2 * PAGE,
					      UINT64_C(1) << 60, 100),
		     ERANGE);
	job_go(&job, 0, 8);
	job_check(machine, &job);
	assert_ok(dmacore_transfer_replace(machine->device, &job.transfer, 2 * PAGE,
					   HIGH_BASE + PAGE, 100));
	job.ranges[2].phys = HIGH_BASE + PAGE;
	job_check(machine, &job);
	assert_ok(job_unmap(&job));
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

#define test_on_each(function)                                                              \
	test_on(DIRECT, function), test_on(IDENTITY, function), test_on(TRACKED, function), \
		test_on(IDENTITY | TRACKED, function), test_on_translated(function)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfer__is_two_words_and_its_iterator_sixteen),
		test_on_each(transfer__leads_to_its_memory),
		test_on_each(transfer__of_pages_leads_to_them),
		test_on_each(transfer_begin__starts_at_any_byte),
		test_on_each(transfer_next__obeys_the_limits_of_device_and_request),
		test_on_each(transfer_map__refuses_more_segments_than_the_request_takes),
		test_on_each(transfer_map__takes_ranges_from_a_callback),
		test_on_each(transfer_map__survives_a_callback_that_lies),
		test_on_each(transfer__checks_its_arguments),
		test_on(DIRECT, transfer__that_is_direct_has_the_ranges_as_segments),
		test_on(IDENTITY, transfer__that_is_direct_has_the_ranges_as_segments),
		test_on(DIRECT, transfer__goes_by_the_ranges_of_the_bus),
		test_on_translated(transfer__of_pages_is_one_segment),
		test_on_translated(transfer__of_many_pages_is_one_segment),
		test_on_translated(transfer__of_what_does_not_meet_at_pages_has_gaps),
		test_on_translated(transfer__permits_what_its_direction_says),
		test_on_translated(transfer__is_no_other_mapping),
		{ "transfer__refuses_who_may_not_map (blocked)", transfer__refuses_who_may_not_map,
		  blocked_setup, machine_teardown, (void *)(uintptr_t)TRANSLATED },
		{ "transfer__refuses_who_may_not_map (unmanaged)",
		  transfer__refuses_who_may_not_map, unmanaged_setup, machine_teardown,
		  (void *)(uintptr_t)TRANSLATED },
		test_on_translated(transfer__in_a_hybrid_domain_takes_the_path_of_each_part),
		stage_test(transfer_unmap__invalidates_once),
		stage_test(transfer_map__undoes_itself_wherever_it_fails),
		stage_test(transfer_replace__that_fails_says_whether_the_old_memory_is_back),
		test_on_translated(transfer_unmap__is_lazy_where_the_domain_is),
		test_on(DIRECT, transfer__bounces_what_is_out_of_reach),
		test_on(DIRECT, transfer__is_bounced_in_parts_where_slots_are_few),
		test_on_translated(transfer__bounces_the_ends_for_who_is_not_trusted),
		board_test(transfer__goes_by_bus_addresses_of_peers_beside_memory),
		test_on_translated(transfer_replace__keeps_addresses_and_neighbours),
		test_on_translated(transfer_replace__takes_whole_ranges_at_the_same_place),
		test_on(DIRECT, transfer_replace__tells_new_addresses_where_there_is_no_iommu),
		test_on_translated(transfer_replace__that_is_refused_changes_nothing),
		test_on(TRACKED, transfer_replace__is_refused_where_a_new_mask_does_not_reach),
		test_on(DIRECT, transfer_next__puts_neighbours_of_a_registration_together),
		test_on(TRACKED, transfer_next__puts_neighbours_of_a_registration_together),
		test_on_translated(transfer_map__aligns_a_registration_as_the_device_asks),
		test_on_translated(transfer_replace__that_fails_leaves_the_old_memory),
	};

	return run_group("transfers", tests);
}
