/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_GRANTS_H
#define SUPPORT_GRANTS_H

/*
 * Mapping functions as a hypervisor's grant tables have them: a slot for each mapping, which knows all
 * that it was made from and looks whether it is ended with the same. With a window as a logical partition
 * builds it, on demand, for masks above 32 bits.
 */

#include "machine.h"

#define GRANTS 32
#define GRANT_BASE UINT64_C(0x100000)
#define GRANT_SIZE UINT64_C(0x100000)

/* The window: where it is, and how much memory it has. */
#define WINDOW_OFFSET (UINT64_C(1) << 59)
#define WINDOW_SIZE (UINT64_C(1) << 40)

struct grants {
	struct dmacore_mapping_ops ops;
	struct grant {
		bool is_used;
		bool is_allocated;
		struct dmacore_ops_mapping mapping;
	} slots[GRANTS];
	/* What the calls ended with that were not as they must be. */
	unsigned wrong;
	unsigned map_count, unmap_count, sync_count, alloc_count, free_count, supported_count;
	/* What they return instead, if it is not 0. */
	int map_result, sync_result, alloc_result;
	/* For kinds. */
	int supported_result[2];
	/* An address to give instead, if it is not UNTOUCHED. */
	dmacore_dma_t address;
	/* Memory to give instead, if it is not UNTOUCHED. */
	void *memory;
	/* Masks from here on get the window; how large it is, and where. */
	dmacore_dma_t window_mask, window_limit, window_offset;
	/* The last one of each. */
	struct dmacore_ops_mapping mapped, unmapped, synced, freed;
	bool is_for_cpu;
	dmacore_dma_t mask;
	uint32_t kind;
	/* Where alloc has memory from. */
	struct machine *machine;
	/* Called in each function but those that ask, if there is one. */
	void (*hook)(struct grants *grants, char what);
	struct dmacore_ops_limits limits;
	dmacore_dma_t required_mask;
	const struct dmacore_device *device;
};

static inline void grants_look(struct grants *grants, struct dmacore_device *device,
			       const struct dmacore_ops_mapping *mapping, char what)
{
	if (mapping->struct_size != sizeof(*mapping) || mapping->reserved != 0 ||
	    mapping->size == 0 || mapping->phys + (mapping->size - 1) < mapping->phys || !device ||
	    (grants->device && device != grants->device))
		grants->wrong++;
	if (grants->hook)
		grants->hook(grants, what);
}

static inline struct grant *grants_take(struct grants *grants,
					const struct dmacore_ops_mapping *mapping,
					dmacore_dma_t *out_dma)
{
	uint64_t offset = mapping->phys % PAGE;

	if (mapping->dma != 0 || mapping->cpu || mapping->limit == 0 ||
	    (mapping->align_mask & (PAGE - 1)) != PAGE - 1 || mapping->size > GRANT_SIZE - offset)
		grants->wrong++;
	for (uint64_t i = 0; i < GRANTS; i++) {
		if (grants->slots[i].is_used)
			continue;
		*out_dma = GRANT_BASE + i * GRANT_SIZE + offset;
		if (grants->address != UNTOUCHED)
			*out_dma = grants->address;
		else if (*out_dma + (mapping->size - 1) > mapping->limit)
			return NULL;
		grants->slots[i].is_used = true;
		grants->slots[i].is_allocated = false;
		grants->slots[i].mapping = *mapping;
		grants->slots[i].mapping.dma = *out_dma;
		return &grants->slots[i];
	}
	return NULL;
}

/* Finds the slot of what ends, which must be all that it began with. */
static inline void grants_give_back(struct grants *grants,
				    const struct dmacore_ops_mapping *mapping, bool is_allocated)
{
	if (mapping->limit != 0 || mapping->align_mask != 0)
		grants->wrong++;
	for (unsigned i = 0; i < GRANTS; i++) {
		const struct dmacore_ops_mapping *slot = &grants->slots[i].mapping;

		if (!grants->slots[i].is_used || grants->slots[i].is_allocated != is_allocated ||
		    slot->dma != mapping->dma || slot->phys != mapping->phys ||
		    slot->size != mapping->size || slot->kind != mapping->kind ||
		    slot->cpu != mapping->cpu || slot->direction != mapping->direction ||
		    slot->attributes != mapping->attributes)
			continue;
		grants->slots[i].is_used = false;
		return;
	}
	grants->wrong++;
}

static inline int grants_map(struct dmacore_device *device,
			     const struct dmacore_ops_mapping *mapping, dmacore_dma_t *out_dma,
			     void *opaque)
{
	struct grants *grants = opaque;

	grants->map_count++;
	grants->mapped = *mapping;
	grants_look(grants, device, mapping, 'm');
	if (grants->map_result)
		return grants->map_result;
	return grants_take(grants, mapping, out_dma) ? 0 : -ERANGE;
}

static inline void grants_unmap(struct dmacore_device *device,
				const struct dmacore_ops_mapping *mapping, void *opaque)
{
	struct grants *grants = opaque;

	grants->unmap_count++;
	grants->unmapped = *mapping;
	grants_look(grants, device, mapping, 'u');
	grants_give_back(grants, mapping, false);
}

static inline int grants_sync(struct dmacore_device *device,
			      const struct dmacore_ops_mapping *mapping, bool is_for_cpu,
			      void *opaque)
{
	struct grants *grants = opaque;
	bool is_found = false;

	grants->sync_count++;
	grants->synced = *mapping;
	grants->is_for_cpu = is_for_cpu;
	grants_look(grants, device, mapping, is_for_cpu ? 'c' : 'd');
	for (unsigned i = 0; i < GRANTS; i++) {
		const struct dmacore_ops_mapping *slot = &grants->slots[i].mapping;

		is_found |= grants->slots[i].is_used && mapping->dma >= slot->dma &&
			    mapping->dma - slot->dma + mapping->size <= slot->size &&
			    mapping->phys - slot->phys == mapping->dma - slot->dma;
	}
	grants->wrong += !is_found || mapping->kind != DMACORE_STREAMING;
	return grants->sync_result;
}

static inline int grants_supported(struct dmacore_device *device, uint32_t kind, dmacore_dma_t mask,
				   struct dmacore_ops_bypass *out, void *opaque)
{
	struct grants *grants = opaque;

	grants->supported_count++;
	grants->kind = kind;
	grants->mask = mask;
	if (kind > DMACORE_COHERENT || !device || out->struct_size != sizeof(*out) ||
	    out->is_offered || out->reserved || out->offset || out->limit || mask == 0)
		grants->wrong++;
	if (grants->supported_result[kind & 1])
		return grants->supported_result[kind & 1];
	if (mask >= grants->window_mask) {
		out->is_offered = 1;
		out->offset = grants->window_offset;
		out->limit = grants->window_limit;
	}
	return 0;
}

static inline dmacore_dma_t grants_required_mask(struct dmacore_device *device, void *opaque)
{
	struct grants *grants = opaque;

	grants->wrong += device != grants->device;
	return grants->required_mask;
}

static inline void grants_limits(struct dmacore_device *device, struct dmacore_ops_limits *out,
				 void *opaque)
{
	struct grants *grants = opaque;

	grants->wrong += device != grants->device || out->struct_size != sizeof(*out) ||
			 out->max_size || out->optimal_size || out->merge_boundary_mask;
	*out = grants->limits;
}

static inline int grants_alloc(struct dmacore_device *device,
			       const struct dmacore_ops_mapping *mapping, void **out_cpu,
			       dmacore_dma_t *out_dma, void *opaque)
{
	struct grants *grants = opaque;
	struct grant *grant;

	grants->alloc_count++;
	grants->mapped = *mapping;
	grants_look(grants, device, mapping, 'a');
	if (mapping->phys != 0 || mapping->kind != DMACORE_COHERENT || mapping->size % PAGE ||
	    mapping->direction != DMACORE_BIDIRECTIONAL || mapping->attributes != 0)
		grants->wrong++;
	if (grants->alloc_result)
		return grants->alloc_result;
	grant = grants_take(grants, mapping, out_dma);
	if (!grant)
		return -ENOSPC;
	*out_cpu = grants->memory;
	if (grants->memory == (void *)(uintptr_t)UNTOUCHED)
		*out_cpu = coherent_pool_allocate(mapping->size, PAGE, UINT64_MAX,
						  &grants->machine->pool);
	grant->is_allocated = true;
	grant->mapping.cpu = *out_cpu;
	/* What is not the system's has no physical address for free either. */
	if (*out_cpu && dmacore_memory_host_to_phys(grants->machine->system, *out_cpu,
						    mapping->size, &grant->mapping.phys))
		grant->mapping.phys = 0;
	if (grants->memory != (void *)(uintptr_t)UNTOUCHED)
		grant->mapping.phys = 0;
	return 0;
}

static inline void grants_free(struct dmacore_device *device,
			       const struct dmacore_ops_mapping *mapping, void *opaque)
{
	struct grants *grants = opaque;

	grants->free_count++;
	grants->freed = *mapping;
	grants_look(grants, device, mapping, 'f');
	grants_give_back(grants, mapping, true);
	if (grants->memory == (void *)(uintptr_t)UNTOUCHED)
		coherent_pool_free(mapping->cpu, mapping->size, &grants->machine->pool);
}

static inline unsigned grants_live(const struct grants *grants)
{
	unsigned count = 0;

	for (unsigned i = 0; i < GRANTS; i++)
		count += grants->slots[i].is_used;
	return count;
}

static inline void grants_start(struct grants *grants, struct machine *machine)
{
	memset(grants, 0, sizeof(*grants));
	grants->ops = (struct dmacore_mapping_ops)DMACORE_MAPPING_OPS_INIT;
	grants->ops.flags = DMACORE_OPS_BYPASS;
	grants->ops.map = grants_map;
	grants->ops.unmap = grants_unmap;
	grants->ops.sync = grants_sync;
	grants->ops.supported = grants_supported;
	grants->address = UNTOUCHED;
	grants->memory = (void *)(uintptr_t)UNTOUCHED;
	grants->window_mask = UINT64_C(1) << 32;
	grants->window_offset = WINDOW_OFFSET;
	grants->window_limit = WINDOW_OFFSET + WINDOW_SIZE - 1;
	grants->limits.struct_size = sizeof(grants->limits);
	grants->machine = machine;
}

/* Nothing is left, and nothing was wrong. */
static inline void grants_stop(struct grants *grants)
{
	assert_int_equal(grants_live(grants), 0);
	assert_int_equal(grants->wrong, 0);
}

/* The options of a device with these functions. */
static inline struct dmacore_device_options grants_options(struct grants *grants)
{
	struct dmacore_device_options options = device_options(grants->machine);

	options.streaming_mask = options.coherent_mask = DMACORE_BIT_MASK(32);
	options.mapping_ops = &grants->ops;
	options.mapping_ops_opaque = grants;
	return options;
}

/* Puts a device with these functions in place of the machine's. */
static inline void grants_use(struct grants *grants, struct dmacore_device_options options)
{
	struct machine *machine = grants->machine;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	grants->device = machine->device;
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

#endif /* SUPPORT_GRANTS_H */
