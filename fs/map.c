/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a map. */
#include "fs/map.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/grow.h"
#include "fs/map_path.h"

#define ENTRY_BLOCK_MASK	((1ULL << ENTRY_BLOCK_BITS) - 1)
#define ENTRY_ORDER_MASK	0xfULL
#define ENTRY_KNOWN		(ENTRY_BLOCK_MASK | ENTRY_ORDER_MASK << ENTRY_ORDER_SHIFT | \
				 ENTRY_DETACHED)
#define UNIT_ORDER		6u

/* Units that one entry of a block covers, @level levels above the leaves' entries. */
static uint64_t entry_span(unsigned int level)
{
	uint64_t span = 1;

	for (unsigned int i = 0; i < level; i++)
		span *= i ? NODE_POINTERS : LEAF_ENTRIES;
	return span;
}

uint64_t map_capacity(unsigned int depth)
{
	return depth ? INLINE_POINTERS * entry_span(depth) : INLINE_ENTRIES;
}

struct map_index map_index(uint64_t unit, unsigned int depth)
{
	struct map_index index = { .depth = depth };

	for (unsigned int i = depth; i > 0; i--) {
		uint32_t entries = i == depth ? LEAF_ENTRIES : NODE_POINTERS;

		index.at[i] = (uint32_t)(unit % entries);
		unit /= entries;
	}
	index.at[0] = (uint32_t)unit;
	return index;
}

void map_shape(const struct inode_disk *di, unsigned int *depth, uint32_t *count)
{
	bool is_inline = le32_to_cpu(di->flags) & INODE_INLINE;

	*depth = is_inline ? 0 : le32_to_cpu(di->depth);
	*count = is_inline ? 0 : le32_to_cpu(di->root_count);
}

uint32_t map_area_used(const void *area, uint32_t count, size_t size)
{
	static const uint8_t zeros[sizeof(struct map_entry_disk)];

	while (count && !memcmp((const uint8_t *)area + (count - 1) * size, zeros, size))
		count--;
	return count;
}

/* ---- entries ---- */

void map_entry_encode(const struct map_entry *e, struct map_entry_disk *d)
{
	uint64_t unit = e->block | (uint64_t)e->order << ENTRY_ORDER_SHIFT;

	assert(e->block <= ENTRY_BLOCK_MASK && e->order <= UNIT_ORDER);
	if (e->detached)
		unit |= ENTRY_DETACHED;
	d->unit = cpu_to_le64(unit);
	d->valid = cpu_to_le64(e->valid);
}

/* Entry of @unit as it lies on disk; nothing of it is believed unchecked (R9). */
static int entry_decode(struct fs *fs, uint64_t unit, const struct map_entry_disk *d,
			struct map_entry *e)
{
	uint64_t raw = le64_to_cpu(d->unit), valid = le64_to_cpu(d->valid);
	uint32_t order = (uint32_t)(raw >> ENTRY_ORDER_SHIFT & ENTRY_ORDER_MASK);

	*e = (struct map_entry){
		.block = raw & ENTRY_BLOCK_MASK,
		.order = order,
		.detached = raw & ENTRY_DETACHED,
		.valid = valid,
	};
	if (!raw && !valid)
		return 0;
	if (raw & ~ENTRY_KNOWN || order > UNIT_ORDER)
		return -EUCLEAN;
	if (!e->block)
		return order || valid ? -EUCLEAN : 0;
	if (MUTANT("trust-maps"))
		return 0;
	if ((order < UNIT_ORDER && (unit || valid >> (1u << order))) ||
	    !fs_is_space(fs, e->block, 1ULL << order))
		return -EUCLEAN;
	return 0;
}

static int entry_decode_logged(struct fs *fs, struct inode *ino, uint64_t unit,
			       const struct map_entry_disk *d, struct map_entry *e)
{
	int err = entry_decode(fs, unit, d, e);

	if (err)
		log_error(fs->env, fs->label, "inode %llu: map entry of unit %llu is invalid "
			  "(%#llx, valid %#llx): run fsck.lunfs",
			  (unsigned long long)ino->number, (unsigned long long)unit,
			  (unsigned long long)le64_to_cpu(d->unit),
			  (unsigned long long)le64_to_cpu(d->valid));
	return err;
}

/* ---- blocks ---- */

struct meta_expect map_expect(const struct fs *fs, uint64_t id, uint64_t pointer, bool leaf)
{
	return (struct meta_expect){
		.type = leaf ? META_MAP_LEAF : META_MAP_NODE, .volume = fs->super.volume,
		.addr = bptr_addr(pointer), .owner = id, .birth = bptr_birth(pointer),
	};
}

static int block_read(struct fs *fs, struct inode *ino, uint64_t pointer, bool leaf,
		      struct buf **out)
{
	struct meta_expect e = map_expect(fs, ino->id, pointer, leaf);

	if (!fs_is_space(fs, e.addr >> BLOCK_SHIFT, 1)) {
		log_error(fs->env, fs->label, "inode %llu: map block pointer %#llx is out of range: "
			  "run fsck.lunfs", (unsigned long long)ino->number,
			  (unsigned long long)pointer);
		return -EUCLEAN;
	}
	return buf_get(fs, &ino->cover, &e, out);
}

int map_block_get(struct fs *fs, struct inode *ino, uint64_t pointer, bool leaf,
		  struct buf **out)
{
	int err = block_read(fs, ino, pointer, leaf, out);

	if (!err)
		inode_keep(ino, *out);
	return err;
}

/* By a frozen image's copy: without its rwlock, so nothing can be kept. */
static int block_get_of(struct fs *fs, struct inode *ino, const struct inode_disk *di,
			uint64_t pointer, bool leaf, struct buf **out)
{
	return di == ino->frozen ? block_read(fs, ino, pointer, leaf, out) :
				   map_block_get(fs, ino, pointer, leaf, out);
}

int map_set_prepare(struct fs *fs, struct inode *ino, uint64_t unit)
{
	struct map_entry e;

	return map_get(fs, ino, unit, &e);
}

int map_get(struct fs *fs, struct inode *ino, uint64_t unit, struct map_entry *e)
{
	return map_get_of(fs, ino, inode_disk(ino), unit, e);
}

int map_get_of(struct fs *fs, struct inode *ino, const struct inode_disk *di, uint64_t unit,
	       struct map_entry *e)
{
	const struct map_entry_disk *d;
	struct buf *buf = NULL, *next;
	const void *area = di->root;
	struct map_index index;
	unsigned int depth;
	uint32_t count;
	uint64_t p;
	int err;

	map_shape(di, &depth, &count);
	*e = (struct map_entry){ 0 };
	if (unit >= map_capacity(depth))
		return 0;
	index = map_index(unit, depth);
	if (index.at[0] >= count)
		return 0;
	for (unsigned int i = 1; i <= depth; i++) {
		p = map_pointer(area, index.at[i - 1]);
		err = p ? block_get_of(fs, ino, di, p, i == depth, &next) : 0;
		buf_put(fs, buf);
		if (!p || err)
			return err;
		buf = next;
		area = map_area(buf);
	}
	d = (const struct map_entry_disk *)area + index.at[depth];
	err = entry_decode_logged(fs, ino, unit, d, e);
	buf_put(fs, buf);
	return err;
}

int map_get_unlocked(struct fs *fs, uint64_t id, const struct inode_disk *di, uint64_t unit,
		     struct map_entry *e)
{
	uint64_t version = meta_version(di), p;
	const void *area = di->root;
	struct meta_expect expect;
	struct map_index index;
	unsigned int depth;
	uint8_t *block;
	uint32_t count;
	int err = 0;

	map_shape(di, &depth, &count);
	*e = (struct map_entry){ 0 };
	if (unit >= map_capacity(depth))
		return 0;
	index = map_index(unit, depth);
	if (index.at[0] >= count)
		return 0;
	block = blkdev_alloc(BLOCK_SIZE);
	if (!block)
		return -ENOMEM;
	for (unsigned int i = 1; i <= depth; i++) {
		p = map_pointer(area, index.at[i - 1]);
		if (!p)
			goto out;
		expect = map_expect(fs, id, p, i == depth);
		err = fs_is_space(fs, expect.addr >> BLOCK_SHIFT, 1) ?
		      buf_read_unlocked(fs, &expect, block) : -EUCLEAN;
		if (!err && meta_version(block) > version)
			err = -EAGAIN;	/* newer than the inode that we came from */
		if (err)
			goto out;
		area = block + sizeof(struct meta_hdr_disk);
	}
	err = entry_decode(fs, unit, (const struct map_entry_disk *)area + index.at[depth], e);
out:
	free(block);
	return err;
}

/* ---- searching ---- */

/* Part of a map: @count entries at @area, @level levels above the leaves' entries. */
struct map_part {
	const void	*area;
	uint32_t	count;
	unsigned int	level;
	uint64_t	base;	/* unit of the first entry */
};

struct map_search {
	struct fs	*fs;
	struct inode	*ino;
	const struct inode_disk *di;
	bool		backward;
	uint64_t	unit;	/* from here; receives where */
	uint64_t	left;	/* map blocks that there can still be */
	struct map_entry *e;
};

/* Each block of a tree is met once: more of them than the file has is a tree with knots (R9). */
static uint64_t blocks_at_most(const struct fs *fs, const struct inode_disk *di)
{
	uint64_t blocks = le64_to_cpu(di->blocks);
	uint64_t all = super_size(&fs->super) >> BLOCK_SHIFT;

	return blocks < all ? blocks : all;
}

static int search_knot(const struct map_search *s)
{
	log_error(s->fs->env, s->fs->label, "inode %llu: its map has more blocks than the inode "
		  "says: run fsck.lunfs", (unsigned long long)s->ino->number);
	return -EUCLEAN;
}

static int search_part(struct map_search *s, const struct map_part *part);

static int search_entry(struct map_search *s, const struct map_part *part, uint32_t i)
{
	uint64_t first = part->base + i * entry_span(part->level), p;
	struct map_part below;
	struct buf *buf;
	int err;

	if (!part->level) {
		err = entry_decode_logged(s->fs, s->ino, first,
					  (const struct map_entry_disk *)part->area + i, s->e);
		if (!err && !s->e->block && !s->e->detached)
			return -ENOENT;
		s->unit = first;
		return err;
	}
	p = map_pointer(part->area, i);
	if (!p)
		return -ENOENT;
	if (!s->left--)
		return search_knot(s);
	err = block_get_of(s->fs, s->ino, s->di, p, part->level == 1, &buf);
	if (err)
		return err;
	below = (struct map_part){
		.area = map_area(buf), .level = part->level - 1, .base = first,
		.count = part->level == 1 ? LEAF_ENTRIES : NODE_POINTERS,
	};
	err = search_part(s, &below);
	buf_put(s->fs, buf);
	return err;
}

/* Recursion no deeper than DEPTH_MAX + 1. */
static int search_part(struct map_search *s, const struct map_part *part)
{
	uint64_t skip = s->unit > part->base ? s->unit - part->base : 0, i;
	int err = -ENOENT;

	i = skip / entry_span(part->level);
	if (s->backward) {
		if (s->unit < part->base || !part->count)
			return -ENOENT;
		if (i >= part->count)
			i = part->count - 1;
		do {
			err = search_entry(s, part, (uint32_t)i);
		} while (err == -ENOENT && i--);
	} else {
		for (; i < part->count && err == -ENOENT; i++)
			err = search_entry(s, part, (uint32_t)i);
	}
	return err;
}

static int map_search(struct fs *fs, struct inode *ino, const struct inode_disk *di,
		      uint64_t *unit, bool backward, struct map_entry *e)
{
	struct map_entry found = { 0 };
	struct map_search s = {
		.fs = fs, .ino = ino, .di = di, .backward = backward, .unit = *unit, .e = &found,
		.left = blocks_at_most(fs, di),
	};
	struct map_part root = { .area = di->root };
	int err;

	map_shape(di, &root.level, &root.count);
	err = search_part(&s, &root);
	if (err)
		return err;
	*unit = s.unit;
	*e = found;
	return 0;
}

int map_next(struct fs *fs, struct inode *ino, uint64_t *unit, struct map_entry *e)
{
	return map_search(fs, ino, inode_disk(ino), unit, false, e);
}

int map_prev(struct fs *fs, struct inode *ino, uint64_t *unit, struct map_entry *e)
{
	return map_search(fs, ino, inode_disk(ino), unit, true, e);
}

int map_next_of(struct fs *fs, struct inode *ino, const struct inode_disk *di, uint64_t *unit,
		struct map_entry *e)
{
	return map_search(fs, ino, di, unit, false, e);
}
