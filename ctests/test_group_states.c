/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/party.h"

/* Every state of a group, and every call that may change it, against a table. */

enum holder { NOBODY, DMA_API, ANNE, ANNE_USER, BERT };

enum state {
	FREE_EMPTY,
	FREE,
	FREE_MAPPED,
	USED,
	USED_MAPPED,
	USED_BY_SIBLING,
	BLOCKED,
	BLOCKED_EMPTY,
	ATTACHED,
	ATTACHED_MAPPED,
	TWICE,
	TWICE_MAPPED,
	USER,
	BERTS,
	/* Those from here on are only come to. */
	FREE_OTHER,
	USED_TWICE,
	USED_TWICE_MAPPED,
	USED_BY_BOTH,
	ATTACHED_OTHER,
	ATTACHED_TWICE,
	OTHER_TWICE,
	THRICE,
	THRICE_MAPPED,
	USER_TWICE,
	USER_ATTACHED,
	BERTS_TWICE,
	BERTS_ATTACHED,
	STATE_COUNT,

	/* To be added to a state: the PASID has the domain OWN, or SPARE. */
	IN_OWN = 0x100,
	IN_SPARE = 0x200,
};

/* What can be seen of a state without its PASID. A mapping is always one of disk1. */
static const struct picture {
	enum holder holder;
	/* Uses or claims, and the first of them. */
	unsigned count;
	const char *since;
	enum place place;
	bool is_mapped;
} pictures[STATE_COUNT] = {
	[FREE_EMPTY] = { NOBODY, 0, NULL, NOWHERE, false },
	[FREE] = { NOBODY, 0, NULL, FALLBACK, false },
	[FREE_MAPPED] = { NOBODY, 0, NULL, FALLBACK, true },
	[USED] = { DMA_API, 1, "disk0", FALLBACK, false },
	[USED_MAPPED] = { DMA_API, 1, "disk0", FALLBACK, true },
	[USED_BY_SIBLING] = { DMA_API, 1, "disk1", FALLBACK, false },
	[BLOCKED] = { ANNE, 1, "disk0", NOWHERE, false },
	[BLOCKED_EMPTY] = { ANNE, 1, "disk0", NOWHERE, false },
	[ATTACHED] = { ANNE, 1, "disk0", OWN, false },
	[ATTACHED_MAPPED] = { ANNE, 1, "disk0", OTHER, true },
	[TWICE] = { ANNE, 2, "disk0", NOWHERE, false },
	[TWICE_MAPPED] = { ANNE, 2, "disk0", OTHER, true },
	[USER] = { ANNE_USER, 1, "disk0", NOWHERE, false },
	[BERTS] = { BERT, 1, "disk0", NOWHERE, false },
	[FREE_OTHER] = { NOBODY, 0, NULL, OTHER, false },
	[USED_TWICE] = { DMA_API, 2, "disk0", FALLBACK, false },
	[USED_TWICE_MAPPED] = { DMA_API, 2, "disk0", FALLBACK, true },
	[USED_BY_BOTH] = { DMA_API, 2, "disk1", FALLBACK, false },
	[ATTACHED_OTHER] = { ANNE, 1, "disk0", OTHER, false },
	[ATTACHED_TWICE] = { ANNE, 2, "disk0", OWN, false },
	[OTHER_TWICE] = { ANNE, 2, "disk0", OTHER, false },
	[THRICE] = { ANNE, 3, "disk0", NOWHERE, false },
	[THRICE_MAPPED] = { ANNE, 3, "disk0", OTHER, true },
	[USER_TWICE] = { ANNE_USER, 2, "disk0", NOWHERE, false },
	[USER_ATTACHED] = { ANNE_USER, 1, "disk0", OWN, false },
	[BERTS_TWICE] = { BERT, 2, "disk0", NOWHERE, false },
	[BERTS_ATTACHED] = { BERT, 1, "disk0", OWN, false },
};

enum transition {
	SET_OTHER,
	REPLACE_BY_OTHER,
	CLEAR_FALLBACK,
	USE,
	UNUSE,
	CLAIM_A,
	CLAIM_B,
	RELEASE_A,
	RELEASE_B,
	ATTACH_OWN_A,
	ATTACH_OTHER_A,
	ATTACH_OWN_B,
	DETACH_A,
	DETACH_B,
	ATTACH_PASID_A,
	REPLACE_PASID_A,
	DETACH_PASID_A,
	ATTACH_PASID_B,
	REPLACE_PASID_B,
	DETACH_PASID_B,
	JOIN,
	LEAVE,
	TRANSITION_COUNT,
};

/* clang-format off */

/*
 * What comes of each transition, made through disk0: a state, or a negated errno value. A line each of
 * calls, claims, owners' domains, those of PASIDs, and devices.
 */
static const struct row {
	int state;
	int outcomes[TRANSITION_COUNT];
} table[] = {
	{ FREE_EMPTY, {
		FREE_OTHER, FREE_OTHER, -EINVAL, -ENODEV, -EPERM,
		BLOCKED_EMPTY, BERTS, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		FREE_EMPTY, FREE_EMPTY,
	} },
	{ FREE, {
		-EBUSY, FREE_OTHER, FREE_EMPTY, USED, -EPERM,
		BLOCKED, BERTS, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		FREE, FREE,
	} },
	{ FREE_MAPPED, {
		-EBUSY, -EBUSY, -EBUSY, USED_MAPPED, -EPERM,
		-EBUSY, -EBUSY, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		FREE_MAPPED, FREE_MAPPED,
	} },
	{ USED, {
		-EBUSY, -EBUSY, -EBUSY, USED_TWICE, FREE,
		-EBUSY, -EBUSY, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		USED, FREE,
	} },
	{ USED_MAPPED, {
		-EBUSY, -EBUSY, -EBUSY, USED_TWICE_MAPPED, FREE_MAPPED,
		-EBUSY, -EBUSY, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		USED_MAPPED, FREE_MAPPED,
	} },
	{ USED_BY_SIBLING, {
		-EBUSY, -EBUSY, -EBUSY, USED_BY_BOTH, -EPERM,
		-EBUSY, -EBUSY, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		-EPERM, -EPERM, -EPERM, -EPERM, -EPERM, -EPERM,
		USED_BY_SIBLING, USED_BY_SIBLING,
	} },
	{ BLOCKED, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		TWICE, -EPERM, FREE, -EPERM,
		ATTACHED, ATTACHED_OTHER, -EPERM, BLOCKED, -EPERM,
		BLOCKED | IN_OWN, -ENOENT, BLOCKED, -EPERM, -EPERM, -EPERM,
		BLOCKED, BLOCKED,
	} },
	{ BLOCKED_EMPTY, {
		-EPERM, -EPERM, -EINVAL, -EBUSY, -EPERM,
		TWICE, -EPERM, FREE_EMPTY, -EPERM,
		ATTACHED, ATTACHED_OTHER, -EPERM, BLOCKED_EMPTY, -EPERM,
		BLOCKED_EMPTY | IN_OWN, -ENOENT, BLOCKED_EMPTY, -EPERM, -EPERM, -EPERM,
		BLOCKED_EMPTY, BLOCKED_EMPTY,
	} },
	{ ATTACHED, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		ATTACHED_TWICE, -EPERM, FREE, -EPERM,
		ATTACHED, ATTACHED_OTHER, -EPERM, BLOCKED, -EPERM,
		ATTACHED | IN_OWN, -ENOENT, ATTACHED, -EPERM, -EPERM, -EPERM,
		ATTACHED, ATTACHED,
	} },
	{ ATTACHED_MAPPED, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		TWICE_MAPPED, -EPERM, -EBUSY, -EPERM,
		/* It stays where it is, which is no change that a mapping could stand against. */
		-EBUSY, ATTACHED_MAPPED, -EPERM, -EBUSY, -EPERM,
		ATTACHED_MAPPED | IN_OWN, -ENOENT, ATTACHED_MAPPED, -EPERM, -EPERM, -EPERM,
		ATTACHED_MAPPED, ATTACHED_MAPPED,
	} },
	{ TWICE, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		THRICE, -EPERM, BLOCKED, -EPERM,
		ATTACHED_TWICE, OTHER_TWICE, -EPERM, TWICE, -EPERM,
		TWICE | IN_OWN, -ENOENT, TWICE, -EPERM, -EPERM, -EPERM,
		TWICE, TWICE,
	} },
	{ TWICE_MAPPED, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		THRICE_MAPPED, -EPERM, ATTACHED_MAPPED, -EPERM,
		-EBUSY, TWICE_MAPPED, -EPERM, -EBUSY, -EPERM,
		TWICE_MAPPED | IN_OWN, -ENOENT, TWICE_MAPPED, -EPERM, -EPERM, -EPERM,
		TWICE_MAPPED, TWICE_MAPPED,
	} },
	{ USER, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		USER_TWICE, -EPERM, FREE, -EPERM,
		USER_ATTACHED, -EPERM, -EPERM, USER, -EPERM,
		USER | IN_OWN, -ENOENT, USER, -EPERM, -EPERM, -EPERM,
		USER, USER,
	} },
	{ BERTS, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		-EPERM, BERTS_TWICE, -EPERM, FREE,
		-EPERM, -EPERM, BERTS_ATTACHED, -EPERM, BERTS,
		-EPERM, -EPERM, -EPERM, BERTS | IN_OWN, -ENOENT, BERTS,
		BERTS, BERTS,
	} },
	{ BLOCKED | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		TWICE | IN_OWN, -EPERM, FREE, -EPERM,
		ATTACHED | IN_OWN, ATTACHED_OTHER | IN_OWN, -EPERM, BLOCKED | IN_OWN, -EPERM,
		-EBUSY, BLOCKED | IN_SPARE, BLOCKED, -EPERM, -EPERM, -EPERM,
		BLOCKED | IN_OWN, BLOCKED | IN_OWN,
	} },
	{ BLOCKED_EMPTY | IN_OWN, {
		-EPERM, -EPERM, -EINVAL, -EBUSY, -EPERM,
		TWICE | IN_OWN, -EPERM, FREE_EMPTY, -EPERM,
		ATTACHED | IN_OWN, ATTACHED_OTHER | IN_OWN, -EPERM, BLOCKED_EMPTY | IN_OWN, -EPERM,
		-EBUSY, BLOCKED_EMPTY | IN_SPARE, BLOCKED_EMPTY, -EPERM, -EPERM, -EPERM,
		BLOCKED_EMPTY | IN_OWN, BLOCKED_EMPTY | IN_OWN,
	} },
	{ ATTACHED | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		ATTACHED_TWICE | IN_OWN, -EPERM, FREE, -EPERM,
		ATTACHED | IN_OWN, ATTACHED_OTHER | IN_OWN, -EPERM, BLOCKED | IN_OWN, -EPERM,
		-EBUSY, ATTACHED | IN_SPARE, ATTACHED, -EPERM, -EPERM, -EPERM,
		ATTACHED | IN_OWN, ATTACHED | IN_OWN,
	} },
	{ ATTACHED_MAPPED | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		TWICE_MAPPED | IN_OWN, -EPERM, -EBUSY, -EPERM,
		-EBUSY, ATTACHED_MAPPED | IN_OWN, -EPERM, -EBUSY, -EPERM,
		-EBUSY, ATTACHED_MAPPED | IN_SPARE, ATTACHED_MAPPED, -EPERM, -EPERM, -EPERM,
		ATTACHED_MAPPED | IN_OWN, ATTACHED_MAPPED | IN_OWN,
	} },
	{ TWICE | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		THRICE | IN_OWN, -EPERM, BLOCKED | IN_OWN, -EPERM,
		ATTACHED_TWICE | IN_OWN, OTHER_TWICE | IN_OWN, -EPERM, TWICE | IN_OWN, -EPERM,
		-EBUSY, TWICE | IN_SPARE, TWICE, -EPERM, -EPERM, -EPERM,
		TWICE | IN_OWN, TWICE | IN_OWN,
	} },
	{ USER | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		USER_TWICE | IN_OWN, -EPERM, FREE, -EPERM,
		USER_ATTACHED | IN_OWN, -EPERM, -EPERM, USER | IN_OWN, -EPERM,
		-EBUSY, USER | IN_SPARE, USER, -EPERM, -EPERM, -EPERM,
		USER | IN_OWN, USER | IN_OWN,
	} },
	{ BERTS | IN_OWN, {
		-EPERM, -EPERM, -EPERM, -EBUSY, -EPERM,
		-EPERM, BERTS_TWICE | IN_OWN, -EPERM, FREE,
		-EPERM, -EPERM, BERTS_ATTACHED | IN_OWN, -EPERM, BERTS | IN_OWN,
		-EPERM, -EPERM, -EPERM, -EBUSY, BERTS | IN_SPARE, BERTS,
		BERTS | IN_OWN, BERTS | IN_OWN,
	} },
};

/* clang-format on */

/* What a state is without its PASID, and where that leads. */
static int without_pasid(int state)
{
	return state & 0xff;
}

static enum place place_of_pasid(int state)
{
	return state & IN_OWN ? OWN : state & IN_SPARE ? SPARE : NOWHERE;
}

static int attach_pasid(struct party *party, const struct dmacore_dma_owner *owner)
{
	return dmacore_device_attach_pasid(party->devices[0], PARTY_PASID, party->domains[OWN],
					   owner);
}

static int replace_pasid(struct party *party, const struct dmacore_dma_owner *owner)
{
	return dmacore_device_replace_pasid(party->devices[0], PARTY_PASID, party->domains[SPARE],
					    owner);
}

static void bring_into(struct party *party, int row)
{
	struct dmacore_device **devices = party->devices;
	enum state state = without_pasid(row);

	if (state != FREE_EMPTY && state != BLOCKED_EMPTY)
		assert_ok(dmacore_domain_attach(party->domains[FALLBACK], devices[0]));
	switch (state) {
	case USED:
	case USED_MAPPED:
		assert_ok(dmacore_device_use_default_domain(devices[0]));
		break;
	case USED_BY_SIBLING:
		assert_ok(dmacore_device_use_default_domain(devices[1]));
		break;
	case TWICE:
	case TWICE_MAPPED:
		assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
		assert_ok(dmacore_device_claim_dma_owner(devices[1], &party->a));
		break;
	case USER:
		party->a.kind = DMACORE_OWNER_USER;
		assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
		break;
	case BLOCKED:
	case BLOCKED_EMPTY:
	case ATTACHED:
	case ATTACHED_MAPPED:
		assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->a));
		break;
	case BERTS:
		assert_ok(dmacore_device_claim_dma_owner(devices[0], &party->b));
		break;
	default:
		break;
	}
	if (state == ATTACHED)
		assert_ok(dmacore_device_attach(devices[0], party->domains[OWN], &party->a));
	if (state == ATTACHED_MAPPED || state == TWICE_MAPPED)
		assert_ok(dmacore_device_attach(devices[0], party->domains[OTHER], &party->a));
	if (row & IN_OWN)
		assert_ok(attach_pasid(party, state == BERTS ? &party->b : &party->a));
	if (pictures[state].is_mapped)
		map_live(party, 1);
}

static int make_transition(struct party *party, enum transition transition)
{
	struct dmacore_device *device = party->devices[0];
	struct dmacore_domain *const *domains = party->domains;

	switch (transition) {
	case SET_OTHER:
		return dmacore_domain_attach(domains[OTHER], device);
	case REPLACE_BY_OTHER:
		return dmacore_domain_replace(domains[OTHER], device);
	case CLEAR_FALLBACK:
		return dmacore_domain_detach(domains[FALLBACK], device);
	case USE:
		return dmacore_device_use_default_domain(device);
	case UNUSE:
		return dmacore_device_unuse_default_domain(device);
	case CLAIM_A:
		return dmacore_device_claim_dma_owner(device, &party->a);
	case CLAIM_B:
		return dmacore_device_claim_dma_owner(device, &party->b);
	case RELEASE_A:
		return dmacore_device_release_dma_owner(device, &party->a);
	case RELEASE_B:
		return dmacore_device_release_dma_owner(device, &party->b);
	case ATTACH_OWN_A:
		return dmacore_device_attach(device, domains[OWN], &party->a);
	case ATTACH_OTHER_A:
		return dmacore_device_attach(device, domains[OTHER], &party->a);
	case ATTACH_OWN_B:
		return dmacore_device_attach(device, domains[OWN], &party->b);
	case DETACH_A:
		return dmacore_device_detach(device, &party->a);
	case DETACH_B:
		return dmacore_device_detach(device, &party->b);
	case ATTACH_PASID_A:
		return attach_pasid(party, &party->a);
	case ATTACH_PASID_B:
		return attach_pasid(party, &party->b);
	case REPLACE_PASID_A:
		return replace_pasid(party, &party->a);
	case REPLACE_PASID_B:
		return replace_pasid(party, &party->b);
	case DETACH_PASID_A:
		return dmacore_device_detach_pasid(device, PARTY_PASID, &party->a);
	case DETACH_PASID_B:
		return dmacore_device_detach_pasid(device, PARTY_PASID, &party->b);
	case JOIN:
		return join(party);
	default:
		leave(party, 0);
		return 0;
	}
}

/* Looks whether all that can be seen of the group is as in the picture of a state. */
static void assert_shows(struct party *party, int state)
{
	const struct picture *picture = &pictures[without_pasid(state)];
	static const char *const words[PLACE_COUNT] = {
		[NOWHERE] = "attached to no domain",
		[FALLBACK] = "in a DMA domain",
		[OTHER] = "in a DMA domain",
		[OWN] = "in an unmanaged domain",
	};
	const char *plural = picture->count == 1 ? "" : "s";
	char head[128], text[DMACORE_DESCRIPTION_SIZE];
	unsigned count = 0;

	for (unsigned i = 0; i < party->device_count; i++)
		count += party->devices[i] != NULL;
	switch (picture->holder) {
	case NOBODY:
		snprintf(head, sizeof(head), "free (%u device%s)", count, count == 1 ? "" : "s");
		break;
	case DMA_API:
		snprintf(head, sizeof(head),
			 "in use by the DMA API, %u use%s "
			 "since dmacore_device_use_default_domain(%s)",
			 picture->count, plural, picture->since);
		break;
	default:
		snprintf(head, sizeof(head),
			 "owned by %s (%s), %u claim%s since dmacore_device_claim_dma_owner(%s)",
			 picture->holder == BERT ? "bert" : "anne",
			 picture->holder == ANNE_USER ? "user space" : "a driver", picture->count,
			 plural, picture->since);
		break;
	}
	snprintf(text, sizeof(text), "%s; %s%s%s", head, words[picture->place],
		 place_of_pasid(state) == NOWHERE ? "" : ", 1 PASID in another",
		 picture->is_mapped ? "; 1 live mapping of disk1" : "");
	assert_string_equal(description(party), text);
	assert_int_equal(where(party), picture->place);
	assert_int_equal(where_pasid(party), place_of_pasid(state));
	assert_int_equal(device_statistics(party->devices[1]).mapping_count, picture->is_mapped);
}

static void group__makes_each_transition_or_changes_nothing(void **unused)
{
	static struct party party;

	(void)unused;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		for (enum transition transition = 0; transition < TRANSITION_COUNT; transition++) {
			int state = table[i].state;
			int expected = table[i].outcomes[transition], got;

			party_start(&party, 2);
			bring_into(&party, state);
			assert_shows(&party, state);
			got = make_transition(&party, transition);
			if (got != (expected < 0 ? expected : 0))
				fail_msg("state %d, transition %d gave %d", state, transition, got);
			assert_shows(&party, expected < 0 ? state : expected);
			/* Frozen mapping tables would keep this waiting. */
			if (where(&party) == FALLBACK || where(&party) == OTHER)
				for (unsigned j = 0; j < party.device_count; j++)
					if (party.devices[j] && !party.live[j])
						map_live(&party, j);
			party_stop(&party);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(group__makes_each_transition_or_changes_nothing),
	};

	return run_group("group states", tests);
}
