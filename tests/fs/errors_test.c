// SPDX-License-Identifier: Apache-2.0
/*
 * Each device command of a run of operations fails once: operations may fail, the host may
 * have to give its slot up, but the volume stays without fault and what was synced stays.
 */
#include "fs/fs.h"

#include <stdio.h>

#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)

/* Which commands of operations() fail, and whether blocks that nobody uses leave memory at once,
 * so that every look at one is another read. */
static unsigned int commands = 140;
static bool tight;

static int write_text(struct fs *fs, uint64_t id, const char *text)
{
	struct fs_file *f;
	size_t done;
	int err, synced;

	err = fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_write(fs, f, 0, text, strlen(text), false, &done);
	synced = fs_fsync(fs, f, false);
	fs_close(fs, f);
	return err ? err : synced;
}

/* What is at home and not in memory has to be read. */
static void settle(struct fs *fs)
{
	if (tight)
		journal_settle(fs);
}

/* A map of several levels; returns how much went wrong. */
static unsigned int operations_deep(struct fs *fs, uint64_t dir, const char *data)
{
	static const uint64_t at[] = { 0, 3 * GIB, 700 * GIB, 3 * GIB + 40 * MIB, 3 * GIB + MIB };
	struct fs_attr attr = { .size = 3 * GIB + 8192 };
	struct fs_file *f;
	unsigned int i, bad = 0;
	size_t len;

	if (fs_create(fs, dir, "deep", S_IFREG | 0644, 0, &cluster_cred, &attr) ||
	    fs_open(fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL))
		return 1;
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		bad += fs_write(fs, f, at[i], data, 16384, false, &len) != 0;
		settle(fs);
	}
	bad += fs_fallocate(fs, f, FILE_PUNCH | FILE_KEEP_SIZE, 3 * GIB, 50 * MIB) != 0;
	settle(fs);
	fs_close(fs, f);
	attr.size = 3 * GIB + 8192;
	bad += fs_setattr(fs, attr.id, FS_SET_SIZE, &attr) != 0;
	bad += fs_unlink(fs, dir, "deep") != 0;
	return bad;
}

/* Some of everything; returns whether all went well. */
static bool operations(struct fs *fs)
{
	static char big[600 * KIB];
	struct fs_attr dir, file, attr = { .mode = 0600 };
	char names[64], target[4000];
	struct fs_file *f;
	unsigned int i, bad = 0;
	size_t len;

	if (fs_create(fs, fs_root(fs), "dir", S_IFDIR | 0755, 0, &cluster_cred, &dir))
		return false;
	for (i = 0; i < 30; i++) {
		memset(names, 'a' + (int)i % 26, sizeof(names));
		snprintf(names + 40, 20, "%u", i);
		bad += fs_create(fs, dir.id, names, S_IFREG, 0, &cluster_cred, &attr) != 0;
	}
	settle(fs);
	if (fs_create(fs, dir.id, "file", S_IFREG | 0644, 0, &cluster_cred, &file))
		return false;
	if (!fs_open(fs, file.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL)) {
		bad += fs_write(fs, f, 0, big, sizeof(big), false, &len) != 0;
		bad += fs_fsync(fs, f, false) != 0;
		fs_close(fs, f);
	}
	bad += operations_deep(fs, dir.id, big);
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = '\0';
	bad += fs_symlink(fs, dir.id, "link", target, &cluster_cred, &attr) != 0;
	bad += xattr_set(fs, file.id, "user.a", "b", 1, 0) != 0;
	settle(fs);
	bad += fs_link(fs, file.id, fs_root(fs), "second", &attr) != 0;
	settle(fs);
	bad += fs_rename(fs, dir.id, "file", fs_root(fs), "moved", 0) != 0;
	settle(fs);
	attr.size = 100;
	bad += fs_setattr(fs, file.id, FS_SET_SIZE | FS_SET_MODE, &attr) != 0;
	bad += fs_unlink(fs, fs_root(fs), "moved") != 0;
	settle(fs);
	bad += fs_unlink(fs, dir.id, "link") != 0;
	bad += fs_sync(fs) != 0;
	return !bad;
}

static void remove_all(struct fs *fs)
{
	struct fs_attr dir;
	char names[64];
	unsigned int i;

	if (!fs_lookup(fs, fs_root(fs), "dir", &dir)) {
		for (i = 0; i < 30; i++) {
			memset(names, 'a' + (int)i % 26, sizeof(names));
			snprintf(names + 40, 20, "%u", i);
			fs_unlink(fs, dir.id, names);
		}
		fs_unlink(fs, dir.id, "file");
		fs_unlink(fs, dir.id, "deep");
		fs_unlink(fs, dir.id, "link");
		CU_ASSERT_EQUAL(fs_rmdir(fs, fs_root(fs), "dir"), 0);
	}
	fs_unlink(fs, fs_root(fs), "moved");
	fs_unlink(fs, fs_root(fs), "second");
}

static void attach(struct cluster *c)
{
	cluster_alone(c);
	if (tight)
		buf_limit(c->fs, 0);
}

static void fail_one(struct cluster *c, unsigned int skip, enum simdisk_fault fault,
		     uint64_t kept)
{
	struct simdisk_rule rule = {
		.fault = fault, .ops = 1u << BLK_READ | 1u << BLK_WRITE | 1u << BLK_FLUSH,
		.count = 1, .skip = skip,
	};
	char text[16] = "";
	struct fs_file *f;
	size_t done = 0;

	rule.host = c->hosts[0].env;
	if (fault == SIMDISK_NOSPC)
		rule.ops = 1u << BLK_WRITE;
	simdisk_inject(c->disk, &rule);
	operations(c->fs);
	simdisk_clear_rules(c->disk);
	if (fault == SIMDISK_NOSPC)
		CU_ASSERT_FALSE(fs_is_lost(c->fs));
	cluster_detach(c, 0);
	attach(c);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, kept, 0, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 0, text, sizeof(text), &done), 0);
	CU_ASSERT_STRING_EQUAL(text, "kept");
	fs_close(c->fs, f);
	remove_all(c->fs);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_check(c);
	attach(c);
}

static void each_command_fails(struct cluster *c, enum simdisk_fault fault)
{
	struct fs_attr attr = { 0 };
	unsigned int skip;

	attach(c);
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "kept", S_IFREG | 0644, 0,
					&cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(write_text(c->fs, attr.id, "kept"), 0);
	CU_ASSERT_TRUE(operations(c->fs));
	remove_all(c->fs);
	for (skip = 0; skip < commands && !CU_get_number_of_failures(); skip++)
		fail_one(c, skip, fault, attr.id);
	if (CU_get_number_of_failures())
		fprintf(stderr, "  failed at command %u\n", skip - 1);
}

static void commands_fail(struct cluster *c)
{
	each_command_fails(c, SIMDISK_FAIL);
}

static void commands_fail_applied(struct cluster *c)
{
	each_command_fails(c, SIMDISK_FAIL_APPLIED);
}

static void reads_are_corrupt(struct cluster *c)
{
	each_command_fails(c, SIMDISK_CORRUPT);
}

static void commands_fail_in_tight_memory(struct cluster *c)
{
	each_command_fails(c, SIMDISK_FAIL);
}

static void writes_find_no_space(struct cluster *c)
{
	each_command_fails(c, SIMDISK_NOSPC);
}

/* A thin device that is full for a moment costs an operation, but no host its slot. */
static void test_refused_writes_leave_no_fault_and_no_host_out(void)
{
	cluster_run(75, SIZE, writes_find_no_space);
}

/*
 * A thin device that is full: users' writes fail at once, metadata waits, and the host lives on;
 * every host of the volume gave its slot up at that.
 */
static void full_device(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_NOSPC, .ops = 1u << BLK_WRITE };
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	uint8_t *data = blkdev_alloc(256 * KIB);
	uint64_t begin, took;
	size_t done = 0;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG, 0, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	begin = env_now_ns(c->env);
	rule.host = c->hosts[0].env;
	rule.until_ns = sim_now_ns(c->sim) + 30 * NSEC_PER_SEC;
	simdisk_inject(c->disk, &rule);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, 256 * KIB, false, &done), -ENOSPC);
	CU_ASSERT_EQUAL(done, 0);
	took = env_now_ns(c->env) - begin;
	CU_ASSERT_TRUE(took < 100 * NSEC_PER_MSEC);
	/* Beyond the lease, and beyond the time in which others would take the host for dead. */
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	took = env_now_ns(c->env) - begin;
	CU_ASSERT_TRUE(took > 28 * NSEC_PER_SEC && took < 33 * NSEC_PER_SEC);
	CU_ASSERT_FALSE(fs_is_lost(c->fs));
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[0].log, "has no space left for metadata"));
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[0].log, "has space again"));
	simdisk_clear_rules(c->disk);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, 256 * KIB, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	free(data);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_check(c);
	cluster_alone(c);
}

static void test_full_device_stalls_metadata_and_refuses_data(void)
{
	cluster_run(76, SIZE, full_device);
}

static void test_failed_commands_leave_no_fault(void)
{
	cluster_run(71, SIZE, commands_fail);
}

static void test_failed_but_applied_commands_leave_no_fault(void)
{
	cluster_run(72, SIZE, commands_fail_applied);
}

/* A block that was read before a transaction may have left memory within it. */
static void test_failed_commands_leave_no_fault_in_tight_memory(void)
{
	tight = true;
	commands = 500;
	cluster_run(74, SIZE, commands_fail_in_tight_memory);
	tight = false;
	commands = 140;
}

static void test_corrupt_reads_leave_no_fault(void)
{
	cluster_run(73, SIZE, reads_are_corrupt);
}

/*
 * A program that overwrites its file believes the count that it is told: what the device
 * refused must not be in it, or the loss is noticed when the old data is read back.
 */
static void failed_overwrites_are_not_counted(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE };
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	uint8_t *data = blkdev_alloc(256 * KIB);
	size_t done = 0;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG, 0, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, 256 * KIB, false, &done), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	memset(data, 1, 256 * KIB);
	rule.host = c->hosts[0].env;
	rule.off = c->fs->super.ag_addr;
	rule.len = c->fs->super.size - rule.off;
	rule.count = 1;
	simdisk_inject(c->disk, &rule);
	done = 0;
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, 256 * KIB, false, &done), -EIO);
	CU_ASSERT_EQUAL(done, 0);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	free(data);
}

static void test_failed_overwrites_are_not_counted(void)
{
	cluster_run(11, SIZE, failed_overwrites_are_not_counted);
}

/* A truncation that fails has not happened: its blocks would belong to nobody. */
static void failed_truncations_change_nothing(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ };
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	uint8_t *data = blkdev_alloc(256 * KIB);
	size_t done = 0;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG, 0, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, 256 * KIB, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	free(data);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);	/* the bitmap has to be read */
	rule.host = c->hosts[0].env;
	rule.off = super_ag_addr(&c->fs->super, 0) + AG_BITMAP_BLOCK * BLOCK_SIZE;
	rule.len = super_ag_bitmaps(&c->fs->super) * BLOCK_SIZE;
	simdisk_inject(c->disk, &rule);
	attr.size = 0;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), -EIO);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, attr.id, &attr), 0);
	CU_ASSERT_EQUAL(attr.size, 256 * KIB);
	CU_ASSERT_EQUAL(attr.blocks, 64);
	attr.size = 0;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(attr.blocks, 0);
}

static void test_failed_truncations_change_nothing(void)
{
	cluster_run(12, SIZE, failed_truncations_change_nothing);
}

UNIT_MAIN("errors",
	UNIT_TEST(test_failed_commands_leave_no_fault),
	UNIT_TEST(test_failed_but_applied_commands_leave_no_fault),
	UNIT_TEST(test_failed_commands_leave_no_fault_in_tight_memory),
	UNIT_TEST(test_corrupt_reads_leave_no_fault),
	UNIT_TEST(test_refused_writes_leave_no_fault_and_no_host_out),
	UNIT_TEST(test_full_device_stalls_metadata_and_refuses_data),
	UNIT_TEST(test_failed_overwrites_are_not_counted),
	UNIT_TEST(test_failed_truncations_change_nothing)
);
