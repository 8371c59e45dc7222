/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* A base where the machine has no memory. */
#define FREE_BASE UINT64_C(0x70000000000)

static struct dmacore_memory_region host_region(uint64_t base, uint64_t size, void *host)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

	region.backing = DMACORE_MEMORY_HOST;
	region.base = base;
	region.size = size;
	region.host = host;
	return region;
}

static struct dmacore_memory_region fd_region(uint64_t base, uint64_t size, int fd, uint64_t offset)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

	region.backing = DMACORE_MEMORY_FD;
	region.base = base;
	region.size = size;
	region.fd = fd;
	region.fd_offset = offset;
	return region;
}

/* Memory behind callbacks, with a note of what they were asked. */
struct device_memory {
	struct machine *machine;
	uint8_t bytes[4 * PAGE];
	uint64_t first;
	uint64_t end;
	unsigned calls;
	/* Calls of one access that do not follow each other in the order of the addresses. */
	unsigned gaps;
	int error;
	int removed;
};

static void device_memory_note(struct device_memory *memory, uint64_t offset, size_t size)
{
	memory->first = memory->calls ? memory->first : offset;
	memory->gaps += memory->calls && offset != memory->end;
	memory->end = offset + size;
	memory->calls++;
}

static int device_memory_read(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	struct device_memory *memory = opaque;

	device_memory_note(memory, offset, size);
	if (!memory->error)
		memcpy(buffer, memory->bytes + offset, size);
	return memory->error;
}

static int device_memory_write(uint64_t offset, const void *buffer, size_t size, void *opaque)
{
	struct device_memory *memory = opaque;

	device_memory_note(memory, offset, size);
	if (!memory->error)
		memcpy(memory->bytes + offset, buffer, size);
	return memory->error;
}

static struct dmacore_memory_region callback_region(uint64_t base, uint64_t size,
						    struct device_memory *memory)
{
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.base = base;
	region.size = size;
	region.read = device_memory_read;
	region.write = device_memory_write;
	region.opaque = memory;
	return region;
}

static int make_file(size_t size)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_ok(ftruncate(fd, (off_t)size));
	return fd;
}

/* The same file, opened with other rights. */
static int reopen(int fd, int flags)
{
	char path[64];
	int other;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, flags | O_CLOEXEC);
	assert_true(other >= 0);
	return other;
}

/* Refused, and nothing is there where the region would have begun. */
static void check_refused(struct machine *machine, const struct dmacore_memory_region *region,
			  int error)
{
	void *host;

	assert_fails(dmacore_memory_add(machine->system, region), error);
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, region->base, 1, &host),
			       EFAULT, host);
	assert_fails(dmacore_memory_remove(machine->system, region->base,
					   region->size ? region->size : 1),
		     ENOENT);
}

static void memory_add__makes_memory_that_both_sides_see(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, sizeof(bytes), bytes);
	char buffer[8] = "";

	assert_ok(dmacore_memory_add(machine->system, &region));
	memcpy(bytes + 100, "written", 8);
	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 100, buffer, 8));
	assert_string_equal(buffer, "written");
	assert_ok(dmacore_view_write(machine->view, FREE_BASE + PAGE - 8, "device!", 8));
	assert_string_equal((char *)bytes + PAGE - 8, "device!");
}

static void memory_add__takes_a_region_of_one_byte(void **state)
{
	struct machine *machine = *state;
	static uint8_t byte = 7;
	struct dmacore_memory_region region = host_region(FREE_BASE + 3, 1, &byte);
	uint8_t read = 0;

	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 3, &read, 1));
	assert_int_equal(read, 7);
	assert_fails(dmacore_view_read(machine->view, FREE_BASE + 4, &read, 1), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, FREE_BASE + 4, FREE_BASE + 4,
		       DMACORE_ACCESS_READ);
}

static void memory_add__takes_a_region_that_ends_the_space(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	uint64_t base = UINT64_MAX - PAGE + 1;
	struct dmacore_memory_region region = host_region(base, PAGE, bytes);
	dmacore_phys_t phys;
	void *host;
	uint8_t byte;

	assert_ok(dmacore_memory_add(machine->system, &region));
	bytes[PAGE - 1] = 42;
	assert_ok(dmacore_view_read(machine->view, UINT64_MAX, &byte, 1));
	assert_int_equal(byte, 42);
	assert_ok(dmacore_memory_phys_to_host(machine->system, UINT64_MAX, 1, &host));
	assert_ptr_equal(host, bytes + PAGE - 1);
	assert_ok(dmacore_memory_phys_to_host(machine->system, base, PAGE, &host));
	assert_ptr_equal(host, bytes);
	assert_ok(dmacore_memory_host_to_phys(machine->system, bytes, PAGE, &phys));
	assert_int_equal(phys, base);
	assert_ok(dmacore_memory_remove(machine->system, base, PAGE));
}

static void memory_add__takes_a_region_as_large_as_a_size_can_say(void **state)
{
	struct device_memory memory = { .calls = 0 };
	struct dmacore_memory_region region = callback_region(1, UINT64_MAX, &memory);
	struct dmacore_system *system;

	(void)state;
	assert_ok(dmacore_system_create(NULL, &system));
	assert_ok(dmacore_memory_add(system, &region));
	region = callback_region(0, 1, &memory);
	assert_ok(dmacore_memory_add(system, &region));
	region = callback_region(UINT64_MAX, 1, &memory);
	assert_fails(dmacore_memory_add(system, &region), EEXIST);
	assert_ok(dmacore_memory_remove(system, 1, UINT64_MAX));
	assert_ok(dmacore_memory_remove(system, 0, 1));
	dmacore_system_destroy(system);
}

static void memory_add__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_memory_region region = host_region(FREE_BASE, 1, machine);

	assert_fails(dmacore_memory_add(NULL, &region), EINVAL);
	assert_fails(dmacore_memory_add(machine->system, NULL), EINVAL);
}

static void memory_add__rejects_unknown_backings_and_flags(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE, bytes);
	const uint32_t backings[] = { 0, 4, UINT32_MAX };

	for (unsigned i = 0; i < 3; i++) {
		region.backing = backings[i];
		check_refused(machine, &region, EINVAL);
	}
	region.backing = DMACORE_MEMORY_HOST;
	for (unsigned bit = 1; bit < 32; bit++) {
		region.flags = UINT32_C(1) << bit;
		check_refused(machine, &region, EINVAL);
	}
}

static void memory_add__rejects_empty_and_wrapping_ranges(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct dmacore_memory_region region;

	region = host_region(FREE_BASE, 0, bytes);
	check_refused(machine, &region, EINVAL);
	region = host_region(UINT64_MAX, 2, bytes);
	check_refused(machine, &region, EINVAL);
	region = host_region(2, UINT64_MAX, bytes);
	check_refused(machine, &region, EINVAL);
	/* The bytes of the process wrap. */
	region = host_region(FREE_BASE, PAGE, (void *)(UINTPTR_MAX - 100));
	check_refused(machine, &region, EINVAL);
}

static void memory_add__rejects_a_backing_that_lacks_something(void **state)
{
	struct machine *machine = *state;
	struct device_memory memory = { .calls = 0 };
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE, NULL);

	check_refused(machine, &region, EINVAL);
	region = callback_region(FREE_BASE, PAGE, &memory);
	region.read = NULL;
	check_refused(machine, &region, EINVAL);
	region = callback_region(FREE_BASE, PAGE, &memory);
	region.write = NULL;
	check_refused(machine, &region, EINVAL);
	region.flags = DMACORE_MEMORY_READ_ONLY;
	assert_ok(dmacore_memory_add(machine->system, &region));
}

static void memory_add__checks_the_size_of_the_structure(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	LATER(struct dmacore_memory_region)
	region = { .known = host_region(FREE_BASE, PAGE, bytes), .unknown = 0 };

	region.known.struct_size = 0;
	check_refused(machine, &region.known, EINVAL);
	region.known.struct_size = sizeof(region.known) - 1;
	check_refused(machine, &region.known, EINVAL);
	region.known.struct_size = sizeof(region);
	region.unknown = 1;
	check_refused(machine, &region.known, E2BIG);
	region.known.struct_size = SIZE_MAX;
	check_refused(machine, &region.known, E2BIG);
	region.known.struct_size = sizeof(region);
	region.unknown = 0;
	assert_ok(dmacore_memory_add(machine->system, &region.known));
}

static void memory_add__refuses_overlap_and_changes_nothing(void **state)
{
	struct machine *machine = *state;
	static uint8_t there[4 * PAGE], other[8 * PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, sizeof(there), there);
	const struct {
		uint64_t base;
		uint64_t size;
	} overlaps[] = {
		{ FREE_BASE, sizeof(there) },	      { FREE_BASE - PAGE, PAGE + 1 },
		{ FREE_BASE + sizeof(there) - 1, 2 }, { FREE_BASE + PAGE, PAGE },
		{ FREE_BASE - PAGE, 6 * PAGE },
	};
	void *host;

	assert_ok(dmacore_memory_add(machine->system, &region));
	for (unsigned i = 0; i < sizeof(overlaps) / sizeof(*overlaps); i++) {
		region = host_region(overlaps[i].base, overlaps[i].size, other);
		assert_fails(dmacore_memory_add(machine->system, &region), EEXIST);
	}
	assert_ok(dmacore_memory_phys_to_host(machine->system, FREE_BASE, sizeof(there), &host));
	assert_ptr_equal(host, there);
	assert_fails(dmacore_memory_phys_to_host(machine->system, FREE_BASE - 1, 1, &host), EFAULT);
	assert_fails(
		dmacore_memory_phys_to_host(machine->system, FREE_BASE + sizeof(there), 1, &host),
		EFAULT);

	/* What adjoins on both sides does not overlap. */
	region = host_region(FREE_BASE - PAGE, PAGE, other);
	assert_ok(dmacore_memory_add(machine->system, &region));
	region = host_region(FREE_BASE + sizeof(there), PAGE, other + PAGE);
	assert_ok(dmacore_memory_add(machine->system, &region));
}

static void memory_add__refuses_the_same_bytes_twice(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[2 * PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE + 1, bytes);

	assert_ok(dmacore_memory_add(machine->system, &region));
	region = host_region(FREE_BASE + 16 * PAGE, PAGE, bytes + PAGE);
	check_refused(machine, &region, EEXIST);
	region.host = bytes + PAGE + 1;
	region.size = PAGE - 1;
	assert_ok(dmacore_memory_add(machine->system, &region));
}

static void memory_add__refuses_regions_on_a_flat_system(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE, bytes);

	assert_fails(dmacore_memory_add(machine->system, &region), EOPNOTSUPP);
	assert_fails(dmacore_memory_remove(machine->system, FREE_BASE, PAGE), ENOENT);
}

/* How often the files that make_file() makes are mapped in this process. */
static unsigned count_file_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	char line[512];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "/memfd:ram") != NULL;
	fclose(maps);
	return count;
}

static void memory_add__maps_a_file_shared(void **state)
{
	struct machine *machine = *state;
	int fd = make_file(4 * PAGE);
	struct dmacore_memory_region region = fd_region(FREE_BASE, 2 * PAGE, fd, PAGE);
	uint8_t *file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char buffer[8] = "";
	dmacore_phys_t phys;
	void *host;

	assert_true(file != MAP_FAILED);
	assert_ok(dmacore_memory_add(machine->system, &region));
	/* The library keeps no descriptor. */
	assert_ok(close(fd));

	memcpy(file + PAGE + 5, "in file", 8);
	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 5, buffer, 8));
	assert_string_equal(buffer, "in file");
	assert_ok(dmacore_view_write(machine->view, FREE_BASE + 2 * PAGE - 8, "by view", 8));
	assert_string_equal((char *)file + 3 * PAGE - 8, "by view");

	assert_ok(dmacore_memory_phys_to_host(machine->system, FREE_BASE, 2 * PAGE, &host));
	assert_string_equal((char *)host + 5, "in file");
	assert_ok(dmacore_memory_host_to_phys(machine->system, host, 2 * PAGE, &phys));
	assert_int_equal(phys, FREE_BASE);

	/* The mapping goes with the region; the other one is this test's. */
	assert_int_equal(count_file_mappings(), 2);
	assert_ok(dmacore_memory_remove(machine->system, FREE_BASE, 2 * PAGE));
	assert_int_equal(count_file_mappings(), 1);
	munmap(file, 4 * PAGE);
}

static void memory_add__maps_a_file_of_odd_length(void **state)
{
	struct machine *machine = *state;
	int fd = make_file(PAGE + 100);
	struct dmacore_memory_region region = fd_region(FREE_BASE, 100, fd, PAGE);
	uint8_t byte = 1;

	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 99, &byte, 1));
	assert_int_equal(byte, 0);
	assert_fails(dmacore_view_read(machine->view, FREE_BASE + 100, &byte, 1), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, FREE_BASE + 100, FREE_BASE + 100,
		       DMACORE_ACCESS_READ);
	close(fd);
}

static void memory_add__rejects_files_that_cannot_serve(void **state)
{
	struct machine *machine = *state;
	int fd = make_file(2 * PAGE);
	int event = eventfd(0, EFD_CLOEXEC);
	int closed = dup(fd);
	struct dmacore_memory_region region;

	assert_true(event >= 0 && closed >= 0);
	close(closed);

	region = fd_region(FREE_BASE, PAGE, closed, 0);
	check_refused(machine, &region, EBADF);
	region = fd_region(FREE_BASE, PAGE, event, 0);
	check_refused(machine, &region, ENODEV);
	region = fd_region(FREE_BASE, PAGE, fd, 1);
	check_refused(machine, &region, EINVAL);
	region = fd_region(FREE_BASE, PAGE, fd, PAGE / 2);
	check_refused(machine, &region, EINVAL);
	/* Too short, by one byte, by all, and by far. */
	region = fd_region(FREE_BASE, 2 * PAGE + 1, fd, 0);
	check_refused(machine, &region, ENODEV);
	region = fd_region(FREE_BASE, PAGE, fd, 2 * PAGE);
	check_refused(machine, &region, ENODEV);
	region = fd_region(FREE_BASE, UINT64_C(1) << 62, fd, 0);
	check_refused(machine, &region, ENODEV);
	/* No file has such an offset. */
	region = fd_region(FREE_BASE, 2 * PAGE, fd, UINT64_MAX - PAGE + 1);
	check_refused(machine, &region, EINVAL);

	region = fd_region(FREE_BASE, 2 * PAGE, fd, 0);
	assert_ok(dmacore_memory_add(machine->system, &region));
	close(event);
	close(fd);
}

static void memory_add__needs_the_rights_that_a_region_grants(void **state)
{
	struct machine *machine = *state;
	int fd = make_file(PAGE);
	int read_only = reopen(fd, O_RDONLY);
	int write_only = reopen(fd, O_WRONLY);
	struct dmacore_memory_region region;
	uint8_t byte = 1;

	region = fd_region(FREE_BASE, PAGE, read_only, 0);
	check_refused(machine, &region, EACCES);
	region = fd_region(FREE_BASE, PAGE, write_only, 0);
	check_refused(machine, &region, EACCES);
	region.flags = DMACORE_MEMORY_READ_ONLY;
	check_refused(machine, &region, EACCES);

	region.fd = read_only;
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_view_read(machine->view, FREE_BASE, &byte, 1));
	assert_int_equal(byte, 0);
	close(read_only);
	close(write_only);
	close(fd);
}

/* A file that may not be written from here on, however it was opened. */
static void memory_add__needs_a_file_that_is_not_sealed_against_writing(void **state)
{
	struct machine *machine = *state;
	int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct dmacore_memory_region region = fd_region(FREE_BASE, PAGE, fd, 0);

	assert_true(fd >= 0);
	assert_ok(ftruncate(fd, PAGE));
	assert_ok(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	check_refused(machine, &region, EACCES);
	region.flags = DMACORE_MEMORY_READ_ONLY;
	assert_ok(dmacore_memory_add(machine->system, &region));
	close(fd);
}

static void memory_add__calls_back_for_each_access(void **state)
{
	struct machine *machine = *state;
	struct device_memory memory = { .calls = 0 };
	struct dmacore_memory_region region =
		callback_region(FREE_BASE, sizeof(memory.bytes), &memory);
	uint8_t buffer[2 * PAGE];

	assert_ok(dmacore_memory_add(machine->system, &region));
	fill(memory.bytes, sizeof(memory.bytes), 1);
	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 10, buffer, sizeof(buffer)));
	assert_memory_equal(buffer, memory.bytes + 10, sizeof(buffer));
	assert_int_equal(memory.first, 10);
	assert_int_equal(memory.end, 10 + sizeof(buffer));
	assert_int_equal(memory.gaps, 0);

	memory.calls = 0;
	fill(buffer, sizeof(buffer), 2);
	assert_ok(dmacore_view_write(machine->view, FREE_BASE + 2 * PAGE, buffer, sizeof(buffer)));
	assert_memory_equal(buffer, memory.bytes + 2 * PAGE, sizeof(buffer));
	assert_int_equal(memory.first, 2 * PAGE);
	assert_int_equal(memory.end, 4 * PAGE);
	assert_int_equal(memory.gaps, 0);
}

static void memory_add__passes_the_error_of_a_callback_on(void **state)
{
	struct machine *machine = *state;
	struct device_memory memory = { .error = -EIO };
	struct dmacore_memory_region region =
		callback_region(FREE_BASE, sizeof(memory.bytes), &memory);
	uint8_t byte = 0;

	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_fails(dmacore_view_read(machine->view, FREE_BASE, &byte, 1), EIO);
	memory.calls = 0;
	assert_fails(dmacore_view_write(machine->view, FREE_BASE, &byte, 1), EIO);
	/* The access was permitted; that it failed is no fault. machine_stop() looks. */
}

static void memory_add__read_only_regions_refuse_writes(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct device_memory memory = { .calls = 0 };
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE, bytes);
	struct dmacore_view_mapping *mapping;
	const struct dmacore_view_segment *segments;
	uint64_t behind = FREE_BASE + PAGE;
	size_t count;
	uint8_t byte = 9;

	region.flags = DMACORE_MEMORY_READ_ONLY;
	assert_ok(dmacore_memory_add(machine->system, &region));
	region = callback_region(behind, sizeof(memory.bytes), &memory);
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.write = NULL;
	assert_ok(dmacore_memory_add(machine->system, &region));

	assert_fails(dmacore_view_write(machine->view, FREE_BASE + 5, &byte, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, FREE_BASE + 5, FREE_BASE + 5,
		       DMACORE_ACCESS_WRITE);
	assert_int_equal(bytes[5], 0);
	assert_fails(dmacore_view_write(machine->view, behind, &byte, 1), EACCES);
	assert_faulted(machine, DMACORE_FAULT_DENIED, behind, behind, DMACORE_ACCESS_WRITE);
	assert_int_equal(memory.calls, 0);
	assert_creates_nothing(dmacore_view_map(machine->view, FREE_BASE, PAGE,
						DMACORE_ACCESS_WRITE, &mapping, &segments, &count),
			       EACCES, mapping);
	assert_faulted(machine, DMACORE_FAULT_DENIED, FREE_BASE, FREE_BASE + PAGE - 1,
		       DMACORE_ACCESS_WRITE);

	assert_ok(dmacore_view_read(machine->view, FREE_BASE + 5, &byte, 1));
	assert_int_equal(byte, 0);
	assert_ok(dmacore_view_read(machine->view, behind, &byte, 1));
	assert_ok(dmacore_view_map(machine->view, FREE_BASE, PAGE, DMACORE_ACCESS_READ, &mapping,
				   &segments, &count));
	assert_ptr_equal(segments[0].host, bytes);
	dmacore_view_unmap(mapping);
}

static void memory_remove__ends_access(void **state)
{
	struct machine *machine = *state;
	static uint8_t bytes[PAGE];
	struct dmacore_memory_region region = host_region(FREE_BASE, PAGE, bytes);
	dmacore_phys_t phys;
	void *host;
	uint8_t byte;

	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_memory_remove(machine->system, FREE_BASE, PAGE));
	assert_fails(dmacore_view_read(machine->view, FREE_BASE, &byte, 1), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, FREE_BASE, FREE_BASE, DMACORE_ACCESS_READ);
	assert_fails(dmacore_memory_phys_to_host(machine->system, FREE_BASE, 1, &host), EFAULT);
	assert_fails(dmacore_memory_host_to_phys(machine->system, bytes, 1, &phys), EFAULT);
	assert_fails(dmacore_memory_remove(machine->system, FREE_BASE, PAGE), ENOENT);
	/* Both addresses are free again. */
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_view_read(machine->view, FREE_BASE, &byte, 1));
}

static void memory_remove__leaves_mappings_that_fault(void **state)
{
	struct machine *machine = *state;
	dmacore_dma_t dma = map_for(machine, machine->high, 2 * PAGE, DMACORE_BIDIRECTIONAL);
	uint8_t buffer[16];

	assert_ok(dmacore_memory_remove(machine->system, HIGH_BASE, RAM_SIZE));
	assert_fails(dmacore_view_read(machine->view, dma + 8, buffer, 16), EFAULT);
	assert_faulted(machine, DMACORE_FAULT_NO_MEMORY, dma + 8, dma + 23, DMACORE_ACCESS_READ);
	add_host_region(machine->system, HIGH_BASE, RAM_SIZE, machine->high, 0);
	assert_ok(dmacore_view_read(machine->view, dma + 8, buffer, 16));
	assert_ok(dmacore_unmap(machine->device, dma, 2 * PAGE, DMACORE_BIDIRECTIONAL, 0));
}

static void memory_remove__rejects_null_and_zero(void **state)
{
	struct machine *machine = *state;

	assert_fails(dmacore_memory_remove(NULL, LOW_BASE, RAM_SIZE), EINVAL);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, 0), EINVAL);
}

static void memory_remove__wants_exactly_a_region(void **state)
{
	struct machine *machine = *state;
	void *host;

	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE - 1), ENOENT);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE + 1, RAM_SIZE - 1), ENOENT);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, 2 * RAM_SIZE), ENOENT);
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE - 1, RAM_SIZE), ENOENT);
	assert_fails(dmacore_memory_remove(machine->system, UINT64_MAX, UINT64_MAX), ENOENT);
	assert_ok(dmacore_memory_phys_to_host(machine->system, LOW_BASE, 2, &host));
	assert_ok(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE));
}

static void memory_remove__waits_for_zero_copy_mappings(void **state)
{
	struct machine *machine = *state;
	struct dmacore_view_mapping *mapping, *second;
	const struct dmacore_view_segment *segments;
	size_t count;

	/* The first holds two regions, the second one of them. */
	assert_ok(dmacore_view_map(machine->view, NEXT_BASE - PAGE, 2 * PAGE, DMACORE_ACCESS_READ,
				   &mapping, &segments, &count));
	assert_int_equal(count, 2);
	assert_ok(dmacore_view_map(machine->view, NEXT_BASE, 1, DMACORE_ACCESS_READ, &second,
				   &segments, &count));
	assert_fails(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE), EBUSY);
	assert_fails(dmacore_memory_remove(machine->system, NEXT_BASE, RAM_SIZE), EBUSY);
	assert_ok(dmacore_memory_remove(machine->system, HIGH_BASE, RAM_SIZE));

	dmacore_view_unmap(mapping);
	assert_ok(dmacore_memory_remove(machine->system, LOW_BASE, RAM_SIZE));
	assert_fails(dmacore_memory_remove(machine->system, NEXT_BASE, RAM_SIZE), EBUSY);
	dmacore_view_unmap(second);
	assert_ok(dmacore_memory_remove(machine->system, NEXT_BASE, RAM_SIZE));
}

static int remove_own_region(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	struct device_memory *memory = opaque;

	(void)offset;
	memset(buffer, 0, size);
	memory->removed = dmacore_memory_remove(memory->machine->system, FREE_BASE, PAGE);
	return 0;
}

static void memory_remove__is_refused_inside_the_region_itself(void **state)
{
	struct machine *machine = *state;
	struct device_memory memory = { .machine = machine };
	struct dmacore_memory_region region = callback_region(FREE_BASE, PAGE, &memory);
	uint8_t byte;

	region.read = remove_own_region;
	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_ok(dmacore_view_read(machine->view, FREE_BASE, &byte, 1));
	assert_int_equal(memory.removed, -EBUSY);
	assert_ok(dmacore_memory_remove(machine->system, FREE_BASE, PAGE));
}

static void memory_phys_to_host__finds_the_byte(void **state)
{
	struct machine *machine = *state;
	void *host;

	assert_ok(dmacore_memory_phys_to_host(machine->system, LOW_BASE, RAM_SIZE, &host));
	assert_ptr_equal(host, machine->low);
	assert_ok(dmacore_memory_phys_to_host(machine->system, NEXT_BASE + 5, 1, &host));
	assert_ptr_equal(host, machine->next + 5);
	assert_ok(dmacore_memory_phys_to_host(machine->system, HIGH_BASE + RAM_SIZE - 1, 1, &host));
	assert_ptr_equal(host, machine->high + RAM_SIZE - 1);
}

static void memory_phys_to_host__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	void *host;

	assert_fails_untouched(dmacore_memory_phys_to_host(NULL, LOW_BASE, 1, &host), EINVAL, host);
	assert_fails(dmacore_memory_phys_to_host(machine->system, LOW_BASE, 1, NULL), EINVAL);
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, LOW_BASE, 0, &host),
			       EINVAL, host);
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, UINT64_MAX, 2, &host),
			       EINVAL, host);
	assert_fails_untouched(
		dmacore_memory_phys_to_host(machine->system, LOW_BASE, UINT64_MAX, &host), EINVAL,
		host);
}

static void memory_phys_to_host__wants_one_region(void **state)
{
	struct machine *machine = *state;
	void *host;

	/* Before, behind, across the end, and across two regions that adjoin. */
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, LOW_BASE - 1, 1, &host),
			       EFAULT, host);
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, LOW_BASE - 1, 2, &host),
			       EFAULT, host);
	assert_fails_untouched(
		dmacore_memory_phys_to_host(machine->system, NEXT_BASE + RAM_SIZE, 1, &host),
		EFAULT, host);
	assert_fails_untouched(
		dmacore_memory_phys_to_host(machine->system, NEXT_BASE + RAM_SIZE - 1, 2, &host),
		EFAULT, host);
	assert_fails_untouched(
		dmacore_memory_phys_to_host(machine->system, NEXT_BASE - 1, 2, &host), EFAULT,
		host);
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, UINT64_MAX, 1, &host),
			       EFAULT, host);
}

static void memory_phys_to_host__has_no_address_behind_callbacks(void **state)
{
	struct machine *machine = *state;
	struct device_memory memory = { .calls = 0 };
	struct dmacore_memory_region region = callback_region(FREE_BASE, PAGE, &memory);
	void *host;

	assert_ok(dmacore_memory_add(machine->system, &region));
	assert_fails_untouched(dmacore_memory_phys_to_host(machine->system, FREE_BASE, 1, &host),
			       EOPNOTSUPP, host);
}

static void memory_phys_to_host__is_the_identity_on_a_flat_system(void **state)
{
	struct machine *machine = *state;
	dmacore_phys_t phys;
	void *host;

	assert_ok(dmacore_memory_phys_to_host(machine->system, (uintptr_t)machine->low, RAM_SIZE,
					      &host));
	assert_ptr_equal(host, machine->low);
	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, RAM_SIZE, &phys));
	assert_int_equal(phys, (uintptr_t)machine->low);
	assert_fails(dmacore_memory_phys_to_host(machine->system, UINT64_MAX, 2, &host), EINVAL);
	assert_fails(dmacore_memory_host_to_phys(machine->system, machine->low, 0, &phys), EINVAL);
}

static void memory_host_to_phys__finds_the_address(void **state)
{
	struct machine *machine = *state;
	dmacore_phys_t phys;

	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->low, RAM_SIZE, &phys));
	assert_int_equal(phys, LOW_BASE);
	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->next + 5, 1, &phys));
	assert_int_equal(phys, NEXT_BASE + 5);
	assert_ok(dmacore_memory_host_to_phys(machine->system, machine->high + RAM_SIZE - 1, 1,
					      &phys));
	assert_int_equal(phys, HIGH_BASE + RAM_SIZE - 1);
}

static void memory_host_to_phys__rejects_bad_arguments(void **state)
{
	struct machine *machine = *state;
	uint8_t *low = machine->low;
	dmacore_phys_t phys;

	assert_fails_untouched(dmacore_memory_host_to_phys(NULL, low, 1, &phys), EINVAL, phys);
	assert_fails_untouched(dmacore_memory_host_to_phys(machine->system, NULL, 1, &phys), EINVAL,
			       phys);
	assert_fails(dmacore_memory_host_to_phys(machine->system, low, 1, NULL), EINVAL);
	assert_fails_untouched(dmacore_memory_host_to_phys(machine->system, low, 0, &phys), EINVAL,
			       phys);
	assert_fails_untouched(dmacore_memory_host_to_phys(machine->system, low, UINT64_MAX, &phys),
			       EINVAL, phys);
}

static void memory_host_to_phys__wants_one_region(void **state)
{
	struct machine *machine = *state;
	uint8_t *low = machine->low;
	dmacore_phys_t phys;

	assert_fails_untouched(dmacore_memory_host_to_phys(machine->system, low - 1, 2, &phys),
			       EFAULT, phys);
	assert_fails_untouched(
		dmacore_memory_host_to_phys(machine->system, low + RAM_SIZE - 1, 2, &phys), EFAULT,
		phys);
	assert_fails_untouched(dmacore_memory_host_to_phys(machine->system, &phys, 1, &phys),
			       EFAULT, phys);
}

/* The order of adding and removing must not matter to what is found. */
static void memory_add__keeps_many_regions_apart(void **state)
{
	struct machine *machine = *state;
	enum { COUNT = 64 };
	static uint8_t bytes[COUNT][64];
	uint64_t seed = 1;
	bool there[COUNT] = { false };

	for (unsigned step = 0; step < 2000; step++) {
		unsigned i = random_next(&seed) % COUNT;
		uint64_t base = FREE_BASE + i * 64;
		unsigned probe = random_next(&seed) % COUNT;
		void *host = NULL;

		if (there[i]) {
			assert_ok(dmacore_memory_remove(machine->system, base, 64));
		} else {
			add_host_region(machine->system, base, 64, bytes[i], 0);
		}
		there[i] = !there[i];
		assert_result(dmacore_memory_phys_to_host(machine->system, FREE_BASE + probe * 64,
							  64, &host),
			      there[probe] ? 0 : -EFAULT);
		assert_ptr_equal(host, there[probe] ? bytes[probe] : NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, memory_add__makes_memory_that_both_sides_see),
		test_on(DIRECT, memory_add__takes_a_region_of_one_byte),
		test_on(DIRECT, memory_add__takes_a_region_that_ends_the_space),
		cmocka_unit_test(memory_add__takes_a_region_as_large_as_a_size_can_say),
		test_on(DIRECT, memory_add__rejects_null),
		test_on(DIRECT, memory_add__rejects_unknown_backings_and_flags),
		test_on(DIRECT, memory_add__rejects_empty_and_wrapping_ranges),
		test_on(DIRECT, memory_add__rejects_a_backing_that_lacks_something),
		test_on(DIRECT, memory_add__checks_the_size_of_the_structure),
		test_on(DIRECT, memory_add__refuses_overlap_and_changes_nothing),
		test_on(DIRECT, memory_add__refuses_the_same_bytes_twice),
		test_on(FLAT, memory_add__refuses_regions_on_a_flat_system),
		test_on(DIRECT, memory_add__maps_a_file_shared),
		test_on(DIRECT, memory_add__maps_a_file_of_odd_length),
		test_on(DIRECT, memory_add__rejects_files_that_cannot_serve),
		test_on(DIRECT, memory_add__needs_the_rights_that_a_region_grants),
		test_on(DIRECT, memory_add__needs_a_file_that_is_not_sealed_against_writing),
		test_on(DIRECT, memory_add__calls_back_for_each_access),
		test_on(DIRECT, memory_add__passes_the_error_of_a_callback_on),
		test_on(DIRECT, memory_add__read_only_regions_refuse_writes),
		test_on(DIRECT, memory_add__keeps_many_regions_apart),
		test_on(DIRECT, memory_remove__ends_access),
		test_on(TRACKED, memory_remove__leaves_mappings_that_fault),
		test_on_translated(memory_remove__leaves_mappings_that_fault),
		test_on(DIRECT, memory_remove__rejects_null_and_zero),
		test_on(DIRECT, memory_remove__wants_exactly_a_region),
		test_on(DIRECT, memory_remove__waits_for_zero_copy_mappings),
		test_on(DIRECT, memory_remove__is_refused_inside_the_region_itself),
		test_on(DIRECT, memory_phys_to_host__finds_the_byte),
		test_on(DIRECT, memory_phys_to_host__rejects_bad_arguments),
		test_on(DIRECT, memory_phys_to_host__wants_one_region),
		test_on(DIRECT, memory_phys_to_host__has_no_address_behind_callbacks),
		test_on(FLAT, memory_phys_to_host__is_the_identity_on_a_flat_system),
		test_on(DIRECT, memory_host_to_phys__finds_the_address),
		test_on(DIRECT, memory_host_to_phys__rejects_bad_arguments),
		test_on(DIRECT, memory_host_to_phys__wants_one_region),
	};

	return run_group("memory", tests);
}
