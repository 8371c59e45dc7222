/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "bench.h"

#include <dlfcn.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <time.h>

static struct {
	bool is_tiny;
	unsigned int percent;
	const char *only;
	const char *directory;
	FILE *json;
	unsigned int row_count;
} bench = { .percent = 100, .only = "", .directory = "." };

void bench_check(bool condition, const char *text, const char *file, int line)
{
	if (condition)
		return;
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
	exit(EXIT_FAILURE);
}

uint64_t bench_count(uint64_t count, uint64_t tiny_count)
{
	if (bench.is_tiny)
		return tiny_count;
	return count * bench.percent / 100 + 1;
}

bool bench_wants(const char *name)
{
	size_t name_size = strlen(name), only_size = strlen(bench.only);

	return strncmp(name, bench.only, name_size < only_size ? name_size : only_size) == 0;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

uint64_t bench_clock(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* The time of one operation. */
static double time_once(void (*run)(void *context, uint64_t count), void *context, uint64_t count)
{
	uint64_t start = bench_clock();

	run(context, count);
	return (double)(bench_clock() - start) / (double)count;
}

static double median(double *times, size_t count)
{
	qsort(times, count, sizeof(times[0]), compare);
	return times[count / 2];
}

double bench_time(void (*run)(void *context, uint64_t count), void *context, uint64_t count)
{
	double times[BENCH_RUNS];

	run(context, count);
	for (int i = 0; i < BENCH_RUNS; i++)
		times[i] = time_once(run, context, count);
	return median(times, BENCH_RUNS);
}

static void prepare(const struct bench_run *run)
{
	if (run->prepare != NULL)
		run->prepare(run->context);
}

void bench_time_many_turns(struct bench_run *runs, size_t run_count, size_t turn_count)
{
	double *times = calloc(run_count * turn_count, sizeof(*times));

	BENCH_CHECK(times != NULL);
	for (size_t i = 0; i < run_count; i++)
		if (runs[i].run != NULL) {
			prepare(&runs[i]);
			runs[i].run(runs[i].context, runs[i].count);
		}
	for (size_t turn = 0; turn < turn_count; turn++)
		for (size_t i = 0; i < run_count; i++)
			if (runs[i].run != NULL) {
				prepare(&runs[i]);
				runs[i].run(runs[i].context, runs[i].count / 8);
				times[i * turn_count + turn] =
					time_once(runs[i].run, runs[i].context, runs[i].count);
			}
	for (size_t i = 0; i < run_count; i++)
		runs[i].time = runs[i].run == NULL ? 0 : median(&times[i * turn_count], turn_count);
	free(times);
}

void bench_time_turns(struct bench_run *runs, size_t run_count)
{
	bench_time_many_turns(runs, run_count, BENCH_RUNS);
}

static void print_row(const char *name, const char *unit, double value, const char *peer,
		      double peer_value)
{
	if (bench.row_count == 0)
		printf("%-40s %10s %17s %7s\n", "", "dmacore", "peer", "ratio");
	printf("%-40s %10.5g %s", name, value, unit);
	if (peer != NULL)
		printf("%*s%10.5g %7.3g  %s", 7 - (int)strlen(unit), "", peer_value,
		       value / peer_value, peer);
	printf("\n");
	/* A row is worth seeing when it is there; the table takes a minute. */
	fflush(stdout);
}

static void write_row(const char *name, const char *unit, double value, const char *peer,
		      double peer_value)
{
	fprintf(bench.json, "%s\n  {\"name\": \"%s\", \"unit\": \"%s\", \"value\": %.6g, ",
		bench.row_count == 0 ? "[" : ",", name, unit, value);
	if (peer != NULL)
		fprintf(bench.json, "\"peer\": \"%s\", \"peer_value\": %.6g, \"ratio\": %.4g}",
			peer, peer_value, value / peer_value);
	else
		fprintf(bench.json, "\"peer\": null, \"peer_value\": null, \"ratio\": null}");
}

void bench_row(const char *name, const char *unit, double value, const char *peer,
	       double peer_value)
{
	/* The times of a few calls would only mislead. */
	if (!bench.is_tiny)
		print_row(name, unit, value, peer, peer_value);
	if (bench.json != NULL)
		write_row(name, unit, value, peer, peer_value);
	bench.row_count++;
}

void bench_row_linux(const char *name, const char *unit, double value, double peer_value,
		     double known_value)
{
	bench_row(name, unit, value, peer_value == 0 ? NULL : "Linux 6.1", peer_value);
	if (known_value != 0 && peer_value > 2 * known_value)
		bench_note("does not count: Linux is known to take %.4g %s", known_value, unit);
}

void bench_note(const char *format, ...)
{
	va_list arguments;

	if (bench.is_tiny)
		return;
	printf("    ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

const char *bench_file(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", bench.directory, name);
	return path;
}

/* Stays open, because the peers are used until the process ends. */
static void *peer(const char *library, const char *symbol)
{
	void *handle = bench.is_tiny ? NULL : dlopen(bench_file(library), RTLD_NOW);

	return handle == NULL ? NULL : dlsym(handle, symbol);
}

const struct linux_peer *bench_linux(void)
{
	return peer("liblinux.so", LINUX_PEER);
}

const struct gtree_peer *bench_gtree(void)
{
	return peer("libgtree.so", GTREE_PEER);
}

bool bench_pin(unsigned int index)
{
	static cpu_set_t permitted;
	cpu_set_t one;

	if (CPU_COUNT(&permitted) == 0 && sched_getaffinity(0, sizeof(permitted), &permitted) != 0)
		return false;
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &permitted) && index-- == 0) {
			CPU_SET(cpu, &one);
			return sched_setaffinity(0, sizeof(one), &one) == 0;
		}
	return false;
}

static noreturn void refuse(const char *option)
{
	fprintf(stderr,
		"bench: %s is no option, or has no value; there are\n"
		"  --only NAME     rows whose names start so\n"
		"  --percent N     that much of the time that is usual\n"
		"  --tiny          whether all of them work\n",
		option);
	exit(EXIT_FAILURE);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--tiny") == 0) {
			bench.is_tiny = true;
			continue;
		}
		i++;
		if (value == NULL) {
			refuse(argv[i - 1]);
		} else if (strcmp(argv[i - 1], "--percent") == 0) {
			bench.percent = (unsigned int)strtoul(value, NULL, 10);
		} else if (strcmp(argv[i - 1], "--only") == 0) {
			bench.only = value;
		} else if (strcmp(argv[i - 1], "--directory") == 0) {
			bench.directory = value;
		} else if (strcmp(argv[i - 1], "--json") == 0) {
			bench.json = fopen(value, "w");
			BENCH_CHECK(bench.json != NULL);
		} else {
			refuse(argv[i - 1]);
		}
	}
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	if (!bench_pin(0))
		bench_note("not pinned to a processor");
	bench_mapping();
	bench_group();
	bench_iova();
	bench_pagetable();
	bench_view();
	bench_library();
	if (bench.json != NULL) {
		fprintf(bench.json, "%s]\n", bench.row_count == 0 ? "[" : "\n");
		BENCH_CHECK(fclose(bench.json) == 0);
	}
	if (bench.is_tiny)
		printf("benchmarks: %u rows work\n", bench.row_count);
	return EXIT_SUCCESS;
}
