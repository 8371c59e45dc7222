/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "prp.h"

#include <errno.h>

#define ENTRIES_PER_PAGE (NVME_PAGE_SIZE / sizeof(uint64_t))

/*
 * In each page but the last, one entry leads to the next. Data that starts within a page has a page more
 * than its size says, and PRP1 takes the first of them off the list.
 */
static_assert(LIST_PAGES_MAX * (ENTRIES_PER_PAGE - 1) + 1 >= NVME_PAGES_MAX,
	      "a transfer must fit into the lists");

/* Where in the lists the next entry goes. */
struct place {
	struct list_pages *lists;
	unsigned int page;
	unsigned int entry;
};

static uint64_t *entries(const struct place *place)
{
	return place->lists->pages[place->page].cpu;
}

/*
 * Adds an entry to the list. The last entry of a page is data if it is the last of all, which is known only
 * when another comes: then it moves to the next page, and leads there.
 */
static int add(struct place *place, uint64_t prp)
{
	uint64_t moved;

	if (place->entry == ENTRIES_PER_PAGE) {
		if (place->page + 1 == LIST_PAGES_MAX)
			return -E2BIG;
		moved = entries(place)[ENTRIES_PER_PAGE - 1];
		entries(place)[ENTRIES_PER_PAGE - 1] = place->lists->pages[place->page + 1].dma;
		place->page++;
		entries(place)[0] = moved;
		place->entry = 1;
	}
	entries(place)[place->entry++] = prp;
	return 0;
}

int prp_describe(struct segment_reader *reader, struct list_pages *lists,
		 struct nvme_command *command, struct description *description)
{
	struct place place = { lists, 0, 0 };
	struct dmacore_segment segment;
	unsigned int count = 0;
	uint64_t first = 0, second = 0;
	uint64_t end = 0; /* of the segment before */
	int error;

	while (!(error = segment_reader_next(reader, &segment)) && segment.size > 0) {
		uint64_t prp = segment.dma;

		if (count == 0 ? prp % sizeof(uint32_t) != 0 : (prp | end) % NVME_PAGE_SIZE != 0)
			return -EOPNOTSUPP;
		/* By sizes, because the last page may be the last there is. */
		for (uint64_t left = segment.size; left > 0;) {
			uint64_t part = NVME_PAGE_SIZE - prp % NVME_PAGE_SIZE;

			if (count == 0) {
				first = prp;
			} else {
				second = prp;
				error = add(&place, prp);
				if (error)
					return error;
			}
			count++;
			if (part > left)
				part = left;
			left -= part;
			prp += part;
		}
		end = segment.dma + segment.size;
	}
	if (error)
		return error;

	command->flags = NVME_PSDT_PRPS << NVME_PSDT_SHIFT;
	command->data.prp1 = first;
	/* Two pages need no list, though one was begun. */
	command->data.prp2 = count <= 2 ? second : lists->pages[0].dma;
	*description =
		(struct description){ NVME_PSDT_PRPS, count, count <= 2 ? 0 : place.page + 1 };
	return 0;
}
