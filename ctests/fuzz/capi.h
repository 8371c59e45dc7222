/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_FUZZ_CAPI_H
#define DMACORE_FUZZ_CAPI_H

/*
 * What the parts of the fuzzer of the whole C API share: capi_fuzz.c makes the calls,
 * capi_objects.c creates and destroys objects, capi_drivers.c has drivers, capi_peers.c bridges and peers,
 * capi_backend.c has hardware, capi_ops.c mapping functions, capi_coherent.c allocates memory, capi_lists.c maps
 * lists, capi_states.c links memory into ranges, capi_transfers.c has transfers, capi_world.c has arguments, results and callbacks.
 */

#include <dmacore.h>
#include <dmacore/sys/backend.h>
#include <dmacore/sys/mapping_ops.h>

#include "fuzz.h"

#define PAGE UINT64_C(4096)
#define OBJECTS_MAX 32
#define MAPPINGS_MAX 32
#define RECENT_MAX 8
#define RAM_PAGES 64
#define PAGE_GROUPS_MAX 8
#define LISTS_MAX 4
#define LIST_ENTRIES 32
#define STATES_MAX 4
#define TRANSFERS_MAX 4
#define TRANSFER_RANGES 96
#define CACHES_MAX 64

enum kind {
	NOTHING,
	SYSTEM,
	IOMMU,
	DEVICE,
	DOMAIN,
	VIEW,
	VIEW_MAPPING,
	SPACE,
	TABLE,
	GROUP,
	NOTIFIER,
	POOL,
	BRIDGE,
	PEER,
	COHERENT_POOL,
	KIND_COUNT,
};

struct object {
	enum kind kind;
	void *handle;
	/* Of a flat system, which takes the caller's word that what is mapped is memory. */
	bool is_flat;
	/* Of a system that has a cache function, so that its devices may be noncoherent. */
	bool has_cache;
	/* Of an IOMMU and a domain. */
	void *system;
	/* DOMAIN: hybrid, and honours no reserved regions. */
	bool is_window;
	/* VIEW, COHERENT_POOL. */
	void *device;
	uint32_t pasid;
	/* VIEW_MAPPING. */
	const struct dmacore_view_segment *segments;
	size_t count;
	uint32_t access;
};

/* What map and alloc_coherent gave. */
struct mapping {
	struct dmacore_device *device;
	dmacore_dma_t dma;
	uint64_t size;
	uint32_t direction;
	uint32_t attributes;
	/* Coherent memory; NULL: a streaming mapping. */
	void *cpu;
	/* The pool that it is an object of; NULL: none. */
	void *pool;
	/* Noncontiguous memory: its segments. */
	const struct dmacore_memory_segment *segments;
	size_t count;
};

/* A list of memory, mapped for a device; NULL: it is not. */
struct list {
	struct dmacore_device *device;
	struct dmacore_sg entries[LIST_ENTRIES];
	size_t count;
	uint32_t direction;
	uint32_t attributes;
	/* A call with it is under way. */
	bool is_busy;
};

/* A range that memory is linked into, of a device; NULL: none. */
struct range {
	struct dmacore_device *device;
	struct dmacore_iova_state state;
	bool is_flat;
	/* A call with it is under way. */
	bool is_busy;
};

/* Memory that is mapped as a transfer, for a device; NULL: it is not. */
struct transfer {
	struct dmacore_device *device;
	struct dmacore_phys_range ranges[TRANSFER_RANGES];
	size_t count;
	struct dmacore_transfer_request request;
	struct dmacore_transfer transfer;
	uint64_t size;
	bool is_flat;
	/* The callback yields others another time. */
	bool is_fickle;
	/* A call with it is under way. */
	bool is_busy;
};

/* What a system's cache function is called with. */
struct cache {
	/* NULL: it is not made yet. */
	struct dmacore_system *system;
	bool is_flat;
};

/* One input at a time; callbacks need it too. */
struct world {
	struct program program;
	struct object objects[OBJECTS_MAX];
	struct mapping mappings[MAPPINGS_MAX];
	size_t mapping_count;
	struct list lists[LISTS_MAX];
	struct range ranges[STATES_MAX];
	struct transfer transfers[TRANSFERS_MAX];
	/* Ranges that calls were given or gave lately, so that others meet them. */
	struct {
		uint64_t first;
		uint64_t size;
	} recent[RECENT_MAX];
	size_t recent_count;
	/* The size that goes with the address that was taken last. */
	uint64_t recent_size;
	/* Calls from within a callback: how deep. */
	unsigned int depth;
	/* And from within how many of them that are drivers'. */
	unsigned int driver_depth;
	/* Devices that a driver has, which is called when they go; NULL: free. */
	struct dmacore_device *bound[OBJECTS_MAX];
	/* How often something came that a deferred bind may wait for. */
	unsigned long events;
	/* Memory was refused in this step, so that -ENOMEM may be the answer. */
	bool is_starved;
	/* What a backend failed with last in this step, which may then be the answer; 0: nothing. */
	int backend_error;
	bool has_used_file;
	/* A report said that coherent memory which a zero-copy mapping holds is never freed. */
	bool may_leak;
	/* A flat system has a bounce pool: from here on what is mapped there is memory, as it is copied. */
	bool has_flat_pool;
	/* A device had memory of its own, which may be full. */
	bool has_declared;
	/* Something that is not memory was mapped on a flat system: nothing may be touched now. */
	bool has_lied;
	/* Of all systems that there have been with a cache function. */
	struct cache caches[CACHES_MAX];
	size_t cache_count;
	/* Notifiers that have not been released. */
	long notifiers;
	/* Page request groups that are to be answered. */
	struct dmacore_page_request_group *page_groups[PAGE_GROUPS_MAX];
	size_t page_group_count;
	/* Between which the bus addresses of all peers are that there were; 0 and 0: there were none. */
	uint64_t bus_first;
	uint64_t bus_last;
	/* Given out by the allocators below. */
	long table_pages;
	long pool_ranges;
	/* How often memory was given. */
	unsigned long given;
	/* Memory of the process that regions and buffers lie in, and a file for other regions. */
	uint8_t *ram;
	int file;
};

extern struct world world;

/* One call. Calls from within a callback are steps too. */
void step(void);

/* Arguments, taken from the input. */

uint8_t byte(void);
bool one_in(unsigned int count);
uint64_t number(const char *name);

/* Few places, so that calls meet; seldom anything. */
uint64_t address(const char *name);
uint64_t length(const char *name);

/* Makes a range more likely to be an argument of the next calls. */
void remember(uint64_t first, uint64_t size);

/* Memory that may be touched; @size is cut to what there is of it. */
void *ram_range(uint64_t *size);

uint64_t mask(void);

/* Where a call shall put its output; seldom nowhere. */
#define OUT(pointer) (one_in(64) ? NULL : (pointer))

/* Room for any options structure and for a caller that says it is longer than it is. */
union storage {
	uint8_t bytes[256];
	size_t struct_size;
	struct dmacore_system_options system;
	struct dmacore_memory_allocator memory_allocator;
	struct dmacore_memory_region region;
	struct dmacore_iommu_options iommu;
	struct dmacore_backend_ops backend;
	struct dmacore_mapping_ops mapping_ops;
	struct dmacore_pagetable_options table;
	struct dmacore_table_allocator table_allocator;
	struct dmacore_device_options device;
	struct dmacore_domain_options domain;
	struct dmacore_walk_options walk;
	struct dmacore_dma_owner owner;
	struct dmacore_driver driver;
	struct dmacore_notifier_options notifier;
	struct dmacore_bounce_pool_options pool;
	struct dmacore_bounce_pool_statistics pool_statistics;
	struct dmacore_bridge_options bridge;
	struct dmacore_peer_options peer;
	struct dmacore_page_request_group_info page_group;
	struct dmacore_iova_space_options space;
	struct dmacore_coherent_pool_options coherent_pool;
	struct dmacore_iova_constraints constraints;
	struct dmacore_device_statistics device_statistics;
	struct dmacore_domain_statistics domain_statistics;
	struct dmacore_iova_space_statistics space_statistics;
	struct dmacore_pagetable_statistics table_statistics;
	struct dmacore_iommu_capabilities capabilities;
	struct dmacore_pagetable_vtd vtd;
	struct dmacore_pagetable_x86_64 x86_64;
	struct dmacore_pagetable_amd_v1 amd_v1;
	struct dmacore_pagetable_arm64_stage1 arm64_stage1;
	struct dmacore_pagetable_arm64_stage2 arm64_stage2;
	struct dmacore_pagetable_riscv riscv;
};

/*
 * Makes @storage a structure of @size bytes, zero but for the size member: mostly the right size,
 * else a short one, or a long one with or without something in the part that nobody knows.
 */
void structure(union storage *storage, size_t size);

/* A kind of object; seldom a group or a notifier, so that inputs from before there were any mean the same. */
enum kind pick_kind(void);

/* An object of a kind, or one that is not there, whose handle is NULL. */
struct object *pick_object(enum kind kind);
void *pick(enum kind kind);
size_t count_objects(enum kind kind);

/* Results. */

/* The result of @call, checked to be 0 or one of the errors that follow. */
#define RESULT(call, ...)                                         \
	check_result(#call, (call), (const int[]){ __VA_ARGS__ }, \
		     sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

int check_result(const char *call, int result, const int *allowed, size_t count);

/* Callbacks, whose opaque pointer is &world. */

/* What a callback may do. */
void step_in_callback(void);

void on_report(const struct dmacore_report *report, void *opaque);
void on_notify(const struct dmacore_notifier_event *event, void *opaque);

/* Gives a system a cache function, unless there have been too many. */
struct cache *take_cache(struct dmacore_system_options *options);
void on_release(void *opaque);
void on_fault(struct dmacore_device *device, const struct dmacore_fault *fault, void *opaque);
void on_domain_fault(struct dmacore_domain *domain, struct dmacore_device *device,
		     const struct dmacore_fault *fault, void *opaque);
void on_page_request(struct dmacore_page_request_group *group, void *opaque);
void on_page_response(struct dmacore_device *device, uint32_t pasid, uint32_t group_index,
		      uint32_t response, void *opaque);
int allocate_table(size_t size, struct dmacore_table_page *out_page, void *opaque);
void free_table(const struct dmacore_table_page *page, size_t size, void *opaque);
void *allocate_pool(uint64_t size, uint64_t alignment, dmacore_phys_t limit, void *opaque);
void free_pool(void *host, uint64_t size, void *opaque);

/* These two are given the size of the region instead. */
int read_region(uint64_t offset, void *buffer, size_t size, void *opaque);
int write_region(uint64_t offset, const void *buffer, size_t size, void *opaque);

/* Allocated memory. */

void call_alloc_coherent(void);
void call_coherent(void);
int create_coherent_pool(struct dmacore_device *device, struct dmacore_coherent_pool **out);

/* Gives memory back that one of these calls allocated. */
int free_memory(const struct mapping *gone);

/* Objects that end with their pool. */
void forget_objects(const void *pool);

/* Lists. */

void call_list(void);
void forget_lists(const struct dmacore_device *device);

/* Two-step mapping. */

void call_range(void);
void forget_ranges(const struct dmacore_device *device);

/* Transfers. Their memory ends with them, and so not after their device. */

void call_transfer(void);
void end_transfers(const struct dmacore_device *device);

uint32_t attributes(void);

/* Enters what a call allocated or mapped. */
void add_mapping(struct mapping mapping);

/* Creation and destruction. */

void create(void);
void create_machine(uint8_t call);

/* Whether an object has not been destroyed. */
bool is_there(enum kind kind, const void *handle);

/* Answers a page request group, if there is one. */
void answer_page_group(void);

/* Binds and what belongs to it. */
void call_driver(void);

/* Bridges, and devices that reach each other. */
void call_peer(void);
bool may_be_bus_address(uint64_t dma);

/* No call is under way that could be hurt by ends of objects. */
bool may_end_things(void);

/* Mappings that end with the device, or with what a driver had to do with it. */
void forget_mappings(const struct dmacore_device *device);

/* Page tables of any kind, or NULL. */
const struct dmacore_pagetable_options *table_options(void);

/* Enters a handle that a call gave, unless it is NULL. There is a free slot. */
void keep(enum kind kind, void *handle, bool is_flat);

/*
 * Looks that what hybrid domains lead to itself is memory, but for mappings of calls that happen to be at
 * their own addresses.
 */
void check_windows(struct dmacore_system *system, uint64_t first, uint64_t size);

/* Hardware. */

/* Puts a backend into options, if one is free; the call that fails gives it back. */
bool take_backend(struct dmacore_iommu_options *options, uint8_t how);
void give_back_backend(const struct dmacore_iommu_options *options);

/* Before the first step of an input, and when everything is destroyed. */
void begin_backends(void);
void end_backends(void);

/* Gives a device mapping functions, mostly with what goes with them. */
void choose_ops(struct dmacore_device_options *options);

/* Likewise. */
void begin_ops(void);
void end_ops(void);

/* The device reaches @phys, so that it must in the backend, if there is one. */
void compare_backend(const struct dmacore_device *device, uint32_t pasid, dmacore_iova_t iova,
		     dmacore_phys_t phys);

void destroy(struct object *object);
void destroy_nothing(void);

/* The segments are memory while the mapping lives, whatever has become of all else. */
void touch(const struct object *mapping);

#endif /* DMACORE_FUZZ_CAPI_H */
