/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parent.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit.h"

static char dir[64];
static struct parent parent;
static struct rpc_reply reply;
static int listener, client, asker;	/* the asker is what the worker would hand in */

static void connect_to_control(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/control", dir);
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(connect(client, (struct sockaddr *)&addr, sizeof(addr)), 0);
	asker = accept(listener, NULL, NULL);
	CU_ASSERT_FATAL(asker >= 0);
}

/* Return: whether this can be tested: only root counts as root. */
static bool begin(const char *request)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(dir, "/tmp/lunfs-asked-test.XXXXXX");
	if (geteuid() || !mkdtemp(dir))
		return false;
	memset(&parent, 0, sizeof(parent));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/control", dir);
	strcpy(parent.control_path, addr.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CU_ASSERT_EQUAL_FATAL(chmod(addr.sun_path, 0666) || chmod(dir, 0755) ||
			      listen(listener, 4), 0);
	connect_to_control();
	CU_ASSERT_EQUAL(write(client, request, strlen(request)), (ssize_t)strlen(request));
	return true;
}

static void finish(void)
{
	if (client >= 0)
		close(client);
	close(asker);
	close(listener);
	unlink(parent.control_path);
	rmdir(dir);
}

static int ask_open(const char *path, uint32_t flags)
{
	struct rpc_open rq = { .flags = flags };

	strcpy(rq.path, path);
	memset(&reply, 0, sizeof(reply));
	return parent_asked_open(&parent, asker, &rq, &reply);
}

static int ask_mount(const char *source, const char *where, uint64_t flags)
{
	struct rpc_mount rq = { .flags = flags };

	strcpy(rq.source, source);
	strcpy(rq.dir, where);
	memset(&reply, 0, sizeof(reply));
	return parent_asked_mount(&parent, asker, &rq, &reply);
}

static const char mount_line[] = "{\"cmd\":\"mount\",\"device\":\"/dev/a\",\"dir\":\"/mnt/a\","
				 "\"source\":\"lun\",\"options\":[\"nosuid\"]}\n";

/* Answered or not, the request can be read as often as it is needed. */
static void what_root_asks_for_is_done(void)
{
	if (!begin(mount_line))
		return;
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), 0);
	CU_ASSERT_EQUAL(ask_mount("lun", "/mnt/a", MS_NOSUID), 0);
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), 0);
	finish();
}

/* R9: a worker that was taken over waits for root to come, and then asks for more. */
static void nothing_else_is_done(void)
{
	if (!begin(mount_line))
		return;
	CU_ASSERT_EQUAL(ask_open("/dev/b", 0), -EPERM);
	CU_ASSERT_EQUAL(ask_open("/dev/a", RPC_OPEN_NO_HOST_LOCK), -EPERM);
	CU_ASSERT_EQUAL(ask_open("/dev/a", RPC_OPEN_READ_ONLY | RPC_OPEN_NO_HOST_LOCK), -EPERM);
	CU_ASSERT_EQUAL(ask_mount("lun", "/etc", MS_NOSUID), -EPERM);
	CU_ASSERT_EQUAL(ask_mount("lun", "/mnt/a", 0), -EPERM);	/* set-id programs */
	CU_ASSERT_EQUAL(ask_mount("tmpfs", "/mnt/a", MS_NOSUID), -EPERM);
	finish();
}

static void an_attach_is_no_mount_and_a_rescue_writes_nothing(void)
{
	if (!begin("{\"cmd\":\"attach\",\"device\":\"/dev/a\",\"options\":[\"rescue\"]}\n"))
		return;
	CU_ASSERT_EQUAL(ask_open("/dev/a", RPC_OPEN_READ_ONLY | RPC_OPEN_NO_HOST_LOCK), 0);
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	CU_ASSERT_EQUAL(ask_mount("/dev/a", "/mnt/a", 0), -EPERM);
	finish();
}

static void who_asks_for_status_gives_no_leave(void)
{
	if (!begin("{\"cmd\":\"status\"}\n"))
		return;
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	CU_ASSERT_EQUAL(ask_mount("/dev/a", "/mnt/a", 0), -EPERM);
	finish();
}

/* Half a request, none any more, and one whose author has gone. */
static void a_request_that_is_not_there_is_not_guessed(void)
{
	char taken[512];

	if (!begin("{\"cmd\":\"attach\",\"device\":\"/dev/a\"}"))
		return;
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	CU_ASSERT_EQUAL(write(client, "\n", 1), 1);
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), 0);
	CU_ASSERT_TRUE(read(asker, taken, sizeof(taken)) > 0);
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	CU_ASSERT_EQUAL(write(client, mount_line, strlen(mount_line)),
			(ssize_t)strlen(mount_line));
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), 0);
	close(client);
	client = -1;
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	finish();
}

/* Somebody of the configured group may connect, but is not root. */
static void another_user_gives_no_leave(void)
{
	int status = -1;
	pid_t pid;

	if (!begin(mount_line))
		return;
	close(client);
	close(asker);
	pid = fork();
	if (pid == 0) {
		if (setuid(65534))
			_exit(1);
		connect_to_control();
		if (write(client, mount_line, strlen(mount_line)) < 0)
			_exit(2);
		_exit(ask_open("/dev/a", 0) == -EPERM ? 0 : 3);
	}
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(status, 0);
	client = -1;
	asker = dup(listener);
	finish();
}

/* The worker holds other sockets that root made: none of them is a client's. */
static void another_socket_of_roots_gives_no_leave(void)
{
	int pair[2], real;

	if (!begin(mount_line))
		return;
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CU_ASSERT_EQUAL(write(pair[1], mount_line, strlen(mount_line)),
			(ssize_t)strlen(mount_line));
	real = asker;
	asker = pair[0];
	CU_ASSERT_EQUAL(ask_open("/dev/a", 0), -EPERM);
	asker = real;
	close(pair[0]);
	close(pair[1]);
	finish();
}

UNIT_MAIN("parent_asked",
	  UNIT_TEST(what_root_asks_for_is_done),
	  UNIT_TEST(nothing_else_is_done),
	  UNIT_TEST(an_attach_is_no_mount_and_a_rescue_writes_nothing),
	  UNIT_TEST(who_asks_for_status_gives_no_leave),
	  UNIT_TEST(a_request_that_is_not_there_is_not_guessed),
	  UNIT_TEST(another_user_gives_no_leave),
	  UNIT_TEST(another_socket_of_roots_gives_no_leave));
