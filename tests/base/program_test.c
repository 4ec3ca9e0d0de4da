// SPDX-License-Identifier: Apache-2.0
/* What every program does first. */
#include "base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit.h"

/* Return: the error of a write to a file that may not grow; does not return if that is the end. */
static int write_beyond_limit(void)
{
	static const struct rlimit nothing = { 0, 0 };
	FILE *f = tmpfile();
	int err;

	if (!f)
		return ENOENT;
	signal(SIGXFSZ, SIG_DFL);
	program_begin();
	setrlimit(RLIMIT_FSIZE, &nothing);
	err = write(fileno(f), "x", 1) < 0 ? errno : 0;
	fclose(f);
	return err;
}

static void file_that_may_not_grow_is_an_error_and_no_end(void)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(write_beyond_limit());
	CU_ASSERT_FATAL(pid > 0);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_TRUE(WIFEXITED(status));
	CU_ASSERT_EQUAL(WEXITSTATUS(status), EFBIG);
}

static void closed_standard_descriptors_are_filled(void)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(0);
		close(2);
		program_begin();
		_exit(fcntl(0, F_GETFD) < 0 || fcntl(2, F_GETFD) < 0);
	}
	CU_ASSERT_FATAL(pid > 0);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
}

UNIT_MAIN("base/program",
	  UNIT_TEST(file_that_may_not_grow_is_an_error_and_no_end),
	  UNIT_TEST(closed_standard_descriptors_are_filled));
