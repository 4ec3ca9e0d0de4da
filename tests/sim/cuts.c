// SPDX-License-Identifier: Apache-2.0
/*
 * Which states a cut can leave.  A cut comes right after a write was applied, a flush or an
 * operation has ended; of the writes that are volatile then any may be lost.  After a write
 * only states with that write, whole or torn, are new.
 */
#include "tests/sim/cut.h"

#define SUBSETS_BITS	10u	/* up to so many volatile writes every subset is a state */
#define SUBSETS_RANDOM	200u
#define TEAR		512u	/* also on larger sectors: a stricter device is no excuse */

enum tear { TEAR_NOT, TEAR_FIRST, TEAR_LAST, TEAR_HALF, TEAR_RANDOM, TEAR_COUNT };
enum others { OTHERS_NONE, OTHERS_ALL, OTHERS_RANDOM, OTHERS_COUNT };
#define SEVERAL		4u	/* states in which everything volatile may be torn */

/* What @state means. */
struct choice {
	size_t	last;		/* the write that the cut follows; NEVER: none */
	size_t	others;		/* volatile ones beside it */
	bool	exhaustive;	/* keep is a mask of the others */
	uint64_t keep;
	enum others which;	/* else */
	enum tear tear;		/* of the last write */
	bool	several;	/* of any, at random */
};

static bool is_volatile(const struct rec_write *w, size_t moment)
{
	return w->applied <= moment && w->hardened > moment && w->dropped > moment;
}

static void choice_begin(const struct recording *r, size_t moment, struct choice *c)
{
	const struct moment *m = &r->moments[moment];

	memset(c, 0, sizeof(*c));
	c->last = m->kind == MOMENT_WRITE ? m->index : NEVER;
	for (size_t i = 0; i < r->write_count && r->writes[i].applied <= moment; i++)
		if (is_volatile(&r->writes[i], moment) && i != c->last)
			c->others++;
}

static uint64_t subsets(const struct choice *c)
{
	return c->others <= SUBSETS_BITS ? 1ull << c->others : SUBSETS_RANDOM;
}

static bool can_tear(const struct recording *r, const struct choice *c)
{
	return c->last != NEVER && r->writes[c->last].len > TEAR;
}

static uint64_t tears(const struct recording *r, const struct choice *c)
{
	return can_tear(r, c) ? (TEAR_COUNT - 1) * (c->others ? OTHERS_COUNT : 1) : 0;
}

static bool can_tear_others(const struct recording *r, size_t moment, const struct choice *c)
{
	for (size_t i = 0; i < r->write_count && r->writes[i].applied <= moment; i++)
		if (is_volatile(&r->writes[i], moment) && i != c->last && r->writes[i].len > TEAR)
			return true;
	return false;
}

static bool ends_something(const struct recording *r, const struct moment *m)
{
	enum what what;

	if (m->kind != MOMENT_END)
		return m->kind == MOMENT_FLUSH;
	what = r->ops[m->index].what;
	return what == OP_FSYNC || what == OP_SYNC || what == OP_DETACH || what == OP_MKFS ||
	       what == OP_SNAPSHOT || what == OP_CLONE || what == OP_REVERT ||
	       what == OP_GROW;
}

uint64_t cuts_count(const struct recording *r, size_t moment)
{
	struct choice c;

	if (moment < r->cut_from || (r->moments[moment].kind != MOMENT_WRITE &&
				     !ends_something(r, &r->moments[moment])))
		return 0;
	choice_begin(r, moment, &c);
	return subsets(&c) + tears(r, &c) + (can_tear_others(r, moment, &c) ? SEVERAL : 0);
}

static void choice_make(const struct recording *r, size_t moment, uint64_t state,
			struct choice *c)
{
	choice_begin(r, moment, c);
	if (state < subsets(c)) {
		c->exhaustive = c->others <= SUBSETS_BITS;
		c->keep = state;
		/* None and all are two of the 200. */
		c->which = state < OTHERS_RANDOM ? (enum others)state : OTHERS_RANDOM;
		return;
	}
	state -= subsets(c);
	if (state >= tears(r, c)) {
		c->which = OTHERS_RANDOM;
		c->several = true;
		return;
	}
	c->tear = (enum tear)(1 + state % (TEAR_COUNT - 1));
	c->which = (enum others)(state / (TEAR_COUNT - 1));
}

/* ---- contents ---- */

/* Whether a newer write of [@off, +TEAR) is durable already. */
static bool is_superseded(const struct recording *r, size_t i, uint64_t off, size_t moment)
{
	for (size_t k = i + 1; k < r->write_count && r->writes[k].applied <= moment; k++) {
		const struct rec_write *w = &r->writes[k];

		if (w->hardened <= moment && w->off <= off && off < w->off + w->len)
			return true;
	}
	return false;
}

static bool any_superseded(const struct recording *r, size_t i, size_t moment)
{
	const struct rec_write *w = &r->writes[i];

	for (size_t k = i + 1; k < r->write_count && r->writes[k].applied <= moment; k++) {
		const struct rec_write *n = &r->writes[k];

		if (n->hardened <= moment && n->off < w->off + w->len && w->off < n->off + n->len)
			return true;
	}
	return false;
}

static bool sector_is_torn(const struct rec_write *w, uint64_t i, enum tear tear, uint64_t seed)
{
	uint64_t count = w->len / TEAR;

	switch (tear) {
	case TEAR_NOT:		return false;
	case TEAR_FIRST:	return i != 0;
	case TEAR_LAST:		return i == count - 1;
	case TEAR_HALF:		return i < count / 2;
	case TEAR_RANDOM:	return mix64(seed ^ i << 32) % 2;
	case TEAR_COUNT:	break;
	}
	return false;
}

/* Write @i reaches the medium, all or in part, under the newer ones that have. */
static void put(const struct recording *r, struct simdisk *disk, size_t i, size_t moment,
		enum tear tear, uint64_t seed)
{
	static const uint8_t zeros[TEAR];
	const struct rec_write *w = &r->writes[i];
	bool whole = w->data && !tear && !any_superseded(r, i, moment);

	if (whole) {
		simdisk_poke(disk, w->off, w->data, w->len);
		return;
	}
	for (uint64_t n = 0; n < w->len / TEAR; n++) {
		uint64_t off = w->off + n * TEAR;

		if (is_superseded(r, i, off, moment) || sector_is_torn(w, n, tear, seed))
			continue;
		/* A discarded block is zeros or as it was. */
		if (w->discard && mix64(seed ^ off / 4096) % 2)
			continue;
		simdisk_poke(disk, off, w->data ? w->data + n * TEAR : zeros, TEAR);
	}
}

void cuts_advance(const struct recording *r, struct simdisk *disk, size_t from, size_t to)
{
	for (size_t i = 0; i < r->write_count && r->writes[i].applied <= to; i++)
		if (r->writes[i].hardened > from && r->writes[i].hardened <= to)
			put(r, disk, i, to, TEAR_NOT, i);
}

static bool is_kept(const struct choice *c, size_t nth, uint64_t seed)
{
	if (c->exhaustive)
		return c->keep >> nth & 1;
	if (c->which == OTHERS_RANDOM)
		return mix64(seed ^ (nth + 1) * 0x9e3779b97f4a7c15) % 2;
	return c->which == OTHERS_ALL;
}

static void describe(const struct recording *r, size_t i, bool kept, enum tear tear)
{
	const struct rec_write *w = &r->writes[i];

	fprintf(stderr, "    write %zu at moment %zu: %llu bytes at %#llx: %s\n", i, w->applied,
		(unsigned long long)w->len, (unsigned long long)w->off,
		!kept ? "lost" : tear ? "torn" : "kept");
}

void cuts_choose(const struct recording *r, struct simdisk *disk, size_t moment,
		 uint64_t state, bool verbose)
{
	uint64_t seed = mix64(moment * 0x100000001b3 ^ state << 20);
	struct choice c;
	size_t nth = 0;

	choice_make(r, moment, state, &c);
	for (size_t i = 0; i < r->write_count && r->writes[i].applied <= moment; i++) {
		bool is_last = i == c.last, kept;
		enum tear tear = is_last ? c.tear : TEAR_NOT;

		if (!is_volatile(&r->writes[i], moment))
			continue;
		kept = is_last || is_kept(&c, nth++, seed);
		if (c.several && !is_last && mix64(seed ^ ~i) % 2)
			tear = TEAR_RANDOM;
		if (verbose)
			describe(r, i, kept, tear);
		if (kept)
			put(r, disk, i, moment, tear, seed ^ i);
	}
}
