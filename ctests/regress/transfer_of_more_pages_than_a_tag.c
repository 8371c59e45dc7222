/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Ranges that amounted to just as much as a small mapping may have left room for any number that followed, in
 * an array of the call's that had none. So it was before transfers were released.
 */
#include "support/transfers.h"

#define TAG_PAGES 64
#define EACH_PAGES 3

static struct machine machine;
static struct job job;

static void ranges_behind_as_many_pages_as_a_tag_has_are_a_list(void **state)
{
	(void)state;
	machine_start(&machine, HEAP_TABLES | TRANSLATED);
	for (size_t count = TAG_PAGES - 1; count <= RANGES_MAX; count++) {
		job_start(&job, machine.device, DMACORE_BIDIRECTIONAL);
		for (size_t i = 0; i < count; i++)
			job_add(&job, LOW_BASE + i * EACH_PAGES * PAGE % RAM_SIZE, PAGE);
		job_run(&job);
		assert_int_equal(dmacore_transfer_size(&job.transfer), count * PAGE);
		assert_int_equal(job.count, count * PAGE / 65536 + (count * PAGE % 65536 != 0));
		assert_ok(job_unmap(&job));
	}
	machine_stop(&machine);
}

/* What comes last may be of any size. */
static void a_large_range_behind_them_is_one_too(void **state)
{
	(void)state;
	machine_start(&machine, HEAP_TABLES | TRANSLATED);
	job_start(&job, machine.device, DMACORE_TO_DEVICE);
	job_add(&job, LOW_BASE + 100, TAG_PAGES * PAGE - 100);
	job_add(&job, LOW_BASE, UINT64_C(1) << 32);
	assert_ok(job_map(&job));
	assert_int_equal(dmacore_transfer_size(&job.transfer),
			 TAG_PAGES * PAGE - 100 + (UINT64_C(1) << 32));
	assert_ok(job_unmap(&job));
	machine_stop(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_behind_as_many_pages_as_a_tag_has_are_a_list),
		cmocka_unit_test(a_large_range_behind_them_is_one_too),
	};

	return cmocka_run_group_tests_name("transfer of more pages than a tag", tests, NULL, NULL);
}
