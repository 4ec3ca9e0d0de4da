/* SPDX-License-Identifier: Apache-2.0 */
/* One allocation group: its cluster lock, header and bitmap blocks. */
#include "fs/ag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/cluster.h"
#include "fs/fs.h"
#include "fs/grow.h"

int ag_damaged(const struct ag *ag, uint64_t addr, const char *fmt, ...)
{
	char object[128], why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(object, sizeof(object), "%s: block 0x%llx", ag->fs->label,
		 (unsigned long long)addr);
	log_error(ag->fs->env, object, "allocation group %u: %s", ag->index, why);
	return -EUCLEAN;
}

/* ---- the objects ---- */

static struct ag *ag_new(struct fs *fs, uint32_t index)
{
	struct ag *ag = calloc(1, sizeof(*ag));

	if (!ag)
		return NULL;
	ag->fs = fs;
	ag->index = index;
	ag->start = super_ag_addr(&fs->super, index) >> BLOCK_SHIFT;
	ag->blocks = super_ag_blocks(&fs->super, index);
	ag->bitmap_count = super_ag_bitmaps(&fs->super);
	lock_init(&ag->cover.lock, (ag->start + AG_LOCK_BLOCK) << BLOCK_SHIFT, ag);
	list_init(&ag->cover.bufs);
	env_mutex_init(fs->env, &ag->mutex);
	env_cond_init(fs->env, &ag->changed);
	return ag;
}

int ag_get(struct fs *fs, uint32_t index, struct ag **out)
{
	struct alloc *a = fs->alloc;
	struct ag *ag;

	if (index >= super_ag_count(&fs->super))
		return -EUCLEAN;
	env_mutex_lock(fs->env, &a->mutex);
	if (!a->ags[index])
		a->ags[index] = ag_new(fs, index);
	ag = a->ags[index];
	env_mutex_unlock(fs->env, &a->mutex);
	if (!ag)
		return -ENOMEM;
	*out = ag;
	return 0;
}

int ag_of_block(struct fs *fs, uint64_t block, struct ag **out)
{
	uint32_t index;

	if (block >> (64 - BLOCK_SHIFT))
		return -EUCLEAN;
	if (super_ag_of(&fs->super, block << BLOCK_SHIFT, &index) &&
	    (fs_super_refresh(fs) || super_ag_of(&fs->super, block << BLOCK_SHIFT, &index)))
		return -EUCLEAN;
	return ag_get(fs, index, out);
}

static void ag_unload(struct ag *ag)
{
	uint32_t i;

	itable_unload(ag);
	for (i = 0; ag->maps && i < ag->bitmap_count; i++) {
		buf_put(ag->fs, ag->maps[i].buf);
		free(ag->maps[i].reserved);
		free(ag->maps[i].quarantined);
	}
	free(ag->maps);
	ag->maps = NULL;
	buf_put(ag->fs, ag->header);
	ag->header = NULL;
	ag->reserved_count = ag->quarantined_count = 0;
	ag->loaded = false;
}

void ag_free(struct ag *ag)
{
	if (!ag)
		return;
	ag_unload(ag);
	buf_forget_cover(ag->fs, &ag->cover);
	env_cond_fini(ag->fs->env, &ag->changed);
	env_mutex_fini(ag->fs->env, &ag->mutex);
	free(ag);
}

void alloc_forget(struct fs *fs, struct cover *cover)
{
	struct ag *ag = container_of(cover, struct ag, cover);

	env_mutex_lock(fs->env, &ag->mutex);
	if (ag->loaded)
		ag_unload(ag);
	ag->peek.at_ns = 0;
	env_mutex_unlock(fs->env, &ag->mutex);
	buf_forget_cover(fs, cover);
}

/* ---- loading ---- */

/* Fewer blocks than the superblock gives: the volume has grown, the group not yet. */
static int header_check(struct ag *ag)
{
	const struct ag_disk *d = ag_disk(ag);
	uint32_t blocks = le32_to_cpu(d->blocks), blocks_free = le32_to_cpu(d->free_blocks);
	uint32_t bitmaps = le32_to_cpu(d->bitmap_count), meta = super_ag_meta(&ag->fs->super);
	uint32_t most = super_ag_blocks(&ag->fs->super, ag->index);

	/* More: it has grown since this host last looked. */
	if (blocks > most && !fs_super_refresh(ag->fs))
		most = super_ag_blocks(&ag->fs->super, ag->index);
	if (blocks > meta && blocks <= most && bitmaps == ag->bitmap_count &&
	    blocks_free <= blocks - meta) {
		ag->blocks = blocks;
		return 0;
	}
	return ag_damaged(ag, ag->header->addr,
			  "%u blocks, %u of them free, %u bitmap blocks found; expected at most %u, at most that, %u",
			  blocks, blocks_free, bitmaps, most, ag->bitmap_count);
}

static int ag_load(struct ag *ag)
{
	struct meta_expect e = { .type = META_AG, .owner = ag->index,
		.addr = (ag->start + AG_HEADER_BLOCK) << BLOCK_SHIFT };
	int err;

	err = buf_get(ag->fs, &ag->cover, &e, &ag->header);
	if (err)
		return err;
	err = header_check(ag);
	if (!err) {
		ag->maps = calloc(ag->bitmap_count, sizeof(*ag->maps));
		err = ag->maps ? 0 : -ENOMEM;
	}
	if (err) {
		buf_put(ag->fs, ag->header);
		ag->header = NULL;
		return err;
	}
	ag->version = ag->header->version;
	ag->version_txn = 0;
	ag->loaded = true;
	return 0;
}

int ag_pin(struct fs *fs, struct ag *ag, unsigned int flags)
{
	int err;

	err = cluster_get(fs, &ag->cover.lock, LOCK_EXCLUSIVE, flags, NULL);
	/* Our slot's loss is -EIO here: -ESTALE says to callers that an inode is gone. */
	if (err)
		return err == -ESTALE ? -EIO : err;
	env_mutex_lock(fs->env, &ag->mutex);
	if (!ag->loaded)
		err = ag_load(ag);
	env_mutex_unlock(fs->env, &ag->mutex);
	if (err)
		cluster_put(fs, &ag->cover.lock, LOCK_EXCLUSIVE, flags);
	return err;
}

void ag_unpin(struct fs *fs, struct ag *ag)
{
	cluster_put(fs, &ag->cover.lock, LOCK_EXCLUSIVE, 0);
}

/* ---- header ---- */

uint32_t ag_available(const struct ag *ag)
{
	uint32_t blocks_free = le32_to_cpu(ag_disk(ag)->free_blocks);
	uint32_t away = ag->reserved_count + ag->quarantined_count;

	return blocks_free > away ? blocks_free - away : 0;
}

struct ag_disk *ag_change(struct txn *txn, struct ag *ag)
{
	if (ag->version_txn != txn->id) {
		ag->version++;
		ag->version_txn = txn->id;
	}
	txn_dirty(txn, ag->header, ag->version);
	return ag->header->data;
}

/* ---- bitmap blocks ---- */

static uint64_t word_at(const uint8_t *bits, uint32_t word)
{
	uint64_t w;

	memcpy(&w, bits + word * 8, sizeof(w));
	return le64toh(w);
}

static uint8_t *map_bits(const struct ag_bitmap *m)
{
	return ((struct bitmap_disk *)m->buf->data)->bits;
}

/* 64 blocks at a time: set where a block cannot be handed out. */
static uint64_t map_word(const struct ag_bitmap *m, uint32_t word)
{
	uint64_t w = word_at(map_bits(m), word);

	if (m->reserved)
		w |= word_at(m->reserved, word);
	if (m->quarantined && !MUTANT("reuse-before-tail"))
		w |= word_at(m->quarantined, word);
	return w;
}

#define MAP_WORDS	(BITMAP_BITS / 64)

static void map_count(struct ag_bitmap *m)
{
	uint32_t i;

	m->free = 0;
	for (i = 0; i < MAP_WORDS; i++)
		m->free += (uint32_t)__builtin_popcountll(~map_word(m, i));
}

static bool map_is_ready(const struct ag *ag, uint32_t i)
{
	return ag_disk(ag)->bitmap_ready[i / 8] & 1u << i % 8;
}

static struct meta_expect map_expect(const struct ag *ag, uint32_t i)
{
	return (struct meta_expect){ .type = META_BITMAP, .owner = ag->index,
		.addr = (ag->start + AG_BITMAP_BLOCK + i) << BLOCK_SHIFT };
}

/* What can never be free must not be handed out, whatever the block says (R9). */
static int map_check(struct ag *ag, uint32_t i, const struct ag_bitmap *m, const uint8_t *used)
{
	for (uint32_t word = 0; word < MAP_WORDS; word++)
		if (word_at(used, word) & ~map_word(m, word))
			return ag_damaged(ag, map_expect(ag, i).addr, "the bitmap says that metadata, "
					  "or space past the end, is free: run fsck.lunfs");
	return 0;
}

static int map_load(struct ag *ag, uint32_t i, struct ag_bitmap *m)
{
	struct meta_expect e = map_expect(ag, i);
	uint8_t *fresh;
	int err;

	if (!map_is_ready(ag, i)) {
		err = buf_new(ag->fs, &ag->cover, &e, &m->buf);
		if (err)
			return err;
		ag_bitmap_fresh(&ag->fs->super, ag->index, ag->blocks, i, map_bits(m));
		m->made_up = true;
		return 0;
	}
	fresh = malloc(BITMAP_BYTES);
	if (!fresh)
		return -ENOMEM;
	ag_bitmap_fresh(&ag->fs->super, ag->index, ag->blocks, i, fresh);
	err = buf_get(ag->fs, &ag->cover, &e, &m->buf);
	if (!err)
		err = map_check(ag, i, m, fresh);
	if (err) {
		buf_put(ag->fs, m->buf);
		m->buf = NULL;
	}
	free(fresh);
	return err;
}

int ag_bitmap(struct ag *ag, uint32_t i, struct ag_bitmap **out)
{
	struct ag_bitmap *m = &ag->maps[i];
	int err;

	if (!m->buf) {
		err = map_load(ag, i, m);
		if (err)
			return err;
		map_count(m);
	}
	*out = m;
	return 0;
}

int ag_bitmap_change(struct txn *txn, struct ag *ag, uint32_t i, uint8_t **bits)
{
	struct ag_bitmap *m;
	int err;

	err = ag_bitmap(ag, i, &m);
	if (err)
		return err;
	/* What lies on disk nobody knows: it is written for the first time. */
	if (m->made_up)
		ag_change(txn, ag)->bitmap_ready[i / 8] |= (uint8_t)(1u << i % 8);
	m->made_up = false;
	txn_dirty(txn, m->buf, ag->version);
	*bits = map_bits(m);
	return 0;
}

/* ---- more space ---- */

#define EXTEND_CREDITS	2u	/* the header, the bitmap block in which the group ended */

/* The bitmap block in which the group ends so far, ready to be changed; further ones cannot be
 * ready, for nothing of what they describe has ever been the group's. */
static int extend_prepare(struct ag *ag)
{
	struct ag_bitmap *m;
	int err = 0;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	if (ag->blocks % BITMAP_BITS)
		err = ag_bitmap(ag, ag->blocks / BITMAP_BITS, &m);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return err;
}

/* What was made up of bitmap blocks, with the old end. */
static void extend_made_up(struct ag *ag, uint32_t from)
{
	for (uint32_t i = from; i < ag->bitmap_count; i++) {
		struct ag_bitmap *m = &ag->maps[i];

		if (!m->buf || !m->made_up)
			continue;
		ag_bitmap_fresh(&ag->fs->super, ag->index, ag->blocks, i, map_bits(m));
		map_count(m);
	}
}

static int extend_locked(struct txn *txn, struct ag *ag, uint32_t blocks)
{
	uint32_t old = ag->blocks, i = old / BITMAP_BITS, end = blocks - i * BITMAP_BITS;
	struct ag_disk *d;
	uint8_t *bits;
	int err;

	d = ag_change(txn, ag);
	if (old % BITMAP_BITS && map_is_ready(ag, i)) {
		err = ag_bitmap_change(txn, ag, i, &bits);
		if (err)
			return err;
		for (uint32_t bit = old % BITMAP_BITS; bit < end && bit < BITMAP_BITS; bit++)
			bits[bit / 8] &= (uint8_t)~(1u << bit % 8);
		map_count(&ag->maps[i]);
	}
	d->blocks = cpu_to_le32(blocks);
	d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) + blocks - old);
	ag->blocks = blocks;
	extend_made_up(ag, i);
	return 0;
}

int ag_extend(struct ag *ag)
{
	uint32_t blocks = super_ag_blocks(&ag->fs->super, ag->index);
	struct fs *fs = ag->fs;
	struct txn txn;
	bool short_of;
	int err;

	env_mutex_lock(fs->env, &ag->mutex);
	short_of = ag->blocks < blocks;
	env_mutex_unlock(fs->env, &ag->mutex);
	if (!short_of)
		return 0;
	err = extend_prepare(ag);
	if (!err)
		err = txn_begin(fs, EXTEND_CREDITS, &txn);
	if (err)
		return err;
	env_mutex_lock(fs->env, &ag->mutex);
	if (ag->blocks < blocks)
		err = extend_locked(&txn, ag, blocks);
	env_mutex_unlock(fs->env, &ag->mutex);
	txn_end(&txn);
	return err;
}

/* ---- runs ---- */

static void bits_change(uint8_t *bits, uint32_t from, uint32_t count, bool set)
{
	uint32_t i;

	for (i = from; i < from + count; i++) {
		if (set)
			bits[i / 8] |= (uint8_t)(1u << i % 8);
		else
			bits[i / 8] &= (uint8_t)~(1u << i % 8);
	}
}

static bool bits_are(const uint8_t *bits, uint32_t from, uint32_t count, bool set)
{
	uint32_t i;

	for (i = from; i < from + count; i++)
		if (!!(bits[i / 8] & 1u << i % 8) != set)
			return false;
	return true;
}

/*
 * First run of @count blocks at or after word @from.  @partial: only in words that are in use
 * already, so that small runs do not break up what large ones want.
 */
static int64_t map_find(const struct ag_bitmap *m, uint32_t from, uint32_t count, bool partial)
{
	uint32_t word, bit, run = 0;
	uint64_t w;

	for (word = from; word < MAP_WORDS; word++) {
		w = map_word(m, word);
		if (w == UINT64_MAX || (partial && w == 0)) {
			run = 0;
			continue;
		}
		for (bit = 0; bit < 64; bit++) {
			run = w & 1ULL << bit ? 0 : run + 1;
			if (run == count)
				return (int64_t)word * 64 + bit + 1 - count;
		}
	}
	return -1;
}

static int64_t map_find_aligned(const struct ag_bitmap *m, uint32_t from)
{
	uint32_t word;

	for (word = from; word < MAP_WORDS; word++)
		if (map_word(m, word) == 0)
			return (int64_t)word * 64;
	return -1;
}

static int64_t map_search(const struct ag_bitmap *m, uint32_t from, uint32_t count)
{
	int64_t at = -1;

	if (m->free < count)
		return -1;
	if (count == UNIT_BLOCKS) {
		at = map_find_aligned(m, from);
		if (at < 0 && from)
			at = map_find_aligned(m, 0);
	} else if (count < UNIT_BLOCKS) {
		at = map_find(m, from, count, true);
		if (at < 0 && from)
			at = map_find(m, 0, count, true);
	}
	return at < 0 ? map_find(m, 0, count, false) : at;
}

/* Marks @count blocks in @*bits, which is allocated when first needed. */
static int extra_set(uint8_t **bits, uint32_t from, uint32_t count)
{
	if (!*bits)
		*bits = calloc(1, BITMAP_BYTES);
	if (!*bits)
		return -ENOMEM;
	bits_change(*bits, from, count, true);
	return 0;
}

static int reserve_in(struct ag *ag, uint32_t i, uint32_t count, uint32_t from,
		      struct alloc_run *run)
{
	struct ag_bitmap *m;
	int64_t at;
	int err;

	err = ag_bitmap(ag, i, &m);
	if (err)
		return err;
	at = map_search(m, from, count);
	if (at < 0)
		return -ENOSPC;
	err = extra_set(&m->reserved, (uint32_t)at, count);
	if (err)
		return err;
	m->free -= count;
	ag->reserved_count += count;
	ag->rover = i;
	*run = (struct alloc_run){ .block = ag->start + i * BITMAP_BITS + (uint64_t)at,
				   .count = count };
	return 0;
}

/* Runs never cross a bitmap block: a run is marked by one block of the transaction. */
int ag_reserve(struct ag *ag, uint32_t count, uint32_t goal, struct alloc_run *run)
{
	uint32_t first = goal ? goal / BITMAP_BITS : ag->rover, i, n;
	int err = -ENOSPC;

	if (ag_available(ag) < count)
		return -ENOSPC;
	for (n = 0; n < ag->bitmap_count && err == -ENOSPC; n++) {
		i = (first + n) % ag->bitmap_count;
		err = reserve_in(ag, i, count, goal && !n ? goal % BITMAP_BITS / 64 : 0, run);
	}
	return err;
}

int ag_reserve_next(struct ag *ag, uint32_t at, uint32_t max, struct alloc_run *run)
{
	uint32_t i = at / BITMAP_BITS, bit = at % BITMAP_BITS, first;
	struct ag_bitmap *m;
	int err = ag_bitmap(ag, i, &m);

	if (err)
		return err;
	while (bit < BITMAP_BITS && map_word(m, bit / 64) >> bit % 64 & 1)
		bit += map_word(m, bit / 64) == UINT64_MAX ? 64 - bit % 64 : 1;
	if (bit >= BITMAP_BITS)
		return -ENOSPC;
	for (first = bit; bit < BITMAP_BITS && bit - first < max; bit++)
		if (map_word(m, bit / 64) >> bit % 64 & 1)
			break;
	err = extra_set(&m->reserved, first, bit - first);
	if (err)
		return err;
	m->free -= bit - first;
	ag->reserved_count += bit - first;
	*run = (struct alloc_run){ .block = ag->start + i * BITMAP_BITS + (uint64_t)first,
				   .count = bit - first };
	return 0;
}

void ag_unreserve(struct ag *ag, const struct alloc_run *run)
{
	uint32_t at = (uint32_t)(run->block - ag->start);
	struct ag_bitmap *m = &ag->maps[at / BITMAP_BITS];

	bits_change(m->reserved, at % BITMAP_BITS, run->count, false);
	m->free += run->count;
	ag->reserved_count -= run->count;
}

int ag_take(struct txn *txn, struct ag *ag, struct alloc_run *run)
{
	uint32_t at = (uint32_t)(run->block - ag->start), i = at / BITMAP_BITS;
	struct ag_disk *d = ag_change(txn, ag);
	uint8_t *bits;
	int err;

	assert(!run->taken);
	err = ag_bitmap_change(txn, ag, i, &bits);
	if (err)
		return err;
	assert(bits_are(bits, at % BITMAP_BITS, run->count, false));
	bits_change(bits, at % BITMAP_BITS, run->count, true);
	bits_change(ag->maps[i].reserved, at % BITMAP_BITS, run->count, false);
	ag->reserved_count -= run->count;
	d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) - run->count);
	run->taken = true;
	return 0;
}

/* ---- freeing ---- */

/* The part of the run at relative block @at that lies in one bitmap block. */
static uint32_t part_len(uint32_t at, uint32_t count)
{
	uint32_t room = BITMAP_BITS - at % BITMAP_BITS;

	return count < room ? count : room;
}

/* Space of the group that files may have: not its own metadata, nor a superblock copy. */
static bool run_is_space(const struct ag *ag, uint64_t block, uint32_t count)
{
	uint64_t copy = ag->fs->super.copy_addr >> BLOCK_SHIFT;

	return count && block >= ag->start + super_ag_meta(&ag->fs->super) &&
	       block < ag->start + ag->blocks && count <= ag->start + ag->blocks - block &&
	       (copy < block || copy >= block + count);
}

/* Whether all of it is in use; on the way, what the change will need is made ready. */
static int free_check(struct ag *ag, uint32_t at, uint32_t count)
{
	struct ag_bitmap *m;
	uint32_t n;
	int err;

	for (; count; at += n, count -= n) {
		n = part_len(at, count);
		err = ag_bitmap(ag, at / BITMAP_BITS, &m);
		if (!err && !bits_are(map_bits(m), at % BITMAP_BITS, n, true))
			err = ag_damaged(ag, (ag->start + at) << BLOCK_SHIFT,
					 "to be freed with %u blocks, but not all are in use", n);
		if (!err)
			err = extra_set(&m->quarantined, 0, 0);
		if (err)
			return err;
	}
	return 0;
}

static int free_part(struct txn *txn, struct ag *ag, uint32_t at, uint32_t n)
{
	struct ag_bitmap *m = &ag->maps[at / BITMAP_BITS];
	uint8_t *bits;
	int err;

	err = ag_bitmap_change(txn, ag, at / BITMAP_BITS, &bits);
	if (err)
		return err;
	bits_change(bits, at % BITMAP_BITS, n, false);
	bits_change(m->quarantined, at % BITMAP_BITS, n, true);
	ag->quarantined_count += n;
	txn_quarantine(txn, (ag->start + at) << BLOCK_SHIFT, (uint64_t)n << BLOCK_SHIFT);
	return 0;
}

int alloc_free_prepare(struct fs *fs, struct alloc_pin *pin, uint64_t block, uint32_t count)
{
	struct ag *ag = pin->ag;
	int err;

	if (!run_is_space(ag, block, count))
		return 0;	/* alloc_free() says so */
	env_mutex_lock(fs->env, &ag->mutex);
	err = free_check(ag, (uint32_t)(block - ag->start), count);
	env_mutex_unlock(fs->env, &ag->mutex);
	/* A bitmap that contradicts the owner is logged; the owner lets go all the same. */
	return err == -EUCLEAN ? 0 : err;
}

int alloc_free(struct txn *txn, struct alloc_pin *pin, uint64_t block, uint32_t count)
{
	struct ag *ag = pin->ag;
	uint32_t at = (uint32_t)(block - ag->start), n, left;
	struct ag_disk *d;
	int err;

	if (!run_is_space(ag, block, count))
		return ag_damaged(ag, block << BLOCK_SHIFT,
				  "to be freed with %u blocks, is not the group's to give", count);
	env_mutex_lock(ag->fs->env, &ag->mutex);
	err = free_check(ag, at, count);
	if (!err) {
		d = ag_change(txn, ag);
		d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) + count);
	}
	/* free_check() has loaded every bitmap block, so nothing fails half-way. */
	for (left = count; left && !err; at += n, left -= n) {
		n = part_len(at, left);
		err = free_part(txn, ag, at, n);
	}
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return err;
}

static void release_part(struct ag *ag, uint32_t at, uint32_t n)
{
	struct ag_bitmap *m = &ag->maps[at / BITMAP_BITS];

	assert(m->quarantined && bits_are(m->quarantined, at % BITMAP_BITS, n, true));
	bits_change(m->quarantined, at % BITMAP_BITS, n, false);
	m->free += n;
	ag->quarantined_count -= n;
}

void alloc_release(struct fs *fs, uint64_t addr, uint64_t len)
{
	uint32_t count = (uint32_t)(len >> BLOCK_SHIFT), at, n;
	struct ag *ag;

	if (ag_of_block(fs, addr >> BLOCK_SHIFT, &ag))
		return;
	at = (uint32_t)((addr >> BLOCK_SHIFT) - ag->start);
	env_mutex_lock(fs->env, &ag->mutex);
	for (; ag->loaded && count; at += n, count -= n) {
		n = part_len(at, count);
		release_part(ag, at, n);
	}
	env_mutex_unlock(fs->env, &ag->mutex);
}
