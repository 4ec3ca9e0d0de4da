/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUES_DEFAULT	16

/* ---- rounds ---- */

static unsigned int vhu_poll(struct reactor_poller *p)
{
	struct vhu *v = container_of(p, struct vhu, poller);
	unsigned int n = 0;

	if (v->cut || (v->drained && !v->drain_queue))
		return 0;
	for (unsigned int i = 0; i < v->queue_count; i++)
		if (v->queues[i].running && v->drain_queue != &v->queues[i])
			n += queue_poll(&v->queues[i]);
	requests_submit(v);
	if (atomic_load_explicit(&v->mem_broken, memory_order_relaxed))
		vhu_cut(v, VHU_END_PROTOCOL, "its memory was taken away");
	return n;
}

static bool vhu_arm(struct reactor_poller *p)
{
	struct vhu *v = container_of(p, struct vhu, poller);
	bool work = false;

	if (v->cut || (v->drained && !v->drain_queue))
		return false;	/* it polls again when the drain has ended */
	for (unsigned int i = 0; i < v->queue_count; i++)
		if (v->queues[i].running && v->drain_queue != &v->queues[i] &&
		    queue_arm(&v->queues[i]))
			work = true;
	return work;
}

static void vhu_disarm(struct reactor_poller *p)
{
	struct vhu *v = container_of(p, struct vhu, poller);

	for (unsigned int i = 0; i < v->queue_count; i++)
		if (v->queues[i].running)
			queue_disarm(&v->queues[i]);
}

static void vhu_end_of_round(struct reactor_end *e)
{
	struct vhu *v = container_of(e, struct vhu, end);

	requests_submit(v);
	if (atomic_load_explicit(&v->mem_broken, memory_order_relaxed))
		vhu_cut(v, VHU_END_PROTOCOL, "its memory was taken away");
	for (unsigned int i = 0; i < v->queue_count && !v->cut; i++)
		queue_publish(&v->queues[i]);
	notify_flush(&v->notify);
	vhu_check_drained(v);
}

/* ---- waiting until nothing is under way ---- */

static unsigned int under_way(const struct vhu *v)
{
	return v->drain_queue ? v->drain_queue->in_flight : v->in_flight;
}

void vhu_drain(struct vhu *v, struct vhu_queue *q, drained_fn fn)
{
	assert(!v->drained);
	v->drain_queue = q;
	v->drained = fn;
	/* No message is looked at meanwhile; a socket that hangs up would be ready for ever. */
	reactor_remove(v->r, &v->conn);
	reactor_at_end(v->r, &v->end);
}

static void vhu_gone(struct vhu *v);

void vhu_check_drained(struct vhu *v)
{
	drained_fn fn = v->drained;

	if (v->cut) {
		if (!v->in_flight && v->conn.fd >= 0)
			vhu_gone(v);
		return;
	}
	if (!fn || under_way(v))
		return;
	v->drained = NULL;
	fn(v);
	v->drain_queue = NULL;
	vhu_conn_resume(v);
}

/* ---- the front end ---- */

void vhu_cut(struct vhu *v, enum vhu_end end, const char *fmt, ...)
{
	va_list ap;

	if (v->cut || v->conn.fd < 0)
		return;
	v->cut = true;
	v->cut_end = end;
	va_start(ap, fmt);
	vsnprintf(v->cut_why, sizeof(v->cut_why), fmt, ap);
	va_end(ap);
	if (end == VHU_END_PROTOCOL)
		log_error(v->env, v->name, "front end cut off: %s", v->cut_why);
	reactor_remove(v->r, &v->conn);
	reactor_at_end(v->r, &v->end);
	if (v->p.ops && v->p.ops->cut)
		v->p.ops->cut(v, v->p.arg);
}

/* Everything that the front end gave us goes. */
static void forget_front_end(struct vhu *v)
{
	for (unsigned int i = 0; i < v->queue_count; i++) {
		/* Pushed and not published: it stays in flight. */
		v->queues[i].batch_count = 0;
		queue_stop(&v->queues[i]);
		queue_reset(&v->queues[i]);
	}
	v->notify.count = 0;
	mem_clear(&v->mem);
	mem_set_log(&v->mem, NULL, -1);
	inflight_clear(&v->inflight);
	atomic_store(&v->mem_broken, false);
	v->features = 0;
	v->protocol_features = 0;
	v->writeback = 1;
	v->drained = NULL;
	v->drain_queue = NULL;
	vhu_conn_close(v);
}

static void vhu_freed(struct reactor_call *call);

/* Cut off and nothing under way: over. */
static void vhu_gone(struct vhu *v)
{
	forget_front_end(v);
	/* An owner that was asked and has not answered yet answers to nobody. */
	if (v->lock != LOCK_ASKED)
		v->lock = LOCK_NONE;
	if (v->p.ops && v->p.ops->closed)
		v->p.ops->closed(v, v->p.arg, v->cut_end, v->cut_why);
	v->cut = false;
	if (v->closing && v->lock != LOCK_ASKED)
		reactor_post(v->r, &v->free_call);
	else if (!v->closing && v->listener.fd >= 0 && !v->listener.added &&
		 reactor_add(v->r, &v->listener, EPOLLIN))
		log_error(v->env, v->name, "cannot listen for front ends any more");
}

int vhu_attach(struct vhu *v, int fd)
{
	int err;

	if (v->conn.fd >= 0 || v->closing)
		return -EBUSY;
	if (v->lock == LOCK_ASKED)
		return -EBUSY;	/* the owner still thinks about the one before */
	err = conn_open(v, fd);
	if (err)
		return err;
	if (v->p.ops && v->p.ops->connected)
		v->p.ops->connected(v, v->p.arg);
	return 0;
}

static void listener_ready(struct reactor_fd *f, uint32_t events)
{
	struct vhu *v = container_of(f, struct vhu, listener);
	int fd;

	(void)events;
	fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (vhu_attach(v, fd)) {
		close(fd);
		return;
	}
	/* The next one waits in the socket's queue until this one is gone. */
	reactor_remove(v->r, f);
}

int vhu_listen(struct vhu *v, int fd)
{
	int err;

	if (v->listener.fd >= 0)
		return -EBUSY;
	v->listener = (struct reactor_fd){ .fd = fd, .ready = listener_ready };
	if (v->conn.fd >= 0)
		return 0;	/* vhu_gone() adds it */
	err = reactor_add(v->r, &v->listener, EPOLLIN);
	if (err)
		v->listener.fd = -1;
	return err;
}

static void listener_close(struct vhu *v)
{
	if (v->listener.fd < 0)
		return;
	reactor_remove(v->r, &v->listener);
	close(v->listener.fd);
	v->listener.fd = -1;
}

int vhu_retire(struct vhu *v)
{
	int fd;

	if (v->conn.fd >= 0 || v->lock == LOCK_ASKED)
		return -EBUSY;
	if (v->listener.fd < 0)
		return 0;
	/* Later connections are refused; those made before are in the queue. */
	shutdown(v->listener.fd, SHUT_RD);
	fd = accept4(v->listener.fd, NULL, NULL, SOCK_CLOEXEC);
	listener_close(v);
	if (fd < 0)
		return 0;
	if (!vhu_attach(v, fd))
		return -EAGAIN;
	close(fd);
	return 0;
}

void vhu_disconnect(struct vhu *v, const char *why)
{
	vhu_cut(v, VHU_END_OWNER, "%s", why);
}

/* ---- the owner's answer ---- */

static void lock_answered(struct reactor_call *call)
{
	struct vhu *v = container_of(call, struct vhu, lock_call);

	if (v->lock != LOCK_ASKED)
		return;
	v->lock = v->lock_err ? LOCK_NONE : LOCK_GRANTED;
	if (v->conn.fd < 0 || v->cut) {
		v->lock = LOCK_NONE;
		if (v->closing && v->conn.fd < 0)
			reactor_post(v->r, &v->free_call);
		return;
	}
	if (v->lock_err) {
		vhu_cut(v, VHU_END_REFUSED, "the disk may not be used: %s", strerror(-v->lock_err));
		return;
	}
	for (unsigned int i = 0; i < v->queue_count; i++)
		if (queue_try_start(&v->queues[i]))
			vhu_cut(v, VHU_END_PROTOCOL, "queue %u cannot be started", i);
}

void vhu_start_done(struct vhu *v, int err)
{
	v->lock_err = err;
	reactor_post(v->r, &v->lock_call);
}

bool vhu_is_stopped(const struct vhu *v)
{
	return v->conn.fd >= 0 && !v->cut && !v->running && v->lock != LOCK_ASKED;
}

static void resized(struct reactor_call *call)
{
	conn_send_config_change(container_of(call, struct vhu, resize_call));
}

void vhu_resized(struct vhu *v)
{
	reactor_post(v->r, &v->resize_call);
}

void vhu_stats(const struct vhu *v, struct vhu_stats *stats)
{
	*stats = v->stats;
	stats->in_flight = v->in_flight;
	stats->connected = v->conn.fd >= 0;
	stats->running = v->running;
}

/* ---- life ---- */

static void vhu_free(struct vhu *v)
{
	io_context_t aio = notify_fini(&v->notify);

	if (aio)
		server_discard_aio(v->p.server, aio);
	requests_fini(v);
	free(v->queues);
	free(v->name);
	free(v);
}

int vhu_new(const struct vhu_params *p, struct vhu **out)
{
	struct vhu *v = calloc(1, sizeof(*v));
	int err = -ENOMEM;

	if (!v)
		return err;
	v->p = *p;
	v->env = p->dev->env;
	v->r = p->reactor;
	v->dev = p->dev;
	v->read_only = p->read_only || p->dev->info.read_only;
	v->writeback = 1;
	v->listener.fd = -1;
	v->conn.fd = -1;
	v->backend_fd = -1;
	v->notify.ready_fd = -1;
	v->queue_count = p->queues_max ? p->queues_max : QUEUES_DEFAULT;
	v->poller = (struct reactor_poller){ .poll = vhu_poll, .arm = vhu_arm,
					     .disarm = vhu_disarm };
	reactor_end_init(&v->end, vhu_end_of_round);
	v->lock_call.fn = lock_answered;
	v->resize_call.fn = resized;
	v->free_call.fn = vhu_freed;
	mem_init(&v->mem, &v->mem_broken);
	v->name = strdup(p->name);
	v->queues = calloc(v->queue_count, sizeof(*v->queues));
	if (!v->name || !v->queues)
		goto free_all;
	for (unsigned int i = 0; i < v->queue_count; i++)
		queue_init(v, &v->queues[i], i);
	err = requests_init(v);
	if (!err)
		err = notify_init(&v->notify);
	if (err)
		goto free_all;
	*out = v;
	return 0;

free_all:
	vhu_free(v);
	return err;
}

static void vhu_freed(struct reactor_call *call)
{
	struct vhu *v = container_of(call, struct vhu, free_call);
	void (*done)(void *arg) = v->close_done;
	void *arg = v->close_arg;

	reactor_end_cancel(v->r, &v->end);
	vhu_free(v);
	if (done)
		done(arg);
}

void vhu_close(struct vhu *v, void (*done)(void *arg), void *arg)
{
	assert(!v->closing);
	v->closing = true;
	v->close_done = done;
	v->close_arg = arg;
	listener_close(v);
	if (v->conn.fd >= 0)
		vhu_cut(v, VHU_END_OWNER, "the disk is detached");
	else if (v->lock != LOCK_ASKED)
		reactor_post(v->r, &v->free_call);
}

struct sync_close {
	struct vhu	*v;
	struct env	*env;
	struct env_mutex mutex;
	struct env_cond	changed;
	bool		done;
};

static void sync_closed(void *arg)
{
	struct sync_close *s = arg;

	env_mutex_lock(s->env, &s->mutex);
	s->done = true;
	env_cond_broadcast(s->env, &s->changed);
	env_mutex_unlock(s->env, &s->mutex);
}

static void sync_close_begin(void *arg)
{
	struct sync_close *s = arg;

	vhu_close(s->v, sync_closed, s);
}

void vhu_close_sync(struct vhu *v)
{
	struct sync_close s = { .v = v, .env = v->env };

	env_mutex_init(s.env, &s.mutex);
	env_cond_init(s.env, &s.changed);
	reactor_call_sync(v->r, sync_close_begin, &s);
	env_mutex_lock(s.env, &s.mutex);
	while (!s.done)
		env_cond_wait(s.env, &s.changed, &s.mutex, ENV_FOREVER);
	env_mutex_unlock(s.env, &s.mutex);
	env_cond_fini(s.env, &s.changed);
	env_mutex_fini(s.env, &s.mutex);
}
