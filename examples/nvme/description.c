/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "description.h"

int list_pages_create(struct dmacore_device *device, struct list_pages *lists)
{
	int error = 0;

	*lists = (struct list_pages){ .device = device };
	/* Each by itself: a list is chained page by page, wherever those are. */
	for (unsigned int i = 0; i < LIST_PAGES_MAX && !error; i++)
		error = dmacore_alloc_coherent(device, NVME_PAGE_SIZE, &lists->pages[i].cpu,
					       &lists->pages[i].dma);
	if (error)
		list_pages_destroy(lists);
	return error;
}

void list_pages_destroy(struct list_pages *lists)
{
	for (unsigned int i = 0; i < LIST_PAGES_MAX; i++) {
		int error = 0;

		if (lists->pages[i].cpu)
			error = dmacore_free_coherent(lists->device, NVME_PAGE_SIZE,
						      lists->pages[i].cpu, lists->pages[i].dma);
		(void)error; /* A live allocation is freed; anything else would be reported. */
		lists->pages[i].cpu = NULL;
	}
}

int segment_reader_start(struct segment_reader *reader, struct dmacore_device *device,
			 const struct dmacore_transfer_request *request,
			 const struct dmacore_transfer *transfer)
{
	reader->index = reader->count = 0;
	return dmacore_transfer_begin(device, request, transfer, 0, &reader->iterator);
}

int segment_reader_next(struct segment_reader *reader, struct dmacore_segment *segment)
{
	if (reader->index == reader->count) {
		int error = dmacore_transfer_next(
			&reader->iterator, reader->segments,
			sizeof(reader->segments) / sizeof(reader->segments[0]), &reader->count);

		if (error)
			return error;
		reader->index = 0;
	}
	*segment = (struct dmacore_segment){ 0, 0 };
	if (reader->index < reader->count)
		*segment = reader->segments[reader->index++];
	return 0;
}
