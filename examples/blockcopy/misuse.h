/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_MISUSE_H
#define BLOCKCOPY_MISUSE_H

#include "disk.h"

#include <pthread.h>

/* The longest text, its null byte included. */
#define REPORT_SIZE 320

/* What the library has reported: the last text, and how many there were. */
struct reports {
	pthread_mutex_t lock;
	unsigned int count;
	char text[REPORT_SIZE];
};

/* A dmacore_report_fn whose opaque is a struct reports. */
void reports_add(const struct dmacore_report *report, void *opaque);

/* Returns how many there were. Unless it is NULL, @text receives the last. */
unsigned int reports_read(struct reports *reports, char text[REPORT_SIZE]);

/*
 * The device, behind an IOMMU, does what it may not; then its driver does. Each attempt is printed.
 * Both return how many attempts there were, or -1 if one of them got through.
 */
int misuse_by_device(struct dmacore_device *device, struct disk *disk);
int misuse_by_driver(struct dmacore_device *device, struct reports *reports);

#endif /* BLOCKCOPY_MISUSE_H */
