/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/notify.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/aio_ring.h"

int notify_init(struct notify *n)
{
	int err;

	memset(n, 0, sizeof(*n));
	n->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->ready_fd < 0)
		return -errno;
	err = io_setup(2 * NOTIFY_BATCH, &n->aio);
	if (err) {
		close(n->ready_fd);
		n->ready_fd = -1;
	}
	return err;
}

io_context_t notify_fini(struct notify *n)
{
	if (n->ready_fd < 0)
		return NULL;
	close(n->ready_fd);
	n->ready_fd = -1;
	return n->aio;
}

static void notify_prepare(struct notify *n, struct iocb *cb, int fd)
{
	io_prep_poll(cb, n->ready_fd, POLLIN);
	io_set_eventfd(cb, fd);
}

/* The requests have completed within io_submit(); only their events are to be taken. */
static void notify_drop_events(struct notify *n)
{
	struct io_event events[NOTIFY_BATCH];

	while (aio_ring_take(n->aio, events, NOTIFY_BATCH) == NOTIFY_BATCH)
		;
}

void notify_flush(struct notify *n)
{
	struct iocb *cbs[NOTIFY_BATCH];
	unsigned int i, done = 0;

	for (i = 0; i < n->count; i++)
		cbs[i] = &n->iocbs[i];
	while (done < n->count) {
		int ret = io_submit(n->aio, (long)(n->count - done), cbs + done);

		/* One that fails cannot be helped: it was an eventfd when it was checked. */
		done += ret > 0 ? (unsigned int)ret : 1;
		notify_drop_events(n);
	}
	n->count = 0;
}

void notify_add(struct notify *n, int fd)
{
	if (n->count == NOTIFY_BATCH)
		notify_flush(n);
	notify_prepare(n, &n->iocbs[n->count++], fd);
}

int notify_check(struct notify *n, int fd)
{
	struct iocb cb, *cbs = &cb;
	int ret;

	notify_prepare(n, &cb, fd);
	ret = io_submit(n->aio, 1, &cbs);
	notify_drop_events(n);
	return ret == 1 ? 0 : -EINVAL;
}
