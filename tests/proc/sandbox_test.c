/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit.h"

#define NOBODY	65534

/* Under sanitizers the filter only logs: what it forbids cannot be tested there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTER_KILLS	false
#else
#define FILTER_KILLS	true
#endif

/* Runs @fn in a process that has given everything up.  Return: as waitpid() says. */
static int confined(int (*fn)(void))
{
	pid_t parent = getpid(), pid = fork();
	const char *what;
	int status = -1;

	if (pid == 0) {
		if (sandbox_drop(NOBODY, NOBODY, parent, &what) || sandbox_filter())
			_exit(99);
		_exit(fn());
	}
	waitpid(pid, &status, 0);
	return status;
}

static bool can_run(void)
{
	return geteuid() == 0;
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static int nothing_left(void)
{
	uid_t r, e, s;

	if (getresuid(&r, &e, &s) || r != NOBODY || e != NOBODY || s != NOBODY)
		return 1;
	return getgroups(0, NULL) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
	       prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : 2;
}

/* Without the filter, which would not let the process ask. */
static void privileges_are_gone(void)
{
	pid_t parent = getpid(), pid;
	const char *what;
	int status = -1;

	if (!can_run())
		return;
	pid = fork();
	if (pid == 0)
		_exit(sandbox_drop(NOBODY, NOBODY, parent, &what) ? 99 : nothing_left());
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(status, 0);
}

/* A worker without a parent would serve on, unable to fence or to be stopped. */
static void a_worker_whose_parent_has_died_already_does_not_begin(void)
{
	const char *what = "";
	int status = -1;
	pid_t pid;

	if (!can_run())
		return;
	pid = fork();
	if (pid == 0)	/* as if its parent had been another one */
		_exit(sandbox_drop(NOBODY, NOBODY, 1 << 20, &what) == -ESRCH ? 7 : 0);
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(WEXITSTATUS(status), 7);
}

static void *in_thread(void *arg)
{
	*(int *)arg = open("/etc/hostname", O_RDONLY) < 0 && errno == EACCES;
	return NULL;
}

static int use_what_is_allowed(void)
{
	int denied = 0;
	pthread_t t;
	void *p;

	if (pthread_create(&t, NULL, in_thread, &denied) || pthread_join(t, NULL))
		return 1;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || munmap(p, 4096))
		return 2;
	if (!denied && FILTER_KILLS)
		return 3;
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 && FILTER_KILLS ? 4 : 0;
}

static void threads_and_memory_work_and_files_do_not_open(void)
{
	if (can_run())
		CU_ASSERT_EQUAL(confined(use_what_is_allowed), 0);
}

/*
 * libiscsi has to be able to make a socket and to believe that it connects: it is dup2()ed over
 * by one that the parent has connected.  By itself it leads nowhere.
 */
static int try_to_connect(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(9),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (!FILTER_KILLS)
		return 0;
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ||
	    errno != EINPROGRESS)
		return 1;
	if (send(fd, "", 1, MSG_NOSIGNAL) >= 0 || errno != EPIPE)
		return 2;
	if (socket(AF_INET, SOCK_DGRAM, 0) >= 0 || errno != EACCES)
		return 3;
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EACCES ? 4 : 0;
}

static void no_connection_can_be_made(void)
{
	if (can_run())
		CU_ASSERT_EQUAL(confined(try_to_connect), 0);
}

/* TCP Fast Open connects by sending. */
static int do_fast_open(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(9),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return sendto(socket(AF_INET, SOCK_STREAM, 0), "", 1, MSG_FASTOPEN,
		      (struct sockaddr *)&addr, sizeof(addr)) >= 0;
}

static int do_listen(void)
{
	return listen(socket(AF_INET, SOCK_STREAM, 0), 1);
}

static int do_exec(void)
{
	char *argv[] = { "true", NULL };

	execv("/bin/true", argv);
	return 1;
}

static int do_fork(void)
{
	return fork() < 0;
}

static int do_kill(void)
{
	return kill(getppid(), 0);
}

static int do_map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int do_setuid(void)
{
	return setuid(0);
}

static int do_unlink(void)
{
	return unlink("/tmp/lunfs-no-such-file");
}

/* R9: whoever takes the worker over can make it do none of this. */
static void forbidden_calls_end_the_process(void)
{
	static int (*const calls[])(void) = { do_exec, do_fork, do_kill, do_map_code, do_setuid,
					      do_unlink, do_fast_open, do_listen };

	if (!can_run() || !FILTER_KILLS)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		CU_ASSERT_TRUE(was_killed(confined(calls[i])));
}

UNIT_MAIN("sandbox",
	  UNIT_TEST(privileges_are_gone),
	  UNIT_TEST(a_worker_whose_parent_has_died_already_does_not_begin),
	  UNIT_TEST(threads_and_memory_work_and_files_do_not_open),
	  UNIT_TEST(no_connection_can_be_made),
	  UNIT_TEST(forbidden_calls_end_the_process));
