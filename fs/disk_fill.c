/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/disk_internal.h"

#define FILLS_LOOKED_AT	(2 * DISK_PIECES_MAX)

static struct list *bucket_of(struct disk *d, uint64_t unit)
{
	return &d->buckets[unit % DISK_BUCKETS];
}

void disk_fills_init(struct disk *d)
{
	list_init(&d->fills_free);
	list_init(&d->fills_clean);
	list_init(&d->fills_dirty);
	for (unsigned int i = 0; i < DISK_BUCKETS; i++)
		list_init(&d->buckets[i]);
	d->fills_touched = d->fills_used = d->fills_fresh = 0;
}

struct disk_fill *disk_fill_find(struct disk *d, uint64_t unit)
{
	struct disk_fill *fill, *tmp;

	if (!d->fills_used)
		return NULL;
	list_for_each(fill, tmp, bucket_of(d, unit), node)
		if (fill->unit == unit)
			return fill;
	return NULL;
}

/*
 * The order of these stores is all that a process which is killed leaves behind: an entry names a
 * unit only once its blocks are none, and bits are noted before their request is answered.
 */
static void fresh_begin(struct disk *d, const struct disk_fill *fill)
{
	size_t i = (size_t)(fill - d->fills);

	__atomic_store_n(&d->fresh->units[i].blocks, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->fresh->units[i].block, fill->block, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->fresh->units[i].unit, fill->unit + 1, __ATOMIC_SEQ_CST);
}

static void fresh_note(struct disk *d, const struct disk_fill *fill)
{
	__atomic_store_n(&d->fresh->units[fill - d->fills].blocks, fill->fresh, __ATOMIC_SEQ_CST);
}

static void fresh_end(struct disk *d, const struct disk_fill *fill)
{
	__atomic_store_n(&d->fresh->units[fill - d->fills].unit, 0, __ATOMIC_SEQ_CST);
}

static void fill_drop(struct disk *d, struct disk_fill *fill)
{
	assert(!fill->fresh && !fill->busy);
	fresh_end(d, fill);
	list_del(&fill->node);
	list_del(&fill->lru);
	list_add_head(&d->fills_free, &fill->node);
	d->fills_used--;
}

/*
 * A load of the map that is under way may have read it before the fill's blocks got there: until
 * it has ended the fill is what knows better.
 */
static bool fill_may_go(const struct disk *d, const struct disk_fill *fill)
{
	return !fill->fresh && !fill->busy && !d->loads;
}

/* Those that were used least lately go, if they can; not more than a few are looked at. */
void disk_fills_reserve(struct disk *d)
{
	struct disk_fill *fill, *tmp;
	unsigned int looked = 0;

	if (d->sending)
		return;
	list_for_each(fill, tmp, &d->fills_clean, lru) {
		if (DISK_FILLS - d->fills_used >= DISK_PIECES_MAX || looked++ == FILLS_LOOKED_AT)
			break;
		if (fill_may_go(d, fill))
			fill_drop(d, fill);
	}
}

/* NULL: there is none until a commit has ended. */
static struct disk_fill *fill_take(struct disk *d)
{
	struct disk_fill *fill;

	if (!list_empty(&d->fills_free)) {
		fill = list_first(&d->fills_free, struct disk_fill, node);
		list_del(&fill->node);
		return fill;
	}
	/* Memory that was never used is taken last. */
	if (d->fills_touched < DISK_FILLS)
		return &d->fills[d->fills_touched++];
	disk_slow_commit(d);
	return NULL;
}

struct disk_fill *disk_fill_add(struct disk *d, uint64_t unit, const struct map_entry *e)
{
	struct disk_fill *fill = fill_take(d);

	if (!fill)
		return NULL;
	fill->unit = unit;
	fill->block = e->block;
	fill->valid = e->valid;
	fill->fresh = fill->committing = fill->busy = 0;
	fresh_begin(d, fill);
	list_add_head(bucket_of(d, unit), &fill->node);
	list_add_tail(&d->fills_clean, &fill->lru);
	d->fills_used++;
	return fill;
}

/* ---- by the cache of the map ---- */

bool disk_unit_shows_parent(struct disk *d, uint64_t unit)
{
	uint64_t block = unit * UNIT_BLOCKS, end = block + UNIT_BLOCKS;
	struct extent e;

	for (; block < end; block += e.len) {
		if (!extents_find(&d->map, block, &e))
			e.len = 1;
		else if (e.kind == EXTENT_BELOW)
			return true;
	}
	return false;
}

/* ---- being written ---- */

void disk_fill_begin(struct disk_fill *fill, uint64_t bits)
{
	assert(!((fill->valid | fill->fresh | fill->busy) & bits));
	fill->busy |= bits;
}

/* Runs of @bits of @fill are the image's own. */
static void cache_own(struct disk *d, const struct disk_fill *fill, uint64_t bits)
{
	while (bits) {
		uint32_t first = (uint32_t)__builtin_ctzll(bits);
		uint64_t rest = ~(bits >> first);
		uint32_t run = rest ? (uint32_t)__builtin_ctzll(rest) : 64;

		extents_set(&d->map, fill->unit * UNIT_BLOCKS + first, run, EXTENT_OWN,
			    fill->block + first);
		bits &= ~block_mask(first, first + run);
	}
}

void disk_fill_end(struct disk *d, struct disk_fill *fill, uint64_t bits, int err)
{
	fill->busy &= ~bits;
	if (!err) {
		if (!fill->fresh) {
			d->fills_fresh++;
			list_del(&fill->lru);
			list_add_tail(&d->fills_dirty, &fill->lru);
		}
		fill->fresh |= bits;
		fresh_note(d, fill);
		cache_own(d, fill, bits);
		disk_tick_set(d);
		if (d->fills_fresh > DISK_FILLS / 2)
			disk_slow_commit(d);
	}
	disk_retry(d);
}

unsigned int disk_fills_collect(struct disk *d, struct disk_bits *bits)
{
	struct disk_fill *fill, *tmp;
	unsigned int n = 0;

	list_for_each(fill, tmp, &d->fills_dirty, lru) {
		fill->committing = fill->fresh;
		bits[n++] = (struct disk_bits){ fill->unit, fill->fresh };
	}
	return n;
}

void disk_fills_committed(struct disk *d, int err)
{
	struct disk_fill *fill, *tmp;

	list_for_each(fill, tmp, &d->fills_dirty, lru) {
		uint64_t bits = fill->committing;

		fill->committing = 0;
		if (!bits || err)
			continue;
		fill->valid |= bits;
		fill->fresh &= ~bits;
		fresh_note(d, fill);
		if (fill->fresh)
			continue;
		d->fills_fresh--;
		list_del(&fill->lru);
		list_add_tail(&d->fills_clean, &fill->lru);
		if (fill->valid == ~0ULL && fill_may_go(d, fill))
			fill_drop(d, fill);
	}
}

void disk_fills_drop(struct disk *d, uint64_t first, uint64_t end)
{
	struct disk_fill *fill, *tmp;

	list_for_each(fill, tmp, &d->fills_clean, lru)
		if (fill->unit >= first && fill->unit < end)
			fill_drop(d, fill);
	/* Nobody else knows of fresh blocks: whoever drops their units has committed them. */
	list_for_each(fill, tmp, &d->fills_dirty, lru)
		assert(fill->unit < first || fill->unit >= end);
}

void disk_fills_overlay(struct disk *d, uint64_t first, uint64_t end)
{
	struct disk_fill *fill;

	for (uint64_t unit = first; unit < end && d->fills_used; unit++) {
		fill = disk_fill_find(d, unit);
		if (fill)
			cache_own(d, fill, fill->valid | fill->fresh);
	}
}
