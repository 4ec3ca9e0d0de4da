/* SPDX-License-Identifier: Apache-2.0 */
/* Joining and leaving, the heartbeat and the lease, on simulated hosts that share a LUN. */
#include "tests/lockd/cluster.h"

/* Two hosts in one slot would write one journal; each must get its own, whatever the race. */
static void hosts_that_join_at_once_get_slots_of_their_own(void)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct cluster *c = cluster_new(seed, 8, NULL);
		bool taken[8] = { false };

		for (unsigned int i = 0; i < 6; i++)
			host_up(c, i, "host");
		cluster_run(c, 3 * SEC);
		for (unsigned int i = 0; i < 6; i++) {
			struct host *h = &c->hosts[i];
			uint32_t slot;

			CU_ASSERT_TRUE_FATAL(h->joined);
			slot = lockd_slot(h->ld);
			CU_ASSERT_FALSE(taken[slot]);
			taken[slot] = true;
			CU_ASSERT_EQUAL(lockd_generation(h->ld), 5000 + slot + 1);
			CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_LIVE);
			CU_ASSERT_EQUAL(h->replays[slot], 1);
		}
		cluster_end(c);
	}
}

/* A slot that a clean host left is free at once, its locks are stale, and nobody recovers it. */
static void leaving_retires_the_generation(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;
	struct slot s;

	cluster_run(c, 2 * SEC);
	slot = lockd_slot(a->ld);
	a->stop = true;
	cluster_run(c, 3 * SEC);
	CU_ASSERT(a->ended && a->leave_err == 0 && a->settles == 1);
	s = cluster_slot(c, slot);
	CU_ASSERT_EQUAL(s.state, SLOT_FREE);
	CU_ASSERT_EQUAL(s.generation, 5000 + slot + 1);
	cluster_run(c, 20 * SEC);
	CU_ASSERT_EQUAL(b->replays[slot], 0);
	cluster_end(c);
}

/* What could not be settled must stay locked: others recover it from the journal. */
static void slot_is_not_freed_when_settling_fails(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 2 * SEC);
	slot = lockd_slot(a->ld);
	a->settle_err = -EIO;
	a->stop = true;
	cluster_run(c, 3 * SEC);
	CU_ASSERT(a->ended && a->leave_err == -EIO);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_LIVE);
	cluster_run(c, 15 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	cluster_end(c);
}

/* A host that comes back takes its own slot, so that its journal and orphans are found. */
static void host_takes_its_own_free_slot_again(void)
{
	struct cluster *c = cluster_new(3, 8, NULL);
	struct host *a = host_up(c, 0, "alpha");
	uint32_t slot;

	cluster_run(c, 2 * SEC);
	slot = lockd_slot(a->ld);
	a->stop = true;
	cluster_run(c, 3 * SEC);
	a = host_init(c, 1, "alpha");
	memset(a->p.host_id, 1, sizeof(a->p.host_id));
	host_start(a);
	cluster_run(c, 5 * SEC);
	CU_ASSERT_TRUE_FATAL(a->joined);
	CU_ASSERT_EQUAL(lockd_slot(a->ld), slot);
	CU_ASSERT_EQUAL(lockd_generation(a->ld), 5000 + slot + 2);
	cluster_end(c);
}

/* With every slot in live hands a newcomer is told so, soon, and harms nobody. */
static void join_fails_when_all_slots_are_taken(void)
{
	struct cluster *c = cluster_new(1, 2, NULL);
	struct host *d;

	host_up(c, 0, "alpha");
	host_up(c, 1, "beta");
	cluster_run(c, 3 * SEC);
	d = host_up(c, 2, "delta");
	cluster_run(c, 10 * SEC);
	CU_ASSERT(d->ended && d->join_err == -EUSERS);
	CU_ASSERT_PTR_NOT_NULL(strstr(d->why, "ds1: all host slots"));
	CU_ASSERT(!c->hosts[0].losses && !c->hosts[1].losses);
	cluster_end(c);
}

/* A dead host's slot is a slot: a full volume must not lock everybody out for ever. */
static void join_takes_over_a_dead_slot_when_none_is_free(void)
{
	struct cluster *c = cluster_new(1, 1, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b;

	cluster_run(c, 2 * SEC);
	sim_host_crash(a->env);
	b = host_up(c, 1, "beta");
	cluster_run(c, 7 * SEC);
	CU_ASSERT_FALSE(b->joined);
	cluster_run(c, 12 * SEC);
	CU_ASSERT_TRUE_FATAL(b->joined);
	CU_ASSERT_EQUAL(b->replays[0], 1);
	CU_ASSERT_EQUAL(b->kills, 1);
	CU_ASSERT_EQUAL(lockd_generation(b->ld), 5002);
	cluster_end(c);
}

/* Two live processes with one host id (a cloned machine) must never share a slot. */
static void join_refuses_a_host_id_that_is_alive(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b;

	cluster_run(c, 3 * SEC);
	b = host_init(c, 1, "alpha");
	memset(b->p.host_id, 1, sizeof(b->p.host_id));
	memset(b->p.boot_id, 0xb1, sizeof(b->p.boot_id));
	b->p.own_slot_is_dead = true;	/* says nothing of another boot */
	host_start(b);
	cluster_run(c, 13 * SEC);
	CU_ASSERT(b->ended && b->join_err == -EALREADY);
	CU_ASSERT_PTR_NOT_NULL(strstr(b->why, "--host-id"));
	CU_ASSERT_EQUAL(a->losses, 0);
	cluster_end(c);
}

/* A daemon that restarts on a machine whose lock file it holds need not wait for itself. */
static void restarted_daemon_takes_its_slot_at_once(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b;
	uint32_t slot, generation;

	cluster_run(c, 3 * SEC);
	slot = lockd_slot(a->ld);
	generation = lockd_generation(a->ld);
	sim_host_crash(a->env);
	b = host_init(c, 1, "alpha");
	memset(b->p.host_id, 1, sizeof(b->p.host_id));
	b->p.own_slot_is_dead = true;
	host_start(b);
	cluster_run_more(c, SEC);
	CU_ASSERT_TRUE_FATAL(b->joined);
	CU_ASSERT_EQUAL(lockd_slot(b->ld), slot);
	CU_ASSERT_EQUAL(lockd_generation(b->ld), generation + 1);
	CU_ASSERT_EQUAL(b->replays[slot], 1);
	CU_ASSERT_EQUAL(b->kills, 1);	/* made sure of, and its I/O ended, before the replay */
	cluster_end(c);
}

/* Another boot of this machine's id waits in full: machine ids get cloned. */
static void rebooted_host_waits_out_its_old_lease(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b;
	uint32_t slot;

	cluster_run(c, 3 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	b = host_init(c, 1, "alpha");
	memset(b->p.host_id, 1, sizeof(b->p.host_id));
	memset(b->p.boot_id, 0xb1, sizeof(b->p.boot_id));
	b->p.own_slot_is_dead = true;
	host_start(b);
	cluster_run_more(c, 5500 * MSEC);
	CU_ASSERT_FALSE(b->joined);
	cluster_run_more(c, 3 * SEC);
	CU_ASSERT_TRUE_FATAL(b->joined);
	CU_ASSERT_EQUAL(lockd_slot(b->ld), slot);
	CU_ASSERT_EQUAL(b->kills, 0);	/* it died with its boot */
	cluster_end(c);
}

/* A restart that dies half-way leaves a slot that claims itself: the next one goes on. */
static void restart_that_dies_while_replaying_is_taken_up(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b, *d;
	uint32_t slot;

	cluster_run(c, 3 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	b = host_init(c, 1, "alpha");
	memset(b->p.host_id, 1, sizeof(b->p.host_id));
	b->p.own_slot_is_dead = true;
	b->replay_takes_ns = 3 * SEC;
	host_start(b);
	cluster_run_more(c, SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).recoverer, slot);
	sim_host_crash(b->env);
	/* Another host finds it silent and recovers it. */
	d = host_up(c, 2, "delta");
	cluster_run_more(c, 10 * SEC);
	CU_ASSERT_TRUE(d->joined);
	CU_ASSERT_EQUAL(d->adopts[slot], 1);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	cluster_end(c);
}

/*
 * A key names one process for ever: were it the dead claimer's, the next restart would find
 * that key in force (its own) and never prove the other one fenced.
 */
static void restart_after_one_that_died_has_another_key(void)
{
	static const struct simdisk_params reserving = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &reserving);
	struct host *a = host_up(c, 0, "alpha"), *b, *d;
	uint32_t slot;
	uint64_t key;

	cluster_run(c, 3 * SEC);
	slot = lockd_slot(a->ld);
	sim_host_crash(a->env);
	b = host_init(c, 1, "alpha");
	memset(b->p.host_id, 1, sizeof(b->p.host_id));
	b->p.own_slot_is_dead = true;
	b->replay_takes_ns = 3 * SEC;
	host_start(b);
	cluster_run_more(c, SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_RECOVERING);
	key = cluster_slot(c, slot).key;
	sim_host_crash(b->env);
	d = host_init(c, 2, "alpha");
	memset(d->p.host_id, 1, sizeof(d->p.host_id));
	d->p.own_slot_is_dead = true;
	host_start(d);
	cluster_run_more(c, 3 * SEC);
	CU_ASSERT_TRUE_FATAL(d->joined);
	CU_ASSERT_EQUAL(lockd_slot(d->ld), slot);
	CU_ASSERT_NOT_EQUAL(cluster_slot(c, slot).key, key);
	cluster_end(c);
}

/* R5: the last generation is never followed by a smaller one. */
static void slot_at_its_last_generation_is_never_used_again(void)
{
	struct cluster *c = cluster_new(1, 2, NULL);
	struct host *a, *b;

	cluster_format(c, SLOT_GENERATION_LAST - 1);	/* slots at LAST - 1 and LAST */
	a = host_up(c, 0, "alpha");
	cluster_run(c, 2 * SEC);
	CU_ASSERT_TRUE_FATAL(a->joined);
	CU_ASSERT_EQUAL(lockd_slot(a->ld), 0);
	CU_ASSERT_EQUAL(lockd_generation(a->ld), SLOT_GENERATION_LAST);
	a->stop = true;
	cluster_run(c, 3 * SEC);
	b = host_up(c, 1, "alpha");
	cluster_run(c, 60 * SEC);
	CU_ASSERT(b->ended && b->join_err == -EUSERS);
	cluster_end(c);
}

/* No proof of death, no membership: -EOPNOTSUPP unless the administrator insists. */
static void join_is_refused_without_a_safe_rung(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_init(c, 0, "alpha"), *b = host_init(c, 1, "beta");
	struct lockd_status st;

	a->p.kill = NULL;
	b->p.kill = NULL;
	b->p.force_unsafe = true;
	host_start(a);
	host_start(b);
	cluster_run(c, 3 * SEC);
	CU_ASSERT(a->ended && a->join_err == -EOPNOTSUPP);
	CU_ASSERT_TRUE_FATAL(b->joined);
	lockd_status(b->ld, &st);
	CU_ASSERT_EQUAL(st.rung, FENCE_UNSAFE);
	CU_ASSERT_PTR_NOT_NULL(strstr(fence_rung_name(st.rung), "unsafe"));
	cluster_end(c);
}

/* ---- the heartbeat ---- */

#define CAW_MASK	(1u << BLK_CAW)

static struct simdisk_rule caw_rule(struct host *h, enum simdisk_fault fault, uint64_t count)
{
	return (struct simdisk_rule){
		.fault = fault, .ops = CAW_MASK, .host = h->env, .off = SLOTS_ADDR,
		.len = MIB, .count = count, .delay_ns = 300 * MSEC,
	};
}

/* VMFS took datastores offline for want of this: an unclear renewal is not a lost slot. */
static void unclear_heartbeats_do_not_lose_the_slot(void)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT, SIMDISK_TIMEOUT_APPLIED,
		SIMDISK_TIMEOUT_LATE, SIMDISK_DELAY,
	};

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		struct cluster *c = cluster_new(i + 1, 4, NULL);
		struct host *a = host_up(c, 0, "alpha");
		struct simdisk_rule rule;
		struct lockd_status st;
		uint64_t stalls;

		cluster_run(c, 2 * SEC);
		lockd_status(a->ld, &st);
		stalls = st.stalls;
		rule = caw_rule(a, faults[i], 25);
		simdisk_inject(c->disk, &rule);
		cluster_run(c, 40 * SEC);
		CU_ASSERT_EQUAL(a->losses, 0);
		CU_ASSERT_EQUAL(a->write_err, 0);
		lockd_status(a->ld, &st);
		CU_ASSERT_TRUE(st.lease_valid);
		/* What was applied counts: with its own t0, and no I/O ever waits. */
		if (faults[i] == SIMDISK_FAIL_APPLIED || faults[i] == SIMDISK_TIMEOUT_APPLIED)
			CU_ASSERT_EQUAL(st.stalls, stalls);
		CU_ASSERT_EQUAL(cluster_slot(c, lockd_slot(a->ld)).state, SLOT_LIVE);
		cluster_end(c);
	}
}

/* R2: what was applied but never answered renews from before it was sent, not from later. */
static void lease_runs_from_before_the_heartbeat(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");
	struct lockd_status st;

	cluster_run(c, 2 * SEC + 100 * MSEC);
	/* Each renewal now takes four seconds: it is good for one more when it is answered. */
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_DELAY, .ops = CAW_MASK, .host = a->env, .off = SLOTS_ADDR,
		.len = MIB, .delay_ns = 4 * SEC });
	for (unsigned int i = 0; i < 200; i++) {
		cluster_run_more(c, 50 * MSEC);
		lockd_status(a->ld, &st);
		if (st.lease_valid)
			CU_ASSERT(st.lease_age_ms < 5000);
	}
	CU_ASSERT(st.stalls > 0);
	CU_ASSERT_EQUAL(a->losses, 0);
	cluster_end(c);
}

/* A device that hangs for a minute stalls the guests; they go on when it answers again. */
static void hung_device_stalls_and_does_not_kill(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint64_t wrote;

	cluster_run(c, 3 * SEC);
	simdisk_stall(c->disk, NULL, 63 * SEC);
	cluster_run(c, 62 * SEC);
	wrote = a->wrote;
	cluster_run(c, 70 * SEC);
	CU_ASSERT(a->wrote > wrote + 100);
	CU_ASSERT(!a->losses && !b->losses);
	/* Nobody took the silence of the LUN for the death of a host (R3a). */
	CU_ASSERT(!a->kills && !b->kills);
	cluster_end(c);
}

static bool host_may_beat(void *arg)
{
	struct host *h = arg;

	return !h->no_beat;
}

/* While the privileged half is stopped nothing is renewed: I/O waits, and resumes after. */
static void no_renewal_while_it_must_not_beat(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_init(c, 0, "alpha");
	struct lockd_status st;
	uint64_t wrote;

	a->p.may_beat = host_may_beat;
	a->p.may_beat_arg = a;
	host_start(a);
	cluster_run(c, 2 * SEC);
	a->no_beat = true;
	cluster_run(c, 8 * SEC);
	lockd_status(a->ld, &st);
	CU_ASSERT_FALSE(st.lease_valid);
	wrote = a->wrote;
	cluster_run(c, 20 * SEC);
	CU_ASSERT_EQUAL(a->wrote, wrote);
	a->no_beat = false;
	cluster_run(c, 22 * SEC);
	CU_ASSERT(a->wrote > wrote);
	CU_ASSERT_EQUAL(a->losses, 0);
	cluster_end(c);
}

/* A restored snapshot thinks that no time has passed: its lease is void until renewed. */
static void gap_in_time_voids_the_lease(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");
	struct simdisk_rule rule;
	struct lockd_status st;

	cluster_run(c, 2 * SEC);
	/* Renewals fail from here on, so what the gap did can be seen. */
	rule = caw_rule(a, SIMDISK_FAIL, 0);
	simdisk_inject(c->disk, &rule);
	cluster_run(c, 3 * SEC);
	lockd_status(a->ld, &st);
	CU_ASSERT_TRUE(st.lease_valid);
	sim_host_jump(a->env, (int64_t)(30 * SEC));
	cluster_run_more(c, 500 * MSEC);
	lockd_status(a->ld, &st);
	CU_ASSERT_FALSE(st.lease_valid);
	simdisk_clear_rules(c->disk);
	cluster_run_more(c, 500 * MSEC);
	lockd_status(a->ld, &st);
	CU_ASSERT_TRUE(st.lease_valid);
	/* Real time set back is no gap. */
	sim_host_jump(a->env, -(int64_t)(30 * SEC));
	simdisk_inject(c->disk, &rule);
	cluster_run_more(c, 2 * SEC);
	lockd_status(a->ld, &st);
	CU_ASSERT_TRUE(st.lease_valid);
	simdisk_clear_rules(c->disk);
	cluster_end(c);
}

/* Somebody else's image in our slot is the end, within a beat: nothing more is written. */
static void stolen_slot_is_noticed_and_fails_everything(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");
	uint8_t sector[META_SECTOR_SIZE];
	uint64_t wrote, addr;
	struct slot s;

	cluster_run(c, 2 * SEC);
	s = cluster_slot(c, lockd_slot(a->ld));
	addr = SLOTS_ADDR + (uint64_t)s.index * META_BLOCK_SIZE;
	s.state = SLOT_RECOVERING;
	s.recoverer = s.index ^ 1;
	s.recoverer_generation = 9;
	s.sequence++;
	slot_encode(&s, cluster_volume, addr, sector, sizeof(sector));
	simdisk_poke(c->disk, addr, sector, sizeof(sector));
	cluster_run(c, 3 * SEC + 200 * MSEC);
	CU_ASSERT_EQUAL(a->losses, 1);
	CU_ASSERT_EQUAL(a->write_err, -ESTALE);
	CU_ASSERT_TRUE(lockd_lost(a->ld));
	wrote = a->wrote;
	cluster_run(c, 10 * SEC);
	CU_ASSERT_EQUAL(a->wrote, wrote);
	a->stop = true;
	cluster_run(c, 12 * SEC);
	CU_ASSERT_EQUAL(a->leave_err, -ESTALE);
	cluster_end(c);
}

/* Damage is nobody's claim: the host stalls, and goes on when the block is mended. */
static void damaged_slot_stalls_before_it_kills(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");
	uint8_t good[META_SECTOR_SIZE], bad[META_SECTOR_SIZE];
	uint64_t addr;

	cluster_run(c, 2 * SEC + 500 * MSEC);
	addr = SLOTS_ADDR + (uint64_t)lockd_slot(a->ld) * META_BLOCK_SIZE;
	simdisk_peek(c->disk, addr, good, sizeof(good));
	memcpy(bad, good, sizeof(bad));
	bad[100] ^= 1;
	simdisk_poke(c->disk, addr, bad, sizeof(bad));
	cluster_run_more(c, 4 * SEC);
	CU_ASSERT_EQUAL(a->losses, 0);
	simdisk_poke(c->disk, addr, good, sizeof(good));
	cluster_run_more(c, 2 * SEC);
	CU_ASSERT(!a->losses && gate_is_valid(a->ld->gate));
	simdisk_poke(c->disk, addr, bad, sizeof(bad));
	cluster_run_more(c, 10 * SEC);
	CU_ASSERT_EQUAL(a->losses, 1);
	simdisk_poke(c->disk, addr, good, sizeof(good));
	cluster_end(c);
}

/* R7: a host that cannot flush its journal gives itself up on the spot. */
static void host_that_fails_itself_is_out_at_once(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha");

	cluster_run(c, 2 * SEC);
	lockd_fail(a->ld, "the journal could not be flushed");
	CU_ASSERT_TRUE(lockd_lost(a->ld));
	cluster_run(c, 3 * SEC);
	CU_ASSERT_EQUAL(a->losses, 1);
	CU_ASSERT_EQUAL(a->write_err, -ESTALE);
	cluster_end(c);
}

/*
 * Who gave up by itself and has nothing under way need not be killed: the process may serve
 * other datastores, and its mounts must answer with EIO until they are unmounted.
 */
static void host_that_failed_itself_is_recovered_but_not_killed(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 2 * SEC);
	slot = lockd_slot(a->ld);
	lockd_fail(a->ld, "the journal could not be flushed");
	cluster_run(c, 4 * SEC);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_LIVE);
	CU_ASSERT(cluster_slot(c, slot).flags & SLOT_DRAINED);
	cluster_run(c, 20 * SEC);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	CU_ASSERT_EQUAL(b->kills, 0);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).flags, 0);
	cluster_end(c);
}

/* As long as a command of it may still land it must be killed like any other. */
static void host_that_cannot_drain_is_killed(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	uint32_t slot;

	cluster_run(c, 2 * SEC);
	slot = lockd_slot(a->ld);
	simdisk_inject(c->disk, &(struct simdisk_rule){
		.fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .host = a->env,
		.delay_ns = 60 * SEC });
	cluster_run(c, 2100 * MSEC);
	lockd_fail(a->ld, "the journal could not be flushed");
	cluster_run(c, 20 * SEC);
	CU_ASSERT_EQUAL(b->kills, 1);
	CU_ASSERT_EQUAL(b->adopts[slot], 1);
	cluster_end(c);
}

/* A join on a failing device ends with an error and leaves no slot taken for ever. */
static void every_command_of_a_join_may_fail(void)
{
	unsigned int failures = 0;

	for (uint64_t skip = 0; skip < 14; skip++) {
		struct cluster *c = cluster_new(skip + 1, 4, NULL);
		struct host *a = host_init(c, 0, "alpha");

		simdisk_inject(c->disk, &(struct simdisk_rule){
			.fault = SIMDISK_FAIL, .ops = ~0u, .skip = skip, .count = 1 });
		host_start(a);
		cluster_run(c, 3 * SEC);
		failures += a->ended && a->join_err;
		CU_ASSERT(a->joined || (a->ended && a->why[0]));
		if (a->ended)
			for (uint32_t i = 0; i < 4; i++)
				CU_ASSERT_EQUAL(cluster_slot(c, i).state, SLOT_FREE);
		cluster_end(c);
	}
	CU_ASSERT(failures > 0);
}

/* 4 KiB sectors: the compare-and-write covers the zeros behind the slot too. */
static void hosts_join_on_4k_sectors(void)
{
	struct simdisk_params p = { .sector = 4096 };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");

	cluster_run(c, 10 * SEC);
	CU_ASSERT(a->joined && b->joined && !a->losses && !b->losses);
	cluster_end(c);
}

/* What `lunfs hosts` shows. */
static void peers_are_shown(void)
{
	struct cluster *c = cluster_new(1, 4, NULL);
	struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta");
	struct lockd_peer peers[4];
	uint32_t slot;

	cluster_run(c, 4 * SEC);
	slot = lockd_slot(b->ld);
	CU_ASSERT_EQUAL(lockd_peers(a->ld, peers), 4);
	CU_ASSERT_TRUE(peers[lockd_slot(a->ld)].self);
	CU_ASSERT_TRUE(peers[slot].valid);
	CU_ASSERT_STRING_EQUAL(peers[slot].slot.host_name, "beta");
	CU_ASSERT_EQUAL(peers[slot].breakable_ms, UINT64_MAX);
	sim_host_crash(b->env);
	cluster_run(c, 8 * SEC);
	lockd_peers(a->ld, peers);
	CU_ASSERT(peers[slot].silent_ms >= 3000);
	CU_ASSERT(peers[slot].breakable_ms < 4000);
	cluster_end(c);
}

UNIT_MAIN("lockd/host",
	  UNIT_TEST(hosts_that_join_at_once_get_slots_of_their_own),
	  UNIT_TEST(leaving_retires_the_generation),
	  UNIT_TEST(slot_is_not_freed_when_settling_fails),
	  UNIT_TEST(host_takes_its_own_free_slot_again),
	  UNIT_TEST(join_fails_when_all_slots_are_taken),
	  UNIT_TEST(join_takes_over_a_dead_slot_when_none_is_free),
	  UNIT_TEST(join_refuses_a_host_id_that_is_alive),
	  UNIT_TEST(restarted_daemon_takes_its_slot_at_once),
	  UNIT_TEST(rebooted_host_waits_out_its_old_lease),
	  UNIT_TEST(restart_that_dies_while_replaying_is_taken_up),
	  UNIT_TEST(restart_after_one_that_died_has_another_key),
	  UNIT_TEST(slot_at_its_last_generation_is_never_used_again),
	  UNIT_TEST(join_is_refused_without_a_safe_rung),
	  UNIT_TEST(unclear_heartbeats_do_not_lose_the_slot),
	  UNIT_TEST(lease_runs_from_before_the_heartbeat),
	  UNIT_TEST(hung_device_stalls_and_does_not_kill),
	  UNIT_TEST(no_renewal_while_it_must_not_beat),
	  UNIT_TEST(gap_in_time_voids_the_lease),
	  UNIT_TEST(stolen_slot_is_noticed_and_fails_everything),
	  UNIT_TEST(damaged_slot_stalls_before_it_kills),
	  UNIT_TEST(host_that_fails_itself_is_out_at_once),
	  UNIT_TEST(host_that_failed_itself_is_recovered_but_not_killed),
	  UNIT_TEST(host_that_cannot_drain_is_killed),
	  UNIT_TEST(every_command_of_a_join_may_fail),
	  UNIT_TEST(hosts_join_on_4k_sectors),
	  UNIT_TEST(peers_are_shown));
