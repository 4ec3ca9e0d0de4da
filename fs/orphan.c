// SPDX-License-Identifier: Apache-2.0
/*
 * The list on disk is an array of inode ids; in memory each place has a struct orphan.  An
 * entry counts only while its inode says INODE_ORPHAN: one whose inode is free, of another
 * generation or clean is dropped, so adopting or finishing twice does no harm.
 */
#include "fs/orphan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/cluster.h"
#include "fs/orphan_list.h"

static struct meta_expect orphan_expect(const struct fs *fs, uint32_t slot, uint32_t block)
{
	return (struct meta_expect){
		.type = META_ORPHAN,
		.volume = fs->super.volume,
		.addr = super_orphan_addr(&fs->super, slot, block),
		.owner = slot,
	};
}

/* Enters the id at @index of the loaded list.  mutex held or not yet needed. */
static void orphan_enter(struct orphans *o, struct orphan *entry, uint64_t id)
{
	entry->id = id;
	list_del(&entry->link);
	entry->in_table = !table_find(&o->by_id, id);
	if (entry->in_table)
		/* Cannot fail: the table has buckets since orphan_open(). */
		table_insert(&o->by_id, &entry->node, id);
	else
		o->doubles++;
	o->used++;
}

static void orphan_leave(struct orphans *o, struct orphan *entry)
{
	if (entry->in_table)
		table_remove(&o->by_id, &entry->node);
	else
		o->doubles--;
	entry->in_table = false;
	entry->id = 0;
	list_del(&entry->link);
	list_add_head(&o->free, &entry->link);
	o->used--;
	env_cond_broadcast(o->fs->env, &o->changed);
}

struct orphan *orphan_find(struct orphans *o, uint64_t id)
{
	struct table_node *node = table_find(&o->by_id, id);

	return node ? container_of(node, struct orphan, node) : NULL;
}

void orphan_queue(struct orphans *o, struct orphan *entry, uint64_t not_before_ns)
{
	entry->not_before_ns = not_before_ns;
	list_del(&entry->link);
	list_add_tail(&o->queue, &entry->link);
	env_cond_broadcast(o->fs->env, &o->changed);
}

/* ---- loading ---- */

static int orphan_load_block(struct orphans *o, uint32_t block)
{
	struct fs *fs = o->fs;
	struct meta_expect e = orphan_expect(fs, o->slot, block);
	const struct orphan_disk *d;
	struct orphan *entry;
	uint64_t id;
	uint32_t i;
	int err;

	err = buf_get(fs, &o->cover, &e, &o->bufs[block]);
	if (err)
		return err;
	d = o->bufs[block]->data;
	if (meta_version(d) > o->version)
		o->version = meta_version(d);
	for (i = 0; i < ORPHAN_ENTRIES; i++) {
		entry = &o->places[block * ORPHAN_ENTRIES + i];
		entry->index = block * ORPHAN_ENTRIES + i;
		list_init(&entry->link);
		id = le64_to_cpu(d->ids[i]);
		if (!id) {
			list_add_tail(&o->free, &entry->link);
			continue;
		}
		orphan_enter(o, entry, id);
		orphan_queue(o, entry, 0);
	}
	return 0;
}

static int orphan_load(struct orphans *o)
{
	uint32_t block;
	int err;

	err = table_reserve(&o->by_id);
	if (err)
		return err;
	for (block = 0; block < o->blocks; block++) {
		err = orphan_load_block(o, block);
		if (err)
			return err;
	}
	if (o->used)
		log_info(o->fs->env, o->fs->label, "finishing %u deletions or truncations that a "
			 "crash of this slot left", o->used);
	return 0;
}

static void orphan_node_out(struct table_node *node, void *arg)
{
	table_remove(arg, node);
}

static void orphan_free_all(struct orphans *o)
{
	uint32_t block;

	for (block = 0; block < o->blocks; block++)
		buf_put(o->fs, o->bufs[block]);
	buf_forget_cover(o->fs, &o->cover);
	table_each(&o->by_id, orphan_node_out, &o->by_id);
	table_fini(&o->by_id);
	env_cond_fini(o->fs->env, &o->changed);
	env_mutex_fini(o->fs->env, &o->mutex);
	free(o->places);
	free(o);
}

int orphan_open(struct fs *fs, struct orphans **out)
{
	struct orphans *o = calloc(1, sizeof(*o));
	int err = -ENOMEM;

	if (!o)
		return err;
	o->fs = fs;
	o->blocks = fs->super.orphan_blocks < ORPHAN_BLOCKS ? fs->super.orphan_blocks :
		    ORPHAN_BLOCKS;
	o->slot = fs->lockd ? lockd_slot(fs->lockd) : 0;
	list_init(&o->cover.bufs);
	lock_init(&o->cover.lock, 0, o);
	list_init(&o->free);
	list_init(&o->queue);
	table_init(&o->by_id);
	env_mutex_init(fs->env, &o->mutex);
	env_cond_init(fs->env, &o->changed);
	o->places = calloc(o->blocks * ORPHAN_ENTRIES, sizeof(*o->places));
	if (o->places)
		err = orphan_load(o);
	if (err) {
		orphan_free_all(o);
		return err;
	}
	fs->orphans = o;	/* the reaper finds it there */
	err = env_thread_start(fs->env, "lunfs-reaper", orphan_reaper, o, &o->thread);
	if (err) {
		fs->orphans = NULL;
		orphan_free_all(o);
		return err;
	}
	*out = o;
	return 0;
}

void orphan_stop(struct orphans *o)
{
	if (!o || !o->thread)
		return;
	env_mutex_lock(o->fs->env, &o->mutex);
	o->stopping = true;
	env_cond_broadcast(o->fs->env, &o->changed);
	env_mutex_unlock(o->fs->env, &o->mutex);
	env_thread_join(o->fs->env, o->thread);
	o->thread = NULL;
}

void orphan_close(struct orphans *o)
{
	if (!o)
		return;
	orphan_stop(o);
	orphan_free_all(o);
}

/* ---- changes ---- */

int orphan_reserve(struct fs *fs)
{
	struct orphans *o = fs->orphans;
	unsigned int total = o->blocks * ORPHAN_ENTRIES;
	int err = 0;

	env_mutex_lock(fs->env, &o->mutex);
	/* The reaper is behind: let it catch up rather than run out of places. */
	while (o->used + o->reserved >= total - total / 4 && orphan_has_work(o) && !o->stopping)
		env_cond_wait(fs->env, &o->changed, &o->mutex, ENV_FOREVER);
	if (o->used + o->reserved >= total)
		err = -ENOSPC;
	else
		o->reserved++;
	env_mutex_unlock(fs->env, &o->mutex);
	return err;
}

void orphan_unreserve(struct fs *fs)
{
	struct orphans *o = fs->orphans;

	env_mutex_lock(fs->env, &o->mutex);
	assert(o->reserved > 0);
	o->reserved--;
	env_cond_broadcast(fs->env, &o->changed);
	env_mutex_unlock(fs->env, &o->mutex);
}

/* Stores @id at @index of our list.  mutex held. */
static void orphan_write(struct txn *txn, struct orphans *o, uint32_t index, uint64_t id)
{
	struct buf *buf = o->bufs[index / ORPHAN_ENTRIES];
	struct orphan_disk *d;

	txn_dirty(txn, buf, ++o->version);
	d = buf->data;
	d->ids[index % ORPHAN_ENTRIES] = cpu_to_le64(id);
}

int orphan_add(struct txn *txn, struct inode *ino, struct inode_disk *di)
{
	struct orphans *o = txn->fs->orphans;
	struct orphan *entry;

	env_mutex_lock(o->fs->env, &o->mutex);
	assert(o->reserved > 0 && !list_empty(&o->free));
	o->reserved--;
	if (!orphan_find(o, ino->id)) {
		entry = list_first(&o->free, struct orphan, link);
		orphan_enter(o, entry, ino->id);
		orphan_write(txn, o, entry->index, ino->id);
	}
	env_mutex_unlock(o->fs->env, &o->mutex);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_ORPHAN);
	return 0;
}

/* Strikes @id off our list, wherever it is there. */
void orphan_strike(struct txn *txn, uint64_t id)
{
	struct orphans *o = txn->fs->orphans;
	struct orphan *entry;
	uint32_t i;

	env_mutex_lock(o->fs->env, &o->mutex);
	for (i = 0; o->doubles && i < o->blocks * ORPHAN_ENTRIES; i++) {
		entry = &o->places[i];
		if (entry->id != id || entry->in_table)
			continue;
		orphan_write(txn, o, entry->index, 0);
		orphan_leave(o, entry);
	}
	entry = orphan_find(o, id);
	if (entry) {
		orphan_write(txn, o, entry->index, 0);
		orphan_leave(o, entry);
	}
	env_mutex_unlock(o->fs->env, &o->mutex);
}

int orphan_remove(struct txn *txn, struct inode *ino, struct inode_disk *di)
{
	orphan_strike(txn, ino->id);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) & ~(uint32_t)INODE_ORPHAN);
	di->shrink_to = cpu_to_le64(0);
	return 0;
}

void orphan_kick(struct fs *fs, uint64_t id)
{
	struct orphans *o = fs->orphans;
	struct orphan *entry;

	env_mutex_lock(fs->env, &o->mutex);
	entry = orphan_find(o, id);
	if (entry)
		orphan_queue(o, entry, 0);
	env_mutex_unlock(fs->env, &o->mutex);
}

/* ---- adoption ---- */

/* Moves what fits from one block of a dead slot's list to ours, in one transaction. */
static int orphan_adopt_block(struct orphans *o, struct cover *cover, uint32_t slot,
			      uint32_t block, unsigned int *moved)
{
	struct fs *fs = o->fs;
	struct meta_expect e = orphan_expect(fs, slot, block);
	struct orphan_disk *d;
	struct orphan *entry;
	struct buf *buf;
	struct txn txn;
	uint32_t i;
	int err;

	err = buf_get(fs, cover, &e, &buf);
	if (err)
		return err;
	err = txn_begin(fs, 1 + o->blocks, &txn);
	if (err)
		goto put_buf;
	txn_dirty(&txn, buf, buf->version + 1);
	d = buf->data;
	env_mutex_lock(fs->env, &o->mutex);
	for (i = 0; i < ORPHAN_ENTRIES; i++) {
		if (!le64_to_cpu(d->ids[i]) || o->used + o->reserved >= o->blocks * ORPHAN_ENTRIES)
			continue;
		entry = list_first(&o->free, struct orphan, link);
		orphan_enter(o, entry, le64_to_cpu(d->ids[i]));
		orphan_write(&txn, o, entry->index, entry->id);
		orphan_queue(o, entry, 0);
		d->ids[i] = cpu_to_le64(0);
		++*moved;
	}
	env_mutex_unlock(fs->env, &o->mutex);
	txn_end(&txn);
put_buf:
	buf_put(fs, buf);
	return err;
}

int orphan_adopt(struct fs *fs, uint32_t slot)
{
	struct orphans *o = fs->orphans;
	struct cover cover = { 0 };
	unsigned int moved = 0;
	uint32_t block;
	int err = 0, settled;

	/* The recovery is our exclusive lock on the dead slot's list (R1). */
	list_init(&cover.bufs);
	lock_init(&cover.lock, 0, &cover);
	for (block = 0; block < o->blocks && !err; block++) {
		err = orphan_adopt_block(o, &cover, slot, block, &moved);
		/* A damaged block must not keep the slot from being recovered: it is logged,
		 * its inodes stay allocated until fsck finds them. */
		if (err == -EUCLEAN || err == -EBADMSG)
			err = 0;
	}
	settled = journal_settle(fs);
	if (settled)
		err = settled;
	buf_forget_cover(fs, &cover);
	if (moved)
		log_info(fs->env, fs->label, "slot %u: %u deletions or truncations taken over",
			 slot, moved);
	return err;
}
