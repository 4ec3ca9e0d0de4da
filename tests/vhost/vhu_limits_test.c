/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the back end one front end may have, and when it comes too late. */
#include "tests/vhost/vhu_rig.h"

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

UNIT_MAIN("vhost/vhu_limits",
	  UNIT_TEST(requests_under_way_are_bounded_in_bytes),
	  UNIT_TEST(memory_without_end_is_refused),
	  UNIT_TEST(a_front_end_that_comes_at_the_last_moment_is_not_cut_off));
