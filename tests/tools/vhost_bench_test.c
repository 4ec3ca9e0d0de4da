/* SPDX-License-Identifier: Apache-2.0 */
/* What lunfs-vhost-bench believes of a disk, and its percentiles. */
#include <errno.h>
#include <stdlib.h>

#include "tests/unit.h"
#include "tools/vhost_bench/histogram.h"
#include "tools/vhost_bench/ledger.h"
#include "tools/vhost_bench/vq.h"

#define BLOCK	4096u
#define BLOCKS	8u

static struct ledger l;
static uint8_t disk[BLOCKS][BLOCK];
static uint8_t data[BLOCK];

static void begin(void)
{
	char why[256];

	memset(disk, 0xee, sizeof(disk));
	CU_ASSERT_EQUAL_FATAL(ledger_open(&l, NULL, 7, 1 * MIB, BLOCKS, BLOCK, why, sizeof(why)),
			      0);
}

static void write_block(uint64_t block, bool acknowledged)
{
	ledger_issue(&l, block, LEDGER_WRITE, data);
	if (acknowledged)
		ledger_done(&l, block);
}

static int check(uint64_t block, const void *contents)
{
	char why[256];

	return ledger_check(&l, block, contents, why, sizeof(why));
}

/* An acknowledged write that is not there is what all this is for. */
static void acknowledged_write_is_the_only_truth(void)
{
	uint8_t before[BLOCK];

	begin();
	write_block(3, true);
	memcpy(before, data, BLOCK);
	CU_ASSERT_EQUAL(check(3, data), 0);
	write_block(3, true);
	CU_ASSERT_EQUAL(check(3, data), 0);
	CU_ASSERT_EQUAL(check(3, before), -EBADMSG);
	memcpy(data + 512, before + 512, 512);	/* torn */
	CU_ASSERT_EQUAL(check(3, data), -EBADMSG);
	memset(data, 0, BLOCK);
	CU_ASSERT_EQUAL(check(3, data), -EBADMSG);
	write_block(4, true);
	CU_ASSERT_EQUAL(check(3, data), -EBADMSG);	/* another block's */
	data[100] ^= 1;
	CU_ASSERT_EQUAL(check(4, data), -EBADMSG);
	ledger_close(&l);
}

/* One that was under way in a crash may be there, or not, or in part. */
static void unclear_write_may_or_may_not_be_there(void)
{
	uint8_t a[BLOCK], b[BLOCK], c[BLOCK];

	begin();
	write_block(0, true);
	memcpy(a, data, BLOCK);
	write_block(0, false);
	memcpy(b, data, BLOCK);
	write_block(0, false);
	memcpy(c, data, BLOCK);
	CU_ASSERT_EQUAL(check(0, a), 0);
	CU_ASSERT_EQUAL(check(0, b), 0);
	CU_ASSERT_EQUAL(check(0, c), 0);
	memcpy(c, a, 512);
	CU_ASSERT_EQUAL(check(0, c), 0);
	CU_ASSERT_EQUAL(check(0, disk[0]), -EBADMSG);
	memset(c, 0, BLOCK);
	CU_ASSERT_EQUAL(check(0, c), -EBADMSG);
	ledger_issue(&l, 0, LEDGER_ZERO, NULL);
	CU_ASSERT_EQUAL(check(0, c), 0);
	ledger_done(&l, 0);
	CU_ASSERT_EQUAL(check(0, c), 0);
	CU_ASSERT_EQUAL(check(0, b), -EBADMSG);
	/* Before the first acknowledged write anything may be there. */
	write_block(1, false);
	CU_ASSERT_EQUAL(check(1, disk[1]), 0);
	CU_ASSERT_TRUE(ledger_is_known(&l, 1) && !ledger_is_known(&l, 2));
	ledger_close(&l);
}

/* R8: a discarded block reads as zeros or as something that was written there, nothing else. */
static void discarded_block_shows_nothing_foreign(void)
{
	uint8_t zeros[BLOCK] = { 0 };

	begin();
	write_block(2, true);
	ledger_issue(&l, 2, LEDGER_DISCARD, NULL);
	ledger_done(&l, 2);
	CU_ASSERT_EQUAL(check(2, data), 0);
	CU_ASSERT_EQUAL(check(2, zeros), 0);
	CU_ASSERT_EQUAL(check(2, disk[2]), -EBADMSG);
	write_block(2, true);
	CU_ASSERT_EQUAL(check(2, zeros), -EBADMSG);
	/* What was there before us may stay there. */
	ledger_issue(&l, 5, LEDGER_DISCARD, NULL);
	ledger_done(&l, 5);
	CU_ASSERT_EQUAL(check(5, disk[5]), 0);
	ledger_close(&l);
}

static void percentiles_are_within_three_percent(void)
{
	static struct histogram h;

	for (uint64_t ns = 1; ns <= 100000; ns++)
		histogram_add(&h, ns * 10);
	CU_ASSERT_TRUE(histogram_percentile(&h, 500) >= 500000 &&
		       histogram_percentile(&h, 500) <= 516000);
	CU_ASSERT_TRUE(histogram_percentile(&h, 999) >= 999000 &&
		       histogram_percentile(&h, 999) <= 1000000);
	histogram_add(&h, UINT64_MAX);
	CU_ASSERT_EQUAL(h.count, 100001);
	for (uint64_t ns = 1; ns && ns < 1ULL << 40; ns = ns * 2 + ns / 3 + 1)
		CU_ASSERT_TRUE(histogram_class(ns) <= histogram_class(ns + 1) &&
			       histogram_class(ns) < HISTOGRAM_CLASSES);
}

/* R9 from the other side: a server that gives back what it was not given is found out. */
static void ring_refuses_what_was_not_given(void)
{
	struct vq q = { .size = 8, .depth = 4, .bufs_max = 2, .features = 0 };
	struct vq_buf bufs[2] = { { 0x1000, 16, false }, { 0x2000, 1, true } };
	uint8_t *mem = aligned_alloc(4096, vq_bytes(8, 4, 2));
	unsigned int slot;
	uint32_t len;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mem);
	memset(mem, 0, vq_bytes(8, 4, 2));
	CU_ASSERT_EQUAL_FATAL(vq_init(&q, mem, 0x100000), 0);
	vq_add(&q, 2, bufs, 2);
	vq_publish(&q);
	CU_ASSERT_EQUAL(vq_next_used(&q, &slot, &len), 0);
	q.used->ring[0].id = cpu_to_le32(4);	/* its head: 2 slots of 2 descriptors before it */
	q.used->ring[0].len = cpu_to_le32(1);
	q.used->ring[1].id = cpu_to_le32(4);
	q.used->idx = 2;
	CU_ASSERT_EQUAL(vq_next_used(&q, &slot, &len), 1);
	CU_ASSERT_EQUAL(slot, 2);
	CU_ASSERT_EQUAL(vq_next_used(&q, &slot, &len), -EPROTO);	/* twice */
	q.used->ring[2].id = cpu_to_le32(5);
	q.used->idx = 3;
	CU_ASSERT_EQUAL(vq_next_used(&q, &slot, &len), -EPROTO);	/* no head */
	vq_fini(&q);
	free(mem);
}

UNIT_MAIN("tools/vhost_bench",
	  UNIT_TEST(acknowledged_write_is_the_only_truth),
	  UNIT_TEST(unclear_write_may_or_may_not_be_there),
	  UNIT_TEST(discarded_block_shows_nothing_foreign),
	  UNIT_TEST(percentiles_are_within_three_percent),
	  UNIT_TEST(ring_refuses_what_was_not_given));
