// SPDX-License-Identifier: Apache-2.0
/*
 * WRITE ATOMIC (SBC-4, 4.29 and 5.48): all of it or nothing, also through a power cut.
 *
 * Devices promise that of one sector only.  So the data goes to a third place of the state
 * file first (docs/ISCSI.md, "State file"), durably; then to its blocks, durably; then the
 * place is marked free, durably, before the command ends.  At start a place that is not free
 * is written to its blocks once more.  One at a time has the turn (scsi_state.h).
 */
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "iscsi/scsi_internal.h"

#define ATOMIC_MAGIC	"LUNATOM1"
#define ATOMIC_OFF	(2ULL * SCSI_STATE_SLOT)
#define ATOMIC_DATA	(ATOMIC_OFF + 4096)

struct atomic_disk {
	char	magic[8];	/*  0  zeros: free */
	uint8_t	naa[16];	/*  8 */
	le64	off;		/* 24  bytes, on the unit */
	le32	len;		/* 32  bytes, at ATOMIC_DATA */
	le32	data_crc;	/* 36 */
	le32	crc;		/* 40  of what precedes */
};
static_assert(sizeof(struct atomic_disk) == 44, "docs/ISCSI.md, State file");

bool write_atomic_begin(struct scsi_cmd *cmd)
{
	uint32_t bs = cmd->unit->block_size;

	if (!rw_begin(cmd, true, SCSI_ATOMIC_MAX))
		return false;
	if (!cmd->blocks)
		return true;
	cmd->claim.exclusive = cmd->claim.exclusive_reads = true;
	cmd->out_want = (uint32_t)(cmd->blocks * bs);
	if (cmd->expected_out < cmd->out_want) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_IU);
		return false;
	}
	cmd->out_len = cmd->out_want;
	return true;
}

static int write_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int mark_free(int fd)
{
	static const struct atomic_disk zero;
	int err = write_all(fd, &zero, sizeof(zero), ATOMIC_OFF);

	return err ? err : fdatasync(fd) ? -errno : 0;
}

/* In the unit's thread.  The header is valid only with all of the data: its CRC says so. */
static int keep_data(struct scsi_cmd *cmd)
{
	int fd = cmd->unit->config.state_fd, err = 0;
	uint64_t off = ATOMIC_DATA;
	struct atomic_disk d = { .magic = ATOMIC_MAGIC };
	uint32_t crc = 0;

	for (int i = 0; i < cmd->iovcnt && !err; i++) {
		const struct iovec *v = &cmd->iov[i];

		err = write_all(fd, v->iov_base, v->iov_len, off);
		crc = crc32c(crc, v->iov_base, v->iov_len);
		off += v->iov_len;
	}
	memcpy(d.naa, cmd->unit->config.naa, sizeof(d.naa));
	d.off = cpu_to_le64(cmd->lba * cmd->unit->block_size);
	d.len = cpu_to_le32(cmd->out_len);
	d.data_crc = cpu_to_le32(crc);
	d.crc = cpu_to_le32(crc32c(0, &d, offsetof(struct atomic_disk, crc)));
	if (!err)
		err = write_all(fd, &d, sizeof(d), ATOMIC_OFF);
	return err ? err : fdatasync(fd) ? -errno : 0;
}

static int drop_data(struct scsi_cmd *cmd)
{
	return mark_free(cmd->unit->config.state_fd);
}

enum { ATOMIC_RETRIED };	/* walk */

static void end(struct scsi_cmd *cmd, int err)
{
	state_release(cmd->unit);
	scsi_finish_err(cmd, err);
}

/*
 * The place could not be marked free, or the data is torn on the device: a restart writes it
 * once more, so nothing may come after it now.
 */
static void protect(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;

	log_error(lun->target->env, lun->name, "an atomic write is not finished: %s; the unit is "
		  "write-protected until it is offered anew, which finishes it", strerror(-err));
	unit_lock(lun);
	lun->config.read_only = true;
	unit_mirror_mode(lun);
	unit_unlock(lun);
	end(cmd, err);
}

static void dropped(struct scsi_cmd *cmd, int err)
{
	if (err)
		protect(cmd, err);
	else
		end(cmd, 0);
}

static void written(struct scsi_cmd *cmd, int err)
{
	if (!err) {
		state_work(cmd, drop_data, dropped);
	} else if (!cmd->walk[ATOMIC_RETRIED]) {
		cmd->walk[ATOMIC_RETRIED] = 1;
		rw_submit(cmd, BLK_WRITE, BLK_FUA, cmd->blocks, written);
	} else {
		protect(cmd, err);
	}
}

/* Nothing has happened to its blocks. */
static void refused(struct scsi_cmd *cmd, int err)
{
	if (err)
		protect(cmd, err);
	else
		end(cmd, -ENOSPC);
}

static void kept(struct scsi_cmd *cmd, int err)
{
	if (err)
		state_work(cmd, drop_data, refused);
	else
		rw_submit(cmd, BLK_WRITE, BLK_FUA, cmd->blocks, written);
}

static void my_turn(struct scsi_cmd *cmd, int err)
{
	(void)err;
	if (scsi_was_aborted(cmd)) {
		state_release(cmd->unit);
		scsi_finish(cmd);
		return;
	}
	state_work(cmd, keep_data, kept);
}

void write_atomic_run(struct scsi_cmd *cmd)
{
	if (cmd->blocks)
		state_change(cmd, my_turn);
	else
		scsi_finish(cmd);
}

/* ---- at start ---- */

static int replay(struct scsi_lun *lun, const struct atomic_disk *d, uint8_t *buf)
{
	struct blkdev *dev = lun->shards[0].dev;
	uint32_t len = le32_to_cpu(d->len);
	ssize_t n = pread(lun->config.state_fd, buf, len, ATOMIC_DATA);
	int err;

	/* Torn before it was complete: its blocks are as they were. */
	if (n != (ssize_t)len || crc32c(0, buf, len) != le32_to_cpu(d->data_crc))
		return 0;
	err = blkdev_write(dev, le64_to_cpu(d->off), buf, len);
	return err ? err : blkdev_flush(dev);
}

int atomic_recover(struct scsi_lun *lun)
{
	struct atomic_disk d = { 0 };
	uint8_t *buf;
	int err = 0;

	if (lun->config.state_fd < 0 ||
	    pread(lun->config.state_fd, &d, sizeof(d), ATOMIC_OFF) != sizeof(d) ||
	    memcmp(d.magic, ATOMIC_MAGIC, sizeof(d.magic)))
		return 0;
	if (crc32c(0, &d, offsetof(struct atomic_disk, crc)) != le32_to_cpu(d.crc) ||
	    memcmp(d.naa, lun->config.naa, sizeof(d.naa)) || le32_to_cpu(d.len) > SCSI_ATOMIC_MAX)
		return mark_free(lun->config.state_fd);
	buf = blkdev_alloc(SCSI_ATOMIC_MAX);
	if (!buf)
		return -ENOMEM;
	err = replay(lun, &d, buf);
	free(buf);
	if (err)
		log_error(lun->target->env, lun->name, "not offered: cannot finish an atomic write "
			  "that was interrupted: %s", strerror(-err));
	return err ? err : mark_free(lun->config.state_fd);
}
