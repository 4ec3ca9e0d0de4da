/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hosts ask of each other through their slots: wants and denials.  LOCKING.md, "Passing
 * on".  All under ld->mutex, without I/O: heartbeats carry it out, scans bring it in.
 */
#include "lockd/internal.h"

#define OFTEN_BEATS	5	/* after a want for a lock of ours, more are expected */
#define STRAY_BEATS	2	/* a want that old may be for a lock that we forgot we hold */
#define WANT_BEATS_MAX	8	/* whoever published it should have given up since */

void want_scan_often(struct lockd *ld)
{
	bool often = ld->cache.seekers || env_now_ns(ld->p.env) < ld->cache.often_until_ns;

	if (often && !ld->scan_often)
		env_cond_broadcast(ld->p.env, &ld->changed);
	ld->scan_often = often;
}

/* ---- ours ---- */

void want_publish(struct lockd *ld, struct seek *sk, enum lock_mode mode)
{
	struct want *w = sk->want >= 0 ? &ld->cache.wants[sk->want] : NULL;

	if (w && w->w.mode == mode)
		return;
	for (int i = 0; i < SLOT_WANTS && !w; i++) {
		if (ld->cache.wants[i].w.addr)
			continue;
		w = &ld->cache.wants[i];
		sk->want = i;
	}
	if (!w)
		return;	/* all are in use; the next attempt finds one free, or the lock */
	*w = (struct want){ .w = { .addr = sk->lock->addr, .mode = mode,
				   .stamp = ++ld->self.want_stamp },
			    .since_ns = env_now_ns(ld->p.env) };
	ld->self.wants[sk->want] = w->w;
	heartbeat_publish(ld);
}

void want_withdraw(struct lockd *ld, struct seek *sk)
{
	if (sk->want < 0)
		return;
	memset(&ld->cache.wants[sk->want], 0, sizeof(struct want));
	memset(&ld->self.wants[sk->want], 0, sizeof(struct slot_want));
	sk->want = -1;
	/* At once: the next holder would give the lock up for nobody. */
	heartbeat_publish(ld);
}

bool want_is_denied(const struct lockd *ld, const struct seek *sk, uint32_t *denier)
{
	if (sk->want < 0 || !ld->cache.wants[sk->want].denied)
		return false;
	*denier = ld->cache.wants[sk->want].denier;
	return true;
}

static void note_denials(struct lockd *ld, const struct slot *s)
{
	for (unsigned int d = 0; d < SLOT_DENIALS; d++) {
		const struct slot_denial *denial = &s->denials[d];

		if (!denial->addr || denial->slot != ld->cache.slot)
			continue;
		for (unsigned int i = 0; i < SLOT_WANTS; i++) {
			struct want *w = &ld->cache.wants[i];

			if (w->denied || w->w.addr != denial->addr || w->w.stamp != denial->stamp)
				continue;
			w->denied = true;
			w->denier = s->index;
			env_cond_broadcast(ld->p.env, &ld->changed);
		}
	}
}

/* ---- theirs ---- */

bool want_older(const struct lockd *ld, uint64_t addr, enum lock_mode mode, uint64_t since_ns)
{
	uint64_t limit = WANT_BEATS_MAX * lockd_beat_ns(ld), now = env_now_ns(ld->p.env);

	for (uint32_t s = 0; s < ld->p.slot_count; s++) {
		/* A dead host would never take its turn. */
		if (now - ld->peers[s].seen_ns > 2 * lockd_beat_ns(ld))
			continue;
		for (unsigned int i = 0; i < SLOT_WANTS; i++) {
			const struct want *w = &ld->cache.peer_wants[s][i];

			if (w->w.addr == addr && w->since_ns < since_ns &&
			    now - w->since_ns < limit && lock_modes_exclude(w->w.mode, mode))
				return true;
		}
	}
	return false;
}

/* An open here excludes @mode elsewhere. */
static bool open_excludes(const struct lock *lock, enum lock_mode mode)
{
	for (enum lock_mode m = LOCK_SHARED; m <= LOCK_MULTI; m++)
		if (lock->opens[m] && lock_modes_exclude(m, mode))
			return true;
	return false;
}

static void deny(struct lockd *ld, uint32_t slot, const struct slot_want *w)
{
	struct slot_denial *unused = NULL;

	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		struct slot_denial *d = &ld->self.denials[i];

		if (d->addr == w->addr && d->slot == slot && d->stamp == w->stamp)
			return;
		if (!d->addr && !unused)
			unused = d;
	}
	if (!unused)
		return;	/* its want is seen again with the next scan */
	*unused = (struct slot_denial){ .addr = w->addr, .slot = slot, .stamp = w->stamp };
	heartbeat_publish(ld);
}

void want_deny(struct lockd *ld, struct lock *lock)
{
	for (uint32_t s = 0; s < ld->p.slot_count; s++) {
		for (unsigned int i = 0; i < SLOT_WANTS; i++) {
			const struct slot_want *w = &ld->cache.peer_wants[s][i].w;

			if (w->addr == lock->addr && open_excludes(lock, w->mode))
				deny(ld, s, w);
		}
	}
}

/* Denials whose want has been withdrawn make room. */
static void expire_denials(struct lockd *ld, uint32_t slot)
{
	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		struct slot_denial *d = &ld->self.denials[i];
		bool wanted = false;

		if (!d->addr || d->slot != slot)
			continue;
		for (unsigned int j = 0; j < SLOT_WANTS; j++) {
			const struct slot_want *w = &ld->cache.peer_wants[slot][j].w;

			wanted |= w->addr == d->addr && w->stamp == d->stamp;
		}
		if (!wanted)
			memset(d, 0, sizeof(*d));
	}
}

/* Nobody here knows the lock, and yet it is waited for: does the record name us? */
static void suspect_stray(struct lockd *ld, struct want *w)
{
	struct lock *stray = &ld->cache.stray;
	uint64_t age = env_now_ns(ld->p.env) - w->since_ns;

	if (w->examined || stray->known || ld->lost || age < STRAY_BEATS * lockd_beat_ns(ld))
		return;
	lock_init(stray, w->w.addr, NULL);
	if (table_insert(&ld->cache.locks, &stray->node, stray->addr))
		return;
	w->examined = true;
	stray->known = true;
	stray->state = LOCK_DROPPING;
	env_cond_broadcast(ld->p.env, &ld->cache.wake);
}

static void note_want(struct lockd *ld, struct want *w)
{
	struct lock *lock = lock_find(ld, w->w.addr);
	uint64_t now = env_now_ns(ld->p.env);

	if (!lock) {
		suspect_stray(ld, w);
		return;
	}
	if (!lock_modes_exclude(lock->mode, w->w.mode))
		return;
	ld->cache.often_until_ns = now + OFTEN_BEATS * lockd_beat_ns(ld);
	if (open_excludes(lock, w->w.mode)) {
		/* Who is refused reads the record to learn by whom. */
		if (lock->user.pid == lock->recorded.pid &&
		    strcmp(lock->user.comm, lock->recorded.comm) == 0) {
			want_deny(ld, lock);
		} else if (!lock->deny) {
			lock->deny = true;
			lock_place(ld, lock);
		}
		return;
	}
	lock->wanted |= 1u << w->w.mode;
	lock_place(ld, lock);
}

void cache_peer_wants(struct lockd *ld, const struct slot *s)
{
	bool asks = s->state == SLOT_LIVE;

	if (!ld->cache.running || s->index >= ld->p.slot_count || s->index == ld->cache.slot)
		return;
	note_denials(ld, s);
	for (unsigned int i = 0; i < SLOT_WANTS; i++) {
		struct want *w = &ld->cache.peer_wants[s->index][i];
		const struct slot_want *now = &s->wants[i];

		if (!asks || !now->addr || now->mode == LOCK_FREE || now->mode > LOCK_MULTI) {
			memset(w, 0, sizeof(*w));
			continue;
		}
		if (w->w.addr != now->addr || w->w.stamp != now->stamp)
			*w = (struct want){ .w = *now, .since_ns = env_now_ns(ld->p.env) };
		note_want(ld, w);
	}
	expire_denials(ld, s->index);
	want_scan_often(ld);
}
