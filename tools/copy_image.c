/* SPDX-License-Identifier: Apache-2.0 */
/* Formats other than raw: qemu-img reads and writes them, as a process that we watch. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/copy.h"

#define ARGS_MAX	24
#define LOOK_MS		100
#define TICK_LOOKS	100
#define INFO_MAX	(1u << 20)	/* bytes of what qemu-img says of an image */

/* ---- qemu-img as a child ---- */

struct helper {
	pid_t	pid;
	int	out;			/* what it prints */
	int	complaints;		/* what it prints to standard error: a memory file */
};

static void become_helper(const char *const *argv, int out, int complaints, pid_t parent)
{
	const char *const env[] = { "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	int null = open("/dev/null", O_RDONLY);

	/* It must not write on when we are gone, nor gain anything by what it runs. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (getppid() != parent || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
	    dup2(complaints, 2) < 0)
		_exit(126);
	execvpe("qemu-img", (char *const *)argv, (char *const *)env);
	_exit(errno == ENOENT ? 127 : 126);
}

static int helper_start(struct helper *h, const char *const *argv)
{
	pid_t parent = getpid();
	int fds[2];

	h->complaints = memfd_create("complaints", MFD_CLOEXEC);
	if (h->complaints < 0)
		return -errno;
	if (pipe2(fds, O_CLOEXEC)) {
		close(h->complaints);
		return -errno;
	}
	h->out = fds[0];
	h->pid = fork();
	if (!h->pid)
		become_helper(argv, fds[1], h->complaints, parent);
	close(fds[1]);
	if (h->pid > 0)
		return 0;
	close(h->out);
	close(h->complaints);
	return -EAGAIN;
}

/* The first line of what it complained of. */
static void read_complaint(struct helper *h, char *why, size_t size)
{
	char text[400] = "";

	if (pread(h->complaints, text, sizeof(text) - 1, 0) < 0)
		text[0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	text_printable(text, sizeof(text) - 1, why, size);
}

static int helper_end(struct helper *h, int err, char *why, size_t why_size)
{
	int status = 0;

	if (err)
		kill(h->pid, SIGKILL);
	while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!err && WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		snprintf(why, why_size, "qemu-img is needed for this format and not installed "
			 "(package qemu-utils)");
		err = -ENOENT;
	} else if (!err && (!WIFEXITED(status) || WEXITSTATUS(status))) {
		read_complaint(h, why, why_size);
		if (!why[0])
			snprintf(why, why_size, "qemu-img ended with status 0x%x", status);
		err = -EIO;
	}
	close(h->out);
	close(h->complaints);
	return copy_was_stopped() ? -EINTR : err;
}

/* "    (12.34/100%)\r", the last one of what was printed. */
static void show_percent(struct copy *c, const char *text, uint64_t size)
{
	const char *at = NULL, *next = text;
	double percent;

	while ((next = strchr(next, '(')))
		at = ++next;
	if (at && sscanf(at, "%lf/100%%)", &percent) == 1 && percent >= 0 && percent <= 100)
		progress_show(c->progress, (uint64_t)(percent / 100 * (double)size), size);
}

/* Until it closes its output. */
static int helper_watch(struct copy *c, struct helper *h, uint64_t size)
{
	struct pollfd pfd = { .fd = h->out, .events = POLLIN };
	unsigned int looks = 0;
	char text[512];
	ssize_t n = 1;

	while (n > 0) {
		if (copy_was_stopped())
			return -EINTR;
		if (c->tick && ++looks % TICK_LOOKS == 0 && c->tick(c->arg))
			return -ECONNRESET;
		if (poll(&pfd, 1, LOOK_MS) <= 0)
			continue;
		n = read(h->out, text, sizeof(text) - 1);
		if (n > 0) {
			text[n] = '\0';
			show_percent(c, text, size);
		} else if (n < 0 && errno == EINTR) {
			n = 1;
		}
	}
	return n < 0 ? -errno : 0;
}

static int run(struct copy *c, const char *const *argv, uint64_t size)
{
	struct helper h;
	int err = helper_start(&h, argv);

	if (err)
		return err;
	err = helper_watch(c, &h, size);
	return helper_end(&h, err, c->why, sizeof(c->why));
}

/* ---- what an image is ---- */

/* All that it prints, for jansson. */
static int read_info(struct copy *c, const char *const *argv, json_t **info)
{
	char *text = malloc(INFO_MAX);
	struct helper h;
	size_t len = 0;
	ssize_t n;
	int err = text ? helper_start(&h, argv) : -ENOMEM;

	if (err) {
		free(text);
		return err;
	}
	while (len < INFO_MAX && ((n = read(h.out, text + len, INFO_MAX - len)) > 0 ||
				  (n < 0 && errno == EINTR)))
		len += n > 0 ? (size_t)n : 0;
	err = helper_end(&h, len == INFO_MAX ? -EMSGSIZE : 0, c->why, sizeof(c->why));
	*info = err ? NULL : json_loadb(text, len, 0, NULL);
	free(text);
	return err ? err : *info ? 0 : -EPROTO;
}

/* Another file that the image would have us read, or NULL. */
static const char *refers_to(const json_t *info, const char *path)
{
	const json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
	const char *name = json_string_value(json_object_get(info, "backing-filename"));
	json_t *extent;
	size_t i;

	if (!name)
		name = json_string_value(json_object_get(data, "data-file"));
	if (name)
		return name;
	json_array_foreach(json_object_get(data, "extents"), i, extent) {
		name = json_string_value(json_object_get(extent, "filename"));
		if (name && strcmp(name, path))
			return name;
	}
	return NULL;
}

int copy_info(struct copy *c, const char *path, enum copy_format format, bool trusted,
	      uint64_t *size)
{
	const char *const argv[] = { "qemu-img", "info", "--output=json", "-U", "-f",
				     copy_format_name(format), path, NULL };
	char name[200];
	const char *other;
	json_int_t bytes;
	json_t *info;
	int err;

	err = read_info(c, argv, &info);
	if (err)
		return err;
	other = trusted ? NULL : refers_to(info, path);
	bytes = json_integer_value(json_object_get(info, "virtual-size"));
	if (other) {
		text_printable(other, strlen(other), name, sizeof(name));
		snprintf(c->why, sizeof(c->why), "the image refers to another file, %s; if that is to "
			 "be read, say --format %s, and if this is a raw disk, --format raw", name,
			 copy_format_name(format));
		err = -EPERM;
	} else if (bytes <= 0) {
		snprintf(c->why, sizeof(c->why), "the image is empty");
		err = -EINVAL;
	}
	*size = (uint64_t)bytes;
	json_decref(info);
	return err;
}

/* ---- converting ---- */

/* A name for a descriptor that the child inherits. */
static int hand_down(int fd, char name[40])
{
	int copy = dup(fd);

	if (copy < 0)
		return -errno;
	snprintf(name, 40, "/proc/self/fd/%d", copy);
	return copy;
}

int copy_import(struct copy *c, const char *path, enum copy_format format, int out,
		uint64_t size)
{
	char name[40];
	const char *const argv[] = { "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-W",
				     "-m", "8", "-f", copy_format_name(format), "-O", "raw", path,
				     name, NULL };
	int fd = hand_down(out, name), err;

	if (fd < 0)
		return fd;
	err = run(c, argv, size);
	close(fd);
	return !err && fsync(out) ? -errno : err;
}

int copy_export(struct copy *c, int in, const char *path, enum copy_format format, uint64_t size)
{
	char name[40];
	const char *const argv[] = { "qemu-img", "convert", "-p", "-U", "-m", "8", "-f", "raw", "-O",
				     copy_format_name(format), name, path, NULL };
	int fd = hand_down(in, name), out, err;

	if (fd < 0)
		return fd;
	err = run(c, argv, size);
	close(fd);
	if (err)
		return err;
	out = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (out < 0)
		return -errno;
	err = fsync(out) ? -errno : 0;
	close(out);
	return err;
}
