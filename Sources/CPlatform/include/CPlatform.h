/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef CPLATFORM_H
#define CPLATFORM_H

/*
 * What the Swift core needs from libc and from the compiler, one shim a need. What the library uses
 * often is static inline, so that Swift compiles it into its own code.
 *
 * None of these changes errno: the library answers by return value alone.
 */

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Memory. */

/* NULL if there is none. */
void *cplatform_allocate(size_t size, size_t alignment);

static inline void cplatform_free(void *memory)
{
	free(memory);
}

/*
 * Whether the processor copies 64 bytes by one load and one store without slowing down for it. Takes a
 * microsecond or more, where a hypervisor answers.
 */
bool cplatform_copies_wide(void);

/*
 * Copies @size bytes, which are a multiple of 256 and not 0, between places aligned to 64. Only where
 * cplatform_copies_wide() says so.
 */
void cplatform_copy_wide(void *to, const void *from, size_t size);

/*
 * Copies a page or less. A libc may have one instruction copy more than 2 KiB at once, which no other
 * overlaps, while a processor goes on behind plain stores: so where it has room for all of them, which is 64
 * of 64 bytes, a page costs little more than what follows. Else it is copied in halves.
 *
 * @is_wide: whether cplatform_copies_wide() has said so.
 */
static inline void cplatform_copy_page(void *to, const void *from, size_t size, bool is_wide)
{
	size_t done = size;

	if (size <= 2048) {
		memcpy(to, from, size);
	} else if (is_wide && (((uintptr_t)to | (uintptr_t)from) & 63) == 0) {
		done = size & ~(size_t)255;
		cplatform_copy_wide(to, from, done);
	} else {
		done = 2048;
		memcpy(to, from, done);
	}
	if (done < size)
		memcpy((char *)to + done, (const char *)from + done, size - done);
}

static inline size_t cplatform_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Maps @size bytes of @fd, shared. Returns 0 or one of the errno values that the caller's contract
 * names: ENODEV also for a file that ends before the range does, which reading one byte tells and
 * which, unlike fstat(), needs no recent glibc.
 */
static inline int cplatform_map_file(int fd, uint64_t offset, size_t size, bool writable,
				     void **out_memory)
{
	int saved = errno;
	int error = 0;
	void *memory = MAP_FAILED;
	char byte;

	if (pread(fd, &byte, 1, (off_t)(offset + size - 1)) == 0)
		error = ENODEV;
	else
		memory = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
			      (off_t)offset);
	if (memory != MAP_FAILED)
		*out_memory = memory;
	else if (!error)
		error = errno;
	errno = saved;
	/* A seal against writing; and a limit of the process that others may free. */
	if (error == EPERM)
		return EACCES;
	return error == EAGAIN || error == ENFILE ? ENOMEM : error;
}

static inline void cplatform_unmap(void *memory, size_t size)
{
	int saved = errno;

	munmap(memory, size);
	errno = saved;
}

/* Words that other threads, a device or a guest may read and write at the same time. */

static inline uint64_t cplatform_load_relaxed(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline uint64_t cplatform_load_acquire(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void cplatform_store_release(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Replaces @expected by @value and says whether it did; release on success. */
static inline bool cplatform_replace_release(uint64_t *word, uint64_t expected, uint64_t value)
{
	return __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_RELEASE,
					   __ATOMIC_RELAXED);
}

/* As above, and what follows is not done before. */
static inline bool cplatform_replace_fenced(uint64_t *word, uint64_t expected, uint64_t value)
{
	return __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_RELAXED);
}

static inline uint64_t cplatform_exchange_acquire(uint64_t *word, uint64_t value)
{
	return __atomic_exchange_n(word, value, __ATOMIC_ACQUIRE);
}

static inline uint64_t cplatform_load_ordered(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* Adds, with a full fence behind it, which on x86-64 the addition itself is. */
static inline void cplatform_add_fenced(uint64_t *word, uint64_t value)
{
	__atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
#ifndef __x86_64__
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline void cplatform_subtract_release(uint64_t *word, uint64_t value)
{
	__atomic_fetch_sub(word, value, __ATOMIC_RELEASE);
}

static inline void cplatform_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Keeps accesses before it apart from accesses behind it, but for a load that passes a store. */
static inline void cplatform_hand_over(void)
{
	__atomic_thread_fence(__ATOMIC_ACQ_REL);
}

/*
 * Rows of a few dozen words. Here because the compiler would spoil them: it takes them for work for
 * vectors, and the processors that the library runs on need not have those that compare such words.
 */

/*
 * How many of 30 sorted words are not above @limit. Two steps that halve, each of which waits for the
 * one before, and then seven compares that wait for nothing; no branch, which would go either way.
 */
static inline size_t cplatform_count_not_above(const uint64_t words[30], uint64_t limit)
{
	size_t at = words[14] <= limit ? 15 : 0;

	at += words[at + 7] <= limit ? 8 : 0;
	/* Of 15 words the eighth is on one side; seven are left. */
	words += at;
	return at + (words[0] <= limit) + (words[1] <= limit) + (words[2] <= limit) +
	       (words[3] <= limit) + (words[4] <= limit) + (words[5] <= limit) +
	       (words[6] <= limit);
}

/* All of 30 words, or-ed. */
static inline uint64_t cplatform_or(const uint64_t words[30])
{
	uint64_t all = 0;

	for (size_t i = 0; i < 30; i++)
		all |= words[i];
	return all;
}

/* A bit for each of 30 words: whether the bit @n of it is set. */
static inline uint32_t cplatform_having_bit(const uint64_t words[30], unsigned n)
{
	uint32_t found = 0;

#ifdef __SSE2__
	/* Where the sign is, from which one instruction takes those of two words. */
	__m128i shift = _mm_cvtsi32_si128(63 - (int)n);

	for (unsigned i = 0; i < 30; i += 2) {
		__m128i two = _mm_sll_epi64(_mm_loadu_si128((const __m128i *)(words + i)), shift);

		found |= (uint32_t)_mm_movemask_pd(_mm_castsi128_pd(two)) << i;
	}
#else
	for (unsigned i = 0; i < 30; i++)
		found |= (uint32_t)(words[i] >> n & 1) << i;
#endif
	return found;
}

/* A bit for each of at most 32 words: whether it is not below @minimum. */
static inline uint32_t cplatform_not_below(const uint64_t *words, size_t count, uint64_t minimum)
{
	uint32_t a = 0, b = 0;
	size_t i = 0;

	/* Two ways at once, as neither waits for the other; as vectors it would be slower. */
#pragma clang loop vectorize(disable) unroll(disable)
	for (; i + 2 <= count; i += 2) {
		a |= (uint32_t)(words[i] >= minimum) << i;
		b |= (uint32_t)(words[i + 1] >= minimum) << i;
	}
	if (i < count)
		a |= (uint32_t)(words[i] >= minimum) << i;
	return a | b << 1;
}

/*
 * Rows of words that others may read and write at the same time, two at once where the processor can:
 * it moves 16 bytes that are aligned to 16 so that each half is all old or all new, which is all that
 * anybody who reads words relies on. A sanitizer of threads knows nothing of that, and nothing tells
 * this header, which Swift compiles, that there is one: the build does.
 */
#if defined(__SSE2__) && !defined(CPLATFORM_THREAD_SANITIZER)
#define CPLATFORM_HAS_PAIRS 1
#endif

/* Most rows are short, and their functions are called from one or two places. */
#define CPLATFORM_ROW __attribute__((__always_inline__)) static inline

/* The bits in which some of the words, of which there is one, differ from @value; relaxed. */
CPLATFORM_ROW uint64_t cplatform_row_differences(const uint64_t *words, size_t count,
						 uint64_t value)
{
	uint64_t all = 0;

#ifdef CPLATFORM_HAS_PAIRS
	__m128i v = _mm_set1_epi64x((long long)value);
	__m128i a = _mm_setzero_si128(), b = a;

	if ((uintptr_t)words & 8) {
		all = __atomic_load_n(words++, __ATOMIC_RELAXED) ^ value;
		count--;
	}
#pragma clang loop unroll(disable)
	for (; count >= 8; count -= 8, words += 8) {
		const __m128i *at = (const __m128i *)words;

		a = _mm_or_si128(a, _mm_xor_si128(v, at[0]));
		b = _mm_or_si128(b, _mm_xor_si128(v, at[1]));
		a = _mm_or_si128(a, _mm_xor_si128(v, at[2]));
		b = _mm_or_si128(b, _mm_xor_si128(v, at[3]));
	}
#pragma clang loop unroll(disable)
	for (; count >= 2; count -= 2, words += 2)
		a = _mm_or_si128(a, _mm_xor_si128(v, *(const __m128i *)words));
	a = _mm_or_si128(a, b);
	all |= (uint64_t)_mm_cvtsi128_si64(_mm_or_si128(a, _mm_unpackhi_epi64(a, a)));
	if (count)
		all |= __atomic_load_n(words, __ATOMIC_RELAXED) ^ value;
#else
	for (; count; count--)
		all |= __atomic_load_n(words++, __ATOMIC_RELAXED) ^ value;
#endif
	return all;
}

/*
 * Stores @first, and behind it words, one in all at least, of which each is larger by @step;
 * release.
 */
CPLATFORM_ROW void cplatform_row_store(uint64_t *words, size_t count, uint64_t first, uint64_t step)
{
#ifdef CPLATFORM_HAS_PAIRS
	__m128i a, b, next, by_two = _mm_set1_epi64x((long long)(2 * step));

	/* Such stores are seen in their order, if the compiler leaves them in it. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if ((uintptr_t)words & 8) {
		__atomic_store_n(words++, first, __ATOMIC_RELAXED);
		count--;
		first += step;
	}
	a = _mm_set_epi64x((long long)(first + step), (long long)first);
	b = _mm_add_epi64(a, by_two);
	next = _mm_add_epi64(by_two, by_two);
#pragma clang loop unroll(disable)
	for (; count >= 8; count -= 8, words += 8) {
		__m128i *at = (__m128i *)words;

		at[0] = a;
		at[1] = b;
		a = _mm_add_epi64(a, next);
		b = _mm_add_epi64(b, next);
		at[2] = a;
		at[3] = b;
		a = _mm_add_epi64(a, next);
		b = _mm_add_epi64(b, next);
	}
#pragma clang loop unroll(disable)
	for (; count >= 2; count -= 2, words += 2) {
		*(__m128i *)words = a;
		a = _mm_add_epi64(a, by_two);
	}
	if (count)
		__atomic_store_n(words, (uint64_t)_mm_cvtsi128_si64(a), __ATOMIC_RELAXED);
#else
	for (; count; count--, first += step)
		__atomic_store_n(words++, first, __ATOMIC_RELEASE);
#endif
}

/* Lets the processor fetch what will be used soon, a line of 64 bytes at a time. */
static inline void cplatform_prefetch(const void *memory, size_t size)
{
	for (size_t offset = 0; offset < size; offset += 64)
		__builtin_prefetch((const char *)memory + offset);
}

/* Locks and processors. */

static inline size_t cplatform_mutex_size(void)
{
	return sizeof(pthread_mutex_t);
}

static inline void cplatform_mutex_init(void *mutex)
{
	/* Cannot fail for the default attributes: glibc only fills the structure in. */
	pthread_mutex_init((pthread_mutex_t *)mutex, NULL);
}

static inline void cplatform_mutex_destroy(void *mutex)
{
	pthread_mutex_destroy((pthread_mutex_t *)mutex);
}

static inline void cplatform_mutex_lock(void *mutex)
{
	pthread_mutex_lock((pthread_mutex_t *)mutex);
}

static inline void cplatform_mutex_unlock(void *mutex)
{
	pthread_mutex_unlock((pthread_mutex_t *)mutex);
}

/*
 * Where glibc 2.35 and later keep what the kernel tells a thread about itself, as an offset from the
 * thread's pointer; an older glibc has no such symbol.
 */
extern const ptrdiff_t __rseq_offset __attribute__((__weak__));

/*
 * Where a thread finds the number of the processor it is on, as an offset from the thread's pointer,
 * or 0 where it does not: the second word of what <linux/rseq.h> calls struct rseq.
 */
static inline ptrdiff_t cplatform_cpu_offset(void)
{
#ifdef __x86_64__
	if (&__rseq_offset)
		return __rseq_offset + 4;
#endif
	return 0;
}

/*
 * The processor that the thread is on, or was a moment ago, with an offset from above that is not 0.
 * Negative if the kernel does not tell.
 */
static inline int cplatform_likely_cpu(ptrdiff_t offset)
{
#ifdef __x86_64__
	int cpu;

	__asm__ volatile("movl %%fs:(%1), %0" : "=r"(cpu) : "r"(offset));
	return cpu;
#else
	(void)offset;
	return -1;
#endif
}

/* As cplatform_current_cpu(), from the system; in CPlatform.c, out of the way of the code. */
int cplatform_ask_current_cpu(void);

/*
 * The processor that the thread is on, or was a moment ago; negative where nobody knows, as on an old
 * kernel or in a sandbox.
 */
static inline int cplatform_current_cpu(void)
{
	ptrdiff_t offset = cplatform_cpu_offset();
	int cpu = offset ? cplatform_likely_cpu(offset) : -1;

	return cpu >= 0 ? cpu : cplatform_ask_current_cpu();
}

static inline long cplatform_cpu_count(void)
{
	return sysconf(_SC_NPROCESSORS_CONF);
}

/* Restartable sequences and a barrier for all threads. */

/* A cell fills two lines of the cache: a processor that reads one fetches its neighbour too. */
#define CPLATFORM_CELL_SIZE 128
_Static_assert(CPLATFORM_CELL_SIZE == 1 << 7, "what shifts by 7 below");

/*
 * Takes the cell of the processor that the thread is on: stores 1 in its first word, if that is 0.
 * Returns where the cell starts, in bytes, or -1: the word is not 0, the processor is none of the first
 * @count, or the kernel does not tell. @count is 0 where @offset is.
 *
 * This costs no locked instruction. The kernel starts the sequence again when the thread is interrupted in
 * it by another one or by a signal, or is moved: so no other thread of that processor comes in between, and
 * no other processor takes the cell. A debugger that stops at each instruction never gets through it.
 *
 * <linux/rseq.h> and rseq(2) have the protocol: struct rseq has the processor's number in its second word,
 * and behind that the address of what describes the sequence that the thread is in: where it starts, how
 * long it is, and where to go on when it was interrupted, which has the signature before it that glibc has
 * registered.
 */
static inline __attribute__((always_inline)) int64_t
cplatform_take_cell(void *cells, uint32_t count, ptrdiff_t offset)
{
#ifdef __x86_64__
	uint64_t cell;

	/* Then there is an offset. */
	if (count == 0)
		return -1;
	__asm__ volatile goto(
		/* The signature is the end of an instruction that does nothing. */
		"testl $0x53053053, %k0\n"
		".Lcplatform_sequence%=:\tleaq 1f(%%rip), %0\n\t"
		"movq %0, %%fs:4(%1)\n"
		"2:\tmovl %%fs:(%1), %k0\n\t"
		"cmpl %3, %k0\n\t"
		"jae %l[none]\n\t"
		"shlq $7, %0\n\t"
		"cmpq $0, (%2, %0)\n\t"
		"jne %l[none]\n\t"
		"movq $1, (%2, %0)\n"
		/* The description may be unloaded with the library, so nothing may lead to it. */
		"3:\tmovq $0, %%fs:4(%1)\n\t"
		".pushsection .data.rel.ro.cplatform, \"awo\", @progbits, .Lcplatform_sequence%=\n\t"
		".balign 32\n"
		"1:\t.long 0, 0\n\t"
		".quad 2b, 3b - 2b, .Lcplatform_sequence%=\n\t"
		".popsection\n\t"
		: "=&r"(cell)
		: "r"(offset), "r"(cells), "r"(count)
		: "memory", "cc"
		: none);
#ifdef CPLATFORM_THREAD_SANITIZER
	/* It does not see the load above, which the last one's release of the word pairs with. */
	(void)cplatform_load_acquire((uint64_t *)cells + cell / 8);
#endif
	/* There are fewer processors. */
	if (cell > INT64_MAX)
		__builtin_unreachable();
	return (int64_t)cell;
none:
	__asm__ volatile("movq $0, %%fs:4(%0)" : : "r"(offset) : "memory");
#else
	(void)cells;
	(void)count;
	(void)offset;
#endif
	return -1;
}

/* Says that cplatform_barrier() will be called. Whether the kernel has it. */
bool cplatform_prepare_barrier(void);

/*
 * A full fence for all threads of the process, wherever each of them is: of what it does before, all is
 * seen afterwards, and what it does afterwards sees all that was done before the call.
 */
void cplatform_barrier(void);

/* A moment's rest for a loop that waits for another processor. */
static inline void cplatform_pause(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

static inline void cplatform_yield(void)
{
	sched_yield();
}

/* Sleeps for about 50 microseconds, so that a thread of any lower priority can run. */
void cplatform_sleep(void);

/* The 255 bytes of a line of text and the null byte. Swift starts it with zeros, and reads it as bytes. */
struct cplatform_line {
	uint64_t words[32];
};

/*
 * Checks of what a thread holds, in Checks.c. A rank is below 32. cplatform_check_lock() says
 * whether a lock of this rank may be taken, and notes that it is.
 */

bool cplatform_check_lock(uint32_t rank);
void cplatform_check_unlock(uint32_t rank);
void cplatform_check_enter(void);
void cplatform_check_leave(void);
bool cplatform_check_holds_lock(void);
bool cplatform_check_in_section(void);

#endif /* CPLATFORM_H */
