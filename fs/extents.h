/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an open disk remembers of its map: runs of blocks and where they lie on the device,
 * parent images resolved already.
 *
 * A cache: it forgets what it has no room for, oldest use first, and whoever misses something
 * looks into the map (LOAD, disk_slow.c).  Blocks that follow each other in the file and on the
 * device are one run, so that 62 TiB lying together need some 16,000 runs of 16 bytes.
 * Context: one thread, the disk's owner.  Nothing here blocks.
 */
#ifndef LUNFS_FS_EXTENTS_H
#define LUNFS_FS_EXTENTS_H

#include "base/types.h"

enum extent_kind {
	EXTENT_ZERO	= 0,	/* reads as zeros; the first write is still to come */
	EXTENT_OWN	= 1,	/* valid in the image itself: read and overwritten in place */
	EXTENT_BELOW	= 2,	/* of a parent image: read there, never written */
	EXTENT_ROOM	= 3,	/* as EXTENT_ZERO, and the first write has its space: @block */
};

/* Blocks are numbers of 4096 bytes, in the file (@start) and on the device (@block). */
struct extent {
	uint64_t start : 42;
	uint64_t kind : 2;	/* enum extent_kind */
	uint64_t unused : 20;
	uint64_t block : 44;	/* 0 for EXTENT_ZERO */
	uint64_t len : 20;	/* in blocks, at least 1 */
};
static_assert(sizeof(struct extent) == 16, "62 TiB of a disk fit in 64 MiB");

#define EXTENT_LEN_MAX	((1u << 20) - 1)

static inline struct extent extent_make(uint64_t start, uint64_t len, enum extent_kind kind,
					uint64_t block)
{
	return (struct extent){
		.start = start & ((1ULL << 42) - 1), .kind = (unsigned int)kind & 3,
		.block = block & ((1ULL << 44) - 1), .len = len & EXTENT_LEN_MAX,
	};
}

#define EXTENTS_CHUNK	256u	/* runs in 4 KiB */

/* What a search has to know of a chunk without looking into it. */
struct extents_chunk {
	uint64_t	start : 42;	/* of its first run */
	uint64_t	count : 9;	/* runs; at least one */
	uint64_t	used : 1;	/* since the clock's hand was here */
	uint64_t	unused : 12;
	struct extent	*runs;
};

struct extents {
	struct extents_chunk *chunks;	/* in order */
	unsigned int	count, max;	/* chunks */
	unsigned int	room;		/* of the array */
	unsigned int	hand;		/* of the clock that evicts */
	uint64_t	evictions;
};

/** extents_init() - empty; @bytes: what it may use, at least 64 KiB. */
void extents_init(struct extents *x, size_t bytes);
void extents_fini(struct extents *x);

/**
 * extents_find() - the run that holds @block.
 * @e: receives the part of it from @block on: start, kind, block, len.
 * Return: false if it is not known.
 */
bool extents_find(struct extents *x, uint64_t block, struct extent *e);

/**
 * extents_set() - blocks [@start, @start + @len) are of @kind from now on, at @block of the
 * device.  Without memory they are forgotten instead.
 */
void extents_set(struct extents *x, uint64_t start, uint64_t len, enum extent_kind kind,
		 uint64_t block);

/** extents_forget() - nothing is known of [@start, @start + @len) any more. */
void extents_forget(struct extents *x, uint64_t start, uint64_t len);

/**
 * extents_room() - the file has space for [@start, @start + @len), at @block: what reads as zeros
 * there is EXTENT_ROOM from now on.  What else is known stays, and so does what is not.
 */
void extents_room(struct extents *x, uint64_t start, uint64_t len, uint64_t block);

/**
 * extents_freeze() - a snapshot was made: what was the image's own is its parent's, space for what
 * is still to be written too.
 */
void extents_freeze(struct extents *x);

/** extents_bytes() - memory in use. */
size_t extents_bytes(const struct extents *x);

#endif
