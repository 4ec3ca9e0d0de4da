/* SPDX-License-Identifier: Apache-2.0 */
/* What a unit test's program says when its time is over: tests/unit.c. */
#include "tests/unit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *hang(void *arg)
{
	pthread_setname_np(pthread_self(), "hung-thread");
	if (write(STDERR_FILENO, "!", 1) == 1)
		pause();
	return arg;
}

static void child_hangs(int out)
{
	pthread_t thread;

	dup2(out, STDERR_FILENO);
	close(out);
	unit_watch();
	pthread_create(&thread, NULL, hang, NULL);
	pthread_join(thread, NULL);
	_exit(0);
}

/* A hang that was seen once, on a machine that nobody can look at, tells its place. */
static void a_program_that_hangs_names_its_case_and_its_threads(void)
{
	char text[8192] = "";
	int fds[2], status = 0;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(pipe(fds), 0);
	pid = fork();
	CU_ASSERT_TRUE_FATAL(pid >= 0);
	if (pid == 0)
		child_hangs(fds[1]);
	close(fds[1]);
	CU_ASSERT_EQUAL(read(fds[0], text, 1), 1);	/* both threads are there */
	kill(pid, SIGTERM);
	while (len < sizeof(text) - 1 &&
	       (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "in the case a_program_that_hangs_names_its_case_"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "thread hung-thread\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "unit_test("));
}

/* Children that a test ends by the same signal die as ever. */
static void a_child_is_not_the_program(void)
{
	int status = 0;
	pid_t pid = fork();

	CU_ASSERT_TRUE_FATAL(pid >= 0);
	if (pid == 0) {
		close(STDERR_FILENO);
		raise(SIGTERM);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

UNIT_MAIN("unit",
	  UNIT_TEST(a_program_that_hangs_names_its_case_and_its_threads),
	  UNIT_TEST(a_child_is_not_the_program));
