/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "driver.h"

#include <errno.h>
#include <stdlib.h>

/* More entries than requests: a queue is never full. */
#define ENTRY_COUNT 8
_Static_assert(ENTRY_COUNT > DRIVER_DEPTH, "a queue must hold all requests");

#define SECONDS_MAX 10
#define PAGE_SIZE 4096

struct request {
	uint8_t *buffers[BLOCK_SEGMENTS_MAX];
	struct dmacore_phys_range ranges[BLOCK_SEGMENTS_MAX]; /* what of the buffers is mapped */
	struct dmacore_transfer_request memory;
	struct dmacore_transfer transfer;
	bool is_complete;
	uint16_t status;
};

/* Memory that CPU and device share. */
struct shared {
	void *cpu;
	dmacore_dma_t dma;
	uint64_t size;
};

struct driver {
	struct dmacore_device *device;
	struct disk *disk;
	struct shared submissions;
	struct shared completions;
	struct shared lists; /* BLOCK_SEGMENTS_MAX segments for each request */
	uint32_t submitted_count;
	uint32_t completed_count;
	struct request requests[DRIVER_DEPTH];
	struct driver_counters counters;
};

static int share(struct driver *driver, struct shared *shared, uint64_t size)
{
	shared->size = size;
	return dmacore_alloc_coherent(driver->device, size, &shared->cpu, &shared->dma);
}

static void unshare(struct driver *driver, struct shared *shared)
{
	int error = 0;

	if (shared->cpu)
		error = dmacore_free_coherent(driver->device, shared->size, shared->cpu,
					      shared->dma);
	(void)error; /* A live allocation is freed; anything else would be reported. */
}

static bool is_submitted(const struct request *request)
{
	return dmacore_transfer_size(&request->transfer) > 0;
}

static int unmap(struct driver *driver, struct request *request)
{
	return is_submitted(request) ? dmacore_transfer_unmap(driver->device, &request->transfer) :
				       0;
}

/*
 * Maps the first bytes of a request's buffers, all at once, and lists the segments that the disk is told of:
 * as many as the path makes of them.
 */
static int map(struct driver *driver, struct request *request, size_t size,
	       enum dmacore_direction direction,
	       struct dmacore_segment segments[BLOCK_SEGMENTS_MAX], size_t *out_count)
{
	struct dmacore_transfer_iterator iterator;
	size_t count;
	int error;

	for (count = 0; size > 0; count++) {
		struct dmacore_phys_range *range = &request->ranges[count];

		/* On a flat system a physical address is one of this process. */
		range->phys = (uintptr_t)request->buffers[count];
		range->size = size < DRIVER_BUFFER_SIZE ? size : DRIVER_BUFFER_SIZE;
		size -= range->size;
	}
	request->memory = (struct dmacore_transfer_request)DMACORE_TRANSFER_REQUEST_INIT;
	request->memory.ranges = request->ranges;
	request->memory.count = count;
	request->memory.direction = direction;
	request->memory.max_segments = BLOCK_SEGMENTS_MAX;
	error = dmacore_transfer_map(driver->device, &request->memory, &request->transfer);
	if (error)
		return error;
	error = dmacore_transfer_begin(driver->device, &request->memory, &request->transfer, 0,
				       &iterator);
	if (!error)
		error = dmacore_transfer_next(&iterator, segments, BLOCK_SEGMENTS_MAX, out_count);
	/* The first error is the one to tell. */
	if (error)
		(void)unmap(driver, request);
	return error;
}

/*
 * Takes the completions that an interrupt announced. The disk writes them, so they are checked
 * like any other input.
 */
static int take_completions(struct driver *driver, uint32_t count)
{
	const struct block_completion *completions = driver->completions.cpu;

	for (; count > 0; count--, driver->completed_count++) {
		struct block_completion completion =
			completions[driver->completed_count % ENTRY_COUNT];
		uint32_t lap = driver->completed_count / ENTRY_COUNT;
		struct request *request;

		if (completion.phase != (lap % 2 == 0) || completion.id >= DRIVER_DEPTH)
			return -EPROTO;
		request = &driver->requests[completion.id];
		if (!is_submitted(request) || request->is_complete)
			return -EPROTO;
		request->is_complete = true;
		request->status = completion.status;
	}
	return 0;
}

int driver_submit(struct driver *driver, unsigned int index, enum block_opcode opcode,
		  uint64_t block, size_t size)
{
	struct request *request = &driver->requests[index];
	struct block_segment *list =
		(struct block_segment *)driver->lists.cpu + (size_t)index * BLOCK_SEGMENTS_MAX;
	struct block_command *command = (struct block_command *)driver->submissions.cpu +
					driver->submitted_count % ENTRY_COUNT;
	struct dmacore_segment segments[BLOCK_SEGMENTS_MAX];
	size_t count, i;
	int error;

	if (is_submitted(request))
		return -EBUSY;
	if (size == 0 || size > DRIVER_REQUEST_SIZE || size % BLOCK_SIZE != 0)
		return -EINVAL;
	request->is_complete = false;
	error = map(driver, request, size,
		    opcode == BLOCK_WRITE ? DMACORE_TO_DEVICE : DMACORE_FROM_DEVICE, segments,
		    &count);
	if (error)
		return error;

	/* The disk may write to the list. Nothing in it is needed to unmap. */
	for (i = 0; i < count; i++)
		list[i] = (struct block_segment){ segments[i].dma, segments[i].size };
	command->id = index;
	command->opcode = opcode;
	command->segment_count = count;
	command->segments = driver->lists.dma + index * BLOCK_SEGMENTS_MAX * sizeof(*list);
	command->block = block;

	driver->counters.commands++;
	driver->counters.segments += count;
	driver->counters.bytes += size;
	disk_ring_doorbell(driver->disk, ++driver->submitted_count);
	return 0;
}

int driver_wait(struct driver *driver, unsigned int index)
{
	struct request *request = &driver->requests[index];
	uint32_t count;
	int error;

	if (!is_submitted(request))
		return 0;
	while (!request->is_complete) {
		error = disk_wait_for_interrupt(driver->disk, SECONDS_MAX, &count);
		if (!error)
			error = take_completions(driver, count);
		if (error)
			return error;
	}
	error = unmap(driver, request);
	if (error)
		return error;
	return request->status == BLOCK_DONE ? 0 : -EIO;
}

int driver_create(struct dmacore_device *device, struct disk *disk, struct driver **out_driver)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct driver *driver = calloc(1, sizeof(*driver));
	struct disk_registers registers;
	unsigned int i, j;
	int error;

	if (!driver)
		return -ENOMEM;
	driver->device = device;
	driver->disk = disk;
	/* A segment may be a whole request, where one buffer follows another for the disk. */
	limits.max_segment_size = DRIVER_REQUEST_SIZE;
	error = dmacore_device_set_limits(device, &limits);
	if (!error)
		error = share(driver, &driver->submissions,
			      ENTRY_COUNT * sizeof(struct block_command));
	if (!error)
		error = share(driver, &driver->completions,
			      ENTRY_COUNT * sizeof(struct block_completion));
	if (!error)
		error = share(driver, &driver->lists,
			      sizeof(struct block_segment) * BLOCK_SEGMENTS_MAX * DRIVER_DEPTH);

	/*
	 * An IOMMU opens whole pages to a device. Buffers that start and end on pages let the disk
	 * see nothing else, and get addresses one behind the other.
	 */
	for (i = 0; i < DRIVER_DEPTH && !error; i++) {
		for (j = 0; j < BLOCK_SEGMENTS_MAX && !error; j++) {
			driver->requests[i].buffers[j] =
				aligned_alloc(PAGE_SIZE, DRIVER_BUFFER_SIZE);
			if (!driver->requests[i].buffers[j])
				error = -ENOMEM;
		}
	}
	if (!error) {
		registers.submissions = driver->submissions.dma;
		registers.completions = driver->completions.dma;
		registers.entry_count = ENTRY_COUNT;
		error = disk_start(disk, &registers);
	}
	if (error) {
		driver_destroy(driver);
		return error;
	}
	*out_driver = driver;
	return 0;
}

void driver_destroy(struct driver *driver)
{
	unsigned int i, j;

	if (!driver)
		return;
	/* The disk stops first: whatever it was doing, its memory can be taken away now. */
	disk_stop(driver->disk);
	for (i = 0; i < DRIVER_DEPTH; i++) {
		(void)unmap(driver, &driver->requests[i]);
		for (j = 0; j < BLOCK_SEGMENTS_MAX; j++)
			free(driver->requests[i].buffers[j]);
	}
	unshare(driver, &driver->lists);
	unshare(driver, &driver->completions);
	unshare(driver, &driver->submissions);
	free(driver);
}

void *driver_buffer(struct driver *driver, unsigned int request, unsigned int buffer)
{
	return driver->requests[request].buffers[buffer];
}

dmacore_dma_t driver_buffer_dma(struct driver *driver, unsigned int index, unsigned int buffer)
{
	const struct request *request = &driver->requests[index];
	struct dmacore_transfer_iterator iterator;
	struct dmacore_segment found;
	size_t count = 0;
	int error = dmacore_transfer_begin(driver->device, &request->memory, &request->transfer,
					   (uint64_t)buffer * DRIVER_BUFFER_SIZE, &iterator);

	if (!error)
		error = dmacore_transfer_next(&iterator, &found, 1, &count);
	return !error && count == 1 ? found.dma : 0;
}

struct driver_counters driver_counters(const struct driver *driver)
{
	return driver->counters;
}
