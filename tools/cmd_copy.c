/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunfs disk import, export, clone: contents of whole disks, through a mount of our own.
 *
 * What is made has another name until it is whole; while it is written it is open, so that no
 * other host touches it.  What is read is held: nobody writes to it meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/siphash.h"
#include "base/text.h"
#include "tools/cmd.h"
#include "tools/copy.h"
#include "tools/scratch.h"

#define ALLOCATE_PIECE	(256 * MIB)
#define PART_SUFFIX	".part"

/* A disk on a datastore: where it is, and, once mounted, the directory that holds it. */
struct place {
	const char	*arg;		/* as it was written: for messages */
	char		ds[PATH_MAX];
	const char	*path, *name;	/* "/vm1/root.disk", "root.disk" */
	int		root, dir;	/* descriptors; -1 */
};

struct job {
	struct cmd	*c;
	struct scratch	scratch;
	struct progress progress;
	struct copy	copy;
	char		what[PATH_MAX + 16];	/* of the progress */
	int		lock;		/* a socket whose name says what we make; -1 */
	struct place	target;
	char		part[NAME_MAX + 1];	/* its name until it is whole */
	int		out;		/* it, open; -1 */
	uint64_t	size;		/* bytes that it will have */
};

static int refuse(const char *what, const char *why)
{
	fprintf(stderr, "lunfs: %s: %s\n", what, why);
	return CTL_FAILED;
}

static int refuse_errno(const char *what, int err)
{
	if (err == -EINTR)
		return refuse(what, "interrupted; nothing is left of it");
	refuse(what, err == -EBUSY ? "in use: \"lunfs lock show\" says by whom; close it there "
	       "first" : err == -ENOSPC ? "no space left; nothing is left of it" : strerror(-err));
	return err == -EBUSY ? CTL_BUSY : CTL_FAILED;
}

/* ---- places ---- */

static int place_parse(struct place *p, const char *arg)
{
	p->arg = arg;
	p->root = p->dir = -1;
	cmd_split(arg, p->ds, &p->path);
	p->name = p->path ? strrchr(p->path, '/') + 1 : NULL;
	if (p->path && *p->name)
		return CTL_OK;
	fprintf(stderr, "lunfs: \"%s\" names no disk; write DS:/PATH\n", arg);
	return CTL_USAGE;
}

/* Names within the datastore are other people's: no link leads out of it. */
static int open_beneath(int root, const char *path, uint64_t flags, uint64_t mode)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
	long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* Mounts its datastore, unless @mounted is a place on the same, and opens its directory. */
static int place_open(struct job *j, struct place *p, const struct place *mounted)
{
	char parent[PATH_MAX];
	int err = CTL_OK;

	if (mounted && !strcmp(mounted->ds, p->ds))
		p->root = dup(mounted->root);
	else
		err = scratch_mount(&j->scratch, j->c, p->ds, &p->root);
	if (err)
		return err;
	snprintf(parent, sizeof(parent), "./%.*s", (int)(p->name - p->path), p->path);
	p->dir = open_beneath(p->root, parent, O_PATH | O_DIRECTORY, 0);
	return p->dir < 0 ? refuse_errno(p->arg, p->dir) : CTL_OK;
}

static void place_close(struct place *p)
{
	if (p->dir >= 0)
		close(p->dir);
	if (p->root >= 0)
		close(p->root);
}

/* ---- a job ---- */

static int keep_alive(void *arg)
{
	struct job *j = arg;
	json_t *result;
	int err = ctl_client_call(&j->c->client, json_pack("{s:s}", "cmd", "ping"), &result);

	if (!err)
		json_decref(result);
	return err;
}

static int job_start(struct job *j, struct cmd *c, const char *what, const char *object)
{
	memset(j, 0, sizeof(*j));
	j->c = c;
	j->lock = j->out = j->target.root = j->target.dir = -1;
	j->copy.progress = &j->progress;
	j->copy.tick = keep_alive;
	j->copy.arg = j;
	snprintf(j->what, sizeof(j->what), "%s %s", what, object);
	copy_watch_signals();
	progress_start(&j->progress, j->what, c->json);
	return scratch_open(&j->scratch);
}

/* Prints what was done, unless @err.  Return: @err. */
static int job_end(struct job *j, int err)
{
	double seconds = progress_end(&j->progress);

	if (j->out >= 0)
		close(j->out);
	place_close(&j->target);
	scratch_close(&j->scratch);
	if (j->lock >= 0)
		close(j->lock);
	if (!err && j->c->json)
		printf("{\"size\": %" PRIu64 ", \"seconds\": %.3f}\n", j->size, seconds);
	return err;
}

/* What the copy ended with, in words. */
static int copy_result(struct job *j, const char *object, int err)
{
	if (!err)
		return CTL_OK;
	return j->copy.why[0] && err != -EINTR ? refuse(object, j->copy.why) :
	       refuse_errno(object, err);
}

/* ---- making a disk ---- */

/*
 * One of this host at a time makes a disk of that name; then what has the name of its parts is
 * left from one whose host crashed.  The name goes when we do, however that is.
 */
static int target_lock(struct job *j)
{
	static const uint8_t key[16];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char what[2 * PATH_MAX];
	struct stat st;
	int n;

	if (fstat(j->target.dir, &st))
		return refuse_errno(j->target.arg, -errno);
	n = snprintf(what, sizeof(what), "%s %ju %s", j->scratch.device, (uintmax_t)st.st_ino,
		     j->target.name);
	n = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "lunfs-copy-%016" PRIx64,
		     siphash24(key, what, (size_t)n));
	j->lock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (j->lock < 0)
		return refuse_errno(j->target.arg, -errno);
	if (!bind(j->lock, (struct sockaddr *)&addr,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)))
		return CTL_OK;
	refuse(j->target.arg, "another command is making it; wait for that to end");
	return CTL_BUSY;
}

/* For people, before the work; what is certain is RENAME_NOREPLACE after it. */
static int target_is_free(struct job *j)
{
	struct stat st;

	if (!fstatat(j->target.dir, j->target.name, &st, AT_SYMLINK_NOFOLLOW))
		return refuse(j->target.arg, "exists already: choose another name");
	return errno == ENOENT ? CTL_OK : refuse_errno(j->target.arg, -errno);
}

static int target_doom(struct job *j)
{
	char path[PATH_MAX];
	int err = scratch_path(j->target.dir, path);

	if (err || strlen(path) + strlen(j->part) + 2 > sizeof(path))
		return refuse_errno(j->target.arg, err ? err : -ENAMETOOLONG);
	strcat(strcat(path, "/"), j->part);
	return scratch_doom(&j->scratch, path);
}

/* Space for all of it; none of it is written. */
static int target_allocate(struct job *j)
{
	for (uint64_t at = 0; at < j->size; at += ALLOCATE_PIECE) {
		uint64_t len = j->size - at < ALLOCATE_PIECE ? j->size - at : ALLOCATE_PIECE;

		if (copy_was_stopped())
			return refuse_errno(j->target.arg, -EINTR);
		if (fallocate(j->out, 0, (off_t)at, (off_t)len))
			return refuse_errno(j->target.arg, -errno);
		if (keep_alive(j))
			return CTL_FAILED;
	}
	return CTL_OK;
}

/* An empty disk of @size bytes, rounded up to whole sectors, under the name of a part. */
static int target_make(struct job *j, uint64_t size)
{
	int err = target_is_free(j);

	if (err)
		return err;
	j->size = ALIGN_UP(size, (uint64_t)j->scratch.sector);
	if (strlen(j->target.name) + strlen(PART_SUFFIX) + 1 > NAME_MAX)
		return refuse_errno(j->target.arg, -ENAMETOOLONG);
	strcat(strcat(strcpy(j->part, "."), j->target.name), PART_SUFFIX);
	j->out = open_beneath(j->target.dir, j->part, O_RDWR | O_CREAT, 0600);
	if (j->out < 0)
		return refuse_errno(j->target.arg, j->out);
	err = target_doom(j);
	if (err)
		return err;
	if (ftruncate(j->out, 0) || ftruncate(j->out, (off_t)j->size))
		return refuse_errno(j->target.arg, -errno);
	return j->c->thick ? target_allocate(j) : CTL_OK;
}

/* It is whole: its name, durably. */
static int target_finish(struct job *j)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (fstat(j->out, &st))
		return refuse_errno(j->target.arg, -errno);
	if ((uint64_t)st.st_size != j->size)
		return refuse(j->target.arg, "its size changed while it was written");
	if (renameat2(j->target.dir, j->part, j->target.dir, j->target.name, RENAME_NOREPLACE))
		return errno == EEXIST ? target_is_free(j) : refuse_errno(j->target.arg, -errno);
	fd = openat(j->target.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	if (scratch_path(j->target.dir, path))
		return CTL_OK;	/* the name that is doomed is not there any more */
	return scratch_spare(&j->scratch, strcat(strcat(path, "/"), j->part));
}

/* ---- import ---- */

struct source {
	const char	*file;
	char		path[PATH_MAX];	/* of the file, absolute */
	int		fd;
	enum copy_format format;
	uint64_t	size;
};

static int file_bytes(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, size) ? -errno : 0;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

/* --format, or -1: none was stated. */
static int stated_format(const struct cmd *c, int *format)
{
	*format = c->format ? copy_format_parse(c->format) : -1;
	if (!c->format || *format >= 0)
		return CTL_OK;
	fprintf(stderr, "lunfs: --format %s: not known; raw, qcow2, vmdk and vhdx are\n", c->format);
	return CTL_USAGE;
}

static int source_open(struct job *j, struct source *s, int format)
{
	uint64_t bytes;
	int err;

	s->fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (s->fd < 0 || !realpath(s->file, s->path))
		return refuse_errno(s->file, -errno);
	err = file_bytes(s->fd, &bytes);
	if (err)
		return refuse(s->file, err == -EINVAL ? "neither a file nor a block device" :
			      strerror(-err));
	s->format = (enum copy_format)format;
	err = format < 0 ? copy_format_of(s->fd, &s->format) : 0;
	s->size = bytes;
	if (!err && s->format != COPY_RAW)
		err = copy_info(&j->copy, s->path, s->format, format >= 0, &s->size);
	if (!err && !s->size)
		return refuse(s->file, "it is empty");
	return copy_result(j, s->file, err);
}

static int import_whole(struct job *j, const struct source *s)
{
	uint64_t after;
	int err;

	if (s->format == COPY_RAW)
		err = copy_raw(&j->copy, s->fd, j->out, s->size);
	else
		err = copy_import(&j->copy, s->path, s->format, j->out, s->size);
	if (!err && s->format == COPY_RAW) {
		err = file_bytes(s->fd, &after);
		if (!err && after != s->size)
			return refuse(s->file, "its size changed while it was read");
	}
	return copy_result(j, s->file, err);
}

int cmd_disk_import(struct cmd *c, int argc, char **argv)
{
	struct source s = { .file = argv[0], .fd = -1 };
	struct job j;
	int format, err = stated_format(c, &format);

	(void)argc;
	if (err)
		return err;
	err = job_start(&j, c, "importing", argv[0]);
	if (!err)
		err = place_parse(&j.target, argv[1]);
	if (!err)
		err = source_open(&j, &s, format);
	if (!err)
		err = place_open(&j, &j.target, NULL);
	if (!err)
		err = target_lock(&j);
	if (!err)
		err = target_make(&j, s.size);
	if (!err)
		err = import_whole(&j, &s);
	if (!err)
		err = target_finish(&j);
	if (s.fd >= 0)
		close(s.fd);
	return job_end(&j, err);
}

/* ---- reading a disk ---- */

/* Nobody writes to it from now on, for as long as the daemon knows us. */
static int hold(struct job *j, const struct place *p)
{
	json_t *result;
	int err = ctl_client_call(&j->c->client, json_pack("{s:s, s:s, s:s}", "cmd", "disk-hold",
			      "ds", p->ds, "path", p->path), &result);

	if (!err)
		json_decref(result);
	return err;
}

static int held_open(struct job *j, struct place *p, int *fd, uint64_t *size)
{
	int err = hold(j, p);

	if (!err)
		err = place_open(j, p, NULL);
	if (err)
		return err;
	*fd = open_beneath(p->dir, p->name, O_RDONLY, 0);
	if (*fd < 0)
		return refuse_errno(p->arg, *fd);
	err = file_bytes(*fd, size);
	return err ? refuse_errno(p->arg, err) : CTL_OK;
}

/* ---- clone ---- */

int cmd_disk_copy(struct cmd *c, char **argv)
{
	struct place from = { .root = -1, .dir = -1 };
	uint64_t size = 0, after;
	struct job j;
	int in = -1, err = job_start(&j, c, "copying", argv[0]);

	if (!err)
		err = place_parse(&from, argv[0]);
	if (!err)
		err = place_parse(&j.target, argv[1]);
	if (!err)
		err = held_open(&j, &from, &in, &size);
	if (!err)
		err = place_open(&j, &j.target, &from);
	if (!err)
		err = target_lock(&j);
	if (!err)
		err = target_make(&j, size);
	if (!err)
		err = copy_result(&j, from.arg, copy_raw(&j.copy, in, j.out, size));
	if (!err && !file_bytes(in, &after) && after != size)
		err = refuse(from.arg, "its size changed while it was read");
	if (!err)
		err = target_finish(&j);
	if (in >= 0)
		close(in);
	place_close(&from);
	return job_end(&j, err);
}

/* ---- export ---- */

/* A directory beside the file, and in it the file until it is whole. */
struct export {
	const char	*file;
	char		dir[PATH_MAX], part[PATH_MAX];
};

static int export_prepare(struct job *j, struct export *e)
{
	const char *slash = strrchr(e->file, '/'), *name = slash ? slash + 1 : e->file;
	char parent[PATH_MAX], real[PATH_MAX];
	struct stat st;
	int err;

	if (!lstat(e->file, &st))
		return refuse(e->file, "exists already: choose another name");
	snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - e->file) + 1 : 1,
		 slash ? e->file : ".");
	if (errno != ENOENT || !realpath(parent, real))
		return refuse_errno(e->file, -errno);
	if (!*name || snprintf(e->dir, sizeof(e->dir), "%s/.lunfs-export-XXXXXX", real) >=
	    (int)sizeof(e->dir) || strlen(e->dir) + strlen(name) + 2 > sizeof(e->part))
		return refuse_errno(e->file, -ENAMETOOLONG);
	if (!mkdtemp(e->dir))
		return refuse_errno(e->file, -errno);
	strcat(strcat(strcpy(e->part, e->dir), "/"), name);
	err = scratch_doom(&j->scratch, e->dir);
	return err ? err : scratch_doom(&j->scratch, e->part);
}

static int export_raw(struct job *j, const struct export *e, int in)
{
	int out = open(e->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err;
	struct stat st;

	if (out < 0 || ftruncate(out, (off_t)j->size)) {
		err = -errno;
		if (out >= 0)
			close(out);
		return err;
	}
	err = copy_raw(&j->copy, in, out, j->size);
	if (!err && fstat(out, &st))
		err = -errno;
	if (!err && (uint64_t)st.st_size != j->size)
		err = -EIO;
	close(out);
	return err;
}

static int export_image(struct job *j, const struct export *e, int in, enum copy_format format)
{
	uint64_t size;
	int err = copy_export(&j->copy, in, e->part, format, j->size);

	if (!err)
		err = copy_info(&j->copy, e->part, format, true, &size);
	/* Some formats have whole megabytes or cylinders. */
	if (!err && size < j->size) {
		snprintf(j->copy.why, sizeof(j->copy.why), "qemu-img wrote a smaller image");
		err = -EIO;
	}
	return err;
}

static int export_finish(struct export *e)
{
	char parent[PATH_MAX + 4];
	int fd;

	if (renameat2(AT_FDCWD, e->part, AT_FDCWD, e->file, RENAME_NOREPLACE) &&
	    (errno != EINVAL || link(e->part, e->file)))
		return errno == EEXIST ? refuse(e->file, "exists already: choose another name") :
					 refuse_errno(e->file, -errno);
	snprintf(parent, sizeof(parent), "%s/..", e->dir);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return CTL_OK;
	fsync(fd);
	close(fd);
	return CTL_OK;
}

int cmd_disk_export(struct cmd *c, int argc, char **argv)
{
	struct place from = { .root = -1, .dir = -1 };
	struct export e = { .file = argv[1] };
	struct job j;
	int format, in = -1, err = stated_format(c, &format);

	(void)argc;
	if (err)
		return err;
	if (format < 0)
		format = (int)copy_format_of_name(e.file);
	err = job_start(&j, c, "exporting", argv[0]);
	if (!err)
		err = place_parse(&from, argv[0]);
	if (!err)
		err = export_prepare(&j, &e);
	if (!err)
		err = held_open(&j, &from, &in, &j.size);
	if (!err)
		err = copy_result(&j, argv[1], format == COPY_RAW ? export_raw(&j, &e, in) :
				  export_image(&j, &e, in, (enum copy_format)format));
	if (!err)
		err = export_finish(&e);
	if (in >= 0)
		close(in);
	place_close(&from);
	return job_end(&j, err);
}
