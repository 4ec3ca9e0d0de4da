/* SPDX-License-Identifier: Apache-2.0 */
/* Locks between hosts: sharing, passing on, refusing, taking over.  cache.c, want.c, drop.c. */
#include "tests/lockd/lock_world.h"

#define BEAT	(1000 * MSEC)
#define NO_IO(h, statement) do {							\
	uint64_t reads_ = (h)->lock_reads, caws_ = (h)->lock_caws;			\
	statement;									\
	CU_ASSERT_EQUAL((h)->lock_reads, reads_);					\
	CU_ASSERT_EQUAL((h)->lock_caws, caws_);						\
} while (0)

/* ---- one host ---- */

static void alone_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL(h->lock_reads, 1);
	CU_ASSERT_EQUAL(h->lock_caws, 1);
	NO_IO(h, {
		for (int i = 0; i < 100; i++) {
			CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, 0, NULL), 0);
			host_put(h, 0, LOCK_SHARED, 0);
			CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
			host_put(h, 0, LOCK_EXCLUSIVE, 0);
		}
	});
	host_put(h, 0, LOCK_EXCLUSIVE, 0);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_EXCLUSIVE);
	/* Cached after the last use. */
	NO_IO(h, CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0));
}

/* The bench counts these commands; more of them, and every create would pay. */
static void acquire_is_one_read_and_one_caw_and_then_free(void)
{
	struct world *w = world_new(1, 1, 512);

	w->hosts[0].body = alone_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void same_lock_thread(void *arg)
{
	struct host *h = arg;

	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 50 * MSEC), 0);
}

static void other_lock_thread(void *arg)
{
	struct host *h = arg;
	int i = h->w->stage++;

	CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
}

static void threads_body(struct host *h)
{
	struct env_thread *t[8];
	uint64_t start_ns;

	for (int i = 0; i < 8; i++)
		env_thread_start(h->env, "user", same_lock_thread, h, &t[i]);
	for (int i = 0; i < 8; i++)
		env_thread_join(h->env, t[i]);
	CU_ASSERT_EQUAL(h->lock_reads, 1);
	CU_ASSERT_EQUAL(h->lock_caws, 1);
	h->w->stage = 1;
	start_ns = env_now_ns(h->env);
	for (int i = 0; i < 8; i++)
		env_thread_start(h->env, "user", other_lock_thread, h, &t[i]);
	for (int i = 0; i < 8; i++)
		env_thread_join(h->env, t[i]);
	CU_ASSERT_TRUE(env_now_ns(h->env) - start_ns < 2 * MSEC);
}

/* Eight creates in one directory must not take its lock eight times, nor wait for other locks. */
static void threads_share_one_acquire_and_do_not_wait_for_others(void)
{
	struct world *w = world_new(2, 1, 4096);

	w->hosts[0].body = threads_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void upgrade_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, 0, NULL), 0);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_SHARED);
	CU_ASSERT_EQUAL(lock_get(h->ld, &h->locks[0], LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_EXCLUSIVE);
	CU_ASSERT_EQUAL(h->lock_caws, 2);
	lock_put(h->ld, &h->locks[0], LOCK_EXCLUSIVE, 0);
	host_put(h, 0, LOCK_SHARED, 0);
	/* Shared and multi-writer become each other by way of free. */
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), 0);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_MULTI, 0), 0);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[1]), LOCK_MULTI);
	CU_ASSERT_EQUAL(h->forgets, 1);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), 0);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[1]), LOCK_SHARED);
}

static void only_sharer_upgrades(void)
{
	struct world *w = world_new(3, 1, 512);

	w->hosts[0].body = upgrade_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void evict_body(struct host *h)
{
	for (int i = 0; i < WORLD_LOCKS; i++)
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, 0, NULL), 0);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[0]), -EBUSY);
	host_put(h, 0, LOCK_SHARED, 0);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[0]), 0);
	CU_ASSERT_EQUAL(h->forgets, 1);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_FREE);
	CU_ASSERT_FALSE(h->locks[0].known);
	/* The rest is dropped when it was idle for long, in few batches. */
	h->settles = 0;
	host_sleep(h, 32 * SEC);
	CU_ASSERT_EQUAL(h->forgets, WORLD_LOCKS);
	CU_ASSERT_TRUE(h->settles >= 1 && h->settles <= 3);
	CU_ASSERT_EQUAL(h->ld->cache.locks.count, 0);
	/* And above the cap at once, the oldest first. */
	h->ld->cache.held_max = 4;
	for (int i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_SHARED, 0), 0);
	host_sleep(h, SEC);
	CU_ASSERT_EQUAL(h->ld->cache.locks.count, 4);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[3]), LOCK_FREE);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[4]), LOCK_SHARED);
}

/* Nothing else happens on this host: no want, no eviction, nothing that looks at its locks. */
static void nothing_happens_body(struct host *h)
{
	host_sleep(h, 10 * SEC);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	host_sleep(h, 29 * SEC);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_EXCLUSIVE);
	host_sleep(h, 2 * SEC);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_FREE);
}

/* Who takes such a lock later finds it free, and has not to wait until its holder looks. */
static void a_lock_that_is_idle_is_released_though_nothing_happens(void)
{
	struct world *w = world_new(5, 1, 512);

	w->hosts[0].body = nothing_happens_body;
	world_run(w, 120 * SEC);
	world_free(w);
}

/* Memory of an inode is freed after lock_evict(): lockd must not come back to it. */
static void evicted_idle_and_too_many_locks_are_released(void)
{
	struct world *w = world_new(4, 1, 512);

	w->hosts[0].body = evict_body;
	world_run(w, 120 * SEC);
	world_free(w);
}

/* ---- two hosts ---- */

static bool ask_unchanged(struct host *h, int i, enum lock_mode mode)
{
	bool unchanged;

	CU_ASSERT_EQUAL(host_get(h, i, mode, 0, NULL), 0);
	unchanged = lock_unchanged(h->ld, &h->locks[i]);
	host_put(h, i, mode, 0);
	return unchanged;
}

static void unchanged_body(struct host *h)
{
	struct host *beta = &h->w->hosts[1];

	CU_ASSERT_FALSE(ask_unchanged(h, 0, LOCK_SHARED));
	CU_ASSERT_TRUE(ask_unchanged(h, 0, LOCK_EXCLUSIVE));
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[0]), 0);
	/* Nobody held it since. */
	CU_ASSERT_TRUE(ask_unchanged(h, 0, LOCK_SHARED));
	h->w->stage = 1;
	world_await(h, 2);
	CU_ASSERT_FALSE(ask_unchanged(h, 0, LOCK_SHARED));
	CU_ASSERT_TRUE(ask_unchanged(h, 0, LOCK_SHARED));
	/* Others write beside us, and go on when we have left. */
	CU_ASSERT_FALSE(ask_unchanged(h, 1, LOCK_MULTI));
	CU_ASSERT_FALSE(ask_unchanged(h, 1, LOCK_MULTI));
	CU_ASSERT_EQUAL(lock_held(beta->ld, &beta->locks[1]), LOCK_MULTI);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[1]), 0);
	CU_ASSERT_FALSE(ask_unchanged(h, 1, LOCK_MULTI));
	h->w->stage = 3;
}

static void changing_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_MULTI, 0), 0);
	h->w->stage = 2;
	world_await(h, 3);
}

/* The kernel may keep pages of a file only if no other host wrote it meanwhile. */
static void unchanged_is_said_only_if_nobody_else_could_write(void)
{
	struct world *w = world_new(24, 2, 512);

	w->hosts[0].body = unchanged_body;
	w->hosts[1].body = changing_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void hold_cached_body(struct host *h)
{
	for (int i = 0; i < WORLD_LOCKS; i++)
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 1;
	world_await(h, 2);
}

static void want_cached_body(struct host *h)
{
	uint64_t start_ns;

	world_await(h, 1);
	start_ns = env_now_ns(h->env);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_TRY, NULL), -EAGAIN);
	CU_ASSERT_TRUE(env_now_ns(h->env) - start_ns < 5 * MSEC);
	h->wait_max_ns = 0;
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 3 * BEAT / 2);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), 0);
	/* It was downgraded there, not given up: the cache survives. */
	CU_ASSERT_EQUAL(lock_held(h->w->hosts[0].ld, &h->w->hosts[0].locks[1]), LOCK_SHARED);
	CU_ASSERT_EQUAL(h->w->hosts[0].forgets, 1);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 2;
}

/* `ls` on another host must wait a moment for the writer's cache, not fail. */
static void cached_lock_is_passed_on_within_a_beat_and_a_half(void)
{
	struct world *w = world_new(5, 2, 512);

	w->hosts[0].body = hold_cached_body;
	w->hosts[1].body = want_cached_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void want_neighbours_body(struct host *h)
{
	world_await(h, 1);
	host_sleep(h, 3 * BEAT);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	for (int i = 1; i < WORLD_LOCKS; i++)	/* idle there, so they went along */
		CU_ASSERT_EQUAL(host_get(h, i, LOCK_EXCLUSIVE, LOCK_TRY, NULL), 0);
	for (int i = 1; i < WORLD_LOCKS; i++)
		host_put(h, i, LOCK_EXCLUSIVE, 0);
	h->w->stage = 2;
}

/* rm -r of what another host wrote waited a moment for every single file. */
static void idle_locks_go_along_with_a_wanted_one(void)
{
	struct world *w = world_new(5, 2, 512);

	w->hosts[0].body = hold_cached_body;
	w->hosts[1].body = want_neighbours_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void many_thread(void *arg)
{
	struct host *h = arg;
	int i = h->w->stage++ - 1;

	CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
}

static void want_many_body(struct host *h)
{
	struct env_thread *t[WORLD_LOCKS];

	world_await(h, 1);
	for (int i = 0; i < WORLD_LOCKS; i++)
		env_thread_start(h->env, "user", many_thread, h, &t[i]);
	for (int i = 0; i < WORLD_LOCKS; i++)
		env_thread_join(h->env, t[i]);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
}

/* A slot has room for eight wants; the ninth waiter must not be forgotten. */
static void more_waiters_than_wants_all_get_their_locks(void)
{
	struct world *w = world_new(6, 2, 512);

	w->hosts[0].body = hold_cached_body;
	w->hosts[1].body = want_many_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void open_holder_body(struct host *h)
{
	/* Taken by a plain operation first: the record names nobody until somebody asks. */
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	lock_set_user(h->ld, &h->locks[0], 4711, "qemu-system-x86");
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), 0);
	h->w->stage = 1;
	world_await(h, 2);
	host_put(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN);
	lock_set_user(h->ld, &h->locks[0], 4712, "cat");
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, LOCK_OPEN, NULL), 0);
	h->w->stage = 3;
	world_await(h, 4);
	host_put(h, 0, LOCK_SHARED, LOCK_OPEN);
	h->w->stage = 5;
}

static void open_contender_body(struct host *h)
{
	struct lock_holder holder;

	world_await(h, 1);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, LOCK_OPEN, &holder), -EBUSY);
	CU_ASSERT_TRUE(h->wait_max_ns < 2 * BEAT);
	CU_ASSERT_STRING_EQUAL(holder.host_name, "alpha");
	CU_ASSERT_STRING_EQUAL(holder.comm, "qemu-system-x86");
	CU_ASSERT_EQUAL(holder.pid, 4711);
	CU_ASSERT_EQUAL(holder.mode, LOCK_EXCLUSIVE);
	CU_ASSERT_EQUAL(holder.breakable_ms, UINT64_MAX);
	h->w->stage = 2;
	/* Open there for reading: reading here goes along, writing does not. */
	world_await(h, 3);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, LOCK_OPEN, &holder), 0);
	host_put(h, 0, LOCK_SHARED, LOCK_OPEN);
	h->wait_max_ns = 0;
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, &holder), -EBUSY);
	CU_ASSERT_TRUE(h->wait_max_ns < 2 * BEAT);
	CU_ASSERT_STRING_EQUAL(holder.comm, "cat");
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_MULTI, LOCK_OPEN, &holder), -EBUSY);
	h->w->stage = 4;
	world_await(h, 5);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
}

/* `dd of=disk.img` while another host runs the VM: EBUSY soon, and it says who has it. */
static void open_elsewhere_is_busy_within_two_beats_and_named(void)
{
	struct world *w = world_new(7, 2, 512);

	w->hosts[0].body = open_holder_body;
	w->hosts[1].body = open_contender_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void multi_first_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_MULTI, LOCK_OPEN, NULL), 0);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_SHARED, LOCK_OPEN, NULL), 0);
	h->w->stage = 1;
	world_await(h, 2);
	host_put(h, 0, LOCK_MULTI, LOCK_OPEN);
	host_put(h, 1, LOCK_SHARED, LOCK_OPEN);
}

static void multi_second_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_MULTI, LOCK_OPEN, NULL), 0);
	host_put(h, 0, LOCK_MULTI, LOCK_OPEN);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * MSEC);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_SHARED, LOCK_OPEN, NULL), 0);
	host_put(h, 1, LOCK_SHARED, LOCK_OPEN);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * MSEC);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, LOCK_OPEN, NULL), -EBUSY);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), -EBUSY);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_MULTI, LOCK_OPEN, NULL), -EBUSY);
	h->w->stage = 2;
}

/* R1: several writers only among themselves; several readers too. */
static void modes_exclude_each_other_as_they_should(void)
{
	struct world *w = world_new(8, 2, 512);

	w->hosts[0].body = multi_first_body;
	w->hosts[1].body = multi_second_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void downgrade_holder_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, LOCK_OPEN, NULL), 0);
	h->w->stage = 1;
	host_sleep(h, 2 * BEAT);
	host_put(h, 0, LOCK_EXCLUSIVE, 0);
	h->w->stage = 2;
	world_await(h, 3);
	host_put(h, 0, LOCK_SHARED, LOCK_OPEN);
	CU_ASSERT_EQUAL(h->forgets, 0);
}

static void downgrade_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_SHARED, 0, NULL), 0);
	CU_ASSERT_EQUAL(h->w->stage, 2);
	CU_ASSERT_EQUAL(h->w->hosts[0].cells[0].using[LOCK_SHARED], 1);
	host_put(h, 0, LOCK_SHARED, 0);
	h->w->stage = 3;
}

/* A reader elsewhere need not wait for a reader here, once what was written is home. */
static void writer_that_goes_on_reading_lets_readers_in(void)
{
	struct world *w = world_new(9, 2, 512);

	w->hosts[0].body = downgrade_holder_body;
	w->hosts[1].body = downgrade_other_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

/* ---- everybody gets their turn ---- */

static void ping_pong_body(struct host *h)
{
	for (int i = 0; i < 40; i++) {
		CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, MSEC), 0);
		host_sleep(h, env_random_below(h->env, 100) * MSEC);
	}
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Three hosts creating files in one directory: none may starve, none may fail. */
static void ping_pong_gives_everybody_a_turn(void)
{
	for (uint64_t seed = 10; seed < 14; seed++) {
		struct world *w = world_new(seed, 3, 512);

		for (int n = 0; n < 3; n++)
			w->hosts[n].body = ping_pong_body;
		world_run(w, 400 * SEC);
		CU_ASSERT_EQUAL(w->truth[0], 120);
		for (int n = 0; n < 3; n++) {
			struct host *h = &w->hosts[n];

			CU_ASSERT_TRUE_FATAL(h->wait_count > 1);
			qsort(h->waits_ns, h->wait_count, sizeof(h->waits_ns[0]), compare_ns);
			CU_ASSERT_TRUE(h->waits_ns[h->wait_count / 2] < BEAT);
			CU_ASSERT_TRUE(h->wait_max_ns < 2 * SEC);
		}
		world_free(w);
	}
}

static void greedy_body(struct host *h)
{
	uint64_t end_ns = env_now_ns(h->env) + 60 * SEC;

	while (env_now_ns(h->env) < end_ns)
		CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 5 * MSEC), 0);
}

/* Hosts that want the lock back at once, all the time: whoever waited longest is next. */
static void greedy_hosts_take_turns(void)
{
	for (uint64_t seed = 30; seed < 33; seed++) {
		struct world *w = world_new(seed, 4, 512);

		for (int n = 0; n < 4; n++)
			w->hosts[n].body = greedy_body;
		world_run(w, 100 * SEC);
		for (int n = 0; n < 4; n++)
			CU_ASSERT_TRUE(w->hosts[n].wait_max_ns < 2 * SEC);
		world_free(w);
	}
}

static void busy_thread(void *arg)
{
	struct host *h = arg;

	while (h->w->stage < 2)
		host_op(h, 0, LOCK_EXCLUSIVE, 20 * MSEC);
}

static void busy_body(struct host *h)
{
	struct env_thread *t[3];

	for (int i = 0; i < 3; i++) {
		env_thread_start(h->env, "busy", busy_thread, h, &t[i]);
		host_sleep(h, 7 * MSEC);
	}
	h->w->stage = 1;
	for (int i = 0; i < 3; i++)
		env_thread_join(h->env, t[i]);
	/* It was not stopped for good either. */
	CU_ASSERT_TRUE(h->ops > 50);
}

static void meek_body(struct host *h)
{
	world_await(h, 1);
	for (int i = 0; i < 5; i++) {
		h->wait_max_ns = 0;
		CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
		CU_ASSERT_TRUE(h->wait_max_ns < 2 * BEAT);
		host_sleep(h, 3 * BEAT);
	}
	h->w->stage = 2;
}

/* A lock that is never unused here must still be passed on: new users queue behind that. */
static void busy_host_does_not_starve_others(void)
{
	struct world *w = world_new(14, 2, 512);

	w->hosts[0].body = busy_body;
	w->hosts[1].body = meek_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void nested_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
	h->w->stage = 1;
	host_sleep(h, 2 * BEAT);	/* the other host's want has come */
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
	host_put(h, 0, LOCK_EXCLUSIVE, 0);
	host_put(h, 0, LOCK_EXCLUSIVE, 0);
}

static void nested_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 4 * BEAT);
}

/* A thread that has the lock and asks for it again must not wait for itself. */
static void nested_use_of_a_wanted_lock_goes_on(void)
{
	struct world *w = world_new(15, 2, 512);

	w->hosts[0].body = nested_body;
	w->hosts[1].body = nested_other_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void upgrading_body(struct host *h)
{
	for (int i = 0; i < 10; i++) {
		CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, MSEC), 0);
		CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, MSEC), 0);
		host_sleep(h, env_random_below(h->env, 50) * MSEC);
	}
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
}

/* Two hosts read, then write the same directory: each waits for the other's shared lock. */
static void hosts_that_upgrade_at_once_both_get_there(void)
{
	struct world *w = world_new(16, 3, 512);

	for (int n = 0; n < 3; n++)
		w->hosts[n].body = upgrading_body;
	world_run(w, 200 * SEC);
	CU_ASSERT_EQUAL(w->truth[0], 30);
	world_free(w);
}

/* ---- failures ---- */

static void settle_fails_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	h->settle_err = -EIO;
	h->w->stage = 1;
	world_await(h, 2);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[0]), -EIO);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_EXCLUSIVE);
	CU_ASSERT_EQUAL(h->forgets, 0);
	h->settle_err = 0;
	h->w->stage = 3;
}

static void settle_waiter_body(struct host *h)
{
	struct lock_holder holder;

	world_await(h, 1);
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, &holder), -EBUSY);
	CU_ASSERT_TRUE(h->wait_max_ns >= 5 * SEC && h->wait_max_ns < 7 * SEC);
	CU_ASSERT_STRING_EQUAL(holder.host_name, "alpha");
	h->w->stage = 2;
	world_await(h, 3);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
}

/* R4: what cannot be written home is not given away. */
static void locks_are_kept_while_settle_fails(void)
{
	struct world *w = world_new(17, 2, 512);

	w->hosts[0].body = settle_fails_body;
	w->hosts[1].body = settle_waiter_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void crash_now(void *arg)
{
	struct host *h = arg;

	sim_host_crash(h->env);
}

static void crashing_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), 0);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 1;
	sim_at(h->w->sim, sim_now_ns(h->w->sim) + MSEC, crash_now, h);
	host_sleep(h, 1000 * SEC);
}

static void takeover_body(struct host *h)
{
	world_await(h, 1);
	host_sleep(h, 2 * MSEC);
	CU_ASSERT_EQUAL(host_op(h, (int)(h - h->w->hosts) % 2, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->wait_max_ns > 5 * SEC && h->wait_max_ns < 9 * SEC);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
}

/* A host dies with a disk open: others wait, recover it and go on from what it had done. */
static void crashed_holders_lock_is_taken_over(void)
{
	for (uint64_t seed = 18; seed < 22; seed++) {
		struct world *w = world_new(seed, 3, 512);

		w->hosts[0].body = crashing_body;
		w->hosts[1].body = takeover_body;
		w->hosts[2].body = takeover_body;
		world_run(w, 60 * SEC);
		world_free(w);
	}
}

static void stray_holder_body(struct host *h)
{
	struct lockrec r;

	world_peek_record(h->w, 0, &r);
	r.sequence++;
	r.mode = LOCK_EXCLUSIVE;
	r.owner = lockd_slot(h->ld);
	r.owner_generation = lockd_generation(h->ld);
	world_poke_record(h->w, 0, &r);
	world_poke_record(h->w, 0, &r);
	world_peek_record(h->w, 1, &r);
	r.sequence++;
	r.mode = LOCK_EXCLUSIVE;
	r.owner = lockd_slot(h->ld);
	r.owner_generation = lockd_generation(h->ld);
	world_poke_record(h->w, 1, &r);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);	/* adopted */
	CU_ASSERT_EQUAL(h->lock_caws, 1);
	h->w->stage = 1;
	world_await(h, 2);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[1]), LOCK_FREE);
}

static void stray_waiter_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 2;
}

/* A record that names a living host which does not know of it would be locked for ever. */
static void record_that_names_us_for_no_reason_is_adopted_or_released(void)
{
	struct world *w = world_new(22, 2, 512);

	w->hosts[0].body = stray_holder_body;
	w->hosts[1].body = stray_waiter_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

static void lost_thread(void *arg)
{
	struct host *h = arg;

	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), -ESTALE);
}

static void lost_body(struct host *h)
{
	struct env_thread *t;

	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
	env_thread_start(h->env, "user", lost_thread, h, &t);
	host_sleep(h, 100 * MSEC);
	lockd_fail(h->ld, "the test says so");
	env_thread_join(h->env, t);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_EXCLUSIVE, 0, NULL), -ESTALE);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[1]), 0);
	CU_ASSERT_EQUAL(h->forgets, 1);
}

static void lost_holder_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), 0);
	h->w->stage = 1;
	host_sleep(h, 2 * BEAT);
	host_put(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN);
}

/* A fenced host must be able to end: nothing hangs, every lock can be let go. */
static void lost_slot_ends_waiting_and_evicting(void)
{
	struct world *w = world_new(23, 2, 512);

	w->hosts[0].body = lost_holder_body;
	w->hosts[1].body = lost_body;
	world_run(w, 60 * SEC);
	world_free(w);
}

UNIT_MAIN("lock cache",
	  UNIT_TEST(acquire_is_one_read_and_one_caw_and_then_free),
	  UNIT_TEST(threads_share_one_acquire_and_do_not_wait_for_others),
	  UNIT_TEST(only_sharer_upgrades),
	  UNIT_TEST(evicted_idle_and_too_many_locks_are_released),
	  UNIT_TEST(a_lock_that_is_idle_is_released_though_nothing_happens),
	  UNIT_TEST(unchanged_is_said_only_if_nobody_else_could_write),
	  UNIT_TEST(cached_lock_is_passed_on_within_a_beat_and_a_half),
	  UNIT_TEST(idle_locks_go_along_with_a_wanted_one),
	  UNIT_TEST(more_waiters_than_wants_all_get_their_locks),
	  UNIT_TEST(open_elsewhere_is_busy_within_two_beats_and_named),
	  UNIT_TEST(modes_exclude_each_other_as_they_should),
	  UNIT_TEST(writer_that_goes_on_reading_lets_readers_in),
	  UNIT_TEST(ping_pong_gives_everybody_a_turn),
	  UNIT_TEST(greedy_hosts_take_turns),
	  UNIT_TEST(busy_host_does_not_starve_others),
	  UNIT_TEST(nested_use_of_a_wanted_lock_goes_on),
	  UNIT_TEST(hosts_that_upgrade_at_once_both_get_there),
	  UNIT_TEST(locks_are_kept_while_settle_fails),
	  UNIT_TEST(crashed_holders_lock_is_taken_over),
	  UNIT_TEST(record_that_names_us_for_no_reason_is_adopted_or_released),
	  UNIT_TEST(lost_slot_ends_waiting_and_evicting));
