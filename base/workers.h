/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for what blocks: a reactor or anybody else who must not wait posts work, and hears
 * of its end by a call of his own (reactor_post(), say).
 */
#ifndef LUNFS_BASE_WORKERS_H
#define LUNFS_BASE_WORKERS_H

#include "base/env.h"

struct workers;

/* Embedded in its user's struct; zeroed but for fn.  Free again once fn() has begun. */
struct work {
	void		(*fn)(struct work *work);
	struct list	node;		/* the pool's */
};

/**
 * workers_create() - @count threads named @name (at most 12 bytes).
 * Return: 0; -ENOMEM, also if not even one thread could be started: fewer will do.
 */
int workers_create(struct env *env, const char *name, unsigned int count, struct workers **out);

/** workers_destroy() - after everything posted has run.  NULL is allowed. */
void workers_destroy(struct workers *w);

/** workers_post() - runs @work->fn on one of the threads, in the order of posting.  Takes a
 * mutex that is held for moments only.  Context: any thread. */
void workers_post(struct workers *w, struct work *work);

#endif
