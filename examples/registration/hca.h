/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef REGISTRATION_HCA_H
#define REGISTRATION_HCA_H

/*
 * An emulated adapter for remote memory: it has a translation table with the address of each page of a
 * registered region, and accesses the region by offset, as a peer on the network asks it to. It reaches memory
 * through its view and in no other way.
 */

#include <dmacore.h>

#define HCA_PAGE_SIZE 4096

struct hca;

int hca_create(struct dmacore_device *device, unsigned int page_count, struct hca **out_hca);
void hca_destroy(struct hca *hca);

/* Writes an entry of the translation table, as a command of the driver does. */
void hca_set_page(struct hca *hca, unsigned int page, dmacore_dma_t dma);
dmacore_dma_t hca_page(struct hca *hca, unsigned int page);

/* What a remote peer does: 0, or what the access was refused with. The bytes lie in one page. */
int hca_read(struct hca *hca, uint64_t offset, void *buffer, size_t size);
int hca_write(struct hca *hca, uint64_t offset, const void *buffer, size_t size);

/* An access by the address alone, for which the table is not asked. */
int hca_read_at(struct hca *hca, dmacore_dma_t dma, void *buffer, size_t size);

/*
 * Starts a thread that writes a count into each page whose number is no multiple of @leave_out, reads it back,
 * and comes again with the next count.
 */
int hca_start(struct hca *hca, unsigned int leave_out);

/* How often it has been around so far. */
uint64_t hca_rounds(struct hca *hca);

/* Ends the thread. Receives how often it was around, and how many accesses were refused or read wrong bytes. */
void hca_stop(struct hca *hca, uint64_t *out_rounds, uint64_t *out_failures);

#endif /* REGISTRATION_HCA_H */
