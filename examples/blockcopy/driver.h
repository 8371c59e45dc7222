/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_DRIVER_H
#define BLOCKCOPY_DRIVER_H

/*
 * The driver's side: it gives the disk memory through the DMA mapping calls and in no other way: a
 * request's buffers are mapped as one transfer.
 *
 * The driver has DRIVER_DEPTH requests, each with buffers for DRIVER_REQUEST_SIZE bytes. While a
 * request is submitted its buffers are mapped and belong to the disk; driver_wait() gives them
 * back.
 */

#include "block.h"
#include "disk.h"

#define DRIVER_DEPTH 4
#define DRIVER_BUFFER_SIZE (64 * 1024)
#define DRIVER_REQUEST_SIZE (BLOCK_SEGMENTS_MAX * DRIVER_BUFFER_SIZE)

struct driver;

struct driver_counters {
	uint64_t commands;
	uint64_t segments;
	uint64_t bytes;
};

int driver_create(struct dmacore_device *device, struct disk *disk, struct driver **out_driver);
void driver_destroy(struct driver *driver);

/* One of the BLOCK_SEGMENTS_MAX buffers of a request; each has DRIVER_BUFFER_SIZE bytes. */
void *driver_buffer(struct driver *driver, unsigned int request, unsigned int buffer);

/* Where that buffer is for the device, while the request is submitted as far as there; else 0. */
dmacore_dma_t driver_buffer_dma(struct driver *driver, unsigned int request, unsigned int buffer);

/* Submits the first @size bytes of a request, whole blocks; the request must not be submitted. */
int driver_submit(struct driver *driver, unsigned int request, enum block_opcode opcode,
		  uint64_t block, size_t size);

/*
 * Waits until a request is complete. Returns 0 also if it was not submitted, -EIO if the disk
 * refused it, -EPROTO if the disk answers nonsense, -ETIMEDOUT if it does not answer.
 */
int driver_wait(struct driver *driver, unsigned int request);

struct driver_counters driver_counters(const struct driver *driver);

#endif /* BLOCKCOPY_DRIVER_H */
