/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_BLOCK_H
#define BLOCKCOPY_BLOCK_H

/*
 * The disk's data sheet: all that the disk and its driver agree on.
 *
 * The driver puts a command into the submission queue, says so by the doorbell, and finds the
 * answer in the completion queue after an interrupt. Both queues are rings of the same number of
 * entries in memory that the two share. A command names a list of segments, in shared memory as
 * well, that say where in the driver's memory the data is.
 *
 * The disk marks each completion with a phase: 1 on its first lap around the ring, 0 on the second,
 * and so on. Fresh memory is zero, so an entry of the wrong phase is one that was not written yet.
 *
 * Every address here is one that the device was told by the DMA mapping calls.
 */

#include <stdint.h>

#define BLOCK_SIZE 512
#define BLOCK_SEGMENTS_MAX 16

enum block_opcode {
	BLOCK_READ = 1, /* from the disk to memory */
	BLOCK_WRITE = 2, /* from memory to the disk */
};

enum block_status {
	BLOCK_DONE = 0,
	BLOCK_BAD_COMMAND = 1, /* no such opcode, or no list of a length that is allowed */
	BLOCK_OUT_OF_RANGE = 2, /* the data does not fit between that block and the disk's end */
	BLOCK_DMA_ERROR = 3, /* the list or the data could not be reached */
};

struct block_segment {
	uint64_t dma;
	uint64_t size;
};

struct block_command {
	uint16_t id; /* the driver's; comes back in the completion */
	uint16_t opcode;
	uint32_t segment_count;
	uint64_t segments; /* address of that many struct block_segment */
	uint64_t block; /* where on the disk the data starts */
};

struct block_completion {
	uint16_t id;
	uint16_t status;
	uint32_t phase;
};

#endif /* BLOCKCOPY_BLOCK_H */
