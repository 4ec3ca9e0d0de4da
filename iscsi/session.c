// SPDX-License-Identifier: Apache-2.0
/*
 * A session: the CmdSN window, the tasks, and an orderly end.
 *
 * The window.  Of commands_max tasks, "outstanding" have arrived and are not yet answered, and
 * of those "held" have a CmdSN that is not the next one; they occupy their place in the window
 * already.  So the window's length is commands_max - (outstanding - held) and
 *
 *	MaxCmdSN = ExpCmdSN + commands_max - (outstanding - held) - 1
 *
 * which moves neither when a command arrives in order (ExpCmdSN + 1, outstanding + 1) nor when
 * a held one's turn comes (ExpCmdSN + 1, held - 1), and grows by one with each answer.
 *
 * The end: every connection closed and every task but those at work released, an I_T nexus
 * reset for the latter, all accounted for, the nexus closed, then registry_session_gone().
 */
#include <stdlib.h>

#include "iscsi/internal.h"

/* While memory is short, so many commands at a time. */
#define COMMANDS_LOW	8

/* ---- making and freeing ---- */

static void reset_done(struct scsi_tmf *tmf);

static void close_posted(struct reactor_call *call)
{
	struct tgt_session *s = container_of(call, struct tgt_session, close_call);

	session_close(s, "closed by the target");
	session_check_end(s);
}

static void leave_posted(struct reactor_call *call)
{
	struct tgt_session *s = container_of(call, struct tgt_session, leave_call);
	struct tgt_conn *conn, *tmp;

	if (s->leave_why) {
		session_drop(s, s->leave_why);
		return;
	}
	list_for_each(conn, tmp, &s->conns, session_node)
		if (conn->state == CONN_FULL && !conn->logout_ns)
			conn_ask_logout(conn, LEAVE_MS);
}

/* Nothing sent to it is on its way any more. */
static void free_posted(struct reactor_call *call)
{
	struct tgt_session *s = container_of(call, struct tgt_session, free_call);

	reactor_post(s->tgt->homes[0].reactor, &s->freed_call);
}

static void init_tasks(struct tgt_session *s)
{
	unsigned int i;

	/* The last ones first, so that the first are used first, again and again. */
	for (i = s->task_count; i-- > 0;) {
		struct tgt_task *task = &s->tasks[i];

		task->session = s;
		task->windowed = i < s->task_count - TASK_IMMEDIATE_MAX;
		list_init(&task->queue);
		list_add_head(task->windowed ? &s->free_tasks : &s->free_immediate, &task->node);
	}
}

struct tgt_session *session_create(struct tgt *tgt, struct tgt_home *home,
				   const struct tgt_params *params)
{
	struct tgt_session *s = calloc(1, sizeof(*s));
	unsigned int itts;

	if (!s)
		return NULL;
	s->tgt = tgt;
	s->home = home;
	s->params = *params;
	s->commands_max = params->discovery ? 4 : tgt->limits.commands_max;
	s->window_len = s->commands_max;
	s->task_count = s->commands_max + TASK_SLACK + TASK_IMMEDIATE_MAX;
	for (itts = 64; itts < 2 * s->task_count;)
		itts *= 2;
	s->itt_mask = itts - 1;
	s->window = calloc(s->window_len, sizeof(struct tgt_task *));
	s->itt_table = calloc(itts, sizeof(struct tgt_task *));
	s->tasks = calloc(s->task_count, sizeof(*s->tasks));
	list_init(&s->node);
	list_init(&s->waiting);
	list_init(&s->home_node);
	list_init(&s->conns);
	list_init(&s->tmfs);
	list_init(&s->free_tasks);
	list_init(&s->free_immediate);
	s->close_call.fn = close_posted;
	s->leave_call.fn = leave_posted;
	s->reset_call.fn = registry_cold_reset;
	s->gone_call.fn = registry_session_gone;
	s->free_call.fn = free_posted;
	s->freed_call.fn = registry_session_freed;
	s->reset.done = reset_done;
	s->tmf_timer.fn = tmf_timeout;
	if (!s->window || !s->itt_table || !s->tasks) {
		session_free(s);
		return NULL;
	}
	init_tasks(s);
	return s;
}

void session_free(struct tgt_session *s)
{
	free(s->tasks);
	free(s->itt_table);
	free(s->window);
	free(s);
}

/* ---- joining ---- */

static enum pdu_login_status start(struct tgt_session *s, const struct tgt_conn *conn)
{
	if (s->target &&
	    scsi_nexus_open(s->target, s->params.initiator, s->params.isid, s->portal_group,
			    &s->nexus))
		return PDU_LOGIN_NO_RESOURCES;
	s->exp_cmd_sn = conn->login_cmd_sn;
	s->max_cmd_sn = s->exp_cmd_sn - 1;
	s->state = SESSION_LIVE;
	list_add_tail(&s->home->sessions, &s->home_node);
	log_info(s->tgt->env, s->params.initiator, "%s: session 0x%04x begins, from %s",
		 *s->params.target ? s->params.target : "discovery", s->tsih, conn->name);
	return PDU_LOGIN_SUCCESS;
}

static struct tgt_conn *find_cid(struct tgt_session *s, uint16_t cid)
{
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &s->conns, session_node)
		if (conn->params.cid == cid)
			return conn;
	return NULL;
}

/* Session-wide values are those of its first login. */
static void copy_session_params(struct tgt_conn *conn, const struct tgt_params *of)
{
	struct tgt_params *p = &conn->params;

	p->connections_max = of->connections_max;
	p->initial_r2t = of->initial_r2t;
	p->immediate_data = of->immediate_data;
	p->burst_max = of->burst_max;
	p->first_burst = of->first_burst;
	p->outstanding_r2t_max = of->outstanding_r2t_max;
}

/* The login's session cannot take it: the connection only says so, and goes. */
static void turn_away(struct tgt_conn *conn, enum pdu_login_status status)
{
	conn->session = NULL;
	conn_attached(conn, status, 0);
}

static void admit_conn(struct tgt_session *s, struct tgt_conn *conn)
{
	list_add_tail(&s->conns, &conn->session_node);
	s->conn_count++;
	copy_session_params(conn, &s->params);
	conn_attached(conn, PDU_LOGIN_SUCCESS, s->tsih);
}

/*
 * A connection of that CID is there already: the login stands for its logout (RFC 7143,
 * 6.3.4), and goes on once the old one's commands are accounted for.
 */
static void reinstate(struct tgt_conn *conn, struct tgt_conn *old)
{
	if (old->successor) {
		turn_away(conn, PDU_LOGIN_UNAVAILABLE);
		return;
	}
	old->left_session = true;
	old->successor = conn;
	conn->predecessor = old;
	conn_close(old, "another login has its connection id");
	reactor_timer_set(conn->home->reactor, &conn->timer, reactor_now_ns(conn->home->reactor) +
			  conn->tgt->limits.login_timeout_ms * NSEC_PER_MSEC);
}

unsigned int session_open_connections(struct tgt_session *s)
{
	struct tgt_conn *conn, *tmp;
	unsigned int count = 0;

	list_for_each(conn, tmp, &s->conns, session_node)
		count += conn_is_open(conn);
	return count;
}

void session_join(struct reactor_call *call)
{
	struct tgt_conn *conn = container_of(call, struct tgt_conn, call);
	struct tgt_session *s = conn->session;
	enum pdu_login_status status;
	struct tgt_conn *old;

	list_add_tail(&conn->home->conns, &conn->home_node);
	if (s->state == SESSION_STARTING) {
		status = start(s, conn);
		if (status == PDU_LOGIN_SUCCESS) {
			admit_conn(s, conn);
			return;
		}
		turn_away(conn, status);
		s->state = SESSION_ENDING;
		session_check_end(s);
	} else if (s->state != SESSION_LIVE || !session_open_connections(s)) {
		turn_away(conn, PDU_LOGIN_NO_SESSION);
	} else if ((old = find_cid(s, conn->params.cid))) {
		reinstate(conn, old);
	} else if (session_open_connections(s) >= s->params.connections_max) {
		turn_away(conn, PDU_LOGIN_TOO_MANY_CONNECTIONS);
	} else {
		admit_conn(s, conn);
	}
}

/* @old is gone: whoever stands for it takes its place. */
static void succeed(struct tgt_session *s, struct tgt_conn *old)
{
	struct tgt_conn *conn = old->successor;

	if (!conn)
		return;
	old->successor = NULL;
	conn->predecessor = NULL;
	reactor_timer_cancel(conn->home->reactor, &conn->timer);
	if (s->state == SESSION_LIVE)
		admit_conn(s, conn);
	else
		turn_away(conn, PDU_LOGIN_NO_SESSION);
}

/* ---- tasks ---- */

static struct tgt_task **itt_bucket(struct tgt_session *s, uint32_t itt)
{
	return &s->itt_table[(itt * 0x9e3779b1u) >> 16 & s->itt_mask];
}

struct tgt_task *session_find(struct tgt_session *s, uint32_t itt)
{
	struct tgt_task *task = *itt_bucket(s, itt);

	while (task && task->itt != itt)
		task = task->itt_next;
	return task;
}

static void itt_remove(struct tgt_session *s, struct tgt_task *task)
{
	struct tgt_task **p = itt_bucket(s, task->itt);

	while (*p && *p != task)
		p = &(*p)->itt_next;
	if (*p)
		*p = task->itt_next;
}

uint32_t session_max_cmd_sn(struct tgt_session *s)
{
	unsigned int busy = s->outstanding - s->held, max = s->commands_max;
	uint32_t sn;

	if (pool_is_low(&s->home->pool) && max > COMMANDS_LOW)
		max = busy > COMMANDS_LOW ? busy : COMMANDS_LOW;
	sn = s->exp_cmd_sn + (max - busy) - 1;
	/* What was once promised is kept (RFC 7143, 4.2.2.1). */
	if (sn_before(s->max_cmd_sn, sn))
		s->max_cmd_sn = sn;
	return s->max_cmd_sn;
}

static struct tgt_task *take_task(struct tgt_session *s, struct tgt_conn *conn,
				  struct list *from, const struct pdu_request_wire *bhs)
{
	struct tgt_task *task = list_first(from, struct tgt_task, node);
	struct tgt_task **bucket;

	list_del(&task->node);
	task->conn = conn;
	task->request = *bhs;
	task->itt = be32_to_cpu(bhs->itt);
	task->cmd_sn = be32_to_cpu(bhs->cmd_sn);
	task->state = TASK_HELD;
	task->credited = task->windowed;
	task->receiving = task->unsolicited = task->bad_data = false;
	task->no_memory = task->aborting = task->begun = task->reply = false;
	task->edtl = task->out_at = task->out_data_sn = task->r2t_at = 0;
	task->r2t_first = task->r2t_count = task->r2t_unsent = 0;
	task->in_at = task->data_sn = task->burst_at = task->reply_len = 0;
	task->response = 0;
	task->scsi.in_len = 0;
	task->scsi.sense_len = 0;
	bucket = itt_bucket(s, task->itt);
	task->itt_next = *bucket;
	*bucket = task;
	list_add_tail(&conn->tasks, &task->node);
	s->tasks_used++;
	s->outstanding += task->credited;
	return task;
}

enum session_verdict session_admit(struct tgt_session *s, struct tgt_conn *conn,
				   const struct pdu_request_wire *bhs, struct tgt_task **out)
{
	uint32_t sn = be32_to_cpu(bhs->cmd_sn), itt = be32_to_cpu(bhs->itt);
	struct list *from = &s->free_immediate;
	struct tgt_task **slot = NULL;

	if (!(bhs->opcode & PDU_IMMEDIATE)) {
		from = &s->free_tasks;
		slot = &s->window[sn % s->window_len];
		if (sn_before(sn, s->exp_cmd_sn) || sn_before(session_max_cmd_sn(s), sn))
			return SESSION_IGNORE;
		if (sn == s->exp_cmd_sn ? s->turn_task != NULL : *slot != NULL)
			return SESSION_IGNORE;	/* there already */
	}
	if (itt != PDU_TAG_NONE && session_find(s, itt))
		return SESSION_IN_USE;
	if (list_empty(from))
		return slot ? SESSION_WAIT : SESSION_TOO_MANY;
	*out = take_task(s, conn, from, bhs);
	(*out)->turn = !slot || sn == s->exp_cmd_sn;
	if (!(*out)->turn) {
		*slot = *out;
		s->held++;
	} else if (slot) {
		s->turn_task = *out;
	}
	return SESSION_TAKEN;
}

bool session_void(struct tgt_session *s, uint32_t sn)
{
	struct tgt_task **slot = &s->window[sn % s->window_len], *task;

	if (sn_before(sn, s->exp_cmd_sn) || sn_before(session_max_cmd_sn(s), sn) || *slot ||
	    list_empty(&s->free_tasks) || (sn == s->exp_cmd_sn && s->turn_task))
		return false;
	if (sn == s->exp_cmd_sn) {
		session_advance(s);
		return true;
	}
	task = list_first(&s->free_tasks, struct tgt_task, node);
	list_del(&task->node);
	task->conn = NULL;
	task->itt = PDU_TAG_NONE;
	task->cmd_sn = sn;
	task->state = TASK_HELD;
	task->turn = task->begun = false;
	task->credited = true;
	*slot = task;
	s->held++;
	s->tasks_used++;
	s->outstanding++;
	return true;
}

static bool is_held(const struct tgt_session *s, const struct tgt_task *task)
{
	return task->windowed && !task->turn && s->window[task->cmd_sn % s->window_len] == task;
}

void session_advance(struct tgt_session *s)
{
	struct tgt_task **slot, *task;

	s->turn_task = NULL;
	for (s->exp_cmd_sn++; s->held; s->exp_cmd_sn++) {
		slot = &s->window[s->exp_cmd_sn % s->window_len];
		task = *slot;
		if (!task || task->cmd_sn != s->exp_cmd_sn)
			return;
		*slot = NULL;
		s->held--;
		task->turn = true;
		if (task->conn)
			task_turn(task);
		else
			session_release(task);
	}
}

void session_void_held(struct tgt_task *task)
{
	struct tgt_conn *conn = task->conn;

	assert(is_held(task->session, task) && conn);
	conn_forget_payload(conn, task);
	memory_put(task);
	list_del(&task->node);
	task->conn = NULL;
	conn_task_gone(conn);
}

void session_credit(struct tgt_task *task)
{
	if (!task->credited)
		return;
	task->credited = false;
	task->session->outstanding--;
}

void session_release(struct tgt_task *task)
{
	struct tgt_session *s = task->session;
	struct tgt_conn *conn = task->conn;
	bool was_turn;

	assert(task->state != TASK_FREE && task->state != TASK_RUNNING && !task->begun);
	if (is_held(s, task)) {
		s->window[task->cmd_sn % s->window_len] = NULL;
		s->held--;
	}
	was_turn = s->turn_task == task;
	session_credit(task);
	itt_remove(s, task);
	list_del(&task->queue);
	list_del(&task->node);
	memory_put(task);
	task->state = TASK_FREE;
	task->conn = NULL;
	list_add_head(task->windowed ? &s->free_tasks : &s->free_immediate, &task->node);
	s->tasks_used--;
	/* It ended while it was being received: its number is used all the same. */
	if (was_turn && s->state == SESSION_LIVE)
		session_advance(s);
	if (conn) {
		conn_forget_payload(conn, task);
		conn_task_gone(conn);
	}
	if (!list_empty(&s->tmfs))
		tmf_check(s);
	if (s->state == SESSION_ENDING && !s->tasks_used)
		session_check_end(s);
}

/* ---- the end ---- */

void session_close(struct tgt_session *s, const char *why)
{
	struct tgt_conn *conn, *tmp;

	if (s->state >= SESSION_ENDING)
		return;
	s->state = SESSION_ENDING;
	list_for_each(conn, tmp, &s->conns, session_node)
		conn_close(conn, why);
}

void session_drop(struct tgt_session *s, const char *why)
{
	struct tgt_conn *conn, *tmp;

	if (s->state != SESSION_LIVE) {
		session_close(s, why);
		session_check_end(s);
		return;
	}
	list_for_each(conn, tmp, &s->conns, session_node)
		conn_drop(conn, why);
}

static void reset_done(struct scsi_tmf *tmf)
{
	struct tgt_session *s = container_of(tmf, struct tgt_session, reset);

	s->reset.done = NULL;
	session_check_end(s);
}

/* Commands at work would end by themselves, but some take minutes. */
static void reset_nexus(struct tgt_session *s)
{
	s->reset_sent = true;
	s->reset.fn = SCSI_TMF_I_T_NEXUS_RESET;
	s->reset.nexus = s->nexus;
	s->reset.reactor = s->home->reactor;
	scsi_tmf(&s->reset);
}

/* A held task without connection is nobody's any more. */
static void release_void(struct tgt_session *s)
{
	unsigned int i;

	for (i = 0; i < s->window_len && s->held; i++)
		if (s->window[i] && !s->window[i]->conn)
			session_release(s->window[i]);
}

void session_leave_nexus(struct tgt_session *s)
{
	if (s->nexus)
		scsi_nexus_close(s->nexus);
	s->nexus = NULL;
}

static void finish(struct tgt_session *s)
{
	s->state = SESSION_GONE;
	reactor_timer_cancel(s->home->reactor, &s->tmf_timer);
	list_del(&s->home_node);
	session_leave_nexus(s);
	reactor_post(s->tgt->homes[0].reactor, &s->gone_call);
}

void session_check_end(struct tgt_session *s)
{
	struct tgt_conn *conn, *tmp;

	if (s->state != SESSION_ENDING)
		return;
	list_for_each(conn, tmp, &s->conns, session_node)
		if (conn->fd.fd >= 0)
			return;
	release_void(s);
	if (s->state != SESSION_ENDING)
		return;		/* the last release has ended it */
	if (s->tasks_used && s->nexus && !s->reset_sent) {
		reset_nexus(s);
		return;
	}
	if (s->tasks_used || !list_empty(&s->conns) || (s->reset_sent && s->reset.done))
		return;
	finish(s);
}

/* A logout of the session waits for all connections but its own. */
static void check_logout(struct tgt_session *s)
{
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &s->conns, session_node)
		if (conn->logout && conn_is_open(conn))
			request_check_logout(conn);
}

void session_conn_closed(struct tgt_session *s, struct tgt_conn *conn)
{
	list_del(&conn->session_node);
	s->conn_count--;
	succeed(s, conn);
	check_logout(s);
	/* The first reactor frees it, perhaps at once. */
	conn->call.fn = registry_conn_gone;
	reactor_post(s->tgt->homes[0].reactor, &conn->call);
	if (s->state == SESSION_LIVE && list_empty(&s->conns))
		s->state = SESSION_ENDING;
	session_check_end(s);
}
