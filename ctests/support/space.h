/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_SPACE_H
#define SUPPORT_SPACE_H

/* IOVA spaces for tests: how to make one, and what an allocation in it must give. */

#include "check.h"

static inline struct dmacore_iova_space *make_space_with(uint32_t flags, uint64_t granule,
							 uint64_t first, uint64_t last)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	options.flags = flags;
	options.granule = granule;
	options.first = first;
	options.last = last;
	assert_ok(dmacore_iova_space_create(&options, &space));
	return space;
}

/* A space that does the same for the same calls. */
static inline struct dmacore_iova_space *make_space(uint64_t granule, uint64_t first, uint64_t last)
{
	return make_space_with(DMACORE_IOVA_SPACE_CHECKED, granule, first, last);
}

static inline struct dmacore_iova_space_statistics read_statistics(struct dmacore_iova_space *space)
{
	struct dmacore_iova_space_statistics statistics = { .struct_size = sizeof(statistics) };

	assert_ok(dmacore_iova_space_statistics(space, &statistics));
	return statistics;
}

/* What is in the space; what it has done, and the memory that it has at hand, may change. */
static inline void assert_same_state(const struct dmacore_iova_space_statistics *before,
				     const struct dmacore_iova_space_statistics *after)
{
	assert_int_equal(before->allocated_count, after->allocated_count);
	assert_int_equal(before->allocated_bytes, after->allocated_bytes);
	assert_int_equal(before->reserved_count, after->reserved_count);
	assert_int_equal(before->reserved_bytes, after->reserved_bytes);
	assert_int_equal(before->free_bytes, after->free_bytes);
	assert_int_equal(before->taken_count_max, after->taken_count_max);
	assert_int_equal(before->taken_bytes_max, after->taken_bytes_max);
}

static inline dmacore_iova_t allocate(struct dmacore_iova_space *space, uint64_t size,
				      uint64_t alignment, uint64_t limit)
{
	dmacore_iova_t iova = UNTOUCHED;

	assert_ok(dmacore_iova_space_allocate(space, size, alignment, limit, &iova));
	return iova;
}

#define assert_allocates(space, size, alignment, limit, expected)                              \
	do {                                                                                   \
		dmacore_iova_t iova_ = UNTOUCHED;                                              \
                                                                                               \
		assert_ok(dmacore_iova_space_allocate(space, size, alignment, limit, &iova_)); \
		assert_int_equal(iova_, expected);                                             \
	} while (0)

#define assert_allocates_nothing(space, size, alignment, limit, error)                             \
	do {                                                                                       \
		struct dmacore_iova_space_statistics before_ = read_statistics(space), after_;     \
		dmacore_iova_t iova_;                                                              \
                                                                                                   \
		assert_fails_untouched(                                                            \
			dmacore_iova_space_allocate(space, size, alignment, limit, &iova_), error, \
			iova_);                                                                    \
		after_ = read_statistics(space);                                                   \
		assert_same_state(&before_, &after_);                                              \
	} while (0)

/* Constraints with a highest address and some other members, such as `.alignment = 8192`. */
#define CONSTRAINTS(highest, ...)                                       \
	(&(const struct dmacore_iova_constraints){                      \
		.struct_size = sizeof(struct dmacore_iova_constraints), \
		.last = (highest),                                      \
		__VA_ARGS__ })

#define assert_allocates_with(space, size, constraints, expected)                              \
	do {                                                                                   \
		dmacore_iova_t iova_ = UNTOUCHED;                                              \
                                                                                               \
		assert_ok(dmacore_iova_space_allocate_with(space, size, constraints, &iova_)); \
		assert_int_equal(iova_, expected);                                             \
	} while (0)

#define assert_allocates_nothing_with(space, size, constraints, error)                             \
	do {                                                                                       \
		struct dmacore_iova_space_statistics before_ = read_statistics(space), after_;     \
		dmacore_iova_t iova_;                                                              \
                                                                                                   \
		assert_fails_untouched(                                                            \
			dmacore_iova_space_allocate_with(space, size, constraints, &iova_), error, \
			iova_);                                                                    \
		after_ = read_statistics(space);                                                   \
		assert_same_state(&before_, &after_);                                              \
	} while (0)

/* The messages of a space, as they came. */
struct reports {
	unsigned count;
	struct {
		uint32_t level;
		int32_t error;
		char object[32];
		char text[256];
	} seen[8];
};

static inline void record_report(const struct dmacore_report *report, void *opaque)
{
	struct reports *reports = opaque;
	unsigned index = reports->count++;

	if (index >= sizeof(reports->seen) / sizeof(*reports->seen))
		return;
	reports->seen[index].level = report->level;
	reports->seen[index].error = report->error;
	snprintf(reports->seen[index].object, sizeof(reports->seen[index].object), "%s",
		 report->object);
	snprintf(reports->seen[index].text, sizeof(reports->seen[index].text), "%s", report->text);
}

static inline struct dmacore_iova_space *
make_reporting_space(uint32_t flags, uint64_t first, uint64_t last, struct reports *reports)
{
	struct dmacore_iova_space_options options = DMACORE_IOVA_SPACE_OPTIONS_INIT;
	struct dmacore_iova_space *space;

	memset(reports, 0, sizeof(*reports));
	options.flags = flags;
	options.first = first;
	options.last = last;
	options.report = record_report;
	options.report_opaque = reports;
	assert_ok(dmacore_iova_space_create(&options, &space));
	return space;
}

/* The message about a refused free. */
static inline void assert_refusal(const struct reports *reports, unsigned index)
{
	assert_true(index < reports->count);
	assert_int_equal(reports->seen[index].level, DMACORE_REPORT_ERROR);
	assert_int_equal(reports->seen[index].error, EINVAL);
	assert_string_equal(reports->seen[index].object, "IOVA space");
	assert_true(strlen(reports->seen[index].text) > 0);
	assert_null(strchr(reports->seen[index].text, '\n'));
}

#endif /* SUPPORT_SPACE_H */
