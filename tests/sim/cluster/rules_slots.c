// SPDX-License-Identifier: Apache-2.0
/* What becomes of slots: generations only grow, claims wait, journals are replayed (R3, R5). */
#include "tests/sim/cluster/rules.h"

/* ---- slots (R5) ---- */

static void slot_claimed(struct world *w, struct life *life, const struct slot *s,
			 uint32_t generation)
{
	struct life *old = life_of_slot(w, s->index, s->generation);

	if (old && old != life && s->generation != generation)
		old->dead = old->dead || s->state == SLOT_FREE;
	life->slot = s->index;
	life->generation = generation;
	/* Fenced while it was about to join, and joining again: what it had under way is over. */
	life->fenced = false;
	life->dead = life->dead && life->attached;
}

/* ---- claims (R3) ---- */

/* Time on @life's clock since slot @index last changed. */
static uint64_t silent_ns(struct world *w, const struct life *life, uint32_t index)
{
	uint64_t passed = sim_now_ns(w->sim) - w->rules->changed_ns[index];

	return passed + (uint64_t)((int64_t)(passed / 1000) * life->host->drift_ppm / 1000);
}

/* The process that a slot shows has ended: nothing of it can be under way for long. */
static bool shown_is_over(struct world *w, const struct slot *s)
{
	const struct life *l = life_of_pid(w, s->pid);

	return !l || l->over || sim_host_crashed(l->env);
}

/* The recoverer that @a names is no more, or fenced and being recovered by @life itself. */
static bool recoverer_is_gone(struct world *w, const struct life *life, const struct slot *a)
{
	const struct life *q = life_of_slot(w, a->recoverer, a->recoverer_generation);

	return is_stale(w, a->recoverer, a->recoverer_generation) ||
	       (acts_for(w, life, a->recoverer, a->recoverer_generation) && (!q || q->fenced));
}

/*
 * Who takes a slot from its owner, or from a recoverer, has waited out lease and margin, unless
 * that one is fenced, or a process of its own host that has ended.
 */
static void check_claim(struct world *w, struct life *life, const struct slot *a,
			const struct slot *b)
{
	const struct lockd_timing *t = &w->super.timing;
	uint64_t silent = silent_ns(w, life, a->index);
	bool by_other = a->state == SLOT_RECOVERING && a->recoverer != a->index;

	if (silent >= (t->lease_ms + t->margin_ms) * MSEC)
		return;
	if (by_other && recoverer_is_gone(w, life, a))
		return;
	if (!by_other && b->recoverer == b->index && a->host_id[0] == life->host->number + 1 &&
	    shown_is_over(w, a))
		return;
	world_violation(w, "R3: life %u claims slot %u/%u, which changed only %llu ms ago", life->pid,
			a->index, a->generation, (unsigned long long)(silent / MSEC));
}

static bool is_claim(const struct slot *a, const struct slot *b)
{
	return b->state == SLOT_RECOVERING &&
	       (a->state != SLOT_RECOVERING || a->recoverer != b->recoverer ||
		a->recoverer_generation != b->recoverer_generation);
}

/* Whether the owner of @s is recovering others itself. */
static bool has_claims(struct world *w, const struct slot *s)
{
	struct slot other;

	for (uint32_t i = 0; i < w->super.slot_count; i++)
		if (i != s->index && slot_at(w, i, &other) && other.state == SLOT_RECOVERING &&
		    other.recoverer == s->index && other.recoverer_generation == s->generation)
			return true;
	return false;
}

static void count_change(struct world *w, const struct slot *a, const struct slot *b)
{
	uint64_t *n = w->counters;
	bool self = b->recoverer == b->index;

	for (unsigned int i = 0; i < SLOT_WANTS; i++) {
		n[COUNT_slot_want] += b->wants[i].addr && b->wants[i].addr != a->wants[i].addr;
		n[COUNT_slot_want_done] += a->wants[i].addr && !b->wants[i].addr;
	}
	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		n[COUNT_slot_denial] += b->denials[i].addr && b->denials[i].stamp != a->denials[i].stamp;
		n[COUNT_slot_denial_done] += a->denials[i].addr && !b->denials[i].addr;
	}
	n[COUNT_slot_beat] += a->state == b->state;
	n[COUNT_slot_claim] += a->state == SLOT_FREE && b->state == SLOT_JOINING;
	n[COUNT_slot_live] += a->state == SLOT_JOINING && b->state == SLOT_LIVE;
	n[COUNT_slot_leave] += a->state == SLOT_LIVE && b->state == SLOT_FREE;
	n[COUNT_slot_join_failed] += a->state == SLOT_JOINING && b->state == SLOT_FREE;
	n[COUNT_slot_retire] += a->state == SLOT_RECOVERING && b->state == SLOT_FREE;
	n[COUNT_slot_self_live] += a->state == SLOT_RECOVERING && b->state == SLOT_LIVE;
	n[COUNT_slot_drained] += !(a->flags & SLOT_DRAINED) && b->flags & SLOT_DRAINED;
	if (b->state != SLOT_RECOVERING)
		return;
	n[COUNT_slot_identity] += self && a->state == SLOT_RECOVERING && a->recoverer == a->index &&
				  a->pid != b->pid;
	n[COUNT_slot_claimer_first] += a->state != SLOT_RECOVERING && has_claims(w, a);
	n[COUNT_slot_recover_self] += a->state != SLOT_RECOVERING && self;
	n[COUNT_slot_recover] += a->state == SLOT_LIVE && !self;
	n[COUNT_slot_recover_joining] += a->state == SLOT_JOINING && !self;
	n[COUNT_slot_reclaim] += a->state == SLOT_RECOVERING &&
				 (a->recoverer != b->recoverer ||
				  a->recoverer_generation != b->recoverer_generation);
}

void slot_changed(struct world *w, struct life *life, const struct blk_io *io)
{
	uint32_t index = (uint32_t)((io->off - w->super.slots_addr) / BLOCK_SIZE);
	struct slot a, b;

	if (slot_decode(io->iov[0].iov_base, w->super.volume, io->off, index, &a, NULL, 0) ||
	    slot_decode(io->iov[1].iov_base, w->super.volume, io->off, index, &b, NULL, 0)) {
		world_violation(w, "slot %u becomes something that is not a slot", index);
		return;
	}
	if (b.generation < a.generation || b.sequence <= a.sequence)
		world_violation(w, "R5: slot %u goes from generation %u/%llu to %u/%llu", index,
				a.generation, (unsigned long long)a.sequence, b.generation,
				(unsigned long long)b.sequence);
	if (a.state == SLOT_FREE && b.generation <= a.generation)
		world_violation(w, "R5: slot %u is claimed at %u, which is retired", index,
				b.generation);
	if (is_claim(&a, &b))
		check_claim(w, life, &a, &b);
	w->rules->changed_ns[index] = sim_now_ns(w->sim);
	if (b.state != SLOT_RECOVERING)
		w->rules->deaths[index] = 0;
	count_change(w, &a, &b);
	if (a.state != b.state || a.generation != b.generation || a.recoverer != b.recoverer ||
	    a.recoverer_generation != b.recoverer_generation)
		world_trace(w, "  slot %u: %s %u -> %s %u (recoverer %d) by life %u", index,
			    slot_state_name(a.state), a.generation, slot_state_name(b.state),
			    b.generation, (int)b.recoverer, life->pid);
	if (a.state == SLOT_FREE && b.state == SLOT_JOINING)
		slot_claimed(w, life, &b, b.generation);
	if (b.state == SLOT_RECOVERING && b.recoverer == index &&
	    (a.recoverer != index || a.recoverer_generation != b.recoverer_generation ||
	     life->slot != index))
		slot_claimed(w, life, &b, b.recoverer_generation);
	if (b.state == SLOT_RECOVERING && b.recoverer == life->slot)
		life->claimed[index] = b.generation;
	if (b.state == SLOT_RECOVERING && b.recoverer != index)
		chaos_saw_recovery(life);
	if (b.state == SLOT_FREE || (a.state == SLOT_RECOVERING && b.state == SLOT_LIVE))
		check_replayed(w, index);
	if (b.state == SLOT_FREE) {
		struct life *l = life_of_slot(w, index, b.generation);

		if (l)
			l->fenced = true;
	}
	if (life->slot == index)
		watch_beat(w, life, &b);
}

void rules_died(struct world *w, struct life *life)
{
	struct slot s;

	if (life->slot == SLOT_NONE)
		return;
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		if (i == life->slot || !life->claimed[i] || !slot_at(w, i, &s) ||
		    s.state != SLOT_RECOVERING || s.recoverer != life->slot ||
		    s.recoverer_generation != life->generation)
			continue;
		w->counters[COUNT_recoverer_died]++;
		w->counters[COUNT_recoverer_died_again] += ++w->rules->deaths[i] == 2;
	}
}
