/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Turns the example of one header's DOC comment, EXAMPLE, into the body of a function whose
 * parameters are what examples take for granted. HEADER is all that it may need of dmacore.
 */

#include HEADER

#include <errno.h>
#include <stdlib.h>

struct dmacore_device;
struct dmacore_domain;
struct dmacore_iommu;
struct dmacore_page_request_group;
struct dmacore_system;
struct dmacore_view;

int example(struct dmacore_system *system, struct dmacore_iommu *iommu,
	    struct dmacore_domain *domain, struct dmacore_device *device, struct dmacore_view *view,
	    struct dmacore_page_request_group *group, void *buffer, uint64_t size,
	    dmacore_dma_t dma);

int example(struct dmacore_system *system, struct dmacore_iommu *iommu,
	    struct dmacore_domain *domain, struct dmacore_device *device, struct dmacore_view *view,
	    struct dmacore_page_request_group *group, void *buffer, uint64_t size,
	    dmacore_dma_t dma)
{
	int error = 0;

	{
#include EXAMPLE
	}
	return error;
}
