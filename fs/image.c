/* SPDX-License-Identifier: Apache-2.0 */
/* Chains of images: opened, closed, and read through. */
#include "fs/image.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/cluster.h"
#include "fs/file_io.h"
#include "fs/internal.h"

/* ---- opening ---- */

static int damaged(struct fs *fs, const struct inode *child, uint64_t parent, const char *why)
{
	log_error(fs->env, fs->label, "inode %llu: its parent image, inode %llu, %s: run "
		  "fsck.lunfs", (unsigned long long)child->number,
		  (unsigned long long)inode_id_number(parent), why);
	return -EUCLEAN;
}

/* @p is loaded and in use: may it be the parent that @child names? */
static int parent_check(struct fs *fs, const struct inode *child, uint32_t rank, uint64_t id,
			const struct inode *p)
{
	const struct inode_disk *di = inode_disk(p);

	if (p->id != id || !le32_to_cpu(di->mode))
		return damaged(fs, child, id, "does not exist");
	if (!(le32_to_cpu(di->flags) & INODE_FROZEN))
		return damaged(fs, child, id, "is not frozen");
	if (le32_to_cpu(di->image_rank) >= rank)
		return damaged(fs, child, id, "does not rank below it");
	return 0;
}

/*
 * @p's lock is in use: it counts as open from here on, in one step with the check.  Who merges
 * has it locked and looks at its opens, and would move its blocks elsewhere under our hands.
 * @copy receives its inode.
 */
static int parent_load(struct fs *fs, const struct inode *child, uint32_t rank, uint64_t id,
		       struct inode *p, struct inode_disk *copy)
{
	int err = inode_load(fs, p);

	if (err)
		return err;
	env_rwlock_rdlock(fs->env, &p->rwlock);
	err = p->loaded ? parent_check(fs, child, rank, id, p) : -ESTALE;
	if (!err) {
		memcpy(copy, p->buf->data, BLOCK_SIZE);
		env_mutex_lock(fs->env, &fs->open_mutex);
		p->opens++;
		env_mutex_unlock(fs->env, &fs->open_mutex);
	}
	env_rwlock_rdunlock(fs->env, &p->rwlock);
	return err;
}

/* Referenced, its lock in use, open.  Waits for whoever has the lock: no mutex is held. */
static int parent_open(struct fs *fs, struct inode *child, uint32_t rank, uint64_t id,
		       struct inode_disk *copy, struct inode **out)
{
	struct lock_holder holder;
	struct inode *p;
	int err = inode_get(fs, inode_id_number(id), &p);

	if (err)
		return err;
	if (p == child) {
		inode_put(fs, p);
		return damaged(fs, child, id, "is itself");
	}
	err = cluster_get(fs, &p->cover.lock, LOCK_SHARED, LOCK_OPEN, &holder);
	if (err)
		goto put;
	err = parent_load(fs, child, rank, id, p, copy);
	if (err)
		goto unlock;
	*out = p;
	return 0;
unlock:
	cluster_put(fs, &p->cover.lock, LOCK_SHARED, LOCK_OPEN);
put:
	inode_put(fs, p);
	return err;
}

/* Reference, lock and open of an image that is nobody's parent in memory any more. */
static void parent_release(struct fs *fs, struct inode *p)
{
	cluster_put(fs, &p->cover.lock, LOCK_SHARED, LOCK_OPEN);
	inode_open_leave(fs, p, p->id);
	inode_put(fs, p);
}

/* Stands on nothing any more.  Returns what it stood on.  image_mutex held. */
static struct inode *image_unlink(struct inode *ino)
{
	struct inode *below = ino->image;

	assert(ino->image_link != IMAGE_LINKING);
	ino->image = NULL;
	ino->image_link = IMAGE_UNLINKED;
	free(ino->frozen);
	ino->frozen = NULL;
	return below;
}

/* One user less of @ino, and of each image below that loses its last.  image_mutex held. */
static void chain_close(struct fs *fs, struct inode *ino)
{
	struct inode *below, *held = NULL;

	for (;; held = ino = below) {
		below = --ino->image_users == 0 ? image_unlink(ino) : NULL;
		if (held)
			parent_release(fs, held);
		if (!below)
			return;
	}
}

/* The parent and rank that the loaded @ino states; 0: none. */
static int parent_of(struct fs *fs, struct inode *ino, uint64_t *id, uint32_t *rank)
{
	int err = inode_load(fs, ino);

	if (err)
		return err;
	env_rwlock_rdlock(fs->env, &ino->rwlock);
	if (!ino->loaded) {
		err = -ESTALE;
	} else {
		*id = le64_to_cpu(inode_disk(ino)->image_parent);
		*rank = le32_to_cpu(inode_disk(ino)->image_rank);
	}
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return err;
}

/* @ino is ours to link; @may_have_one: it is not as deep as a chain may get.  No mutex held. */
static int link_find(struct fs *fs, struct inode *ino, bool may_have_one,
		     struct inode_disk *copy, struct inode **parent)
{
	uint32_t rank;
	uint64_t id;
	int err = parent_of(fs, ino, &id, &rank);

	*parent = NULL;
	if (err || !id)
		return err;
	return may_have_one ? parent_open(fs, ino, rank, id, copy, parent) : -ELOOP;
}

/*
 * Links @ino to its parent.  image_mutex held, and released meanwhile: the parent's lock may have
 * to be waited for.  Whoever needs the same link waits for it, others do not.
 */
static int image_link(struct fs *fs, struct inode *ino, bool may_have_one)
{
	struct inode_disk *copy = blkdev_alloc(BLOCK_SIZE);
	struct inode *parent = NULL;
	int err = -ENOMEM;

	ino->image_link = IMAGE_LINKING;
	env_mutex_unlock(fs->env, &fs->image_mutex);
	if (copy)
		err = link_find(fs, ino, may_have_one, copy, &parent);
	env_mutex_lock(fs->env, &fs->image_mutex);
	ino->image_link = err ? IMAGE_UNLINKED : IMAGE_LINKED;
	if (parent) {
		ino->image = parent;
		parent->image_users++;
		/* Another child's copy says the same: it did not change while that had it. */
		if (!parent->frozen) {
			parent->frozen = copy;
			copy = NULL;
		}
	}
	env_cond_broadcast(fs->env, &fs->image_linked);
	free(copy);
	return err;
}

/*
 * image_mutex held, and released at times.  After each wait it looks from the top again, which
 * is the caller's: who got the whole chain first may have merged a part of it away meanwhile.
 */
static int chain_open(struct fs *fs, struct inode *top)
{
	struct inode *ino;
	unsigned int depth;
	int err = 0;

	while (!err) {
		for (ino = top, depth = 0; ino && ino->image_link == IMAGE_LINKED; depth++)
			ino = ino->image;
		if (!ino)
			return 0;
		if (ino->image_link == IMAGE_LINKING)
			env_cond_wait(fs->env, &fs->image_linked, &fs->image_mutex, ENV_FOREVER);
		else
			err = image_link(fs, ino, depth < IMAGE_DEPTH_MAX);
	}
	return err;
}

int image_open(struct fs *fs, struct inode *ino)
{
	uint32_t rank;
	uint64_t id;
	int err = parent_of(fs, ino, &id, &rank);

	if (err || !id)
		return err;
	env_mutex_lock(fs->env, &fs->image_mutex);
	ino->image_users++;
	err = chain_open(fs, ino);
	if (err)
		chain_close(fs, ino);
	env_mutex_unlock(fs->env, &fs->image_mutex);
	return err ? err : 1;
}

void image_close(struct fs *fs, struct inode *ino)
{
	env_mutex_lock(fs->env, &fs->image_mutex);
	chain_close(fs, ino);
	env_mutex_unlock(fs->env, &fs->image_mutex);
}

void image_adopt(struct fs *fs, struct inode *child, struct inode *parent, bool is_new_user,
		 struct inode_disk *copy)
{
	env_mutex_lock(fs->env, &fs->image_mutex);
	parent->image_users += is_new_user;
	parent->image_link = IMAGE_LINKED;
	assert(!child->image && !child->image_users && parent->image_users);
	child->image = parent;
	child->image_link = IMAGE_LINKED;
	child->image_users = 1;
	if (parent->frozen) {
		free(copy);
	} else {
		parent->frozen = copy;
		image_refreeze(parent);
	}
	env_mutex_unlock(fs->env, &fs->image_mutex);
}

void image_skip(struct fs *fs, struct inode *child)
{
	struct inode *parent = child->image;

	env_mutex_lock(fs->env, &fs->image_mutex);
	assert(parent && parent->image_users == 1);
	parent->image_users = 0;
	child->image = image_unlink(parent);
	env_mutex_unlock(fs->env, &fs->image_mutex);
	parent_release(fs, parent);
}

void image_refreeze(struct inode *parent)
{
	memcpy(parent->frozen, parent->buf->data, BLOCK_SIZE);
}

/* ---- reading through ---- */

uint64_t image_mask_below(uint64_t unit, uint64_t limit)
{
	uint64_t start = unit * UNIT_SIZE;

	if (limit <= start)
		return 0;
	limit -= start;
	return limit >= UNIT_SIZE ? ~0ULL : block_mask(0, (uint32_t)(limit / BLOCK_SIZE));
}

/* Takes what @e has of *@mask. */
static void resolve_entry(const struct map_entry *e, uint64_t *mask, uint64_t *addr)
{
	uint64_t bits = *mask & e->valid;

	*mask &= ~bits;
	for (; bits; bits &= bits - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(bits);

		addr[i] = entry_addr(e, i);
	}
}

static void resolve_clear(uint64_t mask, uint64_t *addr)
{
	for (; mask; mask &= mask - 1)
		addr[__builtin_ctzll(mask)] = 0;
}

int image_below(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask,
		const struct map_entry *own, uint64_t addr[UNIT_BLOCKS])
{
	uint64_t limit = le64_to_cpu(inode_disk(ino)->image_limit);
	bool detached = own->detached;
	struct map_entry e;
	int err;

	resolve_clear(mask, addr);
	assert(ino->image || !limit);
	for (struct inode *p = ino->image; p && !detached; p = p->image) {
		mask &= image_mask_below(unit, limit);
		if (!mask)
			return 0;
		err = map_get_of(fs, p, p->frozen, unit, &e);
		if (err)
			return err;
		resolve_entry(&e, &mask, addr);
		detached = e.detached;
		limit = le64_to_cpu(p->frozen->image_limit);
	}
	return 0;
}

int image_resolve(struct fs *fs, struct inode *ino, uint64_t unit, uint64_t mask,
		  const struct map_entry *own, uint64_t addr[UNIT_BLOCKS])
{
	uint64_t rest = mask;

	resolve_entry(own, &rest, addr);
	return rest ? image_below(fs, ino, unit, rest, own, addr) : 0;
}

int image_resolve_unlocked(struct fs *fs, uint64_t id, const struct inode_disk *di,
			   uint64_t unit, uint64_t mask, uint64_t addr[UNIT_BLOCKS])
{
	struct inode_disk *parent = NULL;
	struct map_entry e;
	uint32_t rank;
	int err;

	resolve_clear(mask, addr);
	for (;;) {
		err = map_get_unlocked(fs, id, di, unit, &e);
		if (err)
			break;
		resolve_entry(&e, &mask, addr);
		mask &= image_mask_below(unit, le64_to_cpu(di->image_limit));
		id = le64_to_cpu(di->image_parent);
		rank = le32_to_cpu(di->image_rank);
		if (!mask || !id || e.detached)
			break;
		if (!parent)
			parent = blkdev_alloc(BLOCK_SIZE);
		err = parent ? inode_read_unlocked(fs, id, parent) : -ENOMEM;
		/* Ranks fall: a loop of parents ends here. */
		if (!err && le32_to_cpu(parent->image_rank) >= rank)
			err = -EUCLEAN;
		if (err)
			break;
		di = parent;
	}
	free(parent);
	return err;
}

int image_next(struct fs *fs, struct inode *ino, uint64_t *unit)
{
	uint64_t limit = le64_to_cpu(inode_disk(ino)->image_limit), found = UINT64_MAX, at = *unit;
	struct map_entry e;
	int err = map_next(fs, ino, &at, &e);

	if (!err)
		found = at;
	for (struct inode *p = ino->image; p && (!err || err == -ENOENT); p = p->image) {
		if (*unit * UNIT_SIZE >= limit)
			break;
		at = *unit;
		err = map_next_of(fs, p, p->frozen, &at, &e);
		if (!err && at < found && at * UNIT_SIZE < limit)
			found = at;
		limit = le64_to_cpu(p->frozen->image_limit) < limit ?
			le64_to_cpu(p->frozen->image_limit) : limit;
	}
	if (err && err != -ENOENT)
		return err;
	if (found == UINT64_MAX)
		return -ENOENT;
	*unit = found;
	return 0;
}

/* ---- what is what ---- */

static int children_count(struct fs *fs, uint64_t list, struct inode_disk *di, uint64_t *count)
{
	int err = inode_peek(fs, list, di);

	if (err)
		return err;
	if (!(le32_to_cpu(di->flags) & INODE_CHILDREN))
		return -EUCLEAN;
	*count = le64_to_cpu(di->entries);
	return 0;
}

int fs_image_info(struct fs *fs, uint64_t id, struct image_info *info)
{
	struct inode_disk *di = blkdev_alloc(BLOCK_SIZE);
	uint32_t flags;
	int err;

	if (!di)
		return -ENOMEM;
	err = inode_peek(fs, id, di);
	if (err)
		goto out;
	flags = le32_to_cpu(di->flags);
	*info = (struct image_info){
		.id = id, .parent = le64_to_cpu(di->image_parent),
		.children_list = le64_to_cpu(di->image_children),
		.limit = le64_to_cpu(di->image_limit), .size = le64_to_cpu(di->size),
		.blocks = le64_to_cpu(di->blocks), .nlink = le32_to_cpu(di->nlink),
		.btime_ns = (int64_t)le64_to_cpu(di->btime),
		.ctime_ns = (int64_t)le64_to_cpu(di->ctime),
		.frozen = flags & INODE_FROZEN, .merging = flags & INODE_MERGING,
	};
	if (info->children_list)
		err = children_count(fs, info->children_list, di, &info->children);
out:
	free(di);
	return fs_answer(fs, err);
}

struct children_emit {
	int (*emit)(void *arg, uint64_t child);
	void *arg;
};

static int emit_child(void *arg, const struct dirent_info *d)
{
	struct children_emit *c = arg;

	return c->emit(c->arg, d->id);
}

int fs_image_children(struct fs *fs, uint64_t id, int (*emit)(void *arg, uint64_t child),
		      void *arg)
{
	struct children_emit c = { emit, arg };
	struct image_info info;
	int err = fs_image_info(fs, id, &info);

	if (err || !info.children_list)
		return err;
	return fs_result(fs, dir_list_unlocked(fs, info.children_list, 0, emit_child, &c));
}
