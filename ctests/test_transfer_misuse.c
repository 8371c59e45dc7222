/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Transfers whose callers break their word. */

#include "support/drivers.h"
#include "support/transfers.h"

/* A callback that counts from where on ranges come, and yields others from some time on. */
struct source {
	struct dmacore_phys_range ranges[4];
	size_t count;
	/* Readings, and the one from which on there are @later ranges, the last of them of @size bytes. */
	unsigned readings;
	unsigned turn;
	size_t later;
	uint64_t size;
};

static bool next_range(uint64_t cursor[2], struct dmacore_phys_range *range, void *opaque)
{
	struct source *source = opaque;
	bool has_turned;
	size_t count;

	source->readings += cursor[0] == 0;
	has_turned = source->readings >= source->turn;
	count = has_turned ? source->later : source->count;
	if (cursor[0] == count)
		return false;
	*range = source->ranges[cursor[0]++];
	if (has_turned && cursor[0] == count && source->size != 0)
		range->size = source->size;
	return true;
}

/* Three ranges that meet at no pages, so that they become a list, or three pages. */
static struct source make_source(bool is_of_pages)
{
	struct source source = { .count = 3, .turn = 2, .later = 3 };

	for (size_t i = 0; i < 4; i++)
		source.ranges[i] = (struct dmacore_phys_range){ LOW_BASE + 3 * i * PAGE,
								is_of_pages ? PAGE : 100, 0, 0 };
	return source;
}

static void transfer_map__refuses_ranges_that_are_others_the_second_time(void **state)
{
	struct machine *machine = *state;
	const struct {
		size_t later;
		uint64_t size;
	} cases[] = { { 2, 0 }, { 3, 50 }, { 3, 2 * PAGE }, { 0, 0 }, { 3, UINT64_MAX } };
	struct snapshot before = take_snapshot(machine), after;

	for (unsigned i = 0; i < 5; i++) {
		for (unsigned is_replaceable = 0; is_replaceable < 2; is_replaceable++) {
			struct source source = make_source(is_replaceable);
			struct job job;

			source.later = cases[i].later;
			source.size = cases[i].size;
			/* What tries a path out reads them too. */
			for (source.turn = 2; source.turn < 4; source.turn++) {
				int result;

				source.readings = 0;
				job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
				job.request.ranges = NULL;
				job.request.next = next_range;
				job.request.opaque = &source;
				job.request.flags =
					is_replaceable ? DMACORE_TRANSFER_REPLACEABLE : 0;
				result = job_map(&job);
				if (source.readings < source.turn) {
					assert_ok(result);
					assert_ok(job_unmap(&job));
					continue;
				}
				/* Those that were read first may have counted for nothing. */
				if (result == 0) {
					assert_true(source.readings > 2);
					assert_ok(job_unmap(&job));
					continue;
				}
				assert_int_equal(result, -EINVAL);
				assert_job_empty(&job);
			}
		}
	}
	after = take_snapshot(machine);
	assert_int_equal(before.device.mapping_count, after.device.mapping_count);
	assert_int_equal(before.domain.mapped_bytes, after.domain.mapped_bytes);
}

/* What a direct transfer is of is read again. */
static void transfer_next__refuses_other_ranges_than_were_mapped(void **state)
{
	struct machine *machine = *state;
	struct dmacore_transfer_iterator iterator;
	size_t count;
	struct job job;

	job_start(&job, machine->device, DMACORE_TO_DEVICE);
	job_add(&job, LOW_BASE, 100);
	job_add(&job, LOW_BASE + PAGE, 100);
	assert_ok(job_map(&job));
	for (unsigned i = 0; i < 4; i++) {
		job.request.count = i == 0 ? 1 : 2;
		job.ranges[1].size = i == 1 ? 99 : i == 2 ? 101 : 100;
		job.ranges[1].flags = i == 3 ? 0x100 : 0;
		assert_ok(dmacore_transfer_begin(job.device, &job.request, &job.transfer, 0,
						 &iterator));
		assert_fails(dmacore_transfer_next(&iterator, job.segments, 8, &count), EINVAL);
		if (i != 2)
			assert_fails(dmacore_transfer_begin(job.device, &job.request, &job.transfer,
							    199 + (i == 2), &iterator),
				     EINVAL);
	}
	job.request.count = 2;
	job.ranges[1].size = 100;
	job.ranges[1].flags = 0;
	job_go(&job, 150, 4);
	assert_int_equal(job.count, 1);
	assert_job_segment(&job, 0, LOW_BASE + PAGE + 50, 50);
	assert_ok(job_unmap(&job));
}

/* The driver has gone, and all that it had mapped: a transfer of any form is refused, with a report. */
static void transfer__is_refused_when_the_driver_has_gone(void **state)
{
	struct machine *machine = *state;
	struct test_driver driver;

	/* Its remove leaves mappings behind. */
	test_driver_init(&driver, "sd", 0);

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	/* A range, a list, and a registration. */
	for (unsigned form = 0; form < 3; form++) {
		struct job job;

		assert_ok(dmacore_device_bind(machine->device, &driver.descriptor));
		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		/* What does not end at a page meets the next nowhere. */
		if (form == 1)
			job_add(&job, LOW_BASE + 3 * PAGE, 50);
		job_add(&job, LOW_BASE, PAGE);
		job.request.flags = form == 2 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		assert_ok(job_map(&job));
		assert_ok(dmacore_device_unbind(machine->device));
		assert_non_null(strstr(reports_take(&machine->reports)->text, "1 live mapping"));
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
		assert_misuse(machine,
			      dmacore_transfer_sync_for_cpu(job.device, &job.transfer, 0, 0));
		if (form == 2)
			assert_misuse(machine, dmacore_transfer_replace(job.device, &job.transfer,
									0, NEXT_BASE, PAGE));
		assert_misuse(machine, job_unmap(&job));
		/* What was allocated is given back all the same. */
		if (form > 0)
			assert_job_empty(&job);
	}
}

/* Nothing of a transfer that was made for one device is done by another. */
static void transfer__is_refused_for_another_device(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);

	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, other));
	/* A range or list, a list, and a registration; and again, when addresses come from caches. */
	for (unsigned round = 0; round < 6; round++) {
		const unsigned form = round % 3;
		struct job job;

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		/* What does not end at a page meets the next nowhere. */
		if (form == 1)
			job_add(&job, LOW_BASE + 3 * PAGE, 50);
		job_add(&job, LOW_BASE, PAGE);
		job.request.flags = form == 2 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		job_run(&job);
		assert_misuse(machine, dmacore_transfer_sync_for_cpu(other, &job.transfer, 0, 0));
		assert_misuse(machine,
			      dmacore_transfer_sync_for_device(other, &job.transfer, 0, 0));
		if (form == 2)
			assert_misuse(machine, dmacore_transfer_replace(other, &job.transfer, 0,
									NEXT_BASE, PAGE));
		assert_misuse(machine, dmacore_transfer_unmap(other, &job.transfer));
		job_check(machine, &job);
		assert_ok(job_unmap(&job));
	}
	dmacore_device_destroy(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(TRACKED, transfer_map__refuses_ranges_that_are_others_the_second_time),
		test_on(TRANSLATED, transfer_map__refuses_ranges_that_are_others_the_second_time),
		test_on(HEAP_TABLES | TRANSLATED,
			transfer_map__refuses_ranges_that_are_others_the_second_time),
		test_on(DIRECT, transfer_next__refuses_other_ranges_than_were_mapped),
		test_on(TRANSLATED, transfer__is_refused_when_the_driver_has_gone),
		test_on(HEAP_TABLES | TRANSLATED, transfer__is_refused_when_the_driver_has_gone),
		test_on(TRACKED, transfer__is_refused_for_another_device),
		test_on_translated(transfer__is_refused_for_another_device),
	};

	return cmocka_run_group_tests_name("transfer misuse", tests, NULL, NULL);
}
