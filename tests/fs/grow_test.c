// SPDX-License-Identifier: Apache-2.0
/* Volumes that grow under their hosts: sizes, who notices, crashes and errors on the way. */
#include "fs/grow.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/fs/attached.h"

#define SMALL	(96 * MIB)

static uint64_t free_bytes(struct fs *fs)
{
	struct statvfs st;

	CU_ASSERT_EQUAL_FATAL(fs_statfs(fs, &st), 0);
	return (uint64_t)st.f_bfree * st.f_frsize;
}

static int grow(struct cluster *c, unsigned int host, uint64_t size, uint64_t *now)
{
	uint64_t old;

	c->why[0] = '\0';
	return fs_grow(c->hosts[host].fs, size, &old, now, c->why, sizeof(c->why));
}

/* A file of @size bytes whose space is reserved. */
static int make(struct fs *fs, uint64_t dir, const char *name, uint64_t size, uint64_t *id)
{
	struct fs_attr attr;
	struct fs_file *f;
	int err = fs_create(fs, dir, name, S_IFREG | 0600, 0, &cluster_cred, &attr);

	if (!err)
		err = fs_open(fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_fallocate(fs, f, 0, 0, size);
	fs_close(fs, f);
	if (id)
		*id = attr.id;
	return err;
}

static int put(struct fs *fs, uint64_t id, uint64_t off, uint8_t byte)
{
	uint8_t *buf = blkdev_alloc(64 * KIB);
	struct fs_file *f;
	size_t done;
	int err = fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);

	memset(buf, byte, 64 * KIB);
	if (!err) {
		err = fs_write(fs, f, off, buf, 64 * KIB, false, &done);
		if (!err)
			err = fs_fsync(fs, f, false);
		fs_close(fs, f);
	}
	free(buf);
	return err;
}

static int get(struct fs *fs, uint64_t id, uint64_t off, uint8_t *byte)
{
	uint8_t *buf = blkdev_alloc(4096);
	struct fs_file *f;
	size_t done;
	int err = fs_open(fs, id, 0, &cluster_cred, &f, NULL);

	if (!err) {
		err = fs_read(fs, f, off, buf, 4096, &done);
		fs_close(fs, f);
	}
	*byte = buf[4095];
	free(buf);
	return err;
}

/* ---- two hosts ---- */

/* Fills what was there, so that everything after it lies in what was added. */
static void fill(struct cluster *c, unsigned int host)
{
	struct fs *fs = c->hosts[host].fs;
	uint64_t part = 32 * MIB;
	unsigned int n = 0;
	char name[16];

	while (part >= 256 * KIB) {
		snprintf(name, sizeof(name), "fill%u", n++);
		if (make(fs, fs_root(fs), name, part, NULL)) {
			fs_unlink(fs, fs_root(fs), name);
			part /= 2;
		}
	}
}

static void both_use_it(struct cluster *c)
{
	struct fs *a, *b;
	struct fs_attr dir, found;
	uint64_t now = 0, id, before;
	uint8_t byte = 0;

	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, i, 0), 0);
	a = c->hosts[0].fs;
	b = c->hosts[1].fs;
	fill(c, 0);
	before = free_bytes(a);
	CU_ASSERT_EQUAL(make(b, fs_root(b), "too much", 32 * MIB, NULL), -ENOSPC);
	simdisk_resize(c->disk, 5 * GIB + 12345 * 4096);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	CU_ASSERT_EQUAL(now, 5 * GIB + 12345 * 4096);
	CU_ASSERT_TRUE(free_bytes(a) > before + 4900 * MIB || (cluster_sleep(c, 1500),
							       free_bytes(a) > before + 4900 * MIB));
	/* A directory, files and data in new groups; the other host has not looked yet. */
	CU_ASSERT_EQUAL_FATAL(fs_create(a, fs_root(a), "new", S_IFDIR | 0755, 0, &cluster_cred,
					&dir), 0);
	CU_ASSERT_EQUAL_FATAL(make(a, dir.id, "data", 1500 * MIB, &id), 0);
	CU_ASSERT_EQUAL(put(a, id, 1400 * MIB, 0x5a), 0);
	CU_ASSERT_EQUAL(fs_resolve(b, "/new/data", &found), 0);
	CU_ASSERT_EQUAL(found.id, id);
	CU_ASSERT_EQUAL(get(b, id, 1400 * MIB, &byte), 0);
	CU_ASSERT_EQUAL(byte, 0x5a);
	CU_ASSERT_EQUAL(super_size(&b->super), now);
	CU_ASSERT_EQUAL(make(b, dir.id, "mine", 1500 * MIB, &id), 0);
	CU_ASSERT_EQUAL(put(b, id, 100, 0xa5), 0);
	CU_ASSERT_EQUAL(get(a, id, 100, &byte), 0);
	CU_ASSERT_EQUAL(byte, 0xa5);
}

static void space_that_others_made_is_found(struct cluster *c)
{
	uint64_t now;

	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, i, 0), 0);
	fill(c, 1);
	simdisk_resize(c->disk, 3 * GIB);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	/* Host 1 has seen nothing of it and needs the space. */
	CU_ASSERT_EQUAL(make(c->hosts[1].fs, fs_root(c->fs), "large", 2 * GIB, NULL), 0);
}

/* A recoverer replays what the dead host did in groups that he has never heard of. */
static void recovered_by_who_knows_the_old_size(struct cluster *c)
{
	uint64_t now, id;
	uint8_t byte = 0;

	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, i, 0), 0);
	fill(c, 0);
	simdisk_resize(c->disk, 3 * GIB);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	CU_ASSERT_EQUAL(make(c->fs, fs_root(c->fs), "new", 64 * MIB, &id), 0);
	CU_ASSERT_EQUAL(put(c->fs, id, 32 * MIB, 0x77), 0);
	cluster_crash(c, 0);
	cluster_sleep(c, 12000);
	CU_ASSERT_EQUAL(get(c->hosts[1].fs, id, 32 * MIB, &byte), 0);
	CU_ASSERT_EQUAL(byte, 0x77);
}

/* ---- sizes ---- */

static void grows_through(struct cluster *c, const uint64_t *sizes, unsigned int count)
{
	uint64_t before, now;
	struct super s;

	cluster_alone(c);
	for (unsigned int i = 0; i < count; i++) {
		struct blkdev *dev;

		before = free_bytes(c->fs);
		simdisk_resize(c->disk, sizes[i]);
		CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
		cluster_sleep(c, 1500);
		CU_ASSERT_TRUE(free_bytes(c->fs) >= before);
		fs_super_copy(c->fs, &s);
		CU_ASSERT_EQUAL(super_is_whole(c->fs->dev, &s), 1);
		/* All of it can be had, to the last unit or so. */
		if (i % 2)
			CU_ASSERT_EQUAL(make(c->fs, fs_root(c->fs), "all",
					     ALIGN_DOWN(free_bytes(c->fs), MIB) * 9 / 10, NULL), 0);
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
		cluster_check(c);
		/* A fresh reader finds it, also by the copy at the end alone. */
		dev = simdisk_open(c->disk, c->env);
		CU_ASSERT_EQUAL(super_read(dev, &s, c->why, sizeof(c->why)), 0);
		CU_ASSERT_EQUAL(s.size, now);
		blkdev_close(dev);
		cluster_alone(c);
		if (i % 2)
			CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "all"), 0);
	}
}

static void of_any_size(struct cluster *c)
{
	uint64_t sizes[6], size = SMALL;

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		size += 1 + env_random_below(c->env, i % 3 ? 3 * GIB : 60 * MIB);
		size = ALIGN_DOWN(size, 512);
		sizes[i] = size;
	}
	grows_through(c, sizes, ARRAY_SIZE(sizes));
}

/* Where the next group's lock block and header begin the last copy may not lie. */
static void around_the_end_of_a_group(struct cluster *c)
{
	struct super s;
	uint64_t end, sizes[8];

	cluster_alone(c);
	fs_super_copy(c->fs, &s);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	end = super_ag_addr(&s, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++)
		sizes[i] = end + (uint64_t)(i < 7 ? i : 3000) * BLOCK_SIZE;
	grows_through(c, sizes, ARRAY_SIZE(sizes));
}

static void limits(struct cluster *c)
{
	uint64_t now = 0;

	cluster_alone(c);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	CU_ASSERT_EQUAL(now, SMALL);
	simdisk_resize(c->disk, SMALL + 8192);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	CU_ASSERT_EQUAL(now, SMALL + 8192);	/* the last group has two blocks more */
	CU_ASSERT_EQUAL(grow(c, 0, 64 * MIB, &now), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "not made smaller"));
	CU_ASSERT_EQUAL(grow(c, 0, GIB, &now), -ENOSPC);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "grow the device first"));
	simdisk_resize(c->disk, 5 * TIB);
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), -E2BIG);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "--size"));
	CU_ASSERT_EQUAL(now, SMALL + 8192);
	CU_ASSERT_EQUAL(grow(c, 0, 4 * TIB, &now), 0);
	CU_ASSERT_EQUAL(now, 4 * TIB);
	CU_ASSERT_EQUAL(super_ag_count(&c->fs->super), 4096);
}

/* ---- crashes and errors ---- */

static uint64_t step;	/* of the moment, or of the command that fails */

static void grow_thread(void *arg)
{
	uint64_t now;

	grow(arg, 0, 0, &now);
}

/* The grower dies at some moment; who is left finds the old size or the new, and grows it. */
static void crashes(struct cluster *c)
{
	struct env_thread *thread;
	uint64_t now, size;

	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, i, 0), 0);
	simdisk_resize(c->disk, 3 * GIB);
	CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "grow", grow_thread, c, &thread), 0);
	env_sleep_until(c->env, env_now_ns(c->env) + step * 150000);
	cluster_crash(c, 0);
	cluster_sleep(c, 12000);
	CU_ASSERT_EQUAL(fs_super_refresh(c->hosts[1].fs), 0);
	size = super_size(&c->hosts[1].fs->super);
	CU_ASSERT_TRUE(size == SMALL || size == 3 * GIB);
	CU_ASSERT_EQUAL(grow(c, 1, 0, &now), 0);
	CU_ASSERT_EQUAL(now, 3 * GIB);
	CU_ASSERT_EQUAL(make(c->hosts[1].fs, fs_root(c->hosts[1].fs), "f", 2 * GIB, NULL), 0);
	/* Attaching writes copies anew that were left behind. */
	CU_ASSERT_EQUAL(cluster_attach(c, 2, 0), 0);
	CU_ASSERT_EQUAL(super_is_whole(c->hosts[2].fs->dev, &c->hosts[2].fs->super), 1);
}

static void a_crash_leaves_the_old_size_or_the_new(void)
{
	for (step = 0; step < 40 && !CU_get_number_of_failures(); step++)
		cluster_run(7100 + step, SMALL, crashes);
}

static void errors(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .skip = step, .count = 1,
				     .ops = 1u << BLK_WRITE | 1u << BLK_FLUSH };
	uint64_t now = 0;
	int err;

	cluster_alone(c);
	rule.host = c->hosts[0].env;
	simdisk_resize(c->disk, 3 * GIB);
	simdisk_inject(c->disk, &rule);
	err = grow(c, 0, 0, &now);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_TRUE(!err || err == -EIO);
	CU_ASSERT_TRUE(now == SMALL || now == 3 * GIB);
	CU_ASSERT_TRUE(err || now == 3 * GIB);
	if (fs_is_lost(c->fs)) {	/* a journal's flush failed: nobody may go on (R7) */
		cluster_detach(c, 0);
		cluster_alone(c);
	}
	CU_ASSERT_EQUAL(grow(c, 0, 0, &now), 0);
	CU_ASSERT_EQUAL(now, 3 * GIB);
	CU_ASSERT_EQUAL(make(c->fs, fs_root(c->fs), "f", 2 * GIB, NULL), 0);
}

static void a_failing_device_leaves_the_old_size_or_the_new(void)
{
	for (step = 0; step < 14 && !CU_get_number_of_failures(); step++)
		cluster_run(7200 + step, SMALL, errors);
}

/* Copies that differ are mended by whoever attaches, the first one too. */
static void copies_are_healed(struct cluster *c)
{
	uint8_t *block = blkdev_alloc(BLOCK_SIZE);
	uint64_t places[3];
	struct super s;

	cluster_alone(c);
	fs_super_copy(c->fs, &s);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	places[0] = SUPER_ADDR;
	places[1] = s.copy_addr;
	places[2] = super_end_addr(&s);
	for (unsigned int i = 0; i < 3; i++) {
		memset(block, 0, BLOCK_SIZE);
		simdisk_poke(c->disk, places[i], block, BLOCK_SIZE);
		CU_ASSERT_EQUAL(cluster_attach(c, 0, FS_READ_ONLY), 0);
		CU_ASSERT_EQUAL(super_is_whole(c->fs->dev, &s), 0);
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
		cluster_alone(c);
		CU_ASSERT_EQUAL(super_is_whole(c->fs->dev, &s), 1);
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	}
	free(block);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(71, SMALL, fn); }

IN_CLUSTER(both_use_it)
IN_CLUSTER(space_that_others_made_is_found)
IN_CLUSTER(recovered_by_who_knows_the_old_size)
IN_CLUSTER(around_the_end_of_a_group)
IN_CLUSTER(limits)
IN_CLUSTER(copies_are_healed)

static void volumes_of_any_size_grow(void)
{
	for (uint64_t seed = 1; seed <= 12 && !CU_get_number_of_failures(); seed++)
		cluster_run(seed, SMALL, of_any_size);
}

UNIT_MAIN("fs/grow",
	UNIT_TEST(test_both_use_it),
	UNIT_TEST(test_space_that_others_made_is_found),
	UNIT_TEST(test_recovered_by_who_knows_the_old_size),
	UNIT_TEST(volumes_of_any_size_grow),
	UNIT_TEST(test_around_the_end_of_a_group),
	UNIT_TEST(test_limits),
	UNIT_TEST(a_crash_leaves_the_old_size_or_the_new),
	UNIT_TEST(a_failing_device_leaves_the_old_size_or_the_new),
	UNIT_TEST(test_copies_are_healed)
);
