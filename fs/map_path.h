/* SPDX-License-Identifier: Apache-2.0 */
/* The shape of a map, shared by fs/map.c, fs/map_set.c and fs/map_trim.c. */
#ifndef LUNFS_FS_MAP_PATH_H
#define LUNFS_FS_MAP_PATH_H

#include "fs/fs.h"

/* Where the way to a unit goes through: [0] in the root area, [depth] in the leaf. */
struct map_index {
	unsigned int	depth;
	uint32_t	at[DEPTH_MAX + 1];
};

/** map_capacity() - units that a tree of @depth levels below the root can map. */
uint64_t map_capacity(unsigned int depth);

/** map_index() - @unit must be below map_capacity(@depth). */
struct map_index map_index(uint64_t unit, unsigned int depth);

/** map_shape() - depth and root_count, both 0 for an inline file. */
void map_shape(const struct inode_disk *di, unsigned int *depth, uint32_t *count);

/* Pointers of the root area or of a node's contents (behind its header). */
static inline uint64_t map_pointer(const void *area, uint32_t i)
{
	return le64_to_cpu(((const le64 *)area)[i]);
}

static inline void map_pointer_set(void *area, uint32_t i, uint64_t p)
{
	((le64 *)area)[i] = cpu_to_le64(p);
}

/** map_area() - a node's pointers or a leaf's entries. */
static inline void *map_area(const struct buf *buf)
{
	return (uint8_t *)buf->data + sizeof(struct meta_hdr_disk);
}

/** map_area_used() - entries of @size bytes up to the last that is not all zeros. */
uint32_t map_area_used(const void *area, uint32_t count, size_t size);

struct meta_expect map_expect(const struct fs *fs, uint64_t id, uint64_t pointer, bool leaf);

/**
 * map_block_get() - the leaf or node that @pointer names; rwlock held.
 * Return: 0; -EUCLEAN also when it points outside the groups' space: logged.
 */
int map_block_get(struct fs *fs, struct inode *ino, uint64_t pointer, bool leaf,
		  struct buf **out);

void map_entry_encode(const struct map_entry *e, struct map_entry_disk *d);

#endif
