/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/machine.h"

/* Makes a fault at the page of this index, where nothing is mapped. */
static void make_fault(struct machine *machine, uint64_t page)
{
	uint8_t byte;

	assert_fails(dmacore_view_read(machine->view, page * PAGE, &byte, 1), ENOENT);
}

static void assert_fault_of(const struct dmacore_fault *fault, uint64_t page, uint64_t sequence)
{
	assert_int_equal(fault->first, page * PAGE);
	assert_int_equal(fault->last, page * PAGE);
	assert_int_equal(fault->sequence, sequence);
	assert_int_equal(fault->access, DMACORE_ACCESS_READ);
	assert_int_equal(fault->reason, DMACORE_FAULT_NOT_MAPPED);
}

/* The callback's record is of no matter to these tests. */
static void forget_callbacks(struct machine *machine)
{
	machine->faults.taken = machine->faults.count = 0;
}

static void fault_take__takes_the_oldest_first(void **state)
{
	struct machine *machine = *state;
	struct dmacore_fault faults[8];
	uint64_t lost = UNTOUCHED;
	size_t count;

	for (uint64_t page = 0; page < 5; page++)
		make_fault(machine, page);
	assert_ok(dmacore_fault_take(machine->device, faults, 2, &count, &lost));
	assert_int_equal(count, 2);
	assert_int_equal(lost, 0);
	assert_fault_of(&faults[0], 0, 0);
	assert_fault_of(&faults[1], 1, 1);
	make_fault(machine, 5);
	assert_ok(dmacore_fault_take(machine->device, faults, 8, &count, NULL));
	assert_int_equal(count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_fault_of(&faults[i], i + 2, i + 2);
	assert_ok(dmacore_fault_take(machine->device, faults, 8, &count, &lost));
	assert_int_equal(count, 0);
	forget_callbacks(machine);
}

static void fault_take__rejects_null(void **state)
{
	struct machine *machine = *state;
	struct dmacore_fault fault;
	uint64_t lost;
	size_t count;

	make_fault(machine, 1);
	assert_fails_untouched(dmacore_fault_take(NULL, &fault, 1, &count, &lost), EINVAL, count);
	assert_fails_untouched(dmacore_fault_take(machine->device, NULL, 1, &count, &lost), EINVAL,
			       count);
	assert_fails_untouched(dmacore_fault_take(machine->device, &fault, 1, NULL, &lost), EINVAL,
			       lost);
	/* None of them took the fault. */
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, PAGE, PAGE, DMACORE_ACCESS_READ);
}

static void fault_take__with_no_room_takes_none(void **state)
{
	struct machine *machine = *state;
	struct dmacore_fault fault;
	uint64_t lost = UNTOUCHED;
	size_t count = 9;

	make_fault(machine, 1);
	assert_ok(dmacore_fault_take(machine->device, NULL, 0, &count, &lost));
	assert_int_equal(count, 0);
	assert_int_equal(lost, 0);
	count = 9;
	assert_ok(dmacore_fault_take(machine->device, &fault, 0, &count, NULL));
	assert_int_equal(count, 0);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, PAGE, PAGE, DMACORE_ACCESS_READ);
}

static void fault_take__with_more_room_than_can_be_takes_all(void **state)
{
	struct machine *machine = *state;
	struct dmacore_fault faults[2];
	size_t count;

	make_fault(machine, 1);
	make_fault(machine, 2);
	assert_ok(dmacore_fault_take(machine->device, faults, SIZE_MAX, &count, NULL));
	assert_int_equal(count, 2);
	assert_fault_of(&faults[1], 2, 1);
	forget_callbacks(machine);
}

/* Gives the machine a device whose ring has this capacity. */
static void replace_device(struct machine *machine, uint32_t capacity)
{
	struct dmacore_device_options options = device_options(machine);

	options.fault_capacity = capacity;
	dmacore_view_destroy(machine->view);
	dmacore_device_destroy(machine->device);
	assert_ok(dmacore_device_create(machine->system, &options, &machine->device));
	assert_ok(dmacore_view_create(machine->device, &machine->view));
}

static void fault_take__full_ring_keeps_the_oldest_and_counts_the_rest(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics statistics;
	struct dmacore_fault faults[8];
	uint64_t lost;
	size_t count;

	replace_device(machine, 4);
	for (uint64_t page = 0; page < 10; page++)
		make_fault(machine, page);
	/* The callback hears of all of them. */
	assert_int_equal(machine->faults.count, 10);
	for (unsigned i = 0; i < 10; i++)
		assert_fault_of(&machine->faults.at[i], i, i);
	statistics = device_statistics(machine->device);
	assert_int_equal(statistics.fault_total, 10);
	assert_int_equal(statistics.fault_lost, 6);

	assert_ok(dmacore_fault_take(machine->device, faults, 3, &count, &lost));
	assert_int_equal(count, 3);
	assert_int_equal(lost, 6);
	for (unsigned i = 0; i < 3; i++)
		assert_fault_of(&faults[i], i, i);

	/* There is room for three again; the sequence tells of the gap. */
	for (uint64_t page = 10; page < 14; page++)
		make_fault(machine, page);
	assert_ok(dmacore_fault_take(machine->device, faults, 8, &count, &lost));
	assert_int_equal(count, 4);
	assert_int_equal(lost, 7);
	assert_fault_of(&faults[0], 3, 3);
	for (unsigned i = 1; i < 4; i++)
		assert_fault_of(&faults[i], 9 + i, 9 + i);
	forget_callbacks(machine);
}

static void fault_take__works_at_every_capacity(void **state)
{
	struct machine *machine = *state;
	const uint32_t capacities[] = { 1, 2, 3, 64, 65536 };

	for (unsigned i = 0; i < sizeof(capacities) / sizeof(*capacities); i++) {
		struct dmacore_fault fault;
		uint64_t lost;
		size_t count;

		replace_device(machine, capacities[i]);
		/* More than the ring holds, one at a time: it goes round. */
		for (uint64_t page = 0; page < 8; page++) {
			make_fault(machine, page);
			assert_ok(dmacore_fault_take(machine->device, &fault, 1, &count, &lost));
			assert_int_equal(count, 1);
			assert_int_equal(lost, 0);
			assert_fault_of(&fault, page, page);
		}
		forget_callbacks(machine);
	}
}

static void fault_take__ring_holds_64_by_default(void **state)
{
	struct machine *machine = *state;
	static struct dmacore_fault faults[100];
	uint64_t lost;
	size_t count;

	for (uint64_t page = 0; page < 70; page++)
		make_fault(machine, page);
	assert_ok(dmacore_fault_take(machine->device, faults, 100, &count, &lost));
	assert_int_equal(count, 64);
	assert_int_equal(lost, 6);
	assert_fault_of(&faults[63], 63, 63);
	forget_callbacks(machine);
}

struct pager {
	struct machine *machine;
	unsigned calls;
	size_t taken;
	dmacore_dma_t dma;
};

/* Takes the fault that it is told of and maps a page: this needs every lock of the device. */
static void map_a_page(struct dmacore_device *device, const struct dmacore_fault *fault,
		       void *opaque)
{
	struct pager *pager = opaque;
	struct dmacore_fault recorded;
	size_t count = 0;

	pager->calls++;
	if (!dmacore_fault_take(device, &recorded, 1, &count, NULL) && count == 1 &&
	    !memcmp(&recorded, fault, sizeof(recorded)))
		pager->taken++;
	if (dmacore_map_single(device, pager->machine->low, PAGE, DMACORE_TO_DEVICE, 0,
			       &pager->dma))
		pager->dma = 0;
}

static void fault_callback__may_call_the_library(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct pager pager = { .machine = machine };
	struct dmacore_device *device;
	struct dmacore_view *view;
	uint8_t byte = 0;

	options.fault = map_a_page;
	options.fault_opaque = &pager;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	if (machine->domain)
		assert_ok(dmacore_domain_attach(machine->domain, device));
	assert_ok(dmacore_view_create(device, &view));

	machine->low[0] = 99;
	assert_fails(dmacore_view_read(view, PAGE, &byte, 1), ENOENT);
	assert_int_equal(pager.calls, 1);
	assert_int_equal(pager.taken, 1);
	assert_true(pager.dma != 0);
	assert_ok(dmacore_view_read(view, pager.dma, &byte, 1));
	assert_int_equal(byte, 99);
	assert_ok(dmacore_unmap(device, pager.dma, PAGE, DMACORE_TO_DEVICE, 0));

	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

static void fault_callback__may_be_absent(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_options options = device_options(machine);
	struct dmacore_device *device;
	struct dmacore_fault fault;
	struct dmacore_view *view;
	uint8_t byte = 0;
	size_t count;

	options.fault = NULL;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_view_create(device, &view));
	assert_fails(dmacore_view_write(view, PAGE, &byte, 1), ENOENT);
	assert_ok(dmacore_fault_take(device, &fault, 1, &count, NULL));
	assert_int_equal(count, 1);
	assert_int_equal(fault.access, DMACORE_ACCESS_WRITE);
	dmacore_view_destroy(view);
	dmacore_device_destroy(device);
}

static void fault_take__knows_one_device_from_another(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *other = make_device(machine);
	struct dmacore_fault fault;
	size_t count;

	make_fault(machine, 1);
	assert_ok(dmacore_fault_take(other, &fault, 1, &count, NULL));
	assert_int_equal(count, 0);
	assert_int_equal(device_statistics(other).fault_total, 0);
	assert_faulted(machine, DMACORE_FAULT_NOT_MAPPED, PAGE, PAGE, DMACORE_ACCESS_READ);
	dmacore_device_destroy(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(TRACKED, fault_take__takes_the_oldest_first),
		test_on_translated(fault_take__takes_the_oldest_first),
		test_on_translated(fault_take__rejects_null),
		test_on_translated(fault_take__with_no_room_takes_none),
		test_on(TRACKED, fault_take__with_more_room_than_can_be_takes_all),
		test_on(TRACKED, fault_take__full_ring_keeps_the_oldest_and_counts_the_rest),
		test_on(TRACKED, fault_take__works_at_every_capacity),
		test_on_translated(fault_take__ring_holds_64_by_default),
		test_on(TRACKED, fault_callback__may_call_the_library),
		test_on_translated(fault_callback__may_call_the_library),
		test_on(TRACKED, fault_callback__may_be_absent),
		test_on_translated(fault_take__knows_one_device_from_another),
	};

	return run_group("fault", tests);
}
