// SPDX-License-Identifier: Apache-2.0
/*
 * Task management: what the transport itself holds of the affected commands ends here, the
 * device server ends the rest.  The answer comes once all are accounted for, and once the data
 * that was asked for on their behalf has arrived: until then the initiator may not use their
 * task tags again (RFC 7143, 4.2.3.3).  An initiator that sends none of it any more gets its
 * answer after a while all the same; what comes later is recognised by its transfer tag.
 */
#include "iscsi/internal.h"

#define DATA_WAIT_NS	NSEC_PER_SEC

/* RFC 7143, 11.5.1 and RFC 7144, 4.1. */
enum {
	FN_TASK_REASSIGN = 8, FN_QUERY_TASK = 9, FN_QUERY_TASK_SET = 10,
	FN_I_T_NEXUS_RESET = 11, FN_QUERY_ASYNC_EVENT = 12,
	RSP_REASSIGN_NOT_SUPPORTED = 4,
};

static void answer(struct tgt_task *task, uint8_t response)
{
	struct pdu_tmf_response_wire *head = (void *)&task->reply_head;
	struct tgt_session *s = task->session;

	/* As a power on would: every session of the target ends (RFC 7143, 11.5.1). */
	if ((task->tmf.function & 0x7f) == SCSI_TMF_TARGET_COLD_RESET &&
	    response == SCSI_TMF_COMPLETE)
		reactor_post(s->tgt->homes[0].reactor, &s->reset_call);
	if (!task->conn || task->conn->state >= CONN_LOGOUT) {
		task->state = TASK_DONE;
		session_release(task);
		return;
	}
	memset(head, 0, sizeof(*head));
	head->opcode = PDU_TMF_RESPONSE;
	head->flags = PDU_FINAL;
	head->response = response;
	head->itt = cpu_to_be32(task->itt);
	task->reply = true;
	task->reply_len = 0;
	task_send(task);
}

/* ---- the end of it ---- */

static bool is_aborting_any(struct tgt_session *s)
{
	struct tgt_conn *conn, *ctmp;
	struct tgt_task *task, *tmp;

	list_for_each(conn, ctmp, &s->conns, session_node)
		list_for_each(task, tmp, &conn->tasks, node)
			if (task->aborting)
				return true;
	return false;
}

/* Return: whether there was one. */
static bool drop_one_aborting(struct tgt_session *s)
{
	struct tgt_conn *conn, *ctmp;
	struct tgt_task *task, *tmp;

	list_for_each(conn, ctmp, &s->conns, session_node) {
		list_for_each(task, tmp, &conn->tasks, node) {
			if (task->aborting) {
				task_drop(task);
				return true;
			}
		}
	}
	return false;
}

void tmf_timeout(struct reactor_timer *t)
{
	struct tgt_session *s = container_of(t, struct tgt_session, tmf_timer);

	while (drop_one_aborting(s))
		;
	tmf_check(s);
}

void tmf_check(struct tgt_session *s)
{
	struct tgt_task *task;

	if (is_aborting_any(s))
		return;
	while (!list_empty(&s->tmfs)) {
		task = list_first(&s->tmfs, struct tgt_task, queue);
		list_del(&task->queue);
		answer(task, (uint8_t)task->tmf_op.response);
	}
}

static void tmf_done(struct scsi_tmf *tmf)
{
	struct tgt_task *task = container_of(tmf, struct tgt_task, tmf_op);
	struct tgt_session *s = task->session;

	if (s->state == SESSION_LIVE && is_aborting_any(s)) {
		list_add_tail(&s->tmfs, &task->queue);
		reactor_timer_set(s->home->reactor, &s->tmf_timer,
				  reactor_now_ns(s->home->reactor) + DATA_WAIT_NS);
		return;
	}
	answer(task, (uint8_t)tmf->response);
}

/* ---- what it means here ---- */

static bool is_command(const struct tgt_task *task)
{
	return (task->bhs.opcode & PDU_OPCODE_MASK) == PDU_SCSI_COMMAND;
}

/* Return: whether @task was there and could be ended by the transport alone. */
static bool end_locally(struct tgt_task *task)
{
	if (task->state == TASK_HELD && task->windowed && !task->turn) {
		session_void_held(task);
		return true;
	}
	if (task->state == TASK_MEMORY || task->state == TASK_DATA) {
		if (!task->aborting)
			task_abort(task);
		return true;
	}
	return false;
}

static bool is_affected(const struct tgt_task *task, const struct tgt_task *tmf, bool all_luns)
{
	if (!is_command(task) || !task->conn)
		return false;
	/* What was numbered after the function is not its business. */
	if (task->state == TASK_HELD && !sn_before(task->cmd_sn, tmf->cmd_sn))
		return false;
	return all_luns || !memcmp(task->bhs.lun, tmf->bhs.lun, sizeof(task->bhs.lun));
}

/* Ending one may end or move others on no list but its own: each pass starts anew. */
static bool end_one_affected(struct tgt_task *tmf, bool all_luns)
{
	struct tgt_conn *conn, *ctmp;
	struct tgt_task *task, *tmp;

	list_for_each(conn, ctmp, &tmf->session->conns, session_node)
		list_for_each(task, tmp, &conn->tasks, node)
			if (is_affected(task, tmf, all_luns) && !task->aborting &&
			    end_locally(task))
				return true;
	return false;
}

static void run(struct tgt_task *task, enum scsi_tmf_fn fn)
{
	struct scsi_tmf *tmf = &task->tmf_op;

	tmf->fn = fn;
	tmf->nexus = task->session->nexus;
	tmf->reactor = task->session->home->reactor;
	memcpy(tmf->lun, task->bhs.lun, sizeof(tmf->lun));
	tmf->tag = be32_to_cpu(task->tmf.ref_itt);
	tmf->done = tmf_done;
	tmf->response = SCSI_TMF_COMPLETE;
	task->state = TASK_RUNNING;
	scsi_tmf(tmf);
}

static void abort_task(struct tgt_task *task)
{
	struct tgt_session *s = task->session;
	struct tgt_task *victim = session_find(s, be32_to_cpu(task->tmf.ref_itt));
	uint32_t sn = be32_to_cpu(task->tmf.ref_cmd_sn);

	if (victim && is_command(victim) && victim->conn == task->conn) {
		if (end_locally(victim)) {
			task->state = TASK_RUNNING;
			task->tmf_op.response = SCSI_TMF_COMPLETE;
			tmf_done(&task->tmf_op);
		} else if (victim->state == TASK_RUNNING) {
			run(task, SCSI_TMF_ABORT_TASK);
		} else {
			answer(task, SCSI_TMF_NO_TASK);	/* its response is on the way */
		}
		return;
	}
	/* Not yet here, on another connection: when it comes it has been (11.5.1). */
	if (!victim && sn_before(sn, task->cmd_sn) && session_void(s, sn))
		answer(task, SCSI_TMF_COMPLETE);
	else
		answer(task, SCSI_TMF_NO_TASK);
}

static void end_set(struct tgt_task *task, enum scsi_tmf_fn fn)
{
	bool all = fn == SCSI_TMF_TARGET_WARM_RESET || fn == SCSI_TMF_TARGET_COLD_RESET ||
		   fn == SCSI_TMF_I_T_NEXUS_RESET;

	task->state = TASK_RUNNING;
	while (end_one_affected(task, all))
		;
	run(task, fn);
}

void tmf_execute(struct tgt_task *task)
{
	uint8_t fn = task->tmf.function & 0x7f;

	switch (fn) {
	case SCSI_TMF_ABORT_TASK:
		abort_task(task);
		break;
	case SCSI_TMF_ABORT_TASK_SET:
	case SCSI_TMF_CLEAR_TASK_SET:
	case SCSI_TMF_LUN_RESET:
	case SCSI_TMF_TARGET_WARM_RESET:
	case SCSI_TMF_TARGET_COLD_RESET:
		end_set(task, (enum scsi_tmf_fn)fn);
		break;
	case SCSI_TMF_CLEAR_ACA:
		run(task, SCSI_TMF_CLEAR_ACA);
		break;
	case FN_TASK_REASSIGN:
		answer(task, RSP_REASSIGN_NOT_SUPPORTED);
		break;
	case FN_QUERY_TASK:
		run(task, SCSI_TMF_QUERY_TASK);
		break;
	case FN_QUERY_TASK_SET:
		run(task, SCSI_TMF_QUERY_TASK_SET);
		break;
	case FN_I_T_NEXUS_RESET:
		end_set(task, SCSI_TMF_I_T_NEXUS_RESET);
		break;
	case FN_QUERY_ASYNC_EVENT:
		run(task, SCSI_TMF_QUERY_ASYNC);
		break;
	default:
		answer(task, SCSI_TMF_UNSUPPORTED);
	}
}
