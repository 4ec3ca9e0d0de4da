// SPDX-License-Identifier: Apache-2.0
#include "fs/dir.h"

#include <dirent.h>
#include <stdio.h>

#include "base/siphash.h"
#include "fs/dir_tree.h"

uint64_t dir_hash(const struct super *s, const char *name, size_t len)
{
	return siphash24(s->hash_key, name, len) & (DIR_HASH_END - 1);
}

bool dir_is_empty(const struct inode *dir)
{
	return le64_to_cpu(inode_disk(dir)->entries) == 0;
}

int dir_corrupt(struct fs *fs, uint64_t id, uint64_t addr, const char *what)
{
	char object[LABEL_MAX + 64];

	snprintf(object, sizeof(object), "%s: block 0x%llx", fs->label, (unsigned long long)addr);
	log_error(fs->env, object, "directory %llu: %s; run fsck.lunfs",
		  (unsigned long long)inode_id_number(id), what);
	return -EUCLEAN;
}

/* ---- blocks as they lie on disk ---- */

bool dir_ents_check(const struct dir_ents *e, uint64_t lo, uint64_t hi, uint32_t *count)
{
	const struct dir_entry_disk *d;
	uint64_t hash, last = lo;
	uint32_t off, n = 0;

	for (off = 0; off < e->used; off += dir_entry_bytes(d), n++) {
		if (e->used - off < DIR_ENTRY_BYTES)
			return false;
		d = dir_ents_at(e, off);
		if (d->name_len == 0 || e->used - off < dir_entry_bytes(d))
			return false;
		hash = le64_to_cpu(d->hash);
		if (hash < last || hash >= hi)
			return false;
		last = hash;
	}
	if (count)
		*count = n;
	return true;
}

bool dir_index_check(const struct dir_index *x, uint32_t max, uint64_t lo, uint64_t hi)
{
	uint64_t hash;
	uint32_t i;

	if (x->count == 0 || x->count > max)
		return false;
	for (i = 0; i < x->count; i++) {
		hash = le64_to_cpu(x->entries[i].hash);
		if (i == 0 ? hash != lo : hash <= le64_to_cpu(x->entries[i - 1].hash))
			return false;
		if (hash >= hi || bptr_addr(le64_to_cpu(x->entries[i].pointer)) == 0)
			return false;
	}
	return true;
}

bool dir_block_check(const void *block, unsigned int level, uint64_t lo, uint64_t hi)
{
	const struct dir_leaf_disk *leaf = block;
	const struct dir_node_disk *node = block;
	struct dir_index x;
	struct dir_ents e;
	uint32_t count;

	if (level) {
		x = dir_node_index(block);
		return le32_to_cpu(node->level) == level &&
		       dir_index_check(&x, DIR_NODE_ENTRIES, lo, hi);
	}
	e = dir_leaf_ents(block);
	return e.used <= DIR_LEAF_BYTES && dir_ents_check(&e, lo, hi, &count) &&
	       count == le32_to_cpu(leaf->count);
}

int dir_root_check(const struct inode_disk *di)
{
	struct dir_ents e = dir_root_ents(di);
	struct dir_index x = dir_root_index(di);
	uint32_t depth = le32_to_cpu(di->depth);

	if (!S_ISDIR(le32_to_cpu(di->mode)))
		return -ENOTDIR;
	if (depth > DEPTH_MAX)
		return -EUCLEAN;
	if (depth == 0)
		return e.used <= INLINE_SIZE && dir_ents_check(&e, 0, DIR_HASH_END, NULL) ?
		       0 : -EUCLEAN;
	return dir_index_check(&x, INLINE_ENTRIES, 0, DIR_HASH_END) ? 0 : -EUCLEAN;
}

uint32_t dir_index_find(const struct dir_index *x, uint64_t hash)
{
	uint32_t lo = 0, hi = x->count, mid;

	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (le64_to_cpu(x->entries[mid].hash) <= hash)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

bool dir_ents_find(const struct dir_ents *e, uint64_t hash, const char *name, size_t len,
		   struct dir_pos *pos)
{
	const struct dir_entry_disk *d;
	uint32_t off;

	for (off = 0; off < e->used; off += dir_entry_bytes(d)) {
		d = dir_ents_at(e, off);
		if (le64_to_cpu(d->hash) > hash)
			break;
		if (le64_to_cpu(d->hash) == hash && d->name_len == len &&
		    memcmp(d + 1, name, len) == 0) {
			*pos = (struct dir_pos){ off, dir_entry_bytes(d) };
			return true;
		}
	}
	*pos = (struct dir_pos){ off, DIR_ENTRY_BYTES + (uint32_t)len };
	return false;
}

int dir_info(const struct dir_entry_disk *d, struct dirent_info *out)
{
	const char *name = (const char *)(d + 1);

	if (memchr(name, '/', d->name_len) || memchr(name, '\0', d->name_len))
		return -EUCLEAN;
	out->id = le64_to_cpu(d->id);
	out->hash = le64_to_cpu(d->hash);
	out->type = d->type;
	out->name_len = d->name_len;
	memcpy(out->name, name, d->name_len);
	out->name[d->name_len] = '\0';
	return 0;
}

/* ---- the way down ---- */

void dir_path_put(struct fs *fs, struct dir_path *path)
{
	unsigned int i;

	for (i = 0; i < path->depth; i++)
		buf_put(fs, path->steps[i].buf);
	buf_put(fs, path->leaf);
	memset(path, 0, sizeof(*path));
}

/* Takes the child of @x for @hash: narrows the path's bounds and reads the child's block. */
static int dir_descend(struct fs *fs, struct inode *dir, uint64_t hash, struct dir_path *path,
		       unsigned int level, const struct dir_index *x, struct buf **child)
{
	struct dir_step *step = &path->steps[path->depth - level];
	struct meta_expect e;
	int err;

	step->index = dir_index_find(x, hash);
	step->count = x->count;
	path->lo = le64_to_cpu(x->entries[step->index].hash);
	if (step->index + 1 < x->count)
		path->hi = le64_to_cpu(x->entries[step->index + 1].hash);
	e = dir_expect(fs, dir->id, le64_to_cpu(x->entries[step->index].pointer), level - 1);
	err = buf_get(fs, &dir->cover, &e, child);
	if (err)
		return err;
	if (!dir_block_check((*child)->data, level - 1, path->lo, path->hi)) {
		buf_put(fs, *child);
		*child = NULL;
		return dir_corrupt(fs, dir->id, e.addr, "the block's entries are invalid");
	}
	inode_keep(dir, *child);
	return 0;
}

int dir_walk(struct fs *fs, struct inode *dir, uint64_t hash, struct dir_path *path)
{
	const struct inode_disk *di = inode_disk(dir);
	struct buf *child = NULL;
	struct dir_index x;
	unsigned int level;
	int err;

	memset(path, 0, sizeof(*path));
	path->hi = DIR_HASH_END;
	err = dir_root_check(di);
	if (err == -EUCLEAN)
		return dir_corrupt(fs, dir->id, inode_block_addr(dir->id),
				   "the root area is invalid");
	if (err)
		return err;
	path->depth = le32_to_cpu(di->depth);
	x = dir_root_index(di);
	for (level = path->depth; level > 0; level--) {
		err = dir_descend(fs, dir, hash, path, level, &x, &child);
		if (err) {
			dir_path_put(fs, path);
			return err;
		}
		if (level == 1) {
			path->leaf = child;
		} else {
			path->steps[path->depth - level + 1].buf = child;
			x = dir_node_index(child->data);
		}
	}
	return 0;
}

struct dir_ents dir_path_ents(const struct inode *dir, const struct dir_path *path)
{
	return path->leaf ? dir_leaf_ents(path->leaf->data) : dir_root_ents(inode_disk(dir));
}

/* ---- reading under the lock ---- */

int dir_lookup(struct fs *fs, struct inode *dir, const char *name, size_t len,
	       struct dirent_info *out)
{
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct dir_path path;
	struct dir_ents e;
	struct dir_pos pos;
	int err;

	err = dir_walk(fs, dir, hash, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	err = -ENOENT;
	if (dir_ents_find(&e, hash, name, len, &pos))
		err = dir_info(dir_ents_at(&e, pos.off), out);
	dir_path_put(fs, &path);
	return err;
}

/* Emits what lies at or after *@from in one leaf.  Return: 1 to go on; 0 stop; errors. */
static int dir_list_leaf(struct fs *fs, struct inode *dir, uint64_t *from, dir_emit_fn emit,
			 void *arg)
{
	struct dirent_info info;
	struct dir_path path;
	struct dir_ents e;
	uint32_t off;
	int err;

	err = dir_walk(fs, dir, *from, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	for (off = 0; off < e.used; off += dir_entry_bytes(dir_ents_at(&e, off))) {
		if (le64_to_cpu(dir_ents_at(&e, off)->hash) < *from)
			continue;
		err = dir_info(dir_ents_at(&e, off), &info);
		if (err) {
			dir_corrupt(fs, dir->id, path.leaf ? path.leaf->addr :
				    inode_block_addr(dir->id), "a name is invalid");
			break;
		}
		if (emit(arg, &info))
			break;
	}
	if (!err)
		err = off >= e.used && path.hi < DIR_HASH_END;
	*from = path.hi;
	dir_path_put(fs, &path);
	return err;
}

int dir_list(struct fs *fs, struct inode *dir, uint64_t from, dir_emit_fn emit, void *arg)
{
	int more = 1;

	while (more == 1 && from < DIR_HASH_END)
		more = dir_list_leaf(fs, dir, &from, emit, arg);
	return more < 0 ? more : 0;
}

int dir_replace(struct txn *txn, struct inode *dir, const char *name, size_t len, uint64_t id,
		uint8_t type)
{
	struct fs *fs = txn->fs;
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct dir_entry_disk *d;
	struct inode_disk *di;
	struct dir_path path;
	struct dir_ents e;
	struct dir_pos pos;
	int err;

	err = dir_walk(fs, dir, hash, &path);
	if (err)
		return err;
	di = inode_change(txn, dir);
	if (path.leaf)
		txn_dirty(txn, path.leaf, dir->version);
	e = dir_path_ents(dir, &path);
	err = -ENOENT;
	if (dir_ents_find(&e, hash, name, len, &pos)) {
		d = (void *)((path.leaf ? ((struct dir_leaf_disk *)path.leaf->data)->entries :
			      di->root) + pos.off);
		d->id = cpu_to_le64(id);
		d->type = type;
		err = 0;
	}
	dir_path_put(fs, &path);
	return err;
}
