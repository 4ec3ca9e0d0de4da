/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space: allocation groups, their bitmaps, inode clusters.
 *
 * A group is used while pinned: pinning takes its cluster lock.  Pins come after inode locks
 * and before txn_begin().  Blocks are first reserved in memory (nobody else of this host
 * gets them), then data is written to them, then one transaction marks them allocated
 * together with the map entry that points to them; a crash before that allocates nothing.
 */
#ifndef LUNFS_FS_ALLOC_H
#define LUNFS_FS_ALLOC_H

#include "fs/journal.h"

struct alloc;
struct ag;

int alloc_open(struct fs *fs, struct alloc **out);

/** alloc_close() - after journal_close() and lockd_leave(), before buf_cache_free(). */
void alloc_close(struct alloc *a);

/* Space held for an operation: pinned groups and reserved runs. */
struct alloc_run {
	uint64_t block;		/* block number on the volume */
	uint32_t count;
	bool	taken;		/* alloc_take() was called */
	struct buf *room;	/* alloc_make_room(): for the metadata block that it becomes */
};

#define ALLOC_RUNS_MAX	8u

struct alloc_hold {
	struct ag	*ag;
	unsigned int	run_count;
	struct alloc_run runs[ALLOC_RUNS_MAX];
};

/**
 * alloc_reserve() - pins one group and reserves in it one run for each of @counts.
 * @counts: blocks of each run, 1 … CLUSTER_BLOCKS or UNIT_BLOCKS; each run is contiguous.
 * @goal:   block number to be near to, or 0.
 *
 * Groups whose locks we have come first, then free ones, then those that other hosts cache.
 * Context: blocks, may wait for another host's cached lock; no handle open.
 * Space that only our own quarantine holds is waited for (a checkpoint).
 * Return: 0; -ENOSPC in no group; -EIO, also when our slot is lost; -EUCLEAN, -EBADMSG,
 * -EHOSTDOWN the only groups that might do cannot be used.
 */
int alloc_reserve(struct fs *fs, const uint32_t *counts, unsigned int run_count, uint64_t goal,
		  struct alloc_hold *hold);

/**
 * alloc_reserve_try() - alloc_reserve() that waits for no other host: while another group is
 * pinned, for two hosts could wait for each other's.  Return: as that; -EAGAIN space is in groups
 * that other hosts have: unpin, alloc_reserve() it alone, put that and begin anew.
 */
int alloc_reserve_try(struct fs *fs, const uint32_t *counts, unsigned int run_count,
		      uint64_t goal, struct alloc_hold *hold);

/**
 * alloc_make_room() - before txn_begin(): memory for the metadata blocks that runs @from and
 * after of @hold, of count 1, become (alloc_take_block()).  Return: 0 or -ENOMEM: then @hold is put.
 */
int alloc_make_room(struct fs *fs, struct alloc_hold *hold, unsigned int from);

/** alloc_take() - within @txn: run @i of @hold is allocated on disk.  Costs up to 3 credits a
 * hold (header and two bitmap blocks) plus 1 for each further run's bitmap block. */
int alloc_take(struct txn *txn, struct alloc_hold *hold, unsigned int i);

/** alloc_take_block() - alloc_take() of run @i, and buf_new() of @e, its block, in the room made
 * for it.  Return: 0; -EUCLEAN, logged: the bitmap is damaged, nothing was taken. */
int alloc_take_block(struct txn *txn, struct alloc_hold *hold, unsigned int i,
		     struct cover *cover, const struct meta_expect *e, struct buf **out);

/** alloc_put() - unpins; runs reserved and not taken are free again.  After txn_end(). */
void alloc_put(struct fs *fs, struct alloc_hold *hold);

/* A pinned group to free into. */
struct alloc_pin { struct ag *ag; };

/** alloc_pin() - pins the group that holds block number @block, for alloc_free(). */
int alloc_pin(struct fs *fs, uint64_t block, struct alloc_pin *pin);
void alloc_unpin(struct fs *fs, struct alloc_pin *pin);

/** alloc_pin_try() - alloc_pin() that never waits for another host (LOCK_TRY), and so may be
 * called while another group is pinned.  A group that we have pinned may be pinned again.
 * Return: as alloc_pin(); -EAGAIN. */
int alloc_pin_try(struct fs *fs, uint64_t block, struct alloc_pin *pin);

/** alloc_pin_covers() - whether @block lies in the pinned group. */
bool alloc_pin_covers(struct fs *fs, const struct alloc_pin *pin, uint64_t block);

/**
 * alloc_free_prepare() - reads what alloc_free() of the run will change, before txn_begin(): it
 * cannot fail half-way through a transaction then, except for -EUCLEAN.  The group is pinned.
 */
int alloc_free_prepare(struct fs *fs, struct alloc_pin *pin, uint64_t block, uint32_t count);

/**
 * alloc_free() - within @txn: frees a run of the pinned group; it stays quarantined until the
 * journal's tail is past @txn.  Costs up to 3 credits.
 * Return: 0; -EUCLEAN a block of it is free already or is metadata of the group: logged,
 * nothing changed.
 */
int alloc_free(struct txn *txn, struct alloc_pin *pin, uint64_t block, uint32_t count);

/** alloc_release() - end of quarantine, from the journal. */
void alloc_release(struct fs *fs, uint64_t addr, uint64_t len);

/* ---- inode clusters (itable.c) ---- */

/**
 * itable_reserve() - pins a group with a free inode (making and writing a new cluster if
 * need be) and reserves it.  @near: inode id of the parent, a hint.
 * @number: receives the inode number (block number of its lock block).
 */
int itable_reserve(struct fs *fs, uint64_t near, struct alloc_hold *hold, uint64_t *number);

/** itable_reserve_try() - the same while another group is pinned; see alloc_reserve_try(). */
int itable_reserve_try(struct fs *fs, uint64_t near, struct alloc_hold *hold, uint64_t *number);

/** itable_take()/itable_free() - within @txn; 2 credits (header, index block). */
int itable_take(struct txn *txn, struct alloc_hold *hold, uint64_t number);
int itable_free(struct txn *txn, struct alloc_pin *pin, uint64_t number);

/** itable_put() - as alloc_put(), for itable_reserve()'s hold. */
void itable_put(struct fs *fs, struct alloc_hold *hold, uint64_t number);

/* ---- totals, without locks, at most STATFS_MS old ---- */
#define STATFS_MS	1000
struct alloc_totals { uint64_t blocks, blocks_free, inodes_used, inodes_free; };
int alloc_totals(struct fs *fs, struct alloc_totals *t);

/** alloc_forget() - @cover's cluster lock goes: drop the group's state in memory. */
void alloc_forget(struct fs *fs, struct cover *cover);

#endif
