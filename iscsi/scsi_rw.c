// SPDX-License-Identifier: Apache-2.0
/* READ, WRITE, SYNCHRONIZE CACHE, PRE-FETCH (SBC-4). */
#include "iscsi/scsi_internal.h"

/* Where LBA and length lie in a CDB follows from its length. */
void rw_decode(const uint8_t *cdb, uint64_t *lba, uint64_t *blocks)
{
	switch (cdb[0] >> 5) {
	case 0:		/* 6 bytes: no blocks means 256 */
		*lba = get_be24(cdb + 1) & 0x1fffff;
		*blocks = cdb[4] ? cdb[4] : 256;
		break;
	case 1:
	case 2:
		*lba = get_be32(cdb + 2);
		*blocks = get_be16(cdb + 7);
		break;
	case 5:
		*lba = get_be32(cdb + 2);
		*blocks = get_be32(cdb + 6);
		break;
	case 3:		/* variable length: 32 bytes */
		*lba = get_be64(cdb + 12);
		*blocks = get_be32(cdb + 28);
		break;
	default:
		*lba = get_be64(cdb + 2);
		*blocks = get_be32(cdb + 10);
		break;
	}
}

/* The first byte of the transfer length, for the sense data. */
static unsigned int length_field(const uint8_t *cdb)
{
	static const uint8_t at[8] = { 4, 7, 7, 28, 10, 6, 10, 10 };

	return at[cdb[0] >> 5];
}

bool rw_begin(struct scsi_cmd *cmd, bool writes, uint64_t bytes_max)
{
	rw_decode(cmd->cdb, &cmd->lba, &cmd->blocks);
	if (!scsi_check_range(cmd, cmd->lba, cmd->blocks))
		return false;
	if (cmd->blocks * cmd->unit->block_size > bytes_max)
		return scsi_bad_field(cmd, length_field(cmd->cdb), -1);
	cmd->claim.lba = cmd->lba;
	cmd->claim.end = cmd->lba + cmd->blocks;
	cmd->claim.writes = writes;
	return true;
}

void rw_submit(struct scsi_cmd *cmd, enum blk_op op, unsigned int flags, uint64_t blocks,
	       void (*next)(struct scsi_cmd *cmd, int err))
{
	uint32_t bs = cmd->unit->block_size;

	cmd->io.op = op;
	cmd->io.flags = flags;
	cmd->io.off = cmd->lba * bs;
	cmd->io.len = blocks * bs;
	cmd->io.iov = cmd->iov;
	cmd->io.iovcnt = cmd->iovcnt;
	scsi_submit(cmd, next);
}

static bool has_fua(const struct scsi_cmd *cmd)
{
	unsigned int byte = cmd->cdb[0] == 0x7f ? 10 : 1;

	return cmd->cdb[0] >> 5 && (cmd->cdb[byte] & 0x08);
}

/* ---- READ ---- */

bool read_begin(struct scsi_cmd *cmd)
{
	if (!rw_begin(cmd, false, SCSI_TRANSFER_MAX))
		return false;
	scsi_want_in(cmd, cmd->blocks * cmd->unit->block_size);
	return true;
}

static void read_done(struct scsi_cmd *cmd, int err)
{
	if (err) {
		scsi_locate(cmd, false, err);
		return;
	}
	cmd->in_len = cmd->in_max;
	scsi_finish(cmd);
}

/*
 * Fewer bytes may be asked for than the CDB names (residual overflow): then only the blocks
 * that they lie in are read, whole, into the room behind the buffer.
 */
void read_run(struct scsi_cmd *cmd)
{
	uint32_t bs = cmd->unit->block_size;
	uint64_t blocks = DIV_ROUND_UP((uint64_t)cmd->in_max, bs);

	cmd->in_want = (uint32_t)(cmd->blocks * bs);
	if (!blocks) {
		scsi_finish(cmd);
		return;
	}
	cmd->pad = (int32_t)(blocks * bs - cmd->in_max);
	cmd->iov[cmd->iovcnt - 1].iov_len += (size_t)cmd->pad;
	rw_submit(cmd, BLK_READ, 0, blocks, read_done);
}

/* ---- WRITE ---- */

bool write_begin(struct scsi_cmd *cmd)
{
	if (!rw_begin(cmd, true, SCSI_TRANSFER_MAX))
		return false;
	scsi_want_out(cmd, cmd->blocks * cmd->unit->block_size);
	return true;
}

static void write_done(struct scsi_cmd *cmd, int err)
{
	if (err)
		scsi_locate(cmd, true, err);
	else
		scsi_finish(cmd);
}

/* Of data that ends within a block only the whole blocks are written. */
uint64_t rw_trim(struct scsi_cmd *cmd)
{
	uint32_t bs = cmd->unit->block_size;
	uint32_t excess = cmd->out_len % bs;

	/* All pieces but the last are multiples of 4096: the rest lies in that one. */
	if (excess) {
		cmd->iov[cmd->iovcnt - 1].iov_len -= excess;
		cmd->pad = -(int32_t)excess;
	}
	return cmd->out_len / bs;
}

void write_run(struct scsi_cmd *cmd)
{
	uint64_t blocks = rw_trim(cmd);

	if (!blocks) {
		scsi_finish(cmd);
		return;
	}
	rw_submit(cmd, BLK_WRITE, scsi_write_flags(cmd, has_fua(cmd)), blocks, write_done);
}

/* ---- which block it was ---- */

enum { LOCATE_LBA, LOCATE_LEN, LOCATE_ERR, LOCATE_WRITE };

static void locate_next(struct scsi_cmd *cmd, int err);

/* Halves of what failed, down to one block: the first bad one is always in [lba, +len). */
static void locate_try(struct scsi_cmd *cmd, int err)
{
	uint64_t *w = cmd->walk, half = w[LOCATE_LEN] / 2;
	uint32_t bs = cmd->unit->block_size;

	(void)err;
	if (!half) {
		bool write = w[LOCATE_WRITE];

		scsi_sense_info(cmd, KEY_MEDIUM_ERROR,
				write ? ASC_WRITE_ERROR : ASC_UNRECOVERED_READ_ERROR, w[LOCATE_LBA]);
		scsi_finish(cmd);
		return;
	}
	/* Longer than the buffer: looked at piece by piece. */
	if (half > SCSI_SCRATCH_LEN / bs)
		half = SCSI_SCRATCH_LEN / bs;
	if (w[LOCATE_WRITE])
		scsi_gather(cmd, (w[LOCATE_LBA] - cmd->lba) * bs, cmd->scratch, half * bs);
	scsi_piece(cmd, w[LOCATE_WRITE] ? BLK_WRITE : BLK_READ,
		   w[LOCATE_WRITE] ? scsi_write_flags(cmd, has_fua(cmd)) : 0, w[LOCATE_LBA], half,
		   locate_next);
}

static void locate_next(struct scsi_cmd *cmd, int err)
{
	uint64_t *w = cmd->walk, tried = cmd->piece.iov_len / cmd->unit->block_size;

	if (err) {
		w[LOCATE_LEN] = tried;
	} else {
		w[LOCATE_LBA] += tried;
		w[LOCATE_LEN] -= tried;
	}
	locate_try(cmd, 0);
}

/*
 * The device says only that a transfer failed; the initiator is told which block, so that it
 * can put the rest elsewhere.  The same data may be written once more: the command still runs.
 */
void scsi_locate(struct scsi_cmd *cmd, bool write, int err)
{
	uint64_t *w = cmd->walk;

	if (err != -EIO || scsi_was_aborted(cmd)) {
		scsi_finish_err(cmd, err);
		return;
	}
	w[LOCATE_LBA] = cmd->lba;
	w[LOCATE_LEN] = cmd->io.len / cmd->unit->block_size;
	w[LOCATE_WRITE] = write;
	scsi_with_scratch(cmd, locate_try);
}

/* ---- SYNCHRONIZE CACHE ---- */

/* IMMED is not made use of: a status that means "durable" is worth the wait. */
bool sync_begin(struct scsi_cmd *cmd)
{
	uint64_t lba, blocks;

	rw_decode(cmd->cdb, &lba, &blocks);
	return scsi_check_range(cmd, lba, blocks);
}

/*
 * A flush that failed cannot be repeated with any meaning: what it should have made durable
 * may be gone (R7).  All who may have written hear of it once, at their next SYNCHRONIZE CACHE.
 */
static void tell_all_of_loss(struct scsi_lun *lun)
{
	struct scsi_target *t = lun->target;
	struct scsi_nexus *n, *tmp;

	env_mutex_lock(t->env, &t->mutex);
	list_for_each(n, tmp, &t->nexuses, node)
		atomic_store(&n->itl[lun->number].lost, true);
	env_mutex_unlock(t->env, &t->mutex);
}

static void sync_done(struct scsi_cmd *cmd, int err)
{
	struct scsi_itl *itl = scsi_itl(cmd);

	if (err) {
		log_error(cmd->unit->target->env, cmd->unit->name, "a flush failed: %s: writes that "
			  "were acknowledged may be lost; initiators are told", strerror(-err));
		tell_all_of_loss(cmd->unit);
	}
	if (atomic_exchange(&itl->lost, false) && !err)
		err = -EIO;
	scsi_finish_err(cmd, err);
}

void sync_run(struct scsi_cmd *cmd)
{
	cmd->io.op = BLK_FLUSH;
	cmd->io.flags = 0;
	cmd->io.off = cmd->io.len = 0;
	cmd->io.iov = NULL;
	cmd->io.iovcnt = 0;
	scsi_submit(cmd, sync_done);
}

/* ---- PRE-FETCH ---- */

bool prefetch_begin(struct scsi_cmd *cmd)
{
	rw_decode(cmd->cdb, &cmd->lba, &cmd->blocks);
	return scsi_check_range(cmd, cmd->lba, cmd->blocks);
}

/* There is no cache of ours that could be filled: GOOD says "not all of it fits". */
void prefetch_run(struct scsi_cmd *cmd)
{
	scsi_finish(cmd);
}
