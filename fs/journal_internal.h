/* SPDX-License-Identifier: Apache-2.0 */
/* What journal.c (handles, commit) and journal_home.c (checkpoint, open, close) share. */
#ifndef LUNFS_FS_JOURNAL_INTERNAL_H
#define LUNFS_FS_JOURNAL_INTERNAL_H

#include "fs/journal.h"
#include "fs/journal_ring.h"

/* One block as a transaction leaves it; never changes once sealed. */
struct jimage {
	struct table_node node;		/* in j->images while it is the newest of its address */
	uint64_t	addr;
	void		*data;		/* within jtxn.memory */
	struct buf	*buf;		/* whose reference is put once the copy is made */
	uint64_t	superseded_by;	/* id of the next transaction with this block, 0: none */
};

struct quarantine {
	uint64_t	addr, len;
};

/* A transaction that is sealed: being written, or durable and not yet at home. */
struct jtxn {
	struct list	node;		/* in j->txns, oldest first */
	uint64_t	id;		/* its sequence in the ring */
	uint64_t	block;		/* ring index of its descriptor */
	uint64_t	since_ns;	/* when its first block was made dirty */
	unsigned int	count;
	struct jimage	*images;
	uint8_t		*memory;	/* descriptor, images, commit record: as in the ring */
	struct quarantine *quarantine;
	size_t		quarantine_count;
	bool		durable;
	bool		spare;		/* of the journal's own, for when memory runs out */
};

/* The one that handles join. */
struct running {
	uint64_t	id;
	struct list	dirty;		/* struct buf.txn_node; each holds a reference */
	unsigned int	count;		/* of them */
	unsigned int	reserved;	/* credits of open handles, not used so far */
	unsigned int	handles;
	uint64_t	since_ns;	/* when it first had something to commit */
	struct quarantine *quarantine;
	size_t		quarantine_count, quarantine_max;
};

struct journal {
	struct fs	*fs;
	struct env	*env;
	struct ring	ring;		/* the tail: only the checkpoint's leader writes it */
	unsigned int	count_max;	/* images a transaction may have */

	/* A transaction, and a checkpoint of one transaction, need no memory but this. */
	struct jtxn	*spare;		/* room for count_max images; NULL while it is in use */
	struct home_block *spare_blocks;

	struct env_mutex mutex;		/* everything below; taken before the buffer cache's */
	struct env_cond	changed;
	struct env_cond	work;		/* the writeback thread's */
	struct running	running;
	struct list	txns;		/* sealed ones */
	struct table	images;		/* newest of each block, sealed and not at home */
	uint64_t	head;		/* ring index after the newest sealed one */
	uint64_t	used;		/* ring blocks from the tail to there … */
	uint64_t	used_max;	/* … of which there may be so many: each has a copy in memory */
	uint64_t	durable_id;	/* newest that is durable … */
	uint64_t	home_id;	/* … and newest that is at home, its space released */
	uint64_t	written;	/* writes completed so far, of any kind … */
	uint64_t	data_written;	/* … up to the newest of data … */
	uint64_t	locks_taken;	/* of lockd_locks_taken(), so many counted as writes … */
	uint64_t	locks_written;	/* … up to the newest of those … */
	uint64_t	flushed;	/* … and how many of them a flush has covered */
	bool		sealing;	/* handles end, none begins */
	bool		committing, checkpointing, flushing;
	unsigned int	full;		/* writers that wait for the device to have space */
	bool		dead;		/* a write or flush failed: nothing is durable any more */
	bool		no_discard;	/* the device cannot: do not ask again */
	bool		hurry, stopping;	/* tell the writeback thread */
	struct env_thread *thread;
	struct journal_status status;
};

/* All with j->mutex held, which they give up while they wait. */

/** journal_die() - once; every waiter gets -EIO. */
void journal_die(struct journal *j, int err, const char *what);

/**
 * journal_waits_for_space() - what came of writing metadata: whether to do it again, after a while.
 * @waited: the writer's own, false at first.  Context: j->mutex not held.
 */
bool journal_waits_for_space(struct journal *j, int err, bool *waited);

/** journal_flush_upto() - the first @want writes are flushed.  Return: 0 or -EIO (dead). */
int journal_flush_upto(struct journal *j, uint64_t want);

/** journal_commit_locked() - transaction @id and all before it are durable. */
int journal_commit_locked(struct journal *j, uint64_t id);

/**
 * journal_checkpoint() - brings what is durable home and releases its space; if somebody is
 * doing that, waits for it instead (the caller looks whether it wants another one).
 */
int journal_checkpoint(struct journal *j);

/** jtxn_alloc() - room for @count images, empty; NULL when out of memory. */
struct jtxn *jtxn_alloc(unsigned int count);
/** jtxn_free() - @t, or what it holds if it is the spare one, which goes back. */
void jtxn_free(struct journal *j, struct jtxn *t);
void jtxn_destroy(struct jtxn *t);

#endif
