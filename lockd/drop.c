/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drop thread: gives up locks that other hosts want, that were idle for long or that are
 * too many, settles the fate of unclear ones and of strays.  LOCKING.md, "Release".
 */
#include <errno.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define IDLE_NS		(30 * NSEC_PER_SEC)
#define WANTED_BEATS	2	/* idle that long goes along with what another host wants */
#define BATCH_MAX	64	/* locks given up by one settle() */

bool lock_drop_target(const struct lock *lock, enum lock_mode *target)
{
	enum lock_mode users = lock_needed(lock, LOCK_FREE);
	unsigned int wanted = lock->wanted;

	if (lock->mode == LOCK_FREE || lock->unclear || lock->state != LOCK_IDLE)
		return false;
	*target = LOCK_FREE;
	/* Half of it would leave nothing to the heir. */
	if (lock->heir.generation)
		return users == LOCK_FREE && (lock->evict || wanted);
	if (users == LOCK_FREE && lock->evict)
		return true;
	if (lock->mode == LOCK_EXCLUSIVE && (wanted & 1u << LOCK_SHARED) &&
	    (users == LOCK_SHARED || wanted == 1u << LOCK_SHARED)) {
		*target = LOCK_SHARED;
		return users == LOCK_SHARED || users == LOCK_FREE;
	}
	if (lock->mode == LOCK_EXCLUSIVE && (wanted & 1u << LOCK_MULTI) && users == LOCK_MULTI) {
		*target = LOCK_MULTI;
		return true;
	}
	return users == LOCK_FREE && wanted;
}

/* ---- what there is to do; mutex held ---- */

struct drop_batch {
	struct lock *locks[BATCH_MAX];
	unsigned int count;
};

static void batch_add(struct drop_batch *b, struct lock *lock, enum lock_mode target)
{
	list_del(&lock->lru);
	lock->state = LOCK_DROPPING;
	lock->target = target;
	b->locks[b->count++] = lock;
}

/*
 * Wanted and evicted locks first; with them whatever has been idle for long.  Who wants one of
 * our files often wants its neighbours next (rm -r, a backup, a takeover of work) and would wait
 * for each of them: what we do not use goes along.
 */
static void batch_collect(struct lockd *ld, struct drop_batch *b)
{
	struct lock_cache *c = &ld->cache;
	uint64_t now = env_now_ns(ld->p.env), idle_ns = IDLE_NS, short_ns = IDLE_NS;
	struct lock *lock, *next;
	enum lock_mode target;

	if (WANTED_BEATS * lockd_beat_ns(ld) < IDLE_NS)
		short_ns = WANTED_BEATS * lockd_beat_ns(ld);

	b->count = 0;
	list_for_each(lock, next, &c->drops, lru) {
		if (b->count == BATCH_MAX)
			return;
		if (lock->deny || now < lock->retry_ns)
			continue;
		if (lock_drop_target(lock, &target)) {
			if (target != LOCK_SHARED && now < lock->keep_until_ns)
				continue;
			if (lock->wanted)
				idle_ns = short_ns;
			batch_add(b, lock, target);
		} else {
			lock_place(ld, lock);
		}
	}
	list_for_each(lock, next, &c->lru, lru) {
		size_t left = c->locks.count - b->count;

		if (b->count == BATCH_MAX ||
		    (left <= c->held_max && now < lock->last_use_ns + idle_ns))
			return;
		if (now < lock->keep_until_ns)
			continue;
		batch_add(b, lock, LOCK_FREE);
		/* What would be next in a moment goes along: one settle() for all. */
		if (idle_ns == IDLE_NS)
			idle_ns = IDLE_NS - lockd_beat_ns(ld);
	}
}

static struct lock *first_due(const struct list *head, uint64_t now, bool deny)
{
	struct lock *lock, *next;

	list_for_each(lock, next, head, lru)
		if (now >= lock->retry_ns && lock->deny >= deny)
			return lock;
	return NULL;
}

/* When there may be something to do again, if nobody calls before. */
static uint64_t next_wake(const struct lockd *ld)
{
	const struct lock_cache *c = &ld->cache;
	uint64_t now = env_now_ns(ld->p.env), next = now + lockd_beat_ns(ld) / 4;
	struct lock *lock, *tmp;

	list_for_each(lock, tmp, &c->drops, lru)
		if (lock->keep_until_ns > now && lock->keep_until_ns < next)
			next = lock->keep_until_ns;
	if (!list_empty(&c->drops) || !list_empty(&c->unclear))
		return next;
	/* A lock that becomes idle wakes nobody, for that would cost each use of it. */
	if (list_empty(&c->lru))
		return now + IDLE_NS;
	return list_first(&c->lru, struct lock, lru)->last_use_ns + IDLE_NS;
}

/* ---- releasing ---- */

static void lock_written(struct lock *lock, const struct record *r, const struct lock_user *user)
{
	lock_note_record(lock, r);
	lock->recorded = *user;
	lock->unclear = false;
}

/* After settle() and forget(): the record says @target.  mutex held. */
static void drop_succeeded(struct lockd *ld, struct lock *lock, const struct record *r)
{
	static const struct lock_user nobody;

	lock_written(lock, r, &nobody);
	if (lock->wanted)
		lock->yield_until_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld) / 4;
	lock->wanted = lock->target == LOCK_FREE ? 0 : lock->wanted & ~(1u << lock->target);
	if (lock->target == LOCK_FREE) {
		/* Other writers may stay behind in the record as it is now. */
		lock->forgotten_sequence = lock->mode == LOCK_MULTI ? 0 : r->rec.sequence;
		lock->evict = false;
		lock->heir.generation = 0;
	}
	lock->mode = lock->target;
	ld->lock_releases++;
}

static void drop_failed(struct lockd *ld, struct lock *lock, const struct record *r, int err,
			bool unclear)
{
	lock->drop_err = err;
	lock->retry_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld) / 2;
	lock->sequence = 0;
	if (err == -EUCLEAN) {
		/* The record is gone; nothing can be released any more, nor taken. */
		lock->mode = LOCK_FREE;
		lock->wanted = 0;
	} else if (unclear) {
		/* The weaker of the two modes, and not even that before it is certain. */
		lock->sequence = r->rec.sequence;
		lock->mode = lock->target;
		lock->unclear = true;
		lock->wanted = 0;
	}
}

static void drop_write(struct lockd *ld, struct lock *lock)
{
	bool left = lock->target == LOCK_FREE && lock->mode == LOCK_EXCLUSIVE && lock->heir.generation;
	struct lock_user user = lock->recorded;
	bool unclear = false;
	struct record r;
	int err;

	record_recall(ld, lock, false, &r);
	err = left ? record_change(ld, lock->addr, LOCK_EXCLUSIVE, &lock->heir, &user, &r, &unclear) :
		     record_change(ld, lock->addr, lock->target, NULL, NULL, &r, &unclear);
	env_mutex_lock(ld->p.env, &ld->mutex);
	if (err)
		drop_failed(ld, lock, &r, err, unclear);
	else
		drop_succeeded(ld, lock, &r);
	lock->state = LOCK_IDLE;
	lock_place(ld, lock);
	/* Also those who wait for the address: another object has it now. */
	if (lock->waiters || !lock->known)
		env_cond_broadcast(ld->p.env, &ld->changed);
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

/* Nothing is given up: R4 does not hold.  mutex held. */
static void batch_keep(struct lockd *ld, struct drop_batch *b, int err)
{
	if (!ld->cache.settle_failed && !ld->lost)
		log_error(ld->p.env, ld->datastore, "locks that other hosts may want are kept, as"
			  " changes cannot be written home: %s", strerror(-err));
	ld->cache.settle_failed = true;
	for (unsigned int i = 0; i < b->count; i++) {
		struct lock *lock = b->locks[i];

		lock->state = LOCK_IDLE;
		lock->drop_err = err;
		lock->retry_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld);
		lock_place(ld, lock);
	}
	env_cond_broadcast(ld->p.env, &ld->changed);
}

/* mutex held on entry and return, not between. */
static void drop_batch(struct lockd *ld, struct drop_batch *b)
{
	const struct lockd_client *client = ld->p.client;
	int err;

	env_mutex_unlock(ld->p.env, &ld->mutex);
	err = MUTANT("release-before-home") ? 0 : client->settle(ld->p.client_arg);
	if (err) {
		env_mutex_lock(ld->p.env, &ld->mutex);
		batch_keep(ld, b, err);
		return;
	}
	for (unsigned int i = 0; i < b->count; i++)
		if (b->locks[i]->target == LOCK_FREE && !MUTANT("keep-cached"))
			client->forget(ld->p.client_arg, b->locks[i]);
	for (unsigned int i = 0; i < b->count; i++)
		drop_write(ld, b->locks[i]);
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->cache.settle_failed = false;
}

/* ---- the rest of its work; mutex held on entry and return, not between ---- */

/* A want has to be refused: the record is made to name the process that has it open. */
static void drop_name_user(struct lockd *ld, struct lock *lock)
{
	struct lock_user user = lock->user;
	bool unclear = false;
	struct record r;
	int err;

	list_del(&lock->lru);
	lock->state = LOCK_ACQUIRING;
	lock->target = lock->mode;
	record_recall(ld, lock, false, &r);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	err = record_change(ld, lock->addr, lock->mode, NULL, &user, &r, &unclear);
	env_mutex_lock(ld->p.env, &ld->mutex);
	lock_written(lock, &r, &user);
	if (err)
		lock->sequence = 0;	/* the refusal does not wait for a name */
	lock->deny = false;
	lock->state = LOCK_IDLE;
	want_deny(ld, lock);
	lock_place(ld, lock);
	env_cond_broadcast(ld->p.env, &ld->changed);
}

static void drop_clear(struct lockd *ld, struct lock *lock)
{
	static const struct lock_user nobody;
	bool unclear = false;
	struct record r = { 0 };
	int err;

	list_del(&lock->lru);
	lock->state = LOCK_DROPPING;
	lock->target = lock->mode;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	if (lock->target == LOCK_FREE)
		err = record_settle_fate(ld, lock->addr, lock->sequence, &r);
	else
		err = record_change(ld, lock->addr, lock->target, NULL, NULL, &r, &unclear);
	env_mutex_lock(ld->p.env, &ld->mutex);
	if (err >= 0 || err == -EUCLEAN)
		lock_written(lock, &r, &nobody);
	lock->drop_err = err < 0 ? err : 0;
	lock->retry_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld) / 2;
	lock->state = LOCK_IDLE;
	lock_place(ld, lock);
	env_cond_broadcast(ld->p.env, &ld->changed);
}

static void drop_stray(struct lockd *ld)
{
	struct lock *stray = &ld->cache.stray;
	struct record r;

	env_mutex_unlock(ld->p.env, &ld->mutex);
	if (record_settle_fate(ld, stray->addr, 0, &r) == 1)
		log_warning(ld->p.env, ld->datastore,
			    "lock record at 0x%llx named us for no reason: released",
			    (unsigned long long)stray->addr);
	env_mutex_lock(ld->p.env, &ld->mutex);
	table_remove(&ld->cache.locks, &stray->node);
	stray->known = false;
	env_cond_broadcast(ld->p.env, &ld->changed);
}

/* One piece of work.  Return: whether there was any. */
static bool drop_once(struct lockd *ld)
{
	uint64_t now = env_now_ns(ld->p.env);
	struct drop_batch batch;
	struct lock *lock;

	if (ld->lost)
		return false;
	batch_collect(ld, &batch);
	if (batch.count) {
		drop_batch(ld, &batch);
		return true;
	}
	lock = first_due(&ld->cache.drops, now, true);
	if (lock) {
		drop_name_user(ld, lock);
		return true;
	}
	lock = first_due(&ld->cache.unclear, now, false);
	if (lock) {
		drop_clear(ld, lock);
		return true;
	}
	if (ld->cache.stray.known) {
		drop_stray(ld);
		return true;
	}
	return false;
}

void drop_thread_main(void *arg)
{
	struct lockd *ld = arg;
	struct lock_cache *c = &ld->cache;

	env_mutex_lock(ld->p.env, &ld->mutex);
	while (!c->stopping) {
		if (drop_once(ld))
			continue;
		env_cond_wait(ld->p.env, &c->wake, &ld->mutex,
			      ld->lost ? ENV_FOREVER : next_wake(ld));
	}
	env_mutex_unlock(ld->p.env, &ld->mutex);
}
