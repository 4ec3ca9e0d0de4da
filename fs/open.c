// SPDX-License-Identifier: Apache-2.0
/*
 * Open files.  An open keeps the file's cluster lock for its life: shared to read, exclusive
 * to write, multi-writer for files that allow it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/mutant.h"
#include "fs/image.h"
#include "fs/internal.h"

#define OPEN_TRIES	8u
#define MULTI_COPY_BYTES	(1 * MIB)

/* ---- who is in the way ---- */

static void format_time(uint64_t realtime_ns, char *buf, size_t size)
{
	time_t seconds = (time_t)(realtime_ns / NSEC_PER_SEC);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || !strftime(buf, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, size, "an unknown time");
}

/* "ds1:/vm1/disk.img: held for writing by beta (qemu, pid 77) since …; close it there or wait" */
static void open_log_busy(struct fs *fs, uint64_t id, const struct lock_holder *h)
{
	static const char *const doing[] = {
		[LOCK_FREE] = "in use", [LOCK_SHARED] = "held for reading",
		[LOCK_EXCLUSIVE] = "held for writing", [LOCK_MULTI] = "held by several writers",
	};
	char path[1024], object[sizeof(path) + LABEL_MAX + 2], since[40];

	fs_path(fs, id, path, sizeof(path));
	snprintf(object, sizeof(object), "%s:%s", fs->label, path);
	if (!h->host_name[0]) {
		log_warning(fs->env, object, "in use: by a virtual disk of this host (\"lunfs disk "
			    "list\"), by a program here (fuser), for copying, or by another host; close "
			    "it there or wait");
		return;
	}
	format_time(h->since, since, sizeof(since));
	log_warning(fs->env, object, "%s by %s (%s, pid %u) since %s; close it there or wait",
		    doing[h->mode & 3], h->host_name, h->comm[0] ? h->comm : "unknown", h->pid,
		    since);
}

/* ---- opening ---- */

/* Which lock mode an open with @flags needs. */
static int open_choose_mode(struct fs *fs, uint64_t id, unsigned int flags, enum lock_mode *mode)
{
	struct inode_disk *di = blkdev_alloc(BLOCK_SIZE);
	bool multi;
	int err;

	if (!di)
		return -ENOMEM;
	err = inode_peek(fs, id, di);
	/* A new file, open elsewhere and not at home yet: the lock says who has it. */
	if (err == -EBUSY) {
		memset(di, 0, sizeof(*di));
		di->mode = cpu_to_le32(S_IFREG);
		err = 0;
	}
	multi = le32_to_cpu(di->flags) & INODE_MULTI;
	if (!err && flags & FS_OPEN_WRITE && le32_to_cpu(di->flags) & INODE_FROZEN)
		err = -EPERM;	/* a snapshot */
	else if (!err && S_ISDIR(le32_to_cpu(di->mode)))
		err = -EISDIR;
	else if (!err && !S_ISREG(le32_to_cpu(di->mode)))
		err = -EINVAL;
	else if (!err && (flags & FS_OPEN_MULTI) && !multi)
		err = -EPERM;
	*mode = multi ? LOCK_MULTI : flags & FS_OPEN_WRITE ? LOCK_EXCLUSIVE : LOCK_SHARED;
	free(di);
	return err;
}

/* What the file allows, now that its lock is ours; open_choose_mode() only guessed. */
static int open_check(const struct inode_disk *di, enum lock_mode mode)
{
	uint32_t flags = le32_to_cpu(di->flags);

	if (flags & INODE_MERGING)
		return -ESTALE;
	if (flags & INODE_FROZEN && mode == LOCK_EXCLUSIVE)
		return -EPERM;
	return !!(flags & INODE_MULTI) != (mode == LOCK_MULTI) ? -EAGAIN : 0;
}

/* A brief one is sole, too, if it wants to; and then it is the only one. */
static bool is_sole_for_long(const struct inode *ino)
{
	return ino->sole && !ino->briefs;
}

/*
 * What opens of this host keep from each other; other hosts know the lock.  open_mutex held.
 * -EINPROGRESS: only a brief one is in the way.
 */
static int open_share(struct inode *ino, const struct fs_file *f)
{
	bool write = f->flags & FS_OPEN_WRITE, deny = f->flags & FS_OPEN_DENY_WRITE;
	bool sole = f->flags & FS_OPEN_SOLE, brief = f->flags & FS_OPEN_BRIEF;

	if (is_sole_for_long(ino) || (write && ino->write_denied) ||
	    (deny && (ino->writers > ino->briefs || f->mode == LOCK_MULTI)) ||
	    (sole && (ino->opens > ino->briefs || ino->writers > ino->briefs)) ||
	    (brief && (ino->brief_waiters || ino->briefs)))
		return -EBUSY;
	if (ino->briefs && (ino->sole || deny || sole))
		return -EINPROGRESS;
	ino->writers += write;
	ino->briefs += brief;
	ino->write_denied += deny;
	ino->sole = sole;
	ino->writers_ever += write;
	return 0;
}

void inode_open_move(struct fs_file *f, struct inode *to)
{
	struct inode *from = f->ino;

	to->opens++;
	to->writers++;
	to->writers_ever++;
	to->sole = from->sole;
	from->writers--;
	from->sole = false;
	f->ino = to;
	f->id = to->id;
}

void inode_brief_bar(struct fs *fs, struct inode *ino)
{
	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->brief_waiters++;
	while (ino->briefs)
		env_cond_wait(fs->env, &fs->brief_over, &fs->open_mutex, ENV_FOREVER);
	env_mutex_unlock(fs->env, &fs->open_mutex);
}

void inode_brief_unbar(struct fs *fs, struct inode *ino)
{
	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->brief_waiters--;
	env_mutex_unlock(fs->env, &fs->open_mutex);
}

int inode_writer_enter(struct fs *fs, struct inode *ino)
{
	int err = 0;

	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->brief_waiters++;
	while (ino->sole && ino->briefs)
		env_cond_wait(fs->env, &fs->brief_over, &fs->open_mutex, ENV_FOREVER);
	ino->brief_waiters--;
	if (ino->sole || ino->write_denied) {
		err = -EBUSY;
	} else {
		ino->writers++;
		ino->writers_ever++;
	}
	env_mutex_unlock(fs->env, &fs->open_mutex);
	return err;
}

void inode_writer_forget(struct fs *fs, struct inode *ino)
{
	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->writers_ever--;
	env_mutex_unlock(fs->env, &fs->open_mutex);
}

void inode_writer_leave(struct fs *fs, struct inode *ino)
{
	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->writers--;
	env_mutex_unlock(fs->env, &fs->open_mutex);
}

/* The lock is ours: is this still the file, and the mode right?  Counts the open. */
static int open_enter(struct fs *fs, const struct fs_file *f)
{
	const struct inode_disk *di;
	struct inode *ino = f->ino;
	uint64_t id = f->id;
	int err;

	err = inode_load(fs, ino);
	if (err)
		return err;
	env_rwlock_rdlock(fs->env, &ino->rwlock);
	di = ino->loaded ? inode_disk(ino) : NULL;
	env_mutex_lock(fs->env, &fs->open_mutex);
	if (!di)
		err = -ESTALE;	/* our slot was lost this moment */
	else if (!le32_to_cpu(di->mode) || ino->id != id ||
	    (le32_to_cpu(di->nlink) == 0 && ino->opens == 0))
		err = -ESTALE;
	else
		err = open_check(di, f->mode);
	if (!err)
		err = open_share(ino, f);
	if (!err)
		ino->opens++;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return err;
}

void inode_open_leave(struct fs *fs, struct inode *ino, uint64_t id)
{
	bool kick = false;

	env_mutex_lock(fs->env, &fs->open_mutex);
	if (--ino->opens == 0) {
		kick = ino->delete_on_close;
		ino->delete_on_close = false;
	}
	env_mutex_unlock(fs->env, &fs->open_mutex);
	if (kick)
		orphan_kick(fs, id);
}

static void open_leave(struct fs *fs, struct fs_file *f)
{
	env_mutex_lock(fs->env, &fs->open_mutex);
	f->ino->writers -= !!(f->flags & FS_OPEN_WRITE);
	f->ino->write_denied -= !!(f->flags & FS_OPEN_DENY_WRITE);
	if (f->flags & FS_OPEN_SOLE)
		f->ino->sole = false;
	if (f->flags & FS_OPEN_BRIEF) {
		f->ino->briefs--;
		env_cond_broadcast(fs->env, &fs->brief_over);
	}
	env_mutex_unlock(fs->env, &fs->open_mutex);
	inode_open_leave(fs, f->ino, f->id);
}

/* A truncation that a crash cut short ends before anybody writes. */
static int open_settle_shrink(struct fs *fs, struct inode *ino, uint64_t id)
{
	int err;

	err = inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL);
	if (err)
		return err;
	err = orphan_settle_shrink(fs, ino);
	inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	return err;
}

static int open_ready_to_write(struct fs *fs, struct fs_file *f)
{
	int err = 0;

	if (f->mode == LOCK_MULTI)
		return f->flags & FS_OPEN_TRUNCATE ? -EPERM : 0;
	if (f->mode == LOCK_EXCLUSIVE)
		err = open_settle_shrink(fs, f->ino, f->id);
	if (!err && (f->flags & FS_OPEN_TRUNCATE))
		err = file_truncate(fs, f->ino, 0);
	return err;
}

/* ---- what front ends have cached ---- */

/* What anybody has cached of the contents may be old.  open_mutex held. */
static void cache_doubt(struct inode *ino, const void *cache)
{
	__atomic_store_n(&ino->cache, cache, __ATOMIC_RELAXED);
	ino->cache_known = false;
	ino->cache_gen++;
}

/* lockd answers once for each change of holders: nobody may believe its next answer before. */
static bool cache_unchanged(struct fs *fs, struct inode *ino)
{
	bool unchanged;

	env_mutex_lock(fs->env, &fs->open_mutex);
	unchanged = !fs->lockd || lock_unchanged(fs->lockd, &ino->cover.lock);
	if (!unchanged)
		cache_doubt(ino, NULL);
	env_mutex_unlock(fs->env, &fs->open_mutex);
	return unchanged;
}

bool fs_cache_open(struct fs *fs, struct fs_file *f, const void *cache)
{
	struct inode *ino = f->ino;

	if (!ino)
		return false;
	env_mutex_lock(fs->env, &fs->open_mutex);
	f->kept = f->kept && cache && ino->cache == cache && ino->cache_known;
	if (!f->kept)
		cache_doubt(ino, cache);
	f->cache = cache;
	f->cache_gen = ino->cache_gen;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	return f->kept;
}

void fs_cache_opened(struct fs *fs, struct fs_file *f)
{
	if (!f->cache || __atomic_load_n(&f->kept, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&f->kept, true, __ATOMIC_RELAXED))
		return;
	env_mutex_lock(fs->env, &fs->open_mutex);
	if (f->ino->cache_gen == f->cache_gen)
		f->ino->cache_known = true;
	env_mutex_unlock(fs->env, &fs->open_mutex);
}

/*
 * @f has changed the contents.  Several caches of this host are told after each write, for the
 * sake of what is open; of one alone it need only be known that a write has passed it by.
 */
static void cache_written(struct fs *fs, struct fs_file *f)
{
	if (!fs_cache_is_elsewhere(fs, f))
		return;
	env_mutex_lock(fs->env, &fs->open_mutex);
	cache_doubt(f->ino, NULL);
	env_mutex_unlock(fs->env, &fs->open_mutex);
	if (__atomic_load_n(&fs->caches, __ATOMIC_RELAXED) > 1 && fs->invalidate)
		fs->invalidate(fs->invalidate_arg, f->id);
}

/* ---- opening, on ---- */

/* Other hosts wait for the end of a brief one, as for a lock that is merely cached. */
static unsigned int lock_flags(const struct fs_file *f)
{
	return f->flags & FS_OPEN_BRIEF ? 0 : LOCK_OPEN;
}

static int open_try(struct fs *fs, struct fs_file *f, const struct fs_cred *cred,
		    struct lock_holder *holder)
{
	struct lock *lock = &f->ino->cover.lock;
	int err = open_choose_mode(fs, f->id, f->flags, &f->mode);

	if (err)
		return err;
	if (fs->lockd && cred)
		lock_set_user(fs->lockd, lock, cred->pid, cred->comm);
	err = cluster_get(fs, lock, f->mode, lock_flags(f), holder);
	if (err)
		return err;
	err = open_enter(fs, f);
	if (err)
		cluster_put(fs, lock, f->mode, lock_flags(f));
	return err;
}

static int open_locked(struct fs *fs, struct fs_file *f, const struct fs_cred *cred,
		       struct lock_holder *holder)
{
	struct lock *lock = &f->ino->cover.lock;
	bool barred = false;
	unsigned int i;
	int err = -EAGAIN;

	for (i = 0; i < OPEN_TRIES && err == -EAGAIN; i++) {
		err = open_try(fs, f, cred, holder);
		if (err != -EINPROGRESS)
			continue;
		/* Once: while it is barred no other begins.  It is no try, or the last one would tell. */
		assert(!barred);
		inode_brief_bar(fs, f->ino);
		barred = true;
		err = open_try(fs, f, cred, holder);
	}
	if (barred)
		inode_brief_unbar(fs, f->ino);
	if (err)
		return err;
	f->kept = cache_unchanged(fs, f->ino);
	err = image_open(fs, f->ino);
	f->chained = err > 0;
	if (err >= 0)
		err = open_ready_to_write(fs, f);
	if (!err)
		return 0;
	if (f->chained)
		image_close(fs, f->ino);
	if (f->flags & FS_OPEN_WRITE && !(f->flags & FS_OPEN_TRUNCATE))
		inode_writer_forget(fs, f->ino);
	open_leave(fs, f);
	cluster_put(fs, lock, f->mode, lock_flags(f));
	return err;
}

static int open_rescue(struct fs *fs, struct fs_file *f)
{
	enum lock_mode mode;

	return open_choose_mode(fs, f->id, f->flags, &mode);
}

int fs_open(struct fs *fs, uint64_t id, unsigned int flags, const struct fs_cred *cred,
	    struct fs_file **out, struct lock_holder *holder)
{
	struct lock_holder nobody = { 0 }, *h = holder ? holder : &nobody;
	struct fs_file *f;
	int err;

	if (flags & FS_OPEN_TRUNCATE)
		flags |= FS_OPEN_WRITE;
	err = flags & FS_OPEN_WRITE ? fs_may_write(fs) : fs_may_read(fs);
	if (err)
		return err;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	memset(h, 0, sizeof(*h));
	f->id = id;
	f->flags = flags;
	if (fs->rescue) {
		err = open_rescue(fs, f);
	} else {
		err = inode_get(fs, inode_id_number(id), &f->ino);
		if (!err) {
			err = open_locked(fs, f, cred, h);
			if (err)
				inode_put(fs, f->ino);
		}
	}
	if (err == -EBUSY && !fs_is_lost(fs) && !(flags & FS_OPEN_BRIEF))
		open_log_busy(fs, id, h);
	if (err)
		free(f);
	else
		*out = f;
	return fs_result(fs, err);
}

int fs_close(struct fs *fs, struct fs_file *f)
{
	int err = 0;

	if (f->ino) {
		if (f->mode == LOCK_EXCLUSIVE && !fs_is_lost(fs))
			err = inode_flush_times(fs, f->ino);
		if (f->chained)
			image_close(fs, f->ino);
		cluster_put(fs, &f->ino->cover.lock, f->mode, lock_flags(f));
		open_leave(fs, f);
		inode_put(fs, f->ino);
	}
	free(f);
	return fs_result(fs, err);
}

/* ---- contents ---- */

int fs_read(struct fs *fs, struct fs_file *f, uint64_t off, void *buf, size_t len, size_t *done)
{
	int err = fs_may_read(fs);

	if (err)
		return err;
	if (fs->rescue)
		return file_read_unlocked(fs, f->id, off, buf, len, done);
	err = file_read(fs, f->ino, off, buf, len, done);
	/* What needed no device, zeros and inline data, waits for the lease as all else does (R2). */
	if (!err && fs->lockd && !MUTANT("zeros-without-lease"))
		err = lockd_wait_lease(fs->lockd);
	return fs_result(fs, err);
}

/* Whole blocks that exist, from an aligned copy: file_write() then changes data only. */
static int write_multi_copied(struct fs *fs, struct fs_file *f, uint64_t off, const uint8_t *buf,
			      size_t len, size_t *done)
{
	size_t room = len < MULTI_COPY_BYTES ? len : MULTI_COPY_BYTES, total = 0, part, n;
	void *copy = blkdev_alloc(room);
	int err = copy ? 0 : -ENOMEM;

	while (!err && total < len) {
		part = len - total < room ? len - total : room;
		memcpy(copy, buf + total, part);
		err = file_write(fs, f->ino, off + total, copy, part, false, &n);
		if (!err)
			total += n;
	}
	free(copy);
	*done = total;
	return total ? 0 : err;
}

/*
 * Of several writers nobody may change size or map (R1), and nobody may read, change and
 * write back a part of a block: another host could be doing the same.
 */
static int write_multi(struct fs *fs, struct fs_file *f, uint64_t off, const void *buf,
		       size_t len, bool append, size_t *done)
{
	uint64_t size;

	env_rwlock_rdlock(fs->env, &f->ino->rwlock);
	size = f->ino->loaded ? le64_to_cpu(inode_disk(f->ino)->size) : 0;
	env_rwlock_rdunlock(fs->env, &f->ino->rwlock);
	if (append || off > size || len > size - off)
		return -EPERM;
	if ((off % BLOCK_SIZE || len % BLOCK_SIZE) && !MUTANT("multi-in-parts"))
		return -EINVAL;
	return write_multi_copied(fs, f, off, buf, len, done);
}

int fs_write(struct fs *fs, struct fs_file *f, uint64_t off, const void *buf, size_t len,
	     bool append, size_t *done)
{
	int err;

	err = fs_may_write(fs);
	if (err)
		return err;
	if (!(f->flags & FS_OPEN_WRITE))
		return -EBADF;
	if (f->mode == LOCK_MULTI)
		return fs_result(fs, write_multi(fs, f, off, buf, len, append, done));
	err = file_write(fs, f->ino, off, buf, len, append, done);
	if (err == -ENOSPC && fs_make_space(fs))
		err = file_write(fs, f->ino, off, buf, len, append, done);
	cache_written(fs, f);
	return fs_result(fs, err);
}

int fs_fsync(struct fs *fs, struct fs_file *f, bool data_only)
{
	int err = fs_may_read(fs);

	if (err || fs->rescue)
		return err;
	return fs_result(fs, file_fsync(fs, f->ino, data_only));
}

int fs_fallocate(struct fs *fs, struct fs_file *f, unsigned int file_flags, uint64_t off,
		 uint64_t len)
{
	int err;

	err = fs_may_write(fs);
	if (err)
		return err;
	if (!(f->flags & FS_OPEN_WRITE))
		return -EBADF;
	if (f->mode == LOCK_MULTI)
		return -EPERM;
	err = file_allocate(fs, f->ino, file_flags, off, len);
	if (err == -ENOSPC && fs_make_space(fs))
		err = file_allocate(fs, f->ino, file_flags, off, len);
	cache_written(fs, f);
	return fs_result(fs, err);
}

int fs_seek(struct fs *fs, struct fs_file *f, uint64_t off, int whence, uint64_t *found)
{
	int err = fs_may_read(fs);

	if (err)
		return err;
	if (fs->rescue)
		return -EOPNOTSUPP;
	return fs_result(fs, file_seek(fs, f->ino, off, whence, found));
}

int fs_drop_zeros(struct fs *fs, struct fs_file *f, uint64_t *unit, void *buf, uint64_t *dropped)
{
	int err = fs_may_write(fs);

	if (err)
		return err;
	return f->mode != LOCK_EXCLUSIVE ? -EBADF :
	       fs_result(fs, file_drop_zeros(fs, f->ino, unit, buf, dropped));
}
