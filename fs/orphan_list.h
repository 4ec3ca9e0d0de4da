/* SPDX-License-Identifier: Apache-2.0 */
/* What orphan.c (the list) and reaper.c (the work) share. */
#ifndef LUNFS_FS_ORPHAN_LIST_H
#define LUNFS_FS_ORPHAN_LIST_H

#include "fs/fs.h"

/* One place of the list. */
struct orphan {
	struct table_node node;	/* in by_id, if in_table: a list adopted twice has doubles */
	struct list link;	/* free places, or the reaper's queue, or neither */
	uint64_t id;		/* 0: free */
	uint32_t index;
	bool	in_table;
	uint64_t not_before_ns;	/* on the queue: when to try (again) */
};

struct orphans {
	struct fs *fs;
	struct env_mutex mutex;	/* all below; above the journal's own, nothing waits under it */
	struct env_cond changed;
	struct cover cover;
	uint32_t slot, blocks;
	uint64_t version;	/* highest of the list's blocks */
	struct buf *bufs[ORPHAN_BLOCKS];
	struct orphan *places;
	struct table by_id;
	struct list free, queue;
	unsigned int used, reserved;
	unsigned int doubles;	/* places whose id another place has too */
	unsigned int busy;	/* being finished right now */
	uint64_t finished;	/* ever: orphan_wait() looks for progress */
	bool stopping;
	struct env_thread *thread;
};

/** orphan_find() - mutex held. */
struct orphan *orphan_find(struct orphans *o, uint64_t id);

/** orphan_queue() - the reaper takes it up, not before @not_before_ns.  mutex held. */
void orphan_queue(struct orphans *o, struct orphan *entry, uint64_t not_before_ns);

/** orphan_has_work() - whether the reaper is about to free places.  mutex held. */
bool orphan_has_work(struct orphans *o);

/** orphan_strike() - within @txn: @id off our list, whatever its inode says; ORPHAN_CREDITS. */
void orphan_strike(struct txn *txn, uint64_t id);

/** orphan_reaper() - the thread; @arg: struct orphans. */
void orphan_reaper(void *arg);

/** orphan_stop() - ends the reaper; the list stays usable for adoption until orphan_close(). */
void orphan_stop(struct orphans *o);

#endif
