/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef BLOCKCOPY_CONSOLE_H
#define BLOCKCOPY_CONSOLE_H

/* What a person sees. */

#include <stdint.h>

/* Says on standard error what went wrong and why; returns @error, a negated errno value. */
__attribute__((format(printf, 2, 3))) int complain(int error, const char *format, ...);

/* Prints a label and leaves the cursor where its value goes. */
void print_label(const char *text);

/* Prints bytes in the unit that suits them. */
void print_size(double size);

/* Prints "1 apple" or "2 apples". */
void print_count(uint64_t count, const char *noun);

/*
 * Shows how far something long is that has gone from byte @before to byte @now of @size: on a
 * terminal in a line that rewrites itself, otherwise in a line for each quarter.
 */
void print_progress(const char *doing, uint64_t before, uint64_t now, uint64_t size);

#endif /* BLOCKCOPY_CONSOLE_H */
