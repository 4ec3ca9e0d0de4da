/* SPDX-License-Identifier: Apache-2.0 */
/* Observation, fencing and recovery of dead hosts, on simulated hosts that share a LUN. */
#include "tests/lockd/cluster.h"

/* How often anybody finished the recovery of @slot, that is: adopted its orphans. */
static unsigned int adopted(const struct cluster *c, uint32_t slot)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		count += c->hosts[i].adopts[slot];
	return count;
}

/* The promise to the administrator: a crashed host's VMs can be started within 8 s. */
static void crashed_host_is_recovered_once_and_in_time(void)
{
	uint64_t longest = 0, shortest = UINT64_MAX;

	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct cluster *c = cluster_new(seed, 8, NULL);
		struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
		struct host *d = host_up(c, 2, "delta");
		uint64_t crashed_ns, at_ns;
		uint32_t slot, generation;

		cluster_run(c, 5 * SEC + seed * 53 * MSEC);
		slot = lockd_slot(a->ld);
		generation = lockd_generation(a->ld);
		crashed_ns = sim_now_ns(c->sim);
		sim_host_crash(a->env);
		cluster_run_more(c, 20 * SEC);
		CU_ASSERT_EQUAL(adopted(c, slot), 1);
		CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
		CU_ASSERT_EQUAL(cluster_slot(c, slot).generation, generation);
		CU_ASSERT(!b->losses && !d->losses && !b->write_err && !d->write_err);
		at_ns = (b->adopts[slot] ? b : d)->adopted_ns[slot] - crashed_ns;
		longest = at_ns > longest ? at_ns : longest;
		shortest = at_ns < shortest ? at_ns : shortest;
		cluster_end(c);
	}
	CU_ASSERT(longest < 8 * SEC);
	/* Never before the lease that the dead host may have had is over. */
	CU_ASSERT(shortest > 5 * SEC);
}

/* Freezing is not death: a resumed host finds its slot gone and writes nothing any more. */
static void frozen_host_comes_back_to_nothing(void)
{
	struct simdisk_params p = { .inflight_ns_max = 100 * MSEC };

	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct cluster *c = cluster_new(seed, 4, &p);
		struct host *a = host_init(c, 0, "alpha"), *b = host_init(c, 1, "beta");
		uint32_t slot;
		uint64_t wrote;

		a->p.kill = b->p.kill = NULL;
		a->p.watchdog = b->p.watchdog = true;	/* rung B, and the watchdog broken */
		host_start(a);
		host_start(b);
		cluster_run(c, 4 * SEC + seed * 7 * MSEC);
		slot = lockd_slot(a->ld);
		sim_host_freeze(a->env, 60 * SEC);
		cluster_run(c, 30 * SEC);
		CU_ASSERT_EQUAL(b->adopts[slot], 1);
		wrote = a->wrote;
		cluster_run(c, 70 * SEC);
		CU_ASSERT_EQUAL(a->losses, 1);
		CU_ASSERT_EQUAL(a->write_err, -ESTALE);
		CU_ASSERT(a->wrote <= wrote);
		CU_ASSERT_EQUAL(b->losses, 0);
		cluster_end(c);
	}
}

/* Short of the lease a pause is only latency; nobody interferes. */
static void short_freeze_is_survived(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint64_t wrote;

	cluster_run(c, 4 * SEC);
	sim_host_freeze(a->env, 8500 * MSEC);
	cluster_run(c, 8500 * MSEC);
	wrote = a->wrote;
	cluster_run(c, 30 * SEC);
	CU_ASSERT(a->wrote > wrote);
	CU_ASSERT(!a->losses && !b->losses && !b->kills);
	cluster_end(c);
}

/* A daemon stopped past its lease with nobody contending goes on by itself. */
static void long_freeze_alone_is_survived(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");
	uint64_t wrote;

	cluster_run(c, 4 * SEC);
	sim_host_freeze(a->env, 100 * SEC);
	cluster_run(c, 100 * SEC);
	wrote = a->wrote;
	cluster_run(c, 105 * SEC);
	CU_ASSERT(a->wrote > wrote);
	CU_ASSERT_EQUAL(a->losses, 0);
	cluster_end(c);
}

/* The recoverer's own death: the next host recovers it first, then what it had begun. */
static void recoverer_that_dies_is_recovered_too(void)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct cluster *c = cluster_new(seed, 8, NULL);
		struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta"), *d;
		uint32_t slot_a, slot_b;

		b->replay_takes_ns = 4 * SEC;
		host_start(b);
		cluster_run(c, 6 * SEC);
		slot_a = lockd_slot(a->ld);
		slot_b = lockd_slot(b->ld);
		sim_host_crash(a->env);
		cluster_run_more(c, 8 * SEC);
		CU_ASSERT_EQUAL(cluster_slot(c, slot_a).state, SLOT_RECOVERING);
		CU_ASSERT_EQUAL(cluster_slot(c, slot_a).recoverer, slot_b);
		CU_ASSERT_EQUAL(b->adopts[slot_a], 0);
		sim_host_crash(b->env);
		d = host_up(c, 2, "delta");
		cluster_run_more(c, 15 * SEC);
		CU_ASSERT_EQUAL(d->adopts[slot_a], 1);
		CU_ASSERT_EQUAL(d->adopts[slot_b], 1);
		CU_ASSERT(d->adopted_ns[slot_b] < d->adopted_ns[slot_a]);
		CU_ASSERT_EQUAL(cluster_slot(c, slot_a).state, SLOT_FREE);
		CU_ASSERT_EQUAL(cluster_slot(c, slot_b).state, SLOT_FREE);
		cluster_end(c);
	}
}

/* A host that freezes in the midst of a recovery must not replay over its successor's work. */
static void recoverer_that_freezes_loses_the_recovery(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 8, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta"), *d;
	uint32_t slot_a, slot_b;

	b->replay_takes_ns = 4 * SEC;
	host_start(b);
	cluster_run(c, 6 * SEC);
	slot_a = lockd_slot(a->ld);
	slot_b = lockd_slot(b->ld);
	sim_host_crash(a->env);
	cluster_run_more(c, 8 * SEC);
	CU_ASSERT_EQUAL(b->replays[slot_a], 1);
	CU_ASSERT_EQUAL(b->adopts[slot_a], 0);
	sim_host_freeze(b->env, 60 * SEC);
	d = host_up(c, 2, "delta");
	cluster_run(c, 55 * SEC);
	CU_ASSERT(d->adopts[slot_a] == 1 && d->adopts[slot_b] == 1);
	cluster_run(c, 70 * SEC);
	CU_ASSERT_EQUAL(b->losses, 1);
	CU_ASSERT_EQUAL(b->adopts[slot_a], 0);
	cluster_end(c);
}

static void poke_recovering(struct cluster *c, uint32_t index, uint32_t by, uint32_t by_generation)
{
	uint64_t addr = SLOTS_ADDR + (uint64_t)index * META_BLOCK_SIZE;
	struct slot s = cluster_slot(c, index);
	uint8_t sector[META_SECTOR_SIZE];

	s.state = SLOT_RECOVERING;
	s.recoverer = by;
	s.recoverer_generation = by_generation;
	s.sequence++;
	slot_encode(&s, cluster_volume, addr, sector, sizeof(sector));
	simdisk_poke(c->disk, addr, sector, sizeof(sector));
}

/* Two hosts whose claims crossed are both dead; neither can be recovered "first". */
static void ring_of_claims_is_broken(void)
{
	struct cluster *c = cluster_new(1, 8, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta"), *d;
	uint32_t slot_a, slot_b;

	cluster_run(c, 3 * SEC);
	slot_a = lockd_slot(a->ld);
	slot_b = lockd_slot(b->ld);
	sim_host_crash(a->env);
	sim_host_crash(b->env);
	poke_recovering(c, slot_a, slot_b, cluster_slot(c, slot_b).generation);
	poke_recovering(c, slot_b, slot_a, cluster_slot(c, slot_a).generation);
	d = host_up(c, 2, "delta");
	cluster_run(c, 8 * SEC);
	CU_ASSERT(!d->adopts[slot_a] && !d->adopts[slot_b]);	/* their leases may still run */
	cluster_run(c, 25 * SEC);
	CU_ASSERT(d->adopts[slot_a] == 1 && d->adopts[slot_b] == 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot_a).state, SLOT_FREE);
	CU_ASSERT_EQUAL(cluster_slot(c, slot_b).state, SLOT_FREE);
	cluster_end(c);
}

/* A recovery whose owner came back as a new generation belongs to nobody. */
static void claim_of_a_retired_generation_is_taken_over(void)
{
	struct cluster *c = cluster_new(1, 8, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot_a;

	cluster_run(c, 3 * SEC);
	slot_a = lockd_slot(a->ld);
	sim_host_crash(a->env);
	poke_recovering(c, slot_a, lockd_slot(b->ld), lockd_generation(b->ld) - 1);
	cluster_run(c, 6 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot_a], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot_a).state, SLOT_FREE);
	cluster_end(c);
}

/* Whoever has lost a recovery to another host must not go on with it. */
static void lost_recovery_is_not_gone_on_with(void)
{
	struct cluster *c = cluster_new(1, 8, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta");
	struct host *d = host_up(c, 2, "delta");
	uint32_t slot_a, by;

	b->replay_takes_ns = d->replay_takes_ns = 4 * SEC;
	host_start(b);
	cluster_run(c, 6 * SEC);
	slot_a = lockd_slot(a->ld);
	sim_host_crash(a->env);
	cluster_run_more(c, 8 * SEC);
	by = cluster_slot(c, slot_a).recoverer;
	CU_ASSERT_EQUAL_FATAL(cluster_slot(c, slot_a).state, SLOT_RECOVERING);
	/* The other of the two is made its recoverer; it has not begun. */
	if (by == lockd_slot(b->ld)) {
		poke_recovering(c, slot_a, lockd_slot(d->ld), lockd_generation(d->ld));
		d->replay_err = -EIO;
	} else {
		poke_recovering(c, slot_a, lockd_slot(b->ld), lockd_generation(b->ld));
		b->replay_err = -EIO;
	}
	cluster_run_more(c, 10 * SEC);
	CU_ASSERT_EQUAL(adopted(c, slot_a), 0);
	cluster_end(c);
}

/* What `lunfs status` shows and the log says when a process may not be killed. */
struct log_watch {
	unsigned int refusals;
};

static void watch_log(void *arg, enum log_level level, const char *line)
{
	struct log_watch *w = arg;

	if (level == LOG_LEVEL_ERROR && strstr(line, "process 100") && strstr(line, "by hand"))
		w->refusals++;
}

struct waiter {
	struct host *h;
	uint32_t slot, generation;
	int err;
	bool done;
	uint64_t took_ns;
	struct env_thread *thread;
};

static void waiter_thread(void *arg)
{
	struct waiter *w = arg;
	uint64_t start = env_now_ns(w->h->env);

	w->err = recover_slot(w->h->ld, w->slot, w->generation);
	w->took_ns = env_now_ns(w->h->env) - start;
	w->done = true;
}

static void waiter_start(struct waiter *w, struct host *h, uint32_t slot, uint32_t generation)
{
	*w = (struct waiter){ .h = h, .slot = slot, .generation = generation };
	CU_ASSERT_EQUAL_FATAL(env_thread_start(h->env, "waiter", waiter_thread, w, &w->thread), 0);
}

static void waiter_end(struct waiter *w)
{
	CU_ASSERT_TRUE_FATAL(w->done);
	env_thread_join(w->h->env, w->thread);
}

/* R3: who may not be killed is not recovered: its locks stay, waiters and log say why. */
static void nothing_is_recovered_of_whom_we_may_not_kill(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta");
	struct log_watch watch = { 0 };
	struct waiter w;
	uint32_t slot, generation;

	b->kill_err = -EPERM;
	sim_host_log(b->env, watch_log, &watch);
	host_start(b);
	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	generation = lockd_generation(a->ld);
	sim_host_freeze(a->env, 60 * SEC);
	cluster_run(c, 20 * SEC);
	CU_ASSERT_EQUAL(b->replays[slot], 0);
	CU_ASSERT(watch.refusals >= 1 && watch.refusals <= 5);	/* with backoff */
	CU_ASSERT_EQUAL(b->kills, watch.refusals);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	waiter_start(&w, b, slot, generation);
	cluster_run_more(c, SEC);
	waiter_end(&w);
	CU_ASSERT_EQUAL(w.err, -EHOSTDOWN);
	/* Once it may be killed it is recovered. */
	b->kill_err = 0;
	cluster_run(c, 50 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	cluster_end(c);
}

/* A waiter for a dead host's lock gets on when the host is recovered, not before. */
static void waiters_wait_for_the_recovery(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	struct waiter alive, dead;
	uint32_t slot, generation;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	generation = lockd_generation(a->ld);
	waiter_start(&alive, b, slot, generation);
	cluster_run_more(c, SEC);
	waiter_end(&alive);
	CU_ASSERT_EQUAL(alive.err, -EAGAIN);
	sim_host_crash(a->env);
	b->replay_takes_ns = 2 * SEC;
	for (;;) {
		bool silent;

		cluster_run_more(c, 100 * MSEC);
		env_mutex_lock(b->env, &b->ld->mutex);
		silent = observe_silent(b->ld, slot, generation, NULL, NULL);
		env_mutex_unlock(b->env, &b->ld->mutex);
		if (silent)
			break;
		CU_ASSERT_FATAL(sim_now_ns(c->sim) < 30 * SEC);
	}
	waiter_start(&dead, b, slot, generation);
	cluster_run_more(c, 10 * SEC);
	waiter_end(&dead);
	CU_ASSERT_EQUAL(dead.err, 0);
	CU_ASSERT(dead.took_ns > SEC && dead.took_ns < 4 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	cluster_end(c);
}

/* ---- observation ---- */

/* R3a: an observer whose own reads fail knows nothing of others' silence. */
static void observer_that_cannot_read_suspects_nobody(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");

	cluster_run(c, 4 * SEC);
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_FAIL, .ops = 1u << BLK_READ, .host = b->env, .off = SLOTS_ADDR,
		.len = MIB });
	/* Alpha is silent for less than suspicion takes, but beta sees none of it. */
	sim_host_freeze(a->env, 9 * SEC);
	cluster_run(c, 30 * SEC);
	CU_ASSERT_EQUAL(b->kills, 0);
	sim_host_freeze(a->env, 33 * SEC);
	simdisk_clear_rules(c->disk);
	/* The four seconds that beta sees now are not enough: what it missed does not count. */
	cluster_run(c, 35 * SEC);
	CU_ASSERT_EQUAL(b->kills, 0);
	CU_ASSERT_EQUAL(a->losses, 0);
	CU_ASSERT_EQUAL(b->losses, 0);
	cluster_end(c);
}

/* When beta finished recovering alpha, with one of beta's scans made to suffer @fault. */
static uint64_t recovered_ns(enum simdisk_fault fault, uint64_t delay_ns, uint64_t count)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;
	uint64_t at_ns;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	cluster_run(c, 7 * SEC);
	/* Scans only: beta's own heartbeat does not read unless it is in doubt. */
	if (count)
		simdisk_inject(c->disk, &(struct simdisk_rule){
			.fault = fault, .ops = 1u << BLK_READ, .host = b->env, .off = SLOTS_ADDR,
			.len = MIB, .count = count, .delay_ns = delay_ns });
	cluster_run(c, 60 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	at_ns = b->adopted_ns[slot];
	cluster_end(c);
	return at_ns;
}

/* R3a: the time around a scan that failed, or that was long under way, proves nothing. */
static void time_without_own_io_does_not_count(void)
{
	uint64_t undisturbed_ns = recovered_ns(0, 0, 0);

	/* Two hosts look four times a beat: a failed scan takes the time on both its sides. */
	CU_ASSERT(recovered_ns(SIMDISK_FAIL, 0, 1) >= undisturbed_ns + 450 * MSEC);
	CU_ASSERT(recovered_ns(SIMDISK_FAIL, 0, 4) >= undisturbed_ns + 1150 * MSEC);
	CU_ASSERT(recovered_ns(SIMDISK_DELAY, 4 * SEC, 1) > undisturbed_ns + 3 * SEC);
}

/* Clocks drift: a slow victim and a fast observer must still agree that it lives. */
static void drifting_clocks_kill_nobody(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_init(c, 0, "alpha"), *b = host_init(c, 1, "beta");

	sim_host_drift(a->env, -20000);
	sim_host_drift(b->env, 20000);
	host_start(a);
	host_start(b);
	cluster_run(c, 120 * SEC);
	CU_ASSERT(!a->losses && !b->losses && !a->kills && !b->kills);
	cluster_end(c);
}

struct stale_check {
	struct host *h;
	uint32_t slot, generation;
	int older, same, newer, beyond;
};

static void stale_thread(void *arg)
{
	struct stale_check *s = arg;

	s->older = observe_owner_is_stale(s->h->ld, 0, s->slot, s->generation - 1);
	s->same = observe_owner_is_stale(s->h->ld, 0, s->slot, s->generation);
	s->newer = observe_owner_is_stale(s->h->ld, 0, s->slot, s->generation + 1);
	s->beyond = observe_owner_is_stale(s->h->ld, 0, 4, s->generation);
}

static void check_stale(struct cluster *c, struct stale_check *s)
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(s->h->env, "stale", stale_thread, s, &thread), 0);
	cluster_run_more(c, SEC);
	env_thread_join(s->h->env, thread);
}

/* R5: a lock is stale only by a later generation, or by its own one retired. */
static void owner_is_stale_only_when_retired(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	struct stale_check s = { .h = b };

	cluster_run(c, 4 * SEC);
	s.slot = lockd_slot(a->ld);
	s.generation = lockd_generation(a->ld);
	check_stale(c, &s);
	CU_ASSERT(s.older == 1 && s.same == 0);
	CU_ASSERT_EQUAL(s.newer, -EUCLEAN);	/* nobody ever had it: damage */
	CU_ASSERT_EQUAL(s.beyond, -EUCLEAN);
	a->stop = true;
	cluster_run_more(c, 2 * SEC);
	check_stale(c, &s);
	CU_ASSERT(s.older == 1 && s.same == 1);
	cluster_end(c);
}

/* ---- failures ---- */

/* A journal that cannot be replayed now keeps its locks; it is tried again, and only then. */
static void failed_replay_is_tried_again(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(a->ld);
	b->replay_err = -EIO;
	sim_host_crash(a->env);
	cluster_run(c, 25 * SEC);
	CU_ASSERT(b->replays[slot] >= 2 && b->replays[slot] < 10);
	CU_ASSERT_EQUAL(b->adopts[slot], 0);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	b->replay_err = 0;
	cluster_run(c, 60 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	cluster_end(c);
}

/* Whichever command of a recovery fails, and however: it is finished all the same. */
static void every_command_of_a_recovery_may_fail(void)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT_LATE,
	};

	for (size_t f = 0; f < ARRAY_SIZE(faults); f++) {
		for (uint64_t skip = 0; skip < 10; skip++) {
			struct cluster *c = cluster_new(skip + 1, 4, NULL);
			struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
			uint32_t slot;

			cluster_run(c, 4 * SEC);
			slot = lockd_slot(a->ld);
			sim_host_crash(a->env);
			cluster_run(c, 9700 * MSEC);
			simdisk_inject(c->disk, &(struct simdisk_rule){
				.fault = faults[f], .ops = 1u << BLK_READ | 1u << BLK_CAW,
				.host = b->env, .skip = skip, .count = 2,
				.delay_ns = 50 * MSEC });
			cluster_run(c, 40 * SEC);
			CU_ASSERT(b->adopts[slot] >= 1);
			CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
			CU_ASSERT_EQUAL(b->losses, 0);
			cluster_end(c);
		}
	}
}

/* A host told to leave in the midst of a recovery leaves it to the others. */
static void leaving_host_hands_its_recovery_on(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta"), *d;
	uint32_t slot;

	b->replay_takes_ns = 4 * SEC;
	host_start(b);
	cluster_run(c, 6 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	cluster_run(c, 14 * SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	b->stop = true;
	d = host_up(c, 2, "delta");
	cluster_run(c, 30 * SEC);
	CU_ASSERT(b->ended && b->leave_err == 0);
	CU_ASSERT_EQUAL(b->adopts[slot], 0);
	CU_ASSERT_EQUAL(d->adopts[slot], 1);
	cluster_end(c);
}

UNIT_MAIN("lockd/recover",
	  UNIT_TEST(crashed_host_is_recovered_once_and_in_time),
	  UNIT_TEST(frozen_host_comes_back_to_nothing),
	  UNIT_TEST(short_freeze_is_survived),
	  UNIT_TEST(long_freeze_alone_is_survived),
	  UNIT_TEST(recoverer_that_dies_is_recovered_too),
	  UNIT_TEST(recoverer_that_freezes_loses_the_recovery),
	  UNIT_TEST(ring_of_claims_is_broken),
	  UNIT_TEST(claim_of_a_retired_generation_is_taken_over),
	  UNIT_TEST(lost_recovery_is_not_gone_on_with),
	  UNIT_TEST(nothing_is_recovered_of_whom_we_may_not_kill),
	  UNIT_TEST(waiters_wait_for_the_recovery),
	  UNIT_TEST(observer_that_cannot_read_suspects_nobody),
	  UNIT_TEST(time_without_own_io_does_not_count),
	  UNIT_TEST(drifting_clocks_kill_nobody),
	  UNIT_TEST(owner_is_stale_only_when_retired),
	  UNIT_TEST(failed_replay_is_tried_again),
	  UNIT_TEST(every_command_of_a_recovery_may_fail),
	  UNIT_TEST(leaving_host_hands_its_recovery_on));
