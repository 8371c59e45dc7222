/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef CPLATFORM_H
#define CPLATFORM_H

/*
 * What the Swift core needs from libc and from the compiler, one shim a need. What the library uses
 * is static inline, so that Swift compiles it into its own code.
 *
 * None of these changes errno: the library answers by return value alone.
 */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Declared here because <sched.h> hides it without _GNU_SOURCE, which a header cannot ask for. */
int sched_getcpu(void);

/* Memory. */

static inline void *cplatform_allocate(size_t size, size_t alignment)
{
	int saved = errno;
	void *memory = NULL;
	int error = posix_memalign(&memory, alignment, size);

	errno = saved;
	return error ? NULL : memory;
}

static inline void cplatform_free(void *memory)
{
	free(memory);
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

/* Negative where nobody knows, as on an old kernel or in a sandbox. */
static inline int cplatform_current_cpu(void)
{
	int saved = errno;
	int cpu = sched_getcpu();

	if (cpu < 0)
		errno = saved;
	return cpu;
}

static inline long cplatform_cpu_count(void)
{
	return sysconf(_SC_NPROCESSORS_CONF);
}

static inline void cplatform_yield(void)
{
	sched_yield();
}

/* Sleeps for about 50 microseconds, so that a thread of any lower priority can run. */
static inline void cplatform_sleep(void)
{
	struct timespec time = { 0, 50000 };
	int saved = errno;

	nanosleep(&time, NULL);
	errno = saved;
}

/*
 * Checks of what a thread holds, in CPlatform.c. A rank is below 32. cplatform_check_lock() says
 * whether a lock of this rank may be taken, and notes that it is.
 */

bool cplatform_check_lock(uint32_t rank);
void cplatform_check_unlock(uint32_t rank);
void cplatform_check_enter(void);
void cplatform_check_leave(void);
bool cplatform_check_holds_lock(void);
bool cplatform_check_in_section(void);

#endif /* CPLATFORM_H */
