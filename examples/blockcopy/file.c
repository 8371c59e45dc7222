/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#include "file.h"

#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int file_open(struct file *file, const char *name, uint64_t *out_size)
{
	struct stat status;
	int error = 0;

	file->name = name;
	file->fd = open(name, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0 || fstat(file->fd, &status) != 0)
		error = -errno;
	else if (!S_ISREG(status.st_mode))
		error = S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
	if (error)
		return complain(error, "cannot copy %s", name);
	*out_size = status.st_size;
	return 0;
}

int file_create(struct file *file, const char *name)
{
	file->name = name;
	file->fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	return file->fd < 0 ? complain(-errno, "cannot create %s", name) : 0;
}

int file_create_temporary(struct file *file)
{
	const char *directory = getenv("TMPDIR");
	char name[PATH_MAX];

	if (!directory || !*directory)
		directory = "/tmp";
	snprintf(name, sizeof(name), "%s/blockcopy-XXXXXX", directory);
	file->name = "a temporary file";
	file->fd = mkstemp(name);
	if (file->fd < 0)
		return complain(-errno, "cannot create a file in %s", directory);
	unlink(name);
	return 0;
}

int file_read(const struct file *file, void *buffer, size_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t got = pread(file->fd, buffer, size, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return complain(-errno, "cannot read %s", file->name);
		if (got == 0)
			return complain(-ESTALE, "%s has become shorter", file->name);
		buffer = (uint8_t *)buffer + got;
		offset += got;
		size -= got;
	}
	return 0;
}

int file_write(const struct file *file, const void *buffer, size_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t put = pwrite(file->fd, buffer, size, offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return complain(-errno, "cannot write %s", file->name);
		buffer = (const uint8_t *)buffer + put;
		offset += put;
		size -= put;
	}
	return 0;
}
