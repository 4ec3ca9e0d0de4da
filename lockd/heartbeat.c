/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heartbeat: renews the lease by compare-and-write of our own slot.
 *
 * Its thread and device handle are its own; it takes ld->mutex, which nobody holds across
 * I/O, and nothing else.  Every image that it ever sent carries its own sequence, so each
 * can be told from each other when a result is unclear (LOCKING.md, "Lease and gate").
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define FAULT_LOG_NS	(30 * NSEC_PER_SEC)

void heartbeat_publish(struct lockd *ld)
{
	ld->beat_now = true;
	env_cond_broadcast(ld->p.env, &ld->hb.wake);
}

int heartbeat_publish_wait(struct lockd *ld)
{
	uint64_t change = ++ld->hb.change;

	heartbeat_publish(ld);
	while (ld->hb.published < change && !ld->lost)
		env_cond_wait(ld->p.env, &ld->changed, &ld->mutex, ENV_FOREVER);
	return ld->lost ? -ESTALE : 0;
}

void heartbeat_lost(struct lockd *ld, const char *cause)
{
	bool member;

	env_mutex_lock(ld->p.env, &ld->mutex);
	if (ld->lost) {
		env_mutex_unlock(ld->p.env, &ld->mutex);
		return;
	}
	ld->lost = true;
	member = ld->member;
	/* Before anybody wakes: whoever sees "lost" finds the gate shut. */
	gate_fail(ld->gate);
	env_cond_broadcast(ld->p.env, &ld->changed);
	env_cond_broadcast(ld->p.env, &ld->hb.wake);
	env_mutex_unlock(ld->p.env, &ld->mutex);
	log_error(ld->p.env, ld->datastore, "slot %u is lost: %s; all I/O fails from now on: "
		  "unmount and attach again", ld->self.index, cause);
	if (member && ld->p.client->lost)
		ld->p.client->lost(ld->p.client_arg);
}

/*
 * R2: time that the boot clock did not see (a suspended VM, a restored snapshot) voids the
 * lease, and every attempt issued before it gives none.
 */
static void beat_check_gap(struct lockd *ld)
{
	struct heartbeat *hb = &ld->hb;
	uint64_t boot_ns = env_now_ns(ld->p.env), real_ns = env_realtime_ns(ld->p.env);
	int64_t missing_ns = (int64_t)(real_ns - hb->real_ns) - (int64_t)(boot_ns - hb->boot_ns);
	int64_t allowed_ns = (int64_t)(ld->p.timing.margin_ms * NSEC_PER_MSEC / 2);
	bool gap = hb->boot_ns && missing_ns > allowed_ns && !MUTANT("gap-ignored");

	hb->boot_ns = boot_ns;
	hb->real_ns = real_ns;
	if (!gap)
		return;
	gate_cut(ld->gate);
	hb->attempt.t0_ns = 0;
	for (unsigned int i = 0; i < BEAT_UNCLEAR_MAX; i++)
		hb->unclear[i].t0_ns = 0;
	log_warning(ld->p.env, ld->datastore, "%lld ms passed that the boot clock did not see; "
		    "I/O waits for the next heartbeat", (long long)(missing_ns / 1000000));
}

/* Says once when the lease has lapsed, and once when it is back. */
static void beat_log_lease(struct lockd *ld)
{
	struct heartbeat *hb = &ld->hb;
	bool valid = gate_is_valid(ld->gate);

	if (!valid && !hb->lapse_logged && gate_until_ns(ld->gate))
		log_warning(ld->p.env, ld->datastore, "the lease has lapsed: no heartbeat "
			    "succeeded for %u ms; I/O waits", ld->p.timing.lease_ms);
	else if (valid && hb->lapse_logged)
		log_info(ld->p.env, ld->datastore, "the lease is valid again; I/O goes on");
	hb->lapse_logged = !valid && (hb->lapse_logged || gate_until_ns(ld->gate));
}

/* A failing device fails many commands: one line at once, then one a while. */
static void beat_log_faults(struct lockd *ld)
{
	static const char *const names[] = {
		[BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_FLUSH] = "flush",
		[BLK_DISCARD] = "discard", [BLK_ZERO] = "zeroing", [BLK_CAW] = "compare-and-write",
	};
	struct heartbeat *hb = &ld->hb;
	struct gate_fault f;

	if (env_now_ns(ld->p.env) < hb->fault_log_ns || !gate_take_fault(ld->gate, &f))
		return;
	hb->fault_log_ns = env_now_ns(ld->p.env) + FAULT_LOG_NS;
	log_error(ld->p.env, ld->datastore, "commands failed by the device: %llu, first a %s of %llu "
		  "bytes at 0x%llx: %s; what needed them got an error: see to the device (its path, "
		  "its size, the space below it, the kernel log)", (unsigned long long)f.count,
		  names[f.op], (unsigned long long)f.len, (unsigned long long)f.off,
		  strerror(-f.err));
}

/* @image is on disk: what it published is published, and its lease runs from its own t0. */
static void beat_succeeded(struct lockd *ld, const struct beat_image *image)
{
	struct heartbeat *hb = &ld->hb;

	hb->disk = *image;
	hb->doubt = false;
	hb->garbage_ns = 0;
	/* Attempts that expected an older image can never land any more. */
	memset(hb->unclear, 0, sizeof(hb->unclear));
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->self.sequence = hb->disk.sequence;
	if (hb->disk.change > hb->published)
		hb->published = hb->disk.change;
	/* An older image than the last attempt may lack news. */
	if (hb->disk.sequence != hb->sequence)
		ld->beat_now = true;
	env_cond_broadcast(ld->p.env, &ld->changed);
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

/* Only after beat_check_gap(): what was issued before a gap gives no lease (t0 is 0). */
static void beat_renew(struct lockd *ld, uint64_t t0_ns)
{
	if (t0_ns)
		gate_renew(ld->gate, t0_ns + ld->p.timing.lease_ms * NSEC_PER_MSEC);
	beat_log_lease(ld);
}

/* Whether @s is our own block at a sequence that we have sent. */
static bool beat_is_ours(struct lockd *ld, const struct slot *s)
{
	uint32_t generation;

	env_mutex_lock(ld->p.env, &ld->mutex);
	generation = ld->self.generation;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return s->generation == generation && s->sequence <= ld->hb.sequence &&
	       s->pid == ld->p.pid && s->pid_start == ld->p.pid_start &&
	       (s->state == SLOT_LIVE || s->state == SLOT_JOINING) &&
	       memcmp(s->host_id, ld->p.host_id, sizeof(s->host_id)) == 0 &&
	       memcmp(s->boot_id, ld->p.boot_id, sizeof(s->boot_id)) == 0;
}

static int beat_lost_to(struct lockd *ld, const struct slot *s)
{
	char cause[200];

	if (s->state == SLOT_RECOVERING)
		snprintf(cause, sizeof(cause), "host slot %u took it over after our heartbeats "
			 "stopped", s->recoverer);
	else
		snprintf(cause, sizeof(cause), "it is %s at generation %u now, ours was %u",
			 slot_state_name(s->state), s->generation, ld->self.generation);
	ld->hb.taken = true;
	fence_unregister(ld);
	heartbeat_lost(ld, cause);
	return -ESTALE;
}

/* The slot holds neither an image of ours nor the old one.  @image: the sector found. */
static int beat_judge_stranger(struct lockd *ld, const uint8_t *image)
{
	struct heartbeat *hb = &ld->hb;
	uint64_t addr = slot_addr(ld, ld->self.index), now = env_now_ns(ld->p.env);
	struct slot s;
	char why[200];

	if (slot_decode(image, ld->p.volume, addr, ld->self.index, &s, why, sizeof(why)) != 0) {
		/* Damage is nobody's claim: stall, unless it stays. */
		if (!hb->garbage_ns) {
			hb->garbage_ns = now;
			log_warning(ld->p.env, ld->datastore, "cannot believe our own slot: %s",
				    why);
		}
		if (now - hb->garbage_ns <= suspicion_ns(ld))
			return -EAGAIN;
		heartbeat_lost(ld, "its block is damaged; run fsck.lunfs");
		return -ESTALE;
	}
	if (!beat_is_ours(ld, &s))
		return beat_lost_to(ld, &s);
	/* So old that we have forgotten when we sent it: ours, but no lease comes from it. */
	memcpy(hb->disk.bytes, image, META_SECTOR_SIZE);
	hb->disk.sequence = s.sequence;
	hb->disk.t0_ns = 0;
	hb->disk.change = 0;
	hb->doubt = false;
	return -EAGAIN;
}

/*
 * After an unclear attempt: what does the slot hold?
 * Return: 0 an image of ours, so the slot is ours; -EAGAIN try a new image, or look again
 * (hb->doubt); -ESTALE lost.
 */
static int beat_read_back(struct lockd *ld)
{
	struct heartbeat *hb = &ld->hb;
	struct beat_image landed;
	int err;

	hb->doubt = true;
	err = blkdev_read(ld->p.hb_dev, slot_addr(ld, ld->self.index), hb->found,
			  ld->p.hb_dev->info.sector);
	if (err)
		return -EAGAIN;
	for (unsigned int i = 0; i < BEAT_UNCLEAR_MAX; i++) {
		if (!hb->unclear[i].sequence ||
		    memcmp(hb->unclear[i].bytes, hb->found, META_SECTOR_SIZE) != 0)
			continue;
		beat_check_gap(ld);
		landed = hb->unclear[i];
		beat_succeeded(ld, &landed);
		beat_renew(ld, landed.t0_ns);
		return 0;
	}
	if (memcmp(hb->disk.bytes, hb->found, META_SECTOR_SIZE) != 0)
		return beat_judge_stranger(ld, hb->found);
	hb->doubt = false;
	hb->garbage_ns = 0;
	return -EAGAIN;
}

/* Builds the next image of our slot in hb->attempt and the two buffers. */
static void beat_prepare(struct lockd *ld, uint64_t t0_ns)
{
	struct heartbeat *hb = &ld->hb;
	uint32_t sector = ld->p.hb_dev->info.sector;
	struct slot s;

	env_mutex_lock(ld->p.env, &ld->mutex);
	s = ld->self;
	hb->attempt.change = hb->change;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	s.sequence = ++hb->sequence;
	hb->attempt.sequence = s.sequence;
	hb->attempt.t0_ns = t0_ns;
	slot_encode(&s, ld->p.volume, slot_addr(ld, s.index), hb->desired, sector);
	memcpy(hb->attempt.bytes, hb->desired, META_SECTOR_SIZE);
	memset(hb->expected, 0, sector);
	memcpy(hb->expected, hb->disk.bytes, META_SECTOR_SIZE);
}

/* We are not registered any more: again, with the gate closed and nothing under way. */
static void beat_register_again(struct lockd *ld)
{
	gate_close(ld->gate);
	ld->hb.doubt = true;	/* the slot is read before anything else */
	if (gate_drain(ld->gate, env_now_ns(ld->p.env) + beat_ns(ld)) != 0 ||
	    fence_register(ld) != 0)
		log_warning(ld->p.env, ld->datastore, "reservation conflict and the key cannot be "
			    "registered again yet; I/O waits");
}

/* Return: 0 renewed; -EAGAIN not; -ESTALE lost. */
static int beat_once(struct lockd *ld, uint64_t t0_ns)
{
	struct heartbeat *hb = &ld->hb;
	int err;

	beat_log_lease(ld);
	beat_log_faults(ld);
	if (gate_take_conflict(ld->gate) && ld->rung == FENCE_RESERVATION)
		beat_register_again(ld);
	if (hb->doubt)
		return beat_read_back(ld);
	beat_prepare(ld, t0_ns);
	err = blkdev_caw(ld->p.hb_dev, slot_addr(ld, ld->self.index), hb->expected, hb->desired);
	if (!err) {
		beat_check_gap(ld);
		beat_succeeded(ld, &hb->attempt);
		beat_renew(ld, MUTANT("lease-from-answer") ? env_now_ns(ld->p.env) :
			   hb->attempt.t0_ns);
		return 0;
	}
	if (err == -EBUSY)
		return -EAGAIN;
	if (err == -EBADE && ld->rung == FENCE_RESERVATION) {
		beat_register_again(ld);
		return beat_read_back(ld);
	}
	/* A miscompare too may be an echo: a command that a lower layer sent twice. */
	hb->unclear[hb->unclear_next++ % BEAT_UNCLEAR_MAX] = hb->attempt;
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->caw_unclear++;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	return beat_read_back(ld);
}

/*
 * We gave up by ourselves and the slot is still ours: once nothing of ours is under way any
 * more, say so in a last image.  Whoever recovers us need not kill this process then, which
 * may serve other datastores.
 */
static void beat_declare_drained(struct lockd *ld)
{
	struct heartbeat *hb = &ld->hb;
	int err;

	if (gate_drain(ld->gate, env_now_ns(ld->p.env) + suspicion_ns(ld)) != 0 ||
	    blkdev_drain(ld->p.dev) != 0)
		return;
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->self.flags |= SLOT_DRAINED;
	env_mutex_unlock(ld->p.env, &ld->mutex);
	for (unsigned int i = 0; i < BEAT_UNCLEAR_MAX; i++) {
		if (hb->doubt && beat_read_back(ld) == -ESTALE)
			return;
		beat_prepare(ld, 0);
		err = blkdev_caw(ld->p.hb_dev, slot_addr(ld, ld->self.index), hb->expected,
				 hb->desired);
		if (!err)
			return;
		hb->unclear[hb->unclear_next++ % BEAT_UNCLEAR_MAX] = hb->attempt;
		if (beat_read_back(ld) == -ESTALE)
			return;
		env_sleep_until(ld->p.env, env_now_ns(ld->p.env) + beat_ns(ld) / 8);
	}
}

static void beat_thread(void *arg)
{
	struct lockd *ld = arg;
	struct env *env = ld->p.env;
	uint64_t next_ns = 0, t0_ns;
	int err;

	env_mutex_lock(env, &ld->mutex);
	while (!ld->beat_stopping && !ld->lost) {
		if (!ld->beat_now && env_now_ns(env) < next_ns) {
			env_cond_wait(env, &ld->hb.wake, &ld->mutex, next_ns);
			continue;
		}
		ld->beat_now = false;
		env_mutex_unlock(env, &ld->mutex);
		/* R2: the lease runs from before everything, may_beat() included. */
		beat_check_gap(ld);
		t0_ns = env_now_ns(env);
		if (ld->p.may_beat && !ld->p.may_beat(ld->p.may_beat_arg))
			err = -EAGAIN;
		else
			err = beat_once(ld, t0_ns);
		next_ns = err ? env_now_ns(env) + beat_ns(ld) / 8 : t0_ns + beat_ns(ld);
		env_mutex_lock(env, &ld->mutex);
	}
	env_mutex_unlock(env, &ld->mutex);
	if (gate_has_failed(ld->gate) && !ld->hb.taken)
		beat_declare_drained(ld);
}

int heartbeat_start(struct lockd *ld, const uint8_t image[META_SECTOR_SIZE])
{
	struct heartbeat *hb = &ld->hb;
	int err;

	hb->expected = blkdev_alloc(META_BLOCK_SIZE);
	hb->desired = blkdev_alloc(META_BLOCK_SIZE);
	hb->found = blkdev_alloc(META_BLOCK_SIZE);
	if (!hb->expected || !hb->desired || !hb->found)
		return -ENOMEM;
	memcpy(hb->disk.bytes, image, META_SECTOR_SIZE);
	hb->sequence = ld->self.sequence;
	hb->disk.sequence = ld->self.sequence;
	err = env_thread_start(ld->p.env, "lunfs-beat", beat_thread, ld, &ld->beat_thread);
	if (err)
		ld->beat_thread = NULL;
	return err;
}

void heartbeat_stop(struct lockd *ld)
{
	if (ld->beat_thread) {
		env_mutex_lock(ld->p.env, &ld->mutex);
		ld->beat_stopping = true;
		env_cond_broadcast(ld->p.env, &ld->hb.wake);
		env_mutex_unlock(ld->p.env, &ld->mutex);
		env_thread_join(ld->p.env, ld->beat_thread);
		ld->beat_thread = NULL;
	}
}
