// SPDX-License-Identifier: Apache-2.0
/* worker.c: the end of what serves, while somebody asks. */
#include "daemon/worker.h"

#include <errno.h>
#include <jansson.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit.h"

/* Some of its threads end with the process only: each test has its own. */
static struct world {
	struct serving	serving;
	struct rpc_hello hello;
	struct rpc_client rpc;
	int		rpc_socks[2];
} worlds[2];

static struct world *w;
static struct serving *s;
static int listener;
static char reply[256 * 1024];

/* A socket that has no name but in this process's network namespace, and lives as long as it. */
static int listen_now(struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*addr);

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* Without a name the kernel makes one up. */
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)addr, sizeof(sa_family_t)), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(fd, (struct sockaddr *)addr, &len), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 8), 0);
	return fd;
}

static int dial(void)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&addr, len), 0);
	return fd;
}

static void ask(int fd, const char *line)
{
	CU_ASSERT_EQUAL_FATAL(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
}

/* Receives a line into reply. */
static void hear(int fd)
{
	size_t have = 0;

	while (!memchr(reply, '\n', have)) {
		ssize_t n = recv(fd, reply + have, sizeof(reply) - 1 - have, 0);

		CU_ASSERT_FATAL(n > 0);
		have += (size_t)n;
	}
	reply[have] = '\0';
}

static void start(void)
{
	struct sockaddr_un addr;

	w = w ? w + 1 : worlds;
	s = &w->serving;
	w->hello.reactors = 2;
	w->hello.has_control_group = true;	/* whoever runs the tests may ask */
	w->hello.control_gid = getgid();
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, w->rpc_socks), 0);
	CU_ASSERT_EQUAL_FATAL(rpc_client_start(&w->rpc, w->rpc_socks[0]), 0);
	CU_ASSERT_EQUAL_FATAL(stores_init(&s->stores, &w->rpc, &w->hello, 0, NULL, NULL, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(disks_init(&s->disks, &s->stores, &w->rpc, &w->hello,
					 memfd_create("state", MFD_CLOEXEC), NULL), 0);
	CU_ASSERT_EQUAL_FATAL(merger_start(&s->merger, &s->stores, &s->disks), 0);
	listener = listen_now(&addr);
	CU_ASSERT_EQUAL_FATAL(ctl_start(&s->ctl, listener, &s->stores, &s->disks, &w->hello), 0);
}

static void pause_ms(unsigned int ms)
{
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + ms * NSEC_PER_MSEC);
}

static atomic_bool ended;

static void *end(void *arg)
{
	(void)arg;
	CU_ASSERT_EQUAL(serving_end(s), 0);
	atomic_store(&ended, true);
	return NULL;
}

static pthread_t end_elsewhere(void)
{
	pthread_t thread;
	bool begun = false;

	atomic_store(&ended, false);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, end, NULL), 0);
	while (!begun) {
		pause_ms(1);
		pthread_mutex_lock(&s->disks.mutex);
		begun = s->disks.stopping;
		pthread_mutex_unlock(&s->disks.mutex);
	}
	pause_ms(50);	/* for what must not follow yet */
	return thread;
}

static void nothing(void *arg)
{
	(void)arg;
}

/* The reactors were freed under whoever was counting their rounds just then. */
static void what_a_command_reads_is_there_until_it_has_ended(void)
{
	pthread_t thread;
	char why[128];

	start();
	CU_ASSERT_EQUAL_FATAL(ctl_begin(&s->ctl, why, sizeof(why)), 0);
	thread = end_elsewhere();
	CU_ASSERT_FALSE(atomic_load(&ended));
	for (unsigned int i = 0; i < s->disks.reactor_count; i++)
		reactor_call_sync(s->disks.reactors[i], nothing, NULL);
	ctl_done(&s->ctl);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(ctl_begin(&s->ctl, why, sizeof(why)), -ESHUTDOWN);
}

/* The same as it happens: the metrics of a datastore that hangs, and then of the reactors. */
static void metrics_asked_for_before_the_end_are_whole(void)
{
	pthread_t thread;
	bool asked = false;
	int fd;

	start();
	pthread_mutex_lock(&s->stores.mutex);	/* it hangs */
	fd = dial();
	ask(fd, "{\"cmd\":\"metrics\"}\n");
	while (!asked) {
		pause_ms(1);
		pthread_mutex_lock(&s->ctl.mutex);
		asked = s->ctl.commands;
		pthread_mutex_unlock(&s->ctl.mutex);
	}
	thread = end_elsewhere();
	pthread_mutex_unlock(&s->stores.mutex);
	hear(fd);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "lunfs_reactor_wakes_total{reactor=\\\"1\\\"}"));
	pthread_join(thread, NULL);
	ask(fd, "{\"cmd\":\"metrics\"}\n");
	hear(fd);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply, "ESHUTDOWN"));
	close(fd);
}

UNIT_MAIN("daemon/serving",
	  UNIT_TEST(what_a_command_reads_is_there_until_it_has_ended),
	  UNIT_TEST(metrics_asked_for_before_the_end_are_whole));
