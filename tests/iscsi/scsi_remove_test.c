// SPDX-License-Identifier: Apache-2.0
/* Logical units that go away while initiators use them (scsi_lun_remove(), scsi_lun_close()). */
#include "tests/iscsi/scsi_rig.h"

#define MSEC	NSEC_PER_MSEC

static struct said report_luns(struct rig *rig, unsigned int nexus, unsigned int lun, uint8_t in[64])
{
	return rig_do(rig, nexus, lun, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 0, in, 64);
}

/* Removed and closed; -ETIMEDOUT: @rig->removed is to be closed yet. */
static int remove_lun(struct rig *rig)
{
	int err = scsi_lun_remove(rig->target, 0, &rig->removed);

	return err ? err : scsi_lun_close(rig->removed, SCSI_HANG_NS);
}

/* How many registrations LUN 0 has. */
static unsigned int count_keys(struct rig *rig)
{
	uint8_t in[64] = { 0 };

	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, in, 64).status,
			SCSI_GOOD);
	return get_be32(in + 4) / 8;
}

/*
 * When it returns the file may be given to somebody else: nothing of the old service may land
 * there any more, neither what was under way nor what had only begun.
 */
static void gone_body(struct rig *rig)
{
	uint8_t cdb[16], *data = rig_fill(rig, 'z', 1), in[64];
	struct rig_cmd *running, *begun;
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, 0, 0, 0, 0xabc, 1).status, SCSI_GOOD);	/* APTPL */
	simdisk_inject(rig->disks[0], &(struct simdisk_rule){
		.fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1, .delay_ns = 50 * MSEC });
	running = rig_send_write(rig, 0, 0, 8, 1, 'y');
	rig_cdb16(cdb, 0x8a, 0, 16, 1);
	begun = rig_send(rig, 1, 0, 1, cdb, 16, data, rig->bs, 0, true);
	rig_sleep(rig, 5 * MSEC);
	CU_ASSERT_TRUE(begun->held);
	CU_ASSERT_EQUAL(remove_lun(rig), 0);
	CU_ASSERT_FALSE(simdisk_is_busy(rig->disks[0], rig->env));
	CU_ASSERT_EQUAL(rig_end(running, NULL).status, SCSI_TASK_ABORTED);
	reactor_post(begun->cmd.reactor, &begun->call);
	CU_ASSERT_EQUAL(rig_end(begun, NULL).status, SCSI_TASK_ABORTED);
	CU_ASSERT_FALSE(rig_has(rig, 0, 16, 1, 'z'));

	/* Who is there already hears of it by any other unit, and finds it nowhere. */
	s = rig_do(rig, 1, 1, CDB(0), NULL, 0, NULL, 0);
	CU_ASSERT_EQUAL(s.sense, SENSE(KEY_UNIT_ATTENTION, ASC_LUNS_CHANGED));
	s = rig_write(rig, 0, 8, 1, 'x');
	CU_ASSERT_EQUAL(s.sense, SENSE(KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT));
	CU_ASSERT_EQUAL(report_luns(rig, 1, 1, in).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(get_be32(in), 8 * (RIG_LUNS - 1));
	CU_ASSERT_EQUAL(in[9], 1);
	CU_ASSERT_EQUAL(remove_lun(rig), -ENOENT);

	/* It comes back as it was, reservations included. */
	CU_ASSERT_EQUAL(rig_add_lun(rig, 0), 0);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(count_keys(rig), 1);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 8, 1, 'w').status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 8, 1, 'w'));
	free(data);
}

static void nothing_of_a_removed_unit_lands(void)
{
	rig_run(gone_body);
}

static bool is_freed(struct rig *rig)
{
	bool freed;

	env_mutex_lock(rig->env, &rig->target->mutex);
	freed = list_empty(&rig->target->removed_luns);
	env_mutex_unlock(rig->env, &rig->target->mutex);
	return freed;
}

/* A device that hangs keeps what it stands on, and nobody else from being served. */
static void hung_body(struct rig *rig)
{
	struct simdisk_params params = { .size = RIG_SIZE, .sector = rig->bs };
	struct simdisk *hung = rig->disks[0], *spare = simdisk_new(rig->sim, &params);
	struct rig_cmd *c;

	rig_clear_ua(rig);
	simdisk_stall(rig->disks[0], NULL, env_now_ns(rig->env) + 60 * NSEC_PER_SEC);
	c = rig_send_write(rig, 0, 0, 8, 1, 'y');
	rig_sleep(rig, 5 * MSEC);
	CU_ASSERT_EQUAL(remove_lun(rig), -ETIMEDOUT);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT));
	rig_do(rig, 0, 1, CDB(0), NULL, 0, NULL, 0);	/* the unit attention */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 1, CDB(0), NULL, 0, NULL, 0).status, SCSI_GOOD);
	/* Another unit takes its number while it hangs. */
	rig->disks[0] = spare;
	CU_ASSERT_EQUAL(rig_add_lun(rig, 0), 0);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 8, 1, 'n').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(scsi_lun_close(rig->removed, 0), -ETIMEDOUT);
	CU_ASSERT_FALSE(is_freed(rig));
	/* It answers at last, and all is given back. */
	CU_ASSERT_EQUAL(rig_end(c, NULL).status, SCSI_TASK_ABORTED);
	CU_ASSERT_EQUAL(scsi_lun_close(rig->removed, ENV_FOREVER), 0);
	CU_ASSERT_FALSE(simdisk_is_busy(hung, rig->env));
	rig_sleep(rig, MSEC);
	CU_ASSERT_TRUE(is_freed(rig));
	CU_ASSERT_TRUE(rig_has(rig, 0, 8, 1, 'n'));
	CU_ASSERT_EQUAL(remove_lun(rig), 0);
	rig->disks[0] = hung;
	simdisk_free(spare);
}

static void unit_whose_device_hangs_is_no_longer_offered(void)
{
	rig_run(hung_body);
}

/* What SANITIZE has sent is no initiator's command, and is waited for all the same. */
static void sanitize_body(struct rig *rig)
{
	uint8_t list[5] = { 0x01, 0, 0, 1, 0x5a };

	rig_clear_ua(rig);
	simdisk_stall(rig->disks[0], NULL, env_now_ns(rig->env) + 60 * NSEC_PER_SEC);
	/* OVERWRITE, IMMED */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x48, 0x81, 0, 0, 0, 0, 0, 0, 5, 0), list, sizeof(list), NULL, 0).status,
			SCSI_GOOD);
	for (unsigned int i = 0; i < 1000 && !simdisk_is_busy(rig->disks[0], rig->env); i++)
		rig_sleep(rig, MSEC);
	CU_ASSERT_TRUE(simdisk_is_busy(rig->disks[0], rig->env));
	CU_ASSERT_EQUAL(remove_lun(rig), -ETIMEDOUT);
	CU_ASSERT_EQUAL(scsi_lun_close(rig->removed, ENV_FOREVER), 0);
	CU_ASSERT_FALSE(simdisk_is_busy(rig->disks[0], rig->env));
	rig_sleep(rig, MSEC);
	CU_ASSERT_TRUE(is_freed(rig));
}

static void sanitize_of_a_removed_unit_is_waited_for(void)
{
	rig_run(sanitize_body);
}

/* ---- its memory ---- */

static void cancel_call(struct reactor_call *call)
{
	struct rig_cmd *c = container_of(call, struct rig_cmd, call);

	scsi_cmd_cancel(&c->cmd);
	rig_done(&c->cmd);
}

/*
 * A target that is reconfigured for years must not keep each unit that it ever had; and a command
 * whose data still comes, of an initiator that may take for ever, must find it there.
 */
static void memory_body(struct rig *rig)
{
	uint8_t cdb[16], *data = rig_fill(rig, 'z', 1);
	struct rig_cmd *c[3];

	rig_clear_ua(rig);
	for (unsigned int round = 0; round < 3; round++) {
		CU_ASSERT_EQUAL(remove_lun(rig), 0);
		CU_ASSERT_TRUE(is_freed(rig));
		CU_ASSERT_EQUAL(rig_add_lun(rig, 0), 0);
		rig_clear_ua(rig);
	}
	/* Writes whose data is on its way, in both reactors, and a read that waits for memory. */
	rig_cdb16(cdb, 0x8a, 0, 16, 1);
	for (unsigned int i = 0; i < 2; i++)
		c[i] = rig_send(rig, i, 0, i, cdb, 16, data, rig->bs, 0, true);
	rig_cdb16(cdb, 0x88, 0, 16, 1);
	c[2] = rig_send(rig, 2, 0, 0, cdb, 16, NULL, 0, rig->bs, true);
	rig_sleep(rig, 5 * MSEC);
	CU_ASSERT_EQUAL(remove_lun(rig), 0);
	CU_ASSERT_FALSE(is_freed(rig));
	/* Its number is free again at once. */
	CU_ASSERT_EQUAL(rig_add_lun(rig, 0), 0);
	c[0]->call.fn = cancel_call;
	for (unsigned int i = 0; i < 3; i++) {
		CU_ASSERT_FALSE(is_freed(rig));
		reactor_post(c[i]->cmd.reactor, &c[i]->call);
		rig_end(c[i], NULL);
	}
	rig_sleep(rig, MSEC);
	CU_ASSERT_TRUE(is_freed(rig));
	CU_ASSERT_FALSE(rig_has(rig, 0, 16, 1, 'z'));
	free(data);
}

static void removed_unit_is_freed_with_its_last_command(void)
{
	rig_run(memory_body);
}

/* A copy that was asked for at one unit points to others, which may go meanwhile. */
static void copy_source_body(struct rig *rig)
{
	uint8_t cdb[16] = { 0x83 }, list[16 + 2 * 32 + 28] = { 1 };
	struct rig_cmd *copy;

	rig_clear_ua(rig);
	put_be16(list + 2, 64);
	put_be32(list + 8, 28);
	for (unsigned int i = 0; i < 2; i++)
		memcpy(list + 16 + 32 * i, (uint8_t[24]){ 0xe4, 0, 0, 0, 1, 3, 0, 16, 0x60,
							  [23] = (uint8_t)i }, 24);
	memcpy(list + 80, (uint8_t[8]){ 0x02, 0, 0, 24, 0, 0, 0, 1 }, 8);
	put_be16(list + 90, MIB / rig->bs);
	put_be32(cdb + 10, sizeof(list));
	simdisk_inject(rig->disks[1], &(struct simdisk_rule){
		.fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1, .delay_ns = 50 * MSEC });
	copy = rig_send(rig, 0, 1, 0, cdb, 16, list, sizeof(list), 0, false);
	rig_sleep(rig, 5 * MSEC);
	CU_ASSERT_EQUAL(remove_lun(rig), 0);
	CU_ASSERT_FALSE(copy->done);
	CU_ASSERT_FALSE(is_freed(rig));
	CU_ASSERT_EQUAL(rig_end(copy, NULL).sense,
			SENSE(KEY_COPY_ABORTED, ASC_THIRD_PARTY_FAILURE));
	rig_sleep(rig, MSEC);
	CU_ASSERT_TRUE(is_freed(rig));
}

static void copy_whose_source_is_removed_fails(void)
{
	rig_run(copy_source_body);
}

UNIT_MAIN("iscsi/scsi_remove",
	  UNIT_TEST(removed_unit_is_freed_with_its_last_command),
	  UNIT_TEST(copy_whose_source_is_removed_fails),
	  UNIT_TEST(nothing_of_a_removed_unit_lands),
	  UNIT_TEST(unit_whose_device_hangs_is_no_longer_offered),
	  UNIT_TEST(sanitize_of_a_removed_unit_is_waited_for));
