/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of fs/file*.c share: data pieces, units being changed. */
#ifndef LUNFS_FS_FILE_IO_H
#define LUNFS_FS_FILE_IO_H

#include "fs/fs.h"

#define FILE_BYTES_MAX	(6ULL << 50)	/* 6 PiB: a little less than a map of DEPTH_MAX holds */
static_assert((uint64_t)INLINE_POINTERS * LEAF_ENTRIES * NODE_POINTERS * NODE_POINTERS >=
	      FILE_BYTES_MAX / UNIT_SIZE, "every unit of a file can be mapped");
#define SHRUNK		FILE_SIZE_MAX	/* shrink_to of a listed file with nothing left to free */

/* ---- locks (file_io.c) ---- */

/**
 * file_rdlock()/file_wrlock() - rwlock of an inode whose cluster lock is in use; loaded, and
 * something that has contents.  Return: 0; -EISDIR; -EINVAL; -ESTALE it is free; -EBADF
 * (file_wrlock()) the cluster lock is not exclusive; errors.
 */
int file_rdlock(struct fs *fs, struct inode *ino);
int file_wrlock(struct fs *fs, struct inode *ino);
void file_rdunlock(struct fs *fs, struct inode *ino);
void file_wrunlock(struct fs *fs, struct inode *ino);

static inline uint64_t file_size(const struct inode *ino)
{
	return le64_to_cpu(inode_disk(ino)->size);
}

static inline bool file_is_inline(const struct inode *ino)
{
	return le32_to_cpu(inode_disk(ino)->flags) & INODE_INLINE;
}

/* ---- data (file_io.c) ---- */

#define PIECES_MAX	16u

/* Reads or writes of one kind, submitted together; neighbours are merged. */
struct pieces {
	struct fs	*fs;
	enum blk_op	op;
	unsigned int	count;
	struct iovec	iov[PIECES_MAX];
	struct blk_io	ios[PIECES_MAX];
};

void pieces_init(struct pieces *p, struct fs *fs, enum blk_op op);

/** pieces_add() - false: there is no room, submit first. */
bool pieces_add(struct pieces *p, uint64_t addr, void *buf, size_t len);

/**
 * pieces_submit() - does them, waits, and empties @p.  On a time-out also waits until no
 * command can land any more, so that blocks may be given back or written again (R4).
 */
int pieces_submit(struct pieces *p);

/**
 * file_data_written() - a write of data has ended with @err: flushes must cover it.  After a
 * time-out it waits until no command can land any more (R4).
 */
void file_data_written(struct fs *fs, int err);

/** file_overwritten() - the same for a write into valid blocks of @ino, and its times. */
void file_overwritten(struct fs *fs, struct inode *ino, int err);

/** file_times_are_late() - whether the next write should put times into the inode. */
bool file_times_are_late(struct fs *fs, struct inode *ino);

/** file_read_blocks() - whole blocks into an aligned buffer; holes become zeros.  rwlock held. */
int file_read_blocks(struct fs *fs, struct inode *ino, uint64_t off, void *buf, size_t len);

/** entry_run() - blocks from @block of the unit on, at most @max, that are alike valid or not. */
uint32_t entry_run(const struct map_entry *e, uint32_t block, uint32_t max, bool *valid);

static inline uint64_t entry_addr(const struct map_entry *e, uint32_t block)
{
	return (e->block + block) << BLOCK_SHIFT;
}

/** block_mask() - validity bits of blocks [@first, @end) of a unit. */
static inline uint64_t block_mask(uint32_t first, uint32_t end)
{
	uint64_t below = end < 64 ? (1ULL << end) - 1 : ~0ULL;

	return first < 64 ? below & ~((1ULL << first) - 1) : 0;
}

bool file_buf_is_aligned(const struct fs *fs, const void *buf);

/** file_write_within() - writes within the file's size.  rwlock held for writing. */
int file_write_within(struct fs *fs, struct inode *ino, uint64_t off, const void *buf, size_t len);

/** file_zero_within() - bytes [@from, @to) of one block read as zeros; written only where the
 * block is valid.  rwlock held for writing. */
int file_zero_within(struct fs *fs, struct inode *ino, uint64_t from, uint64_t to);

/**
 * file_zero_tail() - what the last block holds beyond the end of the file, up to @end, becomes
 * zero: before the file grows to @end without writing there.  A truncation leaves it, and so does
 * a write whose new size a crash lost.  rwlock held for writing.
 */
int file_zero_tail(struct fs *fs, struct inode *ino, uint64_t end);

/* ---- units (file_unit.c); all with rwlock held for writing ---- */

#define UNITS_MAX	8u	/* a transaction's: 2 MiB */

/* Units that one transaction changes, all in one leaf. */
struct units {
	uint64_t	first;
	unsigned int	count;
	struct map_entry e[UNITS_MAX];
	bool		changed[UNITS_MAX];
	bool		fresh[UNITS_MAX];	/* reserved, not allocated yet */
	unsigned int	run[UNITS_MAX];		/* of hold, where fresh */
	unsigned int	fresh_count;
	unsigned int	map_run;		/* first run of hold for map blocks */
	struct alloc_hold hold;
};

/** units_load() - entries of at most @max units from @first on, fewer at the end of a leaf. */
int units_load(struct fs *fs, struct inode *ino, uint64_t first, uint64_t max, struct units *u);

/**
 * units_reserve() - space for those that have none, and for map blocks; fewer units
 * (u->count shrinks) when no more fit into a transaction or onto the volume.
 * @order: of unit 0, if it is among them.
 */
int units_reserve(struct fs *fs, struct inode *ino, struct units *u, uint32_t order);

/**
 * units_commit() - one transaction: space taken, entries set, times, and @size if it is
 * larger than the file's.  Gives the space back in every case (units_cancel()).
 */
int units_commit(struct fs *fs, struct inode *ino, struct units *u, uint64_t size);
void units_cancel(struct fs *fs, struct units *u);

/** unit0_order() - of a first unit that must hold @end bytes of a file of @size bytes. */
uint32_t unit0_order(uint64_t end, uint64_t size);

/** unit0_grow() - the first unit moves to a larger run, 1 << @order blocks, if it is smaller. */
int unit0_grow(struct fs *fs, struct inode *ino, uint32_t order);

/** file_uninline() - the contents move from the inode to a first unit of @order. */
int file_uninline(struct fs *fs, struct inode *ino, uint32_t order);

/** file_set_inline() - within a transaction: an empty root area, INODE_INLINE set or not. */
void file_set_inline(struct inode_disk *di, bool is_inline);

/** unit_goal() - where space for @unit is best: behind the unit before it. */
uint64_t unit_goal(struct fs *fs, struct inode *ino, uint64_t unit);

/* ---- shrinking (file_trunc.c); rwlock held for writing ---- */

/** file_finish_shrink() - frees what an interrupted truncation left beyond the size, before
 * anything may make the file longer. */
int file_finish_shrink(struct fs *fs, struct inode *ino);

/** file_free_units() - units [@first, @last] become holes, in bounded transactions. */
int file_free_units(struct fs *fs, struct inode *ino, uint64_t first, uint64_t last);

#endif
