/* SPDX-License-Identifier: Apache-2.0 */
/* How much of what waits in a ring is taken at a time, by what the device and the driver do meanwhile. */
#include "tests/vhost/vhu_rig.h"

#define BATCHES_MAX	64

static struct blkdev_ops watching;
static struct blk_io *held[QSIZE];
static bool holds;		/* the device ends nothing before it is told to */
static unsigned int held_count, batches[BATCHES_MAX];
static atomic_uint batch_count, given;

static void watch_submit(struct blkdev *d, struct blk_io **ios, unsigned int count)
{
	unsigned int n = atomic_load(&batch_count);

	(void)d;
	if (n < BATCHES_MAX)
		batches[n] = count;
	atomic_store(&batch_count, n + 1);
	for (unsigned int i = 0; i < count; i++) {
		if (holds)
			held[held_count++] = ios[i];
		else
			ios[i]->done(ios[i], 0);
	}
	atomic_fetch_add(&given, count);
}

static void let_go(void *arg)
{
	(void)arg;
	for (; held_count; held_count--)
		held[held_count - 1]->done(held[held_count - 1], 0);
}

static void begin_watching(void *arg)
{
	(void)arg;
	watching = *dev->ops;
	watching.submit = watch_submit;
	dev->ops = &watching;
}

static void fill_ring(void *arg)
{
	uint32_t len = *(uint32_t *)arg;
	unsigned int n = fill_table(BLK_T_IN, 0, AT_DATA, len);

	for (unsigned int i = 0; i < QSIZE; i++) {
		put_desc(i, GPA + AT_TABLE, n * 16, DESC_F_INDIRECT, true);
		make_available((uint16_t)i);
	}
}

/* In the reactor's thread, which so sees them all at once; waits until all were given to the device. */
static void all_at_once(uint32_t len)
{
	atomic_store(&batch_count, 0);
	atomic_store(&given, 0);
	reactor_call_sync(r, fill_ring, &len);
	while (atomic_load(&given) < QSIZE)
		sched_yield();
	reactor_call_sync(r, nothing, NULL);
	CU_ASSERT_EQUAL(atomic_load(&given), QSIZE);
}

/* Each queue begins so, when nothing is known of the device. */
static void all_to_begin_with(void)
{
	all_at_once(4096);
	CU_ASSERT_EQUAL(batches[0], QSIZE);
	CU_ASSERT_EQUAL(atomic_load(&batch_count), 1);
}

static void set_up(bool packed_ring, bool device_holds)
{
	packed = packed_ring;
	holds = device_holds;
	held_count = 0;
	device_make();
	reactor_call_sync(r, begin_watching, NULL);
	front_start();
}

static void finish(void)
{
	front_free();
	device_free();
}

/* The driver has the first back, and is awake, long before the last is begun. */
static void a_device_that_is_done_at_once_gets_a_part_at_a_time(void)
{
	for (int format = 0; format < 2; format++) {
		set_up(format, false);
		all_to_begin_with();
		all_at_once(4096);
		CU_ASSERT_EQUAL(batches[0], 2);
		CU_ASSERT_EQUAL(batches[1], 1);
		CU_ASSERT(atomic_load(&batch_count) >= QSIZE - 1);
		finish();
	}
}

/* It works on them side by side, and what it is not given it cannot begin. */
static void a_device_that_takes_its_time_gets_all_that_there_is(void)
{
	for (int format = 0; format < 2; format++) {
		set_up(format, true);
		for (unsigned int again = 0; again < 3; again++) {
			all_to_begin_with();
			reactor_call_sync(r, let_go, NULL);
		}
		finish();
	}
}

/* Each takes longer than a driver needs to wake up. */
static void large_requests_go_one_at_a_time(void)
{
	set_up(false, false);
	all_to_begin_with();
	all_at_once(128 << 10);
	CU_ASSERT_EQUAL(batches[0], 1);
	CU_ASSERT_EQUAL(atomic_load(&batch_count), QSIZE);
	finish();
}

/* One who looks for himself is never waited for: batches of some size cost less. */
static void a_driver_that_never_sleeps_gets_more_at_a_time(void)
{
	set_up(false, false);
	((struct avail_wire *)(void *)(mem + AT_AVAIL))->flags = AVAIL_F_NO_INTERRUPT;
	for (unsigned int i = 0; i < 300; i++)
		all_at_once(4096);
	CU_ASSERT_EQUAL(atomic_load(&batch_count), 2);
	finish();
}

static void a_driver_that_is_told_gets_a_part_for_ever(void)
{
	set_up(false, false);
	for (unsigned int i = 0; i < 300; i++)
		all_at_once(4096);
	CU_ASSERT_EQUAL(batches[0], 2);
	finish();
}

UNIT_MAIN("vhost/vhu_rounds",
	  UNIT_TEST(a_device_that_is_done_at_once_gets_a_part_at_a_time),
	  UNIT_TEST(a_device_that_takes_its_time_gets_all_that_there_is),
	  UNIT_TEST(large_requests_go_one_at_a_time),
	  UNIT_TEST(a_driver_that_never_sleeps_gets_more_at_a_time),
	  UNIT_TEST(a_driver_that_is_told_gets_a_part_for_ever));
