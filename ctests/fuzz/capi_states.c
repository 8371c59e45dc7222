/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Two-step mapping: ranges that are reserved, linked into, and freed. */

#include "capi.h"

#include <errno.h>
#include <string.h>

/* A range that no call is under way with: of a device, or of none yet; NULL if there is none. */
static struct range *take_range(bool is_live)
{
	size_t first = byte();

	for (size_t i = 0; i < STATES_MAX; i++) {
		struct range *range = &world.ranges[(first + i) % STATES_MAX];

		if (!range->is_busy && (range->device != NULL) == is_live)
			return range;
	}
	return NULL;
}

static void reserve(void)
{
	const struct dmacore_iova_state empty = DMACORE_IOVA_STATE_EMPTY;
	struct dmacore_iova_state_options options = DMACORE_IOVA_STATE_OPTIONS_INIT;
	struct object *device = pick_object(DEVICE);
	struct range *range = take_range(false);
	uint64_t phys = address("phys"), size = length("size");
	int result;

	if (range == NULL)
		return;
	options.links = one_in(64) ? number("links") : byte() % 16;
	options.bounced_pages = one_in(4) ? byte() % 4 : 0;
	options.flags = one_in(64) ? byte() : byte() % 2;
	/* The tables of all that there is are too many. */
	if (size > 1 << 30)
		options.flags = 0;
	range->state = empty;
	range->is_busy = true;
	result = RESULT(dmacore_iova_state_reserve(device->handle, phys, size,
						   one_in(2) ? NULL : &options, &range->state),
			EINVAL, ENXIO, EPERM, EOPNOTSUPP, ERANGE, ENOSPC, ENOMEM);
	range->is_busy = false;
	if (result != 0) {
		CHECK(memcmp(&range->state, &empty, sizeof(empty)) == 0);
		return;
	}
	range->device = device->handle;
	range->is_flat = device->is_flat;
	if (dmacore_iova_state_is_reserved(&range->state))
		remember(dmacore_iova_state_address(&range->state), size);
}

static void link_memory(struct range *range)
{
	uint64_t size = length("size"), offset, phys;
	bool is_memory = one_in(2) || (range->is_flat && !one_in(4));

	if (is_memory) {
		phys = (uintptr_t)ram_range(&size);
	} else {
		phys = address("phys");
		world.has_lied |= range->is_flat;
	}
	/* Mostly congruent. */
	offset = one_in(16) ? number("offset") : (uint64_t)(byte() % 32) * PAGE;
	if (!one_in(8))
		offset += (phys - dmacore_iova_state_address(&range->state)) % PAGE;
	(void)RESULT(dmacore_iova_state_link(&range->state, offset, phys, size,
					     one_in(32) ? byte() : byte() % 3, attributes()),
		     EINVAL, E2BIG, EFAULT, EEXIST, EREMOTEIO, ERANGE, EOPNOTSUPP, ENXIO, EPERM,
		     ENOSPC, EIO, ENOMEM);
}

static void use(struct range *range)
{
	uint64_t offset = one_in(2) ? (uint64_t)(byte() % 32) * PAGE : number("offset");
	uint64_t size = length("size");
	int result;

	range->is_busy = true;
	switch (byte() % 8) {
	case 0:
		(void)RESULT(dmacore_iova_state_sync(&range->state, offset, size), EINVAL, E2BIG);
		break;
	case 1:
		(void)RESULT(dmacore_iova_state_sync_for_cpu(&range->state, offset, size), EINVAL,
			     E2BIG, EIO);
		break;
	case 2:
		(void)RESULT(dmacore_iova_state_sync_for_device(&range->state, offset, size),
			     EINVAL, E2BIG, EIO);
		break;
	case 3:
		(void)RESULT(dmacore_iova_state_unlink(&range->state, offset, size), EINVAL, E2BIG);
		break;
	case 4:
		result = one_in(2) ? RESULT(dmacore_iova_state_free(&range->state), EINVAL, EBUSY) :
				     RESULT(dmacore_iova_state_destroy(&range->state), EINVAL);
		/* Its device may have gone, or its driver. */
		if (result == 0)
			range->device = NULL;
		break;
	default:
		link_memory(range);
		break;
	}
	range->is_busy = false;
}

void forget_ranges(const struct dmacore_device *device)
{
	for (size_t i = 0; i < STATES_MAX; i++)
		if (world.ranges[i].device == device)
			world.ranges[i].device = NULL;
}

void call_range(void)
{
	struct range *range = one_in(3) ? NULL : take_range(true);

	if (range == NULL)
		reserve();
	else
		use(range);
}
