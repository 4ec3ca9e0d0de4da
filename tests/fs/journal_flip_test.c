// SPDX-License-Identifier: Apache-2.0
/* Bits that flip on the way from the device: what one read shows wrong must change nothing. */
#include "fs/journal.h"

#include "fs/journal_ring.h"
#include "tests/fs/rig.h"

#define SMALL	(64 * MIB)
#define BITS	8u	/* a flip in each read, so many times: where it hits is random */

static void set(struct rig *rig, uint64_t value, bool make)
{
	struct txn txn;

	MUST_EQUAL(txn_begin(&rig->fs, 1, &txn), 0);
	rig_set(rig, &txn, 0, value, make);
	CU_ASSERT_EQUAL(journal_commit(&rig->fs, txn_end(&txn)), 0);
}

static void count_strike(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	(void)rule;
	(void)op;
	++*(unsigned int *)arg;
}

/* Replays from @image with a bit flipped in each of its reads in turn. */
static void replay_with_flips(struct rig *rig, const struct simdisk_image *image, uint64_t want)
{
	unsigned int struck = 0, tried = 0;
	struct simdisk_rule rule = { .fault = SIMDISK_CORRUPT, .ops = 1u << BLK_READ, .count = 1,
				     .struck = count_strike, .arg = &struck };
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);

	do {
		struck = 0;
		simdisk_restore(rig->disk, image);
		rule.skip = tried++ / BITS;
		simdisk_inject(rig->disk, &rule);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
		simdisk_clear_rules(rig->disk);
		CU_ASSERT_EQUAL(rig_home(rig, 0), want);
	} while (struck);
	CU_ASSERT(tried > 2 * BITS);
	blkdev_close(dev);
}

static void committed_body(struct rig *rig)
{
	struct simdisk_image *image;

	rig_open(rig);
	set(rig, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	set(rig, 2, false);
	set(rig, 3, false);
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	replay_with_flips(rig, image, 3);
	simdisk_image_free(image);
}

/* An acknowledged transaction is not taken for the torn end of the journal (R7). */
static void flipped_bit_ends_no_journal(void)
{
	rig_run(SMALL, committed_body);
}

static void settled_body(struct rig *rig)
{
	struct simdisk_image *image;
	uint8_t block[BLOCK_SIZE];

	rig_open(rig);
	set(rig, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	simdisk_peek(rig->disk, rig_addr(rig, 0), block, sizeof(block));
	set(rig, 2, false);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	/* The block's next owner, another host, has changed it since. */
	simdisk_poke(rig->disk, rig_addr(rig, 0), block, sizeof(block));
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	replay_with_flips(rig, image, 1);
	simdisk_image_free(image);
}

/* The older tail leads to what is at home: replayed, it would undo what others wrote (R1). */
static void flipped_bit_brings_no_old_tail_back(void)
{
	rig_run(SMALL, settled_body);
}

UNIT_MAIN("journal_flip",
	  UNIT_TEST(flipped_bit_ends_no_journal),
	  UNIT_TEST(flipped_bit_brings_no_old_tail_back));
