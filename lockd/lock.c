/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock records on disk: who holds what, taking and giving back.  LOCKING.md, "Acquire" and
 * "Release"; what this host remembers of its locks is cache.c's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define ROUNDS_MAX	16	/* lost races, unclear answers */
#define WHY_SIZE	200

/* ---- reading ---- */

/* A valid record of this volume whose holders can exist: all of the sector is looked at. */
static int record_believe(const uint8_t *sector, uint32_t sector_size, const uint8_t volume[16],
			  uint32_t slot_count, uint64_t addr, struct record *r, char *why)
{
	int err = lockrec_decode(sector, volume, addr, &r->rec, why, WHY_SIZE);

	if (err)
		return -EUCLEAN;
	for (uint32_t i = META_SECTOR_SIZE; i < sector_size; i++) {
		if (!sector[i])
			continue;
		snprintf(why, WHY_SIZE, "lock record at 0x%llx: byte %u of its sector is 0x%02x,"
			 " expected zeros", (unsigned long long)addr, i, sector[i]);
		return -EUCLEAN;
	}
	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++) {
		if (i < slot_count ||
		    (!r->rec.sharers[i] && r->rec.owner != i && r->rec.heir != i))
			continue;
		snprintf(why, WHY_SIZE, "lock record at 0x%llx: held by slot %u, expected a slot"
			 " below %u", (unsigned long long)addr, i, slot_count);
		return -EUCLEAN;
	}
	memcpy(r->image, sector, META_SECTOR_SIZE);
	return 0;
}

static int record_load(struct blkdev *dev, const uint8_t volume[16], uint32_t slot_count,
		       uint64_t addr, struct record *r, char *why)
{
	uint8_t buf[META_BLOCK_SIZE] BLKDEV_ALIGNED;
	int err;

	/* A bit that fell over on the way is not believed, but worth a second look. */
	for (unsigned int i = 0; i < 2; i++) {
		err = blkdev_read(dev, addr, buf, dev->info.sector);
		if (err)
			break;
		err = record_believe(buf, dev->info.sector, volume, slot_count, addr, r, why);
		if (!err)
			break;
	}
	return err;
}

int record_read(struct lockd *ld, uint64_t addr, struct record *r)
{
	char why[WHY_SIZE];
	int err = record_load(lockd_dev(ld), ld->p.volume, ld->p.slot_count, addr, r, why);

	if (err == -EUCLEAN)
		log_error(ld->p.env, ld->datastore, "%s; run fsck.lunfs", why);
	return err;
}

/* ---- holders ---- */

uint32_t record_generation(const struct lockrec *r, uint32_t slot)
{
	if (r->mode == LOCK_EXCLUSIVE)
		return r->owner == slot ? r->owner_generation : 0;
	return r->sharers[slot];
}

bool record_names_us(const struct lockd *ld, const struct lockrec *r)
{
	return record_generation(r, ld->cache.slot) == ld->cache.generation;
}

/* Seen beating lately, so not stale: saves reading its slot.  The reverse is never concluded. */
static bool owner_is_beating(struct lockd *ld, uint32_t slot, uint32_t generation)
{
	uint64_t now = env_now_ns(ld->p.env);
	const struct peer *p = &ld->peers[slot];
	bool beating;

	env_mutex_lock(ld->p.env, &ld->mutex);
	beating = p->valid && p->slot.state == SLOT_LIVE && p->slot.generation == generation &&
		  now - p->seen_ns < 2 * lockd_beat_ns(ld);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return beating;
}

/*
 * R5 for the record at @addr, read before this call: 1 stale; 0 not; negative errno.  A later owner of our
 * own slot may be one that has taken it from us, or nobody: the slot tells.
 */
static int owner_is_stale(struct lockd *ld, uint64_t addr, uint32_t slot, uint32_t generation)
{
	bool own = slot == ld->cache.slot;
	int err;

	if (own && generation <= ld->cache.generation)
		return generation < ld->cache.generation;
	if (!own && owner_is_beating(ld, slot, generation))
		return 0;
	err = observe_owner_is_stale(ld, addr, slot, generation);
	if (!own || err < 0)
		return err;
	log_error(ld->p.env, ld->datastore, "lock record at 0x%llx: names a later owner of our own slot %u:"
		  " the slot is lost", (unsigned long long)addr, slot);
	return -ESTALE;
}

bool lock_modes_exclude(enum lock_mode a, enum lock_mode b)
{
	return a != LOCK_FREE && b != LOCK_FREE && (a != b || a == LOCK_EXCLUSIVE);
}

static bool heir_is_us(const struct lockd *ld, const struct lockrec *r)
{
	if (MUTANT("any-heir"))
		return r->heir_generation;
	return r->heir_generation == ld->cache.generation && r->heir == ld->cache.slot;
}

/*
 * 0: nobody but us and stale owners is in the way of @mode; -EBUSY: @b is.
 * @opens: for an exclusive open, which is what a lock is left to an heir for, and what its owner may
 * take it back for: a look at the file by either would end with anybody's having it.
 */
static int record_blocked(struct lockd *ld, uint64_t addr, const struct record *r, enum lock_mode mode,
			  bool opens, struct blocker *b)
{
	bool ours = record_names_us(ld, &r->rec);

	if (!lock_modes_exclude(r->rec.mode, mode))
		return 0;
	if (r->rec.heir_generation && opens && (ours || heir_is_us(ld, &r->rec)))
		return 0;
	if (r->rec.heir_generation && ours && !opens) {
		*b = (struct blocker){ .slot = r->rec.owner,
				       .generation = r->rec.owner_generation, .found = *r };
		return -EBUSY;
	}
	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		uint32_t generation = record_generation(&r->rec, i);
		int stale;

		if (!generation || (i == ld->cache.slot && generation == ld->cache.generation))
			continue;
		stale = owner_is_stale(ld, addr, i, generation);
		if (stale < 0)
			return stale;
		if (stale)
			continue;
		*b = (struct blocker){ .slot = i, .generation = generation, .found = *r };
		return -EBUSY;
	}
	return 0;
}

/* ---- changing ---- */

/*
 * What follows @old when we hold it in @mode (LOCK_FREE: no more).  @attempt: unclear
 * attempts on the same old image; each image differs, and a reader tells them apart.
 */
static void record_next(struct lockd *ld, const struct lockrec *old, enum lock_mode mode,
			const struct lock_user *user, unsigned int attempt,
			struct lockrec *next)
{
	bool others = false;

	*next = *old;
	next->sequence = old->sequence + 1 + attempt;
	next->since = env_realtime_ns(ld->p.env);
	next->pid = user ? user->pid : 0;
	memset(next->comm, 0, sizeof(next->comm));
	if (user)
		memcpy(next->comm, user->comm, sizeof(next->comm));
	next->owner = SLOT_NONE;
	next->owner_generation = 0;
	next->heir = 0;
	next->heir_generation = 0;
	next->sharers[ld->cache.slot] = 0;
	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++)
		others |= next->sharers[i] != 0;
	if (mode == LOCK_FREE && others)
		return;
	if (mode != old->mode || mode == LOCK_EXCLUSIVE)
		memset(next->sharers, 0, sizeof(next->sharers));
	next->mode = mode;
	if (mode == LOCK_EXCLUSIVE) {
		next->owner = ld->cache.slot;
		next->owner_generation = ld->cache.generation;
	} else if (mode != LOCK_FREE) {
		next->sharers[ld->cache.slot] = ld->cache.generation;
	}
}

/*
 * The attempts at changing one record.  While the old image of an unclear attempt is on disk
 * that attempt may still land; once a read shows that the sequence has moved it cannot, and
 * whether the record names us tells what became of it.
 */
struct attempts {
	unsigned int rounds;
	unsigned int unclear_count;	/* those that had to be read back */
	bool	unclear;		/* they may have landed, or may yet */
	uint64_t unclear_sequence;
	bool	missed;			/* one miscompared, and its image was not found … */
	uint64_t missed_sequence;	/* … where it had expected this */
};

static void attempts_saw(struct attempts *a, const struct lockrec *r)
{
	if (a->unclear && r->sequence != a->unclear_sequence)
		a->unclear = false;
}

/* One compare-and-write of @r to @next; @r is @next on success. */
static int record_write(struct lockd *ld, uint64_t addr, struct record *r,
			const struct lockrec *next, struct attempts *a)
{
	uint8_t image[META_SECTOR_SIZE];
	bool unclear;
	int err;

	lockrec_encode(next, ld->p.volume, addr, image, sizeof(image));
	err = caw_sector_told(ld, lockd_dev(ld), addr, r->image, image, &unclear);
	a->unclear_count += unclear;
	if (err)
		return err;
	r->rec = *next;
	memcpy(r->image, image, sizeof(image));
	return 0;
}

/* Whether @err of record_write() means to read again and go on. */
static bool attempts_go_on(struct attempts *a, const struct lockrec *expected, int err)
{
	if (err == -EILSEQ) {
		a->missed = true;
		a->missed_sequence = expected->sequence;
	}
	if (!err) {
		a->unclear = false;
	} else if (a->unclear_count) {
		/* Even after a miscompare: an attempt may have landed and been built upon. */
		a->unclear = true;
		a->unclear_sequence = expected->sequence;
	}
	return (err == -EILSEQ || err == -EAGAIN) && ++a->rounds < ROUNDS_MAX;
}

void lock_note_record(struct lock *lock, const struct record *r)
{
	unsigned int sharers = 0;

	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++)
		sharers += r->rec.sharers[i] != 0;
	lock->sequence = r->rec.sequence;
	lock->since = r->rec.since;
	lock->alone = sharers <= 1;
}

void record_recall(struct lockd *ld, const struct lock *lock, bool shared, struct record *r)
{
	memset(r, 0, sizeof(*r));
	r->rec.owner = SLOT_NONE;
	if (!lock->sequence || lock->unclear ||
	    (lock->mode != LOCK_EXCLUSIVE && !(shared && lock->mode == LOCK_SHARED && lock->alone)))
		return;
	r->rec.sequence = lock->sequence;
	r->rec.mode = lock->mode;
	if (lock->mode == LOCK_EXCLUSIVE) {
		r->rec.owner = ld->cache.slot;
		r->rec.owner_generation = ld->cache.generation;
	} else {
		r->rec.sharers[ld->cache.slot] = ld->cache.generation;
	}
	r->rec.since = lock->since;
	r->rec.pid = lock->recorded.pid;
	memcpy(r->rec.comm, lock->recorded.comm, sizeof(r->rec.comm));
	lockrec_encode(&r->rec, ld->p.volume, lock->addr, r->image, sizeof(r->image));
}

struct lock_claim record_claim(const struct lockrec *r)
{
	return (struct lock_claim){ .mode = r->mode, .owner = r->owner,
				    .generation = r->owner_generation, .sequence = r->sequence };
}

int record_take(struct lockd *ld, uint64_t addr, enum lock_mode mode, bool opens,
		const struct lock_user *user, struct record *r, struct lock_claim *found,
		struct blocker *b, bool *unclear)
{
	bool known = r->rec.sequence != 0, ours = false;
	struct attempts a = { 0 };
	struct record now;
	struct lockrec next;
	int err;

	do {
		/* What is remembered is as good as a read that long ago: the write compares all of it. */
		if (!known) {
			err = record_read(ld, addr, &now);
			if (err)
				break;
			*r = now;
		}
		known = false;
		ours = record_names_us(ld, &r->rec);
		attempts_saw(&a, &r->rec);
		err = record_blocked(ld, addr, r, mode, opens, b);
		if (err) {
			ours = ours && !r->rec.heir_generation;	/* it says so for a reason */
			break;
		}
		*found = record_claim(&r->rec);
		record_next(ld, &r->rec, mode, user, a.unclear_count, &next);
		err = record_write(ld, addr, r, &next, &a);
		if (err == -EBUSY)
			*b = (struct blocker){ .slot = SLOT_NONE, .found = *r };
	} while (attempts_go_on(&a, &r->rec, err));
	*unclear = err && (a.unclear || ours);
	if (!err)
		atomic_fetch_add(&ld->locks_taken, 1);
	return err == -EILSEQ ? -EAGAIN : err;
}

uint64_t lockd_locks_taken(const struct lockd *ld)
{
	return atomic_load(&ld->locks_taken);
}

/*
 * The record is not ours.  Fine if an attempt of ours has released it: one that was unclear, or
 * one that a lower layer sent twice and whose release was built upon before the second
 * miscompared; that takes two changes at least.  Otherwise two hosts believe that they hold it
 * (R1), and we are the one without proof.
 */
static int record_gone(struct lockd *ld, uint64_t addr, bool release, const struct attempts *a,
		       struct record *r)
{
	bool echo = release && a->missed && r->rec.sequence > a->missed_sequence + 1;

	r->rec.sequence = 0;
	if (a->unclear_count || echo)
		return 0;
	log_error(ld->p.env, ld->datastore, "lock record at 0x%llx: we hold it, and it names"
		  " somebody else", (unsigned long long)addr);
	lockd_fail(ld, "a lock of this host was taken from it");
	return -ESTALE;
}

/* As record_take() for a record that is ours.  Nobody else takes it from a living host. */
int record_change(struct lockd *ld, uint64_t addr, enum lock_mode mode, const struct lock_heir *heir,
		  const struct lock_user *user, struct record *r, bool *unclear)
{
	bool known = r->rec.sequence != 0;
	struct attempts a = { 0 };
	struct record now;
	struct lockrec next;
	int err;

	do {
		if (!known) {
			err = record_read(ld, addr, &now);
			if (err)
				break;
			*r = now;
			attempts_saw(&a, &r->rec);
		}
		known = false;
		err = 0;
		if (!record_names_us(ld, &r->rec)) {
			err = record_gone(ld, addr, mode == LOCK_FREE || heir, &a, r);
			break;
		}
		record_next(ld, &r->rec, mode, user, a.unclear_count, &next);
		next.heir = heir ? heir->slot : 0;
		next.heir_generation = heir ? heir->generation : 0;
		err = record_write(ld, addr, r, &next, &a);
	} while (attempts_go_on(&a, &r->rec, err));
	*unclear = err && a.unclear && !MUTANT("unclear-is-undone");
	return err == -EILSEQ ? -EAGAIN : err;
}

int record_settle_fate(struct lockd *ld, uint64_t addr, uint64_t sequence, struct record *r)
{
	struct attempts a = { 0 };
	struct lockrec next;
	bool ours;
	int err;

	do {
		err = record_read(ld, addr, r);
		if (err)
			break;
		ours = record_names_us(ld, &r->rec);
		if (!ours && r->rec.sequence != sequence)
			return 0;
		/* Not for no reason: somebody is to have it. */
		if (ours && !sequence && r->rec.heir_generation)
			return 0;
		/* Whoever else holds it keeps it: what may still be under way has to miss. */
		next = r->rec;
		next.sequence += 1 + a.unclear_count;
		if (ours)
			record_next(ld, &r->rec, LOCK_FREE, NULL, a.unclear_count, &next);
		err = record_write(ld, addr, r, &next, &a);
		if (!err)
			return ours;
	} while (attempts_go_on(&a, &r->rec, err));
	return err == -EILSEQ ? -EAGAIN : err;
}

int lock_free_left(struct lockd *ld, struct lock *lock)
{
	struct attempts a = { 0 };
	struct lockrec next;
	struct record r;
	uint64_t before = 0;
	int err;

	do {
		err = record_read(ld, lock->addr, &r);
		if (err || !r.rec.heir_generation || !record_names_us(ld, &r.rec))
			break;
		before = r.rec.sequence;
		record_next(ld, &r.rec, LOCK_FREE, NULL, a.unclear_count, &next);
		err = record_write(ld, lock->addr, &r, &next, &a);
	} while (attempts_go_on(&a, &r.rec, err));
	/* Nobody else has had it: what is remembered of it stays good. */
	env_mutex_lock(ld->p.env, &ld->mutex);
	if (!err && before && r.rec.mode == LOCK_FREE && lock->forgotten_sequence == before)
		lock->forgotten_sequence = r.rec.sequence;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err == -EILSEQ ? -EAGAIN : err;
}

/* ---- showing and breaking ---- */

static void holder_fill(const struct lockrec *r, uint32_t slot, uint32_t generation,
			const char *host_name, struct lock_holder *holder)
{
	memset(holder, 0, sizeof(*holder));
	holder->slot = slot;
	holder->generation = generation;
	holder->mode = r->mode;
	snprintf(holder->host_name, sizeof(holder->host_name), "%s", host_name);
	holder->pid = r->pid;
	memcpy(holder->comm, r->comm, sizeof(holder->comm));
	holder->since = r->since;
	holder->breakable_ms = UINT64_MAX;
}

static void holder_none(struct lock_holder *holder)
{
	memset(holder, 0, sizeof(*holder));
	holder->slot = SLOT_NONE;
	holder->breakable_ms = UINT64_MAX;
}

void record_holder(struct lockd *ld, const struct lockrec *r, uint32_t slot,
		   uint32_t generation, struct lock_holder *holder)
{
	const struct peer *p;

	if (slot >= ld->p.slot_count) {
		holder_none(holder);
		return;
	}
	if (slot == ld->cache.slot) {
		holder_fill(r, slot, generation, ld->p.host_name, holder);
		return;
	}
	p = &ld->peers[slot];
	holder_fill(r, slot, generation,
		    p->valid && p->slot.generation == generation ? p->slot.host_name : "",
		    holder);
	observe_silent(ld, slot, generation, &holder->silent_ms, &holder->breakable_ms);
}

/* The first holder that is not stale: 1 and who; 0 nobody; negative errno. */
static int record_first_holder(struct lockd *ld, uint64_t addr, const struct lockrec *r, uint32_t *slot,
			       uint32_t *generation)
{
	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		uint32_t g = record_generation(r, i);
		int stale = g ? owner_is_stale(ld, addr, i, g) : 1;

		if (stale < 0)
			return stale;
		if (stale)
			continue;
		*slot = i;
		*generation = g;
		return 1;
	}
	return 0;
}

/* mutex held. */
static void name_heir(const struct lockd *ld, const struct lockrec *r, struct lock_holder *holder)
{
	const struct peer *p = r->heir < ld->p.slot_count ? &ld->peers[r->heir] : NULL;

	holder->heir_is_us = heir_is_us(ld, r);
	snprintf(holder->heir, sizeof(holder->heir), "%s",
		 holder->heir_is_us ? ld->p.host_name :
		 p && p->valid && p->slot.generation == r->heir_generation ? p->slot.host_name :
		 "a host that is gone");
}

int lock_show(struct lockd *ld, uint64_t addr, struct lock_holder *holder)
{
	uint32_t slot, generation;
	struct record r;
	int err;

	err = record_read(ld, addr, &r);
	if (err)
		return err;
	err = record_first_holder(ld, addr, &r.rec, &slot, &generation);
	if (err < 0)
		return err;
	if (!err) {
		holder_none(holder);
		holder->left = r.rec.mode == LOCK_EXCLUSIVE;
		memcpy(holder->left_comm, r.rec.comm, sizeof(holder->left_comm));
		return 0;
	}
	env_mutex_lock(ld->p.env, &ld->mutex);
	record_holder(ld, &r.rec, slot, generation, holder);
	if (r.rec.heir_generation)
		name_heir(ld, &r.rec, holder);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return 0;
}

int lock_read(struct lockd *ld, uint64_t addr, struct lock_claim *claim)
{
	struct record r;
	int err = record_read(ld, addr, &r);

	if (!err)
		*claim = record_claim(&r.rec);
	return err;
}

/* Without lockd: the slot as it is now.  1: it holds what names @generation; 0 stale. */
static int slot_load(struct blkdev *dev, const uint8_t volume[16], uint64_t slots_addr,
		     uint32_t index, uint32_t generation, struct slot *s)
{
	uint64_t addr = slots_addr + (uint64_t)index * META_BLOCK_SIZE;
	uint8_t buf[META_BLOCK_SIZE] BLKDEV_ALIGNED;
	int err;

	err = blkdev_read(dev, addr, buf, META_BLOCK_SIZE);
	if (!err)
		err = slot_decode(buf, volume, addr, index, s, NULL, 0);
	if (err)
		return err == -EBADMSG ? -EUCLEAN : err;
	return s->generation == generation && s->state != SLOT_FREE;
}

int lock_show_dev(struct blkdev *dev, const uint8_t volume[16], uint64_t slots_addr,
		  uint32_t slot_count, uint64_t addr, struct lock_holder *holder)
{
	char why[WHY_SIZE];
	struct record r;
	struct slot s;
	int err;

	err = record_load(dev, volume, slot_count, addr, &r, why);
	if (err)
		return err;
	for (uint32_t i = 0; i < slot_count; i++) {
		uint32_t generation = record_generation(&r.rec, i);

		err = 0;
		if (generation)
			err = slot_load(dev, volume, slots_addr, i, generation, &s);
		if (err < 0)
			return err;
		if (!err)
			continue;
		holder_fill(&r.rec, i, generation, s.host_name, holder);
		return 0;
	}
	holder_none(holder);
	return 0;
}

/* Every holder of @r is stale: the record says free again. */
static int record_free_stale(struct lockd *ld, uint64_t addr, struct record *r)
{
	struct lockrec next = r->rec;
	struct attempts a = { 0 };

	if (next.mode == LOCK_FREE)
		return 0;
	next.sequence++;
	next.since = env_realtime_ns(ld->p.env);
	next.mode = LOCK_FREE;
	next.owner = SLOT_NONE;
	next.owner_generation = 0;
	next.heir = 0;
	next.heir_generation = 0;
	next.pid = 0;
	memset(next.comm, 0, sizeof(next.comm));
	memset(next.sharers, 0, sizeof(next.sharers));
	return record_write(ld, addr, r, &next, &a);
}

int lock_break(struct lockd *ld, uint64_t addr, struct lock_holder *holder)
{
	uint32_t slot, generation;
	struct record r;
	int err;

	/* A shared lock may have a dead holder in every slot, and lose a race for each. */
	for (unsigned int i = 0; i < SLOT_COUNT_MAX + ROUNDS_MAX; i++) {
		err = record_read(ld, addr, &r);
		if (err)
			return err;
		err = record_first_holder(ld, addr, &r.rec, &slot, &generation);
		if (err < 0)
			return err;
		if (!err) {
			err = record_free_stale(ld, addr, &r);
			if (err == -EILSEQ || err == -EAGAIN)
				continue;
			return err;
		}
		if (holder) {
			env_mutex_lock(ld->p.env, &ld->mutex);
			record_holder(ld, &r.rec, slot, generation, holder);
			env_mutex_unlock(ld->p.env, &ld->mutex);
		}
		if (slot == ld->cache.slot)
			return -EBUSY;
		err = recover_slot(ld, slot, generation);
		if (err)
			return err == -EAGAIN ? -EBUSY : err;
	}
	return -EBUSY;
}
