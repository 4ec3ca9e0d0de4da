/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: a small process beside parent and worker that ends a worker which is frozen
 * (fencing rung B; docs/LOCKING.md, "The guard").
 *
 * Worker and guard share one page of words, one for each datastore: 0, or the boot time at which
 * the worker is to be ended unless it has changed the word by then (lockd/gate.h).  Where a
 * watchdog device is configured the guard feeds it, but only as long as no word has lapsed: a
 * worker that cannot be killed, or a machine that is frozen as a whole, is reset by it.
 */
#ifndef LUNFS_DAEMON_GUARD_H
#define LUNFS_DAEMON_GUARD_H

#include <stdatomic.h>
#include <sys/types.h>

#include "base/types.h"

#define GUARD_WORDS	64u
#define GUARD_TICK_MS	100u
#define GUARD_SILENT_NS	(1000 * NSEC_PER_MSEC)	/* the guard itself counts as frozen after that */
#define GUARD_DEVICE_S	4	/* in which a watchdog device is asked to strike */

struct guard_page {
	_Atomic uint64_t alive_ns;	/* the guard's own: when it looked last */
	_Atomic uint64_t words[GUARD_WORDS];
};

enum guard_step {
	GUARD_FEED	= 1 << 0,	/* the watchdog device */
	GUARD_KILL	= 1 << 1,	/* the worker, now */
};

/**
 * guard_judge() - what is due at @now_ns.
 * @killed: whether the worker has been killed already, and is not gone yet.
 * @next_ns: when to look again at the latest.
 * Return: enum guard_step, several.
 */
unsigned int guard_judge(const struct guard_page *page, uint64_t now_ns, bool killed,
			 uint64_t *next_ns);

struct guard {
	pid_t	pid;
	int	pidfd;			/* of the guard */
	struct guard_page *page;
	int	page_fd;		/* for the worker; sealed: neither side can shrink it */
	int	device;			/* -1: none */
	uint32_t device_ms;		/* in which it strikes */
};

/**
 * guard_open() - the shared page, and the watchdog device if @device is not "".
 *
 * An open watchdog device runs: after a success guard_start() has to follow at once.
 * Return: 0; -errno with @why.
 */
int guard_open(const char *device, struct guard *g, char *why, size_t why_size);

/** guard_start() - the process, which ends when the one behind @worker_pidfd has.  Return: 0 or -errno. */
int guard_start(struct guard *g, int worker_pidfd);

/** guard_map() - the page, in the worker; NULL if it cannot be. */
struct guard_page *guard_map(int page_fd);

/** guard_is_alive() - in the worker: whether somebody looks at the words. */
bool guard_is_alive(const struct guard_page *page);

#endif
