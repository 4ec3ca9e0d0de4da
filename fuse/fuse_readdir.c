/* SPDX-License-Identifier: Apache-2.0 */
/* Reading directories. */
#include "fuse/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

/*
 * A position in a directory: 0 "." comes next, 1 "..", then hash + POSITION_BASE of the name
 * that comes next.  Names of one hash have one position: they are given together or not at
 * all, so that none is lost between two calls.
 */
#define POSITION_BASE	2

struct listing {
	fuse_req_t	req;
	struct mnt	*mnt;
	bool		plus;
	size_t		size, used;
	size_t		group;		/* where the names of the present hash begin */
	uint64_t	hash;
	bool		any;
};

/* Adds one entry to the answer; false if it does not fit. */
static bool add_entry(struct listing *l, const char *name, const struct fs_attr *attr,
		      off_t next)
{
	char *at = (char *)mnt_data() + l->used;
	size_t room = l->size - l->used;
	struct fuse_entry_param e;
	size_t n;

	mnt_entry(l->mnt, attr, &e);
	if (l->plus) {
		n = fuse_add_direntry_plus(l->req, at, room, name, &e, next);
	} else {
		e.attr.st_ino = attr->ino;
		n = fuse_add_direntry(l->req, at, room, name, &e.attr, next);
	}
	if (n > room)
		return false;
	l->used += n;
	return true;
}

/*
 * The kernel takes an entry of READDIRPLUS with nodeid 0 as a name only: for "." and "..",
 * and for what is gone by the time its attributes are read.
 */
static bool add_name(struct listing *l, const char *name, uint64_t ino, uint32_t mode,
		     off_t next)
{
	char *at = (char *)mnt_data() + l->used;
	size_t room = l->size - l->used;
	struct fuse_entry_param e = { .attr = { .st_ino = ino, .st_mode = mode } };
	size_t n;

	if (l->plus)
		n = fuse_add_direntry_plus(l->req, at, room, name, &e, next);
	else
		n = fuse_add_direntry(l->req, at, room, name, &e.attr, next);
	if (n > room)
		return false;
	l->used += n;
	return true;
}

static bool list_one(struct listing *l, const struct dirent_info *d)
{
	off_t next = (off_t)(d->hash + 1 + POSITION_BASE);
	struct fs_attr attr;

	if (l->plus && !fs_getattr(l->mnt->fs, d->id, &attr)) {
		attr.name_until_ns = d->until_ns;
		return add_entry(l, d->name, &attr, next);
	}
	return add_name(l, d->name, inode_id_number(d->id), DTTOIF(d->type), next);
}

static int list_emit(void *arg, const struct dirent_info *d)
{
	struct listing *l = arg;

	if (!l->any || d->hash != l->hash) {
		l->group = l->used;
		l->hash = d->hash;
	}
	if (list_one(l, d)) {
		l->any = true;
		return 0;
	}
	if (l->group)	/* else nothing but this group is there: give what fits */
		l->used = l->group;
	return 1;
}

/* "." and ".."; false if the answer is full. */
static bool list_dots(struct listing *l, uint64_t dir, off_t *off)
{
	uint64_t up = dir;

	if (*off == 0) {
		if (!add_name(l, ".", inode_id_number(dir), S_IFDIR, 1))
			return false;
		*off = 1;
	}
	if (*off == 1) {
		fs_parent(l->mnt->fs, dir, &up);
		if (!add_name(l, "..", inode_id_number(up), S_IFDIR, POSITION_BASE))
			return false;
		*off = POSITION_BASE;
	}
	return true;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct mnt *m = mnt_of(req);
	struct listing l = {
		.req = req, .mnt = m, .plus = plus,
		.size = size < MNT_IO_MAX ? size : MNT_IO_MAX,
	};
	int err = 0;

	if (list_dots(&l, mnt_id(m, ino), &off))
		err = fs_readdir(m->fs, mnt_id(m, ino), (uint64_t)off - POSITION_BASE, list_emit,
				 &l);
	if (err < 0 && !l.used)
		mnt_error(req, err);
	else
		fuse_reply_buf(req, (const char *)mnt_data(), l.used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only,
			struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);

	(void)ino;
	(void)data_only;
	(void)fi;
	mnt_error(req, fs_sync_names(m->fs));
}

void mnt_readdir_ops(struct fuse_lowlevel_ops *ops)
{
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->fsyncdir = op_fsyncdir;
}
