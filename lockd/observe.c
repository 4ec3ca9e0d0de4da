/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Observation: reads the whole slot region each beat and keeps, for each peer, for how long
 * its sequence has not changed while our own I/O succeeded (R3a).
 */
#include <errno.h>
#include <stdio.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define OBSERVE_FEW	8u	/* live peers up to which a scan four times a beat is cheap */

const char *slot_name(const struct lockd *ld, const struct slot *s, char buf[160])
{
	snprintf(buf, 160, "%s: slot %u (%s)", ld->datastore, s->index,
		 s->host_name[0] ? s->host_name : "no name");
	return buf;
}

int slot_read_image(struct lockd *ld, struct blkdev *dev, uint32_t index, struct slot *s,
		    uint8_t image[META_SECTOR_SIZE])
{
	uint64_t addr = slot_addr(ld, index);
	uint8_t buf[META_BLOCK_SIZE] BLKDEV_ALIGNED;
	char why[200];
	int err;

	err = blkdev_read(dev, addr, buf, dev->info.sector);
	if (err)
		return err;
	err = slot_decode(buf, ld->p.volume, addr, index, s, why, sizeof(why));
	if (err)
		log_error(ld->p.env, ld->datastore, "host slot %u: %s; run fsck.lunfs", index, why);
	else if (image)
		memcpy(image, buf, META_SECTOR_SIZE);
	return err;
}

int slot_read(struct lockd *ld, struct blkdev *dev, uint32_t index, struct slot *s)
{
	return slot_read_image(ld, dev, index, s, NULL);
}

bool slot_is_retired(const struct slot *s, uint32_t generation)
{
	return s->generation > generation ||
	       (s->generation == generation && s->state == SLOT_FREE);
}

int observe_owner_is_stale(struct lockd *ld, uint64_t addr, uint32_t slot, uint32_t generation)
{
	struct slot s;
	int err;

	if (slot >= ld->p.slot_count || generation == 0)
		return -EUCLEAN;
	/* Through the gate: R2 holds for this decision as for any other read. */
	err = slot_read(ld, gate_blkdev(ld->gate), slot, &s);
	if (err == -EUCLEAN || err == -EBADMSG) {
		log_error(ld->p.env, ld->datastore, "lock record at 0x%llx: whether slot %u, which it names, "
			  "still has it cannot be told; run fsck.lunfs", (unsigned long long)addr, slot);
		return -EUCLEAN;
	}
	if (err)
		return err;
	if (MUTANT("slot-from-memory") && ld->peers[slot].valid)
		s = ld->peers[slot].slot;
	if (MUTANT("all-are-stale") || slot_is_retired(&s, generation))
		return 1;
	if (s.generation == generation)
		return 0;
	log_error(ld->p.env, ld->datastore, "lock record at 0x%llx: names generation %u of slot %u, which "
		  "is only at %u; run fsck.lunfs", (unsigned long long)addr, generation, slot,
		  s.generation);
	return -EUCLEAN;
}

/* Whether the heartbeat of a slot in state @s is that of the slot itself. */
static bool slot_beats(const struct slot *s)
{
	return s->state == SLOT_LIVE || s->state == SLOT_JOINING ||
	       (s->state == SLOT_RECOVERING && s->recoverer == s->index);
}

bool observe_silent(struct lockd *ld, uint32_t slot, uint32_t generation, uint64_t *silent_ms,
		    uint64_t *breakable_ms)
{
	uint64_t now = env_now_ns(ld->p.env), silent = 0, left = UINT64_MAX;
	bool suspected = false;
	struct peer *p;

	if (slot < ld->p.slot_count && slot != ld->self.index && ld->peers[slot].valid) {
		p = &ld->peers[slot];
		silent = (now - p->seen_ns) / NSEC_PER_MSEC;
		/* One that is being recovered was suspected by whoever does that. */
		suspected = p->slot.generation > generation ||
			    (p->slot.generation == generation &&
			     (p->slot.state == SLOT_FREE || !slot_beats(&p->slot) ||
			      p->observed_ns > suspicion_ns(ld)));
		if (suspected)
			left = 0;
		else if (p->slot.generation == generation && p->observed_ns > 2 * beat_ns(ld))
			left = (suspicion_ns(ld) - p->observed_ns) / NSEC_PER_MSEC + 1;
	}
	if (silent_ms)
		*silent_ms = silent;
	if (breakable_ms)
		*breakable_ms = left;
	return suspected;
}

/* A slot as one scan found it; the scan was under way from @start_ns to @end_ns. */
static void observe_slot(struct lockd *ld, const struct slot *s, uint64_t start_ns,
			 uint64_t end_ns)
{
	struct peer *p = &ld->peers[s->index];
	bool known = p->valid;

	if (known && p->slot.sequence == s->sequence && p->slot.generation == s->generation) {
		/* Both scans saw it after their start: the time between is certain. */
		if (p->last_scan_ns && start_ns > p->last_scan_ns &&
		    (start_ns - p->last_scan_ns <= 2 * beat_ns(ld) ||
		     MUTANT("blind-time-counts")))
			p->observed_ns += start_ns - p->last_scan_ns;
		if (start_ns > p->last_scan_ns)
			p->last_scan_ns = start_ns;
		return;
	}
	p->moved = known && p->slot.generation == s->generation;
	p->slot = *s;
	p->valid = true;
	p->seen_ns = start_ns;
	p->observed_ns = 0;
	p->last_scan_ns = end_ns;	/* it may have changed until then */
}

/* mutex held. */
static void observe_block(struct lockd *ld, uint32_t index, uint64_t start_ns, uint64_t end_ns)
{
	const uint8_t *block = ld->scan_buf + (size_t)index * META_BLOCK_SIZE;
	struct slot s;
	char why[200];

	if (slot_decode(block, ld->p.volume, slot_addr(ld, index), index, &s, why,
			sizeof(why)) != 0) {
		if (ld->peers[index].valid || ld->peers[index].last_scan_ns == 0)
			log_error(ld->p.env, ld->datastore, "host slot %u: %s; run fsck.lunfs",
				  index, why);
		ld->peers[index].valid = false;
		ld->peers[index].last_scan_ns = end_ns;
		return;
	}
	observe_slot(ld, &s, start_ns, end_ns);
	if (!ld->member)
		return;
	if (index != ld->self.index)
		cache_peer_wants(ld, &s);
	else if (s.generation != ld->self.generation || !slot_beats(&s))
		heartbeat_publish(ld);	/* the next compare-and-write tells what became of us */
}

int observe_scan(struct lockd *ld)
{
	size_t len = (size_t)ld->p.slot_count * META_BLOCK_SIZE;
	uint64_t start_ns = env_now_ns(ld->p.env), end_ns;
	int err;

	err = blkdev_read(ld->p.hb_dev, ld->p.slots_addr, ld->scan_buf, len);
	end_ns = env_now_ns(ld->p.env);
	env_mutex_lock(ld->p.env, &ld->mutex);
	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		if (err && !MUTANT("blind-time-counts"))
			ld->peers[i].last_scan_ns = 0;	/* R3a: this time does not count */
		else if (!err)
			observe_block(ld, i, start_ns, end_ns);
	}
	env_cond_broadcast(ld->p.env, &ld->changed);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}

/*
 * How often wants of others are looked for: the fewer hosts there are, the less a scan costs the
 * device, and the sooner a cached lock is passed on.
 */
static uint64_t observe_interval_ns(const struct lockd *ld)
{
	unsigned int live = 0;

	for (uint32_t i = 0; i < ld->p.slot_count; i++)
		live += i != ld->self.index && ld->peers[i].valid && slot_beats(&ld->peers[i].slot);
	if (ld->scan_often || (live && live < OBSERVE_FEW))
		return beat_ns(ld) / 4;
	/* Alone: whoever joins should be noticed before it has to wait for long. */
	return live < 2 * OBSERVE_FEW ? beat_ns(ld) / 2 : beat_ns(ld);
}

/*
 * mutex held.  When to scan next: each beat, oftener while anybody waits for a lock, and at
 * the very time at which a silent peer is to be suspected, for takeover waits for that.
 */
static uint64_t observe_due_ns(const struct lockd *ld, uint64_t last_ns)
{
	uint64_t due_ns = last_ns + observe_interval_ns(ld), at_ns;

	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		const struct peer *p = &ld->peers[i];

		if (!p->valid || i == ld->self.index || !slot_beats(&p->slot) ||
		    p->observed_ns <= beat_ns(ld) || p->observed_ns > suspicion_ns(ld))
			continue;
		at_ns = p->last_scan_ns + suspicion_ns(ld) - p->observed_ns + 1;
		if (at_ns < due_ns && at_ns > last_ns)
			due_ns = at_ns;
	}
	return due_ns;
}

static void observe_thread(void *arg)
{
	struct lockd *ld = arg;
	struct env *env = ld->p.env;
	uint64_t start_ns = env_now_ns(env), due_ns;

	env_mutex_lock(env, &ld->mutex);
	while (!ld->stopping && !ld->lost) {
		due_ns = observe_due_ns(ld, start_ns);
		if (env_now_ns(env) < due_ns) {
			env_cond_wait(env, &ld->changed, &ld->mutex, due_ns);
			continue;
		}
		env_mutex_unlock(env, &ld->mutex);
		start_ns = env_now_ns(env);
		observe_scan(ld);
		env_mutex_lock(env, &ld->mutex);
	}
	env_mutex_unlock(env, &ld->mutex);
}

int observe_start(struct lockd *ld)
{
	int err;

	err = env_thread_start(ld->p.env, "lunfs-observe", observe_thread, ld,
			       &ld->observe_thread);
	if (err)
		ld->observe_thread = NULL;
	return err;
}
