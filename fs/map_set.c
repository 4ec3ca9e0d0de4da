/* SPDX-License-Identifier: Apache-2.0 */
/* Changing a map: entries set, levels and blocks added; empty blocks trimmed. */
#include "fs/map.h"

#include <errno.h>

#include "fs/map_path.h"

/* The way to a unit that lies below the present tree: what is missing once levels are added. */
static unsigned int missing_below_new_levels(uint64_t unit, unsigned int depth, bool empty)
{
	/*
	 * The old tree hangs under the new root's first pointer.  A unit there shares the top
	 * block with it, and no more: it lies beyond what the old tree could hold.
	 */
	if (!empty && map_index(unit, depth).at[0] == 0)
		return depth - 1;
	return depth;
}

int map_blocks_needed(struct fs *fs, struct inode *ino, uint64_t unit, unsigned int *count)
{
	const struct inode_disk *di = inode_disk(ino);
	unsigned int depth, need = 0, old;
	struct buf *buf = NULL, *next;
	const void *area = di->root;
	struct map_index index;
	uint32_t used;
	uint64_t p;
	int err;

	map_shape(di, &depth, &used);
	old = depth;
	for (; depth <= DEPTH_MAX && unit >= map_capacity(depth); depth++)
		need += used != 0;
	if (depth > DEPTH_MAX)
		return -EFBIG;
	*count = need;
	if (depth > old) {
		*count += missing_below_new_levels(unit, depth, !used);
		return 0;
	}
	index = map_index(unit, depth);
	for (unsigned int i = 1; i <= depth; i++) {
		/* What lies behind the count may be anything. */
		p = i == 1 && index.at[0] >= used ? 0 : map_pointer(area, index.at[i - 1]);
		err = p ? map_block_get(fs, ino, p, i == depth, &next) : 0;
		buf_put(fs, buf);
		buf = NULL;
		if (err)
			return err;
		if (!p) {
			*count = depth - i + 1;
			return 0;
		}
		buf = next;
		area = map_area(buf);
	}
	buf_put(fs, buf);
	return 0;
}

/* What map_set() works on. */
struct map_change {
	struct txn	*txn;
	struct inode	*ino;
	struct inode_disk *di;
	struct alloc_hold *hold;
	unsigned int	next;	/* run of @hold for the next block */
};

/* A new block of the map, empty, dirty and referenced; *@p will name it. */
static int block_new(struct map_change *c, bool leaf, struct buf **out, uint64_t *p)
{
	struct fs *fs = c->ino->fs;
	struct meta_expect e;
	struct buf *buf;
	int err;

	assert(c->hold && c->next < c->hold->run_count &&
	       c->hold->runs[c->next].count == 1);
	*p = BPTR(c->hold->runs[c->next].block, inode_birth(c->ino, c->di));
	e = map_expect(fs, c->ino->id, *p, leaf);
	err = alloc_take_block(c->txn, c->hold, c->next, &c->ino->cover, &e, &buf);
	if (err)
		return err;
	txn_dirty(c->txn, buf, c->ino->version);
	c->next++;
	c->di->blocks = cpu_to_le64(le64_to_cpu(c->di->blocks) + 1);
	*out = buf;
	return 0;
}

/*
 * What lies behind the count means nothing: zeros, unless another program or a repaired damage
 * left something.  From here on it does mean something.
 */
static void root_clear_rest(struct inode_disk *di)
{
	size_t used = le32_to_cpu(di->root_count) *
		      (le32_to_cpu(di->depth) ? sizeof(le64) : sizeof(struct map_entry_disk));

	memset(di->root + used, 0, sizeof(di->root) - used);
}

/* One level more: what the root area holds moves into a block of its own. */
static int level_add(struct map_change *c)
{
	uint32_t depth = le32_to_cpu(c->di->depth), count = le32_to_cpu(c->di->root_count);
	size_t entry = depth ? sizeof(le64) : sizeof(struct map_entry_disk);
	struct buf *buf;
	uint64_t p;
	int err;

	if (count) {
		err = block_new(c, !depth, &buf, &p);
		if (err)
			return err;
		memcpy(map_area(buf), c->di->root, count * entry);
		memset(c->di->root, 0, sizeof(c->di->root));
		map_pointer_set(c->di->root, 0, p);
		c->di->root_count = cpu_to_le32(1);
		buf_put(c->ino->fs, buf);
	}
	c->di->depth = cpu_to_le32(depth + 1);
	return 0;
}

static void root_count_update(struct inode_disk *di)
{
	bool pointers = le32_to_cpu(di->depth) != 0;
	size_t entry = pointers ? sizeof(le64) : sizeof(struct map_entry_disk);

	di->root_count = cpu_to_le32(map_area_used(di->root, (uint32_t)(INLINE_SIZE / entry), entry));
}

/* The block below entry @at of @parent (NULL: of the root area), made if @make and absent. */
static int step_down(struct map_change *c, struct buf *parent, uint32_t at, bool leaf, bool make,
		     struct buf **out)
{
	void *area = parent ? map_area(parent) : c->di->root;
	uint64_t p = map_pointer(area, at);
	int err;

	if (p)
		return map_block_get(c->ino->fs, c->ino, p, leaf, out);
	if (!make)
		return -ENOENT;
	err = block_new(c, leaf, out, &p);
	if (err)
		return err;
	if (parent)
		txn_dirty(c->txn, parent, c->ino->version);
	map_pointer_set(area, at, p);
	if (!parent)
		root_count_update(c->di);
	return 0;
}

/* The leaf that holds the entry, NULL: the root area does. */
static int leaf_find(struct map_change *c, const struct map_index *index, bool make,
		     struct buf **out)
{
	struct buf *buf = NULL, *below;
	int err;

	for (unsigned int i = 1; i <= index->depth; i++) {
		err = step_down(c, buf, index->at[i - 1], i == index->depth, make, &below);
		buf_put(c->ino->fs, buf);
		if (err)
			return err;
		buf = below;
	}
	*out = buf;
	return 0;
}

int map_set(struct txn *txn, struct inode *ino, uint64_t unit, const struct map_entry *e,
	    struct alloc_hold *hold, unsigned int next)
{
	struct map_change c = {
		.txn = txn, .ino = ino, .di = (struct inode_disk *)ino->buf->data, .hold = hold,
		.next = next,
	};
	bool make = e->block || e->detached;
	struct map_entry_disk *entries;
	struct map_index index;
	struct buf *leaf = NULL;
	int err;

	assert(!(le32_to_cpu(c.di->flags) & INODE_INLINE));
	root_clear_rest(c.di);
	while (unit >= map_capacity(le32_to_cpu(c.di->depth))) {
		if (!make)
			return 0;
		assert(le32_to_cpu(c.di->depth) < DEPTH_MAX);
		err = level_add(&c);
		if (err)
			return err;
	}
	index = map_index(unit, le32_to_cpu(c.di->depth));
	err = leaf_find(&c, &index, make, &leaf);
	if (err)
		return err == -ENOENT && !make ? 0 : err;
	if (leaf)
		txn_dirty(txn, leaf, ino->version);
	entries = leaf ? map_area(leaf) : (void *)c.di->root;
	map_entry_encode(e, entries + index.at[index.depth]);
	if (!leaf)
		root_count_update(c.di);
	buf_put(ino->fs, leaf);
	return 0;
}

/* ---- trimming ---- */

/*
 * The last block of the tree, if it is empty, and what points to it: *@parent NULL is the
 * root area.  *@block NULL: it is not empty, or there is none.
 */
static int trim_find(struct fs *fs, struct inode *ino, struct buf **parent, uint32_t *at,
		     struct buf **block)
{
	const void *area = inode_disk(ino)->root;
	struct buf *above = NULL, *buf = NULL;
	unsigned int depth;
	uint32_t used;
	int err;

	map_shape(inode_disk(ino), &depth, &used);
	used = depth ? map_area_used(area, used, sizeof(le64)) : 0;
	for (unsigned int i = 1; used && i <= depth; i++) {
		bool leaf = i == depth;

		buf_put(fs, above);
		above = buf;
		*at = used - 1;
		err = map_block_get(fs, ino, map_pointer(area, *at), leaf, &buf);
		if (err) {
			buf_put(fs, above);
			return err;
		}
		area = map_area(buf);
		used = leaf ? map_area_used(area, LEAF_ENTRIES, sizeof(struct map_entry_disk)) :
		       map_area_used(area, NODE_POINTERS, sizeof(le64));
	}
	if (used) {
		buf_put(fs, above);
		buf_put(fs, buf);
		above = buf = NULL;
	}
	*parent = above;
	*block = buf;
	return 0;
}

int map_trim_candidate(struct fs *fs, struct inode *ino, uint64_t *block)
{
	struct buf *parent, *buf;
	uint32_t at;
	int err = trim_find(fs, ino, &parent, &at, &buf);

	if (err)
		return err;
	*block = buf ? buf->addr >> BLOCK_SHIFT : 0;
	buf_put(fs, buf);
	buf_put(fs, parent);
	return 0;
}

int map_trim(struct txn *txn, struct inode *ino, struct alloc_pin *pin, uint64_t block)
{
	struct fs *fs = ino->fs;
	struct buf *parent, *buf;
	struct inode_disk *di;
	uint32_t at;
	int err = trim_find(fs, ino, &parent, &at, &buf);

	if (err)
		return err;
	assert(buf && buf->addr >> BLOCK_SHIFT == block);
	err = alloc_free(txn, pin, block, 1);
	if (err) {
		buf_put(fs, buf);
		buf_put(fs, parent);
		return err;
	}
	di = inode_change(txn, ino);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) - 1);
	if (parent) {
		txn_dirty(txn, parent, ino->version);
		map_pointer_set(map_area(parent), at, 0);
	} else {
		root_clear_rest(di);
		map_pointer_set(di->root, at, 0);
		root_count_update(di);
		if (!le32_to_cpu(di->root_count))
			di->depth = cpu_to_le32(0);
	}
	buf_put(fs, parent);
	buf_drop(fs, txn, buf);
	return 0;
}
