/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Transfers: of ranges in an array or from a callback, gone through, synced, replaced and unmapped. */

#include "capi.h"

#include <errno.h>
#include <string.h>

static const struct dmacore_transfer empty = DMACORE_TRANSFER_EMPTY;

/* A transfer that no call is under way with: of a device, or of none yet; NULL if there is none. */
static struct transfer *take_transfer(bool is_live)
{
	size_t first = byte();

	for (size_t i = 0; i < TRANSFERS_MAX; i++) {
		struct transfer *transfer = &world.transfers[(first + i) % TRANSFERS_MAX];

		if (!transfer->is_busy && (transfer->device != NULL) == is_live)
			return transfer;
	}
	return NULL;
}

/* The transfer's ranges; of one that breaks its word, another one now and then. */
static bool next_range(uint64_t cursor[2], struct dmacore_phys_range *range, void *opaque)
{
	struct transfer *transfer = opaque;

	CHECK(cursor[1] == cursor[0] * 3);
	if (cursor[0] >= transfer->count)
		return false;
	*range = transfer->ranges[cursor[0]++];
	cursor[1] = cursor[0] * 3;
	if (transfer->is_fickle && one_in(8))
		range->size = one_in(2) ? range->size / 2 : 0;
	/* Calls that change nothing may come from here. */
	(void)dmacore_need_sync(transfer->device, range->phys);
	return !transfer->is_fickle || !one_in(16);
}

/* Ranges of the input; seldom some that are none. */
static void make_ranges(struct transfer *transfer, const struct object *device)
{
	bool is_of_pages = one_in(2);

	transfer->count = 1 + byte() % (one_in(4) ? TRANSFER_RANGES - 1 : 8);
	for (size_t i = 0; i < transfer->count; i++) {
		struct dmacore_phys_range *range = &transfer->ranges[i], *before = range - (i > 0);
		uint64_t size = length("size");

		if (is_of_pages)
			size = (size + PAGE - 1) & ~(PAGE - 1);
		if (one_in(2) || (device->is_flat && (world.has_flat_pool || !one_in(4)))) {
			range->phys = (uintptr_t)ram_range(&size);
		} else {
			world.has_lied |= device->is_flat;
			range->phys = address("phys");
		}
		if (is_of_pages && !one_in(16)) {
			range->phys &= ~(PAGE - 1);
			size &= ~(PAGE - 1);
		}
		range->size = one_in(16) ? 0 : size;
		/* Contiguous with the one before it. */
		if (i > 0 && one_in(3) && !device->is_flat)
			range->phys = before->phys + before->size;
		range->flags = one_in(16) ? DMACORE_RANGE_MMIO : 0;
		range->reserved = one_in(128);
		if (one_in(128))
			range->flags |= number("flags");
	}
}

static void make_request(struct transfer *transfer)
{
	struct dmacore_transfer_request *request = &transfer->request;

	*request = (struct dmacore_transfer_request)DMACORE_TRANSFER_REQUEST_INIT;
	transfer->is_fickle = false;
	if (one_in(2)) {
		request->ranges = transfer->ranges;
		request->count = transfer->count;
	} else {
		request->next = next_range;
		request->opaque = transfer;
		transfer->is_fickle = one_in(8);
	}
	if (one_in(64))
		request->ranges = request->ranges ? NULL : transfer->ranges;
	if (one_in(64))
		request->struct_size = byte();
	request->direction = one_in(32) ? byte() : byte() % 3;
	request->attributes = attributes();
	request->flags = one_in(64) ? byte() : one_in(3);
	request->reserved = one_in(128);
	request->max_segments = one_in(4) ? byte() % 16 : 0;
	request->max_segment_size = one_in(4) ? length("segment") : 0;
	request->segment_boundary_mask = one_in(4) ? mask() : 0;
}

/* Goes through the segments, which are bytes of the transfer. */
static void go(struct transfer *transfer, uint64_t offset)
{
	struct dmacore_transfer_iterator iterator;
	struct dmacore_segment segments[8];
	size_t capacity = 1 + byte() % 8, count = 0;
	uint64_t most = transfer->request.max_segment_size, done = 0;

	if (RESULT(dmacore_transfer_begin(transfer->device, &transfer->request, &transfer->transfer,
					  offset, OUT(&iterator)),
		   EINVAL, E2BIG, EFAULT) != 0)
		return;
	/* Of much that is cut into little only the start. */
	for (unsigned i = 0; i < 64; i++) {
		if (RESULT(dmacore_transfer_next(&iterator, segments, capacity, OUT(&count)),
			   EINVAL, EFAULT) != 0)
			return;
		CHECK(count <= capacity);
		for (size_t j = 0; j < count; j++) {
			CHECK(segments[j].size > 0 && (most == 0 || segments[j].size <= most));
			CHECK(segments[j].dma + (segments[j].size - 1) >= segments[j].dma);
			done += segments[j].size;
			if (i == 0)
				remember(segments[j].dma, segments[j].size);
		}
		CHECK(done <= transfer->size - offset);
		if (count < capacity) {
			CHECK(done == transfer->size - offset);
			return;
		}
	}
}

static void map_transfer(void)
{
	struct object *device = pick_object(DEVICE);
	struct transfer *transfer = take_transfer(false);
	int result;

	if (transfer == NULL)
		return;
	make_ranges(transfer, device);
	make_request(transfer);
	transfer->transfer = empty;
	transfer->is_busy = true;
	/* For the callback. */
	transfer->device = device->handle;
	transfer->is_flat = device->is_flat;
	result = RESULT(
		dmacore_transfer_map(device->handle, OUT(&transfer->request), &transfer->transfer),
		EINVAL, E2BIG, ENXIO, EPERM, EOPNOTSUPP, ERANGE, EREMOTEIO, ENOSPC, EIO, ENOMEM);
	transfer->is_busy = false;
	transfer->size = dmacore_transfer_size(&transfer->transfer);
	if (result != 0) {
		transfer->device = NULL;
		CHECK(memcmp(&transfer->transfer, &empty, sizeof(empty)) == 0);
		return;
	}
	CHECK(transfer->size > 0);
	if (!transfer->is_fickle) {
		for (size_t i = 0; i < transfer->count; i++)
			transfer->size -= transfer->ranges[i].size;
		CHECK(transfer->size == 0);
	}
	transfer->size = dmacore_transfer_size(&transfer->transfer);
	transfer->is_busy = true;
	go(transfer, 0);
	transfer->is_busy = false;
}

static void replace(struct transfer *transfer)
{
	size_t index = byte() % transfer->count;
	uint64_t offset = 0, size = transfer->ranges[index].size, phys = address("phys");

	for (size_t i = 0; i < index; i++)
		offset += transfer->ranges[i].size;
	/* Mostly as large, and where it may be. */
	if (!one_in(8))
		phys = (phys & ~(PAGE - 1)) | transfer->ranges[index].phys % PAGE;
	if (one_in(16))
		size = length("size");
	world.has_lied |= transfer->is_flat;
	(void)RESULT(
		dmacore_transfer_replace(transfer->device, &transfer->transfer, offset, phys, size),
		EINVAL, EREMOTEIO, ERANGE, EOPNOTSUPP, ENXIO, EPERM, ENOSPC, EIO, ENOMEM);
}

static void use_transfer(struct transfer *transfer)
{
	uint64_t offset = one_in(2) ? 0 : length("offset");
	uint64_t size = one_in(2) ? 0 : length("size");
	struct dmacore_device *device = transfer->device;

	transfer->is_busy = true;
	switch (byte() % 6) {
	case 0:
		(void)RESULT(
			dmacore_transfer_sync_for_cpu(device, &transfer->transfer, offset, size),
			EINVAL, E2BIG, EIO);
		break;
	case 1:
		(void)RESULT(
			dmacore_transfer_sync_for_device(device, &transfer->transfer, offset, size),
			EINVAL, E2BIG, EIO);
		break;
	case 2:
		go(transfer, offset);
		break;
	case 3:
		replace(transfer);
		break;
	default:
		/* Its driver may have gone. */
		(void)RESULT(dmacore_transfer_unmap(device, &transfer->transfer), EINVAL);
		CHECK(dmacore_transfer_unmap(device, &transfer->transfer) == -EINVAL);
		transfer->transfer = empty;
		transfer->device = NULL;
		break;
	}
	transfer->is_busy = false;
}

void end_transfers(const struct dmacore_device *device)
{
	for (size_t i = 0; i < TRANSFERS_MAX; i++) {
		struct transfer *transfer = &world.transfers[i];

		if (transfer->device != device || transfer->is_busy)
			continue;
		transfer->is_busy = true;
		(void)RESULT(dmacore_transfer_unmap(transfer->device, &transfer->transfer), EINVAL);
		transfer->device = NULL;
		transfer->is_busy = false;
	}
}

void call_transfer(void)
{
	struct transfer *transfer = one_in(3) ? NULL : take_transfer(true);

	if (transfer == NULL)
		map_transfer();
	else
		use_transfer(transfer);
}
