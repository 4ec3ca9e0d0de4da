/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other names for a dump, of the same lengths, in directories that are as sound as before.
 *
 * A directory is sorted by the hashes of its names, so a name may only become one whose hash lies
 * within the same leaf.  Such names are tried for, from a key of this dump alone; the same name
 * in the same directory always becomes the same other one, so that inodes lead back to it.
 */
#ifndef LUNFS_TOOLS_DEBUG_SCRAMBLE_H
#define LUNFS_TOOLS_DEBUG_SCRAMBLE_H

#include "fs/super.h"

#define SCRAMBLE_KEPT	4u	/* bytes; names that short would collide, and tell little */

struct scramble {
	struct blkdev	*dev;		/* only read; nobody changes it meanwhile */
	const struct super *s;
	uint8_t		key[16];	/* random; forgotten with the dump */
	void		*block, *leaf;	/* BLOCK_SIZE each */
	uint64_t	dir, low, high;	/* the leaf that was looked for last */
	bool		dir_keeps;	/* its names are ids, not people's */
};

/** scramble_init() - Return: 0 or -ENOMEM; scramble_fini() in every case. */
int scramble_init(struct scramble *x, struct blkdev *dev, const struct super *s);
void scramble_fini(struct scramble *x);

/** scramble_block() - @block, read from @addr: names and targets of symbolic links in it are
 * replaced, its checksum is right again.  What cannot be believed stays as it is, but for names:
 * a damaged inode, directory leaf or attribute block is zeroed. */
void scramble_block(struct scramble *x, uint64_t addr, void *block);

#endif
