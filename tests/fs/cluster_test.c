// SPDX-License-Identifier: Apache-2.0
/* Two and three hosts on one volume: what one does the others see; a crash loses nothing. */
#include "fs/fs.h"

#include <stdio.h>

#include "fs/internal.h"
#include "fs/orphan.h"
#include "tests/fs/attached.h"

#define SIZE	(512 * MIB)
#define TAKEOVER_MS	8000u

static void attach_all(struct cluster *c, unsigned int n)
{
	unsigned int i;
	int err;

	for (i = 0; i < n; i++) {
		err = cluster_attach(c, i, 0);
		if (err)
			fprintf(stderr, "  attach %u: %d %s\n", i, err, c->why);
		CU_ASSERT_EQUAL_FATAL(err, 0);
	}
}

static struct fs *host(struct cluster *c, unsigned int i)
{
	return c->hosts[i].fs;
}

static int create(struct fs *fs, uint64_t dir, const char *name, uint32_t mode, uint64_t *id)
{
	struct fs_attr attr = { 0 };
	int err = fs_create(fs, dir, name, mode, 0, &cluster_cred, &attr);

	*id = attr.id;
	return err;
}

static int write_file(struct fs *fs, uint64_t id, const char *text, bool sync)
{
	struct fs_file *f;
	size_t done;
	int err, closed;

	err = fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_write(fs, f, 0, text, strlen(text), false, &done);
	if (!err && sync)
		err = fs_fsync(fs, f, false);
	closed = fs_close(fs, f);
	return err ? err : closed;
}

static bool reads(struct fs *fs, uint64_t id, const char *text)
{
	char buf[256] = "";
	struct fs_file *f;
	size_t done = 0;
	int err;

	err = fs_open(fs, id, 0, &cluster_cred, &f, NULL);
	if (err) {
		fprintf(stderr, "  open to read: %d\n", err);
		return false;
	}
	err = fs_read(fs, f, 0, buf, sizeof(buf), &done);
	fs_close(fs, f);
	return !err && done == strlen(text) && memcmp(buf, text, done) == 0;
}

/* ---- seeing each other ---- */

static void hosts_share_a_directory(struct cluster *c)
{
	struct fs_attr attr;
	char name[32];
	uint64_t id, begin;
	unsigned int i, h;

	attach_all(c, 2);
	for (i = 0; i < 20; i++) {
		h = i % 2;
		snprintf(name, sizeof(name), "file-%u", i);
		CU_ASSERT_EQUAL(create(host(c, h), fs_root(c->fs), name, S_IFREG | 0644, &id), 0);
		begin = sim_now_ns(c->sim);
		while (fs_lookup(host(c, !h), fs_root(c->fs), name, &attr) == -ENOENT &&
		       sim_now_ns(c->sim) - begin < 5 * NSEC_PER_SEC)
			cluster_sleep(c, 50);
		/* A missing name waits until the holder looks, and then is there. */
		CU_ASSERT_TRUE(sim_now_ns(c->sim) - begin <= NSEC_PER_SEC);
		CU_ASSERT_EQUAL(attr.id, id);
	}
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		CU_ASSERT_EQUAL(fs_unlink(host(c, i / 2 % 2), fs_root(c->fs), name), 0);
	}
	cluster_sleep(c, 1000);
	CU_ASSERT_EQUAL(fs_lookup(host(c, 0), fs_root(c->fs), "file-3", &attr), -ENOENT);
	CU_ASSERT_EQUAL(fs_lookup(host(c, 1), fs_root(c->fs), "file-3", &attr), -ENOENT);
}

static void closed_files_are_read_elsewhere(struct cluster *c)
{
	uint64_t id, begin;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 0), id, "from alpha", false), 0);
	begin = sim_now_ns(c->sim);
	CU_ASSERT_TRUE(reads(host(c, 1), id, "from alpha"));
	CU_ASSERT_TRUE(sim_now_ns(c->sim) - begin < 2 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(write_file(host(c, 1), id, "from beta!!", false), 0);
	CU_ASSERT_TRUE(reads(host(c, 0), id, "from beta!!"));
}

/* ---- in use ---- */

static void open_file_is_busy_and_its_holder_named(struct cluster *c)
{
	struct fs_cred cred = { .pid = 4711, .comm = "qemu-system" };
	struct lock_holder holder;
	struct fs_file *f, *g;
	struct fs_attr attr;
	uint64_t dir, id;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "vm1", S_IFDIR | 0755, &dir), 0);
	CU_ASSERT_EQUAL(create(host(c, 0), dir, "disk.img", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 0), id, FS_OPEN_WRITE, &cred, &f, NULL), 0);
	cluster_sleep(c, 1000);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, FS_OPEN_WRITE, &cluster_cred, &g, &holder), -EBUSY);
	CU_ASSERT_STRING_EQUAL(holder.host_name, "alpha");
	CU_ASSERT_EQUAL(holder.pid, 4711);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[1].log, "/vm1/disk.img"));
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[1].log, "held for writing by alpha (qemu-system"));
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, 0, &cluster_cred, &g, NULL), -EBUSY);
	CU_ASSERT_EQUAL(fs_getattr(host(c, 1), id, &attr), 0);
	CU_ASSERT_EQUAL(fs_unlink(host(c, 1), dir, "disk.img"), -EBUSY);
	CU_ASSERT_EQUAL(fs_close(host(c, 0), f), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, FS_OPEN_WRITE, &cluster_cred, &g, NULL), 0);
	CU_ASSERT_EQUAL(fs_close(host(c, 1), g), 0);
}

static void readers_share_a_file(struct cluster *c)
{
	struct fs_file *f, *g;
	uint64_t id;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "iso", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 0), id, 0, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, 0, &cluster_cred, &g, NULL), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, FS_OPEN_WRITE, &cluster_cred, &g, NULL), -EBUSY);
	CU_ASSERT_EQUAL(fs_close(host(c, 0), f), 0);
	CU_ASSERT_EQUAL(fs_close(host(c, 1), g), 0);
}

/* ---- crashes ---- */

/* Opens @id for writing on host @h as soon as it may; returns how long that took. */
static uint64_t take_over(struct cluster *c, unsigned int h, uint64_t id)
{
	uint64_t begin = sim_now_ns(c->sim);
	struct fs_file *f;
	int err;

	do {
		err = fs_open(host(c, h), id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
		if (err)
			cluster_sleep(c, 100);
	} while (err == -EBUSY && sim_now_ns(c->sim) - begin < 60 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(err, 0);
	if (!err)
		fs_close(host(c, h), f);
	return sim_now_ns(c->sim) - begin;
}

static void crash_loses_nothing_that_was_synced(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t dir, ids[10];
	char name[32];
	unsigned int i;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "vm1", S_IFDIR | 0755, &dir), 0);
	for (i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		CU_ASSERT_EQUAL(create(host(c, 0), dir, name, S_IFREG | 0644, &ids[i]), 0);
		CU_ASSERT_EQUAL(write_file(host(c, 0), ids[i], name, true), 0);
	}
	CU_ASSERT_EQUAL(fs_open(host(c, 0), ids[0], FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	cluster_crash(c, 0);
	CU_ASSERT_TRUE(take_over(c, 1, ids[0]) < TAKEOVER_MS * NSEC_PER_MSEC);
	for (i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		CU_ASSERT_EQUAL(fs_lookup(host(c, 1), dir, name, &attr), 0);
		CU_ASSERT_EQUAL(attr.id, ids[i]);
		CU_ASSERT_TRUE(reads(host(c, 1), ids[i], name));
	}
}

/* Files that the dead host had unlinked and open would take space for ever. */
static void orphans_of_the_dead_are_deleted(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t id;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 0), id, "gone", true), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 0), id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_unlink(host(c, 0), fs_root(c->fs), "f"), 0);
	CU_ASSERT_EQUAL(fs_sync(host(c, 0)), 0);
	cluster_crash(c, 0);
	cluster_sleep(c, 15000);
	CU_ASSERT_EQUAL(fs_getattr(host(c, 1), id, &attr), -ESTALE);
	CU_ASSERT_PTR_NOT_NULL(strstr(c->hosts[1].log, "taken over"));
}

/* The crashed host comes back and goes on where it was. */
static void crashed_host_returns(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t id;

	attach_all(c, 1);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 0), id, "kept", true), 0);
	cluster_crash(c, 0);
	attach_all(c, 1);
	CU_ASSERT_EQUAL(fs_lookup(host(c, 0), fs_root(c->fs), "f", &attr), 0);
	CU_ASSERT_TRUE(reads(host(c, 0), attr.id, "kept"));
}

/* ---- renames on two hosts at once ---- */

struct mover {
	struct cluster *c;
	unsigned int host;
	uint64_t dir, new_dir;
	const char *name;
	int err;
};

static void move_dir(void *arg)
{
	struct mover *m = arg;

	m->err = fs_rename(m->c->hosts[m->host].fs, m->dir, m->name, m->new_dir, m->name, 0);
}

/* a into b and b into a at the same time: both would hang in the air, as each other's parents. */
static void crossing_moves_make_no_loop(struct cluster *c)
{
	uint64_t a, b, root, at;
	struct env_thread *t[2];
	struct mover m[2];
	unsigned int i, n;

	attach_all(c, 2);
	root = fs_root(c->fs);
	CU_ASSERT_EQUAL(create(host(c, 0), root, "a", S_IFDIR | 0755, &a), 0);
	CU_ASSERT_EQUAL(create(host(c, 0), root, "b", S_IFDIR | 0755, &b), 0);
	cluster_sleep(c, 1000);
	m[0] = (struct mover){ c, 0, root, b, "a", 0 };
	m[1] = (struct mover){ c, 1, root, a, "b", 0 };
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(env_thread_start(c->hosts[i].env, "mover", move_dir, &m[i], &t[i]), 0);
	for (i = 0; i < 2; i++)
		env_thread_join(c->hosts[i].env, t[i]);
	CU_ASSERT_TRUE((m[0].err == 0) != (m[1].err == 0));
	for (at = a, n = 0; at != root && n < 10; n++)
		CU_ASSERT_EQUAL(fs_parent(host(c, 0), at, &at), 0);
	CU_ASSERT_EQUAL(at, root);
}

/* ---- the end of a host ---- */

/* A host that lost its slot answers -EIO, lets go of everything, and may come back. */
static void lost_host_fails_and_returns(struct cluster *c)
{
	struct fs_attr attr;
	struct statvfs st;
	struct fs_file *f;
	uint64_t id;
	size_t done;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 0), id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(host(c, 0), f, 0, "x", 1, false, &done), 0);
	CU_ASSERT_EQUAL(fs_fsync(host(c, 0), f, false), 0);
	CU_ASSERT_EQUAL(fs_write(host(c, 0), f, 0, "y", 1, false, &done), 0);
	lockd_fail(host(c, 0)->lockd, "a test says so");
	CU_ASSERT_TRUE(fs_is_lost(host(c, 0)));
	CU_ASSERT_EQUAL(fs_getattr(host(c, 0), id, &attr), -EIO);
	CU_ASSERT_EQUAL(fs_lookup(host(c, 0), fs_root(c->fs), "f", &attr), -EIO);
	CU_ASSERT_EQUAL(fs_write(host(c, 0), f, 0, "z", 1, false, &done), -EIO);
	CU_ASSERT_EQUAL(fs_fsync(host(c, 0), f, false), -EIO);
	CU_ASSERT_EQUAL(fs_statfs(host(c, 0), &st), -EIO);
	fs_close(host(c, 0), f);
	CU_ASSERT_NOT_EQUAL(cluster_detach(c, 0), 0);
	attach_all(c, 1);
	CU_ASSERT_EQUAL(fs_getattr(host(c, 0), id, &attr), 0);
	CU_ASSERT_TRUE(take_over(c, 1, id) < TAKEOVER_MS * NSEC_PER_MSEC);
}

/* A rescue mount reads while others work, and takes nothing from them. */
static void rescue_reads_beside_the_living(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f, *g;
	char buf[16];
	uint64_t id;
	size_t done = 0;

	attach_all(c, 1);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 0), id, "rescued", true), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 0), id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	cluster_sleep(c, 1000);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, FS_RESCUE), 0);
	CU_ASSERT_EQUAL(fs_lookup(host(c, 1), fs_root(c->fs), "f", &attr), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, 0, &cluster_cred, &g, NULL), 0);
	CU_ASSERT_EQUAL(fs_read(host(c, 1), g, 0, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(done, 7);
	CU_ASSERT_EQUAL(fs_close(host(c, 1), g), 0);
	CU_ASSERT_EQUAL(fs_open(host(c, 1), id, FS_OPEN_WRITE, &cluster_cred, &g, NULL), -EROFS);
	CU_ASSERT_EQUAL(fs_create(host(c, 1), fs_root(c->fs), "x", S_IFREG, 0, &cluster_cred, &attr),
			-EROFS);
	CU_ASSERT_EQUAL(fs_close(host(c, 0), f), 0);
}

struct order {
	bool taken;		/* a lock, and no flush since */
	unsigned int commits, early;
};

static void watch_order(void *arg, struct env *env, const struct blk_io *io)
{
	struct order *o = arg;
	uint32_t magic = 0;

	(void)env;
	if (io->op == BLK_CAW || io->op == BLK_WRITE)
		memcpy(&magic, io->iov[io->op == BLK_CAW].iov_base, sizeof(magic));
	if (io->op == BLK_CAW && magic == META_LOCK)
		o->taken = true;
	else if (io->op == BLK_FLUSH)
		o->taken = false;
	if (io->op == BLK_WRITE && magic == META_DESC) {
		o->commits++;
		o->early += o->taken;
	}
}

/*
 * A power cut must not take a lock's record back and keep what was committed under it: another
 * host would take the lock, and the replay write over what it did (R1).
 */
static void locks_are_durable_before_what_they_cover(struct cluster *c)
{
	struct order o = { 0 };
	uint64_t id;

	attach_all(c, 1);
	simdisk_observe(c->disk, watch_order, &o);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(fs_sync(host(c, 0)), 0);
	simdisk_observe(c->disk, NULL, NULL);
	CU_ASSERT(o.commits > 0);
	CU_ASSERT_EQUAL(o.early, 0);
}

/* What a truncation leaves that met an error after its first transaction. */
static int begin_truncation(struct fs *fs, uint64_t id)
{
	struct inode_disk *di;
	struct inode *ino;
	struct txn txn;
	int err = inode_get(fs, inode_id_number(id), &ino);

	if (err)
		return err;
	err = inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL);
	if (err)
		goto put;
	err = orphan_reserve(fs);
	if (!err)
		err = txn_begin(fs, 3, &txn);
	if (!err) {
		di = inode_change(&txn, ino);
		orphan_add(&txn, ino, di);
		di->shrink_to = cpu_to_le64(0);
		txn_end(&txn);
	}
	inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
put:
	inode_put(fs, ino);
	return err;
}

static uint64_t notes_of(struct cluster *c)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct check_params p = { .env = c->env, .dev = dev, .report = cluster_finding, .arg = c };
	struct check_result r = { 0 };

	CU_ASSERT_EQUAL(check_volume(&p, &r, c->why, sizeof(c->why)), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	blkdev_close(dev);
	return r.notes;
}

/*
 * One host's truncation was not finished, another one opened or deleted the file: the entry on
 * the first one's list is void.  It must not make the volume seem damaged, and the slot's next
 * owner drops it.
 */
static void orphan_that_another_host_finished_is_no_damage(struct cluster *c)
{
	uint64_t id, kept;

	attach_all(c, 2);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "f", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(create(host(c, 0), fs_root(c->fs), "g", S_IFREG | 0644, &kept), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 0), id, "text", true), 0);
	CU_ASSERT_EQUAL(begin_truncation(host(c, 0), id), 0);
	CU_ASSERT_EQUAL(begin_truncation(host(c, 0), kept), 0);
	cluster_sleep(c, 1000);
	CU_ASSERT_EQUAL(fs_unlink(host(c, 1), fs_root(c->fs), "f"), 0);
	CU_ASSERT_EQUAL(write_file(host(c, 1), kept, "anew", true), 0);
	cluster_sleep(c, 5000);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL(notes_of(c), 2);
	attach_all(c, 2);	/* both slots */
	CU_ASSERT_TRUE(reads(host(c, 1), kept, "anew"));
	cluster_sleep(c, 5000);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL(notes_of(c), 0);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(21, SIZE, fn); }

IN_CLUSTER(hosts_share_a_directory)
IN_CLUSTER(closed_files_are_read_elsewhere)
IN_CLUSTER(open_file_is_busy_and_its_holder_named)
IN_CLUSTER(readers_share_a_file)
IN_CLUSTER(crash_loses_nothing_that_was_synced)
IN_CLUSTER(orphans_of_the_dead_are_deleted)
IN_CLUSTER(crashed_host_returns)
IN_CLUSTER(crossing_moves_make_no_loop)
IN_CLUSTER(lost_host_fails_and_returns)
IN_CLUSTER(rescue_reads_beside_the_living)
IN_CLUSTER(locks_are_durable_before_what_they_cover)
IN_CLUSTER(orphan_that_another_host_finished_is_no_damage)

UNIT_MAIN("cluster",
	UNIT_TEST(test_hosts_share_a_directory),
	UNIT_TEST(test_closed_files_are_read_elsewhere),
	UNIT_TEST(test_open_file_is_busy_and_its_holder_named),
	UNIT_TEST(test_readers_share_a_file),
	UNIT_TEST(test_crash_loses_nothing_that_was_synced),
	UNIT_TEST(test_orphans_of_the_dead_are_deleted),
	UNIT_TEST(test_crashed_host_returns),
	UNIT_TEST(test_crossing_moves_make_no_loop),
	UNIT_TEST(test_lost_host_fails_and_returns),
	UNIT_TEST(test_rescue_reads_beside_the_living),
	UNIT_TEST(test_locks_are_durable_before_what_they_cover),
	UNIT_TEST(test_orphan_that_another_host_finished_is_no_damage)
);
