/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench/many.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/siphash.h"
#include "fs/mkfs.h"

#define INDEX_ROOM	40u	/* index blocks of a group */
#define ROOT_ROOM	INLINE_ENTRIES	/* leaves of the root directory */
#define CELL_WORDS_MIN	18u	/* a word is 64 blocks: the cluster's, the names', one a file */
#define LEAF_AT		40u	/* in the cluster's word */
#define NAMES_AT	64u
#define NAMES_ROOM	64u
#define LARGE_UNITS	8u	/* of the file that has a leaf */
#define LARGE_FILE	5u	/* of a cluster's 16 */
#define NAME_LEN	13u	/* "file-%08x", "dir--%08x" */
#define ENTRY_LEN	((uint32_t)sizeof(struct dir_entry_disk) + NAME_LEN)
#define LEAF_NAMES	(DIR_LEAF_BYTES * 7 / 8 / ENTRY_LEN)
#define VERSION		3u

/* A cell, and where it is. */
struct cell {
	uint64_t nth;			/* of the volume */
	uint64_t first;			/* inode */
	uint32_t ag;
	uint32_t at;			/* block of the group */
};

/* ---- which inodes there are ---- */

static bool is_dir(uint64_t i)
{
	return i % (MANY_DIR_FILES + 1) == 0;
}

static uint32_t files_of(const struct many *m, uint64_t dir)
{
	uint64_t left = m->inodes - 1 - dir;

	return left < MANY_DIR_FILES ? (uint32_t)left : MANY_DIR_FILES;
}

static uint32_t leaves_of(uint32_t names)
{
	return names * ENTRY_LEN <= INLINE_SIZE ? 0 : DIV_ROUND_UP(names, LEAF_NAMES);
}

static void name_of(uint64_t i, char name[16])
{
	snprintf(name, 16, "%s%08x", is_dir(i) ? "dir--" : "file-", (unsigned int)i);
}

/* ---- where they are ---- */

static uint64_t first_cell(const struct many *m, uint32_t ag)
{
	return ag < m->full_groups ? m->cells * ag / m->full_groups : m->cells;
}

static struct cell cell_of(const struct many *m, uint64_t nth)
{
	struct cell c = { .nth = nth, .first = nth * CLUSTER_INODES };
	uint64_t place;

	c.ag = (uint32_t)(((nth + 1) * m->full_groups - 1) / m->cells);
	place = nth - first_cell(m, c.ag);
	place += c.ag == m->copy_ag && place >= m->copy_cell;
	c.at = m->base + (uint32_t)place * m->stride;
	return c;
}

/* The cell that block @off of group @ag lies in.  Return: whether there is one. */
static bool cell_at(const struct many *m, uint32_t ag, uint32_t off, struct cell *c)
{
	uint64_t place, nth;

	if (off < m->base)
		return false;
	place = (off - m->base) / m->stride;
	if (ag == m->copy_ag && place == m->copy_cell)
		return false;
	nth = first_cell(m, ag) + place - (ag == m->copy_ag && place > m->copy_cell);
	if (nth >= first_cell(m, ag + 1))
		return false;
	*c = cell_of(m, nth);
	return true;
}

static uint64_t group_block(const struct many *m, uint32_t ag, uint32_t off)
{
	return (super_ag_addr(&m->s, ag) >> BLOCK_SHIFT) + off;
}

static uint64_t number_of(const struct many *m, uint64_t i)
{
	struct cell c = cell_of(m, i / CLUSTER_INODES);

	return group_block(m, c.ag, c.at) + 2 * (i % CLUSTER_INODES);
}

static uint32_t generation_of(uint64_t i)
{
	return 1 + (uint32_t)(i * 7 & 0xffff);
}

static uint64_t id_of(const struct many *m, uint64_t i)
{
	return inode_id_make(number_of(m, i), generation_of(i));
}

/* The blocks of a file: @units runs, each at the start of a word, the first at @at of its group. */
struct file {
	uint32_t at, count, units;
};

static struct file file_of(const struct many *m, const struct cell *c, uint32_t slot)
{
	uint32_t step = (m->stride / 64 - 2) / CLUSTER_INODES;
	uint64_t i = c->first + slot;
	struct file f = { .units = 1, .count = UNIT_BLOCKS };
	uint32_t skip = 0;

	if (slot == LARGE_FILE)
		f.units = step < LARGE_UNITS ? step : LARGE_UNITS;
	else
		skip = (uint32_t)(i * 2654435761u >> 8) % step;
	if (slot != LARGE_FILE && i % 2)
		f.count = 1u << i / 2 % 6;
	f.at = c->at + (2 + slot * step + skip) * 64;
	return f;
}

/* Whether it has the blocks of the file before it. */
static bool shares(const struct many *m, const struct cell *c, uint32_t slot)
{
	return m->damage == MANY_TWICE && slot % 2 && slot != LARGE_FILE &&
	       !is_dir(c->first + slot) && !is_dir(c->first + slot - 1);
}

/* Calls @fn for every run of blocks that cell @c has allocated, relative to the group. */
static void cell_runs(const struct many *m, const struct cell *c,
		      void (*fn)(void *arg, uint32_t at, uint32_t count), void *arg)
{
	fn(arg, c->at, CLUSTER_BLOCKS);
	for (uint32_t slot = 0; slot < CLUSTER_INODES && c->first + slot < m->inodes; slot++) {
		struct file f = file_of(m, c, slot);

		if (is_dir(c->first + slot)) {
			uint32_t leaves = leaves_of(files_of(m, c->first + slot));

			if (leaves)
				fn(arg, c->at + NAMES_AT, leaves);
			continue;
		}
		for (uint32_t u = 0; u < f.units; u++)
			fn(arg, f.at + u * 64, f.count);
		if (slot == LARGE_FILE)
			fn(arg, c->at + LEAF_AT, 1);
	}
}

/* ---- a group's own blocks ---- */

/* The first index block lies where mkfs has that of group 0, before the root's cluster. */
static uint32_t index_at(const struct many *m, uint32_t nth)
{
	return super_ag_meta(&m->s) + (nth ? CLUSTER_BLOCKS + nth : 0);
}

static uint32_t root_leaf_at(const struct many *m, uint32_t nth)
{
	return super_ag_meta(&m->s) + 1 + CLUSTER_BLOCKS + INDEX_ROOM + nth;
}

/* Entries of a group's index: its cells, and in group 0 the root's cluster before them. */
static uint32_t clusters_of(const struct many *m, uint32_t ag)
{
	return (uint32_t)(first_cell(m, ag + 1) - first_cell(m, ag)) + (ag == 0);
}

static uint32_t index_blocks(const struct many *m, uint32_t ag)
{
	return DIV_ROUND_UP(clusters_of(m, ag), (uint32_t)ITABLE_ENTRIES);
}

/* Calls @fn for every run of blocks in use outside of the cells. */
static void group_runs(const struct many *m, uint32_t ag,
		       void (*fn)(void *arg, uint32_t at, uint32_t count), void *arg)
{
	for (uint32_t i = 0; i < index_blocks(m, ag); i++)
		fn(arg, index_at(m, i), 1);
	if (ag != 0)
		return;
	fn(arg, super_ag_meta(&m->s) + 1, CLUSTER_BLOCKS);
	if (leaves_of(m->dirs))
		fn(arg, root_leaf_at(m, 0), leaves_of(m->dirs));
}

static uint32_t inodes_in(const struct many *m, uint64_t from, uint64_t to)
{
	to *= CLUSTER_INODES;
	return (uint32_t)((to < m->inodes ? to : m->inodes) - from * CLUSTER_INODES);
}

/* What is in use of a group, and of which of its bitmap blocks. */
struct used {
	uint32_t blocks;
	uint8_t	*ready;
};

static void add_run(void *arg, uint32_t at, uint32_t count)
{
	struct used *u = arg;

	u->blocks += count;
	for (uint32_t i = at / BITMAP_BITS; i <= (at + count - 1) / BITMAP_BITS; i++)
		u->ready[i / 8] |= (uint8_t)(1u << i % 8);
}

static uint32_t copy_block(const struct many *m)
{
	return (uint32_t)((m->s.copy_addr - super_ag_addr(&m->s, m->copy_ag)) >> BLOCK_SHIFT);
}

static void make_header(const struct many *m, uint32_t ag, struct ag_disk *d)
{
	uint32_t blocks = super_ag_blocks(&m->s, ag);
	struct used used = { super_ag_meta(&m->s), d->bitmap_ready };
	uint64_t from = first_cell(m, ag), to = first_cell(m, ag + 1);
	uint32_t inodes = to > from ? inodes_in(m, from, to) : 0;

	group_runs(m, ag, add_run, &used);
	for (uint64_t nth = from; nth < to; nth++) {
		struct cell c = cell_of(m, nth);

		cell_runs(m, &c, add_run, &used);
	}
	d->blocks = cpu_to_le32(blocks);
	if (ag == m->copy_ag)
		add_run(&used, copy_block(m), 1);
	d->free_blocks = cpu_to_le32(blocks - used.blocks);
	d->inodes_used = cpu_to_le32(inodes + (ag == 0));
	d->inodes_free = cpu_to_le32(clusters_of(m, ag) * CLUSTER_INODES - inodes - (ag == 0));
	d->bitmap_count = cpu_to_le32(super_ag_bitmaps(&m->s));
	if (clusters_of(m, ag))
		d->itable = cpu_to_le64(BPTR(group_block(m, ag, index_at(m, 0)), 0));
}

static void make_index(const struct many *m, uint32_t ag, uint32_t nth, struct itable_disk *d)
{
	uint32_t first = nth * ITABLE_ENTRIES, count = clusters_of(m, ag) - first, n = 0;

	if (count > ITABLE_ENTRIES)
		count = ITABLE_ENTRIES;
	if (ag == 0 && nth == 0)
		d->entries[n++] = (struct itable_entry_disk){
			cpu_to_le32(super_ag_meta(&m->s) + 1), cpu_to_le16(1),
			cpu_to_le16(CLUSTER_INODES) };
	while (n < count) {
		struct cell c = cell_of(m, first_cell(m, ag) + first + n - (ag == 0));
		uint32_t inodes = inodes_in(m, c.nth, c.nth + 1);

		d->entries[n++] = (struct itable_entry_disk){
			cpu_to_le32(c.at), cpu_to_le16((uint16_t)((1u << inodes) - 1)),
			cpu_to_le16(CLUSTER_INODES) };
	}
	d->count = cpu_to_le32(count);
	if (nth + 1 < index_blocks(m, ag))
		d->next = cpu_to_le64(BPTR(group_block(m, ag, index_at(m, nth + 1)), 0));
}

struct bits {
	uint8_t	*bits;
	uint32_t first;
};

static void set_run(void *arg, uint32_t at, uint32_t count)
{
	const struct bits *b = arg;

	for (uint32_t i = at; i < at + count; i++)
		if (i >= b->first && i - b->first < BITMAP_BITS)
			b->bits[(i - b->first) / 8] |= (uint8_t)(1u << (i - b->first) % 8);
}

/* Return: whether it is initialised. */
static bool make_bitmap(const struct many *m, uint32_t ag, uint32_t index, struct bitmap_disk *d)
{
	uint8_t fresh[BITMAP_BYTES];
	struct bits b = { d->bits, index * BITMAP_BITS };
	uint32_t from = b.first > m->base ? ALIGN_DOWN(b.first - m->base, m->stride) : 0;
	struct cell c;

	ag_bitmap_fresh(&m->s, ag, super_ag_blocks(&m->s, ag), index, d->bits);
	memcpy(fresh, d->bits, BITMAP_BYTES);
	group_runs(m, ag, set_run, &b);
	for (uint32_t at = m->base + from; at < b.first + BITMAP_BITS; at += m->stride)
		if (cell_at(m, ag, at, &c))
			cell_runs(m, &c, set_run, &b);
	return memcmp(fresh, d->bits, BITMAP_BYTES) ||
	       (ag == m->copy_ag && index == copy_block(m) / BITMAP_BITS);
}

/* ---- directories ---- */

static int by_hash(const void *a, const void *b)
{
	const struct many_name *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* The inode that is the @nth name of directory @dir; UINT64_MAX: of the root. */
static uint64_t named(uint64_t dir, uint32_t nth)
{
	return dir == UINT64_MAX ? (uint64_t)nth * (MANY_DIR_FILES + 1) : dir + 1 + nth;
}

static void sort_names(const struct many *m, uint64_t dir, struct many_names *n)
{
	char name[16];

	for (uint32_t i = 0; i < n->count; i++) {
		name_of(named(dir, i), name);
		n->list[i] = (struct many_name){
			siphash24(m->s.hash_key, name, NAME_LEN) & ((1ULL << 63) - 1), i };
	}
	qsort(n->list, n->count, sizeof(*n->list), by_hash);
}

/* m->mutex held: what it returns is good as long. */
static const struct many_names *names_of(struct many *m, uint64_t dir)
{
	struct many_names *n;

	if (dir == UINT64_MAX)
		return &m->root;
	for (unsigned int i = 0; i < MANY_CACHE; i++)
		if (m->cache[i].dir == dir)
			return &m->cache[i];
	n = &m->cache[m->cache_next++ % MANY_CACHE];
	n->dir = dir;
	n->count = files_of(m, dir);
	sort_names(m, dir, n);
	return n;
}

static uint32_t pack(const struct many *m, uint64_t dir, const struct many_names *n, uint32_t from,
		     uint32_t to, uint8_t *bytes)
{
	uint32_t used = 0;
	char name[16];

	for (uint32_t k = from; k < to && k < n->count; k++) {
		uint64_t i = named(dir, n->list[k].index);
		struct dir_entry_disk e = { cpu_to_le64(id_of(m, i)), cpu_to_le64(n->list[k].hash),
					    is_dir(i) ? DT_DIR : DT_REG, NAME_LEN };

		name_of(i, name);
		memcpy(bytes + used, &e, sizeof(e));
		memcpy(bytes + used + sizeof(e), name, NAME_LEN);
		used += ENTRY_LEN;
	}
	return used;
}

static void make_names(struct many *m, uint64_t dir, uint32_t leaf, struct dir_leaf_disk *d)
{
	uint32_t used;

	pthread_mutex_lock(&m->mutex);
	used = pack(m, dir, names_of(m, dir), leaf * LEAF_NAMES, (leaf + 1) * LEAF_NAMES,
		    d->entries);
	pthread_mutex_unlock(&m->mutex);
	d->used = cpu_to_le32(used);
	d->count = cpu_to_le32(used / ENTRY_LEN);
}

/* @first_leaf: block number. */
static void make_dir_root(struct many *m, uint64_t dir, uint64_t first_leaf, struct inode_disk *d)
{
	struct dir_index_disk *index = (void *)d->root;
	const struct many_names *n;
	uint32_t leaves;

	pthread_mutex_lock(&m->mutex);
	n = names_of(m, dir);
	leaves = leaves_of(n->count);
	d->entries = cpu_to_le64(n->count);
	d->size = cpu_to_le64((uint64_t)n->count * ENTRY_LEN);
	d->blocks = cpu_to_le64(leaves);
	d->root_count = cpu_to_le32(leaves);
	d->depth = cpu_to_le32(leaves ? 1 : 0);
	for (uint32_t k = 0; k < leaves; k++)
		index[k] = (struct dir_index_disk){
			cpu_to_le64(k ? n->list[k * LEAF_NAMES].hash : 0),
			cpu_to_le64(BPTR(first_leaf + k, 1)) };
	if (!leaves) {
		d->flags = cpu_to_le32(INODE_INLINE);
		d->root_count = cpu_to_le32(pack(m, dir, n, 0, n->count, d->root));
	}
	pthread_mutex_unlock(&m->mutex);
}

/* ---- inodes ---- */

static void fill_inode(struct inode_disk *d, uint32_t generation, uint32_t mode, uint32_t nlink,
		       uint64_t parent)
{
	le64 then = cpu_to_le64(1700000000ULL * NSEC_PER_SEC);

	d->generation = cpu_to_le32(generation);
	d->mode = cpu_to_le32(mode);
	d->nlink = cpu_to_le32(nlink);
	d->atime = d->mtime = d->ctime = d->btime = then;
	d->parent = cpu_to_le64(parent);
}

static struct map_entry_disk entry_of(const struct many *m, const struct cell *c,
				      const struct file *f, uint32_t unit)
{
	uint64_t order = (uint64_t)__builtin_ctz(f->count);
	uint64_t block = group_block(m, c->ag, f->at + unit * 64);

	return (struct map_entry_disk){
		cpu_to_le64(block | order << ENTRY_ORDER_SHIFT),
		cpu_to_le64(f->count == 64 ? UINT64_MAX : (1ULL << f->count) - 1) };
}

static void make_inode(struct many *m, const struct cell *c, uint32_t slot, struct inode_disk *d)
{
	uint64_t i = c->first + slot, dir = i - i % (MANY_DIR_FILES + 1);
	struct file f = file_of(m, c, slot - (shares(m, c, slot) ? 1 : 0));
	char name[16];

	if (i >= m->inodes) {
		d->generation = cpu_to_le32(generation_of(i));
		return;
	}
	if (is_dir(i) && m->damage == MANY_NOWHERE) {
		d->generation = cpu_to_le32(generation_of(i) + 1);
		return;
	}
	name_of(i, name);
	d->name_len = cpu_to_le16(NAME_LEN);
	memcpy(d->name, name, NAME_LEN);
	if (is_dir(i)) {
		fill_inode(d, generation_of(i), S_IFDIR | 0755, 2, m->s.root);
		make_dir_root(m, i, group_block(m, c->ag, c->at + NAMES_AT), d);
		return;
	}
	fill_inode(d, generation_of(i), S_IFREG | 0644, 1, id_of(m, dir));
	d->size = cpu_to_le64((uint64_t)f.units * f.count * BLOCK_SIZE);
	d->blocks = cpu_to_le64(f.units * f.count + (slot == LARGE_FILE));
	d->root_count = cpu_to_le32(1);
	if (slot == LARGE_FILE) {
		d->depth = cpu_to_le32(1);
		*(le64 *)(void *)d->root = cpu_to_le64(BPTR(group_block(m, c->ag, c->at + LEAF_AT), 1));
	} else {
		*(struct map_entry_disk *)(void *)d->root = entry_of(m, c, &f, 0);
	}
}

static void make_root(struct many *m, struct inode_disk *d)
{
	fill_inode(d, inode_id_generation(m->s.root), S_IFDIR | 0755, 2 + m->dirs, m->s.root);
	make_dir_root(m, UINT64_MAX, group_block(m, 0, root_leaf_at(m, 0)), d);
}

/* ---- blocks ---- */

static void seal(const struct many *m, void *block, enum meta_type type, uint64_t number,
		 uint64_t owner, uint32_t birth)
{
	struct meta_expect e = { type, m->s.volume, number << BLOCK_SHIFT, owner, birth };

	meta_seal(block, &e, VERSION);
}

static void make_lock(const struct many *m, uint64_t number, void *block)
{
	lockrec_encode(&m->lock, m->s.volume, number << BLOCK_SHIFT, block, META_SECTOR_SIZE);
}

static void cell_block(struct many *m, const struct cell *c, uint64_t number, uint32_t in,
		       void *block)
{
	uint32_t slot = in / 2;

	if (in < CLUSTER_BLOCKS && in % 2 == 0) {
		make_lock(m, number, block);
	} else if (in < CLUSTER_BLOCKS) {
		if (m->damage == MANY_NO_DIRS && is_dir(c->first + slot))
			return;
		make_inode(m, c, slot, block);
		seal(m, block, META_INODE, number, number - 1, 0);
	} else if (in == LEAF_AT && c->first + LARGE_FILE < m->inodes &&
		   !is_dir(c->first + LARGE_FILE)) {
		struct file f = file_of(m, c, LARGE_FILE);

		for (uint32_t u = 0; u < f.units; u++)
			((struct map_leaf_disk *)block)->entries[u] = entry_of(m, c, &f, u);
		seal(m, block, META_MAP_LEAF, number, id_of(m, c->first + LARGE_FILE), 1);
	} else if (in >= NAMES_AT && in < NAMES_AT + NAMES_ROOM) {
		uint64_t dir = DIV_ROUND_UP(c->first, MANY_DIR_FILES + 1) * (MANY_DIR_FILES + 1);

		if (dir >= c->first + CLUSTER_INODES || dir >= m->inodes ||
		    in - NAMES_AT >= leaves_of(files_of(m, dir)))
			return;
		make_names(m, dir, in - NAMES_AT, block);
		seal(m, block, META_DIR_LEAF, number, id_of(m, dir), 1);
	}
}

static void space_block(struct many *m, uint32_t ag, uint32_t off, uint64_t number, void *block)
{
	uint32_t own = off - super_ag_meta(&m->s), index = own ? own - CLUSTER_BLOCKS : 0;
	struct cell c;

	if (ag == 0 && own == 2) {
		make_root(m, block);
		seal(m, block, META_INODE, number, number - 1, 0);
	} else if ((own == 0 || own > CLUSTER_BLOCKS) && index < index_blocks(m, ag)) {
		make_index(m, ag, index, block);
		seal(m, block, META_ITABLE, number, ag, 0);
	} else if (ag == 0 && off >= root_leaf_at(m, 0) &&
		   off < root_leaf_at(m, leaves_of(m->dirs))) {
		make_names(m, UINT64_MAX, off - root_leaf_at(m, 0), block);
		seal(m, block, META_DIR_LEAF, number, m->s.root, 1);
	} else if (cell_at(m, ag, off, &c)) {
		cell_block(m, &c, number, off - c.at, block);
	}
}

static void plan_block(struct many *m, uint64_t number, void *block)
{
	uint32_t ag, off;

	memset(block, 0, BLOCK_SIZE);
	/* Before there is a plan only what is written is there. */
	if (!m->cells || super_ag_of(&m->s, number << BLOCK_SHIFT, &ag))
		return;
	off = (uint32_t)(number - group_block(m, ag, 0));
	if (off == AG_LOCK_BLOCK) {
		make_lock(m, number, block);
	} else if (off == AG_HEADER_BLOCK) {
		make_header(m, ag, block);
		seal(m, block, META_AG, number, ag, 0);
	} else if (off < super_ag_meta(&m->s)) {
		if (make_bitmap(m, ag, off - AG_BITMAP_BLOCK, block))
			seal(m, block, META_BITMAP, number, ag, 0);
		else
			memset(block, 0, BLOCK_SIZE);
	} else {
		space_block(m, ag, off, number, block);
	}
}

/* ---- what was written ---- */

struct written {
	struct table_node node;		/* key: block number */
	uint32_t nth;			/* block of the file */
};

static int open_unnamed(void)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/lunfs-many-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static int read_written(const struct many *m, const struct table_node *n, void *block)
{
	off_t at = (off_t)container_of(n, struct written, node)->nth * BLOCK_SIZE;

	return pread(m->fd, block, BLOCK_SIZE, at) == BLOCK_SIZE ? 0 : -EIO;
}

void many_block(struct many *m, uint64_t number, void *block)
{
	struct table_node *n;

	pthread_mutex_lock(&m->mutex);
	n = table_find(&m->written, number);
	pthread_mutex_unlock(&m->mutex);
	if (n && read_written(m, n, block))
		abort();
	if (!n)
		plan_block(m, number, block);
}

int many_write(struct many *m, uint64_t number, const void *block)
{
	static const uint8_t zeros[BLOCK_SIZE];
	bool is_zero = !memcmp(block, zeros, BLOCK_SIZE);
	struct table_node *n;
	struct written *w;
	int err = 0;
	uint32_t ag;

	pthread_mutex_lock(&m->mutex);
	n = table_find(&m->written, number);
	/* It is so already: mkfs clears journals. */
	if (!n && is_zero && (!m->cells || super_ag_of(&m->s, number << BLOCK_SHIFT, &ag))) {
		pthread_mutex_unlock(&m->mutex);
		return 0;
	}
	w = n ? container_of(n, struct written, node) : malloc(sizeof(*w));
	if (w && !n)
		w->nth = m->written_blocks;
	if (!w || (!n && table_insert(&m->written, &w->node, number))) {
		free(w);
		err = -ENOMEM;
	} else {
		m->written_blocks += !n;
		err = pwrite(m->fd, block, BLOCK_SIZE, (off_t)w->nth * BLOCK_SIZE) == BLOCK_SIZE ?
		      0 : -EIO;
	}
	pthread_mutex_unlock(&m->mutex);
	return err;
}

/* ---- the whole ---- */

uint64_t many_first(const struct many *m)
{
	return number_of(m, 0);
}

static int call(struct many *m, uint64_t number,
		int (*fn)(void *arg, uint64_t number, const void *block), void *arg)
{
	static const uint8_t zeros[BLOCK_SIZE];
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;

	many_block(m, number, block);
	return memcmp(block, zeros, BLOCK_SIZE) ? fn(arg, number, block) : 0;
}

static int each_in(struct many *m, uint64_t from, uint64_t count,
		   int (*fn)(void *arg, uint64_t number, const void *block), void *arg)
{
	int err = 0;

	for (uint64_t i = 0; i < count && !err; i++)
		err = call(m, from + i, fn, arg);
	return err;
}

struct each {
	struct many *m;
	int (*fn)(void *arg, uint64_t number, const void *block);
	void *arg;
	int err;
};

/* Outside the groups, and what mkfs has in them. */
static void each_written(struct table_node *n, void *arg)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct each *e = arg;

	if (!e->err)
		e->err = read_written(e->m, n, block);
	if (!e->err)
		e->err = e->fn(e->arg, n->key, block);
}

int many_each(struct many *m, int (*fn)(void *arg, uint64_t number, const void *block), void *arg)
{
	struct each e = { .m = m, .fn = fn, .arg = arg };
	uint32_t own = m->base;

	table_each(&m->written, each_written, &e);
	for (uint32_t ag = 0; ag < m->s.ag_count && !e.err; ag++)
		e.err = each_in(m, group_block(m, ag, 0), super_ag_blocks(&m->s, ag) < own ?
				super_ag_blocks(&m->s, ag) : own, fn, arg);
	for (uint64_t nth = 0; nth < m->cells && !e.err; nth++) {
		struct cell c = cell_of(m, nth);

		e.err = each_in(m, group_block(m, c.ag, c.at), NAMES_AT + NAMES_ROOM, fn, arg);
	}
	return e.err;
}

static int make_plan(struct many *m, char *why, size_t why_size)
{
	uint32_t blocks = super_ag_blocks(&m->s, 0), copy, places;

	m->dirs = (uint32_t)DIV_ROUND_UP(m->files, MANY_DIR_FILES);
	m->inodes = m->files + m->dirs;
	m->cells = DIV_ROUND_UP(m->inodes, CLUSTER_INODES);
	m->full_groups = m->s.ag_count;
	if (super_ag_blocks(&m->s, m->s.ag_count - 1) < blocks && m->s.ag_count > 1)
		m->full_groups--;
	m->base = (uint32_t)ALIGN_UP(root_leaf_at(m, ROOT_ROOM), 64u);
	places = (uint32_t)DIV_ROUND_UP(m->cells, m->full_groups) + 1;
	m->stride = ALIGN_DOWN((blocks - m->base) / places, 64u);
	if (m->stride / 64 < CELL_WORDS_MIN || leaves_of(m->dirs) > ROOT_ROOM ||
	    places / ITABLE_ENTRIES >= INDEX_ROOM - 1) {
		snprintf(why, why_size, "the volume is too small for so many files");
		return -ENOSPC;
	}
	if (super_ag_of(&m->s, m->s.copy_addr, &m->copy_ag))
		return -EINVAL;
	copy = copy_block(m);
	if (copy < m->base) {
		snprintf(why, why_size, "the superblock copy lies in the way: try another size");
		return -EINVAL;
	}
	m->copy_cell = (copy - m->base) / m->stride;
	return 0;
}

static int make_room(struct many *m)
{
	m->root = (struct many_names){ UINT64_MAX, m->dirs, calloc(m->dirs, sizeof(*m->root.list)) };
	for (unsigned int i = 0; i < MANY_CACHE; i++) {
		m->cache[i].dir = UINT64_MAX;
		m->cache[i].list = calloc(MANY_DIR_FILES, sizeof(*m->root.list));
		if (!m->cache[i].list)
			return -ENOMEM;
	}
	if (!m->root.list)
		return -ENOMEM;
	sort_names(m, UINT64_MAX, &m->root);
	return 0;
}

/* Of what mkfs wrote the plan has all in the groups but the root's cluster and the copy. */
static void forget(struct table_node *n, void *arg)
{
	struct many *m = arg;
	uint64_t root = inode_id_number(m->s.root);
	uint32_t ag;

	if (super_ag_of(&m->s, n->key << BLOCK_SHIFT, &ag) ||
	    n->key == m->s.copy_addr >> BLOCK_SHIFT ||
	    (n->key >= root && n->key < root + CLUSTER_BLOCKS && n->key != root + 1))
		return;
	table_remove(&m->written, n);
	free(container_of(n, struct written, node));
}

int many_init(struct many *m, struct env *env, uint64_t size, uint64_t files, char *why,
	      size_t why_size)
{
	struct mkfs_params p = { .env = env, .label = "many" };
	int err;

	memset(m, 0, sizeof(*m));
	table_init(&m->written);
	pthread_mutex_init(&m->mutex, NULL);
	m->files = files;
	m->s.size = size;	/* of the device, until mkfs knows the rest */
	lockrec_init(env, &m->lock);
	m->fd = open_unnamed();
	if (m->fd < 0) {
		snprintf(why, why_size, "TMPDIR: %s", strerror(errno));
		return -errno;
	}
	p.dev = many_open(m, env);
	if (!p.dev)
		return -ENOMEM;
	err = mkfs(&p, &m->s, why, why_size);
	blkdev_close(p.dev);
	if (!err)
		err = make_plan(m, why, why_size);
	if (!err)
		err = make_room(m);
	if (!err)
		table_each(&m->written, forget, m);
	return err;
}

static void drop(struct table_node *n, void *arg)
{
	table_remove(arg, n);
	free(container_of(n, struct written, node));
}

void many_fini(struct many *m)
{
	table_each(&m->written, drop, &m->written);
	table_fini(&m->written);
	for (unsigned int i = 0; i < MANY_CACHE; i++)
		free(m->cache[i].list);
	free(m->root.list);
	close(m->fd);
	pthread_mutex_destroy(&m->mutex);
}
