/* SPDX-License-Identifier: Apache-2.0 */
/* Groups' headers, their indices of inode clusters, and every inode in these. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/check/fix.h"
#include "fs/check/online.h"

#define FOLLOW_MAX	16u

/* ---- what is remembered ---- */

/* Clusters are sorted, and do not overlap: their blocks are claimed once. */
struct chk_cluster *chk_cluster_of(const struct check *c, uint64_t number)
{
	size_t low = 0, high = c->cluster_count;
	struct chk_cluster *cl;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->clusters[mid].first <= number)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == 0)
		return NULL;
	cl = &c->clusters[low - 1];
	return number < cl->first + 2ULL * cl->count ? cl : NULL;
}

struct chk_inode *chk_find_number(struct check *c, uint64_t number)
{
	const struct chk_cluster *cl = chk_cluster_of(c, number);
	uint32_t bit;

	if (!cl || (number - cl->first) % 2)
		return NULL;
	bit = 1u << (number - cl->first) / 2;
	if (!(cl->known & bit))
		return NULL;
	return &c->inodes[cl->base + (uint32_t)__builtin_popcount(cl->known & (bit - 1))];
}

struct chk_inode *chk_find(struct check *c, uint64_t id)
{
	struct chk_inode *ino;

	if (c->online && c->online->relook)
		return relook_find(c, id);
	ino = chk_find_number(c, inode_id_number(id));
	return ino && ino->type && ino->generation != inode_id_generation(id) ? NULL : ino;
}

uint64_t chk_number(const struct check *c, const struct chk_inode *ino)
{
	size_t index = (size_t)(ino - c->inodes), low = 0, high = c->cluster_count;
	const struct chk_cluster *cl;
	uint32_t known, nth;

	/* The last one that begins no later; those after it that have none begin later. */
	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (c->clusters[mid].base <= index)
			low = mid;
		else
			high = mid;
	}
	cl = &c->clusters[low];
	known = cl->known;
	for (nth = (uint32_t)(index - cl->base); nth; nth--)
		known &= known - 1;
	return cl->first + 2ULL * (uint32_t)__builtin_ctz(known);
}

static uint64_t back_of(uint64_t dir, uint64_t hash)
{
	return (hash ^ inode_id_generation(dir) * 0x9e3779b97f4a7c15ULL) >> (64 - CHK_BACK_BITS);
}

void chk_states(struct chk_inode *ino, uint64_t dir, uint64_t hash)
{
	ino->parent = dir & CHK_NUMBER_MASK;
	ino->back = back_of(dir, hash) & ((1ULL << CHK_BACK_BITS) - 1);
}

bool chk_leads_back(const struct chk_inode *ino, uint64_t dir, uint64_t hash)
{
	return ino->parent == inode_id_number(dir) && ino->back == back_of(dir, hash);
}

static int by_place(const void *a, const void *b)
{
	const struct chk_cluster *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* ---- inodes ---- */

/* Whether a block that cannot be believed says itself that it is @e: it is not another's. */
static bool says_so(const void *block, const struct meta_expect *e)
{
	const struct meta_hdr_disk *h = block;

	return le32_to_cpu(h->magic) == e->type && le64_to_cpu(h->addr) == e->addr &&
	       le64_to_cpu(h->owner) == e->owner && !memcmp(h->volume, e->volume, sizeof(h->volume));
}

/* The entry that has inode @number of @cl, in its index block @d at @e; or NULL. */
static struct itable_entry_disk *find_entry(struct check *c, const struct chk_cluster *cl,
					    uint64_t number, struct itable_disk *d,
					    struct meta_expect *e)
{
	uint64_t block = number - (super_ag_addr(c->s, cl->ag) >> BLOCK_SHIFT);

	for (size_t n = 0; n < c->fix->index_count; n++) {
		uint64_t pointer = c->fix->indices[n];
		uint32_t ag;

		*e = (struct meta_expect){ META_ITABLE, c->s->volume, bptr_addr(pointer), cl->ag,
					   bptr_birth(pointer) };
		if (super_ag_of(c->s, e->addr, &ag) || ag != cl->ag ||
		    blkdev_read(c->dev, e->addr, d, BLOCK_SIZE) || meta_verify(d, e, NULL, 0))
			continue;
		for (uint32_t k = 0; k < le32_to_cpu(d->count) && k < ITABLE_ENTRIES; k++) {
			uint32_t first = le32_to_cpu(d->entries[k].block);

			if (block >= first && block < first + 2ULL * le16_to_cpu(d->entries[k].count))
				return &d->entries[k];
		}
	}
	return NULL;
}

/* The index says @used, the inode does not agree: the inode is right. */
static void fix_mask(struct check *c, struct chk_cluster *cl, uint32_t i)
{
	struct itable_disk *d = (void *)c->levels[0];
	struct meta_expect e;
	struct itable_entry_disk *entry = find_entry(c, cl, cl->first + 2 * i, d, &e);
	uint32_t first, bit;

	cl->used = (uint16_t)(cl->used ^ 1u << i);
	if (!entry)
		return;
	first = le32_to_cpu(entry->block);
	bit = (uint32_t)(cl->first + 2 * i - (super_ag_addr(c->s, cl->ag) >> BLOCK_SHIFT) - first) / 2;
	entry->used = cpu_to_le16((uint16_t)((le16_to_cpu(entry->used) & ~(1u << bit)) |
					     (cl->used >> i & 1u) << bit));
	fix_seal(c, d, &e);
}

/*
 * Inode @i of @cl is none: its entry ends before it, another one begins behind it.  Both are one
 * write; if there is no room for the second, what it would have is found again by its names.
 */
static void cut_cluster(struct check *c, const struct chk_cluster *cl, uint32_t i)
{
	struct itable_disk *d = (void *)c->levels[0];
	struct meta_expect e;
	struct itable_entry_disk *entry = find_entry(c, cl, cl->first + 2 * i, d, &e), behind;
	uint32_t first, count, used, at, n;

	c->fix->hold = true;
	if (!entry)
		return;
	n = le32_to_cpu(d->count);
	first = le32_to_cpu(entry->block);
	count = le16_to_cpu(entry->count);
	used = le16_to_cpu(entry->used);
	at = (uint32_t)(cl->first + 2 * i - (super_ag_addr(c->s, cl->ag) >> BLOCK_SHIFT) - first) / 2;
	behind = (struct itable_entry_disk){ cpu_to_le32(first + 2 * (at + 1)),
					     cpu_to_le16((uint16_t)(used >> (at + 1))),
					     cpu_to_le16((uint16_t)(count - at - 1)) };
	entry->count = cpu_to_le16((uint16_t)at);
	entry->used = cpu_to_le16((uint16_t)(used & ((1u << at) - 1)));
	if (!at)
		*entry = d->entries[--n];
	if (at + 1 < count && n < ITABLE_ENTRIES)
		d->entries[n++] = behind;
	memset(&d->entries[n], 0, (ITABLE_ENTRIES - n) * sizeof(d->entries[0]));
	d->count = cpu_to_le32(n);
	fix_seal(c, d, &e);
}

void chk_member(struct check *c, struct chk_cluster *cl, uint32_t i, struct inode_disk *d)
{
	uint64_t number = cl->first + 2 * i, addr = inode_block_addr(number);
	struct meta_expect e = { META_INODE, c->s->volume, addr, number, 0 };
	bool used = cl->used & 1u << i;
	char who[64], why[400];

	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)number);
	c->subject = number;
	if (meta_verify(d, &e, why, sizeof(why))) {
		bool fix = chk_report(c, CHECK_INODE_DAMAGED, addr, "%s: %s", who, why);

		if (used)
			chk_inode_lost(c, number, fix);
		else if (fix)
			fix_free(c, number);
	} else {
		if (used != (le32_to_cpu(d->mode) != 0) &&
		    chk_report(c, CHECK_INODE_MASK, addr, "%s: mode is 0%o, the index of group %u "
			       "says %s", who, le32_to_cpu(d->mode), cl->ag,
			       used ? "in use" : "free")) {
			fix_mask(c, cl, i);
			used = !used;
		}
		if (le32_to_cpu(d->mode) != 0)
			chk_inode(c, number, d);
		else if (c->fix && !used && c->fix->spare_count < ARRAY_SIZE(c->fix->spares))
			c->fix->spares[c->fix->spare_count++] = number;
	}
	if (used)
		c->groups[cl->ag].inodes_used++;
	else
		c->groups[cl->ag].inodes_free++;
}

/*
 * Whether a repair takes the two blocks for an inode and its lock, one of them at least saying that
 * it is.  Else the index is wrong, and whatever they are they are not overwritten.
 */
static bool is_pair(const struct check *c, const uint8_t *pair, uint64_t number)
{
	struct meta_expect lock = { META_LOCK, c->s->volume, inode_lock_addr(number), 0, 0 };
	struct meta_expect inode = { META_INODE, c->s->volume, inode_block_addr(number), number, 0 };

	return !c->fix || says_so(pair, &lock) || says_so(pair + BLOCK_SIZE, &inode);
}

/* One inode and its lock. */
static void check_pair(struct check *c, struct chk_cluster *cl, uint32_t i, uint8_t *pair)
{
	uint64_t number = cl->first + 2 * i;
	char who[64];

	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)number);
	if (!is_pair(c, pair, number)) {
		c->subject = number;
		if (chk_report(c, CHECK_INODE_DAMAGED, inode_block_addr(number),
			       "%s: neither it nor its lock says that it is that", who))
			cut_cluster(c, cl, i);
		else if (cl->used & 1u << i)
			chk_inode_lost(c, number, false);
		return;
	}
	chk_lock(c, pair, inode_lock_addr(number), who);
	chk_member(c, cl, i, (void *)(pair + BLOCK_SIZE));
}

/* Room for all that the indices say, at once: an array that doubles is half empty. */
static void make_room(struct check *c)
{
	size_t count = 1;

	for (size_t k = 0; k < c->cluster_count; k++)
		count += (uint32_t)__builtin_popcount(c->clusters[k].used);
	c->inodes = malloc(count * sizeof(*c->inodes));
	if (c->inodes)
		c->inode_room = count;
	else
		c->no_memory = true;
}

bool chk_next_cluster(struct check *c, void *arg, struct chk_place *p)
{
	size_t *k = arg;

	if (*k == c->cluster_count)
		return false;
	*p = (struct chk_place){ c->clusters[*k].first << BLOCK_SHIFT, 2u * c->clusters[*k].count };
	(*k)++;
	return true;
}

/* A root with few pointers; those with many are read ahead when it is their turn. */
static void follow_inode(struct check *c, const struct inode_disk *d)
{
	uint32_t flags = le32_to_cpu(d->flags), count = le32_to_cpu(d->root_count);

	chk_ahead_follow(c, le64_to_cpu(d->xattr));
	if (flags & INODE_INLINE || !S_ISREG(le32_to_cpu(d->mode)) || !le32_to_cpu(d->depth))
		return;
	for (uint32_t i = 0; i < count && i < FOLLOW_MAX; i++)
		chk_ahead_follow(c, le64_to_cpu(((const le64 *)(const void *)d->root)[i]));
}

static void follow_cluster(struct check *c, const uint8_t *data, uint32_t blocks)
{
	for (uint32_t i = 1; i < blocks; i += 2) {
		const struct inode_disk *d = (const void *)(data + (size_t)i * BLOCK_SIZE);

		if (le32_to_cpu(d->hdr.magic) == META_INODE)
			follow_inode(c, d);
	}
}

/* In the order of their places: so are the inodes then, and neighbours are read together. */
static void check_clusters(struct check *c)
{
	size_t next = 0;
	struct chk_source source = { chk_next_cluster, &next, follow_cluster, true };

	if (c->cluster_count)
		qsort(c->clusters, c->cluster_count, sizeof(*c->clusters), by_place);
	if (!online_forgets(c, NULL))
		make_room(c);
	if (!c->no_memory)
		chk_ahead_begin(c, CHK_LANE_MAIN, &source);
	for (size_t k = 0; k < c->cluster_count && !c->no_memory; k++) {
		struct chk_cluster *cl = &c->clusters[k];
		uint8_t *blocks = chk_at(c, cl->first << BLOCK_SHIFT, c->cluster, 2u * cl->count);

		c->looking = cl;
		cl->base = (uint32_t)c->inode_count;
		if (k % 256 == 0 || k + 1 == c->cluster_count)
			chk_progress(c, "inodes", k + 1, c->cluster_count);
		for (uint32_t i = 0; blocks && i < cl->count && !c->no_memory; i++)
			check_pair(c, cl, i, blocks + (size_t)i * 2 * BLOCK_SIZE);
	}
	chk_ahead_end(c, CHK_LANE_MAIN);
}

/* ---- the index ---- */

/* Whether the root has one of these blocks, and they are not a cluster that has it as an inode. */
static bool hits_root(const struct check *c, uint64_t first, uint32_t count, bool cluster)
{
	uint64_t root = inode_id_number(c->s->root);

	if (first >= root + 2 || root >= first + count)
		return false;
	return !cluster || root < first || (root - first) % 2;
}

/* One entry of an index block: a cluster.  Returns whether it is to be struck. */
static bool check_cluster(struct check *c, uint32_t ag, const struct meta_expect *index,
			  const struct itable_entry_disk *e)
{
	uint32_t count = le16_to_cpu(e->count), used = le16_to_cpu(e->used);
	uint64_t first = (super_ag_addr(c->s, ag) >> BLOCK_SHIFT) + le32_to_cpu(e->block);
	struct chk_cluster *cl;
	char who[64];

	if (count < 1 || count > CLUSTER_INODES || used >> count)
		return chk_report(c, CHECK_ITABLE_ENTRY, index->addr, "group %u: cluster of %u "
				  "inodes, of which 0x%x are in use", ag, count, used);
	if (le32_to_cpu(e->block) >= c->groups[ag].blocks ||
	    !chk_space_ok(c, first, 2 * count))
		return chk_report(c, CHECK_ITABLE_POINTER, index->addr, "group %u: cluster at its "
				  "block %u: no space for inodes", ag, le32_to_cpu(e->block));
	if (hits_root(c, first, 2 * count, true))
		return chk_report(c, CHECK_ITABLE_POINTER, index->addr, "group %u: cluster at its "
				  "block %u: the root directory lies across it", ag,
				  le32_to_cpu(e->block));
	snprintf(who, sizeof(who), "inode cluster of group %u", ag);
	/* Not as metadata yet: who has a block there that is what it should be is right. */
	if (!chk_claim(c, first, 2 * count, who))
		return c->twice_repair;
	cl = fix_append(c, (void **)&c->clusters, &c->cluster_count, &c->cluster_room,
			sizeof(*cl));
	if (cl)
		*cl = (struct chk_cluster){ .first = first, .ag = (uint16_t)ag,
					    .used = (uint16_t)used, .count = (uint16_t)count };
	return false;
}

/* Entries that cannot be believed are struck; what they had is found again by its names. */
static void check_entries(struct check *c, uint32_t ag, struct itable_disk *d,
			  const struct meta_expect *e)
{
	uint32_t count = le32_to_cpu(d->count), kept = 0;

	for (uint32_t i = 0; i < count && !c->no_memory; i++) {
		if (check_cluster(c, ag, e, &d->entries[i]))
			continue;
		d->entries[kept++] = d->entries[i];
	}
	if (kept == count || c->no_memory)
		return;
	memset(&d->entries[kept], 0, (ITABLE_ENTRIES - kept) * sizeof(d->entries[0]));
	d->count = cpu_to_le32(kept);
	c->fix->hold = true;
	fix_seal(c, d, e);
}

static void note_index(struct check *c, uint64_t pointer)
{
	uint64_t *at;

	if (!c->fix)
		return;
	at = fix_append(c, (void **)&c->fix->indices, &c->fix->index_count, &c->fix->index_room,
			sizeof(*at));
	if (at)
		*at = pointer;
}

/* An empty block in the same place: what it had is found again by its names. */
static void empty_index(struct check *c, struct itable_disk *d, const struct meta_expect *e)
{
	memset(d, 0, sizeof(*d));
	c->fix->hold = true;
	fix_seal(c, d, e);
}

/*
 * The block that @e describes cannot be believed.  If it says that it is the index, or lies where mkfs
 * puts group 0's, it is; any other may be somebody's, and is not overwritten for the index's sake.
 * Returns whether the pointer to it is to be cleared.
 */
static bool fix_index_block(struct check *c, struct itable_disk *d, const struct meta_expect *e)
{
	uint64_t block = e->addr >> BLOCK_SHIFT;

	if (says_so(d, e) || (e->owner == 0 && block == chk_first_index(c))) {
		empty_index(c, d, e);
		return false;
	}
	chk_unclaim(c, block);
	return true;
}

/*
 * One block of the index, and through it all that follow.  Returns whether the pointer to it
 * is to be cleared.
 */
static bool check_index_block(struct check *c, uint32_t ag, uint64_t pointer,
			      struct itable_disk *d, uint64_t *next)
{
	struct meta_expect e = { META_ITABLE, c->s->volume, bptr_addr(pointer), ag,
				 bptr_birth(pointer) };
	char who[64];

	*next = 0;
	snprintf(who, sizeof(who), "inode index of group %u", ag);
	if (!chk_space_ok(c, e.addr >> BLOCK_SHIFT, 1))
		return chk_report(c, CHECK_ITABLE_POINTER, e.addr, "%s: no place for a block of it",
				  who);
	if (hits_root(c, e.addr >> BLOCK_SHIFT, 1, false))
		return chk_report(c, CHECK_ITABLE_POINTER, e.addr, "%s: a block of it would be the "
				  "root directory's", who);
	if (!chk_claim_meta(c, e.addr >> BLOCK_SHIFT, 1, who))
		return c->twice_repair;
	if (chk_block(c, &e, d, CHECK_ITABLE_DAMAGED, who)) {
		if (c->verify_repair && fix_index_block(c, d, &e))
			return true;
		note_index(c, pointer);
		return false;
	}
	note_index(c, pointer);
	if (le32_to_cpu(d->count) > ITABLE_ENTRIES) {
		if (chk_report(c, CHECK_ITABLE_ENTRY, e.addr, "%s: %u entries, at most %zu",
			       who, le32_to_cpu(d->count), (size_t)ITABLE_ENTRIES))
			empty_index(c, d, &e);
		return false;
	}
	*next = le64_to_cpu(d->next);
	check_entries(c, ag, d, &e);
	return false;
}

/* The pointer to an index block, in the header or in the block before, becomes none. */
static void fix_index_end(struct check *c, const struct meta_expect *before)
{
	void *block = c->levels[0];

	c->fix->hold = true;
	if (blkdev_read(c->dev, before->addr, block, BLOCK_SIZE) ||
	    meta_verify(block, before, NULL, 0))
		return;
	if (before->type == META_AG)
		((struct ag_disk *)block)->itable = cpu_to_le64(0);
	else
		((struct itable_disk *)block)->next = cpu_to_le64(0);
	fix_seal(c, block, before);
}

static void check_index(struct check *c, uint32_t ag, const struct meta_expect *header,
			uint64_t pointer, struct itable_disk *d)
{
	struct meta_expect before = *header;

	uint32_t left = c->groups[ag].blocks / CLUSTER_BLOCKS + 16;

	while (pointer && !c->no_memory) {
		uint64_t next;

		/* Without claims nothing else ends a loop of them. */
		if (c->online && c->online->no_claims && !left--)
			return;

		if (check_index_block(c, ag, pointer, d, &next)) {
			fix_index_end(c, &before);
			return;
		}
		before = (struct meta_expect){ META_ITABLE, c->s->volume, bptr_addr(pointer), ag,
					       bptr_birth(pointer) };
		pointer = next;
	}
}

/* ---- headers ---- */

/*
 * As mkfs would write it, but all bitmap blocks are taken for initialised: one that never was cannot
 * be told from one that is damaged, and where that was nothing is free before all is known.
 */
static void fix_header_anew(struct check *c, uint32_t ag, struct ag_disk *d,
			    const struct meta_expect *e)
{
	uint32_t blocks = super_ag_blocks(c->s, ag), count = super_ag_bitmaps(c->s);

	memset(d, 0, sizeof(*d));
	d->blocks = cpu_to_le32(blocks);
	d->bitmap_count = cpu_to_le32(count);
	for (uint32_t i = 0; i < count; i++)
		d->bitmap_ready[i / 8] |= (uint8_t)(1u << i % 8);
	if (ag == 0)
		d->itable = cpu_to_le64(chk_first_index(c));
	c->fix->hold = true;
	fix_seal(c, d, e);
}

/*
 * Whether a group can have had @blocks before the volume grew: nothing behind them was free then, and
 * no bitmap block behind the one of the end initialised.  An inode there proves that it had more:
 * fix_reference().
 */
static bool was_short(struct check *c, uint32_t ag, const struct ag_disk *d, uint32_t blocks)
{
	uint32_t index = blocks / BITMAP_BITS;
	uint64_t addr = super_ag_addr(c->s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, c->s->volume, addr, ag, 0 };
	const struct bitmap_disk *b = (const void *)c->levels[1];

	if (blocks < super_ag_meta(c->s) + 1 * MIB / BLOCK_SIZE || le32_to_cpu(d->free_blocks) > blocks)
		return false;
	for (uint32_t i = index + 1; i < super_ag_bitmaps(c->s); i++)
		if (d->bitmap_ready[i / 8] & 1u << i % 8)
			return false;
	if (!(d->bitmap_ready[index / 8] & 1u << index % 8) ||
	    chk_read(c, addr, c->levels[1], 1) || meta_verify(b, &e, NULL, 0))
		return true;
	for (uint32_t i = blocks % BITMAP_BITS; i < BITMAP_BITS; i++)
		if (!(b->bits[i / 8] & 1u << i % 8))
			return false;
	return true;
}

static void check_header(struct check *c, uint32_t ag, struct ag_disk *d,
			 const struct meta_expect *e)
{
	uint32_t blocks = super_ag_blocks(c->s, ag), found = le32_to_cpu(d->blocks);
	uint32_t count = super_ag_bitmaps(c->s);
	bool fix = false;

	if (found > blocks || (found < blocks && !was_short(c, ag, d, found))) {
		fix |= chk_report(c, CHECK_AG_INVALID, e->addr,
				  "group %u: blocks: expected %u, found %u", ag, blocks, found);
	} else {
		c->groups[ag].blocks = found;
		if (found < blocks)
			chk_report(c, CHECK_AG_SHORT, e->addr, "group %u: %u of %u blocks are in "
				   "use by it so far", ag, found, blocks);
		blocks = found;
	}
	memcpy(c->groups[ag].ready, d->bitmap_ready, sizeof(c->groups[ag].ready));
	if (le32_to_cpu(d->bitmap_count) != count)
		fix |= chk_report(c, CHECK_AG_INVALID, e->addr,
				  "group %u: bitmap blocks: expected %u, found %u", ag, count,
				  le32_to_cpu(d->bitmap_count));
	for (uint32_t i = count; i < BITMAPS_MAX; i++)
		if (d->bitmap_ready[i / 8] & 1u << i % 8) {
			fix |= chk_report(c, CHECK_AG_INVALID, e->addr, "group %u: bitmap block "
					  "%u is marked ready, it has %u", ag, i, count);
			break;
		}
	if (!fix)
		return;
	d->blocks = cpu_to_le32(blocks);
	d->bitmap_count = cpu_to_le32(count);
	for (uint32_t i = count; i < BITMAPS_MAX; i++)
		d->bitmap_ready[i / 8] &= (uint8_t)~(1u << i % 8);
	fix_seal(c, d, e);
}

void chk_group(struct check *c, uint32_t ag, uint8_t *pair, struct itable_disk *index)
{
	uint64_t start = super_ag_addr(c->s, ag), addr = start + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, c->s->volume, addr, ag, 0 };
	struct ag_disk *d = (void *)(pair + BLOCK_SIZE);
	char who[64];

	snprintf(who, sizeof(who), "group %u", ag);
	c->subject = SUBJECT_GROUP | ag;
	if (chk_read(c, start, pair, 2))
		return;
	chk_lock(c, pair, start, who);
	if (chk_verify(c, d, &e, CHECK_AG_DAMAGED, who)) {
		if (!c->verify_repair)
			return;
		fix_header_anew(c, ag, d, &e);
	}
	check_header(c, ag, d, &e);
	check_index(c, ag, &e, le64_to_cpu(d->itable), index);
}

/* Counts of inodes, once all clusters are read. */
void chk_counts(struct check *c, uint32_t ag)
{
	uint64_t addr = super_ag_addr(c->s, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, c->s->volume, addr, ag, 0 };
	const struct chk_group *g = &c->groups[ag];
	struct ag_disk *d = (void *)c->levels[0];

	c->subject = ag;
	if (chk_read(c, addr, d, 1) || meta_verify(d, &e, NULL, 0) ||
	    (g->inodes_used == le32_to_cpu(d->inodes_used) &&
	     g->inodes_free == le32_to_cpu(d->inodes_free)))
		return;
	if (!chk_report(c, CHECK_AG_INODES, addr, "group %u: inodes used and free: expected %u "
			"and %u, found %u and %u", ag, g->inodes_used, g->inodes_free,
			le32_to_cpu(d->inodes_used), le32_to_cpu(d->inodes_free)))
		return;
	d->inodes_used = cpu_to_le32(g->inodes_used);
	d->inodes_free = cpu_to_le32(g->inodes_free);
	fix_seal(c, d, &e);
}

/* Lock block and header of each group. */
static bool next_group(struct check *c, void *arg, struct chk_place *p)
{
	uint32_t *ag = arg;

	if (*ag == c->s->ag_count)
		return false;
	*p = (struct chk_place){ super_ag_addr(c->s, (*ag)++), 2 };
	return true;
}

static void follow_group(struct check *c, const uint8_t *data, uint32_t blocks)
{
	const struct ag_disk *d = (const void *)(data + BLOCK_SIZE);

	if (blocks == 2 && le32_to_cpu(d->hdr.magic) == META_AG)
		chk_ahead_follow(c, le64_to_cpu(d->itable));
}

static bool next_header(struct check *c, void *arg, struct chk_place *p)
{
	bool more = next_group(c, arg, p);

	*p = (struct chk_place){ p->addr + AG_HEADER_BLOCK * BLOCK_SIZE, 1 };
	return more;
}

/*
 * All indices come first, then all inodes: what says that it is metadata has its blocks before
 * any map can lay claim to them.
 */
void chk_groups(struct check *c)
{
	uint8_t *pair = blkdev_alloc(3 * BLOCK_SIZE);
	uint32_t next = 0;
	struct chk_source groups = { next_group, &next, follow_group, false };
	struct chk_source headers = { next_header, &next, NULL, false };

	if (!pair) {
		c->no_memory = true;
		return;
	}
	chk_ahead_begin(c, CHK_LANE_MAIN, &groups);
	for (uint32_t ag = 0; ag < c->s->ag_count && !c->no_memory; ag++) {
		chk_group(c, ag, pair, (void *)(pair + 2 * BLOCK_SIZE));
		chk_progress(c, "groups", ag + 1, c->s->ag_count);
	}
	free(pair);
	check_clusters(c);
	next = 0;
	if (!c->no_memory)
		chk_ahead_begin(c, CHK_LANE_MAIN, &headers);
	for (uint32_t ag = 0; ag < c->s->ag_count && !c->no_memory; ag++)
		chk_counts(c, ag);
	chk_ahead_end(c, CHK_LANE_MAIN);
}
