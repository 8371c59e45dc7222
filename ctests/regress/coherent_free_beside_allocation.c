/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Freeing coherent memory gave its addresses back before it opened them to views again; another
 * thread that was given them then had its own free refused with -EBUSY. Fixed by "core: Hold the
 * promises of unmap, free and destroy under races".
 */
#include "support/machine.h"

#include <pthread.h>
#include <stdatomic.h>

#define THREADS 3
#define ROUNDS 20000

static atomic_int refused;

static void *allocate_and_free(void *opaque)
{
	struct dmacore_device *device = opaque;
	dmacore_dma_t dma;
	void *cpu;

	for (int i = 0; i < ROUNDS; i++)
		if (dmacore_alloc_coherent(device, PAGE, &cpu, &dma) ||
		    dmacore_free_coherent(device, PAGE, cpu, dma))
			refused++;
	return NULL;
}

static void free_coherent__is_refused_by_no_other_threads_free(void **state)
{
	struct machine *machine = *state;
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, allocate_and_free, machine->device), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(refused, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(FLAT | TRANSLATED, free_coherent__is_refused_by_no_other_threads_free),
	};

	return run_group("coherent_free_beside_allocation", tests);
}
