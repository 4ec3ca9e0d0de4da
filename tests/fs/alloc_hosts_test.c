/* SPDX-License-Identifier: Apache-2.0 */
/* Space shared by hosts: groups pass from one to the other, each finds groups of its own. */
#include <stdlib.h>

#include "fs/ag.h"
#include "tests/fs/attached.h"

static uint64_t take(struct fs *fs, uint32_t count, int expected)
{
	struct alloc_hold hold;
	struct txn txn;
	uint64_t block;
	int err = alloc_reserve(fs, &count, 1, 0, &hold);

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

UNIT_MAIN("alloc_hosts",
	  UNIT_TEST(hosts_take_turns_in_a_single_group),
	  UNIT_TEST(hosts_find_groups_of_their_own),
	  UNIT_TEST(space_that_another_host_caches_is_found));
