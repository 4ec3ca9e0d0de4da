/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user front end: hands the guest's memory and a device's queues to a back end over a
 * socket, and takes them back.  Source: QEMU, docs/interop/vhost-user.rst.
 *
 * The back end may go away at any moment and come back: what it had taken and not given back
 * is in memory that we keep (INFLIGHT), the queues begin anew where their used rings stand,
 * and to the guest it was a long request.  What the back end says is checked (R9): one that
 * answers nonsense, or is another disk after it came back, ends in broken().
 *
 *              attach()                ready()             front_run()
 *   away ─────────────────► greeting ───────────► idle ◄──────────────► running
 *     ▲                         │                   │    front_halt()      │
 *     └──── lost() ◄────────────┴───────────────────┴──────────────────────┘
 */
#ifndef LUNFS_KVM_FRONT_H
#define LUNFS_KVM_FRONT_H

#include "base/reactor.h"
#include "kvm/memory.h"
#include "kvm/mmio.h"

#define FRONT_CONFIG_SIZE	60	/* of a block device, up to WRITE_ZEROES */

struct front;

/* All are called in the reactor's thread and may call back, front_close() excepted. */
struct front_ops {
	/* The first time that it has said what it is: features, config, queue_count are known. */
	void (*ready)(struct front *f, void *arg);
	/* The configuration has changed (a disk that has grown). */
	void (*changed)(struct front *f, void *arg);
	/* It is gone; bring another connection with front_attach(). */
	void (*lost)(struct front *f, void *arg);
	/* It cannot be worked with any more, @why. */
	void (*broken)(struct front *f, void *arg, const char *why);
};

struct front_params {
	struct reactor	*reactor;
	const struct vm_memory *memory;	/* borrowed */
	const struct front_ops *ops;
	void		*arg;
	unsigned int	queues_max;	/* to MMIO_QUEUES_MAX: how many we can use */
	uint64_t	features;	/* that a guest may have, vhost's own not among them */
	const int	*kick_fds;	/* one a queue; borrowed */
	const int	*call_fds;
};

struct front_queue {
	bool		ready;		/* by the driver */
	uint32_t	size;
	uint64_t	desc, avail, used;	/* guest addresses, checked to lie in memory */
};

/**
 * front_new() - without a back end.
 * Context: like all below, the reactor's thread unless they say more.  Return: 0 or -ENOMEM.
 */
int front_new(const struct front_params *p, struct front **out);

/** front_attach() - @fd, a connected socket, is the back end; takes it over.  Return: 0 or -errno,
 * with @fd closed. */
int front_attach(struct front *f, int fd);

/** front_run() - serve @queues (queue_count of them) with @features from now on; once there is a
 * back end, if there is none.  Copied. */
void front_run(struct front *f, const struct front_queue *queues, uint64_t features);

/**
 * front_halt() - serve them no more; calls @done(@arg) when nothing of the back end's will touch
 * the guest's memory for them.  @reset: the driver forgets them; else front_resume() goes on.
 */
void front_halt(struct front *f, bool reset, void (*done)(void *arg), void *arg);

/** front_resume() - goes on after a front_halt() that was no reset; nothing if nothing ran. */
void front_resume(struct front *f);

/** front_close() - frees it; a back end loses its connection. */
void front_close(struct front *f);

/* What ready() and changed() tell of. */
uint64_t front_features(const struct front *f);
const uint8_t *front_config(const struct front *f);	/* FRONT_CONFIG_SIZE bytes */
unsigned int front_queue_count(const struct front *f);

enum front_state { FRONT_AWAY, FRONT_GREETING, FRONT_IDLE, FRONT_RUNNING };

/** front_state() - as of just now.  Context: any thread. */
enum front_state front_state(const struct front *f);

#endif
