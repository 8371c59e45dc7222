/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_COPY_H
#define BLOCKCOPY_COPY_H

#include "file.h"
#include "machine.h"

/* A file on its way through the disk and back, and what was seen on the way. */
struct job {
	struct file file;
	struct file copy;
	uint64_t size;
	struct machine machine;

	const void *first_buffer;
	dmacore_dma_t first_dma;
	struct dmacore_device_statistics most; /* when the most was mapped */
	struct dmacore_domain_statistics most_in_domain;
};

/* Both print what they did, and why they could not. */
int copy_to_disk(struct job *job);

/* Empties the copy, reads it from the disk and compares it with the file, byte for byte. */
int copy_from_disk(struct job *job);

void copy_print_mappings(const struct job *job);

#endif /* BLOCKCOPY_COPY_H */
