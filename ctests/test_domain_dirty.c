/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What a domain says of the writes of its devices. */

#include "support/dirty.h"

#include <pthread.h>
#include <stdatomic.h>

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)
#define CLEAR DMACORE_DIRTY_CLEAR

/* Where the device of most tests has the first region: not where a run could be. */
#define SPOT UINT64_C(0x113000)

static void use(struct machine *machine, unsigned format)
{
	dirty_use(machine, &dirty_formats[format], DMACORE_PAGETABLE_DIRTY,
		  DMACORE_DOMAIN_UNMANAGED);
}

/* Maps the first region, in small leaves. */
static void map_low(struct machine *machine)
{
	for (uint64_t i = 0; i < RAM_SIZE; i += PAGE)
		assert_ok(dmacore_domain_map(machine->domain, SPOT + i, LOW_BASE + i, PAGE, BOTH));
}

static void track(struct machine *machine, bool is_tracked)
{
	assert_ok(dmacore_domain_set_dirty_tracking(machine->domain, is_tracked));
}

/* The bits of at most 64 pages. */
static uint64_t dirty(struct machine *machine, uint64_t iova, uint64_t pages, uint32_t flags)
{
	uint64_t bits = 0;

	assert_ok(dmacore_domain_read_dirty(machine->domain, iova, pages * PAGE, flags, &bits));
	return bits;
}

static void write_at(struct machine *machine, uint64_t iova, size_t size)
{
	static uint8_t bytes[RAM_SIZE];

	assert_true(size <= sizeof(bytes));
	assert_ok(dmacore_view_write(machine->view, iova, bytes, size));
}

static void read_dirty__tells_which_pages_were_written(void **state)
{
	struct machine *machine = *state;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		struct dmacore_translation found;
		uint8_t bytes[PAGE];

		use(machine, i);
		map_low(machine);
		track(machine, true);
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0);
		write_at(machine, SPOT + PAGE + 5, 1);
		/* The last byte of a page and the first of the next. */
		write_at(machine, SPOT + 5 * PAGE - 1, 2);
		write_at(machine, SPOT + 8 * PAGE, 3 * PAGE);
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0x732);
		/* Others than writes leave nothing, nor do those that are refused. */
		assert_ok(dmacore_view_read(machine->view, SPOT, bytes, sizeof(bytes)));
		assert_ok(dmacore_view_translate(machine->view, SPOT, BOTH, &found));
		write_at(machine, SPOT, 0);
		assert_fails(dmacore_view_write(machine->view, SPOT + RAM_SIZE - 1, bytes, 2),
			     ENOENT);
		assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, SPOT + RAM_SIZE, SPOT + RAM_SIZE,
			       WRITE);
		/* Of a part, from its start on; bits that are set stay. */
		assert_int_equal(dirty(machine, SPOT + 4 * PAGE, 5, 0), 0x13);
		assert_int_equal(dirty(machine, SPOT - PAGE, 64, 0), 0x732 << 1);
		/* What is cleared is what was read. */
		assert_int_equal(dirty(machine, SPOT + PAGE, 4, CLEAR), 0x9);
		assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0x720);
		assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0);
		write_at(machine, SPOT + PAGE, PAGE);
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0x2);
	}
}

static void read_dirty__sets_bits_and_clears_none(void **state)
{
	struct machine *machine = *state;
	uint64_t bits[3] = { UINT64_C(1) << 63, 0, 0x5a };

	use(machine, 0);
	map_low(machine);
	track(machine, true);
	write_at(machine, SPOT + PAGE, 1);
	assert_ok(dmacore_domain_read_dirty(machine->domain, SPOT - 63 * PAGE, 128 * PAGE, CLEAR,
					    bits));
	assert_int_equal(bits[0], UINT64_C(1) << 63);
	assert_int_equal(bits[1], 1);
	assert_int_equal(bits[2], 0x5a);
	track(machine, false);
}

static void set_dirty_tracking__switches_noting_on_and_off(void **state)
{
	struct machine *machine = *state;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		static uint8_t before[TABLE_POOL_PAGES * PAGE];

		use(machine, i);
		map_low(machine);
		/* Off at first: no table is written to. */
		memcpy(before, machine->tables.bytes, sizeof(before));
		write_at(machine, SPOT, PAGE);
		assert_memory_equal(before, machine->tables.bytes, sizeof(before));
		assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0);
		track(machine, false);
		track(machine, true);
		write_at(machine, SPOT + PAGE, PAGE);
		/* It is on already, and what was noted stays. */
		track(machine, true);
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0x2);
		track(machine, false);
		memcpy(before, machine->tables.bytes, sizeof(before));
		write_at(machine, SPOT + 2 * PAGE, PAGE);
		assert_memory_equal(before, machine->tables.bytes, sizeof(before));
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0x2);
		/* From here on another tale. */
		track(machine, true);
		assert_int_equal(dirty(machine, SPOT, 16, 0), 0);
		write_at(machine, SPOT + 3 * PAGE, PAGE);
		assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0x8);
	}
}

static void set_dirty_tracking__forgets_everywhere(void **state)
{
	/* The formats with signed input have a lowest and a highest address. */
	const uint64_t spots[] = { 0, DMACORE_BIT_MASK(47) - PAGE + 1, 0 - PAGE };
	struct machine *machine = *state;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		unsigned count = dirty_formats[i].flags & DMACORE_IOMMU_SIGNED_INPUT ? 3 : 2;

		use(machine, i);
		for (unsigned n = 0; n < count; n++)
			assert_ok(dmacore_domain_map(machine->domain, spots[n], LOW_BASE, PAGE,
						     BOTH));
		track(machine, true);
		for (unsigned n = 0; n < count; n++) {
			write_at(machine, spots[n] + 9, 1);
			assert_int_equal(dirty(machine, spots[n], 1, 0), 1);
		}
		track(machine, false);
		track(machine, true);
		for (unsigned n = 0; n < count; n++)
			assert_int_equal(dirty(machine, spots[n], 1, 0), 0);
	}
}

static void read_dirty__marks_the_whole_leaf(void **state)
{
	struct machine *machine = *state;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		const bool has_runs = dirty_formats[i].leaf_sizes & 16 * PAGE;

		use(machine, i);
		assert_ok(dmacore_domain_map(machine->domain, 0, LOW_BASE, 2 * MIB, BOTH));
		/* A run of 16 pages where there is such a thing. */
		assert_ok(dmacore_domain_map(machine->domain, 2 * MIB, LOW_BASE, RAM_SIZE, BOTH));
		track(machine, true);
		write_at(machine, 5 * PAGE, 1);
		assert_int_equal(dirty(machine, 256 * PAGE, 64, 0), UINT64_MAX);
		/* Cut to the range, and cleared as a whole. */
		assert_int_equal(dirty(machine, 511 * PAGE, 2, CLEAR), 1);
		assert_int_equal(dirty(machine, 0, 64, 0), 0);
		write_at(machine, 2 * MIB + 3 * PAGE, 1);
		assert_int_equal(dirty(machine, 2 * MIB, 16, 0), has_runs ? 0xffff : 0x8);
		/* Splitting keeps what was noted. */
		write_at(machine, 0, 1);
		assert_ok(dmacore_domain_unmap(machine->domain, 7 * PAGE, PAGE, DMACORE_UNMAP_SPLIT,
					       NULL));
		assert_int_equal(dirty(machine, 0, 16, CLEAR), 0xff7f);
		write_at(machine, 8 * PAGE, 1);
		assert_int_equal(dirty(machine, 0, 8, 0), 0);
		assert_true(dirty(machine, 8 * PAGE, 8, 0) & 1);
	}
}

static void read_dirty__knows_what_mapping_calls_map(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma, coherent;
	void *cpu;

	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		dirty_use(machine, &dirty_formats[i], DMACORE_PAGETABLE_DIRTY, DMACORE_DOMAIN_DMA);
		track(machine, true);
		dma = map_for(machine, machine->low + 7, 100, DMACORE_FROM_DEVICE);
		assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &coherent));
		write_at(machine, dma, 1);
		assert_int_equal(dirty(machine, dma & ~(PAGE - 1), 1, CLEAR), 1);
		assert_int_equal(dirty(machine, coherent, 1, CLEAR), 0);
		write_at(machine, coherent + 8, 8);
		assert_int_equal(dirty(machine, coherent, 1, CLEAR), 1);
		write_at(machine, dma, 1);
		/* What is noted goes with the mapping. */
		assert_ok(dmacore_unmap(machine->device, dma, 100, DMACORE_FROM_DEVICE, 0));
		assert_int_equal(dirty(machine, dma & ~(PAGE - 1), 1, 0), 0);
		assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, coherent));
	}
}

static void read_dirty__counts_what_is_held_for_writing(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *writing, *second, *reading;
	size_t count;

	use(machine, 0);
	map_low(machine);
	/* Also one that was made before anything was tracked. */
	assert_ok(dmacore_view_map(machine->view, SPOT + PAGE + 9, 2 * PAGE, BOTH, &writing,
				   &segments, &count));
	assert_ok(dmacore_view_map(machine->view, SPOT, 10 * PAGE, READ, &reading, &segments,
				   &count));
	track(machine, true);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0xe);
	assert_int_equal(dirty(machine, SPOT + 2 * PAGE, 1, CLEAR), 1);
	assert_int_equal(dirty(machine, SPOT + 4 * PAGE, 4, CLEAR), 0);
	/* One that starts inside another and ends behind it. */
	assert_ok(dmacore_view_map(machine->view, SPOT + 2 * PAGE, 3 * PAGE, WRITE, &second,
				   &segments, &count));
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0x1e);
	assert_int_equal(dirty(machine, SPOT - PAGE, 4, CLEAR), 0xc);
	dmacore_view_unmap(second);
	/* Once more when it has ended. */
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0x1e);
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0xe);
	dmacore_view_unmap(writing);
	dmacore_view_unmap(reading);
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0xe);
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0);
	/* While nothing is tracked the end of one leaves nothing. */
	track(machine, false);
	assert_ok(dmacore_view_map(machine->view, SPOT, PAGE, WRITE, &writing, &segments, &count));
	dmacore_view_unmap(writing);
	assert_int_equal(dirty(machine, SPOT, 16, 0), 0);
}

static void view_unmap__notes_nothing_where_nothing_is_mapped_any_more(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	use(machine, 0);
	map_low(machine);
	track(machine, true);
	assert_ok(dmacore_view_map(machine->view, SPOT, 3 * PAGE, WRITE, &mapping, &segments,
				   &count));
	assert_ok(dmacore_domain_unmap(machine->domain, SPOT + PAGE, PAGE, 0, NULL));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	/* The device leaves the domain, which the mapping is of. */
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_view_unmap(mapping);
	assert_int_equal(dirty(machine, SPOT, 16, 0), 0x5);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static int serve_read(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset;
	(void)opaque;
	memset(buffer, 0, size);
	return 0;
}

static int serve_write(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	struct machine *machine = opaque;

	(void)buffer;
	/* It is noted once it is done, not before. */
	assert_int_equal(dirty(machine, SPOT, 3, 0) & 1, 0);
	return offset + size > PAGE ? -EIO : 0;
}

static void read_dirty__knows_writes_that_callbacks_carry_out(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	uint8_t byte = 0;

	use(machine, 0);
	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.base = UINT64_C(0x400000000);
	region.size = 3 * PAGE;
	region.read = serve_read;
	region.write = serve_write;
	region.opaque = machine;
	assert_ok(dmacore_memory_add(machine->system, &region));
	for (unsigned i = 0; i < 3; i++)
		assert_ok(dmacore_domain_map(machine->domain, SPOT + i * PAGE,
					     region.base + i * PAGE, PAGE, WRITE));
	track(machine, true);
	assert_ok(dmacore_view_write(machine->view, SPOT + 8, &byte, 1));
	assert_int_equal(dirty(machine, SPOT, 3, CLEAR), 1);
	/* One that fails may have written. */
	assert_fails(dmacore_view_write(machine->view, SPOT + PAGE, &byte, 1), EIO);
	assert_int_equal(dirty(machine, SPOT, 3, CLEAR), 2);
}

/* A region whose callback moves the device to another domain. */
struct mover {
	struct machine *machine;
	struct dmacore_domain *next;
};

static int move_and_write(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	struct mover *mover = opaque;

	(void)offset;
	(void)buffer;
	(void)size;
	assert_ok(dmacore_domain_replace(mover->next, mover->machine->device));
	return 0;
}

/* What was written through one domain says nothing of the next one's addresses. */
static void read_dirty__knows_no_write_through_another_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct mover mover = { .machine = machine };
	struct dmacore_domain *first;
	uint8_t byte = 0;

	use(machine, 0);
	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.base = UINT64_C(0x400000000);
	region.size = PAGE;
	region.read = serve_read;
	region.write = move_and_write;
	region.opaque = &mover;
	assert_ok(dmacore_memory_add(machine->system, &region));
	first = machine->domain;
	assert_ok(dmacore_domain_map(first, SPOT, region.base, PAGE, WRITE));
	mover.next = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	machine->domain = mover.next;
	map_low(machine);
	track(machine, true);
	assert_ok(dmacore_view_write(machine->view, SPOT, &byte, 1));
	assert_int_equal(dirty(machine, SPOT, 3, 0), 0);
	write_at(machine, SPOT, 1);
	assert_int_equal(dirty(machine, SPOT, 3, 0), 1);
	dmacore_domain_destroy(first);
}

static void read_dirty__is_of_all_devices_of_the_domain(void **state)
{
	static const struct dmacore_dma_range range = { SPOT + 2 * PAGE, 0, 2 * PAGE };
	struct machine *machine = *state;
	struct dmacore_device_options options;
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t bytes[2 * PAGE] = { 0 };

	use(machine, 0);
	map_low(machine);
	track(machine, true);
	/* One whose bus passes some of the addresses. */
	options = device_options(machine);
	options.ranges = &range;
	options.range_count = 1;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &view));
	assert_ok(dmacore_view_write(view, SPOT + 2 * PAGE, bytes, sizeof(bytes)));
	write_at(machine, SPOT, 1);
	assert_int_equal(dirty(machine, SPOT, 16, CLEAR), 0xd);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

/* Errors. */

static void assert_reads_nothing(struct dmacore_domain *domain, uint64_t iova, uint64_t size,
				 uint32_t flags, int error)
{
	uint64_t bits[4] = { 1, 2, 3, 4 }, before[4];

	memcpy(before, bits, sizeof(bits));
	assert_fails(dmacore_domain_read_dirty(domain, iova, size, flags, bits), error);
	assert_memory_equal(bits, before, sizeof(bits));
}

static void read_dirty__refuses_what_is_no_range(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct dmacore_domain *domain;
	uint64_t bits;
	size_t count;

	use(machine, 0);
	domain = machine->domain;
	map_low(machine);
	track(machine, true);
	write_at(machine, SPOT, 1);
	/* Whatever is found elsewhere. */
	assert_ok(dmacore_view_map(machine->view, SPOT, PAGE, WRITE, &mapping, &segments, &count));
	assert_reads_nothing(NULL, SPOT, PAGE, 0, EINVAL);
	assert_fails(dmacore_domain_read_dirty(domain, SPOT, PAGE, 0, NULL), EINVAL);
	assert_reads_nothing(domain, SPOT, 0, 0, EINVAL);
	assert_reads_nothing(domain, SPOT + 1, PAGE, 0, EINVAL);
	assert_reads_nothing(domain, SPOT, PAGE + 1, 0, EINVAL);
	assert_reads_nothing(domain, SPOT, PAGE, 2, EINVAL);
	assert_reads_nothing(domain, SPOT, PAGE, UINT32_MAX, EINVAL);
	assert_reads_nothing(domain, UINT64_MAX - PAGE + 1, 2 * PAGE, 0, ERANGE);
	assert_reads_nothing(domain, SPOT, UINT64_C(1) << 48, 0, ERANGE);
	assert_reads_nothing(domain, UINT64_MAX - PAGE + 1, PAGE, 0, ERANGE);
	dmacore_view_unmap(mapping);
	/* The end of what the tables have. */
	bits = 0;
	assert_ok(
		dmacore_domain_read_dirty(domain, (UINT64_C(1) << 48) - PAGE, PAGE, CLEAR, &bits));
	assert_int_equal(bits, 0);
	assert_int_equal(dirty(machine, SPOT, 1, 0), 1);
}

static void dirty_tracking__is_refused_where_there_is_no_place_for_it(void **state)
{
	static const uint32_t types[] = { DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_BLOCKED };
	struct machine *machine = *state;

	assert_fails(dmacore_domain_set_dirty_tracking(NULL, true), EINVAL);
	for (unsigned i = 0; i < DIRTY_FORMAT_COUNT; i++) {
		dirty_use(machine, &dirty_formats[i], 0, DMACORE_DOMAIN_UNMANAGED);
		map_low(machine);
		for (unsigned on = 0; on < 2; on++)
			assert_fails(dmacore_domain_set_dirty_tracking(machine->domain, on),
				     EOPNOTSUPP);
		assert_reads_nothing(machine->domain, SPOT, PAGE, 0, EOPNOTSUPP);
		write_at(machine, SPOT, RAM_SIZE);
	}
	for (unsigned i = 0; i < 2; i++) {
		dirty_use(machine, &dirty_formats[0], DMACORE_PAGETABLE_DIRTY, types[i]);
		assert_fails(dmacore_domain_set_dirty_tracking(machine->domain, true), EOPNOTSUPP);
		assert_reads_nothing(machine->domain, SPOT, PAGE, 0, EOPNOTSUPP);
	}
}

/* What it is for: memory is copied while devices write, and at the end the copy is whole. */

#define WRITERS 2

struct writer {
	pthread_t thread;
	struct machine *machine;
	uint64_t seed;
	atomic_bool *is_over;
	unsigned long count;
};

static void *keep_writing(void *opaque)
{
	struct writer *writer = opaque;

	while (!atomic_load(writer->is_over)) {
		uint64_t random = random_next(&writer->seed), bytes[8];
		uint64_t offset = random % (RAM_SIZE - sizeof(bytes));

		for (unsigned i = 0; i < 8; i++)
			bytes[i] = random_next(&writer->seed);
		if (dmacore_view_write(writer->machine->view, SPOT + offset, bytes, sizeof(bytes)))
			return writer;
		writer->count++;
	}
	return NULL;
}

static void copy_written(struct machine *machine, uint8_t *copy)
{
	uint64_t bits = dirty(machine, SPOT, 16, CLEAR);

	for (unsigned i = 0; i < 16; i++)
		if (bits >> i & 1)
			memcpy(copy + i * PAGE, machine->low + i * PAGE, PAGE);
}

static void read_dirty__misses_no_write_of_another_thread(void **state)
{
	struct machine *machine = *state;
	uint8_t *copy = malloc(RAM_SIZE);
	const unsigned rounds = under_valgrind() ? 3 : 60;

	assert_non_null(copy);
	use(machine, 0);
	map_low(machine);
	for (unsigned round = 0; round < rounds; round++) {
		struct writer writers[WRITERS];
		atomic_bool is_over = false;

		for (unsigned i = 0; i < WRITERS; i++) {
			writers[i] = (struct writer){ .machine = machine,
						      .seed = round * WRITERS + i,
						      .is_over = &is_over };
			assert_int_equal(
				pthread_create(&writers[i].thread, NULL, keep_writing, &writers[i]),
				0);
		}
		track(machine, true);
		memcpy(copy, machine->low, RAM_SIZE);
		for (unsigned i = 0; i < 200; i++)
			copy_written(machine, copy);
		atomic_store(&is_over, true);
		for (unsigned i = 0; i < WRITERS; i++) {
			void *failed;

			assert_int_equal(pthread_join(writers[i].thread, &failed), 0);
			assert_null(failed);
		}
		copy_written(machine, copy);
		assert_memory_equal(copy, machine->low, RAM_SIZE);
		track(machine, false);
	}
	free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(read_dirty__tells_which_pages_were_written),
		test_on_translated(read_dirty__sets_bits_and_clears_none),
		test_on_translated(set_dirty_tracking__switches_noting_on_and_off),
		test_on_translated(set_dirty_tracking__forgets_everywhere),
		test_on_translated(read_dirty__marks_the_whole_leaf),
		test_on_translated(read_dirty__knows_what_mapping_calls_map),
		test_on_translated(read_dirty__counts_what_is_held_for_writing),
		test_on_translated(view_unmap__notes_nothing_where_nothing_is_mapped_any_more),
		test_on_translated(read_dirty__knows_writes_that_callbacks_carry_out),
		test_on_translated(read_dirty__knows_no_write_through_another_domain),
		test_on_translated(read_dirty__is_of_all_devices_of_the_domain),
		test_on_translated(read_dirty__refuses_what_is_no_range),
		test_on_translated(dirty_tracking__is_refused_where_there_is_no_place_for_it),
		test_on_translated(read_dirty__misses_no_write_of_another_thread),
	};

	return run_group("domain dirty", tests);
}
