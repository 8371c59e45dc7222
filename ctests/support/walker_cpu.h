/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_CPU_H
#define SUPPORT_WALKER_CPU_H

/*
 * Walkers that are the page walk of a CPU which never runs. The monitor translates an address, not
 * minding what is permitted, and lists all leaves and what they permit; both must say the same. No
 * memory need be where the tables lead to.
 */

#include "debugger.h"
#include "walker.h"

#define CPU_LEAVES_MAX 65536

struct cpu_leaf {
	uint64_t first;
	/* 0: up to the next one, if the address is mapped at all. */
	uint64_t size;
	uint64_t phys;
	/* Walks that it permits: bits of enum walk_access. */
	uint32_t rights;
};

struct cpu {
	/* Reads the list of all leaves, in the order of their addresses. */
	void (*list)(struct walker *walker);
	/* The bits of a listed output that can be relied on. */
	uint64_t phys_mask;
	/* The bits that the levels translate. */
	unsigned input_bits;
	/* Whether the table's inputs are the CPU's addresses; otherwise they have no sign. */
	bool is_signed;
	unsigned leaf_count;
	struct cpu_leaf leaves[CPU_LEAVES_MAX];
};

static inline void cpu_add_leaf(struct walker *walker, const struct cpu_leaf *leaf)
{
	struct cpu *cpu = walker->device;

	if (cpu->leaf_count == CPU_LEAVES_MAX ||
	    (cpu->leaf_count > 0 && leaf->first <= cpu->leaves[cpu->leaf_count - 1].first))
		qemu_fail(&walker->qemu, "lists leaves out of order");
	cpu->leaves[cpu->leaf_count++] = *leaf;
}

/* The last leaf that begins at or before the address. */
static inline struct cpu_leaf *cpu_find_leaf(struct cpu *cpu, uint64_t address)
{
	unsigned low = 0, high = cpu->leaf_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (cpu->leaves[middle].first <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 ? &cpu->leaves[low - 1] : NULL;
}

/* An address as the CPU takes it, which repeats the highest bit that is translated. */
static inline uint64_t cpu_address(const struct cpu *cpu, uint64_t iova)
{
	uint64_t mask = DMACORE_BIT_MASK(cpu->input_bits);

	return iova <= mask && iova > mask / 2 ? iova | ~mask : iova;
}

static inline void cpu_walk_one(struct walker *walker, struct walk *walk)
{
	struct cpu *cpu = walker->device;
	uint64_t address = cpu->is_signed ? walk->iova : cpu_address(cpu, walk->iova);
	uint64_t phys, offset;
	bool mapped = monitor_translate(&walker->qemu, address, &phys);
	const struct cpu_leaf *leaf = cpu_find_leaf(cpu, address);

	walk->reason = 0;
	walk->phys = WALK_NOWHERE;
	walk->result = 0;
	if (leaf && (leaf->size == 0 ? !mapped : address - leaf->first >= leaf->size))
		leaf = NULL;
	if (!leaf) {
		/* In no list, and yet mapped: the two do not agree. */
		if (!mapped)
			walk->result = WALK_ABSENT | WALK_BEYOND;
		return;
	}
	offset = address - leaf->first;
	if (mapped != !!(leaf->rights & WALK_READ) ||
	    (mapped && ((phys ^ (leaf->phys + offset)) & cpu->phys_mask)))
		return;
	if (walk->access & ~leaf->rights) {
		walk->result = WALK_DENIED;
		return;
	}
	walk->result = WALK_REACHED;
	walk->phys = mapped ? phys : leaf->phys + offset;
}

static inline void cpu_walk(struct walker *walker, struct walk *walks, unsigned count)
{
	struct cpu *cpu = walker->device;

	cpu->leaf_count = 0;
	cpu->list(walker);
	for (unsigned i = 0; i < count; i++)
		cpu_walk_one(walker, &walks[i]);
}

static inline void cpu_start(struct walker *walker, struct cpu *cpu,
			     void (*list)(struct walker *walker), uint64_t phys_mask)
{
	cpu->list = list;
	cpu->phys_mask = phys_mask;
	walker->device = cpu;
	walker->walk = cpu_walk;
	monitor_start(&walker->qemu);
}

#endif /* SUPPORT_WALKER_CPU_H */
