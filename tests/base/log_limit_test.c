// SPDX-License-Identifier: Apache-2.0
/* One object that never stops: few lines of it, and all of the others'. */
#include "base/log_limit.h"

#include "base/types.h"
#include "tests/unit.h"

#define SECOND	LOG_LIMIT_REFILL_NS

static unsigned int taken_of(struct log_limit *l, const char *object, uint64_t now, unsigned int n)
{
	unsigned int i, count = 0;
	uint32_t left_out;

	for (i = 0; i < n; i++)
		count += log_limit_take(l, object, now, &left_out);
	return count;
}

static void a_flood_is_cut_and_counted(void)
{
	struct log_limit l = { 0 };
	uint64_t now = 5000 * SECOND;
	uint32_t left_out = 77;

	CU_ASSERT_EQUAL(taken_of(&l, "ds1:/a", now, 1000), LOG_LIMIT_BURST);
	CU_ASSERT_EQUAL(taken_of(&l, "ds1:/b", now, 10), 10);	/* not its fault */
	CU_ASSERT_TRUE(log_limit_take(&l, "ds1:/a", now + SECOND, &left_out));
	CU_ASSERT_EQUAL(left_out, 1000 - LOG_LIMIT_BURST);
	CU_ASSERT_FALSE(log_limit_take(&l, "ds1:/a", now + SECOND, &left_out));
	CU_ASSERT_FALSE(log_limit_take(&l, "ds1:/a", now + 2 * SECOND - 1, &left_out));
	CU_ASSERT_TRUE(log_limit_take(&l, "ds1:/a", now + 2 * SECOND, &left_out));
	CU_ASSERT_EQUAL(left_out, 2);
}

static void who_is_quiet_again_may_say_as_much_as_before(void)
{
	struct log_limit l = { 0 };
	uint64_t now = 5000 * SECOND;

	CU_ASSERT_EQUAL(taken_of(&l, "ds1", now, 150), LOG_LIMIT_BURST);
	now += (LOG_LIMIT_BURST + 1) * SECOND;
	CU_ASSERT_EQUAL(taken_of(&l, "ds1", now, 150), LOG_LIMIT_BURST);
	CU_ASSERT_EQUAL(taken_of(&l, "ds1", now - SECOND, 1), 0);	/* another thread's clock */
}

UNIT_MAIN("log_limit",
	UNIT_TEST(a_flood_is_cut_and_counted),
	UNIT_TEST(who_is_quiet_again_may_say_as_much_as_before));
