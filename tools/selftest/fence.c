/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fencing: the victim has writes queued while the other one takes its key away.  When PREEMPT AND ABORT
 * has answered, none of them may land any more: the area is read then, and again later, and has to be the
 * same; and the victim has to be told (RESERVATION CONFLICT).
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lockd/lockd.h"
#include "tools/selftest/internal.h"

#define ROUNDS		5u
#define CONFLICTS	4u
#define DEPTH		32u		/* writes of the victim under way */
#define WRITE_SIZE	4096u
#define BLOCKS		(FENCE_SIZE / WRITE_SIZE)
#define RUN_MS		300u		/* before it is preempted, at most */
#define LATER_MS	400u		/* for what may still land, at most */
#define LOOK_NS		(5 * NSEC_PER_MSEC)
#define VICTIM_NS	(3 * NSEC_PER_SEC)	/* that it goes on beyond these */

struct victim;

/* One of the writes that the victim has under way; resubmitted as it completes. */
struct lane {
	struct blk_io	io;
	struct iovec	iov;
	struct victim	*v;
	uint8_t		*buf;
};

struct victim {
	struct run	*r;
	struct blkdev	*dev;
	struct lane	lanes[DEPTH];
	pthread_mutex_t	mutex;
	pthread_cond_t	changed;
	uint64_t	until_ns;
	uint64_t	next;		/* its stamp */
	unsigned int	under_way;
	uint64_t	done, conflicts, others;
	bool		went_on;	/* until its time was over */
};

/* mutex held. */
static void lane_prepare(struct victim *v, struct lane *lane)
{
	uint64_t stamp = v->next++;

	for (uint32_t at = 0; at < WRITE_SIZE; at += sizeof(stamp))
		memcpy(lane->buf + at, &stamp, sizeof(stamp));
	lane->io.off = v->r->t->off + AT_FENCE + stamp % BLOCKS * WRITE_SIZE;
	v->under_way++;
}

static void lane_done(struct blk_io *io, int err)
{
	struct lane *lane = io->arg;
	struct victim *v = lane->v;
	bool again = false;

	pthread_mutex_lock(&v->mutex);
	v->under_way--;
	v->done += !err;
	v->conflicts += err == -EBADE;
	v->others += err && err != -EBADE;
	if (!err) {
		again = now_ns(v->r) < v->until_ns;
		v->went_on = v->went_on || !again;
	}
	if (again)
		lane_prepare(v, lane);
	pthread_cond_signal(&v->changed);
	pthread_mutex_unlock(&v->mutex);
	if (again)
		blkdev_submit(v->dev, &io, 1);
}

static int victim_init(struct victim *v, struct run *r, struct blkdev *dev)
{
	memset(v, 0, sizeof(*v));
	v->r = r;
	v->dev = dev;
	v->next = 1;
	pthread_mutex_init(&v->mutex, NULL);
	pthread_cond_init(&v->changed, NULL);
	for (unsigned int i = 0; i < DEPTH; i++) {
		struct lane *lane = &v->lanes[i];

		lane->v = v;
		lane->buf = blkdev_alloc(WRITE_SIZE);
		if (!lane->buf)
			return -ENOMEM;
		lane->iov = (struct iovec){ lane->buf, WRITE_SIZE };
		lane->io = (struct blk_io){ .op = BLK_WRITE, .len = WRITE_SIZE, .iov = &lane->iov,
					    .iovcnt = 1, .done = lane_done, .arg = lane };
	}
	return 0;
}

static void victim_fini(struct victim *v)
{
	for (unsigned int i = 0; i < DEPTH; i++)
		free(v->lanes[i].buf);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->mutex);
}

static uint64_t part_ns(const struct run *r, uint32_t ms)
{
	return (r->t->race_ms < ms ? r->t->race_ms : ms) * NSEC_PER_MSEC;
}

static void victim_start(struct victim *v)
{
	pthread_mutex_lock(&v->mutex);
	v->until_ns = now_ns(v->r) + part_ns(v->r, RUN_MS) + part_ns(v->r, LATER_MS) + VICTIM_NS;
	v->done = v->conflicts = v->others = 0;
	v->went_on = false;
	pthread_mutex_unlock(&v->mutex);
	for (unsigned int i = 0; i < DEPTH; i++) {
		struct blk_io *io = &v->lanes[i].io;

		pthread_mutex_lock(&v->mutex);
		lane_prepare(v, &v->lanes[i]);
		pthread_mutex_unlock(&v->mutex);
		blkdev_submit(v->dev, &io, 1);
	}
}

/* @now: no use to go on. */
static void victim_wait(struct victim *v, bool now)
{
	pthread_mutex_lock(&v->mutex);
	if (now)
		v->until_ns = 0;
	while (v->under_way)
		pthread_cond_wait(&v->changed, &v->mutex);
	pthread_mutex_unlock(&v->mutex);
}

/* ---- the two of them ---- */

enum { IS_TRIED, ROUND_DONE, ROUND_CONFLICTS, ROUND_OTHERS, WENT_ON, LANDED, PREEMPT_NS };

struct fence {
	struct run	*r;
	struct blkdev	*fencer, *target;	/* NULL: it is another host's */
	struct victim	v;
	uint8_t		*first, *second;
	uint64_t	key, victim_key;
	uint64_t	done, landed, ns, ns_max;
	bool		silent;
};

/* A conflict may be the unit attention that tells of the preempt that was: that is told once. */
static int register_again(struct blkdev *dev, uint64_t key)
{
	int err = -EBADE;

	for (unsigned int i = 0; i < CONFLICTS && err == -EBADE; i++)
		err = dev->ops->pr_register(dev, 0, key);
	return err;
}

/*
 * Under the reservation nobody shows anything on the board who is not registered: all hosts are, the
 * victim again when its writes have ended.
 */
static int register_all(struct fence *f, uint64_t v[BOARD_VALUES])
{
	struct run *r = f->r;
	struct blkdev *dev = r->t->devs[0];
	uint64_t key = r->board.rank == 0 ? f->key : r->board.rank == 1 ? f->victim_key :
		       fence_tool_key(r->board.rank + 2);
	int err = register_again(dev, key);

	/* Handles that are one initiator to the LUN are registered both by now. */
	if (!err && f->fencer && f->target)
		v[IS_TRIED] = register_again(f->target, f->victim_key) != 0;
	return err;
}

static int begin(struct fence *f, bool *tried)
{
	struct run *r = f->r;
	uint64_t v[BOARD_VALUES] = { 0 };
	int err = 0;

	if (f->fencer)
		err = f->fencer->ops->pr_clear(f->fencer, f->key);
	if (!err)
		err = board_step(&r->board, NULL, r->why, r->why_size);
	if (!err)
		err = register_all(f, v);
	if (!err)
		err = board_step(&r->board, v, r->why, r->why_size);
	*tried = !sum_values(r, IS_TRIED);
	if (!err && *tried && f->fencer)
		err = f->fencer->ops->pr_reserve(f->fencer, f->key);
	if (!err)
		err = board_step(&r->board, v, r->why, r->why_size);
	if (err && !r->why[0])
		snprintf(r->why, r->why_size, "registering and reserving: %s", strerror(-err));
	return err;
}

static int read_area(struct fence *f, uint8_t *buf)
{
	return blkdev_read(f->fencer, f->r->t->off + AT_FENCE, buf, FENCE_SIZE);
}

/*
 * Until another host writes, which has left the board then, however late.  Preempted before, it could
 * not show any more that it goes on.  @f->first: what the area held before.
 */
static int wait_for_writes(struct fence *f)
{
	struct run *r = f->r;
	uint64_t deadline_ns = now_ns(r) + r->board.wait_ms * NSEC_PER_MSEC;
	int err = 0;

	while (!err && r->board.hosts > 1 && now_ns(r) < deadline_ns) {
		err = read_area(f, f->second);
		if (memcmp(f->first, f->second, FENCE_SIZE) != 0)
			break;
		env_sleep_until(r->t->env, now_ns(r) + LOOK_NS);
	}
	return err;
}

/* The fencer's part while the victim writes. */
static int fence_now(struct fence *f, uint64_t v[BOARD_VALUES])
{
	struct env *env = f->r->t->env;
	uint64_t start;
	int err = wait_for_writes(f);

	env_sleep_until(env, now_ns(f->r) + part_ns(f->r, RUN_MS));
	start = now_ns(f->r);
	if (!err)
		err = f->fencer->ops->pr_preempt_abort(f->fencer, f->key, f->victim_key);
	v[PREEMPT_NS] = now_ns(f->r) - start;
	if (!err)
		err = read_area(f, f->first);
	env_sleep_until(env, now_ns(f->r) + part_ns(f->r, LATER_MS));
	if (!err)
		err = read_area(f, f->second);
	for (unsigned int i = 0; !err && i < BLOCKS; i++)
		v[LANDED] += memcmp(f->first + i * WRITE_SIZE, f->second + i * WRITE_SIZE,
				    WRITE_SIZE) != 0;
	if (err)
		snprintf(f->r->why, f->r->why_size, "preempting and reading: %s", strerror(-err));
	return err;
}

static int one_round(struct fence *f)
{
	struct run *r = f->r;
	uint64_t v[BOARD_VALUES] = { 0 };
	int err = f->fencer ? read_area(f, f->first) : 0;

	if (!err)
		err = board_step(&r->board, v, r->why, r->why_size);
	if (!err && f->target)
		victim_start(&f->v);
	if (!err && f->fencer)
		err = fence_now(f, v);
	if (f->target) {
		victim_wait(&f->v, err || v[LANDED]);
		v[ROUND_DONE] = f->v.done;
		v[ROUND_CONFLICTS] = f->v.conflicts;
		v[ROUND_OTHERS] = f->v.others;
		v[WENT_ON] = f->v.went_on;
		/* Refused if it was never thrown out, as is found out then. */
		register_again(f->target, f->victim_key);
	}
	if (!err)
		err = board_step(&r->board, v, r->why, r->why_size);
	if (err)
		return err;
	f->done += sum_values(r, ROUND_DONE);
	f->landed += sum_values(r, LANDED);
	f->silent = f->silent || sum_values(r, WENT_ON) || !sum_values(r, ROUND_CONFLICTS);
	f->ns += sum_values(r, PREEMPT_NS);
	if (sum_values(r, PREEMPT_NS) > f->ns_max)
		f->ns_max = sum_values(r, PREEMPT_NS);
	return 0;
}

static void judge(struct fence *f, struct selftest_property *p, unsigned int rounds)
{
	figure(p, "rounds", rounds);
	figure(p, "writes_before", (double)f->done);
	figure(p, "landed_late", (double)f->landed);
	figure(p, "abort_mean_ms", (double)f->ns / rounds / 1e6);
	figure(p, "abort_longest_ms", (double)f->ns_max / 1e6);
	if (f->landed)
		verdict(p, SELFTEST_FAIL, "%llu writes of a preempted host landed after PREEMPT AND ABORT "
			"had answered: what takes over would be overwritten",
			(unsigned long long)f->landed);
	else if (f->silent)
		verdict(p, SELFTEST_FAIL, "a preempted host went on writing without a conflict");
	else
		verdict(p, SELFTEST_PASS, "%u times, with %u writes queued: none landed after it", rounds,
			DEPTH);
}

static int run_rounds(struct fence *f, struct selftest_property *p)
{
	unsigned int n = 0;
	bool tried;
	int err = begin(f, &tried);

	if (!err && !tried) {
		verdict(p, SELFTEST_SKIPPED, "all handles here are one initiator to the LUN: run it on two "
			"hosts");
		return 0;
	}
	while (!err && n < ROUNDS && !f->landed && !f->silent) {
		err = one_round(f);
		n++;
	}
	if (!err)
		judge(f, p, n);
	return err;
}

static int fence_init(struct fence *f, struct run *r)
{
	const struct selftest *t = r->t;
	bool alone = r->board.hosts == 1;

	memset(f, 0, sizeof(*f));
	f->r = r;
	if (r->board.rank == 0)
		f->fencer = t->devs[0];
	if (alone)
		f->target = t->devs[1];
	else if (r->board.rank == 1)
		f->target = t->devs[0];
	f->key = fence_tool_key(1);
	f->victim_key = fence_tool_key(2);
	f->first = blkdev_alloc(FENCE_SIZE);
	f->second = blkdev_alloc(FENCE_SIZE);
	if (!f->first || !f->second)
		return -ENOMEM;
	return f->target ? victim_init(&f->v, r, f->target) : 0;
}

/*
 * Nobody is registered any more.  Each path of each handle is told that once, whatever it sends next; the
 * tests that follow are not to take it for a conflict.
 */
static int end(struct fence *f)
{
	const struct selftest *t = f->r->t;
	int err = board_step(&f->r->board, NULL, f->r->why, f->r->why_size);

	for (unsigned int n = 0; n < CONFLICTS; n++)
		for (unsigned int i = 0; i < t->dev_count; i++)
			t->devs[i]->ops->pr_register(t->devs[i], f->victim_key, 0);
	return err;
}

static void fence_fini(struct fence *f)
{
	if (f->target)
		victim_fini(&f->v);
	free(f->first);
	free(f->second);
}

int test_fence(struct run *r)
{
	struct selftest_property *p = &r->t->properties[SELFTEST_FENCE];
	struct fence *f;
	int err;

	if (!r->t->devs[0]->info.reservations) {
		verdict(p, SELFTEST_SKIPPED, "the LUN has no persistent reservations of the type that it "
			"takes");
		return 0;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	err = fence_init(f, r);
	if (!err)
		err = run_rounds(f, p);
	if (f->fencer)
		f->fencer->ops->pr_clear(f->fencer, f->key);
	if (!err)
		err = end(f);
	fence_fini(f);
	free(f);
	return err;
}
