/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_LISTS_H
#define SUPPORT_LISTS_H

/* Lists of memory of a machine, and what a device sees of them. */

#include "machine.h"

#define ENTRIES 32

/* What a list is mapped with, and what came of it. */
struct work {
	struct dmacore_device *device;
	struct dmacore_sg list[ENTRIES];
	size_t entries;
	uint32_t direction;
	uint32_t attributes;
	size_t count;
};

static inline void start(struct work *work, struct dmacore_device *device, uint32_t direction)
{
	memset(work, 0, sizeof(*work));
	work->device = device;
	work->direction = direction;
	dmacore_sg_init(work->list, ENTRIES);
}

static inline void add(struct work *work, dmacore_phys_t phys, uint64_t size)
{
	assert_true(work->entries < ENTRIES);
	dmacore_sg_set(&work->list[work->entries++], phys, size, 0);
}

/* The list has @count entries, of which those that are not set are room. */
static inline int map_at(struct work *work, size_t count)
{
	for (size_t i = 0; i < ENTRIES; i++)
		work->list[i].flags &= ~(uint32_t)DMACORE_SG_LAST;
	work->list[count - 1].flags |= DMACORE_SG_LAST;
	work->entries = count;
	return dmacore_map_list(work->device, work->list, count, work->direction, work->attributes,
				0, &work->count);
}

static inline int map(struct work *work)
{
	return map_at(work, work->entries);
}

static inline int unmap(struct work *work)
{
	return dmacore_unmap_list(work->device, work->list, work->entries, work->direction,
				  work->attributes);
}

#define assert_segment(work, index, dma_, size_)                       \
	do {                                                           \
		assert_int_equal((work)->list[index].dma, dma_);       \
		assert_int_equal((work)->list[index].dma_size, size_); \
	} while (0)

/* So many segments, and an end behind them. */
static inline void assert_count(struct work *work, size_t count)
{
	assert_int_equal(work->count, count);
	for (size_t i = 0; i < count; i++)
		assert_true(work->list[i].dma_size > 0);
	if (count < work->entries)
		assert_int_equal(work->list[count].dma_size, 0);
}

static inline void limit(struct dmacore_device *device, uint64_t size, uint64_t boundary,
			 uint64_t align)
{
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;

	limits.max_segment_size = size;
	limits.segment_boundary_mask = boundary;
	limits.min_align_mask = align;
	assert_ok(dmacore_device_set_limits(device, &limits));
}

/* A map call that fails and leaves the list and everything else alone. */
static inline void assert_refused(struct machine *machine, struct work *work, int error)
{
	struct snapshot before = take_snapshot(machine), after;
	struct dmacore_sg list[ENTRIES];

	/* map() marks the end, which is not the call's doing. */
	for (size_t i = 0; i < work->entries; i++) {
		work->list[i].dma = UNTOUCHED + i;
		work->list[i].dma_size = UNTOUCHED - i;
		work->list[i].path = 0x5a5a;
		work->list[i].dma_flags = 0xa5a5;
	}
	memcpy(list, work->list, sizeof(list));
	assert_fails_untouched(dmacore_map_list(work->device, work->list, work->entries,
						work->direction, work->attributes, 0, &work->count),
			       error, work->count);
	assert_memory_equal(list, work->list, sizeof(list));
	after = take_snapshot(machine);
	/* Addresses that were cached meanwhile are no change. */
	assert_int_equal(before.device.mapping_count, after.device.mapping_count);
	assert_int_equal(before.device.mapping_bytes, after.device.mapping_bytes);
	assert_int_equal(before.domain.mapping_count, after.domain.mapping_count);
	assert_int_equal(before.domain.mapped_bytes, after.domain.mapped_bytes);
}

static inline void mark_end(struct work *work)
{
	for (size_t i = 0; i < ENTRIES; i++)
		work->list[i].flags &= ~(uint32_t)DMACORE_SG_LAST;
	work->list[work->entries - 1].flags |= DMACORE_SG_LAST;
}

static inline uint8_t *bytes_of(struct machine *machine, dmacore_phys_t phys)
{
	if (phys >= HIGH_BASE)
		return machine->high + (phys - HIGH_BASE);
	if (phys >= NEXT_BASE)
		return machine->next + (phys - NEXT_BASE);
	return machine->low + (phys - LOW_BASE);
}

/* What the memory of a list has, one byte behind the other. */
static inline size_t gather(struct machine *machine, const struct dmacore_sg *list, size_t count,
			    uint8_t *bytes)
{
	size_t size = 0;

	for (size_t i = 0; i < count; i++) {
		memcpy(bytes + size, bytes_of(machine, list[i].phys), list[i].size);
		size += list[i].size;
	}
	return size;
}

/* The device sees the memory of the list in its segments, and the other way round. */
static inline void check_transfer(struct machine *machine, struct work *work,
				  struct dmacore_view *view)
{
	static uint8_t memory[2 * RAM_SIZE], seen[2 * RAM_SIZE];
	size_t size, at = 0;

	size = gather(machine, work->list, work->entries, memory);
	for (size_t i = 0; i < work->count; i++) {
		if (work->direction != DMACORE_FROM_DEVICE)
			assert_ok(dmacore_view_read(view, work->list[i].dma, seen + at,
						    work->list[i].dma_size));
		at += work->list[i].dma_size;
	}
	assert_int_equal(at, size);
	if (work->direction != DMACORE_FROM_DEVICE)
		assert_memory_equal(memory, seen, size);
	if (work->direction == DMACORE_TO_DEVICE)
		return;
	fill(memory, size, 77 + size);
	at = 0;
	for (size_t i = 0; i < work->count; i++) {
		assert_ok(dmacore_view_write(view, work->list[i].dma, memory + at,
					     work->list[i].dma_size));
		at += work->list[i].dma_size;
	}
	assert_ok(dmacore_sync_list_for_cpu(work->device, work->list, work->entries, 0, 0,
					    work->direction));
	gather(machine, work->list, work->entries, seen);
	assert_memory_equal(memory, seen, size);
}

#endif /* SUPPORT_LISTS_H */
