/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles and commit; journal_home.c brings committed images home.
 *
 *   running ──seal: no handle open, images copied──► sealed ──written, flushed──► durable
 *      ──checkpoint: at home, flushed, tail past it, flushed──► gone, quarantine released
 *
 * One transaction runs, at most one is being written, one checkpoint goes on beside them.
 * Whoever needs a step that nobody is doing becomes its leader; the others wait.
 */
#include "base/mutant.h"
#include "fs/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "fs/fs.h"
#include "fs/internal.h"
#include "fs/journal_internal.h"

#define FULL_RETRY_NS	(500 * NSEC_PER_MSEC)

static void journal_wait(struct journal *j)
{
	env_cond_wait(j->env, &j->changed, &j->mutex, ENV_FOREVER);
}

/* ---- death ---- */

void journal_die(struct journal *j, int err, const char *what)
{
	struct fs *fs = j->fs;
	char cause[96];

	if (j->dead)
		return;
	j->dead = true;
	env_cond_broadcast(j->env, &j->changed);
	env_cond_broadcast(j->env, &j->work);
	env_mutex_unlock(j->env, &j->mutex);
	snprintf(cause, sizeof(cause), "%s failed: %s", what, strerror(-err));
	log_error(j->env, fs->label,
		  "%s; this host leaves the volume, what was not synced is lost", cause);
	if (fs->lockd)
		lockd_fail(fs->lockd, cause);
	env_mutex_lock(j->env, &j->mutex);
}

/* ---- a thin device that is full ---- */

/*
 * It refuses a write: that is neither a lost flush nor an unknown outcome, and what was to be
 * written is still here.  So it is written again until there is room, as a stall is no failure
 * (R2); users' own writes fail with ENOSPC meanwhile, and nothing is lost with the slot.
 */
bool journal_waits_for_space(struct journal *j, int err, bool *waited)
{
	bool first = false, last = false, again;

	env_mutex_lock(j->env, &j->mutex);
	again = err == -ENOSPC && !j->dead;
	if (again && !*waited)
		first = !j->full++;
	else if (!again && *waited)
		last = !--j->full;
	*waited = again;
	env_mutex_unlock(j->env, &j->mutex);
	if (again)
		fs_note_device_full(j->fs);
	if (first)
		log_error(j->env, j->fs->label, "the device has no space left for metadata: what needs "
			  "it waits; make room below the device, nothing is lost");
	if (last && !err)
		log_info(j->env, j->fs->label, "the device has space again; what waited goes on");
	/* Of a request in pieces another one may still be under way (R4). */
	if (!again || blkdev_drain(j->fs->dev))
		return false;
	env_sleep_until(j->env, env_now_ns(j->env) + FULL_RETRY_NS);
	return true;
}

/* ---- flushes, shared by whoever needs one ---- */

/*
 * After a power cut no lock's record may be older than what was committed under it: another host
 * would take the lock, and the replay that comes later would write over what it has done (R1).
 * So a lock that was taken counts as a write, and the next commit flushes it first.
 */
static void journal_note_locks(struct journal *j)
{
	uint64_t taken = j->fs->lockd ? lockd_locks_taken(j->fs->lockd) : 0;

	if (taken == j->locks_taken)
		return;
	j->locks_taken = taken;
	j->locks_written = ++j->written;
}

int journal_flush_upto(struct journal *j, uint64_t want)
{
	uint64_t covered;
	int err;

	while (!j->dead && j->flushed < want) {
		if (j->flushing) {
			journal_wait(j);
			continue;
		}
		j->flushing = true;
		journal_note_locks(j);
		covered = j->written;
		env_mutex_unlock(j->env, &j->mutex);
		err = blkdev_flush(j->fs->dev);
		env_mutex_lock(j->env, &j->mutex);
		j->flushing = false;
		j->status.flushes++;
		if (err && !MUTANT("failed-flush-forgotten"))
			journal_die(j, err, "a flush of the device");
		else
			j->flushed = covered;
		env_cond_broadcast(j->env, &j->changed);
	}
	return j->dead ? -EIO : 0;
}

void journal_data_written(struct fs *fs)
{
	struct journal *j = fs->journal;

	env_mutex_lock(j->env, &j->mutex);
	j->data_written = ++j->written;
	env_mutex_unlock(j->env, &j->mutex);
}

int journal_flush_data(struct fs *fs)
{
	struct journal *j = fs->journal;
	int err;

	env_mutex_lock(j->env, &j->mutex);
	err = journal_flush_upto(j, j->data_written);
	env_mutex_unlock(j->env, &j->mutex);
	return err;
}

/* ---- sealing ---- */

void jtxn_destroy(struct jtxn *t)
{
	free(t->images);
	free(t->memory);
	free(t);
}

void jtxn_free(struct journal *j, struct jtxn *t)
{
	if (!t)
		return;
	free(t->quarantine);
	t->quarantine = NULL;
	if (t->spare)
		j->spare = t;
	else
		jtxn_destroy(t);
}

struct jtxn *jtxn_alloc(unsigned int count)
{
	struct jtxn *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	list_init(&t->node);
	t->count = count;
	t->images = calloc(count, sizeof(*t->images));
	t->memory = blkdev_alloc((size_t)(count + 2) * BLOCK_SIZE);
	if (t->images && t->memory)
		return t;
	jtxn_destroy(t);
	return NULL;
}

/*
 * The spare one, empty again; if it is in use, it is the only thing that has to go home before
 * it can be had, and that takes no memory.  NULL: the journal is dead.
 */
static struct jtxn *spare_take(struct journal *j, unsigned int count)
{
	struct jtxn *t;

	while (!j->spare && !j->dead)
		journal_checkpoint(j);
	t = j->dead ? NULL : j->spare;
	if (!t)
		return NULL;
	j->spare = NULL;
	assert(count <= j->count_max);
	t->count = count;
	t->durable = false;
	memset(t->images, 0, count * sizeof(*t->images));
	memset(t->memory, 0, (size_t)(count + 2) * BLOCK_SIZE);
	return t;
}

/*
 * Copies and seals what is dirty.  No handle is open and none can be opened, so neither the
 * list nor the buffers change, and the mutex need not be held.
 */
static void jtxn_copy(struct journal *j, struct jtxn *t)
{
	struct jimage *im = t->images;
	struct buf *b, *tmp;

	list_for_each(b, tmp, &j->running.dirty, txn_node) {
		struct meta_expect e = { .type = b->type, .volume = j->fs->super.volume,
			.addr = b->addr, .owner = b->owner, .birth = b->birth };

		im->data = t->memory + (size_t)(im - t->images + 1) * BLOCK_SIZE;
		im->addr = b->addr;
		im->buf = b;
		memcpy(im->data, b->data, BLOCK_SIZE);
		meta_seal(im->data, &e, b->version);
		im++;
	}
	assert(im == t->images + t->count);
}

/* From now on journal_lookup() finds @t's images, and the buffers may be dirtied again. */
static void images_publish(struct journal *j, struct jtxn *t)
{
	struct table_node *n;
	struct jimage *im;
	int err;

	for (im = t->images; im < t->images + t->count; im++) {
		list_del(&im->buf->txn_node);
		im->buf->dirty = false;
		n = table_find(&j->images, im->addr);
		if (n) {
			container_of(n, struct jimage, node)->superseded_by = j->running.id;
			table_remove(&j->images, n);
		}
		err = table_insert(&j->images, &im->node, im->addr);
		assert(!err);	/* journal_open() gave the table its buckets */
	}
}

/* The running transaction becomes @t, and the next one runs. */
static void running_turn(struct journal *j, struct jtxn *t)
{
	struct running *r = &j->running;

	assert(!r->reserved && !r->handles);
	images_publish(j, t);
	t->id = r->id++;
	t->block = j->head;
	t->since_ns = r->since_ns;
	t->quarantine = r->quarantine;
	t->quarantine_count = r->quarantine_count;
	list_add_tail(&j->txns, &t->node);
	j->head = (j->head + t->count + 2) % j->ring.blocks;
	j->used += t->count + 2;
	r->count = 0;
	r->quarantine = NULL;
	r->quarantine_count = r->quarantine_max = 0;
}

/*
 * Ends the running transaction; *@out stays NULL if there is nothing in it.  Open handles are
 * waited for; they never wait for us, nor for a cluster lock.
 */
static int journal_seal(struct journal *j, struct jtxn **out)
{
	struct jtxn *t = NULL;

	j->sealing = true;
	while (j->running.handles)
		journal_wait(j);
	if (!j->dead && j->running.count) {
		env_mutex_unlock(j->env, &j->mutex);
		t = jtxn_alloc(j->running.count);
		env_mutex_lock(j->env, &j->mutex);
		if (!t)
			t = spare_take(j, j->running.count);
		if (t) {
			env_mutex_unlock(j->env, &j->mutex);
			jtxn_copy(j, t);
			env_mutex_lock(j->env, &j->mutex);
			running_turn(j, t);
		}
	}
	j->sealing = false;
	env_cond_broadcast(j->env, &j->changed);
	*out = t;
	return j->dead ? -EIO : 0;
}

/* ---- writing ---- */

/* Descriptor and commit record around the images. */
static void jtxn_frame(struct journal *j, struct jtxn *t)
{
	struct journal_desc_disk *d = (void *)t->memory;
	struct journal_commit_disk *c = (void *)(t->memory + (size_t)(t->count + 1) * BLOCK_SIZE);
	uint64_t end = (t->block + t->count + 1) % j->ring.blocks;
	unsigned int i;

	d->sequence = c->sequence = cpu_to_le64(t->id);
	d->count = c->count = cpu_to_le32(t->count);
	d->generation = cpu_to_le32(j->fs->lockd ? lockd_generation(j->fs->lockd) : 0);
	for (i = 0; i < t->count; i++) {
		d->entries[i].addr = cpu_to_le64(t->images[i].addr);
		d->entries[i].crc = cpu_to_le32(crc32c(0, t->images[i].data, BLOCK_SIZE));
	}
	ring_seal(&j->ring, META_DESC, t->block, t->id, d);
	c->desc_crc = cpu_to_le32(crc32c(0, d, BLOCK_SIZE));
	ring_seal(&j->ring, META_COMMIT, end, t->id, c);
}

static void bufs_release(struct journal *j, struct jtxn *t)
{
	unsigned int i;

	for (i = 0; i < t->count; i++)
		buf_put(j->fs, t->images[i].buf);
}

/*
 * Makes sealed @t durable.  @before: data writes completed and locks taken when it was sealed;
 * its blocks may point to what they wrote and are covered by what was taken, so they are
 * flushed before the commit record can reach the device.
 */
static void jtxn_write(struct journal *j, struct jtxn *t, uint64_t before)
{
	bool waited = false;
	int err;

	env_mutex_unlock(j->env, &j->mutex);
	bufs_release(j, t);
	jtxn_frame(j, t);
	env_mutex_lock(j->env, &j->mutex);
	if (!MUTANT("no-flush-before-commit") && journal_flush_upto(j, before))
		return;
	env_mutex_unlock(j->env, &j->mutex);
	do {
		err = ring_rw(&j->ring, BLK_WRITE, t->block, t->memory, t->count + 2);
	} while (journal_waits_for_space(j, err, &waited));
	env_mutex_lock(j->env, &j->mutex);
	if (err)
		journal_die(j, err, "a write to the journal");
	if (!MUTANT("no-flush-after-commit") && journal_flush_upto(j, ++j->written))
		return;
	t->durable = true;
	j->durable_id = t->id;
	j->status.commits++;
	j->status.blocks_logged += t->count;
}

/* The leader's part of a commit; nobody else is committing. */
static int commit_running(struct journal *j)
{
	struct jtxn *t;
	int err;

	j->committing = true;
	err = journal_seal(j, &t);
	if (!err && t) {
		journal_note_locks(j);
		jtxn_write(j, t, j->locks_written > j->data_written ? j->locks_written :
			   j->data_written);
	}
	j->committing = false;
	if (j->used > j->used_max / 2 && !j->hurry) {
		j->hurry = true;
		env_cond_broadcast(j->env, &j->work);
	}
	env_cond_broadcast(j->env, &j->changed);
	return j->dead ? -EIO : err;
}

int journal_commit_locked(struct journal *j, uint64_t id)
{
	int err = 0;

	while (!j->dead && !err && j->durable_id < id) {
		if (j->committing)
			journal_wait(j);
		else if (!j->running.count && j->durable_id + 1 == j->running.id)
			break;		/* nothing dirty: an id of now stands for the past */
		else
			err = commit_running(j);
	}
	return j->dead ? -EIO : err;
}

int journal_commit(struct fs *fs, uint64_t id)
{
	struct journal *j = fs->journal;
	uint64_t data;
	int err;

	env_mutex_lock(j->env, &j->mutex);
	data = j->data_written;
	err = journal_commit_locked(j, id);
	if (!err && !MUTANT("fsync-without-data"))
		err = journal_flush_upto(j, data);
	env_mutex_unlock(j->env, &j->mutex);
	return err;
}

uint64_t journal_last_id(struct fs *fs)
{
	struct journal *j = fs->journal;
	uint64_t id;

	env_mutex_lock(j->env, &j->mutex);
	id = j->running.id;
	env_mutex_unlock(j->env, &j->mutex);
	return id;
}

/* ---- handles ---- */

/*
 * Room in the running transaction, and in the ring for it: what handles were promised must
 * be committable without waiting for space, which only a checkpoint of older ones gives.
 */
static int running_make_room(struct journal *j, unsigned int credits)
{
	unsigned int need = j->running.count + j->running.reserved + credits;

	if (need > j->count_max) {
		if (j->committing)
			journal_wait(j);
		else
			return commit_running(j);
	} else if (!list_empty(&j->txns) && list_first(&j->txns, struct jtxn, node)->durable) {
		return journal_checkpoint(j);
	} else {
		journal_wait(j);	/* for the commit under way */
	}
	return 0;
}

static bool running_has_room(struct journal *j, unsigned int credits)
{
	unsigned int need = j->running.count + j->running.reserved + credits;

	return need <= j->count_max && j->used + need + 2 <= j->used_max;
}

int txn_begin(struct fs *fs, unsigned int credits, struct txn *txn)
{
	struct journal *j = fs->journal;
	int err = 0;

	assert(credits > 0 && credits <= TXN_CREDITS_MAX);
	env_mutex_lock(j->env, &j->mutex);
	while (!err && !j->dead && (j->sealing || !running_has_room(j, credits))) {
		if (j->sealing)
			journal_wait(j);
		else
			err = running_make_room(j, credits);
	}
	if (j->dead)
		err = -EIO;
	if (!err) {
		j->running.handles++;
		j->running.reserved += credits;
		*txn = (struct txn){ .fs = fs, .journal = j, .credits = credits, .id = j->running.id };
	}
	env_mutex_unlock(j->env, &j->mutex);
	return err;
}

/* The header in memory is right but for the checksum: who loads the buffer later reads it. */
static void buf_stamp(struct buf *b, uint64_t version)
{
	struct meta_hdr_disk *h = b->data;

	b->version = version;
	h->version = cpu_to_le64(version);
}

void txn_dirty(struct txn *txn, struct buf *b, uint64_t version)
{
	struct journal *j = txn->journal;
	struct running *r = &j->running;

	env_mutex_lock(j->env, &j->mutex);
	if (!b->dirty) {
		assert(txn->credits);	/* txn_begin() was asked for too few */
		txn->credits--;
		r->reserved--;
		if (!r->count++) {
			r->since_ns = env_now_ns(j->env);
			env_cond_broadcast(j->env, &j->work);
		}
		b->dirty = true;
		list_add_tail(&r->dirty, &b->txn_node);
		buf_ref(j->fs, b);
	}
	env_mutex_unlock(j->env, &j->mutex);
	buf_stamp(b, version);
}

void txn_forget(struct txn *txn, struct buf *b)
{
	struct journal *j = txn->journal;
	bool was_dirty;

	env_mutex_lock(j->env, &j->mutex);
	was_dirty = b->dirty;
	if (was_dirty) {
		b->dirty = false;
		list_del(&b->txn_node);
		j->running.count--;
	}
	env_mutex_unlock(j->env, &j->mutex);
	if (was_dirty)
		buf_put(j->fs, b);
}

void txn_quarantine(struct txn *txn, uint64_t addr, uint64_t len)
{
	struct journal *j = txn->journal;
	struct running *r = &j->running;
	struct quarantine *q;
	size_t max;

	env_mutex_lock(j->env, &j->mutex);
	if (r->quarantine_count == r->quarantine_max) {
		max = r->quarantine_max ? 2 * r->quarantine_max : 64;
		q = realloc(r->quarantine, max * sizeof(*q));
		/* Out of memory: the range stays in quarantine until its group is loaded anew. */
		if (!q)
			goto unlock;
		r->quarantine = q;
		r->quarantine_max = max;
	}
	r->quarantine[r->quarantine_count++] = (struct quarantine){ addr, len };
unlock:
	env_mutex_unlock(j->env, &j->mutex);
}

uint64_t txn_end(struct txn *txn)
{
	struct journal *j = txn->journal;
	uint64_t id = txn->id;

	env_mutex_lock(j->env, &j->mutex);
	j->running.reserved -= txn->credits;
	if (!--j->running.handles || txn->credits)
		env_cond_broadcast(j->env, &j->changed);
	env_mutex_unlock(j->env, &j->mutex);
	txn->journal = NULL;
	return id;
}
