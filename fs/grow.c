/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/grow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "fs/ag.h"
#include "fs/cluster.h"
#include "fs/internal.h"
#include "fs/mkfs.h"

#define LOCK_TRIES	12	/* of 5 s each: renames of other hosts take it for a moment */

/* ---- knowing the newest ---- */

uint64_t fs_super_version(struct fs *fs)
{
	return __atomic_load_n(&fs->super.version, __ATOMIC_ACQUIRE);
}

void fs_super_copy(struct fs *fs, struct super *out)
{
	env_mutex_lock(fs->env, &fs->super_mutex);
	*out = fs->super;
	env_mutex_unlock(fs->env, &fs->super_mutex);
}

/* super_mutex held.  The size first: see super_ag_count(). */
static void publish(struct fs *fs, const struct super *s)
{
	__atomic_store_n(&fs->super.size, s->size, __ATOMIC_RELAXED);
	__atomic_store_n(&fs->super.ag_count, s->ag_count, __ATOMIC_RELEASE);
	__atomic_store_n(&fs->super.version, s->version, __ATOMIC_RELEASE);
}

/* The same volume, and nothing but its size is another. */
static bool is_grown(const struct super *old, const struct super *s)
{
	struct super as_old = *s;

	as_old.size = old->size;
	as_old.ag_count = old->ag_count;
	as_old.version = old->version;
	return s->size >= old->size && s->ag_count >= old->ag_count &&
	       !memcmp(as_old.volume, old->volume, 16) && as_old.ag_addr == old->ag_addr &&
	       as_old.ag_size == old->ag_size && as_old.copy_addr == old->copy_addr &&
	       as_old.slot_count == old->slot_count && as_old.slots_addr == old->slots_addr &&
	       as_old.journals_addr == old->journals_addr &&
	       as_old.journal_size == old->journal_size;
}

/* super_mutex held. */
static int take_newest(struct fs *fs, struct blkdev *dev, const struct super *s)
{
	char a[24], b[24];

	if (s->version <= fs->super.version)
		return 0;
	if (!is_grown(&fs->super, s)) {
		log_error(fs->env, fs->label, "the superblock on %s is not that of the volume any "
			  "more: detach it here, and run fsck.lunfs", dev->info.name);
		return -EUCLEAN;
	}
	if (blkdev_size(dev) < s->size)
		(void)blkdev_refresh(dev);
	if (blkdev_size(dev) < s->size) {
		log_error(fs->env, fs->label, "the volume was grown to %s, but here %s has only "
			  "%s: rescan the device on this host", text_format_size(s->size, a, sizeof(a)),
			  dev->info.name, text_format_size(blkdev_size(dev), b, sizeof(b)));
		return -ENXIO;
	}
	if (s->size != fs->super.size)
		log_info(fs->env, fs->label, "the volume has grown to %s",
			 text_format_size(s->size, a, sizeof(a)));
	publish(fs, s);
	return 0;
}

int fs_super_refresh_by(struct fs *fs, struct blkdev *dev)
{
	struct super s;
	int err;

	env_mutex_lock(fs->env, &fs->super_mutex);
	err = super_find(dev, &s, NULL, 0);
	if (!err)
		err = take_newest(fs, dev, &s);
	env_mutex_unlock(fs->env, &fs->super_mutex);
	return err;
}

int fs_super_refresh(struct fs *fs)
{
	return fs_super_refresh_by(fs, fs->dev);
}

bool fs_is_space(struct fs *fs, uint64_t block, uint64_t count)
{
	return super_is_space(&fs->super, block, count) ||
	       (!fs_super_refresh(fs) && super_is_space(&fs->super, block, count));
}

/* ---- the superblock's lock ---- */

/* Renames of this host take the mutex first, too. */
static int lock_super(struct fs *fs, unsigned int tries)
{
	int err;

	env_mutex_lock(fs->env, &fs->rename_mutex);
	do {
		err = cluster_get(fs, &fs->super_cover.lock, LOCK_EXCLUSIVE, 0, NULL);
	} while (err == -EBUSY && --tries);
	if (err)
		env_mutex_unlock(fs->env, &fs->rename_mutex);
	return err;
}

static void unlock_super(struct fs *fs)
{
	cluster_put(fs, &fs->super_cover.lock, LOCK_EXCLUSIVE, 0);
	env_mutex_unlock(fs->env, &fs->rename_mutex);
}

/*
 * A write that timed out may land when the lock is somebody else's (R4): it has to be accounted
 * for before, or this host goes.
 */
static int account_for(struct fs *fs, int err)
{
	if (err && blkdev_drain(fs->dev) && fs->lockd)
		lockd_fail(fs->lockd, "a write of the superblock that timed out can neither be ended "
			   "nor waited for");
	return err;
}

/* The superblock's lock held: every copy says what the newest does. */
static int heal_locked(struct fs *fs)
{
	struct super s;
	int whole;

	fs_super_copy(fs, &s);
	whole = super_is_whole(fs->dev, &s);
	if (whole)
		return whole > 0 ? 0 : whole;
	log_info(fs->env, fs->label, "the superblock's copies are written anew: a host crashed "
		 "while it changed them, or one was damaged");
	return account_for(fs, super_write(fs->dev, &s));
}

void fs_super_heal(struct fs *fs)
{
	struct super s;

	fs_super_copy(fs, &s);
	if (super_is_whole(fs->dev, &s) != 0 || lock_super(fs, 1))
		return;
	/* Whoever had the lock meanwhile may have done it, or more. */
	if (!fs_super_refresh(fs))
		(void)heal_locked(fs);
	unlock_super(fs);
}

/* ---- growing ---- */

static int too_many(struct fs *fs, const struct super *s, char *why, size_t why_size)
{
	uint64_t most = s->ag_addr + (uint64_t)AG_COUNT_MAX * s->ag_size + 3 * BLOCK_SIZE;
	char a[24], b[24];

	return text_refuse(-E2BIG, why, why_size, "%s: a volume of groups of %s has %s at most: grow "
			   "it to that with --size, or make a new one of what is beyond", fs->label,
			   text_format_size(s->ag_size, a, sizeof(a)),
			   text_format_size(most, b, sizeof(b)));
}

/* What the superblock will say.  Return: 1; 0 there is nothing to be had; negative errno. */
static int plan(struct fs *fs, uint64_t size, struct super *s, char *why, size_t why_size)
{
	uint64_t all = blkdev_size(fs->dev), groups;
	char a[24], b[24];
	struct super now;

	fs_super_copy(fs, &now);
	*s = now;
	if (size > all)
		return text_refuse(-ENOSPC, why, why_size, "%s: %s has only %s, not %s: grow the device "
				   "first", fs->label, fs->raw->info.name,
				   text_format_size(all, a, sizeof(a)),
				   text_format_size(size, b, sizeof(b)));
	if (size && size < now.size)
		return text_refuse(-EINVAL, why, why_size, "%s: it has %s; a volume is not made smaller",
				   fs->label, text_format_size(now.size, a, sizeof(a)));
	s->size = ALIGN_DOWN(size ? size : all, (uint64_t)BLOCK_SIZE);
	groups = super_groups_fitting(s);
	if (groups > AG_COUNT_MAX)
		return too_many(fs, s, why, why_size);
	s->ag_count = (uint32_t)groups;
	s->version++;
	/* A little that makes no group would only move a copy. */
	return s->size > now.size && (s->ag_count > now.ag_count ||
		super_ag_blocks(s, now.ag_count - 1) > super_ag_blocks(&now, now.ag_count - 1));
}

/* Superblock locked: what is new there is nobody's yet. */
static int grow_locked(struct fs *fs, const struct super *s)
{
	struct super now;
	int err;

	fs_super_copy(fs, &now);
	err = mkfs_groups(fs->env, fs->dev, s, now.ag_count);
	if (!err)
		err = blkdev_flush(fs->dev);
	if (!err)
		err = super_write(fs->dev, s);
	if (account_for(fs, err))
		return err;
	env_mutex_lock(fs->env, &fs->super_mutex);
	publish(fs, s);
	env_mutex_unlock(fs->env, &fs->super_mutex);
	return 0;
}

/* The group that was the last, and any other that a crash or a busy host left short. */
static int extend_groups(struct fs *fs)
{
	uint32_t count = super_ag_count(&fs->super);
	struct ag *ag;
	int err = 0;

	for (uint32_t i = 0; i < count && !err; i++) {
		if (!alloc_is_short(fs, i))
			continue;
		err = ag_get(fs, i, &ag);
		if (!err)
			err = ag_pin(fs, ag, 0);
		if (err)
			break;
		err = ag_extend(ag);
		ag_unpin(fs, ag);
	}
	/* A group that another host has in use gets its space when that looks for some. */
	return err == -EBUSY || err == -EAGAIN ? 0 : err;
}

int fs_grow(struct fs *fs, uint64_t size, uint64_t *old, uint64_t *now, char *why, size_t why_size)
{
	struct super s;
	int err = fs_may_write(fs), more;

	if (!err)
		err = blkdev_refresh(fs->dev);
	if (!err || err == -ENOTSUP)
		err = lock_super(fs, LOCK_TRIES);
	if (err)
		return fs_result(fs, err);
	err = fs_super_refresh(fs);
	*old = super_size(&fs->super);
	more = err ? err : plan(fs, size, &s, why, why_size);
	err = more > 0 ? grow_locked(fs, &s) : more ? more : heal_locked(fs);
	unlock_super(fs);
	if (!err)
		err = extend_groups(fs);
	if (!err)
		err = journal_commit(fs, journal_last_id(fs));
	*now = super_size(&fs->super);
	return fs_result(fs, err);
}
