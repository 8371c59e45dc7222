/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "console.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Smaller files are copied before one could read about progress. */
#define PROGRESS_SIZE_MIN (64 << 20)

int complain(int error, const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	fputs("blockcopy: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, ": %s\n", strerror(-error));
	return error;
}

void print_label(const char *text)
{
	printf("  %-22s", text);
}

void print_size(double size)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	size_t unit = 0;

	while (size >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		size /= 1024;
		unit++;
	}
	printf("%.*f %s", unit > 0 && size < 100, size, size == 1 ? "byte" : units[unit]);
}

void print_count(uint64_t count, const char *noun)
{
	printf("%" PRIu64 " %s%s", count, noun, count == 1 ? "" : "s");
}

void print_progress(const char *doing, uint64_t before, uint64_t now, uint64_t size)
{
	bool is_terminal = isatty(STDOUT_FILENO);
	uint64_t steps = is_terminal ? 100 : 4;

	if (size < PROGRESS_SIZE_MIN || before * steps / size == now * steps / size)
		return;
	if (is_terminal)
		printf("\r\033[K");
	if (!is_terminal || now < size) {
		print_label(doing);
		printf("%3u %%", (unsigned int)(100 * now / size));
	}
	if (!is_terminal)
		printf("\n");
	fflush(stdout);
}
