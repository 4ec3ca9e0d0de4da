/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open virtual disk: a file's contents as a struct blkdev, at the speed of what lies below.
 *
 * A disk belongs to one owner, a reactor: what is allocated is translated in its memory and goes
 * to the device there, without a lock, an allocation or a copy.  Everything else (a miss of the
 * cache, space for a first write, discard, zeroes, flush) runs on worker threads, and the
 * request comes back.  docs/ARCHITECTURE.md, "Virtual disks", has the invariants.
 *
 *	disk_new() ──► disk_open() ◄──► disk_shut() ──► disk_free()
 *	                lock, map        R4
 *
 * While it is open nobody else of this host opens or cuts the file (-EBUSY), so its map changes
 * through the functions here and no others.
 */
#ifndef LUNFS_FS_DISK_H
#define LUNFS_FS_DISK_H

#include "base/reactor.h"
#include "base/workers.h"
#include "fs/image.h"
#include "fs/shares.h"

struct disk;

/* Who has a disk's requests: a reactor; or, in tests, anything that runs calls one by one. */
struct disk_owner {
	void (*post)(struct disk_owner *o, struct reactor_call *call);
	bool (*is_current)(struct disk_owner *o);	/* is this its thread? */
};

enum disk_enospc {
	DISK_ENOSPC_PAUSE,	/* requests wait until there is space */
	DISK_ENOSPC_REPORT,	/* they fail with -ENOSPC */
};

/* Token buckets; 0: no limit.  A burst is what may be used up at once after a time of rest. */
struct disk_limits {
	uint64_t iops, iops_burst;	/* requests a second; burst 0: a second's worth */
	uint64_t bytes, bytes_burst;	/* bytes a second */
	unsigned int shares;		/* against disks of the same group, shares.h; 0: not said */
};

/* Told in the owner's thread; must not block.  All are optional. */
struct disk_events {
	void (*resized)(void *arg);		/* blkdev.info.size has changed */
	void (*no_space)(void *arg, bool now);	/* DISK_ENOSPC_PAUSE: I/O waits for space, or goes on */
	void (*lost)(void *arg);		/* our slot is gone: everything fails from now on */
};

/*
 * First writes that the map does not know of for certain yet: a guest that was told that they are
 * done goes on when this process is killed, so they are noted in memory that outlives it.
 */
#define DISK_FRESH_MAX	2048u	/* units being filled: 512 MiB */
struct disk_fresh {
	struct {
		uint64_t unit;		/* of the file, plus 1; 0: nothing here */
		uint64_t block;		/* that it has on the device */
		uint64_t blocks;	/* of it that were written, a bit each */
	} units[DISK_FRESH_MAX];
};

struct disk_params {
	struct fs	*fs;		/* attached; borrowed, as all pointers here */
	uint64_t	id;		/* inode */
	const char	*name;		/* for log lines: "ds1:/vm1/root.disk"; copied */
	char		user[25];	/* whom others are told of who want it: a machine's name; or "" */
	struct reactor	*reactor;	/* the owner … */
	struct disk_owner *owner;	/* … or this one, if NULL */
	struct workers	*workers;
	/*
	 * Where the data goes: a port of the datastore (lockd_port()), polled on @reactor, or
	 * fs->dev, whose completions come from other threads.
	 */
	struct blkdev	*lower;
	struct shares	*shares;	/* the disks it competes with; all have this owner, and @lower */
	bool		read_only;	/* a shared lock; snapshots are always */
	bool		multi;		/* a file of several writers: LOCK_MULTI */
	enum disk_enospc enospc;
	struct disk_limits limits;
	struct disk_fresh *fresh;	/* mapped from a file; NULL: nobody resumes this disk */
	size_t		map_bytes;	/* of memory for the map; 0: 48 MiB */
	struct disk_events events;
	void		*arg;		/* of the events */
};

/**
 * disk_new() - a disk that is not open: it has its size, and answers requests with -ENOMEDIUM.
 * Context: blocks; not the owner's thread.  The same for all below that do not say otherwise.
 * Return: 0; -EINVAL no regular file, or its size is not whole sectors, or below 1 MiB; -ENOENT.
 */
int disk_new(const struct disk_params *p, struct disk **out);

/**
 * disk_let_go() - it is shut, and not going to be used soon: the lock that is only kept is given
 * up on disk, so that whoever looks sees it free, also if this host dies next.  Blocks.
 */
void disk_let_go(struct disk *d);

/**
 * disk_leave_to() - when it is shut and let go the next time, that is for @heir alone: nobody else can
 * open it, but this host again, until disk_free_left(), or until this host dies.
 * Return: 0; -ENOMEDIUM it is not open.
 */
int disk_leave_to(struct disk *d, const struct lock_heir *heir);

/** disk_free_left() - it is for all, unless the heir has it.  Return: 0; as the device. */
int disk_free_left(struct disk *d);

/** disk_free() - not open, and nobody submits any more. */
void disk_free(struct disk *d);

/** disk_blkdev() - the device.  Submit from the owner's thread; from others it is posted there. */
struct blkdev *disk_blkdev(struct disk *d);

/* The lock record that a disk's open stands on: what may be continued, and by whom. */
struct disk_claim {
	uint32_t slot, generation;	/* the holder; generation 0: none */
	uint64_t sequence;		/* the record's when this was asked */
};

/**
 * disk_take_back() - for @left of a killed process, before disk_new() and disk_open(): takes the lock,
 * with what its record will say then written down before.  A process that is killed between taking it
 * and writing disk_claim() down leaves a lock that its successor would take for somebody else's.
 * @left: as for disk_open().  If the record is what @next foresaw it becomes that.
 * @next: what the last incarnation foresaw, or none; receives what this one does: none if the record is
 *        not as it was left.
 * @note: called once, when both are to be written down.
 * Return: 0, whether it has been taken or not: disk_open() judges; or why the record cannot be read.
 */
int disk_take_back(struct fs *fs, uint64_t id, struct disk_claim *left, struct disk_claim *next,
		   void (*note)(void *arg), void *arg);

/**
 * disk_open() - takes the lock (exclusive; shared or multi-writer as the parameters say).
 * @resume: NULL; or what disk_claim() said of an open that this host's last incarnation did not
 *          close: the lock is taken only if nobody else has had it since, and what params.fresh
 *          notes goes into the map; otherwise those notes are forgotten.
 * @holder: filled in on -EBUSY.
 * Return: 0, also if it is open; -EBUSY somebody has it; -ESTALE it has been somebody else's since
 * it was open here (@resume, or disk_shut()), and what its user remembers is of another time: that
 * disk is never opened again; as fs_open().
 */
int disk_open(struct disk *d, const struct disk_claim *resume, struct lock_holder *holder);

/** disk_is_open() - between disk_open() and disk_shut(). */
bool disk_is_open(struct disk *d);

/**
 * disk_retarget() - a disk that has never been open to write is inode @id from now on: its name has
 * come to be another image's since disk_new(), by a snapshot on whichever host.
 * Return: 0; -EBUSY it is open, or has been to write.
 */
int disk_retarget(struct disk *d, uint64_t id);

/**
 * disk_shut() - waits for what is under way, makes everything durable, gives the lock up (R4).
 * Return: 0; the first error: what was not flushed may be lost; the disk is not open in any case.
 */
int disk_shut(struct disk *d);

/**
 * disk_abandon() - whoever used it is gone: requests that wait (for space, for a limit) end with
 * -ENOMEDIUM from now on, and so do later ones, until it is opened anew.
 * Those that are under way end as they do.  Any thread; does not block.
 */
void disk_abandon(struct disk *d);

/** disk_claim() - of the open disk.  Any thread.  -ENOMEDIUM it is not open. */
int disk_claim(struct disk *d, struct disk_claim *claim);

/**
 * disk_left() - of one that is not open but has been, to write: what disk_expect() of this host's next
 * incarnation has to be told.  Any thread; blocks while the disk is opened or shut.
 * Return: false there is nothing to tell.
 */
bool disk_left(struct disk *d, struct disk_claim *left);

/**
 * disk_expect() - a new disk that was shut when the last incarnation of this host ended, which left
 * @left: it is opened only if nobody else has had it since, as if this one had shut it.  Behind
 * disk_foretell() and disk_new().
 * Return: 0, also if somebody else has: disk_open() says so; -EAGAIN somebody here is just taking it; as
 * the device.
 */
int disk_expect(struct disk *d, const struct disk_claim *left);

/**
 * disk_foretell() - as disk_take_back(), of one that was shut: before disk_new() of the next incarnation,
 * and before disk_open().
 * @left: as disk_left() had it.
 */
int disk_foretell(struct fs *fs, uint64_t id, struct disk_claim *left, struct disk_claim *next,
		  void (*note)(void *arg), void *arg);

/**
 * disk_pause() - requests wait from now on; returns when none is under way and everything that
 * was written is in the map (not durable).  One at a time: others wait, disk_open() and
 * disk_shut() too.
 * Return: 0; -ETIMEDOUT something still was under way at @deadline_ns, -ENOMEDIUM it is not open,
 * -EIO: it is not paused.
 */
int disk_pause(struct disk *d, uint64_t deadline_ns);
void disk_resume(struct disk *d);

/** disk_forget() - paused: the map of [@off, +@len) was changed, nothing is known of it any more.
 * @len 0: of everything. */
void disk_forget(struct disk *d, uint64_t off, uint64_t len);

/** disk_id() - the inode that it is: another one after a snapshot. */
uint64_t disk_id(struct disk *d);

/** disk_file() - the open file, for fs_merge_step() and its like while it is paused. */
struct fs_file *disk_file(struct disk *d);

/**
 * disk_snapshot() - fs_snapshot() of the disk, open or not, under its user's I/O; @dir, @name, @snap_name
 * and @attr as there.
 * @pause_ns: receives for how long requests had to wait.
 */
int disk_snapshot(struct disk *d, uint64_t dir, const char *name, const char *snap_name,
		  struct fs_attr *attr, uint64_t *pause_ns);

/** disk_merge_step() - fs_merge_step() of the disk, open or not, under its user's I/O. */
int disk_merge_step(struct disk *d, struct merge *m);

/** disk_grow() - a larger size, told to events.resized.  -EINVAL smaller, or no whole sectors. */
int disk_grow(struct disk *d, uint64_t size);

/** disk_set_limits() - from now on. */
void disk_set_limits(struct disk *d, const struct disk_limits *limits);

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_OPS };
#define DISK_LATENCIES	32u	/* bucket i: below 1 << (i + 10) ns; the last: all else */

struct disk_stats {
	uint64_t ops[DISK_OPS], bytes[DISK_OPS], errors;
	uint64_t latency[DISK_OPS][DISK_LATENCIES];
	uint64_t latency_ns[DISK_OPS];	/* the sum of all */
	uint64_t misses;	/* of the map's cache */
	uint64_t first_writes;	/* requests that wrote what had not been written */
	uint64_t slow;		/* requests, or parts, that went to a worker thread */
	uint64_t pieces;	/* requests to the device beyond one for each of ours */
	uint64_t throttled;	/* requests that had to wait for a limit */
	uint64_t share_waits;	/* requests, or pieces, that waited for others' shares */
	uint64_t map_bytes;	/* memory of the cache */
	unsigned int in_flight;
	bool	open, paused, no_space, lost;
};

/** disk_stats() - a snapshot, perhaps not consistent in itself.  Any thread; does not block. */
void disk_stats(struct disk *d, struct disk_stats *stats);

#endif
