/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_EMPTY_H
#define DMACORE_BENCH_EMPTY_H

/*
 * The signatures of dmacore_map_single() and dmacore_unmap() with nothing behind them, in a shared
 * object of their own: what two calls into any library cost.
 */

#include <stdint.h>

int empty_map(void *device, void *buffer, uint64_t size, uint32_t direction, uint32_t attributes,
	      uint64_t *out_dma);
int empty_unmap(void *device, uint64_t dma, uint64_t size, uint32_t direction, uint32_t attributes);

#endif /* DMACORE_BENCH_EMPTY_H */
