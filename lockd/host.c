/* SPDX-License-Identifier: Apache-2.0 */
/* Joining a datastore, leaving it, and what status shows.  LOCKING.md, "Slots" and "Joining". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define JOIN_CAW_TRIES	16u

struct join {
	struct lockd *ld;
	uint64_t deadline_ns;	/* not for ever: a device or peers that make no progress */
	uint32_t index;		/* the slot chosen */
	struct slot found;	/* it as it was before our claim */
	char	*why;
	size_t	why_size;
};

static int join_fail(struct join *j, int err, const char *what)
{
	if (j->why)
		snprintf(j->why, j->why_size, "%s: %s", j->ld->datastore, what);
	return err;
}

static int join_fail_errno(struct join *j, int err, const char *what)
{
	if (j->why)
		snprintf(j->why, j->why_size, "%s: %s: %s", j->ld->datastore, what, strerror(-err));
	return err;
}

/* ---- choosing a slot ---- */

/*
 * A generation that no incarnation has had, nor one that died while it took the slot over: it
 * showed a key with that generation, and a key names one process for ever.
 */
static uint64_t join_next_generation(const struct slot *s)
{
	uint64_t last = s->generation;

	if (s->state == SLOT_RECOVERING && s->recoverer == s->index &&
	    s->recoverer_generation > last)
		last = s->recoverer_generation;
	/* Whoever took over from that one has kept its key. */
	if (s->key == fence_key(s->index, (uint32_t)s->key) && (uint32_t)s->key > last &&
	    (uint32_t)s->key < SLOT_GENERATION_LAST)
		last = (uint32_t)s->key;
	return MUTANT("same-generation") ? last : last + 1;
}

static bool join_usable(const struct peer *p)
{
	return p->valid && join_next_generation(&p->slot) <= SLOT_GENERATION_LAST;
}

static bool join_is_own(const struct lockd *ld, const struct peer *p)
{
	return p->valid && memcmp(p->slot.host_id, ld->p.host_id, sizeof(ld->p.host_id)) == 0;
}

/* Whether its owner itself keeps this slot (rather than a recoverer). */
static bool join_beats(const struct slot *s)
{
	return s->state == SLOT_LIVE || s->state == SLOT_JOINING ||
	       (s->state == SLOT_RECOVERING && s->recoverer == s->index);
}

static bool join_recoverer_is_gone(const struct lockd *ld, const struct slot *s)
{
	const struct peer *q;

	if (s->recoverer >= ld->p.slot_count || !ld->peers[s->recoverer].valid)
		return true;
	q = &ld->peers[s->recoverer];
	return q->slot.generation != s->recoverer_generation || q->slot.state == SLOT_FREE ||
	       q->slot.state == SLOT_RECOVERING || q->observed_ns > suspicion_ns(ld);
}

/* Our own slot of another life.  Return: 0 take it; -EAGAIN wait; 1 never mind; -EALREADY. */
static int join_judge_own(struct join *j, const struct peer *p)
{
	const struct lockd *ld = j->ld;

	if (!join_beats(&p->slot))
		/* Another host is at it: leave it alone until it is free, or for good. */
		return !join_recoverer_is_gone(ld, &p->slot) &&
		       env_now_ns(ld->p.env) < j->deadline_ns - suspicion_ns(ld) ? -EAGAIN : 1;
	if (!join_usable(p))
		return 1;
	if (ld->p.own_slot_is_dead &&
	    memcmp(p->slot.boot_id, ld->p.boot_id, sizeof(p->slot.boot_id)) == 0)
		return 0;
	if (p->moved)
		return join_fail(j, -EALREADY, "a live process with this host's id is "
				 "attached already; detach it there, or give this host another "
				 "id (--host-id)");
	return p->observed_ns > suspicion_ns(ld) ? 0 : -EAGAIN;
}

/* One's own free slot, or any free one at random.  Return: whether there is one. */
static bool join_choose_free(struct join *j)
{
	struct lockd *ld = j->ld;
	uint32_t count = 0;

	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		const struct peer *p = &ld->peers[i];

		if (!join_usable(p) || p->slot.state != SLOT_FREE)
			continue;
		count++;
		if (join_is_own(ld, p)) {
			j->index = i;
			return true;
		}
		if (env_random_below(ld->p.env, count) == 0)
			j->index = i;
	}
	return count > 0;
}

/* No slot is free.  Return: 0 take over a dead one; -EAGAIN wait; -EUSERS. */
static int join_choose_dead(struct join *j)
{
	const struct lockd *ld = j->ld;
	bool hope = false;

	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		const struct peer *p = &ld->peers[i];

		if (!join_usable(p))
			continue;
		if (join_beats(&p->slot) && p->observed_ns > suspicion_ns(ld)) {
			j->index = i;
			return 0;
		}
		hope = hope || !p->moved || !join_beats(&p->slot);
	}
	if (hope && env_now_ns(ld->p.env) < j->deadline_ns)
		return -EAGAIN;
	return join_fail(j, -EUSERS, "all host slots are taken by live hosts; detach one");
}

/* Return: 0 j->index; -EAGAIN scan again; others final. */
static int join_choose(struct join *j)
{
	struct lockd *ld = j->ld;
	int err;

	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		if (!join_is_own(ld, &ld->peers[i]) || ld->peers[i].slot.state == SLOT_FREE)
			continue;
		j->index = i;
		err = join_judge_own(j, &ld->peers[i]);
		if (err <= 0)
			return err;
	}
	return join_choose_free(j) ? 0 : join_choose_dead(j);
}

/* ---- claiming it ---- */

/* Who we are, into the slot. */
static void join_identify(const struct lockd *ld, struct slot *s)
{
	memcpy(s->host_id, ld->p.host_id, sizeof(s->host_id));
	memcpy(s->boot_id, ld->p.boot_id, sizeof(s->boot_id));
	snprintf(s->host_name, sizeof(s->host_name), "%s", ld->p.host_name);
	snprintf(s->software, sizeof(s->software), "%s", LUNFS_VERSION);
	s->pid = ld->p.pid;
	s->pid_start = ld->p.pid_start;
	/* Said where it is watched over: on another rung nobody ends this host. */
	s->flags = ld->rung == FENCE_WAIT ? SLOT_WATCHDOG : 0;
	s->key = 0;
}

/* The claim: a free slot becomes ours, a dead one keeps its identity until it is fenced. */
static void join_claim_image(const struct lockd *ld, const struct slot *found, struct slot *s)
{
	*s = *found;
	memset(s->wants, 0, sizeof(s->wants));
	memset(s->denials, 0, sizeof(s->denials));
	/* Two processes may claim for the same host at once: their images must differ. */
	env_random(ld->p.env, &s->want_stamp, sizeof(s->want_stamp));
	s->since = env_realtime_ns(ld->p.env);
	if (found->state == SLOT_FREE) {
		join_identify(ld, s);
		s->generation = (uint32_t)join_next_generation(found);
		s->state = SLOT_JOINING;
		if (ld->rung == FENCE_RESERVATION)
			s->key = fence_key(s->index, s->generation);
		return;
	}
	s->state = SLOT_RECOVERING;
	s->recoverer = s->index;
	s->recoverer_generation = (uint32_t)join_next_generation(found);
}

/* Whether @s is @claim, whatever its sequence. */
static bool join_is_claim(const struct slot *s, const struct slot *claim)
{
	return s->generation == claim->generation && s->state == claim->state &&
	       s->recoverer == claim->recoverer && s->want_stamp == claim->want_stamp &&
	       s->since == claim->since;
}

/* Return: 0 ours, ld->self and @image are what is on disk; -EAGAIN lost a race; others. */
static int join_claim(struct join *j, uint8_t image[META_SECTOR_SIZE])
{
	struct lockd *ld = j->ld;
	uint64_t addr = slot_addr(ld, j->index);
	uint8_t expected[META_SECTOR_SIZE];
	struct slot s;
	int err;

	err = slot_read_image(ld, ld->p.hb_dev, j->index, &j->found, expected);
	if (err)
		return err;
	if (j->found.sequence != ld->peers[j->index].slot.sequence)
		return -EAGAIN;
	join_claim_image(ld, &j->found, &s);
	err = -EAGAIN;
	for (unsigned int i = 0; err == -EAGAIN && i < JOIN_CAW_TRIES; i++) {
		s.sequence++;
		slot_encode(&s, ld->p.volume, addr, image, META_SECTOR_SIZE);
		err = caw_sector(ld, ld->p.hb_dev, addr, expected, image);
	}
	if (err == -EILSEQ) {
		/* Lost, unless an earlier image of ours landed late. */
		struct slot now;

		err = slot_read_image(ld, ld->p.hb_dev, j->index, &now, image);
		if (err || !join_is_claim(&now, &s))
			return err ? err : -EAGAIN;
		s = now;
	}
	if (!err)
		ld->self = s;
	/* It went over a path that came up after fence_prepare(). */
	if (err == -EBADE && ld->rung == FENCE_RESERVATION)
		err = fence_renew(ld) ? err : -EAGAIN;
	return err == -EBUSY ? -EAGAIN : err;
}

/* Scans until a slot is ours. */
static int join_take_slot(struct join *j, uint8_t image[META_SECTOR_SIZE])
{
	struct lockd *ld = j->ld;
	int err;

	for (;;) {
		err = observe_scan(ld);
		if (err)
			return join_fail_errno(j, err, "cannot read the host slots");
		err = join_choose(j);
		if (!err)
			err = join_claim(j, image);
		if (!err)
			return 0;
		if (err != -EAGAIN)
			return j->why && j->why[0] ? err :
			       join_fail_errno(j, err, "cannot take a host slot");
		if (env_now_ns(ld->p.env) >= j->deadline_ns)
			return join_fail(j, -EUSERS, "no host slot became free in time");
		env_sleep_until(ld->p.env, env_now_ns(ld->p.env) + beat_ns(ld) / 4);
	}
}

/* ---- going live ---- */

static int join_publish(struct lockd *ld, void (*change)(const struct lockd *ld, struct slot *s))
{
	int err;

	env_mutex_lock(ld->p.env, &ld->mutex);
	if (change)
		change(ld, &ld->self);
	err = heartbeat_publish_wait(ld);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return err;
}

/* The dead owner is fenced: from here on it is us who would have to be. */
static void join_change_identity(const struct lockd *ld, struct slot *s)
{
	join_identify(ld, s);
	if (ld->rung == FENCE_RESERVATION)
		s->key = fence_key(s->index, s->recoverer_generation);
}

static void join_change_live(const struct lockd *ld, struct slot *s)
{
	if (s->state == SLOT_RECOVERING)
		s->generation = s->recoverer_generation;
	s->state = SLOT_LIVE;
	s->recoverer = SLOT_NONE;
	s->recoverer_generation = 0;
	s->since = env_realtime_ns(ld->p.env);
}

/* From the claim to LIVE: fence, show who we are, register, replay. */
static int join_go_live(struct join *j)
{
	struct lockd *ld = j->ld;
	int err = 0;

	if (j->found.state != SLOT_FREE) {
		err = fence_slot(ld, &j->found);
		if (!err)
			err = join_publish(ld, join_change_identity);
		if (err)
			return join_fail_errno(j, err, "this host's slot is held by a process that "
					       "cannot be proved dead (see the log)");
	}
	err = fence_register(ld);
	/* Registered first, then seen that the slot is still ours; only then we write. */
	if (!err)
		err = join_publish(ld, NULL);
	if (err)
		return join_fail_errno(j, err, "cannot register with the device");
	fence_purge(ld);
	err = ld->p.client->replay(ld->p.client_arg, gate_blkdev(ld->gate), j->index);
	if (err)
		return join_fail_errno(j, err, "cannot replay this host's journal");
	if (j->found.state != SLOT_FREE)
		err = fence_check(ld, &j->found);
	if (!err)
		err = join_publish(ld, join_change_live);
	/* R5: a power cut must not bring an older generation back once locks name this one. */
	if (!err && !MUTANT("no-flush-after-live"))
		err = blkdev_flush(ld->p.hb_dev);
	return err ? join_fail_errno(j, err, "the host slot was lost while joining") : 0;
}

static int join_start_threads(struct lockd *ld)
{
	int err;

	err = cache_start(ld);
	if (err)
		return err;
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->member = true;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	err = observe_start(ld);
	if (!err)
		err = recover_start(ld);
	return err;
}

/* ---- the end ---- */

static void lockd_stop_threads(struct lockd *ld)
{
	struct env *env = ld->p.env;

	env_mutex_lock(env, &ld->mutex);
	ld->stopping = true;
	env_cond_broadcast(env, &ld->changed);
	env_mutex_unlock(env, &ld->mutex);
	if (ld->recover_thread)
		env_thread_join(env, ld->recover_thread);
	if (ld->observe_thread)
		env_thread_join(env, ld->observe_thread);
	ld->recover_thread = NULL;
	ld->observe_thread = NULL;
}

/* Return: 0 our generation is retired; -EAGAIN the slot has just changed; others. */
static int lockd_try_free_slot(struct lockd *ld)
{
	uint64_t addr = slot_addr(ld, ld->self.index);
	uint8_t image[META_SECTOR_SIZE], old[META_SECTOR_SIZE];
	struct slot s;
	int err;

	err = slot_read_image(ld, ld->p.hb_dev, ld->self.index, &s, old);
	if (err)
		return err;
	if (slot_is_retired(&s, ld->self.generation))
		return 0;
	if (s.state != ld->self.state || s.pid != ld->p.pid || s.pid_start != ld->p.pid_start)
		return -ESTALE;
	s.state = SLOT_FREE;
	s.key = 0;
	s.pid = 0;
	s.pid_start = 0;
	s.flags = 0;
	memset(s.wants, 0, sizeof(s.wants));
	memset(s.denials, 0, sizeof(s.denials));
	err = -EAGAIN;
	for (unsigned int i = 0; err == -EAGAIN && i < JOIN_CAW_TRIES; i++) {
		s.sequence++;
		slot_encode(&s, ld->p.volume, addr, image, sizeof(image));
		err = caw_sector(ld, ld->p.hb_dev, addr, old, image);
	}
	/* A path that came up since the last beat; the slot has just been seen to be ours. */
	if (err == -EBADE && ld->rung == FENCE_RESERVATION)
		err = fence_renew(ld) ? err : -EAGAIN;
	return err == -EILSEQ || err == -EBUSY ? -EAGAIN : err;
}

/*
 * Retires our generation.  The heartbeat has stopped and nothing of ours is under way, but
 * an unclear last beat may still land in between: then it is tried again.
 */
static int lockd_free_slot(struct lockd *ld)
{
	int err = -EAGAIN;

	for (unsigned int i = 0; err == -EAGAIN && i < JOIN_CAW_TRIES; i++)
		err = lockd_try_free_slot(ld);
	return err;
}

static void lockd_destroy(struct lockd *ld)
{
	heartbeat_stop(ld);
	gate_free(ld->gate);
	free(ld->hb.expected);
	free(ld->hb.desired);
	free(ld->hb.found);
	free(ld->scan_buf);
	env_cond_fini(ld->p.env, &ld->hb.wake);
	env_cond_fini(ld->p.env, &ld->changed);
	env_mutex_fini(ld->p.env, &ld->mutex);
	free(ld);
}

int lockd_leave(struct lockd *ld)
{
	int err;

	/* A recovery under way ends at its next step; whoever comes takes over. */
	lockd_stop_threads(ld);
	err = lockd_lost(ld) ? -ESTALE : ld->p.client->settle(ld->p.client_arg);
	cache_stop(ld);
	heartbeat_stop(ld);
	if (!err && lockd_lost(ld))
		err = -ESTALE;
	gate_fail(ld->gate);
	gate_drain(ld->gate, ENV_FOREVER);
	/* R4: a command that timed out may still land; free only what nothing is addressed to. */
	if (!err)
		err = blkdev_drain(ld->p.dev);
	if (!err)
		err = lockd_free_slot(ld);
	if (err && !ld->lost)
		log_warning(ld->p.env, ld->datastore, "slot %u could not be freed (%s); other "
			    "hosts will recover it", ld->self.index, strerror(-err));
	/* Registered it stays: with the last registration the reservation would end (R3c). */
	lockd_destroy(ld);
	return err;
}

/* ---- joining ---- */

static int join_check(struct join *j)
{
	struct lockd *ld = j->ld;
	const struct lockd_params *p = &ld->p;

	if (p->slot_count == 0 || p->slot_count > SLOT_COUNT_MAX || p->timing.beat_ms == 0 ||
	    p->timing.lease_ms < 2 * p->timing.beat_ms || p->timing.margin_ms == 0)
		return join_fail(j, -EINVAL, "impossible slot count or timing in the superblock");
	if (p->dev->info.caw == BLK_CAW_NONE || p->hb_dev->info.caw == BLK_CAW_NONE)
		return join_fail(j, -EOPNOTSUPP, "the device has no compare-and-write: "
				 "hosts cannot share it");
	if (ld->rung == FENCE_UNSAFE && !p->force_unsafe && p->watchdog_ms > p->timing.lease_ms)
		return join_fail(j, -EOPNOTSUPP, "a dead host could not be kept from writing: the "
				 "watchdog strikes later than a lease takes; give the volume a longer "
				 "lease, or the host another watchdog, or attach with force");
	if (ld->rung == FENCE_UNSAFE && !p->force_unsafe)
		return join_fail(j, -EOPNOTSUPP, "a dead host could not be kept from "
				 "writing: the device has no reservations, no bound on a "
				 "command's life is known or no watchdog runs (\"watchdog\" in "
				 "lunfsd.conf); attach with force to accept that");
	return 0;
}

static int lockd_new(const struct lockd_params *p, struct lockd **out)
{
	struct lockd *ld;
	int err = -ENOMEM;

	ld = calloc(1, sizeof(*ld));
	if (!ld)
		return err;
	ld->p = *p;
	snprintf(ld->datastore, sizeof(ld->datastore), "%s", p->datastore);
	ld->self.index = SLOT_NONE;
	ld->rung = fence_choose_rung(p);
	env_mutex_init(p->env, &ld->mutex);
	env_cond_init(p->env, &ld->changed);
	env_cond_init(p->env, &ld->hb.wake);
	ld->scan_buf = blkdev_alloc((size_t)p->slot_count * META_BLOCK_SIZE);
	if (ld->scan_buf)
		err = gate_new(p->env, p->dev, &ld->gate);
	if (!err && ld->rung == FENCE_WAIT)
		gate_set_guard(ld->gate, p->guard, p->timing.margin_ms * NSEC_PER_MSEC / 2);
	if (err) {
		lockd_destroy(ld);
		return err;
	}
	*out = ld;
	return 0;
}

/* Undoes a join that failed after the claim. */
static void join_abort(struct join *j)
{
	struct lockd *ld = j->ld;
	bool started = ld->member;

	lockd_stop_threads(ld);
	if (started)
		cache_stop(ld);
	heartbeat_stop(ld);
	/* A slot that was free has nothing in it to lose; another one is left to be recovered. */
	if (!lockd_lost(ld) && j->found.state == SLOT_FREE && !started) {
		gate_fail(ld->gate);
		gate_drain(ld->gate, ENV_FOREVER);
		lockd_free_slot(ld);
	}
	fence_withdraw(ld);
}

static int join_run(struct join *j)
{
	struct lockd *ld = j->ld;
	uint8_t image[META_SECTOR_SIZE];
	int err;

	err = join_check(j);
	if (err)
		return err;
	err = observe_scan(ld);
	if (err)
		return join_fail_errno(j, err, "cannot read the host slots");
	err = fence_prepare(ld);
	if (err)
		return join_fail_errno(j, err, "cannot register with the device");
	j->deadline_ns = env_now_ns(ld->p.env) + 4 * suspicion_ns(ld);
	err = join_take_slot(j, image);
	if (err) {
		fence_withdraw(ld);
		return err;
	}
	err = heartbeat_start(ld, image);
	if (err)
		join_fail_errno(j, err, "cannot start the heartbeat");
	if (!err)
		err = join_go_live(j);
	if (!err) {
		err = join_start_threads(ld);
		if (err)
			join_fail_errno(j, err, "cannot start threads");
	}
	if (err)
		join_abort(j);
	return err;
}

int lockd_join(const struct lockd_params *p, struct lockd **out, char *why, size_t why_size)
{
	struct join j = { .why = why, .why_size = why_size };
	int err;

	if (why && why_size)
		why[0] = '\0';
	else
		j.why = NULL;
	err = lockd_new(p, &j.ld);
	if (err) {
		if (j.why)
			snprintf(why, why_size, "%s: cannot attach: %s", p->datastore,
				 strerror(-err));
		return err;
	}
	err = join_run(&j);
	if (err) {
		lockd_destroy(j.ld);
		return err;
	}
	log_info(p->env, j.ld->datastore, "joined as slot %u, generation %u; fencing %s",
		 j.ld->self.index, j.ld->self.generation, fence_rung_name(j.ld->rung));
	*out = j.ld;
	return 0;
}

/* ---- what others ask ---- */

struct blkdev *lockd_dev(struct lockd *ld)
{
	return gate_blkdev(ld->gate);
}

int lockd_port(struct lockd *ld, struct blkdev *lower, struct blkdev **out)
{
	return gate_port_new(ld->gate, lower, out);
}

uint32_t lockd_slot(const struct lockd *ld)
{
	return ld->self.index;
}

uint32_t lockd_generation(const struct lockd *ld)
{
	return ld->self.generation;
}

bool lockd_has_lease(struct lockd *ld)
{
	return gate_is_valid(ld->gate);
}

int lockd_wait_lease(struct lockd *ld)
{
	return gate_wait_valid(ld->gate);
}

bool lockd_lost(const struct lockd *ld)
{
	return gate_has_failed(ld->gate);
}

void lockd_fail(struct lockd *ld, const char *cause)
{
	heartbeat_lost(ld, cause);
}

void lockd_status(struct lockd *ld, struct lockd_status *st)
{
	uint64_t now = env_now_ns(ld->p.env), until = gate_until_ns(ld->gate), begin;

	memset(st, 0, sizeof(*st));
	env_mutex_lock(ld->p.env, &ld->mutex);
	st->slot = ld->self.index;
	st->generation = ld->self.generation;
	st->rung = ld->rung;
	st->lost = ld->lost;
	st->caw_retries = ld->caw_retries;
	st->caw_unclear = ld->caw_unclear;
	st->takeovers = ld->takeovers;
	st->locks_cached = ld->cache.locks.count;
	st->lock_acquires = ld->lock_acquires;
	st->lock_releases = ld->lock_releases;
	st->lock_waits = ld->lock_waits;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	st->lease_valid = gate_is_valid(ld->gate);
	st->lease_ms = ld->p.timing.lease_ms;
	begin = until - st->lease_ms * NSEC_PER_MSEC;
	st->lease_age_ms = until && now > begin ? (now - begin) / NSEC_PER_MSEC : 0;
	st->stalls = gate_stalls(ld->gate);
}

uint32_t lockd_peers(struct lockd *ld, struct lockd_peer *peers)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	for (uint32_t i = 0; i < ld->p.slot_count; i++) {
		struct lockd_peer *out = &peers[i];

		memset(out, 0, sizeof(*out));
		out->slot = i == ld->self.index ? ld->self : ld->peers[i].slot;
		out->slot.index = i;
		out->valid = ld->peers[i].valid;
		out->self = i == ld->self.index;
		out->breakable_ms = UINT64_MAX;
		if (out->self || !out->valid || out->slot.state == SLOT_FREE)
			continue;
		observe_silent(ld, i, out->slot.generation, &out->silent_ms, &out->breakable_ms);
	}
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return ld->p.slot_count;
}
