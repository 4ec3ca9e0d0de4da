/* SPDX-License-Identifier: Apache-2.0 */
/* One object, looked at again by itself: nothing is remembered of any other. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/siphash.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"
#include "fs/image_list.h"
#include "fs/inode.h"
#include "fs/journal.h"

#define HASH_END	(1ULL << 63)

/* Blocks of o->blocks_mem. */
enum { MEM_INODE, MEM_OTHER, MEM_DIR, MEM_NODE, MEM_COUNT };

static void *mem(struct check *c, unsigned int i)
{
	return c->online->blocks_mem + (size_t)i * BLOCK_SIZE;
}

/* The block of inode @number, believed; false: it is not, or cannot be read. */
static bool read_inode(struct check *c, uint64_t number, struct inode_disk *d)
{
	uint64_t addr = inode_block_addr(number);
	struct meta_expect e = { META_INODE, c->s->volume, addr, number, 0 };

	return chk_space_ok(c, number, 2) && !chk_read(c, addr, d, 1) && !meta_verify(d, &e, NULL, 0) &&
	       !inode_decode_check(d, NULL, 0);
}

static bool is_inode(const struct inode_disk *d, uint64_t id)
{
	return le32_to_cpu(d->mode) && (le32_to_cpu(d->generation) & INODE_GENERATION_MASK) ==
	       inode_id_generation(id);
}

/* Whether the look at everything found a cluster with inode @number. */
static const struct chk_cluster *cluster_of(const struct check *main, uint64_t number)
{
	const struct chk_cluster *cl = chk_cluster_of(main, number);

	return cl && (number - cl->first) % 2 == 0 ? cl : NULL;
}

/* ---- in place of all the others ---- */

struct chk_inode *relook_find(struct check *c, uint64_t id)
{
	struct chk_online *o = c->online;
	struct inode_disk *d = mem(c, MEM_OTHER);
	struct evidence before = o->ev;
	uint64_t number = inode_id_number(id);
	bool mute = o->mute, there;

	o->mute = true;		/* it has findings of its own */
	there = read_inode(c, number, d);
	o->mute = mute;
	if (there ? !is_inode(d, id) : !cluster_of(o->main, number))
		return NULL;
	/* What is right need not stay so while the rest is looked at. */
	o->ev.crc = before.crc;
	o->ev.count = before.count;
	/* Of type 0 if its block is damaged: nothing is known of it then. */
	memset(&o->inode, 0, sizeof(o->inode));
	if (there) {
		o->inode.generation = le32_to_cpu(d->generation) & INODE_GENERATION_MASK;
		o->inode.type = IFTODT(le32_to_cpu(d->mode)) & 15;
		o->inode.flags = le32_to_cpu(d->flags) & INODE_CHILDREN ? CHK_CHILDREN : 0;
	}
	return &o->inode;
}

struct chk_layer *relook_layer_find(struct check *c, uint64_t id)
{
	struct chk_online *o = c->online;
	struct inode_disk *d = mem(c, MEM_OTHER);
	struct chk_layer *l = &o->layers[o->layer_next++ % ARRAY_SIZE(o->layers)];
	bool mute = o->mute, there;

	o->mute = true;
	there = read_inode(c, inode_id_number(id), d) && is_inode(d, id) &&
		chk_layer_of(inode_id_number(id), d, l);
	o->mute = mute;
	return there ? l : NULL;
}

/* ---- an inode ---- */

/* One block of the index: *@next and, if it has @number's cluster, what it says.  Return: -1 damaged,
 * 0 it has not, 1 it says free, 2 in use. */
static int index_block_says(struct check *c, const struct chk_cluster *cl, uint64_t number,
			    uint64_t pointer, uint64_t *next)
{
	struct meta_expect e = { META_ITABLE, c->s->volume, bptr_addr(pointer), cl->ag,
				 bptr_birth(pointer) };
	const struct itable_disk *d = mem(c, MEM_OTHER);
	uint64_t start = super_ag_addr(c->s, cl->ag) >> BLOCK_SHIFT;

	if (!chk_space_ok(c, e.addr >> BLOCK_SHIFT, 1) || chk_read(c, e.addr, mem(c, MEM_OTHER), 1) ||
	    meta_verify(d, &e, NULL, 0))
		return -1;
	*next = le64_to_cpu(d->next);
	for (uint32_t k = 0; k < le32_to_cpu(d->count) && k < ITABLE_ENTRIES; k++)
		if (start + le32_to_cpu(d->entries[k].block) == cl->first)
			return 1 + (le16_to_cpu(d->entries[k].used) >> (number - cl->first) / 2 & 1);
	return 0;
}

/* Whether the index says now that inode @number is in use; *@known: it can be read. */
static bool index_says(struct check *c, const struct chk_cluster *cl, uint64_t number, bool *known)
{
	uint64_t addr = super_ag_addr(c->s, cl->ag) + AG_HEADER_BLOCK * BLOCK_SIZE, next = 0;
	struct meta_expect e = { META_AG, c->s->volume, addr, cl->ag, 0 };
	const struct ag_disk *h = mem(c, MEM_OTHER);
	int says = 0;

	if (!chk_read(c, addr, mem(c, MEM_OTHER), 1) && !meta_verify(h, &e, NULL, 0))
		next = le64_to_cpu(h->itable);
	for (uint32_t left = super_ag_blocks(c->s, cl->ag) / CLUSTER_BLOCKS + 16;
	     next && !says && left; left--)
		says = index_block_says(c, cl, number, next, &next);
	*known = says > 0;
	return says == 2;
}

/* @number as a cluster of its own: what is remembered of it is found by that. */
static struct chk_cluster *alone(struct check *c, uint64_t number, uint32_t ag, bool used)
{
	struct chk_cluster *cl;

	c->inode_count = c->cluster_count = 0;
	cl = fix_append(c, (void **)&c->clusters, &c->cluster_count, &c->cluster_room, sizeof(*cl));
	if (cl)
		*cl = (struct chk_cluster){ .first = number, .count = 1, .used = used,
					    .ag = (uint16_t)ag };
	c->looking = cl;
	return cl;
}

static void look_at_member(struct check *c, uint64_t number, uint32_t ag, bool used,
			   struct inode_disk *d)
{
	struct chk_cluster *cl = alone(c, number, ag, used);

	if (!cl)
		return;
	chk_member(c, cl, 0, d);
	if (c->inode_count && c->inodes[0].type == DT_DIR)
		chk_directories(c);
}

static void look_at_inode(struct check *c, uint64_t number)
{
	struct chk_online *o = c->online;
	struct inode_disk *d = mem(c, MEM_INODE);
	uint64_t addr = inode_block_addr(number);
	struct meta_expect e = { META_INODE, c->s->volume, addr, number, 0 };
	const struct chk_cluster *in = cluster_of(o->main, number);
	bool known, used = true, says;

	if (!in || chk_read(c, addr, d, 1))
		return;
	if (!meta_verify(d, &e, NULL, 0)) {
		o->id = inode_id_make(number, le32_to_cpu(d->generation));
		used = le32_to_cpu(d->mode) != 0;
	}
	if (online_suspects(c, CHECK_INODE_MASK)) {
		says = index_says(c, in, number, &known);
		if (known)
			used = says;
	}
	look_at_member(c, number, in->ag, used, d);
}

/* ---- its names ---- */

/* 1: the entries have @name for @id; 0: not. */
static int find_entry(const uint8_t *bytes, uint32_t used, const uint8_t *name, uint32_t len,
		      uint64_t id)
{
	uint32_t off = 0;

	while (off < used && used - off >= sizeof(struct dir_entry_disk)) {
		const struct dir_entry_disk *e = (const void *)(bytes + off);

		if (!e->name_len || used - off < sizeof(*e) + e->name_len)
			break;
		if (e->name_len == len && !memcmp(bytes + off + sizeof(*e), name, len))
			return le64_to_cpu(e->id) == id;
		off += (uint32_t)sizeof(*e) + e->name_len;
	}
	return 0;
}

/* 1: directory @dir has @name, for @id; 0: it has not; -1: that cannot be said. */
static int has_name(struct check *c, uint64_t dir, const uint8_t *name, uint32_t len, uint64_t id)
{
	const struct inode_disk *d = mem(c, MEM_DIR);
	const struct dir_node_disk *node = mem(c, MEM_NODE);
	const struct dir_leaf_disk *leaf = mem(c, MEM_NODE);
	uint64_t hash = siphash24(c->s->hash_key, name, len) & (HASH_END - 1);
	const struct dir_index_disk *entries = (const void *)d->root;
	uint32_t depth, count, i;

	if (!read_inode(c, inode_id_number(dir), mem(c, MEM_DIR)))
		return cluster_of(c->online->main, inode_id_number(dir)) ? -1 : 0;
	if (!is_inode(d, dir) || !S_ISDIR(le32_to_cpu(d->mode)))
		return 0;
	depth = le32_to_cpu(d->depth);
	count = le32_to_cpu(d->root_count);
	if (le32_to_cpu(d->flags) & INODE_INLINE)
		return count <= INLINE_SIZE ? find_entry(d->root, count, name, len, id) : -1;
	if (depth < 1 || depth > DEPTH_MAX || count > INLINE_ENTRIES)
		return -1;
	while (depth--) {
		struct meta_expect e = { depth ? META_DIR_NODE : META_DIR_LEAF, c->s->volume, 0,
					 inode_id_make(inode_id_number(dir),
						       le32_to_cpu(d->generation)), 0 };

		for (i = 0; i + 1 < count && le64_to_cpu(entries[i + 1].hash) <= hash; i++)
			;
		if (!count)
			return -1;
		e.addr = bptr_addr(le64_to_cpu(entries[i].pointer));
		e.birth = bptr_birth(le64_to_cpu(entries[i].pointer));
		if (!chk_space_ok(c, e.addr >> BLOCK_SHIFT, 1) ||
		    chk_read(c, e.addr, mem(c, MEM_NODE), 1) || meta_verify(node, &e, NULL, 0))
			return -1;
		entries = node->entries;
		count = depth ? le32_to_cpu(node->count) : 0;
		if (count > DIR_NODE_ENTRIES)
			return -1;
	}
	if (le32_to_cpu(leaf->used) > DIR_LEAF_BYTES)
		return -1;
	return find_entry(leaf->entries, le32_to_cpu(leaf->used), name, len, id);
}

/* Whether any orphan list has @id. */
static bool is_listed(struct check *c, uint64_t id)
{
	for (uint32_t slot = 0; slot < c->s->slot_count; slot++)
		for (uint32_t i = 0; i < c->s->orphan_blocks; i++) {
			uint64_t addr = super_orphan_addr(c->s, slot, i);
			struct meta_expect e = { META_ORPHAN, c->s->volume, addr, slot, 0 };
			const struct orphan_disk *d = mem(c, MEM_OTHER);

			/* One that cannot be believed may have it. */
			if (chk_read(c, addr, mem(c, MEM_OTHER), 1) || meta_verify(d, &e, NULL, 0))
				return true;
			for (uint32_t k = 0; k < ORPHAN_ENTRIES; k++)
				if (le64_to_cpu(d->ids[k]) == id)
					return true;
		}
	return false;
}

/* @d: a directory.  Its link count, by its own entries. */
static void look_at_subdirs(struct check *c, uint64_t number, const struct inode_disk *d)
{
	struct chk_online *o = c->online;
	uint64_t addr = inode_block_addr(number);
	uint32_t nlink = le32_to_cpu(d->nlink), ag;

	if (super_ag_of(c->s, addr, &ag))
		return;
	o->mute = true;
	look_at_member(c, number, ag, true, mem(c, MEM_INODE));
	o->mute = false;
	if (c->inode_count && nlink != 2u + c->inodes[0].subdirs)
		chk_report(c, CHECK_INODE_LINKS, addr,
			   "inode %llu: link count: expected %u, found %u",
			   (unsigned long long)number, 2u + c->inodes[0].subdirs, nlink);
}

/* Its one name is where it says, or it has not got it. */
static void look_at_name(struct check *c, uint64_t number, const struct inode_disk *d)
{
	uint64_t addr = inode_block_addr(number), parent = le64_to_cpu(d->parent);
	uint32_t nlink = le32_to_cpu(d->nlink), len = le16_to_cpu(d->name_len);
	bool is_dir = S_ISDIR(le32_to_cpu(d->mode));
	int found = has_name(c, parent, d->name, len, c->online->id);

	if (found < 0)
		return;
	if (!found && online_suspects(c, CHECK_INODE_NO_NAME) &&
	    !(le32_to_cpu(d->flags) & INODE_ORPHAN))
		chk_report(c, CHECK_INODE_NO_NAME, addr, "inode %llu: link count %u, no name found",
			   (unsigned long long)number, nlink);
	else if (!found && online_suspects(c, CHECK_INODE_NAME_BACK) && (is_dir || nlink == 1))
		chk_report(c, CHECK_INODE_NAME_BACK, addr,
			   "inode %llu: states directory inode %llu, which does not have it under the "
			   "name that it states", (unsigned long long)number,
			   (unsigned long long)inode_id_number(parent));
	if (found && !is_dir && nlink > 1 && online_suspects(c, CHECK_INODE_NAME_BACK))
		chk_report(c, CHECK_INODE_NAME_BACK, addr,
			   "inode %llu: link count %u, and is not marked to have other names than "
			   "the one that it states", (unsigned long long)number, nlink);
	else if (found && !is_dir && nlink != 1)
		chk_report(c, CHECK_INODE_LINKS, addr,
			   "inode %llu: link count: expected 1, found %u",
			   (unsigned long long)number, nlink);
}

static void look_at_links(struct check *c, uint64_t number)
{
	struct inode_disk *d = mem(c, MEM_INODE);
	uint32_t flags;

	if (!read_inode(c, number, d) || !le32_to_cpu(d->mode))
		return;
	c->online->id = inode_id_make(number, le32_to_cpu(d->generation));
	flags = le32_to_cpu(d->flags);
	if (flags & INODE_CHILDREN)
		return;
	if (flags & INODE_ORPHAN && online_suspects(c, CHECK_ORPHAN_LOST) &&
	    !is_listed(c, c->online->id))
		chk_report(c, CHECK_ORPHAN_LOST, inode_block_addr(number), "inode %llu",
			   (unsigned long long)number);
	/* How many names one with several has, only all directories together tell. */
	if (number != inode_id_number(c->s->root) && !(flags & INODE_LINKED))
		look_at_name(c, number, d);
	if (S_ISDIR(le32_to_cpu(d->mode)) && online_suspects(c, CHECK_INODE_LINKS) &&
	    !(flags & INODE_ORPHAN))
		look_at_subdirs(c, number, d);
}

/* ---- images ---- */

static void look_at_layer(struct check *c, uint64_t number)
{
	struct inode_disk *d = mem(c, MEM_INODE);
	char name[IMAGE_LIST_NAME];
	const struct chk_layer *p;
	struct chk_layer l;

	if (!read_inode(c, number, d) || !le32_to_cpu(d->mode) || !chk_layer_of(number, d, &l))
		return;
	c->online->id = l.id;
	p = !l.is_list && l.parent ? relook_layer_find(c, l.parent) : NULL;
	image_list_name(l.id, name);
	l.listed = !p || has_name(c, p->children, (const uint8_t *)name, (uint32_t)strlen(name),
				  l.id) != 0;
	chk_layer(c, &l);
}

/* ---- a group ---- */

static void look_at_group(struct check *c, uint32_t ag)
{
	struct chk_online *o = c->online;
	struct chk_group *g = &c->groups[ag];

	c->cluster_count = 0;
	o->bitmap_lost = false;
	chk_group(c, ag, mem(c, MEM_INODE), mem(c, MEM_DIR));
	g->inodes_used = g->inodes_free = 0;
	for (size_t k = 0; k < c->cluster_count; k++) {
		uint32_t used = (uint32_t)__builtin_popcount(c->clusters[k].used);

		g->inodes_used += used;
		g->inodes_free += c->clusters[k].count - used;
	}
	/* Entries that cannot be believed are missing in the sum. */
	if (!o->found_count)
		chk_counts(c, ag);
	chk_group_space(c, ag);
}

/* ---- a block that two have, or that is free ---- */

static void look_at_bit(struct check *c, uint64_t block)
{
	uint64_t addr = block << BLOCK_SHIFT, start;
	const struct ag_disk *h = mem(c, MEM_INODE);
	const struct bitmap_disk *b = mem(c, MEM_DIR);
	struct meta_expect e = { META_AG, c->s->volume, 0, 0, 0 };
	uint32_t ag, rel, index;
	bool ready;

	if (super_ag_of(c->s, addr, &ag))
		return;
	start = super_ag_addr(c->s, ag);
	rel = (uint32_t)((addr - start) >> BLOCK_SHIFT);
	index = rel / BITMAP_BITS;
	e.addr = start + AG_HEADER_BLOCK * BLOCK_SIZE;
	e.owner = ag;
	if (chk_read(c, e.addr, mem(c, MEM_INODE), 1) || meta_verify(h, &e, NULL, 0))
		return;
	ready = h->bitmap_ready[index / 8] & 1u << index % 8;
	e.type = META_BITMAP;
	e.addr = start + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	if (ready && (chk_read(c, e.addr, mem(c, MEM_DIR), 1) || meta_verify(b, &e, NULL, 0)))
		return;
	if (!ready || !(b->bits[rel % BITMAP_BITS / 8] & 1u << rel % 8))
		chk_report(c, ready ? CHECK_BITMAP_FREE : CHECK_BITMAP_NOT_READY, addr,
			   "group %u, bitmap block %u: %s refers to it: expected in use, found free",
			   ag, index, c->online->target_who);
}

static void look_at_owner(struct check *c, uint64_t owner)
{
	c->cluster_count = 0;
	if (!(owner & SUBJECT_GROUP))
		look_at_inode(c, owner);
	else if ((owner & ~SUBJECT_GROUP) < c->s->ag_count)
		chk_group(c, (uint32_t)(owner & ~SUBJECT_GROUP), mem(c, MEM_INODE), mem(c, MEM_DIR));
}

static void look_at_block(struct check *c, uint64_t block)
{
	struct chk_online *o = c->online;

	o->target = block;
	o->hits = 0;
	o->mute = true;
	for (size_t i = 0; i < o->of_count; i++)
		if (!i || o->of[i].owner != o->of[i - 1].owner)
			look_at_owner(c, o->of[i].owner);
	o->mute = false;
	o->target = 0;
	if (o->hits > 1)
		chk_report(c, CHECK_BLOCK_TWICE, block << BLOCK_SHIFT,
			   "%s refers to it, and so does something before", o->target_who);
	else if (o->hits)
		look_at_bit(c, block);
	o->hits = 0;
}

/* ---- what needs no more than itself ---- */

static void look_at_lock(struct check *c, uint64_t addr)
{
	uint32_t ag = 0;
	char who[64];

	if (addr == c->s->lock_addr)
		snprintf(who, sizeof(who), "superblock");
	else if (!super_ag_of(c->s, addr, &ag) && addr == super_ag_addr(c->s, ag))
		snprintf(who, sizeof(who), "group %u", ag);
	else
		snprintf(who, sizeof(who), "inode %llu", (unsigned long long)(addr >> BLOCK_SHIFT));
	if (!chk_read(c, addr, mem(c, MEM_INODE), 1))
		chk_lock(c, mem(c, MEM_INODE), addr, who);
}

static void look_at_journal(struct check *c, uint32_t slot)
{
	char why[300] = "";
	int err;

	/* Its host has left, or was recovered: nobody writes to it. */
	if (!chk_slot(c, slot) || c->slots[slot].state != SLOT_FREE)
		return;
	err = journal_scan(c->p->env, c->dev, c->s, slot, NULL, NULL, NULL, why, sizeof(why));
	if (err == -EUCLEAN || err == -EBADMSG)
		chk_report(c, CHECK_JOURNAL_DAMAGED, super_journal_addr(c->s, slot),
			   "journal of slot %u: %s", slot, why);
}

static void look_at_orphans(struct check *c, uint64_t addr)
{
	uint64_t i = (addr - c->s->orphans_addr) / BLOCK_SIZE;

	if (addr >= c->s->orphans_addr && i < (uint64_t)c->s->slot_count * c->s->orphan_blocks)
		chk_orphan_block(c, (uint32_t)(i / c->s->orphan_blocks),
				 (uint32_t)(i % c->s->orphan_blocks));
}

static void look_at_place(struct check *c, const struct suspicion *s)
{
	for (uint32_t i = 0; i < (s->blocks ? s->blocks : 1u); i++)
		chk_read(c, s->addr + (uint64_t)i * BLOCK_SIZE, mem(c, MEM_INODE), 1);
}

void relook(struct check *c)
{
	const struct suspicion *s = c->online->what;

	switch ((enum online_kind)s->kind) {
	case ON_SUPER:
		chk_supers(c);
		break;
	case ON_SLOT:
		chk_slot(c, (uint32_t)s->key);
		break;
	case ON_JOURNAL:
		look_at_journal(c, (uint32_t)s->key);
		break;
	case ON_LOCK:
		look_at_lock(c, s->key);
		break;
	case ON_ORPHANS:
		look_at_orphans(c, s->key);
		break;
	case ON_GROUP:
		look_at_group(c, (uint32_t)s->key);
		break;
	case ON_INODE:
		look_at_inode(c, s->key);
		break;
	case ON_LINKS:
		look_at_links(c, s->key);
		break;
	case ON_LAYER:
		look_at_layer(c, s->key);
		break;
	case ON_READ:
		look_at_place(c, s);
		break;
	case ON_BLOCK:
		look_at_block(c, s->key);
		break;
	case ON_NOTHING:
		break;
	}
}
