// SPDX-License-Identifier: Apache-2.0
/*
 * COMPARE AND WRITE, ORWRITE (SBC-4): read, look, write, while an exclusive claim keeps every
 * other write away from the blocks (scsi_claim.c, invariant 2).
 *
 * The write is one request to the device.  A power cut in the middle of it may leave some of
 * several blocks new and others old, as with any write; one sector is never torn (docs/ISCSI.md).
 */
#include "iscsi/scsi_internal.h"

static bool fua(const struct scsi_cmd *cmd)
{
	return cmd->cdb[1] & 0x08;
}

/* ---- COMPARE AND WRITE ---- */

/*
 * A reader sees all of it or nothing.  For one sector the device sees to that; several, or what
 * goes through a page cache (5 of 36,000 reads of 4 KiB were torn on ext4), is kept from readers.
 */
static bool is_whole(const struct scsi_cmd *cmd)
{
	const struct blkdev_info *info = &cmd->claim.shard->dev->info;

	return cmd->blocks * cmd->unit->block_size <= info->sector && info->direct;
}

bool caw_begin(struct scsi_cmd *cmd)
{
	uint32_t bs = cmd->unit->block_size;

	cmd->lba = get_be64(cmd->cdb + 2);
	cmd->blocks = cmd->cdb[13];
	if (!scsi_check_range(cmd, cmd->lba, cmd->blocks))
		return false;
	/* 256 blocks come as 0, with the data of 256. */
	if (cmd->blocks * bs > SCSI_SCRATCH_LEN || (!cmd->blocks && cmd->expected_out))
		return scsi_bad_field(cmd, 13, -1);
	cmd->claim.lba = cmd->lba;
	cmd->claim.end = cmd->lba + cmd->blocks;
	cmd->claim.writes = true;
	cmd->claim.exclusive = cmd->blocks > 0;
	cmd->claim.exclusive_reads = cmd->blocks && !is_whole(cmd);
	cmd->out_want = (uint32_t)(2 * cmd->blocks * bs);
	if (cmd->expected_out != cmd->out_want) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_IU);
		return false;
	}
	cmd->out_len = cmd->out_want;
	return true;
}

static void caw_written(struct scsi_cmd *cmd, int err)
{
	scsi_finish_err(cmd, err);
}

static void caw_compare(struct scsi_cmd *cmd, int err)
{
	uint64_t len = cmd->blocks * cmd->unit->block_size;
	int64_t off;

	/* An abort that came in time writes nothing. */
	if (err || scsi_was_aborted(cmd)) {
		if (err == -EIO)
			scsi_sense_info(cmd, KEY_MEDIUM_ERROR, ASC_UNRECOVERED_READ_ERROR, cmd->lba);
		else if (err)
			scsi_fail_err(cmd, err);
		scsi_finish(cmd);
		return;
	}
	off = scsi_differs(cmd, 0, cmd->scratch, len);
	if (off >= 0) {
		scsi_sense_info(cmd, KEY_MISCOMPARE, ASC_MISCOMPARE, (uint64_t)off);
		scsi_finish(cmd);
		return;
	}
	scsi_gather(cmd, len, cmd->scratch, len);
	scsi_piece(cmd, BLK_WRITE, scsi_write_flags(cmd, fua(cmd)), cmd->lba, cmd->blocks,
		   caw_written);
}

static void caw_read(struct scsi_cmd *cmd, int err)
{
	(void)err;
	scsi_piece(cmd, BLK_READ, 0, cmd->lba, cmd->blocks, caw_compare);
}

void caw_run(struct scsi_cmd *cmd)
{
	if (cmd->blocks)
		scsi_with_scratch(cmd, caw_read);
	else
		scsi_finish(cmd);
}

/* ---- ORWRITE ---- */

enum { ORWRITE_DONE };	/* walk: blocks that are written */

bool orwrite_begin(struct scsi_cmd *cmd)
{
	if (!rw_begin(cmd, true, SCSI_TRANSFER_MAX))
		return false;
	cmd->claim.exclusive = cmd->blocks > 0;
	scsi_want_out(cmd, cmd->blocks * cmd->unit->block_size);
	if (cmd->out_len != cmd->out_want) {
		cmd->out_len = 0;
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_IU);
		return false;
	}
	return true;
}

static void orwrite_read(struct scsi_cmd *cmd, int err);

static void orwrite_written(struct scsi_cmd *cmd, int err)
{
	if (err) {
		scsi_finish_err(cmd, err);
		return;
	}
	cmd->walk[ORWRITE_DONE] += cmd->piece.iov_len / cmd->unit->block_size;
	orwrite_read(cmd, 0);
}

static void orwrite_merge(struct scsi_cmd *cmd, int err)
{
	uint32_t bs = cmd->unit->block_size;
	uint64_t off = cmd->walk[ORWRITE_DONE] * bs;
	uint8_t *to = cmd->scratch, mine[512];

	if (err) {
		scsi_finish_err(cmd, err);
		return;
	}
	for (size_t i = 0; i < cmd->piece.iov_len; i += sizeof(mine)) {
		scsi_gather(cmd, off + i, mine, sizeof(mine));
		for (size_t k = 0; k < sizeof(mine); k++)
			to[i + k] |= mine[k];
	}
	scsi_piece(cmd, BLK_WRITE, scsi_write_flags(cmd, fua(cmd)),
		   cmd->lba + cmd->walk[ORWRITE_DONE], cmd->piece.iov_len / bs, orwrite_written);
}

static void orwrite_read(struct scsi_cmd *cmd, int err)
{
	uint64_t left = cmd->blocks - cmd->walk[ORWRITE_DONE];
	uint64_t room = SCSI_SCRATCH_LEN / cmd->unit->block_size;

	(void)err;
	if (!left || scsi_was_aborted(cmd)) {
		scsi_finish(cmd);
		return;
	}
	scsi_piece(cmd, BLK_READ, 0, cmd->lba + cmd->walk[ORWRITE_DONE], left < room ? left : room,
		   orwrite_merge);
}

void orwrite_run(struct scsi_cmd *cmd)
{
	if (cmd->blocks)
		scsi_with_scratch(cmd, orwrite_read);
	else
		scsi_finish(cmd);
}
