/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the file backend share: blkfile.c life and waiting, blkfile_aio.c the rest. */
#ifndef LUNFS_BLOCK_BLKFILE_INTERNAL_H
#define LUNFS_BLOCK_BLKFILE_INTERNAL_H

#include <libaio.h>
#include <pthread.h>
#include <stdatomic.h>

#include "block/blkfile.h"

#define CAW_LOCKS	64	/* mutexes over the sectors, by hash */

/*
 * Asynchronous reads and writes go through libaio.  Their completions are collected by the
 * reaper thread, or in polled mode by the owner.  What Linux has no asynchronous call for
 * (flush, discard, zero, compare-and-write) goes to the slow thread.  Requests that somebody
 * waits for anyway run in the waiter's own thread.
 */
struct file_dev {
	struct blkdev	dev;
	int		fd;
	int		lock_fd;
	struct blkscsi_port scsi;	/* scsi.s.used: a SCSI disk's further commands go there */
	atomic_bool	unclear;	/* one of its writes ended without an answer; for drain() */
	int		event_fd;	/* stops the reaper; in polled mode the owner's */
	bool		is_block;
	bool		polled;
	bool		copies;		/* io_submit() copies: buffered, or tmpfs */
	io_context_t	aio;
	unsigned int	aio_depth;	/* what the context takes at most */
	unsigned int	aio_asked;	/* struct blkfile_handle's aio_depth */
	pthread_t	reaper;
	pthread_t	slow;
	struct iocb	stop_iocb;	/* completes when the reaper is to stop */

	/*
	 * Everything below belongs to the mutex; in polled mode the waiting list and in_flight
	 * are the owner's alone, and outstanding counts what the slow thread has.
	 */
	pthread_mutex_t	mutex;
	pthread_cond_t	changed;
	struct list	slow_queue;
	struct list	waiting;	/* for a place in the ring of aio_depth */
	unsigned int	in_flight;	/* submitted to the kernel */
	unsigned int	outstanding;	/* accepted and not yet completed, of either kind */
	bool		stopping;
	struct list	slow_done;	/* polled: executed, done() not yet called */
	atomic_bool	slow_ready;	/* polled: slow_done is not empty */

	/*
	 * An open-file-description lock excludes other descriptions (other handles, other
	 * processes), not other threads of this one: these do.
	 */
	pthread_mutex_t	caw_mutex[CAW_LOCKS];
};

static inline struct file_dev *file_dev(struct blkdev *dev)
{
	return container_of(dev, struct file_dev, dev);
}

/**
 * blkfile_sysfs_line() - one line of a sysfs attribute of the block device @rdev; "" if there is
 * none.  Not to be able to look is an error (-errno): a device without an identity would pass for
 * any other.
 */
int blkfile_sysfs_line(dev_t rdev, const char *attribute, char *buf, size_t size);

/**
 * file_result() - what @err, the kernel's word on a request of @op, is to the submitter; notes
 * what ended without an answer.
 */
int file_result(struct file_dev *f, enum blk_op op, int err);

/** file_wants_fua() - whether a write of @flags is to be durable by itself. */
static inline bool file_wants_fua(const struct file_dev *f, unsigned int flags)
{
	return (flags & BLK_FUA) || f->scsi.s.fua;
}

/** file_run() - executes @io in the calling thread; returns its result. */
int file_run(struct blkdev *dev, struct blk_io *io);

/** file_aio_start() - context and threads; @f has its descriptors.  Return: 0 or -errno. */
int file_aio_start(struct file_dev *f);

/** file_aio_stop() - waits for all requests, ends the threads, frees the context. */
void file_aio_stop(struct file_dev *f);

/* The operations of struct blkdev_ops that blkfile_aio.c implements. */
void file_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count);
int file_set_polled(struct blkdev *dev);
int file_poll_fd(struct blkdev *dev);
unsigned int file_poll(struct blkdev *dev);
void file_wake(struct blkdev *dev);

#endif
