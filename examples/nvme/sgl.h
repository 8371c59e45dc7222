/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_SGL_H
#define NVME_SGL_H

#include "description.h"

/* The most data block descriptors, and the most bytes of one, of those that are whole pages. */
#define SGL_SEGMENTS_MAX 512
#define SGL_SEGMENT_SIZE_MAX (UINT32_MAX - (NVME_PAGE_SIZE - 1))

/*
 * Puts an SGL for the segments of a transfer into a command: the descriptor of the data itself if there is
 * one segment, else that of a list.
 *
 * Returns 0, or -E2BIG if there are more than SGL_SEGMENTS_MAX segments, or one is too large.
 */
int sgl_describe(struct segment_reader *reader, struct list_pages *lists,
		 struct nvme_command *command, struct description *description);

#endif /* NVME_SGL_H */
