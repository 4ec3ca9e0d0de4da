// SPDX-License-Identifier: Apache-2.0
/* Attaching: what is refused, what a copy is, what a read-only host may do. */
#include "fs/fs.h"

#include <stdio.h>

#include "fs/image.h"
#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)

static int make(struct cluster *c, unsigned int h, const char *name)
{
	struct fs_attr attr;

	return fs_create(c->hosts[h].fs, fs_root(c->hosts[h].fs), name, S_IFREG | 0644, 0,
			 &cluster_cred, &attr);
}

/* Records @identity and the machine in the superblock, as mkfs does on a real device. */
static void record(struct cluster *c, const char *identity, enum blk_caw caw, uint8_t machine)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct super s;

	if (c->caw)
		dev->info.caw = c->caw;
	CU_ASSERT_EQUAL_FATAL(super_read(dev, &s, c->why, sizeof(c->why)), 0);
	memset(s.identity, 0, sizeof(s.identity));
	snprintf(s.identity, sizeof(s.identity), "%s", identity);
	s.caw = caw;
	memset(s.machine_id, machine, sizeof(s.machine_id));
	s.version++;
	/* Hosts that left stay registered: who is none of them meets their reservation. */
	CU_ASSERT_EQUAL(dev->ops->pr_clear(dev, fence_tool_key(1)), 0);
	CU_ASSERT_EQUAL(super_write(dev, &s), 0);
	blkdev_close(dev);
}

/* From now on the world's LUN is a copy of what it was; the original is returned. */
static struct simdisk *swap_for_copy(struct cluster *c)
{
	struct simdisk_params p = { .size = SIZE, .sector = 512, .latency_min_ns = 20000,
				    .latency_max_ns = 200000, .reservations = true };
	struct simdisk_image *image = simdisk_snapshot(c->disk);
	struct simdisk *original = c->disk;

	c->disk = simdisk_new(c->sim, &p);
	simdisk_restore(c->disk, image);
	simdisk_image_free(image);
	return original;
}

/*
 * A copy with the original's slots, alive as it seems: its hosts must not be fenced, nor the
 * copy be mistaken for the original.
 */
static void copies_are_refused_until_resigned(struct cluster *c)
{
	struct simdisk *old;
	struct fs_attr attr;
	uint8_t before[16];

	record(c, "naa.600a", BLK_CAW_SIM, 0);
	c->identity = "naa.600a";
	cluster_alone(c);
	memcpy(before, c->fs->super.volume_id, 16);
	CU_ASSERT_EQUAL(make(c, 0, "f"), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	old = swap_for_copy(c);
	c->identity = "naa.600b";
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), -ENOTUNIQ);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "-o resignature"));
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, FS_RESIGNATURE), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(before, c->hosts[1].fs->super.volume_id, 16), 0);
	CU_ASSERT_EQUAL(fs_resolve(c->hosts[1].fs, "/f", &attr), 0);
	CU_ASSERT_EQUAL(make(c, 1, "g"), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(fs_resolve(c->hosts[1].fs, "/g", &attr), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	/* The original's host noticed nothing. */
	CU_ASSERT_EQUAL(make(c, 0, "h"), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	simdisk_free(old);
}

/* Two hosts take the copy for the same volume: the second must not rewrite it under the first. */
static void copies_in_use_are_not_resigned(struct cluster *c)
{
	record(c, "naa.600a", BLK_CAW_SIM, 0);
	c->identity = "naa.600a";
	cluster_alone(c);
	c->identity = "naa.600b";
	CU_ASSERT_EQUAL(cluster_attach(c, 1, FS_RESIGNATURE), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "alpha"));
	CU_ASSERT_EQUAL(make(c, 0, "f"), 0);
}

/* A lock file excludes nobody on another machine. */
static void local_volumes_stay_on_their_machine(struct cluster *c)
{
	record(c, "", BLK_CAW_LOCAL, 1);
	c->caw = BLK_CAW_LOCAL;
	memset(c->machine_id, 2, sizeof(c->machine_id));
	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), -EPERM);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->why, "another machine"));
	memset(c->machine_id, 1, sizeof(c->machine_id));
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL(make(c, 0, "f"), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	record(c, "", BLK_CAW_SIM, 0);
}

/* Read-only takes part in the cluster, and changes nothing of the files. */
static void read_only_hosts_change_nothing(struct cluster *c)
{
	struct fs_attr attr;

	cluster_alone(c);
	CU_ASSERT_EQUAL(make(c, 0, "f"), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, FS_READ_ONLY), 0);
	CU_ASSERT_EQUAL(fs_resolve(c->hosts[1].fs, "/f", &attr), 0);
	CU_ASSERT_EQUAL(make(c, 1, "g"), -EROFS);
	CU_ASSERT_EQUAL(fs_unlink(c->hosts[1].fs, fs_root(c->fs), "f"), -EROFS);
	CU_ASSERT_EQUAL(xattr_set(c->hosts[1].fs, attr.id, "user.a", "b", 1, 0), -EROFS);
	CU_ASSERT_EQUAL(fs_setattr(c->hosts[1].fs, attr.id, FS_SET_MODE, &attr), -EROFS);
}

/* The first superblock is damaged: a copy is used, and that is said. */
static void damaged_superblock_is_replaced_by_a_copy(struct cluster *c)
{
	uint8_t bad[512], good[512];
	struct fs_attr attr;

	simdisk_peek(c->disk, SUPER_ADDR, good, sizeof(good));
	memset(bad, 0x5a, sizeof(bad));
	simdisk_poke(c->disk, SUPER_ADDR, bad, sizeof(bad));
	cluster_alone(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[0].log, "a copy is used"));
	CU_ASSERT_EQUAL(fs_getattr(c->fs, fs_root(c->fs), &attr), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	simdisk_poke(c->disk, SUPER_ADDR, good, sizeof(good));
}

/* Each device command of attaching fails once: an error, and everything is given back. */
static void attaching_survives_any_device_error(struct cluster *c)
{
	struct simdisk_rule rule = {
		.fault = SIMDISK_FAIL, .ops = 1u << BLK_READ | 1u << BLK_WRITE | 1u << BLK_FLUSH,
		.count = 1,
	};
	unsigned int i, failed = 0;

	for (i = 0; i < 40; i++) {
		rule.skip = i;
		simdisk_inject(c->disk, &rule);
		if (cluster_attach(c, 0, 0)) {
			failed++;
			CU_ASSERT_NOT_EQUAL(c->why[0], '\0');
		} else {
			simdisk_clear_rules(c->disk);
			cluster_detach(c, 0);
		}
		simdisk_clear_rules(c->disk);
	}
	CU_ASSERT_TRUE(failed > 0);
	cluster_alone(c);
	CU_ASSERT_EQUAL(make(c, 0, "f"), 0);
}

static void free_space_is_shown(struct cluster *c)
{
	struct statvfs st;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_statfs(c->fs, &st), 0);
	CU_ASSERT_EQUAL(st.f_bsize, 4096);
	CU_ASSERT_EQUAL(st.f_namemax, 255);
	CU_ASSERT_TRUE(st.f_blocks * 4096 <= SIZE && st.f_blocks * 4096 > SIZE / 2);
	CU_ASSERT_TRUE(st.f_bfree <= st.f_blocks && st.f_bfree > st.f_blocks / 2);
	CU_ASSERT_TRUE(st.f_ffree > 1000);
}

/* What is copied does not change meanwhile, whoever of this host or another would like to. */
static void an_open_can_keep_writers_out(struct cluster *c)
{
	struct fs_file *reader, *held, *writer, *none;
	struct fs_attr attr;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, 0, &cluster_cred, &reader, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, FS_OPEN_DENY_WRITE, &cluster_cred, &held,
				      NULL), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &none, NULL), -EBUSY);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &none, NULL),
			-EBUSY);
	fs_close(c->fs, held);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &writer, NULL),
			      0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_DENY_WRITE, &cluster_cred, &none, NULL),
			-EBUSY);
	fs_close(c->fs, reader);
	/* An open for writing that becomes one of a new image leaves none behind. */
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), "f", "f@s", writer, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_DENY_WRITE, &cluster_cred, &none, NULL),
			-EBUSY);
	fs_close(c->fs, writer);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE | FS_OPEN_DENY_WRITE,
				      &cluster_cred, &held, NULL), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &none, NULL), -EBUSY);
	fs_close(c->fs, held);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(61, SIZE, fn); }

IN_CLUSTER(copies_are_refused_until_resigned)
IN_CLUSTER(copies_in_use_are_not_resigned)
IN_CLUSTER(local_volumes_stay_on_their_machine)
IN_CLUSTER(read_only_hosts_change_nothing)
IN_CLUSTER(damaged_superblock_is_replaced_by_a_copy)
IN_CLUSTER(attaching_survives_any_device_error)
IN_CLUSTER(free_space_is_shown)
IN_CLUSTER(an_open_can_keep_writers_out)

UNIT_MAIN("fs",
	UNIT_TEST(test_copies_are_refused_until_resigned),
	UNIT_TEST(test_copies_in_use_are_not_resigned),
	UNIT_TEST(test_local_volumes_stay_on_their_machine),
	UNIT_TEST(test_read_only_hosts_change_nothing),
	UNIT_TEST(test_damaged_superblock_is_replaced_by_a_copy),
	UNIT_TEST(test_attaching_survives_any_device_error),
	UNIT_TEST(test_free_space_is_shown),
	UNIT_TEST(test_an_open_can_keep_writers_out)
);
