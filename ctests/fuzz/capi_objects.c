/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>

union handle {
	void *any;
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;
	struct dmacore_domain *domain;
	struct dmacore_view *view;
	struct dmacore_view_mapping *view_mapping;
	struct dmacore_iova_space *space;
	struct dmacore_pagetable *table;
	struct dmacore_group *group;
	struct dmacore_notifier *notifier;
	struct dmacore_bounce_pool *pool;
	struct dmacore_coherent_pool *coherent_pool;
};

static struct object *free_slot(void)
{
	for (size_t i = 0; i < OBJECTS_MAX; i++)
		if (world.objects[i].kind == NOTHING)
			return &world.objects[i];
	return NULL;
}

/* What the formats have, by their numbers. */
static const uint32_t table_features[] = {
	[DMACORE_PAGETABLE_VTD_SECOND_STAGE] =
		DMACORE_PAGETABLE_COHERENCE | DMACORE_PAGETABLE_DIRTY,
	[DMACORE_PAGETABLE_X86_64] = DMACORE_PAGETABLE_SIGNED_INPUT | DMACORE_PAGETABLE_DIRTY,
	[DMACORE_PAGETABLE_AMD_V1] = DMACORE_PAGETABLE_COHERENCE | DMACORE_PAGETABLE_DIRTY,
	[DMACORE_PAGETABLE_ARM64_STAGE1] = DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_DIRTY,
	[DMACORE_PAGETABLE_ARM64_STAGE2] = DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_DIRTY,
	[DMACORE_PAGETABLE_RISCV_FIRST_STAGE] =
		DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_DIRTY | DMACORE_PAGETABLE_MEMORY_TYPES,
	[DMACORE_PAGETABLE_RISCV_SECOND_STAGE] =
		DMACORE_PAGETABLE_RUNS | DMACORE_PAGETABLE_DIRTY | DMACORE_PAGETABLE_MEMORY_TYPES,
};

#define FORMAT_COUNT (sizeof(table_features) / sizeof(table_features[0]) - 1)

/* Mostly what the format has. */
static void choose_table(struct dmacore_pagetable_options *options)
{
	uint8_t format = byte(), shape, levels, widths, features;

	options->format = format % 32 == 31 ? byte() : 1 + format / 32 % FORMAT_COUNT;
	shape = byte();
	levels = byte();
	widths = byte();
	options->input_bits = widths % 64 == 63 ? byte() : 0;
	options->output_bits = one_in(8) ? byte() : 0;
	options->granule = one_in(8) ? UINT32_C(1) << byte() % 32 : 0;
	features = one_in(4) ? byte() : 0;
	options->features = features;
	if (shape % 32 == 31) {
		options->levels = levels;
		return;
	}
	if (options->format == 0 || options->format > FORMAT_COUNT)
		return;
	options->features &= table_features[options->format];
	switch (options->format) {
	case DMACORE_PAGETABLE_AMD_V1:
		options->levels = levels % 7;
		if (options->input_bits == 0 && (shape & 1) != 0)
			options->input_bits = 21 + widths % 44;
		break;
	case DMACORE_PAGETABLE_ARM64_STAGE1:
	case DMACORE_PAGETABLE_ARM64_STAGE2:
		/* How many levels there are follows from the widths. */
		options->levels = levels < 0xc0 ? 0 : 2 + levels % 3;
		if (options->granule == 0)
			options->granule = UINT32_C(4096) << levels % 3 * 2;
		if (options->input_bits == 0 && (shape & 1) != 0)
			options->input_bits = 32 + widths % 21;
		break;
	case DMACORE_PAGETABLE_X86_64:
		options->levels = levels < 0x40 ? 0 : 4 + levels % 2;
		break;
	default:
		options->levels = levels < 0x40 ? 0 : 3 + levels % 3;
		break;
	}
}

const struct dmacore_pagetable_options *table_options(void)
{
	static union storage options, allocator;

	if (one_in(4))
		return NULL;
	structure(&options, sizeof(options.table));
	choose_table(&options.table);
	if (one_in(2)) {
		structure(&allocator, sizeof(allocator.table_allocator));
		allocator.table_allocator.allocate = one_in(64) ? NULL : allocate_table;
		allocator.table_allocator.free = one_in(64) ? NULL : free_table;
		allocator.table_allocator.opaque = &world;
		options.table.allocator = &allocator.table_allocator;
	}
	fuzz_trace("    format %u, levels %u, widths %u and %u, granule %u, features %u",
		   options.table.format, options.table.levels, options.table.input_bits,
		   options.table.output_bits, options.table.granule, options.table.features);
	return &options.table;
}

static int create_system(struct object *object, union handle *out)
{
	static union storage options, allocator;
	struct cache *cache = NULL;
	uint8_t flags, standard;
	bool is_hybrid;
	int result;

	structure(&options, sizeof(options.system));
	options.system.flags = one_in(32);
	flags = byte();
	options.system.flags = options.system.flags ? flags : flags & DMACORE_SYSTEM_FLAT;
	standard = byte();
	options.system.default_domain = standard >= 0xf0 ? standard & 7 : 0;
	options.system.report = on_report;
	options.system.report_opaque = &world;
	if (one_in(2)) {
		structure(&allocator, sizeof(allocator.memory_allocator));
		allocator.memory_allocator.allocate = one_in(64) ? NULL : allocate_pool;
		allocator.memory_allocator.free = one_in(64) ? NULL : free_pool;
		allocator.memory_allocator.opaque = &world;
		options.system.memory_allocator = &allocator.memory_allocator;
	}
	/* Which nothing is said of to devices that are coherent, as all were before there were any. */
	if ((flags & 6) == 6)
		cache = take_cache(&options.system);
	object->has_cache = cache != NULL;
	object->is_flat = options.system.flags == DMACORE_SYSTEM_FLAT;
	is_hybrid = options.system.default_domain == DMACORE_DOMAIN_HYBRID;
	result = RESULT(dmacore_system_create(&options.system, OUT(&out->system)), EINVAL, E2BIG,
			EOPNOTSUPP, ENOMEM);
	CHECK(result != -EOPNOTSUPP || (object->is_flat && is_hybrid));
	if (cache != NULL && result == 0)
		cache->system = out->system;
	return result;
}

static int create_iommu(struct object *object, union handle *out)
{
	struct object *system = pick_object(SYSTEM);
	union storage options;
	struct dmacore_iommu_options *given;
	uint8_t flags;
	bool has_backend;
	int result;

	structure(&options, sizeof(options.iommu));
	/* Inputs from before there were backends mean the same mostly. */
	flags = byte() % 64;
	options.iommu.flags = flags == 63;
	options.iommu.pagetable = table_options();
	given = one_in(8) ? NULL : &options.iommu;
	has_backend = flags >= 48 && given != NULL && take_backend(given, flags);
	object->is_flat = system->is_flat;
	object->system = system->handle;
	result = RESULT(dmacore_iommu_create(system->handle, given, OUT(&out->iommu)), EINVAL,
			E2BIG, EOPNOTSUPP, ENOMEM);
	if (result != 0 && has_backend)
		give_back_backend(given);
	return result;
}

/* Mostly good ones, with the memory of the process among them. */
static void choose_ranges(struct dmacore_device_options *options)
{
	static struct dmacore_dma_range ranges[DMACORE_DMA_RANGES_MAX];
	size_t count = one_in(16) ? byte() % (DMACORE_DMA_RANGES_MAX + 1) : 1 + byte() % 4;

	for (size_t i = 0; i < count; i++) {
		struct dmacore_dma_range *range = &ranges[i];

		range->bus = ((uint64_t)i << 20) + byte() % 16 * PAGE;
		range->phys = ((uint64_t)(count - i) << 20) + byte() % 16 * PAGE;
		range->size = byte() % 32 * 8 * PAGE;
		if (range->size == 0)
			*range = (struct dmacore_dma_range){ range->bus, (uintptr_t)world.ram,
							     RAM_PAGES * PAGE };
		else if (one_in(64))
			range->size = number("size of a range");
	}
	options->ranges = one_in(64) ? NULL : ranges;
	options->range_count = one_in(64) ? number("count of ranges") : count;
	if (options->range_count > DMACORE_DMA_RANGES_MAX)
		fuzz_trace("    too many ranges");
}

/* Where the device is: few IDs, so that devices meet. */
static void choose_place(struct dmacore_device_options *options)
{
	static uint32_t ids[DMACORE_DEVICE_IDS_MAX];
	size_t count = byte() % 3;

	for (size_t i = 0; i < count; i++)
		ids[i] = byte() % 16;
	options->ids = one_in(64) ? NULL : ids;
	options->id_count = one_in(64) ? number("count of IDs") : count;
	if (one_in(4))
		options->flags |= DMACORE_DEVICE_SHARES_SLOT;
	if (options->id_count > DMACORE_DEVICE_IDS_MAX)
		fuzz_trace("    too many IDs");
}

static void choose_regions(struct dmacore_device_options *options, bool is_flat)
{
	static struct dmacore_reserved_region regions[DMACORE_RESERVED_REGIONS_MAX];
	size_t count = 1 + byte() % 3;

	for (size_t i = 0; i < count; i++) {
		uint64_t first = address("reserved"), size = length("reserved");

		regions[i].first = first & ~(PAGE - 1);
		regions[i].last = one_in(32) ? size : (first + size) | (PAGE - 1);
		regions[i].type = one_in(32) ? byte() : 1 + byte() % 5;
		regions[i].reserved = one_in(64);
		/* Whatever is there is then the device's. */
		world.has_lied |= is_flat && regions[i].type <= DMACORE_RESERVED_RELAXABLE;
	}
	options->reserved_regions = one_in(64) ? NULL : regions;
	options->reserved_region_count = one_in(64) ? number("count of regions") : count;
	if (options->reserved_region_count > DMACORE_RESERVED_REGIONS_MAX)
		fuzz_trace("    too many regions");
}

static int create_device(struct object *object, union handle *out)
{
	static const char *const names[] = { NULL, "", "nvme0",
					     "a name that is longer than it may be" };
	struct object *system = pick_object(SYSTEM);
	union storage options;
	uint8_t flags, how;

	structure(&options, sizeof(options.device));
	how = byte();
	flags = byte();
	if (how < 0xf8)
		flags &= DMACORE_DEVICE_TRACK_DIRECT | 0x80 |
			 (system->has_cache ? DMACORE_DEVICE_NONCOHERENT : 0);
	options.device.flags = flags & ~0x80U;
	if ((flags & 0x80) != 0)
		options.device.group = pick(GROUP);
	options.device.fault_capacity = one_in(16) ? (uint32_t)number("capacity") : byte() & 7;
	options.device.name = names[one_in(32) ? 3 : byte() % 3];
	options.device.iommu = one_in(3) ? NULL : pick(IOMMU);
	options.device.streaming_mask = mask();
	options.device.coherent_mask = mask();
	options.device.bus_limit = one_in(8) ? mask() : 0;
	options.device.fault = one_in(8) ? NULL : on_fault;
	options.device.fault_opaque = &world;
	if (one_in(4))
		choose_ranges(&options.device);
	if (one_in(4))
		choose_place(&options.device);
	if (one_in(8))
		choose_regions(&options.device, system->is_flat);
	/* Inputs from before there were any mean the same. */
	if (count_objects(POOL) > 0) {
		options.device.bounce_pool = one_in(2) ? pick(POOL) : NULL;
		options.device.flags |= one_in(2) ? DMACORE_DEVICE_FORCE_BOUNCE : 0;
		options.device.flags |= one_in(4) ? DMACORE_DEVICE_UNTRUSTED : 0;
	}
	if (count_objects(BRIDGE) != 0) {
		options.device.bridge = pick(BRIDGE);
		options.device.flags |= one_in(8) ? DMACORE_DEVICE_UNTRUSTED : 0;
	}
	options.device.pasid_count = one_in(64) ? (uint32_t)number("PASIDs") : byte() % 8;
	/* Inputs from before there were any mean the same. */
	options.device.page_request_capacity = options.device.pasid_count;
	options.device.page_response = options.device.pasid_count == 7 ? NULL : on_page_response;
	options.device.page_response_opaque = &world;
	/* Inputs from before there were any mean the same mostly. */
	if (how >= 0xe0 && how < 0xf8)
		choose_ops(&options.device);
	object->is_flat = system->is_flat;
	return RESULT(dmacore_device_create(system->handle, one_in(32) ? NULL : &options.device,
					    OUT(&out->device)),
		      EINVAL, EPERM, EBUSY, E2BIG, EIO, ENOMEM);
}

/* Tables that are what happens to lie in memory. */
static void nest(struct dmacore_domain_options *options)
{
	static union storage walk;
	struct dmacore_pagetable_options shape = DMACORE_PAGETABLE_OPTIONS_INIT;

	structure(&walk, sizeof(walk.walk));
	choose_table(&shape);
	walk.walk.format = shape.format;
	walk.walk.levels = shape.levels;
	walk.walk.input_bits = shape.input_bits;
	walk.walk.output_bits = shape.output_bits;
	walk.walk.granule = shape.granule;
	walk.walk.features = shape.features;
	walk.walk.root = one_in(16) ? number("root") : address("root") & ~((PAGE << 2) - 1);
	if (one_in(32))
		walk.walk.opaque = &world;
	options->type = DMACORE_DOMAIN_NESTED;
	options->parent = pick(DOMAIN);
	options->guest_table = one_in(32) ? NULL : &walk.walk;
}

bool is_there(enum kind kind, const void *handle)
{
	for (size_t i = 0; i < OBJECTS_MAX; i++)
		if (world.objects[i].kind == kind && world.objects[i].handle == handle)
			return true;
	return false;
}

/* A new hybrid domain leads all memory to itself that every page table is wide enough for. */
static void look_at_window(struct dmacore_system *system, struct dmacore_domain *domain)
{
	struct dmacore_translation found;
	void *host;

	for (size_t i = 0; i < RECENT_MAX && is_there(SYSTEM, system); i++) {
		uint64_t page = (world.recent[i].first + PAGE - 1) & ~(PAGE - 1);

		if (page >= 1 << 20 || dmacore_memory_phys_to_host(system, page, PAGE, &host) != 0)
			continue;
		CHECK(dmacore_domain_translate(domain, page, 0, &found) == 0);
		CHECK(found.target + (page - found.first) == page);
	}
}

static int create_domain(struct object *object, union handle *out)
{
	struct object *iommu = pick_object(IOMMU);
	struct dmacore_domain_options *given;
	union storage options;
	uint8_t type = 0;
	int result;

	structure(&options, sizeof(options.domain));
	if (one_in(32)) {
		options.domain.type = byte();
	} else {
		type = byte();
		options.domain.type =
			(type < 0x80 ? DMACORE_DOMAIN_IDENTITY : DMACORE_DOMAIN_BLOCKED) + type % 2;
		if (type < 0x80 && type % 8 == 4)
			options.domain.type = DMACORE_DOMAIN_HYBRID;
	}
	options.domain.flags = one_in(64);
	if (options.domain.type == DMACORE_DOMAIN_DMA && (type & 2) != 0) {
		options.domain.type = DMACORE_DOMAIN_DMA_LAZY;
		options.domain.flush_entries =
			one_in(16) ? (uint32_t)number("entries") : type / 4 % 8;
		options.domain.flush_age = byte();
		options.domain.reserved = one_in(64);
	}
	if (options.domain.type == DMACORE_DOMAIN_DMA ||
	    options.domain.type == DMACORE_DOMAIN_DMA_LAZY ||
	    options.domain.type == DMACORE_DOMAIN_HYBRID || one_in(32)) {
		options.domain.first = one_in(4) ? number("first") & ~(PAGE - 1) : 0;
		options.domain.last = one_in(4) ? number("last") | (PAGE - 1) : 0;
	}
	/* On a flat system the tables could lie in what is no memory. */
	if (type >= 0xf0 && options.domain.type == DMACORE_DOMAIN_UNMANAGED && !iommu->is_flat)
		nest(&options.domain);
	else if (one_in(2))
		options.domain.group = pick(GROUP);
	options.domain.fault = on_domain_fault;
	if (options.domain.type != DMACORE_DOMAIN_BLOCKED || type % 8 == 7)
		options.domain.page_request = on_page_request;
	options.domain.opaque = &world;
	object->is_flat = iommu->is_flat;
	object->system = iommu->system;
	given = one_in(8) ? NULL : &options.domain;
	object->is_window =
		given != NULL && given->type == DMACORE_DOMAIN_HYBRID && given->group == NULL;
	result = RESULT(dmacore_domain_create(iommu->handle, given, OUT(&out->domain)), EINVAL,
			EAGAIN, ERANGE, E2BIG, EOPNOTSUPP, ENOMEM);
	if (result == 0 && object->is_window)
		look_at_window(object->system, out->domain);
	return result;
}

static int create_space(union handle *out)
{
	union storage options;

	structure(&options, sizeof(options.space));
	options.space.granule = one_in(2) ? number("granule") : 0;
	options.space.first = one_in(2) ? number("first") : 0;
	options.space.last = one_in(2) ? number("last") : 0;
	options.space.flags = one_in(64) ? byte() : one_in(2);
	options.space.report = one_in(2) ? on_report : NULL;
	options.space.report_opaque = &world;
	return RESULT(
		dmacore_iova_space_create(one_in(4) ? NULL : &options.space, OUT(&out->space)),
		EINVAL, E2BIG, ENOMEM);
}

static int create_pool(struct object *object, union handle *out)
{
	struct object *system = pick_object(SYSTEM);
	union storage options;

	structure(&options, sizeof(options.pool));
	options.pool.flags = one_in(64);
	options.pool.reserved = one_in(64);
	options.pool.size = one_in(32) ? number("size") : (1 + byte() % 8) * PAGE;
	options.pool.size_max = one_in(32) ? number("most") : (8 + byte() % 64) * PAGE;
	options.pool.limit = one_in(8) ? mask() : 0;
	object->is_flat = system->is_flat;
	world.has_flat_pool |= system->is_flat;
	/* Larger than there is memory. */
	world.is_starved |= options.pool.size > RAM_PAGES * PAGE;
	return RESULT(dmacore_bounce_pool_create(system->handle, &options.pool, OUT(&out->pool)),
		      EINVAL, E2BIG, EOPNOTSUPP, EFAULT, ERANGE, ENOMEM);
}

static int create_notifier(union handle *out)
{
	union storage options;
	int result;

	structure(&options, sizeof(options.notifier));
	options.notifier.flags = one_in(32) ? byte() : 1 + byte() % 7;
	options.notifier.reserved = one_in(64);
	options.notifier.first = one_in(4) ? address("first") : 0;
	options.notifier.last = one_in(4) ? address("last") : UINT64_MAX;
	options.notifier.notify = one_in(64) ? NULL : on_notify;
	options.notifier.release = on_release;
	options.notifier.opaque = &world;
	result = RESULT(dmacore_notifier_create(pick(DOMAIN), one_in(64) ? NULL : &options.notifier,
						OUT(&out->notifier)),
			EINVAL, E2BIG, ENOMEM);
	if (result != 0)
		return result;
	world.notifiers++;
	(void)RESULT(dmacore_notifier_replay(out->notifier), EINVAL);
	return 0;
}

static int map_view(struct object *object, union handle *out)
{
	struct dmacore_view *view = pick(VIEW);
	dmacore_dma_t dma = address("dma");
	uint64_t size = length("size"), sum = 0;
	int result;

	object->access = one_in(32) ? byte() : 1 + byte() % 3;
	result = RESULT(dmacore_view_map(view, dma, size, object->access, OUT(&out->view_mapping),
					 OUT(&object->segments), OUT(&object->count)),
			EINVAL, ENOENT, EACCES, EFAULT, EPERM, EOPNOTSUPP, EAGAIN, ENOMEM);
	if (result != 0)
		return result;
	for (size_t i = 0; i < object->count; i++)
		sum += object->segments[i].size;
	CHECK(sum == size);
	return result;
}

void create(void)
{
	struct object object = { .kind = pick_kind() };
	struct object *slot = free_slot();
	/* A failed call must set it to NULL. */
	union handle handle = { .any = &world };
	int result = 0;

	/* Not inside a callback, where the slot could be taken twice. */
	if (slot == NULL || world.depth != 0)
		return;
	switch (object.kind) {
	case NOTHING:
	case BRIDGE:
	case PEER:
	case KIND_COUNT:
	case SYSTEM:
		result = create_system(&object, &handle);
		break;
	case IOMMU:
		result = create_iommu(&object, &handle);
		break;
	case DEVICE:
		result = create_device(&object, &handle);
		break;
	case DOMAIN:
		result = create_domain(&object, &handle);
		break;
	case VIEW:
		if (one_in(4)) {
			object.device = pick(DEVICE);
			object.pasid = byte() % 8;
			result = RESULT(dmacore_view_create_pasid(object.device, object.pasid,
								  OUT(&handle.view)),
					EINVAL, ENOMEM);
			break;
		}
		object.device = pick(DEVICE);
		result = RESULT(dmacore_view_create(object.device, OUT(&handle.view)), EINVAL,
				ENOMEM);
		break;
	case VIEW_MAPPING:
		result = map_view(&object, &handle);
		break;
	case SPACE:
		result = create_space(&handle);
		break;
	case TABLE:
		result = RESULT(dmacore_pagetable_create(table_options(), OUT(&handle.table)),
				EINVAL, E2BIG, EOPNOTSUPP, ENOMEM);
		break;
	case GROUP:
		result = RESULT(dmacore_group_create(pick(SYSTEM), OUT(&handle.group)), EINVAL,
				ENOMEM);
		break;
	case NOTIFIER:
		result = create_notifier(&handle);
		break;
	case POOL:
		result = create_pool(&object, &handle);
		break;
	case COHERENT_POOL:
		object.device = pick(DEVICE);
		result = create_coherent_pool(object.device, &handle.coherent_pool);
		break;
	}
	if (result != 0) {
		/* It is also still set when the call was told to put it nowhere. */
		CHECK(handle.any == NULL || result == -EINVAL);
		return;
	}
	CHECK(handle.any != NULL && handle.any != &world);
	object.handle = handle.any;
	*slot = object;
}

void keep(enum kind kind, void *handle, bool is_flat)
{
	if (handle != NULL)
		*free_slot() =
			(struct object){ .kind = kind, .handle = handle, .is_flat = is_flat };
}

/* What belongs to a system; @is_window: a hybrid domain, which honours no reserved regions. */
static void keep_of(void *system, enum kind kind, void *handle, bool is_flat, bool is_window)
{
	if (handle != NULL)
		*free_slot() = (struct object){ .kind = kind,
						.handle = handle,
						.is_flat = is_flat,
						.system = system,
						.is_window = is_window };
}

/* Whether a mapping that a call made has an address, or may have. */
static bool is_mapped(uint64_t page)
{
	bool found = world.mapping_count == MAPPINGS_MAX;

	for (size_t i = 0; i < world.mapping_count; i++) {
		const struct mapping *mapping = &world.mappings[i];

		found |= (mapping->dma & ~(PAGE - 1)) <= page &&
			 page <= mapping->dma + (mapping->size - 1);
	}
	return found;
}

static void check_window(struct dmacore_system *system, struct dmacore_domain *domain,
			 uint64_t page)
{
	struct dmacore_translation found;
	void *host;

	if (dmacore_domain_translate(domain, page, 0, &found) == 0 &&
	    found.target + (page - found.first) == page && !is_mapped(page))
		CHECK(dmacore_memory_phys_to_host(system, page, PAGE, &host) == 0);
}

void check_windows(struct dmacore_system *system, uint64_t first, uint64_t size)
{
	for (size_t i = 0; i < OBJECTS_MAX && is_there(SYSTEM, system); i++) {
		struct object *domain = &world.objects[i];

		if (domain->kind != DOMAIN || !domain->is_window || domain->system != system)
			continue;
		check_window(system, domain->handle, (first + PAGE - 1) & ~(PAGE - 1));
		check_window(system, domain->handle, (first + size - 1) & ~(PAGE - 1));
	}
}

/*
 * A whole machine at once, which the fuzzer would take long to come by: memory, a device with or
 * without an IOMMU and a domain, and a view; at times a notifier, or another device in its group. An
 * allocation may fail on the way. Calls of some numbers make devices that do not see the caches.
 */
void create_machine(uint8_t call)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_iommu_options iommu_options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_notifier_options notifier_options = DMACORE_NOTIFIER_OPTIONS_INIT;
	union handle system, device, domain = { .any = NULL }, view, notifier, pool;
	uint8_t how = byte();
	struct dmacore_memory_allocator allocator = { sizeof(allocator), allocate_pool, free_pool,
						      &world };
	bool is_flat = how & 1, has_backend, is_coherent = call != 0xc1;
	struct cache *cache = NULL;

	if (world.depth != 0 || count_objects(NOTHING) < 8)
		return;
	system_options.flags = is_flat ? DMACORE_SYSTEM_FLAT : 0;
	system_options.report = on_report;
	system_options.report_opaque = &world;
	if (!is_coherent) {
		cache = take_cache(&system_options);
		system_options.memory_allocator = &allocator;
	}
	(void)RESULT(dmacore_system_create(&system_options, &system.system), ENOMEM);
	if (system.any != NULL)
		*free_slot() = (struct object){ .kind = SYSTEM,
						.handle = system.any,
						.is_flat = is_flat,
						.has_cache = cache != NULL };
	if (cache != NULL)
		cache->system = system.system;
	region.size = RAM_PAGES * PAGE;
	region.backing = DMACORE_MEMORY_HOST;
	region.host = world.ram;
	(void)RESULT(dmacore_memory_add(system.system, &region), EINVAL, EOPNOTSUPP, ENOMEM);
	if ((how & 2) != 0) {
		iommu_options.pagetable = how >= 0xc0 ? table_options() : NULL;
		has_backend = (how & 0xc0) == 0x80 && take_backend(&iommu_options, 0);
		(void)RESULT(
			dmacore_iommu_create(system.system, &iommu_options, &device_options.iommu),
			EINVAL, E2BIG, EOPNOTSUPP, ENOMEM);
		if (has_backend && device_options.iommu == NULL)
			give_back_backend(&iommu_options);
		keep_of(system.any, IOMMU, device_options.iommu, is_flat, false);
		domain_options.type = how & 4 ? DMACORE_DOMAIN_DMA : DMACORE_DOMAIN_IDENTITY;
		if ((how & 0x20) != 0)
			domain_options.type =
				how & 4 ? DMACORE_DOMAIN_UNMANAGED : DMACORE_DOMAIN_BLOCKED;
		else if ((how & 0x44) == 0x44)
			domain_options.type = DMACORE_DOMAIN_DMA_LAZY;
		else if ((how & 0x45) == 0x40)
			domain_options.type = DMACORE_DOMAIN_HYBRID;
		domain_options.fault = on_domain_fault;
		if (domain_options.type != DMACORE_DOMAIN_BLOCKED)
			domain_options.page_request = on_page_request;
		domain_options.opaque = &world;
		(void)RESULT(dmacore_domain_create(device_options.iommu, &domain_options,
						   &domain.domain),
			     EINVAL, EOPNOTSUPP, ENOMEM);
		keep_of(system.any, DOMAIN, domain.any, is_flat,
			domain_options.type == DMACORE_DOMAIN_HYBRID);
	}
	if ((how & 0x42) == 0x42) {
		notifier_options.flags |= how & 1 ? DMACORE_NOTIFY_ALIGNED : 0;
		notifier_options.notify = on_notify;
		notifier_options.release = on_release;
		notifier_options.opaque = &world;
		world.notifiers += RESULT(dmacore_notifier_create(domain.domain, &notifier_options,
								  &notifier.notifier),
					  EINVAL, ENOMEM) == 0;
		keep(NOTIFIER, notifier.any, is_flat);
	}
	device_options.flags = how & 8 ? DMACORE_DEVICE_TRACK_DIRECT : 0;
	device_options.flags |= cache != NULL ? DMACORE_DEVICE_NONCOHERENT : 0;
	if ((how & 0x19) == 9) {
		struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;

		pool_options.size = 4 * PAGE;
		pool_options.size_max = 16 * PAGE;
		(void)RESULT(dmacore_bounce_pool_create(system.system, &pool_options, &pool.pool),
			     EINVAL, EFAULT, ERANGE, ENOMEM);
		keep(POOL, pool.any, is_flat);
		world.has_flat_pool = true;
		device_options.flags |= DMACORE_DEVICE_FORCE_BOUNCE;
		device_options.bounce_pool = pool.pool;
	}
	device_options.streaming_mask = UINT64_MAX;
	device_options.coherent_mask = UINT64_MAX;
	device_options.fault = on_fault;
	device_options.fault_opaque = &world;
	device_options.page_request_capacity = 4;
	device_options.page_response = on_page_response;
	device_options.page_response_opaque = &world;
	/* Inputs from before there were any mean the same mostly. */
	if ((how & 0x42) == 0x40)
		choose_ops(&device_options);
	(void)RESULT(dmacore_device_create(system.system, &device_options, &device.device), EINVAL,
		     EIO, E2BIG, ENOMEM);
	keep(DEVICE, device.any, is_flat);
	if ((how & 2) != 0)
		(void)RESULT(dmacore_domain_attach(domain.domain, device.device), EINVAL);
	(void)RESULT(dmacore_view_create(device.device, &view.view), EINVAL, ENOMEM);
	if (view.any != NULL)
		*free_slot() = (struct object){
			.kind = VIEW, .handle = view.any, .is_flat = is_flat, .device = device.any
		};
	if ((how & 16) == 0)
		return;
	(void)RESULT(dmacore_device_group(device.device, &device_options.group), EINVAL);
	keep(GROUP, device_options.group, is_flat);
	(void)RESULT(dmacore_device_create(system.system, &device_options, &device.device), EINVAL,
		     EIO, E2BIG, ENOMEM);
	keep(DEVICE, device.any, is_flat);
}

void touch(const struct object *mapping)
{
	if (world.has_lied)
		return;
	for (size_t i = 0; i < mapping->count; i++) {
		volatile uint8_t *first = mapping->segments[i].host;
		volatile uint8_t *last = first + mapping->segments[i].size - 1;
		uint8_t seen = *first ^ *last;

		if ((mapping->access & DMACORE_ACCESS_WRITE) != 0) {
			*first = seen;
			*last = seen;
		}
	}
}

void forget_mappings(const struct dmacore_device *device)
{
	size_t kept = 0;

	forget_lists(device);
	forget_ranges(device);
	for (size_t i = 0; i < world.mapping_count; i++)
		if (world.mappings[i].device != device)
			world.mappings[kept++] = world.mappings[i];
	world.mapping_count = kept;
}

#define DESTROY(call) (fuzz_trace(#call), call)

void destroy(struct object *object)
{
	struct object gone = *object;

	/* Before the call: a callback that runs in it finds the handle gone. */
	object->kind = NOTHING;
	object->handle = NULL;
	switch (gone.kind) {
	case NOTHING:
	case KIND_COUNT:
		break;
	case SYSTEM:
		DESTROY(dmacore_system_destroy(gone.handle));
		break;
	case IOMMU:
		DESTROY(dmacore_iommu_destroy(gone.handle));
		break;
	case DEVICE:
		end_transfers(gone.handle);
		forget_mappings(gone.handle);
		DESTROY(dmacore_device_destroy(gone.handle));
		break;
	case DOMAIN:
		DESTROY(dmacore_domain_destroy(gone.handle));
		break;
	case VIEW:
		DESTROY(dmacore_view_destroy(gone.handle));
		break;
	case VIEW_MAPPING:
		touch(&gone);
		DESTROY(dmacore_view_unmap(gone.handle));
		break;
	case SPACE:
		DESTROY(dmacore_iova_space_destroy(gone.handle));
		break;
	case TABLE:
		DESTROY(dmacore_pagetable_destroy(gone.handle));
		break;
	case GROUP:
		DESTROY(dmacore_group_destroy(gone.handle));
		break;
	case NOTIFIER:
		DESTROY(dmacore_notifier_destroy(gone.handle));
		break;
	case POOL:
		DESTROY(dmacore_bounce_pool_destroy(gone.handle));
		break;
	case BRIDGE:
		DESTROY(dmacore_bridge_destroy(gone.handle));
		break;
	case PEER:
		DESTROY(dmacore_peer_destroy(gone.handle));
		break;
	case COHERENT_POOL:
		forget_objects(gone.handle);
		DESTROY(dmacore_coherent_pool_destroy(gone.handle));
		break;
	}
}

void destroy_nothing(void)
{
	dmacore_system_destroy(NULL);
	dmacore_iommu_destroy(NULL);
	dmacore_device_destroy(NULL);
	dmacore_domain_destroy(NULL);
	dmacore_view_destroy(NULL);
	dmacore_view_unmap(NULL);
	dmacore_iova_space_destroy(NULL);
	dmacore_pagetable_destroy(NULL);
	dmacore_group_destroy(NULL);
	dmacore_notifier_destroy(NULL);
	dmacore_bounce_pool_destroy(NULL);
	dmacore_bridge_destroy(NULL);
	dmacore_peer_destroy(NULL);
	dmacore_coherent_pool_destroy(NULL);
}
