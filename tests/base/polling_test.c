/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for work instead of sleeping goes on while it pays, and stops where cores are scarce. */
#include "base/polling.h"

#include "tests/unit.h"

#define US	1000ULL
#define MS	1000000ULL
#define POLL	(50 * US)

static uint64_t now, work;

static void begin(struct polling *p, uint64_t max_ns)
{
	now = work = 1000 * MS;
	polling_init(p, max_ns, now);
}

/* Looks every microsecond until it gives up or @after_ns have passed.  Return: for how long. */
static uint64_t look(struct polling *p, uint64_t after_ns)
{
	uint64_t start = now;

	while (now - start < after_ns && polling_goes_on(p, now, work))
		now += US;
	return now - start;
}

static void find(struct polling *p)
{
	polling_found(p, now);
	work = now;
}

static void work_that_comes_in_time_is_waited_for(void)
{
	struct polling p;

	begin(&p, POLL);
	for (int i = 0; i < 1000; i++) {
		CU_ASSERT_EQUAL(look(&p, 30 * US), 30 * US);
		find(&p);
	}
	/* A pause after a burst costs the time of polling, and no more than that. */
	CU_ASSERT_EQUAL(look(&p, MS), POLL);
	now += MS;
	find(&p);
	/* Nor is one request that comes after a pause a burst. */
	CU_ASSERT_EQUAL(look(&p, 30 * US), 0);
	now += 30 * US;
	find(&p);
	CU_ASSERT_EQUAL(look(&p, 30 * US), 30 * US);
}

/*
 * Who brings the work shares the core with us: it comes as soon as we sleep, and not before.  The
 * polling time was restored by each request that came in no time, and each next one paid for it.
 */
static void work_that_comes_once_we_sleep_is_slept_for(void)
{
	uint64_t spun = 0, start;
	struct polling p;

	begin(&p, POLL);
	for (start = now; now - start < 2000 * MS; now += 10 * US) {
		find(&p);
		spun += look(&p, MS);
	}
	/* Some tries in two seconds, and after these one in 128 ms. */
	CU_ASSERT_TRUE(spun > 10 * POLL && spun < 25 * POLL);
	/* On a core of its own again: it is found out, and forgotten what was. */
	now += 200 * MS;
	find(&p);
	for (int i = 0; i < 100; i++) {
		now += 10 * US;
		find(&p);
		CU_ASSERT_EQUAL(look(&p, 20 * US), 20 * US);
	}
	find(&p);
	for (int i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(look(&p, MS), POLL);
		now += US;
		find(&p);
		now += US;
		find(&p);
	}
	CU_ASSERT_EQUAL(look(&p, MS), 0);
	now += MS;
	find(&p);
	now += US;
	find(&p);
	CU_ASSERT_EQUAL(look(&p, MS), POLL);
}

/* It was taken off the core while it looked: others want that. */
static void who_is_preempted_sleeps(void)
{
	struct polling p;

	begin(&p, POLL);
	for (int i = 0; i < 100; i++) {
		look(&p, 20 * US);
		find(&p);
	}
	look(&p, 20 * US);
	now += 3 * MS;
	for (int i = 0; i < 10; i++) {
		find(&p);
		CU_ASSERT_EQUAL(look(&p, MS), 0);
		now += 10 * US;
	}
	now += 2 * MS;
	find(&p);
	now += 10 * US;
	find(&p);
	CU_ASSERT_EQUAL(look(&p, 20 * US), 20 * US);
	now += 3 * MS;
	CU_ASSERT_FALSE(polling_goes_on(&p, now, work));
	find(&p);
	CU_ASSERT_EQUAL(look(&p, MS), 0);
}

static void without_a_time_it_never_looks(void)
{
	struct polling p;

	begin(&p, 0);
	CU_ASSERT_EQUAL(look(&p, MS), 0);
	find(&p);
	CU_ASSERT_EQUAL(look(&p, MS), 0);
}

UNIT_MAIN("base/polling",
	UNIT_TEST(work_that_comes_in_time_is_waited_for),
	UNIT_TEST(work_that_comes_once_we_sleep_is_slept_for),
	UNIT_TEST(who_is_preempted_sleeps),
	UNIT_TEST(without_a_time_it_never_looks));
