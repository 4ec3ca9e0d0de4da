/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/bufmem.h"

#include "fs/format.h"
#include "tests/unit.h"

#define COUNT	300u

static uint8_t *data[COUNT];
static struct bufmem_chunk *chunks[COUNT];

static void get(struct bufmem *m, unsigned int i)
{
	data[i] = bufmem_get(m, &chunks[i]);
	CU_ASSERT_PTR_NOT_NULL_FATAL(data[i]);
	CU_ASSERT_EQUAL((uintptr_t)data[i] % BLOCK_SIZE, 0);
	CU_ASSERT_TRUE(!data[i][0] && !memcmp(data[i], data[i] + 1, BLOCK_SIZE - 1));
	memset(data[i], (int)(i % 255) + 1, BLOCK_SIZE);
}

static void put(unsigned int i)
{
	CU_ASSERT_TRUE(data[i][0] == i % 255 + 1 && !memcmp(data[i], data[i] + 1, BLOCK_SIZE - 1));
	bufmem_put(chunks[i], data[i]);
	data[i] = NULL;
}

/* Two owners of one block would write over each other's metadata. */
static void blocks_are_aligned_zeroed_and_nobody_elses(void)
{
	struct bufmem *m = bufmem_new(env_posix());
	uint64_t rng = 7;

	CU_ASSERT_PTR_NOT_NULL_FATAL(m);
	for (unsigned int i = 0; i < COUNT; i++)
		get(m, i);
	for (unsigned int n = 0; n < 20000; n++) {
		unsigned int i;

		rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
		i = (unsigned int)(rng >> 33) % COUNT;
		if (data[i])
			put(i);
		else
			get(m, i);
	}
	for (unsigned int i = 0; i < COUNT; i++)
		if (data[i])
			put(i);
	bufmem_free(m);
}

UNIT_MAIN("fs/bufmem", UNIT_TEST(blocks_are_aligned_zeroed_and_nobody_elses));
