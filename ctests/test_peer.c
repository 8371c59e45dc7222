/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"
#include "support/peers.h"

/* Peers: what they are made from, and by which route devices reach them. */

static void peer_create__rejects_bad_arguments(void **state)
{
	struct board *board = *state;
	struct dmacore_peer_options good = peer_options(BAR_BUS), options = good;
	struct dmacore_device *device = add_device(board, board->hub, 0);
	struct dmacore_peer *peer;

	assert_creates_nothing(dmacore_peer_create(NULL, &options, &peer), EINVAL, peer);
	assert_creates_nothing(dmacore_peer_create(device, NULL, &peer), EINVAL, peer);
	assert_fails(dmacore_peer_create(device, &options, NULL), EINVAL);
	for (unsigned bit = 0; bit < 32; bit++) {
		options.flags = UINT32_C(1) << bit;
		assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	}
	options = good;
	options.reserved = 1;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options = good;
	options.size = 0;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options.size = PAGE + 1;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options = good;
	options.phys += 1;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options = good;
	options.bus += PAGE / 2;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options = good;
	options.phys = UINT64_MAX - PAGE + 1;
	options.size = 2 * PAGE;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	options = good;
	options.bus = UINT64_MAX - PAGE + 1;
	options.size = 2 * PAGE;
	assert_creates_nothing(dmacore_peer_create(device, &options, &peer), EINVAL, peer);
	check_struct_size(struct dmacore_peer_options, good,
			  dmacore_peer_create(device, options, &peer), peer, dmacore_peer_destroy);
	dmacore_peer_destroy(NULL);
}

static void peer_create__takes_both_ends_of_the_address_space(void **state)
{
	struct board *board = *state;
	struct dmacore_peer_options options = peer_options(PAGE);
	struct dmacore_device *device = add_device(board, board->hub, 0);
	struct dmacore_peer *lowest, *highest;
	dmacore_dma_t dma;

	options.phys = 0;
	options.size = PAGE;
	assert_ok(dmacore_peer_create(device, &options, &lowest));
	options.phys = options.bus = UINT64_MAX - PAGE + 1;
	assert_ok(dmacore_peer_create(device, &options, &highest));
	assert_ok(dmacore_map_phys(device, UINT64_MAX, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_true(dma == UINT64_MAX);
	assert_ok(dmacore_unmap(device, dma, 1, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_map_phys(device, 0, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_true(dma == PAGE);
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_peer_destroy(lowest);
	dmacore_peer_destroy(highest);
}

static void peer_create__that_overlaps_another_is_refused(void **state)
{
	struct board *board = *state;
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct dmacore_device *device = add_device(board, board->hub, 0);
	struct dmacore_device *other = add_device(board, board->across, 0);
	struct dmacore_peer *peer, *second;

	assert_ok(dmacore_peer_create(device, &options, &peer));
	assert_creates_nothing(dmacore_peer_create(other, &options, &second), EEXIST, second);
	/* The last page of the one and the first of the other, on either side. */
	options.phys = BAR_PHYS + BAR_SIZE - PAGE;
	options.bus = BAR_BUS + BAR_SIZE;
	assert_creates_nothing(dmacore_peer_create(other, &options, &second), EEXIST, second);
	options.phys = BAR_PHYS + BAR_SIZE;
	options.bus = BAR_BUS + BAR_SIZE - PAGE;
	assert_creates_nothing(dmacore_peer_create(other, &options, &second), EEXIST, second);
	options.bus = BAR_BUS + BAR_SIZE;
	assert_ok(dmacore_peer_create(other, &options, &second));
	dmacore_peer_destroy(peer);
	options = peer_options(0);
	assert_ok(dmacore_peer_create(other, &options, &peer));
	dmacore_peer_destroy(peer);
	dmacore_peer_destroy(second);
}

static void peer_route__rejects_bad_arguments(void **state)
{
	struct board *board = *state;
	struct dmacore_device *device = add_device(board, board->hub, 0), *foreign;
	struct dmacore_peer *peer = add_peer(device, BAR_BUS);
	struct dmacore_system *other;
	uint32_t route, distance;

	assert_fails_untouched(dmacore_peer_route(NULL, device, &route, &distance), EINVAL, route);
	assert_fails_untouched(dmacore_peer_route(peer, NULL, &route, &distance), EINVAL, route);
	assert_fails_untouched(dmacore_peer_route(peer, device, NULL, &distance), EINVAL, distance);
	assert_ok(dmacore_peer_route(peer, device, &route, NULL));
	assert_ok(dmacore_system_create(NULL, &other));
	assert_ok(dmacore_device_create(other, NULL, &foreign));
	assert_fails_untouched(dmacore_peer_route(peer, foreign, &route, NULL), EINVAL, route);
	dmacore_device_destroy(foreign);
	dmacore_system_destroy(other);
	dmacore_peer_destroy(peer);
}

#define assert_route(peer, client, route_, distance_)                              \
	do {                                                                       \
		uint32_t reached_ = UINT32_MAX, far_ = UINT32_MAX;                 \
                                                                                   \
		assert_ok(dmacore_peer_route((peer), (client), &reached_, &far_)); \
		assert_int_equal(reached_, route_);                                \
		assert_int_equal(far_, distance_);                                 \
	} while (0)

static void route__follows_from_where_devices_are(void **state)
{
	struct board *board = *state;
	struct dmacore_bridge *open = make_bridge(&board->machine, board->hub, 0);
	struct dmacore_bridge *closed =
		make_bridge(&board->machine, board->hub, DMACORE_BRIDGE_ISOLATES);
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);

	assert_route(peer, provider, DMACORE_PEER_BUS_ADDRESS, 0);
	assert_route(peer, add_device(board, board->hub, 0), DMACORE_PEER_BUS_ADDRESS, 1);
	assert_route(peer, add_device(board, open, 0), DMACORE_PEER_BUS_ADDRESS, 2);
	/* It isolates, so that requests go all the way up, over three bridges, and down over two. */
	assert_route(peer, add_device(board, closed, 0), DMACORE_PEER_HOST_BRIDGE, 5);
	assert_route(peer, add_device(board, board->top, 0), DMACORE_PEER_HOST_BRIDGE, 3);
	assert_route(peer, add_device(board, board->across, 0), DMACORE_PEER_HOST_BRIDGE, 3);
	/* Host bridges that pass what is below them alone, or nothing. */
	assert_route(peer, add_device(board, board->below, 0), DMACORE_PEER_UNREACHABLE, 0);
	assert_route(peer, add_device(board, board->plain, 0), DMACORE_PEER_UNREACHABLE, 0);
	assert_route(peer, add_device(board, NULL, 0), DMACORE_PEER_UNREACHABLE, 0);
	dmacore_peer_destroy(peer);
	dmacore_bridge_destroy(open);
	dmacore_bridge_destroy(closed);
}

static void route__through_a_host_bridge_that_passes_what_is_below_it(void **state)
{
	struct board *board = *state;
	struct dmacore_bridge *deep =
		make_bridge(&board->machine, board->below, DMACORE_BRIDGE_ISOLATES);
	struct dmacore_device *provider = add_device(board, board->below, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);

	assert_route(peer, add_device(board, deep, 0), DMACORE_PEER_HOST_BRIDGE, 3);
	assert_route(peer, add_device(board, board->top, 0), DMACORE_PEER_UNREACHABLE, 0);
	dmacore_peer_destroy(peer);
	provider = add_device(board, board->plain, 0);
	peer = add_peer(provider, BAR_BUS);
	assert_route(peer, add_device(board, board->plain, 0), DMACORE_PEER_UNREACHABLE, 0);
	assert_route(peer, provider, DMACORE_PEER_BUS_ADDRESS, 0);
	dmacore_peer_destroy(peer);
	dmacore_bridge_destroy(deep);
}

static void route__of_functions_that_share_a_slot_is_by_bus_address(void **state)
{
	const uint32_t ids[] = { 0x118, 0x11f, 0x120, 0x121 };
	struct board *board = *state;
	struct dmacore_device *devices[4];
	struct dmacore_peer *peer;

	for (unsigned i = 0; i < 4; i++) {
		struct dmacore_device_options options = board_device(board, board->plain, 0);

		options.ids = &ids[i];
		options.id_count = 1;
		options.flags |= i == 3 ? 0 : DMACORE_DEVICE_SHARES_SLOT;
		devices[i] = add_with(board, &options);
	}
	peer = add_peer(devices[0], BAR_BUS);
	assert_route(peer, devices[1], DMACORE_PEER_BUS_ADDRESS, 0);
	assert_route(peer, devices[2], DMACORE_PEER_UNREACHABLE, 0);
	assert_route(peer, devices[3], DMACORE_PEER_UNREACHABLE, 0);
	dmacore_peer_destroy(peer);
}

static void route__follows_access_control(void **state)
{
	struct board *board = *state;
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_device *client = add_device(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);

	assert_route(peer, client, DMACORE_PEER_BUS_ADDRESS, 1);
	assert_ok(dmacore_bridge_set_isolation(board->hub, true));
	assert_route(peer, client, DMACORE_PEER_HOST_BRIDGE, 4);
	assert_route(peer, provider, DMACORE_PEER_BUS_ADDRESS, 0);
	assert_ok(dmacore_bridge_set_isolation(board->hub, false));
	assert_route(peer, client, DMACORE_PEER_BUS_ADDRESS, 1);
	/* What isolates above the bridge that they have in common is not on the way. */
	assert_ok(dmacore_bridge_set_isolation(board->top, false));
	assert_route(peer, client, DMACORE_PEER_BUS_ADDRESS, 1);
	dmacore_peer_destroy(peer);
}

static void route__of_a_client_that_is_not_trusted_is_never_by_bus_address(void **state)
{
	struct board *board = *state;
	struct dmacore_device *client = add_device(board, board->hub, DMACORE_DEVICE_UNTRUSTED);
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);

	assert_route(peer, client, DMACORE_PEER_HOST_BRIDGE, 4);
	dmacore_peer_destroy(peer);
	/* What it provides itself may be reached like that. */
	peer = add_peer(client, BAR_BUS);
	assert_route(peer, provider, DMACORE_PEER_BUS_ADDRESS, 1);
	assert_route(peer, client, DMACORE_PEER_BUS_ADDRESS, 0);
	dmacore_peer_destroy(peer);
}

static void route__to_a_device_that_was_destroyed_is_none(void **state)
{
	struct board *board = *state;
	struct dmacore_device_options options = board_device(board, board->hub, 0);
	struct dmacore_device *client = add_device(board, board->hub, 0), *provider;
	struct dmacore_peer *peer;

	assert_ok(dmacore_device_create(board->machine.system, &options, &provider));
	peer = add_peer(provider, BAR_BUS);
	assert_route(peer, client, DMACORE_PEER_BUS_ADDRESS, 1);
	dmacore_device_destroy(provider);
	assert_reported(&board->machine, DMACORE_REPORT_WARNING);
	assert_route(peer, client, DMACORE_PEER_UNREACHABLE, 0);
	dmacore_peer_destroy(peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		board_test(peer_create__rejects_bad_arguments),
		board_test(peer_create__takes_both_ends_of_the_address_space),
		board_test(peer_create__that_overlaps_another_is_refused),
		board_test(peer_route__rejects_bad_arguments),
		board_test(route__follows_from_where_devices_are),
		board_test(route__through_a_host_bridge_that_passes_what_is_below_it),
		board_test(route__of_functions_that_share_a_slot_is_by_bus_address),
		board_test(route__follows_access_control),
		board_test(route__of_a_client_that_is_not_trusted_is_never_by_bus_address),
		board_test(route__to_a_device_that_was_destroyed_is_none),
	};

	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
