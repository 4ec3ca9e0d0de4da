/* SPDX-License-Identifier: Apache-2.0 */
/* Superblock: reading, believing and writing its three copies. */
#ifndef LUNFS_FS_SUPER_H
#define LUNFS_FS_SUPER_H

#include "fs/format.h"

/** super_encode() - @block receives the copy for address @addr. */
void super_encode(const struct super *s, uint64_t addr, void *block);

/**
 * super_decode() - believes the copy read from @addr or says why not.
 * Return: 0; -EUCLEAN no LunFS superblock or a value out of range; -EBADMSG damaged;
 * -EPROTONOSUPPORT a newer format or an unknown incompatible feature.
 */
int super_decode(const void *block, uint64_t addr, struct super *s, char *why, size_t why_size);

/**
 * super_read() - the newest believable copy: first, end of the device, middle.
 * @why: on failure the reason; on success what was wrong with the first copy, or "".
 *
 * Also compares with the device: -ENOSPC it shrank, -EMEDIUMTYPE sector size or
 * compare-and-write primitive differ, -EUCLEAN, -EBADMSG, -EPROTONOSUPPORT, -EIO.
 */
int super_read(struct blkdev *dev, struct super *s, char *why, size_t why_size);

/**
 * super_find() - as super_read() without comparing with the device: what mkfs must destroy
 * and fsck must tell about.
 */
int super_find(struct blkdev *dev, struct super *s, char *why, size_t why_size);

/** super_is_whole() - whether every copy says what @s says.  Return: 1, 0 or negative errno. */
int super_is_whole(struct blkdev *dev, const struct super *s);

/** super_caw_name() - for people. */
const char *super_caw_name(enum blk_caw caw);

/**
 * super_write() - writes every copy: the one at the end, the one in the middle, the first, each
 * flushed before the next is touched.  From the second on readers take the new one.
 */
int super_write(struct blkdev *dev, const struct super *s);

/*
 * What of a superblock changes while hosts use it: a volume grows (grow.h).  The size is stored
 * first, so whoever sees a group sees the size that it lies in.
 */
static inline uint32_t super_ag_count(const struct super *s)
{
	return __atomic_load_n(&s->ag_count, __ATOMIC_ACQUIRE);
}

static inline uint64_t super_size(const struct super *s)
{
	return __atomic_load_n(&s->size, __ATOMIC_RELAXED);
}

/* Addresses that follow from a superblock. */
static inline uint64_t super_ag_addr(const struct super *s, uint32_t ag)
{
	return s->ag_addr + (uint64_t)ag * s->ag_size;
}

/** super_end_addr() - of the copy in the volume's last block. */
static inline uint64_t super_end_addr(const struct super *s)
{
	return ALIGN_DOWN(super_size(s), (uint64_t)BLOCK_SIZE) - BLOCK_SIZE;
}

/**
 * super_groups_end() - groups end here, two blocks before the last copy: so the lock block and
 * header of the group that may follow when the volume grows never lie where the copy is.
 */
static inline uint64_t super_groups_end(const struct super *s)
{
	return super_end_addr(s) - 2 * BLOCK_SIZE;
}

/**
 * super_copy_place() - where the middle copy lies: at half the size, moved on by 1 MiB while
 * that is a group's own metadata or the place of its first inode cluster.
 */
uint64_t super_copy_place(const struct super *s);

/** super_copy_candidate() - the @i-th place to look for it on a device of @size bytes. */
#define SUPER_CANDIDATES	6u
static inline uint64_t super_copy_candidate(uint64_t size, unsigned int i)
{
	return ALIGN_DOWN(size / 2, (uint64_t)BLOCK_SIZE) + i * MIB;
}

/** super_ag_blocks() - blocks in group @ag; only the last may be short.  After the volume has
 * grown a group's header may still say fewer: what it says holds (alloc.h). */
uint32_t super_ag_blocks(const struct super *s, uint32_t ag);

/** super_ag_of() - the group that holds byte address @addr, or -ERANGE: fixed metadata. */
int super_ag_of(const struct super *s, uint64_t addr, uint32_t *ag);

static inline uint64_t super_journal_addr(const struct super *s, uint32_t slot)
{
	return s->journals_addr + (uint64_t)slot * s->journal_size;
}

static inline uint64_t super_orphan_addr(const struct super *s, uint32_t slot, uint32_t i)
{
	return s->orphans_addr + ((uint64_t)slot * s->orphan_blocks + i) * BLOCK_SIZE;
}

/**
 * super_ag_bitmaps() - bitmap blocks of every group.  The last one, which may be short, has as
 * many as the others: it grows in its place.
 */
static inline uint32_t super_ag_bitmaps(const struct super *s)
{
	return (uint32_t)DIV_ROUND_UP(s->ag_size >> BLOCK_SHIFT, BITMAP_BITS);
}

/** super_ag_meta() - blocks at the start of a group that are its own metadata. */
static inline uint32_t super_ag_meta(const struct super *s)
{
	return AG_BITMAP_BLOCK + super_ag_bitmaps(s);
}

/** super_groups_fitting() - groups that a volume of s->size has; a rest too small for a group
 * is left unused. */
uint64_t super_groups_fitting(const struct super *s);

/**
 * ag_bitmap_fresh() - bitmap block @index of group @ag, of @blocks blocks, while nothing is
 * allocated: the group's own metadata, a superblock copy and everything past the end are in use.
 */
void ag_bitmap_fresh(const struct super *s, uint32_t ag, uint32_t blocks, uint32_t index,
		     uint8_t bits[BITMAP_BYTES]);

/** ag_new_free() - free blocks of a group in which nothing is allocated yet. */
uint32_t ag_new_free(const struct super *s, uint32_t ag);

/**
 * super_is_space() - whether blocks [@block, +@count) lie in one group outside its own metadata
 * and the superblock copy: where an inode, map or directory may point to (R9).
 */
bool super_is_space(const struct super *s, uint64_t block, uint64_t count);

#endif
