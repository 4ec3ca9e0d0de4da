// SPDX-License-Identifier: Apache-2.0
/*
 * Real threads on a real file: what the simulator cannot show is two threads in one place at
 * one moment.  Worth most under the thread sanitizer.
 */
#include "fs/fs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <fcntl.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "fs/check.h"
#include "fs/mkfs.h"
#include "tests/unit.h"

#define THREADS	4u
#define STEPS	1000u
#define SIZE	(128 * MIB)

static const struct fs_cred cred = { .uid = 1, .gid = 1, .pid = 1, .comm = "test" };

struct worker {
	struct fs *fs;
	uint64_t dir;
	unsigned int seed;
	unsigned int bad;
};

static unsigned int choose(struct worker *w, unsigned int below)
{
	w->seed = w->seed * 1103515245 + 12345;
	return (w->seed >> 16) % below;
}

static void overwrite(struct worker *w, uint64_t id)
{
	char data[9000];
	struct fs_file *f;
	size_t done;

	memset(data, 'x', sizeof(data));
	if (fs_open(w->fs, id, FS_OPEN_WRITE, &cred, &f, NULL))
		return;
	w->bad += fs_write(w->fs, f, choose(w, 40000), data, sizeof(data), false, &done) != 0;
	w->bad += fs_read(w->fs, f, 0, data, sizeof(data), &done) != 0;
	if (choose(w, 8) == 0)
		w->bad += fs_fsync(w->fs, f, false) != 0;
	fs_close(w->fs, f);
}

static int count_names(void *arg, const struct dirent_info *d)
{
	(void)d;
	++*(unsigned int *)arg;
	return 0;
}

/* Errors of names that another thread took away are as they should be; others are not. */
static void step(struct worker *w)
{
	struct fs_attr attr = { .mode = 0600 };
	char name[16], other[16];
	unsigned int count = 0;
	int err = 0;

	snprintf(name, sizeof(name), "n%u", choose(w, 20));
	snprintf(other, sizeof(other), "n%u", choose(w, 20));
	switch (choose(w, 8)) {
	case 0: case 1:
		err = fs_create(w->fs, w->dir, name, S_IFREG | 0644, 0, &cred, &attr);
		break;
	case 2:
		err = fs_unlink(w->fs, w->dir, name);
		break;
	case 3:
		err = fs_rename(w->fs, w->dir, name, w->dir, other, 0);
		break;
	case 4:
		err = fs_readdir(w->fs, w->dir, 0, count_names, &count);
		break;
	case 5:
		err = fs_lookup(w->fs, w->dir, name, &attr);
		if (!err)
			fs_setattr(w->fs, attr.id, FS_SET_MODE, &attr);
		break;
	default:
		err = fs_lookup(w->fs, w->dir, name, &attr);
		if (!err)
			overwrite(w, attr.id);
	}
	w->bad += err && err != -ENOENT && err != -EEXIST && err != -ESTALE;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; i < STEPS; i++)
		step(w);
	return NULL;
}

static void run_threads(struct fs *fs, uint64_t dir)
{
	struct worker w[THREADS];
	pthread_t t[THREADS];
	unsigned int i;

	for (i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ fs, dir, i + 1, 0 };
		CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		CU_ASSERT_EQUAL(w[i].bad, 0);
	}
}

static void finding(void *arg, const struct check_finding *f)
{
	if (check_code_info(f->code)->severity != CHECK_ERROR)
		return;
	++*(unsigned int *)arg;
	fprintf(stderr, "  check: %s\n", f->text);
}

static void work_and_check(struct blkdev *dev, struct blkdev *hb_dev)
{
	struct fs_attach_params p = { .env = env_posix(), .dev = dev, .hb_dev = hb_dev,
				      .host_name = "alpha", .pid = 1, .own_slot_is_dead = true,
				      .flags = FS_FORCE_UNSAFE };
	unsigned int errors = 0;
	struct check_params cp = { .env = env_posix(), .dev = dev, .report = finding,
				   .arg = &errors };
	struct check_result r;
	struct fs_attr attr;
	char why[400];
	struct fs *fs;

	memset(p.host_id, 1, sizeof(p.host_id));
	memset(p.boot_id, 2, sizeof(p.boot_id));
	CU_ASSERT_EQUAL_FATAL(fs_attach(&p, &fs, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(fs_create(fs, fs_root(fs), "d", S_IFDIR | 0755, 0, &cred, &attr), 0);
	run_threads(fs, attr.id);
	CU_ASSERT_EQUAL(fs_detach(fs), 0);
	CU_ASSERT_EQUAL(check_volume(&cp, &r, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(errors, 0);
}

static void test_threads_do_not_disturb_each_other(void)
{
	char dir[] = "/var/tmp/lunfs-threads-XXXXXX", path[64], command[64], why[400];
	struct mkfs_params mp = { .env = env_posix(), .label = "ds1" };
	struct blkdev *dev, *hb_dev;
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
	CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), path, 0, &dev, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), path, 0, &hb_dev, why, sizeof(why)), 0);
	mp.dev = dev;
	CU_ASSERT_EQUAL(mkfs(&mp, &s, why, sizeof(why)), 0);
	work_and_check(dev, hb_dev);
	blkdev_close(hb_dev);
	blkdev_close(dev);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

UNIT_MAIN("threads",
	UNIT_TEST(test_threads_do_not_disturb_each_other)
);
