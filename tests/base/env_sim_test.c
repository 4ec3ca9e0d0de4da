// SPDX-License-Identifier: Apache-2.0
#include "base/env_sim.h"

#include <errno.h>
#include <unistd.h>

#include "tests/unit.h"

#define SEC	NSEC_PER_SEC
#define MSEC	NSEC_PER_MSEC

/* What the threads of a test did, in order. */
struct trace {
	struct sim *sim;
	struct env *env, *env2;
	struct env_mutex mutex;
	struct env_cond cond;
	bool flag;
	uint64_t woke_ns;
	unsigned int count;
	char text[256];
};

static void trace_add(struct trace *t, char c)
{
	if (t->count < sizeof(t->text) - 1)
		t->text[t->count++] = c;
}

static void trace_begin(struct trace *t, uint64_t seed)
{
	memset(t, 0, sizeof(*t));
	t->sim = sim_new(seed);
	t->env = sim_host(t->sim, "alpha");
	t->env2 = sim_host(t->sim, "beta");
	env_mutex_init(t->env, &t->mutex);
	env_cond_init(t->env, &t->cond);
}

static struct env_thread *start(struct trace *t, struct env *env, void (*fn)(void *arg))
{
	struct env_thread *thread = NULL;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(env, "worker", fn, t, &thread), 0);
	return thread;
}

static void wanderer(void *arg)
{
	struct trace *t = arg;
	char me = (char)('a' + t->count++ % 26);

	t->text[t->count - 1] = me;
	for (int i = 0; i < 10; i++) {
		env_sleep_until(t->env, env_now_ns(t->env) + env_random_below(t->env, 3) * MSEC);
		env_mutex_lock(t->env, &t->mutex);
		trace_add(t, me);
		env_mutex_unlock(t->env, &t->mutex);
	}
}

static void wander(uint64_t seed, char text[256])
{
	struct env_thread *threads[8];
	struct trace t;

	trace_begin(&t, seed);
	for (int i = 0; i < 8; i++)
		threads[i] = start(&t, t.env, wanderer);
	CU_ASSERT_TRUE(sim_run(t.sim, SEC));
	for (int i = 0; i < 8; i++)
		env_thread_join(t.env, threads[i]);
	CU_ASSERT_EQUAL(t.count, 88);
	memcpy(text, t.text, sizeof(t.text));
	sim_free(t.sim);
}

/* A seed that fails could not be replayed, and no failure explained. */
static void same_seed_gives_the_same_order(void)
{
	char first[256], again[256], other[256];

	wander(1, first);
	wander(1, again);
	wander(2, other);
	CU_ASSERT_STRING_EQUAL(first, again);
	CU_ASSERT_STRING_NOT_EQUAL(first, other);
}

static void sleeper(void *arg)
{
	struct trace *t = arg;

	env_sleep_until(t->env, env_now_ns(t->env) + 3600 * SEC);
	t->woke_ns = sim_now_ns(t->sim);
}

/* Leases take seconds; tests of them must not. */
static void time_jumps_to_the_next_deadline(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	thread = start(&t, t.env, sleeper);
	CU_ASSERT_FALSE(sim_run(t.sim, SEC));	/* not done by then */
	CU_ASSERT_EQUAL(sim_now_ns(t.sim), SEC);
	CU_ASSERT_TRUE(sim_run(t.sim, 7200 * SEC));
	CU_ASSERT_EQUAL(t.woke_ns, 3600 * SEC);
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

static void mutex_user(void *arg)
{
	struct trace *t = arg;

	for (int i = 0; i < 5; i++) {
		env_mutex_lock(t->env, &t->mutex);
		CU_ASSERT_FALSE(t->flag);
		t->flag = true;
		env_sleep_until(t->env, env_now_ns(t->env) + MSEC);
		t->flag = false;
		t->count++;
		env_mutex_unlock(t->env, &t->mutex);
	}
}

/* A mutex is held across waits, where other threads do run. */
static void mutex_excludes_others_while_its_holder_waits(void)
{
	struct env_thread *threads[4];
	struct trace t;

	trace_begin(&t, 1);
	sim_preempt(t.sim, 300);
	for (int i = 0; i < 4; i++)
		threads[i] = start(&t, t.env, mutex_user);
	CU_ASSERT_TRUE(sim_run(t.sim, SEC));
	CU_ASSERT_EQUAL(t.count, 20);
	CU_ASSERT_EQUAL(sim_now_ns(t.sim), 20 * MSEC);
	for (int i = 0; i < 4; i++)
		env_thread_join(t.env, threads[i]);
	env_mutex_fini(t.env, &t.mutex);
	sim_free(t.sim);
}

static void cond_waiter(void *arg)
{
	struct trace *t = arg;

	env_mutex_lock(t->env, &t->mutex);
	while (!t->flag)
		CU_ASSERT_TRUE(env_cond_wait(t->env, &t->cond, &t->mutex, ENV_FOREVER));
	t->count++;
	env_mutex_unlock(t->env, &t->mutex);
}

static void cond_caller(void *arg)
{
	struct trace *t = arg;

	env_sleep_until(t->env, 5 * MSEC);
	env_mutex_lock(t->env, &t->mutex);
	t->flag = true;
	env_cond_broadcast(t->env, &t->cond);
	env_mutex_unlock(t->env, &t->mutex);
}

/* Completion of I/O is a broadcast: a waiter left asleep would hang the host. */
static void broadcast_wakes_every_waiter(void)
{
	struct env_thread *threads[5];
	struct trace t;

	trace_begin(&t, 3);
	for (int i = 0; i < 4; i++)
		threads[i] = start(&t, t.env, cond_waiter);
	threads[4] = start(&t, t.env, cond_caller);
	CU_ASSERT_TRUE(sim_run(t.sim, SEC));
	CU_ASSERT_EQUAL(t.count, 4);
	for (int i = 0; i < 5; i++)
		env_thread_join(t.env, threads[i]);
	sim_free(t.sim);
}

static void cond_impatient(void *arg)
{
	struct trace *t = arg;

	env_mutex_lock(t->env, &t->mutex);
	t->flag = env_cond_wait(t->env, &t->cond, &t->mutex, env_now_ns(t->env) + SEC);
	t->woke_ns = sim_now_ns(t->sim);
	env_mutex_unlock(t->env, &t->mutex);
}

static void wait_ends_at_its_deadline(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	t.flag = true;
	thread = start(&t, t.env, cond_impatient);
	CU_ASSERT_TRUE(sim_run(t.sim, 2 * SEC));
	CU_ASSERT_FALSE(t.flag);
	CU_ASSERT_EQUAL(t.woke_ns, SEC);
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

/* Clocks differ by 200 ppm on real machines; the margin of a lease must cover that. */
static void deadline_follows_the_drifting_clock(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	sim_host_drift(t.env, 500000);	/* half as fast again */
	thread = start(&t, t.env, cond_impatient);
	CU_ASSERT_FALSE(sim_run(t.sim, SEC / 3));	/* half of the local second */
	CU_ASSERT_EQUAL(env_now_ns(t.env), SEC / 3 + SEC / 6);
	sim_host_drift(t.env, -500000);	/* the other half now takes a true second */
	CU_ASSERT_TRUE(sim_run(t.sim, 2 * SEC));
	CU_ASSERT_TRUE(t.woke_ns >= SEC + SEC / 3 && t.woke_ns <= SEC + SEC / 3 + 4);
	CU_ASSERT_EQUAL(env_now_ns(t.env2), sim_now_ns(t.sim));
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

/* A restored snapshot shows in real time only (R2). */
static void jump_moves_real_time_alone(void)
{
	uint64_t real;
	struct trace t;

	trace_begin(&t, 1);
	real = env_realtime_ns(t.env);
	sim_host_jump(t.env, 7 * SEC);
	CU_ASSERT_EQUAL(env_realtime_ns(t.env), real + 7 * SEC);
	CU_ASSERT_EQUAL(env_realtime_ns(t.env2), real);
	CU_ASSERT_EQUAL(env_now_ns(t.env), 0);
	sim_free(t.sim);
}

static void freeze_alpha(void *arg)
{
	struct trace *t = arg;

	sim_host_freeze(t->env, 9 * SEC);
}

static void interrupted(void *arg)
{
	struct trace *t = arg;

	trace_add(t, 'i');
	CU_ASSERT_EQUAL(sim_now_ns(t->sim), 9 * SEC);
}

static void interrupt_alpha(void *arg)
{
	struct trace *t = arg;

	sim_interrupt(t->env, interrupted, t);
}

/* A suspended host misses its deadline and finds its lease lapsed: not even interrupts run. */
static void frozen_host_stands_still(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	sim_at(t.sim, SEC / 2, freeze_alpha, &t);
	sim_at(t.sim, 2 * SEC, interrupt_alpha, &t);
	thread = start(&t, t.env, cond_impatient);	/* to wake after one second */
	CU_ASSERT_TRUE(sim_run(t.sim, 20 * SEC));
	CU_ASSERT_EQUAL(t.woke_ns, 9 * SEC);
	CU_ASSERT_STRING_EQUAL(t.text, "i");
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

static void event_a(void *arg)
{
	trace_add(arg, 'a');
}

static void event_b(void *arg)
{
	trace_add(arg, 'b');
}

static void event_c(void *arg)
{
	trace_add(arg, 'c');
}

static void second_sleeper(void *arg)
{
	struct trace *t = arg;

	env_sleep_until(t->env, SEC);
}

/* Commands of one moment are applied in the order of submission, in every run. */
static void events_come_by_time_then_by_insertion(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	sim_at(t.sim, 20, event_c, &t);
	sim_at(t.sim, 10, event_a, &t);
	for (int i = 0; i < 20; i++)
		sim_at(t.sim, 20, i % 2 ? event_a : event_b, &t);
	sim_cancel(t.sim, event_a, &t);
	sim_at(t.sim, 15, event_a, &t);
	thread = start(&t, t.env, second_sleeper);
	CU_ASSERT_TRUE(sim_run(t.sim, 2 * SEC));
	CU_ASSERT_STRING_EQUAL(t.text, "acbbbbbbbbbb");
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

static void set_flag(void *arg)
{
	struct trace *t = arg;

	env_mutex_lock(t->env, &t->mutex);
	t->flag = true;
	env_cond_broadcast(t->env, &t->cond);
	env_mutex_unlock(t->env, &t->mutex);
}

static void long_holder(void *arg)
{
	struct trace *t = arg;

	env_mutex_lock(t->env, &t->mutex);
	env_sleep_until(t->env, SEC);
	env_mutex_unlock(t->env, &t->mutex);
}

/* A device completes while a thread that sleeps holds the mutex that done() wants. */
static void event_may_wait_for_a_mutex(void)
{
	struct env_thread *holder, *waiter;
	struct trace t;

	trace_begin(&t, 1);
	holder = start(&t, t.env, long_holder);
	CU_ASSERT_FALSE(sim_run(t.sim, MSEC));
	waiter = start(&t, t.env, cond_waiter);
	sim_at(t.sim, 2 * MSEC, set_flag, &t);
	CU_ASSERT_TRUE(sim_run(t.sim, 2 * SEC));
	CU_ASSERT_EQUAL(t.count, 1);
	CU_ASSERT_EQUAL(sim_now_ns(t.sim), SEC);
	env_thread_join(t.env, holder);
	env_thread_join(t.env, waiter);
	sim_free(t.sim);
}

static void crash_alpha(void *arg)
{
	struct trace *t = arg;

	sim_host_crash(t->env);
}

static void crash_itself(void *arg)
{
	struct trace *t = arg;

	trace_add(t, 'x');
	sim_host_crash(t->env);
	trace_add(t, 'y');
}

static void beta_sleeper(void *arg)
{
	struct trace *t = arg;

	env_sleep_until(t->env2, 8 * SEC);
	trace_add(t, 'z');
}

/* A crashed host does nothing any more, and holds up nobody. */
static void crashed_host_never_runs_again(void)
{
	struct env_thread *thread, *dead;
	struct trace t;

	trace_begin(&t, 1);
	start(&t, t.env, long_holder);	/* dies with the mutex in hand */
	start(&t, t.env, mutex_user);
	start(&t, t.env, sleeper);
	thread = start(&t, t.env2, beta_sleeper);
	sim_at(t.sim, 100 * MSEC, crash_alpha, &t);
	sim_at(t.sim, 200 * MSEC, interrupt_alpha, &t);
	CU_ASSERT_TRUE(sim_run(t.sim, 7200 * SEC));
	CU_ASSERT_TRUE(sim_host_crashed(t.env));
	CU_ASSERT_FALSE(sim_host_crashed(t.env2));
	CU_ASSERT_EQUAL(t.woke_ns, 0);
	CU_ASSERT_STRING_EQUAL(t.text, "z");
	CU_ASSERT_EQUAL(env_thread_start(t.env, "late", sleeper, &t, &dead), -EAGAIN);
	env_thread_join(t.env2, thread);
	sim_free(t.sim);
}

/* The fault injector strikes inside the victim's own call. */
static void host_may_crash_itself(void)
{
	struct trace t;

	trace_begin(&t, 1);
	start(&t, t.env, crash_itself);
	start(&t, t.env, sleeper);
	CU_ASSERT_TRUE(sim_run(t.sim, 10 * SEC));
	CU_ASSERT_STRING_EQUAL(t.text, "x");
	sim_free(t.sim);
}

/* Runs the world with stderr in a file, whose first bytes come back in @text. */
static bool run_and_read_stderr(struct sim *sim, char *text, size_t size)
{
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);
	bool ended;
	size_t n;

	CU_ASSERT_TRUE_FATAL(file && saved >= 0);
	fflush(stderr);
	dup2(fileno(file), STDERR_FILENO);
	ended = sim_run(sim, 10 * SEC);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	n = fread(text, 1, size - 1, file);
	text[n] = '\0';
	fclose(file);
	return ended;
}

/* A deadlock in the code under test must show as such, not as a test that hangs. */
static void deadlock_is_reported(void)
{
	char text[512];
	struct trace t;

	trace_begin(&t, 1);
	start(&t, t.env, cond_waiter);
	CU_ASSERT_FALSE(run_and_read_stderr(t.sim, text, sizeof(text)));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "deadlock"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "alpha/worker waits for condition"));
	CU_ASSERT_EQUAL(sim_now_ns(t.sim), 0);
	sim_host_crash(t.env);
	sim_free(t.sim);
}

static void parent(void *arg)
{
	struct trace *t = arg;
	struct env_thread *child = start(t, t->env, second_sleeper);

	env_thread_join(t->env, child);
	trace_add(t, 'p');
	child = start(t, t->env, event_a);
	env_sleep_until(t->env, 2 * SEC);
	env_thread_join(t->env, child);	/* ended long ago */
	trace_add(t, 'q');
}

static void join_waits_for_the_thread(void)
{
	struct env_thread *thread;
	struct trace t;

	trace_begin(&t, 1);
	thread = start(&t, t.env, parent);
	CU_ASSERT_TRUE(sim_run(t.sim, 3 * SEC));
	CU_ASSERT_STRING_EQUAL(t.text, "paq");
	env_thread_join(t.env, thread);
	sim_free(t.sim);
}

static void log_line(void *arg, enum log_level level, const char *line)
{
	struct trace *t = arg;

	CU_ASSERT_EQUAL(level, LOG_LEVEL_WARNING);
	CU_ASSERT_STRING_EQUAL(line, "ds1: 7 things");
	t->count++;
}

/* Tests read the log: one fault, one line (R6). */
static void log_lines_reach_the_test(void)
{
	struct trace t;

	trace_begin(&t, 1);
	log_error(t.env, "ds1", "unheard");
	sim_host_log(t.env, log_line, &t);
	log_warning(t.env, "ds1", "%d things", 7);
	log_error(t.env2, "ds1", "of another host");
	CU_ASSERT_EQUAL(t.count, 1);
	sim_free(t.sim);
}

UNIT_MAIN("env_sim",
	UNIT_TEST(same_seed_gives_the_same_order),
	UNIT_TEST(time_jumps_to_the_next_deadline),
	UNIT_TEST(mutex_excludes_others_while_its_holder_waits),
	UNIT_TEST(broadcast_wakes_every_waiter),
	UNIT_TEST(wait_ends_at_its_deadline),
	UNIT_TEST(deadline_follows_the_drifting_clock),
	UNIT_TEST(jump_moves_real_time_alone),
	UNIT_TEST(frozen_host_stands_still),
	UNIT_TEST(events_come_by_time_then_by_insertion),
	UNIT_TEST(event_may_wait_for_a_mutex),
	UNIT_TEST(crashed_host_never_runs_again),
	UNIT_TEST(host_may_crash_itself),
	UNIT_TEST(deadlock_is_reported),
	UNIT_TEST(join_waits_for_the_thread),
	UNIT_TEST(log_lines_reach_the_test));
