/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "machine.h"

const dmacore_phys_t machine_banks[BANKS] = { LOW, HIGH, ADAPTER };

/* Memory for copies and queues is taken from the end of the low bank, and stays taken. */
static void *take(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	struct machine *machine = opaque;
	uint64_t at = BANK - machine->taken;

	if (size > at || limit < LOW + BANK - 1)
		return NULL;
	at = (at - size) & ~(alignment - 1);
	machine->taken = BANK - at;
	return machine->bytes[0] + at;
}

static void give(void *host, uint64_t size, void *opaque)
{
	(void)host;
	(void)size;
	(void)opaque;
}

static void maintain(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
		     void *opaque)
{
	struct machine *machine = opaque;

	(void)phys;
	(void)size;
	(void)direction;
	(void)is_for_cpu;
	machine->maintained++;
}

static void add_memory(struct machine *machine)
{
	for (unsigned i = 0; i < BANKS; i++) {
		struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

		machine->bytes[i] = aligned_alloc(PAGE, BANK);
		if (machine->bytes[i] == NULL)
			exit(1);
		region.backing = DMACORE_MEMORY_HOST;
		region.base = machine_banks[i];
		region.size = BANK;
		region.host = machine->bytes[i];
		MUST(dmacore_memory_add(machine->system, &region));
	}
}

/* The host bridge passes on what devices below the one bridge send to those below the other. */
static void add_adapter(struct machine *machine)
{
	struct dmacore_bridge_options bridge = DMACORE_BRIDGE_OPTIONS_INIT;
	struct dmacore_device_options adapter = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_peer_options peer = DMACORE_PEER_OPTIONS_INIT;

	bridge.flags = DMACORE_BRIDGE_HOST_PASSES_ACROSS;
	MUST(dmacore_bridge_create(machine->system, &bridge, &machine->bridges[SAME]));
	MUST(dmacore_bridge_create(machine->system, &bridge, &machine->bridges[ACROSS]));
	adapter.bridge = machine->bridges[SAME];
	MUST(dmacore_device_create(machine->system, &adapter, &machine->adapter));
	peer.phys = ADAPTER;
	peer.size = BANK;
	MUST(dmacore_peer_create(machine->adapter, &peer, &machine->peer));
}

/* An unusual bridge: each mapping is given a window of addresses that nobody had before. */
static int grant(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		 dmacore_dma_t *out_dma, void *opaque)
{
	struct machine *machine = opaque;

	(void)device;
	*out_dma = machine->next_window + mapping->phys % PAGE;
	machine->next_window += (mapping->phys % PAGE + mapping->size + PAGE - 1) / PAGE * PAGE;
	return 0;
}

static void revoke(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		   void *opaque)
{
	(void)device;
	(void)mapping;
	(void)opaque;
}

/* Memory below 4 GiB may go past the bridge, at its own addresses. */
static int offer_low_memory(struct dmacore_device *device, uint32_t kind, dmacore_dma_t mask,
			    struct dmacore_ops_bypass *out, void *opaque)
{
	(void)device;
	(void)kind;
	(void)mask;
	(void)opaque;
	out->is_offered = 1;
	out->limit = DMACORE_BIT_MASK(32);
	return 0;
}

const struct dmacore_mapping_ops machine_bridge = {
	.struct_size = sizeof(machine_bridge),
	.map = grant,
	.unmap = revoke,
};

const struct dmacore_mapping_ops machine_bypassed_bridge = {
	.struct_size = sizeof(machine_bypassed_bridge),
	.flags = DMACORE_OPS_BYPASS,
	.map = grant,
	.unmap = revoke,
	.supported = offer_low_memory,
};

void machine_start(struct machine *machine)
{
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

	memset(machine, 0, sizeof(*machine));
	machine->next_window = UINT64_C(0x40000000);
	allocator.allocate = take;
	allocator.free = give;
	allocator.opaque = machine;
	options.memory_allocator = &allocator;
	options.cache = maintain;
	options.cache_opaque = machine;
	MUST(dmacore_system_create(&options, &machine->system));
	add_memory(machine);
	MUST(dmacore_iommu_create(machine->system, NULL, &machine->iommu));
	pool.size = pool.size_max = 16 * PAGE;
	pool.limit = DMACORE_BIT_MASK(32);
	MUST(dmacore_bounce_pool_create(machine->system, &pool, &machine->pool));
	add_adapter(machine);
}

void machine_stop(struct machine *machine)
{
	dmacore_peer_destroy(machine->peer);
	dmacore_device_destroy(machine->adapter);
	dmacore_bridge_destroy(machine->bridges[ACROSS]);
	dmacore_bridge_destroy(machine->bridges[SAME]);
	dmacore_bounce_pool_destroy(machine->pool);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
	for (unsigned i = 0; i < BANKS; i++)
		free(machine->bytes[i]);
}
