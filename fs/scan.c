/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/scan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/text.h"

#define CHUNK		(4 * MIB)
#define PIECE		(64 * KIB)	/* read by itself where a chunk cannot be read */
#define GROUPS_TRIED	64u		/* of a volume's, evenly spread */

struct scan {
	const struct scan_params *p;
	struct scan_result *r;
	uint8_t	*chunk;			/* and a block more, for what lies across its end */
	void	*block;
};

uint64_t scan_place_addr(const struct super *s, enum scan_place place)
{
	return place == SCAN_FIRST ? SUPER_ADDR : place == SCAN_END ? super_end_addr(s) :
	       s->copy_addr;
}

/* ---- what speaks for a volume ---- */

/* The copy at @addr of the volume that begins at @start, if there is one. */
static enum scan_copy read_copy(struct scan *c, uint64_t start, uint64_t addr, struct super *s)
{
	uint64_t size = blkdev_size(c->p->dev);

	if (start > size || addr > size - start || size - start - addr < BLOCK_SIZE ||
	    blkdev_read(c->p->dev, start + addr, c->block, BLOCK_SIZE))
		return SCAN_MISSING;
	return super_decode(c->block, addr, s, NULL, 0) ? SCAN_DAMAGED : SCAN_GOOD;
}

static bool same_layout(const struct super *a, const struct super *b)
{
	return memcmp(a->volume, b->volume, 16) == 0 && a->ag_addr == b->ag_addr &&
	       a->ag_size == b->ag_size && a->copy_addr == b->copy_addr && a->size == b->size &&
	       a->root == b->root && a->slots_addr == b->slots_addr &&
	       a->journals_addr == b->journals_addr && a->journal_size == b->journal_size &&
	       memcmp(a->hash_key, b->hash_key, 16) == 0;
}

/*
 * A forged copy in the middle may name a volume whose first and last copy say otherwise: those
 * lie where no file can be, so they are right.  A volume that grows differs in size for a
 * moment, between the copies; then the larger one's own last copy is asked.
 */
static void take_word(struct scan *c, struct scan_volume *v)
{
	static const enum scan_place places[] = { SCAN_END, SCAN_FIRST };
	bool outranked = false;
	struct super s;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint64_t addr = scan_place_addr(&v->super, places[i]);

		if (read_copy(c, v->start, addr, &s) != SCAN_GOOD || scan_place_addr(&s, places[i]) != addr ||
		    memcmp(s.volume, v->super.volume, 16) != 0)
			continue;
		if (!outranked || s.version > v->super.version)
			v->super = s;
		outranked = true;
	}
}

static void look_at_copies(struct scan *c, struct scan_volume *v)
{
	struct super s;

	for (enum scan_place i = 0; i < SCAN_PLACES; i++) {
		v->copies[i] = read_copy(c, v->start, scan_place_addr(&v->super, i), &s);
		if (v->copies[i] != SCAN_GOOD)
			continue;
		if (!same_layout(&s, &v->super))
			v->copies[i] = SCAN_DIFFERS;
		else if (s.version != v->super.version)
			v->copies[i] = SCAN_OLD;
	}
	v->sure = v->copies[SCAN_FIRST] == SCAN_GOOD || v->copies[SCAN_FIRST] == SCAN_OLD ||
		  v->copies[SCAN_END] == SCAN_GOOD || v->copies[SCAN_END] == SCAN_OLD;
}

/* Files can lie where another layout has its groups, but not in all those places at once. */
static void look_at_groups(struct scan *c, struct scan_volume *v)
{
	uint32_t count = v->super.ag_count, step = DIV_ROUND_UP(count, GROUPS_TRIED);
	uint64_t size = blkdev_size(c->p->dev);

	for (uint32_t ag = 0; ag < count; ag += step) {
		uint64_t addr = super_ag_addr(&v->super, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
		struct meta_expect e = { META_AG, v->super.volume, addr, ag, 0 };

		v->groups_tried++;
		if (v->start + addr <= size - BLOCK_SIZE &&
		    !blkdev_read(c->p->dev, v->start + addr, c->block, BLOCK_SIZE) &&
		    !meta_verify(c->block, &e, NULL, 0))
			v->groups_seen++;
	}
}

/* ---- which volumes there are ---- */

static bool is_own_place(const struct scan_volume *v, uint64_t pos)
{
	for (enum scan_place i = 0; i < SCAN_PLACES; i++)
		if (pos - v->start == scan_place_addr(&v->super, i))
			return true;
	return false;
}

static bool covers(const struct scan_volume *outer, uint64_t pos)
{
	return outer->sure && pos >= outer->start && pos - outer->start < outer->super.size;
}

/* Whether all that speaks for @v lies where @outer's files do. */
static bool holds(const struct scan_volume *outer, const struct scan_volume *v)
{
	bool any = false;

	for (enum scan_place i = 0; i < SCAN_PLACES; i++) {
		uint64_t pos = v->start + scan_place_addr(&v->super, i);

		if (v->copies[i] != SCAN_GOOD && v->copies[i] != SCAN_OLD)
			continue;
		if (!covers(outer, pos) || is_own_place(outer, pos))
			return false;
		any = true;
	}
	return any;
}

static bool is_known(const struct scan_result *r, const struct scan_volume *v)
{
	for (size_t i = 0; i < r->count; i++)
		if (r->volumes[i].start == v->start && same_layout(&r->volumes[i].super, &v->super))
			return true;
	return false;
}

/* A copy that can be believed lies at @pos.  Forged ones by the thousand are not kept. */
static void note(struct scan *c, uint64_t pos, uint64_t addr, const struct super *s)
{
	struct scan_volume v = { .start = pos - addr, .super = *s }, *grown;
	struct scan_result *r = c->r;

	take_word(c, &v);
	if (is_known(r, &v))
		return;
	look_at_copies(c, &v);
	look_at_groups(c, &v);
	grown = r->count < SCAN_VOLUMES_MAX ?
		realloc(r->volumes, (r->count + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		r->dropped++;
		return;
	}
	r->volumes = grown;
	r->volumes[r->count++] = v;
}

static void look_at(struct scan *c, uint64_t pos, const void *block)
{
	const struct meta_hdr_disk *h = block;
	uint64_t addr;
	struct super s;

	if (le32_to_cpu(h->magic) != META_SUPER)
		return;
	addr = le64_to_cpu(h->addr);
	if (addr > pos || super_decode(block, addr, &s, NULL, 0))
		return;
	if (addr == SUPER_ADDR || addr == s.copy_addr || addr == super_end_addr(&s))
		note(c, pos, addr, &s);
}

/* ---- reading ---- */

/* What cannot be read is passed over, a piece at a time. */
static void read_chunk(struct scan *c, uint64_t off, size_t len)
{
	if (!blkdev_read(c->p->dev, off, c->chunk, len))
		return;
	for (size_t at = 0; at < len; at += PIECE) {
		size_t n = len - at < PIECE ? len - at : PIECE;

		if (!blkdev_read(c->p->dev, off + at, c->chunk + at, n))
			continue;
		memset(c->chunk + at, 0, n);
		if (at < CHUNK)
			c->r->unreadable += n;
	}
}

static void look_for_copies(struct scan *c)
{
	uint64_t size = ALIGN_DOWN(blkdev_size(c->p->dev), (uint64_t)c->p->dev->info.sector);

	for (uint64_t off = 0; off + BLOCK_SIZE <= size; off += CHUNK) {
		size_t len = size - off < CHUNK + BLOCK_SIZE ? (size_t)(size - off) : CHUNK + BLOCK_SIZE;

		read_chunk(c, off, len);
		/* A partition may begin at any sector. */
		for (size_t at = 0; at < CHUNK && at + BLOCK_SIZE <= len; at += c->p->dev->info.sector)
			look_at(c, off + at, c->chunk + at);
		if (c->p->progress)
			c->p->progress(c->p->arg, off + (len < CHUNK ? len : CHUNK), size);
	}
}

/* The likely places first: nothing that fills up the list comes before them. */
static void look_at_likely(struct scan *c)
{
	uint64_t size = blkdev_size(c->p->dev);
	uint64_t places[2 + SUPER_CANDIDATES] = { SUPER_ADDR };

	if (size < VOLUME_SIZE_MIN)
		return;
	places[1] = ALIGN_DOWN(size, (uint64_t)BLOCK_SIZE) - BLOCK_SIZE;
	for (unsigned int i = 0; i < SUPER_CANDIDATES; i++)
		places[2 + i] = super_copy_candidate(size, i);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (!blkdev_read(c->p->dev, places[i], c->chunk, BLOCK_SIZE))
			look_at(c, places[i], c->chunk);
}

static int by_start(const void *a, const void *b)
{
	const struct scan_volume *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->sure != y->sure)
		return x->sure ? -1 : 1;
	return x->super.size > y->super.size ? -1 : x->super.size < y->super.size;
}

/*
 * Two may seem to hold each other: a copy in a file can state any size.  It cannot state a start
 * before the volume that it is in and an end behind it, for it lies at one of the two places
 * itself.  So of such two the one that begins first, or else the larger, is outside.
 */
static void find_inside(struct scan_result *r)
{
	if (r->count)
		qsort(r->volumes, r->count, sizeof(*r->volumes), by_start);
	for (size_t i = 0; i < r->count; i++) {
		struct scan_volume *v = &r->volumes[i];

		for (size_t o = 0; o < r->count && !v->inside; o++) {
			const struct scan_volume *outer = &r->volumes[o];

			v->inside = o != i && holds(outer, v) && (o < i || !holds(v, outer));
			if (v->inside)
				v->outer = outer->start;
		}
	}
}

int scan_device(const struct scan_params *p, struct scan_result *r)
{
	struct scan c = { .p = p, .r = r, .chunk = blkdev_alloc(CHUNK + BLOCK_SIZE),
			  .block = blkdev_alloc(BLOCK_SIZE) };
	int err = c.chunk && c.block ? 0 : -ENOMEM;

	memset(r, 0, sizeof(*r));
	if (!err) {
		look_at_likely(&c);
		look_for_copies(&c);
		find_inside(r);
	}
	free(c.block);
	free(c.chunk);
	return err;
}

void scan_free(struct scan_result *r)
{
	free(r->volumes);
	memset(r, 0, sizeof(*r));
}

int scan_choose(const struct scan_result *r, const struct blkdev *dev,
		const struct scan_volume **out, char *why, size_t why_size)
{
	const struct scan_volume *found = NULL;

	for (size_t i = 0; i < r->count; i++) {
		const struct scan_volume *v = &r->volumes[i];

		if (v->start || v->inside || !v->sure || v->super.size > blkdev_size(dev))
			continue;
		if (found)
			return text_refuse(-ENOTUNIQ, why, why_size, "%s: several volumes claim its "
					   "beginning; nothing is restored", dev->info.name);
		found = v;
	}
	if (!found)
		return text_refuse(-ENOENT, why, why_size, "%s: no volume that begins where the device "
				   "does is certain enough; for one that begins later make a partition "
				   "or a loop device there, and restore on that", dev->info.name);
	*out = found;
	return 0;
}

const char *scan_copy_name(enum scan_copy copy)
{
	static const char *const names[] = { "good", "old", "differs", "damaged", "missing" };

	return names[copy];
}
