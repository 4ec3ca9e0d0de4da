/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk goes from one host to another under its running guest (live migration).
 *
 *   here:   disks_handover() ──rings stop──► settled, lock released (R4) ──rings start again──► taken back,
 *                                                                          if nobody else has had it
 *   there:  attach incoming=S ──rings start──► waits for the lock, S seconds at most ──► open
 *
 * Invariant: at most one host has the lock, and who has it sees all that was answered before.  The lock
 * is left to the other host once everything is at home and flushed, and only then: its record names both,
 * and one of them takes it by compare-and-write, nobody else.  A third host cannot come in between, and
 * a crash of either at any step leaves it with the one or with the other; what is left to a host that
 * never comes can be taken back, is free when the front end is gone, and anybody's when we are dead.
 * Rings that are stopped have nothing under way: no request meets a disk that is given up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "daemon/disks.h"
#include "fs/inode.h"

#define LOOKS		200u	/* without an attempt to have it */
#define AGAIN_NS	(25 * NSEC_PER_MSEC)	/* between looks at the lock: a guest stands still */

/* ---- giving ---- */

static int find_host(struct store *s, const char *host, struct lock_heir *heir, char *why,
		     size_t why_size)
{
	struct lockd_peer *peers = calloc(SLOT_COUNT_MAX, sizeof(*peers));
	uint32_t count;
	int err = -ENOENT;

	if (!peers)
		return -ENOMEM;
	count = s->fs->lockd ? lockd_peers(s->fs->lockd, peers) : 0;
	for (uint32_t i = 0; i < count && err == -ENOENT; i++) {
		const struct slot *slot = &peers[i].slot;

		if (!peers[i].valid || slot->state != SLOT_LIVE ||
		    strncmp(slot->host_name, host, sizeof(slot->host_name)))
			continue;
		err = peers[i].self ? -EINVAL : 0;
		*heir = (struct lock_heir){ slot->index, slot->generation };
	}
	free(peers);
	if (err == -ENOENT)
		return text_refuse(err, why, why_size, "no host \"%.40s\" has %.100s attached; \"lunfs hosts "
				   "%.100s\" lists those that have", host, s->fs->label, s->fs->label);
	if (err)
		return text_refuse(err, why, why_size, "\"%.40s\" is this host", host);
	return 0;
}

struct stopped_call {
	struct attachment *a;
	bool done;
};

/* In its reactor: no start comes in between. */
static void if_stopped(void *arg)
{
	struct stopped_call *c = arg;

	if (vhu_is_stopped(c->a->vhu))
		disks_post_event(c->a, ATTACHMENT_STOPPED);
}

int disks_handover(struct attachment *a, const char *host, char *why, size_t why_size)
{
	struct stopped_call c = { .a = a };
	struct lock_heir heir;
	int err = 0;

	if (host && strlen(host) >= sizeof(a->handover))
		return text_refuse(-EINVAL, why, why_size, "a host's name has at most %zu bytes",
				   sizeof(a->handover) - 1);
	if (!a->vhu)
		return text_refuse(-EINVAL, why, why_size, "%.300s: not served by vhost-user-blk: only a "
				   "guest's disk is handed over", a->object);
	if (host)
		err = find_host(a->store, host, &heir, why, why_size);
	if (err)
		return err;
	pthread_mutex_lock(&a->all->mutex);
	if (host && !a->connected)
		err = -ENOTCONN;
	else
		snprintf(a->handover, sizeof(a->handover), "%s", host ? host : "");
	pthread_mutex_unlock(&a->all->mutex);
	if (err)
		return text_refuse(err, why, why_size, "%.300s: no guest has it, so it is free: attach it "
				   "on %.40s", a->object, host);
	if (host)
		log_info(env_posix(), a->object, "is handed over to %s as soon as its guest stops", host);
	reactor_call_sync(a->all->reactors[a->reactor], if_stopped, &c);
	return 0;
}

bool disks_is_handed_over(struct attachment *a, char host[33])
{
	pthread_mutex_lock(&a->all->mutex);
	memcpy(host, a->handover, sizeof(a->handover));
	pthread_mutex_unlock(&a->all->mutex);
	return host[0];
}

void disks_leave_nothing(struct attachment *a)
{
	int err;

	if (!a->left)
		return;
	err = disk_free_left(a->disk);
	if (err)
		log_warning(env_posix(), a->object, "was left to another host that has not taken it, and "
			    "cannot be released: %s; others can have it once this daemon is restarted",
			    strerror(-err));
	a->left = false;
}

/* Rings stop for many reasons; only for a hand-over is the lock given up. */
void disks_leave(struct attachment *a)
{
	struct lock_heir heir = { 0 };
	char host[33], why[300] = "";
	int err;

	if (a->all->stopping)
		return;
	if (!disks_is_handed_over(a, host)) {
		disks_leave_nothing(a);
		return;
	}
	/* Asked for again, perhaps for another host: from the beginning, unless the first one has it. */
	if (a->left && disks_open(a))
		return;
	err = find_host(a->store, host, &heir, why, sizeof(why));
	if (!err)
		err = disk_leave_to(a->disk, &heir);
	if (err == -ENOMEDIUM)
		return;		/* its guest has never begun: nobody has it */
	if (err) {
		log_error(env_posix(), a->object, "is not handed over to %s, and stays here: %s; once that is "
			  "mended ask for it again", host, why[0] ? why : strerror(-err));
		return;
	}
	err = disk_shut(a->disk);
	if (err)
		log_error(env_posix(), a->object, "handed over, but what was written last may be lost: %s",
			  strerror(-err));
	else
		log_info(env_posix(), a->object, "its guest has stopped: %s can have it", host);
	disk_let_go(a->disk);
	a->left = true;
	disks_claim_set(a);
}

/* ---- receiving ---- */

bool disks_waits_for_lock(struct attachment *a, int err)
{
	uint64_t now = env_now_ns(env_posix());
	bool waits = false, begins = false;

	pthread_mutex_lock(&a->all->mutex);
	if (err != -EBUSY) {
		a->incoming_until_ns = 0;
		/* It has come, or never will: from now on it is a disk like others. */
		if (!err)
			a->options.incoming_s = 0;
	} else if (a->options.incoming_s && a->connected && !a->detaching && !a->all->stopping) {
		begins = !a->incoming_until_ns;
		if (begins)
			a->incoming_until_ns = now + a->options.incoming_s * NSEC_PER_SEC;
		waits = now < a->incoming_until_ns;
	}
	pthread_mutex_unlock(&a->all->mutex);
	if (begins)
		log_info(env_posix(), a->object, "waits for it to be handed over, for %u s at most",
			 a->options.incoming_s);
	if (waits)
		reactor_post(a->all->reactors[a->reactor], &a->again_call);
	return waits;
}

/* A look costs a read; an attempt, now and then, a line in the log besides. */
bool disks_is_held(struct attachment *a)
{
	struct lock_holder h = { .mode = LOCK_FREE };

	if (!a->incoming_until_ns || a->looks++ % LOOKS == LOOKS - 1)
		return false;
	return !lock_show(a->store->fs->lockd, inode_lock_addr(disk_id(a->disk)), &h) &&
	       h.mode == LOCK_EXCLUSIVE && !h.heir_is_us && h.breakable_ms == UINT64_MAX;
}

static void again(struct reactor_timer *t)
{
	disks_post_event(container_of(t, struct attachment, again), ATTACHMENT_START);
}

static void again_later(struct reactor_call *call)
{
	struct attachment *a = container_of(call, struct attachment, again_call);
	struct reactor *r = a->all->reactors[a->reactor];

	reactor_timer_set(r, &a->again, reactor_now_ns(r) + AGAIN_NS);
}

void disks_handover_init(struct attachment *a)
{
	a->again.fn = again;
	a->again_call.fn = again_later;
}
