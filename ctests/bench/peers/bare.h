/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_BARE_H
#define DMACORE_BENCH_BARE_H

/*
 * Calls that do as little as can be, in a shared object of their own: what remains to be gained.
 */

#include <stdint.h>

struct dmacore_translation;

/* The signatures of dmacore_map_single() and dmacore_unmap(), and nothing behind them. */
int empty_map(void *device, void *buffer, uint64_t size, uint32_t direction, uint32_t attributes,
	      uint64_t *out_dma);
int empty_unmap(void *device, uint64_t dma, uint64_t size, uint32_t direction, uint32_t attributes);

/*
 * Finds a page in tables of words as x86-64's by the two loads that no walk does without, and tells
 * what dmacore_pagetable_translate() tells. @tables are the lowest ones of 1 GiB, and all there.
 */
int bare_translate(const uint64_t *const *tables, uint64_t iova, uint32_t access,
		   struct dmacore_translation *out);

#endif /* DMACORE_BENCH_BARE_H */
