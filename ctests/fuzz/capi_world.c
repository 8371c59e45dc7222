/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct world world;

/* Arguments. */

uint8_t byte(void)
{
	return take8(&world.program);
}

bool one_in(unsigned int count)
{
	return byte() % count == count - 1;
}

static uint64_t argument(const char *name, uint64_t value)
{
	/* No process has as much memory, so that the library need not even ask for it. */
	world.is_starved |= value >= UINT64_C(1) << 47;
	fuzz_trace("    %s = %#" PRIx64, name, value);
	return value;
}

uint64_t number(const char *name)
{
	return argument(name, take_number(&world.program));
}

void remember(uint64_t first, uint64_t size)
{
	size_t index = world.recent_count++ % RECENT_MAX;

	world.recent[index].first = first;
	world.recent[index].size = size;
}

uint64_t address(const char *name)
{
	uint8_t how = byte();
	uint64_t value;

	if (how >= 0xe0)
		return number(name);
	if (how >= 0x80 && world.recent_count != 0) {
		size_t count = world.recent_count < RECENT_MAX ? world.recent_count : RECENT_MAX;
		size_t index = (how & 0x1f) % count;

		value = world.recent[index].first;
		value += how >= 0xc0 ? take16(&world.program) : 0;
		world.recent_size = world.recent[index].size;
	} else {
		value = (uint64_t)(how & 7) << 16;
		value += (how & 8) != 0 ? take16(&world.program) : 0;
	}
	return argument(name, value);
}

uint64_t length(const char *name)
{
	uint8_t how = byte();
	uint64_t value;

	if (how >= 0xe0)
		return number(name);
	if (how >= 0xa0)
		value = world.recent_size;
	else
		value = how >= 0x60 ? (how & 31) * PAGE : take16(&world.program);
	return argument(name, value);
}

void *ram_range(uint64_t *size)
{
	uint64_t offset = (byte() % RAM_PAGES) * PAGE;

	if (one_in(4))
		offset += take16(&world.program) % PAGE;
	if (*size > RAM_PAGES * PAGE - offset)
		*size = RAM_PAGES * PAGE - offset;
	return world.ram + offset;
}

uint64_t mask(void)
{
	uint8_t bits = byte();

	return bits >= 0xf0 ? number("mask") : DMACORE_BIT_MASK(bits >= 128 ? 64 : bits & 63);
}

void structure(union storage *storage, size_t size)
{
	uint8_t how = byte();

	memset(storage, 0, sizeof(*storage));
	storage->struct_size = size;
	if (how < 0xf0)
		return;
	if (how < 0xf4)
		storage->struct_size = byte();
	else if (how < 0xf8)
		storage->struct_size = sizeof(*storage);
	else
		storage->struct_size = how < 0xfc ? sizeof(*storage) : SIZE_MAX;
	if (how >= 0xf8)
		storage->bytes[size + (how & 3)] = 1;
}

/* Objects. */

size_t count_objects(enum kind kind)
{
	size_t count = 0;

	for (size_t i = 0; i < OBJECTS_MAX; i++)
		count += world.objects[i].kind == kind;
	return count;
}

enum kind pick_kind(void)
{
	uint8_t how = byte();

	if (how >= 0xf0)
		return how >= 0xfe ? COHERENT_POOL :
		       how >= 0xfc ? POOL :
		       how >= 0xfa ? NOTIFIER :
				     GROUP;
	return 1 + how % (GROUP - 1);
}

struct object *pick_object(enum kind kind)
{
	static struct object none;
	uint8_t how = byte();
	size_t count = count_objects(kind);

	none = (struct object){ .kind = NOTHING };
	if (count == 0 || how >= 0xf8)
		return &none;
	count = how % count;
	for (size_t i = 0;; i++)
		if (world.objects[i].kind == kind && count-- == 0)
			return &world.objects[i];
}

void *pick(enum kind kind)
{
	return pick_object(kind)->handle;
}

/* Results. */

int check_result(const char *call, int result, const int *allowed, size_t count)
{
	bool is_allowed = result == 0;

	fuzz_trace("%s = %d", call, result);
	for (size_t i = 0; i < count; i++)
		is_allowed |= result == -allowed[i];
	is_allowed |= world.backend_error != 0 && result == -world.backend_error;
	CHECK(is_allowed);
	/* Kept for the whole step, because a callback may have made calls of its own. */
	world.is_starved |= allocation_has_failed();
	CHECK(result != -ENOMEM || world.is_starved);
	return result;
}

/* Callbacks. */

void step_in_callback(void)
{
	if (world.depth == 2 || !one_in(4))
		return;
	world.depth++;
	fuzz_trace("  from a callback:");
	step();
	world.depth--;
}

void on_report(const struct dmacore_report *report, void *opaque)
{
	CHECK(opaque == &world);
	CHECK(report->struct_size == sizeof(*report));
	CHECK(report->level <= DMACORE_REPORT_WARNING);
	CHECK(report->error >= 0);
	CHECK(report->object != NULL && strlen(report->object) < DMACORE_DEVICE_NAME_SIZE);
	CHECK(strlen(report->text) <= 255 && strchr(report->text, '\n') == NULL);
	fuzz_trace("  report about %s: %s", report->object, report->text);
	world.may_leak |= strstr(report->text, "never freed") != NULL;
	step_in_callback();
}

void on_fault(struct dmacore_device *device, const struct dmacore_fault *fault, void *opaque)
{
	CHECK(opaque == &world);
	CHECK(device != NULL);
	CHECK(fault->first <= fault->last);
	CHECK(fault->access >= 1 && fault->access <= 3);
	CHECK(fault->reason >= DMACORE_FAULT_NOT_MAPPED &&
	      fault->reason <= DMACORE_FAULT_BAD_TABLE);
	CHECK(fault->stage <= 2);
	step_in_callback();
}

void on_domain_fault(struct dmacore_domain *domain, struct dmacore_device *device,
		     const struct dmacore_fault *fault, void *opaque)
{
	CHECK(domain != NULL);
	on_fault(device, fault, opaque);
}

/* Looks at a group as it must be, or with other arguments. */
static void look_at_page_group(struct dmacore_page_request_group *group)
{
	union storage storage = { .struct_size = sizeof(storage.page_group) };

	CHECK(dmacore_page_request_group_read(group, &storage.page_group) == 0);
	CHECK(storage.page_group.device != NULL && storage.page_group.count != 0);
	for (size_t i = 0; i < storage.page_group.count; i++) {
		const struct dmacore_page_request *request = &storage.page_group.requests[i];
		bool is_last = i == storage.page_group.count - 1;

		CHECK(request->group_index == storage.page_group.group_index);
		CHECK((request->flags == DMACORE_PAGE_REQUEST_LAST) == is_last);
	}
	structure(&storage, sizeof(storage.page_group));
	(void)RESULT(dmacore_page_request_group_read(group, OUT(&storage.page_group)), EINVAL,
		     E2BIG);
}

void answer_page_group(void)
{
	static const uint32_t responses[] = { DMACORE_PAGE_RESPONSE_SUCCESS,
					      DMACORE_PAGE_RESPONSE_INVALID,
					      DMACORE_PAGE_RESPONSE_FAILURE };
	struct dmacore_page_request_group *group = NULL;
	size_t index;

	if (world.page_group_count != 0) {
		index = byte() % world.page_group_count;
		group = world.page_groups[index];
		look_at_page_group(group);
		if (one_in(32)) {
			CHECK(dmacore_page_request_group_respond(group, 2) == -EINVAL);
			return;
		}
		/* Before the call: a callback that runs in it finds the handle gone. */
		world.page_groups[index] = world.page_groups[--world.page_group_count];
	}
	if (RESULT(dmacore_page_request_group_respond(group, responses[byte() % 3]), EINVAL,
		   ENOENT) == -EINVAL)
		CHECK(group == NULL);
}

void on_page_request(struct dmacore_page_request_group *group, void *opaque)
{
	CHECK(opaque == &world);
	fuzz_trace("  page request group");
	look_at_page_group(group);
	if (world.page_group_count == PAGE_GROUPS_MAX)
		answer_page_group();
	if (world.page_group_count == PAGE_GROUPS_MAX)
		(void)RESULT(dmacore_page_request_group_respond(group, 0), ENOENT);
	else
		world.page_groups[world.page_group_count++] = group;
	step_in_callback();
}

void on_page_response(struct dmacore_device *device, uint32_t pasid, uint32_t group_index,
		      uint32_t response, void *opaque)
{
	CHECK(opaque == &world && device != NULL);
	CHECK(pasid < 8 && group_index < 4);
	CHECK(response <= DMACORE_PAGE_RESPONSE_INVALID ||
	      response == DMACORE_PAGE_RESPONSE_FAILURE);
	fuzz_trace("  response %u", response);
	step_in_callback();
}

void on_notify(const struct dmacore_notifier_event *event, void *opaque)
{
	CHECK(opaque == &world && world.notifiers > 0);
	CHECK(event->struct_size == sizeof(*event));
	CHECK(event->first <= event->last);
	fuzz_trace("  %s from %#" PRIx64 " to %#" PRIx64,
		   event->type == DMACORE_NOTIFY_MAP ? "mapped" : "unmapped", event->first,
		   event->last);
	if (event->type == DMACORE_NOTIFY_MAP)
		CHECK((event->access & 7) != 0);
	else
		CHECK(event->type == DMACORE_NOTIFY_UNMAP && event->access == 0 &&
		      event->phys == 0);
	step_in_callback();
}

void on_release(void *opaque)
{
	CHECK(opaque == &world);
	world.notifiers--;
	step_in_callback();
}

/* Reads what a device is given or gives back, at pages' ends if it is much. */
static void look_at_bytes(const volatile uint8_t *bytes, uint64_t size)
{
	uint64_t step = size > RAM_PAGES * PAGE ? PAGE : 1;
	volatile uint8_t seen = 0;

	for (uint64_t i = 0; i < size; i += step)
		seen ^= bytes[i];
	seen ^= bytes[size - 1];
}

static void on_cache(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
		     void *opaque)
{
	const struct cache *cache = opaque;
	void *host;

	CHECK(cache >= world.caches && cache < world.caches + world.cache_count);
	CHECK(size != 0 && phys + (size - 1) >= phys && direction < 3);
	CHECK(!is_for_cpu || direction != DMACORE_TO_DEVICE);
	fuzz_trace("  caches of %#" PRIx64 ", size %#" PRIx64, phys, size);
	if (cache->is_flat && !world.has_lied)
		look_at_bytes((void *)(uintptr_t)phys, size);
	else if (!cache->is_flat && is_there(SYSTEM, cache->system) &&
		 dmacore_memory_phys_to_host(cache->system, phys, size, &host) == 0)
		look_at_bytes(host, size);
	step_in_callback();
}

struct cache *take_cache(struct dmacore_system_options *options)
{
	struct cache *cache = &world.caches[world.cache_count];

	if (world.cache_count == CACHES_MAX)
		return NULL;
	world.cache_count++;
	cache->is_flat = options->flags == DMACORE_SYSTEM_FLAT;
	options->cache = on_cache;
	options->cache_opaque = cache;
	return cache;
}

static int region_result(uint64_t offset, uint64_t size, void *opaque)
{
	uint64_t region_size = (uintptr_t)opaque;

	CHECK(size != 0 && size <= region_size && offset <= region_size - size);
	step_in_callback();
	return one_in(8) ? -EIO : 0;
}

int read_region(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	memset(buffer, 0x5a, size);
	return region_result(offset, size, opaque);
}

int write_region(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	const uint8_t *bytes = buffer;
	volatile uint8_t seen = 0;

	for (size_t i = 0; i < size; i++)
		seen ^= bytes[i];
	return region_result(offset, size, opaque);
}

int allocate_table(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	CHECK(opaque == &world);
	if (one_in(64) || posix_memalign(&out_page->host, size, size) != 0) {
		world.is_starved = true;
		return -ENOMEM;
	}
	world.table_pages++;
	/* Another one than in the process, and one that every format has the bits for. */
	out_page->phys = (uint32_t)(uintptr_t)out_page->host;
	/* An address that is not aligned or too wide must be refused and the page given back. */
	if (one_in(64)) {
		out_page->phys += byte() & 1 ? 8 : UINT64_C(1) << 52;
		world.is_starved = true;
	}
	return 0;
}

void free_table(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	CHECK(opaque == &world);
	CHECK((uintptr_t)page->host % size == 0);
	world.table_pages--;
	free(page->host);
}

/* Gives out memory that may be misaligned, not the system's, above the limit, or in use. */
void *allocate_pool(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque)
{
	uint64_t wanted = size;
	void *host = ram_range(&size);

	(void)limit;
	CHECK(opaque == &world);
	CHECK(alignment == PAGE && wanted % PAGE == 0);
	if (size < wanted || one_in(16)) {
		world.is_starved = true;
		return NULL;
	}
	world.pool_ranges++;
	world.given++;
	return host;
}

void free_pool(void *host, uint64_t size, void *opaque)
{
	CHECK(opaque == &world);
	CHECK(size != 0 && (uint8_t *)host >= world.ram &&
	      (uint8_t *)host < world.ram + RAM_PAGES * PAGE);
	world.pool_ranges--;
}
