/* SPDX-License-Identifier: Apache-2.0 */
/* How a privileged parent starts its unprivileged worker, and both notice the other's end. */
#ifndef LUNFS_PROC_SPAWN_H
#define LUNFS_PROC_SPAWN_H

#include <sys/types.h>

#include "base/types.h"

/* Descriptors at which the worker finds its world after the exec. */
enum {
	SPAWN_FD_RPC	= 3,	/* packets to and from the parent */
	SPAWN_FD_LIFE	= 4,	/* closes with the parent; a byte from it says: stop */
	SPAWN_FD_MORE	= 5,	/* what else the parent gave it */
	SPAWN_FDS_MAX	= 4,	/* of these */
};

/* The parent's hold on its worker. */
struct spawn {
	pid_t	pid;
	int	pidfd;
	int	rpc, life;	/* the other ends */
};

/**
 * spawn_user() - whom a worker runs as: @name, or if it is empty lunfs if there is one, else
 * nobody; never root.
 * Return: 0; -ENOENT, -EINVAL with @why.
 */
int spawn_user(const char *name, uid_t *uid, gid_t *gid, char *why, size_t why_size);

/**
 * spawn_worker() - this program anew, as "@name --role=worker".
 * @fds: descriptors that the worker finds from SPAWN_FD_MORE on; closed here.
 *
 * It is still privileged: sandbox_drop() is its first act.  Its environment holds what
 * debugging needs and nothing else.  Return: 0 or -errno.
 */
int spawn_worker(const char *name, const int *fds, unsigned int fd_count, struct spawn *out);

/** spawn_tell_stop() - asks the worker to end. */
void spawn_tell_stop(const struct spawn *worker);

enum spawn_end { SPAWN_ENDED, SPAWN_FAILED, SPAWN_KILLED };

/** spawn_status() - how a worker ended whose pidfd is readable, in @why as a text. */
enum spawn_end spawn_status(const struct spawn *worker, char *why, size_t why_size);

/**
 * spawn_ignore_signals() - in the worker: keyboard and service managers signal the whole group;
 * the parent decides what happens.
 */
void spawn_ignore_signals(void);

/**
 * spawn_wait_stop() - in the worker: blocks until the parent says stop; ends the process if the
 * parent is no more.
 */
void spawn_wait_stop(void);

#endif
