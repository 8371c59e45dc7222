/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_PRP_H
#define NVME_PRP_H

#include "description.h"

/* The most segments whose pages may be as many as a command's data. */
#define PRP_SEGMENTS_MAX NVME_PAGES_MAX

/*
 * Puts PRPs for the segments of a transfer into a command, and into lists what does not fit there.
 *
 * Returns 0, or -EOPNOTSUPP if PRPs cannot say it: the first segment does not start at a dword, or two of
 * them do not meet at pages; or -E2BIG if there are more pages than lists have room for.
 */
int prp_describe(struct segment_reader *reader, struct list_pages *lists,
		 struct nvme_command *command, struct description *description);

#endif /* NVME_PRP_H */
