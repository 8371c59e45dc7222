/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The policy in a table: for each path and each reason a device that takes it. What is explained is what
 * a mapping call then does, and the words say no more and no less.
 */

#include "support/grants.h"
#include "support/peers.h"
#include "support/pools.h"

/* Which device has mapping functions, and which. */
enum functions {
	NONE,
	EMPTY,
	/* With a window of bypass for masks above 32 bits, and without. */
	WITH_WINDOW,
	WITHOUT_WINDOW,
};

/* Where a device is, and where the one that provides memory to it. */
enum place {
	NOWHERE,
	ON_HUB,
	ACROSS,
	PLAIN,
};

/* No type of domain: behind the IOMMU, and attached to nothing. */
#define UNATTACHED UINT32_MAX

struct taken {
	const char *name;
	/* A type of domain; 0: behind no IOMMU. */
	uint32_t domain;
	uint32_t flags;
	unsigned mask_bits;
	bool has_pool;
	bool is_without_bypass;
	enum functions functions;
	enum place client, provider;
	dmacore_dma_t bus_limit;
	uint64_t min_align_mask;
	struct dmacore_dma_range ranges[2];
	size_t range_count;
	/* Where the window of the functions is instead. */
	uint64_t window_offset;
	uint64_t phys, size;
	uint32_t attributes;
	uint32_t path, reasons;
	int error;
	/* What is added to a physical address on a path on which that is known. */
	uint64_t offset;
};

#define PART LOW_BASE + 5, 100
#define WHOLE LOW_BASE + 2 * PAGE, PAGE
#define PART_ABOVE HIGH_BASE + 5, 100
#define PART_OF_BAR BAR_PHYS + PAGE + 5, 100
#define WHOLE_OF_BAR BAR_PHYS + PAGE, PAGE
/* Where there is no memory. */
#define EMPTY_PHYS UINT64_C(0x1000)

#define AT(where) .phys = FIRST_OF(where), .size = SECOND_OF(where)
#define FIRST_OF(...) FIRST_OF_(__VA_ARGS__)
#define FIRST_OF_(first, second) first
#define SECOND_OF(...) SECOND_OF_(__VA_ARGS__)
#define SECOND_OF_(first, second) second

#define PATH(name_) .path = DMACORE_PATH_##name_
#define REFUSED(error_) PATH(REFUSED), .error = (error_)
#define WHY(name_) DMACORE_REASON_##name_

#define ALL_LOW .ranges = { { 0, 0, UINT64_C(1) << 32 } }, .range_count = 1

static const struct taken cases[] = {
	{ "no IOMMU", .mask_bits = 64, AT(PART), PATH(DIRECT), .reasons = WHY(NO_IOMMU) },
	{ "no IOMMU, moved by the bus", .mask_bits = 64, AT(PART), PATH(DIRECT),
	  .ranges = { { 0x10000000, LOW_BASE, RAM_SIZE } }, .range_count = 1,
	  .reasons = WHY(NO_IOMMU), .offset = 0x10000000 - LOW_BASE },
	{ "identity", DMACORE_DOMAIN_IDENTITY, .mask_bits = 64, AT(PART), PATH(DIRECT),
	  .reasons = WHY(IDENTITY) },
	{ "hybrid, in the window", DMACORE_DOMAIN_HYBRID, .mask_bits = 64, AT(PART), PATH(DIRECT),
	  .reasons = WHY(IN_WINDOW) },

	/* Out of reach, and no IOMMU. */
	{ "above the mask", .mask_bits = 32, .has_pool = true, AT(PART_ABOVE), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) },
	{ "above the bus limit", .mask_bits = 64, .has_pool = true,
	  .bus_limit = DMACORE_BIT_MASK(32), AT(PART_ABOVE), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) },
	{ "above the mask, identity", DMACORE_DOMAIN_IDENTITY, .mask_bits = 32, .has_pool = true,
	  AT(PART_ABOVE), PATH(BOUNCED), .reasons = WHY(IDENTITY) | WHY(ABOVE_LIMIT) },
	{ "above the mask, no pool", .mask_bits = 32, AT(PART_ABOVE), REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) | WHY(NO_POOL) },
	{ "above the mask, identity, no pool", DMACORE_DOMAIN_IDENTITY, .mask_bits = 32,
	  AT(PART_ABOVE), REFUSED(ERANGE),
	  .reasons = WHY(IDENTITY) | WHY(ABOVE_LIMIT) | WHY(NO_POOL) },
	{ "above the mask, needs no sync", .mask_bits = 32, .has_pool = true, AT(PART_ABOVE),
	  .attributes = DMACORE_ATTR_REQUIRE_COHERENT, REFUSED(EOPNOTSUPP),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) },
	{ "above the mask, registers", .mask_bits = 32, .has_pool = true, AT(PART_ABOVE),
	  .attributes = DMACORE_ATTR_MMIO, REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) },
	{ "in no range", .mask_bits = 64, .has_pool = true, ALL_LOW, AT(PART_ABOVE), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(OUTSIDE_RANGES) },
	{ "in no range, no pool", .mask_bits = 64, ALL_LOW, AT(PART_ABOVE), REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(OUTSIDE_RANGES) | WHY(NO_POOL) },
	{ "moved off its bits", .mask_bits = 64, .has_pool = true, .min_align_mask = 0x1fff,
	  .ranges = { { 0x1000, 0, UINT64_C(1) << 32 } }, .range_count = 1, AT(PART), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(MISALIGNED) },
	{ "moved off its bits, no pool", .mask_bits = 64, .min_align_mask = 0x1fff,
	  .ranges = { { 0x1000, 0, UINT64_C(1) << 32 } }, .range_count = 1, AT(PART),
	  REFUSED(ERANGE), .reasons = WHY(NO_IOMMU) | WHY(MISALIGNED) | WHY(NO_POOL) },

	/* Whatever the reach. */
	{ "forced", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64, .has_pool = true,
	  AT(WHOLE), PATH(BOUNCED), .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) },
	{ "forced, identity", DMACORE_DOMAIN_IDENTITY, DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64,
	  .has_pool = true, AT(PART), PATH(BOUNCED),
	  .reasons = WHY(IDENTITY) | WHY(FORCED_BOUNCE) },
	{ "forced, above the mask too", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 32,
	  .has_pool = true, AT(PART_ABOVE), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(ABOVE_LIMIT) | WHY(FORCED_BOUNCE) },
	{ "forced, no pool", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64, AT(PART),
	  REFUSED(ERANGE), .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) | WHY(NO_POOL) },
	{ "forced, needs no sync", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64,
	  .has_pool = true, AT(PART), .attributes = DMACORE_ATTR_REQUIRE_COHERENT,
	  REFUSED(EOPNOTSUPP), .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) },
	{ "forced, registers", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64,
	  .has_pool = true, AT(PART), .attributes = DMACORE_ATTR_MMIO, REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) },
	{ "untrusted, no IOMMU", .flags = DMACORE_DEVICE_UNTRUSTED, .mask_bits = 64,
	  .has_pool = true, AT(WHOLE), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) },
	{ "untrusted, no IOMMU, no pool", .flags = DMACORE_DEVICE_UNTRUSTED, .mask_bits = 64,
	  AT(WHOLE), REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(FORCED_BOUNCE) | WHY(NO_POOL) },

	/* Through an IOMMU. */
	{ "DMA", DMACORE_DOMAIN_DMA, .mask_bits = 32, AT(PART_ABOVE), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) },
	{ "lazy", DMACORE_DOMAIN_DMA_LAZY, .mask_bits = 32, AT(PART_ABOVE), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) },
	{ "DMA, too wide", DMACORE_DOMAIN_DMA, .mask_bits = 64, .phys = UINT64_MAX - 99,
	  .size = 100, REFUSED(ERANGE), .reasons = WHY(TRANSLATES) | WHY(TOO_WIDE) },
	{ "DMA, forced, whole pages", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_FORCE_BOUNCE,
	  .mask_bits = 64, .has_pool = true, AT(WHOLE), PATH(IOMMU), .reasons = WHY(TRANSLATES) },
	{ "DMA, forced", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64,
	  .has_pool = true, AT(PART), PATH(IOMMU_BOUNCED),
	  .reasons = WHY(TRANSLATES) | WHY(FORCED_BOUNCE) },
	{ "DMA, untrusted, whole pages", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED,
	  .mask_bits = 64, AT(WHOLE), PATH(IOMMU), .reasons = WHY(TRANSLATES) },
	{ "DMA, untrusted", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED, .mask_bits = 64,
	  .has_pool = true, AT(PART), PATH(IOMMU_BOUNCED),
	  .reasons = WHY(TRANSLATES) | WHY(UNTRUSTED_PAGE) },
	{ "DMA, untrusted, no pool", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED, .mask_bits = 64,
	  AT(PART), REFUSED(ERANGE),
	  .reasons = WHY(TRANSLATES) | WHY(UNTRUSTED_PAGE) | WHY(NO_POOL) },
	{ "DMA, untrusted, needs no sync", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED,
	  .mask_bits = 64, .has_pool = true, AT(PART), .attributes = DMACORE_ATTR_REQUIRE_COHERENT,
	  REFUSED(EOPNOTSUPP), .reasons = WHY(TRANSLATES) | WHY(UNTRUSTED_PAGE) },
	{ "DMA, untrusted, registers", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED,
	  .mask_bits = 64, .has_pool = true, AT(PART), .attributes = DMACORE_ATTR_MMIO,
	  REFUSED(ERANGE), .reasons = WHY(TRANSLATES) | WHY(UNTRUSTED_PAGE) },
	{ "hybrid, no memory", DMACORE_DOMAIN_HYBRID, .mask_bits = 64, .phys = EMPTY_PHYS,
	  .size = 100, PATH(IOMMU), .reasons = WHY(TRANSLATES) | WHY(OUTSIDE_WINDOW) },
	{ "hybrid, above the mask", DMACORE_DOMAIN_HYBRID, .mask_bits = 32, AT(PART_ABOVE),
	  PATH(IOMMU), .reasons = WHY(TRANSLATES) | WHY(ABOVE_LIMIT) },
	{ "hybrid, above the bus limit", DMACORE_DOMAIN_HYBRID, .mask_bits = 64,
	  .bus_limit = DMACORE_BIT_MASK(32), AT(PART_ABOVE), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) | WHY(ABOVE_LIMIT) },
	{ "hybrid, ranges", DMACORE_DOMAIN_HYBRID, .mask_bits = 64, ALL_LOW, AT(PART), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) | WHY(OUTSIDE_RANGES) },
	{ "hybrid, bypass off", DMACORE_DOMAIN_HYBRID, .mask_bits = 64, .is_without_bypass = true,
	  AT(PART), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) | WHY(OUTSIDE_WINDOW) | WHY(NO_BYPASS) },
	{ "hybrid, forced, whole pages", DMACORE_DOMAIN_HYBRID, DMACORE_DEVICE_FORCE_BOUNCE,
	  .mask_bits = 64, .has_pool = true, AT(WHOLE), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) | WHY(FORCED_BOUNCE) },
	{ "hybrid, forced", DMACORE_DOMAIN_HYBRID, DMACORE_DEVICE_FORCE_BOUNCE, .mask_bits = 64,
	  .has_pool = true, AT(PART), PATH(IOMMU_BOUNCED),
	  .reasons = WHY(TRANSLATES) | WHY(FORCED_BOUNCE) },
	{ "hybrid, too wide", DMACORE_DOMAIN_HYBRID, .mask_bits = 64, .phys = UINT64_MAX - 99,
	  .size = 100, REFUSED(ERANGE),
	  .reasons = WHY(TRANSLATES) | WHY(OUTSIDE_WINDOW) | WHY(TOO_WIDE) },

	/* Not at all. */
	{ "no mask", AT(PART), REFUSED(ENXIO), .reasons = WHY(NO_MASK) },
	{ "no mask, DMA", DMACORE_DOMAIN_DMA, AT(PART), REFUSED(ENXIO), .reasons = WHY(NO_MASK) },
	{ "no mask, hybrid", DMACORE_DOMAIN_HYBRID, AT(PART), REFUSED(ENXIO),
	  .reasons = WHY(NO_MASK) },
	{ "attached to nothing", UNATTACHED, .mask_bits = 64, AT(PART), REFUSED(EPERM),
	  .reasons = WHY(BLOCKED) },
	{ "blocked", DMACORE_DOMAIN_BLOCKED, .mask_bits = 64, AT(PART), REFUSED(EPERM),
	  .reasons = WHY(BLOCKED) },
	{ "unmanaged", DMACORE_DOMAIN_UNMANAGED, .mask_bits = 64, AT(PART), REFUSED(EPERM),
	  .reasons = WHY(OWNED) },
	{ "past the caches", .flags = DMACORE_DEVICE_NONCOHERENT, .mask_bits = 64, AT(PART),
	  .attributes = DMACORE_ATTR_REQUIRE_COHERENT, REFUSED(EOPNOTSUPP),
	  .reasons = WHY(NOT_COHERENT) },
	{ "past the caches, hybrid", DMACORE_DOMAIN_HYBRID, DMACORE_DEVICE_NONCOHERENT,
	  .mask_bits = 64, AT(PART), .attributes = DMACORE_ATTR_REQUIRE_COHERENT,
	  REFUSED(EOPNOTSUPP), .reasons = WHY(NOT_COHERENT) },
	/* Which is asked before the domain is. */
	{ "past the caches, blocked", DMACORE_DOMAIN_BLOCKED, DMACORE_DEVICE_NONCOHERENT,
	  .mask_bits = 64, AT(PART), .attributes = DMACORE_ATTR_REQUIRE_COHERENT,
	  REFUSED(EOPNOTSUPP), .reasons = WHY(NOT_COHERENT) },
	{ "coherent, needs no sync", .mask_bits = 64, AT(PART),
	  .attributes = DMACORE_ATTR_REQUIRE_COHERENT, PATH(DIRECT), .reasons = WHY(NO_IOMMU) },

	/* Memory of peers. */
	{ "peer by bus address", .client = ON_HUB, .provider = ON_HUB, .mask_bits = 64,
	  AT(PART_OF_BAR), PATH(BUS_ADDRESS), .reasons = WHY(PEER), .offset = BAR_BUS - BAR_PHYS },
	{ "peer by bus address, DMA", DMACORE_DOMAIN_DMA, .client = ON_HUB, .provider = ON_HUB,
	  .mask_bits = 64, AT(PART_OF_BAR), PATH(BUS_ADDRESS), .reasons = WHY(PEER),
	  .offset = BAR_BUS - BAR_PHYS },
	{ "peer by bus address, hybrid", DMACORE_DOMAIN_HYBRID, .client = ON_HUB,
	  .provider = ON_HUB, .mask_bits = 64, AT(WHOLE_OF_BAR), PATH(BUS_ADDRESS),
	  .reasons = WHY(PEER), .offset = BAR_BUS - BAR_PHYS },
	{ "peer by bus address, forced", .flags = DMACORE_DEVICE_FORCE_BOUNCE, .has_pool = true,
	  .client = ON_HUB, .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), PATH(BUS_ADDRESS),
	  .reasons = WHY(PEER), .offset = BAR_BUS - BAR_PHYS },
	{ "peer by bus address, functions", .functions = WITH_WINDOW, .client = ON_HUB,
	  .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), PATH(BUS_ADDRESS),
	  .reasons = WHY(PEER), .offset = BAR_BUS - BAR_PHYS },
	{ "peer by bus address, blocked", DMACORE_DOMAIN_BLOCKED, .client = ON_HUB,
	  .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), REFUSED(EPERM),
	  .reasons = WHY(BLOCKED) },
	{ "peer's bus address above the mask", .has_pool = true, .client = ON_HUB,
	  .provider = ON_HUB, .mask_bits = 31, AT(PART_OF_BAR), REFUSED(ERANGE),
	  .reasons = WHY(PEER) | WHY(ABOVE_LIMIT) },
	{ "peer through the host bridge", .client = ACROSS, .provider = ON_HUB, .mask_bits = 64,
	  AT(PART_OF_BAR), PATH(DIRECT), .reasons = WHY(NO_IOMMU) | WHY(PEER) },
	{ "peer through the host bridge, DMA", DMACORE_DOMAIN_DMA, .client = ACROSS,
	  .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), PATH(IOMMU),
	  .reasons = WHY(TRANSLATES) | WHY(PEER) },
	{ "peer through the host bridge, hybrid", DMACORE_DOMAIN_HYBRID, .client = ACROSS,
	  .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), PATH(DIRECT),
	  .reasons = WHY(IN_WINDOW) | WHY(PEER) },
	{ "peer through the host bridge, forced", .flags = DMACORE_DEVICE_FORCE_BOUNCE,
	  .has_pool = true, .client = ACROSS, .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR),
	  REFUSED(ERANGE), .reasons = WHY(NO_IOMMU) | WHY(PEER) | WHY(FORCED_BOUNCE) },
	{ "peer through the host bridge, above the mask", .has_pool = true, .client = ACROSS,
	  .provider = ON_HUB, .mask_bits = 32, AT(PART_OF_BAR), REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(PEER) | WHY(ABOVE_LIMIT) },
	{ "peer through the host bridge, untrusted", DMACORE_DOMAIN_DMA, DMACORE_DEVICE_UNTRUSTED,
	  .has_pool = true, .client = ACROSS, .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR),
	  REFUSED(EREMOTEIO), .reasons = WHY(TRANSLATES) | WHY(PEER) | WHY(UNTRUSTED_PAGE) },
	{ "peer through the host bridge, functions", .functions = WITH_WINDOW, .client = ACROSS,
	  .provider = ON_HUB, .mask_bits = 64, AT(PART_OF_BAR), PATH(OPS),
	  .reasons = WHY(OPS) | WHY(OUTSIDE_WINDOW) | WHY(PEER) },
	{ "peer out of reach", .client = PLAIN, .provider = ON_HUB, .has_pool = true,
	  .mask_bits = 64, AT(PART_OF_BAR), REFUSED(EREMOTEIO), .reasons = WHY(PEER_UNREACHABLE) },
	{ "peer out of reach, DMA", DMACORE_DOMAIN_DMA, .client = PLAIN, .provider = ON_HUB,
	  .mask_bits = 64, AT(PART_OF_BAR), REFUSED(EREMOTEIO), .reasons = WHY(PEER_UNREACHABLE) },
	{ "peer in part", .client = ACROSS, .provider = ON_HUB, .mask_bits = 64,
	  .phys = BAR_PHYS + BAR_SIZE - 50, .size = 100, REFUSED(EREMOTEIO),
	  .reasons = WHY(PEER_UNREACHABLE) },
	{ "at bus addresses of a peer", .client = ON_HUB, .provider = ON_HUB, .has_pool = true,
	  .mask_bits = 64,
	  .ranges = { { BAR_BUS, LOW_BASE, RAM_SIZE },
		      { 0x10000000, POOL_LOW_BASE, POOL_PAGES *PAGE } },
	  .range_count = 2, AT(PART), PATH(BOUNCED),
	  .reasons = WHY(NO_IOMMU) | WHY(OUTSIDE_RANGES) | WHY(PEER) },
	{ "at bus addresses of a peer, no pool", .client = ON_HUB, .provider = ON_HUB,
	  .mask_bits = 64, .ranges = { { BAR_BUS, LOW_BASE, RAM_SIZE } }, .range_count = 1,
	  AT(PART), REFUSED(ERANGE),
	  .reasons = WHY(NO_IOMMU) | WHY(OUTSIDE_RANGES) | WHY(PEER) | WHY(NO_POOL) },

	/* Mapping functions. */
	{ "functions, no window for the mask", .functions = WITH_WINDOW, .mask_bits = 32, AT(PART),
	  PATH(OPS), .reasons = WHY(OPS) | WHY(NO_BYPASS) },
	{ "functions without a window", .functions = WITHOUT_WINDOW, .mask_bits = 64, AT(PART),
	  PATH(OPS), .reasons = WHY(OPS) | WHY(NO_BYPASS) },
	{ "functions, in the window", .functions = WITH_WINDOW, .mask_bits = 64, AT(PART),
	  PATH(DIRECT), .reasons = WHY(OPS) | WHY(IN_WINDOW), .offset = WINDOW_OFFSET },
	{ "functions, above the window", .functions = WITH_WINDOW, .mask_bits = 64,
	  .phys = WINDOW_SIZE - 50, .size = 100, PATH(OPS),
	  .reasons = WHY(OPS) | WHY(OUTSIDE_WINDOW) },
	{ "functions, registers", .functions = WITH_WINDOW, .mask_bits = 64, AT(PART),
	  .attributes = DMACORE_ATTR_MMIO, PATH(OPS), .reasons = WHY(OPS) | WHY(OUTSIDE_WINDOW) },
	{ "functions, above the mask", .functions = WITH_WINDOW, .mask_bits = 59, AT(PART),
	  PATH(OPS), .reasons = WHY(OPS) | WHY(ABOVE_LIMIT) },
	{ "functions, above the bus limit", .functions = WITH_WINDOW, .mask_bits = 64,
	  .bus_limit = DMACORE_BIT_MASK(32), AT(PART), PATH(OPS),
	  .reasons = WHY(OPS) | WHY(ABOVE_LIMIT) },
	{ "functions, off its bits", .functions = WITH_WINDOW, .mask_bits = 64,
	  .min_align_mask = 0x1fff, .window_offset = PAGE, AT(PART), PATH(OPS),
	  .reasons = WHY(OPS) | WHY(MISALIGNED) },
	{ "functions, at bus addresses of a peer", .functions = WITH_WINDOW, .client = ON_HUB,
	  .provider = ON_HUB, .mask_bits = 64, .window_offset = BAR_BUS - LOW_BASE, AT(PART),
	  PATH(OPS), .reasons = WHY(OPS) | WHY(OUTSIDE_WINDOW) | WHY(PEER) },
	{ "functions, untrusted", .functions = WITHOUT_WINDOW, .flags = DMACORE_DEVICE_UNTRUSTED,
	  .mask_bits = 64, AT(PART), REFUSED(ERANGE),
	  .reasons = WHY(OPS) | WHY(UNTRUSTED_PAGE) | WHY(NO_POOL) },
	{ "functions, untrusted, whole pages", .functions = WITHOUT_WINDOW,
	  .flags = DMACORE_DEVICE_UNTRUSTED, .mask_bits = 64, AT(WHOLE), PATH(OPS),
	  .reasons = WHY(OPS) | WHY(NO_BYPASS) },
	{ "functions, past the caches", .functions = WITH_WINDOW,
	  .flags = DMACORE_DEVICE_NONCOHERENT, .mask_bits = 64, AT(PART),
	  .attributes = DMACORE_ATTR_REQUIRE_COHERENT, REFUSED(EOPNOTSUPP),
	  .reasons = WHY(NOT_COHERENT) },
	{ "functions, no mask", .functions = WITH_WINDOW, AT(PART), REFUSED(ENXIO),
	  .reasons = WHY(NO_MASK) },
	{ "empty table", .functions = EMPTY, .mask_bits = 64, AT(PART), REFUSED(EPERM),
	  .reasons = WHY(OPS) | WHY(NOT_CONFIGURED) },
	{ "empty table, no mask", .functions = EMPTY, AT(PART), REFUSED(EPERM),
	  .reasons = WHY(OPS) | WHY(NOT_CONFIGURED) },
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

/* Words */

/* How each path's words begin, and what is in the words of a reason and of no other. */
static const char *const path_words[] = {
	[DMACORE_PATH_REFUSED] = "refused",
	[DMACORE_PATH_DIRECT] = "direct",
	[DMACORE_PATH_BOUNCED] = "direct, through a bounce buffer",
	[DMACORE_PATH_IOMMU] = "through the IOMMU",
	[DMACORE_PATH_IOMMU_BOUNCED] = "through the IOMMU, with ends in a bounce buffer",
	[DMACORE_PATH_BUS_ADDRESS] = "at a bus address of its peer",
	[DMACORE_PATH_OPS] = "as the device's mapping functions say",
};

#define PATHS (sizeof(path_words) / sizeof(path_words[0]))

static const struct {
	uint32_t reason;
	const char *words;
} reason_words[] = {
	{ DMACORE_REASON_NO_IOMMU, "behind no IOMMU" },
	{ DMACORE_REASON_IDENTITY, "an identity domain" },
	{ DMACORE_REASON_TRANSLATES, "domain translates" },
	{ DMACORE_REASON_IN_WINDOW, "in the window of what bypasses" },
	{ DMACORE_REASON_OUTSIDE_WINDOW, "not in that window" },
	{ DMACORE_REASON_ABOVE_LIMIT, "above the mask or the bus limit" },
	{ DMACORE_REASON_OUTSIDE_RANGES, "DMA ranges do not have it" },
	{ DMACORE_REASON_TOO_WIDE, "too wide for the page table" },
	{ DMACORE_REASON_NO_MASK, "has no mask" },
	{ DMACORE_REASON_BLOCKED, "attached to nothing, or blocked" },
	{ DMACORE_REASON_OWNED, "maps by itself" },
	{ DMACORE_REASON_NOT_COHERENT, "not coherent" },
	{ DMACORE_REASON_UNTRUSTED_PAGE, "not trusted" },
	{ DMACORE_REASON_FORCED_BOUNCE, "all that is mapped for the device is bounced" },
	{ DMACORE_REASON_NO_POOL, "no bounce pool" },
	{ DMACORE_REASON_PEER, "memory of a peer" },
	{ DMACORE_REASON_PEER_UNREACHABLE, "does not reach the peer" },
	{ DMACORE_REASON_NO_BYPASS, "bypass is turned off" },
	{ DMACORE_REASON_OPS, "device has mapping functions" },
	{ DMACORE_REASON_NOT_CONFIGURED, "nobody has configured" },
	{ DMACORE_REASON_MISALIGNED, "other low bits" },
};

#define REASONS (sizeof(reason_words) / sizeof(reason_words[0]))
#define ALL_REASONS ((UINT32_C(1) << REASONS) - 1)

#define TEXT_SIZE 256

/* That the words name this path, this error and these reasons, and no others. */
static void assert_words(const struct dmacore_explanation *explanation)
{
	const char *begin = path_words[explanation->path];
	char text[TEXT_SIZE], error[32] = "";

	assert_ok(dmacore_explanation_describe(explanation, text, sizeof(text)));
	assert_true(strlen(text) < TEXT_SIZE - 1);
	if (explanation->error)
		snprintf(error, sizeof(error), " with error %d", explanation->error);
	if (strncmp(text, begin, strlen(begin)) ||
	    strncmp(text + strlen(begin), error, strlen(error)) ||
	    strncmp(text + strlen(begin) + strlen(error), " because ", 9))
		fail_msg("\"%s\" does not begin with \"%s%s because \"", text, begin, error);
	for (unsigned i = 0; i < REASONS; i++)
		if (!strstr(text + strlen(begin), reason_words[i].words) !=
		    !(explanation->reasons & reason_words[i].reason))
			fail_msg("\"%s\" has \"%s\" or not, against the reasons %#x", text,
				 reason_words[i].words, explanation->reasons);
}

static void describe__has_words_of_its_own_for_each_reason(void **state)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	char texts[REASONS][TEXT_SIZE];
	uint32_t seen = 0;

	(void)state;
	explanation.path = DMACORE_PATH_DIRECT;
	for (unsigned i = 0; i < REASONS; i++) {
		explanation.reasons = reason_words[i].reason;
		assert_words(&explanation);
		assert_ok(dmacore_explanation_describe(&explanation, texts[i], TEXT_SIZE));
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(texts[i], texts[j]);
		/* One bit each, and each once. */
		assert_int_equal(reason_words[i].reason & (reason_words[i].reason - 1), 0);
		assert_int_equal(seen & reason_words[i].reason, 0);
		seen |= reason_words[i].reason;
	}
	assert_int_equal(seen, ALL_REASONS);
	/* A bit that nobody knows has none. */
	explanation.reasons = ALL_REASONS + 1;
	assert_ok(dmacore_explanation_describe(&explanation, texts[0], TEXT_SIZE));
	assert_string_equal(texts[0], "direct");
}

static void describe__has_words_of_its_own_for_each_path(void **state)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	char text[TEXT_SIZE];

	(void)state;
	for (uint32_t path = 0; path < PATHS; path++) {
		explanation.path = path;
		explanation.reasons = 0;
		assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
		assert_string_equal(text, path_words[path]);
		explanation.reasons = DMACORE_REASON_NO_POOL;
		explanation.error = path == DMACORE_PATH_REFUSED ? ERANGE : 0;
		assert_words(&explanation);
		explanation.error = 0;
	}
}

/* Devices */

struct stand {
	struct dmacore_system *system;
	struct dmacore_iommu *iommu;
	/* As on a board. */
	struct dmacore_bridge *top, *across, *plain, *hub;
	struct dmacore_domain *domain;
	struct dmacore_device *device;
	struct dmacore_view *view;
	struct dmacore_device *provider;
	struct dmacore_peer *peer;
	struct dmacore_bounce_pool *pool;
	struct grants grants;
	struct coherent_pool memory_for_pools;
	struct reports reports;
	uint8_t *low, *high, *bar;
};

static void agree(dmacore_phys_t phys, uint64_t size, uint32_t direction, bool is_for_cpu,
		  void *opaque)
{
	(void)phys, (void)size, (void)direction, (void)is_for_cpu, (void)opaque;
}

static struct dmacore_bridge *stand_bridge(struct stand *stand, struct dmacore_bridge *parent,
					   uint32_t flags)
{
	return make_bridge(&(struct machine){ .system = stand->system }, parent, flags);
}

static uint8_t *stand_memory(struct stand *stand, uint64_t base, uint64_t size)
{
	uint8_t *memory = aligned_alloc(PAGE, size);

	assert_non_null(memory);
	fill(memory, size, base);
	add_host_region(stand->system, base, size, memory, 0);
	return memory;
}

/* A system whose devices may be anything, one that is past the caches too. */
static int stand_setup(void **state)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct coherent_pool *source;
	struct stand *stand = calloc(1, sizeof(*stand));
	const uint64_t half = POOL_PAGES * PAGE;

	assert_non_null(stand);
	source = &stand->memory_for_pools;
	source->left = -1;
	source->allocator = (struct dmacore_memory_allocator)DMACORE_MEMORY_ALLOCATOR_INIT;
	source->allocator.allocate = coherent_pool_allocate;
	source->allocator.free = coherent_pool_free;
	source->allocator.opaque = source;
	source->bytes = aligned_alloc(PAGE, 2 * half);
	assert_non_null(source->bytes);
	options.memory_allocator = &source->allocator;
	options.cache = agree;
	options.report = reports_record;
	options.report_opaque = &stand->reports;
	assert_ok(dmacore_system_create(&options, &stand->system));
	add_host_region(stand->system, POOL_LOW_BASE, half, source->bytes, 0);
	add_host_region(stand->system, POOL_HIGH_BASE, half, source->bytes + half, 0);
	stand->low = stand_memory(stand, LOW_BASE, RAM_SIZE);
	stand->high = stand_memory(stand, HIGH_BASE, RAM_SIZE);
	stand->bar = stand_memory(stand, BAR_PHYS, BAR_SIZE);
	assert_ok(dmacore_iommu_create(stand->system, NULL, &stand->iommu));
	stand->top = stand_bridge(stand, NULL,
				  DMACORE_BRIDGE_ISOLATES | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	stand->across = stand_bridge(stand, NULL,
				     DMACORE_BRIDGE_ISOLATES | DMACORE_BRIDGE_HOST_PASSES_ACROSS);
	stand->plain = stand_bridge(stand, NULL, DMACORE_BRIDGE_ISOLATES);
	stand->hub = stand_bridge(stand, stand->top, 0);
	*state = stand;
	return 0;
}

static int stand_teardown(void **state)
{
	struct stand *stand = *state;

	dmacore_bridge_destroy(stand->hub);
	dmacore_bridge_destroy(stand->plain);
	dmacore_bridge_destroy(stand->across);
	dmacore_bridge_destroy(stand->top);
	dmacore_iommu_destroy(stand->iommu);
	dmacore_system_destroy(stand->system);
	assert_no_reports(&stand->reports);
	assert_int_equal(stand->memory_for_pools.live, 0);
	assert_int_equal(stand->memory_for_pools.wrong, 0);
	free(stand->memory_for_pools.bytes);
	free(stand->low);
	free(stand->high);
	free(stand->bar);
	free(stand);
	return 0;
}

static struct dmacore_bridge *bridge_of(struct stand *stand, enum place place)
{
	return place == ON_HUB ? stand->hub :
	       place == ACROSS ? stand->across :
	       place == PLAIN  ? stand->plain :
				 NULL;
}

static void begin(struct stand *stand, const struct taken *taken, uint32_t more_flags)
{
	static const struct dmacore_mapping_ops empty = DMACORE_MAPPING_OPS_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;
	struct dmacore_domain_options domain = DMACORE_DOMAIN_OPTIONS_INIT;

	grants_start(&stand->grants, NULL);
	if (taken->window_offset) {
		stand->grants.window_offset = taken->window_offset;
		stand->grants.window_limit = 0;
	}
	if (taken->functions == WITHOUT_WINDOW)
		stand->grants.ops.flags = 0;
	if (taken->has_pool) {
		pool.size = pool.size_max = 16 * PAGE;
		pool.limit = DMACORE_BIT_MASK(32);
		assert_ok(dmacore_bounce_pool_create(stand->system, &pool, &stand->pool));
	}
	options.flags = taken->flags | more_flags;
	options.iommu = taken->domain ? stand->iommu : NULL;
	options.streaming_mask = options.coherent_mask =
		taken->mask_bits ? DMACORE_BIT_MASK(taken->mask_bits) : 0;
	options.bus_limit = taken->bus_limit;
	options.bridge = bridge_of(stand, taken->client);
	options.ranges = taken->ranges;
	options.range_count = taken->range_count;
	options.bounce_pool = stand->pool;
	if (taken->functions) {
		options.mapping_ops = taken->functions == EMPTY ? &empty : &stand->grants.ops;
		options.mapping_ops_opaque = &stand->grants;
	}
	assert_ok(dmacore_device_create(stand->system, &options, &stand->device));
	limits.min_align_mask = taken->min_align_mask;
	assert_ok(dmacore_device_set_limits(stand->device, &limits));
	if (taken->domain && taken->domain != UNATTACHED) {
		domain.type = taken->domain;
		assert_ok(dmacore_domain_create(stand->iommu, &domain, &stand->domain));
		if (taken->is_without_bypass)
			assert_ok(dmacore_domain_set_bypass(stand->domain, false));
		assert_ok(dmacore_domain_attach(stand->domain, stand->device));
	}
	if (taken->provider) {
		struct dmacore_device_options other = DMACORE_DEVICE_OPTIONS_INIT;

		other.bridge = bridge_of(stand, taken->provider);
		other.iommu = taken->domain ? stand->iommu : NULL;
		assert_ok(dmacore_device_create(stand->system, &other, &stand->provider));
		stand->peer = add_peer(stand->provider, BAR_BUS);
	}
	assert_ok(dmacore_view_create(stand->device, &stand->view));
}

static void end(struct stand *stand)
{
	dmacore_peer_destroy(stand->peer);
	dmacore_view_destroy(stand->view);
	if (stand->domain)
		assert_ok(dmacore_domain_detach(stand->domain, stand->device));
	dmacore_device_destroy(stand->provider);
	dmacore_device_destroy(stand->device);
	dmacore_domain_destroy(stand->domain);
	dmacore_bounce_pool_destroy(stand->pool);
	grants_stop(&stand->grants);
	stand->peer = NULL;
	stand->domain = NULL;
	stand->provider = NULL;
	stand->pool = NULL;
}

/* The memory of a case; NULL where there is none. */
static uint8_t *memory_of(struct stand *stand, const struct taken *taken)
{
	if (taken->phys - LOW_BASE < RAM_SIZE)
		return stand->low + (taken->phys - LOW_BASE);
	if (taken->phys - HIGH_BASE < RAM_SIZE)
		return stand->high + (taken->phys - HIGH_BASE);
	if (taken->phys - BAR_PHYS < BAR_SIZE)
		return stand->bar + (taken->phys - BAR_PHYS);
	return NULL;
}

/* The device reads what was there, writes, and what it wrote is in memory when it must be. */
static void use_and_unmap(struct stand *stand, const struct taken *taken, dmacore_dma_t dma)
{
	bool is_copied =
		taken->path == DMACORE_PATH_BOUNCED || taken->path == DMACORE_PATH_IOMMU_BOUNCED;
	uint8_t *memory = memory_of(stand, taken);
	uint8_t bytes[PAGE], before[PAGE];
	uint64_t seed = dma + 1;

	if (memory) {
		memcpy(before, memory, taken->size);
		assert_ok(dmacore_view_read(stand->view, dma, bytes, taken->size));
		assert_memory_equal(bytes, before, taken->size);
		fill(bytes, taken->size, seed);
		assert_ok(dmacore_view_write(stand->view, dma, bytes, taken->size));
		assert_memory_equal(memory, is_copied ? before : bytes, taken->size);
	}
	assert_ok(dmacore_unmap(stand->device, dma, taken->size, DMACORE_BIDIRECTIONAL,
				taken->attributes | DMACORE_ATTR_NO_WARN));
	if (memory)
		assert_memory_equal(memory, bytes, taken->size);
}

static void assert_taken(struct stand *stand, const struct taken *taken, bool is_tracked)
{
	/* What else a device is that has a record of each direct mapping. */
	const bool is_recorded = is_tracked || taken->functions || taken->flags;
	struct dmacore_explanation found = { .struct_size = sizeof(found) };
	struct dmacore_mapping_info info;
	dmacore_dma_t dma;
	size_t count;

	assert_ok(dmacore_device_explain(stand->device, taken->phys, taken->size, DMACORE_STREAMING,
					 taken->attributes | DMACORE_ATTR_NO_WARN, &found));
	if (found.path != taken->path || found.reasons != taken->reasons ||
	    found.error != taken->error)
		fail_msg("%s: path %u, reasons %#x, error %d instead of %u, %#x, %d", taken->name,
			 found.path, found.reasons, found.error, taken->path, taken->reasons,
			 taken->error);
	assert_words(&found);
	if (taken->path == DMACORE_PATH_REFUSED) {
		int error = dmacore_map_phys(stand->device, taken->phys, taken->size,
					     DMACORE_BIDIRECTIONAL,
					     taken->attributes | DMACORE_ATTR_NO_WARN, &dma);

		if (error != -taken->error)
			fail_msg("%s: mapping gave %d", taken->name, error);
		assert_int_equal(device_statistics(stand->device).map_total, 0);
		assert_int_equal(stand->grants.map_count, 0);
		if (stand->pool)
			assert_int_equal(used_slots(stand->pool), 0);
		return;
	}
	assert_ok(dmacore_map_phys(stand->device, taken->phys, taken->size, DMACORE_BIDIRECTIONAL,
				   taken->attributes | DMACORE_ATTR_NO_WARN, &dma));
	assert_ok(dmacore_device_list_mappings(stand->device, 0, UINT64_MAX, &info, 1, &count));
	if (taken->path != DMACORE_PATH_DIRECT || is_recorded) {
		assert_int_equal(count, 1);
		if (info.path != taken->path)
			fail_msg("%s: listed with path %u", taken->name, info.path);
		assert_int_equal(info.first, dma);
		assert_int_equal(info.last, dma + taken->size - 1);
	} else if (count != 0) {
		fail_msg("%s: %zu are listed", taken->name, count);
	}
	if (taken->path == DMACORE_PATH_DIRECT || taken->path == DMACORE_PATH_BUS_ADDRESS)
		assert_int_equal(dma, taken->phys + taken->offset);
	if (stand->pool)
		assert_int_equal(used_slots(stand->pool) > 0,
				 taken->path == DMACORE_PATH_BOUNCED ||
					 taken->path == DMACORE_PATH_IOMMU_BOUNCED);
	assert_int_equal(stand->grants.map_count, taken->path == DMACORE_PATH_OPS);
	/* There is a copy, or a function to ask. */
	if (!(taken->flags & DMACORE_DEVICE_NONCOHERENT))
		assert_int_equal(dmacore_need_sync(stand->device, dma),
				 taken->path == DMACORE_PATH_BOUNCED ||
					 taken->path == DMACORE_PATH_IOMMU_BOUNCED ||
					 taken->path == DMACORE_PATH_OPS);
	use_and_unmap(stand, taken, dma);
	assert_int_equal(device_statistics(stand->device).mapping_count, 0);
}

static void explain__says_what_is_then_done(void **state)
{
	struct stand *stand = *state;
	uint32_t paths = 0, reasons = 0;

	for (unsigned i = 0; i < CASES; i++) {
		for (unsigned is_tracked = 0; is_tracked < 2; is_tracked++) {
			begin(stand, &cases[i], is_tracked ? DMACORE_DEVICE_TRACK_DIRECT : 0);
			assert_taken(stand, &cases[i], is_tracked);
			end(stand);
		}
		paths |= UINT32_C(1) << cases[i].path;
		reasons |= cases[i].reasons;
	}
	/* There is a case for everything. */
	assert_int_equal(paths, (UINT32_C(1) << PATHS) - 1);
	assert_int_equal(reasons, ALL_REASONS);
}

/* What is allocated has nothing to be copied from: it has to be in reach. */
static void coherent_memory__is_never_bounced(void **state)
{
	static const struct taken forced = { "forced", .flags = DMACORE_DEVICE_FORCE_BOUNCE,
					     .mask_bits = 32, .has_pool = true };
	struct stand *stand = *state;
	struct dmacore_explanation found = { .struct_size = sizeof(found) };
	struct dmacore_mapping_info info;
	dmacore_dma_t dma;
	size_t count;
	void *cpu;

	begin(stand, &forced, DMACORE_DEVICE_TRACK_DIRECT);
	assert_ok(dmacore_device_explain(stand->device, HIGH_BASE, PAGE, DMACORE_COHERENT, 0,
					 &found));
	assert_int_equal(found.path, DMACORE_PATH_REFUSED);
	assert_int_equal(found.reasons, DMACORE_REASON_NO_IOMMU | DMACORE_REASON_ABOVE_LIMIT);
	assert_int_equal(found.error, ERANGE);
	assert_ok(
		dmacore_device_explain(stand->device, LOW_BASE, PAGE, DMACORE_COHERENT, 0, &found));
	assert_int_equal(found.path, DMACORE_PATH_DIRECT);
	assert_int_equal(found.reasons, DMACORE_REASON_NO_IOMMU);
	assert_ok(dmacore_alloc_coherent(stand->device, PAGE, &cpu, &dma));
	assert_ok(dmacore_device_list_mappings(stand->device, dma, dma, &info, 1, &count));
	assert_int_equal(count, 1);
	assert_int_equal(info.path, DMACORE_PATH_DIRECT);
	assert_int_equal(info.kind, DMACORE_COHERENT);
	assert_int_equal(used_slots(stand->pool), 0);
	assert_ok(dmacore_free_coherent(stand->device, PAGE, cpu, dma));
	end(stand);
}

#define test(function)                                                 \
	{                                                              \
#function, function, stand_setup, stand_teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(describe__has_words_of_its_own_for_each_reason),
		cmocka_unit_test(describe__has_words_of_its_own_for_each_path),
		test(explain__says_what_is_then_done),
		test(coherent_memory__is_never_bounced),
	};

	return run_group("policy_paths", tests);
}
