/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going to sleep without missing anything:
 *
 *   posted calls  the reactor sets "asleep", then looks for posted calls once more; a poster
 *                 queues its call, then looks at "asleep".  One of the two sees the other.
 *   pollers       arm() switches notifications on, then looks for work once more.
 *   descriptors   epoll remembers.
 */
#include "base/reactor.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/polling.h"
#include "base/reactor_ends.h"

#define EVENTS_MAX	64
#define EPOLL_NS	(50 * 1000ULL)	/* how long a busy reactor leaves descriptors alone */
#define READY_NS	NSEC_PER_MSEC	/* how long one that only polls does not, once one was ready */
#define SLEEP_NS_MAX	NSEC_PER_SEC	/* with timers: suspend stops the kernel's sleep clock */

struct reactor {
	struct env	*env;
	struct env_thread *thread;
	int		epoll_fd;
	int		wake_fd;
	_Atomic(struct reactor_call *) posted;	/* the latest first */
	atomic_bool	asleep;
	_Atomic uint64_t rounds;
	_Atomic uint64_t sleeps;
	_Atomic uint64_t wakes;

	/* The thread's own from here on. */
	uint64_t	now_ns;
	uint64_t	work_ns;	/* when work was last found */
	uint64_t	epoll_ns;	/* when the descriptors were last looked at … */
	uint64_t	ready_ns;	/* … and when one of them was ready */
	struct polling	polling;
	bool		armed;		/* the pollers are */
	bool		stopping;
	struct list	pollers;
	struct reactor_poller *poller_next;	/* of the walk under way */
	struct reactor_ends ends;
	struct epoll_event events[EVENTS_MAX];
	unsigned int	event_count;	/* still to be handled: from event_index on */
	unsigned int	event_index;
	unsigned int	fd_count;
	struct reactor_timer **timers;	/* a heap, from index 1 */
	unsigned int	timer_count;
	unsigned int	timer_max;
};

static _Thread_local struct reactor *current;

struct reactor *reactor_current(void)
{
	return current;
}

uint64_t reactor_now_ns(const struct reactor *r)
{
	return r->now_ns;
}

void reactor_stats(struct reactor *r, struct reactor_stats *stats)
{
	stats->rounds = atomic_load_explicit(&r->rounds, memory_order_relaxed);
	stats->sleeps = atomic_load_explicit(&r->sleeps, memory_order_relaxed);
	stats->wakes = atomic_load_explicit(&r->wakes, memory_order_relaxed);
	stats->asleep = atomic_load(&r->asleep);
}

/* A counter that one thread raises and others read: no locked instruction. */
static void count_up(_Atomic uint64_t *counter)
{
	uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, n + 1, memory_order_relaxed);
}

/* ---- posted calls ---- */

void reactor_post(struct reactor *r, struct reactor_call *call)
{
	struct reactor_call *head;
	uint64_t one = 1;

	if (atomic_exchange(&call->queued, true))
		return;
	head = atomic_load_explicit(&r->posted, memory_order_relaxed);
	do {
		call->next = head;
	} while (!atomic_compare_exchange_weak(&r->posted, &head, call));
	/* Sequentially consistent, as is the reactor's side: see the top. */
	if (!atomic_load(&r->asleep) || !atomic_exchange(&r->asleep, false))
		return;
	/* The eventfd is never read, so it could at most be full: then it is readable. */
	if (write(r->wake_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		atomic_fetch_add_explicit(&r->wakes, 1, memory_order_relaxed);
}

static unsigned int run_posted(struct reactor *r)
{
	struct reactor_call *call, *next, *first = NULL;
	unsigned int count = 0;

	if (!atomic_load_explicit(&r->posted, memory_order_relaxed))
		return 0;
	call = atomic_exchange(&r->posted, NULL);
	for (; call; call = next) {
		next = call->next;
		call->next = first;
		first = call;
	}
	for (call = first; call; call = next) {
		next = call->next;
		atomic_store(&call->queued, false);
		call->fn(call);	/* may free it */
		count++;
	}
	return count;
}

struct sync_call {
	struct reactor_call call;
	struct env	*env;
	struct env_mutex mutex;
	struct env_cond	changed;
	void		(*fn)(void *arg);
	void		*arg;
	bool		done;
};

static void sync_call_run(struct reactor_call *call)
{
	struct sync_call *s = container_of(call, struct sync_call, call);

	s->fn(s->arg);
	env_mutex_lock(s->env, &s->mutex);
	s->done = true;
	env_cond_broadcast(s->env, &s->changed);
	env_mutex_unlock(s->env, &s->mutex);
}

void reactor_call_sync(struct reactor *r, void (*fn)(void *arg), void *arg)
{
	struct sync_call s = { .call = { .fn = sync_call_run }, .env = r->env, .fn = fn,
			       .arg = arg };

	assert(current != r);
	env_mutex_init(r->env, &s.mutex);
	env_cond_init(r->env, &s.changed);
	reactor_post(r, &s.call);
	env_mutex_lock(r->env, &s.mutex);
	while (!s.done)
		env_cond_wait(r->env, &s.changed, &s.mutex, ENV_FOREVER);
	env_mutex_unlock(r->env, &s.mutex);
	env_cond_fini(r->env, &s.changed);
	env_mutex_fini(r->env, &s.mutex);
}

/* ---- descriptors ---- */

int reactor_add(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	assert(!f->added);
	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, f->fd, &ev))
		return -errno;
	f->added = true;
	f->events = events;
	r->fd_count++;
	return 0;
}

int reactor_change(struct reactor *r, struct reactor_fd *f, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	if (f->events == events)
		return 0;
	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, f->fd, &ev))
		return -errno;
	f->events = events;
	return 0;
}

void reactor_remove(struct reactor *r, struct reactor_fd *f)
{
	unsigned int i;

	if (!f->added)
		return;
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL);
	f->added = false;
	r->fd_count--;
	/* What epoll_wait() has returned of it must not be handled any more. */
	for (i = r->event_index; i < r->event_count; i++)
		if (r->events[i].data.ptr == f)
			r->events[i].data.ptr = NULL;
}

/* Handles what epoll_wait() returned; the wake-up descriptor counts as nothing found. */
static unsigned int run_events(struct reactor *r, int count)
{
	unsigned int handled = 0;

	r->event_count = count > 0 ? (unsigned int)count : 0;
	r->event_index = 0;
	while (r->event_index < r->event_count) {
		struct epoll_event *ev = &r->events[r->event_index++];
		struct reactor_fd *f = ev->data.ptr;

		if (!f)
			continue;
		f->ready(f, ev->events);
		handled++;
	}
	if (handled)
		r->ready_ns = r->now_ns;
	r->event_count = 0;
	r->event_index = 0;
	return handled;
}

static unsigned int look_at_descriptors(struct reactor *r)
{
	r->epoll_ns = r->now_ns;
	if (!r->fd_count)
		return 0;
	return run_events(r, epoll_wait(r->epoll_fd, r->events, EVENTS_MAX, 0));
}

/* ---- timers: a binary heap, the earliest at index 1 ---- */

static void timer_put(struct reactor *r, struct reactor_timer *t, unsigned int i)
{
	r->timers[i] = t;
	t->heap_index = i;
}

static void timer_sift_up(struct reactor *r, struct reactor_timer *t, unsigned int i)
{
	while (i > 1 && r->timers[i / 2]->deadline_ns > t->deadline_ns) {
		timer_put(r, r->timers[i / 2], i);
		i /= 2;
	}
	timer_put(r, t, i);
}

static void timer_sift_down(struct reactor *r, struct reactor_timer *t, unsigned int i)
{
	while (2 * i <= r->timer_count) {
		unsigned int child = 2 * i;

		if (child < r->timer_count &&
		    r->timers[child + 1]->deadline_ns < r->timers[child]->deadline_ns)
			child++;
		if (r->timers[child]->deadline_ns >= t->deadline_ns)
			break;
		timer_put(r, r->timers[child], i);
		i = child;
	}
	timer_put(r, t, i);
}

void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
	unsigned int i = t->heap_index;
	struct reactor_timer *last;

	if (!i)
		return;
	t->heap_index = 0;
	last = r->timers[r->timer_count--];
	if (last == t)
		return;
	/* The last one takes its place and finds its own from there. */
	timer_put(r, last, i);
	if (i > 1 && r->timers[i / 2]->deadline_ns > last->deadline_ns)
		timer_sift_up(r, last, i);
	else
		timer_sift_down(r, last, i);
}

void reactor_timer_set(struct reactor *r, struct reactor_timer *t, uint64_t deadline_ns)
{
	reactor_timer_cancel(r, t);
	assert(r->timer_count < r->timer_max);
	t->deadline_ns = deadline_ns;
	timer_sift_up(r, t, ++r->timer_count);
}

/* Only what is due now: a timer that sets itself again for the past waits for the next round. */
static unsigned int run_timers(struct reactor *r)
{
	unsigned int due = r->timer_count;
	unsigned int count = 0;

	while (due-- && r->timer_count && r->timers[1]->deadline_ns <= r->now_ns) {
		struct reactor_timer *t = r->timers[1];

		reactor_timer_cancel(r, t);
		t->fn(t);
		count++;
	}
	return count;
}

/* ---- pollers ---- */

void reactor_poller_add(struct reactor *r, struct reactor_poller *p)
{
	list_add_tail(&r->pollers, &p->node);
}

void reactor_poller_remove(struct reactor *r, struct reactor_poller *p)
{
	if (r->poller_next == p)
		r->poller_next = list_entry(p->node.next, struct reactor_poller, node);
	list_del(&p->node);
}

/* The poller of a walk, or NULL at its end; sets the next one, which a callback may remove. */
static struct reactor_poller *poller_step(struct reactor *r, struct reactor_poller *p)
{
	if (&p->node == &r->pollers) {
		r->poller_next = NULL;
		return NULL;
	}
	r->poller_next = list_entry(p->node.next, struct reactor_poller, node);
	return p;
}

static struct reactor_poller *poller_first(struct reactor *r)
{
	return poller_step(r, list_first(&r->pollers, struct reactor_poller, node));
}

static unsigned int run_pollers(struct reactor *r)
{
	struct reactor_poller *p;
	unsigned int count = 0;

	for (p = poller_first(r); p; p = poller_step(r, r->poller_next))
		count += p->poll(p);
	return count;
}

static void disarm_pollers(struct reactor *r)
{
	struct reactor_poller *p;

	if (!r->armed)
		return;
	r->armed = false;
	for (p = poller_first(r); p; p = poller_step(r, r->poller_next))
		if (p->disarm)
			p->disarm(p);
}

/* Return: whether one of them has work after all. */
static bool arm_pollers(struct reactor *r)
{
	struct reactor_poller *p;
	bool work = false;

	r->armed = true;
	for (p = poller_first(r); p; p = poller_step(r, r->poller_next))
		if (p->arm && p->arm(p))
			work = true;
	return work;
}

/* ---- end of a round ---- */

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

/* ---- the thread ---- */

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

static int wait_for_events(struct reactor *r)
{
	struct timespec t;
	uint64_t left;

	if (!r->timer_count)
		return epoll_wait(r->epoll_fd, r->events, EVENTS_MAX, -1);
	left = r->timers[1]->deadline_ns;
	r->now_ns = env_now_ns(r->env);
	left = left > r->now_ns ? left - r->now_ns : 0;
	if (left > SLEEP_NS_MAX)
		left = SLEEP_NS_MAX;
	t.tv_sec = (time_t)(left / NSEC_PER_SEC);
	t.tv_nsec = (long)(left % NSEC_PER_SEC);
	return epoll_pwait2(r->epoll_fd, r->events, EVENTS_MAX, &t, NULL);
}

static void sleep_until_work(struct reactor *r)
{
	unsigned int found = 0;
	int ready;

	if (arm_pollers(r)) {
		disarm_pollers(r);
		r->work_ns = r->now_ns;
		return;
	}
	atomic_store(&r->asleep, true);
	if (atomic_load(&r->posted)) {
		atomic_store(&r->asleep, false);
		disarm_pollers(r);
		return;
	}
	count_up(&r->sleeps);
	ready = wait_for_events(r);
	atomic_store(&r->asleep, false);
	r->now_ns = env_now_ns(r->env);
	disarm_pollers(r);
	r->epoll_ns = r->now_ns;
	found = run_events(r, ready);
	if (found)
		r->work_ns = r->now_ns;
}

/* A system call a round is nothing to a reactor that has nothing else to do. */
static bool descriptors_are_due(const struct reactor *r, bool poll)
{
	return r->now_ns - r->epoll_ns >= EPOLL_NS || (poll && r->now_ns - r->ready_ns < READY_NS);
}

static void round_run(struct reactor *r)
{
	bool poll = false;
	unsigned int work;

	r->now_ns = env_now_ns(r->env);
	count_up(&r->rounds);
	work = run_posted(r);
	work += run_timers(r);
	work += run_pollers(r);
	if (!work && !r->stopping && !list_empty(&r->pollers))
		poll = polling_goes_on(&r->polling, r->now_ns, r->work_ns);
	/* With nothing else to do the sleep looks at them, in the same call. */
	if (descriptors_are_due(r, poll) && (work || poll || reactor_ends_pending(&r->ends)))
		work += look_at_descriptors(r);
	/* Hooks also of what ran in sleep_until_work(). */
	work += reactor_ends_run(&r->ends);
	if (work) {
		polling_found(&r->polling, r->now_ns);
		r->work_ns = r->now_ns;
		return;
	}
	if (r->stopping)
		return;
	if (poll)
		cpu_relax();
	else
		sleep_until_work(r);
}

static void reactor_main(void *arg)
{
	struct reactor *r = arg;

	current = r;
	env_posix_log_no_wait();
	r->work_ns = env_now_ns(r->env);
	while (!r->stopping || atomic_load(&r->posted) || reactor_ends_pending(&r->ends))
		round_run(r);
	current = NULL;
}

/* ---- life ---- */

static void reactor_free(struct reactor *r)
{
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	if (r->epoll_fd >= 0)
		close(r->epoll_fd);
	free(r->timers);
	free(r);
}

static int reactor_open(struct reactor *r)
{
	/* No struct reactor_fd behind it: an event of it only wakes. */
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll_fd < 0)
		return -errno;
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake_fd < 0)
		return -errno;
	return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->wake_fd, &ev) ? -errno : 0;
}

int reactor_create(struct env *env, const char *name, uint64_t poll_ns, unsigned int timer_max,
		   struct reactor **out)
{
	struct reactor *r = calloc(1, sizeof(*r));
	int err = -ENOMEM;

	if (!r)
		return err;
	r->env = env;
	r->epoll_fd = -1;
	r->wake_fd = -1;
	polling_init(&r->polling, poll_ns, env_now_ns(env));
	list_init(&r->pollers);
	reactor_ends_init(&r->ends);
	r->timer_max = timer_max;
	r->timers = calloc(timer_max + 1, sizeof(struct reactor_timer *));
	if (!r->timers)
		goto free_reactor;
	err = reactor_open(r);
	if (err)
		goto free_reactor;
	err = env_thread_start(env, name, reactor_main, r, &r->thread);
	if (err)
		goto free_reactor;
	*out = r;
	return 0;

free_reactor:
	reactor_free(r);
	return err;
}

struct stop_call {
	struct reactor_call call;
	struct reactor	*reactor;
};

static void stop_run(struct reactor_call *call)
{
	container_of(call, struct stop_call, call)->reactor->stopping = true;
}

void reactor_destroy(struct reactor *r)
{
	struct stop_call stop = { .call = { .fn = stop_run }, .reactor = r };

	if (!r)
		return;
	reactor_post(r, &stop.call);
	env_thread_join(r->env, r->thread);
	assert(list_empty(&r->pollers) && !r->fd_count && !r->timer_count);
	reactor_free(r);
}
