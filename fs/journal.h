/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This host's journal: transactions of whole metadata blocks, group commit, checkpoint.
 *
 * Invariants (FORMAT.md, "Journal"; design section 6):
 *  - a transaction's images are durable before any of them is written home;
 *  - a commit record is written only after a flush begun after all data writes that its
 *    blocks point to had completed;
 *  - the tail moves past a transaction only after its images are at home and flushed;
 *  - freed blocks stay quarantined until the tail is durably past the freeing transaction.
 *
 * Order of waiting: inode locks, then group pins, then txn_begin().  Nobody waits for a
 * cluster lock while a handle is open, because giving locks up needs a commit.
 */
#ifndef LUNFS_FS_JOURNAL_H
#define LUNFS_FS_JOURNAL_H

#include "fs/buf.h"

struct journal;

/**
 * journal_open() - our own slot's journal, already replayed; starts the writeback thread,
 * which commits and checkpoints what is dirty every WRITEBACK_MS.
 */
#define WRITEBACK_MS	300
int journal_open(struct fs *fs, struct journal **out);

/** journal_close() - checkpoints everything (unless the slot is lost) and frees. */
int journal_close(struct journal *j);

/* A handle: blocks changed between begin and end land in one transaction, atomically. */
struct txn {
	struct fs	*fs;
	struct journal	*journal;
	unsigned int	credits;	/* blocks it may still make dirty */
	uint64_t	id;		/* of the running transaction it belongs to */
};

#define TXN_CREDITS_MAX	48u	/* what one operation may change; longer ones are chains */

/**
 * txn_begin() - opens a handle for at most @credits changed blocks.
 * Waits for a commit or checkpoint when the running transaction or the journal is full.
 * Return: 0; -EIO the journal is dead or our slot is lost.  Never -ENOMEM: transactions,
 * commits and checkpoints get by with what journal_open() allocated.
 */
int txn_begin(struct fs *fs, unsigned int credits, struct txn *txn);

/** txn_dirty() - before changing @buf, whose cover is locked exclusively: it joins the
 * transaction and takes @version for its header. */
void txn_dirty(struct txn *txn, struct buf *buf, uint64_t version);

/** txn_forget() - takes @buf out of the transaction, if it is in (buf_drop()). */
void txn_forget(struct txn *txn, struct buf *buf);

/** txn_quarantine() - [@addr, +@len) was freed in this transaction: fs calls
 * alloc_release(addr, len) once the tail is durably past it (after a discard). */
void txn_quarantine(struct txn *txn, uint64_t addr, uint64_t len);

/** txn_end() - closes the handle; returns the id to pass to journal_commit(). */
uint64_t txn_end(struct txn *txn);

/** journal_data_written() - a data write has completed that only a later flush makes
 * durable; the next commit flushes before its commit record. */
void journal_data_written(struct fs *fs);

/** journal_commit() - transaction @id (and all before it) is durable on return, and so is
 * every data write completed before the call.  Group commit: callers share flushes. */
int journal_commit(struct fs *fs, uint64_t id);

/** journal_last_id() - id of the running transaction: journal_commit() of it covers all. */
uint64_t journal_last_id(struct fs *fs);

/** journal_flush_data() - durable data with no metadata change pending: one shared flush. */
int journal_flush_data(struct fs *fs);

/** journal_settle() - commit and checkpoint everything: home, flushed, tail past it (R4). */
int journal_settle(struct fs *fs);

/** journal_lookup() - copies the newest committed image of @addr that is not yet at home.
 * Return: true if there is one. */
bool journal_lookup(struct fs *fs, uint64_t addr, void *data);

/**
 * journal_replay() - replays the journal of @slot through @dev and moves its tail past it.
 * Idempotent; reads every image before writing; verifies all (R6); ends with a flush.  The
 * next sequence is skipped, so that remains of an attempt cut off by the crash never count.
 * @replayed: if not NULL, receives the number of transactions.
 */
int journal_replay(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot,
		   unsigned int *replayed);

/** journal_format() - writes an empty journal for @slot (mkfs, which flushes). */
int journal_format(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot);

/**
 * journal_scan() - reads @slot's journal without changing anything; calls @image for each
 * image that a replay would write, oldest first (fsck -n, debug).  Images are verified, but
 * where they may lie @image has to judge, as a replay does.
 */
int journal_scan(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot,
		 int (*image)(void *arg, uint64_t addr, const void *block), void *arg,
		 unsigned int *transactions, char *why, size_t why_size);

struct journal_status { uint64_t commits, checkpoints, blocks_logged, flushes; };
void journal_status(struct fs *fs, struct journal_status *st);

#endif
