/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>

/*
 * Hardware behind an IOMMU. It keeps what it is told of attachments and mappings, holds the library to
 * what a backend may rely on, and fails when the input says so.
 */

#define BACKENDS_MAX 4
#define DOMAINS_MAX 96
#define RUNS_MAX 64
#define ROUTES_MAX (OBJECTS_MAX * 8)

struct run {
	dmacore_iova_t first;
	dmacore_iova_t last;
	dmacore_phys_t phys;
};

struct hardware_domain {
	bool is_alive;
	uint32_t type;
	struct hardware_domain *parent;
	struct run runs[RUNS_MAX];
	size_t run_count;
	/* There were more than fit, so that the others say nothing either. */
	bool has_lost;
	bool is_tracked;
};

struct route {
	const struct dmacore_device *device;
	uint32_t pasid;
	struct hardware_domain *domain;
};

struct hardware {
	/* An IOMMU has it, or will have if the call that was given it succeeds. */
	bool is_taken;
	struct hardware_domain domains[DOMAINS_MAX];
	struct route routes[ROUTES_MAX];
};

static struct hardware backends[BACKENDS_MAX];

/* The error of a call that fails now; 0: none. */
static int failure(void)
{
	static const int errors[] = { EIO, ENOMEM, ENOSPC, EBUSY };

	if (!one_in(16))
		return 0;
	world.backend_error = errors[byte() % 4];
	world.is_starved |= world.backend_error == ENOMEM;
	fuzz_trace("  the backend fails with %d", world.backend_error);
	return -world.backend_error;
}

static struct hardware *hardware(void *opaque)
{
	struct hardware *found = opaque;

	CHECK(found >= backends && found < backends + BACKENDS_MAX && found->is_taken);
	return found;
}

static struct hardware_domain *known(struct hardware *hardware, void *handle)
{
	struct hardware_domain *domain = handle;

	CHECK(domain >= hardware->domains && domain < hardware->domains + DOMAINS_MAX);
	CHECK(domain->is_alive);
	return domain;
}

static int domain_create(const struct dmacore_backend_domain *given, void **out, void *opaque)
{
	struct hardware *self = hardware(opaque);
	bool is_nested = given->type == DMACORE_DOMAIN_NESTED;
	int error = failure();

	CHECK(given->struct_size == sizeof(*given) && given->reserved == 0);
	CHECK((given->parent != NULL) == is_nested && (given->guest_table != NULL) == is_nested);
	CHECK((given->pagetable == NULL) == (is_nested || given->type == DMACORE_DOMAIN_IDENTITY ||
					     given->type == DMACORE_DOMAIN_BLOCKED));
	if (is_nested)
		CHECK(known(self, given->parent)->type == DMACORE_DOMAIN_UNMANAGED);
	for (size_t i = 0; i < DOMAINS_MAX && error == 0; i++) {
		struct hardware_domain *domain = &self->domains[i];

		if (domain->is_alive)
			continue;
		*domain = (struct hardware_domain){ .is_alive = true,
						    .type = given->type,
						    .parent = given->parent };
		*out = domain;
		return 0;
	}
	if (error != 0)
		return error;
	world.backend_error = ENOSPC;
	return -ENOSPC;
}

static void domain_destroy(void *handle, void *opaque)
{
	struct hardware *self = hardware(opaque);
	struct hardware_domain *domain = known(self, handle);

	for (size_t i = 0; i < ROUTES_MAX; i++)
		CHECK(self->routes[i].domain != domain);
	for (size_t i = 0; i < DOMAINS_MAX; i++)
		CHECK(!self->domains[i].is_alive || self->domains[i].parent != domain);
	domain->is_alive = false;
}

static struct route *route(struct hardware *self, const struct dmacore_device *device,
			   uint32_t pasid)
{
	struct route *free = NULL;

	for (size_t i = 0; i < ROUTES_MAX; i++) {
		if (self->routes[i].device == device && self->routes[i].pasid == pasid)
			return &self->routes[i];
		if (self->routes[i].device == NULL)
			free = &self->routes[i];
	}
	CHECK(free != NULL);
	return free;
}

static void look_at(const struct dmacore_backend_device *device, uint32_t pasid)
{
	CHECK(device->struct_size == sizeof(*device) && device->device != NULL && pasid < 8);
	CHECK(device->name != NULL && device->id_count <= DMACORE_DEVICE_IDS_MAX);
	for (size_t i = 0; i < device->id_count; i++)
		CHECK(device->ids[i] < 16);
}

static int attach(void *handle, const struct dmacore_backend_device *device, uint32_t pasid,
		  void *opaque)
{
	struct hardware *self = hardware(opaque);
	struct hardware_domain *domain = known(self, handle);
	int error = failure();

	look_at(device, pasid);
	if (error == 0)
		*route(self, device->device, pasid) =
			(struct route){ device->device, pasid, domain };
	return error;
}

static void block(const struct dmacore_backend_device *device, uint32_t pasid, void *opaque)
{
	look_at(device, pasid);
	*route(hardware(opaque), device->device, pasid) = (struct route){ .device = NULL };
}

static int map(void *handle, dmacore_iova_t iova, dmacore_phys_t phys, uint64_t size,
	       uint32_t access, void *opaque)
{
	struct hardware_domain *domain = known(hardware(opaque), handle);
	/* A size of 2^64 does not fit. */
	struct run run = { iova, iova + (size - 1), phys };
	int error = failure();

	CHECK(run.first <= run.last && access != 0);
	for (size_t i = 0; i < domain->run_count; i++)
		CHECK(run.last < domain->runs[i].first || domain->runs[i].last < run.first);
	if (error != 0)
		return error;
	if (domain->run_count == RUNS_MAX)
		domain->has_lost = true;
	else
		domain->runs[domain->run_count++] = run;
	return 0;
}

static void unmap(void *handle, dmacore_iova_t first, dmacore_iova_t last, void *opaque)
{
	struct hardware_domain *domain = known(hardware(opaque), handle);
	size_t count = domain->run_count;

	CHECK(first <= last);
	for (size_t i = 0; i < count; i++) {
		struct run *run = &domain->runs[i], behind = *run;

		if (run->last < first || last < run->first)
			continue;
		behind.phys += last - run->first + 1;
		behind.first = last + 1;
		if (run->last > last && run->first < first) {
			if (domain->run_count == RUNS_MAX)
				domain->has_lost = true;
			else
				domain->runs[domain->run_count++] = behind;
			run->last = first - 1;
		} else if (run->last > last) {
			*run = behind;
		} else if (run->first < first) {
			run->last = first - 1;
		} else {
			/* Gone: no address is in it. */
			*run = (struct run){ 1, 0, 0 };
		}
	}
	for (count = 0; count < domain->run_count;)
		if (domain->runs[count].first > domain->runs[count].last)
			domain->runs[count] = domain->runs[--domain->run_count];
		else
			count++;
}

static void flush(void *handle, dmacore_iova_t first, dmacore_iova_t last, void *opaque)
{
	(void)known(hardware(opaque), handle);
	CHECK(first <= last);
}

static int set_dirty_tracking(void *handle, bool is_tracked, void *opaque)
{
	struct hardware_domain *domain = known(hardware(opaque), handle);
	int error = failure();

	CHECK(domain->is_tracked != is_tracked);
	if (error == 0)
		domain->is_tracked = is_tracked;
	return error;
}

static int read_dirty(void *handle, dmacore_iova_t iova, uint64_t size, uint32_t flags,
		      uint64_t *bitmap, void *opaque)
{
	(void)known(hardware(opaque), handle);
	CHECK(size != 0 && iova + (size - 1) >= iova && bitmap != NULL);
	CHECK((flags & ~(uint32_t)DMACORE_DIRTY_CLEAR) == 0);
	return failure();
}

static void release(void *opaque)
{
	struct hardware *self = hardware(opaque);

	for (size_t i = 0; i < ROUTES_MAX; i++)
		CHECK(self->routes[i].device == NULL);
	for (size_t i = 0; i < DOMAINS_MAX; i++)
		CHECK(!self->domains[i].is_alive);
	self->is_taken = false;
}

static const struct dmacore_backend_ops *backend_ops(uint8_t how)
{
	static union storage storage;

	structure(&storage, sizeof(storage.backend));
	storage.backend.capabilities = DMACORE_IOMMU_DEFERRED_FLUSH | DMACORE_IOMMU_PASIDS;
	if (how % 8 == 7)
		storage.backend.capabilities = byte();
	storage.backend.reserved = one_in(64);
	storage.backend.domain_create = domain_create;
	storage.backend.domain_destroy = domain_destroy;
	storage.backend.attach = one_in(64) ? NULL : attach;
	storage.backend.block = block;
	storage.backend.map = map;
	storage.backend.unmap = unmap;
	storage.backend.flush = flush;
	storage.backend.set_dirty_tracking = how % 8 < 4 ? set_dirty_tracking : NULL;
	storage.backend.read_dirty = how % 8 < 4 ? read_dirty : NULL;
	storage.backend.release = release;
	return &storage.backend;
}

bool take_backend(struct dmacore_iommu_options *options, uint8_t how)
{
	for (size_t i = 0; i < BACKENDS_MAX; i++) {
		if (backends[i].is_taken)
			continue;
		fuzz_trace("    with backend %zu", i);
		backends[i] = (struct hardware){ .is_taken = true };
		options->backend = backend_ops(how);
		options->backend_opaque = &backends[i];
		return true;
	}
	return false;
}

void give_back_backend(const struct dmacore_iommu_options *options)
{
	((struct hardware *)options->backend_opaque)->is_taken = false;
}

void begin_backends(void)
{
	for (size_t i = 0; i < BACKENDS_MAX; i++)
		backends[i].is_taken = false;
}

void end_backends(void)
{
	for (size_t i = 0; i < BACKENDS_MAX; i++)
		CHECK(!backends[i].is_taken);
}

void compare_backend(const struct dmacore_device *device, uint32_t pasid, dmacore_iova_t iova,
		     dmacore_phys_t phys)
{
	for (size_t i = 0; i < BACKENDS_MAX; i++) {
		const struct hardware_domain *domain;
		bool leads = false;

		if (!backends[i].is_taken)
			continue;
		domain = route(&backends[i], device, pasid)->domain;
		/* Addresses that stay as they are the device's bus may still move. */
		if (domain == NULL || domain->has_lost || domain->type == DMACORE_DOMAIN_IDENTITY ||
		    domain->type == DMACORE_DOMAIN_NESTED)
			continue;
		for (size_t j = 0; j < domain->run_count; j++)
			leads |= domain->runs[j].first <= iova && iova <= domain->runs[j].last &&
				 domain->runs[j].phys + (iova - domain->runs[j].first) == phys;
		CHECK(leads);
	}
}
