// SPDX-License-Identifier: Apache-2.0
/*
 * A connection's life.
 *
 *	        accept
 *	          │ conn_create()
 *	          ▼   agreed: registry_attach()          conn_attached()
 *	     CONN_LOGIN ──────────► CONN_ATTACH ───────────► CONN_FULL
 *	          │ refused              │ no session            │ logout answered,
 *	          │                      ▼                       │ protocol error
 *	          └────────────────► CONN_LOGOUT ◄───────────────┘
 *	                                 │ all sent, or any failure from any state: conn_close()
 *	                                 ▼
 *	                             CONN_CLOSED ──► last task gone ──► registry_conn_gone()
 *
 * conn_close() only marks; the socket is closed by the connection's end-of-round hook, so that
 * no caller finds it gone under its feet.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iscsi/config.h"
#include "iscsi/internal.h"

#define LINGER_NS	(2 * NSEC_PER_SEC)	/* for a peer to read why it is closed */

static void conn_ready(struct reactor_fd *f, uint32_t events);
static void conn_end(struct reactor_end *e);
static void conn_timer(struct reactor_timer *t);

/* The kernel finds peers that are gone without a word; NOP-In those that hang. */
static void set_socket_options(int fd)
{
	int on = 1, idle_s = 30, interval_s = 10, count = 3, unacked_ms = 60000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
}

static int alloc_buffers(struct tgt_conn *conn, uint32_t rx_len, unsigned int iov_max,
			 uint32_t head_max)
{
	uint8_t *rx = malloc(rx_len);
	struct iovec *iov = calloc(iov_max, sizeof(*iov));
	uint8_t *head = malloc(head_max);

	if (!rx || !iov || !head) {
		free(head);
		free(iov);
		free(rx);
		return -ENOMEM;
	}
	/* What is received already moves along; there is nothing being sent. */
	conn->rx_tail -= conn->rx_head;
	if (conn->rx_tail)
		memcpy(rx, conn->rx_buf + conn->rx_head, conn->rx_tail);
	conn->rx_head = 0;
	free(conn->rx_buf);
	free(conn->tx_iov);
	free(conn->tx_head);
	conn->rx_buf = rx;
	conn->rx_len = rx_len;
	conn->tx_iov = iov;
	conn->tx_iov_max = iov_max;
	conn->tx_head = head;
	conn->tx_head_max = head_max;
	return 0;
}

static void init_lists(struct tgt_conn *conn)
{
	unsigned int i;

	list_init(&conn->home_node);
	list_init(&conn->session_node);
	list_init(&conn->half_node);
	list_init(&conn->wait_node);
	list_init(&conn->tx_queue);
	list_init(&conn->tx_notes);
	list_init(&conn->tx_sent);
	list_init(&conn->tx_notes_sent);
	list_init(&conn->notes_free);
	list_init(&conn->tasks);
	for (i = 0; i < NOTES_MAX; i++)
		list_add_tail(&conn->notes_free, &conn->notes[i].node);
}

static int conn_prepare(struct tgt_conn *conn, struct tgt *tgt, int fd,
			const struct tgt_peer *peer)
{
	int err;

	conn->tgt = tgt;
	conn->home = &tgt->homes[0];
	conn->peer = *peer;
	conn->fd.fd = fd;
	conn->fd.ready = conn_ready;
	conn->timer.fn = conn_timer;
	reactor_end_init(&conn->end, conn_end);
	init_lists(conn);
	tgt_portal_format(&peer->remote, conn->name);
	err = alloc_buffers(conn, RX_LOGIN_LEN, TX_LOGIN_IOV, TX_LOGIN_HEAD);
	if (err)
		return err;
	err = tgt_login_create(tgt->env, tgt->config->config, peer, &conn->login);
	if (err)
		return err;
	conn->config = tgt->config;
	atomic_fetch_add(&conn->config->users, 1);
	return 0;
}

void conn_login_end(struct tgt_conn *conn)
{
	if (conn->login)
		tgt_login_destroy(conn->login);
	conn->login = NULL;
}

static void free_memory(struct tgt_conn *conn)
{
	conn_login_end(conn);
	if (conn->text)
		tgt_text_destroy(conn->text);
	if (conn->config)
		atomic_fetch_sub(&conn->config->users, 1);
	free(conn->rx_buf);
	free(conn->tx_iov);
	free(conn->tx_head);
	free(conn);
}

int conn_create(struct tgt *tgt, int fd, const struct tgt_peer *peer)
{
	struct tgt_conn *conn = calloc(1, sizeof(*conn));
	int err = -ENOMEM;

	if (!conn)
		goto close_fd;
	set_socket_options(fd);
	err = conn_prepare(conn, tgt, fd, peer);
	if (err)
		goto free_conn;
	err = -ENOMEM;
	conn->address = address_get(tgt, &peer->remote);
	if (!conn->address)
		goto free_conn;
	err = conn_start(conn);
	if (err) {
		address_put(tgt, conn->address);
		goto free_conn;
	}
	list_add_tail(&conn->home->conns, &conn->home_node);
	tgt->connection_count++;
	half_open_begin(conn);
	conn->rx_ns = reactor_now_ns(conn->home->reactor);
	reactor_timer_set(conn->home->reactor, &conn->timer,
			  conn->rx_ns + tgt->limits.login_timeout_ms * NSEC_PER_MSEC);
	return 0;

free_conn:
	free_memory(conn);
close_fd:
	close(fd);
	return err;
}

void conn_free(struct tgt_conn *conn)
{
	free_memory(conn);
}

/* ---- events ---- */

static uint32_t events_wanted(const struct tgt_conn *conn)
{
	uint32_t events = conn->tx_blocked ? EPOLLOUT : 0;

	/* One that ends has its last words read by the peer before anything else is. */
	if (conn->state == CONN_LOGOUT)
		return events | (conn->shut ? EPOLLIN : 0);
	return events | (conn->rx_paused ? 0 : EPOLLIN);
}

int conn_start(struct tgt_conn *conn)
{
	return reactor_add(conn->home->reactor, &conn->fd, events_wanted(conn));
}

static void conn_ready(struct reactor_fd *f, uint32_t events)
{
	struct tgt_conn *conn = container_of(f, struct tgt_conn, fd);

	if (conn->state == CONN_CLOSED)
		return;
	if (events & EPOLLIN && conn->state == CONN_LOGOUT)
		conn_drain(conn);
	else if (events & EPOLLIN && !conn->rx_paused)
		conn_readable(conn);
	else if (events & (EPOLLERR | EPOLLHUP))
		conn_close(conn, "connection lost");
	if (events & EPOLLOUT) {
		conn->tx_blocked = false;
		conn_kick(conn);
	}
}

void conn_kick(struct tgt_conn *conn)
{
	reactor_at_end(conn->home->reactor, &conn->end);
}

/* Also from here on the socket's silence is the initiator's: there is no other sign of life. */
static void update_events(struct tgt_conn *conn)
{
	if (conn->fd.added)
		reactor_change(conn->home->reactor, &conn->fd, events_wanted(conn));
}

static void release_notes(struct tgt_conn *conn)
{
	list_splice_tail(&conn->notes_free, &conn->tx_notes);
	list_splice_tail(&conn->notes_free, &conn->tx_notes_sent);
}

/* Ending one may end others: each pass starts anew. */
bool conn_end_task(struct tgt_conn *conn, const struct tgt_task *except, enum task_state below)
{
	struct tgt_task *task, *tmp;

	list_for_each(task, tmp, &conn->tasks, node) {
		if (task == except || task->state == TASK_RUNNING || task->state >= below)
			continue;
		task_end(task);
		return true;
	}
	return false;
}

/* The socket goes, and with it every task that is not at work in the device server. */
static void teardown(struct tgt_conn *conn)
{
	reactor_remove(conn->home->reactor, &conn->fd);
	reactor_timer_cancel(conn->home->reactor, &conn->timer);
	list_del(&conn->home_node);
	if (conn->fd.fd >= 0)
		close(conn->fd.fd);
	conn->fd.fd = -1;
	release_notes(conn);
	conn->tx_iov_at = conn->tx_iov_count = 0;
	if (conn->session)
		log_info(conn->tgt->env, conn->params.initiator, "%s: connection from %s closed: %s",
			 *conn->params.target ? conn->params.target : "discovery", conn->name,
			 conn->why);
	else
		log_debug(conn->tgt->env, conn->name, "connection closed during login: %s",
			  conn->why);
	/* Tasks that are still at work keep the connection, and the connection keeps them. */
	while (conn_end_task(conn, NULL, TASK_SENDING + 1))
		;
}

static void gone(struct tgt_conn *conn)
{
	assert(!conn->is_gone);
	conn->is_gone = true;
	if (conn->session) {
		session_conn_closed(conn->session, conn);
		return;
	}
	conn->call.fn = registry_conn_gone;
	reactor_post(conn->tgt->homes[0].reactor, &conn->call);
}

static void conn_end(struct reactor_end *e)
{
	struct tgt_conn *conn = container_of(e, struct tgt_conn, end);

	/*
	 * Another reactor may have it from here on.  So this is done where nobody up the stack
	 * touches it afterwards.
	 */
	if (conn->state == CONN_ATTACH && !conn->handed_over) {
		conn->handed_over = true;
		registry_attach(conn);
		return;
	}
	if (conn->state != CONN_CLOSED) {
		conn_flush(conn);
		if (conn->rx_paused && conn->state != CONN_CLOSED)
			conn_resume(conn);
		if (conn->state == CONN_LOGOUT && conn_tx_idle(conn) && !conn->shut) {
			/* Closing now would have the kernel take back what is not yet read. */
			conn->shut = true;
			shutdown(conn->fd.fd, SHUT_WR);
		}
		if (conn->state != CONN_CLOSED) {
			update_events(conn);
			return;
		}
	}
	if (conn->fd.fd >= 0)
		teardown(conn);
	if (conn->is_gone)
		return;
	if (list_empty(&conn->tasks)) {
		reactor_end_cancel(conn->home->reactor, &conn->end);
		gone(conn);
	} else if (conn->session) {
		session_check_end(conn->session);
	}
}

void conn_close(struct tgt_conn *conn, const char *why)
{
	if (conn->state == CONN_CLOSED)
		return;
	conn->state = CONN_CLOSED;
	conn->why = why;
	half_open_end(conn);
	list_del(&conn->wait_node);
	/* ERL 0: what was lost with one connection is lost to the session (RFC 7143, 7.1.5). */
	if (conn->session && !conn->left_session)
		session_close(conn->session, why);
	conn_kick(conn);
}

void conn_finish(struct tgt_conn *conn, const char *why)
{
	if (!conn_is_open(conn))
		return;
	conn->state = CONN_LOGOUT;
	conn->why = why;
	half_open_end(conn);
	reactor_timer_set(conn->home->reactor, &conn->timer,
			  reactor_now_ns(conn->home->reactor) + LINGER_NS);
	conn_kick(conn);
}

void conn_task_gone(struct tgt_conn *conn)
{
	if (conn->state == CONN_CLOSED) {
		if (list_empty(&conn->tasks))
			conn_kick(conn);
		return;
	}
	if (conn->rx_paused)
		conn_kick(conn);
	if (conn->logout)
		request_check_logout(conn);
}

/* ---- dead peers ---- */

static void ping(struct tgt_conn *conn, uint64_t now)
{
	struct conn_note *note = conn_note(conn);

	if (!note)
		return;
	if (++conn->ping_ttt == PDU_TAG_NONE)
		conn->ping_ttt = 0;
	note->head.opcode = PDU_NOP_IN;
	note->head.flags = PDU_FINAL;
	note->head.itt = cpu_to_be32(PDU_TAG_NONE);
	note->head.ttt = cpu_to_be32(conn->ping_ttt);
	conn->ping_ns = now;
}

/* When the connection is to be looked at again; 0: it is dead. */
static uint64_t next_look(struct tgt_conn *conn, uint64_t now)
{
	const struct tgt_limits *limits = &conn->tgt->limits;
	uint64_t interval = limits->nop_interval_ms * NSEC_PER_MSEC;
	uint64_t timeout = limits->nop_timeout_ms * NSEC_PER_MSEC;

	/* Something to send, and the peer has taken none of it for that long. */
	if (conn->tx_blocked && now - conn->tx_ns >= timeout)
		return 0;
	/* While we do not read, its silence says nothing. */
	if (conn->rx_paused)
		return now + timeout;
	if (conn->ping_ns && conn->rx_ns >= conn->ping_ns)
		conn->ping_ns = 0;
	if (conn->ping_ns)
		return now - conn->ping_ns >= timeout ? 0 : conn->ping_ns + timeout;
	if (now - conn->rx_ns >= interval) {
		ping(conn, now);
		return now + timeout;
	}
	return conn->rx_ns + interval;
}

static void conn_timer(struct reactor_timer *t)
{
	struct tgt_conn *conn = container_of(t, struct tgt_conn, timer);
	uint64_t now = reactor_now_ns(conn->home->reactor), next;

	if (conn->state == CONN_LOGIN || conn->state == CONN_ATTACH) {
		list_del(&conn->wait_node);
		if (conn->predecessor)
			conn->predecessor->successor = NULL;
		conn->session = NULL;
		conn_close(conn, "login timeout");
		return;
	}
	if (conn->state == CONN_LOGOUT) {
		conn_close(conn, conn->why);
		return;
	}
	if (conn->logout_ns && now >= conn->logout_ns) {
		conn_close(conn, "did not log out when asked to");
		return;
	}
	next = next_look(conn, now);
	if (next && conn->logout_ns && next > conn->logout_ns)
		next = conn->logout_ns;
	if (!next)
		conn_close(conn, "the initiator does not answer");
	else
		reactor_timer_set(conn->home->reactor, &conn->timer, next);
}

/* Return: NULL if there is no room for it; the initiator then has to do without. */
static struct pdu_async_wire *async_message(struct tgt_conn *conn, enum pdu_async_event event)
{
	struct conn_note *note = conn_note(conn);
	struct pdu_async_wire *head;

	if (!note)
		return NULL;
	head = (void *)&note->head;
	head->opcode = PDU_ASYNC_MESSAGE;
	head->flags = PDU_FINAL;
	head->itt = cpu_to_be32(PDU_TAG_NONE);
	head->event = (uint8_t)event;
	note->counts = true;
	return head;
}

void conn_ask_logout(struct tgt_conn *conn, unsigned int timeout_ms)
{
	struct pdu_async_wire *head = async_message(conn, PDU_ASYNC_LOGOUT);

	conn->logout_ns = reactor_now_ns(conn->home->reactor) + timeout_ms * NSEC_PER_MSEC;
	reactor_timer_set(conn->home->reactor, &conn->timer, conn->logout_ns);
	if (head)
		head->parameter3 = cpu_to_be16((uint16_t)(timeout_ms / 1000));
}

void conn_drop(struct tgt_conn *conn, const char *why)
{
	if (!conn_is_open(conn))
		return;
	/* It may log in again at once, and finds no task of before: both times are 0. */
	if (conn->state == CONN_FULL)
		async_message(conn, PDU_ASYNC_DROP_SESSION);
	conn_finish(conn, why);
}

/* ---- login ---- */

static void handle_login(struct tgt_conn *conn, enum tgt_login_result result,
			 struct tgt_reply *reply)
{
	if (result == TGT_LOGIN_ATTACH) {
		conn->state = CONN_ATTACH;
		conn->rx_paused = true;
		conn->params = *tgt_login_params(conn->login);
		conn_kick(conn);	/* conn_end() hands it over */
		return;
	}
	if (reply->valid)
		conn_send_reply(conn, reply);
	if (result == TGT_LOGIN_CLOSE)
		conn_finish(conn, "login refused");
	else
		conn->rx_paused = true;		/* until the reply is sent */
	conn_kick(conn);
}

void conn_login_pdu(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs, const uint8_t *data,
		    uint32_t data_len)
{
	const struct pdu_request_wire *request = (const void *)bhs;
	struct tgt_reply reply = { 0 };

	if (!conn->sn_known) {
		conn->stat_sn = be32_to_cpu(request->exp_stat_sn);
		conn->login_cmd_sn = be32_to_cpu(request->cmd_sn);
		conn->sn_known = true;
	}
	handle_login(conn, tgt_login_receive(conn->login, bhs, data, data_len, &reply), &reply);
}

/* The connection becomes its session's: larger buffers, other timers. */
static enum pdu_login_status enter_full(struct tgt_conn *conn)
{
	struct reactor *r = conn->home->reactor;

	if (alloc_buffers(conn, RX_LEN, TX_IOV_MAX, TX_HEAD_LEN))
		return PDU_LOGIN_NO_RESOURCES;
	conn->rx_ns = reactor_now_ns(r);
	conn->tx_ns = conn->rx_ns;
	if (conn->tgt->limits.nop_interval_ms)
		reactor_timer_set(r, &conn->timer, conn->rx_ns +
				  conn->tgt->limits.nop_interval_ms * NSEC_PER_MSEC);
	return PDU_LOGIN_SUCCESS;
}

void conn_attached(struct tgt_conn *conn, enum pdu_login_status status, uint16_t tsih)
{
	struct tgt_reply reply = { 0 };
	enum tgt_login_result result;

	if (conn_start(conn)) {
		conn->state = CONN_CLOSED;
		conn->why = "its socket cannot be watched";
		if (conn->session)
			session_close(conn->session, conn->why);
		conn_kick(conn);
		return;
	}
	if (status == PDU_LOGIN_SUCCESS)
		status = enter_full(conn);
	result = tgt_login_attached(conn->login, status, tsih, &reply);
	if (result == TGT_LOGIN_FULL)
		conn->state = CONN_FULL;
	conn->rx_paused = true;		/* until the reply, whose data is the login's, is sent */
	if (reply.valid)
		conn_send_reply(conn, &reply);
	if (result != TGT_LOGIN_FULL)
		conn_finish(conn, "login refused");
	conn_kick(conn);
}

void conn_move(struct tgt_conn *conn, struct tgt_home *home, void (*fn)(struct reactor_call *))
{
	reactor_remove(conn->home->reactor, &conn->fd);
	reactor_timer_cancel(conn->home->reactor, &conn->timer);
	reactor_end_cancel(conn->home->reactor, &conn->end);
	list_del(&conn->home_node);
	conn->home = home;
	conn->call.fn = fn;
	reactor_post(home->reactor, &conn->call);
}

/* ---- PDUs of our own ---- */

struct conn_note *conn_note(struct tgt_conn *conn)
{
	struct conn_note *note;

	if (list_empty(&conn->notes_free))
		return NULL;
	note = list_first(&conn->notes_free, struct conn_note, node);
	list_del(&note->node);
	memset(&note->head, 0, sizeof(note->head));
	note->data_len = 0;
	note->counts = false;
	list_add_tail(&conn->tx_notes, &note->node);
	conn_kick(conn);
	return note;
}

bool conn_reject(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
		 enum pdu_reject_reason reason)
{
	struct conn_note *note = conn_note(conn);
	struct pdu_reject_wire *head;

	if (!note)
		return false;
	head = (void *)&note->head;
	head->opcode = PDU_REJECT;
	head->flags = PDU_FINAL;
	head->reason = (uint8_t)reason;
	head->itt = cpu_to_be32(PDU_TAG_NONE);
	memcpy(note->data, bhs, PDU_BHS_LEN);
	note->data_len = PDU_BHS_LEN;
	note->counts = true;
	return true;
}

void conn_protocol_error(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			 enum pdu_reject_reason reason, const char *why)
{
	log_warning(conn->tgt->env, conn->name, "%s (opcode 0x%02x, task tag 0x%x): closing",
		    why, bhs->opcode, be32_to_cpu(bhs->itt));
	conn_reject(conn, bhs, reason);
	conn_finish(conn, why);
}
