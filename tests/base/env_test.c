// SPDX-License-Identifier: Apache-2.0
#include "base/env.h"

#include "base/env_sim.h"
#include "tests/unit.h"

#define MSEC	NSEC_PER_MSEC

struct shared {
	struct sim *sim;
	struct env *env;
	struct env_rwlock lock;
	unsigned int readers, readers_max, writers;
	unsigned int reads_after_writer_asked;
	bool writer_asked, writer_done, stop;
};

static void pause_ms(struct shared *s, uint64_t ms)
{
	env_sleep_until(s->env, env_now_ns(s->env) + ms * MSEC);
}

static void reader(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 20; i++) {
		env_rwlock_rdlock(s->env, &s->lock);
		CU_ASSERT_EQUAL(s->writers, 0);
		if (++s->readers > s->readers_max)
			s->readers_max = s->readers;
		pause_ms(s, 1 + env_random_below(s->env, 3));
		s->readers--;
		env_rwlock_rdunlock(s->env, &s->lock);
	}
}

static void writer(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 10; i++) {
		env_rwlock_wrlock(s->env, &s->lock);
		CU_ASSERT_EQUAL(s->readers, 0);
		CU_ASSERT_EQUAL(s->writers, 0);
		s->writers++;
		pause_ms(s, 1);
		s->writers--;
		env_rwlock_wrunlock(s->env, &s->lock);
		pause_ms(s, env_random_below(s->env, 4));
	}
}

static void run(struct shared *s, uint64_t seed, void (*const *fns)(void *arg), unsigned int count)
{
	struct env_thread *threads[8];

	memset(s, 0, sizeof(*s));
	s->sim = sim_new(seed);
	s->env = sim_host(s->sim, "alpha");
	env_rwlock_init(s->env, &s->lock);
	for (unsigned int i = 0; i < count; i++)
		CU_ASSERT_EQUAL_FATAL(env_thread_start(s->env, "t", fns[i], s, &threads[i]), 0);
	CU_ASSERT_TRUE_FATAL(sim_run(s->sim, 100 * NSEC_PER_SEC));
	for (unsigned int i = 0; i < count; i++)
		env_thread_join(s->env, threads[i]);
	env_rwlock_fini(s->env, &s->lock);
	sim_free(s->sim);
}

static void rwlock_admits_many_readers_or_one_writer(void)
{
	void (*const fns[])(void *arg) = { reader, reader, reader, writer, writer };

	for (uint64_t seed = 0; seed < 10; seed++) {
		struct shared s;

		run(&s, seed, fns, ARRAY_SIZE(fns));
		CU_ASSERT_EQUAL(s.readers_max, 3);
	}
}

/* Readers that always overlap: between them the lock is never free. */
static void endless_reader(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 1000 && !s->writer_done; i++) {
		env_rwlock_rdlock(s->env, &s->lock);
		s->reads_after_writer_asked += s->writer_asked && !s->writer_done;
		pause_ms(s, 2 + env_random_below(s->env, 2));
		env_rwlock_rdunlock(s->env, &s->lock);
	}
	CU_ASSERT_TRUE(s->writer_done);
}

static void late_writer(void *arg)
{
	struct shared *s = arg;

	pause_ms(s, 10);
	s->writer_asked = true;
	env_rwlock_wrlock(s->env, &s->lock);
	s->writer_done = true;
	env_rwlock_wrunlock(s->env, &s->lock);
}

/* A rename must come through under a load of lookups. */
static void writer_is_not_starved_by_readers(void)
{
	void (*const fns[])(void *arg) = {
		endless_reader, endless_reader, endless_reader, late_writer,
	};

	for (uint64_t seed = 0; seed < 10; seed++) {
		struct shared s;

		run(&s, seed, fns, ARRAY_SIZE(fns));
		CU_ASSERT_EQUAL(s.reads_after_writer_asked, 0);
	}
}

static void random_below_stays_below_and_reaches_all(void)
{
	struct sim *sim = sim_new(1);
	struct env *env = sim_host(sim, "alpha");
	unsigned int seen[7] = { 0 };

	for (int i = 0; i < 700; i++) {
		uint64_t x = env_random_below(env, 7);

		CU_ASSERT_TRUE_FATAL(x < 7);
		seen[x]++;
	}
	for (int i = 0; i < 7; i++)
		CU_ASSERT_TRUE(seen[i] > 50);
	CU_ASSERT_EQUAL(env_random_below(env, 1), 0);
	CU_ASSERT_TRUE(env_random_below(env, UINT64_MAX) < UINT64_MAX);
	sim_free(sim);
}

UNIT_MAIN("env",
	UNIT_TEST(rwlock_admits_many_readers_or_one_writer),
	UNIT_TEST(writer_is_not_starved_by_readers),
	UNIT_TEST(random_below_stays_below_and_reaches_all));
