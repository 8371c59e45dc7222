/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The formats of page tables beside the fastest of them. They differ in bits, and in little else,
 * so none should be much slower. The one with granules of 64 KiB has a level less; all others have
 * four here.
 */

#include "bench_pagetable.h"

#include <stdio.h>

static const struct {
	const char *name;
	uint32_t format;
	uint32_t granule;
} formats[] = {
	{ "vtd", DMACORE_PAGETABLE_VTD_SECOND_STAGE, 4096 },
	{ "x86_64", DMACORE_PAGETABLE_X86_64, 4096 },
	{ "amd_v1", DMACORE_PAGETABLE_AMD_V1, 4096 },
	{ "arm64_stage1", DMACORE_PAGETABLE_ARM64_STAGE1, 4096 },
	{ "arm64_stage1_16k", DMACORE_PAGETABLE_ARM64_STAGE1, 16384 },
	{ "arm64_stage1_64k", DMACORE_PAGETABLE_ARM64_STAGE1, 65536 },
	{ "arm64_stage2", DMACORE_PAGETABLE_ARM64_STAGE2, 4096 },
	{ "riscv_first", DMACORE_PAGETABLE_RISCV_FIRST_STAGE, 4096 },
	{ "riscv_second", DMACORE_PAGETABLE_RISCV_SECOND_STAGE, 4096 },
};

#define FORMAT_COUNT (sizeof(formats) / sizeof(formats[0]))

static void open_format(struct job *job, size_t index)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;

	options.format = formats[index].format;
	options.granule = formats[index].granule;
	bench_open_job(job, &options, NULL);
}

/* One leaf, in a table that is there. */
static void open_pairs(struct job *job, size_t index)
{
	uint64_t granule = formats[index].granule;

	*job = (struct job){
		.first = IOVA + granule, .size = granule, .leaf_size = granule, .phys = 2 * granule
	};
	open_format(job, index);
	bench_prepare_pairs(job);
}

/* An output address that is one leaf off keeps AMD's tables from larger ones too. */
static void open_translate(struct job *job, size_t index)
{
	uint64_t granule = formats[index].granule;

	*job = (struct job){
		.first = IOVA, .size = UINT64_C(1) << 20, .leaf_size = granule, .phys = granule
	};
	open_format(job, index);
	bench_map(job);
}

/* All formats in turns, whichever are wanted, because any may be the fastest. */
static void measure_formats(const char *prefix, void (*open)(struct job *job, size_t index),
			    void (*run)(void *context, uint64_t count), uint64_t count)
{
	struct job jobs[FORMAT_COUNT];
	struct bench_run runs[FORMAT_COUNT];
	size_t fastest = 0;
	char name[64];

	if (!bench_wants(prefix))
		return;
	for (size_t i = 0; i < FORMAT_COUNT; i++) {
		open(&jobs[i], i);
		runs[i] = (struct bench_run){ .run = run, .context = &jobs[i], .count = count };
	}
	bench_time_many_turns(runs, FORMAT_COUNT, TURNS);
	for (size_t i = 0; i < FORMAT_COUNT; i++) {
		bench_close_job(&jobs[i], NULL);
		if (runs[i].time < runs[fastest].time)
			fastest = i;
	}
	for (size_t i = 0; i < FORMAT_COUNT; i++) {
		snprintf(name, sizeof(name), "%s%s", prefix, formats[i].name);
		if (bench_wants(name))
			bench_row(name, "ns", runs[i].time, "fastest format", runs[fastest].time);
	}
}

void bench_pagetable_formats(void)
{
	measure_formats("pagetable.map_unmap.4k.", open_pairs, bench_run_pairs,
			bench_count(200000, 100));
	measure_formats("pagetable.translate.1m.", open_translate, bench_run_translate,
			bench_count(500000, 100));
}
