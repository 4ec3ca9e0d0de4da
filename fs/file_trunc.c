/* SPDX-License-Identifier: Apache-2.0 */
/* Truncation, and freeing units in bounded transactions. */
#include <errno.h>
#include <stdlib.h>

#include "fs/file_io.h"
#include "fs/image.h"

#define FREE_RUNS_MAX	12u	/* 3 credits each, a leaf and the inode: below TXN_CREDITS_MAX */
#define FREE_CREDITS	3u	/* see alloc_free() */
#define TRIM_CREDITS	(2 + FREE_CREDITS)

/* Units to free in one transaction: of one leaf, in one group, last first. */
struct free_batch {
	unsigned int	count, run_count;
	uint64_t	units[LEAF_ENTRIES];
	bool		detached[LEAF_ENTRIES];	/* stays so: a parent image would show */
	struct alloc_run runs[FREE_RUNS_MAX];
	uint64_t	blocks;
	uint32_t	ag;
	bool		more;		/* there are others in the range */
};

/* Adds the entry's run, merged with its neighbour; false: it does not fit. */
static bool batch_add(struct fs *fs, struct free_batch *b, uint64_t unit,
		      const struct map_entry *e)
{
	struct alloc_run *last = b->run_count ? &b->runs[b->run_count - 1] : NULL;
	uint32_t count = 1u << e->order, ag = 0;

	if (b->count && unit / LEAF_ENTRIES != b->units[0] / LEAF_ENTRIES)
		return false;
	if (!e->block) {
		b->detached[b->count] = false;
		b->units[b->count++] = unit;
		return true;
	}
	/* map_get() checked that it lies in a group. */
	if (super_ag_of(&fs->super, e->block << BLOCK_SHIFT, &ag))
		return false;
	if (b->run_count && ag != b->ag)
		return false;
	if (last && e->block + count == last->block) {
		last->block = e->block;
		last->count += count;
	} else if (last && last->block + last->count == e->block) {
		last->count += count;
	} else if (b->run_count < FREE_RUNS_MAX) {
		b->runs[b->run_count++] = (struct alloc_run){ .block = e->block, .count = count };
	} else {
		return false;
	}
	b->ag = ag;
	b->detached[b->count] = e->detached;
	b->units[b->count++] = unit;
	b->blocks += count;
	return true;
}

/* Whether the parent image would show in @unit if nothing hid it. */
static bool unit_shows_parent(const struct inode *ino, uint64_t unit)
{
	return unit * UNIT_SIZE < le64_to_cpu(inode_disk(ino)->image_limit);
}

/* Units of [@first, @last] with something to free or to forget, from the end. */
static int batch_collect(struct fs *fs, struct inode *ino, uint64_t first, uint64_t last,
			 struct free_batch *b)
{
	uint64_t unit = last;
	struct map_entry e;
	int err;

	b->count = b->run_count = 0;
	b->blocks = 0;
	b->more = false;
	while (unit >= first) {
		err = map_prev(fs, ino, &unit, &e);
		if (err)
			return err == -ENOENT ? 0 : err;
		if (unit < first)
			return 0;
		if (!e.block && unit_shows_parent(ino, unit)) {
			if (!unit--)
				return 0;
			continue;
		}
		if (b->count == LEAF_ENTRIES || !batch_add(fs, b, unit, &e)) {
			b->more = true;
			return 0;
		}
		if (!unit--)
			return 0;
	}
	return 0;
}

static unsigned int batch_credits(const struct free_batch *b)
{
	return 2 + b->run_count * FREE_CREDITS;
}

/* Within @txn, inode_change()d.  Unmapped first: a run that is free must not be mapped. */
static int batch_free(struct txn *txn, struct inode *ino, struct inode_disk *di,
		      struct alloc_pin *pin, const struct free_batch *b)
{
	int err;

	for (unsigned int i = 0; i < b->count; i++) {
		struct map_entry hole = {
			.detached = b->detached[i] && unit_shows_parent(ino, b->units[i]),
		};

		err = map_set(txn, ino, b->units[i], &hole, NULL, 0);
		if (err)
			return err;
	}
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) - b->blocks);
	for (unsigned int i = 0; i < b->run_count; i++) {
		err = alloc_free(txn, pin, b->runs[i].block, b->runs[i].count);
		if (err)
			return err;
	}
	return 0;
}

static int batch_prepare(struct fs *fs, struct inode *ino, struct alloc_pin *pin,
			 const struct free_batch *b)
{
	int err = b->count ? map_set_prepare(fs, ino, b->units[0]) : 0;

	for (unsigned int i = 0; i < b->run_count && !err; i++)
		err = alloc_free_prepare(fs, pin, b->runs[i].block, b->runs[i].count);
	return err;
}

/* One transaction for a batch that is not empty. */
static int batch_commit(struct fs *fs, struct inode *ino, const struct free_batch *b)
{
	struct alloc_pin pin = { NULL };
	struct txn txn;
	int err = b->run_count ? alloc_pin(fs, b->runs[0].block, &pin) : 0;

	if (err)
		return err;
	err = batch_prepare(fs, ino, &pin, b);
	if (!err)
		err = txn_begin(fs, batch_credits(b), &txn);
	if (!err) {
		err = batch_free(&txn, ino, inode_change(&txn, ino), &pin, b);
		txn_end(&txn);
	}
	if (pin.ag)
		alloc_unpin(fs, &pin);
	return err;
}

/* Frees the last map block if it is empty.  Return: 1 done one; 0 there is none. */
static int trim_step(struct fs *fs, struct inode *ino)
{
	struct alloc_pin pin;
	struct txn txn;
	uint64_t block;
	int err = map_trim_candidate(fs, ino, &block);

	if (err || !block)
		return err;
	err = alloc_pin(fs, block, &pin);
	if (err)
		return err;
	err = alloc_free_prepare(fs, &pin, block, 1);
	if (!err)
		err = txn_begin(fs, TRIM_CREDITS, &txn);
	if (!err) {
		err = map_trim(&txn, ino, &pin, block);
		txn_end(&txn);
	}
	alloc_unpin(fs, &pin);
	return err ? err : 1;
}

int file_free_units(struct fs *fs, struct inode *ino, uint64_t first, uint64_t last)
{
	struct free_batch b;
	int err;

	do {
		err = batch_collect(fs, ino, first, last, &b);
		if (!err && b.count)
			err = batch_commit(fs, ino, &b);
	} while (!err && b.more);
	while (!err) {
		err = trim_step(fs, ino);
		if (err != 1)
			return err;
		err = 0;
	}
	return err;
}

/* ---- validity bits of the last unit beyond the end ---- */

/* Whether the unit that holds @size bytes' end has any; then @e without them. */
static int last_unit_cut(struct fs *fs, struct inode *ino, uint64_t size, struct map_entry *e,
			 bool *cut)
{
	uint64_t keep = block_mask(0, (uint32_t)DIV_ROUND_UP(size % UNIT_SIZE, BLOCK_SIZE));
	int err;

	*cut = false;
	if (size % UNIT_SIZE == 0 || file_is_inline(ino))
		return 0;
	err = map_get(fs, ino, size / UNIT_SIZE, e);
	if (err)
		return err;
	*cut = e->valid & ~keep;
	e->valid &= keep;
	return 0;
}

static int cut_last_unit(struct fs *fs, struct inode *ino, uint64_t size)
{
	struct map_entry e;
	struct txn txn;
	bool cut;
	int err = last_unit_cut(fs, ino, size, &e, &cut);

	if (err || !cut)
		return err;
	err = txn_begin(fs, 1 + MAP_CREDITS, &txn);
	if (err)
		return err;
	inode_change(&txn, ino);
	err = map_set(&txn, ino, size / UNIT_SIZE, &e, NULL, 0);
	txn_end(&txn);
	return err;
}

int file_free_step(struct fs *fs, struct inode *ino, uint64_t size)
{
	struct free_batch b;
	int err = trim_step(fs, ino);

	if (err)
		return err;
	err = batch_collect(fs, ino, DIV_ROUND_UP(size, UNIT_SIZE), UINT64_MAX, &b);
	if (err)
		return err;
	if (!b.count)
		return cut_last_unit(fs, ino, size);
	err = batch_commit(fs, ino, &b);
	return err ? err : 1;
}

static int free_beyond(struct fs *fs, struct inode *ino, uint64_t size)
{
	int err;

	do {
		err = file_free_step(fs, ino, size);
	} while (err > 0);
	return err;
}

/* ---- truncate ---- */

static bool is_listed(const struct inode *ino)
{
	return le32_to_cpu(inode_disk(ino)->flags) & INODE_ORPHAN;
}

int file_finish_shrink(struct fs *fs, struct inode *ino)
{
	const struct inode_disk *di = inode_disk(ino);
	struct txn txn;
	int err;

	if (!is_listed(ino) || !le32_to_cpu(di->nlink) || le64_to_cpu(di->shrink_to) >= SHRUNK)
		return 0;
	err = free_beyond(fs, ino, le64_to_cpu(di->shrink_to));
	if (err)
		return err;
	err = txn_begin(fs, 1, &txn);
	if (err)
		return err;
	inode_change(&txn, ino)->shrink_to = cpu_to_le64(SHRUNK);
	txn_end(&txn);
	return 0;
}

/* An empty map, and no parent image, whose children always have a map. */
static bool can_be_inline(const struct inode_disk *di)
{
	return !le32_to_cpu(di->depth) && !le32_to_cpu(di->root_count) &&
	       !le64_to_cpu(di->image_parent);
}

/* The new size, and the last unit without what lies beyond it. */
static int set_size(struct txn *txn, struct inode *ino, struct inode_disk *di, uint64_t size,
		    const struct map_entry *last, bool cut)
{
	di->size = cpu_to_le64(size);
	/* What the parent image has there must not come back if the file grows again. */
	if (le64_to_cpu(di->image_limit) > size)
		di->image_limit = cpu_to_le64(ALIGN_DOWN(size, BLOCK_SIZE));
	return cut ? map_set(txn, ino, size / UNIT_SIZE, last, NULL, 0) : 0;
}

/* All in one transaction: @b is all that there is to free, and no map block becomes empty. */
static int shrink_at_once(struct fs *fs, struct inode *ino, uint64_t size,
			  const struct free_batch *b, const struct map_entry *last, bool cut)
{
	struct alloc_pin pin = { NULL };
	struct inode_disk *di;
	struct txn txn;
	int err = b->run_count ? alloc_pin(fs, b->runs[0].block, &pin) : 0;

	if (err)
		return err;
	err = batch_prepare(fs, ino, &pin, b);
	if (!err && cut)
		err = map_set_prepare(fs, ino, size / UNIT_SIZE);
	if (!err)
		err = txn_begin(fs, batch_credits(b) + 1, &txn);
	if (err)
		goto unpin;
	di = inode_touch(&txn, ino, true);
	err = set_size(&txn, ino, di, size, last, cut);
	if (!err)
		err = batch_free(&txn, ino, di, &pin, b);
	if (!err && !size && can_be_inline(di))
		file_set_inline(di, true);
	txn_end(&txn);
unpin:
	if (pin.ag)
		alloc_unpin(fs, &pin);
	return err;
}

/*
 * The transaction that begins a chain: from here on the size is the new one, and whoever
 * finds the inode on its list frees the rest.
 */
static int shrink_begin(struct fs *fs, struct inode *ino, uint64_t size, bool list,
			const struct map_entry *last, bool cut)
{
	struct inode_disk *di;
	struct txn txn;
	int err = cut ? map_set_prepare(fs, ino, size / UNIT_SIZE) : 0;

	if (!err)
		err = txn_begin(fs, 3 + MAP_CREDITS, &txn);
	if (err)
		return err;
	di = inode_touch(&txn, ino, true);
	err = list ? orphan_add(&txn, ino, di) : 0;
	if (!err) {
		di->shrink_to = cpu_to_le64(size);
		err = set_size(&txn, ino, di, size, last, cut);
	}
	txn_end(&txn);
	return err;
}

static int shrink_end(struct fs *fs, struct inode *ino, bool listed)
{
	struct inode_disk *di;
	struct txn txn;
	int err = txn_begin(fs, 1 + ORPHAN_CREDITS, &txn);

	if (err)
		return err;
	di = inode_change(&txn, ino);
	di->shrink_to = cpu_to_le64(SHRUNK);
	if (listed)
		err = orphan_remove(&txn, ino, di);
	if (!err && listed)
		di->shrink_to = cpu_to_le64(0);
	if (!le64_to_cpu(di->size) && can_be_inline(di))
		file_set_inline(di, true);
	txn_end(&txn);
	return err;
}

/* A chain of transactions, finished from the orphan list if we do not get to its end. */
static int shrink_chain(struct fs *fs, struct inode *ino, uint64_t size,
			const struct map_entry *last, bool cut, bool *reserved)
{
	bool list = !is_listed(ino);	/* an unlinked or adopted file is on a list already */
	int err;

	if (list && !*reserved)
		return -ENOSPC;
	err = shrink_begin(fs, ino, size, list, last, cut);
	if (list && is_listed(ino))
		*reserved = false;	/* it is in use */
	if (err)
		return err;
	err = free_beyond(fs, ino, size);
	if (!err)
		err = shrink_end(fs, ino, list);
	if (err && list)
		orphan_kick(fs, ino->id);
	if (err)
		ino->unnamed_id = 0;	/* its list entry means its deletion, and nothing else any more */
	return err;
}

/* Where the parent image shows in the last block, this one gets a block of its own. */
static int keep_last_block(struct fs *fs, struct inode *ino, uint64_t size)
{
	uint64_t start = ALIGN_DOWN(size, BLOCK_SIZE);
	uint32_t block = (uint32_t)(start % UNIT_SIZE / BLOCK_SIZE);
	struct map_entry e;
	uint8_t *bounce;
	int err;

	if (start == size || start >= le64_to_cpu(inode_disk(ino)->image_limit))
		return 0;
	err = map_get(fs, ino, start / UNIT_SIZE, &e);
	if (err || e.valid >> block & 1)
		return err;
	bounce = blkdev_alloc(BLOCK_SIZE);
	if (!bounce)
		return -ENOMEM;
	err = file_read_blocks(fs, ino, start, bounce, BLOCK_SIZE);
	if (!err)
		err = file_write_within(fs, ino, start, bounce, size - start);
	free(bounce);
	return err;
}

static int shrink(struct fs *fs, struct inode *ino, uint64_t size, bool *reserved)
{
	struct free_batch b;
	struct map_entry last;
	bool cut;
	int err = keep_last_block(fs, ino, size);

	if (!err)
		err = last_unit_cut(fs, ino, size, &last, &cut);
	if (!err)
		err = batch_collect(fs, ino, DIV_ROUND_UP(size, UNIT_SIZE), UINT64_MAX, &b);
	if (err)
		return err;
	if (!b.more && (!b.count || !le32_to_cpu(inode_disk(ino)->depth)))
		return shrink_at_once(fs, ino, size, &b, &last, cut);
	return shrink_chain(fs, ino, size, &last, cut, reserved);
}

/* Only the size changes: what is between is a hole, or zeros of an inline file. */
static int change_size(struct fs *fs, struct inode *ino, uint64_t size)
{
	uint64_t old = file_size(ino), from = size < old ? size : old, to = size < old ? old : size;
	struct inode_disk *di;
	struct txn txn;
	int err = file_zero_tail(fs, ino, size);

	if (!err)
		err = txn_begin(fs, 1, &txn);
	if (err)
		return err;
	di = inode_touch(&txn, ino, true);
	if (file_is_inline(ino))
		memset(di->root + from, 0, to - from);
	di->size = cpu_to_le64(size);
	txn_end(&txn);
	return 0;
}

static int truncate_open(struct fs *fs, struct inode *ino, uint64_t size)
{
	/*
	 * A place on the orphan list, should it become a chain: before the file's lock, because
	 * it may have to wait for the reaper, and that for any inode's.
	 */
	bool reserved = !orphan_reserve(fs);
	int err = file_wrlock(fs, ino);

	if (err)
		goto unreserve;
	err = file_finish_shrink(fs, ino);
	if (!err && file_is_inline(ino) && size > INLINE_SIZE)
		err = file_uninline(fs, ino, 0);
	if (!err && !file_is_inline(ino) && size < file_size(ino))
		err = shrink(fs, ino, size, &reserved);
	else if (!err)
		err = change_size(fs, ino, size);
	file_wrunlock(fs, ino);
unreserve:
	if (reserved)
		orphan_unreserve(fs);
	return err;
}

int file_truncate(struct fs *fs, struct inode *ino, uint64_t size)
{
	int chained, err;

	if (size > FILE_BYTES_MAX)
		return -EFBIG;
	chained = image_open(fs, ino);
	if (chained < 0)
		return chained;
	err = truncate_open(fs, ino, size);
	if (chained)
		image_close(fs, ino);
	return err;
}
