/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories written anew from the entries that can be told, and names for what has none.
 *
 * The new tree lies in free blocks until the one write of its inode that refers to it; the old
 * one's blocks are nobody's then, which the next round sees.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/check/fix.h"
#include "fs/image_list.h"

#define HASH_MASK	((1ULL << 63) - 1)
#define ENTRY_BYTES_MAX	(sizeof(struct dir_entry_disk) + NAME_BYTES_MAX)
#define LEAF_FILL	(DIR_LEAF_BYTES * 7 / 8)	/* leaves room for names to come */
#define NODE_FILL	(DIR_NODE_ENTRIES * 7 / 8)

/* ---- every entry that can be told ---- */

struct each {
	struct check *c;
	uint64_t id;
	uint8_t	*levels;	/* DEPTH_MAX + 1 blocks */
	uint64_t left;		/* blocks that may still be read: no loop goes on for ever */
	dir_each_fn fn;
	void	*arg;
};

static int each_entry(struct each *w, const uint8_t *bytes, uint32_t used)
{
	uint32_t off = 0;
	int err = 0;

	while (!err && off < used && used - off >= sizeof(struct dir_entry_disk)) {
		const struct dir_entry_disk *e = (const void *)(bytes + off);

		if (e->name_len == 0 || used - off < sizeof(*e) + e->name_len)
			break;
		err = w->fn(w->arg, e, bytes + off + sizeof(*e));
		off += (uint32_t)sizeof(*e) + e->name_len;
	}
	return err;
}

static int each_child(struct each *w, uint64_t pointer, unsigned int level)
{
	struct meta_expect e = { level ? META_DIR_NODE : META_DIR_LEAF, w->c->s->volume,
				 bptr_addr(pointer), w->id, bptr_birth(pointer) };
	uint8_t *block = w->levels + (size_t)level * BLOCK_SIZE;
	const struct dir_leaf_disk *leaf = (const void *)block;
	const struct dir_node_disk *node = (const void *)block;
	uint32_t used, count;
	int err = 0;

	if (!w->left || !chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1) ||
	    blkdev_read(w->c->dev, e.addr, block, BLOCK_SIZE) || meta_verify(block, &e, NULL, 0))
		return 0;
	w->left--;
	/* The check does not go where a node is wrong; nothing new is written over what is read here. */
	chk_claim_quietly(w->c, e.addr >> BLOCK_SHIFT, 1);
	if (level == 0) {
		used = le32_to_cpu(leaf->used);
		return each_entry(w, leaf->entries, used < DIR_LEAF_BYTES ? used : DIR_LEAF_BYTES);
	}
	count = le32_to_cpu(node->count);
	for (uint32_t i = 0; i < count && i < DIR_NODE_ENTRIES && !err; i++)
		err = each_child(w, le64_to_cpu(node->entries[i].pointer), level - 1);
	return err;
}

int dir_each(struct check *c, const struct inode_disk *d, dir_each_fn fn, void *arg)
{
	uint32_t depth = le32_to_cpu(d->depth), count = le32_to_cpu(d->root_count);
	const struct dir_index_disk *index = (const void *)d->root;
	struct each w = { .c = c, .fn = fn, .arg = arg, .left = 2 * le64_to_cpu(d->blocks) + 64,
			  .id = inode_id_make(le64_to_cpu(d->hdr.owner),
					      le32_to_cpu(d->generation)) };
	int err = 0;

	if (le32_to_cpu(d->flags) & INODE_INLINE)
		return each_entry(&w, d->root, count < INLINE_SIZE ? count : INLINE_SIZE);
	if (depth < 1 || depth > DEPTH_MAX)
		return 0;
	w.levels = blkdev_alloc((DEPTH_MAX + 1) * BLOCK_SIZE);
	if (!w.levels)
		return -ENOMEM;
	for (uint32_t i = 0; i < count && i < INLINE_ENTRIES && !err; i++)
		err = each_child(&w, le64_to_cpu(index[i].pointer), depth - 1);
	free(w.levels);
	return err;
}

/* ---- what a directory is to hold ---- */

struct entry {
	uint64_t hash;
	uint32_t off;		/* in bytes */
	uint32_t len;
};

/*
 * Those entries, of all that the directory is to hold, whose hashes are in a range: a directory of
 * millions of names is written range by range, and read once for each, in bounded memory.
 */
struct entries {
	struct check *c;
	struct chk_inode *dir;
	uint64_t id;
	uint64_t ranges, width;	/* how many of how many hashes */
	uint64_t low, high;	/* [low, high) */
	uint64_t total;		/* bytes of all entries met, whatever their hashes */
	uint64_t most;		/* bytes that are gathered */
	uint8_t	*bytes;		/* packed entries */
	size_t	used, room;
	struct entry *list;
	size_t	count, list_room;
	struct fix_name *names;	/* that inodes get here */
	size_t	name_count;
};

static void add_entry(struct entries *es, uint64_t id, uint8_t type, const uint8_t *name,
		      uint8_t name_len)
{
	struct dir_entry_disk e = { cpu_to_le64(id),
				    cpu_to_le64(siphash24(es->c->s->hash_key, name, name_len) &
						HASH_MASK), type, name_len };
	struct entry *x;

	es->total += sizeof(e) + name_len;
	if (le64_to_cpu(e.hash) < es->low || le64_to_cpu(e.hash) >= es->high ||
	    (es->ranges == 1 && es->total > es->most))
		return;
	if (es->used + ENTRY_BYTES_MAX > es->room) {
		size_t room = es->room ? 2 * es->room : 64 * ENTRY_BYTES_MAX;
		uint8_t *bigger = realloc(es->bytes, room);

		if (!bigger) {
			es->c->no_memory = true;
			return;
		}
		es->bytes = bigger;
		es->room = room;
	}
	x = fix_append(es->c, (void **)&es->list, &es->count, &es->list_room, sizeof(*x));
	if (!x)
		return;
	*x = (struct entry){ le64_to_cpu(e.hash), (uint32_t)es->used,
			     (uint32_t)sizeof(e) + name_len };
	memcpy(es->bytes + es->used, &e, sizeof(e));
	memcpy(es->bytes + es->used + sizeof(e), name, name_len);
	es->used += x->len;
}

static bool leads_back(const struct check *c, const struct chk_inode *ino, uint64_t dir,
		       const uint8_t *name, uint8_t len)
{
	return chk_leads_back(ino, dir, siphash24(c->s->hash_key, name, len));
}

/* An entry is kept if it leads somewhere, under a name that can be. */
static int keep_entry(void *arg, const struct dir_entry_disk *e, const uint8_t *name)
{
	struct entries *es = arg;
	struct chk_inode *ino = chk_find(es->c, le64_to_cpu(e->id));

	if (!ino || !chk_name_ok(name, e->name_len) || ino->flags & CHK_UNLINK)
		return 0;
	if (ino->flags & CHK_ONE_NAME && !leads_back(es->c, ino, es->id, name, e->name_len))
		return 0;
	if (ino->flags & CHK_CHILDREN)
		return 0;
	add_entry(es, inode_id_make(inode_id_number(le64_to_cpu(e->id)),
				    ino->type ? (uint32_t)ino->generation :
				    inode_id_generation(le64_to_cpu(e->id))),
		  ino->type ? ino->type : e->type, name, e->name_len);
	return es->c->no_memory ? -ENOMEM : 0;
}

/* A list of children says what the children say. */
static void keep_children(struct entries *es)
{
	const struct chk_layer *list = chk_layer_find(es->c, es->id);
	char name[IMAGE_LIST_NAME];

	for (size_t i = 0; list && i < es->c->layer_count; i++) {
		const struct chk_layer *l = &es->c->layers[i];

		if (l->is_list || l->parent != list->parent)
			continue;
		image_list_name(l->id, name);
		add_entry(es, l->id, DT_REG, (const uint8_t *)name, (uint8_t)strlen(name));
	}
}

static int compare_entries(const struct entries *es, const struct entry *a, const struct entry *b)
{
	const uint8_t *x = es->bytes + a->off, *y = es->bytes + b->off;
	uint32_t head = sizeof(struct dir_entry_disk);
	int order;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	order = memcmp(x + head, y + head, (a->len < b->len ? a->len : b->len) - head);
	if (order || a->len != b->len)
		return order ? order : a->len < b->len ? -1 : 1;
	return a->off < b->off ? -1 : a->off > b->off;
}

static int by_hash(const void *a, const void *b, void *arg)
{
	return compare_entries(arg, a, b);
}

static bool same_name(const struct entries *es, const struct entry *a, const struct entry *b)
{
	uint32_t head = sizeof(struct dir_entry_disk);

	return a->hash == b->hash && a->len == b->len &&
	       !memcmp(es->bytes + a->off + head, es->bytes + b->off + head, a->len - head);
}

/* Sorted, each name once: the first that was found has it. */
static void sort_entries(struct entries *es)
{
	size_t kept = 0;

	if (!es->count)
		return;
	qsort_r(es->list, es->count, sizeof(*es->list), by_hash, es);
	for (size_t i = 0; i < es->count; i++)
		if (!kept || !same_name(es, &es->list[kept - 1], &es->list[i]))
			es->list[kept++] = es->list[i];
	es->count = kept;
}

/* Whether one of the entries, which are sorted, has this name. */
static bool has_name(const struct entries *es, const uint8_t *name, uint8_t len)
{
	uint64_t hash = siphash24(es->c->s->hash_key, name, len) & HASH_MASK;
	size_t low = 0, high = es->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (es->list[mid].hash < hash)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < es->count && es->list[low].hash == hash; low++)
		if (es->list[low].len == sizeof(struct dir_entry_disk) + len &&
		    !memcmp(es->bytes + es->list[low].off + sizeof(struct dir_entry_disk), name, len))
			return true;
	return false;
}

/* What the directory has already of range @r, sorted. */
static void gather(struct entries *es, const struct inode_disk *d, uint64_t r)
{
	es->low = r * es->width;
	es->high = es->low + es->width;
	es->total = es->used = es->count = 0;
	if (es->dir->flags & CHK_CHILDREN)
		keep_children(es);
	else if (dir_each(es->c, d, keep_entry, es) == -ENOMEM)
		es->c->no_memory = true;
	sort_entries(es);
}

/* Names that inodes get here; one that is taken already gets the inode's number behind it. */
static void mark_taken(struct entries *es)
{
	uint8_t name[NAME_BYTES_MAX], type;

	for (size_t i = 0; i < es->name_count; i++) {
		struct fix_name *n = &es->names[i];
		uint8_t len = n->taken ? 0 : fix_name_text(es->c, n, name, &type);

		if (len && has_name(es, name, len))
			n->taken = true;
	}
}

/* Of two that are the same the first has it; the other one's turn comes in the next round. */
static void add_names(struct entries *es)
{
	uint8_t name[NAME_BYTES_MAX], type;

	for (size_t i = 0; i < es->name_count; i++) {
		uint8_t len = fix_name_text(es->c, &es->names[i], name, &type);

		if (len)
			add_entry(es, es->names[i].id, type, name, len);
	}
	sort_entries(es);
}

static int by_directory(const void *a, const void *b)
{
	const struct fix_name *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	if (inode_id_number(x->id) != inode_id_number(y->id))
		return inode_id_number(x->id) < inode_id_number(y->id) ? -1 : 1;
	return 0;
}

/* The notes, sorted, that are for this directory. */
static void find_names(struct entries *es)
{
	struct fix *f = es->c->fix;
	uint64_t number = inode_id_number(es->id);
	size_t low = 0, high = f->name_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (f->names[mid].dir < number)
			low = mid + 1;
		else
			high = mid;
	}
	es->names = f->names + low;
	while (low + es->name_count < f->name_count && es->names[es->name_count].dir == number)
		es->name_count++;
}

/* Bytes of the entries of the names that inodes get; roughly, if they are not more than @enough. */
static uint64_t bytes_of_names(struct entries *es, uint64_t enough)
{
	uint64_t bytes = es->name_count * ENTRY_BYTES_MAX;
	uint8_t name[NAME_BYTES_MAX], type;

	if (bytes <= enough)
		return bytes;
	bytes = 0;
	for (size_t i = 0; i < es->name_count; i++)
		bytes += sizeof(struct dir_entry_disk) +
			 fix_name_text(es->c, &es->names[i], name, &type);
	return bytes;
}

/* What is there, if it is little; else in how many ranges it is to be gathered. */
static void plan(struct entries *es, const struct inode_disk *d)
{
	uint64_t total;

	es->ranges = 1;
	es->width = HASH_MASK + 1;
	es->most = fix_most(es->c, FIX_ENTRIES_MAX) * FIX_ENTRY_BYTES;
	gather(es, d, 0);
	total = es->total;
	total += bytes_of_names(es, total < es->most ? es->most - total : 0);
	if (total > es->most) {
		es->ranges = total / es->most + 1;
		es->width = (HASH_MASK + 1) / es->ranges + 1;
	}
	for (uint64_t r = 0; es->name_count && r < es->ranges && !es->c->no_memory; r++) {
		if (es->ranges > 1)
			gather(es, d, r);
		mark_taken(es);
	}
}

/* ---- writing it ---- */

struct tree {
	struct entries *es;
	struct inode_disk *d;
	uint64_t blocks, names, bytes;
	struct dir_index_disk *index;	/* of the level that is being written */
	size_t	index_count, index_room;
};

static uint16_t next_birth(struct inode_disk *d)
{
	uint64_t counter = le64_to_cpu(d->birth_counter);

	do
		counter++;
	while (!(counter & 0xffff));
	d->birth_counter = cpu_to_le64(counter);
	return (uint16_t)counter;
}

/* @block, a leaf or node of which the least hash is @hash, is written and pointed to. */
static int put_block(struct tree *t, void *block, enum meta_type type, uint64_t hash)
{
	struct check *c = t->es->c;
	uint16_t birth = next_birth(t->d);
	uint64_t at = fix_alloc(c, 1);
	struct meta_expect e = { type, c->s->volume, at << BLOCK_SHIFT, t->es->id, birth };
	struct dir_index_disk *entry;

	if (!at)
		return -ENOSPC;
	((struct meta_hdr_disk *)block)->version = t->d->hdr.version;
	entry = fix_append(c, (void **)&t->index, &t->index_count, &t->index_room, sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	*entry = (struct dir_index_disk){ cpu_to_le64(hash), cpu_to_le64(BPTR(at, birth)) };
	t->blocks++;
	return fix_seal(c, block, &e);
}

static void count_entries(struct tree *t)
{
	t->names += t->es->count;
	for (size_t i = 0; i < t->es->count; i++)
		t->bytes += t->es->list[i].len;
}

/* Entries of one hash stay together. */
static int write_leaves(struct tree *t)
{
	const struct entries *es = t->es;
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct dir_leaf_disk *leaf = (void *)block;
	size_t i = 0;
	int err = 0;

	count_entries(t);
	while (i < es->count && !err) {
		uint64_t hash = t->index_count ? es->list[i].hash : 0;
		uint32_t used = 0, count = 0;

		memset(block, 0, sizeof(block));
		while (i < es->count && used + es->list[i].len <= DIR_LEAF_BYTES &&
		       (used < LEAF_FILL || es->list[i].hash == es->list[i - 1].hash)) {
			memcpy(leaf->entries + used, es->bytes + es->list[i].off, es->list[i].len);
			used += es->list[i++].len;
			count++;
		}
		leaf->used = cpu_to_le32(used);
		leaf->count = cpu_to_le32(count);
		err = put_block(t, block, META_DIR_LEAF, hash);
	}
	return err;
}

/* One level of nodes above what t->index has. */
static int write_nodes(struct tree *t, uint32_t level)
{
	struct dir_index_disk *below = t->index;
	size_t count = t->index_count;
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct dir_node_disk *node = (void *)block;
	int err = 0;

	t->index = NULL;
	t->index_count = t->index_room = 0;
	for (size_t i = 0; i < count && !err;) {
		size_t n = count - i < NODE_FILL ? count - i : NODE_FILL;

		memset(block, 0, sizeof(block));
		memcpy(node->entries, &below[i], n * sizeof(*below));
		node->count = cpu_to_le32((uint32_t)n);
		node->level = cpu_to_le32(level);
		err = put_block(t, block, META_DIR_NODE, le64_to_cpu(below[i].hash));
		i += n;
	}
	free(below);
	return err;
}

/* The nodes above the leaves, up to the root in the inode. */
static int write_top(struct tree *t)
{
	uint32_t depth = 1;
	int err = 0;

	while (!err && t->index_count > INLINE_ENTRIES)
		err = depth > DEPTH_MAX - 1 ? -EFBIG : write_nodes(t, depth++);
	if (err)
		return err;
	memset(t->d->root, 0, sizeof(t->d->root));
	memcpy(t->d->root, t->index, t->index_count * sizeof(*t->index));
	t->d->flags = cpu_to_le32(le32_to_cpu(t->d->flags) & ~(uint32_t)INODE_INLINE);
	t->d->depth = cpu_to_le32(depth);
	t->d->root_count = cpu_to_le32((uint32_t)t->index_count);
	return 0;
}

static void write_inline(struct tree *t)
{
	const struct entries *es = t->es;
	uint32_t used = 0;

	count_entries(t);
	memset(t->d->root, 0, sizeof(t->d->root));
	for (size_t i = 0; i < es->count; i++) {
		memcpy(t->d->root + used, es->bytes + es->list[i].off, es->list[i].len);
		used += es->list[i].len;
	}
	t->d->flags = cpu_to_le32(le32_to_cpu(t->d->flags) | INODE_INLINE);
	t->d->depth = cpu_to_le32(0);
	t->d->root_count = cpu_to_le32(used);
}

/* Return: whether what is gathered, of all, goes into the inode. */
static bool is_small(const struct entries *es)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < es->count && bytes <= INLINE_SIZE; i++)
		bytes += es->list[i].len;
	return es->ranges == 1 && bytes <= INLINE_SIZE;
}

/* The new tree reads the old one: only the inode is written over. */
static void write_directory(struct entries *es, struct inode_disk *d)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct tree t = { .es = es, .d = (void *)block };
	uint64_t xattr = le64_to_cpu(d->xattr);
	int err = 0;

	memcpy(block, d, BLOCK_SIZE);
	for (uint64_t r = 0; r < es->ranges && !err && !es->c->no_memory; r++) {
		if (es->ranges > 1)
			gather(es, d, r);
		add_names(es);
		if (!is_small(es))
			err = write_leaves(&t);
	}
	err = es->c->no_memory ? -ENOMEM : err;
	if (!err && t.index_count)
		err = write_top(&t);
	else if (!err)
		write_inline(&t);
	free(t.index);
	if (err || es->c->no_memory)
		return;
	t.d->entries = cpu_to_le64(t.names);
	t.d->size = cpu_to_le64(t.bytes);
	t.d->blocks = cpu_to_le64(t.blocks + (xattr ? 1 : 0));
	/* The tree before what refers to it. */
	if (!blkdev_flush(es->c->dev))
		fix_inode(es->c, t.d, inode_id_number(es->id));
}

static void rebuild(struct check *c, struct chk_inode *dir)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	struct entries es = { .c = c, .dir = dir };
	uint64_t number = chk_number(c, dir);

	if (fix_read_inode(c, number, d) || !S_ISDIR(le32_to_cpu(d->mode)))
		return;
	es.id = inode_id_make(number, le32_to_cpu(d->generation));
	find_names(&es);
	plan(&es, d);
	if (!c->no_memory)
		write_directory(&es, d);
	free(es.bytes);
	free(es.list);
}

static int no_entry(void *arg, const struct dir_entry_disk *e, const uint8_t *name)
{
	(void)arg;
	(void)e;
	(void)name;
	return 0;
}

static bool is_rebuilt(const struct chk_inode *dir)
{
	return dir->flags & CHK_REBUILD && !(dir->flags & CHK_LOST);
}

/* No block of any of them is taken for another's new tree. */
static void keep_old_trees(struct check *c)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	for (size_t i = 0; i < c->inode_count && !c->fix->err && !c->no_memory; i++)
		if (is_rebuilt(&c->inodes[i]) && !fix_read_inode(c, chk_number(c, &c->inodes[i]), d) &&
		    S_ISDIR(le32_to_cpu(d->mode)) && dir_each(c, d, no_entry, NULL) == -ENOMEM)
			c->no_memory = true;
}

void fix_directories(struct check *c)
{
	struct fix *f = c->fix;

	keep_old_trees(c);
	if (f->name_count)
		qsort(f->names, f->name_count, sizeof(*f->names), by_directory);
	for (size_t i = 0; i < c->inode_count && !c->fix->err && !c->no_memory; i++)
		if (is_rebuilt(&c->inodes[i]))
			rebuild(c, &c->inodes[i]);
}
