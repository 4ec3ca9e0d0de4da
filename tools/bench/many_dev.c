/* SPDX-License-Identifier: Apache-2.0 */
/* The device that holds such a volume: two threads work out what is read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/many.h"

#define THREADS	2

struct many_dev {
	struct blkdev dev;
	struct many *m;
	pthread_t threads[THREADS];
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct list queue;
	bool	stop;
};

static struct many_dev *many_dev(struct blkdev *dev)
{
	return container_of(dev, struct many_dev, dev);
}

static int do_block(struct many_dev *d, enum blk_op op, uint64_t number, uint8_t *mem)
{
	if (op == BLK_WRITE)
		return many_write(d->m, number, mem);
	many_block(d->m, number, mem);
	return 0;
}

static int many_run(struct blkdev *dev, struct blk_io *io)
{
	struct many_dev *d = many_dev(dev);
	uint64_t off = io->off;

	if (io->op == BLK_FLUSH)
		return 0;
	if (io->op != BLK_READ && io->op != BLK_WRITE)
		return -ENOTSUP;
	for (int i = 0; i < io->iovcnt; i++)
		for (size_t at = 0; at < io->iov[i].iov_len; at += BLOCK_SIZE) {
			int err = do_block(d, io->op, off >> BLOCK_SHIFT,
					   (uint8_t *)io->iov[i].iov_base + at);

			if (err)
				return err;
			off += BLOCK_SIZE;
		}
	return 0;
}

static void *work(void *arg)
{
	struct many_dev *d = arg;

	pthread_mutex_lock(&d->mutex);
	while (!d->stop || !list_empty(&d->queue)) {
		struct blk_io *io;

		if (list_empty(&d->queue)) {
			pthread_cond_wait(&d->changed, &d->mutex);
			continue;
		}
		io = list_first(&d->queue, struct blk_io, node);
		list_del(&io->node);
		pthread_mutex_unlock(&d->mutex);
		io->done(io, many_run(&d->dev, io));
		pthread_mutex_lock(&d->mutex);
	}
	pthread_mutex_unlock(&d->mutex);
	return NULL;
}

static void many_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct many_dev *d = many_dev(dev);

	pthread_mutex_lock(&d->mutex);
	for (unsigned int i = 0; i < count; i++)
		list_add_tail(&d->queue, &ios[i]->node);
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->mutex);
}

static void many_close(struct blkdev *dev)
{
	struct many_dev *d = many_dev(dev);

	pthread_mutex_lock(&d->mutex);
	d->stop = true;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->mutex);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(d->threads[i], NULL);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->mutex);
	free(d);
}

static const struct blkdev_ops many_ops = { .submit = many_submit, .run = many_run,
					     .close = many_close };

struct blkdev *many_open(struct many *m, struct env *env)
{
	struct many_dev *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->dev = (struct blkdev){ .ops = &many_ops, .env = env,
				  .info = { .size = m->s.size, .sector = BLOCK_SIZE,
					    .mem_align = BLOCK_SIZE, .io_max = MIB,
					    .caw = BLK_CAW_LOCAL, .direct = true } };
	snprintf(d->dev.info.name, sizeof(d->dev.info.name), "computed volume");
	d->m = m;
	list_init(&d->queue);
	pthread_mutex_init(&d->mutex, NULL);
	pthread_cond_init(&d->changed, NULL);
	for (unsigned int i = 0; i < THREADS; i++)
		if (pthread_create(&d->threads[i], NULL, work, d))
			abort();
	return &d->dev;
}
