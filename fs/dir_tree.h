/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the directory tree share: blocks as they lie on disk, and the way down. */
#ifndef LUNFS_FS_DIR_TREE_H
#define LUNFS_FS_DIR_TREE_H

#include <errno.h>

#include "fs/dir.h"
#include "fs/fs.h"

#define DIR_HASH_END	(1ULL << 63)	/* hashes lie below it */
#define DIR_ENTRY_BYTES	((uint32_t)sizeof(struct dir_entry_disk))
#define DIR_LEAF_ENTRIES_MAX	(DIR_LEAF_BYTES / (DIR_ENTRY_BYTES + 1))

/* Packed entries: an inline directory's root area or a leaf.  Borrowed memory. */
struct dir_ents {
	const uint8_t *bytes;
	uint32_t used;
};

/* Index entries: the root area of a deep directory or a node. */
struct dir_index {
	const struct dir_index_disk *entries;
	uint32_t count;
};

/* One entry found in a dir_ents. */
struct dir_pos {
	uint32_t off;		/* where it begins, or where it belongs */
	uint32_t bytes;		/* its length, header and name */
};

/** dir_ents_at() - the entry at @off of checked entries. */
static inline const struct dir_entry_disk *dir_ents_at(const struct dir_ents *e, uint32_t off)
{
	return (const struct dir_entry_disk *)(const void *)(e->bytes + off);
}

static inline uint32_t dir_entry_bytes(const struct dir_entry_disk *d)
{
	return DIR_ENTRY_BYTES + d->name_len;
}

/**
 * dir_ents_check() - whole entries, sorted, with hashes in [@lo, @hi) (R9).
 * @count: if not NULL, receives how many.
 */
bool dir_ents_check(const struct dir_ents *e, uint64_t lo, uint64_t hi, uint32_t *count);

/** dir_index_check() - 1 … @max entries, strictly sorted, the first at @lo, all below @hi. */
bool dir_index_check(const struct dir_index *x, uint32_t max, uint64_t lo, uint64_t hi);

/** dir_index_find() - the child that holds @hash. */
uint32_t dir_index_find(const struct dir_index *x, uint64_t hash);

/** dir_ents_find() - true and the entry's place, or false and where it belongs. */
bool dir_ents_find(const struct dir_ents *e, uint64_t hash, const char *name, size_t len,
		   struct dir_pos *pos);

/** dir_info() - @d in memory; -EUCLEAN for a name that no directory may hold. */
int dir_info(const struct dir_entry_disk *d, struct dirent_info *out);

/** dir_root_check() - the root area of a directory's verified inode block (R9). */
int dir_root_check(const struct inode_disk *di);

static inline struct dir_ents dir_root_ents(const struct inode_disk *di)
{
	return (struct dir_ents){ di->root, le32_to_cpu(di->root_count) };
}

static inline struct dir_index dir_root_index(const struct inode_disk *di)
{
	return (struct dir_index){ (const struct dir_index_disk *)(const void *)di->root,
				   le32_to_cpu(di->root_count) };
}

static inline struct dir_index dir_node_index(const void *block)
{
	const struct dir_node_disk *n = block;

	return (struct dir_index){ n->entries, le32_to_cpu(n->count) };
}

static inline struct dir_ents dir_leaf_ents(const void *block)
{
	const struct dir_leaf_disk *l = block;

	return (struct dir_ents){ l->entries, le32_to_cpu(l->used) };
}

/** dir_block_check() - contents of a verified node (@level > 0) or leaf (@level 0). */
bool dir_block_check(const void *block, unsigned int level, uint64_t lo, uint64_t hi);

/* ---- the way from the root to a leaf, under the directory's lock ---- */

struct dir_step {
	struct buf *buf;	/* the node; NULL: the root area */
	uint32_t index;		/* which child was taken */
	uint32_t count;		/* of how many */
};

struct dir_path {
	unsigned int depth;	/* 0: inline, no steps and no leaf */
	struct dir_step steps[DEPTH_MAX];	/* 0: root area … depth - 1: above the leaf */
	struct buf *leaf;
	uint64_t lo, hi;	/* hashes that belong to the leaf */
};

/** dir_walk() - the leaf for @hash; buffers are referenced until dir_path_put(). */
int dir_walk(struct fs *fs, struct inode *dir, uint64_t hash, struct dir_path *path);
void dir_path_put(struct fs *fs, struct dir_path *path);

/** dir_path_ents() - the entries at the path's end. */
struct dir_ents dir_path_ents(const struct inode *dir, const struct dir_path *path);

static inline struct meta_expect dir_expect(const struct fs *fs, uint64_t id, uint64_t pointer,
					    unsigned int level)
{
	return (struct meta_expect){
		.type = level ? META_DIR_NODE : META_DIR_LEAF,
		.volume = fs->super.volume,
		.addr = bptr_addr(pointer),
		.owner = id,
		.birth = bptr_birth(pointer),
	};
}

/** dir_bytes_insert()/dir_bytes_cut() - open or close a gap in @used bytes. */
static inline void dir_bytes_insert(uint8_t *bytes, uint32_t used, uint32_t off, uint32_t len)
{
	memmove(bytes + off + len, bytes + off, used - off);
}

static inline void dir_bytes_cut(uint8_t *bytes, uint32_t used, uint32_t off, uint32_t len)
{
	memmove(bytes + off, bytes + off + len, used - off - len);
	memset(bytes + used - len, 0, len);
}

/** dir_corrupt() - logs that @what of @dir is not to be believed (R6); returns -EUCLEAN. */
int dir_corrupt(struct fs *fs, uint64_t id, uint64_t addr, const char *what);

/** dir_free_step() - exclusively locked, no names left: frees one block of the tree.
 * Return: 1 more to do; 0 none left; negative errno. */
int dir_free_step(struct fs *fs, struct inode *dir);

#endif
