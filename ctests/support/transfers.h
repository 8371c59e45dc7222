/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_TRANSFERS_H
#define SUPPORT_TRANSFERS_H

/* A transfer, what it is of, and what the device is told. */

#include "machine.h"

#define RANGES_MAX 128
#define SEGMENTS_MAX 512

struct job {
	struct dmacore_device *device;
	struct dmacore_phys_range ranges[RANGES_MAX];
	struct dmacore_transfer_request request;
	struct dmacore_transfer transfer;
	struct dmacore_segment segments[SEGMENTS_MAX];
	size_t count;
};

static inline void job_start(struct job *job, struct dmacore_device *device, uint32_t direction)
{
	memset(job, 0, sizeof(*job));
	job->device = device;
	job->request = (struct dmacore_transfer_request)DMACORE_TRANSFER_REQUEST_INIT;
	job->request.ranges = job->ranges;
	job->request.direction = direction;
}

static inline void job_add_flagged(struct job *job, dmacore_phys_t phys, uint64_t size,
				   uint32_t flags)
{
	assert_true(job->request.count < RANGES_MAX);
	job->ranges[job->request.count++] = (struct dmacore_phys_range){ phys, size, flags, 0 };
}

static inline void job_add(struct job *job, dmacore_phys_t phys, uint64_t size)
{
	job_add_flagged(job, phys, size, 0);
}

static inline int job_map(struct job *job)
{
	return dmacore_transfer_map(job->device, &job->request, &job->transfer);
}

/* Gets the segments from @offset on, so many at a time. */
static inline void job_go(struct job *job, uint64_t offset, size_t capacity)
{
	struct dmacore_transfer_iterator iterator;
	size_t count;

	job->count = 0;
	assert_ok(dmacore_transfer_begin(job->device, &job->request, &job->transfer, offset,
					 &iterator));
	do {
		assert_true(job->count + capacity <= SEGMENTS_MAX);
		assert_ok(dmacore_transfer_next(&iterator, job->segments + job->count, capacity,
						&count));
		assert_true(count <= capacity);
		job->count += count;
	} while (count == capacity);
	/* Behind the last there is none. */
	assert_ok(dmacore_transfer_next(&iterator, job->segments + job->count, 1, &count));
	assert_int_equal(count, 0);
}

/* Maps what has been added. */
static inline void job_run(struct job *job)
{
	assert_ok(job_map(job));
	job_go(job, 0, 64);
}

static inline int job_unmap(struct job *job)
{
	return dmacore_transfer_unmap(job->device, &job->transfer);
}

static inline uint64_t job_size(const struct job *job)
{
	uint64_t size = 0;

	for (size_t i = 0; i < job->request.count; i++)
		size += job->ranges[i].size;
	return size;
}

#define assert_job_segment(job, index, dma_, size_)                   \
	do {                                                          \
		assert_true((index) < (job)->count);                  \
		assert_int_equal((job)->segments[index].dma, dma_);   \
		assert_int_equal((job)->segments[index].size, size_); \
	} while (0)

/* It is that again which it was before it was mapped. */
#define assert_job_empty(job)                                                   \
	do {                                                                    \
		const struct dmacore_transfer empty_ = DMACORE_TRANSFER_EMPTY;  \
                                                                                \
		assert_memory_equal(&(job)->transfer, &empty_, sizeof(empty_)); \
		assert_int_equal(dmacore_transfer_size(&(job)->transfer), 0);   \
	} while (0)

/* The bytes of a job in memory, one behind the other; written there if @is_in. */
static inline void job_copy_memory(struct machine *machine, const struct job *job, uint8_t *bytes,
				   bool is_in)
{
	for (size_t i = 0; i < job->request.count; i++) {
		for (uint64_t j = 0; j < job->ranges[i].size; j++) {
			uint8_t *byte = memory_at(machine, job->ranges[i].phys + j);

			if (is_in)
				*byte = *bytes++;
			else
				*bytes++ = *byte;
		}
	}
}

/*
 * The device reads the bytes of the ranges, in their order, through the segments, and what it writes there is
 * in memory when it was synced. No range may overlap another.
 */
static inline void job_check(struct machine *machine, struct job *job)
{
	const uint64_t size = job_size(job);
	uint8_t *bytes = malloc(size), *expected = malloc(size);
	uint64_t done = 0;

	assert_int_equal(dmacore_transfer_size(&job->transfer), size);
	job_copy_memory(machine, job, expected, false);
	for (size_t i = 0; i < job->count; done += job->segments[i++].size) {
		assert_true(job->segments[i].size > 0 && job->segments[i].size <= size - done);
		assert_ok(dmacore_view_read(machine->view, job->segments[i].dma, bytes + done,
					    job->segments[i].size));
	}
	assert_int_equal(done, size);
	assert_memory_equal(bytes, expected, size);
	for (uint64_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(expected[i] * 5 + i);
	done = 0;
	for (size_t i = 0; i < job->count; done += job->segments[i++].size)
		assert_ok(dmacore_view_write(machine->view, job->segments[i].dma, bytes + done,
					     job->segments[i].size));
	assert_ok(dmacore_transfer_sync_for_cpu(job->device, &job->transfer, 0, 0));
	job_copy_memory(machine, job, expected, false);
	assert_memory_equal(bytes, expected, size);
	/* And back: what the CPU writes meanwhile is the device's. */
	for (uint64_t i = 0; i < size; i++)
		expected[i] = (uint8_t)(bytes[i] + 3);
	job_copy_memory(machine, job, expected, true);
	assert_ok(dmacore_transfer_sync_for_device(job->device, &job->transfer, 0, 0));
	done = 0;
	for (size_t i = 0; i < job->count; done += job->segments[i++].size)
		assert_ok(dmacore_view_read(machine->view, job->segments[i].dma, bytes + done,
					    job->segments[i].size));
	assert_memory_equal(bytes, expected, size);
	free(bytes);
	free(expected);
}

#endif /* SUPPORT_TRANSFERS_H */
