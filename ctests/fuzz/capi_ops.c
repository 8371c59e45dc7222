/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "capi.h"

#include <errno.h>
#include <inttypes.h>

/*
 * Mapping functions of devices. They keep what they have given, hold the library to ending it as it began,
 * fail when the input says so, and sometimes give what they may not.
 */

#define SLOTS_MAX 512

struct slot {
	const struct dmacore_device *device;
	bool is_allocated;
	struct dmacore_ops_mapping mapping;
};

static struct slot slots[SLOTS_MAX];
static size_t slot_count;

/* Lists that have begun, each inside of the one before, as functions may map lists themselves. */
#define OPEN_LISTS 64

static struct open_list {
	const struct dmacore_device *device;
	bool is_mapping;
} open_lists[OPEN_LISTS];
static size_t open_list_count;

static int failure(void)
{
	static const int errors[] = { EIO, ENOMEM, ENOSPC, ERANGE };
	int error;

	if (!one_in(16))
		return 0;
	error = errors[byte() % 4];
	world.is_starved |= error == ENOMEM;
	fuzz_trace("  the functions fail with %d", error);
	return one_in(32) ? 1 : -error;
}

static void look(const struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		 const void *opaque)
{
	CHECK(opaque == &world && device != NULL);
	CHECK(mapping->struct_size == sizeof(*mapping) && mapping->reserved == 0);
	CHECK(mapping->size != 0 && mapping->kind <= DMACORE_COHERENT && mapping->direction < 3);
}

/* Mostly an address that there may be. */
static int take(const struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		dmacore_dma_t *out_dma)
{
	struct slot *slot = &slots[slot_count];

	CHECK(mapping->dma == 0 && mapping->cpu == NULL && mapping->limit != 0);
	CHECK((mapping->align_mask & (PAGE - 1)) == PAGE - 1);
	if (slot_count == SLOTS_MAX)
		return -ENOSPC;
	*out_dma = ((uint64_t)(1 + byte()) << 20) + (mapping->phys & mapping->align_mask);
	if (one_in(16))
		*out_dma = number("an address of the functions'");
	else if (mapping->size - 1 > mapping->limit ||
		 *out_dma > mapping->limit - (mapping->size - 1))
		return -ERANGE;
	*slot = (struct slot){ device, false, *mapping };
	slot->mapping.dma = *out_dma;
	slot_count++;
	fuzz_trace("  the functions give %#" PRIx64, *out_dma);
	return 0;
}

/* With all that it began with. */
static void give_back(const struct dmacore_device *device,
		      const struct dmacore_ops_mapping *mapping, bool is_allocated)
{
	CHECK(mapping->limit == 0 && mapping->align_mask == 0);
	for (size_t i = slot_count; i-- > 0;) {
		const struct dmacore_ops_mapping *began = &slots[i].mapping;

		if (slots[i].device != device || slots[i].is_allocated != is_allocated ||
		    began->dma != mapping->dma || began->size != mapping->size ||
		    began->cpu != mapping->cpu || began->kind != mapping->kind ||
		    began->direction != mapping->direction ||
		    began->attributes != mapping->attributes ||
		    (!is_allocated && began->phys != mapping->phys))
			continue;
		slots[i] = slots[--slot_count];
		return;
	}
	CHECK(false);
}

static int map(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
	       dmacore_dma_t *out_dma, void *opaque)
{
	int error = failure();

	look(device, mapping, opaque);
	if (error == 0)
		error = take(device, mapping, out_dma);
	step_in_callback();
	return error;
}

static void unmap(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		  void *opaque)
{
	look(device, mapping, opaque);
	give_back(device, mapping, false);
	step_in_callback();
}

static int sync(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		bool is_for_cpu, void *opaque)
{
	(void)is_for_cpu;
	look(device, mapping, opaque);
	CHECK(mapping->kind == DMACORE_STREAMING && mapping->attributes == 0);
	step_in_callback();
	return one_in(16) ? -EIO : 0;
}

static int supported(struct dmacore_device *device, uint32_t kind, dmacore_dma_t wanted,
		     struct dmacore_ops_bypass *out, void *opaque)
{
	static const dmacore_dma_t offsets[] = { 0, UINT64_C(1) << 59, UINT64_C(1) << 40, 0x1000 };

	CHECK(opaque == &world && device != NULL && kind <= DMACORE_COHERENT && wanted != 0);
	CHECK(out->struct_size == sizeof(*out) && out->is_offered == 0 && out->reserved == 0);
	CHECK(out->offset == 0 && out->limit == 0);
	out->is_offered = one_in(2);
	out->offset = one_in(32) ? number("offset") : offsets[byte() % 4];
	out->limit = one_in(4) ? address("limit") : 0;
	step_in_callback();
	return one_in(16) ? -EIO : 0;
}

static dmacore_dma_t required_mask(struct dmacore_device *device, void *opaque)
{
	CHECK(opaque == &world && device != NULL);
	return one_in(4) ? number("required mask") : mask();
}

static void limits(struct dmacore_device *device, struct dmacore_ops_limits *out, void *opaque)
{
	CHECK(opaque == &world && device != NULL && out->struct_size == sizeof(*out));
	CHECK(out->max_size == 0 && out->optimal_size == 0 && out->merge_boundary_mask == 0);
	out->max_size = number("size");
	out->optimal_size = number("size");
	out->merge_boundary_mask = one_in(2) ? PAGE - 1 : number("boundary");
}

static int alloc(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		 void **out_cpu, dmacore_dma_t *out_dma, void *opaque)
{
	int error = failure();

	look(device, mapping, opaque);
	CHECK(mapping->kind == DMACORE_COHERENT && mapping->phys == 0 && mapping->size % PAGE == 0);
	CHECK(mapping->direction == DMACORE_BIDIRECTIONAL && mapping->attributes == 0);
	if (error != 0)
		return error;
	error = take(device, mapping, out_dma);
	if (error != 0)
		return error;
	*out_cpu = allocate_pool(mapping->size, PAGE, mapping->limit, &world);
	if (*out_cpu == NULL) {
		slot_count--;
		return -ENOMEM;
	}
	slots[slot_count - 1].is_allocated = true;
	slots[slot_count - 1].mapping.cpu = *out_cpu;
	return 0;
}

static void release(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		    void *opaque)
{
	look(device, mapping, opaque);
	give_back(device, mapping, true);
	free_pool(mapping->cpu, mapping->size, &world);
}

static void begin_list(struct dmacore_device *device, bool is_mapping, void *opaque)
{
	CHECK(opaque == &world && device != NULL);
	open_lists[open_list_count++ % OPEN_LISTS] = (struct open_list){ device, is_mapping };
	step_in_callback();
}

static int end_list(struct dmacore_device *device, bool is_mapping, void *opaque)
{
	const struct open_list *began;

	CHECK(opaque == &world && device != NULL && open_list_count > 0);
	began = &open_lists[--open_list_count % OPEN_LISTS];
	CHECK(began->device == device && began->is_mapping == is_mapping);
	step_in_callback();
	return failure();
}

void choose_ops(struct dmacore_device_options *options)
{
	static union storage ops;
	uint8_t how = byte();

	structure(&ops, sizeof(ops.mapping_ops));
	if ((how & 7) != 7) {
		ops.mapping_ops.flags = how & 8 ? DMACORE_OPS_BYPASS : 0;
		ops.mapping_ops.map = map;
		ops.mapping_ops.unmap = one_in(64) ? NULL : unmap;
		ops.mapping_ops.sync = how & 16 ? sync : NULL;
		ops.mapping_ops.supported = how & 32 ? supported : NULL;
		ops.mapping_ops.required_mask = how & 64 ? required_mask : NULL;
		ops.mapping_ops.limits = how & 64 ? limits : NULL;
		ops.mapping_ops.begin_list = how & 64 ? begin_list : NULL;
		ops.mapping_ops.end_list = how & 64 ? end_list : NULL;
		ops.mapping_ops.alloc = how & 128 ? alloc : NULL;
		ops.mapping_ops.free = how & 128 ? release : NULL;
	}
	if (one_in(64))
		ops.mapping_ops.flags = byte();
	options->mapping_ops = &ops.mapping_ops;
	options->mapping_ops_opaque = &world;
	if (one_in(16))
		return;
	/* What goes with them. */
	options->iommu = NULL;
	options->range_count = 0;
	options->bounce_pool = NULL;
	options->flags &= ~(uint32_t)DMACORE_DEVICE_FORCE_BOUNCE;
}

void begin_ops(void)
{
	slot_count = 0;
	open_list_count = 0;
}

void end_ops(void)
{
	CHECK(open_list_count == 0);
	for (size_t i = 0; i < slot_count; i++)
		CHECK(slots[i].is_allocated && world.may_leak);
}
