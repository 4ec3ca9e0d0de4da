/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that serves many descriptors, timers and polled queues without ever blocking
 * for one of them: epoll when there is nothing to do, busy polling while there is.
 *
 * A round is: run what was posted, what is ready, what is due and what the pollers find;
 * then the end-of-round hooks, which submit and send as one batch what the round collected.
 * With no work for the polling time the thread sleeps in epoll_wait() and costs nothing.  It
 * sleeps at once while polling does not pay (base/polling.h).
 *
 * Everything but reactor_post() belongs to the reactor's own thread (or to before it starts).
 * Nothing here allocates after creation: what is registered is embedded in its user's struct.
 */
#ifndef LUNFS_BASE_REACTOR_H
#define LUNFS_BASE_REACTOR_H

#include <stdatomic.h>
#include <sys/epoll.h>

#include "base/env.h"

struct reactor;

/*
 * A descriptor.  ready() may remove and free its own; removing another is safe at any time.
 * With EPOLLET an eventfd is never read: ready() is called again when it is written again.
 * After ready() may have been called the reactor touches @f no more once it is removed.
 */
struct reactor_fd {
	int		fd;
	void		(*ready)(struct reactor_fd *f, uint32_t events);
	uint32_t	events;		/* EPOLLIN, EPOLLOUT, EPOLLET: what is asked for */
	bool		added;
};

/*
 * A call handed over from any thread.  Start it zeroed but for fn.  While it waits, posting
 * it again changes nothing; once fn() has begun it may be posted again, or freed.
 */
struct reactor_call {
	void		(*fn)(struct reactor_call *call);
	struct reactor_call *next;	/* the reactor's */
	atomic_bool	queued;		/* the reactor's */
};

/* Looked at in each round while the reactor is busy, and armed before it sleeps. */
struct reactor_poller {
	/* Does what there is to do; returns how much that was. */
	unsigned int	(*poll)(struct reactor_poller *p);
	/*
	 * Optional: the reactor is about to sleep; from now on events must come through a
	 * descriptor (virtqueue notifications on).  Returns true if there is work after all.
	 */
	bool		(*arm)(struct reactor_poller *p);
	/* Optional: the reactor polls again, notifications may be switched off. */
	void		(*disarm)(struct reactor_poller *p);
	struct list	node;		/* the reactor's */
};

/*
 * Called at the end of a round in which reactor_at_end() was called for it, once; start it
 * with reactor_end_init().
 */
struct reactor_end {
	void		(*fn)(struct reactor_end *e);
	struct list	node;		/* the reactor's */
	bool		queued;
};

/* Start it zeroed but for fn.  It is no longer set when fn() is called. */
struct reactor_timer {
	void		(*fn)(struct reactor_timer *t);
	uint64_t	deadline_ns;	/* of env_now_ns() */
	unsigned int	heap_index;	/* the reactor's; 0: not set */
};

/**
 * reactor_create() - a reactor and its thread, which runs until reactor_destroy().
 * @env:       threads and the clock; epoll_wait() sleeps by the kernel's.
 * @name:      at most 15 bytes, shown by ps -L.
 * @poll_ns:   how long to go on polling after the last work was found; 0: never poll.
 * @timer_max: how many timers may be set at once.
 * Return: 0 or -errno.
 */
int reactor_create(struct env *env, const char *name, uint64_t poll_ns, unsigned int timer_max,
		   struct reactor **out);

/**
 * reactor_destroy() - runs what was posted, ends the thread, frees.
 *
 * Descriptors, pollers and timers must have been removed (reactor_call_sync() does it in the
 * thread that they belong to).  Context: another thread than the reactor's; blocks.
 */
void reactor_destroy(struct reactor *r);

/** reactor_current() - the reactor whose thread this is, or NULL. */
struct reactor *reactor_current(void);

/**
 * reactor_post() - runs @call->fn soon in the reactor's thread.
 *
 * Calls run in the order in which they were posted.  Context: any thread, signal handlers
 * excepted; takes no lock, and makes a system call only if the reactor sleeps.
 */
void reactor_post(struct reactor *r, struct reactor_call *call);

/** reactor_call_sync() - runs @fn(@arg) in the reactor's thread and waits.  Not from within. */
void reactor_call_sync(struct reactor *r, void (*fn)(void *arg), void *arg);

/** reactor_add() - watches @f->fd for @events.  Return: 0 or -errno of epoll_ctl(). */
int reactor_add(struct reactor *r, struct reactor_fd *f, uint32_t events);
/** reactor_change() - other events for @f; no system call if they are the same. */
int reactor_change(struct reactor *r, struct reactor_fd *f, uint32_t events);
/** reactor_remove() - forgets @f, whose fd is still open; nothing if it was never added. */
void reactor_remove(struct reactor *r, struct reactor_fd *f);

/** reactor_poller_add() - also arms nothing: that happens before the next sleep. */
void reactor_poller_add(struct reactor *r, struct reactor_poller *p);
/** reactor_poller_remove() - any poller may be removed at any time, its own included. */
void reactor_poller_remove(struct reactor *r, struct reactor_poller *p);

static inline void reactor_end_init(struct reactor_end *e, void (*fn)(struct reactor_end *e))
{
	e->fn = fn;
	list_init(&e->node);
	e->queued = false;
}

/** reactor_at_end() - calls @e->fn at the end of this round; nothing if that is so already. */
void reactor_at_end(struct reactor *r, struct reactor_end *e);
/**
 * reactor_at_next_end() - at the end of the next round: for work that is done in portions, so that
 * others get their turn, and descriptors are looked at, between them.
 */
void reactor_at_next_end(struct reactor *r, struct reactor_end *e);
/** reactor_end_cancel() - forgets a queued hook, before what it is embedded in goes away. */
void reactor_end_cancel(struct reactor *r, struct reactor_end *e);

/** reactor_timer_set() - calls @t->fn once at or after @deadline_ns; moves a set timer. */
void reactor_timer_set(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns);
void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t);

/** reactor_now_ns() - env_now_ns() as of the beginning of this round. */
uint64_t reactor_now_ns(const struct reactor *r);

struct reactor_stats {
	uint64_t	rounds;		/* grows while the reactor works: watchdogs look at it */
	uint64_t	sleeps;		/* times that it went to sleep */
	uint64_t	wakes;		/* times that reactor_post() had to wake it */
	bool		asleep;
};

/** reactor_stats() - what it has done so far.  Context: any thread. */
void reactor_stats(struct reactor *r, struct reactor_stats *stats);

#endif
