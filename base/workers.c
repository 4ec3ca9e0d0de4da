/* SPDX-License-Identifier: Apache-2.0 */
#include "base/workers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Each sleeps by itself: one piece of work wakes one of them. */
struct worker {
	struct workers	*pool;
	struct env_thread *thread;
	struct env_cond	wake;
	struct list	idle;	/* in pool->idle, while it sleeps and nobody woke it */
};

struct workers {
	struct env	*env;
	struct env_mutex mutex;
	struct list	queue;
	struct list	idle;	/* the one that slept last first: its cache is warm */
	bool		stopping;
	unsigned int	count;
	struct worker	workers[];
};

static void worker_main(void *arg)
{
	struct worker *me = arg;
	struct workers *w = me->pool;
	struct work *work;

	env_mutex_lock(w->env, &w->mutex);
	for (;;) {
		while (list_empty(&w->queue) && !w->stopping) {
			if (list_empty(&me->idle))
				list_add_head(&w->idle, &me->idle);
			env_cond_wait(w->env, &me->wake, &w->mutex, ENV_FOREVER);
		}
		list_del(&me->idle);
		if (list_empty(&w->queue))
			break;
		work = list_first(&w->queue, struct work, node);
		list_del(&work->node);
		env_mutex_unlock(w->env, &w->mutex);
		work->fn(work);
		env_mutex_lock(w->env, &w->mutex);
	}
	env_mutex_unlock(w->env, &w->mutex);
}

void workers_destroy(struct workers *w)
{
	if (!w)
		return;
	env_mutex_lock(w->env, &w->mutex);
	w->stopping = true;
	for (unsigned int i = 0; i < w->count; i++)
		env_cond_broadcast(w->env, &w->workers[i].wake);
	env_mutex_unlock(w->env, &w->mutex);
	for (unsigned int i = 0; i < w->count; i++) {
		env_thread_join(w->env, w->workers[i].thread);
		env_cond_fini(w->env, &w->workers[i].wake);
	}
	env_mutex_fini(w->env, &w->mutex);
	free(w);
}

int workers_create(struct env *env, const char *name, unsigned int count, struct workers **out)
{
	struct workers *w = calloc(1, sizeof(*w) + count * sizeof(w->workers[0]));
	struct worker *new;
	char thread[16];
	int err = 0;

	if (!w)
		return -ENOMEM;
	w->env = env;
	env_mutex_init(env, &w->mutex);
	list_init(&w->queue);
	list_init(&w->idle);
	for (unsigned int i = 0; i < count && !err; i++) {
		snprintf(thread, sizeof(thread), "%.12s-%u", name, i % 100);
		new = &w->workers[i];
		new->pool = w;
		list_init(&new->idle);
		env_cond_init(env, &new->wake);
		err = env_thread_start(env, thread, worker_main, new, &new->thread);
		if (err)
			env_cond_fini(env, &new->wake);
		else
			w->count++;
	}
	if (!w->count) {
		workers_destroy(w);
		return -ENOMEM;
	}
	*out = w;
	return 0;
}

void workers_post(struct workers *w, struct work *work)
{
	struct worker *next;

	env_mutex_lock(w->env, &w->mutex);
	list_add_tail(&w->queue, &work->node);
	if (!list_empty(&w->idle)) {
		next = list_first(&w->idle, struct worker, idle);
		list_del(&next->idle);
		env_cond_broadcast(w->env, &next->wake);
	}
	env_mutex_unlock(w->env, &w->mutex);
}
