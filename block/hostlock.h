/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host locks: on one machine, the file that says whether a process runs that is host X on
 * device Y.  It lies in blkfile_lock_dir(); its holder keeps an exclusive flock() on it.
 */
#ifndef LUNFS_BLOCK_HOSTLOCK_H
#define LUNFS_BLOCK_HOSTLOCK_H

#include "block/blkfile.h"

/**
 * hostlock_name() - the name of host @host_id's lock for the device behind @fd.
 * @lock_fd: the device's own lock file: the same name for every path to it; -1: there is none.
 * Return: 0 or negative errno.
 */
int hostlock_name(int fd, int lock_fd, const uint8_t host_id[16], char *name, size_t size);

/**
 * hostlock_is_free() - whether no process of this machine, in whatever container, is that host.
 * @why: where that cannot be told, the reason.
 * Return: 1; 0 it is held; negative errno.
 */
int hostlock_is_free(int fd, int lock_fd, const uint8_t host_id[16], char *why, size_t why_size);

#endif
