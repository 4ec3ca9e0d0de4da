/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport's own structures: who owns what, and on which reactor.
 *
 *	tgt ── portals, addresses, sessions by name      first reactor (registry.c, portal.c)
 *	 └─ home, one a reactor ── memory, connections
 *	     └─ session ── tasks, CmdSN window           its reactor (session.c, task.c)
 *	         └─ conn ── receive and send buffers     its reactor (conn*.c)
 *
 * A connection begins on the first reactor, logs in there, moves to the reactor of its
 * session (conn->call carries it over) and comes back to be counted out and freed.  What
 * crosses is a struct reactor_call; nothing here has a lock.
 */
#ifndef LUNFS_ISCSI_INTERNAL_H
#define LUNFS_ISCSI_INTERNAL_H

#include <stdatomic.h>

#include "iscsi/login.h"
#include "iscsi/pool.h"
#include "iscsi/tgt.h"

enum {
	TASK_IMMEDIATE_MAX	= 32,	/* of a session, beside the CmdSN window */
	TASK_SLACK		= 32,	/* answered, but not yet sent */
	R2T_MAX			= 8,	/* outstanding ones of a task */
	NOTES_MAX		= 16,	/* PDUs of our own waiting to be sent, of a connection */
	RX_LOGIN_LEN		= 16384, /* holds the largest PDU of a login */
	RX_LEN			= 65536,
	RX_LONG			= 16384, /* payloads from here on are read to where they belong */
	RX_AHEAD		= 512,	/* and then little is read ahead of the next header */
	TX_LOGIN_IOV		= 4,
	TX_LOGIN_HEAD		= 128,
	TX_IOV_MAX		= 512,
	TX_HEAD_LEN		= 16384,
	/*
	 * What a connection sends in a round, about: between such portions commands are received
	 * and given to the devices, and data is sent while the cache still has it.
	 */
	TX_ROUND		= 512 << 10,
	SINK_LEN		= 65536,
};
static_assert(RX_LOGIN_LEN > PDU_BHS_LEN + PDU_AHS_LEN_MAX + PDU_LOGIN_DATA_MAX + 16,
	      "a login PDU is looked at in one piece");

struct tgt_conn;
struct tgt_session;
struct tgt_home;

enum task_state {
	TASK_FREE,
	TASK_HELD,	/* its CmdSN is not yet the next one */
	TASK_MEMORY,	/* begun, waits for a buffer */
	TASK_DATA,	/* begun, data-out is on its way */
	TASK_RUNNING,	/* scsi_cmd_run(), or a task management function at work */
	TASK_DONE,	/* has its result; waits for the rest of its data to be thrown away */
	TASK_SENDING,	/* on the connection's send queue, or being sent */
};

struct task_r2t {
	uint32_t	ttt;
	uint32_t	offset;
	uint32_t	len;
};

/* A request of the initiator, from its header until its answer has been sent. */
struct tgt_task {
	struct scsi_cmd	scsi;
	struct scsi_tmf	tmf_op;		/* of a task management function */
	struct tgt_session *session;
	struct tgt_conn	*conn;		/* the one it came on: allegiance; NULL: void */
	struct tgt_task	*itt_next;	/* session->itt_table */
	struct list	node;		/* conn->tasks, or a free list */
	struct list	queue;		/* home->waiting, conn->tx_queue or conn->tx_sent */
	enum task_state	state;
	uint32_t	itt;
	uint32_t	cmd_sn;
	union {
		struct pdu_bhs_wire bhs;	/* as received */
		struct pdu_request_wire request;
		struct pdu_scsi_command_wire command;
		struct pdu_tmf_request_wire tmf;
		struct pdu_text_request_wire text;
		struct pdu_logout_request_wire logout;
		struct pdu_nop_out_wire nop;
	};
	bool		windowed;	/* from the CmdSN window's tasks, not the immediate ones */
	bool		credited;	/* counts in session->outstanding */
	bool		turn;		/* its CmdSN has come */
	bool		receiving;	/* its own PDU's data segment is being received */
	bool		unsolicited;	/* more unsolicited data comes */
	bool		bad_data;	/* a data digest was wrong */
	bool		no_memory;	/* its data had to be thrown away */
	bool		aborting;	/* ended by the transport; waits for solicited data */
	bool		begun;		/* scsi_cmd_begin() returned true, not yet run or cancelled */

	/* the buffer */
	struct pool_buf	buf;
	uint64_t	memory_ns;	/* since when it waits for it, has it, or sends from it */

	/* data-out; strictly in order: DataPDUInOrder and DataSequenceInOrder are Yes */
	uint32_t	edtl;		/* Expected Data Transfer Length */
	uint32_t	out_at;		/* bytes of the transfer received, thrown away or not */
	uint32_t	out_data_sn;	/* next DataSN of the present sequence */
	uint32_t	r2t_at;		/* solicited up to here */
	unsigned int	r2t_first, r2t_count;	/* outstanding, a ring in r2t[] */
	unsigned int	r2t_unsent;	/* the last ones of them have still to be sent */
	struct task_r2t	r2t[R2T_MAX];

	/* what is sent */
	uint32_t	in_at;		/* bytes of data-in handed to the socket */
	uint32_t	data_sn;	/* Data-In and R2T share ExpDataSN */
	uint32_t	burst_at;	/* bytes of the present Data-In sequence */
	uint8_t		response;	/* enum pdu_response; of a TMF or logout its response */
	bool		reply;		/* a whole PDU in reply_head, its data in the buffer */
	struct pdu_reply_wire reply_head;
	uint32_t	reply_len;
	uint64_t	tx_end;		/* position in the connection's stream behind its last byte */
};

/* A PDU of the connection's own: Reject, NOP-In, Async Message. */
struct conn_note {
	struct list	node;
	struct pdu_reply_wire head;
	uint8_t		data[PDU_BHS_LEN];
	uint32_t	data_len;
	bool		counts;		/* StatSN is counted up */
	uint64_t	tx_end;
};

enum conn_state {
	CONN_LOGIN,	/* on the first reactor */
	CONN_ATTACH,	/* waits for its session */
	CONN_FULL,	/* full feature phase */
	CONN_LOGOUT,	/* answered a logout, or refused: closes when all is sent */
	CONN_CLOSED,	/* socket closed; waits for its commands */
};

enum rx_state { RX_HEADER, RX_PAYLOAD };

/* What is counted of one address; the first reactor's. */
struct tgt_address {
	struct list	node;
	uint8_t		ip[16];		/* IPv4 as mapped into IPv6 */
	unsigned int	connections;
	unsigned int	half_open;
};

struct tgt_conn {
	/* owner */
	struct tgt	*tgt;
	struct tgt_home	*home;		/* the reactor it is on now */
	struct tgt_session *session;	/* from CONN_FULL on */
	struct list	home_node;	/* home->conns */
	struct list	session_node;	/* session->conns */
	struct list	half_node;	/* tgt->half_open, the oldest first */
	struct list	wait_node;	/* session->waiting: for a session to end */
	struct tgt_address *address;
	struct reactor_call call;	/* to the session's reactor, and back */
	struct reactor_end end;
	struct reactor_timer timer;
	enum conn_state	state;
	const char	*why;		/* it was closed */
	bool		shut;		/* CONN_LOGOUT: all is sent, the peer closes now */
	bool		is_gone;	/* on its way to be freed */
	bool		handed_over;	/* to the registry, and on to its session's reactor */
	bool		left_session;	/* logged out alone: its session goes on without it */
	struct tgt_conn	*successor;	/* logs in with the same CID, waits for our end */
	struct tgt_conn	*predecessor;
	struct reactor_fd fd;
	struct tgt_peer	peer;
	char		name[64];	/* address and port, for messages */
	struct tgt_params params;
	struct tgt_login *login;
	struct tgt_config_ref *config;
	struct tgt_text	*text;
	bool		sn_known;	/* StatSN and CmdSN begin with the first login PDU */
	uint32_t	login_cmd_sn;
	enum pdu_login_status attach_status;	/* of registry_attach() */

	/* receiving */
	enum rx_state	rx_state;
	bool		rx_paused;	/* waits for a task or a note to be sent */
	bool		rx_long;	/* the last payload was long */
	uint8_t		*rx_buf;
	uint32_t	rx_len;
	uint32_t	rx_head, rx_tail;
	struct pdu_bhs_wire rx_bhs;
	struct tgt_task	*rx_task;	/* where the payload goes; NULL: nowhere */
	uint32_t	rx_store_at;	/* offset in its buffer */
	uint32_t	rx_store;	/* bytes that still go there */
	uint32_t	rx_discard;	/* bytes to throw away after that */
	uint32_t	rx_trailer;	/* padding and digest bytes still missing */
	uint32_t	rx_trailer_at;
	uint8_t		rx_trailer_buf[8];
	uint32_t	rx_pad;
	uint32_t	rx_crc;
	uint64_t	rx_ns;		/* when something was last received */

	/* sending */
	struct list	tx_queue;	/* tasks with something to send */
	struct list	tx_notes;	/* notes to send, before tasks */
	struct list	tx_sent;	/* tasks whose last byte is prepared */
	struct list	tx_notes_sent;
	struct list	notes_free;
	struct conn_note notes[NOTES_MAX];
	struct iovec	*tx_iov;
	unsigned int	tx_iov_max, tx_iov_at, tx_iov_count;
	uint8_t		*tx_head;	/* headers, digests and padding on their way out */
	uint32_t	tx_head_max, tx_head_len;
	uint64_t	tx_prepared, tx_done;	/* bytes of the stream */
	uint64_t	tx_ns;		/* when sending last got on */
	bool		tx_blocked;	/* the socket is full */
	uint32_t	stat_sn;

	/* full feature phase */
	struct list	tasks;		/* all that came on it and are not free */
	struct tgt_task	*logout;	/* to be answered once nothing else is left */
	uint64_t	ping_ns;	/* when our NOP-In was sent that is not answered; 0: none */
	uint32_t	ping_ttt;
	uint64_t	logout_ns;	/* asked to log out until then; 0: not */

	uint64_t	commands, bytes_in, bytes_out;
	uint64_t	moved;		/* bytes in and out, when memory.c last looked */
};

enum session_state { SESSION_STARTING, SESSION_LIVE, SESSION_ENDING, SESSION_GONE };

struct tgt_session {
	struct tgt	*tgt;
	struct tgt_home	*home;
	struct list	node;		/* tgt->sessions; the first reactor's */
	struct list	waiting;	/* connections that wait for its end; the first reactor's */
	bool		closing;	/* the first reactor has asked for its end */
	struct reactor_call close_call;	/* to its reactor */
	bool		leaving;	/* the first reactor has had it asked to end */
	const char	*leave_why;	/* NULL: it is asked to log out; else it is dropped, for that */
	struct reactor_call leave_call;
	struct reactor_call reset_call;	/* to the first one: a TARGET COLD RESET came by it */
	struct reactor_call gone_call;	/* to the first one */
	struct reactor_call free_call;	/* and back, behind all that was sent to it */
	struct reactor_call freed_call;	/* and to the first one again, which frees it */

	/* immutable */
	struct tgt_params params;	/* of its first connection */
	uint16_t	tsih;
	uint16_t	portal_group;
	struct scsi_target *target;	/* NULL: discovery */

	/* its reactor's */
	enum session_state state;
	struct list	home_node;
	struct list	conns;
	unsigned int	conn_count;
	struct scsi_nexus *nexus;
	uint32_t	exp_cmd_sn;
	uint32_t	max_cmd_sn;	/* as last said to the initiator */
	unsigned int	commands_max;
	unsigned int	outstanding;	/* windowed tasks not yet answered */
	unsigned int	held;
	struct tgt_task	*turn_task;	/* has CmdSN = ExpCmdSN and is being received */
	struct tgt_task	**window;	/* tasks held, by CmdSN modulo window_len */
	unsigned int	window_len;
	struct tgt_task	*tasks;
	unsigned int	task_count;
	struct list	free_tasks;
	struct list	free_immediate;
	struct tgt_task	**itt_table;
	unsigned int	itt_mask;
	uint32_t	next_ttt;
	unsigned int	tasks_used;
	bool		reset_sent;
	struct scsi_tmf	reset;		/* I_T NEXUS RESET at its end */
	struct list	tmfs;		/* tmf_work that waits for data of aborted tasks */
	struct reactor_timer tmf_timer;
};

/* What each reactor has. */
struct tgt_home {
	struct tgt	*tgt;
	struct reactor	*reactor;
	unsigned int	index;
	struct pool	pool;
	struct list	waiting;	/* tasks that wait for memory */
	struct reactor_end memory_end;
	struct reactor_timer memory_timer;
	uint64_t	refused_since_ns, refused_ns;	/* memory, to those who cannot wait */
	struct list	conns;
	struct list	sessions;
	unsigned int	session_count;	/* the first reactor's view */
	uint8_t		*sink;		/* SINK_LEN: for what nobody wants */
};

struct tgt_config_ref {
	const struct tgt_config *config;
	atomic_uint	users;
	struct list	node;
};

struct tgt_listener {
	struct tgt	*tgt;
	struct list	node;
	struct reactor_fd fd;
	struct reactor_timer retry;	/* out of descriptors */
	uint16_t	group;
};

struct tgt {
	struct env	*env;
	struct tgt_limits limits;
	struct scsi_target *(*find_target)(void *arg, const char *iqn);
	void		*arg;
	struct tgt_home	*homes;
	unsigned int	home_count;

	/* the first reactor's */
	struct list	portals;
	struct list	addresses;
	struct list	half_open;
	unsigned int	half_open_count;
	unsigned int	connection_count;	/* all of them */
	struct list	sessions;
	unsigned int	session_count;
	uint16_t	next_tsih;
	struct list	configs;
	struct tgt_config_ref *config;
	bool		closing;
	struct env_mutex mutex;		/* only for tgt_destroy() to wait for the end */
	struct env_cond	ended;
	bool		empty;		/* under the mutex */
	bool		stopped;	/* tgt_stop() was called */
};

enum { LEAVE_MS = 3000 };	/* for who is asked to log out */

/* ---- portal.c: the first reactor ---- */

void portal_close_all(struct tgt *tgt);
/** portal_make_room() - whether one more may come from @sa, for which an older one may go. */
bool portal_make_room(struct tgt *tgt, const struct sockaddr_storage *sa);
/** address_get() - counts a connection from there.  NULL: no memory. */
struct tgt_address *address_get(struct tgt *tgt, const struct sockaddr_storage *sa);
void address_put(struct tgt *tgt, struct tgt_address *address);
void half_open_begin(struct tgt_conn *conn);
/** half_open_end() - @conn has logged in, or goes: it is no longer half-open. */
void half_open_end(struct tgt_conn *conn);

/* ---- registry.c: the first reactor ---- */

/** registry_attach() - finds or makes the session that @conn's login asks for. */
void registry_attach(struct tgt_conn *conn);
/** registry_conn_gone() - posted by a connection at its very end; frees it. */
void registry_conn_gone(struct reactor_call *call);
void registry_session_gone(struct reactor_call *call);
void registry_session_freed(struct reactor_call *call);
/** registry_close_all() - the end of every session. */
void registry_close_all(struct tgt *tgt);
/** registry_cold_reset() - posted by a session: every session of its target ends. */
void registry_cold_reset(struct reactor_call *call);
/** registry_enforce() - asks those to log out that the configuration lets in no more. */
void registry_enforce(struct tgt *tgt);
/** registry_count() - sessions of target @iqn that are not about to end, begun ones included. */
unsigned int registry_count(struct tgt *tgt, const char *iqn);

/* ---- session.c: the session's reactor, but create ---- */

/** session_create() - with everything that its tasks need.  First reactor. */
struct tgt_session *session_create(struct tgt *tgt, struct tgt_home *home,
				   const struct tgt_params *params);
void session_free(struct tgt_session *s);
/** session_join() - posted: @call is of a connection that moved to the session's reactor. */
void session_join(struct reactor_call *call);
/** session_close() - ends the session and all its connections. */
void session_close(struct tgt_session *s, const char *why);
/** session_drop() - tells the initiator (Async Message 3), then ends it all the same. */
void session_drop(struct tgt_session *s, const char *why);
/** session_conn_closed() - @conn, of @s, has no task any more and no socket. */
void session_conn_closed(struct tgt_session *s, struct tgt_conn *conn);
/**
 * session_open_connections() - without those that have logged out and are there until the peer
 * closes: they keep nobody out, and no session alive.
 */
unsigned int session_open_connections(struct tgt_session *s);
/**
 * session_leave_nexus() - the I_T nexus ends; no task but a logout is left of the session.  Before
 * the answer to that: who hears of it must find no RESERVE of this nexus any more, though the
 * initiator may take its time to close the connection.
 */
void session_leave_nexus(struct tgt_session *s);
/** session_check_end() - goes on ending when something that was waited for is over. */
void session_check_end(struct tgt_session *s);
uint32_t session_max_cmd_sn(struct tgt_session *s);
/** session_advance() - one more command is in order; runs those that were held for it. */
void session_advance(struct tgt_session *s);
struct tgt_task *session_find(struct tgt_session *s, uint32_t itt);

enum session_verdict {
	SESSION_TAKEN,		/* *out is the task; turn says whether its CmdSN is the next one */
	SESSION_IGNORE,		/* outside the window, or there already: throw it away */
	SESSION_WAIT,		/* no task free: receive no more until one is sent */
	SESSION_TOO_MANY,	/* immediate commands: reject */
	SESSION_IN_USE,		/* its ITT names another task */
};
enum session_verdict session_admit(struct tgt_session *s, struct tgt_conn *conn,
				   const struct pdu_request_wire *bhs, struct tgt_task **out);
/** session_void() - a command that will not come counts as received.  Return: if in the window. */
bool session_void(struct tgt_session *s, uint32_t cmd_sn);
/** session_release() - @task is over: gives back its buffer, itself and its credit. */
void session_release(struct tgt_task *task);
/** session_credit() - @task's answer is about to be sent: another command may come. */
void session_credit(struct tgt_task *task);
/** session_void_held() - a held task that goes away leaves no hole in the CmdSN order. */
void session_void_held(struct tgt_task *task);

/* ---- task.c ---- */

/** task_turn() - its CmdSN has come (or it is immediate): executes what can be. */
void task_turn(struct tgt_task *task);
/** task_place() - where the data segment of its own PDU goes: sets conn->rx_store and so on. */
void task_place(struct tgt_task *task, uint32_t data_len);
/** task_received() - its own PDU is there as a whole, digest and all. */
void task_received(struct tgt_task *task);
/** task_data() - of a Data-Out PDU @len bytes are there; @final as its F bit. */
void task_data(struct tgt_task *task, uint32_t len, bool final, bool good);
/** task_end() - the transport ends a task: its connection is gone, or it was aborted. */
void task_end(struct tgt_task *task);
/** task_has_memory() - one that waited for its buffer has it. */
void task_has_memory(struct tgt_task *task);
/** task_send() - puts @task on its connection's send queue. */
void task_send(struct tgt_task *task);
/** task_abort() - ends one that has not run yet, once the data asked for is there. */
void task_abort(struct tgt_task *task);
/** task_drop() - ends one that has not run yet, now. */
void task_drop(struct tgt_task *task);
/** task_fail() - ends it with CHECK CONDITION, fixed format sense. */
void task_fail(struct tgt_task *task, uint8_t key, uint8_t asc, uint8_t ascq);

/* ---- memory.c ---- */

void memory_init(struct tgt_home *home);
/** memory_fini() - in @home's reactor, when there is no connection any more. */
void memory_fini(struct tgt_home *home);
/** memory_get() - a buffer for what @task's command moves; @data_comes: it cannot wait. */
bool memory_get(struct tgt_task *task, bool data_comes);
/** memory_get_now() - one of @len bytes, or none. */
bool memory_get_now(struct tgt_task *task, uint32_t len);
/** memory_refused() - one that could not wait has got none. */
void memory_refused(struct tgt_home *home);
/** memory_wait() - @task waits for its buffer: task_has_memory() goes on. */
void memory_wait(struct tgt_task *task);
/** memory_put() - gives @task's buffer back, if it has one. */
void memory_put(struct tgt_task *task);
/** memory_freed() - something was given back: those who wait are looked at. */
void memory_freed(struct tgt_home *home);

/* ---- tmf.c ---- */

void tmf_execute(struct tgt_task *task);
/** tmf_check() - a task that was being aborted is gone: functions that waited may answer. */
void tmf_check(struct tgt_session *s);
void tmf_timeout(struct reactor_timer *t);

/* ---- request.c: NOP, text, logout ---- */

void request_execute(struct tgt_task *task);
/** request_check_logout() - answers a logout once nothing else of the connection is left. */
void request_check_logout(struct tgt_conn *conn);

/* ---- conn.c ---- */

/** conn_create() - takes over @fd; first reactor.  Return: 0 or -errno, @fd closed. */
int conn_create(struct tgt *tgt, int fd, const struct tgt_peer *peer);
/** conn_close() - closes at the end of the round; safe anywhere.  @why: for the log. */
void conn_close(struct tgt_conn *conn, const char *why);
/** conn_finish() - closes once everything prepared has been sent. */
void conn_finish(struct tgt_conn *conn, const char *why);
/** conn_kick() - something is to be done at the end of the round. */
void conn_kick(struct tgt_conn *conn);
/** conn_move() - hands @conn to @home, where @fn is called with conn->call. */
void conn_move(struct tgt_conn *conn, struct tgt_home *home, void (*fn)(struct reactor_call *));
/** conn_start() - @conn has arrived at its reactor: watches its socket. */
int conn_start(struct tgt_conn *conn);
/** conn_attached() - the outcome of registry_attach(); on whichever reactor it is. */
void conn_attached(struct tgt_conn *conn, enum pdu_login_status status, uint16_t tsih);
/** conn_task_gone() - a task was released: perhaps the last that a closed one waits for. */
void conn_task_gone(struct tgt_conn *conn);
/** conn_free() - first reactor. */
void conn_free(struct tgt_conn *conn);
/** conn_login_pdu() - a login PDU is complete. */
void conn_login_pdu(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs, const uint8_t *data,
		    uint32_t data_len);

/**
 * conn_end_task() - ends one of its tasks, but not @except, running ones or those whose state
 * is @below or later.  Return: false if there is none left.
 */
bool conn_end_task(struct tgt_conn *conn, const struct tgt_task *except, enum task_state below);
/** conn_ask_logout() - Async Message 1; closes it after @timeout_ms. */
void conn_ask_logout(struct tgt_conn *conn, unsigned int timeout_ms);
/** conn_drop() - Async Message 3, then the end. */
void conn_drop(struct tgt_conn *conn, const char *why);
/** conn_reject() - answers a PDU with a Reject.  Return: false if there is no room now. */
bool conn_reject(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
		 enum pdu_reject_reason reason);
/** conn_protocol_error() - Reject, then the end of the connection. */
void conn_protocol_error(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			 enum pdu_reject_reason reason, const char *why);
struct conn_note *conn_note(struct tgt_conn *conn);
static inline bool conn_is_open(const struct tgt_conn *conn)
{
	return conn->state < CONN_LOGOUT;
}

/** conn_login_end() - what the login needed is freed. */
void conn_login_end(struct tgt_conn *conn);

/* ---- conn_rx.c ---- */

void conn_readable(struct tgt_conn *conn);
/** conn_drain() - throws away what a peer still sends; closes when it has closed. */
void conn_drain(struct tgt_conn *conn);
/** conn_process() - goes on with what is in the receive buffer. */
void conn_process(struct tgt_conn *conn);
/** conn_resume() - a task or a note is free again. */
void conn_resume(struct tgt_conn *conn);
/** conn_forget_payload() - @task goes away while data for it is being received. */
void conn_forget_payload(struct tgt_conn *conn, const struct tgt_task *task);

/* ---- conn_pdu.c: what a header of full feature phase means ---- */

enum pdu_verdict { PDU_ACCEPTED, PDU_PAUSE, PDU_STOP };
/** conn_header() - takes a header in: where does its data segment go? */
enum pdu_verdict conn_header(struct tgt_conn *conn, const struct pdu_bhs_wire *bhs,
			     const uint8_t *ahs, uint32_t ahs_len);
/** conn_pdu_end() - its data segment is there; @good: its digest was right. */
void conn_pdu_end(struct tgt_conn *conn, bool good);

/* ---- conn_tx.c ---- */

/** conn_flush() - prepares and sends what there is, as far as the socket takes it. */
void conn_flush(struct tgt_conn *conn);
/** conn_send_reply() - a PDU of the login; its data stays valid until all is sent. */
void conn_send_reply(struct tgt_conn *conn, const struct tgt_reply *reply);
bool conn_tx_idle(const struct tgt_conn *conn);

#endif
