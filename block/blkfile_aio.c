/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkfile_internal.h"

#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "block/aio_ring.h"

#define AIO_DEPTH	256
#define AIO_DEPTH_LEAST	16
#define AIO_DEPTH_POLLED 1024	/* one device serves all disks of a reactor */
#define REAP_BATCH	64
#define POLL_BATCHES	8	/* that one blkdev_poll() collects */

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

static bool io_is_fast(const struct blk_io *io)
{
	return io->op == BLK_READ || io->op == BLK_WRITE;
}

/*
 * Where the page cache stands between, io_submit() ends when everything is copied: who asks for many
 * reads at once, as a check does, has something else to do meanwhile.
 */
static bool io_is_copied(const struct file_dev *f, const struct blk_io *io, unsigned int count)
{
	return f->copies && count > 1 && io->op == BLK_READ;
}

static void prepare_iocb(struct file_dev *f, struct blk_io *io)
{
	struct iocb *cb = io_iocb(io);

	if (io->op == BLK_READ)
		io_prep_preadv(cb, f->fd, io->iov, io->iovcnt, (long long)io->off);
	else
		io_prep_pwritev(cb, f->fd, io->iov, io->iovcnt, (long long)io->off);
	if (io->op == BLK_WRITE && file_wants_fua(f, io->flags))
		cb->aio_rw_flags = RWF_DSYNC;
	if (f->polled && !f->copies)	/* keep_awake() */
		io_set_eventfd(cb, f->event_fd);
	cb->data = io;
}

static int event_result(struct file_dev *f, const struct io_event *ev)
{
	const struct blk_io *io = ev->data;
	long res = (long)ev->res;

	kernel_returns(ev->data);
	if (res >= 0 && (uint64_t)res == io->len)
		return 0;
	/* Short: the device shrank, or failed half-way. */
	return file_result(f, io->op, res < 0 && res != -EINVAL ? (int)res : -EIO);
}

/* ---- completed by threads of our own ---- */

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

	while (!list_empty(&f->waiting) && f->in_flight < f->aio_depth) {
		unsigned int n = 0, bad = 0, i;
		int done = 0;

		while (n < REAP_BATCH && f->in_flight < f->aio_depth &&
		       !list_empty(&f->waiting)) {
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
			finish(f, failed[i], -EIO);	/* not even tried */
		pthread_mutex_lock(&f->mutex);
		f->in_flight -= bad;
	}
}

static void submit_threaded(struct file_dev *f, struct blk_io **ios, unsigned int count)
{
	bool slow = false;
	unsigned int i;

	for (i = 0; i < count; i++)
		if (io_is_fast(ios[i]))
			prepare_iocb(f, ios[i]);
	pthread_mutex_lock(&f->mutex);
	f->outstanding += count;
	for (i = 0; i < count; i++) {
		bool fast = io_is_fast(ios[i]) && !io_is_copied(f, ios[i], count);

		list_add_tail(fast ? &f->waiting : &f->slow_queue, &ios[i]->node);
		slow |= !fast;
	}
	if (slow)
		pthread_cond_broadcast(&f->changed);
	push_waiting(f);
	pthread_mutex_unlock(&f->mutex);
}

static void *reaper_main(void *arg)
{
	struct file_dev *f = arg;
	struct io_event events[REAP_BATCH];
	bool stop = false, idle = false;

	while (!stop || !idle) {
		int n = io_getevents(f->aio, 1, REAP_BATCH, events, NULL);
		unsigned int ended = 0;
		int i;

		for (i = 0; i < n; i++) {
			if (!events[i].data) {
				stop = true;
				continue;
			}
			finish(f, events[i].data, event_result(f, &events[i]));
			ended++;
		}
		pthread_mutex_lock(&f->mutex);
		f->in_flight -= ended;
		push_waiting(f);
		idle = !f->in_flight;
		pthread_mutex_unlock(&f->mutex);
	}
	return NULL;
}

/* ---- what has no asynchronous call ---- */

/* The owner of a polled device collects it. */
static void slow_finish_polled(struct file_dev *f, struct blk_io *io, int err)
{
	pthread_mutex_lock(&f->mutex);
	io->priv[0] = (uint64_t)(int64_t)err;
	list_add_tail(&f->slow_done, &io->node);
	atomic_store(&f->slow_ready, true);
	f->outstanding--;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
	file_wake(&f->dev);
}

static void *slow_main(void *arg)
{
	struct file_dev *f = arg;

	pthread_mutex_lock(&f->mutex);
	while (!f->stopping || !list_empty(&f->slow_queue)) {
		struct blk_io *io;
		int err;

		if (list_empty(&f->slow_queue)) {
			pthread_cond_wait(&f->changed, &f->mutex);
			continue;
		}
		io = list_first(&f->slow_queue, struct blk_io, node);
		list_del(&io->node);
		pthread_mutex_unlock(&f->mutex);
		err = file_run(&f->dev, io);
		if (f->polled)
			slow_finish_polled(f, io, err);
		else
			finish(f, io, err);
		pthread_mutex_lock(&f->mutex);
	}
	pthread_mutex_unlock(&f->mutex);
	return NULL;
}

/* ---- completed by the owner: polled mode ---- */

/* in_flight first: done() may submit. */
static void finish_events(struct file_dev *f, const struct io_event *events, unsigned int count)
{
	unsigned int i;

	f->in_flight -= count;
	for (i = 0; i < count; i++) {
		struct blk_io *io = events[i].data;

		io->done(io, event_result(f, &events[i]));
	}
}

static unsigned int collect_slow(struct file_dev *f)
{
	struct blk_io *io, *tmp;
	struct list done;
	unsigned int count = 0;

	if (!atomic_load_explicit(&f->slow_ready, memory_order_relaxed))
		return 0;
	list_init(&done);
	pthread_mutex_lock(&f->mutex);
	atomic_store(&f->slow_ready, false);
	list_splice_tail(&done, &f->slow_done);
	pthread_mutex_unlock(&f->mutex);
	list_for_each(io, tmp, &done, node) {
		list_del(&io->node);
		io->done(io, (int)(int64_t)io->priv[0]);
		count++;
	}
	return count;
}

/*
 * Where io_submit() copies, its requests have completed when it returns, and are found by the poll that
 * comes before every sleep: an edge for each would cost an eighth of a request, and end that sleep for
 * nothing.  Should one not have completed after all, the owner is kept from sleeping until it has.
 */
static void keep_awake(struct file_dev *f)
{
	if (f->copies && f->in_flight > aio_ring_count(f->aio))
		file_wake(&f->dev);
}

/*
 * Gives @n prepared requests to the kernel.  What it has no room for waits: for the next
 * completion, or if nothing is under way, for the next poll.
 */
static void push_polled(struct file_dev *f, struct iocb **cbs, unsigned int n)
{
	unsigned int i = 0;

	f->in_flight += n;
	while (i < n) {
		int ret = io_submit(f->aio, (long)(n - i), cbs + i);

		if (ret > 0) {
			i += (unsigned int)ret;
		} else if (ret == -EAGAIN) {
			break;
		} else if (ret != -EINTR) {
			struct blk_io *io = cbs[i++]->data;

			f->in_flight--;
			io->done(io, -EIO);
		}
	}
	f->in_flight -= n - i;
	for (; n > i; n--)
		list_add_head(&f->waiting, &((struct blk_io *)cbs[n - 1]->data)->node);
	if (!list_empty(&f->waiting) && !f->in_flight)
		file_wake(&f->dev);
	keep_awake(f);
}

static void submit_polled(struct file_dev *f, struct blk_io **ios, unsigned int count)
{
	struct iocb *cbs[REAP_BATCH];
	unsigned int n = 0, i;

	for (i = 0; i < count; i++) {
		struct blk_io *io = ios[i];

		if (!io_is_fast(io)) {
			pthread_mutex_lock(&f->mutex);
			f->outstanding++;
			list_add_tail(&f->slow_queue, &io->node);
			pthread_cond_broadcast(&f->changed);
			pthread_mutex_unlock(&f->mutex);
			continue;
		}
		prepare_iocb(f, io);
		if (f->in_flight + n >= f->aio_depth) {
			list_add_tail(&f->waiting, &io->node);
			continue;
		}
		kernel_takes(io);
		cbs[n++] = io_iocb(io);
		if (n == REAP_BATCH) {
			push_polled(f, cbs, n);
			n = 0;
		}
	}
	if (n)
		push_polled(f, cbs, n);
}

static void push_waiting_polled(struct file_dev *f)
{
	struct iocb *cbs[REAP_BATCH];
	unsigned int n = 0;

	while (!list_empty(&f->waiting) && n < REAP_BATCH && f->in_flight + n < f->aio_depth) {
		struct blk_io *io = list_first(&f->waiting, struct blk_io, node);

		list_del(&io->node);
		kernel_takes(io);
		cbs[n++] = io_iocb(io);
	}
	if (n)
		push_polled(f, cbs, n);
}

unsigned int file_poll(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);
	struct io_event events[REAP_BATCH];
	unsigned int batch, n, count = 0;

	for (batch = 0; batch < POLL_BATCHES; batch++) {
		n = aio_ring_take(f->aio, events, REAP_BATCH);
		finish_events(f, events, n);
		count += n;
		if (n < REAP_BATCH)
			break;
	}
	count += collect_slow(f);
	if (!list_empty(&f->waiting))
		push_waiting_polled(f);
	keep_awake(f);
	return count;
}

int file_poll_fd(struct blkdev *dev)
{
	return file_dev(dev)->event_fd;
}

void file_wake(struct blkdev *dev)
{
	uint64_t one = 1;

	/* Never read; should it ever be full, every write of the kernel's still is an edge. */
	if (write(file_dev(dev)->event_fd, &one, sizeof(one)) < 0)
		return;
}

/* Waits until nothing is under way. */
static void drain_polled(struct file_dev *f)
{
	bool slow = true;

	while (f->in_flight || !list_empty(&f->waiting) || slow) {
		struct io_event ev;

		file_poll(&f->dev);
		if (f->in_flight && io_getevents(f->aio, 1, 1, &ev, NULL) == 1)
			finish_events(f, &ev, 1);
		pthread_mutex_lock(&f->mutex);
		while (!f->in_flight && f->outstanding && list_empty(&f->slow_done))
			pthread_cond_wait(&f->changed, &f->mutex);
		slow = f->outstanding || !list_empty(&f->slow_done);
		pthread_mutex_unlock(&f->mutex);
	}
}

/* ---- both ---- */

void file_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct file_dev *f = file_dev(dev);

	if (f->polled)
		submit_polled(f, ios, count);
	else
		submit_threaded(f, ios, count);
}

static int reaper_start(struct file_dev *f)
{
	struct iocb *cb = &f->stop_iocb;
	int ret;

	io_prep_poll(cb, f->event_fd, POLLIN);
	cb->data = NULL;	/* by which the reaper knows it */
	ret = io_submit(f->aio, 1, &cb);
	if (ret != 1)
		return ret < 0 ? ret : -EIO;
	return pthread_create(&f->reaper, NULL, reaper_main, f) ? -ENOMEM : 0;
}

static void reaper_stop(struct file_dev *f)
{
	file_wake(&f->dev);
	pthread_join(f->reaper, NULL);
}

int file_set_polled(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);
	io_context_t deeper = NULL;

	assert(!f->polled && !f->outstanding);
	reaper_stop(f);
	/* The system's limit may be near (fs.aio-max-nr): then the ring that we have will do. */
	if (!f->aio_asked && io_setup(AIO_DEPTH_POLLED, &deeper) == 0) {
		io_destroy(f->aio);
		f->aio = deeper;
		f->aio_depth = AIO_DEPTH_POLLED;
	}
	f->polled = true;
	return 0;
}

/* Where little is left of fs.aio-max-nr a small ring is better than no device. */
static int make_ring(struct file_dev *f)
{
	unsigned int depth = f->aio_asked ? f->aio_asked : AIO_DEPTH;
	int err = io_setup((int)depth + 1, &f->aio);

	while (err == -EAGAIN && depth > AIO_DEPTH_LEAST) {
		depth = depth / 4 > AIO_DEPTH_LEAST ? depth / 4 : AIO_DEPTH_LEAST;
		err = io_setup((int)depth + 1, &f->aio);
	}
	f->aio_depth = depth;
	if (err == -EAGAIN)
		log_error(f->dev.env, f->dev.info.name, "no asynchronous requests are left on this "
			  "machine: raise fs.aio-max-nr by sysctl(8)");
	return err;
}

int file_aio_start(struct file_dev *f)
{
	struct statfs fs;
	int err;

	f->copies = !f->dev.info.direct ||
		    (!fstatfs(f->fd, &fs) && (unsigned long)fs.f_type == TMPFS_MAGIC);
	list_init(&f->slow_queue);
	list_init(&f->slow_done);
	list_init(&f->waiting);
	f->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->event_fd < 0)
		return -errno;
	err = make_ring(f);
	if (err)
		goto close_event;
	err = reaper_start(f);
	if (err)
		goto destroy_aio;
	err = pthread_create(&f->slow, NULL, slow_main, f) ? -ENOMEM : 0;
	if (err)
		goto stop_reaper;
	return 0;

stop_reaper:
	reaper_stop(f);
destroy_aio:
	io_destroy(f->aio);
close_event:
	close(f->event_fd);
	return err;
}

void file_aio_stop(struct file_dev *f)
{
	if (f->polled)
		drain_polled(f);
	pthread_mutex_lock(&f->mutex);
	while (f->outstanding)
		pthread_cond_wait(&f->changed, &f->mutex);
	f->stopping = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
	if (!f->polled)
		reaper_stop(f);
	pthread_join(f->slow, NULL);
	io_destroy(f->aio);
	close(f->event_fd);
}
