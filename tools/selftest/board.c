/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/selftest/board.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"

#define BOARD_MAGIC	0x64726f42666e754cull	/* "LunfBord" */
#define BLOCK		4096u
#define POLL_NS		(20 * NSEC_PER_MSEC)
#define CONFLICTS	20u	/* one after the other: each of eight paths may have been told of two */
#define SETTLE_NS	(300 * NSEC_PER_MSEC)	/* for who takes the same place at the same time */
#define SILENT_NS	(3 * NSEC_PER_SEC)
#define STEP_GONE	UINT64_MAX	/* all was done */
#define STEP_FAILED	(UINT64_MAX - 1)

#define WORDS		(sizeof(struct board_entry) / sizeof(uint64_t))

/* Its block: written by its host only, never by compare-and-write. */
struct board_disk {
	le64	magic;
	le64	words[WORDS];	/* struct board_entry */
	le32	crc;		/* of all before it */
};
static_assert(sizeof(struct board_disk) <= 512, "an entry is one sector: never torn");

static uint32_t disk_crc(const struct board_disk *d)
{
	return crc32c(0, d, offsetof(struct board_disk, crc));
}

static void sleep_ns(struct board *b, uint64_t ns)
{
	env_sleep_until(b->dev->env, env_now_ns(b->dev->env) + ns);
}

/*
 * A conflict may be the unit attention that tells of one that is over (REGISTRATIONS PREEMPTED), or of another
 * host's CLEAR; reads meet it as well.  That is told once, by each path.
 */
static int move_block(struct board *b, unsigned int place, bool writes)
{
	uint64_t off = b->off + (uint64_t)place * BLOCK;
	int err = -EBADE;

	for (unsigned int i = 0; i < CONFLICTS && err == -EBADE; i++)
		err = writes ? blkdev_write(b->dev, off, b->buf, BLOCK) :
			       blkdev_read(b->dev, off, b->buf, BLOCK);
	return err;
}

static int show(struct board *b)
{
	struct board_disk *d = (void *)b->buf;
	uint64_t words[WORDS];

	b->self.beat++;
	memset(b->buf, 0, BLOCK);
	d->magic = cpu_to_le64(BOARD_MAGIC);
	memcpy(words, &b->self, sizeof(words));
	for (unsigned int i = 0; i < WORDS; i++)
		d->words[i] = cpu_to_le64(words[i]);
	d->crc = cpu_to_le32(disk_crc(d));
	return move_block(b, b->place, true);
}

/* Nobody's: host 0. */
static int look(struct board *b, unsigned int place, struct board_entry *out)
{
	const struct board_disk *d = (void *)b->buf;
	uint64_t words[WORDS];
	int err = move_block(b, place, false);

	memset(out, 0, sizeof(*out));
	if (err || le64_to_cpu(d->magic) != BOARD_MAGIC || le32_to_cpu(d->crc) != disk_crc(d))
		return err;
	for (unsigned int i = 0; i < WORDS; i++)
		words[i] = le64_to_cpu(d->words[i]);
	memcpy(out, words, sizeof(*out));
	return 0;
}

static int take_place(struct board *b)
{
	struct board_entry e;
	uint32_t random;
	int err;

	for (unsigned int tries = 0; tries < 4 * SELFTEST_HOSTS_MAX; tries++) {
		struct board_entry later;

		env_random(b->dev->env, &random, sizeof(random));
		b->place = random % SELFTEST_HOSTS_MAX;
		err = look(b, b->place, &e);
		if (!err && e.host) {	/* of somebody who beats, or was left behind? */
			sleep_ns(b, SETTLE_NS);
			err = look(b, b->place, &later);
			if (!err && (later.host != e.host || later.beat != e.beat))
				continue;
		}
		if (!err)
			err = show(b);
		sleep_ns(b, SETTLE_NS);
		if (!err)
			err = look(b, b->place, &e);
		if (err || e.host == b->self.host)
			return err;
	}
	return -EBUSY;
}

/* ---- meeting ---- */

struct seen {
	struct board_entry entry;
	uint64_t changed_ns;	/* 0: never, since we look */
};

static int scan(struct board *b, struct seen seen[SELFTEST_HOSTS_MAX])
{
	uint64_t now = env_now_ns(b->dev->env);

	for (unsigned int i = 0; i < SELFTEST_HOSTS_MAX; i++) {
		struct board_entry e;
		int err = look(b, i, &e);

		if (err)
			return err;
		if (seen[i].entry.host == e.host && seen[i].entry.host && seen[i].entry.beat != e.beat)
			seen[i].changed_ns = now;
		else if (seen[i].entry.host != e.host)
			seen[i].changed_ns = 0;
		seen[i].entry = e;
	}
	return 0;
}

static bool is_here(const struct board *b, const struct seen *s, uint64_t now)
{
	return s->entry.host == b->self.host ||
	       (s->entry.host && s->entry.hosts == b->hosts && s->changed_ns &&
		now - s->changed_ns < SILENT_NS);
}

/* Ranks those who are here by their numbers.  Return: how many they are. */
static unsigned int rank(struct board *b, const struct seen seen[SELFTEST_HOSTS_MAX])
{
	uint64_t now = env_now_ns(b->dev->env), together = 0;
	unsigned int n = 0;

	for (unsigned int i = 0; i < SELFTEST_HOSTS_MAX; i++) {
		unsigned int at = n;

		if (!is_here(b, &seen[i], now))
			continue;
		for (; at && seen[b->places[at - 1]].entry.host > seen[i].entry.host; at--)
			b->places[at] = b->places[at - 1];
		b->places[at] = i;
		n++;
		together += seen[i].entry.host;
	}
	for (unsigned int r = 0; r < n; r++)
		if (b->places[r] == b->place)
			b->rank = r;
	b->self.together = n == b->hosts ? together : 0;
	return n;
}

static bool all_agree(const struct board *b, const struct seen seen[SELFTEST_HOSTS_MAX])
{
	for (unsigned int r = 0; r < b->hosts; r++)
		if (seen[b->places[r]].entry.together != b->self.together)
			return false;
	return b->self.together != 0;
}

static int meet(struct board *b, char *why, size_t why_size)
{
	uint64_t deadline_ns = env_now_ns(b->dev->env) + b->wait_ms * NSEC_PER_MSEC;
	struct seen seen[SELFTEST_HOSTS_MAX];
	unsigned int n = 0;
	int err = 0;

	memset(seen, 0, sizeof(seen));
	while (!err && env_now_ns(b->dev->env) < deadline_ns) {
		err = show(b);
		if (!err)
			err = scan(b, seen);
		if (err)
			break;
		n = rank(b, seen);
		b->joined = n == b->hosts && all_agree(b, seen);
		if (b->joined)
			return show(b);
		sleep_ns(b, POLL_NS);
	}
	if (!err)
		err = -ETIMEDOUT;
	if (n > b->hosts)
		snprintf(why, why_size, "more than %u hosts test this LUN", b->hosts);
	else
		snprintf(why, why_size, "%u of %u hosts came; each has to run this with the same number of "
			 "hosts and the same offset", n, b->hosts);
	return err;
}

int board_join(struct board *b, char *why, size_t why_size)
{
	int err;

	b->buf = blkdev_alloc(BLOCK);
	if (!b->buf)
		return -ENOMEM;
	memset(&b->self, 0, sizeof(b->self));
	b->self.hosts = b->hosts;
	while (!b->self.host)
		env_random(b->dev->env, &b->self.host, sizeof(b->self.host));
	b->rank = 0;
	if (b->hosts == 1)
		return 0;
	err = take_place(b);
	if (!err)
		err = meet(b, why, why_size);
	else
		snprintf(why, why_size, "no place on the LUN to meet: %s", strerror(-err));
	return err;
}

/* ---- going on together ---- */

/* Waits until everybody has come to our step; @entries receives what they show then. */
static int wait_for_all(struct board *b, struct board_entry entries[SELFTEST_HOSTS_MAX], char *why,
			size_t why_size)
{
	uint64_t deadline_ns = env_now_ns(b->dev->env) + b->wait_ms * NSEC_PER_MSEC;
	unsigned int r = 0;
	int err = 0;

	while (!err && r < b->hosts) {
		err = show(b);
		if (!err)
			err = look(b, b->places[r], &entries[r]);
		if (!err && entries[r].step == STEP_FAILED && b->places[r] != b->place)
			err = -ECANCELED;
		if (!err && entries[r].step >= b->self.step) {
			r++;
			continue;
		}
		if (!err && env_now_ns(b->dev->env) > deadline_ns)
			err = -ETIMEDOUT;
		sleep_ns(b, POLL_NS / 4);
	}
	if (err)
		snprintf(why, why_size, "host %u of %u does not go on: %s", r + 1, b->hosts,
			 strerror(-err));
	return err;
}

/* Two steps: nobody changes what he shows before everybody has read it. */
int board_step(struct board *b, const uint64_t values[BOARD_VALUES], char *why, size_t why_size)
{
	struct board_entry unused[SELFTEST_HOSTS_MAX];
	int err;

	if (values)
		memcpy(b->self.values, values, sizeof(b->self.values));
	b->others[0] = b->self;
	if (b->hosts == 1)
		return 0;
	b->self.step++;
	err = wait_for_all(b, b->others, why, why_size);
	b->self.step++;
	return err ? err : wait_for_all(b, unused, why, why_size);
}

static void wipe_place(struct board *b, unsigned int place)
{
	memset(b->buf, 0, BLOCK);
	move_block(b, place, true);
}

/*
 * Others may still look whether we have come to the last step: so we are beyond all of them, until
 * the leader, who leaves last, wipes everybody's block.
 */
static void leave_together(struct board *b, bool done)
{
	struct board_entry unused[SELFTEST_HOSTS_MAX];
	char why[100];

	b->self.step = done ? STEP_GONE : STEP_FAILED;
	show(b);
	if (b->rank)
		return;
	if (done)
		wait_for_all(b, unused, why, sizeof(why));
	for (unsigned int r = 0; r < b->hosts; r++)
		wipe_place(b, b->places[r]);
}

void board_leave(struct board *b, bool done)
{
	if (b->buf && b->joined)
		leave_together(b, done);
	else if (b->buf && b->hosts > 1)
		wipe_place(b, b->place);
	free(b->buf);
	b->buf = NULL;
}
