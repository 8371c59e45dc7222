/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef DMACORE_VERSION_H
#define DMACORE_VERSION_H

/**
 * DOC: Version
 *
 * The macros are the version of the headers a program was compiled with; dmacore_version() is that
 * of the library it runs with.
 *
 * Stability: stable.
 */

#include "types.h"

DMACORE_BEGIN_DECLS

#define DMACORE_VERSION_MAJOR 0
#define DMACORE_VERSION_MINOR 1
#define DMACORE_VERSION_PATCH 0

/* One number that grows with the version. */
#define DMACORE_VERSION \
	((DMACORE_VERSION_MAJOR << 16) | (DMACORE_VERSION_MINOR << 8) | DMACORE_VERSION_PATCH)

/**
 * dmacore_version() - version of the library that is loaded
 *
 * Context: any thread; takes no lock.
 * Ownership: nothing changes hands.
 * Return: a number of the same form as DMACORE_VERSION. Cannot fail.
 */
uint32_t dmacore_version(void);

DMACORE_END_DECLS

#endif /* DMACORE_VERSION_H */
