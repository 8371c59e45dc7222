/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "malformed.h"

#define DATA_PAGES 4
#define DATA_SIZE (DATA_PAGES * NVME_PAGE_SIZE)
#define BLOCKS (DATA_SIZE / NVME_BLOCK_SIZE)
#define PRPS_PER_PAGE (NVME_PAGE_SIZE / sizeof(uint64_t))
#define NOWHERE UINT64_C(0xdead0000)

/* What a command is built of: data that is mapped, and two pages for lists. */
struct scene {
	dmacore_dma_t data;
	struct {
		void *cpu;
		dmacore_dma_t dma;
	} lists[2];
};

static uint64_t *prps(const struct scene *scene, unsigned int page)
{
	return scene->lists[page].cpu;
}

static struct nvme_sgl *sgls(const struct scene *scene, unsigned int page)
{
	return scene->lists[page].cpu;
}

static void set_size(struct nvme_command *command, uint64_t size)
{
	command->block_count = size / NVME_BLOCK_SIZE - 1;
}

static struct nvme_sgl sgl(enum nvme_sgl_type type, uint64_t address, uint32_t length)
{
	return (struct nvme_sgl){ .address = address,
				  .length = length,
				  .identifier = NVME_SGL_IDENTIFIER(type) };
}

/* One page by PRP1, the others by a list that starts with the last but one entry of its page. */
static void use_prps(const struct scene *scene, struct nvme_command *command)
{
	uint64_t at = (PRPS_PER_PAGE - 2) * sizeof(uint64_t);

	command->data.prp1 = scene->data;
	command->data.prp2 = scene->lists[0].dma + at;
	prps(scene, 0)[PRPS_PER_PAGE - 2] = scene->data + NVME_PAGE_SIZE;
	prps(scene, 0)[PRPS_PER_PAGE - 1] = scene->lists[1].dma;
	prps(scene, 1)[0] = scene->data + 2 * NVME_PAGE_SIZE;
	prps(scene, 1)[1] = scene->data + 3 * NVME_PAGE_SIZE;
}

/* Two data blocks and what leads on in one segment, two more in the last, of which one is empty. */
static void use_sgl(const struct scene *scene, struct nvme_command *command)
{
	command->flags = NVME_PSDT_SGL << NVME_PSDT_SHIFT;
	command->data.sgl = sgl(NVME_SGL_SEGMENT, scene->lists[0].dma, 3 * sizeof(struct nvme_sgl));
	sgls(scene, 0)[0] = sgl(NVME_SGL_DATA_BLOCK, scene->data, NVME_BLOCK_SIZE);
	sgls(scene, 0)[1] = sgl(NVME_SGL_DATA_BLOCK, scene->data + NVME_BLOCK_SIZE,
				2 * NVME_PAGE_SIZE - NVME_BLOCK_SIZE);
	sgls(scene, 0)[2] =
		sgl(NVME_SGL_LAST_SEGMENT, scene->lists[1].dma, 2 * sizeof(struct nvme_sgl));
	sgls(scene, 1)[0] = sgl(NVME_SGL_DATA_BLOCK, NOWHERE, 0);
	sgls(scene, 1)[1] =
		sgl(NVME_SGL_DATA_BLOCK, scene->data + 2 * NVME_PAGE_SIZE, 2 * NVME_PAGE_SIZE);
}

static void leave(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	(void)command;
}

static void odd_prp1(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.prp1 += 2;
}

static void offset_in_prp2(const struct scene *scene, struct nvme_command *command)
{
	set_size(command, 2 * NVME_PAGE_SIZE);
	command->data.prp2 = scene->data + NVME_PAGE_SIZE + 512;
}

static void odd_list(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.prp2 += 4;
}

static void offset_in_list(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	prps(scene, 1)[1] += 8;
}

static void offset_in_chain(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	prps(scene, 0)[PRPS_PER_PAGE - 1] += 8;
}

static void list_nowhere(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.prp2 = NOWHERE;
}

static void first_page_nowhere(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.prp1 = NOWHERE;
}

static void unknown_type(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 1)[1].identifier = 0x70;
}

static void unknown_subtype(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 0)[0].identifier |= 1;
}

static void segment_of_a_part(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 0)[2].length -= 8;
}

static void segment_of_nothing(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.sgl.length = 0;
}

static void odd_segment(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.sgl.address += 4;
}

static void segment_nowhere(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 0)[2].address = NOWHERE;
}

static void segment_after_last(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.sgl.identifier = NVME_SGL_IDENTIFIER(NVME_SGL_LAST_SEGMENT);
}

static void segment_in_the_middle(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.sgl.length += sizeof(struct nvme_sgl);
}

static void segment_without_a_next(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->data.sgl.length -= sizeof(struct nvme_sgl);
}

static void segments_in_a_ring(const struct scene *scene, struct nvme_command *command)
{
	command->data.sgl.length = sizeof(struct nvme_sgl);
	sgls(scene, 0)[0] = command->data.sgl;
}

static void too_little(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 1)[1].length -= 4;
}

static void too_much(const struct scene *scene, struct nvme_command *command)
{
	(void)command;
	sgls(scene, 0)[1].length += 4;
}

static void one_block_too_much(const struct scene *scene, struct nvme_command *command)
{
	command->data.sgl = sgl(NVME_SGL_DATA_BLOCK, scene->data, UINT32_MAX);
}

static void reserved_psdt(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->flags |= 3 << NVME_PSDT_SHIFT;
}

static void beyond_the_end(const struct scene *scene, struct nvme_command *command)
{
	(void)scene;
	command->block = NAMESPACE_SIZE / NVME_BLOCK_SIZE - 1;
}

static const struct attempt {
	const char *what;
	void (*use)(const struct scene *scene, struct nvme_command *command);
	void (*spoil)(const struct scene *scene, struct nvme_command *command);
	unsigned int status;
	bool is_fault; /* what it does is refused by the IOMMU */
} attempts[] = {
	{ "a list that starts within a page", use_prps, leave, NVME_SUCCESS, false },
	{ "PRP1 not at a dword", use_prps, odd_prp1, NVME_INVALID_PRP_OFFSET, false },
	{ "an offset in PRP2", use_prps, offset_in_prp2, NVME_INVALID_PRP_OFFSET, false },
	{ "a list not at a qword", use_prps, odd_list, NVME_INVALID_PRP_OFFSET, false },
	{ "an offset in a list", use_prps, offset_in_list, NVME_INVALID_PRP_OFFSET, false },
	{ "a next list within a page", use_prps, offset_in_chain, NVME_INVALID_PRP_OFFSET, false },
	{ "a list that is nowhere", use_prps, list_nowhere, NVME_DATA_TRANSFER_ERROR, true },
	{ "data that is nowhere", use_prps, first_page_nowhere, NVME_DATA_TRANSFER_ERROR, true },
	{ "an empty data block", use_sgl, leave, NVME_SUCCESS, false },
	{ "an unknown type", use_sgl, unknown_type, NVME_INVALID_SGL_TYPE, false },
	{ "an unknown subtype", use_sgl, unknown_subtype, NVME_INVALID_SGL_TYPE, false },
	{ "a segment of one and a half", use_sgl, segment_of_a_part, NVME_INVALID_SGL_SEGMENT,
	  false },
	{ "a segment of nothing", use_sgl, segment_of_nothing, NVME_INVALID_SGL_SEGMENT, false },
	{ "a segment not at a qword", use_sgl, odd_segment, NVME_INVALID_SGL_SEGMENT, false },
	{ "a segment that is nowhere", use_sgl, segment_nowhere, NVME_DATA_TRANSFER_ERROR, true },
	{ "a segment after the last", use_sgl, segment_after_last, NVME_INVALID_SGL_SEGMENT,
	  false },
	{ "a segment in the middle", use_sgl, segment_in_the_middle, NVME_INVALID_SGL_COUNT,
	  false },
	{ "a segment without a next", use_sgl, segment_without_a_next, NVME_INVALID_SGL_COUNT,
	  false },
	{ "a segment that leads to itself", use_sgl, segments_in_a_ring, NVME_INVALID_SGL_COUNT,
	  false },
	{ "less than the data", use_sgl, too_little, NVME_INVALID_SGL_LENGTH, false },
	{ "more than the data", use_sgl, too_much, NVME_INVALID_SGL_LENGTH, false },
	{ "one block of 4 GiB", use_sgl, one_block_too_much, NVME_INVALID_SGL_LENGTH, false },
	{ "an unknown kind of pointer", use_prps, reserved_psdt, NVME_INVALID_FIELD, false },
	{ "blocks that are not there", use_prps, beyond_the_end, NVME_OUT_OF_RANGE, false },
};
#define ATTEMPTS (sizeof(attempts) / sizeof(attempts[0]))

/* Says which bytes there are before a command, and which of them it moves if it is one to succeed. */
static void prepare(struct machine *machine, enum nvme_opcode opcode, bool moves)
{
	uint8_t *memory = machine_at(machine, BANK_LOW);
	uint8_t *blocks = machine->namespace.now;

	for (unsigned int i = 0; i < DATA_SIZE; i++) {
		memory[i] = i * 7 + i / 509 + opcode;
		blocks[i] = i * 5 + i / 251 + opcode;
	}
	memcpy(machine->banks[0].expected, moves && opcode == NVME_READ ? blocks : memory,
	       DATA_SIZE);
	memcpy(machine->namespace.expected, moves && opcode == NVME_WRITE ? memory : blocks,
	       DATA_SIZE);
}

static bool try_one(struct setup *setup, const struct scene *scene, const struct attempt *attempt,
		    enum nvme_opcode opcode)
{
	struct nvme_command command = { .opcode = opcode, .namespace_id = 1 };
	struct dmacore_fault faults[4];
	unsigned int status;
	size_t fault_count;
	bool holds;

	memset(scene->lists[0].cpu, 0, NVME_PAGE_SIZE);
	memset(scene->lists[1].cpu, 0, NVME_PAGE_SIZE);
	set_size(&command, DATA_SIZE);
	attempt->use(scene, &command);
	attempt->spoil(scene, &command);
	prepare(setup->machine, opcode, attempt->status == NVME_SUCCESS);
	MUST(driver_execute(setup->driver, &command, &status));
	MUST(dmacore_fault_take(setup->device, faults, 4, &fault_count, NULL));
	holds = status == attempt->status && fault_count == attempt->is_fault &&
		machine_is_as_expected(setup->machine);
	if (!holds)
		printf("  %s: ended with status 0x%02x, not 0x%02x, after %zu faults\n",
		       attempt->what, status, attempt->status, fault_count);
	return holds;
}

bool malformed_try_all(struct machine *machine)
{
	struct scene scene;
	struct setup setup;
	unsigned int refused_count = 0;
	bool holds = true;

	setup_create(&setup, machine, true, 32, 0);
	for (unsigned int i = 0; i < 2; i++)
		MUST(dmacore_alloc_coherent(setup.device, NVME_PAGE_SIZE, &scene.lists[i].cpu,
					    &scene.lists[i].dma));
	MUST(dmacore_map_phys(setup.device, BANK_LOW, DATA_SIZE, DMACORE_BIDIRECTIONAL, 0,
			      &scene.data));
	for (unsigned int i = 0; i < ATTEMPTS; i++) {
		holds &= try_one(&setup, &scene, &attempts[i], NVME_WRITE);
		holds &= try_one(&setup, &scene, &attempts[i], NVME_READ);
		refused_count += attempts[i].status != NVME_SUCCESS;
	}
	MUST(dmacore_unmap(setup.device, scene.data, DATA_SIZE, DMACORE_BIDIRECTIONAL, 0));
	for (unsigned int i = 0; i < 2; i++)
		MUST(dmacore_free_coherent(setup.device, NVME_PAGE_SIZE, scene.lists[i].cpu,
					   scene.lists[i].dma));
	holds &= setup_destroy(&setup);
	if (holds)
		printf("%u malformed commands were refused, each with its status, and no byte moved;"
		       " %u unusual ones were not.\n",
		       refused_count, (unsigned int)ATTEMPTS - refused_count);
	return holds;
}
