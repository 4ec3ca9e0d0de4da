/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors without threads, for one test program: base/reactor.h on poll() and a clock that
 * the test sets.  Include it in one source file; the program then does not link the real one.
 */
#ifndef LUNFS_TESTS_POLL_REACTOR_H
#define LUNFS_TESTS_POLL_REACTOR_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/reactor_ends.h"

enum { FAKE_FDS_MAX = 512, FAKE_TIMERS_MAX = 512, FAKE_REACTORS_MAX = 4 };

struct reactor {
	uint64_t	now_ns;
	struct reactor_call *first, **last;
	struct reactor_ends ends;
	struct reactor_fd *fds[FAKE_FDS_MAX];
	unsigned int	fd_count;
	struct reactor_timer *timers[FAKE_TIMERS_MAX + 1];
};

static struct reactor fake_reactors[FAKE_REACTORS_MAX];
static unsigned int fake_reactor_count;
static struct reactor *fake_current;

static inline struct reactor *fake_reactor(void)
{
	struct reactor *r = &fake_reactors[fake_reactor_count++];

	assert(fake_reactor_count <= FAKE_REACTORS_MAX);
	memset(r, 0, sizeof(*r));
	r->now_ns = NSEC_PER_SEC;
	r->last = &r->first;
	reactor_ends_init(&r->ends);
	return r;
}

struct reactor *reactor_current(void)
{
	return fake_current;
}

uint64_t reactor_now_ns(const struct reactor *r)
{
	return r->now_ns;
}

void reactor_post(struct reactor *r, struct reactor_call *call)
{
	if (atomic_exchange(&call->queued, true))
		return;
	call->next = NULL;
	*r->last = call;
	r->last = &call->next;
}

int reactor_add(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	assert(!f->added && r->fd_count < FAKE_FDS_MAX);
	f->added = true;
	f->events = events;
	r->fds[r->fd_count++] = f;
	return 0;
}

int reactor_change(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	(void)r;
	assert(f->added);
	f->events = events;
	return 0;
}

void reactor_remove(struct reactor *r, struct reactor_fd *f)
{
	unsigned int i;

	if (!f->added)
		return;
	for (i = 0; i < r->fd_count; i++)
		if (r->fds[i] == f)
			break;
	assert(i < r->fd_count);
	r->fds[i] = r->fds[--r->fd_count];
	f->added = false;
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

void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	if (t->heap_index)
		r->timers[t->heap_index] = NULL;
	t->heap_index = 0;
}

void reactor_timer_set(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	unsigned int i = 1;

	reactor_timer_cancel(r, t);
	while (r->timers[i])
		i++;
	assert(i <= FAKE_TIMERS_MAX);
	r->timers[i] = t;
	t->heap_index = i;
	t->deadline_ns = deadline_ns;
}

static inline bool fake_run_posted(struct reactor *r)
{
	struct reactor_call *call = r->first, *next;
	bool found = call != NULL;

	r->first = NULL;
	r->last = &r->first;
	for (; call; call = next) {
		next = call->next;
		atomic_store(&call->queued, false);
		call->fn(call);
	}
	return found;
}

/* Only input or room that is there now; a descriptor with no events still reports its end. */
static inline bool fake_run_fds(struct reactor *r)
{
	unsigned int i;

	for (i = 0; i < r->fd_count; i++) {
		struct reactor_fd *f = r->fds[i];
		struct pollfd p = { .fd = f->fd, .events = (short)(f->events & 0xff) };
		uint32_t events;

		if (poll(&p, 1, 0) <= 0)
			continue;
		events = (uint32_t)p.revents & (f->events | EPOLLERR | EPOLLHUP);
		if (!events)
			continue;
		f->ready(f, events);
		return true;
	}
	return false;
}

static inline bool fake_run_timers(struct reactor *r)
{
	unsigned int i;

	for (i = 1; i <= FAKE_TIMERS_MAX; i++) {
		struct reactor_timer *t = r->timers[i];

		if (!t || t->deadline_ns > r->now_ns)
			continue;
		reactor_timer_cancel(r, t);
		t->fn(t);
		return true;
	}
	return false;
}

/* Rounds of all reactors until none has anything to do. */
static inline void fake_run(void)
{
	unsigned int i, rounds = 0;
	bool found = true;

	while (found) {
		found = false;
		for (i = 0; i < fake_reactor_count; i++) {
			fake_current = &fake_reactors[i];
			found |= fake_run_posted(fake_current);
			found |= fake_run_fds(fake_current);
			found |= fake_run_timers(fake_current);
			found |= reactor_ends_run(&fake_current->ends) > 0;
		}
		assert(++rounds < 1000000);	/* somebody spins */
	}
	fake_current = NULL;
}

static inline void fake_advance(uint64_t ns)
{
	unsigned int i;

	for (i = 0; i < fake_reactor_count; i++)
		fake_reactors[i].now_ns += ns;
	fake_run();
}

void reactor_call_sync(struct reactor *r, void (*fn)(void *arg), void *arg)
{
	fake_current = r;
	fn(arg);
	fake_current = NULL;
	fake_run();
}

#endif
