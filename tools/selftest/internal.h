/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the selftest share. */
#ifndef LUNFS_TOOLS_SELFTEST_INTERNAL_H
#define LUNFS_TOOLS_SELFTEST_INTERNAL_H

#include "tools/selftest/board.h"

/* Within the area. */
#define AT_CAW		0u			/* SELFTEST_CAW_ONLY has nothing else */
#define AT_BOARD	(64u * 1024)
#define AT_FENCE	(256u * 1024)
#define FENCE_SIZE	(512u * 1024)
#define AT_UNMAP	(1024u * 1024)
#define UNMAP_SIZE	(1024u * 1024)

struct run {
	struct selftest	*t;
	struct board	board;
	char		*why;
	size_t		why_size;
};

/** verdict() - the outcome of one property, as printf(). */
__attribute__((format(printf, 3, 4)))
void verdict(struct selftest_property *p, enum selftest_verdict v, const char *fmt, ...);

/** figure() - adds one. */
void figure(struct selftest_property *p, const char *name, double value);

/** sum_values() - of what all hosts have shown. */
uint64_t sum_values(const struct run *r, unsigned int index);

static inline uint64_t now_ns(const struct run *r)
{
	return env_now_ns(r->t->env);
}

/*
 * Each: one property, all hosts together.  Return: 0 whatever came out; -errno the test itself could
 * not go on, with r->why.
 */
int test_caw(struct run *r);
int test_caw_caw(struct run *r);
int test_caw_write(struct run *r);
int test_fence(struct run *r);
int test_flush(struct run *r);
int test_unmap(struct run *r);

#endif
