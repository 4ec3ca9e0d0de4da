/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount of a datastore for one command, and files that are to be gone if that does not get to
 * its end.  A process of its own, the keeper, tidies up when we are through or were killed.
 */
#ifndef LUNFS_TOOLS_SCRATCH_H
#define LUNFS_TOOLS_SCRATCH_H

#include <limits.h>
#include <sys/types.h>

#include "tools/cmd.h"

struct scratch {
	pid_t	keeper;
	int	pipe;		/* to the keeper; its end is ours */
	uint32_t sector;	/* of the volume that was mounted last … */
	char	device[PATH_MAX];	/* … and its device */
};

/** scratch_open() - starts the keeper; before any other thread.  Return: enum ctl_exit. */
int scratch_open(struct scratch *s);

/**
 * scratch_mount() - mounts datastore @ds (as an administrator names it), without the names that
 * others see it by.
 * @fd: receives its root directory, to be closed by the caller before scratch_close().
 */
int scratch_mount(struct scratch *s, struct cmd *c, const char *ds, int *fd);

/** scratch_doom() - @path (absolute, a file or an empty directory) is removed in the end, those
 * named last first, unless scratch_spare() comes. */
int scratch_doom(struct scratch *s, const char *path);
int scratch_spare(struct scratch *s, const char *path);

/** scratch_path() - the absolute path of @fd's file or directory.  Return: 0 or -errno. */
int scratch_path(int fd, char path[PATH_MAX]);

/** scratch_close() - waits until everything is tidy. */
void scratch_close(struct scratch *s);

#endif
