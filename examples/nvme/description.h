/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_DESCRIPTION_H
#define NVME_DESCRIPTION_H

/*
 * What the two ways to describe a transfer have in common: pages for lists, and the transfer's segments
 * one after another.
 */

#include <dmacore.h>

#include "nvme.h"

/* As many as any transfer of NVME_PAGES_MAX pages needs; prp.c and sgl.c check it. */
#define LIST_PAGES_MAX 3

/* Pages that driver and controller share. A command that is submitted uses them all. */
struct list_pages {
	struct dmacore_device *device;
	struct {
		void *cpu;
		dmacore_dma_t dma;
	} pages[LIST_PAGES_MAX];
};

int list_pages_create(struct dmacore_device *device, struct list_pages *lists);
void list_pages_destroy(struct list_pages *lists);

/* How a transfer was described. */
struct description {
	enum nvme_psdt psdt;
	unsigned int entry_count; /* PRPs, or data block descriptors */
	unsigned int page_count; /* pages that lists took */
};

/* Goes through the segments of a transfer. */
struct segment_reader {
	struct dmacore_transfer_iterator iterator;
	struct dmacore_segment segments[16];
	size_t index;
	size_t count;
};

int segment_reader_start(struct segment_reader *reader, struct dmacore_device *device,
			 const struct dmacore_transfer_request *request,
			 const struct dmacore_transfer *transfer);

/* Gets the next segment; one of size 0 behind the last. */
int segment_reader_next(struct segment_reader *reader, struct dmacore_segment *segment);

#endif /* NVME_DESCRIPTION_H */
