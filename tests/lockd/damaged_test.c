/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock records that no host of a sound volume writes, with checksums that are right: whoever comes to one
 * gets an answer in time.  Either an error that names the record, or the lock, where nobody can have it;
 * never one that a living host may hold (R1, R3).  docs/LOCKING.md, "Records that cannot be".
 */
#include "tests/lockd/lock_world.h"

#define BEAT	(1000 * MSEC)
#define LIMIT	(40 * SEC)	/* the longest: a host that is recovered by nobody who gets on */

static char told[64 * KIB];	/* what was logged */
static size_t told_len;

static void tell(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (told_len + 1 < sizeof(told))
		told_len += (size_t)snprintf(told + told_len, sizeof(told) - told_len, "%s\n", line);
	if (told_len >= sizeof(told))
		told_len = sizeof(told) - 1;
}

/* What is done to a record, and what whoever wants the lock has to be answered. */
struct damage {
	const char *what;
	void (*poke)(struct host *h, struct lockrec_disk *d);
	int	err;
	enum { SAME, OPENS, SHARES } but;	/* an exclusive open, or sharing it, succeeds */
};

static void put32(le32 *to, uint32_t v)
{
	*to = cpu_to_le32(v);
}

/* A slot that no host of the test has: FREE, at generation 100 + index. */
static uint32_t empty_slot(const struct host *h)
{
	bool used[WORLD_SLOTS] = { false };
	uint32_t i = 0;

	for (unsigned int n = 0; n < h->w->host_count; n++)
		if (h->w->hosts[n].ld)
			used[lockd_slot(h->w->hosts[n].ld)] = true;
	while (used[i])
		i++;
	return i;
}

static void exclusive(struct lockrec_disk *d, uint32_t slot, uint32_t generation)
{
	put32(&d->mode, LOCK_EXCLUSIVE);
	put32(&d->owner, slot);
	put32(&d->owner_generation, generation);
}

static void shared(struct lockrec_disk *d, uint32_t slot, uint32_t generation)
{
	put32(&d->mode, LOCK_SHARED);
	put32(&d->sharers[slot], generation);
}

static void heir(struct lockrec_disk *d, uint32_t slot, uint32_t generation)
{
	put32(&d->heir, slot);
	put32(&d->heir_generation, generation);
}

/* ---- records that contradict themselves, or the volume ---- */

static void mode_of_none(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->mode, 4);
}

static void exclusive_of_nobody(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->mode, LOCK_EXCLUSIVE);
}

static void exclusive_of_no_time(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, empty_slot(h), 0);
}

static void owner_of_nothing(struct host *h, struct lockrec_disk *d)
{
	put32(&d->owner, empty_slot(h));
}

static void generation_of_nothing(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->owner_generation, 7);
}

static void owner_and_sharer(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, empty_slot(h), 7);
	put32(&d->sharers[empty_slot(h)], 7);
}

static void free_and_sharer(struct host *h, struct lockrec_disk *d)
{
	put32(&d->sharers[empty_slot(h)], 7);
}

static void sequence_of_none(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	d->sequence = cpu_to_le64(0);
}

static void sequence_at_its_end(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	d->sequence = cpu_to_le64(UINT64_MAX);
}

static void slot_that_is_none(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	exclusive(d, WORLD_SLOTS, 7);
}

static void sharer_that_is_none(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	shared(d, SLOT_COUNT_MAX - 1, 7);
}

static void heir_that_is_none(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, empty_slot(h), 7);
	heir(d, WORLD_SLOTS, 7);
}

static void heir_of_what_is_shared(struct host *h, struct lockrec_disk *d)
{
	shared(d, empty_slot(h), 7);
	heir(d, 0, 7);
}

static void owner_of_the_future(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, empty_slot(h), 5000);
}

static void sharer_of_the_future(struct host *h, struct lockrec_disk *d)
{
	shared(d, empty_slot(h), UINT32_MAX);
}

/* Not a slot that was lost: nobody else has had it. */
static void later_owner_of_our_slot(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, lockd_slot(h->ld), lockd_generation(h->ld) + 1);
}

static void later_sharer_of_our_slot(struct host *h, struct lockrec_disk *d)
{
	shared(d, lockd_slot(h->ld), lockd_generation(h->ld) + 9);
}

/* ---- records that are possible, of holders that are not ---- */

static void shared_by_nobody(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->mode, LOCK_SHARED);
}

static void multi_of_nobody(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->mode, LOCK_MULTI);
}

static void owned_by_us(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, lockd_slot(h->ld), lockd_generation(h->ld));
}

static void shared_by_us(struct host *h, struct lockrec_disk *d)
{
	shared(d, lockd_slot(h->ld), lockd_generation(h->ld));
}

static void multi_of_us(struct host *h, struct lockrec_disk *d)
{
	shared(d, lockd_slot(h->ld), lockd_generation(h->ld));
	put32(&d->mode, LOCK_MULTI);
}

static void left_by_us(struct host *h, struct lockrec_disk *d)
{
	owned_by_us(h, d);
	heir(d, empty_slot(h), 5000);
}

static void left_to_us(struct host *h, struct lockrec_disk *d)
{
	exclusive(d, empty_slot(h), 100 + empty_slot(h));
	heir(d, lockd_slot(h->ld), lockd_generation(h->ld));
}

static void all_slots_at_once(struct host *h, struct lockrec_disk *d)
{
	put32(&d->mode, LOCK_SHARED);
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		put32(&d->sharers[i], i == lockd_slot(h->ld) ? lockd_generation(h->ld) : 1);
}

static void texts_and_times(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	put32(&d->pid, UINT32_MAX);
	d->since = cpu_to_le64(UINT64_MAX);
	memset(d->comm, 0xff, sizeof(d->comm));
}

static const struct damage damages[] = {
	{ "mode", mode_of_none, -EUCLEAN, SAME },
	{ "exclusive, no owner", exclusive_of_nobody, -EUCLEAN, SAME },
	{ "exclusive, generation 0", exclusive_of_no_time, -EUCLEAN, SAME },
	{ "free, an owner", owner_of_nothing, -EUCLEAN, SAME },
	{ "free, an owner's generation", generation_of_nothing, -EUCLEAN, SAME },
	{ "exclusive, a sharer", owner_and_sharer, -EUCLEAN, SAME },
	{ "free, a sharer", free_and_sharer, -EUCLEAN, SAME },
	{ "sequence 0", sequence_of_none, -EUCLEAN, SAME },
	{ "sequence 2^64 - 1", sequence_at_its_end, -EUCLEAN, SAME },
	{ "owner beyond the slots", slot_that_is_none, -EUCLEAN, SAME },
	{ "sharer beyond the slots", sharer_that_is_none, -EUCLEAN, SAME },
	{ "heir beyond the slots", heir_that_is_none, -EUCLEAN, SAME },
	{ "shared, an heir", heir_of_what_is_shared, -EUCLEAN, SAME },
	{ "owner's generation not reached", owner_of_the_future, -EUCLEAN, SAME },
	{ "sharer's generation not reached", sharer_of_the_future, -EUCLEAN, SHARES },
	{ "own slot, later owner", later_owner_of_our_slot, -EUCLEAN, SAME },
	{ "own slot, later sharer", later_sharer_of_our_slot, -EUCLEAN, SHARES },
	{ "shared by nobody", shared_by_nobody, 0, SAME },
	{ "of several writers, nobody", multi_of_nobody, 0, SAME },
	{ "ours, not held", owned_by_us, 0, SAME },
	{ "shared by us, not held", shared_by_us, 0, SAME },
	{ "of several writers, us, not held", multi_of_us, 0, SAME },
	{ "left by us, not held", left_by_us, -EBUSY, OPENS },
	{ "left to us by a dead one", left_to_us, 0, SAME },
	{ "every slot shares", all_slots_at_once, 0, SAME },
	{ "texts and times", texts_and_times, 0, SAME },
};

/* A free record, spoilt, with a checksum that is right. */
static void spoil(struct host *h, int i, void (*poke)(struct host *h, struct lockrec_disk *d))
{
	struct meta_expect e = { .type = META_LOCK, .volume = h->w->volume, .addr = LOCK_ADDR(i) };
	uint8_t block[META_BLOCK_SIZE];
	struct lockrec r;

	lockrec_init(h->env, &r);
	lockrec_encode(&r, h->w->volume, LOCK_ADDR(i), block, sizeof(block));
	poke(h, (struct lockrec_disk *)(void *)block);
	meta_seal(block, &e, 0);
	simdisk_poke(h->w->disk, LOCK_ADDR(i), block, sizeof(block));
}

static const struct damage *now;

/* -EUCLEAN is said with the record's address and the way out. */
static void check_told(int i, int err)
{
	char name[32];

	snprintf(name, sizeof(name), "0x%llx", (unsigned long long)LOCK_ADDR(i));
	if (err == -EUCLEAN)
		CU_ASSERT(strstr(told, name) && strstr(told, "run fsck.lunfs"));
}

static void expect(struct host *h, int i, const char *how, int err, int expected)
{
	if (err != expected)
		printf("\n%s, %s: %d, expected %d\n", now->what, how, err, expected);
	CU_ASSERT_EQUAL(err, expected);
	check_told(i, err);
	CU_ASSERT(h->wait_max_ns < LIMIT);
	told_len = 0;
	told[0] = '\0';
}

static int expected_open(void)
{
	return now->but == OPENS ? 0 : now->err;
}

/* Not held before: to read, to write, by an open, by one of several writers, shown, broken. */
static void fresh_body(struct host *h)
{
	static const enum lock_mode modes[] = { LOCK_SHARED, LOCK_EXCLUSIVE, LOCK_MULTI };
	struct lock_holder x;
	int err;

	for (size_t m = 0; m < ARRAY_SIZE(modes); m++) {
		spoil(h, (int)m, now->poke);
		/* Nobody asks with whom a lock is shared. */
		expect(h, (int)m, lock_mode_name(modes[m]), host_op(h, (int)m, modes[m], 0),
		       now->but == SHARES && modes[m] == LOCK_SHARED ? 0 : now->err);
	}
	spoil(h, 3, now->poke);
	err = host_get(h, 3, LOCK_EXCLUSIVE, LOCK_OPEN, NULL);
	expect(h, 3, "open", err, expected_open());
	if (!err)
		host_put(h, 3, LOCK_EXCLUSIVE, LOCK_OPEN);
	spoil(h, 4, now->poke);
	err = host_get(h, 4, LOCK_EXCLUSIVE, LOCK_TRY, NULL);
	expect(h, 4, "try", err, now->err == -EBUSY ? -EAGAIN : now->err);
	if (!err)
		host_put(h, 4, LOCK_EXCLUSIVE, LOCK_TRY);
	spoil(h, 5, now->poke);
	err = lock_show(h->ld, LOCK_ADDR(5), &x);
	expect(h, 5, "show", err, now->err == -EBUSY ? 0 : now->err);
	err = lock_break(h->ld, LOCK_ADDR(5), &x);
	CU_ASSERT(err == now->err || err == -EBUSY || !err);	/* ours it leaves alone */
	check_told(5, err);
}

/* ---- spoilt while we hold it ---- */

/* An upgrade of a lock that is only cached. */
static void cached_body(struct host *h)
{
	int err;

	CU_ASSERT_EQUAL(host_op(h, 10, LOCK_SHARED, 0), 0);
	spoil(h, 10, now->poke);
	err = host_get(h, 10, LOCK_EXCLUSIVE, LOCK_OPEN, NULL);
	expect(h, 10, "upgrade", err, expected_open());
	if (!err)
		host_put(h, 10, LOCK_EXCLUSIVE, LOCK_OPEN);
}

/* The same of one that is in use. */
static void used_body(struct host *h)
{
	CU_ASSERT_EQUAL(host_get(h, 11, LOCK_SHARED, LOCK_OPEN, NULL), 0);
	spoil(h, 11, now->poke);
	expect(h, 11, "upgrade in use", host_op(h, 11, LOCK_EXCLUSIVE, 0), now->err);
	host_put(h, 11, LOCK_SHARED, LOCK_OPEN);
}

/* Shared, and of several writers: by way of free. */
static void other_mode_body(struct host *h)
{
	int err;

	CU_ASSERT_EQUAL(host_op(h, 12, LOCK_SHARED, 0), 0);
	spoil(h, 12, now->poke);
	err = host_op(h, 12, LOCK_MULTI, 0);
	CU_ASSERT(!err || err == -EUCLEAN || err == -EBUSY || err == -ESTALE);
	CU_ASSERT(h->wait_max_ns < LIMIT);
}

/* Given up: whatever the record says, it ends, and if it is another's by now the host does (R1). */
static void release_body(struct host *h)
{
	int err;

	CU_ASSERT_EQUAL(host_op(h, 13, LOCK_EXCLUSIVE, 0), 0);
	spoil(h, 13, now->poke);
	err = lock_evict(h->ld, &h->locks[13]);
	CU_ASSERT(!err || err == -EUCLEAN || err == -ESTALE);
	CU_ASSERT(err == -ESTALE || lock_held(h->ld, &h->locks[13]) == LOCK_FREE);
}

static void run(uint64_t seed, uint32_t sector, void (*body)(struct host *h))
{
	struct world *w = world_new(seed, 1, sector);

	told_len = 0;
	told[0] = '\0';
	sim_host_log(w->hosts[0].env, tell, NULL);
	w->hosts[0].body = body;
	world_run(w, 300 * SEC);
	world_free(w);
}

static void run_each(void (*body)(struct host *h))
{
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		now = &damages[i];
		run(100 + i, i % 2 ? 4096 : 512, body);
	}
}

/* Whoever opened a file of such a lock waited for ever, or was told that his own host was lost. */
static void whoever_wants_an_impossible_lock_is_answered(void)
{
	run_each(fresh_body);
}

static void a_lock_spoilt_while_it_is_held_ends(void)
{
	run_each(cached_body);
	run_each(used_body);
	run_each(other_mode_body);
	run_each(release_body);
}

/* ---- holders that live, or whose slots are spoilt ---- */

static void beside_body(struct host *h)
{
	world_await(h, 2);
}

static void name_beta(struct host *h, struct lockrec_disk *d)
{
	const struct host *o = &h->w->hosts[1];

	exclusive(d, lockd_slot(o->ld), lockd_generation(o->ld));
}

static void share_beta(struct host *h, struct lockrec_disk *d)
{
	const struct host *o = &h->w->hosts[1];

	shared(d, lockd_slot(o->ld), lockd_generation(o->ld));
}

static void leave_beta(struct host *h, struct lockrec_disk *d)
{
	name_beta(h, d);
	heir(d, empty_slot(h), 5000);
}

/* Another host that lives is named, and knows nothing of it: only it may say so. */
static void stranger_body(struct host *h)
{
	static const struct damage cases[] = {
		{ "of a living host", name_beta, 0, SAME },
		{ "shared by a living host", share_beta, 0, SAME },
		{ "left by a living host", leave_beta, -EBUSY, SAME },
	};
	struct lock_holder x = { .mode = LOCK_FREE };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		now = &cases[i];
		spoil(h, (int)i, now->poke);
		expect(h, (int)i, "to write", host_get(h, (int)i, LOCK_EXCLUSIVE, 0, &x), now->err);
		if (!now->err)
			host_put(h, (int)i, LOCK_EXCLUSIVE, 0);
		else
			CU_ASSERT_STRING_EQUAL(x.host_name, "beta");
	}
	h->w->stage = 2;
}

static void the_living_are_asked_and_never_robbed(void)
{
	struct world *w = world_new(7, 2, 512);

	w->hosts[0].body = stranger_body;
	w->hosts[1].body = beside_body;
	world_run(w, 300 * SEC);
	world_free(w);
}

static struct slot odd;

static void name_odd(struct host *h, struct lockrec_disk *d)
{
	(void)h;
	exclusive(d, odd.index, odd.generation);
}

/* A slot in some state at that generation, of which nobody ever hears again. */
static void odd_slot_body(struct host *h)
{
	int err;

	odd.index = empty_slot(h);
	odd.generation = 5000;
	odd.sequence = 3000;
	if (odd.state == SLOT_RECOVERING && odd.recoverer != SLOT_NONE)
		odd.recoverer = odd.recoverer ? odd.index : (odd.index + 1) % WORLD_SLOTS;
	if (odd.recoverer == lockd_slot(h->ld))
		odd.recoverer = (odd.recoverer + 1) % WORLD_SLOTS;
	world_poke_slot(h->w, &odd);
	spoil(h, 0, name_odd);
	err = host_op(h, 0, LOCK_EXCLUSIVE, 0);
	CU_ASSERT_EQUAL(err, now->err);
	CU_ASSERT(h->wait_max_ns < LIMIT);
	if (err == -EUCLEAN)
		CU_ASSERT(strstr(told, "run fsck.lunfs") != NULL);
}

static void unreadable_slot_body(struct host *h)
{
	uint8_t byte = 1;

	odd.index = empty_slot(h);
	odd.generation = 100 + odd.index;
	simdisk_poke(h->w->disk, SLOTS_ADDR + (uint64_t)odd.index * META_BLOCK_SIZE + 70, &byte, 1);
	spoil(h, 0, name_odd);
	expect(h, 0, "slot that cannot be believed", host_op(h, 0, LOCK_EXCLUSIVE, 0), -EUCLEAN);
	expect(h, 0, "the same, shared", host_op(h, 0, LOCK_SHARED, 0), -EUCLEAN);
}

/* It is taken over as from any dead host, or, where nobody can, that is said. */
static void holders_that_never_lived_are_recovered_or_named(void)
{
	static const struct damage taken = { "a slot that nobody has", NULL, 0, SAME };
	static const struct damage never = { "a recoverer that is none", NULL, -EHOSTDOWN, SAME };

	now = &taken;
	odd = (struct slot){ .state = SLOT_LIVE, .recoverer = SLOT_NONE };
	run(1, 512, odd_slot_body);
	odd = (struct slot){ .state = SLOT_JOINING, .recoverer = SLOT_NONE };
	run(2, 512, odd_slot_body);
	odd = (struct slot){ .state = SLOT_RECOVERING, .recoverer = 1, .recoverer_generation = 5000 };
	run(3, 512, odd_slot_body);
	odd = (struct slot){ .state = SLOT_RECOVERING, .recoverer = 0, .recoverer_generation = 50 };
	run(4, 512, odd_slot_body);
	now = &never;
	odd = (struct slot){ .state = SLOT_RECOVERING, .recoverer = 0, .recoverer_generation = 9000 };
	run(5, 512, odd_slot_body);
	run(6, 512, unreadable_slot_body);
}

/* ---- a device that does not compare what it reads ---- */

static void deaf_body(struct host *h)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_CAW, .host = h->env,
				     .off = LOCKS_ADDR, .len = LOCK_REGION, .count = UINT64_MAX };

	/* Each fails, and reads back as it was. */
	simdisk_inject(h->w->disk, &rule);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), -EIO);
	CU_ASSERT(h->wait_max_ns < LIMIT);
	CU_ASSERT(strstr(told, "lunfs selftest") != NULL);
	simdisk_clear_rules(h->w->disk);
	host_sleep(h, 2 * BEAT);
	CU_ASSERT_EQUAL(host_op(h, 0, LOCK_EXCLUSIVE, 0), 0);
}

static void a_compare_and_write_that_never_succeeds_is_an_error(void)
{
	run(8, 512, deaf_body);
}

UNIT_MAIN("lock records that cannot be",
	  UNIT_TEST(whoever_wants_an_impossible_lock_is_answered),
	  UNIT_TEST(a_lock_spoilt_while_it_is_held_ends),
	  UNIT_TEST(the_living_are_asked_and_never_robbed),
	  UNIT_TEST(holders_that_never_lived_are_recovered_or_named),
	  UNIT_TEST(a_compare_and_write_that_never_succeeds_is_an_error));
