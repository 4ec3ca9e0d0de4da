// SPDX-License-Identifier: Apache-2.0
/* Names come and go: link, unlink, rmdir. */
#include <dirent.h>
#include <stdlib.h>

#include "fs/internal.h"

/* A name under removal, with the inodes that change. */
struct removal {
	struct fs *fs;
	const char *name;
	size_t len;
	bool	rmdir;
	struct inode *inos[2];	/* directory, target */
	uint64_t ids[2];
	bool	last;		/* the last name went: on the orphan list now */
};

static int removal_check(struct removal *r)
{
	const struct inode_disk *di = inode_disk(r->inos[1]);
	bool is_dir = S_ISDIR(le32_to_cpu(di->mode));

	if (r->rmdir && !is_dir)
		return -ENOTDIR;
	if (!r->rmdir && is_dir)
		return -EISDIR;
	if (r->rmdir && !dir_is_empty(r->inos[1]))
		return -ENOTEMPTY;
	if (le32_to_cpu(di->nlink) == 0 || r->ids[1] == r->fs->super.root)
		return -EUCLEAN;
	return 0;
}

static int removal_commit(struct txn *txn, struct removal *r, struct alloc_pin *pin)
{
	struct inode_disk *dir, *di;
	int err;

	err = dir_remove(txn, r->inos[0], r->name, r->len, pin);
	if (err)
		return err;
	dir = inode_touch(txn, r->inos[0], true);
	di = inode_touch(txn, r->inos[1], false);
	if (r->rmdir) {
		disk_add32(&dir->nlink, -1);
		di->nlink = cpu_to_le32(0);
	} else {
		disk_add32(&di->nlink, -1);
	}
	r->last = le32_to_cpu(di->nlink) == 0;
	if (r->last)
		orphan_add(txn, r->inos[1], di);
	return 0;
}

/* -EAGAIN: the name means something else by now. */
static int removal_locked(struct removal *r)
{
	struct fs *fs = r->fs;
	struct dirent_info info;
	struct alloc_pin pin;
	unsigned int credits;
	struct txn txn;
	int err;

	err = dir_lookup(fs, r->inos[0], r->name, r->len, &info);
	if (err)
		return err;
	if (info.id != r->ids[1])
		return -EAGAIN;
	err = removal_check(r);
	if (!err)
		err = dir_remove_prepare(fs, r->inos[0], r->name, r->len, &pin, &credits);
	if (err)
		return err;
	err = txn_begin(fs, credits + 2, &txn);
	if (!err) {
		err = removal_commit(&txn, r, &pin);
		txn_end(&txn);
		if (!err && r->last)
			inode_tell_gone(fs, r->inos[1]);
	}
	if (pin.ag)
		alloc_unpin(fs, &pin);
	return err;
}

static int removal_once(struct removal *r)
{
	struct fs *fs = r->fs;
	struct dirent_info info;
	int err;

	err = dir_lookup_hint(fs, r->ids[0], r->name, r->len, &info);
	if (err)
		return err;
	r->ids[1] = info.id;
	err = inode_get(fs, inode_id_number(r->ids[0]), &r->inos[0]);
	if (err)
		return err;
	err = inode_get(fs, inode_id_number(r->ids[1]), &r->inos[1]);
	if (err)
		goto put_dir;
	err = inode_lock_many(fs, r->inos, r->ids, 2, NULL);
	if (!err) {
		err = removal_locked(r);
		inode_unlock_many(fs, r->inos, 2);
		if (!err && r->last)
			inode_unlinked(fs, r->inos[1], r->ids[1]);
	} else if (err == -ESTALE && !fs_is_lost(fs)) {
		/* One of the two is gone: if it is the directory, looking up again says so. */
		err = -EAGAIN;
	}
	inode_put(fs, r->inos[1]);
put_dir:
	inode_put(fs, r->inos[0]);
	return err;
}

static int name_remove(struct fs *fs, uint64_t dir, const char *name, bool rmdir)
{
	struct removal r = { .fs = fs, .name = name, .len = strlen(name), .rmdir = rmdir };
	unsigned int i;
	int err;

	r.ids[0] = dir;
	err = fs_may_write(fs);
	if (!err)
		err = orphan_reserve(fs);
	if (err)
		return err;
	for (i = 0; i < LOOKUP_TRIES; i++) {
		err = removal_once(&r);
		if (err != -EAGAIN)
			break;
	}
	if (err || !r.last)
		orphan_unreserve(fs);
	return fs_answer(fs, err);
}

int fs_unlink(struct fs *fs, uint64_t dir, const char *name)
{
	int err = name_check(name);

	if (err == -EINVAL)
		return strchr(name, '/') ? err : -EISDIR;
	return err ? err : name_remove(fs, dir, name, false);
}

int fs_rmdir(struct fs *fs, uint64_t dir, const char *name)
{
	int err = name_check(name);

	if (err == -EINVAL && strcmp(name, "..") == 0)
		return -ENOTEMPTY;
	return err ? err : name_remove(fs, dir, name, true);
}

/* ---- link ---- */

/* Made by fs_create_unnamed(), and nothing has come between: it may have its first name. */
static bool is_unnamed(const struct inode *ino)
{
	return ino->unnamed_id == ino->id;
}

static int link_check(struct fs *fs, struct inode *ino, struct inode *dir, const char *name)
{
	const struct inode_disk *di = inode_disk(ino), *ddi = inode_disk(dir);
	struct dirent_info info;
	int err;

	if (!S_ISDIR(le32_to_cpu(ddi->mode)))
		return -ENOTDIR;
	if (S_ISDIR(le32_to_cpu(di->mode)))
		return -EPERM;
	if (le32_to_cpu(ddi->nlink) == 0 || (le32_to_cpu(di->nlink) == 0 && !is_unnamed(ino)))
		return -ENOENT;
	err = dir_lookup(fs, dir, name, strlen(name), &info);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	return le32_to_cpu(di->nlink) >= LINK_COUNT_MAX ? -EMLINK : 0;
}

/* The name is there: the inode counts it. */
static void link_count(struct txn *txn, struct inode *ino, struct inode_disk *di)
{
	struct fs *fs = txn->fs;

	if (is_unnamed(ino)) {
		orphan_remove(txn, ino, di);
		ino->unnamed_id = 0;
		env_mutex_lock(fs->env, &fs->open_mutex);
		ino->delete_on_close = false;
		env_mutex_unlock(fs->env, &fs->open_mutex);
	} else {
		di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_LINKED);
	}
	disk_add32(&di->nlink, 1);
}

static int link_locked(struct fs *fs, struct inode *ino, struct inode *dir, const char *name,
		       struct fs_attr *attr)
{
	struct alloc_hold hold;
	struct inode_disk *di;
	unsigned int credits;
	struct txn txn;
	int err;

	err = link_check(fs, ino, dir, name);
	if (!err)
		err = dir_insert_prepare(fs, dir, name, strlen(name), &hold, &credits);
	if (err)
		return err;
	err = txn_begin(fs, credits + 1 + (is_unnamed(ino) ? ORPHAN_CREDITS : 0), &txn);
	if (!err) {
		di = inode_change(&txn, ino);
		err = dir_insert(&txn, dir, name, strlen(name), ino->id,
				 (uint8_t)IFTODT(le32_to_cpu(di->mode)), &hold);
		if (!err) {
			inode_touch(&txn, dir, true);
			di = inode_touch(&txn, ino, false);
			link_count(&txn, ino, di);
			inode_set_name(di, dir->id, name);
			inode_attr(ino, attr);
			attr->name_until_ns = dir_names_keep(fs, dir);
		}
		txn_end(&txn);
	}
	if (hold.ag)
		alloc_put(fs, &hold);
	return err;
}

static int link_once(struct fs *fs, uint64_t id, uint64_t dir, const char *name,
		     struct fs_attr *attr)
{
	struct inode *inos[2];
	uint64_t ids[2] = { id, dir };
	int err;

	err = inode_get(fs, inode_id_number(id), &inos[0]);
	if (err)
		return err;
	err = inode_get(fs, inode_id_number(dir), &inos[1]);
	if (!err) {
		err = inode_lock_many(fs, inos, ids, 2, NULL);
		if (!err) {
			err = link_locked(fs, inos[0], inos[1], name, attr);
			inode_unlock_many(fs, inos, 2);
		}
		inode_put(fs, inos[1]);
	}
	inode_put(fs, inos[0]);
	return err;
}

int fs_link(struct fs *fs, uint64_t id, uint64_t dir, const char *name, struct fs_attr *attr)
{
	int err;

	err = fs_may_write(fs);
	if (!err)
		err = name_check(name);
	if (err)
		return err;
	err = link_once(fs, id, dir, name, attr);
	if (err == -ENOSPC && fs_make_space(fs))
		err = link_once(fs, id, dir, name, attr);
	return fs_answer(fs, err);
}
