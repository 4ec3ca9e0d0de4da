/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about open files. */
#include "fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/image.h"

#define STALE_NS	(10 * NSEC_PER_SEC)	/* for which a name of before a snapshot may be believed */

static struct mnt_file *mnt_file(const struct fuse_file_info *fi)
{
	return (struct mnt_file *)(uintptr_t)fi->fh;
}

static unsigned int open_flags(int flags)
{
	unsigned int out = 0;

	if ((flags & O_ACCMODE) != O_RDONLY)
		out |= FS_OPEN_WRITE;
	if (flags & O_TRUNC)
		out |= FS_OPEN_WRITE | FS_OPEN_TRUNCATE;
	return out;
}

/* The thread has not been told so already. */
static bool asks_first(struct mnt *m, uint64_t id, uint32_t pid)
{
	uint64_t now = env_now_ns(m->fs->env);
	bool first = true;

	pthread_mutex_lock(&m->mutex);
	for (unsigned int i = 0; i < MNT_ASKED && first; i++) {
		struct mnt_asked *a = &m->asked[i];

		first = a->id != id || a->pid != pid || a->until_ns < now;
		if (!first)
			a->until_ns = 0;
	}
	if (first)
		m->asked[m->asked_next++ % MNT_ASKED] =
			(struct mnt_asked){ id, now + STALE_NS, pid };
	pthread_mutex_unlock(&m->mutex);
	return first;
}

int mnt_maybe_stale(fuse_req_t req, uint64_t id, int err)
{
	struct mnt *m = mnt_of(req);
	struct image_info info;
	int64_t age;

	if (err != -EPERM || fs_image_info(m->fs, id, &info) || !info.frozen)
		return err;
	age = (int64_t)env_realtime_ns(m->fs->env) - info.ctime_ns;
	/* By the clocks of two hosts; to look once too often costs little. */
	if (age > (int64_t)STALE_NS || age < -(int64_t)STALE_NS)
		return err;
	return asks_first(m, id, (uint32_t)fuse_req_ctx(req)->pid) ? -ESTALE : err;
}

static void file_enter(struct mnt *m, struct mnt_file *f)
{
	pthread_mutex_lock(&m->mutex);
	list_add_tail(&m->files, &f->node);
	pthread_mutex_unlock(&m->mutex);
	atomic_fetch_add(&m->open_files, 1);
}

static int file_open(fuse_req_t req, uint64_t id, int flags, struct mnt_file **out)
{
	struct mnt *m = mnt_of(req);
	struct mnt_file *f;
	struct fs_cred cred;
	int err;

	if (m->o.read_only && (open_flags(flags) & FS_OPEN_WRITE))
		return -EROFS;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	mnt_cred(req, true, &cred);
	err = fs_open(m->fs, id, open_flags(flags), &cred, &f->file, NULL);
	/* As a truncation does that the kernel asks for by itself. */
	if (!err && flags & O_TRUNC) {
		err = fs_drop_privileges(m->fs, f->file, mnt_clears_set_id(fuse_req_ctx(req)->uid));
		if (err)
			fs_close(m->fs, f->file);
	}
	if (err) {
		free(f);
		return err;
	}
	file_enter(m, f);
	*out = f;
	return 0;
}

void mnt_file_close(struct mnt *m, struct mnt_file *f)
{
	pthread_mutex_lock(&m->mutex);
	list_del(&f->node);
	pthread_mutex_unlock(&m->mutex);
	fs_close(m->fs, f->file);
	atomic_fetch_sub(&m->open_files, 1);
	free(f);
}

/*
 * How the kernel is to treat an open file.  O_DIRECT goes past its cache, and writes to
 * different places of one file at a time (libfuse 3.14 has no name for that flag).  So does
 * O_APPEND: the kernel's idea of where the file ends may be older than the lock that we have
 * just taken, and its cache would hold the data at the wrong place; we append at the end
 * that is true.  And nothing is cached of a file that several hosts write at once.
 */
static uint32_t open_reply_flags(struct mnt *m, const struct mnt_file *f, int flags)
{
	bool direct = flags & (O_DIRECT | O_APPEND) || f->file->mode == LOCK_MULTI;
	uint32_t out = 0;

	if (direct)
		out |= FOPEN_DIRECT_IO;
	if (flags & O_DIRECT)
		out |= FOPEN_PARALLEL_DIRECT_WRITES;
	/* Writes past the kernel's cache need not change what it has. */
	if (fs_cache_open(m->fs, f->file, direct ? NULL : m) && f->file->mode != LOCK_MULTI)
		out |= FOPEN_KEEP_CACHE;
	return out;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	struct fuse_open_out out = { 0 };
	struct iovec iov = { &out, sizeof(out) };
	struct mnt_file *f;
	int err;

	err = mnt_maybe_stale(req, mnt_id(m, ino), file_open(req, mnt_id(m, ino), fi->flags, &f));
	if (err) {
		mnt_error(req, err);
		return;
	}
	out.fh = (uintptr_t)f;
	out.open_flags = open_reply_flags(m, f, fi->flags);
	if (fuse_reply_iov(req, &iov, 1))
		mnt_file_close(m, f);	/* the open was interrupted: no release will come */
}

/* O_TMPFILE. */
static int create_unnamed(fuse_req_t req, fuse_ino_t parent, mode_t mode, int flags,
			  const struct fs_cred *cred, struct fs_attr *attr, struct mnt_file **out)
{
	struct mnt *m = mnt_of(req);
	struct mnt_file *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	err = fs_create_unnamed(m->fs, mnt_id(m, parent), mode & 07777, cred, open_flags(flags),
				&f->file, attr);
	if (err) {
		free(f);
		return err;
	}
	file_enter(m, f);
	*out = f;
	return 0;
}

static int create_named(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, int flags,
			const struct fs_cred *cred, struct fs_attr *attr, bool *found,
			struct mnt_file **out)
{
	struct mnt *m = mnt_of(req);
	int err;

	err = fs_create(m->fs, mnt_id(m, parent), name, (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, cred,
			attr);
	/* Another host may have been first, with an entry that the kernel did not know. */
	*found = err == -EEXIST && !(flags & O_EXCL);
	if (*found)
		err = fs_lookup(m->fs, mnt_id(m, parent), name, attr);
	return err ? err : file_open(req, attr->id, flags, out);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	struct fuse_entry_param e;
	struct mnt_file *f;
	struct fs_cred cred;
	struct fs_attr attr;
	bool found = false;
	int err;

	if (!mnt_writable(req))
		return;
	mnt_cred(req, false, &cred);
	if (mnt_this_thread()->unnamed)
		err = create_unnamed(req, parent, mode, fi->flags, &cred, &attr, &f);
	else
		err = create_named(req, parent, name, mode, fi->flags, &cred, &attr, &found, &f);
	if (err) {
		mnt_error(req, err);
		return;
	}
	mnt_entry(m, &attr, &e);
	fi->fh = (uintptr_t)f;
	fi->direct_io = (fi->flags & (O_DIRECT | O_APPEND)) != 0 || f->file->mode == LOCK_MULTI;
	/* Not every kernel drops what it has cached of a file that it thought it made. */
	fs_cache_open(m->fs, f->file, found || fi->direct_io ? NULL : m);
	if (fuse_reply_create(req, &e, fi))
		mnt_file_close(m, f);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fs_cache_opened(mnt_of(req)->fs, mnt_file(fi)->file);
	mnt_file_close(mnt_of(req), mnt_file(fi));
	fuse_reply_err(req, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	size_t done = 0;
	int err;

	(void)ino;
	atomic_fetch_add_explicit(&m->reads, 1, memory_order_relaxed);
	fs_cache_opened(m->fs, mnt_file(fi)->file);
	if (size > MNT_IO_MAX)
		size = MNT_IO_MAX;
	err = fs_read(m->fs, mnt_file(fi)->file, (uint64_t)off, mnt_data(), size, &done);
	if (err)
		mnt_error(req, err);
	else
		fuse_reply_buf(req, (const char *)mnt_data(), done);
}

/*
 * O_DSYNC, O_SYNC and RWF_DSYNC are ours to keep (R7): of writes that go past its cache the
 * kernel expects it, after the others it sends an fsync, which then finds nothing to do.
 */
static int write_sync(struct mnt *m, const struct fuse_file_info *fi)
{
	if (!(fi->flags & O_DSYNC) || fi->writepage)
		return 0;
	return fs_fsync(m->fs, mnt_file(fi)->file, (fi->flags & O_SYNC) != O_SYNC);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	size_t done = 0;
	int err;

	(void)ino;
	atomic_fetch_add_explicit(&m->writes, 1, memory_order_relaxed);
	/* A page of a mapping: it holds what others have changed since as it was before. */
	if (fi->writepage && mnt_file(fi)->file->mode == LOCK_MULTI) {
		mnt_error(req, -EPERM);
		return;
	}
	if (!fi->writepage) {
		err = fs_drop_privileges(m->fs, mnt_file(fi)->file,
					 mnt_clears_set_id(fuse_req_ctx(req)->uid));
		if (err) {
			mnt_error(req, err);
			return;
		}
	}
	/* Dirty pages of an mmap may be written back after the file was opened to append. */
	err = fs_write(m->fs, mnt_file(fi)->file, (uint64_t)off, buf, size,
		       (fi->flags & O_APPEND) && !fi->writepage, &done);
	if (!err)
		err = write_sync(m, fi);
	if (err)
		mnt_error(req, err);
	else
		fuse_reply_write(req, done);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	(void)ino;
	mnt_error(req, fs_fsync(mnt_of(req)->fs, mnt_file(fi)->file, data_only));
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct mnt *m = mnt_of(req);
	unsigned int flags = 0;

	(void)ino;
	if (!mnt_writable(req))
		return;
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (mode & FALLOC_FL_KEEP_SIZE)
		flags |= FILE_KEEP_SIZE;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		flags |= FILE_PUNCH;
	if (mode & FALLOC_FL_ZERO_RANGE)
		flags |= FILE_ZERO;
	mnt_error(req, fs_fallocate(m->fs, mnt_file(fi)->file, flags, (uint64_t)off,
				    (uint64_t)len));
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	uint64_t found = 0;
	int err;

	(void)ino;
	err = fs_seek(mnt_of(req)->fs, mnt_file(fi)->file, (uint64_t)off, whence, &found);
	if (err)
		mnt_error(req, err);
	else
		fuse_reply_lseek(req, (off_t)found);
}

void mnt_file_ops(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->create = op_create;
	ops->release = op_release;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
}
