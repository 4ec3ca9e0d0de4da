// SPDX-License-Identifier: Apache-2.0
/* namei.c, create.c, unlink.c, rename.c, open.c on one attached host. */
#include "fs/fs.h"

#include <dirent.h>
#include <stdio.h>

#include "fs/fs_io.h"
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

/* ---- errors of names ---- */

/* Every refusal is the one that POSIX names: programs act on them. */
static void names_are_refused_as_posix_says(struct cluster *c)
{
	char long_name[NAME_BYTES_MAX + 2];
	struct fs_attr attr;
	uint64_t root, dir, file;

	cluster_alone(c);
	root = fs_root(c->fs);
	dir = mkdir_at(c, root, "d");
	file = touch(c, root, "f");
	memset(long_name, 'x', sizeof(long_name));
	long_name[NAME_BYTES_MAX + 1] = '\0';
	CU_ASSERT_EQUAL(fs_create(c->fs, root, long_name, S_IFREG, 0, &cluster_cred, &attr),
			-ENAMETOOLONG);
	long_name[NAME_BYTES_MAX] = '\0';
	touch(c, root, long_name);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, long_name), 0);
	CU_ASSERT_EQUAL(fs_create(c->fs, file, "x", S_IFREG, 0, &cluster_cred, &attr), -ENOTDIR);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "d"), -EISDIR);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "none"), -ENOENT);
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, root, "f"), -ENOTDIR);
	CU_ASSERT_EQUAL(fs_link(c->fs, dir, root, "l", &attr), -EPERM);
	CU_ASSERT_EQUAL(fs_link(c->fs, file, root, "d", &attr), -EEXIST);
	touch(c, dir, "g");
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, root, "d"), -ENOTEMPTY);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, dir, "g"), 0);
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, root, "d"), 0);
	CU_ASSERT_EQUAL(stat_of(c, root).nlink, 2);
	/* A process may still stand in the removed directory. */
	attr.id = 0;
	CU_ASSERT_NOT_EQUAL(fs_create(c->fs, dir, "x", S_IFREG, 0, &cluster_cred, &attr), 0);
}

/* ---- links ---- */

static void hard_links_count(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t root, dir, file, id = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	dir = mkdir_at(c, root, "d");
	file = touch(c, root, "a");
	CU_ASSERT_EQUAL(fs_link(c->fs, file, dir, "b", &attr), 0);
	CU_ASSERT_EQUAL(attr.nlink, 2);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "a"), 0);
	CU_ASSERT_EQUAL(lookup(c, dir, "b", &id), 0);
	CU_ASSERT_EQUAL(id, file);
	CU_ASSERT_EQUAL(stat_of(c, file).nlink, 1);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, dir, "b"), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, file, &attr), -ESTALE);
}

static void symlink_of(struct cluster *c, size_t len)
{
	char target[4100], got[4100], name[32];
	struct fs_attr attr;

	memset(target, 't', sizeof(target));
	target[len] = '\0';
	snprintf(name, sizeof(name), "link-%zu", len);
	CU_ASSERT_EQUAL(fs_symlink(c->fs, fs_root(c->fs), name, target, &cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL(attr.size, len);
	CU_ASSERT_EQUAL(fs_readlink(c->fs, attr.id, got, sizeof(got)), 0);
	CU_ASSERT_STRING_EQUAL(got, target);
}

/* Targets too long for the inode live in a block, up to 4095 bytes. */
static void symlinks_of_every_length_read_back(struct cluster *c)
{
	char target[4200];
	struct fs_attr attr;

	cluster_alone(c);
	symlink_of(c, 1);
	symlink_of(c, 3584);
	symlink_of(c, 3585);
	symlink_of(c, 4095);
	memset(target, 't', sizeof(target));
	target[4096] = '\0';
	CU_ASSERT_EQUAL(fs_symlink(c->fs, fs_root(c->fs), "x", target, &cluster_cred, &attr),
			-ENAMETOOLONG);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "link-4095"), 0);
}

/* ---- rename ---- */

static void rename_moves_names_and_parents(struct cluster *c)
{
	uint64_t root, a, b, sub, file, id = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	a = mkdir_at(c, root, "a");
	b = mkdir_at(c, root, "b");
	sub = mkdir_at(c, a, "sub");
	file = touch(c, a, "f");
	CU_ASSERT_EQUAL(fs_rename(c->fs, a, "f", a, "g", 0), 0);
	CU_ASSERT_EQUAL(lookup(c, a, "f", &id), -ENOENT);
	CU_ASSERT_EQUAL(fs_rename(c->fs, a, "g", b, "h", 0), 0);
	CU_ASSERT_EQUAL(lookup(c, b, "h", &id), 0);
	CU_ASSERT_EQUAL(id, file);
	CU_ASSERT_EQUAL(fs_rename(c->fs, a, "sub", b, "sub2", 0), 0);
	CU_ASSERT_EQUAL(stat_of(c, a).nlink, 2);
	CU_ASSERT_EQUAL(stat_of(c, b).nlink, 3);
	CU_ASSERT_EQUAL(fs_parent(c->fs, sub, &id), 0);
	CU_ASSERT_EQUAL(id, b);
}

/* A directory that became its own ancestor would be lost with all that is in it. */
static void rename_makes_no_loop(struct cluster *c)
{
	uint64_t root, a, b, d;

	cluster_alone(c);
	root = fs_root(c->fs);
	a = mkdir_at(c, root, "a");
	b = mkdir_at(c, a, "b");
	d = mkdir_at(c, b, "d");
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "a", a, "x", 0), -EINVAL);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "a", d, "x", 0), -EINVAL);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "a", b, "d", RENAME_EXCHANGE), -EINVAL);
	CU_ASSERT_EQUAL(fs_rename(c->fs, b, "d", root, "a", RENAME_EXCHANGE), -EINVAL);
	CU_ASSERT_EQUAL(fs_rename(c->fs, b, "d", root, "a", 0), -ENOTEMPTY);
	CU_ASSERT_EQUAL(fs_rename(c->fs, b, "d", root, "d", 0), 0);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "a", d, "x", 0), 0);
}

static void rename_replaces_by_the_rules(struct cluster *c)
{
	uint64_t root, dir, full, f1, f2, id = 0;
	struct fs_attr attr;

	cluster_alone(c);
	root = fs_root(c->fs);
	dir = mkdir_at(c, root, "dir");
	full = mkdir_at(c, root, "full");
	touch(c, full, "x");
	f1 = touch(c, root, "f1");
	f2 = touch(c, root, "f2");
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "f1", root, "dir", 0), -EISDIR);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "dir", root, "f1", 0), -ENOTDIR);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "dir", root, "full", 0), -ENOTEMPTY);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "none", root, "f1", 0), -ENOENT);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "f1", root, "f2", RENAME_NOREPLACE), -EEXIST);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "f1", root, "f2", 0), 0);
	CU_ASSERT_EQUAL(lookup(c, root, "f2", &id), 0);
	CU_ASSERT_EQUAL(id, f1);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, f2, &attr), -ESTALE);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "full", root, "dir", 0), 0);
	CU_ASSERT_EQUAL(lookup(c, root, "dir", &id), 0);
	CU_ASSERT_EQUAL(id, full);
	CU_ASSERT_EQUAL(stat_of(c, root).nlink, 3);
	/* Two names of one file: nothing happens. */
	CU_ASSERT_EQUAL(fs_link(c->fs, f1, root, "f3", &attr), 0);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "f2", root, "f3", 0), 0);
	CU_ASSERT_EQUAL(stat_of(c, f1).nlink, 2);
	(void)dir;
}

static void set_nlink(struct cluster *c, uint64_t id, uint32_t nlink)
{
	struct inode *ino;
	struct txn txn;

	CU_ASSERT_EQUAL_FATAL(inode_get(c->fs, inode_id_number(id), &ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(c->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(txn_begin(c->fs, 1, &txn), 0);
	inode_change(&txn, ino)->nlink = cpu_to_le32(nlink);
	txn_end(&txn);
	inode_unlock(c->fs, ino, LOCK_EXCLUSIVE, 0);
	inode_put(c->fs, ino);
}

/* One link more than an inode may have, and the directory could never be read again. */
static void no_rename_exceeds_the_links_of_a_directory(struct cluster *c)
{
	uint64_t root, full, other, id = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	full = mkdir_at(c, root, "full");
	other = mkdir_at(c, root, "other");
	touch(c, full, "file");
	mkdir_at(c, other, "dir");
	set_nlink(c, full, LINK_COUNT_MAX);
	CU_ASSERT_EQUAL(fs_rename(c->fs, other, "dir", full, "x", 0), -EMLINK);
	CU_ASSERT_EQUAL(fs_rename(c->fs, other, "dir", full, "file", RENAME_EXCHANGE), -EMLINK);
	CU_ASSERT_EQUAL(fs_rename(c->fs, full, "file", other, "dir", RENAME_EXCHANGE), -EMLINK);
	set_nlink(c, full, 2);
	CU_ASSERT_EQUAL(fs_rename(c->fs, full, "file", other, "dir", RENAME_EXCHANGE), 0);
	CU_ASSERT_EQUAL(lookup(c, full, "file", &id), 0);
	CU_ASSERT_EQUAL(stat_of(c, full).nlink, 3);
}

static void rename_exchanges_two_names(struct cluster *c)
{
	uint64_t root, a, b, sub, file, id = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	a = mkdir_at(c, root, "a");
	b = mkdir_at(c, root, "b");
	sub = mkdir_at(c, a, "x");
	file = touch(c, b, "y");
	CU_ASSERT_EQUAL(fs_rename(c->fs, a, "x", b, "y", RENAME_EXCHANGE), 0);
	CU_ASSERT_EQUAL(lookup(c, a, "x", &id), 0);
	CU_ASSERT_EQUAL(id, file);
	CU_ASSERT_EQUAL(lookup(c, b, "y", &id), 0);
	CU_ASSERT_EQUAL(id, sub);
	CU_ASSERT_EQUAL(stat_of(c, a).nlink, 2);
	CU_ASSERT_EQUAL(stat_of(c, b).nlink, 3);
	CU_ASSERT_EQUAL(fs_rename(c->fs, a, "x", b, "none", RENAME_EXCHANGE), -ENOENT);
}

/* ---- attributes, groups, times ---- */

static void setgid_directories_hand_their_group_down(struct cluster *c)
{
	struct fs_attr attr = { .mode = 02775, .gid = 555 };
	uint64_t dir;

	cluster_alone(c);
	dir = mkdir_at(c, fs_root(c->fs), "d");
	CU_ASSERT_EQUAL(fs_setattr(c->fs, dir, FS_SET_MODE | FS_SET_GID, &attr), 0);
	CU_ASSERT_EQUAL(attr.mode, S_IFDIR | 02775);
	CU_ASSERT_EQUAL(stat_of(c, touch(c, dir, "f")).gid, 555);
	CU_ASSERT_EQUAL(stat_of(c, mkdir_at(c, dir, "s")).mode, S_IFDIR | 02755);
	CU_ASSERT_EQUAL(stat_of(c, touch(c, dir, "f2")).mode, S_IFREG | 0644);
}

static void times_are_set_and_move(struct cluster *c)
{
	struct fs_attr attr = { .atime_ns = -5, .mtime_ns = 1234567890123456789 }, before;
	uint64_t root, file;

	cluster_alone(c);
	root = fs_root(c->fs);
	file = touch(c, root, "f");
	CU_ASSERT_EQUAL(fs_setattr(c->fs, file, FS_SET_ATIME | FS_SET_MTIME, &attr), 0);
	CU_ASSERT_EQUAL(stat_of(c, file).atime_ns, -5);
	CU_ASSERT_EQUAL(stat_of(c, file).mtime_ns, 1234567890123456789);
	before = stat_of(c, root);
	cluster_sleep(c, 10);
	CU_ASSERT_EQUAL(fs_rename(c->fs, root, "f", root, "g", 0), 0);
	CU_ASSERT_TRUE(stat_of(c, root).mtime_ns > before.mtime_ns);
	CU_ASSERT_TRUE(stat_of(c, root).ctime_ns > before.ctime_ns);
	CU_ASSERT_EQUAL(stat_of(c, file).mtime_ns, 1234567890123456789);
}

/* ---- open files ---- */

static struct fs_file *open_file(struct cluster *c, uint64_t id, unsigned int flags)
{
	struct fs_file *f = NULL;

	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, flags, &cluster_cred, &f, NULL), 0);
	return f;
}

static void unlinked_files_live_until_closed(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	char buf[16] = "";
	uint64_t root, file;
	size_t done = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	file = touch(c, root, "f");
	f = open_file(c, file, FS_OPEN_WRITE);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, "still here", 10, false, &done), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "f"), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(stat_of(c, file).nlink, 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 0, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(done, 10);
	CU_ASSERT_EQUAL(memcmp(buf, "still here", 10), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, file, &attr), -ESTALE);
}

static void truncation_by_name_and_open_empties(struct cluster *c)
{
	struct fs_attr attr = { .size = 5 };
	struct fs_file *f;
	uint64_t root, file;
	size_t done;

	cluster_alone(c);
	root = fs_root(c->fs);
	file = touch(c, root, "f");
	f = open_file(c, file, FS_OPEN_WRITE);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, "0123456789", 10, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, file, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(stat_of(c, file).size, 5);
	f = open_file(c, file, FS_OPEN_WRITE | FS_OPEN_TRUNCATE);
	CU_ASSERT_EQUAL(stat_of(c, file).size, 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, root, FS_SET_SIZE, &attr), -EISDIR);
	CU_ASSERT_EQUAL(fs_open(c->fs, root, 0, &cluster_cred, &f, NULL), -EISDIR);
}

/* A full volume loses nothing, and deleting needs no space. */
static void full_volume_still_deletes(struct cluster *c)
{
	static char block[64 * KIB];
	struct fs_file *f;
	uint64_t root, file, small, off = 0;
	struct fs_attr attr;
	size_t done = 1;
	int err = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	small = touch(c, root, "small");
	file = touch(c, root, "big");
	f = open_file(c, file, FS_OPEN_WRITE);
	while (!err && done) {
		err = fs_write(c->fs, f, off, block, sizeof(block), false, &done);
		if (!err)
			off += done;
	}
	CU_ASSERT_EQUAL(err, -ENOSPC);
	CU_ASSERT_TRUE(off > 16 * MIB);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	CU_ASSERT_EQUAL(stat_of(c, file).size, off);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "small"), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "big"), 0);
	CU_ASSERT_EQUAL(fs_create(c->fs, root, "new", S_IFREG | 0600, 0, &cluster_cred, &attr), 0);
	f = open_file(c, attr.id, FS_OPEN_WRITE);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 1 * MIB, block, sizeof(block), false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	(void)small;
}

static void paths_lead_back(struct cluster *c)
{
	char path[512];
	uint64_t dir, file;

	cluster_alone(c);
	dir = mkdir_at(c, fs_root(c->fs), "vm1");
	file = touch(c, dir, "disk.img");
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	CU_ASSERT_STRING_EQUAL(fs_path(c->fs, file, path, sizeof(path)), "/vm1/disk.img");
	CU_ASSERT_STRING_EQUAL(fs_path(c->fs, fs_root(c->fs), path, sizeof(path)), "/");
}

static struct fs_file *open_cached(struct cluster *c, uint64_t id, const void *cache, bool *kept)
{
	struct fs_file *f = NULL;

	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	*kept = fs_cache_open(c->fs, f, cache);
	return f;
}

/* The kernel would go on showing what another host has changed since, or another mount. */
static void a_cache_is_kept_only_when_known_to_be_fresh(struct cluster *c)
{
	const char one = 0, two = 0;
	struct fs_file *f, *g;
	uint64_t id;
	size_t done;
	bool kept;

	cluster_alone(c);
	id = touch(c, fs_root(c->fs), "f");
	f = open_cached(c, id, &one, &kept);
	CU_ASSERT_FALSE(kept);
	g = open_cached(c, id, &one, &kept);	/* nothing has been dropped yet */
	CU_ASSERT_FALSE(kept);
	CU_ASSERT_EQUAL(fs_close(c->fs, g), 0);	/* nor by an open that was interrupted */
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	f = open_cached(c, id, &one, &kept);
	CU_ASSERT_FALSE(kept);
	fs_cache_opened(c->fs, f);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	f = open_cached(c, id, &one, &kept);
	CU_ASSERT_TRUE(kept);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, "x", 1, false, &done), 0);
	g = open_cached(c, id, &one, &kept);	/* its own writes are in it */
	CU_ASSERT_TRUE(kept);
	CU_ASSERT_EQUAL(fs_close(c->fs, g), 0);
	g = open_cached(c, id, &two, &kept);
	CU_ASSERT_FALSE(kept);
	fs_cache_opened(c->fs, g);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, "y", 1, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, g), 0);
	g = open_cached(c, id, &two, &kept);
	CU_ASSERT_FALSE(kept);
	CU_ASSERT_EQUAL(fs_close(c->fs, g), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
}

#define SHARED_DISKS	70

/* The times of a file of several writers stay in memory: they are nothing to wait for. */
static void many_shared_disks_can_be_synced(struct cluster *c)
{
	struct fs_file *files[SHARED_DISKS];
	uint8_t *data = blkdev_alloc(BLOCK_SIZE);
	uint64_t ids[SHARED_DISKS];
	char name[16];
	size_t done;

	cluster_alone(c);
	for (unsigned int i = 0; i < SHARED_DISKS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ids[i] = touch(c, fs_root(c->fs), name);
		CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, ids[i], FS_OPEN_WRITE, &cluster_cred,
					      &files[i], NULL), 0);
		CU_ASSERT_EQUAL(fs_write(c->fs, files[i], 0, data, BLOCK_SIZE, false, &done), 0);
		CU_ASSERT_EQUAL(fs_close(c->fs, files[i]), 0);
		CU_ASSERT_EQUAL(xattr_set(c->fs, ids[i], XATTR_MULTI, "1", 1, 0), 0);
	}
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);	/* no lock is left from before */
	for (unsigned int i = 0; i < SHARED_DISKS; i++) {
		CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, ids[i], FS_OPEN_WRITE, &cluster_cred,
					      &files[i], NULL), 0);
		CU_ASSERT_EQUAL(fs_write(c->fs, files[i], 0, data, BLOCK_SIZE, false, &done), 0);
	}
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	for (unsigned int i = 0; i < SHARED_DISKS; i++)
		CU_ASSERT_EQUAL(fs_close(c->fs, files[i]), 0);
	free(data);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(11, SIZE, fn); }

IN_CLUSTER(names_are_refused_as_posix_says)
IN_CLUSTER(hard_links_count)
IN_CLUSTER(symlinks_of_every_length_read_back)
IN_CLUSTER(rename_moves_names_and_parents)
IN_CLUSTER(rename_makes_no_loop)
IN_CLUSTER(rename_replaces_by_the_rules)
IN_CLUSTER(rename_exchanges_two_names)
IN_CLUSTER(many_shared_disks_can_be_synced)
IN_CLUSTER(a_cache_is_kept_only_when_known_to_be_fresh)
IN_CLUSTER(no_rename_exceeds_the_links_of_a_directory)
IN_CLUSTER(setgid_directories_hand_their_group_down)
IN_CLUSTER(times_are_set_and_move)
IN_CLUSTER(unlinked_files_live_until_closed)
IN_CLUSTER(truncation_by_name_and_open_empties)
IN_CLUSTER(paths_lead_back)

static void test_full_volume_still_deletes(void)
{
	cluster_run(12, 64 * MIB, full_volume_still_deletes);
}

/* ---- set-id bits ---- */

struct clearing {
	struct cluster	*c;
	struct fs_file	*f;
};

static void clear_main(void *arg)
{
	struct clearing *cl = arg;

	CU_ASSERT_EQUAL(fs_drop_privileges(cl->c->fs, cl->f, true), 0);
}

static void clearing_body(struct cluster *c)
{
	struct clearing cl = { .c = c };
	struct env_thread *thread;
	struct fs_attr attr;
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG | 0755, 0, &cluster_cred,
					&attr), 0);
	id = attr.id;
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &cl.f, NULL), 0);
	sim_preempt(c->sim, 300);
	for (unsigned int i = 0; i < 100; i++) {
		attr.mode = 06755;
		CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_MODE, &attr), 0);
		CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "clear", clear_main, &cl, &thread), 0);
		attr.mode = 0600;
		CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_MODE, &attr), 0);
		env_thread_join(c->hosts[0].env, thread);
		CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
		CU_ASSERT_EQUAL(attr.mode & 07777, 0600);
	}
	sim_preempt(c->sim, 0);
	attr.mode = 06755;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_MODE, &attr), 0);
	clear_main(&cl);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	CU_ASSERT_EQUAL(attr.mode & 07777, 0755);
	CU_ASSERT_EQUAL(fs_close(c->fs, cl.f), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
}

/* A write that clears them must not bring back a mode that chmod(1) has just taken away. */
static void clearing_set_id_bits_keeps_a_chmod(void)
{
	cluster_run(11, SIZE, clearing_body);
}

UNIT_MAIN("namei",
	UNIT_TEST(test_created_objects_stay),
	UNIT_TEST(test_names_are_refused_as_posix_says),
	UNIT_TEST(test_hard_links_count),
	UNIT_TEST(test_symlinks_of_every_length_read_back),
	UNIT_TEST(test_rename_moves_names_and_parents),
	UNIT_TEST(test_rename_makes_no_loop),
	UNIT_TEST(test_rename_replaces_by_the_rules),
	UNIT_TEST(test_rename_exchanges_two_names),
	UNIT_TEST(test_many_shared_disks_can_be_synced),
	UNIT_TEST(test_a_cache_is_kept_only_when_known_to_be_fresh),
	UNIT_TEST(test_no_rename_exceeds_the_links_of_a_directory),
	UNIT_TEST(test_setgid_directories_hand_their_group_down),
	UNIT_TEST(test_times_are_set_and_move),
	UNIT_TEST(test_unlinked_files_live_until_closed),
	UNIT_TEST(test_truncation_by_name_and_open_empties),
	UNIT_TEST(test_full_volume_still_deletes),
	UNIT_TEST(clearing_set_id_bits_keeps_a_chmod),
	UNIT_TEST(test_paths_lead_back)
);
