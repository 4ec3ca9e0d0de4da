/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of lockd/ share.  docs/LOCKING.md tells the protocol. */
#ifndef LUNFS_LOCKD_INTERNAL_H
#define LUNFS_LOCKD_INTERNAL_H

#include "lockd/gate.h"
#include "lockd/lock.h"
#include "lockd/lockd.h"

/* What we last saw of a slot, and since when it has not changed. */
struct peer {
	struct slot slot;
	bool	valid;
	uint64_t seen_ns;	/* when its sequence was last seen to change, our clock */
	uint64_t observed_ns;	/* time since then in which our own I/O succeeded (R3a) */
	uint64_t last_scan_ns;
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
	bool	lost, stopping;
	struct env_thread *beat_thread;

	/* observe.c */
	struct peer peers[SLOT_COUNT_MAX];
	bool	scan_often;	/* somebody waits for locks: look every beat / 4 */
	struct env_thread *observe_thread;

	/* lock.c, cache.c: known locks by address; all states under mutex. */
	struct table locks;
	struct list lru;
	bool	drop_now;
	struct env_thread *drop_thread;
	uint64_t caw_retries, caw_unclear, takeovers, lock_acquires, lock_releases, lock_waits;

	/* recover.c: one recovery at a time on this host. */
	bool	recovering;
};

/* Where slot @index lies. */
static inline uint64_t slot_addr(const struct lockd *ld, uint32_t index)
{
	return ld->p.slots_addr + (uint64_t)index * META_BLOCK_SIZE;
}

/* ---- host.c / heartbeat.c / observe.c / recover.c, used by lock.c and cache.c ---- */

/** slot_read() - reads and decodes one slot now, through @dev.  Blocks. */
int slot_read(struct lockd *ld, struct blkdev *dev, uint32_t index, struct slot *s);

/** heartbeat_publish() - the next beat comes at once.  mutex held. */
void heartbeat_publish(struct lockd *ld);

/**
 * observe_owner_is_stale() - R5: whether (slot, generation) is retired, by reading its slot
 * block now, after the lock block was read.
 * Return: 1 stale; 0 not; negative errno.  Blocks; mutex not held.
 */
int observe_owner_is_stale(struct lockd *ld, uint32_t slot, uint32_t generation);

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

/** fence_slot() - R3c: proves that @victim can no longer write.  Blocks. */
int fence_slot(struct lockd *ld, const struct slot *victim);
/** fence_choose_rung() - what this device and host are capable of. */
enum fence_rung fence_choose_rung(const struct lockd_params *p);

/**
 * caw_sector() - compare-and-write of one encoded sector with the unclear rule applied.
 * @expected, @desired: META_SECTOR_SIZE bytes of contents.
 *
 * After an unclear result the sector is read back until it can be told.
 * Return: 0 ours was written; -EILSEQ lost (or found neither); -EAGAIN the old image is still
 * there after an unclear attempt: the caller must make a *new* image (sequence + 1… see
 * LOCKING.md) and try again; others as blkdev_caw() when even reading back fails.
 */
int caw_sector(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
	       const void *desired);

/* ---- cache.c, used by observe.c and host.c ---- */

/** cache_peer_wants() - a scan saw @slot's wants and denials: note what we must drop.  mutex held. */
void cache_peer_wants(struct lockd *ld, const struct slot *s);
/** cache_start()/cache_stop() - the drop thread. */
int cache_start(struct lockd *ld);
void cache_stop(struct lockd *ld);

#endif
