/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_TOOLS_VOLUME_OPEN_H
#define LUNFS_TOOLS_VOLUME_OPEN_H

#include "block/blkopen.h"

/**
 * volume_open() - opens what may be a volume, to read, in the way that its superblock says it
 * was made for: a file of 4096-byte sectors, a block device of this machine alone.
 * Where there is no superblock it is opened all the same.
 * @why: receives one line on failure.
 * Return: 0 or -errno of blkopen().
 */
int volume_open(const char *path, struct blkdev **dev, char *why, size_t why_size);

#endif
