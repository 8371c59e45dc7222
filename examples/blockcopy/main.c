/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Copies a file through an emulated disk, once with the disk mapped directly and once behind an
 * IOMMU, and then lets the disk and its driver misbehave. The exit status is 0 if all copies are
 * identical and every misbehaviour was stopped, 1 if not, and 2 for wrong arguments.
 */

/* For dladdr(). */
#define _GNU_SOURCE

#include "console.h"
#include "copy.h"
#include "misuse.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static int copy_directly(struct dmacore_system *system, struct job *job)
{
	int error;

	printf("\nDirect path: the device uses physical addresses\n");
	error = machine_create(&job->machine, system, false, job->size);
	if (!error)
		error = copy_to_disk(job);
	if (!error)
		error = copy_from_disk(job);
	if (!error) {
		copy_print_mappings(job);
		error = machine_check_nothing_left(&job->machine);
	}
	machine_destroy(&job->machine);
	return error;
}

/* Says how many misuses were stopped, if all of them were. */
static int copy_through_iommu(struct dmacore_system *system, struct job *job,
			      struct reports *reports, int *out_blocked, int *out_refused)
{
	int error;

	printf("\nIOMMU path: the device uses addresses of its own, below 4 GiB\n");
	error = machine_create(&job->machine, system, true, job->size);
	if (!error)
		error = copy_to_disk(job);
	if (!error)
		error = copy_from_disk(job);
	if (error)
		goto destroy;
	copy_print_mappings(job);

	printf("\nThe device turns rogue\n");
	*out_blocked = misuse_by_device(job->machine.device, job->machine.disk);
	printf("\nThe driver errs\n");
	*out_refused = misuse_by_driver(job->machine.device, reports);
	if (*out_blocked < 0 || *out_refused < 0)
		error = complain(-EPERM, "not every misuse was stopped");

	printf("\nAfter all that, the file from the same disk once more\n");
	if (!error)
		error = copy_from_disk(job);
	if (!error)
		error = machine_check_nothing_left(&job->machine);
destroy:
	machine_destroy(&job->machine);
	return error;
}

static int run(const struct job *what)
{
	struct dmacore_system_options options = DMACORE_SYSTEM_OPTIONS_INIT;
	struct reports reports = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct job direct = *what, translated = *what;
	struct dmacore_system *system;
	char text[REPORT_SIZE];
	int blocked = 0, refused = 0;
	int error;

	options.flags = DMACORE_SYSTEM_FLAT;
	options.report = reports_add;
	options.report_opaque = &reports;
	error = dmacore_system_create(&options, &system);
	if (error)
		return complain(error, "cannot make a system");
	error = copy_directly(system, &direct);
	if (!error)
		error = copy_through_iommu(system, &translated, &reports, &blocked, &refused);
	dmacore_system_destroy(system);

	/* Every refusal was reported once. A report beyond those is news of a leak or worse. */
	if (reports_read(&reports, text) > (unsigned int)refused && refused >= 0)
		error = complain(-EPROTO, "unexpected report: %s", text);
	if (!error)
		printf("\nAll of it held: 3 identical copies, %d accesses blocked, %d unmaps refused.\n",
		       blocked, refused);
	return error;
}

/* The library that this program runs with: a file that is there wherever the program is. */
static const char *library_name(void)
{
	Dl_info info;

	return dladdr((void *)(uintptr_t)dmacore_version, &info) ? info.dli_fname : "";
}

int main(int argc, char **argv)
{
	uint32_t version = dmacore_version();
	const char *keep_name = NULL;
	const char *name;
	struct job job = { 0 };
	int option, error;

	while ((option = getopt(argc, argv, "o:")) == 'o')
		keep_name = optarg;
	if (option != -1 || argc - optind > 1) {
		fprintf(stderr, "usage: blockcopy [-o COPY] [FILE]\n");
		return 2;
	}
	name = optind < argc ? argv[optind] : library_name();
	error = file_open(&job.file, name, &job.size);
	if (!error && keep_name)
		error = file_create(&job.copy, keep_name);
	else if (!error)
		error = file_create_temporary(&job.copy);
	if (error)
		return 1;

	printf("dmacore %u.%u.%u copies %s, ", version >> 16, version >> 8 & 255, version & 255,
	       name);
	print_size(job.size);
	printf(" (%" PRIu64 ")\n", job.size);
	error = run(&job);
	if (error && keep_name)
		unlink(keep_name);
	return error ? 1 : 0;
}
