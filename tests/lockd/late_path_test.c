/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rung A over a multipath handle: a path of the heartbeat that comes up after the others were
 * registered meets a reservation conflict with its first command, at whatever moment that is.
 */
#include "tests/lockd/cluster.h"

/* Two paths that take turns; the second comes up unregistered, and takes command @up_after. */
struct two_paths {
	struct blkdev dev;
	struct blkdev *lower;
	unsigned int count, up_after;
	unsigned int conflicts;
	bool registered;		/* the second one is */
};

static struct two_paths *paths_of(struct blkdev *dev)
{
	return container_of(dev, struct two_paths, dev);
}

/* Whether the next command takes the second path and meets a conflict there. */
static bool conflicts(struct two_paths *t)
{
	unsigned int n = t->count++;

	if (n < t->up_after || (n - t->up_after) % 2 || t->registered)
		return false;
	t->conflicts++;
	return true;
}

static void paths_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct two_paths *t = paths_of(dev);

	for (unsigned int i = 0; i < count; i++) {
		if (ios[i]->op == BLK_CAW && conflicts(t))
			ios[i]->done(ios[i], -EBADE);
		else
			blkdev_submit(t->lower, &ios[i], 1);
	}
}

/* On every path that is up, as the iSCSI backend does it. */
static int paths_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct two_paths *t = paths_of(dev);
	int err = t->lower->ops->pr_register(t->lower, old_key, new_key);
	bool second_fits = t->registered || !old_key || old_key == new_key;

	if (t->count++ < t->up_after)
		return err;
	if (!t->registered && old_key == new_key)
		return err ? err : -EBADE;
	t->registered = new_key && second_fits;
	return err == -EBADE && second_fits ? t->lower->ops->pr_register(t->lower, new_key, new_key) :
	       second_fits ? err : -EBADE;
}

static int paths_reserve(struct blkdev *dev, uint64_t key)
{
	struct two_paths *t = paths_of(dev);

	return conflicts(t) ? -EBADE : t->lower->ops->pr_reserve(t->lower, key);
}

static int paths_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	struct two_paths *t = paths_of(dev);

	return conflicts(t) ? -EBADE : t->lower->ops->pr_preempt_abort(t->lower, key, victim);
}

static int paths_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct two_paths *t = paths_of(dev);

	return t->lower->ops->pr_read(t->lower, state);
}

static void paths_of_heartbeat(struct host *h, struct two_paths *t)
{
	static const struct blkdev_ops ops = {
		.submit = paths_submit, .pr_register = paths_register, .pr_reserve = paths_reserve,
		.pr_preempt_abort = paths_preempt_abort, .pr_read = paths_read,
	};

	t->lower = h->hb_dev;
	t->dev = *h->hb_dev;
	t->dev.ops = &ops;
	h->p.hb_dev = &t->dev;
}

/* A mount failed with "cannot take a host slot" when its second portal was a little slower. */
static void host_joins_whenever_a_path_comes_up(void)
{
	struct simdisk_params p = { .reservations = true };
	unsigned int conflicts_seen = 0;

	for (unsigned int when = 0; when < 12; when++) {
		struct cluster *c = cluster_new(when + 1, 4, &p);
		struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta");
		struct two_paths t = { .up_after = when };

		cluster_run(c, 3 * SEC);	/* the LUN is reserved */
		CU_ASSERT_TRUE_FATAL(a->joined);
		paths_of_heartbeat(b, &t);
		host_start(b);
		cluster_run_more(c, 8 * SEC);
		CU_ASSERT_TRUE(b->joined);
		CU_ASSERT_EQUAL(b->losses + a->losses, 0);
		CU_ASSERT_TRUE(b->wrote > 0);
		conflicts_seen += t.conflicts;
		cluster_end(c);
	}
	CU_ASSERT_TRUE(conflicts_seen >= 10);
}

/* Its own slot of another life is fenced over those paths, too. */
static void host_takes_its_slot_back_whenever_a_path_comes_up(void)
{
	struct simdisk_params p = { .reservations = true };

	for (unsigned int when = 0; when < 12; when++) {
		struct cluster *c = cluster_new(when + 1, 4, &p);
		struct host *a = host_up(c, 0, "alpha"), *b = host_up(c, 1, "beta"), *again;
		struct two_paths t = { .up_after = when };
		uint32_t slot;

		cluster_run(c, 4 * SEC);
		CU_ASSERT_TRUE_FATAL(a->joined && b->joined);
		slot = lockd_slot(b->ld);
		sim_host_crash(b->env);
		again = host_init(c, 2, "beta");
		memset(again->p.host_id, 2, sizeof(again->p.host_id));
		again->p.own_slot_is_dead = true;
		paths_of_heartbeat(again, &t);
		host_start(again);
		cluster_run_more(c, 8 * SEC);
		CU_ASSERT_TRUE_FATAL(again->joined);
		CU_ASSERT_EQUAL(lockd_slot(again->ld), slot);
		CU_ASSERT_EQUAL(again->losses, 0);
		CU_ASSERT_EQUAL(a->adopts[slot], 0);
		cluster_end(c);
	}
}

/* A slot that is not freed for that keeps its locks, and others wait out the suspicion time. */
static void host_frees_its_slot_over_a_path_that_has_just_come_up(void)
{
	struct simdisk_params p = { .reservations = true };
	struct cluster *c = cluster_new(1, 4, &p);
	struct host *a = host_up(c, 0, "alpha"), *b = host_init(c, 1, "beta");
	struct two_paths t = { .up_after = UINT32_MAX };
	uint32_t slot;

	paths_of_heartbeat(b, &t);
	host_start(b);
	cluster_run(c, 4 * SEC);
	CU_ASSERT_TRUE_FATAL(b->joined);
	slot = lockd_slot(b->ld);
	t.up_after = t.count;
	b->stop = true;
	cluster_run_more(c, 500 * MSEC);
	CU_ASSERT_EQUAL(t.conflicts, 1);
	CU_ASSERT_TRUE(b->ended);
	CU_ASSERT_EQUAL(b->leave_err, 0);
	CU_ASSERT_EQUAL(cluster_slot(c, slot).state, SLOT_FREE);
	CU_ASSERT_EQUAL(a->adopts[slot], 0);
	cluster_end(c);
}

UNIT_MAIN("lockd/late_path",
	  UNIT_TEST(host_joins_whenever_a_path_comes_up),
	  UNIT_TEST(host_takes_its_slot_back_whenever_a_path_comes_up),
	  UNIT_TEST(host_frees_its_slot_over_a_path_that_has_just_come_up));
