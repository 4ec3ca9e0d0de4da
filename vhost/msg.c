/* SPDX-License-Identifier: Apache-2.0 */
/* What each message does.  vhost-user.rst, "Front-end message types". */
#include "vhost/internal.h"

#include <errno.h>
#include <unistd.h>

#define PROTOCOL_FEATURES							\
	(FEATURE(VHU_PF_MQ) | FEATURE(VHU_PF_LOG_SHMFD) | FEATURE(VHU_PF_REPLY_ACK) |	\
	 FEATURE(VHU_PF_BACKEND_REQ) | FEATURE(VHU_PF_CONFIG) |			\
	 FEATURE(VHU_PF_INFLIGHT_SHMFD) | FEATURE(VHU_PF_RESET_DEVICE) |	\
	 FEATURE(VHU_PF_CONFIGURE_MEM_SLOTS))

/* ---- descriptors that came with the message ---- */

int msg_take_fd(struct vhu *v, unsigned int i)
{
	int fd;

	if (i >= v->msg.fd_count)
		return -1;
	fd = v->msg.fds[i];
	v->msg.fds[i] = -1;
	return fd;
}

void msg_discard_fds(struct vhu *v)
{
	for (unsigned int i = 0; i < v->msg.fd_count; i++)
		server_discard(v->p.server, msg_take_fd(v, i));
	v->msg.fd_count = 0;
}

/* Shared memory stays mapped without its descriptor, and closing it waits for nobody. */
static void close_memory_fd(struct vhu *v, int fd)
{
	if (fd >= 0 && fd_is_memory(fd))
		close(fd);
	else
		server_discard(v->p.server, fd);
}

/* ---- features ---- */

uint64_t vhu_features(const struct vhu *v)
{
	uint64_t f = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_RING_PACKED) |
		     FEATURE(VIRTIO_F_EVENT_IDX) | FEATURE(VIRTIO_F_INDIRECT_DESC) |
		     FEATURE(VHU_F_LOG_ALL) | FEATURE(VHU_F_PROTOCOL_FEATURES) |
		     FEATURE(BLK_F_SIZE_MAX) | FEATURE(BLK_F_SEG_MAX) | FEATURE(BLK_F_BLK_SIZE) |
		     FEATURE(BLK_F_FLUSH) | FEATURE(BLK_F_TOPOLOGY) |
		     FEATURE(BLK_F_CONFIG_WCE) | FEATURE(BLK_F_MQ);

	if (v->read_only)
		return f | FEATURE(BLK_F_RO);
	f |= FEATURE(BLK_F_WRITE_ZEROES);
	if (v->p.discard && v->dev->info.discard_granularity)
		f |= FEATURE(BLK_F_DISCARD);
	return f;
}

static int set_features(struct vhu *v)
{
	uint64_t f = v->msg.p.u64;

	if (f & ~vhu_features(v))
		return -EINVAL;
	/* The ring's format cannot change while one is served; the dirty log may. */
	if (v->running && (f ^ v->features) & ~FEATURE(VHU_F_LOG_ALL))
		return -EBUSY;
	v->features = f;
	return 0;
}

static int set_protocol_features(struct vhu *v)
{
	if (v->msg.p.u64 & ~PROTOCOL_FEATURES)
		return -EINVAL;
	v->protocol_features = v->msg.p.u64;
	return 0;
}

/* ---- memory ---- */

/* Finds the rings of what is served again; one that is gone is broken. */
static void remap_queues(struct vhu *v)
{
	for (unsigned int i = 0; i < v->queue_count; i++)
		if (v->queues[i].running && queue_map(&v->queues[i])) {
			queue_stop(&v->queues[i]);
			queue_break(&v->queues[i], "its rings are in no memory any more");
		}
}

static void start_queues(struct vhu *v)
{
	for (unsigned int i = 0; i < v->queue_count; i++)
		if (queue_try_start(&v->queues[i]))
			vhu_cut(v, VHU_END_PROTOCOL, "queue %u cannot be started", i);
}

static void set_mem_table_drained(struct vhu *v)
{
	struct mem_table_wire *t = &v->msg.p.mem;
	int err = 0;

	mem_clear(&v->mem);
	for (unsigned int i = 0; i < t->count && !err; i++) {
		int fd = msg_take_fd(v, i);

		err = mem_add(&v->mem, &t->regions[i], fd);
		close_memory_fd(v, fd);
	}
	if (err)
		mem_clear(&v->mem);
	remap_queues(v);
	conn_ack(v, err);
	if (err)
		vhu_cut(v, VHU_END_PROTOCOL, "its memory cannot be mapped (error %d): it must be "
			"memfd, tmpfs or hugetlbfs, shared", -err);
}

static int set_mem_table(struct vhu *v)
{
	struct mem_table_wire *t = &v->msg.p.mem;

	if (t->count > VHU_FDS_MAX || t->count != v->msg.fd_count ||
	    v->msg.hdr.size < offsetof(struct mem_table_wire, regions) +
			      t->count * sizeof(t->regions[0]))
		return -EPROTO;
	vhu_drain(v, NULL, set_mem_table_drained);
	return 0;
}

static int add_mem_reg(struct vhu *v)
{
	int fd = msg_take_fd(v, 0);
	int err = fd < 0 ? -EBADF : mem_add(&v->mem, &v->msg.p.mem_reg.region, fd);

	close_memory_fd(v, fd);
	if (!err)
		start_queues(v);
	return err;
}

static void rem_mem_reg_drained(struct vhu *v)
{
	int err = mem_remove(&v->mem, &v->msg.p.mem_reg.region);

	remap_queues(v);
	conn_ack(v, err);
}

static int set_log_base(struct vhu *v)
{
	int fd = msg_take_fd(v, 0);
	int err = fd < 0 ? -EBADF : mem_set_log(&v->mem, &v->msg.p.log, fd);

	close_memory_fd(v, fd);
	if (err)
		return err;
	v->msg.p.u64 = 0;
	conn_reply(v, sizeof(uint64_t), -1);
	return 0;
}

/* ---- queues ---- */

static struct vhu_queue *queue_of(struct vhu *v, uint32_t index)
{
	return index < v->queue_count ? &v->queues[index] : NULL;
}

static int set_vring_num(struct vhu *v, struct vhu_queue *q, uint32_t num)
{
	unsigned int max = v->p.queue_size_max ? v->p.queue_size_max : VHU_QUEUE_SIZE_MAX;

	if (q->running)
		return -EBUSY;
	if (!num || num > max)
		return -EINVAL;
	q->size = num;
	return 0;
}

static int set_vring_addr(struct vhu *v)
{
	const struct vring_addr_wire *a = &v->msg.p.addr;
	struct vhu_queue *q = queue_of(v, a->index);

	if (!q)
		return -EINVAL;
	/* While it is served only the logging may change. */
	if (q->running && (a->desc != q->addr.desc || a->used != q->addr.used ||
			   a->avail != q->addr.avail))
		return -EBUSY;
	q->addr = *a;
	q->addr_set = true;
	return 0;
}

/* Kick, call and err come alike.  Return: 0 with @q and @fd (-1: none); -EINVAL. */
static int vring_fd(struct vhu *v, struct vhu_queue **q, int *fd)
{
	uint64_t u = v->msg.p.u64;

	*q = queue_of(v, (uint32_t)(u & VHU_VRING_INDEX));
	if (!*q || u & ~(uint64_t)(VHU_VRING_INDEX | VHU_VRING_NOFD))
		return -EINVAL;
	*fd = -1;
	if (u & VHU_VRING_NOFD)
		return 0;
	*fd = msg_take_fd(v, 0);
	if (*fd >= 0 && notify_check(&v->notify, *fd) == 0)
		return 0;
	server_discard(v->p.server, *fd);
	return -EINVAL;
}

static int set_vring_kick(struct vhu *v)
{
	struct vhu_queue *q;
	int fd, err;

	err = vring_fd(v, &q, &fd);
	if (err)
		return err;
	err = queue_set_kick(q, fd, fd < 0);
	if (err) {
		server_discard(v->p.server, fd);
		return err;
	}
	return queue_try_start(q);
}

/* Being checked, a new call descriptor was also signalled: no interrupt that is owed is lost. */
static int set_vring_call(struct vhu *v, bool err_fd)
{
	struct vhu_queue *q;
	int fd, err;
	int *at;

	err = vring_fd(v, &q, &fd);
	if (err)
		return err;
	at = err_fd ? &q->err_fd : &q->call_fd;
	/* What is queued for the old one is sent to the old one. */
	notify_flush(&v->notify);
	if (*at >= 0)
		close(*at);
	*at = fd;
	return 0;
}

static int set_vring_enable(struct vhu *v)
{
	struct vhu_queue *q = queue_of(v, v->msg.p.state.index);

	if (!q || v->msg.p.state.num > 1)
		return -EINVAL;
	q->enabled = v->msg.p.state.num;
	return queue_try_start(q);
}

static void tell_if_stopped(struct vhu *v)
{
	if (v->running || v->lock != LOCK_GRANTED)
		return;
	v->lock = LOCK_NONE;
	if (v->p.ops && v->p.ops->stopped)
		v->p.ops->stopped(v, v->p.arg);
}

static void get_vring_base_drained(struct vhu *v)
{
	struct vhu_queue *q = &v->queues[v->msg.p.state.index];
	bool was_running = q->running;
	uint32_t base;

	queue_publish(q);
	queue_stop(q);
	inflight_stop(q);
	notify_flush(&v->notify);	/* before their descriptors are closed */
	base = queue_get_base(q);
	/* The front end sets up again all that the next start needs. */
	queue_reset_fds(q);
	q->broken = false;
	/* The owner first: whoever has our answer may go on elsewhere. */
	if (was_running)
		tell_if_stopped(v);
	v->msg.p.state.num = base;
	conn_reply(v, sizeof(struct vring_state_wire), -1);
}

static int get_vring_base(struct vhu *v)
{
	struct vhu_queue *q = queue_of(v, v->msg.p.state.index);

	if (!q)
		return -EINVAL;
	vhu_drain(v, q, get_vring_base_drained);
	return 0;
}

static void reset_device_drained(struct vhu *v)
{
	bool was_running = v->running;

	for (unsigned int i = 0; i < v->queue_count; i++) {
		struct vhu_queue *q = &v->queues[i];

		queue_publish(q);
		queue_stop(q);
		inflight_forget(q);
	}
	notify_flush(&v->notify);
	for (unsigned int i = 0; i < v->queue_count; i++)
		queue_reset(&v->queues[i]);
	v->writeback = 1;
	if (was_running)
		tell_if_stopped(v);
	conn_ack(v, 0);
}

/* ---- configuration space ---- */

static int get_config(struct vhu *v)
{
	struct config_wire *c = &v->msg.p.config;
	uint32_t head = offsetof(struct config_wire, bytes);

	if (v->msg.hdr.size < head || c->offset > VHU_CONFIG_MAX ||
	    c->size > VHU_CONFIG_MAX - c->offset)
		return -EPROTO;
	vhu_config_get(v, c->offset, c->size, c->bytes);
	conn_reply(v, head + c->size, -1);
	return 0;
}

static int set_config(struct vhu *v)
{
	struct config_wire *c = &v->msg.p.config;
	uint32_t head = offsetof(struct config_wire, bytes);

	if (v->msg.hdr.size < head || c->offset > VHU_CONFIG_MAX ||
	    c->size > VHU_CONFIG_MAX - c->offset || c->size > v->msg.hdr.size - head)
		return -EPROTO;
	return vhu_config_set(v, c->offset, c->size, c->bytes);
}

/* ---- in-flight area ---- */

static int get_inflight_fd(struct vhu *v)
{
	struct inflight_wire *w = &v->msg.p.inflight;
	int fd = -1, err;

	if (v->running)
		return -EBUSY;
	if (!w->queue_count || w->queue_count > v->queue_count || !w->queue_size ||
	    w->queue_size > VHU_QUEUE_SIZE_MAX)
		return -EINVAL;
	err = inflight_create(&v->inflight, w->queue_count, w->queue_size, &v->mem_broken, &fd);
	if (err)
		return err;
	w->mmap_size = v->inflight.size;
	w->mmap_offset = 0;
	conn_reply(v, sizeof(*w), fd);
	close(fd);
	return 0;
}

static int set_inflight_fd(struct vhu *v)
{
	int fd = msg_take_fd(v, 0);
	int err = -EBUSY;

	if (!v->running)
		err = fd < 0 ? -EBADF : inflight_set(&v->inflight, &v->msg.p.inflight,
						     &v->mem_broken, fd);
	close_memory_fd(v, fd);
	return err;
}

static int set_backend_fd(struct vhu *v)
{
	int fd = msg_take_fd(v, 0);

	if (fd < 0 || !fd_is_unix_stream(fd)) {
		server_discard(v->p.server, fd);
		return -EBADF;
	}
	if (v->backend_fd >= 0)
		close(v->backend_fd);
	v->backend_fd = fd;
	return 0;
}

/* ---- one for all ---- */

static int reply_u64(struct vhu *v, uint64_t u)
{
	v->msg.p.u64 = u;
	conn_reply(v, sizeof(u), -1);
	return 0;
}

/* How many bytes of payload a message needs at least; the rest was zeroed. */
static size_t payload_min(uint32_t request)
{
	switch (request) {
	case VHU_SET_FEATURES:
	case VHU_SET_PROTOCOL_FEATURES:
	case VHU_SET_VRING_KICK:
	case VHU_SET_VRING_CALL:
	case VHU_SET_VRING_ERR:
	case VHU_SET_VRING_NUM:
	case VHU_SET_VRING_BASE:
	case VHU_GET_VRING_BASE:
	case VHU_SET_VRING_ENABLE:
	case VHU_SET_MEM_TABLE:
		return 8;
	case VHU_SET_VRING_ADDR:
	case VHU_ADD_MEM_REG:
	case VHU_REM_MEM_REG:
		return 40;
	case VHU_SET_LOG_BASE:
		return sizeof(struct log_wire);
	case VHU_GET_INFLIGHT_FD:
	case VHU_SET_INFLIGHT_FD:
		return 20;	/* without the padding of a C structure */
	default:
		return 0;
	}
}

/* Those that answer with more than 0 or 1, or later.  Return: 1 not one of them; 0; -errno. */
static int serve_with_answer(struct vhu *v)
{
	switch (v->msg.hdr.request) {
	case VHU_GET_FEATURES:
		return reply_u64(v, vhu_features(v));
	case VHU_GET_PROTOCOL_FEATURES:
		return reply_u64(v, PROTOCOL_FEATURES);
	case VHU_GET_QUEUE_NUM:
		return reply_u64(v, v->queue_count);
	case VHU_GET_MAX_MEM_SLOTS:
		return reply_u64(v, MEM_REGIONS_MAX);
	case VHU_SET_LOG_BASE:
		return set_log_base(v);
	case VHU_GET_VRING_BASE:
		return get_vring_base(v);
	case VHU_GET_CONFIG:
		return get_config(v);
	case VHU_GET_INFLIGHT_FD:
		return get_inflight_fd(v);
	case VHU_SET_MEM_TABLE:
		return set_mem_table(v);
	case VHU_REM_MEM_REG:
		vhu_drain(v, NULL, rem_mem_reg_drained);
		return 0;
	case VHU_RESET_DEVICE:
		vhu_drain(v, NULL, reset_device_drained);
		return 0;
	default:
		return 1;
	}
}

static int serve_state(struct vhu *v)
{
	const struct vring_state_wire *s = &v->msg.p.state;
	struct vhu_queue *q = queue_of(v, s->index);

	if (!q)
		return -EINVAL;
	if (v->msg.hdr.request == VHU_SET_VRING_NUM)
		return set_vring_num(v, q, s->num);
	if (q->running)
		return -EBUSY;
	queue_set_base(q, s->num);
	return 0;
}

static int serve_plain(struct vhu *v)
{
	switch (v->msg.hdr.request) {
	case VHU_SET_FEATURES:
		return set_features(v);
	case VHU_SET_PROTOCOL_FEATURES:
		return set_protocol_features(v);
	case VHU_SET_OWNER:
	case VHU_RESET_OWNER:	/* of old, and best ignored */
	case VHU_SET_LOG_FD:	/* an eventfd that we have no use for */
		return 0;
	case VHU_SET_VRING_NUM:
	case VHU_SET_VRING_BASE:
		return serve_state(v);
	case VHU_SET_VRING_ADDR:
		return set_vring_addr(v);
	case VHU_SET_VRING_KICK:
		return set_vring_kick(v);
	case VHU_SET_VRING_CALL:
		return set_vring_call(v, false);
	case VHU_SET_VRING_ERR:
		return set_vring_call(v, true);
	case VHU_SET_VRING_ENABLE:
		return set_vring_enable(v);
	case VHU_ADD_MEM_REG:
		return add_mem_reg(v);
	case VHU_SET_CONFIG:
		return set_config(v);
	case VHU_SET_INFLIGHT_FD:
		return set_inflight_fd(v);
	case VHU_SET_BACKEND_REQ_FD:
		return set_backend_fd(v);
	default:
		return -ENOTSUP;
	}
}

void msg_serve(struct vhu *v)
{
	uint32_t request = v->msg.hdr.request;
	bool told = v->protocol_features & FEATURE(VHU_PF_REPLY_ACK) &&
		    v->msg.hdr.flags & VHU_FLAG_NEED_REPLY;
	int err;

	if (v->msg.hdr.size < payload_min(request)) {
		vhu_cut(v, VHU_END_PROTOCOL, "message %u is too short", request);
		return;
	}
	err = serve_with_answer(v);
	if (err == 1) {
		err = serve_plain(v);
		conn_ack(v, err);
	} else if (err) {
		told = false;	/* it waits for another answer than "no" */
	}
	/* One that is not told would go on as if it had worked. */
	if (err && !told)
		vhu_cut(v, VHU_END_PROTOCOL, "message %u makes no sense (error %d)", request, -err);
}
