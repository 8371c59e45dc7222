/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_LINUX_H
#define DMACORE_BENCH_LINUX_H

/*
 * What liblinux.so has: Linux's own allocator of IOVAs and its page tables of the ARM format, built
 * in user space by scripts/bench. The pointers lead to Linux's functions themselves, but for those
 * that make and end an object.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iommu_iotlb_gather;
struct io_pgtable_ops;
struct iova;
struct iova_domain;

/* IOVAs: sizes, addresses and limits are in pages of 4 KiB; limits are inclusive. */
struct linux_iova {
	struct iova_domain *(*create)(void);
	void (*destroy)(struct iova_domain *domain);
	/* Through the caches of each processor. The address, or 0. */
	unsigned long (*alloc_iova_fast)(struct iova_domain *domain, unsigned long size,
					 unsigned long limit, bool flush);
	void (*free_iova_fast)(struct iova_domain *domain, unsigned long first, unsigned long size);
	/* Past the caches. The range, or NULL. */
	struct iova *(*alloc_iova)(struct iova_domain *domain, unsigned long size,
				   unsigned long limit, bool size_aligned);
	void (*free_iova)(struct iova_domain *domain, unsigned long first);
	unsigned long (*first)(const struct iova *iova);
	/* Says which processor, 0 or 1, this thread runs on; until then it is 0. */
	void (*set_processor)(unsigned int processor);
	/* What a range in use takes in the kernel's heap. */
	size_t range_bytes;
};

/* A page table: 48 bits in and out, 4 levels. */
struct linux_pagetable {
	struct io_pgtable_ops *ops;
	/* One call does pages of one size inside one table. */
	int (*map_pages)(struct io_pgtable_ops *ops, unsigned long iova, uint64_t phys,
			 size_t page_size, size_t count, int access, unsigned int gfp,
			 size_t *mapped);
	size_t (*unmap_pages)(struct io_pgtable_ops *ops, unsigned long iova, size_t page_size,
			      size_t count, struct iommu_iotlb_gather *gather);
	uint64_t (*iova_to_phys)(struct io_pgtable_ops *ops, unsigned long iova);
	/* For map_pages: readable, writable memory that caches. */
	int access;
	/* For unmap_pages: queues, so that no page is invalidated by itself. */
	struct iommu_iotlb_gather *gather;
};

/* The object's only symbol. */
#define LINUX_PEER "linux_peer"

struct linux_peer {
	struct linux_iova iova;
	bool (*open_pagetable)(struct linux_pagetable *out_table);
	void (*close_pagetable)(struct linux_pagetable *table);
};

#endif /* DMACORE_BENCH_LINUX_H */
