/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl_client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REPLY_MAX	(16u << 20)	/* bytes; the daemon's longest is far below */
#define RETRY_MS	50

/* jansson leaves out what it finds no memory for: an option to be mounted with, say. */
static void *get_memory(size_t size)
{
	void *p = malloc(size);

	if (p)
		return p;
	fputs("out of memory\n", stderr);
	exit(CTL_FAILED);
}

void ctl_client_init(void)
{
	json_set_alloc_funcs(get_memory, free);
}

static int connect_once(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr))) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int set_address(struct sockaddr_un *addr, const char *run_dir)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	return snprintf(addr->sun_path, sizeof(addr->sun_path), "%s/control", run_dir) <
	       (int)sizeof(addr->sun_path) ? 0 : -ENAMETOOLONG;
}

/* Why nobody could be asked, and what would help. */
static void explain(int err, const char *path, const char *run_dir, struct ctl_error *error)
{
	error->name[0] = '\0';
	if (err == -ENOENT || err == -ECONNREFUSED)
		snprintf(error->message, sizeof(error->message), "no lunfsd is running for %s; start "
			 "it with \"systemctl start lunfsd\" or \"lunfsd --run-dir %s &\", or name "
			 "another --run-dir", run_dir, run_dir);
	else if (err == -ENAMETOOLONG)
		snprintf(error->message, sizeof(error->message),
			 "%s: too long for a run directory", run_dir);
	else
		snprintf(error->message, sizeof(error->message), "%s: %s%s", path, strerror(-err),
			 err == -EACCES ? "; only root and the group of lunfsd.conf may ask" : "");
}

int ctl_client_connect(struct ctl_client *c, const char *program, const char *run_dir,
		       struct ctl_error *error)
{
	struct sockaddr_un addr;
	int err = set_address(&addr, run_dir);

	memset(c, 0, sizeof(*c));
	c->program = program;
	c->fd = err ? err : connect_once(&addr);
	if (c->fd >= 0)
		return 0;
	explain(c->fd, addr.sun_path, run_dir, error);
	return c->fd;
}

int ctl_client_open(struct ctl_client *c, const char *program, const char *run_dir,
		    unsigned int patience_ms)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	struct ctl_error error;
	unsigned int waited_ms = 0;
	int err;

	while ((err = ctl_client_connect(c, program, run_dir, &error))) {
		if ((err != -ENOENT && err != -ECONNREFUSED) || waited_ms >= patience_ms)
			break;
		nanosleep(&pause, NULL);
		waited_ms += RETRY_MS;
	}
	if (!err)
		return CTL_OK;
	fprintf(stderr, "%s: %s\n", program, error.message);
	return err == -ENAMETOOLONG ? CTL_USAGE : CTL_FAILED;
}

void ctl_client_close(struct ctl_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buf);
	c->fd = -1;
	c->buf = NULL;
}

static int send_request(struct ctl_client *c, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t len, done = 0;

	json_decref(request);
	if (!text)
		return -EINVAL;	/* an argument that is not UTF-8 */
	len = strlen(text);
	text[len++] = '\n';	/* in place of the terminator */
	while (done < len) {
		ssize_t n = send(c->fd, text + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	free(text);
	return done == len ? 0 : -EPIPE;
}

/* Attaching may wait for a dead host's lease; somebody who looks on wants to know. */
static void wait_readable(struct ctl_client *c)
{
	struct pollfd pfd = { .fd = c->fd, .events = POLLIN };
	unsigned int seconds = 0;

	while (poll(&pfd, 1, 1000) == 0 && ++seconds && isatty(STDERR_FILENO))
		fprintf(stderr, "\r%s: waiting for lunfsd, %u s (a slot whose host died is recovered "
			"first)", c->program, seconds);
	if (seconds && isatty(STDERR_FILENO))
		fputc('\n', stderr);
}

static int read_line(struct ctl_client *c, json_t **reply)
{
	size_t seen = 0;

	for (;;) {
		char *end = c->filled > seen ? memchr(c->buf + seen, '\n', c->filled - seen) :
			    NULL;
		ssize_t n;

		if (end) {
			*reply = json_loadb(c->buf, (size_t)(end - c->buf), 0, NULL);
			c->filled -= (size_t)(end + 1 - c->buf);
			memmove(c->buf, end + 1, c->filled);
			return *reply ? 0 : -EPROTO;
		}
		seen = c->filled;
		if (c->filled == c->size) {
			size_t size = c->size ? 2 * c->size : 65536;
			char *bigger = size <= REPLY_MAX ? realloc(c->buf, size) : NULL;

			if (!bigger)
				return size <= REPLY_MAX ? -ENOMEM : -EMSGSIZE;
			c->buf = bigger;
			c->size = size;
		}
		wait_readable(c);
		do {
			n = recv(c->fd, c->buf + c->filled, c->size - c->filled, 0);
		} while (n < 0 && errno == EINTR);
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		c->filled += (size_t)n;
	}
}

int ctl_client_bytes(struct ctl_client *c, void *buf, size_t len)
{
	size_t done = len < c->filled ? len : c->filled;

	if (done) {
		memcpy(buf, c->buf, done);
		c->filled -= done;
		memmove(c->buf, c->buf + done, c->filled);
	}
	while (done < len) {
		ssize_t n = recv(c->fd, (char *)buf + done, len - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		done += (size_t)n;
	}
	return 0;
}

/* Labels, names and paths are other people's: no control characters reach the terminal. */
static json_t *clean_text(const char *text)
{
	char *copy = strcpy(get_memory(strlen(text) + 1), text);
	json_t *clean;

	for (char *p = copy; *p; p++) {
		bool c1 = (unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0;

		if ((unsigned char)*p < 0x20 || *p == 0x7f || c1)
			p[0] = '?';
		if (c1)
			p[1] = '?';	/* U+0080 to U+009F: some terminals obey these */
	}
	clean = json_string(copy);
	free(copy);
	return clean;
}

/* jansson bounds the depth of what it reads. */
static void clean(json_t *value)
{
	const char *key;
	json_t *item;
	void *tmp;
	size_t i;

	json_object_foreach_safe(value, tmp, key, item) {
		if (json_is_string(item))
			json_object_set_new(value, key, clean_text(json_string_value(item)));
		else
			clean(item);
	}
	json_array_foreach(value, i, item) {
		if (json_is_string(item))
			json_array_set_new(value, i, clean_text(json_string_value(item)));
		else
			clean(item);
	}
}

static int exit_for(const char *name)
{
	static const char *const busy[] = { "EBUSY", "EALREADY", "EUSERS", "EAGAIN", "EHOSTDOWN" };

	for (unsigned int i = 0; i < ARRAY_SIZE(busy); i++)
		if (!strcmp(name, busy[i]))
			return CTL_BUSY;
	return CTL_FAILED;
}

static int read_answer(struct ctl_client *c, json_t *reply, json_t **result,
		       struct ctl_error *error)
{
	const json_t *e;

	if (!c->raw || !ctl_bool(reply, "ok"))
		clean(reply);
	*result = json_incref(json_object_get(reply, "result"));
	if (ctl_bool(reply, "ok") && *result)
		return 0;
	json_decref(*result);
	*result = NULL;
	e = json_object_get(reply, "error");
	snprintf(error->name, sizeof(error->name), "%s", ctl_str(e, "name"));
	snprintf(error->message, sizeof(error->message), "%s", *ctl_str(e, "message") ?
		 ctl_str(e, "message") : "lunfsd gave an answer that is not understood");
	return -EREMOTEIO;
}

int ctl_client_ask(struct ctl_client *c, json_t *request, json_t **result,
		   struct ctl_error *error)
{
	json_t *reply = NULL;
	int err = request ? send_request(c, request) : -EINVAL;

	if (!err)
		err = read_line(c, &reply);
	if (err) {
		error->name[0] = '\0';
		snprintf(error->message, sizeof(error->message), "%s", err == -EPIPE ?
			 "lunfsd went away" : err == -EINVAL ?
			 "an argument is not valid UTF-8" : strerror(-err));
		return err;
	}
	err = read_answer(c, reply, result, error);
	json_decref(reply);
	return err;
}

int ctl_client_call(struct ctl_client *c, json_t *request, json_t **result)
{
	struct ctl_error error;
	int err = ctl_client_ask(c, request, result, &error);

	if (!err)
		return CTL_OK;
	fprintf(stderr, "%s: %s\n", c->program, error.message);
	return err == -EREMOTEIO ? exit_for(error.name) : CTL_FAILED;
}

const char *ctl_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

int64_t ctl_int(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

bool ctl_bool(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}
