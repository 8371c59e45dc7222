/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_IOMMU_H
#define DMACORE_IOMMU_H

/**
 * DOC: IOMMU
 *
 * An IOMMU stands between devices and memory: a device behind it reaches through its view what the page
 * table of its domain says, and nothing else. It is software, unless a backend (sys/backend.h) tells
 * hardware the same.
 *
 *	struct dmacore_iommu *iommu;
 *
 *	error = dmacore_iommu_create(system, NULL, &iommu);
 *
 * An IOMMU may be known of before it is there, as firmware names it before its driver has started it.
 * It is announced then, devices are made that are behind it, and what needs it answers -EAGAIN until it
 * starts:
 *
 *	error = dmacore_iommu_announce(system, &iommu);
 *	... devices are made, and drivers bound to them: those binds are deferred (driver.h) ...
 *	error = dmacore_iommu_start(iommu, NULL);
 *
 * What its domains can do follows from the format of their page tables:
 *
 *	struct dmacore_iommu_capabilities capabilities;
 *
 *	capabilities.struct_size = sizeof(capabilities);
 *	error = dmacore_iommu_capabilities(iommu, &capabilities);
 *
 * Stability: may change before 1.0.
 */

#include "pagetable.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_backend_ops;
struct dmacore_iommu;
struct dmacore_system;

/**
 * struct dmacore_iommu_options - how an IOMMU is made
 * @struct_size: sizeof(struct dmacore_iommu_options)
 * @flags: zero
 * @reserved: zero
 * @pagetable: the page tables of its domains; copied; NULL: VT-d second stage, 4 levels, on the
 *   heap
 * @backend: what must be told of changes (sys/backend.h); copied; NULL: nothing, it is software
 * @backend_opaque: passed to it
 */
struct dmacore_iommu_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	const struct dmacore_pagetable_options *pagetable;
	const struct dmacore_backend_ops *backend;
	void *backend_opaque;
};

#define DMACORE_IOMMU_OPTIONS_INIT \
	{ sizeof(struct dmacore_iommu_options), 0, 0, NULL, NULL, NULL }

enum dmacore_iommu_capability_flags {
	/* Domains can note what devices write: dmacore_domain_set_dirty_tracking(). */
	DMACORE_IOMMU_DIRTY_TRACKING = 1,
	/* DMACORE_DOMAIN_DMA can be made. */
	DMACORE_IOMMU_DMA_DOMAINS = 2,
	/* Input addresses are signed: as many as up to last_input end at 2^64 - 1. */
	DMACORE_IOMMU_SIGNED_INPUT = 4,
	/* Unmaps can be lazy: DMACORE_DOMAIN_DMA_LAZY. */
	DMACORE_IOMMU_DEFERRED_FLUSH = 8,
	/* Domains can be attached to PASIDs: dmacore_device_attach_pasid(). */
	DMACORE_IOMMU_PASIDS = 16,
	/* No request of a device gets past the caches of the processors, whatever it says. */
	DMACORE_IOMMU_ENFORCED_COHERENCY = 32,
};

/**
 * struct dmacore_iommu_capabilities - what the domains of an IOMMU can do
 * @struct_size: set to sizeof(struct dmacore_iommu_capabilities) before the call
 * @leaf_sizes: the sizes of leaves, each a bit of its own: 4096 is bit 12
 * @granule: the smallest of them, of which what is mapped is a multiple
 * @last_input: highest address that devices can be given, of those that are not negative
 * @last_output: highest physical address that they can reach
 * @access: what they can be permitted, bits of enum dmacore_access; a format may have some beside
 *   others alone (pagetable.h)
 * @flags: bits of enum dmacore_iommu_capability_flags; of an IOMMU that is software the last three are
 *   set, of another those that its backend has
 */
struct dmacore_iommu_capabilities {
	size_t struct_size;
	uint64_t leaf_sizes;
	uint64_t granule;
	dmacore_iova_t last_input;
	dmacore_phys_t last_output;
	uint32_t access;
	uint32_t flags;
};

/**
 * dmacore_iommu_create() - make an IOMMU
 * @system: the system it belongs to
 * @options: how; NULL: all defaults
 * @out_iommu: receives the IOMMU, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the IOMMU back with dmacore_iommu_destroy(); it holds on to the
 *   system. What a table allocator or @backend_opaque points to must outlive it and its domains: until
 *   the backend's release is called.
 * Return: 0, or
 *   -EINVAL  @system or @out_iommu is NULL, a flag is set, a reserved member is not zero, a
 *            structure is too short, the page-table options are wrong, or the backend has an unknown
 *            capability, or a member without another that it needs. Never succeeds if retried.
 *   -E2BIG   a structure is longer than known and not zero there. Never.
 *   -EOPNOTSUPP  the page-table format lacks a feature. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iommu_create(struct dmacore_system *system, const struct dmacore_iommu_options *options,
			 struct dmacore_iommu **out_iommu);

/**
 * dmacore_iommu_announce() - make an IOMMU that is not there yet
 * @system: the system it belongs to
 * @out_iommu: receives the IOMMU, or NULL on failure
 *
 * Devices may be behind it, which are blocked. Until dmacore_iommu_start() it has no domains, and
 * drivers' binds to its devices are deferred (driver.h).
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the IOMMU back with dmacore_iommu_destroy(); it holds on to the
 *   system.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_iommu_announce(struct dmacore_system *system, struct dmacore_iommu **out_iommu);

/**
 * dmacore_iommu_start() - say that an announced IOMMU is there
 * @iommu: the IOMMU
 * @options: how it is made; NULL: all defaults
 *
 * Then tries the binds that are deferred in the system, see driver.h.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; bindings, rank 11), not while
 *   a probe runs; calls probe of deferred drivers, and as dmacore_device_bind() does.
 * Ownership: as dmacore_iommu_create(). If it fails, the backend's release is not called.
 * Return: 0, whatever becomes of the deferred binds; or
 *   -EEXIST  the IOMMU is there. Never succeeds if retried.
 *   or as dmacore_iommu_create().
 */
DMACORE_MUST_CHECK
int dmacore_iommu_start(struct dmacore_iommu *iommu, const struct dmacore_iommu_options *options);

/**
 * dmacore_iommu_destroy() - give an IOMMU back
 * @iommu: the IOMMU, or NULL
 *
 * Destroy its domains and the devices behind it first; see the lifetime rule in system.h.
 *
 * Context: any thread; takes no lock; may call the report callback and the backend's release.
 * Ownership: @iommu may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_iommu_destroy(struct dmacore_iommu *iommu);

/**
 * dmacore_iommu_capabilities() - read what the domains of an IOMMU can do
 * @iommu: the IOMMU
 * @out_capabilities: receives it; @out_capabilities->struct_size says how much of it there is room
 *   for
 *
 * The answer is the same for as long as the IOMMU is there.
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or the structure is too short. Never succeeds if retried.
 *   -E2BIG   the size is that of no structure. Never.
 *   -EAGAIN  the IOMMU is announced and not there. Once it has started.
 */
DMACORE_MUST_CHECK
int dmacore_iommu_capabilities(struct dmacore_iommu *iommu,
			       struct dmacore_iommu_capabilities *out_capabilities);

DMACORE_END_DECLS

#endif /* DMACORE_IOMMU_H */
