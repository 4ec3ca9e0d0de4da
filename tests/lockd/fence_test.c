/* SPDX-License-Identifier: Apache-2.0 */
/* The fencing ladder: that a dead host cannot write any more, on simulated hosts. */
#include "tests/lockd/cluster.h"

/* Rung A: the frozen host's key is gone before its journal is touched; it stays out. */
static void reservation_keeps_a_frozen_host_out(void)
{
	struct simdisk_params p = { .reservations = true };

	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct cluster *c = cluster_new(seed, 4, &p);
		struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
		struct lockd_status st;
		uint32_t slot;
		uint64_t key;

		cluster_run(c, 4 * SEC + seed * 11 * MSEC);
		CU_ASSERT_TRUE_FATAL(a->joined && b->joined);
		lockd_status(a->ld, &st);
		CU_ASSERT_EQUAL(st.rung, FENCE_RESERVATION);
		slot = lockd_slot(a->ld);
		key = cluster_slot(c, slot).key;
		CU_ASSERT_EQUAL(key, fence_key(slot, lockd_generation(a->ld)));
		sim_host_freeze(a->env, 40 * SEC);
		cluster_run(c, 30 * SEC);
		CU_ASSERT_EQUAL(b->adopts[slot], 1);
		CU_ASSERT_EQUAL(b->kills, 0);
		CU_ASSERT_EQUAL(cluster_slot(c, slot).key, 0);
		cluster_run(c, 50 * SEC);
		CU_ASSERT_EQUAL(a->losses, 1);
		CU_ASSERT_EQUAL(a->write_err, -ESTALE);
		cluster_end(c);
	}
}

/* Rung A: a write that the array holds back must be dead when the recovery begins. */
static void preempt_aborts_what_is_still_under_way(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	b->replay_takes_ns = 10 * SEC;
	/* It would land in the midst of the replay. */
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_TIMEOUT_LATE, .ops = 1u << BLK_WRITE, .host = a->env,
		.count = 1, .delay_ns = 12 * SEC });
	cluster_run(c, 4100 * MSEC);
	sim_host_crash(a->env);
	cluster_run(c, 60 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	cluster_end(c);	/* counts the late write, had it landed */
}

/*
 * Rung A: with its last registrant a reservation ends (SPC-4).  A host that was fenced and hangs
 * with a write in hand must not find the volume open because everybody else has left.
 */
static void reservation_outlives_the_last_host(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 4 * SEC);
	CU_ASSERT_TRUE_FATAL(a->joined && b->joined);
	slot = lockd_slot(a->ld);
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_HOLD, .ops = 1u << BLK_WRITE, .host = a->env, .count = 1,
		.delay_ns = 40 * SEC });
	cluster_run_more(c, 100 * MSEC);
	sim_host_freeze(a->env, sim_now_ns(c->sim) + 39 * SEC);
	cluster_run_more(c, 20 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	b->stop = true;
	cluster_run_more(c, 10 * SEC);
	CU_ASSERT_TRUE(b->ended);
	CU_ASSERT_EQUAL(b->leave_err, 0);
	cluster_run_more(c, 30 * SEC);
	CU_ASSERT_EQUAL(a->losses, 1);
	cluster_end(c);	/* counts the late write, had it landed */
}

/* ---- a registration that lands late ---- */

struct late_key {
	struct cluster *c;
	struct env *env;
	struct blkdev *dev;
	uint64_t key;
	bool found;
};

static void late_key_lands(void *arg)
{
	struct late_key *l = arg;

	CU_ASSERT_EQUAL(l->dev->ops->pr_register(l->dev, 0, l->key), 0);
}

static void late_key_look(void *arg)
{
	struct late_key *l = arg;
	struct blkdev_pr_state state;

	l->found = false;
	CU_ASSERT_EQUAL(l->dev->ops->pr_read(l->dev, &state), 0);
	for (unsigned int i = 0; i < state.key_count; i++)
		l->found = l->found || state.keys[i] == l->key;
}

static void late_key_do(struct late_key *l, void (*fn)(void *l))
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(l->env, "late", fn, l, &thread), 0);
	cluster_run_more(l->c, 100 * MSEC);
	env_thread_join(l->env, thread);
}

/*
 * Rung A: a host frozen between showing its key and registering it may register when it is being
 * recovered.  The proof is taken again just before its generation is retired.
 */
static void key_that_comes_back_is_preempted_again(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	struct late_key l = { .c = c };
	uint32_t slot;

	cluster_run(c, 4 * SEC);
	CU_ASSERT_TRUE_FATAL(a->joined && b->joined);
	slot = lockd_slot(a->ld);
	l.key = cluster_slot(c, slot).key;
	l.env = sim_host(c->sim, "late");
	l.dev = simdisk_open(c->disk, l.env);
	b->replay_takes_ns = 10 * SEC;
	sim_host_crash(a->env);
	cluster_run(c, 15 * SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	late_key_do(&l, late_key_look);
	CU_ASSERT_FALSE(l.found);
	late_key_do(&l, late_key_lands);
	late_key_do(&l, late_key_look);
	CU_ASSERT_TRUE(l.found);
	cluster_run(c, 40 * SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	late_key_do(&l, late_key_look);
	CU_ASSERT_FALSE(l.found);
	blkdev_close(l.dev);
	cluster_end(c);
}

static void count_keys(void *arg)
{
	struct host *h = arg;
	struct blkdev_pr_state state;

	CU_ASSERT_EQUAL(h->hb_dev->ops->pr_read(h->hb_dev, &state), 0);
	CU_ASSERT_TRUE(state.held);
	h->replay_takes_ns = state.key_count;	/* it replays nothing any more */
}

static unsigned int keys_seen_by(struct cluster *c, struct host *h)
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(h->env, "keys", count_keys, h, &thread), 0);
	cluster_run_more(c, SEC);
	env_thread_join(h->env, thread);
	return (unsigned int)h->replay_takes_ns;
}

/* Those that left keep their keys; whoever joins clears them away, or they would pile up. */
static void keys_of_hosts_that_left_go_with_the_next_join(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta"), *d;

	cluster_run(c, 4 * SEC);
	a->stop = true;
	cluster_run_more(c, 5 * SEC);
	CU_ASSERT_TRUE(a->ended);
	CU_ASSERT_EQUAL(keys_seen_by(c, b), 2);
	d = host_up(c, 2, "delta");
	cluster_run_more(c, 5 * SEC);
	CU_ASSERT_TRUE(d->joined);
	CU_ASSERT_EQUAL(keys_seen_by(c, b), 2);
	CU_ASSERT(!b->losses && !d->losses);
	cluster_end(c);
}

static void register_away(void *arg)
{
	struct host *h = arg;

	h->hb_dev->ops->pr_register(h->hb_dev, h->ld->hb_key, 0);
}

/* A path event that loses the registration stalls I/O until it is back; it does not kill. */
static void lost_registration_is_renewed(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	struct env_thread *thread;
	uint64_t wrote;

	cluster_run(c, 4 * SEC);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(a->env, "path", register_away, a, &thread), 0);
	cluster_run(c, 6 * SEC);
	env_thread_join(a->env, thread);
	wrote = a->wrote;
	cluster_run(c, 10 * SEC);
	CU_ASSERT(a->wrote > wrote);
	CU_ASSERT(!a->losses && !a->write_err && !b->losses);
	cluster_end(c);
}

/* Rung B waits for the bound, and only believes in it where a watchdog ends frozen hosts. */
static void bound_is_waited_for_and_needs_a_watchdog(void)
{
	struct simdisk_params p = { .inflight_ns_max = 10 * SEC };

	for (unsigned int watchdog = 0; watchdog < 2; watchdog++) {
		struct cluster *c = cluster_new(1, 4, &p);
		struct host *a = host_init(c, 0, "alpha"), *b = host_init(c, 1, "beta");
		uint32_t slot;

		a->p.kill = b->p.kill = NULL;
		a->p.watchdog = watchdog;
		a->p.force_unsafe = true;
		b->p.watchdog = true;
		host_start(a);
		host_start(b);
		cluster_run(c, 4 * SEC);
		slot = lockd_slot(a->ld);
		sim_host_crash(a->env);
		cluster_run(c, 18 * SEC);
		CU_ASSERT_EQUAL(b->replays[slot], 0);
		CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
		cluster_run(c, 30 * SEC);
		CU_ASSERT_EQUAL(b->adopts[slot], watchdog);
		cluster_end(c);
	}
}

/* A path on which the compare-and-write of one sector is blocked by who is stopped in it. */
struct busy {
	struct blkdev dev;
	struct blkdev *lower;
	uint64_t addr;		/* 0: nothing is blocked */
	unsigned int tries;
};

static void busy_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct busy *b = container_of(dev, struct busy, dev);

	for (unsigned int i = 0; i < count; i++) {
		if (ios[i]->op == BLK_CAW && b->addr && ios[i]->off == b->addr) {
			b->tries++;
			ios[i]->done(ios[i], -EBUSY);
		} else {
			blkdev_submit(b->lower, &ios[i], 1);
		}
	}
}

static int busy_kill(void *arg, const struct slot *victim)
{
	struct host *h = arg;
	struct busy *b = container_of(h->p.dev, struct busy, dev);

	b->addr = 0;	/* the kernel drops a dead process's file locks */
	return host_kill(arg, victim);
}

/* Stopped inside its compare-and-write a process would keep its slot from being claimed. */
static void process_that_blocks_its_slot_is_killed_first(void)
{
	static const struct blkdev_ops ops = { .submit = busy_submit };
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta");
	struct busy busy = { .lower = b->dev };
	uint32_t slot;

	busy.dev = *b->dev;
	busy.dev.ops = &ops;
	b->p.dev = &busy.dev;
	b->p.kill = busy_kill;
	host_start(b);
	cluster_run(c, 4 * SEC);
	CU_ASSERT_TRUE_FATAL(b->joined);
	slot = lockd_slot(a->ld);
	busy.addr = SLOTS_ADDR + (uint64_t)slot * META_BLOCK_SIZE;
	sim_host_freeze(a->env, 100 * SEC);
	cluster_run(c, 20 * SEC);
	CU_ASSERT(busy.tries >= 2);
	CU_ASSERT(b->kills >= 1);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	cluster_end(c);
}

/* A host whose old slot another one recovers leaves that alone and gets it when it is free. */
static void slot_under_recovery_is_left_to_its_recoverer(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta"), *again;
	uint32_t slot;

	b->replay_takes_ns = 6 * SEC;
	host_start(b);
	cluster_run(c, 8 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	cluster_run_more(c, 8 * SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	again = host_init(c, 2, "alpha");
	memset(again->p.host_id, 1, sizeof(again->p.host_id));
	again->p.own_slot_is_dead = true;
	host_start(again);
	cluster_run_more(c, 2 * SEC);
	CU_ASSERT_FALSE(again->joined);
	cluster_run_more(c, 8 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_TRUE_FATAL(again->joined);
	CU_ASSERT_EQUAL(lockd_slot(again->ld), slot);
	CU_ASSERT_EQUAL(b->losses, 0);
	cluster_end(c);
}

/* The daemon of a lost slot attaches again, in the same process, as a new generation. */
static void lost_host_attaches_again_without_killing_itself(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *again;
	uint32_t slot, generation;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	generation = lockd_generation(a->ld);
	lockd_fail(a->ld, "the journal could not be flushed");
	a->stop = true;
	cluster_run(c, 6 * SEC);
	CU_ASSERT_TRUE(a->ended);
	again = host_init(c, 1, "alpha");
	again->p.pid = a->p.pid;
	memset(again->p.host_id, 1, sizeof(again->p.host_id));
	again->p.own_slot_is_dead = true;
	host_start(again);
	cluster_run(c, 8 * SEC);
	CU_ASSERT_TRUE_FATAL(again->joined);
	CU_ASSERT_EQUAL(again->kills, 0);
	CU_ASSERT_EQUAL(lockd_slot(again->ld), slot);
	CU_ASSERT_EQUAL(lockd_generation(again->ld), generation + 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).flags, 0);
	cluster_end(c);
}

/*
 * Rung A: attaching again registers a new key on the same nexus, so nothing is left to preempt,
 * and a write of the lost incarnation that had timed out would land after the slot is live again.
 */
static void lost_host_attaches_again_after_its_late_write(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *again;

	cluster_run(c, 4 * SEC);
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_TIMEOUT_LATE, .ops = 1u << BLK_WRITE, .host = a->env,
		.count = 1, .delay_ns = 12 * SEC });
	cluster_run(c, 4100 * MSEC);
	CU_ASSERT_EQUAL(a->write_err, -ETIMEDOUT);
	lockd_fail(a->ld, "the journal could not be flushed");
	a->stop = true;
	cluster_run(c, 10 * SEC);
	again = host_init(c, 1, "alpha");
	blkdev_close(again->dev);
	blkdev_close(again->hb_dev);
	again->env = again->p.env = a->env;
	again->dev = again->p.dev = simdisk_open(c->disk, a->env);
	again->hb_dev = again->p.hb_dev = simdisk_open(c->disk, a->env);
	again->p.pid = a->p.pid;
	memcpy(again->p.host_id, a->p.host_id, sizeof(again->p.host_id));
	again->p.own_slot_is_dead = true;
	host_start(again);
	cluster_run(c, 15 * SEC);
	CU_ASSERT_FALSE(again->joined);
	CU_ASSERT_TRUE(simdisk_is_busy(c->disk, a->env));
	cluster_run(c, 30 * SEC);
	CU_ASSERT_TRUE(again->joined);
	cluster_end(c);
}

UNIT_MAIN("lockd/fence",
	  UNIT_TEST(reservation_keeps_a_frozen_host_out),
	  UNIT_TEST(reservation_outlives_the_last_host),
	  UNIT_TEST(keys_of_hosts_that_left_go_with_the_next_join),
	  UNIT_TEST(key_that_comes_back_is_preempted_again),
	UNIT_TEST(preempt_aborts_what_is_still_under_way),
	  UNIT_TEST(lost_registration_is_renewed),
	  UNIT_TEST(bound_is_waited_for_and_needs_a_watchdog),
	  UNIT_TEST(process_that_blocks_its_slot_is_killed_first),
	  UNIT_TEST(slot_under_recovery_is_left_to_its_recoverer),
	  UNIT_TEST(lost_host_attaches_again_without_killing_itself),
	  UNIT_TEST(lost_host_attaches_again_after_its_late_write));
