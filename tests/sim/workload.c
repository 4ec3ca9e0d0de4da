// SPDX-License-Identifier: Apache-2.0
/* What hosts do until the power fails. */
#include "tests/sim/cut.h"

/* mkfs over garbage, then over the volume that the first one made. */
static void make_volume(struct recording *r)
{
	do_mkfs(r);
	do_attach(r, 0);
	do_create(r, 0, "/old");
	do_write(r, 0, "/old", 0, 5000);
	do_detach(r, 0);
	do_mkfs(r);
}

/* Names come, are synced in between, and some are not. */
static void create(struct recording *r)
{
	do_attach(r, 0);
	do_mkdir(r, 0, "/d");
	do_create(r, 0, "/d/a");
	do_fsync(r, 0, "/d/a", false);
	do_create(r, 0, "/d/b");
	do_symlink(r, 0, "/d/s", "../elsewhere");
	do_link(r, 0, "/d/b", "/b2");
	do_sync(r, 0);
	do_create(r, 0, "/d/c");
	do_chmod(r, 0, "/d/a", 0600);
	do_sleep(r, 700);
	do_mkdir(r, 0, "/d/e");
	do_create(r, 0, "/d/e/f");
}

/* A thin file is written here and there: inline, then in units. */
static void write_thin(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/f");
	do_write(r, 0, "/f", 0, 1000);
	do_fsync(r, 0, "/f", false);
	do_write(r, 0, "/f", 1000, 1500);
	do_write(r, 0, "/f", 3000, 3000);	/* inline no more, and a hole */
	do_fsync(r, 0, "/f", true);
	do_write(r, 0, "/f", 20000, 100);
	do_write(r, 0, "/f", 300000, 9000);
	do_sleep(r, 500);
	do_write(r, 0, "/f", 200000, 150000);
	do_fsync(r, 0, "/f", false);
	do_truncate(r, 0, "/f", 1000000);
	do_write(r, 0, "/f", 900000, 5);
}


/* Valid data is written over, whole blocks and parts, synced or not. */
static void overwrite(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/f");
	do_write(r, 0, "/f", 0, 600000);
	do_sync(r, 0);
	do_write(r, 0, "/f", 4096, 8192);
	do_fsync(r, 0, "/f", true);
	do_write(r, 0, "/f", 8192, 4096);
	do_write(r, 0, "/f", 100, 700);
	do_fsync(r, 0, "/f", true);
	do_write(r, 0, "/f", 260000, 5000);	/* over the end of a unit */
	do_create(r, 0, "/g");
	do_fsync(r, 0, "/g", false);
	do_write(r, 0, "/f", 599000, 4000);	/* and of the file */
	do_write(r, 0, "/f", 0, 65536);
	do_sleep(r, 600);
	do_write(r, 0, "/f", 32768, 65536);
}

/* Editors' way of saving, exchange, and directories that move. */
static void rename_over(struct recording *r)
{
	do_attach(r, 0);
	do_mkdir(r, 0, "/a");
	do_mkdir(r, 0, "/b");
	do_create(r, 0, "/a/f");
	do_write(r, 0, "/a/f", 0, 30000);
	do_sync(r, 0);
	do_create(r, 0, "/a/f.new");
	do_write(r, 0, "/a/f.new", 0, 40000);
	do_fsync(r, 0, "/a/f.new", false);
	do_rename(r, 0, "/a/f.new", "/a/f", 0);
	do_sleep(r, 500);
	do_create(r, 0, "/b/g");
	do_write(r, 0, "/b/g", 0, 300);
	do_rename(r, 0, "/b/g", "/a/f", RENAME_EXCHANGE);
	do_fsync(r, 0, "/a/f", false);
	do_mkdir(r, 0, "/b/sub");
	do_create(r, 0, "/b/sub/deep");
	do_rename(r, 0, "/b/sub", "/a/sub", 0);
	do_sync(r, 0);
	do_rename(r, 0, "/b/g", "/a/sub/deep", 0);
	do_rename(r, 0, "/a", "/c", 0);
	do_sleep(r, 500);
}

/* Two files whose units take turns on the disk, so that freeing one is a chain. */
static void make_fragmented(struct recording *r, unsigned int units)
{
	do_create(r, 0, "/x");
	do_create(r, 0, "/y");
	for (unsigned int i = 0; i < units; i++) {
		do_write(r, 0, "/x", i * UNIT_SIZE, i ? 4096 : UNIT_SIZE);
		do_write(r, 0, "/y", i * UNIT_SIZE + 8192, 4096);
	}
	do_sync(r, 0);
}

/* What is freed is soon used again: nobody may see it in its old place. */
static void unlink_large(struct recording *r)
{
	do_attach(r, 0);
	make_fragmented(r, 34);
	do_unlink(r, 0, "/x");
	do_create(r, 0, "/z");
	do_write(r, 0, "/z", 0, 500000);
	do_fsync(r, 0, "/z", false);
	do_write(r, 0, "/z", 500000, 500000);
	do_sleep(r, 900);
	do_unlink(r, 0, "/y");
	do_sleep(r, 900);
	do_create(r, 0, "/u");
	do_write(r, 0, "/u", 1000, 900000);
}

/* Down and up again, at odd places: what was cut off is zeros. */
static void truncate_file(struct recording *r)
{
	do_attach(r, 0);
	make_fragmented(r, 30);
	do_truncate(r, 0, "/x", 100001);
	do_fsync(r, 0, "/x", false);
	do_truncate(r, 0, "/x", 400000);
	do_sync(r, 0);
	do_write(r, 0, "/x", 0, 20000);
	do_truncate(r, 0, "/x", 5000);
	do_truncate(r, 0, "/x", 20000);
	do_fsync(r, 0, "/x", false);
	do_write(r, 0, "/x", 5000, 100);
	do_sleep(r, 600);
	do_truncate(r, 0, "/y", 3 * UNIT_SIZE + 9000);
	do_truncate(r, 0, "/x", 0);
	do_write(r, 0, "/x", 300, 3000);
	do_fsync(r, 0, "/x", false);
	do_truncate(r, 0, "/x", 1234);
	do_truncate(r, 0, "/x", 3000);
	do_sync(r, 0);
	do_truncate(r, 0, "/y", 0);
}

static void punch(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/f");
	do_write(r, 0, "/f", 0, 4 * UNIT_SIZE);
	do_sync(r, 0);
	do_punch(r, 0, "/f", 10000, 20000);
	do_fsync(r, 0, "/f", false);
	do_punch(r, 0, "/f", UNIT_SIZE - 5000, UNIT_SIZE + 10000);
	do_write(r, 0, "/f", UNIT_SIZE, 6000);
	do_sync(r, 0);
	do_zero(r, 0, "/f", 2 * UNIT_SIZE + 100, 50000);
	do_sleep(r, 600);
	do_zero(r, 0, "/f", 4 * UNIT_SIZE - 1000, 100000);
	do_allocate(r, 0, "/f", 0, 4 * UNIT_SIZE, 2 * UNIT_SIZE);
	do_fsync(r, 0, "/f", false);
	do_write(r, 0, "/f", 5 * UNIT_SIZE + 77, 8000);
	do_punch(r, 0, "/f", 0, 3 * UNIT_SIZE);
	do_fsync(r, 0, "/f", true);
}

#define NAMES	44u

/* Long names, so that few of them split leaves. */
static void long_name(char *path, unsigned int i)
{
	snprintf(path, PATH_SIZE, "/d/%03u-%0200d", i * 7919 % 1000, 0);
}

static void directory(struct recording *r)
{
	char path[PATH_SIZE];

	do_attach(r, 0);
	do_mkdir(r, 0, "/d");
	for (unsigned int i = 0; i < NAMES; i++) {
		long_name(path, i);
		do_create(r, 0, path);
		if (i % 9 == 8)
			do_fsync(r, 0, path, false);
	}
	do_sync(r, 0);
	for (unsigned int i = 0; i < NAMES; i++) {
		long_name(path, i);
		do_unlink(r, 0, path);
		if (i % 8 == 7)
			do_sync(r, 0);
	}
	do_rmdir(r, 0, "/d");
}

static void xattrs(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/f");
	do_setxattr(r, 0, "/f", "user.one", 20);
	do_fsync(r, 0, "/f", false);
	do_setxattr(r, 0, "/f", "user.two", 1500);
	do_setxattr(r, 0, "/f", "user.one", 600);
	do_sleep(r, 500);
	do_setxattr(r, 0, "/f", "user.one", 10);
	do_removexattr(r, 0, "/f", "user.two");
	do_sync(r, 0);
	do_removexattr(r, 0, "/f", "user.one");
	do_mkdir(r, 0, "/d");
	do_setxattr(r, 0, "/d", "user.dir", 3000);
	do_sync(r, 0);
	do_setxattr(r, 0, "/f", "user.three", 50);
	do_unlink(r, 0, "/f");
	do_rmdir(r, 0, "/d");
	do_sleep(r, 700);
}

/* The smallest journal goes round and round. */
static void journal_wrap(struct recording *r)
{
	char path[PATH_SIZE];

	do_attach(r, 0);
	for (unsigned int round = 0; round < 36; round++) {
		snprintf(path, sizeof(path), "/f%u", round % 12);
		if (round >= 12)
			do_unlink(r, 0, path);
		do_create(r, 0, path);
		do_write(r, 0, path, 0, 200 * (round + 1));
		if (round % 3)
			do_fsync(r, 0, path, false);
		if (round % 10 == 9)
			do_sleep(r, 400);
	}
}

/* One host works until it dies; the other one takes over and goes on with its files. */
static void takeover(struct recording *r)
{
	do_attach(r, 0);
	do_attach(r, 1);
	do_mkdir(r, 0, "/d");
	do_create(r, 0, "/d/f");
	do_write(r, 0, "/d/f", 0, 70000);
	do_create(r, 1, "/g");
	do_write(r, 1, "/g", 0, 3000);
	do_fsync(r, 0, "/d/f", false);
	do_sync(r, 0);
	do_write(r, 0, "/d/f", 10000, 10000);
	do_fsync(r, 0, "/d/f", true);
	do_write(r, 1, "/g", 3000, 10000);
	do_crash(r, 0);
	do_sleep(r, 8000);
	do_write(r, 1, "/d/f", 60000, 20000);
	do_create(r, 1, "/d/of-beta");
	do_fsync(r, 1, "/d/of-beta", false);
	do_unlink(r, 1, "/d/f");
	do_sleep(r, 1000);
	do_attach(r, 0);
	do_create(r, 0, "/d/back");
	do_sync(r, 0);
}

/* Two hosts take turns at the same objects: what one sees of the other is durable. */
static void two_hosts(struct recording *r)
{
	do_attach(r, 0);
	do_attach(r, 1);
	do_mkdir(r, 0, "/d");
	do_create(r, 1, "/d/b");
	do_write(r, 1, "/d/b", 0, 9000);
	do_write(r, 0, "/d/b", 9000, 9000);
	do_fsync(r, 0, "/d/b", false);
	do_create(r, 0, "/d/a");
	do_rename(r, 1, "/d/a", "/d/c", 0);
	do_write(r, 0, "/d/c", 0, 100);
	do_sync(r, 1);
	do_truncate(r, 1, "/d/b", 5000);
	do_truncate(r, 0, "/d/b", 16000);
	do_link(r, 1, "/d/b", "/l");
	do_sync(r, 0);
	do_unlink(r, 0, "/d/b");
	do_unlink(r, 1, "/l");
	do_sleep(r, 1500);
}

/* Slots come and go. */
static void join_leave(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/a");
	do_detach(r, 0);
	do_attach(r, 1);
	do_attach(r, 0);
	do_create(r, 1, "/b");
	do_detach(r, 1);
	do_detach(r, 0);
	do_attach(r, 1);
	do_unlink(r, 1, "/a");
	do_detach(r, 1);
}

/* No space left, some given back and used again at once. */
static void full(struct recording *r)
{
	uint64_t filler = 63 * MIB;

	do_attach(r, 0);
	do_create(r, 0, "/filler");
	while (filler && do_allocate(r, 0, "/filler", FILE_KEEP_SIZE, 0, filler))
		filler -= UNIT_SIZE;
	do_create(r, 0, "/a");
	do_write(r, 0, "/a", 0, 4 * UNIT_SIZE);
	do_create(r, 0, "/b");
	do_sync(r, 0);
	do_write(r, 0, "/b", 0, 4 * UNIT_SIZE);
	do_write(r, 0, "/b", 0, 4 * UNIT_SIZE);
	do_sync(r, 0);
	do_unlink(r, 0, "/a");
	do_write(r, 0, "/b", UNIT_SIZE, 3 * UNIT_SIZE);
	do_fsync(r, 0, "/b", false);
	do_truncate(r, 0, "/b", 100000);
	do_create(r, 0, "/c");
	do_write(r, 0, "/c", 0, 2 * UNIT_SIZE);
	do_punch(r, 0, "/c", 0, UNIT_SIZE);
	do_write(r, 0, "/b", 300000, UNIT_SIZE);
	do_fsync(r, 0, "/b", false);
}

/*
 * Every block counts: what a directory gives back in the newest transactions is all that a
 * file can have, while the journal still holds images of those very blocks.
 */
static void reuse(struct recording *r)
{
	uint64_t filler = 63 * MIB;
	char path[PATH_SIZE];
	unsigned int i;

	do_attach(r, 0);
	do_mkdir(r, 0, "/d");
	for (i = 0; i < 30; i++) {
		long_name(path, i);
		do_create(r, 0, path);
	}
	do_create(r, 0, "/filler");
	while (filler && do_allocate(r, 0, "/filler", FILE_KEEP_SIZE, 0, filler))
		filler -= UNIT_SIZE;
	do_create(r, 0, "/new");
	for (i = 0; i < 70; i++) {
		snprintf(path, sizeof(path), "/small%u", i);
		if (!do_try_create(r, 0, path) || !do_write(r, 0, path, 0, 4096))
			break;
	}
	do_sync(r, 0);
	do_sleep(r, 900);
	cut_from_here(r);
	for (i = 0; i < 30; i++) {
		long_name(path, i);
		do_unlink(r, 0, path);
		if (i % 3 == 0) {
			do_chmod(r, 0, "/new", 0600 + i);
			do_fsync(r, 0, "/new", false);
		}
	}
	do_rmdir(r, 0, "/d");
	do_chmod(r, 0, "/new", 0600);
	do_fsync(r, 0, "/new", false);
	do_write(r, 0, "/new", 0, 8192);
	do_fsync(r, 0, "/new", false);
	do_unlink(r, 0, "/small1");
	do_write(r, 0, "/small2", 4096, 4096);
	do_fsync(r, 0, "/small2", false);
	do_sleep(r, 900);
}

static void second_thread(void *arg)
{
	struct recording *r = arg;
	char path[PATH_SIZE];

	do_mkdir(r, 1, "/two");
	for (unsigned int i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), "/two/%u", i);
		do_create(r, 1, path);
		do_write(r, 1, path, 0, 700 * i + 1);
		if (i % 2)
			do_fsync(r, 1, path, false);
		if (i % 3 == 2)
			do_unlink(r, 1, path);
	}
}

static void first_thread(struct recording *r)
{
	char path[PATH_SIZE];

	do_mkdir(r, 0, "/one");
	for (unsigned int i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), "/one/%u", i);
		do_create(r, 0, path);
		do_write(r, 0, path, 5000 * i, 6000);
		if (i % 3 == 0)
			do_fsync(r, 0, path, true);
		if (i % 3 == 1)
			do_truncate(r, 0, path, 3000);
		if (i % 3 == 2)
			do_rename(r, 0, path, "/one/x", 0);
	}
}

/* Two threads of one host share its transactions; each one's operations stay in order. */
static void two_threads(struct recording *r)
{
	struct env_thread *thread;

	do_attach(r, 0);
	r->hosts[1] = r->hosts[0];
	new_actor(r, 1);
	thread = do_start(r, 0, second_thread);
	first_thread(r);
	do_join(r, 0, thread);
	memset(&r->hosts[1], 0, sizeof(r->hosts[1]));
}

static void syncing_thread(void *arg)
{
	struct recording *r = arg;

	for (unsigned int i = 0; i < 25; i++) {
		do_write(r, 1, "/t", i * 10, 10);
		do_fsync(r, 1, "/t", false);
	}
}

/* Another thread's syncs fall between the transactions of long operations. */
static void chains(struct recording *r)
{
	struct env_thread *thread;

	do_attach(r, 0);
	make_fragmented(r, 60);
	do_create(r, 0, "/t");
	do_sync(r, 0);
	cut_from_here(r);
	r->hosts[1] = r->hosts[0];
	new_actor(r, 1);
	sim_preempt(r->sim, 300);
	thread = do_start(r, 0, syncing_thread);
	do_truncate(r, 0, "/x", 100001);
	do_unlink(r, 0, "/y");
	do_write(r, 0, "/x", UNIT_SIZE, 5 * UNIT_SIZE);
	do_punch(r, 0, "/x", 5000, 3 * UNIT_SIZE);
	do_join(r, 0, thread);
	sim_preempt(r->sim, 0);
	memset(&r->hosts[1], 0, sizeof(r->hosts[1]));
}

static void busy(void *arg)
{
	struct recording *r = arg;

	first_thread(r);
	MUST(!"the host outlives its work");
}

/* A host stops in the middle of its work; its journal is replayed by another one. */
static void crash_busy(struct recording *r)
{
	do_attach(r, 0);
	do_attach(r, 1);
	do_create(r, 0, "/held");
	do_write(r, 0, "/held", 0, 100000);
	do_sync(r, 0);
	do_hold(r, 0, "/held");
	do_unlink(r, 0, "/held");
	do_start(r, 0, busy);
	do_sleep(r, r->w->arg);
	do_crash(r, 0);
	do_create(r, 1, "/beta");
	do_write(r, 1, "/beta", 0, 50000);
	do_fsync(r, 1, "/beta", false);
	do_sleep(r, 9000);
	do_write(r, 1, "/beta", 50000, 300000);
	do_sync(r, 1);
}

/* Power fails, and again while what was lost is mended. */
static void twice(struct recording *r)
{
	do_attach(r, 0);
	make_fragmented(r, 16);
	do_hold(r, 0, "/y");
	do_create(r, 0, "/n");
	do_unlink(r, 0, "/y");
	do_truncate(r, 0, "/x", 77777);
	do_write(r, 0, "/n", 0, 300000);
	do_fsync(r, 0, "/n", false);
	do_write(r, 0, "/n", 0, 10000);
	cut_from_here(r);
	do_power_cut(r);
	do_attach(r, 1);
	do_sleep(r, 9000);
	do_create(r, 1, "/m");
	do_write(r, 1, "/m", 0, 700000);
	do_sync(r, 1);
	do_power_cut(r);
	do_attach(r, 0);
	do_attach(r, 1);
	do_unlink(r, 1, "/m");
	do_sleep(r, 9000);
}

/* A file open when its name goes, and writes of several transactions. */
static void held(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/h");
	do_write(r, 0, "/h", 0, 2500000);
	do_fsync(r, 0, "/h", false);
	do_hold(r, 0, "/h");
	do_unlink(r, 0, "/h");
	do_create(r, 0, "/h");
	do_write(r, 0, "/h", 100, 1500000);
	do_sync(r, 0);
	do_drop(r, 0);
	do_sleep(r, 900);
	do_write(r, 0, "/h", 1400000, 1500000);
	do_sync(r, 0);
}

/* Each host writes its blocks of one file; then one host has it alone again. */
static void multi(struct recording *r)
{
	do_attach(r, 0);
	do_attach(r, 1);
	do_create(r, 0, "/m");
	do_write(r, 0, "/m", 0, 64 * KIB);
	do_mark(r, 0, "/m", true);
	do_sync(r, 0);
	for (unsigned int i = 0; i < 8; i++) {
		do_write(r, i % 2, "/m", i * 8192, 4096);
		if (i == 3)
			do_fsync(r, 0, "/m", true);
		if (i == 6)
			do_fsync(r, 1, "/m", false);
	}
	do_write(r, 1, "/m", 32 * KIB, 16 * KIB);
	do_fsync(r, 1, "/m", true);
	do_sleep(r, 600);
	do_mark(r, 1, "/m", false);
	do_write(r, 1, "/m", 100, 70000);
}

/* Space in one group, and then in the next. */
static void groups(struct recording *r)
{
	uint64_t filler = 1016 * MIB;

	do_attach(r, 0);
	do_create(r, 0, "/filler");
	while (filler && do_allocate(r, 0, "/filler", FILE_KEEP_SIZE, 0, filler))
		filler -= MIB;
	do_sync(r, 0);
	do_attach(r, 1);
	cut_from_here(r);
	do_mkdir(r, 0, "/d");
	do_create(r, 0, "/d/a");
	do_write(r, 0, "/d/a", 0, 12 * UNIT_SIZE);
	do_fsync(r, 0, "/d/a", false);
	do_create(r, 1, "/d/b");
	do_write(r, 1, "/d/b", 0, 3 * UNIT_SIZE + 5000);
	do_rename(r, 1, "/d/b", "/b", 0);
	do_fsync(r, 1, "/b", false);
	do_punch(r, 0, "/d/a", UNIT_SIZE, 9 * UNIT_SIZE);
	do_write(r, 1, "/b", 2 * UNIT_SIZE, 6 * UNIT_SIZE);
	do_unlink(r, 0, "/d/a");
	do_truncate(r, 1, "/b", 3000);
	do_sync(r, 1);
	do_sleep(r, 700);
	do_write(r, 1, "/b", 9000, 2 * UNIT_SIZE);
	do_sync(r, 0);
}

/* A copy of a volume becomes one of its own. */
static void resignature(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/f");
	do_write(r, 0, "/f", 0, 9000);
	do_detach(r, 0);
	do_attach(r, 1);
	do_write(r, 1, "/f", 4096, 9000);
	do_sync(r, 1);
}

/* Snapshots, clones on the other host, back to one, deleted ones merged. */
static void images(struct recording *r)
{
	do_attach(r, 0);
	do_attach(r, 1);
	do_create(r, 0, "/disk");
	do_write(r, 0, "/disk", 0, 3 * UNIT_SIZE);
	do_snapshot(r, 0, "/disk", "/s1");
	do_write(r, 0, "/disk", 5000, 3000);
	do_write(r, 0, "/disk", UNIT_SIZE, 8192);
	do_clone(r, 1, "/s1", "/clone");
	do_write(r, 1, "/clone", UNIT_SIZE - 3000, 9000);
	do_fsync(r, 1, "/clone", false);
	do_punch(r, 0, "/disk", 2 * UNIT_SIZE, UNIT_SIZE);
	do_snapshot(r, 0, "/disk", "/s2");
	do_write(r, 0, "/disk", 3 * UNIT_SIZE - 6000, 9000);
	do_truncate(r, 0, "/disk", 2 * UNIT_SIZE + 7000);
	do_fsync(r, 0, "/disk", true);
	do_revert(r, 1, "/s2", "/clone");
	do_write(r, 1, "/clone", 100, 50);
	do_sync(r, 1);
	do_unlink(r, 0, "/s2");
	do_revert(r, 0, "/s1", "/disk");
	do_write(r, 0, "/disk", 40000, 5000);
	do_sleep(r, 1200);
	do_unlink(r, 1, "/clone");
	do_sync(r, 1);
	do_sync(r, 0);
}

/* What a deleted snapshot holds moves into the image on top, unit by unit. */
static void merge(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/disk");
	do_write(r, 0, "/disk", 0, 4 * UNIT_SIZE);
	do_snapshot(r, 0, "/disk", "/s1");
	do_write(r, 0, "/disk", 5000, 30000);
	do_write(r, 0, "/disk", UNIT_SIZE, UNIT_SIZE - 8192);
	do_snapshot(r, 0, "/disk", "/s2");
	do_punch(r, 0, "/disk", 2 * UNIT_SIZE, UNIT_SIZE);
	do_write(r, 0, "/disk", 100000, 3000);
	do_sync(r, 0);
	cut_from_here(r);
	do_unlink(r, 0, "/s1");
	do_merge(r, 0, "/disk", 1);
	do_write(r, 0, "/disk", 150000, 5000);
	do_merge(r, 0, "/disk", 20);
	do_fsync(r, 0, "/disk", true);
	do_unlink(r, 0, "/s2");
	do_merge(r, 0, "/disk", 20);
	do_write(r, 0, "/disk", 3 * UNIT_SIZE, 3000);
	do_sync(r, 0);
}

/* First writes and overwrites of a thin disk, whole blocks and sectors, with and without flushes. */
static void disk_thin(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/d");
	do_truncate(r, 0, "/d", 3 * MIB);
	do_sync(r, 0);
	cut_from_here(r);
	do_disk_open(r, 0, "/d");
	do_disk_write(r, 0, "/d", 0, 16384, 0);
	do_disk_write(r, 0, "/d", 256 * KIB - 8192, 16384, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_write(r, 0, "/d", 4096, 8192, 0);
	do_disk_write(r, 0, "/d", 1 * MIB + 4096, 4096, 0);
	do_disk_write(r, 0, "/d", 1 * MIB + 4096, 4096, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_write(r, 0, "/d", 2 * MIB + r->w->sector, r->w->sector, 0);
	do_disk_write(r, 0, "/d", 2 * MIB - r->w->sector, 2 * r->w->sector, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_write(r, 0, "/d", 512 * KIB, 4096, BLK_FUA);
	do_disk_write(r, 0, "/d", 512 * KIB, 4096, BLK_FUA);
	do_disk_write(r, 0, "/d", 600 * KIB, 300 * KIB, 0);
	do_disk_close(r, 0);
}

/* What was discarded or zeroed does not come back once a flush has covered it; written again. */
static void disk_discard(struct recording *r)
{
	do_attach(r, 0);
	do_create(r, 0, "/d");
	do_truncate(r, 0, "/d", 2 * MIB);
	do_disk_open(r, 0, "/d");
	do_disk_write(r, 0, "/d", 0, 1 * MIB, 0);
	do_disk_flush(r, 0, "/d");
	cut_from_here(r);
	do_disk_discard(r, 0, "/d", 256 * KIB, 256 * KIB);
	do_disk_write(r, 0, "/d", 260 * KIB, 8192, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_zero(r, 0, "/d", 500 * KIB, 40 * KIB);
	do_disk_write(r, 0, "/d", 504 * KIB, 4096, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_write(r, 0, "/d", 1 * MIB, 64 * KIB, 0);
	do_disk_discard(r, 0, "/d", 0, 2 * MIB);
	do_disk_write(r, 0, "/d", 16 * KIB, 4096, 0);
	do_disk_flush(r, 0, "/d");
	do_disk_close(r, 0);
}

/* A full volume grows within its last group, then by further ones, and uses both at once. */
static void grow(struct recording *r)
{
	uint64_t filler = 63 * MIB;

	do_attach(r, 0);
	do_create(r, 0, "/filler");
	while (filler && do_allocate(r, 0, "/filler", FILE_KEEP_SIZE, 0, filler))
		filler -= UNIT_SIZE;
	do_sync(r, 0);
	cut_from_here(r);
	do_grow(r, 0, 100 * MIB);
	do_create(r, 0, "/a");
	do_write(r, 0, "/a", 0, 4 * UNIT_SIZE);
	do_sync(r, 0);
	do_attach(r, 1);
	do_create(r, 1, "/b");
	do_grow(r, 1, 0);
	do_write(r, 1, "/b", 5000, 2 * UNIT_SIZE);
	do_allocate(r, 0, "/a", 0, 0, 1010 * MIB);
	do_write(r, 0, "/a", 1009 * MIB, UNIT_SIZE);
	do_sync(r, 0);
	do_sync(r, 1);
}

#define ON_ARG(name, script, sector, arg) \
	{ name, script, 64 * MIB, sector, 512 * KIB, 2, false, arg, false, 0 }
#define ON(name, script, sector)	ON_ARG(name, script, sector, 0)

const struct workload workloads[] = {
	{ "mkfs", make_volume, 64 * MIB, 512, 512 * KIB, 2, true, 0, false, 0 },
	ON("create", create, 512),
	ON("write_thin", write_thin, 512),
	ON("write_thin_4096", write_thin, 4096),
	ON("overwrite", overwrite, 512),
	ON("rename_over", rename_over, 512),
	ON("unlink_large", unlink_large, 512),
	ON("held", held, 512),
	ON("truncate", truncate_file, 512),
	ON("punch", punch, 512),
	ON("directory", directory, 512),
	ON("xattrs", xattrs, 512),
	ON("journal_wrap", journal_wrap, 512),
	ON("two_threads", two_threads, 512),
	ON("chains", chains, 512),
	ON("two_hosts", two_hosts, 512),
	ON("takeover", takeover, 512),
	ON_ARG("crash_busy", crash_busy, 512, 1),
	ON_ARG("crash_busy_later", crash_busy, 512, 3),
	ON("twice", twice, 512),
	ON("twice_4096", twice, 4096),
	ON("join_leave", join_leave, 512),
	ON("full", full, 512),
	ON("reuse", reuse, 512),
	ON("multi", multi, 512),
	ON("multi_4096", multi, 4096),
	{ "groups", groups, 2304 * MIB, 512, 512 * KIB, 2, false, 0, false, 0 },
	{ "resignature", resignature, 64 * MIB, 512, 512 * KIB, 2, false, 0, true, 0 },
	ON("images", images, 512),
	ON("merge", merge, 512),
	ON("disk_thin", disk_thin, 512),
	ON("disk_thin_4096", disk_thin, 4096),
	ON("disk_discard", disk_discard, 512),
	{ "grow", grow, 1300 * MIB, 512, 512 * KIB, 3, false, 0, false, 64 * MIB },
};
const size_t workload_count = ARRAY_SIZE(workloads);
