/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_SYS_MAPPING_OPS_H
#define DMACORE_SYS_MAPPING_OPS_H

/**
 * DOC: Mapping functions of the caller's
 *
 * What is between a device and memory may be no bus and no IOMMU that the library knows: a hypervisor's
 * grant tables, a call to firmware, an unusual bridge. Then a device is made with functions that say at
 * which addresses it reaches memory. The core decides when they are asked, keeps a record of each mapping
 * of the device, checks what they answer, and undoes and syncs by the record.
 *
 *	int map(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
 *		dmacore_dma_t *out_dma, void *opaque);
 *	void unmap(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
 *		void *opaque);
 *
 *	struct dmacore_mapping_ops ops = DMACORE_MAPPING_OPS_INIT;
 *	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
 *
 *	ops.map = map;
 *	ops.unmap = unmap;
 *	options.mapping_ops = &ops;
 *	options.streaming_mask = DMACORE_BIT_MASK(32);
 *	error = dmacore_device_create(system, &options, &device);
 *
 * A device without such functions has memory as device.h says. One with them has it by them alone, unless
 * they have DMACORE_OPS_BYPASS: then what lies in the window that they offer, and there under the mask and
 * the bus limit, is mapped directly, each range by itself, and by them all else. Streaming and coherent
 * mappings have a mask and a window of their own, so that buffers may be direct where queues are not.
 *
 * A table in which all members are NULL is that of a device that nobody has configured: what would map,
 * allocate or set a mask fails with -EPERM, always.
 *
 * The functions are called under no lock, from any thread and beside one another. They may call the
 * library, but no mapping call for this device from @supported. Those that return an int return 0 or a
 * negative errno value, which becomes that of the library's call, with everything as it was; a positive
 * value is -EIO. The others cannot fail.
 *
 * A view of the device (view.h) reaches what is mapped, at the addresses that the functions gave, and
 * nothing else. On a flat system too.
 *
 * Stability: unstable. May change in every release.
 */

#include "../device.h"
#include "../types.h"

DMACORE_BEGIN_DECLS

enum dmacore_mapping_ops_flags {
	/*
	 * The device may be mapped directly: in the window that @supported offers, or, without @supported,
	 * wherever the mask reaches, at the memory's own address.
	 */
	DMACORE_OPS_BYPASS = 1,
};

/**
 * struct dmacore_ops_mapping - a mapping, or a part of one
 * @struct_size: size of this structure as the library knows it
 * @dma: the device's first address; 0 for map and alloc, which give it
 * @phys: first physical address; 0 for alloc
 * @size: bytes; of allocated memory a multiple of 4096
 * @cpu: what alloc gave, for free; NULL otherwise
 * @limit: for map and alloc: the highest address that the last byte may have; 0 otherwise
 * @align_mask: for map and alloc: the bits that the device's address has in common with @phys, the lowest
 *   12 at least; 0 otherwise
 * @kind: one of enum dmacore_mapping_kind (device.h)
 * @direction: one of enum dmacore_direction (mapping.h)
 * @attributes: bits of enum dmacore_attributes (mapping.h); 0 for sync
 * @reserved: zero
 *
 * The structure is valid during the call alone.
 */
struct dmacore_ops_mapping {
	size_t struct_size;
	dmacore_dma_t dma;
	dmacore_phys_t phys;
	uint64_t size;
	void *cpu;
	dmacore_dma_t limit;
	uint64_t align_mask;
	uint32_t kind;
	uint32_t direction;
	uint32_t attributes;
	uint32_t reserved;
};

/**
 * struct dmacore_ops_bypass - which memory a device reaches directly
 * @struct_size: size of this structure as the library knows it
 * @is_offered: 1: memory at physical address p is the device's at p + @offset; 0: none is
 * @reserved: zero
 * @offset: a multiple of 4096
 * @limit: the highest of the device's addresses in the window; 0: there is no such limit
 *
 * What else is in the way of a range, be it the mask, the bus limit or a sum that wraps, makes it one that
 * the functions map. So do registers, which are in no window.
 */
struct dmacore_ops_bypass {
	size_t struct_size;
	uint32_t is_offered;
	uint32_t reserved;
	dmacore_dma_t offset;
	dmacore_dma_t limit;
};

/**
 * struct dmacore_ops_limits - what the functions can do
 * @struct_size: size of this structure as the library knows it
 * @max_size: the most bytes of one mapping; 0: any number
 * @optimal_size: up to so many bytes a mapping costs least; 0: @max_size
 * @merge_boundary_mask: buffers that end and begin at multiples of this plus one can become one; 0: none
 *
 * They become those of dmacore_device_mapping_limits() (device.h), and are not enforced: it is map that
 * refuses what is too large.
 */
struct dmacore_ops_limits {
	size_t struct_size;
	uint64_t max_size;
	uint64_t optimal_size;
	uint64_t merge_boundary_mask;
};

/**
 * struct dmacore_mapping_ops - mapping functions
 * @struct_size: sizeof(struct dmacore_mapping_ops)
 * @flags: bits of enum dmacore_mapping_ops_flags
 * @reserved: zero
 * @map: gives memory an address of the device's. The range from there on lies under @mapping->limit,
 *   agrees with @mapping->phys in @mapping->align_mask, and overlaps no mapping of the device that lives,
 *   nor bus addresses of a peer (peer.h) that the device reaches. It should not be of the window of bypass
 *   either: memory that has its address there is refused with -EIO while the mapping lives. One that does not is unmapped again and
 *   reported, and the library's call fails with -EIO
 * @unmap: ends what @map gave an address, when no access of a view through it is under way any more. Whole,
 *   with what @map was told, whatever has become of masks and windows since. Also when the device is
 *   destroyed or its driver leaves
 * @sync: lends a part of what @map or @alloc gave to the CPU, or gives it back to the device. Who copies
 *   does so here. NULL: there is nothing to do. Not for what is direct
 * @supported: a mask is about to be set: in a call of the family of dmacore_device_set_mask(), or for
 *   the masks that a device is made with, before dmacore_device_create() returns; not if it is 0, which
 *   says that there is none. If it fails, so does that call, and both masks stay what they are. It may build
 *   what it needs, such as a window over all memory. @out is zeroed, and receives what may bypass these
 *   functions with this mask from now on, which without DMACORE_OPS_BYPASS nobody looks at; an offset that is no multiple
 *   of 4096 is -EIO. Live mappings
 *   stay. When two threads set masks of one device, the answer of the one that comes last holds. NULL: each
 *   mask will do
 * @required_mask: the smallest mask with which nothing is out of reach. NULL: 32 bits
 * @limits: @out is zeroed, and receives what there is to say. NULL: any size, and nothing is merged
 * @alloc: gives coherent memory, whole pages of the system's (-EFAULT if they are not), and the device's
 *   address of it, which must be as that from @map. It need not be zeroed. Not for noncontiguous memory, nor
 *   for what is from declared memory (coherent.h), or in the window. NULL: the memory is from the
 *   system's memory allocator, and @map gives it an address
 * @free: frees what @alloc gave. Never called for memory that a zero-copy mapping still holds when the
 *   device is destroyed or its driver leaves
 *
 * @begin_list: a list (scatterlist.h), or a transfer (transfer.h), is about to be mapped, or unmapped.
 *   What @map and @unmap do for it until @end_list, on the same thread, may take effect with that: one call
 *   of a hypervisor then does for all. Another list does not begin on the thread before. NULL: each range
 *   is by itself
 * @end_list: there is no more of the list. If it fails after mapping, all that @map gave is unmapped again,
 *   of which nothing may have taken effect, and the library's call fails likewise. After one that has failed,
 *   and after unmapping, what it returns is ignored
 *
 * @map and @unmap need each other, so do @alloc and @free, and @begin_list and @end_list. All other members
 * and flags need @map.
 */
struct dmacore_mapping_ops {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	int (*map)(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		   dmacore_dma_t *out_dma, void *opaque);
	void (*unmap)(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		      void *opaque);
	int (*sync)(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		    bool is_for_cpu, void *opaque);
	int (*supported)(struct dmacore_device *device, uint32_t kind, dmacore_dma_t mask,
			 struct dmacore_ops_bypass *out, void *opaque);
	dmacore_dma_t (*required_mask)(struct dmacore_device *device, void *opaque);
	void (*limits)(struct dmacore_device *device, struct dmacore_ops_limits *out, void *opaque);
	int (*alloc)(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		     void **out_cpu, dmacore_dma_t *out_dma, void *opaque);
	void (*free)(struct dmacore_device *device, const struct dmacore_ops_mapping *mapping,
		     void *opaque);
	void (*begin_list)(struct dmacore_device *device, bool is_mapping, void *opaque);
	int (*end_list)(struct dmacore_device *device, bool is_mapping, void *opaque);
};

#define DMACORE_MAPPING_OPS_INIT                                                              \
	{                                                                                     \
		sizeof(struct dmacore_mapping_ops), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, \
			NULL, NULL, NULL, NULL                                                \
	}

DMACORE_END_DECLS

#endif /* DMACORE_SYS_MAPPING_OPS_H */
