/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/fe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/vhost_bench/fe_msg.h"

#define GPA		0x100000000ULL
#define QUEUE_SIZE_MIN	128u
#define REGION_ALIGN	(2 * MIB)

/* What we can do with; of these what the server offers. */
#define FEATURES								\
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_EVENT_IDX) |			\
	 FEATURE(VIRTIO_F_INDIRECT_DESC) | FEATURE(VIRTIO_F_RING_PACKED) |		\
	 FEATURE(VHU_F_PROTOCOL_FEATURES) | FEATURE(BLK_F_RO) |				\
	 FEATURE(BLK_F_SIZE_MAX) | FEATURE(BLK_F_SEG_MAX) | FEATURE(BLK_F_BLK_SIZE) |	\
	 FEATURE(BLK_F_FLUSH) | FEATURE(BLK_F_TOPOLOGY) | FEATURE(BLK_F_CONFIG_WCE) |	\
	 FEATURE(BLK_F_MQ) | FEATURE(BLK_F_DISCARD) | FEATURE(BLK_F_WRITE_ZEROES))

#define PROTOCOL								\
	(FEATURE(VHU_PF_MQ) | FEATURE(VHU_PF_REPLY_ACK) | FEATURE(VHU_PF_BACKEND_REQ) |	\
	 FEATURE(VHU_PF_CONFIG) | FEATURE(VHU_PF_INFLIGHT_SHMFD) |			\
	 FEATURE(VHU_PF_RESET_DEVICE) | FEATURE(VHU_PF_CONFIGURE_MEM_SLOTS))

static int fail(struct fe *f, int err, const char *what)
{
	return text_refuse(err, f->why, sizeof(f->why), "%s: %s", what, strerror(-err));
}

static bool has_protocol(const struct fe *f, unsigned int bit)
{
	return f->protocol & FEATURE(bit);
}

/* ---- connecting and negotiating ---- */

static int connect_to(struct fe *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (strlen(f->p.socket) >= sizeof(a.sun_path))
		return text_refuse(-ENAMETOOLONG, f->why, sizeof(f->why), "the path of the socket "
				   "is longer than %zu bytes", sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, f->p.socket, strlen(f->p.socket) + 1);
	f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f->fd < 0)
		return fail(f, -errno, "socket");
	if (connect(f->fd, (struct sockaddr *)&a, sizeof(a)))
		return fail(f, -errno, "cannot connect");
	f->server_pid = 0;
	if (!getsockopt(f->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		f->server_pid = cred.pid;
	return 0;
}

static int negotiate_protocol(struct fe *f)
{
	int err;

	f->protocol = 0;
	if (!(f->offered & FEATURE(VHU_F_PROTOCOL_FEATURES)))
		return text_refuse(-ENOTSUP, f->why, sizeof(f->why), "the server has no protocol "
				   "features, so no configuration: not a vhost-user-blk server?");
	err = fe_msg_get_u64(f, VHU_GET_PROTOCOL_FEATURES, &f->protocol_offered);
	if (err)
		return err;
	f->protocol = f->protocol_offered & PROTOCOL & ~f->p.protocol_off;
	/* REPLY_ACK holds from this message on, but not for it. */
	return fe_msg_set_u64(f, VHU_SET_PROTOCOL_FEATURES, f->protocol, -1);
}

static int check_queues(struct fe *f)
{
	uint64_t max = 1;
	int err = 0;

	if (has_protocol(f, VHU_PF_MQ))
		err = fe_msg_get_u64(f, VHU_GET_QUEUE_NUM, &max);
	if (!err && f->p.queues > max)
		return text_refuse(-EINVAL, f->why, sizeof(f->why), "the server has %llu queues, "
				   "not %u", (unsigned long long)max, f->p.queues);
	return err;
}

static int negotiate_features(struct fe *f)
{
	uint64_t lacks;

	f->features = f->offered & FEATURES & ~f->p.features_off;
	lacks = (f->p.features_wanted | FEATURE(VIRTIO_F_VERSION_1)) & ~f->features;
	if (lacks)
		return text_refuse(-ENOTSUP, f->why, sizeof(f->why), "the server does not offer "
				   "feature bit %d", __builtin_ctzll(lacks));
	return fe_msg_set_u64(f, VHU_SET_FEATURES, f->features, -1);
}

static int open_backend_channel(struct fe *f)
{
	int fds[2], err;

	if (!has_protocol(f, VHU_PF_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return fail(f, -errno, "socketpair");
	f->backend_fd = fds[0];
	err = fe_msg_set(f, VHU_SET_BACKEND_REQ_FD, NULL, 0, &fds[1], 1);
	close(fds[1]);
	return err;
}

static int negotiate(struct fe *f)
{
	int err = fe_msg_get_u64(f, VHU_GET_FEATURES, &f->offered);

	if (!err)
		err = negotiate_protocol(f);
	if (!err)
		err = fe_msg_set(f, VHU_SET_OWNER, NULL, 0, NULL, 0);
	if (!err)
		err = check_queues(f);
	if (!err && !has_protocol(f, VHU_PF_CONFIG))
		err = text_refuse(-ENOTSUP, f->why, sizeof(f->why), "the server has no "
				  "configuration space: not a vhost-user-blk server");
	if (!err)
		err = fe_config_get(f, 0, sizeof(f->config), &f->config);
	if (!err)
		err = negotiate_features(f);
	return err ? err : open_backend_channel(f);
}

/* ---- memory ---- */

static size_t rings_bytes(const struct fe *f)
{
	const struct vq *q = &f->queues[0].vq;

	return vq_bytes(q->size, q->depth, q->bufs_max);
}

uint8_t *fe_slot_mem(struct fe *f, unsigned int i, unsigned int slot, uint64_t *gpa)
{
	size_t at = f->data_at + ((size_t)i * f->p.depth + slot) *
				 (FE_SLOT_HEAD + f->p.slot_bytes);

	*gpa = f->mem_gpa + at;
	return f->mem + at;
}

static int make_memory(struct fe *f)
{
	f->data_at = ALIGN_UP(rings_bytes(f) * f->p.queues, (size_t)4096);
	f->mem_size = f->data_at + (size_t)f->p.queues * f->p.depth *
				   (FE_SLOT_HEAD + f->p.slot_bytes);
	f->mem_size = ALIGN_UP(f->mem_size, (size_t)REGION_ALIGN * f->p.regions);
	f->mem_gpa = GPA;
	f->mem_fd = memfd_create("vhost-bench", MFD_CLOEXEC);
	if (f->mem_fd < 0 || ftruncate(f->mem_fd, (off_t)f->mem_size))
		return fail(f, -errno, "memory");
	f->mem = mmap(NULL, f->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		      f->mem_fd, 0);
	if (f->mem == MAP_FAILED) {
		f->mem = NULL;
		return fail(f, -errno, "memory");
	}
	return 0;
}

static struct mem_region_wire region(const struct fe *f, unsigned int i)
{
	uint64_t size = f->mem_size / f->p.regions;

	return (struct mem_region_wire){ .guest_addr = f->mem_gpa + i * size, .size = size,
					 .user_addr = (uintptr_t)f->mem + i * size,
					 .mmap_offset = i * size };
}

static int share_as_table(struct fe *f)
{
	struct mem_table_wire t = { .count = f->p.regions };
	int fds[FE_REGIONS_MAX];

	for (unsigned int i = 0; i < t.count; i++) {
		t.regions[i] = region(f, i);
		fds[i] = f->mem_fd;
	}
	return fe_msg_set(f, VHU_SET_MEM_TABLE, &t, offsetof(struct mem_table_wire, regions) +
			  t.count * sizeof(t.regions[0]), fds, t.count);
}

static int share_as_slots(struct fe *f)
{
	uint64_t max;
	int err = fe_msg_get_u64(f, VHU_GET_MAX_MEM_SLOTS, &max);

	if (!err && max < f->p.regions)
		return text_refuse(-EINVAL, f->why, sizeof(f->why), "the server takes %llu "
				   "regions, not %u", (unsigned long long)max, f->p.regions);
	for (unsigned int i = 0; i < f->p.regions && !err; i++) {
		struct mem_reg_wire r = { .region = region(f, i) };

		err = fe_msg_set(f, VHU_ADD_MEM_REG, &r, sizeof(r), &f->mem_fd, 1);
	}
	return err;
}

static int share_memory(struct fe *f)
{
	bool slots = has_protocol(f, VHU_PF_CONFIGURE_MEM_SLOTS);

	if (f->p.mem == FE_MEM_SLOTS && !slots)
		return text_refuse(-ENOTSUP, f->why, sizeof(f->why),
				   "the server does not take single regions");
	return slots && f->p.mem != FE_MEM_TABLE ? share_as_slots(f) : share_as_table(f);
}

/* ---- in-flight tracking ---- */

static int get_inflight(struct fe *f)
{
	if (!has_protocol(f, VHU_PF_INFLIGHT_SHMFD))
		return 0;
	f->inflight = (struct inflight_wire){ .queue_count = (uint16_t)f->p.queues,
					      .queue_size = (uint16_t)f->queues[0].vq.size };
	/* Servers answer with or without the padding. */
	return fe_msg_get(f, VHU_GET_INFLIGHT_FD, &f->inflight, sizeof(f->inflight),
			  &f->inflight, offsetof(struct inflight_wire, padding), &f->inflight_fd);
}

static int set_inflight(struct fe *f)
{
	if (f->inflight_fd < 0)
		return 0;
	return fe_msg_set(f, VHU_SET_INFLIGHT_FD, &f->inflight, sizeof(f->inflight),
			  &f->inflight_fd, 1);
}

/* ---- rings ---- */

static int make_queue(struct fe *f, unsigned int i)
{
	struct fe_queue *q = &f->queues[i];
	size_t at = rings_bytes(f) * i;

	memset(f->mem + at, 0, rings_bytes(f));
	q->vq.features = f->features;
	return vq_init(&q->vq, f->mem + at, f->mem_gpa + at) ? fail(f, -ENOMEM, "rings") : 0;
}

static int open_queue_fds(struct fe *f, unsigned int i)
{
	struct fe_queue *q = &f->queues[i];

	q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* A blocking one: the thread that serves some queues sleeps in read(). */
	if (i < f->p.threads)
		q->call_fd = eventfd(0, EFD_CLOEXEC);
	else
		q->call_fd = fcntl(f->queues[i % f->p.threads].call_fd, F_DUPFD_CLOEXEC, 0);
	return q->kick_fd < 0 || q->call_fd < 0 ? fail(f, -errno, "eventfd") : 0;
}

static int set_state(struct fe *f, unsigned int type, unsigned int index, uint32_t num)
{
	struct vring_state_wire s = { .index = index, .num = num };

	return fe_msg_set(f, type, &s, sizeof(s), NULL, 0);
}

int fe_queue_start(struct fe *f, unsigned int i)
{
	struct fe_queue *q = &f->queues[i];
	struct vring_addr_wire a = {
		.index = i, .desc = (uintptr_t)q->vq.desc, .used = (uintptr_t)q->vq.used,
		.avail = (uintptr_t)q->vq.avail };
	int err = set_state(f, VHU_SET_VRING_NUM, i, q->vq.size);

	if (!err)
		err = set_state(f, VHU_SET_VRING_BASE, i, vq_base(&q->vq));
	if (!err)
		err = fe_msg_set(f, VHU_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	if (!err)
		err = fe_msg_set_u64(f, VHU_SET_VRING_KICK, i, q->kick_fd);
	if (!err)
		err = fe_msg_set_u64(f, VHU_SET_VRING_CALL, i, q->call_fd);
	return err ? err : set_state(f, VHU_SET_VRING_ENABLE, i, 1);
}

int fe_queue_stop(struct fe *f, unsigned int i)
{
	struct vring_state_wire s = { .index = i };
	int err = fe_msg_get(f, VHU_GET_VRING_BASE, &s, sizeof(s), &s, sizeof(s), NULL);

	if (!err && s.num != vq_base(&f->queues[i].vq))
		return text_refuse(-EPROTO, f->why, sizeof(f->why), "ring %u was stopped at %#x "
				   "and not, with nothing in it, at %#x", i, s.num,
				   vq_base(&f->queues[i].vq));
	return err;
}

/*
 * QEMU's servers make the descriptors that they get non-blocking, and so ours, for it is the
 * same open file; sleeping would take two system calls then.
 */
static void make_blocking(struct fe *f)
{
	for (unsigned int i = 0; i < f->p.threads; i++)
		fcntl(f->queues[i].call_fd, F_SETFL, O_RDWR);
}

static int start_queues(struct fe *f)
{
	int err = 0;

	for (unsigned int i = 0; i < f->p.queues && !err; i++)
		err = fe_queue_start(f, i);
	make_blocking(f);
	return err;
}

int fe_reset(struct fe *f)
{
	bool reset = has_protocol(f, VHU_PF_RESET_DEVICE);
	int err = 0;

	if (reset)
		err = fe_msg_set(f, VHU_RESET_DEVICE, NULL, 0, NULL, 0);
	for (unsigned int i = 0; i < f->p.queues && !err; i++) {
		if (!reset)
			err = fe_queue_stop(f, i);
		vq_fini(&f->queues[i].vq);
		if (!err)
			err = make_queue(f, i);
	}
	if (!err)
		err = fe_msg_set_u64(f, VHU_SET_FEATURES, f->features, -1);
	return err ? err : start_queues(f);
}

/* ---- life ---- */

static int lay_out(struct fe *f)
{
	int err = 0;

	for (unsigned int i = 0; i < f->p.queues; i++) {
		struct vq *q = &f->queues[i].vq;

		q->depth = f->p.depth;
		q->bufs_max = f->p.bufs_max;
		q->size = vq_entries(f->features, q->depth, q->bufs_max);
		if (!f->p.queue_size && q->size < QUEUE_SIZE_MIN)
			q->size = QUEUE_SIZE_MIN;
		if (f->p.queue_size && f->p.queue_size < q->size)
			return text_refuse(-EINVAL, f->why, sizeof(f->why), "a ring of %u entries "
					   "has no room for %u requests: it takes %u",
					   f->p.queue_size, q->depth, q->size);
		if (f->p.queue_size)
			q->size = f->p.queue_size;
	}
	err = make_memory(f);
	for (unsigned int i = 0; i < f->p.queues && !err; i++) {
		err = make_queue(f, i);
		if (!err)
			err = open_queue_fds(f, i);
	}
	return err;
}

static int set_up(struct fe *f)
{
	int err = set_inflight(f);

	if (!err)
		err = share_memory(f);
	return err ? err : start_queues(f);
}

int fe_open(struct fe *f, const struct fe_params *p)
{
	int err;

	*f = (struct fe){ .p = *p, .fd = -1, .backend_fd = -1, .mem_fd = -1, .inflight_fd = -1 };
	for (unsigned int i = 0; i < FE_QUEUES_MAX; i++)
		f->queues[i].kick_fd = f->queues[i].call_fd = -1;
	if (!f->p.regions)
		f->p.regions = 1;
	if (!f->p.threads)
		f->p.threads = 1;
	assert(f->p.queues <= FE_QUEUES_MAX && f->p.regions <= FE_REGIONS_MAX &&
	       f->p.bufs_max <= VQ_BUFS_MAX);
	err = connect_to(f);
	if (!err)
		err = negotiate(f);
	if (!err)
		err = lay_out(f);
	if (!err)
		err = get_inflight(f);
	return err ? err : set_up(f);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void disconnect(struct fe *f)
{
	close_fd(&f->fd);
	close_fd(&f->backend_fd);
}

void fe_close(struct fe *f)
{
	disconnect(f);
	for (unsigned int i = 0; i < f->p.queues; i++) {
		close_fd(&f->queues[i].kick_fd);
		close_fd(&f->queues[i].call_fd);
		vq_fini(&f->queues[i].vq);
	}
	if (f->mem)
		munmap(f->mem, f->mem_size);
	f->mem = NULL;
	close_fd(&f->mem_fd);
	close_fd(&f->inflight_fd);
}

int fe_reconnect(struct fe *f)
{
	uint64_t features = f->features, one = 1;
	int err;

	disconnect(f);
	if (f->inflight_fd < 0)
		return text_refuse(-ENOTSUP, f->why, sizeof(f->why), "the server went away and "
				   "does not track requests: what was under way is lost");
	err = connect_to(f);
	if (!err)
		err = negotiate(f);
	if (!err && f->features != features)
		err = text_refuse(-EPROTO, f->why, sizeof(f->why), "the server came back with "
				  "other features");
	if (!err)
		err = set_up(f);
	/* What was put into the rings meanwhile. */
	for (unsigned int i = 0; i < f->p.queues && !err; i++)
		if (write(f->queues[i].kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			err = fail(f, -errno, "kick");
	return err;
}

bool fe_lost(struct fe *f, int timeout_ms, bool *changed)
{
	struct pollfd p[2] = { { .fd = f->fd, .events = POLLIN },
			       { .fd = f->backend_fd, .events = POLLIN } };
	struct msg_hdr_wire h;
	char byte;

	*changed = false;
	if (f->fd < 0)
		return true;
	if (poll(p, 2, timeout_ms) <= 0)
		return false;
	if (p[1].revents & POLLIN &&
	    recv(f->backend_fd, &h, sizeof(h), MSG_DONTWAIT) == sizeof(h))
		*changed = h.request == VHU_BACKEND_CONFIG_CHANGE;
	/* It speaks on this socket only when it is asked: there is nothing but its end. */
	if (!p[0].revents || recv(f->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0)
		return false;
	return true;
}

int fe_config_get(struct fe *f, uint32_t offset, uint32_t size, void *buf)
{
	struct config_wire c = { .offset = offset, .size = size };
	size_t bytes = offsetof(struct config_wire, bytes) + size;
	int err;

	assert(size <= sizeof(c.bytes));
	err = fe_msg_get(f, VHU_GET_CONFIG, &c, bytes, &c, bytes, NULL);
	if (!err)
		memcpy(buf, c.bytes, size);
	return err;
}

int fe_config_set(struct fe *f, uint32_t offset, uint32_t size, const void *buf)
{
	struct config_wire c = { .offset = offset, .size = size };

	assert(size <= sizeof(c.bytes));
	memcpy(c.bytes, buf, size);
	return fe_msg_set(f, VHU_SET_CONFIG, &c, offsetof(struct config_wire, bytes) + size,
			  NULL, 0);
}

uint64_t fe_capacity(const struct fe *f)
{
	return le64_to_cpu(f->config.capacity) * BLK_SECTOR;
}
