/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_WALKER_X86_H
#define SUPPORT_WALKER_X86_H

/*
 * QEMU's x86-64 CPU, which walks tables of 4 and 5 levels. The facts are those of the Intel 64 and
 * IA-32 Architectures Software Developer's Manual, volume 3, named SDM below.
 *
 * The walk for the monitor checks no reserved bits. QEMU 7.2 lists 50 bits of outputs. What the
 * tables above the leaves permit it lists of 4 levels, while of 5 it takes seconds to list nothing.
 */

#include "walker_cpu.h"

/*
 * SDM 2.5, Control Registers: PG, ET and PE; PAE; LA57. SDM 2.2.1: NXE, LMA and LME of IA32_EFER.
 */
#define X86_CR0 0x80000011
#define X86_CR4 0x20
#define X86_CR4_LA57 0x1000
#define X86_EFER 0xd00

#define X86_BASE (16 * MIB)
#define X86_LISTED_PHYS ((UINT64_C(1) << 50) - 1)

enum x86_state {
	/* Numbers of registers. */
	X86_STATE_CR3,
	X86_STATE_CR4,
	/* Levels of the table that is judged. */
	X86_STATE_LEVELS,
};

/* Each leaf: address, output, and letters, as "XGPDACTUW", of which X says no-execute. */
static inline void x86_list_leaves(struct walker *walker)
{
	const char *line = monitor_command(&walker->qemu, "info tlb");
	struct cpu_leaf leaf = { .size = 0 };
	char letters[16];

	while (sscanf(line, "%" SCNx64 ": %" SCNx64 " %15s", &leaf.first, &leaf.phys, letters) ==
	       3) {
		leaf.rights = WALK_READ | (letters[0] == 'X' ? 0 : WALK_EXECUTE) |
			      (letters[7] == 'U' ? WALK_USER : 0) |
			      (letters[8] == 'W' ? WALK_WRITE : 0);
		cpu_add_leaf(walker, &leaf);
		line = strchr(line, '\n') + 1;
	}
}

/* Each range, its end not included, and what tables and leaves together permit, as "urw". */
static inline void x86_list_ranges(struct walker *walker)
{
	const char *line = monitor_command(&walker->qemu, "info mem");
	struct cpu *cpu = walker->device;
	uint64_t first, end;
	char letters[16];
	unsigned i = 0;

	while (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*x %15s", &first, &end, letters) == 3) {
		uint32_t rights = WALK_READ | WALK_EXECUTE | (letters[0] == 'u' ? WALK_USER : 0) |
				  (letters[2] == 'w' ? WALK_WRITE : 0);

		if (i < cpu->leaf_count && cpu->leaves[i].first != first)
			qemu_fail(&walker->qemu, "lists ranges that do not begin with a leaf");
		for (; i < cpu->leaf_count && cpu->leaves[i].first - first < end - first; i++)
			cpu->leaves[i].rights &= rights;
		line = strchr(line, '\n') + 1;
	}
	if (i != cpu->leaf_count)
		qemu_fail(&walker->qemu, "lists leaves that are in no range");
}

static inline void x86_list(struct walker *walker)
{
	x86_list_leaves(walker);
	if (walker->state[X86_STATE_LEVELS] == 4)
		x86_list_ranges(walker);
}

static inline void x86_load(struct walker *walker, uint64_t root,
			    const struct walker_geometry *geometry)
{
	struct cpu *cpu = walker->device;

	cpu->input_bits = 12 + 9 * geometry->levels;
	cpu->is_signed = geometry->is_signed;
	walker->state[X86_STATE_LEVELS] = geometry->levels;
	debugger_set(&walker->qemu, walker->state[X86_STATE_CR4],
		     X86_CR4 | (geometry->levels == 5 ? X86_CR4_LA57 : 0));
	debugger_set(&walker->qemu, walker->state[X86_STATE_CR3], root);
}

static inline void x86_start(struct walker *walker, struct cpu *cpu)
{
	/* It is not run, but the machine wants some. */
	static const uint8_t firmware[65536];
	static const struct qemu_plan plan = {
		.program = "qemu-system-x86_64",
		.machine = "q35",
		.arguments = { "-cpu", "max" },
		.regions = { { 0, 0, GIB } },
		.firmware = firmware,
		.firmware_size = sizeof(firmware),
		.debugged = true,
	};
	struct qemu *qemu = &walker->qemu;

	walker_start(walker, &plan, X86_BASE);
	walker->load = x86_load;
	cpu_start(walker, cpu, x86_list, X86_LISTED_PHYS);
	walker->state[X86_STATE_CR3] = debugger_find(qemu, "cr3");
	walker->state[X86_STATE_CR4] = debugger_find(qemu, "cr4");
	debugger_set(qemu, walker->state[X86_STATE_CR4], X86_CR4);
	debugger_set(qemu, walker->state[X86_STATE_CR3], walker_page(walker, 0));
	debugger_set(qemu, debugger_find(qemu, "efer"), X86_EFER);
	debugger_set(qemu, debugger_find(qemu, "cr0"), X86_CR0);
}

#endif /* SUPPORT_WALKER_X86_H */
