/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_POOLS_H
#define SUPPORT_POOLS_H

/* A machine whose device has a bounce pool of its own. */

#include "machine.h"

/* Gives the machine another device, with a pool of @size bytes below 4 GiB; 0: without. */
static inline void use_device(struct machine *machine, uint32_t flags, uint64_t mask, uint64_t size,
			      struct dmacore_bounce_pool **out_pool)
{
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	*out_pool = NULL;
	if (size > 0) {
		pool.size = pool.size_max = size;
		pool.limit = DMACORE_BIT_MASK(32);
		assert_ok(dmacore_bounce_pool_create(machine->system, &pool, out_pool));
	}
	options.flags |= flags;
	options.streaming_mask = mask;
	options.bounce_pool = *out_pool;
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

/* Nobody else holds on to the pool once the device is gone, nor has slots. */
static inline void end_pool(struct machine *machine, struct dmacore_bounce_pool *pool)
{
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	dmacore_bounce_pool_destroy(pool);
	assert_no_reports(&machine->reports);
	assert_int_equal(machine->pool.live, 0);
}

static inline uint64_t used_slots(struct dmacore_bounce_pool *pool)
{
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_bounce_pool_statistics(pool, &statistics));
	return statistics.used_count;
}

#endif /* SUPPORT_POOLS_H */
