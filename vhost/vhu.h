/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vhost-user-blk back end: serves any struct blkdev to one front end (QEMU, lunvm) at a
 * time, on a reactor, from the guest's memory.
 *
 * Nothing that comes from a front end is trusted (R9): a front end that breaks the protocol,
 * a ring that makes no sense and memory that its owner shrinks end this device's connection
 * and nothing else.
 */
#ifndef LUNFS_VHOST_VHU_H
#define LUNFS_VHOST_VHU_H

#include "base/reactor.h"
#include "block/blkdev.h"

struct vhu_server;
struct vhu;

#define VHU_QUEUES_MAX	64
#define VHU_QUEUE_SIZE_MAX 1024
#define VHU_SERIAL_SIZE	20	/* VIRTIO_BLK_ID_BYTES; shorter ones are padded with NUL */

/**
 * vhu_server_new() - what all devices of a process share: the guard of mapped guest memory
 * (it takes SIGBUS) and the thread that closes descriptors of which closing could block.
 * One a process.  Return: 0 or -errno.
 */
int vhu_server_new(struct env *env, struct vhu_server **out);

/** vhu_server_free() - all its devices are gone. */
void vhu_server_free(struct vhu_server *s);

/* Why a device has no front end (any more). */
enum vhu_end {
	VHU_END_CLOSED,		/* the front end closed its socket */
	VHU_END_PROTOCOL,	/* it broke the protocol, or its memory went away: cut off */
	VHU_END_OWNER,		/* vhu_disconnect() or vhu_close() */
	VHU_END_REFUSED,	/* the owner did not let it start: vhu_start_done() */
};

/*
 * What the owner is told.  All are called in the reactor's thread, must not block and may
 * call back into the device, vhu_close() included.  All are optional.
 *
 *   connected ──► start ──► (vhu_start_done(0)) ──► stopped ──► start … ──► cut ──► closed
 *
 * start:   the front end has set its first ring up: take the disk's lock now (design,
 *          section 7), then call vhu_start_done(), from any thread.  Until then not one
 *          descriptor is read.  Called again after stopped.
 * stopped: all rings are stopped and no request is under way, so the disk may be handed
 *          over.  Rings stop for many reasons (a guest that reboots): no reason in itself
 *          to give the lock up.
 * cut:     nothing more is read from the front end, nor told to it: requests that wait for
 *          something (space) may end with an error, which it will not see.
 * closed:  the front end is gone and no request is under way.
 */
struct vhu_ops {
	void (*connected)(struct vhu *v, void *arg);
	void (*start)(struct vhu *v, void *arg);
	void (*stopped)(struct vhu *v, void *arg);
	void (*cut)(struct vhu *v, void *arg);
	void (*closed)(struct vhu *v, void *arg, enum vhu_end end, const char *why);
};

struct vhu_params {
	struct vhu_server *server;
	struct reactor	*reactor;	/* everything happens in its thread */
	/*
	 * The disk; borrowed.  Submitted to from the reactor's thread.  If it is polled its
	 * owner polls it on the same reactor (struct blkpoll); if not, done() may come from
	 * any thread and is handed over.
	 */
	struct blkdev	*dev;
	const char	*name;		/* for log lines: "ds1:/vm1/root.disk"; copied */
	char		serial[VHU_SERIAL_SIZE + 1];	/* what GET_ID answers */
	bool		read_only;	/* also if the blkdev is */
	bool		discard;	/* offer DISCARD (the blkdev must have it too) */
	unsigned int	queues_max;	/* 1 to VHU_QUEUES_MAX; 0: 16 */
	unsigned int	queue_size_max;	/* a power of two to VHU_QUEUE_SIZE_MAX; 0: 1024 */
	uint32_t	block_size;	/* logical block; 0: the blkdev's sector */
	uint32_t	physical_size;	/* for TOPOLOGY; 0: 4096 */
	uint32_t	io_opt;		/* bytes, optimal I/O size for TOPOLOGY; 0: none */
	const struct vhu_ops *ops;	/* NULL: rings start at once */
	void		*arg;		/* of the ops */
};

/**
 * vhu_new() - a device without a front end.
 * Context: any thread; the functions below belong to the reactor's unless they say more.
 * Return: 0; -ENOMEM; -EAGAIN no asynchronous I/O context left (fs.aio-max-nr).
 */
int vhu_new(const struct vhu_params *p, struct vhu **out);

/**
 * vhu_listen() - accepts front ends on @fd, a listening Unix stream socket; takes it over.
 *
 * One front end at a time: another that connects waits in the socket's queue, because the
 * first may be gone already (a front end that reconnects) and only not be known to be.
 * Return: 0 or -errno, then @fd stays the caller's.
 */
int vhu_listen(struct vhu *v, int fd);

/**
 * vhu_retire() - nobody can connect any more, if nobody has: whoever did before this is found.
 * Return: 0; -EBUSY there is a front end, all is as it was; -EAGAIN one was waiting to be accepted
 * and is served now, but others need another socket: vhu_listen() again.
 */
int vhu_retire(struct vhu *v);

/** vhu_attach() - @fd, a connected Unix stream socket, is the front end; takes it over.
 * Return: 0; -EBUSY there is one; -errno, then @fd stays the caller's. */
int vhu_attach(struct vhu *v, int fd);

/** vhu_start_done() - the owner's answer to start(): 0, or why not; any thread, once. */
void vhu_start_done(struct vhu *v, int err);

/** vhu_disconnect() - cuts the front end off; closed() follows, perhaps later.  @why is copied. */
void vhu_disconnect(struct vhu *v, const char *why);

/** vhu_is_stopped() - there is a front end, its rings are stopped, and it has not begun to start any. */
bool vhu_is_stopped(const struct vhu *v);

/** vhu_resized() - the blkdev's info.size has changed: the guest is told.  Any thread. */
void vhu_resized(struct vhu *v);

struct vhu_stats {
	uint64_t ops[4];		/* completed: reads, writes, flushes, discards and zeroes */
	uint64_t bytes[2];		/* of reads, of writes */
	uint64_t errors;
	uint64_t bounced;		/* requests whose buffers were not aligned */
	uint64_t calls;			/* interrupts sent */
	unsigned int in_flight;
	bool	connected;
	bool	running;		/* at least one ring is served */
};

/** vhu_stats() - since the device was made. */
void vhu_stats(const struct vhu *v, struct vhu_stats *stats);

/**
 * vhu_close() - stops listening, cuts the front end off and frees @v when no request is under
 * way any more; then calls @done(@arg), unless it is NULL.
 *
 * No requests are lost: a front end that tracks them (INFLIGHT_SHMFD) resubmits what was not
 * completed to the next back end.
 */
void vhu_close(struct vhu *v, void (*done)(void *arg), void *arg);

/** vhu_close_sync() - vhu_close() from another thread than the reactor's; blocks. */
void vhu_close_sync(struct vhu *v);

#endif
