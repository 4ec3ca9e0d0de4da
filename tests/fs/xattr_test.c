// SPDX-License-Identifier: Apache-2.0
/* Extended attributes, POSIX ACLs, the multi-writer mark. */
#include "fs/xattr.h"

#include <stdio.h>
#include <sys/xattr.h>

#include "fs/attrs.h"
#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)

static uint64_t make(struct cluster *c, uint64_t dir, const char *name, uint32_t mode,
		     uint32_t umask)
{
	struct fs_cred cred = cluster_cred;
	struct fs_attr attr = { 0 };

	cred.umask = umask;
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, dir, name, mode, 0, &cred, &attr), 0);
	return attr.id;
}

static uint64_t make_file(struct cluster *c, const char *name)
{
	return make(c, fs_root(c->fs), name, S_IFREG | 0644, 0);
}

static bool has(struct fs *fs, uint64_t id, const char *name, const char *value)
{
	char buf[256];
	size_t len = 0;

	return xattr_get(fs, id, name, buf, sizeof(buf), &len) == 0 && len == strlen(value) &&
	       memcmp(buf, value, len) == 0;
}

static uint32_t mode_of(struct cluster *c, uint64_t id)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	return attr.mode;
}

/* ---- setxattr(2) and its relatives ---- */

static void attributes_are_kept_over_a_remount(struct cluster *c)
{
	uint64_t id;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.colour", "red", 3, 0), 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "security.selinux", "label", 5, 0), 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.empty", "", 0, 0), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);
	CU_ASSERT_TRUE(has(c->fs, id, "user.colour", "red"));
	CU_ASSERT_TRUE(has(c->fs, id, "security.selinux", "label"));
	CU_ASSERT_TRUE(has(c->fs, id, "user.empty", ""));
}

static void flags_sizes_and_names_are_checked(struct cluster *c)
{
	char big[XATTR_BYTES_MAX + 1] = "", buf[16];
	uint64_t id;
	size_t len = 0;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "12345", 5, XATTR_CREATE), 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "1", 1, XATTR_CREATE), -EEXIST);
	CU_ASSERT_EQUAL(xattr_get(c->fs, id, "user.a", NULL, 0, &len), 0);
	CU_ASSERT_EQUAL(len, 5);
	CU_ASSERT_EQUAL(xattr_get(c->fs, id, "user.a", buf, 4, &len), -ERANGE);
	CU_ASSERT_EQUAL(xattr_get(c->fs, id, "user.b", buf, sizeof(buf), &len), -ENODATA);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "system.other", "1", 1, 0), -EOPNOTSUPP);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.", "1", 1, 0), -EINVAL);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.big", big, sizeof(big), 0), -ENOSPC);
	CU_ASSERT_TRUE(has(c->fs, id, "user.a", "12345"));
	CU_ASSERT_EQUAL(xattr_remove(c->fs, id, "user.b"), -ENODATA);
}

static void listing_names_all(struct cluster *c)
{
	char names[64];
	uint64_t id;
	size_t len = 0;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_list(c->fs, id, names, sizeof(names), &len), 0);
	CU_ASSERT_EQUAL(len, 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "1", 1, 0), 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.bc", "2", 1, 0), 0);
	CU_ASSERT_EQUAL(xattr_list(c->fs, id, NULL, 0, &len), 0);
	CU_ASSERT_EQUAL(len, 15);
	CU_ASSERT_EQUAL(xattr_list(c->fs, id, names, 14, &len), -ERANGE);
	CU_ASSERT_EQUAL(xattr_list(c->fs, id, names, 15, &len), 0);
	CU_ASSERT_EQUAL(memcmp(names, "user.a\0user.bc", 15), 0);
}

/* The last attribute gives its block back. */
static void removed_attributes_free_their_block(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t id;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "1", 1, 0), 0);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	CU_ASSERT_EQUAL(attr.blocks, 1);
	CU_ASSERT_EQUAL(xattr_remove(c->fs, id, "user.a"), 0);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	CU_ASSERT_EQUAL(attr.blocks, 0);
	/* And a deleted file's block goes with it: the check after the test counts. */
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "1", 1, 0), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
}

/* Another host has the file open for writing: its attributes can be read all the same. */
static void attributes_are_read_beside_a_writer(struct cluster *c)
{
	struct fs_file *f;
	char buf[16];
	uint64_t id;
	size_t len;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "there", 5, 0), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	cluster_sleep(c, 1000);
	CU_ASSERT_TRUE(has(c->hosts[1].fs, id, "user.a", "there"));
	CU_ASSERT_EQUAL(xattr_get(c->hosts[1].fs, id, "user.b", buf, sizeof(buf), &len), -ENODATA);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
}

/* ---- ACLs ---- */

struct acl_bytes { uint8_t b[4 + 8 * 6]; size_t len; };

static void acl_add(struct acl_bytes *a, uint16_t tag, uint16_t perm, uint32_t id)
{
	le16 t = cpu_to_le16(tag), p = cpu_to_le16(perm);
	le32 i = cpu_to_le32(id);

	if (!a->len) {
		le32 version = cpu_to_le32(2);

		memcpy(a->b, &version, 4);
		a->len = 4;
	}
	memcpy(a->b + a->len, &t, 2);
	memcpy(a->b + a->len + 2, &p, 2);
	memcpy(a->b + a->len + 4, &i, 4);
	a->len += 8;
}

/* user::rwx user:1234:rwx group::r-x mask::rwx other::--- */
static struct acl_bytes acl_sample(void)
{
	struct acl_bytes a = { .len = 0 };

	acl_add(&a, 0x01, 7, UINT32_MAX);
	acl_add(&a, 0x02, 7, 1234);
	acl_add(&a, 0x04, 5, UINT32_MAX);
	acl_add(&a, 0x10, 7, UINT32_MAX);
	acl_add(&a, 0x20, 0, UINT32_MAX);
	return a;
}

static void acl_and_mode_follow_each_other(struct cluster *c)
{
	struct acl_bytes a = acl_sample();
	struct fs_attr attr = { .mode = 0640 };
	uint8_t got[64];
	uint64_t id;
	size_t len = 0;

	cluster_alone(c);
	id = make_file(c, "f");
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, ACL_ACCESS, a.b, a.len, 0), 0);
	CU_ASSERT_EQUAL(mode_of(c, id), S_IFREG | 0770);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_MODE, &attr), 0);
	CU_ASSERT_EQUAL(xattr_get(c->fs, id, ACL_ACCESS, got, sizeof(got), &len), 0);
	CU_ASSERT_EQUAL(len, a.len);
	CU_ASSERT_EQUAL(got[4 + 8 * 3 + 2], 4);		/* the mask is the group class now */
	CU_ASSERT_EQUAL(got[4 + 8 * 2 + 2], 5);		/* the group's own entry stays */
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, ACL_ACCESS, a.b, a.len - 1, 0), -EINVAL);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, ACL_DEFAULT, a.b, a.len, 0), -EACCES);
}

/* What is created below a default ACL gets it instead of the umask. */
static void default_acl_is_inherited(struct cluster *c)
{
	struct acl_bytes a = acl_sample();
	uint64_t dir, file, sub;
	uint8_t got[64];
	size_t len = 0;

	cluster_alone(c);
	dir = make(c, fs_root(c->fs), "d", S_IFDIR | 0777, 022);
	CU_ASSERT_EQUAL(mode_of(c, dir), S_IFDIR | 0755);
	CU_ASSERT_EQUAL(xattr_set(c->fs, dir, ACL_DEFAULT, a.b, a.len, 0), 0);
	file = make(c, dir, "f", S_IFREG | 0666, 022);
	CU_ASSERT_EQUAL(mode_of(c, file), S_IFREG | 0660);
	CU_ASSERT_EQUAL(xattr_get(c->fs, file, ACL_ACCESS, got, sizeof(got), &len), 0);
	CU_ASSERT_EQUAL(got[4 + 8 * 3 + 2], 6);
	CU_ASSERT_EQUAL(xattr_get(c->fs, file, ACL_DEFAULT, got, sizeof(got), &len), -ENODATA);
	sub = make(c, dir, "s", S_IFDIR | 0777, 022);
	CU_ASSERT_EQUAL(mode_of(c, sub), S_IFDIR | 0770);
	CU_ASSERT_EQUAL(xattr_get(c->fs, sub, ACL_DEFAULT, got, sizeof(got), &len), 0);
	CU_ASSERT_EQUAL(memcmp(got, a.b, a.len), 0);
}

/* ---- several writers ---- */

static uint64_t make_written(struct cluster *c, const char *name, size_t len)
{
	static char data[1 * MIB];
	uint64_t id = make_file(c, name);
	struct fs_file *f;
	size_t done;

	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, len, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	return id;
}

/* R1: a hole that two hosts fill at once would be mapped twice. */
static void multiwriter_needs_a_whole_file(struct cluster *c)
{
	struct fs_attr attr = { .size = 2 * MIB };
	uint64_t id;

	cluster_alone(c);
	id = make_written(c, "f", 1 * MIB);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, XATTR_MULTI, "1", 1, 0), -EINVAL);
	CU_ASSERT_EQUAL(xattr_set(c->fs, make_file(c, "small"), XATTR_MULTI, "1", 1, 0), -EINVAL);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, XATTR_MULTI, "yes", 3, 0), -EINVAL);
}

static void several_hosts_write_one_file(struct cluster *c)
{
	static char block[8192];
	struct fs_attr attr = { .size = 1 }, seen;
	struct fs_file *f, *g;
	uint64_t id, begin;
	size_t done;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	id = make_written(c, "f", 1 * MIB);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, XATTR_MULTI, "1", 1, 0), 0);
	CU_ASSERT_TRUE(has(c->fs, id, XATTR_MULTI, "1"));
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	/* At once: a program on two hosts does not know that it would have to wait. */
	CU_ASSERT_EQUAL_FATAL(fs_open(c->hosts[1].fs, id, FS_OPEN_WRITE, &cluster_cred, &g, NULL), 0);
	memset(block, 'a', sizeof(block));
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 4096, block, 4096, false, &done), 0);
	memset(block, 'b', sizeof(block));
	CU_ASSERT_EQUAL(fs_write(c->hosts[1].fs, g, 8192, block, 4096, false, &done), 0);
	CU_ASSERT_EQUAL(fs_write(c->hosts[1].fs, g, 8192, block, 100, false, &done), -EINVAL);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 4096, block, 8192, &done), 0);
	CU_ASSERT_EQUAL(block[0], 'a');
	CU_ASSERT_EQUAL(block[4096], 'b');
	CU_ASSERT_EQUAL(fs_fsync(c->fs, f, false), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 1 * MIB, block, 4096, false, &done), -EPERM);
	CU_ASSERT_EQUAL(fs_fallocate(c->fs, f, FILE_PUNCH | FILE_KEEP_SIZE, 0, 4096), -EPERM);
	begin = sim_now_ns(c->sim);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &seen), 0);
	CU_ASSERT_EQUAL(seen.size, 1 * MIB);
	CU_ASSERT_TRUE(has(c->hosts[1].fs, id, XATTR_MULTI, "1"));
	CU_ASSERT_TRUE(sim_now_ns(c->sim) - begin < 100 * NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(fs_close(c->hosts[1].fs, g), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), -EPERM);
	CU_ASSERT_EQUAL(xattr_remove(c->fs, id, XATTR_MULTI), 0);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), 0);
}

/* ---- blocks that are not to be believed ---- */

static void test_hostile_attribute_blocks_are_refused(void)
{
	static struct xattr_disk d;
	static struct attrs a;

	memset(&d, 0, sizeof(d));
	a.used = a.count = 0;
	CU_ASSERT_EQUAL(attrs_put(&a, "user.a", "value", 5), 0);
	attrs_encode(&a, &d);
	CU_ASSERT_EQUAL(attrs_decode(&d, &a), 0);
	d.count = cpu_to_le32(2);
	CU_ASSERT_EQUAL(attrs_decode(&d, &a), -EUCLEAN);
	d.count = cpu_to_le32(1);
	d.used = cpu_to_le32(XATTR_BYTES_MAX + 1);
	CU_ASSERT_EQUAL(attrs_decode(&d, &a), -EUCLEAN);
	d.used = cpu_to_le32(14);
	CU_ASSERT_EQUAL(attrs_decode(&d, &a), -EUCLEAN);
	d.used = cpu_to_le32(15);
	d.entries[0] = 200;		/* value_len beyond what is used */
	CU_ASSERT_EQUAL(attrs_decode(&d, &a), -EUCLEAN);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(41, SIZE, fn); }

IN_CLUSTER(attributes_are_kept_over_a_remount)
IN_CLUSTER(flags_sizes_and_names_are_checked)
IN_CLUSTER(listing_names_all)
IN_CLUSTER(removed_attributes_free_their_block)
IN_CLUSTER(attributes_are_read_beside_a_writer)
IN_CLUSTER(acl_and_mode_follow_each_other)
IN_CLUSTER(default_acl_is_inherited)
IN_CLUSTER(multiwriter_needs_a_whole_file)
IN_CLUSTER(several_hosts_write_one_file)

UNIT_MAIN("xattr",
	UNIT_TEST(test_attributes_are_kept_over_a_remount),
	UNIT_TEST(test_flags_sizes_and_names_are_checked),
	UNIT_TEST(test_listing_names_all),
	UNIT_TEST(test_removed_attributes_free_their_block),
	UNIT_TEST(test_attributes_are_read_beside_a_writer),
	UNIT_TEST(test_acl_and_mode_follow_each_other),
	UNIT_TEST(test_default_acl_is_inherited),
	UNIT_TEST(test_multiwriter_needs_a_whole_file),
	UNIT_TEST(test_several_hosts_write_one_file),
	UNIT_TEST(test_hostile_attribute_blocks_are_refused)
);
