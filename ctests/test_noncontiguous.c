/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/hardware.h"
#include "support/listener.h"

/* Leaves the allocator runs of these sizes, in pages, with a page in use behind each; the highest first. */
static void leave_runs(struct machine *machine, const unsigned *runs, unsigned count)
{
	unsigned at = 2 * POOL_PAGES;

	memset(machine->pool.used, true, sizeof(machine->pool.used));
	for (unsigned i = 0; i < count; i++) {
		at -= runs[i] + 1;
		memset(machine->pool.used + at, false, runs[i]);
	}
}

/* All is free that was. */
static void assert_runs_left(struct machine *machine, unsigned pages)
{
	unsigned found = 0;

	for (unsigned i = 0; i < 2 * POOL_PAGES; i++)
		found += !machine->pool.used[i];
	assert_int_equal(found, pages);
	assert_int_equal(machine->pool.live, 0);
	memset(machine->pool.used, false, sizeof(machine->pool.used));
}

struct buffer {
	dmacore_dma_t dma;
	uint64_t size;
	const struct dmacore_memory_segment *segments;
	size_t count;
};

static struct buffer allocate(struct machine *machine, uint64_t size, uint32_t direction)
{
	struct buffer buffer = { .size = size };

	assert_ok(dmacore_alloc_noncontiguous(machine->device, size, direction, 0, &buffer.dma,
					      &buffer.segments, &buffer.count));
	return buffer;
}

static void release(struct machine *machine, struct buffer buffer)
{
	assert_ok(dmacore_free_noncontiguous(machine->device, buffer.size, buffer.dma));
}

static void alloc_noncontiguous__gives_one_zeroed_range(void **state)
{
	struct machine *machine = *state;
	const uint64_t sizes[] = { 1, PAGE, PAGE + 1, 5 * PAGE };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t whole = (sizes[i] + PAGE - 1) & ~(PAGE - 1);
		struct buffer buffer = allocate(machine, sizes[i], DMACORE_BIDIRECTIONAL);
		uint8_t *bytes = buffer.segments[0].cpu;
		dmacore_phys_t phys;

		assert_int_equal(buffer.count, 1);
		assert_int_equal(buffer.segments[0].size, whole);
		assert_int_equal((uintptr_t)bytes % PAGE, 0);
		assert_int_equal(buffer.dma % PAGE, 0);
		assert_ok(dmacore_memory_host_to_phys(machine->system, bytes, whole, &phys));
		assert_int_equal(buffer.segments[0].phys, phys);
		assert_int_equal(device_statistics(machine->device).mapping_count, 1);
		assert_int_equal(device_statistics(machine->device).mapping_bytes, whole);
		for (uint64_t n = 0; n < whole; n++)
			assert_int_equal(bytes[n], 0);
		memset(bytes, 0xee, whole);
		release(machine, buffer);
		assert_int_equal(device_statistics(machine->device).mapping_count, 0);
	}
}

static void alloc_noncontiguous__puts_segments_one_behind_the_other(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 3, 1, 2, 4 };
	static uint8_t bytes[9 * PAGE], seen[9 * PAGE];
	struct buffer buffer;
	uint64_t at = 0;

	leave_runs(machine, runs, 5);
	buffer = allocate(machine, 9 * PAGE, DMACORE_BIDIRECTIONAL);
	/* 9 and 5 pages are not there; 3 are, twice; 2 are, and 1 is. */
	assert_int_equal(buffer.count, 4);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	fill(bytes, sizeof(bytes), 1);
	assert_ok(dmacore_view_write(machine->view, buffer.dma, bytes, sizeof(bytes)));
	assert_ok(dmacore_sync_for_cpu(machine->device, buffer.dma, buffer.size,
				       DMACORE_BIDIRECTIONAL));
	for (size_t i = 0; i < buffer.count; i++) {
		const struct dmacore_memory_segment *segment = &buffer.segments[i];
		struct dmacore_translation found;

		assert_memory_equal(segment->cpu, bytes + at, segment->size);
		assert_ok(dmacore_view_translate(machine->view, buffer.dma + at, 3, &found));
		assert_int_equal(found.target + (buffer.dma + at - found.first), segment->phys);
		fill(segment->cpu, segment->size, i);
		memcpy(bytes + at, segment->cpu, segment->size);
		at += segment->size;
	}
	assert_int_equal(at, sizeof(bytes));
	assert_ok(dmacore_sync_for_device(machine->device, buffer.dma, buffer.size,
					  DMACORE_BIDIRECTIONAL));
	assert_ok(dmacore_view_read(machine->view, buffer.dma, seen, sizeof(seen)));
	assert_memory_equal(seen, bytes, sizeof(bytes));
	release(machine, buffer);
	assert_runs_left(machine, 11);
	assert_fails(dmacore_view_read(machine->view, buffer.dma, seen, PAGE), ENOENT);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, buffer.dma, buffer.dma + PAGE - 1,
		       DMACORE_ACCESS_READ);
	assert_int_equal(domain_statistics(machine->domain).mapped_bytes, 0);
}

/* Every page alone, of many: there is room for as many segments as come. */
static void alloc_noncontiguous__takes_single_pages(void **state)
{
	struct machine *machine = *state;
	unsigned runs[40];
	struct buffer buffer;

	for (unsigned i = 0; i < 40; i++)
		runs[i] = 1;
	leave_runs(machine, runs, 40);
	buffer = allocate(machine, 40 * PAGE, DMACORE_FROM_DEVICE);
	assert_int_equal(buffer.count, 40);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(buffer.segments[i].size, PAGE);
	release(machine, buffer);
	assert_runs_left(machine, 40);
}

/* The device has no addresses for it but those of memory. */
static void alloc_noncontiguous__is_whole_or_fails_on_the_direct_path(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 2, 2 };
	const struct dmacore_memory_segment *segments;
	size_t count = 7;
	dmacore_dma_t dma;
	struct buffer buffer;

	leave_runs(machine, runs, 2);
	assert_fails_untouched(dmacore_alloc_noncontiguous(machine->device, 3 * PAGE,
							   DMACORE_TO_DEVICE, 0, &dma, &segments,
							   &count),
			       ENOMEM, dma);
	assert_int_equal(machine->pool.calls, 1);
	assert_int_equal(count, 7);
	buffer = allocate(machine, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(buffer.count, 1);
	assert_int_equal(buffer.dma, buffer.segments[0].phys);
	release(machine, buffer);
	assert_runs_left(machine, 4);
}

static void alloc_noncontiguous__is_under_the_streaming_mask(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	const struct dmacore_memory_segment *segments;
	struct buffer buffer;
	size_t count;
	dmacore_dma_t dma;

	assert_ok(dmacore_device_set_coherent_mask(device, 0, NULL));
	assert_ok(dmacore_device_set_streaming_mask(device, DMACORE_BIT_MASK(32), NULL));
	buffer = allocate(machine, PAGE, DMACORE_BIDIRECTIONAL);
	assert_true(buffer.dma <= DMACORE_BIT_MASK(32) - PAGE + 1);
	release(machine, buffer);
	assert_ok(dmacore_device_set_streaming_mask(device, PAGE - 1, NULL));
	machine->pool.ignores_limit = true;
	assert_fails_untouched(
		dmacore_alloc_noncontiguous(device, PAGE, 0, 0, &dma, &segments, &count), ERANGE,
		dma);
	assert_ok(dmacore_device_set_streaming_mask(device, 0, NULL));
	assert_fails_untouched(
		dmacore_alloc_noncontiguous(device, PAGE, 0, 0, &dma, &segments, &count), ENXIO,
		dma);
	assert_int_equal(device_statistics(device).mapping_count, 0);
}

static void alloc_noncontiguous__refuses_bad_arguments(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	const struct dmacore_memory_segment *segments;
	const uint64_t sizes[] = { 0, UINT64_MAX, UINT64_MAX - 4094 };
	const uint32_t attributes[] = { 1, DMACORE_ATTR_MMIO, 1U << 31, UINT32_MAX };
	size_t count;
	dmacore_dma_t dma = UNTOUCHED;

	for (unsigned i = 0; i < 3; i++)
		assert_fails_untouched(dmacore_alloc_noncontiguous(device, sizes[i], 0, 0, &dma,
								   &segments, &count),
				       EINVAL, dma);
	for (unsigned i = 0; i < 4; i++)
		assert_fails_untouched(dmacore_alloc_noncontiguous(device, 1, 0, attributes[i],
								   &dma, &segments, &count),
				       EINVAL, dma);
	assert_fails_untouched(
		dmacore_alloc_noncontiguous(device, 1, 3, 0, &dma, &segments, &count), EINVAL, dma);
	assert_fails_untouched(dmacore_alloc_noncontiguous(NULL, 1, 0, 0, &dma, &segments, &count),
			       EINVAL, dma);
	assert_fails(dmacore_alloc_noncontiguous(device, 1, 0, 0, NULL, &segments, &count), EINVAL);
	assert_fails_untouched(dmacore_alloc_noncontiguous(device, 1, 0, 0, &dma, NULL, &count),
			       EINVAL, dma);
	assert_fails_untouched(dmacore_alloc_noncontiguous(device, 1, 0, 0, &dma, &segments, NULL),
			       EINVAL, dma);
	assert_int_equal(machine->pool.calls, 0);
}

static void alloc_noncontiguous__of_more_than_there_is_fails(void **state)
{
	struct machine *machine = *state;
	struct snapshot before = take_snapshot(machine), after;
	const struct dmacore_memory_segment *segments;
	size_t count;
	dmacore_dma_t dma;

	/* More than the allocator has, piece by piece. */
	assert_fails_untouched(dmacore_alloc_noncontiguous(machine->device,
							   (2 * POOL_PAGES + 1) * PAGE, 0, 0, &dma,
							   &segments, &count),
			       ENOMEM, dma);
	assert_int_equal(machine->pool.live, 0);
	assert_fails_untouched(dmacore_alloc_noncontiguous(machine->device, UINT64_C(1) << 63, 0, 0,
							   &dma, &segments, &count),
			       ENOMEM, dma);
	assert_int_equal(machine->pool.live, 0);
	after = take_snapshot(machine);
	assert_memory_equal(&before, &after, sizeof(after));
}

static void alloc_noncontiguous__needs_addresses_for_all(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 1, 1, 1 };
	const struct dmacore_memory_segment *segments;
	struct buffer buffer;
	size_t count;
	dmacore_dma_t dma;

	machine_narrow(machine, PAGE, 4 * PAGE - 1);
	leave_runs(machine, runs, 4);
	assert_fails_untouched(dmacore_alloc_noncontiguous(machine->device, 4 * PAGE, 0, 0, &dma,
							   &segments, &count),
			       ERANGE, dma);
	buffer = allocate(machine, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_fails_untouched(dmacore_alloc_noncontiguous(machine->device, 2 * PAGE, 0, 0, &dma,
							   &segments, &count),
			       ENOSPC, dma);
	assert_int_equal(machine->pool.live, 2);
	release(machine, buffer);
	assert_runs_left(machine, 4);
}

static void alloc_noncontiguous__without_tables_changes_nothing(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 2, 2, 2 };
	struct buffer buffer = { .size = 6 * PAGE };

	/* Two pages below a table's end, so that the second segment needs another. */
	machine_narrow(machine, (510 << 12), (516 << 12) - 1);
	leave_runs(machine, runs, 3);
	for (int left = 0;; left++) {
		struct snapshot before = take_snapshot(machine), after;
		int error;

		machine->tables.left = left;
		error = dmacore_alloc_noncontiguous(machine->device, buffer.size, 0, 0, &buffer.dma,
						    &buffer.segments, &buffer.count);
		machine->tables.left = -1;
		if (!error) {
			assert_true(left > 2);
			break;
		}
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(machine->pool.live, 0);
		after = take_snapshot(machine);
		assert_int_equal(after.domain.mapped_bytes, 0);
		assert_int_equal(after.domain.mapping_count, 0);
		assert_memory_equal(&before.device, &after.device, sizeof(after.device));
	}
	assert_int_equal(buffer.count, 3);
	release(machine, buffer);
	assert_runs_left(machine, 6);
}

static void alloc_noncontiguous__lets_the_device_do_what_the_direction_says(void **state)
{
	struct machine *machine = *state;
	struct buffer to = allocate(machine, PAGE, DMACORE_TO_DEVICE);
	uint8_t byte = 1;

	assert_ok(dmacore_view_read(machine->view, to.dma, &byte, 1));
	assert_fails(dmacore_view_write(machine->view, to.dma, &byte, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, to.dma, to.dma, DMACORE_ACCESS_WRITE);
	release(machine, to);
}

static void sync__knows_noncontiguous_memory(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct buffer buffer = allocate(machine, 3 * PAGE, DMACORE_FROM_DEVICE);

	assert_ok(dmacore_sync_for_cpu(device, buffer.dma + 100, PAGE, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_sync_for_device(device, buffer.dma + 100, PAGE, DMACORE_FROM_DEVICE));
	assert_misuse(machine, dmacore_sync_for_cpu(device, buffer.dma, PAGE, DMACORE_TO_DEVICE));
	assert_misuse(machine,
		      dmacore_sync_for_cpu(device, buffer.dma, 3 * PAGE + 1, DMACORE_FROM_DEVICE));
	release(machine, buffer);
}

static void free_noncontiguous__refuses_what_was_not_allocated_so(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device, *other = make_device(machine);
	struct dmacore_device_statistics before, after;
	struct buffer buffer;
	dmacore_dma_t dma, streaming;
	void *cpu;

	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, other));
	buffer = allocate(machine, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_alloc_coherent(device, PAGE, &cpu, &dma));
	streaming = map_for(machine, machine->low, PAGE, DMACORE_BIDIRECTIONAL);
	before = device_statistics(device);
	assert_fails(dmacore_free_noncontiguous(NULL, 2 * PAGE, buffer.dma), EINVAL);
	assert_fails(dmacore_free_noncontiguous(device, 0, buffer.dma), EINVAL);
	assert_fails(dmacore_free_noncontiguous(device, UINT64_MAX, buffer.dma), EINVAL);
	assert_fails(dmacore_free_noncontiguous(device, PAGE, UINT64_MAX), EINVAL);
	assert_no_reports(&machine->reports);
	assert_misuse(machine, dmacore_free_noncontiguous(device, PAGE, buffer.dma));
	assert_misuse(machine, dmacore_free_noncontiguous(device, 3 * PAGE, buffer.dma));
	assert_misuse(machine, dmacore_free_noncontiguous(device, PAGE, buffer.dma + PAGE));
	assert_misuse(machine, dmacore_free_noncontiguous(other, 2 * PAGE, buffer.dma));
	/* What one call made is not undone by another's. */
	assert_misuse(machine, dmacore_free_noncontiguous(device, PAGE, dma));
	assert_misuse(machine, dmacore_free_noncontiguous(device, PAGE, streaming));
	assert_misuse(machine,
		      dmacore_free_coherent(device, 2 * PAGE, buffer.segments[0].cpu, buffer.dma));
	assert_misuse(machine,
		      dmacore_unmap(device, buffer.dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
	after = device_statistics(device);
	assert_memory_equal(&before, &after, sizeof(after));
	release(machine, buffer);
	assert_misuse(machine, dmacore_free_noncontiguous(device, 2 * PAGE, buffer.dma));
	assert_ok(dmacore_free_coherent(device, PAGE, cpu, dma));
	assert_ok(dmacore_unmap(device, streaming, PAGE, DMACORE_BIDIRECTIONAL, 0));
	dmacore_device_destroy(other);
}

static void free_noncontiguous__waits_for_zero_copy_mappings(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 2 };
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct buffer buffer;
	size_t count;

	if (machine->path & TRANSLATED)
		leave_runs(machine, runs, 2);
	buffer = allocate(machine, 2 * PAGE + PAGE * !!(machine->path & TRANSLATED),
			  DMACORE_BIDIRECTIONAL);
	assert_ok(dmacore_view_map(machine->view, buffer.dma, buffer.size, DMACORE_ACCESS_WRITE,
				   &mapping, &segments, &count));
	assert_int_equal(count, buffer.count);
	for (size_t i = 0; i < count; i++) {
		assert_ptr_equal(segments[i].host, buffer.segments[i].cpu);
		assert_int_equal(segments[i].size, buffer.segments[i].size);
	}
	assert_fails(dmacore_free_noncontiguous(machine->device, buffer.size, buffer.dma), EBUSY);
	assert_no_reports(&machine->reports);
	assert_int_equal(device_statistics(machine->device).mapping_count, 1);
	dmacore_view_unmap(mapping);
	release(machine, buffer);
	memset(machine->pool.used, false, sizeof(machine->pool.used));
}

static void free_noncontiguous__is_strict_in_a_lazy_domain(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 1 };
	struct buffer buffer;

	machine_use(machine, DMACORE_DOMAIN_DMA_LAZY);
	leave_runs(machine, runs, 2);
	buffer = allocate(machine, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	release(machine, buffer);
	assert_int_equal(domain_statistics(machine->domain).queued_count, 0);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 0);
	assert_runs_left(machine, 2);
	/* As strictly by who destroys the device. */
	leave_runs(machine, runs, 2);
	buffer = allocate(machine, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	reports_forget(&machine->reports);
	assert_int_equal(domain_statistics(machine->domain).queued_count, 0);
	assert_runs_left(machine, 2);
}

static void device_destroy__frees_noncontiguous_memory(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 3 };
	const struct report_record *report;

	if (machine->path & TRANSLATED)
		leave_runs(machine, runs, 2);
	(void)allocate(machine, 3 * PAGE, DMACORE_FROM_DEVICE);
	dmacore_view_destroy(machine->view);
	machine->view = NULL;
	dmacore_device_destroy(machine->device);
	machine->device = NULL;
	report = reports_take(&machine->reports);
	assert_string_equal(report->text, "destroyed with 1 live mapping of 12288 bytes, which are "
					  "unmapped now");
	assert_int_equal(machine->pool.live, 0);
}

static void alloc_noncontiguous__tells_listeners_each_segment(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 2 };
	struct listener listener;
	struct buffer buffer;
	dmacore_dma_t dma;

	leave_runs(machine, runs, 2);
	listener_start_all(&listener, machine);
	buffer = allocate(machine, 3 * PAGE, DMACORE_TO_DEVICE);
	dma = buffer.dma;
	assert_int_equal(buffer.count, 2);
	assert_told_map(&listener, dma, 2 * PAGE, buffer.segments[0].phys, DMACORE_ACCESS_READ);
	assert_told_map(&listener, dma + 2 * PAGE, PAGE, buffer.segments[1].phys,
			DMACORE_ACCESS_READ);
	release(machine, buffer);
	assert_told_unmap(&listener, dma, 3 * PAGE);
	listener_stop(&listener);
	assert_runs_left(machine, 3);
}

static void alloc_noncontiguous__is_direct_in_a_window_and_translated_in_segments(void **state)
{
	struct machine *machine = *state;
	const unsigned runs[] = { 1, 1 };
	struct buffer buffer;

	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	buffer = allocate(machine, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(buffer.dma, buffer.segments[0].phys);
	release(machine, buffer);
	leave_runs(machine, runs, 2);
	buffer = allocate(machine, 2 * PAGE, DMACORE_TO_DEVICE);
	assert_int_equal(buffer.count, 2);
	assert_true(buffer.dma != buffer.segments[0].phys);
	assert_int_equal(domain_statistics(machine->domain).mapping_count, 1);
	release(machine, buffer);
	assert_runs_left(machine, 2);
}

/* Hardware that fails in the middle has nothing left of the range. */
static void alloc_noncontiguous__undoes_what_a_backend_was_told(void **state)
{
	const unsigned runs[] = { 1, 1, 1 };
	static struct machine machine;
	static struct hardware hardware;
	static struct hardware_state before;
	struct buffer buffer = { .size = 3 * PAGE };
	struct dmacore_device_options device;

	(void)state;
	machine_start(&machine, DIRECT);
	dmacore_view_destroy(machine.view);
	dmacore_device_destroy(machine.device);
	hardware_start(&hardware);
	machine.iommu = hardware_iommu(&hardware, &machine);
	machine.domain = make_domain(&machine, DMACORE_DOMAIN_DMA, 0, 0);
	device = device_options(&machine);
	assert_ok(dmacore_device_create(machine.system, &device, &machine.device));
	assert_ok(dmacore_domain_attach(machine.domain, machine.device));
	assert_ok(dmacore_view_create(machine.device, &machine.view));
	leave_runs(&machine, runs, 3);
	for (int left = 0;; left++) {
		int error;

		before = hardware.state;
		hardware.left = left;
		error = dmacore_alloc_noncontiguous(machine.device, buffer.size, 0, 0, &buffer.dma,
						    &buffer.segments, &buffer.count);
		hardware.left = -1;
		if (!error) {
			assert_int_equal(left, 3);
			break;
		}
		assert_int_equal(error, -EIO);
		assert_int_equal(machine.pool.live, 0);
		assert_int_equal(domain_statistics(machine.domain).mapped_bytes, 0);
		assert_int_equal(domain_statistics(machine.domain).mapping_count, 0);
		for (unsigned i = 0; i < HARDWARE_DOMAINS; i++)
			assert_int_equal(hardware.state.domains[i].run_count,
					 before.domains[i].run_count);
	}
	assert_int_equal(buffer.count, 3);
	release(&machine, buffer);
	assert_int_equal(hardware.wrong, 0);
	assert_runs_left(&machine, 3);
	machine_stop(&machine);
	assert_int_equal(hardware.wrong, 0);
}

static struct {
	unsigned count;
	uint64_t size;
} cleaned;

static void clean(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
		  void *opaque)
{
	(void)phys, (void)opaque;
	assert_int_equal(direction, DMACORE_BIDIRECTIONAL);
	assert_false(is_for_cpu);
	cleaned.count++;
	cleaned.size += size;
}

/* The allocator gives memory that is not cached, once it was cleared. */
static void alloc_noncontiguous__leaves_caches_alone_that_have_nothing(void **state)
{
	struct dmacore_system_options system = DMACORE_SYSTEM_OPTIONS_INIT;
	struct machine *machine = *state;
	struct dmacore_device_options device = DMACORE_DEVICE_OPTIONS_INIT;
	const struct dmacore_memory_segment *segments;
	struct dmacore_system *other;
	struct dmacore_device *incoherent;
	dmacore_dma_t dma;
	size_t count;

	system.cache = clean;
	system.memory_allocator = &machine->pool.allocator;
	assert_ok(dmacore_system_create(&system, &other));
	add_host_region(other, POOL_HIGH_BASE, POOL_PAGES * PAGE,
			machine->pool.bytes + POOL_PAGES * PAGE, 0);
	device.flags = DMACORE_DEVICE_NONCOHERENT | DMACORE_DEVICE_TRACK_DIRECT;
	device.streaming_mask = UINT64_MAX;
	assert_ok(dmacore_device_create(other, &device, &incoherent));
	cleaned.count = cleaned.size = 0;
	assert_ok(dmacore_alloc_noncontiguous(incoherent, 2 * PAGE, DMACORE_FROM_DEVICE, 0, &dma,
					      &segments, &count));
	assert_int_equal(cleaned.count, 1);
	assert_int_equal(cleaned.size, 2 * PAGE);
	assert_ok(dmacore_sync_for_cpu(incoherent, dma, PAGE, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_sync_for_device(incoherent, dma, PAGE, DMACORE_FROM_DEVICE));
	assert_ok(dmacore_free_noncontiguous(incoherent, 2 * PAGE, dma));
	assert_int_equal(cleaned.count, 1);
	assert_fails(dmacore_alloc_noncontiguous(incoherent, PAGE, 0, DMACORE_ATTR_REQUIRE_COHERENT,
						 &dma, &segments, &count),
		     EOPNOTSUPP);
	assert_int_equal(machine->pool.live, 0);
	dmacore_device_destroy(incoherent);
	dmacore_system_destroy(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_all(alloc_noncontiguous__gives_one_zeroed_range),
		test_on_translated(alloc_noncontiguous__puts_segments_one_behind_the_other),
		test_on_translated(alloc_noncontiguous__takes_single_pages),
		test_on(DIRECT, alloc_noncontiguous__is_whole_or_fails_on_the_direct_path),
		test_on(IDENTITY, alloc_noncontiguous__is_whole_or_fails_on_the_direct_path),
		test_on(TRACKED, alloc_noncontiguous__is_whole_or_fails_on_the_direct_path),
		test_on(DIRECT, alloc_noncontiguous__is_under_the_streaming_mask),
		test_on(TRACKED, alloc_noncontiguous__is_under_the_streaming_mask),
		test_on_translated(alloc_noncontiguous__is_under_the_streaming_mask),
		test_on_all(alloc_noncontiguous__refuses_bad_arguments),
		test_on(DIRECT, alloc_noncontiguous__of_more_than_there_is_fails),
		test_on_translated(alloc_noncontiguous__of_more_than_there_is_fails),
		test_on_translated(alloc_noncontiguous__needs_addresses_for_all),
		test_on(TRANSLATED, alloc_noncontiguous__without_tables_changes_nothing),
		test_on_recorded(alloc_noncontiguous__lets_the_device_do_what_the_direction_says),
		test_on_recorded(sync__knows_noncontiguous_memory),
		test_on_recorded(free_noncontiguous__refuses_what_was_not_allocated_so),
		test_on(TRACKED, free_noncontiguous__waits_for_zero_copy_mappings),
		test_on_translated(free_noncontiguous__waits_for_zero_copy_mappings),
		test_on_translated(free_noncontiguous__is_strict_in_a_lazy_domain),
		test_on_recorded(device_destroy__frees_noncontiguous_memory),
		test_on(DIRECT, device_destroy__frees_noncontiguous_memory),
		test_on_translated(alloc_noncontiguous__tells_listeners_each_segment),
		test_on_translated(
			alloc_noncontiguous__is_direct_in_a_window_and_translated_in_segments),
		cmocka_unit_test(alloc_noncontiguous__undoes_what_a_backend_was_told),
		test_on(DIRECT, alloc_noncontiguous__leaves_caches_alone_that_have_nothing),
	};

	return run_group("noncontiguous", tests);
}
