// SPDX-License-Identifier: Apache-2.0
/* Logical units that go away while initiators use them (scsi_lun_remove()). */
#include "tests/iscsi/scsi_rig.h"

#define MSEC	NSEC_PER_MSEC

static struct said report_luns(struct rig *rig, unsigned int nexus, unsigned int lun, uint8_t in[64])
{
	return rig_do(rig, nexus, lun, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), NULL, 0, in, 64);
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
	CU_ASSERT_EQUAL(scsi_lun_remove(rig->target, 0), 0);
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
	CU_ASSERT_EQUAL(scsi_lun_remove(rig->target, 0), -ENOENT);

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

/* A device that hangs keeps what it stands on, and nobody else from being served. */
static void hung_body(struct rig *rig)
{
	struct rig_cmd *c;

	rig_clear_ua(rig);
	simdisk_stall(rig->disks[0], NULL, env_now_ns(rig->env) + 60 * NSEC_PER_SEC);
	c = rig_send_write(rig, 0, 0, 8, 1, 'y');
	rig_sleep(rig, 5 * MSEC);
	CU_ASSERT_EQUAL(scsi_lun_remove(rig->target, 0), -ETIMEDOUT);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT));
	rig_do(rig, 0, 1, CDB(0), NULL, 0, NULL, 0);	/* the unit attention */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 1, CDB(0), NULL, 0, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_end(c, NULL).status, SCSI_TASK_ABORTED);
}

static void unit_whose_device_hangs_is_no_longer_offered(void)
{
	rig_run(hung_body);
}

UNIT_MAIN("iscsi/scsi_remove",
	  UNIT_TEST(nothing_of_a_removed_unit_lands),
	  UNIT_TEST(unit_whose_device_hangs_is_no_longer_offered));
