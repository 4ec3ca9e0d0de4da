/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation groups in memory: what ag.c, alloc.c and itable.c share. */
#ifndef LUNFS_FS_AG_H
#define LUNFS_FS_AG_H

#include "fs/alloc.h"
#include "fs/super.h"

/* One bitmap block.  A block can be handed out if its bit is set in none of the three. */
struct ag_bitmap {
	struct buf	*buf;		/* referenced once loaded */
	bool		made_up;	/* not initialised on disk: nobody has changed it so far */
	uint8_t		*reserved;	/* given to a hold, not yet taken; NULL: none ever */
	uint8_t		*quarantined;	/* free on disk, journal's tail not past that; NULL */
	uint32_t	free;		/* blocks that can be handed out */
};

/* One inode cluster of the index; inode i's bit is 1 << i. */
struct icluster {
	uint32_t	block;		/* first one, relative to the group */
	uint16_t	count;
	uint16_t	used;
	uint16_t	reserved;
	uint16_t	entry;		/* its place in index block … */
	uint32_t	index;		/* … number @index of the chain */
	uint32_t	next_free;	/* 1 + next cluster on the list of those with free inodes */
	bool		listed;
};

struct itable {
	bool		loaded;
	struct buf	**bufs;		/* the chain of index blocks, referenced */
	uint32_t	buf_count;
	struct icluster	*clusters;	/* in the order of the index */
	uint32_t	count, max;
	uint32_t	*sorted;	/* their indices by block */
	uint32_t	free_head;	/* 1 + first cluster with free inodes, perhaps; 0: none */
	bool		growing;	/* a thread is making a cluster */
};

/* What a group's header said last: to choose by, and for totals. */
struct ag_peek {
	uint64_t	at_ns;		/* env_now_ns(); 0: never */
	uint32_t	blocks, blocks_free, inodes_used, inodes_free;
};

struct ag {
	struct cover	cover;		/* lock: the group's block 0; lock.owner: the group */
	struct fs	*fs;
	uint32_t	index;
	uint64_t	start;		/* first block number on the volume */
	uint32_t	blocks;		/* as the header says; guarded by mutex once it is loaded */
	uint32_t	bitmap_count;

	/* Taken after the cluster lock, never held while waiting for a handle or for space in
	 * the journal: the checkpoint needs it to end the quarantine. */
	struct env_mutex mutex;
	struct env_cond	changed;	/* itable.growing */
	bool		loaded;
	struct buf	*header;	/* referenced while loaded */
	uint64_t	version;	/* for the headers of all of the group's blocks … */
	uint64_t	version_txn;	/* … in this transaction */
	struct ag_bitmap *maps;
	uint32_t	reserved_count, quarantined_count;
	uint32_t	rover;		/* bitmap block at which the next search begins */
	struct itable	itable;
	struct ag_peek	peek;
};

struct alloc {
	struct fs	*fs;
	struct env_mutex mutex;		/* ags[], current */
	struct ag	**ags;		/* made when first used */
	uint32_t	current;	/* group that served last */
	struct env_mutex totals_mutex;
	uint64_t	totals_ns;
	struct alloc_totals totals;
};

/** ag_get() - group @index in memory, not pinned.  -EUCLEAN there is none; -ENOMEM. */
int ag_get(struct fs *fs, uint32_t index, struct ag **out);

/** ag_of_block() - the group that holds block number @block. */
int ag_of_block(struct fs *fs, uint64_t block, struct ag **out);

/** ag_pin() - the cluster lock, and the header loaded.  @flags: 0 or LOCK_TRY. */
int ag_pin(struct fs *fs, struct ag *ag, unsigned int flags);
void ag_unpin(struct fs *fs, struct ag *ag);
void ag_free(struct ag *ag);

/**
 * ag_extend() - a pinned group gets the space that the superblock gives it since the volume has
 * grown (a transaction, if there is any).  No handle open, mutex not held.
 * Return: 0, also if there was nothing to do; errors: it stays as it is.
 */
int ag_extend(struct ag *ag);

/* All below with ag->mutex held, the group pinned and loaded. */

static inline const struct ag_disk *ag_disk(const struct ag *ag)
{
	return (const struct ag_disk *)ag->header->data;
}

/** ag_available() - blocks that can be handed out. */
uint32_t ag_available(const struct ag *ag);

/** ag_change() - within @txn: the header for changing; one credit, however often. */
struct ag_disk *ag_change(struct txn *txn, struct ag *ag);

/** ag_bitmap() - bitmap block @i, loaded (or made up, if it is not initialised). */
int ag_bitmap(struct ag *ag, uint32_t i, struct ag_bitmap **out);

/** ag_bitmap_change() - within @txn, after ag_change(): its bits for changing; 1 credit. */
int ag_bitmap_change(struct txn *txn, struct ag *ag, uint32_t i, uint8_t **bits);

/** ag_reserve() - one run of @count blocks near @goal (relative, 0: none).  -ENOSPC. */
int ag_reserve(struct ag *ag, uint32_t count, uint32_t goal, struct alloc_run *run);
void ag_unreserve(struct ag *ag, const struct alloc_run *run);
/**
 * ag_reserve_next() - the first run at or after relative block @at that can be handed out, of at
 * most @max blocks, within one bitmap block.  -ENOSPC there is none in that.
 */
int ag_reserve_next(struct ag *ag, uint32_t at, uint32_t max, struct alloc_run *run);
int ag_take(struct txn *txn, struct ag *ag, struct alloc_run *run);

/** ag_damaged() - logs what is wrong with the group's block @addr; returns -EUCLEAN. */
int ag_damaged(const struct ag *ag, uint64_t addr, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** itable_unload() - frees what is in memory of the group's inode clusters. */
void itable_unload(struct ag *ag);

/* ---- choosing a group, nothing pinned ---- */

struct ag_want {
	uint32_t blocks;	/* a group with fewer free ones is not tried … */
	bool	inode;		/* … unless a free inode would do and it has one */
	bool	try;		/* wait for no other host: -EAGAIN */
	uint32_t prefer;	/* group to try first if we have its lock; UINT32_MAX: none */
	/* Takes what is wanted from the pinned group, mutex not held.  -ENOSPC: not here. */
	int	(*take)(struct ag *ag, void *arg);
	void	*arg;
};

/** alloc_is_short() - whether group @index has less than the superblock gives, by its header, a
 * moment ago. */
bool alloc_is_short(struct fs *fs, uint32_t index);

/** ag_choose() - pins the first group in which @want->take succeeds. */
int ag_choose(struct fs *fs, const struct ag_want *want, struct ag **out);

#endif
