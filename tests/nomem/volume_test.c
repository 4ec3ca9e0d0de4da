// SPDX-License-Identifier: Apache-2.0
/*
 * Making, checking, rescuing and resigning a volume without memory: -ENOMEM, and nothing
 * that is wrong with the memory is said of the volume.
 */
#include <errno.h>
#include <stdio.h>

#include "fs/image.h"
#include "tests/fs/attached.h"
#include "tests/nomem/each.h"

#define SIZE	(64 * MIB)

static uint64_t now_n, now_count, hits;
static unsigned int flags;		/* of the attaching that is under test */

/* ---- mkfs ---- */

/* An interrupted mkfs leaves no volume; the next one does not mind what it left. */
static void format_body(struct cluster *c)
{
	struct mkfs_params p = { .env = c->env, .label = "ds2", .discard = true };
	struct super s;
	int err;

	p.dev = simdisk_open(c->disk, c->env);
	nomem_arm(now_n, now_count);
	err = mkfs(&p, &s, c->why, sizeof(c->why));
	hits += nomem_disarm();
	if (err) {
		CU_ASSERT_EQUAL(err, -ENOMEM);
		CU_ASSERT_EQUAL(mkfs(&p, &s, c->why, sizeof(c->why)), 0);
	}
	blkdev_close(p.dev);
}

/* ---- a volume with some of everything ---- */

static void fill(struct cluster *c)
{
	struct fs_attr dir = { 0 }, attr = { 0 };
	static uint8_t data[20000];
	char name[80];
	struct fs_file *f;
	size_t done;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "dir", S_IFDIR | 0755, 0, &cluster_cred,
				  &dir), 0);
	for (unsigned int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%050u", i);
		CU_ASSERT_EQUAL(fs_create(c->fs, dir.id, name, S_IFREG | 0644, 0, &cluster_cred,
					  &attr), 0);
	}
	CU_ASSERT_EQUAL(xattr_set(c->fs, attr.id, "user.a", "b", 1, 0), 0);
	CU_ASSERT_EQUAL(fs_link(c->fs, attr.id, fs_root(c->fs), "link", &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, sizeof(data), false, &done), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 700 * GIB, data, sizeof(data), false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	CU_ASSERT_EQUAL(fs_create(c->fs, dir.id, "disk", S_IFREG | 0644, 0, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, sizeof(data), false, &done), 0);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, dir.id, "disk", "snapshot", f, &attr), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	memset(data, 't', 3000);
	data[3000] = '\0';
	CU_ASSERT_EQUAL(fs_symlink(c->fs, dir.id, "far", (char *)data, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
}

static int check(struct cluster *c)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct check_params p = { .env = c->env, .dev = dev, .report = cluster_finding, .arg = c };
	struct check_result r;
	int err = check_volume(&p, &r, c->why, sizeof(c->why));

	blkdev_close(dev);
	return err;
}

static void check_body(struct cluster *c)
{
	int err;

	fill(c);
	/* One host lives, so journals with transactions are looked at. */
	nomem_arm(now_n, now_count);
	err = check(c);
	hits += nomem_disarm();
	CU_ASSERT_TRUE(err == 0 || err == -ENOMEM);
	CU_ASSERT_EQUAL(c->errors, 0);
}

/* ---- rescue, resign ---- */

static int read_all(struct fs *fs)
{
	static uint8_t buf[20000];
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	char value[BLOCK_SIZE];
	size_t done;
	int err;

	err = fs_resolve(fs, "/link", &attr);
	if (!err)
		err = xattr_get(fs, attr.id, "user.a", value, sizeof(value), &done);
	if (!err)
		err = fs_open(fs, attr.id, 0, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_read(fs, f, 0, buf, sizeof(buf), &done);
	fs_close(fs, f);
	if (!err)
		err = fs_resolve(fs, "/dir/disk", &attr);
	if (!err)
		err = fs_open(fs, attr.id, 0, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_read(fs, f, 0, buf, sizeof(buf), &done);
	fs_close(fs, f);
	if (!err)
		err = fs_resolve(fs, "/dir/far", &attr);
	if (!err)
		err = fs_readlink(fs, attr.id, value, sizeof(value));
	return err;
}

/* The volume knows the device that it is made on. */
static void name_device(struct cluster *c)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct super s;

	CU_ASSERT_EQUAL(super_read(dev, &s, c->why, sizeof(c->why)), 0);
	snprintf(s.identity, sizeof(s.identity), "the original");
	s.version++;
	CU_ASSERT_EQUAL(super_write(dev, &s), 0);
	blkdev_close(dev);
	c->identity = "the original";
}

/* And finds itself on another one. */
static void copy_device(struct cluster *c)
{
	struct simdisk_params p = { .size = SIZE, .sector = 512, .latency_min_ns = 20000,
				    .latency_max_ns = 200000, .reservations = true };
	struct simdisk_image *image = simdisk_snapshot(c->disk);

	simdisk_free(c->disk);
	c->disk = simdisk_new(c->sim, &p);
	simdisk_restore(c->disk, image);
	simdisk_image_free(image);
	c->identity = "a copy";
}

static void attach_body(struct cluster *c)
{
	int err;

	if (flags & FS_RESIGNATURE)
		name_device(c);
	fill(c);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	if (flags & FS_RESIGNATURE)
		copy_device(c);
	nomem_arm(now_n, now_count);
	err = cluster_attach(c, 1, flags);
	if (err) {
		CU_ASSERT_EQUAL(err, -ENOMEM);
		hits += nomem_disarm();
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, flags), 0);
	}
	err = read_all(c->hosts[1].fs);
	hits += nomem_disarm();
	if (err) {
		CU_ASSERT_EQUAL(err, -ENOMEM);
		CU_ASSERT_EQUAL(read_all(c->hosts[1].fs), 0);
	}
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* ---- */

static uint64_t run(void *arg, uint64_t n, uint64_t count)
{
	void (*const *body)(struct cluster *c) = arg;

	now_n = n;
	now_count = count;
	hits = 0;
	cluster_run(7, SIZE, *body);
	return hits;
}

static void each_of(void (*body)(struct cluster *c), const char *what)
{
	struct each one = { .count = 1, .stride = 1, .run = run, .arg = &body };
	struct each all = { .count = EACH_ALL, .stride = 3, .run = run, .arg = &body };

	each_allocation(&one);
	each_allocation(&all);
	nomem_note(what);
}

static void mkfs_without_memory_can_be_repeated(void)
{
	each_of(format_body, "mkfs");
}

static void a_check_without_memory_finds_nothing_wrong(void)
{
	each_of(check_body, "check");
}

static void a_rescue_without_memory_can_be_repeated(void)
{
	flags = FS_RESCUE;
	each_of(attach_body, "rescue");
}

static void resigning_without_memory_can_be_repeated(void)
{
	flags = FS_RESIGNATURE;
	each_of(attach_body, "resign");
}

UNIT_MAIN("nomem volume",
	UNIT_TEST(mkfs_without_memory_can_be_repeated),
	UNIT_TEST(a_check_without_memory_finds_nothing_wrong),
	UNIT_TEST(a_rescue_without_memory_can_be_repeated),
	UNIT_TEST(resigning_without_memory_can_be_repeated)
);
