/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_DRIVER_H
#define NVME_DRIVER_H

/*
 * The driver: maps what a request says, describes it to the controller, and waits. It has no case for any
 * kind of memory or any way to it.
 */

#include "controller.h"
#include "description.h"

struct driver;

/* By what a transfer may be described, bits. With both, by an SGL only if PRPs cannot say it. */
enum driver_formats {
	DRIVER_PRPS = 1,
	DRIVER_SGLS = 2,
};

int driver_create(struct dmacore_device *device, struct controller *controller,
		  struct driver **out_driver);
void driver_destroy(struct driver *driver);

/*
 * Reads or writes blocks, from @block on as many as the request's memory holds. The request's direction and
 * limits are the driver's to say. Receives in @description how the memory was described.
 *
 * Returns 0, -EINVAL if the memory is not whole blocks, -E2BIG if it is too much, or in too many pieces,
 * -EOPNOTSUPP if @formats cannot describe it, -EIO if the controller refused, or what mapping returned.
 */
int driver_transfer(struct driver *driver, enum nvme_opcode opcode, uint64_t block,
		    const struct dmacore_transfer_request *request, uint32_t formats,
		    struct description *description);

/* Submits a command as it is but for its ID. Receives the status, one of enum nvme_status. */
int driver_execute(struct driver *driver, const struct nvme_command *command,
		   unsigned int *out_status);

#endif /* NVME_DRIVER_H */
