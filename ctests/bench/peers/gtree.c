/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "gtree.h"

#include <glib.h>

/* The key and the value of an entry at once. */
struct entry {
	uint64_t first;
	uint64_t end;
};

struct gtree_space {
	GTree *tree;
	uint64_t last;
};

struct search {
	uint64_t pages;
	/* Where the hole before the next entry starts. */
	uint64_t start;
	bool is_found;
};

static gint compare(gconstpointer left, gconstpointer right, gpointer opaque)
{
	const struct entry *a = left, *b = right;

	(void)opaque;
	return (a->first > b->first) - (a->first < b->first);
}

static struct gtree_space *create(uint64_t last)
{
	struct gtree_space *space = g_new(struct gtree_space, 1);

	space->tree = g_tree_new_full(compare, NULL, g_free, NULL);
	space->last = last;
	return space;
}

static void destroy(struct gtree_space *space)
{
	g_tree_destroy(space->tree);
	g_free(space);
}

static void insert(struct gtree_space *space, uint64_t first, uint64_t pages)
{
	struct entry *entry = g_new(struct entry, 1);

	entry->first = first;
	entry->end = first + pages;
	g_tree_insert(space->tree, entry, entry);
}

static gboolean look_before(gpointer key, gpointer value, gpointer opaque)
{
	const struct entry *entry = key;
	struct search *search = opaque;

	(void)value;
	search->is_found = entry->first - search->start >= search->pages;
	if (!search->is_found)
		search->start = entry->end;
	return search->is_found;
}

static bool allocate(struct gtree_space *space, uint64_t pages, uint64_t *out_first)
{
	struct search search = { .pages = pages, .start = 1 };

	g_tree_foreach(space->tree, look_before, &search);
	if (!search.is_found && space->last - search.start < pages)
		return false;
	insert(space, search.start, pages);
	*out_first = search.start;
	return true;
}

static void remove_range(struct gtree_space *space, uint64_t first)
{
	struct entry entry = { .first = first };

	g_tree_remove(space->tree, &entry);
}

const struct gtree_peer gtree_peer = {
	.create = create,
	.destroy = destroy,
	.insert = insert,
	.allocate = allocate,
	.free = remove_range,
};
