/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/machine.h"

static void system_create__unwinds_every_failed_allocation(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_system *system;
	unsigned live = oom.live_count;

	(void)state;
	for (unsigned flat = 0; flat < 2; flat++) {
		options.flags = flat ? DMACORE_SYSTEM_FLAT : 0;
		assert_creates_after_failures(dmacore_system_create(&options, &system), system);
		assert_needs_no_memory(dmacore_system_destroy(system));
		assert_int_equal(oom.live_count, live);
	}
}

static int read_zeroes(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset;
	(void)opaque;
	memset(buffer, 0, size);
	return 0;
}

/* Regions of each backing, so many that the map grows. */
static void memory_add__changes_nothing_when_an_allocation_fails(void **state)
{
	enum { COUNT = 40 };
	static uint8_t bytes[COUNT][64];
	unsigned live = oom.live_count;
	unsigned long failures;
	struct dmacore_system *system;
	int fd = memfd_create("ram", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_ok(ftruncate(fd, COUNT * (off_t)PAGE));
	assert_ok(dmacore_system_create(NULL, &system));
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i++) {
		struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
		unsigned before = oom.live_count;
		void *host;

		region.backing = 1 + i % 3;
		region.flags = DMACORE_MEMORY_READ_ONLY;
		region.base = i * PAGE;
		region.size = 64;
		region.host = bytes[i];
		region.fd = fd;
		region.fd_offset = i * PAGE;
		region.read = read_zeroes;
		assert_survives_failures(dmacore_memory_add(system, &region), {
			assert_int_equal(oom.live_count, before);
			assert_fails(dmacore_memory_phys_to_host(system, i * PAGE, 1, &host),
				     EFAULT);
		});
	}
	assert_true(oom.failures > failures);

	/* Every second is removed under failures; the rest goes with the system. */
	failures = oom.failures;
	for (unsigned i = 0; i < COUNT; i += 2) {
		void *host;
		int there = i % 3 == 2 ? -EOPNOTSUPP : 0;

		assert_survives_failures(
			dmacore_memory_remove(system, i * PAGE, 64),
			assert_result(dmacore_memory_phys_to_host(system, i * PAGE, 1, &host),
				      there));
		assert_fails(dmacore_memory_phys_to_host(system, i * PAGE, 1, &host), EFAULT);
	}
	assert_true(oom.failures > failures);
	assert_needs_no_memory(dmacore_system_destroy(system));
	assert_int_equal(oom.live_count, live);
	close(fd);
}

static void create__of_every_object_unwinds_every_failed_allocation(void **state)
{
	unsigned live = oom.live_count;
	struct dmacore_iommu *iommu;
	struct dmacore_domain *domain;
	struct dmacore_device *device, *refused;
	struct dmacore_view *view;
	struct dmacore_dma_range ranges[] = { { 0, 0, PAGE }, { PAGE, 0x10000, PAGE } };
	unsigned live_with_device;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT, nested_options;
	struct dmacore_walk_options walk = DMACORE_WALK_OPTIONS_INIT;
	struct dmacore_domain *nested, *refused_domain;
	struct dmacore_device_options device_options_;
	static struct machine machine;

	(void)state;
	machine_start(&machine, TRANSLATED);
	assert_creates_after_failures(dmacore_iommu_create(machine.system, NULL, &iommu), iommu);
	assert_creates_after_failures(dmacore_domain_create(iommu, NULL, &domain), domain);
	dmacore_domain_destroy(domain);
	domain_options.type = DMACORE_DOMAIN_DMA_LAZY;
	assert_creates_after_failures(dmacore_domain_create(iommu, &domain_options, &domain),
				      domain);
	assert_needs_no_memory({
		assert_ok(dmacore_domain_flush(domain));
		assert_ok(dmacore_system_tick(machine.system, 1));
		dmacore_domain_destroy(domain);
	});
	domain_options.type = DMACORE_DOMAIN_HYBRID;
	assert_creates_after_failures(dmacore_domain_create(iommu, &domain_options, &domain),
				      domain);
	assert_needs_no_memory(dmacore_domain_destroy(domain));
	domain_options.type = DMACORE_DOMAIN_UNMANAGED;
	assert_creates_after_failures(dmacore_domain_create(iommu, &domain_options, &domain),
				      domain);
	nested_options = domain_options;
	nested_options.type = DMACORE_DOMAIN_NESTED;
	nested_options.parent = domain;
	nested_options.guest_table = &walk;
	assert_creates_after_failures(dmacore_domain_create(iommu, &nested_options, &nested),
				      nested);
	/* Nor does a refused one hold on to its parent. */
	walk.root = 8;
	assert_creates_nothing(dmacore_domain_create(iommu, &nested_options, &refused_domain),
			       EINVAL, refused_domain);
	assert_needs_no_memory({
		assert_ok(dmacore_domain_invalidate(nested, 0, UINT64_MAX));
		dmacore_domain_destroy(nested);
		dmacore_domain_destroy(domain);
	});
	domain_options.type = DMACORE_DOMAIN_BLOCKED;
	assert_creates_after_failures(dmacore_domain_create(iommu, &domain_options, &domain),
				      domain);
	assert_needs_no_memory(dmacore_domain_destroy(domain));
	domain_options.type = DMACORE_DOMAIN_IDENTITY;
	assert_creates_after_failures(dmacore_domain_create(iommu, &domain_options, &domain),
				      domain);
	device_options_ = device_options(&machine);
	device_options_.iommu = iommu;
	device_options_.fault_capacity = 65536;
	assert_creates_after_failures(
		dmacore_device_create(machine.system, &device_options_, &device), device);
	dmacore_device_destroy(device);
	device_options_.ranges = ranges;
	device_options_.range_count = 2;
	assert_creates_after_failures(
		dmacore_device_create(machine.system, &device_options_, &device), device);
	/* Nor do refused ranges leave anything. */
	ranges[1].bus = 0;
	live_with_device = oom.live_count;
	assert_creates_nothing(dmacore_device_create(machine.system, &device_options_, &refused),
			       EINVAL, refused);
	assert_int_equal(oom.live_count, live_with_device);
	assert_creates_after_failures(dmacore_view_create(device, &view), view);

	/* From here on nothing may ask for memory. */
	assert_needs_no_memory({
		uint8_t byte;

		assert_fails(dmacore_view_read(view, 0, &byte, 1), EPERM);
		machine.faults.count = 0;
		assert_ok(dmacore_domain_attach(domain, device));
		assert_ok(dmacore_domain_detach(domain, device));
		dmacore_view_destroy(view);
		dmacore_device_destroy(device);
		dmacore_domain_destroy(domain);
		dmacore_iommu_destroy(iommu);
	});
	assert_needs_no_memory(machine_stop(&machine));
	assert_int_equal(oom.live_count, live);
}

static void domain_create__unwinds_with_a_hook(void **state)
{
	const uint32_t types[] = { DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_UNMANAGED };
	unsigned live = oom.live_count;
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;
	static struct machine machine;

	(void)state;
	machine_start(&machine, TRANSLATED);
	for (unsigned i = 0; i < 2; i++) {
		options.type = types[i];
		assert_creates_after_failures(
			dmacore_domain_create(machine.iommu, &options, &domain), domain);
		/* The failures gave their table back. */
		assert_int_equal(machine.tables.live, 2);
		dmacore_domain_destroy(domain);
		assert_int_equal(machine.tables.live, 1);
	}
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void group_create__unwinds_every_failed_allocation(void **state)
{
	unsigned live = oom.live_count;
	struct dmacore_group *group;
	static struct machine machine;

	(void)state;
	machine_start(&machine, TRANSLATED);
	assert_creates_after_failures(dmacore_group_create(machine.system, &group), group);
	assert_needs_no_memory(dmacore_group_destroy(group));
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

/* Alone, and into a group whose devices are attached; changes of the group need no memory. */
static void device_create__leaves_its_group_alone_when_an_allocation_fails(void **state)
{
	unsigned live = oom.live_count;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options;
	struct dmacore_device *alone, *device;
	struct dmacore_domain *own;
	static struct machine machine;
	char text[DMACORE_DESCRIPTION_SIZE];

	(void)state;
	machine_start(&machine, TRANSLATED);
	own = make_domain(&machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	options = device_options(&machine);
	assert_creates_after_failures(dmacore_device_create(machine.system, &options, &alone),
				      alone);
	dmacore_device_destroy(alone);

	assert_ok(dmacore_device_group(machine.device, &options.group));
	device = NULL;
	assert_survives_failures(dmacore_device_create(machine.system, &options, &device), {
		assert_null(device);
		assert_int_equal(domain_statistics(machine.domain).device_count, 1);
		assert_ok(dmacore_group_describe(options.group, text, sizeof(text)));
		assert_string_equal(text, "free (1 device); in a DMA domain");
	});
	assert_int_equal(domain_statistics(machine.domain).device_count, 2);
	assert_needs_no_memory({
		assert_ok(dmacore_device_use_default_domain(device));
		assert_ok(dmacore_device_unuse_default_domain(device));
		assert_ok(dmacore_device_claim_dma_owner(device, &owner));
		assert_ok(dmacore_device_attach(machine.device, own, &owner));
		assert_ok(dmacore_device_detach(device, &owner));
		assert_ok(dmacore_device_release_dma_owner(device, &owner));
		assert_ok(dmacore_domain_replace(own, device));
		assert_ok(dmacore_domain_replace(machine.domain, device));
		assert_ok(dmacore_group_describe(options.group, text, sizeof(text)));
		dmacore_group_destroy(options.group);
		dmacore_device_destroy(device);
		dmacore_domain_destroy(own);
	});
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

static void count_release(void *opaque)
{
	++*(unsigned *)opaque;
}

static void count_event(const struct dmacore_notifier_event *event, void *opaque)
{
	(void)event;
	(void)opaque;
}

static void notifier_create__unwinds_every_failed_allocation(void **state)
{
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
	struct dmacore_notifier *notifier;
	static struct machine machine;
	unsigned live = oom.live_count, releases = 0;

	(void)state;
	options.notify = count_event;
	options.release = count_release;
	options.opaque = &releases;
	machine_start(&machine, IDENTITY);
	assert_creates_after_failures(dmacore_notifier_create(machine.domain, &options, &notifier),
				      notifier);
	assert_int_equal(releases, 0);
	assert_needs_no_memory({
		assert_ok(dmacore_notifier_replay(notifier));
		dmacore_notifier_destroy(notifier);
	});
	assert_int_equal(releases, 1);
	machine_stop(&machine);
	assert_int_equal(oom.live_count, live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(system_create__unwinds_every_failed_allocation),
		cmocka_unit_test(memory_add__changes_nothing_when_an_allocation_fails),
		cmocka_unit_test(create__of_every_object_unwinds_every_failed_allocation),
		cmocka_unit_test(domain_create__unwinds_with_a_hook),
		cmocka_unit_test(notifier_create__unwinds_every_failed_allocation),
		cmocka_unit_test(group_create__unwinds_every_failed_allocation),
		cmocka_unit_test(device_create__leaves_its_group_alone_when_an_allocation_fails),
	};

	return run_oom_group("oom objects", tests, NULL);
}
