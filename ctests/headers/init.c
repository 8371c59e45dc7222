/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Each _INIT macro initializes every member of its structure, which the compiler's warnings say,
 * and starts with the structure's size, which this says when it runs. scripts/check-headers lists
 * the macros in init.inc.
 */

#include <dmacore.h>

#include <stdio.h>

#define CHECK_INIT(name, init)                                \
	do {                                                  \
		struct name value = init;                     \
		if (value.struct_size != sizeof(struct name)) \
			return puts(#init ": wrong size"), 1; \
	} while (0);

int main(void)
{
#include "init.inc"
	return 0;
}
