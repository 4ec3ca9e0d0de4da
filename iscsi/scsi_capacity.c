// SPDX-License-Identifier: Apache-2.0
/* READ CAPACITY, GET LBA STATUS, READ DEFECT DATA (SBC-4). */
#include "iscsi/scsi_internal.h"

/* ---- READ CAPACITY ---- */

bool capacity10_begin(struct scsi_cmd *cmd)
{
	/* Without PMI, an LBA has no meaning (SBC-3, 5.15). */
	if (!(cmd->cdb[8] & 0x01) && get_be32(cmd->cdb + 2))
		return scsi_bad_field(cmd, 2, -1);
	scsi_want_reply(cmd, 8);
	return true;
}

void capacity10_run(struct scsi_cmd *cmd)
{
	uint64_t last = atomic_load(&cmd->unit->blocks) - 1;
	uint8_t data[8];

	put_be32(data, last > UINT32_MAX ? UINT32_MAX : last);
	put_be32(data + 4, cmd->unit->block_size);
	scsi_reply(cmd, data, sizeof(data), sizeof(data));
	scsi_finish(cmd);
}

bool capacity16_begin(struct scsi_cmd *cmd)
{
	scsi_want_reply(cmd, get_be32(cmd->cdb + 10));
	return true;
}

void capacity16_run(struct scsi_cmd *cmd)
{
	const struct scsi_lun *lun = cmd->unit;
	uint8_t data[32] = { 0 };

	put_be64(data, atomic_load(&lun->blocks) - 1);
	put_be32(data + 8, lun->block_size);
	data[13] = (uint8_t)lun_physical_exponent(lun);
	if (lun->config.thin)
		data[14] = 0x80 | 0x40;		/* LBPME, LBPRZ */
	scsi_reply(cmd, data, sizeof(data), get_be32(cmd->cdb + 10));
	scsi_finish(cmd);
}

/* ---- GET LBA STATUS ---- */

enum { LBA_STATUS_MAX = 255 };	/* descriptors of one answer */

bool lba_status_begin(struct scsi_cmd *cmd)
{
	uint32_t alloc = get_be32(cmd->cdb + 10);

	cmd->lba = get_be64(cmd->cdb + 2);
	if (cmd->lba >= atomic_load(&cmd->unit->blocks)) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
		return false;
	}
	scsi_want_reply(cmd, alloc);
	return true;
}

/* One extent of the backing, in blocks: a block is mapped if any byte of it is. */
static uint64_t extent(struct scsi_cmd *cmd, uint64_t lba, bool *mapped)
{
	struct scsi_lun *lun = cmd->unit;
	uint64_t bs = lun->block_size, size = atomic_load(&lun->blocks), len = 0, blocks;

	*mapped = true;
	if (!lun->config.thin ||
	    blkdev_extent(cmd->claim.shard->dev, lba * bs, &len, mapped) || !len)
		return size - lba;
	blocks = *mapped ? DIV_ROUND_UP(len, bs) : len / bs;
	if (!blocks) {	/* a hole that begins here ends within the block */
		*mapped = true;
		blocks = 1;
	}
	return blocks < size - lba ? blocks : size - lba;
}

/* In the unit's thread: the backing may have to look into its own metadata. */
static int lba_status_work(struct scsi_cmd *cmd)
{
	uint64_t size = atomic_load(&cmd->unit->blocks), lba = cmd->lba;
	uint32_t alloc = get_be32(cmd->cdb + 10);
	uint8_t data[8 + 16 * LBA_STATUS_MAX] = { 0 };
	unsigned int count = 0, room;

	room = alloc < 24 ? 1 : (alloc - 8) / 16;
	if (room > LBA_STATUS_MAX)
		room = LBA_STATUS_MAX;
	while (count < room && lba < size) {
		uint8_t *d = data + 8 + 16 * count;
		bool mapped, more = false;
		uint64_t blocks = extent(cmd, lba, &mapped);

		/* Neighbours of one kind are one descriptor. */
		while (lba + blocks < size && blocks < UINT32_MAX) {
			uint64_t next = extent(cmd, lba + blocks, &more);

			if (more != mapped)
				break;
			blocks += next;
		}
		if (blocks > UINT32_MAX)
			blocks = UINT32_MAX;
		put_be64(d, lba);
		put_be32(d + 8, blocks);
		d[12] = mapped ? 0 : 1;		/* mapped or unknown; deallocated */
		lba += blocks;
		count++;
	}
	put_be32(data, 4 + 16 * count);
	scsi_reply(cmd, data, 8 + 16 * count, alloc);
	return 0;
}

static void lba_status_done(struct scsi_cmd *cmd, int err)
{
	scsi_finish_err(cmd, err);
}

void lba_status_run(struct scsi_cmd *cmd)
{
	state_work(cmd, lba_status_work, lba_status_done);
}

/* ---- READ DEFECT DATA ---- */

/* No list of defects is kept: the header alone, and the format as asked for. */
bool defects_begin(struct scsi_cmd *cmd)
{
	const uint8_t *cdb = cmd->cdb;

	scsi_want_reply(cmd, cdb[0] == 0x37 ? get_be16(cdb + 7) : get_be32(cdb + 6));
	return true;
}

void defects_run(struct scsi_cmd *cmd)
{
	const uint8_t *cdb = cmd->cdb;
	uint8_t data[8] = { 0 };

	if (cdb[0] == 0x37) {
		data[1] = cdb[2] & 0x1f;	/* PLIST, GLIST, format */
		scsi_reply(cmd, data, 4, get_be16(cdb + 7));
	} else {
		data[1] = cdb[1] & 0x1f;
		scsi_reply(cmd, data, 8, get_be32(cdb + 6));
	}
	scsi_finish(cmd);
}
