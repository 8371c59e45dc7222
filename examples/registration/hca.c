/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "hca.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Both threads use the table: one entry is one word, and each of them is whole. */
struct hca {
	struct dmacore_view *view;
	unsigned int page_count;
	unsigned int leave_out;
	pthread_t thread;
	atomic_bool is_stopping;
	atomic_uint_least64_t rounds;
	uint64_t failures; /* the thread's, while there is one */
	_Atomic(dmacore_dma_t) pages[];
};

void hca_set_page(struct hca *hca, unsigned int page, dmacore_dma_t dma)
{
	atomic_store(&hca->pages[page], dma);
}

dmacore_dma_t hca_page(struct hca *hca, unsigned int page)
{
	return atomic_load(&hca->pages[page]);
}

int hca_read(struct hca *hca, uint64_t offset, void *buffer, size_t size)
{
	dmacore_dma_t page = hca_page(hca, offset / HCA_PAGE_SIZE);

	return dmacore_view_read(hca->view, page + offset % HCA_PAGE_SIZE, buffer, size);
}

int hca_write(struct hca *hca, uint64_t offset, const void *buffer, size_t size)
{
	dmacore_dma_t page = hca_page(hca, offset / HCA_PAGE_SIZE);

	return dmacore_view_write(hca->view, page + offset % HCA_PAGE_SIZE, buffer, size);
}

int hca_read_at(struct hca *hca, dmacore_dma_t dma, void *buffer, size_t size)
{
	return dmacore_view_read(hca->view, dma, buffer, size);
}

static void *run(void *opaque)
{
	struct hca *hca = opaque;

	for (uint64_t round = 1; !atomic_load(&hca->is_stopping); round++) {
		for (unsigned int i = 0; i < hca->page_count; i++) {
			uint64_t offset = (uint64_t)i * HCA_PAGE_SIZE;
			uint64_t found = 0;

			if (i % hca->leave_out == 0)
				continue;
			if (hca_write(hca, offset, &round, sizeof(round)) ||
			    hca_read(hca, offset, &found, sizeof(found)) || found != round)
				hca->failures++;
		}
		atomic_store(&hca->rounds, round);
	}
	return NULL;
}

int hca_start(struct hca *hca, unsigned int leave_out)
{
	hca->leave_out = leave_out;
	hca->failures = 0;
	atomic_store(&hca->rounds, 0);
	atomic_store(&hca->is_stopping, false);
	return -pthread_create(&hca->thread, NULL, run, hca);
}

uint64_t hca_rounds(struct hca *hca)
{
	return atomic_load(&hca->rounds);
}

void hca_stop(struct hca *hca, uint64_t *out_rounds, uint64_t *out_failures)
{
	atomic_store(&hca->is_stopping, true);
	pthread_join(hca->thread, NULL);
	*out_rounds = hca_rounds(hca);
	*out_failures = hca->failures;
}

int hca_create(struct dmacore_device *device, unsigned int page_count, struct hca **out_hca)
{
	struct hca *hca = calloc(1, sizeof(*hca) + page_count * sizeof(hca->pages[0]));
	int error;

	if (!hca)
		return -ENOMEM;
	hca->page_count = page_count;
	error = dmacore_view_create(device, &hca->view);
	if (error) {
		free(hca);
		return error;
	}
	*out_hca = hca;
	return 0;
}

void hca_destroy(struct hca *hca)
{
	if (!hca)
		return;
	dmacore_view_destroy(hca->view);
	free(hca);
}
