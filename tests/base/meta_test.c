// SPDX-License-Identifier: Apache-2.0
#include "base/meta.h"

#include <errno.h>

#include "tests/unit.h"

static const uint8_t volume[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const uint8_t other_volume[16] = { 9 };
static uint8_t block[META_BLOCK_SIZE];

static struct meta_expect sealed(enum meta_type type)
{
	struct meta_expect e = { type, volume, 0x1a000, 77, 5 };

	for (unsigned int i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 31);
	meta_seal(block, &e, 42);
	return e;
}

static void sealed_block_is_believed(void)
{
	struct meta_expect e = sealed(META_INODE);

	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), 0);
	CU_ASSERT_EQUAL(meta_version(block), 42);
	e.volume = NULL;	/* not known yet: the first read of a superblock */
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), 0);
}

/* A misdirected, stale or foreign block is whole, and still not the one asked for (R6). */
static void block_of_another_place_is_refused(void)
{
	static const char *const words[] = { "type", "volume", "address", "owner", "birth" };

	for (unsigned int i = 0; i < ARRAY_SIZE(words); i++) {
		struct meta_expect e = sealed(META_INODE);
		char why[128] = "";

		if (i == 0)
			e.type = META_BITMAP;
		else if (i == 1)
			e.volume = other_volume;
		else if (i == 2)
			e.addr += META_BLOCK_SIZE;
		else if (i == 3)
			e.owner++;
		else
			e.birth++;
		CU_ASSERT_EQUAL(meta_verify(block, &e, why, sizeof(why)), -EUCLEAN);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, words[i]));
	}
}

/* Any flipped bit of the block is found, be it in the checksum itself. */
static void every_flipped_bit_is_found(void)
{
	struct meta_expect e = sealed(META_MAP_LEAF);

	for (unsigned int bit = 0; bit < 8 * META_BLOCK_SIZE; bit += bit < 512 ? 1 : 61) {
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CU_ASSERT_NOT_EQUAL(meta_verify(block, &e, NULL, 0), 0);
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	block[4000] ^= 1;
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), -EBADMSG);
}

/* The message is what an administrator has to go on. */
static void refusal_names_block_expected_and_found(void)
{
	struct meta_expect e = sealed(META_INODE);
	char why[128];

	e.owner = 78;
	meta_verify(block, &e, why, sizeof(why));
	CU_ASSERT_STRING_EQUAL(why, "inode block 0x1a000: owner is 0x4d, expected 0x4e");
	meta_verify(block, &e, why, 12);
	CU_ASSERT_STRING_EQUAL(why, "inode block");
}

/* Slots and lock records change by compare-and-write of one sector, which must hold all. */
static void slots_and_locks_are_covered_to_their_sector(void)
{
	struct meta_expect e = sealed(META_SLOT);

	CU_ASSERT_EQUAL(meta_length(META_SLOT), 512);
	CU_ASSERT_EQUAL(meta_length(META_LOCK), 512);
	CU_ASSERT_EQUAL(meta_length(META_SUPER), 4096);
	block[512] ^= 1;
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), 0);
	block[511] ^= 1;
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), -EBADMSG);
}

/* A length from the disk must never lead the checksum beyond the block (R9). */
static void hostile_length_is_refused(void)
{
	struct meta_expect e = sealed(META_INODE);
	struct meta_hdr_disk *hdr = (struct meta_hdr_disk *)block;

	hdr->length = cpu_to_le32(0xffffffff);
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), -EUCLEAN);
}

static void types_have_names(void)
{
	CU_ASSERT_STRING_EQUAL(meta_type_name(META_SUPER), "superblock");
	CU_ASSERT_STRING_EQUAL(meta_type_name(12345), "unknown");
}

UNIT_MAIN("meta",
	UNIT_TEST(sealed_block_is_believed),
	UNIT_TEST(block_of_another_place_is_refused),
	UNIT_TEST(every_flipped_bit_is_found),
	UNIT_TEST(refusal_names_block_expected_and_found),
	UNIT_TEST(slots_and_locks_are_covered_to_their_sector),
	UNIT_TEST(hostile_length_is_refused),
	UNIT_TEST(types_have_names));
