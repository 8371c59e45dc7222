/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Changing who a group belongs to, what it is attached to, and which driver has its device: alone, and
 * beside many other devices.
 */

#include <dmacore/device.h>
#include <dmacore/domain.h>
#include <dmacore/driver.h>
#include <dmacore/group.h>
#include <dmacore/iommu.h>
#include <dmacore/system.h>

#include "bench.h"

#include <stdlib.h>

/* Devices that have nothing to do with the one that is measured. */
#define UNRELATED 1000

struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_device *others[UNRELATED];
};

static struct dmacore_device *make_device(const struct machine *machine)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;

	options.iommu = machine->iommu;
	options.streaming_mask = DMACORE_BIT_MASK(64);
	BENCH_CHECK(dmacore_device_create(machine->system, &options, &device) == 0);
	return device;
}

static void open_machine(struct machine *machine, size_t other_count)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;

	*machine = (struct machine){ 0 };
	options.flags = DMACORE_SYSTEM_FLAT;
	BENCH_CHECK(dmacore_system_create(&options, &machine->system) == 0);
	BENCH_CHECK(dmacore_iommu_create(machine->system, NULL, &machine->iommu) == 0);
	BENCH_CHECK(dmacore_domain_create(machine->iommu, NULL, &machine->domain) == 0);
	machine->device = make_device(machine);
	for (size_t i = 0; i < other_count; i++) {
		machine->others[i] = make_device(machine);
		BENCH_CHECK(dmacore_domain_attach(machine->domain, machine->others[i]) == 0);
	}
}

static void close_machine(struct machine *machine)
{
	dmacore_device_destroy(machine->device);
	for (size_t i = 0; i < UNRELATED; i++)
		dmacore_device_destroy(machine->others[i]);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
}

static void run_attach(void *context, uint64_t count)
{
	struct machine *machine = context;
	int errors = 0;

	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_domain_attach(machine->domain, machine->device);
		errors |= dmacore_domain_detach(machine->domain, machine->device);
	}
	BENCH_CHECK(errors == 0);
}

static void run_claim(void *context, uint64_t count)
{
	struct machine *machine = context;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	int errors = 0;

	BENCH_CHECK(dmacore_domain_attach(machine->domain, machine->device) == 0);
	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_device_claim_dma_owner(machine->device, &owner);
		errors |= dmacore_device_release_dma_owner(machine->device, &owner);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(dmacore_domain_detach(machine->domain, machine->device) == 0);
}

static int probe(struct dmacore_device *device, void *opaque)
{
	(void)device;
	(void)opaque;
	return 0;
}

/* The default domain, which somebody has attached, is not chosen anew. */
static void run_bind(void *context, uint64_t count)
{
	static const struct dmacore_driver driver = {
		.struct_size = sizeof(driver),
		.name = "bench",
		.probe = probe,
	};
	struct machine *machine = context;
	int errors = 0;

	BENCH_CHECK(dmacore_domain_attach(machine->domain, machine->device) == 0);
	for (uint64_t i = 0; i < count; i++) {
		errors |= dmacore_device_bind(machine->device, &driver);
		errors |= dmacore_device_unbind(machine->device);
	}
	BENCH_CHECK(errors == 0);
	BENCH_CHECK(dmacore_domain_detach(machine->domain, machine->device) == 0);
}

/* The peer is the same pair beside many devices that are attached to the same domain. */
static void measure(const char *name, void (*run)(void *context, uint64_t count))
{
	uint64_t count = bench_count(200000, 20);
	struct machine *alone = calloc(1, sizeof(*alone)), *beside = calloc(1, sizeof(*beside));
	struct bench_run runs[] = {
		{ .run = run, .context = alone, .count = count },
		{ .run = run, .context = beside, .count = count },
	};

	BENCH_CHECK(alone != NULL && beside != NULL);
	if (bench_wants(name)) {
		open_machine(alone, 0);
		open_machine(beside, UNRELATED);
		bench_time_turns(runs, 2);
		bench_row(name, "ns", runs[0].time, "beside 1000 devices", runs[1].time);
		close_machine(alone);
		close_machine(beside);
	}
	free(alone);
	free(beside);
}

void bench_group(void)
{
	measure("domain.attach", run_attach);
	measure("ownership.claim_release", run_claim);
	measure("device.bind_unbind", run_bind);
}
