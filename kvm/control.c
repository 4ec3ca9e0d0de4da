/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEERS_MAX	16
#define LINE_MAX_BYTES	32
#define REPLY_SIZE	(16u << 10)	/* all disks with names at their longest, escaped */

struct peer {
	struct control	*c;
	struct reactor_fd fd;		/* -1: free */
	char		line[LINE_MAX_BYTES];
	size_t		len;
};

struct control {
	struct machine	*m;
	struct reactor_fd listen;
	struct peer	peers[PEERS_MAX];
	struct peer	*pausing;	/* whoever waits for the machine to stand still */
	char		reply[REPLY_SIZE];
	size_t		reply_len;
};

/* ---- replies ---- */

static void __attribute__((format(printf, 2, 3))) say(struct control *c, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(c->reply + c->reply_len, REPLY_SIZE - c->reply_len, fmt, args);
	va_end(args);
	if (n > 0)
		c->reply_len += (size_t)n;
	if (c->reply_len >= REPLY_SIZE)
		c->reply_len = REPLY_SIZE - 1;
}

static void say_string(struct control *c, const char *s)
{
	say(c, "\"");
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20)
			say(c, "\\u%04x", (unsigned int)*s);
		else
			say(c, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
	}
	say(c, "\"");
}

static void drop(struct peer *p)
{
	reactor_remove(p->c->m->reactor, &p->fd);
	close(p->fd.fd);
	p->fd.fd = -1;
	p->len = 0;
	if (p->c->pausing == p)
		p->c->pausing = NULL;
}

/* A reply fits into any socket's buffer: who has not read the ones before may go. */
static void send_reply(struct peer *p)
{
	struct control *c = p->c;

	if (send(p->fd.fd, c->reply, c->reply_len, MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    (ssize_t)c->reply_len)
		drop(p);
}

static void reply_error(struct peer *p, const char *why)
{
	p->c->reply_len = 0;
	say(p->c, "{\"ok\":false,\"error\":\"%s\"}\n", why);
	send_reply(p);
}

static void reply_ok(struct peer *p)
{
	p->c->reply_len = 0;
	say(p->c, "{\"ok\":true}\n");
	send_reply(p);
}

/* ---- requests ---- */

static const char *state_name(const struct machine *m)
{
	static const char *const names[] = { "starting", "running", "pausing", "paused" };

	return names[atomic_load(&m->state)];
}

static const char *yes(bool it_is)
{
	return it_is ? "true" : "false";
}

static void do_status(struct peer *p)
{
	static const char *const disk_states[] = { "away", "greeting", "idle", "running" };
	struct control *c = p->c;
	const struct machine *m = c->m;
	uint64_t first = atomic_load(&m->first_run_ns);

	c->reply_len = 0;
	say(c, "{\"ok\":true,\"name\":");
	say_string(c, m->plan->name);
	say(c, ",\"state\":\"%s\",\"cpus\":%u,\"memory\":%llu,\"pid\":%d,\"worker_pid\":%d,"
	    "\"start_us\":%llu,\"console\":%llu,\"confined\":{\"empty_root\":%s,\"landlock\":%s,\"filter\":%s},"
	    "\"disks\":[", state_name(m), m->plan->cpus,
	    (unsigned long long)m->plan->memory, (int)m->plan->parent, (int)getpid(),
	    (unsigned long long)(first ? (first - m->plan->start_ns) / 1000 : 0),
	    (unsigned long long)m->console.written, yes(m->jail.empty_root),
	    yes(m->jail.landlock), yes(m->jail.filter));
	for (unsigned int i = 0; i < m->plan->disk_count; i++) {
		say(c, "%s{\"name\":", i ? "," : "");
		say_string(c, m->plan->disks[i].name);
		say(c, ",\"read_only\":%s,\"server\":\"%s\"}",
		    yes(m->plan->disks[i].read_only),
		    disk_states[front_state(m->disks[i].front)]);
	}
	say(c, "]}\n");
	send_reply(p);
}

static void on_paused(void *arg)
{
	struct control *c = arg;
	struct peer *p = c->pausing;

	c->pausing = NULL;
	if (p)
		reply_ok(p);
}

static void do_pause(struct peer *p)
{
	int err = machine_pause(p->c->m, on_paused, p->c);

	if (err == -EALREADY)
		reply_ok(p);
	else if (err)
		reply_error(p, "it is just being paused");
	else if (atomic_load(&p->c->m->state) == MACHINE_PAUSED)
		reply_ok(p);
	else
		p->c->pausing = p;
}

static void do_resume(struct peer *p)
{
	int err = machine_resume(p->c->m);

	if (err && err != -EALREADY)
		reply_error(p, "it is just being paused");
	else
		reply_ok(p);
}

static void do_stop(struct peer *p)
{
	if (atomic_load(&p->c->m->state) != MACHINE_RUNNING) {
		reply_error(p, "it is paused, and cannot see its power button; resume it first");
		return;
	}
	machine_press_button(p->c->m);
	reply_ok(p);
}

static void do_kill(struct peer *p)
{
	reply_ok(p);
	machine_end(p->c->m, VM_EXIT_KILLED, "killed");
}

static void do_console(struct peer *p)
{
	struct control *c = p->c;
	int fd = p->fd.fd;

	if (!console_has_room(&c->m->console)) {
		reply_error(p, "as many as can be are looking at its console already");
		return;
	}
	reply_ok(p);
	if (p->fd.fd < 0)
		return;
	reactor_remove(c->m->reactor, &p->fd);
	if (console_view(&c->m->console, fd))
		close(fd);
	p->fd.fd = -1;
	p->len = 0;
}

static const struct { const char *word; void (*run)(struct peer *p); } requests[] = {
	{ "status", do_status }, { "pause", do_pause }, { "resume", do_resume },
	{ "stop", do_stop }, { "kill", do_kill }, { "console", do_console },
};

static void serve_line(struct peer *p, const char *line)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(line, requests[i].word))
			continue;
		requests[i].run(p);
		return;
	}
	reply_error(p, "unknown request");
}

static void peer_ready(struct reactor_fd *f, uint32_t events)
{
	struct peer *p = container_of(f, struct peer, fd);
	ssize_t n = recv(f->fd, p->line + p->len, sizeof(p->line) - 1 - p->len, MSG_DONTWAIT);
	char *end;

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		drop(p);
		return;
	}
	p->len += (size_t)n;
	p->line[p->len] = '\0';
	end = strchr(p->line, '\n');
	if (!end && p->len == sizeof(p->line) - 1) {
		drop(p);	/* no word is as long */
		return;
	}
	/* One request at a time: a client waits for the reply. */
	if (!end)
		return;
	*end = '\0';
	p->len = 0;
	serve_line(p, p->line);
}

static void listen_ready(struct reactor_fd *f, uint32_t events)
{
	struct control *c = container_of(f, struct control, listen);
	static const char busy[] = "{\"ok\":false,\"error\":\"too many ask it at once\"}\n";
	int fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	for (unsigned int i = 0; i < PEERS_MAX; i++) {
		struct peer *p = &c->peers[i];

		if (p->fd.fd >= 0)
			continue;
		p->fd = (struct reactor_fd){ .fd = fd, .ready = peer_ready };
		if (!reactor_add(c->m->reactor, &p->fd, EPOLLIN))
			return;
		p->fd.fd = -1;
		break;
	}
	if (send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		/* Then it finds the end of the connection. */
	}
	close(fd);
}

struct begin { struct control *c; int err; };

static void begin(void *arg)
{
	struct begin *b = arg;

	b->err = reactor_add(b->c->m->reactor, &b->c->listen, EPOLLIN);
}

int control_new(struct machine *m, int listen_fd, struct control **out)
{
	struct control *c = calloc(1, sizeof(*c));
	struct begin b = { c, 0 };

	if (!c)
		return -ENOMEM;
	c->m = m;
	c->listen = (struct reactor_fd){ .fd = listen_fd, .ready = listen_ready };
	for (unsigned int i = 0; i < PEERS_MAX; i++) {
		c->peers[i].c = c;
		c->peers[i].fd.fd = -1;
	}
	reactor_call_sync(m->reactor, begin, &b);
	if (b.err)
		free(c);
	else
		*out = c;
	return b.err;
}
