/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The locks that this host knows: shared by its threads, kept after the last use.
 *
 *                 lock_get(), not held                 wanted, idle, evicted
 *   unknown ──► IDLE ──────────────► ACQUIRING    IDLE ─────────────────────► DROPPING
 *      ▲         ▲  seek_once()          │         ▲   drop_batch()              │
 *      │         └───────────────────────┘         └──── settled, forgotten, ────┘
 *      └──── lock_place(): not held, not clear                  record written
 *            of nothing, nobody inside
 *
 * Everything is under ld->mutex, which is never held during I/O; ACQUIRING and DROPPING keep
 * all other changes away meanwhile.  Order in lock_get(): a thread that is not granted the
 * lock becomes its seeker, one at a time, and negotiates with other hosts (want.c).
 */
#include <errno.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define HELD_MAX	32768		/* cached locks, before the oldest are dropped, many at a
					 * time: well below the client's cache, which would wait */
#define WAIT_NS		(5 * NSEC_PER_SEC)	/* for a holder that is alive */

/* ---- small questions ---- */

bool lock_mode_suffices(enum lock_mode held, enum lock_mode needed)
{
	return held == needed || held == LOCK_EXCLUSIVE || needed == LOCK_FREE;
}

enum lock_mode lock_needed(const struct lock *lock, enum lock_mode extra)
{
	bool shared = lock->users[LOCK_SHARED] || extra == LOCK_SHARED;
	bool multi = lock->users[LOCK_MULTI] || extra == LOCK_MULTI;

	if (lock->users[LOCK_EXCLUSIVE] || extra == LOCK_EXCLUSIVE || (shared && multi))
		return LOCK_EXCLUSIVE;
	if (multi)
		return LOCK_MULTI;
	return shared ? LOCK_SHARED : LOCK_FREE;
}

bool lock_is_unused(const struct lock *lock)
{
	return lock_needed(lock, LOCK_FREE) == LOCK_FREE;
}

static bool lock_is_open(const struct lock *lock)
{
	return lock->opens[LOCK_SHARED] || lock->opens[LOCK_EXCLUSIVE] || lock->opens[LOCK_MULTI];
}

struct lock *lock_find(const struct lockd *ld, uint64_t addr)
{
	struct table_node *node = table_find(&ld->cache.locks, addr);

	return node ? container_of(node, struct lock, node) : NULL;
}

/* ---- knowing a lock ---- */

void lock_init(struct lock *lock, uint64_t addr, void *owner)
{
	memset(lock, 0, sizeof(*lock));
	lock->addr = addr;
	lock->owner = owner;
	list_init(&lock->lru);
}

void lock_place(struct lockd *ld, struct lock *lock)
{
	struct lock_cache *c = &ld->cache;
	enum lock_mode target;

	list_del(&lock->lru);
	if (!lock->known || lock->state != LOCK_IDLE)
		return;	/* whoever changes it places it afterwards */
	if (lock->unclear) {
		list_add_tail(&c->unclear, &lock->lru);
		env_cond_broadcast(ld->p.env, &c->wake);
	} else if (lock->deny || lock_drop_target(lock, &target)) {
		list_add_tail(&c->drops, &lock->lru);
		env_cond_broadcast(ld->p.env, &c->wake);
	} else if (lock->mode != LOCK_FREE) {
		if (lock_is_unused(lock))
			list_add_tail(&c->lru, &lock->lru);
		if (c->locks.count > c->held_max)
			env_cond_broadcast(ld->p.env, &c->wake);
	} else if (!lock->waiters && lock_is_unused(lock)) {
		table_remove(&c->locks, &lock->node);
		lock->known = false;
	}
}

/* @lock becomes known; waits while another object or a stray of its address is. */
static int lock_enter(struct lockd *ld, struct lock *lock, unsigned int flags)
{
	int err;

	while (!lock->known) {
		if (ld->lost || !ld->cache.running)
			return -ESTALE;
		if (!lock_find(ld, lock->addr)) {
			err = table_insert(&ld->cache.locks, &lock->node, lock->addr);
			if (err)
				return err;
			lock->known = true;
			break;
		}
		if (flags & LOCK_TRY)
			return -EAGAIN;
		env_cond_wait(ld->p.env, &ld->changed, &ld->mutex, ENV_FOREVER);
	}
	lock->waiters++;
	return 0;
}

static void lock_leave(struct lockd *ld, struct lock *lock)
{
	lock->waiters--;
	lock_place(ld, lock);
}

/* ---- granting ---- */

/* Whether one more user of @mode needs no change of the record. */
static bool lock_is_grantable(const struct lock *lock, enum lock_mode mode)
{
	enum lock_mode needed = lock_needed(lock, mode);

	if (lock->unclear || lock->state == LOCK_DROPPING)
		return false;
	if (lock->state == LOCK_ACQUIRING && !lock_mode_suffices(lock->target, needed))
		return false;
	return lock_mode_suffices(lock->mode, needed);
}

/*
 * New users queue behind a wanted lock's drop, or a busy one would never be passed on; but
 * only for a beat: a thread that uses it already may be asking again.  While it is kept anyway
 * they keep nobody waiting.
 */
static bool lock_must_queue(const struct lockd *ld, const struct seek *sk)
{
	uint64_t now = env_now_ns(ld->p.env);

	if (!sk->lock->wanted || sk->acquired || now < sk->lock->keep_until_ns ||
	    now >= sk->start_ns + lockd_beat_ns(ld))
		return false;
	for (enum lock_mode m = LOCK_SHARED; m <= LOCK_MULTI; m++)
		if ((sk->lock->wanted & 1u << m) && lock_modes_exclude(m, sk->mode))
			return true;
	return false;
}

static void lock_grant(struct lockd *ld, struct seek *sk)
{
	struct lock *lock = sk->lock;

	lock->users[sk->mode]++;
	if (sk->flags & LOCK_OPEN) {
		lock->opens[sk->mode]++;
		lock->heir.generation = 0;
	}
	lock->evict = false;
	lock->last_use_ns = env_now_ns(ld->p.env);
}

static void seek_end(struct lockd *ld, struct seek *sk)
{
	if (sk->lock->seeker != sk)
		return;
	want_withdraw(ld, sk);
	sk->lock->seeker = NULL;
	ld->cache.seekers--;
	/* What had to be waited for will be wanted again, from us. */
	ld->cache.often_until_ns = env_now_ns(ld->p.env) + 2 * lockd_beat_ns(ld);
	want_scan_often(ld);
	env_cond_broadcast(ld->p.env, &ld->changed);
}

static void seek_begin(struct lockd *ld, struct seek *sk)
{
	if (sk->lock->seeker == sk)
		return;
	assert(!sk->lock->seeker);
	sk->lock->seeker = sk;
	ld->cache.seekers++;
	ld->lock_waits++;
	want_scan_often(ld);
}

/* ---- being in somebody's way, and others in ours ---- */

/* The holder in our way seems dead, or is being recovered: see to that.  1: look again. */
static int seek_recover(struct lockd *ld, const struct blocker *b)
{
	const struct peer *p = &ld->peers[b->slot];
	bool recovering = p->valid && p->slot.generation == b->generation &&
			  p->slot.state == SLOT_RECOVERING;
	int err;

	if (!recovering && !observe_silent(ld, b->slot, b->generation, NULL, NULL))
		return 0;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	err = recover_slot(ld, b->slot, b->generation);
	env_mutex_lock(ld->p.env, &ld->mutex);
	if (err == -EAGAIN)
		return 0;
	return err ? err : 1;
}

/* Adds up the time for which a living holder kept us waiting. */
static void seek_count(struct lockd *ld, struct seek *sk, const struct blocker *b)
{
	uint64_t now = env_now_ns(ld->p.env), past = now - sk->blocked_ns;

	if (!sk->blocked_ns)
		past = 0;
	sk->blocked_ns = now;
	if (b->slot == SLOT_NONE)
		sk->idle_ns += past;
	else if (sk->want >= 0 && sk->holder.silent_ms <= 2 * ld->p.timing.beat_ms)
		sk->alive_ns += past;
}

static bool seek_waited_enough(const struct lockd *ld, const struct seek *sk)
{
	const struct lockd_timing *t = &ld->p.timing;
	uint64_t beats = 5 * lockd_beat_ns(ld);
	/* A stopped process may sit in a compare-and-write until it is found dead and killed. */
	uint64_t dead = (t->lease_ms + t->margin_ms) * NSEC_PER_MSEC + 2 * beats;

	return sk->alive_ns >= (beats > WAIT_NS ? beats : WAIT_NS) || sk->idle_ns >= dead;
}

/* Denied, and the denier still holds it; if it passed it on meanwhile, others are asked anew. */
static bool seek_is_refused(struct lockd *ld, struct seek *sk, const struct lockrec *r)
{
	uint32_t denier, generation;

	sk->final = false;
	if (!want_is_denied(ld, sk, &denier))
		return false;
	generation = record_generation(r, denier);
	if (generation)
		record_holder(ld, r, denier, generation, &sk->holder);
	else
		want_withdraw(ld, sk);
	return generation != 0;
}

/* An attempt met @b.  0: try again at sk->poll_ns. */
static int seek_blocked(struct lockd *ld, struct seek *sk, enum lock_mode needed,
			const struct blocker *b)
{
	uint64_t now = env_now_ns(ld->p.env);
	int err;

	record_holder(ld, &b->found.rec, b->slot, b->generation, &sk->holder);
	if (sk->flags & LOCK_TRY)
		return -EAGAIN;
	/* Left to another host: ours is the only one that does not wait for it. */
	if (b->slot == ld->cache.slot)
		return -EBUSY;
	if (sk->final && seek_is_refused(ld, sk, &b->found.rec))
		return -EBUSY;
	seek_begin(ld, sk);
	if (b->slot != SLOT_NONE) {
		err = seek_recover(ld, b);
		if (err)
			return err > 0 ? 0 : err;
	}
	seek_count(ld, sk, b);
	if (seek_waited_enough(ld, sk))
		return -EBUSY;
	want_publish(ld, sk, needed);
	sk->poll_ns = now + lockd_beat_ns(ld) / 8;
	return 0;
}

/*
 * Every change of what was just read missed.  Hosts that compete for a lock let each other have it: where
 * that goes on, the device compares with something else than it reads.  0: try again at sk->poll_ns.
 */
static int seek_raced(struct lockd *ld, struct seek *sk, const struct blocker *nobody)
{
	seek_count(ld, sk, nobody);
	if (seek_waited_enough(ld, sk)) {
		log_error(ld->p.env, ld->datastore, "lock record at 0x%llx: can be read, and no"
			  " compare-and-write of what was read succeeds; \"lunfs selftest\" shows if the"
			  " device can do that", (unsigned long long)sk->lock->addr);
		return -EIO;
	}
	sk->poll_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld) / 8;
	return 0;
}

/* ---- attempts ---- */

static void lock_stranger(struct lock *lock)
{
	lock->unchanged = false;
	lock->strangers++;
}

static void seek_took(struct lockd *ld, struct seek *sk, enum lock_mode mode,
		      const struct lock_user *user, const struct record *r,
		      const struct lock_claim *found)
{
	struct lock *lock = sk->lock;

	if (lock->mode == LOCK_FREE) {
		if (lock->unclear || found->sequence != lock->forgotten_sequence)
			lock_stranger(lock);
		lock->found = *found;
		lock->wanted = 0;
	}
	lock->mode = mode;
	lock_note_record(lock, r);
	lock->recorded = *user;
	lock->unclear = false;
	sk->acquired = true;
	ld->lock_acquires++;
}

/* One look at the record, and its change if that is possible. */
static int seek_once(struct lockd *ld, struct seek *sk)
{
	struct lock *lock = sk->lock;
	enum lock_mode needed = lock_needed(lock, sk->mode);
	bool opens = needed == LOCK_EXCLUSIVE && sk->flags & LOCK_OPEN;
	struct lock_user user = { 0 };
	struct blocker b = { .slot = SLOT_NONE };
	bool unclear = false;
	struct lock_claim found = { 0 };
	struct record r;
	int err;

	lock->state = LOCK_ACQUIRING;
	lock->target = needed;
	lock->evict = false;
	list_del(&lock->lru);
	if ((sk->flags & LOCK_OPEN) || lock_is_open(lock))
		user = lock->user;
	record_recall(ld, lock, true, &r);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	err = record_take(ld, lock->addr, needed, opens, &user, &r, &found, &b, &unclear);
	env_mutex_lock(ld->p.env, &ld->mutex);
	lock->state = LOCK_IDLE;
	if (!err) {
		seek_took(ld, sk, needed, &user, &r, &found);
	} else if (unclear && lock->mode == LOCK_FREE) {
		lock->unclear = true;
		lock->sequence = r.rec.sequence;
		lock->retry_ns = env_now_ns(ld->p.env) + lockd_beat_ns(ld) / 4;
	} else if (unclear) {
		lock->sequence = 0;	/* at least the old mode is ours in either image */
	}
	lock_place(ld, lock);
	if (lock->waiters > 1)	/* others than us */
		env_cond_broadcast(ld->p.env, &ld->changed);
	if (err == -EBUSY)
		return seek_blocked(ld, sk, needed, &b);
	if (err != -EAGAIN || (sk->flags & LOCK_TRY))
		return err;
	return seek_raced(ld, sk, &b);
}

/* A shared or multi-writer lock only changes into the other by way of free. */
static bool seek_must_free(const struct seek *sk)
{
	const struct lock *lock = sk->lock;
	enum lock_mode needed = lock_needed(lock, sk->mode);

	return lock->mode != LOCK_FREE && needed != LOCK_EXCLUSIVE &&
	       !(lock->unclear && lock->mode == needed);
}

/* Lets a host that has waited longer go first, for a while.  true: not our turn. */
static bool seek_yields(struct lockd *ld, struct seek *sk, uint64_t now)
{
	uint64_t step = lockd_beat_ns(ld) / 8;

	if ((sk->flags & LOCK_TRY) || sk->lock->mode != LOCK_FREE || sk->yielded_ns >= 16 * step ||
	    !want_older(ld, sk->lock->addr, sk->mode, sk->start_ns))
		return false;
	seek_begin(ld, sk);
	want_publish(ld, sk, sk->mode);
	sk->yielded_ns += step;
	sk->poll_ns = now + step;
	return true;
}

/* Until when this thread has to wait for an event; 0: it may make an attempt now. */
static uint64_t seek_wait_until(struct lockd *ld, struct seek *sk, uint64_t now)
{
	struct lock *lock = sk->lock;
	uint32_t denier;

	if (lock_must_queue(ld, sk))
		return sk->start_ns + lockd_beat_ns(ld);
	if (lock->state != LOCK_IDLE || (lock->seeker && lock->seeker != sk))
		return ENV_FOREVER;
	if (now < lock->yield_until_ns)
		return lock->yield_until_ns;
	if (now < sk->poll_ns) {
		sk->final = want_is_denied(ld, sk, &denier);
		if (!sk->final)
			return sk->poll_ns;
	}
	if (!seek_must_free(sk))
		return 0;
	if (!lock->evict) {
		lock->evict = true;
		lock_place(ld, lock);
	}
	return now + lockd_beat_ns(ld);
}

/* Whether waiting would be for another host, or for a thread that waits for one. */
static bool seek_may_not_wait(const struct lockd *ld, const struct seek *sk, uint64_t now)
{
	const struct lock *lock = sk->lock;

	return (sk->flags & LOCK_TRY) && (lock_must_queue(ld, sk) || lock->seeker ||
					  lock->state == LOCK_DROPPING ||
					  now < lock->yield_until_ns);
}

/*
 * The lock cannot be granted as it is: waits for the next event, or makes an attempt.
 * 0: look again.
 */
static int seek_step(struct lockd *ld, struct seek *sk)
{
	uint64_t now = env_now_ns(ld->p.env), until;

	if (seek_may_not_wait(ld, sk, now))
		return -EAGAIN;
	until = seek_wait_until(ld, sk, now);
	if (until) {
		env_cond_wait(ld->p.env, &ld->changed, &ld->mutex, until);
		return 0;
	}
	return seek_yields(ld, sk, now) ? 0 : seek_once(ld, sk);
}

/* ---- the interface ---- */

void lock_set_user(struct lockd *ld, struct lock *lock, uint32_t pid, const char *comm)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	lock->user.pid = pid;
	memset(lock->user.comm, 0, sizeof(lock->user.comm));
	/* A record has room for 24 bytes: what is kept is what will be read back. */
	memcpy(lock->user.comm, comm, strnlen(comm, sizeof(lock->user.comm) - 1));
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

int lock_get(struct lockd *ld, struct lock *lock, enum lock_mode mode, unsigned int flags,
	     struct lock_holder *holder)
{
	struct seek sk = { .lock = lock, .mode = mode, .flags = flags, .want = -1 };
	int err;

	assert(mode == LOCK_SHARED || mode == LOCK_EXCLUSIVE || mode == LOCK_MULTI);
	env_mutex_lock(ld->p.env, &ld->mutex);
	sk.start_ns = env_now_ns(ld->p.env);
	err = lock_enter(ld, lock, flags);
	if (err)
		goto unlock;
	for (;;) {
		if (ld->lost || !ld->cache.running)
			err = -ESTALE;
		else if (lock_is_grantable(lock, mode) && !lock_must_queue(ld, &sk))
			break;
		else
			err = seek_step(ld, &sk);
		if (err)
			break;
	}
	if (!err)
		lock_grant(ld, &sk);
	seek_end(ld, &sk);
	lock_leave(ld, lock);
	if (holder && (err == -EBUSY || err == -EAGAIN))
		*holder = sk.holder;
unlock:
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}

void lock_put(struct lockd *ld, struct lock *lock, enum lock_mode mode, unsigned int flags)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	assert(lock->users[mode] > 0);
	lock->users[mode]--;
	if (flags & LOCK_OPEN) {
		assert(lock->opens[mode] > 0);
		lock->opens[mode]--;
	}
	lock->last_use_ns = env_now_ns(ld->p.env);
	lock_place(ld, lock);
	if (lock->waiters)
		env_cond_broadcast(ld->p.env, &ld->changed);
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

enum lock_mode lock_held(struct lockd *ld, struct lock *lock)
{
	enum lock_mode mode;

	env_mutex_lock(ld->p.env, &ld->mutex);
	mode = lock->unclear ? LOCK_FREE : lock->mode;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return mode;
}

bool lock_unchanged(struct lockd *ld, struct lock *lock)
{
	bool unchanged;

	env_mutex_lock(ld->p.env, &ld->mutex);
	/* Several writers are at it: whatever this host has seen may be old. */
	unchanged = lock->unchanged && lock->mode != LOCK_MULTI;
	lock->unchanged = lock->mode != LOCK_MULTI;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return unchanged;
}

bool lock_keep(struct lockd *ld, struct lock *lock, uint64_t until_ns)
{
	bool kept;

	env_mutex_lock(ld->p.env, &ld->mutex);
	kept = !(lock->wanted & ~(1u << LOCK_SHARED));
	if (kept && until_ns > lock->keep_until_ns && !MUTANT("names-not-kept"))
		lock->keep_until_ns = until_ns;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return kept;
}

uint64_t lock_strangers(struct lockd *ld, struct lock *lock)
{
	uint64_t n;

	env_mutex_lock(ld->p.env, &ld->mutex);
	n = lock->strangers;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return n;
}

void lock_claims(struct lockd *ld, struct lock *lock, struct lock_claim *now,
		 struct lock_claim *found)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	*now = (struct lock_claim){ .mode = lock->mode, .owner = lockd_slot(ld),
				    .generation = lockd_generation(ld),
				    .sequence = lock->sequence };
	*found = lock->found;
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

bool lock_left(struct lockd *ld, struct lock *lock, struct lock_claim *claim)
{
	bool known;

	env_mutex_lock(ld->p.env, &ld->mutex);
	*claim = (struct lock_claim){
		.mode = lock->mode, .owner = lockd_slot(ld), .generation = lockd_generation(ld),
		.sequence = lock->mode == LOCK_FREE ? lock->forgotten_sequence : lock->sequence,
	};
	known = lock->state == LOCK_IDLE && !lock->unclear && lock->mode != LOCK_MULTI &&
		claim->sequence;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return known;
}

bool lock_expect(struct lockd *ld, struct lock *lock, uint64_t sequence)
{
	bool fresh;

	env_mutex_lock(ld->p.env, &ld->mutex);
	fresh = lock->mode == LOCK_FREE && lock->state == LOCK_IDLE && !lock->unclear &&
		!lock->strangers && !lock->forgotten_sequence;
	if (fresh)
		lock->forgotten_sequence = sequence;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return fresh;
}

void lock_set_heir(struct lockd *ld, struct lock *lock, const struct lock_heir *heir)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	lock->heir = *heir;
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

/* Nothing is released by a host whose slot is lost; what it had cached is worthless. */
static void evict_lost(struct lockd *ld, struct lock *lock)
{
	lock->state = LOCK_DROPPING;
	list_del(&lock->lru);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	ld->p.client->forget(ld->p.client_arg, lock);
	env_mutex_lock(ld->p.env, &ld->mutex);
	lock->state = LOCK_IDLE;
	lock->mode = LOCK_FREE;
	lock->unclear = false;
	env_cond_broadcast(ld->p.env, &ld->changed);
}

int lock_evict(struct lockd *ld, struct lock *lock)
{
	int err = 0;

	env_mutex_lock(ld->p.env, &ld->mutex);
	if (!lock->known)
		goto unlock;
	lock->waiters++;
	lock->drop_err = 0;
	while (!err && (lock->mode != LOCK_FREE || lock->unclear || lock->state != LOCK_IDLE)) {
		if (!lock_is_unused(lock) || lock->seeker) {
			err = -EBUSY;
		} else if ((ld->lost || !ld->cache.running) && lock->state == LOCK_IDLE) {
			evict_lost(ld, lock);
		} else {
			lock->evict = true;
			lock->retry_ns = 0;
			lock_place(ld, lock);
			env_cond_wait(ld->p.env, &ld->changed, &ld->mutex, ENV_FOREVER);
			err = lock->drop_err;
		}
	}
	lock->evict = false;
	lock_leave(ld, lock);
	if (!err && lock->known)
		err = -EBUSY;	/* somebody else is inside lock_get() */
unlock:
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}

/* ---- life of the cache ---- */

int cache_start(struct lockd *ld)
{
	struct lock_cache *c = &ld->cache;
	int err;

	memset(c, 0, sizeof(*c));
	c->slot = ld->self.index;
	c->generation = ld->self.generation;
	c->held_max = HELD_MAX;
	table_init(&c->locks);
	list_init(&c->lru);
	list_init(&c->drops);
	list_init(&c->unclear);
	lock_init(&c->stray, 0, NULL);
	env_cond_init(ld->p.env, &c->wake);
	err = env_thread_start(ld->p.env, "lunfs-drop", drop_thread_main, ld, &c->drop_thread);
	if (err) {
		env_cond_fini(ld->p.env, &c->wake);
		return err;
	}
	env_mutex_lock(ld->p.env, &ld->mutex);
	/* A denial meant for an earlier owner of our slot must not match a want of ours. */
	env_random(ld->p.env, &ld->self.want_stamp, sizeof(ld->self.want_stamp));
	c->running = true;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return 0;
}

static void lock_abandon(struct table_node *node, void *arg)
{
	struct lock *lock = container_of(node, struct lock, node);
	struct lockd *ld = arg;

	assert(lock_is_unused(lock) && !lock->waiters);
	assert(lock->state == LOCK_IDLE || lock == &ld->cache.stray);
	list_del(&lock->lru);
	table_remove(&ld->cache.locks, node);
	lock->known = false;
	lock->unclear = false;
	lock->mode = LOCK_FREE;
}

void cache_stop(struct lockd *ld)
{
	struct lock_cache *c = &ld->cache;

	if (!c->running)
		return;
	env_mutex_lock(ld->p.env, &ld->mutex);
	c->stopping = true;
	env_cond_broadcast(ld->p.env, &c->wake);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	env_thread_join(ld->p.env, c->drop_thread);
	env_mutex_lock(ld->p.env, &ld->mutex);
	c->running = false;
	table_each(&c->locks, lock_abandon, ld);
	env_cond_broadcast(ld->p.env, &ld->changed);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	table_fini(&c->locks);
	env_cond_fini(ld->p.env, &c->wake);
}
