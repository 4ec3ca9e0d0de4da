/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual disk on a host that runs out of memory: a request fails or succeeds, it never hangs,
 * what was answered as written is there, and once there is memory everything works again.
 */
#include <stdio.h>

#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"
#include "tests/nomem/each.h"

#define SIZE	(64 * MIB)
#define DISK	(2 * MIB)
#define BLOCKS	(DISK / 4096)

struct script {
	uint64_t n, count, hits;
	struct disk_rig rig;
	uint8_t	shown[BLOCKS];		/* what each block is full of; MAYBE: a write of it failed */
	bool	maybe[BLOCKS];
	uint8_t	*buf;
};

static struct script *now;

/* ---- requests, which may fail ---- */

static void write_blocks(struct script *s, uint64_t block, unsigned int count, uint8_t what)
{
	int err;

	memset(s->buf, what, count * 4096);
	err = blkdev_write(s->rig.dev, block * 4096, s->buf, count * 4096);
	CU_ASSERT_TRUE(!err || err == -ENOMEM);
	for (unsigned int i = 0; i < count; i++) {
		s->maybe[block + i] = err;
		s->shown[block + i] = what;
	}
}

static void write_sector(struct script *s, uint64_t block)
{
	int err;

	memset(s->buf, 0, 512);
	err = blkdev_write(s->rig.dev, block * 4096 + 512, s->buf, 512);
	CU_ASSERT_TRUE(!err || err == -ENOMEM);
}

static void clear_blocks(struct script *s, uint64_t block, unsigned int count, bool discard)
{
	int err = discard ? blkdev_discard(s->rig.dev, block * 4096, count * 4096) :
			    blkdev_zero(s->rig.dev, block * 4096, count * 4096);

	CU_ASSERT_TRUE(!err || err == -ENOMEM);
	for (unsigned int i = 0; i < count; i++) {
		s->maybe[block + i] = err;
		s->shown[block + i] = 0;
	}
}

static void read_and_check(struct script *s, uint64_t block, unsigned int count)
{
	int err = blkdev_read(s->rig.dev, block * 4096, s->buf, count * 4096);

	CU_ASSERT_TRUE(!err || err == -ENOMEM);
	for (unsigned int i = 0; i < count && !err; i++)
		if (!s->maybe[block + i])
			CU_ASSERT_EQUAL(s->buf[i * 4096 + 4095], s->shown[block + i]);
}

static void requests(struct script *s)
{
	int err;

	write_blocks(s, 0, 40, 1);
	write_blocks(s, 100, 3, 2);
	write_sector(s, 200);
	read_and_check(s, 0, 120);
	err = blkdev_flush(s->rig.dev);
	CU_ASSERT_TRUE(!err || err == -ENOMEM);
	clear_blocks(s, 64, 64, true);
	clear_blocks(s, 5, 3, false);
	/* In so many pieces that a worker has to do it. */
	for (unsigned int i = 0; i < 80; i += 2)
		write_blocks(s, 256 + i, 1, 3);
	read_and_check(s, 256, 80);
}

/* ---- the disk as a whole ---- */

static int make_workers(struct script *s, struct cluster *c)
{
	int err = workers_create(c->hosts[0].env, "disk", 2, &s->rig.workers);

	s->rig.params.workers = s->rig.workers;
	return err;
}

static int open_disk(struct script *s)
{
	int err = disk_new(&s->rig.params, &s->rig.disk);

	if (err)
		return err;
	err = disk_open(s->rig.disk, NULL, NULL);
	if (err) {
		disk_free(s->rig.disk);
		s->rig.disk = NULL;
		return err;
	}
	s->rig.dev = disk_blkdev(s->rig.disk);
	return 0;
}

static void snapshot(struct script *s, struct cluster *c)
{
	struct fs_attr attr;
	uint64_t pause_ns;
	int err = disk_snapshot(s->rig.disk, fs_root(c->fs), "disk", "snap", &attr, &pause_ns);

	CU_ASSERT_TRUE(!err || err == -ENOMEM);
}

static void body(struct cluster *c)
{
	struct script *s = now;
	struct fs_attr attr;
	int err;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	s->buf = aligned_alloc(4096, DISK);
	sim_owner_start(&s->rig.owner, c->hosts[0].env);
	s->rig.params = (struct disk_params){
		.fs = c->fs, .id = attr.id, .name = "ds1:/disk", .owner = &s->rig.owner.owner,
		.lower = c->fs->dev,
	};
	nomem_arm(s->n, s->count);
	err = make_workers(s, c);
	if (!err)
		err = open_disk(s);
	CU_ASSERT_TRUE(!err || err == -ENOMEM);
	if (!err) {
		requests(s);
		snapshot(s, c);
		requests(s);
		disk_shut(s->rig.disk);
		err = disk_open(s->rig.disk, NULL, NULL);
		CU_ASSERT_TRUE(!err || err == -ENOMEM);
	}
	s->hits = nomem_disarm();
	/* There is memory again. */
	if (!s->rig.workers)
		CU_ASSERT_EQUAL_FATAL(make_workers(s, c), 0);
	if (!s->rig.disk)
		CU_ASSERT_EQUAL_FATAL(open_disk(s), 0);
	CU_ASSERT_EQUAL(disk_open(s->rig.disk, NULL, NULL), 0);
	read_and_check(s, 0, BLOCKS);
	requests(s);
	read_and_check(s, 0, BLOCKS);
	CU_ASSERT_EQUAL(disk_rig_close(&s->rig), 0);
	free(s->buf);
}

static uint64_t run_script(void *arg, uint64_t n, uint64_t count)
{
	struct script *s = calloc(1, sizeof(*s));
	uint64_t hits;

	(void)arg;
	s->n = n;
	s->count = count;
	now = s;
	cluster_run(5, SIZE, body);
	hits = s->hits;
	free(s);
	return hits;
}

static void one_allocation_of_a_disk_may_fail(void)
{
	static const struct each each = { .count = 1, .stride = 1, .run = run_script };

	each_allocation(&each);
	nomem_note("one of a disk's");
}

static void several_may_fail(void)
{
	static const struct each each = { .count = 5, .stride = 3, .run = run_script };

	each_allocation(&each);
	nomem_note("some of a disk's");
}

UNIT_MAIN("nomem disk",
	UNIT_TEST(one_allocation_of_a_disk_may_fail),
	UNIT_TEST(several_may_fail)
);
