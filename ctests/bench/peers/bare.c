/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "bare.h"

#include <dmacore/pagetable.h>

#include <errno.h>

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

int bare_translate(const uint64_t *const *tables, uint64_t iova, uint32_t access,
		   struct dmacore_translation *out)
{
	uint64_t word = tables[iova >> 21 & 511][iova >> 12 & 511];

	if ((word & access) != access)
		return -EACCES;
	out->first = iova & ~UINT64_C(0xfff);
	out->last = iova | 0xfff;
	out->target = word & UINT64_C(0xffffffffff000);
	out->access = word & 3;
	out->reserved = 0;
	return 0;
}
