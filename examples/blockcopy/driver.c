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
	struct block_segment mapped[BLOCK_SEGMENTS_MAX];
	unsigned int mapped_count; /* 0: not submitted */
	enum dmacore_direction direction;
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

static int unmap(struct driver *driver, struct request *request)
{
	int first_error = 0;

	while (request->mapped_count > 0) {
		const struct block_segment *segment = &request->mapped[--request->mapped_count];
		int error = dmacore_unmap(driver->device, segment->dma, segment->size,
					  request->direction, 0);

		if (!first_error)
			first_error = error;
	}
	return first_error;
}

static int map(struct driver *driver, struct request *request, size_t size)
{
	while (size > 0) {
		struct block_segment *segment = &request->mapped[request->mapped_count];
		int error;

		segment->size = size < DRIVER_SEGMENT_SIZE ? size : DRIVER_SEGMENT_SIZE;
		error = dmacore_map_single(driver->device, request->buffers[request->mapped_count],
					   segment->size, request->direction, 0, &segment->dma);
		if (error) {
			/* The error of the map call is the one to tell. */
			(void)unmap(driver, request);
			return error;
		}
		request->mapped_count++;
		size -= segment->size;
	}
	return 0;
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
		if (request->mapped_count == 0 || request->is_complete)
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
	unsigned int i;
	int error;

	if (request->mapped_count > 0)
		return -EBUSY;
	if (size == 0 || size > DRIVER_REQUEST_SIZE || size % BLOCK_SIZE != 0)
		return -EINVAL;
	request->direction = opcode == BLOCK_WRITE ? DMACORE_TO_DEVICE : DMACORE_FROM_DEVICE;
	request->is_complete = false;
	error = map(driver, request, size);
	if (error)
		return error;

	/* The disk may write to the list, so the driver keeps its own to unmap by. */
	for (i = 0; i < request->mapped_count; i++)
		list[i] = request->mapped[i];
	command->id = index;
	command->opcode = opcode;
	command->segment_count = request->mapped_count;
	command->segments = driver->lists.dma + index * BLOCK_SEGMENTS_MAX * sizeof(*list);
	command->block = block;

	driver->counters.commands++;
	driver->counters.segments += request->mapped_count;
	driver->counters.bytes += size;
	disk_ring_doorbell(driver->disk, ++driver->submitted_count);
	return 0;
}

int driver_wait(struct driver *driver, unsigned int index)
{
	struct request *request = &driver->requests[index];
	uint32_t count;
	int error;

	if (request->mapped_count == 0)
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
	struct driver *driver = calloc(1, sizeof(*driver));
	struct disk_registers registers;
	unsigned int i, j;
	int error;

	if (!driver)
		return -ENOMEM;
	driver->device = device;
	driver->disk = disk;
	error = share(driver, &driver->submissions, ENTRY_COUNT * sizeof(struct block_command));
	if (!error)
		error = share(driver, &driver->completions,
			      ENTRY_COUNT * sizeof(struct block_completion));
	if (!error)
		error = share(driver, &driver->lists,
			      sizeof(struct block_segment) * BLOCK_SEGMENTS_MAX * DRIVER_DEPTH);

	/*
	 * An IOMMU opens whole pages to a device. Buffers that start and end on pages let the disk
	 * see nothing else.
	 */
	for (i = 0; i < DRIVER_DEPTH && !error; i++) {
		for (j = 0; j < BLOCK_SEGMENTS_MAX && !error; j++) {
			driver->requests[i].buffers[j] =
				aligned_alloc(PAGE_SIZE, DRIVER_SEGMENT_SIZE);
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

void *driver_buffer(struct driver *driver, unsigned int request, unsigned int segment)
{
	return driver->requests[request].buffers[segment];
}

dmacore_dma_t driver_buffer_dma(struct driver *driver, unsigned int request, unsigned int segment)
{
	return driver->requests[request].mapped[segment].dma;
}

struct driver_counters driver_counters(const struct driver *driver)
{
	return driver->counters;
}
