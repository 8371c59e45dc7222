/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Copies have no size that they may not have, but that of their pool. */

#include "support/machine.h"

#define KIB UINT64_C(1024)
#define POOL_SIZE MIB
#define SLOT UINT64_C(2048)

struct scene {
	struct machine machine;
	struct dmacore_bounce_pool *pool;
	/* Twice as much as the pool has. */
	uint8_t *buffer;
};

/* A flat machine, whose device has a pool for all that is mapped. */
static int scene_setup(void **state)
{
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct scene *scene = calloc(1, sizeof(*scene));
	struct machine *machine = &scene->machine;
	struct dmacore_device_options options;

	assert_non_null(scene);
	machine_start(machine, (enum path)(uintptr_t)*state);
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	pool.size = pool.size_max = POOL_SIZE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &pool, &scene->pool));
	options = device_options(machine);
	options.flags |= DMACORE_DEVICE_FORCE_BOUNCE;
	options.bounce_pool = scene->pool;
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
	scene->buffer = aligned_alloc(PAGE, 2 * POOL_SIZE);
	assert_non_null(scene->buffer);
	*state = scene;
	return 0;
}

static int scene_teardown(void **state)
{
	struct scene *scene = *state;
	struct machine *machine = &scene->machine;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	dmacore_bounce_pool_destroy(scene->pool);
	machine_stop(machine);
	free(scene->buffer);
	free(scene);
	return 0;
}

static struct dmacore_bounce_pool_statistics numbers(struct scene *scene)
{
	struct dmacore_bounce_pool_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_bounce_pool_statistics(scene->pool, &statistics));
	return statistics;
}

static void copy__may_be_as_large_as_its_pool(void **state)
{
	struct scene *scene = *state;
	struct machine *machine = &scene->machine;
	static const struct {
		uint64_t offset, size;
	} parts[] = { { 0, 256 * KIB },
		      { 0, 256 * KIB + 1 },
		      { 100, 512 * KIB + 77 },
		      { SLOT, 768 * KIB },
		      { 0, POOL_SIZE } };
	uint8_t *given = malloc(POOL_SIZE), *before = malloc(2 * POOL_SIZE);

	assert_true(given && before);
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const uint64_t size = parts[i].size;
		uint8_t *memory = scene->buffer + parts[i].offset;
		struct dmacore_bounce_pool_statistics old = numbers(scene);
		dmacore_dma_t dma;

		fill(scene->buffer, 2 * POOL_SIZE, i + 1);
		dma = map_for(machine, memory, size, DMACORE_BIDIRECTIONAL);
		assert_int_equal(numbers(scene).copied_to_pool - old.copied_to_pool, size);
		assert_true(numbers(scene).used_count >= (size + SLOT - 1) / SLOT);
		assert_ok(dmacore_view_read(machine->view, dma, given, size));
		assert_memory_equal(given, memory, size);
		memcpy(before, scene->buffer, 2 * POOL_SIZE);
		fill(given, size, 100 + i);
		assert_ok(dmacore_view_write(machine->view, dma, given, size));
		assert_memory_equal(scene->buffer, before, 2 * POOL_SIZE);
		/* A part in its middle, and then all of it and no byte beside it. */
		assert_ok(dmacore_sync_for_cpu(machine->device, dma + size / 2, 5000,
					       DMACORE_BIDIRECTIONAL));
		memcpy(before + parts[i].offset + size / 2, given + size / 2, 5000);
		assert_memory_equal(scene->buffer, before, 2 * POOL_SIZE);
		assert_ok(dmacore_unmap(machine->device, dma, size, DMACORE_BIDIRECTIONAL, 0));
		memcpy(before + parts[i].offset, given, size);
		assert_memory_equal(scene->buffer, before, 2 * POOL_SIZE);
		assert_int_equal(numbers(scene).copied_from_pool - old.copied_from_pool,
				 size + 5000);
		assert_int_equal(numbers(scene).used_count, 0);
	}
	free(given);
	free(before);
}

static void copy__that_is_larger_than_its_pool_finds_no_room(void **state)
{
	struct scene *scene = *state;
	struct machine *machine = &scene->machine;
	dmacore_dma_t dma;

	assert_fails_untouched(dmacore_map_single(machine->device, scene->buffer, POOL_SIZE + 1,
						  DMACORE_TO_DEVICE, 0, &dma),
			       ENOSPC, dma);
	assert_int_equal(numbers(scene).full_count, 1);
	assert_int_equal(numbers(scene).copied_to_pool, 0);
	/* Nor one that fits by itself, beside another. */
	dma = map_for(machine, scene->buffer, POOL_SIZE / 2 + SLOT, DMACORE_TO_DEVICE);
	assert_fails(dmacore_map_single(machine->device, scene->buffer, POOL_SIZE / 2,
					DMACORE_TO_DEVICE, 0, &(dmacore_dma_t){ 0 }),
		     ENOSPC);
	assert_ok(dmacore_unmap(machine->device, dma, POOL_SIZE / 2 + SLOT, DMACORE_TO_DEVICE, 0));
	dma = map_for(machine, scene->buffer, POOL_SIZE, DMACORE_TO_DEVICE);
	assert_ok(dmacore_unmap(machine->device, dma, POOL_SIZE, DMACORE_TO_DEVICE, 0));
}

#define test(path, function)                                                     \
	{                                                                        \
#function " (" #path ")", function, scene_setup, scene_teardown, \
			(void *)(uintptr_t)(path)                                \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(FLAT | TRACKED, copy__may_be_as_large_as_its_pool),
		test(FLAT | IDENTITY | TRACKED, copy__may_be_as_large_as_its_pool),
		test(FLAT | TRACKED, copy__that_is_larger_than_its_pool_finds_no_room),
		test(FLAT | IDENTITY | TRACKED, copy__that_is_larger_than_its_pool_finds_no_room),
	};

	return run_group("bounce_large", tests);
}
