/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_AMD_H
#define SUPPORT_WALKER_AMD_H

/*
 * QEMU's AMD IOMMU, which walks v1 (host) tables. The facts are those of the AMD I/O Virtualization
 * Technology (IOMMU) Specification, named AMD below.
 *
 * QEMU 7.2 tells of no fault that a leaf causes, or its absence. So whether there is a leaf is
 * taken from its trace of translations, and whether the access was permitted from what the device
 * did. It ignores the bits of an address above those that the top level translates.
 */

#include "edu.h"

#define AMD_REGISTERS UINT64_C(0xfed80000)

/* AMD 3.4, IOMMU MMIO Registers. */
#define AMD_DEVICE_TABLE 0x0000
#define AMD_COMMAND_BUFFER 0x0008
#define AMD_CONTROL 0x0018
#define AMD_COMMAND_TAIL 0x2008

/* AMD 3.4.1, IOMMU Control Register: IommuEn, CmdBufEn. */
#define AMD_ENABLE UINT64_C(0x1001)

/* The length of the command buffer, in the bits 59:56: 256 entries. */
#define AMD_COMMAND_COUNT 256
#define AMD_COMMAND_LENGTH (UINT64_C(8) << 56)

/* AMD 2.4, Commands: INVALIDATE_IOMMU_ALL, the code in the bits 63:60. */
#define AMD_INVALIDATE_ALL (UINT64_C(8) << 60)

/* The reason of a walk: nothing, or a page fault by an entry above the leaf. */
enum amd_reason {
	AMD_SILENT = 0,
	AMD_PAGE_FAULT = 1,
};

/* AMD 2.2.3, I/O Page Tables for Host Translations. */
#define AMD_PRESENT UINT64_C(1)
#define AMD_NEXT_LEVEL(level) ((uint64_t)(level) << 9)
#define AMD_READ (UINT64_C(1) << 61)
#define AMD_WRITE (UINT64_C(1) << 62)
#define AMD_BOTH (AMD_READ | AMD_WRITE)

/* AMD 2.2.2, Device Table Entry: V and TV; with the mode, root and permissions of an entry. */
#define AMD_DEVICE_ENTRY(root, levels) ((root) | AMD_BOTH | AMD_NEXT_LEVEL(levels) | UINT64_C(3))

/* The walker's own pages, behind those of edu. */
enum amd_page {
	AMD_DEVICE_PAGE = 2,
	AMD_COMMAND_PAGE,
	AMD_OWN_TABLE,
	AMD_OWN_TABLE_1,
};

enum amd_state {
	/* The device table entry for the table that is judged. */
	AMD_STATE_ENTRY,
	/* The next command. */
	AMD_STATE_COMMAND,
	/* How far the trace was read. */
	AMD_STATE_LOG,
};

#define AMD_BASE (16 * MIB)

/* AMD 2.1.4.1: what a device writes here is an interrupt and is not translated. */
#define AMD_INTERRUPT_FIRST UINT64_C(0xfee00000)
#define AMD_INTERRUPT_LAST UINT64_C(0xfeefffff)

static inline void amd_prepare(struct walker *walker)
{
	uint64_t command = walker->state[AMD_STATE_COMMAND];
	uint64_t page = walker_page(walker, AMD_COMMAND_PAGE);

	*qemu_word(&walker->qemu, page + command * 16) = AMD_INVALIDATE_ALL;
	walker->state[AMD_STATE_COMMAND] = (command + 1) % AMD_COMMAND_COUNT;
	qtest_add_write64(&walker->qemu, AMD_REGISTERS + AMD_COMMAND_TAIL,
			  walker->state[AMD_STATE_COMMAND] * 16);
	walker->state[AMD_STATE_LOG] = qemu_log_size(&walker->qemu);
}

static inline void amd_select(struct walker *walker, bool own)
{
	uint64_t entry = walker_page(walker, AMD_DEVICE_PAGE) + (EDU_PC_SLOT << 3) * 32;

	*qemu_word(&walker->qemu, entry) =
		own ? AMD_DEVICE_ENTRY(walker_page(walker, AMD_OWN_TABLE), 3) :
		      walker->state[AMD_STATE_ENTRY];
}

/* The trace is there already. */
static inline void amd_record(struct walker *walker)
{
	(void)walker;
}

static inline void amd_judge(struct walker *walker, struct walk *walk, const uint64_t *values)
{
	const char *const format =
		"amdvi_translation_result devid: %*s gpa 0x%" SCNx64 " hpa 0x%" SCNx64;
	uint64_t from, to;
	char text[2048];
	const char *line;

	(void)values;
	qemu_read_log(&walker->qemu, walker->state[AMD_STATE_LOG], text, sizeof(text));
	line = strstr(text, "amdvi_translation_result");
	if (!line || sscanf(line, format, &from, &to) != 2 || from != (walk->iova & ~UINT64_C(7)))
		qemu_fail(&walker->qemu, "traces no translation");
	walk->reason = strstr(text, "amdvi_page_fault") ? AMD_PAGE_FAULT : AMD_SILENT;
	/* Where the leaf begins; 0: it found none, or a table above it forbids the access. */
	if (to != 0)
		walk->result = WALK_REACHED | WALK_DENIED;
	else
		walk->result = walk->reason == AMD_SILENT ? WALK_ABSENT : WALK_ABSENT | WALK_DENIED;
}

static const struct edu_iommu amd_iommu = { amd_select, amd_prepare, amd_record, amd_judge };

static inline void amd_load(struct walker *walker, uint64_t root,
			    const struct walker_geometry *geometry)
{
	walker->state[AMD_STATE_ENTRY] = AMD_DEVICE_ENTRY(root, geometry->levels);
}

/* What a root leads to is one level below it. */
static inline unsigned amd_count_levels(struct walker *walker, uint64_t root, unsigned levels)
{
	for (unsigned i = 0; i < 512; i++) {
		uint64_t word = *qemu_word(&walker->qemu, root + i * 8);
		unsigned next = word >> 9 & 7;

		if ((word & AMD_PRESENT) && next != 0 && next != 7)
			return next + 1;
	}
	/* It holds leaves alone, or nothing: it is as it was. */
	return levels;
}

static inline void amd_start(struct walker *walker, struct edu *edu)
{
	static uint8_t firmware[PC_FIRMWARE_SIZE];
	static const struct qemu_plan plan = {
		.program = "qemu-system-x86_64",
		.machine = "q35",
		.arguments = { "-device", "amd-iommu", "-device",
			       "edu,addr=2,dma_mask=0xffffffffffffffff", "-trace",
			       "amdvi_translation_result", "-trace", "amdvi_page_fault" },
		.regions = PC_REGIONS,
		.firmware = firmware,
		.firmware_size = sizeof(firmware),
	};
	uint64_t tables[2], registers = AMD_REGISTERS;

	memset(firmware, PC_HALT, sizeof(firmware));
	walker_start(walker, &plan, AMD_BASE);
	walker->load = amd_load;
	walker->count_levels = amd_count_levels;
	edu_start_pc(walker, edu, &amd_iommu);

	/* Two tables and a leaf of 2 MiB lead the walker's own pages to themselves. */
	for (unsigned i = 0; i < 2; i++)
		tables[i] = walker_page(walker, AMD_OWN_TABLE + i);
	*qemu_word(&walker->qemu, tables[0]) =
		tables[1] | AMD_PRESENT | AMD_NEXT_LEVEL(2) | AMD_BOTH;
	*qemu_word(&walker->qemu, tables[1] + AMD_BASE / (2 * MIB) * 8) =
		AMD_BASE | AMD_PRESENT | AMD_NEXT_LEVEL(0) | AMD_BOTH;
	/* A domain of number 1. */
	*qemu_word(&walker->qemu,
		   walker_page(walker, AMD_DEVICE_PAGE) + (EDU_PC_SLOT << 3) * 32 + 8) = 1;

	qtest_add_write64(&walker->qemu, registers + AMD_DEVICE_TABLE,
			  walker_page(walker, AMD_DEVICE_PAGE));
	qtest_add_write64(&walker->qemu, registers + AMD_COMMAND_BUFFER,
			  walker_page(walker, AMD_COMMAND_PAGE) | AMD_COMMAND_LENGTH);
	qtest_add_write64(&walker->qemu, registers + AMD_CONTROL, AMD_ENABLE);
	qtest_run(&walker->qemu);
}

#endif /* SUPPORT_WALKER_AMD_H */
