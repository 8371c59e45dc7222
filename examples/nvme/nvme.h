/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef NVME_NVME_H
#define NVME_NVME_H

/*
 * What driver and controller agree on: of the NVM Express Base Specification, revision 2.0, what moves
 * data. Structures are named as its sections are.
 *
 * A command says where its data is in one of two ways. PRPs are addresses of pages: only the first may
 * have an offset into its page, and the data runs to the end of each but the last. SGL descriptors are an
 * address and a size each, whatever those are.
 */

#include <assert.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "what is in memory is little-endian");

/* The size of a memory page with CC.MPS 0. */
#define NVME_PAGE_SIZE 4096
#define NVME_BLOCK_SIZE 512

/* 2^MDTS pages: the most data of a command. */
#define NVME_PAGES_MAX 1024

enum nvme_opcode {
	NVME_WRITE = 1, /* from memory to the controller */
	NVME_READ = 2, /* from the controller to memory */
};

/* What a command's data pointer is: bits 7:6 of @flags, which are 15:14 of the first dword. */
#define NVME_PSDT_SHIFT 6

enum nvme_psdt {
	NVME_PSDT_PRPS = 0,
	NVME_PSDT_SGL = 1,
};

/* Generic command status: what concerns data. */
enum nvme_status {
	NVME_SUCCESS = 0x00,
	NVME_INVALID_OPCODE = 0x01,
	NVME_INVALID_FIELD = 0x02,
	NVME_DATA_TRANSFER_ERROR = 0x04, /* a list or the data could not be reached */
	NVME_INVALID_SGL_SEGMENT =
		0x0d, /* a wrong segment descriptor, or one in the last segment */
	NVME_INVALID_SGL_COUNT = 0x0e, /* a segment descriptor that is not its segment's last */
	NVME_INVALID_SGL_LENGTH = 0x0f, /* the data blocks are more or less than the data */
	NVME_INVALID_SGL_TYPE = 0x11,
	NVME_INVALID_PRP_OFFSET = 0x13,
	NVME_OUT_OF_RANGE = 0x80, /* there are no such blocks */
};

/* SGL descriptor. Bits 7:4 of @identifier are the type, bits 3:0 the subtype, of which 0 is an address. */
struct nvme_sgl {
	uint64_t address;
	uint32_t length;
	uint8_t reserved[3];
	uint8_t identifier;
};
static_assert(sizeof(struct nvme_sgl) == 16, "an SGL descriptor has 16 bytes");

enum nvme_sgl_type {
	NVME_SGL_DATA_BLOCK = 0,
	NVME_SGL_SEGMENT = 2, /* where there are more, of which the last is a segment descriptor */
	NVME_SGL_LAST_SEGMENT = 3, /* where the last are */
};

#define NVME_SGL_IDENTIFIER(type) ((uint8_t)((type) << 4))

/* Submission queue entry, as the NVM Command Set Specification has it for reads and writes. */
struct nvme_command {
	uint8_t opcode;
	uint8_t flags;
	uint16_t id;
	uint32_t namespace_id;
	uint64_t reserved;
	uint64_t metadata;
	union {
		struct {
			uint64_t prp1;
			/* Nothing, the second page, or a list of all but the first. */
			uint64_t prp2;
		};
		struct nvme_sgl sgl;
	} data;
	uint64_t block; /* the first */
	uint16_t block_count; /* less one */
	uint16_t control;
	uint32_t hints[3];
};
static_assert(sizeof(struct nvme_command) == 64, "a command has 64 bytes");

/* Completion queue entry. Bit 0 of @status is the phase: 1 on the first lap around the queue, 0 on the second, and so on. */
struct nvme_completion {
	uint32_t result[2];
	uint16_t queue_head;
	uint16_t queue_id;
	uint16_t id;
	uint16_t status;
};
static_assert(sizeof(struct nvme_completion) == 16, "a completion has 16 bytes");

#endif /* NVME_NVME_H */
