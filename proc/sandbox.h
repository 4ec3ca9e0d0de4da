/* SPDX-License-Identifier: Apache-2.0 */
/* How the worker gives up everything that it does not need, before it faces anybody (R9). */
#ifndef LUNFS_PROC_SANDBOX_H
#define LUNFS_PROC_SANDBOX_H

#include <sys/types.h>

#include "base/types.h"

/**
 * sandbox_keep_realtime() - while still privileged: raises the limits by which later an
 * unprivileged thread may go real-time and lock memory, and that of open files.
 */
void sandbox_keep_realtime(void);

/**
 * sandbox_drop() - becomes @uid:@gid for good: no groups, no capabilities, no_new_privs, not
 * dumpable; dies with its parent @parent from here on.  Started by somebody else than root it
 * stays that one.
 * @what: on failure, the call that failed.
 * Return: 0 or -errno; -ESRCH the parent has died already.
 */
int sandbox_drop(uid_t uid, gid_t gid, pid_t parent, const char **what);

/**
 * sandbox_lock_memory() - what is touched from now on stays in memory.
 * Return: 0 or -errno: the heartbeat then depends on how the machine swaps.
 */
int sandbox_lock_memory(void);

/**
 * sandbox_filter() - only system calls of the list are possible from here on, on every
 * thread; any other one ends the process.
 *
 * LUNFS_SECCOMP=log in the environment (for debugging) lets them through and has the kernel
 * log them; a build with sanitizers does the same, since these need calls of their own.
 * Return: 0 or -errno.
 */
int sandbox_filter(void);

/**
 * sandbox_agent() - for a root process that executes SCSI commands for a worker and does nothing
 * else: CAP_SYS_RAWIO and CAP_SYS_ADMIN are what is left to it, and of the system calls memory,
 * threads, packets on sockets that it has, and the ioctls of block/blkscsi.h.
 * Return: 0 or -errno.
 */
int sandbox_agent(void);

/** sandbox_filter_is_open() - whether it only logs, as said above. */
bool sandbox_filter_is_open(void);

#endif
