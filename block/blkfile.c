/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/*
 * Asynchronous reads and writes go through libaio; one thread collects their completions.
 * What Linux has no asynchronous call for (flush, discard, zero, compare-and-write) goes to a
 * second thread.  Requests that somebody waits for anyway run in the waiter's own thread.
 */
#define AIO_DEPTH	256
#define REAP_BATCH	64
#define CAW_LOCKS	64	/* mutexes over the sectors, by hash */
#define CAW_WAIT_NS	(500 * NSEC_PER_MSEC)

struct file_dev {
	struct blkdev	dev;
	int		fd;
	int		lock_fd;
	bool		is_block;
	io_context_t	aio;
	pthread_t	reaper;
	pthread_t	slow;

	pthread_mutex_t	mutex;		/* everything below */
	pthread_cond_t	changed;
	struct list	slow_queue;
	struct list	waiting;	/* for a place in the ring of AIO_DEPTH */
	unsigned int	in_flight;	/* submitted to the kernel */
	unsigned int	outstanding;	/* accepted and not yet completed, of either kind */
	bool		stopping;

	/*
	 * An open-file-description lock excludes other descriptions (other handles, other
	 * processes), not other threads of this one: these do.
	 */
	pthread_mutex_t	caw_mutex[CAW_LOCKS];
};

static struct file_dev *file_dev(struct blkdev *dev)
{
	return container_of(dev, struct file_dev, dev);
}

/* ---- in the calling thread ---- */

static int sync_rw(struct file_dev *f, const struct blk_io *io)
{
	int flags = io->op == BLK_WRITE && (io->flags & BLK_FUA) ? RWF_DSYNC : 0;
	ssize_t n;

	do {
		n = io->op == BLK_READ ?
		    preadv2(f->fd, io->iov, io->iovcnt, (off_t)io->off, 0) :
		    pwritev2(f->fd, io->iov, io->iovcnt, (off_t)io->off, flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EINVAL ? -EIO : -errno;
	/* Inside the device a short transfer is a device that shrank or failed half-way. */
	return (uint64_t)n == io->len ? 0 : -EIO;
}

static int sync_flush(struct file_dev *f)
{
	return fdatasync(f->fd) ? -errno : 0;
}

static int sync_discard(struct file_dev *f, const struct blk_io *io)
{
	uint64_t range[2] = { io->off, io->len };
	int err;

	if (f->is_block)
		err = ioctl(f->fd, BLKDISCARD, range);
	else
		err = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)io->off, (off_t)io->len);
	if (err)
		return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
	return 0;
}

static int sync_zero(struct file_dev *f, const struct blk_io *io)
{
	uint64_t range[2] = { io->off, io->len };
	int err;

	if (f->is_block)
		err = ioctl(f->fd, BLKZEROOUT, range);
	else
		err = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)io->off, (off_t)io->len);
	if (err)
		return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
	return io->flags & BLK_FUA ? sync_flush(f) : 0;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/*
 * Takes or gives up the range of the lock file that stands for the sector at @off.  A process
 * that was stopped in the middle holds it: then -EBUSY after a while, so that nobody waits
 * for the dead (docs/LOCKING.md, "Fencing ladder").
 */
static int caw_range_lock(struct file_dev *f, uint64_t off, short type)
{
	struct flock fl = {
		.l_type = type, .l_whence = SEEK_SET,
		.l_start = (off_t)off, .l_len = (off_t)f->dev.info.sector,
	};
	struct timespec pause = { .tv_nsec = 50000 };
	uint64_t deadline = monotonic_ns() + CAW_WAIT_NS;

	while (fcntl(f->lock_fd, F_OFD_SETLK, &fl)) {
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return -errno;
		if (monotonic_ns() > deadline)
			return -EBUSY;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 2000000)
			pause.tv_nsec *= 2;
	}
	return 0;
}

/* Read, compare, write: with the sector's range locked against every other handle. */
static int caw_locked(struct file_dev *f, const struct blk_io *io)
{
	void *found = blkdev_alloc(io->len);
	struct iovec iov = { .iov_base = found, .iov_len = io->len };
	struct blk_io step = { .op = BLK_READ, .off = io->off, .len = io->len, .iov = &iov,
			       .iovcnt = 1 };
	int err;

	if (!found)
		return -EBUSY;
	err = sync_rw(f, &step);
	if (err) {
		err = -EBUSY;	/* nothing was written: not unclear */
	} else if (memcmp(found, io->iov[0].iov_base, io->len) != 0) {
		err = -EILSEQ;
	} else {
		/*
		 * Not flushed: what a crash of this machine could lose is lost with every host
		 * that knew of it, and lockd flushes what must not go back (R5).
		 */
		step.op = BLK_WRITE;
		step.iov = &io->iov[1];
		err = sync_rw(f, &step);
	}
	free(found);
	return err;
}

static int sync_caw(struct file_dev *f, const struct blk_io *io)
{
	uint64_t sector = io->off / f->dev.info.sector;
	pthread_mutex_t *mutex = &f->caw_mutex[sector % CAW_LOCKS];
	int err;

	pthread_mutex_lock(mutex);
	err = caw_range_lock(f, io->off, F_WRLCK);
	if (!err) {
		err = caw_locked(f, io);
		caw_range_lock(f, io->off, F_UNLCK);
	}
	pthread_mutex_unlock(mutex);
	return err;
}

static int file_run(struct blkdev *dev, struct blk_io *io)
{
	struct file_dev *f = file_dev(dev);

	switch (io->op) {
	case BLK_READ:
	case BLK_WRITE:
		return sync_rw(f, io);
	case BLK_FLUSH:
		return sync_flush(f);
	case BLK_DISCARD:
		return sync_discard(f, io);
	case BLK_ZERO:
		return sync_zero(f, io);
	case BLK_CAW:
		return dev->info.caw == BLK_CAW_LOCAL ? sync_caw(f, io) : -ENOTSUP;
	}
	return -EINVAL;
}

/* ---- asynchronous ---- */

/* The kernel orders io_submit() before io_getevents(); ThreadSanitizer cannot see that. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define kernel_takes(io)	__tsan_release(io)
#define kernel_returns(io)	__tsan_acquire(io)
#else
#define kernel_takes(io)	((void)(io))
#define kernel_returns(io)	((void)(io))
#endif

/* The kernel's control block lies in the request itself: nothing is allocated. */
struct file_priv {
	struct iocb iocb;
};
static_assert(sizeof(struct file_priv) <= sizeof(((struct blk_io *)NULL)->priv),
	      "a request holds the kernel's control block");

static struct iocb *io_iocb(struct blk_io *io)
{
	return &((struct file_priv *)(void *)io->priv)->iocb;
}

static void prepare_iocb(struct file_dev *f, struct blk_io *io)
{
	struct iocb *cb = io_iocb(io);

	if (io->op == BLK_READ)
		io_prep_preadv(cb, f->fd, io->iov, io->iovcnt, (long long)io->off);
	else
		io_prep_pwritev(cb, f->fd, io->iov, io->iovcnt, (long long)io->off);
	if (io->op == BLK_WRITE && (io->flags & BLK_FUA))
		cb->aio_rw_flags = RWF_DSYNC;
	cb->data = io;
}

static void finish(struct file_dev *f, struct blk_io *io, int err)
{
	io->done(io, err);
	pthread_mutex_lock(&f->mutex);
	f->outstanding--;
	if (!f->outstanding)
		pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
}

/* Hands waiting requests to the kernel while it has room; mutex held, released around it. */
static void push_waiting(struct file_dev *f)
{
	struct iocb *cbs[REAP_BATCH];
	struct blk_io *failed[REAP_BATCH];

	while (!list_empty(&f->waiting) && f->in_flight < AIO_DEPTH) {
		unsigned int n = 0, bad = 0, i;
		int done = 0;

		while (n < REAP_BATCH && f->in_flight < AIO_DEPTH && !list_empty(&f->waiting)) {
			struct blk_io *io = list_first(&f->waiting, struct blk_io, node);

			list_del(&io->node);
			f->in_flight++;
			kernel_takes(io);
			cbs[n++] = io_iocb(io);
		}
		pthread_mutex_unlock(&f->mutex);
		while ((unsigned int)done < n) {
			int ret = io_submit(f->aio, (long)n - done, cbs + done);

			if (ret > 0)
				done += ret;
			else if (ret == -EAGAIN || ret == -EINTR)
				sched_yield();	/* the kernel's ring is full for a moment */
			else
				failed[bad++] = cbs[done++]->data;
		}
		for (i = 0; i < bad; i++)
			finish(f, failed[i], -EIO);
		pthread_mutex_lock(&f->mutex);
		f->in_flight -= bad;
	}
}

static void file_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct file_dev *f = file_dev(dev);
	unsigned int i;

	for (i = 0; i < count; i++)
		if (ios[i]->op == BLK_READ || ios[i]->op == BLK_WRITE)
			prepare_iocb(f, ios[i]);
	pthread_mutex_lock(&f->mutex);
	f->outstanding += count;
	for (i = 0; i < count; i++) {
		bool fast = ios[i]->op == BLK_READ || ios[i]->op == BLK_WRITE;

		list_add_tail(fast ? &f->waiting : &f->slow_queue, &ios[i]->node);
		if (!fast)
			pthread_cond_broadcast(&f->changed);
	}
	push_waiting(f);
	pthread_mutex_unlock(&f->mutex);
}

static int event_result(const struct io_event *ev)
{
	const struct blk_io *io = ev->data;
	long res = (long)ev->res;

	kernel_returns(ev->data);
	if (res < 0)
		return res == -EINVAL ? -EIO : (int)res;
	return (uint64_t)res == io->len ? 0 : -EIO;
}

static void *reaper_main(void *arg)
{
	struct file_dev *f = arg;
	struct io_event events[REAP_BATCH];
	bool stop = false;

	while (!stop) {
		/* Wakes up now and then to see that it is to stop. */
		struct timespec tick = { .tv_nsec = 100 * (long)NSEC_PER_MSEC };
		int n = io_getevents(f->aio, 1, REAP_BATCH, events, &tick);
		int i;

		for (i = 0; i < n; i++)
			finish(f, events[i].data, event_result(&events[i]));
		pthread_mutex_lock(&f->mutex);
		if (n > 0) {
			f->in_flight -= (unsigned int)n;
			push_waiting(f);
		}
		stop = f->stopping && !f->in_flight;
		pthread_mutex_unlock(&f->mutex);
	}
	return NULL;
}

static void *slow_main(void *arg)
{
	struct file_dev *f = arg;

	pthread_mutex_lock(&f->mutex);
	while (!f->stopping || !list_empty(&f->slow_queue)) {
		struct blk_io *io;

		if (list_empty(&f->slow_queue)) {
			pthread_cond_wait(&f->changed, &f->mutex);
			continue;
		}
		io = list_first(&f->slow_queue, struct blk_io, node);
		list_del(&io->node);
		pthread_mutex_unlock(&f->mutex);
		finish(f, io, file_run(&f->dev, io));
		pthread_mutex_lock(&f->mutex);
	}
	pthread_mutex_unlock(&f->mutex);
	return NULL;
}

/* ---- life ---- */

static int file_refresh(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);
	off_t end = lseek(f->fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	dev->info.size = ALIGN_DOWN((uint64_t)end, dev->info.sector);
	return 0;
}

static void stop_threads(struct file_dev *f)
{
	pthread_mutex_lock(&f->mutex);
	while (f->outstanding)
		pthread_cond_wait(&f->changed, &f->mutex);
	f->stopping = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
	pthread_join(f->reaper, NULL);
	pthread_join(f->slow, NULL);
}

static void file_free(struct file_dev *f)
{
	int i;

	for (i = 0; i < CAW_LOCKS; i++)
		pthread_mutex_destroy(&f->caw_mutex[i]);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->mutex);
	free(f);
}

static void file_close(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);

	stop_threads(f);
	io_destroy(f->aio);
	close(f->fd);
	if (f->lock_fd >= 0)
		close(f->lock_fd);
	file_free(f);
}

static const struct blkdev_ops file_ops = {
	.submit = file_submit,
	.run = file_run,
	.refresh = file_refresh,
	.close = file_close,
};

static struct file_dev *file_alloc(struct env *env, const struct blkfile_handle *h)
{
	struct file_dev *f = calloc(1, sizeof(*f));
	int i;

	if (!f)
		return NULL;
	f->dev.ops = &file_ops;
	f->dev.env = env;
	f->dev.info = h->info;
	f->fd = h->fd;
	f->lock_fd = h->lock_fd;
	list_init(&f->slow_queue);
	list_init(&f->waiting);
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
	for (i = 0; i < CAW_LOCKS; i++)
		pthread_mutex_init(&f->caw_mutex[i], NULL);
	return f;
}

static int start_threads(struct file_dev *f)
{
	int err;

	err = pthread_create(&f->reaper, NULL, reaper_main, f);
	if (err)
		return -err;
	err = pthread_create(&f->slow, NULL, slow_main, f);
	if (!err)
		return 0;
	pthread_mutex_lock(&f->mutex);
	f->stopping = true;
	pthread_mutex_unlock(&f->mutex);
	pthread_join(f->reaper, NULL);
	return -err;
}

int blkfile_new(struct env *env, const struct blkfile_handle *h, struct blkdev **out)
{
	struct file_dev *f = file_alloc(env, h);
	uint64_t bytes = 0;
	int err;

	if (!f)
		return -ENOMEM;
	f->is_block = ioctl(f->fd, BLKGETSIZE64, &bytes) == 0;
	err = io_setup(AIO_DEPTH, &f->aio);
	if (err)
		goto free_dev;
	err = start_threads(f);
	if (err)
		goto destroy_aio;
	*out = &f->dev;
	return 0;

destroy_aio:
	io_destroy(f->aio);
free_dev:
	file_free(f);
	return err;
}

int blkfile_open(struct env *env, const char *path, unsigned int flags,
		     struct blkdev **out, char *why, size_t why_size)
{
	struct blkfile_handle h;
	int err;

	err = blkfile_handle_open(path, flags, &h, why, why_size);
	if (err)
		return err;
	err = blkfile_new(env, &h, out);
	if (err) {
		snprintf(why, why_size, "%s: cannot start asynchronous I/O: %s", path,
			 strerror(-err));
		blkfile_handle_close(&h);
	}
	return err;
}
