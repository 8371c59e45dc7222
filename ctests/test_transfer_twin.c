/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A transfer beside single mappings of its ranges, on two machines that are alike: whatever the device and the
 * CPU do, they find the same bytes, and in the end the two memories are the same.
 */

#include "support/pools.h"
#include "support/transfers.h"

#define LOW_MASK DMACORE_BIT_MASK(32)
#define PAGES (3 * RAM_SIZE / PAGE)
#define ROUNDS 150
#define STEPS 40

/* Which device the two machines have. */
struct kind {
	enum path path;
	uint32_t flags;
	uint64_t mask;
	uint64_t pool_size;
	/* Of the domain, if there is one; 0: as the machine makes it. */
	uint32_t type;
};

static const struct kind kinds[] = {
	{ DIRECT, 0, UINT64_MAX, 0, 0 },
	{ TRACKED, 0, UINT64_MAX, 0, 0 },
	{ IDENTITY, 0, LOW_MASK, 40 * PAGE, 0 },
	{ DIRECT, DMACORE_DEVICE_FORCE_BOUNCE, UINT64_MAX, 40 * PAGE, 0 },
	{ TRANSLATED, 0, UINT64_MAX, 0, 0 },
	{ TRANSLATED | HEAP_TABLES, 0, LOW_MASK, 0, 0 },
	{ TRANSLATED | HEAP_TABLES, 0, UINT64_MAX, 0, DMACORE_DOMAIN_DMA_LAZY },
	{ TRANSLATED, 0, LOW_MASK, 0, DMACORE_DOMAIN_HYBRID },
	{ TRANSLATED, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 40 * PAGE, 0 },
	{ TRANSLATED | HEAP_TABLES, DMACORE_DEVICE_UNTRUSTED, UINT64_MAX, 40 * PAGE, 0 },
};

struct twins {
	struct machine one;
	struct machine other;
	struct dmacore_bounce_pool *pools[2];
	/* Of the one, and the addresses of the other's mappings. */
	struct job job;
	dmacore_dma_t dma[RANGES_MAX];
	uint64_t random;
};

static uint64_t below(struct twins *twins, uint64_t limit)
{
	return random_next(&twins->random) % limit;
}

static dmacore_phys_t page_at(uint64_t index)
{
	const uint64_t each = RAM_SIZE / PAGE;

	return (index >= 2 * each ? HIGH_BASE - 2 * RAM_SIZE : LOW_BASE) + index * PAGE;
}

/* Ranges on pages of which no two have the same: any, or such as meet at pages. */
static void choose(struct twins *twins)
{
	const bool meets = below(twins, 2);
	const uint64_t wanted = 1 + below(twins, 8);
	bool used[PAGES] = { false };

	job_start(&twins->job, twins->one.device, below(twins, 3));
	twins->job.request.flags = meets && below(twins, 3) == 0 ? DMACORE_TRANSFER_REPLACEABLE : 0;
	for (uint64_t i = 0; i < wanted; i++) {
		uint64_t page = below(twins, PAGES), count = 1 + below(twins, 3);
		uint64_t start = 0, end;

		/* The regions do not adjoin all, so none reaches over the end of one. */
		for (uint64_t j = 0; j < count; j++) {
			if (page + j >= PAGES || used[page + j] ||
			    page_at(page + j) != page_at(page) + j * PAGE)
				count = j;
		}
		if (count == 0)
			continue;
		memset(used + page, true, count);
		end = count * PAGE;
		if (!meets || twins->job.request.count == 0)
			start = below(twins, PAGE);
		if (!meets || i + 1 == wanted)
			end -= below(twins, PAGE);
		if (end <= start)
			end = start + 1;
		job_add(&twins->job, page_at(page) + start, end - start);
	}
	if (twins->job.request.count == 0)
		job_add(&twins->job, LOW_BASE, PAGE);
}

/* Some bytes of the transfer: an offset into it, and where that is in the ranges. */
struct part {
	uint64_t offset;
	size_t range;
	uint64_t in_range;
	uint64_t size;
};

static struct part some_part(struct twins *twins)
{
	struct part part = { 0 };

	part.range = below(twins, twins->job.request.count);
	for (size_t i = 0; i < part.range; i++)
		part.offset += twins->job.ranges[i].size;
	part.in_range = below(twins, twins->job.ranges[part.range].size);
	part.offset += part.in_range;
	part.size = 1 + below(twins, twins->job.ranges[part.range].size - part.in_range);
	return part;
}

/* The device moves bytes of the transfer, through as many segments as they lie in. */
static void move_by_transfer(struct twins *twins, const struct part *part, uint8_t *bytes,
			     bool is_write)
{
	struct dmacore_transfer_iterator iterator;
	struct dmacore_segment segment;
	uint64_t done = 0;
	size_t count;

	assert_ok(dmacore_transfer_begin(twins->one.device, &twins->job.request,
					 &twins->job.transfer, part->offset, &iterator));
	while (done < part->size) {
		uint64_t size;

		assert_ok(dmacore_transfer_next(&iterator, &segment, 1, &count));
		assert_int_equal(count, 1);
		size = segment.size < part->size - done ? segment.size : part->size - done;
		assert_ok(is_write ? dmacore_view_write(twins->one.view, segment.dma, bytes + done,
							size) :
				     dmacore_view_read(twins->one.view, segment.dma, bytes + done,
						       size));
		done += size;
	}
}

static void step(struct twins *twins)
{
	static uint8_t bytes[4 * PAGE], others[4 * PAGE];
	const struct part part = some_part(twins);
	const dmacore_dma_t dma = twins->dma[part.range] + part.in_range;
	const dmacore_phys_t phys = twins->job.ranges[part.range].phys + part.in_range;
	const uint32_t direction = twins->job.request.direction;

	switch (below(twins, 3)) {
	case 0:
		if (direction == DMACORE_FROM_DEVICE)
			break;
		move_by_transfer(twins, &part, bytes, false);
		assert_ok(dmacore_view_read(twins->other.view, dma, others, part.size));
		assert_memory_equal(bytes, others, part.size);
		break;
	case 1:
		if (direction == DMACORE_TO_DEVICE)
			break;
		fill(bytes, part.size, below(twins, UINT32_MAX));
		move_by_transfer(twins, &part, bytes, true);
		assert_ok(dmacore_view_write(twins->other.view, dma, bytes, part.size));
		break;
	default:
		/* The CPU gets a part, sees the same there, writes, and gives it back. */
		assert_ok(dmacore_transfer_sync_for_cpu(twins->one.device, &twins->job.transfer,
							part.offset, part.size));
		assert_ok(dmacore_sync_for_cpu(twins->other.device, dma, part.size, direction));
		for (uint64_t i = 0; i < part.size; i++)
			assert_int_equal(*memory_at(&twins->one, phys + i),
					 *memory_at(&twins->other, phys + i));
		fill(bytes, part.size, below(twins, UINT32_MAX));
		for (uint64_t i = 0; i < part.size; i++)
			*memory_at(&twins->one, phys + i) = *memory_at(&twins->other, phys + i) =
				bytes[i];
		assert_ok(dmacore_transfer_sync_for_device(twins->one.device, &twins->job.transfer,
							   part.offset, part.size));
		assert_ok(dmacore_sync_for_device(twins->other.device, dma, part.size, direction));
	}
}

static void start_twin(struct machine *machine, const struct kind *kind,
		       struct dmacore_bounce_pool **out_pool)
{
	machine_start(machine, kind->path);
	fill_memory(machine);
	if (kind->type)
		machine_use(machine, kind->type);
	use_device(machine, kind->flags, kind->mask, kind->pool_size, out_pool);
}

static void transfer__does_what_single_mappings_do(void **state)
{
	static struct twins twins;
	unsigned refusals = 0;

	(void)state;
	twins.random = 11;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		start_twin(&twins.one, &kinds[k], &twins.pools[0]);
		start_twin(&twins.other, &kinds[k], &twins.pools[1]);
		for (unsigned round = 0; round < ROUNDS; round++) {
			const struct dmacore_transfer_request *request = &twins.job.request;
			int error;

			choose(&twins);
			error = job_map(&twins.job);
			if (error) {
				/* Where one in the middle was cut, it is no registration. */
				assert_int_equal(error, -EINVAL);
				assert_true(request->flags);
				refusals++;
				continue;
			}
			for (size_t i = 0; i < request->count; i++)
				assert_ok(dmacore_map_phys(twins.other.device,
							   twins.job.ranges[i].phys,
							   twins.job.ranges[i].size,
							   request->direction, 0, &twins.dma[i]));
			for (unsigned i = 0; i < STEPS; i++)
				step(&twins);
			assert_ok(job_unmap(&twins.job));
			for (size_t i = 0; i < request->count; i++)
				assert_ok(dmacore_unmap(twins.other.device, twins.dma[i],
							twins.job.ranges[i].size,
							request->direction, 0));
			assert_memory_equal(twins.one.low, twins.other.low, RAM_SIZE);
			assert_memory_equal(twins.one.next, twins.other.next, RAM_SIZE);
			assert_memory_equal(twins.one.high, twins.other.high, RAM_SIZE);
			assert_int_equal(device_statistics(twins.one.device).mapping_count, 0);
		}
		if (twins.pools[0]) {
			end_pool(&twins.one, twins.pools[0]);
			end_pool(&twins.other, twins.pools[1]);
		}
		machine_stop(&twins.one);
		machine_stop(&twins.other);
	}
	/* Most were mapped. */
	assert_true(refusals < ROUNDS);
}

#define LARGE_BASE UINT64_C(0x400000000)
#define LARGE_SIZE (UINT64_C(48) << 20)

/* Sizes from one byte to many MiB; the device finds just the memory, wherever it looks. */
static void transfer__of_any_size_leads_to_its_memory(void **state)
{
	struct machine *machine = *state;
	uint8_t *large = aligned_alloc(PAGE, LARGE_SIZE);
	uint64_t random = 5;
	struct job job;

	assert_non_null(large);
	fill(large, LARGE_SIZE, 3);
	add_host_region(machine->system, LARGE_BASE, LARGE_SIZE, large, 0);
	for (unsigned round = 0; round < 60; round++) {
		const bool meets = random_next(&random) % 2;
		const uint64_t wanted = 1 + random_next(&random) % 6;
		const uint64_t mask = meets ? PAGE - 1 : 0;
		uint64_t first = 0;

		job_start(&job, machine->device, DMACORE_BIDIRECTIONAL);
		job.request.flags = meets && round % 3 == 0 ? DMACORE_TRANSFER_REPLACEABLE : 0;
		job.request.max_segment_size = UINT64_C(1) << random_next(&random) % 30;
		for (uint64_t i = 0; i < wanted; i++) {
			/* As many of each order of size. */
			uint64_t size = (UINT64_C(1) << random_next(&random) % 23) +
					(random_next(&random) % PAGE);
			uint64_t at = random_next(&random) % (LARGE_SIZE - (UINT64_C(9) << 20));

			job_add(&job, LARGE_BASE + (at & ~mask), (size | mask) + (mask ? 1 : 0));
		}
		assert_ok(job_map(&job));
		for (size_t i = 0; i < job.request.count; first += job.ranges[i++].size) {
			for (unsigned look = 0; look < 8; look++) {
				uint64_t offset = random_next(&random) % job.ranges[i].size;
				uint8_t *memory =
					large + (job.ranges[i].phys - LARGE_BASE) + offset;
				struct dmacore_transfer_iterator iterator;
				struct dmacore_segment segment;
				uint8_t bytes[64];
				size_t count;
				uint64_t size = job.ranges[i].size - offset;

				assert_ok(dmacore_transfer_begin(machine->device, &job.request,
								 &job.transfer, first + offset,
								 &iterator));
				assert_ok(dmacore_transfer_next(&iterator, &segment, 1, &count));
				assert_int_equal(count, 1);
				size = size < segment.size ? size : segment.size;
				size = size < sizeof(bytes) ? size : sizeof(bytes);
				assert_ok(
					dmacore_view_read(machine->view, segment.dma, bytes, size));
				assert_memory_equal(bytes, memory, size);
				fill(bytes, size, random);
				assert_ok(dmacore_view_write(machine->view, segment.dma, bytes,
							     size));
				assert_ok(dmacore_transfer_sync_for_cpu(
					machine->device, &job.transfer, first + offset, size));
				assert_memory_equal(bytes, memory, size);
			}
		}
		assert_int_equal(dmacore_transfer_size(&job.transfer), first);
		assert_ok(job_unmap(&job));
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	}
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	machine->view = NULL;
	machine->device = NULL;
	assert_ok(dmacore_memory_remove(machine->system, LARGE_BASE, LARGE_SIZE));
	free(large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfer__does_what_single_mappings_do),
		test_on(DIRECT, transfer__of_any_size_leads_to_its_memory),
		test_on(TRACKED, transfer__of_any_size_leads_to_its_memory),
		test_on_translated(transfer__of_any_size_leads_to_its_memory),
	};

	return run_group("transfers beside single mappings", tests);
}
