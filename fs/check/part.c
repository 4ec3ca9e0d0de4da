/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is claimed of the part of a group that one bitmap block describes, 126 MiB.
 *
 * Guests' disks are whole units: 64 blocks that begin at a multiple of 64, and lie in long runs.  So a
 * word of 64 blocks is mostly empty or full, and takes two bits; 8 bytes more if it is neither.
 * A part that is all full or all empty takes nothing.  At worst, with every word mixed, it is 3 %
 * more than a bitmap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check/internal.h"

#define MASK_WORDS	DIV_ROUND_UP(PART_WORDS, 64)

struct chk_part {
	uint64_t full[MASK_WORDS];	/* bit w: word w is all ones */
	uint64_t mixed[MASK_WORDS];	/* bit w: word w is in @words */
	uint16_t full_count, mixed_count, room;
	uint64_t words[];		/* @mixed_count of @room, in order */
};
static_assert(BITMAP_BITS % 64 == 0, "a part has whole words");

/* Stands for every part that is all claimed. */
static struct chk_part all;

static bool mask_has(const uint64_t *mask, uint32_t w)
{
	return mask[w / 64] >> w % 64 & 1;
}

/* Where word @w is, or would be, among the mixed ones. */
static uint32_t rank(const struct chk_part *part, uint32_t w)
{
	uint32_t before = 0;

	for (uint32_t i = 0; i < w / 64; i++)
		before += (uint32_t)__builtin_popcountll(part->mixed[i]);
	return before + (uint32_t)__builtin_popcountll(part->mixed[w / 64] &
						       ((1ULL << w % 64) - 1));
}

uint64_t chk_part_word(const struct chk_part *part, uint32_t w)
{
	if (!part)
		return 0;
	if (part == &all || mask_has(part->full, w))
		return UINT64_MAX;
	return mask_has(part->mixed, w) ? part->words[rank(part, w)] : 0;
}

void chk_part_add(const struct chk_part *part, uint8_t *bits)
{
	const uint64_t *mixed = part ? part->words : NULL;

	if (part == &all)
		memset(bits, 0xff, BITMAP_BYTES);
	for (uint32_t i = 0; part && part != &all && i < MASK_WORDS; i++)
		for (uint64_t left = part->full[i] | part->mixed[i]; left; left &= left - 1) {
			uint32_t w = i * 64 + (uint32_t)__builtin_ctzll(left);
			le64 word;

			memcpy(&word, bits + w * 8, 8);
			word = cpu_to_le64(le64_to_cpu(word) |
					   (mask_has(part->mixed, w) ? *mixed++ : UINT64_MAX));
			memcpy(bits + w * 8, &word, 8);
		}
}

/* Room for one mixed word more. */
static int grow(struct chk_part **part)
{
	struct chk_part *p = *part;
	uint32_t room = p ? p->room : 0;
	struct chk_part *bigger;

	if (p && p->mixed_count < room)
		return 0;
	/* malloc() deals in pieces of 16 bytes. */
	room += room < 8 ? 2 : room / 8 * 2;
	if (room > PART_WORDS)
		room = PART_WORDS;
	bigger = realloc(p, sizeof(*p) + room * sizeof(p->words[0]));
	if (!bigger)
		return -ENOMEM;
	if (!p)
		memset(bigger, 0, sizeof(*bigger));
	bigger->room = (uint16_t)room;
	*part = bigger;
	return 0;
}

static void drop_mixed(struct chk_part *p, uint32_t w)
{
	uint32_t at = rank(p, w);

	p->mixed[w / 64] &= ~(1ULL << w % 64);
	p->mixed_count--;
	memmove(&p->words[at], &p->words[at + 1], (p->mixed_count - at) * sizeof(p->words[0]));
}

static void set_full(struct chk_part **part, uint32_t w)
{
	struct chk_part *p = *part;

	if (mask_has(p->mixed, w))
		drop_mixed(p, w);
	p->full[w / 64] |= 1ULL << w % 64;
	if (++p->full_count < PART_WORDS)
		return;
	free(p);
	*part = &all;
}

/* Full, as @all is, but of its own: some of it is about to go. */
static int full_copy(struct chk_part **part)
{
	struct chk_part *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (uint32_t w = 0; w < PART_WORDS; w++)
		p->full[w / 64] |= 1ULL << w % 64;
	p->full_count = PART_WORDS;
	*part = p;
	return 0;
}

static void set_mixed(struct chk_part *p, uint32_t w, uint64_t word)
{
	uint32_t at = rank(p, w);

	if (mask_has(p->full, w)) {
		p->full[w / 64] &= ~(1ULL << w % 64);
		p->full_count--;
	}
	if (!mask_has(p->mixed, w)) {
		memmove(&p->words[at + 1], &p->words[at],
			(p->mixed_count - at) * sizeof(p->words[0]));
		p->mixed[w / 64] |= 1ULL << w % 64;
		p->mixed_count++;
	}
	p->words[at] = word;
}

int chk_part_set(struct chk_part **part, uint32_t w, uint64_t word)
{
	int err = 0;

	if (word == chk_part_word(*part, w))
		return 0;
	if (*part == &all)
		err = full_copy(part);
	if (!err && (!*part || (word != UINT64_MAX && !mask_has((*part)->mixed, w))))
		err = grow(part);
	if (err)
		return err;
	if (word == UINT64_MAX)
		set_full(part, w);
	else
		set_mixed(*part, w, word);
	return 0;
}

void chk_part_free(struct chk_part *part)
{
	if (part != &all)
		free(part);
}
