/* SPDX-License-Identifier: Apache-2.0 */
/* One inode: its fields, the blocks its map refers to, its extended attributes. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"
#include "fs/inode.h"

#define UNITS_MAX	(FILE_SIZE_MAX / UNIT_SIZE)

/* A walk through one inode's map. */
struct map_walk {
	struct check *c;
	struct inode_disk *d;
	uint64_t id;
	const char *who;
	uint64_t addr;		/* of the block that is being looked at */
	uint64_t blocks;	/* allocated, map blocks included */
	uint64_t valid;		/* blocks that hold data */
	bool changed;		/* the inode itself: to be written */
};

/* ---- the record ---- */

static void record(struct check *c, uint64_t number, const struct inode_disk *d)
{
	struct chk_inode *ino;
	uint32_t flags, name_len;

	if (online_forgets(c, d))
		return;
	ino = fix_append(c, (void **)&c->inodes, &c->inode_count, &c->inode_room, sizeof(*ino));
	if (!ino)
		return;
	c->looking->known |= (uint16_t)(1u << (number - c->looking->first) / 2);
	if (!d)
		return;
	flags = le32_to_cpu(d->flags);
	name_len = le16_to_cpu(d->name_len);
	chk_states(ino, le64_to_cpu(d->parent), name_len > NAME_BYTES_MAX ? 0 :
		   siphash24(c->s->hash_key, d->name, name_len));
	ino->generation = le32_to_cpu(d->generation) & INODE_GENERATION_MASK;
	ino->nlink = (uint16_t)le32_to_cpu(d->nlink);
	ino->type = IFTODT(le32_to_cpu(d->mode)) & 15;
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

/* Blocks of an entry that hold data must be allocated, and not all lie behind the end.
 * Returns which of them hold data. */
static uint64_t check_valid(struct map_walk *w, uint64_t unit, uint32_t order, uint64_t valid)
{
	uint64_t size = le64_to_cpu(w->d->size), start = unit * UNIT_SIZE, kept = valid;
	uint64_t here = size > start ? DIV_ROUND_UP(size - start, (uint64_t)BLOCK_SIZE) : 0;

	if (order < 6 && valid >> (1u << order) &&
	    chk_report(w->c, CHECK_MAP_VALID, w->addr,
		       "%s, unit %llu: valid 0x%llx, but only %u blocks are allocated", w->who,
		       (unsigned long long)unit, (unsigned long long)valid, 1u << order))
		kept &= (1ULL << (1u << order)) - 1;
	if (here < UNIT_BLOCKS && valid >> here &&
	    !(le32_to_cpu(w->d->flags) & INODE_ORPHAN) &&
	    chk_report(w->c, CHECK_MAP_PAST_END, w->addr,
		       "%s, unit %llu: valid 0x%llx, but the file ends after %llu bytes", w->who,
		       (unsigned long long)unit, (unsigned long long)valid,
		       (unsigned long long)size))
		kept &= (1ULL << here) - 1;
	return kept;
}

static bool entry_possible(uint64_t unit, uint64_t word, uint64_t valid)
{
	uint64_t block = word & ((1ULL << ENTRY_BLOCK_BITS) - 1);
	uint32_t order = word >> ENTRY_ORDER_SHIFT & 15;
	uint64_t known = ((1ULL << ENTRY_BLOCK_BITS) - 1) | 15ULL << ENTRY_ORDER_SHIFT |
			 ENTRY_DETACHED;

	/* Only a file's first unit may have less than all of its blocks. */
	return !(word & ~known) && order <= 6 && unit < UNITS_MAX &&
	       (block ? order == 6 || unit == 0 : !order && !valid);
}

/* Returns whether a repair has changed @e: its block is to be written. */
static bool check_entry(struct map_walk *w, uint64_t unit, struct map_entry_disk *e)
{
	uint64_t word = le64_to_cpu(e->unit), valid = le64_to_cpu(e->valid), kept;
	uint64_t block = word & ((1ULL << ENTRY_BLOCK_BITS) - 1);
	uint32_t order = word >> ENTRY_ORDER_SHIFT & 15;
	bool fix = false;

	if (word == 0 && valid == 0)
		return false;
	if (!entry_possible(unit, word, valid))
		fix = chk_report(w->c, CHECK_MAP_RESERVED, w->addr,
				 "%s, unit %llu: entry 0x%llx 0x%llx", w->who,
				 (unsigned long long)unit, (unsigned long long)word,
				 (unsigned long long)valid);
	else if (block == 0)
		return false;
	else if (!chk_space_ok(w->c, block, 1u << order))
		fix = chk_report(w->c, CHECK_MAP_OUTSIDE, w->addr,
				 "%s, unit %llu: %u blocks at block %llu are no space for files",
				 w->who, (unsigned long long)unit, 1u << order,
				 (unsigned long long)block);
	else
		goto possible;
	/* A hole, which must not bring an older image's data back. */
	if (fix) {
		e->unit = cpu_to_le64(le64_to_cpu(w->d->image_parent) && unit < UNITS_MAX ?
				      ENTRY_DETACHED : 0);
		e->valid = cpu_to_le64(0);
	}
	return fix;

possible:
	kept = check_valid(w, unit, order, valid);
	e->valid = cpu_to_le64(kept);
	w->valid += (uint32_t)__builtin_popcountll(kept);
	w->blocks += 1u << order;
	w->c->from = w->addr;
	w->c->data = true;
	chk_claim(w->c, block, 1u << order, w->who);
	w->c->data = false;
	return kept != valid;
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

static bool check_map_block(struct map_walk *w, uint64_t pointer, unsigned int level,
			    uint64_t unit);

/* The block at @addr is not believed.  Returns whether the pointer to it is to be cleared. */
static bool strike(struct map_walk *w, uint64_t addr)
{
	if (w->c->verify_repair)
		chk_unclaim(w->c, addr >> BLOCK_SHIFT);
	else
		w->blocks++;
	return w->c->verify_repair;
}

/* Pointers of a block or root, as a source of places. */
struct pointers {
	const le64 *at, *end;
};

static bool next_pointer(struct check *c, void *arg, struct chk_place *p)
{
	struct pointers *next = arg;

	while (next->at < next->end) {
		uint64_t pointer = le64_to_cpu(*next->at++);

		*p = (struct chk_place){ bptr_addr(pointer), 1 };
		if (pointer && chk_space_ok(c, p->addr >> BLOCK_SHIFT, 1))
			return true;
	}
	return false;
}

/* Returns whether a repair has cleared any of @pointers. */
static bool check_pointers(struct map_walk *w, le64 *pointers, uint32_t count,
			   unsigned int level, uint64_t unit)
{
	uint64_t step = units_below(level), addr = w->addr;
	struct pointers next = { pointers, pointers + count };
	struct chk_source source = { next_pointer, &next, NULL, false };
	bool changed = false;

	chk_ahead_begin(w->c, CHK_LANE_LEVEL + level, &source);
	for (uint32_t i = 0; i < count && !w->c->no_memory; i++) {
		uint64_t pointer = le64_to_cpu(pointers[i]);

		w->addr = addr;
		if (!pointer || !check_map_block(w, pointer, level - 1, unit + i * step))
			continue;
		pointers[i] = cpu_to_le64(0);
		changed = true;
	}
	chk_ahead_end(w->c, CHK_LANE_LEVEL + level);
	return changed;
}

/*
 * Recursion is at most DEPTH_MAX deep; each level has its own buffer.
 * Returns whether the pointer to the block is to be cleared.
 */
static bool check_map_block(struct map_walk *w, uint64_t pointer, unsigned int level,
			    uint64_t unit)
{
	enum meta_type type = level ? META_MAP_NODE : META_MAP_LEAF;
	struct meta_expect e = { type, w->c->s->volume, bptr_addr(pointer), w->id,
				 bptr_birth(pointer) };
	uint8_t *block = w->c->levels[level];
	bool changed = false;

	if (online_gives_up(w->c, w->blocks, le64_to_cpu(w->d->blocks)))
		return false;
	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1))
		return chk_report(w->c, CHECK_MAP_POINTER, w->addr,
				  "%s, unit %llu: pointer to block %llu", w->who,
				  (unsigned long long)unit,
				  (unsigned long long)(e.addr >> BLOCK_SHIFT));
	w->c->from = w->addr;
	if (!chk_claim_meta(w->c, e.addr >> BLOCK_SHIFT, 1, w->who) &&
	    !chk_claim_anyway(w->c, &e, block)) {
		w->blocks += !w->c->twice_repair;
		return w->c->twice_repair;
	}
	if (!level && online_passes_over(w->c, e.addr))
		return false;
	if (chk_block(w->c, &e, block, CHECK_MAP_DAMAGED, w->who))
		return strike(w, e.addr);
	w->blocks++;
	w->addr = e.addr;
	if (level)
		changed = check_pointers(w, ((struct map_node_disk *)block)->pointers,
					 NODE_POINTERS, level, unit);
	for (uint32_t i = 0; !level && i < LEAF_ENTRIES && !w->c->no_memory; i++)
		changed |= check_entry(w, unit + i, &((struct map_leaf_disk *)block)->entries[i]);
	if (changed)
		fix_seal(w->c, block, &e);
	return false;
}

static void check_map(struct map_walk *w)
{
	uint32_t depth = le32_to_cpu(w->d->depth), count = le32_to_cpu(w->d->root_count);

	/* inode_decode_check() bounded both; memory safety rests on this line alone. */
	if (depth > DEPTH_MAX || count > (depth ? INLINE_POINTERS : INLINE_ENTRIES))
		return;
	w->addr = inode_block_addr(w->id);
	if (depth)
		w->changed |= check_pointers(w, (le64 *)(void *)w->d->root, count, depth, 0);
	for (uint32_t i = 0; !depth && i < count && !w->c->no_memory; i++)
		w->changed |= check_entry(w, i,
					  &((struct map_entry_disk *)(void *)w->d->root)[i]);
}

/* ---- extended attributes ---- */

/* *@good receives how many bytes and entries from the start on are possible. */
static bool xattr_entries_ok(const struct xattr_disk *x, uint32_t *good, uint32_t *good_count,
			     char *why, size_t why_size)
{
	uint32_t used = le32_to_cpu(x->used), count = le32_to_cpu(x->count), off = 0, i;
	uint32_t end = used < XATTR_BYTES_MAX ? used : XATTR_BYTES_MAX;

	for (i = 0; off < end; i++) {
		struct xattr_entry_disk e;
		uint32_t len;

		if (end - off < sizeof(e))
			break;
		memcpy(&e, x->entries + off, sizeof(e));
		len = (uint32_t)sizeof(e) + e.name_len + le16_to_cpu(e.value_len);
		if (e.name_len < 1 || e.zero || len > end - off ||
		    memchr(x->entries + off + sizeof(e), 0, e.name_len))
			break;
		off += len;
	}
	*good = off;
	*good_count = i;
	if (off == used && i == count)
		return true;
	snprintf(why, why_size, "entry %u of %u at byte %u of %u", i, count, off, used);
	return false;
}

/* Returns whether the pointer to the block is to be cleared. */
static bool check_xattr(struct map_walk *w)
{
	uint64_t pointer = le64_to_cpu(w->d->xattr);
	struct meta_expect e = { META_XATTR, w->c->s->volume, bptr_addr(pointer), w->id,
				 bptr_birth(pointer) };
	struct xattr_disk *block = (void *)w->c->levels[0];
	uint32_t good, count;
	char why[80];

	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1))
		return chk_report(w->c, CHECK_XATTR_POINTER, inode_block_addr(w->id),
				  "%s: pointer to block %llu", w->who,
				  (unsigned long long)(e.addr >> BLOCK_SHIFT));
	w->c->from = inode_block_addr(w->id);
	if (!chk_claim_meta(w->c, e.addr >> BLOCK_SHIFT, 1, w->who) &&
	    !chk_claim_anyway(w->c, &e, block)) {
		w->blocks += !w->c->twice_repair;
		return w->c->twice_repair;
	}
	if (chk_block(w->c, &e, block, CHECK_XATTR_DAMAGED, w->who))
		return strike(w, e.addr);
	w->blocks++;
	if (xattr_entries_ok(block, &good, &count, why, sizeof(why)) ||
	    !chk_report(w->c, CHECK_XATTR_ENTRY, e.addr, "%s: %s", w->who, why))
		return false;
	memset(block->entries + good, 0, XATTR_BYTES_MAX - good);
	block->used = cpu_to_le32(good);
	block->count = cpu_to_le32(count);
	fix_seal(w->c, block, &e);
	return false;
}

/* ---- the inode ---- */

void chk_inode_lost(struct check *c, uint64_t number, bool fix)
{
	record(c, number, NULL);
	if (fix && !c->no_memory)
		c->inodes[c->inode_count - 1].flags |= CHK_LOST;
}

/* Puts in range what says little; what matters is left as it is.  Returns whether that helped. */
static bool fix_fields(struct inode_disk *d)
{
	uint32_t len = le16_to_cpu(d->name_len);

	d->flags = cpu_to_le32(le32_to_cpu(d->flags) & INODE_FLAGS_KNOWN);
	d->mode = cpu_to_le32(le32_to_cpu(d->mode) & (S_IFMT | 07777));
	if (!S_ISDIR(le32_to_cpu(d->mode)))
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) & ~(uint32_t)INODE_CHILDREN);
	if (le64_to_cpu(d->image_parent) || le32_to_cpu(d->flags) & (INODE_INLINE | INODE_FROZEN))
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) & ~(uint32_t)INODE_MULTI);
	if (S_ISDIR(le32_to_cpu(d->mode)) && !le32_to_cpu(d->depth))
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) | INODE_INLINE);
	if (le32_to_cpu(d->nlink) > LINK_COUNT_MAX)
		d->nlink = cpu_to_le32(1);
	if (len > NAME_BYTES_MAX || memchr(d->name, '/', len) || memchr(d->name, 0, len))
		d->name_len = cpu_to_le16(0);
	memset(d->reserved, 0, sizeof(d->reserved));
	memset(d->zero0, 0, sizeof(d->zero0));
	if (!S_ISREG(le32_to_cpu(d->mode))) {
		d->image_parent = d->image_limit = d->image_children = cpu_to_le64(0);
		d->image_rank = cpu_to_le32(0);
	} else if (le32_to_cpu(d->flags) & INODE_FROZEN && !le64_to_cpu(d->image_children)) {
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) &
				       ~(uint32_t)(INODE_FROZEN | INODE_MERGING));
	}
	return !inode_decode_check(d, NULL, 0);
}

/* Returns whether @d can be believed now. */
static bool check_fields(struct check *c, uint64_t number, struct inode_disk *d)
{
	char why[200];

	if (!inode_decode_check(d, why, sizeof(why)))
		return true;
	if (!chk_report(c, CHECK_INODE_INVALID, inode_block_addr(number), "inode %llu: %s",
			(unsigned long long)number, why)) {
		chk_inode_lost(c, number, false);
		return false;
	}
	if (!fix_fields(d)) {
		chk_inode_lost(c, number, true);
		return false;
	}
	fix_inode(c, d, number);
	return true;
}

/* Whether a file can have several writers: none of them may have to change its map (R1). */
static bool is_whole(const struct map_walk *w)
{
	uint32_t flags = le32_to_cpu(w->d->flags);
	uint64_t size = le64_to_cpu(w->d->size);

	if (!S_ISREG(le32_to_cpu(w->d->mode)) || flags & INODE_INLINE)
		return false;
	if (flags & INODE_ORPHAN)	/* being deleted, bit by bit; never being shortened */
		return !le32_to_cpu(w->d->nlink);
	return size % BLOCK_SIZE == 0 && w->valid == size / BLOCK_SIZE;
}

static void check_multi(struct map_walk *w, uint64_t number)
{
	if (!(le32_to_cpu(w->d->flags) & INODE_MULTI) || !online_counts(w->c) || is_whole(w) ||
	    !chk_report(w->c, CHECK_INODE_INVALID, inode_block_addr(number), "%s: several hosts may "
			"write to it, but of %llu bytes %llu blocks are written", w->who,
			(unsigned long long)le64_to_cpu(w->d->size), (unsigned long long)w->valid))
		return;
	w->d->flags = cpu_to_le32(le32_to_cpu(w->d->flags) & ~(uint32_t)INODE_MULTI);
	w->changed = true;
}

void chk_inode(struct check *c, uint64_t number, struct inode_disk *d)
{
	char who[64];
	struct map_walk w = { .c = c, .d = d, .who = who };
	uint32_t mode;

	if (!check_fields(c, number, d))
		return;
	record(c, number, d);
	mode = le32_to_cpu(d->mode);
	w.id = inode_id_make(number, le32_to_cpu(d->generation));
	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)number);
	if (le64_to_cpu(d->xattr) && check_xattr(&w)) {
		d->xattr = cpu_to_le64(0);
		w.changed = true;
	}
	/* A directory's blocks are counted when its names are read. */
	if (!S_ISDIR(mode)) {
		if (!(le32_to_cpu(d->flags) & INODE_INLINE) && (S_ISREG(mode) || S_ISLNK(mode)))
			check_map(&w);
		if (w.blocks != le64_to_cpu(d->blocks) && online_counts(c) &&
		    chk_report(c, CHECK_INODE_BLOCKS, inode_block_addr(number),
			       "%s: blocks: expected %llu, found %llu", who,
			       (unsigned long long)w.blocks,
			       (unsigned long long)le64_to_cpu(d->blocks))) {
			d->blocks = cpu_to_le64(w.blocks);
			w.changed = true;
		}
	}
	check_multi(&w, number);
	if (w.changed)
		fix_inode(c, d, number);
}
