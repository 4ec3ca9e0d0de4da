/* SPDX-License-Identifier: Apache-2.0 */
/* A regular file's map: file offset to units of 256 KiB with a validity bit a block. */
#ifndef LUNFS_FS_MAP_H
#define LUNFS_FS_MAP_H

#include "fs/inode.h"

struct map_entry {
	uint64_t block;		/* first block number, 0: nothing allocated */
	uint32_t order;		/* 1 << order blocks allocated */
	bool	detached;
	uint64_t valid;
};

/** map_get() - entry of unit @unit; a hole is all zeros.  Inode locked (either mode) and loaded. */
int map_get(struct fs *fs, struct inode *ino, uint64_t unit, struct map_entry *e);

/** map_get_of() - the same by a copy @di of the inode, of a frozen image: no rwlock is needed. */
int map_get_of(struct fs *fs, struct inode *ino, const struct inode_disk *di, uint64_t unit,
	       struct map_entry *e);

/**
 * map_get_unlocked() - the same from the home blocks, for seqlock readers and rescue mounts;
 * @di is a verified inode block.
 */
int map_get_unlocked(struct fs *fs, uint64_t id, const struct inode_disk *di, uint64_t unit,
		     struct map_entry *e);

/**
 * map_blocks_needed() - how many new map blocks setting @unit needs (levels to add, nodes and
 * leaf to make): 0 … 2 * DEPTH_MAX + 1.  They are reserved by the caller as runs of 1.
 */
int map_blocks_needed(struct fs *fs, struct inode *ino, uint64_t unit, unsigned int *count);

/** MAP_CREDITS - blocks that map_set() may change beside the allocator's. */
#define MAP_CREDITS	(2 * DEPTH_MAX + 3)

/** map_set_prepare() - before txn_begin(): what map_set() of units in the leaf of @unit has to
 * look at is in memory and stays there (inode_keep()). */
int map_set_prepare(struct fs *fs, struct inode *ino, uint64_t unit);

/**
 * map_set() - within @txn, exclusively locked, inode_change()d: stores the entry.
 * @hold: where new map blocks come from: runs @next… of count 1, as map_blocks_needed() said.
 * The inode's block count is adjusted for the map blocks, not for the data.
 * Return: 0; -EUCLEAN: fails on damage only, if map_set_prepare() (or map_blocks_needed()) came
 * before the transaction and alloc_make_room() was done for the runs.
 */
int map_set(struct txn *txn, struct inode *ino, uint64_t unit, const struct map_entry *e,
	    struct alloc_hold *hold, unsigned int next);

/**
 * map_next() - the first unit >= *@unit with an entry that is not a hole; a detached hole is an
 * entry.  Return: 0; -ENOENT none; errors.  Skips absent subtrees without visiting their units.
 * map_next_of(): by a copy @di of the inode, as map_get_of().
 */
int map_next(struct fs *fs, struct inode *ino, uint64_t *unit, struct map_entry *e);
int map_next_of(struct fs *fs, struct inode *ino, const struct inode_disk *di, uint64_t *unit,
		struct map_entry *e);

/** map_prev() - the last unit <= *@unit with an entry: truncation goes backwards. */
int map_prev(struct fs *fs, struct inode *ino, uint64_t *unit, struct map_entry *e);

/**
 * map_trim() - a truncation step's second half: one map block (leaf or node) that holds no
 * entry any more is freed, the tree made shallower when its root is empty.
 * @block: receives the block number freed, or 0 when nothing is left to trim.  The caller has
 * asked map_trim_candidate() before to pin the right group.
 */
int map_trim_candidate(struct fs *fs, struct inode *ino, uint64_t *block);
int map_trim(struct txn *txn, struct inode *ino, struct alloc_pin *pin, uint64_t block);

#endif
