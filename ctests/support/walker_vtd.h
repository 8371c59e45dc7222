/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_VTD_H
#define SUPPORT_WALKER_VTD_H

/*
 * QEMU's Intel VT-d in legacy mode, which walks second-stage tables. The facts are those of the
 * Intel Virtualization Technology for Directed I/O specification, named VT-d below.
 */

#include "edu.h"

#define VTD_REGISTERS UINT64_C(0xfed90000)

/* VT-d chapter 11, Register Descriptions. */
#define VTD_GLOBAL_COMMAND 0x18
#define VTD_GLOBAL_STATUS 0x1c
#define VTD_ROOT_TABLE 0x20
#define VTD_CONTEXT_COMMAND 0x28
#define VTD_FAULT_STATUS 0x34
#define VTD_IOTLB_INVALIDATE 0xf8
#define VTD_FAULT_RECORD 0x220

/* Global Command and Global Status: set root table pointer, translation enable. */
#define VTD_SET_ROOT (UINT32_C(1) << 30)
#define VTD_ENABLE (UINT32_C(1) << 31)

/* Context Command, and IOTLB Invalidate: do it, for everything. */
#define VTD_CONTEXT_ALL UINT64_C(0xa000000000000000)
#define VTD_IOTLB_ALL UINT64_C(0x9000000000000000)

/* VT-d, Fault Recording Registers, the upper half: F at bit 127, the reason from bit 96. */
#define VTD_FAULT_VALID (UINT64_C(1) << 63)
#define VTD_FAULT_REASON(high) ((uint32_t)((high) >> 32) & 0xff)
/* Primary fault overflow, which is cleared by writing one. */
#define VTD_FAULT_OVERFLOW 1

/* VT-d, Fault Reason Encodings, legacy mode. The first does not tell absent from denied. */
enum vtd_reason {
	VTD_BEYOND = 0x4,
	VTD_NO_WRITE = 0x5,
	VTD_NO_READ = 0x6,
	VTD_RESERVED_BITS = 0xc,
};

/* The walker's own pages, behind those of edu. */
enum vtd_page {
	VTD_ROOT_PAGE = 2,
	VTD_CONTEXT_PAGE,
	VTD_OWN_TABLE,
	VTD_OWN_TABLE_1,
};

/* Members of walker->state: the context entry for the table that is judged. */
enum vtd_state {
	VTD_CONTEXT_LOW,
	VTD_CONTEXT_HIGH,
};

/* VT-d 9.3, Context Entry: present, legacy second-stage translation; address width, domain 1. */
#define VTD_CONTEXT_LOW_OF(root) ((root) | 1)
#define VTD_CONTEXT_HIGH_OF(levels) (((levels)-2) | (1 << 8))

static inline void vtd_prepare(struct walker *walker)
{
	qtest_add_write64(&walker->qemu, VTD_REGISTERS + VTD_FAULT_RECORD + 8, VTD_FAULT_VALID);
	qtest_add_write32(&walker->qemu, VTD_REGISTERS + VTD_FAULT_STATUS, VTD_FAULT_OVERFLOW);
	qtest_add_write64(&walker->qemu, VTD_REGISTERS + VTD_IOTLB_INVALIDATE, VTD_IOTLB_ALL);
}

static inline void vtd_select(struct walker *walker, bool own)
{
	uint64_t entry = walker_page(walker, VTD_CONTEXT_PAGE) + (EDU_PC_SLOT << 3) * 16;

	*qemu_word(&walker->qemu, entry) =
		own ? VTD_CONTEXT_LOW_OF(walker_page(walker, VTD_OWN_TABLE)) :
		      walker->state[VTD_CONTEXT_LOW];
	*qemu_word(&walker->qemu, entry + 8) =
		own ? VTD_CONTEXT_HIGH_OF(3) : walker->state[VTD_CONTEXT_HIGH];
	qtest_add_write64(&walker->qemu, VTD_REGISTERS + VTD_CONTEXT_COMMAND, VTD_CONTEXT_ALL);
}

static inline void vtd_record(struct walker *walker)
{
	qtest_add_read64(&walker->qemu, VTD_REGISTERS + VTD_FAULT_RECORD);
	qtest_add_read64(&walker->qemu, VTD_REGISTERS + VTD_FAULT_RECORD + 8);
}

static inline void vtd_judge(struct walker *walker, struct walk *walk, const uint64_t *values)
{
	uint64_t low = values[0], high = values[1];

	(void)walker;
	if (!(high & VTD_FAULT_VALID)) {
		walk->result = WALK_REACHED;
		walk->reason = 0;
		return;
	}
	walk->reason = VTD_FAULT_REASON(high);
	/* The record is of a page and of the device. */
	if (low != (walk->iova & ~(PAGE - 1)) || (high & 0xffff) != EDU_PC_SLOT << 3)
		walk->result = 0;
	else if (walk->reason == VTD_BEYOND)
		walk->result = WALK_BEYOND;
	else if (walk->reason == (walk->access == DMACORE_ACCESS_READ ? VTD_NO_READ : VTD_NO_WRITE))
		walk->result = WALK_ABSENT | WALK_DENIED;
	else if (walk->reason == VTD_RESERVED_BITS)
		walk->result = WALK_MALFORMED;
	else
		walk->result = 0;
}

static const struct edu_iommu vtd_iommu = { vtd_select, vtd_prepare, vtd_record, vtd_judge };

static inline void vtd_load(struct walker *walker, uint64_t root,
			    const struct walker_geometry *geometry)
{
	walker->state[VTD_CONTEXT_LOW] = VTD_CONTEXT_LOW_OF(root);
	walker->state[VTD_CONTEXT_HIGH] = VTD_CONTEXT_HIGH_OF(geometry->levels);
}

static inline void vtd_command(struct walker *walker, uint32_t command, uint32_t status)
{
	uint32_t got;

	qtest_add_write32(&walker->qemu, VTD_REGISTERS + VTD_GLOBAL_COMMAND, command);
	qtest_run(&walker->qemu);
	got = qtest_read32(&walker->qemu, VTD_REGISTERS + VTD_GLOBAL_STATUS);
	if (!(got & status))
		qemu_fail(&walker->qemu, "does not take VT-d's command 0x%" PRIx32, command);
}

/* The walker's pages; the memory from 4 GiB is for what the tables lead to. */
#define VTD_BASE (16 * MIB)

/* VT-d 3.14: what a device writes here is an interrupt and is not translated. */
#define VTD_INTERRUPT_FIRST UINT64_C(0xfee00000)
#define VTD_INTERRUPT_LAST UINT64_C(0xfeefffff)

static inline void vtd_start(struct walker *walker, struct edu *edu, unsigned width)
{
	static uint8_t firmware[PC_FIRMWARE_SIZE];
	static char iommu[64];
	static struct qemu_plan plan = {
		.program = "qemu-system-x86_64",
		.machine = "q35",
		.arguments = { "-device", iommu, "-device",
			       "edu,addr=2,dma_mask=0xffffffffffffffff" },
		.regions = PC_REGIONS,
		.firmware = firmware,
		.firmware_size = sizeof(firmware),
	};
	uint64_t root, context, tables[2];

	memset(firmware, PC_HALT, sizeof(firmware));
	snprintf(iommu, sizeof(iommu), "intel-iommu,intremap=off,aw-bits=%u", width);
	walker_start(walker, &plan, VTD_BASE);
	walker->load = vtd_load;
	edu_start_pc(walker, edu, &vtd_iommu);

	/* Two tables and a leaf of 2 MiB lead the walker's own pages to themselves. */
	for (unsigned i = 0; i < 2; i++)
		tables[i] = walker_page(walker, VTD_OWN_TABLE + i);
	*qemu_word(&walker->qemu, tables[0]) = tables[1] | 3;
	*qemu_word(&walker->qemu, tables[1] + VTD_BASE / (2 * MIB) * 8) = VTD_BASE | 0x80 | 3;
	/* VT-d 9.1, Root Entry: present. */
	root = walker_page(walker, VTD_ROOT_PAGE);
	context = walker_page(walker, VTD_CONTEXT_PAGE);
	*qemu_word(&walker->qemu, root) = context | 1;

	qtest_add_write64(&walker->qemu, VTD_REGISTERS + VTD_ROOT_TABLE, root);
	vtd_command(walker, VTD_SET_ROOT, VTD_SET_ROOT);
	vtd_command(walker, VTD_ENABLE, VTD_ENABLE);
}

#endif /* SUPPORT_WALKER_VTD_H */
