/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot's journal as it lies on disk: what journal.c writes and journal_replay.c reads.
 *
 * Why one flush after the commit record is enough.  A transaction counts only if its commit
 * record verifies, names the sequence expected at that place and repeats the checksum of the
 * whole descriptor, and if every image has the checksum that the descriptor states.  So a
 * write that was torn, reordered or lost in any part leaves something that does not count,
 * and its parts need no order among themselves.  Remains of older transactions have smaller
 * sequences; those of an attempt that a crash cut off at this very place cannot be taken for
 * the new one either, because a replay moves the sequence past them.
 */
#ifndef LUNFS_FS_JOURNAL_RING_H
#define LUNFS_FS_JOURNAL_RING_H

#include "fs/format.h"

struct ring {
	struct blkdev	*dev;
	/* Where images may lie: orphan lists, and groups but for their lock blocks. */
	uint64_t	orphans_start, orphans_end;
	uint64_t	groups_start, groups_end, group_size;
	uint64_t	super_copy;	/* in a group, and not the journal's to write */
	uint8_t		volume[16];
	uint32_t	slot;
	uint64_t	addr;		/* of the two tail blocks */
	uint64_t	blocks;		/* in the ring */

	/* The tail as it is on disk. */
	uint64_t	sequence;	/* of the first transaction that is not at home */
	uint64_t	block;		/* ring index at which it begins */
	uint64_t	version;	/* of the tail block */
};

/* The next transaction to write: where ring_scan() stopped. */
struct ring_head {
	uint64_t	sequence;
	uint64_t	block;
	unsigned int	transactions;	/* from the tail up to here */
};

typedef int (*ring_image_fn)(void *arg, uint64_t addr, const void *block);

void ring_init(struct ring *r, struct blkdev *dev, const struct super *s, uint32_t slot);

/** ring_addr() - volume address of ring index @block. */
static inline uint64_t ring_addr(const struct ring *r, uint64_t block)
{
	return r->addr + (JOURNAL_TAIL_BLOCKS + block) * BLOCK_SIZE;
}

/** ring_rw() - @count blocks at ring index @block, in two pieces where the ring wraps. */
int ring_rw(const struct ring *r, enum blk_op op, uint64_t block, void *buf, uint64_t count);

/**
 * ring_read_tail() - the newer believable tail block into @r.
 * Return: 0; -EUCLEAN, -EBADMSG neither can be believed, with @why; -EIO.
 */
int ring_read_tail(struct ring *r, char *why, size_t why_size);

/** ring_write_tail() - over the older tail block; not flushed.  @r changes on success only. */
int ring_write_tail(struct ring *r, uint64_t sequence, uint64_t block);

/**
 * ring_scan() - reads the tail and all that was committed after it, oldest first.
 * Return: 0; -EUCLEAN, -EBADMSG damage that no power cut explains, with @why; errors of @image.
 */
int ring_scan(struct ring *r, ring_image_fn image, void *arg, struct ring_head *head,
	      char *why, size_t why_size);

/** ring_seal() - header and checksum of a descriptor or commit record at ring index @block. */
void ring_seal(const struct ring *r, enum meta_type type, uint64_t block, uint64_t sequence,
	       void *data);

/* A metadata block to be written to its home. */
struct home_block {
	uint64_t	addr;
	const void	*data;
};

/**
 * home_write() - writes all of @blocks, sorting them; inodes only after everything else has
 * completed, because readers without locks believe blocks by the inode's version.
 * Not flushed; needs no memory.  Return: 0 or the first error.
 */
int home_write(struct blkdev *dev, struct home_block *blocks, size_t count);

#endif
