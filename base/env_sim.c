// SPDX-License-Identifier: Apache-2.0
/*
 * The deterministic world.
 *
 *           sim_start()            chosen by the scheduler
 *   (new) ───────────► READY ─────────────────────────────► RUNNING ──► ENDED ──► joined
 *                        ▲                                     │
 *                        └────────────── WAITING ◄─────────────┘ wait_here()
 *              sim_wake(), or the deadline passes
 *
 * The scheduler (sim_run()) first fires events that are due, in order; then runs one thread
 * chosen by the seed among those that can run; and only when none can, moves the time on.
 */
#include "base/env_sim.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/sim_fiber.h"

#define REALTIME_START_NS	(1700000000 * NSEC_PER_SEC)	/* November 2023 */
#define LOG_LINE_MAX		1024
#define NAME_SIZE		32
#define PPM			1000000

enum thread_state { READY, RUNNING, WAITING, ENDED };

struct host {
	struct env env;
	struct sim *sim;
	struct list node;		/* sim->hosts */
	char name[NAME_SIZE];
	uint64_t rng;
	/* Boot time was @drift_local_ns at true time @drift_true_ns and runs @drift_ppm fast. */
	uint64_t drift_true_ns;
	uint64_t drift_local_ns;
	int64_t drift_ppm;
	int64_t jump_ns;
	uint64_t frozen_until_ns;
	bool crashed;
	void (*log_fn)(void *arg, enum log_level level, const char *line);
	void *log_arg;
};

struct env_thread {
	struct fiber *fiber;
	struct sim *sim;
	struct host *host;		/* NULL: runs an event of the world */
	struct list node;		/* sim->threads, until it ends */
	struct list wait_node;		/* the mutex's or condition's waiters */
	char name[NAME_SIZE];
	void (*fn)(void *arg);
	void *arg;
	enum thread_state state;
	bool detached;			/* nobody joins it: interrupts and events */
	bool timed_out;
	/* While WAITING: */
	const char *wait_kind;		/* for the description of a deadlock */
	const void *wait_on;
	struct host *deadline_host;	/* whose clock the deadline is on */
	uint64_t deadline_ns;
	uint64_t wake_ns;		/* the deadline in true time */
};

struct sim_mutex {
	struct env_thread *owner;
	struct list waiters;
};
static_assert(sizeof(struct sim_mutex) <= sizeof(struct env_mutex), "fits its storage");

struct sim_cond {
	struct list waiters;
};
static_assert(sizeof(struct sim_cond) <= sizeof(struct env_cond), "fits its storage");

struct event {
	uint64_t when_ns;
	uint64_t number;		/* of insertion */
	void (*fn)(void *arg);
	void *arg;
};

struct sim {
	uint64_t now_ns;
	uint64_t schedule_rng;
	uint64_t world_rng;
	uint64_t host_seed;
	unsigned int preempt_permille;
	bool log_to_stderr;
	struct fiber *scheduler;
	struct env_thread outside;	/* owns what the caller of sim_run() locks */
	struct env_thread *current;
	struct list hosts;
	struct list threads;		/* not ended; crashed hosts' ones are on ->dead */
	struct list dead;
	struct event *events;		/* a heap: the soonest first */
	size_t event_count, event_room;
	uint64_t event_number;
	struct fiber **idle;		/* fibers whose threads have ended */
	size_t idle_count, idle_room;
};

/* splitmix64 (Steele, Lea, Flood 2014): one 64-bit word of state, good enough for choices. */
static uint64_t rng_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void *grown(void *array, size_t *room, size_t count, size_t item_size)
{
	if (count < *room)
		return array;
	*room = *room ? 2 * *room : 64;
	array = realloc(array, *room * item_size);
	if (!array)
		abort();
	return array;
}

static struct host *host_of(struct env *env)
{
	return container_of(env, struct host, env);
}

static struct env_thread *current_of(struct sim *sim)
{
	return sim->current ? sim->current : &sim->outside;
}

/* ---- clocks ---- */

static uint64_t host_now(const struct host *h)
{
	uint64_t passed = h->sim->now_ns - h->drift_true_ns;

	return h->drift_local_ns +
	       (uint64_t)((unsigned __int128)passed * (uint64_t)(PPM + h->drift_ppm) / PPM);
}

/* The first true time at which the clock of @h shows @local_ns. */
static uint64_t host_true_time(const struct host *h, uint64_t local_ns)
{
	uint64_t rate = (uint64_t)(PPM + h->drift_ppm);
	unsigned __int128 passed;

	if (local_ns == ENV_FOREVER)
		return ENV_FOREVER;
	if (local_ns <= h->drift_local_ns)
		return h->drift_true_ns;
	passed = ((unsigned __int128)(local_ns - h->drift_local_ns) * PPM + rate - 1) / rate;
	if (passed >= ENV_FOREVER - h->drift_true_ns)
		return ENV_FOREVER;
	return h->drift_true_ns + (uint64_t)passed;
}

static uint64_t sim_env_now_ns(struct env *env)
{
	return host_now(host_of(env));
}

static uint64_t sim_env_realtime_ns(struct env *env)
{
	struct host *h = host_of(env);

	return REALTIME_START_NS + host_now(h) + (uint64_t)h->jump_ns;
}

static void sim_env_random(struct env *env, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t x = rng_next(&host_of(env)->rng);
		size_t n = len < sizeof(x) ? len : sizeof(x);

		memcpy(p, &x, n);
		p += n;
		len -= n;
	}
}

/* ---- threads ---- */

static struct fiber *idle_fiber(struct sim *sim)
{
	return sim->idle_count ? sim->idle[--sim->idle_count] : fiber_new();
}

static void thread_release_fiber(struct env_thread *t)
{
	struct sim *sim = t->sim;

	sim->idle = grown(sim->idle, &sim->idle_room, sim->idle_count, sizeof(*sim->idle));
	sim->idle[sim->idle_count++] = t->fiber;
	t->fiber = NULL;
}

/* Lets @t run until it waits or ends.  On the scheduler's stack. */
static void thread_run(struct env_thread *t)
{
	struct sim *sim = t->sim;

	assert(!sim->current);
	t->state = RUNNING;
	sim->current = t;
	fiber_switch(sim->scheduler, t->fiber);
	sim->current = NULL;
	if (t->state != ENDED)
		return;
	thread_release_fiber(t);
	if (t->detached)
		free(t);
}

/* Back to the scheduler.  Returns when chosen again; a crashed host's thread never is. */
static void thread_switch_out(struct env_thread *t)
{
	fiber_switch(t->fiber, t->sim->scheduler);
}

/* The running thread waits on @wait_on until woken or @deadline_ns by the clock of @h. */
static void wait_here(struct host *h, const char *kind, const void *wait_on, uint64_t deadline_ns)
{
	struct env_thread *t = h->sim->current;

	if (!t) {
		fprintf(stderr, "sim: waiting for a %s outside every simulated thread\n", kind);
		abort();
	}
	t->state = WAITING;
	t->timed_out = false;
	t->wait_kind = kind;
	t->wait_on = wait_on;
	t->deadline_host = h;
	t->deadline_ns = deadline_ns;
	t->wake_ns = host_true_time(h, deadline_ns);
	thread_switch_out(t);
}

static void sim_wake(struct env_thread *t)
{
	assert(t->state == WAITING);
	list_del(&t->wait_node);
	t->state = READY;
}

/* Its fiber goes back to the scheduler, in thread_run(), when this returns. */
static void thread_main(void *arg)
{
	struct env_thread *t = arg, *other, *tmp;

	t->fn(t->arg);
	t->state = ENDED;
	list_del(&t->node);
	list_for_each(other, tmp, &t->sim->threads, node) {
		if (other->state == WAITING && other->wait_on == t)
			sim_wake(other);
	}
}

/* @h is NULL for the world's own events. */
static struct env_thread *thread_new(struct sim *sim, struct host *h, const char *name,
				     void (*fn)(void *arg), void *arg)
{
	struct env_thread *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->sim = sim;
	t->host = h;
	t->fn = fn;
	t->arg = arg;
	strncat(t->name, name, sizeof(t->name) - 1);
	list_init(&t->wait_node);
	list_add_tail(&sim->threads, &t->node);
	t->fiber = idle_fiber(sim);
	fiber_begin(t->fiber, thread_main, t);
	t->state = READY;
	return t;
}

static int sim_env_thread_start(struct env *env, const char *name, void (*fn)(void *arg),
				void *arg, struct env_thread **out)
{
	struct host *h = host_of(env);

	if (h->crashed)
		return -EAGAIN;
	*out = thread_new(h->sim, h, name, fn, arg);
	return 0;
}

static void sim_env_thread_join(struct env *env, struct env_thread *thread)
{
	while (thread->state != ENDED)
		wait_here(host_of(env), "thread", thread, ENV_FOREVER);
	assert(!thread->detached);
	free(thread);
}

void sim_interrupt(struct env *env, void (*fn)(void *arg), void *arg)
{
	struct host *h = host_of(env);

	if (!h->crashed)
		thread_new(h->sim, h, "interrupt", fn, arg)->detached = true;
}

/* ---- mutexes and conditions ---- */

static struct sim_mutex *mutex_of(struct env_mutex *m)
{
	return (struct sim_mutex *)m->opaque;
}

static struct sim_cond *cond_of(struct env_cond *c)
{
	return (struct sim_cond *)c->opaque;
}

static void sim_env_mutex_init(struct env *env, struct env_mutex *m)
{
	(void)env;
	mutex_of(m)->owner = NULL;
	list_init(&mutex_of(m)->waiters);
}

static void sim_env_mutex_fini(struct env *env, struct env_mutex *m)
{
	(void)env;
	assert(!mutex_of(m)->owner);
	assert(list_empty(&mutex_of(m)->waiters));
}

/* A thread switch where real threads could be preempted as well: see sim_preempt(). */
static void maybe_preempt(struct sim *sim)
{
	struct env_thread *t = sim->current;

	if (!t || !sim->preempt_permille ||
	    rng_next(&sim->schedule_rng) % 1000 >= sim->preempt_permille)
		return;
	t->state = READY;
	thread_switch_out(t);
}

static void sim_env_mutex_lock(struct env *env, struct env_mutex *m)
{
	struct host *h = host_of(env);
	struct env_thread *self = current_of(h->sim);
	struct sim_mutex *mutex = mutex_of(m);

	maybe_preempt(h->sim);
	assert(mutex->owner != self);
	if (!mutex->owner) {
		mutex->owner = self;
		return;
	}
	list_add_tail(&mutex->waiters, &self->wait_node);
	wait_here(h, "mutex", m, ENV_FOREVER);
	assert(mutex->owner == self);	/* handed over by the unlocker */
}

/* Hands the mutex to one of those who wait for it, as the seed says. */
static void sim_env_mutex_unlock(struct env *env, struct env_mutex *m)
{
	struct sim *sim = host_of(env)->sim;
	struct sim_mutex *mutex = mutex_of(m);
	struct env_thread *t, *tmp;
	uint64_t count = 0, chosen;

	assert(mutex->owner == current_of(sim));
	mutex->owner = NULL;
	list_for_each(t, tmp, &mutex->waiters, wait_node)
		count++;
	if (!count)
		return;
	chosen = rng_next(&sim->schedule_rng) % count;
	list_for_each(t, tmp, &mutex->waiters, wait_node) {
		if (chosen--)
			continue;
		mutex->owner = t;
		sim_wake(t);
		return;
	}
}

static void sim_env_cond_init(struct env *env, struct env_cond *c)
{
	(void)env;
	list_init(&cond_of(c)->waiters);
}

static void sim_env_cond_fini(struct env *env, struct env_cond *c)
{
	(void)env;
	assert(list_empty(&cond_of(c)->waiters));
}

static bool sim_env_cond_wait(struct env *env, struct env_cond *c, struct env_mutex *m,
			      uint64_t deadline_ns)
{
	struct host *h = host_of(env);
	struct env_thread *self = current_of(h->sim);
	bool timed_out;

	sim_env_mutex_unlock(env, m);
	list_add_tail(&cond_of(c)->waiters, &self->wait_node);
	wait_here(h, "condition", c, deadline_ns);
	timed_out = self->timed_out;
	sim_env_mutex_lock(env, m);
	return !timed_out;
}

static void sim_env_cond_broadcast(struct env *env, struct env_cond *c)
{
	struct env_thread *t, *tmp;

	(void)env;
	list_for_each(t, tmp, &cond_of(c)->waiters, wait_node)
		sim_wake(t);
}

/* ---- log ---- */

static void sim_env_log(struct env *env, enum log_level level, const char *object,
			const char *fmt, va_list ap)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	struct host *h = host_of(env);
	char text[LOG_LINE_MAX], line[2 * LOG_LINE_MAX];

	vsnprintf(text, sizeof(text), fmt, ap);
	snprintf(line, sizeof(line), "%.512s: %s", object, text);
	if (h->log_fn)
		h->log_fn(h->log_arg, level, line);
	if (h->sim->log_to_stderr)
		fprintf(stderr, "%12.6f %s: %s: %s\n",
			(double)h->sim->now_ns / (double)NSEC_PER_SEC, h->name, names[level],
			line);
}

static const struct env_ops sim_env_ops = {
	.now_ns = sim_env_now_ns,
	.realtime_ns = sim_env_realtime_ns,
	.random = sim_env_random,
	.mutex_init = sim_env_mutex_init,
	.mutex_fini = sim_env_mutex_fini,
	.mutex_lock = sim_env_mutex_lock,
	.mutex_unlock = sim_env_mutex_unlock,
	.cond_init = sim_env_cond_init,
	.cond_fini = sim_env_cond_fini,
	.cond_wait = sim_env_cond_wait,
	.cond_broadcast = sim_env_cond_broadcast,
	.thread_start = sim_env_thread_start,
	.thread_join = sim_env_thread_join,
	.log = sim_env_log,
};

/* ---- events ---- */

static bool event_is_sooner(const struct event *a, const struct event *b)
{
	return a->when_ns != b->when_ns ? a->when_ns < b->when_ns : a->number < b->number;
}

static void event_swap(struct event *a, struct event *b)
{
	struct event tmp = *a;

	*a = *b;
	*b = tmp;
}

static void event_sift_up(struct event *heap, size_t i)
{
	for (; i && event_is_sooner(&heap[i], &heap[(i - 1) / 2]); i = (i - 1) / 2)
		event_swap(&heap[i], &heap[(i - 1) / 2]);
}

static void event_sift_down(struct event *heap, size_t count, size_t i)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= count)
			return;
		if (child + 1 < count && event_is_sooner(&heap[child + 1], &heap[child]))
			child++;
		if (!event_is_sooner(&heap[child], &heap[i]))
			return;
		event_swap(&heap[child], &heap[i]);
		i = child;
	}
}

void sim_at(struct sim *sim, uint64_t when_ns, void (*fn)(void *arg), void *arg)
{
	sim->events = grown(sim->events, &sim->event_room, sim->event_count, sizeof(struct event));
	sim->events[sim->event_count] = (struct event){ when_ns, sim->event_number++, fn, arg };
	event_sift_up(sim->events, sim->event_count++);
}

void sim_cancel(struct sim *sim, void (*fn)(void *arg), void *arg)
{
	size_t kept = 0;

	for (size_t i = 0; i < sim->event_count; i++) {
		if (sim->events[i].fn != fn || sim->events[i].arg != arg)
			sim->events[kept++] = sim->events[i];
	}
	sim->event_count = kept;
	for (size_t i = kept / 2; i-- > 0;)
		event_sift_down(sim->events, kept, i);
}

/*
 * Fires all that is due.  Each event has a thread of its own, so that it may wait for a mutex
 * that somebody holds while waiting for this very event's successor.
 */
static void events_fire(struct sim *sim)
{
	while (sim->event_count && sim->events[0].when_ns <= sim->now_ns) {
		struct event e = sim->events[0];
		struct env_thread *t;

		sim->events[0] = sim->events[--sim->event_count];
		event_sift_down(sim->events, sim->event_count, 0);
		t = thread_new(sim, NULL, "event", e.fn, e.arg);
		t->detached = true;
		thread_run(t);
	}
}

/* ---- the scheduler ---- */

/* When @t can run: now or earlier, later, or never (ENV_FOREVER). */
static uint64_t thread_wake_time(const struct env_thread *t)
{
	uint64_t when = t->state == READY ? 0 : t->wake_ns;

	if (t->host && t->host->frozen_until_ns > when)
		when = t->host->frozen_until_ns;
	return when;
}

/* One of the threads that can run now, as the seed says; NULL if none, @next_ns is when. */
static struct env_thread *thread_choose(struct sim *sim, uint64_t *next_ns)
{
	struct env_thread *t, *tmp, *chosen = NULL;
	uint64_t count = 0;

	*next_ns = sim->event_count ? sim->events[0].when_ns : ENV_FOREVER;
	list_for_each(t, tmp, &sim->threads, node) {
		uint64_t when = thread_wake_time(t);

		if (when < *next_ns)
			*next_ns = when;
		if (when <= sim->now_ns)
			count++;
	}
	if (!count)
		return NULL;
	count = 1 + rng_next(&sim->schedule_rng) % count;
	list_for_each(t, tmp, &sim->threads, node) {
		if (thread_wake_time(t) <= sim->now_ns && --count == 0)
			chosen = t;
	}
	if (chosen->state == WAITING) {
		chosen->timed_out = true;
		sim_wake(chosen);
	}
	return chosen;
}

static void describe_threads(struct sim *sim)
{
	struct env_thread *t, *tmp;

	list_for_each(t, tmp, &sim->threads, node) {
		const struct env_thread *owner = NULL;

		fprintf(stderr, "sim:   %s/%s", t->host ? t->host->name : "world", t->name);
		if (t->state != WAITING) {
			fprintf(stderr, " can run\n");
			continue;
		}
		fprintf(stderr, " waits for %s %p", t->wait_kind, t->wait_on);
		if (!strcmp(t->wait_kind, "mutex"))
			owner = ((const struct sim_mutex *)t->wait_on)->owner;
		if (owner && owner != &sim->outside)
			fprintf(stderr, " held by %s", owner->name);
		fprintf(stderr, "\n");
	}
}

bool sim_run(struct sim *sim, uint64_t until_ns)
{
	assert(!sim->current);
	while (!list_empty(&sim->threads)) {
		struct env_thread *t;
		uint64_t next_ns;

		events_fire(sim);
		t = thread_choose(sim, &next_ns);
		if (t) {
			thread_run(t);
			continue;
		}
		if (list_empty(&sim->threads))	/* an event crashed the last host */
			break;
		if (next_ns == ENV_FOREVER) {
			fprintf(stderr, "sim: deadlock at %" PRIu64 " ns:\n", sim->now_ns);
			describe_threads(sim);
			return false;
		}
		if (next_ns > until_ns) {
			if (until_ns > sim->now_ns)
				sim->now_ns = until_ns;
			return false;
		}
		sim->now_ns = next_ns;
	}
	return true;
}

/* ---- the world and its hosts ---- */

/*
 * A world comes and goes with megabytes of buffers, thousands of times a test.  Left to itself the
 * C library asks the kernel for each and gives it back: three quarters of a test's time.
 */
static void keep_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

struct sim *sim_new(uint64_t seed)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	if (!sim)
		abort();
	keep_memory();
	/* Streams of their own: what one host draws must not move another's choices. */
	sim->schedule_rng = rng_next(&seed);
	sim->world_rng = rng_next(&seed);
	sim->host_seed = rng_next(&seed);
	sim->log_to_stderr = getenv("LUNFS_SIM_LOG") != NULL;
	sim->scheduler = fiber_new_thread();
	list_init(&sim->outside.wait_node);
	sim->outside.state = RUNNING;
	list_init(&sim->hosts);
	list_init(&sim->threads);
	list_init(&sim->dead);
	return sim;
}

void sim_free(struct sim *sim)
{
	struct env_thread *t, *next_thread;
	struct host *h, *next_host;

	if (!list_empty(&sim->threads)) {
		fprintf(stderr, "sim: the world ends under running threads:\n");
		describe_threads(sim);
		abort();
	}
	list_for_each(t, next_thread, &sim->dead, node) {
		fiber_free(t->fiber);
		free(t);
	}
	list_for_each(h, next_host, &sim->hosts, node)
		free(h);
	for (size_t i = 0; i < sim->idle_count; i++)
		fiber_free(sim->idle[i]);
	fiber_free(sim->scheduler);
	free(sim->idle);
	free(sim->events);
	free(sim);
}

struct env *sim_host(struct sim *sim, const char *name)
{
	struct host *h = calloc(1, sizeof(*h));

	if (!h)
		abort();
	h->env.ops = &sim_env_ops;
	h->sim = sim;
	h->rng = rng_next(&sim->host_seed);
	h->drift_true_ns = sim->now_ns;
	h->drift_local_ns = sim->now_ns;
	snprintf(h->name, sizeof(h->name), "%s", name);
	list_add_tail(&sim->hosts, &h->node);
	return &h->env;
}

uint64_t sim_now_ns(struct sim *sim)
{
	return sim->now_ns;
}

uint64_t sim_random(struct sim *sim)
{
	return rng_next(&sim->world_rng);
}

void sim_preempt(struct sim *sim, unsigned int permille)
{
	sim->preempt_permille = permille;
}

void sim_host_crash(struct env *env)
{
	struct host *h = host_of(env);
	struct sim *sim = h->sim;
	struct env_thread *t, *tmp, *self = NULL;

	h->crashed = true;
	fiber_leaks_are_expected();
	list_for_each(t, tmp, &sim->threads, node) {
		if (t->host != h)
			continue;
		list_del(&t->wait_node);
		list_del(&t->node);
		list_add_tail(&sim->dead, &t->node);
		if (t == sim->current)
			self = t;
	}
	if (self)
		thread_switch_out(self);	/* for ever */
}

struct env_thread *sim_current(struct env *env)
{
	return current_of(host_of(env)->sim);
}

bool sim_host_crashed(struct env *env)
{
	return host_of(env)->crashed;
}

void sim_host_freeze(struct env *env, uint64_t until_ns)
{
	struct host *h = host_of(env);
	struct env_thread *t = h->sim->current;

	h->frozen_until_ns = until_ns;
	if (t && t->host == h) {	/* it stands still in this very call */
		t->state = READY;
		thread_switch_out(t);
	}
}

void sim_host_drift(struct env *env, int64_t ppm)
{
	struct host *h = host_of(env);
	struct env_thread *t, *tmp;
	uint64_t local_ns = host_now(h);

	assert(ppm > -PPM && ppm < PPM);
	h->drift_true_ns = h->sim->now_ns;
	h->drift_local_ns = local_ns;
	h->drift_ppm = ppm;
	list_for_each(t, tmp, &h->sim->threads, node) {
		if (t->state == WAITING && t->deadline_host == h)
			t->wake_ns = host_true_time(h, t->deadline_ns);
	}
}

void sim_host_jump(struct env *env, int64_t ns)
{
	host_of(env)->jump_ns += ns;
}

void sim_host_log(struct env *env, void (*fn)(void *arg, enum log_level level, const char *line),
		  void *arg)
{
	host_of(env)->log_fn = fn;
	host_of(env)->log_arg = arg;
}
