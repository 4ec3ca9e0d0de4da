/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: eventfds that belong to a peer, signalled without ever waiting for it.
 *
 * write() to an eventfd waits while its counter is full, and whether it may wait is a flag
 * that the peer can change at any time.  So the kernel is asked to signal them as the
 * completion of an asynchronous request, which never waits, takes nothing but eventfds, and
 * serves many with one system call.  (Measured: 540 ns for one, 370 ns each for four;
 * write() 215 ns.)
 */
#ifndef LUNFS_VHOST_NOTIFY_H
#define LUNFS_VHOST_NOTIFY_H

#include <libaio.h>

#include "base/types.h"

#define NOTIFY_BATCH	16

struct notify {
	io_context_t	aio;
	int		ready_fd;	/* always readable: a request that completes at once */
	unsigned int	count;
	struct iocb	iocbs[NOTIFY_BATCH];
};

/** notify_init() - Return: 0 or -errno. */
int notify_init(struct notify *n);
/** notify_fini() - Return: the context, for io_destroy(), which takes long; NULL: none. */
io_context_t notify_fini(struct notify *n);

/** notify_add() - signals @fd with the next notify_flush(); sends if there is no more room. */
void notify_add(struct notify *n, int fd);

/** notify_flush() - one system call for all that were added; none if there were none. */
void notify_flush(struct notify *n);

/** notify_check() - 0 if @fd is an eventfd, which this signals once; -EINVAL if not. */
int notify_check(struct notify *n, int fd);

#endif
