/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_GROUP_H
#define DMACORE_GROUP_H

/**
 * DOC: Groups and ownership
 *
 * Devices that the hardware cannot keep apart share one translation: they are a group, and change
 * their domain together. A device that is given no group has one to itself.
 *
 * Who decides what the devices of a group reach is told apart in each call:
 *
 *	                   use                          claim(owner)
 *	  in use by the  <-------                      -------------->
 *	  DMA API,                 free,                                owned, blocked
 *	  counted        ------->  in the default      <--------------   |          ^
 *	                  unuse    domain               release(owner)   | attach   | detach
 *	                                                                 v (owner)  | (owner)
 *	                                                                owned, in a domain
 *	                                                                of the owner's
 *
 * - Free. The devices are in the group's default domain, or blocked if it has none. Whoever wants
 *   may set that by dmacore_domain_attach().
 * - In use by the DMA API. Drivers that use the mapping calls (mapping.h) say so by
 *   dmacore_device_use_default_domain(), each for its device, or are bound to it (driver.h). Meanwhile
 *   the default domain stays.
 * - Owned. One owner, a driver with a domain of its own or user space, has the group to itself. It
 *   finds the devices blocked, never in the default domain.
 *
 * A group that is used by one of these is refused to all others, and a call that is refused has
 * changed nothing. While a group changes its domain its devices' accesses see the old or the new
 * domain, nothing else. A change is refused as long as a device of the group has live mappings that
 * a record is kept of, as those are in the domain that it would leave.
 *
 *	struct dmacore_dma_owner owner = DMACORE_DMA_OWNER_INIT;
 *
 *	owner.kind = DMACORE_OWNER_USER;
 *	owner.name = "vm3";
 *	error = dmacore_device_claim_dma_owner(device, &owner);
 *	error = dmacore_device_attach(device, domain, &owner);
 *	... the device reaches what the owner maps in the domain ...
 *	error = dmacore_device_release_dma_owner(device, &owner);
 *
 * PASIDs. Requests of a device that can send them (device.h) may carry a process address space ID. Those
 * are translated not by the domain of the group but by one that its owner attaches to the PASID, for all
 * devices of the group; while there is none they are blocked:
 *
 *	error = dmacore_device_attach_pasid(device, 7, domain, &owner);
 *
 * Stability: may change before 1.0.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

struct dmacore_device;
struct dmacore_domain;
struct dmacore_group;
struct dmacore_system;

/* The longest name of a group or an owner, its terminating null byte included. */
#define DMACORE_OWNER_NAME_SIZE 32

/* The longest description of a group, its terminating null byte included. */
#define DMACORE_DESCRIPTION_SIZE 256

enum dmacore_owner_kind {
	/* A driver that maps in a domain of its own. */
	DMACORE_OWNER_DRIVER = 1,
	/* User space, a virtual machine: it is never given physical addresses. */
	DMACORE_OWNER_USER = 2,
};

/**
 * struct dmacore_dma_owner - who owns groups
 * @struct_size: sizeof(struct dmacore_dma_owner)
 * @kind: one of enum dmacore_owner_kind
 * @reserved: zero
 * @name: what people are told, less than DMACORE_OWNER_NAME_SIZE bytes long; copied by a claim; NULL:
 *   "owner"
 *
 * Its address is what tells an owner from others: keep the structure where it is until the last
 * claim is released.
 */
struct dmacore_dma_owner {
	size_t struct_size;
	uint32_t kind;
	uint32_t reserved;
	const char *name;
};

#define DMACORE_DMA_OWNER_INIT \
	{ sizeof(struct dmacore_dma_owner), DMACORE_OWNER_DRIVER, 0, NULL }

/**
 * dmacore_group_create() - make a group, for devices to be put into
 * @system: the system it belongs to
 * @out_group: receives the group, or NULL on failure
 *
 * Put devices that share an address space on purpose, such as the masters of one display pipeline,
 * into one group by the options that they are made with (device.h).
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the group back with dmacore_group_destroy(); it holds on to the
 *   system.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_group_create(struct dmacore_system *system, struct dmacore_group **out_group);

/**
 * dmacore_group_destroy() - give a group back
 * @group: the group, or NULL
 *
 * Its devices hold on to it.
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the handle may not be used afterwards; the group ends with the last of its devices.
 * Return: nothing; cannot fail.
 */
void dmacore_group_destroy(struct dmacore_group *group);

/**
 * dmacore_device_group() - the group that a device is in
 * @device: the device
 * @out_group: receives the group, or NULL on failure
 *
 * Context: any thread; takes no lock; calls nothing back.
 * Ownership: the caller gives the group back with dmacore_group_destroy().
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_device_group(struct dmacore_device *device, struct dmacore_group **out_group);

/**
 * dmacore_device_use_default_domain() - say that a device's driver uses the DMA API
 * @device: the device
 *
 * Counted. Until dmacore_device_unuse_default_domain() was called as often the group keeps its
 * default domain, and nobody owns it.
 *
 * Context: any thread; locked (group, rank 3); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @device is NULL. Never succeeds if retried.
 *   -ENODEV  the device is behind an IOMMU and its group has no default domain. Not until one is
 *            attached.
 *   -EBUSY   the group is owned. Not until it is released.
 */
DMACORE_MUST_CHECK
int dmacore_device_use_default_domain(struct dmacore_device *device);

/**
 * dmacore_device_unuse_default_domain() - say that a driver has ended its use of the DMA API
 * @device: the device
 *
 * A device that is destroyed ends its uses.
 *
 * Context: any thread; locked (group, rank 3); calls nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  @device is NULL. Never succeeds if retried.
 *   -EPERM   @device has no use left: nothing has changed, also not the uses of other devices of the
 *            group. Never.
 */
DMACORE_MUST_CHECK
int dmacore_device_unuse_default_domain(struct dmacore_device *device);

/**
 * dmacore_device_claim_dma_owner() - own the group of a device
 * @device: the device
 * @owner: who; looked at during the call, and known by its address afterwards
 *
 * The first claim takes the devices of the group out of the default domain: when the call returns
 * they are blocked, and no access through the default domain is in flight, but inside the callbacks
 * of memory regions. Further claims of the same owner, through any device of the group, are counted.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response and the report callback.
 * Ownership: @owner stays the caller's, and must stay where it is until the last release.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, the kind is unknown, @reserved is not zero, the name is too long, or
 *            the structure is too short. Never succeeds if retried.
 *   -E2BIG   the structure is longer than known and not zero there. Never.
 *   -ENODEV  the device is behind no IOMMU, so that nothing could block it. Never.
 *   -EPERM   another owner has the group; not until that releases it. Or a device of the group has a
 *            region that must always be mapped 1:1 (DMACORE_RESERVED_DIRECT), which is reported
 *            (DMACORE_REPORT_ERROR); never.
 *   -EBUSY   the group is in use by the DMA API, or a device of it has live mappings or a mapping
 *            call running, or a domain is just being taken from a PASID of it. Succeeds once that has
 *            ended.
 */
DMACORE_MUST_CHECK
int dmacore_device_claim_dma_owner(struct dmacore_device *device,
				   const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_release_dma_owner() - end a claim
 * @device: a device of the group that was claimed
 * @owner: who claimed it; only its address counts
 *
 * The last release gives the devices of the group back to the default domain; what the owner had
 * attached is detached.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: after the last release @owner is the caller's alone again.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -EPERM   @owner does not own the group. Never, unless it claims it.
 *   -EBUSY   the last claim, and a device of the group has live mappings or a mapping call running, or
 *            a domain is just being taken from a PASID of it, or as for dmacore_domain_attach() about
 *            addresses of the default domain. Succeeds once that has ended.
 */
DMACORE_MUST_CHECK
int dmacore_device_release_dma_owner(struct dmacore_device *device,
				     const struct dmacore_dma_owner *owner);

/**
 * dmacore_group_claim_dma_owner() - own a group
 * @group: the group
 * @owner: who
 *
 * As dmacore_device_claim_dma_owner() through a device of the group, and counted with those claims.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response and the report callback.
 * Ownership: as there.
 * Return: 0, or as dmacore_device_claim_dma_owner(); -ENODEV also if the group has no device.
 */
DMACORE_MUST_CHECK
int dmacore_group_claim_dma_owner(struct dmacore_group *group,
				  const struct dmacore_dma_owner *owner);

/**
 * dmacore_group_release_dma_owner() - end a claim of a group
 * @group: the group
 * @owner: who claimed it, or a device of it
 *
 * As dmacore_device_release_dma_owner().
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: as there.
 * Return: 0, or as dmacore_device_release_dma_owner().
 */
DMACORE_MUST_CHECK
int dmacore_group_release_dma_owner(struct dmacore_group *group,
				    const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_attach() - put the group of a device into a domain of its owner
 * @device: the device
 * @domain: a domain of the devices' IOMMU, but not the group's default domain; for an owner of kind
 *   DMACORE_OWNER_USER an unmanaged, a nested or a blocked one
 * @owner: who owns the group
 *
 * Replaces the domain that the group is in, if it is in one, without a gap: an access sees the old
 * domain or the new one. When the call returns none through the old one is in flight, but inside the
 * callbacks of memory regions.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: each device of the group holds on to the domain.
 * Return: 0, also if the group is in @domain; or
 *   -EINVAL  a pointer is NULL, or the domain is of another IOMMU. Never succeeds if retried.
 *   -EPERM   @owner does not own the group, or may not have such a domain, or a device of the group
 *            may not (see dmacore_domain_attach()). Never, unless it claims it.
 *   -EBUSY   a device of the group has live mappings or a mapping call running, or as for
 *            dmacore_domain_attach() about addresses. Succeeds once that has ended.
 *   -ENOMEM  as there.
 */
DMACORE_MUST_CHECK
int dmacore_device_attach(struct dmacore_device *device, struct dmacore_domain *domain,
			  const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_detach() - block the group of a device
 * @device: the device
 * @owner: who owns the group
 *
 * As dmacore_device_attach(): afterwards the group is blocked, as it was when it was claimed.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: the devices of the group let go of the domain.
 * Return: 0, also if the group was blocked; or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -EPERM   @owner does not own the group. Never, unless it claims it.
 *   -EBUSY   a device of the group has live mappings or a mapping call running. Succeeds once that
 *            has ended.
 */
DMACORE_MUST_CHECK
int dmacore_device_detach(struct dmacore_device *device, const struct dmacore_dma_owner *owner);

/**
 * dmacore_group_attach() - put a group into a domain of its owner
 * @group: the group
 * @domain: as for dmacore_device_attach()
 * @owner: who owns the group
 *
 * As dmacore_device_attach() through a device of the group.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: as there.
 * Return: 0, or as dmacore_device_attach(); -EPERM also if the group has no device.
 */
DMACORE_MUST_CHECK
int dmacore_group_attach(struct dmacore_group *group, struct dmacore_domain *domain,
			 const struct dmacore_dma_owner *owner);

/**
 * dmacore_group_detach() - block a group
 * @group: the group
 * @owner: who owns it
 *
 * As dmacore_device_detach() through a device of the group.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); waits for
 *   accesses in flight to end; may call the devices' page_response; may free a domain that was
 *   destroyed, and so call the table allocator.
 * Ownership: as there.
 * Return: 0, or as dmacore_device_detach(); -EPERM also if the group has no device.
 */
DMACORE_MUST_CHECK
int dmacore_group_detach(struct dmacore_group *group, const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_attach_pasid() - put the requests of a group with a PASID into a domain of its owner
 * @device: a device of the group whose requests can carry the PASID
 * @pasid: the PASID, not 0
 * @domain: an unmanaged, a nested or a blocked domain of the devices' IOMMU
 * @owner: who owns the group
 *
 * The last release, and the removal of the last device, detach it.
 *
 * Context: any thread; locked (group, rank 3); calls nothing back.
 * Ownership: the group holds on to the domain.
 * Return: 0, or with nothing changed
 *   -EINVAL  a pointer is NULL, the domain is of another IOMMU, or @device, or another device of the group
 *            that can send PASIDs, cannot send this one. Never succeeds if retried.
 *   -EPERM   @owner does not own the group, or a device of it may not have such a domain (see
 *            dmacore_device_attach()), or PASIDs may not. Never, unless it claims it.
 *   -EBUSY   the PASID has a domain, not until it is detached; or a domain is just being taken from a
 *            PASID of the group, succeeds once that has ended.
 *   -EOPNOTSUPP  the IOMMU has no DMACORE_IOMMU_PASIDS. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_device_attach_pasid(struct dmacore_device *device, uint32_t pasid,
				struct dmacore_domain *domain,
				const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_replace_pasid() - put the requests of a group with a PASID into another domain
 * @device: as above
 * @pasid: as above
 * @domain: as above
 * @owner: as above
 *
 * Without a gap: an access sees the old domain or the new one. When the call returns none through the old
 * one is in flight, but inside the callbacks of memory regions.
 *
 * Context: any thread; locked (group, rank 3); waits for accesses in flight to end; may call the devices'
 *   page_response; may free a domain that was destroyed, and so call the table allocator.
 * Ownership: the group lets go of the old domain and holds on to the new one.
 * Return: 0, also if the PASID has @domain; or as dmacore_device_attach_pasid(), but
 *   -ENOENT  the PASID has no domain. Not until one is attached.
 */
DMACORE_MUST_CHECK
int dmacore_device_replace_pasid(struct dmacore_device *device, uint32_t pasid,
				 struct dmacore_domain *domain,
				 const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_detach_pasid() - block the requests of a group with a PASID
 * @device: a device of the group
 * @pasid: the PASID
 * @owner: who owns the group
 *
 * Needs no memory.
 *
 * Context: any thread; locked (group, rank 3); waits for accesses in flight to end; may call the devices'
 *   page_response; may free a domain that was destroyed, and so call the table allocator.
 * Ownership: the group lets go of the domain.
 * Return: 0, also if the PASID has no domain; or
 *   -EINVAL  a pointer is NULL. Never succeeds if retried.
 *   -EPERM   @owner does not own the group. Never, unless it claims it.
 *   -EBUSY   a domain is just being taken from a PASID of the group. Succeeds once that has ended.
 */
DMACORE_MUST_CHECK
int dmacore_device_detach_pasid(struct dmacore_device *device, uint32_t pasid,
				const struct dmacore_dma_owner *owner);

/**
 * dmacore_device_invalidate_pasid() - say that a guest has changed the tables of a PASID
 * @device: a device of the group, whose requests can carry the PASID
 * @pasid: the PASID
 * @first: as for dmacore_domain_invalidate() (domain.h)
 * @last: as there
 *
 * dmacore_domain_invalidate() for the domain that is attached to the PASID at this moment. It changes
 * nothing, so that it takes no owner.
 *
 * Context: any thread; locked (group, rank 3; notifiers, rank 13); waits for accesses in flight to end;
 *   calls notifiers; may free a domain that was detached and destroyed meanwhile, and so call the table
 *   allocator.
 * Ownership: as there.
 * Return: 0, or
 *   -EINVAL  @device is NULL, its requests cannot carry the PASID, or @last is below @first. Never succeeds
 *            if retried.
 *   -ENOENT  the PASID has no domain. Not until one is attached.
 *   -EOPNOTSUPP  its domain is not nested. Not until one is attached that is.
 */
DMACORE_MUST_CHECK
int dmacore_device_invalidate_pasid(struct dmacore_device *device, uint32_t pasid,
				    dmacore_iova_t first, dmacore_iova_t last);

/**
 * dmacore_group_set_default_type() - change what type the default domain of a group has
 * @group: the group
 * @type: DMACORE_DOMAIN_IDENTITY, DMACORE_DOMAIN_DMA, DMACORE_DOMAIN_DMA_LAZY or DMACORE_DOMAIN_HYBRID
 *   (domain.h)
 *
 * A default domain that the group has chosen itself (driver.h) becomes lazy or strict at any time. Else the
 * group must be free, and gets a new default domain, without a gap as by dmacore_domain_replace(). If that
 * is refused, a report (DMACORE_REPORT_ERROR) says who holds the group.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; lazy domains, rank 6; flush
 *   queue, rank 7; and as dmacore_domain_create(; windows, rank 14)); waits for accesses in flight to
 *   end; calls the table allocator, and may call the devices' page_response and the report callback.
 * Ownership: the group holds on to the new domain, and lets go of the old one.
 * Return: 0, also if the type is that already; or with nothing changed
 *   -EINVAL  @group is NULL, or the type is another. Never succeeds if retried.
 *   -ENODEV  the group has no device behind an IOMMU. Never, until it has.
 *   -EAGAIN  the IOMMU is announced and not there. Once it has started.
 *   -EBUSY   the group is in use by the DMA API, or a device of it has live mappings or a mapping call
 *            running. Succeeds once that has ended.
 *   -EPERM   the group is owned; not until it is released. Or the type is another than
 *            DMACORE_DOMAIN_DMA, and a device of the group is not trusted; never.
 *   -EOPNOTSUPP  the IOMMU's page tables cannot have DMA domains, or the type is DMACORE_DOMAIN_DMA_LAZY
 *            and the IOMMU has no DMACORE_IOMMU_DEFERRED_FLUSH, or it is DMACORE_DOMAIN_HYBRID and the
 *            system is flat. Never.
 *   -ERANGE  they are too narrow for a region that must be mapped 1:1. Never.
 *   -ENOMEM  no memory. May succeed later.
 */
DMACORE_MUST_CHECK
int dmacore_group_set_default_type(struct dmacore_group *group, uint32_t type);

/**
 * dmacore_group_describe() - say in words who has a group
 * @group: the group
 * @text: receives one line with a null byte at its end; what does not fit is cut off
 * @size: bytes at @text; the line is never longer than DMACORE_DESCRIPTION_SIZE
 *
 * For people: which state the group is in, who brought it there by which call, how many hold it
 * there, and how many live mappings stand against a change.
 *
 * Context: any thread; locked (group, rank 3; device mappings, rank 4; windows, rank 14); calls
 *   nothing back.
 * Ownership: nothing changes hands.
 * Return: 0, or
 *   -EINVAL  a pointer is NULL, or @size is 0. Never succeeds if retried.
 */
DMACORE_MUST_CHECK
int dmacore_group_describe(struct dmacore_group *group, char *text, size_t size);

DMACORE_END_DECLS

#endif /* DMACORE_GROUP_H */
