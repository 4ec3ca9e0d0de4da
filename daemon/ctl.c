/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "daemon/ctl_disk.h"
#include "daemon/ctl_json.h"

#define GROUPS_MAX	256

#define PIECE_MS	20	/* between looks for the rest of a request */

/* One connection, served by a thread of its own from accept to close. */
struct client {
	struct ctl	*ctl;
	struct ctl_conn	conn;
	bool		is_root;
	char		buf[CTL_LINE_MAX];
};

static uint64_t idle_deadline(void)
{
	return env_now_ns(env_posix()) + CTL_IDLE_S * NSEC_PER_SEC;
}

/* ---- replies ---- */

char *ctl_reply_line(const struct ctl_request *rq, int err, json_t *result, const char *why)
{
	json_t *reply = json_object();
	const char *name = err ? strerrorname_np(-err) : NULL;
	char *text, *line;
	size_t len;

	if (rq->id)
		json_object_set(reply, "id", rq->id);
	json_object_set_new(reply, "ok", json_boolean(!err));
	if (err)
		json_object_set_new(reply, "error", json_pack("{s:s, s:o}", "name", name ? name : "EIO",
							      "message", ctl_text(why)));
	else
		json_object_set(reply, "result", result);
	text = json_dumps(reply, JSON_COMPACT);
	json_decref(reply);
	if (!text || !ctl_json_is_whole()) {
		free(text);
		return NULL;
	}
	len = strlen(text);
	line = realloc(text, len + 2);
	if (!line) {
		free(text);
		return NULL;
	}
	strcpy(line + len, "\n");
	return line;
}

char *ctl_reply_short(const struct ctl_request *rq, int err, char buf[CTL_SHORT_MAX])
{
	const char *name = strerrorname_np(err ? -err : ENOMEM);

	if (!err && rq->changes)
		snprintf(buf, CTL_SHORT_MAX, "{\"ok\":true,\"result\":{}}\n");
	else
		snprintf(buf, CTL_SHORT_MAX, "{\"ok\":false,\"error\":{\"name\":\"%s\",\"message\":"
			 "\"out of memory; try again\"}}\n", name ? name : "EIO");
	return buf;
}

/* A client that takes its reply in morsels is ended like one that takes nothing. */
static int send_all(int fd, const char *data, size_t len)
{
	uint64_t deadline = idle_deadline();

	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		data += n;
		len -= (size_t)n;
		if (len && env_now_ns(env_posix()) > deadline)
			return -ETIMEDOUT;
	}
	return 0;
}

/* ---- requests ---- */

static int run(struct client *cl, const struct ctl_request *rq, json_t **result, char *why,
	       size_t why_size)
{
	int err = ctl_begin(cl->ctl, why, why_size);

	if (err)
		return err;
	err = ctl_run(cl->ctl, rq, &cl->conn, result, why, why_size);
	ctl_done(cl->ctl);
	return err;
}

static int serve_line(struct client *cl, const char *line, size_t len)
{
	char why[STORE_WHY_SIZE] = "", brief[CTL_SHORT_MAX];
	struct ctl_request rq;
	json_t *result = NULL;
	char *reply;
	int err;

	err = ctl_request_parse(line, len, cl->is_root, &rq, why, sizeof(why));
	if (!err)
		err = run(cl, &rq, &result, why, sizeof(why));
	if (err && !why[0])
		snprintf(why, sizeof(why), "%s", strerror(-err));
	reply = ctl_reply_line(&rq, err, result, why);
	if (!reply)
		ctl_reply_short(&rq, err, brief);
	json_decref(result);
	ctl_request_free(&rq);
	err = send_all(cl->conn.fd, reply ? reply : brief, strlen(reply ? reply : brief));
	if (!err && reply && cl->conn.bytes)
		err = send_all(cl->conn.fd, cl->conn.bytes, cl->conn.byte_count);
	free(cl->conn.bytes);
	cl->conn.bytes = NULL;
	free(reply);
	return err;
}

/*
 * A request stays in the socket until it is answered: the parent reads there what root asked
 * for, where nobody but the client can have put it (parent_asked()).
 * Return: its length with its newline; 0 the client has gone or was idle; -EMSGSIZE.
 */
static ssize_t next_request(struct client *cl)
{
	struct pollfd gone = { .fd = cl->conn.fd, .events = POLLRDHUP };
	uint64_t deadline = idle_deadline();
	ssize_t n, seen = 0;

	while ((n = recv(cl->conn.fd, cl->buf, sizeof(cl->buf), MSG_PEEK)) > 0) {
		const char *end = memchr(cl->buf, '\n', (size_t)n);

		if (end)
			return end + 1 - cl->buf;
		if ((size_t)n == sizeof(cl->buf))
			return -EMSGSIZE;
		/* Nothing tells when there is more than was seen: look now and then. */
		if (n == seen && poll(&gone, 1, PIECE_MS))
			break;
		if (env_now_ns(env_posix()) > deadline)
			break;
		seen = n;
	}
	return 0;
}

static int take_request(struct client *cl, size_t len)
{
	while (len) {
		ssize_t n = recv(cl->conn.fd, cl->buf, len, 0);

		if (n <= 0)
			return -EPIPE;
		len -= (size_t)n;
	}
	return 0;
}

static void refuse(int fd, int err, const char *why)
{
	struct ctl_request none = { 0 };
	char *reply, brief[CTL_SHORT_MAX];

	ctl_json_begin();
	reply = ctl_reply_line(&none, err, NULL, why);
	if (!reply)
		ctl_reply_short(&none, err, brief);
	send_all(fd, reply ? reply : brief, strlen(reply ? reply : brief));
	free(reply);
}

static void count_client(struct ctl *c, bool is_root, int by)
{
	pthread_mutex_lock(&c->mutex);
	c->clients += (unsigned int)by;
	if (!is_root)
		c->others += (unsigned int)by;
	pthread_mutex_unlock(&c->mutex);
}

static void *serve_client(void *arg)
{
	struct client *cl = arg;
	ssize_t len;

	/* The timeout of the socket ends a client that sends nothing, or takes no reply. */
	while ((len = next_request(cl)) > 0)
		if (serve_line(cl, cl->buf, (size_t)len - 1) || take_request(cl, (size_t)len))
			break;
	if (len == -EMSGSIZE)
		refuse(cl->conn.fd, -EMSGSIZE, "the request is too long");
	/* Before the client sees the end: what it held is free then. */
	ctl_disk_release(cl->ctl, &cl->conn);
	close(cl->conn.fd);
	count_client(cl->ctl, cl->is_root, -1);
	free(cl);
	return NULL;
}

/* ---- connections ---- */

bool ctl_peer_allowed(const struct rpc_hello *h, const struct ucred *cred, const gid_t *groups,
		      unsigned int group_count)
{
	if (cred->uid == 0)
		return true;
	if (!h->has_control_group)
		return false;
	if (cred->gid == h->control_gid)
		return true;
	for (unsigned int i = 0; i < group_count; i++)
		if (groups[i] == h->control_gid)
			return true;
	return false;
}

static bool learn_peer(const struct ctl *c, int fd, bool *is_root)
{
	struct ucred cred;
	gid_t groups[GROUPS_MAX];
	socklen_t len = sizeof(cred), groups_len = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_len))
		groups_len = 0;
	*is_root = cred.uid == 0;
	return ctl_peer_allowed(c->hello, &cred, groups,
				(unsigned int)(groups_len / sizeof(groups[0])));
}

static bool has_room(struct ctl *c, bool is_root)
{
	bool room;

	pthread_mutex_lock(&c->mutex);
	room = c->clients < CTL_CLIENTS_MAX && (is_root || c->others < CTL_OTHERS_MAX);
	pthread_mutex_unlock(&c->mutex);
	return room;
}

static int start_client(struct ctl *c, int fd)
{
	struct timeval idle = { .tv_sec = CTL_IDLE_S };
	struct client *cl;
	pthread_attr_t attr;
	pthread_t thread;
	bool is_root;
	int err;

	if (!learn_peer(c, fd, &is_root))
		return -EPERM;
	if (!has_room(c, is_root)) {
		/* The socket's buffer is empty: this cannot block. */
		refuse(fd, -EAGAIN, "too many connections at a time; try again");
		return -EAGAIN;
	}
	cl = calloc(1, sizeof(*cl));
	if (!cl)
		return -ENOMEM;
	cl->ctl = c;
	cl->conn.fd = fd;
	cl->is_root = is_root;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof(idle));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof(idle));
	count_client(c, is_root, 1);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attr, serve_client, cl);
	pthread_attr_destroy(&attr);
	if (!err)
		return 0;
	count_client(c, is_root, -1);
	free(cl);
	return -err;
}

static void *accept_clients(void *arg)
{
	struct ctl *c = arg;
	struct timespec pause = { .tv_nsec = 100000000 };

	for (;;) {
		int fd = accept4(c->sock, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
			nanosleep(&pause, NULL);	/* until some have gone */
		if (fd >= 0 && start_client(c, fd))
			close(fd);
	}
	return NULL;
}

/* ---- the end ---- */

int ctl_begin(struct ctl *c, char *why, size_t why_size)
{
	bool stopped;

	pthread_mutex_lock(&c->mutex);
	stopped = c->stopped;
	c->commands += !stopped;
	pthread_mutex_unlock(&c->mutex);
	return stopped ? text_refuse(-ESHUTDOWN, why, why_size, "the daemon is shutting down") : 0;
}

void ctl_done(struct ctl *c)
{
	pthread_mutex_lock(&c->mutex);
	c->commands--;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->mutex);
}

void ctl_stop(struct ctl *c)
{
	pthread_mutex_lock(&c->mutex);
	c->stopped = true;
	while (c->commands)
		pthread_cond_wait(&c->changed, &c->mutex);
	pthread_mutex_unlock(&c->mutex);
}

void ctl_end(struct ctl *c)
{
	struct ctl_conn *conn, *tmp;

	pthread_mutex_lock(&c->mutex);
	c->ending = true;
	list_for_each(conn, tmp, &c->holders, node)
		shutdown(conn->fd, SHUT_RDWR);
	pthread_mutex_unlock(&c->mutex);
}

int ctl_start(struct ctl *c, int sock, struct stores *stores, struct disks *disks,
	      const struct rpc_hello *hello)
{
	memset(c, 0, sizeof(*c));
	c->sock = sock;
	c->stores = stores;
	c->disks = disks;
	c->hello = hello;
	list_init(&c->holders);
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->changed, NULL);
	return -pthread_create(&c->acceptor, NULL, accept_clients, c);
}
