/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkfile_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOOP_MAJOR	7

/* Filesystems on which another machine may write the file behind our lock file's back. */
static const struct { unsigned long magic; const char *name; } network_filesystems[] = {
	{ NFS_SUPER_MAGIC, "NFS" },
	{ SMB_SUPER_MAGIC, "SMB" },
	{ 0xff534d42, "CIFS" },
	{ 0xfe534d42, "SMB2" },
	{ V9FS_MAGIC, "9p" },
	{ 0x00c36400, "Ceph" },
	{ AFS_SUPER_MAGIC, "AFS" },
	{ CODA_SUPER_MAGIC, "Coda" },
	{ OCFS2_SUPER_MAGIC, "OCFS2" },
	{ 0x01161970, "GFS2" },
	{ 0x0bd00bd0, "Lustre" },
	{ 0x47504653, "GPFS" },
	{ FUSE_SUPER_MAGIC, "FUSE (which may be a network filesystem)" },
};

static int refuse_network_filesystem(int fd, const char *path, char *why, size_t why_size)
{
	struct statfs st;
	size_t i;

	if (fstatfs(fd, &st))
		return -errno;
	for (i = 0; i < ARRAY_SIZE(network_filesystems); i++) {
		if ((unsigned long)st.f_type != network_filesystems[i].magic)
			continue;
		snprintf(why, why_size, "%s: lies on %s, where locks of one machine protect "
			 "nothing; use a local file, a loop device or a shared LUN", path,
			 network_filesystems[i].name);
		return -EREMOTE;
	}
	return 0;
}

int blkfile_sysfs_line(dev_t rdev, const char *attribute, char *buf, size_t size)
{
	char path[128];
	ssize_t n;
	int fd;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(rdev), minor(rdev),
		 attribute);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : 0;
	n = read(fd, buf, size - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

/* What backs the device in the end: a file's own stat, a loop device's file's. */
static int backing_stat(const struct stat *st, struct stat *backing, const char *path,
			char *why, size_t why_size)
{
	char file[4096];

	*backing = *st;
	if (!S_ISBLK(st->st_mode) || major(st->st_rdev) != LOOP_MAJOR)
		return 0;
	blkfile_sysfs_line(st->st_rdev, "loop/backing_file", file, sizeof(file));
	if (!file[0] || stat(file, backing)) {
		snprintf(why, why_size, "%s: cannot find the file behind this loop device; "
			 "attach it again with losetup", path);
		return -ENXIO;
	}
	return 0;
}

/* "file:INODE:BIRTH" survives a reboot and a rename, and differs in every copy. */
static void file_identity(int fd, struct blkdev_info *info)
{
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx))
		return;
	if (!(sx.stx_mask & STATX_BTIME))
		return;
	snprintf(info->identity, sizeof(info->identity), "file:%llu:%lld.%09u",
		 (unsigned long long)sx.stx_ino, (long long)sx.stx_btime.tv_sec,
		 sx.stx_btime.tv_nsec);
}

static int block_identity(const struct stat *st, struct blkdev_info *info)
{
	static const char *const attributes[] = { "wwid", "device/wwid", "dm/uuid", "serial" };
	char file[4096];
	int err = 0;
	size_t i;

	if (major(st->st_rdev) == LOOP_MAJOR) {
		int fd;

		err = blkfile_sysfs_line(st->st_rdev, "loop/backing_file", file, sizeof(file));
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (err || fd < 0)
			return err;
		file_identity(fd, info);
		close(fd);
		return 0;
	}
	for (i = 0; !err && i < ARRAY_SIZE(attributes) && !info->identity[0]; i++)
		err = blkfile_sysfs_line(st->st_rdev, attributes[i], info->identity,
				 sizeof(info->identity));
	return err;
}

static int file_geometry(unsigned int flags, const struct stat *st,
			 struct blkdev_info *info)
{
	info->sector = flags & BLKFILE_SECTOR_4K ? 4096 : 512;
	info->size = ALIGN_DOWN((uint64_t)st->st_size, info->sector);
	info->discard_granularity = 4096;
	info->caw = BLK_CAW_LOCAL;
	return 0;
}

/*
 * A loop device is the machine's own.  Any other block device may be a LUN that other
 * machines see too, and the lock file would not keep them out: it has SCSI COMPARE AND WRITE, or
 * mkfs --caw=local, by which the administrator says that no other machine sees it, makes it usable.
 */
static int block_geometry(struct blkfile_handle *h, unsigned int flags, const struct stat *st,
			  const char *path, char *why, size_t why_size)
{
	struct blkdev_info *info = &h->info;
	uint64_t size;
	int sector, read_only, err;
	char line[64];

	if (ioctl(h->fd, BLKGETSIZE64, &size) || ioctl(h->fd, BLKSSZGET, &sector) ||
	    ioctl(h->fd, BLKROGET, &read_only))
		return -errno;
	if (sector != 512 && sector != 4096)
		return -EMEDIUMTYPE;
	info->sector = (uint32_t)sector;
	info->size = ALIGN_DOWN(size, info->sector);
	info->read_only = info->read_only || read_only;
	err = blkfile_sysfs_line(st->st_rdev, "queue/discard_granularity", line, sizeof(line));
	info->discard_granularity = (uint32_t)strtoul(line, NULL, 10);
	if (!err)
		err = blkfile_sysfs_line(st->st_rdev, "queue/discard_max_bytes", line, sizeof(line));
	if (err)
		return err;
	if (strtoull(line, NULL, 10) == 0)
		info->discard_granularity = 0;
	if (major(st->st_rdev) == LOOP_MAJOR || (flags & BLKFILE_CAW_LOCAL)) {
		info->caw = BLK_CAW_LOCAL;
		return 0;
	}
	return blkscsi_learn(h->fd, st, path, !(flags & (BLKFILE_READ_ONLY | BLKFILE_NO_LOCK)), &h->scsi,
			     info, why, why_size);
}

/* Opens with O_DIRECT, or without where the filesystem refuses it (tmpfs before Linux 6.6). */
static int open_device(const char *path, unsigned int flags, bool *direct)
{
	int mode = (flags & BLKFILE_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
	int fd = -1;

	*direct = !(flags & BLKFILE_BUFFERED);
	if (*direct) {
		fd = open(path, mode | O_DIRECT);
		if (fd >= 0 || errno != EINVAL)
			return fd < 0 ? -errno : fd;
		*direct = false;
	}
	fd = open(path, mode);
	return fd < 0 ? -errno : fd;
}

/* A small container may lack /run itself. */
static int make_lock_dir(const char *dir)
{
	char parent[4096];
	char *slash;

	if (!mkdir(dir, 0755) || errno == EEXIST)
		return 0;
	if (errno != ENOENT)
		return -1;
	snprintf(parent, sizeof(parent), "%s", dir);
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return -1;
	*slash = '\0';
	if (mkdir(parent, 0755) && errno != EEXIST)
		return -1;
	return mkdir(dir, 0755) && errno != EEXIST ? -1 : 0;
}

int blkfile_lock_dir(char *why, size_t why_size)
{
	const char *dir = getenv("LUNFS_LOCK_DIR");
	struct stat st;
	int fd = -1, err;

	if (!dir || !*dir)
		dir = BLKFILE_LOCK_DIR;
	if (!make_lock_dir(dir))
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		snprintf(why, why_size, "%s: cannot make the directory of lock files: %s", dir,
			 strerror(-err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	if ((st.st_uid == 0 || st.st_uid == geteuid()) && !(st.st_mode & (S_IWGRP | S_IWOTH)))
		return fd;
	snprintf(why, why_size, "%s: others could exchange the lock files there: it has to belong "
		 "to root and be writable by nobody else", dir);
	close(fd);
	return -EPERM;
}

/* The lock file of the backing's compare-and-write: one per machine, whatever path names it. */
static int open_lock_file(const struct stat *backing, char *why, size_t why_size)
{
	int fd, err, dir = blkfile_lock_dir(why, why_size);
	char name[64];

	if (dir < 0)
		return dir;
	if (S_ISBLK(backing->st_mode))
		snprintf(name, sizeof(name), "b%u-%u", major(backing->st_rdev),
			 minor(backing->st_rdev));
	else
		snprintf(name, sizeof(name), "%u-%u-%llu", major(backing->st_dev),
			 minor(backing->st_dev), (unsigned long long)backing->st_ino);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	err = -errno;
	close(dir);
	if (fd >= 0)
		return fd;
	snprintf(why, why_size, "lock file %s: cannot be opened: %s", name, strerror(-err));
	return err;
}

/* A loop device is no more this machine's own than the file behind it. */
static int refuse_network_backing(const struct stat *st, const char *path, char *why,
				  size_t why_size)
{
	char file[4096];
	int err, fd;

	if (major(st->st_rdev) != LOOP_MAJOR)
		return 0;
	err = blkfile_sysfs_line(st->st_rdev, "loop/backing_file", file, sizeof(file));
	if (err) {
		snprintf(why, why_size, "%s: cannot find the file behind this loop device: %s",
			 path, strerror(-err));
		return err;
	}
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;	/* backing_stat() tells what is wrong with it */
	err = refuse_network_filesystem(fd, path, why, why_size);
	close(fd);
	return err;
}

static int learn_geometry(struct blkfile_handle *h, unsigned int flags, const struct stat *st,
			  const char *path, char *why, size_t why_size)
{
	int err;

	if (S_ISBLK(st->st_mode)) {
		err = refuse_network_backing(st, path, why, why_size);
		if (err)
			return err;
		err = block_geometry(h, flags, st, path, why, why_size);
		if (!err)
			err = block_identity(st, &h->info);
	} else {
		err = refuse_network_filesystem(h->fd, path, why, why_size);
		if (err)
			return err;
		err = file_geometry(flags, st, &h->info);
		file_identity(h->fd, &h->info);
	}
	if (err && !why[0])
		snprintf(why, why_size, "%s: cannot learn the device's geometry: %s", path,
			 strerror(-err));
	return err;
}

static int open_locks(struct blkfile_handle *h, unsigned int flags, const struct stat *st,
		      const char *path, char *why, size_t why_size)
{
	struct stat backing;
	int fd;

	h->lock_fd = -1;
	if (flags & BLKFILE_NO_LOCK)
		h->info.caw = BLK_CAW_NONE;
	if (h->info.caw != BLK_CAW_LOCAL || h->info.read_only)
		return 0;
	fd = backing_stat(st, &backing, path, why, why_size);
	if (!fd)
		fd = open_lock_file(&backing, why, why_size);
	if (fd < 0)
		return fd;
	h->lock_fd = fd;
	return 0;
}

int blkfile_handle_open(const char *path, unsigned int flags, struct blkfile_handle *h, char *why,
			size_t why_size)
{
	struct stat st;
	bool direct;
	int err;

	memset(h, 0, sizeof(*h));
	why[0] = '\0';
	h->lock_fd = -1;
	h->fd = open_device(path, flags, &direct);
	if (h->fd < 0) {
		snprintf(why, why_size, "%s: cannot open: %s", path, strerror(-h->fd));
		return h->fd;
	}
	snprintf(h->info.name, sizeof(h->info.name), "%s", path);
	h->info.direct = direct;
	h->info.read_only = flags & BLKFILE_READ_ONLY;
	h->info.mem_align = 4096;
	h->info.io_max = MIB;
	err = fstat(h->fd, &st) ? -errno : 0;
	if (!err && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		snprintf(why, why_size, "%s: neither a file nor a block device", path);
		err = -ENOTBLK;
	}
	if (!err)
		err = learn_geometry(h, flags, &st, path, why, why_size);
	if (!err)
		err = open_locks(h, flags, &st, path, why, why_size);
	if (err)
		blkfile_handle_close(h);
	return err;
}

void blkfile_handle_close(struct blkfile_handle *h)
{
	if (h->fd >= 0)
		close(h->fd);
	if (h->lock_fd >= 0)
		close(h->lock_fd);
	for (unsigned int i = 0; i < h->lane_count; i++)
		close(h->lanes[i]);
	h->fd = -1;
	h->lock_fd = -1;
	h->lane_count = 0;
}
