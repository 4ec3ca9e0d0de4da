/* SPDX-License-Identifier: Apache-2.0 */
/* Inodes that are lost, found again, or made; and the index that knows them. */
#include "fs/check/fix.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/inode.h"

/* ---- the index ---- */

static int read_header(struct check *c, uint32_t ag, struct ag_disk *d, struct meta_expect *e)
{
	uint64_t addr = super_ag_addr(c->s, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
	int err;

	*e = (struct meta_expect){ META_AG, c->s->volume, addr, ag, 0 };
	err = blkdev_read(c->dev, addr, d, BLOCK_SIZE);
	return err ? err : meta_verify(d, e, NULL, 0);
}

/* The last block of a group's index into @d.  Return: 1; 0 there is none; negative errno. */
static int read_last(struct check *c, uint32_t ag, uint64_t pointer, struct itable_disk *d,
		     struct meta_expect *e)
{
	uint64_t most = super_ag_blocks(c->s, ag);
	int err;

	if (!pointer)
		return 0;
	for (uint64_t i = 0; pointer && i < most; i++) {
		*e = (struct meta_expect){ META_ITABLE, c->s->volume, bptr_addr(pointer), ag,
					   bptr_birth(pointer) };
		err = chk_space_ok(c, e->addr >> BLOCK_SHIFT, 1) ? 0 : -EUCLEAN;
		if (!err)
			err = blkdev_read(c->dev, e->addr, d, BLOCK_SIZE);
		if (!err)
			err = meta_verify(d, e, NULL, 0);
		if (err)
			return err;
		pointer = le64_to_cpu(d->next);
	}
	return pointer ? -EUCLEAN : 1;
}

/*
 * Space for a block of a group's index.  While the index is lost all that it had is in use and
 * unknown.  Group 0 begins where mkfs begins it; elsewhere a lost bitmap makes it a guess, and
 * without one nothing would ever be found again.
 */
static uint64_t index_place(struct check *c, uint32_t ag, bool first)
{
	uint64_t home = chk_first_index(c), block;
	uint32_t home_ag;

	if (first && chk_space_ok(c, home, 1) && !super_ag_of(c->s, home << BLOCK_SHIFT, &home_ag) &&
	    home_ag == ag && chk_claim_quietly(c, home, 1))
		return home;
	block = fix_alloc_in(c, ag, 1);
	return block || !c->fix->hold ? block : fix_alloc_blind(c, ag);
}

/* A new block at the end of the index: written first, then pointed to. */
static int index_extend(struct check *c, uint32_t ag, bool first, struct ag_disk *header,
			struct itable_disk *last, const struct meta_expect *last_e,
			struct meta_expect *e)
{
	uint64_t block = index_place(c, ag, first);
	struct meta_expect he;
	struct itable_disk *fresh;
	int err;

	if (!block)
		return -ENOSPC;
	fresh = blkdev_alloc(BLOCK_SIZE);
	if (!fresh)
		return -ENOMEM;
	*e = (struct meta_expect){ META_ITABLE, c->s->volume, block << BLOCK_SHIFT, ag, 0 };
	err = fix_seal(c, fresh, e);
	if (!err && first) {
		err = read_header(c, ag, header, &he);
		header->itable = cpu_to_le64(BPTR(block, 0));
		if (!err)
			err = fix_seal(c, header, &he);
	} else if (!err) {
		last->next = cpu_to_le64(BPTR(block, 0));
		err = fix_seal(c, last, last_e);
	}
	memcpy(last, fresh, BLOCK_SIZE);
	free(fresh);
	return err;
}

/* Group @ag gets a cluster of @count inodes from its block @block on. */
static int index_add(struct check *c, uint32_t ag, uint32_t block, uint16_t used, uint16_t count)
{
	struct ag_disk *header = (void *)c->levels[0];
	struct itable_disk *d = (void *)c->levels[1];
	struct meta_expect e, next;
	uint32_t n;
	int err;

	err = read_header(c, ag, header, &e);
	if (!err)
		err = read_last(c, ag, le64_to_cpu(header->itable), d, &e);
	if (err < 0)
		return err;
	if (!err || le32_to_cpu(d->count) == ITABLE_ENTRIES) {
		err = index_extend(c, ag, !err, header, d, &e, &next);
		if (err)
			return err;
		e = next;
	}
	n = le32_to_cpu(d->count);
	d->entries[n] = (struct itable_entry_disk){ cpu_to_le32(block), cpu_to_le16(used),
						    cpu_to_le16(count) };
	d->count = cpu_to_le32(n + 1);
	return fix_seal(c, d, &e);
}

/* ---- found again ---- */

bool fix_believable(struct check *c, uint64_t id)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	uint64_t number = inode_id_number(id);

	return !fix_read_inode(c, number, d) && le32_to_cpu(d->mode) != 0 &&
	       (le32_to_cpu(d->generation) & INODE_GENERATION_MASK) == inode_id_generation(id) &&
	       !inode_decode_check(d, NULL, 0);
}

/* Whether the index has the place, so that the inode there is known to be free, or another. */
static bool indexed(const struct check *c, uint64_t number)
{
	return chk_cluster_of(c, number) != NULL;
}

/* Whether one of its two blocks is an index's, another inode's, or the root's. */
static bool overlaps_kept(const struct check *c, uint64_t number)
{
	uint64_t root = inode_id_number(c->s->root);

	if (chk_cluster_of(c, number) || chk_cluster_of(c, number + 1) || number + 1 == root ||
	    number == root + 1)
		return true;
	for (size_t i = 0; c->fix && i < c->fix->index_count; i++) {
		uint64_t block = bptr_addr(c->fix->indices[i]) >> BLOCK_SHIFT;

		if (block == number || block == number + 1)
			return true;
	}
	return false;
}

/*
 * An inode is there, and its group seems to end before it: the header's count of blocks is wrong, not
 * of the time before the volume grew.  Return: whether the group has the inode now.
 */
static bool lengthen(struct check *c, uint64_t number)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct ag_disk *d = (void *)block;
	struct meta_expect e;
	uint32_t ag, blocks;

	if (!c->fix || super_ag_of(c->s, number << BLOCK_SHIFT, &ag) || read_header(c, ag, d, &e))
		return false;
	blocks = super_ag_blocks(c->s, ag);
	if (!chk_report(c, CHECK_AG_INVALID, e.addr, "group %u: blocks: expected %u, found %u, with "
			"inode %llu behind them", ag, blocks, c->groups[ag].blocks,
			(unsigned long long)number))
		return false;
	c->fix->hold = true;
	c->groups[ag].blocks = blocks;
	d->blocks = cpu_to_le32(blocks);
	return !fix_seal(c, d, &e) && chk_space_ok(c, number, 2);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = inode_id_number(*(const uint64_t *)a);
	uint64_t y = inode_id_number(*(const uint64_t *)b);

	return x < y ? -1 : x > y;
}

/*
 * Those that lie first are kept, not those that came first: a directory's are in the order of hashes, and
 * what is found one by one makes as many clusters.
 */
static void note_found(struct check *c, uint64_t id)
{
	size_t most = fix_most(c, FIX_FOUND_MAX), kept = 0;
	struct fix *f = c->fix;
	uint64_t *found = fix_append(c, (void **)&f->found, &f->found_count, &f->found_room,
				     sizeof(*found));

	if (!found)
		return;
	*found = id;
	if (f->found_count <= (most > CLUSTER_INODES ? most : CLUSTER_INODES))
		return;
	qsort(f->found, f->found_count, sizeof(*f->found), by_number);
	for (size_t i = 0; i < f->found_count; i++)
		if (!kept || inode_id_number(f->found[kept - 1]) != inode_id_number(f->found[i]))
			f->found[kept++] = f->found[i];
	f->found_count = kept;
	if (kept <= most / 2)
		return;
	f->found_count = kept / 2;
	f->found_end = inode_id_number(f->found[kept / 2]);
}

bool fix_reference(struct check *c, uint64_t id, uint64_t addr, const char *who)
{
	if (indexed(c, inode_id_number(id)) || !fix_believable(c, id) ||
	    overlaps_kept(c, inode_id_number(id)) ||
	    (!chk_space_ok(c, inode_id_number(id), 2) && !lengthen(c, inode_id_number(id))))
		return false;
	c->later = c->fix && inode_id_number(id) >= c->fix->found_end;
	if (!chk_report(c, CHECK_INODE_NOT_INDEXED, addr, "%s refers to inode %llu", who,
			(unsigned long long)inode_id_number(id)))
		return true;
	c->fix->hold = true;
	note_found(c, id);
	return true;
}

/* In their order, each once, of two that overlap the first; and no space is allocated there. */
static void settle_found(struct check *c)
{
	struct fix *f = c->fix;
	uint64_t end = 0;
	size_t kept = 0;

	if (f->found_count)
		qsort(f->found, f->found_count, sizeof(*f->found), by_number);
	for (size_t i = 0; i < f->found_count; i++) {
		uint64_t number = inode_id_number(f->found[i]);

		if (number < end || !chk_space_ok(c, number, 2))
			continue;
		f->found[kept++] = f->found[i];
		end = number + 2;
		chk_claim_quietly(c, number, 2);
	}
	f->found_count = kept;
}

/* As many as lie side by side make a cluster; the index gets it. */
void fix_found(struct check *c)
{
	struct fix *f = c->fix;

	settle_found(c);
	for (size_t i = 0; i < f->found_count && !f->err;) {
		uint64_t first = inode_id_number(f->found[i]);
		uint32_t ag, count = 0;

		while (i < f->found_count && count < CLUSTER_INODES) {
			uint64_t number = inode_id_number(f->found[i]);

			if (number != first + 2 * count)
				break;
			count++;
			i++;
		}
		if (super_ag_of(c->s, first << BLOCK_SHIFT, &ag))
			continue;
		index_add(c, ag, (uint32_t)(first - (super_ag_addr(c->s, ag) >> BLOCK_SHIFT)),
			  (uint16_t)((1u << count) - 1), (uint16_t)count);
	}
}

/* ---- lost ---- */

void fix_free(struct check *c, uint64_t number)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED = { 0 };
	struct inode_disk *d = (void *)block;

	d->generation = cpu_to_le32(1 + (uint32_t)env_random_below(c->p->env, 1u << 31));
	fix_inode(c, d, number);
}

static void fill_directory(struct check *c, struct inode_disk *d, uint64_t parent,
			   uint32_t generation)
{
	le64 now = cpu_to_le64(env_realtime_ns(c->p->env));

	memset(d, 0, sizeof(*d));
	d->generation = cpu_to_le32(generation);
	d->mode = cpu_to_le32(S_IFDIR | 0755);
	d->nlink = cpu_to_le32(2);
	d->flags = cpu_to_le32(INODE_INLINE);
	d->atime = d->mtime = d->ctime = d->btime = now;
	d->parent = cpu_to_le64(parent);
}

/* An empty directory under the same id: what it held finds its way back by its names. */
static void make_directory(struct check *c, uint64_t number, uint32_t generation,
			   uint64_t parent)
{
	struct inode_disk *d = (void *)c->levels[0];

	fill_directory(c, d, parent, generation);
	fix_inode(c, d, number);
}

void fix_root(struct check *c)
{
	uint64_t root = c->s->root;

	if (!c->fix->no_root)
		return;
	c->fix->hold = true;
	fix_lock(c, inode_lock_addr(root));
	make_directory(c, inode_id_number(root), inode_id_generation(root), root);
	/* Without a place in the index it is found by the superblock. */
	if (!indexed(c, inode_id_number(root))) {
		uint64_t *found = fix_append(c, (void **)&c->fix->found, &c->fix->found_count,
					     &c->fix->found_room, sizeof(*found));

		if (found)
			*found = root;
	}
}

/* Whose parent is lost says what that was, and its generation. */
static void children_tell(struct check *c)
{
	struct inode_disk *d = (void *)c->levels[0];

	for (size_t i = 0; i < c->inode_count; i++) {
		struct chk_inode *ino = &c->inodes[i], *up;

		if (!ino->type || ino->flags & (CHK_LED_BACK | CHK_CHILDREN | CHK_ORPHAN))
			continue;
		up = chk_find_number(c, ino->parent);
		if (!up || up->type || !(up->flags & CHK_LOST) || up->flags & CHK_MAKE_DIR ||
		    fix_read_inode(c, chk_number(c, ino), d))
			continue;
		up->flags |= CHK_MAKE_DIR;
		up->generation = inode_id_generation(le64_to_cpu(d->parent)) & INODE_GENERATION_MASK;
		up->parent = c->s->root & CHK_NUMBER_MASK;
	}
}

/* The id of the directory that @ino is to be in. */
static uint64_t parent_id(struct check *c, const struct chk_inode *ino)
{
	const struct chk_inode *up = chk_find_number(c, ino->parent);

	if (!up || ino->parent == inode_id_number(c->s->root))
		return c->s->root;
	return inode_id_make(ino->parent, (uint32_t)up->generation);
}

void fix_lost(struct check *c)
{
	uint64_t root = inode_id_number(c->s->root);

	children_tell(c);
	for (size_t i = 0; i < c->inode_count && !c->fix->err; i++) {
		struct chk_inode *ino = &c->inodes[i];
		uint64_t number;

		if (!(ino->flags & CHK_LOST))
			continue;
		number = chk_number(c, ino);
		c->fix->hold = true;
		if (number == root)
			make_directory(c, root, inode_id_generation(c->s->root), c->s->root);
		else if (ino->flags & CHK_MAKE_DIR)
			make_directory(c, number, (uint32_t)ino->generation, parent_id(c, ino));
		else
			fix_free(c, number);
	}
}

/* ---- made ---- */

static int more_inodes(struct check *c)
{
	uint64_t first = fix_alloc(c, CLUSTER_BLOCKS);
	uint32_t ag;

	if (!first || super_ag_of(c->s, first << BLOCK_SHIFT, &ag))
		return -ENOSPC;
	for (uint32_t i = 0; i < CLUSTER_INODES; i++) {
		fix_lock(c, inode_lock_addr(first + 2 * i));
		fix_free(c, first + 2 * i);
		c->fix->spares[c->fix->spare_count++] = first + 2 * i;
	}
	return index_add(c, ag, (uint32_t)(first - (super_ag_addr(c->s, ag) >> BLOCK_SHIFT)), 0,
			 CLUSTER_INODES);
}

uint64_t fix_inode_new(struct check *c, uint32_t mode, uint32_t flags, uint64_t parent,
		       const char *name)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	uint64_t number;
	uint32_t generation;

	if (!c->fix->spare_count && more_inodes(c))
		return 0;
	number = c->fix->spares[--c->fix->spare_count];
	if (fix_read_inode(c, number, d))
		return 0;
	generation = le32_to_cpu(d->generation) + 1;
	fill_directory(c, d, parent, generation);
	d->mode = cpu_to_le32(mode);
	d->flags = cpu_to_le32(flags);
	d->name_len = cpu_to_le16((uint16_t)strlen(name));
	memcpy(d->name, name, strlen(name));
	return fix_inode(c, d, number) ? 0 : inode_id_make(number, generation);
}

/* ---- orphans ---- */

static bool put_on_list(struct check *c, uint64_t id)
{
	struct orphan_disk *d = (void *)c->levels[0];

	for (uint32_t n = 0; n < c->s->slot_count * c->s->orphan_blocks; n++) {
		uint32_t slot = n / c->s->orphan_blocks;
		uint64_t addr = super_orphan_addr(c->s, slot, n % c->s->orphan_blocks);
		struct meta_expect e = { META_ORPHAN, c->s->volume, addr, slot, 0 };

		if (blkdev_read(c->dev, addr, d, BLOCK_SIZE) || meta_verify(d, &e, NULL, 0))
			continue;
		for (uint32_t k = 0; k < ORPHAN_ENTRIES; k++)
			if (!le64_to_cpu(d->ids[k])) {
				d->ids[k] = cpu_to_le64(id);
				return !fix_seal(c, d, &e);
			}
	}
	return false;
}

void fix_orphans(struct check *c)
{
	for (size_t i = 0; i < c->inode_count && !c->fix->err; i++) {
		struct chk_inode *ino = &c->inodes[i];

		if (ino->flags & CHK_RELIST &&
		    !put_on_list(c, inode_id_make(chk_number(c, ino), (uint32_t)ino->generation)))
			return;
	}
}
