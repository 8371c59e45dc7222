/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the backend of an IOMMU is told of nested domains. */

#include "support/hardware.h"

#define PASID 3

/* A device behind the hardware, and a domain in which others are nested; no guest makes tables. */
struct stage {
	struct machine machine;
	struct hardware hardware;
	struct dmacore_iommu *iommu;
	struct dmacore_device *device;
	struct dmacore_domain *parent;
	struct dmacore_domain *nested;
	struct dmacore_walk_options walk;
	struct dmacore_dma_owner owner;
};

static int nest(struct stage *stage, struct dmacore_domain **out_domain)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	options.type = DMACORE_DOMAIN_NESTED;
	options.parent = stage->parent;
	options.guest_table = &stage->walk;
	return dmacore_domain_create(stage->iommu, &options, out_domain);
}

static void make_parent(struct stage *stage)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_ok(dmacore_domain_create(stage->iommu, &options, &stage->parent));
}

static int setup(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct dmacore_device_options options;

	assert_non_null(stage);
	machine_start(&stage->machine, DIRECT);
	hardware_start(&stage->hardware);
	stage->iommu = hardware_iommu(&stage->hardware, &stage->machine);
	options = device_options(&stage->machine);
	options.iommu = stage->iommu;
	options.pasid_count = 8;
	assert_ok(dmacore_device_create(stage->machine.system, &options, &stage->device));
	stage->walk = (struct dmacore_walk_options)DMACORE_WALK_OPTIONS_INIT;
	stage->walk.format = DMACORE_PAGETABLE_X86_64;
	stage->walk.root = 5 * PAGE;
	stage->owner = (struct dmacore_dma_owner)DMACORE_DMA_OWNER_INIT;
	make_parent(stage);
	*state = stage;
	return 0;
}

static int teardown(void **state)
{
	struct stage *stage = *state;

	dmacore_device_destroy(stage->device);
	dmacore_domain_destroy(stage->nested);
	dmacore_domain_destroy(stage->parent);
	dmacore_iommu_destroy(stage->iommu);
	assert_int_equal(stage->hardware.release_count, 1);
	assert_int_equal(stage->hardware.wrong, 0);
	for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
		assert_false(hardware_at(&stage->hardware, i)->is_alive);
	machine_stop(&stage->machine);
	free(stage);
	return 0;
}

static void nested_domain__is_known_by_its_parent_and_the_tables_of_the_guest(void **state)
{
	struct stage *stage = *state;
	struct hardware_domain *parent = hardware_at(&stage->hardware, 0);
	struct hardware_domain *nested = hardware_at(&stage->hardware, 1);

	assert_ok(nest(stage, &stage->nested));
	assert_null(parent->parent);
	assert_non_null(parent->pagetable);
	assert_int_equal(nested->type, DMACORE_DOMAIN_NESTED);
	assert_null(nested->pagetable);
	assert_ptr_equal(nested->parent, parent);
	assert_int_equal(nested->guest_table.format, DMACORE_PAGETABLE_X86_64);
	assert_int_equal(nested->guest_table.root, 5 * PAGE);
}

static void nested_domain__that_the_backend_refuses_leaves_nothing(void **state)
{
	struct stage *stage = *state;
	struct dmacore_domain *domain = (void *)(uintptr_t)UNTOUCHED;

	stage->hardware.left = 0;
	assert_creates_nothing(nest(stage, &domain), EIO, domain);
	assert_false(hardware_at(&stage->hardware, 1)->is_alive);
	/* Not even a holder of the parent. */
	dmacore_domain_destroy(stage->parent);
	assert_no_reports(&stage->machine.reports);
	assert_false(hardware_at(&stage->hardware, 0)->is_alive);
	make_parent(stage);
	assert_ok(nest(stage, &stage->nested));
}

static void parent__is_known_for_longer_than_what_is_nested_in_it(void **state)
{
	struct stage *stage = *state;

	assert_ok(nest(stage, &stage->nested));
	dmacore_domain_destroy(stage->parent);
	stage->parent = NULL;
	assert_reported(&stage->machine, DMACORE_REPORT_WARNING);
	assert_true(hardware_at(&stage->hardware, 0)->is_alive);
	dmacore_domain_destroy(stage->nested);
	stage->nested = NULL;
	assert_false(hardware_at(&stage->hardware, 0)->is_alive);
	/* In which order they went is looked at where everything ends. */
}

static void device__is_attached_to_a_nested_domain_and_blocked(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;

	assert_ok(nest(stage, &stage->nested));
	hardware->left = 0;
	assert_fails(dmacore_domain_attach(stage->nested, stage->device), EIO);
	assert_null(hardware_through(hardware, stage->device, 0));
	assert_ok(dmacore_domain_attach(stage->nested, stage->device));
	assert_ptr_equal(hardware_through(hardware, stage->device, 0), hardware_at(hardware, 1));
	hardware->left = 0;
	assert_fails(dmacore_domain_replace(stage->parent, stage->device), EIO);
	assert_ptr_equal(hardware_through(hardware, stage->device, 0), hardware_at(hardware, 1));
	assert_ok(dmacore_domain_replace(stage->parent, stage->device));
	assert_ptr_equal(hardware_through(hardware, stage->device, 0), hardware_at(hardware, 0));
	assert_ok(dmacore_domain_replace(stage->nested, stage->device));
	assert_ok(dmacore_domain_detach(stage->nested, stage->device));
	assert_null(hardware_through(hardware, stage->device, 0));
}

/* Exactly one flush, of this range of this domain. */
#define assert_flushed(hardware, count, domain, first_, last_)         \
	do {                                                           \
		assert_int_equal((hardware)->flush_count, ++*(count)); \
		assert_ptr_equal((hardware)->flushed, domain);         \
		assert_int_equal((hardware)->flushed_first, (first_)); \
		assert_int_equal((hardware)->flushed_last, (last_));   \
	} while (0)

static void invalidate__flushes_the_range_and_nothing_else(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;
	struct hardware_domain *nested = hardware_at(hardware, 1);
	unsigned count = hardware->flush_count;

	assert_ok(nest(stage, &stage->nested));
	assert_ok(dmacore_domain_invalidate(stage->nested, 5, 7));
	assert_flushed(hardware, &count, nested, 5, 7);
	assert_ok(dmacore_domain_invalidate(stage->nested, 0, UINT64_MAX));
	assert_flushed(hardware, &count, nested, 0, UINT64_MAX);
	assert_fails(dmacore_domain_invalidate(stage->parent, 5, 7), EOPNOTSUPP);
	assert_fails(dmacore_domain_invalidate(stage->nested, 7, 5), EINVAL);
	assert_int_equal(hardware->flush_count, count);
}

static void invalidate__of_a_pasid_flushes_the_domain_of_that(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;
	struct dmacore_domain *other;
	unsigned count;

	assert_ok(nest(stage, &stage->nested));
	assert_ok(nest(stage, &other));
	assert_ok(dmacore_device_claim_dma_owner(stage->device, &stage->owner));
	assert_ok(dmacore_device_attach(stage->device, stage->nested, &stage->owner));
	assert_ok(dmacore_device_attach_pasid(stage->device, PASID, other, &stage->owner));
	assert_ptr_equal(hardware_through(hardware, stage->device, 0), hardware_at(hardware, 1));
	assert_ptr_equal(hardware_through(hardware, stage->device, PASID),
			 hardware_at(hardware, 2));
	count = hardware->flush_count;
	assert_ok(dmacore_device_invalidate_pasid(stage->device, PASID, PAGE, 2 * PAGE - 1));
	assert_flushed(hardware, &count, hardware_at(hardware, 2), PAGE, 2 * PAGE - 1);
	assert_fails(dmacore_device_invalidate_pasid(stage->device, PASID + 1, 0, 1), ENOENT);
	assert_int_equal(hardware->flush_count, count);
	assert_ok(dmacore_device_detach_pasid(stage->device, PASID, &stage->owner));
	assert_null(hardware_through(hardware, stage->device, PASID));
	assert_ok(dmacore_device_release_dma_owner(stage->device, &stage->owner));
	dmacore_domain_destroy(other);
}

/* What the parent unmaps is the parent's; which others lead through it, the backend was told. */
static void unmap__in_the_parent_flushes_the_parent(void **state)
{
	struct stage *stage = *state;
	struct hardware *hardware = &stage->hardware;
	unsigned count;

	assert_ok(nest(stage, &stage->nested));
	assert_ok(dmacore_domain_map(stage->parent, PAGE, LOW_BASE, PAGE, DMACORE_ACCESS_READ));
	count = hardware->flush_count;
	assert_ok(dmacore_domain_unmap(stage->parent, PAGE, PAGE, 0, NULL));
	assert_flushed(hardware, &count, hardware_at(hardware, 0), PAGE, 2 * PAGE - 1);
}

#define test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(nested_domain__is_known_by_its_parent_and_the_tables_of_the_guest),
		test(nested_domain__that_the_backend_refuses_leaves_nothing),
		test(parent__is_known_for_longer_than_what_is_nested_in_it),
		test(device__is_attached_to_a_nested_domain_and_blocked),
		test(invalidate__flushes_the_range_and_nothing_else),
		test(invalidate__of_a_pasid_flushes_the_domain_of_that),
		test(unmap__in_the_parent_flushes_the_parent),
	};

	return run_group("backend of nested domains", tests);
}
