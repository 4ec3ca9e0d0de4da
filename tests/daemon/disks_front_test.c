// SPDX-License-Identifier: Apache-2.0
/* disks_front.c: what is remembered of users while a worker is busy with what they did before. */
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

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
	for (unsigned int i = 0; i < DISKS_WRITERS; i++)
		pthread_mutex_init(&disks.writing[i], NULL);
	a.all = &disks;
	a.working = true;
}

static void close_world(void)
{
	for (unsigned int i = 0; i < DISKS_WRITERS; i++)
		pthread_mutex_destroy(&disks.writing[i]);
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

static struct store store;
static struct fs fs;
static atomic_bool saved;

static void *save(void *arg)
{
	disks_state_save(arg);
	atomic_store(&saved, true);
	return NULL;
}

static void pause_ms(unsigned int ms)
{
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + ms * NSEC_PER_MSEC);
}

/*
 * A reactor serves many front ends, and waited here for a page cache that another disk's record was
 * being written to: guests had no answer to messages that need no I/O at all.
 */
static void nobody_waits_for_the_writing_of_a_record(void)
{
	struct disks_saved got;
	struct timespec until;
	pthread_t thread;

	open_world();
	store.fs = &fs;
	a.store = &store;
	a.record = 3;
	strcpy(store.device, "/dev/lun");
	strcpy(a.path, "/disk");
	disks.state_fd = memfd_create("state", MFD_CLOEXEC);
	pthread_mutex_lock(&disks.writing[3]);	/* the file system does not get on */
	atomic_store(&saved, false);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, save, &a), 0);
	pause_ms(30);
	CU_ASSERT_FALSE(atomic_load(&saved));
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	CU_ASSERT_EQUAL_FATAL(pthread_mutex_timedlock(&disks.mutex, &until), 0);
	pthread_mutex_unlock(&disks.mutex);
	disks_post_event(&a, ATTACHMENT_START);
	/* What is written in the end is what holds then. */
	a.claim.sequence = 77;
	a.has_claim = true;
	pthread_mutex_unlock(&disks.writing[3]);
	pthread_join(thread, NULL);
	CU_ASSERT(disks_state_load(&disks, 3, &got) && got.claim.sequence == 77);
	a.forgotten = true;
	disks_state_clear(&disks, 3);
	disks_state_save(&a);
	CU_ASSERT_FALSE(disks_state_load(&disks, 3, &got));
	close(disks.state_fd);
	close_world();
}

UNIT_MAIN("daemon/disks_front",
	  UNIT_TEST(nobody_waits_for_the_writing_of_a_record),
	  UNIT_TEST(who_comes_and_goes_is_remembered_once),
	  UNIT_TEST(handover_of_stopped_rings_is_remembered_once));
