/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_TABLES_H
#define SUPPORT_TABLES_H

/*
 * Table pages that the test owns, and a walk of them by the rules of the VT-d specification
 * alone, so that what the library wrote is judged by something else than the library.
 */

#include "check.h"

#include <pthread.h>

#define TABLE_POOL_PAGES 64

/* Far from any address of the process: a page's physical address is not that of its bytes. */
#define TABLE_POOL_PHYS UINT64_C(0x123456789000)

struct table_pool {
	struct dmacore_table_allocator allocator;
	pthread_mutex_t lock;
	uint8_t *bytes;
	bool used[TABLE_POOL_PAGES];
	unsigned live;
	/* Allocations and frees that were asked for. */
	unsigned calls;
	/* Allocations that still succeed; negative: all. */
	int left;
	/* What is added to the addresses, to make pages that cannot be used. */
	uint64_t host_skew;
	uint64_t phys_skew;
	/* Requests that no correct library makes. */
	unsigned wrong;
};

static inline int table_pool_allocate(size_t size, struct dmacore_table_page *out_page,
				      void *opaque)
{
	struct table_pool *pool = opaque;
	int error = -ENOMEM;

	pthread_mutex_lock(&pool->lock);
	pool->calls++;
	if (size != PAGE)
		pool->wrong++;
	for (unsigned i = 0; i < TABLE_POOL_PAGES && pool->left != 0 && error; i++) {
		if (pool->used[i])
			continue;
		pool->used[i] = true;
		pool->live++;
		pool->left -= pool->left > 0;
		/* Not zeroed: that is the library's task. */
		memset(pool->bytes + i * PAGE, 0xff, PAGE);
		out_page->host = pool->bytes + i * PAGE + pool->host_skew;
		out_page->phys = TABLE_POOL_PHYS + i * PAGE + pool->phys_skew;
		error = 0;
	}
	pthread_mutex_unlock(&pool->lock);
	return error;
}

static inline void table_pool_free(const struct dmacore_table_page *page, size_t size, void *opaque)
{
	struct table_pool *pool = opaque;
	uint64_t offset = (uint8_t *)page->host - pool->bytes - pool->host_skew;
	unsigned i = offset / PAGE;

	pthread_mutex_lock(&pool->lock);
	pool->calls++;
	if (size != PAGE || offset % PAGE != 0 || i >= TABLE_POOL_PAGES || !pool->used[i] ||
	    page->phys != TABLE_POOL_PHYS + offset + pool->phys_skew) {
		pool->wrong++;
	} else {
		pool->used[i] = false;
		pool->live--;
	}
	pthread_mutex_unlock(&pool->lock);
}

static inline void table_pool_start(struct table_pool *pool)
{
	memset(pool, 0, sizeof(*pool));
	pool->allocator = (struct dmacore_table_allocator)DMACORE_TABLE_ALLOCATOR_INIT;
	pool->allocator.allocate = table_pool_allocate;
	pool->allocator.free = table_pool_free;
	pool->allocator.opaque = pool;
	pool->left = -1;
	pthread_mutex_init(&pool->lock, NULL);
	pool->bytes = aligned_alloc(PAGE, TABLE_POOL_PAGES * PAGE);
	assert_non_null(pool->bytes);
	memset(pool->bytes, 0xff, TABLE_POOL_PAGES * PAGE);
}

/* Every page must have come back, once. */
static inline void table_pool_stop(struct table_pool *pool)
{
	assert_int_equal(pool->live, 0);
	assert_int_equal(pool->wrong, 0);
	pthread_mutex_destroy(&pool->lock);
	free(pool->bytes);
}

/* The words of the table at @phys. */
static inline uint64_t *table_words(struct table_pool *pool, uint64_t phys)
{
	uint64_t i = (phys - TABLE_POOL_PHYS) / PAGE;

	assert_int_equal(phys % PAGE, 0);
	assert_true(phys >= TABLE_POOL_PHYS && i < TABLE_POOL_PAGES);
	assert_true(pool->used[i]);
	return (uint64_t *)(void *)(pool->bytes + i * PAGE);
}

struct leaf {
	uint64_t iova;
	uint64_t phys;
	uint64_t size;
	uint32_t access;
};

#define LEAVES_MAX 1024

struct leaves {
	struct leaf at[LEAVES_MAX];
	unsigned count;
	unsigned tables;
};

/* VT-d, second-stage paging entries: bits 51:12 are the address, bit 7 is page-size. */
#define VTD_ADDRESS UINT64_C(0x000ffffffffff000)
#define VTD_PAGE_SIZE UINT64_C(0x80)

static inline void leaves_collect(struct leaves *leaves, struct table_pool *pool, uint64_t table,
				  unsigned level, uint64_t iova)
{
	const uint64_t *words = table_words(pool, table);
	uint64_t span = PAGE << (9 * level);

	leaves->tables++;
	for (unsigned i = 0; i < 512; i++, iova += span) {
		uint64_t word = words[i];

		/* An entry is present if it permits reading or writing. */
		if (!(word & 3)) {
			assert_int_equal(word, 0);
			continue;
		}
		if (level > 0 && !(word & VTD_PAGE_SIZE)) {
			/* Permissions are those of the leaf, so a table permits everything. */
			assert_int_equal(word & ~VTD_ADDRESS, 3);
			leaves_collect(leaves, pool, word & VTD_ADDRESS, level - 1, iova);
			continue;
		}
		/* Leaves are of 4 KiB, 2 MiB or 1 GiB; bit 7 is ignored in those of 4 KiB. */
		assert_true(level <= 2);
		assert_int_equal(word & ~VTD_ADDRESS & ~UINT64_C(3), level ? VTD_PAGE_SIZE : 0);
		assert_int_equal((word & VTD_ADDRESS) % span, 0);
		assert_true(leaves->count < LEAVES_MAX);
		leaves->at[leaves->count++] = (struct leaf){
			.iova = iova,
			.phys = word & VTD_ADDRESS,
			.size = span,
			.access = word & 3,
		};
	}
}

/* All that is mapped, in the order of the input addresses. */
static inline void leaves_read(struct leaves *leaves, struct table_pool *pool, uint64_t root,
			       unsigned levels)
{
	memset(leaves, 0, sizeof(*leaves));
	leaves_collect(leaves, pool, root, levels - 1, 0);
}

#endif /* SUPPORT_TABLES_H */
