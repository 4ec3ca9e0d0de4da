/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about names and attributes. */
#include "fuse/internal.h"

#include <errno.h>
#include <linux/limits.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>

static void reply_entry(fuse_req_t req, int err, const struct fs_attr *attr)
{
	struct fuse_entry_param e;

	if (err) {
		mnt_error(req, err);
		return;
	}
	mnt_entry(mnt_of(req), attr, &e);
	fuse_reply_entry(req, &e);
}

static void reply_attr(fuse_req_t req, int err, const struct fs_attr *attr)
{
	struct stat st;

	if (err) {
		mnt_error(req, err);
		return;
	}
	mnt_stat(attr, &st);
	fuse_reply_attr(req, &st, mnt_timeout(attr));
}

/* ---- what has no name any more ---- */

/* mutex held. */
static void removed_drop(struct mnt *m, struct mnt_removed *r)
{
	table_remove(&m->removed, &r->node);
	list_del(&r->link);
	atomic_fetch_sub(&m->removed_count, 1);
	free(r);
}

/* mutex held. */
static struct mnt_removed *removed_find(const struct mnt *m, uint64_t id)
{
	struct table_node *node = table_find(&m->removed, id);

	return node ? container_of(node, struct mnt_removed, node) : NULL;
}

/* mutex held: @r is the newest. */
static void removed_add(struct mnt *m, struct mnt_removed *r)
{
	struct mnt_removed *old = removed_find(m, r->attr.id);

	if (old)
		removed_drop(m, old);
	if (table_insert(&m->removed, &r->node, r->attr.id)) {
		free(r);
		return;
	}
	list_add_tail(&m->removed_order, &r->link);
	if (atomic_fetch_add(&m->removed_count, 1) >= MNT_REMOVED)
		removed_drop(m, list_first(&m->removed_order, struct mnt_removed, link));
}

void mnt_gone(struct mnt *m, const struct fs_attr *attr)
{
	struct mnt_removed *r = calloc(1, sizeof(*r));

	if (!r)
		return;
	r->attr = *attr;
	r->attr.nlink = 0;
	r->attr.covered = false;
	pthread_mutex_lock(&m->mutex);
	removed_add(m, r);
	pthread_mutex_unlock(&m->mutex);
}

void mnt_forgotten(struct mnt *m, uint64_t id)
{
	struct mnt_removed *r;

	if (!atomic_load(&m->removed_count))
		return;
	pthread_mutex_lock(&m->mutex);
	r = removed_find(m, id);
	if (r)
		removed_drop(m, r);
	pthread_mutex_unlock(&m->mutex);
}

void mnt_forget_all(struct mnt *m)
{
	struct mnt_removed *r, *next;

	list_for_each(r, next, &m->removed_order, link)
		removed_drop(m, r);
	table_fini(&m->removed);
}

/* Whether @id lost its last name here; then @attr, if not NULL, receives what it was. */
static bool removed_here(struct mnt *m, uint64_t id, struct fs_attr *attr)
{
	struct mnt_removed *r;

	pthread_mutex_lock(&m->mutex);
	r = removed_find(m, id);
	if (r && attr)
		*attr = r->attr;
	pthread_mutex_unlock(&m->mutex);
	return r;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mnt *m = mnt_of(req);
	struct fs_attr attr;
	int err = fs_lookup_shown(m->fs, mnt_id(m, parent), name, &attr);

	if (err == -ESTALE && removed_here(m, mnt_id(m, parent), NULL))
		err = -ENOENT;
	reply_entry(req, err, &attr);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	struct fs_attr attr;
	int err;

	(void)fi;
	err = fs_getattr(m->fs, mnt_id(m, ino), &attr);
	if (err == -ESTALE && removed_here(m, mnt_id(m, ino), &attr))
		err = 0;
	reply_attr(req, err, &attr);
}

/* The kernel has more years than 64 bits of ns, 1677 to 2262: what lies beyond becomes the nearest that there is. */
static int64_t time_of(const struct timespec *ts, bool now, struct env *env)
{
	static const int64_t last = INT64_MAX / (int64_t)NSEC_PER_SEC;

	if (now)
		return (int64_t)env_realtime_ns(env);
	if (ts->tv_sec >= last || ts->tv_sec <= -last)
		return ts->tv_sec > 0 ? last * (int64_t)NSEC_PER_SEC : -last * (int64_t)NSEC_PER_SEC;
	return (int64_t)ts->tv_sec * (int64_t)NSEC_PER_SEC + ts->tv_nsec;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
		       struct fuse_file_info *fi)
{
	static const struct { int fuse; unsigned int ours; } flags[] = {
		{ FUSE_SET_ATTR_MODE, FS_SET_MODE }, { FUSE_SET_ATTR_UID, FS_SET_UID },
		{ FUSE_SET_ATTR_GID, FS_SET_GID }, { FUSE_SET_ATTR_SIZE, FS_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, FS_SET_ATIME }, { FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME, FS_SET_MTIME }, { FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME },
		{ FUSE_SET_ATTR_CTIME, FS_SET_CTIME },
	};
	struct mnt *m = mnt_of(req);
	struct env *env = m->fs->env;
	struct fs_attr attr = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime_ns = time_of(&st->st_atim, to_set & FUSE_SET_ATTR_ATIME_NOW, env),
		.mtime_ns = time_of(&st->st_mtim, to_set & FUSE_SET_ATTR_MTIME_NOW, env),
		.ctime_ns = time_of(&st->st_ctim, false, env),
	};
	unsigned int set = 0;
	size_t i;
	int err;

	(void)fi;
	if (!mnt_writable(req))
		return;
	for (i = 0; i < ARRAY_SIZE(flags); i++)
		if (to_set & flags[i].fuse)
			set |= flags[i].ours;
	err = mnt_maybe_stale(req, mnt_id(m, ino), fs_setattr(m->fs, mnt_id(m, ino), set, &attr));
	reply_attr(req, err, &attr);
}

static void create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   dev_t rdev)
{
	struct mnt *m = mnt_of(req);
	struct fs_cred cred;
	struct fs_attr attr;
	int err;

	if (!mnt_writable(req))
		return;
	mnt_cred(req, false, &cred);
	err = fs_create(m->fs, mnt_id(m, parent), name, mode, rdev, &cred, &attr);
	reply_entry(req, err, &attr);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		     dev_t rdev)
{
	create(req, parent, name, mode & S_IFMT ? mode : mode | S_IFREG, rdev);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	create(req, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFDIR, 0);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		       const char *name)
{
	struct mnt *m = mnt_of(req);
	struct fs_cred cred;
	struct fs_attr attr;
	int err;

	if (!mnt_writable(req))
		return;
	mnt_cred(req, false, &cred);
	err = fs_symlink(m->fs, mnt_id(m, parent), name, target, &cred, &attr);
	reply_entry(req, err, &attr);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct mnt *m = mnt_of(req);
	char target[PATH_MAX];
	int err;

	err = fs_readlink(m->fs, mnt_id(m, ino), target, sizeof(target));
	if (err)
		mnt_error(req, err);
	else
		fuse_reply_readlink(req, target);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct mnt *m = mnt_of(req);
	struct fs_attr attr;
	int err;

	if (!mnt_writable(req))
		return;
	err = fs_link(m->fs, mnt_id(m, ino), mnt_id(m, parent), name, &attr);
	reply_entry(req, err, &attr);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mnt *m = mnt_of(req);

	if (mnt_writable(req))
		mnt_error(req, fs_unlink(m->fs, mnt_id(m, parent), name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mnt *m = mnt_of(req);

	if (mnt_writable(req))
		mnt_error(req, fs_rmdir(m->fs, mnt_id(m, parent), name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t new_parent, const char *new_name, unsigned int flags)
{
	struct mnt *m = mnt_of(req);

	if (mnt_writable(req))
		mnt_error(req, fs_rename(m->fs, mnt_id(m, parent), name,
					 mnt_id(m, new_parent), new_name, flags));
}

/* ---- extended attributes ---- */

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	struct mnt *m = mnt_of(req);

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) {
		mnt_error(req, -EINVAL);
		return;
	}
	if (mnt_this_thread()->acl_kills_sgid)
		flags |= XATTR_KILL_SGID;
	if (mnt_writable(req))
		mnt_error(req, xattr_set(m->fs, mnt_id(m, ino), name, value, size, flags));
}

/* The answer to a question for bytes: their number if @size is 0, else the bytes. */
static void reply_bytes(fuse_req_t req, int err, const void *bytes, size_t len, size_t size)
{
	if (err)
		mnt_error(req, err);
	else if (size)
		fuse_reply_buf(req, bytes, len);
	else
		fuse_reply_xattr(req, len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct mnt *m = mnt_of(req);
	char *value = (char *)mnt_data();
	size_t len = 0;
	int err;

	if (size > MNT_IO_MAX)
		size = MNT_IO_MAX;
	err = xattr_get(m->fs, mnt_id(m, ino), name, value, size, &len);
	reply_bytes(req, err, value, len, size);
}

/* Whoever may not read them is not told their names either. */
static size_t without_trusted(char *names, size_t len)
{
	size_t kept = 0, n;
	char *at;

	for (at = names; at < names + len; at += n) {
		n = strlen(at) + 1;
		if (!strncmp(at, XATTR_TRUSTED_PREFIX, XATTR_TRUSTED_PREFIX_LEN))
			continue;
		memmove(names + kept, at, n);
		kept += n;
	}
	return kept;
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct mnt *m = mnt_of(req);
	char *names = (char *)mnt_data();
	size_t len = 0;
	int err;

	err = xattr_list(m->fs, mnt_id(m, ino), names, MNT_IO_MAX, &len);
	if (!err && fuse_req_ctx(req)->uid)
		len = without_trusted(names, len);
	if (!err && size && len > size)
		err = -ERANGE;
	reply_bytes(req, err, names, len, size);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct mnt *m = mnt_of(req);

	if (mnt_writable(req))
		mnt_error(req, xattr_remove(m->fs, mnt_id(m, ino), name));
}

void mnt_name_ops(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->readlink = op_readlink;
	ops->link = op_link;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
	ops->setxattr = op_setxattr;
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->removexattr = op_removexattr;
}
