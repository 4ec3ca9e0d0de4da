/* SPDX-License-Identifier: Apache-2.0 */
/* fallocate(2): space in advance, holes, zeros. */
#include <errno.h>

#include "fs/file_io.h"
#include "fs/image.h"

#define CLEAR_MAX	32u	/* units of one leaf in one transaction */

/* ---- clearing validity ---- */

/* Units whose bits for blocks [first, end) of the file are to go. */
struct clear_batch {
	unsigned int	count;
	uint64_t	unit[CLEAR_MAX];
	struct map_entry e[CLEAR_MAX];
};

/* From *@unit on, all in one leaf; *@unit moves behind what was looked at. */
static int clear_collect(struct fs *fs, struct inode *ino, uint64_t first, uint64_t end,
			 uint64_t *unit, struct clear_batch *b)
{
	struct map_entry e;
	int err;

	for (b->count = 0; *unit * UNIT_BLOCKS < end && b->count < CLEAR_MAX; ++*unit) {
		uint64_t start, at = *unit, mask;

		err = map_next(fs, ino, &at, &e);
		if (err || at * UNIT_BLOCKS >= end) {
			*unit = DIV_ROUND_UP(end, UNIT_BLOCKS);
			return err == -ENOENT ? 0 : err;
		}
		if (b->count && at / LEAF_ENTRIES != b->unit[0] / LEAF_ENTRIES)
			return 0;
		*unit = at;
		start = at * UNIT_BLOCKS;
		mask = block_mask(first > start ? (uint32_t)(first - start) : 0,
				  end - start < UNIT_BLOCKS ? (uint32_t)(end - start) : UNIT_BLOCKS);
		if (!(e.valid & mask))
			continue;
		e.valid &= ~mask;
		b->unit[b->count] = at;
		b->e[b->count++] = e;
	}
	return 0;
}

/* Blocks [@first, @end) are not valid any more: zeros, or what a parent image shows. */
static int clear_valid(struct fs *fs, struct inode *ino, uint64_t first, uint64_t end)
{
	uint64_t unit = first / UNIT_BLOCKS;
	struct clear_batch b;
	struct txn txn;
	int err = 0;

	while (!err && unit * UNIT_BLOCKS < end) {
		err = clear_collect(fs, ino, first, end, &unit, &b);
		if (err || !b.count)
			continue;
		err = map_set_prepare(fs, ino, b.unit[0]);
		if (!err)
			err = txn_begin(fs, 1 + MAP_CREDITS, &txn);
		if (err)
			break;
		inode_touch(&txn, ino, true);
		for (unsigned int i = 0; !err && i < b.count; i++)
			err = map_set(&txn, ino, b.unit[i], &b.e[i], NULL, 0);
		txn_end(&txn);
	}
	return err;
}

/* ---- the same over a parent image ---- */

/* @unit shows nothing of the parent from now on, nor anything of its own. */
static int detach_unit(struct fs *fs, struct inode *ino, uint64_t unit, struct map_entry *e)
{
	static const uint32_t ones[2 * DEPTH_MAX + 1] = { 1, 1, 1, 1, 1, 1, 1 };
	struct alloc_hold hold = { 0 };
	unsigned int need;
	struct txn txn;
	int err = map_blocks_needed(fs, ino, unit, &need);

	if (!err && !need)
		err = map_set_prepare(fs, ino, unit);
	if (!err && need)
		err = alloc_reserve(fs, ones, need, ino->number, &hold);
	if (!err && need)
		err = alloc_make_room(fs, &hold, 0);
	if (err)
		return err;
	e->detached = true;
	e->valid = 0;
	err = txn_begin(fs, 1 + MAP_CREDITS + 3 + need, &txn);
	if (!err) {
		inode_touch(&txn, ino, true);
		err = map_set(&txn, ino, unit, e, &hold, 0);
		txn_end(&txn);
	}
	if (need)
		alloc_put(fs, &hold);
	return err;
}

/* A part of @unit: zeros are written where the parent shows, the rest is cleared. */
static int zero_part(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask,
		     const struct map_entry *e)
{
	static const uint8_t zeros[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
	uint64_t addr[UNIT_BLOCKS], block, at;
	int err = image_below(fs, ino, unit, mask, e, addr);

	for (; !err && mask; mask &= mask - 1) {
		block = unit * UNIT_BLOCKS + (uint64_t)__builtin_ctzll(mask);
		at = block * BLOCK_SIZE;
		if (!addr[__builtin_ctzll(mask)])
			err = clear_valid(fs, ino, block, block + 1);
		else if (at < file_size(ino))
			err = file_write_within(fs, ino, at, zeros, file_size(ino) - at < BLOCK_SIZE ?
						file_size(ino) - at : BLOCK_SIZE);
	}
	return err;
}

static int zero_unit(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask)
{
	struct map_entry e;
	int err = map_get(fs, ino, unit, &e);

	if (err)
		return err;
	if (mask == ~0ULL)
		return e.detached && !e.valid ? 0 : detach_unit(fs, ino, unit, &e);
	return zero_part(fs, ino, unit, mask, &e);
}

/* Blocks [@first, @end) of the file read as zeros; their space stays. */
static int zero_blocks(struct fs *fs, struct inode *ino, uint64_t first, uint64_t end)
{
	uint64_t limit = le64_to_cpu(inode_disk(ino)->image_limit) / BLOCK_SIZE;
	uint64_t stop = end < limit ? end : limit, unit, start;
	int err = 0;

	for (unit = first / UNIT_BLOCKS; !err && unit * UNIT_BLOCKS < stop; unit++) {
		err = image_next(fs, ino, &unit);
		start = unit * UNIT_BLOCKS;
		if (err == -ENOENT || (!err && start >= stop)) {
			err = 0;
			break;
		}
		if (err)
			break;
		err = zero_unit(fs, ino, unit,
				block_mask(first > start ? (uint32_t)(first - start) : 0,
					   end - start < UNIT_BLOCKS ? (uint32_t)(end - start) :
					   UNIT_BLOCKS));
	}
	/* Behind what shows nothing but our own is to be cleared; a unit may be met twice. */
	if (!err && end > stop)
		err = clear_valid(fs, ino, first > stop ? first : stop, end);
	return err;
}

/* ---- zeroing a range ---- */

/* Bytes of a range that are not whole blocks are zeroed in place; whole ones are returned. */
static int zero_edges(struct fs *fs, struct inode *ino, uint64_t off, uint64_t end,
		      uint64_t *first, uint64_t *last)
{
	int err = 0;

	*first = DIV_ROUND_UP(off, BLOCK_SIZE);
	/* The last block may go whole if the range reaches the end of the file. */
	*last = end >= file_size(ino) ? DIV_ROUND_UP(end, BLOCK_SIZE) : end / BLOCK_SIZE;
	if (*first > *last)
		return file_zero_within(fs, ino, off, end);
	if (off % BLOCK_SIZE) {
		uint64_t stop = *first * BLOCK_SIZE;

		err = file_zero_within(fs, ino, off, stop < end ? stop : end);
	}
	if (!err && *last * BLOCK_SIZE < end && *last * BLOCK_SIZE >= off)
		err = file_zero_within(fs, ino, *last * BLOCK_SIZE, end);
	return err;
}

static int touch(struct fs *fs, struct inode *ino)
{
	struct txn txn;
	int err = txn_begin(fs, 1, &txn);

	if (err)
		return err;
	inode_touch(&txn, ino, true);
	txn_end(&txn);
	return 0;
}

static int zero_inline(struct fs *fs, struct inode *ino, uint64_t off, uint64_t end)
{
	struct inode_disk *di;
	struct txn txn;
	int err = txn_begin(fs, 1, &txn);

	if (err)
		return err;
	di = inode_touch(&txn, ino, true);
	end = end < file_size(ino) ? end : file_size(ino);
	if (off < end)
		memset(di->root + off, 0, end - off);
	txn_end(&txn);
	return 0;
}

static int punch(struct fs *fs, struct inode *ino, uint64_t off, uint64_t end)
{
	uint64_t first, last, unit, stop;
	struct map_entry e;
	int err;

	if (file_is_inline(ino))
		return zero_inline(fs, ino, off, end);
	err = zero_edges(fs, ino, off, end, &first, &last);
	if (!err && first < last)
		err = zero_blocks(fs, ino, first, last);
	if (!err)
		err = touch(fs, ino);
	if (err || first >= last)
		return err;
	unit = DIV_ROUND_UP(first, UNIT_BLOCKS);
	stop = last / UNIT_BLOCKS;
	if (!unit && !stop) {	/* a small first unit is whole with fewer blocks */
		err = map_get(fs, ino, 0, &e);
		if (!err && e.block && 1ULL << e.order <= last)
			stop = 1;
	}
	return err || unit >= stop ? err : file_free_units(fs, ino, unit, stop - 1);
}

/* ---- allocating ---- */

/* The next unit of [*@unit, @last] without space; false: none. */
static int next_hole(struct fs *fs, struct inode *ino, uint64_t *unit, uint64_t last, bool *found)
{
	struct map_entry e;
	int err;

	for (*found = false; *unit <= last; ++*unit) {
		err = map_get(fs, ino, *unit, &e);
		if (err)
			return err;
		if (!e.block) {
			*found = true;
			return 0;
		}
	}
	return 0;
}

/* @size: what the file may grow to with it. */
static int allocate_range(struct fs *fs, struct inode *ino, uint64_t off, uint64_t end,
			  uint64_t size)
{
	uint32_t order = unit0_order(end, file_size(ino));
	uint64_t unit = off / UNIT_SIZE, last = (end - 1) / UNIT_SIZE, reached;
	struct units u;
	bool found;
	int err = 0;

	if (!unit)
		err = unit0_grow(fs, ino, order);
	for (; !err; unit += u.count) {
		err = next_hole(fs, ino, &unit, last, &found);
		if (err || !found)
			break;
		err = units_load(fs, ino, unit, last - unit + 1, &u);
		if (!err)
			err = units_reserve(fs, ino, &u, order);
		if (err)
			break;
		reached = (unit + u.count) * UNIT_SIZE;
		err = units_commit(fs, ino, &u, size < reached ? size : reached);
	}
	return err;
}

static int allocate(struct fs *fs, struct inode *ino, unsigned int flags, uint64_t off,
		    uint64_t end)
{
	uint64_t size = flags & FILE_KEEP_SIZE ? 0 : end;
	struct inode_disk *di;
	struct txn txn;
	int err = 0;

	if (file_is_inline(ino) && end > INLINE_SIZE)
		err = file_uninline(fs, ino, unit0_order(end, 0));
	if (!err)
		err = file_zero_tail(fs, ino, size);
	if (!err && !file_is_inline(ino))
		err = allocate_range(fs, ino, off, end, size);
	if (!err)
		err = txn_begin(fs, 1, &txn);
	if (err)
		return err;
	di = inode_touch(&txn, ino, true);
	if (size > le64_to_cpu(di->size))
		di->size = cpu_to_le64(size);
	txn_end(&txn);
	return 0;
}

static int zero(struct fs *fs, struct inode *ino, unsigned int flags, uint64_t off, uint64_t end)
{
	uint64_t first, last;
	int err;

	if (file_is_inline(ino)) {
		err = zero_inline(fs, ino, off, end);
	} else {
		err = zero_edges(fs, ino, off, end, &first, &last);
		if (!err && first < last)
			err = zero_blocks(fs, ino, first, last);
	}
	if (!err && flags & FILE_CLEAR)
		return touch(fs, ino);
	return err ? err : allocate(fs, ino, flags, off, end);
}

int file_allocate(struct fs *fs, struct inode *ino, unsigned int flags, uint64_t off,
		  uint64_t len)
{
	unsigned int what = flags & (FILE_PUNCH | FILE_ZERO | FILE_CLEAR);
	int err;

	if (!len || what & (what - 1) || flags & ~(what | FILE_KEEP_SIZE))
		return -EINVAL;
	if (off > FILE_BYTES_MAX || len > FILE_BYTES_MAX - off) {
		if (!(flags & (FILE_PUNCH | FILE_CLEAR)))
			return -EFBIG;
		if (off >= FILE_BYTES_MAX)
			return 0;
		len = FILE_BYTES_MAX - off;	/* nothing lies beyond */
	}
	err = file_wrlock(fs, ino);
	if (err)
		return err;
	err = file_finish_shrink(fs, ino);
	if (!err && flags & FILE_PUNCH)
		err = punch(fs, ino, off, off + len);
	else if (!err && flags & (FILE_ZERO | FILE_CLEAR))
		err = zero(fs, ino, flags, off, off + len);
	else if (!err)
		err = allocate(fs, ino, flags, off, off + len);
	file_wrunlock(fs, ino);
	return err;
}

/* ---- blocks of zeros ---- */

static bool is_zero(const uint8_t *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

/* Blocks of @mask, of @unit, that hold only zeros. */
static int zeros_of(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask, uint8_t *buf,
		    uint64_t *zeros)
{
	uint64_t at = unit * UNIT_SIZE, left = file_size(ino) > at ? file_size(ino) - at : 0, len;
	int err;

	*zeros = 0;
	if (left > UNIT_SIZE)
		left = UNIT_SIZE;
	len = ALIGN_UP(left, BLOCK_SIZE);
	err = len ? file_read_blocks(fs, ino, at, buf, len) : 0;
	for (uint64_t off = 0; !err && off < left; off += BLOCK_SIZE)
		if (mask >> off / BLOCK_SIZE & 1 &&
		    is_zero(buf + off, left - off < BLOCK_SIZE ? left - off : BLOCK_SIZE))
			*zeros |= 1ULL << off / BLOCK_SIZE;
	return err;
}

static int set_entry(struct fs *fs, struct inode *ino, uint64_t unit, const struct map_entry *e)
{
	struct txn txn;
	int err = map_set_prepare(fs, ino, unit);

	if (!err)
		err = txn_begin(fs, 1 + MAP_CREDITS, &txn);
	if (err)
		return err;
	inode_change(&txn, ino);
	err = map_set(&txn, ino, unit, e, NULL, 0);
	txn_end(&txn);
	return err;
}

/* What a parent image shows where this one has no block must stay as it is. */
static int drop_zeros(struct fs *fs, struct inode *ino, uint64_t unit, struct map_entry *e,
		      uint8_t *buf, uint64_t *dropped)
{
	bool parent = inode_has_parent(ino) && !e->detached &&
		      unit * UNIT_SIZE < le64_to_cpu(inode_disk(ino)->image_limit);
	uint64_t zeros;
	int err = zeros_of(fs, ino, unit, e->valid, buf, &zeros);

	if (err || !zeros || (parent && zeros != ~0ULL))
		return err;
	if (zeros == e->valid) {
		err = punch(fs, ino, unit * UNIT_SIZE, (unit + 1) * UNIT_SIZE);
		if (!err)
			*dropped += 1ULL << e->order;
		return err;
	}
	e->valid &= ~zeros;
	return set_entry(fs, ino, unit, e);
}

int file_drop_zeros(struct fs *fs, struct inode *ino, uint64_t *unit, void *buf,
		    uint64_t *dropped)
{
	struct map_entry e;
	int err = file_wrlock(fs, ino);

	if (err)
		return err;
	err = file_is_inline(ino) ? -ENOENT : map_next(fs, ino, unit, &e);
	if (!err && e.block)
		err = drop_zeros(fs, ino, *unit, &e, buf, dropped);
	++*unit;
	file_wrunlock(fs, ino);
	return err == -ENOENT ? 0 : err ? err : 1;
}
