/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/debug_scramble.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/dir.h"
#include "fs/dir_tree.h"

#define TRIES_MAX	(1u << 20)	/* one in as many as the directory has leaves will do */

int scramble_init(struct scramble *x, struct blkdev *dev, const struct super *s)
{
	memset(x, 0, sizeof(*x));
	x->dev = dev;
	x->s = s;
	x->block = blkdev_alloc(BLOCK_SIZE);
	x->leaf = blkdev_alloc(BLOCK_SIZE);
	env_random(env_posix(), x->key, sizeof(x->key));
	return x->block && x->leaf ? 0 : -ENOMEM;
}

void scramble_fini(struct scramble *x)
{
	free(x->block);
	free(x->leaf);
	explicit_bzero(x, sizeof(*x));
}

/* ---- where a name may go ---- */

static bool read_believed(struct scramble *x, const struct meta_expect *e)
{
	return e->addr <= x->s->size - BLOCK_SIZE &&
	       !blkdev_read(x->dev, e->addr, x->block, BLOCK_SIZE) &&
	       !meta_verify(x->block, e, NULL, 0);
}

/* Narrows the range to what the child for @hash has.  Return: pointer to it, or 0. */
static uint64_t narrow(struct scramble *x, const struct dir_index_disk *entries, uint32_t count,
		       uint64_t hash)
{
	uint64_t pointer = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t from = le64_to_cpu(entries[i].hash);

		if (from > hash) {
			if (from < x->high)
				x->high = from;
			break;
		}
		x->low = from;
		pointer = le64_to_cpu(entries[i].pointer);
	}
	return pointer;
}

/* The range of hashes of the leaf of @dir that @hash is in; all there are if it has none. */
static void find_range(struct scramble *x, uint64_t dir, uint64_t hash)
{
	const struct inode_disk *d = x->block;
	const struct dir_node_disk *node = x->block;
	uint64_t number = inode_id_number(dir), pointer;
	struct meta_expect e = { META_INODE, x->s->volume, inode_block_addr(number), number, 0 };
	uint32_t depth;

	if (x->dir == dir && hash >= x->low && hash < x->high)
		return;
	x->dir = dir;
	x->low = 0;
	x->high = DIR_HASH_END;
	x->dir_keeps = false;
	if (!dir || !read_believed(x, &e) || !S_ISDIR(le32_to_cpu(d->mode)))
		return;
	x->dir_keeps = le32_to_cpu(d->flags) & INODE_CHILDREN;
	depth = le32_to_cpu(d->depth);
	if (le32_to_cpu(d->flags) & INODE_INLINE || depth > DEPTH_MAX ||
	    le32_to_cpu(d->root_count) > INLINE_ENTRIES)
		return;
	pointer = depth ? narrow(x, (const void *)d->root, le32_to_cpu(d->root_count), hash) : 0;
	while (pointer && --depth) {
		e = (struct meta_expect){ META_DIR_NODE, x->s->volume, bptr_addr(pointer), dir,
					  bptr_birth(pointer) };
		if (!read_believed(x, &e) || le32_to_cpu(node->count) > DIR_NODE_ENTRIES)
			return;
		pointer = narrow(x, node->entries, le32_to_cpu(node->count), hash);
	}
}

/* ---- names ---- */

static void make_name(const struct scramble *x, uint64_t seed, uint32_t try, uint8_t *name,
		      size_t len)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	uint64_t random = 0, in[2] = { seed, 0 };

	for (size_t i = 0; i < len; i++) {
		if (i % 10 == 0) {
			in[1] = (uint64_t)try << 32 | i;
			random = siphash24(x->key, in, sizeof(in));
		}
		name[i] = (uint8_t)letters[random % 64];
		random /= 64;
	}
}

/* @name, in directory @dir, becomes another one in place. */
static void scramble_name(struct scramble *x, uint64_t dir, uint8_t *name, size_t len)
{
	uint64_t hash = dir_hash(x->s, (const char *)name, len), seed, got;
	uint8_t other[NAME_BYTES_MAX];
	uint8_t keyed[8 + NAME_BYTES_MAX];

	if (len > NAME_BYTES_MAX || len <= SCRAMBLE_KEPT)
		return;
	find_range(x, dir, hash);
	if (x->dir_keeps)
		return;
	memcpy(keyed, &dir, 8);
	memcpy(keyed + 8, name, len);
	seed = siphash24(x->key, keyed, 8 + len);
	for (uint32_t try = 0; try < TRIES_MAX; try++) {
		make_name(x, seed, try, other, len);
		got = dir_hash(x->s, (const char *)other, len);
		if (got < x->low || got >= x->high)
			continue;
		memcpy(name, other, len);
		return;
	}
}

/* ---- blocks ---- */

/* By their new hashes.  Simple insertion: a leaf has at most two hundred. */
static uint32_t insert_sorted(uint8_t *out, uint32_t used, const struct dir_entry_disk *e, uint32_t n)
{
	uint32_t at = 0;

	while (at < used) {
		const struct dir_entry_disk *o = (const void *)(out + at);

		if (le64_to_cpu(o->hash) > le64_to_cpu(e->hash))
			break;
		at += (uint32_t)sizeof(*o) + o->name_len;
	}
	memmove(out + at + n, out + at, used - at);
	memcpy(out + at, e, n);
	return used + n;
}

/* Entries of directory @dir in @bytes, @used of @room; what is behind them, old names, goes. */
static void scramble_entries(struct scramble *x, uint64_t dir, uint8_t *bytes, uint32_t used,
			     uint32_t room)
{
	uint8_t *out = x->leaf;
	uint32_t off = 0, done = 0;

	while (off < used) {
		struct dir_entry_disk *e = (void *)(bytes + off);
		uint8_t *name = bytes + off + sizeof(*e);
		uint32_t n;

		if (used - off < sizeof(*e) || used - off < sizeof(*e) + e->name_len)
			break;
		n = (uint32_t)sizeof(*e) + e->name_len;
		scramble_name(x, dir, name, e->name_len);
		e->hash = cpu_to_le64(dir_hash(x->s, (const char *)name, e->name_len));
		done = insert_sorted(out, done, e, n);
		off += n;
	}
	memcpy(bytes, out, done);
	memset(bytes + done, 0, room - done);
}

static void scramble_inode(struct scramble *x, struct inode_disk *d, uint64_t number)
{
	uint32_t mode = le32_to_cpu(d->mode), len = le16_to_cpu(d->name_len);
	uint32_t flags = le32_to_cpu(d->flags), count = le32_to_cpu(d->root_count);
	uint64_t id = inode_id_make(number, le32_to_cpu(d->generation));

	if (len <= NAME_BYTES_MAX && !mode)
		memset(d->name, 'x', len);
	else if (len <= NAME_BYTES_MAX && !(flags & INODE_CHILDREN))
		scramble_name(x, le64_to_cpu(d->parent), d->name, len);
	if (len < sizeof(d->name))
		memset(d->name + len, 0, sizeof(d->name) - len);
	if (S_ISLNK(mode) && flags & INODE_INLINE)
		memset(d->root, 'x', le64_to_cpu(d->size) < INLINE_SIZE ? le64_to_cpu(d->size) :
						     INLINE_SIZE);
	else if (S_ISDIR(mode) && flags & INODE_INLINE && count <= INLINE_SIZE &&
		 !(flags & INODE_CHILDREN))
		scramble_entries(x, id, d->root, count, INLINE_SIZE);
	else if (!mode)
		memset(d->root, 0, sizeof(d->root));
}

void scramble_block(struct scramble *x, uint64_t addr, void *block)
{
	const struct meta_hdr_disk *h = block;
	struct dir_leaf_disk *leaf = block;
	struct meta_expect e = { (enum meta_type)le32_to_cpu(h->magic), x->s->volume, addr,
				 le64_to_cpu(h->owner), le32_to_cpu(h->birth) };

	if (e.type != META_INODE && e.type != META_DIR_LEAF)
		return;
	if (meta_verify(block, &e, NULL, 0)) {
		memset(block, 0, BLOCK_SIZE);
		return;
	}
	if (e.type == META_INODE) {
		scramble_inode(x, block, e.owner);
	} else if (le32_to_cpu(leaf->used) <= DIR_LEAF_BYTES) {
		find_range(x, e.owner, 0);	/* also: whether it is a list of children */
		if (x->dir_keeps)
			return;
		scramble_entries(x, e.owner, leaf->entries, le32_to_cpu(leaf->used), DIR_LEAF_BYTES);
	}
	meta_seal(block, &e, meta_version(block));
}
