/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile front end: a ring of its making, changed while it is read, an in-flight area of
 * its making, and any messages in any order with descriptors of the wrong kind.
 */
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "vhost/proto.h"
#include "vhost/vhu.h"
#include "vhost/virtio.h"

#define MEM	65536u
#define DISK	65536u
#define AREA	4096u
#define QSIZE	16u
#define SHRUNK	4096u

static struct vhu_server *server;
static struct reactor *reactor;
static uint8_t disk[DISK];
static int kick_fd, pipe_fd[2];
static struct vhu *device;	/* one for all inputs: each must leave it as it found it */
static atomic_uint closes;

static void on_closed(struct vhu *v, void *arg, enum vhu_end end, const char *why)
{
	(void)v, (void)arg, (void)end, (void)why;
	atomic_fetch_add(&closes, 1);
}

static const struct vhu_ops ops = { .closed = on_closed };

/* A disk in memory; reading and writing all of a request shows whether it may be. */
static void ram_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	(void)dev;
	for (unsigned int i = 0; i < count; i++) {
		struct blk_io *io = ios[i];
		uint64_t at = io->off;

		FUZZ_CHECK(io->off <= DISK && io->len <= DISK - io->off);
		for (int n = 0; n < io->iovcnt && io->op <= BLK_WRITE; n++) {
			FUZZ_CHECK(io->iov[n].iov_len <= DISK - at);
			if (io->op == BLK_READ)
				memcpy(io->iov[n].iov_base, disk + at, io->iov[n].iov_len);
			else
				memcpy(disk + at, io->iov[n].iov_base, io->iov[n].iov_len);
			at += io->iov[n].iov_len;
		}
		io->done(io, 0);
	}
}

static const struct blkdev_ops ram_ops = { .submit = ram_submit };
static struct blkdev ram = {
	.ops = &ram_ops,
	.info = { .size = DISK, .sector = 512, .mem_align = 512, .io_max = DISK,
		  .discard_granularity = 512 },
};

static void quiet(struct env *env, enum log_level level, const char *object, const char *fmt,
		  va_list ap)
{
	(void)env, (void)level, (void)object, (void)fmt, (void)ap;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static struct env_ops env_ops;
	static struct env env = { .ops = &env_ops };
	struct vhu_params p = { .dev = &ram, .name = "fuzz", .discard = true, .queues_max = 2,
				.ops = &ops };

	(void)argc, (void)argv;
	env_ops = *env_posix()->ops;
	env_ops.log = quiet;
	ram.env = &env;
	kick_fd = eventfd(0, EFD_NONBLOCK);
	FUZZ_CHECK(pipe(pipe_fd) == 0 && kick_fd >= 0);
	FUZZ_CHECK(vhu_server_new(&env, &server) == 0);
	FUZZ_CHECK(reactor_create(&env, "fuzz", 20000, 4, &reactor) == 0);
	p.server = server;
	p.reactor = reactor;
	FUZZ_CHECK(vhu_new(&p, &device) == 0);
	return 0;
}

struct front {
	struct vhu *v;
	int sock, back;
	int mem_fd, area_fd;
	uint8_t *mem;
	bool shrunk;
};

static void attach(void *arg)
{
	struct front *f = arg;

	FUZZ_CHECK(vhu_attach(f->v, f->back) == 0);
}

static void send_msg(struct front *f, uint32_t request, const void *p, size_t size, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct msg_hdr_wire h = { request, VHU_VERSION, (uint32_t)size };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)p, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0) {
		mh.msg_control = control.space;
		mh.msg_controllen = sizeof(control.space);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	/* A back end that has cut us off is no fault. */
	if (sendmsg(f->sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void send_u64(struct front *f, uint32_t request, uint64_t u, int fd)
{
	send_msg(f, request, &u, sizeof(u), fd);
}

/* All that a ring needs, so that what follows is about its contents. */
static void set_up(struct front *f, struct fuzz_input *in)
{
	unsigned int choice = (unsigned int)fuzz_number(in, 1);
	uint32_t base = (uint32_t)fuzz_number(in, 1) * 0x10001u;
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VHU_F_PROTOCOL_FEATURES) |
			    FEATURE(VIRTIO_F_INDIRECT_DESC) | FEATURE(BLK_F_DISCARD) |
			    FEATURE(BLK_F_WRITE_ZEROES);
	struct mem_reg_wire reg = { .region = { 0, MEM, 0, 0 } };
	struct vring_addr_wire addr = { .avail = 0x400, .used = 0x800, .log = 0x800,
					.flags = choice >> 4 & 1 };

	if (choice & 1)
		features |= FEATURE(VIRTIO_F_RING_PACKED);
	if (choice & 2)
		features |= FEATURE(VIRTIO_F_EVENT_IDX);
	if (choice & 16)
		features |= FEATURE(VHU_F_LOG_ALL);
	send_u64(f, VHU_SET_PROTOCOL_FEATURES, 0xb22b, -1);
	send_u64(f, VHU_SET_FEATURES, features, -1);
	send_msg(f, VHU_ADD_MEM_REG, &reg, sizeof(reg), f->mem_fd);
	if (choice & 4)
		send_msg(f, VHU_SET_INFLIGHT_FD, &(struct inflight_wire){ AREA, 0, 1, QSIZE, 0 },
			 24, f->area_fd);
	if (choice & 16)
		send_msg(f, VHU_SET_LOG_BASE, &(struct log_wire){ 2, 0 }, 16, f->area_fd);
	send_msg(f, VHU_SET_VRING_NUM, &(struct vring_state_wire){ 0, QSIZE }, 8, -1);
	send_msg(f, VHU_SET_VRING_BASE, &(struct vring_state_wire){ 0, base }, 8, -1);
	send_msg(f, VHU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	send_u64(f, VHU_SET_VRING_CALL, 0, kick_fd);
	send_msg(f, VHU_SET_VRING_ENABLE, &(struct vring_state_wire){ 0, 1 }, 8, -1);
	send_u64(f, VHU_SET_VRING_KICK, 0, kick_fd);
}

static void any_message(struct front *f, struct fuzz_input *in)
{
	const int fds[] = { -1, f->mem_fd, f->area_fd, kick_fd, pipe_fd[0], f->sock, -1, -1 };
	uint32_t request = (uint32_t)fuzz_number(in, 1) % 42;
	int fd = fds[fuzz_number(in, 1) % ARRAY_SIZE(fds)];
	size_t size = fuzz_number(in, 1) % 64;
	uint8_t payload[64];

	fuzz_take(in, payload, size);
	send_msg(f, request, payload, size, fd);
}

static void poke(struct front *f, struct fuzz_input *in)
{
	unsigned int at = (unsigned int)fuzz_number(in, 2) % 0x1800;
	unsigned int len = (unsigned int)fuzz_number(in, 1) % 32;

	if (f->shrunk)
		at %= SHRUNK - 32;	/* our own access must not fail */
	fuzz_take(in, f->mem + at, len);
	eventfd_write(kick_fd, 1);
}

/* Until the back end has served all that was sent, or cut us off. */
static void barrier(struct front *f)
{
	struct msg_hdr_wire h;
	uint8_t payload[512];

	send_msg(f, VHU_GET_QUEUE_NUM, NULL, 0, -1);
	shutdown(f->sock, SHUT_WR);
	while (recv(f->sock, &h, sizeof(h), MSG_WAITALL) == sizeof(h) && h.size <= sizeof(payload))
		recv(f->sock, payload, h.size, MSG_WAITALL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	unsigned int before = atomic_load(&closes);
	struct front f = { .v = device, .mem_fd = memfd_create("mem", 0), .area_fd = memfd_create("area", 0) };
	uint8_t area[1024];
	int socks[2];

	FUZZ_CHECK(ftruncate(f.mem_fd, MEM) == 0 && ftruncate(f.area_fd, AREA) == 0);
	f.mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED, f.mem_fd, 0);
	FUZZ_CHECK(f.mem != MAP_FAILED);
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0);
	f.sock = socks[0];
	f.back = socks[1];
	reactor_call_sync(reactor, attach, &f);
	fuzz_take(&in, area, fuzz_number(&in, 1) * 4);
	FUZZ_CHECK(pwrite(f.area_fd, area, sizeof(area), 0) == sizeof(area));
	fuzz_take(&in, f.mem, fuzz_number(&in, 2) % 0x1000);
	set_up(&f, &in);
	while (in.left) {
		unsigned int what = (unsigned int)fuzz_number(&in, 1) % 8;

		if (what < 5)
			poke(&f, &in);
		else if (what < 7)
			any_message(&f, &in);
		else
			FUZZ_CHECK(ftruncate(f.mem_fd, (f.shrunk = fuzz_number(&in, 1) & 1) ?
					     SHRUNK : MEM) == 0);
	}
	barrier(&f);
	close(f.sock);
	while (atomic_load(&closes) == before)
		sched_yield();
	munmap(f.mem, MEM);
	close(f.mem_fd);
	close(f.area_fd);
	return 0;
}
