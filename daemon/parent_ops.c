/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/siphash.h"
#include "base/text.h"
#include "block/hostlock.h"
#include "daemon/mountinfo.h"

#define HOST_LOCK_TRIES	100u	/* of 20 ms each: 2 s for a dying process to let go */

#define PROBE_MS	2000	/* for a mount to answer; longer: alive, if not well */
#define STACKED_MAX	8	/* dead mounts on one directory, cleaned away in one go */

/* ---- open ---- */

/* A daemon that was killed a moment ago may still be on its way out. */
static int host_lock_wait(int fd)
{
	struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	unsigned int i;

	for (i = 0; flock(fd, LOCK_EX | LOCK_NB); i++) {
		if (i == HOST_LOCK_TRIES)
			return -1;
		nanosleep(&pause, NULL);
	}
	return 0;
}

int parent_take_host_lock(const struct parent *p, const char *name, const char *dev, int *out,
			  struct rpc_reply *reply)
{
	char text[32] = "", uuid[UUID_TEXT_SIZE];
	int err, fd, n, dir = blkfile_lock_dir(reply->why, sizeof(reply->why));

	if (dir < 0)
		return dir;
	fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	err = -errno;
	close(dir);
	if (fd < 0) {
		snprintf(reply->why, sizeof(reply->why), "lock file %s: %s", name, strerror(-err));
		return err;
	}
	if (host_lock_wait(fd)) {
		if (pread(fd, text, sizeof(text) - 1, 0) < 0)
			text[0] = '\0';
		snprintf(reply->why, sizeof(reply->why),
			 "%.200s: process %ld has it attached as host %s already; stop that one, or "
			 "give this daemon a --host-id of its own", dev, atol(text),
			 text_format_uuid(p->hello.host_id, uuid));
		close(fd);
		return -EALREADY;
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)p->worker);
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n) {
		/* Only for messages: an empty file locks as well. */
	}
	*out = fd;
	return 0;
}

int parent_hold(const struct parent *p, const struct rpc_hold *rq, struct rpc_reply *reply, int *out,
		unsigned int *out_count)
{
	static const uint8_t key[16] = "LunFS host's LUN";
	char name[NAME_MAX + 1], uuid[UUID_TEXT_SIZE];
	int err;

	snprintf(name, sizeof(name), "host-%s-lun-%016llx", text_format_uuid(p->hello.host_id, uuid),
		 (unsigned long long)siphash24(key, rq->identity, strlen(rq->identity)));
	err = parent_take_host_lock(p, name, rq->device, out, reply);
	if (!err)
		(*out_count)++;
	return err;
}

/* Between two opens the path may have come to name something else. */
static int check_same(const struct blkfile_handle *a, const struct blkfile_handle *b,
		      struct rpc_reply *reply)
{
	struct stat sa, sb;

	if (fstat(a->fd, &sa) || fstat(b->fd, &sb))
		return -errno;
	if (sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino && sa.st_rdev == sb.st_rdev)
		return 0;
	snprintf(reply->why, sizeof(reply->why), "the device was replaced while it was opened");
	return -EAGAIN;
}

static int fill_open_reply(const struct blkfile_handle h[2], struct rpc_reply *reply, int *out,
			   unsigned int *out_count)
{
	struct stat st;

	if (fstat(h[0].lock_fd >= 0 ? h[0].lock_fd : h[0].fd, &st))
		return -errno;
	reply->open.info = h[0].info;
	reply->open.scsi = h[0].scsi;
	reply->open.has_locks = h[0].lock_fd >= 0;
	reply->open.backing_dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	reply->open.backing_ino = S_ISBLK(st.st_mode) ? 0 : st.st_ino;
	out[(*out_count)++] = h[0].fd;
	out[(*out_count)++] = h[1].fd;
	if (reply->open.has_locks) {
		out[(*out_count)++] = h[0].lock_fd;
		out[(*out_count)++] = h[1].lock_fd;
	}
	for (unsigned int i = 0; i < 2; i++) {
		reply->open.lane_count[i] = h[i].lane_count;
		for (unsigned int lane = 0; lane < h[i].lane_count; lane++)
			out[(*out_count)++] = h[i].lanes[lane];
	}
	return 0;
}

static int take_lock(const struct parent *p, struct blkfile_handle h[2], const char *path, int *out,
		     struct rpc_reply *reply)
{
	char name[NAME_MAX + 1];
	int err;

	if (h[0].scsi.used)
		return parent_lock_disk(p, h, path, out, reply);
	err = hostlock_name(h[0].fd, h[0].lock_fd, p->hello.host_id, name, sizeof(name));
	return err ? err : parent_take_host_lock(p, name, path, out, reply);
}

/* What open(2) says of a device that is write-protected helps nobody. */
static int explain_read_only(const char *path, unsigned int flags, int err,
			     struct rpc_reply *reply)
{
	if (!(flags & BLKFILE_READ_ONLY) && (err == -EROFS || err == -EACCES))
		snprintf(reply->why, sizeof(reply->why), "%.300s: is read-only, and a host must write "
			 "its heartbeat, even for -o ro; -o rescue reads it", path);
	return err;
}

/* Opened twice, in the way that the volume was made for: its superblock tells. */
static int open_volume(const char *path, unsigned int flags, struct blkfile_handle h[2],
		       struct rpc_reply *reply)
{
	struct blkfile_handle seen;
	int err = blkfile_handle_open(path, BLKFILE_READ_ONLY, &seen, reply->why,
				      sizeof(reply->why));

	if (err)
		return err;
	err = parent_check_volume(&seen, path, &flags, reply);
	for (unsigned int i = 0; i < 2 && !err; i++) {
		err = blkfile_handle_open(path, flags, &h[i], reply->why, sizeof(reply->why));
		if (!err)
			err = check_same(&seen, &h[i], reply);
	}
	blkfile_handle_close(&seen);
	return explain_read_only(path, flags, err, reply);
}

/* The process ends right after the reply: that closes what was opened.  @fds NULL: the parent
 * knows that root asked for it before. */
int parent_open(const struct parent *p, const struct rpc_open *rq, const int *fds,
		struct rpc_reply *reply, int *out, unsigned int *out_count)
{
	unsigned int flags = rq->flags & RPC_OPEN_READ_ONLY ? BLKFILE_READ_ONLY : 0;
	struct blkfile_handle h[2];
	int host_lock = -1, err;

	err = fds ? parent_asked_open(p, fds[0], rq, reply) : 0;
	if (!err && blkiscsi_is_url(rq->path))
		return parent_open_lun(p, rq, reply, out, out_count);
	if (!err)
		err = open_volume(rq->path, flags, h, reply);
	if (!err && !(rq->flags & RPC_OPEN_NO_HOST_LOCK))
		err = take_lock(p, h, rq->path, &host_lock, reply);
	if (!err && h[0].scsi.used && host_lock >= 0)
		err = parent_start_agent(h, host_lock, reply);
	if (!err)
		err = fill_open_reply(h, reply, out, out_count);
	if (!err && host_lock >= 0) {
		reply->open.has_host_lock = true;
		out[(*out_count)++] = host_lock;
	}
	return err;
}

/* ---- mount ---- */

/* Whether the mount at @path answers, asked by a process that may hang in our place. */
static bool mount_is_dead(const char *path)
{
	struct pollfd pfd = { .events = POLLIN };
	struct statfs st;
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (pid == 0)
		_exit(statfs(path, &st) && errno == ENOTCONN ? 1 : 0);	/* never cached */
	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pfd.fd < 0 || poll(&pfd, 1, PROBE_MS) <= 0)
		kill(pid, SIGKILL);
	close(pfd.fd);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* Opens @dir and says how the kernel calls it; O_PATH does not ask what is mounted there. */
static int open_dir(const char *dir, char real[PATH_MAX], struct rpc_reply *reply)
{
	char link[64];
	ssize_t n;
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		int err = -errno;

		snprintf(reply->why, sizeof(reply->why), "%.300s: %s", dir, strerror(-err));
		return err;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, real, PATH_MAX - 1);
	if (n > 0 && n < PATH_MAX - 1) {
		real[n] = '\0';
		return fd;
	}
	close(fd);
	return -ENAMETOOLONG;
}

/* A daemon that was killed leaves its mount behind, answering ENOTCONN: away with it. */
static int open_clean_dir(const char *dir, char real[PATH_MAX], struct rpc_reply *reply)
{
	for (unsigned int i = 0; i < STACKED_MAX; i++) {
		uint32_t minor;
		int fd = open_dir(dir, real, reply), err;

		if (fd < 0)
			return fd;
		err = mountinfo_find_now(real, &minor);
		if (err == -ENOENT || err == -EMEDIUMTYPE)
			return fd;
		if (err) {
			snprintf(reply->why, sizeof(reply->why), "%.300s: cannot tell what is "
				 "mounted there: %s", dir, strerror(-err));
			close(fd);
			return err;
		}
		close(fd);
		if (!mount_is_dead(real))
			break;
		log_info(env_posix(), real, "unmounting what a LunFS daemon that died left here");
		if (umount2(real, MNT_DETACH | UMOUNT_NOFOLLOW))
			break;
	}
	snprintf(reply->why, sizeof(reply->why),
		 "%.300s: a LunFS volume is mounted there already; umount it first", dir);
	return -EBUSY;
}

static int mount_fuse(const struct rpc_mount *rq, int dir_fd, int fuse_fd, struct rpc_reply *reply)
{
	char target[64], opts[256];
	int err;

	/* By descriptor: nobody can swap the directory under us. */
	snprintf(target, sizeof(target), "/proc/self/fd/%d", dir_fd);
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,"
		 "default_permissions,max_read=%u", fuse_fd, rq->max_read);
	if (!mount(rq->source, target, MOUNT_TYPE, rq->flags, opts))
		return 0;
	err = -errno;
	snprintf(reply->why, sizeof(reply->why), "%.300s: mount: %s", rq->dir, strerror(-err));
	return err;
}

int parent_mount(const struct parent *p, const struct rpc_mount *rq, const int *fds,
		 struct rpc_reply *reply, int *out, unsigned int *out_count)
{
	int dir_fd, fuse_fd, err = parent_asked_mount(p, fds[0], rq, reply);

	if (err)
		return err;
	dir_fd = open_clean_dir(rq->dir, reply->mount.dir, reply);
	if (dir_fd < 0)
		return dir_fd;
	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse_fd < 0) {
		err = -errno;
		snprintf(reply->why, sizeof(reply->why),
			 "/dev/fuse: %s; is the kernel module loaded (modprobe fuse)?", strerror(-err));
		return err;
	}
	err = mount_fuse(rq, dir_fd, fuse_fd, reply);
	if (err)
		return err;
	err = mountinfo_find_now(reply->mount.dir, &reply->mount.dev_minor);
	if (err) {
		snprintf(reply->why, sizeof(reply->why), "%.300s: mounted, but not to be found: %s",
			 rq->dir, strerror(-err));
		umount2(reply->mount.dir, MNT_DETACH | UMOUNT_NOFOLLOW);
		return -EIO;
	}
	out[(*out_count)++] = fuse_fd;
	return 0;
}

int parent_umount(const struct rpc_umount *rq, struct rpc_reply *reply)
{
	uint32_t top;
	int err;

	err = mountinfo_has_minor(rq->dir, rq->dev_minor);
	if (!err)
		return 0;	/* umount(8) was faster */
	if (err > 0)
		err = mountinfo_find_now(rq->dir, &top);
	if (err && err != -ENOENT && err != -EMEDIUMTYPE) {
		snprintf(reply->why, sizeof(reply->why), "%.300s: cannot tell what is mounted there: "
			 "%s", rq->dir, strerror(-err));
		return err;
	}
	if (err || top != rq->dev_minor) {
		snprintf(reply->why, sizeof(reply->why), "%.300s: something else is mounted on top",
			 rq->dir);
		return -EBUSY;
	}
	/* Unmounted by umount(8), mounted anew by somebody, and its number given again. */
	if (rq->dead && !mount_is_dead(rq->dir))
		return 0;
	if (!umount2(rq->dir, UMOUNT_NOFOLLOW | (rq->lazy ? MNT_DETACH : 0)))
		return 0;
	err = -errno;
	snprintf(reply->why, sizeof(reply->why), "%.300s: umount: %s", rq->dir, strerror(-err));
	return err;
}
