/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_FILE_H
#define BLOCKCOPY_FILE_H

/* Files, with errors said on standard error. All functions return 0 or a negated errno value. */

#include <stddef.h>
#include <stdint.h>

struct file {
	const char *name;
	int fd;
};

int file_open(struct file *file, const char *name, uint64_t *out_size);

/* Makes a file of that name, which must not exist, so that nothing is overwritten. */
int file_create(struct file *file, const char *name);

/* Makes a file without a name, which is gone when the program ends, however it ends. */
int file_create_temporary(struct file *file);

/* Reads and writes all of @size bytes. */
int file_read(const struct file *file, void *buffer, size_t size, uint64_t offset);
int file_write(const struct file *file, const void *buffer, size_t size, uint64_t offset);

#endif /* BLOCKCOPY_FILE_H */
