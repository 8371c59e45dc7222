/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Memory that an adapter for remote memory has registered, and of which pages are replaced while the adapter
 * uses the rest: as when a process's pages are moved. Behind an IOMMU the adapter notices nothing, because
 * addresses stay; where it is mapped directly, the driver tells it the one that has changed. The driver is the
 * same. The exit status is 0 only if all that must hold did.
 */

#include "hca.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE HCA_PAGE_SIZE
#define MEMORY_BASE UINT64_C(0x80000000)
#define PAGES 64
/* Each such page is replaced, from the first on. The thread uses the others. */
#define EVERY 8
#define ROUNDS 25
/* How often the thread is around at least while pages are replaced. */
#define THREAD_ROUNDS_MIN 20

/* For what must not fail if the example is to show anything. */
#define MUST(call)                                                                               \
	do {                                                                                     \
		int must_error = (call);                                                         \
		if (must_error) {                                                                \
			fprintf(stderr, "registration: %s: %s\n", #call, strerror(-must_error)); \
			exit(1);                                                                 \
		}                                                                                \
	} while (0)

/* At first the region has every third page of memory; what comes in their place is taken from between. */
struct pages {
	uint8_t *memory;
	struct dmacore_phys_range list[PAGES];
	unsigned int next_spare;
};

static bool all_hold = true;

static void check(bool holds, const char *what)
{
	if (!holds)
		printf("  WRONG: %s\n", what);
	all_hold &= holds;
}

static uint8_t *at(const struct pages *pages, dmacore_phys_t phys)
{
	return pages->memory + (phys - MEMORY_BASE);
}

/* The driver: what it registers, and how the adapter comes to know of it. */
struct registration {
	struct dmacore_device *device;
	struct hca *hca;
	struct dmacore_transfer_request request;
	struct dmacore_transfer transfer;
};

/*
 * Writes the entries of @count pages from @page on, from an iterator that starts there. Segments are cut at pages,
 * so that each is an entry.
 */
static void write_table(struct registration *registration, unsigned int page, unsigned int count)
{
	struct dmacore_transfer_iterator iterator;

	MUST(dmacore_transfer_begin(registration->device, &registration->request,
				    &registration->transfer, (uint64_t)page * PAGE_SIZE,
				    &iterator));
	while (count > 0) {
		struct dmacore_segment segments[16];
		size_t found;

		MUST(dmacore_transfer_next(&iterator, segments, count < 16 ? count : 16, &found));
		check(found > 0, "segments end before the pages do");
		for (size_t i = 0; i < found; i++, page++, count--) {
			check(segments[i].size == PAGE_SIZE, "a segment is not a page");
			hca_set_page(registration->hca, page, segments[i].dma);
		}
		if (found == 0)
			return;
	}
}

static void start(struct registration *registration, struct pages *pages)
{
	struct dmacore_transfer_request *request = &registration->request;

	*request = (struct dmacore_transfer_request)DMACORE_TRANSFER_REQUEST_INIT;
	request->ranges = pages->list;
	request->count = PAGES;
	request->direction = DMACORE_BIDIRECTIONAL;
	request->flags = DMACORE_TRANSFER_REPLACEABLE;
	request->max_segment_size = PAGE_SIZE;
	request->segment_boundary_mask = PAGE_SIZE - 1;
	registration->transfer = (struct dmacore_transfer)DMACORE_TRANSFER_EMPTY;
	MUST(dmacore_transfer_map(registration->device, request, &registration->transfer));
	write_table(registration, 0, PAGES);
}

/* Lets other memory take the place of a page, and tells the adapter of that page alone. */
static void replace(struct registration *registration, struct pages *pages, unsigned int page,
		    dmacore_phys_t phys)
{
	MUST(dmacore_transfer_replace(registration->device, &registration->transfer,
				      (uint64_t)page * PAGE_SIZE, phys, PAGE_SIZE));
	pages->list[page].phys = phys;
	write_table(registration, page, 1);
}

/* What a peer wrote before is in the old memory; what it writes afterwards is in the new, and there alone. */
static void replace_and_check(struct registration *registration, struct pages *pages,
			      unsigned int page, uint64_t mark, bool has_iommu)
{
	dmacore_phys_t old = pages->list[page].phys, new;
	uint64_t offset = (uint64_t)page * PAGE_SIZE;
	uint64_t before = mark, after = ~mark, found = 0;
	dmacore_dma_t old_dma = hca_page(registration->hca, page);
	dmacore_dma_t neighbour = hca_page(registration->hca, page + 1);

	new = MEMORY_BASE + ((uint64_t)pages->next_spare * 3 + 1) * PAGE_SIZE;
	pages->next_spare = (pages->next_spare + 1) % PAGES;
	/* A page that has been replaced is ordinary memory, and may be used again. */
	memset(at(pages, new), 0, PAGE_SIZE);

	MUST(hca_write(registration->hca, offset, &before, sizeof(before)));
	replace(registration, pages, page, new);
	check(!memcmp(at(pages, old), &before, sizeof(before)),
	      "what was written before is not in the old memory");
	check((hca_page(registration->hca, page) == old_dma) == has_iommu,
	      has_iommu ? "an address has changed" : "an address has stayed");
	check(hca_page(registration->hca, page + 1) == neighbour, "another entry has changed");

	MUST(hca_read(registration->hca, offset, &found, sizeof(found)));
	check(found == 0, "the old memory is still read");
	MUST(hca_write(registration->hca, offset, &after, sizeof(after)));
	check(!memcmp(at(pages, new), &after, sizeof(after)),
	      "what was written afterwards is not in the new memory");
	check(!memcmp(at(pages, old), &before, sizeof(before)), "the old memory is still written");
	/* Behind an IOMMU the same address leads to the new memory now. */
	check(has_iommu || hca_read_at(registration->hca, old_dma, &found, sizeof(found)),
	      "the old address leads somewhere");
}

/* What no replacement may be is refused, and changes nothing. */
static void fail_to_replace(struct registration *registration, const struct pages *pages)
{
	uint64_t value = 0x123456789abcdef, found = 0;
	dmacore_dma_t dma = hca_page(registration->hca, 0);

	check(dmacore_transfer_replace(registration->device, &registration->transfer, 0,
				       pages->list[0].phys + 8, PAGE_SIZE) != 0,
	      "memory at another place of its page was taken");
	check(dmacore_transfer_replace(registration->device, &registration->transfer, PAGE_SIZE / 2,
				       MEMORY_BASE + PAGE_SIZE, PAGE_SIZE) != 0,
	      "a page was replaced where none starts");
	write_table(registration, 0, 1);
	MUST(hca_write(registration->hca, 0, &value, sizeof(value)));
	MUST(hca_read(registration->hca, 0, &found, sizeof(found)));
	check(found == value && hca_page(registration->hca, 0) == dma &&
		      !memcmp(at(pages, pages->list[0].phys), &value, sizeof(value)),
	      "a replacement that failed changed something");
}

static unsigned int take_faults(struct dmacore_device *device)
{
	struct dmacore_fault faults[16];
	unsigned int total = 0;
	size_t count;

	do {
		MUST(dmacore_fault_take(device, faults, 16, &count, NULL));
		total += count;
	} while (count == 16);
	return total;
}

/* When a region is not registered any more, no page of it is reached, though the table still has it. */
static void end(struct registration *registration)
{
	unsigned int reached = 0;
	uint64_t found;

	MUST(dmacore_transfer_unmap(registration->device, &registration->transfer));
	for (unsigned int i = 0; i < PAGES; i++)
		reached += !hca_read(registration->hca, (uint64_t)i * PAGE_SIZE, &found,
				     sizeof(found));
	check(reached == 0, "the adapter reaches what is not registered any more");
}

static void fill(struct pages *pages)
{
	memset(pages->memory, 0, (uint64_t)PAGES * 3 * PAGE_SIZE);
	pages->next_spare = 0;
	/* From the last to the first, so that no page goes on where another ends. */
	for (unsigned int i = 0; i < PAGES; i++)
		pages->list[i] = (struct dmacore_phys_range){
			.phys = MEMORY_BASE + (uint64_t)(PAGES - 1 - i) * 3 * PAGE_SIZE,
			.size = PAGE_SIZE,
		};
}

/* All of it for one device. */
static void try(struct dmacore_device *device, struct pages *pages, const char *name,
		bool has_iommu)
{
	struct dmacore_device_statistics left = { .struct_size = sizeof(left) };
	struct registration registration = { .device = device };
	uint64_t thread_rounds, failures, lasts[PAGES];
	unsigned int replaced = 0, changed = 0, faults;
	dmacore_dma_t first_table[PAGES];

	fill(pages);
	MUST(hca_create(device, PAGES, &registration.hca));
	start(&registration, pages);
	for (unsigned int i = 0; i < PAGES; i++)
		first_table[i] = hca_page(registration.hca, i);

	MUST(hca_start(registration.hca, EVERY));
	for (unsigned int round = 0;
	     round < ROUNDS || hca_rounds(registration.hca) < THREAD_ROUNDS_MIN; round++) {
		for (unsigned int page = 0; page < PAGES; page += EVERY, replaced++)
			replace_and_check(&registration, pages, page, round * 1000 + page + 1,
					  has_iommu);
		/* Let the thread run where there is one processor. */
		sched_yield();
	}
	hca_stop(registration.hca, &thread_rounds, &failures);
	check(failures == 0, "the thread was disturbed");
	for (unsigned int i = 0; i < PAGES; i++) {
		memcpy(&lasts[i], at(pages, pages->list[i].phys), sizeof(lasts[i]));
		check(i % EVERY == 0 || lasts[i] == thread_rounds,
		      "a page that was not replaced lacks what was written last");
		changed += hca_page(registration.hca, i) != first_table[i];
	}
	check(changed == (has_iommu ? 0 : PAGES / EVERY), "not the right addresses have changed");
	fail_to_replace(&registration, pages);

	/* Directly, each old address was tried, and refused. */
	faults = take_faults(device);
	MUST(dmacore_device_statistics(device, &left));
	check(left.fault_total == (has_iommu ? 0 : replaced) && faults <= left.fault_total,
	      "the adapter was refused what it may have");
	end(&registration);
	(void)take_faults(device);
	MUST(dmacore_device_statistics(device, &left));
	check(left.mapping_count == 0, "something is left mapped");
	hca_destroy(registration.hca);

	printf("%s: %u pages are registered, at 0x%" PRIx64 " and so on\n", name, PAGES,
	       first_table[0]);
	printf("  %u times a page was replaced; %u entries of the table have another address\n",
	       replaced, changed);
	printf("  meanwhile the adapter wrote and read the other pages %" PRIu64
	       " times around, %s\n",
	       thread_rounds, failures ? "and was DISTURBED" : "undisturbed");
}

int main(void)
{
	struct dmacore_system_options system_options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *direct, *translated, *lazy;
	struct dmacore_domain_options lazily = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domains[2];
	struct dmacore_iommu *iommu;
	struct dmacore_system *system;
	struct pages pages;

	MUST(dmacore_system_create(&system_options, &system));
	region.backing = DMACORE_MEMORY_HOST;
	region.base = MEMORY_BASE;
	region.size = (uint64_t)PAGES * 3 * PAGE_SIZE;
	region.host = aligned_alloc(PAGE_SIZE, region.size);
	if (!region.host)
		return 1;
	pages.memory = region.host;
	MUST(dmacore_memory_add(system, &region));

	options.name = "hca";
	options.streaming_mask = DMACORE_BIT_MASK(64);
	/* So that the device reaches what is mapped for it, and nothing else, without an IOMMU too. */
	options.flags = DMACORE_DEVICE_TRACK_DIRECT;
	MUST(dmacore_device_create(system, &options, &direct));
	try(direct, &pages, "Mapped directly", false);

	MUST(dmacore_iommu_create(system, NULL, &iommu));
	options.flags = 0;
	options.iommu = iommu;
	MUST(dmacore_domain_create(iommu, NULL, &domains[0]));
	MUST(dmacore_device_create(system, &options, &translated));
	MUST(dmacore_domain_attach(domains[0], translated));
	try(translated, &pages, "Behind an IOMMU", true);

	/* Replacing is strict there too: the old memory may be used again at once. */
	lazily.type = DMACORE_DOMAIN_DMA_LAZY;
	MUST(dmacore_domain_create(iommu, &lazily, &domains[1]));
	MUST(dmacore_device_create(system, &options, &lazy));
	MUST(dmacore_domain_attach(domains[1], lazy));
	try(lazy, &pages, "In a lazy domain", true);

	dmacore_device_destroy(lazy);
	dmacore_device_destroy(translated);
	dmacore_device_destroy(direct);
	dmacore_domain_destroy(domains[1]);
	dmacore_domain_destroy(domains[0]);
	dmacore_iommu_destroy(iommu);
	dmacore_system_destroy(system);
	free(pages.memory);
	if (all_hold)
		printf("What was written before was in the old memory, what came afterwards in the new.\n");
	return all_hold ? 0 : 1;
}
