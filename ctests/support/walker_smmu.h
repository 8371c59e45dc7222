/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_SMMU_H
#define SUPPORT_WALKER_SMMU_H

/*
 * QEMU's SMMUv3, which walks stage 1 tables of AArch64. The facts are those of the Arm System
 * Memory Management Unit Architecture Specification, version 3, named SMMU below, and of the Arm
 * Architecture Reference Manual for A-profile, named Arm ARM.
 *
 * QEMU 7.2 knows no stage 2. Of a leaf it reads the type, the address and whether it is read-only,
 * not the access flag nor the bits for unprivileged access. It checks no output against its 44
 * bits, and does not see inputs of more than 48 bits.
 */

#include "edu.h"

/* The machine `virt` without high memory, which has its devices below 1 GiB. */
#define SMMU_REGISTERS UINT64_C(0x09050000)
#define SMMU_EDU_REGISTERS UINT64_C(0x10000000)
#define SMMU_EDU_CONFIGURATION (UINT64_C(0x3f000000) + (SMMU_STREAM << 12))

/* The stream is the requester: slot 2, function 0 of bus 0. */
#define SMMU_STREAM UINT64_C(0x10)

/* SMMU 6.1, Memory map. */
#define SMMU_CR0 0x20
#define SMMU_CR0ACK 0x24
#define SMMU_STRTAB_BASE 0x80
#define SMMU_STRTAB_BASE_CFG 0x88
#define SMMU_CMDQ_BASE 0x90
#define SMMU_CMDQ_PROD 0x98
#define SMMU_CMDQ_CONS 0x9c
#define SMMU_EVENTQ_BASE 0xa0
#define SMMU_EVENTQ_PROD 0x100a8
#define SMMU_EVENTQ_CONS 0x100ac

/* SMMU 6.3.9, SMMU_CR0: SMMUEN, EVENTQEN, CMDQEN. */
#define SMMU_ENABLE 0xd

/* Queues of 64 entries fit a page; their indexes have one bit more, see SMMU 3.5.1. */
#define SMMU_QUEUE_SHIFT 6
#define SMMU_QUEUE_COUNT (1 << SMMU_QUEUE_SHIFT)
#define SMMU_STREAMS_SHIFT 6

/* SMMU 4, Commands: CMD_CFGI_ALL, which has a range of 31, and CMD_TLBI_NSNH_ALL. */
#define SMMU_CFGI_ALL UINT64_C(0x04)
#define SMMU_CFGI_RANGE_ALL 31
#define SMMU_TLBI_NSNH_ALL UINT64_C(0x30)

/* SMMU 7.3, Event records: the number, and RnW, bit 99. */
#define SMMU_EVENT_READ (UINT64_C(1) << 35)
enum smmu_event {
	SMMU_F_TRANSLATION = 0x10,
	SMMU_F_PERMISSION = 0x13,
};

/* SMMU 5.2, Stream Table Entry: V; Config: stage 1 translates; one context, not in a table. */
#define SMMU_STE(context) ((context) | 0x5 << 1 | 1)

/*
 * SMMU 5.4, Context Descriptor: T0SZ, TG0, EPD1, V, IPS of 48 bits, AA64, R and A, so that faults
 * end the access and are recorded.
 */
#define SMMU_CD(input_bits, granule)                                            \
	((64 - (input_bits)) | smmu_granule(granule) << 6 | UINT64_C(1) << 30 | \
	 UINT64_C(1) << 31 | UINT64_C(5) << 32 | UINT64_C(1) << 41 | UINT64_C(3) << 45)

/* Arm ARM D8.3, VMSAv8-64 descriptors: a block; AP: not read-only, for unprivileged too; AF. */
#define SMMU_OWN_BLOCK UINT64_C(0x441)

/* The walker's own pages, behind those of edu. */
enum smmu_page {
	/* 64 entries of 64 bytes. */
	SMMU_STREAM_PAGE = 2,
	/* The walker's own context descriptor and the one for the table that is judged. */
	SMMU_CONTEXT_PAGE,
	SMMU_COMMAND_PAGE,
	SMMU_EVENT_PAGE,
	SMMU_OWN_TABLE,
};

enum smmu_state {
	/* The indexes of command and event queue. */
	SMMU_STATE_COMMAND,
	SMMU_STATE_EVENT,
};

#define SMMU_MEMORY GIB
#define SMMU_BASE (SMMU_MEMORY + 16 * MIB)

#define SMMU_INPUT_BITS 48

/* The first GiB of memory is for the walker, the rest for what the tables lead to. */
#define SMMU_TARGET_FIRST (2 * GIB)
#define SMMU_TARGET_LAST (4 * GIB - 1)

static inline uint64_t smmu_granule(uint64_t granule)
{
	/* TG0. */
	return granule == 65536 ? 1 : granule == 16384 ? 2 : 0;
}

static inline void smmu_command(struct walker *walker, uint64_t low, uint64_t high)
{
	uint64_t index = walker->state[SMMU_STATE_COMMAND];
	uint64_t entry = walker_page(walker, SMMU_COMMAND_PAGE) + index % SMMU_QUEUE_COUNT * 16;

	*qemu_word(&walker->qemu, entry) = low;
	*qemu_word(&walker->qemu, entry + 8) = high;
	walker->state[SMMU_STATE_COMMAND] = (index + 1) % (2 * SMMU_QUEUE_COUNT);
}

static inline void smmu_prepare(struct walker *walker)
{
	smmu_command(walker, SMMU_CFGI_ALL, SMMU_CFGI_RANGE_ALL);
	smmu_command(walker, SMMU_TLBI_NSNH_ALL, 0);
	qtest_add_write32(&walker->qemu, SMMU_REGISTERS + SMMU_CMDQ_PROD,
			  walker->state[SMMU_STATE_COMMAND]);
	qtest_add_write32(&walker->qemu, SMMU_REGISTERS + SMMU_EVENTQ_CONS,
			  walker->state[SMMU_STATE_EVENT]);
}

static inline void smmu_select(struct walker *walker, bool own)
{
	uint64_t context = walker_page(walker, SMMU_CONTEXT_PAGE) + (own ? 0 : 64);

	*qemu_word(&walker->qemu, walker_page(walker, SMMU_STREAM_PAGE) + SMMU_STREAM * 64) =
		SMMU_STE(context);
}

static inline void smmu_record(struct walker *walker)
{
	qtest_add_read32(&walker->qemu, SMMU_REGISTERS + SMMU_EVENTQ_PROD);
	qtest_add_read32(&walker->qemu, SMMU_REGISTERS + SMMU_CMDQ_CONS);
}

static inline void smmu_judge(struct walker *walker, struct walk *walk, const uint64_t *values)
{
	uint64_t index = walker->state[SMMU_STATE_EVENT];
	volatile uint64_t *event = qemu_word(&walker->qemu, walker_page(walker, SMMU_EVENT_PAGE) +
								    index % SMMU_QUEUE_COUNT * 32);
	bool reads = walk->access == DMACORE_ACCESS_READ;

	if (values[1] != walker->state[SMMU_STATE_COMMAND])
		qemu_fail(&walker->qemu, "stopped at a command: 0x%" PRIx64, values[1]);
	walk->reason = 0;
	walk->result = WALK_REACHED;
	if (values[0] == index)
		return;
	/* QEMU may try each half of the word; the first event counts. */
	walker->state[SMMU_STATE_EVENT] = values[0];
	walk->reason = event[0] & 0xff;
	if (event[0] >> 32 != SMMU_STREAM || event[2] != (walk->iova & ~UINT64_C(7)) ||
	    !(event[1] & SMMU_EVENT_READ) == reads)
		walk->result = 0;
	else if (walk->reason == SMMU_F_TRANSLATION)
		walk->result = WALK_ABSENT | WALK_BEYOND;
	else if (walk->reason == SMMU_F_PERMISSION)
		walk->result = WALK_DENIED;
	else
		walk->result = 0;
}

static const struct edu_iommu smmu_iommu = { smmu_select, smmu_prepare, smmu_record, smmu_judge };

static inline void smmu_load(struct walker *walker, uint64_t root,
			     const struct walker_geometry *geometry)
{
	uint64_t context = walker_page(walker, SMMU_CONTEXT_PAGE) + 64;

	*qemu_word(&walker->qemu, context) = SMMU_CD(geometry->input_bits, geometry->granule);
	*qemu_word(&walker->qemu, context + 8) = root;
}

static inline void smmu_start(struct walker *walker, struct edu *edu)
{
	/* WFI, and a branch back to it. */
	static const uint32_t firmware[] = { 0xd503207f, 0x17ffffff };
	static const struct qemu_plan plan = {
		.program = "qemu-system-aarch64",
		.machine = "virt,iommu=smmuv3,highmem=off",
		.arguments = { "-cpu", "cortex-a57", "-device",
			       "edu,addr=2,dma_mask=0xffffffffffffffff" },
		.regions = { { SMMU_MEMORY, 0, 3 * GIB } },
		.firmware = firmware,
		.firmware_size = sizeof(firmware),
	};
	uint64_t own, registers = SMMU_REGISTERS;

	walker_start(walker, &plan, SMMU_BASE);
	walker->load = smmu_load;
	edu_start(walker, edu, &smmu_iommu, SMMU_EDU_REGISTERS);

	/* The first base address, then memory space and bus master. */
	qtest_add_write32(&walker->qemu, SMMU_EDU_CONFIGURATION + 0x10, SMMU_EDU_REGISTERS);
	qtest_add_write32(&walker->qemu, SMMU_EDU_CONFIGURATION + 0x04, 6);

	/* A block of 1 GiB leads the walker's own pages to themselves. */
	own = walker_page(walker, SMMU_OWN_TABLE);
	*qemu_word(&walker->qemu, own + SMMU_MEMORY / GIB * 8) = SMMU_MEMORY | SMMU_OWN_BLOCK;
	*qemu_word(&walker->qemu, walker_page(walker, SMMU_CONTEXT_PAGE)) = SMMU_CD(39, PAGE);
	*qemu_word(&walker->qemu, walker_page(walker, SMMU_CONTEXT_PAGE) + 8) = own;

	qtest_add_write64(&walker->qemu, registers + SMMU_STRTAB_BASE,
			  walker_page(walker, SMMU_STREAM_PAGE));
	qtest_add_write32(&walker->qemu, registers + SMMU_STRTAB_BASE_CFG, SMMU_STREAMS_SHIFT);
	qtest_add_write64(&walker->qemu, registers + SMMU_CMDQ_BASE,
			  walker_page(walker, SMMU_COMMAND_PAGE) | SMMU_QUEUE_SHIFT);
	qtest_add_write64(&walker->qemu, registers + SMMU_EVENTQ_BASE,
			  walker_page(walker, SMMU_EVENT_PAGE) | SMMU_QUEUE_SHIFT);
	qtest_add_write32(&walker->qemu, registers + SMMU_CR0, SMMU_ENABLE);
	qtest_run(&walker->qemu);
	if (qtest_read32(&walker->qemu, registers + SMMU_CR0ACK) != SMMU_ENABLE)
		qemu_fail(&walker->qemu, "does not enable the SMMU");
}

#endif /* SUPPORT_WALKER_SMMU_H */
