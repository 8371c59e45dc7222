/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_DISK_H
#define BLOCKCOPY_DISK_H

/*
 * The device's side: an emulated disk with a thread of its own. It reaches the driver's memory
 * through a view and in no other way.
 */

#include <dmacore.h>

struct disk;

/* What the driver writes into the disk's registers before it starts the disk. */
struct disk_registers {
	dmacore_dma_t submissions;
	dmacore_dma_t completions;
	uint32_t entry_count;
};

/* What the disk has done by DMA, queues and segment lists included. */
struct disk_counters {
	uint64_t transfers;
	uint64_t bytes_read;
	uint64_t bytes_written;
};

/* Makes a disk of @block_count blocks, at least 1, that keeps its data in the file @fd. */
int disk_create(struct dmacore_device *device, int fd, uint64_t block_count,
		struct disk **out_disk);
void disk_destroy(struct disk *disk);

int disk_start(struct disk *disk, const struct disk_registers *registers);

/* Once it returns, the disk makes no access until it is started again. */
void disk_stop(struct disk *disk);

/* Tells the disk how many commands have ever been put into its queue. */
void disk_ring_doorbell(struct disk *disk, uint32_t tail);

/*
 * Waits until the disk has posted completions, and says how many. Returns -ETIMEDOUT if there was
 * none within @seconds.
 */
int disk_wait_for_interrupt(struct disk *disk, unsigned int seconds, uint32_t *out_count);

struct disk_counters disk_counters(struct disk *disk);

/* The disk gone rogue: it accesses an address that no command gave it. */
int disk_rogue_read(struct disk *disk, dmacore_dma_t dma, void *buffer, size_t size);
int disk_rogue_write(struct disk *disk, dmacore_dma_t dma, const void *buffer, size_t size);

#endif /* BLOCKCOPY_DISK_H */
