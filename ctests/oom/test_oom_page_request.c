/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/asker.h"

#define CAPACITY 4

static void view_request_page__needs_memory_for_the_first_of_a_group_alone(void **state)
{
	unsigned live = oom.live_count, live_with_device;
	unsigned long failures;
	static struct machine machine;
	static struct asker asker;
	static struct handler handler;
	struct dmacore_device_options options;
	struct dmacore_page_request_group *group = NULL;
	struct dmacore_domain *domain;

	(void)state;
	memset(&asker, 0, sizeof(asker));
	memset(&handler, 0, sizeof(handler));
	machine_start(&machine, TRANSLATED);
	domain = make_handled(&machine, DMACORE_DOMAIN_UNMANAGED, &handler);
	options = asker_options(&machine, &asker, CAPACITY);
	assert_creates_after_failures(
		dmacore_device_create(machine.system, &options, &asker.device), asker.device);
	assert_ok(dmacore_view_create(asker.device, &asker.view));
	assert_ok(dmacore_domain_attach(domain, asker.device));
	live_with_device = oom.live_count;

	/* One that is whole at once, and one that is not. */
	for (unsigned i = 0; i < 2; i++) {
		failures = oom.failures;
		assert_survives_failures(ask(&asker, PAGE, i, i == 0 ? LAST : 0), {
			assert_untold(&handler);
			assert_unanswered(&asker);
			assert_true(oom.live_count <= live_with_device + 2);
		});
		assert_true(oom.failures > failures);
		if (i == 0)
			group = handler_take(&handler);
	}
	/* From here on nothing may ask for memory. */
	assert_needs_no_memory({
		assert_ok(ask(&asker, PAGE, 1, 0));
		assert_ok(ask(&asker, PAGE, 1, LAST));
		assert_fails(ask(&asker, PAGE, 2, 0), ENOSPC);
		assert_int_equal(group_info(group).count, 1);
		assert_ok(respond(group, SUCCESS));
		assert_answered(&asker, 0, 0, SUCCESS);
		assert_ok(dmacore_domain_detach(domain, asker.device));
		assert_answered(&asker, 0, 1, INVALID);
		assert_fails(respond(handler_take(&handler), SUCCESS), ENOENT);
	});
	assert_int_equal(oom.live_count, live_with_device);
	/* Nobody to tell. */
	assert_survives_failures(ask(&asker, PAGE, 3, LAST), assert_unanswered(&asker));
	assert_answered(&asker, 0, 3, INVALID);
	/* What is collected goes with the device. */
	assert_ok(ask(&asker, PAGE, 4, 0));
	assert_needs_no_memory({
		asker_stop(&asker);
		dmacore_domain_destroy(domain);
	});
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(view_request_page__needs_memory_for_the_first_of_a_group_alone),
	};

	return run_oom_group("oom page requests", tests, NULL);
}
