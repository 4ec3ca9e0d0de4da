/* SPDX-License-Identifier: Apache-2.0 */
/* Space of the whole volume: which group serves, holds and pins, totals. */
#include "fs/alloc.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/ag.h"
#include "fs/cluster.h"
#include "fs/fs.h"
#include "fs/grow.h"

static uint64_t peek_age_max_ns(void)
{
	return STATFS_MS * NSEC_PER_MSEC;
}

int alloc_open(struct fs *fs, struct alloc **out)
{
	struct alloc *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	/* All that there can ever be: the volume may grow. */
	a->ags = calloc(AG_COUNT_MAX, sizeof(*a->ags));
	if (!a->ags) {
		free(a);
		return -ENOMEM;
	}
	a->fs = fs;
	a->current = UINT32_MAX;
	env_mutex_init(fs->env, &a->mutex);
	env_mutex_init(fs->env, &a->totals_mutex);
	*out = a;
	return 0;
}

void alloc_close(struct alloc *a)
{
	uint32_t i;

	if (!a)
		return;
	for (i = 0; i < AG_COUNT_MAX; i++)
		ag_free(a->ags[i]);
	env_mutex_fini(a->fs->env, &a->totals_mutex);
	env_mutex_fini(a->fs->env, &a->mutex);
	free(a->ags);
	free(a);
}

/* ---- what groups have, without their locks ---- */

static void peek_set(struct ag *ag, const struct ag_disk *d)
{
	ag->peek = (struct ag_peek){
		.at_ns = env_now_ns(ag->fs->env),
		.blocks = le32_to_cpu(d->blocks),
		.blocks_free = le32_to_cpu(d->free_blocks),
		.inodes_used = le32_to_cpu(d->inodes_used),
		.inodes_free = le32_to_cpu(d->inodes_free) };
}

static bool peek_is_fresh(struct ag *ag)
{
	return ag->peek.at_ns &&
	       env_now_ns(ag->fs->env) - ag->peek.at_ns < peek_age_max_ns();
}

/* From memory if the group is ours; true if there is nothing left to read. */
static bool peek_cached(struct ag *ag)
{
	bool known;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	if (ag->loaded)
		peek_set(ag, ag_disk(ag));
	known = peek_is_fresh(ag);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return known;
}

#define PEEKS	32u	/* headers read at once */

struct peek_batch {
	struct ag	*ags[PEEKS];
	struct blk_io	ios[PEEKS];
	struct iovec	iov[PEEKS];
	uint8_t		*mem;
	unsigned int	count;
};

static void peek_add(struct peek_batch *b, struct ag *ag)
{
	unsigned int i = b->count++;

	b->ags[i] = ag;
	b->iov[i] = (struct iovec){ b->mem + (size_t)i * BLOCK_SIZE, BLOCK_SIZE };
	b->ios[i] = (struct blk_io){ .op = BLK_READ, .len = BLOCK_SIZE, .iov = &b->iov[i],
		.iovcnt = 1, .off = (ag->start + AG_HEADER_BLOCK) << BLOCK_SHIFT };
}

/*
 * A header that another host is writing may be torn: then what was known of the group before
 * stands.  Whether it is damaged is found out under its lock.
 */
static int peek_run(struct fs *fs, struct peek_batch *b)
{
	unsigned int i;
	int err;

	if (!b->count)
		return 0;
	err = blkdev_rw_batch(fs->dev, b->ios, b->count);
	for (i = 0; i < b->count && !err; i++) {
		struct meta_expect e = { .type = META_AG, .volume = fs->super.volume,
			.addr = b->ios[i].off, .owner = b->ags[i]->index };
		struct ag *ag = b->ags[i];

		env_mutex_lock(fs->env, &ag->mutex);
		if (!ag->loaded && !meta_verify(b->iov[i].iov_base, &e, NULL, 0))
			peek_set(ag, b->iov[i].iov_base);
		env_mutex_unlock(fs->env, &ag->mutex);
	}
	b->count = 0;
	return err;
}

/* Brings the peeks of @count groups from @first on up to date. */
static int peek_range(struct fs *fs, uint32_t first, uint32_t count)
{
	struct peek_batch *b = calloc(1, sizeof(*b));
	struct ag *ag;
	uint32_t i;
	int err = 0;

	if (!b)
		return -ENOMEM;
	b->mem = blkdev_alloc((size_t)PEEKS * BLOCK_SIZE);
	if (!b->mem)
		err = -ENOMEM;
	for (i = first; i < first + count && !err; i++) {
		err = ag_get(fs, i, &ag);
		if (err || peek_cached(ag))
			continue;
		peek_add(b, ag);
		if (b->count == PEEKS)
			err = peek_run(fs, b);
	}
	if (!err)
		err = peek_run(fs, b);
	free(b->mem);
	free(b);
	return err;
}

/* What the group will have, once somebody looks for space there, is as good as free. */
static uint32_t ag_unextended(const struct ag *ag)
{
	uint32_t blocks = super_ag_blocks(&ag->fs->super, ag->index);

	return ag->peek.at_ns && ag->peek.blocks < blocks ? blocks - ag->peek.blocks : 0;
}

bool alloc_is_short(struct fs *fs, uint32_t index)
{
	struct ag *ag;
	bool is_short;

	if (peek_range(fs, index, 1) || ag_get(fs, index, &ag))
		return false;
	env_mutex_lock(fs->env, &ag->mutex);
	is_short = ag_unextended(ag);
	env_mutex_unlock(fs->env, &ag->mutex);
	return is_short;
}

static int totals_sum(struct fs *fs, struct alloc_totals *t)
{
	uint32_t count = super_ag_count(&fs->super), meta = super_ag_meta(&fs->super), i;
	struct ag *ag;
	int err;

	err = peek_range(fs, 0, count);
	memset(t, 0, sizeof(*t));
	for (i = 0; i < count && !err; i++) {
		err = ag_get(fs, i, &ag);
		if (err)
			break;
		env_mutex_lock(fs->env, &ag->mutex);
		t->blocks += super_ag_blocks(&fs->super, i) - meta;
		t->blocks_free += ag->peek.blocks_free + ag_unextended(ag);
		t->inodes_used += ag->peek.inodes_used;
		t->inodes_free += ag->peek.inodes_free;
		env_mutex_unlock(fs->env, &ag->mutex);
	}
	return err;
}

int alloc_totals(struct fs *fs, struct alloc_totals *t)
{
	struct alloc *a = fs->alloc;
	struct alloc_totals sum;
	int err = 0;

	env_mutex_lock(fs->env, &a->totals_mutex);
	if (!a->totals_ns || env_now_ns(fs->env) - a->totals_ns >= peek_age_max_ns()) {
		fs_super_refresh(fs);	/* if that fails, so will the next */
		err = totals_sum(fs, &sum);
		if (!err) {
			a->totals = sum;
			a->totals_ns = env_now_ns(fs->env);
		}
	}
	if (!err)
		*t = a->totals;
	env_mutex_unlock(fs->env, &a->totals_mutex);
	return err;
}

/* ---- choosing ---- */

struct busy_ag {
	struct ag *ag;
	uint32_t blocks_free;
};

/* One pass over the groups, and what it leaves for the next. */
struct choice {
	struct fs *fs;
	const struct ag_want *want;
	uint32_t count;		/* of groups, as long as it lasts */
	struct busy_ag *busy;	/* that other hosts hold */
	uint32_t busy_count;
	int bad;		/* why a group could not be used, if nothing else works */
	struct ag *found;
};

static uint32_t ag_peek_free(struct ag *ag)
{
	uint32_t blocks_free;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	blocks_free = ag->peek.blocks_free;
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return blocks_free;
}

static bool err_is_local(int err)
{
	return err == -ENOSPC || err == -EUCLEAN || err == -EBADMSG || err == -EBUSY ||
	       err == -EAGAIN || err == -EHOSTDOWN;
}

/* Return: 0 found; -ENOSPC look on; other errors end the search. */
static int choice_try(struct choice *c, struct ag *ag, unsigned int flags)
{
	int err;

	err = ag_pin(c->fs, ag, flags);
	if (err == -EAGAIN && c->busy)
		c->busy[c->busy_count++] = (struct busy_ag){ ag, ag_peek_free(ag) };
	if (!err) {
		/* If it cannot be, there is what there was. */
		(void)ag_extend(ag);
		err = c->want->take(ag, c->want->arg);
		if (err)
			ag_unpin(c->fs, ag);
		else
			c->found = ag;
	}
	if (!err || !err_is_local(err))
		return err;
	if (err != -ENOSPC && err != -EAGAIN && !c->bad)
		c->bad = err;
	return -ENOSPC;
}

static bool peek_promises(struct ag *ag, const struct ag_want *want)
{
	bool promises;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	promises = ag->peek.blocks_free >= want->blocks ||
		   (want->inode && ag->peek.inodes_free) || !ag->peek.at_ns || ag_unextended(ag);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return promises;
}

static struct ag *ag_if_held(struct fs *fs, uint32_t index)
{
	struct alloc *a = fs->alloc;
	struct ag *ag = NULL;

	env_mutex_lock(fs->env, &a->mutex);
	if (index < super_ag_count(&fs->super))
		ag = a->ags[index];
	env_mutex_unlock(fs->env, &a->mutex);
	return ag && cluster_held(fs, &ag->cover.lock) == LOCK_EXCLUSIVE ? ag : NULL;
}

/* The groups whose locks we have: no I/O for the lock. */
static int choose_held(struct choice *c)
{
	struct alloc *a = c->fs->alloc;
	uint32_t i, first[2];
	struct ag *ag;
	int err = -ENOSPC;

	first[0] = c->want->prefer;
	env_mutex_lock(c->fs->env, &a->mutex);
	first[1] = a->current;
	env_mutex_unlock(c->fs->env, &a->mutex);
	for (i = 0; i < 2 + super_ag_count(&c->fs->super) && err == -ENOSPC; i++) {
		ag = ag_if_held(c->fs, i < 2 ? first[i] : i - 2);
		if (ag)
			err = choice_try(c, ag, LOCK_TRY);
	}
	return err;
}

/* Hosts start far apart, so that each finds groups of its own. */
static uint32_t spread_first(struct fs *fs)
{
	uint64_t slot = fs->lockd ? lockd_slot(fs->lockd) : 0;

	return (uint32_t)(slot * super_ag_count(&fs->super) / fs->super.slot_count);
}

static int choose_free(struct choice *c)
{
	uint32_t count = c->count, first = spread_first(c->fs) % count, i, n;
	struct ag *ag;
	int err = -ENOSPC;

	for (n = 0; n < count && err == -ENOSPC; n++) {
		i = (first + n) % count;
		err = ag_get(c->fs, i, &ag);
		if (!err)
			err = peek_range(c->fs, i, n % PEEKS || i + PEEKS > count ? 1 : PEEKS);
		if (err)
			return err;
		err = peek_promises(ag, c->want) ? choice_try(c, ag, LOCK_TRY) : -ENOSPC;
	}
	return err;
}

static int by_free(const void *a, const void *b)
{
	const struct busy_ag *x = a, *y = b;

	return x->blocks_free > y->blocks_free ? -1 : x->blocks_free < y->blocks_free;
}

/* Those that other hosts have cached: the emptiest first, each waited for once. */
static int choose_busy(struct choice *c)
{
	struct busy_ag *busy = c->busy;
	uint32_t i;
	int err = -ENOSPC;

	c->busy = NULL;
	qsort(busy, c->busy_count, sizeof(*busy), by_free);
	for (i = 0; i < c->busy_count && err == -ENOSPC; i++)
		err = choice_try(c, busy[i].ag, 0);
	free(busy);
	return err;
}

static int choose_once(struct fs *fs, const struct ag_want *want, struct ag **out)
{
	struct choice c = { .fs = fs, .want = want, .count = super_ag_count(&fs->super) };
	int err;

	err = choose_held(&c);
	if (err == -ENOSPC) {
		c.busy = calloc(c.count, sizeof(*c.busy));
		err = c.busy ? choose_free(&c) : -ENOMEM;
	}
	if (err == -ENOSPC && want->try && c.busy_count)
		err = -EAGAIN;
	if (err == -ENOSPC)
		err = choose_busy(&c);
	else
		free(c.busy);
	if (err)
		return err == -ENOSPC && c.bad ? c.bad : err;
	*out = c.found;
	return 0;
}

static bool quarantine_holds_space(struct fs *fs)
{
	bool any = false;
	struct ag *ag;
	uint32_t i;

	for (i = 0; i < super_ag_count(&fs->super) && !any; i++) {
		ag = ag_if_held(fs, i);
		if (!ag)
			continue;
		env_mutex_lock(fs->env, &ag->mutex);
		any = ag->quarantined_count > 0;
		env_mutex_unlock(fs->env, &ag->mutex);
	}
	return any;
}

int ag_choose(struct fs *fs, const struct ag_want *want, struct ag **out)
{
	uint64_t version = fs_super_version(fs);
	struct alloc *a = fs->alloc;
	int err;

	err = choose_once(fs, want, out);
	if (err == -ENOSPC && !fs_super_refresh(fs) && fs_super_version(fs) != version)
		err = choose_once(fs, want, out);
	if (err == -ENOSPC && quarantine_holds_space(fs)) {
		err = journal_settle(fs);
		if (!err)
			err = choose_once(fs, want, out);
	}
	if (!err) {
		env_mutex_lock(fs->env, &a->mutex);
		a->current = (*out)->index;
		env_mutex_unlock(fs->env, &a->mutex);
	}
	return err;
}

/* ---- holds ---- */

struct reserve {
	const uint32_t *counts;
	unsigned int run_count;
	uint64_t goal;
	struct alloc_hold *hold;
};

/* All runs in @ag, or none. */
static int reserve_take(struct ag *ag, void *arg)
{
	struct reserve *r = arg;
	struct alloc_hold *h = r->hold;
	uint32_t goal = 0;
	int err = 0;

	h->run_count = 0;
	env_mutex_lock(ag->fs->env, &ag->mutex);
	if (r->goal >= ag->start && r->goal < ag->start + ag->blocks)
		goal = (uint32_t)(r->goal - ag->start);
	while (!err && h->run_count < r->run_count) {
		err = ag_reserve(ag, r->counts[h->run_count], goal, &h->runs[h->run_count]);
		if (!err)
			h->run_count++;
	}
	while (err && h->run_count)
		ag_unreserve(ag, &h->runs[--h->run_count]);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return err;
}

static int reserve(struct fs *fs, const uint32_t *counts, unsigned int run_count, uint64_t goal,
		   bool try, struct alloc_hold *hold)
{
	struct reserve r = { counts, run_count, goal, hold };
	struct ag_want want = { .take = reserve_take, .arg = &r, .prefer = UINT32_MAX,
				.try = try };
	unsigned int i;
	struct ag *ag;
	int err;

	assert(run_count <= ALLOC_RUNS_MAX);
	for (i = 0; i < run_count; i++)
		want.blocks += counts[i];
	if (goal && super_ag_of(&fs->super, goal << BLOCK_SHIFT, &want.prefer))
		want.prefer = UINT32_MAX;
	err = ag_choose(fs, &want, &ag);
	if (!err)
		hold->ag = ag;
	return err;
}

int alloc_reserve(struct fs *fs, const uint32_t *counts, unsigned int run_count, uint64_t goal,
		  struct alloc_hold *hold)
{
	return reserve(fs, counts, run_count, goal, false, hold);
}

int alloc_reserve_try(struct fs *fs, const uint32_t *counts, unsigned int run_count,
		      uint64_t goal, struct alloc_hold *hold)
{
	return reserve(fs, counts, run_count, goal, true, hold);
}

int alloc_take(struct txn *txn, struct alloc_hold *hold, unsigned int i)
{
	struct ag *ag = hold->ag;
	int err;

	assert(i < hold->run_count);
	env_mutex_lock(ag->fs->env, &ag->mutex);
	err = ag_take(txn, ag, &hold->runs[i]);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return err;
}

int alloc_make_room(struct fs *fs, struct alloc_hold *hold, unsigned int from)
{
	for (unsigned int i = from; i < hold->run_count; i++) {
		assert(hold->runs[i].count == 1);
		hold->runs[i].room = buf_room(fs);
		if (!hold->runs[i].room) {
			alloc_put(fs, hold);
			return -ENOMEM;
		}
	}
	return 0;
}

int alloc_take_block(struct txn *txn, struct alloc_hold *hold, unsigned int i,
		     struct cover *cover, const struct meta_expect *e, struct buf **out)
{
	struct buf *buf;
	int err;

	assert(i < hold->run_count && hold->runs[i].room);
	err = buf_new_in(txn->fs, cover, e, &hold->runs[i].room, &buf);
	if (err)
		return err;
	err = alloc_take(txn, hold, i);
	if (err) {
		buf_drop(txn->fs, txn, buf);
		return err;
	}
	*out = buf;
	return 0;
}

void alloc_put(struct fs *fs, struct alloc_hold *hold)
{
	struct ag *ag = hold->ag;
	unsigned int i;

	if (!ag)
		return;
	for (i = 0; i < hold->run_count; i++)
		buf_room_free(hold->runs[i].room);
	env_mutex_lock(fs->env, &ag->mutex);
	for (i = 0; i < hold->run_count; i++)
		if (!hold->runs[i].taken)
			ag_unreserve(ag, &hold->runs[i]);
	env_mutex_unlock(fs->env, &ag->mutex);
	hold->run_count = 0;
	hold->ag = NULL;
	ag_unpin(fs, ag);
}

/* ---- pins ---- */

#define PIN_TRIES	3	/* lock_get() waits 5 s at most; a group is never long in use */

static int pin(struct fs *fs, uint64_t block, unsigned int flags, struct alloc_pin *p)
{
	int err, tries = PIN_TRIES;
	struct ag *ag;

	err = ag_of_block(fs, block, &ag);
	if (err)
		return err;
	do {
		err = ag_pin(fs, ag, flags);
	} while (err == -EBUSY && --tries && !(flags & LOCK_TRY));
	if (!err)
		p->ag = ag;
	return err;
}

int alloc_pin(struct fs *fs, uint64_t block, struct alloc_pin *p)
{
	return pin(fs, block, 0, p);
}

int alloc_pin_try(struct fs *fs, uint64_t block, struct alloc_pin *p)
{
	return pin(fs, block, LOCK_TRY, p);
}

void alloc_unpin(struct fs *fs, struct alloc_pin *p)
{
	if (p->ag)
		ag_unpin(fs, p->ag);
	p->ag = NULL;
}

bool alloc_pin_covers(struct fs *fs, const struct alloc_pin *p, uint64_t block)
{
	uint32_t index;

	return p->ag && !super_ag_of(&fs->super, block << BLOCK_SHIFT, &index) &&
	       index == p->ag->index;
}
