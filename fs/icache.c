/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of inode objects, and attributes read without a lock for a moment. */
#include "fs/icache.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/cluster.h"
#include "fs/grow.h"

#define TIMES_BATCH	64

static void inode_free(struct fs *fs, struct inode *ino)
{
	env_rwlock_fini(fs->env, &ino->rwlock);
	free(ino);
}

static struct inode *inode_alloc(struct fs *fs, uint64_t number)
{
	struct inode *ino = calloc(1, sizeof(*ino));

	if (!ino)
		return NULL;
	ino->fs = fs;
	ino->number = number;
	ino->cover.is_inode = true;
	list_init(&ino->cover.bufs);
	list_init(&ino->lru);
	list_init(&ino->kept);
	lock_init(&ino->cover.lock, number << BLOCK_SHIFT, ino);
	env_rwlock_init(fs->env, &ino->rwlock);
	return ino;
}

int inode_cache_new(struct fs *fs, struct inode_cache **out)
{
	struct inode_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	env_mutex_init(fs->env, &c->mutex);
	table_init(&c->table);
	list_init(&c->unused);
	c->fs = fs;
	c->max = INODE_CACHE_MAX;
	*out = c;
	return 0;
}

static void free_one(struct table_node *node, void *arg)
{
	struct inode_cache *c = arg;
	struct inode *ino = container_of(node, struct inode, node);

	table_remove(&c->table, node);
	inode_forget(c->fs, ino);
	inode_free(c->fs, ino);
}

void inode_cache_free(struct inode_cache *c)
{
	if (!c)
		return;
	table_each(&c->table, free_one, c);
	table_fini(&c->table);
	env_mutex_fini(c->fs->env, &c->mutex);
	free(c);
}

/*
 * Makes room: the object that was unused for longest gives its lock up and goes.  The mutex
 * is released meanwhile; our reference keeps others from evicting it too.
 */
static void evict_one(struct inode_cache *c)
{
	struct fs *fs = c->fs;
	struct inode *ino = list_first(&c->unused, struct inode, lru);
	uint64_t uses = ino->uses;
	int err;

	list_del(&ino->lru);
	ino->refs++;
	env_mutex_unlock(fs->env, &c->mutex);
	if (fs->lockd)
		err = cluster_evict(fs, &ino->cover.lock);
	else
		err = list_empty(&ino->cover.bufs) ? 0 : journal_settle(fs);
	env_mutex_lock(fs->env, &c->mutex);
	ino->refs--;
	if (ino->refs)
		return;
	if (err || ino->uses != uses) {	/* used meanwhile: it may have its lock again */
		list_add_tail(&c->unused, &ino->lru);
		return;
	}
	table_remove(&c->table, &ino->node);
	env_mutex_unlock(fs->env, &c->mutex);
	inode_forget(fs, ino);
	inode_free(fs, ino);
	env_mutex_lock(fs->env, &c->mutex);
}

static struct inode *find_locked(struct inode_cache *c, uint64_t number)
{
	struct table_node *node = table_find(&c->table, number);
	struct inode *ino;

	if (!node)
		return NULL;
	ino = container_of(node, struct inode, node);
	ino->uses++;
	if (!ino->refs++)
		list_del(&ino->lru);
	return ino;
}

int inode_get(struct fs *fs, uint64_t number, struct inode **out)
{
	struct inode_cache *c = fs->inodes;
	struct inode *ino;
	int err = 0;

	if (!fs_is_space(fs, number, 2))
		return -EUCLEAN;
	env_mutex_lock(fs->env, &c->mutex);
	ino = find_locked(c, number);
	if (!ino && c->table.count >= c->max && !list_empty(&c->unused)) {
		evict_one(c);
		ino = find_locked(c, number);
	}
	if (!ino) {
		ino = inode_alloc(fs, number);
		if (!ino || table_insert(&c->table, &ino->node, number)) {
			err = -ENOMEM;
			if (ino)
				inode_free(fs, ino);
		} else {
			ino->refs = 1;
		}
	}
	env_mutex_unlock(fs->env, &c->mutex);
	if (!err)
		*out = ino;
	return err;
}

struct inode *inode_find(struct fs *fs, uint64_t number)
{
	struct inode *ino;

	env_mutex_lock(fs->env, &fs->inodes->mutex);
	ino = find_locked(fs->inodes, number);
	env_mutex_unlock(fs->env, &fs->inodes->mutex);
	return ino;
}

void inode_put(struct fs *fs, struct inode *ino)
{
	if (!ino)
		return;
	env_mutex_lock(fs->env, &fs->inodes->mutex);
	assert(ino->refs);
	if (!--ino->refs)
		list_add_tail(&fs->inodes->unused, &ino->lru);
	env_mutex_unlock(fs->env, &fs->inodes->mutex);
}

/* ---- attributes seen lately ---- */

static struct stat_entry *stat_entry(struct inode_cache *c, uint64_t number)
{
	/* Lock blocks are two blocks apart; neighbours in a directory are neighbours on disk. */
	return &c->stats[number / 2 % STAT_ENTRIES];
}

bool inode_stat_recall(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	uint64_t now = env_now_ns(fs->env);
	struct stat_entry *e = stat_entry(fs->inodes, inode_id_number(id));
	bool fresh;

	env_mutex_lock(fs->env, &fs->inodes->mutex);
	fresh = e->attr.id == id && e->until_ns > now;
	if (fresh)
		*attr = e->attr;
	env_mutex_unlock(fs->env, &fs->inodes->mutex);
	return fresh;
}

void inode_stat_remember(struct fs *fs, const struct fs_attr *attr, uint64_t read_ns)
{
	struct stat_entry *e = stat_entry(fs->inodes, attr->ino);

	env_mutex_lock(fs->env, &fs->inodes->mutex);
	e->attr = *attr;
	e->until_ns = read_ns + STAT_CACHE_NS;
	env_mutex_unlock(fs->env, &fs->inodes->mutex);
}

void inode_stat_drop(struct fs *fs, uint64_t number)
{
	env_mutex_lock(fs->env, &fs->inodes->mutex);
	stat_entry(fs->inodes, number)->until_ns = 0;
	env_mutex_unlock(fs->env, &fs->inodes->mutex);
}

/* ---- times of overwrites, of all inodes ---- */

struct late_times {
	uint64_t	pass;		/* meets each inode once: some cannot be written now */
	struct inode	*inos[TIMES_BATCH];
	unsigned int	count;
};

static void collect_late(struct table_node *node, void *arg)
{
	struct inode *ino = container_of(node, struct inode, node);
	struct late_times *late = arg;

	if (late->count == TIMES_BATCH || ino->times_pass >= late->pass ||
	    !__atomic_load_n(&ino->write_ns, __ATOMIC_RELAXED))
		return;
	ino->times_pass = late->pass;
	ino->uses++;
	if (!ino->refs++)
		list_del(&ino->lru);
	late->inos[late->count++] = ino;
}

int inode_flush_times_all(struct fs *fs)
{
	struct late_times late = { .pass = 0 };
	int err = 0, e;

	do {
		late.count = 0;
		env_mutex_lock(fs->env, &fs->inodes->mutex);
		if (!late.pass)
			late.pass = ++fs->inodes->times_pass;
		table_each(&fs->inodes->table, collect_late, &late);
		env_mutex_unlock(fs->env, &fs->inodes->mutex);
		for (unsigned int i = 0; i < late.count; i++) {
			e = inode_flush_times(fs, late.inos[i]);
			if (e && !err)
				err = e;
			inode_put(fs, late.inos[i]);
		}
	} while (late.count == TIMES_BATCH && !err);
	return err;
}
