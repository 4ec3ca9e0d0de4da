/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks in memory: believed only if verified, newest wins, nothing of an older life. */
#include "fs/buf.h"

#include "tests/fs/rig.h"

#define SMALL	(64 * MIB)

static uint64_t change(struct rig *rig, unsigned int i, uint64_t value, bool make)
{
	struct txn txn;

	MUST_EQUAL(txn_begin(&rig->fs, 1, &txn), 0);
	rig_set(rig, &txn, i, value, make);
	return txn_end(&txn);
}

/* What buf_get() shows of block @i, or its error. */
static int64_t value_of(struct rig *rig, unsigned int i)
{
	struct meta_expect e = rig_expect(rig, i);
	struct buf *b;
	int64_t v;
	int err = buf_get(&rig->fs, &rig->cover, &e, &b);

	if (err)
		return err;
	CU_ASSERT_EQUAL(b->version, meta_version(b->data));
	v = (int64_t)*rig_value(b->data);
	buf_put(&rig->fs, b);
	return v;
}

static uint64_t reads(struct rig *rig)
{
	struct simdisk_stats st;

	simdisk_stats(rig->disk, rig->env, &st);
	return st.ops[BLK_READ];
}

/* ---- newest wins ---- */

static void evicted_body(struct rig *rig)
{
	rig_open(rig);
	buf_limit(&rig->fs, 0);
	change(rig, 0, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	CU_ASSERT_EQUAL(journal_commit(&rig->fs, change(rig, 0, 2, false)), 0);
	CU_ASSERT_EQUAL(rig_home(rig, 0), 1);
	CU_ASSERT_EQUAL(value_of(rig, 0), 2);	/* not what is at home */
	CU_ASSERT_EQUAL(journal_commit(&rig->fs, change(rig, 0, 3, false)), 0);
	CU_ASSERT_EQUAL(value_of(rig, 0), 3);
	change(rig, 0, 4, false);
	CU_ASSERT_EQUAL(value_of(rig, 0), 4);	/* dirty: stays in memory whatever the limit */
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	CU_ASSERT_EQUAL(rig_home(rig, 0), 4);
}

/* A committed block that is evicted before it is at home must not come back older. */
static void evicted_block_comes_back_as_committed(void)
{
	rig_run(SMALL, evicted_body);
}

struct reader {
	struct rig *rig;
	int64_t value;
};

static void reader(void *arg)
{
	struct reader *r = arg;

	r->value = value_of(r->rig, 0);
}

static void run_readers(struct rig *rig, int64_t expected)
{
	struct env_thread *t[6];
	struct reader r[6];
	unsigned int i;

	for (i = 0; i < 6; i++) {
		r[i].rig = rig;
		MUST_EQUAL(env_thread_start(rig->env, "reader", reader, &r[i], &t[i]),
				      0);
	}
	for (i = 0; i < 6; i++) {
		env_thread_join(rig->env, t[i]);
		CU_ASSERT_EQUAL(r[i].value, expected);
	}
}

static void readers_body(struct rig *rig)
{
	uint64_t before;

	rig_open(rig);
	change(rig, 0, 5, true);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	rig_open(rig);
	before = reads(rig);
	run_readers(rig, 5);
	CU_ASSERT_EQUAL(reads(rig), before + 1);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* Two buffers of one block would each miss the other's changes. */
static void concurrent_readers_share_one_buffer(void)
{
	rig_run(SMALL, readers_body);
}

/* ---- belief ---- */

static void flip(struct rig *rig, uint64_t addr)
{
	uint8_t sector[512];

	simdisk_peek(rig->disk, addr, sector, sizeof(sector));
	sector[200] ^= 4;
	simdisk_poke(rig->disk, addr, sector, sizeof(sector));
}

static unsigned int lines(const char *log)
{
	unsigned int n = 0;

	for (; *log; log++)
		n += *log == '\n';
	return n;
}

static void damaged_body(struct rig *rig)
{
	uint8_t block[BLOCK_SIZE];
	char object[64];

	rig_open(rig);
	change(rig, 0, 5, true);
	change(rig, 1, 6, true);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
	rig_open(rig);
	simdisk_peek(rig->disk, rig_addr(rig, 0), block, BLOCK_SIZE);
	simdisk_poke(rig->disk, rig_addr(rig, 2), block, BLOCK_SIZE);
	flip(rig, rig_addr(rig, 0));
	run_readers(rig, -EBADMSG);
	CU_ASSERT_EQUAL(value_of(rig, 0), -EBADMSG);
	CU_ASSERT_EQUAL(lines(rig->log), 1);	/* however often it is met */
	snprintf(object, sizeof(object), "block 0x%llx",
		 (unsigned long long)rig_addr(rig, 0));
	CU_ASSERT_PTR_NOT_NULL(strstr(rig->log, object));
	CU_ASSERT_EQUAL(value_of(rig, 2), -EUCLEAN);	/* a valid block, of another place */
	CU_ASSERT_EQUAL(lines(rig->log), 2);
	CU_ASSERT_EQUAL(value_of(rig, 1), 6);
	flip(rig, rig_addr(rig, 0));
	CU_ASSERT_EQUAL(value_of(rig, 0), 5);	/* a failure is not cached */
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* A block that fails a check is never believed, and is named once (R6). */
static void damaged_or_misplaced_block_is_refused_and_named(void)
{
	rig_run(SMALL, damaged_body);
}

static void pointer_body(struct rig *rig)
{
	struct cover other = { .is_inode = false };
	struct meta_expect e;
	struct buf *b;

	rig_open(rig);
	list_init(&other.bufs);
	change(rig, 0, 5, true);
	e = rig_expect(rig, 0);
	e.owner++;
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), -EUCLEAN);
	e = rig_expect(rig, 0);
	e.birth++;
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), -EUCLEAN);
	e = rig_expect(rig, 0);
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &other, &e, &b), -EUCLEAN);
	e.addr = rig->fs.super.size;
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), -EUCLEAN);
	e.addr = UINT64_MAX - 4095;
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), -EUCLEAN);
	e.addr = 0;
	CU_ASSERT_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), -EUCLEAN);
	CU_ASSERT_EQUAL(value_of(rig, 0), 5);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* Pointers on disk are hostile (R9): two owners of one block, places that do not exist. */
static void pointer_to_anothers_block_or_nowhere_is_refused(void)
{
	rig_run(SMALL, pointer_body);
}

/* ---- lives of a block ---- */

static void drop_body(struct rig *rig)
{
	struct meta_expect e;
	struct buf *b;
	struct txn txn;

	rig_open(rig);
	change(rig, 0, 1, true);
	change(rig, 1, 1, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	MUST_EQUAL(txn_begin(&rig->fs, 2, &txn), 0);
	rig_set(rig, &txn, 0, 2, false);
	rig_set(rig, &txn, 1, 2, false);
	e = rig_expect(rig, 0);
	MUST_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), 0);
	buf_drop(&rig->fs, &txn, b);
	txn_end(&txn);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	CU_ASSERT_EQUAL(rig_home(rig, 0), 1);
	CU_ASSERT_EQUAL(rig_home(rig, 1), 2);
	CU_ASSERT_EQUAL(value_of(rig, 0), 1);
	/* Its next life begins with zeros, not with what is still cached. */
	e.birth++;
	MUST_EQUAL(txn_begin(&rig->fs, 1, &txn), 0);
	MUST_EQUAL(buf_new(&rig->fs, &rig->cover, &e, &b), 0);
	CU_ASSERT_EQUAL(*rig_value(b->data), 0);
	txn_dirty(&txn, b, 1);
	buf_put(&rig->fs, b);
	txn_end(&txn);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* A freed block's image in the journal would be replayed over its next owner's data. */
static void dropped_block_is_neither_logged_nor_remembered(void)
{
	rig_run(SMALL, drop_body);
}

static void all_dropped_body(struct rig *rig)
{
	struct meta_expect e;
	struct buf *b;
	struct txn txn;

	rig_open(rig);
	e = rig_expect(rig, 0);
	MUST_EQUAL(txn_begin(&rig->fs, 1, &txn), 0);
	MUST_EQUAL(buf_new(&rig->fs, &rig->cover, &e, &b), 0);
	txn_dirty(&txn, b, 1);
	buf_drop(&rig->fs, &txn, b);
	CU_ASSERT_EQUAL(journal_commit(&rig->fs, txn_end(&txn)), 0);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* An fsync that waits for a transaction which will never be written hangs for ever. */
static void transaction_emptied_by_drops_can_be_committed(void)
{
	rig_run(SMALL, all_dropped_body);
}

static void forget_body(struct rig *rig)
{
	uint64_t before;

	rig_open(rig);
	change(rig, 0, 5, true);
	CU_ASSERT_EQUAL(journal_settle(&rig->fs), 0);
	before = reads(rig);
	CU_ASSERT_EQUAL(value_of(rig, 0), 5);
	CU_ASSERT_EQUAL(reads(rig), before);
	buf_forget_cover(&rig->fs, &rig->cover);
	CU_ASSERT_EQUAL(value_of(rig, 0), 5);
	CU_ASSERT_EQUAL(reads(rig), before + 1);
	CU_ASSERT_EQUAL(rig_close(rig), 0);
}

/* After another host had the lock, what we remember is of another time (R4). */
static void forgotten_cover_is_read_again(void)
{
	rig_run(SMALL, forget_body);
}

UNIT_MAIN("buf",
	  UNIT_TEST(evicted_block_comes_back_as_committed),
	  UNIT_TEST(concurrent_readers_share_one_buffer),
	  UNIT_TEST(damaged_or_misplaced_block_is_refused_and_named),
	  UNIT_TEST(pointer_to_anothers_block_or_nowhere_is_refused),
	  UNIT_TEST(dropped_block_is_neither_logged_nor_remembered),
	  UNIT_TEST(transaction_emptied_by_drops_can_be_committed),
	  UNIT_TEST(forgotten_cover_is_read_again));
