/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_PEERS_H
#define SUPPORT_PEERS_H

/* A machine with bridges, devices below them, and memory of a device that others may reach. */

#include "machine.h"

#define BAR_PHYS UINT64_C(0x3800000000)
#define BAR_SIZE (8 * PAGE)
/* Where there is no memory. */
#define BAR_BUS UINT64_C(0xc0000000)

#define BOARD_DEVICES 16

struct board {
	struct machine machine;
	/* On root buses: host bridges that pass requests of devices on, below one bridge, or not at all. */
	struct dmacore_bridge *top;
	struct dmacore_bridge *across;
	struct dmacore_bridge *below;
	struct dmacore_bridge *plain;
	/* Below @top; it does not isolate. */
	struct dmacore_bridge *hub;
	struct dmacore_device *devices[BOARD_DEVICES];
	unsigned count;
	/* Memory of a device. */
	uint8_t *bar;
};

/* The machine's own device is at no place; its IOMMU is there for others. */
static inline int board_setup(void **state)
{
	struct board *board = calloc(1, sizeof(*board));
	const uint32_t isolates = DMACORE_BRIDGE_ISOLATES;

	assert_non_null(board);
	machine_start(&board->machine, TRANSLATED);
	board->top =
		make_bridge(&board->machine, NULL, isolates | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	board->across =
		make_bridge(&board->machine, NULL, isolates | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	board->below = make_bridge(&board->machine, NULL, isolates | DMACORE_BRIDGE_HOST_PASSES);
	board->plain = make_bridge(&board->machine, NULL, isolates);
	board->hub = make_bridge(&board->machine, board->top, 0);
	board->bar = aligned_alloc(PAGE, BAR_SIZE);
	assert_non_null(board->bar);
	fill(board->bar, BAR_SIZE, 7);
	add_host_region(board->machine.system, BAR_PHYS, BAR_SIZE, board->bar, 0);
	*state = board;
	return 0;
}

static inline int board_teardown(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < board->count; i++)
		dmacore_device_destroy(board->devices[i]);
	dmacore_bridge_destroy(board->hub);
	dmacore_bridge_destroy(board->top);
	dmacore_bridge_destroy(board->across);
	dmacore_bridge_destroy(board->below);
	dmacore_bridge_destroy(board->plain);
	machine_stop(&board->machine);
	free(board->bar);
	free(board);
	return 0;
}

#define board_test(function)                                           \
	{                                                              \
#function, function, board_setup, board_teardown, NULL \
	}

/* Not behind the IOMMU; faults are nobody's. */
static inline struct dmacore_device_options
board_device(struct board *board, struct dmacore_bridge *bridge, uint32_t flags)
{
	struct dmacore_device_options options = device_options(&board->machine);

	options.bridge = bridge;
	options.flags = flags;
	options.iommu = NULL;
	options.fault = NULL;
	return options;
}

/* Ends with the board. */
static inline struct dmacore_device *add_with(struct board *board,
					      const struct dmacore_device_options *options)
{
	assert_true(board->count < BOARD_DEVICES);
	assert_ok(dmacore_device_create(board->machine.system, options,
					&board->devices[board->count]));
	return board->devices[board->count++];
}

static inline struct dmacore_device *add_device(struct board *board, struct dmacore_bridge *bridge,
						uint32_t flags)
{
	struct dmacore_device_options options = board_device(board, bridge, flags);

	return add_with(board, &options);
}

static inline struct dmacore_device *add_behind_iommu(struct board *board,
						      struct dmacore_bridge *bridge, uint32_t flags)
{
	struct dmacore_device_options options = board_device(board, bridge, flags);

	options.iommu = board->machine.iommu;
	return add_with(board, &options);
}

static inline struct dmacore_peer_options peer_options(dmacore_dma_t bus)
{
	struct dmacore_peer_options options = DMACORE_PEER_OPTIONS_INIT;

	options.phys = BAR_PHYS;
	options.size = BAR_SIZE;
	options.bus = bus;
	return options;
}

static inline void remove_devices(struct board *board)
{
	while (board->count > 0)
		dmacore_device_destroy(board->devices[--board->count]);
}

static inline struct dmacore_peer *add_peer(struct dmacore_device *provider, dmacore_dma_t bus)
{
	struct dmacore_peer_options options = peer_options(bus);
	struct dmacore_peer *peer;

	assert_ok(dmacore_peer_create(provider, &options, &peer));
	return peer;
}

#endif /* SUPPORT_PEERS_H */
