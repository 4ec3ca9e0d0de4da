/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/vhost_front.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct vhu_server *server;
static struct reactor *reactor;
static uint8_t disk[FRONT_DISK];
static int kick_fd, pipe_fds[2];
static struct vhu *device;
static atomic_uint closes;
static unsigned int closes_wanted;

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

		FUZZ_CHECK(io->off <= FRONT_DISK && io->len <= FRONT_DISK - io->off);
		for (int n = 0; n < io->iovcnt && io->op <= BLK_WRITE; n++) {
			FUZZ_CHECK(io->iov[n].iov_len <= FRONT_DISK - at);
			if (io->op == BLK_READ)
				memcpy(io->iov[n].iov_base, disk + at, io->iov[n].iov_len);
			else
				memcpy(disk + at, io->iov[n].iov_base, io->iov[n].iov_len);
			at += io->iov[n].iov_len;
		}
		FUZZ_CHECK(io->op > BLK_WRITE || at == io->off + io->len);
		io->done(io, 0);
	}
}

static const struct blkdev_ops ram_ops = { .submit = ram_submit };
static struct blkdev ram = {
	.ops = &ram_ops,
	.info = { .size = FRONT_DISK, .sector = 512, .mem_align = 512, .io_max = FRONT_DISK,
		  .discard_granularity = 512 },
};

static void quiet(struct env *env, enum log_level level, const char *object, const char *fmt,
		  va_list ap)
{
	(void)env, (void)level, (void)object, (void)fmt, (void)ap;
}

void front_init(void)
{
	static struct env_ops env_ops;
	static struct env env = { .ops = &env_ops };
	struct vhu_params p = { .dev = &ram, .name = "fuzz", .discard = true, .queues_max = 2,
				.ops = &ops };

	env_ops = *env_posix()->ops;
	env_ops.log = quiet;
	ram.env = &env;
	kick_fd = eventfd(0, EFD_NONBLOCK);
	FUZZ_CHECK(pipe(pipe_fds) == 0 && kick_fd >= 0);
	FUZZ_CHECK(vhu_server_new(&env, &server) == 0);
	FUZZ_CHECK(reactor_create(&env, "fuzz", 20000, 4, &reactor) == 0);
	p.server = server;
	p.reactor = reactor;
	FUZZ_CHECK(vhu_new(&p, &device) == 0);
}

static void attach(void *arg)
{
	FUZZ_CHECK(vhu_attach(device, *(int *)arg) == 0);
}

void front_open(struct front *f, size_t mem_size, size_t area_size)
{
	int socks[2];

	*f = (struct front){ .kick_fd = kick_fd, .pipe_fd = pipe_fds[0], .mem_size = mem_size,
			     .mem_fd = memfd_create("mem", 0), .area_fd = memfd_create("area", 0) };
	FUZZ_CHECK(ftruncate(f->mem_fd, (off_t)mem_size) == 0 &&
		   ftruncate(f->area_fd, (off_t)area_size) == 0);
	f->mem = mmap(NULL, mem_size, PROT_READ | PROT_WRITE, MAP_SHARED, f->mem_fd, 0);
	FUZZ_CHECK(f->mem != MAP_FAILED);
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0);
	f->sock = socks[0];
	reactor_call_sync(reactor, attach, &socks[1]);
	closes_wanted++;
}

void front_close(struct front *f)
{
	close(f->sock);
	while (atomic_load(&closes) != closes_wanted)
		sched_yield();
	munmap(f->mem, f->mem_size);
	close(f->mem_fd);
	close(f->area_fd);
}

void front_send(struct front *f, uint32_t request, const void *p, size_t size, int fd)
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
	if (sendmsg(f->sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

void front_send_u64(struct front *f, uint32_t request, uint64_t u, int fd)
{
	front_send(f, request, &u, sizeof(u), fd);
}

void front_barrier(struct front *f)
{
	struct msg_hdr_wire h;
	uint8_t payload[512];

	front_send(f, VHU_GET_QUEUE_NUM, NULL, 0, -1);
	shutdown(f->sock, SHUT_WR);
	while (recv(f->sock, &h, sizeof(h), MSG_WAITALL) == sizeof(h) && h.size <= sizeof(payload))
		recv(f->sock, payload, h.size, MSG_WAITALL);
}
