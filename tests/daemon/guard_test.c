/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/guard.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/env.h"
#include "tests/unit.h"

#define MSEC	NSEC_PER_MSEC

/* A word is due at its time and not before, and a machine that must be reset is not fed. */
static void a_lapsed_word_kills_and_starves(void)
{
	static struct guard_page page;
	uint64_t next;

	CU_ASSERT_EQUAL(guard_judge(&page, 1000 * MSEC, false, &next), GUARD_FEED);
	CU_ASSERT_EQUAL(next, (1000 + GUARD_TICK_MS) * MSEC);
	atomic_store(&page.words[GUARD_WORDS - 1], 1030 * MSEC);
	CU_ASSERT_EQUAL(guard_judge(&page, 1000 * MSEC, false, &next), GUARD_FEED);
	CU_ASSERT_EQUAL(next, 1030 * MSEC);
	CU_ASSERT_EQUAL(guard_judge(&page, 1030 * MSEC, false, &next), GUARD_KILL);
	/* Killed and not gone: once, and the device is left to strike, whatever the words say now. */
	CU_ASSERT_EQUAL(guard_judge(&page, 1040 * MSEC, true, &next), 0);
	atomic_store(&page.words[GUARD_WORDS - 1], 0);
	CU_ASSERT_EQUAL(guard_judge(&page, 1050 * MSEC, true, &next), 0);
}

/* A device that is none must be found out before a host relies on it. */
static void what_is_no_watchdog_is_refused(void)
{
	struct guard g;
	char why[200];

	CU_ASSERT_EQUAL(guard_open("/dev/null", &g, why, sizeof(why)), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "/dev/null: not a watchdog device");
	CU_ASSERT_EQUAL(guard_open("/nowhere/watchdog", &g, why, sizeof(why)), -ENOENT);
}

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	for (;;)
		pause();
}

/* The process that stands for the worker is killed when its word lapses, and the guard ends with it. */
static void the_guard_ends_who_lets_its_word_lapse(void)
{
	pid_t worker = sleeper();
	int pidfd = (int)syscall(SYS_pidfd_open, worker, 0), status = 0;
	struct guard g;
	char why[200];

	CU_ASSERT_FATAL(worker > 0 && pidfd >= 0);
	CU_ASSERT_EQUAL_FATAL(guard_open("", &g, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL_FATAL(guard_start(&g, pidfd), 0);
	/* Whoever gets no turn for a second takes it for silent; it beats until the word has lapsed. */
	while (!guard_is_alive(g.page))
		sched_yield();
	atomic_store(&g.page->words[3], env_now_ns(env_posix()) + 50 * MSEC);
	CU_ASSERT_EQUAL(waitpid(worker, &status, 0), worker);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CU_ASSERT_EQUAL(waitpid(g.pid, &status, 0), g.pid);
	CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(pidfd);
	close(g.pidfd);
	close(g.page_fd);
}

UNIT_MAIN("daemon/guard",
	  UNIT_TEST(a_lapsed_word_kills_and_starves),
	  UNIT_TEST(what_is_no_watchdog_is_refused),
	  UNIT_TEST(the_guard_ends_who_lets_its_word_lapse));
