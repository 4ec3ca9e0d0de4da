/* SPDX-License-Identifier: Apache-2.0 */
/* A front end with its own memory against the back end, both ring formats. */
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

static void on_start(struct vhu *dev_v, void *arg)
{
	(void)arg;
	atomic_fetch_add(&starts, 1);
	vhu_start_done(dev_v, start_err);
}

static void on_stopped(struct vhu *dev_v, void *arg)
{
	(void)dev_v;
	(void)arg;
	atomic_fetch_add(&stops, 1);
}

static void on_closed(struct vhu *dev_v, void *arg, enum vhu_end end, const char *why)
{
	(void)dev_v;
	(void)arg;
	(void)why;
	closed_end = end;
	atomic_fetch_add(&closes, 1);
}

static const struct vhu_ops ops = { .start = on_start, .stopped = on_stopped, .closed = on_closed };

static void begin(void *arg)
{
	*(int *)arg = blkpoll_start(&bp, r, dev);
}

static void attach(void *arg)
{
	int *fd = arg;

	*fd = vhu_attach(v, *fd);
}

static void end(void *arg)
{
	(void)arg;
	blkpoll_stop(&bp);
	blkdev_close(dev);
}

static void device_make(void)
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

static void device_free(void)
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

static void send_msg(uint32_t request, uint32_t flags, const void *p, size_t size, int fd)
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
static int receive(void *p, size_t size, int *fd)
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

static uint64_t ask_u64(uint32_t request)
{
	uint64_t u = 0;

	send_msg(request, 0, NULL, 0, -1);
	CU_ASSERT_EQUAL(receive(&u, sizeof(u), NULL), sizeof(u));
	return u;
}

/* Sends and waits for the acknowledgement, which says whether it worked. */
static uint64_t tell(uint32_t request, const void *p, size_t size, int fd)
{
	uint64_t u = 99;

	send_msg(request, VHU_FLAG_NEED_REPLY, p, size, fd);
	CU_ASSERT_EQUAL(receive(&u, sizeof(u), NULL), sizeof(u));
	return u;
}

static uint64_t tell_u64(uint32_t request, uint64_t u, int fd)
{
	return tell(request, &u, sizeof(u), fd);
}

static void front_connect(void)
{
	int fds[2];

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	sock = fds[0];
	reactor_call_sync(r, attach, &fds[1]);
	CU_ASSERT_EQUAL_FATAL(fds[1], 0);
	send_msg(VHU_SET_PROTOCOL_FEATURES, 0, &(uint64_t){ ask_u64(VHU_GET_PROTOCOL_FEATURES) },
		 8, -1);
}

static void front_memory(void)
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

static uint64_t share_memory(void)
{
	struct mem_reg_wire reg = { .region = { GPA, MEM, UVA, 0 } };

	return tell(VHU_ADD_MEM_REG, &reg, sizeof(reg), mem_fd);
}

static void front_ring(uint32_t base)
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

static void front_features(void)
{
	uint64_t f = ask_u64(VHU_GET_FEATURES) & ~FEATURE(VHU_F_LOG_ALL);

	if (!packed)
		f &= ~FEATURE(VIRTIO_F_RING_PACKED);
	/* Without EVENT_IDX each batch is announced: nothing to calculate here. */
	if (!event_idx)
		f &= ~FEATURE(VIRTIO_F_EVENT_IDX);
	CU_ASSERT_EQUAL(tell_u64(VHU_SET_FEATURES, f, -1), 0);
}

static void front_start(void)
{
	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	front_ring(packed ? 0x80008000u : 0);
}

static void front_free(void)
{
	close(sock);
	munmap(mem, MEM);
	close(mem_fd);
	close(kick_fd);
	close(call_fd);
}

/* ---- the driver ---- */

static void put_desc(unsigned int slot, uint64_t addr, uint32_t len, uint16_t flags, bool first)
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

static void make_available(uint16_t head)
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

/* A request as one indirect descriptor: visible at once in either format. */
static void queue_request(uint32_t type, uint64_t sector, uint32_t at, uint32_t len)
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
	put_desc(0, GPA + AT_TABLE, n * 16, DESC_F_INDIRECT, true);
	make_available(0);
}

static bool was_used(void)
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

static uint8_t request(uint32_t type, uint64_t sector, uint32_t at, uint32_t len)
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

/* ---- the claims ---- */

static void all_requests(void)
{
	struct blk_range_wire range = { cpu_to_le64(8), cpu_to_le32(8), cpu_to_le32(0) };

	device_make();
	front_start();
	for (unsigned int i = 0; i < 40; i++) {	/* round the ring, more than twice */
		memset(mem + AT_DATA, 'a' + (int)(i % 20), 8192);
		CU_ASSERT_EQUAL(request(BLK_T_OUT, i * 16, AT_DATA, 8192), BLK_S_OK);
		memset(mem + AT_DATA, 0, 8192);
		CU_ASSERT_EQUAL(request(BLK_T_IN, i * 16, AT_DATA, 8192), BLK_S_OK);
		CU_ASSERT_EQUAL(mem[AT_DATA + 8191], 'a' + (int)(i % 20));
	}
	CU_ASSERT_EQUAL(request(BLK_T_FLUSH, 0, 0, 0), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_GET_ID, 0, AT_DATA, 20), BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA, "SERIAL\0", 7), 0);
	/* Buffers that the device cannot take are copied. */
	memset(mem + AT_DATA + 100, 'x', 4096);
	CU_ASSERT_EQUAL(request(BLK_T_OUT, 8, AT_DATA + 100, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 8, AT_DATA + 16389, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA + 100, mem + AT_DATA + 16389, 4096), 0);
	memcpy(mem + AT_DATA, &range, sizeof(range));
	CU_ASSERT_EQUAL(request(BLK_T_WRITE_ZEROES, 0, AT_DATA, 16), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 8, AT_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(mem[AT_DATA] | mem[AT_DATA + 4095], 0);
	/* Outside the disk, half sectors, unknown types: an error, and it goes on. */
	CU_ASSERT_EQUAL(request(BLK_T_IN, DISK / 512, AT_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_IN, UINT64_MAX / 512, AT_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_OUT, 0, AT_DATA, 100), BLK_S_IOERR);
	/* More than its segments were offered to have: all of a reactor would wait for as much as it likes. */
	times = TIMES_MAX;
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 4 * MIB), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 4096), BLK_S_OK);
	times = 1;
	CU_ASSERT_EQUAL(request(77, 0, 0, 0), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(request(BLK_T_DISCARD, 0, AT_DATA, 5), BLK_S_IOERR);
	CU_ASSERT_EQUAL(atomic_load(&starts), 1);
	front_free();
	device_free();
	CU_ASSERT_EQUAL(atomic_load(&closes), 1);
}

static void requests_of_every_type_on_a_split_ring(void)
{
	packed = false;
	all_requests();
}

static void requests_of_every_type_on_a_packed_ring(void)
{
	packed = true;
	all_requests();
}

/* QEMU stops rings when a guest pauses and starts them where they were. */
static void ring_goes_on_where_it_stopped(void)
{
	struct vring_state_wire s = { 0, 0 };

	for (int format = 0; format < 2; format++) {
		packed = format;
		device_make();
		front_start();
		for (int i = 0; i < 3; i++)
			CU_ASSERT_EQUAL(request(BLK_T_OUT, 0, AT_DATA, 512), BLK_S_OK);
		send_msg(VHU_GET_VRING_BASE, 0, &s, sizeof(s), -1);
		CU_ASSERT_EQUAL(receive(&s, sizeof(s), NULL), sizeof(s));
		CU_ASSERT_EQUAL(s.num, packed ? 0x80038003u : 3);
		CU_ASSERT_EQUAL(atomic_load(&stops), 1);
		front_ring(s.num);
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		CU_ASSERT_EQUAL(atomic_load(&starts), 2);
		front_free();
		device_free();
	}
}

static void want_calls(bool wanted)
{
	struct avail_wire *a = (void *)(mem + AT_AVAIL);

	a->flags = (uint16_t)(wanted ? 0 : AVAIL_F_NO_INTERRUPT);
	a->ring[QSIZE] = wanted ? next_used : (uint16_t)(next_used + 0x4000);
}

/* Interrupts until there were @count of them, within twenty seconds each. */
static bool called(eventfd_t count)
{
	struct pollfd p = { .fd = call_fd, .events = POLLIN };
	eventfd_t n, all = 0;

	while (all < count && poll(&p, 1, 20000) == 1 && !eventfd_read(call_fd, &n))
		all += n;
	return all >= count;
}

static void request_without_kick(void)
{
	eventfd_t n;

	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	eventfd_read(kick_fd, &n);
}

static void wait_used(void)
{
	while (!was_used())
		sched_yield();
	next_used++;
}

/*
 * A driver that has kicked once kicks no more until it is asked to, and one whose interrupt is owed sees
 * none to be missing: what is lost around a start is lost for ever, and the guest hangs.  So a ring that
 * starts is looked at without a kick, its first batch is announced whatever the driver wants, a
 * call descriptor that comes late is signalled for what came before it, and so is what a ring that was
 * disabled was kicked for.
 */
static void a_ring_that_starts_misses_nothing(void)
{
	struct vring_state_wire on = { 0, 1 }, off = { 0, 0 };

	packed = false;
	for (int i = 0; i < 2; i++) {
		event_idx = i;
		device_make();
		front_connect();
		front_memory();
		front_features();
		CU_ASSERT_EQUAL(share_memory(), 0);
		want_calls(false);
		request_without_kick();
		front_ring(0);
		wait_used();
		CU_ASSERT_TRUE(called(2));	/* the descriptor was tried, and then the batch */

		want_calls(true);
		CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_CALL, VHU_VRING_NOFD, -1), 0);
		queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
		wait_used();
		CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_CALL, 0, call_fd), 0);
		CU_ASSERT_TRUE(called(1));

		CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ENABLE, &off, sizeof(off), -1), 0);
		queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
		CU_ASSERT_EQUAL(ask_u64(VHU_GET_QUEUE_NUM), 16);
		CU_ASSERT_FALSE(was_used());
		want_calls(true);
		CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ENABLE, &on, sizeof(on), -1), 0);
		CU_ASSERT_TRUE(called(1));
		wait_used();
		front_free();
		device_free();
	}
	event_idx = false;
}

static bool cut_off(void)
{
	char c;

	return recv(sock, &c, 1, 0) == 0;
}

/* R9: each of these costs the front end its connection, and the device serves the next one. */
static void nonsense_ends_the_connection_and_nothing_else(void)
{
	struct msg_hdr_wire huge = { VHU_SET_FEATURES, VHU_VERSION, 1u << 30 };
	struct mem_reg_wire reg = { .region = { GPA, UINT64_MAX - 4096, UVA, 0 } };
	struct config_wire config = { .offset = 200, .size = 100 };
	int pipe_fds[2], fd;

	packed = false;
	device_make();
	CU_ASSERT_EQUAL_FATAL(pipe(pipe_fds), 0);
	fd = memfd_create("small", 0);
	for (int i = 0; i < 6; i++) {
		front_connect();
		if (i == 0)
			CU_ASSERT_EQUAL(send(sock, &huge, sizeof(huge), 0), sizeof(huge));
		if (i == 1)
			send_msg(9999, 0, NULL, 0, -1);
		if (i == 2)	/* not an eventfd: its owner could make us wait */
			send_msg(VHU_SET_VRING_KICK, 0, &(uint64_t){ 0 }, 8, pipe_fds[0]);
		if (i == 3)
			send_msg(VHU_ADD_MEM_REG, 0, &reg, sizeof(reg), fd);
		if (i == 4)
			send_msg(VHU_SET_VRING_NUM, 0, &(struct vring_state_wire){ 99, 16 }, 8, -1);
		if (i == 5)
			send_msg(VHU_GET_CONFIG, 0, &config, sizeof(config), -1);
		CU_ASSERT_TRUE(cut_off());
		close(sock);
		while (atomic_load(&closes) != (unsigned int)i + 1)
			sched_yield();
		CU_ASSERT_EQUAL(closed_end, VHU_END_PROTOCOL);
	}
	close(fd);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	front_start();
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
	front_free();
	device_free();
}

/* A peer that takes its memory away must not end the process that serves the others. */
static void memory_that_shrinks_costs_only_its_owner(void)
{
	for (int format = 0; format < 2; format++) {
		packed = format;
		device_make();
		front_start();
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		CU_ASSERT_EQUAL(ftruncate(mem_fd, 0), 0);
		CU_ASSERT_EQUAL(eventfd_write(kick_fd, 1), 0);
		CU_ASSERT_TRUE(cut_off());
		front_free();
		while (atomic_load(&closes) != 1)
			sched_yield();
		front_start();
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		front_free();
		device_free();
	}
}

static void refused_start_reads_no_descriptor(void)
{
	packed = false;
	device_make();
	start_err = -EBUSY;
	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	send_msg(VHU_SET_VRING_NUM, 0, &(struct vring_state_wire){ 0, QSIZE }, 8, -1);
	send_msg(VHU_SET_VRING_ADDR, 0, &(struct vring_addr_wire){ .desc = UVA + AT_DESC,
		 .avail = UVA + AT_AVAIL, .used = UVA + AT_USED }, 40, -1);
	send_msg(VHU_SET_VRING_ENABLE, 0, &(struct vring_state_wire){ 0, 1 }, 8, -1);
	send_msg(VHU_SET_VRING_KICK, 0, &(uint64_t){ 0 }, 8, kick_fd);
	CU_ASSERT_TRUE(cut_off());
	while (!atomic_load(&closes))
		sched_yield();
	CU_ASSERT_EQUAL(closed_end, VHU_END_REFUSED);
	CU_ASSERT_EQUAL(mem[AT_STATUS], 0xff);
	front_free();
	device_free();
}

/* A front end that has got an area and has not said so yet; maps it. */
static void *area_get(struct inflight_wire *w, int *fd)
{
	void *area;

	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	*w = (struct inflight_wire){ .queue_count = 1, .queue_size = QSIZE };
	send_msg(VHU_GET_INFLIGHT_FD, 0, w, sizeof(*w), -1);
	CU_ASSERT_EQUAL(receive(w, sizeof(*w), fd), sizeof(*w));
	CU_ASSERT_FATAL(*fd >= 0 && w->mmap_size >= 16 + 16 * QSIZE);
	area = mmap(NULL, w->mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(area, MAP_FAILED);
	return area;
}

static void nothing(void *arg)
{
	(void)arg;
}

/* The end of a test that began with area_get(). */
static void area_put(void *area, const struct inflight_wire *w, int fd)
{
	munmap(area, w->mmap_size);
	close(fd);
	front_free();
	device_free();
}

/*
 * The back end died with a request under way: the area says so, the ring does not.  Here the
 * test plays the one that died, and writes the area as it leaves it.
 */
static void request_of_before_a_restart_is_completed(void)
{
	struct inflight_wire w;
	struct inflight_split *s;
	int fd = -1;

	packed = false;
	device_make();
	s = area_get(&w, &fd);
	/* Taken as the first of the ring, not given back. */
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	s->version = 1;
	s->desc_num = QSIZE;
	s->desc[0].inflight = 1;
	s->desc[0].counter = 5;
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	while (!was_used())
		sched_yield();
	next_used++;
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA, "SERIAL", 6), 0);
	/* Once: the ring's own entry of it is not taken again. */
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
	CU_ASSERT_EQUAL(((struct used_wire *)(void *)(mem + AT_USED))->idx, 2);
	reactor_call_sync(r, nothing, NULL);	/* what is given back is noted after that */
	CU_ASSERT_EQUAL(s->used_idx, 2);
	CU_ASSERT_EQUAL(s->desc[0].inflight, 0);
	area_put(s, &w, fd);
}

/* In the ring's second round; within a minute. */
static bool slot_is_given_back(unsigned int slot)
{
	struct packed_desc_wire *ring = (void *)(mem + AT_DESC);

	for (unsigned int i = 0; i < 60000; i++) {
		if (!(__atomic_load_n(&ring[slot].flags, __ATOMIC_ACQUIRE) &
		      (PACKED_F_AVAIL | PACKED_F_USED)))
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * The back end died over a batch of two: the second descriptor says "used" already, the first
 * does not.  When the next one gives the first back, the driver must not believe the second,
 * whose data was not moved.  Here the second can never be done, so it stays in the ring.
 */
static void half_a_batch_of_before_a_restart_is_not_believed(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	uint16_t flags;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	s->version = 1;
	s->desc_num = QSIZE;
	s->free_head = s->old_free_head = 2;
	s->used_wrap_counter = s->old_used_wrap_counter = 1;
	for (uint16_t i = 2; i < QSIZE; i++)
		s->desc[i].next = (uint16_t)(i + 1);	/* the free ones */
	for (uint16_t i = 0; i < 2; i++) {
		s->desc[i] = (struct inflight_packed_desc){
			.inflight = 1, .next = i, .last = i, .num = 1, .counter = i, .id = 7,
			.flags = DESC_F_INDIRECT, .len = 48,
			.addr = i ? GPA + MEM : GPA + AT_TABLE };
	}
	ring[1].flags = PACKED_F_AVAIL | PACKED_F_USED;
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0x80008000u);
	while (!was_used())
		sched_yield();
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	flags = __atomic_load_n(&ring[1].flags, __ATOMIC_ACQUIRE);
	CU_ASSERT_EQUAL(flags & (PACKED_F_AVAIL | PACKED_F_USED), PACKED_F_AVAIL);
	area_put(s, &w, fd);
}

/*
 * All of the ring was given back, and that was not noted yet: the driver has it again, and made its
 * first slot available once more.  Done twice, a request that the driver has got back would be answered
 * in the place of another.
 */
static void what_the_driver_has_got_back_is_not_done_again(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	s->version = 1;
	s->desc_num = QSIZE;
	s->free_head = QSIZE - 1;
	s->old_free_head = QSIZE;
	s->old_used_wrap_counter = 1;
	for (uint16_t i = 0; i < QSIZE; i++) {
		s->desc[i] = (struct inflight_packed_desc){
			.inflight = 1, .next = (uint16_t)(i ? i - 1u : QSIZE), .last = i, .num = 1,
			.counter = i, .id = 7, .flags = DESC_F_INDIRECT, .len = 48,
			.addr = GPA + AT_TABLE };
		ring[i].flags = PACKED_F_AVAIL | PACKED_F_USED;
	}
	wrap = false;
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	CU_ASSERT_TRUE(slot_is_given_back(0));
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	for (uint16_t i = 1; i < QSIZE; i++)
		CU_ASSERT_EQUAL(ring[i].flags, PACKED_F_AVAIL | PACKED_F_USED);
	area_put(s, &w, fd);
}

/* It died while it noted a batch that went around the end: the counter is the new one, the index old. */
static void half_a_note_around_the_end_counts(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	s->version = 1;
	s->desc_num = QSIZE;
	s->used_idx = 2;
	s->old_used_idx = QSIZE - 2;
	for (uint16_t i = 0; i < QSIZE; i++) {
		s->desc[i].next = (uint16_t)(i + 1);
		ring[i].flags = i < 2 ? 0 : PACKED_F_AVAIL | PACKED_F_USED;
	}
	next_avail = 2;
	wrap = false;
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	CU_ASSERT_TRUE(slot_is_given_back(2));
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	area_put(s, &w, fd);
}

/* ---- retiring ---- */

static struct sockaddr_un listen_addr;

static int listening_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	listen_addr.sun_family = AF_UNIX;
	snprintf(listen_addr.sun_path, sizeof(listen_addr.sun_path), "%s/socket", dir);
	unlink(listen_addr.sun_path);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&listen_addr, sizeof(listen_addr)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 4), 0);
	return fd;
}

static int connect_to_it(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!connect(fd, (struct sockaddr *)&listen_addr, sizeof(listen_addr)))
		return fd;
	close(fd);
	return -errno;
}

static void listen_in_reactor(void *arg)
{
	int *fd = arg;

	*fd = vhu_listen(v, *fd);
}

struct retiring {
	bool connect;		/* somebody does, in the very moment */
	int fd, err;
};

static void retire_in_reactor(void *arg)
{
	struct retiring *t = arg;

	t->fd = -1;
	if (t->connect)
		t->fd = connect_to_it();
	t->err = vhu_retire(v);
}

static struct retiring retire(bool connect)
{
	struct retiring t = { .connect = connect };

	reactor_call_sync(r, retire_in_reactor, &t);
	return t;
}

static void listen_now(void)
{
	int fd = listening_socket();

	reactor_call_sync(r, listen_in_reactor, &fd);
	CU_ASSERT_EQUAL_FATAL(fd, 0);
}

/*
 * Whoever connects before the disk is given up is served, whoever comes after is refused: nobody is
 * cut off.
 */
static void a_front_end_that_comes_at_the_last_moment_is_not_cut_off(void)
{
	struct retiring t;
	struct pollfd pfd = { .events = POLLIN };
	int other;

	device_make();
	listen_now();
	t = retire(true);
	CU_ASSERT_EQUAL(t.err, -EAGAIN);
	CU_ASSERT_FATAL(t.fd >= 0);
	sock = t.fd;
	CU_ASSERT_EQUAL(retire(false).err, -EBUSY);
	CU_ASSERT(ask_u64(VHU_GET_FEATURES) != 0);
	/* The new socket is for whoever comes next. */
	listen_now();
	other = connect_to_it();
	CU_ASSERT_FATAL(other >= 0);
	pfd.fd = other;
	CU_ASSERT_EQUAL(retire(false).err, -EBUSY);
	CU_ASSERT_EQUAL(poll(&pfd, 1, 20), 0);
	close(sock);
	sock = other;
	CU_ASSERT(ask_u64(VHU_GET_FEATURES) != 0);
	close(sock);
	while (atomic_load(&closes) < 2)
		sched_yield();
	t = retire(false);
	CU_ASSERT_EQUAL(t.err, 0);
	CU_ASSERT_EQUAL(connect_to_it(), -ECONNREFUSED);
	device_free();
}

/* Sparse, it costs its owner nothing; the addresses would be missing to everybody else. */
static void memory_without_end_is_refused(void)
{
	static const uint64_t sizes[] = { MEM_BYTES_MAX, MEM_BYTES_MAX + 4096, 64 * TIB };
	int fd = memfd_create("endless", 0);

	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, (off_t)(64 * TIB)), 0);
	device_make();
	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	for (unsigned int i = 0; i < 3; i++) {
		struct mem_reg_wire reg = { .region = { 1ULL << 46, sizes[i], 1ULL << 46, 0 } };

		/* The first one would be small enough if it were alone. */
		CU_ASSERT_EQUAL(tell(VHU_ADD_MEM_REG, &reg, sizeof(reg), fd), 1);
	}
	packed = false;
	front_ring(0);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
	close(fd);
	front_free();
	device_free();
}

/* ---- giants ---- */

static struct blk_io *held[QSIZE];
static atomic_uint held_count;

static void hold(struct blkdev *d, struct blk_io **ios, unsigned int count)
{
	(void)d;
	for (unsigned int i = 0; i < count; i++) {
		held[atomic_load(&held_count)] = ios[i];
		atomic_fetch_add(&held_count, 1);
	}
}

/* In the reactor, whose device it is: from now on a disk of 1 TiB that answers when it is told to. */
static void begin_holding(void *arg)
{
	struct blkdev_ops *holding = arg;

	*holding = *dev->ops;
	holding->submit = hold;
	dev->ops = holding;
	dev->info.size = TIB;
	held_count = 0;
}

static void let_go(void *arg)
{
	unsigned int *next = arg;
	struct blk_io *io = held[(*next)++];

	io->done(io, 0);
}

/* A read of @mib MiB, all into the same one. */
static void queue_giant(unsigned int mib)
{
	struct blk_header_wire h = { .type = cpu_to_le32(BLK_T_IN) };
	struct desc_wire *t = (void *)(mem + AT_TABLE);

	memcpy(mem + AT_HEADER, &h, sizeof(h));
	for (unsigned int i = 0; i < mib + 2; i++) {
		bool head = !i, status = i == mib + 1;

		t[i].addr = cpu_to_le64(head ? GPA + AT_HEADER : status ? GPA + AT_STATUS : GPA);
		t[i].len = cpu_to_le32(head ? sizeof(h) : status ? 1 : (uint32_t)MIB);
		t[i].flags = cpu_to_le16((uint16_t)((head ? 0 : DESC_F_WRITE) | (status ? 0 : DESC_F_NEXT)));
		t[i].next = cpu_to_le16((uint16_t)(i + 1));
	}
	put_desc(0, GPA + AT_TABLE, (mib + 2) * 16, DESC_F_INDIRECT, true);
	make_available(0);
}

/* Whoever asks for much at a time waits in his ring: the reactor and the device are others' too. */
static void requests_under_way_are_bounded_in_bytes(void)
{
	struct blkdev_ops holding;
	unsigned int first = 0;

	packed = false;
	device_make();
	reactor_call_sync(r, begin_holding, &holding);
	front_start();
	for (unsigned int i = 0; i < 6; i++)
		queue_giant(64);
	while (atomic_load(&held_count) < 4)
		sched_yield();
	for (unsigned int i = 0; i < 6; i++) {
		reactor_call_sync(r, nothing, NULL);
		CU_ASSERT_EQUAL(atomic_load(&held_count), i < 2 ? 4 + i : 6);
		reactor_call_sync(r, let_go, &first);
		while (i < 2 && atomic_load(&held_count) < 5 + i)
			sched_yield();
	}
	while (__atomic_load_n(&((struct used_wire *)(void *)(mem + AT_USED))->idx, __ATOMIC_ACQUIRE) != 6)
		sched_yield();
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	front_free();
	device_free();
}

UNIT_MAIN("vhost/vhu",
	  UNIT_TEST(requests_under_way_are_bounded_in_bytes),
	  UNIT_TEST(memory_without_end_is_refused),
	  UNIT_TEST(a_front_end_that_comes_at_the_last_moment_is_not_cut_off),
	  UNIT_TEST(requests_of_every_type_on_a_split_ring),
	  UNIT_TEST(requests_of_every_type_on_a_packed_ring),
	  UNIT_TEST(ring_goes_on_where_it_stopped),
	  UNIT_TEST(a_ring_that_starts_misses_nothing),
	  UNIT_TEST(nonsense_ends_the_connection_and_nothing_else),
	  UNIT_TEST(memory_that_shrinks_costs_only_its_owner),
	  UNIT_TEST(refused_start_reads_no_descriptor),
	  UNIT_TEST(request_of_before_a_restart_is_completed),
	  UNIT_TEST(half_a_batch_of_before_a_restart_is_not_believed),
	  UNIT_TEST(what_the_driver_has_got_back_is_not_done_again),
	  UNIT_TEST(half_a_note_around_the_end_counts));
