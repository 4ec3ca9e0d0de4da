// SPDX-License-Identifier: Apache-2.0
/* Who may execute when: COMPARE AND WRITE against everything else, aborts, resets. */
#include "tests/iscsi/scsi_rig.h"

#define MSEC	NSEC_PER_MSEC

/* COMPARE AND WRITE of blocks of one letter. */
static struct rig_cmd *send_caw(struct rig *rig, unsigned int nexus, unsigned int reactor,
				uint64_t lba, uint8_t blocks, uint8_t expected, uint8_t desired)
{
	uint8_t cdb[16] = { 0x89 }, *data = malloc(2UL * blocks * rig->bs);
	struct rig_cmd *c;

	CU_ASSERT_PTR_NOT_NULL_FATAL(data);
	put_be64(cdb + 2, lba);
	cdb[13] = blocks;
	memset(data, expected, (size_t)blocks * rig->bs);
	memset(data + (size_t)blocks * rig->bs, desired, (size_t)blocks * rig->bs);
	c = rig_send(rig, nexus, 0, reactor, cdb, 16, data, 2U * blocks * rig->bs, 0, false);
	free(data);
	return c;
}

/* ---- COMPARE AND WRITE ---- */

static void caw_body(struct rig *rig)
{
	uint8_t cdb[16] = { 0x89 }, data[4 * 4096] = { 0 };
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 5, 4, 'a').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_end(send_caw(rig, 0, 0, 5, 1, 'a', 'b'), NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 5, 1, 'b'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 6, 3, 'a'));
	/* The second of two blocks differs: nothing is written, and the offset says where. */
	s = rig_end(send_caw(rig, 0, 0, 5, 2, 'b', 'c'), NULL);
	CU_ASSERT_EQUAL(s.sense, SENSE(KEY_MISCOMPARE, ASC_MISCOMPARE));
	CU_ASSERT_EQUAL(s.info, rig->bs);
	CU_ASSERT_TRUE(rig_has(rig, 0, 5, 1, 'b'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 6, 3, 'a'));
	CU_ASSERT_EQUAL(rig_end(send_caw(rig, 0, 0, 6, 3, 'a', 'd'), NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 6, 3, 'd'));
	/* Other amounts of data than the CDB says compare with nothing. */
	cdb[13] = 1;
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).status,
			SCSI_CHECK_CONDITION);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, 4 * rig->bs, NULL, 0).status,
			SCSI_CHECK_CONDITION);
	cdb[13] = 255;
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).status,
			SCSI_CHECK_CONDITION);
}

static void caw_writes_all_or_nothing(void)
{
	rig_run(caw_body);
}

/*
 * Counters by compare-and-write from both reactors, while others write the same blocks.  A
 * successful one whose expected value was not there when it wrote breaks every lock on disk.
 */
#define RACERS	24

static void race_observe(void *arg, struct env *host, const struct blk_io *io)
{
	uint64_t *writes = arg;

	(void)host;
	if (io->op == BLK_WRITE)
		(*writes)++;
}

static void race_body(struct rig *rig)
{
	struct rig_cmd *c[RACERS];
	uint64_t writes = 0;

	rig_clear_ua(rig);
	simdisk_observe(rig->disks[0], race_observe, &writes);
	for (uint8_t round = 0; round < 30; round++) {
		unsigned int won = 0;

		CU_ASSERT_EQUAL(rig_write(rig, 0, 7, 1, round).status, SCSI_GOOD);
		for (unsigned int i = 0; i < RACERS; i++)
			c[i] = send_caw(rig, i % RIG_NEXUSES, i % RIG_REACTORS, 7, 1, round,
					(uint8_t)(100 + i));
		for (unsigned int i = 0; i < RACERS; i++)
			won += rig_end(c[i], NULL).status == SCSI_GOOD;
		CU_ASSERT_EQUAL(won, 1);
	}
	CU_ASSERT_EQUAL(writes, 60);
	simdisk_observe(rig->disks[0], NULL, NULL);
}

static void one_of_many_caws_wins(void)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		rig_run_seed(race_body, 512, &rig_thin, seed);
}

/*
 * A plain WRITE and a COMPARE AND WRITE of the same block, begun together from two reactors:
 * either the CAW came first and the write is on top, or it saw the write and failed.  Never
 * "succeeded, and the write is gone".
 */
static void caw_against_write_body(struct rig *rig)
{
	rig_clear_ua(rig);
	for (unsigned int round = 0; round < 60; round++) {
		struct rig_cmd *caw, *write;
		bool caw_first = round % 2;

		CU_ASSERT_EQUAL(rig_write(rig, 0, 9, 1, 'o').status, SCSI_GOOD);
		if (caw_first)
			caw = send_caw(rig, 0, 0, 9, 1, 'o', 'c');
		write = rig_send_write(rig, 1, 1, 8, 3, 'w');
		if (!caw_first)
			caw = send_caw(rig, 0, 0, 9, 1, 'o', 'c');
		CU_ASSERT_EQUAL(rig_end(write, NULL).status, SCSI_GOOD);
		rig_end(caw, NULL);
		CU_ASSERT_TRUE(rig_has(rig, 0, 9, 1, 'w'));
	}
}

static void caw_never_loses_a_write(void)
{
	for (uint64_t seed = 10; seed < 20; seed++)
		rig_run_seed(caw_against_write_body, 512, &rig_thin, seed);
}

/* The same of every other command that writes: its data must be there, or have been seen. */
static void caw_against_others_body(struct rig *rig)
{
	static const uint8_t ops[] = { 0x93, 0x42, 0x8e, 0x8b, 0x9c };
	uint8_t *data = rig_fill(rig, 0xff, 4);

	rig_clear_ua(rig);
	for (unsigned int round = 0; round < 10 * ARRAY_SIZE(ops); round++) {
		uint8_t op = ops[round % ARRAY_SIZE(ops)], cdb[16], list[24] = { 0, 22, 0, 16 };
		struct rig_cmd *caw, *other;
		struct said s;

		CU_ASSERT_EQUAL(rig_write(rig, 0, 9, 1, 'o').status, SCSI_GOOD);
		rig_cdb16(cdb, op, 0, 9, 1);
		if (op == 0x42) {
			memset(cdb, 0, sizeof(cdb));
			cdb[0] = op;
			cdb[8] = sizeof(list);
			put_be64(list + 8, 9);
			put_be32(list + 16, 1);
			other = rig_send(rig, 1, 0, 1, cdb, 10, list, sizeof(list), 0, false);
		} else {
			other = rig_send(rig, 1, 0, 1, cdb, 16, data, rig->bs, 0, false);
		}
		caw = send_caw(rig, 0, 0, 9, 1, 'o', 'c');
		CU_ASSERT_EQUAL(rig_end(other, NULL).status, SCSI_GOOD);
		s = rig_end(caw, NULL);
		/* ORWRITE of all ones on top of either; UNMAP leaves zeros. */
		CU_ASSERT_TRUE(rig_has(rig, 0, 9, 1, op == 0x42 ? 0 : 0xff));
		CU_ASSERT_TRUE(s.status == SCSI_GOOD ||
			       s.sense == SENSE(KEY_MISCOMPARE, ASC_MISCOMPARE));
	}
	free(data);
}

static void caw_excludes_every_command_that_writes(void)
{
	for (uint64_t seed = 20; seed < 24; seed++)
		rig_run_seed(caw_against_others_body, 512, &rig_thin, seed);
}

/* Locks far apart do not wait for each other, nor for a write that hangs elsewhere. */
static void apart_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
				     .delay_ns = 1000 * MSEC, .len = rig->bs };
	struct rig_cmd *slow;

	rig_clear_ua(rig);
	simdisk_inject(rig->disks[0], &rule);
	slow = rig_send_write(rig, 0, 0, 0, 1, 's');
	rig_sleep(rig, MSEC);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 2, 1, 'a').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_end(send_caw(rig, 1, 1, 2, 1, 'a', 'b'), NULL).status, SCSI_GOOD);
	CU_ASSERT_FALSE(slow->done);
	/* On the same block it waits. */
	CU_ASSERT_EQUAL(rig_end(send_caw(rig, 1, 1, 0, 1, 's', 't'), NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(slow->done);
	CU_ASSERT_EQUAL(rig_end(slow, NULL).status, SCSI_GOOD);
}

static void caw_waits_for_its_own_blocks_only(void)
{
	rig_run(apart_body);
}

/* A lock's record that is read while it is taken must be the old one or the new one, not both. */
static void reader_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1,
				     .delay_ns = 10 * MSEC };
	uint8_t cdb[16];

	rig_clear_ua(rig);
	for (unsigned int i = 0; i < 3; i++) {
		struct scsi_lun *lun = atomic_load(&rig->target->luns[0]);
		uint32_t blocks = i == 2 ? 2 : 1;
		struct rig_cmd *caw, *read;

		/* One sector of a device; the same through a page cache; two of a device. */
		for (unsigned int k = 0; k < lun->shard_count; k++)
			lun->shards[k].dev->info.direct = i != 1;
		CU_ASSERT_EQUAL(rig_write(rig, 0, 4, blocks, 'a').status, SCSI_GOOD);
		simdisk_inject(rig->disks[0], &rule);
		caw = send_caw(rig, 0, 0, 4, (uint8_t)blocks, 'a', 'b');
		rig_sleep(rig, MSEC);
		rig_cdb16(cdb, 0x88, 0, 4 + blocks - 1, 1);
		read = rig_send(rig, 1, 0, 1, cdb, 16, NULL, 0, rig->bs, false);
		rig_sleep(rig, MSEC);
		CU_ASSERT_FALSE(caw->done);
		CU_ASSERT_EQUAL(read->done, i == 0);
		rig_wait(read);
		CU_ASSERT_EQUAL(read->buf[0], i == 0 ? 'a' : 'b');
		CU_ASSERT_EQUAL(rig_end(read, NULL).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_end(caw, NULL).status, SCSI_GOOD);
	}
}

static void caw_is_not_seen_by_halves(void)
{
	rig_run(reader_body);
}

/* ---- task management ---- */

/*
 * When a reset, or an abort, is answered, what was under way has landed or never will: the
 * blocks do not change any more, however slow the device is.
 */
static void abort_body(struct rig *rig)
{
	static const enum scsi_tmf_fn fns[] = {
		SCSI_TMF_ABORT_TASK, SCSI_TMF_ABORT_TASK_SET, SCSI_TMF_CLEAR_TASK_SET,
		SCSI_TMF_LUN_RESET, SCSI_TMF_TARGET_WARM_RESET, SCSI_TMF_TARGET_COLD_RESET,
		SCSI_TMF_I_T_NEXUS_RESET,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(fns); i++) {
		struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
					     .delay_ns = 500 * MSEC };
		struct rig_cmd *running, *held;
		struct said s;

		rig_clear_ua(rig);
		simdisk_inject(rig->disks[0], &rule);
		running = rig_send_write(rig, 0, 1, 3, 1, (uint8_t)('A' + i));
		held = rig_send(rig, 0, 0, 0, CDB(0x2a, 0, 0, 0, 0, 4, 0, 0, 1, 0), running->buf,
				rig->bs, 0, true);
		rig_sleep(rig, MSEC);
		CU_ASSERT_FALSE(running->done);
		CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, fns[i], running->cmd.tag), SCSI_TMF_COMPLETE);
		CU_ASSERT_TRUE(running->done);	/* before the function's own answer */
		CU_ASSERT_FALSE(simdisk_is_busy(rig->disks[0], rig->env));
		s = rig_end(running, NULL);
		CU_ASSERT_TRUE(s.aborted);
		simdisk_clear_rules(rig->disks[0]);
		/* What waited for its data does nothing when that comes. */
		rig_write(rig, 1, 4, 1, 'k');
		rig_write(rig, 1, 4, 1, 'k');
		reactor_post(rig->reactors[0], &held->call);
		s = rig_end(held, NULL);
		CU_ASSERT_EQUAL(s.aborted, fns[i] != SCSI_TMF_ABORT_TASK);
		CU_ASSERT_EQUAL(rig_has(rig, 0, 4, 1, 'k'), fns[i] != SCSI_TMF_ABORT_TASK);
	}
}

static void nothing_lands_after_an_abort(void)
{
	rig_run(abort_body);
}

/* Others' commands end with TASK ABORTED, so that they need not time out (TAS). */
static void tas_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
				     .delay_ns = 500 * MSEC };
	struct rig_cmd *others;
	struct said s;

	rig_clear_ua(rig);
	simdisk_inject(rig->disks[0], &rule);
	others = rig_send_write(rig, 1, 1, 3, 1, 'o');
	rig_sleep(rig, MSEC);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_LUN_RESET, 0), SCSI_TMF_COMPLETE);
	s = rig_end(others, NULL);
	CU_ASSERT_FALSE(s.aborted);
	CU_ASSERT_EQUAL(s.status, SCSI_TASK_ABORTED);
	for (unsigned int n = 0; n < RIG_NEXUSES; n++)
		CU_ASSERT_EQUAL(rig_do(rig, n, 0, CDB(0), NULL, 0, NULL, 0).sense,
				SENSE(KEY_UNIT_ATTENTION, ASC_DEVICE_RESET));
}

static void others_hear_of_a_reset(void)
{
	rig_run(tas_body);
}

/* A unit that hangs keeps no other one from its reset, and queries tell the truth. */
static void query_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
				     .delay_ns = 500 * MSEC };
	struct rig_cmd *c;
	uint64_t tag;

	rig_clear_ua(rig);
	simdisk_inject(rig->disks[0], &rule);
	c = rig_send_write(rig, 0, 1, 3, 1, 'o');
	tag = c->cmd.tag;
	rig_sleep(rig, MSEC);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_QUERY_TASK, tag), SCSI_TMF_SUCCEEDED);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_QUERY_TASK, tag + 1), SCSI_TMF_COMPLETE);
	CU_ASSERT_EQUAL(rig_tmf(rig, 1, 0, SCSI_TMF_QUERY_TASK, tag), SCSI_TMF_COMPLETE);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_QUERY_TASK_SET, 0), SCSI_TMF_SUCCEEDED);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_ABORT_TASK, tag + 1), SCSI_TMF_NO_TASK);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 7, SCSI_TMF_LUN_RESET, 0), SCSI_TMF_NO_LUN);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_CLEAR_ACA, 0), SCSI_TMF_UNSUPPORTED);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 1, SCSI_TMF_LUN_RESET, 0), SCSI_TMF_COMPLETE);
	CU_ASSERT_FALSE(c->done);
	CU_ASSERT_EQUAL(rig_end(c, NULL).status, SCSI_GOOD);
}

static void queries_and_resets_of_other_units(void)
{
	rig_run(query_body);
}

/* A CAW that waits behind a slow write, and is aborted there, never writes. */
static void blocked_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1,
				     .delay_ns = 500 * MSEC };
	struct rig_cmd *slow, *caw, *behind;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 3, 1, 'a').status, SCSI_GOOD);
	simdisk_inject(rig->disks[0], &rule);
	slow = rig_send_write(rig, 0, 0, 3, 1, 'b');
	rig_sleep(rig, MSEC);
	caw = send_caw(rig, 1, 1, 3, 1, 'b', 'c');
	rig_sleep(rig, MSEC);
	behind = rig_send_write(rig, 1, 1, 3, 1, 'd');
	rig_sleep(rig, MSEC);
	CU_ASSERT_FALSE(caw->done || behind->done);
	CU_ASSERT_EQUAL(rig_tmf(rig, 1, 0, SCSI_TMF_ABORT_TASK_SET, 0), SCSI_TMF_COMPLETE);
	CU_ASSERT_TRUE(caw->done && behind->done);
	CU_ASSERT_TRUE(rig_end(caw, NULL).aborted);
	CU_ASSERT_TRUE(rig_end(behind, NULL).aborted);
	CU_ASSERT_EQUAL(rig_end(slow, NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 3, 1, 'b'));
	CU_ASSERT_EQUAL(rig_write(rig, 1, 3, 1, 'e').status, SCSI_GOOD);
}

static void blocked_ones_can_be_aborted(void)
{
	rig_run(blocked_body);
}

/* ORDERED: what came before is done first, what comes after waits. */
static void ordered_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1,
				     .delay_ns = 500 * MSEC };
	struct rig_cmd *slow, *ordered, *after;
	uint8_t *data = rig_fill(rig, 'o', 1);

	rig_clear_ua(rig);
	simdisk_inject(rig->disks[0], &rule);
	slow = rig_send_write(rig, 0, 0, 3, 1, 'b');
	rig_sleep(rig, MSEC);
	ordered = rig_send(rig, 0, 0, 0, CDB(0x2a, 0, 0, 0, 0, 50, 0, 0, 1, 0), data, rig->bs, 0,
			   false);
	ordered->cmd.attr = SCSI_ORDERED;
	rig_sleep(rig, MSEC);
	after = rig_send(rig, 1, 0, 1, CDB(0x28, 0, 0, 0, 0, 90, 0, 0, 1, 0), NULL, 0, rig->bs,
			 false);
	rig_sleep(rig, 10 * MSEC);
	CU_ASSERT_FALSE(slow->done || ordered->done || after->done);
	CU_ASSERT_EQUAL(rig_end(after, NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(slow->done && ordered->done);
	rig_end(slow, NULL);
	rig_end(ordered, NULL);
	free(data);
}

static void ordered_commands_are_barriers(void)
{
	rig_run(ordered_body);
}

UNIT_MAIN("scsi_claim",
	  UNIT_TEST(caw_writes_all_or_nothing),
	  UNIT_TEST(one_of_many_caws_wins),
	  UNIT_TEST(caw_never_loses_a_write),
	  UNIT_TEST(caw_excludes_every_command_that_writes),
	  UNIT_TEST(caw_waits_for_its_own_blocks_only),
	  UNIT_TEST(caw_is_not_seen_by_halves),
	  UNIT_TEST(nothing_lands_after_an_abort),
	  UNIT_TEST(others_hear_of_a_reset),
	  UNIT_TEST(queries_and_resets_of_other_units),
	  UNIT_TEST(blocked_ones_can_be_aborted),
	  UNIT_TEST(ordered_commands_are_barriers));
