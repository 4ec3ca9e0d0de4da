/* SPDX-License-Identifier: Apache-2.0 */
/* One inode: its fields, the blocks its map refers to, its extended attributes. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/check/internal.h"
#include "fs/inode.h"

#define UNITS_MAX	(FILE_SIZE_MAX / UNIT_SIZE)

/* A walk through one inode's map. */
struct map_walk {
	struct check *c;
	const struct inode_disk *d;
	uint64_t id;
	const char *who;
	uint64_t addr;		/* of the block that is being looked at */
	uint64_t blocks;	/* allocated, map blocks included */
};

/* ---- the record ---- */

static struct chk_inode *record_new(struct check *c)
{
	if (c->inode_count == c->inode_room) {
		size_t room = c->inode_room ? 2 * c->inode_room : 1024;
		struct chk_inode *bigger = realloc(c->inodes, room * sizeof(*bigger));

		if (!bigger) {
			c->no_memory = true;
			return NULL;
		}
		c->inodes = bigger;
		c->inode_room = room;
	}
	memset(&c->inodes[c->inode_count], 0, sizeof(*c->inodes));
	return &c->inodes[c->inode_count++];
}

static void record(struct check *c, uint64_t number, const struct inode_disk *d)
{
	struct chk_inode *ino = record_new(c);
	uint32_t flags, name_len;

	if (!ino)
		return;
	ino->number = number;
	if (!d)
		return;
	flags = le32_to_cpu(d->flags);
	name_len = le16_to_cpu(d->name_len);
	ino->parent = le64_to_cpu(d->parent);
	if (name_len <= NAME_BYTES_MAX)
		ino->name_hash = siphash24(c->s->hash_key, d->name, name_len);
	ino->generation = le32_to_cpu(d->generation) & INODE_GENERATION_MASK;
	ino->nlink = le32_to_cpu(d->nlink);
	ino->type = (uint8_t)IFTODT(le32_to_cpu(d->mode));
	ino->flags = (uint8_t)((flags & INODE_LINKED ? CHK_LINKED : 0) |
			       (flags & INODE_ORPHAN ? CHK_ORPHAN : 0) |
			       (flags & INODE_CHILDREN ? CHK_CHILDREN : 0));
	chk_layer_add(c, number, d);
	if (flags & INODE_CHILDREN)
		return;
	if (ino->type == DT_DIR)
		c->r->directories++;
	else if (ino->type == DT_REG)
		c->r->files++;
	else
		c->r->others++;
}

/* ---- the map ---- */

/* Blocks of @e that hold data must be allocated, and not all lie behind the end. */
static void check_valid(struct map_walk *w, uint64_t unit, uint32_t order, uint64_t valid)
{
	uint64_t size = le64_to_cpu(w->d->size), start = unit * UNIT_SIZE;
	uint64_t here = size > start ? DIV_ROUND_UP(size - start, (uint64_t)BLOCK_SIZE) : 0;

	if (order < 6 && valid >> (1u << order))
		chk_report(w->c, CHECK_MAP_VALID, w->addr,
			   "%s, unit %llu: valid 0x%llx, but only %u blocks are allocated", w->who,
			   (unsigned long long)unit, (unsigned long long)valid, 1u << order);
	if (here < UNIT_BLOCKS && valid >> here &&
	    !(le32_to_cpu(w->d->flags) & INODE_ORPHAN))
		chk_report(w->c, CHECK_MAP_PAST_END, w->addr,
			   "%s, unit %llu: valid 0x%llx, but the file ends after %llu bytes",
			   w->who, (unsigned long long)unit, (unsigned long long)valid,
			   (unsigned long long)size);
}

static void check_entry(struct map_walk *w, uint64_t unit, const struct map_entry_disk *e)
{
	uint64_t word = le64_to_cpu(e->unit), valid = le64_to_cpu(e->valid);
	uint64_t block = word & ((1ULL << ENTRY_BLOCK_BITS) - 1);
	uint32_t order = word >> ENTRY_ORDER_SHIFT & 15;
	uint64_t known = ((1ULL << ENTRY_BLOCK_BITS) - 1) | 15ULL << ENTRY_ORDER_SHIFT |
			 ENTRY_DETACHED;

	if (word == 0 && valid == 0)
		return;
	if (word & ~known || order > 6 || unit >= UNITS_MAX || (block == 0 && (order || valid))) {
		chk_report(w->c, CHECK_MAP_RESERVED, w->addr,
			   "%s, unit %llu: entry 0x%llx 0x%llx", w->who, (unsigned long long)unit,
			   (unsigned long long)word, (unsigned long long)valid);
		return;
	}
	if (block == 0)
		return;
	check_valid(w, unit, order, valid);
	if (!chk_space_ok(w->c, block, 1u << order)) {
		chk_report(w->c, CHECK_MAP_OUTSIDE, w->addr,
			   "%s, unit %llu: %u blocks at block %llu are no space for files", w->who,
			   (unsigned long long)unit, 1u << order, (unsigned long long)block);
		return;
	}
	w->blocks += 1u << order;
	chk_claim(w->c, block, 1u << order, w->who);
}

/* Units that one pointer of a block of @level covers; level 0: a leaf's entry is a unit. */
static uint64_t units_below(unsigned int level)
{
	uint64_t units = 1;

	if (level)
		units = LEAF_ENTRIES;
	while (level-- > 1)
		units *= NODE_POINTERS;
	return units;
}

static void check_map_block(struct map_walk *w, uint64_t pointer, unsigned int level,
			    uint64_t unit);

static void check_pointers(struct map_walk *w, const le64 *pointers, uint32_t count,
			   unsigned int level, uint64_t unit)
{
	uint64_t step = units_below(level), addr = w->addr;

	for (uint32_t i = 0; i < count && !w->c->no_memory; i++) {
		uint64_t pointer = le64_to_cpu(pointers[i]);

		w->addr = addr;
		if (pointer)
			check_map_block(w, pointer, level - 1, unit + i * step);
	}
}

/* Recursion is at most DEPTH_MAX deep; each level has its own buffer. */
static void check_map_block(struct map_walk *w, uint64_t pointer, unsigned int level,
			    uint64_t unit)
{
	enum meta_type type = level ? META_MAP_NODE : META_MAP_LEAF;
	struct meta_expect e = { type, w->c->s->volume, bptr_addr(pointer), w->id,
				 bptr_birth(pointer) };
	uint8_t *block = w->c->levels[level];

	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1)) {
		chk_report(w->c, CHECK_MAP_POINTER, w->addr,
			   "%s, unit %llu: pointer to block %llu", w->who,
			   (unsigned long long)unit, (unsigned long long)(e.addr >> BLOCK_SHIFT));
		return;
	}
	w->blocks++;
	if (!chk_claim(w->c, e.addr >> BLOCK_SHIFT, 1, w->who) ||
	    chk_block(w->c, &e, block, CHECK_MAP_DAMAGED, w->who))
		return;
	w->addr = e.addr;
	if (level) {
		check_pointers(w, ((struct map_node_disk *)block)->pointers, NODE_POINTERS, level,
			       unit);
		return;
	}
	for (uint32_t i = 0; i < LEAF_ENTRIES && !w->c->no_memory; i++)
		check_entry(w, unit + i, &((struct map_leaf_disk *)block)->entries[i]);
}

static void check_map(struct map_walk *w)
{
	uint32_t depth = le32_to_cpu(w->d->depth), count = le32_to_cpu(w->d->root_count);

	/* inode_decode_check() bounded both; memory safety rests on this line alone. */
	if (depth > DEPTH_MAX || count > (depth ? INLINE_POINTERS : INLINE_ENTRIES))
		return;
	w->addr = inode_block_addr(w->id);
	if (depth) {
		check_pointers(w, (const le64 *)(const void *)w->d->root, count, depth, 0);
		return;
	}
	for (uint32_t i = 0; i < count && !w->c->no_memory; i++)
		check_entry(w, i, &((const struct map_entry_disk *)(const void *)w->d->root)[i]);
}

/* ---- extended attributes ---- */

static bool xattr_entries_ok(const struct xattr_disk *x, char *why, size_t why_size)
{
	uint32_t used = le32_to_cpu(x->used), count = le32_to_cpu(x->count), off = 0, i;

	if (used > XATTR_BYTES_MAX) {
		snprintf(why, why_size, "%u bytes in use", used);
		return false;
	}
	for (i = 0; off < used; i++) {
		struct xattr_entry_disk e;
		uint32_t len;

		if (used - off < sizeof(e))
			break;
		memcpy(&e, x->entries + off, sizeof(e));
		len = (uint32_t)sizeof(e) + e.name_len + le16_to_cpu(e.value_len);
		if (e.name_len < 1 || e.zero || len > used - off ||
		    memchr(x->entries + off + sizeof(e), 0, e.name_len))
			break;
		off += len;
	}
	if (off == used && i == count)
		return true;
	snprintf(why, why_size, "entry %u of %u at byte %u of %u", i, count, off, used);
	return false;
}

static void check_xattr(struct map_walk *w)
{
	uint64_t pointer = le64_to_cpu(w->d->xattr);
	struct meta_expect e = { META_XATTR, w->c->s->volume, bptr_addr(pointer), w->id,
				 bptr_birth(pointer) };
	uint8_t *block = w->c->levels[0];
	char why[80];

	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1)) {
		chk_report(w->c, CHECK_XATTR_POINTER, inode_block_addr(w->id),
			   "%s: pointer to block %llu", w->who,
			   (unsigned long long)(e.addr >> BLOCK_SHIFT));
		return;
	}
	w->blocks++;
	if (!chk_claim(w->c, e.addr >> BLOCK_SHIFT, 1, w->who) ||
	    chk_block(w->c, &e, block, CHECK_XATTR_DAMAGED, w->who))
		return;
	if (!xattr_entries_ok((struct xattr_disk *)block, why, sizeof(why)))
		chk_report(w->c, CHECK_XATTR_ENTRY, e.addr, "%s: %s", w->who, why);
}

/* ---- the inode ---- */

void chk_inode(struct check *c, uint64_t number, const struct inode_disk *d)
{
	char who[64], why[200];
	struct map_walk w = { .c = c, .d = d, .who = who };
	uint32_t mode;

	if (d && inode_decode_check(d, why, sizeof(why))) {
		chk_report(c, CHECK_INODE_INVALID, inode_block_addr(number), "inode %llu: %s",
			   (unsigned long long)number, why);
		d = NULL;
	}
	record(c, number, d);
	if (!d)
		return;
	mode = le32_to_cpu(d->mode);
	w.id = inode_id_make(number, le32_to_cpu(d->generation));
	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)number);
	if (le64_to_cpu(d->xattr))
		check_xattr(&w);
	/* A directory's blocks are counted when its names are read. */
	if (S_ISDIR(mode))
		return;
	if (!(le32_to_cpu(d->flags) & INODE_INLINE) && (S_ISREG(mode) || S_ISLNK(mode)))
		check_map(&w);
	if (w.blocks != le64_to_cpu(d->blocks))
		chk_report(c, CHECK_INODE_BLOCKS, inode_block_addr(number),
			   "%s: blocks: expected %llu, found %llu", who,
			   (unsigned long long)w.blocks, (unsigned long long)le64_to_cpu(d->blocks));
}
