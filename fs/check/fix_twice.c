/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that two things refer to, once all of them are known.
 *
 * Of two files the one that was changed last keeps them (versions of map blocks count each file's
 * own changes and cannot be compared); the other gets a copy, whatever they hold.  Metadata keeps its blocks; what a file had in them is zeros from then on, because
 * nothing of it can be left.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/check/fix.h"

/* A walk over every map. */
struct walk {
	struct check *c;
	uint8_t	*levels;	/* DEPTH_MAX + 1 blocks */
	uint64_t id;
	uint64_t changed_ns;	/* when the file was changed last */
	bool	settle;		/* second time: who does not keep blocks gives them up */
	uint8_t	*copy;		/* a unit */
};

static struct chk_twice *find(struct check *c, uint64_t block)
{
	struct table_node *n = table_find(&c->fix->twice, block);

	return n ? container_of(n, struct chk_twice, node) : NULL;
}

static void belongs_to_metadata(struct check *c, uint64_t block)
{
	struct chk_twice *t = find(c, block);

	if (t) {
		t->owner = 0;
		t->changed_ns = UINT64_MAX;
	}
}

/* First time: the newest has it. */
static void note_entry(struct walk *w, uint64_t unit, uint64_t block, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct chk_twice *t = find(w->c, block + i);

		if (!t || (t->owner && t->changed_ns >= w->changed_ns) || t->changed_ns == UINT64_MAX)
			continue;
		t->changed_ns = w->changed_ns;
		t->owner = w->id;
		t->unit = unit;
	}
}

/* Which blocks of the entry are another's, and which of these metadata. */
static uint64_t lost_blocks(struct walk *w, uint64_t unit, uint64_t block, uint32_t count,
			    uint64_t *meta)
{
	uint64_t lost = 0;

	*meta = 0;
	for (uint32_t i = 0; i < count; i++) {
		const struct chk_twice *t = find(w->c, block + i);

		if (!t || (t->owner == w->id && t->unit == unit))
			continue;
		lost |= 1ULL << i;
		if (t->changed_ns == UINT64_MAX)
			*meta |= 1ULL << i;
	}
	return lost;
}

/* The whole entry moves to blocks of its own, with the data that it shows. */
static bool move_entry(struct walk *w, struct map_entry_disk *e, uint64_t block, uint32_t count,
		       uint64_t meta)
{
	uint64_t word = le64_to_cpu(e->unit), valid = le64_to_cpu(e->valid) & ~meta;
	uint64_t to = fix_alloc(w->c, count);
	size_t len = (size_t)count * BLOCK_SIZE;

	if (!to || blkdev_read(w->c->dev, block << BLOCK_SHIFT, w->copy, len) ||
	    fix_write(w->c, to << BLOCK_SHIFT, w->copy, len) || blkdev_flush(w->c->dev))
		return false;
	e->unit = cpu_to_le64((word & ~((1ULL << ENTRY_BLOCK_BITS) - 1)) | to);
	e->valid = cpu_to_le64(valid);
	return true;
}

static bool walk_entry(struct walk *w, uint64_t unit, struct map_entry_disk *e)
{
	uint64_t word = le64_to_cpu(e->unit), meta;
	uint64_t block = word & ((1ULL << ENTRY_BLOCK_BITS) - 1);
	uint32_t order = word >> ENTRY_ORDER_SHIFT & 15;

	if (!block || order > 6 || !chk_space_ok(w->c, block, 1u << order))
		return false;
	if (!w->settle) {
		note_entry(w, unit, block, 1u << order);
		return false;
	}
	/* Of what lies behind is not known whose it is. */
	return block + (1u << order) <= w->c->fix->twice_end &&
	       lost_blocks(w, unit, block, 1u << order, &meta) &&
	       move_entry(w, e, block, 1u << order, meta);
}

static void walk_block(struct walk *w, uint64_t pointer, unsigned int level, uint64_t unit,
		       uint64_t step)
{
	struct meta_expect e = { level ? META_MAP_NODE : META_MAP_LEAF, w->c->s->volume,
				 bptr_addr(pointer), w->id, bptr_birth(pointer) };
	uint8_t *block = w->levels + (size_t)level * BLOCK_SIZE;
	bool changed = false;

	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1) ||
	    blkdev_read(w->c->dev, e.addr, block, BLOCK_SIZE) || meta_verify(block, &e, NULL, 0))
		return;
	belongs_to_metadata(w->c, e.addr >> BLOCK_SHIFT);
	for (uint32_t i = 0; level && i < NODE_POINTERS; i++) {
		uint64_t next = le64_to_cpu(((struct map_node_disk *)block)->pointers[i]);

		if (next)
			walk_block(w, next, level - 1, unit + i * step, step / NODE_POINTERS);
	}
	for (uint32_t i = 0; !level && i < LEAF_ENTRIES; i++)
		changed |= walk_entry(w, unit + i, &((struct map_leaf_disk *)block)->entries[i]);
	if (changed)
		fix_seal(w->c, block, &e);
}

static uint64_t last_change(const struct inode_disk *d)
{
	int64_t m = (int64_t)le64_to_cpu(d->mtime), c = (int64_t)le64_to_cpu(d->ctime);
	int64_t last = m > c ? m : c;

	return last > 0 ? (uint64_t)last : 0;
}

static void walk_file(struct walk *w, struct inode_disk *d, uint64_t number)
{
	uint32_t depth = le32_to_cpu(d->depth), count = le32_to_cpu(d->root_count);
	uint64_t step = LEAF_ENTRIES;
	bool changed = false;

	if (le32_to_cpu(d->flags) & INODE_INLINE || depth > DEPTH_MAX ||
	    count > (depth ? INLINE_POINTERS : INLINE_ENTRIES))
		return;
	w->changed_ns = last_change(d);
	for (uint32_t i = 1; i < depth; i++)
		step *= NODE_POINTERS;
	for (uint32_t i = 0; depth && i < count; i++) {
		uint64_t pointer = le64_to_cpu(((le64 *)(void *)d->root)[i]);

		if (pointer)
			walk_block(w, pointer, depth - 1, i * step, step / NODE_POINTERS);
	}
	for (uint32_t i = 0; !depth && i < count; i++)
		changed |= walk_entry(w, i, &((struct map_entry_disk *)(void *)d->root)[i]);
	if (changed)
		fix_inode(w->c, d, number);
}

/*
 * Whatever makes a claim is met here, or has written its own anew: what is not found would keep its blocks,
 * and be found again, for ever.  Attributes are metadata, of whatever inode; directories' own blocks are
 * claimed last, and who comes second there was rebuilt.
 */
static void walk_all(struct walk *w)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	for (size_t i = 0; i < w->c->inode_count && !w->c->fix->err; i++) {
		const struct chk_inode *ino = &w->c->inodes[i];
		uint64_t number;

		if (!ino->type)
			continue;
		number = chk_number(w->c, ino);
		if (fix_read_inode(w->c, number, d))
			continue;
		w->id = inode_id_make(number, (uint32_t)ino->generation);
		belongs_to_metadata(w->c, bptr_addr(le64_to_cpu(d->xattr)) >> BLOCK_SHIFT);
		if (ino->type == DT_REG || ino->type == DT_LNK)
			walk_file(w, d, number);
	}
}

/* Indices and clusters; what directories have lost is written anew elsewhere. */
static void note_inodes(struct check *c)
{
	for (size_t i = 0; i < c->fix->index_count; i++)
		belongs_to_metadata(c, bptr_addr(c->fix->indices[i]) >> BLOCK_SHIFT);
	for (size_t i = 0; i < c->cluster_count; i++)
		for (uint32_t k = 0; k < 2u * c->clusters[i].count; k++)
			belongs_to_metadata(c, c->clusters[i].first + k);
}

void fix_shared(struct check *c)
{
	struct walk w = { .c = c };

	if (!c->fix->twice.count || c->fix->err)
		return;
	w.levels = blkdev_alloc((DEPTH_MAX + 1) * BLOCK_SIZE);
	w.copy = blkdev_alloc(UNIT_SIZE);
	if (w.levels && w.copy) {
		note_inodes(c);
		walk_all(&w);
		w.settle = true;
		walk_all(&w);
	} else {
		c->no_memory = true;
	}
	free(w.levels);
	free(w.copy);
}
