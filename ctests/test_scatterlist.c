/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/lists.h"

static void map_list__merges_what_is_contiguous_in_memory(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 100, 50);
	add(&work, LOW_BASE + 150, PAGE);
	add(&work, LOW_BASE + 150 + PAGE, 3);
	add(&work, LOW_BASE + 8 * PAGE + 1, 7);
	add(&work, HIGH_BASE + 5, 2 * PAGE);
	assert_ok(map(&work));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_size, PAGE + 53);
	assert_int_equal(work.list[1].dma_size, 7);
	assert_int_equal(work.list[2].dma_size, 2 * PAGE);
	if (!(machine->path & TRANSLATED)) {
		assert_segment(&work, 0, LOW_BASE + 100, PAGE + 53);
		assert_segment(&work, 1, LOW_BASE + 8 * PAGE + 1, 7);
		assert_segment(&work, 2, HIGH_BASE + 5, 2 * PAGE);
		assert_int_equal(work.list[0].path, DMACORE_PATH_DIRECT);
	} else {
		assert_int_equal(work.list[0].path, DMACORE_PATH_IOMMU);
		assert_int_equal(work.list[0].dma % PAGE, 100);
		assert_int_equal(device_statistics(machine->device).mapping_count, 1);
		assert_int_equal(domain_statistics(machine->domain).mapping_count, 1);
	}
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	if (machine->path & TRANSLATED)
		assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

static void map_list__merges_pages_through_an_iommu(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	/* Ends with a page, a page, starts with one; and then what does not. */
	add(&work, LOW_BASE + 5 * PAGE + 17, PAGE - 17);
	add(&work, HIGH_BASE + 3 * PAGE, PAGE);
	add(&work, LOW_BASE, 2 * PAGE + 5);
	add(&work, LOW_BASE + 9 * PAGE + 1, PAGE);
	add(&work, LOW_BASE + 11 * PAGE, 10);
	assert_ok(map(&work));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_size, 4 * PAGE - 17 + 5);
	assert_int_equal(work.list[0].dma % PAGE, 17);
	assert_int_equal(work.list[1].dma_size, PAGE);
	assert_int_equal(work.list[1].dma, work.list[0].dma - 17 + 5 * PAGE + 1);
	assert_int_equal(work.list[2].dma_size, 10);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
}

/* Limits. */

/* Again and again, so that addresses are at hand. */
static void map_list__maps_whole_pages_wherever_they_lie(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	for (unsigned turn = 0; turn < 4; turn++) {
		start(&work, machine->device, DMACORE_TO_DEVICE);
		add(&work, LOW_BASE + 5 * PAGE, PAGE);
		add(&work, LOW_BASE + 6 * PAGE, 2 * PAGE);
		add(&work, LOW_BASE + 7 * PAGE, PAGE);
		add(&work, LOW_BASE + 7 * PAGE, PAGE);
		add(&work, HIGH_BASE + 3 * PAGE, 2 * PAGE);
		add(&work, LOW_BASE, PAGE);
		assert_ok(map(&work));
		assert_count(&work, 1);
		assert_int_equal(work.list[0].dma_size, 8 * PAGE);
		check_transfer(machine, &work, machine->view);
		assert_ok(unmap(&work));
		/* Nor is it too much for one segment by a page. */
		limit(machine->device, 8 * PAGE - 1, UINT64_MAX, 0);
		assert_ok(map(&work));
		assert_count(&work, 2);
		check_transfer(machine, &work, machine->view);
		assert_ok(unmap(&work));
		limit(machine->device, 0, 0, 0);
		/* The second ends in a page. */
		work.list[1].size--;
		assert_ok(map(&work));
		assert_count(&work, 2);
		check_transfer(machine, &work, machine->view);
		assert_ok(unmap(&work));
		/* Further than the page table leads. */
		work.list[1].size++;
		work.list[3].phys = UINT64_C(1) << 62;
		assert_refused(machine, &work, ERANGE);
	}
}

static void map_list__makes_no_segment_that_is_too_long(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	limit(machine->device, 3 * PAGE, 0, 0);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	/* Entries stay whole: a third one has no room in the first segment. */
	add(&work, LOW_BASE, PAGE);
	add(&work, LOW_BASE + PAGE, PAGE + 100);
	add(&work, LOW_BASE + 2 * PAGE + 100, PAGE - 99);
	add(&work, LOW_BASE + 3 * PAGE + 1, 3 * PAGE - (PAGE - 99));
	assert_ok(map(&work));
	assert_count(&work, 2);
	assert_int_equal(work.list[0].dma_size, 2 * PAGE + 100);
	assert_int_equal(work.list[1].dma_size, 3 * PAGE);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* One that is too long is cut at a page, and needs room. */
	limit(machine->device, 3 * PAGE - 1, 0, 0);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 7, 5 * PAGE);
	mark_end(&work);
	assert_refused(machine, &work, E2BIG);
	assert_ok(map_at(&work, 4));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_size, 2 * PAGE);
	assert_int_equal(work.list[1].dma, work.list[0].dma + 2 * PAGE);
	assert_int_equal(work.list[1].dma_size, 2 * PAGE);
	assert_int_equal(work.list[2].dma_size, PAGE);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* Below a page, at a power of two. */
	limit(machine->device, 700, 0, 0);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 7, 1400);
	assert_ok(map_at(&work, 3));
	assert_count(&work, 3);
	assert_int_equal(work.list[0].dma_size, 512);
	assert_int_equal(work.list[1].dma_size, 512);
	assert_int_equal(work.list[2].dma_size, 376);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* What fits is not cut. */
	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE + 7, 700);
	add(&work, LOW_BASE + 707, 700);
	assert_ok(map(&work));
	assert_count(&work, 2);
	assert_ok(unmap(&work));
}

static void map_list__makes_no_segment_across_a_boundary(void **state)
{
	struct machine *machine = *state;
	const uint64_t masks[] = { 2 * PAGE - 1, 4 * PAGE - 1, 8 * PAGE - 1 };
	struct work work;

	fill_memory(machine);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t mask = masks[i], size = 0;

		limit(machine->device, UINT64_MAX, mask, 0);
		start(&work, machine->device, DMACORE_BIDIRECTIONAL);
		for (unsigned n = 0; n < 7; n++)
			add(&work, LOW_BASE + n * PAGE + PAGE, PAGE);
		add(&work, HIGH_BASE + PAGE + 9, PAGE);
		add(&work, HIGH_BASE + 7 * PAGE + 9, PAGE + 1);
		/* No block of two pages has room for this one. */
		add(&work, LOW_BASE + 9 * PAGE + 9, 2 * PAGE);
		assert_ok(map_at(&work, 14));
		for (size_t n = 0; n < work.count; n++) {
			dmacore_dma_t first = work.list[n].dma;
			dmacore_dma_t last = first + work.list[n].dma_size - 1;

			assert_int_equal(first & ~mask, last & ~mask);
			size += work.list[n].dma_size;
		}
		assert_int_equal(size, 11 * PAGE + 1);
		/* As few as there can be. */
		assert_true(work.count <= 7 * PAGE / (mask + 1) + 1 + 6);
		check_transfer(machine, &work, machine->view);
		assert_ok(unmap(&work));
	}
	/* What is not longer than a block is moved out of the way, not cut, where there are addresses. */
	if (!(machine->path & TRANSLATED))
		return;
	limit(machine->device, UINT64_MAX, 4 * PAGE - 1, 0);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	for (unsigned n = 0; n < 4; n++)
		add(&work, LOW_BASE + 4 * n * PAGE, 3 * PAGE);
	assert_ok(map(&work));
	assert_count(&work, 4);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(work.list[n].dma_size, 3 * PAGE);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* In a block there is no gap. */
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE, 2 * PAGE);
	add(&work, HIGH_BASE, 2 * PAGE);
	for (unsigned n = 0; n < 8; n++) {
		assert_ok(map(&work));
		assert_count(&work, 1);
		assert_int_equal(work.list[0].dma & (4 * PAGE - 1), 0);
		if (n < 7)
			assert_ok(unmap(&work));
	}
	assert_ok(unmap(&work));
}

/* The second time, when addresses come from caches, as the first. */
static void map_list__obeys_limits_at_addresses_that_were_used_before(void **state)
{
	struct machine *machine = *state;

	for (unsigned round = 0; round < 3; round++) {
		struct work work;

		/* Within a page, the bytes around a multiple of 256. */
		limit(machine->device, 0, 255, 0);
		start(&work, machine->device, DMACORE_BIDIRECTIONAL);
		add(&work, LOW_BASE + 200, 100);
		assert_ok(map_at(&work, 2));
		assert_count(&work, 2);
		assert_int_equal(work.list[0].dma_size, 56);
		assert_ok(unmap(&work));
		/* Pages that fit a segment, and then do not. */
		for (uint64_t pages = 2; pages <= 4; pages += 2) {
			limit(machine->device, 2 * PAGE, UINT64_MAX, 0);
			start(&work, machine->device, DMACORE_BIDIRECTIONAL);
			for (uint64_t i = 0; i < pages; i++)
				add(&work, LOW_BASE + 3 * i * PAGE, PAGE);
			assert_ok(map(&work));
			assert_count(&work, pages / 2);
			assert_int_equal(work.list[0].dma_size, 2 * PAGE);
			assert_ok(unmap(&work));
			limit(machine->device, 0, 2 * PAGE - 1, 0);
			assert_ok(map(&work));
			assert_count(&work, pages / 2);
			assert_int_equal(work.list[0].dma % (2 * PAGE), 0);
			assert_ok(unmap(&work));
		}
	}
}

static void map_list__cuts_at_a_boundary_on_the_direct_path(void **state)
{
	struct machine *machine = *state;
	struct work work;

	limit(machine->device, UINT64_MAX, 2 * PAGE - 1, 0);
	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE + PAGE, PAGE - 10);
	add(&work, LOW_BASE + 2 * PAGE - 10, 30);
	add(&work, LOW_BASE + 2 * PAGE + 20, 2 * PAGE);
	assert_ok(map(&work));
	assert_count(&work, 3);
	assert_segment(&work, 0, LOW_BASE + PAGE, PAGE);
	assert_segment(&work, 1, LOW_BASE + 2 * PAGE, 2 * PAGE);
	assert_segment(&work, 2, LOW_BASE + 4 * PAGE, 20);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
	/* An entry alone that crosses one needs room. */
	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE + 2 * PAGE - 10, 30);
	mark_end(&work);
	assert_refused(machine, &work, E2BIG);
	assert_ok(map_at(&work, 2));
	assert_count(&work, 2);
	assert_ok(unmap(&work));
}

/* Inside of pages the device's addresses are those of memory, registers too. */
static void map_list__cuts_no_more_than_a_boundary_inside_of_pages_does(void **state)
{
	struct machine *machine = *state;
	struct work work;

	limit(machine->device, 5000, 511, 0);
	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE + PAGE, 1268);
	add(&work, LOW_BASE + 4 * PAGE + 2473, 2000);
	work.list[1].flags = DMACORE_SG_MMIO;
	assert_ok(map_at(&work, 10));
	assert_count(&work, 8);
	for (size_t i = 0; i < 8; i++)
		assert_true(work.list[i].dma % 512 + work.list[i].dma_size <= 512);
	assert_int_equal(work.list[3].dma_size, 87);
	assert_ok(unmap(&work));
}

static void map_list__keeps_the_low_bits_that_a_device_asks_for(void **state)
{
	struct machine *machine = *state;
	struct work work;

	fill_memory(machine);
	limit(machine->device, 0, 0, 4 * PAGE - 1);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 3 * PAGE + 5, PAGE);
	add(&work, LOW_BASE + 2 * PAGE + 7, 3);
	add(&work, HIGH_BASE + PAGE, PAGE);
	assert_ok(map(&work));
	assert_count(&work, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal((work.list[i].dma ^ work.list[i].phys) & (4 * PAGE - 1), 0);
	check_transfer(machine, &work, machine->view);
	assert_ok(unmap(&work));
}

static void map_list__gives_no_more_segments_than_asked_for(void **state)
{
	struct machine *machine = *state;
	struct work work;
	size_t count = 7;

	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE + 1, 3);
	add(&work, LOW_BASE + 5 * PAGE + 1, 3);
	add(&work, HIGH_BASE + 1, 3);
	mark_end(&work);
	assert_fails(dmacore_map_list(work.device, work.list, 3, 1, 0, 2, &count), E2BIG);
	assert_int_equal(count, 7);
	assert_int_equal(work.list[0].dma_size, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	assert_ok(dmacore_map_list(work.device, work.list, 3, 1, 0, 3, &work.count));
	assert_int_equal(work.count, 3);
	assert_ok(unmap(&work));
	assert_ok(dmacore_map_list(work.device, work.list, 3, 1, 0, SIZE_MAX, &work.count));
	assert_ok(unmap(&work));
}

/* More parts than there is room for at once in the call. */
static void map_list__takes_many_entries(void **state)
{
	enum { COUNT = 3000 };
	struct machine *machine = *state;
	struct dmacore_sg *list = calloc(COUNT, sizeof(*list)), *entry = list;
	size_t count;

	assert_non_null(list);
	fill_memory(machine);
	dmacore_sg_init(list, COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		dmacore_sg_set(&list[i], LOW_BASE + 17 * (i % 1000) + i % 3 * PAGE * 5, 13, 0);
	assert_ok(dmacore_map_list(machine->device, list, COUNT, DMACORE_TO_DEVICE, 0, 0, &count));
	assert_int_equal(count, COUNT);
	for (unsigned i = 0; i < COUNT; i++, entry = dmacore_sg_next(entry)) {
		uint8_t bytes[13];

		assert_ok(dmacore_view_read(machine->view, entry->dma, bytes, 13));
		assert_memory_equal(bytes, bytes_of(machine, entry->phys), 13);
	}
	assert_null(entry);
	assert_ok(dmacore_unmap_list(machine->device, list, COUNT, DMACORE_TO_DEVICE, 0));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	free(list);
}

/* Lists that are chained, and those that are none. */

static void map_list__follows_chains(void **state)
{
	struct machine *machine = *state;
	struct dmacore_sg a[3], b[2], c[2], *segment = a;
	size_t count, seen = 0;

	fill_memory(machine);
	dmacore_sg_init(a, 3);
	dmacore_sg_init(b, 2);
	dmacore_sg_init(c, 2);
	dmacore_sg_set(&a[0], LOW_BASE + 1, 10, 0);
	dmacore_sg_set(&a[1], LOW_BASE + 3 * PAGE, 20, 0);
	dmacore_sg_chain(&a[2], b);
	dmacore_sg_set(&b[0], LOW_BASE + 3 * PAGE + 20, 5, 0);
	dmacore_sg_chain(&b[1], c);
	dmacore_sg_set(&c[0], HIGH_BASE + 5, 6, 0);
	dmacore_sg_set(&c[1], LOW_BASE + 9 * PAGE + 3, 7, 0);
	assert_ok(dmacore_map_list(machine->device, a, 5, DMACORE_TO_DEVICE, 0, 0, &count));
	assert_int_equal(count, 4);
	assert_int_equal(a[0].dma_size, 10);
	assert_int_equal(a[1].dma_size, 25);
	assert_int_equal(b[0].dma_size, 6);
	assert_int_equal(c[0].dma_size, 7);
	assert_int_equal(c[1].dma_size, 0);
	/* A chain entry has no segment. */
	assert_int_equal(a[2].dma_size | b[1].dma_size, 0);
	for (; segment; segment = dmacore_sg_next(segment))
		seen++;
	assert_int_equal(seen, 5);
	assert_ok(dmacore_sync_list_for_cpu(machine->device, a, 5, 3, 40, DMACORE_TO_DEVICE));
	assert_ok(dmacore_sync_list_for_device(machine->device, a, 5, 3, 40, DMACORE_TO_DEVICE));
	assert_ok(dmacore_unmap_list(machine->device, a, 5, DMACORE_TO_DEVICE, 0));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

/* Nor behind an end that is none. */
static void map_list__looks_at_nothing_behind_a_chain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_sg *list = calloc(3, sizeof(*list)), other[2];
	size_t count;

	assert_non_null(list);
	dmacore_sg_init(list, 3);
	dmacore_sg_init(other, 2);
	for (unsigned i = 0; i < 3; i++)
		dmacore_sg_set(&list[i], LOW_BASE + 2 * i * PAGE, PAGE, 0);
	for (unsigned i = 0; i < 2; i++)
		dmacore_sg_set(&other[i], LOW_BASE + (5 + 2 * i) * PAGE, PAGE, 0);
	/* A chain that still has what was there before. */
	dmacore_sg_chain(&list[2], other);
	assert_ok(dmacore_map_list(machine->device, list, 4, DMACORE_TO_DEVICE, 0, 0, &count));
	assert_ok(dmacore_unmap_list(machine->device, list, 4, DMACORE_TO_DEVICE, 0));
	dmacore_sg_set(&list[2], LOW_BASE + 4 * PAGE, PAGE, 0);
	list[2].flags = DMACORE_SG_LAST;
	assert_fails(dmacore_map_list(machine->device, list, 40, DMACORE_TO_DEVICE, 0, 0, &count),
		     EINVAL);
	free(list);
}

static void map_list__refuses_what_is_no_list(void **state)
{
	struct machine *machine = *state;
	struct dmacore_sg loop[3], other[2];
	struct work work;
	size_t count = 7;

	/* Some bytes, and whole pages. */
	for (uint64_t length = 10; length <= PAGE; length += PAGE - 10) {
		start(&work, machine->device, DMACORE_TO_DEVICE);
		add(&work, LOW_BASE, length);
		add(&work, LOW_BASE + 2 * PAGE, length);
		for (unsigned turn = 0; turn < 3; turn++) {
			assert_ok(map(&work));
			assert_ok(unmap(&work));
		}
		/* The end is marked before, twice, or behind. */
		work.list[0].flags = DMACORE_SG_LAST;
		assert_refused(machine, &work, EINVAL);
		work.list[1].flags = 0;
		assert_refused(machine, &work, EINVAL);
		work.list[0].flags = 0;
		assert_refused(machine, &work, EINVAL);
		work.list[1].flags = DMACORE_SG_LAST | 8;
		assert_refused(machine, &work, EINVAL);
		work.list[1].flags = DMACORE_SG_LAST | 1U << 31;
		assert_refused(machine, &work, EINVAL);
	}
	work.list[0].size = work.list[1].size = 10;
	/* What wraps; the last byte is a byte. */
	work.list[1].flags = DMACORE_SG_LAST;
	work.list[1].phys = UINT64_MAX - 8;
	assert_refused(machine, &work, EINVAL);
	work.list[1].size = UINT64_MAX;
	assert_refused(machine, &work, EINVAL);
	/* Nothing at all. */
	work.list[0].size = work.list[1].size = 0;
	assert_refused(machine, &work, EINVAL);
	/* Chains that lead nowhere, to a chain, or are something else too. */
	dmacore_sg_set(&work.list[0], LOW_BASE, 10, 0);
	dmacore_sg_init(other, 2);
	dmacore_sg_set(&other[0], LOW_BASE + 2 * PAGE, 1, 0);
	dmacore_sg_chain(&work.list[1], NULL);
	assert_refused(machine, &work, EINVAL);
	dmacore_sg_chain(&work.list[1], &other[1]);
	dmacore_sg_chain(&other[1], &other[0]);
	assert_refused(machine, &work, EINVAL);
	work.list[1].next = &work.list[1];
	assert_refused(machine, &work, EINVAL);
	work.list[1].next = &other[0];
	work.list[1].flags = DMACORE_SG_CHAIN | DMACORE_SG_LAST;
	assert_refused(machine, &work, EINVAL);
	work.list[1].flags = DMACORE_SG_CHAIN | DMACORE_SG_MMIO;
	assert_refused(machine, &work, EINVAL);
	/* One that loops never ends, however long. */
	dmacore_sg_init(loop, 3);
	dmacore_sg_set(&loop[0], LOW_BASE, 5, 0);
	dmacore_sg_set(&loop[1], LOW_BASE + PAGE, 5, 0);
	dmacore_sg_chain(&loop[2], &loop[0]);
	for (size_t n = 1; n < 1000; n += 9)
		assert_fails(dmacore_map_list(machine->device, loop, n, 1, 0, 0, &count), EINVAL);
	loop[2].next = &loop[1];
	for (size_t n = 1; n < 1000; n += 9)
		assert_fails(dmacore_map_list(machine->device, loop, n, 1, 0, 0, &count), EINVAL);
	assert_int_equal(count, 7);
	assert_int_equal(loop[0].dma_size | loop[1].dma_size, 0);
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	if (machine->domain)
		assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
}

static void list_calls__refuse_bad_arguments(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	const uint32_t attributes[] = { 1, 1U << 31, UINT32_MAX };
	struct work work;
	size_t count;

	start(&work, device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE, 10);
	mark_end(&work);
#define refuse(...) assert_fails_untouched(dmacore_map_list(__VA_ARGS__), EINVAL, count)
	refuse(NULL, work.list, 1, 1, 0, 0, &count);
	refuse(device, NULL, 1, 1, 0, 0, &count);
	refuse(device, work.list, 0, 1, 0, 0, &count);
	refuse(device, work.list, SIZE_MAX, 1, 0, 0, &count);
	refuse(device, work.list, 1, 3, 0, 0, &count);
	for (unsigned i = 0; i < 3; i++)
		refuse(device, work.list, 1, 1, attributes[i], 0, &count);
	assert_fails(dmacore_map_list(device, work.list, 1, 1, 0, 0, NULL), EINVAL);
#undef refuse
	assert_ok(map(&work));
	assert_fails(dmacore_unmap_list(NULL, work.list, 1, 1, 0), EINVAL);
	assert_fails(dmacore_unmap_list(device, NULL, 1, 1, 0), EINVAL);
	assert_fails(dmacore_unmap_list(device, work.list, 0, 1, 0), EINVAL);
	assert_fails(dmacore_unmap_list(device, work.list, 1, 4, 0), EINVAL);
	assert_fails(dmacore_unmap_list(device, work.list, 1, 1, 1U << 31), EINVAL);
	for (unsigned i = 0; i < 2; i++) {
		int (*sync)(struct dmacore_device *, struct dmacore_sg *, size_t, uint64_t,
			    uint64_t, uint32_t) =
			i ? dmacore_sync_list_for_cpu : dmacore_sync_list_for_device;

		assert_fails(sync(NULL, work.list, 1, 0, 0, 1), EINVAL);
		assert_fails(sync(device, NULL, 1, 0, 0, 1), EINVAL);
		assert_fails(sync(device, work.list, 0, 0, 0, 1), EINVAL);
		assert_fails(sync(device, work.list, 1, 0, 0, 3), EINVAL);
		assert_ok(sync(device, work.list, 1, 9, 1, 1));
		assert_ok(sync(device, work.list, 1, 0, 10, 1));
	}
	assert_ok(unmap(&work));
}

/* What the device has no mask for, or no domain. */
static void map_list__refuses_what_a_single_mapping_is_refused(void **state)
{
	struct machine *machine = *state;
	struct work work;

	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE, 10);
	add(&work, LOW_BASE + 2 * PAGE, 10);
	add(&work, HIGH_BASE, 10);
	mark_end(&work);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0, NULL));
	assert_refused(machine, &work, ENXIO);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	if (machine->path & TRANSLATED) {
		assert_ok(map(&work));
		assert_ok(unmap(&work));
		machine_narrow(machine, PAGE, 3 * PAGE - 1);
		assert_refused(machine, &work, ERANGE);
		machine_narrow(machine, PAGE, 4 * PAGE - 1);
		assert_ok(map(&work));
		/* All addresses are taken. */
		assert_fails(dmacore_map_list(work.device, work.list + 2, 1, 1, 0, 0, &work.count),
			     ENOSPC);
		assert_ok(unmap(&work));
		machine_use(machine, DMACORE_DOMAIN_BLOCKED);
		assert_refused(machine, &work, EPERM);
	} else {
		/* The third entry, when the others are mapped. */
		assert_refused(machine, &work, ERANGE);
	}
}

/* Calls that do not fit a list. */

static void unmap_list__refuses_a_list_that_was_altered(void **state)
{
	struct machine *machine = *state;
	struct dmacore_sg good[ENTRIES];
	struct work work;
	unsigned refused = 0;

	fill_memory(machine);
	start(&work, machine->device, DMACORE_BIDIRECTIONAL);
	add(&work, LOW_BASE + 3, 10);
	add(&work, LOW_BASE + 2 * PAGE + 4, PAGE);
	add(&work, HIGH_BASE + 2 * PAGE + 4, PAGE);
	add(&work, HIGH_BASE + 5 * PAGE + 4, 2 * PAGE);
	assert_ok(map_at(&work, 5));
	assert_count(&work, 4);
	memcpy(good, work.list, sizeof(good));
	for (unsigned entry = 0; entry < 4; entry++)
		for (unsigned way = 0; way < 9; way++) {
			struct dmacore_sg *sg = &work.list[entry];

			memcpy(work.list, good, sizeof(good));
			switch (way) {
			case 0:
				sg->dma += PAGE;
				break;
			case 1:
				sg->dma--;
				break;
			case 2:
				sg->dma_size++;
				break;
			case 3:
				sg->dma_size = UINT64_MAX;
				break;
			case 4:
				sg->dma_size = 0;
				break;
			case 5:
				sg->path = sg->path == DMACORE_PATH_IOMMU ? DMACORE_PATH_DIRECT :
									    DMACORE_PATH_IOMMU;
				break;
			case 6:
				sg->dma_flags ^= DMACORE_SG_MMIO;
				break;
			case 7:
				sg->path = UINT16_MAX;
				break;
			default:
				work.list[entry + 1].dma = sg->dma;
				work.list[entry + 1].dma_size = sg->dma_size;
				break;
			}
			/* On the direct path each segment is one that was mapped, or none. */
			if (!(machine->path & TRANSLATED) && (way == 4 || way > 6))
				continue;
			reports_forget(&machine->reports);
			assert_fails(unmap(&work), EINVAL);
			assert_fails(dmacore_sync_list_for_cpu(work.device, work.list, work.entries,
							       0, 0, work.direction),
				     EINVAL);
			refused++;
		}
	assert_true(refused > 20);
	reports_forget(&machine->reports);
	memcpy(work.list, good, sizeof(good));
	/* All is there, whatever was tried. What is said of memory is nothing to anybody. */
	check_transfer(machine, &work, machine->view);
	for (unsigned i = 0; i < 5; i++) {
		work.list[i].phys = UINT64_MAX;
		work.list[i].size = UINT64_MAX - i;
	}
	assert_ok(unmap(&work));
	assert_int_equal(device_statistics(machine->device).mapping_count, 0);
}

static void unmap_list__refuses_what_was_mapped_otherwise(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct work work;
	dmacore_dma_t dma;

	start(&work, device, DMACORE_TO_DEVICE);
	work.attributes = DMACORE_ATTR_WEAK_ORDERING;
	add(&work, LOW_BASE, PAGE);
	add(&work, LOW_BASE + 3 * PAGE, PAGE);
	/* A list that was not mapped yet, or not any more. */
	assert_fails(unmap(&work), EINVAL);
	assert_ok(map(&work));
	assert_misuse(machine, dmacore_unmap_list(device, work.list, 2, DMACORE_FROM_DEVICE,
						  work.attributes));
	assert_misuse(machine, dmacore_unmap_list(device, work.list, 2, DMACORE_TO_DEVICE, 0));
	assert_fails(dmacore_unmap_list(device, work.list, 1, DMACORE_TO_DEVICE, work.attributes),
		     EINVAL);
	assert_misuse(machine,
		      dmacore_sync_list_for_cpu(device, work.list, 2, 0, 0, DMACORE_BIDIRECTIONAL));
	/* A segment is not a mapping of its own, and the other way round. */
	assert_misuse(machine, dmacore_unmap(device, work.list[0].dma, work.list[0].dma_size,
					     DMACORE_TO_DEVICE, work.attributes));
	assert_misuse(machine,
		      dmacore_sync_for_cpu(device, work.list[0].dma, 1, DMACORE_TO_DEVICE));
	/* Bytes that it does not have. */
	assert_fails(
		dmacore_sync_list_for_cpu(device, work.list, 2, 2 * PAGE, 0, DMACORE_TO_DEVICE),
		EINVAL);
	assert_fails(
		dmacore_sync_list_for_cpu(device, work.list, 2, PAGE, PAGE + 1, DMACORE_TO_DEVICE),
		EINVAL);
	assert_fails(
		dmacore_sync_list_for_cpu(device, work.list, 2, 1, UINT64_MAX, DMACORE_TO_DEVICE),
		EINVAL);
	assert_no_reports(&machine->reports);
	assert_ok(unmap(&work));
	assert_misuse(machine, unmap(&work));
	assert_misuse(machine,
		      dmacore_sync_list_for_device(device, work.list, 2, 0, 0, DMACORE_TO_DEVICE));
	assert_ok(dmacore_map_phys(device, LOW_BASE, PAGE, DMACORE_TO_DEVICE, 0, &dma));
	work.list[0].dma = dma;
	work.list[1].dma_size = 0;
	assert_misuse(machine, dmacore_unmap_list(device, work.list, 2, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(device, dma, PAGE, DMACORE_TO_DEVICE, 0));
}

/* Whoever destroys a device ends its lists. */
static void device_destroy__ends_lists(void **state)
{
	struct machine *machine = *state;
	struct work work;

	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE, PAGE);
	add(&work, LOW_BASE + 3 * PAGE, PAGE);
	assert_ok(map(&work));
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	if (machine->domain)
		assert_fails(dmacore_domain_detach(machine->domain, machine->device), EBUSY);
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	if (machine->domain)
		assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

/* A device without the list sees nothing of it, and with it only what it may. */
static void map_list__lets_a_device_reach_the_list_alone(void **state)
{
	struct machine *machine = *state;
	struct work work;
	dmacore_dma_t second;
	uint8_t byte = 1;

	start(&work, machine->device, DMACORE_TO_DEVICE);
	add(&work, LOW_BASE, PAGE);
	add(&work, LOW_BASE + 4 * PAGE + 8, 8);
	assert_ok(map(&work));
	assert_count(&work, machine->path & TRANSLATED ? 2 : 2);
	second = work.list[1].dma;
	assert_fails(dmacore_view_write(machine->view, second, &byte, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, second, second, DMACORE_ACCESS_WRITE);
	assert_ok(dmacore_view_read(machine->view, second, &byte, 1));
	assert_ok(unmap(&work));
	assert_fails(dmacore_view_read(machine->view, second, &byte, 1), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, second, second, DMACORE_ACCESS_READ);
}

/* The same test on each path of a machine that is not flat. */
#define test_on_list(function)                                                              \
	test_on(DIRECT, function), test_on(IDENTITY, function), test_on(TRACKED, function), \
		test_on_translated(function)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, map_list__merges_what_is_contiguous_in_memory),
		test_on(IDENTITY, map_list__merges_what_is_contiguous_in_memory),
		test_on(TRACKED, map_list__merges_what_is_contiguous_in_memory),
		test_on(IDENTITY | TRACKED, map_list__merges_what_is_contiguous_in_memory),
		test_on_translated(map_list__merges_what_is_contiguous_in_memory),
		test_on_translated(map_list__merges_pages_through_an_iommu),
		test_on_translated(map_list__maps_whole_pages_wherever_they_lie),
		test_on_list(map_list__makes_no_segment_that_is_too_long),
		test_on_list(map_list__makes_no_segment_across_a_boundary),
		test_on_translated(map_list__obeys_limits_at_addresses_that_were_used_before),
		test_on_list(map_list__cuts_no_more_than_a_boundary_inside_of_pages_does),
		test_on(DIRECT, map_list__cuts_at_a_boundary_on_the_direct_path),
		test_on(TRACKED, map_list__cuts_at_a_boundary_on_the_direct_path),
		test_on_translated(map_list__keeps_the_low_bits_that_a_device_asks_for),
		test_on_list(map_list__gives_no_more_segments_than_asked_for),
		test_on_list(map_list__takes_many_entries),
		test_on_list(map_list__follows_chains),
		test_on_list(map_list__looks_at_nothing_behind_a_chain),
		test_on_list(map_list__refuses_what_is_no_list),
		test_on_list(list_calls__refuse_bad_arguments),
		test_on_list(map_list__refuses_what_a_single_mapping_is_refused),
		test_on(TRACKED, unmap_list__refuses_a_list_that_was_altered),
		test_on_translated(unmap_list__refuses_a_list_that_was_altered),
		test_on(TRACKED, unmap_list__refuses_what_was_mapped_otherwise),
		test_on(IDENTITY | TRACKED, unmap_list__refuses_what_was_mapped_otherwise),
		test_on_translated(unmap_list__refuses_what_was_mapped_otherwise),
		test_on(TRACKED, device_destroy__ends_lists),
		test_on_translated(device_destroy__ends_lists),
		test_on(TRACKED, map_list__lets_a_device_reach_the_list_alone),
		test_on_translated(map_list__lets_a_device_reach_the_list_alone),
	};

	return run_group("scatterlist", tests);
}
