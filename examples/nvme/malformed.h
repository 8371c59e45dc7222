/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_MALFORMED_H
#define NVME_MALFORMED_H

#include "machine.h"

/*
 * Submits commands that no driver should, and some that are only unusual, to a controller behind an IOMMU.
 * Returns whether each ended with the status that it must, and moved no byte if that is an error.
 */
bool malformed_try_all(struct machine *machine);

#endif /* NVME_MALFORMED_H */
