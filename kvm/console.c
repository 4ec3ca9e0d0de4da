/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/console.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY_NS	(10 * 1000000ull)	/* until a terminal or a pipe is looked at again */
#define PIECE		512			/* a pipe that is writable takes this much at once */

/* ---- output ---- */

void console_put(struct console *c, uint8_t byte)
{
	pthread_mutex_lock(&c->mutex);
	c->ring[c->written++ % CONSOLE_SIZE] = byte;
	pthread_mutex_unlock(&c->mutex);
	reactor_post(c->reactor, &c->output);
}

/* What comes after @seen, at most PIECE bytes of it; @seen skips what is no longer there. */
static size_t next_piece(struct console *c, uint64_t *seen, uint8_t piece[PIECE])
{
	size_t len = 0;

	pthread_mutex_lock(&c->mutex);
	if (c->written - *seen > CONSOLE_SIZE)
		*seen = c->written - CONSOLE_SIZE;
	while (len < PIECE && *seen + len < c->written) {
		piece[len] = c->ring[(*seen + len) % CONSOLE_SIZE];
		len++;
	}
	pthread_mutex_unlock(&c->mutex);
	return len;
}

static void stop_viewing(struct viewer *v)
{
	reactor_remove(v->c->reactor, &v->fd);
	close(v->fd.fd);
	v->fd.fd = -1;
}

/* What to be told of next: room in the socket, if it is full; what is typed, if there is room. */
static void watch(struct viewer *v, bool full)
{
	reactor_change(v->c->reactor, &v->fd, (full ? EPOLLOUT : 0) | (v->typed_len ? 0 : EPOLLIN));
}

static void show(struct viewer *v)
{
	uint8_t piece[PIECE];
	size_t len;

	while ((len = next_piece(v->c, &v->seen, piece))) {
		ssize_t n = send(v->fd.fd, piece, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			watch(v, true);
			return;
		}
		if (n < 0) {
			stop_viewing(v);
			return;
		}
		v->seen += (size_t)n;
	}
	watch(v, false);
}

/*
 * Standard output may be anybody's: it stays blocking, and is written to only when it is ready.  A
 * terminal is ready when it has room for less than that; it is ours alone (parent.c), and does not block.
 */
static void copy(struct console *c)
{
	struct pollfd pfd = { .fd = c->copy_fd, .events = POLLOUT };
	uint8_t piece[PIECE];
	size_t len;

	while (c->copy_fd >= 0 && (len = next_piece(c, &c->copied, piece))) {
		ssize_t n;

		if (poll(&pfd, 1, 0) != 1)
			goto later;
		n = write(c->copy_fd, piece, len);
		if (n < 0 && errno == EAGAIN)
			goto later;
		if (n < 0)
			c->copy_fd = -1;	/* nobody reads it any more */
		else
			c->copied += (size_t)n;
	}
	reactor_timer_cancel(c->reactor, &c->retry);
	return;

later:
	reactor_timer_set(c->reactor, &c->retry, reactor_now_ns(c->reactor) + RETRY_NS);
}

uint64_t console_behind(struct console *c)
{
	uint64_t behind = 0;

	pthread_mutex_lock(&c->mutex);
	if (c->copy_fd >= 0)
		behind = c->written - c->copied;
	pthread_mutex_unlock(&c->mutex);
	return behind;
}

void console_flush(struct console *c)
{
	for (unsigned int i = 0; i < CONSOLE_VIEWERS_MAX; i++)
		if (c->viewers[i].fd.fd >= 0)
			show(&c->viewers[i]);
	copy(c);
}

static void on_output(struct reactor_call *call)
{
	console_flush(container_of(call, struct console, output));
}

static void on_retry(struct reactor_timer *t)
{
	copy(container_of(t, struct console, retry));
}

/* ---- input ---- */

static void type(struct viewer *v)
{
	size_t n = uart_receive(v->c->uart, v->typed, v->typed_len);

	v->typed_len -= n;
	memmove(v->typed, v->typed + n, v->typed_len);
}

static void on_input(struct reactor_call *call)
{
	struct console *c = container_of(call, struct console, input);

	for (unsigned int i = 0; i < CONSOLE_VIEWERS_MAX; i++) {
		struct viewer *v = &c->viewers[i];

		if (v->fd.fd < 0 || !v->typed_len)
			continue;
		type(v);
		show(v);
	}
}

void console_drained(struct console *c)
{
	reactor_post(c->reactor, &c->input);
}

static void viewer_ready(struct reactor_fd *f, uint32_t events)
{
	struct viewer *v = container_of(f, struct viewer, fd);
	ssize_t n;

	if (events & EPOLLIN && !v->typed_len) {
		n = recv(f->fd, v->typed, sizeof(v->typed), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			stop_viewing(v);
			return;
		}
		v->typed_len = n > 0 ? (size_t)n : 0;
		type(v);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		stop_viewing(v);
		return;
	}
	show(v);
}

bool console_has_room(const struct console *c)
{
	for (unsigned int i = 0; i < CONSOLE_VIEWERS_MAX; i++)
		if (c->viewers[i].fd.fd < 0)
			return true;
	return false;
}

int console_view(struct console *c, int fd)
{
	for (unsigned int i = 0; i < CONSOLE_VIEWERS_MAX; i++) {
		struct viewer *v = &c->viewers[i];
		int err;

		if (v->fd.fd >= 0)
			continue;
		v->fd = (struct reactor_fd){ .fd = fd, .ready = viewer_ready };
		err = reactor_add(c->reactor, &v->fd, EPOLLIN);
		if (err) {
			v->fd.fd = -1;
			return err;
		}
		v->seen = 0;	/* all that is still there */
		v->typed_len = 0;
		show(v);
		return 0;
	}
	return -EUSERS;
}

void console_init(struct console *c, struct reactor *r, struct uart *uart, int copy_fd)
{
	pthread_mutex_init(&c->mutex, NULL);
	c->reactor = r;
	c->uart = uart;
	c->output.fn = on_output;
	c->input.fn = on_input;
	c->retry.fn = on_retry;
	c->copy_fd = copy_fd;
	for (unsigned int i = 0; i < CONSOLE_VIEWERS_MAX; i++) {
		c->viewers[i].c = c;
		c->viewers[i].fd.fd = -1;
	}
}
