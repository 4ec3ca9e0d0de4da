/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate's word to the guard (rung B): until when this process may send.
 *
 *   armed: raised by each renewal, before the gate opens for it;
 *   0:     once the lease has lapsed and nothing that was let in can be sent any more.
 *
 * Who is frozen in between says nothing, and is ended by whoever watches the word.  A host that
 * is not frozen takes its word back in time, however long its path to the device is gone.
 */
#include "lockd/gate_internal.h"

#define LOOK_NS		(10 * NSEC_PER_MSEC)

void gate_set_guard(struct gate *g, _Atomic uint64_t *word, uint64_t grace_ns)
{
	g->guard = word;
	g->guard_grace_ns = grace_ns;
}

void gate_arm(struct gate *g, uint64_t until_ns)
{
	if (g->guard)
		atomic_store(g->guard, until_ns + g->guard_grace_ns);
}

static bool handle_is_silent(struct blkdev *lower, uint64_t inflight)
{
	return !inflight || (lower->ops->is_silent && lower->ops->is_silent(lower));
}

static bool gate_is_silent(struct gate *g)
{
	struct blkdev *lower;
	uint64_t inflight;

	if (!handle_is_silent(g->lower, atomic_load(&g->inflight)))
		return false;
	for (unsigned int i = 0; gate_port_at(g, i, &lower, &inflight); i++)
		if (!handle_is_silent(lower, inflight))
			return false;
	return true;
}

uint64_t gate_disarm(struct gate *g)
{
	uint64_t word = g->guard ? atomic_load(g->guard) : 0, now;

	if (!word)
		return ENV_FOREVER;
	now = env_now_ns(g->env);
	/* Valid, or closed for a while only: nothing is wrong before the lease's own end. */
	if (now < word - g->guard_grace_ns)
		return word - g->guard_grace_ns;
	if (MUTANT("guard-not-told"))
		return ENV_FOREVER;
	/* A backend that sleeps looks at its clock now; a renewal opens the gate under the mutex. */
	gate_tell(g->lower, 0);
	gate_tell_ports(g, 0);
	if (!gate_is_silent(g) && !MUTANT("guard-let-go"))
		return now + LOOK_NS;
	atomic_store(g->guard, 0);
	return ENV_FOREVER;
}
