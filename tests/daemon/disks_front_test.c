// SPDX-License-Identifier: Apache-2.0
/* disks_front.c: what is remembered of users while a worker is busy with what they did before. */
#include "daemon/disks.h"
#include "tests/unit.h"

static struct disks disks;
static struct attachment a;

/* A worker hangs in the device: nothing is taken from the queue. */
static void open_world(void)
{
	memset(&disks, 0, sizeof(disks));
	memset(&a, 0, sizeof(a));
	pthread_mutex_init(&disks.mutex, NULL);
	pthread_cond_init(&disks.changed, NULL);
	a.all = &disks;
	a.working = true;
}

static void close_world(void)
{
	pthread_cond_destroy(&disks.changed);
	pthread_mutex_destroy(&disks.mutex);
}

static void who_comes_and_goes_is_remembered_once(void)
{
	open_world();
	for (unsigned int i = 0; i < 3 * ATTACHMENT_EVENTS; i++)
		disks_post_event(&a, ATTACHMENT_CLOSED);
	CU_ASSERT_EQUAL(a.event_count, 1);
	close_world();
}

/* "lunfs disk handover", typed again and again while the first one waits for the device. */
static void handover_of_stopped_rings_is_remembered_once(void)
{
	open_world();
	for (unsigned int i = 0; i < 3 * ATTACHMENT_EVENTS; i++)
		disks_post_event(&a, ATTACHMENT_STOPPED);
	CU_ASSERT_EQUAL(a.event_count, 1);
	disks_post_event(&a, ATTACHMENT_START);
	disks_post_event(&a, ATTACHMENT_STOPPED);
	disks_post_event(&a, ATTACHMENT_CLOSED);
	CU_ASSERT_EQUAL(a.event_count, 4);
	close_world();
}

UNIT_MAIN("daemon/disks_front",
	  UNIT_TEST(who_comes_and_goes_is_remembered_once),
	  UNIT_TEST(handover_of_stopped_rings_is_remembered_once));
