/* SPDX-License-Identifier: Apache-2.0 */
/* Space for files: units allocated and grown, small files moved out of their inodes. */
#include <errno.h>
#include <stdlib.h>

#include "fs/file_io.h"

#define GROW_TRIES	8
#define UNIT_ORDER	6u
#define TAKE_CREDITS	3u	/* see alloc_take(), alloc_free() */

static void blocks_add(struct inode_disk *di, int64_t count)
{
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) + (uint64_t)count);
}

uint32_t unit0_order(uint64_t end, uint64_t size)
{
	uint32_t order = 0;

	if (end > UNIT_SIZE || size > UNIT_SIZE)
		return UNIT_ORDER;
	while ((uint64_t)BLOCK_SIZE << order < end)
		order++;
	return order;
}

uint64_t unit_goal(struct fs *fs, struct inode *ino, uint64_t unit)
{
	struct map_entry e;

	if (unit && !map_get(fs, ino, unit - 1, &e) && e.block)
		return e.block + (1ULL << e.order);
	return ino->number;
}

/* ---- several units at once ---- */

int units_load(struct fs *fs, struct inode *ino, uint64_t first, uint64_t max, struct units *u)
{
	uint64_t leaf_left = LEAF_ENTRIES - first % LEAF_ENTRIES;
	int err;

	memset(u, 0, sizeof(*u));
	u->first = first;
	max = max < UNITS_MAX ? max : UNITS_MAX;
	u->count = (unsigned int)(max < leaf_left ? max : leaf_left);
	for (unsigned int i = 0; i < u->count; i++) {
		err = map_get(fs, ino, first + i, &u->e[i]);
		if (err)
			return err;
	}
	return 0;
}

static uint32_t fresh_order(const struct units *u, unsigned int i, uint32_t order)
{
	return u->first + i ? UNIT_ORDER : order;
}

/* Runs for the first @count units, units first, map blocks behind them. */
static int plan_runs(struct fs *fs, struct inode *ino, const struct units *u, unsigned int count,
		     uint32_t order, uint32_t *counts, unsigned int *fresh, unsigned int *runs)
{
	unsigned int need;
	int err;

	*fresh = 0;
	for (unsigned int i = 0; i < count; i++)
		if (!u->e[i].block)
			counts[(*fresh)++] = 1u << fresh_order(u, i, order);
	*runs = *fresh;
	if (!*fresh)
		return 0;
	/* All lie in one leaf; what the last needs serves the others too. */
	err = map_blocks_needed(fs, ino, u->first + count - 1, &need);
	for (; !err && need; need--) {
		if (*runs == ALLOC_RUNS_MAX)
			return -E2BIG;
		counts[(*runs)++] = 1;
	}
	return err;
}

static void mark_fresh(struct units *u, uint32_t order)
{
	unsigned int run = 0;

	for (unsigned int i = 0; i < u->count; i++) {
		if (u->e[i].block)
			continue;
		u->e[i].block = u->hold.runs[run].block;
		u->e[i].order = fresh_order(u, i, order);
		u->e[i].valid = 0;
		u->fresh[i] = u->changed[i] = true;
		u->run[i] = run++;
	}
	u->map_run = run;
}

int units_reserve(struct fs *fs, struct inode *ino, struct units *u, uint32_t order)
{
	uint64_t goal = unit_goal(fs, ino, u->first);
	uint32_t counts[ALLOC_RUNS_MAX];
	unsigned int runs;
	int err;

	for (;; u->count = err == -E2BIG ? u->count - 1 : 1) {
		err = plan_runs(fs, ino, u, u->count, order, counts, &u->fresh_count, &runs);
		if (err == -E2BIG)
			continue;
		if (err || !u->fresh_count)
			return err;
		err = alloc_reserve(fs, counts, runs, goal, &u->hold);
		if (err != -ENOSPC || u->count == 1)
			break;
	}
	if (!err)
		err = alloc_make_room(fs, &u->hold, u->fresh_count);
	if (err)
		u->fresh_count = 0;
	else
		mark_fresh(u, order);
	return err;
}

void units_cancel(struct fs *fs, struct units *u)
{
	if (u->fresh_count)
		alloc_put(fs, &u->hold);
	u->fresh_count = 0;
}

/* Within a transaction; the last unit first: it brings the map blocks for all. */
static int units_set(struct txn *txn, struct inode *ino, struct units *u, uint64_t size)
{
	struct inode_disk *di;
	int err;

	for (unsigned int i = 0; i < u->count; i++) {
		if (!u->fresh[i])
			continue;
		err = alloc_take(txn, &u->hold, u->run[i]);
		if (err)
			return err;
	}
	di = inode_touch(txn, ino, true);
	for (unsigned int i = u->count; i--; ) {
		if (!u->changed[i])
			continue;
		err = map_set(txn, ino, u->first + i, &u->e[i], &u->hold, u->map_run);
		if (err)
			return err;
		if (u->fresh[i])
			blocks_add(di, 1 << u->e[i].order);
	}
	if (size > le64_to_cpu(di->size))
		di->size = cpu_to_le64(size);
	return 0;
}

int units_commit(struct fs *fs, struct inode *ino, struct units *u, uint64_t size)
{
	struct txn txn;
	int err = txn_begin(fs, 1 + MAP_CREDITS + TAKE_CREDITS + ALLOC_RUNS_MAX, &txn);

	if (!err) {
		err = units_set(&txn, ino, u, size);
		txn_end(&txn);
	}
	units_cancel(fs, u);
	return err;
}

/* ---- the first unit of a small file ---- */

/*
 * A larger run for the first unit, and its old run's group pinned.  Two groups may be needed:
 * the second is never waited for while the first is held, two hosts could wait for each other.
 */
static int grow_reserve(struct fs *fs, const struct map_entry *old, uint32_t order,
			struct alloc_hold *hold, struct alloc_pin *pin)
{
	uint32_t count = 1u << order;
	int err = -EAGAIN;

	for (unsigned int i = 0; i < GROW_TRIES && err == -EAGAIN; i++) {
		err = alloc_reserve(fs, &count, 1, old->block, hold);
		if (err)
			return err;
		err = alloc_pin_try(fs, old->block, pin);
		if (!err)
			return 0;
		alloc_put(fs, hold);
		if (err == -EAGAIN || err == -EBUSY) {
			/* Fetch it alone; it is then ours, most likely also next time. */
			err = alloc_pin(fs, old->block, pin);
			if (!err) {
				alloc_unpin(fs, pin);
				err = -EAGAIN;
			}
		}
	}
	return err;
}

/* What is valid of the first unit is written to its new place too. */
static int grow_copy(struct fs *fs, struct inode *ino, const struct map_entry *old,
		     const struct map_entry *new)
{
	size_t len = (size_t)BLOCK_SIZE << old->order;
	uint32_t blocks = 1u << old->order, run;
	struct pieces p;
	uint8_t *bounce;
	bool valid;
	int err;

	if (!old->valid)
		return 0;
	bounce = blkdev_alloc(len);
	if (!bounce)
		return -ENOMEM;
	err = file_read_blocks(fs, ino, 0, bounce, len);
	pieces_init(&p, fs, BLK_WRITE);
	for (uint32_t i = 0; !err && i < blocks; i += run) {
		run = entry_run(old, i, blocks - i, &valid);
		if (valid && !pieces_add(&p, entry_addr(new, i), bounce + i * BLOCK_SIZE,
					 (size_t)run * BLOCK_SIZE)) {
			err = pieces_submit(&p);
			run = 0;	/* again */
		}
	}
	if (!err)
		err = pieces_submit(&p);
	free(bounce);
	return err;
}

/* One transaction switches; the old run is freed last, for a run still mapped must not be. */
static int grow_switch(struct fs *fs, struct inode *ino, const struct map_entry *old,
		       const struct map_entry *new, struct alloc_hold *hold, struct alloc_pin *pin)
{
	struct inode_disk *di;
	struct txn txn;
	int err = alloc_free_prepare(fs, pin, old->block, 1u << old->order);

	if (!err)
		err = txn_begin(fs, 1 + MAP_CREDITS + 2 * TAKE_CREDITS, &txn);
	if (err)
		return err;
	err = alloc_take(&txn, hold, 0);
	if (err)
		goto end;
	di = inode_change(&txn, ino);
	err = map_set(&txn, ino, 0, new, NULL, 0);
	if (err)
		goto end;
	blocks_add(di, (1 << new->order) - (1 << old->order));
	err = alloc_free(&txn, pin, old->block, 1u << old->order);
end:
	txn_end(&txn);
	return err;
}

int unit0_grow(struct fs *fs, struct inode *ino, uint32_t order)
{
	struct alloc_hold hold;
	struct map_entry old, new;
	struct alloc_pin pin;
	int err = map_get(fs, ino, 0, &old);

	if (err || !old.block || old.order >= order)
		return err;
	err = grow_reserve(fs, &old, order, &hold, &pin);
	if (err)
		return err == -EAGAIN ? -EBUSY : err;
	new = old;
	new.block = hold.runs[0].block;
	new.order = order;
	err = grow_copy(fs, ino, &old, &new);
	if (!err)
		err = grow_switch(fs, ino, &old, &new, &hold, &pin);
	alloc_unpin(fs, &pin);
	alloc_put(fs, &hold);
	return err;
}

/* ---- inline files ---- */

void file_set_inline(struct inode_disk *di, bool is_inline)
{
	uint32_t flags = le32_to_cpu(di->flags) & ~(uint32_t)INODE_INLINE;

	di->flags = cpu_to_le32(flags | (is_inline ? INODE_INLINE : 0));
	di->depth = cpu_to_le32(0);
	di->root_count = cpu_to_le32(0);
	memset(di->root, 0, sizeof(di->root));
}

/* The inline bytes as the first block of the unit at @block. */
static int write_inline_bytes(struct fs *fs, struct inode *ino, uint64_t block)
{
	uint8_t *bounce = blkdev_alloc(BLOCK_SIZE);
	struct pieces p;
	int err;

	if (!bounce)
		return -ENOMEM;
	memcpy(bounce, inode_disk(ino)->root, file_size(ino));
	pieces_init(&p, fs, BLK_WRITE);
	pieces_add(&p, block << BLOCK_SHIFT, bounce, BLOCK_SIZE);
	err = pieces_submit(&p);
	free(bounce);
	return err;
}

int file_uninline(struct fs *fs, struct inode *ino, uint32_t order)
{
	struct map_entry e = { .order = order, .valid = 1 };
	uint32_t count = 1u << order;
	bool empty = !file_size(ino);
	struct alloc_hold hold;
	struct inode_disk *di;
	struct txn txn;
	int err = 0;

	if (!empty)
		err = alloc_reserve(fs, &count, 1, ino->number, &hold);
	if (err)
		return err;
	if (!empty) {
		e.block = hold.runs[0].block;
		err = write_inline_bytes(fs, ino, e.block);
	}
	if (!err)
		err = txn_begin(fs, 1 + MAP_CREDITS + TAKE_CREDITS, &txn);
	if (err)
		goto put;
	err = empty ? 0 : alloc_take(&txn, &hold, 0);
	if (!err) {
		di = inode_change(&txn, ino);
		file_set_inline(di, false);
		if (!empty) {
			blocks_add(di, count);
			err = map_set(&txn, ino, 0, &e, NULL, 0);	/* depth 0: cannot fail */
		}
	}
	txn_end(&txn);
put:
	if (!empty)
		alloc_put(fs, &hold);
	return err;
}
