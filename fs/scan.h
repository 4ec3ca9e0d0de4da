/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds volumes on a device whose beginning is gone: lunfs scan.
 *
 * What a guest's disk holds is the guest's, even a whole volume, even one that carries this
 * volume's id.  So a superblock copy counts by where it lies, not by what it says.  No file
 * can have the first copy's block and the last one's, which lie outside of all groups, nor
 * the one in the middle.  A volume that its first or last copy speaks for is *sure*, and
 * whatever lies within it, its own three places apart, is some file's: told of, never offered.
 */
#ifndef LUNFS_FS_SCAN_H
#define LUNFS_FS_SCAN_H

#include "fs/super.h"

#define SCAN_VOLUMES_MAX	4096u

enum scan_place { SCAN_FIRST, SCAN_MIDDLE, SCAN_END, SCAN_PLACES };

enum scan_copy {
	SCAN_GOOD,	/* says what the newest one says */
	SCAN_OLD,	/* an older version of it */
	SCAN_DIFFERS,	/* another volume's, or another layout */
	SCAN_DAMAGED,	/* cannot be believed */
	SCAN_MISSING,	/* cannot be read, or beyond the end of the device */
};

struct scan_volume {
	uint64_t start;			/* of the volume, byte address on the device */
	struct super super;		/* as the newest of its copies has it */
	enum scan_copy copies[SCAN_PLACES];
	uint32_t groups_seen, groups_tried;	/* group headers that bear it out */
	bool	sure;			/* the first or the last copy speaks for it */
	bool	inside;			/* within a sure volume: a guest's, or forged */
	uint64_t outer;			/* @inside: start of that volume */
};

struct scan_params {
	struct blkdev *dev;		/* only read */
	/* Optional: @done of @total bytes. */
	void	(*progress)(void *arg, uint64_t done, uint64_t total);
	void	*arg;
};

struct scan_result {
	struct scan_volume *volumes;	/* by start; to be freed with scan_free() */
	size_t	count;
	uint64_t dropped;		/* copies of more volumes than SCAN_VOLUMES_MAX */
	uint64_t unreadable;		/* bytes */
};

/**
 * scan_device() - reads all of @p->dev and tells of every volume that a copy of a superblock
 * states.  Memory: a MiB or two, whatever the device holds.  Context: blocks.
 * Return: 0; -ENOMEM.
 */
int scan_device(const struct scan_params *p, struct scan_result *r);
void scan_free(struct scan_result *r);

/**
 * scan_choose() - the one volume whose superblock may be restored on the device scanned: it
 * begins where the device does, is sure, and fits.
 * Return: 0; -ENOENT nothing to restore, -ENOTUNIQ several claim the place; with @why.
 */
int scan_choose(const struct scan_result *r, const struct blkdev *dev,
		const struct scan_volume **out, char *why, size_t why_size);

/** scan_place_addr() - where in its volume the superblock @s has this copy, in bytes. */
uint64_t scan_place_addr(const struct super *s, enum scan_place place);

/** scan_copy_name() - "good", "old", … */
const char *scan_copy_name(enum scan_copy copy);

#endif
