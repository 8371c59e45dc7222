/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_LISTENER_H
#define SUPPORT_LISTENER_H

/* Who is told of a domain's changes, and writes down what it hears. */

#include "machine.h"

#define EVENTS_MAX 256

struct listener {
	struct dmacore_notifier *notifier;
	struct dmacore_notifier_event at[EVENTS_MAX];
	unsigned count;
	unsigned taken;
	/* Events that break the rules of struct dmacore_notifier_event. */
	unsigned malformed;
	unsigned releases;
	/* Called for each event, if it is there. */
	void (*react)(struct listener *listener, const struct dmacore_notifier_event *event);
	struct machine *machine;
	void *other;
};

static inline void listener_notify(const struct dmacore_notifier_event *event, void *opaque)
{
	struct listener *listener = opaque;
	bool is_map = event->type == DMACORE_NOTIFY_MAP;

	if (event->struct_size != sizeof(*event) || event->first > event->last ||
	    (!is_map && (event->type != DMACORE_NOTIFY_UNMAP || event->access || event->phys)) ||
	    (is_map && !(event->access & 7)) || listener->releases)
		listener->malformed++;
	listener->at[listener->count++ % EVENTS_MAX] = *event;
	if (listener->react)
		listener->react(listener, event);
}

static inline void listener_release(void *opaque)
{
	struct listener *listener = opaque;

	listener->releases++;
}

/* The options of a listener, for tests that ask for less. */
static inline struct dmacore_notifier_options listener_options(struct listener *listener)
{
	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;

	options.notify = listener_notify;
	options.release = listener_release;
	options.opaque = listener;
	return options;
}

static inline void listener_start(struct listener *listener, struct machine *machine,
				  uint32_t flags, uint64_t first, uint64_t last)
{
	struct dmacore_notifier_options options = listener_options(listener);

	memset(listener, 0, sizeof(*listener));
	listener->machine = machine;
	options.flags = flags;
	options.first = first;
	options.last = last;
	assert_ok(dmacore_notifier_create(machine->domain, &options, &listener->notifier));
}

#define BOTH_EVENTS (DMACORE_NOTIFY_MAP | DMACORE_NOTIFY_UNMAP)

/* Tells of everything. */
static inline void listener_start_all(struct listener *listener, struct machine *machine)
{
	listener_start(listener, machine, BOTH_EVENTS, 0, UINT64_MAX);
}

static inline struct dmacore_notifier_event listener_take(struct listener *listener)
{
	assert_true(listener->count <= EVENTS_MAX);
	if (listener->taken == listener->count)
		fail_msg("nobody told the listener");
	return listener->at[listener->taken++];
}

#define assert_silent(listener_)                                                        \
	do {                                                                            \
		struct listener *silent_ = (listener_);                                 \
                                                                                        \
		assert_int_equal(silent_->malformed, 0);                                \
		if (silent_->taken != silent_->count)                                   \
			fail_msg("unexpected event %u of %llx to %llx",                 \
				 silent_->at[silent_->taken].type,                      \
				 (unsigned long long)silent_->at[silent_->taken].first, \
				 (unsigned long long)silent_->at[silent_->taken].last); \
	} while (0)

#define assert_told_map(listener, first_, size_, phys_, access_)                \
	do {                                                                    \
		struct dmacore_notifier_event event_ = listener_take(listener); \
                                                                                \
		assert_int_equal(event_.type, DMACORE_NOTIFY_MAP);              \
		assert_int_equal(event_.first, first_);                         \
		assert_int_equal(event_.last, (uint64_t)(first_) + (size_)-1);  \
		assert_int_equal(event_.phys, phys_);                           \
		assert_int_equal(event_.access, access_);                       \
	} while (0)

#define assert_told_unmap(listener, first_, size_)                              \
	do {                                                                    \
		struct dmacore_notifier_event event_ = listener_take(listener); \
                                                                                \
		assert_int_equal(event_.type, DMACORE_NOTIFY_UNMAP);            \
		assert_int_equal(event_.first, first_);                         \
		assert_int_equal(event_.last, (uint64_t)(first_) + (size_)-1);  \
	} while (0)

/* Gives the notifier back, which must be the end of it. */
static inline void listener_stop(struct listener *listener)
{
	assert_silent(listener);
	assert_int_equal(listener->releases, 0);
	dmacore_notifier_destroy(listener->notifier);
	assert_int_equal(listener->releases, 1);
}

#endif /* SUPPORT_LISTENER_H */
