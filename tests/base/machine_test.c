/* SPDX-License-Identifier: Apache-2.0 */
#include "base/machine.h"

#include <errno.h>
#include <unistd.h>

#include "tests/unit.h"

/* Two hosts played on one machine with one id would each take the other for its own past. */
static void derived_ids_differ_by_name_and_machine(void)
{
	uint8_t m[16] = { 1 }, other[16] = { 2 }, a[16], b[16], c[16], again[16];

	machine_derive_id(m, "alpha", a);
	machine_derive_id(m, "beta", b);
	machine_derive_id(other, "alpha", c);
	machine_derive_id(m, "alpha", again);
	CU_ASSERT_NOT_EQUAL(memcmp(a, b, 16), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(a, c, 16), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(a, a + 8, 8), 0);
	CU_ASSERT_EQUAL(memcmp(a, again, 16), 0);
	CU_ASSERT_EQUAL(a[6] >> 4, 8);
	CU_ASSERT_EQUAL(a[8] >> 6, 2);
}

/* A process may call itself ") Z 1": believing that would kill, or spare, the wrong one. */
static void stat_is_read_past_a_hostile_name(void)
{
	uint64_t start = 0;
	char state = 0;

	CU_ASSERT_EQUAL(machine_parse_stat("7 (a) Z 1 2 3) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 "
					   "16 17 18 424242 20 21", &start, &state), 0);
	CU_ASSERT_EQUAL(start, 424242);
	CU_ASSERT_EQUAL(state, 'T');
	CU_ASSERT_EQUAL(machine_parse_stat("", &start, &state), -EINVAL);
	CU_ASSERT_EQUAL(machine_parse_stat("7 (a)", &start, &state), -EINVAL);
	CU_ASSERT_EQUAL(machine_parse_stat("7 (a) S 1 2 3", &start, &state), -EINVAL);
	CU_ASSERT_EQUAL(start, 424242);
}

/* A pid alone names whoever has it now: with its start time it names one process for ever. */
static void own_start_time_is_stable_and_the_dead_have_none(void)
{
	uint64_t a = 0, b = 1;
	char state = 0;

	CU_ASSERT_EQUAL(machine_process_start((uint32_t)getpid(), &a, &state), 0);
	CU_ASSERT_EQUAL(machine_process_start((uint32_t)getpid(), &b, NULL), 0);
	CU_ASSERT_EQUAL(a, b);
	CU_ASSERT_EQUAL(state, 'R');
	CU_ASSERT_EQUAL(machine_process_start(0x7fffffff, &a, NULL), -ESRCH);
}

UNIT_MAIN("machine",
	  UNIT_TEST(derived_ids_differ_by_name_and_machine),
	  UNIT_TEST(stat_is_read_past_a_hostile_name),
	  UNIT_TEST(own_start_time_is_stable_and_the_dead_have_none));
