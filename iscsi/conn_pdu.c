// SPDX-License-Identifier: Apache-2.0
/*
 * What an initiator's PDU means in full feature phase, as far as its header says: is it
 * allowed now, which task is it of, where does its data segment go?
 *
 * What breaks the protocol gets a Reject that says why, and then the connection ends: at
 * ErrorRecoveryLevel 0 nothing could be recovered within it.
 */
#include "iscsi/internal.h"

static enum pdu_verdict refuse(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			       enum pdu_reject_reason reason, const char *why)
{
	conn_protocol_error(conn, bhs, reason, why);
	return PDU_STOP;
}

/* Rejected, thrown away, and the connection goes on. */
static enum pdu_verdict reject(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			       enum pdu_reject_reason reason)
{
	return conn_reject(conn, bhs, reason) ? PDU_ACCEPTED : PDU_PAUSE;
}

/* ---- requests ---- */

/* Return: NULL if a SCSI Command with that header may be; else what is wrong. */
static const char *command_fault(const struct tgt_conn *conn,
				 const struct pdu_scsi_command_wire *c)
{
	const struct tgt_params *p = &conn->params;
	uint32_t data_len = be24_to_cpu(c->data_len);

	if (conn->session->params.discovery)
		return "SCSI command in a discovery session";
	if (be32_to_cpu(c->itt) == PDU_TAG_NONE)
		return "SCSI command with the reserved task tag";
	if (!(c->flags & PDU_CMD_WRITE))
		return !(c->flags & PDU_FINAL) ? "command without data-out is not final" :
		       data_len ? "immediate data of a command without data-out" : NULL;
	if (data_len && !p->immediate_data)
		return "immediate data was not negotiated";
	if (!(c->flags & PDU_FINAL) && p->initial_r2t)
		return "unsolicited data was not negotiated";
	if (data_len > p->first_burst)
		return "immediate data longer than FirstBurstLength";
	if (data_len > be32_to_cpu(c->expected_len))
		return "immediate data longer than the expected length";
	return NULL;
}

static const char *request_fault(const struct tgt_conn *conn, const struct pdu_request_wire *r)
{
	switch (r->opcode & PDU_OPCODE_MASK) {
	case PDU_SCSI_COMMAND:
		return command_fault(conn, (const void *)r);
	case PDU_TMF_REQUEST:
		if (conn->session->params.discovery)
			return "task management in a discovery session";
		/* fall through */
	case PDU_LOGOUT_REQUEST:
		if (be24_to_cpu(r->data_len))
			return "a data segment where none may be";
		/* fall through */
	case PDU_TEXT_REQUEST:
		return be32_to_cpu(r->itt) == PDU_TAG_NONE ? "reserved task tag" : NULL;
	default:
		return NULL;
	}
}

/* The CDB of more than 16 bytes, and the length of bidirectional data-in: 11.2.2. */
static const char *take_ahs(struct tgt_task *task, const uint8_t *ahs, uint32_t len)
{
	struct pdu_ahs_wire head;
	uint32_t n;

	while (len) {
		memcpy(&head, ahs, sizeof(head));
		n = 3u + be16_to_cpu(head.len);
		if (be16_to_cpu(head.len) < 1 || ((n + 3) & ~3u) > len)
			return "additional header segment longer than TotalAHSLength";
		if (head.type == PDU_AHS_EXTENDED_CDB) {
			uint32_t more = n - 4;	/* behind the reserved byte */

			if (task->scsi.cdb_len != 16 || more > SCSI_CDB_MAX - 16)
				return "extended CDB too long, or twice";
			memcpy(task->scsi.cdb + 16, ahs + 4, more);
			task->scsi.cdb_len += more;
		} else if (head.type != PDU_AHS_BIDI_READ_LENGTH) {
			return "unknown additional header segment";
		}
		ahs += (n + 3) & ~3u;
		len -= (n + 3) & ~3u;
	}
	return NULL;
}

static const char *begin_command(struct tgt_task *task, const uint8_t *ahs, uint32_t ahs_len)
{
	memcpy(task->scsi.cdb, task->command.cdb, sizeof(task->command.cdb));
	task->scsi.cdb_len = 16;
	task->edtl = be32_to_cpu(task->command.expected_len);
	/* One long enough to hold all has no unsolicited data behind it, whatever it says. */
	task->unsolicited = !(task->command.flags & PDU_FINAL);
	return take_ahs(task, ahs, ahs_len);
}

static enum pdu_verdict take_request(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
				     const uint8_t *ahs, uint32_t ahs_len)
{
	const struct pdu_request_wire *request = (const void *)bhs;
	uint8_t opcode = bhs->opcode & PDU_OPCODE_MASK;
	const char *fault = request_fault(conn, request);
	struct tgt_task *task;
	enum session_verdict verdict;

	if (fault)
		return refuse(conn, bhs, PDU_REJECT_PROTOCOL_ERROR, fault);
	verdict = session_admit(conn->session, conn, request, &task);
	switch (verdict) {
	case SESSION_IGNORE:
		return PDU_ACCEPTED;
	case SESSION_WAIT:
		return PDU_PAUSE;
	case SESSION_TOO_MANY:
		return reject(conn, bhs, PDU_REJECT_IMMEDIATE);
	case SESSION_IN_USE:
		return refuse(conn, bhs, PDU_REJECT_TASK_IN_PROGRESS,
			      "task tag of a task that is not over");
	case SESSION_TAKEN:
		break;
	}
	if (opcode == PDU_SCSI_COMMAND) {
		fault = begin_command(task, ahs, ahs_len);
		if (fault)
			return refuse(conn, bhs, PDU_REJECT_INVALID_FIELD, fault);
	}
	task->receiving = true;
	conn->rx_task = task;
	if (task->turn)
		task_turn(task);
	task_place(task, be24_to_cpu(bhs->data_len));
	return PDU_ACCEPTED;
}

/* ---- Data-Out ---- */

/* Return: NULL if those are the next bytes of @task; else what is wrong. */
static const char *data_fault(const struct tgt_conn *conn, const struct tgt_task *task,
			      const struct pdu_data_out_wire *d)
{
	uint32_t len = be24_to_cpu(d->data_len), end;
	bool final = d->flags & PDU_FINAL;

	if (task->conn != conn)
		return "data of a command of another connection";
	if (be32_to_cpu(d->offset) != task->out_at)
		return "data that is not the next of its sequence";
	if (be32_to_cpu(d->ttt) == PDU_TAG_NONE) {
		if (!task->unsolicited)
			return "unsolicited data after its end";
		end = task->edtl < conn->params.first_burst ? task->edtl :
							      conn->params.first_burst;
		return len > end - task->out_at ? "more unsolicited data than FirstBurstLength" :
						  NULL;
	}
	end = task->r2t[task->r2t_first].offset + task->r2t[task->r2t_first].len;
	if (len > end - task->out_at)
		return "more data than was asked for";
	if (final != (task->out_at + len == end))
		return "a sequence of another length than asked for";
	return NULL;
}

static enum pdu_verdict take_data(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs)
{
	const struct pdu_data_out_wire *d = (const void *)bhs;
	struct tgt_session *s = conn->session;
	uint32_t ttt = be32_to_cpu(d->ttt), len = be24_to_cpu(d->data_len), room;
	struct tgt_task *task = session_find(s, be32_to_cpu(d->itt));
	const char *fault;

	/* It may have been aborted while this was under way; but never asked for is an error. */
	if (ttt != PDU_TAG_NONE && !sn_before(ttt, s->next_ttt))
		return refuse(conn, bhs, PDU_REJECT_PROTOCOL_ERROR, "unknown target transfer tag");
	if (!task || (task->bhs.opcode & PDU_OPCODE_MASK) != PDU_SCSI_COMMAND)
		return PDU_ACCEPTED;
	if (ttt != PDU_TAG_NONE &&
	    (task->r2t_count == task->r2t_unsent || task->r2t[task->r2t_first].ttt != ttt))
		return PDU_ACCEPTED;
	fault = data_fault(conn, task, d);
	if (fault)
		return refuse(conn, bhs, PDU_REJECT_PROTOCOL_ERROR, fault);
	/*
	 * A wrong DataSN: PDUs are missing, as if their digests had been wrong.  The command ends
	 * with that error when its sequence is over; the connection need not (RFC 7143, 7.8).
	 */
	if (be32_to_cpu(d->data_sn) != task->out_data_sn)
		task->bad_data = true;
	task->out_data_sn++;
	conn->rx_task = task;
	room = task->buf.len > task->out_at ? task->buf.len - task->out_at : 0;
	conn->rx_store_at = task->out_at;
	conn->rx_store = len < room ? len : room;
	conn->rx_discard = len - conn->rx_store;
	return PDU_ACCEPTED;
}

/* ---- all ---- */

enum pdu_verdict conn_header(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			     const uint8_t *ahs, uint32_t ahs_len)
{
	uint8_t opcode = bhs->opcode & PDU_OPCODE_MASK;

	if (conn->logout)
		return refuse(conn, bhs, PDU_REJECT_WAITING_FOR_LOGOUT, "a PDU after the logout");
	if (ahs_len && opcode != PDU_SCSI_COMMAND)
		return refuse(conn, bhs, PDU_REJECT_PROTOCOL_ERROR,
			      "additional header segments where none may be");
	switch (opcode) {
	case PDU_SCSI_COMMAND:
	case PDU_NOP_OUT:
	case PDU_TEXT_REQUEST:
	case PDU_LOGOUT_REQUEST:
	case PDU_TMF_REQUEST:
		return take_request(conn, bhs, ahs, ahs_len);
	case PDU_DATA_OUT:
		return take_data(conn, bhs);
	case PDU_SNACK:
		/* Nothing is sent again at ErrorRecoveryLevel 0. */
		return reject(conn, bhs, PDU_REJECT_SNACK);
	case PDU_LOGIN_REQUEST:
		return refuse(conn, bhs, PDU_REJECT_PROTOCOL_ERROR, "login after the login");
	default:
		return refuse(conn, bhs, PDU_REJECT_NOT_SUPPORTED, "unknown opcode");
	}
}

void conn_pdu_end(struct tgt_conn *conn, bool good)
{
	struct tgt_task *task = conn->rx_task;
	struct pdu_bhs_wire *bhs = &conn->rx_bhs;
	uint8_t opcode = bhs->opcode & PDU_OPCODE_MASK;

	conn->rx_task = NULL;
	conn->bytes_in += be24_to_cpu(bhs->data_len);
	if (!good) {
		/* A command cannot be asked for again at ERL 0; a task can fail (RFC 7143, 7.8). */
		if (opcode != PDU_DATA_OUT) {
			conn_protocol_error(conn, bhs, PDU_REJECT_DATA_DIGEST, "data digest error");
			return;
		}
		log_warning(conn->tgt->env, conn->name, "data digest error, task tag 0x%x",
			    be32_to_cpu(bhs->itt));
		conn_reject(conn, bhs, PDU_REJECT_DATA_DIGEST);
	}
	if (!task)
		return;
	if (opcode == PDU_DATA_OUT) {
		task_data(task, be24_to_cpu(bhs->data_len), bhs->flags & PDU_FINAL, good);
		return;
	}
	task_received(task);
	/* Now the next one's turn has come; it may have been waiting for that. */
	if (conn->session->turn_task == task)
		session_advance(conn->session);
}
