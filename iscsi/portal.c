// SPDX-License-Identifier: Apache-2.0
/*
 * Portals: accepting, and what a stranger may cost.
 *
 * A connection that has not logged in is half-open.  There are only so many of them, in all
 * and from one address; when there is no room the oldest goes, so that one who logs in at once
 * gets in however many others dawdle.  An address that holds the most of them loses its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iscsi/config.h"
#include "iscsi/internal.h"

#define ACCEPTS_MAX	64			/* in one round */
#define RETRY_NS	(100 * NSEC_PER_MSEC)	/* when descriptors have run out */

/* ---- addresses ---- */

static void peer_ip(const struct sockaddr_storage *sa, uint8_t ip[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memset(ip, 0, 16);
	if (sa->ss_family == AF_INET) {
		memcpy(ip, mapped, sizeof(mapped));
		memcpy(ip + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	} else if (sa->ss_family == AF_INET6) {
		memcpy(ip, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	}
}

static struct tgt_address *address_find(struct tgt *tgt, const struct sockaddr_storage *sa)
{
	struct tgt_address *a, *tmp;
	uint8_t ip[16];

	peer_ip(sa, ip);
	list_for_each(a, tmp, &tgt->addresses, node)
		if (!memcmp(a->ip, ip, sizeof(ip)))
			return a;
	return NULL;
}

struct tgt_address *address_get(struct tgt *tgt, const struct sockaddr_storage *sa)
{
	struct tgt_address *a = address_find(tgt, sa);

	if (!a) {
		a = calloc(1, sizeof(*a));
		if (!a)
			return NULL;
		peer_ip(sa, a->ip);
		list_add_head(&tgt->addresses, &a->node);
	}
	a->connections++;
	return a;
}

void address_put(struct tgt *tgt, struct tgt_address *address)
{
	(void)tgt;
	if (--address->connections)
		return;
	list_del(&address->node);
	free(address);
}

/* ---- half-open connections ---- */

void half_open_begin(struct tgt_conn *conn)
{
	list_add_tail(&conn->tgt->half_open, &conn->half_node);
	conn->tgt->half_open_count++;
	conn->address->half_open++;
}

void half_open_end(struct tgt_conn *conn)
{
	if (list_empty(&conn->half_node))
		return;
	list_del(&conn->half_node);
	conn->tgt->half_open_count--;
	conn->address->half_open--;
}

static struct tgt_address *greediest(struct tgt *tgt)
{
	struct tgt_address *a, *tmp, *most = NULL;

	list_for_each(a, tmp, &tgt->addresses, node)
		if (!most || a->half_open > most->half_open)
			most = a;
	return most;
}

/* The oldest half-open connection of @address goes. */
static void evict(struct tgt *tgt, const struct tgt_address *address)
{
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &tgt->half_open, half_node) {
		if (conn->address != address)
			continue;
		list_del(&conn->wait_node);
		conn_close(conn, "too many half-open connections, and it was the oldest");
		return;
	}
}

bool portal_make_room(struct tgt *tgt, const struct sockaddr_storage *sa)
{
	struct tgt_address *a = address_find(tgt, sa);

	if (a && a->half_open >= tgt->limits.half_open_address_max)
		evict(tgt, a);
	else if (a && a->connections >= tgt->limits.connections_address_max)
		return false;
	if (tgt->half_open_count >= tgt->limits.half_open_max)
		evict(tgt, greediest(tgt));
	return true;
}

/* ---- accepting ---- */

/* Return: whether there may be more. */
static bool accept_one(struct tgt_listener *p)
{
	struct tgt_peer peer = { .portal_group = p->group };
	socklen_t len = sizeof(peer.remote);
	struct tgt *tgt = p->tgt;
	int fd;

	fd = accept4(p->fd.fd, (struct sockaddr *)&peer.remote, &len,
		     SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_warning(tgt->env, "portal", "out of descriptors or memory: %u "
				    "connections, of which %u half-open",
				    tgt->connection_count, tgt->half_open_count);
			if (tgt->half_open_count)
				evict(tgt, greediest(tgt));
			reactor_change(tgt->homes[0].reactor, &p->fd, 0);
			reactor_timer_set(tgt->homes[0].reactor, &p->retry,
					  reactor_now_ns(tgt->homes[0].reactor) + RETRY_NS);
		}
		return errno == ECONNABORTED || errno == EINTR;
	}
	len = sizeof(peer.local);
	if (getsockname(fd, (struct sockaddr *)&peer.local, &len) ||
	    !portal_make_room(tgt, &peer.remote)) {
		close(fd);
		return true;
	}
	if (conn_create(tgt, fd, &peer))
		log_warning(tgt->env, "portal", "no memory for one more connection");
	return true;
}

static void portal_ready(struct reactor_fd *f, uint32_t events)
{
	struct tgt_listener *p = container_of(f, struct tgt_listener, fd);
	unsigned int i;

	(void)events;
	for (i = 0; i < ACCEPTS_MAX && accept_one(p); i++)
		;
}

static void portal_retry(struct reactor_timer *t)
{
	struct tgt_listener *p = container_of(t, struct tgt_listener, retry);

	reactor_change(p->tgt->homes[0].reactor, &p->fd, EPOLLIN);
}

struct listen_call {
	struct tgt_listener *portal;
	int		err;
};

static void portal_add(void *arg)
{
	struct listen_call *call = arg;
	struct tgt *tgt = call->portal->tgt;

	call->err = reactor_add(tgt->homes[0].reactor, &call->portal->fd, EPOLLIN);
	if (!call->err)
		list_add_tail(&tgt->portals, &call->portal->node);
}

int tgt_listen(struct tgt *tgt, int fd, uint16_t portal_group)
{
	struct listen_call call = { .portal = calloc(1, sizeof(*call.portal)), .err = -ENOMEM };
	struct tgt_listener *p = call.portal;

	if (p) {
		p->tgt = tgt;
		p->fd.fd = fd;
		p->fd.ready = portal_ready;
		p->retry.fn = portal_retry;
		p->group = portal_group;
		list_init(&p->node);
		reactor_call_sync(tgt->homes[0].reactor, portal_add, &call);
	}
	if (call.err) {
		free(p);
		close(fd);
	}
	return call.err;
}

/* In the first reactor, as everything about portals. */
static void portal_close(struct tgt_listener *p)
{
	struct reactor *r = p->tgt->homes[0].reactor;

	list_del(&p->node);
	reactor_remove(r, &p->fd);
	reactor_timer_cancel(r, &p->retry);
	close(p->fd.fd);
	free(p);
}

void portal_close_all(struct tgt *tgt)
{
	while (!list_empty(&tgt->portals))
		portal_close(list_first(&tgt->portals, struct tgt_listener, node));
}

/* ---- closing some ---- */

struct only_call {
	struct tgt	*tgt;
	const struct tgt_portal *portals;
	unsigned int	count;
};

static bool is_wanted(const struct tgt_listener *p, const struct only_call *call)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char text[64], other[64];

	memset(&addr, 0, sizeof(addr));
	if (getsockname(p->fd.fd, (struct sockaddr *)&addr, &len))
		return true;
	tgt_portal_format(&addr, text);
	for (unsigned int i = 0; i < call->count; i++)
		if (!strcmp(tgt_portal_format(&call->portals[i].addr, other), text))
			return true;
	return false;
}

static void portal_only(void *arg)
{
	const struct only_call *call = arg;
	struct tgt_listener *p, *tmp;

	list_for_each(p, tmp, &call->tgt->portals, node)
		if (!is_wanted(p, call))
			portal_close(p);
}

void tgt_listen_only(struct tgt *tgt, const struct tgt_portal *portals, unsigned int count)
{
	struct only_call call = { tgt, portals, count };

	reactor_call_sync(tgt->homes[0].reactor, portal_only, &call);
}
