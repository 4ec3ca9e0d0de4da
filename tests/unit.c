/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of a unit test's program.  One that hangs is ended by its time limit (tests/unit.sh):
 * before that it says in which case it is and where each of its threads stands.
 */
#include "tests/unit.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAMES_MAX	24
#define ANSWER_MS	1000	/* of a thread that may have blocked the signal */

static pid_t watched;		/* the process; not the children that it forks */
static _Atomic pid_t asker;	/* the thread that was told, and asks the others */
static atomic_uint answers;

static void put(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		return;
}

static void show_stack(void)
{
	void *frames[FRAMES_MAX];
	char name[17] = "";

	prctl(PR_GET_NAME, name);
	put("  thread ");
	put(name);
	put("\n");
	backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
}

static void ask(pid_t tid)
{
	unsigned int before = atomic_load(&answers);

	if (syscall(SYS_tgkill, watched, tid, SIGTERM))
		return;
	for (int ms = 0; ms < ANSWER_MS && atomic_load(&answers) == before; ms++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (atomic_load(&answers) == before)
		put("  a thread does not answer\n");
}

/* opendir() would allocate, and a thread that hangs may have the allocator's lock. */
static void ask_the_others(void)
{
	int dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_Alignas(struct dirent64) char buf[4096];
	ssize_t len;

	while (dir >= 0 && (len = getdents64(dir, buf, sizeof(buf))) > 0) {
		struct dirent64 *d;

		for (ssize_t at = 0; at < len; at += d->d_reclen) {
			pid_t tid;

			d = (struct dirent64 *)(void *)(buf + at);
			tid = (pid_t)strtol(d->d_name, NULL, 10);
			if (tid > 0 && tid != atomic_load(&asker))
				ask(tid);
		}
	}
}

static void show_where(void)
{
	CU_pTest test = CU_get_current_test();

	put("HANGS: told to end in the case ");
	put(test ? test->pName : "(none)");
	put("\n");
	show_stack();
	ask_the_others();
}

static void on_term(int sig)
{
	int saved = errno;
	pid_t nobody = 0, me = gettid();

	if (getpid() == watched) {
		if (!atomic_compare_exchange_strong(&asker, &nobody, me)) {
			show_stack();
			atomic_fetch_add(&answers, 1);
			errno = saved;
			return;
		}
		show_where();
	}
	signal(sig, SIG_DFL);
	raise(sig);	/* when this returns */
	errno = saved;
}

void unit_watch(void)
{
	struct sigaction sa = { .sa_handler = on_term, .sa_flags = SA_RESTART };
	void *frame;

	watched = getpid();
	atomic_store(&asker, 0);
	backtrace(&frame, 1);	/* the first one loads a library */
	sigaction(SIGTERM, &sa, NULL);
}

int unit_run(const char *suite, CU_InitializeFunc begin, CU_CleanupFunc end, CU_TestInfo *tests)
{
	CU_SuiteInfo suites[] = {
		{ suite, begin, end, NULL, NULL, tests }, CU_SUITE_INFO_NULL };
	unsigned int bad;

	/* What failed before a hang is not to be lost with it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (CU_initialize_registry() != CUE_SUCCESS ||
	    CU_register_suites(suites) != CUE_SUCCESS)
		return 2;
	unit_watch();
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	bad = CU_get_number_of_failures() + CU_get_number_of_tests_failed();
	if (CU_get_number_of_tests_run() == 0)
		bad = 1;
	CU_cleanup_registry();
	return bad ? 1 : 0;
}
