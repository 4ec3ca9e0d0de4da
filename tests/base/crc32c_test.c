// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include "tests/unit.h"

/* Every metadata block is sealed with it: another polynomial would be another format. */
static void known_answers_hold(void)
{
	uint8_t bytes[32];

	CU_ASSERT_EQUAL(crc32c(0, "123456789", 9), 0xe3069283);
	/* RFC 3720, B.4 */
	memset(bytes, 0, sizeof(bytes));
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
	CU_ASSERT_EQUAL(crc32c(0, bytes, 0), 0);
}

/* A block is summed in three parts, around its checksum field. */
static void sum_of_parts_is_the_sum_of_the_whole(void)
{
	uint8_t bytes[600];

	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	for (size_t cut = 0; cut <= sizeof(bytes); cut += 13) {
		uint32_t crc = crc32c(0, bytes, cut);

		CU_ASSERT_EQUAL(crc32c(crc, bytes + cut, sizeof(bytes) - cut),
				crc32c(0, bytes, sizeof(bytes)));
	}
}

UNIT_MAIN("crc32c",
	UNIT_TEST(known_answers_hold),
	UNIT_TEST(sum_of_parts_is_the_sum_of_the_whole));
