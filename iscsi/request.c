// SPDX-License-Identifier: Apache-2.0
/* NOP-Out, Text Request and Logout Request, once they are complete and it is their turn. */
#include "iscsi/internal.h"

static void reply(struct tgt_task *task, enum pdu_opcode opcode, uint32_t len)
{
	memset(&task->reply_head, 0, sizeof(task->reply_head));
	task->reply_head.opcode = (uint8_t)opcode;
	task->reply_head.flags = PDU_FINAL;
	task->reply_head.itt = cpu_to_be32(task->itt);
	task->reply = true;
	task->reply_len = len;
}

/* ---- NOP ---- */

static void execute_nop(struct tgt_task *task)
{
	uint32_t len = task->buf.len;

	/* Without a tag it is the answer to ours, or wants none. */
	if (task->itt == PDU_TAG_NONE) {
		session_release(task);
		return;
	}
	if (len > task->conn->params.send_dsl_max)
		len = task->conn->params.send_dsl_max;
	reply(task, PDU_NOP_IN, len);
	task->reply_head.ttt = cpu_to_be32(PDU_TAG_NONE);
	task_send(task);
}

/* ---- text ---- */

static void refuse_text(struct tgt_task *task)
{
	conn_reject(task->conn, &task->bhs, PDU_REJECT_OUT_OF_RESOURCES);
	session_release(task);
}

static void execute_text(struct tgt_task *task)
{
	struct tgt_conn *conn = task->conn;
	struct tgt_reply answer = { 0 };

	if (task->no_memory ||
	    (!conn->text && tgt_text_create(conn->tgt->env, conn->config->config, &conn->peer,
					    &conn->text))) {
		refuse_text(task);
		return;
	}
	tgt_text_receive(conn->text, &conn->params, &task->text,
			 task->buf.count ? task->buf.iov[0].iov_base : NULL, task->buf.len,
			 &answer);
	memory_put(task);
	if (!answer.valid) {
		session_release(task);
		return;
	}
	/* The answer's memory is good until the next request only. */
	static_assert(TGT_TEXT_MAX <= POOL_SLAB, "a response's data is one piece of memory");
	if (answer.data_len) {
		if (!memory_get_now(task, answer.data_len)) {
			refuse_text(task);
			return;
		}
		memcpy(task->buf.iov[0].iov_base, answer.data, answer.data_len);
	}
	task->reply = true;
	task->reply_len = answer.data_len;
	task->reply_head = answer.reply;
	task->reply_head.ahs_len = 0;
	task_send(task);
}

/* ---- logout ---- */

static void answer_logout(struct tgt_task *task, enum pdu_logout_response response)
{
	struct pdu_logout_response_wire *head = (void *)&task->reply_head;

	reply(task, PDU_LOGOUT_RESPONSE, 0);
	head->response = (uint8_t)response;
	head->time2wait = cpu_to_be16(0);
	head->time2retain = cpu_to_be16(0);
	task_send(task);
}

void request_check_logout(struct tgt_conn *conn)
{
	struct tgt_task *task = conn->logout;
	bool session = (task->logout.reason & PDU_LOGOUT_REASON_MASK) == PDU_LOGOUT_SESSION;

	if (task->state != TASK_DONE || conn->tasks.next != &task->node ||
	    conn->tasks.prev != &task->node)
		return;
	if (session && conn->session->conn_count > 1)
		return;
	conn->left_session = !session && session_open_connections(conn->session) > 1;
	/* A connection that another one has logged out may have commands at work: they need it to the end. */
	if (!conn->left_session && conn->session->tasks_used == 1)
		session_leave_nexus(conn->session);
	answer_logout(task, PDU_LOGOUT_DONE);
	conn_finish(conn, "logged out");
}

static void close_others(struct tgt_conn *conn)
{
	struct tgt_conn *other, *tmp;

	list_for_each(other, tmp, &conn->session->conns, session_node) {
		if (other == conn)
			continue;
		other->left_session = true;
		conn_close(other, "the session is logged out");
	}
}

static void logout_this(struct tgt_task *task, bool session)
{
	struct tgt_conn *conn = task->conn;

	task->state = TASK_DONE;
	conn->logout = task;
	if (session)
		close_others(conn);
	/* No more comes from the initiator: what still waits for it ends. */
	while (conn_end_task(conn, task, TASK_RUNNING))
		;
	request_check_logout(conn);
}

static void logout_other(struct tgt_task *task, uint16_t cid)
{
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &task->session->conns, session_node) {
		if (conn->params.cid != cid)
			continue;
		conn->left_session = true;
		conn_close(conn, "logged out on another connection");
		answer_logout(task, PDU_LOGOUT_DONE);
		return;
	}
	answer_logout(task, PDU_LOGOUT_NO_CID);
}

static void execute_logout(struct tgt_task *task)
{
	uint16_t cid = be16_to_cpu(task->logout.cid);

	switch (task->logout.reason & PDU_LOGOUT_REASON_MASK) {
	case PDU_LOGOUT_SESSION:
		logout_this(task, true);
		break;
	case PDU_LOGOUT_CONNECTION:
		if (cid == task->conn->params.cid)
			logout_this(task, false);
		else
			logout_other(task, cid);
		break;
	case PDU_LOGOUT_FOR_RECOVERY:
		answer_logout(task, PDU_LOGOUT_NO_RECOVERY);
		break;
	default:
		conn_protocol_error(task->conn, &task->bhs, PDU_REJECT_INVALID_FIELD,
				    "unknown reason of a logout");
		session_release(task);
	}
}

void request_execute(struct tgt_task *task)
{
	switch (task->bhs.opcode & PDU_OPCODE_MASK) {
	case PDU_NOP_OUT:
		execute_nop(task);
		break;
	case PDU_TEXT_REQUEST:
		execute_text(task);
		break;
	default:
		execute_logout(task);
	}
}
