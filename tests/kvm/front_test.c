/* SPDX-License-Identifier: Apache-2.0 */
/* The front end against a scripted back end, honest and not. */
#include "kvm/front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit.h"
#include "vhost/proto.h"
#include "vhost/virtio.h"

#define RAM		(64ull << 20)
#define WAIT_MS		60000	/* only what hangs takes that long */
#define BACK_FEATURES	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VHU_F_PROTOCOL_FEATURES) | \
			 FEATURE(BLK_F_FLUSH) | FEATURE(VIRTIO_F_RING_PACKED))
#define BACK_PROTOCOL	(FEATURE(VHU_PF_CONFIG) | FEATURE(VHU_PF_MQ) | FEATURE(VHU_PF_BACKEND_REQ) | \
			 FEATURE(VHU_PF_INFLIGHT_SHMFD) | FEATURE(VHU_PF_REPLY_ACK))
#define DISK_FEATURES	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(BLK_F_FLUSH))

static struct reactor *r;
static struct vm_memory m;
static int kicks[2], calls[2];
static struct front *f;
static int sock;		/* the back end's end */
static int backward;		/* what it was given to say something by itself */
static struct vhu_msg in;

/* What the front end told its owner; pipes, so that it can be waited for. */
static int ready_fd, changed_fd, lost_fd, broken_fd, done_fd;
static char broken_why[256];

static void on_ready(struct front *front, void *arg)
{
	(void)front;
	(void)arg;
	eventfd_write(ready_fd, 1);
}

static void on_changed(struct front *front, void *arg)
{
	(void)front;
	(void)arg;
	eventfd_write(changed_fd, 1);
}

static void on_lost(struct front *front, void *arg)
{
	(void)front;
	(void)arg;
	eventfd_write(lost_fd, 1);
}

static void on_broken(struct front *front, void *arg, const char *why)
{
	(void)front;
	(void)arg;
	snprintf(broken_why, sizeof(broken_why), "%s", why);
	eventfd_write(broken_fd, 1);
}

static void on_done(void *arg)
{
	(void)arg;
	eventfd_write(done_fd, 1);
}

static const struct front_ops ops = { on_ready, on_changed, on_lost, on_broken };

static bool happens(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	eventfd_t count;

	return poll(&p, 1, WAIT_MS) == 1 && !eventfd_read(fd, &count);
}

static bool has_happened(int fd)
{
	eventfd_t count;

	return !eventfd_read(fd, &count);
}

/* ---- calls into the reactor ---- */

static void do_new(void *arg)
{
	const struct front_params p = {
		.reactor = r, .memory = &m, .ops = &ops, .queues_max = 2,
		.features = DISK_FEATURES, .kick_fds = kicks, .call_fds = calls,
	};

	(void)arg;
	CU_ASSERT_EQUAL_FATAL(front_new(&p, &f), 0);
}

static void do_attach(void *arg)
{
	CU_ASSERT_EQUAL(front_attach(f, *(int *)arg), 0);
}

static void do_run(void *arg)
{
	static const struct front_queue q[2] = {
		{ true, 128, 0x100000, 0x101000, 0x102000 }, { .ready = false },
	};

	(void)arg;
	front_run(f, q, DISK_FEATURES);
}

static void do_pause(void *arg)
{
	(void)arg;
	front_halt(f, false, on_done, NULL);
}

static void do_reset(void *arg)
{
	(void)arg;
	front_halt(f, true, on_done, NULL);
}

static void do_resume(void *arg)
{
	(void)arg;
	front_resume(f);
}

static void do_close(void *arg)
{
	(void)arg;
	front_close(f);
}

/* ---- the back end ---- */

static void attach(void)
{
	int sv[2];

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	sock = sv[0];
	reactor_call_sync(r, do_attach, &sv[1]);
}

static void drop_fds(void)
{
	for (unsigned int i = 0; i < in.fd_count; i++)
		close(in.fds[i]);
	in.fd_count = 0;
}

/* The next message, whatever it is; its number, or 0. */
static uint32_t take(void)
{
	union { char b[CMSG_SPACE(8 * sizeof(int))]; struct cmsghdr align; } control;
	struct iovec iov = { &in.hdr, sizeof(in.hdr) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.b,
			     .msg_controllen = sizeof(control.b) };
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct cmsghdr *cm;

	drop_fds();
	memset(&in, 0, sizeof(in));
	if (poll(&p, 1, WAIT_MS) != 1 || recvmsg(sock, &mh, 0) != sizeof(in.hdr))
		return 0;
	cm = CMSG_FIRSTHDR(&mh);
	if (cm) {
		in.fd_count = (unsigned int)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(in.fds, CMSG_DATA(cm), in.fd_count * sizeof(int));
	}
	if (in.hdr.size && recv(sock, in.p.bytes, in.hdr.size, MSG_WAITALL) != in.hdr.size)
		return 0;
	return in.hdr.request;
}

static void answer(uint32_t request, const void *payload, uint32_t size, int fd)
{
	struct msg_hdr_wire hdr = { request, VHU_VERSION | VHU_FLAG_REPLY, size };
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { (void *)(uintptr_t)payload, size } };
	union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		mh.msg_control = control.b;
		mh.msg_controllen = sizeof(control.b);
		control.align = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), &fd, sizeof(fd));
	}
	CU_ASSERT(sendmsg(sock, &mh, MSG_NOSIGNAL) == (ssize_t)(sizeof(hdr) + size));
}

static void answer_u64(uint32_t request, uint64_t v)
{
	answer(request, &v, sizeof(v), -1);
}

static void answer_config(uint64_t sectors)
{
	struct config_wire c = { .size = FRONT_CONFIG_SIZE };

	memcpy(c.bytes, &sectors, sizeof(sectors));
	answer(VHU_GET_CONFIG, &c, 12 + FRONT_CONFIG_SIZE, -1);
}

/* A greeting as it should be; @sectors large. */
static void greet(uint64_t sectors)
{
	CU_ASSERT_EQUAL_FATAL(take(), VHU_GET_FEATURES);
	answer_u64(VHU_GET_FEATURES, BACK_FEATURES);
	CU_ASSERT_EQUAL(take(), VHU_GET_PROTOCOL_FEATURES);
	answer_u64(VHU_GET_PROTOCOL_FEATURES, BACK_PROTOCOL);
	CU_ASSERT_EQUAL(take(), VHU_SET_PROTOCOL_FEATURES);
	CU_ASSERT_EQUAL(in.p.u64 & ~BACK_PROTOCOL, 0);
	CU_ASSERT_EQUAL(take(), VHU_SET_OWNER);
	CU_ASSERT_EQUAL(take(), VHU_SET_BACKEND_REQ_FD);
	CU_ASSERT_EQUAL(in.fd_count, 1);
	close(backward);
	backward = in.fds[0];
	in.fd_count = 0;
	CU_ASSERT_EQUAL(take(), VHU_GET_QUEUE_NUM);
	answer_u64(VHU_GET_QUEUE_NUM, 16);
	CU_ASSERT_EQUAL(take(), VHU_GET_CONFIG);
	answer_config(sectors);
}

static int inflight_memory(void)
{
	int fd = memfd_create("inflight", 0);

	CU_ASSERT_FATAL(fd >= 0 && !ftruncate(fd, 8192));
	return fd;
}

static void give_inflight(void)
{
	struct inflight_wire w = { 8192, 0, 2, MMIO_QUEUE_SIZE_MAX, 0 };
	int fd = inflight_memory();

	CU_ASSERT_EQUAL(take(), VHU_GET_INFLIGHT_FD);
	CU_ASSERT_EQUAL(in.p.inflight.queue_count, 2);
	answer(VHU_GET_INFLIGHT_FD, &w, sizeof(w), fd);
	close(fd);
}

/* What starts the one queue; @base is where it goes on. */
static void expect_start(uint32_t base)
{
	CU_ASSERT_EQUAL(take(), VHU_SET_FEATURES);
	CU_ASSERT_EQUAL(in.p.u64, DISK_FEATURES | FEATURE(VHU_F_PROTOCOL_FEATURES));
	CU_ASSERT_EQUAL(take(), VHU_SET_INFLIGHT_FD);
	CU_ASSERT_EQUAL(in.fd_count, 1);
	CU_ASSERT_EQUAL(in.p.inflight.mmap_size, 8192);
	CU_ASSERT_EQUAL(take(), VHU_SET_MEM_TABLE);
	CU_ASSERT(in.fd_count == 1 && in.p.mem.count == 1 && in.p.mem.regions[0].size == RAM);
	CU_ASSERT_EQUAL(in.p.mem.regions[0].user_addr, (uintptr_t)m.base);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_NUM);
	CU_ASSERT_EQUAL(in.p.state.num, 128);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_BASE);
	CU_ASSERT_EQUAL(in.p.state.num, base);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_ADDR);
	CU_ASSERT_EQUAL(in.p.addr.used, (uintptr_t)m.base + 0x102000);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_CALL);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_KICK);
	CU_ASSERT_EQUAL(in.fd_count, 1);
	CU_ASSERT_EQUAL(take(), VHU_SET_VRING_ENABLE);
	CU_ASSERT_EQUAL(in.p.state.num, 1);
	CU_ASSERT(happens(kicks[0]));	/* what came meanwhile is looked for */
}

static void begin(void)
{
	broken_why[0] = '\0';
	reactor_call_sync(r, do_new, NULL);
	attach();
}

static void end(void)
{
	reactor_call_sync(r, do_close, NULL);
	close(sock);
	has_happened(ready_fd);
	has_happened(changed_fd);
	has_happened(lost_fd);
	has_happened(broken_fd);
	has_happened(done_fd);
}

static void begin_running(void)
{
	begin();
	greet(1000);
	CU_ASSERT_FATAL(happens(ready_fd));
	reactor_call_sync(r, do_run, NULL);
	give_inflight();
	expect_start(0);
}

/* ---- tests ---- */

static void greeting_tells_what_the_disk_is(void)
{
	uint64_t sectors;

	begin();
	greet(1234);
	CU_ASSERT_FATAL(happens(ready_fd));
	CU_ASSERT_EQUAL(front_features(f), DISK_FEATURES);	/* no packed rings */
	CU_ASSERT_EQUAL(front_queue_count(f), 2);
	memcpy(&sectors, front_config(f), sizeof(sectors));
	CU_ASSERT_EQUAL(sectors, 1234);
	CU_ASSERT_EQUAL(front_state(f), FRONT_IDLE);
	end();
}

static void a_reset_takes_the_queues_back_first(void)
{
	begin_running();
	reactor_call_sync(r, do_reset, NULL);
	CU_ASSERT_EQUAL(take(), VHU_GET_VRING_BASE);
	CU_ASSERT_FALSE(has_happened(done_fd));		/* it still touches the guest's memory */
	answer(VHU_GET_VRING_BASE, &(struct vring_state_wire){ 0, 17 }, 8, -1);
	CU_ASSERT(happens(done_fd));
	/* The next driver begins with an account of its own. */
	reactor_call_sync(r, do_run, NULL);
	give_inflight();
	expect_start(0);
	end();
}

static void a_pause_goes_on_where_it_stopped(void)
{
	begin_running();
	reactor_call_sync(r, do_pause, NULL);
	CU_ASSERT_EQUAL(take(), VHU_GET_VRING_BASE);
	answer(VHU_GET_VRING_BASE, &(struct vring_state_wire){ 0, 4711 }, 8, -1);
	CU_ASSERT(happens(done_fd));
	reactor_call_sync(r, do_resume, NULL);
	expect_start(4711);
	end();
}

/*
 * The daemon was killed: requests that it had taken are in the in-flight memory, and the rest
 * begins behind what was given back.
 */
static void a_back_end_that_comes_back_gets_what_was_under_way(void)
{
	struct used_wire *used = memory_at(&m, 0x102000, sizeof(*used));

	begin_running();
	__atomic_store_n(&used->idx, 77, __ATOMIC_RELEASE);
	close(sock);
	CU_ASSERT(happens(lost_fd));
	CU_ASSERT_EQUAL(front_state(f), FRONT_AWAY);
	attach();
	greet(1000);
	expect_start(77);
	__atomic_store_n(&used->idx, 0, __ATOMIC_RELEASE);
	end();
}

/* Nobody will ever answer for the queues of a daemon that is gone: a reset must not wait. */
static void a_reset_ends_when_the_back_end_does(void)
{
	begin_running();
	reactor_call_sync(r, do_reset, NULL);
	CU_ASSERT_EQUAL(take(), VHU_GET_VRING_BASE);
	close(sock);
	CU_ASSERT(happens(done_fd));
	CU_ASSERT(happens(lost_fd));
	attach();
	greet(1000);
	CU_ASSERT(happens(changed_fd));
	reactor_call_sync(r, do_reset, NULL);
	CU_ASSERT(happens(done_fd));
	end();
}

static void a_pause_while_it_is_away_is_kept(void)
{
	begin_running();
	close(sock);
	CU_ASSERT(happens(lost_fd));
	reactor_call_sync(r, do_pause, NULL);
	CU_ASSERT(happens(done_fd));
	attach();
	greet(1000);
	CU_ASSERT(happens(changed_fd));
	CU_ASSERT_EQUAL(front_state(f), FRONT_IDLE);
	reactor_call_sync(r, do_resume, NULL);
	expect_start(0);
	end();
}

/* Without an account of requests under way nobody could tell which of them were done. */
static void without_inflight_memory_a_loss_is_final(void)
{
	begin();
	CU_ASSERT_EQUAL(take(), VHU_GET_FEATURES);
	answer_u64(VHU_GET_FEATURES, BACK_FEATURES);
	CU_ASSERT_EQUAL(take(), VHU_GET_PROTOCOL_FEATURES);
	answer_u64(VHU_GET_PROTOCOL_FEATURES, FEATURE(VHU_PF_CONFIG));
	CU_ASSERT_EQUAL(take(), VHU_SET_PROTOCOL_FEATURES);
	CU_ASSERT_EQUAL(take(), VHU_SET_OWNER);
	CU_ASSERT_EQUAL(take(), VHU_GET_CONFIG);
	answer_config(1000);
	CU_ASSERT(happens(ready_fd));
	CU_ASSERT_EQUAL(front_queue_count(f), 1);
	reactor_call_sync(r, do_run, NULL);
	CU_ASSERT_EQUAL(take(), VHU_SET_FEATURES);
	close(sock);
	CU_ASSERT(happens(broken_fd));
	CU_ASSERT_PTR_NOT_NULL(strstr(broken_why, "INFLIGHT"));
	end();
}

static void a_disk_that_grew_is_noticed(void)
{
	struct msg_hdr_wire hdr = { VHU_BACKEND_CONFIG_CHANGE, VHU_VERSION, 0 };
	uint64_t sectors;

	begin_running();
	CU_ASSERT_EQUAL(write(backward, &hdr, sizeof(hdr)), sizeof(hdr));
	CU_ASSERT_EQUAL(take(), VHU_GET_CONFIG);
	answer_config(2000);
	CU_ASSERT(happens(changed_fd));
	memcpy(&sectors, front_config(f), sizeof(sectors));
	CU_ASSERT_EQUAL(sectors, 2000);
	end();
}

static void another_disk_than_before_is_refused(void)
{
	begin_running();
	close(sock);
	CU_ASSERT(happens(lost_fd));
	attach();
	greet(999);
	CU_ASSERT(happens(broken_fd));
	CU_ASSERT_PTR_NOT_NULL(strstr(broken_why, "smaller"));
	end();
	begin_running();
	close(sock);
	CU_ASSERT(happens(lost_fd));
	attach();
	CU_ASSERT_EQUAL(take(), VHU_GET_FEATURES);
	answer_u64(VHU_GET_FEATURES, BACK_FEATURES & ~FEATURE(BLK_F_FLUSH));
	CU_ASSERT(happens(broken_fd));
	end();
}

/* A back end is another process, and may be anybody's: it is believed nothing (R9). */
static void hostile_answers_end_it(void)
{
	struct config_wire c = { .size = FRONT_CONFIG_SIZE };

	for (unsigned int i = 0; i < 11; i++) {
		struct msg_hdr_wire hdr = { VHU_GET_FEATURES, VHU_VERSION | VHU_FLAG_REPLY, 8 };

		begin();
		CU_ASSERT_EQUAL(take(), VHU_GET_FEATURES);
		switch (i) {
		case 0:		/* another answer than was asked for */
			answer_u64(VHU_GET_QUEUE_NUM, 1);
			break;
		case 1:		/* short */
			answer(VHU_GET_FEATURES, &hdr, 4, -1);
			break;
		case 2:		/* long */
			answer(VHU_GET_FEATURES, &c, 200, -1);
			break;
		case 3:		/* longer than any message */
			hdr.size = UINT32_MAX;
			CU_ASSERT_EQUAL(write(sock, &hdr, sizeof(hdr)), sizeof(hdr));
			break;
		case 4:		/* another version */
			hdr.flags = 2 | VHU_FLAG_REPLY;
			CU_ASSERT_EQUAL(write(sock, &hdr, sizeof(hdr)), sizeof(hdr));
			break;
		case 5:		/* no reply at all */
			hdr.flags = VHU_VERSION;
			hdr.size = 0;
			CU_ASSERT_EQUAL(write(sock, &hdr, sizeof(hdr)), sizeof(hdr));
			break;
		case 6:		/* a device of before 1.0 */
			answer_u64(VHU_GET_FEATURES, FEATURE(VHU_F_PROTOCOL_FEATURES));
			break;
		case 7:		/* no configuration */
			answer_u64(VHU_GET_FEATURES, BACK_FEATURES);
			take();
			answer_u64(VHU_GET_PROTOCOL_FEATURES, FEATURE(VHU_PF_MQ));
			break;
		default:	/* no queues; half a configuration; two numbers for one */
			answer_u64(VHU_GET_FEATURES, BACK_FEATURES);
			take();
			answer_u64(VHU_GET_PROTOCOL_FEATURES, FEATURE(VHU_PF_MQ) | FEATURE(VHU_PF_CONFIG));
			take();
			take();
			CU_ASSERT_EQUAL(take(), VHU_GET_QUEUE_NUM);
			if (i == 10)
				answer(VHU_GET_QUEUE_NUM, (const uint64_t[]){ 4, 4 }, 16, -1);
			else
				answer_u64(VHU_GET_QUEUE_NUM, i == 8 ? 0 : 4);
			if (i != 9)
				break;
			CU_ASSERT_EQUAL(take(), VHU_GET_CONFIG);
			answer(VHU_GET_CONFIG, &c, 12 + 8, -1);
		}
		CU_ASSERT(happens(broken_fd));
		CU_ASSERT_FALSE(has_happened(ready_fd));
		end();
	}
}

static void hostile_inflight_memory_ends_it(void)
{
	static const struct inflight_wire bad[] = {
		{ 8193, 0, 2, MMIO_QUEUE_SIZE_MAX, 0 }, { 8192, 1, 2, MMIO_QUEUE_SIZE_MAX, 0 },
		{ 1, UINT64_MAX, 2, MMIO_QUEUE_SIZE_MAX, 0 }, { 8192, 0, 1, MMIO_QUEUE_SIZE_MAX, 0 },
		{ 8192, 0, 2, 1, 0 },
	};

	for (unsigned int i = 0; i <= ARRAY_SIZE(bad); i++) {
		/* The last one would do, but for its descriptor, which is not there. */
		struct inflight_wire w = i < ARRAY_SIZE(bad) ? bad[i] :
					 (struct inflight_wire){ 0, 0, 2, MMIO_QUEUE_SIZE_MAX, 0 };
		int fd = i < ARRAY_SIZE(bad) ? inflight_memory() : -1;

		begin();
		greet(1000);
		CU_ASSERT(happens(ready_fd));
		reactor_call_sync(r, do_run, NULL);
		CU_ASSERT_EQUAL(take(), VHU_GET_INFLIGHT_FD);
		answer(VHU_GET_INFLIGHT_FD, &w, sizeof(w), fd);
		CU_ASSERT(happens(broken_fd));
		if (fd >= 0)
			close(fd);
		end();
	}
}

static unsigned int count_open(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* A descriptor with each byte of an answer: more than a message may have, and each must be closed again. */
static void more_descriptors_than_a_message_takes_are_closed(void)
{
	struct { struct msg_hdr_wire hdr; uint64_t v; } __attribute__((packed)) all = {
		{ VHU_GET_FEATURES, VHU_VERSION | VHU_FLAG_REPLY, 8 }, BACK_FEATURES,
	};
	unsigned int before = count_open();

	begin();
	CU_ASSERT_EQUAL(take(), VHU_GET_FEATURES);
	for (size_t i = 0; i < sizeof(all); i++) {
		union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
		struct iovec iov = { (char *)&all + i, 1 };
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.b,
				     .msg_controllen = sizeof(control.b) };

		control.align = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), &sock, sizeof(sock));
		CU_ASSERT_EQUAL(sendmsg(sock, &mh, MSG_NOSIGNAL), 1);
	}
	CU_ASSERT_EQUAL(take(), VHU_GET_PROTOCOL_FEATURES);
	end();
	CU_ASSERT_EQUAL(count_open(), before);
}

static void a_base_of_another_queue_ends_it(void)
{
	begin_running();
	reactor_call_sync(r, do_pause, NULL);
	CU_ASSERT_EQUAL(take(), VHU_GET_VRING_BASE);
	answer(VHU_GET_VRING_BASE, &(struct vring_state_wire){ 1, 0 }, 8, -1);
	CU_ASSERT(happens(broken_fd));
	CU_ASSERT(happens(done_fd));	/* whoever waited is told */
	end();
}

static CU_TestInfo tests[] = {
	UNIT_TEST(greeting_tells_what_the_disk_is),
	UNIT_TEST(a_reset_takes_the_queues_back_first),
	UNIT_TEST(a_pause_goes_on_where_it_stopped),
	UNIT_TEST(a_back_end_that_comes_back_gets_what_was_under_way),
	UNIT_TEST(a_reset_ends_when_the_back_end_does),
	UNIT_TEST(a_pause_while_it_is_away_is_kept),
	UNIT_TEST(without_inflight_memory_a_loss_is_final),
	UNIT_TEST(a_disk_that_grew_is_noticed),
	UNIT_TEST(another_disk_than_before_is_refused),
	UNIT_TEST(hostile_answers_end_it),
	UNIT_TEST(more_descriptors_than_a_message_takes_are_closed),
	UNIT_TEST(hostile_inflight_memory_ends_it),
	UNIT_TEST(a_base_of_another_queue_ends_it),
	CU_TEST_INFO_NULL,
};

static int setup(void)
{
	int *fds[] = { &kicks[0], &kicks[1], &calls[0], &calls[1], &ready_fd, &changed_fd, &lost_fd,
		       &broken_fd, &done_fd };

	backward = -1;
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		*fds[i] = eventfd(0, EFD_NONBLOCK);
	if (memory_create(RAM, &m))
		return 1;
	return reactor_create(env_posix(), "test", 0, 4, &r) != 0;
}

static int teardown(void)
{
	reactor_destroy(r);
	memory_destroy(&m);
	return 0;
}

int main(void)
{
	return unit_run("front", setup, teardown, tests);
}
