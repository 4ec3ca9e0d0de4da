// SPDX-License-Identifier: Apache-2.0
/* READ, WRITE and their relatives on blocks. */
#include "tests/iscsi/scsi_rig.h"

/* Everything that is written can be read, whatever CDB carries it. */
static void every_cdb_body(struct rig *rig)
{
	static const struct { uint8_t write, read, len; } cdbs[] = {
		{ 0x0a, 0x08, 6 }, { 0x2a, 0x28, 10 }, { 0xaa, 0xa8, 12 }, { 0x8a, 0x88, 16 },
	};
	uint8_t *got = rig_fill(rig, 0, 8);

	rig_clear_ua(rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(cdbs); i++) {
		uint8_t cdb[16] = { cdbs[i].write }, letter = (uint8_t)('a' + i);
		uint8_t *data = rig_fill(rig, letter, 8);
		struct said s;

		switch (cdbs[i].len) {
		case 6: cdb[3] = 16; cdb[4] = 8; break;
		case 10: cdb[5] = 16; cdb[8] = 8; break;
		case 12: cdb[5] = 16; cdb[9] = 8; break;
		default: cdb[9] = 16; cdb[13] = 8; break;
		}
		s = rig_do(rig, 0, 0, cdb, cdbs[i].len, data, 8 * rig->bs, NULL, 0);
		CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
		CU_ASSERT_TRUE(rig_has(rig, 0, 16, 8, letter));
		CU_ASSERT_FALSE(rig_has(rig, 0, 15, 1, letter));
		cdb[0] = cdbs[i].read;
		s = rig_do(rig, 0, 0, cdb, cdbs[i].len, NULL, 0, got, 8 * rig->bs);
		CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
		CU_ASSERT_EQUAL(s.in_len, 8 * rig->bs);
		CU_ASSERT_EQUAL(memcmp(got, data, 8 * rig->bs), 0);
		free(data);
	}
	free(got);
}

static void what_any_cdb_writes_is_read(void)
{
	rig_run(every_cdb_body);
}

/* Nothing is read or written beyond the end, however the sum wraps around. */
static void beyond_end_body(struct rig *rig)
{
	static const uint64_t lbas[] = { UINT64_MAX, UINT64_MAX - 1, 1ULL << 63 };
	uint8_t cdb[16];

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, rig->blocks - 1, 1, 'x').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 0, rig->blocks - 1, 2, 'x').sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE));
	for (unsigned int i = 0; i < ARRAY_SIZE(lbas); i++) {
		rig_cdb16(cdb, 0x88, 0, lbas[i], 2);
		CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 2 * rig->bs).sense,
				SENSE(KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE));
	}
	rig_cdb16(cdb, 0x88, 0, rig->blocks, 0);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 0).status, SCSI_GOOD);
	rig_cdb16(cdb, 0x88, 0, 0, (uint32_t)(SCSI_TRANSFER_MAX / rig->bs) + 1);
	CU_ASSERT_NOT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 4096).status, SCSI_GOOD);
}

static void nothing_lies_beyond_the_end(void)
{
	rig_run(beyond_end_body);
}

/* Protection information is not kept, so asking for it must not seem to work. */
static void protect_body(struct rig *rig)
{
	static const uint8_t ops[] = { 0x88, 0x8a, 0x8b, 0x8e, 0x8f, 0x9c, 0x93 };
	uint8_t cdb[16], data[8192] = { 0 };

	rig_clear_ua(rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(ops); i++) {
		for (uint8_t protect = 1; protect < 8; protect++) {
			rig_cdb16(cdb, ops[i], (uint8_t)(protect << 5), 0, 1);
			CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL,
					       rig->bs).sense,
					SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
		}
	}
}

static void protection_is_refused(void)
{
	rig_run(protect_body);
}

/* An initiator that expects less than the CDB says gets that, and the rest as a residual. */
static void residual_body(struct rig *rig)
{
	uint8_t cdb[16], got[8192], *data = rig_fill(rig, 'r', 2);
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 8, 4, 'w').status, SCSI_GOOD);
	rig_cdb16(cdb, 0x88, 0, 8, 2);
	s = rig_do(rig, 0, 0, cdb, 16, NULL, 0, got, 200);
	CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
	CU_ASSERT_EQUAL(s.in_len, 200);
	CU_ASSERT_EQUAL(s.in_want, 2 * rig->bs);
	CU_ASSERT_EQUAL(got[199], 'w');
	s = rig_do(rig, 0, 0, cdb, 16, NULL, 0, got, 0);
	CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
	CU_ASSERT_EQUAL(s.in_want, 2 * rig->bs);
	/* One and a half blocks of two: the whole one is written, the half one is not. */
	rig_cdb16(cdb, 0x8a, 0, 8, 2);
	s = rig_do(rig, 0, 0, cdb, 16, data, rig->bs * 3 / 2, NULL, 0);
	CU_ASSERT_EQUAL(s.status, SCSI_GOOD);
	CU_ASSERT_EQUAL(s.out_want, 2 * rig->bs);
	CU_ASSERT_TRUE(rig_has(rig, 0, 8, 1, 'r'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 9, 3, 'w'));
	free(data);
}

static void residuals_touch_no_other_block(void)
{
	rig_run(residual_body);
}

/* FUA and SYNCHRONIZE CACHE: what they acknowledged survives the worst power cut (R7). */
static void durable_body(struct rig *rig)
{
	uint8_t cdb[16], *data = rig_fill(rig, 'f', 4);

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 4, 'v').status, SCSI_GOOD);
	rig_cdb16(cdb, 0x8a, 0x08, 4, 4);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, 4 * rig->bs, NULL, 0).status, SCSI_GOOD);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_FALSE(rig_has(rig, 0, 0, 4, 'v'));	/* there is a volatile cache */
	CU_ASSERT_TRUE(rig_has(rig, 0, 4, 4, 'f'));
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 4, 's').status, SCSI_GOOD);
	/* By another nexus at another reactor. */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, NULL,
			       0).status, SCSI_GOOD);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 0, 4, 's'));
	free(data);
}

static void fua_and_sync_are_durable(void)
{
	rig_run(durable_body);
}

/* Without a write cache every write is durable when it completes. */
static void write_through_body(struct rig *rig)
{
	uint8_t same[16];

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 3, 5, 't').status, SCSI_GOOD);
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 3, 5, 't'));
	rig_cdb16(same, 0x93, 0, 10, 4);
	{
		uint8_t *data = rig_fill(rig, 'q', 1);

		CU_ASSERT_EQUAL(rig_do(rig, 0, 0, same, 16, data, rig->bs, NULL, 0).status,
				SCSI_GOOD);
		free(data);
	}
	simdisk_power_cut(rig->disks[0], SIMDISK_KEEP_NONE);
	CU_ASSERT_TRUE(rig_has(rig, 0, 10, 4, 'q'));
}

static void without_cache_every_write_is_durable(void)
{
	rig_run_seed(write_through_body, 512, &rig_thick, 3);
	rig_run_seed(write_through_body, 4096, &rig_thick, 4);
}

/* A flush that fails says so to every initiator, once each: their writes may be gone (R7). */
static void flush_fails_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_FLUSH, .count = 1 };

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'l').status, SCSI_GOOD);
	simdisk_inject(rig->disks[0], &rule);
	for (unsigned int n = 0; n < RIG_NEXUSES; n++)
		CU_ASSERT_EQUAL(rig_do(rig, n, 0, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0,
				       NULL, 0).sense, SENSE(KEY_MEDIUM_ERROR, ASC_WRITE_ERROR));
	for (unsigned int n = 0; n < RIG_NEXUSES; n++)
		CU_ASSERT_EQUAL(rig_do(rig, n, 0, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0,
				       NULL, 0).status, SCSI_GOOD);
}

static void failed_flush_is_told_to_all(void)
{
	rig_run(flush_fails_body);
}

/* The sense data names the bad block, in reads and writes, alone or among others. */
static void medium_error_body(struct rig *rig)
{
	static const uint32_t spans[][3] = { { 100, 1, 100 }, { 96, 16, 100 }, { 0, 200, 100 },
					     { 37, 64, 100 } };
	uint8_t *got = rig_fill(rig, 0, 200);

	rig_clear_ua(rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(spans); i++) {
		struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .off = 100ULL * rig->bs,
					     .ops = 1u << BLK_READ | 1u << BLK_WRITE,
					     .len = rig->bs };
		struct said s;

		simdisk_inject(rig->disks[0], &rule);
		s = rig_read(rig, 0, spans[i][0], spans[i][1], got);
		CU_ASSERT_EQUAL(s.sense, SENSE(KEY_MEDIUM_ERROR, ASC_UNRECOVERED_READ_ERROR));
		CU_ASSERT_EQUAL(s.info, spans[i][2]);
		s = rig_write(rig, 0, spans[i][0], spans[i][1], 'm');
		CU_ASSERT_EQUAL(s.sense, SENSE(KEY_MEDIUM_ERROR, ASC_WRITE_ERROR));
		CU_ASSERT_EQUAL(s.info, spans[i][2]);
		/* The other unit knows nothing of it. */
		CU_ASSERT_EQUAL(rig_do(rig, 0, 1, CDB(0x28, 0, 0, 0, 0, 100, 0, 0, 1, 0), NULL, 0,
				       got, rig->bs).status, SCSI_GOOD);
		simdisk_clear_rules(rig->disks[0]);
		CU_ASSERT_EQUAL(rig_read(rig, 0, spans[i][0], spans[i][1], got).status, SCSI_GOOD);
	}
	free(got);
}

static void medium_errors_name_the_block(void)
{
	rig_run(medium_error_body);
}

/* No space left is not a broken disk: initiators pause the guest and wait for space. */
static void full_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_NOSPC, .ops = 1u << BLK_WRITE, .count = 1 };

	rig_clear_ua(rig);
	simdisk_inject(rig->disks[0], &rule);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 8, 'n').sense,
			SENSE(KEY_DATA_PROTECT, ASC_SPACE_ALLOCATION_FAILED));
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 8, 'n').status, SCSI_GOOD);
}

static void full_backing_is_a_space_error(void)
{
	rig_run(full_body);
}

/* A unit that does not answer holds up nobody else. */
static void stalled_body(struct rig *rig)
{
	struct rig_cmd *stuck[40];
	uint8_t got[4096];

	rig_clear_ua(rig);
	simdisk_stall(rig->disks[0], NULL, sim_now_ns(rig->sim) + 60 * NSEC_PER_SEC);
	/* VERIFY takes a buffer each: more than there are. */
	for (unsigned int i = 0; i < ARRAY_SIZE(stuck); i++)
		stuck[i] = rig_send(rig, 0, 0, 0, CDB(0x2f, 0, 0, 0, 0, (uint8_t)i, 0, 0, 1, 0),
				    NULL, 0, 0, false);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 1, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), NULL, 0, got,
			       rig->bs).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 1, CDB(0x2f, 0, 0, 0, 0, 1, 0, 0, 1, 0), NULL, 0, NULL,
			       0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(sim_now_ns(rig->sim) < 10 * NSEC_PER_SEC);
	for (unsigned int i = 0; i < ARRAY_SIZE(stuck); i++)
		CU_ASSERT_EQUAL(rig_end(stuck[i], NULL).status, SCSI_GOOD);
}

static void stalled_unit_stalls_no_other(void)
{
	rig_run(stalled_body);
}

/* VERIFY compares, and says where it differs. */
static void verify_body(struct rig *rig)
{
	uint32_t n = 40, at = 33 * rig->bs + 7;
	uint8_t cdb[16], *data = rig_fill(rig, 'e', n);
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 64, n, 'e').status, SCSI_GOOD);
	rig_cdb16(cdb, 0x8f, 0x02, 64, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, n * rig->bs, NULL, 0).status, SCSI_GOOD);
	data[at] ^= 1;
	s = rig_do(rig, 0, 0, cdb, 16, data, n * rig->bs, NULL, 0);
	CU_ASSERT_EQUAL(s.sense, SENSE(KEY_MISCOMPARE, ASC_MISCOMPARE));
	CU_ASSERT_EQUAL(s.info, at);
	/* One block against each: BYTCHK 3. */
	rig_cdb16(cdb, 0x8f, 0x06, 64, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 80, 1, 'E').status, SCSI_GOOD);
	s = rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0);
	CU_ASSERT_EQUAL(s.sense, SENSE(KEY_MISCOMPARE, ASC_MISCOMPARE));
	/* None: readable is enough. */
	rig_cdb16(cdb, 0x8f, 0, 64, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 0).status, SCSI_GOOD);
	rig_cdb16(cdb, 0x8f, 0x04, 64, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	free(data);
}

static void verify_finds_differences(void)
{
	rig_run(verify_body);
}

/* WRITE AND VERIFY: a device that stores something else is found out. */
static void write_verify_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_CORRUPT, .ops = 1u << BLK_READ, .count = 1 };
	uint8_t cdb[16], *data = rig_fill(rig, 'y', 20);

	rig_clear_ua(rig);
	rig_cdb16(cdb, 0x8e, 0x02, 7, 20);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, 20 * rig->bs, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 7, 20, 'y'));
	simdisk_inject(rig->disks[0], &rule);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, 20 * rig->bs, NULL, 0).sense,
			SENSE(KEY_MISCOMPARE, ASC_MISCOMPARE));
	free(data);
}

static void write_and_verify_reads_back(void)
{
	rig_run(write_verify_body);
}

/* ORWRITE sets bits and clears none. */
static void orwrite_body(struct rig *rig)
{
	uint32_t n = 150;
	uint8_t cdb[16], *data = rig_fill(rig, 0x0f, n);

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 9, n, 0x50).status, SCSI_GOOD);
	rig_cdb16(cdb, 0x8b, 0, 9, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, n * rig->bs, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 9, n, 0x5f));
	free(data);
}

static void orwrite_sets_bits(void)
{
	rig_run(orwrite_body);
}

/* WRITE SAME repeats its block; zeros and NDOB leave zeros. */
static void write_same_body(struct rig *rig)
{
	uint32_t n = 300;
	uint8_t cdb[16], *data = rig_fill(rig, 'z', 1);

	rig_clear_ua(rig);
	rig_cdb16(cdb, 0x93, 0, 5, n);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 5, n, 'z'));
	/* UNMAP with a block that is not zero: unmapping would not leave it. */
	rig_cdb16(cdb, 0x93, 0x08, 10, 10);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 5, n, 'z'));
	rig_cdb16(cdb, 0x93, 0x09, 6, 10);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, NULL, 0, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 6, 10, 0));
	CU_ASSERT_TRUE(rig_has(rig, 0, 16, n - 11, 'z'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 5, 1, 'z'));
	/* Too much or too little data. */
	rig_cdb16(cdb, 0x93, 0, 5, 1);
	CU_ASSERT_NOT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs / 2, NULL, 0).status,
			    SCSI_GOOD);
	rig_cdb16(cdb, 0x93, 0, 5, 0);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	rig_cdb16(cdb, 0x93, 0x10, 5, 1);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 16, data, rig->bs, NULL, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	free(data);
}

static void write_same_repeats_its_block(void)
{
	rig_run(write_same_body);
}

static struct said unmap(struct rig *rig, const uint64_t (*ranges)[2], unsigned int count)
{
	uint8_t cdb[10] = { 0x42 }, list[8 + 16 * 8] = { 0 };
	uint32_t len = 8 + 16 * count;

	put_be16(cdb + 7, len);
	put_be16(list, len - 2);
	put_be16(list + 2, len - 8);
	for (unsigned int i = 0; i < count; i++) {
		put_be64(list + 8 + 16 * i, ranges[i][0]);
		put_be32(list + 8 + 16 * i + 8, ranges[i][1]);
	}
	return rig_do(rig, 0, 0, cdb, 10, list, len, NULL, 0);
}

/* UNMAP leaves zeros in its ranges and touches nothing if one of them is wrong. */
static void unmap_body(struct rig *rig)
{
	const uint64_t good[][2] = { { 3, 1 }, { 8, 0 }, { 10, 5 } };
	const uint64_t bad[][2] = { { 20, 4 }, { rig->blocks - 1, 2 } };

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 32, 'u').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(unmap(rig, good, 3).status, SCSI_GOOD);
	CU_ASSERT_TRUE(rig_has(rig, 0, 3, 1, 0));
	CU_ASSERT_TRUE(rig_has(rig, 0, 10, 5, 0));
	CU_ASSERT_TRUE(rig_has(rig, 0, 0, 3, 'u'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 4, 6, 'u'));
	CU_ASSERT_TRUE(rig_has(rig, 0, 15, 17, 'u'));
	CU_ASSERT_EQUAL(unmap(rig, bad, 2).sense, SENSE(KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE));
	CU_ASSERT_TRUE(rig_has(rig, 0, 20, 4, 'u'));
	CU_ASSERT_EQUAL(unmap(rig, NULL, 0).status, SCSI_GOOD);
}

static void unmap_zeroes_its_ranges_only(void)
{
	rig_run(unmap_body);
}

/* A thick unit offers no UNMAP: it would promise space that is not given back. */
static void thick_body(struct rig *rig)
{
	const uint64_t range[][2] = { { 0, 1 } };

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(unmap(rig, range, 1).sense, SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_OPCODE));
}

static void thick_unit_has_no_unmap(void)
{
	rig_run_seed(thick_body, 512, &rig_thick, 5);
}

UNIT_MAIN("scsi_rw",
	  UNIT_TEST(what_any_cdb_writes_is_read),
	  UNIT_TEST(nothing_lies_beyond_the_end),
	  UNIT_TEST(protection_is_refused),
	  UNIT_TEST(residuals_touch_no_other_block),
	  UNIT_TEST(fua_and_sync_are_durable),
	  UNIT_TEST(without_cache_every_write_is_durable),
	  UNIT_TEST(failed_flush_is_told_to_all),
	  UNIT_TEST(medium_errors_name_the_block),
	  UNIT_TEST(full_backing_is_a_space_error),
	  UNIT_TEST(stalled_unit_stalls_no_other),
	  UNIT_TEST(verify_finds_differences),
	  UNIT_TEST(write_and_verify_reads_back),
	  UNIT_TEST(orwrite_sets_bits),
	  UNIT_TEST(write_same_repeats_its_block),
	  UNIT_TEST(unmap_zeroes_its_ranges_only),
	  UNIT_TEST(thick_unit_has_no_unmap));
