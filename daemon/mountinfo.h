/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted, as /proc/self/mountinfo says: reading it never waits for a filesystem. */
#ifndef LUNFS_DAEMON_MOUNTINFO_H
#define LUNFS_DAEMON_MOUNTINFO_H

#include <limits.h>
#include <stdio.h>

#include "base/types.h"

#define MOUNT_TYPE	"fuse.lunfs"

/**
 * mountinfo_find() - the mount that lies on top at @dir.
 * @in:    text in the format of proc_pid_mountinfo(5).
 * @minor: receives the minor number of its device if it is a LunFS mount.
 *
 * Return: 0 a LunFS mount; -EMEDIUMTYPE another one; -ENOENT nothing is mounted there;
 * -EIO, -ENOMEM it could not be read to its end.
 */
int mountinfo_find(FILE *in, const char *dir, uint32_t *minor);

/** mountinfo_find_now() - the same of this process. */
int mountinfo_find_now(const char *dir, uint32_t *minor);

/**
 * mountinfo_where() - the first place where LunFS device @minor is mounted, on top or not.
 * @in:    as above.
 * @dir:   only this place counts; NULL: any.
 * @where: receives it.
 *
 * Return: 1, 0 nowhere, -EIO, -ENOMEM as above.
 */
int mountinfo_where(FILE *in, const char *dir, uint32_t minor, char where[PATH_MAX]);

/** mountinfo_has_minor() - whether LunFS device @minor is mounted at @dir, on top or not: 1, 0 or
 * negative errno. */
int mountinfo_has_minor(const char *dir, uint32_t minor);

#endif
