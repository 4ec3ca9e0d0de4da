/* SPDX-License-Identifier: Apache-2.0 */
/* The polled mode of the file backend: who calls done(), and that no completion is missed. */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "tests/unit.h"

#define SIZE	(4 * MIB)
#define MANY	3000		/* more than the kernel's ring has room for */

static char dir[64];
static char path[96];
static bool collecting;		/* inside poll, submit or close */
static pthread_t owner;
static unsigned int done_count;
static unsigned int misplaced;
static int last_err;

struct request {
	struct blk_io io;
	struct iovec iov;
	unsigned int left;	/* times to submit it again from done() */
};

/* In the place of libaio's: what is left of fs.aio-max-nr, and what was taken of it last. */
static int aio_left = INT_MAX, aio_taken;

int io_setup(int maxevents, io_context_t *ctx)
{
	if (maxevents > aio_left)
		return -EAGAIN;
	aio_taken = maxevents;
	return syscall(SYS_io_setup, maxevents, ctx) ? -errno : 0;
}

/* In the place of libaio's: a request completes when this eventfd is written to, whatever it was. */
static int late_fd = -1;

int io_submit(io_context_t ctx, long count, struct iocb **cbs)
{
	void *data = cbs[0]->data;
	long n;

	if (late_fd >= 0) {
		io_prep_poll(cbs[0], late_fd, POLLIN);
		cbs[0]->data = data;
		count = 1;
	}
	n = syscall(SYS_io_submit, ctx, count, cbs);
	return n < 0 ? -errno : (int)n;
}

static void request_done(struct blk_io *io, int err)
{
	struct request *r = container_of(io, struct request, io);

	if (!collecting || !pthread_equal(pthread_self(), owner))
		misplaced++;
	done_count++;
	last_err = err;
	if (r->left) {
		r->left--;
		blkdev_submit(io->dev, &io, 1);
	}
}

static const char *file_make(const char *base)
{
	int fd;

	snprintf(dir, sizeof(dir), "%s/blkpolled-XXXXXX", base);
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	setenv("LUNFS_LOCK_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/lun.img", dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, SIZE) == 0);
	close(fd);
	return path;
}

static struct blkdev *open_polled(const char *base)
{
	struct blkdev *dev = NULL;
	char why[512];

	CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), file_make(base), 0, &dev, why, sizeof(why)),
			      0);
	CU_ASSERT_EQUAL_FATAL(blkdev_set_polled(dev), 0);
	owner = pthread_self();
	collecting = false;
	done_count = 0;
	misplaced = 0;
	return dev;
}

static void submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	collecting = true;
	blkdev_submit(dev, ios, count);
	collecting = false;
}

static unsigned int poll_once(struct blkdev *dev)
{
	unsigned int n;

	collecting = true;
	n = blkdev_poll(dev);
	collecting = false;
	return n;
}

static void file_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

static void close_polled(struct blkdev *dev)
{
	collecting = true;
	blkdev_close(dev);
	collecting = false;
	file_remove();
	CU_ASSERT_EQUAL(misplaced, 0);
}

static void prepare(struct request *r, enum blk_op op, uint64_t off, void *buf, size_t len)
{
	*r = (struct request){
		.io = { .op = op, .off = off, .len = len, .iov = &r->iov, .iovcnt = 1,
			.done = request_done },
		.iov = { buf, len },
	};
}

/* Collects until @count requests are done, asleep whenever there is nothing to collect. */
static void collect(struct blkdev *dev, unsigned int count)
{
	int epoll_fd = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	CU_ASSERT_EQUAL_FATAL(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, blkdev_poll_fd(dev), &ev), 0);
	while (done_count < count) {
		if (poll_once(dev))
			continue;
		/* A completion without an edge would end the test here. */
		CU_ASSERT_EQUAL_FATAL(epoll_wait(epoll_fd, &ev, 1, 60000), 1);
	}
	close(epoll_fd);
}

static void many_requests(const char *base)
{
	struct blkdev *dev = open_polled(base);
	struct request *rs = calloc(MANY, sizeof(*rs));
	struct blk_io **ios = calloc(MANY, sizeof(struct blk_io *));
	uint8_t *buf = blkdev_alloc(SIZE);
	uint8_t *in = blkdev_alloc(SIZE);

	for (size_t i = 0; i < SIZE; i++)
		buf[i] = (uint8_t)(i * 31 + i / 512);
	for (unsigned int i = 0; i < MANY; i++) {
		uint64_t off = i % 1024 * 4096;

		prepare(&rs[i], i < 1024 ? BLK_WRITE : BLK_READ, off,
			i < 1024 ? buf + off : in + off, 4096);
		ios[i] = &rs[i].io;
	}
	submit(dev, ios, 1024);
	collect(dev, 1024);
	submit(dev, ios + 1024, MANY - 1024);
	collect(dev, MANY);
	CU_ASSERT_EQUAL(done_count, MANY);
	CU_ASSERT_EQUAL(last_err, 0);
	CU_ASSERT_EQUAL(memcmp(in, buf, SIZE), 0);
	CU_ASSERT_EQUAL(poll_once(dev), 0);
	close_polled(dev);
	free(in);
	free(buf);
	free(ios);
	free(rs);
}

static void more_requests_than_the_kernel_takes_complete_once_each(void)
{
	many_requests("/var/tmp");
	many_requests("/dev/shm");
}

/*
 * fs.aio-max-nr is everybody's: a target of many units, or one beside other programs, must come up
 * with what is left of it, and whoever opens many devices must be able to ask for less.
 */
static void little_is_enough_where_others_have_taken_the_rest(void)
{
	struct blkfile_handle h;
	struct blkdev *dev = open_polled("/var/tmp");
	char why[512];

	CU_ASSERT_EQUAL(aio_taken, 1024);
	CU_ASSERT_EQUAL_FATAL(blkfile_handle_open(path, 0, &h, why, sizeof(why)), 0);
	close_polled(dev);
	h.aio_depth = 64;
	CU_ASSERT_EQUAL_FATAL(blkfile_new(env_posix(), &h, &dev), 0);
	CU_ASSERT_EQUAL(blkdev_set_polled(dev), 0);
	CU_ASSERT_EQUAL(aio_taken, 65);
	blkdev_close(dev);
	aio_left = 20;
	many_requests("/var/tmp");
	CU_ASSERT_EQUAL(aio_taken, 17);
	aio_left = 10;
	CU_ASSERT_EQUAL(blkfile_open(env_posix(), file_make("/var/tmp"), 0, &dev, why, sizeof(why)),
			-EAGAIN);
	file_remove();
	aio_left = INT_MAX;
}

/* One at a time, submitted from done(): the way that a queue of depth one goes. */
static void completions_that_come_on_the_way_to_sleep_are_not_missed(void)
{
	struct blkdev *dev = open_polled("/var/tmp");
	uint8_t *buf = blkdev_alloc(8192);
	struct request r[2];
	struct blk_io *ios[2] = { &r[0].io, &r[1].io };

	prepare(&r[0], BLK_READ, 0, buf, 4096);
	prepare(&r[1], BLK_WRITE, 8192, buf + 4096, 4096);
	r[0].left = 1500;
	r[1].left = 700;
	submit(dev, ios, 2);
	collect(dev, 2202);
	close_polled(dev);
	free(buf);
}

static int watch(struct blkdev *dev)
{
	int epoll_fd = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	CU_ASSERT_EQUAL_FATAL(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, blkdev_poll_fd(dev), &ev), 0);
	epoll_wait(epoll_fd, &ev, 1, 0);	/* an edge that may be there from before */
	CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 0), 0);
	return epoll_fd;
}

/* In RAM: an edge for each would cost an eighth of a request. */
static void what_completes_within_submit_makes_no_edge(void)
{
	struct blkdev *dev = open_polled("/dev/shm");
	int epoll_fd = watch(dev);
	uint8_t *buf = blkdev_alloc(8 * 4096);
	struct epoll_event ev;
	struct request r[8];
	struct blk_io *ios[8];

	for (unsigned int i = 0; i < 8; i++) {
		prepare(&r[i], BLK_WRITE, i * 4096, buf + i * 4096, 4096);
		ios[i] = &r[i].io;
	}
	submit(dev, ios, 8);
	CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 0), 0);
	CU_ASSERT_EQUAL(poll_once(dev), 8);
	CU_ASSERT_EQUAL(done_count, 8);
	CU_ASSERT_EQUAL(last_err, 0);
	CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 0), 0);
	close(epoll_fd);
	close_polled(dev);
	free(buf);
}

/* A kernel that does not copy within io_submit() after all: its owner must not sleep for ever. */
static void what_completes_late_without_an_edge_keeps_its_owner_awake(void)
{
	struct blkdev *dev = open_polled("/dev/shm");
	int epoll_fd = watch(dev);
	uint8_t *buf = blkdev_alloc(4096);
	struct epoll_event ev;
	struct request r;
	struct blk_io *io = &r.io;
	uint64_t one = 1;

	prepare(&r, BLK_WRITE, 0, buf, 4096);
	late_fd = eventfd(0, 0);
	submit(dev, &io, 1);
	for (unsigned int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 10000), 1);
		CU_ASSERT_EQUAL(poll_once(dev), 0);
	}
	CU_ASSERT_EQUAL(write(late_fd, &one, sizeof(one)), sizeof(one));
	CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 10000), 1);
	CU_ASSERT_EQUAL(poll_once(dev), 1);
	CU_ASSERT_EQUAL(last_err, -EIO);	/* not as long as a write */
	close(late_fd);
	late_fd = -1;
	close(epoll_fd);
	close_polled(dev);
	free(buf);
}

/* Flush, zero, discard and CAW run elsewhere; their results come like the others'. */
static void slow_requests_complete_in_poll_too(void)
{
	struct blkdev *dev = open_polled("/var/tmp");
	uint8_t *buf = blkdev_alloc(8192);
	struct request r;
	struct iovec iov[2] = { { buf, 512 }, { buf + 4096, 512 } };
	struct blk_io *io = &r.io;

	memset(buf + 4096, 'n', 4096);
	prepare(&r, BLK_FLUSH, 0, NULL, 0);
	r.left = 50;
	submit(dev, &io, 1);
	collect(dev, 51);
	CU_ASSERT_EQUAL(last_err, 0);
	prepare(&r, BLK_ZERO, 4096, NULL, 4096);
	submit(dev, &io, 1);
	collect(dev, 52);
	CU_ASSERT_EQUAL(last_err, 0);
	prepare(&r, BLK_CAW, 4096, NULL, 512);
	r.io.iov = iov;
	r.io.iovcnt = 2;
	submit(dev, &io, 1);
	collect(dev, 53);
	CU_ASSERT_EQUAL(last_err, 0);
	submit(dev, &io, 1);
	collect(dev, 54);
	CU_ASSERT_EQUAL(last_err, -EILSEQ);
	prepare(&r, BLK_READ, SIZE, buf, 4096);
	submit(dev, &io, 1);
	CU_ASSERT_EQUAL(last_err, -EINVAL);
	close_polled(dev);
	free(buf);
}

/* Else a request's memory would be freed while the kernel still writes to it. */
static void close_completes_what_is_under_way(void)
{
	struct blkdev *dev = open_polled("/var/tmp");
	struct request *rs = calloc(64, sizeof(*rs));
	struct blk_io *ios[64];
	uint8_t *buf = blkdev_alloc(64 * 4096);

	for (unsigned int i = 0; i < 64; i++) {
		prepare(&rs[i], i % 8 ? BLK_READ : BLK_FLUSH, i * 4096, buf + i * 4096,
			i % 8 ? 4096 : 0);
		ios[i] = &rs[i].io;
	}
	submit(dev, ios, 64);
	close_polled(dev);
	CU_ASSERT_EQUAL(done_count, 64);
	free(buf);
	free(rs);
}

struct other {
	struct blkdev *dev;
	int err;
};

static void *other_main(void *arg)
{
	struct other *o = arg;
	uint8_t *buf = blkdev_alloc(4096);

	o->err = blkdev_read(o->dev, 0, buf, 4096);
	free(buf);
	blkdev_wake(o->dev);
	return NULL;
}

/* Workers read and write the same device, waiting; and they wake its owner. */
static void other_threads_may_wait_for_requests_and_wake_the_owner(void)
{
	struct blkdev *dev = open_polled("/var/tmp");
	struct other o = { .dev = dev, .err = -1 };
	struct epoll_event ev;
	int epoll_fd = watch(dev);
	pthread_t thread;

	pthread_create(&thread, NULL, other_main, &o);
	CU_ASSERT_EQUAL(epoll_wait(epoll_fd, &ev, 1, 60000), 1);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(o.err, 0);
	CU_ASSERT_EQUAL(poll_once(dev), 0);
	close(epoll_fd);
	close_polled(dev);
}

UNIT_MAIN("block/blkfile, polled",
	  UNIT_TEST(more_requests_than_the_kernel_takes_complete_once_each),
	  UNIT_TEST(completions_that_come_on_the_way_to_sleep_are_not_missed),
	  UNIT_TEST(little_is_enough_where_others_have_taken_the_rest),
	  UNIT_TEST(what_completes_within_submit_makes_no_edge),
	  UNIT_TEST(what_completes_late_without_an_edge_keeps_its_owner_awake),
	  UNIT_TEST(slow_requests_complete_in_poll_too),
	  UNIT_TEST(close_completes_what_is_under_way),
	  UNIT_TEST(other_threads_may_wait_for_requests_and_wake_the_owner));
