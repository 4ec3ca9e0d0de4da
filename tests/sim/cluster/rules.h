/* SPDX-License-Identifier: Apache-2.0 */
/* What the checkers of the rules share: rules.c, rules_slots.c, rules_home.c, watch.c. */
#ifndef LUNFS_TESTS_SIM_RULES_H
#define LUNFS_TESTS_SIM_RULES_H

#include "base/table.h"
#include "tests/sim/cluster/sim.h"

#define TXNS_MAX	512u

/* A transaction in a slot's ring, by its descriptor. */
struct ring_txn {
	uint64_t sequence, block;
	uint32_t count;
	bool used;
};

struct ring_state {
	struct ring_txn txns[TXNS_MAX];
	unsigned int count;
	uint64_t tail_version, tail_sequence;	/* as written */
	uint64_t durable_sequence;		/* as flushed since */
};

struct rules {
	struct ring_state rings[SLOT_COUNT_MAX];
	uint64_t changed_ns[SLOT_COUNT_MAX];	/* true time at which the slot last changed */
	unsigned int deaths[SLOT_COUNT_MAX];	/* of recoverers of it, in a row */
	struct table lock_records;		/* by address: what was ever a lock since the last cut */
};

uint32_t magic_of(const void *block);
bool slot_at(struct world *w, uint32_t index, struct slot *s);
bool lock_at(struct world *w, uint64_t addr, struct lockrec *r);
/** is_stale() - locks of (slot, generation) are anybody's (R5). */
bool is_stale(struct world *w, uint32_t slot, uint32_t generation);
/**
 * acts_for() - whether @life may act for (slot, generation): its own, or one that it recovers, or
 * began to: what it replays is what the next one will replay, until it is fenced itself.
 */
bool acts_for(struct world *w, const struct life *life, uint32_t slot, uint32_t generation);
/** cover_of() - address of the lock that covers @block, which goes to @addr; 0: not known. */
uint64_t cover_of(struct world *w, uint64_t addr, const uint8_t *block);

static inline bool in_region(uint64_t off, uint64_t start, uint64_t len)
{
	return off >= start && off < start + len;
}

/* ---- rules_slots.c ---- */

/** slot_changed() - @life's compare-and-write of a slot has succeeded (R3, R5). */
void slot_changed(struct world *w, struct life *life, const struct blk_io *io);

/* ---- rules_home.c ---- */

/** ring_saw() - @block was written to the journal of @slot. */
void ring_saw(struct world *w, uint32_t slot, uint64_t addr, const uint8_t *block);
/** rings_flushed() - a flush makes every tail durable that was written before. */
void rings_flushed(struct world *w);
/** rings_power_cut() - begins again with the tails that are there. */
void rings_power_cut(struct world *w);
/**
 * check_settled() - @life gives @lock up, in whole or to a weaker mode (R4).
 * @contents: also what it wrote to the file; not where it goes on as one of several writers.
 */
void check_settled(struct world *w, struct life *life, uint64_t lock, const char *what,
		   bool contents);
/** check_replayed() - no transaction of @slot is left that nobody has written home (R3). */
void check_replayed(struct world *w, uint32_t slot);

/* ---- transitions.c ---- */

void transitions_start(struct world *w);
/** transitions_logged() - a host has logged @line. */
void transitions_logged(const char *line);

/* ---- watch.c ---- */

/** watch_beat() - @life's slot shows that one of its heartbeats has landed. */
void watch_beat(struct world *w, struct life *life, const struct slot *s);

#endif
