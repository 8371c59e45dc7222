/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Domains in which tables of a guest translate, in front of a domain that confines it. */

#include "support/nested.h"

#include "support/listener.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Addresses of the device, and guest-physical ones of data behind the tables. */
#define SPOT UINT64_C(0x12345000)
#define DATA (GUEST_BASE + 26 * PAGE)

/* Like assert_faulted(), and of this stage. */
#define assert_faulted_in(machine, stage_, reason_, first_, last_, access_) \
	do {                                                                \
		struct dmacore_fault taken_ = faults_take(machine);         \
                                                                            \
		assert_int_equal(taken_.reason, reason_);                   \
		assert_int_equal(taken_.stage, stage_);                     \
		assert_int_equal(taken_.first, first_);                     \
		assert_int_equal(taken_.last, last_);                       \
		assert_int_equal(taken_.access, access_);                   \
		assert_no_faults(machine);                                  \
	} while (0)

#define assert_leads(machine, iova, first_, last_, target_, access_)                     \
	do {                                                                             \
		struct dmacore_translation found_, same_;                                \
                                                                                         \
		assert_ok(dmacore_view_translate((machine)->view, iova, 0, &found_));    \
		assert_ok(dmacore_domain_translate((machine)->domain, iova, 0, &same_)); \
		assert_memory_equal(&found_, &same_, sizeof(found_));                    \
		assert_int_equal(found_.first, first_);                                  \
		assert_int_equal(found_.last, last_);                                    \
		assert_int_equal(found_.target, target_);                                \
		assert_int_equal(found_.access, access_);                                \
	} while (0)

static int read_one(struct machine *machine, uint64_t iova)
{
	uint8_t byte;

	return dmacore_view_read(machine->view, iova, &byte, 1);
}

static int write_one(struct machine *machine, uint64_t iova)
{
	return dmacore_view_write(machine->view, iova, "x", 1);
}

/* Creation. */

static void domain_create__takes_nothing_but_a_parent_and_tables(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_domain_options good = nested_options(guest), options;
	struct dmacore_walk_options second = DMACORE_WALK_OPTIONS_INIT;
	struct dmacore_domain *other, *domain;
	struct dmacore_group *group;
	struct dmacore_iommu *iommu;

#define refuses(change, error)                                                                   \
	do {                                                                                     \
		options = good;                                                                  \
		change;                                                                          \
		assert_creates_nothing(dmacore_domain_create(machine->iommu, &options, &domain), \
				       error, domain);                                           \
	} while (0)
	assert_ok(dmacore_group_create(machine->system, &group));
	refuses(options.parent = NULL, EINVAL);
	refuses(options.guest_table = NULL, EINVAL);
	refuses(options.group = group, EINVAL);
	refuses(options.first = PAGE, EINVAL);
	refuses(options.last = PAGE - 1, EINVAL);
	refuses(options.flush_entries = 1, EINVAL);
	refuses(options.flush_age = 1, EINVAL);
	refuses(options.flags = 1, EINVAL);
	refuses(options.reserved = 1, EINVAL);
	/* What is not nested has neither. */
	for (uint32_t type = DMACORE_DOMAIN_IDENTITY; type <= DMACORE_DOMAIN_DMA_LAZY; type++) {
		refuses(options.type = type, EINVAL);
		refuses(options.type = type; options.guest_table = NULL, EINVAL);
		refuses(options.type = type; options.parent = NULL, EINVAL);
		if (type == DMACORE_DOMAIN_UNMANAGED)
			continue;
		/* And cannot be a parent. */
		other = make_domain(machine, type, 0, 0);
		refuses(options.parent = other, EINVAL);
		dmacore_domain_destroy(other);
	}
	refuses(options.parent = machine->domain, EINVAL);
	assert_ok(dmacore_iommu_create(machine->system, NULL, &iommu));
	assert_creates_nothing(dmacore_domain_create(iommu, &good, &domain), EINVAL, domain);
	dmacore_iommu_destroy(iommu);
	dmacore_group_destroy(group);

	/* Tables that are none, and those that say how to be read. */
	struct dmacore_walk_options walk = guest->walk;
#define refuses_walk(change, error)     \
	do {                            \
		guest->walk = walk;     \
		refuses(change, error); \
		guest->walk = walk;     \
	} while (0)
	refuses_walk(guest->walk.format = 0, EINVAL);
	refuses_walk(guest->walk.format = 8, EINVAL);
	refuses_walk(guest->walk.levels = 7, EINVAL);
	refuses_walk(guest->walk.granule = 65536, EINVAL);
	refuses_walk(guest->walk.root += 8, EINVAL);
	refuses_walk(guest->walk.features = DMACORE_PAGETABLE_RUNS, EOPNOTSUPP);
	refuses_walk(guest->walk.read = (int (*)(dmacore_phys_t, uint64_t *, void *))abort, EINVAL);
	refuses_walk(guest->walk.opaque = guest, EINVAL);
	refuses_walk(guest->walk.second_stage = &second, EINVAL);
	refuses_walk(guest->walk.struct_size = 0, EINVAL);
	refuses_walk(guest->walk.struct_size--, EINVAL);
	refuses_walk(guest->walk.struct_size = SIZE_MAX, E2BIG);
#define create_it dmacore_domain_create(machine->iommu, options, &domain)
	check_struct_size(struct dmacore_domain_options, good, create_it, domain,
			  dmacore_domain_destroy);
}

static void domain_create__copies_the_description_of_the_tables(void **state)
{
	struct guest *guest = *state;

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	memset(&guest->walk, 0x5a, sizeof(guest->walk));
	assert_ok(read_one(&guest->machine, SPOT));
}

static void domain_destroy__of_a_parent_leaves_it_to_the_nested_domain(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	dmacore_domain_destroy(guest->parent);
	guest->parent = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_ok(read_one(machine, SPOT));
	assert_true(machine->tables.live > 0);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	assert_int_equal(machine->tables.live, 0);
	guest->parent = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	machine->domain = make_nested(guest);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

/* Translation. */

static void view__reaches_what_tables_of_each_format_lead_to(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	uint8_t bytes[3 * PAGE], written[3 * PAGE];

	for (uint32_t format = 1; format < DMACORE_PAGETABLE_RISCV_SECOND_STAGE; format++) {
		guest_use(guest, format, 0);
		guest_map(guest, SPOT, DATA, PAGE, BOTH);
		guest_map(guest, SPOT + PAGE, GUEST_HIGH, 2 * PAGE, BOTH);
		fill(guest_host(guest, DATA), PAGE, format);
		fill(guest_host(guest, GUEST_HIGH), 2 * PAGE, format + 10);
		assert_ok(dmacore_view_read(machine->view, SPOT, bytes, sizeof(bytes)));
		assert_memory_equal(bytes, guest_host(guest, DATA), PAGE);
		assert_memory_equal(bytes + PAGE, guest_host(guest, GUEST_HIGH), 2 * PAGE);
		fill(written, sizeof(written), format + 20);
		assert_ok(dmacore_view_write(machine->view, SPOT, written, sizeof(written)));
		assert_memory_equal(written, guest_host(guest, DATA), PAGE);
		assert_memory_equal(written + PAGE, guest_host(guest, GUEST_HIGH), 2 * PAGE);
		assert_fails(read_one(machine, SPOT - 1), ENOENT);
		assert_faulted_in(machine, 1, DMACORE_FAULT_NOT_MAPPED, SPOT - 1, SPOT - 1, READ);
		/* Beyond what the tables resolve, where there is such an address. */
		if (format == DMACORE_PAGETABLE_AMD_V1)
			continue;
		assert_fails(read_one(machine, UINT64_C(1) << 63), ENOENT);
		assert_faulted_in(machine, 1, DMACORE_FAULT_NOT_MAPPED, UINT64_C(1) << 63,
				  UINT64_C(1) << 63, READ);
	}
}

static void translate__tells_what_leaves_of_both_stages_have_in_common(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;

	/* The parent's leaves are small, the guest's is large and leads beyond them on both sides. */
	assert_int_equal(GUEST_BASE % (2 * MIB), 0);
	guest_map(guest, 4 * MIB, GUEST_BASE, 2 * MIB, BOTH);
	assert_leads(machine, 4 * MIB + 26 * PAGE + 5, 4 * MIB + 26 * PAGE, 4 * MIB + 27 * PAGE - 1,
		     guest_phys(DATA), 3);
	assert_fails(read_one(machine, 4 * MIB + 2 * RAM_SIZE), ENOENT);
	assert_faulted_in(machine, 2, DMACORE_FAULT_NOT_MAPPED, 4 * MIB + 2 * RAM_SIZE,
			  4 * MIB + 2 * RAM_SIZE, READ);
	/* The guest's leaves are small, the parent's is large. */
	assert_ok(dmacore_domain_map(guest->parent, 16 * GIB, 16 * GIB, GIB, BOTH));
	guest_map(guest, SPOT, 16 * GIB + 5 * PAGE, PAGE, READ);
	assert_leads(machine, SPOT + 7, SPOT, SPOT + PAGE - 1, 16 * GIB + 5 * PAGE, READ);
	assert_fails(read_one(machine, SPOT), EFAULT);
	/* Both stages permit it: what lies behind is nobody's fault. */
	assert_faulted_in(machine, 0, DMACORE_FAULT_NO_MEMORY, SPOT, SPOT, READ);
}

static void translate__permits_what_both_stages_permit(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_translation found;

	assert_ok(dmacore_domain_unmap(guest->parent, DATA, 4 * PAGE, 0, NULL));
	assert_ok(dmacore_domain_map(guest->parent, DATA, guest_phys(DATA), PAGE, READ));
	assert_ok(dmacore_domain_map(guest->parent, DATA + PAGE, guest_phys(DATA) + PAGE, PAGE,
				     WRITE));
	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	guest_map(guest, SPOT + 2 * PAGE, DATA, 2 * PAGE, READ);
	assert_leads(machine, SPOT, SPOT, SPOT + PAGE - 1, guest_phys(DATA), READ);
	assert_leads(machine, SPOT + PAGE, SPOT + PAGE, SPOT + 2 * PAGE - 1,
		     guest_phys(DATA) + PAGE, WRITE);
	assert_fails(write_one(machine, SPOT), EACCES);
	assert_faulted_in(machine, 2, DMACORE_FAULT_DENIED, SPOT, SPOT, WRITE);
	assert_fails(write_one(machine, SPOT + 2 * PAGE), EACCES);
	assert_faulted_in(machine, 1, DMACORE_FAULT_DENIED, SPOT + 2 * PAGE, SPOT + 2 * PAGE,
			  WRITE);
	assert_fails(dmacore_view_translate(machine->view, SPOT, WRITE, &found), EACCES);
	assert_fails(dmacore_domain_translate(machine->domain, SPOT, WRITE, &found), EACCES);
	/* What one permits alone and the other alone is nothing: the second has the last word. */
	assert_fails(read_one(machine, SPOT + 3 * PAGE), EACCES);
	assert_faulted_in(machine, 2, DMACORE_FAULT_DENIED, SPOT + 3 * PAGE, SPOT + 3 * PAGE, READ);
	assert_fails(dmacore_view_translate(machine->view, SPOT + 3 * PAGE, 0, &found), EACCES);
}

static void view__has_no_privilege(void **state)
{
	struct guest *guest = *state;

	guest_map(guest, SPOT, DATA, PAGE, BOTH | DMACORE_ACCESS_PRIVILEGED);
	assert_fails(read_one(&guest->machine, SPOT), EACCES);
	assert_faulted_in(&guest->machine, 1, DMACORE_FAULT_DENIED, SPOT, SPOT, READ);
}

static void view__sees_each_change_of_the_tables_at_once(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	uint8_t byte;

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	*guest_host(guest, DATA) = 1;
	*guest_host(guest, DATA + PAGE) = 2;
	assert_ok(dmacore_view_read(machine->view, SPOT, &byte, 1));
	assert_int_equal(byte, 1);
	guest_unmap(guest, SPOT, PAGE);
	guest_map(guest, SPOT, DATA + PAGE, PAGE, BOTH);
	assert_ok(dmacore_view_read(machine->view, SPOT, &byte, 1));
	assert_int_equal(byte, 2);
}

static void domain_unmap__in_the_parent_ends_what_is_nested(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;

	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	assert_ok(read_one(machine, SPOT));
	assert_ok(dmacore_domain_unmap(guest->parent, DATA, PAGE, 0, NULL));
	assert_fails(read_one(machine, SPOT), ENOENT);
	assert_faulted_in(machine, 2, DMACORE_FAULT_NOT_MAPPED, SPOT, SPOT, READ);
	assert_ok(read_one(machine, SPOT + PAGE));
	assert_ok(dmacore_domain_map(guest->parent, DATA, guest_phys(DATA), PAGE, BOTH));
	assert_ok(read_one(machine, SPOT));
}

static void domain_unmap__in_the_parent_reports_what_a_zero_copy_mapping_holds(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	size_t count;

	guest_map(guest, SPOT, DATA, PAGE, READ);
	guest_map(guest, SPOT + PAGE, GUEST_HIGH, PAGE, READ);
	assert_fails(dmacore_view_map(machine->view, SPOT + PAGE, PAGE + 1, READ, &mapping,
				      &segments, &count),
		     ENOENT);
	assert_null(mapping);
	assert_faulted_in(machine, 1, DMACORE_FAULT_NOT_MAPPED, SPOT + 2 * PAGE, SPOT + 2 * PAGE,
			  READ);
	assert_ok(
		dmacore_view_map(machine->view, SPOT, 2 * PAGE, READ, &mapping, &segments, &count));
	assert_int_equal(count, 2);
	guest_unmap(guest, SPOT, 2 * PAGE);
	assert_ok(dmacore_domain_unmap(guest->parent, DATA + PAGE, PAGE, 0, NULL));
	assert_no_reports(&machine->reports);
	assert_ok(dmacore_domain_unmap(guest->parent, DATA, PAGE, 0, NULL));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	assert_ok(dmacore_domain_unmap(guest->parent, GUEST_HIGH, PAGE, DMACORE_UNMAP_SPLIT, NULL));
	assert_reported(machine, DMACORE_REPORT_WARNING);
	/* The mapping keeps the domain, and so the parent. */
	assert_ok(dmacore_domain_replace(guest->parent, machine->device));
	dmacore_domain_destroy(machine->domain);
	assert_reported(machine, DMACORE_REPORT_WARNING);
	dmacore_view_unmap(mapping);
	machine->domain = make_nested(guest);
	assert_ok(dmacore_domain_replace(machine->domain, machine->device));
	assert_ok(dmacore_domain_unmap(guest->parent, GUEST_HIGH + PAGE, PAGE, DMACORE_UNMAP_SPLIT,
				       NULL));
	assert_no_reports(&machine->reports);
}

/* Tables that are wrong. */

/* The guest-physical place of the word of SPOT on a level, found in the tables themselves. */
static uint64_t place_of(struct guest *guest, unsigned level)
{
	uint64_t table = guest->walk.root;

	for (unsigned above = 3;; above--) {
		uint64_t place = table + 8 * (SPOT >> (12 + 9 * above) & 511);

		if (above == level)
			return place;
		table = *guest_word(guest, place) & UINT64_C(0x000ffffffffff000);
	}
}

static void view__faults_on_words_that_hardware_would_refuse(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_translation found;
	uint8_t bytes[PAGE + 1];

	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	/* A leaf of 512 GiB. */
	*guest_word(guest, place_of(guest, 3)) |= 0x80;
	assert_fails(dmacore_view_read(machine->view, SPOT + 1, bytes, sizeof(bytes)), EFAULT);
	/* It holds for all that this word is for. */
	assert_faulted_in(machine, 1, DMACORE_FAULT_BAD_TABLE, SPOT + 1, SPOT + 1 + PAGE, READ);
	assert_fails(dmacore_view_translate(machine->view, SPOT, 0, &found), EFAULT);
	assert_fails(dmacore_domain_translate(machine->domain, SPOT, 0, &found), ENOENT);
	*guest_word(guest, place_of(guest, 3)) &= ~UINT64_C(0x80);
	assert_ok(read_one(machine, SPOT));
}

static int never_read(uint64_t offset, void *buffer, size_t size, void *opaque)
{
	(void)offset;
	(void)buffer;
	(void)size;
	*(bool *)opaque = true;
	return 0;
}

static void view__faults_on_words_that_it_may_not_read(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_memory_region region = DMACORE_MEMORY_REGION_INIT;
	static uint64_t cut[1];
	bool has_read = false;
	uint64_t *word, good;

	region.backing = DMACORE_MEMORY_CALLBACKS;
	region.flags = DMACORE_MEMORY_READ_ONLY;
	region.base = UINT64_C(0x70000000);
	region.size = PAGE;
	region.read = never_read;
	region.opaque = &has_read;
	assert_ok(dmacore_memory_add(machine->system, &region));
	/* Seven bytes of memory, where a word has eight. */
	add_host_region(machine->system, UINT64_C(0x70002000), 7, cut, 0);
	assert_ok(dmacore_domain_map(guest->parent, 0x1000, UINT64_C(0x70000000), PAGE, BOTH));
	assert_ok(dmacore_domain_map(guest->parent, 0x2000, UINT64_C(0x70001000), PAGE, BOTH));
	assert_ok(dmacore_domain_map(guest->parent, 0x3000, LOW_BASE, PAGE, WRITE));
	assert_ok(dmacore_domain_map(guest->parent, 0x4000, UINT64_C(0x70002000), PAGE, BOTH));
	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	word = guest_word(guest, place_of(guest, 1));
	good = *word;
	/* Behind callbacks, without memory, not to be read, cut off, and not mapped. */
	for (uint64_t table = 0x1000; table <= 0x5000; table += 0x1000) {
		*word = (good & 0xfff) | table;
		assert_fails(read_one(machine, SPOT), EFAULT);
		assert_faulted_in(machine, 2, DMACORE_FAULT_BAD_TABLE, SPOT, SPOT, READ);
	}
	assert_false(has_read);
	*word = good;
	assert_ok(read_one(machine, SPOT));
	assert_ok(dmacore_memory_remove(machine->system, UINT64_C(0x70002000), 7));
}

/* Leads to memory of the guest often, with bits of all kinds. */
static uint64_t random_word(uint32_t format, uint64_t *seed)
{
	uint64_t kind = random_next(seed);
	uint64_t address = GUEST_BASE + random_next(seed) % 40 * PAGE;

	if (kind % 16 == 0)
		return kind >> 4;
	if (format == DMACORE_PAGETABLE_AMD_V1)
		return address | UINT64_C(3) << 61 | (kind >> 8) % 4 << 9 | 1;
	if (format >= DMACORE_PAGETABLE_RISCV_FIRST_STAGE)
		return address >> 2 | (kind % 3 ? 1 : 0xd3 | (kind >> 8 & 0x3c));
	return address | (kind >> 8 & (kind % 16 < 12 ? 0xe7f : 0xfff)) | 3;
}

static void view__survives_tables_of_arbitrary_words(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_translation found;
	struct dmacore_block block;
	uint64_t seed = 1;

	for (uint32_t format = 1; format <= 7; format++) {
		unsigned reached = 0;

		guest_use(guest, format, 0);
		for (uint64_t i = 0; i < GUEST_TABLES * 512; i++)
			*guest_word(guest, GUEST_BASE + 8 * i) = random_word(format, &seed);
		for (unsigned i = 0; i < 20000; i++) {
			uint64_t at = GUEST_BASE + random_next(&seed) % (GUEST_TABLES * 512) * 8;
			uint64_t iova = random_next(&seed) >> random_next(&seed) % 4 * 13;

			*guest_word(guest, at) = random_word(format, &seed);
			if (dmacore_view_translate(machine->view, iova, 0, &found) == 0) {
				reached++;
				assert_true(found.first <= iova && iova <= found.last);
			}
			assert_ok(dmacore_view_translate_block(machine->view, iova, 0, &block));
			assert_int_equal(iova & ~block.mask, block.first);
			/* A write that goes through may be one to the tables. */
			if (write_one(machine, iova) == 0)
				reached++;
			if (read_one(machine, iova) == 0)
				reached++;
			machine->faults.count = machine->faults.taken = 0;
		}
		if (reached < 10)
			fail_msg("in format %u %u look-ups reached something", format, reached);
		memset(machine->low, 0, RAM_SIZE);
		memset(machine->next, 0, RAM_SIZE);
	}
	for (size_t count = 1; count;) {
		struct dmacore_fault faults[16];

		assert_ok(dmacore_fault_take(machine->device, faults, 16, &count, NULL));
	}
}

/* Blocks, replays, DMA ranges, dirty. */

static void translate_block__tells_of_what_both_stages_do_alike(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_block block;

	guest_map(guest, 2 * MIB, GUEST_BASE, 2 * MIB, BOTH);
	assert_ok(dmacore_view_translate_block(machine->view, 2 * MIB + 5 * PAGE, READ, &block));
	assert_int_equal(block.first, 2 * MIB + 5 * PAGE);
	assert_int_equal(block.mask, PAGE - 1);
	assert_int_equal(block.phys, LOW_BASE + 5 * PAGE);
	assert_int_equal(block.access, BOTH);
	/* A hole of the guest's, as large as one word. */
	assert_ok(dmacore_view_translate_block(machine->view, 4 * MIB, READ, &block));
	assert_int_equal(block.first, 4 * MIB);
	assert_int_equal(block.mask, 2 * MIB - 1);
	assert_int_equal(block.access, 0);
	/* And one of the parent's, of as much as both holes have in common. */
	guest_map(guest, GIB, UINT64_C(1) << 40, 2 * MIB, BOTH);
	assert_ok(dmacore_view_translate_block(machine->view, GIB + PAGE, READ, &block));
	assert_int_equal(block.first, GIB);
	assert_int_equal(block.mask, 2 * MIB - 1);
	assert_int_equal(block.access, 0);
	/* Above what the tables resolve, as far as there is a block. */
	assert_ok(dmacore_view_translate_block(machine->view, UINT64_MAX, READ, &block));
	assert_int_equal(block.first, UINT64_C(1) << 63);
	assert_int_equal(block.mask, UINT64_MAX >> 1);
}

/* Whether the parent has noted a write to each of the guest's pages of data; it forgets them. */
static uint64_t take_dirty(struct guest *guest)
{
	uint64_t bits = 0;

	assert_ok(dmacore_domain_read_dirty(guest->parent, GUEST_BASE, 2 * RAM_SIZE,
					    DMACORE_DIRTY_CLEAR, &bits));
	return bits;
}

static void view_write__is_noted_in_the_parent_where_it_went(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_pagetable_options tables = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct dmacore_iommu_options options = DMACORE_IOMMU_OPTIONS_INIT;
	struct dmacore_view_mapping *mapping;
	const struct dmacore_view_segment *segments;
	uint8_t bytes[2 * PAGE] = { 0 };
	size_t count;

	dmacore_view_destroy(machine->view);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_device_destroy(machine->device);
	dmacore_domain_destroy(machine->domain);
	dmacore_domain_destroy(guest->parent);
	dmacore_iommu_destroy(machine->iommu);
	tables.features = DMACORE_PAGETABLE_DIRTY;
	options.pagetable = &tables;
	assert_ok(dmacore_iommu_create(machine->system, &options, &machine->iommu));
	guest->parent = make_domain(machine, DMACORE_DOMAIN_UNMANAGED, 0, 0);
	for (uint64_t page = 0; page < 32; page++)
		assert_ok(dmacore_domain_map(guest->parent, GUEST_BASE + page * PAGE,
					     guest_phys(GUEST_BASE + page * PAGE), PAGE, BOTH));
	machine->device = make_device(machine);
	machine->domain = make_nested(guest);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
	assert_ok(dmacore_domain_set_dirty_tracking(guest->parent, true));

	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	guest_map(guest, SPOT + 2 * PAGE, GUEST_BASE + 31 * PAGE, PAGE, BOTH);
	assert_ok(dmacore_view_read(machine->view, SPOT, bytes, sizeof(bytes)));
	assert_int_equal(take_dirty(guest), 0);
	assert_ok(write_one(machine, SPOT + PAGE - 1));
	assert_int_equal(take_dirty(guest), UINT64_C(1) << 26);
	assert_ok(dmacore_view_write(machine->view, SPOT + PAGE + 5, bytes, PAGE + 7));
	assert_int_equal(take_dirty(guest), UINT64_C(1) << 27 | UINT64_C(1) << 31);
	/* Of an access that is refused nothing is. */
	assert_fails(dmacore_view_write(machine->view, SPOT + 3 * PAGE - 1, bytes, 2), ENOENT);
	assert_faulted_in(machine, 1, DMACORE_FAULT_NOT_MAPPED, SPOT + 3 * PAGE, SPOT + 3 * PAGE,
			  WRITE);
	assert_int_equal(take_dirty(guest), 0);
	/* What is held for writing counts where it lies, whatever the guest's tables say by then. */
	assert_ok(dmacore_view_map(machine->view, SPOT + PAGE + 8, PAGE, WRITE, &mapping, &segments,
				   &count));
	assert_int_equal(count, 2);
	assert_ptr_equal(segments[0].host, guest_host(guest, DATA + PAGE + 8));
	assert_ptr_equal(segments[1].host, guest_host(guest, GUEST_BASE + 31 * PAGE));
	guest_unmap(guest, SPOT, 3 * PAGE);
	assert_ok(dmacore_domain_invalidate(machine->domain, 0, UINT64_MAX));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(take_dirty(guest), UINT64_C(1) << 27 | UINT64_C(1) << 31);
	dmacore_view_unmap(mapping);
	assert_int_equal(take_dirty(guest), UINT64_C(1) << 27 | UINT64_C(1) << 31);
	assert_int_equal(take_dirty(guest), 0);
	assert_no_faults(machine);
}

static void view__passes_what_the_bus_passes(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_dma_range range = { SPOT, 0, PAGE };
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_translation found;
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t bytes[2];

	guest_map(guest, SPOT - PAGE, DATA, 4 * PAGE, BOTH);
	options.ranges = &range;
	options.range_count = 1;
	options.fault = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &view));
	fill(guest_host(guest, DATA + 2 * PAGE - 1), 2, 1);
	assert_ok(dmacore_view_read(view, SPOT + PAGE - 1, bytes, 1));
	assert_int_equal(bytes[0], *guest_host(guest, DATA + 2 * PAGE - 1));
	assert_fails(dmacore_view_read(view, SPOT + PAGE - 1, bytes, 2), ENOENT);
	assert_fails(dmacore_view_read(view, SPOT - 1, bytes, 1), ENOENT);
	assert_ok(dmacore_view_translate(view, SPOT + 5, 0, &found));
	assert_int_equal(found.first, SPOT);
	assert_int_equal(found.last, SPOT + PAGE - 1);
	dmacore_view_destroy(view);
	assert_ok(dmacore_domain_detach(machine->domain, device));
	dmacore_device_destroy(device);
}

static void notifier_replay__tells_what_both_stages_map(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct listener listener;

	listener_start_all(&listener, machine);
	guest_map(guest, SPOT, DATA, 2 * PAGE, BOTH);
	guest_map(guest, SPOT + 2 * PAGE, GUEST_HIGH, PAGE, READ);
	guest_map(guest, SPOT + 3 * PAGE, UINT64_C(1) << 40, PAGE, READ);
	guest_map(guest, UINT64_C(1) << 40, GUEST_HIGH, PAGE, READ);
	assert_silent(&listener);
	assert_ok(dmacore_notifier_replay(listener.notifier));
	assert_told_map(&listener, SPOT, 2 * PAGE, guest_phys(DATA), BOTH);
	assert_told_map(&listener, SPOT + 2 * PAGE, PAGE, HIGH_BASE, READ);
	assert_told_map(&listener, UINT64_C(1) << 40, PAGE, HIGH_BASE, READ);
	listener_stop(&listener);
}

/* Calls that are for other domains. */

static void calls__that_fill_in_tables_refuse_a_nested_domain(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_domain_segment segment = { LOW_BASE, PAGE };
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	struct dmacore_domain_statistics statistics;
	uint64_t bits = 0;
	dmacore_dma_t dma;
	void *cpu;

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	assert_fails(dmacore_domain_map(machine->domain, SPOT, LOW_BASE, PAGE, BOTH), EOPNOTSUPP);
	assert_fails(dmacore_domain_map_list(machine->domain, SPOT, &segment, 1, BOTH), EOPNOTSUPP);
	assert_fails(dmacore_domain_unmap(machine->domain, SPOT, PAGE, 0, NULL), EOPNOTSUPP);
	assert_fails(dmacore_domain_flush(machine->domain), EOPNOTSUPP);
	assert_fails(dmacore_domain_set_dirty_tracking(machine->domain, true), EOPNOTSUPP);
	assert_fails(dmacore_domain_read_dirty(machine->domain, SPOT, PAGE, 0, &bits), EOPNOTSUPP);
	assert_fails(dmacore_map_single(machine->device, machine->low, PAGE, DMACORE_BIDIRECTIONAL,
					0, &dma),
		     EPERM);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	assert_fails(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &dma), EPERM);
	assert_reported(machine, DMACORE_REPORT_ERROR);
	assert_ok(dmacore_device_explain(machine->device, LOW_BASE, PAGE, DMACORE_STREAMING, 0,
					 &explanation));
	assert_int_equal(explanation.path, DMACORE_PATH_REFUSED);
	assert_int_equal(explanation.reasons, DMACORE_REASON_OWNED);
	assert_int_equal(explanation.error, EPERM);
	statistics = domain_statistics(machine->domain);
	assert_int_equal(statistics.device_count, 1);
	assert_int_equal(statistics.mapped_bytes, 0);
	assert_int_equal(statistics.table_count, 0);
	assert_ok(read_one(machine, SPOT));
}

/* Invalidation. */

static void domain_invalidate__tells_that_a_range_was_unmapped(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct listener listener;

	listener_start_all(&listener, machine);
	assert_fails(dmacore_domain_invalidate(NULL, 0, UINT64_MAX), EINVAL);
	assert_fails(dmacore_domain_invalidate(machine->domain, 1, 0), EINVAL);
	assert_fails(dmacore_domain_invalidate(guest->parent, 0, UINT64_MAX), EOPNOTSUPP);
	assert_silent(&listener);
	assert_ok(dmacore_domain_invalidate(machine->domain, SPOT, SPOT + PAGE - 1));
	assert_told_unmap(&listener, SPOT, PAGE);
	assert_ok(dmacore_domain_invalidate(machine->domain, 5, 5));
	assert_told_unmap(&listener, 5, 1);
	assert_ok(dmacore_domain_invalidate(machine->domain, 0, UINT64_MAX));
	assert_told_unmap(&listener, 0, 0);
	listener_stop(&listener);
}

/* Owners and PASIDs. */

static void owner__may_have_a_nested_domain_whoever_it_is(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	struct dmacore_view *view;
	struct listener listener;
	struct dmacore_group *group;
	char text[DMACORE_DESCRIPTION_SIZE];
	uint8_t byte;

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	listener_start_all(&listener, machine);
	options.pasid_count = 8;
	options.flags = DMACORE_DEVICE_UNTRUSTED;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	owner.kind = DMACORE_OWNER_USER;
	assert_ok(dmacore_device_claim_dma_owner(device, &owner));
	assert_ok(dmacore_device_attach(device, machine->domain, &owner));
	assert_ok(dmacore_device_group(device, &group));
	assert_ok(dmacore_group_describe(group, text, sizeof(text)));
	assert_non_null(strstr(text, "in a nested domain"));
	dmacore_group_destroy(group);

	assert_ok(dmacore_view_create_pasid(device, 3, &view));
	assert_fails(dmacore_device_invalidate_pasid(NULL, 3, 0, 1), EINVAL);
	assert_fails(dmacore_device_invalidate_pasid(device, 0, 0, 1), EINVAL);
	assert_fails(dmacore_device_invalidate_pasid(device, 8, 0, 1), EINVAL);
	assert_fails(dmacore_device_invalidate_pasid(device, 3, 1, 0), EINVAL);
	assert_fails(dmacore_device_invalidate_pasid(device, 3, 0, 1), ENOENT);
	assert_fails(dmacore_device_invalidate_pasid(device, 4, 0, 1), ENOENT);
	assert_ok(dmacore_device_attach_pasid(device, 3, guest->parent, &owner));
	assert_fails(dmacore_device_invalidate_pasid(device, 3, 0, 1), EOPNOTSUPP);
	assert_ok(dmacore_device_replace_pasid(device, 3, machine->domain, &owner));
	assert_ok(dmacore_view_read(view, SPOT, &byte, 1));
	assert_silent(&listener);
	assert_ok(dmacore_device_invalidate_pasid(device, 3, SPOT, SPOT + PAGE - 1));
	assert_told_unmap(&listener, SPOT, PAGE);
	assert_ok(dmacore_device_detach_pasid(device, 3, &owner));
	assert_fails(dmacore_device_invalidate_pasid(device, 3, 0, 1), ENOENT);
	dmacore_view_destroy(view);
	assert_ok(dmacore_device_release_dma_owner(device, &owner));
	dmacore_device_destroy(device);
	listener_stop(&listener);
}

static void nested_domain__honours_what_its_parent_does(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct dmacore_reserved_region region = { SPOT, SPOT + PAGE - 1, DMACORE_RESERVED_MSI, 0 };
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_domain_options parent = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain_options nested = nested_options(guest);
	struct dmacore_domain *domain, *honouring;
	struct dmacore_device *device;
	struct dmacore_group *group;

	options.reserved_regions = &region;
	options.reserved_region_count = 1;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_device_group(device, &group));
	assert_fails(dmacore_domain_attach(machine->domain, device), EPERM);
	parent.type = DMACORE_DOMAIN_UNMANAGED;
	parent.group = group;
	assert_ok(dmacore_domain_create(machine->iommu, &parent, &honouring));
	nested.parent = honouring;
	assert_ok(dmacore_domain_create(machine->iommu, &nested, &domain));
	assert_ok(dmacore_domain_attach(domain, device));
	assert_ok(dmacore_domain_detach(domain, device));
	dmacore_domain_destroy(domain);
	dmacore_domain_destroy(honouring);
	dmacore_group_destroy(group);
	dmacore_device_destroy(device);
}

/* Beside a naive model. */

/* Pages of the device's addresses, and guest-physical ones of data, that the model knows. */
#define INPUTS 24
#define MIDDLES 16

/* What is mapped: the number of a page in the next space, and what is permitted; access 0: nothing. */
struct model_page {
	unsigned to;
	uint32_t access;
};

struct model {
	struct model_page inputs[INPUTS];
	struct model_page middles[MIDDLES];
};

static uint64_t middle_address(unsigned middle)
{
	return GUEST_HIGH + middle * PAGE;
}

static void check_model(struct guest *guest, const struct model *model)
{
	struct machine *machine = &guest->machine;

	for (unsigned i = 0; i < INPUTS; i++) {
		const struct model_page *input = &model->inputs[i];
		const struct model_page *middle = &model->middles[input->to];
		uint32_t access = input->access & middle->access;
		uint64_t iova = SPOT + i * PAGE;
		struct dmacore_translation found;
		struct dmacore_block block;
		int error = dmacore_view_translate(machine->view, iova + 9, 0, &found);

		if (!input->access || !middle->access)
			assert_result(error, -ENOENT);
		else
			assert_result(error, access ? 0 : -EACCES);
		assert_ok(dmacore_view_translate_block(machine->view, iova, 0, &block));
		assert_int_equal(block.access, access);
		for (uint32_t wanted = READ; wanted <= WRITE; wanted++) {
			uint8_t byte = 0;
			int stage = !(input->access & wanted)  ? 1 :
				    !(middle->access & wanted) ? 2 :
								 0;
			const struct model_page *fault = stage == 1 ? input : middle;

			error = wanted == READ ? dmacore_view_read(machine->view, iova, &byte, 1) :
						 dmacore_view_write(machine->view, iova, &byte, 1);
			if (!stage) {
				assert_ok(error);
				continue;
			}
			assert_result(error, fault->access ? -EACCES : -ENOENT);
			assert_faulted_in(machine, stage,
					  fault->access ? DMACORE_FAULT_DENIED :
							  DMACORE_FAULT_NOT_MAPPED,
					  iova, iova, wanted);
			machine->faults.count = machine->faults.taken = 0;
		}
		if (!access)
			continue;
		assert_int_equal(found.access, access);
		assert_true(found.first <= iova && iova <= found.last);
		assert_int_equal(found.target + (iova - found.first),
				 NEXT_BASE + 8 * PAGE + middle->to % 8 * PAGE);
	}
}

static void nested_domain__does_what_a_model_of_pages_does(void **state)
{
	static const uint32_t formats[] = { DMACORE_PAGETABLE_VTD_SECOND_STAGE,
					    DMACORE_PAGETABLE_X86_64,
					    DMACORE_PAGETABLE_ARM64_STAGE1,
					    DMACORE_PAGETABLE_RISCV_FIRST_STAGE };
	struct guest *guest = *state;
	const char *wanted = getenv("DMACORE_SEED");
	uint64_t seed = wanted ? strtoull(wanted, NULL, 0) : 20;

	print_message("DMACORE_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned round = 0; round < 4; round++) {
		uint32_t format = formats[round];
		struct model model;

		memset(&model, 0, sizeof(model));
		assert_ok(dmacore_domain_unmap(guest->parent, GUEST_HIGH, RAM_SIZE,
					       DMACORE_UNMAP_CROSS_HOLES | DMACORE_UNMAP_SPLIT,
					       NULL));
		guest_use(guest, format, 0);
		for (unsigned step = 0; step < 1500; step++) {
			unsigned from = random_next(&seed) % INPUTS, to = random_next(&seed);
			/* Not all formats can permit writes alone. */
			uint32_t access = random_next(&seed) % 2 ? BOTH : READ;
			struct model_page *page = &model.inputs[from];

			if (random_next(&seed) % 2) {
				from %= MIDDLES;
				page = &model.middles[from];
				to %= 8;
				if (page->access)
					assert_ok(dmacore_domain_unmap(guest->parent,
								       middle_address(from), PAGE,
								       0, NULL));
				else
					assert_ok(dmacore_domain_map(
						guest->parent, middle_address(from),
						NEXT_BASE + 8 * PAGE + to * PAGE, PAGE, access));
			} else {
				to %= MIDDLES;
				if (page->access)
					guest_unmap(guest, SPOT + from * PAGE, PAGE);
				else
					guest_map(guest, SPOT + from * PAGE, middle_address(to),
						  PAGE, access);
			}
			page->access = page->access ? 0 : access;
			page->to = to;
			if (step % 8 == 0)
				check_model(guest, &model);
		}
		check_model(guest, &model);
	}
	assert_ok(dmacore_domain_unmap(guest->parent, GUEST_HIGH, RAM_SIZE,
				       DMACORE_UNMAP_CROSS_HOLES, NULL));
}

/* Beside other threads. */

struct race {
	struct guest *guest;
	atomic_bool is_over;
	atomic_uint reached;
};

/* A guest that leads the device to and fro, and to its own tables. */
static void *change_tables(void *opaque)
{
	struct race *race = opaque;
	uint64_t *word = guest_word(race->guest, place_of(race->guest, 0));
	uint64_t good = __atomic_load_n(word, __ATOMIC_RELAXED), seed = 3;

	while (!atomic_load(&race->is_over)) {
		uint64_t page = random_next(&seed) % 32;
		uint64_t bits = page < 28 ? good & 0xfff : random_next(&seed) & 0xfff;

		__atomic_store_n(word, (GUEST_BASE + page * PAGE) | bits, __ATOMIC_RELEASE);
		assert_ok(dmacore_domain_invalidate(race->guest->machine.domain, SPOT,
						    SPOT + PAGE - 1));
	}
	return NULL;
}

static void *access_spot(void *opaque)
{
	struct race *race = opaque;
	struct dmacore_view *view;
	uint8_t byte;

	assert_ok(dmacore_view_create(race->guest->machine.device, &view));
	while (!atomic_load(&race->is_over)) {
		/* In the middle of a page, where the tables are empty. */
		if (dmacore_view_write(view, SPOT + 2040, "z", 1) == 0)
			atomic_fetch_add(&race->reached, 1);
		if (dmacore_view_read(view, SPOT + 2040, &byte, 1) == 0)
			atomic_fetch_add(&race->reached, 1);
	}
	dmacore_view_destroy(view);
	return NULL;
}

static void domain_unmap__in_the_parent_is_strict_whatever_the_guest_does(void **state)
{
	struct guest *guest = *state;
	struct machine *machine = &guest->machine;
	struct race race = { .guest = guest };
	struct dmacore_fault faults[16];
	pthread_t threads[3];

	guest_map(guest, SPOT, DATA, PAGE, BOTH);
	assert_ok(pthread_create(&threads[0], NULL, change_tables, &race));
	assert_ok(pthread_create(&threads[1], NULL, access_spot, &race));
	assert_ok(pthread_create(&threads[2], NULL, access_spot, &race));
	for (unsigned i = 0; i < 100 || atomic_load(&race.reached) < 100; i++) {
		uint8_t *host = guest_host(guest, DATA) + 2040;

		assert_ok(dmacore_domain_unmap(guest->parent, GUEST_BASE + 24 * PAGE, 8 * PAGE,
					       DMACORE_UNMAP_SPLIT, NULL));
		/* Nobody writes to what is the test's now. */
		for (unsigned page = 0; page < 6; page++)
			host[page * PAGE] = i;
		for (unsigned turn = 0; turn < 20; turn++)
			sched_yield();
		for (unsigned page = 0; page < 6; page++)
			if (__atomic_load_n(&host[page * PAGE], __ATOMIC_RELAXED) != (uint8_t)i)
				atomic_store(&race.is_over, true);
		assert_false(atomic_load(&race.is_over));
		assert_ok(dmacore_domain_map(guest->parent, GUEST_BASE + 24 * PAGE,
					     guest_phys(GUEST_BASE + 24 * PAGE), 8 * PAGE, BOTH));
		sched_yield();
	}
	atomic_store(&race.is_over, true);
	for (unsigned i = 0; i < 3; i++)
		assert_ok(pthread_join(threads[i], NULL));
	for (size_t count = 1; count;)
		assert_ok(dmacore_fault_take(machine->device, faults, 16, &count, NULL));
	machine->faults.count = machine->faults.taken = 0;
	__atomic_store_n(guest_word(guest, place_of(guest, 0)), 0, __ATOMIC_RELAXED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_guest(domain_create__takes_nothing_but_a_parent_and_tables),
		test_with_guest(domain_create__copies_the_description_of_the_tables),
		test_with_guest(domain_destroy__of_a_parent_leaves_it_to_the_nested_domain),
		test_with_guest(view__reaches_what_tables_of_each_format_lead_to),
		test_with_guest(translate__tells_what_leaves_of_both_stages_have_in_common),
		test_with_guest(translate__permits_what_both_stages_permit),
		test_with_guest(view__has_no_privilege),
		test_with_guest(view__sees_each_change_of_the_tables_at_once),
		test_with_guest(domain_unmap__in_the_parent_ends_what_is_nested),
		test_with_guest(domain_unmap__in_the_parent_reports_what_a_zero_copy_mapping_holds),
		test_with_guest(view__faults_on_words_that_hardware_would_refuse),
		test_with_guest(view__faults_on_words_that_it_may_not_read),
		test_with_guest(view__survives_tables_of_arbitrary_words),
		test_with_guest(translate_block__tells_of_what_both_stages_do_alike),
		test_with_guest(view_write__is_noted_in_the_parent_where_it_went),
		test_with_guest(view__passes_what_the_bus_passes),
		test_with_guest(notifier_replay__tells_what_both_stages_map),
		test_with_guest(calls__that_fill_in_tables_refuse_a_nested_domain),
		test_with_guest(domain_invalidate__tells_that_a_range_was_unmapped),
		test_with_guest(owner__may_have_a_nested_domain_whoever_it_is),
		test_with_guest(nested_domain__honours_what_its_parent_does),
		test_with_guest(nested_domain__does_what_a_model_of_pages_does),
		test_with_guest(domain_unmap__in_the_parent_is_strict_whatever_the_guest_does),
	};

	return run_group("nested", tests);
}
