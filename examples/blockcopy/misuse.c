/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "misuse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE_SIZE 4096

static const char secret[] = "what no device was ever shown";

/* A page of its own, because an IOMMU opens whole pages. */
static _Alignas(PAGE_SIZE) char page[PAGE_SIZE];
static const char page_text[] = "bytes that the device may read and not write";

void reports_add(const struct dmacore_report *report, void *opaque)
{
	struct reports *reports = opaque;

	pthread_mutex_lock(&reports->lock);
	reports->count++;
	snprintf(reports->text, sizeof(reports->text), "%s: %s", report->object, report->text);
	pthread_mutex_unlock(&reports->lock);
}

unsigned int reports_read(struct reports *reports, char text[REPORT_SIZE])
{
	unsigned int count;

	pthread_mutex_lock(&reports->lock);
	count = reports->count;
	if (text)
		memcpy(text, reports->text, REPORT_SIZE);
	pthread_mutex_unlock(&reports->lock);
	return count;
}

static const char *reason_in_words(uint32_t reason)
{
	switch (reason) {
	case DMACORE_FAULT_NOT_MAPPED:
		return "nothing is mapped there";
	case DMACORE_FAULT_DENIED:
		return "it is mapped, but not for that";
	case DMACORE_FAULT_NO_MEMORY:
		return "there is no memory";
	case DMACORE_FAULT_BLOCKED:
		return "the device is attached to no domain";
	}
	return "for a reason this program does not know";
}

static bool print_attempt(const char *what, bool is_stopped, const char *stopped)
{
	printf("  %-54s %s\n", what, is_stopped ? stopped : "NOT STOPPED");
	return is_stopped;
}

/*
 * One access by the rogue device. It is stopped if the device got an error, exactly this access
 * was recorded as a fault for exactly this reason, and no byte moved.
 */
static bool attempt_access(struct dmacore_device *device, struct disk *disk, const char *what,
			   uint32_t access, dmacore_dma_t dma, uint32_t reason)
{
	static const char untouched[sizeof(secret)] = "";
	char buffer[sizeof(secret)] = "";
	struct dmacore_fault faults[4];
	size_t count = 0;
	bool is_stopped;
	int error, take_error;

	if (access == DMACORE_ACCESS_READ)
		error = disk_rogue_read(disk, dma, buffer, sizeof(buffer));
	else
		error = disk_rogue_write(disk, dma, secret, sizeof(secret));
	take_error = dmacore_fault_take(device, faults, 4, &count, NULL);
	is_stopped = error && !take_error && count == 1 && faults[0].first == dma &&
		     faults[0].last == dma + sizeof(secret) - 1 && faults[0].access == access &&
		     faults[0].reason == reason && !memcmp(buffer, untouched, sizeof(buffer));

	is_stopped = print_attempt(what, is_stopped, "blocked");
	if (!take_error && count > 0)
		printf("    fault %" PRIu64 ": %s of 0x%" PRIx64 " to 0x%" PRIx64 ": %s\n",
		       faults[0].sequence,
		       faults[0].access == DMACORE_ACCESS_READ ? "read" : "write", faults[0].first,
		       faults[0].last, reason_in_words(faults[0].reason));
	return is_stopped;
}

int misuse_by_device(struct dmacore_device *device, struct disk *disk)
{
	dmacore_dma_t dma;
	bool held = true;
	int error;

	strcpy(page, page_text);
	held &= attempt_access(device, disk, "It reads a secret by its physical address.",
			       DMACORE_ACCESS_READ, (uintptr_t)secret, DMACORE_FAULT_NOT_MAPPED);

	error = dmacore_map_single(device, page, sizeof(page), DMACORE_TO_DEVICE, 0, &dma);
	if (error)
		return -1;
	held &= attempt_access(device, disk, "It writes to a buffer that it may only read.",
			       DMACORE_ACCESS_WRITE, dma, DMACORE_FAULT_DENIED);

	/* The buffer is the device's while it is mapped: to look at it, borrow it. */
	error = dmacore_sync_for_cpu(device, dma, sizeof(page), DMACORE_TO_DEVICE);
	held &= !error && !strcmp(page, page_text);
	error = dmacore_sync_for_device(device, dma, sizeof(page), DMACORE_TO_DEVICE);
	held &= !error;

	error = dmacore_unmap(device, dma, sizeof(page), DMACORE_TO_DEVICE, 0);
	if (error)
		return -1;
	held &= attempt_access(device, disk,
			       "It reads the buffer after the driver has unmapped it.",
			       DMACORE_ACCESS_READ, dma, DMACORE_FAULT_NOT_MAPPED);
	held &= attempt_access(device, disk, "It writes to it.", DMACORE_ACCESS_WRITE, dma,
			       DMACORE_FAULT_NOT_MAPPED);
	held &= !strcmp(page, page_text);
	if (held)
		printf("  No byte has moved.\n");
	return held ? 4 : -1;
}

/* One wrong unmap. It is stopped if it returns an error and is reported once. */
static bool attempt_unmap(struct dmacore_device *device, struct reports *reports, const char *what,
			  dmacore_dma_t dma, uint64_t size, uint32_t direction)
{
	char text[REPORT_SIZE];
	unsigned int count = reports_read(reports, NULL);
	int error = dmacore_unmap(device, dma, size, direction, 0);
	bool is_reported = reports_read(reports, text) == count + 1;
	bool is_stopped = print_attempt(what, error && is_reported, "refused");

	if (is_reported)
		printf("    %s\n", text);
	return is_stopped;
}

int misuse_by_driver(struct dmacore_device *device, struct reports *reports)
{
	dmacore_dma_t dma;
	bool held = true;
	int error;

	error = dmacore_map_single(device, page, sizeof(page), DMACORE_TO_DEVICE, 0, &dma);
	if (error)
		return -1;
	held &= attempt_unmap(device, reports, "It unmaps half of a buffer.", dma, sizeof(page) / 2,
			      DMACORE_TO_DEVICE);
	held &= attempt_unmap(device, reports, "It unmaps it with the wrong direction.", dma,
			      sizeof(page), DMACORE_FROM_DEVICE);

	/* Nothing of that has changed anything: the right call still works. */
	error = dmacore_unmap(device, dma, sizeof(page), DMACORE_TO_DEVICE, 0);
	held &= !error;
	held &= attempt_unmap(device, reports, "It unmaps it a second time.", dma, sizeof(page),
			      DMACORE_TO_DEVICE);
	return held ? 3 : -1;
}
