/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/peers.h"

/* Memory of peers that is mapped, and reached through views. */

/* The page of the BAR that the tests map, and what lies in it. */
#define AT (3 * PAGE)

struct client {
	struct dmacore_device *device;
	struct dmacore_view *view;
	struct dmacore_domain *domain;
};

static struct client at(struct board *board, struct dmacore_device *device)
{
	struct client client = { .device = device };

	(void)board;
	assert_ok(dmacore_view_create(device, &client.view));
	return client;
}

/* A client behind the IOMMU in a domain of a type; 0: behind none. */
static struct client make_client(struct board *board, struct dmacore_bridge *bridge, uint32_t flags,
				 uint32_t type)
{
	struct client client;

	if (!type)
		return at(board, add_device(board, bridge, flags));
	client = at(board, add_behind_iommu(board, bridge, flags));
	client.domain = make_domain(&board->machine, type, 0, 0);
	assert_ok(dmacore_domain_attach(client.domain, client.device));
	return client;
}

static void end_client(struct client *client)
{
	dmacore_view_destroy(client->view);
	if (client->domain)
		assert_ok(dmacore_domain_detach(client->domain, client->device));
	dmacore_domain_destroy(client->domain);
}

/* A provider beside a client: below the hub, and behind the IOMMU if that is. */
static struct dmacore_peer *make_peer(struct board *board, struct dmacore_bridge *bridge,
				      bool is_behind, dmacore_dma_t bus)
{
	return add_peer(
		is_behind ? add_behind_iommu(board, bridge, 0) : add_device(board, bridge, 0), bus);
}

static int map_bar(struct client *client, dmacore_dma_t *dma)
{
	return dmacore_map_phys(client->device, BAR_PHYS + AT, PAGE, DMACORE_BIDIRECTIONAL, 0, dma);
}

static int unmap_bar(struct client *client, dmacore_dma_t dma)
{
	return dmacore_unmap(client->device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0);
}

/* Reads and writes all of it. */
static void assert_reaches_bar(struct board *board, struct client *client, dmacore_dma_t dma)
{
	uint8_t buffer[PAGE];

	fill(board->bar + AT, PAGE, dma + 1);
	assert_ok(dmacore_view_read(client->view, dma, buffer, PAGE));
	assert_memory_equal(buffer, board->bar + AT, PAGE);
	fill(buffer, PAGE, dma + 2);
	assert_ok(dmacore_view_write(client->view, dma, buffer, PAGE));
	assert_memory_equal(buffer, board->bar + AT, PAGE);
}

static void forget_faults(struct dmacore_device *device)
{
	struct dmacore_fault faults[16];
	size_t count;

	assert_ok(dmacore_fault_take(device, faults, 16, &count, NULL));
}

static void assert_does_not_reach(struct client *client, dmacore_dma_t dma, int error)
{
	uint8_t buffer[PAGE];

	assert_fails(dmacore_view_read(client->view, dma, buffer, PAGE), error);
	assert_fails(dmacore_view_write(client->view, dma, buffer, 1), error);
	forget_faults(client->device);
}

static const uint32_t types[] = { 0, DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				  DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_HYBRID };

static void map__by_bus_address_is_independent_of_the_domain(void **state)
{
	struct board *board = *state;

	for (unsigned tracked = 0; tracked < 2; tracked++)
		for (unsigned i = 0; i < 5; i++) {
			struct client client =
				make_client(board, board->hub,
					    tracked ? DMACORE_DEVICE_TRACK_DIRECT : 0, types[i]);
			struct dmacore_peer *peer =
				make_peer(board, board->hub, types[i] != 0, BAR_BUS);
			dmacore_dma_t dma, other;

			assert_ok(map_bar(&client, &dma));
			assert_true(dma == BAR_BUS + AT);
			assert_int_equal(device_statistics(client.device).mapping_count, 1);
			assert_reaches_bar(board, &client, dma);
			/* It may be mapped as often as one likes. */
			assert_ok(map_bar(&client, &other));
			assert_true(dma == other);
			assert_ok(unmap_bar(&client, dma));
			assert_reaches_bar(board, &client, dma);
			assert_ok(unmap_bar(&client, dma));
			assert_int_equal(device_statistics(client.device).mapping_count, 0);
			/* A bus does not know of mappings. */
			if (tracked)
				assert_does_not_reach(&client, dma, ENOENT);
			else
				assert_reaches_bar(board, &client, dma);
			dmacore_peer_destroy(peer);
			end_client(&client);
			remove_devices(board);
		}
}

static void map__through_the_host_bridge_is_by_the_devices_own_path(void **state)
{
	struct board *board = *state;
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);

	for (unsigned tracked = 0; tracked < 2; tracked++)
		for (unsigned i = 0; i < 5; i++) {
			struct client client =
				make_client(board, board->across,
					    tracked ? DMACORE_DEVICE_TRACK_DIRECT : 0, types[i]);
			bool is_direct = types[i] != DMACORE_DOMAIN_DMA &&
					 types[i] != DMACORE_DOMAIN_DMA_LAZY;
			dmacore_dma_t dma;

			assert_ok(map_bar(&client, &dma));
			assert_int_equal(dma == BAR_PHYS + AT, is_direct);
			assert_reaches_bar(board, &client, dma);
			/* The bus address is not known there. */
			if (types[i])
				assert_does_not_reach(
					&client, BAR_BUS + AT,
					types[i] == DMACORE_DOMAIN_IDENTITY && !tracked ? EFAULT :
											  ENOENT);
			assert_ok(unmap_bar(&client, dma));
			end_client(&client);
		}
	dmacore_peer_destroy(peer);
}

static void map__of_what_is_not_reachable_is_refused(void **state)
{
	struct board *board = *state;
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);

	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->plain, 0, types[i]);
		dmacore_dma_t dma;

		assert_fails_untouched(map_bar(&client, &dma), EREMOTEIO, dma);
		assert_fails_untouched(dmacore_map_single(client.device, board->bar, 1,
							  DMACORE_TO_DEVICE, 0, &dma),
				       EREMOTEIO, dma);
		assert_int_equal(device_statistics(client.device).mapping_count, 0);
		assert_int_equal(device_statistics(client.device).map_total, 0);
		/* All other memory is as it was. */
		assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					   &dma));
		assert_ok(dmacore_unmap(client.device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		end_client(&client);
	}
	dmacore_peer_destroy(peer);
}

static void map__of_what_lies_in_a_peer_in_part_is_refused(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, 0);
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer *peer, *next;
	dmacore_dma_t dma;

	options.size = 2 * PAGE;
	assert_ok(dmacore_peer_create(provider, &options, &peer));
	options.phys += 2 * PAGE;
	options.bus += 2 * PAGE;
	assert_ok(dmacore_peer_create(provider, &options, &next));
	assert_fails(dmacore_map_phys(client.device, BAR_PHYS - 1, 2, DMACORE_TO_DEVICE, 0, &dma),
		     EREMOTEIO);
	assert_fails(dmacore_map_phys(client.device, BAR_PHYS + PAGE, 2 * PAGE, DMACORE_TO_DEVICE,
				      0, &dma),
		     EREMOTEIO);
	assert_fails(dmacore_map_phys(client.device, BAR_PHYS + 4 * PAGE - 1, 2, DMACORE_TO_DEVICE,
				      0, &dma),
		     EREMOTEIO);
	/* Bytes at the very ends. */
	assert_ok(dmacore_map_phys(client.device, BAR_PHYS + 2 * PAGE - 1, 1, DMACORE_TO_DEVICE, 0,
				   &dma));
	assert_true(dma == BAR_BUS + 2 * PAGE - 1);
	assert_ok(dmacore_unmap(client.device, dma, 1, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_map_phys(client.device, BAR_PHYS + 2 * PAGE, 1, DMACORE_TO_DEVICE, 0,
				   &dma));
	assert_true(dma == BAR_BUS + 2 * PAGE);
	assert_ok(dmacore_unmap(client.device, dma, 1, DMACORE_TO_DEVICE, 0));
	dmacore_peer_destroy(peer);
	dmacore_peer_destroy(next);
	end_client(&client);
}

static void map__by_bus_address_stays_under_the_mask(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_DMA);
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);
	dmacore_dma_t dma;

	assert_ok(dmacore_device_set_streaming_mask(client.device, DMACORE_BIT_MASK(31), NULL));
	assert_fails(map_bar(&client, &dma), ERANGE);
	assert_ok(dmacore_device_set_streaming_mask(client.device, DMACORE_BIT_MASK(32), NULL));
	assert_ok(map_bar(&client, &dma));
	/* To unmap it is right whatever the mask is. */
	assert_ok(dmacore_device_set_streaming_mask(client.device, 0, NULL));
	assert_ok(unmap_bar(&client, dma));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void map__of_a_wrong_range_or_direction_is_misuse_by_bus_address_too(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_DMA);
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);
	dmacore_dma_t dma;

	assert_ok(map_bar(&client, &dma));
	assert_misuse(&board->machine,
		      dmacore_unmap(client.device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_misuse(&board->machine,
		      dmacore_unmap(client.device, dma, PAGE - 1, DMACORE_BIDIRECTIONAL, 0));
	assert_misuse(&board->machine,
		      dmacore_sync_for_cpu(client.device, dma, PAGE + 1, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_cpu(client.device, dma + 1, PAGE - 1, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(client.device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(unmap_bar(&client, dma));
	assert_misuse(&board->machine, unmap_bar(&client, dma));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void map__of_a_blocked_device_is_refused(void **state)
{
	struct board *board = *state;
	struct client client = at(board, add_behind_iommu(board, board->hub, 0));
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);
	dmacore_dma_t dma;

	assert_fails(map_bar(&client, &dma), EPERM);
	assert_does_not_reach(&client, BAR_BUS + AT, EPERM);
	client.domain = make_domain(&board->machine, DMACORE_DOMAIN_BLOCKED, 0, 0);
	assert_ok(dmacore_domain_attach(client.domain, client.device));
	assert_fails(map_bar(&client, &dma), EPERM);
	assert_does_not_reach(&client, BAR_BUS + AT, EPERM);
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void map__where_an_owner_maps_is_refused_and_the_bus_leads_there(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_UNMANAGED);
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);
	uint8_t byte = 0;
	dmacore_dma_t dma;

	assert_fails(map_bar(&client, &dma), EPERM);
	assert_reported(&board->machine, DMACORE_REPORT_ERROR);
	/* Even if the domain has something there. */
	assert_ok(dmacore_domain_map(client.domain, BAR_BUS + AT, LOW_BASE, PAGE,
				     DMACORE_ACCESS_READ));
	assert_reaches_bar(board, &client, BAR_BUS + AT);
	assert_ok(dmacore_bridge_set_isolation(board->hub, true));
	assert_ok(dmacore_view_read(client.view, BAR_BUS + AT, &byte, 1));
	assert_int_equal(byte, *board->machine.low);
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void mapping__is_undone_as_it_was_made_when_access_control_changes(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->hub, 0, types[i]);
		struct dmacore_peer *peer = make_peer(board, board->hub, types[i] != 0, BAR_BUS);
		dmacore_dma_t dma, through;

		assert_ok(map_bar(&client, &dma));
		assert_ok(dmacore_bridge_set_isolation(board->hub, true));
		/* Requests go up now, to where there is nothing. */
		assert_does_not_reach(
			&client, dma,
			types[i] == 0 || types[i] == DMACORE_DOMAIN_IDENTITY ? EFAULT : ENOENT);
		assert_ok(map_bar(&client, &through));
		assert_true(through != dma);
		assert_reaches_bar(board, &client, through);
		assert_ok(dmacore_bridge_set_isolation(board->hub, false));
		assert_reaches_bar(board, &client, dma);
		assert_reaches_bar(board, &client, through);
		assert_ok(dmacore_bridge_set_isolation(board->hub, true));
		assert_ok(unmap_bar(&client, dma));
		assert_ok(unmap_bar(&client, through));
		assert_int_equal(device_statistics(client.device).mapping_count, 0);
		assert_ok(dmacore_bridge_set_isolation(board->hub, false));
		dmacore_peer_destroy(peer);
		end_client(&client);
		remove_devices(board);
	}
}

static void mapping__keeps_bus_addresses_when_the_peer_goes(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->hub, 0, types[i]);
		struct dmacore_device *provider = types[i] ?
							  add_behind_iommu(board, board->hub, 0) :
							  add_device(board, board->hub, 0);
		struct dmacore_peer_options options = peer_options(BAR_BUS);
		struct dmacore_peer *peer = add_peer(provider, BAR_BUS), *other;
		dmacore_dma_t dma;

		assert_ok(map_bar(&client, &dma));
		dmacore_peer_destroy(peer);
		assert_does_not_reach(
			&client, dma,
			types[i] == 0 || types[i] == DMACORE_DOMAIN_IDENTITY ? EFAULT : ENOENT);
		assert_creates_nothing(dmacore_peer_create(provider, &options, &other), EEXIST,
				       other);
		assert_ok(unmap_bar(&client, dma));
		assert_ok(dmacore_peer_create(provider, &options, &other));
		dmacore_peer_destroy(other);
		end_client(&client);
		remove_devices(board);
	}
}

static void mapping__that_is_left_ends_with_the_device(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, 0);
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS);
	dmacore_dma_t dma;

	assert_ok(map_bar(&client, &dma));
	dmacore_peer_destroy(peer);
	dmacore_view_destroy(client.view);
	dmacore_device_destroy(client.device);
	board->devices[0] = board->devices[--board->count];
	assert_reported(&board->machine, DMACORE_REPORT_WARNING);
	peer = add_peer(provider, BAR_BUS);
	dmacore_peer_destroy(peer);
}

static void mapping__of_a_device_to_itself_ends_with_it(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->plain, 0, 0);
	struct dmacore_peer *peer = add_peer(client.device, BAR_BUS);
	dmacore_dma_t dma;

	assert_ok(map_bar(&client, &dma));
	assert_reaches_bar(board, &client, dma);
	dmacore_peer_destroy(peer);
	dmacore_view_destroy(client.view);
	dmacore_device_destroy(client.device);
	board->count = 0;
	/* One for the mapping, and one because the mapping holds the device by its peer. */
	while (board->machine.reports.taken < board->machine.reports.count)
		assert_int_equal(reports_take(&board->machine.reports)->level,
				 DMACORE_REPORT_WARNING);
}

static void domain__gives_out_no_bus_addresses_of_peers(void **state)
{
	struct board *board = *state;
	struct client client = at(board, add_behind_iommu(board, board->hub, 0));
	/* One below the bus addresses, and two above. */
	const dmacore_dma_t first = BAR_BUS - PAGE, last = BAR_BUS + BAR_SIZE + 2 * PAGE - 1;
	struct dmacore_peer *peer;
	dmacore_dma_t dma[3], none;

	client.domain = make_domain(&board->machine, DMACORE_DOMAIN_DMA, first, last);
	assert_ok(dmacore_domain_attach(client.domain, client.device));
	/* What the caches have of them does not come out again. */
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					   &dma[i]));
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_unmap(client.device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	peer = make_peer(board, board->hub, true, BAR_BUS);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 3; i++) {
			assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE,
						   0, &dma[i]));
			assert_true(dma[i] < BAR_BUS || dma[i] >= BAR_BUS + BAR_SIZE);
		}
		assert_fails(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					      &none),
			     ENOSPC);
		for (unsigned i = 0; i < 3; i++)
			assert_ok(dmacore_unmap(client.device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
		/* Two pages in a row there are above alone. */
		assert_ok(dmacore_map_phys(client.device, LOW_BASE, 2 * PAGE, DMACORE_TO_DEVICE, 0,
					   &none));
		assert_true(none == BAR_BUS + BAR_SIZE);
		assert_ok(dmacore_unmap(client.device, none, 2 * PAGE, DMACORE_TO_DEVICE, 0));
		assert_fails(dmacore_map_phys(client.device, LOW_BASE, 3 * PAGE, DMACORE_TO_DEVICE,
					      0, &none),
			     ENOSPC);
	}
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void domain__whose_addresses_are_in_use_looks_beside_those_of_peers(void **state)
{
	struct board *board = *state;
	/* Not of the provider's group, so that its mapping is in nobody's way. */
	struct client client = at(board, add_behind_iommu(board, board->across, 0));
	struct dmacore_peer *peer;
	dmacore_dma_t dma[12];

	client.domain = make_domain(&board->machine, DMACORE_DOMAIN_DMA, BAR_BUS - 2 * PAGE,
				    BAR_BUS + BAR_SIZE + 2 * PAGE - 1);
	assert_ok(dmacore_domain_attach(client.domain, client.device));
	for (unsigned i = 0; i < 12; i++)
		assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					   &dma[i]));
	for (unsigned i = 0; i < 12; i++)
		if (dma[i] != BAR_BUS + PAGE)
			assert_ok(dmacore_unmap(client.device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	peer = make_peer(board, board->hub, true, BAR_BUS);
	for (unsigned i = 0; i < 4; i++) {
		assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0,
					   &dma[i]));
		assert_true(dma[i] < BAR_BUS || dma[i] >= BAR_BUS + BAR_SIZE);
	}
	assert_fails(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma[4]),
		     ENOSPC);
	for (unsigned i = 0; i < 4; i++)
		assert_ok(dmacore_unmap(client.device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(client.device, BAR_BUS + PAGE, PAGE, DMACORE_TO_DEVICE, 0));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void peer_create__where_something_is_mapped_is_refused(void **state)
{
	struct board *board = *state;
	struct client client = at(board, add_behind_iommu(board, board->hub, 0));
	struct dmacore_device *provider = add_behind_iommu(board, board->hub, 0);
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct dmacore_peer *peer;
	dmacore_dma_t dma;

	client.domain = make_domain(&board->machine, DMACORE_DOMAIN_DMA, BAR_BUS + BAR_SIZE - PAGE,
				    BAR_BUS + BAR_SIZE + PAGE - 1);
	assert_ok(dmacore_domain_attach(client.domain, client.device));
	assert_ok(dmacore_map_phys(client.device, LOW_BASE, 2 * PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_creates_nothing(dmacore_peer_create(provider, &options, &peer), EBUSY, peer);
	/* Nothing is left of it. */
	{
		uint8_t byte;

		*board->machine.low = 0x5c;
		assert_ok(dmacore_view_read(client.view, dma, &byte, 1));
		assert_int_equal(byte, 0x5c);
	}
	assert_ok(dmacore_unmap(client.device, dma, 2 * PAGE, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_peer_create(provider, &options, &peer));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void memory__at_bus_addresses_of_peers_is_out_of_reach(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, 0), far;
	struct dmacore_peer *peer = make_peer(board, board->hub, false, LOW_BASE + PAGE);
	dmacore_dma_t dma;

	assert_fails(
		dmacore_map_phys(client.device, LOW_BASE + PAGE, 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	assert_fails(
		dmacore_map_phys(client.device, LOW_BASE, PAGE + 1, DMACORE_TO_DEVICE, 0, &dma),
		ERANGE);
	assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(client.device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	/* Devices elsewhere reach it. */
	far = make_client(board, board->across, 0, 0);
	assert_ok(dmacore_map_phys(far.device, LOW_BASE + PAGE, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_true(dma == LOW_BASE + PAGE);
	assert_ok(dmacore_unmap(far.device, dma, 1, DMACORE_TO_DEVICE, 0));
	end_client(&far);
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void memory__at_bus_addresses_of_peers_is_mapped_elsewhere_in_a_hybrid_domain(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_HYBRID);
	struct dmacore_peer *peer = make_peer(board, board->hub, true, LOW_BASE + PAGE);
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(client.device, LOW_BASE, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_true(dma == LOW_BASE);
	assert_ok(dmacore_unmap(client.device, dma, 1, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_map_phys(client.device, LOW_BASE + PAGE, 1, DMACORE_TO_DEVICE, 0, &dma));
	assert_true(dma != LOW_BASE + PAGE);
	assert_ok(dmacore_unmap(client.device, dma, 1, DMACORE_TO_DEVICE, 0));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void client__that_is_not_trusted_reaches_what_is_mapped_for_it_alone(void **state)
{
	struct board *board = *state;
	struct client client =
		make_client(board, board->hub, DMACORE_DEVICE_UNTRUSTED, DMACORE_DOMAIN_DMA);
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);
	dmacore_dma_t dma;

	assert_does_not_reach(&client, BAR_BUS + AT, ENOENT);
	assert_ok(map_bar(&client, &dma));
	assert_true(dma != BAR_BUS + AT && dma != BAR_PHYS + AT);
	assert_reaches_bar(board, &client, dma);
	assert_ok(unmap_bar(&client, dma));
	assert_does_not_reach(&client, dma, ENOENT);
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void pasid__leads_to_no_peer_by_bus_address(void **state)
{
	struct board *board = *state;
	struct dmacore_device_options options = board_device(board, board->hub, 0);
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_domain *domain =
		make_domain(&board->machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	struct dmacore_device *client;
	struct dmacore_block block;
	struct dmacore_view *view;
	struct dmacore_peer *peer;
	uint8_t byte;

	options.iommu = board->machine.iommu;
	options.pasid_count = 8;
	client = add_with(board, &options);
	peer = make_peer(board, board->hub, true, BAR_BUS);
	assert_ok(dmacore_device_claim_dma_owner(client, &owner));
	assert_ok(dmacore_device_attach_pasid(client, 3, domain, &owner));
	assert_ok(dmacore_view_create_pasid(client, 3, &view));
	assert_fails(dmacore_view_read(view, BAR_BUS + AT, &byte, 1), ENOENT);
	forget_faults(client);
	assert_ok(dmacore_domain_map(domain, BAR_BUS + AT, LOW_BASE, PAGE, DMACORE_ACCESS_READ));
	*board->machine.low = 0x77;
	assert_ok(dmacore_view_read(view, BAR_BUS + AT, &byte, 1));
	assert_int_equal(byte, 0x77);
	assert_ok(dmacore_view_translate_block(view, BAR_BUS + AT, DMACORE_ACCESS_READ, &block));
	assert_true(block.first == BAR_BUS + AT && block.phys == LOW_BASE);
	dmacore_view_destroy(view);
	assert_ok(dmacore_device_detach_pasid(client, 3, &owner));
	assert_ok(dmacore_device_release_dma_owner(client, &owner));
	dmacore_peer_destroy(peer);
	dmacore_domain_destroy(domain);
}

static void device__that_joins_the_group_later_reaches_a_peer(void **state)
{
	struct board *board = *state;
	struct dmacore_peer *peer = make_peer(board, board->hub, true, BAR_BUS);

	for (unsigned i = 1; i < 5; i++) {
		struct client client = make_client(board, board->hub, 0, types[i]);
		dmacore_dma_t dma;

		assert_reaches_bar(board, &client, BAR_BUS + AT);
		assert_ok(map_bar(&client, &dma));
		assert_true(dma == BAR_BUS + AT);
		assert_int_equal(device_statistics(client.device).mapping_count, 1);
		assert_ok(unmap_bar(&client, dma));
		end_client(&client);
	}
	dmacore_peer_destroy(peer);
}

struct intruder {
	struct dmacore_device *provider;
	unsigned refused;
};

static void make_a_peer(const struct dmacore_notifier_event *event, void *opaque)
{
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct intruder *intruder = opaque;
	struct dmacore_peer *peer;

	(void)event;
	assert_creates_nothing(dmacore_peer_create(intruder->provider, &options, &peer), EBUSY,
			       peer);
	intruder->refused++;
}

static void peer_create__during_a_mapping_call_is_refused(void **state)
{
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_DMA);
	struct intruder intruder = { add_behind_iommu(board, board->hub, 0), 0 };
	struct dmacore_notifier *notifier;
	dmacore_dma_t dma;

	options.flags = DMACORE_NOTIFY_MAP | DMACORE_NOTIFY_UNMAP;
	options.last = UINT64_MAX;
	options.notify = make_a_peer;
	options.opaque = &intruder;
	assert_ok(dmacore_notifier_create(client.domain, &options, &notifier));
	assert_ok(dmacore_map_phys(client.device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	assert_ok(dmacore_unmap(client.device, dma, PAGE, DMACORE_TO_DEVICE, 0));
	assert_int_equal(intruder.refused, 2);
	dmacore_notifier_destroy(notifier);
	dmacore_peer_destroy(add_peer(intruder.provider, BAR_BUS));
	end_client(&client);
}

static void view__leads_to_a_peer_between_its_ends(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, 0);
	/* In the middle of memory, whose bytes are behind those of the BAR on the bus. */
	struct dmacore_peer *peer = make_peer(board, board->hub, false, LOW_BASE + PAGE);
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_translation found;
	struct dmacore_block block;
	uint8_t *low = board->machine.low;
	uint8_t buffer[10 * PAGE];
	size_t count;

	fill(low, RAM_SIZE, 3);
	assert_ok(dmacore_view_read(client.view, LOW_BASE, buffer, 10 * PAGE));
	assert_memory_equal(buffer, low, PAGE);
	assert_memory_equal(buffer + PAGE, board->bar, BAR_SIZE);
	assert_memory_equal(buffer + 9 * PAGE, low + 9 * PAGE, PAGE);
	assert_ok(dmacore_view_map(client.view, LOW_BASE + 1, 10 * PAGE - 2, DMACORE_ACCESS_READ,
				   &mapping, &segments, &count));
	assert_int_equal(count, 3);
	assert_ptr_equal(segments[0].host, low + 1);
	assert_int_equal(segments[0].size, PAGE - 1);
	assert_ptr_equal(segments[1].host, board->bar);
	assert_int_equal(segments[1].size, BAR_SIZE);
	assert_ptr_equal(segments[2].host, low + 9 * PAGE);
	assert_int_equal(segments[2].size, PAGE - 1);
	dmacore_view_unmap(mapping);
	assert_ok(dmacore_view_translate(client.view, LOW_BASE + 2 * PAGE, DMACORE_ACCESS_READ,
					 &found));
	assert_true(found.first == LOW_BASE + PAGE && found.last == LOW_BASE + PAGE + BAR_SIZE - 1);
	assert_true(found.target == BAR_PHYS);
	assert_ok(dmacore_view_translate(client.view, LOW_BASE, DMACORE_ACCESS_READ, &found));
	assert_true(found.first == 0 && found.last == LOW_BASE + PAGE - 1 && found.target == 0);
	assert_ok(dmacore_view_translate(client.view, LOW_BASE + 9 * PAGE, 0, &found));
	assert_true(found.first == LOW_BASE + 9 * PAGE && found.last == UINT64_MAX);
	assert_true(found.target == LOW_BASE + 9 * PAGE);
	/* Blocks are aligned on both sides. */
	assert_ok(dmacore_view_translate_block(client.view, LOW_BASE + PAGE, DMACORE_ACCESS_READ,
					       &block));
	assert_true(block.first == LOW_BASE + PAGE && block.mask == PAGE - 1);
	assert_true(block.phys == BAR_PHYS);
	assert_ok(dmacore_view_translate_block(client.view, LOW_BASE, DMACORE_ACCESS_READ, &block));
	assert_true(block.first == LOW_BASE && block.mask == PAGE - 1 && block.phys == LOW_BASE);
	dmacore_peer_destroy(peer);
	assert_ok(dmacore_view_read(client.view, LOW_BASE, buffer, 10 * PAGE));
	assert_memory_equal(buffer, low, 10 * PAGE);
	end_client(&client);
}

static void view__of_a_device_that_tracks_reaches_what_is_mapped(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct client client =
			make_client(board, board->hub, DMACORE_DEVICE_TRACK_DIRECT, types[i]);
		struct dmacore_peer *peer = make_peer(board, board->hub, types[i] != 0, BAR_BUS);
		struct dmacore_block block;
		uint8_t buffer[PAGE];
		dmacore_dma_t dma;

		assert_ok(dmacore_map_phys(client.device, BAR_PHYS + AT, PAGE, DMACORE_TO_DEVICE, 0,
					   &dma));
		assert_ok(dmacore_view_read(client.view, dma, buffer, PAGE));
		assert_memory_equal(buffer, board->bar + AT, PAGE);
		assert_fails(dmacore_view_write(client.view, dma, buffer, 1), EACCES);
		assert_fails(dmacore_view_read(client.view, dma - 1, buffer, 2), ENOENT);
		assert_fails(dmacore_view_read(client.view, dma + PAGE - 1, buffer, 2), ENOENT);
		forget_faults(client.device);
		assert_ok(dmacore_view_translate_block(client.view, dma + 1, DMACORE_ACCESS_READ,
						       &block));
		assert_true(block.first == dma && block.mask == PAGE - 1);
		assert_true(block.phys == BAR_PHYS + AT);
		assert_ok(dmacore_unmap(client.device, dma, PAGE, DMACORE_TO_DEVICE, 0));
		dmacore_peer_destroy(peer);
		end_client(&client);
		remove_devices(board);
	}
}

static void view__of_a_device_that_tracks_reaches_no_memory_by_a_mapping_of_a_peer(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, DMACORE_DEVICE_TRACK_DIRECT, 0);
	struct dmacore_peer *peer = make_peer(board, board->hub, false, LOW_BASE);
	struct dmacore_block block;
	dmacore_dma_t dma;

	assert_ok(map_bar(&client, &dma));
	assert_true(dma == LOW_BASE + AT);
	assert_reaches_bar(board, &client, dma);
	/* Requests go up, to where memory is that nobody has mapped. */
	assert_ok(dmacore_bridge_set_isolation(board->hub, true));
	assert_does_not_reach(&client, dma, ENOENT);
	assert_ok(dmacore_view_translate_block(client.view, dma, DMACORE_ACCESS_READ, &block));
	assert_int_equal(block.access, 0);
	assert_ok(unmap_bar(&client, dma));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static int read_bar(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	memset(buffer, (int)(offset / PAGE), size);
	*(unsigned *)opaque += 1;
	return 0;
}

static int write_bar(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	(void)buffer;
	(void)size;
	*(unsigned *)opaque += 100;
	return offset == 5 * PAGE ? 0 : -EIO;
}

static void view__calls_the_callbacks_of_a_peers_registers(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_DMA);
	struct dmacore_device *provider = add_behind_iommu(board, board->hub, 0);
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct dmacore_peer *peer;
	unsigned calls = 0;
	uint8_t byte = 0;
	dmacore_dma_t dma;

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.base = options.phys = BAR_PHYS + GIB;
	region.size = BAR_SIZE;
	region.read = read_bar;
	region.write = write_bar;
	region.opaque = &calls;
	/* The peer may be there before its memory. */
	assert_ok(dmacore_peer_create(provider, &options, &peer));
	assert_ok(dmacore_map_resource(client.device, region.base, BAR_SIZE, DMACORE_BIDIRECTIONAL,
				       0, &dma));
	assert_true(dma == BAR_BUS);
	assert_does_not_reach(&client, dma, EFAULT);
	assert_ok(dmacore_memory_add(board->machine.system, &region));
	assert_ok(dmacore_view_read(client.view, dma + 5 * PAGE, &byte, 1));
	assert_int_equal(byte, 5);
	assert_ok(dmacore_view_write(client.view, dma + 5 * PAGE, &byte, 1));
	assert_fails(dmacore_view_write(client.view, dma, &byte, 1), EIO);
	assert_int_equal(calls, 201);
	assert_ok(dmacore_unmap(client.device, dma, BAR_SIZE, DMACORE_BIDIRECTIONAL,
				DMACORE_ATTR_MMIO));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

static void zero_copy__of_a_peer_is_reported_when_it_is_unmapped(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->hub, 0, types[i]);
		struct dmacore_peer *peer = make_peer(board, board->hub, types[i] != 0, BAR_BUS);
		const struct dmacore_view_segment *segments;
		struct dmacore_view_mapping *mapping;
		dmacore_dma_t dma;
		size_t count;

		assert_ok(map_bar(&client, &dma));
		assert_ok(dmacore_view_map(client.view, dma, PAGE,
					   DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE, &mapping,
					   &segments, &count));
		assert_int_equal(count, 1);
		assert_ptr_equal(segments->host, board->bar + AT);
		assert_fails(dmacore_memory_remove(board->machine.system, BAR_PHYS, BAR_SIZE),
			     EBUSY);
		dmacore_peer_destroy(peer);
		assert_ok(unmap_bar(&client, dma));
		assert_reported(&board->machine, DMACORE_REPORT_WARNING);
		((uint8_t *)segments->host)[0] = 1;
		dmacore_view_unmap(mapping);
		end_client(&client);
		remove_devices(board);
	}
}

static void count_cache(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
			void *opaque)
{
	(void)phys, (void)size, (void)direction, (void)is_for_cpu;
	*(unsigned *)opaque += 1;
}

static void use(struct dmacore_device *device, dmacore_phys_t phys, struct dmacore_peer *gone)
{
	dmacore_dma_t dma;

	assert_ok(dmacore_map_phys(device, phys, PAGE, DMACORE_BIDIRECTIONAL, 0, &dma));
	dmacore_peer_destroy(gone);
	assert_ok(dmacore_sync_for_cpu(device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_sync_for_device(device, dma, PAGE, DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void caches__are_not_maintained_for_peers(void **state)
{
	for (unsigned i = 0; i < 5; i++) {
		struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
		struct dmacore_bridge_options bridge_options = DMACORE_BRIDGE_OPTIONS_INIT;
		struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
		struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
		struct dmacore_device *client, *provider;
		struct dmacore_domain *domain = NULL;
		struct dmacore_system *system;
		struct dmacore_bridge *hub;
		uint8_t *memory = aligned_alloc(PAGE, BAR_SIZE + PAGE);
		unsigned calls = 0;

		(void)state;
		assert_non_null(memory);
		system_options.cache = count_cache;
		system_options.cache_opaque = &calls;
		assert_ok(dmacore_system_create(&system_options, &system));
		add_host_region(system, BAR_PHYS, BAR_SIZE, memory, 0);
		add_host_region(system, LOW_BASE, PAGE, memory + BAR_SIZE, 0);
		bridge_options.flags = DMACORE_BRIDGE_HOST_PASSES;
		assert_ok(dmacore_bridge_create(system, &bridge_options, &hub));
		if (types[i])
			assert_ok(dmacore_iommu_create(system, NULL, &options.iommu));
		options.flags = DMACORE_DEVICE_NONCOHERENT;
		options.bridge = hub;
		options.streaming_mask = UINT64_MAX;
		assert_ok(dmacore_device_create(system, &options, &client));
		assert_ok(dmacore_device_create(system, &options, &provider));
		if (types[i]) {
			domain_options.type = types[i];
			assert_ok(dmacore_domain_create(options.iommu, &domain_options, &domain));
			assert_ok(dmacore_domain_attach(domain, client));
		}
		use(client, BAR_PHYS, add_peer(provider, BAR_BUS));
		assert_int_equal(calls, 0);
		/* Through the host bridge, while it is a peer's. */
		assert_ok(dmacore_bridge_set_isolation(hub, true));
		{
			struct dmacore_peer *peer = add_peer(provider, BAR_BUS);

			use(client, BAR_PHYS, NULL);
			assert_int_equal(calls, 0);
			/* For other memory they are. */
			use(client, LOW_BASE, NULL);
			assert_int_equal(calls, 4);
			dmacore_peer_destroy(peer);
		}
		if (domain)
			assert_ok(dmacore_domain_detach(domain, client));
		dmacore_domain_destroy(domain);
		dmacore_device_destroy(client);
		dmacore_device_destroy(provider);
		dmacore_bridge_destroy(hub);
		dmacore_iommu_destroy(options.iommu);
		dmacore_system_destroy(system);
		free(memory);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		board_test(map__by_bus_address_is_independent_of_the_domain),
		board_test(map__through_the_host_bridge_is_by_the_devices_own_path),
		board_test(map__of_what_is_not_reachable_is_refused),
		board_test(map__of_what_lies_in_a_peer_in_part_is_refused),
		board_test(map__by_bus_address_stays_under_the_mask),
		board_test(map__of_a_wrong_range_or_direction_is_misuse_by_bus_address_too),
		board_test(map__of_a_blocked_device_is_refused),
		board_test(map__where_an_owner_maps_is_refused_and_the_bus_leads_there),
		board_test(mapping__is_undone_as_it_was_made_when_access_control_changes),
		board_test(mapping__keeps_bus_addresses_when_the_peer_goes),
		board_test(mapping__that_is_left_ends_with_the_device),
		board_test(mapping__of_a_device_to_itself_ends_with_it),
		board_test(domain__gives_out_no_bus_addresses_of_peers),
		board_test(domain__whose_addresses_are_in_use_looks_beside_those_of_peers),
		board_test(peer_create__where_something_is_mapped_is_refused),
		board_test(memory__at_bus_addresses_of_peers_is_out_of_reach),
		board_test(
			memory__at_bus_addresses_of_peers_is_mapped_elsewhere_in_a_hybrid_domain),
		board_test(client__that_is_not_trusted_reaches_what_is_mapped_for_it_alone),
		board_test(pasid__leads_to_no_peer_by_bus_address),
		board_test(device__that_joins_the_group_later_reaches_a_peer),
		board_test(peer_create__during_a_mapping_call_is_refused),
		board_test(view__leads_to_a_peer_between_its_ends),
		board_test(view__of_a_device_that_tracks_reaches_what_is_mapped),
		board_test(view__of_a_device_that_tracks_reaches_no_memory_by_a_mapping_of_a_peer),
		board_test(view__calls_the_callbacks_of_a_peers_registers),
		board_test(zero_copy__of_a_peer_is_reported_when_it_is_unmapped),
		board_test(caches__are_not_maintained_for_peers),
	};

	return cmocka_run_group_tests_name("peer mapping", tests, NULL, NULL);
}
