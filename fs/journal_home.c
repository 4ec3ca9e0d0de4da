/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's other half: bringing committed images home, quarantine, opening, closing. */
#include "fs/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/fs.h"
#include "fs/journal_internal.h"

bool journal_lookup(struct fs *fs, uint64_t addr, void *data)
{
	struct journal *j = fs->journal;
	struct table_node *n;

	env_mutex_lock(j->env, &j->mutex);
	n = table_find(&j->images, addr);
	if (n)
		memcpy(data, container_of(n, struct jimage, node)->data, BLOCK_SIZE);
	env_mutex_unlock(j->env, &j->mutex);
	return n != NULL;
}

/* ---- quarantine ---- */

#define DISCARDS	32u	/* requests a batch */
#define JOURNAL_MEMORY	(16 * MIB)	/* copies of blocks that are not at home yet */

struct quarantine_list {
	struct quarantine *ranges;
	size_t count;
};

static int quarantine_cmp(const void *a, const void *b)
{
	const struct quarantine *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Adjacent ranges become one: fewer, larger discards. */
static void quarantine_merge(struct quarantine_list *l)
{
	size_t i, n = 0;

	if (!l->count)
		return;
	qsort(l->ranges, l->count, sizeof(*l->ranges), quarantine_cmp);
	for (i = 1; i < l->count; i++) {
		if (l->ranges[n].addr + l->ranges[n].len == l->ranges[i].addr)
			l->ranges[n].len += l->ranges[i].len;
		else
			l->ranges[++n] = l->ranges[i];
	}
	l->count = n + 1;
}

/* The part of @q that the device can discard; false if there is none. */
static bool discard_prepare(const struct blkdev *dev, const struct quarantine *q,
			    struct blk_io *io)
{
	uint64_t unit = dev->info.discard_granularity;
	uint64_t start = ALIGN_UP(q->addr, unit);
	uint64_t end = ALIGN_DOWN(q->addr + q->len, unit);

	if (start >= end)
		return false;
	memset(io, 0, sizeof(*io));
	io->op = BLK_DISCARD;
	io->off = start;
	io->len = end - start;
	return true;
}

/*
 * A discard may fail, but not be under way any more when its blocks are handed out again:
 * it would destroy what is written there next.
 */
static int discard_batch(struct journal *j, struct blk_io *ios, unsigned int count)
{
	int err = blkdev_rw_batch(j->fs->dev, ios, count);

	if (err == -ENOTSUP || err == -EINVAL)
		j->no_discard = true;
	else if (err)
		return blkdev_drain(j->fs->dev);
	return 0;
}

static int quarantine_discard(struct journal *j, const struct quarantine_list *l)
{
	struct blk_io ios[DISCARDS];
	unsigned int n = 0;
	int err = 0;
	size_t i;

	if (!j->fs->dev->info.discard_granularity || j->no_discard || !l->count)
		return 0;
	for (i = 0; i < l->count && !err && !j->no_discard; i++) {
		n += discard_prepare(j->fs->dev, &l->ranges[i], &ios[n]);
		if (n == DISCARDS) {
			err = discard_batch(j, ios, n);
			n = 0;
		}
	}
	if (n && !err && !j->no_discard)
		err = discard_batch(j, ios, n);
	return err;
}

static int quarantine_end(struct journal *j, struct quarantine_list *l)
{
	size_t i;
	int err;

	quarantine_merge(l);
	err = quarantine_discard(j, l);
	for (i = 0; i < l->count && !err && j->fs->alloc; i++)
		alloc_release(j->fs, l->ranges[i].addr, l->ranges[i].len);
	free(l->ranges);
	return err;
}

/* ---- checkpoint ---- */

/* What one checkpoint brings home: the durable transactions at the front of j->txns. */
struct checkpoint {
	struct jtxn *last;
	struct home_block *blocks;	/* the newest image of each block in them */
	size_t block_count;
	bool	spare;			/* they are the journal's own */
	struct quarantine_list quarantine;
};

static struct jtxn *durable_last(struct journal *j)
{
	struct jtxn *t, *tmp, *last = NULL;

	list_for_each(t, tmp, &j->txns, node) {
		if (!t->durable)
			break;
		last = t;
	}
	return last;
}

/*
 * An image that a later transaction supersedes goes home all the same unless that one is of
 * this checkpoint too: the later one may not be durable, and the tail is about to pass this.
 */
static void checkpoint_add(struct checkpoint *cp, const struct jtxn *t)
{
	const struct jimage *im;

	for (im = t->images; im < t->images + t->count; im++) {
		if (im->superseded_by && im->superseded_by <= cp->last->id)
			continue;
		cp->blocks[cp->block_count++] = (struct home_block){ im->addr, im->data };
	}
	if (t->quarantine_count)
		memcpy(cp->quarantine.ranges + cp->quarantine.count, t->quarantine,
		       t->quarantine_count * sizeof(*t->quarantine));
	cp->quarantine.count += t->quarantine_count;
}

/* Out of memory: the oldest transaction alone, for which there is always room. */
static void checkpoint_collect_one(struct journal *j, struct checkpoint *cp)
{
	struct jtxn *t = list_first(&j->txns, struct jtxn, node);

	cp->last = t;
	cp->spare = true;
	cp->blocks = j->spare_blocks;
	/* Its list of what it freed is as good as a copy. */
	cp->quarantine = (struct quarantine_list){ t->quarantine, 0 };
	cp->quarantine.count = t->quarantine_count;
	t->quarantine = NULL;
	t->quarantine_count = 0;
	checkpoint_add(cp, t);
}

static void checkpoint_collect(struct journal *j, struct checkpoint *cp)
{
	size_t blocks = 0, ranges = 0;
	struct jtxn *t, *tmp;

	list_for_each(t, tmp, &j->txns, node) {
		blocks += t->count;
		ranges += t->quarantine_count;
		if (t == cp->last)
			break;
	}
	cp->blocks = calloc(blocks, sizeof(*cp->blocks));
	cp->quarantine.ranges = calloc(ranges + 1, sizeof(*cp->quarantine.ranges));
	if (!cp->blocks || !cp->quarantine.ranges) {
		free(cp->blocks);
		free(cp->quarantine.ranges);
		checkpoint_collect_one(j, cp);
		return;
	}
	list_for_each(t, tmp, &j->txns, node) {
		checkpoint_add(cp, t);
		if (t == cp->last)
			break;
	}
}

/* The tail goes past @last.  Commits go on meanwhile, behind it. */
static int tail_advance(struct journal *j, const struct jtxn *last)
{
	uint64_t block = (last->block + last->count + 2) % j->ring.blocks;
	bool waited = false;
	int err;

	env_mutex_unlock(j->env, &j->mutex);
	do {
		err = ring_write_tail(&j->ring, last->id + 1, block);
	} while (journal_waits_for_space(j, err, &waited));
	env_mutex_lock(j->env, &j->mutex);
	if (err)
		journal_die(j, err, "writing the journal's tail");
	return journal_flush_upto(j, ++j->written);
}

static int checkpoint_write(struct journal *j, struct checkpoint *cp)
{
	bool waited = false;
	int err;

	env_mutex_unlock(j->env, &j->mutex);
	do {
		err = home_write(j->fs->dev, cp->blocks, cp->block_count);
	} while (journal_waits_for_space(j, err, &waited));
	env_mutex_lock(j->env, &j->mutex);
	if (err)
		journal_die(j, err, "writing metadata home");
	err = MUTANT("tail-before-home") ? 0 : journal_flush_upto(j, ++j->written);
	if (err)
		return err;
	return tail_advance(j, cp->last);
}

/* Images and ring space of what is at home now. */
static void checkpoint_release(struct journal *j, struct checkpoint *cp)
{
	struct jimage *im;
	struct jtxn *t;
	bool more = true;

	while (more) {
		t = list_first(&j->txns, struct jtxn, node);
		more = t != cp->last;
		for (im = t->images; im < t->images + t->count; im++)
			if (!im->superseded_by)
				table_remove(&j->images, &im->node);
		j->used -= t->count + 2;
		list_del(&t->node);
		jtxn_free(j, t);
	}
	env_cond_broadcast(j->env, &j->changed);
}

static int checkpoint_lead(struct journal *j, struct checkpoint *cp)
{
	uint64_t id;
	int err;

	checkpoint_collect(j, cp);
	id = cp->last->id;
	err = checkpoint_write(j, cp);
	if (!cp->spare)
		free(cp->blocks);
	if (err) {
		free(cp->quarantine.ranges);
		return err;
	}
	checkpoint_release(j, cp);
	env_mutex_unlock(j->env, &j->mutex);
	err = quarantine_end(j, &cp->quarantine);
	env_mutex_lock(j->env, &j->mutex);
	if (err)
		journal_die(j, err, "waiting for the end of a discard");
	j->home_id = id;
	j->status.checkpoints++;
	return j->dead ? -EIO : 0;
}

int journal_checkpoint(struct journal *j)
{
	struct checkpoint cp = { .last = NULL };
	int err = 0;

	if (j->checkpointing) {
		env_cond_wait(j->env, &j->changed, &j->mutex, ENV_FOREVER);
		return j->dead ? -EIO : 0;
	}
	cp.last = durable_last(j);
	if (cp.last) {
		j->checkpointing = true;
		err = checkpoint_lead(j, &cp);
		j->checkpointing = false;
		env_cond_broadcast(j->env, &j->changed);
	}
	return j->dead ? -EIO : err;
}

static int settle_locked(struct journal *j)
{
	uint64_t id = j->running.id - (j->running.count ? 0 : 1);
	int err;

	err = journal_commit_locked(j, id);
	if (id > j->durable_id)
		id = j->durable_id;	/* all that was dirty has been forgotten: nothing to commit */
	while (!err && j->home_id < id)
		err = journal_checkpoint(j);
	return j->dead ? -EIO : err;
}

int journal_settle(struct fs *fs)
{
	struct journal *j = fs->journal;
	int err;

	env_mutex_lock(j->env, &j->mutex);
	err = settle_locked(j);
	/* Data too: whoever has the lock next may fsync, having written nothing to be flushed. */
	if (!err)
		err = journal_flush_upto(j, j->data_written);
	env_mutex_unlock(j->env, &j->mutex);
	return err;
}

/* ---- writeback ---- */

/* When the oldest thing that is not at home has waited long enough. */
static uint64_t writeback_due_ns(struct journal *j)
{
	uint64_t since = j->running.since_ns;

	if (!list_empty(&j->txns))
		since = list_first(&j->txns, struct jtxn, node)->since_ns;
	else if (!j->running.count)
		return ENV_FOREVER;
	return since + WRITEBACK_MS * NSEC_PER_MSEC;
}

static void writeback(void *arg)
{
	struct journal *j = arg;
	uint64_t due, retry_ns = 0;

	env_mutex_lock(j->env, &j->mutex);
	while (!j->stopping) {
		due = j->dead ? ENV_FOREVER : writeback_due_ns(j);
		if (due < retry_ns)
			due = retry_ns;
		if (env_now_ns(j->env) >= due) {
			if (settle_locked(j))	/* dead */
				retry_ns = env_now_ns(j->env) + WRITEBACK_MS * NSEC_PER_MSEC;
		} else if (j->hurry && !j->dead) {
			j->hurry = false;
			journal_checkpoint(j);
		} else {
			env_cond_wait(j->env, &j->work, &j->mutex, due);
		}
	}
	env_mutex_unlock(j->env, &j->mutex);
}

/* ---- opening and closing ---- */

static struct journal *journal_alloc(struct fs *fs)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->fs = fs;
	j->env = fs->env;
	table_init(&j->images);
	if (table_reserve(&j->images)) {
		free(j);
		return NULL;
	}
	env_mutex_init(j->env, &j->mutex);
	env_cond_init(j->env, &j->changed);
	env_cond_init(j->env, &j->work);
	list_init(&j->running.dirty);
	list_init(&j->txns);
	return j;
}

static void journal_free(struct journal *j)
{
	if (j->spare)
		jtxn_destroy(j->spare);
	free(j->spare_blocks);
	table_fini(&j->images);
	env_cond_fini(j->env, &j->work);
	env_cond_fini(j->env, &j->changed);
	env_mutex_fini(j->env, &j->mutex);
	free(j);
}

static int journal_load(struct journal *j)
{
	struct fs *fs = j->fs;
	char why[200];
	int err;

	ring_init(&j->ring, fs->dev, &fs->super, fs->lockd ? lockd_slot(fs->lockd) : 0);
	err = ring_read_tail(&j->ring, why, sizeof(why));
	if (!err && j->ring.blocks < 2 * (TXN_CREDITS_MAX + 2)) {
		snprintf(why, sizeof(why), "journals of %llu bytes are too small",
			 (unsigned long long)fs->super.journal_size);
		err = -EUCLEAN;
	}
	if (err) {
		log_error(fs->env, fs->label, "%s", why);
		return err;
	}
	j->count_max = JOURNAL_ENTRIES;
	if (j->count_max > j->ring.blocks / 2 - 2)
		j->count_max = (unsigned int)(j->ring.blocks / 2 - 2);
	j->used_max = JOURNAL_MEMORY / BLOCK_SIZE;
	if (j->used_max > j->ring.blocks)
		j->used_max = j->ring.blocks;
	j->head = j->ring.block;
	j->running.id = j->ring.sequence;
	j->durable_id = j->home_id = j->ring.sequence - 1;
	return 0;
}

/* What must be there when there is no more memory to be had: or nothing could be kept. */
static int journal_alloc_spare(struct journal *j)
{
	j->spare = jtxn_alloc(j->count_max);
	j->spare_blocks = calloc(j->count_max, sizeof(*j->spare_blocks));
	if (!j->spare || !j->spare_blocks)
		return -ENOMEM;
	j->spare->spare = true;
	return 0;
}

int journal_open(struct fs *fs, struct journal **out)
{
	struct journal *j = journal_alloc(fs);
	int err;

	if (!j)
		return -ENOMEM;
	err = journal_load(j);
	if (!err)
		err = journal_alloc_spare(j);
	if (!err)
		err = env_thread_start(j->env, "lunfs-writeback", writeback, j, &j->thread);
	if (err) {
		journal_free(j);
		return err;
	}
	*out = j;
	return 0;
}

/* What can never be written any more: the journal is dead. */
static void journal_abandon(struct journal *j)
{
	struct jimage *im;
	struct buf *b;
	struct jtxn *t;

	while (!list_empty(&j->running.dirty)) {
		b = list_first(&j->running.dirty, struct buf, txn_node);
		list_del(&b->txn_node);
		b->dirty = false;
		buf_put(j->fs, b);
	}
	free(j->running.quarantine);
	while (!list_empty(&j->txns)) {
		t = list_first(&j->txns, struct jtxn, node);
		for (im = t->images; im < t->images + t->count; im++)
			if (!im->superseded_by)
				table_remove(&j->images, &im->node);
		list_del(&t->node);
		jtxn_free(j, t);
	}
}

int journal_close(struct journal *j)
{
	int err;

	if (!j)
		return 0;
	env_mutex_lock(j->env, &j->mutex);
	err = settle_locked(j);
	/* The slot must not be given back as clean: whoever recovers it replays what is here. */
	if (err && !j->dead)
		journal_die(j, err, "closing the journal");
	j->stopping = true;
	env_cond_broadcast(j->env, &j->work);
	env_mutex_unlock(j->env, &j->mutex);
	env_thread_join(j->env, j->thread);
	journal_abandon(j);
	journal_free(j);
	return err;
}

void journal_status(struct fs *fs, struct journal_status *st)
{
	struct journal *j = fs->journal;

	env_mutex_lock(j->env, &j->mutex);
	*st = j->status;
	env_mutex_unlock(j->env, &j->mutex);
}
