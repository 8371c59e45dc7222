/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/nested.h"

/* What a domain was told, and whether it was before the device. */
struct witness {
	struct machine *machine;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_fault fault;
	unsigned count;
	unsigned late;
	/* Called in the callback. */
	void (*react)(struct witness *witness);
};

static void witness_hear(struct dmacore_domain *domain, struct dmacore_device *device,
			 const struct dmacore_fault *fault, void *opaque)
{
	struct witness *witness = opaque;

	witness->domain = domain;
	witness->device = device;
	witness->fault = *fault;
	witness->late += witness->machine->faults.count > witness->count;
	witness->count++;
	if (witness->react)
		witness->react(witness);
}

static struct dmacore_domain *make_watched(struct machine *machine, uint32_t type,
					   struct witness *witness)
{
	struct dmacore_domain_options options = DMACORE_DOMAIN_OPTIONS_INIT;
	struct dmacore_domain *domain;

	memset(witness, 0, sizeof(*witness));
	witness->machine = machine;
	options.type = type;
	options.fault = witness_hear;
	options.opaque = witness;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domain));
	return domain;
}

/* Makes the machine's device use a domain that a witness watches. */
static void use_watched(struct machine *machine, uint32_t type, struct witness *witness)
{
	struct dmacore_domain *domain = make_watched(machine, type, witness);

	assert_ok(dmacore_domain_replace(domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = domain;
}

/* Exactly one more fault of the machine's device, of which the domain was told first. */
#define assert_told(witness, reason_, first_, last_, access_)                             \
	do {                                                                              \
		assert_int_equal((witness)->count, 1);                                    \
		assert_int_equal((witness)->late, 0);                                     \
		assert_ptr_equal((witness)->domain, (witness)->machine->domain);          \
		assert_ptr_equal((witness)->device, (witness)->machine->device);          \
		assert_memory_equal(&(witness)->fault, &(witness)->machine->faults.at[0], \
				    sizeof((witness)->fault));                            \
		assert_faulted((witness)->machine, reason_, first_, last_, access_);      \
		(witness)->machine->faults.taken = (witness)->machine->faults.count = 0;  \
		(witness)->count = 0;                                                     \
	} while (0)

static void fault__is_told_to_the_domain_that_refused_and_then_to_the_device(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_view_segment *segments;
	struct dmacore_view_mapping *mapping;
	struct witness witness;
	uint8_t bytes[2 * PAGE] = { 0 };
	size_t count;

	use_watched(machine, DMACORE_DOMAIN_UNMANAGED, &witness);
	assert_ok(dmacore_system_tick(machine->system, 77));
	assert_ok(dmacore_domain_map(machine->domain, PAGE, LOW_BASE, PAGE, READ));
	assert_ok(dmacore_domain_map(machine->domain, 3 * PAGE, 0, PAGE, READ | WRITE));
	assert_ok(dmacore_view_read(machine->view, PAGE, bytes, PAGE));
	assert_int_equal(witness.count, 0);
	assert_fails(dmacore_view_read(machine->view, PAGE, bytes, sizeof(bytes)), ENOENT);
	assert_int_equal(witness.fault.time, 77);
	assert_told(&witness, DMACORE_FAULT_NOT_MAPPED, 2 * PAGE, 3 * PAGE - 1, READ);
	assert_fails(dmacore_view_write(machine->view, PAGE, bytes, 4), EACCES);
	assert_told(&witness, DMACORE_FAULT_DENIED, PAGE, PAGE + 3, WRITE);
	assert_fails(dmacore_view_write(machine->view, 3 * PAGE, bytes, 1), EFAULT);
	assert_told(&witness, DMACORE_FAULT_NO_MEMORY, 3 * PAGE, 3 * PAGE, WRITE);
	assert_fails(dmacore_view_map(machine->view, 0, PAGE, READ, &mapping, &segments, &count),
		     ENOENT);
	assert_told(&witness, DMACORE_FAULT_NOT_MAPPED, 0, PAGE - 1, READ);
}

static void look_up__is_told_to_nobody(void **state)
{
	struct machine *machine = *state;
	struct dmacore_translation translation;
	struct dmacore_block block;
	struct witness witness;

	use_watched(machine, DMACORE_DOMAIN_BLOCKED, &witness);
	assert_fails(dmacore_view_translate(machine->view, 0, READ, &translation), EPERM);
	assert_ok(dmacore_view_translate_block(machine->view, 0, READ, &block));
	assert_int_equal(witness.count, 0);
}

static void fault__of_every_type_of_domain_is_told(void **state)
{
	struct machine *machine = *state;
	struct witness witness;
	uint8_t byte;

	use_watched(machine, DMACORE_DOMAIN_BLOCKED, &witness);
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), EPERM);
	assert_told(&witness, DMACORE_FAULT_BLOCKED, 5, 5, READ);
	use_watched(machine, DMACORE_DOMAIN_IDENTITY, &witness);
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), EFAULT);
	assert_told(&witness, DMACORE_FAULT_NO_MEMORY, 5, 5, READ);
	use_watched(machine, DMACORE_DOMAIN_DMA, &witness);
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), ENOENT);
	assert_told(&witness, DMACORE_FAULT_NOT_MAPPED, 5, 5, READ);
	use_watched(machine, DMACORE_DOMAIN_DMA_LAZY, &witness);
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), ENOENT);
	assert_told(&witness, DMACORE_FAULT_NOT_MAPPED, 5, 5, READ);
}

static void fault__outside_of_every_domain_is_the_devices_alone(void **state)
{
	struct machine *machine = *state;
	struct witness witness;
	uint8_t byte;

	use_watched(machine, DMACORE_DOMAIN_UNMANAGED, &witness);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), EPERM);
	assert_int_equal(witness.count, 0);
	assert_faulted(machine, DMACORE_FAULT_BLOCKED, 5, 5, READ);
}

/* A PASID's domain is told of its faults, and the device's domain is not. */
static void fault__with_a_pasid_is_told_to_the_domain_of_that(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
	struct dmacore_device_options options = device_options(machine);
	struct witness plain, pasid;
	struct dmacore_domain *domains[2];
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t byte;

	options.pasid_count = 8;
	options.fault = NULL;
	domains[0] = make_watched(machine, DMACORE_DOMAIN_UNMANAGED, &plain);
	domains[1] = make_watched(machine, DMACORE_DOMAIN_UNMANAGED, &pasid);
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_view_create_pasid(device, 7, &view));
	assert_ok(dmacore_device_claim_dma_owner(device, &owner));
	assert_ok(dmacore_device_attach(device, domains[0], &owner));
	assert_fails(dmacore_view_read(view, 5, &byte, 1), EPERM);
	assert_int_equal(plain.count + pasid.count, 0);
	assert_ok(dmacore_device_attach_pasid(device, 7, domains[1], &owner));
	assert_fails(dmacore_view_read(view, 5, &byte, 1), ENOENT);
	assert_int_equal(plain.count, 0);
	assert_int_equal(pasid.count, 1);
	assert_ptr_equal(pasid.domain, domains[1]);
	assert_ptr_equal(pasid.device, device);
	assert_int_equal(pasid.fault.pasid, 7);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
	for (unsigned i = 0; i < 2; i++)
		dmacore_domain_destroy(domains[i]);
}

/* Whichever stage refuses: the parent has not asked what becomes of the guest's accesses. */
static void fault__of_a_nested_domain_is_told_to_that_and_not_to_its_parent(void **state)
{
	static struct guest guest;
	struct machine *machine = &guest.machine;
	struct dmacore_domain_options options;
	struct dmacore_domain *domains[2];
	struct witness parent, nested;
	uint8_t byte;

	(void)state;
	guest_start(&guest);
	domains[0] = make_watched(machine, DMACORE_DOMAIN_UNMANAGED, &parent);
	memset(&nested, 0, sizeof(nested));
	nested.machine = machine;
	options = nested_options(&guest);
	options.parent = domains[0];
	options.fault = witness_hear;
	options.opaque = &nested;
	assert_ok(dmacore_domain_create(machine->iommu, &options, &domains[1]));
	assert_ok(dmacore_domain_map(domains[0], GUEST_BASE, LOW_BASE, 2 * RAM_SIZE, BOTH));
	assert_ok(dmacore_domain_replace(domains[1], machine->device));
	/* The guest maps nothing; then what its parent does not. */
	for (unsigned stage = 1; stage <= 2; stage++) {
		assert_fails(dmacore_view_read(machine->view, 0x5000, &byte, 1), ENOENT);
		assert_int_equal(parent.count, 0);
		assert_int_equal(nested.count, stage);
		assert_ptr_equal(nested.domain, domains[1]);
		assert_int_equal(nested.fault.stage, stage);
		assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 0x5000, 0x5000, READ);
		if (stage == 1)
			guest_map(&guest, 0x5000, GUEST_HIGH, PAGE, BOTH);
	}
	assert_ok(dmacore_domain_replace(machine->domain, machine->device));
	for (unsigned i = 2; i-- > 0;)
		dmacore_domain_destroy(domains[i]);
	assert_no_reports(&machine->reports);
	guest_stop(&guest);
}

static void end_domain(struct witness *witness)
{
	struct machine *machine = witness->machine;
	struct dmacore_domain_statistics statistics = { .struct_size = sizeof(statistics) };
	unsigned live = machine->tables.live;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = NULL;
	assert_reported(machine, DMACORE_REPORT_WARNING);
	/* It lives as long as its callback runs. */
	assert_int_equal(machine->tables.live, live);
	assert_ok(dmacore_domain_statistics(witness->domain, &statistics));
	assert_int_equal(statistics.device_count, 0);
}

static void domain__stays_while_its_callback_runs(void **state)
{
	struct machine *machine = *state;
	struct witness witness;
	uint8_t byte;

	use_watched(machine, DMACORE_DOMAIN_UNMANAGED, &witness);
	witness.react = end_domain;
	assert_fails(dmacore_view_read(machine->view, 5, &byte, 1), ENOENT);
	assert_int_equal(witness.count, 1);
	assert_int_equal(machine->tables.live, 0);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, 5, 5, READ);
}

/* A fault is looked for the end of, run by run; nobody holds the domain for that. */
static void fault__of_many_runs_is_told_once_and_holds_nothing(void **state)
{
	struct machine *machine = *state;
	struct witness witness;
	uint8_t bytes[4 * PAGE];

	use_watched(machine, DMACORE_DOMAIN_UNMANAGED, &witness);
	for (unsigned i = 0; i < 4; i++)
		assert_ok(dmacore_domain_map(machine->domain, i * PAGE, LOW_BASE + (3 - i) * PAGE,
					     PAGE, WRITE));
	assert_fails(dmacore_view_read(machine->view, 1, bytes, 3 * PAGE), EACCES);
	assert_told(&witness, DMACORE_FAULT_DENIED, 1, 3 * PAGE, READ);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	dmacore_domain_destroy(machine->domain);
	machine->domain = NULL;
	assert_no_reports(&machine->reports);
	assert_int_equal(machine->tables.live, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on_translated(
			fault__is_told_to_the_domain_that_refused_and_then_to_the_device),
		test_on_translated(look_up__is_told_to_nobody),
		test_on_translated(fault__of_every_type_of_domain_is_told),
		test_on_translated(fault__outside_of_every_domain_is_the_devices_alone),
		test_on_translated(fault__with_a_pasid_is_told_to_the_domain_of_that),
		cmocka_unit_test(fault__of_a_nested_domain_is_told_to_that_and_not_to_its_parent),
		test_on_translated(domain__stays_while_its_callback_runs),
		test_on_translated(fault__of_many_runs_is_told_once_and_holds_nothing),
	};

	return run_group("domain faults", tests);
}
