/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory of which another process can take the pages away: an access then raises
 * SIGBUS.  The guard puts zero pages there instead and raises a flag.
 *
 * The only state of the process in this library, because a signal handler is one.
 */
#ifndef LUNFS_VHOST_GUARD_H
#define LUNFS_VHOST_GUARD_H

#include <stdatomic.h>

#include "base/types.h"

/**
 * guard_install() - takes SIGBUS; guard_uninstall() gives it back to whoever had it.
 * A SIGBUS elsewhere ends the process, as it does without us.  Return: 0 or -errno.
 */
int guard_install(void);
void guard_uninstall(void);

/**
 * guard_add() - from now on an access to [@base, +@size) whose page is gone finds zeros in
 * the whole range, which is no longer shared with anybody, and sets *@broken.
 * Context: any thread.  Return: 0; -ENOSPC too many ranges in this process, or too many bytes.
 */
int guard_add(void *base, size_t size, atomic_bool *broken);

/** guard_remove() - before the range is unmapped; nothing if it is not guarded. */
void guard_remove(void *base);

#endif
