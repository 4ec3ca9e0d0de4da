/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of fs/disk*.c share.
 *
 * Everything in struct disk belongs to the owner's thread, but for what says otherwise, and
 * while the disk is paused, when nothing runs there: then it belongs to who paused it.
 */
#ifndef LUNFS_FS_DISK_INTERNAL_H
#define LUNFS_FS_DISK_INTERNAL_H

#include <errno.h>
#include <stdlib.h>

#include "fs/disk.h"
#include "fs/extents.h"
#include "fs/file_io.h"
#include "fs/internal.h"

#define UNIT_ORDER	6u
#define DISK_PARTS	128u	/* pieces of requests under way at a time */
#define DISK_PIECES_MAX	32u	/* of one request; what is in more goes to a worker */
#define DISK_PART_IOVS	64u
#define DISK_ZEROS_MAX	(4 * MIB / BLOCK_SIZE)	/* blocks of one request that read as zeros; more: a worker */
#define DISK_FILLS	DISK_FRESH_MAX
#define DISK_BUCKETS	1024u	/* of fills, by unit */
#define DISK_SLOWS	16u	/* slow operations at a time */
#define DISK_BATCH	64u	/* requests to the lower device in one go */
#define DISK_MAP_BYTES	(48 * MIB)
#define DISK_LOAD_UNITS	128u	/* that a miss looks up */
#define DISK_SPACE_UNITS 4u	/* allocated together at least: 1 MiB */
#define DISK_SPACE_RANGES 32u	/* such megabytes, in one operation */
#define DISK_CHUNK_BYTES (128 * MIB)	/* of a discard, in one go */
#define DISK_TICK_NS	NSEC_PER_SEC

struct disk_slow;

/* A request's state, in blk_io.disk_priv; of a part's blk_io only what is posted, and "shared". */
struct disk_req {
	struct disk	*d;
	void		(*done)(struct blk_io *io, int err);
	uint64_t	off;		/* as it was submitted; blk_io.off is what goes below */
	uint64_t	start_ns;
	uint32_t	pending;	/* parts under way, and one while they are made */
	int32_t		err;
	uint64_t	next;		/* of a discard: where it goes on */
	/* Posted to the owner: */
	struct blk_io	*posted_next;
	int32_t		posted_err;
	uint8_t		epoch;		/* of in_flight it is counted in */
	bool		in_flight : 1;
	bool		flushed : 1;	/* its data is written, and made durable now */
	bool		charged : 1;	/* against the limits */
	bool		shared : 1;	/* shares_ended() is to follow; of a part, too */
};
static_assert(sizeof(struct disk_req) <= sizeof(((struct blk_io *)NULL)->disk_priv),
	      "a request holds the disk's state");

static inline struct disk_req *disk_req(struct blk_io *io)
{
	return (struct disk_req *)(void *)io->disk_priv;
}

/*
 * A unit that has space and is being written for the first time.
 *
 *   unset ──write begins──► busy ──data is written──► fresh ──in the map──► valid
 *                             └──────── failed ────────► unset
 *
 * Whoever else wants a busy block waits (R8: the first write is serialised with every other
 * request to its block).  A fill with fresh blocks is the only one to know of them: it stays.
 */
struct disk_fill {
	struct list	node;		/* in the bucket, or free */
	struct list	lru;		/* of those with fresh blocks, or of those without */
	uint64_t	unit;
	uint64_t	block;		/* first block on the device */
	uint64_t	valid;		/* in the map; others may be: then they are set once more */
	uint64_t	fresh;		/* written, not in the map yet */
	uint64_t	committing;	/* of these, on their way into it */
	uint64_t	busy;
};

/* A piece of a request that goes to the device by itself. */
struct disk_part {
	struct blk_io	io;
	struct list	node;		/* free */
	struct blk_io	*of;
	struct disk_fill *fill;
	uint64_t	bits;		/* of fill, busy */
	struct iovec	iov[DISK_PART_IOVS];
};

struct disk_bits {
	uint64_t unit, bits;
};

enum disk_slow_kind {
	SLOW_LOAD,	/* look units up in the map */
	SLOW_SPACE,	/* space for units that have none */
	SLOW_COMMIT,	/* fresh blocks into the map, and perhaps everything durable */
	SLOW_DRAIN,	/* wait for what timed out (R4) */
	/* Exclusive: nothing else is under way in their units, nor any other of these anywhere. */
	SLOW_DISCARD,
	SLOW_ZERO,
	SLOW_READ,	/* in too many pieces */
	SLOW_WRITE,	/* the first to a part of a block, or in too many pieces */
};

/* Units [@first, @end) get space; what a worker found and made of them. */
struct disk_range {
	uint64_t	first, end;
	uint64_t	wanted;		/* the unit that cannot do without */
	uint64_t	reached;	/* the unit that was not done any more */
	int		err;
	struct map_entry e[UNITS_MAX];
};

/* What is asked for while one operation is under way is the next one: durable by one commit. */
struct disk_space {
	unsigned int	count;
	struct disk_range ranges[DISK_SPACE_RANGES];
};

/* An operation on a worker thread. */
struct disk_slow {
	struct work	work;
	struct reactor_call back;
	struct list	node;		/* free, or active */
	struct disk	*d;
	enum disk_slow_kind kind;
	uint64_t	first, end;	/* units; the owner's while a worker has it */
	uint64_t	reached;	/* by a worker: the unit that it did not do any more */
	struct blk_io	*io;		/* of exclusive ones */
	uint64_t	off, len;	/* of these, bytes */
	int		err;
	int		commit_err;	/* of what each exclusive one does first */
	bool		started;	/* an exclusive one: with a worker */
	/* SLOW_LOAD */
	struct extent	*found;
	unsigned int	found_count;
	struct disk_space *space;	/* SLOW_SPACE: the ranges that it is for */
	uint64_t	covers_moves;	/* d->moves when it began; of SLOW_COMMIT too */
	bool		room_counts;	/* SLOW_LOAD: as it began, all space was durable … */
	uint64_t	spaces_begun;	/* … and d->spaces_begun was that */
	/* SLOW_COMMIT, and before each exclusive one */
	struct disk_bits *bits;		/* the disk's only array of them */
	unsigned int	bits_count;
	bool		flush;
	uint64_t	covers;		/* d->writes when it began */
	uint64_t	covers_map;	/* d->map_changes */
};

struct disk {
	struct blkdev	dev;
	struct blkdev_ops ops;
	struct disk_params p;
	struct fs	*fs;
	struct blkdev	*lower;
	char		*name;
	struct fs_file	*f;		/* NULL: not open */
	bool		writable;
	struct inode	*kept;		/* of the last open, referenced: nobody else wrote it since? */
	uint64_t	kept_writers, kept_strangers;	/* its writers_ever, its lock_strangers() */
	struct disk_claim left;		/* the record that the last open stood on */

	struct extents	map;
	struct disk_fill *fills;	/* memory of all … */
	unsigned int	fills_touched;	/* … of which so many were in use ever */
	struct list	fills_free, fills_clean, fills_dirty;
	struct list	*buckets;
	struct disk_fresh *fresh;	/* p.fresh, or our own; entry i is fill i's */
	bool		sending;	/* a request is planned and cut to pieces: no other is, fills stay */
	unsigned int	fills_used;
	unsigned int	fills_fresh;	/* that have fresh blocks */
	struct disk_part *parts;
	struct list	parts_free;
	unsigned int	parts_left;
	struct disk_slow *slows;
	struct list	slows_free, slows_active;
	unsigned int	loads;		/* SLOW_LOAD among them */
	unsigned int	active;		/* all of them, exclusive ones excepted */
	struct disk_slow *exclusive;	/* the one that runs or waits to */
	struct disk_bits *bits;
	bool		committing;	/* a SLOW_COMMIT is active */
	bool		commit_wanted;
	struct disk_space *spaces;	/* memory of the one under way and the next */
	struct disk_space *space, *space_next;	/* NULL: none is under way */
	uint64_t	spaces_begun;	/* such operations */
	bool		space_exact;	/* there is little: no more than what is needed now */
	uint64_t	space_end;	/* unit behind the last that got space … */
	unsigned int	space_ahead;	/* … and for how many the next in turn gets some */

	struct list	waiting;	/* requests to be looked at again */
	struct list	flushes;	/* for the next SLOW_COMMIT; those of the one under way: */
	struct list	flushing;
	struct list	timed_out, draining;
	struct list	throttled;	/* for the limits */
	unsigned int	in_flight[2];	/* requests that have begun, by epoch */
	unsigned int	epoch;
	uint64_t	writes;		/* that have ended */
	uint64_t	writes_flushed;	/* of these, durable */
	uint64_t	map_changes;	/* of the map, not durable yet beyond … */
	uint64_t	map_flushed;
	uint64_t	moves;		/* of these, those that may have given units their space … */
	uint64_t	moves_flushed;
	bool		lost, no_space;
	bool		open;		/* owner's view of f */
	bool		abandoned;	/* nobody waits for what is still asked of it */

	unsigned int	pauses;
	bool		quiet_wanted;	/* who pauses waits for quiet */
	struct reactor_call call;	/* of control's holder */
	struct env_mutex control;	/* held by who has it paused; before every lock of fs/ */
	struct env_mutex mutex;		/* of what follows; a leaf */
	struct env_cond	changed;
	unsigned int	quiet;		/* how often it has become so */
	bool		called;		/* what was posted has run */

	_Atomic(struct blk_io *) incoming;	/* submitted by other threads */
	_Atomic(struct blk_io *) ended;		/* completed by other threads */
	struct reactor_call incoming_call, ended_call, retry_call, abandon_call;
	atomic_bool	was_abandoned;	/* abandon_call may be on its way */
	struct reactor_timer tick, throttle;
	bool		tick_set;

	struct blk_io	*batch[DISK_BATCH];
	unsigned int	batch_count;

	struct disk_limits limits, new_limits;
	struct share	share;
	uint64_t	tokens_ns;	/* when the buckets were filled last */
	double		tokens[2];	/* requests, bytes */
	struct disk_stats stats;
};

/* Statistics: one thread writes, any reads. */
#define STAT_ADD(field, n) \
	__atomic_store_n(&(field), (field) + (n), __ATOMIC_RELAXED)

static inline bool disk_is_mine(struct disk *d)
{
	return d->p.reactor ? reactor_current() == d->p.reactor :
			      d->p.owner->is_current(d->p.owner);
}

static inline void disk_post(struct disk *d, struct reactor_call *call)
{
	if (d->p.reactor)
		reactor_post(d->p.reactor, call);
	else
		d->p.owner->post(d->p.owner, call);
}

static inline uint64_t disk_now_ns(struct disk *d)
{
	return d->p.reactor ? reactor_now_ns(d->p.reactor) : env_now_ns(d->fs->env);
}

/** disk_is_blocked() - an exclusive operation has, or waits for, some of units [@first, @end). */
static inline bool disk_is_blocked(const struct disk *d, uint64_t first, uint64_t end)
{
	return d->exclusive && d->exclusive->first < end && d->exclusive->end > first;
}

/* ---- disk_io.c: requests ---- */

void disk_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count);
void disk_incoming(struct reactor_call *call);
void disk_ended(struct reactor_call *call);

/** disk_start() - begins @io, or puts it where it waits. */
void disk_start(struct disk *d, struct blk_io *io);

/** disk_send() - what was batched for the lower device. */
void disk_send(struct disk *d);

/** disk_finish() - @io has ended with @err: a write that wants it is made durable, else done. */
void disk_finish(struct disk *d, struct blk_io *io, int err);

/** disk_retry() - looks at everything again that waits, soon. */
static inline void disk_retry(struct disk *d)
{
	if (!list_empty(&d->waiting))
		disk_post(d, &d->retry_call);
}
void disk_retry_now(struct reactor_call *call);

/** disk_fail_waiting() - requests that wait for units [@first, @end) fail. */
void disk_fail_waiting(struct disk *d, uint64_t first, uint64_t end, bool writes_only, int err);

/* ---- disk_fill.c: units being filled ---- */

void disk_fills_init(struct disk *d);
struct disk_fill *disk_fill_find(struct disk *d, uint64_t unit);

/**
 * disk_fills_reserve() - makes room for the fills of one request, if that can be.  No fill goes
 * between a request's plan and the sending of its pieces, not even for a request that is submitted
 * by somebody's done() meanwhile.
 */
void disk_fills_reserve(struct disk *d);

/** disk_unit_shows_parent() - something of @unit is known to lie in a parent image. */
bool disk_unit_shows_parent(struct disk *d, uint64_t unit);

/** disk_fill_add() - NULL: all are in use, a commit has been asked for. */
struct disk_fill *disk_fill_add(struct disk *d, uint64_t unit, const struct map_entry *e);

/** disk_fill_begin() - @bits of @fill are being written. */
void disk_fill_begin(struct disk_fill *fill, uint64_t bits);
/** disk_fill_end() - they were, or not. */
void disk_fill_end(struct disk *d, struct disk_fill *fill, uint64_t bits, int err);

/** disk_fills_collect() - fresh blocks of all units go on their way into the map. */
unsigned int disk_fills_collect(struct disk *d, struct disk_bits *bits);
/** disk_fills_committed() - they arrived, or not. */
void disk_fills_committed(struct disk *d, int err);

/** disk_fills_drop() - forgets fills of units [@first, @end), which have nothing fresh or busy. */
void disk_fills_drop(struct disk *d, uint64_t first, uint64_t end);

/** disk_fills_overlay() - what they know of units [@first, @end) goes into the cache. */
void disk_fills_overlay(struct disk *d, uint64_t first, uint64_t end);

/* ---- disk_slow.c: slow operations, the owner's side ---- */

/** disk_slow_load(), disk_slow_space() - begun if that can be now; who needs it waits. */
void disk_slow_load(struct disk *d, uint64_t unit);
void disk_slow_space(struct disk *d, uint64_t unit, uint64_t end);
/** disk_space_run() - begins what disk_slow_space() was asked for, if nothing is in its way. */
void disk_space_run(struct disk *d);

/** disk_slow_commit() - @flush: and durable. */
void disk_slow_commit(struct disk *d);

/** disk_slow_exclusive() - begins @kind for @io on [@off, @off + @len).  false: not now. */
bool disk_slow_exclusive(struct disk *d, enum disk_slow_kind kind, struct blk_io *io,
			 uint64_t off, uint64_t len);
/** disk_exclusive_run() - the one that waits goes on if nothing is in its way any more. */
void disk_exclusive_run(struct disk *d);

/** disk_end_drained() - those in d->draining have ended. */
void disk_end_drained(struct disk *d);

/** disk_slow_drain() - for those in d->timed_out. */
void disk_slow_drain(struct disk *d);

/** disk_check_quiet() - tells who pauses, if nothing is under way. */
void disk_check_quiet(struct disk *d);

/** disk_slow_back() - an operation has ended on its worker. */
void disk_slow_back(struct reactor_call *call);

/** disk_tick_set() - there is something to do now and then. */
void disk_tick_set(struct disk *d);
void disk_tick(struct reactor_timer *t);

/** disk_is_clean() - everything that has ended is durable. */
static inline bool disk_map_is_clean(const struct disk *d)
{
	return d->map_changes == d->map_flushed && !d->fills_fresh;
}

static inline bool disk_is_clean(const struct disk *d)
{
	return d->writes == d->writes_flushed && disk_map_is_clean(d);
}

/* ---- disk_work.c: the same on a worker thread ---- */

void disk_work(struct work *work);

/** disk_work_commit() - @count units' bits into the map, durably.  Sorts them. */
int disk_work_commit(struct disk *d, struct disk_bits *bits, unsigned int count);

/** disk_work_resume() - what the last incarnation noted as fresh goes into the map. */
int disk_work_resume(struct disk *d);

/* ---- disk_limit.c ---- */

void disk_limits_init(struct disk *d, const struct disk_limits *limits);
/** disk_may_start() - takes @io's tokens; false: it was put to wait for them. */
bool disk_may_start(struct disk *d, struct blk_io *io);
void disk_throttle_tick(struct reactor_timer *t);

/* ---- disk_claim.c: control is held ---- */

/** disk_check_resumed() - the lock was found as @resume left it, and nobody of this incarnation has written
 * since.  disk_check_again(): the same of an open that this disk had before.  Return: 0, -ESTALE. */
int disk_check_resumed(struct disk *d, const struct disk_claim *resume);
int disk_check_again(struct disk *d);

/** disk_keep_inode() - about to be closed: it stays in memory, and with it whoever else opens it to write. */
void disk_keep_inode(struct disk *d);

#endif
