/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef PATHS_MACHINE_H
#define PATHS_MACHINE_H

/*
 * The machine: memory below and above 4 GiB, an adapter with memory of its own, an IOMMU, a bounce
 * pool and two bridges.
 */

#include <dmacore.h>
#include <dmacore/sys/mapping_ops.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096
#define BANK ((uint64_t)64 * PAGE)

/* Where the banks of memory are. That of the adapter is a peer to other devices. */
#define LOW UINT64_C(0x80000000)
#define HIGH UINT64_C(0x100000000)
#define ADAPTER UINT64_C(0xc0000000)
#define BANKS 3

/* Where a device is. The adapter is below the bridge of SAME. */
enum place {
	/* On a bus of its own. */
	ALONE,
	SAME,
	/* Below another bridge: the way to the adapter leads through the host bridge. */
	ACROSS,
	PLACES,
};

struct machine {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_bounce_pool *pool;
	/* By place: that of ALONE is NULL. */
	struct dmacore_bridge *bridges[PLACES];
	struct dmacore_device *adapter;
	struct dmacore_peer *peer;
	uint8_t *bytes[BANKS];
	/* How much of the low memory the library has taken for itself, from its end. */
	uint64_t taken;
	/* Where the unusual bridge has its next window. */
	dmacore_dma_t next_window;
	/* How often caches were maintained. */
	unsigned long maintained;
};

extern const dmacore_phys_t machine_banks[BANKS];

/*
 * The mapping functions of an unusual bridge, and of one that low memory bypasses. Their opaque
 * pointer is the machine.
 */
extern const struct dmacore_mapping_ops machine_bridge, machine_bypassed_bridge;

/* For calls that do not fail here. */
#define MUST(call)                                                                        \
	do {                                                                              \
		int must_error = (call);                                                  \
		if (must_error) {                                                         \
			fprintf(stderr, "paths: %s: %s\n", #call, strerror(-must_error)); \
			exit(1);                                                          \
		}                                                                         \
	} while (0)

void machine_start(struct machine *machine);
void machine_stop(struct machine *machine);

#endif /* PATHS_MACHINE_H */
