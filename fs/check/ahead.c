/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inode clusters, read ahead: while one window of them is looked at the device fills the other.
 *
 * Invariant: a window is what the device has, a repair's own writes included.  A write that fell
 * between a window's read and its look would otherwise be undone when the stale block is sealed
 * and written again: chk_ahead_wrote().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check/online.h"

#define WINDOW_CLUSTERS	64u		/* 8 MiB */
#define WINDOW_ONLINE	8u		/* 1 MiB: hosts want the device, too */
#define IO_BLOCKS	128u		/* a request: neighbours are read together */

struct window {
	struct chk_ahead *ahead;
	size_t	first;			/* cluster */
	unsigned int count, io_count;
	unsigned int pending;		/* requests, under ahead->mutex */
	uint8_t	*mem;
	uint32_t at[WINDOW_CLUSTERS];	/* the cluster's first block in @mem */
	unsigned int io_of[WINDOW_CLUSTERS];
	struct blk_io ios[WINDOW_CLUSTERS];
	struct iovec iovs[WINDOW_CLUSTERS];
	int	errs[WINDOW_CLUSTERS];	/* by request */
};

struct chk_ahead {
	struct env *env;
	struct env_mutex mutex;
	struct env_cond cond;
	unsigned int now;		/* the window that is being looked at */
	struct window windows[2];
};

static void window_done(struct blk_io *io, int err)
{
	struct window *w = io->arg;
	struct chk_ahead *a = w->ahead;

	env_mutex_lock(a->env, &a->mutex);
	w->errs[io - w->ios] = err;
	if (--w->pending == 0)
		env_cond_broadcast(a->env, &a->cond);
	env_mutex_unlock(a->env, &a->mutex);
}

static void window_wait(struct window *w)
{
	struct chk_ahead *a = w->ahead;

	env_mutex_lock(a->env, &a->mutex);
	while (w->pending)
		env_cond_wait(a->env, &a->cond, &a->mutex, UINT64_MAX);
	env_mutex_unlock(a->env, &a->mutex);
}

/* Adds one cluster, which lies at block @at of the memory. */
static void window_add(struct window *w, const struct chk_cluster *cl, uint32_t at)
{
	struct blk_io *io = w->io_count ? &w->ios[w->io_count - 1] : NULL;
	uint64_t off = cl->first << BLOCK_SHIFT, len = 2ULL * cl->count * BLOCK_SIZE;

	if (!io || io->off + io->len != off || io->len + len > IO_BLOCKS * BLOCK_SIZE) {
		struct iovec *iov = &w->iovs[w->io_count];

		io = &w->ios[w->io_count];
		w->io_count++;
		*iov = (struct iovec){ .iov_base = w->mem + (size_t)at * BLOCK_SIZE };
		*io = (struct blk_io){ .op = BLK_READ, .off = off, .iov = iov, .iovcnt = 1,
				       .done = window_done, .arg = w };
	}
	io->len += len;
	w->iovs[w->io_count - 1].iov_len += len;
	w->at[w->count] = at;
	w->io_of[w->count++] = w->io_count - 1;
}

static size_t window_clusters(const struct check *c)
{
	return c->online ? WINDOW_ONLINE : WINDOW_CLUSTERS;
}

static void window_fill(struct check *c, struct window *w, size_t first)
{
	struct blk_io *batch[WINDOW_CLUSTERS];
	uint32_t at = 0;

	w->first = first;
	w->count = w->io_count = 0;
	while (w->count < window_clusters(c) && first + w->count < c->cluster_count) {
		const struct chk_cluster *cl = &c->clusters[first + w->count];

		window_add(w, cl, at);
		at += 2u * cl->count;
	}
	for (unsigned int i = 0; i < w->io_count; i++)
		batch[i] = &w->ios[i];
	if (c->online)
		online_may_read(c, 0, at);
	w->pending = w->io_count;
	if (w->io_count)
		blkdev_submit(c->dev, batch, w->io_count);
}

int chk_ahead_begin(struct check *c)
{
	size_t most = window_clusters(c);
	size_t room = c->cluster_count < most ? c->cluster_count : most;
	struct chk_ahead *a;

	if (!room)
		return 0;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->env = c->p->env;
	env_mutex_init(a->env, &a->mutex);
	env_cond_init(a->env, &a->cond);
	c->ahead = a;
	a->windows[0].ahead = a->windows[1].ahead = a;
	for (unsigned int i = 0; i < (c->cluster_count > room ? 2u : 1u); i++) {
		a->windows[i].mem = blkdev_alloc(room * CLUSTER_BLOCKS * BLOCK_SIZE);
		if (!a->windows[i].mem)
			return -ENOMEM;
	}
	window_fill(c, &a->windows[0], 0);
	window_fill(c, &a->windows[1], a->windows[0].count);
	return 0;
}

void chk_ahead_end(struct check *c)
{
	struct chk_ahead *a = c->ahead;

	if (!a)
		return;
	c->ahead = NULL;
	for (unsigned int i = 0; i < 2; i++) {
		window_wait(&a->windows[i]);
		free(a->windows[i].mem);
	}
	env_cond_fini(a->env, &a->cond);
	env_mutex_fini(a->env, &a->mutex);
	free(a);
}

/*
 * A request failed: that is told once, and the volume is not called clean, even if its clusters can
 * be read one by one.  Those that can be are looked at.
 */
static uint8_t *read_alone(struct check *c, struct window *w, size_t i)
{
	const struct blk_io *io = &w->ios[w->io_of[i]];
	const struct chk_cluster *cl = &c->clusters[w->first + i];

	if (c->online)
		c->online->blocks = (uint32_t)(io->len / BLOCK_SIZE);
	if (i == 0 || w->io_of[i - 1] != w->io_of[i])
		chk_report(c, CHECK_UNREADABLE, io->off, "%u blocks cannot be read: %s",
			   (unsigned int)(io->len / BLOCK_SIZE), strerror(-w->errs[w->io_of[i]]));
	/* What failed alone would fail again. */
	if (io->len == 2ULL * cl->count * BLOCK_SIZE ||
	    chk_read(c, cl->first << BLOCK_SHIFT, c->cluster, 2u * cl->count))
		return NULL;
	return c->cluster;
}

uint8_t *chk_ahead_next(struct check *c, size_t k)
{
	struct chk_ahead *a = c->ahead;
	struct window *w = &a->windows[a->now];
	const struct chk_cluster *cl = &c->clusters[k];
	uint8_t *blocks;
	size_t i;

	if (k == w->first + w->count) {
		a->now ^= 1;
		window_fill(c, w, a->windows[a->now].first + a->windows[a->now].count);
		w = &a->windows[a->now];
	}
	window_wait(w);
	i = k - w->first;
	if (w->errs[w->io_of[i]])
		return read_alone(c, w, i);
	blocks = w->mem + (size_t)w->at[i] * BLOCK_SIZE;
	chk_replayed(c, cl->first << BLOCK_SHIFT, blocks, 2u * cl->count);
	return blocks;
}

static void window_wrote(struct window *w, uint64_t addr, const uint8_t *data, size_t len)
{
	for (unsigned int i = 0; i < w->io_count; i++) {
		const struct blk_io *io = &w->ios[i];
		uint64_t from = addr > io->off ? addr : io->off;
		uint64_t to = addr + len < io->off + io->len ? addr + len : io->off + io->len;

		if (from >= to)
			continue;
		window_wait(w);
		/* It may be the very block that was changed in place. */
		memmove((uint8_t *)w->iovs[i].iov_base + (from - io->off), data + (from - addr),
			to - from);
	}
}

void chk_ahead_wrote(struct check *c, uint64_t addr, const void *data, size_t len)
{
	for (unsigned int i = 0; c->ahead && i < 2; i++)
		window_wrote(&c->ahead->windows[i], addr, data, len);
}
