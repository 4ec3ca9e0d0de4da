/* SPDX-License-Identifier: Apache-2.0 */
/* Images on top of images: parents, lists of children, and that both say the same. */
#include <dirent.h>
#include <stdlib.h>

#include "fs/check/internal.h"
#include "fs/image_list.h"

void chk_layer_add(struct check *c, uint64_t number, const struct inode_disk *d)
{
	uint32_t flags = le32_to_cpu(d->flags);
	struct chk_layer *l;

	if (!le64_to_cpu(d->image_parent) && !(flags & (INODE_FROZEN | INODE_CHILDREN)))
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
	l = &c->layers[c->layer_count++];
	*l = (struct chk_layer){
		.id = inode_id_make(number, le32_to_cpu(d->generation)),
		.parent = flags & INODE_CHILDREN ? le64_to_cpu(d->parent) :
			  le64_to_cpu(d->image_parent),
		.children = le64_to_cpu(d->image_children),
		.limit = le64_to_cpu(d->image_limit), .size = le64_to_cpu(d->size),
		.rank = le32_to_cpu(d->image_rank), .nlink = le32_to_cpu(d->nlink),
		.is_list = flags & INODE_CHILDREN, .frozen = flags & INODE_FROZEN,
	};
}

static int by_id(const void *a, const void *b)
{
	const struct chk_layer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

void chk_layers_sort(struct check *c)
{
	if (c->layer_count)
		qsort(c->layers, c->layer_count, sizeof(*c->layers), by_id);
}

static struct chk_layer *layer_find(struct check *c, uint64_t id)
{
	struct chk_layer key = { .id = id };

	if (!c->layer_count)
		return NULL;
	return bsearch(&key, c->layers, c->layer_count, sizeof(*c->layers), by_id);
}

void chk_layer_child(struct check *c, uint64_t list, uint64_t child, const char *name,
		     uint64_t addr)
{
	struct chk_layer *l = layer_find(c, list), *x = layer_find(c, child);
	char right[IMAGE_LIST_NAME];

	image_list_name(child, right);
	if (l && x && !x->is_list && x->parent == l->parent && !strcmp(name, right)) {
		x->listed = true;
		return;
	}
	chk_report(c, CHECK_CHILDREN_ENTRY, addr,
		   "list of children inode %llu, \"%s\": inode %llu is no such child of inode %llu",
		   (unsigned long long)inode_id_number(list), name,
		   (unsigned long long)inode_id_number(child),
		   (unsigned long long)(l ? inode_id_number(l->parent) : 0));
}

/* ---- what only all together tell ---- */

static void check_list(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *owner = layer_find(c, l->parent);
	uint64_t addr = inode_block_addr(l->id), number = inode_id_number(l->id);

	if (!owner || owner->children != l->id)
		chk_report(c, CHECK_CHILDREN_LOST, addr, "inode %llu: belongs to inode %llu, which "
			   "does not know it", (unsigned long long)number,
			   (unsigned long long)inode_id_number(l->parent));
	if (l->nlink != 2)
		chk_report(c, CHECK_INODE_LINKS, addr,
			   "inode %llu: link count: expected 2, found %u",
			   (unsigned long long)number, l->nlink);
}

static void check_parent(struct check *c, const struct chk_layer *l)
{
	const struct chk_layer *p = layer_find(c, l->parent);
	uint64_t addr = inode_block_addr(l->id);
	unsigned long long number = inode_id_number(l->id), parent = inode_id_number(l->parent);

	if (!p || !p->frozen) {
		chk_report(c, CHECK_IMAGE_PARENT, addr, "inode %llu: parent image inode %llu is %s",
			   number, parent, p ? "not frozen" : "not there");
		return;
	}
	if (l->rank <= p->rank)
		chk_report(c, CHECK_IMAGE_RANK, addr, "inode %llu: rank %u, parent image inode "
			   "%llu has %u", number, l->rank, parent, p->rank);
	if (l->limit > ALIGN_UP(p->size, (uint64_t)BLOCK_SIZE))
		chk_report(c, CHECK_IMAGE_LIMIT, addr, "inode %llu: shows %llu bytes of its parent "
			   "image, which has %llu", number, (unsigned long long)l->limit,
			   (unsigned long long)p->size);
	if (!l->listed)
		chk_report(c, CHECK_IMAGE_UNLISTED, addr, "inode %llu: parent image inode %llu",
			   number, parent);
}

void chk_layers(struct check *c)
{
	for (size_t i = 0; i < c->layer_count; i++) {
		const struct chk_layer *l = &c->layers[i], *list;

		if (l->is_list) {
			check_list(c, l);
			continue;
		}
		if (l->parent)
			check_parent(c, l);
		list = l->frozen ? layer_find(c, l->children) : NULL;
		if (l->frozen && (!list || !list->is_list || list->parent != l->id))
			chk_report(c, CHECK_IMAGE_NO_LIST, inode_block_addr(l->id),
				   "inode %llu: list inode %llu",
				   (unsigned long long)inode_id_number(l->id),
				   (unsigned long long)inode_id_number(l->children));
	}
}
