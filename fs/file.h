/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files' contents: read, write, truncate, preallocate, punch, seek. */
#ifndef LUNFS_FS_FILE_H
#define LUNFS_FS_FILE_H

#include "fs/map.h"

/*
 * All take an inode that is open (its cluster lock in use with LOCK_OPEN, or held by the
 * caller) but not inode_lock()ed: they take ino->rwlock themselves, for reading where the
 * map does not change.  Buffers are best aligned to 4096; others are copied.
 */

/** file_read() - like pread(2): *@done bytes, short only at the end of the file. */
int file_read(struct fs *fs, struct inode *ino, uint64_t off, void *buf, size_t len,
	      size_t *done);

/**
 * file_write() - like pwrite(2); -ENOSPC and -EFBIG leave what was there; *@done may be short
 * only on an error after progress (then 0 is returned).
 * @append: write at the end, whatever @off says.
 */
int file_write(struct fs *fs, struct inode *ino, uint64_t off, const void *buf, size_t len,
	       bool append, size_t *done);

/** file_truncate() - new size; freeing is a chain of bounded transactions (orphan list). */
int file_truncate(struct fs *fs, struct inode *ino, uint64_t size);

enum file_alloc_flags {
	FILE_KEEP_SIZE	= 1 << 0,
	FILE_PUNCH	= 1 << 1,	/* free and read as zeros */
	FILE_ZERO	= 1 << 2,	/* allocated, reads as zeros */
	FILE_CLEAR	= 1 << 3,	/* reads as zeros; what space there is stays, none is got */
};

/** file_allocate() - fallocate(2). */
int file_allocate(struct fs *fs, struct inode *ino, unsigned int flags, uint64_t off,
		  uint64_t len);

/**
 * file_drop_zeros() - looks at the first unit >= *@unit that has space, and takes from it what
 * was written with zeros: the space of a whole one, else the mark that a block holds something.
 * Space that was never written to stays.
 * @buf: UNIT_SIZE bytes, aligned.
 * @dropped: grows by the blocks given back to the volume.
 * Return: 1, *@unit is the next; 0 there is none; negative errno.
 */
int file_drop_zeros(struct fs *fs, struct inode *ino, uint64_t *unit, void *buf,
		    uint64_t *dropped);

/** file_seek() - SEEK_DATA or SEEK_HOLE (@whence); -ENXIO beyond the end. */
int file_seek(struct fs *fs, struct inode *ino, uint64_t off, int whence, uint64_t *found);

/** file_fsync() - data and metadata of @ino durable (R7). */
int file_fsync(struct fs *fs, struct inode *ino, bool data_only);

/**
 * file_free_step() - exclusively inode_lock()ed: frees a bounded part of what lies beyond
 * @size bytes.  Return: 1 more to do; 0 done; negative errno.
 */
int file_free_step(struct fs *fs, struct inode *ino, uint64_t size);

/** file_read_unlocked() - for rescue mounts: no lock, home blocks only. */
int file_read_unlocked(struct fs *fs, uint64_t id, uint64_t off, void *buf, size_t len,
		       size_t *done);

#endif
