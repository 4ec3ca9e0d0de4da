// SPDX-License-Identifier: Apache-2.0
/*
 * Sending: tasks and notes queue up; at the end of a round as many PDUs as fit are prepared,
 * headers and digests in the connection's own memory, data where it is, and go out with one
 * sendmsg().  StatSN is given when a PDU is prepared: in the order of the stream.
 *
 * tx_prepared and tx_done count bytes of the stream; a task whose last byte is behind tx_done
 * is released.
 */
#include <errno.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "iscsi/internal.h"

/* What one PDU can need at most. */
#define PDU_HEAD_MAX	(PDU_BHS_LEN + PDU_DIGEST_LEN + 3 + PDU_DIGEST_LEN)
#define PDU_IOV_MAX	(POOL_IOV_MAX + 4)

bool conn_tx_idle(const struct tgt_conn *conn)
{
	return conn->tx_iov_at == conn->tx_iov_count && list_empty(&conn->tx_queue) &&
	       list_empty(&conn->tx_notes);
}

/* ---- preparing one PDU ---- */

static void push(struct tgt_conn *conn, const void *p, uint32_t len)
{
	struct iovec *last;

	conn->tx_prepared += len;
	/* Responses without data are one piece of memory. */
	if (conn->tx_iov_count > conn->tx_iov_at) {
		last = &conn->tx_iov[conn->tx_iov_count - 1];
		if ((uint8_t *)last->iov_base + last->iov_len == p) {
			last->iov_len += len;
			return;
		}
	}
	assert(conn->tx_iov_count < conn->tx_iov_max);
	conn->tx_iov[conn->tx_iov_count++] = (struct iovec){ (void *)(uintptr_t)p, len };
}

static uint8_t *take_head(struct tgt_conn *conn, uint32_t len)
{
	uint8_t *p = conn->tx_head + conn->tx_head_len;

	assert(conn->tx_head_len + len <= conn->tx_head_max);
	conn->tx_head_len += len;
	return p;
}

static bool digests(const struct tgt_conn *conn)
{
	return conn->session && !conn->login;
}

static uint8_t *begin_pdu(struct tgt_conn *conn)
{
	uint8_t *head = take_head(conn, PDU_BHS_LEN);

	memset(head, 0, PDU_BHS_LEN);
	return head;
}

static void push_head(struct tgt_conn *conn, uint8_t *head)
{
	uint32_t len = PDU_BHS_LEN;
	le32 crc;

	if (conn->params.header_digest && digests(conn)) {
		crc = cpu_to_le32(crc32c(0, head, PDU_BHS_LEN));
		memcpy(take_head(conn, PDU_DIGEST_LEN), &crc, sizeof(crc));
		len += PDU_DIGEST_LEN;
	}
	push(conn, head, len);
}

/* The pieces of a data segment, and then push_tail(). */
static void push_data(struct tgt_conn *conn, const void *p, uint32_t len, uint32_t *crc)
{
	if (!len)
		return;
	if (conn->params.data_digest && digests(conn))
		*crc = crc32c(*crc, p, len);
	push(conn, p, len);
}

static void push_tail(struct tgt_conn *conn, uint32_t data_len, uint32_t crc)
{
	uint32_t pad = pdu_padded(data_len) - data_len;
	bool digest = conn->params.data_digest && digests(conn) && data_len;
	uint8_t *p;
	le32 sum;

	if (!pad && !digest)
		return;
	p = take_head(conn, pad + (digest ? PDU_DIGEST_LEN : 0));
	memset(p, 0, pad);
	if (digest) {
		sum = cpu_to_le32(crc32c(crc, p, pad));
		memcpy(p + pad, &sum, sizeof(sum));
	}
	push(conn, p, pad + (digest ? PDU_DIGEST_LEN : 0));
}

/* @len bytes of the task's buffer from @at on. */
static void push_buffer(struct tgt_conn *conn, const struct tgt_task *task, uint32_t at,
			uint32_t len)
{
	uint32_t crc = 0, left = len, i = at / POOL_SLAB, off = at % POOL_SLAB;

	while (left) {
		uint32_t n = (uint32_t)task->buf.iov[i].iov_len - off;

		if (n > left)
			n = left;
		push_data(conn, (uint8_t *)task->buf.iov[i].iov_base + off, n, &crc);
		left -= n;
		off = 0;
		i++;
	}
	push_tail(conn, len, crc);
}

/* @counts: the PDU carries status, so the next one has the next StatSN. */
static void set_sns(struct tgt_conn *conn, struct pdu_reply_wire *head, bool counts)
{
	head->stat_sn = cpu_to_be32(conn->stat_sn);
	conn->stat_sn += counts;
	if (conn->session) {
		head->max_cmd_sn = cpu_to_be32(session_max_cmd_sn(conn->session));
		head->exp_cmd_sn = cpu_to_be32(conn->session->exp_cmd_sn);
	} else {
		head->exp_cmd_sn = cpu_to_be32(conn->login_cmd_sn);
		head->max_cmd_sn = cpu_to_be32(conn->login_cmd_sn);
	}
}

static bool room(const struct tgt_conn *conn)
{
	return conn->tx_iov_count + PDU_IOV_MAX <= conn->tx_iov_max &&
	       conn->tx_head_len + PDU_HEAD_MAX + PDU_HEAD_MAX <= conn->tx_head_max &&
	       conn->tx_prepared - conn->tx_done < TX_ROUND;
}

/* ---- PDUs of tasks ---- */

static void send_r2t(struct tgt_conn *conn, struct tgt_task *task)
{
	struct pdu_r2t_wire *head = (void *)begin_pdu(conn);
	const struct task_r2t *r2t =
		&task->r2t[(task->r2t_first + task->r2t_count - task->r2t_unsent) % R2T_MAX];

	head->opcode = PDU_R2T;
	head->flags = PDU_FINAL;
	memcpy(head->lun, task->bhs.lun, sizeof(head->lun));
	head->itt = cpu_to_be32(task->itt);
	head->ttt = cpu_to_be32(r2t->ttt);
	set_sns(conn, (void *)head, false);
	head->r2t_sn = cpu_to_be32(task->data_sn++);
	head->offset = cpu_to_be32(r2t->offset);
	head->desired_len = cpu_to_be32(r2t->len);
	task->r2t_unsent--;
	push_head(conn, (void *)head);
}

/* The residual count and its flag: what the CDB wanted against what was announced. */
static uint8_t residual(const struct tgt_task *task, be32 *count)
{
	const struct scsi_cmd *cmd = &task->scsi;
	bool out = task->command.flags & PDU_CMD_WRITE && !(task->command.flags & PDU_CMD_READ);
	uint32_t want = out ? cmd->out_want : cmd->in_want;
	uint32_t moved = out ? cmd->out_len : cmd->in_len;

	/* The direction announced is not the one of the command: nothing was moved. */
	if (!want && (out ? cmd->in_want : cmd->out_want)) {
		want = out ? cmd->in_want : cmd->out_want;
		moved = 0;
	}
	if (want > task->edtl) {
		*count = cpu_to_be32(want - task->edtl);
		return PDU_RSP_OVERFLOW;
	}
	if (moved < task->edtl) {
		*count = cpu_to_be32(task->edtl - moved);
		return PDU_RSP_UNDERFLOW;
	}
	return 0;
}

/* Status rides on the last Data-In unless there is more to say. */
static bool status_collapses(const struct tgt_task *task)
{
	return task->scsi.status == SCSI_GOOD && task->response == PDU_RSP_COMPLETED;
}

/* Return: whether the task's status went with it. */
static bool send_data_in(struct tgt_conn *conn, struct tgt_task *task)
{
	struct pdu_data_in_wire *head = (void *)begin_pdu(conn);
	uint32_t left = task->scsi.in_len - task->in_at, len = left;
	uint32_t burst = conn->session->params.burst_max - task->burst_at;
	bool last, status;

	if (len > conn->params.send_dsl_max)
		len = conn->params.send_dsl_max;
	if (len > burst)
		len = burst;
	last = len == left;
	status = last && status_collapses(task);
	head->opcode = PDU_DATA_IN;
	head->flags = last || len == burst ? PDU_FINAL : 0;
	if (status) {
		session_credit(task);
		head->flags |= PDU_DATA_IN_STATUS | residual(task, &head->residual);
		head->status = (uint8_t)task->scsi.status;
	}
	head->data_len = cpu_to_be24(len);
	head->itt = cpu_to_be32(task->itt);
	head->ttt = cpu_to_be32(PDU_TAG_NONE);
	set_sns(conn, (void *)head, status);
	if (!status)
		head->stat_sn = cpu_to_be32(0);
	head->data_sn = cpu_to_be32(task->data_sn++);
	head->offset = cpu_to_be32(task->in_at);
	push_head(conn, (void *)head);
	push_buffer(conn, task, task->in_at, len);
	task->in_at += len;
	task->burst_at = len == burst ? 0 : task->burst_at + len;
	conn->bytes_out += len;
	return status;
}

static void send_response(struct tgt_conn *conn, struct tgt_task *task)
{
	struct pdu_scsi_response_wire *head = (void *)begin_pdu(conn);
	uint32_t sense_len = task->scsi.sense_len, crc = 0;
	be16 len;

	session_credit(task);
	head->opcode = PDU_SCSI_RESPONSE;
	head->flags = PDU_FINAL;
	head->response = task->response;
	if (task->response == PDU_RSP_COMPLETED) {
		head->flags |= residual(task, &head->residual);
		head->status = (uint8_t)task->scsi.status;
	}
	head->data_len = cpu_to_be24(sense_len ? sense_len + 2 : 0);
	head->itt = cpu_to_be32(task->itt);
	head->exp_data_sn = cpu_to_be32(task->data_sn);
	set_sns(conn, (void *)head, true);
	push_head(conn, (void *)head);
	if (!sense_len)
		return;
	len = cpu_to_be16((uint16_t)sense_len);
	memcpy(take_head(conn, sizeof(len)), &len, sizeof(len));
	push_data(conn, conn->tx_head + conn->tx_head_len - sizeof(len), sizeof(len), &crc);
	push_data(conn, task->scsi.sense, sense_len, &crc);
	push_tail(conn, sense_len + 2, crc);
}

/* What request.c and tmf.c have prepared: a whole PDU, its data in the buffer. */
static void send_reply(struct tgt_conn *conn, struct tgt_task *task)
{
	struct pdu_reply_wire *head = (void *)begin_pdu(conn);

	session_credit(task);
	*head = task->reply_head;
	head->data_len = cpu_to_be24(task->reply_len);
	set_sns(conn, head, true);
	push_head(conn, (void *)head);
	push_buffer(conn, task, 0, task->reply_len);
}

/* Return: whether all that @task has to send at present is prepared. */
static bool send_task(struct tgt_conn *conn, struct tgt_task *task)
{
	while (task->r2t_unsent) {
		if (!room(conn))
			return false;
		send_r2t(conn, task);
	}
	if (task->state != TASK_SENDING)
		return true;
	while (task->scsi.in_len > task->in_at) {
		if (!room(conn))
			return false;
		if (send_data_in(conn, task))
			return true;
	}
	if (!room(conn))
		return false;
	if (task->reply)
		send_reply(conn, task);
	else
		send_response(conn, task);
	return true;
}

static void send_note(struct tgt_conn *conn, struct conn_note *note)
{
	struct pdu_reply_wire *head = (void *)begin_pdu(conn);
	uint32_t crc = 0;

	*head = note->head;
	head->data_len = cpu_to_be24(note->data_len);
	set_sns(conn, head, note->counts);
	push_head(conn, (void *)head);
	push_data(conn, note->data, note->data_len, &crc);
	push_tail(conn, note->data_len, crc);
	note->tx_end = conn->tx_prepared;
}

void conn_send_reply(struct tgt_conn *conn, const struct tgt_reply *reply)
{
	struct pdu_reply_wire *head;
	uint32_t crc = 0;

	if (conn->tx_iov_at == conn->tx_iov_count) {
		conn->tx_iov_at = conn->tx_iov_count = 0;
		conn->tx_head_len = 0;
	}
	head = (void *)begin_pdu(conn);
	*head = reply->reply;
	head->ahs_len = 0;
	head->data_len = cpu_to_be24(reply->data_len);
	set_sns(conn, head, true);
	push_head(conn, (void *)head);
	push_data(conn, reply->data, reply->data_len, &crc);
	push_tail(conn, reply->data_len, crc);
	conn_kick(conn);
}

/* ---- the socket ---- */

static void prepare(struct tgt_conn *conn)
{
	/* Nothing but replies before the last one of the login is sent. */
	if (conn->login)
		return;
	while (!list_empty(&conn->tx_notes) && room(conn)) {
		struct conn_note *note = list_first(&conn->tx_notes, struct conn_note, node);

		send_note(conn, note);
		list_del(&note->node);
		list_add_tail(&conn->tx_notes_sent, &note->node);
	}
	while (!list_empty(&conn->tx_queue)) {
		struct tgt_task *task = list_first(&conn->tx_queue, struct tgt_task, queue);

		if (!room(conn) || !send_task(conn, task))
			return;
		list_del(&task->queue);
		if (task->state != TASK_SENDING)
			continue;	/* that was an R2T */
		task->tx_end = conn->tx_prepared;
		list_add_tail(&conn->tx_sent, &task->queue);
	}
}

/* @n bytes more are the kernel's: what they belong to is free. */
static void sent(struct tgt_conn *conn, size_t n)
{
	conn->tx_done += n;
	conn->tx_ns = reactor_now_ns(conn->home->reactor);
	while (n) {
		struct iovec *iov = &conn->tx_iov[conn->tx_iov_at];

		if (n < iov->iov_len) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
			break;
		}
		n -= iov->iov_len;
		conn->tx_iov_at++;
	}
	if (conn->tx_iov_at == conn->tx_iov_count) {
		conn->tx_iov_at = conn->tx_iov_count = 0;
		conn->tx_head_len = 0;
	}
	while (!list_empty(&conn->tx_notes_sent)) {
		struct conn_note *note = list_first(&conn->tx_notes_sent, struct conn_note, node);

		if (note->tx_end > conn->tx_done)
			break;
		list_del(&note->node);
		list_add_tail(&conn->notes_free, &note->node);
	}
	while (!list_empty(&conn->tx_sent)) {
		struct tgt_task *task = list_first(&conn->tx_sent, struct tgt_task, queue);

		if (task->tx_end > conn->tx_done)
			break;
		conn->commands++;
		session_release(task);
	}
}

/* Return: whether the socket has taken all that was prepared, and may take more. */
static bool send_prepared(struct tgt_conn *conn)
{
	struct msghdr msg = { 0 };
	ssize_t n;

	do {
		msg.msg_iov = conn->tx_iov + conn->tx_iov_at;
		msg.msg_iovlen = conn->tx_iov_count - conn->tx_iov_at;
		n = sendmsg(conn->fd.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		conn->tx_blocked = true;
		conn->tx_ns = reactor_now_ns(conn->home->reactor);
		return false;
	}
	if (n <= 0) {
		conn_close(conn, "connection lost");
		return false;
	}
	/* A full socket is met again at once: wait for it to have room. */
	conn->tx_blocked = conn->tx_done + (uint64_t)n < conn->tx_prepared;
	sent(conn, (size_t)n);
	return !conn->tx_blocked;
}

void conn_flush(struct tgt_conn *conn)
{
	if (conn->tx_blocked)
		return;
	prepare(conn);
	if (conn->tx_iov_at == conn->tx_iov_count || !send_prepared(conn))
		return;
	if (!conn_tx_idle(conn))
		reactor_at_next_end(conn->home->reactor, &conn->end);
}
