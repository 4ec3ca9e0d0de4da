/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c and store_mount.c share. */
#ifndef LUNFS_DAEMON_STORE_INTERNAL_H
#define LUNFS_DAEMON_STORE_INTERNAL_H

#include "daemon/store.h"

#define UMOUNT_WAIT_SECONDS 10	/* for a mount that the kernel is through with to be ended */

/** store_is_listed() - whether @wanted still exists; it is not looked into.  mutex held. */
bool store_is_listed(struct stores *all, const struct store *wanted);

/** store_put_locked() - store_put() with the mutex held; releases it where it detaches. */
void store_put_locked(struct store *s);

/**
 * store_detach_one() - detaches a datastore that nothing uses, or waits for a change: mutex held, and
 * released meanwhile.  @err: receives the first error.  Return: whether there is none any more.
 */
bool store_detach_one(struct stores *all, int *err);

/** store_is_ending() - whether a mount of @s is, that the kernel is through with.  mutex held. */
bool store_is_ending(const struct store *s);

/** store_wait_for_mounts() - until mounts of @s that umount(8) is through with have ended, or for
 * UMOUNT_WAIT_SECONDS.  mutex held, and released meanwhile; the caller has a reference. */
void store_wait_for_mounts(struct store *s);

/** store_end_mounts() - unmounts all of @s; who still uses one sees ENOTCONN.  As above. */
void store_end_mounts(struct store *s);

/** store_say_mounted() - @why: where @s is mounted, or who keeps it from ending.  As above. */
void store_say_mounted(struct store *s, char *why, size_t why_size);

#endif
