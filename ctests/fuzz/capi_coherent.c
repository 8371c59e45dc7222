/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Memory that the library allocates: coherent, in pools, noncontiguous, and declared a device's own. */

#include "capi.h"

#include <errno.h>
#include <string.h>

/* Zeroed, and the caller's: unless the allocator gave it to somebody else too, in a callback of the call. */
static void look_at_memory(void *cpu, uint64_t size, unsigned long given_before)
{
	for (uint64_t i = 0; i < size && world.given - given_before <= 1; i++)
		CHECK(((uint8_t *)cpu)[i] == 0);
	memset(cpu, 0x5a, size);
}

void call_alloc_coherent(void)
{
	struct mapping mapping = { .device = pick(DEVICE), .size = length("size") };
	unsigned long given_before = world.given;

	world.is_starved |= world.has_declared;
	if (RESULT(dmacore_alloc_coherent(mapping.device, mapping.size, OUT(&mapping.cpu),
					  OUT(&mapping.dma)),
		   EINVAL, ENXIO, EPERM, EOPNOTSUPP, EFAULT, ERANGE, EREMOTEIO, ENOSPC, EIO,
		   ENOMEM) != 0)
		return;
	look_at_memory(mapping.cpu, mapping.size, given_before);
	add_mapping(mapping);
}

static void call_alloc_noncontiguous(void)
{
	struct mapping mapping = { .device = pick(DEVICE), .size = length("size") };
	uint32_t attributes = one_in(16) ? (uint32_t)number("attributes") : 0;
	uint64_t sum = 0;

	/* Its allocator never runs out. */
	if (mapping.size > 8 * RAM_PAGES * PAGE && mapping.size < 0 - PAGE)
		mapping.size %= 8 * RAM_PAGES * PAGE;
	mapping.direction = one_in(32) ? byte() : byte() % 3;
	if (RESULT(dmacore_alloc_noncontiguous(mapping.device, mapping.size, mapping.direction,
					       attributes, OUT(&mapping.dma),
					       OUT(&mapping.segments), OUT(&mapping.count)),
		   EINVAL, ENXIO, EPERM, EOPNOTSUPP, EFAULT, ERANGE, EREMOTEIO, ENOSPC, EIO,
		   ENOMEM) != 0)
		return;
	CHECK(mapping.count != 0 && (mapping.dma & (PAGE - 1)) == 0);
	/* The allocator may have given the same page twice. */
	for (size_t i = 0; i < mapping.count; i++) {
		CHECK(mapping.segments[i].size % PAGE == 0);
		CHECK(((uintptr_t)mapping.segments[i].cpu & (PAGE - 1)) == 0);
		memset(mapping.segments[i].cpu, 0x5a, mapping.segments[i].size);
		sum += mapping.segments[i].size;
	}
	CHECK(sum == ((mapping.size + PAGE - 1) & ~(PAGE - 1)));
	add_mapping(mapping);
}

static void call_pool_alloc(void)
{
	const struct object *pool = pick_object(COHERENT_POOL);
	struct mapping mapping = { .device = pool->device, .pool = pool->handle, .size = 1 };
	unsigned long given_before = world.given;

	world.is_starved |= world.has_declared;
	if (RESULT(dmacore_coherent_pool_alloc(pool->handle, OUT(&mapping.cpu), OUT(&mapping.dma)),
		   EINVAL, ENODEV, ENXIO, EPERM, EOPNOTSUPP, EFAULT, ERANGE, EREMOTEIO, ENOSPC, EIO,
		   ENOMEM) != 0)
		return;
	look_at_memory(mapping.cpu, 1, given_before);
	add_mapping(mapping);
}

static void declare(const struct object *device)
{
	uint64_t size = length("size");
	dmacore_phys_t phys;

	/* On a flat system the library believes that it is memory. */
	phys = device->is_flat ? (uintptr_t)ram_range(&size) : address("phys");
	if (RESULT(dmacore_declare_coherent_memory(device->handle, phys, size), EINVAL, EBUSY,
		   EFAULT, EOPNOTSUPP, ENOMEM) == 0)
		world.has_declared = true;
}

void call_coherent(void)
{
	switch (byte() % 8) {
	case 0:
	case 1:
	case 2:
		call_pool_alloc();
		break;
	case 3:
	case 4:
	case 5:
		call_alloc_noncontiguous();
		break;
	case 6:
		declare(pick_object(DEVICE));
		break;
	default:
		(void)RESULT(dmacore_release_coherent_memory(pick(DEVICE)), EINVAL, ENOENT, EBUSY);
		break;
	}
}

int create_coherent_pool(struct dmacore_device *device, struct dmacore_coherent_pool **out)
{
	union storage options;

	structure(&options, sizeof(options.coherent_pool));
	options.coherent_pool.flags = one_in(64);
	options.coherent_pool.reserved = one_in(64);
	options.coherent_pool.size = one_in(8) ? number("size") : 1 + 16 * byte();
	options.coherent_pool.alignment =
		one_in(8) ? number("alignment") : UINT64_C(1) << byte() % 13;
	options.coherent_pool.boundary = one_in(8) ? number("boundary") :
					 one_in(2) ? UINT64_C(1) << byte() % 64 :
						     0;
	return RESULT(dmacore_coherent_pool_create(
			      device, one_in(64) ? NULL : &options.coherent_pool, OUT(out)),
		      EINVAL, E2BIG, ENOMEM);
}

int free_memory(const struct mapping *gone)
{
	if (gone->pool != NULL)
		return RESULT(dmacore_coherent_pool_free(gone->pool, gone->cpu, gone->dma), EINVAL,
			      ENODEV);
	if (gone->segments != NULL)
		return RESULT(dmacore_free_noncontiguous(gone->device, gone->size, gone->dma),
			      EINVAL, EBUSY);
	return RESULT(dmacore_free_coherent(gone->device, gone->size, gone->cpu, gone->dma), EINVAL,
		      EBUSY);
}

void forget_objects(const void *pool)
{
	size_t kept = 0;

	for (size_t i = 0; i < world.mapping_count; i++)
		if (world.mappings[i].pool != pool)
			world.mappings[kept++] = world.mappings[i];
	world.mapping_count = kept;
}
