// SPDX-License-Identifier: Apache-2.0
/*
 * Insertion into a directory.  A full leaf is split in two by hash, equal hashes staying
 * together; a full node likewise; a full root area moves into a node of its own, which
 * makes the tree one level deeper.  An inline directory that grows out of its inode becomes
 * one leaf below the root.
 */
#include "fs/dir_tree.h"

#define DIR_MERGED_BYTES	(DIR_LEAF_BYTES + DIR_ENTRY_BYTES + NAME_BYTES_MAX)

/* A leaf's (or inline directory's) entries with the new one among them. */
struct dir_merged {
	uint32_t used, count;
	uint32_t cut;		/* entries from here on go into a new leaf; 0: all fit into one */
	uint64_t cut_hash;	/* the first hash there */
	uint8_t	bytes[DIR_MERGED_BYTES];
};

/* Blocks made for one insertion, all of them got before anything changes. */
struct dir_made {
	struct alloc_hold *hold;
	unsigned int count, next;
	struct buf *bufs[ALLOC_RUNS_MAX];
	uint64_t pointers[ALLOC_RUNS_MAX];
};

static int dir_merge(const struct dir_ents *e, const char *name, size_t len, uint64_t hash,
		     uint64_t id, uint8_t type, struct dir_merged *m)
{
	struct dir_entry_disk d = { cpu_to_le64(id), cpu_to_le64(hash), type, (uint8_t)len };
	struct dir_pos pos;

	if (dir_ents_find(e, hash, name, len, &pos))
		return -EEXIST;
	memcpy(m->bytes, e->bytes, pos.off);
	memcpy(m->bytes + pos.off, &d, sizeof(d));
	memcpy(m->bytes + pos.off + sizeof(d), name, len);
	memcpy(m->bytes + pos.off + pos.bytes, e->bytes + pos.off, e->used - pos.off);
	m->used = e->used + pos.bytes;
	m->cut = 0;
	m->cut_hash = 0;
	return 0;
}

/* Cuts between two different hashes, as near to the middle as can be. */
static int dir_merged_cut(struct dir_merged *m)
{
	struct dir_ents e = { m->bytes, m->used };
	uint32_t off, skew, best = UINT32_MAX;
	uint64_t hash, last = 0;

	for (off = 0; off < m->used; off += dir_entry_bytes(dir_ents_at(&e, off))) {
		hash = le64_to_cpu(dir_ents_at(&e, off)->hash);
		skew = off * 2 > m->used ? off * 2 - m->used : m->used - off * 2;
		if (off > 0 && hash != last && off <= DIR_LEAF_BYTES &&
		    m->used - off <= DIR_LEAF_BYTES && skew < best) {
			best = skew;
			m->cut = off;
			m->cut_hash = hash;
		}
		last = hash;
	}
	/* Only names of one hash: without the volume's key nobody can make that happen. */
	return best == UINT32_MAX ? -ENOSPC : 0;
}

/* What inserting will take: new blocks and, through @m, the entries and their cut. */
static int dir_plan(const struct dir_path *path, struct dir_merged *m, unsigned int *blocks)
{
	unsigned int i;
	int err;

	*blocks = 0;
	if (path->depth == 0) {
		*blocks = m->used > INLINE_SIZE;
		return 0;
	}
	if (m->used <= DIR_LEAF_BYTES)
		return 0;
	err = dir_merged_cut(m);
	if (err)
		return err;
	*blocks = 1;
	for (i = path->depth - 1; i > 0; i--) {
		if (path->steps[i].count < DIR_NODE_ENTRIES)
			return 0;
		++*blocks;
	}
	if (path->steps[0].count < INLINE_ENTRIES)
		return 0;
	++*blocks;
	return path->depth < DEPTH_MAX ? 0 : -ENOSPC;
}

int dir_insert_prepare(struct fs *fs, struct inode *dir, const char *name, size_t len,
		       struct alloc_hold *hold, unsigned int *credits)
{
	static const uint32_t ones[ALLOC_RUNS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct dir_merged m;
	struct dir_path path;
	struct dir_ents e;
	unsigned int blocks;
	int err;

	memset(hold, 0, sizeof(*hold));
	err = dir_walk(fs, dir, hash, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	err = dir_merge(&e, name, len, hash, 0, 0, &m);
	if (!err)
		err = dir_plan(&path, &m, &blocks);
	dir_path_put(fs, &path);
	if (err)
		return err;
	/* Inode and leaf; each new block and the one beside it; what the allocator changes. */
	*credits = 2 + 2 * blocks + (blocks ? 3 + blocks : 0);
	if (!blocks)
		return 0;
	err = alloc_reserve(fs, ones, blocks, inode_id_number(dir->id), hold);
	return err ? err : alloc_make_room(fs, hold, 0);
}

/* ---- new blocks ---- */

static void dir_made_put(struct fs *fs, struct dir_made *made)
{
	unsigned int i;

	for (i = 0; i < made->count; i++)
		buf_put(fs, made->bufs[i]);
}

/* Gives back what was taken when not everything could be had. */
static void dir_made_undo(struct txn *txn, struct inode_disk *di, struct dir_made *made,
			  unsigned int taken)
{
	struct alloc_pin pin = { made->hold->ag };
	unsigned int i;

	for (i = 0; i < made->count; i++)
		buf_drop(txn->fs, txn, made->bufs[i]);
	for (i = 0; i < taken; i++)
		alloc_free(txn, &pin, made->hold->runs[i].block, 1);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) - made->count);
}

/* Takes every reserved block and gets its buffer; nothing of the directory changes yet. */
static int dir_made_get(struct txn *txn, struct inode *dir, struct inode_disk *di,
			struct alloc_hold *hold, unsigned int levels, struct dir_made *made)
{
	struct fs *fs = txn->fs;
	struct meta_expect e;
	unsigned int i;
	int err = 0;

	*made = (struct dir_made){ .hold = hold };
	assert(levels <= hold->run_count);	/* as dir_insert_prepare() reserved */
	for (i = 0; i < levels; i++) {
		made->pointers[i] = BPTR(hold->runs[i].block, inode_birth(dir, di));
		/* The first block made is the leaf, the others are nodes. */
		e = dir_expect(fs, dir->id, made->pointers[i], i > 0);
		err = alloc_take_block(txn, hold, i, &dir->cover, &e, &made->bufs[i]);
		if (err)
			break;
		made->count++;
		txn_dirty(txn, made->bufs[i], dir->version);
		di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) + 1);
	}
	if (err)
		dir_made_undo(txn, di, made, i);
	return err;
}

static void dir_leaf_fill(struct buf *buf, const uint8_t *bytes, uint32_t used)
{
	struct dir_leaf_disk *leaf = buf->data;
	struct dir_ents e = { bytes, used };
	uint32_t off, count = 0;

	for (off = 0; off < used; off += dir_entry_bytes(dir_ents_at(&e, off)))
		count++;
	memcpy(leaf->entries, bytes, used);
	memset(leaf->entries + used, 0, DIR_LEAF_BYTES - used);
	leaf->used = cpu_to_le32(used);
	leaf->count = cpu_to_le32(count);
}

/* ---- the index above ---- */

static void dir_index_put(struct dir_index_disk *entries, uint32_t count, uint32_t at,
			  uint64_t hash, uint64_t pointer)
{
	memmove(entries + at + 1, entries + at, (count - at) * sizeof(*entries));
	entries[at].hash = cpu_to_le64(hash);
	entries[at].pointer = cpu_to_le64(pointer);
}

/* The root area's entries move into a node of their own; the path gets one step longer. */
static void dir_root_push(struct inode_disk *di, struct dir_path *path, struct dir_made *made)
{
	struct dir_index x = dir_root_index(di);
	struct buf *buf = made->bufs[made->next];
	struct dir_node_disk *node = buf->data;
	struct dir_index_disk *root = (struct dir_index_disk *)(void *)di->root;

	memcpy(node->entries, x.entries, x.count * sizeof(*x.entries));
	node->count = cpu_to_le32(x.count);
	node->level = cpu_to_le32(path->depth);
	memset(di->root, 0, INLINE_SIZE);
	dir_index_put(root, 0, 0, 0, made->pointers[made->next]);
	di->root_count = cpu_to_le32(1);
	di->depth = cpu_to_le32(path->depth + 1);

	memmove(path->steps + 1, path->steps, path->depth * sizeof(path->steps[0]));
	path->depth++;
	path->steps[0] = (struct dir_step){ .count = 1 };
	path->steps[1].buf = buf;
	made->bufs[made->next++] = NULL;	/* the path holds the reference now */
}

/* Splits the full node of step @i; the step goes on in the half that the new entry is for. */
static void dir_node_split(struct txn *txn, struct inode *dir, struct dir_step *step,
			   struct dir_made *made, unsigned int level, uint64_t *hash,
			   uint64_t *pointer, uint64_t new_hash, uint64_t new_pointer)
{
	struct buf *right_buf = made->bufs[made->next];
	struct dir_node_disk *left = step->buf->data, *right = right_buf->data;
	uint32_t keep = step->count / 2, moved = step->count - keep;
	bool goes_right = step->index + 1 > keep;

	txn_dirty(txn, step->buf, dir->version);
	memcpy(right->entries, left->entries + keep, moved * sizeof(left->entries[0]));
	memset(left->entries + keep, 0, moved * sizeof(left->entries[0]));
	right->level = cpu_to_le32(level);
	*hash = le64_to_cpu(right->entries[0].hash);
	*pointer = made->pointers[made->next++];
	if (goes_right)
		dir_index_put(right->entries, moved, step->index + 1 - keep, new_hash,
			      new_pointer);
	else
		dir_index_put(left->entries, keep, step->index + 1, new_hash, new_pointer);
	left->count = cpu_to_le32(keep + !goes_right);
	right->count = cpu_to_le32(moved + goes_right);
}

/* Enters (@hash, @pointer) into the index right after the child that the path took. */
static void dir_index_insert(struct txn *txn, struct inode *dir, struct inode_disk *di,
			     struct dir_path *path, struct dir_made *made, uint64_t hash,
			     uint64_t pointer)
{
	struct dir_node_disk *node;
	struct dir_step *step;
	unsigned int i;

	for (i = path->depth - 1; i > 0; i--) {
		step = &path->steps[i];
		if (step->count < DIR_NODE_ENTRIES) {
			txn_dirty(txn, step->buf, dir->version);
			node = step->buf->data;
			dir_index_put(node->entries, step->count, step->index + 1, hash, pointer);
			node->count = cpu_to_le32(step->count + 1);
			return;
		}
		dir_node_split(txn, dir, step, made, path->depth - i, &hash, &pointer, hash,
			       pointer);
	}
	if (path->steps[0].count < INLINE_ENTRIES) {
		dir_index_put((struct dir_index_disk *)(void *)di->root, path->steps[0].count,
			      path->steps[0].index + 1, hash, pointer);
		di->root_count = cpu_to_le32(path->steps[0].count + 1);
		return;
	}
	dir_root_push(di, path, made);
	node = path->steps[1].buf->data;
	dir_index_put(node->entries, path->steps[1].count, path->steps[1].index + 1, hash, pointer);
	node->count = cpu_to_le32(path->steps[1].count + 1);
}

/* ---- the leaf ---- */

static void dir_store_inline(struct inode_disk *di, const struct dir_merged *m,
			     struct dir_made *made)
{
	if (m->used <= INLINE_SIZE) {
		memcpy(di->root, m->bytes, m->used);
		di->root_count = cpu_to_le32(m->used);
		return;
	}
	dir_leaf_fill(made->bufs[0], m->bytes, m->used);
	memset(di->root, 0, INLINE_SIZE);
	dir_index_put((struct dir_index_disk *)(void *)di->root, 0, 0, 0, made->pointers[0]);
	di->root_count = cpu_to_le32(1);
	di->depth = cpu_to_le32(1);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) & ~(uint32_t)INODE_INLINE);
}

static void dir_store(struct txn *txn, struct inode *dir, struct inode_disk *di,
		      struct dir_path *path, const struct dir_merged *m, struct dir_made *made)
{
	if (!path->leaf) {
		dir_store_inline(di, m, made);
		return;
	}
	txn_dirty(txn, path->leaf, dir->version);
	if (!m->cut) {
		dir_leaf_fill(path->leaf, m->bytes, m->used);
		return;
	}
	dir_leaf_fill(path->leaf, m->bytes, m->cut);
	dir_leaf_fill(made->bufs[0], m->bytes + m->cut, m->used - m->cut);
	made->next = 1;
	dir_index_insert(txn, dir, di, path, made, m->cut_hash, made->pointers[0]);
}

int dir_insert(struct txn *txn, struct inode *dir, const char *name, size_t len, uint64_t id,
	       uint8_t type, struct alloc_hold *hold)
{
	struct fs *fs = txn->fs;
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct inode_disk *di = inode_change(txn, dir);
	struct dir_merged m;
	struct dir_made made;
	struct dir_path path;
	struct dir_ents e;
	unsigned int blocks;
	int err;

	err = dir_walk(fs, dir, hash, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	err = dir_merge(&e, name, len, hash, id, type, &m);
	if (!err)
		err = dir_plan(&path, &m, &blocks);
	if (!err)
		err = dir_made_get(txn, dir, di, hold, blocks, &made);
	if (!err) {
		dir_store(txn, dir, di, &path, &m, &made);
		di->entries = cpu_to_le64(le64_to_cpu(di->entries) + 1);
		di->size = cpu_to_le64(le64_to_cpu(di->size) + DIR_ENTRY_BYTES + len);
		dir_made_put(fs, &made);
	}
	dir_path_put(fs, &path);
	return err;
}
