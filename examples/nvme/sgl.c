/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "sgl.h"

#include <errno.h>

#define ENTRIES_PER_PAGE (NVME_PAGE_SIZE / sizeof(struct nvme_sgl))

/* In each page but the last, one descriptor leads to the next. */
static_assert(LIST_PAGES_MAX * (ENTRIES_PER_PAGE - 1) + 1 >= SGL_SEGMENTS_MAX,
	      "as many descriptors as are permitted must fit into the lists");

static struct nvme_sgl sgl(enum nvme_sgl_type type, uint64_t address, uint64_t length)
{
	return (struct nvme_sgl){ .address = address,
				  .length = length,
				  .identifier = NVME_SGL_IDENTIFIER(type) };
}

static struct nvme_sgl *entries(const struct list_pages *lists, unsigned int page)
{
	return lists->pages[page].cpu;
}

/*
 * Leads to the first page by the command, and to each other one by the last descriptor of the page before. Such
 * a descriptor says how large the segment is that it leads to, so this is done when all are known.
 */
static void link(struct list_pages *lists, unsigned int page_count, unsigned int entries_in_last,
		 struct nvme_command *command)
{
	for (unsigned int i = 0; i < page_count; i++) {
		bool is_last = i + 1 == page_count;
		struct nvme_sgl leading = sgl(
			is_last ? NVME_SGL_LAST_SEGMENT : NVME_SGL_SEGMENT, lists->pages[i].dma,
			(is_last ? entries_in_last : ENTRIES_PER_PAGE) * sizeof(struct nvme_sgl));

		if (i == 0)
			command->data.sgl = leading;
		else
			entries(lists, i - 1)[ENTRIES_PER_PAGE - 1] = leading;
	}
}

int sgl_describe(struct segment_reader *reader, struct list_pages *lists,
		 struct nvme_command *command, struct description *description)
{
	struct dmacore_segment segment;
	struct nvme_sgl data = { 0 };
	unsigned int count = 0, page = 0, entry = 0;
	int error;

	while (!(error = segment_reader_next(reader, &segment)) && segment.size > 0) {
		if (count == SGL_SEGMENTS_MAX || segment.size > UINT32_MAX)
			return -E2BIG;
		if (entry == ENTRIES_PER_PAGE) {
			/* The last descriptor's place is needed to lead on. */
			entries(lists, page + 1)[0] = entries(lists, page)[ENTRIES_PER_PAGE - 1];
			page++;
			entry = 1;
		}
		data = sgl(NVME_SGL_DATA_BLOCK, segment.dma, segment.size);
		entries(lists, page)[entry++] = data;
		count++;
	}
	if (error)
		return error;

	command->flags = NVME_PSDT_SGL << NVME_PSDT_SHIFT;
	if (count == 1)
		command->data.sgl = data;
	else
		link(lists, page + 1, entry, command);
	*description = (struct description){ NVME_PSDT_SGL, count, count == 1 ? 0 : page + 1 };
	return 0;
}
