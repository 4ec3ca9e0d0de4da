/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of lockd/ share.  docs/LOCKING.md tells the protocol. */
#ifndef LUNFS_LOCKD_INTERNAL_H
#define LUNFS_LOCKD_INTERNAL_H

#include "base/mutant.h"
#include "lockd/gate.h"
#include "lockd/lock.h"
#include "lockd/lockd.h"

/* What we last saw of a slot, and since when it has not changed. */
struct peer {
	struct slot slot;
	bool	valid;
	bool	moved;		/* its sequence has changed since we first saw it: it lives */
	uint64_t seen_ns;	/* when its sequence was last seen to change, our clock */
	uint64_t observed_ns;	/* time since then in which our own I/O succeeded (R3a) */
	uint64_t last_scan_ns;	/* observed time runs from here; 0: our last scan failed */
};

/* An image of our slot: on disk, or perhaps on its way there. */
struct beat_image {
	uint8_t	bytes[META_SECTOR_SIZE];
	uint64_t sequence;
	uint64_t t0_ns;		/* just before its compare-and-write was issued; 0: no lease */
	uint64_t change;	/* the newest heartbeat.change that it publishes */
};

#define BEAT_UNCLEAR_MAX	8

/* heartbeat.c's.  Only the heartbeat thread touches what is not marked "mutex". */
struct heartbeat {
	struct env_cond wake;		/* mutex: beat_now, stopping, lost */
	uint64_t change, published;	/* mutex: see heartbeat_publish_wait() */
	uint8_t *expected, *desired, *found;	/* I/O buffers, one sector each */
	struct beat_image disk;		/* what lies on disk as far as we know */
	struct beat_image attempt;
	struct beat_image unclear[BEAT_UNCLEAR_MAX];	/* may land, or have landed, since */
	unsigned int unclear_next;
	bool	taken;			/* the slot is another's */
	bool	doubt;			/* an unclear attempt could not be read back yet */
	uint64_t sequence;		/* the newest attempt's */
	uint64_t boot_ns, real_ns;	/* both clocks at the last look */
	uint64_t garbage_ns;		/* since when our slot cannot be decoded; 0: it can */
	bool	lapse_logged;
	uint64_t fault_log_ns;	/* no line about faults of the device before that */
};

/* recover.c's, for each slot; under mutex. */
struct recovery {
	uint64_t due_ns;	/* after a random delay, so that hosts do not all race; 0: none */
	uint64_t retry_ns;	/* not again before: the last try failed */
	uint64_t backoff_ns;
	int	err;		/* how it failed */
	bool	urgent;		/* somebody waits: without the delay */
};

/* A want of ours or of a peer, and since when we know of it. */
struct want {
	struct slot_want w;	/* addr 0: none */
	uint64_t since_ns;
	bool	denied;		/* ours: a holder refused it */
	uint32_t denier;	/* its slot */
	bool	examined;		/* a peer's: the record was checked for a stray of ours */
};

/* cache.c's: set up by cache_start(). */
struct lock_cache {
	uint32_t slot, generation;	/* our own, for use without the mutex */
	struct env_cond wake;	/* for the drop thread: drops, unclear, stray, stopping */
	struct table locks;	/* struct lock by address */
	struct list lru;	/* held and unused, least recently used first */
	struct list drops;	/* to be looked at by the drop thread at once */
	struct list unclear;	/* not used, but the record may name us */
	size_t	held_max;	/* more locks cached than that: the oldest are dropped */
	unsigned int seekers;	/* local threads waiting for other hosts */
	uint64_t often_until_ns;	/* scan often until then: somebody wanted a lock of ours */
	uint64_t retry_ns;	/* settle() or a release failed: not again before */
	bool	settle_failed;	/* and that was logged */
	bool	running, stopping;
	struct want wants[SLOT_WANTS];	/* beside ld->self.wants */
	struct want peer_wants[SLOT_COUNT_MAX][SLOT_WANTS];
	struct lock stray;	/* an address whose record may name us though no lock here does */
	struct env_thread *drop_thread;
};

struct lockd {
	struct lockd_params p;
	char	datastore[80];
	enum fence_rung rung;
	struct gate *gate;	/* our lease; the gated device */

	struct env_mutex mutex;	/* everything below; a leaf except for the gate's own */
	struct env_cond changed;	/* peers, wants, denials, lock states, stopping */

	/* heartbeat.c: our slot as last written by us, and what the next beat publishes. */
	struct slot self;
	bool	beat_now;	/* publish at once: a want or a denial changed */
	bool	lost, stopping;	/* stopping: recovery and observation end */
	bool	beat_stopping;
	bool	member;		/* joined: the cache runs, the client hears of a loss */
	struct heartbeat hb;
	struct env_thread *beat_thread;

	/* observe.c */
	struct peer peers[SLOT_COUNT_MAX];
	bool	scan_often;	/* somebody waits for locks: look every beat / 4 */
	uint8_t	*scan_buf;	/* the slot region */
	struct env_thread *observe_thread;

	/* lock.c, cache.c: known locks by address; all states under mutex. */
	struct lock_cache cache;
	_Atomic uint64_t locks_taken;	/* on disk */
	uint64_t caw_retries, caw_unclear, takeovers, lock_acquires, lock_releases, lock_waits;

	/* recover.c: one recovery at a time on this host, in one thread. */
	bool	recovering;
	struct recovery recovery[SLOT_COUNT_MAX];
	struct env_thread *recover_thread;

	/* fence.c */
	uint64_t hb_key;	/* what hb_dev is registered with, 0: nothing */
};

/* Where slot @index lies. */
static inline uint64_t slot_addr(const struct lockd *ld, uint32_t index)
{
	return ld->p.slots_addr + (uint64_t)index * META_BLOCK_SIZE;
}

/* ---- host.c / heartbeat.c / observe.c / recover.c, used by lock.c and cache.c ---- */

static inline uint64_t beat_ns(const struct lockd *ld)
{
	return ld->p.timing.beat_ms * NSEC_PER_MSEC;
}

/* R3a: a peer silent for longer than this is suspected. */
static inline uint64_t suspicion_ns(const struct lockd *ld)
{
	uint32_t margin_ms = MUTANT("suspect-at-lease") ? 0 : ld->p.timing.margin_ms;

	return ((uint64_t)ld->p.timing.lease_ms + margin_ms) * NSEC_PER_MSEC;
}

/** slot_name() - "ds1: slot 3 (alpha)", the object of log lines. */
const char *slot_name(const struct lockd *ld, const struct slot *s, char buf[160]);

/** slot_read_image() - slot_read() that also hands out the sector, to be compared later. */
int slot_read_image(struct lockd *ld, struct blkdev *dev, uint32_t index, struct slot *s,
		    uint8_t image[META_SECTOR_SIZE]);

/** slot_read() - reads and decodes one slot now, through @dev.  Blocks. */
int slot_read(struct lockd *ld, struct blkdev *dev, uint32_t index, struct slot *s);

/** heartbeat_publish() - the next beat comes at once.  mutex held. */
void heartbeat_publish(struct lockd *ld);

/**
 * heartbeat_publish_wait() - publishes what the caller changed in ld->self and waits until it
 * is on disk.  mutex held; blocks.  Return: 0; -ESTALE the slot is lost.
 */
int heartbeat_publish_wait(struct lockd *ld);

/** heartbeat_start() - our slot as just claimed: @image is on disk, its sequence in ld->self. */
int heartbeat_start(struct lockd *ld, const uint8_t image[META_SECTOR_SIZE]);
/** heartbeat_stop() - no beat is under way afterwards; harmless if it never started. */
void heartbeat_stop(struct lockd *ld);
/** heartbeat_lost() - the slot is gone, or given up: the gate fails, the client hears of it. */
void heartbeat_lost(struct lockd *ld, const char *cause);

/** observe_scan() - reads the slot region once.  Blocks; one caller at a time. */
int observe_scan(struct lockd *ld);
int observe_start(struct lockd *ld);
/** slot_is_retired() - R5: whether @s shows that @generation of its slot is retired. */
bool slot_is_retired(const struct slot *s, uint32_t generation);

int recover_start(struct lockd *ld);

/**
 * observe_owner_is_stale() - R5: whether (slot, generation), named by the lock record at @addr, is
 * retired, by reading its slot block now, after the lock block was read.
 * Return: 1 stale; 0 not; -EUCLEAN the slot has not been at that generation yet, or cannot be believed
 * (logged); the device's.  Blocks; mutex not held.
 */
int observe_owner_is_stale(struct lockd *ld, uint64_t addr, uint32_t slot, uint32_t generation);

/**
 * observe_silent() - whether @slot at @generation has been silent long enough to be
 * suspected (R3a).  @silent_ms, @breakable_ms may be NULL.  mutex held.
 */
bool observe_silent(struct lockd *ld, uint32_t slot, uint32_t generation,
		    uint64_t *silent_ms, uint64_t *breakable_ms);

/**
 * recover_slot() - claims, fences, replays and retires (slot, generation) if it is
 * suspected; if somebody else does, waits for that.
 * Return: 0 the generation is retired; -EAGAIN it lives (again) or is not yet suspected;
 * -EHOSTDOWN cannot be fenced; others.  Blocks; mutex not held.
 */
int recover_slot(struct lockd *ld, uint32_t slot, uint32_t generation);

/**
 * fence_slot() - R3c: proves that @victim can no longer write.  Blocks.
 * Return: 0; -EHOSTDOWN it cannot be proved (logged with the way out); -ESTALE we are lost or
 * leaving; the device's.
 */
int fence_slot(struct lockd *ld, const struct slot *victim);
/** fence_check() - the proof once more, just before @victim's generation is retired. */
int fence_check(struct lockd *ld, const struct slot *victim);
/** fence_key() - the reservation key of (slot, generation); never 0. */
uint64_t fence_key(uint32_t slot, uint32_t generation);
/** fence_prepare() - rung A: registers the heartbeat's path, with a key of no slot, so that
 * the slot itself can be claimed under a reservation. */
int fence_prepare(struct lockd *ld);
/** fence_renew() - rung A: after a conflict, registers paths of the heartbeat that came up since
 * fence_prepare().  Only of who joins or leaves: nobody has fenced such a one by his key, or
 * the compare-and-write that follows tells. */
int fence_renew(struct lockd *ld);
/** fence_register() - rung A: our key, which the slot shows already, on every path, and the
 * reservation.  The gate is closed or nobody submits. */
int fence_register(struct lockd *ld);
/** fence_unregister() - rung A: takes our keys away; only of a host that was fenced, for
 * whoever did that is registered. */
void fence_unregister(struct lockd *ld);
/** fence_withdraw() - rung A: the same after a join that failed, if a registration stays that
 * keeps the reservation (R3c). */
void fence_withdraw(struct lockd *ld);
/** fence_purge() - rung A: removes keys of retired generations, which hosts that left keep. */
void fence_purge(struct lockd *ld);
/** fence_choose_rung() - what this device and host are capable of. */
enum fence_rung fence_choose_rung(const struct lockd_params *p);

/**
 * caw_sector() - compare-and-write of one encoded sector with the unclear rule applied.
 * @expected, @desired: META_SECTOR_SIZE bytes of contents.
 *
 * After an unclear result the sector is read back until it can be told.
 * Return: 0 ours was written, also after a miscompare; -EILSEQ lost (or found neither); -EAGAIN the old image is still
 * there after an unclear attempt: the caller must make a *new* image (sequence + 1… see
 * LOCKING.md) and try again; others as blkdev_caw() when even reading back fails.
 */
int caw_sector(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
	       const void *desired);
/**
 * caw_sector_told() - @unclear says if the answer had to be found by reading back: then
 * -EILSEQ may also mean that ours was written and has been replaced since.
 */
int caw_sector_told(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
		    const void *desired, bool *unclear);

/* ---- lock.c: lock records on disk, used by cache.c.  All block; mutex not held. ---- */

/* A record as read or written, and its image for the next compare-and-write. */
struct record {
	struct lockrec rec;
	uint8_t	image[META_SECTOR_SIZE];
};

/* Who keeps us from taking a lock. */
struct blocker {
	uint32_t slot;		/* SLOT_NONE: nobody in particular, the command cannot be tried */
	uint32_t generation;
	struct record found;
};

/** record_read() - reads and believes the record at @addr, or logs why not (-EUCLEAN). */
int record_read(struct lockd *ld, uint64_t addr, struct record *r);

/** record_claim() - what @r says, in short. */
struct lock_claim record_claim(const struct lockrec *r);

/** record_names_us() - whether our slot and generation hold it, in whatever mode. */
bool record_names_us(const struct lockd *ld, const struct lockrec *r);

/** lock_note_record() - @r is on disk now, and names us: what to remember of it.  mutex held. */
void lock_note_record(struct lock *lock, const struct record *r);

/**
 * record_recall() - the record of @lock as we wrote it last, or nothing: sequence 0.  mutex held.
 * @shared: also one that we shared with nobody; others may have come since.
 */
void record_recall(struct lockd *ld, const struct lock *lock, bool shared, struct record *r);

/**
 * record_take() - one read and one compare-and-write: "Acquire" in LOCKING.md, without waiting.
 * @opens:   for an exclusive open: what is left to an heir is for that alone.
 * @user:    goes into the record.
 * @r:       in: record_recall(): what is known saves the read, and if it is out of date the write
 *           miscompares and it is read after all; out: on success the record as it is now; on an
 *           unclear failure as it was read.
 * @found:   on success what was read.
 * @b:       on -EBUSY, who holds it.
 * @unclear: whether one of the compare-and-writes may still be under way or have succeeded.
 * Return: 0; -EBUSY; -EAGAIN lost too many races; -EUCLEAN; -ESTALE; the device's.
 */
int record_take(struct lockd *ld, uint64_t addr, enum lock_mode mode, bool opens,
		const struct lock_user *user, struct record *r, struct lock_claim *found,
		struct blocker *b, bool *unclear);

/**
 * record_change() - what is ours becomes @mode: LOCK_FREE to release, SHARED or MULTI to
 * downgrade, the same to write @user.
 * @heir:  NULL; or, with LOCK_EXCLUSIVE, whom the lock is left to: a release, but for that one.
 * @r:     the record and its image if known (saves the read), else r->rec.sequence is 0; as
 *         record_take().  Sequence 0 on success: released by an unclear attempt, then changed.
 * Return: 0; as record_take(); -ESTALE also if the record does not name us: lockd_fail()ed.
 */
int record_change(struct lockd *ld, uint64_t addr, enum lock_mode mode, const struct lock_heir *heir,
		  const struct lock_user *user, struct record *r, bool *unclear);

/**
 * record_settle_fate() - after an unclear change that expected @sequence (0: none): makes
 * certain that the record does not name us and that no earlier compare-and-write can land.
 * Without one, what is left to an heir stays so.
 * Return: 0; 1 it named us and does not any more; as record_take().
 */
int record_settle_fate(struct lockd *ld, uint64_t addr, uint64_t sequence, struct record *r);

/** record_holder() - for messages: @slot at @generation as found in @r.  mutex held. */
void record_holder(struct lockd *ld, const struct lockrec *r, uint32_t slot,
		   uint32_t generation, struct lock_holder *holder);

/** record_generation() - the generation at which @slot holds @r, or 0. */
uint32_t record_generation(const struct lockrec *r, uint32_t slot);

/** lock_modes_exclude() - whether two hosts cannot hold @a and @b at the same time. */
bool lock_modes_exclude(enum lock_mode a, enum lock_mode b);

/* ---- cache.c, want.c, drop.c: what they share.  mutex held for all. ---- */

/* One local thread inside lock_get(). */
struct seek {
	struct lock *lock;
	enum lock_mode mode;
	unsigned int flags;
	struct lock_holder holder;	/* found in the way; mode LOCK_FREE: nobody yet */
	bool	acquired;	/* took the lock itself: has its turn whoever wants it */
	bool	final;		/* this attempt is the last */
	int	want;		/* index into cache.wants, or -1 */
	uint64_t start_ns;
	uint64_t poll_ns;	/* next attempt */
	uint64_t blocked_ns;	/* when it was last found blocked */
	uint64_t alive_ns;	/* how long by holders that were alive */
	uint64_t yielded_ns;	/* to hosts that have waited longer */
	uint64_t idle_ns;	/* how long commands could not even be tried */
};

static inline uint64_t lockd_beat_ns(const struct lockd *ld)
{
	return ld->p.timing.beat_ms * NSEC_PER_MSEC;
}

/** lock_needed() - the mode that suffices for all local users and one of @extra. */
enum lock_mode lock_needed(const struct lock *lock, enum lock_mode extra);
bool lock_mode_suffices(enum lock_mode held, enum lock_mode needed);
bool lock_is_unused(const struct lock *lock);

/** lock_place() - after any change of @lock: on the list where it belongs now, or forgotten. */
void lock_place(struct lockd *ld, struct lock *lock);

/** lock_find() - the known lock at @addr or NULL. */
struct lock *lock_find(const struct lockd *ld, uint64_t addr);

/** lock_drop_target() - whether @lock can be given up or downgraded now for who wants it. */
bool lock_drop_target(const struct lock *lock, enum lock_mode *target);

/** want_publish() - tells the other hosts, if there is room in our slot. */
void want_publish(struct lockd *ld, struct seek *sk, enum lock_mode mode);
void want_withdraw(struct lockd *ld, struct seek *sk);
bool want_is_denied(const struct lockd *ld, const struct seek *sk, uint32_t *denier);
/** want_older() - whether another host waited for @addr before @since_ns. */
bool want_older(const struct lockd *ld, uint64_t addr, enum lock_mode mode, uint64_t since_ns);
/** want_deny() - refuses every known want that @lock's opens exclude. */
void want_deny(struct lockd *ld, struct lock *lock);
/** want_scan_often() - sets ld->scan_often as waiters and wants ask for. */
void want_scan_often(struct lockd *ld);

/** drop_thread_main() - settles, forgets and releases what is wanted or idle. */
void drop_thread_main(void *arg);

/* ---- cache.c, used by observe.c and host.c ---- */

/**
 * cache_peer_wants() - a scan saw @s: note which of our locks it waits for, what it refuses
 * us, and keep ld->scan_often up to date.  Call for every peer whose block could be believed,
 * whatever its state.  mutex held.
 */
void cache_peer_wants(struct lockd *ld, const struct slot *s);

/** cache_start() - sets up ld->cache and starts the drop thread; when our slot and generation
 * are certain, and before the first scan. */
int cache_start(struct lockd *ld);

/**
 * cache_stop() - ends the drop thread and forgets every lock without touching its record:
 * retiring our generation makes them all stale.  After the last scan; no lock is in use.
 */
void cache_stop(struct lockd *ld);

#endif
