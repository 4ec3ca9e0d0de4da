/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkdev.h"

#include <errno.h>
#include <stdlib.h>

/* A caller that waits for some requests. */
struct waiter {
	struct env *env;
	struct env_mutex mutex;
	struct env_cond done;
	unsigned int pending;
};

/* What done() needs of one waited-for request. */
struct waited_io {
	struct waiter *waiter;
	int err;
};

#define BATCH_MAX	128u	/* requests that blkdev_rw_batch() has under way at a time */

/* Whether @io may go to the backend: inside the device, whole sectors, buffers that add up. */
static int check_io(const struct blkdev *dev, const struct blk_io *io)
{
	uint64_t sum = 0, size = blkdev_size(dev);
	int i;

	if (io->op == BLK_FLUSH)
		return 0;
	if (io->off % dev->info.sector || io->len % dev->info.sector || !io->len)
		return -EINVAL;
	if (io->off > size || io->len > size - io->off)
		return -EINVAL;
	if (dev->info.read_only && io->op != BLK_READ)
		return -EROFS;
	if (io->op == BLK_DISCARD || io->op == BLK_ZERO)
		return 0;
	for (i = 0; i < io->iovcnt; i++) {
		if ((uintptr_t)io->iov[i].iov_base % dev->info.mem_align ||
		    io->iov[i].iov_len % dev->info.sector)
			return -EINVAL;
		sum += io->iov[i].iov_len;
	}
	if (io->op == BLK_CAW)
		return io->iovcnt == 2 && io->len == dev->info.sector &&
		       io->iov[0].iov_len == io->len && io->iov[1].iov_len == io->len ?
		       0 : -EINVAL;
	return sum == io->len ? 0 : -EINVAL;
}

void blkdev_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	unsigned int start = 0;
	unsigned int i;

	for (i = 0; i < count; i++) {
		int err = check_io(dev, ios[i]);

		ios[i]->dev = dev;
		if (!err)
			continue;
		if (i > start)
			dev->ops->submit(dev, ios + start, i - start);
		start = i + 1;
		ios[i]->done(ios[i], err);
	}
	if (count > start)
		dev->ops->submit(dev, ios + start, count - start);
}

static void waiter_init(struct waiter *w, struct env *env, unsigned int pending)
{
	w->env = env;
	w->pending = pending;
	env_mutex_init(env, &w->mutex);
	env_cond_init(env, &w->done);
}

/* Waits for the last completion and for the one who reported it to be out of the waiter. */
static void waiter_wait(struct waiter *w)
{
	env_mutex_lock(w->env, &w->mutex);
	while (w->pending)
		env_cond_wait(w->env, &w->done, &w->mutex, ENV_FOREVER);
	env_mutex_unlock(w->env, &w->mutex);
	env_cond_fini(w->env, &w->done);
	env_mutex_fini(w->env, &w->mutex);
}

static void waited_done(struct blk_io *io, int err)
{
	struct waited_io *wi = io->arg;
	struct waiter *w = wi->waiter;

	env_mutex_lock(w->env, &w->mutex);
	wi->err = err;
	w->pending--;
	if (!w->pending)
		env_cond_broadcast(w->env, &w->done);
	env_mutex_unlock(w->env, &w->mutex);
}

/* One request from beginning to end in the calling thread, or submitted and waited for. */
static int run_io(struct blkdev *dev, struct blk_io *io)
{
	struct waited_io wi = { .err = -EIO };
	struct waiter w;
	int err;

	io->dev = dev;
	if (dev->ops->run) {
		err = check_io(dev, io);
		return err ? err : dev->ops->run(dev, io);
	}
	waiter_init(&w, dev->env, 1);
	wi.waiter = &w;
	io->arg = &wi;
	io->done = waited_done;
	blkdev_submit(dev, &io, 1);
	waiter_wait(&w);
	io->arg = NULL;
	return wi.err;
}

int blkdev_rwv(struct blkdev *dev, enum blk_op op, unsigned int flags, uint64_t off,
	       const struct iovec *iov, int iovcnt)
{
	struct blk_io io = { .op = op, .flags = flags, .off = off, .iov = iov, .iovcnt = iovcnt };
	int i;

	for (i = 0; i < iovcnt; i++)
		io.len += iov[i].iov_len;
	return run_io(dev, &io);
}

int blkdev_rw(struct blkdev *dev, enum blk_op op, unsigned int flags, uint64_t off, void *buf,
	      size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };

	return blkdev_rwv(dev, op, flags, off, &iov, 1);
}

int blkdev_flush(struct blkdev *dev)
{
	struct blk_io io = { .op = BLK_FLUSH };

	return run_io(dev, &io);
}

int blkdev_discard(struct blkdev *dev, uint64_t off, uint64_t len)
{
	struct blk_io io = { .op = BLK_DISCARD, .off = off, .len = len };

	if (!dev->info.discard_granularity)
		return -ENOTSUP;
	return run_io(dev, &io);
}

/* Zeros by writing them, where the device has nothing better. */
static int zero_by_writing(struct blkdev *dev, uint64_t off, uint64_t len)
{
	size_t size = len < MIB ? len : MIB;
	void *zeros = blkdev_alloc(size);
	int err = 0;

	if (!zeros)
		return -ENOMEM;
	while (len && !err) {
		size_t n = len < size ? len : size;

		err = blkdev_write(dev, off, zeros, n);
		off += n;
		len -= n;
	}
	free(zeros);
	return err;
}

int blkdev_zero(struct blkdev *dev, uint64_t off, uint64_t len)
{
	struct blk_io io = { .op = BLK_ZERO, .off = off, .len = len };
	int err = run_io(dev, &io);

	return err == -ENOTSUP ? zero_by_writing(dev, off, len) : err;
}

int blkdev_caw(struct blkdev *dev, uint64_t off, const void *expected, const void *desired)
{
	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)expected, .iov_len = dev->info.sector },
		{ .iov_base = (void *)(uintptr_t)desired, .iov_len = dev->info.sector },
	};
	struct blk_io io = {
		.op = BLK_CAW, .off = off, .len = dev->info.sector, .iov = iov, .iovcnt = 2,
	};

	if (dev->info.caw == BLK_CAW_NONE)
		return -ENOTSUP;
	return run_io(dev, &io);
}

/* At most BATCH_MAX requests, submitted as one and waited for. */
static int run_batch(struct blkdev *dev, struct blk_io *ios, unsigned int count)
{
	struct waited_io wis[BATCH_MAX];
	struct blk_io *batch[BATCH_MAX];
	struct waiter w;
	unsigned int i;

	waiter_init(&w, dev->env, count);
	for (i = 0; i < count; i++) {
		wis[i].waiter = &w;
		ios[i].arg = &wis[i];
		ios[i].done = waited_done;
		batch[i] = &ios[i];
	}
	blkdev_submit(dev, batch, count);
	waiter_wait(&w);
	for (i = 0; i < count; i++)
		if (wis[i].err)
			return wis[i].err;
	return 0;
}

int blkdev_rw_batch(struct blkdev *dev, struct blk_io *ios, unsigned int count)
{
	int first = 0;

	if (count == 1)
		return run_io(dev, ios);
	while (count) {
		unsigned int n = count < BATCH_MAX ? count : BATCH_MAX;
		int err = run_batch(dev, ios, n);

		if (err && !first)
			first = err;
		ios += n;
		count -= n;
	}
	return first;
}

int blkdev_refresh(struct blkdev *dev)
{
	return dev->ops->refresh ? dev->ops->refresh(dev) : -ENOTSUP;
}

int blkdev_drain(struct blkdev *dev)
{
	return dev->ops->drain ? dev->ops->drain(dev) : 0;
}

int blkdev_set_polled(struct blkdev *dev)
{
	return dev->ops->set_polled ? dev->ops->set_polled(dev) : -ENOTSUP;
}

int blkdev_poll_fd(struct blkdev *dev)
{
	return dev->ops->poll_fd(dev);
}

unsigned int blkdev_poll(struct blkdev *dev)
{
	return dev->ops->poll(dev);
}

void blkdev_wake(struct blkdev *dev)
{
	dev->ops->wake(dev);
}

int blkdev_extent(struct blkdev *dev, uint64_t off, uint64_t *len, bool *mapped)
{
	if (off >= dev->info.size)
		return -EINVAL;
	return dev->ops->extent ? dev->ops->extent(dev, off, len, mapped) : -ENOTSUP;
}

void blkdev_close(struct blkdev *dev)
{
	if (dev)
		dev->ops->close(dev);
}

void *blkdev_alloc(size_t size)
{
	void *p = aligned_alloc(4096, ALIGN_UP(size, 4096));

	if (p)
		memset(p, 0, ALIGN_UP(size, 4096));
	return p;
}
