/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "machine.h"

#define POOL_SIZE (UINT64_C(1) << 20)

/* What is allocated is taken from behind the low bank, and stays taken. */
static void *take(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	struct machine *machine = opaque;
	uint64_t at = (BANK_SIZE + machine->allocated_size + alignment - 1) & ~(alignment - 1);

	if (size > BANK_SIZE + ALLOCATED_SIZE - at || limit < BANK_LOW + at + size - 1)
		return NULL;
	machine->allocated_size = at + size - BANK_SIZE;
	return machine->banks[0].now + at;
}

static void give(void *host, uint64_t size, void *opaque)
{
	(void)host;
	(void)size;
	(void)opaque;
}

/* With @extra bytes behind them, of which nothing is expected. */
static void create_bytes(struct bytes *bytes, uint64_t size, uint64_t extra)
{
	bytes->size = size;
	bytes->now = aligned_alloc(NVME_PAGE_SIZE, size + extra);
	bytes->expected = malloc(size);
	if (!bytes->now || !bytes->expected) {
		fprintf(stderr, "nvme: no memory\n");
		exit(1);
	}
	memset(bytes->now, 0x5a, size + extra);
	memset(bytes->expected, 0x5a, size);
}

static void destroy_bytes(struct bytes *bytes)
{
	free(bytes->now);
	free(bytes->expected);
}

static void create_bank(struct machine *machine, unsigned int index, dmacore_phys_t base,
			uint64_t extra)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

	create_bytes(&machine->banks[index], BANK_SIZE, extra);
	region.backing = DMACORE_MEMORY_HOST;
	region.base = base;
	region.size = BANK_SIZE + extra;
	region.host = machine->banks[index].now;
	MUST(dmacore_memory_add(machine->system, &region));
}

static void report(const struct dmacore_report *report, void *opaque)
{
	(void)opaque;
	fprintf(stderr, "nvme: %s: %s\n", report->object, report->text);
}

void machine_create(struct machine *machine)
{
	struct dmacore_memory_allocator allocator = DMACORE_MEMORY_ALLOCATOR_INIT;
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

	*machine = (struct machine){ 0 };
	allocator.allocate = take;
	allocator.free = give;
	allocator.opaque = machine;
	options.memory_allocator = &allocator;
	options.report = report;
	MUST(dmacore_system_create(&options, &machine->system));
	create_bank(machine, 0, BANK_LOW, ALLOCATED_SIZE);
	create_bank(machine, 1, BANK_HIGH, 0);
	create_bytes(&machine->namespace, NAMESPACE_SIZE, 0);
	MUST(dmacore_iommu_create(machine->system, NULL, &machine->iommu));
	pool.size = pool.size_max = POOL_SIZE;
	pool.limit = DMACORE_BIT_MASK(32);
	MUST(dmacore_bounce_pool_create(machine->system, &pool, &machine->pool));
}

void machine_destroy(struct machine *machine)
{
	dmacore_bounce_pool_destroy(machine->pool);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
	destroy_bytes(&machine->namespace);
	for (unsigned int i = 0; i < BANK_COUNT; i++)
		destroy_bytes(&machine->banks[i]);
}

uint8_t *machine_at(struct machine *machine, dmacore_phys_t phys)
{
	return phys >= BANK_HIGH ? machine->banks[1].now + (phys - BANK_HIGH) :
				   machine->banks[0].now + (phys - BANK_LOW);
}

uint8_t *machine_expected_at(struct machine *machine, dmacore_phys_t phys)
{
	return phys >= BANK_HIGH ? machine->banks[1].expected + (phys - BANK_HIGH) :
				   machine->banks[0].expected + (phys - BANK_LOW);
}

static bool are_as_expected(const struct bytes *bytes)
{
	return !memcmp(bytes->now, bytes->expected, bytes->size);
}

bool machine_is_as_expected(const struct machine *machine)
{
	return are_as_expected(&machine->banks[0]) && are_as_expected(&machine->banks[1]) &&
	       are_as_expected(&machine->namespace);
}

void setup_create(struct setup *setup, struct machine *machine, bool has_iommu, unsigned int bits,
		  uint32_t device_flags)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;

	*setup = (struct setup){ .machine = machine };
	options.name = "nvme0";
	options.flags = device_flags;
	options.streaming_mask = options.coherent_mask = DMACORE_BIT_MASK(bits);
	options.bounce_pool = machine->pool;
	if (has_iommu) {
		options.iommu = machine->iommu;
		MUST(dmacore_domain_create(machine->iommu, NULL, &setup->domain));
	}
	MUST(dmacore_device_create(machine->system, &options, &setup->device));
	if (has_iommu)
		MUST(dmacore_domain_attach(setup->domain, setup->device));
	MUST(controller_create(setup->device, machine->namespace.now,
			       NAMESPACE_SIZE / NVME_BLOCK_SIZE, &setup->controller));
	MUST(driver_create(setup->device, setup->controller, &setup->driver));
}

bool setup_destroy(struct setup *setup)
{
	struct dmacore_device_statistics left = { .struct_size = sizeof(left) };
	struct dmacore_fault fault;
	size_t fault_count;

	driver_destroy(setup->driver);
	controller_destroy(setup->controller);
	MUST(dmacore_device_statistics(setup->device, &left));
	MUST(dmacore_fault_take(setup->device, &fault, 1, &fault_count, NULL));
	dmacore_device_destroy(setup->device);
	dmacore_domain_destroy(setup->domain);
	return left.mapping_count == 0 && fault_count == 0 && left.fault_lost == 0;
}
