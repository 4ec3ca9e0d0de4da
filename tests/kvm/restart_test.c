/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/restart.h"

#include <jansson.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit.h"

/* Somebody who installs a system, or updates it, resets it once, and is not made to wait. */
static void one_reset_has_no_pause(void)
{
	unsigned int quick = 0;

	CU_ASSERT_EQUAL(restart_pause_ms(&quick, 3), 0);
	CU_ASSERT_EQUAL(restart_pause_ms(&quick, 3600000), 0);
	CU_ASSERT_EQUAL(restart_pause_ms(&quick, 3), 0);
}

/* A guest that cannot boot does not keep a processor and the disks' locks busy for ever. */
static void resets_in_a_row_wait_longer_and_longer(void)
{
	static const unsigned int want_ms[] = { 0, 1000, 2000, 4000, 8000, 16000, 30000, 30000 };
	unsigned int quick = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(want_ms); i++)
		CU_ASSERT_EQUAL(restart_pause_ms(&quick, RESTART_QUICK_MS), want_ms[i]);
	for (unsigned int i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(restart_pause_ms(&quick, 0), RESTART_PAUSE_MS_MAX);
}

static void a_life_of_some_time_begins_the_count_anew(void)
{
	unsigned int quick = 0;

	for (unsigned int i = 0; i < 5; i++)
		restart_pause_ms(&quick, 1);
	CU_ASSERT_EQUAL(restart_pause_ms(&quick, RESTART_QUICK_MS + 1), 0);
	CU_ASSERT_EQUAL(restart_pause_ms(&quick, 1), 0);
	CU_ASSERT_EQUAL(restart_pause_ms(&quick, 1), 1000);
}

/* ---- the control socket meanwhile ---- */

static struct vm_config c;
static int listener = -1, signals = -1;

static void open_sockets(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };	/* an address that the kernel chooses */
	sigset_t set;

	vm_config_init(&c);
	strcpy(c.name, "web1");
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CU_ASSERT_FATAL(listener >= 0);
	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 8), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	CU_ASSERT_FATAL(signals >= 0);
}

static void close_sockets(void)
{
	close(listener);
	close(signals);
}

/* A client that has said @word before anybody listened to it. */
static int say(const char *word)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&a, len), 0);
	CU_ASSERT_EQUAL_FATAL(send(fd, word, strlen(word), MSG_NOSIGNAL), (ssize_t)strlen(word));
	return fd;
}

static json_t *heard(int fd)
{
	char line[4096];
	ssize_t n = recv(fd, line, sizeof(line), 0);
	json_t *o = n > 0 ? json_loadb(line, (size_t)n, 0, NULL) : NULL;

	close(fd);
	return o;
}

static void status_is_answered_and_the_pause_goes_on(void)
{
	json_t *o;
	int status, pause, nothing;

	open_sockets();
	status = say("status\n");
	pause = say("pause\n");
	nothing = say("");
	close(nothing);
	CU_ASSERT_TRUE(restart_wait(&c, listener, signals, 50));
	o = heard(status);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "state")), "waiting");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(o, "name")), "web1");
	CU_ASSERT_TRUE(json_integer_value(json_object_get(o, "restart_in_ms")) <= 50);
	json_decref(o);
	o = heard(pause);
	CU_ASSERT_TRUE(json_is_false(json_object_get(o, "ok")));
	json_decref(o);
	close_sockets();
}

static void stop_and_kill_end_it(void)
{
	static const char *const words[] = { "stop\n", "kill\n" };

	for (unsigned int i = 0; i < ARRAY_SIZE(words); i++) {
		json_t *o;
		int fd;

		open_sockets();
		fd = say(words[i]);
		CU_ASSERT_FALSE(restart_wait(&c, listener, signals, 60000));
		o = heard(fd);
		CU_ASSERT_TRUE(json_is_true(json_object_get(o, "ok")));
		json_decref(o);
		close_sockets();
	}
}

static void a_signal_ends_it_but_not_a_fetchers_end(void)
{
	open_sockets();
	raise(SIGCHLD);
	CU_ASSERT_TRUE(restart_wait(&c, listener, signals, 20));
	raise(SIGTERM);
	CU_ASSERT_FALSE(restart_wait(&c, listener, signals, 60000));
	close_sockets();
}

UNIT_MAIN("restart",
	UNIT_TEST(one_reset_has_no_pause),
	UNIT_TEST(resets_in_a_row_wait_longer_and_longer),
	UNIT_TEST(a_life_of_some_time_begins_the_count_anew),
	UNIT_TEST(status_is_answered_and_the_pause_goes_on),
	UNIT_TEST(stop_and_kill_end_it),
	UNIT_TEST(a_signal_ends_it_but_not_a_fetchers_end));
