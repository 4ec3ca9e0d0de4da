/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkscsi.h"

#include <errno.h>
#include <linux/pr.h>
#include <scsi/sg.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/bytes.h"
#include "block/blkscsi_internal.h"

#define FUA		0x08	/* byte 1 of COMPARE AND WRITE */
#define SENSE_SIZE	64
#define TRIES		8u	/* of what met a unit attention or a busy target */
#define PAUSE_NS	(20 * 1000 * 1000)
#define TIMEOUT_MS	30000u

/* Status bytes, SAM-5, 5.3. */
enum { GOOD = 0x00, CHECK_CONDITION = 0x02, BUSY = 0x08, CONFLICT = 0x18, TASK_SET_FULL = 0x28 };
#define STATUS_MASK	0x3e
/* host_status, include/scsi/scsi_status.h of the kernel. */
enum { DID_OK = 0, DID_TIME_OUT = 3 };

/* ---- SG_IO ---- */

static int judge_sense(const uint8_t *sense, size_t len)
{
	struct lu_sense s;

	if (!lu_sense(sense, len, &s))
		return -EIO;
	switch (s.key) {
	case 0x0: case 0x1:	/* NO SENSE, RECOVERED ERROR */
		return 0;
	case 0x5:		/* ILLEGAL REQUEST */
		return s.asc == 0x2000 ? -ENOTSUP : -EINVAL;
	case 0x6:		/* UNIT ATTENTION: not executed (SAM-5, 5.14) */
		return -EAGAIN;
	case 0x7:		/* DATA PROTECT */
		return s.asc == 0x2707 ? -ENOSPC : -EROFS;
	case 0xe:		/* MISCOMPARE */
		return -EILSEQ;
	default:
		return -EIO;
	}
}

/*
 * Return: 0; -EAGAIN not executed, ask again; -ETIMEDOUT, -EIO the command may have been executed or
 * may still be; others as judge_sense() says.
 */
static int sg_judge(const struct sg_io_hdr *h, const uint8_t *sense)
{
	/* Older kernels say so in host_status as well. */
	if ((h->status & STATUS_MASK) == CONFLICT)
		return -EBADE;
	if (h->host_status == DID_TIME_OUT)
		return -ETIMEDOUT;
	if (h->host_status != DID_OK)
		return -EIO;
	switch (h->status & STATUS_MASK) {
	case GOOD:
		return 0;
	case CHECK_CONDITION:
		return judge_sense(sense, h->sb_len_wr);
	case BUSY:
	case TASK_SET_FULL:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static void pause_briefly(void)
{
	struct timespec t = { .tv_nsec = PAUSE_NS };

	nanosleep(&t, NULL);
}

/* @not_tried: what to say when it was never executed. */
static int sg_run(int fd, uint32_t timeout_ms, struct lu_cmd *cmd, int not_tried)
{
	uint8_t sense[SENSE_SIZE] = { 0 };
	struct sg_io_hdr h;
	int err = -EAGAIN;

	for (unsigned int i = 0; i < TRIES && err == -EAGAIN; i++) {
		if (i)
			pause_briefly();
		memset(&h, 0, sizeof(h));
		h.interface_id = 'S';
		h.dxfer_direction = !cmd->len ? SG_DXFER_NONE : cmd->out ? SG_DXFER_TO_DEV :
				    SG_DXFER_FROM_DEV;
		h.cmd_len = (unsigned char)cmd->cdb_size;
		h.cmdp = cmd->cdb;
		h.mx_sb_len = sizeof(sense);
		h.sbp = sense;
		h.dxfer_len = cmd->len;
		h.dxferp = cmd->buf;
		h.timeout = timeout_ms ? timeout_ms : TIMEOUT_MS;
		if (ioctl(fd, SG_IO, &h))
			return errno == EINTR ? -EIO : -errno;
		err = sg_judge(&h, sense);
	}
	cmd->got = cmd->len - (h.resid > 0 && (uint32_t)h.resid <= cmd->len ? (uint32_t)h.resid : 0);
	return err == -EAGAIN ? not_tried : err;
}

static int lu_run(struct lu *lu, struct lu_cmd *cmd)
{
	const struct scsi_lu *s = container_of(lu, struct scsi_lu, lu);

	return sg_run(s->fd, s->timeout_ms, cmd, -EIO);
}

struct scsi_lu scsi_lu(int fd, uint32_t timeout_ms)
{
	return (struct scsi_lu){ .lu.run = lu_run, .fd = fd, .timeout_ms = timeout_ms };
}

/* ---- requests ---- */

static int caw(int fd, const struct blkscsi *s, const struct blkscsi_request *rq)
{
	struct lu_cmd cmd = { .cdb = { LU_COMPARE_AND_WRITE, s->fua ? FUA : 0 }, .cdb_size = 16,
			      .out = true, .buf = (void *)(uintptr_t)rq->data, .len = 2 * rq->sector };
	int err;

	put_be64(cmd.cdb + 2, rq->off / rq->sector);
	cmd.cdb[13] = 1;
	err = sg_run(fd, s->timeout_ms, &cmd, -EBUSY);
	return err == -EINVAL ? -EIO : err;
}

/*
 * The kernel returns what the command came to (sd_pr_command()): the status is its lowest byte, above it
 * is what else went wrong.  Whatever is unclear, the caller reads keys and reservation.
 */
static int pr_ioctl(int fd, unsigned long request, void *arg)
{
	int ret = CHECK_CONDITION;

	/* A unit attention is not retried by the kernel; it looks like any other refusal. */
	for (unsigned int i = 0; i < TRIES && (ret & STATUS_MASK) == CHECK_CONDITION; i++) {
		ret = ioctl(fd, request, arg);
		if (ret < 0)
			return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
	}
	return ret == 0 ? 0 : (ret & STATUS_MASK) == CONFLICT ? -EBADE : -EIO;
}

static int pr_register(int fd, const struct blkscsi_request *rq, uint32_t flags)
{
	struct pr_registration r = { .old_key = rq->key, .new_key = rq->other, .flags = flags };

	return pr_ioctl(fd, IOC_PR_REGISTER, &r);
}

static int pr_reserve(int fd, const struct blkscsi_request *rq)
{
	struct pr_reservation r = { .key = rq->key, .type = PR_WRITE_EXCLUSIVE_ALL_REGS };

	return pr_ioctl(fd, IOC_PR_RESERVE, &r);
}

static int pr_preempt_abort(int fd, const struct blkscsi_request *rq)
{
	struct pr_preempt r = { .old_key = rq->key, .new_key = rq->other,
				.type = PR_WRITE_EXCLUSIVE_ALL_REGS };

	return pr_ioctl(fd, IOC_PR_PREEMPT_ABORT, &r);
}

static int pr_clear(int fd, const struct blkscsi_request *rq)
{
	struct pr_clear r = { .key = rq->key };

	return pr_ioctl(fd, IOC_PR_CLEAR, &r);
}

static int reset(int fd)
{
	int what = SG_SCSI_RESET_DEVICE;

	return ioctl(fd, SG_SCSI_RESET, &what) ? -errno : 0;
}

void blkscsi_execute(int fd, const struct blkscsi *s, const struct blkscsi_request *rq,
		     struct blkscsi_reply *reply)
{
	struct scsi_lu lu = scsi_lu(fd, s->timeout_ms);

	memset(reply, 0, sizeof(*reply));
	switch (rq->op) {
	case BLKSCSI_CAW:
		reply->err = caw(fd, s, rq);
		break;
	case BLKSCSI_REGISTER:
		reply->err = pr_register(fd, rq, 0);
		break;
	case BLKSCSI_REGISTER_IGNORE:
		reply->err = pr_register(fd, rq, PR_FL_IGNORE_KEY);
		break;
	case BLKSCSI_RESERVE:
		reply->err = pr_reserve(fd, rq);
		break;
	case BLKSCSI_PREEMPT_ABORT:
		reply->err = pr_preempt_abort(fd, rq);
		break;
	case BLKSCSI_CLEAR:
		reply->err = pr_clear(fd, rq);
		break;
	case BLKSCSI_READ:
		reply->err = lu_pr_read(&lu.lu, &reply->pr);
		break;
	case BLKSCSI_RESET:
		reply->err = reset(fd);
		break;
	case BLKSCSI_BYE:
		break;
	default:
		reply->err = -EINVAL;
	}
}
