/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a LUN keeps what LunFS rests on: compare-and-write that is atomic, reservations that
 * fence, flush and unmap that do what they say.  Run by one host, or by several at once that meet
 * on the LUN itself (board.c).  A pass is evidence, a failure is proof.
 */
#ifndef LUNFS_TOOLS_SELFTEST_H
#define LUNFS_TOOLS_SELFTEST_H

#include "block/blkdev.h"

#define SELFTEST_AREA		(2 * MIB)	/* what the whole test writes to */
#define SELFTEST_CAW_AREA	4096u		/* what SELFTEST_CAW_ONLY does */
#define SELFTEST_PLAYERS_MAX	8u		/* handles of one host */
#define SELFTEST_HOSTS_MAX	16u

enum selftest_verdict {
	SELFTEST_SKIPPED,	/* could not be tried; text says why */
	SELFTEST_PASS,
	SELFTEST_WEAK,		/* disproved, and LunFS does not rest on it */
	SELFTEST_FAIL,		/* disproved */
};

struct selftest_figure {
	const char *name;	/* with its unit at the end */
	double	value;
};

struct selftest_property {
	const char *name;	/* "caw-against-caw" */
	enum selftest_verdict verdict;
	char	text[200];
	unsigned int count;
	struct selftest_figure figures[6];
};

enum selftest_property_index {
	SELFTEST_CAW,		/* it compares, writes, and touches nothing else */
	SELFTEST_CAW_CAW,	/* atomic against other compare-and-writes */
	SELFTEST_CAW_WRITE,	/* and against writes */
	SELFTEST_FENCE,		/* a preempted host's writes do not land */
	SELFTEST_FLUSH,
	SELFTEST_UNMAP,
	SELFTEST_PROPERTIES
};

enum selftest_flags {
	SELFTEST_CAW_ONLY	= 1 << 0,	/* the first three, within SELFTEST_CAW_AREA */
	SELFTEST_QUICK		= 1 << 1,	/* the first two, as mkfs.lunfs does always */
};

struct selftest {
	struct env	*env;
	struct blkdev	*devs[SELFTEST_PLAYERS_MAX];	/* of one LUN, at least two; borrowed */
	unsigned int	dev_count;
	unsigned int	hosts;		/* that run it at once, this one included */
	unsigned int	flags;		/* enum selftest_flags */
	uint64_t	off;		/* of the area on the LUN */
	uint32_t	race_ms;	/* of each race */
	uint32_t	wait_ms;	/* for the other hosts */
	void		(*progress)(void *arg, const char *what);	/* may be NULL */
	void		*arg;
	/* results */
	struct selftest_property properties[SELFTEST_PROPERTIES];
};

/**
 * selftest_run() - tries everything; what was found stands in @t->properties.
 * @why: receives one line if the test itself could not be carried out.
 *
 * The area is overwritten, and zeros at the end.  With persistent reservations every registration of
 * the LUN is cleared, but not with SELFTEST_CAW_ONLY or SELFTEST_QUICK.
 * Return: 0 even if properties failed; -ETIMEDOUT another host did not come or went; -EIO, …
 */
int selftest_run(struct selftest *t, char *why, size_t why_size);

/** selftest_failed() - whether anything that LunFS rests on was disproved. */
bool selftest_failed(const struct selftest *t);

/** selftest_verdict_name() - "pass". */
const char *selftest_verdict_name(enum selftest_verdict verdict);

#endif
