/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compare-and-write.  Players (threads with a handle each, on one or several hosts) race for one sector.
 *
 * Against each other: each counts its successes and every success adds one to the number in the sector,
 * so a success that overwrote another one makes the number too small.
 *
 * Against writes: one player writes 1, 2, 3 …, each time into the whole sector; the others replace
 * what they find by an image that says on which of these it is based.  Once write n has ended, nothing
 * based on less than n may be found: it would have been compared before the write and written after it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/selftest/internal.h"

#define IMAGE_MAGIC	0x2177614366756eull
#define SECTOR_MAX	4096u
#define FILL		0xa5

struct image {
	le64	magic;
	le64	number;		/* successes so far; of a write: its number */
	le64	base;		/* the write that it is based on */
	le64	player, attempt;	/* make each image unique */
};

struct player {
	struct run	*r;
	struct blkdev	*dev;
	uint64_t	id;
	uint64_t	addr;
	uint64_t	until_ns;
	bool		writes;		/* plain writes, in the second race */
	pthread_t	thread;
	uint8_t		*expected, *desired;
	/* results */
	uint64_t	won, lost, unclear, torn, broken;
	uint64_t	caw_ns, caw_ns_max;
	int		err;
};

static struct image *image_of(uint8_t *sector)
{
	return (struct image *)(void *)sector;
}

static void make_image(const struct player *p, uint8_t *sector, uint64_t number, uint64_t base,
		       uint64_t attempt)
{
	struct image *i = image_of(sector);

	memset(sector, (int)(0x40 + attempt % 64), p->dev->info.sector);
	i->magic = cpu_to_le64(IMAGE_MAGIC);
	i->number = cpu_to_le64(number);
	i->base = cpu_to_le64(base);
	i->player = cpu_to_le64(p->id);
	i->attempt = cpu_to_le64(attempt);
}

/* Every byte of a sector belongs to the same image. */
static bool is_whole(const struct player *p, const uint8_t *sector)
{
	const struct image *i = (const struct image *)(const void *)sector;
	uint8_t fill = (uint8_t)(0x40 + le64_to_cpu(i->attempt) % 64);

	if (le64_to_cpu(i->magic) != IMAGE_MAGIC)
		return false;
	for (uint32_t at = sizeof(*i); at < p->dev->info.sector; at++)
		if (sector[at] != fill)
			return false;
	return true;
}

static int timed_caw(struct player *p)
{
	uint64_t start = now_ns(p->r), ns;
	int err = blkdev_caw(p->dev, p->addr, p->expected, p->desired);

	ns = now_ns(p->r) - start;
	p->caw_ns += ns;
	if (ns > p->caw_ns_max)
		p->caw_ns_max = ns;
	return err;
}

static void one_caw(struct player *p, uint64_t attempt)
{
	struct image *found = image_of(p->expected);
	int err = blkdev_read(p->dev, p->addr, p->expected, p->dev->info.sector);

	if (!err && !is_whole(p, p->expected))
		p->torn++;
	if (!err) {
		make_image(p, p->desired, le64_to_cpu(found->number) + 1, le64_to_cpu(found->base),
			   attempt);
		err = timed_caw(p);
	} else if (err != -EBUSY) {
		p->err = err;
		return;
	}
	if (!err)
		p->won++;
	else if (err == -EILSEQ)
		p->lost++;
	else if (err == -EIO || err == -ETIMEDOUT)
		p->unclear++;
	else if (err != -EBUSY)
		p->err = err;
}

static void one_write(struct player *p, uint64_t attempt)
{
	struct image *found = image_of(p->expected);
	int err;

	make_image(p, p->desired, attempt, attempt, attempt);
	err = blkdev_write(p->dev, p->addr, p->desired, p->dev->info.sector);
	if (!err)
		err = blkdev_read(p->dev, p->addr, p->expected, p->dev->info.sector);
	if (err) {
		p->err = err;
		return;
	}
	p->won++;
	if (!is_whole(p, p->expected))
		p->torn++;
	else if (le64_to_cpu(found->base) < attempt)
		p->broken++;
}

static void *play(void *arg)
{
	struct player *p = arg;

	for (uint64_t attempt = 1; !p->err && now_ns(p->r) < p->until_ns; attempt++) {
		if (p->writes)
			one_write(p, attempt);
		else
			one_caw(p, attempt);
	}
	return NULL;
}

/* ---- a race of all players of this host ---- */

static int init_players(struct run *r, struct player *players)
{
	const struct selftest *t = r->t;

	memset(players, 0, t->dev_count * sizeof(*players));
	for (unsigned int i = 0; i < t->dev_count; i++) {
		struct player *p = &players[i];

		p->r = r;
		p->dev = t->devs[i];
		p->id = (uint64_t)r->board.rank * SELFTEST_PLAYERS_MAX + i;
		p->addr = t->off + AT_CAW;
		p->expected = blkdev_alloc(SECTOR_MAX);
		p->desired = blkdev_alloc(SECTOR_MAX);
		if (!p->expected || !p->desired)
			return -ENOMEM;
	}
	return 0;
}

static void free_players(const struct run *r, struct player *players)
{
	for (unsigned int i = 0; i < r->t->dev_count; i++) {
		free(players[i].expected);
		free(players[i].desired);
	}
}

static int race(struct run *r, struct player *players)
{
	unsigned int n = r->t->dev_count, started = 0;
	int err = 0;

	for (unsigned int i = 0; i < n && !err; i++) {
		players[i].until_ns = now_ns(r) + r->t->race_ms * NSEC_PER_MSEC;
		err = -pthread_create(&players[i].thread, NULL, play, &players[i]);
		started += !err;
	}
	for (unsigned int i = 0; i < started; i++)
		pthread_join(players[i].thread, NULL);
	for (unsigned int i = 0; i < n && !err; i++)
		err = players[i].err;
	if (err)
		snprintf(r->why, r->why_size, "%s: the race ended: %s", r->t->devs[0]->info.name,
			 strerror(-err));
	return err;
}

enum { WON, LOST, UNCLEAR, TORN, BROKEN, NS, NS_MAX };

/* Runs it on all hosts; the sums are in the board's values then. */
static int race_together(struct run *r, struct player *players)
{
	uint64_t v[BOARD_VALUES] = { 0 };
	int err = 0;

	if (r->board.rank == 0) {
		make_image(&players[0], players[0].desired, 0, 0, 0);
		err = blkdev_write(players[0].dev, players[0].addr, players[0].desired,
				   players[0].dev->info.sector);
	}
	if (!err)
		err = board_step(&r->board, NULL, r->why, r->why_size);
	if (!err)
		err = race(r, players);
	for (unsigned int i = 0; i < r->t->dev_count; i++) {
		const struct player *p = &players[i];

		if (!p->writes) {
			v[WON] += p->won;
			v[LOST] += p->lost;
			v[NS] += p->caw_ns;
			v[NS_MAX] = p->caw_ns_max > v[NS_MAX] ? p->caw_ns_max : v[NS_MAX];
		}
		v[UNCLEAR] += p->unclear;
		v[TORN] += p->torn;
		v[BROKEN] += p->broken;
	}
	return err ? err : board_step(&r->board, v, r->why, r->why_size);
}

static void race_figures(struct run *r, struct selftest_property *p)
{
	uint64_t won = sum_values(r, WON), lost = sum_values(r, LOST), max = 0;

	for (unsigned int i = 0; i < r->board.hosts; i++)
		if (r->board.others[i].values[NS_MAX] > max)
			max = r->board.others[i].values[NS_MAX];
	figure(p, "succeeded", (double)won);
	figure(p, "miscompared", (double)lost);
	if (won + lost)
		figure(p, "mean_ms", (double)sum_values(r, NS) / (double)(won + lost) / 1e6);
	figure(p, "longest_ms", (double)max / 1e6);
}

/* ---- against each other ---- */

static void judge_caw_caw(struct run *r, struct selftest_property *p, const struct player *reader)
{
	const struct image *i = (const struct image *)(const void *)reader->expected;
	uint64_t number = le64_to_cpu(i->number), won = sum_values(r, WON);
	uint64_t unclear = sum_values(r, UNCLEAR), torn = sum_values(r, TORN);

	race_figures(r, p);
	if (torn)
		verdict(p, SELFTEST_FAIL, "a sector was read of which a part was old: %llu times",
			(unsigned long long)torn);
	else if (number < won)
		verdict(p, SELFTEST_FAIL, "%llu of %llu successes were overwritten by others that had "
			"compared with what was there before: two hosts could hold one lock",
			(unsigned long long)(won - number), (unsigned long long)won);
	else if (number > won + unclear)
		verdict(p, SELFTEST_FAIL, "%llu more were written than succeeded",
			(unsigned long long)(number - won - unclear));
	else if (!sum_values(r, LOST))
		verdict(p, SELFTEST_PASS, "%llu succeeded; none miscompared, so they hardly met",
			(unsigned long long)won);
	else
		verdict(p, SELFTEST_PASS, "%llu succeeded and each of them counts",
			(unsigned long long)won);
}

int test_caw_caw(struct run *r)
{
	struct player players[SELFTEST_PLAYERS_MAX];
	int err = init_players(r, players);

	if (!err)
		err = race_together(r, players);
	if (!err)
		err = blkdev_read(players[0].dev, players[0].addr, players[0].expected,
				  players[0].dev->info.sector);
	if (!err)
		judge_caw_caw(r, &r->t->properties[SELFTEST_CAW_CAW], &players[0]);
	free_players(r, players);
	return err;
}

/* ---- against writes ---- */

int test_caw_write(struct run *r)
{
	struct selftest_property *p = &r->t->properties[SELFTEST_CAW_WRITE];
	struct player players[SELFTEST_PLAYERS_MAX];
	int err = init_players(r, players);

	players[0].writes = r->board.rank == 0;
	if (!err)
		err = race_together(r, players);
	free_players(r, players);
	if (err)
		return err;
	race_figures(r, p);
	figure(p, "overwritten", (double)sum_values(r, BROKEN));
	if (sum_values(r, TORN))
		verdict(p, SELFTEST_FAIL, "a sector was read of which a part was old");
	else if (sum_values(r, BROKEN))
		verdict(p, SELFTEST_WEAK, "%llu writes that had ended were overwritten by a "
			"compare-and-write that had compared before; LunFS never writes what it compares",
			(unsigned long long)sum_values(r, BROKEN));
	else
		verdict(p, SELFTEST_PASS, "no write was lost to one that had compared before it");
	return 0;
}

/* ---- alone ---- */

static bool same(const uint8_t *block, uint32_t from, uint32_t to, int byte)
{
	for (uint32_t i = from; i < to; i++)
		if (block[i] != byte)
			return false;
	return true;
}

static const char *judge_caw(struct blkdev *dev, uint64_t addr, uint8_t *block, uint8_t *old,
			     uint8_t *new, int *err)
{
	uint32_t n = dev->info.sector;

	memset(block, FILL, SECTOR_MAX);
	memset(old, FILL, n);
	memset(new, 0x11, n);
	*err = blkdev_write(dev, addr, block, SECTOR_MAX);
	if (!*err)
		*err = blkdev_caw(dev, addr, old, new);
	if (*err)
		return *err == -EILSEQ ? "it miscompares with what was just written" : NULL;
	*err = blkdev_read(dev, addr, block, SECTOR_MAX);
	if (*err)
		return NULL;
	if (!same(block, 0, n, 0x11))
		return "it succeeded and did not write";
	if (!same(block, n, SECTOR_MAX, FILL))
		return "it wrote beyond its sector";
	/* A difference in the last byte only. */
	memset(old, 0x11, n);
	old[n - 1] ^= 1;
	memset(new, 0x22, n);
	*err = blkdev_caw(dev, addr, old, new);
	if (!*err)
		return "it succeeded although the last byte differed";
	if (*err != -EILSEQ)
		return NULL;
	*err = blkdev_read(dev, addr, block, SECTOR_MAX);
	return *err || same(block, 0, n, 0x11) ? NULL : "it miscompared and wrote all the same";
}

int test_caw(struct run *r)
{
	struct selftest_property *p = &r->t->properties[SELFTEST_CAW];
	uint8_t block[SECTOR_MAX] BLKDEV_ALIGNED, old[SECTOR_MAX] BLKDEV_ALIGNED;
	uint8_t new[SECTOR_MAX] BLKDEV_ALIGNED;
	const char *wrong = NULL;
	uint64_t start = now_ns(r);
	int err = 0;

	if (r->board.rank == 0)
		wrong = judge_caw(r->t->devs[0], r->t->off + AT_CAW, block, old, new, &err);
	if (wrong)
		verdict(p, SELFTEST_FAIL, "%s", wrong);
	else if (!err)
		verdict(p, SELFTEST_PASS, r->board.rank ? "tried by another host" :
			"compares a whole sector, writes it, and nothing else");
	if (r->board.rank == 0)
		figure(p, "took_ms", (double)(now_ns(r) - start) / 1e6);
	if (!wrong && err)
		snprintf(r->why, r->why_size, "%s: compare-and-write: %s", r->t->devs[0]->info.name,
			 strerror(-err));
	return wrong ? 0 : err;
}
