/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "controller.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#define PAGE_OFFSET (NVME_PAGE_SIZE - 1)
/* Data blocks of a command, empty ones included; a list that leads back to itself ends here. */
#define RUNS_MAX 2048

struct run {
	dmacore_dma_t dma;
	uint32_t size;
};

struct controller {
	struct dmacore_view *view;
	uint8_t *bytes;
	uint64_t block_count;
	struct controller_registers registers;
	uint32_t head;
	uint32_t lap;
	/* Where the data of the command at hand is. */
	struct run runs[RUNS_MAX];
	unsigned int run_count;
	uint64_t size;
};

/* The caller has checked that there is room. */
static void add_run(struct controller *controller, dmacore_dma_t dma, uint32_t size)
{
	controller->runs[controller->run_count++] = (struct run){ dma, size };
	controller->size += size;
}

/* A page after the first: all of it, or what is left. */
static enum nvme_status add_page(struct controller *controller, uint64_t prp, uint64_t size)
{
	uint64_t left = size - controller->size;

	if (prp & PAGE_OFFSET)
		return NVME_INVALID_PRP_OFFSET;
	add_run(controller, prp, left < NVME_PAGE_SIZE ? left : NVME_PAGE_SIZE);
	return NVME_SUCCESS;
}

/*
 * Reads a list. It starts anywhere in its first page and goes on to the end of that, where it leads to
 * another if that was not all. How many entries there are follows from how much data there is.
 */
static enum nvme_status read_prp_list(struct controller *controller, uint64_t list, uint64_t size)
{
	if (list % sizeof(uint64_t) != 0)
		return NVME_INVALID_PRP_OFFSET;
	while (controller->size < size) {
		uint64_t entries[NVME_PAGE_SIZE / sizeof(uint64_t)];
		uint64_t needed = (size - controller->size + NVME_PAGE_SIZE - 1) / NVME_PAGE_SIZE;
		uint64_t room = (NVME_PAGE_SIZE - (list & PAGE_OFFSET)) / sizeof(uint64_t);
		uint64_t count = needed < room ? needed : room;
		uint64_t data_count = needed <= room ? count : count - 1;

		if (dmacore_view_read(controller->view, list, entries, count * sizeof(*entries)))
			return NVME_DATA_TRANSFER_ERROR;
		for (uint64_t i = 0; i < data_count; i++) {
			enum nvme_status status = add_page(controller, entries[i], size);

			if (status)
				return status;
		}
		if (data_count < count) {
			list = entries[data_count];
			if (list & PAGE_OFFSET)
				return NVME_INVALID_PRP_OFFSET;
		}
	}
	return NVME_SUCCESS;
}

static enum nvme_status read_prps(struct controller *controller, const struct nvme_command *command,
				  uint64_t size)
{
	uint64_t prp1 = command->data.prp1;
	uint64_t first = NVME_PAGE_SIZE - (prp1 & PAGE_OFFSET);

	/* A controller may ignore these two bits or refuse them; a driver must not set them. */
	if (prp1 % sizeof(uint32_t) != 0)
		return NVME_INVALID_PRP_OFFSET;
	add_run(controller, prp1, first < size ? first : size);
	if (controller->size == size)
		return NVME_SUCCESS;
	if (size - controller->size <= NVME_PAGE_SIZE)
		return add_page(controller, command->data.prp2, size);
	return read_prp_list(controller, command->data.prp2, size);
}

static bool is_segment(const struct nvme_sgl *sgl)
{
	return sgl->identifier >> 4 == NVME_SGL_SEGMENT ||
	       sgl->identifier >> 4 == NVME_SGL_LAST_SEGMENT;
}

static enum nvme_status add_data_block(struct controller *controller, const struct nvme_sgl *sgl,
				       uint64_t size)
{
	/* Neither key nor stream, and an address, no offset into something. */
	if (sgl->identifier != NVME_SGL_IDENTIFIER(NVME_SGL_DATA_BLOCK))
		return NVME_INVALID_SGL_TYPE;
	if (sgl->length > size - controller->size)
		return NVME_INVALID_SGL_LENGTH;
	if (controller->run_count == RUNS_MAX)
		return NVME_INVALID_SGL_COUNT;
	add_run(controller, sgl->address, sgl->length);
	return NVME_SUCCESS;
}

/* Reads the segment that @leading leads to; receives in it what leads to the next, if that is not the last. */
static enum nvme_status read_sgl_segment(struct controller *controller, struct nvme_sgl *leading,
					 uint64_t size)
{
	bool is_last = leading->identifier >> 4 == NVME_SGL_LAST_SEGMENT;
	uint32_t count = leading->length / sizeof(struct nvme_sgl);
	uint64_t address = leading->address;

	if (leading->identifier & 0xf)
		return NVME_INVALID_SGL_TYPE;
	if (count == 0 || leading->length % sizeof(struct nvme_sgl) != 0 ||
	    address % sizeof(uint64_t) != 0)
		return NVME_INVALID_SGL_SEGMENT;
	for (uint32_t i = 0; i < count; i++, address += sizeof(struct nvme_sgl)) {
		enum nvme_status status;
		struct nvme_sgl sgl;

		if (dmacore_view_read(controller->view, address, &sgl, sizeof(sgl)))
			return NVME_DATA_TRANSFER_ERROR;
		if (is_segment(&sgl)) {
			if (is_last)
				return NVME_INVALID_SGL_SEGMENT;
			if (i + 1 < count)
				return NVME_INVALID_SGL_COUNT;
			*leading = sgl;
			return NVME_SUCCESS;
		}
		status = add_data_block(controller, &sgl, size);
		if (status)
			return status;
	}
	return is_last ? NVME_SUCCESS : NVME_INVALID_SGL_COUNT;
}

static enum nvme_status read_sgl(struct controller *controller, const struct nvme_command *command,
				 uint64_t size)
{
	struct nvme_sgl sgl = command->data.sgl;
	enum nvme_status status = NVME_SUCCESS;

	if (is_segment(&sgl)) {
		bool was_last = false;

		/* A segment may have nothing but what leads to the next, so that these are counted. */
		for (unsigned int i = 0; !was_last && !status; i++) {
			was_last = sgl.identifier >> 4 == NVME_SGL_LAST_SEGMENT;
			status = i < RUNS_MAX ? read_sgl_segment(controller, &sgl, size) :
						NVME_INVALID_SGL_COUNT;
		}
	} else {
		status = add_data_block(controller, &sgl, size);
	}
	if (!status && controller->size != size)
		status = NVME_INVALID_SGL_LENGTH;
	return status;
}

/* A command is the driver's claim. Nothing is moved before all of it is checked. */
static enum nvme_status execute(struct controller *controller, const struct nvme_command *command)
{
	uint64_t count = command->block_count + UINT64_C(1);
	uint64_t size = count * NVME_BLOCK_SIZE;
	enum nvme_status status;
	uint8_t *bytes;

	if (command->opcode != NVME_READ && command->opcode != NVME_WRITE)
		return NVME_INVALID_OPCODE;
	if (command->namespace_id != 1 || size > (uint64_t)NVME_PAGES_MAX * NVME_PAGE_SIZE)
		return NVME_INVALID_FIELD;
	if (count > controller->block_count || command->block > controller->block_count - count)
		return NVME_OUT_OF_RANGE;

	controller->run_count = 0;
	controller->size = 0;
	switch (command->flags >> NVME_PSDT_SHIFT) {
	case NVME_PSDT_PRPS:
		status = read_prps(controller, command, size);
		break;
	case NVME_PSDT_SGL:
		status = read_sgl(controller, command, size);
		break;
	default:
		return NVME_INVALID_FIELD;
	}
	bytes = controller->bytes + command->block * NVME_BLOCK_SIZE;
	for (unsigned int i = 0; i < controller->run_count && !status; i++) {
		const struct run *run = &controller->runs[i];
		int error;

		if (command->opcode == NVME_WRITE)
			error = dmacore_view_read(controller->view, run->dma, bytes, run->size);
		else
			error = dmacore_view_write(controller->view, run->dma, bytes, run->size);
		if (error)
			status = NVME_DATA_TRANSFER_ERROR;
		bytes += run->size;
	}
	return status;
}

int controller_ring_doorbell(struct controller *controller, uint32_t tail)
{
	const struct controller_registers *registers = &controller->registers;

	while (controller->head != tail) {
		uint64_t command_dma =
			registers->commands + controller->head * sizeof(struct nvme_command);
		uint64_t completion_dma =
			registers->completions + controller->head * sizeof(struct nvme_completion);
		struct nvme_completion completion = { 0 };
		struct nvme_command command;
		bool phase = controller->lap % 2 == 0;
		int error =
			dmacore_view_read(controller->view, command_dma, &command, sizeof(command));

		if (error)
			return error;
		completion.id = command.id;
		completion.status = execute(controller, &command) << 1 | phase;
		if (++controller->head == registers->entry_count) {
			controller->head = 0;
			controller->lap++;
		}
		completion.queue_head = controller->head;
		error = dmacore_view_write(controller->view, completion_dma, &completion,
					   sizeof(completion));
		if (error)
			return error;
	}
	return 0;
}

int controller_create(struct dmacore_device *device, uint8_t *bytes, uint64_t block_count,
		      struct controller **out_controller)
{
	struct controller *controller = calloc(1, sizeof(*controller));
	int error;

	if (!controller)
		return -ENOMEM;
	controller->bytes = bytes;
	controller->block_count = block_count;
	error = dmacore_view_create(device, &controller->view);
	if (error) {
		free(controller);
		return error;
	}
	*out_controller = controller;
	return 0;
}

void controller_destroy(struct controller *controller)
{
	if (!controller)
		return;
	dmacore_view_destroy(controller->view);
	free(controller);
}

void controller_start(struct controller *controller, const struct controller_registers *registers)
{
	controller->registers = *registers;
	controller->head = 0;
	controller->lap = 0;
}
