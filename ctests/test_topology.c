/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

/* Devices at places, and which of them share a group. */

#define MEMBERS_MAX 8

struct board {
	struct machine machine;
	/* An isolating port, a bridge below it that does not isolate, an isolating one below that. */
	struct dmacore_bridge *port;
	struct dmacore_bridge *hub;
	struct dmacore_bridge *deep;
	struct dmacore_device *devices[MEMBERS_MAX];
	unsigned count;
	/* What find_group returns, and how often it was asked. */
	struct dmacore_group *answer;
	unsigned asked;
};

static struct dmacore_group *answer(const struct dmacore_device_options *options, void *opaque)
{
	struct board *board = opaque;

	assert_string_equal(options->name, "other bus");
	board->asked++;
	return board->answer;
}

static int setup(void **state)
{
	struct board *board = calloc(1, sizeof(*board));

	assert_non_null(board);
	machine_start(&board->machine, TRANSLATED);
	board->port = make_bridge(&board->machine, NULL, DMACORE_BRIDGE_ISOLATES);
	board->hub = make_bridge(&board->machine, board->port, 0);
	board->deep = make_bridge(&board->machine, board->hub, DMACORE_BRIDGE_ISOLATES);
	*state = board;
	return 0;
}

static int teardown(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < board->count; i++)
		dmacore_device_destroy(board->devices[i]);
	dmacore_bridge_destroy(board->deep);
	dmacore_bridge_destroy(board->hub);
	dmacore_bridge_destroy(board->port);
	machine_stop(&board->machine);
	free(board);
	return 0;
}

static struct dmacore_device_options at(struct board *board, struct dmacore_bridge *bridge,
					const uint32_t *ids, size_t count)
{
	struct dmacore_device_options options = device_options(&board->machine);

	options.bridge = bridge;
	options.ids = ids;
	options.id_count = count;
	return options;
}

static int try_add(struct board *board, const struct dmacore_device_options *options)
{
	int error = dmacore_device_create(board->machine.system, options,
					  &board->devices[board->count]);

	if (!error)
		board->count++;
	return error;
}

static struct dmacore_device *add(struct board *board, struct dmacore_bridge *bridge, uint32_t id)
{
	struct dmacore_device_options options = at(board, bridge, &id, 1);

	assert_ok(try_add(board, &options));
	return board->devices[board->count - 1];
}

static struct dmacore_group *group_of(struct dmacore_device *device)
{
	struct dmacore_group *group;

	assert_ok(dmacore_device_group(device, &group));
	/* The device holds it. */
	dmacore_group_destroy(group);
	return group;
}

static void bridge_create__rejects_bad_options(void **state)
{
	struct board *board = *state;
	struct dmacore_bridge_options good = DMACORE_BRIDGE_OPTIONS_INIT, options = good;
	struct dmacore_system *system = board->machine.system, *other;
	struct dmacore_bridge *bridge;

	assert_creates_nothing(dmacore_bridge_create(NULL, &options, &bridge), EINVAL, bridge);
	assert_fails(dmacore_bridge_create(system, &options, NULL), EINVAL);
	for (unsigned bit = 3; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		assert_creates_nothing(dmacore_bridge_create(system, &options, &bridge), EINVAL,
				       bridge);
	}
	options = good;
	options.reserved = 1;
	assert_creates_nothing(dmacore_bridge_create(system, &options, &bridge), EINVAL, bridge);
	options = good;
	check_struct_size(struct dmacore_bridge_options, good,
			  dmacore_bridge_create(system, options, &bridge), bridge,
			  dmacore_bridge_destroy);
	assert_ok(dmacore_system_create(NULL, &other));
	options.parent = board->port;
	assert_creates_nothing(dmacore_bridge_create(other, &options, &bridge), EINVAL, bridge);
	dmacore_system_destroy(other);
	dmacore_bridge_destroy(NULL);
}

static void device_create__rejects_bad_places(void **state)
{
	struct board *board = *state;
	uint32_t ids[DMACORE_DEVICE_IDS_MAX + 1] = { 0 };
	struct dmacore_device_options options = at(board, NULL, ids, DMACORE_DEVICE_IDS_MAX + 1);
	struct dmacore_system *other;
	struct dmacore_device *device;

	assert_fails(try_add(board, &options), EINVAL);
	options.id_count = SIZE_MAX;
	assert_fails(try_add(board, &options), EINVAL);
	options.id_count = 1;
	options.ids = NULL;
	assert_fails(try_add(board, &options), EINVAL);
	options.id_count = 0;
	options.flags = DMACORE_DEVICE_SHARES_SLOT;
	assert_fails(try_add(board, &options), EINVAL);
	options = (struct dmacore_device_options)DMACORE_DEVICE_OPTIONS_INIT;
	options.bridge = board->port;
	assert_ok(dmacore_system_create(NULL, &other));
	assert_creates_nothing(dmacore_device_create(other, &options, &device), EINVAL, device);
	dmacore_system_destroy(other);
	options = at(board, board->port, ids, DMACORE_DEVICE_IDS_MAX);
	assert_ok(try_add(board, &options));
}

static void devices__below_isolating_bridges_are_alone(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one = add(board, board->port, 0x100);
	struct dmacore_device *two = add(board, board->port, 0x108);
	struct dmacore_device *root = add(board, NULL, 0x10);

	assert_ptr_not_equal(group_of(one), group_of(two));
	assert_ptr_not_equal(group_of(one), group_of(root));
}

static void devices__below_a_bridge_that_does_not_isolate_are_a_group(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one = add(board, board->hub, 0x200);
	struct dmacore_device *deep = add(board, board->deep, 0x300);
	struct dmacore_device *two = add(board, board->hub, 0x208);
	struct dmacore_device *port = add(board, board->port, 0x100);

	assert_ptr_equal(group_of(one), group_of(two));
	/* The topmost bridge counts, not the next one. */
	assert_ptr_equal(group_of(one), group_of(deep));
	assert_ptr_not_equal(group_of(one), group_of(port));
}

static void devices__below_several_such_bridges_are_the_group_of_the_topmost(void **state)
{
	struct board *board = *state;
	struct dmacore_bridge *inner = make_bridge(&board->machine, board->deep, 0);
	struct dmacore_device *one = add(board, inner, 0x400);
	struct dmacore_device *two = add(board, board->hub, 0x200);

	assert_ptr_equal(group_of(one), group_of(two));
	dmacore_bridge_destroy(inner);
}

static void devices__below_a_bridge_are_a_group_again_when_all_have_gone(void **state)
{
	struct board *board = *state;

	add(board, board->hub, 0x200);
	dmacore_device_destroy(board->devices[--board->count]);
	assert_ptr_equal(group_of(add(board, board->hub, 0x200)),
			 group_of(add(board, board->hub, 0x208)));
}

static void devices__that_have_an_id_in_common_are_a_group(void **state)
{
	struct board *board = *state;
	const uint32_t many[] = { 0x500, 0x501, 0x600 };
	struct dmacore_device_options options = at(board, board->port, many, 3);
	struct dmacore_device *one = add(board, NULL, 0x600);
	struct dmacore_device *two = add(board, NULL, 0x700);
	struct dmacore_iommu *iommu;

	assert_ok(try_add(board, &options));
	assert_ptr_equal(group_of(board->devices[2]), group_of(one));
	assert_ptr_not_equal(group_of(board->devices[2]), group_of(two));
	/* IDs mean something behind their IOMMU. */
	assert_ok(dmacore_iommu_create(board->machine.system, NULL, &iommu));
	options.iommu = iommu;
	assert_ok(try_add(board, &options));
	assert_ptr_not_equal(group_of(board->devices[3]), group_of(one));
	dmacore_device_destroy(board->devices[3]);
	board->count--;
	dmacore_iommu_destroy(iommu);
}

static void devices__behind_no_iommu_are_no_group_for_their_ids(void **state)
{
	struct board *board = *state;
	const uint32_t ids[] = { 0x500, 0x600 };
	struct dmacore_device_options options = at(board, NULL, ids, 2);

	options.iommu = NULL;
	assert_ok(try_add(board, &options));
	assert_ok(try_add(board, &options));
	assert_ptr_not_equal(group_of(board->devices[0]), group_of(board->devices[1]));
}

static void devices__that_have_gone_are_no_reason_for_a_group(void **state)
{
	struct board *board = *state;
	struct dmacore_group *group;
	struct dmacore_view *view;

	add(board, NULL, 0x600);
	assert_ok(dmacore_device_group(board->devices[0], &group));
	assert_ok(dmacore_view_create(board->devices[0], &view));
	dmacore_device_destroy(board->devices[0]);
	reports_forget(&board->machine.reports);
	board->count = 0;
	assert_ptr_not_equal(group_of(add(board, NULL, 0x600)), group);
	dmacore_view_destroy(view);
	dmacore_group_destroy(group);
}

static void functions__that_share_a_slot_are_a_group(void **state)
{
	struct board *board = *state;
	/* Of one slot, of the next, and one of the first that has access control. */
	const uint32_t ids[] = { 0x118, 0x11f, 0x120, 0x119 };
	struct dmacore_device_options options;

	for (unsigned i = 0; i < 4; i++) {
		options = at(board, board->port, &ids[i], 1);
		options.flags = i == 3 ? 0 : DMACORE_DEVICE_SHARES_SLOT;
		assert_ok(try_add(board, &options));
	}
	assert_ptr_equal(group_of(board->devices[0]), group_of(board->devices[1]));
	assert_ptr_not_equal(group_of(board->devices[0]), group_of(board->devices[2]));
	assert_ptr_not_equal(group_of(board->devices[0]), group_of(board->devices[3]));
	/* A slot of the same number elsewhere. */
	options = at(board, NULL, &ids[1], 1);
	options.flags = DMACORE_DEVICE_SHARES_SLOT;
	options.iommu = NULL;
	assert_ok(try_add(board, &options));
	assert_ptr_not_equal(group_of(board->devices[0]), group_of(board->devices[4]));
}

static void device_create__joins_no_two_groups(void **state)
{
	struct board *board = *state;
	const uint32_t both[] = { 0x900, 0x600, 0x700 };
	struct dmacore_device_options options = at(board, NULL, both, 3);

	add(board, NULL, 0x600);
	add(board, NULL, 0x700);
	assert_fails(try_add(board, &options), EBUSY);
	options.id_count = 2;
	assert_ok(try_add(board, &options));
	/* By its bridge it belongs to one, by its ID to another. */
	add(board, board->hub, 0x200);
	options = at(board, board->hub, both, 1);
	assert_fails(try_add(board, &options), EBUSY);
}

static void device_create__takes_a_group_that_the_topology_does_not_deny(void **state)
{
	struct board *board = *state;
	const uint32_t id = 0x200;
	struct dmacore_device_options options = at(board, board->hub, &id, 1);
	struct dmacore_group *group, *other;

	assert_ok(dmacore_group_create(board->machine.system, &group));
	assert_ok(dmacore_group_create(board->machine.system, &other));
	options.group = group;
	assert_ok(try_add(board, &options));
	assert_ptr_equal(group_of(board->devices[0]), group);
	/* All below the bridge go there now. */
	assert_ptr_equal(group_of(add(board, board->deep, 0x300)), group);
	options.group = other;
	assert_fails(try_add(board, &options), EINVAL);
	dmacore_group_destroy(other);
	dmacore_group_destroy(group);
}

static void device_create__that_fails_leaves_no_place_behind(void **state)
{
	struct board *board = *state;
	const uint32_t id = 0x600;
	struct dmacore_device_options options = at(board, NULL, &id, 1);
	struct dmacore_group *group;

	/* A group whose devices are behind another IOMMU. */
	assert_ok(dmacore_device_group(board->machine.device, &group));
	options.group = group;
	options.iommu = NULL;
	assert_fails(try_add(board, &options), EINVAL);
	options.group = NULL;
	assert_ok(try_add(board, &options));
	assert_ptr_not_equal(group_of(board->devices[0]), group);
	/* Nor does its bridge lead others to the group. */
	options.bridge = board->hub;
	options.id_count = 0;
	options.group = group;
	assert_fails(try_add(board, &options), EINVAL);
	options.group = NULL;
	assert_ok(try_add(board, &options));
	assert_ptr_not_equal(group_of(board->devices[1]), group);
	dmacore_group_destroy(group);
}

static void device_create__asks_about_devices_without_topology(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct board *board = *state;
	const uint32_t id = 1;
	struct dmacore_device *devices[4];
	struct dmacore_system *system;
	struct dmacore_group *own;

	options.find_group = answer;
	options.find_group_opaque = board;
	assert_ok(dmacore_system_create(&options, &system));
	assert_ok(dmacore_group_create(system, &board->answer));
	device_options.name = "other bus";
	assert_ok(dmacore_device_create(system, &device_options, &devices[0]));
	assert_ok(dmacore_device_create(system, &device_options, &devices[1]));
	assert_int_equal(board->asked, 2);
	assert_ptr_equal(group_of(devices[0]), board->answer);
	assert_ptr_equal(group_of(devices[1]), board->answer);
	/* Not about those that are given a group or a topology. */
	device_options.ids = &id;
	device_options.id_count = 1;
	assert_ok(dmacore_device_create(system, &device_options, &devices[2]));
	assert_ptr_not_equal(group_of(devices[2]), board->answer);
	device_options.id_count = 0;
	assert_ok(dmacore_group_create(system, &own));
	device_options.group = own;
	assert_ok(dmacore_device_create(system, &device_options, &devices[3]));
	assert_ptr_equal(group_of(devices[3]), own);
	assert_int_equal(board->asked, 2);
	for (unsigned i = 0; i < 4; i++)
		dmacore_device_destroy(devices[i]);
	dmacore_group_destroy(board->answer);
	dmacore_group_destroy(own);
	/* The answer may be that it does not know. */
	board->answer = NULL;
	device_options.group = NULL;
	assert_ok(dmacore_device_create(system, &device_options, &devices[0]));
	assert_int_equal(board->asked, 3);
	dmacore_device_destroy(devices[0]);
	dmacore_system_destroy(system);
}

static void bridge__lives_as_long_as_what_is_below_it(void **state)
{
	struct board *board = *state;
	struct dmacore_device *one = add(board, board->deep, 0x300);
	struct dmacore_bridge *upper = make_bridge(&board->machine, NULL, 0);
	struct dmacore_bridge *lower = make_bridge(&board->machine, upper, DMACORE_BRIDGE_ISOLATES);
	struct dmacore_device *two, *three;

	dmacore_bridge_destroy(upper);
	two = add(board, lower, 0x400);
	three = add(board, lower, 0x408);
	dmacore_bridge_destroy(lower);
	assert_ptr_equal(group_of(two), group_of(three));
	assert_ptr_not_equal(group_of(one), group_of(two));
}

#define test(function)                                     \
	{                                                  \
#function, function, setup, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(bridge_create__rejects_bad_options),
		test(device_create__rejects_bad_places),
		test(devices__below_isolating_bridges_are_alone),
		test(devices__below_a_bridge_that_does_not_isolate_are_a_group),
		test(devices__below_several_such_bridges_are_the_group_of_the_topmost),
		test(devices__below_a_bridge_are_a_group_again_when_all_have_gone),
		test(devices__that_have_an_id_in_common_are_a_group),
		test(devices__behind_no_iommu_are_no_group_for_their_ids),
		test(devices__that_have_gone_are_no_reason_for_a_group),
		test(functions__that_share_a_slot_are_a_group),
		test(device_create__joins_no_two_groups),
		test(device_create__takes_a_group_that_the_topology_does_not_deny),
		test(device_create__that_fails_leaves_no_place_behind),
		test(device_create__asks_about_devices_without_topology),
		test(bridge__lives_as_long_as_what_is_below_it),
	};

	return run_group("topology", tests);
}
