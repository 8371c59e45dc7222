/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_MACHINE_H
#define NVME_MACHINE_H

/* A machine with memory below and above 4 GiB, an IOMMU and a bounce pool. */

#include <dmacore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

#define BANK_COUNT 2
#define BANK_LOW UINT64_C(0x80000000)
#define BANK_HIGH UINT64_C(0x100000000)
#define BANK_SIZE (UINT64_C(12) << 20)
/* Behind the low bank, for what is allocated: pages of lists and queues, and copies. */
#define ALLOCATED_SIZE (UINT64_C(4) << 20)

#define NAMESPACE_SIZE ((uint64_t)(NVME_PAGES_MAX + 4) * NVME_PAGE_SIZE)

/* For what must not fail if the example is to show anything. */
#define MUST(call)                                                                       \
	do {                                                                             \
		int must_error = (call);                                                 \
		if (must_error) {                                                        \
			fprintf(stderr, "nvme: %s: %s\n", #call, strerror(-must_error)); \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

/* Bytes, and what they must be. */
struct bytes {
	uint8_t *now;
	uint8_t *expected;
	uint64_t size;
};

struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_bounce_pool *pool;
	struct bytes banks[BANK_COUNT];
	struct bytes namespace;
	uint64_t allocated_size;
};

/* A device, and what is at its two sides. */
struct setup {
	struct machine *machine;
	struct dmacore_domain *domain; /* NULL: there is no IOMMU in front of it */
	struct dmacore_device *device;
	struct controller *controller;
	struct driver *driver;
};

void machine_create(struct machine *machine);
void machine_destroy(struct machine *machine);

/* What is at @phys, and what must be there. */
uint8_t *machine_at(struct machine *machine, dmacore_phys_t phys);
uint8_t *machine_expected_at(struct machine *machine, dmacore_phys_t phys);

/* Whether all bytes of memory and of the namespace are what they must be. */
bool machine_is_as_expected(const struct machine *machine);

void setup_create(struct setup *setup, struct machine *machine, bool has_iommu, unsigned int bits,
		  uint32_t device_flags);

/* Returns whether the driver left nothing mapped and the controller was refused nothing. */
bool setup_destroy(struct setup *setup);

#endif /* NVME_MACHINE_H */
