/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "block/blkfile_internal.h"
#include "block/blkscsi_internal.h"

#define KERNEL_TRIES	6u	/* SD_MAX_RETRIES and the first */
#define PAGE_SIZE_MAX	1024u

/* ---- how long a command may live ---- */

/* A number of seconds in a file of sysfs; -1: none, or "off". */
static long sysfs_seconds(const char *path)
{
	char text[32] = "", *end;
	ssize_t n;
	long v;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	v = strtol(text, &end, 10);
	return end != text && v >= 0 && v <= INT_MAX ? v : -1;
}

/* The folder above that is called @prefix and a number: "/…/host2/session1/…" has "session1". */
static bool find_above(const char *path, const char *prefix, char *out, size_t size)
{
	for (const char *at = path; (at = strchr(at, '/')); at++) {
		size_t n = strlen(prefix);

		if (strncmp(at + 1, prefix, n) || !isdigit((unsigned char)at[1 + n]))
			continue;
		snprintf(out, size, "%.*s", (int)strcspn(at + 1, "/"), at + 1);
		return true;
	}
	return false;
}

/* How long the transport holds commands back while a path is gone; -1: nobody knows. */
static long transport_seconds(const char *sysfs, const char *real)
{
	char name[64], path[PATH_MAX];

	if (find_above(real, "session", name, sizeof(name)))
		snprintf(path, sizeof(path), "%s/class/iscsi_session/%s/recovery_tmo", sysfs, name);
	else if (find_above(real, "rport-", name, sizeof(name)))
		snprintf(path, sizeof(path), "%s/class/fc_remote_ports/%s/fast_io_fail_tmo", sysfs,
			 name);
	else
		return 0;
	return sysfs_seconds(path);
}

uint64_t blkscsi_bound_ns(const char *sysfs, const char *device)
{
	char real[PATH_MAX], path[PATH_MAX + 32], host[64];
	long timeout, recovery, transport;

	if (!realpath(device, real) || !find_above(real, "host", host, sizeof(host)))
		return 0;
	snprintf(path, sizeof(path), "%s/timeout", real);
	timeout = sysfs_seconds(path);
	snprintf(path, sizeof(path), "%s/class/scsi_host/%s/eh_deadline", sysfs, host);
	recovery = sysfs_seconds(path);
	transport = transport_seconds(sysfs, real);
	if (timeout < 0 || recovery < 0 || transport < 0)
		return 0;
	/* One try more: the last one may begin when the time for all of them is just not over. */
	return ((KERNEL_TRIES + 1) * (uint64_t)timeout + (uint64_t)recovery + (uint64_t)transport) *
	       NSEC_PER_SEC;
}

/* ---- what it is ---- */

enum kind { NOT_SCSI, DISK, PARTITION, MULTIPATH };

/*
 * Other devices over a SCSI disk pass SG_IO on to it as well, a logical volume with addresses that are
 * not its own: only what is the whole disk counts.
 */
static int find_kind(dev_t rdev, enum kind *kind)
{
	char disk[64], parent[64], partition[64], dm[128];
	int err = blkfile_sysfs_line(rdev, "device/scsi_level", disk, sizeof(disk));

	if (!err)
		err = blkfile_sysfs_line(rdev, "../device/scsi_level", parent, sizeof(parent));
	if (!err)
		err = blkfile_sysfs_line(rdev, "partition", partition, sizeof(partition));
	if (!err)
		err = blkfile_sysfs_line(rdev, "dm/uuid", dm, sizeof(dm));
	if (err)
		return err;
	*kind = !strncmp(dm, "mpath-", 6) ? MULTIPATH : disk[0] ? DISK :
		partition[0] && parent[0] ? PARTITION : NOT_SCSI;
	return 0;
}

/* Which device is on top of this one; "" none. */
static void find_holder(dev_t rdev, char *out, size_t size)
{
	char path[128];
	struct dirent *d;
	DIR *dir;

	out[0] = '\0';
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(rdev), minor(rdev));
	dir = opendir(path);
	while (dir && !out[0] && (d = readdir(dir)))
		if (d->d_name[0] != '.')
			snprintf(out, size, "%s", d->d_name);
	if (dir)
		closedir(dir);
}

/* The kernel hides that a target was lost and came back: what must last carries FUA (R7). */
static int learn_cache(dev_t rdev, const char *path, bool writes, struct blkscsi *s, char *why,
		       size_t why_size)
{
	char cache[32], fua[32];
	int err = blkfile_sysfs_line(rdev, "queue/write_cache", cache, sizeof(cache));

	if (!err)
		err = blkfile_sysfs_line(rdev, "queue/fua", fua, sizeof(fua));
	if (err)
		return err;
	s->fua = !strcmp(cache, "write back");
	if (!writes || !s->fua || !strcmp(fua, "1"))
		return 0;
	snprintf(why, why_size, "%s: has a volatile write cache and does not take writes that pass it by "
		 "(FUA): what a crash of the target loses could not be noticed; switch the cache off "
		 "(sdparm --clear=WCE)", path);
	return -EMEDIUMTYPE;
}

static int check_free(dev_t rdev, const char *path, char *why, size_t why_size)
{
	char holder[NAME_MAX + 1];

	find_holder(rdev, holder, sizeof(holder));
	if (!holder[0])
		return 0;
	snprintf(why, why_size, "%s: is used by %s; if that is a multipath device, name that one", path,
		 holder);
	return -EBUSY;
}

static void learn_rest(const struct stat *st, enum kind kind, struct scsi_lu *lu, uint8_t *buf,
		       struct blkdev_info *info)
{
	char device[64];
	bool aptpl = false;
	int n;

	info->caw = BLK_CAW_SCSI;
	/* linux/pr.h asks for APTPL always. */
	info->reservations = lu_has_pr(&lu->lu, &aptpl) && aptpl;
	n = lu_inquiry(&lu->lu, LU_VPD_IDENTIFICATION, buf, PAGE_SIZE_MAX);
	if (n > 0)
		lu_identity(buf, (size_t)n, info->identity, sizeof(info->identity));
	snprintf(device, sizeof(device), "/sys/dev/block/%u:%u/device", major(st->st_rdev),
		 minor(st->st_rdev));
	/* What a multipath device keeps until a path comes back (queue_if_no_path) has no bound. */
	info->inflight_ns_max = kind == DISK ? blkscsi_bound_ns("/sys", device) : 0;
}

static int learn_lu(int fd, const struct stat *st, const char *path, enum kind kind, bool writes,
		    uint8_t *buf, struct blkscsi *s, struct blkdev_info *info, char *why,
		    size_t why_size)
{
	struct scsi_lu lu;
	char seconds[32];
	int n, err = blkfile_sysfs_line(st->st_rdev, "device/timeout", seconds, sizeof(seconds));

	if (err)
		return err;
	s->timeout_ms = (uint32_t)strtoul(seconds, NULL, 10) * 1000;
	lu = scsi_lu(fd, s->timeout_ms);
	n = lu_inquiry(&lu.lu, LU_VPD_STANDARD, buf, 96);
	if (n < 36 || buf[0])
		return 0;	/* the kernel has it from elsewhere, or it is no disk */
	n = lu_inquiry(&lu.lu, LU_VPD_LIMITS, buf, 64);
	if (!lu_has_caw(&lu.lu, buf, n))
		return 0;
	err = writes ? check_free(st->st_rdev, path, why, why_size) : 0;
	if (!err)
		err = learn_cache(st->st_rdev, path, writes, s, why, why_size);
	if (err)
		return err;
	s->used = true;
	learn_rest(st, kind, &lu, buf, info);
	return 0;
}

int blkscsi_learn(int fd, const struct stat *st, const char *path, bool writes, struct blkscsi *s,
		  struct blkdev_info *info, char *why, size_t why_size)
{
	enum kind kind;
	uint8_t *buf;
	int err = find_kind(st->st_rdev, &kind);

	memset(s, 0, sizeof(*s));
	if (err || kind == NOT_SCSI)
		return err;
	if (kind == PARTITION) {
		if (!writes)
			return 0;
		snprintf(why, why_size, "%s: is a partition, and a reservation is of a whole LUN: make "
			 "the volume on the whole disk; or, if only this machine uses it, with "
			 "--caw=local", path);
		return -EMEDIUMTYPE;
	}
	buf = calloc(1, PAGE_SIZE_MAX);
	if (!buf)
		return -ENOMEM;
	err = learn_lu(fd, st, path, kind, writes, buf, s, info, why, why_size);
	free(buf);
	return err;
}
