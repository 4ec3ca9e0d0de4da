/* SPDX-License-Identifier: Apache-2.0 */
/* Space: nothing is given twice, nothing is lost, nothing comes back too early. */
#include "fs/alloc.h"

#include "fs/ag.h"
#include "tests/fs/rig.h"

#define SMALL	(64 * MIB)	/* one short group, two slots */

static struct ag *group(struct rig *rig, uint32_t index)
{
	struct ag *ag = NULL;

	MUST_EQUAL(ag_get(&rig->fs, index, &ag), 0);
	return ag;
}

/* One run of @count, taken in a transaction of its own; its first block, 0 on -ENOSPC. */
static uint64_t take(struct rig *rig, uint32_t count, uint64_t goal)
{
	struct alloc_hold hold;
	struct txn txn;
	uint64_t block;
	int err = alloc_reserve(&rig->fs, &count, 1, goal, &hold);

	if (err) {
		CU_ASSERT_EQUAL(err, -ENOSPC);
		return 0;
	}
	block = hold.runs[0].block;
	MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
	CU_ASSERT_EQUAL(alloc_take(&txn, &hold, 0), 0);
	txn_end(&txn);
	alloc_put(&rig->fs, &hold);
	return block;
}

static int give(struct rig *rig, uint64_t block, uint32_t count)
{
	struct alloc_pin pin;
	struct txn txn;
	int err;

	MUST_EQUAL(alloc_pin(&rig->fs, block, &pin), 0);
	MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
	err = alloc_free(&txn, &pin, block, count);
	txn_end(&txn);
	alloc_unpin(&rig->fs, &pin);
	return err;
}

/* Every group's header against its bitmap blocks as they are at home; returns free blocks. */
static uint64_t check_home(struct rig *rig)
{
	const struct super *s = &rig->fs.super;
	static uint8_t header[BLOCK_SIZE], bitmap[BLOCK_SIZE];
	uint64_t sum = 0;
	uint32_t a, i, j;

	for (a = 0; a < s->ag_count; a++) {
		uint64_t addr = super_ag_addr(s, a) + BLOCK_SIZE;
		struct meta_expect e = { META_AG, s->volume, addr, a, 0 };
		const struct ag_disk *d = (void *)header;
		uint32_t found = 0;

		simdisk_peek(rig->disk, addr, header, BLOCK_SIZE);
		CU_ASSERT_EQUAL(meta_verify(header, &e, NULL, 0), 0);
		for (i = 0; i < le32_to_cpu(d->bitmap_count); i++) {
			uint8_t *bits = bitmap + BLOCK_SIZE - BITMAP_BYTES;

			e = (struct meta_expect){ META_BITMAP, s->volume, addr + (1 + i) * BLOCK_SIZE,
						  a, 0 };
			simdisk_peek(rig->disk, e.addr, bitmap, BLOCK_SIZE);
			if (d->bitmap_ready[i / 8] & 1u << i % 8)
				CU_ASSERT_EQUAL(meta_verify(bitmap, &e, NULL, 0), 0);
			if (!(d->bitmap_ready[i / 8] & 1u << i % 8))
				ag_bitmap_fresh(s, a, le32_to_cpu(d->blocks), i, bits);
			for (j = 0; j < BITMAP_BYTES; j++)
				found += 8u - (uint32_t)__builtin_popcount(bits[j]);
		}
		CU_ASSERT_EQUAL(found, le32_to_cpu(d->free_blocks));
		sum += found;
	}
	return sum;
}

/* ---- giving ---- */

#define TAKERS	6
#define TAKES	60

struct taker {
	struct rig *rig;
	unsigned int index;
	struct alloc_run runs[TAKES];
};

static void taker(void *arg)
{
	static const uint32_t sizes[] = { 1, UNIT_BLOCKS, 3, 32 };
	struct taker *t = arg;
	unsigned int i;

	for (i = 0; i < TAKES; i++) {
		t->runs[i].count = sizes[(i + t->index) % ARRAY_SIZE(sizes)];
		t->runs[i].block = take(t->rig, t->runs[i].count, 0);
		CU_ASSERT(t->runs[i].block != 0);
	}
}

static int by_block(const void *a, const void *b)
{
	const struct alloc_run *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

static void check_disjoint(struct alloc_run *runs, size_t count)
{
	size_t i;

	qsort(runs, count, sizeof(*runs), by_block);
	for (i = 1; i < count; i++)
		CU_ASSERT(runs[i - 1].block + runs[i - 1].count <= runs[i].block);
}

static void concurrent_body(struct rig *rig)
{
	struct alloc_run *all = calloc(TAKERS * TAKES, sizeof(*all));
	struct taker *t = calloc(TAKERS, sizeof(*t));
	struct env_thread *thread[TAKERS];
	uint64_t before, used = 0;
	unsigned int i;

	rig_open(rig);
	before = check_home(rig);
	for (i = 0; i < TAKERS; i++) {
		t[i] = (struct taker){ .rig = rig, .index = i };
		MUST_EQUAL(env_thread_start(rig->env, "taker", taker, &t[i],
						       &thread[i]), 0);
	}
	for (i = 0; i < TAKERS; i++) {
		env_thread_join(rig->env, thread[i]);
		memcpy(all + i * TAKES, t[i].runs, sizeof(t[i].runs));
	}
	for (i = 0; i < TAKERS * TAKES; i++) {
		used += all[i].count;
		if (all[i].count == UNIT_BLOCKS)
			CU_ASSERT_EQUAL(all[i].block % UNIT_BLOCKS, 0);
	}
	check_disjoint(all, TAKERS * TAKES);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	CU_ASSERT_EQUAL(check_home(rig), before - used);
	free(all);
	free(t);
}

/* Two files that share a block destroy each other. */
static void threads_never_get_the_same_block(void)
{
	rig_run(GIB, concurrent_body);
}

static void put_body(struct rig *rig)
{
	static const uint32_t counts[] = { UNIT_BLOCKS, 1, 1 };
	struct alloc_hold hold, second;
	uint64_t before;
	struct txn txn;

	rig_open(rig);
	before = check_home(rig);
	MUST_EQUAL(alloc_reserve(&rig->fs, counts, 3, 0, &hold), 0);
	MUST_EQUAL(alloc_reserve(&rig->fs, counts, 3, 0, &second), 0);
	CU_ASSERT(hold.runs[1].block != hold.runs[2].block);
	CU_ASSERT(hold.runs[1].block != second.runs[1].block);
	MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
	CU_ASSERT_EQUAL(alloc_take(&txn, &hold, 1), 0);
	txn_end(&txn);
	alloc_put(&rig->fs, &hold);
	alloc_put(&rig->fs, &second);
	CU_ASSERT_EQUAL(group(rig, 0)->reserved_count, 0);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	CU_ASSERT_EQUAL(check_home(rig), before - 1);
}

/* A write that fails after its reservation must not eat the space. */
static void what_is_reserved_and_not_taken_is_free_again(void)
{
	rig_run(SMALL, put_body);
}

static void full_body(struct rig *rig)
{
	uint64_t before, units = 0, singles = 0, block, last = 0;
	struct alloc_totals totals;

	rig_open(rig);
	before = check_home(rig);
	while ((block = take(rig, UNIT_BLOCKS, 0))) {
		units++;
		last = block;
	}
	while (take(rig, 1, 0))
		singles++;
	CU_ASSERT_EQUAL(units * UNIT_BLOCKS + singles, before);
	/* Deleting works, and what it frees can be had at once: the quarantine is waited for. */
	CU_ASSERT_EQUAL(give(rig, last, UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(take(rig, UNIT_BLOCKS, 0), last);
	CU_ASSERT_EQUAL(give(rig, last, 5), 0);
	CU_ASSERT_EQUAL(alloc_totals(&rig->fs, &totals), 0);
	CU_ASSERT_EQUAL(totals.blocks_free, 5);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	CU_ASSERT_EQUAL(check_home(rig), 5);
}

/* A full volume gives all that it has, says so, and comes back when something is deleted. */
static void full_volume_gives_its_last_block_and_recovers(void)
{
	rig_run(SMALL, full_body);
}

/* ---- freeing ---- */

struct order {
	struct rig *rig;
	uint64_t freed_addr;
	bool tail_written, tail_flushed, discarded;
	bool too_early;
};

static void watch(void *arg, struct env *host, const struct blk_io *io)
{
	struct order *o = arg;
	uint64_t journal = super_journal_addr(&o->rig->fs.super, 0);

	(void)host;
	if (io->op == BLK_WRITE && io->off >= journal && io->off < journal + 2 * BLOCK_SIZE)
		o->tail_written = true;
	if (io->op == BLK_FLUSH && o->tail_written)
		o->tail_flushed = true;
	if (io->op != BLK_DISCARD)
		return;
	o->discarded = io->off <= o->freed_addr && io->off + io->len > o->freed_addr;
	o->too_early |= !o->tail_flushed;
}

static void quarantine_body(struct rig *rig)
{
	uint64_t block, other;
	struct order o = { .rig = rig };

	rig_open(rig);
	block = take(rig, 1, 0);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	o.freed_addr = block << BLOCK_SHIFT;
	simdisk_observe(rig->disk, watch, &o);
	CU_ASSERT_EQUAL(give(rig, block, 1), 0);
	other = take(rig, 1, block);
	CU_ASSERT(other != block && other != 0);
	CU_ASSERT_EQUAL(journal_commit(&rig->fs, journal_last_id(&rig->fs)), 0);
	other = take(rig, 1, block);	/* durable is not enough */
	CU_ASSERT(other != block && other != 0);
	CU_ASSERT_FALSE(o.discarded);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	CU_ASSERT_TRUE(o.discarded);
	CU_ASSERT_FALSE(o.too_early);
	CU_ASSERT_EQUAL(take(rig, 1, block), block);
	simdisk_observe(rig->disk, NULL, NULL);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_home(rig);
}

/* A replay would write the old life of a block over the new one. */
static void freed_block_waits_until_the_tail_is_past_it(void)
{
	rig_run(SMALL, quarantine_body);
}

static void double_body(struct rig *rig)
{
	uint64_t block, start, copy;

	rig_open(rig);
	start = super_ag_addr(&rig->fs.super, 0) >> BLOCK_SHIFT;
	copy = rig->fs.super.copy_addr >> BLOCK_SHIFT;
	block = take(rig, 3, 0);
	CU_ASSERT_EQUAL(give(rig, block, 4), -EUCLEAN);	/* the fourth is not in use */
	CU_ASSERT_EQUAL(give(rig, start + 1, 1), -EUCLEAN);
	CU_ASSERT_EQUAL(give(rig, copy, 1), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(rig->log, "to be freed"));
	CU_ASSERT_EQUAL(group(rig, 0)->quarantined_count, 0);
	CU_ASSERT_EQUAL(give(rig, block, 3), 0);
	CU_ASSERT_EQUAL(give(rig, block + 1, 1), -EUCLEAN);
	CU_ASSERT_EQUAL(group(rig, 0)->quarantined_count, 3);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_home(rig);
}

/* A damaged map must not free what others own, or what holds the volume together. */
static void freeing_what_is_not_in_use_changes_nothing(void)
{
	rig_run(SMALL, double_body);
}

/* ---- bitmap blocks nobody has written yet ---- */

static void fresh_body(struct rig *rig)
{
	uint64_t start, goal, block;
	struct ag *ag;

	rig_open(rig);
	ag = group(rig, 0);
	start = ag->start;
	CU_ASSERT(ag->bitmap_count >= 8);
	goal = start + 5 * BITMAP_BITS + 1000;
	block = take(rig, UNIT_BLOCKS, goal);
	CU_ASSERT_EQUAL((block - start) / BITMAP_BITS, 5);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_home(rig);
	rig_open(rig);
	CU_ASSERT_EQUAL(give(rig, block, UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(give(rig, start + 6 * BITMAP_BITS, 1), -EUCLEAN);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_home(rig);
}

/* mkfs writes no bitmaps: what the device held there before must never be believed. */
static void bitmap_block_is_made_when_first_taken_from(void)
{
	rig_run(GIB + 200 * MIB, fresh_body);
}

/* ---- crashes ---- */

#define SHOTS_MAX	500

struct shots {
	struct rig *rig;
	struct simdisk_image *image[SHOTS_MAX];
	unsigned int count;
};

static void shoot(void *arg, struct env *host, const struct blk_io *io)
{
	struct shots *s = arg;

	(void)host;
	if (io->op != BLK_READ && io->op != BLK_DISCARD && s->count < SHOTS_MAX)
		s->image[s->count++] = simdisk_snapshot(s->rig->disk);
}

static void churn(struct rig *rig)
{
	uint64_t blocks[40];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = take(rig, i % 7 + 1, (uint64_t)i * 3000);
		if (i % 5 == 4)
			CU_ASSERT_EQUAL(give(rig, blocks[i - 2], (i - 2) % 7 + 1), 0);
		if (i % 4 == 3)
			journal_commit(&rig->fs, journal_last_id(&rig->fs));
	}
}

static void crash_body(struct rig *rig)
{
	struct shots *s = calloc(1, sizeof(*s));
	struct blkdev *dev;
	unsigned int i;

	s->rig = rig;
	rig_open(rig);
	simdisk_observe(rig->disk, shoot, s);
	churn(rig);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_observe(rig->disk, NULL, NULL);
	CU_ASSERT(s->count > 20 && s->count < SHOTS_MAX);
	dev = simdisk_open(rig->disk, rig->env);
	for (i = 0; i < s->count; i++) {
		simdisk_restore(rig->disk, s->image[i]);
		simdisk_power_cut(rig->disk, i % 2 ? SIMDISK_KEEP_RANDOM : SIMDISK_KEEP_NONE);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
		check_home(rig);
		simdisk_image_free(s->image[i]);
	}
	blkdev_close(dev);
	free(s);
}

/* Counters that disagree with bitmaps after a crash end in ENOSPC, or worse. */
static void header_and_bitmaps_agree_after_any_power_cut(void)
{
	rig_run(GIB, crash_body);
}

/* ---- damage and errors ---- */

static void damaged_body(struct rig *rig)
{
	struct alloc_hold hold;
	uint32_t one = 1;
	uint8_t sector[512];
	uint64_t addr;

	rig_open(rig);
	addr = super_ag_addr(&rig->fs.super, 0) + AG_HEADER_BLOCK * BLOCK_SIZE;
	simdisk_peek(rig->disk, addr, sector, sizeof(sector));
	sector[68] ^= 1;
	simdisk_poke(rig->disk, addr, sector, sizeof(sector));
	/* The other group serves. */
	MUST_EQUAL(alloc_reserve(&rig->fs, &one, 1, 0, &hold), 0);
	CU_ASSERT_EQUAL(hold.ag->index, 1);
	alloc_put(&rig->fs, &hold);
	CU_ASSERT_PTR_NOT_NULL(strstr(rig->log, "allocation group"));
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* One bad block must not stop the volume, and must be named (R6). */
static void damaged_group_is_reported_and_others_serve(void)
{
	rig_run(2 * GIB, damaged_body);
}

static void errors_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ, .count = 1 };
	struct alloc_hold hold;
	uint32_t one = 1;
	int err = -EIO;

	for (rule.skip = 0; err && rule.skip < 20; rule.skip++) {
		rig_open(rig);
		simdisk_inject(rig->disk, &rule);
		err = alloc_reserve(&rig->fs, &one, 1, 0, &hold);
		CU_ASSERT(err == 0 || err == -EIO);
		if (!err)
			alloc_put(&rig->fs, &hold);
		simdisk_clear_rules(rig->disk);
		CU_ASSERT_EQUAL(rig_close(rig), 0);
	}
	CU_ASSERT(rule.skip > 2 && !err);
}

/* A read error is an error of this operation, and leaves nothing pinned or reserved. */
static void any_failing_read_is_passed_on(void)
{
	rig_run(SMALL, errors_body);
}

UNIT_MAIN("alloc",
	  UNIT_TEST(threads_never_get_the_same_block),
	  UNIT_TEST(what_is_reserved_and_not_taken_is_free_again),
	  UNIT_TEST(full_volume_gives_its_last_block_and_recovers),
	  UNIT_TEST(freed_block_waits_until_the_tail_is_past_it),
	  UNIT_TEST(freeing_what_is_not_in_use_changes_nothing),
	  UNIT_TEST(bitmap_block_is_made_when_first_taken_from),
	  UNIT_TEST(header_and_bitmaps_agree_after_any_power_cut),
	  UNIT_TEST(damaged_group_is_reported_and_others_serve),
	  UNIT_TEST(any_failing_read_is_passed_on));
