/* SPDX-License-Identifier: Apache-2.0 */
/* The checker's compact sets of blocks are what a plain bitmap would be. */
#include "fs/check/fix.h"

#include "tests/unit.h"

static uint64_t state;

static uint32_t below(uint32_t limit)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(state >> 33) % limit;
}

static void compare(const struct chk_part *part, const uint64_t *plain)
{
	uint8_t bits[BITMAP_BYTES] = { 0 };
	unsigned int wrong = 0;

	chk_part_add(part, bits);
	for (uint32_t w = 0; w < PART_WORDS; w++) {
		le64 word;

		memcpy(&word, bits + w * 8, 8);
		wrong += chk_part_word(part, w) != plain[w];
		wrong += le64_to_cpu(word) != plain[w];
	}
	CU_ASSERT_EQUAL(wrong, 0);
}

/* Runs as files have them: whole units, small files, the rest. */
static void fill(uint64_t seed, uint32_t runs, uint32_t longest)
{
	uint64_t plain[PART_WORDS] = { 0 };
	struct chk_part *part = NULL;

	state = seed;
	for (uint32_t n = 0; n < runs; n++) {
		uint32_t from = below(BITMAP_BITS), count = 1 + below(longest);

		for (uint32_t i = from; i < from + count && i < BITMAP_BITS; i++)
			plain[i / 64] |= 1ULL << i % 64;
		for (uint32_t w = from / 64; w <= (from + count) / 64 && w < PART_WORDS; w++)
			CU_ASSERT_EQUAL(chk_part_set(&part, w, plain[w]), 0);
		if (n % 16 == 0)
			compare(part, plain);
	}
	compare(part, plain);
	chk_part_free(part);
}

/* A block forgotten is called a leak, and freed under its file; one too many is lost. */
static void set_is_what_a_bitmap_would_be(void)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		fill(seed, 200, 1);
		fill(seed, 4000, 7);
		fill(seed, 600, 200);
		fill(seed, 100, 20000);
	}
}

/* Word by word until all is claimed: what is full takes no memory, and stays full. */
static void full_part_stays_full(void)
{
	struct chk_part *part = NULL, *other = NULL;

	for (uint32_t w = 0; w < PART_WORDS; w++) {
		CU_ASSERT_EQUAL(chk_part_set(&part, w, 0xff), 0);
		CU_ASSERT_EQUAL(chk_part_set(&other, PART_WORDS - 1 - w, UINT64_MAX), 0);
	}
	for (uint32_t w = 0; w < PART_WORDS; w++)
		CU_ASSERT_EQUAL(chk_part_set(&part, (w * 5) % PART_WORDS, UINT64_MAX), 0);
	for (uint32_t w = 0; w < PART_WORDS; w++)
		CU_ASSERT_EQUAL(chk_part_word(part, w), UINT64_MAX);
	CU_ASSERT_PTR_EQUAL(part, other);
	CU_ASSERT_EQUAL(chk_part_set(&part, 7, UINT64_MAX), 0);
	chk_part_free(part);
	chk_part_free(other);
}

/* A claim that is taken back, out of whatever it was in. */
static void what_is_taken_back_is_as_before(void)
{
	uint64_t plain[PART_WORDS];
	struct chk_part *part = NULL;

	state = 9;
	for (uint32_t w = 0; w < PART_WORDS; w++) {
		plain[w] = UINT64_MAX;
		CU_ASSERT_EQUAL(chk_part_set(&part, w, UINT64_MAX), 0);
	}
	for (uint32_t n = 0; n < 4000; n++) {
		uint32_t bit = below(BITMAP_BITS), w = bit / 64;

		plain[w] = n % 3 ? plain[w] & ~(1ULL << bit % 64) : n % 2 ? UINT64_MAX : 0;
		CU_ASSERT_EQUAL(chk_part_set(&part, w, plain[w]), 0);
		if (n % 16 == 0)
			compare(part, plain);
	}
	for (uint32_t w = 0; w < PART_WORDS; w++)
		CU_ASSERT_EQUAL(chk_part_set(&part, w, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(chk_part_set(&part, 5, UINT64_MAX - 1), 0);
	for (uint32_t w = 0; w < PART_WORDS; w++)
		plain[w] = w == 5 ? UINT64_MAX - 1 : UINT64_MAX;
	compare(part, plain);
	chk_part_free(part);
}

UNIT_MAIN("fs/check_part",
	  UNIT_TEST(set_is_what_a_bitmap_would_be),
	  UNIT_TEST(full_part_stays_full),
	  UNIT_TEST(what_is_taken_back_is_as_before));
