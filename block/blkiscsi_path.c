/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One path of an iSCSI LUN: a session of one connection.
 *
 *   DOWN ──retry_ns──► DIALING ─► CONNECTING ─► LOGIN ─► PROBE ─► UP
 *     ▲   (DIALING only where another process makes connections)  │
 *     └──────── ini_path_drop(): any failure, any time limit ◄────┘
 *
 * Each session keeps its ISID for the life of the handle: to the target it is the same
 * initiator port again, which keeps its registration and ends the session's former self.
 */
#include "block/blkiscsi_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKOFF_MIN_NS	(100 * NSEC_PER_MSEC)
#define BACKOFF_MAX_NS	(2 * NSEC_PER_SEC)
#define BACKOFF_LIVE_NS	(500 * NSEC_PER_MSEC)	/* of one that did come up */
#define LASTED_NS	NSEC_PER_SEC	/* of a session: less than that is not being up */
#define PING_NS		(2 * NSEC_PER_SEC)
#define PROBES_MAX	16u	/* unit attentions that a new session may meet */
#define PROBE_PAGE	255u
#define LOGOUT_NS	NSEC_PER_SEC

/*
 * Exported by libiscsi 1.19 and later, without a declaration in its public headers: a random
 * ISID of RFC 7143, 11.12.5, of 24 and 16 bits.
 */
int iscsi_set_isid_random(struct iscsi_context *iscsi, uint32_t rnd, uint32_t qualifier);

static void path_fail(struct ini_path *p, int err, const char *what)
{
	p->failed = true;
	p->err = err;
	snprintf(p->why, sizeof(p->why), "%s", what);
}

/* ---- down ---- */

static void path_log_loss(struct ini_path *p, const char *why)
{
	struct ini_dev *d = p->d;

	if (p->complained)
		return;
	p->complained = true;
	log_warning(d->dev.env, d->t.name, "%s path %s %s: %s", d->o.flags & BLKISCSI_HEARTBEAT ?
		    "heartbeat" : "data", d->t.portals[p->portal], p->live ? "is lost" :
		    "does not come up", why);
}

/* Sent data that the peer has not acknowledged must die with the connection: RST, not FIN. */
static void path_reset_on_close(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

static void path_close(struct ini_path *p)
{
	if (!p->ctx)
		return;
	p->dropping = true;
	iscsi_destroy_context(p->ctx);
	p->dropping = false;
	p->ctx = NULL;
	p->events = 0;
}

/* What was under way waits for proof that the target has forgotten it. */
static void path_to_limbo(struct ini_path *p)
{
	struct ini_cmd *cmd, *tmp;

	list_for_each(cmd, tmp, &p->active, node) {
		list_del(&cmd->node);
		free(cmd->task.datain.data);
		cmd->task.datain.data = NULL;
		cmd->losses++;
		if (p->d->o.flags & BLKISCSI_HEARTBEAT || cmd->admin)
			ini_cmd_finish(p->d, cmd, cmd->admin ? -EIO : -ETIMEDOUT);
		else
			list_add_tail(&p->limbo, &cmd->node);
	}
	/* What is in limbo ages however often the path fails to come up again. */
	if (p->active_count)
		p->lost_ns = ini_now(p->d);
	p->active_count = 0;
}

/* One that comes up and is lost at once, again and again, is not tried without a pause. */
static void path_set_retry(struct ini_path *p, uint64_t now)
{
	uint64_t max_ns = p->live ? BACKOFF_LIVE_NS : BACKOFF_MAX_NS;

	if (p->live && now - p->up_ns >= LASTED_NS) {
		p->retry_ns = 0;
		p->backoff_ns = BACKOFF_MIN_NS;
		return;
	}
	if (p->backoff_ns > max_ns)
		p->backoff_ns = max_ns;
	p->retry_ns = now + p->backoff_ns;
	p->backoff_ns *= 2;
}

void ini_path_drop(struct ini_path *p, int err, const char *why)
{
	bool live = p->live;

	path_log_loss(p, why);
	p->err = err;
	if (why != p->why)
		snprintf(p->why, sizeof(p->why), "%s", why);
	path_close(p);
	p->state = INI_DOWN;
	p->failed = false;
	p->ping_ns = 0;
	p->suspect = false;
	path_set_retry(p, ini_now(p->d));
	p->live = false;
	path_to_limbo(p);
	if (live)
		ini_session_lost(p->d);
	ini_path_changed(p, false);
}

/* ---- up ---- */

static void path_up(struct ini_path *p)
{
	struct ini_cmd *cmd, *tmp;

	p->state = INI_UP;
	p->rx_ns = ini_now(p->d);
	if (!p->live)
		p->up_ns = p->rx_ns;
	p->live = true;
	if (p->complained)
		log_info(p->d->dev.env, p->d->t.name, "path %s is back",
			 p->d->t.portals[p->portal]);
	p->complained = false;
	/* Unit attentions met on the way up are no reason for a loss later. */
	snprintf(p->said, sizeof(p->said), "%s", iscsi_get_error(p->ctx));
	p->was_up = true;
	p->err = 0;
	/* The login ended the session's former self and all that it had under way. */
	list_for_each(cmd, tmp, &p->limbo, node) {
		list_del(&cmd->node);
		ini_cmd_settled(p->d, cmd);
	}
	ini_path_changed(p, true);
}

/* ---- probing ---- */

static void probe_send(struct ini_path *p, struct scsi_task *(*make)(struct ini_path *p))
{
	if (!make(p))
		path_fail(p, -ENOMEM, "cannot ask what the LUN is");
}

/* Return: whether the answer is there and good; else the path fails, or @again is sent. */
static bool probe_good(struct ini_path *p, int status, struct scsi_task *task,
		       struct scsi_task *(*again)(struct ini_path *p), const char *what)
{
	if (p->dropping || status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR) {
		p->failed = true;
		return false;
	}
	if (status == SCSI_STATUS_GOOD)
		return true;
	if (status == SCSI_STATUS_CHECK_CONDITION && task &&
	    task->sense.key == SCSI_SENSE_UNIT_ATTENTION && p->probes++ < PROBES_MAX)
		probe_send(p, again);
	else if (status == SCSI_STATUS_CHECK_CONDITION && task && task->sense.ascq == 0x2500)
		path_fail(p, -ENXIO, "the target has no such LUN");
	else
		path_fail(p, -EIO, what);
	return false;
}

static struct scsi_task *ask_ready(struct ini_path *p);
static struct scsi_task *ask_identity(struct ini_path *p);

/* Only to take the unit attentions that every new session meets off the commands' way. */
static void ready_answer(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;
	struct scsi_task *task = data;

	(void)ctx;
	if (p->dropping || status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR)
		p->failed = true;
	else if (status == SCSI_STATUS_CHECK_CONDITION && task &&
		 task->sense.key == SCSI_SENSE_UNIT_ATTENTION && p->probes++ < PROBES_MAX)
		probe_send(p, ini_tells_of_change((uint16_t)task->sense.ascq) ? ask_identity : ask_ready);
	else
		path_up(p);	/* what else is wrong the commands find out */
	if (task)
		scsi_free_scsi_task(task);
}

static struct scsi_task *ask_ready(struct ini_path *p)
{
	return iscsi_testunitready_task(p->ctx, (int)p->d->t.lun, ready_answer, p);
}

static struct scsi_task *ask_capacity(struct ini_path *p);

/* Addresses are in blocks: of another size, each would lead to another place. */
static void check_block_size(struct ini_path *p, const struct scsi_task *task)
{
	if (task->datain.size < 12 || get_be32(task->datain.data + 8) != atomic_load(&p->d->sector))
		path_fail(p, -EMEDIUMTYPE, "its blocks are of another size than when it was opened");
	else
		probe_send(p, ask_ready);
}

static void capacity_answer(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;
	struct scsi_task *task = data;

	(void)ctx;
	if (probe_good(p, status, task, ask_capacity, "no answer to READ CAPACITY"))
		check_block_size(p, task);
	if (task)
		scsi_free_scsi_task(task);
}

static struct scsi_task *ask_capacity(struct ini_path *p)
{
	return iscsi_readcapacity16_task(p->ctx, (int)p->d->t.lun, capacity_answer, p);
}

/* Two portals may lead to two LUNs by mistake: then one of them must not be used. */
static void check_identity(struct ini_path *p, const struct scsi_task *task)
{
	char identity[sizeof(p->d->identity)] = "";

	if (task->datain.data && task->datain.size > 0) {
		lu_identity(task->datain.data, (size_t)task->datain.size, identity,
				  sizeof(identity));
		p->group = lu_port_group(task->datain.data, (size_t)task->datain.size);
	}
	if (!p->d->identity[0]) {
		snprintf(p->d->identity, sizeof(p->d->identity), "%s", identity);
	} else if (strcmp(p->d->identity, identity)) {
		path_fail(p, -ENXIO, "it leads to another LUN: its identity differs");
		return;
	}
	probe_send(p, atomic_load(&p->d->sector) ? ask_capacity : ask_ready);
}

static void identity_answer(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;
	struct scsi_task *task = data;

	(void)ctx;
	if (probe_good(p, status, task, ask_identity, "no answer to INQUIRY of page 83h"))
		check_identity(p, task);
	if (task)
		scsi_free_scsi_task(task);
}

static struct scsi_task *ask_identity(struct ini_path *p)
{
	return iscsi_inquiry_task(p->ctx, (int)p->d->t.lun, 1, 0x83, (int)PROBE_PAGE,
				  identity_answer, p);
}

static void path_probe(struct ini_path *p)
{
	p->state = INI_PROBE;
	p->probes = 0;
	probe_send(p, ask_identity);
}

/* It may be another LUN now: nothing new is sent to it before it was asked. */
static void path_probe_again(struct ini_path *p)
{
	p->suspect = false;
	p->deadline_ns = ini_now(p->d) + p->d->t.login_ms * NSEC_PER_MSEC;
	p->why[0] = '\0';
	path_probe(p);
	ini_path_changed(p, false);
}

/* ---- login ---- */

static void login_done(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;
	const char *text;

	(void)data;
	if (p->dropping)
		return;
	if (status == SCSI_STATUS_GOOD) {
		path_probe(p);
		return;
	}
	text = iscsi_get_error(ctx);
	if (status == SCSI_STATUS_REDIRECT)
		path_fail(p, -EIO, "the target redirects to another portal; name that one");
	else if (strstr(text, "uthenticat") || strstr(text, "CHAP") || strstr(text, "uthoriz"))
		path_fail(p, -EACCES, "login refused: wrong name or secret, or this initiator is not "
			  "admitted");
	else
		path_fail(p, -EIO, text[0] ? text : "login refused");
}

static void connect_done(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;

	(void)data;
	if (p->dropping)
		return;
	if (status != SCSI_STATUS_GOOD) {
		path_fail(p, -ECONNREFUSED, iscsi_get_error(ctx));
		return;
	}
	if (p->state != INI_CONNECTING)
		return;
	p->state = INI_LOGIN;
	if (iscsi_login_async(ctx, login_done, p))
		path_fail(p, -EIO, iscsi_get_error(ctx));
}

static int path_make_context(struct ini_path *p)
{
	const struct blkiscsi_target *t = &p->d->t;

	p->said[0] = '\0';
	p->ctx = iscsi_create_context(t->initiator);
	if (!p->ctx)
		return -ENOMEM;
	/* Environment variables of libiscsi's own must not change what was asked for. */
	iscsi_set_noautoreconnect(p->ctx, 1);
	iscsi_set_timeout(p->ctx, 0);	/* time limits are ours */
	iscsi_set_isid_random(p->ctx, p->isid, p->index);
	if (iscsi_set_targetname(p->ctx, t->iqn) ||
	    iscsi_set_session_type(p->ctx, ISCSI_SESSION_NORMAL) ||
	    iscsi_set_header_digest(p->ctx, t->header_digest ? ISCSI_HEADER_DIGEST_CRC32C :
				    ISCSI_HEADER_DIGEST_NONE))
		return -EINVAL;
	if (t->user[0] && iscsi_set_initiator_username_pwd(p->ctx, t->user, t->secret))
		return -EINVAL;
	if (t->mutual_user[0] &&
	    iscsi_set_target_username_pwd(p->ctx, t->mutual_user, t->mutual_secret))
		return -EINVAL;
	return 0;
}

static void path_watch(struct ini_path *p)
{
	uint32_t events = 0;
	int wanted = iscsi_which_events(p->ctx);
	struct epoll_event ev = { .data.ptr = p };
	int op = p->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	events |= wanted & POLLIN ? EPOLLIN : 0;
	events |= wanted & POLLOUT ? EPOLLOUT : 0;
	if (events == p->events || !events)
		return;
	ev.events = events;
	if (epoll_ctl(p->d->epfd, op, iscsi_get_fd(p->ctx), &ev))
		path_fail(p, -errno, "cannot be watched");
	p->events = events;
}

/*
 * libiscsi makes its own socket and connects it.  Where that is forbidden (the worker's
 * filter lets no connect() through, and says EINPROGRESS) @fd, connected by the privileged
 * parent, takes the socket's place.
 */
static int path_connect(struct ini_path *p, int fd)
{
	const struct blkiscsi_target *t = &p->d->t;
	unsigned int limit_ms = t->dead_ms;
	int one = 1, own, err;

	err = path_make_context(p);
	if (err)
		return err;
	p->state = INI_CONNECTING;
	if (iscsi_connect_async(p->ctx, t->portals[p->portal], connect_done, p)) {
		path_fail(p, -ECONNREFUSED, iscsi_get_error(p->ctx));
		return -ECONNREFUSED;
	}
	own = iscsi_get_fd(p->ctx);
	if (fd >= 0 && (dup2(fd, own) < 0 || fcntl(own, F_SETFL, O_RDWR | O_NONBLOCK)))
		return -errno;
	fcntl(own, F_SETFD, FD_CLOEXEC);
	path_reset_on_close(own);
	/* Nor may the kernel go on trying longer than we would wait. */
	setsockopt(own, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
	setsockopt(own, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	path_watch(p);
	return 0;
}

/* ---- dialing ---- */

static void *dial_main(void *arg)
{
	struct ini_path *p = arg;
	struct ini_dev *d = p->d;
	int fd = d->o.dial(d->o.dial_arg, d->t.portals[p->portal], d->t.login_ms);

	pthread_mutex_lock(&d->mutex);
	p->dialed_fd = fd;
	p->dialed = true;
	pthread_mutex_unlock(&d->mutex);
	ini_wake(d);
	return NULL;
}

/* Return: whether the helper is through; @fd: what it got. */
static bool dial_take(struct ini_path *p, int *fd)
{
	bool done;

	pthread_mutex_lock(&p->d->mutex);
	done = p->dialed;
	p->dialed = false;
	*fd = p->dialed_fd;
	pthread_mutex_unlock(&p->d->mutex);
	if (done)
		pthread_join(p->dialer, NULL);
	return done;
}

static void path_dialed(struct ini_path *p)
{
	int fd, err;

	if (!dial_take(p, &fd))
		return;
	if (fd < 0) {
		ini_path_drop(p, fd, strerror(-fd));
		return;
	}
	err = path_connect(p, fd);
	close(fd);
	if (err)
		ini_path_drop(p, err, p->why[0] ? p->why : strerror(-err));
}

/*
 * A session goes to its own portal first, and to the others in turn as long as all that were
 * seen are of one portal group: only there a login under the same ISID ends its former self.
 */
static unsigned int path_next_portal(const struct ini_path *p)
{
	const struct ini_dev *d = p->d;
	int group = -1;

	if (!p->was_up)
		return p->index;
	for (unsigned int i = 0; i < d->t.portal_count; i++) {
		if (d->paths[i].group < 0 || (group >= 0 && d->paths[i].group != group))
			return p->index;
		group = d->paths[i].group;
	}
	return (p->portal + 1) % d->t.portal_count;
}

static void path_start(struct ini_path *p, uint64_t now)
{
	int err;

	p->portal = path_next_portal(p);
	p->deadline_ns = now + p->d->t.login_ms * NSEC_PER_MSEC;
	p->why[0] = '\0';
	if (!p->d->o.dial) {
		err = path_connect(p, -1);
		if (err)
			ini_path_drop(p, err, p->why[0] ? p->why : strerror(-err));
		return;
	}
	p->state = INI_DIALING;
	err = pthread_create(&p->dialer, NULL, dial_main, p);
	if (err) {
		p->state = INI_DOWN;
		ini_path_drop(p, -err, strerror(err));
	}
}

/* ---- by the clock ---- */

static void ping_answer(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;

	(void)ctx;
	(void)data;
	if (!p->dropping && status == SCSI_STATUS_GOOD)
		p->ping_ns = 0;
}

/* The oldest command is the first: they are sent in order. */
static void path_check_age(struct ini_path *p, uint64_t now)
{
	struct ini_dev *d = p->d;
	struct ini_cmd *cmd = list_empty(&p->active) ? NULL :
			      list_first(&p->active, struct ini_cmd, node);
	char why[80];

	if (cmd && now - cmd->sent_ns > d->t.timeout_ms * NSEC_PER_MSEC) {
		cmd->timeouts++;
		snprintf(why, sizeof(why), "no answer to command %02xh for %u ms",
			 cmd->task.cdb[0], d->t.timeout_ms);
		ini_path_drop(p, -ETIMEDOUT, why);
		return;
	}
	if (p->ping_ns && now - p->rx_ns > d->t.dead_ms * NSEC_PER_MSEC &&
	    now - p->ping_ns > d->t.dead_ms * NSEC_PER_MSEC) {
		snprintf(why, sizeof(why), "silent for %u ms", d->t.dead_ms);
		ini_path_drop(p, -ETIMEDOUT, why);
		return;
	}
	if (!p->ping_ns && now - p->rx_ns > PING_NS) {
		p->ping_ns = now;
		if (iscsi_nop_out_async(p->ctx, ping_answer, NULL, 0, p))
			p->failed = true;
		ini_path_serve(p, POLLOUT);
	}
}

/* Where no login proves it, time does: nothing that was sent lives that long. */
static void path_check_limbo(struct ini_path *p, uint64_t now)
{
	struct ini_cmd *cmd, *tmp;

	if (list_empty(&p->limbo) || now - p->lost_ns <= ini_life_ns(p->d))
		return;
	list_for_each(cmd, tmp, &p->limbo, node) {
		list_del(&cmd->node);
		ini_cmd_settled(p->d, cmd);
	}
}

void ini_path_step(struct ini_path *p, uint64_t now)
{
	switch (p->state) {
	case INI_DOWN:
		if (now >= p->retry_ns)
			path_start(p, now);
		break;
	case INI_DIALING:
		path_dialed(p);
		break;
	case INI_UP:
		path_check_age(p, now);
		break;
	default:
		if (now > p->deadline_ns)
			ini_path_drop(p, -ETIMEDOUT, "no answer while connecting and logging in");
		break;
	}
	path_check_limbo(p, now);
}

/* Why libiscsi gave the connection up, as far as it tells. */
static const char *lost_because(const struct ini_path *p)
{
	const char *text = iscsi_get_error(p->ctx);

	/* What it says of its own reconnecting tells nothing. */
	if (!text[0] || strstr(text, "econnect") || !strncmp(text, p->said, sizeof(p->said) - 1))
		return "the target has closed the connection";
	return text;
}

void ini_path_serve(struct ini_path *p, int revents)
{
	if (!p->ctx)
		return;
	if (revents & POLLIN)
		p->rx_ns = ini_now(p->d);
	if (!p->failed && iscsi_service(p->ctx, revents))
		p->failed = true;
	if (!p->failed && p->suspect && p->state == INI_UP)
		path_probe_again(p);
	if (p->failed) {
		if (!p->why[0] || p->state == INI_UP)
			snprintf(p->why, sizeof(p->why), "%s", lost_because(p));
		ini_path_drop(p, p->err && p->state != INI_UP ? p->err : -EIO, p->why);
		return;
	}
	path_watch(p);
}

/* ---- life ---- */

void ini_path_init(struct ini_dev *d, unsigned int index)
{
	struct ini_path *p = &d->paths[index];

	p->d = d;
	p->index = index;
	p->portal = index;
	p->group = -1;
	p->backoff_ns = BACKOFF_MIN_NS;
	env_random(d->dev.env, &p->isid, sizeof(p->isid));
	p->isid &= 0xffffff;
	list_init(&p->active);
	list_init(&p->limbo);
}

static void logout_done(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct ini_path *p = arg;

	(void)ctx;
	(void)status;
	(void)data;
	p->failed = true;
}

void ini_path_logout(struct ini_path *p)
{
	uint64_t until = ini_now(p->d) + LOGOUT_NS;

	if (p->state != INI_UP || p->active_count || iscsi_logout_async(p->ctx, logout_done, p))
		return;
	while (!p->failed && ini_now(p->d) < until) {
		struct pollfd pfd = { .fd = iscsi_get_fd(p->ctx),
				      .events = (short)iscsi_which_events(p->ctx) };

		if (poll(&pfd, 1, 100) > 0 && iscsi_service(p->ctx, pfd.revents))
			break;
	}
}

void ini_path_fini(struct ini_path *p)
{
	int fd;

	if (p->state == INI_DIALING) {
		pthread_join(p->dialer, NULL);
		fd = p->dialed ? p->dialed_fd : -1;
		if (fd >= 0)
			close(fd);
	}
	path_close(p);
}
