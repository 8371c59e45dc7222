/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The IOVA fuzzer with a twin that is wrong: it forgets that it was told to free ranges of three
 * granules. A run of it must fail; one that passes tells that the fuzzers find nothing.
 */

#define FORGETTABLE_GRANULES 3

#include "iova_fuzz.c"
