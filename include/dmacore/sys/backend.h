/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_SYS_BACKEND_H
#define DMACORE_SYS_BACKEND_H

/**
 * DOC: Backends of IOMMUs
 *
 * A backend is what must be told when something changes in an IOMMU: hardware with registers, a kernel's
 * interface, a test. The core decides who is attached to what, and keeps a page table of each domain
 * that translates, by which views reach memory; then it tells the backend. Hardware that walks those
 * very pages needs to know of attachments and invalidations alone; a backend with tables of its own is
 * told of each mapping too.
 *
 *	int attach(void *domain, const struct dmacore_backend_device *device, uint32_t pasid,
 *		void *opaque);
 *	void block(const struct dmacore_backend_device *device, uint32_t pasid, void *opaque);
 *	void flush(void *domain, dmacore_iova_t first, dmacore_iova_t last, void *opaque);
 *
 *	struct dmacore_backend_ops ops = DMACORE_BACKEND_OPS_INIT;
 *	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
 *
 *	ops.attach = attach;
 *	ops.block = block;
 *	ops.flush = flush;
 *	options.backend = &ops;
 *	error = dmacore_iommu_create(system, &options, &iommu);
 *
 * Each member may be NULL, which says that there is nothing to do. A software IOMMU is one of whose
 * backend all members are. Those that return an int return 0 or a negative errno value, which becomes
 * that of the library's call, with everything as it was; the others cannot fail.
 *
 * These are no callbacks: attach and block are called with the lock of a group held, and may take their
 * time. They call nothing of the library that concerns devices, domains, groups or memory.
 *
 * Stability: unstable. May change in every release.
 */

#include "../iommu.h"
#include "../types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_pagetable;

/**
 * struct dmacore_backend_domain - a domain that is being made
 * @struct_size: size of this structure as the library knows it
 * @type: what it is, of enum dmacore_domain_type (domain.h)
 * @reserved: zero
 * @pagetable: the page table of a domain that translates, of which what hardware must know can be read
 *   (dmacore_pagetable_vtd() and others, pagetable.h) until @domain_destroy returns; nothing else is
 *   done with it. NULL: the domain does not translate by one. The root of a table that grows may have
 *   changed when something was mapped
 * @parent: of a nested domain, what the backend knows its parent by, which lives longer; NULL otherwise
 * @guest_table: of a nested domain, the tables of the guest; NULL otherwise
 *
 * The structure is valid during the call alone.
 */
struct dmacore_backend_domain {
	size_t struct_size;
	uint32_t type;
	uint32_t reserved;
	struct dmacore_pagetable *pagetable;
	void *parent;
	const struct dmacore_walk_options *guest_table;
};

/**
 * struct dmacore_backend_device - a device that is attached or blocked
 * @struct_size: size of this structure as the library knows it
 * @device: the device, to tell it from others by
 * @name: its name
 * @ids: the IDs that its requests carry (device.h). Other devices of its group may have some of them too,
 *   and are attached alike: what carries such an ID is blocked with the last of them
 * @id_count: how many
 *
 * The structure and what it points to are valid during the call alone.
 */
struct dmacore_backend_device {
	size_t struct_size;
	const struct dmacore_device *device;
	const char *name;
	const uint32_t *ids;
	size_t id_count;
};

/**
 * struct dmacore_backend_ops - a backend
 * @struct_size: sizeof(struct dmacore_backend_ops)
 * @capabilities: what it makes possible, of enum dmacore_iommu_capability_flags (iommu.h):
 *   DMACORE_IOMMU_DEFERRED_FLUSH, DMACORE_IOMMU_PASIDS, DMACORE_IOMMU_ENFORCED_COHERENCY
 * @reserved: zero
 * @domain_create: a domain is being made. @out_domain receives what the backend knows it by from now on;
 *   NULL if this member is. No lock is held
 * @domain_destroy: a domain ends, to which no device is attached: nothing more is called for it, and its
 *   table pages are freed afterwards. No lock is held
 * @attach: what the device's requests with this PASID, or with none (0), go through from now on is this
 *   domain, and no other before it returns: they see what they saw before, or the domain. If it fails
 *   they see what they saw before. Of the devices of a group one is attached after another; if one
 *   cannot be, those before it are attached to what they had, and blocked if that fails. Needs @block
 * @block: the device's requests with this PASID, or with none, are blocked from now on, as they are of a
 *   device that the backend was told nothing of
 * @map: a range has been mapped in the domain's page table. If this fails it is unmapped again. Called
 *   beside others, for other ranges. No lock is held
 * @unmap: a range is not mapped any more, holes in it included; it may be a part of what was mapped at
 *   once, or several such. No lock is held
 * @flush: forgets all translations that were cached of a range: entries, and pages of the table, which
 *   may be freed afterwards. When it returns the hardware uses none, and no access through one is under
 *   way. Of a nested domain it is what the guest has changed. Of a parent it is meant for what is cached
 *   of the domains nested in it too, by whatever addresses of theirs: the library does not know them.
 *   Comes once for all that a flush of a lazy domain (domain.h), or dmacore_domain_sync(), is about, and
 *   not for an unmap that found nothing. In dmacore_system_tick() the lock of the list of lazy domains is
 *   held, else none
 * @set_dirty_tracking: starts noting what devices write, with nothing noted, or stops. No lock is held
 * @read_dirty: sets a bit in @bitmap for each granule of the range that was written, and forgets that if
 *   @flags have DMACORE_DIRTY_CLEAR (pagetable.h); clears no bit, and if it fails it has set none that
 *   the library could not give back to its caller. No lock is held
 * @release: the IOMMU has ended: nothing more is called. No lock is held
 *
 * Domains have dirty tracking if their page tables have it, or @set_dirty_tracking and @read_dirty are
 * there, which need each other; both count, if both are there. What views write is noted in page tables
 * alone.
 */
struct dmacore_backend_ops {
	size_t struct_size;
	uint32_t capabilities;
	uint32_t reserved;
	int (*domain_create)(const struct dmacore_backend_domain *domain, void **out_domain,
			     void *opaque);
	void (*domain_destroy)(void *domain, void *opaque);
	int (*attach)(void *domain, const struct dmacore_backend_device *device, uint32_t pasid,
		      void *opaque);
	void (*block)(const struct dmacore_backend_device *device, uint32_t pasid, void *opaque);
	int (*map)(void *domain, dmacore_iova_t iova, dmacore_phys_t phys, uint64_t size,
		   uint32_t access, void *opaque);
	void (*unmap)(void *domain, dmacore_iova_t first, dmacore_iova_t last, void *opaque);
	void (*flush)(void *domain, dmacore_iova_t first, dmacore_iova_t last, void *opaque);
	int (*set_dirty_tracking)(void *domain, bool is_tracked, void *opaque);
	int (*read_dirty)(void *domain, dmacore_iova_t iova, uint64_t size, uint32_t flags,
			  uint64_t *bitmap, void *opaque);
	void (*release)(void *opaque);
};

#define DMACORE_BACKEND_OPS_INIT                                                              \
	{                                                                                     \
		sizeof(struct dmacore_backend_ops), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, \
			NULL, NULL, NULL, NULL                                                \
	}

DMACORE_END_DECLS

#endif /* DMACORE_SYS_BACKEND_H */
