/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end-of-round hooks of a reactor: what is queued, and running it.  Apart from reactor.c so
 * that the reactors of tests have the same.
 */
#ifndef LUNFS_BASE_REACTOR_ENDS_H
#define LUNFS_BASE_REACTOR_ENDS_H

#include "base/reactor.h"

struct reactor_ends {
	struct list	now;	/* of this round */
	struct list	next;	/* of the next one */
};

void reactor_ends_init(struct reactor_ends *ends);
/** reactor_ends_pending() - whether a hook is queued, for this round or the next. */
bool reactor_ends_pending(const struct reactor_ends *ends);
/** reactor_ends_add() - @e runs in this round; nothing if it is queued already. */
void reactor_ends_add(struct reactor_ends *ends, struct reactor_end *e);
/** reactor_ends_add_next() - @e runs in the next round; nothing if it is queued already. */
void reactor_ends_add_next(struct reactor_ends *ends, struct reactor_end *e);
/** reactor_ends_cancel() - @e is queued no more; nothing if it was not. */
void reactor_ends_cancel(struct reactor_end *e);
/**
 * reactor_ends_run() - the end of a round: runs what is queued, and what that queues; hooks that
 * go on queueing hooks leave the rest to the next round.  Return: how many ran.
 */
unsigned int reactor_ends_run(struct reactor_ends *ends);

#endif
