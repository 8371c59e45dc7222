/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pagetable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int allocate_page(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct pages *pages = opaque;
	unsigned int slot = 0;

	CHECK(size == pages->granule || (size == pages->root_size && pages->count == 0));
	while (slot < PAGES_MAX && pages->hosts[slot] != NULL)
		slot++;
	if ((pages->countdown != 0 && --pages->countdown == 0) || slot == PAGES_MAX ||
	    posix_memalign(&out_page->host, size, size) != 0) {
		pages->has_failed = true;
		return -EIO;
	}
	memset(out_page->host, 0xff, size);
	out_page->phys = pages->first_phys + slot * SLOT_SIZE;
	pages->hosts[slot] = out_page->host;
	pages->count++;
	pages->bytes += size;
	return 0;
}

static void *page_at(const struct pages *pages, uint64_t phys)
{
	uint64_t slot = (phys - pages->first_phys) / SLOT_SIZE;

	CHECK(phys >= pages->first_phys && slot < PAGES_MAX && pages->hosts[slot] != NULL);
	return pages->hosts[slot];
}

static void free_page(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct pages *pages = opaque;

	CHECK(page->phys % SLOT_SIZE == 0);
	CHECK(page_at(pages, page->phys) == page->host);
	pages->hosts[(page->phys - pages->first_phys) / SLOT_SIZE] = NULL;
	pages->count--;
	pages->bytes -= size;
	free(page->host);
}

static int read_word(dmacore_phys_t phys, uint64_t *out_word, void *opaque)
{
	const struct pages *pages = opaque;
	const char *page;

	CHECK(phys % 8 == 0);
	if (pages->is_heap) {
		*out_word = *(const uint64_t *)(uintptr_t)phys;
		return 0;
	}
	page = page_at(pages, phys);
	memcpy(out_word, page + phys % SLOT_SIZE, 8);
	return 0;
}

void create_table(struct run *run, bool is_heap)
{
	struct dmacore_table_allocator allocator = DMACORE_TABLE_ALLOCATOR_INIT;
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	const struct shape *shape = &run->twin.shape;
	struct pages *pages = &run->pages;

	/* Addresses of the process have 47 bits, which the hardware must have as well. */
	pages->is_heap = is_heap && shape->output_bits >= 47;
	pages->granule = shape->granule;
	pages->root_size = shape_root_size(shape);
	/* There are no wider ones. */
	pages->first_phys = UINT64_C(1) << (shape->output_bits < 52 ? shape->output_bits - 1 : 51);
	allocator.allocate = allocate_page;
	allocator.free = free_page;
	allocator.opaque = pages;
	options.format = shape->format;
	options.levels = shape->levels;
	options.input_bits = shape->input_bits;
	options.output_bits = shape->output_bits;
	options.granule = shape->granule;
	options.features = shape->features;
	options.allocator = pages->is_heap ? NULL : &allocator;
	fuzz_trace("create(%s, features %u, %s)", shape->name, shape->features,
		   pages->is_heap ? "the heap" : "an allocator");
	CHECK(dmacore_pagetable_create(&options, &run->table) == 0);
	check_statistics(run, false);
}

void starve(struct run *run, unsigned int page_count, unsigned int count)
{
	run->pages.has_failed = false;
	run->pages.countdown = 1 + page_count;
	allocation_fail_after(count);
}

bool was_starved(struct run *run)
{
	bool has_failed = allocation_has_failed() || run->pages.has_failed;

	run->pages.countdown = 0;
	run->pages.has_failed = false;
	return has_failed;
}

/*
 * VT-d 5.0, section 9.8, second-stage paging entries: bits 0 and 1 are read and write permission,
 * neither: not present; bit 7 at the levels of 2 MiB and 1 GiB: a leaf; bits 51 to 12: the address;
 * bit 11 of a leaf: accesses snoop.
 */
static bool walk_vtd(struct run *run, uint64_t root, uint64_t iova, struct leaf *out_leaf)
{
	const uint64_t address_bits = ((UINT64_C(1) << 52) - 1) & ~UINT64_C(0xfff);

	for (unsigned int level = run->twin.shape.levels - 1;; level--) {
		unsigned int shift = 12 + 9 * level;
		uint64_t word;

		CHECK(read_word(root + (iova >> shift & 511) * 8, &word, &run->pages) == 0);
		if ((word & 3) == 0)
			return false;
		if (level == 0 || (word & 1 << 7) != 0) {
			uint64_t size = UINT64_C(1) << shift;

			CHECK(level <= 2);
			CHECK((word & address_bits) % size == 0);
			out_leaf->first = iova & ~(size - 1);
			out_leaf->last = out_leaf->first + (size - 1);
			out_leaf->target = word & address_bits;
			out_leaf->access = word & 3;
			if ((word & 1 << 11) != 0)
				out_leaf->access |= DMACORE_ACCESS_CACHEABLE;
			return true;
		}
		CHECK((word & 3) == 3);
		root = word & address_bits;
	}
}

static void check_vtd(struct run *run, const struct leaf *leaf, uint64_t iova)
{
	struct leaf walked;
	uint64_t root;

	if (run->twin.shape.format != DMACORE_PAGETABLE_VTD_SECOND_STAGE ||
	    iova > run->twin.low_last)
		return;
	CHECK(dmacore_pagetable_root(run->table, &root) == 0);
	if (!walk_vtd(run, root, iova, &walked)) {
		CHECK(leaf == NULL);
		return;
	}
	CHECK(leaf != NULL);
	CHECK(walked.first == leaf->first);
	CHECK(walked.last == leaf->last);
	CHECK(walked.target == leaf->target);
	CHECK(walked.access == leaf->access);
}

static void check_walk(struct run *run, const struct leaf *leaf, uint64_t iova, uint32_t access)
{
	const struct shape *shape = &run->twin.shape;
	const bool is_amd = shape->format == DMACORE_PAGETABLE_AMD_V1;
	struct dmacore_pagetable_amd_v1 amd = { .struct_size = sizeof(amd) };
	struct dmacore_walk_options options = DMACORE_WALK_OPTIONS_INIT;
	struct dmacore_translation found;
	struct dmacore_walk_fault fault;
	int expected = leaf != NULL && leaf_permits(leaf, access) ? 0 : -EFAULT;

	CHECK(dmacore_pagetable_root(run->table, &options.root) == 0);
	CHECK(dmacore_pagetable_amd_v1(run->table, &amd) == (is_amd ? 0 : -EOPNOTSUPP));
	CHECK(!is_amd || amd.root == options.root);
	options.format = shape->format;
	/* As many as it has grown to. */
	options.levels = is_amd ? amd.mode : shape->levels;
	options.input_bits = shape->input_bits;
	options.output_bits = shape->output_bits;
	options.granule = shape->granule;
	options.features = shape->features;
	options.read = read_word;
	options.opaque = &run->pages;
	CHECK(dmacore_pagetable_walk(&options, iova, access, &found, &fault) == expected);
	if (expected == 0) {
		/* Not all of a run whose words differ. */
		CHECK(leaf->first <= found.first && found.first <= iova);
		CHECK(iova <= found.last && found.last <= leaf->last);
		CHECK(found.target == leaf->target + (found.first - leaf->first));
		CHECK(found.access == leaf->access);
	} else if (leaf != NULL) {
		CHECK(fault.reason == DMACORE_WALK_FAULT_DENIED);
	} else {
		CHECK(fault.reason == DMACORE_WALK_FAULT_NOT_PRESENT ||
		      fault.reason == DMACORE_WALK_FAULT_INPUT_WIDTH);
	}
}

static void check_dirty(struct run *run, const struct leaf *leaf, uint64_t iova)
{
	const uint64_t granule = run->pages.granule;
	uint64_t bits = 0;

	if ((run->twin.shape.features & DMACORE_PAGETABLE_DIRTY) == 0 || leaf == NULL)
		return;
	/* Through such nobody writes; so what is not tracked there is nobody's concern. */
	if (leaf->is_dirty && (leaf->access & DMACORE_ACCESS_WRITE) == 0)
		return;
	CHECK(dmacore_pagetable_read_dirty(run->table, iova & -granule, granule, 0, &bits) == 0);
	CHECK(bits == leaf->is_dirty);
}

void check_translation(struct run *run, uint64_t iova, uint32_t access)
{
	const struct leaf *leaf = twin_find(&run->twin, iova);
	struct dmacore_translation got;
	int expected = 0;

	memset(&got, 0x5a, sizeof(got));
	if (leaf == NULL)
		expected = -ENOENT;
	else if (!leaf_permits(leaf, access))
		expected = -EACCES;
	CHECK(dmacore_pagetable_translate(run->table, iova, access, &got) == expected);
	if (expected == 0) {
		CHECK(got.first == leaf->first);
		CHECK(got.last == leaf->last);
		CHECK(got.target == leaf->target);
		CHECK(got.access == leaf->access);
		CHECK(got.reserved == 0);
	} else {
		CHECK(got.first == UINT64_C(0x5a5a5a5a5a5a5a5a));
	}
	/* Walkers are not asked for kinds of memory. */
	check_walk(run, leaf, iova, access & 15);
	check_vtd(run, leaf, iova);
	check_dirty(run, leaf, iova);
}

void check_around(struct run *run, uint64_t iova, uint64_t size)
{
	const uint64_t probes[] = { iova - 1, iova, iova + size - 1, iova + size };

	for (uint32_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
		check_translation(run, probes[i], i);
}

void check_statistics(struct run *run, bool is_reclaimed)
{
	struct dmacore_pagetable_statistics got = { .struct_size = sizeof(got) };
	const struct pages *pages = &run->pages;

	CHECK(dmacore_pagetable_statistics(run->table, &got) == 0);
	CHECK(got.mapped_bytes == twin_mapped_bytes(&run->twin));
	CHECK(got.table_bytes == (got.table_count - 1) * pages->granule + pages->root_size);
	CHECK(got.retired_count < got.table_count);
	if (!pages->is_heap) {
		CHECK(got.table_count == pages->count);
		CHECK(got.table_bytes == pages->bytes);
	}
	if (is_reclaimed)
		CHECK(got.retired_count == 0);
}

void check_growth(struct run *run, uint64_t before, int result)
{
	struct dmacore_pagetable_amd_v1 amd = { .struct_size = sizeof(amd) };
	struct twin *twin = &run->twin;
	uint64_t reach_last;

	if (twin->shape.format != DMACORE_PAGETABLE_AMD_V1)
		return;
	CHECK(dmacore_pagetable_amd_v1(run->table, &amd) == 0);
	reach_last = shape_reach_last(&twin->shape, amd.mode);
	CHECK(reach_last >= before);
	CHECK(reach_last == twin->reach_last || result != 0);
	twin->reach_last = reach_last;
}
