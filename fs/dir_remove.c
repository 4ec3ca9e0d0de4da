// SPDX-License-Identifier: Apache-2.0
/*
 * Removal from a directory, and the end of a directory's tree.
 *
 * A leaf that becomes empty is freed, and with it every node above that has no other child;
 * all of them must lie in the one group that was pinned.  Where they do not, or the group
 * cannot be had, the empty leaf stays: the next insertion there uses it, and deleting never
 * fails for want of a lock or of space.
 *
 * A node begins where the index above says that it does.  So the first of several nodes stays,
 * too, with an empty leaf: the second one would have to begin at its place, and with it
 * whatever is first below that.
 */
#include "fs/dir_tree.h"

#define REMOVE_CREDITS	(2 + DEPTH_MAX + 3 * (DEPTH_MAX + 1))

static uint64_t buf_block(const struct buf *buf)
{
	return buf->addr >> BLOCK_SHIFT;
}

/* How many blocks of @path go when its leaf does: the leaf, then each node above that has no
 * other child; 0 if the highest of these nodes is the first of several. */
static unsigned int dir_path_dying(const struct dir_path *path)
{
	const struct dir_step *keeps;
	unsigned int dying = 1;

	while (dying < path->depth && path->steps[path->depth - dying].count == 1)
		dying++;
	keeps = &path->steps[path->depth - dying];
	return dying > 1 && keeps->count > 1 && keeps->index == 0 ? 0 : dying;
}

/* The @i-th of them, 0 being the leaf. */
static struct buf **dir_path_block(struct dir_path *path, unsigned int i)
{
	return i ? &path->steps[path->depth - i].buf : &path->leaf;
}

int dir_remove_prepare(struct fs *fs, struct inode *dir, const char *name, size_t len,
		       struct alloc_pin *pin, unsigned int *credits)
{
	struct dir_path path;
	const struct dir_leaf_disk *leaf;
	uint64_t blocks[DEPTH_MAX + 1];
	unsigned int dying = 0, i;
	int err;

	pin->ag = NULL;
	*credits = 2;
	err = dir_walk(fs, dir, dir_hash(&fs->super, name, len), &path);
	if (err)
		return err;
	leaf = path.leaf ? path.leaf->data : NULL;
	if (leaf && le32_to_cpu(leaf->count) == 1)
		dying = dir_path_dying(&path);
	for (i = 0; i < dying; i++)
		blocks[i] = buf_block(*dir_path_block(&path, i));
	dir_path_put(fs, &path);
	if (!dying)
		return 0;
	/* Only by trying: a rename has pinned another group already.  Else the leaf stays. */
	if (alloc_pin_try(fs, blocks[0], pin))
		pin->ag = NULL;
	for (i = 0; i < dying && pin->ag; i++)
		if (!alloc_pin_covers(fs, pin, blocks[i]) ||
		    alloc_free_prepare(fs, pin, blocks[i], 1))
			alloc_unpin(fs, pin);
	*credits = REMOVE_CREDITS;
	return 0;
}

/* Groups that are pinned for freeing. */
struct dir_pins {
	struct alloc_pin *pins;
	unsigned int count;
};

static struct alloc_pin *dir_pins_find(struct fs *fs, const struct dir_pins *p, uint64_t block)
{
	unsigned int i;

	for (i = 0; i < p->count; i++)
		if (p->pins[i].ag && alloc_pin_covers(fs, &p->pins[i], block))
			return &p->pins[i];
	return NULL;
}

static bool dir_path_pinned(struct fs *fs, struct dir_path *path, unsigned int dying,
			    const struct dir_pins *pins)
{
	unsigned int i;

	for (i = 0; i < dying; i++)
		if (!dir_pins_find(fs, pins, buf_block(*dir_path_block(path, i))))
			return false;
	return true;
}

/* Takes child @at out of @entries; the first one, if it is a leaf, takes over the lower bound. */
static void dir_index_cut(struct dir_index_disk *entries, uint32_t count, uint32_t at)
{
	if (at == 0 && count > 1)
		entries[1].hash = entries[0].hash;
	memmove(entries + at, entries + at + 1, (count - at - 1) * sizeof(*entries));
	memset(entries + count - 1, 0, sizeof(*entries));
}

static void dir_block_free(struct txn *txn, struct inode_disk *di, const struct dir_pins *pins,
			   struct buf **buf)
{
	uint64_t block = buf_block(*buf);

	/* -EUCLEAN was logged; the name is gone all the same, fsck counts the block. */
	alloc_free(txn, dir_pins_find(txn->fs, pins, block), block, 1);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) - 1);
	buf_drop(txn->fs, txn, *buf);
	*buf = NULL;
}

static void dir_make_inline(struct inode_disk *di)
{
	memset(di->root, 0, INLINE_SIZE);
	di->root_count = cpu_to_le32(0);
	di->depth = cpu_to_le32(0);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_INLINE);
}

/* Frees the @dying lowest blocks of @path and takes them out of the index above. */
static void dir_path_free(struct txn *txn, struct inode *dir, struct inode_disk *di,
			  struct dir_path *path, const struct dir_pins *pins, unsigned int dying)
{
	unsigned int i = path->depth - dying;	/* the step that keeps other children */
	struct dir_step *step = &path->steps[i];
	struct dir_node_disk *node;
	unsigned int j;

	for (j = 0; j < dying; j++)
		dir_block_free(txn, di, pins, dir_path_block(path, j));
	if (step->buf) {
		txn_dirty(txn, step->buf, dir->version);
		node = step->buf->data;
		dir_index_cut(node->entries, step->count, step->index);
		node->count = cpu_to_le32(step->count - 1);
	} else if (step->count > 1) {
		dir_index_cut((struct dir_index_disk *)(void *)di->root, step->count, step->index);
		di->root_count = cpu_to_le32(step->count - 1);
	} else {
		dir_make_inline(di);
	}
}

static void dir_entry_cut(struct txn *txn, struct inode *dir, struct inode_disk *di,
			  struct dir_path *path, const struct dir_pos *pos)
{
	struct dir_leaf_disk *leaf;
	uint32_t used;

	if (!path->leaf) {
		used = le32_to_cpu(di->root_count);
		dir_bytes_cut(di->root, used, pos->off, pos->bytes);
		di->root_count = cpu_to_le32(used - pos->bytes);
		return;
	}
	txn_dirty(txn, path->leaf, dir->version);
	leaf = path->leaf->data;
	used = le32_to_cpu(leaf->used);
	dir_bytes_cut(leaf->entries, used, pos->off, pos->bytes);
	leaf->used = cpu_to_le32(used - pos->bytes);
	leaf->count = cpu_to_le32(le32_to_cpu(leaf->count) - 1);
}

int dir_remove(struct txn *txn, struct inode *dir, const char *name, size_t len,
	       struct alloc_pin *pin)
{
	struct fs *fs = txn->fs;
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct inode_disk *di = inode_change(txn, dir);
	struct dir_path path;
	struct dir_ents e;
	struct dir_pos pos;
	struct dir_pins pins = { pin, pin ? 1 : 0 };
	unsigned int dying = 0;
	int err;

	err = dir_walk(fs, dir, hash, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	if (!dir_ents_find(&e, hash, name, len, &pos)) {
		dir_path_put(fs, &path);
		return -ENOENT;
	}
	if (path.leaf && pos.bytes == e.used)
		dying = dir_path_dying(&path);
	if (dying && dir_path_pinned(fs, &path, dying, &pins))
		dir_path_free(txn, dir, di, &path, &pins, dying);
	else
		dir_entry_cut(txn, dir, di, &path, &pos);
	di->entries = cpu_to_le64(le64_to_cpu(di->entries) - 1);
	di->size = cpu_to_le64(le64_to_cpu(di->size) - pos.bytes);
	dir_path_put(fs, &path);
	return 0;
}

/* ---- the end of a tree ---- */

static void dir_pins_put(struct fs *fs, struct dir_pins *p)
{
	while (p->count)
		alloc_unpin(fs, &p->pins[--p->count]);
}

/* Pins the group of each dying block: waits for the first, tries the others. */
static int dir_pins_get(struct fs *fs, struct dir_path *path, unsigned int dying,
			struct dir_pins *p)
{
	uint64_t block;
	unsigned int i;
	int err;

	for (i = 0; i < dying; i++) {
		block = buf_block(*dir_path_block(path, i));
		if (dir_pins_find(fs, p, block))
			continue;
		err = p->count ? alloc_pin_try(fs, block, &p->pins[p->count]) :
				 alloc_pin(fs, block, &p->pins[p->count]);
		if (err) {
			dir_pins_put(fs, p);
			return err;
		}
		p->count++;
	}
	for (i = 0, err = 0; i < dying && !err; i++) {
		block = buf_block(*dir_path_block(path, i));
		err = alloc_free_prepare(fs, dir_pins_find(fs, p, block), block, 1);
	}
	if (err)
		dir_pins_put(fs, p);
	return err;
}

/* Frees the last leaf, which is empty, and the nodes above that have no other child. */
int dir_free_step(struct fs *fs, struct inode *dir)
{
	struct alloc_pin array[DEPTH_MAX + 1];
	struct dir_pins pins = { array, 0 };
	struct dir_path path;
	unsigned int dying;
	struct txn txn;
	int err;

	if (le32_to_cpu(inode_disk(dir)->depth) == 0)
		return 0;
	err = dir_walk(fs, dir, DIR_HASH_END - 1, &path);
	if (err)
		return err;
	dying = dir_path_dying(&path);	/* never 0: the last child is the first only if alone */
	err = dir_pins_get(fs, &path, dying, &pins);
	if (!err)
		err = txn_begin(fs, REMOVE_CREDITS, &txn);
	if (!err) {
		dir_path_free(&txn, dir, inode_change(&txn, dir), &path, &pins, dying);
		txn_end(&txn);
		err = le32_to_cpu(inode_disk(dir)->depth) > 0;
	}
	dir_path_put(fs, &path);
	dir_pins_put(fs, &pins);
	return err;
}
