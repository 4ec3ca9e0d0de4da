/* SPDX-License-Identifier: Apache-2.0 */
#include "base/reactor.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit.h"

/* Real threads, and a clock that only the test moves. */
static struct env_ops clock_ops;
static struct env clock_env = { .ops = &clock_ops };
static _Atomic uint64_t clock_ns;

static uint64_t clock_now_ns(struct env *env)
{
	(void)env;
	return atomic_load(&clock_ns);
}

static struct env *stopped_clock(void)
{
	clock_ops = *env_posix()->ops;
	clock_ops.now_ns = clock_now_ns;
	atomic_store(&clock_ns, NSEC_PER_SEC);
	return &clock_env;
}

static struct reactor *make(struct env *env, uint64_t poll_ns, unsigned int timer_max)
{
	struct reactor *r = NULL;

	CU_ASSERT_EQUAL_FATAL(reactor_create(env, "reactor-test", poll_ns, timer_max, &r), 0);
	return r;
}

static void wait_asleep(struct reactor *r)
{
	struct reactor_stats stats;

	do {
		sched_yield();
		reactor_stats(r, &stats);
	} while (!stats.asleep);
}

static void nothing(void *arg)
{
	(void)arg;
}

/* ---- posted calls ---- */

#define POSTERS	4
#define POSTS	20000

struct poster;

struct numbered_call {
	struct reactor_call call;
	struct poster *poster;
	unsigned int number;
};

struct poster {
	struct reactor *r;
	pthread_t thread;
	struct numbered_call *calls;
	unsigned int ran;		/* the reactor thread's */
	unsigned int disordered;
};

static void numbered_run(struct reactor_call *call)
{
	struct numbered_call *c = container_of(call, struct numbered_call, call);

	if (c->number != c->poster->ran)
		c->poster->disordered++;
	c->poster->ran++;
}

static void *poster_main(void *arg)
{
	struct poster *p = arg;

	for (unsigned int i = 0; i < POSTS; i++) {
		reactor_post(p->r, &p->calls[i].call);
		if (i % 1000 == 0)
			wait_asleep(p->r);	/* so that it is also woken */
	}
	return NULL;
}

static void calls_of_many_threads_all_run_in_their_order(void)
{
	struct reactor *r = make(env_posix(), 0, 0);
	struct poster posters[POSTERS] = { 0 };

	for (unsigned int i = 0; i < POSTERS; i++) {
		struct poster *p = &posters[i];

		p->r = r;
		p->calls = calloc(POSTS, sizeof(*p->calls));
		for (unsigned int j = 0; j < POSTS; j++) {
			p->calls[j].call.fn = numbered_run;
			p->calls[j].poster = p;
			p->calls[j].number = j;
		}
		pthread_create(&p->thread, NULL, poster_main, p);
	}
	for (unsigned int i = 0; i < POSTERS; i++)
		pthread_join(posters[i].thread, NULL);
	reactor_destroy(r);	/* runs what is still queued */
	for (unsigned int i = 0; i < POSTERS; i++) {
		CU_ASSERT_EQUAL(posters[i].ran, POSTS);
		CU_ASSERT_EQUAL(posters[i].disordered, 0);
		free(posters[i].calls);
	}
}

static unsigned int counted;

static void count_call(struct reactor_call *call)
{
	(void)call;
	counted++;
}

struct twice {
	struct reactor *r;
	struct reactor_call call;
};

static void post_twice(void *arg)
{
	struct twice *t = arg;

	reactor_post(t->r, &t->call);
	reactor_post(t->r, &t->call);
}

/* Wake-up calls are posted whenever there is a reason: a second entry would make a loop. */
static void call_that_waits_already_runs_once(void)
{
	struct twice t = { .r = make(env_posix(), 0, 0), .call = { .fn = count_call } };

	counted = 0;
	reactor_call_sync(t.r, post_twice, &t);
	reactor_call_sync(t.r, nothing, NULL);
	CU_ASSERT_EQUAL(counted, 1);
	reactor_call_sync(t.r, post_twice, &t);
	reactor_destroy(t.r);
	CU_ASSERT_EQUAL(counted, 2);
}

static void who_am_i(void *arg)
{
	*(struct reactor **)arg = reactor_current();
}

static void reactor_knows_its_thread(void)
{
	struct reactor *r = make(env_posix(), 0, 0);
	struct reactor *found = NULL;

	reactor_call_sync(r, who_am_i, &found);
	CU_ASSERT_PTR_EQUAL(found, r);
	CU_ASSERT_PTR_NULL(reactor_current());
	reactor_destroy(r);
}

/* ---- timers ---- */

#define TIMERS	200

struct timer_world {
	struct reactor *r;
	struct reactor_timer timers[TIMERS];
	uint64_t last_ns;
	atomic_uint fired;
	unsigned int early;
	unsigned int disordered;
};

static struct timer_world tw;

static void timer_fires(struct reactor_timer *t)
{
	if (t->deadline_ns > reactor_now_ns(tw.r))
		tw.early++;
	if (t->deadline_ns < tw.last_ns)
		tw.disordered++;
	tw.last_ns = t->deadline_ns;
	t->deadline_ns = 0;
	tw.fired++;
}

static void timers_set(void *arg)
{
	uint64_t x = 12345;

	(void)arg;
	/* Each is set, moved and cancelled a few times; in the end two in three are set. */
	for (unsigned int i = 0; i < TIMERS * 10; i++) {
		struct reactor_timer *t = &tw.timers[i % TIMERS];

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		t->fn = timer_fires;
		if (i % 3 == 0)
			reactor_timer_cancel(tw.r, t);
		else
			reactor_timer_set(tw.r, t, 2 * NSEC_PER_SEC + (x >> 40));
	}
}

static void timers_fire_in_order_and_not_before_time(void)
{
	unsigned int set = 0;

	tw = (struct timer_world){ .r = make(stopped_clock(), 0, TIMERS) };
	reactor_call_sync(tw.r, timers_set, NULL);
	for (unsigned int i = 0; i < TIMERS; i++)
		set += tw.timers[i].heap_index != 0;
	CU_ASSERT_TRUE(set > TIMERS / 2 && set < TIMERS);
	CU_ASSERT_EQUAL(tw.fired, 0);
	for (unsigned int step = 0; step < 40; step++) {
		atomic_store(&clock_ns, 2 * NSEC_PER_SEC + (step << 19));
		/*
		 * A call runs before the timers of its round.  The round of the first may have begun
		 * before the clock moved; the second's has not, and the third sees its timers fired.
		 */
		for (unsigned int i = 0; i < 3; i++)
			reactor_call_sync(tw.r, nothing, NULL);
		for (unsigned int i = 0; i < TIMERS; i++)
			if (tw.timers[i].heap_index)
				CU_ASSERT_TRUE(tw.timers[i].deadline_ns > atomic_load(&clock_ns));
	}
	CU_ASSERT_EQUAL(tw.fired, set);
	CU_ASSERT_EQUAL(tw.early, 0);
	CU_ASSERT_EQUAL(tw.disordered, 0);
	reactor_destroy(tw.r);
}

static void timer_of_now(void *arg)
{
	(void)arg;
	tw.timers[0].fn = timer_fires;
	reactor_timer_set(tw.r, &tw.timers[0], reactor_now_ns(tw.r) + NSEC_PER_MSEC);
}

/*
 * The kernel's clock ends the sleep, nothing else does.  Ours moves once the reactor has gone to
 * sleep: on no machine is the timer due before.
 */
static void timer_wakes_a_sleeping_reactor(void)
{
	tw = (struct timer_world){ .r = make(stopped_clock(), 0, 1) };
	reactor_call_sync(tw.r, timer_of_now, NULL);
	wait_asleep(tw.r);
	CU_ASSERT_EQUAL(tw.fired, 0);
	atomic_fetch_add(&clock_ns, NSEC_PER_MSEC);
	while (!tw.fired)
		sched_yield();
	reactor_destroy(tw.r);
	CU_ASSERT_EQUAL(tw.fired, 1);
	CU_ASSERT_EQUAL(tw.early, 0);
}

/* ---- descriptors ---- */

struct pair {
	struct reactor *r;
	struct reactor_fd *fds[2];
	atomic_uint calls;
};

static struct pair pair;

/* Whoever is first removes and frees both. */
static void pair_ready(struct reactor_fd *f, uint32_t events)
{
	(void)f;
	(void)events;
	pair.calls++;
	for (int i = 0; i < 2; i++) {
		reactor_remove(pair.r, pair.fds[i]);
		close(pair.fds[i]->fd);
		free(pair.fds[i]);
		pair.fds[i] = NULL;
	}
}

static void pair_add(void *arg)
{
	(void)arg;
	for (int i = 0; i < 2; i++) {
		pair.fds[i] = calloc(1, sizeof(struct reactor_fd));
		pair.fds[i]->ready = pair_ready;
		pair.fds[i]->fd = eventfd(1, EFD_NONBLOCK);	/* ready at once, both */
		CU_ASSERT_EQUAL(reactor_add(pair.r, pair.fds[i], EPOLLIN), 0);
	}
}

static void descriptor_removed_while_ready_is_not_called(void)
{
	pair = (struct pair){ .r = make(env_posix(), 0, 0) };
	reactor_call_sync(pair.r, pair_add, NULL);
	/* It says "asleep" a moment before it looks at them: that is not enough. */
	while (!pair.calls)
		sched_yield();
	reactor_destroy(pair.r);
	CU_ASSERT_EQUAL(pair.calls, 1);
	CU_ASSERT_PTR_NULL(pair.fds[1]);
}

static void bad_add(void *arg)
{
	struct reactor_fd f = { .fd = *(int *)arg };

	*(int *)arg = reactor_add(reactor_current(), &f, EPOLLIN);
	reactor_remove(reactor_current(), &f);
}

static void descriptor_that_cannot_be_watched_is_an_error(void)
{
	struct reactor *r = make(env_posix(), 0, 0);
	int fd = 9999;

	reactor_call_sync(r, bad_add, &fd);
	CU_ASSERT_EQUAL(fd, -EBADF);
	reactor_destroy(r);
}

/* ---- pollers ---- */

/* A queue in memory as a guest's: a producer that notifies only if it is asked to. */
struct queue {
	struct reactor *r;
	struct reactor_poller poller;
	struct reactor_fd fd;
	_Atomic uint64_t avail;
	_Atomic uint64_t used;
	atomic_bool notify;
	uint64_t disarms;
};

static unsigned int queue_poll(struct reactor_poller *p)
{
	struct queue *q = container_of(p, struct queue, poller);
	uint64_t n = atomic_load(&q->avail) - atomic_load(&q->used);

	atomic_fetch_add(&q->used, n);
	return (unsigned int)n;
}

static bool queue_arm(struct reactor_poller *p)
{
	struct queue *q = container_of(p, struct queue, poller);

	atomic_store(&q->notify, true);
	return atomic_load(&q->avail) != atomic_load(&q->used);
}

static void queue_disarm(struct reactor_poller *p)
{
	struct queue *q = container_of(p, struct queue, poller);

	atomic_store(&q->notify, false);
	q->disarms++;
}

static void queue_ready(struct reactor_fd *f, uint32_t events)
{
	(void)f;
	(void)events;	/* edge-triggered: the poller does the work */
}

static void queue_add(void *arg)
{
	struct queue *q = arg;

	q->fd = (struct reactor_fd){ .fd = eventfd(0, EFD_NONBLOCK), .ready = queue_ready };
	q->poller = (struct reactor_poller){ .poll = queue_poll, .arm = queue_arm,
					     .disarm = queue_disarm };
	CU_ASSERT_EQUAL(reactor_add(q->r, &q->fd, EPOLLIN | EPOLLET), 0);
	reactor_poller_add(q->r, &q->poller);
}

static void queue_remove(void *arg)
{
	struct queue *q = arg;

	reactor_poller_remove(q->r, &q->poller);
	reactor_remove(q->r, &q->fd);
	close(q->fd.fd);
}

static void queue_produce(struct queue *q)
{
	atomic_fetch_add(&q->avail, 1);
	if (atomic_load(&q->notify))
		CU_ASSERT_EQUAL(eventfd_write(q->fd.fd, 1), 0);
}

/*
 * Each item is put in at a moment of its own against the reactor's way to sleep, and the next
 * only after it was taken: one that is missed stops the test.  Each wants both threads to have
 * their turn, which on a machine that has other things to do takes milliseconds: then it is fewer.
 */
static void work_before_sleep_is_never_missed(void)
{
	struct queue q = { .r = make(env_posix(), 0, 0) };
	uint64_t end = env_now_ns(env_posix()) + 5 * NSEC_PER_SEC;

	reactor_call_sync(q.r, queue_add, &q);
	for (uint64_t i = 1; i <= 30000 && env_now_ns(env_posix()) < end; i++) {
		queue_produce(&q);
		while (atomic_load(&q.used) != i)
			sched_yield();
		for (volatile unsigned int spin = 0; spin < i % 700; spin++)
			;
	}
	wait_asleep(q.r);	/* at least once, so that it is also disarmed */
	reactor_call_sync(q.r, queue_remove, &q);
	reactor_destroy(q.r);
	CU_ASSERT_TRUE(q.disarms > 0);
}

/* The same moments on purpose: work, a call and an event that come while arming. */
struct late {
	struct reactor *r;
	struct reactor_poller poller;
	struct reactor_call call;
	struct reactor_fd fd;
	unsigned int step;
	unsigned int work;
	atomic_uint done;
};

static unsigned int late_poll(struct reactor_poller *p)
{
	struct late *l = container_of(p, struct late, poller);
	unsigned int n = l->work;

	l->work = 0;
	atomic_fetch_add(&l->done, n);
	return n;
}

static bool late_arm(struct reactor_poller *p)
{
	struct late *l = container_of(p, struct late, poller);

	switch (l->step++) {
	case 0:
		l->work = 1;
		return true;
	case 1:
		reactor_post(l->r, &l->call);
		return false;
	case 2:
		eventfd_write(l->fd.fd, 1);
		return false;
	default:
		return false;
	}
}

static void late_call(struct reactor_call *call)
{
	atomic_fetch_add(&container_of(call, struct late, call)->done, 10);
}

static void late_ready(struct reactor_fd *f, uint32_t events)
{
	(void)events;
	atomic_fetch_add(&container_of(f, struct late, fd)->done, 100);
}

static void late_add(void *arg)
{
	struct late *l = arg;

	l->poller = (struct reactor_poller){ .poll = late_poll, .arm = late_arm };
	l->call.fn = late_call;
	l->fd = (struct reactor_fd){ .fd = eventfd(0, EFD_NONBLOCK), .ready = late_ready };
	CU_ASSERT_EQUAL(reactor_add(l->r, &l->fd, EPOLLIN | EPOLLET), 0);
	reactor_poller_add(l->r, &l->poller);
}

static void late_remove(void *arg)
{
	struct late *l = arg;

	reactor_remove(l->r, &l->fd);
	reactor_poller_remove(l->r, &l->poller);
	close(l->fd.fd);
}

static void what_comes_while_arming_is_done_before_sleeping(void)
{
	struct late l = { .r = make(env_posix(), 0, 0) };

	reactor_call_sync(l.r, late_add, &l);
	while (atomic_load(&l.done) != 111)
		sched_yield();
	wait_asleep(l.r);
	reactor_call_sync(l.r, late_remove, &l);
	CU_ASSERT_EQUAL(atomic_load(&l.done), 111);
	reactor_destroy(l.r);
}

struct idle_poller {
	struct reactor *r;
	struct reactor_poller poller;
	atomic_uint polls;
	atomic_uint work;
	atomic_bool armed;
};

static unsigned int idle_poll(struct reactor_poller *p)
{
	struct idle_poller *ip = container_of(p, struct idle_poller, poller);

	atomic_fetch_add(&ip->polls, 1);
	return atomic_exchange(&ip->work, 0);
}

static bool idle_arm(struct reactor_poller *p)
{
	atomic_store(&container_of(p, struct idle_poller, poller)->armed, true);
	return false;
}

static void idle_disarm(struct reactor_poller *p)
{
	atomic_store(&container_of(p, struct idle_poller, poller)->armed, false);
}

static void idle_add(void *arg)
{
	struct idle_poller *ip = arg;

	ip->poller = (struct reactor_poller){ .poll = idle_poll, .arm = idle_arm,
					      .disarm = idle_disarm };
	reactor_poller_add(ip->r, &ip->poller);
}

static void idle_remove(void *arg)
{
	struct idle_poller *ip = arg;

	reactor_poller_remove(ip->r, &ip->poller);
}

static void poll_more(struct idle_poller *ip)
{
	unsigned int before = atomic_load(&ip->polls);

	while (atomic_load(&ip->polls) - before < 100)
		sched_yield();
}

static void reactor_polls_for_its_time_and_then_sleeps(void)
{
	struct idle_poller ip = { .r = make(stopped_clock(), 50000, 0) };

	reactor_call_sync(ip.r, idle_add, &ip);
	poll_more(&ip);
	CU_ASSERT_FALSE(atomic_load(&ip.armed));
	atomic_fetch_add(&clock_ns, 49999);
	poll_more(&ip);
	CU_ASSERT_FALSE(atomic_load(&ip.armed));
	atomic_fetch_add(&clock_ns, 1);
	wait_asleep(ip.r);
	CU_ASSERT_TRUE(atomic_load(&ip.armed));
	reactor_call_sync(ip.r, idle_remove, &ip);
	reactor_destroy(ip.r);
}

/* A guest that does one request a second must not cost polling time for each. */
static void rare_work_ends_the_polling(void)
{
	struct idle_poller ip = { .r = make(stopped_clock(), 50000, 0) };

	reactor_call_sync(ip.r, idle_add, &ip);
	for (int i = 0; i < 10; i++) {
		atomic_fetch_add(&clock_ns, 50000);
		wait_asleep(ip.r);
		atomic_fetch_add(&clock_ns, NSEC_PER_SEC);
		reactor_call_sync(ip.r, nothing, NULL);
	}
	/* The clock stands still: if it polled, it would not sleep. */
	wait_asleep(ip.r);
	reactor_call_sync(ip.r, nothing, NULL);
	/* That one came in no time at all: it polls again. */
	reactor_call_sync(ip.r, nothing, NULL);
	poll_more(&ip);
	atomic_fetch_add(&clock_ns, 50000);
	wait_asleep(ip.r);
	reactor_call_sync(ip.r, idle_remove, &ip);
	reactor_destroy(ip.r);
}

struct counted_fd {
	struct reactor_fd fd;
	struct reactor	*r;
	atomic_uint	ready;
};

static void count_ready(struct reactor_fd *f, uint32_t events)
{
	struct counted_fd *c = container_of(f, struct counted_fd, fd);
	uint64_t n;

	(void)events;
	if (read(f->fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		atomic_fetch_add(&c->ready, 1);
}

static void counted_add(void *arg)
{
	struct counted_fd *c = arg;

	CU_ASSERT_EQUAL(reactor_add(c->r, &c->fd, EPOLLIN), 0);
}

static void counted_remove(void *arg)
{
	struct counted_fd *c = arg;

	reactor_remove(c->r, &c->fd);
}

static void make_ready(struct counted_fd *c)
{
	uint64_t one = 1;

	CU_ASSERT_EQUAL(write(c->fd.fd, &one, sizeof(one)), (ssize_t)sizeof(one));
}

/* A socket's next request is worth no less than a ring's; of one that is silent nobody asks so often. */
static void polling_looks_at_descriptors_that_were_ready_just_now(void)
{
	struct idle_poller ip = { .r = make(stopped_clock(), 2 * NSEC_PER_MSEC, 0) };
	struct counted_fd c = { .fd = { .fd = eventfd(0, EFD_CLOEXEC), .ready = count_ready },
				.r = ip.r };

	reactor_call_sync(ip.r, idle_add, &ip);
	reactor_call_sync(ip.r, counted_add, &c);
	atomic_fetch_add(&clock_ns, NSEC_PER_MSEC);
	poll_more(&ip);
	make_ready(&c);
	poll_more(&ip);
	CU_ASSERT_EQUAL(atomic_load(&c.ready), 0);
	atomic_fetch_add(&clock_ns, 50000);
	poll_more(&ip);
	CU_ASSERT_EQUAL(atomic_load(&c.ready), 1);
	/* The clock stands still. */
	make_ready(&c);
	poll_more(&ip);
	CU_ASSERT_EQUAL(atomic_load(&c.ready), 2);
	atomic_fetch_add(&clock_ns, NSEC_PER_MSEC);
	poll_more(&ip);
	make_ready(&c);
	poll_more(&ip);
	CU_ASSERT_EQUAL(atomic_load(&c.ready), 2);
	CU_ASSERT_FALSE(atomic_load(&ip.armed));
	reactor_call_sync(ip.r, counted_remove, &c);
	reactor_call_sync(ip.r, idle_remove, &ip);
	reactor_destroy(ip.r);
	close(c.fd.fd);
}

/* ---- end of a round ---- */

struct ends {
	struct reactor *r;
	struct reactor_end first, second, cancelled;
	unsigned int first_ran, second_ran, cancelled_ran;
	bool work_done;
	bool too_early;
};

static void first_end(struct reactor_end *e)
{
	struct ends *s = container_of(e, struct ends, first);

	s->first_ran++;
	s->too_early |= !s->work_done;
	reactor_at_end(s->r, &s->second);
	reactor_end_cancel(s->r, &s->cancelled);
}

static void second_end(struct reactor_end *e)
{
	container_of(e, struct ends, second)->second_ran++;
}

static void cancelled_end(struct reactor_end *e)
{
	container_of(e, struct ends, cancelled)->cancelled_ran++;
}

static void ends_queue(void *arg)
{
	struct ends *s = arg;

	reactor_end_init(&s->first, first_end);
	reactor_end_init(&s->second, second_end);
	reactor_end_init(&s->cancelled, cancelled_end);
	reactor_at_end(s->r, &s->first);
	reactor_at_end(s->r, &s->cancelled);
	reactor_at_end(s->r, &s->first);
	s->work_done = true;
}

static void end_of_round_hooks_run_once_and_last(void)
{
	struct ends s = { .r = make(env_posix(), 0, 0) };

	reactor_call_sync(s.r, ends_queue, &s);
	reactor_call_sync(s.r, nothing, NULL);
	CU_ASSERT_EQUAL(s.first_ran, 1);
	CU_ASSERT_EQUAL(s.second_ran, 1);
	CU_ASSERT_EQUAL(s.cancelled_ran, 0);
	CU_ASSERT_FALSE(s.too_early);
	reactor_destroy(s.r);
}

/* Work in portions: between them descriptors and calls of others have their turn. */
struct portions {
	struct reactor *r;
	struct reactor_end end;
	struct reactor_call call;
	unsigned int left;
	uint64_t round;			/* of the last portion */
	bool same_round, call_waited;
	bool called;
};

static uint64_t round_of(struct reactor *r)
{
	struct reactor_stats stats;

	reactor_stats(r, &stats);
	return stats.rounds;
}

static void portions_called(struct reactor_call *call)
{
	container_of(call, struct portions, call)->called = true;
}

static void portion_end(struct reactor_end *e)
{
	struct portions *p = container_of(e, struct portions, end);

	if (p->round)
		p->same_round |= p->round == round_of(p->r);
	if (p->left == 8)
		reactor_post(p->r, &p->call);
	else
		p->call_waited |= !p->called;
	p->round = round_of(p->r);
	if (!--p->left)
		return;
	reactor_at_next_end(p->r, &p->end);
	reactor_at_end(p->r, &p->end);	/* it is queued: nothing */
}

static void portions_begin(void *arg)
{
	struct portions *p = arg;

	reactor_end_init(&p->end, portion_end);
	reactor_at_end(p->r, &p->end);
}

static void hooks_of_the_next_round_let_others_in_between(void)
{
	struct portions p = { .r = make(env_posix(), 0, 0), .call.fn = portions_called,
			      .left = 8 };

	reactor_call_sync(p.r, portions_begin, &p);
	reactor_destroy(p.r);	/* runs what is queued */
	CU_ASSERT_EQUAL(p.left, 0);
	CU_ASSERT_FALSE(p.same_round);
	CU_ASSERT_FALSE(p.call_waited);
}

UNIT_MAIN("base/reactor",
	  UNIT_TEST(calls_of_many_threads_all_run_in_their_order),
	  UNIT_TEST(call_that_waits_already_runs_once),
	  UNIT_TEST(reactor_knows_its_thread),
	  UNIT_TEST(timers_fire_in_order_and_not_before_time),
	  UNIT_TEST(timer_wakes_a_sleeping_reactor),
	  UNIT_TEST(descriptor_removed_while_ready_is_not_called),
	  UNIT_TEST(descriptor_that_cannot_be_watched_is_an_error),
	  UNIT_TEST(work_before_sleep_is_never_missed),
	  UNIT_TEST(what_comes_while_arming_is_done_before_sleeping),
	  UNIT_TEST(reactor_polls_for_its_time_and_then_sleeps),
	  UNIT_TEST(rare_work_ends_the_polling),
	  UNIT_TEST(polling_looks_at_descriptors_that_were_ready_just_now),
	  UNIT_TEST(end_of_round_hooks_run_once_and_last),
	  UNIT_TEST(hooks_of_the_next_round_let_others_in_between));
