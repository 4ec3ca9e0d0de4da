/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of virtual disks, and which datastores a worker that was started anew may have back. */
#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OPENED_FILE	"opened"	/* in the run directory */

/* ---- sockets ---- */

/* RUN-DIR/disks, ours like the run directory itself. */
static int open_disks_dir(const struct parent *p, struct rpc_reply *reply)
{
	char path[PATH_MAX + 16];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", p->hello.run_dir, PARENT_DISKS_DIR);
	if (mkdir(path, 0755) && errno != EEXIST)
		goto fail;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		goto fail;
	if (!fstat(fd, &st) && !st.st_uid && !(st.st_mode & (S_IWGRP | S_IWOTH)) &&
	    !fchmod(fd, 0755))
		return fd;
	close(fd);
	errno = EPERM;
fail:
	snprintf(reply->why, sizeof(reply->why), "%.300s: %s", path, strerror(errno));
	return -errno;
}

/* Whatever the umask: its mode decides who may use the disk. */
static int bind_socket(const struct parent *p, int fd, int dir, const struct sockaddr_un *addr,
		       const char *name)
{
	mode_t mask;
	int err;

	unlinkat(dir, name, 0);	/* of a worker that has died */
	mask = umask(0177);
	err = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? -errno : 0;
	umask(mask);
	if (!err && p->hello.has_disk_group &&
	    (fchownat(dir, name, 0, p->hello.disk_gid, AT_SYMLINK_NOFOLLOW) ||
	     fchmodat(dir, name, 0660, 0)))
		err = -errno;
	if (!err && listen(fd, 16))
		err = -errno;
	return err;
}

int parent_listen(const struct parent *p, const struct rpc_socket *rq, struct rpc_reply *reply,
		  int *out, unsigned int *out_count)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int dir = open_disks_dir(p, reply), fd, err;

	if (dir < 0)
		return dir;
	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s/%s", p->hello.run_dir,
		     PARENT_DISKS_DIR, rq->name) >= (int)sizeof(addr.sun_path)) {
		snprintf(reply->why, sizeof(reply->why), "%.200s: too long a run directory for "
			 "disks' sockets; give the daemon a shorter --run-dir", p->hello.run_dir);
		close(dir);
		return -ENAMETOOLONG;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	err = fd < 0 ? -errno : bind_socket(p, fd, dir, &addr, rq->name);
	close(dir);
	if (!err) {
		out[(*out_count)++] = fd;
		return 0;
	}
	snprintf(reply->why, sizeof(reply->why), "%s: %s", addr.sun_path, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

int parent_unlisten(const struct parent *p, const struct rpc_socket *rq, struct rpc_reply *reply)
{
	int dir = open_disks_dir(p, reply);

	if (dir < 0)
		return dir;
	unlinkat(dir, rq->name, 0);
	close(dir);
	return 0;
}

int parent_find_disk_group(const char *name, struct rpc_hello *h)
{
	struct group *gr;

	if (!name[0])
		return 0;
	gr = getgrnam(name);
	if (!gr) {
		log_error(env_posix(), "lunfsd", "there is no group \"%s\" for the disks' sockets",
			  name);
		return -ENOENT;
	}
	h->disk_gid = gr->gr_gid;
	h->has_disk_group = true;
	return 0;
}

/* ---- datastores ---- */

bool parent_opened_has(const struct parent_opened *o, const char *path)
{
	for (unsigned int i = 0; i < o->count; i++)
		if (!strcmp(o->paths[i], path))
			return true;
	return false;
}

/* A new file in the old one's place: a crash leaves the one or the other. */
static void opened_write(const struct parent_opened *o, int run_dir)
{
	const char *new = OPENED_FILE ".new";
	int fd = openat(run_dir, new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool whole = fd >= 0;

	for (unsigned int i = 0; i < o->count && whole; i++) {
		size_t len = strlen(o->paths[i]);

		if (!o->kept[i])
			continue;
		whole = write(fd, o->paths[i], len) == (ssize_t)len && write(fd, "\n", 1) == 1;
	}
	if (fd >= 0)
		close(fd);
	if (!whole || renameat(run_dir, new, run_dir, OPENED_FILE))
		log_warning(env_posix(), "lunfsd", "cannot note which datastores are attached: %s; "
			    "disks are not served again by themselves after a crash of the daemon",
			    strerror(errno));
}

void parent_opened_add(struct parent_opened *o, const char *path, bool keep, int run_dir)
{
	if (strchr(path, '\n') || parent_opened_has(o, path))
		return;
	if (o->count == PARENT_OPENED_MAX)
		return;
	snprintf(o->paths[o->count], sizeof(o->paths[0]), "%s", path);
	o->kept[o->count++] = keep;
	if (keep)
		opened_write(o, run_dir);
}

void parent_opened_remove(struct parent_opened *o, const char *path, int run_dir)
{
	for (unsigned int i = 0; i < o->count; i++) {
		if (strcmp(o->paths[i], path) || !o->kept[i])
			continue;
		o->count--;
		memmove(o->paths[i], o->paths[o->count], sizeof(o->paths[0]));
		o->kept[i] = o->kept[o->count];
		opened_write(o, run_dir);
		return;
	}
}

void parent_opened_read(struct parent_opened *o, int run_dir)
{
	int fd = openat(run_dir, OPENED_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *in = fd < 0 ? NULL : fdopen(fd, "re");
	char line[PATH_MAX + 2];

	if (fd >= 0 && !in)
		close(fd);
	while (in && fgets(line, sizeof(line), in) && o->count < PARENT_OPENED_MAX) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] && strlen(line) < PATH_MAX && !parent_opened_has(o, line)) {
			strcpy(o->paths[o->count], line);
			o->kept[o->count++] = true;
		}
	}
	if (in)
		fclose(in);
}
