/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkfile_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define CAW_WAIT_NS	(500 * NSEC_PER_MSEC)
#define SECTOR_MAX	4096
#define ZEROS_SIZE	(64 * 1024)
#define PUNCH_SIZE	(64 * MIB)	/* at a time: who writes to the file meanwhile waits for that long */

/* ---- in the calling thread ---- */

/* Of the errors of Linux's block layer (blk_errors[]) only these say what became of a write. */
int file_result(struct file_dev *f, enum blk_op op, int err)
{
	switch (err) {
	case 0: case -EBADE: case -ENOSPC: case -ENOTSUP: case -EROFS: case -EBUSY:
		return err;
	case -EILSEQ:		/* a CAW's miscompare; of others, protection information */
		return op == BLK_CAW ? err : -EIO;
	case -ENODATA:		/* medium error */
	case -EREMOTEIO:	/* the target refused it */
		return -EIO;
	default:
		if (op != BLK_READ && f->scsi.s.used)
			atomic_store(&f->unclear, true);
		return err == -ENOLINK ? -EIO : err;
	}
}

static int sync_rw(struct file_dev *f, const struct blk_io *io)
{
	int flags = io->op == BLK_WRITE && file_wants_fua(f, io->flags) ? RWF_DSYNC : 0;
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

/* As the system calls: -1 with errno. */
static int punch(struct file_dev *f, uint64_t off, uint64_t len)
{
	int err = 0;

	while (len && !err) {
		uint64_t n = len < PUNCH_SIZE ? len : PUNCH_SIZE;

		err = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				(off_t)n);
		off += n;
		len -= n;
	}
	return err;
}

/* A hole in a file; of a block device what @request makes: BLKDISCARD or BLKZEROOUT. */
static int sync_clear(struct file_dev *f, const struct blk_io *io, unsigned long request)
{
	uint64_t range[2] = { io->off, io->len };

	if (f->is_block ? ioctl(f->fd, request, range) : punch(f, io->off, io->len))
		return errno == EOPNOTSUPP ? -ENOTSUP : -errno;
	return 0;
}

static int sync_discard(struct file_dev *f, const struct blk_io *io)
{
	return sync_clear(f, io, BLKDISCARD);
}

/* What has no FUA would be lost with a target that crashes before its flush, unnoticed (R7). */
static int write_zeros(struct file_dev *f, const struct blk_io *io)
{
	static const uint8_t zeros[ZEROS_SIZE] BLKDEV_ALIGNED;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)zeros };
	struct blk_io step = { .op = BLK_WRITE, .flags = BLK_FUA, .iov = &iov, .iovcnt = 1 };
	int err = 0;

	for (uint64_t done = 0; !err && done < io->len; done += step.len) {
		step.off = io->off + done;
		step.len = io->len - done < ZEROS_SIZE ? io->len - done : ZEROS_SIZE;
		iov.iov_len = step.len;
		err = sync_rw(f, &step);
	}
	return err;
}

static int sync_zero(struct file_dev *f, const struct blk_io *io)
{
	int err;

	if (f->scsi.s.fua)
		return write_zeros(f, io);
	err = sync_clear(f, io, BLKZEROOUT);
	if (err)
		return err;
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
	uint8_t found[SECTOR_MAX] BLKDEV_ALIGNED;
	struct iovec iov = { .iov_base = found, .iov_len = io->len };
	struct blk_io step = { .op = BLK_READ, .off = io->off, .len = io->len, .iov = &iov,
			       .iovcnt = 1 };
	int err;

	assert(io->len <= sizeof(found));
	err = sync_rw(f, &step);
	if (err) {
		err = -EBUSY;	/* nothing was written: not unclear */
		/* cppcheck-suppress uninitvar ; sync_rw() has read it */
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

static int scsi_caw(struct file_dev *f, const struct blk_io *io)
{
	struct blkscsi_request rq;
	struct blkscsi_reply reply;

	rq.op = BLKSCSI_CAW;
	rq.sector = f->dev.info.sector;
	rq.off = io->off;
	memcpy(rq.data, io->iov[0].iov_base, io->len);
	memcpy(rq.data + io->len, io->iov[1].iov_base, io->len);
	return blkscsi_call(&f->scsi, &rq, &reply);
}

static int do_caw(struct file_dev *f, const struct blk_io *io)
{
	switch (f->dev.info.caw) {
	case BLK_CAW_LOCAL:
		return sync_caw(f, io);
	case BLK_CAW_SCSI:
		return scsi_caw(f, io);
	default:
		return -ENOTSUP;
	}
}

static int do_run(struct file_dev *f, const struct blk_io *io)
{
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
		return do_caw(f, io);
	}
	return -EINVAL;
}

int file_run(struct blkdev *dev, struct blk_io *io)
{
	struct file_dev *f = file_dev(dev);

	return file_result(f, io->op, do_run(f, io));
}

/* ---- a SCSI disk's reservations ---- */

static int scsi_pr(struct blkdev *dev, enum blkscsi_op op, uint64_t key, uint64_t other,
		   struct blkscsi_reply *reply)
{
	struct file_dev *f = file_dev(dev);
	struct blkscsi_request rq = { .op = op, .key = key, .other = other };

	return f->scsi.s.used ? blkscsi_call(&f->scsi, &rq, reply) : -ENOTSUP;
}

static int file_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct blkscsi_reply reply;

	return scsi_pr(dev, BLKSCSI_REGISTER, old_key, new_key, &reply);
}

static int file_pr_reserve(struct blkdev *dev, uint64_t key)
{
	struct blkscsi_reply reply;

	return scsi_pr(dev, BLKSCSI_RESERVE, key, 0, &reply);
}

static int file_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	struct blkscsi_reply reply;

	return scsi_pr(dev, BLKSCSI_PREEMPT_ABORT, key, victim, &reply);
}

static int file_pr_clear(struct blkdev *dev, uint64_t key)
{
	struct blkscsi_reply reply;
	int err = scsi_pr(dev, BLKSCSI_REGISTER_IGNORE, 0, key, &reply);

	return err ? err : scsi_pr(dev, BLKSCSI_CLEAR, key, 0, &reply);
}

static int file_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct blkscsi_reply reply;
	int err = scsi_pr(dev, BLKSCSI_READ, 0, 0, &reply);

	if (!err)
		*state = reply.pr;
	return err;
}

/*
 * The kernel gave up a command, and its recovery may have failed to end it at the target.  After a reset
 * of the LUN nothing that was sent before can land (SAM-5, 6.3.3); other hosts' commands end with it
 * and are sent again by them.  Where nothing is unclear, that is nothing to do.
 */
static int file_drain(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);
	struct blkscsi_reply reply;
	int err;

	if (!atomic_exchange(&f->unclear, false))
		return 0;
	err = scsi_pr(dev, BLKSCSI_RESET, 0, 0, &reply);
	if (err)
		atomic_store(&f->unclear, true);
	return err;
}

/* ---- life ---- */

static int file_refresh(struct blkdev *dev)
{
	struct file_dev *f = file_dev(dev);
	off_t end = lseek(f->fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	blkdev_set_size(dev, ALIGN_DOWN((uint64_t)end, dev->info.sector));
	return 0;
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

	struct blkscsi_reply reply;

	file_aio_stop(f);
	if (!atomic_load(&f->unclear))
		scsi_pr(dev, BLKSCSI_BYE, 0, 0, &reply);
	blkscsi_port_fini(&f->scsi);
	close(f->fd);
	if (f->lock_fd >= 0)
		close(f->lock_fd);
	file_free(f);
}

/* A filesystem that cannot tell has one extent, all data. */
static int file_extent(struct blkdev *dev, uint64_t off, uint64_t *len, bool *mapped)
{
	struct file_dev *f = file_dev(dev);
	off_t data, end;

	if (f->is_block)
		return -ENOTSUP;
	data = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		return errno == EINVAL ? -ENOTSUP : -errno;
	*mapped = data == (off_t)off;
	/* No data from here on: the hole reaches to the end. */
	end = data < 0 ? (off_t)dev->info.size : data;
	if (*mapped)
		end = lseek(f->fd, (off_t)off, SEEK_HOLE);
	if (end <= (off_t)off)
		end = (off_t)dev->info.size;
	*len = (uint64_t)end - off;
	return 0;
}

static const struct blkdev_ops file_ops = {
	.submit = file_submit,
	.run = file_run,
	.drain = file_drain,
	.refresh = file_refresh,
	.extent = file_extent,
	.set_polled = file_set_polled,
	.poll_fd = file_poll_fd,
	.poll = file_poll,
	.wake = file_wake,
	.pr_register = file_pr_register,
	.pr_reserve = file_pr_reserve,
	.pr_preempt_abort = file_pr_preempt_abort,
	.pr_clear = file_pr_clear,
	.pr_read = file_pr_read,
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
	f->aio_asked = h->aio_depth;
	atomic_init(&f->unclear, h->scsi.used && h->scsi.unclear);
	blkscsi_port_init(&f->scsi, &h->scsi, h->fd, h->lanes, h->lane_count);
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
	for (i = 0; i < CAW_LOCKS; i++)
		pthread_mutex_init(&f->caw_mutex[i], NULL);
	return f;
}

int blkfile_new(struct env *env, const struct blkfile_handle *h, struct blkdev **out)
{
	struct file_dev *f = file_alloc(env, h);
	uint64_t bytes = 0;
	int err;

	if (!f)
		return -ENOMEM;
	f->is_block = ioctl(f->fd, BLKGETSIZE64, &bytes) == 0;
	err = file_aio_start(f);
	if (err) {
		file_free(f);
		return err;
	}
	*out = &f->dev;
	return 0;
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
