/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_FAULT_H
#define DMACORE_FAULT_H

/**
 * DOC: Faults
 *
 * An access of a device that is refused becomes a fault: it is recorded in a ring of the device, and
 * handed to the callback of the domain that refused it (domain.h), if the device is attached to one, and
 * then to the device's. The ring keeps the oldest faults, which tell how the trouble began, and counts
 * those it has no room for. A device that can wait for what it lacks asks before it faults
 * (page_request.h).
 *
 *	struct dmacore_fault faults[16];
 *	size_t count;
 *	uint64_t lost;
 *
 *	error = dmacore_fault_take(device, faults, 16, &count, &lost);
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_domain;

enum dmacore_fault_reason {
	/* Nothing is mapped there (-ENOENT). */
	DMACORE_FAULT_NOT_MAPPED = 1,
	/* Something is mapped there, and this access to it is not permitted (-EACCES). */
	DMACORE_FAULT_DENIED = 2,
	/* It leads to a physical address where there is no memory (-EFAULT). */
	DMACORE_FAULT_NO_MEMORY = 3,
	/* The device, or the PASID, is attached to no domain or to a blocked one (-EPERM). */
	DMACORE_FAULT_BLOCKED = 4,
	/* In a nested domain: a word of the guest's tables is wrong, or cannot be read (-EFAULT). */
	DMACORE_FAULT_BAD_TABLE = 5,
};

/**
 * struct dmacore_fault - an access that was refused
 * @first: first address of the access that the reason holds for
 * @last: last address in a row that it holds for, inclusive; of a long row of many pages, one that
 *   it holds for up to there
 * @sequence: how many faults of the device came before
 * @time: what dmacore_system_tick() was told last (system.h); 0 before the first
 * @access: what the device wanted, bits of enum dmacore_access
 * @reason: one of enum dmacore_fault_reason
 * @pasid: the PASID of the request; 0: none
 * @stage: in a nested domain (domain.h), who refused: 1: the guest's tables; 2: the parent, be it where
 *   they lead or, with DMACORE_FAULT_BAD_TABLE, where their words lie. 0: nobody but what lies behind
 *   both, and in other domains
 *
 * Of a nested domain, a fault of stage 1 is the guest's to know. What its tables say in detail,
 * dmacore_pagetable_walk() (pagetable.h) tells who needs it.
 */
struct dmacore_fault {
	dmacore_dma_t first;
	dmacore_dma_t last;
	uint64_t sequence;
	uint64_t time;
	uint32_t access;
	uint32_t reason;
	uint32_t pasid;
	uint32_t stage;
};

/**
 * typedef dmacore_fault_fn - receives the faults of a device
 *
 * Called on the thread whose access faulted, after the fault was recorded, with no lock held. It
 * may call any function of the library but the destroy functions of the device and of the view.
 */
typedef void (*dmacore_fault_fn)(struct dmacore_device *device, const struct dmacore_fault *fault,
				 void *opaque);

/**
 * typedef dmacore_domain_fault_fn - receives the faults of the devices in a domain
 * @domain: the domain, which was given back already if only its devices hold it
 * @device: the device whose access the domain refused
 * @fault: as the device records it
 * @opaque: as in struct dmacore_domain_options
 *
 * Called before the device's callback, in the same way, and for a device that leaves the domain
 * meanwhile. It may call any function of the library but the destroy functions of the device and of the
 * view.
 */
typedef void (*dmacore_domain_fault_fn)(struct dmacore_domain *domain,
					struct dmacore_device *device,
					const struct dmacore_fault *fault, void *opaque);

/**
 * dmacore_fault_take() - take the recorded faults of a device, oldest first
 * @device: the device
 * @faults: receives them
 * @count_max: how many there is room for; with 0, @faults may be NULL
 * @out_count: receives how many were taken; they are out of the ring
 * @out_lost: receives how many faults found the ring full since the device was made; may be NULL
 *
 * Context: any thread; locked (fault ring, rank 10); calls nothing back.
 * Ownership: the faults are copies.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL that may not be. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_fault_take(struct dmacore_device *device, struct dmacore_fault *faults,
		       size_t count_max, size_t *out_count, uint64_t *out_lost);

DMACORE_END_DECLS

#endif /* DMACORE_FAULT_H */
