/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk remembers of its map is what it was told last, or nothing. */
#include "fs/extents.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit.h"

#define BLOCKS	20000u

struct known {
	enum extent_kind kind;
	uint64_t block;		/* 0 and EXTENT_OWN: not known */
};

static struct known model[BLOCKS];
static unsigned int seed;

static unsigned int choose(unsigned int below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % below;
}

static void model_set(uint64_t start, uint64_t len, enum extent_kind kind, uint64_t block)
{
	for (uint64_t i = 0; i < len; i++)
		model[start + i] = (struct known){ kind, kind == EXTENT_ZERO ? 0 : block + i };
}

static void model_room(uint64_t start, uint64_t len, uint64_t block)
{
	for (uint64_t i = 0; i < len; i++)
		if (model[start + i].kind == EXTENT_ZERO)
			model[start + i] = (struct known){ EXTENT_ROOM, block + i };
}

static void model_forget(uint64_t start, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		model[start + i] = (struct known){ EXTENT_OWN, 0 };
}

static bool is_known(const struct known *k)
{
	return k->kind == EXTENT_ZERO || k->block;
}

/* @whole: nothing was evicted, so everything has to be there. */
static unsigned int compare(struct extents *x, bool whole)
{
	unsigned int wrong = 0;
	struct extent e;

	for (uint64_t b = 0; b < BLOCKS; b++) {
		bool found = extents_find(x, b, &e);

		if (!found) {
			wrong += whole && is_known(&model[b]);
			continue;
		}
		wrong += e.start != b || !e.len || e.kind != model[b].kind ||
			 (e.kind != EXTENT_ZERO && e.block != model[b].block);
		/* All of the run is as its first block. */
		for (uint64_t i = 1; i < e.len && b + i < BLOCKS && i < 50; i++)
			wrong += model[b + i].kind != e.kind ||
				 (e.kind != EXTENT_ZERO && model[b + i].block != e.block + i);
	}
	return wrong;
}

static void step(struct extents *x)
{
	uint64_t start = choose(BLOCKS), len = 1 + choose(choose(100) ? 12 : 3000);
	enum extent_kind kind = (enum extent_kind)choose(4);
	/* Often what follows its neighbour, so that runs meet. */
	uint64_t block = choose(2) ? 1000 + start : 1 + choose(1u << 30);

	len = len < BLOCKS - start ? len : BLOCKS - start;
	switch (choose(6)) {
	case 0:
		extents_forget(x, start, len);
		model_forget(start, len);
		break;
	case 1:
		extents_room(x, start, len, block);
		model_room(start, len, block);
		break;
	default:
		extents_set(x, start, len, kind, block);
		model_set(start, len, kind, block);
		break;
	}
}

/* A wrong answer here is another file's data in a guest's hands (R8). */
static void answers_are_what_was_told_last(void)
{
	struct extents x;

	for (unsigned int round = 0; round < 4; round++) {
		seed = round + 1;
		model_forget(0, BLOCKS);
		extents_init(&x, 64 * MIB);
		for (unsigned int i = 0; i < 6000; i++) {
			step(&x);
			if (i % 500 == 0)
				CU_ASSERT_EQUAL(compare(&x, true), 0);
		}
		CU_ASSERT_EQUAL(compare(&x, true), 0);
		CU_ASSERT_EQUAL(x.evictions, 0);
		extents_freeze(&x);
		for (unsigned int i = 0; i < BLOCKS; i++) {
			if (model[i].kind == EXTENT_OWN && model[i].block)
				model[i].kind = EXTENT_BELOW;
			else if (model[i].kind == EXTENT_ROOM)
				model[i] = (struct known){ EXTENT_ZERO, 0 };
		}
		CU_ASSERT_EQUAL(compare(&x, true), 0);
		extents_fini(&x);
	}
}

/* With little memory it forgets, and is never wrong for it. */
static void little_memory_makes_it_forget_not_lie(void)
{
	struct extents x;

	seed = 77;
	model_forget(0, BLOCKS);
	extents_init(&x, 5 * (4096 + 16));
	for (unsigned int i = 0; i < 20000; i++) {
		step(&x);
		if (i % 1000 == 0)
			CU_ASSERT_EQUAL(compare(&x, false), 0);
	}
	CU_ASSERT_EQUAL(compare(&x, false), 0);
	CU_ASSERT_TRUE(x.evictions > 0);
	CU_ASSERT_TRUE(x.count <= 5);
	extents_fini(&x);
}

/* 62 TiB lie in groups of 16 GiB: their map has to fit in a small part of 64 MiB. */
static void a_disk_of_62_tib_fits_in_a_megabyte(void)
{
	uint64_t blocks = 62 * TIB / 4096, group = 16 * GIB / 4096, at;
	struct extents x;
	struct extent e;

	extents_init(&x, 48 * MIB);
	/* A leaf of the map, 32 MiB, at a time, as misses come. */
	for (at = 0; at < blocks; at += 8192)
		extents_set(&x, at, 8192, EXTENT_OWN, 1000 + at + at / group * 100);
	CU_ASSERT_TRUE(extents_bytes(&x) < 1 * MIB);
	CU_ASSERT_EQUAL(x.evictions, 0);
	CU_ASSERT_TRUE(extents_find(&x, blocks - 1, &e));
	CU_ASSERT_EQUAL(e.block, 1000 + blocks - 1 + (blocks - 1) / group * 100);
	CU_ASSERT_EQUAL(e.len, 1);
	CU_ASSERT_FALSE(extents_find(&x, blocks, &e));
	extents_fini(&x);
}

UNIT_MAIN("fs/extents",
	UNIT_TEST(answers_are_what_was_told_last),
	UNIT_TEST(little_memory_makes_it_forget_not_lie),
	UNIT_TEST(a_disk_of_62_tib_fits_in_a_megabyte));
