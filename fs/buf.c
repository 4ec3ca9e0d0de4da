/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/bufmem.h"
#include "fs/fs.h"
#include "fs/grow.h"

#define BUF_BYTES_MAX	(32 * MIB)	/* unused buffers beyond that are freed */
#define BUF_REPORTS	64u		/* remembered, so that a bad block is logged once */

struct buf_cache {
	struct env	*env;
	struct env_mutex mutex;
	struct env_cond	loaded;
	struct bufmem	*memory;
	struct table	table;
	struct list	lru;		/* unused ones, oldest first */
	size_t		unused_max;
	size_t		unused;
	uint64_t	reported[BUF_REPORTS];
};

int buf_cache_new(struct fs *fs, struct buf_cache **out)
{
	struct buf_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->env = fs->env;
	c->unused_max = BUF_BYTES_MAX / BLOCK_SIZE;
	env_mutex_init(c->env, &c->mutex);
	env_cond_init(c->env, &c->loaded);
	table_init(&c->table);
	list_init(&c->lru);
	c->memory = bufmem_new(c->env);
	if (!c->memory || table_reserve(&c->table)) {
		buf_cache_free(c);
		return -ENOMEM;
	}
	*out = c;
	return 0;
}

static void buf_free(struct buf *b)
{
	bufmem_put(b->chunk, b->data);
	free(b);
}

/* Out of the table, the cover and the LRU; the cache's mutex is held. */
static void buf_unlink(struct buf_cache *c, struct buf *b)
{
	table_remove(&c->table, &b->node);
	list_del(&b->cover_node);
	if (!list_empty(&b->lru)) {
		list_del(&b->lru);
		c->unused--;
	}
	b->cover = NULL;
}

static void buf_free_node(struct table_node *n, void *arg)
{
	struct buf *b = container_of(n, struct buf, node);

	buf_unlink(arg, b);
	buf_free(b);
}

void buf_cache_free(struct buf_cache *c)
{
	if (!c)
		return;
	table_each(&c->table, buf_free_node, c);
	table_fini(&c->table);
	bufmem_free(c->memory);
	env_cond_fini(c->env, &c->loaded);
	env_mutex_fini(c->env, &c->mutex);
	free(c);
}

struct buf *buf_room(struct fs *fs)
{
	struct buf *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->data = bufmem_get(fs->bufs->memory, &b->chunk);
	if (!b->data) {
		free(b);
		return NULL;
	}
	return b;
}

void buf_room_free(struct buf *room)
{
	if (room)
		buf_free(room);
}

static void buf_init(struct buf *b, struct cover *cover, const struct meta_expect *e)
{
	b->cover = cover;
	b->addr = e->addr;
	b->type = e->type;
	b->owner = e->owner;
	b->birth = e->birth;
	b->refs = 1;
	list_init(&b->cover_node);
	list_init(&b->txn_node);
	list_init(&b->lru);
	list_init(&b->kept);
}

static struct buf *buf_find(struct buf_cache *c, uint64_t addr)
{
	struct table_node *n = table_find(&c->table, addr);

	return n ? container_of(n, struct buf, node) : NULL;
}

static void buf_take(struct buf_cache *c, struct buf *b)
{
	if (!b->refs++) {
		list_del(&b->lru);
		c->unused--;
	}
}

/* A damaged block is met again and again; one line about it is enough (R6). */
static bool report_is_new(struct buf_cache *c, uint64_t addr)
{
	unsigned int i = (unsigned int)(addr >> BLOCK_SHIFT) % BUF_REPORTS;
	bool fresh;

	env_mutex_lock(c->env, &c->mutex);
	fresh = c->reported[i] != addr;
	c->reported[i] = addr;
	env_mutex_unlock(c->env, &c->mutex);
	return fresh;
}

static void report(struct fs *fs, const struct meta_expect *e, const char *why)
{
	char object[128];

	if (!report_is_new(fs->bufs, e->addr))
		return;
	snprintf(object, sizeof(object), "%s: block 0x%llx", fs->label,
		 (unsigned long long)e->addr);
	log_error(fs->env, object, "%s: %s", meta_type_name(e->type), why);
}

/* The volume's id is ours to add; callers need not. */
static struct meta_expect expect_here(struct fs *fs, const struct meta_expect *e)
{
	struct meta_expect full = *e;

	full.volume = fs->super.volume;
	return full;
}

static bool addr_is_on_volume(struct fs *fs, uint64_t addr)
{
	if (addr % BLOCK_SIZE || addr < SUPER_ADDR)
		return false;
	/* It may have grown since this host last looked. */
	return addr <= super_size(&fs->super) - BLOCK_SIZE ||
	       (!fs_super_refresh(fs) && addr <= super_size(&fs->super) - BLOCK_SIZE);
}

/* Our slot's loss is -EIO here: -ESTALE says to callers that an inode is gone. */
static int read_error(int err)
{
	return err == -ESTALE ? -EIO : err;
}

static int block_read(struct fs *fs, const struct meta_expect *e, void *data, char *why,
		      size_t why_size)
{
	struct meta_expect full = expect_here(fs, e);
	int err = 0;

	if (!addr_is_on_volume(fs, e->addr)) {
		snprintf(why, why_size, "the pointer to it leads off the volume");
		return -EUCLEAN;
	}
	if (!fs->journal || !journal_lookup(fs, e->addr, data))
		err = blkdev_read(fs->dev, e->addr, data, BLOCK_SIZE);
	if (err) {
		/* The loss of our slot is reported by who noticed it, not by every reader. */
		snprintf(why, why_size, "%s%s", err == -ESTALE ? "" : "cannot be read: ",
			 err == -ESTALE ? "" : strerror(-err));
		return read_error(err);
	}
	return meta_verify(data, &full, why, why_size);
}

static int buf_load(struct fs *fs, struct buf *b, const struct meta_expect *e)
{
	char why[160];
	int err;

	err = block_read(fs, e, b->data, why, sizeof(why));
	if (!err)
		b->version = meta_version(b->data);
	else if (why[0])
		report(fs, e, why);
	return err;
}

/* A second pointer to a cached block must mean the same block. */
static int buf_check(struct fs *fs, const struct buf *b, const struct cover *cover,
		     const struct meta_expect *e)
{
	char why[200];

	if (b->cover == cover && b->type == e->type && b->owner == e->owner &&
	    b->birth == e->birth)
		return 0;
	snprintf(why, sizeof(why),
		 "owner %llx birth %u expected, in use as %s of owner %llx birth %u",
		 (unsigned long long)e->owner, e->birth, meta_type_name(b->type),
		 (unsigned long long)b->owner, b->birth);
	report(fs, e, why);
	return -EUCLEAN;
}

/* Adds room @b as the buffer of the block; the cache's mutex is held. */
static void buf_insert(struct buf_cache *c, struct cover *cover, const struct meta_expect *e,
		       struct buf *b)
{
	int err;

	buf_init(b, cover, e);
	err = table_insert(&c->table, &b->node, e->addr);
	assert(!err);	/* it has had its buckets since buf_cache_new() */
	list_add_tail(&cover->bufs, &b->cover_node);
}

/* Reads what buf_insert() added; on failure it is gone again. */
static int buf_fill(struct fs *fs, struct buf *b, const struct meta_expect *e)
{
	struct buf_cache *c = fs->bufs;
	int err = buf_load(fs, b, e);

	env_mutex_lock(c->env, &c->mutex);
	b->loading = false;
	if (err)
		buf_unlink(c, b);
	env_cond_broadcast(c->env, &c->loaded);
	env_mutex_unlock(c->env, &c->mutex);
	if (err)
		buf_free(b);
	return err;
}

int buf_get(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **out)
{
	struct buf_cache *c = fs->bufs;
	struct buf *b;
	int err = 0;

	env_mutex_lock(c->env, &c->mutex);
	while ((b = buf_find(c, e->addr)) && b->loading)
		env_cond_wait(c->env, &c->loaded, &c->mutex, ENV_FOREVER);
	if (b) {
		buf_take(c, b);
		env_mutex_unlock(c->env, &c->mutex);
		err = buf_check(fs, b, cover, e);
		if (err)
			buf_put(fs, b);
	} else {
		b = buf_room(fs);
		if (b) {
			buf_insert(c, cover, e, b);
			b->loading = true;
		}
		env_mutex_unlock(c->env, &c->mutex);
		err = b ? buf_fill(fs, b, e) : -ENOMEM;
	}
	if (!err)
		*out = b;
	return err;
}

/* Fills in all of the header but what belongs to a transaction. */
static void header_init(struct fs *fs, const struct meta_expect *e, void *data)
{
	struct meta_expect full = expect_here(fs, e);

	meta_seal(data, &full, 0);
}

int buf_new_in(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **room,
	       struct buf **out)
{
	struct buf_cache *c = fs->bufs;
	struct buf *old, *b = *room;
	int err;

	assert(addr_is_on_volume(fs, e->addr));
	env_mutex_lock(c->env, &c->mutex);
	while ((old = buf_find(c, e->addr)) && old->loading)
		env_cond_wait(c->env, &c->loaded, &c->mutex, ENV_FOREVER);
	/* Only a damaged bitmap hands out a block that is in use (R9). */
	err = old && old->refs ? -EUCLEAN : 0;
	if (old && !err) {
		buf_unlink(c, old);
		buf_free(old);
	}
	if (!err)
		buf_insert(c, cover, e, b);
	env_mutex_unlock(c->env, &c->mutex);
	if (err) {
		report(fs, e, "just allocated, and in use: run fsck.lunfs");
		return err;
	}
	header_init(fs, e, b->data);
	*room = NULL;
	*out = b;
	return 0;
}

int buf_new(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **out)
{
	struct buf *room = buf_room(fs);
	int err;

	if (!room)
		return -ENOMEM;
	err = buf_new_in(fs, cover, e, &room, out);
	buf_room_free(room);
	return err;
}

static void shrink_locked(struct buf_cache *c)
{
	struct buf *b;

	while (c->unused > c->unused_max) {
		b = list_first(&c->lru, struct buf, lru);
		buf_unlink(c, b);
		buf_free(b);
	}
}

void buf_limit(struct fs *fs, size_t bytes)
{
	struct buf_cache *c = fs->bufs;

	env_mutex_lock(c->env, &c->mutex);
	c->unused_max = bytes / BLOCK_SIZE;
	shrink_locked(c);
	env_mutex_unlock(c->env, &c->mutex);
}

void buf_ref(struct fs *fs, struct buf *b)
{
	struct buf_cache *c = fs->bufs;

	env_mutex_lock(c->env, &c->mutex);
	assert(b->refs);
	b->refs++;
	env_mutex_unlock(c->env, &c->mutex);
}

void buf_put(struct fs *fs, struct buf *b)
{
	struct buf_cache *c = fs->bufs;

	if (!b)
		return;
	env_mutex_lock(c->env, &c->mutex);
	assert(b->refs);
	if (!--b->refs && !b->cover) {
		buf_free(b);
	} else if (!b->refs) {
		list_add_tail(&c->lru, &b->lru);
		c->unused++;
		shrink_locked(c);
	}
	env_mutex_unlock(c->env, &c->mutex);
}

void buf_drop(struct fs *fs, struct txn *txn, struct buf *b)
{
	struct buf_cache *c = fs->bufs;

	txn_forget(txn, b);
	env_mutex_lock(c->env, &c->mutex);
	if (b->cover)
		buf_unlink(c, b);
	env_mutex_unlock(c->env, &c->mutex);
	buf_put(fs, b);
}

void buf_forget_cover(struct fs *fs, struct cover *cover)
{
	struct buf_cache *c = fs->bufs;
	struct buf *b, *tmp;

	env_mutex_lock(c->env, &c->mutex);
	list_for_each(b, tmp, &cover->bufs, cover_node) {
		buf_unlink(c, b);
		/* Only when the slot is lost somebody may still hold one: the last put frees it. */
		if (!b->refs)
			buf_free(b);
	}
	env_mutex_unlock(c->env, &c->mutex);
}

int buf_read_unlocked(struct fs *fs, const struct meta_expect *e, void *data)
{
	struct meta_expect full = expect_here(fs, e);
	int err;

	if (!addr_is_on_volume(fs, e->addr))
		return -EUCLEAN;
	err = blkdev_read(fs->dev, e->addr, data, BLOCK_SIZE);
	if (err)
		return read_error(err);
	return meta_verify(data, &full, NULL, 0);
}
