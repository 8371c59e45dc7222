/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/oom.h"

#include "support/machine.h"

/*
 * How many allocations each operation makes in a steady state, that is once what it needs has been
 * seen before, held against ctests/thresholds/allocations.json. The numbers there may only fall.
 */

static char thresholds[4096];

static int read_thresholds(void **state)
{
	FILE *file = fopen("ctests/thresholds/allocations.json", "re");
	size_t size;

	(void)state;
	if (!file) {
		print_error("run this in the top folder, where ctests/ is\n");
		return -1;
	}
	size = fread(thresholds, 1, sizeof(thresholds) - 1, file);
	fclose(file);
	return size > 0 ? 0 : -1;
}

static unsigned long threshold_of(const char *operation)
{
	char key[64];
	const char *found;
	char *end;
	unsigned long value;

	snprintf(key, sizeof(key), "\"%s\":", operation);
	found = strstr(thresholds, key);
	if (!found)
		fail_msg("allocations.json does not mention %s", operation);
	value = strtoul(found + strlen(key), &end, 10);
	assert_true(end != found + strlen(key));
	return value;
}

/* Makes the call, and looks at how many allocations it made once the state is steady. */
#define measure(operation, call)                                                      \
	do {                                                                          \
		unsigned long calls_ = oom.calls, allowed_ = threshold_of(operation); \
                                                                                      \
		call;                                                                 \
		if (is_steady && oom.calls - calls_ > allowed_)                       \
			fail_msg("%s made %lu allocations instead of %lu", operation, \
				 oom.calls - calls_, allowed_);                       \
	} while (0)

#define ROUNDS 100

static void check_iova_space(uint32_t flags)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_constraints constraints = DMACORE_IOVA_CONSTRAINTS_INIT;
	struct dmacore_iova_space *space;
	dmacore_iova_t iova[16];

	options.flags = flags;
	assert_ok(dmacore_iova_space_create(&options, &space));
	for (unsigned round = 0; round < ROUNDS; round++) {
		bool is_steady = round > 0;

		for (unsigned i = 0; i < 16; i++)
			measure("iova_space_allocate",
				assert_ok(dmacore_iova_space_allocate(space, (1 + i % 5) * PAGE, 0,
								      UINT64_MAX >> 1, &iova[i])));
		for (unsigned i = 0; i < 16; i++)
			measure("iova_space_free", assert_ok(dmacore_iova_space_free(
							   space, iova[i], (1 + i % 5) * PAGE)));
		/* Through the caches, and past them with sizes that they do not take. */
		for (unsigned i = 0; i < 16; i++) {
			constraints.placement = i % 3;
			constraints.alignment = i % 3 ? PAGE << i % 4 : 0;
			constraints.boundary = i % 3 ? 16 * PAGE : 0;
			measure("iova_space_allocate_with",
				assert_ok(dmacore_iova_space_allocate_with(
					space, (i % 3 ? 3 : 1 + i % 5) * PAGE, &constraints,
					&iova[i])));
		}
		for (unsigned i = 0; i < 16; i++)
			measure("iova_space_free",
				assert_ok(dmacore_iova_space_free(space, iova[i],
								  (i % 3 ? 3 : 1 + i % 5) * PAGE)));
	}
	dmacore_iova_space_destroy(space);
}

static void iova_space__meets_its_thresholds(void **state)
{
	(void)state;
	check_iova_space(0);
	check_iova_space(DMACORE_IOVA_SPACE_CHECKED);
}

static void pagetable__meets_its_thresholds(void **state)
{
	struct dmacore_pagetable *table;

	(void)state;
	assert_ok(dmacore_pagetable_create(NULL, &table));
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct dmacore_translation found;
		bool is_steady = round > 0;

		measure("pagetable_map",
			assert_ok(dmacore_pagetable_map(table, GIB - PAGE, 0, 2 * PAGE,
							DMACORE_ACCESS_READ)));
		measure("pagetable_translate", assert_ok(dmacore_pagetable_translate(
						       table, GIB, DMACORE_ACCESS_READ, &found)));
		measure("pagetable_unmap",
			assert_ok(dmacore_pagetable_unmap(table, GIB - PAGE, 2 * PAGE, 0, NULL)));
	}
	dmacore_pagetable_destroy(table);
}

static void mapping__meets_its_thresholds(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct dmacore_view *view = machine->view;
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, 1, &phys));
	for (unsigned round = 0; round < ROUNDS; round++) {
		const struct dmacore_view_segment *segments;
		struct dmacore_view_mapping *mapping;
		struct dmacore_translation found;
		struct dmacore_fault fault;
		bool is_steady = round > 0;
		dmacore_dma_t dma, other;
		uint8_t bytes[64] = { 0 };
		struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
		size_t count;

		measure("map_single",
			assert_ok(dmacore_map_single(device, machine->low, 2 * PAGE,
						     DMACORE_BIDIRECTIONAL, 0, &dma)));
		measure("map_phys", assert_ok(dmacore_map_phys(device, phys + 4 * PAGE, 10,
							       DMACORE_TO_DEVICE, 0, &other)));
		measure("sync_for_cpu",
			assert_ok(dmacore_sync_for_cpu(device, dma, 10, DMACORE_BIDIRECTIONAL)));
		measure("sync_for_device",
			assert_ok(dmacore_sync_for_device(device, dma, 10, DMACORE_BIDIRECTIONAL)));
		measure("device_set_streaming_mask",
			assert_ok(dmacore_device_set_streaming_mask(device, UINT64_MAX, &beyond)));
		measure("view_translate", assert_ok(dmacore_view_translate(view, dma, 0, &found)));
		measure("view_read",
			assert_ok(dmacore_view_read(view, dma + PAGE - 32, bytes, 64)));
		measure("view_write",
			assert_ok(dmacore_view_write(view, dma + PAGE - 32, bytes, 64)));
		measure("view_fault", assert_fails(dmacore_view_read(view, 8, bytes, 1), ENOENT));
		measure("fault_take",
			assert_ok(dmacore_fault_take(device, &fault, 1, &count, NULL)));
		measure("view_map",
			assert_ok(dmacore_view_map(view, dma, 2 * PAGE, DMACORE_ACCESS_READ,
						   &mapping, &segments, &count)));
		measure("view_unmap", dmacore_view_unmap(mapping));
		measure("unmap",
			assert_ok(dmacore_unmap(device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0)));
		measure("unmap", assert_ok(dmacore_unmap(device, other, 10, DMACORE_TO_DEVICE, 0)));
	}
	/* The callback's record of the faults is of no matter here. */
	machine->faults.taken = machine->faults.count = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iova_space__meets_its_thresholds),
		cmocka_unit_test(pagetable__meets_its_thresholds),
		test_on_recorded(mapping__meets_its_thresholds),
	};

	return run_oom_group("allocations", tests, read_thresholds);
}
