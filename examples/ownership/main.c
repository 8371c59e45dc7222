/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Three want the same group of devices: a driver that uses the DMA API, a driver that maps in a domain
 * of its own, and user space. One after another they get it, and while one has it the others are
 * refused and told why. After each step a device tries to read one address, and what it gets says
 * whose translation it is under. The exit status is 0 only if each step went as it must.
 */

#include <dmacore.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PAGE 4096
/* Where the owners map, each in its own domain. */
#define ADDRESS UINT64_C(0x10000)

static unsigned failed;

/* Both network ports of one adapter, which the hardware cannot keep apart. */
struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *kernel;
	struct dmacore_group *group;
	struct dmacore_device *port[2];
	struct dmacore_view *view;
};

/* Says how a step ended, and whether it had to end so. */
static void step(const struct machine *machine, const char *who, const char *what, int result,
		 int expected)
{
	char text[DMACORE_DESCRIPTION_SIZE] = "";

	printf("%-12s %-42s %s", who, what, result ? strerror(-result) : "done");
	if (result != expected) {
		printf(", but expected: %s", expected ? strerror(-expected) : "done");
		failed++;
	}
	printf("\n");
	if (dmacore_group_describe(machine->group, text, sizeof(text)))
		failed++;
	if (result || expected)
		printf("%-12s the group is %s\n", "", text);
}

/* What the first port's read of @address gives. */
static void access_memory(const struct machine *machine, uint64_t address, int expected)
{
	char text[16] = "";
	int error = dmacore_view_read(machine->view, address, text, sizeof(text) - 1);

	printf("%-12s reads at 0x%llx: %s\n", "  the port", (unsigned long long)address,
	       error == -EPERM	? "blocked" :
	       error == -ENOENT ? "not mapped" :
	       error		? strerror(-error) :
				  text);
	if (error != expected)
		failed++;
}

static int set_up(struct machine *machine)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	static const char *const names[] = { "port0", "port1" };
	int error;

	system.flags = DMACORE_SYSTEM_FLAT;
	error = dmacore_system_create(&system, &machine->system);
	if (!error)
		error = dmacore_iommu_create(machine->system, NULL, &machine->iommu);
	if (!error)
		error = dmacore_domain_create(machine->iommu, NULL, &machine->kernel);
	if (!error)
		error = dmacore_group_create(machine->system, &machine->group);
	device.iommu = machine->iommu;
	device.group = machine->group;
	device.streaming_mask = DMACORE_BIT_MASK(64);
	for (int i = 0; i < 2 && !error; i++) {
		device.name = names[i];
		error = dmacore_device_create(machine->system, &device, &machine->port[i]);
	}
	if (!error)
		error = dmacore_domain_attach(machine->kernel, machine->port[0]);
	if (!error)
		error = dmacore_view_create(machine->port[0], &machine->view);
	return error;
}

static void tear_down(struct machine *machine)
{
	dmacore_view_destroy(machine->view);
	for (int i = 0; i < 2; i++)
		dmacore_device_destroy(machine->port[i]);
	dmacore_group_destroy(machine->group);
	dmacore_domain_destroy(machine->kernel);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
}

/* A driver of the second port uses the DMA API; nobody gets the group meanwhile. */
static void use_dma_api(struct machine *machine, const struct dmacore_dma_owner *other)
{
	static char buffer[PAGE] = "kernel";
	dmacore_dma_t dma = 0;

	step(machine, "nic driver", "uses the DMA API for port1",
	     dmacore_device_use_default_domain(machine->port[1]), 0);
	step(machine, "nic driver", "maps a buffer for port0",
	     dmacore_map_single(machine->port[0], buffer, PAGE, DMACORE_TO_DEVICE, 0, &dma), 0);
	access_memory(machine, dma, 0);
	step(machine, other->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], other), -EBUSY);
	step(machine, "nic driver", "has done with port1",
	     dmacore_device_unuse_default_domain(machine->port[1]), 0);
	step(machine, other->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], other), -EBUSY);
	step(machine, "nic driver", "unmaps its buffer",
	     dmacore_unmap(machine->port[0], dma, PAGE, DMACORE_TO_DEVICE, 0), 0);
}

/* Somebody owns the group and maps in a domain of its own; @other is refused all along. */
static void own(struct machine *machine, const struct dmacore_dma_owner *owner,
		const struct dmacore_dma_owner *other)
{
	static char memory[PAGE] __attribute__((aligned(PAGE)));
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain = NULL;

	options.type = DMACORE_DOMAIN_UNMANAGED;
	snprintf(memory, sizeof(memory), "%s", owner->name);
	step(machine, owner->name, "makes a domain and maps its memory there",
	     dmacore_domain_create(machine->iommu, &options, &domain), 0);
	if (dmacore_domain_map(domain, ADDRESS, (uintptr_t)memory, PAGE, DMACORE_ACCESS_READ))
		failed++;
	step(machine, owner->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], owner), 0);
	access_memory(machine, ADDRESS, -EPERM);
	step(machine, owner->name, "attaches its domain",
	     dmacore_device_attach(machine->port[0], domain, owner), 0);
	access_memory(machine, ADDRESS, 0);
	step(machine, other->name, "claims port1",
	     dmacore_device_claim_dma_owner(machine->port[1], other), -EPERM);
	step(machine, other->name, "attaches the kernel's domain to port1",
	     dmacore_domain_replace(machine->kernel, machine->port[1]), -EPERM);
	step(machine, "nic driver", "uses the DMA API for port1",
	     dmacore_device_use_default_domain(machine->port[1]), -EBUSY);
	step(machine, other->name, "releases what is not its own",
	     dmacore_device_release_dma_owner(machine->port[0], other), -EPERM);
	step(machine, owner->name, "releases port0",
	     dmacore_device_release_dma_owner(machine->port[0], owner), 0);
	access_memory(machine, ADDRESS, -ENOENT);
	dmacore_domain_destroy(domain);
}

int main(void)
{
	struct dmacore_dma_owner driver = DMACORE_DMA_OWNER_INIT;
	struct dmacore_dma_owner user = DMACORE_DMA_OWNER_INIT;
	struct machine machine = { 0 };
	int error;

	driver.name = "gpu driver";
	user.kind = DMACORE_OWNER_USER;
	user.name = "vm3";
	error = set_up(&machine);
	if (error) {
		fprintf(stderr, "ownership: cannot set the machine up: %s\n", strerror(-error));
	} else {
		use_dma_api(&machine, &user);
		own(&machine, &driver, &user);
		own(&machine, &user, &driver);
	}
	tear_down(&machine);
	if (error || failed) {
		printf("\n%u steps did not go as they must.\n", failed);
		return 1;
	}
	printf("\nEach got the group by itself, and the others were refused meanwhile.\n");
	return 0;
}
