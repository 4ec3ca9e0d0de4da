/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fuzzer and its two drivers share: libFuzzer (`make fuzz`), and driver.c, which runs the
 * corpus and a fixed number of mutations with any compiler (`make check`).
 */
#ifndef LUNFS_TESTS_FUZZ_H
#define LUNFS_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "base/types.h"

/* The names are libFuzzer's.  The first and the last one are optional. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

/* Unlike assert() it is never compiled out: what parsers must never do. */
#define FUZZ_CHECK(cond)								\
	do {										\
		if (!(cond)) {								\
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #cond); \
			abort();							\
		}									\
	} while (0)

/* The input, from the front; zeros when it is used up. */
struct fuzz_input {
	const uint8_t *p;
	size_t left;
};

static inline size_t fuzz_take(struct fuzz_input *in, void *to, size_t size)
{
	size_t n = size < in->left ? size : in->left;

	memset(to, 0, size);
	if (n)
		memcpy(to, in->p, n);
	in->p += n;
	in->left -= n;
	return n;
}

static inline uint64_t fuzz_number(struct fuzz_input *in, unsigned int bytes)
{
	uint64_t v = 0;
	uint8_t b;

	for (unsigned int i = 0; i < bytes; i++) {
		fuzz_take(in, &b, 1);
		v |= (uint64_t)b << 8 * i;
	}
	return v;
}

/* The rest as a terminated text that ends where the allocation does; free() it. */
static inline char *fuzz_text(struct fuzz_input *in)
{
	size_t n = in->left;
	char *s = malloc(n + 1);

	FUZZ_CHECK(s);
	fuzz_take(in, s, n);
	s[n] = '\0';
	return s;
}

#endif
