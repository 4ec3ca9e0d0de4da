// SPDX-License-Identifier: Apache-2.0
/*
 * The one test of real clocks and threads: what it asserts holds on a machine of any speed.
 */
#include "base/env.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/unit.h"

#define SEC	NSEC_PER_SEC

struct pair {
	struct env_mutex mutex;
	struct env_cond cond;
	unsigned int turn, rounds;
	uint64_t sum;
	char name[16];
};

static void odd_turns(void *arg)
{
	struct pair *p = arg;
	struct env *env = env_posix();

	pthread_getname_np(pthread_self(), p->name, sizeof(p->name));
	env_mutex_lock(env, &p->mutex);
	while (p->turn < p->rounds) {
		while (p->turn % 2 == 0)
			env_cond_wait(env, &p->cond, &p->mutex, ENV_FOREVER);
		p->turn++;
		env_cond_broadcast(env, &p->cond);
	}
	env_mutex_unlock(env, &p->mutex);
}

/* A lost wake-up would hang a host for ever. */
static void threads_take_turns(void)
{
	struct env *env = env_posix();
	struct pair p = { .rounds = 1000 };
	struct env_thread *thread;

	env_mutex_init(env, &p.mutex);
	env_cond_init(env, &p.cond);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(env, "a-name-longer-than-15", odd_turns, &p,
					       &thread), 0);
	env_mutex_lock(env, &p.mutex);
	while (p.turn < p.rounds) {
		while (p.turn % 2)
			env_cond_wait(env, &p.cond, &p.mutex, env_now_ns(env) + 3600 * SEC);
		p.turn++;
		env_cond_broadcast(env, &p.cond);
	}
	env_mutex_unlock(env, &p.mutex);
	env_thread_join(env, thread);
	CU_ASSERT_STRING_EQUAL(p.name, "a-name-longer-t");
	env_cond_fini(env, &p.cond);
	env_mutex_fini(env, &p.mutex);
}

/* A heartbeat waits for its next beat and no longer. */
static void wait_ends_after_its_deadline_not_before(void)
{
	struct env *env = env_posix();
	struct env_mutex mutex;
	struct env_cond cond;
	uint64_t deadline;

	env_mutex_init(env, &mutex);
	env_cond_init(env, &cond);
	env_mutex_lock(env, &mutex);
	CU_ASSERT_FALSE(env_cond_wait(env, &cond, &mutex, 0));	/* long past */
	deadline = env_now_ns(env) + NSEC_PER_MSEC;
	while (env_cond_wait(env, &cond, &mutex, deadline))
		continue;
	CU_ASSERT_TRUE(env_now_ns(env) >= deadline);
	env_mutex_unlock(env, &mutex);
	env_cond_fini(env, &cond);
	env_mutex_fini(env, &mutex);
	deadline = env_now_ns(env) + NSEC_PER_MSEC;
	env_sleep_until(env, deadline);
	CU_ASSERT_TRUE(env_now_ns(env) >= deadline);
	CU_ASSERT_TRUE(env_realtime_ns(env) > 1700000000 * SEC);
}

static void random_bytes_differ(void)
{
	uint8_t a[600] = { 0 }, b[600] = { 0 };

	env_random(env_posix(), a, sizeof(a));
	env_random(env_posix(), b, sizeof(b));
	CU_ASSERT_NOT_EQUAL(memcmp(a, b, 32), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(a + 568, b + 568, 32), 0);
}

/* What went to stderr while @fn ran. */
static void capture(void (*fn)(void), char *text, size_t size)
{
	int saved = dup(STDERR_FILENO), fds[2];
	ssize_t n;

	CU_ASSERT_EQUAL_FATAL(pipe2(fds, O_NONBLOCK), 0);
	dup2(fds[1], STDERR_FILENO);
	fn();
	dup2(saved, STDERR_FILENO);
	n = read(fds[0], text, size - 1);
	text[n > 0 ? n : 0] = '\0';
	close(fds[0]);
	close(fds[1]);
	close(saved);
}

static void log_hostile_lines(void)
{
	log_error(env_posix(), "ds1:/a\nb", "block 0x%x is %s", 0x1a000u, "bad\nlunfs: info: ok");
	log_debug(env_posix(), "ds1", "not at the default level");
}

/* One fault, one line: a file's name from disk must not forge another (R6, R9). */
static void log_writes_one_line_whatever_it_is_told(void)
{
	char text[512];

	capture(log_hostile_lines, text, sizeof(text));
	CU_ASSERT_STRING_EQUAL(text, "lunfs: error: ds1:/a?b: block 0x1a000 is bad?lunfs: info: ok\n");
}

static void log_long_line(void)
{
	char object[2000];

	memset(object, 'o', sizeof(object) - 1);
	object[sizeof(object) - 1] = '\0';
	log_warning(env_posix(), object, "%s", object);
}

static void log_cuts_what_is_too_long(void)
{
	char text[4096];

	capture(log_long_line, text, sizeof(text));
	CU_ASSERT_TRUE(strlen(text) > 1000 && strlen(text) < 1100);
	CU_ASSERT_EQUAL(text[strlen(text) - 1], '\n');
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "o: o"));
}

static void log_too_much(void *arg)
{
	(void)arg;
	env_posix_log_no_wait();
	for (unsigned int i = 0; i < 1000; i++)
		log_warning(env_posix(), "ds1", "line %u", i);
}

/*
 * The journal hangs, or whoever was to read a pipe does not: a reactor that waited for that would stop all
 * its guests.  The last test, for it changes how all lines of this program go out.
 */
static void log_of_who_serves_others_waits_for_nobody(void)
{
	int saved = dup(STDERR_FILENO), fds[2];
	static char text[16 * 1024];
	struct env_thread *thread;
	ssize_t n;

	env_posix_log_limit();
	CU_ASSERT_EQUAL_FATAL(pipe2(fds, 0), 0);
	CU_ASSERT_FATAL(fcntl(fds[0], F_SETPIPE_SZ, 4096) > 0);
	dup2(fds[1], STDERR_FILENO);
	while (write(fds[1], text, 2048) == 2048 && !fcntl(fds[1], F_SETFL, O_NONBLOCK))
		continue;
	CU_ASSERT_EQUAL(fcntl(fds[1], F_SETFL, 0), 0);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(env_posix(), "reactor", log_too_much, NULL, &thread), 0);
	env_thread_join(env_posix(), thread);
	CU_ASSERT_TRUE(read(fds[0], text, sizeof(text)) > 0);
	log_warning(env_posix(), "ds2", "is read again");
	n = read(fds[0], text, sizeof(text) - 1);
	dup2(saved, STDERR_FILENO);
	CU_ASSERT_FATAL(n > 0);
	text[n] = '\0';
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "lines were left out: nobody read them\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "ds2: is read again\n"));
	close(fds[0]);
	close(fds[1]);
	close(saved);
}

UNIT_MAIN("env_posix",
	UNIT_TEST(threads_take_turns),
	UNIT_TEST(wait_ends_after_its_deadline_not_before),
	UNIT_TEST(random_bytes_differ),
	UNIT_TEST(log_writes_one_line_whatever_it_is_told),
	UNIT_TEST(log_cuts_what_is_too_long),
	UNIT_TEST(log_of_who_serves_others_waits_for_nobody));
