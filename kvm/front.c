/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/front.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhost/proto.h"
#include "vhost/virtio.h"

#define FEATURES_NEEDED	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VHU_F_PROTOCOL_FEATURES))
#define PROTOCOL_NEEDED	FEATURE(VHU_PF_CONFIG)
#define PROTOCOL_WANTED	(PROTOCOL_NEEDED | FEATURE(VHU_PF_MQ) | FEATURE(VHU_PF_BACKEND_REQ) | \
			 FEATURE(VHU_PF_INFLIGHT_SHMFD))
#define CONFIG_HEAD	offsetof(struct config_wire, bytes)
#define WHY_SIZE	200

/* A connection on which messages of 12 bytes and more come, one after the other. */
struct channel {
	struct reactor_fd fd;
	struct vhu_msg	in;		/* being received */
	size_t		filled;
};

struct queue {
	struct front_queue q;
	uint32_t	base;		/* where the available ring is to be gone on with */
};

struct front {
	struct front_params p;
	struct channel	conn;
	struct channel	backward;	/* what the back end sends by itself */
	atomic_int	state;
	uint32_t	expected;	/* the request that an answer is due for; 0: none */
	unsigned int	halting;	/* the queue whose base was asked for */
	bool		known;		/* ready() was called */
	bool		config_old;	/* the back end said that it has changed */

	uint64_t	offered, protocol;
	unsigned int	queue_count;
	uint8_t		config[FRONT_CONFIG_SIZE];

	bool		wanted;		/* the driver wants its queues served */
	bool		paused;		/* but the machine does not, for now */
	uint64_t	features;	/* the driver's */
	struct queue	queues[MMIO_QUEUES_MAX];
	int		inflight_fd;	/* -1: none yet */
	struct inflight_wire inflight;
	void		(*done)(void *arg);
	void		*done_arg;
};

uint64_t front_features(const struct front *f)
{
	return f->offered & f->p.features;
}

const uint8_t *front_config(const struct front *f)
{
	return f->config;
}

unsigned int front_queue_count(const struct front *f)
{
	return f->queue_count;
}

enum front_state front_state(const struct front *f)
{
	return (enum front_state)atomic_load(&f->state);
}

static void set_state(struct front *f, enum front_state state)
{
	atomic_store(&f->state, (int)state);
}

/* ---- the connection ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void channel_close(struct front *f, struct channel *c)
{
	reactor_remove(f->p.reactor, &c->fd);
	close_fd(&c->fd.fd);
	for (unsigned int i = 0; i < c->in.fd_count; i++)
		close(c->in.fds[i]);
	c->in.fd_count = 0;
	c->filled = 0;
}

static void forget_inflight(struct front *f)
{
	close_fd(&f->inflight_fd);
}

static void tell_done(struct front *f)
{
	void (*done)(void *arg) = f->done;

	f->done = NULL;
	if (done)
		done(f->done_arg);
}

/*
 * Where a queue goes on if nobody could tell us: at what was not given back yet.  What was given
 * back out of turn, and what is still under way, the in-flight memory knows.
 */
static void base_from_used_ring(struct front *f, struct queue *q)
{
	const struct used_wire *used = memory_at(f->p.memory, q->q.used, sizeof(*used));

	q->base = __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE);
}

/* A back end that is gone has let go of the guest's memory with its process. */
static void drop(struct front *f)
{
	bool ran = front_state(f) == FRONT_RUNNING;

	channel_close(f, &f->conn);
	channel_close(f, &f->backward);
	f->expected = 0;
	set_state(f, FRONT_AWAY);
	for (unsigned int i = 0; ran && i < f->queue_count; i++)
		if (f->queues[i].q.ready)
			base_from_used_ring(f, &f->queues[i]);
	if (!f->wanted)
		forget_inflight(f);
}

static void __attribute__((format(printf, 2, 3)))
give_up(struct front *f, const char *fmt, ...)
{
	char why[WHY_SIZE];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	drop(f);
	f->p.ops->broken(f, f->p.arg, why);
	tell_done(f);
}

static void lose(struct front *f)
{
	bool needs_inflight = front_state(f) == FRONT_RUNNING &&
			      !(f->protocol & FEATURE(VHU_PF_INFLIGHT_SHMFD));

	if (needs_inflight) {
		give_up(f, "the server of the disk is gone, and it does not keep account of "
			"requests under way (INFLIGHT_SHMFD)");
		return;
	}
	drop(f);
	f->p.ops->lost(f, f->p.arg);
	tell_done(f);
}

/* Messages are small: a back end that does not take them is as good as gone. */
static bool send_fd(struct front *f, uint32_t request, const void *payload, uint32_t size, int fd)
{
	struct msg_hdr_wire hdr = { request, VHU_VERSION, size };
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { (void *)(uintptr_t)payload, size } };
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };
	ssize_t n;

	if (f->conn.fd.fd < 0)
		return false;
	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		mh.msg_control = control.bytes;
		mh.msg_controllen = sizeof(control.bytes);
		control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), &fd, sizeof(fd));
	}
	do {
		n = sendmsg(f->conn.fd.fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n == (ssize_t)(sizeof(hdr) + size))
		return true;
	/* The end of the connection is found by the reactor; nothing more goes out until then. */
	shutdown(f->conn.fd.fd, SHUT_RDWR);
	return false;
}

static void send_u64(struct front *f, uint32_t request, uint64_t value)
{
	send_fd(f, request, &value, sizeof(value), -1);
}

static void send_state(struct front *f, uint32_t request, uint32_t index, uint32_t num)
{
	const struct vring_state_wire s = { index, num };

	send_fd(f, request, &s, sizeof(s), -1);
}

static void ask(struct front *f, uint32_t request, const void *payload, uint32_t size)
{
	f->expected = request;
	send_fd(f, request, payload, size, -1);
}

/* ---- greeting ---- */

static void ask_config(struct front *f)
{
	struct config_wire c = { .size = FRONT_CONFIG_SIZE };

	f->config_old = false;
	ask(f, VHU_GET_CONFIG, &c, CONFIG_HEAD + FRONT_CONFIG_SIZE);
}

static void greet(struct front *f)
{
	ask(f, VHU_GET_FEATURES, NULL, 0);
}

/* Another disk than before, or one that can do less: the guest could not go on with it. */
static bool take_features(struct front *f, uint64_t features)
{
	if ((features & FEATURES_NEEDED) != FEATURES_NEEDED) {
		give_up(f, "the server of the disk lacks VERSION_1 or protocol features");
		return false;
	}
	if (f->known && f->offered & f->p.features & ~features) {
		give_up(f, "the disk has lost features since it was served before");
		return false;
	}
	if (!f->known)
		f->offered = features;
	return true;
}

static bool take_protocol(struct front *f, uint64_t protocol)
{
	uint64_t chosen = protocol & PROTOCOL_WANTED;

	if ((chosen & PROTOCOL_NEEDED) != PROTOCOL_NEEDED) {
		give_up(f, "the server of the disk does not offer its configuration (CONFIG)");
		return false;
	}
	if (f->inflight_fd >= 0 && !(chosen & FEATURE(VHU_PF_INFLIGHT_SHMFD))) {
		give_up(f, "the server of the disk no longer keeps account of requests under way");
		return false;
	}
	f->protocol = chosen;
	return true;
}

static void send_backward_channel(struct front *f)
{
	int sv[2];

	if (!(f->protocol & FEATURE(VHU_PF_BACKEND_REQ)))
		return;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv))
		return;	/* a disk that grows is not noticed then */
	send_fd(f, VHU_SET_BACKEND_REQ_FD, NULL, 0, sv[1]);
	close(sv[1]);
	f->backward.fd.fd = sv[0];
	if (reactor_add(f->p.reactor, &f->backward.fd, EPOLLIN))
		channel_close(f, &f->backward);
}

static bool take_queue_count(struct front *f, uint64_t count)
{
	unsigned int usable = count < f->p.queues_max ? (unsigned int)count : f->p.queues_max;

	if (!count || (f->known && usable < f->queue_count)) {
		give_up(f, "the server of the disk offers %llu queues",
			(unsigned long long)count);
		return false;
	}
	if (!f->known)
		f->queue_count = usable;
	return true;
}

static uint64_t capacity(const uint8_t *config)
{
	struct blk_config_wire c;

	memcpy(&c, config, sizeof(c));
	return le64_to_cpu(c.capacity);
}

static bool take_config(struct front *f, const struct vhu_msg *m)
{
	const struct config_wire *c = &m->p.config;

	static_assert(sizeof(struct blk_config_wire) == FRONT_CONFIG_SIZE, "virtio 5.2.4");
	if (m->hdr.size != CONFIG_HEAD + FRONT_CONFIG_SIZE || c->offset ||
	    c->size != FRONT_CONFIG_SIZE) {
		give_up(f, "the server of the disk has no configuration of a block device");
		return false;
	}
	if (f->known && capacity(c->bytes) < capacity(f->config)) {
		give_up(f, "the disk is smaller than before: %llu sectors, not %llu",
			(unsigned long long)capacity(c->bytes),
			(unsigned long long)capacity(f->config));
		return false;
	}
	memcpy(f->config, c->bytes, FRONT_CONFIG_SIZE);
	return true;
}

/* ---- running ---- */

static void send_memory(struct front *f)
{
	struct mem_table_wire t = { 0 };
	struct vm_region r[2];
	int fds[2];
	union { char bytes[CMSG_SPACE(sizeof(fds))]; struct cmsghdr align; } control;
	struct msg_hdr_wire hdr = { VHU_SET_MEM_TABLE, VHU_VERSION, 0 };
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { &t, 0 } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = control.bytes };
	size_t fd_bytes;

	if (f->conn.fd.fd < 0)
		return;
	t.count = memory_regions(f->p.memory, r);
	for (unsigned int i = 0; i < t.count; i++) {
		t.regions[i] = (struct mem_region_wire){
			r[i].gpa, r[i].size, (uintptr_t)f->p.memory->base + r[i].offset,
			r[i].offset };
		fds[i] = f->p.memory->fd;
	}
	hdr.size = (uint32_t)(offsetof(struct mem_table_wire, regions) +
			      t.count * sizeof(t.regions[0]));
	iov[1].iov_len = hdr.size;
	fd_bytes = t.count * sizeof(int);
	memset(&control, 0, sizeof(control));
	mh.msg_controllen = CMSG_SPACE(fd_bytes);
	control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(fd_bytes), .cmsg_level = SOL_SOCKET,
					  .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), fds, fd_bytes);
	if (sendmsg(f->conn.fd.fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) !=
	    (ssize_t)(sizeof(hdr) + hdr.size))
		shutdown(f->conn.fd.fd, SHUT_RDWR);
}

static uint64_t user_address(const struct front *f, uint64_t gpa)
{
	return (uintptr_t)memory_at(f->p.memory, gpa, 1);
}

static void send_queue(struct front *f, uint32_t i)
{
	const struct queue *q = &f->queues[i];
	const struct vring_addr_wire a = {
		.index = i, .desc = user_address(f, q->q.desc),
		.avail = user_address(f, q->q.avail), .used = user_address(f, q->q.used),
	};
	const uint64_t index = i;

	send_state(f, VHU_SET_VRING_NUM, i, q->q.size);
	send_state(f, VHU_SET_VRING_BASE, i, q->base);
	send_fd(f, VHU_SET_VRING_ADDR, &a, sizeof(a), -1);
	send_fd(f, VHU_SET_VRING_CALL, &index, sizeof(index), f->p.call_fds[i]);
	send_fd(f, VHU_SET_VRING_KICK, &index, sizeof(index), f->p.kick_fds[i]);
	send_state(f, VHU_SET_VRING_ENABLE, i, 1);
}

/*
 * What came while nobody listened is looked for once.  The guest is told as well: a back end
 * that ended after it gave something back may not have.
 */
static void ring_bells(struct front *f, uint32_t i)
{
	eventfd_write(f->p.kick_fds[i], 1);
	eventfd_write(f->p.call_fds[i], 1);
}

static void run(struct front *f)
{
	set_state(f, FRONT_RUNNING);
	send_u64(f, VHU_SET_FEATURES, f->features | FEATURE(VHU_F_PROTOCOL_FEATURES));
	if (f->inflight_fd >= 0)
		send_fd(f, VHU_SET_INFLIGHT_FD, &f->inflight, sizeof(f->inflight),
			f->inflight_fd);
	send_memory(f);
	for (uint32_t i = 0; i < f->queue_count; i++) {
		if (!f->queues[i].q.ready)
			continue;
		send_queue(f, i);
		ring_bells(f, i);
	}
}

static bool needs_inflight(const struct front *f)
{
	return f->inflight_fd < 0 && f->protocol & FEATURE(VHU_PF_INFLIGHT_SHMFD);
}

static void ask_inflight(struct front *f)
{
	struct inflight_wire w = { .queue_count = (uint16_t)f->queue_count,
				   .queue_size = MMIO_QUEUE_SIZE_MAX };

	ask(f, VHU_GET_INFLIGHT_FD, &w, sizeof(w));
}

static bool take_inflight(struct front *f, struct vhu_msg *m)
{
	const struct inflight_wire *w = &m->p.inflight;
	struct stat st;

	if (m->hdr.size < offsetof(struct inflight_wire, padding) || m->fd_count != 1 ||
	    w->queue_count != f->queue_count || w->queue_size != MMIO_QUEUE_SIZE_MAX ||
	    fstat(m->fds[0], &st) || st.st_size < 0 ||
	    w->mmap_offset > (uint64_t)st.st_size ||
	    w->mmap_size > (uint64_t)st.st_size - w->mmap_offset) {
		give_up(f, "the server of the disk gave memory for its account of requests that "
			"makes no sense");
		return false;
	}
	f->inflight = *w;
	f->inflight.padding = 0;
	f->inflight_fd = m->fds[0];
	m->fd_count = 0;
	return true;
}

/* ---- halting ---- */

static void ask_next_base(struct front *f)
{
	while (f->halting < f->queue_count && !f->queues[f->halting].q.ready)
		f->halting++;
	if (f->halting == f->queue_count) {
		set_state(f, FRONT_IDLE);
		return;
	}
	ask(f, VHU_GET_VRING_BASE, &(struct vring_state_wire){ f->halting, 0 },
	    sizeof(struct vring_state_wire));
}

static bool take_base(struct front *f, const struct vring_state_wire *s)
{
	if (s->index != f->halting || s->num > UINT16_MAX) {
		give_up(f, "the server of the disk stopped another queue than it was asked to");
		return false;
	}
	f->queues[f->halting++].base = s->num;
	return true;
}

/* Does the next thing that is to be done, if nothing is under way. */
static void advance(struct front *f)
{
	bool serve = f->wanted && !f->paused;
	enum front_state state = front_state(f);

	if (f->expected)
		return;
	if (f->config_old && state >= FRONT_IDLE) {
		ask_config(f);
		return;
	}
	if (state == FRONT_IDLE && serve) {
		if (needs_inflight(f))
			ask_inflight(f);
		else
			run(f);
		return;
	}
	if (state == FRONT_RUNNING && !serve) {
		ask_next_base(f);
		state = front_state(f);
	}
	if (state == FRONT_RUNNING || serve)
		return;
	if (!f->wanted)
		forget_inflight(f);
	tell_done(f);
}

static void end_greeting(struct front *f)
{
	bool first = !f->known;

	set_state(f, FRONT_IDLE);
	f->known = true;
	if (first)
		f->p.ops->ready(f, f->p.arg);
	else
		f->p.ops->changed(f, f->p.arg);
}

static void after_protocol(struct front *f)
{
	send_u64(f, VHU_SET_PROTOCOL_FEATURES, f->protocol);
	send_fd(f, VHU_SET_OWNER, NULL, 0, -1);
	send_backward_channel(f);
	if (f->protocol & FEATURE(VHU_PF_MQ))
		ask(f, VHU_GET_QUEUE_NUM, NULL, 0);
	else if (take_queue_count(f, 1))
		ask_config(f);
}

/* ---- answers ---- */

/* How many bytes the answer must have; of the configuration take_config() says. */
static bool answer_is_sized(const struct vhu_msg *m)
{
	switch (m->hdr.request) {
	case VHU_GET_CONFIG:
	case VHU_GET_INFLIGHT_FD:
		return true;
	default:
		return m->hdr.size == sizeof(uint64_t);
	}
}

static void take_answer(struct front *f, struct vhu_msg *m)
{
	uint32_t request = m->hdr.request;

	if (!f->expected || request != f->expected || !(m->hdr.flags & VHU_FLAG_REPLY) ||
	    !answer_is_sized(m)) {
		give_up(f, "the server of the disk answered what it was not asked (message %u, "
			"%u bytes)", request, m->hdr.size);
		return;
	}
	f->expected = 0;
	switch (request) {
	case VHU_GET_FEATURES:
		if (take_features(f, m->p.u64))
			ask(f, VHU_GET_PROTOCOL_FEATURES, NULL, 0);
		break;
	case VHU_GET_PROTOCOL_FEATURES:
		if (take_protocol(f, m->p.u64))
			after_protocol(f);
		break;
	case VHU_GET_QUEUE_NUM:
		if (take_queue_count(f, m->p.u64))
			ask_config(f);
		break;
	case VHU_GET_CONFIG:
		if (!take_config(f, m))
			break;
		if (front_state(f) == FRONT_GREETING)
			end_greeting(f);
		else
			f->p.ops->changed(f, f->p.arg);
		break;
	case VHU_GET_INFLIGHT_FD:
		take_inflight(f, m);
		break;
	case VHU_GET_VRING_BASE:
		take_base(f, &m->p.state);
		break;
	default:
		break;
	}
}

/* The only thing that it may want of us is that we look at the configuration again. */
static void take_backward(struct front *f, struct vhu_msg *m)
{
	if (m->hdr.request != VHU_BACKEND_CONFIG_CHANGE) {
		channel_close(f, &f->backward);
		return;
	}
	f->config_old = true;
	advance(f);
}

/* ---- receiving ---- */

static void keep_fds(struct vhu_msg *m, struct msghdr *mh)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
		unsigned int n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned int)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned int i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
			if (m->fd_count < VHU_FDS_MAX)
				m->fds[m->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

/* Return: 1 a whole message is there; 0 not yet; -errno the connection is of no use. */
static int channel_read(struct channel *c)
{
	struct vhu_msg *m = &c->in;
	union { char bytes[CMSG_SPACE(VHU_FDS_MAX * sizeof(int))]; struct cmsghdr align; } control;

	for (;;) {
		size_t head = sizeof(m->hdr);
		struct iovec iov = { (uint8_t *)&m->hdr + c->filled, head - c->filled };
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1,
				     .msg_control = control.bytes,
				     .msg_controllen = sizeof(control.bytes) };
		ssize_t n;

		if (c->filled >= head) {
			if (m->hdr.size > sizeof(m->p) ||
			    (m->hdr.flags & VHU_VERSION_MASK) != VHU_VERSION)
				return -EPROTO;
			if (c->filled == head + m->hdr.size)
				return 1;
			iov.iov_base = m->p.bytes + (c->filled - head);
			iov.iov_len = head + m->hdr.size - c->filled;
		}
		n = recvmsg(c->fd.fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
		keep_fds(m, &mh);
		c->filled += (size_t)n;
	}
}

static void channel_next(struct channel *c)
{
	for (unsigned int i = 0; i < c->in.fd_count; i++)
		close(c->in.fds[i]);
	memset(&c->in, 0, sizeof(c->in));
	c->filled = 0;
}

static void conn_ready(struct reactor_fd *fd, uint32_t events)
{
	struct channel *c = container_of(fd, struct channel, fd);
	struct front *f = container_of(c, struct front, conn);
	int ret = channel_read(c);

	(void)events;
	if (ret == -EPROTO) {
		give_up(f, "the server of the disk does not speak vhost-user");
	} else if (ret < 0) {
		lose(f);
	} else if (ret > 0) {
		take_answer(f, &c->in);
		if (c->fd.fd >= 0)
			channel_next(c);
		advance(f);
	}
}

static void backward_ready(struct reactor_fd *fd, uint32_t events)
{
	struct channel *c = container_of(fd, struct channel, fd);
	struct front *f = container_of(c, struct front, backward);
	int ret = channel_read(c);

	(void)events;
	if (ret < 0) {
		channel_close(f, c);
	} else if (ret > 0) {
		take_backward(f, &c->in);
		if (c->fd.fd >= 0)
			channel_next(c);
	}
}

/* ---- what the machine calls ---- */

int front_new(const struct front_params *p, struct front **out)
{
	struct front *f = calloc(1, sizeof(*f));

	assert(p->queues_max && p->queues_max <= MMIO_QUEUES_MAX);
	if (!f)
		return -ENOMEM;
	f->p = *p;
	f->conn.fd = (struct reactor_fd){ .fd = -1, .ready = conn_ready };
	f->backward.fd = (struct reactor_fd){ .fd = -1, .ready = backward_ready };
	f->inflight_fd = -1;
	*out = f;
	return 0;
}

int front_attach(struct front *f, int fd)
{
	int err;

	assert(front_state(f) == FRONT_AWAY);
	f->conn.fd.fd = fd;
	err = reactor_add(f->p.reactor, &f->conn.fd, EPOLLIN);
	if (err) {
		close_fd(&f->conn.fd.fd);
		return err;
	}
	set_state(f, FRONT_GREETING);
	greet(f);
	return 0;
}

void front_run(struct front *f, const struct front_queue *queues, uint64_t features)
{
	assert(!f->wanted);
	for (unsigned int i = 0; i < f->queue_count; i++)
		f->queues[i] = (struct queue){ .q = queues[i] };
	f->features = features;
	f->wanted = true;
	advance(f);
}

void front_halt(struct front *f, bool reset, void (*done)(void *arg), void *arg)
{
	assert(!f->done);
	if (reset)
		f->wanted = false;
	else
		f->paused = true;
	f->done = done;
	f->done_arg = arg;
	f->halting = 0;
	if (front_state(f) < FRONT_IDLE) {	/* nobody serves anything */
		if (!f->wanted)
			forget_inflight(f);
		tell_done(f);
		return;
	}
	advance(f);
}

void front_resume(struct front *f)
{
	f->paused = false;
	advance(f);
}

void front_close(struct front *f)
{
	channel_close(f, &f->conn);
	channel_close(f, &f->backward);
	forget_inflight(f);
	free(f);
}
