/* SPDX-License-Identifier: Apache-2.0 */
/* A front end with its own memory, and the back end that it drives, in one process: both ring formats. */
#ifndef LUNFS_TESTS_VHOST_VHU_RIG_H
#define LUNFS_TESTS_VHOST_VHU_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "block/blkpoll.h"
#include "tests/unit.h"
#include "vhost/inflight.h"
#include "vhost/mem.h"
#include "vhost/proto.h"
#include "vhost/vhu.h"
#include "vhost/virtio.h"

#define DISK	(1 * GIB)	/* of holes */
#define MEM	(8 * MIB)
#define GPA	0x100000ULL	/* guest and user addresses differ from each other and from ours */
#define UVA	0x700000000ULL
#define QSIZE	16u

/* Offsets in the guest's memory. */
#define AT_DESC		0x0
#define AT_AVAIL	0x1000	/* packed: driver event */
#define AT_USED		0x2000	/* packed: device event */
#define AT_HEADER	0x3000
#define AT_STATUS	0x3100
#define AT_TABLE	0x4000
#define AT_DATA		0x10000
static char dir[64];
static struct vhu_server *server;
static struct reactor *r;
static struct blkdev *dev;
static struct blkpoll bp;
static struct vhu *v;
static int sock;
static int mem_fd, kick_fd, call_fd;
static uint8_t *mem;
static bool packed, event_idx;
static uint16_t next_avail, next_used;
static bool wrap;
static enum vhu_end closed_end;
static atomic_uint starts, stops, closes;
static int start_err;

static inline void on_start(struct vhu *dev_v, void *arg)
{
	(void)arg;
	atomic_fetch_add(&starts, 1);
	vhu_start_done(dev_v, start_err);
}

static inline void on_stopped(struct vhu *dev_v, void *arg)
{
	(void)dev_v;
	(void)arg;
	atomic_fetch_add(&stops, 1);
}

static inline void on_closed(struct vhu *dev_v, void *arg, enum vhu_end end, const char *why)
{
	(void)dev_v;
	(void)arg;
	(void)why;
	closed_end = end;
	atomic_fetch_add(&closes, 1);
}

static const struct vhu_ops ops = { .start = on_start, .stopped = on_stopped, .closed = on_closed };

static inline void begin(void *arg)
{
	*(int *)arg = blkpoll_start(&bp, r, dev);
}

static inline void attach(void *arg)
{
	int *fd = arg;

	*fd = vhu_attach(v, *fd);
}

static inline void end(void *arg)
{
	(void)arg;
	blkpoll_stop(&bp);
	blkdev_close(dev);
}

static inline void device_make(void)
{
	struct vhu_params p = { .name = "test", .serial = "SERIAL", .discard = true, .ops = &ops };
	char path[96], why[256];
	int fd, err = 0;

	snprintf(dir, sizeof(dir), "/var/tmp/vhu-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	setenv("LUNFS_LOCK_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/disk", dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, DISK) == 0);
	close(fd);
	CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), path, 0, &dev, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL_FATAL(blkdev_set_polled(dev), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_create(env_posix(), "vhu-test", 0, 4, &r), 0);
	CU_ASSERT_EQUAL_FATAL(vhu_server_new(env_posix(), &server), 0);
	p.server = server;
	p.reactor = r;
	p.dev = dev;
	CU_ASSERT_EQUAL_FATAL(vhu_new(&p, &v), 0);
	reactor_call_sync(r, begin, &err);
	CU_ASSERT_EQUAL_FATAL(err, 0);
	starts = stops = closes = 0;
	start_err = 0;
}

static inline void device_free(void)
{
	char command[128];

	vhu_close_sync(v);
	reactor_call_sync(r, end, NULL);
	reactor_destroy(r);
	vhu_server_free(server);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

/* ---- messages ---- */

static inline void send_msg(uint32_t request, uint32_t flags, const void *p, size_t size, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct msg_hdr_wire h = { request, VHU_VERSION | flags, (uint32_t)size };
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
	CU_ASSERT_EQUAL(sendmsg(sock, &mh, MSG_NOSIGNAL), (ssize_t)(sizeof(h) + size));
}

/* Receives an answer; its descriptor too, if there is one.  Return: its payload's size or -1. */
static inline int receive(void *p, size_t size, int *fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msg_hdr_wire h;
	struct iovec iov = { &h, sizeof(h) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			     .msg_controllen = sizeof(control.space) };

	if (recvmsg(sock, &mh, MSG_WAITALL) != sizeof(h) || h.size > size)
		return -1;
	if (fd && CMSG_FIRSTHDR(&mh))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
	return recv(sock, p, h.size, MSG_WAITALL) == (ssize_t)h.size ? (int)h.size : -1;
}

static inline uint64_t ask_u64(uint32_t request)
{
	uint64_t u = 0;

	send_msg(request, 0, NULL, 0, -1);
	CU_ASSERT_EQUAL(receive(&u, sizeof(u), NULL), sizeof(u));
	return u;
}

/* Sends and waits for the acknowledgement, which says whether it worked. */
static inline uint64_t tell(uint32_t request, const void *p, size_t size, int fd)
{
	uint64_t u = 99;

	send_msg(request, VHU_FLAG_NEED_REPLY, p, size, fd);
	CU_ASSERT_EQUAL(receive(&u, sizeof(u), NULL), sizeof(u));
	return u;
}

static inline uint64_t tell_u64(uint32_t request, uint64_t u, int fd)
{
	return tell(request, &u, sizeof(u), fd);
}

static inline void front_connect(void)
{
	int fds[2];

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	sock = fds[0];
	reactor_call_sync(r, attach, &fds[1]);
	CU_ASSERT_EQUAL_FATAL(fds[1], 0);
	send_msg(VHU_SET_PROTOCOL_FEATURES, 0, &(uint64_t){ ask_u64(VHU_GET_PROTOCOL_FEATURES) },
		 8, -1);
}

static inline void front_memory(void)
{
	mem_fd = memfd_create("guest", 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(mem_fd, MEM), 0);
	mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(mem, MAP_FAILED);
	kick_fd = eventfd(0, EFD_NONBLOCK);
	call_fd = eventfd(0, 0);
	next_avail = next_used = 0;
	wrap = true;
}

static inline uint64_t share_memory(void)
{
	struct mem_reg_wire reg = { .region = { GPA, MEM, UVA, 0 } };

	return tell(VHU_ADD_MEM_REG, &reg, sizeof(reg), mem_fd);
}

static inline void front_ring(uint32_t base)
{
	struct vring_state_wire num = { 0, QSIZE }, at = { 0, base }, on = { 0, 1 };
	struct vring_addr_wire addr = { .desc = UVA + AT_DESC, .avail = UVA + AT_AVAIL,
					.used = UVA + AT_USED };

	CU_ASSERT_EQUAL(tell(VHU_SET_VRING_NUM, &num, sizeof(num), -1), 0);
	CU_ASSERT_EQUAL(tell(VHU_SET_VRING_BASE, &at, sizeof(at), -1), 0);
	CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ADDR, &addr, sizeof(addr), -1), 0);
	CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_CALL, 0, call_fd), 0);
	CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_KICK, 0, kick_fd), 0);
	CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ENABLE, &on, sizeof(on), -1), 0);
}

static inline void front_features(void)
{
	uint64_t f = ask_u64(VHU_GET_FEATURES) & ~FEATURE(VHU_F_LOG_ALL);

	if (!packed)
		f &= ~FEATURE(VIRTIO_F_RING_PACKED);
	/* Without EVENT_IDX each batch is announced: nothing to calculate here. */
	if (!event_idx)
		f &= ~FEATURE(VIRTIO_F_EVENT_IDX);
	CU_ASSERT_EQUAL(tell_u64(VHU_SET_FEATURES, f, -1), 0);
}

static inline void front_start(void)
{
	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	front_ring(packed ? 0x80008000u : 0);
}

static inline void front_free(void)
{
	close(sock);
	munmap(mem, MEM);
	close(mem_fd);
	close(kick_fd);
	close(call_fd);
}

/* ---- the driver ---- */

static inline void put_desc(unsigned int slot, uint64_t addr, uint32_t len, uint16_t flags, bool first)
{
	(void)first;
	if (packed) {
		struct packed_desc_wire *d = (void *)(mem + AT_DESC);
		unsigned int at = next_avail;

		d += at;
		d->addr = cpu_to_le64(addr);
		d->len = cpu_to_le32(len);
		d->id = cpu_to_le16(7);
		flags |= wrap ? PACKED_F_AVAIL : PACKED_F_USED;
		__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
		if (++next_avail == QSIZE) {
			next_avail = 0;
			wrap = !wrap;
		}
		return;
	}
	((struct desc_wire *)(void *)(mem + AT_DESC))[slot] = (struct desc_wire){
		cpu_to_le64(addr), cpu_to_le32(len), cpu_to_le16(flags),
		cpu_to_le16((uint16_t)(slot + 1)) };
}

static inline void make_available(uint16_t head)
{
	struct avail_wire *a = (void *)(mem + AT_AVAIL);

	if (!packed) {
		a->ring[next_avail % QSIZE] = head;
		next_avail++;
		__atomic_store_n(&a->idx, next_avail, __ATOMIC_RELEASE);
	}
	CU_ASSERT_EQUAL(eventfd_write(kick_fd, 1), 0);
}

static unsigned int times = 1;	/* that a request names its data */
#define TIMES_MAX	127u

/* The indirect table of a request.  Return: its entries. */
static inline unsigned int fill_table(uint32_t type, uint64_t sector, uint32_t at, uint32_t len)
{
	struct blk_header_wire h = { cpu_to_le32(type), cpu_to_le32(0), cpu_to_le64(sector) };
	struct desc_wire *t = (void *)(mem + AT_TABLE);
	uint16_t in = type == BLK_T_IN || type == BLK_T_GET_ID ? DESC_F_WRITE : 0;
	unsigned int n = 0;
	struct { uint64_t addr; uint32_t len; uint16_t flags; } parts[TIMES_MAX + 2];

	memcpy(mem + AT_HEADER, &h, sizeof(h));
	mem[AT_STATUS] = 0xff;
	parts[n].addr = GPA + AT_HEADER;
	parts[n].len = sizeof(h);
	parts[n++].flags = 0;
	for (unsigned int i = 0; len && i < times; i++) {
		parts[n].addr = GPA + at;
		parts[n].len = len;
		parts[n++].flags = in;
	}
	parts[n].addr = GPA + AT_STATUS;
	parts[n].len = 1;
	parts[n++].flags = DESC_F_WRITE;
	for (unsigned int i = 0; i < n; i++) {
		uint16_t f = parts[i].flags, next = (uint16_t)(i + 1);

		if (!packed && i + 1 < n)
			f |= DESC_F_NEXT;
		t[i].addr = cpu_to_le64(parts[i].addr);
		t[i].len = cpu_to_le32(parts[i].len);
		t[i].flags = cpu_to_le16(packed ? 0 : f);
		t[i].next = cpu_to_le16(packed ? f : next);
	}
	return n;
}

/* A request as one indirect descriptor: visible at once in either format. */
static inline void queue_request(uint32_t type, uint64_t sector, uint32_t at, uint32_t len)
{
	unsigned int n = fill_table(type, sector, at, len);

	put_desc(0, GPA + AT_TABLE, n * 16, DESC_F_INDIRECT, true);
	make_available(0);
}

static inline bool was_used(void)
{
	if (packed) {
		struct packed_desc_wire *d = (void *)(mem + AT_DESC);
		uint16_t flags = __atomic_load_n(&d[next_used].flags, __ATOMIC_ACQUIRE);

		return !!(flags & PACKED_F_AVAIL) == !!(flags & PACKED_F_USED) &&
		       mem[AT_STATUS] != 0xff;
	}
	return __atomic_load_n(&((struct used_wire *)(void *)(mem + AT_USED))->idx,
			       __ATOMIC_ACQUIRE) != next_used;
}

static inline uint8_t request(uint32_t type, uint64_t sector, uint32_t at, uint32_t len)
{
	queue_request(type, sector, at, len);
	while (!was_used()) {
		struct pollfd p = { .fd = call_fd, .events = POLLIN };
		eventfd_t count;

		/* A batch that is not announced ends the test here. */
		CU_ASSERT_EQUAL_FATAL(poll(&p, 1, 60000), 1);
		eventfd_read(call_fd, &count);
	}
	next_used++;
	if (packed && next_used == QSIZE)
		next_used = 0;
	return mem[AT_STATUS];
}

static inline void nothing(void *arg)
{
	(void)arg;
}

#endif
