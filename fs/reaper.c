// SPDX-License-Identifier: Apache-2.0
/* The reaper: deletes and shrinks what stands on the orphan list, in bounded transactions. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/cluster.h"
#include "fs/dir_tree.h"
#include "fs/image.h"
#include "fs/image_list.h"
#include "fs/internal.h"
#include "fs/orphan_list.h"

#define REAPER_RETRY_NS	NSEC_PER_SEC	/* an inode that another host holds */
#define REAPER_TIMES_NS	NSEC_PER_SEC	/* late times of overwrites go into their inodes */
#define REAPER_CHILDREN_NS (10 * NSEC_PER_SEC)	/* an image that others stand on */
#define REAPER_GIVE_UP_NS (60 * NSEC_PER_SEC)	/* damaged: fsck's business, but look again */

/* Whether a process of this host still has it open. */
static bool orphan_is_open(struct fs *fs, struct inode *ino)
{
	bool open;

	env_mutex_lock(fs->env, &fs->open_mutex);
	open = ino->opens > 0;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	return open;
}

static int orphan_free_xattr(struct fs *fs, struct inode *ino)
{
	uint64_t block = xattr_block(ino);
	struct alloc_pin pin;
	struct inode_disk *di;
	struct txn txn;
	int err;

	if (!block)
		return 0;
	err = alloc_pin(fs, block, &pin);
	if (err)
		return err;
	err = alloc_free_prepare(fs, &pin, block, 1);
	if (!err)
		err = txn_begin(fs, 8, &txn);
	if (!err) {
		di = inode_change(&txn, ino);
		xattr_drop(&txn, ino, di, &pin);
		txn_end(&txn);
	}
	alloc_unpin(fs, &pin);
	return err;
}

/* This host leaves: what is in hand stays on the list as it is now.  Only the reaper is told. */
static bool orphan_is_stopping(struct fs *fs)
{
	struct orphans *o = fs->orphans;
	bool stopping;

	env_mutex_lock(fs->env, &o->mutex);
	stopping = o->stopping;
	env_mutex_unlock(fs->env, &o->mutex);
	return stopping;
}

/* What the inode points to, all of it. */
static int orphan_free_contents(struct fs *fs, struct inode *ino)
{
	const struct inode_disk *di = inode_disk(ino);
	bool is_dir = S_ISDIR(le32_to_cpu(di->mode));
	int more = is_dir || !(le32_to_cpu(di->flags) & INODE_INLINE);

	while (more == 1) {
		if (orphan_is_stopping(fs))
			return -EAGAIN;
		more = is_dir ? dir_free_step(fs, ino) : file_free_step(fs, ino, 0);
	}
	return more < 0 ? more : orphan_free_xattr(fs, ino);
}

/* A free inode keeps only its generation. */
static void inode_clear(struct inode_disk *di)
{
	le32 generation = di->generation;

	memset((uint8_t *)di + sizeof(di->hdr), 0, sizeof(*di) - sizeof(di->hdr));
	di->generation = generation;
}

/* The inode itself becomes free, and leaves the list with the same transaction. */
static int orphan_free_inode(struct fs *fs, struct inode *ino)
{
	struct alloc_pin pin;
	struct inode_disk *di;
	struct txn txn;
	int err;

	err = alloc_pin(fs, ino->number, &pin);
	if (err)
		return err;
	err = txn_begin(fs, 3 + ORPHAN_CREDITS, &txn);
	if (err)
		goto unpin;
	err = itable_free(&txn, &pin, ino->number);
	/* Free already, says the index (logged): the list's entry has no further use. */
	if (err == -EUCLEAN)
		err = 0;
	if (!err) {
		di = inode_change(&txn, ino);
		orphan_remove(&txn, ino, di);
		inode_clear(di);
	}
	txn_end(&txn);
unpin:
	alloc_unpin(fs, &pin);
	return err;
}

/* ---- images ---- */

/* The list of children of an image that has none left is freed; then it is a file like others. */
static int image_free_list(struct fs *fs, struct inode *ino, struct inode *list)
{
	struct inode_disk *di, *ld;
	struct alloc_pin pin;
	struct txn txn;
	int more = 1, err;

	while (more == 1)
		more = dir_free_step(fs, list);
	if (more)
		return more;
	err = alloc_pin(fs, list->number, &pin);
	if (err)
		return err;
	err = txn_begin(fs, 5, &txn);
	if (err)
		goto unpin;
	err = itable_free(&txn, &pin, list->number);
	if (!err || err == -EUCLEAN) {
		ld = inode_change(&txn, list);
		inode_clear(ld);
		di = inode_change(&txn, ino);
		di->image_children = cpu_to_le64(0);
		di->flags = cpu_to_le32(le32_to_cpu(di->flags) &
					~(uint32_t)(INODE_FROZEN | INODE_MERGING));
		err = 0;
	}
	txn_end(&txn);
unpin:
	alloc_unpin(fs, &pin);
	return err;
}

/* It leaves its parent's list of children, and shows nothing of the parent from now on. */
static int image_leave(struct fs *fs, struct inode *ino, struct inode *list)
{
	struct alloc_pin pin = { NULL };
	char name[IMAGE_LIST_NAME];
	struct dirent_info info;
	struct inode_disk *di;
	unsigned int credits = 2;
	struct txn txn;
	bool listed;
	int err;

	image_list_name(ino->id, name);
	err = dir_lookup(fs, list, name, strlen(name), &info);
	listed = !err;
	if (listed)
		err = dir_remove_prepare(fs, list, name, strlen(name), &pin, &credits);
	if (err && err != -ENOENT)
		return err;
	err = txn_begin(fs, credits + 1, &txn);
	if (!err) {
		if (listed) {
			inode_touch(&txn, list, true);
			err = dir_remove(&txn, list, name, strlen(name), &pin);
		}
		if (!err) {
			di = inode_change(&txn, ino);
			di->image_parent = cpu_to_le64(0);
			di->image_limit = cpu_to_le64(0);
		}
		txn_end(&txn);
	}
	if (pin.ag)
		alloc_unpin(fs, &pin);
	return err;
}

/* What is in hand already would be waited for, for ever: a damaged inode may name itself (R9). */
static int orphan_is_other(struct fs *fs, const struct inode *ino, uint64_t id, const char *what)
{
	if (inode_id_number(id) != ino->number)
		return 0;
	log_error(fs->env, fs->label, "inode %llu: %s is itself: run fsck.lunfs",
		  (unsigned long long)ino->number, what);
	return -EUCLEAN;
}

static bool is_list(const struct inode_disk *di)
{
	return le32_to_cpu(di->flags) & INODE_CHILDREN;
}

/*
 * A list of children, locked: nobody who has one waits for the unlinked image @ino, which is in hand.  Who
 * has a directory may, so what a damaged image names is looked at before: at home, for whatever it is, it
 * has been that since it was made.
 * @di: BLOCK_SIZE bytes for that.
 */
static int image_list_get(struct fs *fs, const struct inode *ino, uint64_t id, struct inode_disk *di,
			  struct inode **list)
{
	int err = orphan_is_other(fs, ino, id, "a list of children");

	if (!err && !inode_read_unlocked(fs, id, di) && !is_list(di))
		err = -EUCLEAN;
	if (!err)
		err = inode_get(fs, inode_id_number(id), list);
	if (err)
		return err;
	err = inode_lock(fs, *list, id, LOCK_EXCLUSIVE, 0, NULL);
	if (!err && !is_list(inode_disk(*list))) {
		inode_unlock(fs, *list, LOCK_EXCLUSIVE, 0);
		err = -EUCLEAN;
	}
	if (err)
		inode_put(fs, *list);
	return err;
}

static void image_list_put(struct fs *fs, struct inode *list)
{
	inode_unlock(fs, list, LOCK_EXCLUSIVE, 0);
	inode_put(fs, list);
}

/* Return: 2 it has children still. */
static int orphan_drop_list(struct fs *fs, struct inode *ino)
{
	uint64_t id = le64_to_cpu(inode_disk(ino)->image_children);
	struct inode_disk *di;
	struct inode *list;
	int err;

	if (!id)
		return 0;
	di = blkdev_alloc(BLOCK_SIZE);
	if (!di)
		return -ENOMEM;
	err = image_list_get(fs, ino, id, di, &list);
	free(di);
	if (err)
		return err == -ESTALE ? -EUCLEAN : err;
	err = dir_is_empty(list) ? image_free_list(fs, ino, list) : 2;
	image_list_put(fs, list);
	return err;
}

/* The parent may have been waiting for its last child to go: it is tried again. */
static int orphan_leave_parent(struct fs *fs, struct inode *ino)
{
	uint64_t id = le64_to_cpu(inode_disk(ino)->image_parent);
	struct inode_disk *di;
	struct inode *list;
	int err;

	if (!id)
		return 0;
	err = orphan_is_other(fs, ino, id, "its parent image");
	if (err)
		return err;
	di = blkdev_alloc(BLOCK_SIZE);
	if (!di)
		return -ENOMEM;
	err = inode_peek(fs, id, di);
	if (!err)
		err = image_list_get(fs, ino, le64_to_cpu(di->image_children), di, &list);
	if (!err) {
		err = image_leave(fs, ino, list);
		image_list_put(fs, list);
	}
	free(di);
	if (!err)
		orphan_kick(fs, id);
	return err == -ESTALE && !fs_is_lost(fs) ? -EUCLEAN : err;
}

int orphan_settle_shrink(struct fs *fs, struct inode *ino)
{
	const struct inode_disk *di = inode_disk(ino);
	struct txn txn;
	int more = !(le32_to_cpu(di->flags) & INODE_INLINE);

	if (!(le32_to_cpu(di->flags) & INODE_ORPHAN) || le32_to_cpu(di->nlink) == 0)
		return 0;
	while (more == 1) {
		if (orphan_is_stopping(fs))
			return -EAGAIN;
		more = file_free_step(fs, ino, le64_to_cpu(inode_disk(ino)->shrink_to));
	}
	if (more < 0)
		return more;
	more = txn_begin(fs, 1 + ORPHAN_CREDITS, &txn);
	if (more)
		return more;
	orphan_remove(&txn, ino, inode_change(&txn, ino));
	txn_end(&txn);
	return 0;
}

/* The entry means nothing (any more). */
static int orphan_forget_entry(struct fs *fs, uint64_t id)
{
	struct txn txn;
	int err = txn_begin(fs, ORPHAN_CREDITS, &txn);

	if (err)
		return err;
	orphan_strike(&txn, id);
	txn_end(&txn);
	return 0;
}

/*
 * Return: 1 a process of this host has it open: its close kicks again; 2 other images stand on
 * it; 0 done; errors.
 */
static int orphan_try(struct fs *fs, struct inode *ino, uint64_t id)
{
	const struct inode_disk *di;
	struct image_info info;
	int err;

	err = inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL);
	if (err == -ESTALE && !fs_is_lost(fs))
		return orphan_forget_entry(fs, id);
	if (err == -EBUSY && !fs_image_info(fs, id, &info) && info.children)
		return 2;
	if (err)
		return err;
	di = inode_disk(ino);
	if (!(le32_to_cpu(di->flags) & INODE_ORPHAN)) {
		err = orphan_forget_entry(fs, id);
	} else if (le32_to_cpu(di->nlink) > 0) {
		err = orphan_settle_shrink(fs, ino);
	} else if (orphan_is_open(fs, ino)) {
		err = 1;
	} else {
		err = orphan_drop_list(fs, ino);
		if (!err)
			err = orphan_leave_parent(fs, ino);
		if (!err)
			err = orphan_free_contents(fs, ino);
		if (!err)
			err = orphan_free_inode(fs, ino);
	}
	inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	return err;
}

static int orphan_do(struct fs *fs, uint64_t id)
{
	struct inode *ino;
	int err;

	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return err;
	err = orphan_try(fs, ino, id);
	inode_put(fs, ino);
	return err;
}

int orphan_finish(struct fs *fs, uint64_t id)
{
	int err = orphan_do(fs, id);

	return err > 0 ? -EBUSY : err;
}

/* ---- the thread ---- */

/* The first entry whose time has come.  *@when receives when the next one's comes.  mutex held. */
static struct orphan *orphan_due(struct orphans *o, uint64_t *when)
{
	uint64_t now = env_now_ns(o->fs->env);
	struct orphan *entry, *tmp;

	*when = ENV_FOREVER;
	list_for_each(entry, tmp, &o->queue, link) {
		if (entry->not_before_ns <= now)
			return entry;
		if (entry->not_before_ns < *when)
			*when = entry->not_before_ns;
	}
	return NULL;
}

bool orphan_has_work(struct orphans *o)
{
	uint64_t when;

	return o->busy || orphan_due(o, &when);
}

static void orphan_report(struct orphans *o, uint64_t id, int err)
{
	char object[LABEL_MAX + 64];

	snprintf(object, sizeof(object), "%s: inode %llu", o->fs->label,
		 (unsigned long long)inode_id_number(id));
	log_warning(o->fs->env, object, "cannot finish its deletion or truncation (error %d); "
		    "its space stays allocated: run fsck.lunfs", -err);
}

/* After a try with @err: when, if at all, comes the next.  mutex held. */
static void orphan_after(struct orphans *o, uint64_t id, int err)
{
	struct orphan *entry = orphan_find(o, id);

	if (err == 0)
		o->finished++;
	/* A kick during the try has queued it again already. */
	if (!entry || err == 0 || err == 1 || !list_empty(&entry->link))
		return;
	/* Its last child may go on another host, which does not know of our list. */
	if (err == 2) {
		orphan_queue(o, entry, env_now_ns(o->fs->env) + REAPER_CHILDREN_NS);
		return;
	}
	if (err == -EBUSY || err == -EAGAIN || err == -EHOSTDOWN || err == -ENOMEM) {
		orphan_queue(o, entry, env_now_ns(o->fs->env) + REAPER_RETRY_NS);
		return;
	}
	if (!fs_is_lost(o->fs))
		orphan_report(o, id, err);
	orphan_queue(o, entry, env_now_ns(o->fs->env) + REAPER_GIVE_UP_NS);
}

/* Takes @entry off the queue and tries it.  mutex held, and released meanwhile. */
static void orphan_reap(struct orphans *o, struct orphan *entry)
{
	struct env *env = o->fs->env;
	uint64_t id = entry->id;
	int err;

	list_del(&entry->link);
	o->busy++;
	env_mutex_unlock(env, &o->mutex);
	err = orphan_do(o->fs, id);
	env_mutex_lock(env, &o->mutex);
	o->busy--;
	orphan_after(o, id, err);
	env_cond_broadcast(env, &o->changed);
}

void orphan_reaper(void *arg)
{
	struct orphans *o = arg;
	struct env *env = o->fs->env;
	uint64_t when, times_ns = env_now_ns(env) + REAPER_TIMES_NS;
	struct orphan *entry;

	env_mutex_lock(env, &o->mutex);
	while (!o->stopping) {
		if (env_now_ns(env) >= times_ns) {
			env_mutex_unlock(env, &o->mutex);
			inode_flush_times_all(o->fs);
			env_mutex_lock(env, &o->mutex);
			times_ns = env_now_ns(env) + REAPER_TIMES_NS;
		}
		entry = orphan_due(o, &when);
		if (entry)
			orphan_reap(o, entry);
		else if (!o->stopping)
			env_cond_wait(env, &o->changed, &o->mutex, when < times_ns ? when : times_ns);
	}
	env_mutex_unlock(env, &o->mutex);
}

/* Whether anything comes up before @deadline.  mutex held. */
static bool orphan_has_work_until(struct orphans *o, uint64_t deadline)
{
	uint64_t when;

	return o->busy || orphan_due(o, &when) || when < deadline;
}

void orphan_drain(struct fs *fs, unsigned int ms)
{
	struct orphans *o = fs->orphans;
	uint64_t deadline = env_now_ns(fs->env) + ms * NSEC_PER_MSEC;

	env_mutex_lock(fs->env, &o->mutex);
	while (orphan_has_work_until(o, deadline))
		if (!env_cond_wait(fs->env, &o->changed, &o->mutex, deadline))
			break;
	env_mutex_unlock(fs->env, &o->mutex);
}

bool orphan_wait(struct fs *fs, unsigned int ms)
{
	struct orphans *o = fs->orphans;
	uint64_t deadline = env_now_ns(fs->env) + ms * NSEC_PER_MSEC;
	uint64_t before;
	bool progress;

	if (!o)
		return false;
	env_mutex_lock(fs->env, &o->mutex);
	before = o->finished;
	while (orphan_has_work(o) && !o->stopping)
		if (!env_cond_wait(fs->env, &o->changed, &o->mutex, deadline))
			break;
	progress = o->finished != before;
	env_mutex_unlock(fs->env, &o->mutex);
	return progress;
}
