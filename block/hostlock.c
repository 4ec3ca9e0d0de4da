/* SPDX-License-Identifier: Apache-2.0 */
#include "block/hostlock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/text.h"

/* The directory that descriptor @fd's file lies in, and its name there. */
static int split_fd_path(int fd, char dir[PATH_MAX], const char **name)
{
	char link[64], *slash;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, dir, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	dir[n] = '\0';
	slash = strrchr(dir, '/');
	if (!slash)
		return -EINVAL;
	*slash = '\0';
	*name = slash + 1;
	return 0;
}

int hostlock_name(int fd, int lock_fd, const uint8_t host_id[16], char *name, size_t size)
{
	char uuid[UUID_TEXT_SIZE], path[PATH_MAX], own[64];
	const char *device = own;
	struct stat st;
	int n, err = 0;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		snprintf(own, sizeof(own), "b%u-%u", major(st.st_rdev), minor(st.st_rdev));
	else
		snprintf(own, sizeof(own), "%u-%u-%llu", major(st.st_dev), minor(st.st_dev),
			 (unsigned long long)st.st_ino);
	if (lock_fd >= 0)	/* after it: the same name for every path to the device */
		err = split_fd_path(lock_fd, path, &device);
	if (err)
		return err;
	n = snprintf(name, size, "host-%s-%s", text_format_uuid(host_id, uuid), device);
	return n < (int)size ? 0 : -ENAMETOOLONG;
}

int hostlock_is_free(int fd, int lock_fd, const uint8_t host_id[16], char *why, size_t why_size)
{
	char name[NAME_MAX + 1];
	int dir, file, err;
	bool held;

	err = hostlock_name(fd, lock_fd, host_id, name, sizeof(name));
	if (err) {
		snprintf(why, why_size, "its lock file cannot be named");
		return err;
	}
	dir = blkfile_lock_dir(why, why_size);
	if (dir < 0)
		return dir;
	file = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	err = file < 0 ? -errno : 0;
	close(dir);
	if (err)
		return err == -ENOENT;
	held = flock(file, LOCK_SH | LOCK_NB);
	close(file);
	return !held;
}
