/* SPDX-License-Identifier: Apache-2.0 */
/* A repair has the volume to itself, whoever comes when. */
#include "fs/claim.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "tests/fs/attached.h"

#define SIZE	(512 * MIB)

/* Who repairs: a process on a machine of its own. */
struct claimer {
	struct cluster *c;
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct claim *claim;
	char why[400];
	int err;
	bool ended;
};

static void claimer_open(struct cluster *c, struct claimer *x, const char *name)
{
	memset(x, 0, sizeof(*x));
	x->c = c;
	x->env = sim_host(c->sim, name);
	x->dev = simdisk_open(c->disk, x->env);
	x->hb_dev = simdisk_open(c->disk, x->env);
}

static void claimer_close(struct claimer *x)
{
	blkdev_close(x->hb_dev);
	blkdev_close(x->dev);
}

static void claimer_take(void *arg)
{
	struct claimer *x = arg;
	struct claim_params p = { .env = x->env, .dev = x->dev, .hb_dev = x->hb_dev, .pid = 7,
				  .pid_start = 1, .host_name = "fsck" };

	env_random(x->env, p.host_id, sizeof(p.host_id));
	env_random(x->env, p.boot_id, sizeof(p.boot_id));
	x->err = claim_take(&p, &x->claim, x->why, sizeof(x->why));
	x->ended = true;
}

/* The two begin within 40 ms of each other, at any microsecond. */
static void a_moment(struct cluster *c)
{
	env_sleep_until(c->env, env_now_ns(c->env) + env_random_below(c->env, 40 * NSEC_PER_MSEC));
}

/* In a thread of its own host: that may crash. */
static void claimer_start(struct claimer *x, struct env_thread **thread)
{
	CU_ASSERT_EQUAL_FATAL(env_thread_start(x->env, "fsck", claimer_take, x, thread), 0);
}

static void claim_keeps_hosts_away(struct cluster *c)
{
	struct claimer x;

	claimer_open(c, &x, "fsck");
	claimer_take(&x);
	CU_ASSERT_EQUAL_FATAL(x.err, 0);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "fsck.lunfs"));
	CU_ASSERT_EQUAL(claim_release(x.claim, true), 0);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
	claimer_close(&x);
}

/* Hosts must not run on under a repair. */
static void while_a_claim_is_held_no_host_attaches(void)
{
	cluster_run(1, SIZE, claim_keeps_hosts_away);
}

static void host_keeps_claims_away(struct cluster *c)
{
	struct claimer x;

	cluster_alone(c);
	claimer_open(c, &x, "fsck");
	claimer_take(&x);
	CU_ASSERT_EQUAL(x.err, -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(x.why, "alpha"));
	claimer_close(&x);
	/* And it left nothing behind that keeps others away. */
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
}

static void while_a_host_lives_no_claim_is_given(void)
{
	cluster_run(2, SIZE, host_keeps_claims_away);
}

/* What a dead host had committed is the volume that is repaired. */
static void dead_host_is_recovered(struct cluster *c)
{
	struct fs_attr attr = { 0 };
	struct claimer x;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG | 0644, 0, &cluster_cred,
				  &attr), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	cluster_crash(c, 0);
	claimer_open(c, &x, "fsck");
	claimer_take(&x);
	CU_ASSERT_EQUAL_FATAL(x.err, 0);
	CU_ASSERT_EQUAL(claim_release(x.claim, true), 0);
	claimer_close(&x);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(fs_lookup(c->hosts[1].fs, fs_root(c->hosts[1].fs), "f", &attr), 0);
}

static void a_claim_recovers_dead_hosts_first(void)
{
	cluster_run(3, SIZE, dead_host_is_recovered);
}

static void stopped_repair(struct cluster *c)
{
	struct env_thread *thread;
	struct claimer x, y;

	claimer_open(c, &x, "fsck");
	claimer_start(&x, &thread);
	while (!x.ended)
		cluster_sleep(c, 100);
	CU_ASSERT_EQUAL_FATAL(x.err, 0);
	sim_host_crash(x.env);
	/* Its slot is recovered by whoever tries, and the volume refused all the same. */
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), -EBUSY);
	cluster_sleep(c, 20000);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), -EBUSY);
	claimer_open(c, &y, "fsck2");
	claimer_take(&y);
	CU_ASSERT_EQUAL_FATAL(y.err, 0);
	CU_ASSERT_EQUAL(claim_release(y.claim, true), 0);
	claimer_close(&y);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
}

/* A repair that was killed leaves a volume that is half repaired: nobody may mount it. */
static void a_stopped_repair_keeps_hosts_away_until_another_one(void)
{
	cluster_run(4, SIZE, stopped_repair);
}

static bool attached_at_all, claimed_at_all;

/* Between a look and what follows it there is time for the other one, now here and now there. */
static void hesitate(struct cluster *c, struct env *claimer)
{
	struct simdisk_rule mark = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
				     .host = claimer, .count = 1,
				     .off = SIZE - BLOCK_SIZE, .len = BLOCK_SIZE };
	struct simdisk_rule slot = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_CAW, .count = 1 };

	mark.delay_ns = env_random_below(c->env, 3 * NSEC_PER_SEC);
	slot.delay_ns = env_random_below(c->env, 60 * NSEC_PER_MSEC);
	slot.skip = env_random_below(c->env, 4);
	if (env_random_below(c->env, 2))
		simdisk_inject(c->disk, &mark);
	simdisk_inject(c->disk, &slot);
}

static void race(struct cluster *c)
{
	struct env_thread *thread;
	struct claimer x;
	int err;

	claimer_open(c, &x, "fsck");
	hesitate(c, x.env);
	claimer_start(&x, &thread);
	a_moment(c);
	err = cluster_attach(c, 0, 0);
	while (!x.ended)
		cluster_sleep(c, 100);
	CU_ASSERT_FALSE(err == 0 && x.err == 0);	/* never both */
	CU_ASSERT_TRUE(err == 0 || err == -EBUSY);
	CU_ASSERT_TRUE(x.err == 0 || x.err == -EBUSY);
	attached_at_all |= !err;
	claimed_at_all |= !x.err;
	if (!x.err)
		CU_ASSERT_EQUAL(claim_release(x.claim, true), 0);
	claimer_close(&x);
	if (err)
		CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
}

/* Both come at once: at most one has it. */
static void a_claim_and_a_host_exclude_each_other_at_any_moment(void)
{
	for (uint64_t seed = 1; seed <= 400; seed++)
		cluster_run(seed, SIZE, race);
	CU_ASSERT_TRUE(attached_at_all);
	CU_ASSERT_TRUE(claimed_at_all);
}

static void two_claims(struct cluster *c)
{
	struct env_thread *thread;
	struct claimer x, y;

	claimer_open(c, &x, "fsck");
	claimer_open(c, &y, "fsck2");
	claimer_start(&x, &thread);
	a_moment(c);
	claimer_take(&y);
	while (!x.ended)
		cluster_sleep(c, 100);
	CU_ASSERT_FALSE(x.err == 0 && y.err == 0);
	if (!x.err)
		CU_ASSERT_EQUAL(claim_release(x.claim, true), 0);
	if (!y.err)
		CU_ASSERT_EQUAL(claim_release(y.claim, true), 0);
	claimer_close(&x);
	claimer_close(&y);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
}

static void of_two_claims_one_is_refused(void)
{
	for (uint64_t seed = 1; seed <= 100; seed++)
		cluster_run(seed, SIZE, two_claims);
}

static void no_slot(struct cluster *c)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	uint8_t *block = blkdev_alloc(BLOCK_SIZE);
	struct super s;
	struct claimer x;

	CU_ASSERT_EQUAL_FATAL(super_read(dev, &s, c->why, sizeof(c->why)), 0);
	memset(block, 0x5a, BLOCK_SIZE);
	for (uint32_t i = 0; i < s.slot_count; i++)
		CU_ASSERT_EQUAL(blkdev_write(dev, s.slots_addr + i * BLOCK_SIZE, block,
					     BLOCK_SIZE), 0);
	claimer_open(c, &x, "fsck");
	claimer_take(&x);
	CU_ASSERT_EQUAL_FATAL(x.err, 0);
	CU_ASSERT_EQUAL(claim_release(x.claim, true), 0);
	claimer_close(&x);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
	free(block);
	blkdev_close(dev);
}

/* All slots overwritten: a claim has to come in all the same, to repair. */
static void a_claim_is_given_without_one_good_slot(void)
{
	cluster_run(5, SIZE, no_slot);
}

static void set_features(struct cluster *c, uint64_t compat, uint64_t ro_compat)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct super s;

	CU_ASSERT_EQUAL_FATAL(super_read(dev, &s, c->why, sizeof(c->why)), 0);
	s.compat = compat;
	s.ro_compat = ro_compat;
	s.version++;
	CU_ASSERT_EQUAL(super_write(dev, &s), 0);
	blkdev_close(dev);
}

static uint32_t digest(struct cluster *c)
{
	uint8_t *all = malloc(4 * MIB);
	uint32_t crc;

	simdisk_peek(c->disk, 0, all, 4 * MIB);
	crc = crc32c(0, all, 4 * MIB);
	free(all);
	return crc;
}

/* FORMAT.md, "Later versions": who may do what.  Nothing is written by who is refused. */
static void expect_no_claim(struct cluster *c)
{
	uint32_t before = digest(c);
	struct claimer x;

	claimer_open(c, &x, "fsck");
	claimer_take(&x);
	CU_ASSERT_EQUAL(x.err, -EPROTONOSUPPORT);
	CU_ASSERT_PTR_NOT_NULL(strstr(x.why, "features 0x1 that"));
	claimer_close(&x);
	CU_ASSERT_EQUAL(digest(c), before);
}

static void unknown_compat(struct cluster *c)
{
	set_features(c, COMPAT_KNOWN + 1, 0);
	expect_no_claim(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
}

static void unknown_ro_compat(struct cluster *c)
{
	uint32_t before;

	set_features(c, 0, RO_COMPAT_KNOWN + 1);
	expect_no_claim(c);
	before = digest(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), -EROFS);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, FS_READ_ONLY | FS_RESIGNATURE), -EROFS);
	CU_ASSERT_EQUAL(digest(c), before);
	CU_ASSERT_EQUAL(cluster_attach(c, 0, FS_READ_ONLY), 0);
}

/* What a later version made is not repaired away by an older one. */
static void what_has_unknown_features_is_not_claimed(void)
{
	cluster_run(6, SIZE, unknown_compat);
	cluster_run(7, SIZE, unknown_ro_compat);
}

UNIT_MAIN("fs/claim",
	  UNIT_TEST(while_a_claim_is_held_no_host_attaches),
	  UNIT_TEST(while_a_host_lives_no_claim_is_given),
	  UNIT_TEST(a_claim_recovers_dead_hosts_first),
	  UNIT_TEST(a_stopped_repair_keeps_hosts_away_until_another_one),
	  UNIT_TEST(a_claim_and_a_host_exclude_each_other_at_any_moment),
	  UNIT_TEST(of_two_claims_one_is_refused),
	  UNIT_TEST(a_claim_is_given_without_one_good_slot),
	  UNIT_TEST(what_has_unknown_features_is_not_claimed));
