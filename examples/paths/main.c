/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * One driver, and devices to which memory takes every path that there is. The driver maps a list
 * of buffers, tells the device its segments, and unmaps it; it asks nothing of the device and has
 * no case for any path. The device turns each byte around.
 *
 * A table says of each device what it is, and which paths two of its buffers are to take. Before
 * it maps them the library says which they will take, and why; afterwards each segment says which
 * it took. The last device has a queue too, which is translated while a buffer is direct.
 *
 * The exit status is 0 only if the three agree, and every byte came back as it must.
 */

#include "machine.h"

#include <errno.h>

#define ENTRIES 4
/* Of these buffers the paths are shown: one in low memory, and the last one. */
#define SHOWN 2
/* All buffers lie in the first pages of a bank. */
#define USED ((uint64_t)8 * PAGE)
#define BEFORE 0x5a
#define AFTER 0xa5

static const char *const path_names[] = {
	[DMACORE_PATH_REFUSED] = "refused",
	[DMACORE_PATH_DIRECT] = "direct",
	[DMACORE_PATH_BOUNCED] = "bounced",
	[DMACORE_PATH_IOMMU] = "through the IOMMU",
	[DMACORE_PATH_IOMMU_BOUNCED] = "through the IOMMU with bounced ends",
	[DMACORE_PATH_BUS_ADDRESS] = "at a bus address",
	[DMACORE_PATH_OPS] = "by mapping functions",
};

static bool failed;

/* A device, and the paths that it shows. */
struct kind {
	const char *name;
	bool has_32_bits; /* of address, not 64 */
	uint32_t flags; /* bits of enum dmacore_device_flags */
	uint32_t domain; /* one of enum dmacore_domain_type; 0: it is behind no IOMMU */
	enum place place; /* if it is not ALONE, the last buffer is memory of the adapter */
	const struct dmacore_mapping_ops *ops;
	dmacore_dma_t queue_mask; /* what its queue is to be below; 0: it has none */
	/* Of the buffer, or the queue, in low memory, and of the last buffer. */
	uint32_t paths[ENTRIES - SHOWN];
};

static const struct kind kinds[] = {
	{ .name = "without an IOMMU", .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_DIRECT } },
	{ .name = "with 32 bits of address",
	  .has_32_bits = true,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_BOUNCED } },
	{ .name = "past the caches",
	  .flags = DMACORE_DEVICE_NONCOHERENT,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_DIRECT } },
	{ .name = "behind an IOMMU",
	  .domain = DMACORE_DOMAIN_DMA,
	  .paths = { DMACORE_PATH_IOMMU, DMACORE_PATH_IOMMU } },
	{ .name = "not trusted",
	  .flags = DMACORE_DEVICE_UNTRUSTED,
	  .domain = DMACORE_DOMAIN_DMA,
	  .paths = { DMACORE_PATH_IOMMU_BOUNCED, DMACORE_PATH_IOMMU } },
	{ .name = "in an identity domain",
	  .domain = DMACORE_DOMAIN_IDENTITY,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_DIRECT } },
	{ .name = "in a blocked domain",
	  .domain = DMACORE_DOMAIN_BLOCKED,
	  .paths = { DMACORE_PATH_REFUSED, DMACORE_PATH_REFUSED } },
	{ .name = "beside an adapter with memory",
	  .place = SAME,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_BUS_ADDRESS } },
	{ .name = "across the host bridge from the adapter",
	  .domain = DMACORE_DOMAIN_DMA,
	  .place = ACROSS,
	  .paths = { DMACORE_PATH_IOMMU, DMACORE_PATH_IOMMU } },
	{ .name = "with mapping functions",
	  .ops = &machine_bridge,
	  .paths = { DMACORE_PATH_OPS, DMACORE_PATH_OPS } },
	{ .name = "with mapping functions that low memory bypasses",
	  .ops = &machine_bypassed_bridge,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_OPS } },
	{ .name = "in a hybrid domain, with 32 bits",
	  .has_32_bits = true,
	  .domain = DMACORE_DOMAIN_HYBRID,
	  .paths = { DMACORE_PATH_DIRECT, DMACORE_PATH_IOMMU } },
	{ .name = "in a hybrid domain, with a queue of 31 bits",
	  .domain = DMACORE_DOMAIN_HYBRID,
	  .queue_mask = DMACORE_BIT_MASK(31),
	  .paths = { DMACORE_PATH_IOMMU, DMACORE_PATH_DIRECT } },
};

static void check(const char *name, bool is_right, const char *otherwise)
{
	if (is_right)
		return;
	failed = true;
	fprintf(stderr, "paths: %s: %s\n", name, otherwise);
}

/* What the library says of a buffer, or of a queue, before it is mapped. */
static struct dmacore_explanation explain(struct dmacore_device *device, dmacore_phys_t phys,
					  uint64_t size, uint32_t use)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };

	MUST(dmacore_device_explain(device, phys, size, use, 0, &explanation));
	return explanation;
}

/* Prints what it said. The path that it said and the one that was taken must be as @expected. */
static void show(const char *name, dmacore_phys_t phys,
		 const struct dmacore_explanation *explanation, uint32_t expected, uint32_t taken)
{
	char text[256];

	MUST(dmacore_explanation_describe(explanation, text, sizeof(text)));
	printf("    %9llx: %s\n", (unsigned long long)phys, text);
	if (explanation->path == expected && taken == expected)
		return;
	failed = true;
	fprintf(stderr, "paths: %s: memory at %llx: expected %s, explained as %s, and taken %s\n",
		name, (unsigned long long)phys, path_names[expected], path_names[explanation->path],
		path_names[taken]);
}

/* The device: of all that it is told of it turns each byte around. */
static void turn_around(struct dmacore_view *view, const struct dmacore_sg *segments, size_t count)
{
	static uint8_t bytes[BANK];

	for (size_t i = 0; i < count; i++) {
		MUST(dmacore_view_read(view, segments[i].dma, bytes, segments[i].dma_size));
		for (uint64_t at = 0; at < segments[i].dma_size; at++)
			bytes[at] = (uint8_t)~bytes[at];
		MUST(dmacore_view_write(view, segments[i].dma, bytes, segments[i].dma_size));
	}
}

/* The driver. @told receives the segments that the device was told, and @out_count how many. */
static int run(struct dmacore_device *device, struct dmacore_view *view, struct dmacore_sg *list,
	       struct dmacore_sg *told, size_t *out_count)
{
	int error;

	error = dmacore_map_list(device, list, ENTRIES, DMACORE_BIDIRECTIONAL, 0, 0, out_count);
	if (error)
		return error;
	memcpy(told, list, ENTRIES * sizeof(*list));
	turn_around(view, told, *out_count);
	MUST(dmacore_unmap_list(device, list, ENTRIES, DMACORE_BIDIRECTIONAL, 0));
	return 0;
}

/*
 * The path of a buffer's first byte. Segments have the bytes of the list in order, so it is found
 * by counting. No buffer that is shown is large enough to be cut.
 */
static uint32_t path_taken(const struct dmacore_sg *list, size_t buffer,
			   const struct dmacore_sg *segments, size_t count)
{
	uint64_t before = 0;

	for (size_t i = 0; i < buffer; i++)
		before += list[i].size;
	for (size_t i = 0; i < count; i++) {
		if (before < segments[i].dma_size)
			return segments[i].path;
		before -= segments[i].dma_size;
	}
	return DMACORE_PATH_REFUSED;
}

/* Each byte of the list must have been turned around, if it was mapped, and no other. */
static bool is_as_it_must(const struct machine *machine, const struct dmacore_sg *list,
			  bool was_mapped)
{
	static uint8_t must[USED];

	for (unsigned bank = 0; bank < BANKS; bank++) {
		memset(must, BEFORE, USED);
		for (unsigned i = 0; i < ENTRIES && was_mapped; i++)
			if (list[i].phys - machine_banks[bank] < USED)
				memset(must + (list[i].phys - machine_banks[bank]), AFTER,
				       list[i].size);
		if (memcmp(machine->bytes[bank], must, USED) != 0)
			return false;
	}
	return true;
}

/* Two buffers side by side, one that starts and ends in the middle of pages, and one at @last. */
static void fill_list(struct dmacore_sg *list, dmacore_phys_t last)
{
	dmacore_sg_init(list, ENTRIES);
	dmacore_sg_set(&list[0], LOW, PAGE, 0);
	dmacore_sg_set(&list[1], LOW + PAGE, 2 * PAGE, 0);
	dmacore_sg_set(&list[2], LOW + 4 * PAGE + 100, 1000, 0);
	dmacore_sg_set(&list[3], last, PAGE, 0);
}

static void try_buffers(struct machine *machine, const struct kind *kind,
			struct dmacore_device *device, struct dmacore_view *view)
{
	struct dmacore_explanation explanations[ENTRIES];
	struct dmacore_sg list[ENTRIES], told[ENTRIES];
	unsigned long maintained = machine->maintained;
	size_t count = 0;
	bool is_right;
	int error;

	fill_list(list, kind->place == ALONE ? HIGH : ADAPTER);
	for (unsigned i = 0; i < BANKS; i++)
		memset(machine->bytes[i], BEFORE, USED);
	for (unsigned i = SHOWN; i < ENTRIES; i++)
		explanations[i] = explain(device, list[i].phys, list[i].size, DMACORE_STREAMING);
	error = run(device, view, list, told, &count);

	is_right = is_as_it_must(machine, list, error == 0);
	printf("%s: %d buffers ", kind->name, ENTRIES);
	if (error)
		printf("are refused");
	else
		printf("in %zu segments", count);
	if (!is_right)
		printf(", and bytes are WRONG");
	else
		printf(", %s", error ? "no byte has changed" : "each byte came back");
	if (machine->maintained != maintained)
		printf("; caches were maintained %lu times", machine->maintained - maintained);
	printf("\n");
	for (unsigned i = SHOWN; i < ENTRIES; i++)
		show(kind->name, list[i].phys, &explanations[i], kind->paths[i - SHOWN],
		     path_taken(list, i, told, count));
	check(kind->name, is_right, "bytes are wrong");
}

/* Allocates a queue, and shows which path it takes: that is in the record which is kept of it. */
static char *allocate_queue(struct machine *machine, const struct kind *kind,
			    struct dmacore_device *device, dmacore_dma_t *out_dma)
{
	struct dmacore_mapping_info record = { 0 };
	struct dmacore_explanation explanation;
	dmacore_phys_t phys;
	size_t count;
	void *queue;

	MUST(dmacore_alloc_coherent(device, PAGE, &queue, out_dma));
	MUST(dmacore_device_list_mappings(device, *out_dma, *out_dma, &record, 1, &count));
	phys = LOW + (uint64_t)((uint8_t *)queue - machine->bytes[0]);
	explanation = explain(device, phys, PAGE, DMACORE_COHERENT);
	show(kind->name, phys, &explanation, kind->paths[0], record.path);
	return queue;
}

/* Maps a page of high memory, as a list of one, and shows which path it takes. */
static void map_page(const char *name, struct dmacore_device *device, uint32_t expected,
		     struct dmacore_sg *page)
{
	struct dmacore_explanation explanation = explain(device, HIGH, PAGE, DMACORE_STREAMING);
	size_t count;

	dmacore_sg_init(page, 1);
	dmacore_sg_set(page, HIGH, PAGE, 0);
	MUST(dmacore_map_list(device, page, 1, DMACORE_BIDIRECTIONAL, 0, 0, &count));
	show(name, HIGH, &explanation, expected, page->path);
}

/*
 * A queue that is translated, because there is no memory below its mask, beside a buffer that is
 * direct. Linux needs hooks of the architecture for that; here a path is decided for each range,
 * and the mapping remembers it. So the buffer stays direct when bypass is turned off, while a new
 * mapping of it is translated.
 */
static void try_queue(struct machine *machine, const struct kind *kind,
		      struct dmacore_device *device, struct dmacore_view *view,
		      struct dmacore_domain *domain)
{
	const uint8_t *byte = machine->bytes[1];
	struct dmacore_sg direct, translated;
	dmacore_dma_t queue_dma;
	size_t live;
	char *queue;

	memset(machine->bytes[1], BEFORE, PAGE);
	printf("%s: it is live beside a buffer, and the driver saw what the device wrote\n",
	       kind->name);
	queue = allocate_queue(machine, kind, device, &queue_dma);
	map_page(kind->name, device, kind->paths[1], &direct);
	MUST(dmacore_view_write(view, queue_dma, "done", sizeof("done")));
	check(kind->name, strcmp(queue, "done") == 0, "the driver sees nothing in the queue");

	printf("    bypass is turned off: the live buffer stays, and once more it is translated\n");
	MUST(dmacore_domain_set_bypass(domain, false));
	map_page(kind->name, device, DMACORE_PATH_IOMMU, &translated);
	turn_around(view, &direct, 1);
	check(kind->name, *byte == AFTER, "the device does not reach the live buffer");
	turn_around(view, &translated, 1);
	check(kind->name, *byte == BEFORE, "the device does not reach the new mapping");

	MUST(dmacore_unmap_list(device, &direct, 1, DMACORE_BIDIRECTIONAL, 0));
	MUST(dmacore_unmap_list(device, &translated, 1, DMACORE_BIDIRECTIONAL, 0));
	MUST(dmacore_free_coherent(device, PAGE, queue, queue_dma));
	MUST(dmacore_device_list_mappings(device, 0, UINT64_MAX, NULL, 0, &live));
	check(kind->name, live == 0, "a mapping is left");
	check(kind->name, dmacore_view_write(view, direct.dma, "", 1) == -ENOENT,
	      "the device reaches memory that is not mapped for it");
}

/* Makes a device, attaches it to a domain if it is behind the IOMMU, and ends it after the test. */
static void with_device(struct machine *machine, const struct kind *kind)
{
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_domain_options domain_options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain = NULL;
	struct dmacore_device *device;
	struct dmacore_view *view;

	options.streaming_mask = DMACORE_BIT_MASK(kind->has_32_bits ? 32 : 64);
	options.coherent_mask = kind->queue_mask;
	options.flags = kind->flags;
	options.iommu = kind->domain ? machine->iommu : NULL;
	options.bounce_pool = kind->ops ? NULL : machine->pool;
	options.bridge = machine->bridges[kind->place];
	options.mapping_ops = kind->ops;
	options.mapping_ops_opaque = machine;
	MUST(dmacore_device_create(machine->system, &options, &device));
	MUST(dmacore_view_create(device, &view));
	if (kind->domain) {
		domain_options.type = kind->domain;
		MUST(dmacore_domain_create(machine->iommu, &domain_options, &domain));
		MUST(dmacore_domain_attach(domain, device));
	}
	if (kind->queue_mask)
		try_queue(machine, kind, device, view, domain);
	else
		try_buffers(machine, kind, device, view);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
	dmacore_domain_destroy(domain);
}

int main(void)
{
	static struct machine machine;

	machine_start(&machine);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		with_device(&machine, &kinds[i]);
	machine_stop(&machine);
	return failed;
}
