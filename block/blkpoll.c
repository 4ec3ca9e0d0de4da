/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkpoll.h"

static unsigned int blkpoll_poll(struct reactor_poller *p)
{
	return blkdev_poll(container_of(p, struct blkpoll, poller)->dev);
}

/* Nothing to arm: an edge that comes after the last look ends the sleep. */
static void blkpoll_ready(struct reactor_fd *f, uint32_t events)
{
	(void)events;
	blkdev_poll(container_of(f, struct blkpoll, fd)->dev);
}

int blkpoll_start(struct blkpoll *bp, struct reactor *r, struct blkdev *dev)
{
	int err;

	*bp = (struct blkpoll){
		.dev = dev,
		.reactor = r,
		.fd = { .fd = blkdev_poll_fd(dev), .ready = blkpoll_ready },
		.poller = { .poll = blkpoll_poll },
	};
	err = reactor_add(r, &bp->fd, EPOLLIN | EPOLLET);
	if (err)
		return err;
	reactor_poller_add(r, &bp->poller);
	return 0;
}

void blkpoll_stop(struct blkpoll *bp)
{
	reactor_poller_remove(bp->reactor, &bp->poller);
	reactor_remove(bp->reactor, &bp->fd);
}
