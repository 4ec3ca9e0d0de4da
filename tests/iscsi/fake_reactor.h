/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors in the simulated world: base/reactor.h on an env's threads, so that power cuts,
 * errors and orders of events can be chosen.  Included by one file of a program; its
 * definitions stand for base/reactor.c.  No descriptors: simulated devices have none.
 */
#ifndef LUNFS_TESTS_ISCSI_FAKE_REACTOR_H
#define LUNFS_TESTS_ISCSI_FAKE_REACTOR_H

#include <errno.h>
#include <stdlib.h>

#include "base/reactor_ends.h"

#define FAKE_TIMERS	16

struct reactor {
	struct env *env;
	struct env_thread *thread;
	struct env_mutex mutex;
	struct env_cond changed;
	struct reactor_call *first, **last;
	struct reactor_ends ends;
	struct reactor_timer *timers[FAKE_TIMERS];
	bool stopping;
};

static struct reactor_call *fake_pop(struct reactor *r)
{
	struct reactor_call *call = r->first;

	if (call) {
		r->first = call->next;
		if (!r->first)
			r->last = &r->first;
	}
	return call;
}

/* Return: when the next one is due, of those too that the due ones have set. */
static uint64_t fake_run_timers(struct reactor *r)
{
	uint64_t next = ENV_FOREVER;

	for (int i = 0; i < FAKE_TIMERS; i++) {
		struct reactor_timer *t = r->timers[i];

		if (!t || t->deadline_ns > env_now_ns(r->env))
			continue;
		r->timers[i] = NULL;
		t->heap_index = 0;
		t->fn(t);
	}
	for (int i = 0; i < FAKE_TIMERS; i++)
		if (r->timers[i] && r->timers[i]->deadline_ns < next)
			next = r->timers[i]->deadline_ns;
	return next;
}

static void fake_main(void *arg)
{
	struct reactor *r = arg;

	env_mutex_lock(r->env, &r->mutex);
	for (;;) {
		struct reactor_call *call = fake_pop(r);
		uint64_t next;

		if (call) {
			env_mutex_unlock(r->env, &r->mutex);
			call->fn(call);
			env_mutex_lock(r->env, &r->mutex);
			continue;
		}
		env_mutex_unlock(r->env, &r->mutex);
		next = fake_run_timers(r);
		while (reactor_ends_pending(&r->ends))
			reactor_ends_run(&r->ends);
		env_mutex_lock(r->env, &r->mutex);
		if (r->first)
			continue;
		if (r->stopping)
			break;
		env_cond_wait(r->env, &r->changed, &r->mutex, next);
	}
	env_mutex_unlock(r->env, &r->mutex);
}

int reactor_create(struct env *env, const char *name, uint64_t poll_ns, unsigned int timer_max,
		   struct reactor **out)
{
	struct reactor *r = calloc(1, sizeof(*r));

	(void)poll_ns;
	(void)timer_max;
	if (!r)
		return -ENOMEM;
	r->env = env;
	r->last = &r->first;
	reactor_ends_init(&r->ends);
	env_mutex_init(env, &r->mutex);
	env_cond_init(env, &r->changed);
	*out = r;
	return env_thread_start(env, name, fake_main, r, &r->thread);
}

void reactor_destroy(struct reactor *r)
{
	env_mutex_lock(r->env, &r->mutex);
	r->stopping = true;
	env_cond_broadcast(r->env, &r->changed);
	env_mutex_unlock(r->env, &r->mutex);
	env_thread_join(r->env, r->thread);
	env_cond_fini(r->env, &r->changed);
	env_mutex_fini(r->env, &r->mutex);
	free(r);
}

struct reactor *reactor_current(void)
{
	return NULL;
}

void reactor_post(struct reactor *r, struct reactor_call *call)
{
	env_mutex_lock(r->env, &r->mutex);
	for (struct reactor_call *c = r->first; c; c = c->next)
		assert(c != call);	/* never queued twice */
	call->next = NULL;
	*r->last = call;
	r->last = &call->next;
	env_cond_broadcast(r->env, &r->changed);
	env_mutex_unlock(r->env, &r->mutex);
}

struct fake_sync {
	struct reactor_call call;
	struct reactor *r;
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void fake_sync_call(struct reactor_call *call)
{
	struct fake_sync *s = container_of(call, struct fake_sync, call);

	s->fn(s->arg);
	env_mutex_lock(s->r->env, &s->r->mutex);
	s->done = true;
	env_cond_broadcast(s->r->env, &s->r->changed);
	env_mutex_unlock(s->r->env, &s->r->mutex);
}

void reactor_call_sync(struct reactor *r, void (*fn)(void *arg), void *arg)
{
	struct fake_sync s = { .call.fn = fake_sync_call, .r = r, .fn = fn, .arg = arg };

	reactor_post(r, &s.call);
	env_mutex_lock(r->env, &r->mutex);
	while (!s.done)
		env_cond_wait(r->env, &r->changed, &r->mutex, ENV_FOREVER);
	env_mutex_unlock(r->env, &r->mutex);
}

int reactor_add(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	(void)r;
	(void)f;
	(void)events;
	return -ENOTSUP;
}

int reactor_change(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	return reactor_add(r, f, events);
}

void reactor_remove(struct reactor *r, struct reactor_fd *f)
{
	(void)r;
	(void)f;
}

void reactor_poller_add(struct reactor *r, struct reactor_poller *p)
{
	(void)r;
	(void)p;
}

void reactor_poller_remove(struct reactor *r, struct reactor_poller *p)
{
	(void)r;
	(void)p;
}

void reactor_at_end(struct reactor *r, struct reactor_end *e)
{
	reactor_ends_add(&r->ends, e);
}

void reactor_at_next_end(struct reactor *r, struct reactor_end *e)
{
	reactor_ends_add_next(&r->ends, e);
}

void reactor_end_cancel(struct reactor *r, struct reactor_end *e)
{
	(void)r;
	reactor_ends_cancel(e);
}

void reactor_timer_set(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	int slot = -1;

	t->deadline_ns = deadline_ns;
	for (int i = 0; i < FAKE_TIMERS; i++) {
		if (r->timers[i] == t)
			return;
		if (!r->timers[i])
			slot = i;
	}
	assert(slot >= 0);
	r->timers[slot] = t;
	t->heap_index = 1;
}

void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	for (int i = 0; i < FAKE_TIMERS; i++)
		if (r->timers[i] == t)
			r->timers[i] = NULL;
	t->heap_index = 0;
}

uint64_t reactor_now_ns(const struct reactor *r)
{
	return env_now_ns(r->env);
}

#endif
