/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"
#include "support/peers.h"

/* Memory runs out where devices reach each other's memory. */

static void peer_create__leaves_nothing_when_an_allocation_fails(void **state)
{
	struct board *board = *state;
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	struct dmacore_peer *peer, *other;

	assert_creates_after_failures(dmacore_peer_create(provider, &options, &peer), peer);
	assert_needs_no_memory(dmacore_peer_destroy(peer));
	/* One that is refused has given its memory back. */
	peer = add_peer(provider, BAR_BUS);
	assert_fails(dmacore_peer_create(provider, &options, &other), EEXIST);
	dmacore_peer_destroy(peer);
}

static void map__by_bus_address_changes_nothing_when_an_allocation_fails(void **state)
{
	struct board *board = *state;
	struct dmacore_device *client = add_device(board, board->hub, 0);
	struct dmacore_device *provider = add_device(board, board->hub, 0);
	struct dmacore_peer *peer = add_peer(provider, BAR_BUS), *other;
	struct dmacore_peer_options options = peer_options(BAR_BUS);
	uint32_t route;
	dmacore_dma_t dma;

	assert_survives_failures(
		dmacore_map_phys(client, BAR_PHYS, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		assert_int_equal(device_statistics(client).mapping_count, 0));
	assert_needs_no_memory({
		assert_ok(dmacore_peer_route(peer, client, &route, NULL));
		dmacore_peer_destroy(peer);
		assert_ok(dmacore_unmap(client, dma, PAGE, DMACORE_TO_DEVICE, 0));
	});
	/* The calls that failed do not hold it. */
	assert_ok(dmacore_peer_create(provider, &options, &other));
	dmacore_peer_destroy(other);
}

static void map__beside_bus_addresses_gives_all_back_when_an_allocation_fails(void **state)
{
	struct board *board = *state;
	struct dmacore_device *client = add_behind_iommu(board, board->hub, 0);
	struct dmacore_peer *peer;
	struct dmacore_domain *domain = make_domain(&board->machine, DMACORE_DOMAIN_DMA,
						    BAR_BUS - PAGE, BAR_BUS + BAR_SIZE - 1);
	dmacore_dma_t dma;

	assert_ok(dmacore_domain_attach(domain, client));
	peer = add_peer(add_behind_iommu(board, board->hub, 0), BAR_BUS);
	assert_survives_failures(
		dmacore_map_phys(client, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma),
		assert_int_equal(domain_statistics(domain).mapping_count, 0));
	assert_true(dma == BAR_BUS - PAGE);
	assert_needs_no_memory(assert_ok(dmacore_unmap(client, dma, PAGE, DMACORE_TO_DEVICE, 0)));
	dmacore_peer_destroy(peer);
	assert_ok(dmacore_domain_detach(domain, client));
	dmacore_domain_destroy(domain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		board_test(peer_create__leaves_nothing_when_an_allocation_fails),
		board_test(map__by_bus_address_changes_nothing_when_an_allocation_fails),
		board_test(map__beside_bus_addresses_gives_all_back_when_an_allocation_fails),
	};

	return run_oom_group("oom peer", tests, NULL);
}
