// SPDX-License-Identifier: Apache-2.0
/*
 * A host that runs out of memory: the operation under way says -ENOMEM and has done nothing, so
 * that it succeeds when it is tried again; or it succeeds.  No slot is given up, no data is
 * lost, nothing leaks, and the volume stays without fault.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "fs/fs_io.h"
#include "fs/image.h"
#include "tests/fs/attached.h"
#include "tests/nomem/each.h"

#define SIZE	(64 * MIB)
#define NAMES	60u
#define BIG	(600 * KIB)

/* One run of the script. */
struct script {
	struct cluster *c;
	struct fs *fs;
	uint64_t n, count;
	bool tight;			/* blocks that nobody uses leave memory at once */
	uint64_t dir, other, file, small, sparse, multi, disk, clone;
	struct fs_file *open;
	unsigned int done;		/* of a step that goes on where it was */
	uint64_t hits;
};

static uint8_t pattern[BIG];

static void pattern_make(void)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 4096);
}

static void name_of(unsigned int i, char name[80])
{
	memset(name, 'a' + (int)i % 26, 60);
	snprintf(name + 60, 20, "%u", i);
}

static int make(struct script *s, uint64_t dir, const char *name, uint32_t mode, uint64_t *id)
{
	struct fs_attr attr = { 0 };
	int err = fs_create(s->fs, dir, name, mode, 0, &cluster_cred, &attr);

	if (!err && id)
		*id = attr.id;
	return err;
}

/* ---- steps: each may be called again after -ENOMEM ---- */

static int step_dirs(struct script *s)
{
	int err = 0;

	if (!s->dir)
		err = make(s, fs_root(s->fs), "dir", S_IFDIR | 0755, &s->dir);
	if (!err && !s->other)
		err = make(s, fs_root(s->fs), "other", S_IFDIR | 0755, &s->other);
	return err;
}

static int step_names(struct script *s)
{
	char name[80];
	int err = 0;

	while (!err && s->done < NAMES) {
		name_of(s->done, name);
		err = make(s, s->dir, name, S_IFREG | 0644, NULL);
		s->done += !err;
	}
	return err;
}

static int step_make_files(struct script *s)
{
	int err = 0;

	if (!s->file)
		err = make(s, s->dir, "file", S_IFREG | 0644, &s->file);
	if (!err && !s->small)
		err = make(s, s->dir, "small", S_IFREG | 0644, &s->small);
	if (!err && !s->sparse)
		err = make(s, s->dir, "sparse", S_IFREG | 0644, &s->sparse);
	return err;
}

static int open_as(struct script *s, uint64_t id, unsigned int flags)
{
	return fs_open(s->fs, id, flags, &cluster_cred, &s->open, NULL);
}

static int write_all(struct script *s, uint64_t off, const void *data, size_t len)
{
	size_t done = 0;
	int err = fs_write(s->fs, s->open, off, data, len, false, &done);

	return err ? err : done == len ? 0 : -ENOMEM;	/* short after an error: again */
}

static int step_open_file(struct script *s) { return open_as(s, s->file, FS_OPEN_WRITE); }
static int step_open_small(struct script *s) { return open_as(s, s->small, FS_OPEN_WRITE); }
static int step_open_sparse(struct script *s) { return open_as(s, s->sparse, FS_OPEN_WRITE); }
static int step_open_truncating(struct script *s)
{
	return open_as(s, s->small, FS_OPEN_WRITE | FS_OPEN_TRUNCATE);
}

static int step_write_big(struct script *s) { return write_all(s, 0, pattern, BIG); }
static int step_overwrite(struct script *s) { return write_all(s, 777, pattern + 777, 5000); }
static int step_write_odd(struct script *s) { return write_all(s, 3, pattern + 3, 9000); }
static int step_write_grown(struct script *s) { return write_all(s, 3, pattern + 3, 60000); }
static int step_write_start(struct script *s) { return write_all(s, 0, pattern, 5); }
static int step_fsync(struct script *s) { return fs_fsync(s->fs, s->open, false); }
static int step_sync(struct script *s) { return fs_sync(s->fs); }
static int step_sync_names(struct script *s) { return fs_sync_names(s->fs); }

/* No error of a close may keep the file open. */
static int step_close(struct script *s)
{
	int err = fs_close(s->fs, s->open);

	s->open = NULL;
	return err == -ENOMEM ? 0 : err;
}

/* A few blocks far apart: levels of the map. */
static int step_write_sparse(struct script *s)
{
	static const uint64_t at[] = { 0, 40 * MIB, 3 * GIB, 700 * GIB, 9 * TIB };
	int err = 0;

	while (!err && s->done < ARRAY_SIZE(at)) {
		err = write_all(s, at[s->done], pattern, BLOCK_SIZE);
		s->done += !err;
	}
	return err;
}

static int step_punch(struct script *s)
{
	return fs_fallocate(s->fs, s->open, FILE_PUNCH | FILE_KEEP_SIZE, 3 * GIB - 4096, 9000);
}

static int step_zero(struct script *s)
{
	return fs_fallocate(s->fs, s->open, FILE_ZERO, 40 * MIB + 100, 300 * KIB);
}

static int step_allocate(struct script *s)
{
	return fs_fallocate(s->fs, s->open, FILE_KEEP_SIZE, 100 * MIB, 2 * MIB);
}

static int step_seek(struct script *s)
{
	uint64_t found;
	int err = fs_seek(s->fs, s->open, 4096, SEEK_DATA, &found);

	if (!err)
		CU_ASSERT_TRUE(found >= 4096);
	return err;
}

static int step_read_back(struct script *s)
{
	static uint8_t buf[9000];
	size_t done = 0;
	int err = fs_read(s->fs, s->open, 40001, buf, sizeof(buf), &done);

	if (!err) {
		CU_ASSERT_EQUAL(done, sizeof(buf));
		CU_ASSERT_EQUAL(memcmp(buf, pattern + 40001, sizeof(buf)), 0);
	}
	return err;
}

static int step_links(struct script *s)
{
	static const char *const names[] = { "short", "long" };
	static char target[3900];
	struct fs_attr attr;
	int err = 0;

	memset(target, 't', sizeof(target) - 1);
	while (!err && s->done < 2) {
		target[s->done ? sizeof(target) - 1 : 20] = '\0';
		err = fs_symlink(s->fs, s->dir, names[s->done], target, &cluster_cred, &attr);
		memset(target, 't', sizeof(target) - 1);
		s->done += !err;
	}
	return err;
}

static int step_readlink(struct script *s)
{
	struct fs_attr attr = { 0 };
	char buf[BLOCK_SIZE];
	int err = fs_resolve(s->fs, "/dir/long", &attr);

	if (!err)
		err = fs_readlink(s->fs, attr.id, buf, sizeof(buf));
	if (!err)
		CU_ASSERT_EQUAL(strlen(buf), 3899);
	return err;
}

static int step_xattrs(struct script *s)
{
	static const char *const names[] = { "user.a", "user.b", "trusted.c" };
	char value[200] = "v";
	int err = 0;

	while (!err && s->done < 3) {
		err = xattr_set(s->fs, s->file, names[s->done], value, sizeof(value), XATTR_CREATE);
		s->done += !err;
	}
	if (!err && s->done == 3) {
		err = xattr_set(s->fs, s->file, "user.b", value, 10, XATTR_REPLACE);
		s->done += !err;
	}
	return err;
}

static int step_xattrs_read(struct script *s)
{
	char buf[400];
	size_t len = 0;
	int err = xattr_list(s->fs, s->file, buf, sizeof(buf), &len);

	if (!err)
		err = xattr_get(s->fs, s->file, "user.a", buf, sizeof(buf), &len);
	if (!err)
		CU_ASSERT_EQUAL(len, 200);
	return err;
}

static int step_xattr_remove(struct script *s)
{
	return xattr_remove(s->fs, s->file, "trusted.c");
}

/* user::rwx group::r-x mask::rwx other::--- and a user */
static const uint8_t acl[] = {
	2, 0, 0, 0,
	1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 7, 0, 0xd2, 4, 0, 0,
	4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, 0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff,
	0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
};

static int step_acl(struct script *s)
{
	return xattr_set(s->fs, s->other, "system.posix_acl_default", acl, sizeof(acl), 0);
}

static int step_inherit(struct script *s)
{
	static const char *const names[] = { "heir", "heirs" };
	int err = 0;

	while (!err && s->done < 2) {
		err = make(s, s->other, names[s->done], (s->done ? S_IFDIR : S_IFREG) | 0775, NULL);
		s->done += !err;
	}
	return err;
}

static int step_chmod(struct script *s)
{
	struct fs_attr attr = { 0 };
	int err = fs_resolve(s->fs, "/other/heir", &attr);

	attr.mode = 0640;
	if (!err)
		err = fs_setattr(s->fs, attr.id, FS_SET_MODE | FS_SET_MTIME, &attr);
	return err;
}

static int step_link(struct script *s)
{
	struct fs_attr attr;

	return fs_link(s->fs, s->file, s->other, "second", &attr);
}

static int step_rename(struct script *s)
{
	return fs_rename(s->fs, s->dir, "file", s->other, "moved", 0);
}

static int step_rename_over(struct script *s)
{
	return fs_rename(s->fs, s->other, "heir", s->other, "second", 0);
}

static int step_exchange(struct script *s)
{
	return fs_rename(s->fs, s->dir, "short", s->other, "moved", RENAME_EXCHANGE);
}

static int step_exchange_back(struct script *s)
{
	return fs_rename(s->fs, s->dir, "short", s->other, "moved", RENAME_EXCHANGE);
}

static int step_move_dir(struct script *s)
{
	return fs_rename(s->fs, s->other, "heirs", s->dir, "heirs", 0);
}

/* A file of several writers: they write whole blocks, from where they like. */
static int step_make_multi(struct script *s)
{
	struct fs_file *f;
	size_t done;
	int err = s->multi ? 0 : make(s, s->dir, "multi", S_IFREG | 0644, &s->multi);

	if (!err)
		err = fs_open(s->fs, s->multi, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_write(s->fs, f, 0, pattern, 64 * KIB, false, &done);
	if (!err && done != 64 * KIB)
		err = -ENOMEM;
	fs_close(s->fs, f);
	return err ? err : xattr_set(s->fs, s->multi, "trusted.lunfs.multiwriter", "1", 1, 0);
}

static int step_open_multi(struct script *s)
{
	return open_as(s, s->multi, FS_OPEN_WRITE | FS_OPEN_MULTI);
}

static int step_write_multi(struct script *s) { return write_all(s, 8192, pattern + 8191, 8192); }

static int step_shrink(struct script *s)
{
	struct fs_attr attr = { .size = 50000 };

	return fs_setattr(s->fs, s->file, FS_SET_SIZE, &attr);
}

static int step_unlink_open(struct script *s) { return fs_unlink(s->fs, s->dir, "sparse"); }

static int step_unlink(struct script *s)
{
	char name[80];
	int err = 0;

	while (!err && s->done < NAMES - 3) {
		name_of(s->done, name);
		err = fs_unlink(s->fs, s->dir, name);
		s->done += !err;
	}
	return err;
}

static int step_rmdir(struct script *s) { return fs_rmdir(s->fs, s->dir, "heirs"); }

static int emit_name(void *arg, const struct dirent_info *d)
{
	unsigned int *count = arg;

	(void)d;
	++*count;
	return 0;
}

static int step_list(struct script *s)
{
	unsigned int count = 0;
	int err = fs_readdir(s->fs, s->dir, 0, emit_name, &count);

	if (!err)
		CU_ASSERT_TRUE(count >= NAMES);
	return err;
}

static int step_look(struct script *s)
{
	struct fs_attr attr;
	struct statvfs st;
	char path[200];
	uint64_t parent;
	int err;

	err = fs_resolve(s->fs, "/dir/small", &attr);
	if (!err)
		err = fs_getattr(s->fs, attr.id, &attr);
	if (!err)
		err = fs_parent(s->fs, s->dir, &parent);
	if (!err)
		err = fs_statfs(s->fs, &st);
	fs_path(s->fs, s->small, path, sizeof(path));
	return err;
}

/* ---- images on images ---- */

static int step_make_disk(struct script *s)
{
	return make(s, s->dir, "disk", S_IFREG | 0644, &s->disk);
}

static int step_open_disk(struct script *s)
{
	struct fs_attr attr;
	int err = fs_lookup(s->fs, s->dir, "disk", &attr);

	return err ? err : open_as(s, attr.id, FS_OPEN_WRITE);
}

static int step_snapshot(struct script *s)
{
	struct fs_attr attr;

	return fs_snapshot(s->fs, s->dir, "disk", "snapshot", NULL, &attr);
}

static int step_clone(struct script *s)
{
	struct fs_attr attr;
	int err = fs_clone(s->fs, s->disk, s->dir, "clone", false, &cluster_cred, &attr);

	if (!err)
		s->clone = attr.id;
	return err;
}

/* In the middle of a block that is the base's. */
static int step_cut_clone(struct script *s)
{
	struct fs_attr attr = { .size = 10001 };

	return fs_setattr(s->fs, s->clone, FS_SET_SIZE, &attr);
}

static int step_image_info(struct script *s)
{
	struct image_info info;
	int err = fs_image_info(s->fs, s->disk, &info);

	if (!err)
		CU_ASSERT_EQUAL(info.children, 2);
	return err;
}

static int step_unlink_clone(struct script *s) { return fs_unlink(s->fs, s->dir, "clone"); }
static int step_unlink_base(struct script *s) { return fs_unlink(s->fs, s->dir, "snapshot"); }

static int step_merge(struct script *s)
{
	struct merge m = { 0 };
	int more;

	do {
		more = fs_merge_step(s->fs, s->open, &m);
	} while (more > 0);
	return more;
}

/* Writeback and reaper have their turn. */
static int step_rest(struct script *s)
{
	cluster_sleep(s->c, 3000);
	return 0;
}

static int step_attach(struct script *s)
{
	int err = cluster_attach(s->c, 0, 0);

	s->fs = s->c->fs;
	if (!err && s->tight)
		buf_limit(s->fs, 0);
	return err;
}

/* Leaving never needs memory: nobody could try again. */
static int step_detach(struct script *s)
{
	return cluster_detach(s->c, 0);
}

static const struct step { const char *name; int (*run)(struct script *s); } steps[] = {
	{ "attach", step_attach }, { "mkdir", step_dirs }, { "create", step_names },
	{ "create files", step_make_files }, { "open", step_open_file },
	{ "write", step_write_big }, { "fsync", step_fsync }, { "overwrite", step_overwrite },
	{ "close", step_close }, { "open small", step_open_small },
	{ "write inline", step_write_start }, { "write odd", step_write_odd },
	{ "write more", step_write_grown },
	{ "close small", step_close }, { "open sparse", step_open_sparse },
	{ "write sparse", step_write_sparse }, { "punch", step_punch }, { "zero", step_zero },
	{ "allocate", step_allocate }, { "seek", step_seek }, { "close sparse", step_close },
	{ "symlink", step_links }, { "setxattr", step_xattrs }, { "set ACL", step_acl },
	{ "inherit ACL", step_inherit }, { "sync", step_sync }, { "detach", step_detach },
	/* All over again from the disk. */
	{ "attach again", step_attach }, { "look", step_look }, { "list", step_list },
	{ "readlink", step_readlink }, { "getxattr", step_xattrs_read },
	{ "removexattr", step_xattr_remove }, { "chmod", step_chmod }, { "open again",
	step_open_file }, { "read", step_read_back }, { "close again", step_close },
	{ "link", step_link }, { "rename", step_rename }, { "rename over", step_rename_over },
	{ "exchange", step_exchange }, { "exchange back", step_exchange_back },
	{ "move directory", step_move_dir }, { "rmdir", step_rmdir }, { "shrink", step_shrink },
	{ "open sparse again", step_open_sparse }, { "unlink open", step_unlink_open },
	{ "sync names", step_sync_names }, { "close unlinked", step_close },
	{ "open truncating", step_open_truncating }, { "write again", step_write_odd },
	{ "close truncated", step_close }, { "make disk", step_make_disk },
	{ "open disk", step_open_disk }, { "write disk", step_write_big },
	{ "close disk", step_close }, { "snapshot", step_snapshot }, { "clone", step_clone },
	{ "cut clone", step_cut_clone }, { "image info", step_image_info },
	{ "open top", step_open_disk }, { "write top", step_overwrite },
	{ "unlink clone", step_unlink_clone }, { "rest of clone", step_rest },
	{ "unlink base", step_unlink_base }, { "merge", step_merge }, { "close top", step_close },
	{ "make multi", step_make_multi },
	{ "open multi", step_open_multi }, { "write multi", step_write_multi },
	{ "close multi", step_close }, { "unlink", step_unlink }, { "rest", step_rest },
	{ "detach again", step_detach },
};

static void step_run(struct script *s, const struct step *step)
{
	int err;

	s->done = 0;
	err = step->run(s);
	if (err == -ENOMEM && nomem_hits()) {
		s->hits += nomem_disarm();
		err = step->run(s);
	}
	if (err || (s->fs && s->c->hosts[0].fs && fs_is_lost(s->fs))) {
		fprintf(stderr, "  %s: %s\n", step->name, err ? strerror(-err) : "slot lost");
		CU_FAIL("a step failed for another reason, or twice");
	}
}

/* ---- what must be there in the end ---- */

static void verify_file(struct script *s, const char *path, uint64_t size, uint64_t from)
{
	static uint8_t buf[64 * KIB];
	struct fs_attr attr = { 0 };
	size_t done = 0;

	CU_ASSERT_EQUAL(fs_resolve(s->fs, path, &attr), 0);
	CU_ASSERT_EQUAL(attr.size, size);
	if (open_as(s, attr.id, 0)) {
		CU_FAIL("cannot be opened");
		return;
	}
	CU_ASSERT_EQUAL(fs_read(s->fs, s->open, 0, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(done, size);
	CU_ASSERT_EQUAL(memcmp(buf + from, pattern + from, done - from), 0);
	fs_close(s->fs, s->open);
}

static void verify(struct script *s)
{
	struct fs_attr attr = { 0 };
	unsigned int names = 0;
	char value[200];
	size_t len;

	CU_ASSERT_EQUAL_FATAL(step_attach(s), 0);
	verify_file(s, "/other/moved", 50000, 0);
	verify_file(s, "/dir/small", 9003, 3);
	CU_ASSERT_EQUAL(fs_readdir(s->fs, s->dir, 0, emit_name, &names), 0);
	CU_ASSERT_EQUAL(names, 3 + 5);	/* of many, small, short, long, multi, disk */
	names = 0;
	CU_ASSERT_EQUAL(fs_readdir(s->fs, s->other, 0, emit_name, &names), 0);
	CU_ASSERT_EQUAL(names, 2);	/* moved, second */
	CU_ASSERT_EQUAL(fs_resolve(s->fs, "/other/second", &attr), 0);
	CU_ASSERT_EQUAL(attr.mode & 0777, 0640);
	CU_ASSERT_EQUAL(attr.nlink, 1);
	CU_ASSERT_EQUAL(xattr_get(s->fs, s->file, "user.a", value, sizeof(value), &len), 0);
	CU_ASSERT_EQUAL(xattr_get(s->fs, s->file, "trusted.c", value, sizeof(value), &len),
			-ENODATA);
	CU_ASSERT_EQUAL(step_detach(s), 0);
}

static struct script *now;	/* cluster_run() has no argument for the body */

static void body(struct cluster *c)
{
	struct script *s = now;
	unsigned int before = CU_get_number_of_failures(), i;

	s->c = c;
	c->hosts[0].env = sim_host(c->sim, cluster_names[0]);
	sim_host_log(c->hosts[0].env, cluster_log, &c->hosts[0]);
	nomem_threads(c->hosts[0].env);
	nomem_arm(s->n, s->count);
	for (i = 0; i < ARRAY_SIZE(steps) && CU_get_number_of_failures() == before; i++)
		step_run(s, &steps[i]);
	s->hits += nomem_disarm();
	if (CU_get_number_of_failures() == before)
		verify(s);
	else if (c->hosts[0].log_len)
		fprintf(stderr, "%s", c->hosts[0].log);
}

static uint64_t run_script(void *arg, uint64_t n, uint64_t count)
{
	struct script s = { .n = n, .count = count, .tight = arg };

	now = &s;
	cluster_run(5, SIZE, body);
	return s.hits;
}

static void one_allocation_may_fail(void)
{
	static const struct each each = { .count = 1, .stride = 1, .run = run_script };

	pattern_make();
	each_allocation(&each);
	nomem_note("one of a host's");
}

/* Until the operation gives up, and those that began meanwhile get by without. */
static void all_allocations_may_fail_from_one_on(void)
{
	static const struct each each = { .count = EACH_ALL, .stride = 3, .run = run_script };

	each_allocation(&each);
	nomem_note("all of a host's from one on");
}

/* What was read before a transaction has left memory when it is needed within. */
static void one_allocation_may_fail_in_tight_memory(void)
{
	static bool tight = true;
	static const struct each each = { .count = 1, .stride = 3, .run = run_script,
					  .arg = &tight };

	each_allocation(&each);
	nomem_note("one of a host's in tight memory");
}

UNIT_MAIN("nomem fs",
	UNIT_TEST(one_allocation_may_fail),
	UNIT_TEST(all_allocations_may_fail_from_one_on),
	UNIT_TEST(one_allocation_may_fail_in_tight_memory)
);
