/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Makes Linux's objects for the benchmarks and hands out its functions. */

#include "shim.h"

#include <linux/io-pgtable.h>
#include <linux/iova.h>

#include "../linux.h"

_Thread_local unsigned int shim_processor;
struct arena shim_arena = { .cell_size = PAGE_SIZE };

static struct iova_domain *create(void)
{
	struct iova_domain *domain = calloc(1, sizeof(*domain));

	BUG_ON(iova_cache_get() != 0);
	init_iova_domain(domain, PAGE_SIZE, 1);
	BUG_ON(iova_domain_init_rcaches(domain) != 0);
	return domain;
}

static void destroy(struct iova_domain *domain)
{
	put_iova_domain(domain);
	iova_cache_put();
	free(domain);
}

static unsigned long first(const struct iova *iova)
{
	return iova == NULL ? 0 : iova->pfn_lo;
}

static void set_processor(unsigned int processor)
{
	BUG_ON(processor >= PROCESSORS);
	shim_processor = processor;
}

static bool open_pagetable(struct linux_pagetable *out_table)
{
	static struct device device;
	static struct iommu_iotlb_gather gather = { .queued = true };
	struct io_pgtable_cfg config = {
		.pgsize_bitmap = SZ_4K | SZ_2M | SZ_1G,
		.ias = 48,
		.oas = 48,
		.coherent_walk = true,
		.iommu_dev = &device,
	};
	struct io_pgtable *table = io_pgtable_arm_64_lpae_s1_init_fns.alloc(&config, NULL);

	if (table == NULL)
		return false;
	/* What the kernel's front end to the formats sets. */
	table->fmt = ARM_64_LPAE_S1;
	table->cfg = config;
	out_table->ops = &table->ops;
	out_table->map_pages = table->ops.map_pages;
	out_table->unmap_pages = table->ops.unmap_pages;
	out_table->iova_to_phys = table->ops.iova_to_phys;
	out_table->access = IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE;
	out_table->gather = &gather;
	return true;
}

static void close_pagetable(struct linux_pagetable *table)
{
	io_pgtable_arm_64_lpae_s1_init_fns.free(io_pgtable_ops_to_pgtable(table->ops));
}

__attribute__((visibility("default"))) const struct linux_peer linux_peer = {
	.iova = {
		.create = create,
		.destroy = destroy,
		.alloc_iova_fast = alloc_iova_fast,
		.free_iova_fast = free_iova_fast,
		.alloc_iova = alloc_iova,
		.free_iova = free_iova,
		.first = first,
		.set_processor = set_processor,
		.range_bytes = ALIGN(sizeof(struct iova), 64),
	},
	.open_pagetable = open_pagetable,
	.close_pagetable = close_pagetable,
};
