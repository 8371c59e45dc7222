/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Walks of tables that a hostile guest makes. The input says what the tables are to be, and then what
 * each read finds, one word after another, whatever was found at the address before: tables that
 * change as fast as they are walked. A walk must end, read no more than it may, and give a
 * translation or a fault that makes sense. VT-d's second stage alone is walked a second time, by
 * the rules of the specification, in the words that the library has read.
 */

#include <dmacore/pagetable.h>

#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LEVELS_MAX 6
#define READS_MAX ((LEVELS_MAX + 1) * (LEVELS_MAX + 1) - 1)
#define TRANSFERS (DMACORE_ACCESS_READ | DMACORE_ACCESS_WRITE | DMACORE_ACCESS_EXECUTE)

struct read {
	uint64_t phys;
	uint64_t word;
	int error;
};

struct memory {
	struct program *program;
	unsigned int count;
	struct read reads[READS_MAX];
};

/* Mostly an address and some flags, so that walks go on. */
static uint64_t take_word(struct program *program)
{
	uint8_t how = take8(program);
	uint64_t word = take16(program) & 0xfff;

	switch (how >> 6) {
	case 0:
		return take_number(program);
	case 1:
		/* Flags at the top, as AMD and ARM have them. */
		word |= (uint64_t)take8(program) << 56;
		break;
	default:
		break;
	}
	word |= (uint64_t)(how & 15) << 12 | (uint64_t)take8(program) << (how & 48);
	return word;
}

static int read_word(dmacore_phys_t phys, uint64_t *out_word, void *opaque)
{
	struct memory *memory = opaque;
	struct read *read = &memory->reads[memory->count];

	CHECK(memory->count < READS_MAX);
	CHECK(phys % 8 == 0);
	memory->count++;
	read->phys = phys;
	read->word = take_word(memory->program);
	read->error = (read->word & 0xfff) == 0xfff ? (int)(read->word >> 12) | 1 : 0;
	*out_word = read->word;
	fuzz_trace("\tread(%#" PRIx64 ") = %#" PRIx64 ", %d", phys, read->word, read->error);
	return read->error;
}

static struct dmacore_walk_options take_options(struct program *program, struct memory *memory)
{
	struct dmacore_walk_options options = DMACORE_WALK_OPTIONS_INIT;
	uint8_t how = take8(program), widths = take8(program);

	options.format = how & 7;
	options.levels = how >> 3 & 7;
	options.granule = (how & 0xc0) == 0 ? 0 : 1u << (10 + 2 * (how >> 6));
	options.features = widths & 31;
	if ((widths & 32) != 0)
		options.input_bits = take8(program);
	if ((widths & 64) != 0)
		options.output_bits = take8(program);
	options.root = (widths & 128) != 0 ? take_number(program) : (uint64_t)take8(program) << 20;
	options.read = read_word;
	options.opaque = memory;
	fuzz_trace(
		"format %u, levels %u, granule %u, features %u, widths %u and %u, root %#" PRIx64,
		options.format, options.levels, options.granule, options.features,
		options.input_bits, options.output_bits, options.root);
	return options;
}

/* No format has more than 4 levels unless it is asked for them. */
static unsigned int levels_of(const struct dmacore_walk_options *options)
{
	return options->levels == 0 ? 4 : options->levels;
}

/*
 * VT-d 5.0, section 9.8, second-stage paging entries: bits 0 and 1 are read and write permission,
 * combined over all levels, neither: not present; bits from the host address width to 51 are reserved;
 * bit 7 at the levels of 2 MiB and 1 GiB: a leaf, reserved above; bits 51 to 12: the address.
 */
static void check_vtd(const struct dmacore_walk_options *options, const struct memory *memory,
		      uint64_t iova, uint32_t access, bool is_found,
		      const struct dmacore_translation *found,
		      const struct dmacore_walk_fault *fault)
{
	const uint64_t address_bits = ((UINT64_C(1) << 52) - 1) & ~UINT64_C(0xfff);
	uint64_t output_mask =
		DMACORE_BIT_MASK(options->output_bits == 0 ? 52 : options->output_bits);
	unsigned int levels = levels_of(options), level = levels;
	uint64_t table = options->root;
	uint32_t permitted = 3, reason = 0;

	if (iova > DMACORE_BIT_MASK(12 + 9 * levels)) {
		reason = DMACORE_WALK_FAULT_INPUT_WIDTH;
	} else if (table > output_mask) {
		reason = DMACORE_WALK_FAULT_OUTPUT_WIDTH;
	}
	for (unsigned int i = 0; reason == 0; i++) {
		unsigned int shift = 12 + 9 * --level;
		const struct read *read = &memory->reads[i];
		uint64_t word = read->word, inside = DMACORE_BIT_MASK(shift);

		CHECK(i < memory->count);
		CHECK(read->phys == table + 8 * (iova >> shift & 511));
		permitted &= word;
		table = word & address_bits;
		if (read->error != 0) {
			reason = DMACORE_WALK_FAULT_TABLE_READ;
		} else if ((word & 3) == 0) {
			reason = DMACORE_WALK_FAULT_NOT_PRESENT;
		} else if ((table & ~output_mask) != 0) {
			reason = DMACORE_WALK_FAULT_RESERVED;
		} else if (level == 0 || (word & 0x80) != 0) {
			if (level > 2 || (table & inside) != 0) {
				reason = DMACORE_WALK_FAULT_RESERVED;
			} else if (permitted == 0 || (access & TRANSFERS & ~permitted) != 0) {
				reason = DMACORE_WALK_FAULT_DENIED;
			} else {
				CHECK(is_found);
				CHECK(found->first == (iova & ~inside));
				CHECK(found->last == (iova | inside));
				CHECK(found->target == table);
				CHECK((found->access & 3) == permitted);
				CHECK(memory->count == i + 1);
				return;
			}
		}
		if (reason != 0) {
			CHECK(fault->word == read->phys);
			CHECK(fault->level == level);
			CHECK(memory->count == i + 1);
		}
	}
	CHECK(!is_found);
	CHECK(fault->reason == reason);
}

static void check_found(const struct dmacore_translation *found, uint64_t iova, uint32_t access)
{
	CHECK(found->first <= iova && iova <= found->last);
	CHECK((found->first & 0xfff) == 0 && (found->last & 0xfff) == 0xfff);
	CHECK((found->target & 0xfff) == 0);
	CHECK(found->target + (found->last - found->first) < UINT64_C(1) << 57);
	CHECK((found->access & TRANSFERS) != 0);
	CHECK((access & TRANSFERS & ~found->access) == 0);
	CHECK(found->access <= 63 && found->reserved == 0);
}

static void check_fault(const struct dmacore_walk_fault *fault, const struct memory *memory,
			uint64_t iova, bool has_second)
{
	int error = memory->count == 0 ? 0 : memory->reads[memory->count - 1].error;

	CHECK(fault->reason >= DMACORE_WALK_FAULT_NOT_PRESENT);
	CHECK(fault->reason <= DMACORE_WALK_FAULT_TABLE_READ);
	CHECK(fault->stage == 1 || (fault->stage == 2 && has_second));
	CHECK(fault->level < LEVELS_MAX);
	CHECK(fault->word % 8 == 0);
	CHECK(fault->error == error);
	CHECK((fault->reason == DMACORE_WALK_FAULT_TABLE_READ) == (error != 0));
	CHECK(fault->is_table_access <= fault->stage - 1);
	CHECK(fault->stage == 2 || fault->input == iova);
	CHECK(fault->reserved == 0);
}

static void walk(struct program *program, struct memory *memory,
		 const struct dmacore_walk_options *options)
{
	const struct dmacore_walk_options *second = options->second_stage;
	uint64_t iova = take_number(program) ^ (uint64_t)take8(program) << 12;
	uint32_t access = take8(program) & 15;
	struct dmacore_translation found;
	struct dmacore_walk_fault fault;
	int result;

	memset(&found, 0x5a, sizeof(found));
	memset(&fault, 0x5a, sizeof(fault));
	memory->count = 0;
	/* No memory is needed. */
	allocation_fail_after(0);
	fuzz_trace("walk(%#" PRIx64 ", %u)", iova, access);
	result = dmacore_pagetable_walk(options, iova, access, &found, &fault);
	CHECK(!allocation_has_failed());
	fuzz_trace("\t= %d, reason %u, %#" PRIx64 " to %#" PRIx64, result, fault.reason,
		   found.first, found.target);
	CHECK(result == 0 || result == -EFAULT || result == -EINVAL || result == -EOPNOTSUPP);
	if (result != 0)
		CHECK(found.first == UINT64_C(0x5a5a5a5a5a5a5a5a));
	if (result != -EFAULT)
		CHECK(fault.reason == 0x5a5a5a5a);
	if (result == 0)
		check_found(&found, iova, access);
	else if (result == -EFAULT)
		check_fault(&fault, memory, iova, second != NULL);
	else
		CHECK(memory->count == 0);
	if (result != 0 && result != -EFAULT)
		return;
	if (second != NULL)
		CHECK(memory->count <= (levels_of(options) + 1) * (levels_of(second) + 1) - 1);
	else
		CHECK(memory->count <= levels_of(options));
	if (second == NULL && options->format == DMACORE_PAGETABLE_VTD_SECOND_STAGE)
		check_vtd(options, memory, iova, access, result == 0, &found, &fault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program program = { data, data + size };
	struct memory memory = { .program = &program };
	struct dmacore_walk_options options, second;

	allocation_begin();
	options = take_options(&program, &memory);
	if ((take8(&program) & 1) != 0) {
		second = take_options(&program, &memory);
		options.second_stage = &second;
	}
	while (!program_is_over(&program))
		walk(&program, &memory, &options);
	CHECK(allocation_end() == 0);
	return 0;
}
