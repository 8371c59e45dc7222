/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_NESTED_H
#define SUPPORT_NESTED_H

/*
 * A guest on a machine: its physical memory is mapped in an unmanaged domain, it makes tables in that
 * memory, and the machine's device is in a domain nested there.
 */

#include "machine.h"

/* Guest-physical memory: the low and the next region of the machine, and the high one elsewhere. */
#define GUEST_BASE UINT64_C(0x40000000)
#define GUEST_HIGH UINT64_C(0x50000000)

/* Pages from GUEST_BASE on that the guest has tables in; its data lie behind. */
#define GUEST_TABLES 24

#define READ DMACORE_ACCESS_READ
#define WRITE DMACORE_ACCESS_WRITE
#define BOTH (READ | WRITE)

struct guest {
	struct machine machine;
	/* The machine's domain until the device went into the nested one. */
	struct dmacore_domain *parent;
	struct dmacore_table_allocator allocator;
	struct dmacore_pagetable *table;
	struct dmacore_walk_options walk;
	uint64_t used;
};

/* Where a guest-physical address lies in the process. */
static inline uint8_t *guest_host(struct guest *guest, uint64_t address)
{
	if (address >= GUEST_HIGH)
		return guest->machine.high + (address - GUEST_HIGH);
	address -= GUEST_BASE;
	return address < RAM_SIZE ? guest->machine.low + address :
				    guest->machine.next + (address - RAM_SIZE);
}

/* And in the machine's physical memory. */
static inline uint64_t guest_phys(uint64_t address)
{
	return address >= GUEST_HIGH ? HIGH_BASE + (address - GUEST_HIGH) :
				       LOW_BASE + (address - GUEST_BASE);
}

static inline uint64_t *guest_word(struct guest *guest, uint64_t address)
{
	return (uint64_t *)(void *)guest_host(guest, address);
}

static inline int guest_allocate(size_t size, struct dmacore_table_page *out_page, void *opaque)
{
	struct guest *guest = opaque;
	uint64_t offset = (guest->used + size - 1) / size * size;

	/* None lies half in one region and half in the other. */
	if (offset + size > GUEST_TABLES * PAGE)
		return -ENOMEM;
	guest->used = offset + size;
	out_page->phys = GUEST_BASE + offset;
	out_page->host = guest_host(guest, out_page->phys);
	return 0;
}

static inline void guest_free(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	(void)page;
	(void)size;
	(void)opaque;
}

static inline struct dmacore_domain_options nested_options(struct guest *guest)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;

	options.type = DMACORE_DOMAIN_NESTED;
	options.parent = guest->parent;
	options.guest_table = &guest->walk;
	return options;
}

static inline struct dmacore_domain *make_nested(struct guest *guest)
{
	struct dmacore_domain_options options = nested_options(guest);
	struct dmacore_domain *domain;

	assert_ok(dmacore_domain_create(guest->machine.iommu, &options, &domain));
	return domain;
}

static inline void guest_map(struct guest *guest, uint64_t iova, uint64_t address, uint64_t size,
			     uint32_t access)
{
	assert_ok(dmacore_pagetable_map(guest->table, iova, address, size, access));
}

static inline void guest_unmap(struct guest *guest, uint64_t iova, uint64_t size)
{
	assert_ok(dmacore_pagetable_unmap(guest->table, iova, size, 0, NULL));
}

/* Makes tables of a format, empty, for a new nested domain, in which the device is then. */
static inline void guest_use(struct guest *guest, uint32_t format, uint32_t features)
{
	struct dmacore_pagetable_options options = DMACORE_PAGETABLE_OPTIONS_INIT;
	struct machine *machine = &guest->machine;
	struct dmacore_domain *old = machine->domain;

	dmacore_pagetable_destroy(guest->table);
	guest->used = 0;
	options.format = format;
	options.features = features;
	options.allocator = &guest->allocator;
	guest->walk = (struct dmacore_walk_options)DMACORE_WALK_OPTIONS_INIT;
	guest->walk.format = format;
	guest->walk.features = features;
	guest->walk.root = GUEST_BASE;
	guest->table = NULL;
	/* Roots of this one are larger than what memory of the machine is aligned to. */
	if (format != DMACORE_PAGETABLE_RISCV_SECOND_STAGE) {
		assert_ok(dmacore_pagetable_create(&options, &guest->table));
		assert_ok(dmacore_pagetable_root(guest->table, &guest->walk.root));
	}
	machine->domain = make_nested(guest);
	assert_ok(dmacore_domain_replace(machine->domain, machine->device));
	if (old != guest->parent)
		dmacore_domain_destroy(old);
}

static inline void guest_start(struct guest *guest)
{
	struct machine *machine = &guest->machine;

	memset(guest, 0, sizeof(*guest));
	guest->allocator = (struct dmacore_table_allocator)DMACORE_TABLE_ALLOCATOR_INIT;
	guest->allocator.allocate = guest_allocate;
	guest->allocator.free = guest_free;
	guest->allocator.opaque = guest;
	machine_start(machine, TRANSLATED);
	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	guest->parent = machine->domain;
	assert_ok(dmacore_domain_map(guest->parent, GUEST_BASE, LOW_BASE, 2 * RAM_SIZE, BOTH));
	assert_ok(dmacore_domain_map(guest->parent, GUEST_HIGH, HIGH_BASE, RAM_SIZE, BOTH));
	guest_use(guest, DMACORE_PAGETABLE_X86_64, 0);
}

static inline void guest_stop(struct guest *guest)
{
	struct machine *machine = &guest->machine;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = guest->parent;
	dmacore_pagetable_destroy(guest->table);
	machine_stop(machine);
}

static inline int guest_setup(void **state)
{
	struct guest *guest = malloc(sizeof(*guest));

	assert_non_null(guest);
	guest_start(guest);
	*state = guest;
	return 0;
}

static inline int guest_teardown(void **state)
{
	guest_stop(*state);
	free(*state);
	return 0;
}

#define test_with_guest(function)                                      \
	{                                                              \
#function, function, guest_setup, guest_teardown, NULL \
	}

#endif /* SUPPORT_NESTED_H */
