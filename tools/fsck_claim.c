/* SPDX-License-Identifier: Apache-2.0 */
/* A volume opened for repair, with nobody else on it. */
#include "tools/fsck.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "block/blkopen.h"
#include "block/hostlock.h"

/*
 * Among processes of one machine: is the silent one dead?  Nobody is killed by a repair.  One
 * that runs is for the administrator to end.
 */
static int is_dead(void *arg, const struct slot *victim)
{
	const struct fsck_claim *fc = arg;
	uint64_t start = 0;
	char why[200];
	int err = machine_process_start(victim->pid, &start, NULL);

	if (!err && start == victim->pid_start)
		return -EPERM;
	if (err && err != -ESRCH)
		return -EPERM;
	return hostlock_is_free(fc->fd, fc->lock_fd, victim->host_id, why, sizeof(why)) > 0 ?
	       0 : -EPERM;
}

static unsigned int flags_of(const struct super *s)
{
	return (s->sector == 4096 ? BLKFILE_SECTOR_4K : 0u) |
	       (s->caw == BLK_CAW_LOCAL ? BLKFILE_CAW_LOCAL : 0u);
}

/* Twice, as a host does: the heartbeat has a handle of its own. */
static int open_path(const char *path, unsigned int flags, struct fsck_claim *fc, char *why,
		     size_t why_size)
{
	struct blkfile_handle h;
	int err = blkfile_handle_open(path, flags, &h, why, why_size);

	if (err)
		return err;
	err = blkfile_new(env_posix(), &h, &fc->dev);
	if (err) {
		blkfile_handle_close(&h);
		return err;
	}
	fc->fd = h.fd;
	fc->lock_fd = h.lock_fd;
	return blkfile_open(env_posix(), path, flags, &fc->hb_dev, why, why_size);
}

static int open_lun(const char *url, struct fsck_claim *fc, char *why, size_t why_size)
{
	int err = blkopen(env_posix(), url, 0, &fc->dev, why, why_size);

	return err ? err : blkopen(env_posix(), url, BLKOPEN_HEARTBEAT, &fc->hb_dev, why, why_size);
}

static int open_both(const char *path, struct fsck_claim *fc, char *why, size_t why_size)
{
	struct blkdev *dev;
	struct super s;
	int err;

	*fc = (struct fsck_claim){ .fd = -1, .lock_fd = -1 };
	if (!blkopen_is_path(path))
		return open_lun(path, fc, why, why_size);
	err = blkopen(env_posix(), path, BLKFILE_READ_ONLY, &dev, why, why_size);
	if (err)
		return err;
	err = super_find(dev, &s, why, why_size);
	blkdev_close(dev);
	return err ? err : open_path(path, flags_of(&s), fc, why, why_size);
}

static void close_both(struct fsck_claim *fc)
{
	blkdev_close(fc->hb_dev);
	blkdev_close(fc->dev);
}

int fsck_claim_take(const char *path, struct fsck_claim *fc, char *why, size_t why_size)
{
	struct claim_params p = { .env = env_posix(), .host_name = "fsck.lunfs",
				  .pid = (uint32_t)getpid(), .kill_arg = fc };
	int err = open_both(path, fc, why, why_size);

	if (!err)
		err = machine_boot_id(p.boot_id);
	if (!err)
		err = machine_process_start(p.pid, &p.pid_start, NULL);
	if (err) {
		close_both(fc);
		return err;
	}
	env_random(p.env, p.host_id, sizeof(p.host_id));
	p.dev = fc->dev;
	p.hb_dev = fc->hb_dev;
	p.kill = fc->fd >= 0 ? is_dead : NULL;
	err = claim_take(&p, &fc->claim, why, why_size);
	if (err)
		close_both(fc);
	return err;
}

int fsck_claim_release(struct fsck_claim *fc, bool whole)
{
	int err = claim_release(fc->claim, whole);

	close_both(fc);
	return err;
}
