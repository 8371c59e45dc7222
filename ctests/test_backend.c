/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the backend of an IOMMU is told, and what becomes of it when it fails. */

/* For RUSAGE_THREAD. */
#define _GNU_SOURCE

#include "support/hardware.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#define BOTH (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE)
#define PASID 3
#define SPOT UINT64_C(0x5000)

/* Two devices of a group behind the hardware, and what the steps of a test make. */
struct stage {
	struct machine machine;
	struct hardware hardware;
	struct dmacore_iommu *iommu;
	struct dmacore_group *group;
	struct dmacore_device *devices[3];
	struct dmacore_view *views[3];
	struct dmacore_view *pasid_views[3];
	struct dmacore_domain *strict;
	struct dmacore_domain *lazy;
	struct dmacore_domain *identity;
	struct dmacore_domain *own;
	struct dmacore_domain *other;
	struct dmacore_dma_owner owner;
	dmacore_dma_t dma;
	void *coherent;
	dmacore_dma_t coherent_dma;
	uint64_t dirty;
};

static int join(struct stage *stage, unsigned index)
{
	struct dmacore_device_options options = device_options(&stage->machine);
	uint32_t ids[2] = { 0x100 + 8 * index, 0x200 + 8 * index };
	char name[] = "nic0";
	int error;

	name[3] += index;
	options.name = name;
	options.iommu = stage->iommu;
	options.group = stage->group;
	options.pasid_count = 8;
	options.ids = ids;
	options.id_count = 2;
	error = dmacore_device_create(stage->machine.system, &options, &stage->devices[index]);
	if (error)
		return error;
	assert_ok(dmacore_view_create(stage->devices[index], &stage->views[index]));
	assert_ok(dmacore_view_create_pasid(stage->devices[index], PASID,
					    &stage->pasid_views[index]));
	return 0;
}

static void leave(struct stage *stage, unsigned index)
{
	dmacore_view_destroy(stage->views[index]);
	dmacore_view_destroy(stage->pasid_views[index]);
	dmacore_device_destroy(stage->devices[index]);
	stage->views[index] = NULL;
	stage->pasid_views[index] = NULL;
	stage->devices[index] = NULL;
}

static void stage_start(struct stage *stage)
{
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;

	memset(stage, 0, sizeof(*stage));
	machine_start(&stage->machine, DIRECT);
	hardware_start(&stage->hardware);
	stage->iommu = hardware_iommu(&stage->hardware, &stage->machine);
	stage->owner = owner;
	assert_ok(dmacore_group_create(stage->machine.system, &stage->group));
	for (unsigned i = 0; i < 2; i++)
		assert_ok(join(stage, i));
}

static void stage_stop(struct stage *stage)
{
	for (unsigned i = 0; i < 3; i++)
		leave(stage, i);
	dmacore_group_destroy(stage->group);
	dmacore_domain_destroy(stage->strict);
	dmacore_domain_destroy(stage->lazy);
	dmacore_domain_destroy(stage->identity);
	dmacore_domain_destroy(stage->own);
	dmacore_domain_destroy(stage->other);
	assert_int_equal(stage->hardware.release_count, 0);
	dmacore_iommu_destroy(stage->iommu);
	assert_int_equal(stage->hardware.release_count, 1);
	assert_int_equal(stage->hardware.wrong, 0);
	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
		assert_false(stage->hardware.state.domains[i].is_alive);
	for (unsigned i = 0; i < HARDWARE_ROUTES; i++)
		assert_null(stage->hardware.state.routes[i].device);
	machine_stop(&stage->machine);
}

static int setup(void **state)
{
	struct stage *stage = malloc(sizeof(*stage));

	assert_non_null(stage);
	stage_start(stage);
	*state = stage;
	return 0;
}

static int teardown(void **state)
{
	stage_stop(*state);
	free(*state);
	return 0;
}

static void assert_same_target(struct stage *stage, unsigned index, uint32_t pasid,
			       dmacore_iova_t iova)
{
	struct dmacore_view *view = pasid ? stage->pasid_views[index] : stage->views[index];
	struct dmacore_translation found;
	dmacore_phys_t phys = 0;
	bool leads = hardware_leads(&stage->hardware, stage->devices[index], pasid, iova, &phys);

	assert_int_equal(dmacore_view_translate(view, iova, 0, &found) == 0, leads);
	if (leads)
		assert_int_equal(found.target + (iova - found.first), phys);
}

/* A view of each device reaches what the device behind the hardware does. */
static void assert_agreement(struct stage *stage)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!stage->devices[i])
			continue;
		for (uint32_t pasid = 0; pasid <= PASID; pasid += PASID) {
			for (uint64_t page = 0; page < 16; page++)
				assert_same_target(stage, i, pasid, page * PAGE);
			assert_same_target(stage, i, pasid, stage->dma);
			assert_same_target(stage, i, pasid, stage->coherent_dma);
			assert_same_target(stage, i, pasid, LOW_BASE);
		}
	}
	assert_int_equal(stage->hardware.wrong, 0);
}

static int make(struct stage *stage, uint32_t type, struct dmacore_domain **out_domain)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	options.type = type;
	options.group = stage->group;
	return dmacore_domain_create(stage->iommu, &options, out_domain);
}

static int make_strict(struct stage *stage)
{
	return make(stage, DMACORE_DOMAIN_DMA, &stage->strict);
}

static int make_lazy(struct stage *stage)
{
	return make(stage, DMACORE_DOMAIN_DMA_LAZY, &stage->lazy);
}

static int make_identity(struct stage *stage)
{
	return make(stage, DMACORE_DOMAIN_IDENTITY, &stage->identity);
}

static int make_own(struct stage *stage)
{
	return make(stage, DMACORE_DOMAIN_UNMANAGED, &stage->own);
}

static int make_other(struct stage *stage)
{
	return make(stage, DMACORE_DOMAIN_UNMANAGED, &stage->other);
}

static int attach_strict(struct stage *stage)
{
	return dmacore_domain_attach(stage->strict, stage->devices[1]);
}

static int map_buffer(struct stage *stage)
{
	return dmacore_map_single(stage->devices[0], stage->machine.low, 2 * PAGE,
				  DMACORE_FROM_DEVICE, 0, &stage->dma);
}

static int unmap_buffer(struct stage *stage)
{
	return dmacore_unmap(stage->devices[0], stage->dma, 2 * PAGE, DMACORE_FROM_DEVICE, 0);
}

static int alloc_coherent(struct stage *stage)
{
	return dmacore_alloc_coherent(stage->devices[1], PAGE, &stage->coherent,
				      &stage->coherent_dma);
}

static int free_coherent(struct stage *stage)
{
	return dmacore_free_coherent(stage->devices[1], PAGE, stage->coherent, stage->coherent_dma);
}

static int replace_by_lazy(struct stage *stage)
{
	return dmacore_domain_replace(stage->lazy, stage->devices[0]);
}

static int replace_by_identity(struct stage *stage)
{
	return dmacore_domain_replace(stage->identity, stage->devices[0]);
}

static int flush_lazy(struct stage *stage)
{
	return dmacore_domain_flush(stage->lazy);
}

static int claim(struct stage *stage)
{
	return dmacore_group_claim_dma_owner(stage->group, &stage->owner);
}

static int attach_own(struct stage *stage)
{
	return dmacore_device_attach(stage->devices[0], stage->own, &stage->owner);
}

static int attach_other(struct stage *stage)
{
	return dmacore_device_attach(stage->devices[1], stage->other, &stage->owner);
}

static int map_own(struct stage *stage)
{
	return dmacore_domain_map(stage->own, SPOT, LOW_BASE, 4 * PAGE, BOTH);
}

static int map_list_other(struct stage *stage)
{
	const struct dmacore_domain_segment segments[] = {
		{ HIGH_BASE, PAGE },
		{ LOW_BASE, 2 * PAGE },
		{ HIGH_BASE + 4 * PAGE, PAGE },
	};

	return dmacore_domain_map_list(stage->other, 0, segments, 3, BOTH);
}

static int unmap_own(struct stage *stage)
{
	return dmacore_domain_unmap(stage->own, SPOT + PAGE, 2 * PAGE, 0, NULL);
}

static int attach_pasid(struct stage *stage)
{
	return dmacore_device_attach_pasid(stage->devices[0], PASID, stage->own, &stage->owner);
}

static int replace_pasid(struct stage *stage)
{
	return dmacore_device_replace_pasid(stage->devices[1], PASID, stage->other, &stage->owner);
}

static int detach_pasid(struct stage *stage)
{
	return dmacore_device_detach_pasid(stage->devices[1], PASID, &stage->owner);
}

static int join_late(struct stage *stage)
{
	return join(stage, 2);
}

static int leave_early(struct stage *stage)
{
	leave(stage, 2);
	return 0;
}

static int track(struct stage *stage)
{
	return dmacore_domain_set_dirty_tracking(stage->own, true);
}

static int read_dirty(struct stage *stage)
{
	return dmacore_domain_read_dirty(stage->own, 0, 16 * PAGE, 0, &stage->dirty);
}

static int release(struct stage *stage)
{
	return dmacore_group_release_dma_owner(stage->group, &stage->owner);
}

static int detach_identity(struct stage *stage)
{
	return dmacore_domain_detach(stage->identity, stage->devices[0]);
}

static int (*const steps[])(struct stage *stage) = {
	make_strict,
	make_lazy,
	attach_strict,
	map_buffer,
	unmap_buffer,
	alloc_coherent,
	free_coherent,
	replace_by_lazy,
	map_buffer,
	unmap_buffer,
	flush_lazy,
	make_identity,
	replace_by_identity,
	make_own,
	make_other,
	claim,
	attach_own,
	map_own,
	map_list_other,
	attach_other,
	unmap_own,
	attach_pasid,
	replace_pasid,
	join_late,
	track,
	read_dirty,
	leave_early,
	detach_pasid,
	attach_pasid,
	join_late,
	/* Three devices: when the third is refused, two go back. */
	attach_own,
	leave_early,
	release,
	detach_identity,
};

#define STEP_COUNT (sizeof(steps) / sizeof(steps[0]))

/* Goes all the steps, of which one may fail in the backend and is then gone again. */
static bool go(struct stage *stage, int left)
{
	bool has_failed = false;

	stage->hardware.left = left;
	for (unsigned i = 0; i < STEP_COUNT; i++) {
		struct hardware_state *before = malloc(sizeof(*before));
		int error;

		assert_non_null(before);
		*before = stage->hardware.state;
		error = steps[i](stage);
		assert_agreement(stage);
		assert_false(stage->hardware.has_failed && error != -EIO);
		if (stage->hardware.has_failed) {
			if (memcmp(before, &stage->hardware.state, sizeof(*before)) != 0)
				fail_msg("step %u that failed has changed something", i);
			has_failed = true;
			stage->hardware.has_failed = false;
			error = steps[i](stage);
			assert_agreement(stage);
		}
		free(before);
		if (error)
			fail_msg("step %u: %s", i, strerror(-error));
	}
	stage->hardware.left = -1;
	return has_failed;
}

static void backend__is_told_of_all_that_changes(void **state)
{
	struct stage *stage = *state;

	assert_false(go(stage, -1));
	assert_true(stage->hardware.map_count > 0);
	assert_true(stage->hardware.flush_count > 0);
}

static void backend_that_fails__changes_nothing(void **state)
{
	int left = 0;

	(void)state;
	for (bool has_failed = true; has_failed; left++) {
		struct stage stage;

		stage_start(&stage);
		has_failed = go(&stage, left);
		stage_stop(&stage);
	}
	/* Each step that asks the backend does so at least once. */
	assert_true(left > 30);
}

/* The second device of a change is refused; what the first goes back to fails too. */
static int fail_twice(void *handle, const struct dmacore_backend_device *device, uint32_t pasid,
		      void *opaque)
{
	struct hardware *hardware = opaque;

	if (hardware->left == -2)
		return -EIO;
	if (hardware->left == 1)
		hardware->left = -2;
	return hardware_attach(handle, device, pasid, opaque);
}

static void device_that_cannot_go_back__is_blocked(void **state)
{
	struct machine *machine = *state;
	struct stage stage;

	(void)machine;
	memset(&stage, 0, sizeof(stage));
	machine_start(&stage.machine, DIRECT);
	hardware_start(&stage.hardware);
	stage.hardware.ops.attach = fail_twice;
	stage.iommu = hardware_iommu(&stage.hardware, &stage.machine);
	assert_ok(dmacore_group_create(stage.machine.system, &stage.group));
	assert_ok(join(&stage, 0));
	assert_ok(join(&stage, 1));
	assert_ok(make_strict(&stage));
	assert_ok(make_lazy(&stage));
	assert_ok(attach_strict(&stage));
	/* The next one succeeds, and none after it. */
	stage.hardware.left = 1;
	assert_fails(replace_by_lazy(&stage), EIO);
	{
		struct hardware_route *first = hardware_route(&stage.hardware, stage.devices[1], 0);
		struct hardware_route *second =
			hardware_route(&stage.hardware, stage.devices[0], 0);

		/* The device that was made last is asked first. */
		assert_null(first->domain);
		assert_non_null(second->domain);
	}
	stage.hardware.left = -1;
	/* The next change that succeeds puts it right. */
	assert_ok(replace_by_lazy(&stage));
	assert_agreement(&stage);
	stage_stop(&stage);
}

static void strict_unmap__leaves_nothing_cached(void **state)
{
	struct stage *stage = *state;

	assert_ok(make_strict(stage));
	assert_ok(attach_strict(stage));
	assert_ok(map_buffer(stage));
	assert_ok(unmap_buffer(stage));
	assert_false(hardware_is_stale(&stage->hardware));
	assert_ok(alloc_coherent(stage));
	assert_ok(free_coherent(stage));
	assert_false(hardware_is_stale(&stage->hardware));
	assert_ok(make_own(stage));
	assert_ok(map_own(stage));
	assert_ok(unmap_own(stage));
	assert_false(hardware_is_stale(&stage->hardware));
}

static void change_that_fails__lets_mapping_calls_go_on(void **state)
{
	struct stage *stage = *state;

	assert_ok(make_strict(stage));
	assert_ok(make_lazy(stage));
	assert_ok(attach_strict(stage));
	stage->hardware.left = 0;
	assert_fails(replace_by_lazy(stage), EIO);
	assert_ok(map_buffer(stage));
	assert_agreement(stage);
	assert_ok(unmap_buffer(stage));
}

/* It is in the group when the backend is asked, and out of it again. */
static void device_that_cannot_join__is_in_no_group(void **state)
{
	struct stage *stage = *state;
	char text[DMACORE_DESCRIPTION_SIZE];

	assert_ok(make_strict(stage));
	assert_ok(attach_strict(stage));
	stage->hardware.left = 0;
	assert_fails(join_late(stage), EIO);
	assert_int_equal(domain_statistics(stage->strict).device_count, 2);
	assert_ok(dmacore_group_describe(stage->group, text, sizeof(text)));
	assert_non_null(strstr(text, "2 devices"));
	assert_ok(join_late(stage));
	assert_ok(dmacore_group_describe(stage->group, text, sizeof(text)));
	assert_non_null(strstr(text, "3 devices"));
}

/* Hardware that walks the pages may have seen what was there for a moment. */
static void map_that_fails__is_flushed_and_takes_no_addresses(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;
	unsigned flushes;

	assert_ok(make_own(stage));
	flushes = hardware->flush_count;
	hardware->left = 0;
	assert_fails(map_own(stage), EIO);
	assert_int_equal(hardware->flush_count, flushes + 1);
	assert_int_equal(hardware->flushed_first, SPOT);
	assert_int_equal(hardware->flushed_last, SPOT + 4 * PAGE - 1);
	assert_ok(make_strict(stage));
	assert_ok(attach_strict(stage));
	flushes = hardware->flush_count;
	hardware->left = 0;
	assert_fails(map_buffer(stage), EIO);
	assert_int_equal(hardware->flush_count, flushes + 1);
	assert_int_equal(domain_statistics(stage->strict).iova_bytes, 0);
}

/* To the last byte. */
static void backend__is_told_of_whole_ranges(void **state)
{
	struct stage *stage = *state;
	struct hardware_domain *domain = hardware_at(&stage->hardware, 0);
	uint64_t size;

	assert_ok(make_own(stage));
	assert_ok(map_own(stage));
	assert_int_equal(domain->runs[0].first, SPOT);
	assert_int_equal(domain->runs[0].last, SPOT + 4 * PAGE - 1);
	assert_int_equal(domain->runs[0].phys, LOW_BASE);
	assert_int_equal(domain->runs[0].access, BOTH);
	assert_ok(unmap_own(stage));
	assert_int_equal(domain->run_count, 2);
	/* Over the hole, to what lies behind it. */
	assert_ok(
		dmacore_domain_unmap(stage->own, SPOT, 8 * PAGE, DMACORE_UNMAP_CROSS_HOLES, &size));
	assert_int_equal(size, 2 * PAGE);
	assert_int_equal(domain->run_count, 0);
	assert_int_equal(stage->hardware.flushed_last, SPOT + 8 * PAGE - 1);
}

/* From the hole in front of a mapping, at the start of the address space or elsewhere. */
static void unmap_of_nothing__is_not_told(void **state)
{
	struct stage *stage = *state;
	unsigned flushes;
	uint64_t size;

	assert_ok(make_own(stage));
	flushes = stage->hardware.flush_count;
	for (unsigned i = 0; i < 2; i++) {
		size = 1;
		assert_ok(dmacore_domain_unmap(stage->own, SPOT, PAGE,
					       i ? DMACORE_UNMAP_CROSS_HOLES : 0, &size));
		assert_int_equal(size, 0);
	}
	assert_int_equal(stage->hardware.flush_count, flushes);
	assert_ok(map_own(stage));
	for (uint64_t iova = 0; iova < SPOT; iova += SPOT - PAGE) {
		assert_ok(dmacore_domain_unmap(stage->own, iova, 8 * PAGE, 0, &size));
		assert_int_equal(size, 0);
	}
	assert_ok(dmacore_domain_unmap(stage->own, 0, PAGE, DMACORE_UNMAP_CROSS_HOLES, &size));
	assert_int_equal(size, 0);
	assert_int_equal(stage->hardware.flush_count, flushes);
	assert_int_equal(hardware_at(&stage->hardware, 0)->run_count, 1);
	/* Of what it is stopped by in the middle it tells no more than it has unmapped. */
	assert_ok(dmacore_domain_unmap(stage->own, SPOT, 8 * PAGE, 0, &size));
	assert_int_equal(size, 4 * PAGE);
	assert_int_equal(stage->hardware.flush_count, flushes + 1);
	assert_int_equal(stage->hardware.flushed_first, SPOT);
	assert_int_equal(stage->hardware.flushed_last, SPOT + 4 * PAGE - 1);
}

static void lazy_unmaps__are_flushed_once(void **state)
{
	struct stage *stage = *state;
	unsigned flushes;

	assert_ok(make_lazy(stage));
	assert_ok(dmacore_domain_attach(stage->lazy, stage->devices[0]));
	for (unsigned way = 0; way < 2; way++) {
		flushes = stage->hardware.flush_count;
		for (unsigned i = 0; i < 10; i++) {
			assert_ok(map_buffer(stage));
			assert_ok(unmap_buffer(stage));
		}
		assert_int_equal(stage->hardware.flush_count, flushes);
		assert_true(hardware_is_stale(&stage->hardware));
		if (way == 0)
			assert_ok(dmacore_domain_flush(stage->lazy));
		else
			assert_ok(dmacore_system_tick(stage->machine.system, UINT64_MAX / 2));
		assert_int_equal(stage->hardware.flush_count, flushes + 1);
		assert_false(hardware_is_stale(&stage->hardware));
	}
}

static void domain_sync__flushes_once_for_all_unsynced_unmaps(void **state)
{
	struct stage *stage = *state;
	unsigned flushes;

	assert_ok(make_own(stage));
	assert_ok(map_own(stage));
	flushes = stage->hardware.flush_count;
	for (unsigned i = 0; i < 4; i++)
		assert_ok(dmacore_domain_unmap(stage->own, SPOT + i * PAGE, PAGE,
					       DMACORE_UNMAP_UNSYNCED, NULL));
	assert_int_equal(stage->hardware.flush_count, flushes);
	assert_true(hardware_is_stale(&stage->hardware));
	assert_ok(dmacore_domain_sync(stage->own));
	assert_int_equal(stage->hardware.flush_count, flushes + 1);
	assert_false(hardware_is_stale(&stage->hardware));
}

static void domain_sync__is_for_unmanaged_domains(void **state)
{
	struct stage *stage = *state;

	assert_ok(make_strict(stage));
	assert_ok(make_identity(stage));
	assert_fails(dmacore_domain_sync(NULL), EINVAL);
	assert_fails(dmacore_domain_sync(stage->strict), EOPNOTSUPP);
	assert_fails(dmacore_domain_sync(stage->identity), EOPNOTSUPP);
}

/* Makes so many tables that leaves replace that they have to be freed. */
static void replace_tables(struct dmacore_domain *domain)
{
	for (unsigned i = 1; i <= 100; i++) {
		uint64_t iova = i * UINT64_C(0x200000);

		assert_ok(dmacore_domain_map(domain, iova, LOW_BASE, PAGE, BOTH));
		assert_ok(dmacore_domain_unmap(domain, iova, PAGE, DMACORE_UNMAP_UNSYNCED, NULL));
		assert_ok(dmacore_domain_map(domain, iova, UINT64_C(0x40000000), 0x200000, BOTH));
		assert_ok(
			dmacore_domain_unmap(domain, iova, 0x200000, DMACORE_UNMAP_UNSYNCED, NULL));
	}
}

/* What the library frees of its tables was in the hardware's caches too. */
static void tables__are_freed_when_the_hardware_has_forgotten_them(void **state)
{
	struct stage *stage = *state;
	struct hardware heap;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_domain_options wish = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	unsigned flushes = stage->hardware.flush_count;

	/* Because there are no others. */
	assert_ok(make_own(stage));
	replace_tables(stage->own);
	assert_true(stage->hardware.flush_count > flushes);
	/* Because they are many. */
	hardware_start(&heap);
	options.backend = &heap.ops;
	options.backend_opaque = &heap;
	assert_ok(dmacore_iommu_create(stage->machine.system, &options, &iommu));
	wish.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(iommu, &wish, &domain));
	replace_tables(domain);
	assert_true(heap.flush_count > 0);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
	assert_int_equal(heap.wrong, 0);
}

static void backend__knows_devices_by_their_ids(void **state)
{
	struct stage *stage = *state;

	assert_ok(make_strict(stage));
	assert_ok(attach_strict(stage));
	/* The device that was made first is told of last. */
	assert_int_equal(stage->hardware.id_count, 2);
	assert_int_equal(stage->hardware.ids[0], 0x100);
	assert_int_equal(stage->hardware.ids[1], 0x200);
	assert_string_equal(stage->hardware.name, "nic0");
}

static void backend__may_read_what_hardware_must_know(void **state)
{
	struct stage *stage = *state;
	struct dmacore_pagetable_vtd registers = { .struct_size = sizeof(registers) };

	assert_ok(make_own(stage));
	assert_ok(dmacore_pagetable_vtd(stage->hardware.state.domains[0].pagetable, &registers));
	assert_int_equal(stage->hardware.state.domains[0].type, DMACORE_DOMAIN_UNMANAGED);
	assert_ok(make_identity(stage));
	assert_null(stage->hardware.state.domains[1].pagetable);
}

/* A device that knows no PASIDs may be in a group whose others have some. */
static void device_without_pasids__is_attached_and_blocked_without_any(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;
	struct dmacore_device_options options = device_options(&stage->machine);
	struct dmacore_device *device;

	assert_ok(make_own(stage));
	assert_ok(make_other(stage));
	assert_ok(claim(stage));
	assert_ok(attach_own(stage));
	assert_ok(attach_pasid(stage));
	options.iommu = stage->iommu;
	options.group = stage->group;
	assert_ok(dmacore_device_create(stage->machine.system, &options, &device));
	assert_ptr_equal(hardware_through(hardware, device, 0), hardware_at(hardware, 0));
	assert_null(hardware_through(hardware, device, PASID));
	assert_ok(replace_pasid(stage));
	assert_ptr_equal(hardware_through(hardware, stage->devices[0], PASID),
			 hardware_at(hardware, 1));
	assert_null(hardware_through(hardware, device, PASID));
	assert_ok(release(stage));
	assert_null(hardware_through(hardware, device, 0));
	dmacore_device_destroy(device);
}

static void direct_regions__are_mapped_in_the_backend(void **state)
{
	struct stage *stage = *state;
	const struct dmacore_reserved_region region = { LOW_BASE, LOW_BASE + PAGE - 1,
							DMACORE_RESERVED_DIRECT, 0 };
	struct dmacore_device_options options = device_options(&stage->machine);
	struct dmacore_device *device;

	options.iommu = stage->iommu;
	options.group = stage->group;
	options.reserved_regions = &region;
	options.reserved_region_count = 1;
	assert_ok(dmacore_device_create(stage->machine.system, &options, &device));
	for (int left = 0; left < 2; left++) {
		stage->hardware.left = left;
		assert_fails(make_strict(stage), EIO);
		assert_null(stage->strict);
		assert_false(stage->hardware.state.domains[0].is_alive);
	}
	stage->hardware.left = -1;
	assert_ok(make_strict(stage));
	assert_int_equal(stage->hardware.state.domains[0].run_count, 1);
	assert_int_equal(stage->hardware.state.domains[0].runs[0].phys, LOW_BASE);
	dmacore_device_destroy(device);
}

static void backend__adds_what_devices_wrote(void **state)
{
	struct stage *stage = *state;
	struct hardware_domain *domain = &stage->hardware.state.domains[0];
	uint64_t bits = 0;
	unsigned flushes;

	assert_ok(make_own(stage));
	stage->hardware.left = 0;
	assert_fails(dmacore_domain_set_dirty_tracking(stage->own, true), EIO);
	assert_false(domain->is_tracked);
	/* So that it is not on, and the next call says so again. */
	assert_ok(dmacore_domain_set_dirty_tracking(stage->own, true));
	assert_true(domain->is_tracked);
	stage->hardware.left = 0;
	assert_fails(dmacore_domain_set_dirty_tracking(stage->own, false), EIO);
	assert_true(domain->is_tracked);
	domain->dirty = 5;
	assert_ok(dmacore_domain_read_dirty(stage->own, 0, 4 * PAGE, 0, &bits));
	assert_int_equal(bits, 5);
	bits = 0;
	flushes = stage->hardware.flush_count;
	assert_ok(dmacore_domain_read_dirty(stage->own, 0, PAGE, DMACORE_DIRTY_CLEAR, &bits));
	assert_int_equal(bits, 1);
	/* A write through what is cached would not be noted again. */
	assert_int_equal(stage->hardware.flush_count, flushes + 1);
	assert_int_equal(stage->hardware.flushed_last, PAGE - 1);
	assert_int_equal(domain->dirty, 4);
	/* A range that there is not is refused before the backend forgets anything. */
	assert_fails(dmacore_domain_read_dirty(stage->own, 0, PAGE / 2, DMACORE_DIRTY_CLEAR, &bits),
		     EINVAL);
	assert_fails(dmacore_domain_read_dirty(stage->own, UINT64_C(1) << 60, PAGE,
					       DMACORE_DIRTY_CLEAR, &bits),
		     ERANGE);
	assert_int_equal(domain->dirty, 4);
	assert_ok(dmacore_domain_set_dirty_tracking(stage->own, false));
	assert_false(domain->is_tracked);
	/* Views write without a word where the page table has no place to note it. */
	assert_ok(map_own(stage));
	assert_ok(dmacore_domain_set_dirty_tracking(stage->own, true));
	assert_ok(claim(stage));
	assert_ok(attach_own(stage));
	assert_ok(dmacore_view_write(stage->views[0], SPOT, &bits, 1));
	assert_ok(release(stage));
}

static struct dmacore_iommu_capabilities capabilities(struct dmacore_iommu *iommu)
{
	struct dmacore_iommu_capabilities found = { .struct_size = sizeof(found) };

	assert_ok(dmacore_iommu_capabilities(iommu, &found));
	return found;
}

static void capabilities__are_those_of_the_backend(void **state)
{
	struct stage *stage = *state;
	struct hardware bare;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	assert_int_equal(capabilities(stage->iommu).flags,
			 DMACORE_IOMMU_DMA_DOMAINS | DMACORE_IOMMU_DIRTY_TRACKING |
				 DMACORE_IOMMU_DEFERRED_FLUSH | DMACORE_IOMMU_PASIDS);
	hardware_start(&bare);
	bare.ops = (struct dmacore_backend_ops)DMACORE_BACKEND_OPS_INIT;
	iommu = hardware_iommu(&bare, &stage->machine);
	assert_int_equal(capabilities(iommu).flags, DMACORE_IOMMU_DMA_DOMAINS);
	options.type = DMACORE_DOMAIN_DMA_LAZY;
	assert_fails(dmacore_domain_create(iommu, &options, &domain), EOPNOTSUPP);
	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(iommu, &options, &domain));
	assert_fails(dmacore_domain_set_dirty_tracking(domain, true), EOPNOTSUPP);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
}

static int probe(struct dmacore_device *device, void *opaque)
{
	(void)device, (void)opaque;
	return 0;
}

static void iommu_without_pasids_and_lazy_unmaps__refuses_them(void **state)
{
	struct stage stage;
	static const struct dmacore_driver lazy = {
		.struct_size = sizeof(lazy),
		.name = "lazy",
		.probe = probe,
		.domain_type = DMACORE_DOMAIN_DMA_LAZY,
	};

	(void)state;
	memset(&stage, 0, sizeof(stage));
	machine_start(&stage.machine, DIRECT);
	hardware_start(&stage.hardware);
	stage.hardware.ops.capabilities = 0;
	stage.iommu = hardware_iommu(&stage.hardware, &stage.machine);
	stage.owner = (struct dmacore_dma_owner)DMACORE_DMA_OWNER_INIT;
	assert_ok(dmacore_group_create(stage.machine.system, &stage.group));
	assert_ok(join(&stage, 0));
	assert_ok(make_own(&stage));
	assert_ok(claim(&stage));
	assert_fails(attach_pasid(&stage), EOPNOTSUPP);
	assert_ok(release(&stage));
	assert_fails(dmacore_group_set_default_type(stage.group, DMACORE_DOMAIN_DMA_LAZY),
		     EOPNOTSUPP);
	/* A driver that would like lazy unmaps gets strict ones. */
	assert_ok(dmacore_device_bind(stage.devices[0], &lazy));
	assert_int_equal(stage.hardware.state.domains[1].type, DMACORE_DOMAIN_DMA);
	assert_fails(dmacore_group_set_default_type(stage.group, DMACORE_DOMAIN_DMA_LAZY),
		     EOPNOTSUPP);
	stage_stop(&stage);
}

static void iommu_create__refuses_a_backend_that_is_none(void **state)
{
	struct stage *stage = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_backend_ops ops;
	struct dmacore_iommu *iommu;

	options.backend = &ops;
	options.backend_opaque = &stage->hardware;
#define REFUSED(change, error)                                                              \
	do {                                                                                \
		ops = stage->hardware.ops;                                                  \
		change;                                                                     \
		assert_fails(dmacore_iommu_create(stage->machine.system, &options, &iommu), \
			     error);                                                        \
		assert_null(iommu);                                                         \
	} while (0)
	REFUSED(ops.struct_size--, EINVAL);
	REFUSED(ops.struct_size += 5000, E2BIG);
	REFUSED(ops.capabilities = DMACORE_IOMMU_DIRTY_TRACKING, EINVAL);
	REFUSED(ops.capabilities = 64, EINVAL);
	REFUSED(ops.reserved = 1, EINVAL);
	REFUSED(ops.attach = NULL, EINVAL);
	REFUSED(ops.block = NULL, EINVAL);
	REFUSED(ops.set_dirty_tracking = NULL, EINVAL);
	REFUSED(ops.read_dirty = NULL, EINVAL);
#undef REFUSED
	assert_int_equal(stage->hardware.release_count, 0);
}

static void iommu_start__takes_a_backend(void **state)
{
	struct stage *stage = *state;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct hardware late;
	struct dmacore_iommu *iommu;

	hardware_start(&late);
	options.backend = &late.ops;
	options.backend_opaque = &late;
	assert_ok(dmacore_iommu_announce(stage->machine.system, &iommu));
	assert_ok(dmacore_iommu_start(iommu, &options));
	assert_fails(dmacore_iommu_start(iommu, &options), EEXIST);
	assert_int_equal(late.release_count, 0);
	dmacore_iommu_destroy(iommu);
	assert_int_equal(late.release_count, 1);
}

/* A backend one function of which takes its time, and lets another thread do something meanwhile. */
struct slow {
	struct hardware hardware;
	struct machine machine;
	struct dmacore_iommu *iommu;
	struct dmacore_group *group;
	struct dmacore_device *device;
	struct dmacore_device *other;
	pthread_t thread;
	bool is_slow;
	atomic_bool is_done;
	bool was_done;
	/* How often it gave its processor away to wait. */
	long sleeps;
};

static void sleep_for(unsigned milliseconds)
{
	struct timespec time = { 0, milliseconds * 1000000L };

	nanosleep(&time, NULL);
}

static struct dmacore_device *slow_device(struct slow *slow)
{
	static const uint32_t id = 0x100;
	struct dmacore_device_options options = device_options(&slow->machine);
	struct dmacore_device *device;

	options.iommu = slow->iommu;
	options.ids = &id;
	options.id_count = 1;
	assert_ok(dmacore_device_create(slow->machine.system, &options, &device));
	return device;
}

static void slow_start(struct slow *slow)
{
	memset(slow, 0, sizeof(*slow));
	machine_start(&slow->machine, DIRECT);
	hardware_start(&slow->hardware);
}

static void slow_stop(struct slow *slow, struct dmacore_domain *domain)
{
	dmacore_device_destroy(slow->device);
	dmacore_device_destroy(slow->other);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(slow->iommu);
	assert_int_equal(slow->hardware.wrong, 0);
	machine_stop(&slow->machine);
}

static void *map_meanwhile(void *opaque)
{
	struct slow *slow = opaque;
	struct rusage usage;
	dmacore_dma_t dma;
	int error = dmacore_map_single(slow->device, slow->machine.low, PAGE, DMACORE_TO_DEVICE, 0,
				       &dma);

	getrusage(RUSAGE_THREAD, &usage);
	slow->sleeps = usage.ru_nvcsw;
	atomic_store(&slow->is_done, true);
	return error || dmacore_unmap(slow->device, dma, PAGE, DMACORE_TO_DEVICE, 0) ? slow : NULL;
}

static int attach_slowly(void *handle, const struct dmacore_backend_device *device, uint32_t pasid,
			 void *opaque)
{
	struct slow *slow = (struct slow *)opaque;

	pthread_create(&slow->thread, NULL, map_meanwhile, slow);
	sleep_for(200);
	slow->was_done = atomic_load(&slow->is_done);
	return hardware_attach(handle, device, pasid, opaque);
}

/* It waits for the domain, and not in a loop: attaching may take long. */
static void mapping_call__sleeps_while_its_device_is_attached(void **state)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct slow slow;
	void *failed;

	(void)state;
	slow_start(&slow);
	slow.hardware.ops.attach = attach_slowly;
	slow.iommu = hardware_iommu(&slow.hardware, &slow.machine);
	slow.device = slow_device(&slow);
	assert_ok(dmacore_domain_create(slow.iommu, &options, &domain));
	assert_ok(dmacore_domain_attach(domain, slow.device));
	assert_int_equal(pthread_join(slow.thread, &failed), 0);
	assert_null(failed);
	assert_false(slow.was_done);
	assert_true(slow.sleeps > 10);
	assert_ok(dmacore_domain_detach(domain, slow.device));
	slow_stop(&slow, domain);
}

static void *make_meanwhile(void *opaque)
{
	struct slow *slow = opaque;

	slow->other = slow_device(slow);
	atomic_store(&slow->is_done, true);
	return NULL;
}

static void block_slowly(const struct dmacore_backend_device *device, uint32_t pasid, void *opaque)
{
	struct slow *slow = (struct slow *)opaque;

	if (slow->is_slow) {
		slow->is_slow = false;
		pthread_create(&slow->thread, NULL, make_meanwhile, slow);
		sleep_for(100);
		slow->was_done = atomic_load(&slow->is_done);
	}
	hardware_block(device, pasid, opaque);
}

/* As long as the hardware may have a device's ID attached, another device with that ID is no stranger. */
static void device_with_the_id_of_one_that_leaves__waits_until_that_is_blocked(void **state)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	struct slow slow;

	(void)state;
	slow_start(&slow);
	slow.hardware.ops.block = block_slowly;
	slow.iommu = hardware_iommu(&slow.hardware, &slow.machine);
	slow.device = slow_device(&slow);
	assert_ok(dmacore_domain_create(slow.iommu, &options, &domain));
	assert_ok(dmacore_domain_attach(domain, slow.device));
	slow.is_slow = true;
	dmacore_device_destroy(slow.device);
	slow.device = NULL;
	assert_int_equal(pthread_join(slow.thread, NULL), 0);
	assert_false(slow.was_done);
	assert_ok(dmacore_domain_attach(domain, slow.other));
	slow_stop(&slow, domain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(backend__is_told_of_all_that_changes, setup,
						teardown),
		cmocka_unit_test(backend_that_fails__changes_nothing),
		cmocka_unit_test(device_that_cannot_go_back__is_blocked),
		cmocka_unit_test_setup_teardown(strict_unmap__leaves_nothing_cached, setup,
						teardown),
		cmocka_unit_test_setup_teardown(change_that_fails__lets_mapping_calls_go_on, setup,
						teardown),
		cmocka_unit_test_setup_teardown(device_that_cannot_join__is_in_no_group, setup,
						teardown),
		cmocka_unit_test_setup_teardown(map_that_fails__is_flushed_and_takes_no_addresses,
						setup, teardown),
		cmocka_unit_test_setup_teardown(backend__is_told_of_whole_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(unmap_of_nothing__is_not_told, setup, teardown),
		cmocka_unit_test_setup_teardown(lazy_unmaps__are_flushed_once, setup, teardown),
		cmocka_unit_test_setup_teardown(domain_sync__flushes_once_for_all_unsynced_unmaps,
						setup, teardown),
		cmocka_unit_test_setup_teardown(domain_sync__is_for_unmanaged_domains, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			tables__are_freed_when_the_hardware_has_forgotten_them, setup, teardown),
		cmocka_unit_test_setup_teardown(backend__knows_devices_by_their_ids, setup,
						teardown),
		cmocka_unit_test_setup_teardown(backend__may_read_what_hardware_must_know, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			device_without_pasids__is_attached_and_blocked_without_any, setup,
			teardown),
		cmocka_unit_test_setup_teardown(direct_regions__are_mapped_in_the_backend, setup,
						teardown),
		cmocka_unit_test_setup_teardown(backend__adds_what_devices_wrote, setup, teardown),
		cmocka_unit_test_setup_teardown(capabilities__are_those_of_the_backend, setup,
						teardown),
		cmocka_unit_test(iommu_without_pasids_and_lazy_unmaps__refuses_them),
		cmocka_unit_test_setup_teardown(iommu_create__refuses_a_backend_that_is_none, setup,
						teardown),
		cmocka_unit_test_setup_teardown(iommu_start__takes_a_backend, setup, teardown),
		cmocka_unit_test(mapping_call__sleeps_while_its_device_is_attached),
		cmocka_unit_test(
			device_with_the_id_of_one_that_leaves__waits_until_that_is_blocked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
