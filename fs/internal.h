/* SPDX-License-Identifier: Apache-2.0 */
/* What the operations of fs.h share. */
#ifndef LUNFS_FS_INTERNAL_H
#define LUNFS_FS_INTERNAL_H

#include <errno.h>
#include <sys/stat.h>

#include "fs/cluster.h"
#include "fs/fs.h"

#define LOOKUP_TRIES	32u	/* an operation's names may change that often under its hands */

/** fs_may_read()/fs_may_write() - whether an operation may begin: 0, -EIO our slot is lost,
 * -EROFS. */
static inline int fs_may_read(struct fs *fs)
{
	return fs_is_lost(fs) ? -EIO : 0;
}

static inline int fs_may_write(struct fs *fs)
{
	return fs_is_lost(fs) ? -EIO : fs->read_only || fs->rescue ? -EROFS : 0;
}

/** fs_result() - what a front end sees of @err: everything is -EIO once our slot is lost. */
static inline int fs_result(struct fs *fs, int err)
{
	return err < 0 && fs_is_lost(fs) ? -EIO : err;
}

/**
 * fs_answer() - fs_result() of what may have been found, or done, in memory alone: waits until the
 * lease is valid, for while it is not another host may have taken over what was looked at (R2).
 * Nothing that was found without a lock becomes right by it.  No handle is open.
 */
int fs_answer(struct fs *fs, int err);

/** mode_set_id() - the set-id bits of @mode that a write clears: the group's counts only where it may
 * execute, as everywhere; else it once marked locks. */
static inline uint32_t mode_set_id(uint32_t mode)
{
	return mode & (S_ISUID | (mode & S_IXGRP ? S_ISGID : 0));
}

/**
 * inode_peek() - a copy of an inode's block, consistent in itself: under the cluster lock
 * if that is to be had without waiting, else from home; where that is doubtful, by waiting.
 * @di: BLOCK_SIZE bytes, blkdev_alloc()ed.
 */
int inode_peek(struct fs *fs, uint64_t id, struct inode_disk *di);

/**
 * inode_lock_free() - inode_lock(SHARED) if that takes nothing away from another host.
 * @ino: referenced and locked on success; inode_unlock_free() undoes both.
 * Return: 0; -EAGAIN another host has the lock, and all that this host ever changed under it
 * is at home: seqlock readers may read there; as inode_lock().
 */
int inode_lock_free(struct fs *fs, uint64_t id, struct inode **ino);
void inode_unlock_free(struct fs *fs, struct inode *ino);

/**
 * inode_lock_shared() - inode_lock(SHARED), waiting for whoever has it, of an inode by its id.
 * @ino: referenced and locked on success; inode_unlock_free() undoes both.
 */
int inode_lock_shared(struct fs *fs, uint64_t id, struct inode **ino);

/**
 * inode_lock_held() - inode_lock_free() if this host has the lock already: for what is read
 * once from many inodes, where taking each one's lock costs more than reading it at home.
 */
int inode_lock_held(struct fs *fs, uint64_t id, struct inode **ino);

/** fs_backoff() - waits a random moment below @ms: after a race lost against another host. */
void fs_backoff(struct fs *fs, unsigned int ms);

/** fs_note_device_full() - a write has got -ENOSPC from the device: it is thin, and full. */
void fs_note_device_full(struct fs *fs);
/** fs_device_is_full() - whether that was so a moment ago. */
bool fs_device_is_full(struct fs *fs);

/** fs_make_space() - after -ENOSPC, nothing held: waits for deletions and the end of
 * quarantine.  Return: true if trying again makes sense. */
bool fs_make_space(struct fs *fs);

/** fs_cache_is_elsewhere() - whether a write through @f has to make others doubt their caches. */
static inline bool fs_cache_is_elsewhere(struct fs *fs, const struct fs_file *f)
{
	const void *cache = __atomic_load_n(&f->ino->cache, __ATOMIC_RELAXED);

	return (cache && cache != f->cache) || __atomic_load_n(&fs->caches, __ATOMIC_RELAXED) > 1;
}

/** name_check() - 1 … 255 bytes, no slash, not "." or "..". */
int name_check(const char *name);

/** inode_leads_back() - whether @di's parent and name are (@dir, @name). */
bool inode_leads_back(const struct inode_disk *di, uint64_t dir, const char *name);

/** inode_set_name() - they are from now on. */
void inode_set_name(struct inode_disk *di, uint64_t dir, const char *name);

/** inode_unlinked() - @ino, nlink 0 and on the orphan list, has been unlocked: it is deleted
 * now, or by the last close of this host. */
void inode_unlinked(struct fs *fs, struct inode *ino, uint64_t id);

/** inode_tell_gone() - @ino, locked, has just lost its last name: fs->gone is told, if it wants
 * to know. */
void inode_tell_gone(struct fs *fs, const struct inode *ino);

/** inode_open_leave() - an open of @ino less; after the last one of an unlinked file the reaper
 * deletes it. */
void inode_open_leave(struct fs *fs, struct inode *ino, uint64_t id);

/**
 * inode_brief_bar() - waits until nobody has @ino open briefly (FS_OPEN_BRIEF); nobody does again
 * until inode_brief_unbar().  No lock of the inode, nor of the cluster's, is held.  No limit of its
 * own: a brief open lasts for a step of a merge, whose waits for locks are bounded, and stalls and
 * fails with the device and the lease as all else does.
 */
void inode_brief_bar(struct fs *fs, struct inode *ino);
void inode_brief_unbar(struct fs *fs, struct inode *ino);

/** inode_open_move() - the open for writing @f is one of @to from now on; what it was an open of
 * keeps it as one for reading.  open_mutex held. */
void inode_open_move(struct fs_file *f, struct inode *to);

/** inode_writer_enter() - who is about to change the size without an open; waits for the end of a
 * brief one.  No lock of the inode is held.  -EBUSY: FS_OPEN_SOLE. */
int inode_writer_enter(struct fs *fs, struct inode *ino);
void inode_writer_leave(struct fs *fs, struct inode *ino);

/** inode_writer_forget() - an open for writing comes to nothing: it does not count for writers_ever. */
void inode_writer_forget(struct fs *fs, struct inode *ino);

static inline void disk_add32(le32 *v, int32_t n)
{
	*v = cpu_to_le32(le32_to_cpu(*v) + (uint32_t)n);
}

#endif
