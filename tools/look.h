/* SPDX-License-Identifier: Apache-2.0 */
/* What a device holds, before it is overwritten. */
#ifndef LUNFS_TOOLS_LOOK_H
#define LUNFS_TOOLS_LOOK_H

#include <blkid/blkid.h>

#include "fs/super.h"
#include "lockd/slot.h"

#define LOOK_WHAT_SIZE	200

/** look_found() - a filesystem, a partition table, a RAID member: what libblkid knows.
 * @probe: on a device.  @what: receives its description.  Return: whether there is one. */
bool look_found(blkid_probe probe, char *what, size_t size);

/** look_at_ends() - look_found() at both ends of @dev.  Return: 1 there is one; 0; -errno. */
int look_at_ends(struct blkdev *dev, char *what, size_t size);

/** look_for_zeros() - whether [@off, +@len) reads zeros.  Return: 1; 0; -errno. */
int look_for_zeros(struct blkdev *dev, uint64_t off, uint64_t len);

/** look_at_slots() - reads the slots of the volume @s on @dev, free where they cannot be read.
 * @slots: SLOT_COUNT_MAX of them.  Return: how many are taken. */
unsigned int look_at_slots(struct blkdev *dev, const struct super *s, struct slot *slots);

/** look_for_beats() - waits two beats: whoever lives has renewed his slot by then.
 * @before: from look_at_slots().  Return: the first slot that was renewed, or -1. */
int look_for_beats(struct blkdev *dev, const struct super *s, const struct slot *before);

#endif
