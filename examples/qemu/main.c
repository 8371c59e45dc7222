/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The model of an IOMMU in QEMU, whose translations dmacore keeps. A guest maps and unmaps for a device;
 * QEMU translates that device's accesses, and mirrors the mappings for another one that is passed
 * through. After each step the mirrors must have what QEMU is told when it translates. The exit status
 * is 0 only if they do.
 */

#include "glue.h"
#include "shadow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* Where a PC's devices write their interrupts, which nobody passes through. */
#define MSI_FIRST UINT64_C(0xfee00000)
#define MSI_LAST UINT64_C(0xfeefffff)

#define READ DMACORE_ACCESS_READ
#define BOTH (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)

static unsigned failed;

struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain[2];
	struct dmacore_domain *identity;
	struct dmacore_device *device;
	AddressSpace memory;
	struct glue glue;
	/* Of the passed-through device: what lies below the interrupts, and above. */
	struct shadow low;
	struct shadow high;
};

static void expect(bool is_right, const char *what)
{
	if (is_right)
		return;
	printf("    WRONG: %s\n", what);
	failed++;
}

/* What QEMU is told of an address. */
static IOMMUTLBEntry translate(struct machine *machine, hwaddr addr)
{
	IOMMUMemoryRegion *region = &machine->glue.region;
	IOMMUTLBEntry entry = region->class->translate(region, addr, IOMMU_NONE, 0);

	expect(entry.iova == (addr & ~entry.addr_mask) && entry.target_as == &machine->memory &&
		       !(entry.translated_addr & entry.addr_mask),
	       "a translation is no aligned block around its address");
	return entry;
}

/* A mirror has of its range what QEMU is told, block after block, as far as blocks are not too many. */
static void compare(struct machine *machine, const struct shadow *shadow)
{
	hwaddr addr = shadow->notifier.start;

	for (unsigned i = 0; i < 10000; i++) {
		IOMMUTLBEntry entry = translate(machine, addr);
		const struct shadow_range *range = shadow_find(shadow, addr);
		hwaddr last = entry.iova | entry.addr_mask;

		expect((entry.perm == IOMMU_NONE) == !range,
		       "an address is mapped in the mirror or for QEMU, but not both");
		if (range)
			expect(range->perm == entry.perm &&
				       range->phys + (addr - range->first) ==
					       entry.translated_addr + (addr - entry.iova),
			       "an address leads elsewhere in the mirror");
		if (last >= shadow->notifier.end)
			return;
		addr = last + 1;
	}
	expect(false, "there are too many blocks to look at");
}

/* Ends a step: what the mirrors were told, and whether they are right. */
static void step(struct machine *machine, const char *what, int result)
{
	struct shadow *low = &machine->low, *high = &machine->high;

	printf("%s%s%s\n", what, result ? ": " : "", result ? strerror(-result) : "");
	if (low->maps + low->unmaps + high->maps + high->unmaps)
		printf("    the mirrors are told of %u blocks mapped and %u unmapped\n",
		       low->maps + high->maps, low->unmaps + high->unmaps);
	low->maps = low->unmaps = high->maps = high->unmaps = 0;
	if (result) {
		expect(false, "the step should not have failed");
		return;
	}
	if (machine->glue.region.notify_flags != IOMMU_NOTIFIER_NONE) {
		compare(machine, low);
		compare(machine, high);
	}
	expect(!low->wrong && !high->wrong, "something was mapped twice");
	expect(!qemu_aborts, "QEMU would have aborted");
}

/* How an address translates must be so. */
static void look(struct machine *machine, hwaddr addr, hwaddr phys, uint64_t size,
		 IOMMUAccessFlags perm)
{
	static const char *const words[] = { "nowhere", "read", "written", "read and written" };
	IOMMUTLBEntry entry = translate(machine, addr);
	hwaddr reached = entry.translated_addr + (addr - entry.iova);

	if (entry.perm == IOMMU_NONE)
		printf("    0x%llx leads nowhere\n", (unsigned long long)addr);
	else
		printf("    0x%llx leads to 0x%llx and may be %s, in a block of %llu KiB\n",
		       (unsigned long long)addr, (unsigned long long)reached, words[entry.perm],
		       (unsigned long long)(entry.addr_mask / KIB + 1));
	expect(entry.perm == perm, "it should be permitted something else");
	expect(entry.addr_mask == size - 1, "the block should have another size");
	expect(perm == IOMMU_NONE || reached == phys, "it should lead elsewhere");
}

static int set_up(struct machine *machine)
{
	static uint8_t ram[64 * KIB];
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;
	int error = dmacore_system_create(NULL, &machine->system);

	region.backing = DMACORE_MEMORY_HOST;
	region.size = sizeof(ram);
	region.host = ram;
	if (!error)
		error = dmacore_memory_add(machine->system, &region);
	if (!error)
		error = dmacore_iommu_create(machine->system, NULL, &machine->iommu);
	domain.type = DMACORE_DOMAIN_UNMANAGED;
	for (unsigned i = 0; i < 2 && !error; i++)
		error = dmacore_domain_create(machine->iommu, &domain, &machine->domain[i]);
	domain.type = DMACORE_DOMAIN_IDENTITY;
	if (!error)
		error = dmacore_domain_create(machine->iommu, &domain, &machine->identity);
	device.name = "nic";
	device.iommu = machine->iommu;
	if (!error)
		error = dmacore_device_create(machine->system, &device, &machine->device);
	if (!error)
		error = dmacore_domain_attach(machine->domain[0], machine->device);
	machine->memory.name = "memory";
	if (!error)
		error = glue_init(&machine->glue, &machine->memory, machine->device,
				  machine->domain[0]);
	return error;
}

static void tear_down(struct machine *machine)
{
	glue_fini(&machine->glue);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->identity);
	for (unsigned i = 0; i < 2; i++)
		dmacore_domain_destroy(machine->domain[i]);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
}

/* The guest's commands, as the model of an IOMMU carries them out. */
static void map_and_unmap(struct machine *machine)
{
	struct dmacore_domain *domain = machine->domain[0];

	step(machine, "The guest maps 12 KiB.",
	     dmacore_domain_map(domain, 0x11000, 0x4000, 12 * KIB, BOTH));
	look(machine, 0x12345, 0x5345, 4 * KIB, IOMMU_RW);
	look(machine, 0x14000, 0, 4 * KIB, IOMMU_NONE);
	step(machine, "It maps 2 MiB to be read.",
	     dmacore_domain_map(domain, 2 * MIB, 6 * MIB, 2 * MIB, READ));
	look(machine, 3 * MIB, 7 * MIB, 2 * MIB, IOMMU_RO);
	step(machine, "It unmaps the second page.",
	     dmacore_domain_unmap(domain, 0x12000, 4 * KIB, 0, NULL));
	look(machine, 0x12345, 0, 4 * KIB, IOMMU_NONE);
	look(machine, 0x13000, 0x6000, 4 * KIB, IOMMU_RW);
	step(machine, "It maps 4 MiB around the place of the interrupts.",
	     dmacore_domain_map(domain, MSI_FIRST - MIB, 8 * MIB, 4 * MIB, BOTH));
	expect(!shadow_find(&machine->low, MSI_FIRST) && !shadow_find(&machine->high, MSI_LAST),
	       "the place of the interrupts is mirrored");
	step(machine, "It unmaps a page out of the 2 MiB.",
	     dmacore_domain_unmap(domain, 3 * MIB, 4 * KIB, DMACORE_UNMAP_SPLIT, NULL));
	look(machine, 3 * MIB - 1, 7 * MIB - 1, 4 * KIB, IOMMU_RO);
	step(machine, "It unmaps everything below 1 GiB, holes and all.",
	     dmacore_domain_unmap(domain, 0, GIB, DMACORE_UNMAP_CROSS_HOLES, NULL));
	look(machine, 3 * MIB - 1, 0, GIB, IOMMU_NONE);
}

static void switch_domains(struct machine *machine)
{
	struct dmacore_domain *other = machine->domain[1];
	int error = dmacore_domain_map(other, 0x11000, 0x8000, 4 * KIB, BOTH);

	if (!error)
		error = dmacore_domain_map(other, GIB, GIB, GIB, BOTH);
	step(machine, "The guest fills another domain in, of which nobody is told.", error);
	look(machine, 0x11000, 0, GIB, IOMMU_NONE);
	error = dmacore_domain_replace(other, machine->device);
	if (!error)
		error = glue_switch(&machine->glue, other);
	step(machine, "It attaches the device to that.", error);
	look(machine, 0x11000, 0x8000, 4 * KIB, IOMMU_RW);
	look(machine, GIB + 1, GIB + 1, GIB, IOMMU_RW);
	error = dmacore_domain_map(machine->domain[0], 0x20000, 0x8000, 4 * KIB, BOTH);
	step(machine, "It maps in the domain that it left, of which nobody is told.", error);
	error = dmacore_domain_replace(machine->identity, machine->device);
	if (!error)
		error = glue_switch(&machine->glue, machine->identity);
	step(machine, "It lets the device pass by the IOMMU.", error);
	look(machine, 0x12345, 0x12345, UINT64_MAX / 2 + 1, IOMMU_RW);
	expect(shadow_find(&machine->low, 0) && shadow_find(&machine->high, UINT64_MAX),
	       "the mirrors have less than all");
}

int main(void)
{
	struct machine machine = { 0 };
	IOMMUNotifier cache = { .notifier_flags = IOMMU_NOTIFIER_DEVIOTLB_UNMAP,
				.end = UINT64_MAX };
	struct shadow late;
	int error = set_up(&machine);

	if (error) {
		fprintf(stderr, "qemu: cannot set the machine up: %s\n", strerror(-error));
		return 1;
	}
	step(&machine, "A machine with an IOMMU, and a device whose domain is empty.", 0);
	look(&machine, 0x11000, 0, 512 * GIB, IOMMU_NONE);

	shadow_init(&machine.low, 0, MSI_FIRST - 1);
	shadow_init(&machine.high, MSI_LAST + 1, UINT64_MAX);
	error = memory_region_register_iommu_notifier(&machine.glue.region, &machine.low.notifier);
	if (!error)
		error = memory_region_register_iommu_notifier(&machine.glue.region,
							      &machine.high.notifier);
	step(&machine, "A device is passed through: two mirrors, around the interrupts.", error);

	map_and_unmap(&machine);

	error = memory_region_register_iommu_notifier(&machine.glue.region, &cache);
	expect(error == -ENOTSUP, "it should not be supported");
	step(&machine, "A notifier for caches in devices is refused.", 0);

	shadow_init(&late, 0, UINT64_MAX);
	error = memory_region_register_iommu_notifier(&machine.glue.region, &late.notifier);
	memory_region_iommu_replay(&machine.glue.region, &late.notifier);
	step(&machine, "Another device is passed through, and what is mapped is replayed to it.",
	     error);
	printf("    the third mirror is told of %u blocks mapped\n", late.maps);
	compare(&machine, &late);

	memory_region_unregister_iommu_notifier(&machine.glue.region, &late.notifier);
	switch_domains(&machine);

	memory_region_unregister_iommu_notifier(&machine.glue.region, &machine.low.notifier);
	memory_region_unregister_iommu_notifier(&machine.glue.region, &machine.high.notifier);
	expect(!machine.glue.notifier, "somebody still listens to the domain");
	step(&machine, "Nobody is passed through any more, and nobody listens.", 0);
	tear_down(&machine);
	if (failed) {
		printf("\n%u things were not as they must be.\n", failed);
		return 1;
	}
	printf("\nAfter each step the mirrors had what QEMU is told.\n");
	return 0;
}
