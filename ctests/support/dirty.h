/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_DIRTY_H
#define SUPPORT_DIRTY_H

/* Machines whose page tables have a place to note writes, in every format. */

#include "machine.h"

struct dirty_format {
	const char *name;
	uint32_t format;
	uint32_t features;
	uint64_t leaf_sizes;
	dmacore_iova_t last_input;
	dmacore_phys_t last_output;
	uint32_t access;
	uint32_t flags;
};

#define DIRTY_FORMAT_COUNT 7

/* What is said of each here is what the specifications of its hardware say. */
static const struct dirty_format dirty_formats[DIRTY_FORMAT_COUNT] = {
	{ "VT-d second stage", DMACORE_PAGETABLE_VTD_SECOND_STAGE, 0,
	  PAGE | UINT64_C(1) << 21 | UINT64_C(1) << 30, DMACORE_BIT_MASK(48), DMACORE_BIT_MASK(52),
	  3, 0 },
	{ "x86-64", DMACORE_PAGETABLE_X86_64, DMACORE_PAGETABLE_SIGNED_INPUT,
	  PAGE | UINT64_C(1) << 21 | UINT64_C(1) << 30, DMACORE_BIT_MASK(47), DMACORE_BIT_MASK(52),
	  31, DMACORE_IOMMU_SIGNED_INPUT },
	{ "AMD v1", DMACORE_PAGETABLE_AMD_V1, DMACORE_PAGETABLE_COHERENCE,
	  (DMACORE_BIT_MASK(52) & ~DMACORE_BIT_MASK(12)) & ~(UINT64_C(1) << 39), UINT64_MAX,
	  DMACORE_BIT_MASK(52), 35, 0 },
	{ "ARM stage 1", DMACORE_PAGETABLE_ARM64_STAGE1, DMACORE_PAGETABLE_RUNS,
	  PAGE | UINT64_C(1) << 16 | UINT64_C(1) << 21 | UINT64_C(1) << 25 | UINT64_C(1) << 30 |
		  UINT64_C(1) << 34,
	  DMACORE_BIT_MASK(48), DMACORE_BIT_MASK(48), 63, 0 },
	{ "ARM stage 2", DMACORE_PAGETABLE_ARM64_STAGE2, DMACORE_PAGETABLE_RUNS,
	  PAGE | UINT64_C(1) << 16 | UINT64_C(1) << 21 | UINT64_C(1) << 25 | UINT64_C(1) << 30 |
		  UINT64_C(1) << 34,
	  DMACORE_BIT_MASK(48), DMACORE_BIT_MASK(48), 55, 0 },
	{ "RISC-V first stage", DMACORE_PAGETABLE_RISCV_FIRST_STAGE, DMACORE_PAGETABLE_RUNS,
	  PAGE | UINT64_C(1) << 16 | UINT64_C(1) << 21 | UINT64_C(1) << 30 | UINT64_C(1) << 39,
	  DMACORE_BIT_MASK(47), DMACORE_BIT_MASK(56), 15, DMACORE_IOMMU_SIGNED_INPUT },
	{ "RISC-V second stage", DMACORE_PAGETABLE_RISCV_SECOND_STAGE,
	  DMACORE_PAGETABLE_MEMORY_TYPES,
	  PAGE | UINT64_C(1) << 21 | UINT64_C(1) << 30 | UINT64_C(1) << 39, DMACORE_BIT_MASK(50),
	  DMACORE_BIT_MASK(56), 23, 0 },
};

/* Replaces everything from the IOMMU on by one with tables of a format, and a domain of a type. */
static inline void dirty_use(struct machine *machine, const struct dirty_format *format,
			     uint32_t features, uint32_t type)
{
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;

	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_iommu_destroy(machine->iommu);
	tables.format = format->format;
	tables.features = format->features | features;
	/* Roots of this one are larger than the pool's pages. */
	if (format->format != DMACORE_PAGETABLE_RISCV_SECOND_STAGE)
		tables.allocator = &machine->tables.allocator;
	options.pagetable = &tables;
	assert_ok(dmacore_iommu_create(machine->system, &options, &machine->iommu));
	machine->device = make_device(machine);
	machine->domain = make_domain(machine, type, 0, 0);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

#endif /* SUPPORT_DIRTY_H */
