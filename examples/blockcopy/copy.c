/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "copy.h"

#include "console.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static size_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Remembers the moment at which the most was mapped. */
static int observe(struct job *job)
{
	struct dmacore_device_statistics now = { .struct_size = sizeof(now) };
	int error = dmacore_device_statistics(job->machine.device, &now);

	if (error || now.mapping_bytes <= job->most.mapping_bytes)
		return error;
	job->most = now;
	job->most_in_domain.struct_size = sizeof(job->most_in_domain);
	return job->machine.domain ?
		       dmacore_domain_statistics(job->machine.domain, &job->most_in_domain) :
		       0;
}

/* Starts the transfer of the chunk at @offset; the file's last block is filled up with zeros. */
static int begin(struct job *job, unsigned int request, enum block_opcode opcode, uint64_t offset)
{
	size_t size = smaller(job->size - offset, DRIVER_REQUEST_SIZE);
	size_t padded_size = (size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
	size_t done, part;
	int error = 0;

	for (done = 0; opcode == BLOCK_WRITE && done < size && !error; done += part) {
		uint8_t *buffer =
			driver_buffer(job->machine.driver, request, done / DRIVER_BUFFER_SIZE);

		part = smaller(size - done, DRIVER_BUFFER_SIZE);
		error = file_read(&job->file, buffer, part, offset + done);
		if (!error && done + part == size)
			memset(buffer + part, 0, padded_size - size);
	}
	if (error)
		return error;
	error = driver_submit(job->machine.driver, request, opcode, offset / BLOCK_SIZE,
			      padded_size);
	if (!error && !job->first_buffer) {
		job->first_buffer = driver_buffer(job->machine.driver, request, 0);
		job->first_dma = driver_buffer_dma(job->machine.driver, request, 0);
	}
	if (!error)
		error = observe(job);
	return error ? complain(error, "cannot submit a command") : 0;
}

static int finish(struct job *job, unsigned int request, enum block_opcode opcode, uint64_t offset)
{
	size_t size = smaller(job->size - offset, DRIVER_REQUEST_SIZE);
	size_t done, part;
	int error = driver_wait(job->machine.driver, request);

	if (error)
		return complain(error, "the disk did not do what it was told");
	for (done = 0; opcode == BLOCK_READ && done < size && !error; done += part) {
		part = smaller(size - done, DRIVER_BUFFER_SIZE);
		error = file_write(
			&job->copy,
			driver_buffer(job->machine.driver, request, done / DRIVER_BUFFER_SIZE),
			part, offset + done);
	}
	return error;
}

/* Moves the whole file one way, with DRIVER_DEPTH commands in flight. */
static int stream(struct job *job, enum block_opcode opcode)
{
	uint64_t count = (job->size + DRIVER_REQUEST_SIZE - 1) / DRIVER_REQUEST_SIZE;
	uint64_t chunk, finished;
	int error = 0;

	for (chunk = 0; chunk < count + DRIVER_DEPTH && !error; chunk++) {
		unsigned int request = chunk % DRIVER_DEPTH;

		if (chunk >= DRIVER_DEPTH) {
			finished = (chunk - DRIVER_DEPTH) * DRIVER_REQUEST_SIZE;
			error = finish(job, request, opcode, finished);
			if (!error)
				print_progress(opcode == BLOCK_WRITE ? "writing" : "reading",
					       finished,
					       smaller(job->size, finished + DRIVER_REQUEST_SIZE),
					       job->size);
		}
		if (!error && chunk < count)
			error = begin(job, request, opcode, chunk * DRIVER_REQUEST_SIZE);
	}
	return error;
}

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static int move(struct job *job, enum block_opcode opcode)
{
	struct driver_counters before = driver_counters(job->machine.driver);
	double start = seconds_now();
	int error = stream(job, opcode);
	double seconds = seconds_now() - start;
	struct driver_counters now = driver_counters(job->machine.driver);

	if (error)
		return error;
	print_label(opcode == BLOCK_WRITE ? "written to the disk" : "read back");
	print_size(now.bytes - before.bytes);
	printf(" in ");
	print_count(now.commands - before.commands, "command");
	printf(", ");
	print_count(now.segments - before.segments, "segment");
	if (job->size > 0) {
		printf(", ");
		print_size(job->size / seconds);
		printf("/s");
	}
	printf("\n");
	return 0;
}

/* Compares the copy with the file, byte for byte, length included. */
static int compare(const struct job *job)
{
	static uint8_t expected[DRIVER_BUFFER_SIZE], found[DRIVER_BUFFER_SIZE];
	struct stat status;
	uint64_t offset;
	size_t part;
	int error;

	if (fstat(job->copy.fd, &status) != 0)
		return complain(-errno, "cannot look at %s", job->copy.name);
	if ((uint64_t)status.st_size != job->size)
		return complain(-EIO, "the copy has another size");
	for (offset = 0; offset < job->size; offset += part) {
		part = smaller(job->size - offset, DRIVER_BUFFER_SIZE);
		error = file_read(&job->file, expected, part, offset);
		if (!error)
			error = file_read(&job->copy, found, part, offset);
		if (error)
			return error;
		if (memcmp(expected, found, part) != 0)
			return complain(-EIO, "the copy differs from %s near byte %" PRIu64,
					job->file.name, offset);
	}
	print_label("copy");
	printf("identical, byte for byte\n");
	return 0;
}

int copy_to_disk(struct job *job)
{
	return move(job, BLOCK_WRITE);
}

int copy_from_disk(struct job *job)
{
	int error;

	if (ftruncate(job->copy.fd, 0) != 0)
		return complain(-errno, "cannot empty %s", job->copy.name);
	error = move(job, BLOCK_READ);
	return error ? error : compare(job);
}

void copy_print_mappings(const struct job *job)
{
	struct disk_counters counters = disk_counters(job->machine.disk);

	if (job->first_buffer) {
		print_label("the first buffer");
		printf("at %p is 0x%" PRIx64 " to the device\n", job->first_buffer, job->first_dma);
		print_label("live mappings");
		printf("at most %" PRIu64 ", ", job->most.mapping_count);
		print_size(job->most.mapping_bytes);
		printf("\n");
	}
	if (job->first_buffer && job->machine.domain) {
		print_label("table pages");
		printf("then %" PRIu64 ", ", job->most_in_domain.table_count);
		print_size(job->most_in_domain.table_bytes);
		printf("\n");
	}
	print_label("DMA by the device");
	print_count(counters.transfers, "transfer");
	printf(": read ");
	print_size(counters.bytes_read);
	printf(", wrote ");
	print_size(counters.bytes_written);
	printf("\n");
}
