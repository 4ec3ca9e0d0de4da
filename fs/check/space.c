/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks are referred to, and whether the bitmaps say the same. */
#include <stdlib.h>

#include "fs/check/fix.h"
#include "fs/check/online.h"

static uint32_t group_block(const struct check *c, uint32_t ag, uint64_t block)
{
	return (uint32_t)(block - (super_ag_addr(c->s, ag) >> BLOCK_SHIFT));
}

bool chk_space_ok(struct check *c, uint64_t block, uint64_t count)
{
	uint64_t copy = c->s->copy_addr >> BLOCK_SHIFT;
	uint32_t ag, blocks, first;

	if (count == 0 || block >= c->s->size >> BLOCK_SHIFT ||
	    super_ag_of(c->s, block << BLOCK_SHIFT, &ag))
		return false;
	blocks = c->groups[ag].blocks;
	first = group_block(c, ag, block);
	if (first < super_ag_meta(c->s) || first >= blocks || count > blocks - first)
		return false;
	return copy < block || copy >= block + count;
}

/* @parts: of a group, claimed or metadata. */
static struct chk_part **part_get(struct check *c, struct chk_part ***parts, uint32_t index)
{
	if (!*parts)
		*parts = calloc(super_ag_bitmaps(c->s), sizeof(struct chk_part *));
	return *parts ? &(*parts)[index] : NULL;
}

/* @who: NULL says nothing. */
static void claimed_twice(struct check *c, uint64_t block, const char *who)
{
	if (!who)
		return;
	c->later = c->data && c->fix && block >= c->fix->twice_end;
	if (!chk_report(c, CHECK_BLOCK_TWICE, block << BLOCK_SHIFT,
			"%s refers to it, and so does something before", who))
		return;
	c->twice_repair = true;
	fix_twice(c, block);
}

/*
 * Claims what of the run lies in one word of a bitmap; returns how many blocks that was.
 * *@fresh: becomes false if one of them was claimed before.
 */
static uint32_t claim_in_word(struct check *c, uint32_t ag, uint32_t first, uint32_t count,
			      const char *who, bool *fresh)
{
	struct chk_part **part = part_get(c, &c->groups[ag].parts, first / BITMAP_BITS);
	uint32_t w = first % BITMAP_BITS / 64, bit = first % 64;
	uint32_t here = 64 - bit < count ? 64 - bit : count;
	uint64_t mask = (here < 64 ? (1ULL << here) - 1 : UINT64_MAX) << bit, old;
	uint64_t start = (super_ag_addr(c->s, ag) >> BLOCK_SHIFT) + first - bit;

	if (!part) {
		c->no_memory = true;
		return count;
	}
	old = chk_part_word(*part, w);
	if (chk_part_set(part, w, old | mask))
		c->no_memory = true;
	for (uint32_t i = 0; old & mask && i < 64; i++)
		if (old & mask & 1ULL << i) {
			claimed_twice(c, start + i, who);
			*fresh = false;
		}
	return here;
}

bool chk_claim(struct check *c, uint64_t block, uint32_t count, const char *who)
{
	uint32_t ag, first;
	bool fresh = true;

	c->twice_repair = false;
	if (c->online)
		online_claim(c, block, count, who);
	if (c->online && c->online->no_claims)
		return c->online->hits < 2;
	if (super_ag_of(c->s, block << BLOCK_SHIFT, &ag))
		return false;
	first = group_block(c, ag, block);
	while (count && !c->no_memory) {
		uint32_t done = claim_in_word(c, ag, first, count, who, &fresh);

		first += done;
		count -= done;
	}
	return fresh;
}

bool chk_claim_quietly(struct check *c, uint64_t block, uint32_t count)
{
	return chk_claim(c, block, count, NULL);
}

/* @block is in the set, or is not any more.  Returns whether it was. */
static bool put_block(struct check *c, struct chk_part ***parts, uint32_t first, bool in)
{
	struct chk_part **part = part_get(c, parts, first / BITMAP_BITS);
	uint32_t w = first % BITMAP_BITS / 64;
	uint64_t bit = 1ULL << first % 64, old = part ? chk_part_word(*part, w) : 0;

	if (!part || chk_part_set(part, w, in ? old | bit : old & ~bit))
		c->no_memory = true;
	return old & bit;
}

/*
 * The set of what metadata has is some 8 to 24 bytes a block.  Of more than so many (two million files) a
 * repair does not know, and takes whoever comes second for wrong, to stay within 512 MiB.
 */
#define META_NOTED_MAX	(4u << 20)

bool chk_claim_meta(struct check *c, uint64_t block, uint32_t count, const char *who)
{
	bool fresh = chk_claim(c, block, count, who), before = false;
	uint32_t ag;

	c->only_data = false;
	if (!c->fix || super_ag_of(c->s, block << BLOCK_SHIFT, &ag))
		return fresh;
	c->meta_noted += count;
	if (c->meta_noted > META_NOTED_MAX)
		return fresh;
	for (uint32_t i = 0; i < count; i++)
		before |= put_block(c, &c->groups[ag].meta, group_block(c, ag, block + i), true);
	c->only_data = !fresh && !before;
	return fresh;
}

bool chk_claim_anyway(struct check *c, const struct meta_expect *e, void *block)
{
	uint32_t ag;

	if (!c->only_data || !c->twice_repair)
		return false;
	if (!chk_read(c, e->addr, block, 1) && !meta_verify(block, e, NULL, 0))
		return true;
	if (!super_ag_of(c->s, e->addr, &ag))
		put_block(c, &c->groups[ag].meta, group_block(c, ag, e->addr >> BLOCK_SHIFT), false);
	return false;
}

void chk_unclaim(struct check *c, uint64_t block)
{
	uint32_t ag;

	if (super_ag_of(c->s, block << BLOCK_SHIFT, &ag))
		return;
	put_block(c, &c->groups[ag].parts, group_block(c, ag, block), false);
	put_block(c, &c->groups[ag].meta, group_block(c, ag, block), false);
}

static void parts_free(struct chk_part **parts, uint32_t count)
{
	for (uint32_t i = 0; parts && i < count; i++)
		chk_part_free(parts[i]);
	free(parts);
}

void chk_space_free(struct check *c)
{
	for (uint32_t ag = 0; c->groups && ag < c->s->ag_count; ag++) {
		parts_free(c->groups[ag].parts, super_ag_bitmaps(c->s));
		parts_free(c->groups[ag].meta, super_ag_bitmaps(c->s));
	}
	free(c->groups);
}

/* ---- comparison with the bitmaps ---- */

/* Reports runs of blocks for which @want and @have differ, one finding a run; @have becomes what
 * it is repaired to.  Returns whether it is. */
static bool compare_bits(struct check *c, uint32_t ag, uint32_t index, const uint8_t *want,
			 uint8_t *have, bool ready)
{
	uint64_t start = (super_ag_addr(c->s, ag) >> BLOCK_SHIFT) + (uint64_t)index * BITMAP_BITS;
	bool fix = false;

	if (!memcmp(want, have, BITMAP_BYTES))
		return false;
	for (uint32_t i = 0; i < BITMAP_BITS; i++) {
		uint32_t first = i;
		bool wanted;

		if (want[i / 8] == have[i / 8]) {
			i |= 7;
			continue;
		}
		if (!((want[i / 8] ^ have[i / 8]) & 1u << i % 8))
			continue;
		wanted = want[i / 8] & 1u << i % 8;
		while (i + 1 < BITMAP_BITS &&
		       (want[(i + 1) / 8] ^ have[(i + 1) / 8]) & 1u << (i + 1) % 8 &&
		       !!(want[(i + 1) / 8] & 1u << (i + 1) % 8) == wanted)
			i++;
		if (!chk_report(c, !wanted ? CHECK_BITMAP_LEAK :
				ready ? CHECK_BITMAP_FREE : CHECK_BITMAP_NOT_READY,
				(start + first) << BLOCK_SHIFT, "group %u, bitmap block %u: %u "
				"blocks from here: expected %s, found %s", ag, index,
				i - first + 1, wanted ? "in use" : "free",
				wanted ? "free" : "in use"))
			continue;
		fix = true;
		for (uint32_t k = first; k <= i; k++)
			have[k / 8] ^= (uint8_t)(1u << k % 8);
	}
	return fix;
}

static void fix_bitmap(struct check *c, uint32_t ag, uint32_t index, const uint8_t *bits,
		       uint8_t *ready)
{
	uint64_t addr = super_ag_addr(c->s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, c->s->volume, addr, ag, 0 };
	struct bitmap_disk *d = (void *)c->levels[1];

	memset(d, 0, sizeof(d->hdr));
	memcpy(d->bits, bits, BITMAP_BYTES);
	fix_seal(c, d, &e);
	ready[index / 8] |= (uint8_t)(1u << index % 8);
}

static uint32_t bits_free(const uint8_t *bits)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < BITMAP_BYTES; i += 8) {
		uint64_t word;

		memcpy(&word, bits + i, 8);
		/* Most are one of these. */
		if (word == UINT64_MAX)
			used += 64;
		else if (word)
			used += (uint32_t)__builtin_popcountll(word);
	}
	return BITMAP_BITS - used;
}

/* What the group itself uses, and the claims. */
void chk_bits_expected(struct check *c, uint32_t ag, uint32_t index, uint8_t *bits)
{
	struct chk_part **parts = c->groups[ag].parts;
	const struct chk_part *part = parts ? parts[index] : NULL;

	ag_bitmap_fresh(c->s, ag, c->groups[ag].blocks, index, bits);
	chk_part_add(part, bits);
}

/* What is free in a bitmap block that was never initialised; the copy never lies there. */
static uint32_t fresh_free(const struct check *c, uint32_t ag, uint32_t index)
{
	uint32_t blocks = c->groups[ag].blocks, first = index * BITMAP_BITS;
	uint32_t here = blocks > first ? blocks - first : 0;

	if (here > BITMAP_BITS)
		here = BITMAP_BITS;
	return here - (index == 0 ? super_ag_meta(c->s) : 0);
}

/* Whether a superblock copy lies in this part, and which bit is its. */
static bool holds_copy(const struct check *c, uint32_t ag, uint32_t index, uint32_t *bit)
{
	uint32_t copy_ag, block;

	if (super_ag_of(c->s, c->s->copy_addr, &copy_ag) || copy_ag != ag)
		return false;
	block = group_block(c, ag, c->s->copy_addr >> BLOCK_SHIFT);
	*bit = block % BITMAP_BITS;
	return block / BITMAP_BITS == index;
}

/* One bitmap block; *@free_blocks grows by what it calls free.  @ready: the header's bits. */
static void check_bitmap(struct check *c, uint32_t ag, uint32_t index, uint8_t *ready_bits,
			 uint32_t *free_blocks, uint8_t *buf)
{
	bool ready = ready_bits[index / 8] & 1u << index % 8;
	uint64_t addr = super_ag_addr(c->s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, c->s->volume, addr, ag, 0 };
	uint8_t want[BITMAP_BYTES], have[BITMAP_BYTES];
	uint32_t copy, want_free;
	bool has_copy = holds_copy(c, ag, index, &copy);

	if (c->online && c->online->no_claims) {
		if (!ready)
			*free_blocks += fresh_free(c, ag, index);
		else if (!chk_block(c, &e, buf, CHECK_BITMAP_DAMAGED, "bitmap"))
			*free_blocks += bits_free(((struct bitmap_disk *)buf)->bits);
		else
			c->online->bitmap_lost = true;
		return;
	}
	if (!ready && !has_copy && (!c->groups[ag].parts || !c->groups[ag].parts[index])) {
		*free_blocks += fresh_free(c, ag, index);
		c->r->blocks_used += BITMAP_BITS - fresh_free(c, ag, index);
		return;
	}
	chk_bits_expected(c, ag, index, want);
	want_free = bits_free(want);
	c->r->blocks_used += BITMAP_BITS - want_free;
	if (!ready) {
		ag_bitmap_fresh(c->s, ag, c->groups[ag].blocks, index, have);
		if (has_copy)
			have[copy / 8] &= (uint8_t)~(1u << copy % 8);
	} else if (chk_block(c, &e, buf, CHECK_BITMAP_DAMAGED, "bitmap") == 0) {
		memcpy(have, ((struct bitmap_disk *)buf)->bits, BITMAP_BYTES);
	} else {
		*free_blocks += want_free;
		if (c->verify_repair)
			fix_bitmap(c, ag, index, want, ready_bits);
		return;
	}
	if (compare_bits(c, ag, index, want, have, ready))
		fix_bitmap(c, ag, index, have, ready_bits);
	*free_blocks += memcmp(want, have, BITMAP_BYTES) ? bits_free(have) : want_free;
}

void chk_group_space(struct check *c, uint32_t ag)
{
	uint64_t addr = super_ag_addr(c->s, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, c->s->volume, addr, ag, 0 };
	struct ag_disk *d = (void *)c->levels[0];
	uint32_t blocks = c->groups[ag].blocks, free_blocks = 0;
	uint32_t count = super_ag_bitmaps(c->s);
	uint8_t ready[BITMAPS_MAX / 8];
	bool fix;

	c->subject = ag;
	/* The header was verified, and damage reported, when the clusters were read. */
	if (chk_read(c, addr, c->levels[0], 1) || meta_verify(d, &e, NULL, 0))
		return;
	memcpy(ready, d->bitmap_ready, sizeof(ready));
	for (uint32_t i = 0; i < count; i++)
		check_bitmap(c, ag, i, ready, &free_blocks, c->levels[1]);
	/* Bits past the end of the group count as used, and are none of its blocks. */
	c->r->blocks_used -= (uint64_t)count * BITMAP_BITS - blocks;
	c->r->blocks += blocks;
	fix = memcmp(ready, d->bitmap_ready, sizeof(ready)) != 0;
	if (free_blocks != le32_to_cpu(d->free_blocks) && !(c->online && c->online->bitmap_lost))
		fix |= chk_report(c, CHECK_AG_FREE, addr,
				  "group %u: free blocks: expected %u, found %u", ag, free_blocks,
				  le32_to_cpu(d->free_blocks));
	if (!fix)
		return;
	memcpy(d->bitmap_ready, ready, sizeof(ready));
	d->free_blocks = cpu_to_le32(free_blocks);
	fix_seal(c, d, &e);
}

struct bitmap_place {
	uint32_t ag, block;		/* 0: the header, then the bitmap blocks */
};

static bool next_bitmap(struct check *c, void *arg, struct chk_place *p)
{
	struct bitmap_place *next = arg;

	while (next->ag < c->s->ag_count) {
		uint32_t ag = next->ag, index = next->block - 1;
		bool wanted = next->block == 0 || c->groups[ag].ready[index / 8] & 1u << index % 8;

		*p = (struct chk_place){ super_ag_addr(c->s, ag) +
					 (uint64_t)(AG_HEADER_BLOCK + next->block) * BLOCK_SIZE, 1 };
		if (++next->block > super_ag_bitmaps(c->s))
			*next = (struct bitmap_place){ ag + 1, 0 };
		if (wanted)
			return true;
	}
	return false;
}

void chk_bitmaps(struct check *c)
{
	struct bitmap_place next = { 0, 0 };
	struct chk_source source = { next_bitmap, &next, NULL, false };

	chk_ahead_begin(c, CHK_LANE_MAIN, &source);
	for (uint32_t ag = 0; ag < c->s->ag_count; ag++) {
		chk_group_space(c, ag);
		chk_progress(c, "bitmaps", ag + 1, c->s->ag_count);
	}
	chk_ahead_end(c, CHK_LANE_MAIN);
}
