// SPDX-License-Identifier: Apache-2.0
/*
 * rename(2), renameat2(2).
 *
 * A directory that changes its parent could, with another such move at the same time, become
 * its own ancestor.  So these moves, and only these, are serialised through the whole
 * cluster by the superblock's lock, taken before any inode lock (docs/LOCKING.md); under it
 * the ancestors of the new parent are looked at.
 */
#include <dirent.h>
#include <stdio.h>	/* RENAME_NOREPLACE, RENAME_EXCHANGE */
#include <stdlib.h>

#include "fs/internal.h"

#define BUSY_TRIES	3u	/* of waiting for a group */
#define BUSY_BACKOFF_MS	100u
#define ANCESTORS_MAX	65536u	/* deeper than any tree: parents that run in a circle */

enum { DIR_OLD, DIR_NEW, SOURCE, TARGET };

struct renaming {
	struct fs *fs;
	const char *name, *new_name;
	size_t len, new_len;
	unsigned int flags;
	struct inode *inos[4];	/* by the enum above; TARGET NULL: the new name is free */
	uint64_t ids[4];
	uint8_t	types[4];	/* DT_*, of SOURCE and TARGET */
	bool	moves_lock;	/* the superblock's lock is ours */
	bool	unlinked;	/* the target's last name went */
	unsigned int busy;	/* how often a group could not be had in time */
	/* Held from the reservations on. */
	struct alloc_hold hold;
	struct alloc_pin pin;
	unsigned int credits;
};

static bool rename_exchanges(const struct renaming *r)
{
	return r->flags & RENAME_EXCHANGE;
}

/* ---- finding ---- */

static int rename_lookup(struct renaming *r)
{
	struct dirent_info info;
	int err;

	err = dir_lookup_hint(r->fs, r->ids[DIR_OLD], r->name, r->len, &info);
	if (err)
		return err;
	r->ids[SOURCE] = info.id;
	r->types[SOURCE] = info.type;
	err = dir_lookup_hint(r->fs, r->ids[DIR_NEW], r->new_name, r->new_len, &info);
	if (err && err != -ENOENT)
		return err;
	if (err && rename_exchanges(r))
		return err;
	r->ids[TARGET] = err ? 0 : info.id;
	r->types[TARGET] = err ? DT_UNKNOWN : info.type;
	return 0;
}

/* Under the locks: do the names still mean what was locked?  -EAGAIN if not. */
static int rename_recheck(struct renaming *r)
{
	struct dirent_info info;
	int err;

	err = dir_lookup(r->fs, r->inos[DIR_OLD], r->name, r->len, &info);
	if (err)
		return err;
	if (info.id != r->ids[SOURCE] || info.type != r->types[SOURCE])
		return -EAGAIN;
	err = dir_lookup(r->fs, r->inos[DIR_NEW], r->new_name, r->new_len, &info);
	if (err && err != -ENOENT)
		return err;
	if (err)
		info.id = 0;
	return info.id == r->ids[TARGET] ? 0 : -EAGAIN;
}

/* ---- directories that change parents ---- */

static bool rename_moves_dir(const struct renaming *r)
{
	return r->ids[DIR_OLD] != r->ids[DIR_NEW] &&
	       (r->types[SOURCE] == DT_DIR ||
		(rename_exchanges(r) && r->types[TARGET] == DT_DIR));
}

static int rename_lock_moves(struct renaming *r)
{
	struct fs *fs = r->fs;
	int err;

	if (r->moves_lock)
		return 0;
	env_mutex_lock(fs->env, &fs->rename_mutex);
	err = cluster_get(fs, &fs->super_cover.lock, LOCK_EXCLUSIVE, 0, NULL);
	if (err)
		env_mutex_unlock(fs->env, &fs->rename_mutex);
	else
		r->moves_lock = true;
	return err;
}

static void rename_unlock_moves(struct renaming *r)
{
	if (!r->moves_lock)
		return;
	cluster_put(r->fs, &r->fs->super_cover.lock, LOCK_EXCLUSIVE, 0);
	env_mutex_unlock(r->fs->env, &r->fs->rename_mutex);
	r->moves_lock = false;
}

/* Whether @id is @below or one of its ancestors: 1, 0 or an error.  Moves are locked out. */
static int rename_is_above(struct fs *fs, uint64_t id, uint64_t below)
{
	unsigned int i;
	int err;

	for (i = 0; i < ANCESTORS_MAX; i++) {
		if (below == id)
			return 1;
		if (below == fs->super.root)
			return 0;
		err = fs_parent(fs, below, &below);
		if (err)
			return err == -ESTALE ? -ENOENT : err;
	}
	return -EUCLEAN;
}

static int rename_check_loop(struct renaming *r)
{
	int above = 0;

	if (r->types[SOURCE] == DT_DIR)
		above = rename_is_above(r->fs, r->ids[SOURCE], r->ids[DIR_NEW]);
	if (above == 0 && rename_exchanges(r) && r->types[TARGET] == DT_DIR)
		above = rename_is_above(r->fs, r->ids[TARGET], r->ids[DIR_OLD]);
	return above == 1 ? -EINVAL : above;
}

/* ---- rules ---- */

static bool is_dir(const struct inode *ino)
{
	return S_ISDIR(le32_to_cpu(inode_disk(ino)->mode));
}

static int rename_check_target(const struct renaming *r)
{
	const struct inode *source = r->inos[SOURCE], *target = r->inos[TARGET];

	if (!target || rename_exchanges(r))
		return 0;
	if (r->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (is_dir(source) && !is_dir(target))
		return -ENOTDIR;
	if (!is_dir(source) && is_dir(target))
		return -EISDIR;
	if (is_dir(target) && !dir_is_empty(target))
		return -ENOTEMPTY;
	if (le32_to_cpu(inode_disk(target)->nlink) == 0)
		return -EUCLEAN;
	return 0;
}

/* Each directory that comes in without one going out adds a link. */
static int rename_check_links(const struct renaming *r)
{
	bool source = is_dir(r->inos[SOURCE]), target = r->inos[TARGET] && is_dir(r->inos[TARGET]);
	const struct inode *gains = NULL;

	if (source && !target)
		gains = r->inos[DIR_NEW];
	else if (target && !source)
		gains = r->inos[DIR_OLD];
	if (!gains || r->inos[DIR_OLD] == r->inos[DIR_NEW])
		return 0;
	return le32_to_cpu(inode_disk(gains)->nlink) >= LINK_COUNT_MAX ? -EMLINK : 0;
}

static int rename_check(const struct renaming *r)
{
	unsigned int i;
	int err;

	for (i = DIR_OLD; i <= DIR_NEW; i++) {
		if (!is_dir(r->inos[i]))
			return -ENOTDIR;
		if (le32_to_cpu(inode_disk(r->inos[i])->nlink) == 0)
			return -ENOENT;
	}
	err = rename_check_target(r);
	return err ? err : rename_check_links(r);
}

/* ---- doing ---- */

static int rename_prepare(struct renaming *r)
{
	unsigned int insert = 3, removal = 3;
	int err = 0;

	memset(&r->hold, 0, sizeof(r->hold));
	r->pin.ag = NULL;
	if (!r->inos[TARGET])
		err = dir_insert_prepare(r->fs, r->inos[DIR_NEW], r->new_name, r->new_len,
					 &r->hold, &insert);
	if (!err && !rename_exchanges(r))
		err = dir_remove_prepare(r->fs, r->inos[DIR_OLD], r->name, r->len, &r->pin,
					 &removal);
	/* Beside the directories: source, target, orphan list. */
	r->credits = insert + removal + 3;
	return err;
}

static void rename_unprepare(struct renaming *r)
{
	if (r->pin.ag)
		alloc_unpin(r->fs, &r->pin);
	if (r->hold.ag)
		alloc_put(r->fs, &r->hold);
}

static uint8_t type_of(const struct inode *ino)
{
	return (uint8_t)IFTODT(le32_to_cpu(inode_disk(ino)->mode));
}

/* The names; every failure comes before the first change or is taken back. */
static int rename_names(struct txn *txn, struct renaming *r)
{
	struct inode *dir = r->inos[DIR_OLD], *new_dir = r->inos[DIR_NEW];
	struct inode *source = r->inos[SOURCE], *target = r->inos[TARGET];
	int err;

	if (target)
		err = dir_replace(txn, new_dir, r->new_name, r->new_len, source->id,
				  type_of(source));
	else
		err = dir_insert(txn, new_dir, r->new_name, r->new_len, source->id,
				 type_of(source), &r->hold);
	if (err)
		return err;
	if (rename_exchanges(r))
		err = dir_replace(txn, dir, r->name, r->len, target->id, type_of(target));
	else
		err = dir_remove(txn, dir, r->name, r->len, &r->pin);
	if (err && target)
		dir_replace(txn, new_dir, r->new_name, r->new_len, target->id, type_of(target));
	else if (err)
		dir_remove(txn, new_dir, r->new_name, r->new_len, NULL);
	return err;
}

/* The replaced target loses its name. */
static void rename_drop_target(struct txn *txn, struct renaming *r)
{
	struct inode_disk *di = inode_touch(txn, r->inos[TARGET], false);

	if (S_ISDIR(le32_to_cpu(di->mode)))
		di->nlink = cpu_to_le32(0);
	else
		disk_add32(&di->nlink, -1);
	r->unlinked = le32_to_cpu(di->nlink) == 0;
	if (r->unlinked)
		orphan_add(txn, r->inos[TARGET], di);
}

/* @ino went from (@dir) to (@new_dir, @new_name). */
static void rename_lead_back(struct txn *txn, struct inode *ino, const struct inode *new_dir,
			     const char *new_name)
{
	inode_set_name(inode_touch(txn, ino, false), new_dir->id, new_name);
}

static void rename_count_links(struct txn *txn, struct renaming *r)
{
	bool source = is_dir(r->inos[SOURCE]), target = r->inos[TARGET] && is_dir(r->inos[TARGET]);
	struct inode_disk *dir = inode_touch(txn, r->inos[DIR_OLD], true);
	struct inode_disk *new_dir = inode_touch(txn, r->inos[DIR_NEW], true);

	if (source) {
		disk_add32(&dir->nlink, -1);
		disk_add32(&new_dir->nlink, 1);
	}
	/* A target directory leaves the new parent, for the old one or for good. */
	if (target) {
		disk_add32(&new_dir->nlink, -1);
		if (rename_exchanges(r))
			disk_add32(&dir->nlink, 1);
	}
}

static int rename_commit(struct txn *txn, struct renaming *r)
{
	int err;

	err = rename_names(txn, r);
	if (err)
		return err;
	rename_count_links(txn, r);
	rename_lead_back(txn, r->inos[SOURCE], r->inos[DIR_NEW], r->new_name);
	if (rename_exchanges(r))
		rename_lead_back(txn, r->inos[TARGET], r->inos[DIR_OLD], r->name);
	else if (r->inos[TARGET])
		rename_drop_target(txn, r);
	return 0;
}

static int rename_locked(struct renaming *r)
{
	struct txn txn;
	int err;

	err = rename_recheck(r);
	if (err)
		return err;
	/* Two names of one file: nothing to do, says POSIX. */
	if (r->ids[SOURCE] == r->ids[TARGET])
		return r->flags & RENAME_NOREPLACE ? -EEXIST : 0;
	err = rename_check(r);
	if (err)
		return err;
	err = rename_prepare(r);
	if (!err)
		err = txn_begin(r->fs, r->credits, &txn);
	if (!err) {
		err = rename_commit(&txn, r);
		txn_end(&txn);
		if (!err && r->unlinked)
			inode_tell_gone(r->fs, r->inos[TARGET]);
	}
	rename_unprepare(r);
	return err;
}

static void rename_put(struct renaming *r)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(r->inos); i++) {
		inode_put(r->fs, r->inos[i]);
		r->inos[i] = NULL;
	}
}

static int rename_get(struct renaming *r)
{
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(r->inos); i++) {
		if (!r->ids[i])
			continue;
		err = inode_get(r->fs, inode_id_number(r->ids[i]), &r->inos[i]);
		if (err) {
			rename_put(r);
			return err;
		}
	}
	return 0;
}

static int rename_once(struct renaming *r)
{
	int err;

	err = rename_lookup(r);
	if (!err && (r->flags & RENAME_NOREPLACE) && r->ids[TARGET])
		return -EEXIST;
	if (!err && rename_moves_dir(r)) {
		err = rename_lock_moves(r);
		if (!err)
			err = rename_check_loop(r);
	}
	if (err)
		return err;
	err = rename_get(r);
	if (err)
		return err;
	err = inode_lock_many(r->fs, r->inos, r->ids, ARRAY_SIZE(r->inos), NULL);
	if (!err) {
		err = rename_locked(r);
		inode_unlock_many(r->fs, r->inos, ARRAY_SIZE(r->inos));
		/* Not the names, which are locked: the groups are another host's. */
		if (err == -EBUSY && ++r->busy < BUSY_TRIES) {
			fs_backoff(r->fs, BUSY_BACKOFF_MS);
			err = -EAGAIN;
		}
		if (!err && r->unlinked)
			inode_unlinked(r->fs, r->inos[TARGET], r->ids[TARGET]);
	} else if (err == -ESTALE && !fs_is_lost(r->fs)) {
		err = -EAGAIN;
	}
	rename_put(r);
	return err;
}

static int rename_retry(struct renaming *r)
{
	bool made_space = false;
	unsigned int i;
	int err = 0;

	for (i = 0; i < LOOKUP_TRIES; i++) {
		err = rename_once(r);
		if (err == -ENOSPC && !made_space && fs_make_space(r->fs))
			made_space = true;
		else if (err != -EAGAIN)
			break;
	}
	return err;
}

/* "." and ".." cannot be renamed: -EBUSY, as everywhere. */
static int rename_name_check(const char *name)
{
	int err = name_check(name);

	return err == -EINVAL && !strchr(name, '/') ? -EBUSY : err;
}

int fs_rename(struct fs *fs, uint64_t dir, const char *name, uint64_t new_dir,
	      const char *new_name, unsigned int flags)
{
	struct renaming r = {
		.fs = fs, .name = name, .new_name = new_name, .flags = flags,
		.len = strlen(name), .new_len = strlen(new_name),
	};
	int err;

	if (flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	r.ids[DIR_OLD] = dir;
	r.ids[DIR_NEW] = new_dir;
	err = fs_may_write(fs);
	if (!err)
		err = rename_name_check(name);
	if (!err)
		err = rename_name_check(new_name);
	if (!err)
		err = orphan_reserve(fs);
	if (err)
		return err;
	err = rename_retry(&r);
	rename_unlock_moves(&r);
	if (err || !r.unlinked)
		orphan_unreserve(fs);
	return fs_answer(fs, err);
}
