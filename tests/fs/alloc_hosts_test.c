/* SPDX-License-Identifier: Apache-2.0 */
/* Space shared by hosts: groups pass from one to the other, each finds groups of its own. */
#include <stdlib.h>

#include "fs/ag.h"
#include "tests/fs/attached.h"

static uint64_t take_near(struct fs *fs, uint32_t count, uint64_t goal, int expected)
{
	struct alloc_hold hold;
	struct txn txn;
	uint64_t block;
	int err = alloc_reserve(fs, &count, 1, goal, &hold);

	CU_ASSERT_EQUAL(err, expected);
	if (err)
		return 0;
	block = hold.runs[0].block;
	err = txn_begin(fs, 3, &txn);
	CU_ASSERT_EQUAL(err, 0);
	if (!err) {
		CU_ASSERT_EQUAL(alloc_take(&txn, &hold, 0), 0);
		txn_end(&txn);
	}
	alloc_put(fs, &hold);
	return block;
}

static uint64_t take(struct fs *fs, uint32_t count, int expected)
{
	return take_near(fs, count, 0, expected);
}

static int give(struct fs *fs, uint64_t block, uint32_t count)
{
	struct alloc_pin pin;
	struct txn txn;
	int err = alloc_pin(fs, block, &pin);

	if (err)
		return err;
	err = txn_begin(fs, 3, &txn);
	if (!err) {
		err = alloc_free(&txn, &pin, block, count);
		txn_end(&txn);
	}
	alloc_unpin(fs, &pin);
	return err;
}

#define ROUNDS	6

static void one_group_body(struct cluster *c)
{
	uint64_t blocks[2 * ROUNDS], start = env_now_ns(c->env);
	unsigned int i, j;

	cluster_alone(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
	start = env_now_ns(c->env);
	for (i = 0; i < 2 * ROUNDS; i++) {
		blocks[i] = take(c->hosts[i % 2].fs, 1, 0);
		for (j = 0; j < i; j++)
			CU_ASSERT(blocks[j] != blocks[i]);
	}
	/* Each round passes the group on twice; a hand-over takes about a beat. */
	CU_ASSERT(env_now_ns(c->env) - start < 2 * ROUNDS * 2 * NSEC_PER_SEC);
	/* What one host took, the other can free. */
	for (i = 0; i < 2 * ROUNDS; i++)
		CU_ASSERT_EQUAL(give(c->hosts[(i + 1) % 2].fs, blocks[i], 1), 0);
	CU_ASSERT_EQUAL(give(c->hosts[0].fs, blocks[3], 1), -EUCLEAN);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* A small volume has one group: without passing it on, only one host could write. */
static void hosts_take_turns_in_a_single_group(void)
{
	cluster_run(1, 64 * MIB, one_group_body);
}

static void spread_body(struct cluster *c)
{
	uint64_t start, a, b;
	uint32_t ag_a, ag_b;

	cluster_alone(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
	a = take(c->hosts[0].fs, UNIT_BLOCKS, 0);
	start = env_now_ns(c->env);
	b = take(c->hosts[1].fs, UNIT_BLOCKS, 0);
	CU_ASSERT(env_now_ns(c->env) - start < NSEC_PER_SEC / 4);	/* waits for nobody */
	CU_ASSERT_EQUAL(super_ag_of(&c->fs->super, a << BLOCK_SHIFT, &ag_a), 0);
	CU_ASSERT_EQUAL(super_ag_of(&c->fs->super, b << BLOCK_SHIFT, &ag_b), 0);
	CU_ASSERT(ag_a != ag_b);
	CU_ASSERT_EQUAL(give(c->hosts[0].fs, a, UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(give(c->hosts[1].fs, b, UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* Hosts that fight for one group while others are free wait a beat for every file. */
static void hosts_find_groups_of_their_own(void)
{
	cluster_run(2, 4 * GIB, spread_body);
}

/* Alpha comes to hold the locks of all groups, by reserving until the first is empty. */
static void hold_every_group(struct fs *fs)
{
	static const uint32_t counts[ALLOC_RUNS_MAX] = { 64, 64, 64, 64, 64, 64, 64, 64 };
	struct alloc_hold *holds = calloc(600, sizeof(*holds));
	bool seen[2] = { false, false };
	unsigned int n = 0;

	while (n < 600 && !(seen[0] && seen[1])) {
		CU_ASSERT_EQUAL(alloc_reserve(fs, counts, ALLOC_RUNS_MAX, 0, &holds[n]), 0);
		seen[holds[n++].ag->index] = true;
	}
	CU_ASSERT(seen[0] && seen[1]);
	while (n)
		alloc_put(fs, &holds[--n]);
	free(holds);
}

static void cached_body(struct cluster *c)
{
	uint64_t block;

	cluster_alone(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(c->fs->super.ag_count, 2);
	hold_every_group(c->fs);
	block = take(c->hosts[1].fs, 1, 0);
	CU_ASSERT(block != 0);
	CU_ASSERT_EQUAL(give(c->fs, block, 1), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* ENOSPC while another host's cached group has room would be a lie. */
static void space_that_another_host_caches_is_found(void)
{
	cluster_run(3, 2 * GIB, cached_body);
}

/* ---- two groups for one operation ---- */

static struct alloc_run filled[8192];
static unsigned int filled_count;

/* All of group 0 is in use but for two blocks that are no neighbours. */
static void fill_first_group(struct fs *fs)
{
	uint64_t block, spare[3] = { 0 };
	uint32_t ag = 0, count = UNIT_BLOCKS;
	unsigned int ones = 0;

	for (;;) {
		block = take_near(fs, count, fs->super.ag_addr >> BLOCK_SHIFT, 0);
		CU_ASSERT_EQUAL(super_ag_of(&fs->super, block << BLOCK_SHIFT, &ag), 0);
		if (ag) {
			CU_ASSERT_EQUAL(give(fs, block, count), 0);
			if (count == 1)
				break;
			count = 1;
		} else if (count == 1 && ones < 3) {
			spare[ones++] = block;
		} else if (filled_count < ARRAY_SIZE(filled)) {
			filled[filled_count++] = (struct alloc_run){ block, count, false, NULL };
		}
	}
	CU_ASSERT_EQUAL_FATAL(ones, 3);
	filled[filled_count++] = (struct alloc_run){ spare[1], 1, false, NULL };
	CU_ASSERT_EQUAL(give(fs, spare[0], 1), 0);
	CU_ASSERT_EQUAL(give(fs, spare[2], 1), 0);
	CU_ASSERT_EQUAL(journal_settle(fs), 0);
}

static uint32_t free_inodes(struct fs *fs)
{
	struct ag *ag;
	uint32_t count;

	CU_ASSERT_EQUAL_FATAL(ag_get(fs, 0, &ag), 0);
	CU_ASSERT_EQUAL_FATAL(ag_pin(fs, ag, 0), 0);
	count = le32_to_cpu(ag_disk(ag)->inodes_free);
	ag_unpin(fs, ag);
	return count;
}

static int make_in(struct fs *fs, uint64_t dir, unsigned int number, uint32_t mode, uint64_t *id)
{
	struct fs_attr attr = { 0 };
	char name[201];
	int err;

	snprintf(name, sizeof(name), "%0200u", number);
	err = fs_create(fs, dir, name, mode, 0, &cluster_cred, &attr);
	if (!err && id)
		*id = attr.id;
	return err;
}

struct other {
	struct cluster *c;
	bool pinned, done;
	int err;
	uint64_t waited_ns;
};

/* Beta is in the middle of something for which it has group 1 and needs group 0. */
static void other_host(void *arg)
{
	struct other *o = arg;
	struct fs *fs = o->c->hosts[1].fs;
	struct ag *first, *second;
	uint64_t start;

	CU_ASSERT_EQUAL(ag_get(fs, 0, &first), 0);
	CU_ASSERT_EQUAL(ag_get(fs, 1, &second), 0);
	CU_ASSERT_EQUAL(ag_pin(fs, second, 0), 0);
	o->pinned = true;
	cluster_sleep(o->c, 100);	/* alpha has begun */
	start = env_now_ns(fs->env);
	o->err = ag_pin(fs, first, 0);
	o->waited_ns = env_now_ns(fs->env) - start;
	if (!o->err)
		ag_unpin(fs, first);
	ag_unpin(fs, second);
	o->done = true;
}

static void crossed_body(struct cluster *c)
{
	struct other o = { .c = c };
	struct env_thread *thread;
	unsigned int n = 0;
	uint64_t dir = 0, start;

	cluster_alone(c);
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(make_in(c->fs, fs_root(c->fs), 999, S_IFDIR | 0755, &dir), 0);
	/* One name more, and the directory needs a block; and no inode is free in its group. */
	for (n = 0; n < 16; n++)
		CU_ASSERT_EQUAL(make_in(c->fs, dir, n, S_IFREG, NULL), 0);
	while (free_inodes(c->fs))
		CU_ASSERT_EQUAL(make_in(c->fs, fs_root(c->fs), n++, S_IFREG, NULL), 0);
	fill_first_group(c->fs);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[1].env, "other", other_host, &o,
					       &thread), 0);
	while (!o.pinned)
		cluster_sleep(c, 10);
	start = env_now_ns(c->env);
	CU_ASSERT_EQUAL(make_in(c->fs, dir, n, S_IFREG, NULL), 0);
	CU_ASSERT(env_now_ns(c->env) - start < 3 * NSEC_PER_SEC);
	while (!o.done)
		cluster_sleep(c, 10);
	env_thread_join(c->hosts[1].env, thread);
	CU_ASSERT_EQUAL(o.err, 0);
	CU_ASSERT(o.waited_ns < 3 * NSEC_PER_SEC);
	while (filled_count--)
		CU_ASSERT_EQUAL(give(c->fs, filled[filled_count].block,
				     filled[filled_count].count), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* Two hosts that wait for each other's groups stand still until one gives up, after 5 s. */
static void a_second_group_is_not_waited_for_with_the_first_in_hand(void)
{
	cluster_run(4, 2 * GIB, crossed_body);
}

UNIT_MAIN("alloc_hosts",
	  UNIT_TEST(a_second_group_is_not_waited_for_with_the_first_in_hand),
	  UNIT_TEST(hosts_take_turns_in_a_single_group),
	  UNIT_TEST(hosts_find_groups_of_their_own),
	  UNIT_TEST(space_that_another_host_caches_is_found));
