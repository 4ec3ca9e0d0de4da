/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks as this host holds them: taken from the LUN on first use, cached after the last
 * use, given up when another host wants them or after being idle.
 */
#ifndef LUNFS_LOCKD_LOCK_H
#define LUNFS_LOCKD_LOCK_H

#include "base/table.h"
#include "lockd/lockd.h"

/* Who is in the way, for messages. */
struct lock_holder {
	uint32_t slot;
	uint32_t generation;
	enum lock_mode mode;
	char	host_name[33];
	uint32_t pid;
	char	comm[25];
	uint64_t since;		/* realtime ns */
	uint64_t silent_ms;	/* age of its last heartbeat seen */
	uint64_t breakable_ms;	/* until death may be proven; UINT64_MAX while it lives */
	/* It has left the lock to this host, which may take it as if it were free; "": to nobody. */
	char	heir[33];
	bool	heir_is_us;
	/* LOCK_FREE only: whoever had it exclusively died with it and nobody has had it since. */
	bool	left;
	char	left_comm[25];		/* on whose behalf that was */
};

/* A host that shall have a lock next. */
struct lock_heir {
	uint32_t slot, generation;	/* generation 0: nobody */
};

enum lock_flags {
	LOCK_TRY	= 1 << 0,	/* do not wait: -EAGAIN if another host has it, in use or not */
	LOCK_OPEN	= 1 << 1,	/* use by an open: others get -EBUSY while it lasts */
};

/* For people: on whose behalf this host holds a lock. */
struct lock_user {
	uint32_t pid;			/* 0: nobody in particular */
	char	comm[25];
};

/* What a lock's record says at some time: whose it is, if it is exclusive. */
struct lock_claim {
	enum lock_mode mode;
	uint32_t owner, generation;	/* of LOCK_EXCLUSIVE */
	uint64_t sequence;
};

enum lock_state {
	LOCK_IDLE,
	LOCK_ACQUIRING,			/* one local thread reads or writes the record */
	LOCK_DROPPING,			/* the drop thread settles, forgets, writes the record */
};

/* Embedded in what it covers; zeroed and lock_init()ed by its owner.  Private to lockd. */
struct lock {
	struct table_node node;		/* in ld->locks, by addr, while known */
	bool	known;
	uint64_t addr;
	void	*owner;			/* the client's object */
	enum lock_mode mode;		/* that we hold on disk; LOCK_FREE: none */
	enum lock_mode target;		/* what a change under way makes of it */
	uint64_t sequence;		/* the record's, as last written by us; 0: not known */
	uint64_t since;			/* the record's */
	bool	alone;			/* nobody shared it then */
	struct lock_user recorded;	/* in the record */
	struct lock_user user;		/* the latest lock_set_user() */
	uint64_t forgotten_sequence;	/* record's sequence when we released; R4's exception */
	bool	unchanged;		/* since lock_unchanged() was last called */
	struct lock_claim found;	/* the record before we last took it */
	uint64_t strangers;		/* how often it was found changed by others then */
	unsigned int users[4];		/* by enum lock_mode: granted and not yet put */
	unsigned int opens[4];		/* of these, with LOCK_OPEN */
	unsigned int waiters;		/* local threads inside lock_get() and lock_evict() */
	enum lock_state state;
	struct seek *seeker;		/* the one waiter that negotiates with other hosts */
	bool	evict;			/* to be given up as soon as nobody uses it */
	int	drop_err;		/* why the last attempt at that failed */
	uint64_t retry_ns;		/* and when to try again */
	struct lock_heir heir;		/* whom it is left to when it is given up next */
	bool	deny;			/* refuse the wants for it once the record names the user */
	unsigned int wanted;		/* 1 << mode of what other hosts wait for */
	uint64_t yield_until_ns;	/* another host's turn: not asked for again before */
	uint64_t keep_until_ns;		/* lock_keep(): not less than shared before */
	bool	unclear;		/* last CAW's fate unknown: neither held nor free */
	uint64_t last_use_ns;
	struct list lru;		/* cached and unused, or to be dropped, or unclear */
};

/** lock_init() - @addr of the lock block; @owner is handed back by the client's forget(). */
void lock_init(struct lock *lock, uint64_t addr, void *owner);

/**
 * lock_set_user() - who is about to open @lock: other hosts that are refused see it.
 * Call before lock_get() with LOCK_OPEN; the latest call counts.  Costs no I/O.
 */
void lock_set_user(struct lockd *ld, struct lock *lock, uint32_t pid, const char *comm);

/**
 * lock_get() - grants @mode to one more user of this host.
 * @flags:  enum lock_flags.
 * @holder: if not NULL, filled in on -EBUSY and -EAGAIN when known.
 *
 * Local users do not exclude each other: the client's own locks do that.  A held mode that
 * suffices (exclusive suffices for everything; shared for shared) costs no I/O.  Otherwise
 * one read and one compare-and-write when free or stale; when another live host merely
 * caches it, publishes a want and waits (bounded, below 5 s while the holder lives); when the
 * holder is silent, waits out the lease and recovers that host first (R3).  After a change
 * of holder everything cached of the object has been forgotten before this returns.
 *
 * Two hosts whose users hold SHARED and wait for EXCLUSIVE at the same time keep each other
 * waiting until -EBUSY: put SHARED first, or use LOCK_TRY.
 * Context: blocks; not within a transaction handle, not from client callbacks.
 * Return: 0; -EBUSY in use by an open elsewhere; -EAGAIN (LOCK_TRY); -ESTALE our slot is
 * lost; -EUCLEAN no valid record; -EIO; -EHOSTDOWN the holder is dead but cannot be fenced
 * (logged with the way out).
 */
int lock_get(struct lockd *ld, struct lock *lock, enum lock_mode mode, unsigned int flags,
	     struct lock_holder *holder);

/** lock_put() - one user of @mode less; @flags as given to lock_get().  Never blocks. */
void lock_put(struct lockd *ld, struct lock *lock, enum lock_mode mode, unsigned int flags);

/** lock_held() - the mode this host holds on disk right now (may be dropped if unused). */
enum lock_mode lock_held(struct lockd *ld, struct lock *lock);

/**
 * lock_unchanged() - whether nobody else can have changed the object since this was last
 * asked (R4's exception); false the first time.  Only for a user of the lock.
 */
bool lock_unchanged(struct lockd *ld, struct lock *lock);

/**
 * lock_claims() - the record of @lock, of which the caller is a user.
 * @now:   as it is, by what this host has written last; its sequence 0: not known.
 * @found: as it was when this host took it from nobody, or from the dead.
 */
void lock_claims(struct lockd *ld, struct lock *lock, struct lock_claim *now,
		 struct lock_claim *found);

/**
 * lock_keep() - this host keeps @lock, of which the caller is a user, at least shared until
 * @until_ns, though nobody uses it any more and others want it: for what somebody has been told
 * under it, and believes until then without asking again.  A fraction of a margin at most, so
 * that it is over before anybody may take over from us.
 * Return: false another host waits for it already, and is not kept waiting for this.
 */
bool lock_keep(struct lockd *ld, struct lock *lock, uint64_t until_ns);

/**
 * lock_left() - the record of @lock as this host has made it last, holding it or giving it up.
 * Return: false it has not, or does not know.
 */
bool lock_left(struct lockd *ld, struct lock *lock, struct lock_claim *claim);

/**
 * lock_expect() - the record of @lock, which this host has not had since it is in memory, was at @sequence
 * and nobody a stranger then: found so it does not count for lock_strangers().
 * Return: false this host has had it, or is just taking it.
 */
bool lock_expect(struct lockd *ld, struct lock *lock, uint64_t sequence);

/** lock_strangers() - how often, since it is in memory, this host found that another may have had
 * @lock.  Only for a user of it. */
uint64_t lock_strangers(struct lockd *ld, struct lock *lock);

/**
 * lock_evict() - the owner wants to free the memory of an unused @lock: has it released on
 * disk (settle() and forget() run in the drop thread, one settle() for all that are evicted
 * at the time) and forgets it.  Nothing of lockd refers to @lock after success.  Costs no I/O
 * if lock_held() says LOCK_FREE.
 * Return: 0; -EBUSY in use after all; as settle() and the device.  Blocks.
 */
int lock_evict(struct lockd *ld, struct lock *lock);

/**
 * lock_set_heir() - when @lock, an exclusive one that is open here, is given up the next time, nobody
 * can take it but that host, and this one for another exclusive open, until lock_free_left() or a
 * death of this host.  An open of it here calls that off.
 */
void lock_set_heir(struct lockd *ld, struct lock *lock, const struct lock_heir *heir);

/**
 * lock_free_left() - @lock, if it is left to an heir that has not taken it, becomes free for all.
 * Return: 0, also if there is nothing to do; as the device.  Blocks.
 */
int lock_free_left(struct lockd *ld, struct lock *lock);

/**
 * lock_show() - reads the record at @addr and says who holds it, without taking anything.
 * Works for rescue mounts and tools too (see lock_show_dev()).
 * Return: 0 (holder->mode LOCK_FREE when nobody or a stale owner has it); -EUCLEAN; -EIO.
 */
int lock_show(struct lockd *ld, uint64_t addr, struct lock_holder *holder);

/** lock_read() - what the record at @addr says now, without taking anything.  As lock_show(). */
int lock_read(struct lockd *ld, uint64_t addr, struct lock_claim *claim);

/**
 * lock_show_dev() - lock_show() without a slot of our own: reads @dev only.  Ages are not
 * known (0, UINT64_MAX).
 */
int lock_show_dev(struct blkdev *dev, const uint8_t volume[16], uint64_t slots_addr,
		  uint32_t slot_count, uint64_t addr, struct lock_holder *holder);

/**
 * lock_break() - gives up on behalf of a holder whose death is proven, by recovering its
 * whole slot (R3); a stale lock is freed at once.
 * Return: 0; -EBUSY the holder lives (*@holder says since when it is silent); -EHOSTDOWN
 * death cannot be proven.
 */
int lock_break(struct lockd *ld, uint64_t addr, struct lock_holder *holder);

#endif
