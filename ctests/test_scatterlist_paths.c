/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Lists over paths of which each has its own: copies, caches, windows, and memory of peers. */

#include "support/lists.h"
#include "support/peers.h"
#include "support/pools.h"

#define LOW_MASK DMACORE_BIT_MASK(32)

/* Bounced. */

static void map_list__bounces_what_is_out_of_reach(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct work work;

	fill_memory(machine);
	use_device(machine, 0, LOW_MASK, 16 * PAGE, &pool);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	/* Contiguous; the first two are in reach. */
	add(&work, LOW_BASE + 10, 100);
	add(&work, LOW_BASE + 110, 5);
	add(&work, HIGH_BASE + 3, PAGE);
	add(&work, HIGH_BASE + 3 + PAGE, 90);
	add(&work, LOW_BASE + 5 * PAGE, 2);
	assert_ok(map(&work));
	assert_count(&work, 4);
	assert_segment(&work, 0, LOW_BASE + 10, 105);
	assert_int_equal(work.list[0].path, DMACORE_PATH_DIRECT);
	assert_int_equal(work.list[1].path, DMACORE_PATH_BOUNCED);
	assert_int_equal(work.list[1].dma_size, PAGE);
	assert_int_equal(work.list[1].dma % PAGE, 3);
	assert_int_equal(work.list[2].path, DMACORE_PATH_BOUNCED);
	assert_int_equal(work.list[2].dma_size, 90);
	assert_int_equal(work.list[3].path, DMACORE_PATH_DIRECT);
	assert_int_equal(device_statistics(machine->device).mapping_count, 2);
	check_transfer(machine, &work, machine->view);
	/* What the CPU changes comes when it is synced, and no more than that. */
	fill_memory(machine);
	machine->high[3 + 99] ^= 1;
	machine->high[3 + 100] ^= 1;
	{
		uint8_t before[2], after[2];

		assert_ok(dmacore_view_read(machine->view, work.list[1].dma + 99, before, 2));
		assert_ok(dmacore_sync_list_for_device(work.device, work.list, work.entries,
						       105 + 99, 1, work.direction));
		assert_ok(dmacore_view_read(machine->view, work.list[1].dma + 99, after, 2));
		assert_int_equal(after[0], machine->high[3 + 99]);
		assert_int_equal(after[1], before[1]);
	}
	/* What the device writes comes back with the unmap. */
	assert_ok(dmacore_view_write(machine->view, work.list[2].dma + 7, "xyz", 3));
	assert_memory_not_equal(machine->high + 3 + PAGE + 7, "xyz", 3);
	assert_ok(unmap(&work));
	assert_memory_equal(machine->high + 3 + PAGE + 7, "xyz", 3);
	assert_int_equal(used_slots(pool), 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	end_pool(machine, pool);
}

/* The pool has no room for it in a row, and none at all for more. */
static void map_list__bounces_in_several_segments(void **state)
{
	enum { PAGES = 12 };
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct work work;
	dmacore_dma_t dma[PAGES];
	uint64_t used;

	fill_memory(machine);
	use_device(machine, 0, LOW_MASK, PAGES * PAGE, &pool);
	for (unsigned i = 0; i < PAGES; i++)
		assert_ok(dmacore_map_phys(machine->device, HIGH_BASE + 15 * PAGE, PAGE,
					   DMACORE_TO_DEVICE, 0, &dma[i]));
	/* In the order of addresses every third is in use. */
	for (unsigned i = 0; i < PAGES; i++)
		if (dma[i] / PAGE % 3 != 0)
			assert_ok(
				dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	used = used_slots(pool);
	assert_int_equal(used, 8);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, HIGH_BASE + 5, 6 * PAGE);
	/* No room in the list: it may have been fewer. */
	mark_end(&work);
	assert_refused(machine, &work, ENOSPC);
	assert_int_equal(used_slots(pool), used);
	assert_ok(map_at(&work, 8));
	assert_true(work.count >= 3 && work.count <= 7);
	for (size_t i = 0; i < work.count; i++)
		assert_int_equal(work.list[i].path, DMACORE_PATH_BOUNCED);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	assert_int_equal(used_slots(pool), used);
	/* More than there is. */
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE, PAGE);
	add(&work, HIGH_BASE, 15 * PAGE);
	work.entries = ENTRIES;
	mark_end(&work);
	assert_refused(machine, &work, ENOSPC);
	assert_int_equal(used_slots(pool), used);
	for (unsigned i = 0; i < PAGES; i++)
		if (dma[i] / PAGE % 3 == 0)
			assert_ok(
				dmacore_unmap(machine->device, dma[i], PAGE, DMACORE_TO_DEVICE, 0));
	end_pool(machine, pool);
}

/* Every second one of the pool's is free: what is larger finds place slot by slot, but for low bits. */
static void map_list__bounces_slot_by_slot(void **state)
{
	enum { SLOT = 2048, SLOTS = 16 };
	static const uint64_t offsets[] = { 0, SLOT, 1000 };
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct work work;
	dmacore_dma_t dma[SLOTS];

	fill_memory(machine);
	use_device(machine, 0, LOW_MASK, SLOTS * SLOT, &pool);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_ok(dmacore_map_phys(machine->device, HIGH_BASE + 15 * PAGE, 10,
					   DMACORE_TO_DEVICE, 0, &dma[i]));
	for (unsigned i = 0; i < SLOTS; i++)
		if (dma[i] / SLOT % 2 == 0)
			assert_ok(dmacore_unmap(machine->device, dma[i], 10, DMACORE_TO_DEVICE, 0));
	for (unsigned i = 0; i < 3; i++)
		for (uint64_t size = SLOT; size <= SLOTS / 2 * SLOT; size += SLOT / 2) {
			uint64_t end = offsets[i] % SLOT + size;

			start(&work, machine->device, DMACORE_BIDIRECTIONAL);
			add(&work, HIGH_BASE + offsets[i], size);
			if (end > SLOTS / 2 * SLOT)
				continue;
			assert_ok(map_at(&work, 8));
			if (size > SLOT)
				assert_int_equal(work.count, (end + SLOT - 1) / SLOT);
			for (size_t j = 0; j < work.count; j++)
				assert_int_equal(work.list[j].path, DMACORE_PATH_BOUNCED);
			check_transfer(machine, &work, machine->view);
			assert_ok(unmap(&work));
			assert_int_equal(used_slots(pool), SLOTS / 2);
		}
	/* A device that asks for pages gets no parts of them. */
	limits.min_align_mask = PAGE - 1;
	assert_ok(dmacore_device_set_limits(machine->device, &limits));
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, HIGH_BASE, 2 * PAGE);
	work.entries = ENTRIES;
	mark_end(&work);
	assert_refused(machine, &work, ENOSPC);
	for (unsigned i = 0; i < SLOTS; i++)
		if (dma[i] / SLOT % 2 != 0)
			assert_ok(dmacore_unmap(machine->device, dma[i], 10, DMACORE_TO_DEVICE, 0));
	end_pool(machine, pool);
}

static void map_list__bounces_no_registers(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct work work;

	use_device(machine, 0, LOW_MASK, 4 * PAGE, &pool);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, HIGH_BASE, 8);
	add(&work, HIGH_BASE + 8, 8);
	mark_end(&work);
	work.list[1].flags |= DMACORE_SG_MMIO;
	assert_refused(machine, &work, ERANGE);
	assert_int_equal(used_slots(pool), 0);
	work.list[1].flags &= ~(uint32_t)DMACORE_SG_MMIO;
	work.attributes = DMACORE_ATTR_REQUIRE_COHERENT;
	assert_refused(machine, &work, EOPNOTSUPP);
	end_pool(machine, pool);
}

/* A device that is not trusted has the pages that the list fills, and copies of the others. */
static void map_list__bounces_pages_that_it_does_not_fill(void **state)
{
	struct machine *machine = *state;
	struct dmacore_bounce_pool *pool;
	struct work work;
	uint8_t bytes[PAGE];

	fill_memory(machine);
	use_device(machine, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 16 * PAGE, &pool);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 10, 2 * PAGE);
	add(&work, HIGH_BASE + 3 * PAGE, PAGE);
	add(&work, HIGH_BASE + 7 * PAGE, 100);
	/* Two halves of a page: all of it is the list's. */
	add(&work, LOW_BASE + 9 * PAGE, 2000);
	add(&work, LOW_BASE + 9 * PAGE + 2000, PAGE - 2000);
	assert_ok(map(&work));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_size, 2 * PAGE);
	assert_int_equal(work.list[0].dma % PAGE, 10);
	assert_int_equal(work.list[0].path, DMACORE_PATH_IOMMU_BOUNCED);
	assert_int_equal(work.list[1].dma_size, PAGE + 100);
	assert_int_equal(work.list[1].path, DMACORE_PATH_IOMMU_BOUNCED);
	assert_int_equal(work.list[2].dma_size, PAGE);
	assert_int_equal(work.list[2].path, DMACORE_PATH_IOMMU);
	assert_int_equal(used_slots(pool), 6);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	check_transfer(machine, &work, machine->view);
	/* What is around is nothing. */
	assert_ok(
		dmacore_view_read(machine->view, work.list[1].dma + PAGE + 100, bytes, PAGE - 100));
	for (unsigned i = 0; i < PAGE - 100; i++)
		assert_int_equal(bytes[i], 0);
	/* A part is synced: the first byte of a copy, not the second. */
	machine->high[7 * PAGE] = 0xaa;
	machine->high[7 * PAGE + 1] = 0xbb;
	assert_ok(dmacore_view_write(machine->view, work.list[1].dma + PAGE, "\x11\x22", 2));
	assert_ok(dmacore_sync_list_for_device(work.device, work.list, work.entries, 3 * PAGE, 1,
					       work.direction));
	assert_ok(dmacore_view_read(machine->view, work.list[1].dma + PAGE, bytes, 2));
	assert_int_equal(bytes[0], 0xaa);
	assert_int_equal(bytes[1], 0x22);
	assert_ok(unmap(&work));
	assert_int_equal(machine->high[7 * PAGE + 1], 0x22);
	assert_int_equal(used_slots(pool), 0);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
	/* When one of the copies finds no place, nothing is mapped. */
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	for (unsigned i = 0; i < 15; i++)
		add(&work, LOW_BASE + i * PAGE + 8, 8);
	add(&work, HIGH_BASE + 8, PAGE);
	mark_end(&work);
	assert_refused(machine, &work, ENOSPC);
	assert_int_equal(used_slots(pool), 0);
	end_pool(machine, pool);
}

/* Hybrid. */

static void map_list__goes_by_each_entry_in_a_hybrid_domain(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, LOW_MASK, NULL));
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, HIGH_BASE + 5, PAGE);
	add(&work, LOW_BASE + 7, 2 * PAGE);
	add(&work, HIGH_BASE + 8 * PAGE, PAGE);
	add(&work, NEXT_BASE - 5, 10);
	assert_ok(map(&work));
	assert_count(&work, 4);
	assert_int_equal(work.list[0].path, DMACORE_PATH_IOMMU);
	assert_int_equal(work.list[1].path, DMACORE_PATH_DIRECT);
	assert_segment(&work, 1, LOW_BASE + 7, 2 * PAGE);
	assert_int_equal(work.list[2].path, DMACORE_PATH_IOMMU);
	assert_segment(&work, 3, NEXT_BASE - 5, 10);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	assert_ok(dmacore_view_write(machine->view, work.list[1].dma, "hybrid", 6));
	assert_memory_equal(machine->low + 7, "hybrid", 6);
	assert_ok(dmacore_view_write(machine->view, work.list[2].dma, "domain", 6));
	assert_memory_equal(machine->high + 8 * PAGE, "domain", 6);
	assert_ok(dmacore_sync_list_for_cpu(work.device, work.list, 4, 0, 0, work.direction));
	/* Bypass ends: what is mapped directly stays until it is unmapped. */
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	assert_ok(dmacore_view_write(machine->view, work.list[3].dma, "hybrid", 6));
	assert_ok(unmap(&work));
	assert_fails(dmacore_view_write(machine->view, LOW_BASE + 7, "hybrid", 6), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, LOW_BASE + 7, LOW_BASE + 12,
		       DMACORE_ACCESS_WRITE);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	/* And now all of a list is in one range. */
	assert_ok(map(&work));
	for (size_t i = 0; i < work.count; i++)
		assert_int_equal(work.list[i].path, DMACORE_PATH_IOMMU);
	assert_ok(dmacore_view_write(machine->view, work.list[3].dma + 5, "other", 5));
	assert_memory_equal(machine->next, "other", 5);
	assert_ok(unmap(&work));
	assert_misuse(machine, unmap(&work));
}

/* An offset counts once, and the last byte is one that is in reach. */
static void map_list__counts_an_offset_once(void **state)
{
	struct machine *machine = *state;
	struct work work;

	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	for (unsigned end = 0; end < 3; end++) {
		uint64_t mask = DMACORE_BIT_MASK(32);

		/* The last byte that is in reach, the one before it, and the one behind it. */
		assert_ok(dmacore_device_set_streaming_mask(machine->device, mask, NULL));
		assert_ok(dmacore_device_set_bus_limit(machine->device, LOW_BASE + 3000 + 1999,
						       NULL));
		start(&work, machine->device, DMACORE_TO_DEVICE);
		add(&work, LOW_BASE + 8, 8);
		add(&work, LOW_BASE + 3000, 1999 + end);
		assert_ok(map(&work));
		assert_count(&work, 2);
		assert_int_equal(work.list[1].path,
				 end < 2 ? DMACORE_PATH_DIRECT : DMACORE_PATH_IOMMU);
		assert_int_equal(work.list[0].path, DMACORE_PATH_DIRECT);
		assert_ok(unmap(&work));
	}
}

/* By the bus's own addresses. */
static void map_list__goes_by_the_buss_addresses(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_dma_range ranges[] = {
		{ 0x10000000, LOW_BASE, RAM_SIZE }, { 0x10000000 + RAM_SIZE, HIGH_BASE, RAM_SIZE }
	};
	struct work work;

	fill_memory(machine);
	assert_ok(dmacore_device_set_ranges(machine->device, ranges, 2));
	/* At boundaries of the bus, of which memory has others. */
	limit(machine->device, UINT64_MAX, 4 * PAGE - 1, 0);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + RAM_SIZE - PAGE, PAGE);
	add(&work, HIGH_BASE, 6 * PAGE);
	add(&work, HIGH_BASE + 6 * PAGE, PAGE);
	assert_ok(map_at(&work, 4));
	assert_count(&work, 3);
	assert_segment(&work, 0, 0x10000000 + RAM_SIZE - PAGE, PAGE);
	assert_segment(&work, 1, 0x10000000 + RAM_SIZE, 4 * PAGE);
	assert_segment(&work, 2, 0x10000000 + RAM_SIZE + 4 * PAGE, 3 * PAGE);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE, 8);
	add(&work, NEXT_BASE, 8);
	mark_end(&work);
	assert_refused(machine, &work, ERANGE);
}

/* Caches. */

struct call {
	dmacore_phys_t phys;
	uint64_t size;
	bool is_for_cpu;
};

struct cache {
	struct call at[32];
	unsigned count;
};

static void cache_record(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
			 void *opaque)
{
	struct cache *cache = opaque;

	(void)direction;
	assert_true(cache->count < 32);
	cache->at[cache->count++] = (struct call){ phys, size, is_for_cpu };
}

/* How many bytes of a range were maintained, each once, and nothing else was. */
static void assert_maintained(struct cache *cache, const struct dmacore_sg *list, size_t count,
			      bool is_for_cpu)
{
	uint64_t expected = 0, found = 0;

	for (size_t i = 0; i < count; i++)
		if (!(list[i].flags & DMACORE_SG_MMIO))
			expected += list[i].size;
	for (unsigned n = 0; n < cache->count; n++) {
		const struct call *call = &cache->at[n];
		bool is_inside = false;

		assert_int_equal(call->is_for_cpu, is_for_cpu);
		found += call->size;
		for (size_t i = 0; i < count; i++)
			is_inside |= !(list[i].flags & DMACORE_SG_MMIO) &&
				     call->phys >= list[i].phys &&
				     call->phys + call->size <= list[i].phys + list[i].size;
		assert_true(is_inside);
	}
	assert_int_equal(found, expected);
	cache->count = 0;
}

static void check_caches(uint32_t type, uint32_t attributes)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_device_options device_options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_system *system;
	struct dmacore_iommu *iommu = NULL;
	struct dmacore_domain *domain = NULL;
	struct dmacore_device *device;
	struct cache cache = { .count = 0 };
	struct work work;
	const bool skips = attributes & DMACORE_ATTR_SKIP_CPU_SYNC;

	system_options.cache = cache_record;
	system_options.cache_opaque = &cache;
	assert_ok(dmacore_system_create(&system_options, &system));
	device_options.flags = DMACORE_DEVICE_NONCOHERENT;
	device_options.streaming_mask = UINT64_MAX;
	if (type) {
		assert_ok(dmacore_iommu_create(system, NULL, &iommu));
		device_options.iommu = iommu;
		domain_options.type = type;
		assert_ok(dmacore_domain_create(iommu, &domain_options, &domain));
	}
	assert_ok(dmacore_device_create(system, &device_options, &device));
	if (type)
		assert_ok(dmacore_domain_attach(domain, device));
	for (uint32_t direction = 0; direction < 3; direction++) {
		const bool is_written = direction != DMACORE_TO_DEVICE;

		start(&work, device, direction);
		work.attributes = attributes;
		add(&work, LOW_BASE + 10, 100);
		add(&work, LOW_BASE + 3 * PAGE, 2 * PAGE);
		add(&work, HIGH_BASE, PAGE);
		add(&work, HIGH_BASE + 8 * PAGE, 64);
		mark_end(&work);
		work.list[3].flags |= DMACORE_SG_MMIO;
		assert_ok(dmacore_map_list(device, work.list, 4, direction, attributes, 0,
					   &work.count));
		if (!skips)
			assert_maintained(&cache, work.list, 4, false);
		assert_int_equal(cache.count, 0);
		/* All, and a part that lies in two segments or entries. */
		assert_ok(dmacore_sync_list_for_cpu(device, work.list, 4, 0, 0, direction));
		if (is_written)
			assert_maintained(&cache, work.list, 4, true);
		assert_int_equal(cache.count, 0);
		assert_ok(dmacore_sync_list_for_device(device, work.list, 4, 99, 21, direction));
		assert_int_equal(cache.count, 2);
		assert_int_equal(cache.at[0].phys, LOW_BASE + 10 + 99);
		assert_int_equal(cache.at[0].size, 1);
		assert_int_equal(cache.at[1].phys, LOW_BASE + 3 * PAGE);
		assert_int_equal(cache.at[1].size, 20);
		cache.count = 0;
		/* Registers alone. */
		assert_ok(dmacore_sync_list_for_device(device, work.list, 4, 100 + 3 * PAGE, 64,
						       direction));
		assert_int_equal(cache.count, 0);
		assert_ok(dmacore_unmap_list(device, work.list, 4, direction, attributes));
		if (is_written && !skips)
			assert_maintained(&cache, work.list, 4, true);
		assert_int_equal(cache.count, 0);
	}
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
	dmacore_iommu_destroy(iommu);
	dmacore_system_destroy(system);
}

static void list_calls__maintain_caches_of_the_entries(void **state)
{
	const uint32_t types[] = { 0, DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				   DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_HYBRID };

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		check_caches(types[i], 0);
		check_caches(types[i], DMACORE_ATTR_SKIP_CPU_SYNC);
	}
}

/* Registers and peers. */

static void map_list__leaves_registers_segments_of_their_own(void **state)
{
	struct machine *machine = *state;
	struct work work;

	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE, PAGE);
	add(&work, LOW_BASE + PAGE, PAGE);
	add(&work, LOW_BASE + 2 * PAGE, PAGE);
	add(&work, LOW_BASE + 3 * PAGE, PAGE);
	mark_end(&work);
	work.list[1].flags |= DMACORE_SG_MMIO;
	assert_ok(map(&work));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_flags, 0);
	assert_int_equal(work.list[1].dma_flags, DMACORE_SG_MMIO);
	assert_int_equal(work.list[1].dma_size, PAGE);
	assert_int_equal(work.list[2].dma_flags, 0);
	assert_int_equal(work.list[2].dma_size, 2 * PAGE);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* All of them. */
	work.attributes = DMACORE_ATTR_MMIO;
	assert_ok(map(&work));
	assert_count(&work, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(work.list[i].dma_flags, DMACORE_SG_MMIO);
	assert_ok(dmacore_sync_list_for_cpu(work.device, work.list, 4, 0, 0, work.direction));
	assert_ok(unmap(&work));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

struct client {
	struct dmacore_device *device;
	struct dmacore_domain *domain;
	struct dmacore_view *view;
};

static struct client make_client(struct board *board, struct dmacore_bridge *bridge, uint32_t flags,
				 uint32_t type)
{
	struct client client = { .domain = NULL };

	client.device =
		type ? add_behind_iommu(board, bridge, flags) : add_device(board, bridge, flags);
	if (type) {
		client.domain = make_domain(&board->machine, type, 0, 0);
		assert_ok(dmacore_domain_attach(client.domain, client.device));
	}
	assert_ok(dmacore_view_create(client.device, &client.view));
	return client;
}

static void end_client(struct client *client)
{
	assert_int_equal(device_statistics(client->device).mapping_count, 0);
	dmacore_view_destroy(client->view);
	if (client->domain)
		assert_ok(dmacore_domain_detach(client->domain, client->device));
	dmacore_domain_destroy(client->domain);
}

static const uint32_t types[] = { 0, DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA,
				  DMACORE_DOMAIN_DMA_LAZY, DMACORE_DOMAIN_HYBRID };

/* RAM, a page of the peer, more of it of another size, and RAM. */
#define REGISTERS UINT64_C(0xfee00000)

/* Memory, a peer's twice, registers of nobody's, and memory. */
static void add_mixed(struct work *work, struct client *client)
{
	start(work, client->device, DMACORE_BIDIRECTIONAL);
	add(work, LOW_BASE + 5, 3 * PAGE);
	add(work, BAR_PHYS + PAGE, PAGE);
	add(work, BAR_PHYS + 2 * PAGE, 3 * PAGE);
	add(work, REGISTERS, PAGE);
	add(work, HIGH_BASE, 100);
	mark_end(work);
	work->list[3].flags |= DMACORE_SG_MMIO;
}

static void assert_reaches(struct board *board, struct client *client,
			   const struct dmacore_sg *list, size_t segment, const uint8_t *bytes)
{
	uint8_t seen[16];

	(void)board;
	assert_ok(dmacore_view_read(client->view, list[segment].dma, seen, 16));
	assert_memory_equal(seen, bytes, 16);
}

static void assert_is_registers(struct client *client, const struct dmacore_sg *segment,
				uint32_t type)
{
	const bool is_translated = type != 0 && type != DMACORE_DOMAIN_IDENTITY;
	struct dmacore_translation found;

	assert_int_equal(segment->path, is_translated ? DMACORE_PATH_IOMMU : DMACORE_PATH_DIRECT);
	assert_true(segment->dma_flags & DMACORE_SG_MMIO);
	assert_ok(dmacore_view_translate(client->view, segment->dma, DMACORE_ACCESS_READ, &found));
	assert_int_equal(found.target + (segment->dma - found.first), REGISTERS);
}

static void map_list__gives_peers_their_bus_addresses_and_sizes(void **state)
{
	struct board *board = *state;

	fill_memory(&board->machine);
	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->hub, 0, types[i]);
		struct dmacore_peer *peer =
			add_peer(types[i] ? add_behind_iommu(board, board->hub, 0) :
					    add_device(board, board->hub, 0),
				 BAR_BUS);
		struct work work;

		add_mixed(&work, &client);
		assert_ok(map(&work));
		assert_count(&work, 5);
		assert_segment(&work, 1, BAR_BUS + PAGE, PAGE);
		assert_segment(&work, 2, BAR_BUS + 2 * PAGE, 3 * PAGE);
		assert_int_equal(work.list[0].dma_size, 3 * PAGE);
		assert_int_equal(work.list[3].dma_size, PAGE);
		assert_int_equal(work.list[4].dma_size, 100);
		assert_int_equal(work.list[1].path, DMACORE_PATH_BUS_ADDRESS);
		assert_int_equal(work.list[2].path, DMACORE_PATH_BUS_ADDRESS);
		assert_int_not_equal(work.list[0].path, DMACORE_PATH_BUS_ADDRESS);
		assert_reaches(board, &client, work.list, 0, board->machine.low + 5);
		assert_reaches(board, &client, work.list, 1, board->bar + PAGE);
		assert_reaches(board, &client, work.list, 2, board->bar + 2 * PAGE);
		assert_is_registers(&client, &work.list[3], types[i]);
		assert_reaches(board, &client, work.list, 4, board->machine.high);
		assert_ok(dmacore_sync_list_for_cpu(work.device, work.list, 5, 0, 0, 0));
		/* The peer goes, and the list is unmapped all the same. */
		dmacore_peer_destroy(peer);
		assert_ok(unmap(&work));
		end_client(&client);
		assert_no_reports(&board->machine.reports);
		remove_devices(board);
	}
}

/* A list of nothing else takes no address of the domain's. */
static void map_list__of_bus_addresses_alone_takes_no_iova(void **state)
{
	struct board *board = *state;
	struct client client = make_client(board, board->hub, 0, DMACORE_DOMAIN_DMA);
	struct dmacore_peer *peer = add_peer(add_behind_iommu(board, board->hub, 0), BAR_BUS);
	struct work work;

	start(&work, client.device, DMACORE_TO_DEVICE);
	add(&work, BAR_PHYS, PAGE);
	add(&work, BAR_PHYS + PAGE, PAGE);
	assert_ok(map(&work));
	assert_count(&work, 2);
	assert_segment(&work, 0, BAR_BUS, PAGE);
	assert_segment(&work, 1, BAR_BUS + PAGE, PAGE);
	assert_int_equal(domain_statistics(client.domain).mapping_count, 0);
	assert_int_equal(domain_statistics(client.domain).iova_bytes, 0);
	assert_ok(unmap(&work));
	dmacore_peer_destroy(peer);
	end_client(&client);
}

/* Through the host bridge it has an address like other memory, on the direct path too. */
static void map_list__maps_peers_through_the_host_bridge(void **state)
{
	struct board *board = *state;

	fill_memory(&board->machine);
	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->top, 0, types[i]);
		struct dmacore_peer *peer = add_peer(add_device(board, board->across, 0), BAR_BUS);
		struct work work;

		add_mixed(&work, &client);
		assert_ok(map(&work));
		assert_count(&work, 5);
		for (unsigned n = 0; n < 5; n++) {
			assert_int_equal(work.list[n].dma_size, work.list[n].size);
			if (types[i] == 0 || types[i] == DMACORE_DOMAIN_IDENTITY)
				assert_int_equal(work.list[n].dma, work.list[n].phys);
		}
		assert_reaches(board, &client, work.list, 0, board->machine.low + 5);
		assert_reaches(board, &client, work.list, 1, board->bar + PAGE);
		assert_reaches(board, &client, work.list, 2, board->bar + 2 * PAGE);
		assert_is_registers(&client, &work.list[3], types[i]);
		assert_reaches(board, &client, work.list, 4, board->machine.high);
		assert_ok(unmap(&work));
		dmacore_peer_destroy(peer);
		end_client(&client);
		remove_devices(board);
	}
}

static void map_list__refuses_peers_that_are_not_reachable(void **state)
{
	struct board *board = *state;

	for (unsigned i = 0; i < 5; i++) {
		struct client client = make_client(board, board->plain, 0, types[i]);
		struct dmacore_peer *peer = add_peer(add_device(board, board->across, 0), BAR_BUS);
		struct dmacore_sg before[ENTRIES];
		struct work work;

		add_mixed(&work, &client);
		memcpy(before, work.list, sizeof(before));
		assert_fails_untouched(
			dmacore_map_list(client.device, work.list, 5, 0, 0, 0, &work.count),
			EREMOTEIO, work.count);
		assert_memory_equal(before, work.list, sizeof(before));
		/* A part of it, in memory that goes on behind. */
		start(&work, client.device, DMACORE_TO_DEVICE);
		add(&work, BAR_PHYS - PAGE, PAGE);
		add(&work, BAR_PHYS, PAGE);
		mark_end(&work);
		assert_fails(map(&work), EREMOTEIO);
		dmacore_peer_destroy(peer);
		end_client(&client);
		remove_devices(board);
	}
}

/* Of a device that is not trusted memory is bounced, and peers are not forgotten beside. */
static void map_list__maps_or_refuses_peers_of_untrusted_devices(void **state)
{
	struct board *board = *state;
	struct dmacore_bounce_pool_options pool_options = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_bounce_pool *pool;
	struct client client;
	struct dmacore_peer *peer;
	struct work work;

	fill_memory(&board->machine);
	pool_options.size = pool_options.size_max = 8 * PAGE;
	assert_ok(dmacore_bounce_pool_create(board->machine.system, &pool_options, &pool));
	assert_ok(dmacore_system_set_bounce_pool(board->machine.system, pool));
	client = make_client(board, board->top, DMACORE_DEVICE_UNTRUSTED, DMACORE_DOMAIN_DMA);
	peer = add_peer(add_device(board, board->across, 0), BAR_BUS);
	add_mixed(&work, &client);
	assert_ok(map(&work));
	assert_count(&work, 5);
	assert_int_equal(work.list[0].path, DMACORE_PATH_IOMMU_BOUNCED);
	assert_int_equal(work.list[1].path, DMACORE_PATH_IOMMU);
	assert_int_equal(work.list[2].path, DMACORE_PATH_IOMMU);
	assert_reaches(board, &client, work.list, 0, board->machine.low + 5);
	assert_reaches(board, &client, work.list, 1, board->bar + PAGE);
	assert_reaches(board, &client, work.list, 2, board->bar + 2 * PAGE);
	assert_is_registers(&client, &work.list[3], DMACORE_DOMAIN_DMA);
	assert_int_equal(work.list[4].path, DMACORE_PATH_IOMMU_BOUNCED);
	assert_reaches(board, &client, work.list, 4, board->machine.high);
	assert_ok(unmap(&work));
	/* A part of a page would let it reach the rest of the peer's. */
	work.list[1].size = 100;
	assert_fails(map(&work), EREMOTEIO);
	assert_int_equal(used_slots(pool), 0);
	dmacore_peer_destroy(peer);
	end_client(&client);
	client = make_client(board, board->plain, DMACORE_DEVICE_UNTRUSTED, DMACORE_DOMAIN_DMA);
	peer = add_peer(add_device(board, board->across, 0), BAR_BUS);
	add_mixed(&work, &client);
	assert_fails(map(&work), EREMOTEIO);
	assert_int_equal(used_slots(pool), 0);
	dmacore_peer_destroy(peer);
	end_client(&client);
	assert_ok(dmacore_system_set_bounce_pool(board->machine.system, NULL));
	dmacore_bounce_pool_destroy(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, map_list__bounces_what_is_out_of_reach),
		test_on(IDENTITY, map_list__bounces_what_is_out_of_reach),
		test_on(DIRECT, map_list__bounces_in_several_segments),
		test_on(DIRECT, map_list__bounces_slot_by_slot),
		test_on(DIRECT, map_list__bounces_no_registers),
		test_on_translated(map_list__bounces_pages_that_it_does_not_fill),
		test_on_translated(map_list__goes_by_each_entry_in_a_hybrid_domain),
		test_on_translated(map_list__counts_an_offset_once),
		test_on(DIRECT, map_list__goes_by_the_buss_addresses),
		test_on(TRACKED, map_list__goes_by_the_buss_addresses),
		cmocka_unit_test(list_calls__maintain_caches_of_the_entries),
		test_on(DIRECT, map_list__leaves_registers_segments_of_their_own),
		test_on(TRACKED, map_list__leaves_registers_segments_of_their_own),
		test_on_translated(map_list__leaves_registers_segments_of_their_own),
		board_test(map_list__gives_peers_their_bus_addresses_and_sizes),
		board_test(map_list__of_bus_addresses_alone_takes_no_iova),
		board_test(map_list__maps_peers_through_the_host_bridge),
		board_test(map_list__refuses_peers_that_are_not_reachable),
		board_test(map_list__maps_or_refuses_peers_of_untrusted_devices),
	};

	return run_group("lists over paths", tests);
}
