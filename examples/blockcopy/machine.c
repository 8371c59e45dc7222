/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "machine.h"

#include "console.h"
#include "file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static int create_iommu(struct machine *machine, struct dmacore_system *system)
{
	int error = dmacore_iommu_create(system, NULL, &machine->iommu);

	return error ? error : dmacore_domain_create(machine->iommu, NULL, &machine->domain);
}

static int create_device(struct machine *machine, struct dmacore_system *system)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	int error;

	options.name = "disk";
	options.iommu = machine->iommu;
	if (machine->iommu) {
		/* The IOMMU brings any memory within reach of a disk that knows 32 bits. */
		options.streaming_mask = DMACORE_BIT_MASK(32);
	} else {
		/* A record of each mapping lets the library check what comes without an IOMMU. */
		options.flags = DMACORE_DEVICE_TRACK_DIRECT;
		options.streaming_mask = DMACORE_BIT_MASK(64);
	}
	options.coherent_mask = options.streaming_mask;
	error = dmacore_device_create(system, &options, &machine->device);
	if (!error && machine->domain)
		error = dmacore_domain_attach(machine->domain, machine->device);
	return error;
}

static int create_disk(struct machine *machine, uint64_t size)
{
	struct file store;
	int error = file_create_temporary(&store);

	if (error)
		return error;
	error = disk_create(machine->device, store.fd, size / BLOCK_SIZE + 1, &machine->disk);
	close(store.fd);
	return error;
}

int machine_create(struct machine *machine, struct dmacore_system *system, bool has_iommu,
		   uint64_t size)
{
	int error = 0;

	*machine = (struct machine){ 0 };
	if (has_iommu)
		error = create_iommu(machine, system);
	if (!error)
		error = create_device(machine, system);
	if (!error)
		error = create_disk(machine, size);
	if (!error)
		error = driver_create(machine->device, machine->disk, &machine->driver);
	return error ? complain(error, "cannot set up the machine") : 0;
}

void machine_destroy(struct machine *machine)
{
	driver_destroy(machine->driver);
	disk_destroy(machine->disk);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
}

int machine_check_nothing_left(struct machine *machine)
{
	struct dmacore_device_statistics left = { .struct_size = sizeof(left) };
	struct dmacore_fault fault;
	size_t fault_count;
	int error;

	driver_destroy(machine->driver);
	machine->driver = NULL;
	error = dmacore_device_statistics(machine->device, &left);
	if (!error)
		error = dmacore_fault_take(machine->device, &fault, 1, &fault_count, NULL);
	if (error)
		return complain(error, "cannot look at the device");
	print_label("left mapped");
	printf("%" PRIu64 " of %" PRIu64 " mappings\n", left.mapping_count, left.map_total);
	if (left.mapping_count > 0)
		return complain(-EBUSY, "the driver has left mappings");
	if (fault_count > 0 || left.fault_lost > 0)
		return complain(-EACCES, "the disk was refused an access");
	return 0;
}
