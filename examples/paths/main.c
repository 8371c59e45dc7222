/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One driver, and devices to which memory takes every path that there is. The driver maps a list of
 * buffers, tells the device its segments, and unmaps it; it asks nothing of the device and has no case
 * for any path. The device turns each byte around. For each device the library says which path two of
 * the buffers take and why. The exit status is 0 only if every byte came back as it must.
 */

#include <dmacore.h>
#include <dmacore/sys/mapping_ops.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096
#define LOW UINT64_C(0x80000000)
#define HIGH UINT64_C(0x100000000)
#define BAR UINT64_C(0xc0000000)
#define PAGES 64
#define BANK ((uint64_t)PAGES * PAGE)
#define ENTRIES 4

static unsigned failed;
static unsigned long maintained;

#define MUST(call)                                                                        \
	do {                                                                              \
		int must_error = (call);                                                  \
		if (must_error) {                                                         \
			fprintf(stderr, "paths: %s: %s\n", #call, strerror(-must_error)); \
			exit(1);                                                          \
		}                                                                         \
	} while (0)

/* The machine: memory below and above 4 GiB, and the registers of a network adapter. */
struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_bridge *root;
	uint8_t *bytes[3];
	/* How much of the low memory the library has taken for itself, from its end. */
	uint64_t taken;
};

/* Memory for copies is taken from the end of the low bank, and stays taken. */
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
	(void)phys;
	(void)size;
	(void)direction;
	(void)is_for_cpu;
	(void)opaque;
	maintained++;
}

static void start(struct machine *machine)
{
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_bridge_options bridge = DMACORE_BRIDGE_OPTIONS_INIT;
	const uint64_t bases[] = { LOW, HIGH, BAR };

	allocator.allocate = take;
	allocator.free = give;
	allocator.opaque = machine;
	options.memory_allocator = &allocator;
	options.cache = maintain;
	MUST(dmacore_system_create(&options, &machine->system));
	for (unsigned i = 0; i < 3; i++) {
		struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

		machine->bytes[i] = aligned_alloc(PAGE, BANK);
		if (machine->bytes[i] == NULL)
			exit(1);
		region.backing = DMACORE_MEMORY_HOST;
		region.base = bases[i];
		region.size = BANK;
		region.host = machine->bytes[i];
		MUST(dmacore_memory_add(machine->system, &region));
	}
	MUST(dmacore_iommu_create(machine->system, NULL, &machine->iommu));
	MUST(dmacore_bridge_create(machine->system, &bridge, &machine->root));
}

/* The device: of all that it is told of it turns each byte around. */
static void turn_around(struct dmacore_view *view, struct dmacore_sg *segment, size_t count)
{
	static uint8_t bytes[BANK];

	for (size_t i = 0; i < count; i++, segment = dmacore_sg_next(segment)) {
		MUST(dmacore_view_read(view, segment->dma, bytes, segment->dma_size));
		for (uint64_t at = 0; at < segment->dma_size; at++)
			bytes[at] = (uint8_t)~bytes[at];
		MUST(dmacore_view_write(view, segment->dma, bytes, segment->dma_size));
	}
}

/* The driver. Returns how many segments there were. */
static size_t run(struct dmacore_device *device, struct dmacore_view *view, struct dmacore_sg *list)
{
	size_t count;

	MUST(dmacore_map_list(device, list, ENTRIES, DMACORE_BIDIRECTIONAL, 0, 0, &count));
	turn_around(view, list, count);
	MUST(dmacore_unmap_list(device, list, ENTRIES, DMACORE_BIDIRECTIONAL, 0));
	return count;
}

static void explain(struct dmacore_device *device, const struct dmacore_sg *buffer)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	char text[256];

	MUST(dmacore_device_explain(device, buffer->phys, buffer->size, DMACORE_STREAMING, 0,
				    &explanation));
	MUST(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	printf("    %9llx: %s\n", (unsigned long long)buffer->phys, text);
}

/* Two buffers side by side, one that starts and ends in the middle of pages, and one at @last. */
static void try_device(struct machine *machine, const char *name, struct dmacore_device *device,
		       dmacore_phys_t last)
{
	struct dmacore_sg list[ENTRIES];
	struct dmacore_view *view;
	uint8_t *last_bytes = machine->bytes[last == HIGH ? 1 : last == BAR ? 2 : 0];
	uint64_t last_at = last == LOW ? 8 * PAGE : 0;
	unsigned long maintained_before = maintained;
	unsigned wrong = 0;
	size_t count;

	MUST(dmacore_view_create(device, &view));
	memset(machine->bytes[0], 0x5a, 9 * PAGE);
	memset(last_bytes + last_at, 0x5a, PAGE);
	dmacore_sg_init(list, ENTRIES);
	dmacore_sg_set(&list[0], LOW, PAGE, 0);
	dmacore_sg_set(&list[1], LOW + PAGE, 2 * PAGE, 0);
	dmacore_sg_set(&list[2], LOW + 4 * PAGE + 100, 1000, 0);
	dmacore_sg_set(&list[3], last + last_at, PAGE, 0);
	count = run(device, view, list);
	for (uint64_t at = 0; at < 8 * PAGE; at++) {
		bool is_ours = at < 3 * PAGE || (at >= 4 * PAGE + 100 && at < 4 * PAGE + 1100);

		wrong += machine->bytes[0][at] != (is_ours ? 0xa5 : 0x5a);
	}
	for (uint64_t at = 0; at < PAGE; at++)
		wrong += last_bytes[last_at + at] != 0xa5;
	printf("%s: %zu buffers in %zu segments, %s", name, (size_t)ENTRIES, count,
	       wrong ? "and bytes are WRONG" : "each byte came back");
	if (maintained != maintained_before)
		printf("; caches were maintained %lu times", maintained - maintained_before);
	printf("\n");
	explain(device, &list[2]);
	explain(device, &list[3]);
	failed += wrong != 0;
	dmacore_view_destroy(view);
}

/* An unusual bridge: each mapping is given a window of addresses that nobody had before. */
static int grant(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		 dmacore_dma_t *out_dma, void *opaque)
{
	dmacore_dma_t *next = opaque;

	(void)device;
	*out_dma = *next + mapping->phys % PAGE;
	*next += (mapping->phys % PAGE + mapping->size + PAGE - 1) / PAGE * PAGE;
	return 0;
}

static void revoke(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		   void *opaque)
{
	(void)device;
	(void)mapping;
	(void)opaque;
}

/* Makes a device, attaches it to a domain if it is behind an IOMMU, lets the driver have it, and ends it. */
static void with_device(struct machine *machine, const char *name,
			const struct dmacore_device_options *options, uint32_t domain_type,
			dmacore_phys_t last)
{
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain = NULL;
	struct dmacore_device *device;

	MUST(dmacore_device_create(machine->system, options, &device));
	if (domain_type != 0) {
		domain_options.type = domain_type;
		MUST(dmacore_domain_create(machine->iommu, &domain_options, &domain));
		MUST(dmacore_domain_attach(domain, device));
	}
	try_device(machine, name, device, last);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
}

int main(void)
{
	static struct machine machine;
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_peer_options peer_options = DMACORE_PEER_OPTIONS_INIT;
	struct dmacore_device_options any = DMACORE_DEVICE_OPTIONS_INIT, options, adapter_options;
	struct dmacore_mapping_ops ops = DMACORE_MAPPING_OPS_INIT;
	dmacore_dma_t next_grant = UINT64_C(0x40000000);
	struct dmacore_bounce_pool *pool;
	struct dmacore_device *adapter;
	struct dmacore_peer *peer;

	start(&machine);
	pool_options.size = pool_options.size_max = 16 * PAGE;
	pool_options.limit = DMACORE_BIT_MASK(32);
	MUST(dmacore_bounce_pool_create(machine.system, &pool_options, &pool));
	any.streaming_mask = any.coherent_mask = DMACORE_BIT_MASK(64);
	any.bounce_pool = pool;

	options = any;
	with_device(&machine, "without an IOMMU", &options, 0, HIGH);
	options.streaming_mask = DMACORE_BIT_MASK(32);
	with_device(&machine, "with 32 bits of address", &options, 0, HIGH);
	options = any;
	options.flags = DMACORE_DEVICE_NONCOHERENT;
	with_device(&machine, "past the caches", &options, 0, HIGH);

	options = any;
	options.iommu = machine.iommu;
	with_device(&machine, "behind an IOMMU", &options, DMACORE_DOMAIN_DMA, HIGH);
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	with_device(&machine, "not trusted", &options, DMACORE_DOMAIN_DMA, HIGH);
	options.flags = 0;
	options.streaming_mask = DMACORE_BIT_MASK(32);
	with_device(&machine, "in a hybrid domain, with 32 bits", &options, DMACORE_DOMAIN_HYBRID,
		    HIGH);

	/* The adapter is below the same bridge as the device that gets at its memory. */
	adapter_options = any;
	adapter_options.bridge = machine.root;
	MUST(dmacore_device_create(machine.system, &adapter_options, &adapter));
	peer_options.phys = BAR;
	peer_options.size = BANK;
	MUST(dmacore_peer_create(adapter, &peer_options, &peer));
	options = any;
	options.bridge = machine.root;
	with_device(&machine, "beside an adapter with memory", &options, 0, BAR);
	dmacore_peer_destroy(peer);
	dmacore_device_destroy(adapter);

	ops.map = grant;
	ops.unmap = revoke;
	options = any;
	options.bounce_pool = NULL;
	options.mapping_ops = &ops;
	options.mapping_ops_opaque = &next_grant;
	with_device(&machine, "with mapping functions", &options, 0, LOW);

	dmacore_bounce_pool_destroy(pool);
	dmacore_bridge_destroy(machine.root);
	dmacore_iommu_destroy(machine.iommu);
	dmacore_system_destroy(machine.system);
	for (unsigned i = 0; i < 3; i++)
		free(machine.bytes[i]);
	return failed != 0;
}
