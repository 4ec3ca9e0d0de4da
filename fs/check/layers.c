/* SPDX-License-Identifier: Apache-2.0 */
/* Images on top of images: parents, lists of children, and that both say the same. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"
#include "fs/image_list.h"

bool chk_layer_of(uint64_t number, const struct inode_disk *d, struct chk_layer *l)
{
	uint32_t flags = le32_to_cpu(d->flags);

	if (!le64_to_cpu(d->image_parent) && !(flags & (INODE_FROZEN | INODE_CHILDREN)))
		return false;
	*l = (struct chk_layer){
		.id = inode_id_make(number, le32_to_cpu(d->generation)),
		.parent = flags & INODE_CHILDREN ? le64_to_cpu(d->parent) :
			  le64_to_cpu(d->image_parent),
		.children = le64_to_cpu(d->image_children),
		.limit = le64_to_cpu(d->image_limit), .size = le64_to_cpu(d->size),
		.rank = le32_to_cpu(d->image_rank), .nlink = le32_to_cpu(d->nlink),
		.is_list = flags & INODE_CHILDREN, .frozen = flags & INODE_FROZEN,
	};
	return true;
}

void chk_layer_add(struct check *c, uint64_t number, const struct inode_disk *d)
{
	struct chk_layer layer;

	if (!chk_layer_of(number, d, &layer))
		return;
	if (c->layer_count == c->layer_room) {
		size_t room = c->layer_room ? 2 * c->layer_room : 64;
		struct chk_layer *bigger = realloc(c->layers, room * sizeof(*bigger));

		if (!bigger) {
			c->no_memory = true;
			return;
		}
		c->layers = bigger;
		c->layer_room = room;
	}
	c->layers[c->layer_count++] = layer;
}

static int by_id(const void *a, const void *b)
{
	const struct chk_layer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static void sort_layers(struct check *c)
{
	if (c->layer_count)
		qsort(c->layers, c->layer_count, sizeof(*c->layers), by_id);
}

/*
 * Directory @ino is a list of children, or is not, and no orphan.  In memory in any case: what the
 * names in it are worth depends on it.  @d becomes it.
 */
static void mark_list(struct check *c, struct chk_inode *ino, bool is_list, bool fix,
		      struct inode_disk *d)
{
	uint64_t number = chk_number(c, ino);
	struct meta_expect e = {META_INODE, c->s->volume, inode_block_addr(number), number, 0};
	uint32_t clear = INODE_CHILDREN | INODE_ORPHAN;

	ino->flags = (uint16_t)((ino->flags & ~(CHK_ORPHAN | CHK_CHILDREN)) |
				(is_list ? CHK_CHILDREN : 0));
	if (chk_read(c, e.addr, d, 1) || meta_verify(d, &e, NULL, 0))
		return;
	d->flags = cpu_to_le32((le32_to_cpu(d->flags) & ~clear) | (is_list ? INODE_CHILDREN : 0));
	if (fix)
		fix_inode(c, d, number);
}

/* Whether it states @parent, and no name there. */
static bool has_no_name(const struct check *c, const struct chk_inode *ino, uint64_t parent)
{
	return chk_leads_back(ino, parent, siphash24(c->s->hash_key, "", 0));
}

/* Image @l says that a directory is its list, and that says so too, but for the mark. */
static void find_list(struct check *c, const struct chk_layer *l)
{
	uint64_t list = l->children, image = l->id, addr = inode_block_addr(list);
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED = { 0 };
	struct chk_inode *ino = chk_find(c, list);
	bool fix;

	if (!ino || ino->type != DT_DIR || ino->flags & CHK_CHILDREN || !has_no_name(c, ino, image))
		return;
	fix = chk_report(c, CHECK_IMAGE_NO_LIST, addr,
			 "inode %llu: list inode %llu is not marked as that",
			 (unsigned long long)inode_id_number(image),
			 (unsigned long long)inode_id_number(list));
	mark_list(c, ino, true, fix, (void *)block);
	c->r->directories--;
	chk_layer_add(c, inode_id_number(list), (void *)block);
}

/* List @l is the root, or states a name in a directory, as no list does: it is one like others. */
static void find_directory(struct check *c, struct chk_layer *l)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct chk_inode *ino = chk_find(c, l->id);
	const struct chk_inode *up = chk_find(c, l->parent);
	bool fix;

	if (!ino ||
	    (l->id != c->s->root && (!up || up->type != DT_DIR || has_no_name(c, ino, l->parent))))
		return;
	fix = chk_report(c, CHECK_CHILDREN_LOST, inode_block_addr(l->id),
			 "inode %llu: is marked as a list of children, and belongs to inode %llu",
			 (unsigned long long)inode_id_number(l->id),
			 (unsigned long long)inode_id_number(l->parent));
	mark_list(c, ino, false, fix, (void *)block);
	c->r->directories++;
	*l = (struct chk_layer){ .id = l->id };
}

/* Which directories are lists of children their marks say, and whom they belong to: that is right. */
static void settle_marks(struct check *c)
{
	size_t count = c->layer_count;

	for (size_t i = 0; i < count && !c->no_memory; i++) {
		if (c->layers[i].is_list)
			find_directory(c, &c->layers[i]);
		else if (c->layers[i].frozen)
			find_list(c, &c->layers[i]);
	}
}

void chk_layers_sort(struct check *c)
{
	sort_layers(c);
	if (c->online)
		return;
	settle_marks(c);
	sort_layers(c);
}

struct chk_layer *chk_layer_find(struct check *c, uint64_t id)
{
	struct chk_layer key = { .id = id };

	if (c->online && c->online->relook)
		return relook_layer_find(c, id);

	if (!c->layer_count)
		return NULL;
	return bsearch(&key, c->layers, c->layer_count, sizeof(*c->layers), by_id);
}

bool chk_layer_child(struct check *c, uint64_t list, uint64_t child, const char *name,
		     uint64_t addr)
{
	struct chk_layer *l = chk_layer_find(c, list), *x = chk_layer_find(c, child);
	char right[IMAGE_LIST_NAME];

	image_list_name(child, right);
	if (l && x && !x->is_list && x->parent == l->parent && !strcmp(name, right)) {
		x->listed = true;
		return false;
	}
	return chk_report(c, CHECK_CHILDREN_ENTRY, addr,
			  "list of children inode %llu, \"%s\": inode %llu is no such child of "
			  "inode %llu", (unsigned long long)inode_id_number(list), name,
			  (unsigned long long)inode_id_number(child),
			  (unsigned long long)(l ? inode_id_number(l->parent) : 0));
}

/* ---- what only all together tell ---- */

/* The list of children of image @id, by what the list says; 0: there is none. */
static uint64_t list_of(const struct check *c, uint64_t id)
{
	for (size_t i = 0; i < c->layer_count; i++)
		if (c->layers[i].is_list && c->layers[i].parent == id)
			return c->layers[i].id;
	return 0;
}

/* @id becomes an image that others may stand on: frozen, with a list of its children. */
static void fix_frozen(struct check *c, uint64_t id)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	uint64_t list = list_of(c, id);

	if (!list)
		list = fix_inode_new(c, S_IFDIR | 0700, INODE_INLINE | INODE_CHILDREN, id, "");
	if (!list || fix_read_inode(c, inode_id_number(id), d))
		return;
	d->flags = cpu_to_le32((le32_to_cpu(d->flags) | INODE_FROZEN) & ~(uint32_t)INODE_MULTI);
	d->image_children = cpu_to_le64(list);
	fix_inode(c, d, inode_id_number(id));
}

/* The list at last knows its image, or is nobody's. */
static void fix_list(struct check *c, const struct chk_layer *l, const struct chk_layer *owner)
{
	const struct chk_layer *other = owner ? chk_layer_find(c, owner->children) : NULL;
	const struct chk_inode *ino = chk_find(c, l->parent);

	if (owner && owner->frozen && !(other && other->is_list && other->parent == owner->id))
		fix_frozen(c, owner->id);
	else if (owner || !ino || ino->type != DT_REG)
		fix_free(c, inode_id_number(l->id));
	else
		/* Its image is not frozen.  If somebody stands on it, it will be. */
		for (size_t i = 0; i <= c->layer_count; i++)
			if (i == c->layer_count)
				fix_free(c, inode_id_number(l->id));
			else if (!c->layers[i].is_list && c->layers[i].parent == l->parent)
				break;
}

static void check_list(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *owner = chk_layer_find(c, l->parent);
	uint64_t addr = inode_block_addr(l->id), number = inode_id_number(l->id);
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	if (l->nlink != 2 &&
	    chk_report(c, CHECK_INODE_LINKS, addr, "inode %llu: link count: expected 2, found %u",
		       (unsigned long long)number, l->nlink) && !fix_read_inode(c, number, d)) {
		d->nlink = cpu_to_le32(2);
		fix_inode(c, d, number);
	}
	if ((!owner || owner->children != l->id) &&
	    chk_report(c, CHECK_CHILDREN_LOST, addr, "inode %llu: belongs to inode %llu, which "
		       "does not know it", (unsigned long long)number,
		       (unsigned long long)inode_id_number(l->parent)))
		fix_list(c, l, owner);
}

/* What @l says of its parent becomes this; @parent 0: nothing shows through it any more. */
static void fix_stands(struct check *c, const struct chk_layer *l, uint64_t parent, uint32_t rank,
		       uint64_t limit)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	if (fix_read_inode(c, inode_id_number(l->id), d))
		return;
	d->image_parent = cpu_to_le64(parent);
	d->image_rank = cpu_to_le32(rank);
	d->image_limit = cpu_to_le64(limit);
	fix_inode(c, d, inode_id_number(l->id));
}

static bool is_own_ancestor(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *p = l;

	for (size_t i = 0; p && i <= c->layer_count; i++) {
		p = p->parent ? chk_layer_find(c, p->parent) : NULL;
		if (p == l)
			return true;
	}
	return p != NULL;
}

static void check_no_parent(struct check *c, const struct chk_layer *l, const struct chk_layer *p)
{
	uint64_t addr = inode_block_addr(l->id);
	const struct chk_inode *ino = chk_find(c, l->parent);
	char who[64];

	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)inode_id_number(l->id));
	if ((!ino && fix_reference(c, l->parent, addr, who)) ||
	    !chk_report(c, CHECK_IMAGE_PARENT, addr, "%s: parent image inode %llu is %s", who,
			(unsigned long long)inode_id_number(l->parent),
			p || ino ? "not frozen" : "not there"))
		return;
	if (ino && ino->type == DT_REG && l->parent != l->id)
		fix_frozen(c, l->parent);
	else if (!ino || ino->type)
		fix_stands(c, l, 0, 0, 0);
}

static void check_parent(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *p = chk_layer_find(c, l->parent);
	uint64_t addr = inode_block_addr(l->id), most;
	unsigned long long number = inode_id_number(l->id), parent = inode_id_number(l->parent);
	struct chk_inode *list;

	if (!p || !p->frozen) {
		check_no_parent(c, l, p);
		return;
	}
	if (l->rank <= p->rank &&
	    chk_report(c, CHECK_IMAGE_RANK, addr, "inode %llu: rank %u, parent image inode %llu "
		       "has %u", number, l->rank, parent, p->rank)) {
		if (is_own_ancestor(c, l) || p->rank == UINT32_MAX)
			fix_stands(c, l, 0, 0, 0);
		else
			fix_stands(c, l, l->parent, p->rank + 1, l->limit);
		return;
	}
	most = ALIGN_UP(p->size, (uint64_t)BLOCK_SIZE);
	if (l->limit > most &&
	    chk_report(c, CHECK_IMAGE_LIMIT, addr, "inode %llu: shows %llu bytes of its parent "
		       "image, which has %llu", number, (unsigned long long)l->limit,
		       (unsigned long long)p->size))
		fix_stands(c, l, l->parent, l->rank, most);
	if (!l->listed && chk_report(c, CHECK_IMAGE_UNLISTED, addr,
				     "inode %llu: parent image inode %llu", number, parent)) {
		list = chk_find(c, p->children);
		if (list && list->flags & CHK_CHILDREN)
			list->flags |= CHK_REBUILD;
	}
}

static void check_no_list(struct check *c, const struct chk_layer *l)
{
	uint64_t addr = inode_block_addr(l->id);
	char who[64];

	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)inode_id_number(l->id));
	if (!chk_find(c, l->children) && fix_reference(c, l->children, addr, who))
		return;
	if (chk_report(c, CHECK_IMAGE_NO_LIST, addr, "%s: list inode %llu", who,
		       (unsigned long long)inode_id_number(l->children)))
		fix_frozen(c, l->id);
}

void chk_layer(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *list;

	c->subject = inode_id_number(l->id);
	if (l->is_list) {
		check_list(c, l);
		return;
	}
	if (l->parent)
		check_parent(c, l);
	list = l->frozen ? chk_layer_find(c, l->children) : NULL;
	if (l->frozen && (!list || !list->is_list || list->parent != l->id))
		check_no_list(c, l);
}

void chk_layers(struct check *c)
{
	for (size_t i = 0; i < c->layer_count; i++)
		chk_layer(c, &c->layers[i]);
}
