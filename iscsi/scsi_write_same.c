// SPDX-License-Identifier: Apache-2.0
/*
 * WRITE SAME and UNMAP (SBC-4).  Zeros go to the device as such, so that thin units give
 * space back; a unit that reports LBPRZ reads zeros from what was unmapped, also where the
 * range is not aligned to what the backing can free.
 */
#include "iscsi/scsi_internal.h"

enum { WALK_DONE, WALK_LOW, WALK_HIGH };	/* walk */

/* ---- WRITE SAME ---- */

static bool is_ndob(const struct scsi_cmd *cmd)
{
	return cmd->cdb[0] == 0x93 && (cmd->cdb[1] & 0x01);
}

static bool check_unmap_bits(struct scsi_cmd *cmd)
{
	if ((cmd->cdb[1] & 0x08) && !cmd->unit->config.thin)
		return scsi_bad_field(cmd, 1, 3);	/* UNMAP */
	if (cmd->cdb[1] & 0x10)
		return scsi_bad_field(cmd, 1, 4);	/* ANCHOR: nothing can be anchored */
	return true;
}

bool write_same_begin(struct scsi_cmd *cmd)
{
	uint32_t bs = cmd->unit->block_size;

	if (!check_unmap_bits(cmd))
		return false;
	rw_decode(cmd->cdb, &cmd->lba, &cmd->blocks);
	if (!cmd->blocks)	/* WSNZ is reported */
		return scsi_bad_field(cmd, cmd->cdb[0] == 0x41 ? 7 : 10, -1);
	if (!rw_begin(cmd, true, SCSI_WRITE_SAME_MAX))
		return false;
	if (is_ndob(cmd))
		return true;
	cmd->out_want = bs;
	if (cmd->expected_out != bs) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_IU);
		return false;
	}
	cmd->out_len = bs;
	return true;
}

static void same_piece(struct scsi_cmd *cmd, int err);

static void same_written(struct scsi_cmd *cmd, int err)
{
	if (err) {
		if (err == -EIO)
			scsi_sense_info(cmd, KEY_MEDIUM_ERROR, ASC_WRITE_ERROR,
					cmd->lba + cmd->walk[WALK_DONE]);
		else
			scsi_fail_err(cmd, err);
		scsi_finish(cmd);
		return;
	}
	cmd->walk[WALK_DONE] += cmd->piece.iov_len / cmd->unit->block_size;
	same_piece(cmd, 0);
}

static void same_piece(struct scsi_cmd *cmd, int err)
{
	uint64_t left = cmd->blocks - cmd->walk[WALK_DONE];
	uint64_t room = SCSI_SCRATCH_LEN / cmd->unit->block_size;

	(void)err;
	if (!left || scsi_was_aborted(cmd)) {
		scsi_finish(cmd);
		return;
	}
	scsi_piece(cmd, BLK_WRITE, scsi_write_flags(cmd, false), cmd->lba + cmd->walk[WALK_DONE],
		   left < room ? left : room, same_written);
}

/* Fills the buffer with the block, as often as it is needed. */
static void same_fill(struct scsi_cmd *cmd, int err)
{
	uint32_t bs = cmd->unit->block_size;
	size_t len = SCSI_SCRATCH_LEN;
	uint8_t *buf = cmd->scratch;

	(void)err;
	if (cmd->blocks < len / bs)
		len = cmd->blocks * bs;
	if (cmd->out_len)
		scsi_gather(cmd, 0, buf, bs);
	else
		memset(buf, 0, bs);
	for (size_t i = bs; i < len; i += bs)
		memcpy(buf + i, buf, bs);
	same_piece(cmd, 0);
}

static void same_zeroed(struct scsi_cmd *cmd, int err)
{
	if (err == -ENOTSUP)
		scsi_with_scratch(cmd, same_fill);
	else
		scsi_finish_err(cmd, err);
}

static bool is_zero(const struct scsi_cmd *cmd)
{
	static const uint8_t zeros[4096];

	return !cmd->out_len || scsi_differs(cmd, 0, zeros, cmd->out_len) < 0;
}

/*
 * A thick unit stays allocated: zeros are written there like anything else.  Of a thin one
 * blocks that shall read as zeros are unmapped, with or without UNMAP; those that shall not
 * are written, since unmapping would not leave what was asked for.
 */
void write_same_run(struct scsi_cmd *cmd)
{
	if (cmd->unit->config.thin && is_zero(cmd))
		scsi_piece(cmd, BLK_ZERO, scsi_write_flags(cmd, false), cmd->lba, cmd->blocks,
			   same_zeroed);
	else
		scsi_with_scratch(cmd, same_fill);
}

/* ---- UNMAP ---- */

bool unmap_begin(struct scsi_cmd *cmd)
{
	if (cmd->cdb[1] & 0x01)
		return scsi_bad_field(cmd, 1, 0);	/* ANCHOR */
	scsi_want_out(cmd, get_be16(cmd->cdb + 7));
	return true;
}

static const uint8_t *descriptor(const uint8_t *list, uint64_t i)
{
	return list + 8 + i * 16;
}

static unsigned int descriptor_count(const uint8_t *list, uint32_t len)
{
	uint32_t bytes = get_be16(list + 2);

	if (bytes > len - 8)
		bytes = len - 8;
	return bytes / 16;
}

/* Every range is checked before the first is touched. */
static bool unmap_check(struct scsi_cmd *cmd, const uint8_t *list, unsigned int count)
{
	uint64_t sum = 0, low = UINT64_MAX, high = 0;

	for (unsigned int i = 0; i < count; i++) {
		const uint8_t *d = descriptor(list, i);
		uint64_t lba = get_be64(d), blocks = get_be32(d + 8);

		if (!scsi_check_range(cmd, lba, blocks))
			return false;
		sum += blocks;
		if (!blocks)
			continue;
		low = lba < low ? lba : low;
		high = lba + blocks > high ? lba + blocks : high;
	}
	if (sum > SCSI_UNMAP_BLOCKS_MAX) {
		scsi_bad_param(cmd, 8, -1);
		return false;
	}
	cmd->blocks = count;
	cmd->walk[WALK_LOW] = sum ? low : 0;
	cmd->walk[WALK_HIGH] = high;
	return true;
}

static void unmap_next(struct scsi_cmd *cmd, int err)
{
	const uint8_t *list = cmd->iov ? cmd->iov[0].iov_base : NULL, *d;

	if (err || scsi_was_aborted(cmd)) {
		scsi_finish_err(cmd, err);
		return;
	}
	do {
		if (cmd->walk[WALK_DONE] == cmd->blocks) {
			scsi_finish(cmd);
			return;
		}
		d = descriptor(list, cmd->walk[WALK_DONE]++);
	} while (!get_be32(d + 8));
	scsi_piece(cmd, BLK_ZERO, scsi_write_flags(cmd, false), get_be64(d), get_be32(d + 8),
		   unmap_next);
}

/*
 * The ranges are known only now that the data is here; the claim that was entered had none.
 * It is extended to them, so that it is kept from the blocks of an exclusive one like any
 * other write; then this runs a second time.
 */
void unmap_run(struct scsi_cmd *cmd)
{
	const uint8_t *list;
	unsigned int count;

	if (cmd->claim.writes) {	/* the second time */
		unmap_next(cmd, 0);
		return;
	}
	if (!cmd->out_len) {
		scsi_finish(cmd);
		return;
	}
	list = scsi_params(cmd, 8);
	if (!list) {
		scsi_finish(cmd);
		return;
	}
	count = descriptor_count(list, cmd->out_len);
	if (!unmap_check(cmd, list, count) || cmd->walk[WALK_LOW] == cmd->walk[WALK_HIGH])
		scsi_finish(cmd);
	else
		claim_extend(cmd, cmd->walk[WALK_LOW], cmd->walk[WALK_HIGH]);
}
