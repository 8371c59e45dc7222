/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>

static void create_bridge(void)
{
	struct object *system = pick_object(SYSTEM);
	struct dmacore_bridge *bridge = (void *)&world;
	union storage options;
	int result;

	structure(&options, sizeof(options.bridge));
	options.bridge.flags = one_in(32) ? byte() : byte() % 8;
	options.bridge.reserved = one_in(64);
	options.bridge.parent = one_in(2) ? pick(BRIDGE) : NULL;
	if (options.bridge.parent != NULL && !one_in(8))
		options.bridge.flags &= DMACORE_BRIDGE_ISOLATES;
	result = RESULT(dmacore_bridge_create(system->handle, one_in(64) ? NULL : &options.bridge,
					      OUT(&bridge)),
			EINVAL, E2BIG, ENOMEM);
	if (result == 0)
		keep(BRIDGE, bridge, system->is_flat);
	else
		CHECK(bridge == NULL || result == -EINVAL);
}

static void create_peer(void)
{
	struct object *provider = pick_object(DEVICE);
	struct dmacore_peer *peer = (void *)&world;
	union storage options;
	uint64_t size = byte() % 8 * PAGE;
	int result;

	structure(&options, sizeof(options.peer));
	options.peer.flags = one_in(64);
	options.peer.reserved = one_in(64);
	if (one_in(2) || (provider->is_flat && !one_in(4))) {
		options.peer.phys = (uintptr_t)ram_range(&size) & ~(PAGE - 1);
		size &= ~(PAGE - 1);
	} else {
		options.peer.phys = address("phys");
		world.has_lied |= provider->is_flat;
	}
	options.peer.size = one_in(16) ? length("size") : size;
	options.peer.bus = one_in(4) ? 0 : address("bus");
	if (!one_in(16)) {
		options.peer.phys &= ~(PAGE - 1);
		options.peer.bus &= ~(PAGE - 1);
	}
	/* What is given to a flat system must be memory to its end. */
	world.has_lied |= provider->is_flat && options.peer.size != size;
	result = RESULT(dmacore_peer_create(provider->handle, one_in(64) ? NULL : &options.peer,
					    OUT(&peer)),
			EINVAL, EEXIST, EBUSY, E2BIG, ENOMEM);
	if (result != 0) {
		CHECK(peer == NULL || result == -EINVAL);
		return;
	}
	keep(PEER, peer, provider->is_flat);
	if (options.peer.bus == 0)
		options.peer.bus = options.peer.phys;
	world.bus_first = options.peer.bus < world.bus_first || world.bus_last == 0 ?
				  options.peer.bus :
				  world.bus_first;
	if (options.peer.bus + (options.peer.size - 1) > world.bus_last)
		world.bus_last = options.peer.bus + (options.peer.size - 1);
	remember(options.peer.phys, options.peer.size);
	remember(options.peer.bus, options.peer.size);
}

bool may_be_bus_address(uint64_t dma)
{
	return world.bus_last != 0 && world.bus_first <= dma && dma <= world.bus_last;
}

void call_peer(void)
{
	uint32_t route = UINT32_MAX, distance = UINT32_MAX;
	/* Not inside a callback, where the slot could be taken twice. */
	bool may_create = count_objects(NOTHING) > 0 && world.depth == 0;

	switch (byte() % 8) {
	case 0:
		if (may_create)
			create_bridge();
		break;
	case 1:
	case 2:
		if (may_create)
			create_peer();
		break;
	case 3:
	case 4:
		(void)RESULT(dmacore_bridge_set_isolation(pick(BRIDGE), one_in(2)), EINVAL, EBUSY);
		break;
	case 5:
		if (may_end_things())
			destroy(pick_object(one_in(4) ? BRIDGE : PEER));
		break;
	default:
		if (RESULT(dmacore_peer_route(pick(PEER), pick(DEVICE), OUT(&route),
					      OUT(&distance)),
			   EINVAL) == 0) {
			CHECK(route <= DMACORE_PEER_HOST_BRIDGE);
			CHECK(route != DMACORE_PEER_UNREACHABLE || distance == 0 ||
			      distance == UINT32_MAX);
		}
		break;
	}
}
