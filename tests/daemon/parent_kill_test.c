/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/machine.h"
#include "block/hostlock.h"
#include "tests/unit.h"

static char dir[] = "/tmp/lunfs-kill-test.XXXXXX";
static char lock_path[64];
static struct parent parent;
static struct rpc_reply reply;
static int lock_fd;

/* A process that holds what @path names open, if it names anything, and waits for its end. */
static pid_t start_victim(const char *path)
{
	int ready[2];
	char c;
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(lock_fd);	/* inherited: it would look as if the device were open */
		if (path && open(path, O_RDWR) < 0)
			_exit(1);
		close(ready[0]);
		close(ready[1]);
		for (;;)
			pause();
	}
	close(ready[1]);
	CU_ASSERT_EQUAL(read(ready[0], &c, 1), 0);	/* it has opened it */
	close(ready[0]);
	return pid;
}

static struct rpc_kill kill_of(pid_t pid)
{
	struct rpc_kill rq = { .host_id = { 2 }, .boot_id = { 9 }, .pid = (uint32_t)pid };

	CU_ASSERT_EQUAL(machine_process_start(rq.pid, &rq.pid_start, NULL), 0);
	return rq;
}

static int ask(const struct rpc_kill *rq)
{
	memset(&reply, 0, sizeof(reply));
	return parent_kill(&parent, rq, &lock_fd, &reply);
}

static bool lives(pid_t pid)
{
	return waitpid(pid, NULL, WNOHANG) == 0;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* The files of this test stand for a device's lock file, which only root can own. */
static bool begin(void)
{
	strcpy(dir, "/tmp/lunfs-kill-test.XXXXXX");
	if (geteuid() || !mkdtemp(dir))
		return false;
	setenv("LUNFS_LOCK_DIR", dir, 1);
	memset(&parent, 0, sizeof(parent));
	parent.hello.boot_id[0] = 9;
	parent.hello.host_id[0] = 1;
	parent.hello.parent = getpid();
	parent.worker = 1;
	snprintf(lock_path, sizeof(lock_path), "%s/8-1-77", dir);
	lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(lock_fd >= 0);
	return true;
}

static void finish(void)
{
	char command[128];

	close(lock_fd);
	unlink(lock_path);
	snprintf(command, sizeof(command), "%s/host-02000000-0000-0000-0000-000000000000-8-1-77",
		 dir);
	unlink(command);
	rmdir(dir);
}

/* R3c: 0 means dead, not merely signalled. */
static void a_silent_peer_is_dead_when_the_answer_comes(void)
{
	struct rpc_kill rq;
	pid_t pid;

	if (!begin())
		return;
	pid = start_victim(lock_path);
	rq = kill_of(pid);
	CU_ASSERT_EQUAL(ask(&rq), 0);
	CU_ASSERT_FALSE(lives(pid));
	CU_ASSERT_EQUAL(ask(&rq), 0);	/* asked again: it still is */
	finish();
}

/* Numbers come back: another process of that number has done nothing. */
static void a_process_that_began_later_is_spared(void)
{
	struct rpc_kill rq;
	pid_t pid;

	if (!begin())
		return;
	pid = start_victim(lock_path);
	rq = kill_of(pid);
	rq.pid_start--;
	CU_ASSERT_EQUAL(ask(&rq), 0);
	CU_ASSERT_TRUE(lives(pid));
	rq = kill_of(pid);
	rq.boot_id[0] = 8;	/* it died with another boot */
	CU_ASSERT_EQUAL(ask(&rq), 0);
	CU_ASSERT_TRUE(lives(pid));
	end(pid);
	finish();
}

/* A worker that was taken over must not be able to kill what it likes. */
static void only_users_of_the_device_are_killed(void)
{
	struct rpc_kill rq;
	pid_t pid;

	if (!begin())
		return;
	pid = start_victim(NULL);
	rq = kill_of(pid);
	CU_ASSERT_EQUAL(ask(&rq), 0);	/* it cannot write there: fenced as it is */
	CU_ASSERT_TRUE(lives(pid));
	end(pid);
	finish();
}

static void a_daemon_does_not_kill_itself(void)
{
	struct rpc_kill rq;

	if (!begin())
		return;
	rq = kill_of(getpid());
	CU_ASSERT_EQUAL(ask(&rq), -EPERM);
	CU_ASSERT_NOT_EQUAL(reply.why[0], '\0');
	finish();
}

/* In another container its number means nothing here; its host's lock file says it lives. */
static void a_host_whose_lock_is_held_is_not_taken_for_dead(void)
{
	char path[PATH_MAX], name[NAME_MAX];
	struct rpc_kill rq;
	pid_t pid;
	int fd;

	if (!begin())
		return;
	pid = start_victim(NULL);
	rq = kill_of(pid);
	end(pid);
	CU_ASSERT_EQUAL(hostlock_name(lock_fd, lock_fd, rq.host_id, name, sizeof(name)), 0);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_EQUAL(flock(fd, LOCK_EX), 0);
	CU_ASSERT_EQUAL(ask(&rq), -EPERM);
	close(fd);
	CU_ASSERT_EQUAL(ask(&rq), 0);
	finish();
}

/*
 * What proves that the asker may use the device is a file that only root can open: not the
 * volume itself, which others than our daemons have open too.
 */
static void a_descriptor_that_is_no_lock_file_is_refused(void)
{
	char path[] = "/tmp/lunfs-kill-image.XXXXXX";
	int image, saved;
	struct rpc_kill rq;
	pid_t pid;

	if (!begin())
		return;
	image = mkstemp(path);
	CU_ASSERT_FATAL(image >= 0);
	pid = start_victim(path);
	rq = kill_of(pid);
	saved = lock_fd;
	lock_fd = image;
	CU_ASSERT_EQUAL(ask(&rq), -EPERM);
	CU_ASSERT_TRUE(lives(pid));
	lock_fd = saved;
	close(image);
	unlink(path);
	end(pid);
	finish();
}

/* Whoever can exchange lock files decides who is killed. */
static void lock_files_of_a_directory_that_others_write_count_for_nothing(void)
{
	struct rpc_kill rq;
	pid_t pid;

	if (!begin())
		return;
	pid = start_victim(lock_path);
	rq = kill_of(pid);
	CU_ASSERT_EQUAL(chmod(dir, 0777), 0);
	CU_ASSERT_EQUAL(ask(&rq), -EPERM);
	CU_ASSERT_TRUE(lives(pid));
	end(pid);
	finish();
}

UNIT_MAIN("parent_kill",
	  UNIT_TEST(a_silent_peer_is_dead_when_the_answer_comes),
	  UNIT_TEST(a_process_that_began_later_is_spared),
	  UNIT_TEST(only_users_of_the_device_are_killed),
	  UNIT_TEST(a_daemon_does_not_kill_itself),
	  UNIT_TEST(a_host_whose_lock_is_held_is_not_taken_for_dead),
	  UNIT_TEST(a_descriptor_that_is_no_lock_file_is_refused),
	  UNIT_TEST(lock_files_of_a_directory_that_others_write_count_for_nothing));
