/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_EDU_H
#define SUPPORT_EDU_H

/*
 * Walkers that are IOMMUs, tried by QEMU's device for teaching, `edu` (its registers are in QEMU's
 * docs/specs/edu.txt): it copies between memory and a buffer of its own. Through a table of the
 * walker's own it fetches tokens, one for each walk, and hands over what it has read. In between
 * each walk copies one word: a read copies the mark that the test has put where the walk should
 * end, a write copies its token there.
 */

#include "walker.h"

/*
 * Registers of the device: those of a copy are its source, destination, size and command, of eight
 * bytes each; and where its buffer is in its own addresses.
 */
#define EDU_SOURCE 0x80
#define EDU_COMMAND 0x98
#define EDU_BUFFER 0x40000

/* Commands; the first bit is set while one runs. */
#define EDU_RUN 1
#define EDU_FROM_MEMORY 1
#define EDU_TO_MEMORY 3

/* Half of the buffer is for tokens, half for what is read. */
#define EDU_READ_OFFSET 2048

/* The walker's own pages: what the device fetches, and where it delivers. */
#define EDU_TOKEN_PAGE 0
#define EDU_RESULT_PAGE 1

/* A mark is the address that it is at, but nothing that is there by chance. */
#define EDU_MARK UINT64_C(0xa5c0000000000000)

/* What one IOMMU brings. */
struct edu_iommu {
	/* Lets the device use the walker's own table, or the one that is judged. */
	void (*select)(struct walker *walker, bool own);
	/* Adds commands that clear the record of faults and drop all translations. */
	void (*prepare)(struct walker *walker);
	/* Adds commands that read the record. */
	void (*record)(struct walker *walker);
	/*
	 * Fills in result and reason from the values that those gave. Where the IOMMU does not say
	 * whether the device got there, the result is WALK_REACHED and what else it may be.
	 */
	void (*judge)(struct walker *walker, struct walk *walk, const uint64_t *values);
};

struct edu {
	const struct edu_iommu *iommu;
	uint64_t registers;
	uint64_t token;
	uint64_t marks[WALKS_MAX];
	unsigned mark_count;
};

static inline void edu_mark(struct walker *walker, uint64_t phys)
{
	struct edu *edu = walker->device;

	assert_true(edu->mark_count < WALKS_MAX);
	*qemu_word(&walker->qemu, phys) = EDU_MARK | phys;
	edu->marks[edu->mark_count++] = phys;
}

/* Adds a copy of @size bytes between memory at @iova and the buffer at @offset. */
static inline void edu_add(struct walker *walker, uint64_t command, uint64_t iova, uint64_t offset,
			   uint64_t size)
{
	struct edu *edu = walker->device;
	bool reads = command == EDU_FROM_MEMORY;
	const uint64_t values[] = {
		reads ? iova : EDU_BUFFER + offset,
		reads ? EDU_BUFFER + offset : iova,
		size,
		command,
	};

	/* All four registers at once, in their order. */
	qtest_add_write(&walker->qemu, edu->registers + EDU_SOURCE, values, sizeof(values));
}

/* Sends what was added, waits until the device has copied, and gives the record of faults. */
static inline const uint64_t *edu_run(struct walker *walker)
{
	struct edu *edu = walker->device;
	int64_t deadline = milliseconds() + QEMU_PATIENCE_MS;
	const uint64_t *values;

	qtest_run(&walker->qemu);
	/* The device's timer waits for the lock that each command takes: asking at once delays it. */
	usleep(200);
	do {
		if (milliseconds() > deadline)
			qemu_fail(&walker->qemu, "lets the device copy for ever");
		qtest_add_read32(&walker->qemu, edu->registers + EDU_COMMAND);
		edu->iommu->record(walker);
		values = qtest_run(&walker->qemu);
	} while (values[0] & EDU_RUN);
	return values + 1;
}

/* A copy that must succeed, by the walker's own table, which leads each address to itself. */
static inline void edu_copy(struct walker *walker, uint64_t command, uint64_t phys, uint64_t offset,
			    uint64_t size)
{
	struct edu *edu = walker->device;
	struct walk walk = { .iova = phys };

	edu->iommu->select(walker, true);
	edu->iommu->prepare(walker);
	edu_add(walker, command, phys, offset, size);
	edu->iommu->judge(walker, &walk, edu_run(walker));
	if (!(walk.result & WALK_REACHED))
		qemu_fail(&walker->qemu, "does not let the device copy: reason 0x%" PRIx32,
			  walk.reason);
}

/* Where the token of a walk came to; the mark that was there is put back. */
static inline uint64_t edu_find_token(struct walker *walker, uint64_t token)
{
	struct edu *edu = walker->device;

	for (unsigned i = 0; i < edu->mark_count; i++) {
		volatile uint64_t *word = qemu_word(&walker->qemu, edu->marks[i]);

		if (*word == token) {
			*word = EDU_MARK | edu->marks[i];
			return edu->marks[i];
		}
	}
	return WALK_NOWHERE;
}

/* Makes one of what the IOMMU says and what arrived: at which mark, or WALK_NOWHERE. */
static inline void edu_conclude(struct walk *walk, uint64_t arrived)
{
	/* It may say that it led nowhere, and yet it did. */
	if (arrived != WALK_NOWHERE)
		walk->result = WALK_REACHED;
	else if (walk->result != WALK_REACHED)
		walk->result &= ~WALK_REACHED;
	walk->phys = arrived;
}

static inline void edu_walk(struct walker *walker, struct walk *walks, unsigned count)
{
	struct edu *edu = walker->device;
	uint64_t token_page = walker_page(walker, EDU_TOKEN_PAGE);
	uint64_t result_page = walker_page(walker, EDU_RESULT_PAGE);
	uint64_t arrived[WALKS_MAX];

	assert_true(count <= WALKS_MAX);
	for (unsigned i = 0; i < count; i++) {
		*qemu_word(&walker->qemu, token_page + 8 * i) = edu->token + i;
		*qemu_word(&walker->qemu, token_page + EDU_READ_OFFSET + 8 * i) = 0;
	}
	edu_copy(walker, EDU_FROM_MEMORY, token_page, 0, EDU_READ_OFFSET + 8 * count);
	edu->iommu->select(walker, false);
	for (unsigned i = 0; i < count; i++) {
		struct walk *walk = &walks[i];

		edu->iommu->prepare(walker);
		if (walk->access == DMACORE_ACCESS_READ)
			edu_add(walker, EDU_FROM_MEMORY, walk->iova, EDU_READ_OFFSET + 8 * i, 8);
		else
			edu_add(walker, EDU_TO_MEMORY, walk->iova, 8 * i, 8);
		edu->iommu->judge(walker, walk, edu_run(walker));
		arrived[i] = edu_find_token(walker, edu->token + i);
	}
	edu_copy(walker, EDU_TO_MEMORY, result_page, EDU_READ_OFFSET, 8 * count);
	for (unsigned i = 0; i < count; i++) {
		uint64_t value = *qemu_word(&walker->qemu, result_page + 8 * i);

		if (walks[i].access == DMACORE_ACCESS_READ && (value & EDU_MARK) == EDU_MARK)
			arrived[i] = value & ~EDU_MARK;
		edu_conclude(&walks[i], arrived[i]);
	}
	edu->token += count;
	edu->mark_count = 0;
}

static inline void edu_start(struct walker *walker, struct edu *edu, const struct edu_iommu *iommu,
			     uint64_t registers)
{
	*edu = (struct edu){
		.iommu = iommu,
		.registers = registers,
		/* Numbers that are no marks. */
		.token = UINT64_C(0x7060504030201000),
	};
	walker->device = edu;
	walker->walk = edu_walk;
	walker->mark = edu_mark;
}

/* PC: the device is function 0 of a slot of bus 0, and its registers go where nothing else is. */
#define EDU_PC_REGISTERS UINT64_C(0xe0000000)
#define EDU_PC_SLOT 2

/* PCI Local Bus 3.0, 3.2.2.3.2: configuration by address and data port. */
static inline void edu_configure_pc(struct walker *walker, unsigned offset, uint32_t value)
{
	qtest_add(&walker->qemu, "outl 0xcf8 0x%x", 0x80000000 | EDU_PC_SLOT << 11 | offset);
	qtest_add(&walker->qemu, "outl 0xcfc 0x%" PRIx32, value);
}

static inline void edu_start_pc(struct walker *walker, struct edu *edu,
				const struct edu_iommu *iommu)
{
	edu_start(walker, edu, iommu, EDU_PC_REGISTERS);
	/* The first base address, then memory space and bus master. */
	edu_configure_pc(walker, 0x10, EDU_PC_REGISTERS);
	edu_configure_pc(walker, 0x04, 6);
	qtest_run(&walker->qemu);
}

/* Memory of a PC: 2 GiB below the devices, the rest from 4 GiB. */
#define PC_HIGH_FIRST (4 * GIB)
#define PC_HIGH_LAST (10 * GIB - 1)
#define PC_REGIONS                                                \
	{                                                         \
		{ 0, 0, 2 * GIB }, { 4 * GIB, 2 * GIB, 6 * GIB }, \
	}

/* Firmware is a multiple of 64 KiB that ends at 4 GiB; all of it halts the CPU. */
#define PC_FIRMWARE_SIZE 65536
#define PC_HALT 0xf4

#endif /* SUPPORT_EDU_H */
