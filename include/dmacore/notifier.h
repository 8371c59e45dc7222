/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_NOTIFIER_H
#define DMACORE_NOTIFIER_H

/**
 * DOC: Notifiers
 *
 * A notifier tells its maker what is mapped and unmapped in a domain, so that a copy of the
 * translations can be kept elsewhere: in another IOMMU, in a device's cache, in an emulator.
 *
 *	struct dmacore_notifier_options options = DMACORE_NOTIFIER_OPTIONS_INIT;
 *	struct dmacore_notifier *notifier;
 *
 *	... options.notify and options.opaque say whom to tell ...
 *	error = dmacore_notifier_create(domain, &options, &notifier);
 *	error = dmacore_notifier_replay(notifier);
 *	... the shadow has what the domain has ...
 *	dmacore_notifier_destroy(notifier);
 *
 * What makes events: dmacore_domain_map() and dmacore_domain_unmap() in an unmanaged domain; in a DMA
 * or a hybrid domain the calls of mapping.h and coherent.h, with the whole pages that they map, and the
 * destruction of a device that has mappings left, but for what is direct; in a hybrid domain also
 * dmacore_memory_add() and dmacore_memory_remove(), by which the window changes; in a nested domain,
 * whose tables nobody tells of, invalidations, as unmaps. Attaching and detaching make none: the domain
 * stays as it is.
 *
 * An unmap in the parent of a nested domain ends translations there too, and nobody knows of which
 * addresses. Who keeps copies of those listens to the parent as well, and takes an unmap of it for one of
 * all that is nested.
 *
 * When an event comes the change has been made, and the call that made it has not returned: it comes on
 * the thread of that call, under no lock. That of a strict unmap (domain.h) comes when accesses in
 * flight have ended, so that a listener which keeps no copy longer than its callback makes the unmap
 * strict for its copies too. Calls on several threads bring their events at once. Of calls that follow
 * each other, and those on one range have to, the events do too. Of a part of a window several threads
 * may tell at once, and a listener that changes memory in its callback: then it may be told of more than
 * once, and the last event says what is there.
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_domain;
struct dmacore_notifier;

enum dmacore_notify_flags {
	/* Something was mapped. */
	DMACORE_NOTIFY_MAP = 1,
	/* Something was unmapped. */
	DMACORE_NOTIFY_UNMAP = 2,
	/*
	 * Events are of naturally aligned powers of two, as many as it takes; so is @phys, at a
	 * multiple of the same power. All 2^64 addresses are one of them.
	 */
	DMACORE_NOTIFY_ALIGNED = 4,
};

/**
 * struct dmacore_notifier_event - what has changed
 * @struct_size: size of this structure as the library knows it
 * @type: DMACORE_NOTIFY_MAP or DMACORE_NOTIFY_UNMAP
 * @access: what is permitted there, bits of enum dmacore_access; unmap: 0
 * @first: first address that was mapped or unmapped
 * @last: last address, inclusive
 * @phys: where @first leads, and the range is contiguous from there; unmap: 0
 *
 * A range never goes beyond that of the notifier, nor beyond what the call was to map or unmap. That of
 * an unmap which crosses holes (DMACORE_UNMAP_CROSS_HOLES) is the whole range of the call, holes
 * included, if anything was mapped there.
 *
 * The structure is valid during the call alone.
 */
struct dmacore_notifier_event {
	size_t struct_size;
	uint32_t type;
	uint32_t access;
	dmacore_iova_t first;
	dmacore_iova_t last;
	dmacore_phys_t phys;
};

/**
 * typedef dmacore_notify_fn - receives the events of a notifier
 *
 * It may call any function of the library and destroy any notifier, this one too; it destroys no other
 * object that the call which made the change concerns. A mapping call has not returned yet, so that
 * its mapping cannot be undone from here.
 */
typedef void (*dmacore_notify_fn)(const struct dmacore_notifier_event *event, void *opaque);

/**
 * typedef dmacore_notifier_release_fn - is told that a notifier has ended
 *
 * Called once, when no call of the notifier's callback is running nor will start: from within
 * dmacore_notifier_destroy(), or on a thread whose events were under way then. It may call any function
 * of the library, but destroys no object that the call concerns.
 */
typedef void (*dmacore_notifier_release_fn)(void *opaque);

/**
 * struct dmacore_notifier_options - what a notifier tells, and whom
 * @struct_size: sizeof(struct dmacore_notifier_options)
 * @flags: bits of enum dmacore_notify_flags, of map and unmap one at least
 * @reserved: zero
 * @first: first address of which it tells
 * @last: last address, inclusive; 0: UINT64_MAX
 * @notify: receives the events
 * @release: called when nothing more will come; NULL: nobody needs to know
 * @opaque: passed to both
 */
struct dmacore_notifier_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	dmacore_iova_t first;
	dmacore_iova_t last;
	dmacore_notify_fn notify;
	dmacore_notifier_release_fn release;
	void *opaque;
};

#define DMACORE_NOTIFIER_OPTIONS_INIT                                                        \
	{                                                                                    \
		sizeof(struct dmacore_notifier_options),                                     \
			DMACORE_NOTIFY_MAP | DMACORE_NOTIFY_UNMAP, 0, 0, 0, NULL, NULL, NULL \
	}

/**
 * dmacore_notifier_create() - be told of what is mapped and unmapped in a domain
 * @domain: the domain, of any type
 * @options: what to tell, and whom
 * @out_notifier: receives the notifier, or NULL on failure
 *
 * Calls that start when this has returned are told of. Of those that run beside it nothing is promised;
 * a replay that starts when they have returned finds what they left. Several notifiers of one domain
 * are told in any order.
 *
 * Context: any thread; locked (notifiers, rank 13); calls nothing back.
 * Ownership: the caller gives the notifier back with dmacore_notifier_destroy(); it holds on to the
 *   domain. What @options->opaque points to must stay until @options->release is called.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, also @options->notify, neither map nor unmap is asked for, a flag is
 *            unknown, @reserved is not zero, the range is the wrong way round, or the structure is
 *            too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_notifier_create(struct dmacore_domain *domain,
			    const struct dmacore_notifier_options *options,
			    struct dmacore_notifier **out_notifier);

/**
 * dmacore_notifier_destroy() - give a notifier back
 * @notifier: the notifier, or NULL
 *
 * It does not wait. No event comes of a change that is made when this has returned; those that are
 * under way on other threads may still come, until the release callback is called. From within the
 * notifier's callback, no more comes on this thread.
 *
 * Context: any thread, also within the callback; locked (notifiers, rank 13); may call the release
 *   callback; may end a domain that was destroyed before, and so call the table allocator.
 * Ownership: @notifier may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_notifier_destroy(struct dmacore_notifier *notifier);

/**
 * dmacore_notifier_replay() - tell what is mapped already
 * @notifier: a notifier with DMACORE_NOTIFY_MAP
 *
 * Each run of addresses of the notifier's range that is mapped to contiguous memory with the same
 * access is one event, or as many as DMACORE_NOTIFY_ALIGNED makes of it. In an identity domain that is
 * the whole range, with @phys equal to @first; in a blocked one there is none.
 *
 * In a nested domain, how long it takes is up to the guest, whose tables may lead to the same places by
 * ever so many addresses: let the notifier be for few, or be ready to destroy it.
 *
 * Beside calls that map and unmap, a mapping may be told of twice. One that is unmapped meanwhile may be
 * told of after its unmap was; then a notifier with DMACORE_NOTIFY_UNMAP tells of the unmap again before
 * this returns. Who cannot bear a stale mapping even that long keeps the calls apart.
 *
 * Context: any thread; lock-free; calls the notifier's callback.
 * Ownership: nothing changes hands.
 * Return: 0, also if the notifier was destroyed in its callback, which ends the replay; or
 *   -EINVAL  @notifier is NULL or has no DMACORE_NOTIFY_MAP. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_notifier_replay(struct dmacore_notifier *notifier);

DMACORE_END_DECLS

#endif /* DMACORE_NOTIFIER_H */
