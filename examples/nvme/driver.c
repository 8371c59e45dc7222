/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "driver.h"

#include "prp.h"
#include "sgl.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUE_ENTRIES 16
#define TRANSFER_SIZE_MAX ((uint64_t)NVME_PAGES_MAX * NVME_PAGE_SIZE)

struct driver {
	struct dmacore_device *device;
	struct controller *controller;
	struct nvme_command *commands; /* QUEUE_ENTRIES */
	struct nvme_completion *completions; /* QUEUE_ENTRIES */
	dmacore_dma_t commands_dma;
	dmacore_dma_t completions_dma;
	uint32_t submitted_count;
	struct list_pages lists;
};

int driver_execute(struct driver *driver, const struct nvme_command *command,
		   unsigned int *out_status)
{
	uint32_t index = driver->submitted_count % QUEUE_ENTRIES;
	uint32_t lap = driver->submitted_count / QUEUE_ENTRIES;
	struct nvme_command *entry = &driver->commands[index];
	struct nvme_completion completion;
	uint16_t id = driver->submitted_count;
	int error;

	*entry = *command;
	entry->id = id;
	driver->submitted_count++;
	error = controller_ring_doorbell(driver->controller,
					 driver->submitted_count % QUEUE_ENTRIES);
	if (error)
		return error;
	/* The controller writes it, so it is checked like any other input. */
	completion = driver->completions[index];
	if ((completion.status & 1) != (lap % 2 == 0) || completion.id != id)
		return -EPROTO;
	*out_status = completion.status >> 1;
	return 0;
}

/* By PRPs if they can say it, which take no more of the controller's time than a list must. */
static int describe(struct driver *driver, const struct dmacore_transfer_request *request,
		    const struct dmacore_transfer *transfer, uint32_t formats,
		    struct nvme_command *command, struct description *description)
{
	struct segment_reader reader;
	int error = -EOPNOTSUPP;

	if (formats & DRIVER_PRPS) {
		error = segment_reader_start(&reader, driver->device, request, transfer);
		if (!error)
			error = prp_describe(&reader, &driver->lists, command, description);
	}
	if (error == -EOPNOTSUPP && formats & DRIVER_SGLS) {
		error = segment_reader_start(&reader, driver->device, request, transfer);
		if (!error)
			error = sgl_describe(&reader, &driver->lists, command, description);
	}
	return error;
}

/* Describes and moves what is mapped. */
static int submit(struct driver *driver, enum nvme_opcode opcode, uint64_t block,
		  const struct dmacore_transfer_request *request,
		  const struct dmacore_transfer *transfer, uint32_t formats,
		  struct description *description)
{
	uint64_t size = dmacore_transfer_size(transfer);
	struct nvme_command command = { .opcode = opcode, .namespace_id = 1, .block = block };
	unsigned int status;
	int error;

	if (size % NVME_BLOCK_SIZE != 0)
		return -EINVAL;
	if (size > TRANSFER_SIZE_MAX)
		return -E2BIG;
	command.block_count = size / NVME_BLOCK_SIZE - 1;
	error = describe(driver, request, transfer, formats, &command, description);
	if (!error)
		error = driver_execute(driver, &command, &status);
	if (error)
		return error;
	return status == NVME_SUCCESS ? 0 : -EIO;
}

int driver_transfer(struct driver *driver, enum nvme_opcode opcode, uint64_t block,
		    const struct dmacore_transfer_request *memory, uint32_t formats,
		    struct description *description)
{
	struct dmacore_transfer_request request = *memory;
	struct dmacore_transfer transfer = DMACORE_TRANSFER_EMPTY;
	int error, unmap_error;

	request.direction = opcode == NVME_WRITE ? DMACORE_TO_DEVICE : DMACORE_FROM_DEVICE;
	/* More would be mapped for nothing. PRPs are cut into pages, so only SGLs limit what one may have. */
	request.max_segments = formats & DRIVER_PRPS ? PRP_SEGMENTS_MAX : SGL_SEGMENTS_MAX;
	if (formats & DRIVER_SGLS)
		request.max_segment_size = SGL_SEGMENT_SIZE_MAX;
	error = dmacore_transfer_map(driver->device, &request, &transfer);
	if (error)
		return error;
	error = submit(driver, opcode, block, &request, &transfer, formats, description);
	unmap_error = dmacore_transfer_unmap(driver->device, &transfer);
	return error ? error : unmap_error;
}

static int share(struct driver *driver)
{
	void *cpu;
	int error;

	error = dmacore_alloc_coherent(driver->device, QUEUE_ENTRIES * sizeof(*driver->commands),
				       &cpu, &driver->commands_dma);
	if (error)
		return error;
	driver->commands = cpu;
	error = dmacore_alloc_coherent(driver->device, QUEUE_ENTRIES * sizeof(*driver->completions),
				       &cpu, &driver->completions_dma);
	if (error)
		return error;
	driver->completions = cpu;
	return list_pages_create(driver->device, &driver->lists);
}

int driver_create(struct dmacore_device *device, struct controller *controller,
		  struct driver **out_driver)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct driver *driver = calloc(1, sizeof(*driver));
	int error;

	if (!driver)
		return -ENOMEM;
	driver->device = device;
	driver->controller = controller;
	/* All of a transfer may be one segment. What is copied stays at its place of a page, as PRPs want it. */
	limits.max_segment_size = TRANSFER_SIZE_MAX;
	limits.min_align_mask = NVME_PAGE_SIZE - 1;
	error = dmacore_device_set_limits(device, &limits);
	if (!error)
		error = share(driver);
	if (error) {
		driver_destroy(driver);
		return error;
	}
	controller_start(controller,
			 &(struct controller_registers){ driver->commands_dma,
							 driver->completions_dma, QUEUE_ENTRIES });
	*out_driver = driver;
	return 0;
}

void driver_destroy(struct driver *driver)
{
	int error = 0;

	if (!driver)
		return;
	list_pages_destroy(&driver->lists);
	if (driver->completions)
		error = dmacore_free_coherent(driver->device,
					      QUEUE_ENTRIES * sizeof(*driver->completions),
					      driver->completions, driver->completions_dma);
	(void)error; /* A live allocation is freed; anything else would be reported. */
	if (driver->commands)
		error = dmacore_free_coherent(driver->device,
					      QUEUE_ENTRIES * sizeof(*driver->commands),
					      driver->commands, driver->commands_dma);
	(void)error;
	free(driver);
}
