/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_SHIM_H
#define DMACORE_BENCH_SHIM_H

/*
 * What Linux's iova.c, rbtree.c and io-pgtable-arm.c need of the kernel around them, in user space.
 * scripts/bench makes every header that they include and that is not there include this one.
 *
 * Cheaper than in the kernel wherever the two differ, so that the comparison errs in Linux's
 * favour: a lock is one exchange and a release store, interrupts and preemption cost nothing, the
 * processor's number is a thread-local variable, no address is invalidated.
 */

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../arena.h"

/* Types. */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef u64 phys_addr_t;
typedef u64 dma_addr_t;
typedef unsigned int gfp_t;

struct device {
	int node;
};

struct hlist_node {
	struct hlist_node *next;
};

#define __percpu
#define __init
#define __initdata
#define __initconst
#define __rcu
#define __always_inline inline __attribute__((always_inline))
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define MODULE_AUTHOR(text)
#define MODULE_LICENSE(text)
#define IS_REACHABLE(option) 1
#define IS_ENABLED(option) 0

/* Arithmetic. */

#define BIT(n) (1ul << (n))
#define GENMASK_ULL(high, low) ((~0ull << (low)) & (~0ull >> (63 - (high))))
#define ALIGN(value, multiple) (((value) + (multiple)-1) & ~((multiple)-1))
#define ilog2(value) (63 - __builtin_clzl(value))
#define DIV_ROUND_UP(value, divisor) (((value) + (divisor)-1) / (divisor))
#define is_power_of_2(value) ((value) != 0 && ((value) & ((value)-1)) == 0)
#define __ffs(value) ((unsigned long)__builtin_ctzl(value))
#define __fls(value) ((unsigned long)ilog2(value))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define min_t(type, a, b) min((type)(a), (type)(b))
#define swap(a, b)                     \
	do {                           \
		typeof(a) swapped = a; \
		a = b;                 \
		b = swapped;           \
	} while (0)

static inline unsigned int fls_long(unsigned long value)
{
	return value == 0 ? 0 : (unsigned int)ilog2(value) + 1;
}

/* The smallest power of two that is not less than @value, as an exponent and as itself. */
#define order_base_2(value) fls_long((value)-1)
#define roundup_pow_of_two(value) (1ul << order_base_2(value))

#define PAGE_SHIFT 12
#define PAGE_SIZE (1ul << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define SZ_4K 0x1000ul
#define SZ_16K 0x4000ul
#define SZ_64K 0x10000ul
#define SZ_2M 0x200000ul
#define SZ_32M 0x2000000ul
#define SZ_512M 0x20000000ul
#define SZ_1G 0x40000000ul

#define unlikely(condition) __builtin_expect((condition), 0)

/* Pointers, and words that others read. */

#define container_of(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define READ_ONCE(word) (*(const volatile typeof(word) *)&(word))
#define WRITE_ONCE(word, value) (*(volatile typeof(word) *)&(word) = (value))
#define rcu_assign_pointer(pointer, value) \
	__atomic_store_n(&(pointer), (typeof(pointer))(value), __ATOMIC_RELEASE)
#define barrier() __asm__ volatile("" ::: "memory")
/* What x86 has for them: stores are seen in order. */
#define wmb() __asm__ volatile("sfence" ::: "memory")
#define dma_wmb() barrier()

static inline u64 cmpxchg64_relaxed(u64 *word, u64 expected, u64 value)
{
	__atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	return expected;
}

/* Complaints: none comes in what the benchmarks do. */

#define BUG_ON(condition) ((condition) ? abort() : (void)0)
#define WARN_ON(condition)                   \
	({                                   \
		bool is_wrong = (condition); \
		if (unlikely(is_wrong))      \
			abort();             \
		is_wrong;                    \
	})
#define VM_BUG_ON(condition) ((void)(condition))
#define pr_err(...) ((void)0)
#define dev_err(...) ((void)0)

/* Locks. */

typedef struct {
	int is_taken;
} spinlock_t;

static inline void spin_lock_init(spinlock_t *lock)
{
	lock->is_taken = 0;
}

static inline void spin_lock(spinlock_t *lock)
{
	while (__atomic_exchange_n(&lock->is_taken, 1, __ATOMIC_ACQUIRE) != 0)
		__builtin_ia32_pause();
}

static inline void spin_unlock(spinlock_t *lock)
{
	__atomic_store_n(&lock->is_taken, 0, __ATOMIC_RELEASE);
}

#define spin_lock_irqsave(lock, flags) ((flags) = 0, spin_lock(lock))
#define spin_unlock_irqrestore(lock, flags) ((void)(flags), spin_unlock(lock))
#define assert_spin_locked(lock) ((void)(lock))
#define DEFINE_MUTEX(name) int name __attribute__((unused))
#define mutex_lock(mutex) ((void)0)
#define mutex_unlock(mutex) ((void)0)

/* Processors: as many as the benchmarks have threads. A line of the cache for each one's data. */

#define PROCESSORS 2
#define PROCESSOR_STRIDE 64

extern _Thread_local unsigned int shim_processor __attribute__((tls_model("initial-exec")));

#define per_cpu_ptr(data, cpu) \
	((typeof(data))(void *)((char *)(data) + (size_t)(cpu)*PROCESSOR_STRIDE))
#define raw_cpu_ptr(data) per_cpu_ptr(data, shim_processor)
#define for_each_possible_cpu(cpu) for ((cpu) = 0; (cpu) < PROCESSORS; (cpu)++)
#define for_each_online_cpu(cpu) for_each_possible_cpu(cpu)
#define cache_line_size() PROCESSOR_STRIDE
#define __alloc_percpu(size, align) aligned_alloc(align, PROCESSORS *PROCESSOR_STRIDE)
#define free_percpu(data) free(data)

#define CPUHP_IOMMU_IOVA_DEAD 0
#define cpuhp_setup_state_multi(...) ((void)iova_cpuhp_dead, 0)
#define cpuhp_remove_multi_state(state) ((void)0)
#define cpuhp_state_add_instance_nocalls(state, node) 0
#define cpuhp_state_remove_instance_nocalls(state, node) ((void)0)
#define hlist_entry_safe(node, type, member) container_of(node, type, member)

/* Memory. */

#define GFP_KERNEL 0
#define GFP_ATOMIC 0
#define __GFP_NOWARN 0
#define __GFP_ZERO 0
#define __GFP_HIGHMEM 0
#define SLAB_HWCACHE_ALIGN 0

/* Cells for each processor, so that none waits for another, as in the kernel. */
struct kmem_cache {
	struct {
		struct arena arena __attribute__((aligned(PROCESSOR_STRIDE)));
	} processors[PROCESSORS];
};

/* The one that the kernel makes for IOVAs aligns them to a line of the cache. */
static inline struct kmem_cache *kmem_cache_create(const char *name, size_t size, size_t align,
						   unsigned long flags, void (*constructor)(void *))
{
	struct kmem_cache *cache = aligned_alloc(PROCESSOR_STRIDE, sizeof(*cache));

	(void)name, (void)align, (void)flags, (void)constructor;
	BUG_ON(cache == NULL);
	memset(cache, 0, sizeof(*cache));
	for (unsigned int cpu = 0; cpu < PROCESSORS; cpu++)
		cache->processors[cpu].arena.cell_size = ALIGN(size, 64);
	return cache;
}

static inline void kmem_cache_destroy(struct kmem_cache *cache)
{
	for (unsigned int cpu = 0; cpu < PROCESSORS; cpu++)
		free(cache->processors[cpu].arena.memory);
	free(cache);
}

static inline struct arena *kmem_cache_arena(struct kmem_cache *cache)
{
	return &cache->processors[shim_processor].arena;
}

static inline void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t flags)
{
	struct arena *arena = kmem_cache_arena(cache);
	void *cell = arena_allocate(arena);

	(void)flags;
	return cell == NULL ? NULL : memset(cell, 0, arena->cell_size);
}

#define kmem_cache_free(cache, memory) arena_free(kmem_cache_arena(cache), memory)
#define kmalloc(size, flags) malloc(size)
#define kzalloc(size, flags) calloc(1, size)
#define kcalloc(count, size, flags) calloc(count, size)
#define kfree(memory) free(memory)

/* A page is known by its address, which is its physical address as well. */
struct page;

static inline int get_order(size_t size)
{
	return (int)order_base_2((size + PAGE_SIZE - 1) >> PAGE_SHIFT);
}

extern struct arena shim_arena;

static inline struct page *alloc_pages_node(int node, gfp_t flags, int order)
{
	void *memory = arena_allocate(&shim_arena);

	(void)node, (void)flags;
	BUG_ON(order != 0);
	return memory == NULL ? NULL : memset(memory, 0, PAGE_SIZE);
}

#define page_address(page) ((void *)(page))
#define __free_pages(page, order) arena_free(&shim_arena, page)
#define free_pages(address, order) arena_free(&shim_arena, (void *)(address))
#define virt_to_phys(pointer) ((phys_addr_t)(uintptr_t)(pointer))
#define __pa(pointer) virt_to_phys(pointer)
#define __va(phys) ((void *)(uintptr_t)(phys))
#define dev_to_node(device) 0

/* The page tables' walker is coherent, so none of these is reached. */
#define DMA_TO_DEVICE 1
#define dma_map_single(device, pointer, size, direction) virt_to_phys(pointer)
#define dma_unmap_single(device, dma, size, direction) ((void)(dma))
#define dma_mapping_error(device, dma) ((void)(device), 0)
#define dma_sync_single_for_device(device, dma, size, direction) ((void)(device))

/* IOMMUs. */

#define IOMMU_READ (1 << 0)
#define IOMMU_WRITE (1 << 1)
#define IOMMU_CACHE (1 << 2)
#define IOMMU_NOEXEC (1 << 3)
#define IOMMU_MMIO (1 << 4)
#define IOMMU_PRIV (1 << 5)

struct iommu_iotlb_gather {
	bool queued;
};

static inline bool iommu_iotlb_gather_queued(const struct iommu_iotlb_gather *gather)
{
	return gather != NULL && gather->queued;
}

#endif /* DMACORE_BENCH_SHIM_H */
