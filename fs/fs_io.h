/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain case of reading and writing, for front ends with many requests at a time: whole
 * blocks that exist and lie together on the device.  Nothing is allocated, copied or waited
 * for; several requests go to the device as one batch.
 *
 *   fs_io_prepare() ──► fs_io_submit() ──► done() ──► fs_io_end()
 *          │                                             ▲
 *          └──────────► fs_io_run(), for a single one ───┘
 */
#ifndef LUNFS_FS_FS_IO_H
#define LUNFS_FS_FS_IO_H

#include "fs/fs.h"

#define FS_IO_BATCH	32u	/* requests that fs_io_submit() takes at a time */

/* One request: the caller's memory, left alone from fs_io_prepare() to fs_io_end(). */
struct fs_io {
	struct blk_io	io;
	struct iovec	iov;
	struct fs	*fs;
	struct inode	*ino;
	/* Set by the caller of fs_io_submit(): called once, from any thread; must not block. */
	void		(*done)(struct fs_io *fio, int err);
};

/**
 * fs_io_prepare() - a read or an overwrite of [@off, @off + @len), if it is a plain one.
 * @op:  BLK_READ or BLK_WRITE.
 * @buf: aligned as info.mem_align of the device says; the caller's until fs_io_end().
 *
 * On success the file's map stays as it is (its rwlock is held for reading, by no thread in
 * particular) until fs_io_end(): that must come whatever happens, and whoever holds prepared
 * requests that are not submitted must not wait for any other lock of the file.
 *
 * Return: 0; -EAGAIN not that plain, or not now: fs_read() or fs_write() do it.
 */
int fs_io_prepare(struct fs *fs, struct fs_file *f, enum blk_op op, uint64_t off, void *buf,
		  size_t len, struct fs_io *fio);

/** fs_io_drop() - a prepared request that shall not be: its file is let go of. */
void fs_io_drop(struct fs_io *fio);

/**
 * fs_io_has_privileges() - whether the file of prepared @fio may have what a write takes away, see
 * fs_drop_privileges(), which must come first then and which this cannot wait for.
 */
bool fs_io_has_privileges(const struct fs_io *fio, bool set_id);

/**
 * fs_drop_privileges() - what @f has open loses, as write(2) wants it, its file capabilities
 * (security.capability) and, with @set_id, its set-id bits: the writer may not keep them.
 * Of a file that several hosts write at once nothing is changed: its inode is nobody's.
 * Context: may wait for locks.  Return: 0, also if there are none; errors of fs_setattr() and xattr_remove().
 */
int fs_drop_privileges(struct fs *fs, struct fs_file *f, bool set_id);

/** fs_io_submit() - starts at most FS_IO_BATCH prepared requests. */
void fs_io_submit(struct fs *fs, struct fs_io **fios, unsigned int count);

/** fs_io_run() - executes one in the calling thread instead.  Return: the result. */
int fs_io_run(struct fs_io *fio);

/**
 * fs_io_end() - the request is over: @err is what done() or fs_io_run() said.
 * Context: does not block unless @err is -ETIMEDOUT; it then waits for what is still under
 * way in the device (R4), and is not for done() to call.
 * Return: what to tell the user.
 */
int fs_io_end(struct fs_io *fio, int err);

#endif
