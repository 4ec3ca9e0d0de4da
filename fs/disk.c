/* SPDX-License-Identifier: Apache-2.0 */
/* A disk's life, and what is done to it from outside: opened, paused, snapshotted, grown. */
#include "fs/disk.h"

#include <stdio.h>

#include "base/mutant.h"
#include "fs/cluster.h"
#include "fs/disk_internal.h"

#define DISK_SIZE_MIN	(1 * MIB)

/* ---- calls into the owner's thread ---- */

static void call_done(struct disk *d)
{
	env_mutex_lock(d->fs->env, &d->mutex);
	d->called = true;
	env_cond_broadcast(d->fs->env, &d->changed);
	env_mutex_unlock(d->fs->env, &d->mutex);
}

/* Runs @fn there and waits; it ends with call_done().  control is held. */
static void call(struct disk *d, void (*fn)(struct reactor_call *call))
{
	d->call.fn = fn;
	d->called = false;
	disk_post(d, &d->call);
	env_mutex_lock(d->fs->env, &d->mutex);
	while (!d->called)
		env_cond_wait(d->fs->env, &d->changed, &d->mutex, ENV_FOREVER);
	env_mutex_unlock(d->fs->env, &d->mutex);
}

/* ---- pausing ---- */

static void pause_begin(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);

	d->pauses = 1;
	__atomic_store_n(&d->stats.paused, true, __ATOMIC_RELAXED);
	d->quiet_wanted = true;
	disk_check_quiet(d);
	call_done(d);
}

static void pause_end(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);

	d->pauses = 0;
	d->quiet_wanted = false;
	__atomic_store_n(&d->stats.paused, false, __ATOMIC_RELAXED);
	if (d->commit_wanted || !list_empty(&d->flushes))
		disk_slow_commit(d);
	disk_retry(d);
	call_done(d);
}

static int pause_wait(struct disk *d, uint64_t deadline_ns)
{
	bool in_time = true, quiet;

	env_mutex_lock(d->fs->env, &d->mutex);
	d->quiet = 0;
	env_mutex_unlock(d->fs->env, &d->mutex);
	call(d, pause_begin);
	env_mutex_lock(d->fs->env, &d->mutex);
	while (!d->quiet && in_time)
		in_time = env_cond_wait(d->fs->env, &d->changed, &d->mutex, deadline_ns);
	quiet = d->quiet;
	env_mutex_unlock(d->fs->env, &d->mutex);
	return quiet ? 0 : -ETIMEDOUT;
}

int disk_pause(struct disk *d, uint64_t deadline_ns)
{
	unsigned int n;
	int err;

	env_mutex_lock(d->fs->env, &d->control);
	if (!d->f) {
		env_mutex_unlock(d->fs->env, &d->control);
		return -ENOMEDIUM;
	}
	err = pause_wait(d, deadline_ns);
	if (!err) {
		n = disk_fills_collect(d, d->bits);
		err = disk_work_commit(d, d->bits, n);
		disk_fills_committed(d, err);
		d->map_changes += n != 0;
	}
	if (err)
		disk_resume(d);
	return err;
}

void disk_resume(struct disk *d)
{
	call(d, pause_end);
	env_mutex_unlock(d->fs->env, &d->control);
}

void disk_forget(struct disk *d, uint64_t off, uint64_t len)
{
	uint64_t first = off / UNIT_SIZE, end = DIV_ROUND_UP(off + len, UNIT_SIZE);

	if (!len) {
		first = 0;
		end = FILE_BYTES_MAX / UNIT_SIZE;
	}
	disk_fills_drop(d, first, end);
	extents_forget(&d->map, first * UNIT_BLOCKS, (end - first) * UNIT_BLOCKS);
}

uint64_t disk_id(struct disk *d)
{
	return __atomic_load_n(&d->p.id, __ATOMIC_RELAXED);
}

struct fs_file *disk_file(struct disk *d)
{
	return d->f;
}

/* ---- opening ---- */

/* A file that a disk can be: its units all of one size. */
static int prepare_file(struct disk *d)
{
	struct fs *fs = d->fs;
	struct inode *ino = d->f->ino;
	uint64_t size;
	int err = file_wrlock(fs, ino);

	if (err)
		return err;
	size = file_size(ino);
	err = file_finish_shrink(fs, ino);
	if (!err && file_is_inline(ino))
		err = file_uninline(fs, ino, unit0_order(size, size));
	if (!err)
		err = unit0_grow(fs, ino, UNIT_ORDER);
	file_wrunlock(fs, ino);
	return err;
}

static int check_size(const struct disk *d, uint64_t size)
{
	return size >= DISK_SIZE_MIN && size % d->lower->info.sector == 0 &&
	       size <= FILE_BYTES_MAX ? 0 : -EINVAL;
}

static int memory_get(struct disk *d)
{
	d->fills = calloc(DISK_FILLS, sizeof(*d->fills));
	d->parts = calloc(DISK_PARTS, sizeof(*d->parts));
	d->slows = calloc(DISK_SLOWS, sizeof(*d->slows));
	d->bits = calloc(DISK_FILLS, sizeof(*d->bits));
	d->buckets = calloc(DISK_BUCKETS, sizeof(*d->buckets));
	d->spaces = calloc(2, sizeof(*d->spaces));
	d->fresh = d->p.fresh ? d->p.fresh : calloc(1, sizeof(*d->fresh));
	if (!d->fresh || !d->fills || !d->parts || !d->slows || !d->bits || !d->buckets ||
	    !d->spaces)
		return -ENOMEM;
	disk_fills_init(d);
	d->space = NULL;
	d->space_next = d->spaces;
	list_init(&d->parts_free);
	for (unsigned int i = 0; i < DISK_PARTS; i++) {
		disk_req(&d->parts[i].io)->d = d;
		list_add_tail(&d->parts_free, &d->parts[i].node);
	}
	d->parts_left = DISK_PARTS;
	list_init(&d->slows_free);
	list_init(&d->slows_active);
	for (unsigned int i = 0; i < DISK_SLOWS; i++) {
		d->slows[i].d = d;
		d->slows[i].back.fn = disk_slow_back;
		list_add_tail(&d->slows_free, &d->slows[i].node);
	}
	extents_init(&d->map, d->p.map_bytes ? d->p.map_bytes : DISK_MAP_BYTES);
	return 0;
}

static void memory_put(struct disk *d)
{
	free(d->fills);
	free(d->parts);
	free(d->slows);
	free(d->bits);
	free(d->buckets);
	free(d->spaces);
	if (d->fresh != d->p.fresh)
		free(d->fresh);
	d->fresh = NULL;
	d->fills = NULL;
	d->parts = NULL;
	d->slows = NULL;
	d->bits = NULL;
	d->buckets = NULL;
	d->spaces = NULL;
	extents_fini(&d->map);
}

static void opened(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);
	uint64_t size = file_size(d->f->ino);
	bool resized = size != d->dev.info.size;

	d->dev.info.size = size;
	d->writes = d->writes_flushed = 0;
	/* What an earlier user wrote may be neither durable nor committed. */
	d->map_changes = d->moves = 1;
	d->map_flushed = d->moves_flushed = 0;
	d->lost = d->no_space = false;
	d->abandoned = false;
	d->open = true;
	disk_limits_init(d, &d->p.limits);
	__atomic_store_n(&d->stats.open, true, __ATOMIC_RELAXED);
	__atomic_store_n(&d->stats.lost, false, __ATOMIC_RELAXED);
	__atomic_store_n(&d->stats.no_space, false, __ATOMIC_RELAXED);
	if (resized && d->p.events.resized)
		d->p.events.resized(d->p.arg);
	call_done(d);
}

/* It was opened, but that is of no use: the next attempt shall not take it for another's. */
static void give_file_up(struct disk *d)
{
	if (d->writable)
		inode_writer_forget(d->fs, d->f->ino);
	fs_close(d->fs, d->f);
	d->f = NULL;
}

/* @brief: 0 or FS_OPEN_BRIEF. */
static int open_file(struct disk *d, const struct disk_claim *resume, unsigned int brief,
		     struct lock_holder *holder)
{
	unsigned int flags = d->p.multi ? FS_OPEN_MULTI :
			     d->writable ? FS_OPEN_SOLE | brief : FS_OPEN_DENY_WRITE;
	struct fs_cred cred = { .comm = "virtual disk" };
	int err;

	static_assert(sizeof(d->p.user) == sizeof(cred.comm), "a user's name fits");
	if (d->p.user[0])
		strcpy(cred.comm, d->p.user);
	flags |= d->writable ? FS_OPEN_WRITE : 0;
	err = fs_open(d->fs, d->p.id, flags, &cred, &d->f, holder);
	if (err)
		return err;
	if (d->f->mode == LOCK_EXCLUSIVE && resume)
		err = disk_check_resumed(d, resume);
	else if (d->kept)
		err = disk_check_again(d);
	if (!err && d->f->mode == LOCK_EXCLUSIVE)
		err = prepare_file(d);
	if (!err)
		err = check_size(d, file_size(d->f->ino));
	if (err)
		give_file_up(d);
	return err;
}

int disk_retarget(struct disk *d, uint64_t id)
{
	int err = -EBUSY;

	env_mutex_lock(d->fs->env, &d->control);
	if (!d->f && !d->kept) {
		__atomic_store_n(&d->p.id, id, __ATOMIC_RELAXED);
		err = 0;
	}
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

/*
 * Whoever is served goes on when this process is killed: what it is shown must be durable, or noted, and
 * others of this host may have written here before, and synced nothing.
 */
static int make_ready(struct disk *d, const struct disk_claim *resume)
{
	int err = MUTANT("opened-undurable") ? 0 : fs_fsync(d->fs, d->f, false);

	if (!err && resume && d->f->mode == LOCK_EXCLUSIVE)
		err = disk_work_resume(d);
	return err;
}

int disk_open(struct disk *d, const struct disk_claim *resume, struct lock_holder *holder)
{
	int err = 0;

	env_mutex_lock(d->fs->env, &d->control);
	if (d->f)
		goto unlock;
	err = memory_get(d);
	if (!err)
		err = open_file(d, resume, 0, holder);
	if (!err) {
		err = make_ready(d, resume);
		if (err)
			give_file_up(d);
	}
	if (!err)
		memset(d->fresh, 0, sizeof(*d->fresh));
	if (err)
		memory_put(d);
	else
		call(d, opened);
unlock:
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

bool disk_is_open(struct disk *d)
{
	return __atomic_load_n(&d->stats.open, __ATOMIC_RELAXED);
}

static void closed(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);

	d->open = false;
	__atomic_store_n(&d->stats.open, false, __ATOMIC_RELAXED);
	if (d->p.reactor) {
		reactor_timer_cancel(d->p.reactor, &d->tick);
		reactor_timer_cancel(d->p.reactor, &d->throttle);
	}
	d->tick_set = false;
	/* What still waits gets its answer: not open. */
	list_splice_tail(&d->waiting, &d->throttled);
	list_splice_tail(&d->waiting, &d->flushes);
	d->pauses = 0;
	d->commit_wanted = false;
	if (d->p.shares)
		share_set(d->p.shares, &d->share, 0);
	__atomic_store_n(&d->stats.paused, false, __ATOMIC_RELAXED);
	disk_retry_now(&d->retry_call);
	call_done(d);
}

static void abandoned(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, abandon_call);

	d->abandoned = true;
	list_splice_tail(&d->waiting, &d->throttled);
	disk_retry_now(&d->retry_call);
}

void disk_abandon(struct disk *d)
{
	atomic_store(&d->was_abandoned, true);
	disk_post(d, &d->abandon_call);
}

int disk_shut(struct disk *d)
{
	int err, e;

	err = disk_pause(d, ENV_FOREVER);
	if (err == -ENOMEDIUM)
		return 0;
	/* Could not be written into the map: it is as good as lost, but the lock goes all the same. */
	if (err) {
		env_mutex_lock(d->fs->env, &d->control);
		pause_wait(d, ENV_FOREVER);
	}
	if (!err && d->writable) {
		file_overwritten(d->fs, d->f->ino, 0);
		err = fs_fsync(d->fs, d->f, true);
	}
	call(d, closed);
	disk_keep_inode(d);
	e = fs_close(d->fs, d->f);
	d->f = NULL;
	memory_put(d);
	env_mutex_unlock(d->fs->env, &d->control);
	return err ? err : e;
}

/* ---- life ---- */

static const struct blkdev_ops disk_ops = {
	.submit = disk_submit,
};

static void info_fill(struct disk *d, const struct fs_attr *attr)
{
	struct blkdev_info *i = &d->dev.info;

	*i = d->lower->info;
	snprintf(i->name, sizeof(i->name), "%s", d->name);
	i->size = attr->size;
	i->caw = BLK_CAW_NONE;
	i->reservations = false;
	i->read_only = !d->writable;
	i->discard_granularity = d->writable && !d->p.multi ? BLOCK_SIZE : 0;
	i->identity[0] = '\0';
}

static void calls_init(struct disk *d)
{
	d->incoming_call.fn = disk_incoming;
	d->ended_call.fn = disk_ended;
	d->retry_call.fn = disk_retry_now;
	d->abandon_call.fn = abandoned;
	d->tick.fn = disk_tick;
	d->throttle.fn = disk_throttle_tick;
	list_init(&d->waiting);
	list_init(&d->flushes);
	list_init(&d->flushing);
	list_init(&d->timed_out);
	list_init(&d->draining);
	list_init(&d->throttled);
	share_init(&d->share);
}

int disk_new(const struct disk_params *p, struct disk **out)
{
	struct image_info image;
	struct fs_attr attr;
	struct disk *d;
	int err = fs_getattr(p->fs, p->id, &attr);

	if (!err && !S_ISREG(attr.mode))
		err = -EINVAL;
	if (!err)
		err = fs_image_info(p->fs, p->id, &image);
	d = err ? NULL : calloc(1, sizeof(*d));
	if (!d)
		return err ? err : -ENOMEM;
	d->p = *p;
	d->fs = p->fs;
	d->lower = p->lower;
	d->writable = !p->read_only && !image.frozen && !p->fs->read_only && !p->fs->rescue;
	d->name = strdup(p->name);
	d->ops = disk_ops;
	d->dev = (struct blkdev){ .ops = &d->ops, .env = p->fs->env };
	calls_init(d);
	env_mutex_init(p->fs->env, &d->control);
	env_mutex_init(p->fs->env, &d->mutex);
	env_cond_init(p->fs->env, &d->changed);
	err = d->name ? check_size(d, attr.size) : -ENOMEM;
	if (err) {
		disk_free(d);
		return err;
	}
	info_fill(d, &attr);
	*out = d;
	return 0;
}

void disk_let_go(struct disk *d)
{
	assert(!d->f);
	/* In use again by somebody else, it stays, and is given up when that one has done. */
	if (d->kept)
		cluster_evict(d->fs, &d->kept->cover.lock);
}

int disk_leave_to(struct disk *d, const struct lock_heir *heir)
{
	int err = 0;

	env_mutex_lock(d->fs->env, &d->control);
	if (!d->f)
		err = -ENOMEDIUM;
	else if (d->fs->lockd)
		lock_set_heir(d->fs->lockd, &d->f->ino->cover.lock, heir);
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

int disk_free_left(struct disk *d)
{
	int err = 0;

	env_mutex_lock(d->fs->env, &d->control);
	if (!d->f && d->kept && d->fs->lockd)
		err = lock_free_left(d->fs->lockd, &d->kept->cover.lock);
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

static void nothing(struct reactor_call *c)
{
	call_done(container_of(c, struct disk, call));
}

void disk_free(struct disk *d)
{
	if (!d)
		return;
	assert(!d->f);
	if (atomic_load(&d->was_abandoned))
		call(d, nothing);	/* behind what disk_abandon() posted */
	inode_put(d->fs, d->kept);
	env_cond_fini(d->fs->env, &d->changed);
	env_mutex_fini(d->fs->env, &d->mutex);
	env_mutex_fini(d->fs->env, &d->control);
	free(d->name);
	free(d);
}

struct blkdev *disk_blkdev(struct disk *d)
{
	return &d->dev;
}

/* ---- under its user's I/O ---- */

/*
 * The file, for a change from outside: paused under its user's I/O, or opened for the time, so that
 * who comes back to it finds that nobody else has had it.  @brief: 0, or FS_OPEN_BRIEF for work that
 * others need not hear of.  @open: what to give meddle_end().
 */
static int meddle_begin(struct disk *d, unsigned int brief, bool *open)
{
	int err = disk_pause(d, ENV_FOREVER);

	*open = err != -ENOMEDIUM;
	if (*open)
		return err;
	env_mutex_lock(d->fs->env, &d->control);
	*open = d->f;
	if (*open) {
		/* Opened just now. */
		env_mutex_unlock(d->fs->env, &d->control);
		return -EAGAIN;
	}
	err = open_file(d, NULL, brief, NULL);
	if (err)
		env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

static void meddle_end(struct disk *d, bool open)
{
	if (open) {
		disk_resume(d);
		return;
	}
	disk_keep_inode(d);
	fs_close(d->fs, d->f);
	d->f = NULL;
	env_mutex_unlock(d->fs->env, &d->control);
}

int disk_snapshot(struct disk *d, uint64_t dir, const char *name, const char *snap_name,
		  struct fs_attr *attr, uint64_t *pause_ns)
{
	uint64_t began;
	bool open;
	int err;

	/* What is to be flushed and committed need not all wait for the pause, nor be waited for. */
	if (blkdev_flush(&d->dev) == -ESTALE)
		return -EIO;
	began = env_now_ns(d->fs->env);
	err = meddle_begin(d, 0, &open);
	if (err)
		return err;
	err = d->writable ? fs_snapshot(d->fs, dir, name, snap_name, d->f, attr) : -EROFS;
	if (d->f->id != d->p.id) {
		/* It is an open of the new image now, in which nothing is yet. */
		__atomic_store_n(&d->p.id, d->f->id, __ATOMIC_RELAXED);
		if (open) {
			disk_fills_drop(d, 0, UINT64_MAX);
			extents_freeze(&d->map);
		}
	}
	meddle_end(d, open);
	*pause_ns = env_now_ns(d->fs->env) - began;
	return err;
}

int disk_merge_step(struct disk *d, struct merge *m)
{
	bool open;
	int err = meddle_begin(d, FS_OPEN_BRIEF, &open);

	if (err)
		return err;
	err = d->writable ? fs_merge_step(d->fs, d->f, m) : -EROFS;
	/* Which units were looked at is its business: from where it began to where it is now. */
	if (open && err == 1 && m->unit > m->first)
		disk_forget(d, m->first * UNIT_SIZE, (m->unit - m->first) * UNIT_SIZE);
	else if (open)
		disk_forget(d, 0, 0);
	d->map_changes++;
	d->moves++;
	meddle_end(d, open);
	return err;
}

static void grown(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);

	d->dev.info.size = file_size(d->f->ino);
	if (d->p.events.resized)
		d->p.events.resized(d->p.arg);
	call_done(d);
}

int disk_grow(struct disk *d, uint64_t size)
{
	uint64_t old = d->dev.info.size;
	int err = check_size(d, size);
	bool open = false;

	if (!err)
		err = meddle_begin(d, 0, &open);
	if (err)
		return err;
	if (size < old)
		err = -EINVAL;
	else if (!d->writable || d->p.multi)
		err = -EROFS;
	else
		err = file_truncate(d->fs, d->f->ino, size);
	if (!err)
		err = fs_fsync(d->fs, d->f, true);
	/* Its last block may have been cut by the old end. */
	if (open)
		disk_forget(d, old - old % UNIT_SIZE, UNIT_SIZE);
	call(d, grown);
	meddle_end(d, open);
	return fs_result(d->fs, err);
}

static void limited(struct reactor_call *c)
{
	struct disk *d = container_of(c, struct disk, call);

	disk_limits_init(d, &d->new_limits);
	if (d->p.reactor && !list_empty(&d->throttled))
		reactor_timer_set(d->p.reactor, &d->throttle, disk_now_ns(d));
	call_done(d);
}

void disk_set_limits(struct disk *d, const struct disk_limits *limits)
{
	env_mutex_lock(d->fs->env, &d->control);
	d->new_limits = *limits;
	d->p.limits = *limits;
	if (d->f)
		call(d, limited);
	env_mutex_unlock(d->fs->env, &d->control);
}

void disk_stats(struct disk *d, struct disk_stats *stats)
{
	const struct disk_stats *s = &d->stats;

	for (unsigned int op = 0; op < DISK_OPS; op++) {
		stats->ops[op] = __atomic_load_n(&s->ops[op], __ATOMIC_RELAXED);
		stats->bytes[op] = __atomic_load_n(&s->bytes[op], __ATOMIC_RELAXED);
		stats->latency_ns[op] = __atomic_load_n(&s->latency_ns[op], __ATOMIC_RELAXED);
		for (unsigned int i = 0; i < DISK_LATENCIES; i++)
			stats->latency[op][i] = __atomic_load_n(&s->latency[op][i],
								__ATOMIC_RELAXED);
	}
	stats->errors = __atomic_load_n(&s->errors, __ATOMIC_RELAXED);
	stats->misses = __atomic_load_n(&s->misses, __ATOMIC_RELAXED);
	stats->first_writes = __atomic_load_n(&s->first_writes, __ATOMIC_RELAXED);
	stats->slow = __atomic_load_n(&s->slow, __ATOMIC_RELAXED);
	stats->pieces = __atomic_load_n(&s->pieces, __ATOMIC_RELAXED);
	stats->throttled = __atomic_load_n(&s->throttled, __ATOMIC_RELAXED);
	stats->share_waits = __atomic_load_n(&s->share_waits, __ATOMIC_RELAXED);
	stats->map_bytes = __atomic_load_n(&s->map_bytes, __ATOMIC_RELAXED);
	stats->in_flight = __atomic_load_n(&s->in_flight, __ATOMIC_RELAXED);
	stats->open = __atomic_load_n(&s->open, __ATOMIC_RELAXED);
	stats->paused = __atomic_load_n(&s->paused, __ATOMIC_RELAXED);
	stats->no_space = __atomic_load_n(&s->no_space, __ATOMIC_RELAXED);
	stats->lost = __atomic_load_n(&s->lost, __ATOMIC_RELAXED);
}
