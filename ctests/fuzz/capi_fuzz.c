/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Calls of every function on every object, in any order, with any argument a caller could make up:
 * NULL, hostile sizes, unknown flags, structures of other lengths, allocators and callbacks that
 * fail or call back in, objects destroyed while others hold them. The library must neither crash
 * nor hang, must answer with the results its headers list and no others, and when everything is
 * destroyed must have given all memory back.
 *
 * The input keeps the promises that no library can check: a destroyed handle is not used, and what
 * is called memory is memory.
 */

#include "capi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_PAGES 16
#define FILE_NAME "dmacore-fuzz"

static void call_memory(void)
{
	struct dmacore_system *system = pick(SYSTEM);
	uint64_t first = address("first"), size = length("size");
	union storage region;
	void *host = NULL;

	switch (byte() % 5) {
	case 0:
	case 1:
		structure(&region, sizeof(region.region));
		region.region.base = first;
		region.region.backing = one_in(32) ? byte() : 1 + byte() % 3;
		region.region.flags = one_in(32) ? byte() : byte() & DMACORE_MEMORY_READ_ONLY;
		region.region.fd = one_in(16) ? -1 : world.file;
		region.region.fd_offset = one_in(8) ? number("offset") : (byte() & 7) * PAGE;
		region.region.read = one_in(32) ? NULL : read_region;
		region.region.write = one_in(32) ? NULL : write_region;
		if (region.region.backing == DMACORE_MEMORY_HOST) {
			/* Behind the end of the address space, or memory. */
			if (one_in(32) && size != 0)
				region.region.host = (void *)(uintptr_t)(0 - (size - 1));
			else if (!one_in(32))
				region.region.host = ram_range(&size);
		}
		region.region.size = size;
		region.region.opaque = (void *)(uintptr_t)size;
		world.has_used_file |= region.region.backing == DMACORE_MEMORY_FD;
		/* The kernel answers ENOMEM to a mapping that is larger than the address space. */
		world.is_starved |= region.region.backing == DMACORE_MEMORY_FD;
		if (RESULT(dmacore_memory_add(system, one_in(64) ? NULL : &region.region), EINVAL,
			   E2BIG, EEXIST, EOPNOTSUPP, EBADF, EACCES, ENODEV, ENOMEM) == 0)
			remember(first, size);
		break;
	case 2:
		if (RESULT(dmacore_memory_remove(system, first, size), EINVAL, ENOENT, EBUSY,
			   ENOMEM) == 0)
			check_windows(system, first, size);
		break;
	case 3:
		(void)RESULT(dmacore_memory_phys_to_host(system, first, size, OUT(&host)), EINVAL,
			     EFAULT, EOPNOTSUPP);
		break;
	default:
		host = one_in(2) ? ram_range(&size) : (void *)(uintptr_t)first;
		(void)RESULT(dmacore_memory_host_to_phys(system, host, size, OUT(&first)), EINVAL,
			     EFAULT);
		break;
	}
}

static void call_pool(uint8_t how)
{
	struct dmacore_bounce_pool *pool = pick(POOL);
	union storage storage;

	if (how >= 0xfc) {
		structure(&storage, sizeof(storage.pool_statistics));
		if (RESULT(dmacore_bounce_pool_statistics(pool, OUT(&storage.pool_statistics)),
			   EINVAL, E2BIG) == 0)
			CHECK(storage.pool_statistics.used_count <=
				      storage.pool_statistics.used_count_max &&
			      storage.pool_statistics.used_count <=
				      storage.pool_statistics.slot_count);
	} else if (how >= 0xfa) {
		(void)RESULT(dmacore_bounce_pool_reset_high_water(pool), EINVAL);
	} else {
		(void)RESULT(dmacore_system_set_bounce_pool(pick(SYSTEM), one_in(4) ? NULL : pool),
			     EINVAL);
	}
}

static void call_domain(void)
{
	struct dmacore_domain *domain = pick(DOMAIN);
	struct dmacore_device *device = pick(DEVICE);
	uint8_t how = byte();

	if (how >= 0xf4 && count_objects(POOL) > 0)
		call_pool(how);
	else if (how >= 0xf0)
		(void)RESULT(dmacore_system_tick(pick(SYSTEM), byte()), EINVAL);
	else if (how >= 0xe0)
		(void)RESULT(dmacore_domain_flush(domain), EINVAL, EOPNOTSUPP);
	else if (how >= 0xd8)
		(void)RESULT(dmacore_notifier_replay(pick(NOTIFIER)), EINVAL);
	else if (how >= 0xd4)
		(void)RESULT(dmacore_domain_invalidate(domain, byte() * PAGE, number("last")),
			     EINVAL, EOPNOTSUPP);
	else if (how >= 0xd0)
		(void)RESULT(dmacore_device_invalidate_pasid(device, byte() % 8, byte() * PAGE,
							     number("last")),
			     EINVAL, ENOENT, EOPNOTSUPP);
	else if (how >= 0xcc)
		(void)RESULT(dmacore_domain_sync(domain), EINVAL, EOPNOTSUPP);
	else if (how % 3 == 2)
		(void)RESULT(dmacore_domain_detach(domain, device), EINVAL, EBUSY, EPERM);
	else if (how >= 0xa0)
		(void)RESULT(dmacore_domain_replace(domain, device), EINVAL, EBUSY, EPERM, ENOMEM);
	else
		(void)RESULT(dmacore_domain_attach(domain, device), EINVAL, EBUSY, EPERM, ENOMEM);
}

/* In order, and those of one type apart from each other. */
static void look_at_regions(struct dmacore_group *group, struct dmacore_device *device)
{
	struct dmacore_reserved_region regions[8];
	size_t capacity = byte() % 9, count = 0;
	int result = one_in(2) ? RESULT(dmacore_group_reserved_regions(group, OUT(regions),
								       capacity, OUT(&count)),
					EINVAL, ENOMEM) :
				 RESULT(dmacore_device_reserved_regions(device, OUT(regions),
									capacity, OUT(&count)),
					EINVAL);

	if (result != 0 || capacity == 0)
		return;
	for (size_t i = 0; i < count && i < capacity; i++) {
		CHECK(regions[i].first <= regions[i].last);
		for (size_t j = 0; j < i; j++) {
			CHECK(regions[j].first <= regions[i].first);
			CHECK(regions[j].type != regions[i].type ||
			      regions[j].last < regions[i].first - 1);
		}
	}
}

static void look_at_group(struct object *device)
{
	struct dmacore_group *group = pick(GROUP), *own = NULL;
	char text[2 * DMACORE_DESCRIPTION_SIZE];
	size_t size = one_in(4) ? byte() : sizeof(text);

	if (one_in(2)) {
		if (RESULT(dmacore_group_describe(group, OUT(text), size), EINVAL) == 0)
			CHECK(strlen(text) < DMACORE_DESCRIPTION_SIZE && strlen(text) < size);
		return;
	}
	if (one_in(2)) {
		look_at_regions(group, device->handle);
		return;
	}
	if (RESULT(dmacore_device_group(device->handle, OUT(&own)), EINVAL) != 0)
		return;
	/* Not inside a callback, where a slot could be taken twice. */
	if (world.depth == 0 && count_objects(NOTHING) != 0)
		keep(GROUP, own, device->is_flat);
	else
		dmacore_group_destroy(own);
}

static void call_group(void)
{
	/* Owners are known by their addresses, and only a claim looks at what is there. */
	static union storage owners[3];
	static const char *const names[] = { NULL, "", "vm3",
					     "a name that is longer than it may be" };
	struct object *device = pick_object(DEVICE);
	uint8_t which = byte();
	union storage *storage = &owners[which % 3];
	struct dmacore_dma_owner *owner = which >= 0xf8 ? NULL : &storage->owner;

	switch (byte() % 12) {
	case 8:
	case 9:
		(void)RESULT(dmacore_device_attach_pasid(device->handle, byte() % 8, pick(DOMAIN),
							 owner),
			     EINVAL, EPERM, EBUSY, EOPNOTSUPP, ENOMEM);
		break;
	case 10:
		(void)RESULT(dmacore_device_replace_pasid(device->handle, byte() % 8, pick(DOMAIN),
							  owner),
			     EINVAL, EPERM, EBUSY, ENOENT, EOPNOTSUPP, ENOMEM);
		break;
	case 11:
		(void)RESULT(dmacore_device_detach_pasid(device->handle, byte() % 8, owner), EINVAL,
			     EPERM, EBUSY);
		break;
	case 0:
		(void)RESULT(dmacore_device_use_default_domain(device->handle), EINVAL, ENODEV,
			     EBUSY);
		break;
	case 1:
		(void)RESULT(dmacore_device_unuse_default_domain(device->handle), EINVAL, EPERM);
		break;
	case 2:
	case 3:
		structure(storage, sizeof(storage->owner));
		storage->owner.kind = one_in(32) ? byte() : 1 + byte() % 2;
		storage->owner.reserved = one_in(64);
		storage->owner.name = names[one_in(32) ? 3 : byte() % 3];
		if (RESULT(dmacore_device_claim_dma_owner(device->handle, owner), EINVAL, E2BIG,
			   ENODEV, EPERM, EBUSY) == 0)
			CHECK(dmacore_device_use_default_domain(device->handle) == -EBUSY);
		break;
	case 4:
		(void)RESULT(dmacore_device_release_dma_owner(device->handle, owner), EINVAL, EPERM,
			     EBUSY);
		break;
	case 5:
		/* By the device or by its group, which is the same. */
		if (byte() & 1) {
			struct dmacore_group *group;

			if (RESULT(dmacore_device_group(device->handle, &group), EINVAL) != 0)
				break;
			(void)RESULT(dmacore_group_attach(group, pick(DOMAIN), owner), EINVAL,
				     EPERM, EBUSY, ENOMEM);
			dmacore_group_destroy(group);
			break;
		}
		(void)RESULT(dmacore_device_attach(device->handle, pick(DOMAIN), owner), EINVAL,
			     EPERM, EBUSY, ENOMEM);
		break;
	case 6:
		(void)RESULT(dmacore_device_detach(device->handle, owner), EINVAL, EPERM, EBUSY);
		break;
	default:
		look_at_group(device);
		break;
	}
}

/* Where the caller says: to memory of the process, or anywhere. */
static void map_domain(struct object *domain, uint64_t iova, uint64_t size, uint32_t access,
		       uint64_t unaligned)
{
	uint64_t phys;

	if (one_in(2)) {
		phys = domain->is_flat ? (uintptr_t)ram_range(&size) : address("phys");
		size &= ~(PAGE - 1);
	} else {
		phys = address("phys");
		world.has_lied |= domain->is_flat;
	}
	if (RESULT(dmacore_domain_map(domain->handle, iova, phys & ~unaligned, size, access),
		   EINVAL, EOPNOTSUPP, EPERM, ERANGE, EEXIST, ENOMEM) == 0)
		remember(iova, size);
}

static void map_list(struct object *domain, uint64_t iova, uint32_t access)
{
	struct dmacore_domain_segment segments[4];
	size_t count = 1 + byte() % 4;
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t size = (1 + byte() % 4) * PAGE, phys;
		/* Often what adjoins the one before. */
		bool adjoins = i != 0 && one_in(2) && !domain->is_flat;

		phys = domain->is_flat ? (uintptr_t)ram_range(&size) : (uint64_t)byte() << 16;
		segments[i].phys =
			adjoins ? segments[i - 1].phys + segments[i - 1].size : phys & ~(PAGE - 1);
		segments[i].size = size & ~(PAGE - 1);
		if (one_in(32) && !domain->is_flat)
			segments[i].phys = number("phys");
		if (one_in(32) && !domain->is_flat)
			segments[i].size = number("size");
		sum += segments[i].size;
		fuzz_trace("    segment %#" PRIx64 ", size %#" PRIx64, segments[i].phys,
			   segments[i].size);
	}
	if (RESULT(dmacore_domain_map_list(domain->handle, iova, OUT(segments),
					   one_in(64) ? 0 : count, access),
		   EINVAL, EOPNOTSUPP, EPERM, ERANGE, EEXIST, ENOMEM) == 0)
		remember(iova, sum);
}

static void call_domain_dirty(struct object *domain, uint64_t iova, uint64_t size)
{
	uint64_t bits[(1 << 24) / PAGE / 64] = { 0 };

	/* Of so much the bits fit the array. */
	size &= (1 << 24) - 1;
	if (one_in(2))
		(void)RESULT(dmacore_domain_set_dirty_tracking(domain->handle, one_in(2)), EINVAL,
			     EOPNOTSUPP);
	else
		(void)RESULT(dmacore_domain_read_dirty(domain->handle, iova, size,
						       one_in(32) ? byte() : one_in(2), OUT(bits)),
			     EINVAL, ERANGE, EOPNOTSUPP);
}

static void call_domain_table(void)
{
	struct object *domain = pick_object(DOMAIN);
	struct dmacore_translation translation;
	uint64_t iova = address("iova"), size = length("size"), unmapped = 0, *out;
	uint8_t what = byte();
	/* Mostly what all formats know, else what some do. */
	uint32_t access = what % 32 == 31 ? byte() : byte() & (what >= 0xc0 ? 63 : 3);
	/* Mostly of pages, else of the largest granule that there is. */
	uint64_t unaligned = what % 8 == 7 ? 0 : what % 8 == 6 ? (1 << 16) - 1 : PAGE - 1;
	uint32_t flags;

	iova &= ~unaligned;
	size = (size + unaligned) & ~unaligned;
	uint8_t how = byte();

	if (how >= 0xf0) {
		call_domain_dirty(domain, iova, size);
		return;
	}
	if (how >= 0xe0) {
		map_list(domain, iova, access);
		return;
	}
	switch (how % 4) {
	case 0:
	case 1:
		map_domain(domain, iova, size, access, unaligned);
		break;
	case 2:
		out = OUT(&unmapped);
		flags = one_in(32) ? byte() : access & 3;
		flags |= (what & 0x20) != 0 ? DMACORE_UNMAP_UNSYNCED : 0;
		if (RESULT(dmacore_domain_unmap(domain->handle, iova, size, flags, out), EINVAL,
			   EOPNOTSUPP, ERANGE, ENOMEM) == 0)
			CHECK(unmapped <= size);
		else
			CHECK(unmapped == 0);
		break;
	default:
		if (RESULT(dmacore_domain_translate(domain->handle, iova, access,
						    OUT(&translation)),
			   EINVAL, ENOENT, EACCES, EPERM) != 0)
			break;
		CHECK(translation.first <= iova && iova <= translation.last);
		access &= ~(uint32_t)DMACORE_ACCESS_PRIVILEGED;
		CHECK((translation.access & access) == access);
		break;
	}
}

/* A set of attributes, mostly none. */
uint32_t attributes(void)
{
	static const uint32_t known[] = {
		DMACORE_ATTR_WEAK_ORDERING, DMACORE_ATTR_SKIP_CPU_SYNC,	   DMACORE_ATTR_NO_WARN,
		DMACORE_ATTR_PRIVILEGED,    DMACORE_ATTR_REQUIRE_COHERENT, DMACORE_ATTR_MMIO,
	};
	uint8_t how = byte();

	if (how < 0xd0)
		return 0;
	return how >= 0xfe ? number("attributes") : known[how % 6] | known[how / 6 % 6];
}

/* What a device is told of itself, and tells. */
static void call_policy(struct object *device)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	struct dmacore_device_limits hardware = DMACORE_DEVICE_LIMITS_INIT;
	struct dmacore_mapping_info infos[4];
	struct dmacore_dma_range ranges[2] = { { 0x100000, 0, 64 * PAGE },
					       { 0x200000, 64 * PAGE, 64 * PAGE } };
	uint64_t first, last;
	size_t count = 0;
	char text[256];

	switch (byte() % 8) {
	case 0:
		if (RESULT(dmacore_device_explain(device->handle, address("phys"), length("size"),
						  one_in(32) ? byte() : byte() & 1, attributes(),
						  OUT(&explanation)),
			   EINVAL) != 0)
			break;
		CHECK((explanation.path == DMACORE_PATH_REFUSED) == (explanation.error != 0));
		CHECK(explanation.reasons != 0);
		CHECK(RESULT(dmacore_explanation_describe(&explanation, text, sizeof(text))) == 0);
		CHECK(strstr(text, "because") != NULL);
		break;
	case 1:
		if (RESULT(dmacore_device_mapping_limits(device->handle, OUT(&limits)), EINVAL) !=
		    0)
			break;
		CHECK(limits.optimal_size <= limits.max_size);
		CHECK((limits.required_mask & (limits.required_mask + 1)) == 0);
		break;
	case 2:
		first = address("first");
		last = one_in(2) ? UINT64_MAX : address("last");
		if (RESULT(dmacore_device_list_mappings(device->handle, first, last, OUT(infos), 4,
							OUT(&count)),
			   EINVAL) != 0)
			break;
		for (size_t i = 0; i < count && i < 4; i++)
			CHECK(infos[i].first <= last && infos[i].last >= first);
		break;
	case 3:
		(void)RESULT(dmacore_device_set_ranges(device->handle, OUT(ranges), byte() % 3),
			     EINVAL, ENOMEM);
		break;
	case 4:
		hardware.max_segment_size = mask();
		hardware.segment_boundary_mask = mask();
		hardware.min_align_mask = mask();
		(void)RESULT(dmacore_device_set_limits(device->handle, &hardware), EINVAL);
		break;
	case 5:
		(void)RESULT(dmacore_domain_set_bypass(pick(DOMAIN), one_in(2)), EINVAL, EOPNOTSUPP,
			     ENOMEM);
		break;
	default:
		(void)dmacore_need_sync(device->handle, address("dma"));
		(void)dmacore_need_unmap(device->handle);
		break;
	}
}

static void call_device(void)
{
	struct object *object = pick_object(DEVICE);
	struct dmacore_device *device = object->handle;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	struct dmacore_fault faults[4];
	uint64_t lost;
	size_t count_max = byte() % 5, count = 0;
	uint8_t how = byte();

	if (how >= 0xc0) {
		call_policy(object);
		return;
	}
	switch (how % 3) {
	case 0:
		(void)RESULT(dmacore_device_set_streaming_mask(device, mask(), OUT(&beyond)),
			     EINVAL, EPERM, EIO);
		break;
	case 1:
		if (how >= 0x80)
			(void)RESULT(
				how & 1 ?
					dmacore_device_set_bus_limit(device, mask(), OUT(&beyond)) :
					dmacore_device_set_mask(device, mask(), OUT(&beyond)),
				EINVAL, EPERM, EIO);
		else
			(void)RESULT(dmacore_device_set_coherent_mask(device, mask(), OUT(&beyond)),
				     EINVAL, EPERM, EIO);
		CHECK((beyond.count == 0) == (beyond.last == 0) || beyond.count == 1);
		break;
	default:
		(void)RESULT(dmacore_fault_take(device, one_in(8) ? NULL : faults, count_max,
						OUT(&count), OUT(&lost)),
			     EINVAL);
		CHECK(count <= count_max);
		break;
	}
}

void add_mapping(struct mapping mapping)
{
	remember(mapping.dma, mapping.size);
	if (world.mapping_count < MAPPINGS_MAX)
		world.mappings[world.mapping_count++] = mapping;
}

static void call_map(void)
{
	struct object *device = pick_object(DEVICE);
	struct mapping mapping = { .device = device->handle, .size = length("size") };
	void *buffer = NULL;
	int result;

	mapping.attributes = attributes();
	mapping.direction = one_in(32) ? byte() : byte() % 3;
	if (one_in(2) || (device->is_flat && (world.has_flat_pool || !one_in(4))))
		buffer = ram_range(&mapping.size);
	else
		world.has_lied |= device->is_flat;
	if (one_in(2)) {
		if (buffer == NULL)
			buffer = (void *)(uintptr_t)address("buffer");
		result = RESULT(dmacore_map_single(mapping.device, buffer, mapping.size,
						   mapping.direction, mapping.attributes,
						   OUT(&mapping.dma)),
				EINVAL, ENXIO, EPERM, EOPNOTSUPP, EFAULT, ERANGE, EREMOTEIO, ENOSPC,
				EIO, ENOMEM);
	} else {
		dmacore_phys_t phys = buffer != NULL ? (uintptr_t)buffer : address("phys");

		result = RESULT(
			one_in(8) ? dmacore_map_resource(mapping.device, phys, mapping.size,
							 mapping.direction, mapping.attributes,
							 OUT(&mapping.dma)) :
				    dmacore_map_phys(mapping.device, phys, mapping.size,
						     mapping.direction, mapping.attributes,
						     OUT(&mapping.dma)),
			EINVAL, ENXIO, EPERM, EOPNOTSUPP, ERANGE, EREMOTEIO, ENOSPC, EIO, ENOMEM);
	}
	if (result == 0)
		add_mapping(mapping);
}

/* A mapping that was made, seldom changed a little or made up. */
static struct mapping take_mapping(void)
{
	struct mapping mapping = { .device = pick(DEVICE) };

	if (world.mapping_count != 0 && !one_in(8))
		mapping = world.mappings[byte() % world.mapping_count];
	switch (byte()) {
	case 1:
		mapping.device = pick(DEVICE);
		break;
	case 2:
		mapping.dma = address("dma");
		break;
	case 3:
		mapping.size = length("size");
		break;
	case 4:
		mapping.direction = byte();
		break;
	case 5:
		mapping.cpu = world.ram + byte();
		break;
	case 6:
		if (mapping.cpu != NULL)
			mapping.pool = pick(COHERENT_POOL);
		break;
	}
	fuzz_trace("    mapping %#" PRIx64 ", size %#" PRIx64, mapping.dma, mapping.size);
	return mapping;
}

static void call_unmap(void)
{
	struct mapping gone = take_mapping();
	int result;

	if (gone.cpu != NULL || gone.segments != NULL)
		result = free_memory(&gone);
	else
		result = RESULT(dmacore_unmap(gone.device, gone.dma, gone.size, gone.direction,
					      one_in(64) ? attributes() : gone.attributes),
				EINVAL);
	if (result != 0)
		return;
	for (size_t i = 0; i < world.mapping_count; i++)
		if (world.mappings[i].device == gone.device && world.mappings[i].dma == gone.dma &&
		    world.mappings[i].size == gone.size && world.mappings[i].cpu == gone.cpu) {
			world.mappings[i] = world.mappings[--world.mapping_count];
			return;
		}
}

static void call_sync(void)
{
	struct mapping mapping = take_mapping();

	if (one_in(2))
		(void)RESULT(dmacore_sync_for_cpu(mapping.device, mapping.dma, mapping.size,
						  mapping.direction),
			     EINVAL, EIO);
	else
		(void)RESULT(dmacore_sync_for_device(mapping.device, mapping.dma, mapping.size,
						     mapping.direction),
			     EINVAL, EIO);
}

/* A block must say what a translation says. */
static void compare_block(struct dmacore_view *view, uint64_t dma, uint32_t access)
{
	struct dmacore_translation translation;
	struct dmacore_block block;

	if (RESULT(dmacore_view_translate_block(view, dma, access, &block), EINVAL) != 0)
		return;
	CHECK((block.mask & (block.mask + 1)) == 0 && block.first == (dma & ~block.mask));
	CHECK((block.phys & block.mask) == 0 && block.reserved == 0);
	if (dmacore_view_translate(view, dma, access, &translation) != 0) {
		CHECK(block.access == 0);
		return;
	}
	CHECK(block.access == translation.access);
	CHECK(translation.target + (dma - translation.first) == block.phys + (dma - block.first));
}

static void call_view(void)
{
	static uint8_t scratch[16 * PAGE];
	struct object object = *pick_object(VIEW);
	struct dmacore_view *view = object.handle;
	struct dmacore_translation translation = { .first = 1 };
	dmacore_dma_t dma = address("dma");
	uint64_t size = length("size");
	uint32_t access = one_in(32) ? byte() : byte() & 3;
	void *buffer = one_in(64) ? NULL : scratch;

	if (size > sizeof(scratch))
		size = sizeof(scratch);
	switch (world.has_lied ? 0 : byte() % 3) {
	case 0:
		if (RESULT(dmacore_view_translate(view, dma, access, OUT(&translation)), EINVAL,
			   ENOENT, EACCES, EPERM, EFAULT) == 0) {
			CHECK(translation.first <= dma && dma <= translation.last);
			CHECK((translation.access & access) == access);
			if (!may_be_bus_address(dma))
				compare_backend(object.device, object.pasid, dma,
						translation.target + (dma - translation.first));
		}
		compare_block(view, dma, access);
		break;
	case 1:
		(void)RESULT(dmacore_view_read(view, dma, buffer, size), EINVAL, ENOENT, EACCES,
			     EFAULT, EPERM, EOPNOTSUPP, EIO);
		break;
	default:
		(void)RESULT(dmacore_view_write(view, dma, buffer, size), EINVAL, ENOENT, EACCES,
			     EFAULT, EPERM, EOPNOTSUPP, EIO);
		break;
	}
}

static void call_page_request(void)
{
	struct dmacore_page_request request = { .dma = address("dma") };

	if (one_in(3)) {
		answer_page_group();
		return;
	}
	request.access = one_in(16) ? byte() : 1 + byte() % 7;
	request.group_index = byte() % 4;
	request.flags = one_in(32) ? byte() : byte() & DMACORE_PAGE_REQUEST_LAST;
	request.reserved = one_in(64);
	(void)RESULT(dmacore_view_request_page(pick(VIEW), OUT(&request)), EINVAL, EOPNOTSUPP,
		     ENODEV, ENOSPC, ENOMEM);
}

static bool visit_range(dmacore_iova_t first, dmacore_iova_t last, uint32_t use, void *opaque)
{
	CHECK(opaque == &world);
	CHECK(first <= last && use <= DMACORE_IOVA_RESERVED);
	return !one_in(16);
}

static void read_line(const char *line, void *opaque)
{
	CHECK(opaque == &world);
	CHECK(strlen(line) < 256);
}

static void look_at_space(struct dmacore_iova_space *space, uint64_t first, uint64_t size)
{
	uint64_t bytes;

	switch (byte() % 4) {
	case 0:
		(void)RESULT(dmacore_iova_space_drain(space), EINVAL);
		break;
	case 1:
		(void)RESULT(dmacore_iova_space_largest_free(space, first, first + size - 1,
							     OUT(&bytes)),
			     EINVAL);
		break;
	case 2:
		(void)RESULT(dmacore_iova_space_visit(space, OUT(visit_range), &world), EINVAL);
		break;
	default:
		(void)RESULT(dmacore_iova_space_dump(space, OUT(read_line), &world), EINVAL);
		break;
	}
}

static void call_space(void)
{
	struct dmacore_iova_space *space = pick(SPACE);
	uint64_t first = address("first"), size = length("size");
	union storage constraints;
	dmacore_iova_t iova;

	switch (byte() % 6) {
	case 0:
		(void)RESULT(dmacore_iova_space_allocate(
				     space, size, one_in(4) ? number("alignment") : 0,
				     one_in(4) ? first : UINT64_MAX, OUT(&iova)),
			     EINVAL, ENOSPC, ENOMEM);
		break;
	case 1:
		(void)RESULT(dmacore_iova_space_free(space, first, size), EINVAL);
		break;
	case 2:
		if (RESULT(dmacore_iova_space_reserve(space, first, first + size - 1), EINVAL,
			   ERANGE, EBUSY, ENOMEM) == 0)
			remember(first, size);
		break;
	case 3:
		structure(&constraints, sizeof(constraints.constraints));
		constraints.constraints.placement = one_in(32) ? byte() : byte() % 4;
		constraints.constraints.reserved = one_in(64);
		constraints.constraints.alignment = one_in(4) ? number("alignment") : 0;
		constraints.constraints.skew = one_in(8) ? number("skew") : 0;
		constraints.constraints.boundary = one_in(4) ? number("boundary") : 0;
		constraints.constraints.first = one_in(2) ? first : 0;
		constraints.constraints.last = one_in(4) ? number("last") : UINT64_MAX;
		if (RESULT(dmacore_iova_space_allocate_with(
				   space, size, one_in(8) ? NULL : &constraints.constraints,
				   OUT(&iova)),
			   EINVAL, E2BIG, ENOSPC, ENOMEM) == 0)
			remember(iova, size);
		break;
	case 4:
		look_at_space(space, first, size);
		break;
	default:
		(void)RESULT(dmacore_iova_space_unreserve(space, first, first + size - 1), EINVAL);
		break;
	}
}

/* What hardware is to be told, which the table has for one of these at the most. */
static void call_registers(struct dmacore_pagetable *table, uint64_t which)
{
	union storage storage;

#define REGISTERS(name)                                                                          \
	do {                                                                                     \
		structure(&storage, sizeof(storage.name));                                       \
		(void)RESULT(dmacore_pagetable_##name(table, OUT(&storage.name)), EINVAL, E2BIG, \
			     EOPNOTSUPP);                                                        \
	} while (0)

	switch (which % 6) {
	case 0:
		REGISTERS(vtd);
		break;
	case 1:
		REGISTERS(x86_64);
		break;
	case 2:
		REGISTERS(amd_v1);
		break;
	case 3:
		REGISTERS(arm64_stage1);
		break;
	case 4:
		REGISTERS(arm64_stage2);
		break;
	default:
		REGISTERS(riscv);
		break;
	}
#undef REGISTERS
}

static void call_table(void)
{
	struct dmacore_pagetable *table = pick(TABLE);
	struct dmacore_translation translation;
	uint64_t iova = address("iova"), size = length("size"), phys, out;
	uint8_t what = byte();
	/* Mostly what all formats know, else what some do. */
	uint32_t access = what % 32 == 31 ? byte() : byte() & (what >= 0xc0 ? 63 : 3);
	/* Mostly of the largest granule that there is. */
	uint64_t unaligned = what % 8 == 7 ? 0 : (1 << 16) - 1, some, bits[(1 << 24) / PAGE / 64];

	iova &= ~unaligned;
	size = (size + unaligned) & ~unaligned;
	/* Of so much the tables fit the memory, and the bits the array. */
	some = size & ((1 << 24) - 1);
	switch (byte() % 8) {
	case 0:
	case 1:
		phys = address("phys") & ~unaligned;
		if (RESULT(dmacore_pagetable_map(table, iova, phys, size, access), EINVAL, ERANGE,
			   EEXIST, EOPNOTSUPP, ENOMEM) == 0)
			remember(iova, size);
		break;
	case 2:
		(void)RESULT(dmacore_pagetable_unmap(table, iova, size, access & 3, OUT(&out)),
			     EINVAL, ERANGE, EOPNOTSUPP, ENOMEM);
		break;
	case 5:
		if (access & 1)
			(void)RESULT(dmacore_pagetable_reserve(table, iova, some), EINVAL, ERANGE,
				     ENOMEM);
		else
			(void)RESULT(dmacore_pagetable_trim(table, iova, iova + size - 1), EINVAL,
				     ERANGE);
		break;
	case 6:
		if (access & 1)
			(void)RESULT(dmacore_pagetable_read_dirty(table, iova, some, access & 2,
								  one_in(16) ? NULL : bits),
				     EINVAL, ERANGE, EOPNOTSUPP);
		else
			(void)RESULT(dmacore_pagetable_track_dirty(table, iova, size, one_in(2)),
				     EINVAL, ERANGE, EOPNOTSUPP);
		break;
	case 3:
		(void)RESULT(dmacore_pagetable_translate(table, iova, access, OUT(&translation)),
			     EINVAL, ENOENT, EACCES);
		break;
	case 4:
		(void)RESULT(dmacore_pagetable_reclaim(table), EINVAL);
		break;
	default:
		if (access & 1)
			call_registers(table, size / PAGE);
		else
			(void)RESULT(dmacore_pagetable_root(table, OUT(&out)), EINVAL);
		break;
	}
}

static void call_statistics(void)
{
	union storage storage;
	uint8_t how = byte();

	if (how >= 0xf0) {
		structure(&storage, sizeof(storage.capabilities));
		(void)RESULT(dmacore_iommu_capabilities(pick(IOMMU), OUT(&storage.capabilities)),
			     EINVAL, E2BIG, EAGAIN);
		return;
	}
	switch (how % 4) {
	case 0:
		structure(&storage, sizeof(storage.device_statistics));
		(void)RESULT(
			dmacore_device_statistics(pick(DEVICE), OUT(&storage.device_statistics)),
			EINVAL, E2BIG);
		break;
	case 1:
		structure(&storage, sizeof(storage.domain_statistics));
		(void)RESULT(
			dmacore_domain_statistics(pick(DOMAIN), OUT(&storage.domain_statistics)),
			EINVAL, E2BIG);
		break;
	case 2:
		structure(&storage, sizeof(storage.space_statistics));
		(void)RESULT(
			dmacore_iova_space_statistics(pick(SPACE), OUT(&storage.space_statistics)),
			EINVAL, E2BIG);
		break;
	default:
		structure(&storage, sizeof(storage.table_statistics));
		(void)RESULT(
			dmacore_pagetable_statistics(pick(TABLE), OUT(&storage.table_statistics)),
			EINVAL, E2BIG);
		break;
	}
	CHECK(dmacore_version() == DMACORE_VERSION);
}

void step(void)
{
	uint8_t call = byte();

	if (world.depth == 0) {
		(void)allocation_has_failed();
		world.is_starved = false;
		world.backend_error = 0;
		if ((call & 0xe0) == 0xe0)
			allocation_fail_after(byte() & 7);
	}
	switch (call & 31) {
	case 0:
		if (call == 0)
			destroy_nothing();
		else if ((call & 0x60) == 0x40)
			call_page_request();
		else
			call_driver();
		break;
	case 1:
		create_machine(call);
		break;
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
		create();
		break;
	case 7:
		if (may_end_things())
			destroy(pick_object(pick_kind()));
		break;
	case 8:
	case 9:
	case 10:
		call_memory();
		break;
	case 11:
	case 12:
		call_domain();
		break;
	case 13:
		call_device();
		break;
	case 14:
	case 15:
	case 16:
		call_map();
		break;
	case 17:
		if (call < 0x40)
			call_map();
		else if (call < 0xa0)
			call_list();
		else if (call == 0xd1 || (call == 0xf1 && one_in(2)))
			call_transfer();
		else
			call_range();
		break;
	case 18:
		if (call < 0x80)
			call_alloc_coherent();
		else
			call_coherent();
		break;
	case 19:
	case 20:
		call_unmap();
		break;
	case 21:
		call_sync();
		break;
	case 22:
	case 23:
	case 24:
		call_view();
		break;
	case 25:
		if (call < 0x80)
			touch(pick_object(VIEW_MAPPING));
		else if (call >= 0xc0)
			call_peer();
		else
			call_driver();
		break;
	case 26:
	case 27:
		call_space();
		break;
	case 28:
	case 29:
		call_table();
		break;
	case 30:
		if (one_in(4))
			call_statistics();
		else
			call_group();
		break;
	default:
		call_domain_table();
		break;
	}
}

/* A mapping of the file that is left shows in the process's list of mappings. */
static bool file_is_mapped(void)
{
	static char text[1 << 20];
	size_t size = 0;
	ssize_t count;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	while ((count = read(fd, text + size, sizeof(text) - 1 - size)) > 0)
		size += (size_t)count;
	close(fd);
	text[size] = 0;
	return strstr(text, FILE_NAME) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* As what is mapped is rounded down to. */
	static _Alignas(1 << 16) uint8_t ram[RAM_PAGES * PAGE];
	static int file = -1;

	if (file < 0) {
		file = memfd_create(FILE_NAME, MFD_CLOEXEC);
		CHECK(file >= 0 && ftruncate(file, FILE_PAGES * PAGE) == 0);
	}
	world = (struct world){ .program = { data, data + size }, .ram = ram, .file = file };
	allocation_begin();
	begin_backends();
	begin_ops();

	/* The order in which everything goes at the end: from some slot on, up or down. */
	uint8_t order = byte();

	while (!program_is_over(&world.program))
		step();
	/* Before everything goes, or after that. */
	while ((order & 0x80) != 0 && world.page_group_count != 0)
		answer_page_group();
	for (size_t i = 0; i < OBJECTS_MAX; i++)
		destroy(&world.objects[(order & 1 ? order + i : order - i) % OBJECTS_MAX]);
	while (world.page_group_count != 0)
		answer_page_group();
	for (size_t i = 0; i < OBJECTS_MAX; i++)
		CHECK(world.bound[i] == NULL);
	end_backends();
	end_ops();
	CHECK(world.notifiers == 0);
	CHECK(world.table_pages == 0);
	CHECK(world.pool_ranges == 0 || world.may_leak);
	CHECK(!world.has_used_file || !file_is_mapped());
	CHECK(allocation_end() == 0 || world.may_leak);
	return 0;
}
