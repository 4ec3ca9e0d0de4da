/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THINGS_MAX	8
#define UMOUNT_TRIES	100		/* of 100 ms: a helper may take a moment to die */

/* ---- the keeper ---- */

enum note_kind { NOTE_MOUNT = 'M', NOTE_DOOM = 'D', NOTE_SPARE = 'S' };

struct note {
	char	kind;
	char	path[PATH_MAX];
};

struct keeper {
	struct note things[THINGS_MAX];
	unsigned int count;
};

static void take_note(struct keeper *k, const struct note *n)
{
	for (unsigned int i = 0; i < k->count; i++)
		if (n->kind == NOTE_SPARE && k->things[i].kind == NOTE_DOOM &&
		    !strcmp(k->things[i].path, n->path))
			k->things[i].kind = NOTE_SPARE;
	if (n->kind != NOTE_SPARE && k->count < THINGS_MAX)
		k->things[k->count++] = *n;
}

static void unmount(const char *dir)
{
	const struct timespec pause = { .tv_nsec = 100000000 };
	int tries = UMOUNT_TRIES;

	while (umount2(dir, UMOUNT_NOFOLLOW) && errno == EBUSY && --tries)
		nanosleep(&pause, NULL);
	if (!tries)
		umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW);
	if (rmdir(dir))
		fprintf(stderr, "lunfs: %s: cannot be removed: %s\n", dir, strerror(errno));
}

/* The last first: files before what they lie in. */
static void tidy_up(struct keeper *k)
{
	for (unsigned int i = k->count; i-- > 0; )
		if (k->things[i].kind == NOTE_DOOM && remove(k->things[i].path) && errno != ENOENT)
			fprintf(stderr, "lunfs: %s: cannot be removed: %s\n", k->things[i].path,
				strerror(errno));
	for (unsigned int i = 0; i < k->count; i++)
		if (k->things[i].kind == NOTE_MOUNT)
			unmount(k->things[i].path);
}

static bool read_note(int fd, struct note *n)
{
	size_t done = 0;

	while (done < sizeof(*n)) {
		ssize_t got = read(fd, (char *)n + done, sizeof(*n) - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

/* Outlives whatever ends its parent, a signal to the whole terminal included. */
static void keep(int fd)
{
	static struct keeper k;
	static struct note n;
	int wait = dup2(fd, 3);

	setsid();
	close_range(4, ~0U, 0);
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	while (wait >= 0 && read_note(wait, &n))
		take_note(&k, &n);
	tidy_up(&k);
	_exit(0);
}

int scratch_open(struct scratch *s)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC)) {
		fprintf(stderr, "lunfs: %s\n", strerror(errno));
		return CTL_FAILED;
	}
	s->keeper = fork();
	if (s->keeper < 0) {
		fprintf(stderr, "lunfs: no process can be started: %s\n", strerror(errno));
		return CTL_FAILED;
	}
	if (!s->keeper) {
		close(fds[1]);
		keep(fds[0]);
	}
	close(fds[0]);
	s->pipe = fds[1];
	return CTL_OK;
}

void scratch_close(struct scratch *s)
{
	close(s->pipe);
	while (waitpid(s->keeper, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- notes ---- */

static int send_note(struct scratch *s, enum note_kind kind, const char *path)
{
	static struct note n;
	size_t done = 0;

	memset(&n, 0, sizeof(n));
	n.kind = (char)kind;
	if (strlen(path) >= sizeof(n.path))
		return CTL_FAILED;
	strcpy(n.path, path);
	while (done < sizeof(n)) {
		ssize_t put = write(s->pipe, (char *)&n + done, sizeof(n) - done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0) {
			fputs("lunfs: the process that tidies up is gone\n", stderr);
			return CTL_FAILED;
		}
		done += (size_t)put;
	}
	return CTL_OK;
}

int scratch_doom(struct scratch *s, const char *path)
{
	return send_note(s, NOTE_DOOM, path);
}

int scratch_spare(struct scratch *s, const char *path)
{
	return send_note(s, NOTE_SPARE, path);
}

int scratch_path(int fd, char path[PATH_MAX])
{
	char link[40];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	return 0;
}

/* ---- mounting ---- */

/* The datastore's device, and whether it may be written. */
static int find_store(struct scratch *s, struct cmd *c, const char *ds, bool *read_only)
{
	json_t *result, *store, *info;
	const char *uuid;
	size_t i;
	int err = ctl_client_call(&c->client, json_pack("{s:s, s:s}", "cmd", "info", "ds", ds), &info);

	if (err)
		return err;
	err = ctl_client_call(&c->client, json_pack("{s:s}", "cmd", "status"), &result);
	if (err) {
		json_decref(info);
		return err;
	}
	uuid = ctl_str(info, "uuid");
	s->sector = (uint32_t)ctl_int(info, "sector");
	s->device[0] = '\0';
	json_array_foreach(json_object_get(result, "datastores"), i, store) {
		if (strcmp(ctl_str(store, "uuid"), uuid))
			continue;
		snprintf(s->device, PATH_MAX, "%s", ctl_str(store, "device"));
		*read_only = strcmp(ctl_str(store, "mode"), "read-write");
	}
	json_decref(info);
	json_decref(result);
	if (s->device[0])
		return CTL_OK;
	fprintf(stderr, "lunfs: %s: it was just detached\n", ds);
	return CTL_FAILED;
}

int scratch_mount(struct scratch *s, struct cmd *c, const char *ds, int *fd)
{
	char dir[PATH_MAX], run_dir[PATH_MAX];
	bool read_only = false;
	json_t *result;
	int err = find_store(s, c, ds, &read_only);

	if (err)
		return err;
	if (!realpath(c->run_dir, run_dir) ||
	    snprintf(dir, sizeof(dir), "%s/copy-XXXXXX", run_dir) >= (int)sizeof(dir) ||
	    !mkdtemp(dir)) {
		fprintf(stderr, "lunfs: no directory can be made in %s: %s\n", c->run_dir,
			strerror(errno));
		return CTL_FAILED;
	}
	err = send_note(s, NOTE_MOUNT, dir);
	if (err)
		return err;
	err = ctl_client_call(&c->client, json_pack("{s:s, s:s, s:s, s:[s, s, s, s]}", "cmd", "mount",
			      "device", s->device, "dir", dir, "options", "nosuid", "nodev", "noexec",
			      read_only ? "ro" : "rw"), &result);
	if (err)
		return err;
	json_decref(result);
	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd >= 0)
		return CTL_OK;
	fprintf(stderr, "lunfs: %s: %s\n", dir, strerror(errno));
	return CTL_FAILED;
}
