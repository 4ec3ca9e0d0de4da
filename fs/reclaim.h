/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving free space back to a thin device.
 *
 * Invariant (R8, R1): a block is discarded only while this host holds its group's lock and keeps
 * the block reserved, so that nobody can be given it before the discard has ended; what was freed
 * a moment ago and is still in quarantine is left alone.
 */
#ifndef LUNFS_FS_RECLAIM_H
#define LUNFS_FS_RECLAIM_H

#include "fs/fs.h"

struct reclaim {
	uint64_t at;		/* volume byte address to go on from; 0 at first */
	uint64_t discarded;	/* bytes so far */
	uint64_t busy;		/* bytes of groups that other hosts would not hand over */
};

/**
 * fs_reclaim_step() - discards at most @max bytes of free space from r->at on, and looks at
 * some 126 MiB of the volume at most.
 * Return: 1 more to do; 0 done; -ENOTSUP the device cannot discard; -EROFS; errors: r->at is
 * where it was.
 */
int fs_reclaim_step(struct fs *fs, struct reclaim *r, uint64_t max);

#endif
