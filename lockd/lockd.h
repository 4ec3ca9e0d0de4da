/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One host's membership in one datastore: slot, lease, heartbeat, peers, fencing, recovery.
 *
 * docs/LOCKING.md is the protocol.  lockd knows nothing of files: it guards lock records at
 * addresses, and its client (fs/) hands in how to settle, forget and replay.
 */
#ifndef LUNFS_LOCKD_LOCKD_H
#define LUNFS_LOCKD_LOCKD_H

#include <stdatomic.h>

#include "block/blkdev.h"
#include "lockd/lockrec.h"

struct lockd;
struct lock;

/* Timing, in the superblock, the same for every host of the volume. */
struct lockd_timing {
	uint32_t beat_ms;	/* a heartbeat is renewed that often; default 1000 */
	uint32_t lease_ms;	/* valid that long from before the renewal; default 5000 */
	uint32_t margin_ms;	/* clock drift and scheduling, added before suspicion; default 1000 */
};

/* How well a dead host can be kept from writing; design section 5, "Fencing ladder". */
enum fence_rung {
	FENCE_RESERVATION,	/* A: persistent reservation, preempt and abort, verified */
	FENCE_KILL,		/* A, one machine: SIGKILL, confirmed dead, I/O ended */
	FENCE_WAIT,		/* B: bound of a command's life, and a watchdog */
	FENCE_UNSAFE,		/* C: unsafe if a host is suspended */
};

/* What lockd asks of its client.  All may block on the device; none may call lock_get(). */
struct lockd_client {
	/*
	 * Commit and write home everything that is dirty, flush, move the journal's tail past
	 * it (R4).  Called before locks are given up.  -EIO/-ESTALE: they are not given up.
	 */
	int (*settle)(void *arg);
	/* Discard what is cached of @lock's object; called after settle(), nobody uses it. */
	void (*forget)(void *arg, struct lock *lock);
	/*
	 * Replay the journal of dead slot @slot and flush, idempotent; writes through @dev.
	 * Called while we own its recovery, or for our own slot while joining.
	 */
	int (*replay)(void *arg, struct blkdev *dev, uint32_t slot);
	/* After replay, before the generation is retired: adopt the slot's orphans. */
	int (*adopt)(void *arg, uint32_t slot);
	/* Our slot is gone: from now on every I/O fails with -ESTALE.  Must not block. */
	void (*lost)(void *arg);
};

/*
 * Among daemons of one machine: end the process a slot names, and confirm that it is dead
 * and its I/O ended.  Handed in because it needs privilege.
 * Return: 0 dead for certain; -EPERM may not be killed; -ETIMEDOUT it does not die.
 */
typedef int (*lockd_kill_fn)(void *arg, const struct slot *victim);

struct lockd_params {
	struct env	*env;
	struct blkdev	*dev;		/* data path, raw; borrowed */
	struct blkdev	*hb_dev;	/* heartbeat's own handle; borrowed */
	const char	*datastore;	/* label, for log lines; borrowed */
	uint8_t		volume[16];
	uint64_t	slots_addr;	/* slot i lies at slots_addr + i * 4096 */
	uint32_t	slot_count;
	struct lockd_timing timing;
	uint8_t		host_id[16];
	uint8_t		boot_id[16];
	char		host_name[33];
	uint32_t	pid;
	uint64_t	pid_start;
	/*
	 * Rung B: something ends this host if it is frozen, margin / 2 after its lease's end at the
	 * latest, or watchdog_ms later; not more than a lease later, or it is no rung B.
	 * @guard: the word that it watches (gate_set_guard()); NULL: it needs none.
	 */
	bool		watchdog;
	uint32_t	watchdog_ms;
	_Atomic uint64_t *guard;
	bool		force_unsafe;	/* allow rung C */
	bool		own_slot_is_dead; /* we hold the machine-wide lock file: no older self runs */
	lockd_kill_fn	kill;		/* NULL: cannot */
	void		*kill_arg;
	/* Optional: false while this host must not renew (its privileged half is stopped). */
	bool		(*may_beat)(void *arg);
	void		*may_beat_arg;
	const struct lockd_client *client;
	void		*client_arg;
};

/**
 * lockd_join() - takes a slot, recovers our own older incarnation if there is one, starts
 * the heartbeat.  Blocks up to lease + margin + replay.
 * @why: on failure, one line: object, cause, way out.
 *
 * The client's replay() is called for the slot taken (and for nobody else yet).
 * Return: 0; -EUSERS all slots taken by live hosts; -EALREADY this host (host_id) is
 * attached by another live process; -EOPNOTSUPP no rung that is safe, or the CAW primitive
 * is missing; -EIO; -EUCLEAN.
 */
int lockd_join(const struct lockd_params *p, struct lockd **out, char *why, size_t why_size);

/**
 * lockd_leave() - settles, retires our generation (so that all our locks are stale at once)
 * and frees everything.  No lock may be in use.
 * Return: 0; an error if the slot could not be freed cleanly (it is dead to others then,
 * and they recover it); @ld is gone in every case.
 */
int lockd_leave(struct lockd *ld);

/** lockd_dev() - the data device behind the lease gate (R2): the only one fs/ may use. */
struct blkdev *lockd_dev(struct lockd *ld);

/**
 * lockd_port() - the data device once more for one reactor: polled, behind the same lease.
 * @lower: a handle of the device of its own, after blkdev_set_polled(); borrowed.
 * @out:   to be closed, by the reactor, before lockd_leave().
 * Return: 0; -ENOTSUP this device needs a registration for each path: use lockd_dev(); -ENOMEM.
 */
int lockd_port(struct lockd *ld, struct blkdev *lower, struct blkdev **out);

uint32_t lockd_slot(const struct lockd *ld);
uint32_t lockd_generation(const struct lockd *ld);

/** lockd_has_lease() - whether the lease is valid at this moment. */
bool lockd_has_lease(struct lockd *ld);

/**
 * lockd_wait_lease() - waits until it is: what was answered from memory before, under locks of
 * ours, is so then (R2; lockd_dev() does this for what it reads).
 * Return: 0; -ESTALE our slot is lost.  Blocks.
 */
int lockd_wait_lease(struct lockd *ld);

/** lockd_lost() - whether our slot is gone for good. */
bool lockd_lost(const struct lockd *ld);

/** lockd_fail() - gives the slot up on the spot: every I/O fails from now on (R7: a host
 * that cannot flush its journal fences itself).  @cause for the log. */
void lockd_fail(struct lockd *ld, const char *cause);

/* What `lunfs status` and `lunfs hosts` show. */
struct lockd_peer {
	struct slot slot;
	bool	valid;			/* the block could be read and believed */
	bool	self;
	uint64_t silent_ms;		/* since its sequence last changed, by our clock */
	uint64_t breakable_ms;		/* until it may be recovered; 0 now, UINT64_MAX free/self */
};

struct lockd_status {
	uint32_t slot, generation;
	enum fence_rung rung;
	bool	lease_valid, lost;
	uint64_t lease_age_ms, lease_ms;
	uint64_t stalls;		/* times that I/O had to wait for the lease */
	uint64_t caw_retries, caw_unclear;
	uint64_t takeovers;		/* slots that we recovered */
	uint64_t locks_cached, lock_acquires, lock_releases, lock_waits;
};

void lockd_status(struct lockd *ld, struct lockd_status *st);

/* Rung A: what the device says of reservation and keys. */
struct lockd_reservation {
	bool	used;			/* false: another rung, the rest means nothing */
	int	err;			/* why it could not be read */
	bool	held;			/* our type is in force */
	uint64_t own_key;
	unsigned int key_count;		/* different ones; each may be registered by many paths */
	uint64_t keys[128];
};

/** lockd_reservation() - asks the device now.  Blocks as long as the heartbeat's handle may. */
void lockd_reservation(struct lockd *ld, struct lockd_reservation *r);

/**
 * lockd_locks_taken() - how many locks this host has taken on disk so far.
 *
 * When it has changed, records were written that a power cut may still take back: whoever
 * commits something under them flushes the device first.  Any thread, without waiting.
 */
uint64_t lockd_locks_taken(const struct lockd *ld);

/** lockd_peers() - @peers has room for slot_count entries; returns slot_count. */
uint32_t lockd_peers(struct lockd *ld, struct lockd_peer *peers);

/** fence_tool_key() - a reservation key of no host, for tools that have to write. */
uint64_t fence_tool_key(uint32_t nonce);

const char *fence_rung_name(enum fence_rung rung);	/* "A (reservation)", … */

#endif
