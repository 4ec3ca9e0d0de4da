/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares: who goes first when disks compete for one device.
 *
 * A group is the disks of one datastore that one reactor serves.  While two or more of them have
 * requests and one of them has shares, at most "depth" requests of the group are at the device;
 * the others wait here, and whose turn it is follows from the shares (start-time fair queueing):
 * each dispatch moves a disk's tag on by the request's cost over its shares, the lowest tag is
 * next.  Whoever rested begins where the others are, and saves nothing up; but whose guest was only late
 * (SHARES_MEMORY_NS) has what it missed first, up to a few times "depth" requests.
 *
 * Work-conserving: a request waits only while "depth" others are at the device, and a disk that
 * is alone is not held at all.
 *
 * Everything here belongs to the thread that owns the disks.  Nothing is allocated.
 */
#ifndef LUNFS_FS_SHARES_H
#define LUNFS_FS_SHARES_H

#include "base/reactor.h"
#include "block/blkdev.h"

#define SHARES_DEFAULT		100u	/* of a disk of which nothing is said */
#define SHARES_MAX		10000u
#define SHARES_COST_BYTES	16384u	/* a request counts as one, and as one more for so many bytes */
#define SHARES_LATE_DEPTHS	2u	/* so many times "depth" requests are owed to a disk at most */
#define SHARES_MEMORY_NS	(100 * NSEC_PER_MSEC)	/* disks compete so long after both had requests */

/* One disk. */
struct share {
	struct list	node;		/* in group->turns while something waits */
	struct list	queue;		/* requests that wait, by blk_io.node */
	uint64_t	tag;		/* of the first of them; with none: of the next, at least */
	unsigned int	shares;		/* 0: nothing is said */
	unsigned int	queued;
	uint64_t	empty_ns;	/* when the last that waited was sent */
};

struct shares {
	struct list	turns;		/* disks that have something waiting, by their tags */
	struct reactor_call call;	/* shares_turn() soon */
	struct blkdev	*lower;		/* of all of them */
	uint64_t	now;		/* the tag that was served last */
	unsigned int	depth;
	unsigned int	members;	/* disks with shares; 0: nobody is held, nothing counted */
	unsigned int	at_device;
	const struct share *last;	/* who had a request last … */
	uint64_t	compete_until_ns;	/* … and until when he is not thought alone */
	bool		sending;
};

/**
 * shares_init() - a group of no disks yet.
 * @lower: the device that all of them lie on; borrowed.
 * @depth: so many requests are there at most while disks compete; at least 1.
 */
void shares_init(struct shares *g, struct blkdev *lower, unsigned int depth);

/** share_init() - a disk, without shares. */
void share_init(struct share *s);

/**
 * share_set() - @s has @shares from now on, 1 to SHARES_MAX; 0: nothing is said of it, which is to be
 * so before the group goes without it.  Where nobody has shares any more, all that waits is sent.
 */
void share_set(struct shares *g, struct share *s, unsigned int shares);

/** shares_are_used() - requests go by shares_submit(). */
static inline bool shares_are_used(const struct shares *g)
{
	return g && g->members;
}

/**
 * shares_submit() - @ios of @s go to the device, now or when it is their turn.
 * Each is to be followed by one shares_ended(), in its completion or later.
 * Return: how many wait.
 */
unsigned int shares_submit(struct shares *g, struct share *s, struct blk_io **ios,
			   unsigned int count, uint64_t now_ns);

/**
 * shares_ended() - one of the requests has left the device.
 * Return: others wait: shares_turn() is to be called, soon, once for all that end meanwhile.
 */
bool shares_ended(struct shares *g);

/** shares_turn() - sends those whose turn it is. */
void shares_turn(struct shares *g, uint64_t now_ns);

#endif
