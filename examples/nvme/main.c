/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One driver of an NVMe controller, whatever the memory of a request is and however the controller reaches it.
 * Blocks are written and read back, by PRPs and by SGLs, and each byte is checked on both sides. Then the
 * controller is given commands that are malformed. The exit status is 0 only if all of that held.
 */

#include "malformed.h"

#include <errno.h>
#include <sys/uio.h>

#define RANGES_MAX NVME_PAGES_MAX
/* Where in the namespace the data goes, so that there is something in front of it too. */
#define BLOCK 8

/* What a trial may expect instead of a number of entries. */
#define IMPOSSIBLE 0
#define TOO_MANY UINT32_MAX

/* How memory can be described. */
struct expected {
	unsigned int entry_count; /* or IMPOSSIBLE, or TOO_MANY */
	unsigned int page_count;
};

/* The memory of a request. */
struct memory {
	struct dmacore_phys_range ranges[RANGES_MAX];
	size_t count;
	uint64_t size;
};

static bool all_hold = true;

static void add(struct memory *memory, dmacore_phys_t phys, uint64_t size)
{
	memory->ranges[memory->count++] = (struct dmacore_phys_range){ phys, size, 0, 0 };
	memory->size += size;
}

/* Pages from the last to the first, with a page between them: none go on where another ends. */
static void scatter(struct memory *memory, dmacore_phys_t bank, unsigned int count)
{
	while (count > 0)
		add(memory, bank + (uint64_t)--count * 2 * NVME_PAGE_SIZE, NVME_PAGE_SIZE);
}

/* Pieces of 1.5 KiB in the middle of pages. */
static void scatter_pieces(struct memory *memory, dmacore_phys_t bank, unsigned int count)
{
	while (count > 0)
		add(memory, bank + (uint64_t)--count * 2 * NVME_PAGE_SIZE + 1000, 1536);
}

/* The bytes of a request are those of the namespace from BLOCK on: copies them where they are expected. */
static void expect_on_the_other_side(struct machine *machine, const struct memory *memory,
				     enum nvme_opcode opcode)
{
	uint8_t *bytes = machine->namespace.expected + BLOCK * NVME_BLOCK_SIZE;

	for (size_t i = 0; i < memory->count; bytes += memory->ranges[i++].size) {
		uint8_t *there = machine_expected_at(machine, memory->ranges[i].phys);

		if (opcode == NVME_WRITE)
			memcpy(bytes, there, memory->ranges[i].size);
		else
			memcpy(there, bytes, memory->ranges[i].size);
	}
}

/* Puts other bytes where the data comes from, on that side alone. */
static void renew(struct machine *machine, const struct memory *memory, enum nvme_opcode opcode)
{
	static uint32_t seed = 1;
	uint8_t *now = machine->namespace.now + BLOCK * NVME_BLOCK_SIZE;
	uint8_t *expected = machine->namespace.expected + BLOCK * NVME_BLOCK_SIZE;

	for (size_t i = 0; i < memory->count; i++) {
		uint64_t size = memory->ranges[i].size;

		if (opcode == NVME_WRITE) {
			now = machine_at(machine, memory->ranges[i].phys);
			expected = machine_expected_at(machine, memory->ranges[i].phys);
		}
		for (uint64_t j = 0; j < size; j++) {
			seed = seed * 1664525 + 1013904223;
			now[j] = expected[j] = seed >> 24;
		}
		now += size;
		expected += size;
	}
}

/* Moves the request's data one way and checks all there is. Returns what the driver did. */
static int move(struct setup *setup, const struct memory *memory,
		const struct dmacore_transfer_request *request, enum nvme_opcode opcode,
		uint32_t formats, struct description *description)
{
	int error;

	renew(setup->machine, memory, opcode);
	error = driver_transfer(setup->driver, opcode, BLOCK, request, formats, description);
	if (!error)
		expect_on_the_other_side(setup->machine, memory, opcode);
	if (!machine_is_as_expected(setup->machine)) {
		printf("  bytes are WRONG\n");
		all_hold = false;
	}
	return error;
}

/* By one format, in both directions. Prints in how many entries, and pages of lists. */
static void try_format(struct setup *setup, const struct memory *memory,
		       const struct dmacore_transfer_request *request, uint32_t format,
		       const struct expected *expected)
{
	int wanted_error = expected->entry_count == IMPOSSIBLE ? -EOPNOTSUPP :
			   expected->entry_count == TOO_MANY   ? -E2BIG :
								 0;
	enum nvme_psdt psdt = format == DRIVER_PRPS ? NVME_PSDT_PRPS : NVME_PSDT_SGL;
	const enum nvme_opcode opcodes[] = { NVME_WRITE, NVME_READ };
	struct description description = { 0 };
	char text[32] = "-";
	bool holds = true;

	for (unsigned int i = 0; i < 2; i++) {
		int error = move(setup, memory, request, opcodes[i], format, &description);

		holds &= error == wanted_error;
		holds &= error || (description.psdt == psdt &&
				   description.entry_count == expected->entry_count &&
				   description.page_count == expected->page_count);
		if (error == -E2BIG)
			snprintf(text, sizeof(text), "too many");
		else if (error && error != -EOPNOTSUPP)
			snprintf(text, sizeof(text), "%s", strerror(-error));
	}
	if (description.page_count > 0)
		snprintf(text, sizeof(text), "%u (+%u)", description.entry_count,
			 description.page_count);
	else if (description.entry_count > 0)
		snprintf(text, sizeof(text), "%u", description.entry_count);
	printf(format == DRIVER_PRPS ? " %-10s" : " %s", text);
	if (!holds)
		printf(" WRONG");
	all_hold &= holds;
}

static void try_request(struct setup *setup, const char *what, const struct memory *memory,
			const struct dmacore_transfer_request *request, struct expected prps,
			struct expected sgls)
{
	struct expected either = prps.entry_count == IMPOSSIBLE ? sgls : prps;
	struct description description;
	int error;

	printf("  %-38s %6.1f KiB %6zu ", what, memory->size / 1024., memory->count);
	try_format(setup, memory, request, DRIVER_PRPS, &prps);
	try_format(setup, memory, request, DRIVER_SGLS, &sgls);
	printf("\n");

	/* The driver finds out by itself what is possible. */
	error = move(setup, memory, request, NVME_READ, DRIVER_PRPS | DRIVER_SGLS, &description);
	if (error || description.entry_count != either.entry_count) {
		printf("    %s\n", error ? strerror(-error) : "described WRONG");
		all_hold = false;
	}
}

static void try(struct setup *setup, const char *what, struct memory *memory, struct expected prps,
		struct expected sgls)
{
	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;

	request.ranges = memory->ranges;
	request.count = memory->count;
	try_request(setup, what, memory, &request, prps, sgls);
	*memory = (struct memory){ .count = 0 };
}

/* The buffers of a program, as readv() and writev() have them. */
struct vector {
	struct dmacore_system *system;
	const struct iovec *buffers;
	size_t count;
};

static bool next_buffer(uint64_t cursor[2], struct dmacore_phys_range *range, void *opaque)
{
	const struct vector *vector = opaque;
	const struct iovec *buffer = &vector->buffers[cursor[0]];

	if (cursor[0] == vector->count)
		return false;
	*range = (struct dmacore_phys_range){ .size = buffer->iov_len };
	if (buffer->iov_len > 0)
		MUST(dmacore_memory_host_to_phys(vector->system, buffer->iov_base, buffer->iov_len,
						 &range->phys));
	cursor[0]++;
	return true;
}

/* The same memory, which a callback yields, with an empty buffer in between. */
static void try_vector(struct setup *setup, const char *what, struct memory *memory,
		       struct expected prps, struct expected sgls)
{
	static struct iovec buffers[RANGES_MAX + 1];
	struct vector vector = { setup->machine->system, buffers, 0 };
	struct dmacore_transfer_request request = DMACORE_TRANSFER_REQUEST_INIT;

	for (size_t i = 0; i < memory->count; i++) {
		if (i == 1)
			buffers[vector.count++] = (struct iovec){ NULL, 0 };
		buffers[vector.count++] =
			(struct iovec){ machine_at(setup->machine, memory->ranges[i].phys),
					memory->ranges[i].size };
	}
	request.next = next_buffer;
	request.opaque = &vector;
	try_request(setup, what, memory, &request, prps, sgls);
	*memory = (struct memory){ .count = 0 };
}

static struct expected in(unsigned int entry_count, unsigned int page_count)
{
	return (struct expected){ entry_count, page_count };
}

static void end(struct setup *setup)
{
	if (!setup_destroy(setup)) {
		printf("  something is LEFT, or an access was refused\n");
		all_hold = false;
	}
}

static void map_directly(struct machine *machine, struct memory *memory)
{
	struct setup setup;

	printf("Mapped directly\n");
	setup_create(&setup, machine, false, 64, 0);
	add(memory, BANK_LOW, NVME_PAGE_SIZE);
	try(&setup, "a page", memory, in(1, 0), in(1, 0));
	add(memory, BANK_LOW + 3072, 2048);
	try(&setup, "across the end of a page", memory, in(2, 0), in(1, 0));
	add(memory, BANK_HIGH + 512, 65536);
	try(&setup, "64 KiB from within a page", memory, in(17, 1), in(1, 0));
	scatter(memory, BANK_LOW, 2);
	try(&setup, "2 scattered pages", memory, in(2, 0), in(2, 1));
	scatter(memory, BANK_HIGH, 3);
	try(&setup, "3 scattered pages", memory, in(3, 1), in(3, 1));
	scatter(memory, BANK_HIGH, 32);
	try(&setup, "32 scattered pages", memory, in(32, 1), in(32, 1));
	scatter(memory, BANK_LOW, 256);
	try(&setup, "256: an SGL fills a page", memory, in(256, 1), in(256, 1));
	scatter(memory, BANK_LOW, 257);
	try(&setup, "257: it has to be chained", memory, in(257, 1), in(257, 2));
	scatter(memory, BANK_HIGH, 513);
	try(&setup, "513: a PRP list fills a page", memory, in(513, 1), in(TOO_MANY, 0));
	scatter(memory, BANK_HIGH, 514);
	try(&setup, "514: it has to be chained", memory, in(514, 2), in(TOO_MANY, 0));
	scatter(memory, BANK_LOW, NVME_PAGES_MAX);
	try(&setup, "the most pages, scattered", memory, in(NVME_PAGES_MAX, 2), in(TOO_MANY, 0));
	add(memory, BANK_LOW + 1024, (uint64_t)NVME_PAGES_MAX * NVME_PAGE_SIZE);
	try(&setup, "the most data, from within a page", memory, in(NVME_PAGES_MAX + 1, 3),
	    in(1, 0));
	add(memory, BANK_LOW + 1001, 1024);
	try(&setup, "from an odd address", memory, in(IMPOSSIBLE, 0), in(1, 0));
	scatter_pieces(memory, BANK_LOW, 512);
	try(&setup, "pieces of pages", memory, in(IMPOSSIBLE, 0), in(512, 3));
	scatter(memory, BANK_HIGH, 32);
	try_vector(&setup, "32 scattered pages of an iovec", memory, in(32, 1), in(32, 1));
	end(&setup);
}

static void map_by_iommu(struct machine *machine, struct memory *memory)
{
	struct setup setup;

	printf("Behind an IOMMU, with 32 bits of address\n");
	setup_create(&setup, machine, true, 32, 0);
	scatter(memory, BANK_HIGH, 32);
	try(&setup, "32 scattered pages", memory, in(32, 1), in(1, 0));
	scatter(memory, BANK_HIGH, NVME_PAGES_MAX);
	try(&setup, "the most pages, scattered", memory, in(NVME_PAGES_MAX, 2), in(1, 0));
	add(memory, BANK_LOW + 2560, 1536);
	scatter(memory, BANK_HIGH, 30);
	add(memory, BANK_LOW + 2 * NVME_PAGE_SIZE, 512);
	try(&setup, "from within a page to within one", memory, in(32, 1), in(1, 0));
	scatter_pieces(memory, BANK_LOW, 16);
	try(&setup, "pieces of pages", memory, in(IMPOSSIBLE, 0), in(16, 1));
	scatter(memory, BANK_HIGH, 32);
	try_vector(&setup, "32 scattered pages of an iovec", memory, in(32, 1), in(1, 0));
	scatter_pieces(memory, BANK_HIGH, 16);
	try_vector(&setup, "pieces of pages of an iovec", memory, in(IMPOSSIBLE, 0), in(16, 1));
	end(&setup);
}

static void bounce(struct machine *machine, struct memory *memory)
{
	struct setup setup;

	printf("With 32 bits of address and no IOMMU: memory above them is bounced\n");
	setup_create(&setup, machine, false, 32, 0);
	add(memory, BANK_HIGH + 3072, 2048);
	try(&setup, "across the end of a page", memory, in(2, 0), in(1, 0));
	add(memory, BANK_HIGH + 512, 65536);
	try(&setup, "64 KiB from within a page", memory, in(17, 1), in(1, 0));
	scatter(memory, BANK_HIGH, 32);
	try(&setup, "32 scattered pages", memory, in(32, 1), in(32, 1));
	scatter(memory, BANK_HIGH, 16);
	scatter(memory, BANK_LOW, 16);
	try(&setup, "half of them in reach", memory, in(32, 1), in(32, 1));
	scatter_pieces(memory, BANK_HIGH, 16);
	try(&setup, "pieces of pages", memory, in(IMPOSSIBLE, 0), in(16, 1));
	end(&setup);
}

static void distrust(struct machine *machine, struct memory *memory)
{
	struct setup setup;

	printf("Behind an IOMMU, not trusted: pages that are not whole are bounced\n");
	setup_create(&setup, machine, true, 32, DMACORE_DEVICE_UNTRUSTED);
	scatter(memory, BANK_HIGH, 32);
	try(&setup, "32 scattered pages", memory, in(32, 1), in(1, 0));
	add(memory, BANK_LOW + 2560, 1536);
	scatter(memory, BANK_HIGH, 30);
	add(memory, BANK_LOW + 2 * NVME_PAGE_SIZE, 512);
	try(&setup, "from within a page to within one", memory, in(32, 1), in(1, 0));
	scatter_pieces(memory, BANK_LOW, 16);
	try(&setup, "pieces of pages", memory, in(IMPOSSIBLE, 0), in(16, 1));
	end(&setup);
}

int main(void)
{
	static struct machine machine;
	static struct memory memory;

	machine_create(&machine);
	printf("nvme: data is written and read back        size ranges  PRPs       SGL\n");
	map_directly(&machine, &memory);
	map_by_iommu(&machine, &memory);
	bounce(&machine, &memory);
	distrust(&machine, &memory);
	printf("(+n): lists take n pages beside the command. -: PRPs cannot say it.\n");
	if (all_hold)
		printf("Each byte was where it must be, on both sides, and no other was touched.\n");
	all_hold &= malformed_try_all(&machine);
	machine_destroy(&machine);
	return all_hold ? 0 : 1;
}
