/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual disks on a real reactor, with a real polled device and real workers: what the simulator
 * cannot show is two threads in one place at one moment.  Worth most under the thread sanitizer.
 */
#include "fs/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "block/blkpoll.h"
#include "fs/check.h"
#include "fs/mkfs.h"
#include "tests/unit.h"

#define SIZE	(256 * MIB)
#define DISK	(16 * MIB)
#define DISKS	2u
#define LANES	4u
#define LANE	(DISK / LANES)
#define STEPS	150u

static const struct fs_cred cred = { .uid = 1, .gid = 1, .pid = 1, .comm = "test" };

struct rig {
	struct fs	*fs;
	struct reactor	*r;
	struct workers	*workers;
	struct blkdev	*raw, *port;
	struct blkpoll	poll;
	struct shares	shares;		/* two at the device at a time: most requests wait for a turn */
	struct disk	*disk[DISKS];
	int		err;
};

struct lane {
	struct rig	*rig;
	struct blkdev	*dev;
	unsigned int	index, seed, bad;
	uint8_t		*model, *buf;
};

static unsigned int choose(struct lane *l, unsigned int below)
{
	l->seed = l->seed * 1103515245 + 12345;
	return (l->seed >> 8) % below;
}

static void step(struct lane *l)
{
	uint64_t at = choose(l, LANE / 512) * 512ULL, len = 512 * (1 + choose(l, 200));
	unsigned int what = choose(l, 16);

	if (choose(l, 3)) {
		at = ALIGN_DOWN(at, 4096);
		len = ALIGN_UP(len, 4096);
	}
	len = len < LANE - at ? len : LANE - at;
	if (what < 7) {
		memset(l->buf, (int)(1 + choose(l, 255)), len);
		l->bad += blkdev_write(l->dev, l->index * LANE + at, l->buf, len) != 0;
		memcpy(l->model + at, l->buf, len);
	} else if (what < 13) {
		l->bad += blkdev_read(l->dev, l->index * LANE + at, l->buf, len) != 0;
		l->bad += memcmp(l->buf, l->model + at, len) != 0;
	} else if (what == 13) {
		l->bad += blkdev_zero(l->dev, l->index * LANE + at, len) != 0;
		memset(l->model + at, 0, len);
	} else {
		l->bad += blkdev_flush(l->dev) != 0;
	}
}

static void *lane_main(void *arg)
{
	struct lane *l = arg;

	for (unsigned int i = 0; i < STEPS; i++)
		step(l);
	return NULL;
}

/* From outside, meanwhile: snapshots, statistics, limits. */
static void meddle(struct rig *rig, unsigned int i)
{
	struct disk_limits limits = { .iops = i % 2 ? 5000 : 0, .shares = i % 4 ? 100 * i : 0 };
	struct disk_stats st;
	struct fs_attr attr;
	uint64_t pause_ns;
	char name[16];

	snprintf(name, sizeof(name), "snap-%u", i);
	CU_ASSERT_EQUAL(disk_snapshot(rig->disk[0], fs_root(rig->fs), "disk-0", name, &attr,
				      &pause_ns), 0);
	disk_set_limits(rig->disk[i % DISKS], &limits);
	disk_stats(rig->disk[0], &st);
	CU_ASSERT_TRUE(st.open);
}

static void run_lanes(struct rig *rig, struct lane *lanes)
{
	pthread_t threads[LANES];

	for (unsigned int i = 0; i < LANES; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, lane_main, &lanes[i]), 0);
	for (unsigned int i = 0; i < 4; i++) {
		usleep(20000);
		meddle(rig, i);
	}
	for (unsigned int i = 0; i < LANES; i++) {
		pthread_join(threads[i], NULL);
		CU_ASSERT_EQUAL(lanes[i].bad, 0);
	}
}

static void port_begin(void *arg)
{
	struct rig *rig = arg;

	rig->err = blkdev_set_polled(rig->raw);
	if (!rig->err)
		rig->err = lockd_port(rig->fs->lockd, rig->raw, &rig->port);
	if (!rig->err)
		rig->err = blkpoll_start(&rig->poll, rig->r, rig->port);
}

static void port_end(void *arg)
{
	struct rig *rig = arg;

	blkpoll_stop(&rig->poll);
	blkdev_close(rig->port);
	blkdev_close(rig->raw);
}

static void disk_begin(struct rig *rig, unsigned int i)
{
	struct disk_params p = { .fs = rig->fs, .reactor = rig->r, .workers = rig->workers,
				 .lower = rig->port, .shares = &rig->shares,
				 .limits = { .shares = i ? 200 : 0 } };
	struct fs_attr attr;
	char name[16];

	snprintf(name, sizeof(name), "disk-%u", i);
	CU_ASSERT_EQUAL(fs_create(rig->fs, fs_root(rig->fs), name, S_IFREG | 0600, 0, &cred, &attr),
			0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(rig->fs, attr.id, FS_SET_SIZE, &attr), 0);
	p.id = attr.id;
	p.name = name;
	CU_ASSERT_EQUAL_FATAL(disk_new(&p, &rig->disk[i]), 0);
	CU_ASSERT_EQUAL_FATAL(disk_open(rig->disk[i], NULL, NULL), 0);
}

static void run_disks(struct fs *fs, struct blkdev *raw)
{
	struct rig rig = { .fs = fs, .raw = raw };
	struct lane lanes[LANES];

	CU_ASSERT_EQUAL_FATAL(reactor_create(env_posix(), "reactor", 50000, 16, &rig.r), 0);
	CU_ASSERT_EQUAL_FATAL(workers_create(env_posix(), "disk", 4, &rig.workers), 0);
	reactor_call_sync(rig.r, port_begin, &rig);
	CU_ASSERT_EQUAL_FATAL(rig.err, 0);
	shares_init(&rig.shares, rig.port, 2);
	for (unsigned int i = 0; i < DISKS; i++)
		disk_begin(&rig, i);
	for (unsigned int i = 0; i < LANES; i++)
		lanes[i] = (struct lane){ .rig = &rig, .index = i, .seed = i + 1,
					  .dev = disk_blkdev(rig.disk[i % DISKS]),
					  .model = calloc(1, LANE), .buf = blkdev_alloc(LANE) };
	run_lanes(&rig, lanes);
	/* Opened again they show the same. */
	for (unsigned int i = 0; i < DISKS; i++) {
		CU_ASSERT_EQUAL(disk_shut(rig.disk[i]), 0);
		CU_ASSERT_EQUAL(disk_open(rig.disk[i], NULL, NULL), 0);
	}
	for (unsigned int i = 0; i < LANES; i++) {
		CU_ASSERT_EQUAL(blkdev_read(lanes[i].dev, i * LANE, lanes[i].buf, LANE), 0);
		CU_ASSERT_EQUAL(memcmp(lanes[i].buf, lanes[i].model, LANE), 0);
		free(lanes[i].buf);
		free(lanes[i].model);
	}
	for (unsigned int i = 0; i < DISKS; i++) {
		CU_ASSERT_EQUAL(disk_shut(rig.disk[i]), 0);
		disk_free(rig.disk[i]);
	}
	reactor_call_sync(rig.r, port_end, &rig);
	CU_ASSERT_EQUAL(rig.shares.members + rig.shares.at_device, 0);
	workers_destroy(rig.workers);
	reactor_destroy(rig.r);
}

static void finding(void *arg, const struct check_finding *f)
{
	if (check_code_info(f->code)->severity != CHECK_ERROR)
		return;
	++*(unsigned int *)arg;
	fprintf(stderr, "  check: %s\n", f->text);
}

static void attach_and_run(struct blkdev *dev, struct blkdev *hb_dev, struct blkdev *raw)
{
	struct fs_attach_params p = { .env = env_posix(), .dev = dev, .hb_dev = hb_dev,
				      .host_name = "alpha", .pid = 1, .own_slot_is_dead = true,
				      .flags = FS_FORCE_UNSAFE };
	unsigned int errors = 0;
	struct check_params cp = { .env = env_posix(), .dev = dev, .report = finding,
				   .arg = &errors };
	struct check_result r;
	char why[400];
	struct fs *fs;

	memset(p.host_id, 1, sizeof(p.host_id));
	memset(p.boot_id, 2, sizeof(p.boot_id));
	CU_ASSERT_EQUAL_FATAL(fs_attach(&p, &fs, why, sizeof(why)), 0);
	run_disks(fs, raw);
	CU_ASSERT_EQUAL(fs_detach(fs), 0);
	CU_ASSERT_EQUAL(check_volume(&cp, &r, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(errors, 0);
}

static void lanes_and_meddlers_do_not_disturb_each_other(void)
{
	char dir[] = "/var/tmp/lunfs-disk-XXXXXX", path[64], command[64], why[400];
	struct mkfs_params mp = { .env = env_posix(), .label = "ds1" };
	struct blkdev *dev[3];
	struct super s;
	int fd;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/lun.img", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(ftruncate(fd, SIZE), 0);
	close(fd);
	setenv("LUNFS_LOCK_DIR", dir, 1);
	env_posix_log_level(LOG_LEVEL_ERROR);
	for (unsigned int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), path, 0, &dev[i], why, sizeof(why)),
				      0);
	mp.dev = dev[0];
	CU_ASSERT_EQUAL(mkfs(&mp, &s, why, sizeof(why)), 0);
	attach_and_run(dev[0], dev[1], dev[2]);
	blkdev_close(dev[1]);
	blkdev_close(dev[0]);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

UNIT_MAIN("fs/disk threads",
	UNIT_TEST(lanes_and_meddlers_do_not_disturb_each_other));
