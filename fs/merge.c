/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deleted snapshot moves into the image on top of it, unit by unit.
 *
 * S is unlinked, and X its only child.  Who has an image on top of X open for writing does it:
 * that host holds everything from there down to S, and nobody else reads X or S meanwhile.
 * Each unit is one transaction, before and after which X shows the same:
 *  - X has nothing of its own there: it takes S's entry, data and all;
 *  - else the blocks that only S has are copied into X's unit, or if those are more, X's into
 *    S's, which X then takes over.  What is overwritten there X has hidden all the time.
 * At the end X stands on S's parent, and the reaper deletes what is left of S.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/file_io.h"
#include "fs/image.h"
#include "fs/image_list.h"
#include "fs/internal.h"

#define UNIT_ORDER	6u
#define TAKE_CREDITS	3u	/* see alloc_take(), alloc_free() */

enum { MG_TOP, MG_CHILD, MG_PARENT, MG_LIST, MG_PARENTS_LIST, MG_COUNT };

/* What takes part, locked exclusively; MG_TOP may be MG_CHILD, MG_PARENTS_LIST absent. */
struct merging {
	struct fs	*fs;
	struct inode	*inos[MG_COUNT];
	uint64_t	ids[MG_COUNT];
	struct inode	*child, *parent;	/* X and S */
	const struct fs_file *f;		/* the open of MG_TOP */
	struct merge	*m;
	uint8_t		*bounce;		/* a unit */
};

/* ---- what can be merged ---- */

static bool is_unlinked(struct fs *fs, struct inode *ino)
{
	bool unlinked;

	env_rwlock_rdlock(fs->env, &ino->rwlock);
	unlinked = ino->loaded && le32_to_cpu(inode_disk(ino)->nlink) == 0;
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return unlinked;
}

/* The ids of the lists, by what the frozen images state. */
static int lists_of(struct fs *fs, const struct inode *parent, uint64_t *list, uint64_t *parents)
{
	const struct inode *grand = parent->image;

	*list = le64_to_cpu(parent->frozen->image_children);
	*parents = grand ? le64_to_cpu(grand->frozen->image_children) : 0;
	if (*list && (!grand || *parents))
		return 0;
	log_error(fs->env, fs->label, "inode %llu: an image without a list of children: run "
		  "fsck.lunfs", (unsigned long long)parent->number);
	return -EUCLEAN;
}

/*
 * The @nth pair below @top of which the lower image has been unlinked.  -ENOENT: there is none.
 * The chain stays as it is: it is open, and whoever merges below @top is us.
 */
static int merging_find(struct merging *mg, struct inode *top, unsigned int nth)
{
	struct inode *child = top;

	while (child->image && (!is_unlinked(mg->fs, child->image) || nth--))
		child = child->image;
	mg->child = child;
	mg->parent = child->image;
	if (!mg->parent)
		return -ENOENT;
	mg->ids[MG_TOP] = top->id;
	mg->ids[MG_CHILD] = child->id;
	mg->ids[MG_PARENT] = mg->parent->id;
	return lists_of(mg->fs, mg->parent, &mg->ids[MG_LIST], &mg->ids[MG_PARENTS_LIST]);
}

/*
 * Locked, so that it stays: nobody opens it, nor anything that stands on it, until we are done
 * (parent_load() in image.c).
 */
static bool used_once(struct fs *fs, const struct inode *ino)
{
	bool once;

	env_mutex_lock(fs->env, &fs->image_mutex);
	env_mutex_lock(fs->env, &fs->open_mutex);
	once = ino->opens == 1 && ino->image_users <= 1;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	env_mutex_unlock(fs->env, &fs->image_mutex);
	return once;
}

/* Locked: -EMLINK it has other children, too. */
static int merging_check(struct merging *mg)
{
	const struct inode_disk *di = inode_disk(mg->parent);
	char name[IMAGE_LIST_NAME];
	struct dirent_info info;
	int err;

	/* A snapshot came first: the open is one of a new image, and others read through this. */
	if (mg->f->ino != mg->inos[MG_TOP])
		return -EAGAIN;
	if (le32_to_cpu(di->nlink) || !(le32_to_cpu(di->flags) & INODE_FROZEN))
		return -EMLINK;	/* its name is back */
	image_list_name(mg->child->id, name);
	err = dir_lookup(mg->fs, mg->inos[MG_LIST], name, strlen(name), &info);
	if (err)
		return err == -ENOENT ? -EUCLEAN : err;
	if (le64_to_cpu(inode_disk(mg->inos[MG_LIST])->entries) != 1)
		return -EMLINK;
	/*
	 * Somebody else of this host reads one of them, directly or through another image?  The
	 * image on top is locked: nobody reads through it now.
	 */
	if (!used_once(mg->fs, mg->parent) ||
	    (mg->child != mg->inos[MG_TOP] && !used_once(mg->fs, mg->child)))
		return -EBUSY;
	return 0;
}

/*
 * Nobody may open it any more, however he knows of it.  Its deletion is durable before anything
 * of it changes hands: X writes over what it takes where it lies, and a crash that undid the
 * deletion would bring back a snapshot that shows that.
 */
static int merging_mark(struct merging *mg)
{
	struct inode_disk *di;
	struct txn txn;
	int err;

	if (le32_to_cpu(inode_disk(mg->parent)->flags) & INODE_MERGING)
		return 0;
	err = MUTANT("merge-undurable") ? 0 : journal_commit(mg->fs, journal_last_id(mg->fs));
	if (!err)
		err = txn_begin(mg->fs, 1, &txn);
	if (err)
		return err;
	di = inode_change(&txn, mg->parent);
	di->flags = cpu_to_le32(le32_to_cpu(di->flags) | INODE_MERGING);
	txn_end(&txn);
	return 0;
}

/* ---- a unit ---- */

struct unit_merge {
	uint64_t	unit;
	struct map_entry s, x;		/* as they are */
	struct map_entry new_s, new_x;	/* as they will be */
	bool		frees;		/* X's old run */
};

/* Blocks of @mask from one unit's run into another's, at the same places. */
static int copy_blocks(struct merging *mg, const struct map_entry *from,
		       const struct map_entry *to, uint64_t mask)
{
	struct pieces reads, writes;
	int err = 0;

	pieces_init(&reads, mg->fs, BLK_READ);
	pieces_init(&writes, mg->fs, BLK_WRITE);
	mg->m->blocks_copied += (uint64_t)__builtin_popcountll(mask);
	for (uint64_t rest = mask; rest && !err; ) {
		uint64_t part = 0;

		/* As many as both take at a time. */
		for (; rest; rest &= rest - 1) {
			uint32_t i = (uint32_t)__builtin_ctzll(rest);
			uint8_t *buf = mg->bounce + (size_t)i * BLOCK_SIZE;

			if (!pieces_add(&reads, entry_addr(from, i), buf, BLOCK_SIZE))
				break;
			part |= 1ULL << i;
		}
		err = pieces_submit(&reads);
		for (; part && !err; part &= part - 1) {
			uint32_t i = (uint32_t)__builtin_ctzll(part);

			if (!pieces_add(&writes, entry_addr(to, i),
					mg->bounce + (size_t)i * BLOCK_SIZE, BLOCK_SIZE))
				err = -EUCLEAN;	/* no more pieces than were read */
		}
		if (!err)
			err = pieces_submit(&writes);
	}
	return err;
}

/* One transaction; map blocks of X may be missing where it gets its first entry. */
static int unit_commit(struct merging *mg, const struct unit_merge *u)
{
	static const uint32_t ones[2 * DEPTH_MAX + 1] = { 1, 1, 1, 1, 1, 1, 1 };
	struct alloc_hold hold = { 0 };
	struct alloc_pin pin = { NULL };
	struct inode_disk *sd, *xd;
	unsigned int need;
	struct txn txn;
	int err = map_blocks_needed(mg->fs, mg->child, u->unit, &need);

	if (!err && !need)
		err = map_set_prepare(mg->fs, mg->child, u->unit);
	if (!err)
		err = map_set_prepare(mg->fs, mg->parent, u->unit);
	if (!err && need)
		err = alloc_reserve(mg->fs, ones, need, mg->child->number, &hold);
	if (!err && need)
		err = alloc_make_room(mg->fs, &hold, 0);
	if (err)
		return err;
	/* X has a run there, so its map is complete: never two groups at a time. */
	if (u->frees)
		err = alloc_pin(mg->fs, u->x.block, &pin);
	if (!err && u->frees)
		err = alloc_free_prepare(mg->fs, &pin, u->x.block, 1u << u->x.order);
	if (!err)
		err = txn_begin(mg->fs, 2 + 2 * MAP_CREDITS + 2 * TAKE_CREDITS + need, &txn);
	if (err)
		goto out;
	sd = inode_change(&txn, mg->parent);
	xd = inode_change(&txn, mg->child);
	err = map_set(&txn, mg->child, u->unit, &u->new_x, &hold, 0);
	if (!err && u->new_s.block != u->s.block) {
		int64_t moved = 1LL << u->s.order, freed = u->frees ? 1LL << u->x.order : 0;

		err = map_set(&txn, mg->parent, u->unit, &u->new_s, NULL, 0);
		sd->blocks = cpu_to_le64(le64_to_cpu(sd->blocks) - (uint64_t)moved);
		xd->blocks = cpu_to_le64(le64_to_cpu(xd->blocks) + (uint64_t)(moved - freed));
	}
	if (!err && u->frees)
		err = alloc_free(&txn, &pin, u->x.block, 1u << u->x.order);
	txn_end(&txn);
	mg->m->units_moved += u->new_s.block != u->s.block;
out:
	if (pin.ag)
		alloc_unpin(mg->fs, &pin);
	if (need)
		alloc_put(mg->fs, &hold);
	return err;
}

/* X has a run of its own: the fewer blocks are copied. */
static int unit_combine(struct merging *mg, struct unit_merge *u, uint64_t missing)
{
	uint32_t order = u->x.order;
	int err;

	if (u->s.order == UNIT_ORDER &&
	    __builtin_popcountll(u->x.valid) < __builtin_popcountll(missing)) {
		err = copy_blocks(mg, &u->x, &u->s, u->x.valid);
		u->new_x.block = u->s.block;
		u->new_x.order = u->s.order;
		u->new_s = (struct map_entry){ 0 };
		u->frees = true;
	} else {
		while (order < UNIT_ORDER && missing >> (1u << order))
			order++;
		err = order > u->x.order ? unit0_grow(mg->fs, mg->child, order) : 0;
		if (!err)
			err = map_get(mg->fs, mg->child, u->unit, &u->x);
		u->new_x.block = u->x.block;
		u->new_x.order = u->x.order;
		if (!err)
			err = copy_blocks(mg, &u->s, &u->x, missing);
	}
	u->new_x.valid = u->x.valid | missing;
	return err;
}

/*
 * An open disk counts on its units to be whole: a small first one of a file that was small when
 * it was frozen grows before it moves.  While it is the parent's nobody else sees it.
 */
static int unit_make_whole(struct merging *mg, struct unit_merge *u)
{
	int err = unit0_grow(mg->fs, mg->parent, UNIT_ORDER);

	return err ? err : map_get(mg->fs, mg->parent, u->unit, &u->s);
}

static bool child_is_disk(struct merging *mg)
{
	bool sole;

	env_mutex_lock(mg->fs->env, &mg->fs->open_mutex);
	sole = mg->child->sole;
	env_mutex_unlock(mg->fs->env, &mg->fs->open_mutex);
	return sole;
}

static int unit_merge(struct merging *mg, uint64_t unit)
{
	struct unit_merge u = { .unit = unit };
	uint64_t show = image_mask_below(unit, le64_to_cpu(inode_disk(mg->child)->image_limit));
	uint64_t missing;
	int err = map_get(mg->fs, mg->parent, unit, &u.s);

	if (!err)
		err = map_get(mg->fs, mg->child, unit, &u.x);
	if (err || !show || u.x.detached)
		return err;
	missing = u.s.valid & ~u.x.valid & show;
	if (missing && !u.x.block && u.s.order < UNIT_ORDER && child_is_disk(mg) &&
	    !MUTANT("small-unit-moves"))
		err = unit_make_whole(mg, &u);
	if (err)
		return err;
	u.new_s = u.s;
	u.new_x = u.x;
	u.new_x.detached = u.s.detached;
	if (missing && !u.x.block) {
		u.new_x = u.s;
		u.new_x.valid = missing;
		u.new_s = (struct map_entry){ 0 };
	} else if (missing) {
		err = unit_combine(mg, &u, missing);
	} else if (u.new_x.detached == u.x.detached) {
		return 0;
	}
	return err ? err : unit_commit(mg, &u);
}

/* ---- the end ---- */

/* Everything that may have to be got before the lists can change. */
struct finish {
	char	child[IMAGE_LIST_NAME], parent[IMAGE_LIST_NAME];
	struct alloc_hold hold;
	struct alloc_pin pins[2];
	unsigned int credits;
};

static int finish_prepare(struct merging *mg, struct finish *f)
{
	struct inode *list = mg->inos[MG_LIST], *parents = mg->inos[MG_PARENTS_LIST];
	unsigned int credits[3] = { 0 };
	int err = 0;

	image_list_name(mg->child->id, f->child);
	image_list_name(mg->parent->id, f->parent);
	if (parents)
		err = dir_insert_prepare(mg->fs, parents, f->child, strlen(f->child), &f->hold,
					 &credits[0]);
	if (!err && parents)
		err = dir_remove_prepare(mg->fs, parents, f->parent, strlen(f->parent),
					 &f->pins[0], &credits[1]);
	if (!err)
		err = dir_remove_prepare(mg->fs, list, f->child, strlen(f->child), &f->pins[1],
					 &credits[2]);
	f->credits = 2 + credits[0] + credits[1] + credits[2];
	return err;
}

static void finish_unprepare(struct merging *mg, struct finish *f)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(f->pins); i++)
		if (f->pins[i].ag)
			alloc_unpin(mg->fs, &f->pins[i]);
	if (f->hold.ag)
		alloc_put(mg->fs, &f->hold);
}

/* Failures come before the first change, or are taken back. */
static int finish_lists(struct txn *txn, struct merging *mg, struct finish *f)
{
	struct inode *list = mg->inos[MG_LIST], *parents = mg->inos[MG_PARENTS_LIST];
	int err = 0;

	if (parents) {
		inode_touch(txn, parents, true);
		err = dir_insert(txn, parents, f->child, strlen(f->child), mg->child->id, DT_REG,
				 &f->hold);
	}
	if (!err && parents) {
		err = dir_remove(txn, parents, f->parent, strlen(f->parent), &f->pins[0]);
		if (err)
			dir_remove(txn, parents, f->child, strlen(f->child), NULL);
	}
	if (err)
		return err;
	inode_touch(txn, list, true);
	return dir_remove(txn, list, f->child, strlen(f->child), &f->pins[1]);
}

static int finish_commit(struct merging *mg, struct finish *f)
{
	struct inode_disk *xd, *sd;
	struct txn txn;
	uint64_t limit;
	int err = txn_begin(mg->fs, f->credits, &txn);

	if (err)
		return err;
	err = finish_lists(&txn, mg, f);
	if (!err) {
		xd = inode_change(&txn, mg->child);
		sd = inode_change(&txn, mg->parent);
		limit = le64_to_cpu(sd->image_limit);
		if (le64_to_cpu(xd->image_limit) < limit)
			limit = le64_to_cpu(xd->image_limit);
		xd->image_parent = sd->image_parent;
		xd->image_limit = cpu_to_le64(limit);
		sd->image_parent = cpu_to_le64(0);
		sd->image_limit = cpu_to_le64(0);
	}
	txn_end(&txn);
	return err;
}

static int merging_finish(struct merging *mg)
{
	struct finish f = { .hold = { 0 } };
	uint64_t id = mg->parent->id;
	int err = finish_prepare(mg, &f);

	if (!err)
		err = finish_commit(mg, &f);
	finish_unprepare(mg, &f);
	if (err)
		return err;
	image_skip(mg->fs, mg->child);
	orphan_kick(mg->fs, id);
	return 0;
}

/* What was moved shows in the copies through which others are read. */
static void merging_refreeze(struct merging *mg)
{
	/* Of the parent there is none any more when it is done with. */
	if (mg->parent->frozen)
		image_refreeze(mg->parent);
	if (mg->child->frozen && !MUTANT("stale-frozen"))
		image_refreeze(mg->child);
}

/* ---- a step ---- */

/* Units from m->unit on, at most MERGE_UNITS, and the end.  Return: 1 more to do; 0 done; errors. */
static int merging_units(struct merging *mg)
{
	uint64_t unit, limit = le64_to_cpu(inode_disk(mg->child)->image_limit);
	struct merge *m = mg->m;
	struct map_entry e;
	int err;

	/* How far another image has been moved says nothing of this one: its data would be lost. */
	if (m->image != mg->parent->id && !MUTANT("merge-place")) {
		m->image = mg->parent->id;
		m->unit = 0;
	}
	unit = m->first = m->unit;
	for (unsigned int i = 0; i < MERGE_UNITS; i++, unit++) {
		err = map_next(mg->fs, mg->parent, &unit, &e);
		if (err == -ENOENT || (!err && unit * UNIT_SIZE >= limit)) {
			m->unit = 0;
			return merging_finish(mg);
		}
		if (!err)
			err = unit_merge(mg, unit);
		if (err)
			return err;
	}
	m->unit = unit;
	return 1;
}

/* As merging_units(). */
static int merging_locked(struct merging *mg)
{
	int err = merging_check(mg);

	if (!err)
		err = merging_mark(mg);
	if (err)
		return err;
	err = merging_units(mg);
	merging_refreeze(mg);
	return err;
}

static void merging_put(struct merging *mg)
{
	for (unsigned int i = 0; i < MG_COUNT; i++)
		inode_put(mg->fs, mg->inos[i]);
	free(mg->bounce);
}

static int merging_get(struct merging *mg)
{
	int err = 0;

	mg->bounce = blkdev_alloc(UNIT_SIZE);
	if (!mg->bounce)
		return -ENOMEM;
	for (unsigned int i = 0; i < MG_COUNT && !err; i++)
		if (mg->ids[i])
			err = inode_get(mg->fs, inode_id_number(mg->ids[i]), &mg->inos[i]);
	return err;
}

static int merge_step(struct fs *fs, const struct fs_file *f, struct inode *top, unsigned int nth,
		      struct merge *m)
{
	struct merging mg = { .fs = fs, .f = f, .m = m };
	int err = merging_find(&mg, top, nth);

	if (!err)
		err = merging_get(&mg);
	if (!err)
		err = inode_lock_many(fs, mg.inos, mg.ids, MG_COUNT, NULL);
	if (!err) {
		err = merging_locked(&mg);
		inode_unlock_many(fs, mg.inos, MG_COUNT);
	}
	merging_put(&mg);
	return err;
}

/*
 * Nobody else merges below what @f has open until merging_end().  No mutex is held meanwhile, for
 * there may be locks to wait for.  NULL: somebody does so already.
 */
static struct inode *merging_begin(struct fs *fs, const struct fs_file *f)
{
	struct inode *top;

	env_mutex_lock(fs->env, &fs->image_mutex);
	top = f->ino;
	if (top->image_merging)
		top = NULL;
	else
		top->image_merging = true;
	env_mutex_unlock(fs->env, &fs->image_mutex);
	return top;
}

static void merging_end(struct fs *fs, struct inode *top)
{
	env_mutex_lock(fs->env, &fs->image_mutex);
	top->image_merging = false;
	env_mutex_unlock(fs->env, &fs->image_mutex);
}

int fs_merge_step(struct fs *fs, struct fs_file *f, struct merge *m)
{
	unsigned int nth = 0;
	struct inode *top;
	int err = fs_may_write(fs);

	if (err)
		return err;
	if (f->mode != LOCK_EXCLUSIVE)
		return -EBADF;
	top = merging_begin(fs, f);
	if (!top)
		return -EBUSY;
	do {
		err = merge_step(fs, f, top, nth++, m);
	} while (err == -EMLINK);
	merging_end(fs, top);
	if (err == -ENOENT)
		err = 0;
	else if (err == 0)
		err = 1;	/* one pair is done: another may follow */
	return fs_result(fs, err);
}
