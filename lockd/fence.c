/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing: the proof that a dead host cannot write any more (R3c; LOCKING.md, "Fencing ladder"). */
#include <errno.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define FENCE_KEY_MAGIC		0x4c46ull	/* "LF" */
#define FENCE_KEY_NO_SLOT	0xffffull	/* a joining host's path before it has a slot */
#define FENCE_KEY_TOOL		0xfffeull	/* mkfs.lunfs */
#define FENCE_TRIES		3u

const char *fence_rung_name(enum fence_rung rung)
{
	switch (rung) {
	case FENCE_RESERVATION:
		return "A (reservation)";
	case FENCE_KILL:
		return "A (killed)";
	case FENCE_WAIT:
		return "B (bound)";
	case FENCE_UNSAFE:
		return "C (unsafe if a host is suspended)";
	}
	return "unknown";
}

enum fence_rung fence_choose_rung(const struct lockd_params *p)
{
	const struct blkdev_info *info = &p->dev->info;

	if (info->reservations && p->hb_dev->info.reservations)
		return FENCE_RESERVATION;
	/* The simulated LUN plays both: one machine's file, and an array's. */
	if ((info->caw == BLK_CAW_LOCAL || info->caw == BLK_CAW_SIM) && p->kill)
		return FENCE_KILL;
	if (info->inflight_ns_max && p->watchdog && p->watchdog_ms <= p->timing.lease_ms)
		return FENCE_WAIT;
	return FENCE_UNSAFE;
}

uint64_t fence_key(uint32_t slot, uint32_t generation)
{
	return FENCE_KEY_MAGIC << 48 | (uint64_t)slot << 32 | generation;
}

uint64_t fence_tool_key(uint32_t nonce)
{
	return FENCE_KEY_MAGIC << 48 | FENCE_KEY_TOOL << 32 | nonce;
}

/* ---- rung A: persistent reservations ---- */

static int fence_register_path(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	int err;

	err = dev->ops->pr_register(dev, old_key, new_key);
	/* Registered before, perhaps by a command whose answer was lost. */
	if (err && old_key != new_key)
		err = dev->ops->pr_register(dev, new_key, new_key);
	return err;
}

/*
 * The path may still be registered for an older life of this host, with a key that only the
 * device knows if that life ended before it had a slot.  Only the right one can be replaced.
 */
static int fence_replace_key(struct blkdev *dev, uint64_t key)
{
	struct blkdev_pr_state state;
	int err;

	err = dev->ops->pr_read(dev, &state);
	if (err)
		return err;
	err = -EBADE;
	for (unsigned int i = 0; err && i < state.key_count && i < ARRAY_SIZE(state.keys); i++)
		if (state.keys[i] >> 48 == FENCE_KEY_MAGIC)
			err = dev->ops->pr_register(dev, state.keys[i], key);
	return err;
}

int fence_prepare(struct lockd *ld)
{
	uint32_t nonce;
	uint64_t key;
	int err;

	if (ld->rung != FENCE_RESERVATION)
		return 0;
	env_random(ld->p.env, &nonce, sizeof(nonce));
	key = FENCE_KEY_MAGIC << 48 | FENCE_KEY_NO_SLOT << 32 | nonce;
	err = fence_register_path(ld->p.hb_dev, 0, key);
	if (err)
		err = fence_replace_key(ld->p.hb_dev, key);
	if (!err)
		ld->hb_key = key;
	return err;
}

int fence_renew(struct lockd *ld)
{
	return fence_register_path(ld->p.hb_dev, 0, ld->hb_key);
}

/* Every path that is up, with the key that the slot shows; then the reservation. */
static int fence_register_all(struct lockd *ld, uint64_t key)
{
	struct blkdev *hb_dev = ld->p.hb_dev, *dev = ld->p.dev;
	int err;

	err = fence_register_path(hb_dev, ld->hb_key, key);
	if (err && ld->hb_key)
		err = fence_register_path(hb_dev, 0, key);	/* the path forgot our key */
	if (err)
		return err;
	ld->hb_key = key;
	err = fence_register_path(dev, 0, key);
	return err ? err : hb_dev->ops->pr_reserve(hb_dev, key);
}

int fence_register(struct lockd *ld)
{
	const struct slot *self = &ld->self;
	struct blkdev_pr_state state;
	uint64_t key = self->key;
	int err = -EBADE;

	if (ld->rung != FENCE_RESERVATION)
		return 0;
	/* While we take a slot over it still shows the key of whom we fence. */
	if (key != fence_key(self->index, self->state == SLOT_RECOVERING ?
			     self->recoverer_generation : self->generation))
		return -EAGAIN;
	/* A conflict: the reservation went over a path that came up after it was registered. */
	for (unsigned int i = 0; err == -EBADE && i < FENCE_TRIES; i++)
		err = fence_register_all(ld, key);
	if (err)
		return err;
	err = ld->p.hb_dev->ops->pr_read(ld->p.hb_dev, &state);
	if (!err && !state.held)
		err = -EIO;
	return err;
}

void fence_unregister(struct lockd *ld)
{
	if (ld->rung != FENCE_RESERVATION || !ld->hb_key)
		return;
	/* Best effort: a key that stays behind belongs to a retired generation. */
	ld->p.dev->ops->pr_register(ld->p.dev, ld->self.key, 0);
	ld->p.hb_dev->ops->pr_register(ld->p.hb_dev, ld->hb_key, 0);
	ld->hb_key = 0;
}

static bool fence_is_slot_key(uint64_t key)
{
	return key >> 48 == FENCE_KEY_MAGIC && (key >> 32 & 0xffff) != FENCE_KEY_NO_SLOT;
}

/* A slot's key only goes when another registrant takes it away, or replaces its own. */
static bool fence_others_stay(struct lockd *ld)
{
	struct blkdev_pr_state state;
	bool found = false;

	if (ld->p.hb_dev->ops->pr_read(ld->p.hb_dev, &state))
		return false;
	for (unsigned int i = 0; i < state.key_count && i < ARRAY_SIZE(state.keys); i++)
		found = found || (fence_is_slot_key(state.keys[i]) && state.keys[i] != ld->hb_key &&
				  state.keys[i] != ld->self.key);
	return found;
}

void fence_withdraw(struct lockd *ld)
{
	if (ld->rung == FENCE_RESERVATION && ld->hb_key && fence_others_stay(ld))
		fence_unregister(ld);
}

void fence_purge(struct lockd *ld)
{
	struct blkdev *dev = ld->p.hb_dev;
	struct blkdev_pr_state state;
	struct slot s;

	if (ld->rung != FENCE_RESERVATION || dev->ops->pr_read(dev, &state))
		return;
	for (unsigned int i = 0; i < state.key_count && i < ARRAY_SIZE(state.keys); i++) {
		uint64_t key = state.keys[i];
		uint32_t slot = (uint32_t)(key >> 32 & 0xffff);

		if (!fence_is_slot_key(key) || key == ld->hb_key || slot >= ld->p.slot_count ||
		    slot_read(ld, gate_blkdev(ld->gate), slot, &s))
			continue;
		if (slot_is_retired(&s, (uint32_t)key))
			dev->ops->pr_preempt_abort(dev, ld->hb_key, key);
	}
}

/* Return: 1 proven: our type of reservation is held and @key is not registered; 0; -errno. */
static int fence_key_is_gone(struct lockd *ld, uint64_t key)
{
	struct blkdev *dev = ld->p.hb_dev;
	struct blkdev_pr_state state;
	int err;

	err = dev->ops->pr_read(dev, &state);
	if (err)
		return err;
	err = state.held && state.key_count <= ARRAY_SIZE(state.keys);
	for (unsigned int i = 0; err && i < state.key_count; i++)
		if (state.keys[i] == key)
			err = 0;
	return err;
}

/*
 * An incarnation of ours on this machine: where the path is the same nexus as its was, our
 * registration has replaced its key, and a preempt would abort nothing.  What it sent and heard
 * no end of is waited for.
 */
static int fence_drain_own(struct lockd *ld, const struct slot *victim)
{
	if (memcmp(victim->host_id, ld->p.host_id, sizeof(victim->host_id)) != 0 ||
	    memcmp(victim->boot_id, ld->p.boot_id, sizeof(victim->boot_id)) != 0)
		return 0;
	return blkdev_drain(ld->p.dev);
}

static int fence_preempt(struct lockd *ld, const struct slot *victim)
{
	struct blkdev *dev = ld->p.hb_dev;
	char name[160];
	int gone = 0, err = 0;

	for (unsigned int i = 0; i < FENCE_TRIES; i++) {
		gone = fence_key_is_gone(ld, victim->key);
		if (gone)
			break;
		/* Fails for a key that is not registered (SPC-4): only the check below counts. */
		if (victim->key)
			err = dev->ops->pr_preempt_abort(dev, ld->hb_key, victim->key);
		/* While we join nobody else registers a path that has just come up. */
		if (err == -EBADE && !fence_is_slot_key(ld->hb_key))
			fence_renew(ld);
		gone = fence_key_is_gone(ld, victim->key);
		if (gone)
			break;
		/* The reservation itself is missing: somebody cleared it. */
		dev->ops->pr_reserve(dev, ld->hb_key);
	}
	if (gone == 1)
		return 0;
	log_error(ld->p.env, slot_name(ld, victim, name), "cannot be fenced: its reservation key "
		  "0x%llx is still in force (preempt: %s); its locks stay until it is: check the "
		  "device's persistent reservations", (unsigned long long)victim->key,
		  err ? strerror(-err) : "no error");
	return gone < 0 ? gone : -EHOSTDOWN;
}

/* ---- rung A on one machine: the process is killed ---- */

static bool fence_is_this_process(const struct lockd *ld, const struct slot *victim)
{
	return victim->pid == ld->p.pid && victim->pid_start == ld->p.pid_start;
}

static int fence_kill(struct lockd *ld, const struct slot *victim)
{
	char name[160];
	int err;

	if (memcmp(victim->boot_id, ld->p.boot_id, sizeof(victim->boot_id)) != 0)
		return 0;	/* one machine: it died with that boot, and its commands too */
	/* An incarnation of ours that was lost: its device handles were closed before we joined. */
	if (fence_is_this_process(ld, victim))
		return blkdev_drain(ld->p.dev);
	err = victim->pid ? ld->p.kill(ld->p.kill_arg, victim) : -ESRCH;
	if (!err)
		return 0;
	log_error(ld->p.env, slot_name(ld, victim, name), "is silent and cannot be fenced: process "
		  "%u (started at %llu) %s; nothing of it is recovered: end that process by hand",
		  victim->pid, (unsigned long long)victim->pid_start,
		  err == -EPERM ? "may not be killed by us" :
		  err == -ETIMEDOUT ? "does not die" : strerror(-err));
	return -EHOSTDOWN;
}

/* ---- rungs B and C ---- */

/* Waits @ns unless we are lost or leaving.  Return: 0 or -ESTALE. */
static int fence_sleep(struct lockd *ld, uint64_t ns)
{
	uint64_t deadline_ns = env_now_ns(ld->p.env) + ns;
	int err = 0;

	env_mutex_lock(ld->p.env, &ld->mutex);
	while (!ld->lost && !ld->stopping && env_now_ns(ld->p.env) < deadline_ns)
		env_cond_wait(ld->p.env, &ld->changed, &ld->mutex, deadline_ns);
	if (ld->lost || ld->stopping)
		err = -ESTALE;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}

static int fence_wait(struct lockd *ld, const struct slot *victim)
{
	bool own = ld->p.own_slot_is_dead &&
		   memcmp(victim->host_id, ld->p.host_id, sizeof(victim->host_id)) == 0 &&
		   memcmp(victim->boot_id, ld->p.boot_id, sizeof(victim->boot_id)) == 0;
	char name[160];

	if (!own && !(victim->flags & SLOT_WATCHDOG) && !ld->p.force_unsafe) {
		log_error(ld->p.env, slot_name(ld, victim, name), "is silent and cannot be fenced: "
			  "it had no watchdog, so it may only be suspended; make sure that it is "
			  "off and attach with force, or give hosts a watchdog");
		return -EHOSTDOWN;
	}
	/* A watchdog device may strike as late as a lease after the end of that of its host. */
	return fence_sleep(ld, ld->p.dev->info.inflight_ns_max +
			   ld->p.timing.lease_ms * NSEC_PER_MSEC);
}

int fence_slot(struct lockd *ld, const struct slot *victim)
{
	char name[160];
	int err;

	if (MUTANT("no-fencing"))
		return 0;
	/* Its own word, given when nothing of it was under way any more. */
	if ((victim->flags & SLOT_DRAINED) && ld->rung != FENCE_RESERVATION)
		return 0;
	switch (ld->rung) {
	case FENCE_RESERVATION:
		err = fence_drain_own(ld, victim);
		return err ? err : fence_preempt(ld, victim);
	case FENCE_KILL:
		return fence_kill(ld, victim);
	case FENCE_WAIT:
		return fence_wait(ld, victim);
	case FENCE_UNSAFE:
		break;
	}
	log_warning(ld->p.env, slot_name(ld, victim, name), "is recovered without proof that it is "
		    "dead (forced): if it was only suspended, its last writes may destroy data");
	return fence_sleep(ld, ld->p.dev->info.inflight_ns_max);
}

int fence_check(struct lockd *ld, const struct slot *victim)
{
	/* What was killed or waited out stays so; a key can come back with a late command. */
	if (ld->rung != FENCE_RESERVATION || MUTANT("no-fencing") || MUTANT("no-second-check"))
		return 0;
	return fence_preempt(ld, victim);
}

/* ---- what status shows ---- */

void lockd_reservation(struct lockd *ld, struct lockd_reservation *r)
{
	struct blkdev *dev = ld->p.hb_dev;
	struct blkdev_pr_state state;

	memset(r, 0, sizeof(*r));
	r->used = ld->rung == FENCE_RESERVATION;
	if (!r->used)
		return;
	env_mutex_lock(ld->p.env, &ld->mutex);
	r->own_key = ld->self.key;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	r->err = dev->ops->pr_read(dev, &state);
	if (r->err)
		return;
	r->held = state.held;
	for (unsigned int i = 0; i < state.key_count && i < ARRAY_SIZE(state.keys); i++) {
		unsigned int n = 0;

		while (n < r->key_count && r->keys[n] != state.keys[i])
			n++;
		if (n == r->key_count)
			r->keys[r->key_count++] = state.keys[i];
	}
}
