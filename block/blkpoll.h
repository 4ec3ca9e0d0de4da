/* SPDX-License-Identifier: Apache-2.0 */
/* A polled device on a reactor: its completions are collected in each round. */
#ifndef LUNFS_BLOCK_BLKPOLL_H
#define LUNFS_BLOCK_BLKPOLL_H

#include "base/reactor.h"
#include "block/blkdev.h"

struct blkpoll {
	struct blkdev	*dev;
	struct reactor	*reactor;
	struct reactor_fd fd;
	struct reactor_poller poller;
};

/**
 * blkpoll_start() - collects @dev's completions in @r's thread, from now on.
 * @dev: in polled mode (blkdev_set_polled()); borrowed.
 * Context: @r's thread.  Return: 0 or -errno.
 */
int blkpoll_start(struct blkpoll *bp, struct reactor *r, struct blkdev *dev);

/** blkpoll_stop() - before the device is closed. */
void blkpoll_stop(struct blkpoll *bp);

#endif
