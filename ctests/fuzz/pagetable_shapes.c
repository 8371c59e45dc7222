/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pagetable.h"

#define BIT(n) (UINT64_C(1) << (n))

#define COHERENCE DMACORE_PAGETABLE_COHERENCE
#define DIRTY DMACORE_PAGETABLE_DIRTY
#define RUNS DMACORE_PAGETABLE_RUNS
#define SIGNED DMACORE_PAGETABLE_SIGNED_INPUT
#define TYPES DMACORE_PAGETABLE_MEMORY_TYPES

#define VTD DMACORE_PAGETABLE_VTD_SECOND_STAGE
#define X86 DMACORE_PAGETABLE_X86_64
#define AMD DMACORE_PAGETABLE_AMD_V1
#define ARM1 DMACORE_PAGETABLE_ARM64_STAGE1
#define ARM2 DMACORE_PAGETABLE_ARM64_STAGE2
#define RISCV1 DMACORE_PAGETABLE_RISCV_FIRST_STAGE
#define RISCV2 DMACORE_PAGETABLE_RISCV_SECOND_STAGE

/* Inputs count from the start of this, so what is added goes to the end. */
static const struct shape shapes[] = {
	{ "VT-d, 39 bits", VTD, 4096, 3, 39, 52, COHERENCE | DIRTY },
	{ "VT-d, 48 bits", VTD, 4096, 4, 48, 52, COHERENCE | DIRTY },
	{ "VT-d, 57 bits", VTD, 4096, 5, 57, 52, COHERENCE | DIRTY },
	{ "VT-d, 48 bits to 39", VTD, 4096, 4, 48, 39, COHERENCE | DIRTY },
	/* One bit more with signed inputs. */
	{ "x86-64, 4 levels", X86, 4096, 4, 47, 52, DIRTY | SIGNED },
	{ "x86-64, 5 levels", X86, 4096, 5, 56, 52, DIRTY | SIGNED },
	{ "x86-64, 4 levels to 46 bits", X86, 4096, 4, 47, 46, DIRTY | SIGNED },
	/* These grow, but for the last three, which start with all that their inputs need. */
	{ "AMD v1", AMD, 4096, 3, 64, 52, COHERENCE | DIRTY },
	{ "AMD v1 from 1 level", AMD, 4096, 1, 64, 52, COHERENCE | DIRTY },
	{ "AMD v1, 50 bits", AMD, 4096, 2, 50, 48, COHERENCE | DIRTY },
	{ "AMD v1, 6 levels", AMD, 4096, 6, 64, 52, COHERENCE | DIRTY },
	{ "AMD v1, 40 bits to 32", AMD, 4096, 4, 40, 32, COHERENCE | DIRTY },
	{ "AMD v1, 21 bits", AMD, 4096, 1, 21, 52, COHERENCE | DIRTY },
	{ "ARM stage 1, 4 KiB, 48 bits", ARM1, 4096, 4, 48, 48, RUNS | DIRTY },
	{ "ARM stage 1, 4 KiB, 39 bits", ARM1, 4096, 3, 39, 40, RUNS | DIRTY },
	{ "ARM stage 1, 4 KiB, 32 bits", ARM1, 4096, 3, 32, 32, RUNS | DIRTY },
	{ "ARM stage 1, 16 KiB, 48 bits", ARM1, 16384, 4, 48, 48, RUNS | DIRTY },
	{ "ARM stage 1, 16 KiB, 36 bits", ARM1, 16384, 2, 36, 44, RUNS | DIRTY },
	{ "ARM stage 1, 64 KiB, 52 bits", ARM1, 65536, 3, 52, 52, RUNS | DIRTY },
	{ "ARM stage 1, 64 KiB, 48 bits", ARM1, 65536, 3, 48, 48, RUNS | DIRTY },
	{ "ARM stage 1, 64 KiB, 42 bits", ARM1, 65536, 2, 42, 42, RUNS | DIRTY },
	/* Of some the root is 2, 4, 8 or 16 tables side by side. */
	{ "ARM stage 2, 4 KiB, 48 bits", ARM2, 4096, 4, 48, 48, RUNS | DIRTY },
	{ "ARM stage 2, 4 KiB, 40 bits", ARM2, 4096, 3, 40, 40, RUNS | DIRTY },
	{ "ARM stage 2, 4 KiB, 43 bits", ARM2, 4096, 3, 43, 44, RUNS | DIRTY },
	{ "ARM stage 2, 16 KiB, 48 bits", ARM2, 16384, 3, 48, 48, RUNS | DIRTY },
	{ "ARM stage 2, 16 KiB, 40 bits", ARM2, 16384, 2, 40, 40, RUNS | DIRTY },
	{ "ARM stage 2, 64 KiB, 52 bits", ARM2, 65536, 3, 52, 52, RUNS | DIRTY },
	{ "ARM stage 2, 64 KiB, 44 bits", ARM2, 65536, 2, 44, 48, RUNS | DIRTY },
	{ "RISC-V, Sv39", RISCV1, 4096, 3, 39, 56, RUNS | DIRTY | TYPES },
	{ "RISC-V, Sv48", RISCV1, 4096, 4, 48, 56, RUNS | DIRTY | TYPES },
	{ "RISC-V, Sv57", RISCV1, 4096, 5, 57, 50, RUNS | DIRTY | TYPES },
	{ "RISC-V, Sv39x4", RISCV2, 4096, 3, 41, 56, RUNS | DIRTY | TYPES },
	{ "RISC-V, Sv48x4", RISCV2, 4096, 4, 50, 56, RUNS | DIRTY | TYPES },
	{ "RISC-V, Sv57x4", RISCV2, 4096, 5, 59, 44, RUNS | DIRTY | TYPES },
};

#define SHAPE_COUNT (sizeof(shapes) / sizeof(shapes[0]))

struct shape take_shape(struct program *program)
{
	struct shape shape = shapes[take8(program) % SHAPE_COUNT];

	shape.features &= take8(program);
	if (shape.format == X86 && (shape.features & SIGNED) != 0)
		shape.input_bits++;
	return shape;
}

bool shape_is_signed(const struct shape *shape)
{
	return shape->format == RISCV1 || (shape->features & SIGNED) != 0;
}

uint64_t shape_low_last(const struct shape *shape)
{
	return DMACORE_BIT_MASK(shape->input_bits - (shape_is_signed(shape) ? 1 : 0));
}

static unsigned int index_bits(const struct shape *shape)
{
	/* The granule in words of 8 bytes. */
	return (unsigned int)__builtin_ctz(shape->granule) - 3;
}

static unsigned int span_shift(const struct shape *shape, unsigned int level)
{
	return (unsigned int)__builtin_ctz(shape->granule) + level * index_bits(shape);
}

uint64_t shape_reach_last(const struct shape *shape, unsigned int levels)
{
	uint64_t low_last = shape_low_last(shape), reach;

	if (shape->format != AMD)
		return low_last;
	reach = DMACORE_BIT_MASK(span_shift(shape, levels));
	return reach < low_last ? reach : low_last;
}

uint64_t shape_span(const struct shape *shape, unsigned int level)
{
	return BIT(span_shift(shape, level));
}

uint64_t shape_root_size(const struct shape *shape)
{
	unsigned int shift = span_shift(shape, shape->levels - 1);
	uint64_t size;

	/* It starts as a table like any other, and so do those that grow above it. */
	if (shape->format == AMD)
		return shape->granule;
	size = UINT64_C(8) << (shape->input_bits - shift);
	return size < shape->granule ? shape->granule : size;
}

static uint64_t arm_leaf_sizes(const struct shape *shape)
{
	bool has_runs = (shape->features & RUNS) != 0;

	switch (shape->granule) {
	case 4096:
		return BIT(12) | BIT(21) | BIT(30) | (has_runs ? BIT(16) | BIT(25) | BIT(34) : 0);
	case 16384:
		return BIT(14) | BIT(25) | (has_runs ? BIT(21) | BIT(30) : 0);
	default:
		/* Blocks of 4 TiB are for outputs of 52 bits. */
		return BIT(16) | BIT(29) | (has_runs ? BIT(21) | BIT(34) : 0) |
		       (shape->output_bits == 52 && shape->levels == 3 ? BIT(42) : 0);
	}
}

uint64_t shape_leaf_sizes(const struct shape *shape)
{
	unsigned int levels_max;
	uint64_t sizes = BIT(12) | BIT(21) | BIT(30);

	switch (shape->format) {
	case AMD:
		/* All but 512 GiB, and smaller than what an entry above the highest level spans. */
		levels_max = (shape->input_bits - 12 + 8) / 9;
		return (BIT(52) - BIT(12)) & ~BIT(39) & DMACORE_BIT_MASK(12 + 9 * levels_max);
	case ARM1:
	case ARM2:
		return arm_leaf_sizes(shape);
	case RISCV1:
	case RISCV2:
		sizes |= shape->levels > 3 ? BIT(39) : 0;
		sizes |= shape->levels > 4 ? BIT(48) : 0;
		return sizes | ((shape->features & RUNS) != 0 ? BIT(16) : 0);
	default:
		return sizes;
	}
}

bool shape_can_express(const struct shape *shape, uint32_t access)
{
	const uint32_t read = DMACORE_ACCESS_READ, write = DMACORE_ACCESS_WRITE;
	const uint32_t execute = DMACORE_ACCESS_EXECUTE, privileged = DMACORE_ACCESS_PRIVILEGED;
	const uint32_t mmio = DMACORE_ACCESS_MMIO, cacheable = DMACORE_ACCESS_CACHEABLE;
	uint32_t known = read | write;

	switch (shape->format) {
	case X86:
		known |= execute | privileged | mmio;
		return (access & read) != 0 && (access & ~known) == 0;
	case ARM1:
		return (access & read) != 0 && (access & (mmio | cacheable)) != (mmio | cacheable);
	case ARM2:
		return (access & privileged) == 0 &&
		       (access & (mmio | cacheable)) != (mmio | cacheable);
	case RISCV1:
	case RISCV2:
		known |= execute | (shape->format == RISCV1 ? privileged : 0);
		known |= (shape->features & TYPES) != 0 ? mmio : 0;
		return (access & (read | execute)) != 0 && (access & (read | write)) != write &&
		       (access & ~known) == 0;
	default:
		known |= (shape->features & COHERENCE) != 0 ? cacheable : 0;
		return (access & ~known) == 0;
	}
}
