/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct blkdev: the one block-device interface, below the filesystem and above it.
 *
 * A backend implements struct blkdev_ops; everything else is written against the functions
 * here.  Requests are asynchronous; blkdev_rw() and its relatives wait for one.
 */
#ifndef LUNFS_BLOCK_BLKDEV_H
#define LUNFS_BLOCK_BLKDEV_H

#include <sys/uio.h>

#include "base/env.h"

struct blkdev;

enum blk_op {
	BLK_READ,
	BLK_WRITE,
	BLK_FLUSH,	/* covers every write completed before it was submitted */
	BLK_DISCARD,	/* contents become undefined (zeros or old): never relied on (R8) */
	BLK_ZERO,	/* contents become zeros */
	BLK_CAW,	/* compare one sector with iov[0], if equal write iov[1], atomically */
};

enum blk_flags {
	BLK_FUA		= 1 << 0,	/* BLK_WRITE, BLK_ZERO: durable when it completes */
	BLK_MULTI_READ	= 1 << 1,	/* reserved for the gate: the read may be repeated */
};

/*
 * One request.  The submitter owns it, fills in the first part and leaves it and the buffers
 * alone until done() is called, exactly once, from any thread, possibly before
 * blkdev_submit() returns.  done() must not block.
 *
 * Errors: 0; -EIO the device failed, a write may or may not have landed; -ETIMEDOUT no
 * answer in time, the same; -EILSEQ a CAW found other contents and wrote nothing; -EBUSY a
 * CAW could not be tried and wrote nothing; -ENOSPC; -EROFS; -EINVAL out of range or
 * misaligned; -EBADE reservation conflict: we are fenced; -ESTALE the lease gate: our slot
 * is lost (R2); -ENOTSUP; -ECONNRESET only to a lease gate: see blkdev_ops.lease.
 */
struct blk_io {
	enum blk_op	op;
	unsigned int	flags;		/* enum blk_flags */
	uint64_t	off;		/* byte offset, a multiple of the sector */
	uint64_t	len;		/* bytes, a multiple of the sector; a CAW: one sector */
	const struct iovec *iov;	/* each base aligned to info.mem_align */
	int		iovcnt;
	void		(*done)(struct blk_io *io, int err);
	void		*arg;		/* the submitter's */

	struct blkdev	*dev;		/* set by blkdev_submit() */
	struct list	node;		/* the layer that holds the request */
	uint64_t	priv[8];	/* the backend's */
	uint64_t	gate_priv[4];	/* the lease gate's, in front of a backend */
	uint64_t	disk_priv[8];	/* a virtual disk's, in front of the gate */
};

/* Where compare-and-write comes from; recorded in the superblock. */
enum blk_caw {
	BLK_CAW_NONE	= 0,
	BLK_CAW_LOCAL	= 1,	/* lock file of one machine around read-compare-write */
	BLK_CAW_SCSI	= 2,	/* SCSI COMPARE AND WRITE */
	BLK_CAW_SIM	= 3,	/* the simulated backend */
};

struct blkdev_info {
	char		name[256];	/* as the administrator wrote it */
	uint64_t	size;		/* bytes */
	uint32_t	sector;		/* 512 or 4096: unit of atomic writes and of CAW */
	uint32_t	mem_align;	/* buffers' alignment */
	uint64_t	io_max;		/* bytes a request may have; backends split what is larger */
	uint32_t	discard_granularity;	/* bytes; 0: no discard */
	enum blk_caw	caw;
	bool		reservations;	/* persistent reservations work here */
	bool		read_only;
	bool		direct;		/* O_DIRECT is in force; false: buffered, flush is fdatasync */
	uint64_t	inflight_ns_max;	/* longest life of a command; 0: unknown */
	char		identity[128];	/* WWN, or "file:INODE:BIRTH"; "" where there is none */
};

/* Persistent reservations, SPC-4; the type is always write exclusive, all registrants. */
struct blkdev_pr_state {
	uint32_t	generation;	/* PRGENERATION */
	bool		held;		/* READ RESERVATION: ours is the type in force */
	unsigned int	key_count;
	uint64_t	keys[128];	/* READ KEYS */
};

struct blkdev_ops {
	void (*submit)(struct blkdev *dev, struct blk_io **ios, unsigned int count);
	/* Optional: executes one request in the calling thread, the cheap way, and returns its
	 * result; io->done is not called.  Same checks, same errors. */
	int (*run)(struct blkdev *dev, struct blk_io *io);
	/* Optional: waits until no command that timed out can still reach the device. */
	int (*drain)(struct blkdev *dev);
	/* Optional: see blkdev_refresh(). */
	int (*refresh)(struct blkdev *dev);
	/* Optional: what lies at @off: a hole, or data; see blkdev_extent(). */
	int (*extent)(struct blkdev *dev, uint64_t off, uint64_t *len, bool *mapped);
	/*
	 * Optional, for backends behind a network: the lease gate in front of them tells that
	 * requests may be sent before @until_ns of env_now_ns() only (R2); what is under way
	 * then is cut off.  From then on what was not sent is answered with -ECONNRESET, and so
	 * is, but for a compare-and-write, what was under way on a path that was lost, once
	 * nothing of it can land any more: the gate submits it again when the lease is valid.
	 * UINT64_MAX: there is no gate any more.  Any thread; does not block.
	 */
	void (*lease)(struct blkdev *dev, uint64_t until_ns);
	/*
	 * Optional, beside it: whether the lease has ended, and nothing that was submitted before
	 * can be sent any more.  Any thread; does not block.
	 */
	bool (*is_silent)(struct blkdev *dev);
	/*
	 * Optional, all four: the owner collects completions (blkdev_set_polled()).
	 * poll() calls done() of what has completed and returns how much that was; poll_fd()
	 * has an edge when there may be something to collect; wake() makes one.
	 */
	int (*set_polled)(struct blkdev *dev);
	int (*poll_fd)(struct blkdev *dev);
	unsigned int (*poll)(struct blkdev *dev);
	void (*wake)(struct blkdev *dev);
	/* Persistent reservations: all or none. */
	int (*pr_register)(struct blkdev *dev, uint64_t old_key, uint64_t new_key);
	int (*pr_reserve)(struct blkdev *dev, uint64_t key);
	int (*pr_preempt_abort)(struct blkdev *dev, uint64_t key, uint64_t victim);
	/* Optional: removes the reservation and every registration; @key is ours. */
	int (*pr_clear)(struct blkdev *dev, uint64_t key);
	int (*pr_read)(struct blkdev *dev, struct blkdev_pr_state *state);
	void (*close)(struct blkdev *dev);
};

struct blkdev {
	const struct blkdev_ops *ops;
	struct env		*env;
	struct blkdev_info	info;
};

/**
 * blkdev_submit() - starts @count requests as one batch.
 *
 * Requests out of range or misaligned complete with -EINVAL.  No order between requests is
 * promised.  Context: any thread; does not block on the device.
 */
void blkdev_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count);

/**
 * blkdev_rw() - one read or write, waited for.
 * @buf: @len bytes, aligned to info.mem_align.
 * Context: blocks.  Return: as struct blk_io says.
 */
int blkdev_rw(struct blkdev *dev, enum blk_op op, unsigned int flags, uint64_t off,
	      void *buf, size_t len);
int blkdev_rwv(struct blkdev *dev, enum blk_op op, unsigned int flags, uint64_t off,
	       const struct iovec *iov, int iovcnt);

static inline int blkdev_read(struct blkdev *dev, uint64_t off, void *buf, size_t len)
{
	return blkdev_rw(dev, BLK_READ, 0, off, buf, len);
}

static inline int blkdev_write(struct blkdev *dev, uint64_t off, const void *buf, size_t len)
{
	return blkdev_rw(dev, BLK_WRITE, 0, off, (void *)(uintptr_t)buf, len);
}

/** blkdev_flush() - makes every write completed before the call durable.  Blocks. */
int blkdev_flush(struct blkdev *dev);

/** blkdev_discard() - gives [@off, +@len) back; -ENOTSUP where the device cannot.  Blocks. */
int blkdev_discard(struct blkdev *dev, uint64_t off, uint64_t len);

/** blkdev_zero() - [@off, +@len) reads as zeros afterwards; writes zeros where it must. */
int blkdev_zero(struct blkdev *dev, uint64_t off, uint64_t len);

/**
 * blkdev_caw() - atomically replaces the sector at @off if it equals @expected.
 * @expected, @desired: one sector (info.sector bytes) each, aligned to info.mem_align.
 * Return: 0; -EILSEQ miscompare, nothing written; -EBUSY not tried; others: unclear, the
 * caller reads back (docs/LOCKING.md, "An unclear compare-and-write").
 */
int blkdev_caw(struct blkdev *dev, uint64_t off, const void *expected, const void *desired);

/**
 * blkdev_rw_batch() - submits @count prepared requests (op, flags, off, len, iov set) and
 * waits for all.  Return: 0, or the first error in array order.
 */
int blkdev_rw_batch(struct blkdev *dev, struct blk_io *ios, unsigned int count);

/**
 * blkdev_refresh() - asks the device for its size, which may have grown.
 * Context: blocks.  Return: 0; -ENOTSUP the backend cannot; -errno.
 */
int blkdev_refresh(struct blkdev *dev);

/** blkdev_size() - bytes; whatever other threads refresh meanwhile. */
static inline uint64_t blkdev_size(const struct blkdev *dev)
{
	return __atomic_load_n(&dev->info.size, __ATOMIC_RELAXED);
}

static inline void blkdev_set_size(struct blkdev *dev, uint64_t size)
{
	__atomic_store_n(&dev->info.size, size, __ATOMIC_RELAXED);
}

/** blkdev_drain() - see struct blkdev_ops; 0 at once where commands cannot outlive a wait. */
int blkdev_drain(struct blkdev *dev);

/**
 * blkdev_set_polled() - from now on the caller's thread collects completions.
 *
 * For reactors: no thread switch lies between the device and done(), and while requests are
 * under way collecting them costs no system call.  Call it before the first request; then
 * submit, poll and close from one thread only, without a lock.  Requests for which the
 * system has no asynchronous call (flush, discard, zero, CAW) still run on a thread of the
 * backend, but their done() is called by blkdev_poll() like the others'.  done() is called
 * by blkdev_poll(), blkdev_submit() and blkdev_close() and by nobody else.
 *
 * blkdev_rw() and its relatives go on working, on any thread, if the backend has run().
 * Return: 0; -ENOTSUP the backend completes on threads of its own only; -errno.
 */
int blkdev_set_polled(struct blkdev *dev);

/**
 * blkdev_poll_fd() - a descriptor to watch before sleeping; the device's.
 *
 * Watch it for EPOLLIN | EPOLLET and never read it: there is an edge after whatever makes
 * blkdev_poll() find something, but for what completes within blkdev_submit(): who has submitted
 * polls before it sleeps.  There may be edges without that.
 */
int blkdev_poll_fd(struct blkdev *dev);

/**
 * blkdev_poll() - calls done() of what has completed.  Never blocks; not from done().
 * Return: how many; 0 says that there is nothing more at present.
 */
unsigned int blkdev_poll(struct blkdev *dev);

/** blkdev_wake() - makes an edge of the poll descriptor.  Context: any thread. */
void blkdev_wake(struct blkdev *dev);

/**
 * blkdev_extent() - whether space is allocated at @off, and how far that goes on.
 * @len: receives the bytes from @off on for which the answer holds, at least 1.
 * @mapped: false where the backing has nothing and zeros are read.
 * Context: any thread; may block on the backing's metadata.
 * Return: 0; -ENOTSUP the backing does not know; -errno.
 */
int blkdev_extent(struct blkdev *dev, uint64_t off, uint64_t *len, bool *mapped);

/** blkdev_close() - waits for outstanding requests and frees @dev; NULL is allowed. */
void blkdev_close(struct blkdev *dev);

/* Of an array of bytes on the stack: aligned for I/O.  For a block or two that must be had
 * also when memory runs out: what keeps a host's lease and locks. */
#define BLKDEV_ALIGNED	__attribute__((aligned(4096)))

/** blkdev_alloc() - @size bytes aligned to 4096 for I/O, zeroed; NULL when out of memory. */
void *blkdev_alloc(size_t size);

#endif
