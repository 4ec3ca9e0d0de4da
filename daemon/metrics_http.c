/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics_http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS		1000	/* at most, between looks at the time */
#define TARGET		"/metrics"
#define TYPE		"text/plain; version=0.0.4; charset=utf-8"

/* What clients are being sent; the last reference frees it. */
struct page {
	unsigned int refs;
	uint64_t made_ns;
	size_t	len;
	char	*text;
};

struct client {
	int	fd;		/* -1: none */
	uint64_t accepted_ns;
	uint64_t until_ns;	/* then it is cut off */
	size_t	received;
	bool	ended;		/* all is sent: what still comes is thrown away until it closes */
	size_t	head_len, sent;	/* of head and text together */
	struct page *page;	/* NULL: head is all */
	char	request[METRICS_REQUEST_MAX], head[512];
};

struct metrics_http {
	struct metrics_http_params p;
	pthread_t thread;
	bool	stopping;	/* atomic */
	struct page *fresh;	/* made last, or NULL */
	struct client clients[METRICS_CLIENTS_MAX];
};

/* ---- requests ---- */

static bool starts(const char **at, const char *end, const char *with)
{
	size_t n = strlen(with);

	if ((size_t)(end - *at) < n || memcmp(*at, with, n) != 0)
		return false;
	*at += n;
	return true;
}

/* "GET /metrics?x HTTP/1.1" (RFC 9112, 3) */
static unsigned int judge_line(const char *at, const char *end, bool *head)
{
	const char *target, *space;
	size_t n;

	if (memchr(at, '\0', (size_t)(end - at)))
		return 400;
	target = memchr(at, ' ', (size_t)(end - at));
	space = target ? memchr(target + 1, ' ', (size_t)(end - target) - 1) : NULL;
	if (!space || target == at)
		return 400;
	*head = starts(&at, end, "HEAD ");
	if (!*head && !starts(&at, end, "GET "))
		return 405;
	n = strcspn(at, "? ");
	at = space + 1;
	if (!starts(&at, end, "HTTP/1.") || end - at != 1)
		return 505;
	return n == strlen(TARGET) && !memcmp(target + 1, TARGET, n) ? 200 : 404;
}

unsigned int metrics_http_judge(const char *request, size_t len, bool *head)
{
	const char *line = memmem(request, len, "\r\n", 2);

	*head = false;
	if (memmem(request, len, "\r\n\r\n", 4))
		return judge_line(request, line, head);
	return len < METRICS_REQUEST_MAX ? 0 : 431;
}

static const char *phrase(unsigned int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 431: return "Request Header Fields Too Large";
	case 503: return "Service Unavailable";
	default:  return "HTTP Version Not Supported";
	}
}

/* ---- the text ---- */

static void page_put(struct page *page)
{
	if (!page || --page->refs)
		return;
	free(page->text);
	free(page);
}

static struct page *page_get(struct metrics_http *h)
{
	uint64_t now = env_now_ns(env_posix());
	struct page *page = h->fresh;

	if (!page || now - page->made_ns > METRICS_FRESH_NS) {
		page_put(h->fresh);
		h->fresh = page = calloc(1, sizeof(*page));
		if (!page)
			return NULL;
		page->refs = 1;
		page->text = h->p.text(h->p.arg);
		page->made_ns = env_now_ns(env_posix());
		if (!page->text) {
			page_put(page);
			return h->fresh = NULL;
		}
		page->len = strlen(page->text);
	}
	page->refs++;
	return page;
}

/* ---- clients ---- */

static void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	page_put(c->page);
	c->page = NULL;
}

static uint64_t limit_ns(const struct metrics_http *h)
{
	return h->p.client_ns ? h->p.client_ns : METRICS_CLIENT_NS;
}

static void client_open(struct metrics_http *h, int fd)
{
	struct client *oldest = &h->clients[0];

	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX && oldest->fd >= 0; i++)
		if (h->clients[i].fd < 0 || h->clients[i].accepted_ns < oldest->accepted_ns)
			oldest = &h->clients[i];
	client_close(oldest);
	oldest->fd = fd;
	oldest->accepted_ns = env_now_ns(env_posix());
	oldest->until_ns = oldest->accepted_ns + limit_ns(h);
	oldest->received = oldest->sent = oldest->head_len = 0;
	oldest->ended = false;
}

static void answer(struct metrics_http *h, struct client *c, unsigned int status, bool head)
{
	size_t len;

	if (status == 200) {
		c->page = page_get(h);
		status = c->page ? 200 : 503;
	}
	len = c->page ? c->page->len : 0;
	c->head_len = (size_t)snprintf(c->head, sizeof(c->head),
				       "HTTP/1.1 %u %s\r\nContent-Type: " TYPE "\r\n"
				       "Content-Length: %zu\r\n%sConnection: close\r\n\r\n", status,
				       phrase(status), len,
				       status == 405 ? "Allow: GET, HEAD\r\n" : "");
	/* A datastore that hangs may have held the text up: that was not the client's time. */
	c->until_ns = env_now_ns(env_posix()) + limit_ns(h);
	if (!head)
		return;
	page_put(c->page);
	c->page = NULL;
}

/* false: it is over with it. */
static bool client_receive(struct metrics_http *h, struct client *c)
{
	char *to = c->ended ? c->request : c->request + c->received;
	size_t room = c->ended ? sizeof(c->request) : sizeof(c->request) - c->received;
	ssize_t n = recv(c->fd, to, room, MSG_DONTWAIT);
	unsigned int status;
	bool head;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	if (c->ended)
		return true;
	c->received += (size_t)n;
	status = metrics_http_judge(c->request, c->received, &head);
	if (status)
		answer(h, c, status, head);
	return true;
}

static bool client_send(struct client *c)
{
	size_t all = c->head_len + (c->page ? c->page->len : 0);
	bool in_head = c->sent < c->head_len;
	const char *from = in_head ? c->head + c->sent : c->page->text + c->sent - c->head_len;
	ssize_t n = send(c->fd, from, in_head ? c->head_len - c->sent : all - c->sent,
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	c->sent += (size_t)n;
	if (c->sent < all)
		return true;
	/* Closed at once, what it still sends would take the answer from it. */
	c->ended = true;
	return !shutdown(c->fd, SHUT_WR);
}

static void client_serve(struct metrics_http *h, struct client *c, short events)
{
	bool ok = !(events & (POLLERR | POLLNVAL));

	if (ok && (events & POLLOUT))
		ok = client_send(c);
	else if (ok && (events & (POLLIN | POLLHUP)))
		ok = client_receive(h, c);
	if (!ok)
		client_close(c);
}

/* ---- the thread ---- */

/* Milliseconds until the first client's time is over. */
static int wait_ms(const struct metrics_http *h, uint64_t now)
{
	uint64_t left = WAIT_MS * NSEC_PER_MSEC;

	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++) {
		const struct client *c = &h->clients[i];

		if (c->fd >= 0 && c->until_ns < now + left)
			left = c->until_ns > now ? c->until_ns - now : 0;
	}
	return (int)(left / NSEC_PER_MSEC) + 1;
}

static void expire(struct metrics_http *h, uint64_t now)
{
	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++)
		if (h->clients[i].fd >= 0 && h->clients[i].until_ns <= now)
			client_close(&h->clients[i]);
}

static void serve_round(struct metrics_http *h)
{
	struct pollfd pfd[METRICS_CLIENTS_MAX + 1];
	uint64_t now = env_now_ns(env_posix());
	int fd;

	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++) {
		const struct client *c = &h->clients[i];

		pfd[i] = (struct pollfd){ .fd = c->fd, .events = c->head_len && !c->ended ? POLLOUT :
											 POLLIN };
	}
	pfd[METRICS_CLIENTS_MAX] = (struct pollfd){ .fd = h->p.sock, .events = POLLIN };
	if (poll(pfd, METRICS_CLIENTS_MAX + 1, wait_ms(h, now)) < 0)
		return;
	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++)
		if (pfd[i].fd >= 0 && pfd[i].revents)
			client_serve(h, &h->clients[i], pfd[i].revents);
	/* By the time before we looked: who has asked while we made somebody else's text was not slow. */
	expire(h, now);
	/* One a round, behind those that are there: they have had their turn. */
	if (!pfd[METRICS_CLIENTS_MAX].revents)
		return;
	fd = accept4(h->p.sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		client_open(h, fd);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		env_sleep_until(env_posix(), env_now_ns(env_posix()) + 100 * NSEC_PER_MSEC);
}

static void *run(void *arg)
{
	struct metrics_http *h = arg;

	while (!__atomic_load_n(&h->stopping, __ATOMIC_ACQUIRE))
		serve_round(h);
	return NULL;
}

int metrics_http_start(const struct metrics_http_params *p, struct metrics_http **out)
{
	struct metrics_http *h = calloc(1, sizeof(*h));
	int err = h ? 0 : -ENOMEM;

	if (!err) {
		h->p = *p;
		for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++)
			h->clients[i].fd = -1;
		err = -pthread_create(&h->thread, NULL, run, h);
	}
	if (err) {
		free(h);
		close(p->sock);
		return err;
	}
	*out = h;
	return 0;
}

void metrics_http_end(struct metrics_http *h)
{
	if (!h)
		return;
	__atomic_store_n(&h->stopping, true, __ATOMIC_RELEASE);
	shutdown(h->p.sock, SHUT_RD);	/* wakes the thread up */
}

void metrics_http_stop(struct metrics_http *h)
{
	if (!h)
		return;
	metrics_http_end(h);
	pthread_join(h->thread, NULL);
	for (unsigned int i = 0; i < METRICS_CLIENTS_MAX; i++)
		client_close(&h->clients[i]);
	page_put(h->fresh);
	close(h->p.sock);
	free(h);
}
