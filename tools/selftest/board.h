/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How hosts that test a LUN meet on it: each has a block of its own and reads the others'.
 *
 * Nothing here needs what is to be tested: a block is written by one host, with plain writes.  Who takes
 * a block that is not used looks after a while whether it is still his, and takes another one if not.
 */
#ifndef LUNFS_TOOLS_SELFTEST_BOARD_H
#define LUNFS_TOOLS_SELFTEST_BOARD_H

#include "tools/selftest/selftest.h"

#define BOARD_SIZE	(SELFTEST_HOSTS_MAX * 4096u)
#define BOARD_VALUES	8u

/* What one host shows of itself: numbers of 64 bits only. */
struct board_entry {
	uint64_t host;			/* random */
	uint64_t beat;
	uint64_t step;
	uint64_t together;		/* of all hosts' numbers, once it sees them; 0 */
	uint64_t hosts;
	uint64_t values[BOARD_VALUES];	/* of the step before */
};

struct board {
	struct blkdev	*dev;
	uint64_t	off;
	unsigned int	hosts;
	unsigned int	rank;		/* 0 leads */
	unsigned int	places[SELFTEST_HOSTS_MAX];	/* by rank */
	uint32_t	wait_ms;
	struct board_entry self;
	struct board_entry others[SELFTEST_HOSTS_MAX];	/* by rank, ourselves too */
	unsigned int	place;
	bool		joined;
	uint8_t		*buf;
};

/**
 * board_join() - waits until b->hosts hosts are there (dev, off, hosts, wait_ms are set).
 * Return: 0; -ETIMEDOUT, -errno with @why.
 */
int board_join(struct board *b, char *why, size_t why_size);

/** board_step() - waits until every host has got here; b->others has their @values then.
 * Return: 0; -ECANCELED one gave up, -ETIMEDOUT, -errno, with @why. */
int board_step(struct board *b, const uint64_t values[BOARD_VALUES], char *why, size_t why_size);

/**
 * board_leave() - frees; who leads waits for the others and wipes all their blocks.
 * @done: false: the others are told that there is no use to go on.
 */
void board_leave(struct board *b, bool done);

#endif
