/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated LUN shared by simulated hosts: latency, errors, lost, torn and reordered
 * writes, commands that time out but were applied, persistent reservations.  Tests only.
 *
 * struct simdisk is the LUN; simdisk_open() gives one host's path to it.  Contents are sparse
 * pages.  A write is in the volatile cache until a flush that was begun after it completed,
 * or FUA; simdisk_power_cut() keeps any subset of what is volatile, torn between sectors.
 */
#ifndef LUNFS_BLOCK_SIMDEV_H
#define LUNFS_BLOCK_SIMDEV_H

#include "base/env_sim.h"
#include "block/blkdev.h"

struct simdisk;

struct simdisk_params {
	uint64_t size;			/* bytes */
	uint32_t sector;		/* 512 or 4096 */
	bool	 reservations;
	uint64_t latency_min_ns;
	uint64_t latency_max_ns;
	uint64_t inflight_ns_max;	/* reported in info; 0 unknown */
	bool	 random_contents;	/* never-written blocks read as seeded garbage */
};

struct simdisk *simdisk_new(struct sim *sim, const struct simdisk_params *p);

/** simdisk_free() - before sim_free(); paths that crashed hosts left open go with it. */
void simdisk_free(struct simdisk *disk);

/**
 * simdisk_open() - @host's path to the LUN; closed with blkdev_close().
 *
 * All paths of one env are one initiator: one registration, aborted together.  When the host
 * has crashed its commands in flight are applied, torn or lost by seeded choice, those that a
 * rule struck as the rule says; completions are dropped.
 */
struct blkdev *simdisk_open(struct simdisk *disk, struct env *host);

/* What the next matching commands suffer. */
enum simdisk_fault {
	SIMDISK_FAIL,		/* not applied, -EIO */
	SIMDISK_FAIL_APPLIED,	/* applied, -EIO */
	SIMDISK_TIMEOUT,	/* not applied, -ETIMEDOUT after @delay_ns */
	SIMDISK_TIMEOUT_APPLIED,/* applied, -ETIMEDOUT after @delay_ns */
	SIMDISK_TIMEOUT_LATE,	/* -ETIMEDOUT now, applied @delay_ns later unless aborted */
	SIMDISK_DELAY,		/* applied and completed @delay_ns later */
	SIMDISK_CORRUPT,	/* reads: one bit flipped, success */
	SIMDISK_NOSPC,		/* writes: -ENOSPC */
	SIMDISK_TWICE,		/* a CAW that a lower layer sends twice: applied, -EILSEQ @delay_ns later */
	SIMDISK_HOLD,		/* leaves the host only @delay_ns later, unless that died meanwhile */
};

struct simdisk_rule {
	enum simdisk_fault fault;
	unsigned int ops;	/* bit mask of 1 << enum blk_op */
	struct env *host;	/* only this host's commands; NULL: any */
	uint64_t off, len;	/* only commands that touch this range; len 0: anywhere */
	uint64_t skip;		/* let that many matching commands pass first */
	uint64_t count;		/* then hit that many; 0: for ever */
	uint64_t delay_ns;
	uint64_t until_ns;	/* true time from which it strikes no more; 0: it never ends */
	/* CORRUPT: whether the 4 KiB block at @off may be; NULL: any may. */
	bool (*may_corrupt)(void *arg, uint64_t off, const void *block);
	/* Told of each command that it strikes, before anything becomes of that. */
	void (*struck)(void *arg, const struct simdisk_rule *rule, enum blk_op op);
	void *arg;		/* of both */
};

/** simdisk_inject() - adds a rule; simdisk_clear_rules() removes all. */
void simdisk_inject(struct simdisk *disk, const struct simdisk_rule *rule);
void simdisk_clear_rules(struct simdisk *disk);

/** simdisk_stall() - no command (of @host, or of anybody if NULL) completes until @until_ns. */
void simdisk_stall(struct simdisk *disk, struct env *host, uint64_t until_ns);

/**
 * simdisk_power_cut() - what is volatile survives or not, sector by sector, by seeded choice;
 * SIMDISK_KEEP_ALL and _NONE force it.  Commands in flight end with -EIO (in the seeded case
 * they may have been applied, in part or whole); late ones are gone.
 */
enum simdisk_keep { SIMDISK_KEEP_RANDOM, SIMDISK_KEEP_ALL, SIMDISK_KEEP_NONE };
void simdisk_power_cut(struct simdisk *disk, enum simdisk_keep keep);

/**
 * simdisk_snapshot()/simdisk_restore() - the durable and volatile contents, copied.
 * Commands in flight are not part of it: they go on over what was restored.
 */
struct simdisk_image;
struct simdisk_image *simdisk_snapshot(struct simdisk *disk);
void simdisk_restore(struct simdisk *disk, const struct simdisk_image *image);
void simdisk_image_free(struct simdisk_image *image);

/** simdisk_peek()/simdisk_poke() - contents directly, no time passes. */
void simdisk_peek(struct simdisk *disk, uint64_t off, void *buf, size_t len);
void simdisk_poke(struct simdisk *disk, uint64_t off, const void *buf, size_t len);

/**
 * simdisk_is_busy() - whether a command of @host can still change the contents, or has, and no flush
 * covers it yet: none that was submitted before it ended does.
 */
bool simdisk_is_busy(struct simdisk *disk, struct env *host);

/**
 * simdisk_reconnect() - @to is the machine that was @from: its registration is @to's now, and
 * what it had under way ends with its session.
 */
void simdisk_reconnect(struct simdisk *disk, struct env *from, struct env *to);

/** simdisk_resize() - the LUN grows or shrinks. */
void simdisk_resize(struct simdisk *disk, uint64_t size);

struct simdisk_stats {
	uint64_t ops[6];	/* commands completed, by enum blk_op */
	uint64_t bytes_read, bytes_written;
};
void simdisk_stats(struct simdisk *disk, struct env *host, struct simdisk_stats *out);

/**
 * simdisk_observe() - @fn sees every command when it is applied (tests check rules there); of
 * a torn write of a crashed host each sector.
 */
void simdisk_observe(struct simdisk *disk,
		     void (*fn)(void *arg, struct env *host, const struct blk_io *io), void *arg);

/** simdisk_observe_submit() - @fn sees every command when a host submits it. */
void simdisk_observe_submit(struct simdisk *disk,
			    void (*fn)(void *arg, struct env *host, const struct blk_io *io),
			    void *arg);

/** simdisk_each_pending() - commands of @host (NULL: all) that can still change the contents. */
void simdisk_each_pending(struct simdisk *disk, struct env *host,
			  void (*fn)(void *arg, const struct blk_io *io), void *arg);

/** simdisk_each_volatile() - what @path (NULL: any) wrote that a power cut could take back. */
void simdisk_each_volatile(struct simdisk *disk, const struct blkdev *path,
			   void (*fn)(void *arg, uint64_t off, const void *data, uint64_t len),
			   void *arg);

/* What became of writes that a crash or a power cut met. */
struct simdisk_fates {
	uint64_t torn;		/* under way: some sectors of it got through */
	uint64_t cut_kept, cut_lost, cut_torn;	/* in the volatile cache */
};
void simdisk_fates(struct simdisk *disk, struct simdisk_fates *out);

#endif
