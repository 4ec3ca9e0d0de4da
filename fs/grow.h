/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume that grows while hosts use it.
 *
 * Invariant: nothing refers to space that the newest superblock does not give, and nobody uses
 * space that he does not know to be given.
 *  - Who grows holds the superblock's lock.  New groups are written and flushed before the
 *    superblock says that they are there; that is one block's write (super_write()).
 *  - A group that was short stays as its header says until somebody who has its lock extends it
 *    (ag_extend()), which is an ordinary transaction.
 *  - Other hosts look at the superblock when they meet something beyond what they know, when
 *    they find no space, and when they tell how much there is.  What they then meet was flushed.
 */
#ifndef LUNFS_FS_GROW_H
#define LUNFS_FS_GROW_H

#include "fs/super.h"

struct fs;

/**
 * fs_grow() - the volume gets what its device has beyond it.
 * @size: at most so many bytes; 0: all.
 * @old, @now: receive the sizes.  Equal: there was nothing to be had.
 * @why:  on failure one line.
 * Return: 0; -E2BIG more groups than there can be; -ENOSPC the device is smaller; -EBUSY other
 * hosts kept the superblock's lock; -EROFS; -EIO.
 */
int fs_grow(struct fs *fs, uint64_t size, uint64_t *old, uint64_t *now, char *why,
	    size_t why_size);

/**
 * fs_super_refresh() - looks whether the volume has grown, and takes part in that if so.
 * Context: blocks; takes no lock but its own, a leaf.
 * Return: 0; -ENXIO this host's device has not grown yet (logged); errors of reading.
 */
int fs_super_refresh(struct fs *fs);

/** fs_super_refresh_by() - the same through @dev, while fs->dev may not be used yet. */
int fs_super_refresh_by(struct fs *fs, struct blkdev *dev);

/** fs_super_version() - it changes when the volume grows. */
uint64_t fs_super_version(struct fs *fs);

/** fs_super_copy() - the superblock as this host knows it. */
void fs_super_copy(struct fs *fs, struct super *out);

/** fs_super_heal() - after attaching: copies that a crash left older are written anew. */
void fs_super_heal(struct fs *fs);

/** fs_is_space() - super_is_space(), also of what the volume has grown by meanwhile. */
bool fs_is_space(struct fs *fs, uint64_t block, uint64_t count);

#endif
