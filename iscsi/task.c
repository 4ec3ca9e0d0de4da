// SPDX-License-Identifier: Apache-2.0
/*
 * A SCSI command's way through the transport.
 *
 *	            turn            buffer         all data-out           done()
 *	TASK_HELD ───────► begin ───────────► TASK_DATA ───────► TASK_RUNNING ───► TASK_DONE
 *	                     │  ▲                │                                    │ nothing of it
 *	                     ▼  │ memory freed   │ R2T, Data-Out                      │ still comes
 *	                TASK_MEMORY              └◄─┘                                 ▼
 *	                                                                         TASK_SENDING
 *
 * Data-out arrives strictly in order (we insist on DataPDUInOrder and DataSequenceInOrder), so
 * one number, out_at, says how far it is: immediate data, the rest of the first burst, then
 * what R2Ts asked for.
 */
#include "iscsi/internal.h"

static void task_progress(struct tgt_task *task);

/* ---- the end of it ---- */

void task_send(struct tgt_task *task)
{
	task->state = TASK_SENDING;
	task->memory_ns = reactor_now_ns(task->session->home->reactor);
	assert(list_empty(&task->queue));
	list_add_tail(&task->conn->tx_queue, &task->queue);
	conn_kick(task->conn);
}

/* It has its result.  Unsolicited data may still be on its way, and is thrown away first. */
static void task_finish(struct tgt_task *task)
{
	task->state = TASK_DONE;
	if (task->receiving || task->unsolicited)
		return;
	if (!task->scsi.in_len)
		memory_put(task);
	task_send(task);
}

void task_fail(struct tgt_task *task, uint8_t key, uint8_t asc, uint8_t ascq)
{
	uint8_t *sense = task->scsi.sense;

	memset(sense, 0, 18);
	sense[0] = 0x70;	/* SPC-5 4.4.3: fixed format, current */
	sense[2] = key;
	sense[7] = 10;
	sense[12] = asc;
	sense[13] = ascq;
	task->scsi.sense_len = 18;
	task->scsi.status = SCSI_CHECK_CONDITION;
	task->scsi.in_len = 0;
	task_finish(task);
}

static void cancel(struct tgt_task *task)
{
	if (task->begun)
		scsi_cmd_cancel(&task->scsi);
	task->begun = false;
	list_del(&task->queue);
	task->r2t_count -= task->r2t_unsent;
	task->r2t_unsent = 0;
}

void task_drop(struct tgt_task *task)
{
	cancel(task);
	session_release(task);
}

static bool awaits_data(const struct tgt_task *task)
{
	return task->receiving || task->unsolicited || task->r2t_count > task->r2t_unsent;
}

void task_abort(struct tgt_task *task)
{
	if (!awaits_data(task)) {
		task_drop(task);
		return;
	}
	cancel(task);
	task->state = TASK_DATA;
	task->aborting = true;
}

void task_end(struct tgt_task *task)
{
	struct tgt_session *s = task->session;

	switch (task->state) {
	case TASK_HELD:
		if (s->state == SESSION_LIVE && task->windowed && !task->turn)
			session_void_held(task);
		else
			session_release(task);
		break;
	case TASK_MEMORY:
	case TASK_DATA:
		task_drop(task);
		break;
	case TASK_DONE:
	case TASK_SENDING:
		session_release(task);
		break;
	case TASK_RUNNING:	/* its done() comes */
	case TASK_FREE:
		break;
	}
}

/* ---- execution ---- */

static void task_done(struct scsi_cmd *cmd)
{
	struct tgt_task *task = container_of(cmd, struct tgt_task, scsi);

	assert(task->state == TASK_RUNNING);
	task->state = TASK_DONE;
	if (cmd->aborted || !task->conn || task->conn->state >= CONN_LOGOUT) {
		/* Its unsolicited data, if any still comes, finds no task and is thrown away. */
		session_release(task);
		return;
	}
	task_finish(task);
}

static void task_run(struct tgt_task *task)
{
	struct scsi_cmd *cmd = &task->scsi;
	uint32_t need = cmd->out_len > cmd->in_max ? cmd->out_len : cmd->in_max;

	/* One that was held had to guess. */
	if (task->buf.len > need && need)
		pool_buf_trim(&task->session->home->pool, &task->buf, need);
	cmd->iov = task->buf.iov;
	cmd->iovcnt = need ? task->buf.count : 0;
	task->state = TASK_RUNNING;
	task->begun = false;
	scsi_cmd_run(cmd);
}

/* ---- data-out ---- */

static void ask_for_data(struct tgt_task *task)
{
	struct tgt_session *s = task->session;
	unsigned int max = s->params.outstanding_r2t_max;

	if (max > R2T_MAX)
		max = R2T_MAX;
	if (task->r2t_at < task->out_at)
		task->r2t_at = task->out_at;
	while (task->r2t_count < max && task->r2t_at < task->scsi.out_len) {
		struct task_r2t *r2t = &task->r2t[(task->r2t_first + task->r2t_count) % R2T_MAX];
		uint32_t len = task->scsi.out_len - task->r2t_at;

		r2t->ttt = s->next_ttt;
		r2t->offset = task->r2t_at;
		r2t->len = len < s->params.burst_max ? len : s->params.burst_max;
		if (++s->next_ttt == PDU_TAG_NONE)
			s->next_ttt = 0;
		task->r2t_at += r2t->len;
		task->r2t_count++;
		task->r2t_unsent++;
	}
	if (task->r2t_unsent && list_empty(&task->queue)) {
		list_add_tail(&task->conn->tx_queue, &task->queue);
		conn_kick(task->conn);
	}
}

/* Something about it has changed: what is next? */
static void task_progress(struct tgt_task *task)
{
	if (task->receiving || task->unsolicited)
		return;
	if (task->state == TASK_DONE) {
		task_finish(task);
		return;
	}
	if (task->state != TASK_DATA)
		return;
	if (task->aborting || task->bad_data) {
		task->r2t_count -= task->r2t_unsent;
		task->r2t_unsent = 0;
		if (task->r2t_count)
			return;
		if (task->aborting) {
			task_drop(task);
			return;
		}
		/* Aborted command: iSCSI CRC error (RFC 7143, 11.4.7.2). */
		cancel(task);
		task_fail(task, 0x0b, 0x47, 0x05);
		return;
	}
	if (task->out_at >= task->scsi.out_len)
		task_run(task);
	else
		ask_for_data(task);
}

void task_data(struct tgt_task *task, uint32_t len, bool final, bool good)
{
	task->out_at += len;
	task->bad_data |= !good;
	if (final) {
		task->out_data_sn = 0;
		if (task->unsolicited) {
			task->unsolicited = false;
		} else {
			task->r2t_first = (task->r2t_first + 1) % R2T_MAX;
			task->r2t_count--;
		}
	}
	task_progress(task);
}

/* ---- memory ---- */

void task_has_memory(struct tgt_task *task)
{
	task->state = TASK_DATA;
	task_progress(task);
}

/* Its data is on the way and there is nowhere to put it: the initiator tries again later. */
static void task_set_full(struct tgt_task *task)
{
	memory_refused(task->session->home);
	cancel(task);
	task->scsi.status = SCSI_TASK_SET_FULL;
	task->scsi.sense_len = 0;
	task->scsi.in_len = 0;
	task->scsi.out_len = 0;
	task_finish(task);
}

static void get_memory(struct tgt_task *task)
{
	bool data_comes = be24_to_cpu(task->bhs.data_len) || task->unsolicited;

	if (memory_get(task, data_comes))
		task_has_memory(task);
	else if (data_comes)
		task_set_full(task);
	else
		memory_wait(task);
}

/* ---- the beginning ---- */

static void begin_scsi(struct tgt_task *task)
{
	struct scsi_cmd *cmd = &task->scsi;
	uint8_t flags = task->command.flags;
	uint8_t attr = flags & PDU_CMD_ATTR_MASK;

	cmd->nexus = task->session->nexus;
	cmd->reactor = task->session->home->reactor;
	memcpy(cmd->lun, task->command.lun, sizeof(cmd->lun));
	cmd->attr = attr <= PDU_ATTR_ACA ? (enum scsi_attr)attr : SCSI_SIMPLE;
	cmd->tag = task->itt;
	cmd->expected_out = flags & PDU_CMD_WRITE ? task->edtl : 0;
	cmd->expected_in = flags & PDU_CMD_READ && !(flags & PDU_CMD_WRITE) ? task->edtl : 0;
	cmd->done = task_done;
	cmd->out_len = cmd->out_want = cmd->in_max = cmd->in_len = cmd->in_want = 0;
	cmd->sense_len = 0;
	cmd->aborted = false;
	if (!scsi_cmd_begin(cmd)) {
		task_finish(task);
		return;
	}
	task->begun = true;
	if (task->no_memory)
		task_set_full(task);
	else
		get_memory(task);
}

static void execute(struct tgt_task *task)
{
	if ((task->bhs.opcode & PDU_OPCODE_MASK) == PDU_TMF_REQUEST)
		tmf_execute(task);
	else
		request_execute(task);
}

void task_turn(struct tgt_task *task)
{
	if ((task->bhs.opcode & PDU_OPCODE_MASK) == PDU_SCSI_COMMAND)
		begin_scsi(task);
	else if (!task->receiving)
		execute(task);
}

void task_place(struct tgt_task *task, uint32_t data_len)
{
	struct tgt_conn *conn = task->conn;
	bool command = (task->bhs.opcode & PDU_OPCODE_MASK) == PDU_SCSI_COMMAND;
	uint32_t need = data_len;

	if (!data_len)
		return;
	/* How much a held command takes is only known when it begins. */
	if (command)
		need = task->edtl < POOL_TRANSFER_MAX ? task->edtl : POOL_TRANSFER_MAX;
	if ((!command || !task->turn) && need && !memory_get_now(task, need))
		task->no_memory = true;
	conn->rx_store_at = 0;
	conn->rx_store = data_len < task->buf.len ? data_len : task->buf.len;
	conn->rx_discard = data_len - conn->rx_store;
}

void task_received(struct tgt_task *task)
{
	task->receiving = false;
	if ((task->bhs.opcode & PDU_OPCODE_MASK) != PDU_SCSI_COMMAND) {
		if (task->turn)
			execute(task);
		return;
	}
	task->out_at = be24_to_cpu(task->bhs.data_len);
	if (task->turn)
		task_progress(task);
}
