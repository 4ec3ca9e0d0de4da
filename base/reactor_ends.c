/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reactor_ends.h"

#define PASSES	4	/* of hooks that queue hooks, in one round */

void reactor_ends_init(struct reactor_ends *ends)
{
	list_init(&ends->now);
	list_init(&ends->next);
}

bool reactor_ends_pending(const struct reactor_ends *ends)
{
	return !list_empty(&ends->now) || !list_empty(&ends->next);
}

static void add(struct list *list, struct reactor_end *e)
{
	if (e->queued)
		return;
	e->queued = true;
	list_add_tail(list, &e->node);
}

void reactor_ends_add(struct reactor_ends *ends, struct reactor_end *e)
{
	add(&ends->now, e);
}

void reactor_ends_add_next(struct reactor_ends *ends, struct reactor_end *e)
{
	add(&ends->next, e);
}

void reactor_ends_cancel(struct reactor_end *e)
{
	if (!e->queued)
		return;
	e->queued = false;
	list_del(&e->node);
}

unsigned int reactor_ends_run(struct reactor_ends *ends)
{
	unsigned int pass, count = 0;
	struct list now;

	list_splice_tail(&ends->now, &ends->next);
	for (pass = 0; pass < PASSES && !list_empty(&ends->now); pass++) {
		list_init(&now);
		list_splice_tail(&now, &ends->now);
		while (!list_empty(&now)) {
			struct reactor_end *e = list_first(&now, struct reactor_end, node);

			list_del(&e->node);
			e->queued = false;
			e->fn(e);
			count++;
		}
	}
	return count;
}
