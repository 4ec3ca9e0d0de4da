/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images on top of images: what snapshots and linked clones are made of.
 *
 * An image is a regular file.  Where it has no valid block its parent image shows, up to
 * image_limit; a detached unit shows nothing of it.  A parent is frozen: its contents and map
 * never change, so any number of hosts read it under a shared lock.  Invariants:
 *  - an image with a parent is in the parent's list of children, a directory without a name
 *    whose entries are the children's ids in hex; both change in one transaction (R1: the
 *    list has a lock of its own, so that a child can come or go while others are open);
 *  - image_rank rises from parent to child: no image is its own ancestor;
 *  - a frozen image goes away only when it has neither names nor children.
 * The one change of a frozen image is that an unlinked one with a single child moves into that
 * child (merge.c); nobody but the child's host sees it then.
 */
#ifndef LUNFS_FS_IMAGE_H
#define LUNFS_FS_IMAGE_H

#include "fs/fs.h"

#define IMAGE_DEPTH_MAX	64u	/* images below one that is open */

/**
 * image_open() - makes the chain below @ino readable: each image's lock in use (shared, as by
 * an open).  @ino is open, or exclusively in use for as long; not inode_lock()ed.
 * Return: 1 done, image_close() undoes it; 0 there is no parent, and nothing to undo; -EBUSY
 * an image is being changed; -ELOOP too many; -EUCLEAN; as lock_get().
 */
int image_open(struct fs *fs, struct inode *ino);
void image_close(struct fs *fs, struct inode *ino);

/**
 * image_adopt() - @child, which nobody has open yet, stands on @parent, whose lock is in use as by
 * image_open(); the caller's reference to it is the child's.  Both exclusively locked.
 * @is_new_user: the parent's chain has not been counted for it yet (it has no parent itself).
 * @copy: BLOCK_SIZE bytes that become parent->frozen, unless it has one (then freed).
 */
void image_adopt(struct fs *fs, struct inode *child, struct inode *parent, bool is_new_user,
		 struct inode_disk *copy);

/** image_skip() - @child, exclusively locked, stands on its grandparent from now on; the parent,
 * also exclusively locked, is given up: nobody else has it open. */
void image_skip(struct fs *fs, struct inode *child);

/** image_refreeze() - @parent's map was changed (merge.c): its copy says so, too. */
void image_refreeze(struct inode *parent);

/** image_mask_below() - blocks of @unit that lie below @limit bytes, a multiple of BLOCK_SIZE. */
uint64_t image_mask_below(uint64_t unit, uint64_t limit);

/**
 * image_resolve() - where the contents of blocks of @unit lie.
 * @mask: which blocks; others are left alone.
 * @own:  the image's own entry of the unit.
 * @addr: for each block of @mask the device address, 0: zeros.
 * rwlock of @ino held in either mode, its chain open (or it has none).
 */
int image_resolve(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask,
		  const struct map_entry *own, uint64_t addr[UNIT_BLOCKS]);

/** image_below() - the same without what @ino itself has: what would show if it had nothing. */
int image_below(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask,
		const struct map_entry *own, uint64_t addr[UNIT_BLOCKS]);

/**
 * image_resolve_unlocked() - image_resolve() for seqlock readers and rescue mounts, by home blocks
 * only; @di is a verified inode block of @id.
 */
int image_resolve_unlocked(struct fs *fs, uint64_t id, const struct inode_disk *di,
			   uint64_t unit, uint64_t mask, uint64_t addr[UNIT_BLOCKS]);

/** image_next() - the first unit >= *@unit of which any image of the chain has something. */
int image_next(struct fs *fs, struct inode *ino, uint64_t *unit);

static inline bool inode_has_parent(const struct inode *ino)
{
	return le64_to_cpu(inode_disk(ino)->image_parent);
}

/* ---- snapshots and clones (snapshot.c) ---- */

/**
 * fs_snapshot() - freezes the file @name of @dir as it is now under the new name @snap_name in
 * the same directory; @name goes on as a new image on top of it.  One transaction, whatever
 * the size.
 * @f:    an open for writing of it by the caller, who has no request under way; it is an open
 *        of the new image afterwards.  NULL: nobody has it open.
 * @attr: of the new image.
 * Return: 0; -EEXIST; -EBUSY others have it open; -ELOOP IMAGE_DEPTH_MAX reached; -EINVAL not
 * a regular file, -EPERM frozen itself or for several writers; as fs_create().
 */
int fs_snapshot(struct fs *fs, uint64_t dir, const char *name, const char *snap_name,
		struct fs_file *f, struct fs_attr *attr);

/**
 * fs_clone() - a new image @name in @dir on top of the frozen image @base.
 * @replace: @name exists, is open nowhere, and is deleted in the same transaction (revert).
 * Return: 0; -EINVAL @base is not frozen: make a snapshot of it; -EPERM @name is a snapshot;
 * -EBUSY it is open; as fs_snapshot().
 */
int fs_clone(struct fs *fs, uint64_t base, uint64_t dir, const char *name, bool replace,
	     const struct fs_cred *cred, struct fs_attr *attr);

/* ---- merging (merge.c) ---- */

/*
 * How far a merge has come; zeroed at first.  Only for as long as the datastore is attached: what
 * was moved may be undone by a crash, and what was skipped for having been moved would be lost.
 */
struct merge {
	uint64_t image;		/* the parent, of which … */
	uint64_t unit;		/* … what lies before this unit has been moved */
	uint64_t first;		/* where the last step began */
	uint64_t units_moved, blocks_copied;
};

/**
 * fs_merge_step() - moves a bounded part (at most MERGE_UNITS) of the unlinked parent image of
 * the open file @f, whose only child it is, into @f; at the end the parent is gone.
 * The caller has no request under way to those units (fs_read() and fs_write() may go on).
 * Return: 1 more to do; 0 done, or nothing to merge; -EBUSY the parent is open elsewhere, or
 * another thread is merging below @f; -EAGAIN @f was snapshotted meanwhile; -ENOSPC; errors: try again later, nothing is lost.
 */
#define MERGE_UNITS	8u
int fs_merge_step(struct fs *fs, struct fs_file *f, struct merge *m);

/**
 * fs_merge_find() - a disk below which this host has deleted a snapshot that has one child.
 * @from: 0 at first; where to go on.
 * Return: 1 with @top, its id; 0 there is none.  A moment old: the merge looks again.
 */
int fs_merge_find(struct fs *fs, uint32_t *from, uint64_t *top);

/* ---- what is what ---- */

struct image_info {
	uint64_t id, parent, children_list;
	uint64_t children;	/* how many */
	uint64_t limit;		/* bytes of the parent that show */
	uint64_t size, blocks;	/* bytes; own blocks of 4 KiB, map included */
	int64_t	btime_ns, ctime_ns;
	uint32_t nlink;
	bool	frozen, merging;
};

/** fs_image_info() - without locks, a moment old. */
int fs_image_info(struct fs *fs, uint64_t id, struct image_info *info);

/** fs_image_children() - ids of the images on top of @id, through @emit until it returns
 * non-zero. */
int fs_image_children(struct fs *fs, uint64_t id, int (*emit)(void *arg, uint64_t child),
		      void *arg);

#endif
