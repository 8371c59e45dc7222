/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support/check.h"

static void version__is_that_of_the_headers(void **state)
{
	(void)state;
	assert_int_equal(dmacore_version(), DMACORE_VERSION);
}

static void version__orders_major_before_minor_before_patch(void **state)
{
	(void)state;
	assert_int_equal(dmacore_version() >> 16, DMACORE_VERSION_MAJOR);
	assert_int_equal(dmacore_version() >> 8 & 0xff, DMACORE_VERSION_MINOR);
	assert_int_equal(dmacore_version() & 0xff, DMACORE_VERSION_PATCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version__is_that_of_the_headers),
		cmocka_unit_test(version__orders_major_before_minor_before_patch),
	};

	return run_group("version", tests);
}
