// SPDX-License-Identifier: Apache-2.0
/*
 * A virtual disk on a device of which one command fails, whichever: under writes, flushes, discards,
 * zeroes, a snapshot, a merge, growth.  An error reaches who asked, or the disk gets over it; what was
 * answered is there, or, if the host had to give itself up, what was flushed; and the disk goes on.
 */
#include <stdio.h>

#include "fs/image.h"
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(128 * MIB)
#define DISK	(2 * MIB)
#define GROWN	(3 * MIB)
#define BLOCKS	(GROWN / 4096)

struct world {
	struct cluster	*c;
	struct disk_rig	rig;
	/* What each block may be full of, a bit for each value: now, and after its host is lost. */
	uint8_t		now[BLOCKS], durable[BLOCKS];
	uint8_t		*buf;
	uint64_t	hits, errors;	/* of the rule; told to who asked */
};

/* ---- requests ---- */

static void wrote(struct world *w, uint64_t block, unsigned int count, unsigned int value, int err)
{
	w->errors += err != 0;
	for (uint64_t b = block; b < block + count; b++) {
		w->now[b] = (uint8_t)(1u << value | (err ? w->now[b] : 0));
		w->durable[b] |= (uint8_t)(1u << value);
	}
}

static void write_blocks(struct world *w, uint64_t block, unsigned int count, unsigned int value)
{
	memset(w->buf, (int)value, (size_t)count * 4096);
	wrote(w, block, count, value,
	      blkdev_write(w->rig.dev, block * 4096, w->buf, (size_t)count * 4096));
}

static void clear_blocks(struct world *w, uint64_t block, unsigned int count, bool discard)
{
	uint64_t off = block * 4096, len = (uint64_t)count * 4096;

	wrote(w, block, count, 0, discard ? blkdev_discard(w->rig.dev, off, len) :
					    blkdev_zero(w->rig.dev, off, len));
}

static int flush(struct world *w)
{
	int err = blkdev_flush(w->rig.dev);

	w->errors += err != 0;
	if (!err)
		memcpy(w->durable, w->now, sizeof(w->durable));
	return err;
}

static void check_blocks(struct world *w, const uint8_t *allowed, uint64_t count, bool may_fail)
{
	for (uint64_t b = 0; b < count; b += 64) {
		int err = blkdev_read(w->rig.dev, b * 4096, w->buf, 64 * 4096);

		if (err)
			w->errors++;
		if (!may_fail)
			CU_ASSERT_EQUAL(err, 0);
		if (err)
			continue;
		for (uint64_t i = 0; i < 64; i++) {
			const uint8_t *p = w->buf + i * 4096;

			if (p[0] > 7 || p[0] != p[4095] || !(allowed[b + i] >> p[0] & 1)) {
				fprintf(stderr, "  block %u shows %u, may be 0x%02x\n",
					(unsigned int)(b + i), p[0], allowed[b + i]);
				CU_FAIL("a block shows what it may not");
				return;
			}
		}
	}
}

/* ---- what is done ---- */

static bool snapshot(struct world *w)
{
	struct fs_attr attr;
	uint64_t pause_ns;
	int err = disk_snapshot(w->rig.disk, fs_root(w->c->fs), "disk", "snap", &attr, &pause_ns);

	w->errors += err != 0;
	return !err;
}

static void merge(struct world *w)
{
	struct merge m = { 0 };
	int more = 1;

	w->errors += fs_unlink(w->c->fs, fs_root(w->c->fs), "snap") != 0;
	for (unsigned int i = 0; i < 40 && more > 0; i++)
		more = disk_merge_step(w->rig.disk, &m);
	w->errors += more < 0;
}

static void everything(struct world *w)
{
	write_blocks(w, 0, 40, 1);
	write_blocks(w, 100, 30, 2);
	check_blocks(w, w->now, DISK / 4096, true);
	flush(w);
	write_blocks(w, 10, 4, 3);
	clear_blocks(w, 20, 64, true);
	clear_blocks(w, 5, 3, false);
	write_blocks(w, 22, 2, 4);
	flush(w);
	/* In so many pieces that a worker has to do it. */
	for (unsigned int i = 0; i < 80; i += 2)
		write_blocks(w, 256 + i, 1, 3);
	check_blocks(w, w->now, DISK / 4096, true);
	if (snapshot(w)) {
		write_blocks(w, 0, 3, 5);
		write_blocks(w, 270, 70, 6);
		flush(w);
		merge(w);
		check_blocks(w, w->now, DISK / 4096, true);
	}
	w->errors += disk_grow(w->rig.disk, GROWN) != 0;
	if (w->rig.dev->info.size == GROWN)
		write_blocks(w, DISK / 4096, 64, 2);
	flush(w);
}

/* ---- one command fails ---- */

static void struck(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	struct world *w = arg;

	(void)rule;
	(void)op;
	w->hits++;
}

static uint64_t id_of_disk(struct world *w)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL_FATAL(fs_lookup(w->c->fs, fs_root(w->c->fs), "disk", &attr), 0);
	return attr.id;
}

static void begin(struct world *w)
{
	struct fs_attr attr = { 0 };

	cluster_alone(w->c);
	CU_ASSERT_EQUAL_FATAL(fs_create(w->c->fs, fs_root(w->c->fs), "disk", S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(w->c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(fs_sync(w->c->fs), 0);
	memset(w->now, 1, sizeof(w->now));	/* zeros */
	memset(w->durable, 1, sizeof(w->durable));
	w->hits = w->errors = 0;
	w->rig = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w->rig, w->c->hosts[0].env, w->c->fs, attr.id), 0);
}

/* The device works again.  Either the host has given itself up, and comes back; or nothing is lost. */
static void end(struct world *w)
{
	const uint8_t *allowed = w->now;
	int err;

	/* What it was that failed may show later: a block on its way home, a beat. */
	err = blkdev_flush(w->rig.dev);
	cluster_sleep(w->c, 8000);
	if (!fs_is_lost(w->c->fs))
		CU_ASSERT_EQUAL(err, 0);
	if (fs_is_lost(w->c->fs)) {
		/* Whoever goes on hears of it. */
		CU_ASSERT_NOT_EQUAL(blkdev_write(w->rig.dev, 0, w->buf, 4096), 0);
		CU_ASSERT_NOT_EQUAL(blkdev_read(w->rig.dev, 0, w->buf, 4096), 0);
		disk_rig_close(&w->rig);
		cluster_detach(w->c, 0);
		cluster_alone(w->c);
		w->rig = (struct disk_rig){ .resume = NULL };
		CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w->rig, w->c->hosts[0].env, w->c->fs,
						    id_of_disk(w)), 0);
		allowed = w->durable;
	}
	check_blocks(w, allowed, w->rig.dev->info.size / 4096, false);
	w->errors = 0;
	write_blocks(w, 0, 64, 7);
	write_blocks(w, 300, 64, 7);
	CU_ASSERT_EQUAL(flush(w), 0);
	CU_ASSERT_EQUAL(w->errors, 0);
	check_blocks(w, allowed == w->now ? w->now : w->durable, 64, false);
	err = disk_rig_close(&w->rig);
	CU_ASSERT_EQUAL(err, 0);
	fs_unlink(w->c->fs, fs_root(w->c->fs), "snap");
	CU_ASSERT_EQUAL(fs_unlink(w->c->fs, fs_root(w->c->fs), "disk"), 0);
	CU_ASSERT_EQUAL(cluster_detach(w->c, 0), 0);
	cluster_check(w->c);
}

static enum simdisk_fault fault;
static unsigned int ops;

static void each_body(struct cluster *c)
{
	struct world *w = calloc(1, sizeof(*w));
	unsigned int skip = 0, told = 0, lost = 0;
	bool any = true;

	w->c = c;
	w->buf = blkdev_alloc(512 * KIB);
	for (; any && !CU_get_number_of_failures(); skip++) {
		struct simdisk_rule rule = { .fault = fault, .ops = ops, .count = 1, .skip = skip,
					     .struck = struck, .arg = w };

		begin(w);
		rule.host = c->hosts[0].env;
		simdisk_inject(c->disk, &rule);
		everything(w);
		any = w->hits;
		if (!any)
			CU_ASSERT_EQUAL(w->errors, 0);
		told += w->errors != 0;
		lost += fs_is_lost(c->fs);
		simdisk_clear_rules(c->disk);
		end(w);
	}
	if (CU_get_number_of_failures())
		fprintf(stderr, "  failed at command %u\n", skip - 1);
	CU_ASSERT(skip > 5 && told > 0);
	if (getenv("LUNFS_TEST_VERBOSE"))
		fprintf(stderr, "  %u commands failed, %u told, %u lost the host\n", skip - 1, told, lost);
	cluster_alone(c);
	free(w->buf);
	free(w);
}

static void each(enum simdisk_fault f, unsigned int which, uint64_t seed)
{
	fault = f;
	ops = which;
	cluster_run(seed, VOLUME, each_body);
}

static void a_read_that_fails_is_told_and_loses_nothing(void)
{
	each(SIMDISK_FAIL, 1u << BLK_READ, 1);
}

static void a_write_that_fails_is_told_and_loses_nothing(void)
{
	each(SIMDISK_FAIL, 1u << BLK_WRITE, 2);
}

static void a_write_that_fails_but_was_done_is_told_and_loses_nothing(void)
{
	each(SIMDISK_FAIL_APPLIED, 1u << BLK_WRITE, 3);
}

/* Never tried again as if it could still succeed (R7). */
static void a_flush_that_fails_is_told(void)
{
	each(SIMDISK_FAIL, 1u << BLK_FLUSH, 4);
}

UNIT_MAIN("fs/disk_errors",
	UNIT_TEST(a_read_that_fails_is_told_and_loses_nothing),
	UNIT_TEST(a_write_that_fails_is_told_and_loses_nothing),
	UNIT_TEST(a_write_that_fails_but_was_done_is_told_and_loses_nothing),
	UNIT_TEST(a_flush_that_fails_is_told));
