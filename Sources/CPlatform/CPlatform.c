/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A package target needs one source file; everything is in the header. */
#include "CPlatform.h"
