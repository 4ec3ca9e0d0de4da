/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New images on top of others: snapshots and linked clones.
 *
 * A snapshot does not touch the contents: the file's inode, with its map, gets the snapshot's
 * name and is frozen; a new, empty inode takes the file's name.  All in one transaction, so a
 * crash leaves the one state or the other.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/attrs.h"
#include "fs/file_io.h"
#include "fs/image.h"
#include "fs/image_list.h"
#include "fs/internal.h"

#define IMAGING_TRIES	4u
#define IMAGING_BACKOFF_MS 100u

/* An inode to be made: reserved, locked, free on disk. */
struct new_inode {
	struct inode	*ino;
	uint64_t	number;
	uint64_t	id;	/* that it will have */
	struct alloc_hold hold;
};

enum { IN_DIR, IN_BASE, IN_LIST, IN_OLD, IN_COUNT };

/* One image being made. */
struct imaging {
	struct fs	*fs;
	const char	*name, *snap_name;	/* snap_name NULL: a clone */
	const struct fs_cred *cred;		/* of a clone */
	bool		replaces;		/* a clone that takes the place of IN_OLD */
	bool		old_unlinked;
	/*
	 * Locked exclusively: directory; the file that is frozen; the list of the frozen image's
	 * children, or NULL: made with the snapshot; the file that is replaced.
	 */
	struct inode	*inos[IN_COUNT];
	uint64_t	ids[IN_COUNT];
	struct inode	*base;			/* what the new image stands on */
	struct attrs	*attrs;			/* copied from the base */
	struct new_inode top, list;
	struct alloc_hold dir_hold, list_hold;
	struct attrs_change attrs_change;
	unsigned int	credits;
};

/* ---- inodes to be made ---- */

/* A damaged index may give out what we have locked already (R9). */
static int new_inode_check(struct imaging *im, uint64_t number)
{
	for (unsigned int i = 0; i < IN_COUNT; i++)
		if (im->inos[i] && im->inos[i]->number == number)
			goto damaged;
	if (number != im->base->number && (!im->top.ino || im->top.number != number))
		return 0;
damaged:
	log_error(im->fs->env, im->fs->label, "inode %llu is in use but free in its group's "
		  "index: run fsck.lunfs", (unsigned long long)number);
	return -EUCLEAN;
}

static int new_inode_get(struct imaging *im, uint64_t near, struct new_inode *n)
{
	struct fs *fs = im->fs;
	int err = itable_reserve(fs, near, &n->hold, &n->number);

	if (err) {
		n->hold.ag = NULL;
		return err;
	}
	err = new_inode_check(im, n->number);
	if (!err)
		err = inode_get(fs, n->number, &n->ino);
	if (err)
		return err;
	err = inode_lock_new(fs, n->ino);
	if (err) {
		inode_put(fs, n->ino);
		n->ino = NULL;
		return err;
	}
	n->id = inode_id_make(n->number, le32_to_cpu(inode_disk(n->ino)->generation) + 1);
	return 0;
}

static void new_inode_put(struct fs *fs, struct new_inode *n)
{
	if (n->ino) {
		inode_unlock(fs, n->ino, LOCK_EXCLUSIVE, 0);
		inode_put(fs, n->ino);
	}
	if (n->hold.ag)
		itable_put(fs, &n->hold, n->number);
}

/* ---- the transaction ---- */

static int imaging_prepare(struct imaging *im)
{
	struct fs *fs = im->fs;
	const char *insert = im->snap_name ? im->snap_name : im->name;
	unsigned int dir_credits = 3, list_credits = 2;
	char child[IMAGE_LIST_NAME];
	int err;

	err = new_inode_get(im, im->ids[IN_DIR], &im->top);
	if (!err && !im->inos[IN_LIST])
		err = new_inode_get(im, im->base->id, &im->list);
	if (err)
		return err;
	image_list_name(im->top.id, child);
	if (im->inos[IN_LIST])
		err = dir_insert_prepare(fs, im->inos[IN_LIST], child, strlen(child),
					 &im->list_hold, &list_credits);
	if (!err && !im->replaces)
		err = dir_insert_prepare(fs, im->inos[IN_DIR], insert, strlen(insert),
					 &im->dir_hold, &dir_credits);
	if (!err && im->attrs->count)
		err = attrs_store_prepare(fs, NULL, im->attrs, &im->attrs_change);
	/* New inodes with index and group; base; replaced file and orphan list; replaced name. */
	im->credits = 3 + (im->list.ino ? 3 : 0) + 1 + (im->replaces ? 2 : 0) +
		      (im->snap_name ? 3 : 0) + dir_credits + list_credits +
		      im->attrs_change.credits;
	return err;
}

static void imaging_unprepare(struct imaging *im)
{
	attrs_store_done(im->fs, &im->attrs_change);
	if (im->dir_hold.ag)
		alloc_put(im->fs, &im->dir_hold);
	if (im->list_hold.ag)
		alloc_put(im->fs, &im->list_hold);
	new_inode_put(im->fs, &im->list);
	new_inode_put(im->fs, &im->top);
}

/* The new image: as large as the base, all of which shows. */
static int make_top(struct txn *txn, struct imaging *im)
{
	const struct inode_disk *base = inode_disk(im->base);
	struct inode_init init = {
		.mode = le32_to_cpu(base->mode),
		.uid = im->cred ? im->cred->uid : le32_to_cpu(base->uid),
		.gid = im->cred ? im->cred->gid : le32_to_cpu(base->gid),
		.parent = im->ids[IN_DIR], .name = im->name, .name_len = strlen(im->name),
	};
	uint64_t size = le64_to_cpu(base->size), rank = le32_to_cpu(base->image_rank);
	struct inode_disk *di;

	inode_init(txn, im->top.ino, &init);
	di = inode_change(txn, im->top.ino);
	file_set_inline(di, false);
	di->size = cpu_to_le64(size);
	di->image_parent = cpu_to_le64(im->base->id);
	di->image_limit = cpu_to_le64(ALIGN_UP(size, BLOCK_SIZE));
	di->image_rank = cpu_to_le32((uint32_t)rank + 1);
	return im->attrs->count ?
	       attrs_store(txn, im->top.ino, di, im->attrs, &im->attrs_change) : 0;
}

static void make_list(struct txn *txn, struct imaging *im)
{
	struct inode_init init = { .mode = S_IFDIR | 0700, .parent = im->base->id, .name = "" };
	struct inode_disk *di;

	inode_init(txn, im->list.ino, &init);
	di = inode_change(txn, im->list.ino);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_CHILDREN);
}

/* The names in the directory; a failure is taken back before it is reported. */
static int change_names(struct txn *txn, struct imaging *im)
{
	struct inode *dir = im->inos[IN_DIR];
	int err = 0;

	if (im->snap_name)
		err = dir_insert(txn, dir, im->snap_name, strlen(im->snap_name), im->base->id,
				 DT_REG, &im->dir_hold);
	if (err)
		return err;
	if (im->snap_name || im->replaces)
		err = dir_replace(txn, dir, im->name, strlen(im->name), im->top.id, DT_REG);
	else
		err = dir_insert(txn, dir, im->name, strlen(im->name), im->top.id, DT_REG,
				 &im->dir_hold);
	if (err && im->snap_name)
		dir_remove(txn, dir, im->snap_name, strlen(im->snap_name), NULL);
	return err;
}

static void freeze_base(struct txn *txn, struct imaging *im)
{
	struct inode_disk *di = inode_touch(txn, im->base, false);

	di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_FROZEN);
	di->image_children = cpu_to_le64(im->list.id);
	inode_set_name(di, im->ids[IN_DIR], im->snap_name);
}

static void drop_old(struct txn *txn, struct imaging *im)
{
	struct inode_disk *di = inode_touch(txn, im->inos[IN_OLD], false);

	disk_add32(&di->nlink, -1);
	im->old_unlinked = le32_to_cpu(di->nlink) == 0;
	if (im->old_unlinked)
		orphan_add(txn, im->inos[IN_OLD], di);
}

/* What was made in this transaction is free again. */
static void unmake(struct txn *txn, struct imaging *im)
{
	struct alloc_pin top = { im->top.hold.ag }, list = { im->list.hold.ag };
	struct alloc_pin attrs = { im->attrs_change.hold.ag };
	struct inode_disk *di = inode_change(txn, im->top.ino);

	if (le64_to_cpu(di->xattr))
		xattr_drop(txn, im->top.ino, di, &attrs);
	itable_free(txn, &top, im->top.number);
	di->mode = cpu_to_le32(0);
	if (!im->list.ino)
		return;
	itable_free(txn, &list, im->list.number);
	inode_change(txn, im->list.ino)->mode = cpu_to_le32(0);
}

static int imaging_commit(struct txn *txn, struct imaging *im)
{
	struct inode *list = im->inos[IN_LIST] ? im->inos[IN_LIST] : im->list.ino;
	char child[IMAGE_LIST_NAME];
	int err;

	itable_take(txn, &im->top.hold, im->top.number);
	if (im->list.ino) {
		itable_take(txn, &im->list.hold, im->list.number);
		make_list(txn, im);
	}
	image_list_name(im->top.id, child);
	err = make_top(txn, im);
	if (!err)
		err = dir_insert(txn, list, child, strlen(child), im->top.id, DT_REG,
				 &im->list_hold);
	if (!err) {
		err = change_names(txn, im);
		if (err && im->inos[IN_LIST])
			dir_remove(txn, list, child, strlen(child), NULL);
	}
	if (err) {
		unmake(txn, im);
		return err;
	}
	inode_touch(txn, im->inos[IN_DIR], true);
	inode_touch(txn, list, true);
	if (im->snap_name)
		freeze_base(txn, im);
	if (im->inos[IN_OLD])
		drop_old(txn, im);
	return 0;
}

static int imaging_run(struct imaging *im)
{
	struct txn txn;
	int err = txn_begin(im->fs, im->credits, &txn);

	if (err)
		return err;
	err = imaging_commit(&txn, im);
	txn_end(&txn);
	return err;
}

/* ---- what both look at ---- */

static unsigned int chain_depth(const struct inode *ino)
{
	unsigned int depth = 0;

	for (ino = ino->image; ino; ino = ino->image)
		depth++;
	return depth;
}

static int check_dir(const struct inode *dir)
{
	const struct inode_disk *di = inode_disk(dir);

	if (!S_ISDIR(le32_to_cpu(di->mode)))
		return -ENOTDIR;
	return le32_to_cpu(di->nlink) ? 0 : -ENOENT;
}

static int name_is_free(struct fs *fs, struct inode *dir, const char *name)
{
	struct dirent_info info;
	int err = dir_lookup(fs, dir, name, strlen(name), &info);

	return err == -ENOENT ? 0 : err ? err : -EEXIST;
}

static int name_is(struct fs *fs, struct inode *dir, const char *name, uint64_t id)
{
	struct dirent_info info;
	int err = dir_lookup(fs, dir, name, strlen(name), &info);

	return err ? err : info.id == id ? 0 : -EAGAIN;
}

static unsigned int opens(struct fs *fs, const struct inode *ino)
{
	unsigned int n;

	env_mutex_lock(fs->env, &fs->open_mutex);
	n = ino->opens;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	return n;
}

static int inos_get(struct imaging *im)
{
	int err = 0;

	for (unsigned int i = 0; i < IN_COUNT && !err; i++)
		if (im->ids[i])
			err = inode_get(im->fs, inode_id_number(im->ids[i]), &im->inos[i]);
	return err;
}

static void inos_put(struct imaging *im)
{
	for (unsigned int i = 0; i < IN_COUNT; i++) {
		inode_put(im->fs, im->inos[i]);
		im->inos[i] = NULL;
	}
}

/* ---- snapshots ---- */

static int snapshot_check(struct imaging *im)
{
	const struct inode_disk *di = inode_disk(im->base);
	uint32_t flags = le32_to_cpu(di->flags);
	int err = check_dir(im->inos[IN_DIR]);

	if (!err)
		err = name_is(im->fs, im->inos[IN_DIR], im->name, im->base->id);
	if (!err)
		err = name_is_free(im->fs, im->inos[IN_DIR], im->snap_name);
	if (err)
		return err;
	if (!S_ISREG(le32_to_cpu(di->mode)))
		return -EINVAL;
	/* Another name would mean the snapshot from now on. */
	if (flags & (INODE_FROZEN | INODE_MULTI) || le32_to_cpu(di->nlink) != 1)
		return -EPERM;
	if (opens(im->fs, im->base) != 1)
		return -EBUSY;
	return chain_depth(im->base) >= IMAGE_DEPTH_MAX ? -ELOOP : 0;
}

/* Whole blocks, in a map, zeros behind the end: what a child may rely on. */
static int snapshot_settle(struct fs *fs, struct inode *ino)
{
	uint64_t size = file_size(ino);
	int err = file_finish_shrink(fs, ino);

	if (!err && file_is_inline(ino))
		err = file_uninline(fs, ino, unit0_order(size, 0));
	return err ? err : file_zero_tail(fs, ino, ALIGN_UP(size, BLOCK_SIZE));
}

/*
 * The open @f of the base becomes one of the new image, which is still locked: its own lock
 * and open instead of the base's, whose use goes on as the parent's.  Cannot fail.
 */
static void snapshot_switch(struct imaging *im, struct fs_file *f, struct inode_disk *copy)
{
	struct fs *fs = im->fs;
	struct inode *top = im->top.ino, *base = im->base;

	env_mutex_lock(fs->env, &fs->open_mutex);
	inode_open_move(f, top);
	f->cache = NULL;
	f->kept = false;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	/* f's use of the base and of its chain is the new image's from now on; f has the image. */
	image_adopt(fs, top, base, !f->chained, copy);
	f->chained = true;
	im->top.ino = NULL;
	inode_unlock(fs, top, LOCK_EXCLUSIVE, 0);
}

/* The locks of an open: before the transaction, because afterwards nothing may fail. */
static int snapshot_lock_open(struct imaging *im)
{
	int err = cluster_get(im->fs, &im->top.ino->cover.lock, LOCK_EXCLUSIVE, LOCK_OPEN, NULL);

	if (err)
		return err;
	err = cluster_get(im->fs, &im->base->cover.lock, LOCK_SHARED, LOCK_OPEN, NULL);
	if (err)
		cluster_put(im->fs, &im->top.ino->cover.lock, LOCK_EXCLUSIVE, LOCK_OPEN);
	return err;
}

static void snapshot_unlock_open(struct imaging *im)
{
	cluster_put(im->fs, &im->base->cover.lock, LOCK_SHARED, LOCK_OPEN);
	cluster_put(im->fs, &im->top.ino->cover.lock, LOCK_EXCLUSIVE, LOCK_OPEN);
}

static int snapshot_prepared(struct imaging *im, struct fs_file *f, struct fs_attr *attr)
{
	struct inode_disk *copy = blkdev_alloc(BLOCK_SIZE);
	int err = copy ? snapshot_lock_open(im) : -ENOMEM;

	if (err) {
		free(copy);
		return err;
	}
	err = imaging_run(im);
	if (err) {
		snapshot_unlock_open(im);
		free(copy);
		return err;
	}
	inode_attr(im->top.ino, attr);
	snapshot_switch(im, f, copy);
	cluster_put(im->fs, &im->base->cover.lock, LOCK_EXCLUSIVE, LOCK_OPEN);
	return 0;
}

static int snapshot_locked(struct imaging *im, struct fs_file *f, struct fs_attr *attr)
{
	int err = snapshot_check(im);

	if (!err)
		err = snapshot_settle(im->fs, im->base);
	if (!err)
		err = attrs_load(im->fs, im->base, im->attrs);
	if (!err)
		err = imaging_prepare(im);
	if (!err)
		err = snapshot_prepared(im, f, attr);
	imaging_unprepare(im);
	return err;
}

static int snapshot_once(struct fs *fs, uint64_t dir, const char *name, const char *snap_name,
			 struct fs_file *f, struct fs_attr *attr)
{
	struct imaging im = { .fs = fs, .name = name, .snap_name = snap_name };
	int err;

	im.ids[IN_DIR] = dir;
	im.ids[IN_BASE] = f->id;
	im.attrs = malloc(sizeof(*im.attrs));
	err = im.attrs ? inos_get(&im) : -ENOMEM;
	im.base = im.inos[IN_BASE];
	if (!err)
		err = inode_lock_many(fs, im.inos, im.ids, IN_COUNT, NULL);
	if (!err) {
		err = snapshot_locked(&im, f, attr);
		inode_unlock_many(fs, im.inos, IN_COUNT);
	}
	inos_put(&im);
	free(im.attrs);
	return err;
}

/* @made_space and the pause between tries: as for other creations. */
static bool imaging_again(struct fs *fs, int err, unsigned int try, bool *made_space)
{
	if (try + 1 >= IMAGING_TRIES)
		return false;
	if (err == -ENOSPC && !*made_space)
		return *made_space = fs_make_space(fs);
	if (err != -EAGAIN)
		return false;
	fs_backoff(fs, IMAGING_BACKOFF_MS);
	return true;
}

static int snapshot_open(struct fs *fs, uint64_t dir, const char *name, const char *snap_name,
			 struct fs_file *f, struct fs_attr *attr)
{
	bool made_space = false;
	unsigned int i = 0;
	int err;

	do {
		err = snapshot_once(fs, dir, name, snap_name, f, attr);
	} while (err && imaging_again(fs, err, i++, &made_space));
	return err ? err : journal_commit(fs, journal_last_id(fs));
}

int fs_snapshot(struct fs *fs, uint64_t dir, const char *name, const char *snap_name,
		struct fs_file *f, struct fs_attr *attr)
{
	struct fs_file *own = NULL;
	struct fs_attr found;
	int err;

	err = fs_may_write(fs);
	if (!err)
		err = name_check(name);
	if (!err)
		err = name_check(snap_name);
	if (!err && !f) {
		err = fs_lookup(fs, dir, name, &found);
		if (!err)
			err = fs_open(fs, found.id, FS_OPEN_WRITE | FS_OPEN_SOLE, NULL, &own, NULL);
		f = own;
	}
	if (!err)
		err = f->mode == LOCK_EXCLUSIVE ?
		      snapshot_open(fs, dir, name, snap_name, f, attr) : -EPERM;
	if (own)
		fs_close(fs, own);
	return fs_result(fs, err);
}

/* ---- clones ---- */

static int clone_check_old(struct imaging *im)
{
	const struct inode_disk *di = inode_disk(im->inos[IN_OLD]);
	int err = name_is(im->fs, im->inos[IN_DIR], im->name, im->ids[IN_OLD]);

	if (err)
		return err;
	if (!S_ISREG(le32_to_cpu(di->mode)) || !le32_to_cpu(di->nlink))
		return -EINVAL;
	if (le32_to_cpu(di->flags) & INODE_FROZEN)
		return -EPERM;	/* a snapshot is deleted, not reverted */
	return opens(im->fs, im->inos[IN_OLD]) ? -EBUSY : 0;
}

static int clone_locked(struct imaging *im, struct fs_attr *attr)
{
	int err = check_dir(im->inos[IN_DIR]);

	if (!err)
		err = im->replaces ? clone_check_old(im) :
		      name_is_free(im->fs, im->inos[IN_DIR], im->name);
	if (!err && !(le32_to_cpu(inode_disk(im->inos[IN_LIST])->flags) & INODE_CHILDREN))
		err = -EUCLEAN;
	if (!err)
		err = imaging_prepare(im);
	if (!err)
		err = imaging_run(im);
	if (!err)
		inode_attr(im->top.ino, attr);
	imaging_unprepare(im);
	return err;
}

/* @base is open, so it stays as it is: may it have one more child? */
static int clone_check_base(struct imaging *im, struct inode *base)
{
	const struct inode_disk *di;
	int err = 0;

	env_rwlock_rdlock(im->fs->env, &base->rwlock);
	di = base->loaded ? inode_disk(base) : NULL;
	if (!di)
		err = -ESTALE;
	else if (!(le32_to_cpu(di->flags) & INODE_FROZEN))
		err = -EINVAL;
	else if (!le32_to_cpu(di->nlink) || le32_to_cpu(di->flags) & INODE_MERGING)
		err = -ENOENT;
	else if (chain_depth(base) >= IMAGE_DEPTH_MAX)
		err = -ELOOP;
	else
		err = attrs_load(im->fs, base, im->attrs);
	if (!err)
		im->ids[IN_LIST] = le64_to_cpu(di->image_children);
	env_rwlock_rdunlock(im->fs->env, &base->rwlock);
	im->base = base;
	return err;
}

static int clone_once(struct imaging *im, struct inode *base, struct fs_attr *attr)
{
	struct inode *old;
	struct dirent_info info;
	int err = clone_check_base(im, base);

	im->ids[IN_OLD] = 0;
	if (!err && im->replaces) {
		err = dir_lookup_hint(im->fs, im->ids[IN_DIR], im->name, strlen(im->name),
				      &info);
		im->ids[IN_OLD] = info.id;
	}
	if (!err && im->ids[IN_OLD] == base->id)
		err = -EINVAL;
	if (!err)
		err = inos_get(im);
	old = err ? NULL : im->inos[IN_OLD];
	if (old)
		inode_brief_bar(im->fs, old);
	if (!err)
		err = inode_lock_many(im->fs, im->inos, im->ids, IN_COUNT, NULL);
	if (!err) {
		err = clone_locked(im, attr);
		inode_unlock_many(im->fs, im->inos, IN_COUNT);
		if (!err && im->old_unlinked)
			inode_unlinked(im->fs, im->inos[IN_OLD], im->ids[IN_OLD]);
	}
	if (old)
		inode_brief_unbar(im->fs, old);
	inos_put(im);
	memset(&im->top, 0, sizeof(im->top));
	memset(&im->dir_hold, 0, sizeof(im->dir_hold));
	memset(&im->list_hold, 0, sizeof(im->list_hold));
	memset(&im->attrs_change, 0, sizeof(im->attrs_change));
	return err;
}

static int clone_open(struct imaging *im, struct inode *base, struct fs_attr *attr)
{
	bool made_space = false;
	unsigned int i = 0;
	int err;

	im->attrs = malloc(sizeof(*im->attrs));
	if (!im->attrs)
		return -ENOMEM;
	err = im->replaces ? orphan_reserve(im->fs) : 0;
	if (err)
		goto out;
	do {
		err = clone_once(im, base, attr);
	} while (err && imaging_again(im->fs, err, i++, &made_space));
	if (im->replaces && !im->old_unlinked)
		orphan_unreserve(im->fs);
	if (!err)
		err = journal_commit(im->fs, journal_last_id(im->fs));
out:
	free(im->attrs);
	return err;
}

int fs_clone(struct fs *fs, uint64_t base, uint64_t dir, const char *name, bool replace,
	     const struct fs_cred *cred, struct fs_attr *attr)
{
	struct imaging im = { .fs = fs, .name = name, .cred = cred, .replaces = replace };
	struct fs_file *f;
	int err;

	im.ids[IN_DIR] = dir;
	err = fs_may_write(fs);
	if (!err)
		err = name_check(name);
	if (!err)
		err = fs_open(fs, base, 0, cred, &f, NULL);
	if (err)
		return fs_result(fs, err);
	err = clone_open(&im, f->ino, attr);
	fs_close(fs, f);
	return fs_result(fs, err);
}
