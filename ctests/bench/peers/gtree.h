/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_BENCH_GTREE_H
#define DMACORE_BENCH_GTREE_H

/*
 * An allocator as emulators have it: the ranges in use in a balanced tree of GLib's, walked from
 * the lowest key until a hole fits. Addresses and sizes are in pages.
 */

#include <stdbool.h>
#include <stdint.h>

struct gtree_space;

/* The object's only symbol. */
#define GTREE_PEER "gtree_peer"

struct gtree_peer {
	struct gtree_space *(*create)(uint64_t last);
	void (*destroy)(struct gtree_space *space);
	void (*insert)(struct gtree_space *space, uint64_t first, uint64_t pages);
	bool (*allocate)(struct gtree_space *space, uint64_t pages, uint64_t *out_first);
	void (*free)(struct gtree_space *space, uint64_t first);
};

#endif /* DMACORE_BENCH_GTREE_H */
