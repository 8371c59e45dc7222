/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "CPlatform.h"

/*
 * What the calling thread holds, for builds that check the rules of locks and sections. The shipped
 * library calls none of this, and the linker leaves it out.
 */
static _Thread_local uint32_t held_ranks;
static _Thread_local uint32_t open_sections;

bool cplatform_check_lock(uint32_t rank)
{
	/* A lock is taken only while every lock that is held has a lower rank. */
	if (held_ranks >> rank)
		return false;
	held_ranks |= UINT32_C(1) << rank;
	return true;
}

void cplatform_check_unlock(uint32_t rank)
{
	held_ranks &= ~(UINT32_C(1) << rank);
}

void cplatform_check_enter(void)
{
	open_sections++;
}

void cplatform_check_leave(void)
{
	open_sections--;
}

bool cplatform_check_holds_lock(void)
{
	return held_ranks != 0;
}

bool cplatform_check_in_section(void)
{
	return open_sections != 0;
}
