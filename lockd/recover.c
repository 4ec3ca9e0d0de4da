/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery of dead hosts, one at a time, in a thread of its own: observation goes on beside
 * it, and whoever waits for a dead host's lock only waits (recover_slot()).
 * LOCKING.md, "Recovery", numbers the steps.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define RECOVER_CAW_TRIES	16u	/* images that one step sends while results are unclear */
#define RECOVER_BACKOFF_BEATS	60u

/* A slot that we are recovering: as it stands on disk. */
struct victim {
	struct slot slot;
	uint8_t	image[META_SECTOR_SIZE];
};

/* ---- which slots ---- */

/* mutex held.  Whether nobody looks after slot @index and we may. */
static bool recover_is_wanted(struct lockd *ld, uint32_t index, unsigned int depth)
{
	const struct peer *p = &ld->peers[index], *q;
	const struct slot *s = &p->slot;

	if (index == ld->self.index || !p->valid || s->state == SLOT_FREE)
		return false;
	if (s->state != SLOT_RECOVERING || s->recoverer == index)
		return p->observed_ns > suspicion_ns(ld);
	if (s->recoverer == ld->self.index)
		/* Ours to finish, or that of an incarnation of this slot before us. */
		return s->recoverer_generation <= ld->self.generation;
	if (s->recoverer >= ld->p.slot_count)
		return false;
	q = &ld->peers[s->recoverer];
	if (!q->valid)
		return false;
	if (slot_is_retired(&q->slot, s->recoverer_generation))
		return true;
	if (q->slot.generation != s->recoverer_generation)
		return false;
	/* A ring of hosts that claimed each other: none of them beats. */
	if (depth >= ld->p.slot_count)
		return p->observed_ns > suspicion_ns(ld);
	return recover_is_wanted(ld, s->recoverer, depth + 1);
}

/* mutex held.  A slot whose time has come, or SLOT_NONE and when to look again. */
static uint32_t recover_pick(struct lockd *ld, uint64_t *wake_ns)
{
	uint64_t now = env_now_ns(ld->p.env), at;

	*wake_ns = ENV_FOREVER;
	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		struct recovery *r = &ld->recovery[i];

		if (!recover_is_wanted(ld, i, 0)) {
			memset(r, 0, sizeof(*r));
			continue;
		}
		if (!r->due_ns)
			r->due_ns = now + env_random_below(ld->p.env, beat_ns(ld) / 2 + 1);
		at = r->urgent ? r->retry_ns : r->due_ns > r->retry_ns ? r->due_ns : r->retry_ns;
		if (at <= now)
			return i;
		if (at < *wake_ns)
			*wake_ns = at;
	}
	return SLOT_NONE;
}

/* ---- the steps ---- */

/* Whether @s is claimed by this incarnation of us. */
static bool recover_is_ours(const struct lockd *ld, const struct slot *s)
{
	return s->state == SLOT_RECOVERING && s->recoverer == ld->self.index &&
	       s->recoverer_generation == ld->self.generation;
}

/*
 * Writes @next over the slot as it is in @v.  Step 2 and step 6 are one image apart from any
 * other host's, so an image of ours found after a lost race is a late success.
 * Return: 0, @v is @next now; -EAGAIN somebody else changed the slot; -EBUSY cannot be tried;
 * others.
 */
static int recover_write(struct lockd *ld, struct victim *v, struct slot *next)
{
	uint8_t desired[META_SECTOR_SIZE];
	uint64_t addr = slot_addr(ld, v->slot.index);
	int err = -EAGAIN;

	next->sequence = v->slot.sequence;
	for (unsigned int i = 0; err == -EAGAIN && i < RECOVER_CAW_TRIES; i++) {
		next->sequence++;
		slot_encode(next, ld->p.volume, addr, desired, sizeof(desired));
		err = caw_sector(ld, gate_blkdev(ld->gate), addr, v->image, desired);
	}
	if (err == -EILSEQ) {
		err = slot_read_image(ld, gate_blkdev(ld->gate), v->slot.index, &v->slot, v->image);
		if (!err && (v->slot.generation != next->generation ||
			     v->slot.state != next->state ||
			     v->slot.recoverer != next->recoverer ||
			     v->slot.recoverer_generation != next->recoverer_generation))
			err = -EAGAIN;
		return err;
	}
	if (err)
		return err;
	v->slot = *next;
	memcpy(v->image, desired, sizeof(desired));
	return 0;
}

/* The slot as we claim it: whom to fence stays in it, for whoever has to take over from us. */
static struct slot recover_claimed(const struct lockd *ld, const struct slot *s)
{
	struct slot next = *s;

	next.state = SLOT_RECOVERING;
	next.recoverer = ld->self.index;
	next.recoverer_generation = ld->self.generation;
	memset(next.wants, 0, sizeof(next.wants));
	memset(next.denials, 0, sizeof(next.denials));
	return next;
}

/* Step 2.  Return: as recover_write(). */
static int recover_claim(struct lockd *ld, struct victim *v)
{
	struct slot next = recover_claimed(ld, &v->slot);
	uint64_t deadline_ns = env_now_ns(ld->p.env) + beat_ns(ld);
	bool killed = false;
	int err;

	for (;;) {
		err = recover_write(ld, v, &next);
		if (err != -EBUSY)
			return err;
		if (env_now_ns(ld->p.env) < deadline_ns) {
			env_sleep_until(ld->p.env, env_now_ns(ld->p.env) + beat_ns(ld) / 8);
			continue;
		}
		/* One machine: stopped inside its own compare-and-write it holds the sector. */
		if (killed || ld->rung != FENCE_KILL)
			return err;
		err = fence_slot(ld, &v->slot);
		if (err)
			return err;
		killed = true;
		deadline_ns = env_now_ns(ld->p.env) + beat_ns(ld);
	}
}

/*
 * Before each step: the slot is still ours to recover, and our lease is valid, for the gate
 * stalls the read until it is.  Return: 0; -EAGAIN somebody took over from us; others.
 */
static int recover_check(struct lockd *ld, struct victim *v)
{
	uint64_t sequence = v->slot.sequence;
	bool stopping;
	int err;

	env_mutex_lock(ld->p.env, &ld->mutex);
	stopping = ld->stopping;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	if (stopping)
		return -ESTALE;
	err = slot_read_image(ld, gate_blkdev(ld->gate), v->slot.index, &v->slot, v->image);
	if (err)
		return err;
	return recover_is_ours(ld, &v->slot) && v->slot.sequence == sequence ? 0 : -EAGAIN;
}

/* Before a recoverer is retired, what it was recovering becomes ours. */
static int recover_inherit(struct lockd *ld, const struct slot *dead)
{
	uint64_t len = (uint64_t)ld->p.slot_count * META_BLOCK_SIZE;
	uint8_t *region = blkdev_alloc(len);
	struct victim v;
	struct slot next;
	int err;

	if (!region)
		return -ENOMEM;
	err = blkdev_read(gate_blkdev(ld->gate), ld->p.slots_addr, region, len);
	for (uint32_t i = 0; !err && i < ld->p.slot_count; i++) {
		memcpy(v.image, region + (size_t)i * META_BLOCK_SIZE, META_SECTOR_SIZE);
		if (slot_decode(v.image, ld->p.volume, slot_addr(ld, i), i, &v.slot, NULL,
				0) != 0 ||
		    v.slot.state != SLOT_RECOVERING || v.slot.recoverer != dead->index ||
		    v.slot.recoverer_generation != dead->generation || i == dead->index)
			continue;
		next = recover_claimed(ld, &v.slot);
		err = recover_write(ld, &v, &next);
		if (err == -EAGAIN)
			err = 0;	/* somebody else was faster: theirs */
	}
	free(region);
	return err;
}

/* Step 6. */
static int recover_retire(struct lockd *ld, struct victim *v)
{
	struct slot next = v->slot;
	int err;

	next.state = SLOT_FREE;
	next.recoverer = SLOT_NONE;
	next.recoverer_generation = 0;
	next.key = 0;
	next.pid = 0;
	next.pid_start = 0;
	next.flags = 0;
	err = recover_write(ld, v, &next);
	if (err)
		return err;
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->takeovers++;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return 0;
}

/* Steps 3 to 6.  @by: whoever claimed it before us and may still be writing, or NULL. */
static int recover_claimed_slot(struct lockd *ld, struct victim *v, const struct slot *by)
{
	struct blkdev *dev = gate_blkdev(ld->gate);
	struct slot dead = v->slot;
	int err;

	err = recover_check(ld, v);
	if (!err)
		err = fence_slot(ld, &dead);
	if (!err && by)
		err = fence_slot(ld, by);
	if (!err)
		err = recover_check(ld, v);
	if (!err && MUTANT("retire-before-replay"))
		err = recover_retire(ld, v);
	if (!err && !MUTANT("no-replay"))
		err = ld->p.client->replay(ld->p.client_arg, dev, dead.index);
	if (MUTANT("retire-before-replay"))
		return err;
	if (!err)
		err = recover_check(ld, v);
	if (!err && ld->p.client->adopt)
		err = ld->p.client->adopt(ld->p.client_arg, dead.index);
	if (!err)
		err = recover_inherit(ld, &dead);
	if (!err)
		err = recover_check(ld, v);
	if (!err)
		err = fence_check(ld, &dead);
	if (!err && by)
		err = fence_check(ld, by);
	return err ? err : recover_retire(ld, v);
}

/*
 * Finds the slot to begin with: a claimer that died before it was done is recovered before
 * what it had claimed, so that it is fenced by then.  In a ring of claims there is no first
 * one: @by is the claimer that must be fenced beside the slot.
 * Return: 0; 1 @by is filled in; others.  @v: the slot.
 */
static int recover_first(struct lockd *ld, uint32_t index, struct victim *v, struct slot *by)
{
	bool visited[SLOT_COUNT_MAX] = { false };
	const struct slot *s = &v->slot;
	int err;

	for (;;) {
		err = slot_read_image(ld, gate_blkdev(ld->gate), index, &v->slot, v->image);
		if (err)
			return err;
		visited[index] = true;
		if (s->state != SLOT_RECOVERING || s->recoverer == index ||
		    MUTANT("claimer-last") || s->recoverer == ld->self.index || s->recoverer >= ld->p.slot_count)
			return 0;
		err = slot_read(ld, gate_blkdev(ld->gate), s->recoverer, by);
		if (err)
			return err;
		if (slot_is_retired(by, s->recoverer_generation))
			return 0;
		if (visited[s->recoverer])
			return 1;
		index = s->recoverer;
	}
}

/* What was read just now is judged by what was observed: it must still be the same. */
static bool recover_is_due(struct lockd *ld, const struct slot *s, const struct slot *by)
{
	const struct peer *p = &ld->peers[s->index], *q = by ? &ld->peers[by->index] : NULL;
	bool due;

	env_mutex_lock(ld->p.env, &ld->mutex);
	due = recover_is_wanted(ld, s->index, 0) && p->slot.sequence == s->sequence;
	if (due && q)
		due = q->valid && q->slot.sequence == by->sequence &&
		      p->observed_ns > suspicion_ns(ld) && q->observed_ns > suspicion_ns(ld);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return due;
}

static int recover_one(struct lockd *ld, uint32_t index)
{
	struct slot former, *by;
	char name[160];
	struct victim v;
	int err;

	err = recover_first(ld, index, &v, &former);
	if (err < 0)
		return err;
	by = err ? &former : NULL;
	if (!recover_is_due(ld, &v.slot, by))
		return -EAGAIN;
	slot_name(ld, &v.slot, name);
	if (!recover_is_ours(ld, &v.slot)) {
		log_warning(ld->p.env, name, "has been silent for more than %u ms: recovering it",
			    ld->p.timing.lease_ms + ld->p.timing.margin_ms);
		err = recover_claim(ld, &v);
		if (err)
			return err;
	}
	err = recover_claimed_slot(ld, &v, by);
	if (!err)
		log_info(ld->p.env, name, "is recovered; generation %u is retired",
			 v.slot.generation);
	return err;
}

/* ---- the thread ---- */

/* mutex held. */
static void recover_note(struct lockd *ld, uint32_t index, int err)
{
	struct recovery *r = &ld->recovery[index];
	uint64_t max = RECOVER_BACKOFF_BEATS * beat_ns(ld);

	r->due_ns = 0;
	r->err = err;
	/* A lost race is no failure: the next scan shows who won. */
	if (!err || err == -EAGAIN) {
		r->retry_ns = env_now_ns(ld->p.env) + beat_ns(ld) / 4;
		return;
	}
	r->backoff_ns = r->backoff_ns ? 2 * r->backoff_ns : beat_ns(ld);
	if (r->backoff_ns > max)
		r->backoff_ns = max;
	r->retry_ns = env_now_ns(ld->p.env) + r->backoff_ns;
}

static void recover_thread(void *arg)
{
	struct lockd *ld = arg;
	struct env *env = ld->p.env;
	uint64_t wake_ns;
	uint32_t index;
	int err;

	env_mutex_lock(env, &ld->mutex);
	while (!ld->stopping && !ld->lost) {
		index = recover_pick(ld, &wake_ns);
		if (index == SLOT_NONE) {
			env_cond_wait(env, &ld->changed, &ld->mutex, wake_ns);
			continue;
		}
		ld->recovering = true;
		env_mutex_unlock(env, &ld->mutex);
		err = recover_one(ld, index);
		if (err && err != -EAGAIN && err != -ESTALE && err != -EHOSTDOWN)
			log_error(env, ld->datastore, "recovery of host slot %u failed: %s; trying "
				  "again later", index, strerror(-err));
		env_mutex_lock(env, &ld->mutex);
		ld->recovering = false;
		recover_note(ld, index, err);
		env_cond_broadcast(env, &ld->changed);
	}
	env_mutex_unlock(env, &ld->mutex);
}

int recover_start(struct lockd *ld)
{
	int err;

	err = env_thread_start(ld->p.env, "lunfs-recover", recover_thread, ld,
			       &ld->recover_thread);
	if (err)
		ld->recover_thread = NULL;
	return err;
}

/* mutex held.  Return: 1 wait on; else as recover_slot(). */
static int recover_progress(struct lockd *ld, uint32_t index, uint32_t generation)
{
	struct recovery *r = &ld->recovery[index];
	const struct peer *p = &ld->peers[index];

	if (ld->lost || ld->stopping)
		return -ESTALE;
	if (!p->valid)
		return -EUCLEAN;
	if (slot_is_retired(&p->slot, generation))
		return 0;
	if (index == ld->self.index || !observe_silent(ld, index, generation, NULL, NULL))
		return -EAGAIN;
	if (r->err && r->err != -EAGAIN && r->retry_ns > env_now_ns(ld->p.env))
		return r->err;
	return 1;
}

int recover_slot(struct lockd *ld, uint32_t slot, uint32_t generation)
{
	uint64_t deadline_ns = env_now_ns(ld->p.env) + 2 * suspicion_ns(ld);
	int err;

	if (slot >= ld->p.slot_count)
		return -EUCLEAN;
	env_mutex_lock(ld->p.env, &ld->mutex);
	while ((err = recover_progress(ld, slot, generation)) == 1) {
		if (!ld->recovery[slot].urgent) {
			ld->recovery[slot].urgent = true;
			env_cond_broadcast(ld->p.env, &ld->changed);
		}
		/* Another host recovers it, and does not get on. */
		if (env_now_ns(ld->p.env) >= deadline_ns && !ld->recovering) {
			err = -EHOSTDOWN;
			break;
		}
		env_cond_wait(ld->p.env, &ld->changed, &ld->mutex,
			      env_now_ns(ld->p.env) + beat_ns(ld));
	}
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}
