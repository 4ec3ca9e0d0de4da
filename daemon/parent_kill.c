/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing among daemons of one machine: end a silent peer, and be sure of it (R3c). */
#include "daemon/parent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/machine.h"
#include "block/hostlock.h"

#define DEATH_MS	5000

static int refuse(struct rpc_reply *reply, int err, const char *what, uint32_t pid)
{
	snprintf(reply->why, sizeof(reply->why), "process %u: %s", pid, what);
	return err;
}

/* Whether @fd is open on what is called the same in directory @dir. */
static bool lies_in(int fd, int dir)
{
	char link[64], path[PATH_MAX];
	struct stat st, found;
	const char *name;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return false;
	path[n] = '\0';
	name = strrchr(path, '/');
	return name && !fstat(fd, &st) && !fstatat(dir, name + 1, &found, AT_SYMLINK_NOFOLLOW) &&
	       S_ISREG(st.st_mode) && st.st_dev == found.st_dev && st.st_ino == found.st_ino;
}

/* The worker got it from us: nobody else can open a file of that directory. */
static int check_lock_fd(int lock_fd, struct rpc_reply *reply)
{
	int dir = blkfile_lock_dir(reply->why, sizeof(reply->why));
	bool good;

	if (dir < 0)
		return -EPERM;
	good = lies_in(lock_fd, dir);
	close(dir);
	if (good)
		return 0;
	snprintf(reply->why, sizeof(reply->why), "what came with the request is no lock file");
	return -EPERM;
}

/*
 * Whether process @pid has the lock file, which stands for the device, open.
 * Return: 1, 0, or negative errno where that cannot be told.
 */
static int has_open(uint32_t pid, int lock_fd)
{
	char path[64];
	struct stat want, st;
	struct dirent *d;
	DIR *dir;
	int found = 0;

	if (fstat(lock_fd, &want))
		return -errno;
	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while (!found && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || fstatat(dirfd(dir), d->d_name, &st, 0))
			continue;
		found = st.st_dev == want.st_dev && st.st_ino == want.st_ino;
	}
	closedir(dir);
	return found;
}

/*
 * The slot's process is not among ours.  It may still run in another container, under
 * another number: then the host lock of its host is held.  Ours we hold ourselves, which
 * proves as much.
 */
static int check_gone(const struct parent *p, const struct rpc_kill *rq, int lock_fd,
		      struct rpc_reply *reply)
{
	int free;

	if (!memcmp(rq->host_id, p->hello.host_id, sizeof(rq->host_id)))
		return 0;
	free = hostlock_is_free(lock_fd, lock_fd, rq->host_id, reply->why, sizeof(reply->why));
	if (free > 0)
		return 0;
	return free < 0 ? -EPERM : refuse(reply, -EPERM, "not found, yet its host's lock file is "
					  "held: it runs in another container, or has been started "
					  "anew", rq->pid);
}

static int wait_dead(int pidfd, int timeout_ms)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };
	int n;

	do {
		n = poll(&pfd, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	return n > 0 ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

/* @pidfd was opened before its start time was compared: it is the process that is meant. */
static int kill_process(const struct rpc_kill *rq, int pidfd, int lock_fd, struct rpc_reply *reply)
{
	char object[32];
	int open_there, err;

	if (!wait_dead(pidfd, 0))
		return 0;
	open_there = has_open(rq->pid, lock_fd);
	if (open_there < 0)
		return refuse(reply, -EPERM, "its descriptors cannot be seen", rq->pid);
	/* A daemon that gave the device back lives on with its other datastores. */
	if (!open_there)
		return 0;
	snprintf(object, sizeof(object), "process %u", rq->pid);
	log_warning(env_posix(), object, "killing it: its host is silent and its datastore is "
		    "needed (fencing)");
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0))
		return refuse(reply, -EPERM, strerror(errno), rq->pid);
	/* The kernel reports the end only after the last thread and its I/O have ended. */
	err = wait_dead(pidfd, DEATH_MS);
	return err ? refuse(reply, err, "killed, but it does not end; its I/O hangs", rq->pid) : 0;
}

static bool is_ours(const struct parent *p, uint32_t pid)
{
	return (pid_t)pid == p->worker || (pid_t)pid == p->hello.parent || (pid_t)pid == getpid();
}

int parent_kill(const struct parent *p, const struct rpc_kill *rq, const int *fds,
		struct rpc_reply *reply)
{
	uint64_t start = 0;
	int pidfd, err = check_lock_fd(fds[0], reply);

	if (err)
		return err;
	if (memcmp(rq->boot_id, p->hello.boot_id, sizeof(rq->boot_id)))
		return 0;	/* it ended with that boot of this machine */
	pidfd = (int)syscall(SYS_pidfd_open, (pid_t)rq->pid, 0);
	if (pidfd < 0 && errno != ESRCH)
		return refuse(reply, -EPERM, strerror(errno), rq->pid);
	if (pidfd < 0)
		return check_gone(p, rq, fds[0], reply);
	err = machine_process_start(rq->pid, &start, NULL);
	if (err == -ESRCH || (!err && start != rq->pid_start))
		err = check_gone(p, rq, fds[0], reply);
	else if (err)
		err = refuse(reply, -EPERM, strerror(-err), rq->pid);
	else if (is_ours(p, rq->pid))
		err = refuse(reply, -EPERM, "that is this host itself", rq->pid);
	else
		err = kill_process(rq, pidfd, fds[0], reply);
	close(pidfd);
	return err;
}
