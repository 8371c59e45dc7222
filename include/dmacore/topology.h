/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_TOPOLOGY_H
#define DMACORE_TOPOLOGY_H

/**
 * DOC: Topology
 *
 * Which devices the hardware cannot keep apart follows from where they are. A device is made with the
 * bridge that it is below and the IDs that its requests carry (device.h), and is put into the group of
 * those that it belongs to:
 *
 * - all below a bridge that does not isolate. Such a bridge, a switch without access control (ACS) or a
 *   bridge to conventional PCI, passes requests from one device to another, and the IOMMU never sees
 *   them. Of several on the way to the root the topmost counts.
 * - all behind one IOMMU that have an ID in common: a PCI requester ID, which a device may also have as
 *   an alias, or a stream ID. The IOMMU cannot tell their requests apart.
 * - the functions of one slot that may reach each other (DMACORE_DEVICE_SHARES_SLOT).
 *
 * A device that belongs to none of these has a group to itself; so have those of no topology, unless
 * they are made with a group, or the system is asked (struct dmacore_system_options) and knows one.
 *
 *	struct dmacore_bridge_options options = DMACORE_BRIDGE_OPTIONS_INIT;
 *	struct dmacore_bridge *port, *legacy;
 *
 *	options.flags = DMACORE_BRIDGE_ISOLATES;
 *	error = dmacore_bridge_create(system, &options, &port);
 *	options.flags = 0;
 *	options.parent = port;
 *	error = dmacore_bridge_create(system, &options, &legacy);
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_bridge;
struct dmacore_system;

/* The most IDs that a device can be made with. */
#define DMACORE_DEVICE_IDS_MAX 16

enum dmacore_bridge_flags {
	/* Requests from below go up to the IOMMU, never to another device. */
	DMACORE_BRIDGE_ISOLATES = 1,
	/*
	 * Of a bridge on a root bus: the host bridge that it is on passes requests from devices below it to
	 * others below it (peer.h).
	 */
	DMACORE_BRIDGE_HOST_PASSES = 2,
	/* The same, and to devices below other bridges that have this flag. */
	DMACORE_BRIDGE_HOST_PASSES_ACROSS = 4,
};

/**
 * struct dmacore_bridge_options - how a bridge is made
 * @struct_size: sizeof(struct dmacore_bridge_options)
 * @flags: bits of enum dmacore_bridge_flags
 * @reserved: zero
 * @parent: the bridge that it is below; NULL: a root bus
 */
struct dmacore_bridge_options {
	size_t struct_size;
	uint32_t flags;
	uint32_t reserved;
	struct dmacore_bridge *parent;
};

#define DMACORE_BRIDGE_OPTIONS_INIT \
	{ sizeof(struct dmacore_bridge_options), 0, 0, NULL }

/**
 * dmacore_bridge_create() - make a bridge, for devices to be below
 * @system: the system it belongs to
 * @options: how; NULL: all defaults: one that does not isolate, on a root bus
 * @out_bridge: receives the bridge, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the bridge back with dmacore_bridge_destroy(); it holds on to the system
 *   and to its parent.
 * Return: 0, or
 *   -EINVAL  @system or @out_bridge is NULL, a flag is unknown or for a bridge on a root bus alone,
 *            @reserved is not zero, the parent is of another system, or the structure is too short. Never
 *            succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_bridge_create(struct dmacore_system *system,
			  const struct dmacore_bridge_options *options,
			  struct dmacore_bridge **out_bridge);

/**
 * dmacore_bridge_destroy() - give a bridge back
 * @bridge: the bridge, or NULL
 *
 * The devices and bridges below it hold on to it.
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: @bridge may not be used afterwards.
 * Return: nothing; cannot fail.
 */
void dmacore_bridge_destroy(struct dmacore_bridge *bridge);

/**
 * dmacore_bridge_set_isolation() - say that a bridge isolates from now on, or no longer does
 * @bridge: the bridge
 * @isolates: whether it does
 *
 * As when its access control is switched on or off. Groups stay what they are: devices that can be kept
 * apart now stay together, and those that come later are put where they belong by then. Routes between
 * peers (peer.h) follow at once; live mappings are not touched.
 *
 * Context: any thread; locked (topology, rank 12); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @bridge is NULL. Never succeeds if retried.
 *   -EBUSY   devices below it are in several groups, and would belong to one. Not until those of all but
 *            one group are gone.
 */
DMACORE_MUST_CHECK
int dmacore_bridge_set_isolation(struct dmacore_bridge *bridge, bool isolates);

DMACORE_END_DECLS

#endif /* DMACORE_TOPOLOGY_H */
