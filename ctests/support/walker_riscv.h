/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_RISCV_H
#define SUPPORT_WALKER_RISCV_H

/*
 * QEMU's RISC-V CPU, which walks Sv39, Sv48 and Sv57. The facts are those of The RISC-V Instruction
 * Set Manual, volume II, Privileged Architecture, named Privileged below.
 *
 * Translation checks that a leaf may be read, and knows Svnapot; the list does not, so only its
 * permissions count.
 */

#include "walker_cpu.h"

/* Privileged, Supervisor Address Translation and Protection Register: the mode, and the root. */
#define RISCV_SATP(levels, root) ((uint64_t)((levels) + 5) << 60 | (root) >> 12)

/* Privileged 1.2, Privilege Levels. */
#define RISCV_SUPERVISOR 1

#define RISCV_MEMORY (2 * GIB)
#define RISCV_BASE (RISCV_MEMORY + 16 * MIB)

enum riscv_state {
	/* The number of the register. */
	RISCV_STATE_SATP,
};

/* Ranges of leaves that follow each other: address, output, size, and letters, as "rwxugad". */
static inline void riscv_list(struct walker *walker)
{
	struct cpu *cpu = walker->device;
	const char *line = monitor_command(&walker->qemu, "info mem");
	struct cpu_leaf leaf;
	char rights[16];

	/* Two lines of heading. */
	for (unsigned i = 0; i < 2 && *line; i++)
		line = strchr(line, '\n') + 1;
	while (sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64 " %15s", &leaf.first, &leaf.phys,
		      &leaf.size, rights) == 4) {
		uint64_t mask = DMACORE_BIT_MASK(cpu->input_bits);

		leaf.rights =
			(rights[0] == 'r' ? WALK_READ : 0) | (rights[1] == 'w' ? WALK_WRITE : 0) |
			(rights[2] == 'x' ? WALK_EXECUTE : 0) | (rights[3] == 'u' ? WALK_USER : 0);
		/* A range may go on from the lower half into the upper one. */
		if (leaf.first <= mask / 2 && leaf.first + leaf.size - 1 > mask / 2) {
			struct cpu_leaf upper = leaf;

			leaf.size = mask / 2 + 1 - leaf.first;
			upper.first = cpu_address(cpu, mask / 2 + 1);
			upper.phys += leaf.size;
			upper.size -= leaf.size;
			cpu_add_leaf(walker, &leaf);
			cpu_add_leaf(walker, &upper);
		} else {
			leaf.first = cpu_address(cpu, leaf.first);
			cpu_add_leaf(walker, &leaf);
		}
		line = strchr(line, '\n') + 1;
	}
}

static inline void riscv_load(struct walker *walker, uint64_t root,
			      const struct walker_geometry *geometry)
{
	struct cpu *cpu = walker->device;

	cpu->input_bits = 12 + 9 * geometry->levels;
	cpu->is_signed = geometry->is_signed;
	debugger_set(&walker->qemu, walker->state[RISCV_STATE_SATP],
		     RISCV_SATP(geometry->levels, root));
}

static inline void riscv_start(struct walker *walker, struct cpu *cpu)
{
	static const struct qemu_plan plan = {
		.program = "qemu-system-riscv64",
		.machine = "virt",
		/* Physical memory protection would forbid what no rule permits. */
		.arguments = { "-cpu", "rv64,pmp=off,svnapot=on,svpbmt=on", "-bios", "none" },
		.regions = { { RISCV_MEMORY, 0, GIB } },
		.debugged = true,
	};
	struct qemu *qemu = &walker->qemu;

	walker_start(walker, &plan, RISCV_BASE);
	walker->load = riscv_load;
	cpu_start(walker, cpu, riscv_list, 0);
	walker->state[RISCV_STATE_SATP] = debugger_find(qemu, "satp");
	/* In machine mode, in which it starts, nothing is translated. */
	debugger_set(qemu, debugger_find(qemu, "priv"), RISCV_SUPERVISOR);
}

#endif /* SUPPORT_WALKER_RISCV_H */
