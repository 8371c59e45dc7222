/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_DOMAIN_H
#define DMACORE_DOMAIN_H

/**
 * DOC: Domain
 *
 * A domain is one address space of an IOMMU; a device behind the IOMMU uses the domain that it is
 * attached to, and is blocked while it is attached to none.
 *
 *	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
 *	struct dmacore_domain *domain;
 *
 *	options.type = DMACORE_DOMAIN_DMA;
 *	error = dmacore_domain_create(iommu, &options, &domain);
 *	error = dmacore_domain_attach(domain, device);
 *
 * In a DMA domain the mapping calls (mapping.h, coherent.h) allocate the addresses and fill in the
 * page table. In an identity domain every device address is the physical address.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_domain;
struct dmacore_iommu;

enum dmacore_domain_type {
	DMACORE_DOMAIN_IDENTITY = 1,
	DMACORE_DOMAIN_DMA = 2,
};

/**
 * struct dmacore_domain_options - how a domain is made
 * @struct_size: sizeof(struct dmacore_domain_options)
 * @type: one of enum dmacore_domain_type
 * @flags: zero
 * @first: DMACORE_DOMAIN_DMA: lowest address to give out, a multiple of 4096; 0: 4096, so that no
 *   mapping starts at address 0
 * @last: DMACORE_DOMAIN_DMA: highest address to give out, inclusive, one less than a multiple of
 *   4096; 0: the highest that the page table can translate
 */
struct dmacore_domain_options {
	size_t struct_size;
	uint32_t type;
	uint32_t flags;
	dmacore_iova_t first;
	dmacore_iova_t last;
};

#define DMACORE_DOMAIN_OPTIONS_INIT \
	{ sizeof(struct dmacore_domain_options), DMACORE_DOMAIN_DMA, 0, 0, 0 }

/**
 * struct dmacore_domain_statistics - what a domain holds
 * @struct_size: set to sizeof(struct dmacore_domain_statistics) before the call
 * @device_count: devices attached
 * @mapping_count: IOVA ranges in use by mappings
 * @iova_bytes: bytes in them
 * @mapped_bytes: bytes that the page table translates
 * @table_count: table pages in use
 * @table_bytes: bytes in them
 *
 * All but @device_count are 0 in an identity domain.
 */
struct dmacore_domain_statistics {
	size_t struct_size;
	uint64_t device_count;
	uint64_t mapping_count;
	uint64_t iova_bytes;
	uint64_t mapped_bytes;
	uint64_t table_count;
	uint64_t table_bytes;
};

/**
 * dmacore_domain_create() - make a domain of an IOMMU
 * @iommu: the IOMMU
 * @options: how; NULL: a DMA domain over all that the page table can translate
 * @out_domain: receives the domain, or NULL on failure
 *
 * Context: any thread; takes no lock; calls the IOMMU's table allocator.
 * Ownership: the caller gives the domain back with dmacore_domain_destroy(); it holds on to the
 *   IOMMU.
 * Return: 0, or
 *   -EINVAL  @iommu or @out_domain is NULL, the type is unknown, a flag is set, @first or @last is
 *            not aligned, they are the wrong way round or given for an identity domain, or the
 *            structure is too short. Never succeeds if retried.
 *   -ERANGE  @last is above what the page table can translate. Never.
 *   -EOPNOTSUPP  the IOMMU's page tables have a granule of more than 4096 bytes. Never.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_domain_create(struct dmacore_iommu *iommu, const struct dmacore_domain_options *options,
			  struct dmacore_domain **out_domain);

/**
 * dmacore_domain_destroy() - give a domain back
 * @domain: the domain, or NULL
 *
 * Detach its devices first; see the lifetime rule in system.h: a device that is attached holds on
 * to its domain.
 *
 * Context: any thread; takes no lock; calls the table allocator, and may call the report callback.
 * Ownership: @domain may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_domain_destroy(struct dmacore_domain *domain);

/**
 * dmacore_domain_attach() - let a device use a domain
 * @domain: the domain
 * @device: a device behind the same IOMMU, attached to nothing
 *
 * Context: any thread; locked (device mappings, rank 3); calls nothing back.
 * Ownership: the device holds on to the domain until it is detached or destroyed.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the device is not behind the domain's IOMMU. Never succeeds if
 *            retried.
 *   -EBUSY   the device is attached to a domain, this one or another. Succeeds once it is
 *            detached.
 */
DMACORE_MUST_CHECK
int dmacore_domain_attach(struct dmacore_domain *domain, struct dmacore_device *device);

/**
 * dmacore_domain_detach() - end a device's use of a domain
 * @domain: the domain that the device is attached to
 * @device: the device
 *
 * When the call returns the device is blocked and no access of it is in flight, but inside the
 * callbacks of memory regions. Direct mappings that no record is kept of (see
 * DMACORE_DEVICE_TRACK_DIRECT) end without a word.
 *
 * Context: any thread; locked (device mappings, rank 3); waits for accesses in flight to end; calls
 *   nothing back.
 * Ownership: the device lets go of the domain.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the device is not attached to this domain. Never succeeds if
 *            retried.
 *   -EBUSY   the device has live mappings, or a mapping call of it is running. Succeeds once they
 *            are unmapped.
 */
DMACORE_MUST_CHECK
int dmacore_domain_detach(struct dmacore_domain *domain, struct dmacore_device *device);

/**
 * dmacore_domain_statistics() - read what a domain holds
 * @domain: the domain
 * @out_statistics: receives the numbers; @out_statistics->struct_size says how many of them there
 *   is room for
 *
 * Numbers read beside mapping calls need not be of one moment.
 *
 * Context: any thread; locked (IOVA cache, rank 5; IOVA store, rank 6); calls nothing
 *   back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 */
DMACORE_MUST_CHECK
int dmacore_domain_statistics(struct dmacore_domain *domain,
			      struct dmacore_domain_statistics *out_statistics);

DMACORE_END_DECLS

#endif /* DMACORE_DOMAIN_H */
