// SPDX-License-Identifier: Apache-2.0
/* A command's life: what the transport calls, and what the commands have in common. */
#include <stdlib.h>

#include "iscsi/scsi_internal.h"

/* ---- where it belongs ---- */

struct scsi_shard *scsi_shard_of(struct scsi_lun *lun, struct reactor *reactor)
{
	for (unsigned int i = 0; i < lun->shard_count; i++)
		if (lun->shards[i].reactor == reactor)
			return &lun->shards[i];
	return NULL;
}

/* SAM-5, 4.7: single level, by peripheral (bus 0) or flat space addressing; -1: none of ours. */
static int lun_number(const uint8_t lun[8])
{
	static const uint8_t zero[6];

	if (memcmp(lun + 2, zero, sizeof(zero)))
		return -1;
	if (lun[0] == 0x00)
		return lun[1];
	if ((lun[0] & 0xc0) == 0x40) {
		int n = (lun[0] & 0x3f) << 8 | lun[1];

		return n < SCSI_LUNS_MAX ? n : -1;
	}
	return -1;
}

struct scsi_lun *scsi_lun_find(const struct scsi_target *target, const uint8_t lun[8])
{
	int n = lun_number(lun);

	return n < 0 ? NULL : atomic_load_explicit(&target->luns[n], memory_order_acquire);
}

/* ---- its end ---- */

/* What an aborted command's initiator hears (SAM-5, 5.3.1; control mode page, TAS). */
static void set_aborted(struct scsi_cmd *cmd)
{
	/* A unit that was removed has no unit attention to tell of it. */
	if (cmd->claim.aborted_by_other &&
	    (cmd->unit->removed || atomic_load(&cmd->unit->task_aborted_status)))
		cmd->status = SCSI_TASK_ABORTED;
	else
		cmd->aborted = true;
	cmd->in_len = 0;
	cmd->in_want = 0;
	cmd->sense_len = 0;
}

static void put_scratch(struct scsi_cmd *cmd)
{
	struct scsi_shard *shard = cmd->claim.shard;
	struct scsi_cmd *next;

	if (list_empty(&shard->scratch_waiters)) {
		shard->scratch[shard->scratch_free++] = cmd->scratch;
		cmd->scratch = NULL;
		return;
	}
	next = list_first(&shard->scratch_waiters, struct scsi_cmd, wait);
	list_del(&next->wait);
	next->scratch = cmd->scratch;
	cmd->scratch = NULL;
	scsi_post(next, next->next, 0);
}

void scsi_finish(struct scsi_cmd *cmd)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_shard *shard = cmd->claim.shard;
	uint64_t watches = 0;

	if (cmd->pad) {
		cmd->iov[cmd->iovcnt - 1].iov_len -= (size_t)(ssize_t)cmd->pad;
		cmd->pad = 0;
	}
	if (cmd->scratch)
		put_scratch(cmd);
	free(cmd->own);
	cmd->own = NULL;
	if (shard && cmd->claim.state != CLAIM_NONE) {
		watches = claim_leave(&cmd->claim);
		/* Out of every list: nobody marks it any more. */
		if (cmd->claim.aborted)
			set_aborted(cmd);
	}
	cmd->done(cmd);
	if (watches)
		claim_notify(lun, watches);
	if (shard)
		unit_put(shard);
}

void scsi_fail_err(struct scsi_cmd *cmd, int err)
{
	switch (err) {
	case -ENOSPC:
		scsi_sense(cmd, KEY_DATA_PROTECT, ASC_SPACE_ALLOCATION_FAILED);
		break;
	case -EROFS:
		scsi_sense(cmd, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
		break;
	case -EBADE:
		cmd->status = SCSI_RESERVATION_CONFLICT;
		break;
	case -EBUSY:
	case -ENOMEM:
		cmd->status = SCSI_BUSY;
		break;
	case -ETIMEDOUT:
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_COMMUNICATION_TIMEOUT);
		break;
	case -EIO:
		scsi_sense(cmd, KEY_MEDIUM_ERROR, cmd->op->flags & OP_WRITES ?
			   ASC_WRITE_ERROR : ASC_UNRECOVERED_READ_ERROR);
		break;
	default:
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		break;
	}
	cmd->in_len = 0;
}

void scsi_finish_err(struct scsi_cmd *cmd, int err)
{
	if (err)
		scsi_fail_err(cmd, err);
	scsi_finish(cmd);
}

/* ---- its beginning ---- */

static void reset(struct scsi_cmd *cmd)
{
	cmd->out_len = cmd->out_want = cmd->in_max = 0;
	cmd->status = SCSI_GOOD;
	cmd->in_len = cmd->in_want = 0;
	cmd->sense_len = 0;
	cmd->aborted = false;
	cmd->scratch = NULL;
	cmd->own = NULL;
	cmd->pad = 0;
	cmd->lba = cmd->blocks = 0;
	memset(cmd->walk, 0, sizeof(cmd->walk));
	memset(&cmd->claim, 0, sizeof(cmd->claim));
	memset(&cmd->call, 0, sizeof(cmd->call));
	cmd->claim.cmd = cmd;
	list_init(&cmd->claim.node);
	list_init(&cmd->claim.exclusive_node);
	list_init(&cmd->wait);
}

/* Bits that no field of the command has must be zero; which one is not, the sense data says. */
static bool check_usage(struct scsi_cmd *cmd)
{
	const struct scsi_op *op = cmd->op;
	unsigned int len = op->len < sizeof(op->usage) ? op->len : sizeof(op->usage);

	for (unsigned int i = 1; i < len; i++) {
		uint8_t bad = cmd->cdb[i] & (uint8_t)~op->usage[i];

		if (bad)
			return scsi_bad_field(cmd, i, 31 - __builtin_clz(bad));
	}
	return true;
}

static bool find_op(struct scsi_cmd *cmd)
{
	bool known = false;

	cmd->op = scsi_op_find(cmd->nexus->target, cmd->cdb, &known);
	if (cmd->op && cmd->unit && !scsi_op_is_offered(cmd->unit, cmd->op)) {
		/* A service action of which others are offered is a wrong field. */
		known = cmd->op->sa != OP_NO_SA && !(cmd->op->flags & OP_THIN);
		cmd->op = NULL;
	}
	if (!cmd->unit && !(cmd->op && (cmd->op->flags & OP_ANY_LUN))) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT);
		return false;
	}
	if (cmd->op && cmd->op->len <= cmd->cdb_len)
		return true;
	if (known)
		return scsi_bad_field(cmd, 1, 4);
	scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_OPCODE);
	return false;
}

static bool report_ua(struct scsi_cmd *cmd)
{
	uint16_t asc;

	if (!cmd->unit || (cmd->op->flags & OP_NO_UA))
		return false;
	asc = scsi_ua_take(scsi_itl(cmd));
	if (!asc)
		return false;
	scsi_sense(cmd, KEY_UNIT_ATTENTION, (enum scsi_asc)asc);
	if (asc == ASC_REGISTRATIONS_PREEMPTED)
		log_info(cmd->unit->target->env, cmd->nexus->name, "%s, LUN %u: %s is refused: its "
			 "registration was preempted", cmd->unit->target->iqn, cmd->unit->number,
			 cmd->op->name);
	return true;
}

/* That it may not write at all comes before what is wrong with how it would. */
static bool is_protected(struct scsi_cmd *cmd)
{
	struct scsi_shard *shard = cmd->claim.shard;
	bool ok;

	if (!shard || !(cmd->op->flags & OP_PROTECTED) ||
	    !atomic_load_explicit(&cmd->unit->write_protected, memory_order_relaxed))
		return false;
	env_mutex_lock(cmd->unit->target->env, &shard->mutex);
	ok = claim_admit(cmd);
	env_mutex_unlock(cmd->unit->target->env, &shard->mutex);
	return !ok;
}

bool scsi_cmd_begin(struct scsi_cmd *cmd)
{
	reset(cmd);
	cmd->unit = scsi_lun_find(cmd->nexus->target, cmd->lun);
	if (!find_op(cmd) || report_ua(cmd))
		return false;
	if (!check_usage(cmd))
		return false;
	if (cmd->unit) {
		cmd->claim.shard = scsi_shard_of(cmd->unit, cmd->reactor);
		assert(cmd->claim.shard);
	}
	if (is_protected(cmd))
		return false;
	if (cmd->op->begin && !cmd->op->begin(cmd))
		return false;
	/* Nothing is transferred for a command that will be refused anyway. */
	if (cmd->unit && cmd->out_len && !claim_begin(cmd))
		return false;
	/* ORDERED: alone among the commands that touch blocks (SAM-5, 8.6.3). */
	if (cmd->attr == SCSI_ORDERED && cmd->claim.end > cmd->claim.lba) {
		cmd->claim.lba = 0;
		cmd->claim.end = UINT64_MAX;
		cmd->claim.exclusive = cmd->claim.exclusive_reads = true;
	}
	if (cmd->claim.shard)
		unit_get(cmd->claim.shard);
	return true;
}

void scsi_cmd_run(struct scsi_cmd *cmd)
{
	if (cmd->unit)
		claim_run(cmd);
	else
		cmd->op->run(cmd);
}

void scsi_cmd_cancel(struct scsi_cmd *cmd)
{
	if (!cmd->unit)
		return;
	if (cmd->claim.state == CLAIM_BEGUN)
		claim_cancel(cmd);
	unit_put(cmd->claim.shard);
}

void scsi_want_in(struct scsi_cmd *cmd, uint64_t len)
{
	cmd->in_max = (uint32_t)(len < cmd->expected_in ? len : cmd->expected_in);
}

void scsi_want_reply(struct scsi_cmd *cmd, uint32_t alloc)
{
	/* Initiators may expect, and allocate, 4 GiB for 32 bytes: no buffer is that large. */
	scsi_want_in(cmd, alloc < SCSI_REPLY_LEN_MAX ? alloc : SCSI_REPLY_LEN_MAX);
}

void scsi_want_out(struct scsi_cmd *cmd, uint64_t len)
{
	cmd->out_want = (uint32_t)len;
	cmd->out_len = (uint32_t)(len < cmd->expected_out ? len : cmd->expected_out);
}

bool scsi_check_range(struct scsi_cmd *cmd, uint64_t lba, uint64_t blocks)
{
	uint64_t size = atomic_load_explicit(&cmd->unit->blocks, memory_order_relaxed);

	if (lba < size && blocks <= size - lba)
		return true;
	if (lba == size && !blocks)
		return true;
	scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
	return false;
}

/* ---- data ---- */

void scsi_reply(struct scsi_cmd *cmd, const void *data, size_t len, uint32_t alloc)
{
	const uint8_t *from = data;
	uint32_t left;

	cmd->in_want = (uint32_t)(len < alloc ? len : alloc);
	cmd->in_len = cmd->in_want < cmd->in_max ? cmd->in_want : cmd->in_max;
	left = cmd->in_len;
	for (int i = 0; left; i++) {
		size_t n = cmd->iov[i].iov_len < left ? cmd->iov[i].iov_len : left;

		memcpy(cmd->iov[i].iov_base, from, n);
		from += n;
		left -= (uint32_t)n;
	}
}

const uint8_t *scsi_params(struct scsi_cmd *cmd, uint32_t min)
{
	if (cmd->out_len < min || cmd->out_len > SCSI_PARAM_LEN_MAX) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return NULL;
	}
	return cmd->iov[0].iov_base;
}

void scsi_gather(const struct scsi_cmd *cmd, uint64_t off, void *to, size_t len)
{
	uint8_t *p = to;

	for (int i = 0; len; i++) {
		const struct iovec *v = &cmd->iov[i];
		size_t n;

		assert(i < cmd->iovcnt);
		if (off >= v->iov_len) {
			off -= v->iov_len;
			continue;
		}
		n = v->iov_len - off < len ? v->iov_len - off : len;
		memcpy(p, (const uint8_t *)v->iov_base + off, n);
		p += n;
		len -= n;
		off = 0;
	}
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t i = 0;

	while (i < len && a[i] == b[i])
		i++;
	return i;
}

int64_t scsi_differs(const struct scsi_cmd *cmd, uint64_t off, const void *with, size_t len)
{
	const uint8_t *p = with;
	uint64_t at = off;

	for (int i = 0; len; i++) {
		const struct iovec *v = &cmd->iov[i];
		const uint8_t *mine;
		size_t n;

		assert(i < cmd->iovcnt);
		if (off >= v->iov_len) {
			off -= v->iov_len;
			continue;
		}
		mine = (const uint8_t *)v->iov_base + off;
		n = v->iov_len - off < len ? v->iov_len - off : len;
		if (memcmp(mine, p, n))
			return (int64_t)(at + first_difference(mine, p, n));
		at += n;
		p += n;
		len -= n;
		off = 0;
	}
	return -1;
}

/* ---- device ---- */

/* The first requests of what was collected, up to @bytes_max and at least one. */
static void submit_some(struct scsi_shard *shard, uint64_t bytes_max)
{
	unsigned int n = 0, left;
	uint64_t bytes = 0;

	/* A request that fails at once may submit another one: the batch has room by then. */
	struct blk_io *batch[SCSI_BATCH_MAX];

	while (n < shard->batch_count && (!n || bytes + shard->batch[n]->len <= bytes_max)) {
		bytes += shard->batch[n]->len;
		batch[n] = shard->batch[n];
		n++;
	}
	left = shard->batch_count - n;
	memmove(shard->batch, shard->batch + n, left * sizeof(struct blk_io *));
	shard->batch_count = left;
	blkdev_submit(shard->dev, batch, n);
}

/*
 * Devices that answer at once (files in the page cache) are asked at once; of large transfers
 * some at a time, so that data goes out while the cache still has it.
 */
void shard_end(struct reactor_end *end)
{
	struct scsi_shard *shard = container_of(end, struct scsi_shard, end);

	if (shard->batch_count)
		submit_some(shard, SCSI_BATCH_BYTES);
	if (shard->polled)
		blkdev_poll(shard->dev);
	if (shard->batch_count)
		reactor_at_end(shard->reactor, &shard->end);
}

void scsi_submit_to(struct scsi_shard *shard, struct blk_io *io)
{
	if (shard->batch_count == SCSI_BATCH_MAX)
		submit_some(shard, UINT64_MAX);
	shard->batch[shard->batch_count++] = io;
	reactor_at_end(shard->reactor, &shard->end);
}

static void posted(struct reactor_call *call)
{
	struct scsi_cmd *cmd = container_of(call, struct scsi_cmd, call);

	cmd->next(cmd, cmd->err);
}

void scsi_post(struct scsi_cmd *cmd, void (*next)(struct scsi_cmd *cmd, int err), int err)
{
	cmd->next = next;
	cmd->err = err;
	cmd->call.fn = posted;
	reactor_post(cmd->reactor, &cmd->call);
}

static void io_done(struct blk_io *io, int err)
{
	struct scsi_cmd *cmd = container_of(io, struct scsi_cmd, io);

	if (cmd->claim.shard->polled)
		cmd->next(cmd, err);
	else
		scsi_post(cmd, cmd->next, err);
}

void scsi_submit(struct scsi_cmd *cmd, void (*next)(struct scsi_cmd *cmd, int err))
{
	cmd->next = next;
	cmd->io.done = io_done;
	scsi_submit_to(cmd->claim.shard, &cmd->io);
}

void scsi_piece(struct scsi_cmd *cmd, enum blk_op op, unsigned int flags, uint64_t lba,
		uint64_t blocks, void (*next)(struct scsi_cmd *cmd, int err))
{
	uint32_t bs = cmd->unit->block_size;

	cmd->piece.iov_base = cmd->scratch;
	cmd->piece.iov_len = blocks * bs;
	cmd->io.op = op;
	cmd->io.flags = flags;
	cmd->io.off = lba * bs;
	cmd->io.len = blocks * bs;
	cmd->io.iov = &cmd->piece;
	cmd->io.iovcnt = op == BLK_READ || op == BLK_WRITE ? 1 : 0;
	scsi_submit(cmd, next);
}

void scsi_with_scratch(struct scsi_cmd *cmd, void (*fn)(struct scsi_cmd *cmd, int err))
{
	struct scsi_shard *shard = cmd->claim.shard;

	if (!cmd->scratch && shard->scratch_free)
		cmd->scratch = shard->scratch[--shard->scratch_free];
	if (!cmd->scratch && shard->scratch_made < SCSI_SCRATCH_MAX) {
		cmd->scratch = blkdev_alloc(SCSI_SCRATCH_LEN);
		if (cmd->scratch)
			shard->scratch_made++;
	}
	if (cmd->scratch) {
		fn(cmd, 0);
		return;
	}
	if (!shard->scratch_made) {
		scsi_finish_err(cmd, -ENOMEM);
		return;
	}
	cmd->next = fn;
	list_add_tail(&shard->scratch_waiters, &cmd->wait);
}

unsigned int scsi_write_flags(const struct scsi_cmd *cmd, bool fua)
{
	return fua || !atomic_load_explicit(&cmd->unit->write_cache, memory_order_relaxed) ?
	       BLK_FUA : 0;
}
