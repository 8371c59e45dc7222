/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_CONTROLLER_H
#define NVME_CONTROLLER_H

/*
 * An emulated controller with one namespace and one pair of queues. It reaches the driver's memory through a
 * view and in no other way, and works on the thread that rings its doorbell.
 */

#include <dmacore.h>

#include "nvme.h"

struct controller;

/* What the driver writes into the controller's registers before it starts. */
struct controller_registers {
	dmacore_dma_t commands;
	dmacore_dma_t completions;
	uint32_t entry_count;
};

/* Makes a controller whose namespace is @bytes, @block_count blocks of them. */
int controller_create(struct dmacore_device *device, uint8_t *bytes, uint64_t block_count,
		      struct controller **out_controller);
void controller_destroy(struct controller *controller);

void controller_start(struct controller *controller, const struct controller_registers *registers);

/*
 * Tells the controller where in its queue the next command will be. Fails if it does not reach the queues: then
 * there is no way left to tell the driver anything.
 */
int controller_ring_doorbell(struct controller *controller, uint32_t tail);

#endif /* NVME_CONTROLLER_H */
