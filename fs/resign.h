/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_FS_RESIGN_H
#define LUNFS_FS_RESIGN_H

#include "fs/fs.h"

/**
 * resign() - makes a copied device a volume of its own: before joining, fs->super read.
 *
 * The copy's slots look alive as they were when it was taken.  They are watched for as long
 * as suspicion takes: if one moves, the copy is in use: -EBUSY.  None does: their journals are
 * replayed and they are freed here, without fencing, because the processes that they name
 * work on the original and must not be killed.  Then the superblock gets a new volume id and
 * this device's identity.  Blocks keep the metadata's own uuid.
 * Context: blocks for lease + margin.  One host at a time: an administrator's single act.
 */
int resign(struct fs *fs, char *why, size_t why_size);

#endif
