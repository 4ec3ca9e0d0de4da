/* SPDX-License-Identifier: Apache-2.0 */
/* Directories, once all inodes are known: every block, every name, where it leads. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "base/text.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"

#define FOLLOW_MAX	32u
#define HASH_END	(1ULL << 63)	/* hashes have their top bit clear */

struct dir_walk {
	struct check *c;
	struct chk_inode *dir;
	struct inode_disk *d;
	uint64_t id;
	const char *who;
	uint64_t blocks, names, bytes;
};

/* One run of packed entries: a leaf's, or those inside an inode. */
struct entries {
	const uint8_t *bytes;
	uint32_t used;
	uint64_t addr;
	uint64_t low, high; /* hashes that may be here: [low, high) */
};

bool chk_name_ok(const uint8_t *name, size_t len)
{
	if (len == 0 || memchr(name, 0, len) || memchr(name, '/', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* What was reported is put right by writing the whole directory anew, if @fix. */
static void rebuild_if(struct dir_walk *w, bool fix)
{
	if (fix)
		w->dir->flags |= CHK_REBUILD;
}

#define dir_report(w, ...) rebuild_if(w, chk_report((w)->c, __VA_ARGS__))

/* There is an inode of which nothing is known: what is it, by this name? */
static void name_tells(struct dir_walk *w, const struct dir_entry_disk *e, struct chk_inode *ino)
{
	if (e->type != DT_DIR)
		return;
	ino->flags |= CHK_MAKE_DIR;
	ino->generation = inode_id_generation(le64_to_cpu(e->id)) & INODE_GENERATION_MASK;
	ino->parent = w->id & CHK_NUMBER_MASK;
}

static void count_one(uint16_t *count)
{
	if (*count < CHK_COUNT_MAX)
		(*count)++;
}

/* Where the name leads. */
static void check_target(struct dir_walk *w, const struct entries *es,
			 const struct dir_entry_disk *e, uint64_t hash, const char *shown)
{
	struct check *c = w->c;
	uint64_t id = le64_to_cpu(e->id);
	struct chk_inode *ino;

	if (!online_targets(c, es->addr)) {
		if (e->type == DT_DIR)
			count_one(&w->dir->subdirs);
		return;
	}
	ino = chk_find(c, id);
	if (w->dir->flags & CHK_CHILDREN) {
		rebuild_if(w, chk_layer_child(c, w->id, id, shown, es->addr));
		return;
	}
	if (!ino) {
		if (!fix_reference(c, id, es->addr, w->who))
			dir_report(w, CHECK_DIR_TARGET, es->addr,
				   "%s, \"%s\": inode "
				   "%llu generation %u is not in use",
				   w->who, shown, (unsigned long long)inode_id_number(id),
				   inode_id_generation(id));
		return;
	}
	count_one(&ino->names);
	if (e->type == DT_DIR)
		count_one(&w->dir->subdirs);
	if (!ino->type) {
		name_tells(w, e, ino);
		return;
	}
	if (ino->type != e->type)
		dir_report(w, CHECK_DIR_TYPE, es->addr, "%s, \"%s\": type %u, inode %llu has %u",
			   w->who, shown, e->type, (unsigned long long)inode_id_number(id), ino->type);
	if (chk_leads_back(ino, w->id, hash))
		ino->flags |= CHK_LED_BACK;
}

/* Whether an earlier entry of the same hash, from @from on, has this name too. */
static bool name_before(const struct entries *es, uint32_t from, uint32_t off, const uint8_t *name,
			uint8_t len)
{
	while (from < off) {
		const struct dir_entry_disk *e = (const void *)(es->bytes + from);

		if (e->name_len == len && memcmp(es->bytes + from + sizeof(*e), name, len) == 0)
			return true;
		from += (uint32_t)sizeof(*e) + e->name_len;
	}
	return false;
}

static void check_entry(struct dir_walk *w, const struct entries *es, uint32_t off,
			uint32_t same_from)
{
	const struct dir_entry_disk *e = (const void *)(es->bytes + off);
	const uint8_t *name = es->bytes + off + sizeof(*e);
	uint64_t hash = le64_to_cpu(e->hash);
	uint64_t whole = siphash24(w->c->s->hash_key, name, e->name_len);
	uint64_t right = whole & (HASH_END - 1);
	char shown[NAME_BYTES_MAX + 1];

	text_printable((const char *)name, e->name_len, shown, sizeof(shown));
	if (!chk_name_ok(name, e->name_len))
		dir_report(w, CHECK_DIR_ENTRY, es->addr, "%s, \"%s\": no name can be that", w->who,
			   shown);
	if (hash != right)
		dir_report(w, CHECK_DIR_HASH, es->addr,
			   "%s, \"%s\": hash: expected 0x%llx, found 0x%llx", w->who, shown,
			   (unsigned long long)right, (unsigned long long)hash);
	if (hash < es->low || hash >= es->high)
		dir_report(w, CHECK_DIR_ORDER, es->addr,
			   "%s, \"%s\": hash 0x%llx is not within 0x%llx to 0x%llx", w->who, shown,
			   (unsigned long long)hash, (unsigned long long)es->low,
			   (unsigned long long)es->high);
	if (name_before(es, same_from, off, name, e->name_len))
		dir_report(w, CHECK_DIR_DUPLICATE, es->addr, "%s, \"%s\"", w->who, shown);
	check_target(w, es, e, whole, shown);
}

/* Returns how many entries there were. */
static uint32_t check_entries(struct dir_walk *w, const struct entries *es)
{
	uint32_t off = 0, count = 0, same_from = 0;
	uint64_t last = 0;

	while (off < es->used) {
		const struct dir_entry_disk *e = (const void *)(es->bytes + off);
		uint64_t hash;

		if (es->used - off < sizeof(*e) || es->used - off < sizeof(*e) + e->name_len ||
		    e->name_len == 0) {
			dir_report(w, CHECK_DIR_ENTRY, es->addr,
				   "%s: the entry at byte %u of "
				   "%u is cut off",
				   w->who, off, es->used);
			break;
		}
		hash = le64_to_cpu(e->hash);
		if (hash < last)
			dir_report(w, CHECK_DIR_ORDER, es->addr, "%s: hash 0x%llx after 0x%llx",
				   w->who, (unsigned long long)hash, (unsigned long long)last);
		if (hash != last)
			same_from = off;
		last = hash;
		check_entry(w, es, off, same_from);
		off += (uint32_t)sizeof(*e) + e->name_len;
		count++;
	}
	w->names += count;
	w->bytes += off;
	return count;
}

/* ---- the tree ---- */

static void check_leaf(struct dir_walk *w, const uint8_t *block, uint64_t addr, uint64_t low,
		       uint64_t high)
{
	const struct dir_leaf_disk *d = (const void *)block;
	struct entries es = { d->entries, le32_to_cpu(d->used), addr, low, high };
	uint32_t count;

	if (es.used > DIR_LEAF_BYTES) {
		dir_report(w, CHECK_DIR_ENTRY, addr, "%s: %u bytes of entries, at most %zu", w->who,
			   es.used, (size_t)DIR_LEAF_BYTES);
		return;
	}
	count = check_entries(w, &es);
	if (count != le32_to_cpu(d->count))
		dir_report(w, CHECK_DIR_ENTRY, addr,
			   "%s: names in the leaf: expected %u, "
			   "found %u",
			   w->who, count, le32_to_cpu(d->count));
}

static void check_child(struct dir_walk *w, uint64_t pointer, unsigned int level, uint64_t from,
			uint64_t low, uint64_t high);

/* Entries of a node or root, as a source of places. */
struct index_entries {
	const struct dir_index_disk *at, *end;
};

static bool next_entry(struct check *c, void *arg, struct chk_place *p)
{
	struct index_entries *next = arg;

	while (next->at < next->end) {
		*p = (struct chk_place){ bptr_addr(le64_to_cpu(next->at++->pointer)), 1 };
		if (chk_space_ok(c, p->addr >> BLOCK_SHIFT, 1))
			return true;
	}
	return false;
}

/* @level of the block that holds the entries; its children are one below. */
static void check_index(struct dir_walk *w, const struct dir_index_disk *entries, uint32_t count,
			unsigned int level, uint64_t addr, uint64_t low, uint64_t high)
{
	struct index_entries places = { entries, entries + count };
	struct chk_source source = { next_entry, &places, NULL, false };

	chk_ahead_begin(w->c, CHK_LANE_LEVEL + level, &source);
	for (uint32_t i = 0; i < count && !w->c->no_memory; i++) {
		uint64_t hash = le64_to_cpu(entries[i].hash);
		uint64_t next = i + 1 < count ? le64_to_cpu(entries[i + 1].hash) : high;

		if (hash < low || hash >= high || next <= hash || (i == 0 && hash != low))
			dir_report(w, CHECK_DIR_ORDER, addr,
				   "%s: index entry %u: hash 0x%llx, next 0x%llx, within 0x%llx to "
				   "0x%llx",
				   w->who, i, (unsigned long long)hash, (unsigned long long)next,
				   (unsigned long long)low, (unsigned long long)high);
		check_child(w, le64_to_cpu(entries[i].pointer), level - 1, addr, hash, next);
	}
	chk_ahead_end(w->c, CHK_LANE_LEVEL + level);
}

/* Recursion is at most DEPTH_MAX deep; each level has its own buffer. */
static void check_child(struct dir_walk *w, uint64_t pointer, unsigned int level, uint64_t from,
			uint64_t low, uint64_t high)
{
	struct meta_expect e = { level ? META_DIR_NODE : META_DIR_LEAF, w->c->s->volume,
				bptr_addr(pointer), w->id, bptr_birth(pointer) };
	const struct dir_node_disk *node = (const void *)w->c->levels[level];
	uint32_t count;

	if (online_gives_up(w->c, w->blocks, le64_to_cpu(w->d->blocks)))
		return;
	if (!chk_space_ok(w->c, e.addr >> BLOCK_SHIFT, 1)) {
		dir_report(w, CHECK_DIR_POINTER, from, "%s: pointer to block %llu", w->who,
			   (unsigned long long)(e.addr >> BLOCK_SHIFT));
		return;
	}
	w->blocks++;
	w->c->from = from;
	if (!chk_claim(w->c, e.addr >> BLOCK_SHIFT, 1, w->who)) {
		rebuild_if(w, w->c->twice_repair);
		return;
	}
	if (!level && online_passes_over(w->c, e.addr))
		return;
	if (chk_block(w->c, &e, w->c->levels[level], CHECK_DIR_DAMAGED, w->who)) {
		rebuild_if(w, w->c->verify_repair);
		return;
	}
	if (level == 0) {
		check_leaf(w, w->c->levels[0], e.addr, low, high);
		return;
	}
	count = le32_to_cpu(node->count);
	if (count < 1 || count > DIR_NODE_ENTRIES || le32_to_cpu(node->level) != level) {
		dir_report(w, CHECK_DIR_ENTRY, e.addr,
			   "%s: node of level %u with %u entries, "
			   "expected level %u",
			   w->who, le32_to_cpu(node->level), count, level);
		return;
	}
	check_index(w, node->entries, count, level, e.addr, low, high);
}

/* ---- a directory ---- */

/* Who is unlinked is empty, and not the root: a host that deletes it does not look at names. */
static void check_unlinked(struct dir_walk *w)
{
	uint64_t addr = inode_block_addr(w->id);

	if (!(le32_to_cpu(w->d->flags) & INODE_ORPHAN) || !online_counts(w->c) ||
	    (!w->names && w->id != w->c->s->root) ||
	    !chk_report(w->c, CHECK_INODE_INVALID, addr, "%s: is marked as orphan, and %s", w->who,
			w->names ? "has names" : "is the root"))
		return;
	w->d->flags = cpu_to_le32(le32_to_cpu(w->d->flags) & ~(uint32_t)INODE_ORPHAN);
	w->dir->flags &= (uint16_t)~CHK_ORPHAN;
	fix_inode(w->c, w->d, inode_id_number(w->id));
}

static void check_totals(struct dir_walk *w)
{
	uint64_t addr = inode_block_addr(w->id), size = le64_to_cpu(w->d->size);
	bool fix = false;

	if (!online_counts(w->c))
		return;
	if (w->blocks != le64_to_cpu(w->d->blocks))
		fix |= chk_report(w->c, CHECK_INODE_BLOCKS, addr,
				  "%s: blocks: expected %llu, found %llu", w->who,
				  (unsigned long long)w->blocks,
				  (unsigned long long)le64_to_cpu(w->d->blocks));
	if (w->names != le64_to_cpu(w->d->entries) || w->bytes != size)
		fix |= chk_report(
			w->c, CHECK_INODE_SIZE, addr,
			"%s: names and their bytes: "
			"expected %llu and %llu, found %llu and %llu",
			w->who, (unsigned long long)w->names, (unsigned long long)w->bytes,
			(unsigned long long)le64_to_cpu(w->d->entries), (unsigned long long)size);
	/* Who is written anew gets its counts with that. */
	if (!fix || w->dir->flags & CHK_REBUILD)
		return;
	w->d->blocks = cpu_to_le64(w->blocks);
	w->d->entries = cpu_to_le64(w->names);
	w->d->size = cpu_to_le64(w->bytes);
	fix_inode(w->c, w->d, inode_id_number(w->id));
}

static void check_directory(struct check *c, struct chk_inode *dir, uint8_t *block)
{
	struct inode_disk *d = (void *)block;
	uint64_t number = chk_number(c, dir);
	struct meta_expect e = { META_INODE, c->s->volume, inode_block_addr(number), number, 0 };
	uint64_t xattr;
	char who[64];
	struct dir_walk w = { .c = c, .dir = dir, .d = d, .who = who };
	uint32_t depth, count;

	snprintf(who, sizeof(who), "directory inode %llu", (unsigned long long)number);
	c->subject = number;
	if (chk_read(c, e.addr, block, 1) || chk_verify(c, d, &e, CHECK_INODE_DAMAGED, who) ||
	    !S_ISDIR(le32_to_cpu(d->mode)))
		return;
	w.id = inode_id_make(number, le32_to_cpu(d->generation));
	xattr = le64_to_cpu(d->xattr);
	if (xattr && chk_space_ok(c, bptr_addr(xattr) >> BLOCK_SHIFT, 1))
		w.blocks++;
	depth = le32_to_cpu(d->depth);
	count = le32_to_cpu(d->root_count);
	/* inode_decode_check() passed; memory safety rests on these bounds alone. */
	if (le32_to_cpu(d->flags) & INODE_INLINE) {
		struct entries es = { d->root, count, e.addr, 0, HASH_END };

		if (count <= INLINE_SIZE)
			check_entries(&w, &es);
	} else if (depth >= 1 && depth <= DEPTH_MAX && count <= INLINE_ENTRIES) {
		check_index(&w, (const void *)d->root, count, depth, e.addr, 0, HASH_END);
	}
	check_unlinked(&w);
	check_totals(&w);
}

static bool next_directory(struct check *c, void *arg, struct chk_place *p)
{
	size_t *i = arg;

	while (*i < c->inode_count && c->inodes[*i].type != DT_DIR)
		(*i)++;
	if (*i == c->inode_count)
		return false;
	*p = (struct chk_place){ inode_block_addr(chk_number(c, &c->inodes[(*i)++])), 1 };
	return true;
}

static void follow_directory(struct check *c, const uint8_t *data, uint32_t blocks)
{
	const struct inode_disk *d = (const void *)data;
	const struct dir_index_disk *entries = (const void *)d->root;
	uint32_t count = le32_to_cpu(d->root_count);

	if (blocks != 1 || le32_to_cpu(d->hdr.magic) != META_INODE || !le32_to_cpu(d->depth))
		return;
	for (uint32_t i = 0; i < count && i < FOLLOW_MAX; i++)
		chk_ahead_follow(c, le64_to_cpu(entries[i].pointer));
}

void chk_directories(struct check *c)
{
	size_t next = 0;
	struct chk_source source = { next_directory, &next, follow_directory, false };

	chk_ahead_begin(c, CHK_LANE_MAIN, &source);
	for (size_t i = 0; i < c->inode_count && !c->no_memory; i++) {
		if (c->inodes[i].type == DT_DIR)
			check_directory(c, &c->inodes[i], c->cluster);
		if (i % 1024 == 0 || i + 1 == c->inode_count)
			chk_progress(c, "directories", i + 1, c->inode_count);
	}
	chk_ahead_end(c, CHK_LANE_MAIN);
}
