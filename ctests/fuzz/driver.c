/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Replays inputs through one area without a fuzzer: each file on the command line is one. */

#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

/* libFuzzer makes no longer inputs unless it is told to. */
#define INPUT_SIZE_MAX 4096

int main(int argc, char **argv)
{
	static uint8_t input[INPUT_SIZE_MAX];

	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE...\n", argv[0]);
		return EXIT_FAILURE;
	}
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");

		if (file == NULL) {
			perror(argv[i]);
			return EXIT_FAILURE;
		}
		size_t size = fread(input, 1, sizeof(input), file);

		fclose(file);
		/* Printed first, so that the last line names the input that ends the process. */
		printf("%s: %zu bytes\n", argv[i], size);
		fflush(stdout);
		LLVMFuzzerTestOneInput(input, size);
	}
	return EXIT_SUCCESS;
}
