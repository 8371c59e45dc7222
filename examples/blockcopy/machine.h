/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_MACHINE_H
#define BLOCKCOPY_MACHINE_H

#include "driver.h"

/* A machine with one disk. */
struct machine {
	struct dmacore_iommu *iommu; /* NULL: the disk is mapped directly */
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct disk *disk;
	struct driver *driver;
};

/* Builds a machine whose disk has room for @size bytes. Says why if it cannot. */
int machine_create(struct machine *machine, struct dmacore_system *system, bool has_iommu,
		   uint64_t size);

/* Takes away whatever of the machine is there. */
void machine_destroy(struct machine *machine);

/*
 * Takes the driver away and checks what it left behind: nothing may be mapped, and no access may
 * have been refused that nobody has looked at.
 */
int machine_check_nothing_left(struct machine *machine);

#endif /* BLOCKCOPY_MACHINE_H */
