/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/cmd.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/text.h"
#include "kvm/config.h"
#include "kvm/parent.h"
#include "kvm/report.h"

#define REPLY_MAX	(64u << 10)
#define LEAVE		0x1d	/* Ctrl-] */
#define QUIET_MS	1000	/* who waits longer is told for what */
#define ANSWER_S	5	/* a launcher that lives answers at once; pausing may take longer */
#define LIST_ANSWER_S	2
#define TERM_MS		2000	/* for a launcher that does not answer, and is to end */
#define KILL_MS		10000	/* for any to give its disks back */

bool cmd_is_request(const char *word)
{
	static const char *const words[] = { "status", "pause", "resume", "stop", "kill",
					     "console" };

	for (unsigned int i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(word, words[i]))
			return true;
	return false;
}

/* ---- asking ---- */

/* Return: a socket; -EAGAIN its launcher hangs; -errno. */
static int connect_to(const char *run_dir, const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_S }, none = { 0 };
	int fd, err;

	err = parent_socket_path(run_dir, name, a.sun_path, sizeof(a.sun_path));
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Those who gave up on a launcher that hangs are in its queue still. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
		return fd;
	}
	err = -errno;
	close(fd);
	return err;
}

/* One line, byte by byte: after "console" what follows is not ours.  Return: 0 or -errno. */
static int read_reply(int fd, json_t **reply)
{
	char *line = malloc(REPLY_MAX);
	size_t len = 0;
	int err = -ENOMEM;

	while (line && len < REPLY_MAX) {
		ssize_t n = recv(fd, line + len, 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		err = n < 0 ? -errno : -EPIPE;
		if (n <= 0)
			break;
		if (line[len++] != '\n')
			continue;
		*reply = json_loadb(line, len, 0, NULL);
		err = *reply ? 0 : -EPROTO;
		break;
	}
	free(line);
	return err;
}

bool cmd_is_running(const char *run_dir, const char *name)
{
	int fd = connect_to(run_dir, name);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || fd == -EAGAIN;
}

/* @seconds: for an answer; 0: as long as it takes.  Return: 0; -EAGAIN there was none; -errno. */
static int ask(int fd, const char *word, unsigned int seconds, json_t **reply)
{
	struct timeval limit = { .tv_sec = seconds }, none = { 0 };
	char line[32];
	int len = snprintf(line, sizeof(line), "%s\n", word), err;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (send(fd, line, (size_t)len, MSG_NOSIGNAL) != len)
		return -errno;
	err = read_reply(fd, reply);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	return err;
}

/* ---- printing ---- */

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "?";
}

static long long number(const json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

static void print_json(const json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
}

static void print_status(const json_t *o)
{
	const json_t *jail = json_object_get(o, "confined");
	char size[24], name[VM_DISK_NAME_MAX + 1];
	json_t *disk;
	size_t i;

	if (!strcmp(text(o, "state"), "waiting")) {
		printf("%s: waiting; its guest has reset again, and is started in %.1f s\n",
		       text(o, "name"), (double)number(o, "restart_in_ms") / 1000);
		return;
	}
	printf("%s: %s, %lld vCPU%s, %s memory, pid %lld, began to run after %.1f ms\n",
	       text(o, "name"), text(o, "state"), number(o, "cpus"),
	       number(o, "cpus") == 1 ? "" : "s",
	       text_format_size((uint64_t)number(o, "memory"), size, sizeof(size)),
	       number(o, "pid"), (double)number(o, "start_us") / 1000);
	printf("  confined by: %s%s%s\n", json_is_true(json_object_get(jail, "empty_root")) ?
	       "an empty root directory, " : "", json_is_true(json_object_get(jail, "landlock")) ?
	       "Landlock, " : "", json_is_true(json_object_get(jail, "filter")) ?
	       "system call filters" : "system call filters that only log");
	json_array_foreach(json_object_get(o, "disks"), i, disk)
		printf("  vd%c  %s%s: %s\n", (char)('a' + i),
		       text_printable(text(disk, "name"), VM_DISK_NAME_MAX, name, sizeof(name)),
		       json_is_true(json_object_get(disk, "read_only")) ? " (read-only)" : "",
		       !strcmp(text(disk, "server"), "away") ? "its server is away; the guest waits" :
		       !strcmp(text(disk, "server"), "running") ? "in use" : "not in use yet");
}

/* ---- console ---- */

static int copy_once(int from, int to, bool typed)
{
	char buf[4096];
	ssize_t n = read(from, buf, sizeof(buf));
	char *leave = n > 0 && typed ? memchr(buf, LEAVE, (size_t)n) : NULL;

	if (leave)
		n = leave - buf;
	if (n > 0 && write(to, buf, (size_t)n) != n)
		return -EPIPE;
	return leave || n <= 0 ? -EPIPE : 0;
}

static int watch_console(int fd)
{
	struct pollfd pfd[] = { { .fd = fd, .events = POLLIN },
				{ .fd = STDIN_FILENO, .events = POLLIN } };
	bool terminal = isatty(STDIN_FILENO);
	struct termios old, raw;
	int err = 0;

	if (terminal && !tcgetattr(STDIN_FILENO, &old)) {
		raw = old;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
		fputs("Ctrl-] leaves this console.\r\n", stderr);
	}
	while (!err && poll(pfd, ARRAY_SIZE(pfd), -1) > 0) {
		if (pfd[0].revents)
			err = copy_once(fd, STDOUT_FILENO, false);
		/* The end of a script that types is not the end of what there is to see. */
		if (!err && pfd[1].revents && copy_once(STDIN_FILENO, fd, terminal)) {
			if (terminal)
				break;
			pfd[1].fd = -1;
		}
	}
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	return 0;
}

/* ---- stopping ---- */

/*
 * The launcher itself, whose end is the machine's: its disks are given back then, and its name is free.
 * A guest that resets the machine instead ends a worker, not the launcher.
 * Return: a descriptor that is readable once it has ended; -errno.
 */
static int launcher_of(int fd)
{
	struct ucred listener;
	socklen_t len = sizeof(listener);
	int pidfd;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &len))
		return -errno;
	pidfd = (int)syscall(SYS_pidfd_open, listener.pid, 0);
	return pidfd < 0 ? -errno : pidfd;
}

/* Return: 0 it has ended; -ETIMEDOUT; -errno. */
static int wait_end(int pidfd, unsigned int seconds, const char *name, bool quiet)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };
	int n = poll(&pfd, 1, QUIET_MS);

	if (!n && seconds > 1) {
		if (!quiet)
			fprintf(stderr, LUNVM_NAME ": %s: its guest shuts down; waiting for up to "
				"%u s\n", name, seconds);
		n = poll(&pfd, 1, (int)(seconds - 1) * 1000);
	}
	return n < 0 ? -errno : n ? 0 : -ETIMEDOUT;
}

/* Its power button was pressed.  Return: exit status: 0 once it has ended. */
static int finish_stop(struct vm_cmd *c, int pidfd, const char *name)
{
	int err = pidfd < 0 ? pidfd : wait_end(pidfd, c->timeout, name, c->json);

	if (err == -ESRCH)	/* that was fast */
		err = 0;
	if (err == -ETIMEDOUT)
		return report_failure(c->json, name, VM_EXIT_FAILED, "still runs %u s after its power "
				      "button was pressed: its guest does not listen to it, or needs "
				      "longer (--timeout), or has restarted; \"lunvm kill %s\" cuts "
				      "its power", c->timeout, name);
	return err ? report_failure(c->json, name, VM_EXIT_FAILED, "%s", strerror(-err)) : 0;
}

/* ---- killing ---- */

/* Return: whether it has ended. */
static bool has_ended(int pidfd, int ms)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

/* One that does not answer is still starting, which SIGTERM ends in order, or hangs. */
static void end_silent(int pidfd)
{
	syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
	if (!has_ended(pidfd, TERM_MS))
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

/* Whoever kills a machine wants its name and its disks to be free.  Return: exit status. */
static int finish_kill(const struct vm_cmd *c, int pidfd, const char *name)
{
	if (pidfd == -ESRCH || (pidfd >= 0 && has_ended(pidfd, KILL_MS)))
		return 0;
	return report_failure(c->json, name, VM_EXIT_FAILED, "%s", pidfd < 0 ? strerror(-pidfd) :
			      "was told to end, and its launcher is still there; lunfsd may hold it up");
}

/* ---- what is typed ---- */

static int say_silent(const struct vm_cmd *c, const char *name)
{
	return report_failure(c->json, name, VM_EXIT_FAILED, "does not answer: it is still waiting for its "
			      "disks, or hangs; \"lunvm kill %s\" ends it", name);
}

static int say_absent(const struct vm_cmd *c, const char *name, int err)
{
	if (err == -ENOENT || err == -ECONNREFUSED)
		return report_failure(c->json, name, VM_EXIT_FAILED, "no machine of that name runs "
				      "here; see \"lunvm list\"");
	if (err == -EAGAIN)
		return report_failure(c->json, name, VM_EXIT_FAILED, "hangs, and so many have asked it that "
				      "nobody else can; end the process that has %s/%s.lock open",
				      c->run_dir, name);
	return report_failure(c->json, name, VM_EXIT_FAILED, "%s", strerror(-err));
}

/* It has answered, and done what it was asked for.  Return: exit status. */
static int show_done(struct vm_cmd *c, const char *word, const char *name, int fd, int launcher,
		     json_t *reply)
{
	int status = 0;

	if (!strcmp(word, "console"))
		return watch_console(fd);
	if (!strcmp(word, "stop") && c->timeout) {
		status = finish_stop(c, launcher, name);
		json_object_set_new(reply, "ended", json_true());
	} else if (!strcmp(word, "kill")) {
		status = finish_kill(c, launcher, name);
		json_object_set_new(reply, "ended", json_true());
	}
	if (c->json && !status)
		print_json(reply);
	else if (!strcmp(word, "status"))
		print_status(reply);
	return status;
}

int cmd_request(struct vm_cmd *c, const char *word, const char *name)
{
	int fd = connect_to(c->run_dir, name), err, launcher, status;
	json_t *reply = NULL;

	if (fd < 0)
		return say_absent(c, name, fd);
	launcher = launcher_of(fd);
	err = ask(fd, word, strcmp(word, "pause") ? ANSWER_S : 0, &reply);
	if (err == -EAGAIN && !strcmp(word, "kill") && launcher >= 0) {
		end_silent(launcher);
		reply = json_pack("{s:b}", "ok", 1);
		err = 0;
	}
	if (err == -EAGAIN)
		status = say_silent(c, name);
	else if (err)
		status = report_failure(c->json, name, VM_EXIT_FAILED, "%s", err == -EPIPE ?
					"it has just ended" : strerror(-err));
	else if (!json_is_true(json_object_get(reply, "ok")))
		status = report_failure(c->json, name, VM_EXIT_FAILED, "%s", text(reply, "error"));
	else
		status = show_done(c, word, name, fd, launcher, reply);
	json_decref(reply);
	close(fd);
	if (launcher >= 0)
		close(launcher);
	return status;
}

/* "web1" of "web1.sock"; false if it is no such name. */
static bool name_of_socket(const char *file, char name[VM_NAME_MAX + 1])
{
	const char *dot = strrchr(file, '.');

	if (!dot || strcmp(dot, ".sock") || dot - file > VM_NAME_MAX)
		return false;
	snprintf(name, VM_NAME_MAX + 1, "%.*s", (int)(dot - file), file);
	return vm_config_name_is_fine(name);
}

/* Into @all.  Return: 0; -EACCES it is not ours to ask. */
static int list_one(const struct vm_cmd *c, const char *name, json_t *all)
{
	int fd = connect_to(c->run_dir, name), err;
	json_t *reply = NULL;

	if (fd == -EACCES)
		return fd;
	if (fd < 0 && fd != -EAGAIN)
		return 0;	/* one that was killed left its socket */
	err = fd < 0 ? fd : ask(fd, "status", LIST_ANSWER_S, &reply);
	if (fd >= 0)
		close(fd);
	if (err == -EAGAIN)
		reply = json_pack("{s:s, s:s}", "name", name, "state", "silent");
	json_object_del(reply, "ok");
	if (reply)
		json_array_append_new(all, reply);
	return 0;
}

static void print_list(const json_t *all)
{
	char size[24];
	json_t *o;
	size_t i;

	printf("%-20s %-8s %4s %12s %8s\n", "NAME", "STATE", "CPUS", "MEMORY", "PID");
	json_array_foreach(all, i, o)
		if (json_object_get(o, "pid"))
			printf("%-20s %-8s %4lld %12s %8lld\n", text(o, "name"), text(o, "state"),
			       number(o, "cpus"), text_format_size((uint64_t)number(o, "memory"), size,
								   sizeof(size)), number(o, "pid"));
		else
			printf("%-20s %-8s %4s %12s %8s\n", text(o, "name"), text(o, "state"), "-", "-", "-");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int cmd_list(struct vm_cmd *c)
{
	struct dirent **entries = NULL;
	json_t *all = json_array(), *result;
	char name[VM_NAME_MAX + 1], denied[VM_NAME_MAX + 1] = "";
	int n = scandir(c->run_dir, &entries, NULL, by_name);

	if (n < 0 && errno != ENOENT) {
		json_decref(all);
		return report_failure(c->json, NULL, VM_EXIT_FAILED, "%s: %s", c->run_dir,
				      strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		if (name_of_socket(entries[i]->d_name, name) && list_one(c, name, all))
			strcpy(denied, name);
		free(entries[i]);
	}
	free(entries);
	result = json_pack("{s:o}", "machines", all);
	if (!*denied && c->json)
		print_json(result);
	else if (!*denied)
		print_list(all);
	json_decref(result);
	return *denied ? report_failure(c->json, denied, VM_EXIT_FAILED, "%s; machines are root's",
					strerror(EACCES)) : 0;
}
