// SPDX-License-Identifier: Apache-2.0
/*
 * Which sessions there are, by who and where (RFC 7143, 6.3): the first reactor's knowledge.
 *
 * A session is entered before its reactor has heard of it, so that of two logins of the same
 * initiator port the second finds the first; it is struck out when its reactor says that it
 * is over, and freed there behind everything that was posted to it meanwhile.
 */
#include "iscsi/config.h"
#include "iscsi/internal.h"

static bool is_same_port(const struct tgt_session *s, const struct tgt_conn *conn)
{
	const struct tgt_params *a = &s->params, *b = &conn->params;

	return s->portal_group == conn->peer.portal_group && !strcmp(a->initiator, b->initiator) &&
	       !strcmp(a->target, b->target) && a->discovery == b->discovery &&
	       !memcmp(a->isid, b->isid, sizeof(a->isid));
}

/* ---- the outcome travels back as a call, so that a login never finishes within itself ---- */

static void attach_failed(struct reactor_call *call)
{
	struct tgt_conn *conn = container_of(call, struct tgt_conn, call);

	list_add_tail(&conn->home->conns, &conn->home_node);
	conn_attached(conn, conn->attach_status, 0);
}

static void fail(struct tgt_conn *conn, enum pdu_login_status status)
{
	conn->attach_status = status;
	conn->session = NULL;
	conn_move(conn, &conn->tgt->homes[0], attach_failed);
}

static void join(struct tgt_conn *conn, struct tgt_session *s)
{
	half_open_end(conn);
	conn->session = s;
	conn_move(conn, s->home, session_join);
}

/* ---- a new session ---- */

static struct tgt_home *quietest_home(struct tgt *tgt)
{
	struct tgt_home *best = &tgt->homes[0];
	unsigned int i;

	for (i = 1; i < tgt->home_count; i++)
		if (tgt->homes[i].session_count < best->session_count)
			best = &tgt->homes[i];
	return best;
}

static bool tsih_is_taken(struct tgt *tgt, uint16_t tsih)
{
	struct tgt_session *s, *tmp;

	list_for_each(s, tmp, &tgt->sessions, node)
		if (s->tsih == tsih)
			return true;
	return false;
}

static uint16_t new_tsih(struct tgt *tgt)
{
	do {
		tgt->next_tsih++;
	} while (!tgt->next_tsih || tsih_is_taken(tgt, tgt->next_tsih));
	return tgt->next_tsih;
}

static enum pdu_login_status begin_session(struct tgt *tgt, struct tgt_conn *conn)
{
	struct tgt_home *home = quietest_home(tgt);
	struct scsi_target *target = NULL;
	struct tgt_session *s;

	if (tgt->session_count >= tgt->limits.sessions_max)
		return PDU_LOGIN_NO_RESOURCES;
	if (!conn->params.discovery) {
		target = tgt->find_target(tgt->arg, conn->params.target);
		if (!target)
			return PDU_LOGIN_NOT_FOUND;
	}
	if (conn->params.connections_max > tgt->limits.session_connections_max)
		conn->params.connections_max =
			(uint16_t)tgt->limits.session_connections_max;
	s = session_create(tgt, home, &conn->params);
	if (!s)
		return PDU_LOGIN_NO_RESOURCES;
	s->target = target;
	s->portal_group = conn->peer.portal_group;
	s->tsih = new_tsih(tgt);
	list_add_tail(&tgt->sessions, &s->node);
	tgt->session_count++;
	home->session_count++;
	join(conn, s);
	return PDU_LOGIN_SUCCESS;
}

/* What a login would be asked, but for the secret itself. */
static bool may_stay(const struct tgt_config *config, const struct tgt_params *p)
{
	const struct tgt_target *t = tgt_config_target(config, p->target);
	const struct tgt_initiator *entry = t ? tgt_target_admits(t, p->initiator) : NULL;
	unsigned int i = 0;

	if (!entry)
		return false;
	if (!t->auth.required)
		return true;
	while (i < t->auth.incoming_count && strcmp(t->auth.incoming[i].name, p->user) != 0)
		i++;
	return i < t->auth.incoming_count && (!entry->user[0] || !strcmp(entry->user, p->user));
}

/* ---- finding one ---- */

static void ask_to_close(struct tgt_session *s)
{
	if (s->closing)
		return;
	s->closing = true;
	reactor_post(s->home->reactor, &s->close_call);
}

static void attach_new(struct tgt *tgt, struct tgt_conn *conn)
{
	struct tgt_session *s, *tmp;
	enum pdu_login_status status;

	/* Reinstatement: the old one ends, every command accounted for, before this begins. */
	list_for_each(s, tmp, &tgt->sessions, node) {
		if (conn->params.discovery || !is_same_port(s, conn))
			continue;
		ask_to_close(s);
		list_add_tail(&s->waiting, &conn->wait_node);
		return;
	}
	status = begin_session(tgt, conn);
	if (status != PDU_LOGIN_SUCCESS)
		fail(conn, status);
}

static void attach_existing(struct tgt *tgt, struct tgt_conn *conn)
{
	struct tgt_session *s, *tmp;

	list_for_each(s, tmp, &tgt->sessions, node) {
		if (s->tsih != conn->params.tsih || !is_same_port(s, conn) || s->closing)
			continue;
		join(conn, s);
		return;
	}
	fail(conn, PDU_LOGIN_NO_SESSION);
}

void registry_attach(struct tgt_conn *conn)
{
	struct tgt *tgt = conn->tgt;

	/* A login may have begun under a configuration that was let go of meanwhile. */
	bool outdated = conn->config != tgt->config && !conn->params.discovery;

	if (tgt->closing)
		fail(conn, PDU_LOGIN_UNAVAILABLE);
	else if (outdated && !may_stay(tgt->config->config, &conn->params))
		fail(conn, PDU_LOGIN_FORBIDDEN);
	else if (tgt->connection_count - tgt->half_open_count > tgt->limits.connections_max)
		fail(conn, PDU_LOGIN_NO_RESOURCES);
	else if (conn->params.tsih)
		attach_existing(tgt, conn);
	else
		attach_new(tgt, conn);
}

/* ---- those that may not stay ---- */

/* @why: as tgt_session.leave_why. */
static void ask_to_leave(struct tgt_session *s, const char *why)
{
	/* Who was only asked may still be dropped. */
	if (s->closing || (s->leaving && (s->leave_why || !why)))
		return;
	s->leaving = true;
	s->leave_why = why;
	reactor_post(s->home->reactor, &s->leave_call);
}

void registry_cold_reset(struct reactor_call *call)
{
	struct tgt_session *by = container_of(call, struct tgt_session, reset_call), *s, *tmp;

	list_for_each(s, tmp, &by->tgt->sessions, node)
		if (!s->params.discovery && !strcmp(s->params.target, by->params.target))
			ask_to_leave(s, "TARGET COLD RESET");
}

void registry_enforce(struct tgt *tgt)
{
	struct tgt_session *s, *tmp;

	list_for_each(s, tmp, &tgt->sessions, node) {
		if (s->params.discovery || may_stay(tgt->config->config, &s->params))
			continue;
		log_info(tgt->env, s->params.initiator, "%s: session 0x%04x may not stay: asked to "
			 "log out, and ended after %u s", s->params.target, s->tsih, LEAVE_MS / 1000);
		ask_to_leave(s, NULL);
	}
}

unsigned int registry_count(struct tgt *tgt, const char *iqn)
{
	struct tgt_session *s, *tmp;
	unsigned int n = 0;

	list_for_each(s, tmp, &tgt->sessions, node)
		n += !s->params.discovery && !s->closing && !strcmp(s->params.target, iqn);
	return n;
}

/* ---- the end ---- */

static void check_empty(struct tgt *tgt)
{
	if (!tgt->closing || tgt->connection_count || tgt->session_count)
		return;
	env_mutex_lock(tgt->env, &tgt->mutex);
	tgt->empty = true;
	env_cond_broadcast(tgt->env, &tgt->ended);
	env_mutex_unlock(tgt->env, &tgt->mutex);
}

void registry_conn_gone(struct reactor_call *call)
{
	struct tgt_conn *conn = container_of(call, struct tgt_conn, call);
	struct tgt *tgt = conn->tgt;

	half_open_end(conn);
	address_put(tgt, conn->address);
	tgt->connection_count--;
	conn_free(conn);
	check_empty(tgt);
}

void registry_session_gone(struct reactor_call *call)
{
	struct tgt_session *s = container_of(call, struct tgt_session, gone_call);
	struct list waiting;

	list_del(&s->node);
	s->home->session_count--;
	list_init(&waiting);
	list_splice_tail(&waiting, &s->waiting);
	while (!list_empty(&waiting)) {
		struct tgt_conn *conn = list_first(&waiting, struct tgt_conn, wait_node);

		list_del(&conn->wait_node);
		registry_attach(conn);
	}
	/* Joins and the like may still be on their way to it; this goes behind them. */
	reactor_post(s->home->reactor, &s->free_call);
}

void registry_session_freed(struct reactor_call *call)
{
	struct tgt_session *s = container_of(call, struct tgt_session, freed_call);
	struct tgt *tgt = s->tgt;

	session_free(s);
	tgt->session_count--;
	check_empty(tgt);
}

void registry_close_all(struct tgt *tgt)
{
	struct tgt_session *s, *tmp;
	struct tgt_conn *conn, *ctmp;

	tgt->closing = true;
	list_for_each(s, tmp, &tgt->sessions, node)
		ask_to_close(s);
	list_for_each(conn, ctmp, &tgt->homes[0].conns, home_node)
		if (!conn->session)
			conn_close(conn, "the target ends");
	check_empty(tgt);
}
