/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A device's accesses, through the IOMMU of a system with one region of RAM. */

#include <dmacore.h>

#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096
#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(1) << 20)

struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t *ram;
	dmacore_dma_t dma;
	uint8_t buffer[PAGE];
};

static void open_machine(struct machine *machine)
{
	struct dmacore_memory_region ram = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;

	machine->ram = aligned_alloc(PAGE, RAM_SIZE);
	BENCH_CHECK(machine->ram != NULL);
	memset(machine->ram, 0x5a, RAM_SIZE);
	BENCH_CHECK(dmacore_system_create(NULL, &machine->system) == 0);
	ram.base = RAM_BASE;
	ram.size = RAM_SIZE;
	ram.backing = DMACORE_MEMORY_HOST;
	ram.host = machine->ram;
	BENCH_CHECK(dmacore_memory_add(machine->system, &ram) == 0);
	BENCH_CHECK(dmacore_iommu_create(machine->system, NULL, &machine->iommu) == 0);
	BENCH_CHECK(dmacore_domain_create(machine->iommu, NULL, &machine->domain) == 0);
	options.iommu = machine->iommu;
	options.streaming_mask = DMACORE_BIT_MASK(64);
	BENCH_CHECK(dmacore_device_create(machine->system, &options, &machine->device) == 0);
	BENCH_CHECK(dmacore_domain_attach(machine->domain, machine->device) == 0);
	BENCH_CHECK(dmacore_view_create(machine->device, &machine->view) == 0);
	BENCH_CHECK(dmacore_map_phys(machine->device, RAM_BASE, RAM_SIZE, DMACORE_BIDIRECTIONAL, 0,
				     &machine->dma) == 0);
}

static void close_machine(struct machine *machine)
{
	BENCH_CHECK(dmacore_unmap(machine->device, machine->dma, RAM_SIZE, DMACORE_BIDIRECTIONAL,
				  0) == 0);
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
	free(machine->ram);
}

static void run_read(void *context, uint64_t count)
{
	struct machine *machine = context;
	int errors = 0;

	memset(machine->buffer, 0, PAGE);
	for (uint64_t i = 0; i < count; i++)
		errors |= dmacore_view_read(machine->view, machine->dma, machine->buffer, PAGE);
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(memcmp(machine->buffer, machine->ram, PAGE) == 0);
}

static void run_write(void *context, uint64_t count)
{
	struct machine *machine = context;
	int errors = 0;

	memset(machine->ram, 0, PAGE);
	memset(machine->buffer, 0x5a, PAGE);
	for (uint64_t i = 0; i < count; i++)
		errors |= dmacore_view_write(machine->view, machine->dma, machine->buffer, PAGE);
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(memcmp(machine->buffer, machine->ram, PAGE) == 0);
}

static void run_memcpy(void *context, uint64_t count)
{
	struct machine *machine = context;
	uint8_t *from = machine->ram, *to = machine->buffer;

	for (uint64_t i = 0; i < count; i++) {
		memcpy(to, from, PAGE);
		/* Without this the compiler sees that one copy does. */
		__asm__ volatile("" : : "r"(to) : "memory");
	}
	BENCH_CHECK(memcmp(to, from, PAGE) == 0);
}

static void run_translate(void *context, uint64_t count)
{
	struct machine *machine = context;
	struct dmacore_translation translation = { 0 };
	uint64_t random = BENCH_SEED, dma = 0;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		dma = machine->dma + bench_random(&random) % RAM_SIZE;
		errors |= dmacore_view_translate(machine->view, dma, DMACORE_ACCESS_READ,
						 &translation);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(translation.target + (dma - translation.first) ==
		    RAM_BASE + (dma - machine->dma));
}

void bench_view(void)
{
	uint64_t count = bench_count(500000, 100);
	struct machine *machine;
	double copy;

	if (!bench_wants("view."))
		return;
	machine = calloc(1, sizeof(*machine));
	BENCH_CHECK(machine != NULL);
	open_machine(machine);
	copy = bench_time(run_memcpy, machine, count);
	bench_row("view.read.4k", "ns", bench_time(run_read, machine, count), "memcpy", copy);
	bench_row("view.write.4k", "ns", bench_time(run_write, machine, count), "memcpy", copy);
	bench_row("view.translate", "ns", bench_time(run_translate, machine, count * 4), NULL, 0);
	close_machine(machine);
	free(machine);
}
