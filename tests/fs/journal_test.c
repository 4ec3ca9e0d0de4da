/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: atomic, durable when said so, home in order, whatever fails when. */
#include "fs/journal.h"

#include "base/crc32c.h"
#include "fs/journal_ring.h"
#include "tests/fs/rig.h"

#define SMALL	(64 * MIB)	/* journals of 512 KiB: a ring of 126 blocks */
#define GROUP	3u		/* blocks that change together */

static uint64_t change(struct rig *rig, unsigned int first, unsigned int count, uint64_t value,
		       bool make)
{
	struct txn txn;
	unsigned int i;

	MUST_EQUAL(txn_begin(&rig->fs, count, &txn), 0);
	for (i = first; i < first + count; i++)
		rig_set(rig, &txn, i, value, make);
	return txn_end(&txn);
}

/* ---- crashes: the LUN as it was after each write and flush ---- */

#define SHOTS_MAX	1200

struct shots {
	struct rig *rig;
	struct simdisk_image *image[SHOTS_MAX];
	uint64_t acked[SHOTS_MAX];	/* value that was durable by then */
	unsigned int count;
	uint64_t now_acked;
	bool stop;
};

static void shoot(void *arg, struct env *host, const struct blk_io *io)
{
	struct shots *s = arg;

	(void)host;
	if (io->op == BLK_READ || s->count == SHOTS_MAX)
		return;
	s->acked[s->count] = s->now_acked;
	s->image[s->count++] = simdisk_snapshot(s->rig->disk);
}

static void shots_free(struct shots *s)
{
	while (s->count)
		simdisk_image_free(s->image[--s->count]);
}

/* The value of blocks @first…, which must be the same in all of them. */
static uint64_t group_value(struct rig *rig, unsigned int first)
{
	uint64_t v = rig_home(rig, first);
	unsigned int i;

	for (i = first + 1; i < first + GROUP; i++)
		CU_ASSERT_EQUAL(rig_home(rig, i), v);
	return v;
}

/* Power fails at every point: what survives is a state between transactions, no older than
 * the last acknowledged one. */
static void check_shots(struct rig *rig, struct shots *s, uint64_t last)
{
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	uint64_t v;
	unsigned int i;

	for (i = 0; i < 2 * s->count; i++) {
		simdisk_restore(rig->disk, s->image[i / 2]);
		simdisk_power_cut(rig->disk, i % 2 ? SIMDISK_KEEP_RANDOM : SIMDISK_KEEP_NONE);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
		v = group_value(rig, 0);
		CU_ASSERT(v >= s->acked[i / 2] && v <= last);
	}
	blkdev_close(dev);
}

/* Checkpoints all the time, beside commits. */
static void settler(void *arg)
{
	struct shots *s = arg;

	while (!s->stop) {
		CU_ASSERT_EQUAL(journal_settle(&s->rig->fs), 0);
		env_sleep_until(s->rig->env, env_now_ns(s->rig->env) + NSEC_PER_MSEC);
	}
}

/* Fills the ring, so that checkpoints start while commits are under way. */
static void filler(void *arg)
{
	struct shots *s = arg;
	uint64_t v;

	for (v = 0; !s->stop; v++)
		CU_ASSERT_EQUAL(journal_commit(&s->rig->fs, change(s->rig, 20, 20, v, !v)), 0);
}

static void crash_beside(struct rig *rig, void (*beside)(void *arg))
{
	struct shots *s = calloc(1, sizeof(*s));
	struct simdisk_rule slow = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
		.delay_ns = 3 * NSEC_PER_MSEC };
	struct env_thread *t;
	uint64_t v, id = 0;

	s->rig = rig;
	rig_open(rig);
	change(rig, 0, GROUP, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	s->now_acked = 1;
	/* Commits take longer than checkpoints, the rarer case. */
	slow.off = super_journal_addr(&rig->fs.super, 0) + JOURNAL_TAIL_BLOCKS * BLOCK_SIZE;
	slow.len = rig->fs.super.journal_size - JOURNAL_TAIL_BLOCKS * BLOCK_SIZE;
	if (beside == filler)
		simdisk_inject(rig->disk, &slow);
	simdisk_observe(rig->disk, shoot, s);
	MUST_EQUAL(env_thread_start(rig->env, "beside", beside, s, &t), 0);
	for (v = 2; v <= 60; v++) {
		id = change(rig, 0, GROUP, v, false);
		change(rig, GROUP + (unsigned int)(v % 5) * 2, 2, v, v < 7);
		if (v % 3)
			continue;
		CU_ASSERT_EQUAL(journal_commit(&rig->fs, id), 0);
		s->now_acked = v;
	}
	s->stop = true;
	env_thread_join(rig->env, t);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_observe(rig->disk, NULL, NULL);
	simdisk_clear_rules(rig->disk);
	CU_ASSERT(s->count > 60 && s->count < SHOTS_MAX);
	check_shots(rig, s, v - 1);
	shots_free(s);
	free(s);
}

static void crash_settling_body(struct rig *rig)
{
	crash_beside(rig, settler);
}

/* Without it a crash leaves half of a rename, or loses an fsync (R7). */
static void any_power_cut_leaves_whole_transactions(void)
{
	rig_run(SMALL, crash_settling_body);
}

static void crash_filling_body(struct rig *rig)
{
	crash_beside(rig, filler);
}

/* The tail passes an image whose successor is not durable yet: it must have gone home. */
static void power_cuts_amid_checkpoints_lose_nothing_acknowledged(void)
{
	rig_run(SMALL, crash_filling_body);
}

/* ---- ring ---- */

static void wrap_body(struct rig *rig)
{
	unsigned int replayed = 0, round;
	struct simdisk_image *image;
	struct blkdev *dev;
	uint64_t v = 1;

	rig_open(rig);
	change(rig, 0, GROUP, v, true);
	/* Odd sizes, so that the wrap falls everywhere: in descriptors, images, commit records. */
	for (round = 0; round < 150; round++) {
		v++;
		CU_ASSERT_EQUAL(journal_commit(&rig->fs, change(rig, 0, GROUP, v, false)), 0);
		if (round % 7 == 0)
			journal_commit(&rig->fs, change(rig, 10, 4, v, round == 0));
	}
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_restore(rig->disk, image);
	simdisk_power_cut(rig->disk, SIMDISK_KEEP_NONE);
	dev = simdisk_open(rig->disk, rig->env);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, &replayed), 0);
	CU_ASSERT(replayed > 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), v);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, &replayed), 0);
	CU_ASSERT_EQUAL(replayed, 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), v);
	blkdev_close(dev);
	simdisk_image_free(image);
}

/* A ring index off by one at the wrap loses everything committed since. */
static void transactions_survive_where_the_ring_wraps(void)
{
	rig_run(SMALL, wrap_body);
}

struct load {
	struct rig *rig;
	unsigned int first;
	unsigned int done;
	bool commit;
};

static void load_thread(void *arg)
{
	struct load *l = arg;
	unsigned int i;
	uint64_t id;

	for (i = 0; i < 40; i++) {
		id = change(l->rig, l->first, 10, i, i == 0);
		if (l->commit)
			CU_ASSERT_EQUAL(journal_commit(&l->rig->fs, id), 0);
		l->done++;
	}
}

#define THREADS	8

static void run_load(struct rig *rig, bool commit)
{
	struct env_thread *t[THREADS];
	struct load l[THREADS];
	unsigned int i;

	for (i = 0; i < THREADS; i++) {
		l[i] = (struct load){ .rig = rig, .first = i * 10, .commit = commit };
		MUST_EQUAL(env_thread_start(rig->env, "load", load_thread, &l[i],
						       &t[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		env_thread_join(rig->env, t[i]);
		CU_ASSERT_EQUAL(l[i].done, 40);
	}
}

static void pressure_body(struct rig *rig)
{
	unsigned int i;

	rig_open(rig);
	run_load(rig, false);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	for (i = 0; i < THREADS * 10; i++)
		CU_ASSERT_EQUAL(rig_home(rig, i), 39);
}

/* Handles that wait for space which only they could free would hang the host. */
static void full_ring_makes_handles_wait_and_go_on(void)
{
	rig_run(SMALL, pressure_body);
}

static void group_body(struct rig *rig)
{
	struct journal_status st;

	rig_open(rig);
	run_load(rig, true);
	journal_status(&rig->fs, &st);
	/* 320 commits were asked for by 8 threads at a time. */
	CU_ASSERT(st.commits <= 320 / 3);
	CU_ASSERT(st.flushes <= 2 * (st.commits + st.checkpoints));
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* A flush for each fsync would make a host with many guests crawl. */
static void concurrent_commits_share_flushes(void)
{
	rig_run(GIB, group_body);
}

/* ---- what a replay believes ---- */

static uint64_t tail_sequence(struct rig *rig)
{
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	struct ring ring;
	char why[200];

	ring_init(&ring, dev, &rig->fs.super, 0);
	MUST_EQUAL(ring_read_tail(&ring, why, sizeof(why)), 0);
	blkdev_close(dev);
	return ring.sequence;
}

static void remains_body(struct rig *rig)
{
	struct blkdev *dev;
	struct simdisk_image *image;
	uint64_t sequence;

	rig_open(rig);
	change(rig, 0, GROUP, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	image = simdisk_snapshot(rig->disk);
	/* A transaction that never became durable, but of which everything has landed. */
	journal_commit(&rig->fs, change(rig, 0, GROUP, 2, false));
	CU_ASSERT_EQUAL(rig_close(rig), 0);

	/* The host dies before it; the next life writes a smaller one over its beginning. */
	simdisk_restore(rig->disk, image);
	simdisk_power_cut(rig->disk, SIMDISK_KEEP_ALL);
	sequence = tail_sequence(rig);
	rig_open(rig);
	CU_ASSERT_EQUAL(tail_sequence(rig), sequence + 1);
	journal_commit(&rig->fs, change(rig, 0, GROUP, 3, false));
	simdisk_image_free(image);
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_restore(rig->disk, image);
	dev = simdisk_open(rig->disk, rig->env);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), 3);
	blkdev_close(dev);
	simdisk_image_free(image);
}

/* Sequences must go on after a replay: the same one twice lets remains pass for the new one. */
static void replay_skips_the_sequence_that_a_crash_cut_off(void)
{
	rig_run(SMALL, remains_body);
}

/* Three durable transactions that are not at home, as a snapshot. */
static struct simdisk_image *three_commits(struct rig *rig)
{
	struct simdisk_image *image;
	uint64_t v;

	rig_open(rig);
	change(rig, 0, GROUP, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	for (v = 2; v <= 4; v++)
		CU_ASSERT_EQUAL(journal_commit(&rig->fs, change(rig, 0, GROUP, v, false)), 0);
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_restore(rig->disk, image);
	simdisk_power_cut(rig->disk, SIMDISK_KEEP_NONE);
	return image;
}

static void note_order(void *arg, struct env *host, const struct blk_io *io)
{
	unsigned int *seen = arg;

	(void)host;
	if (io->op == BLK_WRITE && !(*seen & 1u << BLK_FLUSH))
		CU_FAIL("written home before a flush");
	*seen |= 1u << io->op;
}

static void flush_first_body(struct rig *rig)
{
	struct simdisk_image *image = three_commits(rig);
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	unsigned int seen = 0, replayed = 0;

	simdisk_observe(rig->disk, note_order, &seen);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, &replayed), 0);
	simdisk_observe(rig->disk, NULL, NULL);
	CU_ASSERT_EQUAL(replayed, 3);
	CU_ASSERT(seen & 1u << BLK_WRITE);
	blkdev_close(dev);
	simdisk_image_free(image);
}

/* A host died before its flush: power that fails now takes the journal, and must not leave
 * half of what a replay made of it. */
static void replay_flushes_what_it_read_before_it_writes_home(void)
{
	rig_run(SMALL, flush_first_body);
}

static void flip(struct rig *rig, uint64_t addr)
{
	uint8_t sector[512];

	simdisk_peek(rig->disk, addr, sector, sizeof(sector));
	sector[300] ^= 1;
	simdisk_poke(rig->disk, addr, sector, sizeof(sector));
}

static void rot_body(struct rig *rig)
{
	struct simdisk_image *image = three_commits(rig);
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	unsigned int transactions = 99, i;
	struct ring ring;
	char why[200];

	ring_init(&ring, dev, &rig->fs.super, 0);
	for (i = 1; i < GROUP + 2; i++) {
		simdisk_restore(rig->disk, image);
		MUST_EQUAL(ring_read_tail(&ring, why, sizeof(why)), 0);
		flip(rig, ring_addr(&ring, ring.block + i));
		CU_ASSERT_EQUAL(journal_scan(rig->env, dev, &rig->fs.super, 0, NULL, NULL,
					     &transactions, why, sizeof(why)), -EBADMSG);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "is damaged"));
		CU_ASSERT_EQUAL(transactions, 99);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), -EBADMSG);
		CU_ASSERT_EQUAL(group_value(rig, 0), 1);	/* nothing was written */
	}
	/* The last one may be cut off: that is a crash, not damage. */
	simdisk_restore(rig->disk, image);
	flip(rig, ring_addr(&ring, ring.block + 2 * (GROUP + 2) + 1));
	CU_ASSERT_EQUAL(journal_scan(rig->env, dev, &rig->fs.super, 0, NULL, NULL, &transactions,
				     why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(transactions, 2);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), 3);
	blkdev_close(dev);
	simdisk_image_free(image);
}

/* A durable transaction that has rotted must not be taken for the journal's end (R6). */
static void damage_before_the_last_transaction_is_reported(void)
{
	rig_run(SMALL, rot_body);
}

static void bind_body(struct rig *rig)
{
	struct simdisk_image *image = three_commits(rig);
	struct journal_desc_disk *d = blkdev_alloc(BLOCK_SIZE);
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	uint64_t at = GROUP + 2, sequence;
	struct ring ring;
	char why[200];

	ring_init(&ring, dev, &rig->fs.super, 0);
	MUST_EQUAL(ring_read_tail(&ring, why, sizeof(why)), 0);
	at = (ring.block + 2 * at) % ring.blocks;
	sequence = ring.sequence + 2;
	CU_ASSERT_EQUAL(ring_rw(&ring, BLK_READ, at, d, 1), 0);
	d->generation = cpu_to_le32(le32_to_cpu(d->generation) + 1);
	ring_seal(&ring, META_DESC, at, sequence, d);
	CU_ASSERT_EQUAL(ring_rw(&ring, BLK_WRITE, at, d, 1), 0);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), 3);
	blkdev_close(dev);
	free(d);
	simdisk_image_free(image);
}

/* Two attempts at one place: the commit record of one must not vouch for the other's blocks. */
static void commit_record_binds_its_own_descriptor_only(void)
{
	rig_run(SMALL, bind_body);
}

/* A journal that wants to write @addr: block 0's image, sealed for there as @type. */
static void check_refused(struct rig *rig, uint64_t addr, enum meta_type type)
{
	struct { uint8_t desc[BLOCK_SIZE], image[BLOCK_SIZE], commit[BLOCK_SIZE]; } *t;
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	struct journal_commit_disk *c;
	struct journal_desc_disk *d;
	struct meta_expect e = { type, rig->fs.super.volume, addr, 0, 0 };
	uint8_t before[BLOCK_SIZE], after[BLOCK_SIZE];
	struct ring ring;
	char why[200];

	t = blkdev_alloc(sizeof(*t));
	d = (void *)t->desc;
	c = (void *)t->commit;
	ring_init(&ring, dev, &rig->fs.super, 0);
	MUST_EQUAL(ring_read_tail(&ring, why, sizeof(why)), 0);
	meta_seal(t->image, &e, 1);
	d->sequence = c->sequence = cpu_to_le64(ring.sequence);
	d->count = c->count = cpu_to_le32(1);
	d->entries[0].addr = cpu_to_le64(addr);
	d->entries[0].crc = cpu_to_le32(crc32c(0, t->image, BLOCK_SIZE));
	ring_seal(&ring, META_DESC, ring.block, ring.sequence, d);
	c->desc_crc = cpu_to_le32(crc32c(0, d, BLOCK_SIZE));
	ring_seal(&ring, META_COMMIT, (ring.block + 2) % ring.blocks, ring.sequence, c);
	CU_ASSERT_EQUAL(ring_rw(&ring, BLK_WRITE, ring.block, t, 3), 0);
	simdisk_peek(rig->disk, addr, before, BLOCK_SIZE);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), -EUCLEAN);
	simdisk_peek(rig->disk, addr, after, BLOCK_SIZE);
	CU_ASSERT_EQUAL(memcmp(before, after, BLOCK_SIZE), 0);
	blkdev_close(dev);
	free(t);
}

static void hostile_body(struct rig *rig)
{
	const struct super *s = &rig->fs.super;

	rig_open(rig);
	change(rig, 0, GROUP, 1, true);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	check_refused(rig, SUPER_ADDR, META_SUPER);
	check_refused(rig, s->slots_addr, META_INODE);
	check_refused(rig, super_journal_addr(s, 1), META_INODE);
	check_refused(rig, super_ag_addr(s, 0), META_AG);
	check_refused(rig, s->copy_addr, META_DIR_LEAF);
	check_refused(rig, super_end_addr(s), META_DIR_LEAF);
	check_refused(rig, rig_addr(rig, 0), META_LOCK);
	CU_ASSERT_EQUAL(group_value(rig, 0), 1);
}

/* Disk bytes are hostile (R9): a forged journal must not write locks, slots, superblocks. */
static void replay_writes_nothing_where_images_cannot_lie(void)
{
	rig_run(SMALL, hostile_body);
}

static void tail_body(struct rig *rig)
{
	struct simdisk_image *image = three_commits(rig);
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	struct ring ring;
	uint64_t newest;
	char why[200];

	ring_init(&ring, dev, &rig->fs.super, 0);
	MUST_EQUAL(ring_read_tail(&ring, why, sizeof(why)), 0);
	newest = ring.version % 2;
	/* What a crash amid the write of the next tail leaves: the older block is torn. */
	flip(rig, ring.addr + (1 - newest) * BLOCK_SIZE);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
	CU_ASSERT_EQUAL(group_value(rig, 0), 4);
	simdisk_restore(rig->disk, image);
	flip(rig, ring.addr);
	flip(rig, ring.addr + BLOCK_SIZE);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), -EBADMSG);
	CU_ASSERT_EQUAL(group_value(rig, 0), 1);
	blkdev_close(dev);
	simdisk_image_free(image);
}

/* The tail is written over the older of two blocks, so one of them is always whole. */
static void torn_tail_is_survived_and_a_lost_one_reported(void)
{
	rig_run(SMALL, tail_body);
}

/* ---- order ---- */

struct order {
	struct rig *rig;
	uint64_t data_addr;
	unsigned int others_after_inode;
	bool inode_written;
};

static void watch_order(void *arg, struct env *host, const struct blk_io *io)
{
	struct order *o = arg;
	uint64_t first = rig_addr(o->rig, GROUP);

	(void)host;
	if (io->op != BLK_WRITE || io->off < first)
		return;
	if (io->off == rig_addr(o->rig, 1))
		o->inode_written = true;
	else if (o->inode_written)
		o->others_after_inode++;
}

static void inode_last_body(struct rig *rig)
{
	struct order o = { .rig = rig };
	struct meta_expect e;
	struct txn txn;
	struct buf *b;

	rig_open(rig);
	simdisk_observe(rig->disk, watch_order, &o);
	MUST_EQUAL(txn_begin(&rig->fs, 3, &txn), 0);
	e = rig_expect(rig, 1);
	e.type = META_INODE;
	MUST_EQUAL(buf_new(&rig->fs, &rig->cover, &e, &b), 0);
	txn_dirty(&txn, b, 1);
	buf_put(&rig->fs, b);
	rig_set(rig, &txn, 0, 1, true);
	rig_set(rig, &txn, 2, 1, true);
	txn_end(&txn);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	CU_ASSERT_TRUE(o.inode_written);
	CU_ASSERT_EQUAL(o.others_after_inode, 0);
	CU_ASSERT_EQUAL(rig_home(rig, 0), 1);
	simdisk_observe(rig->disk, NULL, NULL);
}

/* Readers without locks believe an inode's blocks by its version: it must come last. */
static void inodes_go_home_after_what_they_point_to(void)
{
	rig_run(SMALL, inode_last_body);
}

static uint64_t reads_of(struct rig *rig)
{
	struct simdisk_stats st;

	simdisk_stats(rig->disk, rig->env, &st);
	return st.ops[BLK_READ];
}

#define MANY	40u	/* below half of the ring: no checkpoint */

static void batched_body(struct rig *rig)
{
	struct simdisk_image *image;
	unsigned int replayed = 0, i;
	struct blkdev *dev;
	struct txn txn;
	uint64_t reads;

	rig_open(rig);
	for (i = 0; i < MANY; i++) {
		MUST_EQUAL(txn_begin(&rig->fs, 1, &txn), 0);
		rig_set(rig, &txn, 0, i, !i);
		CU_ASSERT_EQUAL(journal_commit(&rig->fs, txn_end(&txn)), 0);
	}
	image = simdisk_snapshot(rig->disk);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_restore(rig->disk, image);
	simdisk_image_free(image);
	dev = simdisk_open(rig->disk, rig->env);
	reads = reads_of(rig);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, &replayed), 0);
	CU_ASSERT_EQUAL(replayed, MANY);
	CU_ASSERT_EQUAL(rig_home(rig, 0), MANY - 1);
	CU_ASSERT(reads_of(rig) - reads <= MANY / 5);
	/* And an empty one costs the tail and a few blocks. */
	reads = reads_of(rig);
	CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, &replayed), 0);
	CU_ASSERT_EQUAL(replayed, 0);
	/* The tail, the first window, and the end again: one flipped bit must not make it one. */
	CU_ASSERT(reads_of(rig) - reads <= 3);
	blkdev_close(dev);
}

/* Taking over waits for the replay: a round trip for each of 10,000 commits is seconds. */
static void small_transactions_are_read_many_at_a_time(void)
{
	rig_run(4 * GIB, batched_body);
}

static void data_write(struct rig *rig, uint64_t addr, uint64_t value)
{
	uint64_t *data = blkdev_alloc(BLOCK_SIZE);

	data[0] = value;
	CU_ASSERT_EQUAL(blkdev_write(rig->fs.dev, addr, data, BLOCK_SIZE), 0);
	journal_data_written(&rig->fs);
	free(data);
}

static void check_data(struct rig *rig, struct shots *s, uint64_t data_addr)
{
	struct blkdev *dev = simdisk_open(rig->disk, rig->env);
	uint64_t sector[64];
	unsigned int i;

	for (i = 0; i < 3 * s->count; i++) {
		simdisk_restore(rig->disk, s->image[i / 3]);
		simdisk_power_cut(rig->disk, i % 3 ? SIMDISK_KEEP_RANDOM : SIMDISK_KEEP_NONE);
		CU_ASSERT_EQUAL(journal_replay(rig->env, dev, &rig->fs.super, 0, NULL), 0);
		simdisk_peek(rig->disk, data_addr, sector, sizeof(sector));
		CU_ASSERT(sector[0] >= rig_home(rig, 0));
		CU_ASSERT(sector[0] >= s->acked[i / 3]);
	}
	blkdev_close(dev);
}

static void data_body(struct rig *rig)
{
	struct shots *s = calloc(1, sizeof(*s));
	uint64_t v, id, addr;

	s->rig = rig;
	rig_open(rig);
	addr = rig_addr(rig, 50);
	data_write(rig, addr, 1);
	change(rig, 0, 1, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	simdisk_observe(rig->disk, shoot, s);
	for (v = 2; v < 20; v++) {
		data_write(rig, addr, v);
		id = change(rig, 0, 1, v, false);
		CU_ASSERT_EQUAL(v % 3 ? journal_flush_data(&rig->fs) :
					journal_commit(&rig->fs, id), 0);
		s->now_acked = v;
	}
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	simdisk_observe(rig->disk, NULL, NULL);
	check_data(rig, s, addr);
	shots_free(s);
	free(s);
}

/* A map entry that is durable before the data it points to shows another file's past (R8). */
static void data_is_durable_before_what_points_to_it(void)
{
	rig_run(SMALL, data_body);
}

static void overwritten_body(struct rig *rig)
{
	uint64_t addr, sector[64];

	rig_open(rig);
	addr = rig_addr(rig, 50);
	data_write(rig, addr, 7);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	simdisk_power_cut(rig->disk, SIMDISK_KEEP_NONE);
	simdisk_peek(rig->disk, addr, sector, sizeof(sector));
	CU_ASSERT_EQUAL(sector[0], 7);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* Another host gets the file's lock, fsyncs, has nothing of its own to flush, and acknowledges. */
static void data_is_durable_before_a_lock_is_given_up(void)
{
	rig_run(SMALL, overwritten_body);
}

/* ---- errors ---- */

/* One life of a host in which device command number @skip fails; returns the value acked. */
static uint64_t failing_life(struct rig *rig, uint64_t skip, bool *dead)
{
	struct simdisk_rule rule = { .fault = skip % 2 ? SIMDISK_FAIL : SIMDISK_FAIL_APPLIED,
		.ops = 1u << BLK_WRITE | 1u << BLK_FLUSH, .skip = skip, .count = 1 };
	uint64_t v, acked = 1;
	struct txn txn;
	int err = 0;

	rig_open(rig);
	simdisk_inject(rig->disk, &rule);
	for (v = 2; v < 8 && !err; v++) {
		err = txn_begin(&rig->fs, GROUP, &txn);
		if (err)
			break;
		rig_set(rig, &txn, 0, v, false);
		rig_set(rig, &txn, 1, v, false);
		rig_set(rig, &txn, 2, v, false);
		err = v % 3 ? journal_commit(&rig->fs, txn_end(&txn)) :
			      (txn_end(&txn), journal_settle(&rig->fs));
		if (!err)
			acked = v;
	}
	simdisk_clear_rules(rig->disk);
	*dead = err != 0;
	if (err) {	/* R7: it stays dead, although the device works again */
		CU_ASSERT_EQUAL(err, -EIO);
		CU_ASSERT_EQUAL(txn_begin(&rig->fs, 1, &txn), -EIO);
		CU_ASSERT_EQUAL(journal_flush_data(&rig->fs), -EIO);
		CU_ASSERT_EQUAL(journal_settle(&rig->fs), -EIO);
	}
	CU_ASSERT_EQUAL(rig_close(rig), err);
	return acked;
}

static void failing_body(struct rig *rig)
{
	struct simdisk_image *image;
	uint64_t skip, acked, v;
	bool dead = true;

	rig_open(rig);
	change(rig, 0, GROUP, 1, true);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	image = simdisk_snapshot(rig->disk);
	for (skip = 0; dead && skip < 100; skip++) {
		simdisk_restore(rig->disk, image);
		acked = failing_life(rig, skip, &dead);
		CU_ASSERT_EQUAL(dead, strstr(rig->log, "leaves the volume") != NULL);
		rig->log[0] = 0;
		simdisk_power_cut(rig->disk, SIMDISK_KEEP_NONE);
		rig_open(rig);
		v = group_value(rig, 0);
		CU_ASSERT(v >= acked);
		CU_ASSERT_EQUAL(rig_close(rig), 0);
	}
	CU_ASSERT(skip > 20 && !dead);
	simdisk_image_free(image);
}

/* A failed flush that is retried may "succeed" although what it covered is lost (R7). */
static void any_failing_write_or_flush_ends_the_journal(void)
{
	rig_run(SMALL, failing_body);
}

/* ---- time ---- */

static void writeback_body(struct rig *rig)
{
	struct simdisk_stats before, after;

	rig_open(rig);
	change(rig, 0, GROUP, 9, true);
	env_sleep_until(rig->env, env_now_ns(rig->env) + 2 * WRITEBACK_MS * NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(group_value(rig, 0), 9);
	simdisk_stats(rig->disk, rig->env, &before);
	env_sleep_until(rig->env, env_now_ns(rig->env) + 60 * NSEC_PER_SEC);
	simdisk_stats(rig->disk, rig->env, &after);
	CU_ASSERT_EQUAL(memcmp(&before, &after, sizeof(before)), 0);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* Other hosts read what is at home: it must get there by itself, and then the LUN rests. */
static void changes_go_home_by_themselves(void)
{
	rig_run(SMALL, writeback_body);
}

UNIT_MAIN("journal",
	  UNIT_TEST(any_power_cut_leaves_whole_transactions),
	  UNIT_TEST(power_cuts_amid_checkpoints_lose_nothing_acknowledged),
	  UNIT_TEST(transactions_survive_where_the_ring_wraps),
	  UNIT_TEST(full_ring_makes_handles_wait_and_go_on),
	  UNIT_TEST(concurrent_commits_share_flushes),
	  UNIT_TEST(replay_skips_the_sequence_that_a_crash_cut_off),
	  UNIT_TEST(replay_flushes_what_it_read_before_it_writes_home),
	  UNIT_TEST(damage_before_the_last_transaction_is_reported),
	  UNIT_TEST(commit_record_binds_its_own_descriptor_only),
	  UNIT_TEST(replay_writes_nothing_where_images_cannot_lie),
	  UNIT_TEST(torn_tail_is_survived_and_a_lost_one_reported),
	  UNIT_TEST(inodes_go_home_after_what_they_point_to),
	  UNIT_TEST(small_transactions_are_read_many_at_a_time),
	  UNIT_TEST(data_is_durable_before_what_points_to_it),
	  UNIT_TEST(data_is_durable_before_a_lock_is_given_up),
	  UNIT_TEST(any_failing_write_or_flush_ends_the_journal),
	  UNIT_TEST(changes_go_home_by_themselves));
