// SPDX-License-Identifier: Apache-2.0
/* Looking names up, and reading and changing what an inode says of itself. */
#include <stdlib.h>

#include "fs/attrs.h"
#include "fs/internal.h"

#define STAT_TRIES	24u
#define STAT_BACKOFF_MS	80u
#define HOME_TRIES	4u
#define HOME_PAUSE_MS	6u

/* ---- reading ---- */

static int stat_locked(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	struct inode *ino;
	int err;

	err = inode_lock_shared(fs, id, &ino);
	if (err)
		return err;
	inode_attr(ino, attr);
	inode_unlock_free(fs, ino);
	return 0;
}

/*
 * inode_stat(), certain.  An inode that another host has just made may not be at home yet: its
 * directory was written home a moment earlier, so the rest follows within milliseconds.  Else
 * the lock tells, and if that host has it open, its next checkpoint does.
 */
static int stat_certain(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < STAT_TRIES; i++) {
		err = inode_stat(fs, id, attr);
		if (err != -ESTALE && err != -EUCLEAN && err != -EBADMSG && err != -EAGAIN)
			return err;
		if (fs->rescue || fs_is_lost(fs))
			return err;
		if (i < HOME_TRIES) {
			fs_backoff(fs, HOME_PAUSE_MS);
			continue;
		}
		err = stat_locked(fs, id, attr);
		if (err != -EBUSY)
			return err;
		fs_backoff(fs, STAT_BACKOFF_MS);
	}
	return err;
}

int fs_getattr(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	int err = fs_may_read(fs);

	return err ? err : fs_answer(fs, stat_certain(fs, id, attr));
}

/* "..": where a directory is that another host may just have moved. */
static int parent_certain(struct fs *fs, uint64_t dir, uint64_t *parent)
{
	struct inode *ino;
	int err;

	if (fs->rescue || dir == fs->super.root)
		return fs_parent(fs, dir, parent);
	err = inode_lock_shared(fs, dir, &ino);
	if (err)
		return err;
	*parent = le64_to_cpu(inode_disk(ino)->parent);
	inode_unlock_free(fs, ino);
	return 0;
}

static int lookup_dots(struct fs *fs, uint64_t dir, const char *name, struct fs_attr *attr)
{
	uint64_t id = dir;
	int err = 0;

	if (name[1])
		err = parent_certain(fs, dir, &id);
	return err ? err : stat_certain(fs, id, attr);
}

/* Names that a host which does not get on cannot write home are shown as they lie there. */
static int lookup_late(struct fs *fs, uint64_t dir, const char *name, struct dirent_info *info)
{
	int err = dir_lookup_hint(fs, dir, name, strlen(name), info);

	info->until_ns = 0;
	return err;
}

static int lookup_name(struct fs *fs, uint64_t dir, const char *name, bool certain,
		       struct fs_attr *attr)
{
	struct dirent_info info;
	unsigned int i;
	int err = 0;

	for (i = 0; i < LOOKUP_TRIES; i++) {
		err = dir_lookup_shared(fs, dir, name, strlen(name), &info);
		if (err == -EBUSY && !certain)
			err = lookup_late(fs, dir, name, &info);
		if (err)
			return err;
		err = stat_certain(fs, info.id, attr);
		attr->name_until_ns = info.until_ns;
		/* Removed between the two: the name tells. */
		if (err != -ESTALE)
			return err;
	}
	return err;
}

static int lookup(struct fs *fs, uint64_t dir, const char *name, bool certain,
		  struct fs_attr *attr)
{
	int err;

	err = fs_may_read(fs);
	if (err)
		return err;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return fs_answer(fs, lookup_dots(fs, dir, name, attr));
	err = name_check(name);
	if (!err)
		err = lookup_name(fs, dir, name, certain, attr);
	return fs_answer(fs, err);
}

int fs_lookup(struct fs *fs, uint64_t dir, const char *name, struct fs_attr *attr)
{
	return lookup(fs, dir, name, true, attr);
}

int fs_lookup_shown(struct fs *fs, uint64_t dir, const char *name, struct fs_attr *attr)
{
	return lookup(fs, dir, name, false, attr);
}

int fs_resolve(struct fs *fs, const char *path, struct fs_attr *attr)
{
	char name[NAME_BYTES_MAX + 1];
	size_t len;
	int err;

	err = fs_getattr(fs, fs->super.root, attr);
	while (!err) {
		path += strspn(path, "/");
		if (!*path)
			return 0;
		len = strcspn(path, "/");
		if (len > NAME_BYTES_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, len);
		name[len] = '\0';
		path += len;
		if (!S_ISDIR(attr->mode))
			return -ENOTDIR;
		err = fs_lookup(fs, attr->id, name, attr);
	}
	return err;
}

int fs_readdir(struct fs *fs, uint64_t dir, uint64_t from, dir_emit_fn emit, void *arg)
{
	int err = fs_may_read(fs);

	return err ? err : fs_answer(fs, dir_list_shared(fs, dir, from, emit, arg));
}

/* ---- symbolic links ---- */

/* The target's block, where it does not fit into the inode.  It never changes. */
static int readlink_block(struct fs *fs, uint64_t id, const struct inode_disk *di, char *buf,
			  size_t len)
{
	struct map_entry e;
	char *block;
	int err;

	err = map_get_unlocked(fs, id, di, 0, &e);
	if (err)
		return err;
	if (!e.block || !(e.valid & 1))
		return -EUCLEAN;
	block = blkdev_alloc(BLOCK_SIZE);
	if (!block)
		return -ENOMEM;
	err = blkdev_read(fs->dev, e.block << BLOCK_SHIFT, block, BLOCK_SIZE);
	if (!err)
		memcpy(buf, block, len);
	free(block);
	return err;
}

static int readlink_peeked(struct fs *fs, uint64_t id, struct inode_disk *di, char *buf,
			   size_t size)
{
	uint64_t len = le64_to_cpu(di->size), again;
	int err = 0;

	if (!S_ISLNK(le32_to_cpu(di->mode)))
		return -EINVAL;
	if (len == 0 || len >= BLOCK_SIZE || len >= size)
		return -EUCLEAN;
	if (!(le32_to_cpu(di->flags) & INODE_INLINE)) {
		err = readlink_block(fs, id, di, buf, len);
		if (!err)
			err = fs_parent(fs, id, &again);	/* still there: it was its block */
	} else if (len > INLINE_SIZE) {
		err = -EUCLEAN;
	} else {
		memcpy(buf, di->root, len);
	}
	if (!err)
		buf[len] = '\0';
	return err;
}

int fs_readlink(struct fs *fs, uint64_t id, char *buf, size_t size)
{
	struct inode_disk *di;
	int err;

	err = fs_may_read(fs);
	if (err)
		return err;
	di = blkdev_alloc(BLOCK_SIZE);
	if (!di)
		return -ENOMEM;
	err = inode_peek(fs, id, di);
	if (!err)
		err = readlink_peeked(fs, id, di, buf, size);
	free(di);
	return fs_answer(fs, err);
}

/* ---- attributes ---- */

/* The access ACL, if there is one, follows a change of mode. */
static int setattr_acl(struct fs *fs, struct inode *ino, uint32_t mode, struct attrs *a)
{
	const void *acl;
	size_t len;
	int err;

	err = attrs_load(fs, ino, a);
	if (err || attrs_find(a, ACL_ACCESS, &acl, &len))
		return err;
	if (!acl_check(acl, len))
		return -EUCLEAN;
	acl_chmod((void *)(uintptr_t)acl, len, mode);
	return 0;
}

static void setattr_fields(struct inode *ino, struct inode_disk *di, unsigned int set,
			   const struct fs_attr *attr)
{
	uint32_t type = le32_to_cpu(di->mode) & S_IFMT;

	if (set & FS_SET_MODE)
		di->mode = cpu_to_le32(type | (attr->mode & 07777));
	if (set & FS_CLEAR_SET_ID)
		di->mode = cpu_to_le32(le32_to_cpu(di->mode) & ~mode_set_id(le32_to_cpu(di->mode)));
	if (set & FS_SET_UID)
		di->uid = cpu_to_le32(attr->uid);
	if (set & FS_SET_GID)
		di->gid = cpu_to_le32(attr->gid);
	if (set & FS_SET_ATIME)
		di->atime = cpu_to_le64((uint64_t)attr->atime_ns);
	if (set & FS_SET_MTIME) {
		/* A write's time that is still on its way would undo it. */
		__atomic_store_n(&ino->write_ns, 0, __ATOMIC_RELEASE);
		di->mtime = cpu_to_le64((uint64_t)attr->mtime_ns);
	}
	if (set & FS_SET_CTIME)
		di->ctime = cpu_to_le64((uint64_t)attr->ctime_ns);
}

static int setattr_locked(struct fs *fs, struct inode *ino, unsigned int set,
			  const struct fs_attr *attr, struct attrs *a)
{
	struct attrs_change change = { .credits = 1 };
	struct inode_disk *di;
	struct txn txn;
	int err;

	a->count = 0;
	if ((set & FS_SET_MODE) && xattr_block(ino)) {
		err = setattr_acl(fs, ino, attr->mode, a);
		if (!err && a->count)
			err = attrs_store_prepare(fs, ino, a, &change);
		if (err)
			return err;
	}
	err = txn_begin(fs, change.credits, &txn);
	if (!err) {
		di = inode_touch(&txn, ino, false);
		if (a->count)
			err = attrs_store(&txn, ino, di, a, &change);
		if (!err)
			setattr_fields(ino, di, set, attr);
		txn_end(&txn);
	}
	attrs_store_done(fs, &change);
	return err;
}

/*
 * The inode's cluster lock is ours; not inode_lock()ed: file_truncate() does that itself.  It
 * counts as an open meanwhile: no snapshot is made of the file, and nothing is merged into it
 * or away from below it, between the look at its flags and the truncation.
 */
static int setattr_size(struct fs *fs, struct inode *ino, uint64_t id, uint64_t size)
{
	uint32_t mode, flags;
	int err;

	err = inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL);
	if (err)
		return err;
	mode = le32_to_cpu(inode_disk(ino)->mode);
	flags = le32_to_cpu(inode_disk(ino)->flags);
	if (S_ISDIR(mode))
		err = -EISDIR;
	else if (!S_ISREG(mode))
		err = -EINVAL;
	else if (flags & (INODE_MULTI | INODE_FROZEN))
		err = -EPERM;
	else if (size > FILE_SIZE_MAX)
		err = -EFBIG;
	else
		err = orphan_settle_shrink(fs, ino);
	if (!err) {
		env_mutex_lock(fs->env, &fs->open_mutex);
		ino->opens++;
		env_mutex_unlock(fs->env, &fs->open_mutex);
	}
	inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	if (err)
		return err;
	err = file_truncate(fs, ino, size);
	inode_open_leave(fs, ino, id);
	return err;
}

static int setattr_do(struct fs *fs, struct inode *ino, uint64_t id, unsigned int set,
		      struct fs_attr *attr)
{
	struct attrs *a;
	int err = 0;

	if (set & FS_SET_SIZE) {
		err = inode_writer_enter(fs, ino);
		if (err)
			return err;
		err = setattr_size(fs, ino, id, attr->size);
		inode_writer_leave(fs, ino);
	}
	if (err)
		return err;
	a = malloc(sizeof(*a));
	if (!a)
		return -ENOMEM;
	err = inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL);
	if (!err) {
		if (set & ~(unsigned int)FS_SET_SIZE)
			err = setattr_locked(fs, ino, set, attr, a);
		if (!err)
			inode_attr(ino, attr);
		inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	}
	free(a);
	return err;
}

int fs_setattr(struct fs *fs, uint64_t id, unsigned int set, struct fs_attr *attr)
{
	struct inode *ino;
	int err;

	err = fs_may_write(fs);
	if (err)
		return err;
	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return fs_result(fs, err);
	/* Held over both steps, so that nobody comes between them. */
	err = cluster_get(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0, NULL);
	if (!err) {
		err = setattr_do(fs, ino, id, set, attr);
		cluster_put(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0);
	}
	inode_put(fs, ino);
	return fs_answer(fs, err);
}
