// SPDX-License-Identifier: Apache-2.0
/*
 * CDBs and parameter lists as any initiator may send them, to the SCSI device server on a
 * simulated LUN: every command ends exactly once, within its buffer, with a status that says
 * what it should, and afterwards the unit still serves.
 *
 * Input: records of nexus, unit, attribute, direction, lengths, a CDB and its data.
 */
#include <errno.h>

#include "tests/fuzz/fuzz.h"

/* The rig of the unit tests, with its claims as this program's. */
#define LUNFS_TESTS_UNIT_H
#define CU_ASSERT_TRUE(x)		FUZZ_CHECK(x)
#define CU_ASSERT_FALSE(x)		FUZZ_CHECK(!(x))
#define CU_ASSERT_EQUAL(a, b)		FUZZ_CHECK((a) == (b))
#define CU_ASSERT_EQUAL_FATAL(a, b)	FUZZ_CHECK((a) == (b))
#define CU_ASSERT_PTR_NOT_NULL_FATAL(x)	FUZZ_CHECK(x)
#include "tests/iscsi/scsi_rig.h"

#define COMMANDS_MAX	24
#define DATA_MAX	8192

static const uint8_t *fuzz_data;
static size_t fuzz_size;

static void check_result(struct rig_cmd *c)
{
	const struct scsi_cmd *cmd = &c->cmd;

	FUZZ_CHECK(cmd->in_len <= cmd->in_max && cmd->in_max <= cmd->expected_in);
	FUZZ_CHECK(cmd->out_len <= cmd->expected_out && cmd->out_len <= SCSI_TRANSFER_MAX);
	FUZZ_CHECK(cmd->sense_len <= SCSI_SENSE_MAX);
	FUZZ_CHECK(cmd->aborted || (cmd->status == SCSI_CHECK_CONDITION) == (cmd->sense_len > 0));
	for (int i = 0, len = 0; i < cmd->iovcnt; i++) {
		len += (int)cmd->iov[i].iov_len;
		FUZZ_CHECK(i < cmd->iovcnt - 1 || len == (int)(cmd->out_len ? cmd->out_len :
							       cmd->in_max));
	}
}

static struct rig_cmd *one(struct rig *rig, struct fuzz_input *in)
{
	static uint8_t data[DATA_MAX];
	uint8_t head[4] = { 0 }, cdb[32] = { 0 };
	uint32_t out_len, in_len;
	struct rig_cmd *c;

	fuzz_take(in, head, sizeof(head));
	fuzz_take(in, cdb, 16);
	out_len = (uint32_t)fuzz_number(in, 2) % (DATA_MAX + 1);
	in_len = (uint32_t)fuzz_number(in, 2) % (DATA_MAX + 1);
	fuzz_take(in, data, head[3] < 128 ? out_len : out_len / 8);
	c = rig_send(rig, head[0] % RIG_NEXUSES, head[1] % (RIG_LUNS + 1), head[2] % RIG_REACTORS,
		     cdb, sizeof(cdb), data, out_len, in_len, false);
	c->cmd.attr = head[3] % 16 == 1 ? SCSI_ORDERED : SCSI_SIMPLE;
	return c;
}

static void body(struct rig *rig)
{
	struct fuzz_input in = { fuzz_data, fuzz_size };
	struct rig_cmd *c[COMMANDS_MAX];
	unsigned int count = 0;
	struct said s;

	rig_clear_ua(rig);
	while (in.left && count < COMMANDS_MAX)
		c[count++] = one(rig, &in);
	if (fuzz_size % 3 == 0)
		rig_tmf(rig, 0, 0, SCSI_TMF_LUN_RESET, 0);
	for (unsigned int i = 0; i < count; i++) {
		rig_wait(c[i]);
		check_result(c[i]);
		rig_free(c[i]);
	}
	s = rig_do(rig, 0, 0, CDB(0x12, 0, 0, 0, 36, 0), NULL, 0, NULL, 36);
	FUZZ_CHECK(s.status == SCSI_GOOD && s.in_len == 36);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scsi_lun_config config = rig_thin;

	fuzz_data = data;
	fuzz_size = size;
	config.removable = size % 2;
	config.sanitize_bps = 1024 * MIB;
	rig_run_seed(body, size % 5 ? 512 : 4096, &config, 1);
	return 0;
}
