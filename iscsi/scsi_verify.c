// SPDX-License-Identifier: Apache-2.0
/* VERIFY and WRITE AND VERIFY (SBC-4): through a buffer of ours, piece by piece. */
#include "iscsi/scsi_internal.h"

enum { VERIFY_DONE };	/* walk: blocks that were looked at */

enum { BYTCHK_NONE = 0, BYTCHK_ALL = 1, BYTCHK_RESERVED = 2, BYTCHK_ONE = 3 };

static unsigned int bytchk(const struct scsi_cmd *cmd)
{
	return cmd->cdb[1] >> 1 & 3;
}

static void verify_piece(struct scsi_cmd *cmd, int err);

/* The offset in the data-out of the first byte that differs, or -1. */
static int64_t compare(struct scsi_cmd *cmd, uint64_t at, uint64_t blocks)
{
	uint32_t bs = cmd->unit->block_size;
	const uint8_t *found = cmd->scratch;

	if (bytchk(cmd) == BYTCHK_ALL)
		return scsi_differs(cmd, at * bs, found, blocks * bs);
	for (uint64_t i = 0; i < blocks && bytchk(cmd) == BYTCHK_ONE; i++) {
		int64_t off = scsi_differs(cmd, 0, found + i * bs, bs);

		if (off >= 0)
			return off;
	}
	return -1;
}

static void verify_read(struct scsi_cmd *cmd, int err)
{
	uint64_t n = cmd->piece.iov_len / cmd->unit->block_size;
	int64_t off;

	if (err) {
		/* The piece is what failed: its first bad block is the answer. */
		if (err == -EIO && n == 1)
			scsi_sense_info(cmd, KEY_MEDIUM_ERROR, ASC_UNRECOVERED_READ_ERROR,
					cmd->lba + cmd->walk[VERIFY_DONE]);
		else if (err == -EIO) {
			cmd->walk[1] = 1;	/* one block at a time from here on */
			verify_piece(cmd, 0);
			return;
		} else
			scsi_fail_err(cmd, err);
		scsi_finish(cmd);
		return;
	}
	off = compare(cmd, cmd->walk[VERIFY_DONE], n);
	if (off >= 0) {
		scsi_sense_info(cmd, KEY_MISCOMPARE, ASC_MISCOMPARE, (uint64_t)off);
		scsi_finish(cmd);
		return;
	}
	cmd->walk[VERIFY_DONE] += n;
	verify_piece(cmd, 0);
}

static void verify_piece(struct scsi_cmd *cmd, int err)
{
	uint64_t left = cmd->blocks - cmd->walk[VERIFY_DONE];
	uint64_t room = cmd->walk[1] ? 1 : SCSI_SCRATCH_LEN / cmd->unit->block_size;

	(void)err;
	if (!left || scsi_was_aborted(cmd)) {
		scsi_finish(cmd);
		return;
	}
	scsi_piece(cmd, BLK_READ, 0, cmd->lba + cmd->walk[VERIFY_DONE], left < room ? left : room,
		   verify_read);
}

/* Comparing with data that is not all there would compare with nothing. */
static bool want_whole(struct scsi_cmd *cmd, uint64_t len)
{
	scsi_want_out(cmd, len);
	if (cmd->out_len == len)
		return true;
	scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_IU);
	cmd->out_len = 0;
	return false;
}

bool verify_begin(struct scsi_cmd *cmd)
{
	uint32_t bs;

	if (bytchk(cmd) == BYTCHK_RESERVED)
		return scsi_bad_field(cmd, 1, 2);
	/* Without data the length is bounded by patience only: the pieces can be aborted. */
	if (!rw_begin(cmd, false, bytchk(cmd) == BYTCHK_ALL ? SCSI_TRANSFER_MAX : UINT64_MAX))
		return false;
	bs = cmd->unit->block_size;
	if (!cmd->blocks || bytchk(cmd) == BYTCHK_NONE)
		return true;
	return want_whole(cmd, bytchk(cmd) == BYTCHK_ONE ? bs : cmd->blocks * bs);
}

void verify_run(struct scsi_cmd *cmd)
{
	if (cmd->blocks)
		scsi_with_scratch(cmd, verify_piece);
	else
		scsi_finish(cmd);
}

/* ---- WRITE AND VERIFY ---- */

/* Nobody else may write between its write and its reading back. */
bool write_verify_begin(struct scsi_cmd *cmd)
{
	if (bytchk(cmd) > BYTCHK_ALL)
		return scsi_bad_field(cmd, 1, 2);
	if (!rw_begin(cmd, true, SCSI_TRANSFER_MAX))
		return false;
	cmd->claim.exclusive = true;
	scsi_want_out(cmd, cmd->blocks * cmd->unit->block_size);
	return true;
}

static void write_verify_written(struct scsi_cmd *cmd, int err)
{
	if (err)
		scsi_locate(cmd, true, err);
	else
		scsi_with_scratch(cmd, verify_piece);
}

void write_verify_run(struct scsi_cmd *cmd)
{
	/* Fewer bytes than the CDB names: whole blocks of them, as WRITE does. */
	cmd->blocks = rw_trim(cmd);
	if (!cmd->blocks) {
		scsi_finish(cmd);
		return;
	}
	/* From the medium, not from a cache that the write went to. */
	rw_submit(cmd, BLK_WRITE, BLK_FUA, cmd->blocks, write_verify_written);
}
