/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a simulated LUN holds: contents as reads see them, contents that survive a power cut,
 * and the writes in between, in the order in which they were applied.
 *
 * For simdev.c only.  No time and no hosts here.  Aborts when out of memory: tests only.
 */
#ifndef LUNFS_BLOCK_SIMSTORE_H
#define LUNFS_BLOCK_SIMSTORE_H

#include "base/env_sim.h"
#include "base/table.h"
#include "block/simdev.h"

struct simstore {
	struct table pages;		/* by offset / 4096; those that were ever written … */
	struct simstore *share;		/* … or are this one's, from simstore_share(), or NULL */
	unsigned int users;		/* of this one: stores that share it, and its owner */
	struct list writes;		/* volatile ones, oldest first */
	uint64_t writes_bytes;
	uint64_t sequence;		/* of the last write */
	uint64_t completions;		/* so many writes have completed */
	uint32_t sector;		/* what is never torn */
	bool garbage;			/* never-written pages read as garbage, not zeros */
	uint64_t garbage_seed;
	const void *writer;		/* whose the next writes are */
	uint64_t cut_kept, cut_lost, cut_torn;	/* writes that power cuts met */
};

void simstore_init(struct simstore *s, uint32_t sector, bool garbage, uint64_t garbage_seed);
void simstore_fini(struct simstore *s);

/** simstore_copy() - @to, uninitialised, becomes a copy of @from, with one user. */
void simstore_copy(struct simstore *to, const struct simstore *from);

/**
 * simstore_share() - the same, but pages are copied only when they change.  @from is from
 * simstore_copy(), on the heap, changes no more, and ends with the last of its @users.
 */
void simstore_share(struct simstore *to, struct simstore *from);

/** simstore_put() - @s, from simstore_copy() and on the heap, has one user less. */
void simstore_put(struct simstore *s);

void simstore_read(struct simstore *s, uint64_t off, void *buf, uint64_t len);

/**
 * simstore_write() - puts @data, or zeros if it is NULL, into the volatile cache.
 * Return: the write's number, for the two functions below.
 */
uint64_t simstore_write(struct simstore *s, uint64_t off, const void *data, uint64_t len);

/** simstore_complete() - flushes that are submitted from here on cover that write. */
void simstore_complete(struct simstore *s, uint64_t number);

/** simstore_harden() - that write is durable (FUA). */
void simstore_harden(struct simstore *s, uint64_t number);

/** simstore_flush() - the first @completions completed writes are durable. */
void simstore_flush(struct simstore *s, uint64_t completions);

/** simstore_discard() - each whole page of the range becomes zeros, or stays, as @sim says. */
void simstore_discard(struct simstore *s, struct sim *sim, uint64_t off, uint64_t len);

/** simstore_each_volatile() - what @writer (NULL: anybody) wrote that is volatile, oldest first. */
void simstore_each_volatile(struct simstore *s, const void *writer,
			    void (*fn)(void *arg, uint64_t off, const void *data, uint64_t len),
			    void *arg);

void simstore_power_cut(struct simstore *s, struct sim *sim, enum simdisk_keep keep);

/** simstore_poke() - changes contents behind the cache's back, durably. */
void simstore_poke(struct simstore *s, uint64_t off, const void *buf, uint64_t len);

/** simstore_truncate() - forgets what lies at @size and beyond; the rest becomes durable. */
void simstore_truncate(struct simstore *s, uint64_t size);

#endif
