/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

/* Bridges whose isolation changes, and what that does to groups. */

struct board {
	struct machine machine;
	/* An isolating port, and an isolating bridge below it. */
	struct dmacore_bridge *port;
	struct dmacore_bridge *deep;
};

static int setup(void **state)
{
	struct board *board = calloc(1, sizeof(*board));

	assert_non_null(board);
	machine_start(&board->machine, TRANSLATED);
	board->port = make_bridge(&board->machine, NULL, DMACORE_BRIDGE_ISOLATES);
	board->deep = make_bridge(&board->machine, board->port, DMACORE_BRIDGE_ISOLATES);
	*state = board;
	return 0;
}

static int teardown(void **state)
{
	struct board *board = *state;

	dmacore_bridge_destroy(board->deep);
	dmacore_bridge_destroy(board->port);
	machine_stop(&board->machine);
	free(board);
	return 0;
}

static struct dmacore_device *add(struct board *board, struct dmacore_bridge *bridge)
{
	struct dmacore_device_options options = device_options(&board->machine);
	struct dmacore_device *device;

	options.bridge = bridge;
	assert_ok(dmacore_device_create(board->machine.system, &options, &device));
	return device;
}

static bool share_a_group(struct dmacore_device *one, struct dmacore_device *other)
{
	struct dmacore_group *group, *same;

	assert_ok(dmacore_device_group(one, &group));
	assert_ok(dmacore_device_group(other, &same));
	dmacore_group_destroy(same);
	dmacore_group_destroy(group);
	return group == same;
}

static void set_isolation__rejects_null(void **state)
{
	(void)state;
	assert_fails(dmacore_bridge_set_isolation(NULL, true), EINVAL);
	assert_fails(dmacore_bridge_set_isolation(NULL, false), EINVAL);
}

static void bridge_create__takes_flags_of_a_host_bridge_on_a_root_bus_alone(void **state)
{
	const uint32_t flags[] = { DMACORE_BRIDGE_HOST_PASSES, DMACORE_BRIDGE_HOST_PASSES_ACROSS,
				   DMACORE_BRIDGE_HOST_PASSES | DMACORE_BRIDGE_HOST_PASSES_ACROSS };
	struct board *board = *state;

	for (unsigned i = 0; i < 3; i++) {
		struct dmacore_bridge_options options = DMACORE_BRIDGE_OPTIONS_INIT;
		struct dmacore_bridge *bridge = make_bridge(&board->machine, NULL, flags[i]);

		options.flags = flags[i];
		options.parent = bridge;
		dmacore_bridge_destroy(
			make_bridge(&board->machine, bridge, DMACORE_BRIDGE_ISOLATES));
		dmacore_bridge_destroy(bridge);
		options.parent = board->port;
		assert_creates_nothing(
			dmacore_bridge_create(board->machine.system, &options, &bridge), EINVAL,
			bridge);
	}
}

static void set_isolation__joins_no_two_groups(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one = add(board, board->port);
	struct dmacore_device *two = add(board, board->deep);
	struct dmacore_device *three;

	assert_fails(dmacore_bridge_set_isolation(board->port, false), EBUSY);
	/* Nothing has changed. */
	three = add(board, board->port);
	assert_false(share_a_group(one, three));
	dmacore_device_destroy(three);
	/* Below the other bridge there is one group alone. */
	assert_ok(dmacore_bridge_set_isolation(board->deep, false));
	three = add(board, board->deep);
	assert_true(share_a_group(two, three));
	dmacore_device_destroy(one);
	assert_ok(dmacore_bridge_set_isolation(board->port, false));
	one = add(board, board->port);
	assert_true(share_a_group(one, two));
	dmacore_device_destroy(one);
	dmacore_device_destroy(two);
	dmacore_device_destroy(three);
}

static void set_isolation__splits_no_group(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one, *two, *three;

	assert_ok(dmacore_bridge_set_isolation(board->port, false));
	one = add(board, board->port);
	two = add(board, board->deep);
	assert_true(share_a_group(one, two));
	assert_ok(dmacore_bridge_set_isolation(board->port, true));
	assert_true(share_a_group(one, two));
	/* Who comes now can be kept apart from them. */
	three = add(board, board->port);
	assert_false(share_a_group(one, three));
	assert_fails(dmacore_bridge_set_isolation(board->port, false), EBUSY);
	dmacore_device_destroy(three);
	assert_ok(dmacore_bridge_set_isolation(board->port, false));
	/* To say what is so already is fine. */
	assert_ok(dmacore_bridge_set_isolation(board->port, false));
	dmacore_device_destroy(one);
	dmacore_device_destroy(two);
}

static void set_isolation__below_a_bridge_that_does_not_isolate_changes_no_group(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one, *two;

	assert_ok(dmacore_bridge_set_isolation(board->port, false));
	one = add(board, board->deep);
	assert_ok(dmacore_bridge_set_isolation(board->deep, false));
	assert_ok(dmacore_bridge_set_isolation(board->deep, true));
	two = add(board, board->deep);
	assert_true(share_a_group(one, two));
	dmacore_device_destroy(one);
	dmacore_device_destroy(two);
}

#define test(function)                                     \
	{                                                  \
#function, function, setup, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(set_isolation__rejects_null),
		test(bridge_create__takes_flags_of_a_host_bridge_on_a_root_bus_alone),
		test(set_isolation__joins_no_two_groups),
		test(set_isolation__splits_no_group),
		test(set_isolation__below_a_bridge_that_does_not_isolate_changes_no_group),
	};

	return cmocka_run_group_tests_name("isolation", tests, NULL, NULL);
}
