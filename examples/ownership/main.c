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
	/* Passes requests of one port to the other: it has no access control. */
	struct dmacore_bridge *adapter;
	struct dmacore_device *port[2];
	struct dmacore_group *group;
	struct dmacore_view *view;
};

/* A driver that has a domain of its own, which it attaches when it probes a device. */
struct private_driver {
	struct dmacore_driver descriptor;
	struct dmacore_dma_owner owner;
	struct dmacore_domain *domain;
};

/* Says how a step ended, and whether it had to end so. */
static void step(const struct machine *machine, const char *who, const char *what, int result,
		 int expected)
{
	char text[DMACORE_DESCRIPTION_SIZE] = "";

	printf("%-12s %-42s %s", who, what,
	       result == -EAGAIN ? "deferred" :
	       result		 ? strerror(-result) :
				   "done");
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

static void print_report(const struct dmacore_report *report, void *opaque)
{
	(void)opaque;
	printf("%-12s %s: %s\n", "  report", report->object, report->text);
}

/* The IOMMU is announced and not there yet, as at the start of a machine. */
static int set_up(struct machine *machine)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	static const char *const names[] = { "port0", "port1" };
	int error;

	system.flags = DMACORE_SYSTEM_FLAT;
	system.report = print_report;
	error = dmacore_system_create(&system, &machine->system);
	if (!error)
		error = dmacore_iommu_announce(machine->system, &machine->iommu);
	if (!error)
		error = dmacore_bridge_create(machine->system, NULL, &machine->adapter);
	device.iommu = machine->iommu;
	device.bridge = machine->adapter;
	device.streaming_mask = DMACORE_BIT_MASK(64);
	for (int i = 0; i < 2 && !error; i++) {
		device.name = names[i];
		error = dmacore_device_create(machine->system, &device, &machine->port[i]);
	}
	if (!error)
		error = dmacore_device_group(machine->port[0], &machine->group);
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
	dmacore_bridge_destroy(machine->adapter);
	dmacore_iommu_destroy(machine->iommu);
	dmacore_system_destroy(machine->system);
}

/* A real driver would set the masks of its port here, and map its queues. */
static int probe_nic(struct dmacore_device *device, void *opaque)
{
	(void)device;
	(void)opaque;
	printf("%-12s probes a port\n", "nic driver");
	return 0;
}

/* A driver of the second port uses the DMA API; nobody gets the group meanwhile. */
static void use_dma_api(struct machine *machine, const struct dmacore_dma_owner *other)
{
	static const struct dmacore_driver nic = { .struct_size = sizeof(nic),
						   .name = "nic",
						   .probe = probe_nic };
	static char buffer[PAGE] = "kernel";
	dmacore_dma_t dma = 0;

	step(machine, "nic driver", "is bound to port1",
	     dmacore_device_bind(machine->port[1], &nic), -EAGAIN);
	step(machine, "the IOMMU", "starts", dmacore_iommu_start(machine->iommu, NULL), 0);
	step(machine, "nic driver", "maps a buffer for port0",
	     dmacore_map_single(machine->port[0], buffer, PAGE, DMACORE_TO_DEVICE, 0, &dma), 0);
	access_memory(machine, dma, 0);
	step(machine, other->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], other), -EBUSY);
	step(machine, "nic driver", "is unbound from port1",
	     dmacore_device_unbind(machine->port[1]), 0);
	step(machine, other->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], other), -EBUSY);
	step(machine, "nic driver", "unmaps its buffer",
	     dmacore_unmap(machine->port[0], dma, PAGE, DMACORE_TO_DEVICE, 0), 0);
}

/* While @owner has the group @other is refused, and so is a driver that uses the DMA API. */
static void refuse(struct machine *machine, const struct dmacore_dma_owner *owner,
		   const struct dmacore_dma_owner *other)
{
	static const struct dmacore_driver nic = { .struct_size = sizeof(nic),
						   .name = "nic",
						   .probe = probe_nic };

	access_memory(machine, ADDRESS, 0);
	step(machine, other->name, "claims port1",
	     dmacore_device_claim_dma_owner(machine->port[1], other), -EPERM);
	step(machine, other->name, "blocks port1", dmacore_device_detach(machine->port[1], other),
	     -EPERM);
	step(machine, "nic driver", "is bound to port1",
	     dmacore_device_bind(machine->port[1], &nic), -EBUSY);
	step(machine, other->name, "releases what is not its own",
	     dmacore_device_release_dma_owner(machine->port[0], other), -EPERM);
	step(machine, owner->name, "releases port0",
	     dmacore_device_release_dma_owner(machine->port[0], owner), 0);
	access_memory(machine, ADDRESS, -ENOENT);
}

/* A domain in which @memory can be read, which says whose it is. */
static int make_domain(struct machine *machine, const char *name, char *memory,
		       struct dmacore_domain **out_domain)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	int error;

	options.type = DMACORE_DOMAIN_UNMANAGED;
	snprintf(memory, PAGE, "%s", name);
	error = dmacore_domain_create(machine->iommu, &options, out_domain);
	if (!error)
		error = dmacore_domain_map(*out_domain, ADDRESS, (uintptr_t)memory, PAGE,
					   DMACORE_ACCESS_READ);
	return error;
}

static int probe_private(struct dmacore_device *device, void *opaque)
{
	struct private_driver *driver = opaque;
	int error = dmacore_device_claim_dma_owner(device, &driver->owner);

	if (error)
		return error;
	error = dmacore_device_attach(device, driver->domain, &driver->owner);
	if (error)
		failed += dmacore_device_release_dma_owner(device, &driver->owner) != 0;
	return error;
}

/* A driver declares that it manages DMA itself, and attaches its own domain when it probes. */
static void own_as_driver(struct machine *machine, struct private_driver *driver,
			  const struct dmacore_dma_owner *other)
{
	static char memory[PAGE] __attribute__((aligned(PAGE)));
	dmacore_dma_t dma;

	step(machine, driver->owner.name, "makes a domain and maps its memory there",
	     make_domain(machine, driver->owner.name, memory, &driver->domain), 0);
	step(machine, driver->owner.name, "is bound to port0, claims and attaches",
	     dmacore_device_bind(machine->port[0], &driver->descriptor), 0);
	step(machine, driver->owner.name, "calls the DMA API by mistake",
	     dmacore_map_single(machine->port[0], memory, PAGE, DMACORE_TO_DEVICE, 0, &dma),
	     -EPERM);
	refuse(machine, &driver->owner, other);
	step(machine, driver->owner.name, "is unbound from port0",
	     dmacore_device_unbind(machine->port[0]), 0);
	dmacore_domain_destroy(driver->domain);
}

/* User space claims a port, finds it blocked, and attaches its domain. */
static void own_as_user(struct machine *machine, const struct dmacore_dma_owner *user,
			const struct dmacore_dma_owner *other)
{
	static char memory[PAGE] __attribute__((aligned(PAGE)));
	struct dmacore_domain *domain = NULL;

	step(machine, user->name, "makes a domain and maps its memory there",
	     make_domain(machine, user->name, memory, &domain), 0);
	step(machine, user->name, "claims port0",
	     dmacore_device_claim_dma_owner(machine->port[0], user), 0);
	access_memory(machine, ADDRESS, -EPERM);
	step(machine, user->name, "attaches its domain",
	     dmacore_device_attach(machine->port[0], domain, user), 0);
	refuse(machine, user, other);
	dmacore_domain_destroy(domain);
}

int main(void)
{
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT, user = owner;
	struct private_driver gpu = {
		.descriptor = { .struct_size = sizeof(struct dmacore_driver),
				.flags = DMACORE_DRIVER_MANAGES_DMA,
				.name = "gpu",
				.probe = probe_private,
				.opaque = &gpu },
		.owner = owner,
	};
	struct machine machine = { 0 };
	int error;

	gpu.owner.name = "gpu driver";
	user.kind = DMACORE_OWNER_USER;
	user.name = "vm3";
	error = set_up(&machine);
	if (error) {
		fprintf(stderr, "ownership: cannot set the machine up: %s\n", strerror(-error));
	} else {
		use_dma_api(&machine, &user);
		own_as_driver(&machine, &gpu, &user);
		own_as_user(&machine, &user, &gpu.owner);
	}
	tear_down(&machine);
	if (error || failed) {
		printf("\n%u steps did not go as they must.\n", failed);
		return 1;
	}
	printf("\nEach got the group by itself, and the others were refused meanwhile.\n");
	return 0;
}
