/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a device by whatever name an administrator gives it. */
#ifndef LUNFS_BLOCK_BLKOPEN_H
#define LUNFS_BLOCK_BLKOPEN_H

#include "block/blkfile.h"

/* Beside enum blkfile_flags: the handle that a host's heartbeat has for itself. */
#define BLKOPEN_HEARTBEAT	(1u << 31)

/**
 * blkopen() - opens @name: a file, a block device, or an iSCSI LUN by its URL.
 * @flags: enum blkfile_flags, BLKOPEN_HEARTBEAT; of the former an iSCSI LUN takes
 *         BLKFILE_READ_ONLY alone.
 * @why:   receives one line on failure: object, cause, way out.
 * For tools: needs the privileges of opening, and blocks.
 * Return: 0; as blkfile_open(), or blkiscsi_parse(), blkiscsi_load() and blkiscsi_open().
 */
int blkopen(struct env *env, const char *name, unsigned int flags, struct blkdev **out, char *why,
	    size_t why_size);

/** blkopen_is_path() - whether @name is one of the filesystem's, not a URL. */
bool blkopen_is_path(const char *name);

#endif
