/* SPDX-License-Identifier: Apache-2.0 */
/* SCSI commands of the iSCSI backend: how they look, and what their answers mean. */
#include "block/blkiscsi_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SYNCHRONIZE_CACHE_10	0x35
#define UNMAP			0x42
#define READ_16			0x88
#define COMPARE_AND_WRITE	0x89
#define WRITE_16		0x8a
#define WRITE_SAME_16		0x93
#define FUA			0x08	/* byte 1 of READ, WRITE, COMPARE AND WRITE */
#define SAME_UNMAP		0x08	/* byte 1 of WRITE SAME */

#define MARK_EVERY	512u	/* bytes of a read: no sector is smaller */

#define PAUSE_BUSY_NS	(20 * NSEC_PER_MSEC)
#define PAUSE_READY_NS	(500 * NSEC_PER_MSEC)
#define LOG_NS		(10 * NSEC_PER_SEC)

/* ---- building ---- */

static void set_task(struct ini_cmd *cmd, int cdb_size, int dir, uint64_t len)
{
	struct scsi_task *task = &cmd->task;

	task->cdb_size = cdb_size;
	task->xfer_dir = dir;
	task->expxferlen = (int)len;
	/* struct scsi_iovec is struct iovec, says its header. */
	if (dir == SCSI_XFER_READ)
		scsi_task_set_iov_in(task, (struct scsi_iovec *)(void *)cmd->iov, cmd->iovcnt);
	else if (dir == SCSI_XFER_WRITE)
		scsi_task_set_iov_out(task, (struct scsi_iovec *)(void *)cmd->iov, cmd->iovcnt);
}

/* READ, WRITE, COMPARE AND WRITE and WRITE SAME of 16 bytes have LBA and count alike. */
static void set_range(struct ini_cmd *cmd, uint8_t opcode, uint8_t flags)
{
	uint32_t sector = cmd->path->d->dev.info.sector;
	uint8_t *cdb = cmd->task.cdb;

	cdb[0] = opcode;
	cdb[1] = flags;
	put_be64(cdb + 2, cmd->off / sector);
	put_be32(cdb + 10, cmd->len / sector);
}

static void build_sync(struct ini_cmd *cmd)
{
	cmd->task.cdb[0] = SYNCHRONIZE_CACHE_10;	/* 0, 0: all of the medium */
	set_task(cmd, 10, SCSI_XFER_NONE, 0);
}

static void build_unmap(struct ini_cmd *cmd)
{
	uint32_t sector = cmd->path->d->dev.info.sector;

	memset(cmd->param, 0, sizeof(cmd->param));
	put_be16(cmd->param, sizeof(cmd->param) - 2);
	put_be16(cmd->param + 2, 16);
	put_be64(cmd->param + 8, cmd->off / sector);
	put_be32(cmd->param + 16, cmd->len / sector);
	cmd->iov[0] = (struct iovec){ .iov_base = cmd->param, .iov_len = sizeof(cmd->param) };
	cmd->iovcnt = 1;
	cmd->task.cdb[0] = UNMAP;
	put_be16(cmd->task.cdb + 7, sizeof(cmd->param));
	set_task(cmd, 10, SCSI_XFER_WRITE, sizeof(cmd->param));
}

static void build_zero(struct ini_cmd *cmd)
{
	static const uint8_t zeros[4096];
	const struct ini_dev *d = cmd->path->d;

	cmd->iov[0] = (struct iovec){ .iov_base = (void *)(uintptr_t)zeros,
				      .iov_len = d->dev.info.sector };
	cmd->iovcnt = 1;
	set_range(cmd, WRITE_SAME_16, d->limits.same_unmap ? SAME_UNMAP : 0);
	set_task(cmd, 16, SCSI_XFER_WRITE, d->dev.info.sector);
}

static void build_caw(struct ini_cmd *cmd)
{
	const struct ini_dev *d = cmd->path->d;

	set_range(cmd, COMPARE_AND_WRITE, d->limits.wce && d->limits.fua ? FUA : 0);
	put_be32(cmd->task.cdb + 10, 0);
	cmd->task.cdb[13] = 1;
	set_task(cmd, 16, SCSI_XFER_WRITE, 2 * cmd->len);
}

/* Whether a write of @io is to be durable by itself. */
static bool write_wants_fua(const struct ini_dev *d, const struct blk_io *io)
{
	return d->limits.wce && d->limits.fua &&
	       (d->t.durable == BLKISCSI_DURABLE_WRITE || (io->flags & BLK_FUA));
}

void ini_cmd_build_io(struct ini_cmd *cmd)
{
	const struct ini_dev *d = cmd->path->d;

	memset(&cmd->task, 0, sizeof(cmd->task));
	if (cmd->phase == INI_SYNC) {
		build_sync(cmd);
		return;
	}
	switch (cmd->io->op) {
	case BLK_READ:
		set_range(cmd, READ_16, 0);
		set_task(cmd, 16, SCSI_XFER_READ, cmd->len);
		break;
	case BLK_WRITE:
		set_range(cmd, WRITE_16, write_wants_fua(d, cmd->io) ? FUA : 0);
		set_task(cmd, 16, SCSI_XFER_WRITE, cmd->len);
		break;
	case BLK_FLUSH:
		build_sync(cmd);
		break;
	case BLK_DISCARD:
		build_unmap(cmd);
		break;
	case BLK_ZERO:
		build_zero(cmd);
		break;
	case BLK_CAW:
		build_caw(cmd);
		break;
	}
}

void ini_cmd_build_admin(struct ini_cmd *cmd)
{
	const struct ini_admin *a = cmd->admin;

	memset(&cmd->task, 0, sizeof(cmd->task));
	memcpy(cmd->task.cdb, a->cdb, sizeof(a->cdb));
	cmd->iov[0] = (struct iovec){ .iov_base = a->buf, .iov_len = a->len };
	cmd->iovcnt = 1;
	set_task(cmd, a->cdb_size, !a->len ? SCSI_XFER_NONE : a->out ? SCSI_XFER_WRITE :
		 SCSI_XFER_READ, a->len);
}

/* ---- data that did not come ---- */

/*
 * Nobody counts what arrives of a read: a target that answers GOOD, has sent less than was asked
 * for and says nothing of it would have what lay in the buffer taken for data.  So each sector of
 * the buffer begins with a number that nothing else can know before the data is there.
 * Return: whether one does still; @put: writes them.
 */
static bool marks(struct ini_cmd *cmd, bool put)
{
	uint64_t at = 0, found;

	for (int i = 0; i < cmd->iovcnt; i++) {
		uint8_t *p = cmd->iov[i].iov_base;
		uint64_t len = cmd->iov[i].iov_len, off = ALIGN_UP(at, MARK_EVERY) - at;

		for (; off + sizeof(found) <= len; off += MARK_EVERY) {
			if (put) {
				memcpy(p + off, &cmd->mark, sizeof(found));
				continue;
			}
			memcpy(&found, p + off, sizeof(found));
			if (found == cmd->mark)
				return true;
		}
		at += len;
	}
	return false;
}

static bool is_read(const struct ini_cmd *cmd)
{
	return cmd->io && cmd->io->op == BLK_READ;
}

static void put_marks(struct ini_cmd *cmd)
{
	/* By an odd constant: all differ from each other, and by the random start from any data. */
	cmd->path->d->mark += 0x9e3779b97f4a7c15u;
	cmd->mark = cmd->path->d->mark;
	marks(cmd, true);
}

/* ---- sending ---- */

static void cmd_answer(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_cmd *cmd = arg;
	struct ini_path *p = cmd->path;
	uint64_t pause_ns = 0;
	int err;

	(void)data;
	if (p->dropping)
		return;
	/* libiscsi gave up on the connection: what became of the command nobody knows. */
	if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR ||
	    status == SCSI_STATUS_TIMEOUT) {
		p->failed = true;
		return;
	}
	/* It stays libiscsi's last error, and is no reason for what happens to the path later. */
	if (status != SCSI_STATUS_GOOD)
		snprintf(p->said, sizeof(p->said), "%s", iscsi_get_error(ctx));
	list_del(&cmd->node);
	p->active_count--;
	err = ini_judge(p->d, cmd, status, &pause_ns);
	free(cmd->task.datain.data);	/* sense data, if anything */
	cmd->task.datain.data = NULL;
	ini_cmd_answered(p->d, cmd, err, pause_ns);
}

void ini_cmd_send(struct ini_cmd *cmd, struct ini_path *p)
{
	cmd->path = p;
	if (cmd->admin)
		ini_cmd_build_admin(cmd);
	else
		ini_cmd_build_io(cmd);
	if (is_read(cmd))
		put_marks(cmd);
	cmd->sent_ns = ini_now(p->d);
	list_add_tail(&p->active, &cmd->node);
	if (!p->active_count++)
		p->rx_ns = cmd->sent_ns;
	/* Fails for want of memory, or because the session is gone: both end the path. */
	if (iscsi_scsi_command_async(p->ctx, (int)p->d->t.lun, &cmd->task, cmd_answer, NULL, cmd))
		p->failed = true;
}

/* ---- judging ---- */

static void log_medium(struct ini_dev *d, const struct ini_cmd *cmd,
		       const struct lu_sense *s)
{
	uint64_t now = ini_now(d);
	uint64_t lba = s->has_lba ? s->lba : d->dev.info.sector ? cmd->off / d->dev.info.sector : 0;

	if (now < d->medium_log_ns)
		return;
	d->medium_log_ns = now + LOG_NS;
	log_error(d->dev.env, d->t.name, "%s at LBA %llu%s (command %02xh, sense %xh/%04xh): see to "
		  "the target's disks", s->key == 3 ? "MEDIUM ERROR" : s->key == 4 ? "HARDWARE ERROR" :
		  "error", (unsigned long long)lba, s->has_lba ? "" : " or after", cmd->task.cdb[0],
		  s->key, s->asc);
}

bool ini_tells_of_change(uint16_t asc)
{
	return asc == 0x2800 ||		/* MEDIUM MAY HAVE CHANGED */
	       asc == 0x2a09 ||		/* CAPACITY DATA HAS CHANGED: perhaps the block size too */
	       asc == 0x3f03 ||		/* INQUIRY DATA HAS CHANGED */
	       asc == 0x3f05 ||		/* DEVICE IDENTIFIER CHANGED */
	       asc == 0x3f0e;		/* REPORTED LUNS DATA HAS CHANGED */
}

/* Unit attentions tell of events; the command itself was not executed (SAM-5, 5.14). */
static int judge_attention(struct ini_dev *d, struct ini_cmd *cmd, const struct lu_sense *s)
{
	cmd->path->suspect |= ini_tells_of_change(s->asc);
	switch (s->asc) {
	case 0x2a03:	/* RESERVATIONS PREEMPTED */
	case 0x2a05:	/* REGISTRATIONS PREEMPTED: the next write would conflict */
		return -EBADE;
	case 0x2900: case 0x2901: case 0x2902: case 0x2903: case 0x2904: case 0x2907:
		ini_session_lost(d);
		return 1;
	case 0x2a09:	/* CAPACITY DATA HAS CHANGED */
		log_info(d->dev.env, d->t.name, "the LUN's size has changed");
		return 1;
	default:
		return 1;
	}
}

static int judge_illegal(const struct ini_cmd *cmd, const struct lu_sense *s)
{
	bool optional = cmd->io && (cmd->io->op == BLK_DISCARD || cmd->io->op == BLK_ZERO ||
				    cmd->io->op == BLK_CAW);

	if (s->asc == 0x2000 || (optional && (s->asc == 0x2400 || s->asc == 0x2600)))
		return -ENOTSUP;
	return cmd->admin ? -EINVAL : -EIO;	/* LBA out of range: the device has shrunk */
}

static int judge_sense(struct ini_dev *d, struct ini_cmd *cmd, uint64_t *pause_ns)
{
	const struct scsi_data *raw = &cmd->task.datain;
	bool caw = cmd->io && cmd->io->op == BLK_CAW && cmd->phase == INI_DO;
	struct lu_sense s;

	/* Two bytes of SenseLength come first (RFC 7143, 11.4.7.2). */
	if (!raw->data || raw->size < 2 || !lu_sense(raw->data + 2, (size_t)raw->size - 2, &s))
		return -EIO;
	switch (s.key) {
	case 0x0: case 0x1:	/* NO SENSE, RECOVERED ERROR: done, but did all data come? */
		return cmd->task.xfer_dir == SCSI_XFER_READ;
	case 0x2:		/* NOT READY */
		*pause_ns = PAUSE_READY_NS;
		return s.asc >> 8 == 0x04 ? 1 : -EIO;
	case 0x5:
		return judge_illegal(cmd, &s);
	case 0x6:
		return judge_attention(d, cmd, &s);
	case 0x7:		/* DATA PROTECT; 27h/07h SPACE ALLOCATION FAILED WRITE PROTECT */
		return s.asc == 0x2707 ? -ENOSPC : -EROFS;
	case 0xb:		/* ABORTED COMMAND: some of it may have been done */
		*pause_ns = PAUSE_BUSY_NS;
		return caw ? -EIO : 1;
	case 0xd:		/* VOLUME OVERFLOW */
		return -ENOSPC;
	case 0xe:		/* MISCOMPARE */
		return caw ? -EILSEQ : -EIO;
	default:
		log_medium(d, cmd, &s);
		return -EIO;
	}
}

/* More or less was moved than the blocks that were meant have: these were not read, or written. */
static bool moved_otherwise(const struct ini_cmd *cmd)
{
	return cmd->io && cmd->phase == INI_DO &&
	       (cmd->io->op == BLK_READ || cmd->io->op == BLK_WRITE) &&
	       cmd->task.residual_status != SCSI_RESIDUAL_NO_RESIDUAL && cmd->task.residual;
}

int ini_judge(struct ini_dev *d, struct ini_cmd *cmd, int status, uint64_t *pause_ns)
{
	bool caw = cmd->io && cmd->io->op == BLK_CAW && cmd->phase == INI_DO;

	switch (status) {
	case SCSI_STATUS_GOOD:
		if (moved_otherwise(cmd))
			return -EIO;
		return is_read(cmd) && marks(cmd, false);	/* again, if not all has come */
	case SCSI_STATUS_CONDITION_MET:
		return 0;
	case SCSI_STATUS_CHECK_CONDITION:
		return judge_sense(d, cmd, pause_ns);
	case SCSI_STATUS_RESERVATION_CONFLICT:
		return -EBADE;
	case SCSI_STATUS_BUSY:
	case SCSI_STATUS_TASK_SET_FULL:
		*pause_ns = PAUSE_BUSY_NS;
		return caw ? -EBUSY : 1;
	case SCSI_STATUS_TASK_ABORTED:
		*pause_ns = PAUSE_BUSY_NS;
		return caw ? -EIO : 1;
	default:
		return -EIO;
	}
}
