/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/selftest/selftest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/selftest/internal.h"

static const struct {
	const char *name, *progress;
	int (*test)(struct run *r);
} tests[SELFTEST_PROPERTIES] = {
	[SELFTEST_CAW] = { "caw", "compare-and-write", test_caw },
	[SELFTEST_CAW_CAW] = { "caw-against-caw", "compare-and-writes against each other",
			       test_caw_caw },
	[SELFTEST_CAW_WRITE] = { "caw-against-write", "compare-and-writes against writes",
				 test_caw_write },
	[SELFTEST_FENCE] = { "fencing", "reservations against queued writes", test_fence },
	[SELFTEST_FLUSH] = { "flush", "flush and FUA", test_flush },
	[SELFTEST_UNMAP] = { "unmap", "unmap and zeroing", test_unmap },
};

void verdict(struct selftest_property *p, enum selftest_verdict v, const char *fmt, ...)
{
	va_list ap;

	p->verdict = v;
	va_start(ap, fmt);
	vsnprintf(p->text, sizeof(p->text), fmt, ap);
	va_end(ap);
}

void figure(struct selftest_property *p, const char *name, double value)
{
	assert(p->count < ARRAY_SIZE(p->figures));
	p->figures[p->count++] = (struct selftest_figure){ name, value };
}

uint64_t sum_values(const struct run *r, unsigned int index)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < r->board.hosts; i++)
		sum += r->board.others[i].values[index];
	return sum;
}

const char *selftest_verdict_name(enum selftest_verdict verdict)
{
	static const char *const names[] = { "skipped", "pass", "weak", "FAIL" };

	return names[verdict];
}

bool selftest_failed(const struct selftest *t)
{
	for (unsigned int i = 0; i < SELFTEST_PROPERTIES; i++)
		if (t->properties[i].verdict == SELFTEST_FAIL)
			return true;
	return false;
}

static unsigned int last_test(const struct selftest *t)
{
	return t->flags & SELFTEST_QUICK ? SELFTEST_CAW_CAW :
	       t->flags & SELFTEST_CAW_ONLY ? SELFTEST_CAW_WRITE : SELFTEST_PROPERTIES - 1;
}

/* Blocks that nobody mistakes for anything. */
static int wipe(struct run *r)
{
	uint64_t size = last_test(r->t) <= SELFTEST_CAW_WRITE ? SELFTEST_CAW_AREA : SELFTEST_AREA;
	uint8_t zeros[SELFTEST_CAW_AREA] BLKDEV_ALIGNED = { 0 };
	int err = 0;

	/* The board is its hosts' own. */
	for (uint64_t at = 0; !err && at < size; at += sizeof(zeros))
		if (at < AT_BOARD || at >= AT_BOARD + BOARD_SIZE)
			err = blkdev_write(r->t->devs[0], r->t->off + at, zeros, sizeof(zeros));
	return err;
}

static int run_tests(struct run *r)
{
	unsigned int last = last_test(r->t);
	int err = 0;

	for (unsigned int i = 0; !err && i <= last; i++) {
		if (r->t->progress)
			r->t->progress(r->t->arg, tests[i].progress);
		err = tests[i].test(r);
		/* Together from one to the next, for the area is the same. */
		if (!err)
			err = board_step(&r->board, NULL, r->why, r->why_size);
	}
	return err;
}

int selftest_run(struct selftest *t, char *why, size_t why_size)
{
	struct run r = { .t = t, .why = why, .why_size = why_size };
	int err, wiped;

	assert(t->dev_count >= 1 && t->dev_count <= SELFTEST_PLAYERS_MAX);
	assert(t->hosts >= 1 && t->hosts <= SELFTEST_HOSTS_MAX);
	why[0] = '\0';
	for (unsigned int i = 0; i < SELFTEST_PROPERTIES; i++) {
		t->properties[i] = (struct selftest_property){ .name = tests[i].name };
		verdict(&t->properties[i], SELFTEST_SKIPPED, i > last_test(t) && t->flags & SELFTEST_CAW_ONLY ?
			"not on a volume, whose data it would overwrite" : "not tried");
	}
	r.board = (struct board){ .dev = t->devs[0], .off = t->off + AT_BOARD, .hosts = t->hosts,
				  .wait_ms = t->wait_ms };
	if (t->progress && t->hosts > 1)
		t->progress(t->arg, "waiting for the other hosts");
	err = board_join(&r.board, why, why_size);
	if (!err)
		err = run_tests(&r);
	if (r.board.rank == 0) {
		wiped = wipe(&r);
		err = err ? err : wiped;
	}
	board_leave(&r.board, !err);
	if (err && !why[0])
		snprintf(why, why_size, "%s: %s", t->devs[0]->info.name, strerror(-err));
	return err;
}
