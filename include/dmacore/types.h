/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_TYPES_H
#define DMACORE_TYPES_H

/**
 * DOC: Types every header shares
 *
 * Addresses come in three kinds, and each has a type of its own:
 *
 * - &dmacore_dma_t is what a device is told: the result of the mapping calls;
 * - &dmacore_iova_t is the input of a page table or an IOVA space;
 * - &dmacore_phys_t is a physical address of the machine that a &struct dmacore_system describes.
 *
 * Functions return 0 or a negated errno value, mark no error in errno itself, and write their
 * outputs, which come last, on success only; a created handle is set to NULL on failure. A bad
 * argument gets an error and changes nothing.
 *
 * An options structure starts with its own size, so that it can grow: fill it with its _INIT macro, then
 * set members. Zero means the default. A structure shorter than that of the first release is -EINVAL; a
 * longer one than the library knows is accepted while the part that it does not know is zero and not
 * longer than 4096 bytes, and -E2BIG otherwise. Statistics structures are given with their size set in
 * the same way; what the library does not know of a longer one, it sets to zero.
 *
 * Stability: stable once 1.0 is released; until then a release may change it and says so.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define DMACORE_BEGIN_DECLS extern "C" {
#define DMACORE_END_DECLS }
#else
#define DMACORE_BEGIN_DECLS
#define DMACORE_END_DECLS
#endif

/* On functions whose result must not be ignored. */
#if defined(__GNUC__)
#define DMACORE_MUST_CHECK __attribute__((__warn_unused_result__))
#else
#define DMACORE_MUST_CHECK
#endif

DMACORE_BEGIN_DECLS

/* An address as the device uses it. */
typedef uint64_t dmacore_dma_t;

/* An input address of a page table or an address of an IOVA space. */
typedef uint64_t dmacore_iova_t;

/* A physical address. */
typedef uint64_t dmacore_phys_t;

/* The mask of an address of @bits bits, 0 to 64: the highest address that fits. */
#define DMACORE_BIT_MASK(bits) ((bits) >= 64 ? UINT64_MAX : ((UINT64_C(1) << (bits)) - 1))

/*
 * What an access does, or what a translation permits: bits, combined with |. All but the first two are
 * for page tables alone, and each format has some of them.
 */
enum dmacore_access {
	DMACORE_ACCESS_READ = 1,
	DMACORE_ACCESS_WRITE = 2,
	/* Instructions may be fetched. */
	DMACORE_ACCESS_EXECUTE = 4,
	/* Only requests with privilege are permitted. */
	DMACORE_ACCESS_PRIVILEGED = 8,
	/* The range is that of a device's registers: neither cached nor gathered nor reordered. */
	DMACORE_ACCESS_MMIO = 16,
	/* The range is memory whose accesses are coherent with the caches of processors. */
	DMACORE_ACCESS_CACHEABLE = 32,
};

/**
 * struct dmacore_translation - where a range of input addresses leads
 * @first: first input address of the range
 * @last: last input address of the range, inclusive
 * @target: physical address of @first; the whole range is contiguous from there
 * @access: what is permitted, bits of enum dmacore_access
 * @reserved: zero
 */
struct dmacore_translation {
	uint64_t first;
	uint64_t last;
	dmacore_phys_t target;
	uint32_t access;
	uint32_t reserved;
};

enum dmacore_report_level {
	/* A misuse was refused and changed nothing. */
	DMACORE_REPORT_ERROR = 0,
	/* A misuse was repaired, or something was lost that its owner should know of. */
	DMACORE_REPORT_WARNING = 1,
};

/**
 * struct dmacore_report - a message for a person
 * @struct_size: size of this structure as the library knows it
 * @level: one of enum dmacore_report_level
 * @error: the errno value that goes with it, positive, or 0
 * @object: name of the object concerned, such as the device's name
 * @text: one sentence without a line end, at most 255 bytes
 *
 * The structure and its strings are valid during the call alone.
 */
struct dmacore_report {
	size_t struct_size;
	uint32_t level;
	int32_t error;
	const char *object;
	const char *text;
};

/**
 * typedef dmacore_report_fn - receives messages for people
 *
 * Called on the thread whose call is concerned, with no lock held. It may call any function of the
 * library, but destroy no object that the call concerns.
 */
typedef void (*dmacore_report_fn)(const struct dmacore_report *report, void *opaque);

DMACORE_END_DECLS

#endif /* DMACORE_TYPES_H */
