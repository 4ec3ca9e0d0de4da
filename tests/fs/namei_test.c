// SPDX-License-Identifier: Apache-2.0
/* namei.c, create.c, unlink.c, rename.c, open.c on one attached host. */
#include "fs/fs.h"

#include <dirent.h>
#include <stdio.h>

#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)

static uint64_t make(struct cluster *c, uint64_t dir, const char *name, uint32_t mode)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_create(c->fs, dir, name, mode, 0, &cluster_cred, &attr), 0);
	return attr.id;
}

static uint64_t mkdir_at(struct cluster *c, uint64_t dir, const char *name)
{
	return make(c, dir, name, S_IFDIR | 0755);
}

static uint64_t touch(struct cluster *c, uint64_t dir, const char *name)
{
	return make(c, dir, name, S_IFREG | 0644);
}

static struct fs_attr stat_of(struct cluster *c, uint64_t id)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	return attr;
}

static int lookup(struct cluster *c, uint64_t dir, const char *name, uint64_t *id)
{
	struct fs_attr attr = { 0 };
	int err = fs_lookup(c->fs, dir, name, &attr);

	if (!err)
		*id = attr.id;
	return err;
}

/* What was created is there, with the attributes asked for, and again after a remount. */
static void created_objects_stay(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t root, dir, file, id = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	dir = mkdir_at(c, root, "vm1");
	file = touch(c, dir, "disk.img");
	CU_ASSERT_EQUAL(stat_of(c, dir).nlink, 2);
	CU_ASSERT_EQUAL(stat_of(c, root).nlink, 3);
	CU_ASSERT_EQUAL(fs_create(c->fs, dir, "null", S_IFCHR | 0600, 0x103, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(attr.rdev, 0x103);
	CU_ASSERT_EQUAL(fs_create(c->fs, dir, "disk.img", S_IFREG, 0, &cluster_cred, &attr), -EEXIST);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_resolve(c->fs, "/vm1/disk.img", &attr), 0);
	CU_ASSERT_EQUAL(attr.id, file);
	CU_ASSERT_EQUAL(attr.uid, 1000);
	CU_ASSERT_EQUAL(attr.mode, S_IFREG | 0644);
	CU_ASSERT_EQUAL(lookup(c, root, "vm2", &id), -ENOENT);
	CU_ASSERT_EQUAL(lookup(c, file, "x", &id), -ENOTDIR);
}

static void test_created_objects_stay(void)
{
	cluster_run(1, SIZE, created_objects_stay);
}

UNIT_MAIN("namei",
	UNIT_TEST(test_created_objects_stay)
);
