/* SPDX-License-Identifier: Apache-2.0 */
/* What the gate (gate.c) and its ports (gate_port.c) share. */
#ifndef LUNFS_LOCKD_GATE_INTERNAL_H
#define LUNFS_LOCKD_GATE_INTERNAL_H

#include <stdatomic.h>

#include "base/mutant.h"
#include "lockd/gate.h"

/* gate_priv[] of a request under way. */
enum gate_priv { GATE_DONE, GATE_SELF, GATE_STEP, GATE_ERR };

enum gate_step {
	STEP_SUBMIT,	/* to be submitted (again) */
	STEP_RESULT,	/* executed, the result is in GATE_ERR */
};

struct gate {
	struct blkdev dev;
	struct blkdev_ops ops;
	struct blkdev *lower;
	struct env *env;

	_Atomic uint64_t until_ns;	/* 0: closed */
	_Atomic uint64_t *guard;	/* gate_guard.c; NULL: nobody watches */
	uint64_t guard_grace_ns;
	_Atomic uint64_t inflight;	/* commands inside the lower device, or about to be */
	_Atomic uint64_t stalls;
	atomic_bool failed;
	atomic_bool conflict;		/* a command met a reservation conflict */

	struct env_mutex mutex;		/* waiting, ports, fault, ending; a leaf */
	struct env_cond changed;	/* lease renewed, failed, something waits, ending */
	struct list waiting;
	struct list ports;
	struct gate_fault fault;	/* count 0: none */
	bool	ending;
	struct env_thread *thread;
};

/** gate_prepare() - @io will come back to @done, which finds @self in gate_priv[GATE_SELF]. */
void gate_prepare(void *self, struct blk_io *io, void (*done)(struct blk_io *io, int err));

/** gate_judge() - whether a result may be handed on; if not, what is to be done instead. */
bool gate_judge(struct gate *g, const struct blk_io *io, int err, enum gate_step *step);

/** gate_finish() - gives @io back to its submitter, who gave it to @dev. */
void gate_finish(struct blkdev *dev, struct blk_io *io, int err);

/** gate_tell() - a backend behind a network keeps to the lease by itself: as near to the wire
 * as it gets. */
static inline void gate_tell(struct blkdev *lower, uint64_t until_ns)
{
	if (lower->ops->lease)
		lower->ops->lease(lower, until_ns);
}

/** gate_wake_ports() - the lease has changed; the mutex is held. */
void gate_wake_ports(struct gate *g);

/** gate_tell_ports() - gate_tell() for every port's device; the mutex is held. */
void gate_tell_ports(struct gate *g, uint64_t until_ns);

/** gate_port_at() - the device of port @index and what is inside of it; the mutex is held.
 * Return: false: there are fewer. */
bool gate_port_at(struct gate *g, unsigned int index, struct blkdev **lower, uint64_t *inflight);

/** gate_arm() - before the lease is renewed until @until_ns: the guard is told first.  Mutex held. */
void gate_arm(struct gate *g, uint64_t until_ns);

/**
 * gate_disarm() - takes the word back if the lease has lapsed and nothing can be sent any more.
 * The mutex is held, so that no renewal comes in between.
 * Return: when to look again; ENV_FOREVER: not before the next renewal.
 */
uint64_t gate_disarm(struct gate *g);

/** gate_ports_grew() - the device has @size bytes now. */
void gate_ports_grew(struct gate *g, uint64_t size);

/** gate_ports_inflight() - commands that ports have inside their devices. */
uint64_t gate_ports_inflight(struct gate *g);

/* Whether a command may go to the device. */
static inline bool gate_is_open(struct gate *g)
{
	return gate_is_valid(g) || (MUTANT("no-lease-check") && !atomic_load(&g->failed));
}

/* Whether a result may go to the caller. */
static inline bool gate_may_finish(struct gate *g)
{
	return gate_is_valid(g) || MUTANT("no-lease-check-after");
}

#endif
