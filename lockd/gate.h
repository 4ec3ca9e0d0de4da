/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease gate (R2): a blkdev in front of the datastore's device that lets a command
 * through only while the lease is valid, and its result only if it still is.
 */
#ifndef LUNFS_LOCKD_GATE_H
#define LUNFS_LOCKD_GATE_H

#include <stdatomic.h>

#include "block/blkdev.h"

struct gate;

/**
 * gate_new() - a closed gate in front of @lower (borrowed).
 *
 * While the lease is not valid, submitted requests wait in order; a completed read is
 * repeated, and the result of anything else, good or bad, is held back until it is valid
 * again (R2).  After gate_fail() everything, waiting or new, completes with -ESTALE.
 *
 * The way through with a valid lease costs one clock and two atomics, no lock, no memory:
 * what the gate must remember lies in the request (blk_io.gate_priv).
 */
int gate_new(struct env *env, struct blkdev *lower, struct gate **out);
void gate_free(struct gate *g);

/**
 * gate_set_guard() - another process watches @word, and ends this one when env_now_ns() has
 * passed it and it is not 0 (rung B; daemon/guard.h).
 * @word:     in memory that both share; outlives the gate, which leaves 0 in it.
 * @grace_ns: after the lease's end, for this process to cut what is under way.
 *
 * Call it before the first renewal.
 */
void gate_set_guard(struct gate *g, _Atomic uint64_t *word, uint64_t grace_ns);

/** gate_blkdev() - the guarded device; lives as long as the gate. */
struct blkdev *gate_blkdev(struct gate *g);

/**
 * gate_port_new() - a polled device behind the same lease, for one reactor.
 * @lower: another handle of the same LUN, in polled mode; borrowed.
 * @out:   a polled device, to be closed before the gate is freed; closing it collects what
 *         is under way and waits for the lease if something waits for that.
 *
 * Everything that gate_new() says holds; requests that wait for the lease are let go on by
 * the owner's blkdev_poll(), which a renewal calls for by an edge of the poll descriptor.
 * A port counts its commands itself: reactors share no cache line that they write.
 * Return: 0; -ENOMEM; -ENOTSUP: @lower has reservations, so that each path must be
 * registered before it is used.
 */
int gate_port_new(struct gate *g, struct blkdev *lower, struct blkdev **out);

/** gate_renew() - the lease is valid until @until_ns of env_now_ns(); lets waiters go on. */
void gate_renew(struct gate *g, uint64_t until_ns);

/** gate_close() - voids the lease at once (a path event); what is under way goes on. */
void gate_close(struct gate *g);

/** gate_cut() - the same, and what is under way is cut off where the device can (a gap in time:
 * nothing that was sent before it may land after it). */
void gate_cut(struct gate *g);

/** gate_fail() - the slot is lost for good. */
void gate_fail(struct gate *g);

bool gate_is_valid(struct gate *g);
bool gate_has_failed(struct gate *g);

/** gate_wait_valid() - waits for a valid lease.  Return: 0; -ESTALE.  Blocks. */
int gate_wait_valid(struct gate *g);

/** gate_until_ns() - end of the lease as last renewed. */
uint64_t gate_until_ns(struct gate *g);

/**
 * gate_take_conflict() - whether a command met a reservation conflict since the last call.
 *
 * Such a command was not executed.  The gate closes itself and repeats it after the next
 * renewal: either the slot is lost, or the host registers again first.
 */
bool gate_take_conflict(struct gate *g);

/**
 * gate_drain() - waits until no command is inside the lower device; call it with the gate
 * closed or failed, or nobody submitting.
 * Return: 0; -ETIMEDOUT.  Blocks.
 */
int gate_drain(struct gate *g, uint64_t deadline_ns);

struct gate_fault {
	enum blk_op	op;
	uint64_t	off;
	uint64_t	len;
	int		err;
	uint64_t	count;		/* of failed commands; the rest is about the first */
};

/**
 * gate_take_fault() - what the device failed since the last call.
 *
 * The gate sees every command, so it is where a fault of the device is noted; the heartbeat
 * logs it.  Not a fault: a miscompare, a conflict, what the device does not support.
 * Return: whether there was any; @fault is written only then.
 */
bool gate_take_fault(struct gate *g, struct gate_fault *fault);

/** gate_stalls() - how many requests had to wait so far. */
uint64_t gate_stalls(struct gate *g);

#endif
