// SPDX-License-Identifier: Apache-2.0
/*
 * A disk goes from one host to another (daemon/disks_handover.c): shut, released, opened there.  Either
 * host crashes at every moment of that: never do both have it, and who has it then, or takes it, sees
 * what was answered.
 */
#include "base/env_sim.h"
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(256 * MIB)
#define SIZE	(4 * MIB)
#define LATEST_US 12000u	/* by when the hand-over has come to its end */
#define STEP_US	 250u

/* The receiver: tries until it has it. */
struct receiver {
	struct disk_rig rig;
	struct env	*env;
	struct fs	*fs;
	uint64_t	id;
	bool		reads;		/* only */
	bool		has, done, stop;
};

static bool source_has;		/* its disk is open */
static unsigned int both;	/* moments in which two hosts had it */

static void receive(void *arg)
{
	struct receiver *r = arg;

	while (!r->stop) {
		r->rig = (struct disk_rig){ .params.read_only = r->reads };
		if (!disk_rig_open(&r->rig, r->env, r->fs, r->id)) {
			r->has = true;
			both += source_has;
			break;
		}
		disk_rig_close(&r->rig);
		env_sleep_until(r->env, env_now_ns(r->env) + 25 * NSEC_PER_MSEC);
	}
	r->done = true;
}

struct giver {
	struct env *env;
	struct disk_rig *rig;
	struct lock_heir heir;
	uint64_t pause_ns;	/* before it is let go: others want it */
	bool	done;
};

static void give(void *arg)
{
	struct giver *g = arg;

	if (g->heir.generation)
		CU_ASSERT_EQUAL(disk_leave_to(g->rig->disk, &g->heir), 0);
	disk_shut(g->rig->disk);
	source_has = false;
	if (g->pause_ns)
		env_sleep_until(g->env, env_now_ns(g->env) + g->pause_ns);
	disk_let_go(g->rig->disk);
	g->done = true;
}

static uint64_t make_disk(struct cluster *c)
{
	struct fs_attr attr = { .size = SIZE };

	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	attr.size = SIZE;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	return attr.id;
}

static void write_answered(struct disk_rig *rig)
{
	uint8_t *buf = blkdev_alloc(64 * KIB);

	memset(buf, 0x5a, 64 * KIB);
	CU_ASSERT_EQUAL(blkdev_write(rig->dev, 0, buf, 64 * KIB), 0);
	CU_ASSERT_EQUAL(blkdev_write(rig->dev, 3 * MIB, buf, 64 * KIB), 0);
	free(buf);
}

static void check_answered(struct disk_rig *rig)
{
	uint8_t *buf = blkdev_alloc(64 * KIB);

	for (unsigned int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(blkdev_read(rig->dev, i * 3 * MIB, buf, 64 * KIB), 0);
		CU_ASSERT(buf[0] == 0x5a && buf[64 * KIB - 1] == 0x5a);
	}
	free(buf);
}

static unsigned int before_its_end;	/* crashes, that is */
static unsigned int crash_us, victim;	/* victim 0: the source, 1: the target, 2: nobody */

/* Who has it has it open: others are refused by name and soon, not after a wait for a lock that is only kept. */
static void refused_at_once(struct cluster *c, const struct receiver *r)
{
	struct disk_rig third = { .resume = NULL };
	uint64_t began = env_now_ns(c->env);

	CU_ASSERT_EQUAL(disk_rig_open(&third, c->hosts[2].env, c->hosts[2].fs, r->id), -EBUSY);
	CU_ASSERT(env_now_ns(c->env) - began < 3 * NSEC_PER_SEC);
	CU_ASSERT_STRING_EQUAL(third.holder.host_name, cluster_names[1]);
	CU_ASSERT_STRING_EQUAL(third.holder.comm, "virtual disk");
	disk_rig_close(&third);
}

/* Whoever may have it after the crash has it, also where nobody has: the lock is free or the dead one's. */
static void taken_after(struct cluster *c, struct receiver *r)
{
	struct disk_rig third = { .resume = NULL };
	unsigned int i;

	if (victim != 1) {
		for (i = 0; i < 3000 && !r->done; i++)
			cluster_sleep(c, 10);
		CU_ASSERT(r->has);
		if (r->has) {
			refused_at_once(c, r);
			check_answered(&r->rig);
			CU_ASSERT_EQUAL(disk_rig_close(&r->rig), 0);
		}
		return;
	}
	third = (struct disk_rig){ .resume = NULL };
	for (i = 0; i < 100 && disk_rig_open(&third, c->hosts[2].env, c->hosts[2].fs, r->id); i++) {
		disk_rig_close(&third);
		third = (struct disk_rig){ .resume = NULL };
		cluster_sleep(c, 200);
	}
	CU_ASSERT(i < 100);
	both += source_has;
	if (i < 100)
		check_answered(&third);
	if (i < 100)
		disk_rig_close(&third);
}

static void crash_body(struct cluster *c)
{
	struct disk_rig source = { .resume = NULL };
	struct receiver *r = calloc(1, sizeof(*r));	/* a crashed host's thread goes on looking at it */
	struct giver *g = calloc(1, sizeof(*g));
	struct env_thread *giver, *receiver;
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 2, 0), 0);
	id = make_disk(c);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&source, c->hosts[0].env, c->fs, id), 0);
	source_has = true;
	write_answered(&source);
	/* Of a crash of the source only what was flushed is left: a power cut, for its guest too. */
	if (victim == 0)
		CU_ASSERT_EQUAL(blkdev_flush(source.dev), 0);
	*r = (struct receiver){ .env = c->hosts[1].env, .fs = c->hosts[1].fs, .id = id };
	CU_ASSERT_EQUAL(env_thread_start(r->env, "receiver", receive, r, &receiver), 0);
	g->rig = &source;
	g->heir = (struct lock_heir){ lockd_slot(r->fs->lockd), lockd_generation(r->fs->lockd) };
	CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "giver", give, g, &giver), 0);
	env_sleep_until(c->env, env_now_ns(c->env) + crash_us * 1000ULL);
	before_its_end += !g->done;
	if (victim < 2) {
		cluster_crash(c, victim);
		if (victim == 0)
			source_has = false;
	}
	if (victim != 0) {
		env_thread_join(c->hosts[0].env, giver);
		CU_ASSERT(g->done);
	}
	/* Left to one that is dead; its user at the source ends. */
	if (victim == 1)
		CU_ASSERT_EQUAL(disk_free_left(source.disk), 0);
	taken_after(c, r);
	CU_ASSERT_EQUAL(both, 0);
	if (victim != 0)
		disk_rig_close(&source);
	if (victim != 1) {
		r->stop = true;
		env_thread_join(r->env, receiver);
		CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	}
	CU_ASSERT_EQUAL(cluster_detach(c, 2), 0);
	free(r);
	free(g);
}

static void nobody_and_both_never_have_a_disk_that_is_handed_over(void)
{
	for (victim = 0; victim < 3; victim++)
		for (crash_us = 0; crash_us < LATEST_US && !CU_get_number_of_failures();
		     crash_us += victim == 2 ? LATEST_US : STEP_US)
			cluster_run(crash_us + 1, VOLUME, crash_body);
	/* Some of each kind, or it proves nothing. */
	CU_ASSERT(before_its_end > 10 && before_its_end < 2 * LATEST_US / STEP_US - 10);
}

/* ---- a third host, which wants it all the time ---- */

static enum fate {
	TARGET_COMES,
	TARGET_DIES,		/* its user at the source goes on */
	TARGET_NEVER_COMES,	/* its user at the source is gone, too */
	SOURCE_DIES,
	FATES,
} fate;

static unsigned int seed;

static bool gets_it(struct cluster *c, const struct receiver *r, unsigned int seconds)
{
	for (unsigned int i = 0; i < 100 * seconds && !r->done; i++)
		cluster_sleep(c, 10);
	return r->has;
}

static struct receiver *wants(struct cluster *c, unsigned int host, uint64_t id, bool reads,
			      struct env_thread **t)
{
	struct receiver *r = calloc(1, sizeof(*r));

	*r = (struct receiver){ .env = c->hosts[host].env, .fs = c->hosts[host].fs, .id = id,
				.reads = reads };
	CU_ASSERT_EQUAL(env_thread_start(r->env, "wants", receive, r, t), 0);
	return r;
}

static void as_it_comes(struct cluster *c, struct disk_rig *source, struct receiver *third)
{
	struct env_thread *thread;
	struct receiver *r;

	switch (fate) {
	case TARGET_COMES:
		r = wants(c, 1, third->id, false, &thread);
		CU_ASSERT(gets_it(c, r, 3));
		check_answered(&r->rig);
		CU_ASSERT(!third->has);
		env_thread_join(r->env, thread);
		disk_rig_close(&r->rig);
		free(r);
		break;
	case TARGET_DIES:
		cluster_crash(c, 1);
		CU_ASSERT(!gets_it(c, third, 30));
		CU_ASSERT_EQUAL(disk_open(source->disk, NULL, NULL), 0);
		source_has = true;
		check_answered(source);
		CU_ASSERT(!gets_it(c, third, 10));
		source_has = false;
		CU_ASSERT_EQUAL(disk_shut(source->disk), 0);
		break;
	case TARGET_NEVER_COMES:
		CU_ASSERT_EQUAL(disk_free_left(source->disk), 0);
		break;
	default:
		cluster_crash(c, 0);
		break;
	}
}

static void third_body(struct cluster *c)
{
	struct disk_rig source = { .resume = NULL };
	struct giver g = { .rig = &source };
	struct env_thread *thread;
	struct receiver *third;
	struct fs_attr attr = { 0 };
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 2, 0), 0);
	id = make_disk(c);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&source, c->hosts[0].env, c->fs, id), 0);
	source_has = true;
	write_answered(&source);
	third = wants(c, 2, id, seed % 2, &thread);
	cluster_sleep(c, 500);
	g.heir = (struct lock_heir){ lockd_slot(c->hosts[1].fs->lockd),
				     lockd_generation(c->hosts[1].fs->lockd) };
	g.env = c->hosts[0].env;
	g.pause_ns = seed * NSEC_PER_SEC / 2;
	give(&g);
	/* Other work on either host does not take it from whom it is left to. */
	CU_ASSERT_EQUAL(fs_setattr(c->hosts[0].fs, id, FS_SET_MTIME, &attr), -EBUSY);
	CU_ASSERT_EQUAL(fs_setattr(c->hosts[1].fs, id, FS_SET_MTIME, &attr), -EBUSY);
	CU_ASSERT(!gets_it(c, third, 20));
	as_it_comes(c, &source, third);
	CU_ASSERT(gets_it(c, third, 60));
	CU_ASSERT_EQUAL(both, 0);
	check_answered(&third->rig);
	env_thread_join(third->env, thread);
	CU_ASSERT_EQUAL(disk_rig_close(&third->rig), 0);
	if (fate == TARGET_NEVER_COMES) {
		/* The third has had it: what the source's user remembers is of another time. */
		CU_ASSERT_EQUAL(disk_open(source.disk, NULL, NULL), -ESTALE);
	}
	if (fate != SOURCE_DIES)
		disk_rig_close(&source);
	if (fate != TARGET_DIES)
		CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 2), 0);
	free(third);
}

static void a_third_host_never_has_what_is_left_to_another(void)
{
	for (fate = TARGET_COMES; fate < FATES; fate++)
		for (seed = 1; seed <= 5 && !CU_get_number_of_failures(); seed++)
			cluster_run(seed, VOLUME, third_body);
}

static void anybody_can(struct cluster *c, uint64_t id)
{
	struct disk_rig third = { .resume = NULL };

	CU_ASSERT_EQUAL(disk_rig_open(&third, c->hosts[2].env, c->hosts[2].fs, id), 0);
	CU_ASSERT_EQUAL(disk_rig_close(&third), 0);
}

/* Called off, and its user goes on later: nobody else has had it. */
static void again_body(struct cluster *c)
{
	struct disk_rig source = { .resume = NULL };
	struct giver g = { .rig = &source };
	struct fs_attr attr = { 0 };
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 2, 0), 0);
	id = make_disk(c);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&source, c->hosts[0].env, c->fs, id), 0);
	write_answered(&source);
	g.heir = (struct lock_heir){ lockd_slot(c->hosts[1].fs->lockd),
				     lockd_generation(c->hosts[1].fs->lockd) };
	for (unsigned int i = 0; i < 3; i++) {
		give(&g);
		if (i)
			CU_ASSERT_EQUAL(disk_free_left(source.disk), 0);
		CU_ASSERT_EQUAL(disk_open(source.disk, NULL, NULL), 0);
		check_answered(&source);
	}
	/* What was called off is: whoever comes can have it. */
	CU_ASSERT_EQUAL(disk_leave_to(source.disk, &g.heir), 0);
	CU_ASSERT_EQUAL(disk_shut(source.disk), 0);
	CU_ASSERT_EQUAL(disk_open(source.disk, NULL, NULL), 0);
	CU_ASSERT_EQUAL(disk_shut(source.disk), 0);
	anybody_can(c, id);
	CU_ASSERT_EQUAL(disk_rig_close(&source), 0);
	source = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&source, c->hosts[0].env, c->fs, id), 0);
	give(&g);
	CU_ASSERT_EQUAL(disk_free_left(source.disk), 0);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_MTIME, &attr), 0);
	anybody_can(c, id);
	disk_rig_close(&source);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 2), 0);
}

static void who_gave_it_can_have_it_back(void)
{
	cluster_run(7, VOLUME, again_body);
}

UNIT_MAIN("fs/handover",
	UNIT_TEST(nobody_and_both_never_have_a_disk_that_is_handed_over),
	UNIT_TEST(a_third_host_never_has_what_is_left_to_another),
	UNIT_TEST(who_gave_it_can_have_it_back));
