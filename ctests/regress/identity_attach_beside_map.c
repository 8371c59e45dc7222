/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A map call that found its device blocked, and attached to an identity domain when it came to
 * make the mapping, kept a record that no unmap took out; the device could never be detached again.
 * Fixed by "core: Hold the promises of unmap, free and destroy under races".
 */
#include "support/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define ROUNDS 100000

static atomic_bool is_over;

static void *map_and_unmap(void *opaque)
{
	struct machine *machine = opaque;
	dmacore_dma_t dma;

	while (!is_over)
		if (dmacore_map_single(machine->device, machine->low, 64, DMACORE_TO_DEVICE, 0,
				       &dma) == 0) {
			/* Refused when the device was detached meanwhile. */
			int error = dmacore_unmap(machine->device, dma, 64, DMACORE_TO_DEVICE, 0);

			if (error && error != -EINVAL)
				return "unmap";
		}
	return NULL;
}

static void detach__succeeds_once_no_mapping_call_runs(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device_statistics statistics = { .struct_size = sizeof(statistics) };
	/* There a thread has its turn of a millisecond each time that the other waits. */
	const int rounds = under_valgrind() ? ROUNDS / 100 : ROUNDS;
	pthread_t thread;
	void *failed;

	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_int_equal(pthread_create(&thread, NULL, map_and_unmap, machine), 0);
	for (int i = 0; i < rounds; i++) {
		int error = -EBUSY;

		assert_ok(dmacore_domain_attach(machine->domain, machine->device));
		/* Busy while a call runs, which ends; a record that is left never does. */
		for (int tries = 0; error == -EBUSY && tries < 10000000; tries++) {
			error = dmacore_domain_detach(machine->domain, machine->device);
			/* Where threads take turns, the call is not running but waiting for its turn. */
			if (error == -EBUSY)
				sched_yield();
		}
		if (error)
			break;
	}
	is_over = true;
	pthread_join(thread, &failed);
	assert_null(failed);
	assert_ok(dmacore_device_statistics(machine->device, &statistics));
	assert_int_equal(statistics.mapping_count, 0);
	/* The unmaps that were refused were reported. */
	reports_forget(&machine->reports);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(IDENTITY, detach__succeeds_once_no_mapping_call_runs),
	};

	return run_group("identity_attach_beside_map", tests);
}
