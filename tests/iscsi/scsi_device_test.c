// SPDX-License-Identifier: Apache-2.0
/* What a unit says of itself, and what it does beside reading and writing blocks. */
#include "base/crc32c.h"
#include "tests/iscsi/scsi_rig.h"

#define SEC	NSEC_PER_SEC

static struct said inquiry(struct rig *rig, unsigned int lun, uint8_t page, bool evpd, uint8_t *d)
{
	uint8_t cdb[6] = { 0x12, evpd, page, 0x03, 0xfc };

	memset(d, 0, 1024);
	return rig_do(rig, 0, lun, cdb, 6, NULL, 0, d, 1020);
}

/* ---- who it is ---- */

static void inquiry_body(struct rig *rig)
{
	uint8_t d[1024], pages[16];
	unsigned int n;

	/* Before any unit attention is taken: INQUIRY leaves them alone. */
	CU_ASSERT_EQUAL(inquiry(rig, 0, 0, false, d).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(d[0], 0);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_UNIT_ATTENTION, ASC_POWER_ON));
	CU_ASSERT_EQUAL(inquiry(rig, 99, 0, false, d).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(d[0], 0x7f);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 99, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT));
	CU_ASSERT_EQUAL(inquiry(rig, 0, 0, true, d).status, SCSI_GOOD);
	n = d[3];
	CU_ASSERT_FATAL(n <= sizeof(pages));
	memcpy(pages, d + 4, n);
	for (unsigned int i = 0; i < n; i++) {
		struct said s = inquiry(rig, 0, pages[i], true, d);

		CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
		CU_ASSERT_EQUAL(d[1], pages[i]);
		CU_ASSERT_EQUAL(s.in_len, 4u + get_be16(d + 2));
		CU_ASSERT_TRUE(!i || pages[i] > pages[i - 1]);
	}
	CU_ASSERT_EQUAL(inquiry(rig, 0, 0x99, true, d).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	CU_ASSERT_EQUAL(inquiry(rig, 0, 0x80, false, d).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	/* Limits that the commands keep. */
	inquiry(rig, 0, 0xb0, true, d);
	CU_ASSERT_EQUAL(get_be32(d + 8) * rig->bs, SCSI_TRANSFER_MAX);
	CU_ASSERT_TRUE(d[5] * rig->bs <= SCSI_SCRATCH_LEN && d[5]);
}

static void pages_are_what_the_list_says(void)
{
	rig_run(inquiry_body);
}

/* Every operation that is reported can be asked for alone, and its usage data is its own. */
static void opcodes_body(struct rig *rig)
{
	uint8_t all[8192] = { 0 }, one[512];
	uint32_t len;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0x20, 0, 0, 0), NULL,
			       0, all, 8192).status, SCSI_GOOD);
	len = get_be32(all) + 4;
	CU_ASSERT_TRUE(len > 1000);
	for (uint32_t off = 4; off < len; off += 20) {
		const uint8_t *e = all + off;
		bool action = e[5] & 1;
		uint8_t cdb[12] = { 0xa3, 0x0c, action ? 2 : 1, e[0], e[2], e[3], 0, 0, 2, 0 };

		CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 12, NULL, 0, one, 512).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(one[1], 3);
		CU_ASSERT_EQUAL(one[4], e[0]);
		CU_ASSERT_EQUAL(get_be16(one + 2), get_be16(e + 6));
		CU_ASSERT_TRUE(!action || (one[5] & 0x1f) == e[3]);
	}
}

static void every_reported_opcode_is_described(void)
{
	rig_run(opcodes_body);
}

/* A bit that no field has is refused, and the sense data points at it. */
static void reserved_bits_body(struct rig *rig)
{
	rig_clear_ua(rig);
	for (unsigned int i = 0; i < scsi_op_count; i++) {
		const struct scsi_op *op = &scsi_ops[i];

		for (unsigned int byte = 1; byte < op->len && byte < 16; byte++) {
			uint8_t bad = (uint8_t)~op->usage[byte], cdb[16] = { op->opcode };
			struct said s;

			if (!bad || (byte == 1 && op->sa != OP_NO_SA))
				continue;
			if (op->sa != OP_NO_SA)
				cdb[1] = (uint8_t)op->sa;
			cdb[byte] |= bad & -bad;
			s = rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 0);
			CU_ASSERT_EQUAL(s.sense, SENSE(KEY_ILLEGAL_REQUEST,
						       ASC_INVALID_FIELD_IN_CDB));
		}
	}
}

static void reserved_bits_are_refused(void)
{
	rig_run_seed(reserved_bits_body, 512, &rig_thin, 1);
}

/* ---- mode pages ---- */

static struct said select_page(struct rig *rig, unsigned int nexus, bool save, const uint8_t *page,
			       uint8_t len)
{
	uint8_t list[64] = { 0 }, cdb[6] = { 0x15, (uint8_t)(0x10 | save), 0, 0,
					     (uint8_t)(4 + len) };

	memcpy(list + 4, page, len);
	list[4] &= 0x7f;
	return rig_do(rig, nexus, 0, cdb, 6, list, 4u + len, NULL, 0);
}

static void sense_page(struct rig *rig, uint8_t page, uint8_t *d)
{
	uint8_t cdb[6] = { 0x1a, 0x08, page, 0, 255 }, reply[255] = { 0 };

	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 6, NULL, 0, reply, 255).status, SCSI_GOOD);
	memcpy(d, reply + 4, 32);
}

static void mode_body(struct rig *rig)
{
	uint8_t caching[32], control[32], again[32];

	rig_clear_ua(rig);
	sense_page(rig, 0x08, caching);
	CU_ASSERT_EQUAL(caching[2] & 4, 4);
	/* Turned off, it makes durable what was written before, and everything after. */
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 4, 'b').status, SCSI_GOOD);
	caching[2] &= (uint8_t)~4;
	CU_ASSERT_EQUAL(select_page(rig, 0, true, caching, 20).status, SCSI_GOOD);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 0, 4, 'b'));
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_UNIT_ATTENTION, ASC_MODE_CHANGED));
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 4, 'c').status, SCSI_GOOD);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 0, 4, 'c'));
	/* Software write protection, and sense data with descriptors. */
	sense_page(rig, 0x0a, control);
	control[4] |= 0x08;
	control[2] |= 0x04;
	CU_ASSERT_EQUAL(select_page(rig, 0, false, control, 12).status, SCSI_GOOD);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').sense,
			SENSE(KEY_DATA_PROTECT, ASC_WRITE_PROTECTED));
	/* What cannot be changed cannot be asked for. */
	control[3] = 0;
	CU_ASSERT_EQUAL(select_page(rig, 0, false, control, 12).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_PARAMS));
	CU_ASSERT_EQUAL(select_page(rig, 0, false, control, 11).sense >> 16, KEY_ILLEGAL_REQUEST);
	/* A reset takes back what was not saved, a restart too. */
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_LUN_RESET, 0), SCSI_TMF_COMPLETE);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').status, SCSI_GOOD);
	rig_stop(rig);
	rig_start(rig);
	rig_clear_ua(rig);
	sense_page(rig, 0x08, again);
	CU_ASSERT_EQUAL(again[2] & 4, 0);
}

static void mode_pages_change_what_they_say(void)
{
	rig_run(mode_body);
}

/* ---- growth ---- */

static void growth_body(struct rig *rig)
{
	uint8_t d[32] = { 0 };

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(scsi_lun_refresh(rig->target, 0), 0);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).status, SCSI_GOOD);
	simdisk_resize(rig->disks[0], 2 * RIG_SIZE);
	for (unsigned int i = 0; i < RIG_REACTORS; i++) {
		struct scsi_lun *lun = atomic_load(&rig->target->luns[0]);

		lun->shards[i].dev->info.size = 2 * RIG_SIZE;
	}
	CU_ASSERT_EQUAL(scsi_lun_refresh(rig->target, 0), 0);
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_UNIT_ATTENTION, ASC_CAPACITY_CHANGED));
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0,
					      0), NULL, 0, d, 32).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(get_be64(d), 2 * rig->blocks - 1);
	CU_ASSERT_EQUAL(get_be32(d + 8), rig->bs);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 2 * rig->blocks - 1, 1, 'g').status, SCSI_GOOD);
}

static void growth_is_told_and_usable(void)
{
	rig_run(growth_body);
}

/* ---- SANITIZE ---- */

static struct rig_cmd *send_overwrite(struct rig *rig, uint8_t flags, uint8_t passes, uint8_t byte)
{
	uint8_t list[5] = { passes, 0, 0, 1, byte };
	uint8_t cdb[10] = { 0x48, (uint8_t)(flags | 1), 0, 0, 0, 0, 0, 0, 5 };

	return rig_send(rig, 0, 0, 0, cdb, 10, list, 5, 0, false);
}

static bool all_is(struct rig *rig, uint8_t letter)
{
	return rig_has(rig, 0, 0, rig->blocks, letter);
}

static void sanitize_body(struct rig *rig)
{
	struct rig_cmd *c;
	uint8_t d[1024];
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 8, 'a').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_end(send_overwrite(rig, 0, 1, 0x77), NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(all_is(rig, 0x77));
	/* INVERT: two passes leave the pattern turned over. */
	CU_ASSERT_EQUAL(rig_end(send_overwrite(rig, 0, 0x82, 0x0f), NULL).status, SCSI_GOOD);
	CU_ASSERT_TRUE(all_is(rig, 0xf0));
	CU_ASSERT_EQUAL(rig_end(send_overwrite(rig, 0, 0, 0x0f), NULL).status, SCSI_CHECK_CONDITION);
	/* IMMED: meanwhile nothing but looking is allowed, and no reset ends it. */
	CU_ASSERT_EQUAL(rig_end(send_overwrite(rig, 0x80, 8, 0x11), NULL).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'x').sense,
			SENSE(KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS));
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x03, 0, 0, 0, 252, 0), NULL, 0, d, 252).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(get_be16(d + 12), ASC_SANITIZE_IN_PROGRESS);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_LUN_RESET, 0), SCSI_TMF_COMPLETE);
	CU_ASSERT_EQUAL(inquiry(rig, 0, 0, false, d).status, SCSI_GOOD);
	rig_clear_ua(rig);
	/* The process ends in the middle: it begins anew, and ends. */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS));
	rig_stop(rig);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_RANDOM);
	rig_start(rig);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS));
	do {
		rig_sleep(rig, SEC);
		s = rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0);
	} while (s.status);
	CU_ASSERT_TRUE(all_is(rig, 0x11));
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(all_is(rig, 0x11));
	/* An abort ends the command, not what it began. */
	c = send_overwrite(rig, 0, 8, 0x22);
	rig_sleep(rig, 10000000);
	CU_ASSERT_EQUAL(rig_tmf(rig, 0, 0, SCSI_TMF_ABORT_TASK, c->cmd.tag), SCSI_TMF_COMPLETE);
	CU_ASSERT_TRUE(rig_end(c, NULL).aborted);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS));
	do {
		rig_sleep(rig, SEC);
		s = rig_do(rig, 0, 0, CDB(0), NULL, 0, NULL, 0);
	} while (s.status);
	CU_ASSERT_TRUE(all_is(rig, 0x22));
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, NULL,
			       0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(all_is(rig, 0));
}

static void sanitize_goes_on_until_all_is_gone(void)
{
	struct scsi_lun_config slow = rig_thin;

	slow.sanitize_bps = 4 * MIB;
	rig_run_seed(sanitize_body, 512, &slow, 1);
	rig_run_seed(sanitize_body, 4096, &slow, 2);
}

/* One that failed leaves no doubt that the data may still be there. */
static void sanitize_fails_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE,
				     .off = RIG_SIZE / 2, .len = 4096, .count = 1 };

	for (int ause = 0; ause < 2; ause++) {
		rig_clear_ua(rig);
		simdisk_clear_rules(rig->disks[0]);
		simdisk_inject(rig->disks[0], &rule);
		CU_ASSERT_EQUAL(rig_end(send_overwrite(rig, ause ? 0x20 : 0, 1, 0x33), NULL).sense,
				SENSE(KEY_MEDIUM_ERROR, ASC_SANITIZE_FAILED));
		rig_stop(rig);
		rig_start(rig);
		rig_clear_ua(rig);
		CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').sense,
				SENSE(KEY_MEDIUM_ERROR, ASC_SANITIZE_FAILED));
		CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0,
				       NULL, 0).status, ause ? SCSI_GOOD : SCSI_CHECK_CONDITION);
		CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').status, ause ? SCSI_GOOD :
				SCSI_CHECK_CONDITION);
	}
}

static void failed_sanitize_locks_the_unit(void)
{
	rig_run(sanitize_fails_body);
}

/* ---- WRITE ATOMIC ---- */

/* Cut at any moment, restarted: all of it or nothing. */
static void atomic_body(struct rig *rig)
{
	uint32_t n = 32768 / rig->bs;
	uint8_t cdb[16], *data = rig_fill(rig, 'N', n);

	for (unsigned int moment = 0; moment < 60; moment++) {
		struct rig_cmd *c;
		bool done;

		rig_clear_ua(rig);
		CU_ASSERT_EQUAL(rig_write(rig, 0, 5, n, 'o').status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0,
				       NULL, 0).status, SCSI_GOOD);
		rig_cdb16(cdb, 0x9c, 0, 5, n);
		c = rig_send(rig, 0, 0, 0, cdb, 16, data, n * rig->bs, 0, false);
		rig_sleep(rig, moment * 1500);
		simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_RANDOM);
		done = rig_end(c, NULL).status == SCSI_GOOD;
		rig_stop(rig);
		rig_start(rig);
		CU_ASSERT_TRUE(rig_has(rig, 0, 5, n, 'N') || (!done && rig_has(rig, 0, 5, n, 'o')));
	}
	free(data);
}

static void atomic_write_is_done_or_not(void)
{
	rig_run(atomic_body);
}

/* A state file that says "under way" is finished at start, durably. */
static void atomic_replay_body(struct rig *rig)
{
	struct scsi_lun *lun = atomic_load(&rig->target->luns[0]);
	uint8_t naa[16], header[44], *data = rig_fill(rig, 'R', 2);
	uint64_t off = 2 * SCSI_STATE_SLOT;

	memcpy(naa, lun->config.naa, 16);
	rig_stop(rig);
	memset(header, 0, sizeof(header));
	memcpy(header, "LUNATOM1", 8);
	memcpy(header + 8, naa, 16);
	header[25] = (uint8_t)(rig->bs >> 8);	/* at block 1 */
	header[33] = (uint8_t)(2 * rig->bs >> 8);
	{
		uint32_t crc = crc32c(0, data, 2 * rig->bs);

		memcpy(header + 36, &crc, 4);
		crc = crc32c(0, header, 40);
		memcpy(header + 40, &crc, 4);
	}
	CU_ASSERT_EQUAL(pwrite(rig->state_fd[0], data, 2 * rig->bs, (off_t)off + 4096),
			2 * rig->bs);
	CU_ASSERT_EQUAL(pwrite(rig->state_fd[0], header, 44, (off_t)off), 44);
	rig_start(rig);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 1, 2, 'R'));
	/* Once: a later write is not overwritten by the next start. */
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 1, 2, 'L').status, SCSI_GOOD);
	rig_stop(rig);
	rig_start(rig);
	CU_ASSERT_TRUE(rig_has(rig, 0, 1, 2, 'L'));
	free(data);
}

static void interrupted_atomic_write_is_finished_once(void)
{
	rig_run(atomic_replay_body);
}

/* ---- EXTENDED COPY ---- */

static uint32_t copy_list(uint8_t *list, uint8_t id, unsigned int from, unsigned int to,
			  uint64_t from_lba, uint64_t to_lba, uint16_t blocks)
{
	unsigned int luns[2] = { from, to };

	memset(list, 0, 16 + 2 * 32 + 28);
	list[0] = id;
	put_be16(list + 2, 64);
	put_be32(list + 8, 28);
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t *d = list + 16 + 32 * i;

		d[0] = 0xe4;
		d[4] = 1;
		d[5] = 3;
		d[7] = 16;
		d[8] = 0x60;
		d[23] = (uint8_t)luns[i];
	}
	list[80] = 0x02;
	list[83] = 24;
	list[87] = 1;
	put_be16(list + 90, blocks);
	put_be64(list + 92, from_lba);
	put_be64(list + 100, to_lba);
	return 16 + 64 + 28;
}

static void copy_body(struct rig *rig)
{
	uint8_t cdb[16] = { 0x83 }, list[128], d[64];
	uint16_t n = (uint16_t)(MIB / rig->bs + 3);
	uint32_t len;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 2, n, 'C').status, SCSI_GOOD);
	len = copy_list(list, 9, 0, 1, 2, 40, n);
	put_be32(cdb + 10, len);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, list, len, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 1, 40, n, 'C'));
	CU_ASSERT_FALSE(rig_has(rig, 1, 39, 1, 'C'));
	CU_ASSERT_FALSE(rig_has(rig, 1, 40ULL + n, 1, 'C'));
	/* Its result is told once, to who asked for the copy. */
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0),
			       NULL, 0, d, 64).status, SCSI_CHECK_CONDITION);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0),
			       NULL, 0, d, 64).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(d[4], 1);
	CU_ASSERT_EQUAL(get_be16(d + 5), 1);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0),
			       NULL, 0, d, 64).status, SCSI_CHECK_CONDITION);
	/* The reservation of the destination counts, whichever unit was asked. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, 0, 0, 0, 5, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, 1, 1, 5, 0, 0).status, SCSI_GOOD);
	len = copy_list(list, 9, 1, 0, 40, 100, 8);
	put_be32(cdb + 10, len);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 1, cdb, 16, list, len, NULL, 0).sense >> 16,
			KEY_COPY_ABORTED);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, 3, 0, 5, 0, 0).status, SCSI_GOOD);
	/* Beyond the end, and somebody who is not there. */
	len = copy_list(list, 9, 0, 1, rig->blocks - 1, 0, 2);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, list, len, NULL, 0).sense >> 16,
			KEY_COPY_ABORTED);
	len = copy_list(list, 9, 0, 7, 0, 0, 2);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, list, len, NULL, 0).sense,
			SENSE(KEY_COPY_ABORTED, ASC_COPY_TARGET_UNREACHABLE));
}

static void extended_copy_copies_between_units(void)
{
	rig_run(copy_body);
}

/* As many targets as fit a list of the longest length, which are more than a copy may have. */
static void copy_too_many_body(struct rig *rig)
{
	uint8_t cdb[16] = { 0x83 }, list[COPY_LIST_MAX] = { 0 };
	const uint32_t most = (sizeof(list) - 16) / 32;

	rig_clear_ua(rig);
	put_be32(cdb + 10, sizeof(list));
	for (uint32_t n = COPY_TARGETS_MAX; n <= most; n++) {
		struct said said;

		put_be16(list + 2, n * 32);
		for (uint32_t i = 0; i < n; i++) {
			uint8_t *d = list + 16 + 32 * i;

			d[0] = 0xe4;
			d[4] = 1;
			d[5] = 3;
			d[7] = 16;
			d[8] = 0x60;
		}
		said = rig_do(rig, 0, 0, cdb, 16, list, sizeof(list), NULL, 0);
		CU_ASSERT_EQUAL(said.sense, n > COPY_TARGETS_MAX ?
				SENSE(KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_COPY_TARGETS) : 0);
	}
}

static void copy_with_too_many_targets_is_refused(void)
{
	rig_run(copy_too_many_body);
}

/* PREEMPT AND ABORT on the destination stops a copy that comes by another unit. */
static void copy_fenced_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE,
				     .delay_ns = SEC / 10 };
	uint8_t cdb[16] = { 0x83 }, list[128];
	struct rig_cmd *c;
	uint32_t len;

	rig_clear_ua(rig);
	for (unsigned int n = 0; n < 2; n++)
		CU_ASSERT_EQUAL(rig_pr_out(rig, n, 0, 0, 0, 10 + n, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, 1, 7, 11, 0, 0).status, SCSI_GOOD);
	simdisk_inject(rig->disks[0], &rule);
	len = copy_list(list, 9, 1, 0, 0, 0, (uint16_t)(3 * MIB / rig->bs));
	put_be32(cdb + 10, len);
	c = rig_send(rig, 1, 1, 1, cdb, 16, list, len, 0, false);
	rig_sleep(rig, SEC / 4);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, 5, 7, 10, 11, 0).status, SCSI_GOOD);
	CU_ASSERT_FALSE(simdisk_is_busy(rig->disks[0], rig->env));
	simdisk_clear_rules(rig->disks[0]);
	for (uint32_t lba = 0; lba < rig->blocks; lba += (uint32_t)(MIB / rig->bs))
		CU_ASSERT_EQUAL(rig_write(rig, 0, lba, (uint32_t)(MIB / rig->bs), 'P').status,
				SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_end(c, NULL).sense >> 16, KEY_COPY_ABORTED);
	rig_sleep(rig, SEC);
	CU_ASSERT_TRUE(all_is(rig, 'P'));
}

static void copy_of_a_preempted_host_stops(void)
{
	rig_run(copy_fenced_body);
}

/* ---- medium that can be taken out ---- */

static void removable_body(struct rig *rig)
{
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0x1e, 0, 0, 0, 1, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_MEDIUM_REMOVAL_PREVENTED));
	scsi_nexus_close(rig->nexus[1]);	/* takes its PREVENT with it */
	rig_open_nexus(rig, 1, 1);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x1b, 0, 0, 0, 2, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').sense, SENSE(KEY_NOT_READY, ASC_NO_MEDIUM));
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x1b, 0, 0, 0, 3, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_do(rig, 2, 0, CDB(0), NULL, 0, NULL, 0).sense,
			SENSE(KEY_UNIT_ATTENTION, ASC_MEDIUM_CHANGED));
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'x').status, SCSI_GOOD);
}

static void medium_comes_and_goes(void)
{
	struct scsi_lun_config removable = rig_thin;

	removable.removable = true;
	rig_run_seed(removable_body, 512, &removable, 1);
}

UNIT_MAIN("scsi_device",
	  UNIT_TEST(pages_are_what_the_list_says),
	  UNIT_TEST(every_reported_opcode_is_described),
	  UNIT_TEST(reserved_bits_are_refused),
	  UNIT_TEST(mode_pages_change_what_they_say),
	  UNIT_TEST(growth_is_told_and_usable),
	  UNIT_TEST(sanitize_goes_on_until_all_is_gone),
	  UNIT_TEST(failed_sanitize_locks_the_unit),
	  UNIT_TEST(atomic_write_is_done_or_not),
	  UNIT_TEST(interrupted_atomic_write_is_finished_once),
	  UNIT_TEST(extended_copy_copies_between_units),
	  UNIT_TEST(copy_with_too_many_targets_is_refused),
	  UNIT_TEST(copy_of_a_preempted_host_stops),
	  UNIT_TEST(medium_comes_and_goes));
