/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"

#define NOBODY	65534
#define HIGH_FD	32	/* out of the way of the numbers that the worker gets them at */

int spawn_user(const char *name, uid_t *uid, gid_t *gid, char *why, size_t why_size)
{
	struct passwd *pw = getpwnam(name[0] ? name : "lunfs");

	if (!pw && name[0])
		return text_refuse(-ENOENT, why, why_size,
				   "there is no user \"%s\" for the worker to run as", name);
	if (!pw)
		pw = getpwnam("nobody");
	*uid = pw ? pw->pw_uid : NOBODY;
	*gid = pw ? pw->pw_gid : NOBODY;
	if (*uid)
		return 0;
	return text_refuse(-EINVAL, why, why_size,
			   "the worker may not run as root; name another user");
}

/* What the worker may see of our environment. */
struct environment {
	char	text[8][512];
	char	*list[9];
};

static void keep_environment(struct environment *e)
{
	static const char *const kept[] = { "LUNFS_SECCOMP", "JOURNAL_STREAM", "ASAN_OPTIONS",
					    "UBSAN_OPTIONS", "TSAN_OPTIONS" };
	unsigned int n = 0;

	static_assert(ARRAY_SIZE(kept) <= 8, "there is room for all");
	for (unsigned int i = 0; i < ARRAY_SIZE(kept); i++) {
		const char *value = getenv(kept[i]);

		if (!value)
			continue;
		snprintf(e->text[n], sizeof(e->text[n]), "%s=%s", kept[i], value);
		e->list[n] = e->text[n];
		n++;
	}
	e->list[n] = NULL;
}

/* The worker is this program anew, so that the two share no address layout. */
static void exec_worker(const char *name, const int *fds, unsigned int count)
{
	char copy[64], role[] = "--role=worker";
	char *argv[] = { copy, role, NULL };
	struct environment env;
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	snprintf(copy, sizeof(copy), "%s", name);
	keep_environment(&env);
	if (null < 0 || dup2(null, 0) < 0)
		_exit(1);
	for (unsigned int i = 0; i < count; i++)
		if (dup2(fds[i], SPAWN_FD_RPC + (int)i) < 0)
			_exit(1);
	if (syscall(SYS_close_range, SPAWN_FD_RPC + count, ~0u, 0))
		_exit(1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve("/proc/self/exe", argv, env.list);
	_exit(1);
}

static int high_fd(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

	close(fd);
	return high;
}

int spawn_worker(const char *name, const int *fds, unsigned int fd_count, struct spawn *out)
{
	int rpc[2], life[2], given[2 + SPAWN_FDS_MAX];
	unsigned int n = 0;

	assert(fd_count <= SPAWN_FDS_MAX);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, rpc) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life))
		return -errno;
	given[n++] = high_fd(rpc[1]);
	given[n++] = high_fd(life[1]);
	for (unsigned int i = 0; i < fd_count; i++)
		given[n++] = high_fd(fds[i]);
	out->pid = fork();
	if (out->pid < 0)
		return -errno;
	if (out->pid == 0) {
		/* Until the worker asks for it itself, after it has changed its user. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		exec_worker(name, given, n);
	}
	for (unsigned int i = 0; i < n; i++)
		close(given[i]);
	out->rpc = rpc[0];
	out->life = life[0];
	out->pidfd = (int)syscall(SYS_pidfd_open, out->pid, 0);
	return out->pidfd < 0 ? -errno : 0;
}

void spawn_tell_stop(const struct spawn *worker)
{
	send(worker->life, "s", 1, MSG_NOSIGNAL);
}

enum spawn_end spawn_status(const struct spawn *worker, char *why, size_t why_size)
{
	int status = 0;

	waitpid(worker->pid, &status, 0);
	if (WIFEXITED(status)) {
		snprintf(why, why_size, "the worker ended with status %d", WEXITSTATUS(status));
		return WEXITSTATUS(status) ? SPAWN_FAILED : SPAWN_ENDED;
	}
	snprintf(why, why_size, "the worker was ended by signal %d (%s)%s", WTERMSIG(status),
		 strsignal(WTERMSIG(status)), WTERMSIG(status) == SIGSYS ?
		 ": it made a system call that it may not make" : "");
	return SPAWN_KILLED;
}

void spawn_ignore_signals(void)
{
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

void spawn_wait_stop(void)
{
	struct pollfd pfd = { .fd = SPAWN_FD_LIFE, .events = POLLIN };
	char c;

	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	if (recv(SPAWN_FD_LIFE, &c, 1, 0) != 1)
		_exit(1);
}
