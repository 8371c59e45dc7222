/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "disk.h"

#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct disk {
	struct dmacore_view *view;
	uint8_t *bytes;
	uint64_t size;
	struct disk_registers registers;
	struct disk_counters counters; /* the disk's thread alone */
	pthread_t thread;
	bool is_running;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t doorbell;
	pthread_cond_t interrupt;
	uint32_t tail;
	uint32_t interrupt_count;
	bool is_stopping;
	struct disk_counters counters_seen; /* as of the last completion */
};

static int dma_read(struct disk *disk, dmacore_dma_t dma, void *buffer, size_t size)
{
	disk->counters.transfers++;
	disk->counters.bytes_read += size;
	return dmacore_view_read(disk->view, dma, buffer, size);
}

static int dma_write(struct disk *disk, dmacore_dma_t dma, const void *buffer, size_t size)
{
	disk->counters.transfers++;
	disk->counters.bytes_written += size;
	return dmacore_view_write(disk->view, dma, buffer, size);
}

/*
 * Takes a segment's data without a copy in between: the view hands out the driver's memory itself,
 * in as many runs as it takes.
 */
static int dma_read_in_place(struct disk *disk, const struct block_segment *segment, uint8_t *to)
{
	struct dmacore_view_mapping *mapping;
	const struct dmacore_view_segment *runs;
	size_t count, i;
	int error;

	disk->counters.transfers++;
	disk->counters.bytes_read += segment->size;
	error = dmacore_view_map(disk->view, segment->dma, segment->size, DMACORE_ACCESS_READ,
				 &mapping, &runs, &count);
	if (error)
		return error;
	for (i = 0; i < count; i++) {
		memcpy(to, runs[i].host, runs[i].size);
		to += runs[i].size;
	}
	dmacore_view_unmap(mapping);
	return 0;
}

/* A command is the driver's claim. Nothing in it is believed before it is checked. */
static enum block_status execute(struct disk *disk, const struct block_command *command)
{
	struct block_segment segments[BLOCK_SEGMENTS_MAX];
	uint64_t offset, i;
	int error;

	if (command->opcode != BLOCK_READ && command->opcode != BLOCK_WRITE)
		return BLOCK_BAD_COMMAND;
	if (command->segment_count == 0 || command->segment_count > BLOCK_SEGMENTS_MAX)
		return BLOCK_BAD_COMMAND;
	if (command->block > disk->size / BLOCK_SIZE)
		return BLOCK_OUT_OF_RANGE;
	if (dma_read(disk, command->segments, segments, command->segment_count * sizeof(*segments)))
		return BLOCK_DMA_ERROR;

	offset = command->block * BLOCK_SIZE;
	for (i = 0; i < command->segment_count; i++) {
		if (segments[i].size > disk->size - offset)
			return BLOCK_OUT_OF_RANGE;
		if (command->opcode == BLOCK_WRITE)
			error = dma_read_in_place(disk, &segments[i], disk->bytes + offset);
		else
			error = dma_write(disk, segments[i].dma, disk->bytes + offset,
					  segments[i].size);
		if (error)
			return BLOCK_DMA_ERROR;
		offset += segments[i].size;
	}
	return BLOCK_DONE;
}

/*
 * Serves the command of this index, counted from the start. Fails if the queues cannot be reached:
 * then there is no way left to tell the driver anything.
 */
static int serve(struct disk *disk, uint32_t index)
{
	uint32_t slot = index % disk->registers.entry_count;
	uint32_t lap = index / disk->registers.entry_count;
	struct block_command command;
	struct block_completion completion = { 0 };
	int error;

	error = dma_read(disk, disk->registers.submissions + slot * sizeof(command), &command,
			 sizeof(command));
	if (error)
		return error;
	completion.id = command.id;
	completion.status = execute(disk, &command);
	completion.phase = lap % 2 == 0;
	error = dma_write(disk, disk->registers.completions + slot * sizeof(completion),
			  &completion, sizeof(completion));
	if (error)
		return error;

	pthread_mutex_lock(&disk->lock);
	disk->interrupt_count++;
	disk->counters_seen = disk->counters;
	pthread_cond_signal(&disk->interrupt);
	pthread_mutex_unlock(&disk->lock);
	return 0;
}

static bool wait_for_doorbell(struct disk *disk, uint32_t served, uint32_t *out_tail)
{
	bool is_stopping;

	pthread_mutex_lock(&disk->lock);
	while (disk->tail == served && !disk->is_stopping)
		pthread_cond_wait(&disk->doorbell, &disk->lock);
	*out_tail = disk->tail;
	is_stopping = disk->is_stopping;
	pthread_mutex_unlock(&disk->lock);
	return !is_stopping;
}

static void *run(void *opaque)
{
	struct disk *disk = opaque;
	uint32_t served = 0;
	uint32_t tail;

	while (wait_for_doorbell(disk, served, &tail)) {
		for (; served != tail; served++) {
			if (serve(disk, served))
				return NULL;
		}
	}
	return NULL;
}

int disk_create(struct dmacore_device *device, int fd, uint64_t block_count, struct disk **out_disk)
{
	pthread_condattr_t monotonic;
	struct disk *disk;
	int error;

	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	disk->size = block_count * BLOCK_SIZE;

	/* A full file system is found here, and not by a signal in the middle of a memcpy(). */
	error = -posix_fallocate(fd, 0, disk->size);
	if (error)
		goto free_disk;
	disk->bytes = mmap(NULL, disk->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (disk->bytes == MAP_FAILED) {
		error = -errno;
		goto free_disk;
	}
	error = dmacore_view_create(device, &disk->view);
	if (error)
		goto unmap_bytes;

	pthread_mutex_init(&disk->lock, NULL);
	pthread_cond_init(&disk->doorbell, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&disk->interrupt, &monotonic);
	pthread_condattr_destroy(&monotonic);
	*out_disk = disk;
	return 0;

unmap_bytes:
	munmap(disk->bytes, disk->size);
free_disk:
	free(disk);
	return error;
}

void disk_destroy(struct disk *disk)
{
	if (!disk)
		return;
	disk_stop(disk);
	pthread_cond_destroy(&disk->interrupt);
	pthread_cond_destroy(&disk->doorbell);
	pthread_mutex_destroy(&disk->lock);
	dmacore_view_destroy(disk->view);
	munmap(disk->bytes, disk->size);
	free(disk);
}

int disk_start(struct disk *disk, const struct disk_registers *registers)
{
	int error;

	disk->registers = *registers;
	disk->tail = 0;
	disk->interrupt_count = 0;
	disk->is_stopping = false;
	error = -pthread_create(&disk->thread, NULL, run, disk);
	disk->is_running = !error;
	return error;
}

void disk_stop(struct disk *disk)
{
	if (!disk->is_running)
		return;
	pthread_mutex_lock(&disk->lock);
	disk->is_stopping = true;
	pthread_cond_signal(&disk->doorbell);
	pthread_mutex_unlock(&disk->lock);
	pthread_join(disk->thread, NULL);
	disk->is_running = false;
}

void disk_ring_doorbell(struct disk *disk, uint32_t tail)
{
	pthread_mutex_lock(&disk->lock);
	disk->tail = tail;
	pthread_cond_signal(&disk->doorbell);
	pthread_mutex_unlock(&disk->lock);
}

int disk_wait_for_interrupt(struct disk *disk, unsigned int seconds, uint32_t *out_count)
{
	struct timespec deadline;
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += seconds;
	pthread_mutex_lock(&disk->lock);
	while (disk->interrupt_count == 0 && !error)
		error = -pthread_cond_timedwait(&disk->interrupt, &disk->lock, &deadline);
	*out_count = disk->interrupt_count;
	disk->interrupt_count = 0;
	pthread_mutex_unlock(&disk->lock);
	return *out_count ? 0 : error;
}

struct disk_counters disk_counters(struct disk *disk)
{
	struct disk_counters counters;

	pthread_mutex_lock(&disk->lock);
	counters = disk->counters_seen;
	pthread_mutex_unlock(&disk->lock);
	return counters;
}

int disk_rogue_read(struct disk *disk, dmacore_dma_t dma, void *buffer, size_t size)
{
	return dmacore_view_read(disk->view, dma, buffer, size);
}

int disk_rogue_write(struct disk *disk, dmacore_dma_t dma, const void *buffer, size_t size)
{
	return dmacore_view_write(disk->view, dma, buffer, size);
}
