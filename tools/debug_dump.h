/* SPDX-License-Identifier: Apache-2.0 */
/* A volume's metadata in a file, for a bug report, and a volume made from it. */
#ifndef LUNFS_TOOLS_DEBUG_DUMP_H
#define LUNFS_TOOLS_DEBUG_DUMP_H

#include "fs/super.h"

/**
 * debug_dump() - writes every block that a check of @dev reads to the new file @path, compressed.
 * @scramble: with other names (debug_scramble.h); -EBUSY while the volume is in use.
 *
 * Files' contents are left out, those within inodes too, unless they are in a journal only; names,
 * attributes and the targets of symbolic links are in it.
 * Return: 0; negative errno with @why.
 */
int debug_dump(struct blkdev *dev, const char *path, bool scramble, uint64_t *blocks, char *why,
	       size_t why_size);

/**
 * debug_restore() - makes the new sparse file @path from the dump in @dump: a volume of the same
 * size, with the metadata that was dumped and holes instead of contents.
 * Return: 0; -EINVAL @dump is none, -EBADMSG it is damaged; negative errno; with @why.
 */
int debug_restore(const char *dump, const char *path, uint64_t *blocks, char *why, size_t why_size);

#endif
