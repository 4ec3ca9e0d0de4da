/* SPDX-License-Identifier: Apache-2.0 */
/* Inode clusters: each inode given once, whole on disk before it can be named. */
#include <stdlib.h>

#include "fs/ag.h"
#include "tests/fs/rig.h"

#define SMALL	(64 * MIB)

/* A new inode as fs_create() makes one, at least as far as the index sees it. */
static int make(struct rig *rig, uint64_t near, uint64_t *number)
{
	struct alloc_hold hold;
	struct txn txn;
	int err;

	err = itable_reserve(&rig->fs, near, &hold, number);
	if (err)
		return err;
	MUST_EQUAL(txn_begin(&rig->fs, 2, &txn), 0);
	CU_ASSERT_EQUAL(itable_take(&txn, &hold, *number), 0);
	txn_end(&txn);
	itable_put(&rig->fs, &hold, *number);
	return 0;
}

static int unmake(struct rig *rig, uint64_t number)
{
	struct alloc_pin pin;
	struct txn txn;
	int err;

	MUST_EQUAL(alloc_pin(&rig->fs, number, &pin), 0);
	MUST_EQUAL(txn_begin(&rig->fs, 2, &txn), 0);
	err = itable_free(&txn, &pin, number);
	txn_end(&txn);
	alloc_unpin(&rig->fs, &pin);
	return err;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Reads a pair as it is at home: a free lock and a free inode, both valid. */
static void check_pair(struct rig *rig, uint64_t number)
{
	static uint8_t lock[BLOCK_SIZE], inode[BLOCK_SIZE];
	struct meta_expect e = { META_INODE, rig->fs.super.volume, inode_block_addr(number),
				 number, 0 };
	struct lockrec r;

	simdisk_peek(rig->disk, inode_lock_addr(number), lock, BLOCK_SIZE);
	CU_ASSERT_EQUAL(lockrec_decode(lock, rig->fs.super.volume, inode_lock_addr(number), &r,
				       NULL, 0), 0);
	CU_ASSERT_EQUAL(r.mode, LOCK_FREE);
	simdisk_peek(rig->disk, e.addr, inode, BLOCK_SIZE);
	CU_ASSERT_EQUAL(meta_verify(inode, &e, NULL, 0), 0);
	CU_ASSERT_EQUAL(le32_to_cpu(((struct inode_disk *)inode)->mode), 0);
}

/* ---- making ---- */

#define MAKERS	5
#define MAKES	120

struct maker {
	struct rig *rig;
	uint64_t numbers[MAKES];
};

static void maker(void *arg)
{
	struct maker *m = arg;
	unsigned int i;

	for (i = 0; i < MAKES; i++)
		CU_ASSERT_EQUAL(make(m->rig, 0, &m->numbers[i]), 0);
}

static void makers_body(struct rig *rig)
{
	struct maker *m = calloc(MAKERS, sizeof(*m));
	struct env_thread *t[MAKERS];
	uint64_t all[MAKERS * MAKES];
	struct alloc_totals totals;
	unsigned int i;

	rig_open(rig);
	for (i = 0; i < MAKERS; i++) {
		m[i].rig = rig;
		MUST_EQUAL(env_thread_start(rig->env, "maker", maker, &m[i], &t[i]), 0);
	}
	for (i = 0; i < MAKERS; i++) {
		env_thread_join(rig->env, t[i]);
		memcpy(all + i * MAKES, m[i].numbers, sizeof(m[i].numbers));
	}
	qsort(all, ARRAY_SIZE(all), sizeof(*all), by_number);
	for (i = 1; i < ARRAY_SIZE(all); i++)
		CU_ASSERT(all[i] > all[i - 1] + 1);	/* two blocks each */
	CU_ASSERT_EQUAL(alloc_totals(&rig->fs, &totals), 0);
	CU_ASSERT_EQUAL(totals.inodes_used, MAKERS * MAKES + 1);	/* and the root */
	CU_ASSERT((totals.inodes_used + totals.inodes_free) % CLUSTER_INODES == 0);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	for (i = 0; i < ARRAY_SIZE(all); i++)
		check_pair(rig, all[i]);
	free(m);
}

/* Two files in one inode are one file too few. */
static void threads_never_get_the_same_inode(void)
{
	rig_run(GIB, makers_body);
}

static void again_body(struct rig *rig)
{
	uint64_t numbers[40], number;
	struct alloc_totals before, after;
	unsigned int i;

	rig_open(rig);
	for (i = 0; i < 40; i++)
		CU_ASSERT_EQUAL(make(rig, 0, &numbers[i]), 0);
	CU_ASSERT_EQUAL(rig_close(rig), 0);

	rig_open(rig);	/* the index is read back */
	CU_ASSERT_EQUAL(alloc_totals(&rig->fs, &before), 0);
	for (i = 0; i < 40; i++)
		CU_ASSERT_EQUAL(unmake(rig, numbers[i]), 0);
	CU_ASSERT_EQUAL(unmake(rig, numbers[7]), -EUCLEAN);
	CU_ASSERT_EQUAL(unmake(rig, numbers[7] + 1), -EUCLEAN);
	for (i = 0; i < 40; i++)
		CU_ASSERT_EQUAL(make(rig, 0, &number), 0);
	env_sleep_until(rig->env, env_now_ns(rig->env) + 2 * STATFS_MS * NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(alloc_totals(&rig->fs, &after), 0);
	CU_ASSERT_EQUAL(after.blocks_free, before.blocks_free);	/* no new cluster was made */
	CU_ASSERT_EQUAL(after.inodes_used, before.inodes_used);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* Clusters stay clusters for ever: creating and deleting must not make more of them. */
static void freed_inodes_are_used_again(void)
{
	rig_run(SMALL, again_body);
}

static void many_body(struct rig *rig)
{
	uint64_t number, last = 0, start;
	unsigned int i;

	rig_open(rig);
	/* More clusters than one index block has room for. */
	for (i = 0; i < (ITABLE_ENTRIES + 10) * CLUSTER_INODES; i++) {
		MUST_EQUAL(make(rig, 0, &number), 0);
		last = number;
	}
	start = super_ag_addr(&rig->fs.super, 0) >> BLOCK_SHIFT;
	CU_ASSERT(last >= start);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	rig_open(rig);
	CU_ASSERT_EQUAL(unmake(rig, last), 0);
	CU_ASSERT_EQUAL(make(rig, 0, &number), 0);
	CU_ASSERT_EQUAL(number, last);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* 8,000 files in a group need a second index block. */
static void index_grows_by_a_chain_of_blocks(void)
{
	rig_run(GIB, many_body);
}

static void fragmented_body(struct rig *rig)
{
	uint64_t blocks[512], number, made = 0, block;
	struct alloc_hold hold;
	struct alloc_pin pin;
	unsigned int i, n = 0;
	uint32_t one = 1, unit = UNIT_BLOCKS;
	struct txn txn;

	rig_open(rig);
	/* Everything is taken, then every other pair of a stretch is given back. */
	while (!alloc_reserve(&rig->fs, &unit, 1, 0, &hold) ||
	       !alloc_reserve(&rig->fs, &one, 1, 0, &hold)) {
		block = hold.runs[0].block;
		MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
		CU_ASSERT_EQUAL(alloc_take(&txn, &hold, 0), 0);
		txn_end(&txn);
		for (i = 0; hold.runs[0].count == unit && i < unit && n < 64; i += 4)
			blocks[n++] = block + i;
		alloc_put(&rig->fs, &hold);
	}
	for (i = 0; i < n; i++) {
		MUST_EQUAL(alloc_pin(&rig->fs, blocks[i], &pin), 0);
		MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
		CU_ASSERT_EQUAL(alloc_free(&txn, &pin, blocks[i], 2), 0);
		txn_end(&txn);
		alloc_unpin(&rig->fs, &pin);
	}
	while (!make(rig, 0, &number))
		made++;
	CU_ASSERT_EQUAL(made, n + CLUSTER_INODES - 1);	/* beside the root's cluster */
	CU_ASSERT_EQUAL(make(rig, 0, &number), -ENOSPC);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_pair(rig, number);
}

/* A volume with space left takes another small file, however scattered that space is. */
static void fragmented_space_gives_smaller_clusters(void)
{
	rig_run(SMALL, fragmented_body);
}

/* ---- crashes ---- */

#define SHOTS_MAX	300

struct shots {
	struct rig *rig;
	struct simdisk_image *image[SHOTS_MAX];
	unsigned int count;
	unsigned int clusters;
	bool unflushed;			/* a cluster is written, and no flush came since */
	bool too_early;			/* a transaction was written all the same */
};

static void shoot(void *arg, struct env *host, const struct blk_io *io)
{
	struct shots *s = arg;
	uint64_t ring = super_journal_addr(&s->rig->fs.super, 0) + 2 * BLOCK_SIZE;

	(void)host;
	if (io->op == BLK_WRITE && io->len == CLUSTER_BLOCKS * BLOCK_SIZE) {
		s->unflushed = true;
		s->clusters++;
	}
	if (io->op == BLK_FLUSH)
		s->unflushed = false;
	if (io->op == BLK_WRITE && io->off >= ring && io->off < super_journal_addr(&s->rig->fs.super, 1))
		s->too_early |= s->unflushed;
	if (io->op != BLK_READ && s->count < SHOTS_MAX)
		s->image[s->count++] = simdisk_snapshot(s->rig->disk);
}

/* All inodes that the index names at home; returns how many are in use. */
static uint32_t check_index(struct rig *rig)
{
	static uint8_t header[BLOCK_SIZE], index[BLOCK_SIZE];
	const struct ag_disk *h = (void *)header;
	const struct itable_disk *d = (void *)index;
	uint64_t start = super_ag_addr(&rig->fs.super, 0) >> BLOCK_SHIFT;
	uint32_t used = 0, total = 0, i, j;

	simdisk_peek(rig->disk, (start + 1) << BLOCK_SHIFT, header, BLOCK_SIZE);
	simdisk_peek(rig->disk, bptr_addr(le64_to_cpu(h->itable)), index, BLOCK_SIZE);
	for (i = 0; i < le32_to_cpu(d->count); i++) {
		uint64_t first = start + le32_to_cpu(d->entries[i].block);

		total += le16_to_cpu(d->entries[i].count);
		used += (uint32_t)__builtin_popcount(le16_to_cpu(d->entries[i].used));
		for (j = 0; j < le16_to_cpu(d->entries[i].count); j++)
			if (first + 2 * j != inode_id_number(rig->fs.super.root))
				check_pair(rig, first + 2 * j);
	}
	CU_ASSERT_EQUAL(used, le32_to_cpu(h->inodes_used));
	CU_ASSERT_EQUAL(total - used, le32_to_cpu(h->inodes_free));
	return used;
}

static void crash_body(struct rig *rig)
{
	struct shots *s = calloc(1, sizeof(*s));
	struct blkdev *dev;
	uint64_t number;
	unsigned int i;

	s->rig = rig;
	rig_open(rig);
	simdisk_observe(rig->disk, shoot, s);
	for (i = 0; i < 40; i++) {
		CU_ASSERT_EQUAL(make(rig, 0, &number), 0);
		if (i % 6 == 0)
			journal_commit(&rig->fs, journal_last_id(&rig->fs));
	}
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_observe(rig->disk, NULL, NULL);
	CU_ASSERT(s->count > 15 && s->count < SHOTS_MAX);
	CU_ASSERT(s->clusters > 0 && !s->too_early);
	dev = simdisk_open(rig->disk, rig->env);
	for (i = 0; i < 2 * s->count; i++) {
		simdisk_restore(rig->disk, s->image[i / 2]);
		simdisk_power_cut(rig->disk, i % 2 ? SIMDISK_KEEP_RANDOM : SIMDISK_KEEP_NONE);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
		CU_ASSERT(check_index(rig) <= 41);
	}
	while (s->count)
		simdisk_image_free(s->image[--s->count]);
	blkdev_close(dev);
	free(s);
}

/* An index entry whose inodes never reached the LUN names garbage as inodes and as locks. */
static void cluster_is_durable_before_the_index_names_it(void)
{
	rig_run(SMALL, crash_body);
}

static void late_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_TIMEOUT_LATE, .ops = 1u << BLK_WRITE,
				     .count = 1, .delay_ns = NSEC_PER_SEC };
	uint8_t *data = blkdev_alloc(CLUSTER_BLOCKS * BLOCK_SIZE);
	uint8_t *found = blkdev_alloc(CLUSTER_BLOCKS * BLOCK_SIZE);
	uint32_t count = CLUSTER_BLOCKS;
	struct alloc_hold hold;
	uint64_t number, addr;
	unsigned int i;

	rig_open(rig);
	for (i = 0; i < CLUSTER_INODES - 1; i++)	/* the first cluster has the root, too */
		CU_ASSERT_EQUAL(make(rig, 0, &number), 0);
	simdisk_inject(rig->disk, &rule);
	CU_ASSERT_EQUAL(make(rig, 0, &number), -ETIMEDOUT);
	CU_ASSERT_EQUAL(alloc_reserve(&rig->fs, &count, 1, 0, &hold), 0);
	addr = hold.runs[0].block << BLOCK_SHIFT;
	memset(data, 0xd5, CLUSTER_BLOCKS * BLOCK_SIZE);
	CU_ASSERT_EQUAL(blkdev_write(rig->fs.dev, addr, data, CLUSTER_BLOCKS * BLOCK_SIZE), 0);
	env_sleep_until(rig->env, env_now_ns(rig->env) + 5 * NSEC_PER_SEC);
	simdisk_peek(rig->disk, addr, found, CLUSTER_BLOCKS * BLOCK_SIZE);
	CU_ASSERT_EQUAL(memcmp(data, found, CLUSTER_BLOCKS * BLOCK_SIZE), 0);
	alloc_put(&rig->fs, &hold);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	free(data);
	free(found);
}

/* A cluster's write that timed out would land later on whoever has its blocks by then (R4). */
static void blocks_of_a_cluster_that_timed_out_are_not_written_later(void)
{
	rig_run(SMALL, late_body);
}

UNIT_MAIN("itable",
	  UNIT_TEST(threads_never_get_the_same_inode),
	  UNIT_TEST(freed_inodes_are_used_again),
	  UNIT_TEST(index_grows_by_a_chain_of_blocks),
	  UNIT_TEST(fragmented_space_gives_smaller_clusters),
	  UNIT_TEST(cluster_is_durable_before_the_index_names_it),
	  UNIT_TEST(blocks_of_a_cluster_that_timed_out_are_not_written_later));
