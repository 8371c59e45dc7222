/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the library weighs and what it costs to load. */

#include "bench.h"

#include <dlfcn.h>
#include <stddef.h>
#include <sys/stat.h>

/* A copy, because loading the library that this process already has would do nothing. */
#define COPY "libdmacore-copy.so"

static void run_load(void *context, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		void *library = dlopen(context, RTLD_NOW | RTLD_LOCAL);

		BENCH_CHECK(library != NULL);
		BENCH_CHECK(dlsym(library, "dmacore_version") != NULL);
		BENCH_CHECK(dlclose(library) == 0);
	}
	BENCH_CHECK(dlopen(context, RTLD_NOW | RTLD_NOLOAD) == NULL);
}

void bench_library(void)
{
	struct stat status;

	if (!bench_wants("library."))
		return;
	bench_row("library.load", "ms",
		  bench_time(run_load, (void *)bench_file(COPY), bench_count(200, 2)) / 1e6, NULL,
		  0);
	BENCH_CHECK(stat(bench_file(COPY), &status) == 0);
	bench_row("library.size", "bytes", (double)status.st_size, NULL, 0);
}
