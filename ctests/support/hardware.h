/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_HARDWARE_H
#define SUPPORT_HARDWARE_H

/*
 * Hardware behind an IOMMU, as a backend sees it: which device goes through which domain, and what each
 * domain maps. It counts what a backend must never be asked, and fails when a test says so.
 */

#include "machine.h"

#define HARDWARE_DOMAINS 16
#define HARDWARE_RUNS 32
#define HARDWARE_ROUTES 32

struct hardware_run {
	dmacore_iova_t first;
	dmacore_iova_t last;
	dmacore_phys_t phys;
	uint64_t access;
};

struct hardware_domain {
	bool is_alive;
	uint32_t type;
	struct dmacore_pagetable *pagetable;
	/* Of a nested domain. */
	struct hardware_domain *parent;
	struct dmacore_walk_options guest_table;
	struct hardware_run runs[HARDWARE_RUNS];
	unsigned run_count;
	/* What was unmapped and may still be cached; first > last: nothing. */
	dmacore_iova_t stale_first;
	dmacore_iova_t stale_last;
	bool is_tracked;
	/* Granules from address 0 on that were written. */
	uint64_t dirty;
};

struct hardware_route {
	const struct dmacore_device *device;
	uint64_t pasid;
	struct hardware_domain *domain;
};

/* All that a failing call must leave as it was; without padding that nobody sets. */
struct hardware_state {
	struct hardware_domain domains[HARDWARE_DOMAINS];
	struct hardware_route routes[HARDWARE_ROUTES];
};

struct hardware {
	struct dmacore_backend_ops ops;
	struct hardware_state state;
	/* Calls that can fail and still succeed; negative: all. */
	int left;
	bool has_failed;
	unsigned flush_count;
	/* What was flushed last. */
	struct hardware_domain *flushed;
	dmacore_iova_t flushed_first;
	dmacore_iova_t flushed_last;
	unsigned map_count;
	unsigned release_count;
	/* The IDs of the device that was attached or blocked last. */
	uint32_t ids[DMACORE_DEVICE_IDS_MAX];
	size_t id_count;
	char name[DMACORE_DEVICE_NAME_SIZE];
	/* What the backend was asked and must never be. */
	unsigned wrong;
};

static inline bool hardware_fails(struct hardware *hardware)
{
	if (hardware->left == 0) {
		hardware->left = -1;
		hardware->has_failed = true;
		return true;
	}
	hardware->left -= hardware->left > 0;
	return false;
}

/* The domain that the library means, or none and a mistake. */
static inline struct hardware_domain *hardware_known(struct hardware *hardware, void *handle)
{
	struct hardware_domain *domain = handle;

	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
		if (domain == &hardware->state.domains[i] && domain->is_alive)
			return domain;
	hardware->wrong++;
	return NULL;
}

static inline int hardware_domain_create(const struct dmacore_backend_domain *given, void **out,
					 void *opaque)
{
	struct hardware *hardware = opaque;

	hardware->wrong += given->struct_size != sizeof(*given) || given->reserved != 0;
	if (given->parent)
		(void)hardware_known(hardware, given->parent);
	hardware->wrong += !given->parent != (given->type != DMACORE_DOMAIN_NESTED) ||
			   !given->guest_table != (given->type != DMACORE_DOMAIN_NESTED);
	if (hardware_fails(hardware))
		return -EIO;
	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++) {
		struct hardware_domain *domain = &hardware->state.domains[i];

		if (domain->is_alive)
			continue;
		memset(domain, 0, sizeof(*domain));
		domain->is_alive = true;
		domain->type = given->type;
		domain->pagetable = given->pagetable;
		domain->parent = given->parent;
		if (given->guest_table)
			domain->guest_table = *given->guest_table;
		domain->stale_first = 1;
		*out = domain;
		return 0;
	}
	return -ENOSPC;
}

static inline void hardware_domain_destroy(void *handle, void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);
	struct dmacore_pagetable_statistics statistics = { .struct_size = sizeof(statistics) };

	for (unsigned i = 0; i < HARDWARE_ROUTES; i++)
		hardware->wrong += hardware->state.routes[i].domain == handle;
	/* Its page table is still there. */
	if (domain && domain->pagetable)
		hardware->wrong +=
			dmacore_pagetable_statistics(domain->pagetable, &statistics) != 0 ||
			statistics.table_count == 0;
	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
		hardware->wrong += domain && hardware->state.domains[i].parent == domain;
	if (domain)
		memset(domain, 0, sizeof(*domain));
}

static inline struct hardware_route *
hardware_route(struct hardware *hardware, const struct dmacore_device *device, uint32_t pasid)
{
	struct hardware_route *free = NULL;

	for (unsigned i = 0; i < HARDWARE_ROUTES; i++) {
		struct hardware_route *route = &hardware->state.routes[i];

		if (route->device == device && route->pasid == pasid)
			return route;
		if (!route->device && !free)
			free = route;
	}
	return free;
}

static inline void hardware_note(struct hardware *hardware,
				 const struct dmacore_backend_device *device)
{
	hardware->wrong += device->struct_size != sizeof(*device);
	hardware->id_count = device->id_count;
	for (size_t i = 0; i < device->id_count; i++)
		hardware->ids[i] = device->ids[i];
	snprintf(hardware->name, sizeof(hardware->name), "%s", device->name);
}

static inline int hardware_attach(void *handle, const struct dmacore_backend_device *device,
				  uint32_t pasid, void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);
	struct hardware_route *route = hardware_route(hardware, device->device, pasid);

	hardware_note(hardware, device);
	if (hardware_fails(hardware))
		return -EIO;
	*route = (struct hardware_route){ device->device, pasid, domain };
	return 0;
}

static inline void hardware_block(const struct dmacore_backend_device *device, uint32_t pasid,
				  void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_route *route = hardware_route(hardware, device->device, pasid);

	hardware_note(hardware, device);
	*route = (struct hardware_route){ NULL, 0, NULL };
}

static inline int hardware_map(void *handle, dmacore_iova_t iova, dmacore_phys_t phys,
			       uint64_t size, uint32_t access, void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);
	struct hardware_run run = { iova, iova + (size - 1), phys, access };

	if (hardware_fails(hardware))
		return -EIO;
	if (!domain)
		return 0;
	for (unsigned i = 0; i < domain->run_count; i++)
		hardware->wrong +=
			domain->runs[i].first <= run.last && run.first <= domain->runs[i].last;
	assert_true(domain->run_count < HARDWARE_RUNS);
	domain->runs[domain->run_count++] = run;
	hardware->map_count++;
	return 0;
}

static inline void hardware_unmap(void *handle, dmacore_iova_t first, dmacore_iova_t last,
				  void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);
	struct hardware_run kept[HARDWARE_RUNS + 1];
	unsigned count = 0;

	if (!domain)
		return;
	for (unsigned i = 0; i < domain->run_count; i++) {
		struct hardware_run run = domain->runs[i];

		if (run.last < first || last < run.first) {
			kept[count++] = run;
			continue;
		}
		if (run.first < first) {
			kept[count] = run;
			kept[count++].last = first - 1;
		}
		if (run.last > last) {
			kept[count] = run;
			kept[count].phys += last + 1 - run.first;
			kept[count++].first = last + 1;
		}
	}
	assert_true(count <= HARDWARE_RUNS);
	memset(domain->runs, 0, sizeof(domain->runs));
	memcpy(domain->runs, kept, count * sizeof(kept[0]));
	domain->run_count = count;
	if (domain->stale_first > domain->stale_last) {
		domain->stale_first = first;
		domain->stale_last = last;
	} else {
		domain->stale_first = first < domain->stale_first ? first : domain->stale_first;
		domain->stale_last = last > domain->stale_last ? last : domain->stale_last;
	}
}

static inline void hardware_flush(void *handle, dmacore_iova_t first, dmacore_iova_t last,
				  void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);

	hardware->flush_count++;
	hardware->wrong += first > last;
	hardware->flushed = domain;
	hardware->flushed_first = first;
	hardware->flushed_last = last;
	if (!domain || domain->stale_first < first || domain->stale_last > last)
		return;
	domain->stale_first = 1;
	domain->stale_last = 0;
}

static inline int hardware_set_dirty_tracking(void *handle, bool is_tracked, void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);

	if (hardware_fails(hardware))
		return -EIO;
	if (domain) {
		domain->is_tracked = is_tracked;
		domain->dirty = is_tracked ? 0 : domain->dirty;
	}
	return 0;
}

static inline int hardware_read_dirty(void *handle, dmacore_iova_t iova, uint64_t size,
				      uint32_t flags, uint64_t *bitmap, void *opaque)
{
	struct hardware *hardware = opaque;
	struct hardware_domain *domain = hardware_known(hardware, handle);

	if (hardware_fails(hardware))
		return -EIO;
	for (uint64_t i = 0; domain && i < size / PAGE; i++) {
		uint64_t page = iova / PAGE + i;

		if (page >= 64 || !(domain->dirty >> page & 1))
			continue;
		bitmap[i / 64] |= UINT64_C(1) << i % 64;
		if (flags & DMACORE_DIRTY_CLEAR)
			domain->dirty &= ~(UINT64_C(1) << page);
	}
	return 0;
}

static inline void hardware_release(void *opaque)
{
	struct hardware *hardware = opaque;

	hardware->release_count++;
}

static inline void hardware_start(struct hardware *hardware)
{
	struct dmacore_backend_ops ops = DMACORE_BACKEND_OPS_INIT;

	memset(hardware, 0, sizeof(*hardware));
	hardware->left = -1;
	ops.capabilities = DMACORE_IOMMU_DEFERRED_FLUSH | DMACORE_IOMMU_PASIDS;
	ops.domain_create = hardware_domain_create;
	ops.domain_destroy = hardware_domain_destroy;
	ops.attach = hardware_attach;
	ops.block = hardware_block;
	ops.map = hardware_map;
	ops.unmap = hardware_unmap;
	ops.flush = hardware_flush;
	ops.set_dirty_tracking = hardware_set_dirty_tracking;
	ops.read_dirty = hardware_read_dirty;
	ops.release = hardware_release;
	hardware->ops = ops;
}

static inline struct dmacore_iommu *hardware_iommu(struct hardware *hardware,
						   struct machine *machine)
{
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu *iommu;

	tables.allocator = &machine->tables.allocator;
	options.pagetable = &tables;
	options.backend = &hardware->ops;
	options.backend_opaque = hardware;
	assert_ok(dmacore_iommu_create(machine->system, &options, &iommu));
	return iommu;
}

/* What the hardware knows a domain by that was made as number @index of those that are there. */
static inline struct hardware_domain *hardware_at(struct hardware *hardware, unsigned index)
{
	return &hardware->state.domains[index];
}

/* The domain that requests of a device with this PASID, or with none, go through. */
static inline struct hardware_domain *
hardware_through(struct hardware *hardware, const struct dmacore_device *device, uint32_t pasid)
{
	struct hardware_route *route = hardware_route(hardware, device, pasid);

	return route ? route->domain : NULL;
}

/* Where an address of a device leads in the hardware: whether it is mapped, and where to. */
static inline bool hardware_leads(struct hardware *hardware, const struct dmacore_device *device,
				  uint32_t pasid, dmacore_iova_t iova, dmacore_phys_t *out_phys)
{
	struct hardware_domain *domain = hardware_through(hardware, device, pasid);

	if (!domain)
		return false;
	if (domain->type == DMACORE_DOMAIN_IDENTITY) {
		*out_phys = iova;
		return true;
	}
	for (unsigned i = 0; i < domain->run_count; i++) {
		if (iova < domain->runs[i].first || domain->runs[i].last < iova)
			continue;
		*out_phys = domain->runs[i].phys + (iova - domain->runs[i].first);
		return true;
	}
	return false;
}

static inline bool hardware_is_stale(const struct hardware *hardware)
{
	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
		if (hardware->state.domains[i].is_alive &&
		    hardware->state.domains[i].stale_first <= hardware->state.domains[i].stale_last)
			return true;
	return false;
}

#endif /* SUPPORT_HARDWARE_H */
