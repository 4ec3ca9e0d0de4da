// SPDX-License-Identifier: Apache-2.0
/* New objects: files, directories, special files, symbolic links. */
#include <dirent.h>
#include <stdlib.h>

#include "fs/attrs.h"
#include "fs/file_io.h"
#include "fs/internal.h"

#define CREATE_TRIES	3u
#define CREATE_BACKOFF_MS 100u
#define PREPARE_TRIES	8u	/* groups that another host takes away again */

/* One creation under way. */
struct creation {
	struct fs *fs;
	struct inode *dir, *ino;
	const char *name;
	const char *target;		/* symbolic link */
	struct inode **pinned;		/* it gets no name: a reference, counted as an open; else NULL */
	struct inode_init init;
	struct attrs *attrs;		/* inherited ACLs; count 0: none */
	/* Held from the reservations on. */
	unsigned int credits;
	uint64_t number;
	enum { LACKS_NOTHING, LACKS_INODE, LACKS_BLOCK } lacks;	/* after -EAGAIN */
	struct alloc_hold dir_hold, inode_hold, data_hold;
	struct attrs_change attrs_change;
};

/* May there be a new @mode object in the locked directory? */
static int create_check(struct creation *c)
{
	const struct inode_disk *di = inode_disk(c->dir);
	struct dirent_info info;
	int err;

	if (!S_ISDIR(le32_to_cpu(di->mode)))
		return -ENOTDIR;
	if (le32_to_cpu(di->nlink) == 0)
		return -ENOENT;
	if (c->pinned)
		return 0;
	err = dir_lookup(c->fs, c->dir, c->name, c->init.name_len, &info);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	if (S_ISDIR(c->init.mode) && le32_to_cpu(di->nlink) >= LINK_COUNT_MAX)
		return -EMLINK;
	return 0;
}

/* The directory's default ACL takes the umask's place; it goes on to directories whole. */
static int create_inherit_acl(struct creation *c, uint32_t umask)
{
	uint8_t acl[ACL_BYTES_MAX];
	const void *found;
	size_t len;
	int err;

	c->attrs->count = 0;
	c->attrs->used = 0;
	if (S_ISLNK(c->init.mode))
		return 0;
	err = attrs_load(c->fs, c->dir, c->attrs);
	if (err)
		return err;
	err = attrs_find(c->attrs, ACL_DEFAULT, &found, &len);
	if (!err && !acl_check(found, len))
		return -EUCLEAN;
	if (!err)
		memcpy(acl, found, len);
	c->attrs->count = 0;
	c->attrs->used = 0;
	if (err) {
		c->init.mode &= ~(umask & 0777);
		return 0;
	}
	err = S_ISDIR(c->init.mode) ? attrs_put(c->attrs, ACL_DEFAULT, acl, len) : 0;
	if (!err && !acl_inherit(acl, len, &c->init.mode))
		err = attrs_put(c->attrs, ACL_ACCESS, acl, len);
	return err;
}

/* A setgid directory hands its group down, and to directories the bit too. */
static void create_inherit_group(struct creation *c)
{
	const struct inode_disk *di = inode_disk(c->dir);

	if (!(le32_to_cpu(di->mode) & S_ISGID))
		return;
	c->init.gid = le32_to_cpu(di->gid);
	if (S_ISDIR(c->init.mode))
		c->init.mode |= S_ISGID;
}

/* A target that does not fit into the inode gets a block, written before it is pointed to. */
static int create_write_target(struct creation *c)
{
	static const uint32_t one[] = { 1 };
	size_t len = c->target ? strlen(c->target) : 0;
	char *block;
	int err;

	if (len <= INLINE_SIZE)
		return 0;
	err = alloc_reserve_try(c->fs, one, 1, c->number, &c->data_hold);
	if (err)
		return err;
	block = blkdev_alloc(BLOCK_SIZE);
	if (!block)
		return -ENOMEM;
	memcpy(block, c->target, len);
	err = blkdev_write(c->fs->dev, c->data_hold.runs[0].block << BLOCK_SHIFT, block,
			   BLOCK_SIZE);
	file_data_written(c->fs, err);
	free(block);
	return err;
}

/* A damaged index may hand out the directory itself, which we have locked already (R9). */
static int create_check_number(const struct creation *c)
{
	if (c->number != c->dir->number)
		return 0;
	log_error(c->fs->env, c->fs->label, "inode %llu is in use but free in its group's index: "
		  "run fsck.lunfs", (unsigned long long)c->number);
	return -EUCLEAN;
}

/* With no group in hand another host's may be waited for, else it is only tried. */
static int create_prepare_inode(struct creation *c)
{
	struct fs *fs = c->fs;
	int err;

	err = c->dir_hold.ag ? itable_reserve_try(fs, c->dir->id, &c->inode_hold, &c->number) :
			       itable_reserve(fs, c->dir->id, &c->inode_hold, &c->number);
	if (err)
		c->inode_hold.ag = NULL;
	return err;
}

static int create_prepare_once(struct creation *c)
{
	struct fs *fs = c->fs;
	int err = 0;

	if (c->pinned)
		c->credits = 1;		/* the orphan list */
	else
		err = dir_insert_prepare(fs, c->dir, c->name, c->init.name_len, &c->dir_hold,
					 &c->credits);
	if (err)
		return err;
	c->lacks = LACKS_INODE;
	err = create_prepare_inode(c);
	if (err)
		return err;
	c->lacks = LACKS_BLOCK;
	err = create_check_number(c);
	if (!err)
		err = create_write_target(c);
	if (!err && c->attrs->count)
		err = attrs_store_prepare(fs, NULL, c->attrs, &c->attrs_change);
	if (err)
		return err;
	c->lacks = LACKS_NOTHING;
	err = inode_get(fs, c->number, &c->ino);
	if (err)
		return err;
	err = inode_lock_new(fs, c->ino);
	if (err) {
		inode_put(fs, c->ino);
		c->ino = NULL;
	}
	/* The new inode, its index and group, its attributes' and target's blocks. */
	c->credits += 5 + c->attrs_change.credits + (c->data_hold.ag ? 4 : 0);
	return err;
}

static void create_unprepare(struct creation *c)
{
	struct fs *fs = c->fs;

	attrs_store_done(fs, &c->attrs_change);
	if (c->data_hold.ag)
		alloc_put(fs, &c->data_hold);
	if (c->inode_hold.ag)
		itable_put(fs, &c->inode_hold, c->number);
	if (c->dir_hold.ag)
		alloc_put(fs, &c->dir_hold);
}

/* Nothing in hand: what was lacking is had alone, so that its group's lock is ours. */
static int create_fetch(struct creation *c)
{
	static const uint32_t one[] = { 1 };
	struct alloc_hold hold;
	uint64_t number;
	int err;

	if (c->lacks == LACKS_INODE) {
		err = itable_reserve(c->fs, c->dir->id, &hold, &number);
		if (!err)
			itable_put(c->fs, &hold, number);
	} else {
		err = alloc_reserve(c->fs, one, 1, inode_id_number(c->dir->id), &hold);
		if (!err)
			alloc_put(c->fs, &hold);
	}
	return err;
}

/*
 * All the space that it takes, which may lie in several groups.  Of these the first is waited
 * for, the others are tried; where that fails everything is given back, the one that lacked is
 * waited for alone, and it begins anew.  The directory stays locked: nothing about it changes.
 */
static int create_prepare(struct creation *c)
{
	int err = -EAGAIN;

	for (unsigned int i = 0; i < PREPARE_TRIES && err == -EAGAIN; i++) {
		if (i > 1)
			fs_backoff(c->fs, CREATE_BACKOFF_MS);
		c->lacks = LACKS_NOTHING;
		err = create_prepare_once(c);
		if (err != -EAGAIN || c->lacks == LACKS_NOTHING)
			break;
		create_unprepare(c);
		err = create_fetch(c);
		if (!err)
			err = -EAGAIN;
	}
	return err;
}

static int create_store_target(struct txn *txn, struct creation *c, struct inode_disk *di)
{
	struct map_entry_disk *map = (struct map_entry_disk *)(void *)di->root;
	size_t len = strlen(c->target);
	int err;

	di->size = cpu_to_le64(len);
	if (!c->data_hold.ag) {
		memcpy(di->root, c->target, len);
		return 0;
	}
	err = alloc_take(txn, &c->data_hold, 0);
	if (err)
		return err;
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) & ~(uint32_t)INODE_INLINE);
	di->root_count = cpu_to_le32(1);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) + 1);
	map[0].unit = cpu_to_le64(c->data_hold.runs[0].block);
	map[0].valid = cpu_to_le64(1);
	return 0;
}

/* Takes everything back within the same transaction; blocks that are lost to -EIO stay taken. */
static void create_undo(struct txn *txn, struct creation *c, struct inode_disk *di)
{
	struct alloc_pin inode_pin = { c->inode_hold.ag }, data_pin = { c->data_hold.ag };
	struct alloc_pin attrs_pin = { c->attrs_change.hold.ag };

	if (le64_to_cpu(di->xattr))
		xattr_drop(txn, c->ino, di, &attrs_pin);
	if (S_ISLNK(c->init.mode) && !(le32_to_cpu(di->flags) & INODE_INLINE))
		alloc_free(txn, &data_pin, c->data_hold.runs[0].block, 1);
	itable_free(txn, &inode_pin, c->number);
	di->mode = cpu_to_le32(0);
}

static uint8_t mode_type(uint32_t mode)
{
	return (uint8_t)IFTODT(mode);
}

/*
 * An inode without a name is on the orphan list from the beginning, like one that has lost its last: a crash,
 * or its last close, deletes it.
 */
static int create_unnamed(struct txn *txn, struct creation *c, struct inode_disk *di)
{
	struct inode *ino = c->ino;
	struct fs *fs = c->fs;

	di->nlink = cpu_to_le32(0);
	orphan_add(txn, ino, di);
	ino->unnamed_id = ino->id;
	env_mutex_lock(fs->env, &fs->open_mutex);
	ino->opens++;
	ino->delete_on_close = true;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	*c->pinned = ino;
	return 0;
}

static int create_commit(struct txn *txn, struct creation *c)
{
	struct inode_disk *di;
	int err;

	err = itable_take(txn, &c->inode_hold, c->number);
	if (err)
		return err;
	inode_init(txn, c->ino, &c->init);
	di = inode_change(txn, c->ino);
	err = c->target ? create_store_target(txn, c, di) : 0;
	if (!err && c->attrs->count)
		err = attrs_store(txn, c->ino, di, c->attrs, &c->attrs_change);
	if (!err && c->pinned)
		return create_unnamed(txn, c, di);
	if (!err)
		err = dir_insert(txn, c->dir, c->name, c->init.name_len, c->ino->id,
				 mode_type(c->init.mode), &c->dir_hold);
	if (err) {
		create_undo(txn, c, di);
		return err;
	}
	di = inode_touch(txn, c->dir, true);
	if (S_ISDIR(c->init.mode))
		disk_add32(&di->nlink, 1);
	return 0;
}

static int create_locked(struct creation *c, uint32_t umask, struct fs_attr *attr)
{
	struct txn txn;
	int err;

	err = create_check(c);
	if (!err)
		err = create_inherit_acl(c, umask);
	if (err)
		return err;
	create_inherit_group(c);
	err = create_prepare(c);
	if (!err)
		err = txn_begin(c->fs, c->credits, &txn);
	if (!err) {
		err = create_commit(&txn, c);
		txn_end(&txn);
	}
	if (!err) {
		inode_attr(c->ino, attr);
		attr->name_until_ns = c->pinned ? 0 : dir_names_keep(c->fs, c->dir);
	}
	create_unprepare(c);
	if (c->ino) {
		inode_unlock(c->fs, c->ino, LOCK_EXCLUSIVE, 0);
		if (err || !c->pinned)
			inode_put(c->fs, c->ino);
	}
	return err;
}

static int create_once(struct fs *fs, uint64_t dir, const char *name, const char *target,
		       const struct inode_init *init, uint32_t umask, struct inode **pinned,
		       struct fs_attr *attr)
{
	struct creation c = {
		.fs = fs, .name = name, .target = target, .pinned = pinned, .init = *init,
	};
	int err;

	err = inode_get(fs, inode_id_number(dir), &c.dir);
	if (err)
		return err;
	c.attrs = malloc(sizeof(*c.attrs));
	err = c.attrs ? inode_lock(fs, c.dir, dir, LOCK_EXCLUSIVE, 0, NULL) : -ENOMEM;
	if (!err) {
		err = create_locked(&c, umask, attr);
		inode_unlock(fs, c.dir, LOCK_EXCLUSIVE, 0);
	}
	free(c.attrs);
	inode_put(fs, c.dir);
	return err;
}

static int create(struct fs *fs, uint64_t dir, const char *name, const char *target,
		  const struct inode_init *init, uint32_t umask, struct inode **pinned,
		  struct fs_attr *attr)
{
	bool made_space = false;
	unsigned int i;
	int err;

	err = fs_may_write(fs);
	if (!err)
		err = name_check(name);
	if (err)
		return err;
	for (i = 0; i < CREATE_TRIES; i++) {
		err = create_once(fs, dir, name, target, init, umask, pinned, attr);
		if (err == -ENOSPC && !made_space) {
			made_space = true;
			if (!fs_make_space(fs))
				break;
		} else if (err == -EAGAIN || err == -EBUSY) {
			fs_backoff(fs, CREATE_BACKOFF_MS);
		} else {
			break;
		}
	}
	return fs_answer(fs, err == -EAGAIN ? -EBUSY : err);
}

int fs_create(struct fs *fs, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev,
	      const struct fs_cred *cred, struct fs_attr *attr)
{
	struct inode_init init = {
		.mode = mode & (S_IFMT | 07777),
		.uid = cred->uid,
		.gid = cred->gid,
		.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0,
		.parent = dir,
		.name = name,
		.name_len = strlen(name),
	};

	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		return create(fs, dir, name, NULL, &init, cred->umask, NULL, attr);
	default:
		return -EINVAL;
	}
}

int fs_create_unnamed(struct fs *fs, uint64_t dir, uint32_t mode, const struct fs_cred *cred,
		      unsigned int open_flags, struct fs_file **out, struct fs_attr *attr)
{
	static const char name[] = "(unnamed)";		/* for messages */
	struct inode_init init = {
		.mode = S_IFREG | (mode & 07777),
		.uid = cred->uid,
		.gid = cred->gid,
		.parent = dir,
		.name = name,
		.name_len = strlen(name),
	};
	struct inode *pinned = NULL;
	int err = fs_may_write(fs);

	if (!err)
		err = orphan_reserve(fs);
	if (err)
		return err;
	err = create(fs, dir, name, NULL, &init, cred->umask, &pinned, attr);
	if (!pinned)
		orphan_unreserve(fs);
	if (!err)
		err = fs_open(fs, attr->id, open_flags, cred, out, NULL);
	if (pinned) {
		inode_open_leave(fs, pinned, pinned->id);
		inode_put(fs, pinned);
	}
	return err;
}

int fs_symlink(struct fs *fs, uint64_t dir, const char *name, const char *target,
	       const struct fs_cred *cred, struct fs_attr *attr)
{
	struct inode_init init = {
		.mode = S_IFLNK | 0777,
		.uid = cred->uid,
		.gid = cred->gid,
		.parent = dir,
		.name = name,
		.name_len = strlen(name),
	};
	size_t len = strlen(target);

	if (len == 0)
		return -ENOENT;
	if (len > BLOCK_SIZE - 1)
		return -ENAMETOOLONG;
	return create(fs, dir, name, target, &init, 0, NULL, attr);
}
