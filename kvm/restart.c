/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that resets as soon as it runs would otherwise take a processor for itself, and claim and
 * give back its disks' locks for ever.
 */
#include "kvm/restart.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/env.h"
#include "kvm/report.h"

#define NS_PER_MS	1000000ull
#define PATIENCE_MS	200	/* for the word of whoever has connected: root, by the socket's mode */
#define WORD_MAX	32

unsigned int restart_pause_ms(unsigned int *quick, uint64_t lived_ms)
{
	unsigned int pause_ms = 0;

	if (lived_ms > RESTART_QUICK_MS) {
		*quick = 0;
		return 0;
	}
	if (*quick)
		pause_ms = *quick > 5 ? RESTART_PAUSE_MS_MAX : 1000u << (*quick - 1);
	++*quick;
	return pause_ms < RESTART_PAUSE_MS_MAX ? pause_ms : RESTART_PAUSE_MS_MAX;
}

static void read_word(int fd, char word[WORD_MAX])
{
	struct timeval patience = { .tv_usec = PATIENCE_MS * 1000 };
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	n = recv(fd, word, WORD_MAX - 1, 0);
	word[n > 0 ? n : 0] = '\0';
	word[strcspn(word, "\n")] = '\0';
}

static json_t *status_of(const struct vm_config *c, uint64_t left_ms)
{
	return json_pack("{s:b, s:s, s:s, s:i, s:I, s:i, s:I, s:[]}", "ok", 1, "name", c->name, "state",
			 "waiting", "cpus", (int)c->cpus, "memory", (json_int_t)c->memory, "pid",
			 (int)getpid(), "restart_in_ms", (json_int_t)left_ms, "disks");
}

/* Return: whether the machine is still to be started. */
static bool answer(const struct vm_config *c, int listen_fd, uint64_t left_ms)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	char word[WORD_MAX];
	bool end;

	if (fd < 0)
		return true;
	read_word(fd, word);
	end = !strcmp(word, "stop") || !strcmp(word, "kill");
	if (!strcmp(word, "status"))
		report_json(fd, status_of(c, left_ms));
	else if (end)
		report_json(fd, json_pack("{s:b}", "ok", 1));
	else if (*word)
		report_json(fd, json_pack("{s:b, s:s}", "ok", 0, "error", "its guest has reset, and is "
					  "started again in some seconds: not before"));
	close(fd);
	return !end;
}

static bool was_told_to_end(int signals)
{
	struct signalfd_siginfo info;

	return read(signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGCHLD;
}

bool restart_wait(const struct vm_config *c, int listen_fd, int signals, unsigned int ms)
{
	uint64_t end_ns = env_now_ns(env_posix()) + ms * NS_PER_MS;
	struct pollfd pfd[] = {
		{ .fd = listen_fd, .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
	};

	for (uint64_t now = env_now_ns(env_posix()); now < end_ns; now = env_now_ns(env_posix())) {
		uint64_t left_ms = (end_ns - now + NS_PER_MS - 1) / NS_PER_MS;

		if (poll(pfd, ARRAY_SIZE(pfd), (int)left_ms) <= 0)
			continue;
		if (pfd[1].revents && was_told_to_end(signals))
			return false;
		if (pfd[0].revents && !answer(c, listen_fd, left_ms))
			return false;
	}
	return true;
}
