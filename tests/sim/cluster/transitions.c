// SPDX-License-Identifier: Apache-2.0
/*
 * How often the branches of docs/LOCKING.md were taken that the LUN does not show: between lockd's
 * own files, at link time (--wrap), and by what hosts log.
 */
#include "tests/sim/cluster/rules.h"

#include "lockd/internal.h"

static struct world *counted;		/* there is one world a process */

static void seen(enum sim_counter what)
{
	if (counted)
		counted->counters[what]++;
}

/* ---- unclear compare-and-writes of lock records ---- */

int __real_caw_sector_told(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
			   const void *desired, bool *unclear);
int __wrap_caw_sector_told(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
			   const void *desired, bool *unclear);

int __wrap_caw_sector_told(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
			   const void *desired, bool *unclear)
{
	int err = __real_caw_sector_told(ld, dev, addr, expected, desired, unclear);

	if (!*unclear && err == -EILSEQ)
		seen(COUNT_caw_miscompared);
	else if (*unclear && !err)
		seen(COUNT_caw_landed);
	else if (*unclear && err == -EAGAIN)
		seen(COUNT_caw_again);
	else if (*unclear && err == -EILSEQ)
		seen(COUNT_caw_lost);
	else if (*unclear)
		seen(COUNT_caw_unread);
	return err;
}

/* ---- what acquiring found ---- */

int __real_record_take(struct lockd *ld, uint64_t addr, enum lock_mode mode, bool opens,
		       const struct lock_user *user, struct record *r, struct lock_claim *found,
		       struct blocker *b, bool *unclear);
int __wrap_record_take(struct lockd *ld, uint64_t addr, enum lock_mode mode, bool opens,
		       const struct lock_user *user, struct record *r, struct lock_claim *found,
		       struct blocker *b, bool *unclear);

int __wrap_record_take(struct lockd *ld, uint64_t addr, enum lock_mode mode, bool opens,
		       const struct lock_user *user, struct record *r, struct lock_claim *found,
		       struct blocker *b, bool *unclear)
{
	int err = __real_record_take(ld, addr, mode, opens, user, r, found, b, unclear);

	if (err == -EBUSY)
		seen(COUNT_take_blocked);
	if (err || found->mode != LOCK_EXCLUSIVE || found->owner != ld->cache.slot)
		return err;
	seen(found->generation == ld->cache.generation ? COUNT_take_adopted : COUNT_take_own_older);
	return err;
}

int __real_record_settle_fate(struct lockd *ld, uint64_t addr, uint64_t sequence, struct record *r);
int __wrap_record_settle_fate(struct lockd *ld, uint64_t addr, uint64_t sequence, struct record *r);

int __wrap_record_settle_fate(struct lockd *ld, uint64_t addr, uint64_t sequence, struct record *r)
{
	int err = __real_record_settle_fate(ld, addr, sequence, r);

	if (!sequence)
		seen(err == 1 ? COUNT_stray : COUNT_stray_look);
	else if (err >= 0)
		seen(err == 1 ? COUNT_fate_freed : COUNT_fate_moved);
	return err;
}

bool __real_gate_take_conflict(struct gate *g);
bool __wrap_gate_take_conflict(struct gate *g);

bool __wrap_gate_take_conflict(struct gate *g)
{
	bool conflict = __real_gate_take_conflict(g);

	if (conflict)
		seen(COUNT_gate_conflict);
	return conflict;
}

/* ---- by the log ---- */

void transitions_logged(const char *line)
{
	static const struct { enum sim_counter what; const char *text; } known[] = {
		{ COUNT_gate_lapsed, "the lease has lapsed" },
		{ COUNT_gate_again, "the lease is valid again" },
		{ COUNT_gate_gap, "that the boot clock did not see" },
		{ COUNT_slot_lost, "is lost: " },
		{ COUNT_recover_retry, "trying again later" },
		{ COUNT_fence_forced, "without proof that it is dead (forced)" },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(line, known[i].text))
			seen(known[i].what);
}

void transitions_start(struct world *w)
{
	counted = w;
}
