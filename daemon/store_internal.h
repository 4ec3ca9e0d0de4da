/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c and store_mount.c share. */
#ifndef LUNFS_DAEMON_STORE_INTERNAL_H
#define LUNFS_DAEMON_STORE_INTERNAL_H

#include "daemon/store.h"

#define UMOUNT_WAIT_SECONDS 3	/* for a mount that was just unmounted to be ended */

/** store_is_listed() - whether @wanted still exists; it is not looked into.  mutex held. */
bool store_is_listed(struct stores *all, const struct store *wanted);

/** store_put_locked() - store_put() with the mutex held; releases it where it detaches. */
void store_put_locked(struct store *s);

/**
 * store_detach_one() - detaches a datastore that nothing uses, or waits for a change: mutex held, and
 * released meanwhile.  @err: receives the first error.  Return: whether there is none any more.
 */
bool store_detach_one(struct stores *all, int *err);

#endif
