/* SPDX-License-Identifier: Apache-2.0 */
/* Lock records on disk: who holds, stale owners, unclear results.  lockd/lock.c, caw.c. */
#include "tests/lockd/lock_world.h"

#define BEAT	(1000 * MSEC)

/* A record as another host could have left it. */
static void poke_holder(struct world *w, int i, enum lock_mode mode, uint32_t slot,
			uint32_t generation)
{
	struct lockrec r;

	world_peek_record(w, i, &r);
	r.sequence++;
	r.mode = mode;
	r.owner = mode == LOCK_EXCLUSIVE ? slot : SLOT_NONE;
	r.owner_generation = mode == LOCK_EXCLUSIVE ? generation : 0;
	memset(r.sharers, 0, sizeof(r.sharers));
	if (mode != LOCK_EXCLUSIVE)
		r.sharers[slot] = generation;
	r.pid = 77;
	snprintf(r.comm, sizeof(r.comm), "vm7");
	world_poke_record(w, i, &r);
}

static void run_one(uint64_t seed, uint32_t sector, void (*body)(struct host *h))
{
	struct world *w = world_new(seed, 1, sector);

	w->hosts[0].body = body;
	world_run(w, 120 * SEC);
	world_free(w);
}

static void run_two(uint64_t seed, void (*first)(struct host *h), void (*second)(struct host *h))
{
	struct world *w = world_new(seed, 2, 512);

	w->hosts[0].body = first;
	w->hosts[1].body = second;
	world_run(w, 200 * SEC);
	world_free(w);
}

/* A slot of this volume that no host of the test has. */
static uint32_t empty_slot(const struct host *h)
{
	return (lockd_slot(h->ld) + 1) % WORLD_SLOTS;
}

/* ---- stale owners (R5) ---- */

static void stale_body(struct host *h)
{
	uint32_t slot = empty_slot(h), own = lockd_slot(h->ld);
	struct lockrec r;

	/* The slot is free at 100 + index: that generation and all before it are retired. */
	poke_holder(h->w, 0, LOCK_EXCLUSIVE, slot, 100 + slot);
	poke_holder(h->w, 1, LOCK_EXCLUSIVE, slot, 50);
	poke_holder(h->w, 2, LOCK_SHARED, slot, 50);
	poke_holder(h->w, 3, LOCK_MULTI, slot, 50);
	poke_holder(h->w, 4, LOCK_EXCLUSIVE, own, lockd_generation(h->ld) - 1);
	for (int i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_EQUAL(h->lock_reads, 5);
	CU_ASSERT_EQUAL(h->lock_caws, 5);
	CU_ASSERT_TRUE(h->wait_max_ns < 10 * MSEC);
	/* Shared with a stale sharer: no need to look. */
	poke_holder(h->w, 5, LOCK_SHARED, slot, 50);
	CU_ASSERT_EQUAL(host_op(h, 5, LOCK_SHARED, 0), 0);
	CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[5]), 0);
	world_peek_record(h->w, 5, &r);
	CU_ASSERT_EQUAL(r.sharers[own], 0);
}

/* Recovery never scans the locks: each is taken when somebody needs it. */
static void stale_owner_costs_no_waiting(void)
{
	run_one(1, 512, stale_body);
}

static void impossible_body(struct host *h)
{
	uint8_t byte = 1;

	/* A slot that this volume does not have. */
	poke_holder(h->w, 0, LOCK_EXCLUSIVE, WORLD_SLOTS, 5);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, 0), -EUCLEAN);
	poke_holder(h->w, 1, LOCK_SHARED, WORLD_SLOTS, 5);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), -EUCLEAN);
	/* Bytes behind the record, in the same sector: a compare-and-write would never match. */
	simdisk_poke(h->w->disk, LOCK_ADDR(2) + 1000, &byte, 1);
	CU_ASSERT_EQUAL(host_op(h, 2, LOCK_SHARED, 0), -EUCLEAN);
	/* Torn. */
	simdisk_poke(h->w->disk, LOCK_ADDR(3) + 70, &byte, 1);
	CU_ASSERT_EQUAL(host_op(h, 3, LOCK_SHARED, 0), -EUCLEAN);
	/* A generation that the slot has not reached. */
	poke_holder(h->w, 4, LOCK_EXCLUSIVE, empty_slot(h), 5000);
	CU_ASSERT_EQUAL(host_op(h, 4, LOCK_SHARED, 0), -EUCLEAN);
	CU_ASSERT_EQUAL(h->lock_caws, 0);
	/* One bad read is not a bad record. */
	world_inject(h->w, h, SIMDISK_CORRUPT, 1u << BLK_READ, 0, 1);
	CU_ASSERT_EQUAL(host_op(h, 5, LOCK_SHARED, 0), 0);
}

/* R6: a record that cannot be believed is nobody's to take. */
static void record_that_cannot_be_believed_is_not_taken(void)
{
	run_one(2, 4096, impossible_body);
}

/* ---- showing and breaking ---- */

static void show_holder_body(struct host *h)
{
	lock_set_user(h->ld, &h->locks[0], 4711, "qemu-system-x86_64-with-a-long-name");
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), 0);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_SHARED, 0, NULL), 0);
	h->w->stage = 1;
	world_await(h, 2);
	host_put(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN);
	host_put(h, 1, LOCK_SHARED, 0);
}

static void show_body(struct host *h)
{
	struct world *w = h->w;
	uint32_t alpha, stale;
	struct lock_holder x;

	world_await(h, 1);
	alpha = lockd_slot(w->hosts[0].ld);
	CU_ASSERT_EQUAL(lock_show(h->ld, LOCK_ADDR(0), &x), 0);
	CU_ASSERT_EQUAL(x.mode, LOCK_EXCLUSIVE);
	CU_ASSERT_EQUAL(x.slot, alpha);
	CU_ASSERT_EQUAL(x.generation, lockd_generation(w->hosts[0].ld));
	CU_ASSERT_STRING_EQUAL(x.host_name, "alpha");
	CU_ASSERT_STRING_EQUAL(x.comm, "qemu-system-x86_64-with-");
	CU_ASSERT_EQUAL(x.pid, 4711);
	CU_ASSERT_TRUE(x.silent_ms < 3000);
	CU_ASSERT_EQUAL(x.breakable_ms, UINT64_MAX);
	CU_ASSERT_EQUAL(lock_show(h->ld, LOCK_ADDR(1), &x), 0);
	CU_ASSERT_EQUAL(x.mode, LOCK_SHARED);
	CU_ASSERT_EQUAL(lock_show(h->ld, LOCK_ADDR(2), &x), 0);
	CU_ASSERT_EQUAL(x.mode, LOCK_FREE);
	for (stale = 0; stale == alpha || stale == lockd_slot(h->ld); )
		stale++;
	poke_holder(w, 3, LOCK_EXCLUSIVE, stale, 100 + stale);
	CU_ASSERT_EQUAL(lock_show(h->ld, LOCK_ADDR(3), &x), 0);
	CU_ASSERT_EQUAL(x.mode, LOCK_FREE);
	CU_ASSERT_EQUAL(lock_show_dev(h->dev, w->volume, SLOTS_ADDR, WORLD_SLOTS, LOCK_ADDR(0), &x),
			0);
	CU_ASSERT_EQUAL(x.mode, LOCK_EXCLUSIVE);
	CU_ASSERT_STRING_EQUAL(x.host_name, "alpha");
	CU_ASSERT_EQUAL(lock_show_dev(h->dev, w->volume, SLOTS_ADDR, WORLD_SLOTS, LOCK_ADDR(3), &x),
			0);
	CU_ASSERT_EQUAL(x.mode, LOCK_FREE);
	CU_ASSERT_EQUAL(lock_show_dev(h->dev, w->volume, SLOTS_ADDR, WORLD_SLOTS, 0, &x), -EUCLEAN);
	/* Breaking: the stale one at once, the living one never. */
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(3), &x), 0);
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(2), &x), 0);
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(0), &x), -EBUSY);
	CU_ASSERT_STRING_EQUAL(x.host_name, "alpha");
	CU_ASSERT_EQUAL(h->lock_caws, 1);
	CU_ASSERT_EQUAL(host_op(h, 2, LOCK_SHARED, 0), 0);
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(2), &x), -EBUSY);	/* our own */
	w->stage = 2;
}

/* `lunfs lock show` and `lunfs lock break`: nothing living is taken from anybody. */
static void show_names_the_holder_and_break_spares_the_living(void)
{
	run_two(3, show_holder_body, show_body);
}

static void crash_now(void *arg)
{
	struct host *h = arg;

	sim_host_crash(h->env);
}

static void break_victim_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, LOCK_OPEN, NULL), 0);
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), 0);
	h->w->stage = 1;
	sim_at(h->w->sim, sim_now_ns(h->w->sim) + MSEC, crash_now, h);
	host_sleep(h, 1000 * SEC);
}

static void break_body(struct host *h)
{
	struct lock_holder x;
	int err;

	world_await(h, 1);
	host_sleep(h, 3 * BEAT);
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(0), &x), -EBUSY);	/* not proven yet */
	CU_ASSERT_TRUE(x.silent_ms >= 1900);
	host_sleep(h, 3 * BEAT);
	do {
		host_sleep(h, 50 * MSEC);
		err = lock_break(h->ld, LOCK_ADDR(0), &x);
	} while (err == -EBUSY);
	CU_ASSERT_EQUAL(err, 0);
	CU_ASSERT_EQUAL(lock_show(h->ld, LOCK_ADDR(0), &x), 0);
	CU_ASSERT_EQUAL(x.mode, LOCK_FREE);
	CU_ASSERT_EQUAL(lock_break(h->ld, LOCK_ADDR(1), &x), 0);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
}

/* Only proven death breaks a lock (R3). */
static void break_waits_for_the_proof_of_death(void)
{
	run_two(4, break_victim_body, break_body);
}

/* ---- unclear compare-and-writes ---- */

struct unclear_case {
	enum simdisk_fault fault;
	uint64_t count;
	bool	reads_fail;	/* and it cannot even be read back */
};

static const struct unclear_case unclear_cases[] = {
	{ SIMDISK_TIMEOUT, 1, false }, { SIMDISK_TIMEOUT, 3, false },
	{ SIMDISK_TIMEOUT_APPLIED, 1, false }, { SIMDISK_TIMEOUT_APPLIED, 2, false },
	{ SIMDISK_TIMEOUT_LATE, 1, false }, { SIMDISK_TIMEOUT_LATE, 2, false },
	{ SIMDISK_FAIL, 1, false }, { SIMDISK_FAIL_APPLIED, 1, false },
	{ SIMDISK_TWICE, 1, false }, { SIMDISK_TWICE, 2, false },
	{ SIMDISK_TIMEOUT, 1, true }, { SIMDISK_TIMEOUT_APPLIED, 1, true },
	{ SIMDISK_TIMEOUT_LATE, 1, true }, { SIMDISK_FAIL_APPLIED, 1, true },
};

static const struct unclear_case *unclear_now;

/* The next compare-and-write of a lock is unclear. */
static void unclear_inject(struct host *h)
{
	struct world *w = h->w;

	world_inject(w, h, unclear_now->fault, 1u << BLK_CAW, 0, unclear_now->count);
	if (unclear_now->reads_fail)
		world_inject(w, h, SIMDISK_FAIL, 1u << BLK_READ, 1, 3);
}

static void unclear_acquire_body(struct host *h)
{
	int err;

	unclear_inject(h);
	err = host_op(h, 0, LOCK_EXCLUSIVE, 0);
	CU_ASSERT_EQUAL(err == 0, !unclear_now->reads_fail);
	if (err)
		CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[0]), LOCK_FREE);
	h->w->stage = 1;
	world_await(h, 2);
	simdisk_clear_rules(h->w->disk);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 3;
	world_await(h, 4);
}

static void unclear_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 10 * MSEC), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	h->w->stage = 2;
	world_await(h, 3);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 10 * MSEC), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	h->w->stage = 4;
}

static void unclear_release_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	if (unclear_now->reads_fail)
		world_inject(h->w, h, SIMDISK_FAIL, 1u << BLK_READ, 0, 3);
	world_inject(h->w, h, unclear_now->fault, 1u << BLK_CAW, 0, unclear_now->count);
	h->w->stage = 1;
	world_await(h, 2);
	simdisk_clear_rules(h->w->disk);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 3;
	world_await(h, 4);
}

static void unclear_reacquire_body(struct host *h)
{
	int err;

	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	if (unclear_now->reads_fail)
		world_inject(h->w, h, SIMDISK_FAIL, 1u << BLK_READ, 0, 3);
	world_inject(h->w, h, unclear_now->fault, 1u << BLK_CAW, 0, unclear_now->count);
	err = lock_evict(h->ld, &h->locks[0]);
	if (err)
		CU_ASSERT_TRUE(h->locks[0].unclear);
	/* Whatever is still under way must not undo this. */
	CU_ASSERT_EQUAL(host_get(h, 0, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_FALSE(h->locks[0].unclear);
	h->w->stage = 1;
	host_sleep(h, 2 * BEAT);
	host_put(h, 0, LOCK_EXCLUSIVE, 0);
	world_await(h, 2);
	h->w->stage = 3;
	world_await(h, 4);
}

static void unclear_upgrade_body(struct host *h)
{
	int err;

	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, 0), 0);
	/* No read comes before it. */
	if (unclear_now->reads_fail)
		world_inject(h->w, h, SIMDISK_FAIL, 1u << BLK_READ, 0, 3);
	world_inject(h->w, h, unclear_now->fault, 1u << BLK_CAW, 0, unclear_now->count);
	err = host_op(h, 0, LOCK_EXCLUSIVE, 0);
	CU_ASSERT_EQUAL(err == 0, !unclear_now->reads_fail);
	h->w->stage = 1;
	world_await(h, 2);
	simdisk_clear_rules(h->w->disk);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	h->w->stage = 3;
	world_await(h, 4);
}

static void unclear_downgrade_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, 10 * MSEC), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	host_sleep(h, 2 * BEAT);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 10 * MSEC), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	h->w->stage = 2;
	world_await(h, 3);
	h->w->stage = 4;
}

static void unclear_run(void (*first)(struct host *h), void (*second)(struct host *h))
{
	for (unsigned int i = 0; i < ARRAY_SIZE(unclear_cases); i++) {
		unclear_now = &unclear_cases[i];
		for (uint64_t seed = 0; seed < 3; seed++)
			run_two(100 + i * 10 + seed, first, second);
	}
}

/* VMFS took datastores offline for want of this: a timed-out acquire may have landed. */
static void unclear_acquire_is_ours_or_not_but_never_lost(void)
{
	unclear_run(unclear_acquire_body, unclear_other_body);
}

static void unclear_alone_body(struct host *h)
{
	struct lockrec r;

	unclear_inject(h);
	CU_ASSERT_NOT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->locks[0].unclear);
	host_sleep(h, 2 * BEAT);
	CU_ASSERT_FALSE(h->locks[0].known);
	world_peek_record(h->w, 0, &r);
	CU_ASSERT_EQUAL(r.mode, LOCK_FREE);
}

/* Nobody may ever ask for it again, or its memory be freed: what may still land must miss. */
static void unclear_acquire_is_cleared_without_being_asked(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(unclear_cases); i++) {
		unclear_now = &unclear_cases[i];
		if (unclear_now->reads_fail)
			run_one(200 + i, 512, unclear_alone_body);
	}
}

static void unclear_release_reaches_the_waiter(void)
{
	unclear_run(unclear_release_body, unclear_other_body);
}

/* A release that lands late would free a lock that is held again. */
static void late_release_does_not_undo_a_later_acquire(void)
{
	unclear_run(unclear_reacquire_body, unclear_other_body);
}

static void unclear_upgrade_keeps_at_least_what_there_was(void)
{
	unclear_run(unclear_upgrade_body, unclear_other_body);
}

static void unclear_downgrade_reaches_the_waiter(void)
{
	unclear_run(unclear_release_body, unclear_downgrade_other_body);
}

/* ---- upgrades ---- */

static void upgrade_body(struct host *h)
{
	uint64_t reads, caws;

	/* Free, then shared by nobody else: what is on disk is known. */
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, 0), 0);
	reads = h->lock_reads;
	caws = h->lock_caws;
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_EQUAL(h->lock_reads, reads);
	CU_ASSERT_EQUAL(h->lock_caws, caws + 1);
	/* Another one has come to share it, and we were not told. */
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_SHARED, 0), 0);
	h->w->stage = 1;
	world_await(h, 2);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_EXCLUSIVE, LOCK_TRY, NULL), -EAGAIN);
	CU_ASSERT_EQUAL(lock_held(h->ld, &h->locks[1]), LOCK_SHARED);
	h->w->stage = 3;
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 0), 0);
	world_await(h, 4);
}

static void upgrade_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_get(h, 1, LOCK_SHARED, 0, NULL), 0);
	h->w->stage = 2;
	world_await(h, 3);
	host_sleep(h, 2 * BEAT);
	host_put(h, 1, LOCK_SHARED, 0);
	/* Shared with a record that others wrote to, too: looked at before it is upgraded. */
	CU_ASSERT_EQUAL(host_op(h, 1, LOCK_EXCLUSIVE, 10 * MSEC), 0);
	h->w->stage = 4;
}

/* What we wrote last saves the read, and is never believed over what others wrote since (R1). */
static void an_upgrade_of_what_is_ours_alone_takes_one_command(void)
{
	run_two(1701, upgrade_body, upgrade_other_body);
}

/* ---- every device command fails once ---- */


static uint64_t fail_skip;
static enum simdisk_fault fail_fault;

static void each_fails_body(struct host *h)
{
	struct world *w = h->w;

	world_inject(w, h, fail_fault, OPS_RW, fail_skip, 1);
	host_op(h, 0, LOCK_SHARED, 0);
	host_op(h, 0, LOCK_EXCLUSIVE, 0);
	w->stage = 1;
	host_sleep(h, 2 * BEAT);
	host_op(h, 0, LOCK_EXCLUSIVE, 0);
	lock_evict(h->ld, &h->locks[0]);
	host_op(h, 1, LOCK_MULTI, 0);
	host_op(h, 1, LOCK_SHARED, 0);
	simdisk_clear_rules(w->disk);
	host_sleep(h, 2 * BEAT);
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
		CU_ASSERT_FALSE(h->locks[i].unclear);
	}
	w->stage = 2;
	world_await(h, 3);
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(lock_evict(h->ld, &h->locks[i]), 0);
		CU_ASSERT_FALSE(h->locks[i].known);
	}
}

static void each_fails_other_body(struct host *h)
{
	world_await(h, 1);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_SHARED, 0), 0);
	world_await(h, 2);
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(host_op(h, i, LOCK_EXCLUSIVE, 0), 0);
	CU_ASSERT_TRUE(h->wait_max_ns < 5 * SEC);
	h->w->stage = 3;
}

/* Whatever single command fails: nothing is held twice, and all works again afterwards. */
static void any_command_may_fail_once(void)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT_LATE,
	};

	for (unsigned int f = 0; f < ARRAY_SIZE(faults); f++) {
		fail_fault = faults[f];
		for (fail_skip = 0; fail_skip < 25; fail_skip++)
			run_two(500 + fail_skip, each_fails_body, each_fails_other_body);
	}
}

/* ---- all at once ---- */

static void storm_thread(void *arg)
{
	struct host *h = arg;

	for (int n = 0; n < 25; n++) {
		int i = (int)env_random_below(h->env, 3), err;
		uint64_t dice = env_random_below(h->env, 10);
		enum lock_mode mode = dice < 5 ? LOCK_EXCLUSIVE : dice < 9 ? LOCK_SHARED :
									     LOCK_MULTI;
		unsigned int flags = env_random_below(h->env, 10) == 0 ? LOCK_OPEN : 0;

		err = host_get(h, i, mode, flags, NULL);
		CU_ASSERT_TRUE(!err || err == -EBUSY || err == -EIO || err == -ETIMEDOUT);
		host_sleep(h, env_random_below(h->env, 30) * MSEC);
		if (!err)
			host_put(h, i, mode, flags);
		if (env_random_below(h->env, 8) == 0) {
			err = lock_evict(h->ld, &h->locks[i]);
			CU_ASSERT_TRUE(!err || err == -EBUSY || err == -EIO || err == -ETIMEDOUT);
		}
		host_sleep(h, env_random_below(h->env, 300) * MSEC);
	}
}

static void storm_body(struct host *h)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT, SIMDISK_TIMEOUT_APPLIED,
		SIMDISK_TIMEOUT_LATE, SIMDISK_DELAY, SIMDISK_CORRUPT,
	};
	struct env_thread *t[3];

	for (uint64_t i = 0; i < 14; i++)
		world_inject(h->w, h, faults[i % ARRAY_SIZE(faults)], OPS_RW,
			     5 + i * 4 + env_random_below(h->env, 4), 1);
	for (int i = 0; i < 3; i++)
		env_thread_start(h->env, "user", storm_thread, h, &t[i]);
	for (int i = 0; i < 3; i++)
		env_thread_join(h->env, t[i]);
	CU_ASSERT_TRUE(h->ops > 30);
}

/* Several hosts and threads, all modes, opens, evictions and a bad device: R1 and R4 hold. */
static void nothing_is_held_twice_in_a_storm(void)
{
	for (uint64_t seed = 1000; seed < 1030; seed++) {
		struct world *w = world_new(seed, 3, seed % 2 ? 512 : 4096);

		for (int n = 0; n < 3; n++)
			w->hosts[n].body = storm_body;
		world_run(w, 2000 * SEC);
		if (w->violations)
			printf("\nseed %llu: %u violations\n", (unsigned long long)seed,
			       w->violations);
		world_free(w);
	}
}

static void crashing_storm_body(struct host *h)
{
	sim_at(h->w->sim, sim_now_ns(h->w->sim) + 500 * MSEC +
	       env_random_below(h->env, 4000) * MSEC, crash_now, h);
	storm_body(h);
}

/* Hosts that die at any point of it: what they had done is found, and nobody waits for ever. */
static void storm_outlives_hosts(void)
{
	for (uint64_t seed = 2000; seed < 2030; seed++) {
		struct world *w = world_new(seed, 4, seed % 2 ? 512 : 4096);

		for (int n = 0; n < 4; n++)
			w->hosts[n].body = n < 2 ? crashing_storm_body : storm_body;
		world_run(w, 2000 * SEC);
		for (int i = 0; i < 3; i++)
			CU_ASSERT_TRUE(w->truth[i] > 8);
		world_free(w);
	}
}

UNIT_MAIN("lock records",
	  UNIT_TEST(stale_owner_costs_no_waiting),
	  UNIT_TEST(record_that_cannot_be_believed_is_not_taken),
	  UNIT_TEST(show_names_the_holder_and_break_spares_the_living),
	  UNIT_TEST(break_waits_for_the_proof_of_death),
	  UNIT_TEST(unclear_acquire_is_ours_or_not_but_never_lost),
	  UNIT_TEST(unclear_acquire_is_cleared_without_being_asked),
	  UNIT_TEST(unclear_release_reaches_the_waiter),
	  UNIT_TEST(late_release_does_not_undo_a_later_acquire),
	  UNIT_TEST(unclear_upgrade_keeps_at_least_what_there_was),
	  UNIT_TEST(unclear_downgrade_reaches_the_waiter),
	  UNIT_TEST(an_upgrade_of_what_is_ours_alone_takes_one_command),
	  UNIT_TEST(any_command_may_fail_once),
	  UNIT_TEST(nothing_is_held_twice_in_a_storm),
	  UNIT_TEST(storm_outlives_hosts));
