/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_H
#define DMACORE_H

/* All of dmacore, for programs that want one line. */

#include "dmacore/bounce.h"
#include "dmacore/coherent.h"
#include "dmacore/coherent_pool.h"
#include "dmacore/device.h"
#include "dmacore/domain.h"
#include "dmacore/driver.h"
#include "dmacore/fault.h"
#include "dmacore/group.h"
#include "dmacore/iommu.h"
#include "dmacore/iova.h"
#include "dmacore/iova_state.h"
#include "dmacore/mapping.h"
#include "dmacore/memory.h"
#include "dmacore/noncontiguous.h"
#include "dmacore/notifier.h"
#include "dmacore/page_request.h"
#include "dmacore/pagetable.h"
#include "dmacore/peer.h"
#include "dmacore/reserved.h"
#include "dmacore/scatterlist.h"
#include "dmacore/sys/backend.h"
#include "dmacore/sys/mapping_ops.h"
#include "dmacore/system.h"
#include "dmacore/topology.h"
#include "dmacore/transfer.h"
#include "dmacore/types.h"
#include "dmacore/version.h"
#include "dmacore/view.h"

#endif /* DMACORE_H */
