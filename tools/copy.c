/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "block/blkdev.h"

#define THREADS		4u
#define CHUNK		(1 * MIB)
#define GRAIN		4096u		/* zeros are looked for in pieces of this */
#define LOOK_NS		(100 * NSEC_PER_MSEC)
#define TICK_LOOKS	100u		/* looks between two ticks */

/* ---- formats ---- */

static const char *const names[COPY_FORMATS] = { "raw", "qcow2", "vmdk", "vhdx" };

const char *copy_format_name(enum copy_format f)
{
	return names[f];
}

int copy_format_parse(const char *name)
{
	for (int i = 0; i < COPY_FORMATS; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

enum copy_format copy_format_of_name(const char *path)
{
	const char *dot = strrchr(path, '.');
	int f = dot ? copy_format_parse(dot + 1) : -1;

	return f < 0 ? COPY_RAW : (enum copy_format)f;
}

int copy_format_of(int fd, enum copy_format *f)
{
	static const struct { const char *magic; enum copy_format format; } magics[] = {
		{ "QFI\xfb", COPY_QCOW2 }, { "KDMV", COPY_VMDK }, { "COWD", COPY_VMDK },
		{ "# Disk DescriptorFile", COPY_VMDK }, { "vhdxfile", COPY_VHDX },
	};
	char head[64] = "";

	if (pread(fd, head, sizeof(head) - 1, 0) < 0)
		return -errno;
	*f = COPY_RAW;
	for (unsigned int i = 0; i < ARRAY_SIZE(magics); i++)
		if (!memcmp(head, magics[i].magic, strlen(magics[i].magic)))
			*f = magics[i].format;
	return 0;
}

/* ---- signals ---- */

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	stopped = sig;
}

void copy_watch_signals(void)
{
	const struct sigaction sa = { .sa_handler = stop };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

/* ---- raw to raw ---- */

/* What the threads share. */
struct raw_copy {
	int	in, out;
	uint64_t size;
	pthread_mutex_t mutex;
	uint64_t next;		/* first byte that nobody has taken */
	uint64_t data_end;	/* up to here it is data */
	uint64_t written;
	unsigned int running;
	int	err;		/* the first */
};

/* mutex held.  The next piece of data; false: there is none, or somebody failed. */
static bool next_piece(struct raw_copy *r, uint64_t *off, size_t *len)
{
	off_t data, hole;

	if (r->err || stopped || r->next >= r->size)
		return false;
	if (r->next >= r->data_end) {
		data = lseek(r->in, (off_t)r->next, SEEK_DATA);
		if (data < 0 && errno == ENXIO) {
			r->next = r->size;
			return false;
		}
		/* A device has no holes. */
		hole = data < 0 ? -1 : lseek(r->in, data, SEEK_HOLE);
		if (data >= 0)
			r->next = (uint64_t)data;
		r->data_end = hole < 0 || (uint64_t)hole > r->size ? r->size : (uint64_t)hole;
		if (r->next >= r->size)
			return false;
	}
	*off = r->next;
	*len = CHUNK - r->next % CHUNK;
	if (*len > r->data_end - r->next)
		*len = r->data_end - r->next;
	r->next += *len;
	return true;
}

static int read_all(int fd, uint8_t *buf, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const uint8_t *buf, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static bool is_zero(const uint8_t *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

/* What of the piece is not zeros, in runs. */
static int write_data(const struct raw_copy *r, const uint8_t *buf, size_t len, uint64_t off,
		      uint64_t *written)
{
	size_t from = 0, at, part;
	int err = 0;

	for (at = 0; at < len && !err; at += part) {
		part = GRAIN - (off + at) % GRAIN;
		part = part < len - at ? part : len - at;
		if (!is_zero(buf + at, part))
			continue;
		if (at > from)
			err = write_all(r->out, buf + from, at - from, off + from);
		*written += at - from;
		from = at + part;
	}
	if (!err && len > from) {
		err = write_all(r->out, buf + from, len - from, off + from);
		*written += len - from;
	}
	return err;
}

static void *copy_pieces(void *arg)
{
	struct raw_copy *r = arg;
	uint8_t *buf = blkdev_alloc(CHUNK);
	uint64_t off, written = 0;
	int err = buf ? 0 : -ENOMEM;
	size_t len;

	pthread_mutex_lock(&r->mutex);
	while (!err && next_piece(r, &off, &len)) {
		pthread_mutex_unlock(&r->mutex);
		err = read_all(r->in, buf, len, off);
		if (!err)
			err = write_data(r, buf, len, off, &written);
		pthread_mutex_lock(&r->mutex);
	}
	if (err && !r->err)
		r->err = err;
	r->written += written;
	r->running--;
	pthread_mutex_unlock(&r->mutex);
	free(buf);
	return NULL;
}

/* Until all threads are through. */
static void watch(struct copy *c, struct raw_copy *r)
{
	const struct timespec look = { .tv_nsec = LOOK_NS };
	unsigned int looks = 0, running;
	uint64_t next;

	for (;;) {
		pthread_mutex_lock(&r->mutex);
		running = r->running;
		next = r->next;
		pthread_mutex_unlock(&r->mutex);
		if (!running)
			return;
		progress_show(c->progress, next, r->size);
		if (c->tick && ++looks % TICK_LOOKS == 0 && c->tick(c->arg)) {
			pthread_mutex_lock(&r->mutex);
			r->err = r->err ? r->err : -ECONNRESET;
			pthread_mutex_unlock(&r->mutex);
		}
		nanosleep(&look, NULL);
	}
}

int copy_raw(struct copy *c, int in, int out, uint64_t size)
{
	struct raw_copy r = { .in = in, .out = out, .size = size, .running = THREADS };
	pthread_t threads[THREADS];
	unsigned int started = 0;

	pthread_mutex_init(&r.mutex, NULL);
	while (started < THREADS && !pthread_create(&threads[started], NULL, copy_pieces, &r))
		started++;
	pthread_mutex_lock(&r.mutex);
	r.running -= THREADS - started;
	if (!started)
		r.err = -EAGAIN;
	pthread_mutex_unlock(&r.mutex);
	watch(c, &r);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&r.mutex);
	c->written = r.written;
	if (stopped)
		return -EINTR;
	if (!r.err && fsync(out) && errno != EINVAL)
		return -errno;
	return r.err;
}

bool copy_was_stopped(void)
{
	return stopped;
}
