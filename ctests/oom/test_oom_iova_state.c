/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/pools.h"

/* Links so many pages of the machine's memory that records are looked for more than once. */
#define LINKS 34

static void reserve(struct machine *machine, struct dmacore_iova_state *range, uint32_t flags,
		    uint32_t links, uint32_t pages)
{
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;
	struct snapshot left = take_snapshot(machine);

	options.flags = flags;
	options.links = links;
	options.bounced_pages = pages;
	*range = empty;
	assert_survives_failures(
		dmacore_iova_state_reserve(machine->device, LOW_BASE + 8, LINKS * PAGE, &options,
					   range),
		{
			struct snapshot now = take_snapshot(machine);

			assert_memory_equal(range, &empty, sizeof(empty));
			assert_int_equal(left.device.mapping_count, now.device.mapping_count);
			assert_int_equal(left.domain.iova_bytes, now.domain.iova_bytes);
		});
}

static int link_page(struct dmacore_iova_state *range, unsigned page)
{
	/* The second page of the range is where the first page of memory was, as the first starts at 8. */
	return dmacore_iova_state_link(range, page * PAGE - 8 * (page > 0),
				       LOW_BASE + (page > 0 ? 0 : 8), 100, DMACORE_BIDIRECTIONAL,
				       0);
}

static void iova_state_link__changes_nothing_when_an_allocation_fails(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;

	(void)state;
	for (int is_untrusted = 0; is_untrusted < 2; is_untrusted++) {
		struct dmacore_bounce_pool *pool;
		struct dmacore_iova_state range;

		machine_start(&machine, TRANSLATED);
		use_device(&machine, is_untrusted ? DMACORE_DEVICE_UNTRUSTED : 0, UINT64_MAX,
			   36 * PAGE, &pool);
		reserve(&machine, &range, 0, 0, 0);
		for (unsigned i = 0; i < LINKS; i++) {
			uint64_t used = used_slots(pool);
			struct snapshot left = take_snapshot(&machine);

			assert_survives_failures(link_page(&range, i), {
				struct snapshot now = take_snapshot(&machine);

				assert_int_equal(used_slots(pool), used);
				assert_int_equal(left.domain.mapped_bytes, now.domain.mapped_bytes);
			});
		}
		assert_needs_no_memory({
			assert_ok(dmacore_iova_state_sync(&range, 0, 100));
			assert_ok(dmacore_iova_state_sync_for_cpu(&range, 0, 100));
			assert_ok(dmacore_iova_state_sync_for_device(&range, 0, 100));
			assert_ok(dmacore_iova_state_unlink(&range, 0, 100));
			assert_ok(dmacore_iova_state_destroy(&range));
		});
		assert_int_equal(used_slots(pool), 0);
		end_pool(&machine, pool);
		machine_stop(&machine);
	}
	assert_int_equal(oom.live_count, live);
}

/* What was made ready is all that links and unlinks need. */
static void iova_state_link__needs_no_memory_for_what_was_reserved(void **state)
{
	unsigned live = oom.live_count;
	static struct machine machine;
	struct dmacore_bounce_pool *pool;
	struct dmacore_iova_state range;

	(void)state;
	machine_start(&machine, TRANSLATED);
	use_device(&machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 36 * PAGE, &pool);
	reserve(&machine, &range, DMACORE_IOVA_STATE_PAGE_TABLES, LINKS, LINKS);
	for (unsigned round = 0; round < 3; round++)
		assert_needs_no_memory({
			for (unsigned i = 0; i < LINKS; i++)
				assert_ok(link_page(&range, i));
			assert_ok(dmacore_iova_state_unlink(&range, 0, 100));
			assert_ok(dmacore_iova_state_unlink(&range, PAGE - 8,
							    (LINKS - 2) * PAGE + 100));
		});
	assert_needs_no_memory(assert_ok(dmacore_iova_state_free(&range)));
	assert_int_equal(used_slots(pool), 0);
	end_pool(&machine, pool);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_state_link__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(iova_state_link__needs_no_memory_for_what_was_reserved),
	};

	return run_oom_group("oom iova state", tests, NULL);
}
