/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "empty.h"

int empty_map(void *device, void *buffer, uint64_t size, uint32_t direction, uint32_t attributes,
	      uint64_t *out_dma)
{
	(void)device, (void)buffer, (void)size, (void)direction, (void)attributes, (void)out_dma;
	return 0;
}

int empty_unmap(void *device, uint64_t dma, uint64_t size, uint32_t direction, uint32_t attributes)
{
	(void)device, (void)dma, (void)size, (void)direction, (void)attributes;
	return 0;
}
