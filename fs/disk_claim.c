/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a disk may be opened for who remembers it: the lock's record as it was when it was open, or shut,
 * here the last time, in this incarnation of the host or the one before.
 */
#include "base/mutant.h"
#include "fs/cluster.h"
#include "fs/disk_internal.h"

#define UNKNOWN_SEQUENCE UINT64_MAX	/* of a record; none has it */

static uint64_t writers_ever(struct disk *d, const struct inode *ino)
{
	uint64_t n;

	env_mutex_lock(d->fs->env, &d->fs->open_mutex);
	n = ino->writers_ever;
	env_mutex_unlock(d->fs->env, &d->fs->open_mutex);
	return n;
}

/*
 * Whether a record is as @left says: in the dead incarnation's hands, or released by it at its orderly
 * end.
 */
static bool is_as_left(const struct lock_claim *r, const struct disk_claim *left)
{
	if (r->mode == LOCK_EXCLUSIVE)
		return r->owner == left->slot && r->generation == left->generation &&
		       r->sequence >= left->sequence;
	return r->mode == LOCK_FREE && r->sequence == left->sequence + 1;
}

/*
 * A sequence is had by one record only, and each change makes another: the one that follows a record
 * which was as it was left was made of that, and by nobody but the host that it names.
 */
static bool is_foreseen(const struct lock_claim *r, const struct disk_claim *next)
{
	return next->generation && r->mode == LOCK_EXCLUSIVE && r->owner == next->slot &&
	       r->generation == next->generation && r->sequence == next->sequence;
}

/*
 * The same of a disk that was shut: nobody has it in use, so anybody may have had it since.  As it was, or
 * what its last user has made of that, to give it up: one change makes one record.
 */
static bool is_untouched(const struct lock_claim *r, const struct disk_claim *left)
{
	if (left->sequence == UNKNOWN_SEQUENCE)
		return false;
	if (r->sequence == left->sequence)
		return true;
	return r->sequence == left->sequence + 1 &&
	       (r->mode == LOCK_FREE || (r->mode == LOCK_EXCLUSIVE && r->owner == left->slot &&
					 r->generation == left->generation));
}

static void take_exclusive(struct fs *fs, uint64_t id)
{
	struct inode *ino;

	if (inode_get(fs, inode_id_number(id), &ino))
		return;
	if (!cluster_get(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0, NULL))
		cluster_put(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0);
	inode_put(fs, ino);
}

typedef bool (*as_left_fn)(const struct lock_claim *r, const struct disk_claim *left);

static int take_as_left(struct fs *fs, uint64_t id, as_left_fn as_left, struct disk_claim *left,
			struct disk_claim *next, void (*note)(void *arg), void *arg)
{
	struct lockd *ld = fs->lockd;
	struct lock_claim r;
	int err = ld ? lock_read(ld, inode_lock_addr(id), &r) : 0;

	if (!ld || err)
		return err;
	if (is_foreseen(&r, next))
		*left = *next;
	*next = (struct disk_claim){ 0 };
	if (as_left(&r, left))
		*next = (struct disk_claim){ lockd_slot(ld), lockd_generation(ld), r.sequence + 1 };
	note(arg);
	/* By one change: a lock that was shared first would be at a sequence that was not foreseen. */
	if (next->generation)
		take_exclusive(fs, id);
	return 0;
}

int disk_take_back(struct fs *fs, uint64_t id, struct disk_claim *left, struct disk_claim *next,
		   void (*note)(void *arg), void *arg)
{
	return take_as_left(fs, id, is_as_left, left, next, note, arg);
}

int disk_foretell(struct fs *fs, uint64_t id, struct disk_claim *left, struct disk_claim *next,
		  void (*note)(void *arg), void *arg)
{
	return take_as_left(fs, id, is_untouched, left, next, note, arg);
}

/* Whether the lock was found as @resume left it, and nobody of this incarnation has written since. */
int disk_check_resumed(struct disk *d, const struct disk_claim *resume)
{
	struct lock_claim now, found;

	if (!d->fs->lockd)
		return 0;
	if (writers_ever(d, d->f->ino) != 1)
		return -ESTALE;
	lock_claims(d->fs->lockd, &d->f->ino->cover.lock, &now, &found);
	return is_as_left(&found, resume) ? 0 : -ESTALE;
}

static uint64_t strangers(struct disk *d, struct inode *ino)
{
	return d->fs->lockd ? lock_strangers(d->fs->lockd, &ino->cover.lock) : 0;
}

/* The same of an open that this disk had before. */
int disk_check_again(struct disk *d)
{
	if (MUTANT("back-unchecked"))
		return 0;
	return d->f->ino == d->kept && writers_ever(d, d->kept) == d->kept_writers + 1 &&
	       strangers(d, d->kept) == d->kept_strangers ? 0 : -ESTALE;
}

/* The lock is still in use.  A record that is not known is like none that can be found. */
static void note_left(struct disk *d)
{
	struct lock_claim now = { 0 }, found;

	if (d->fs->lockd)
		lock_claims(d->fs->lockd, &d->f->ino->cover.lock, &now, &found);
	d->left = (struct disk_claim){ now.owner, now.generation,
				       now.sequence ? now.sequence : UNKNOWN_SEQUENCE };
}

/* The inode stays in memory, and with it whoever else opens it to write. */
void disk_keep_inode(struct disk *d)
{
	struct inode *ino = NULL;

	if (d->f->mode != LOCK_EXCLUSIVE || inode_get(d->fs, d->f->ino->number, &ino))
		ino = NULL;
	inode_put(d->fs, d->kept);
	d->kept = ino;
	d->kept_writers = writers_ever(d, d->f->ino);
	d->kept_strangers = strangers(d, d->f->ino);
	note_left(d);
}

/* ---- what the next incarnation has to know ---- */

int disk_claim(struct disk *d, struct disk_claim *claim)
{
	struct lock_claim now, found;
	int err = 0;

	env_mutex_lock(d->fs->env, &d->control);
	if (!d->f)
		err = -ENOMEDIUM;
	*claim = (struct disk_claim){ 0 };
	if (!err && d->fs->lockd) {
		lock_claims(d->fs->lockd, &d->f->ino->cover.lock, &now, &found);
		*claim = (struct disk_claim){ now.owner, now.generation, now.sequence };
	}
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}

bool disk_left(struct disk *d, struct disk_claim *left)
{
	struct lock_claim now;
	bool has;

	env_mutex_lock(d->fs->env, &d->control);
	has = d->fs->lockd && !d->f && d->kept;
	/* What this host itself has done with the lock meanwhile is no stranger's doing. */
	if (has && writers_ever(d, d->kept) == d->kept_writers &&
	    strangers(d, d->kept) == d->kept_strangers &&
	    lock_left(d->fs->lockd, &d->kept->cover.lock, &now))
		d->left = (struct disk_claim){ now.owner, now.generation, now.sequence };
	if (has)
		*left = d->left;
	env_mutex_unlock(d->fs->env, &d->control);
	return has;
}

/* How many strangers there may be at the next open; UINT64_MAX: no number will do. */
static int expected_strangers(struct disk *d, struct inode *ino, const struct disk_claim *left,
			      uint64_t *expected)
{
	struct lock_claim r, now;
	int err = lock_read(d->fs->lockd, ino->cover.lock.addr, &r);

	*expected = UINT64_MAX;
	if (err)
		return err;
	if (is_untouched(&r, left) && lock_expect(d->fs->lockd, &ino->cover.lock, r.sequence)) {
		*expected = 0;
		return 0;
	}
	if (is_untouched(&r, left) && !strangers(d, ino))
		return -EAGAIN;	/* it is just being taken */
	/* This host has it, or has had it, from nobody that it knew: what it found then tells. */
	lock_claims(d->fs->lockd, &ino->cover.lock, &now, &r);
	if (strangers(d, ino) == 1 && is_untouched(&r, left))
		*expected = 1;
	return 0;
}

int disk_expect(struct disk *d, const struct disk_claim *left)
{
	struct inode *ino;
	int err = d->fs->lockd ? inode_get(d->fs, inode_id_number(d->p.id), &ino) : 0;

	if (err || !d->fs->lockd)
		return err;
	env_mutex_lock(d->fs->env, &d->control);
	assert(!d->f && !d->kept);
	err = expected_strangers(d, ino, left, &d->kept_strangers);
	if (err) {
		inode_put(d->fs, ino);
	} else {
		d->kept = ino;
		d->kept_writers = 0;
		d->left = *left;
	}
	env_mutex_unlock(d->fs->env, &d->control);
	return err;
}
