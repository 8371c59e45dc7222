/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Lists of memory: mapped, chained, altered, synced and unmapped. */

#include "capi.h"

#include <errno.h>
#include <string.h>

/* A list that no call is under way with: a live one, or one that is not; NULL if there is none. */
static struct list *take_list(bool is_live)
{
	size_t first = byte();

	for (size_t i = 0; i < LISTS_MAX; i++) {
		struct list *list = &world.lists[(first + i) % LISTS_MAX];

		if (!list->is_busy && (list->device != NULL) == is_live)
			return list;
	}
	return NULL;
}

/* Makes a list of the input; seldom one that is none. */
static void make_list(struct list *list, const struct object *device)
{
	size_t at = 0;

	memset(list->entries, 0, sizeof(list->entries));
	list->count = 1 + byte() % (LIST_ENTRIES / 2 - 1);
	for (size_t i = 0; i < list->count; i++) {
		struct dmacore_sg *entry = &list->entries[at++];
		uint64_t size = length("size"), last = at > 1 ? at - 2 : 0;

		if (i > 0 && one_in(8)) {
			dmacore_sg_chain(entry, &list->entries[at]);
			if (one_in(32))
				entry->next = &list->entries[byte() % LIST_ENTRIES];
			if (one_in(64))
				entry->next = NULL;
			entry = &list->entries[at++];
		}
		if (one_in(2) || (device->is_flat && (world.has_flat_pool || !one_in(4)))) {
			entry->phys = (uintptr_t)ram_range(&size);
		} else {
			world.has_lied |= device->is_flat;
			entry->phys = address("phys");
		}
		entry->size = one_in(8) ? 0 : size;
		/* Contiguous with the one before it. */
		if (i > 0 && one_in(3) && !device->is_flat)
			entry->phys = list->entries[last].phys + list->entries[last].size;
		entry->flags = one_in(16) ? DMACORE_SG_MMIO : 0;
		if (one_in(128))
			entry->flags |= number("flags");
		if (i + 1 == list->count)
			entry->flags |= one_in(64) ? 0 : DMACORE_SG_LAST;
	}
}

static void map_list(void)
{
	struct object *device = pick_object(DEVICE);
	struct list *list = take_list(false);
	struct dmacore_sg before[LIST_ENTRIES], *entry;
	uint64_t size = 0, mapped = 0;
	size_t segments = SIZE_MAX;
	int result;

	if (list == NULL)
		return;
	make_list(list, device);
	list->direction = one_in(32) ? byte() : byte() % 3;
	list->attributes = attributes();
	memcpy(before, list->entries, sizeof(before));
	list->is_busy = true;
	result = RESULT(dmacore_map_list(device->handle, list->entries, list->count,
					 list->direction, list->attributes,
					 one_in(8) ? byte() % 8 : 0, one_in(64) ? NULL : &segments),
			EINVAL, ENXIO, EPERM, EOPNOTSUPP, ERANGE, EREMOTEIO, E2BIG, ENOSPC, EIO,
			ENOMEM);
	list->is_busy = false;
	if (result != 0) {
		CHECK(segments == SIZE_MAX);
		CHECK(memcmp(before, list->entries, sizeof(before)) == 0);
		return;
	}
	CHECK(segments > 0 && segments <= list->count);
	list->device = device->handle;
	entry = list->entries;
	for (size_t i = 0; i < list->count; i++, entry = dmacore_sg_next(entry)) {
		CHECK(entry != NULL);
		size += entry->size;
		if (i > segments)
			continue;
		CHECK((entry->dma_size > 0) == (i < segments));
		CHECK(entry->dma_size == 0 || entry->dma + (entry->dma_size - 1) >= entry->dma);
		mapped += entry->dma_size;
		if (i < segments)
			remember(entry->dma, entry->dma_size);
	}
	CHECK(entry == NULL);
	CHECK(size == mapped);
}

/* Changes a list that is mapped a little. */
static void alter(struct list *list)
{
	struct dmacore_sg *entry = &list->entries[byte() % LIST_ENTRIES];

	switch (byte() % 8) {
	case 0:
		entry->dma += one_in(2) ? 1 : PAGE;
		break;
	case 1:
		entry->dma_size = one_in(2) ? entry->dma_size / 2 : number("size");
		break;
	case 2:
		entry->path = byte();
		break;
	case 3:
		entry->dma_flags ^= 1;
		break;
	case 4:
		entry->flags ^= 1U << byte() % 8;
		break;
	case 5:
		/* Leads nowhere, or anywhere in the list. */
		dmacore_sg_chain(entry,
				 one_in(2) ? NULL : &list->entries[byte() % (LIST_ENTRIES / 2)]);
		break;
	case 6:
		/* Nobody looks at these again. */
		entry->phys = number("phys");
		entry->size = number("size");
		break;
	default:
		list->count = 1 + byte() % (LIST_ENTRIES / 2);
		break;
	}
}

static void use_list(void)
{
	struct list *list = take_list(true), whole;
	uint64_t offset, size;
	int result = -EINVAL;

	if (list == NULL)
		return;
	memcpy(&whole, list, sizeof(whole));
	if (one_in(6))
		alter(list);
	offset = one_in(2) ? 0 : length("offset");
	size = one_in(2) ? 0 : length("size");
	list->is_busy = true;
	switch (byte() % 3) {
	case 0:
		result = RESULT(dmacore_unmap_list(one_in(32) ? pick(DEVICE) : list->device,
						   list->entries, list->count,
						   one_in(32) ? byte() : list->direction,
						   one_in(32) ? attributes() : list->attributes),
				EINVAL);
		if (result == 0)
			whole.device = NULL;
		break;
	case 1:
		(void)RESULT(dmacore_sync_list_for_cpu(list->device, list->entries, list->count,
						       offset, size, list->direction),
			     EINVAL, EIO);
		break;
	default:
		(void)RESULT(dmacore_sync_list_for_device(list->device, list->entries, list->count,
							  offset, size, list->direction),
			     EINVAL, EIO);
		break;
	}
	/* The device may have gone meanwhile. */
	if (list->device == NULL)
		whole.device = NULL;
	memcpy(list, &whole, sizeof(whole));
}

void forget_lists(const struct dmacore_device *device)
{
	for (size_t i = 0; i < LISTS_MAX; i++)
		if (world.lists[i].device == device)
			world.lists[i].device = NULL;
}

void call_list(void)
{
	if (one_in(2))
		map_list();
	else
		use_list();
}
