// SPDX-License-Identifier: Apache-2.0
#include "base/siphash.h"

#include "tests/unit.h"

/* Directories are ordered by it: another function would be another format. */
static void known_answers_hold(void)
{
	/* The paper's example (appendix A) and the first vectors of its reference code. */
	static const uint64_t expected[] = {
		[0] = 0x726fdb47dd0e0e31, [1] = 0x74f839c593dc67fd, [2] = 0x0d6c8009d9a94f5a,
		[8] = 0x93f5f5799a932462, [15] = 0xa129ca6149be45e5,
	};
	uint8_t key[16], in[16];

	for (unsigned int i = 0; i < 16; i++)
		key[i] = in[i] = (uint8_t)i;
	for (unsigned int len = 0; len < ARRAY_SIZE(expected); len++) {
		if (expected[len])
			CU_ASSERT_EQUAL(siphash24(key, in, len), expected[len]);
	}
}

/* Names from one directory must not collide in another whose key differs (R9). */
static void another_key_gives_another_hash(void)
{
	uint8_t key[16] = { 0 };
	uint64_t first = siphash24(key, "disk.img", 8);

	key[15] = 1;
	CU_ASSERT_NOT_EQUAL(siphash24(key, "disk.img", 8), first);
}

UNIT_MAIN("siphash",
	UNIT_TEST(known_answers_hold),
	UNIT_TEST(another_key_gives_another_hash));
