/* SPDX-License-Identifier: Apache-2.0 */
/* A group's inode clusters: finding a free inode, making clusters. */
#include <errno.h>
#include <stdlib.h>

#include "fs/ag.h"
#include "fs/cluster.h"
#include "fs/file_io.h"
#include "lockd/lockrec.h"

#define GROW_CREDITS	6	/* header, two bitmap blocks, old and new index block; one spare */
#define INDEX_BLOCKS_MAX 65536u	/* of a group: a longer chain is a loop */

/* ---- the summary in memory ---- */

void itable_unload(struct ag *ag)
{
	struct itable *it = &ag->itable;
	uint32_t i;

	for (i = 0; i < it->buf_count; i++)
		buf_put(ag->fs, it->bufs[i]);
	free(it->bufs);
	free(it->clusters);
	free(it->sorted);
	memset(it, 0, sizeof(*it));
}

static uint16_t cluster_mask(const struct icluster *c)
{
	return (uint16_t)((1u << c->count) - 1);
}

static uint16_t cluster_free(const struct icluster *c)
{
	return (uint16_t)(cluster_mask(c) & ~(c->used | c->reserved));
}

/* Puts the cluster on the list of those that may have a free inode. */
static void cluster_list(struct itable *it, uint32_t i)
{
	struct icluster *c = &it->clusters[i];

	if (c->listed)
		return;
	c->listed = true;
	c->next_free = it->free_head;
	it->free_head = i + 1;
}

/* Where in @it->sorted a cluster that begins at @block is, or would be. */
static uint32_t sorted_place(const struct itable *it, uint32_t block)
{
	uint32_t low = 0, high = it->count, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (it->clusters[it->sorted[mid]].block < block)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int clusters_room(struct itable *it)
{
	uint32_t max = it->max ? 2 * it->max : 64;
	void *p;

	if (it->count < it->max)
		return 0;
	p = realloc(it->clusters, max * sizeof(*it->clusters));
	if (!p)
		return -ENOMEM;
	it->clusters = p;
	p = realloc(it->sorted, max * sizeof(*it->sorted));
	if (!p)
		return -ENOMEM;
	it->sorted = p;
	it->max = max;
	return 0;
}

/* Whether @count inodes at @block would share space with a cluster that there is. */
static bool cluster_overlaps(const struct itable *it, uint32_t block, uint32_t count)
{
	uint32_t place = sorted_place(it, block);
	const struct icluster *c;

	if (place < it->count && it->clusters[it->sorted[place]].block - block < 2 * count)
		return true;
	if (!place)
		return false;
	c = &it->clusters[it->sorted[place - 1]];
	return block - c->block < 2u * c->count;
}

/* clusters_room() was made. */
static void cluster_add(struct itable *it, const struct icluster *c)
{
	uint32_t place = sorted_place(it, c->block), i = it->count;

	memmove(it->sorted + place + 1, it->sorted + place,
		(it->count - place) * sizeof(*it->sorted));
	it->sorted[place] = i;
	it->clusters[i] = *c;
	it->count++;
	if (cluster_free(c))
		cluster_list(it, i);
}

/* The cluster that holds inode @number, and which of its inodes that is. */
static struct icluster *cluster_of(struct ag *ag, uint64_t number, unsigned int *inode)
{
	struct itable *it = &ag->itable;
	uint32_t block, place;
	struct icluster *c;

	if (number < ag->start || number >= ag->start + ag->blocks)
		return NULL;
	block = (uint32_t)(number - ag->start);
	place = sorted_place(it, block + 1);
	if (!place)
		return NULL;
	c = &it->clusters[it->sorted[place - 1]];
	if (block - c->block >= 2u * c->count || (block - c->block) % 2)
		return NULL;
	*inode = (block - c->block) / 2;
	return c;
}

/* ---- reading the index ---- */

static int entry_check(struct ag *ag, const struct buf *b, const struct icluster *c)
{
	if (c->count >= 1 && c->count <= CLUSTER_INODES && !(c->used & ~cluster_mask(c)) &&
	    c->block >= super_ag_meta(&ag->fs->super) && c->block < ag->blocks &&
	    2u * c->count <= ag->blocks - c->block)
		return 0;
	return ag_damaged(ag, b->addr, "entry %u: a cluster of %u inodes at block %u, 0x%x in use",
			  c->entry, c->count, c->block, c->used);
}

static int index_load(struct ag *ag, struct buf *b, uint32_t index)
{
	const struct itable_disk *d = b->data;
	uint32_t count = le32_to_cpu(d->count), i;
	int err = 0;

	if (count > ITABLE_ENTRIES)
		return ag_damaged(ag, b->addr, "%u entries, at most %u", count,
				  (unsigned int)ITABLE_ENTRIES);
	for (i = 0; i < count && !err; i++) {
		struct icluster c = { .index = index, .entry = (uint16_t)i,
			.block = le32_to_cpu(d->entries[i].block),
			.used = le16_to_cpu(d->entries[i].used),
			.count = le16_to_cpu(d->entries[i].count) };

		err = entry_check(ag, b, &c);
		if (!err && cluster_overlaps(&ag->itable, c.block, c.count))
			err = ag_damaged(ag, b->addr, "entry %u: its cluster at block %u is partly "
					 "in another one", i, c.block);
		if (!err)
			err = clusters_room(&ag->itable);
		if (!err)
			cluster_add(&ag->itable, &c);
	}
	return err;
}

/* Adds a place for one more index block. */
static int bufs_room(struct itable *it)
{
	struct buf **bufs = realloc(it->bufs, (it->buf_count + 1) * sizeof(struct buf *));

	if (!bufs)
		return -ENOMEM;
	it->bufs = bufs;
	return 0;
}

static int itable_load(struct ag *ag)
{
	struct itable *it = &ag->itable;
	uint64_t next = le64_to_cpu(ag_disk(ag)->itable);
	struct buf *b;
	int err = 0;

	while (next && !err) {
		struct meta_expect e = { .type = META_ITABLE, .owner = ag->index,
			.addr = bptr_addr(next), .birth = bptr_birth(next) };

		if (it->buf_count == INDEX_BLOCKS_MAX)
			err = ag_damaged(ag, e.addr, "the inode index has no end");
		if (!err)
			err = bufs_room(it);
		if (!err)
			err = buf_get(ag->fs, &ag->cover, &e, &b);
		if (err)
			break;
		it->bufs[it->buf_count++] = b;
		err = index_load(ag, b, it->buf_count - 1);
		next = le64_to_cpu(((const struct itable_disk *)b->data)->next);
	}
	if (err)
		itable_unload(ag);
	else
		it->loaded = true;
	return err;
}

/* ---- one more cluster ---- */

/* What a thread that makes a cluster has in hand. */
struct grow {
	struct alloc_run cluster;
	struct alloc_run index;		/* count 0: the last index block has room */
	struct buf *room;		/* for the index block */
};

static int grow_reserve(struct ag *ag, struct grow *g)
{
	struct itable *it = &ag->itable;
	uint32_t count = CLUSTER_BLOCKS;
	const struct itable_disk *last;
	int err;

	memset(g, 0, sizeof(*g));
	err = clusters_room(it);
	if (!err)
		err = bufs_room(it);
	if (err)
		return err;
	do {
		err = ag_reserve(ag, count, 0, &g->cluster);
		count /= 2;
	} while (err == -ENOSPC && count >= 2);
	if (err)
		return err;
	if (cluster_overlaps(it, (uint32_t)(g->cluster.block - ag->start), g->cluster.count / 2)) {
		err = ag_damaged(ag, g->cluster.block << BLOCK_SHIFT,
				 "the bitmap says that inodes are free space: run fsck.lunfs");
		ag_unreserve(ag, &g->cluster);
		return err;
	}
	last = it->buf_count ? it->bufs[it->buf_count - 1]->data : NULL;
	if (last && le32_to_cpu(last->count) < ITABLE_ENTRIES)
		return 0;
	g->room = buf_room(ag->fs);
	err = g->room ? ag_reserve(ag, 1, 0, &g->index) : -ENOMEM;
	if (err) {
		buf_room_free(g->room);
		ag_unreserve(ag, &g->cluster);
	}
	return err;
}

static void grow_unreserve(struct ag *ag, struct grow *g)
{
	buf_room_free(g->room);
	if (!g->cluster.taken)
		ag_unreserve(ag, &g->cluster);
	if (g->index.count && !g->index.taken)
		ag_unreserve(ag, &g->index);
}

/*
 * The cluster's blocks: free locks, free inodes whose generations start at random, so that
 * no id of an earlier life of the volume fits.
 */
static int cluster_write(struct fs *fs, const struct alloc_run *run)
{
	uint8_t *mem = blkdev_alloc((size_t)run->count * BLOCK_SIZE);
	uint32_t i;
	int err;

	if (!mem)
		return -ENOMEM;
	for (i = 0; i + 1 < run->count; i += 2) {
		uint64_t number = run->block + i;
		struct inode_disk *d = (void *)(mem + (size_t)(i + 1) * BLOCK_SIZE);
		struct meta_expect e = { .type = META_INODE, .volume = fs->super.volume,
			.addr = inode_block_addr(number), .owner = number };
		struct lockrec r;

		lockrec_init(fs->env, &r);
		lockrec_encode(&r, fs->super.volume, inode_lock_addr(number),
			       mem + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
		d->generation = cpu_to_le32((uint32_t)env_random_below(fs->env, 1u << 24));
		meta_seal(d, &e, 1);
	}
	err = blkdev_write(fs->dev, run->block << BLOCK_SHIFT, mem, (size_t)run->count * BLOCK_SIZE);
	file_data_written(fs, err);
	free(mem);
	return err == -ESTALE ? -EIO : err;
}

/* A new index block at the end of the chain. */
static int index_append(struct txn *txn, struct ag *ag, struct grow *g)
{
	struct itable *it = &ag->itable;
	struct meta_expect e = { .type = META_ITABLE, .owner = ag->index,
		.addr = g->index.block << BLOCK_SHIFT };
	struct itable_disk *last;
	struct buf *b;
	int err;

	err = buf_new_in(ag->fs, &ag->cover, &e, &g->room, &b);
	if (err)
		return err;
	err = ag_take(txn, ag, &g->index);
	if (err) {
		buf_drop(ag->fs, txn, b);
		return err;
	}
	txn_dirty(txn, b, ag->version);
	if (it->buf_count) {
		last = it->bufs[it->buf_count - 1]->data;
		txn_dirty(txn, it->bufs[it->buf_count - 1], ag->version);
		last->next = cpu_to_le64(BPTR(g->index.block, 0));
	} else {
		ag_change(txn, ag)->itable = cpu_to_le64(BPTR(g->index.block, 0));
	}
	it->bufs[it->buf_count++] = b;
	return 0;
}

/* The cluster, written before, enters the index. */
static int grow_commit(struct txn *txn, struct ag *ag, struct grow *g)
{
	struct itable *it = &ag->itable;
	struct icluster c = { .block = (uint32_t)(g->cluster.block - ag->start),
		.count = (uint16_t)(g->cluster.count / 2) };
	struct itable_disk *d;
	struct ag_disk *h;
	int err = 0;

	/* In this order: an index block without entries does no harm, a cluster without one does. */
	if (g->index.count)
		err = index_append(txn, ag, g);
	if (!err)
		err = ag_take(txn, ag, &g->cluster);
	if (err)
		return err;
	c.index = it->buf_count - 1;
	d = it->bufs[c.index]->data;
	txn_dirty(txn, it->bufs[c.index], ag->version);
	c.entry = (uint16_t)le32_to_cpu(d->count);
	d->entries[c.entry] = (struct itable_entry_disk){ .block = cpu_to_le32(c.block),
		.used = cpu_to_le16(0), .count = cpu_to_le16(c.count) };
	d->count = cpu_to_le32(c.entry + 1u);
	h = ag_change(txn, ag);
	h->inodes_free = cpu_to_le32(le32_to_cpu(h->inodes_free) + c.count);
	cluster_add(it, &c);
	return 0;
}

/* Makes and indexes a cluster.  ag->mutex is held, and given up meanwhile. */
static int itable_grow(struct ag *ag)
{
	struct fs *fs = ag->fs;
	struct txn txn;
	struct grow g;
	int err;

	err = grow_reserve(ag, &g);
	if (err)
		return err;
	ag->itable.growing = true;
	env_mutex_unlock(fs->env, &ag->mutex);
	err = cluster_write(fs, &g.cluster);
	if (!err)
		err = txn_begin(fs, GROW_CREDITS, &txn);
	env_mutex_lock(fs->env, &ag->mutex);
	if (!err) {
		err = grow_commit(&txn, ag, &g);
		txn_end(&txn);
	}
	grow_unreserve(ag, &g);
	ag->itable.growing = false;
	env_cond_broadcast(fs->env, &ag->changed);
	return err;
}

/* ---- reserving, taking, freeing ---- */

/* Any free inode of the summary; false if there is none. */
static bool itable_pick(struct ag *ag, uint64_t *number)
{
	struct itable *it = &ag->itable;
	struct icluster *c;
	int inode;

	while (it->free_head) {
		c = &it->clusters[it->free_head - 1];
		inode = __builtin_ffs(cluster_free(c)) - 1;
		if (inode >= 0) {
			c->reserved |= (uint16_t)(1u << inode);
			*number = ag->start + c->block + 2u * (unsigned int)inode;
			return true;
		}
		c->listed = false;
		it->free_head = c->next_free;
	}
	return false;
}

static int itable_reserve_in(struct ag *ag, void *arg)
{
	struct env *env = ag->fs->env;
	int err = 0;

	env_mutex_lock(env, &ag->mutex);
	if (!ag->itable.loaded)
		err = itable_load(ag);
	while (!err && !itable_pick(ag, arg)) {
		if (ag->itable.growing)
			env_cond_wait(env, &ag->changed, &ag->mutex, ENV_FOREVER);
		else
			err = itable_grow(ag);
	}
	env_mutex_unlock(env, &ag->mutex);
	return err;
}

static int reserve(struct fs *fs, uint64_t near, bool try, struct alloc_hold *hold,
		   uint64_t *number)
{
	struct ag_want want = { .blocks = 3, .inode = true, .take = itable_reserve_in,
		.arg = number, .prefer = UINT32_MAX, .try = try };
	struct ag *ag;
	int err;

	if (near && super_ag_of(&fs->super, inode_lock_addr(near), &want.prefer))
		want.prefer = UINT32_MAX;
	err = ag_choose(fs, &want, &ag);
	if (err)
		return err;
	hold->ag = ag;
	hold->run_count = 0;
	return 0;
}

int itable_reserve(struct fs *fs, uint64_t near, struct alloc_hold *hold, uint64_t *number)
{
	return reserve(fs, near, false, hold, number);
}

int itable_reserve_try(struct fs *fs, uint64_t near, struct alloc_hold *hold, uint64_t *number)
{
	return reserve(fs, near, true, hold, number);
}

/* Sets or clears the inode's bit on disk and in memory. */
static void mark(struct txn *txn, struct ag *ag, struct icluster *c, unsigned int inode,
		 bool used)
{
	struct ag_disk *h = ag_change(txn, ag);
	struct buf *b = ag->itable.bufs[c->index];
	struct itable_disk *d = b->data;
	int32_t step = used ? 1 : -1;

	txn_dirty(txn, b, ag->version);
	c->used ^= (uint16_t)(1u << inode);
	d->entries[c->entry].used = cpu_to_le16(c->used);
	h->inodes_used = cpu_to_le32(le32_to_cpu(h->inodes_used) + (uint32_t)step);
	h->inodes_free = cpu_to_le32(le32_to_cpu(h->inodes_free) - (uint32_t)step);
}

int itable_take(struct txn *txn, struct alloc_hold *hold, uint64_t number)
{
	struct ag *ag = hold->ag;
	struct icluster *c;
	unsigned int inode;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	c = cluster_of(ag, number, &inode);
	assert(c && c->reserved & 1u << inode);
	c->reserved &= (uint16_t)~(1u << inode);
	mark(txn, ag, c, inode, true);
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return 0;
}

int itable_free(struct txn *txn, struct alloc_pin *pin, uint64_t number)
{
	struct ag *ag = pin->ag;
	struct icluster *c;
	unsigned int inode;
	int err = 0;

	env_mutex_lock(ag->fs->env, &ag->mutex);
	if (!ag->itable.loaded)
		err = itable_load(ag);
	c = err ? NULL : cluster_of(ag, number, &inode);
	if (!err && (!c || !(c->used & 1u << inode)))
		err = ag_damaged(ag, inode_lock_addr(number),
				 "inode to be freed, which the index does not say is in use");
	if (!err) {
		mark(txn, ag, c, inode, false);
		cluster_list(&ag->itable, (uint32_t)(c - ag->itable.clusters));
	}
	env_mutex_unlock(ag->fs->env, &ag->mutex);
	return err;
}

void itable_put(struct fs *fs, struct alloc_hold *hold, uint64_t number)
{
	struct ag *ag = hold->ag;
	struct icluster *c;
	unsigned int inode;

	if (!ag)
		return;
	env_mutex_lock(fs->env, &ag->mutex);
	c = cluster_of(ag, number, &inode);
	if (c && c->reserved & 1u << inode) {
		c->reserved &= (uint16_t)~(1u << inode);
		cluster_list(&ag->itable, (uint32_t)(c - ag->itable.clusters));
	}
	env_mutex_unlock(fs->env, &ag->mutex);
	alloc_put(fs, hold);
}
