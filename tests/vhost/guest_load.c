/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In a guest: writes a file or a disk over and over, each time as a whole, in an order that
 * jumps, and says after each fsync() which pass is safe; and reads it back.
 *
 *	guest_load write PATH BLOCKS FIRST LAST [SAY]	passes FIRST to LAST; 0 LAST: for ever
 *	guest_load check PATH BLOCKS FIRST LAST		each block is of a pass from FIRST to LAST
 *
 * Blocks have 4096 bytes.  SAY is a file, a serial port for example, that gets "pass N" lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK		4096u
#define WORDS		(BLOCK / sizeof(uint64_t))
#define STEP		7919u	/* a prime: any order that is not a sequence will do */
#define BATCH		16u	/* blocks a write at most, if they follow each other */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static void block_fill(uint64_t *w, uint64_t block, uint64_t pass)
{
	uint64_t base = mix(block << 20 ^ pass);

	w[0] = block;
	w[1] = pass;
	for (unsigned int i = 2; i < WORDS; i++)
		w[i] = base + i * 0x9e3779b97f4a7c15ULL;
}

static int die(const char *what)
{
	fprintf(stderr, "guest_load: %s: %s\n", what, strerror(errno));
	return 1;
}

static int write_pass(int fd, void *buf, uint64_t groups, uint64_t pass)
{
	for (uint64_t n = 0; n < groups; n++) {
		uint64_t group = n * STEP % groups;

		for (unsigned int i = 0; i < BATCH; i++)
			block_fill((uint64_t *)buf + i * WORDS, group * BATCH + i, pass);
		if (pwrite(fd, buf, BATCH * BLOCK, (off_t)(group * BATCH * BLOCK)) !=
		    BATCH * BLOCK)
			return -1;
	}
	return fsync(fd);
}

static int do_write(const char *path, uint64_t groups, uint64_t first, uint64_t last,
		    const char *say)
{
	int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0644);
	int to = say ? open(say, O_WRONLY | O_NOCTTY) : STDOUT_FILENO;
	void *buf = aligned_alloc(BLOCK, BATCH * BLOCK);

	if (fd < 0 || to < 0 || !buf)
		return die(path);
	for (uint64_t pass = first; !last || pass <= last; pass++) {
		if (write_pass(fd, buf, groups, pass))
			return die(path);
		dprintf(to, "pass %" PRIu64 "\n", pass);
	}
	return close(fd) ? die(path) : 0;
}

static int do_check(const char *path, uint64_t groups, uint64_t first, uint64_t last)
{
	int fd = open(path, O_RDONLY | O_DIRECT);
	uint64_t *buf = aligned_alloc(BLOCK, BATCH * BLOCK), should[WORDS];
	uint64_t newest = 0;

	if (fd < 0 || !buf)
		return die(path);
	for (uint64_t b = 0; b < groups * BATCH; b++) {
		const uint64_t *w = buf + b % BATCH * WORDS;

		if (b % BATCH == 0 && pread(fd, buf, BATCH * BLOCK, (off_t)(b * BLOCK)) !=
				      BATCH * BLOCK)
			return die(path);
		block_fill(should, b, w[1]);
		if (w[1] < first || w[1] > last || memcmp(w, should, BLOCK)) {
			fprintf(stderr, "guest_load: block %" PRIu64 ": found block %" PRIu64
				" of pass %" PRIu64 ", wanted one of %" PRIu64 " to %" PRIu64 "\n",
				b, w[0], w[1], first, last);
			return 1;
		}
		if (w[1] > newest)
			newest = w[1];
	}
	printf("newest %" PRIu64 "\n", newest);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t groups, first, last;

	if (argc < 6) {
		fprintf(stderr, "usage: guest_load write|check PATH BLOCKS FIRST LAST [SAY]\n");
		return 2;
	}
	groups = strtoull(argv[3], NULL, 10) / BATCH;
	first = strtoull(argv[4], NULL, 10);
	last = strtoull(argv[5], NULL, 10);
	if (!groups || groups % STEP == 0) {
		fprintf(stderr, "guest_load: %s blocks will not do\n", argv[3]);
		return 2;
	}
	if (!strcmp(argv[1], "write"))
		return do_write(argv[2], groups, first, last, argc > 6 ? argv[6] : NULL);
	return do_check(argv[2], groups, first, last);
}
