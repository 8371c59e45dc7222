/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_PEER_H
#define DMACORE_PEER_H

/**
 * DOC: Peer to peer
 *
 * Devices may reach each other's memory as they reach the system's. A device that has such memory, a BAR
 * say, provides it as a peer: the range of physical memory that it is, and where the bus below the bridges
 * has it.
 *
 *	struct dmacore_peer_options options = DMACORE_PEER_OPTIONS_INIT;
 *	struct dmacore_peer *peer;
 *	uint32_t route;
 *
 *	options.phys = 0x3800000000;
 *	options.size = 1 << 20;
 *	options.bus = 0xc0000000;
 *	error = dmacore_peer_create(device, &options, &peer);
 *	... another device, a client, wants to know whether it can reach it, and maps it ...
 *	error = dmacore_peer_route(peer, device, &route, NULL);
 *	error = dmacore_map_phys(device, 0x3800000000, 4096, DMACORE_FROM_DEVICE, 0, &dma);
 *
 * The route to it follows from where the two are (topology.h), at the moment of the call:
 *
 * - By bus address, if they have a bridge in common and no bridge on the way over that one isolates; and to
 *   a device itself, or between functions of a slot that may reach each other. Such requests never come to
 *   an IOMMU or to memory. A client that is not trusted (DMACORE_DEVICE_UNTRUSTED) sends all its requests
 *   up instead, for else it would reach what its domain does not map.
 * - Through the host bridge, if it passes requests of devices to each other (enum dmacore_bridge_flags).
 * - Else it is not reachable.
 *
 * The mapping calls (mapping.h) take memory of a peer as any other memory, and go by the route. By bus
 * address they give the bus address, whatever domain the device is in that is not blocked and that they
 * map in, and a record is kept of it. Through the host bridge they map as the device's domain has it, as MMIO.
 * What is not reachable, or lies in a peer in part alone, they refuse with -EREMOTEIO. Neither is ever
 * bounced, so that a device for which all is bounced directly is refused it with -ERANGE; and caches are never
 * maintained for it.
 *
 * A mapping stays what it was made as: when access control changes (dmacore_bridge_set_isolation()), or the
 * peer goes, an access by a bus address that no longer leads to the peer goes where the device's path leads
 * it, and faults there; to unmap it is always right.
 *
 * The other side: a view's access to a bus address meets the peer as long as that is its route, if the
 * device is not blocked, and with DMACORE_DEVICE_TRACK_DIRECT if it is mapped. Requests with a PASID always go
 * up. So addresses of an IOMMU's domain that are bus addresses of peers would lead devices astray: the
 * mapping calls give out none. Who maps by itself, in an unmanaged or a nested domain, keeps clear of them.
 *
 * Stability: may change before 1.0.
 */

#include "mapping.h"
#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_peer;

enum dmacore_peer_route {
	/* The one does not reach the other. */
	DMACORE_PEER_UNREACHABLE = 0,
	/* By the bus addresses, below the host bridge. */
	DMACORE_PEER_BUS_ADDRESS = 1,
	/* By the physical addresses, as the device's domain has them, through the host bridge. */
	DMACORE_PEER_HOST_BRIDGE = 2,
};

/**
 * struct dmacore_peer_options - which memory a device provides
 * @struct_size: sizeof(struct dmacore_peer_options)
 * @flags: zero
 * @reserved: zero
 * @phys: first physical address, a multiple of 4096. For an access to succeed there must be memory
 *   (memory.h), which may come later
 * @size: bytes, a multiple of 4096, not 0
 * @bus: its first bus address, a multiple of 4096; 0: the same as @phys
 */
struct dmacore_peer_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	dmacore_phys_t phys;
	uint64_t size;
	dmacore_dma_t bus;
};

#define DMACORE_PEER_OPTIONS_INIT \
	{ sizeof(struct dmacore_peer_options), 0, 0, 0, 0, 0 }

/**
 * dmacore_peer_create() - provide memory of a device to others
 * @provider: the device
 * @options: which memory
 * @out_peer: receives the peer, or NULL on failure
 *
 * Context: any thread; locked (group, rank 3, and inside it device mappings, rank 4; peers, rank 16); on
 *   failure may wait for accesses in flight to end; calls nothing back.
 * Ownership: the caller gives the peer back with dmacore_peer_destroy(); it holds on to the provider.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, a flag or @reserved is set, an address or the size is not aligned, the size
 *            is 0, a range wraps, or the structure is too short. Never succeeds if retried.
 *   -EEXIST  it overlaps another peer of the system, in physical or in bus addresses. Not while that one
 *            is there, or mapped by its bus addresses.
 *   -EBUSY   a device of the provider's group has a mapping at one of its bus addresses, or a mapping call
 *            under way. May succeed later.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_peer_create(struct dmacore_device *provider, const struct dmacore_peer_options *options,
			struct dmacore_peer **out_peer);

/**
 * dmacore_peer_destroy() - take memory of a device back from others
 * @peer: the peer, or NULL
 *
 * When this returns no view reaches the memory by a bus address, but for zero-copy mappings, and accesses
 * inside callbacks of memory regions. Mappings by bus addresses that are live keep these from being
 * anybody else's until they are unmapped. Mappings through the host bridge lead to the memory for as long as
 * that is there.
 *
 * Context: any thread; locked (peers, rank 16); waits for accesses in flight to end; may end a device that
 *   was destroyed before.
 * Ownership: @peer may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_peer_destroy(struct dmacore_peer *peer);

/**
 * dmacore_peer_route() - say how a device reaches a peer
 * @peer: the peer
 * @client: the device
 * @out_route: receives one of enum dmacore_peer_route
 * @out_distance: receives how many bridges are on the way, 0 where it is not reachable; may be NULL
 *
 * Of several peers that a client reaches, the one at the least distance is likely to be the fastest. The
 * answer holds until access control changes.
 *
 * Context: any thread; lock-free; calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, also where it is not reachable, or
 *   -EINVAL  @peer, @client or @out_route is NULL, or they are of two systems. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_peer_route(struct dmacore_peer *peer, struct dmacore_device *client,
		       uint32_t *out_route, uint32_t *out_distance);

DMACORE_END_DECLS

#endif /* DMACORE_PEER_H */
