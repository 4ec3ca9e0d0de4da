/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual disk shows what was written to it, many requests at a time, whatever its map does
 * meanwhile: first writes, discards, snapshots, merges, growth, closing and opening.
 */
#include "fs/disk.h"

#include <stdio.h>

#include "tests/fs/disk_world.h"

#define LANES		8u	/* threads, each with a part of the disk that only it writes */
#define LANE		(DISK / LANES)
#define STEPS		40u	/* of each */

static unsigned int running;	/* of them */

struct lane {
	struct world	*w;
	unsigned int	index;
};

/* ---- one request ---- */

/* In two or three buffers, as guests have them. */
static int transfer(struct world *w, enum blk_op op, unsigned int flags, uint64_t off, uint8_t *buf,
		    uint64_t len)
{
	struct iovec iov[3];
	uint64_t a = ALIGN_DOWN(roll(w, len), SECTOR), b = ALIGN_DOWN(roll(w, len - a), SECTOR);
	int n = 0;

	if (a)
		iov[n++] = (struct iovec){ buf, a };
	if (b)
		iov[n++] = (struct iovec){ buf + a, b };
	iov[n++] = (struct iovec){ buf + a + b, len - a - b };
	return blkdev_rwv(w->rig.dev, op, flags, off, iov, n);
}

static void choose_range(struct lane *l, uint64_t *off, uint64_t *len)
{
	struct world *w = l->w;
	uint64_t at = roll(w, LANE), n = 1 + roll(w, roll(w, 4) ? 20000 : LANE);
	unsigned int align = roll(w, 3) ? 4096 : SECTOR;

	at = ALIGN_DOWN(at, align);
	n = ALIGN_UP(n, align);
	n = n < LANE - at ? n : LANE - at;
	*off = l->index * LANE + at;
	*len = n;
}

static void do_write(struct lane *l, uint8_t *buf)
{
	struct world *w = l->w;
	uint64_t off, len;
	uint8_t seed = (uint8_t)(1 + roll(w, 255));

	choose_range(l, &off, &len);
	for (uint64_t k = 0; k < len; k++)
		buf[k] = (uint8_t)(seed + (off + k) * 7 + ((off + k) >> 9));
	CU_ASSERT_EQUAL(transfer(w, BLK_WRITE, roll(w, 8) ? 0 : BLK_FUA, off, buf, len), 0);
	memcpy(w->model + off, buf, len);
}

static void do_read(struct lane *l, uint8_t *buf)
{
	struct world *w = l->w;
	uint64_t off, len, k;

	choose_range(l, &off, &len);
	memset(buf, 0x5a, len);
	CU_ASSERT_EQUAL(transfer(w, BLK_READ, 0, off, buf, len), 0);
	for (k = 0; k < len && buf[k] == w->model[off + k]; k++)
		;
	if (k == len)
		return;
	w->wrong++;
	fprintf(stderr, "  lane %u: byte %llu of [%llu, +%llu) is %u, expected %u\n", l->index,
		(unsigned long long)(off + k), (unsigned long long)off, (unsigned long long)len,
		buf[k], w->model[off + k]);
}

static void do_range(struct lane *l, bool discard)
{
	struct world *w = l->w;
	uint64_t off, len;

	choose_range(l, &off, &len);
	if (discard) {
		/* Promises nothing of parts of blocks. */
		off = ALIGN_UP(off, 4096);
		len = ALIGN_DOWN(len, 4096);
		if (!len || off + len > (l->index + 1) * LANE)
			return;
		CU_ASSERT_EQUAL(blkdev_discard(w->rig.dev, off, len), 0);
	} else {
		CU_ASSERT_EQUAL(blkdev_zero(w->rig.dev, off, len), 0);
	}
	memset(w->model + off, 0, len);
}

static void lane_main(void *arg)
{
	struct lane *l = arg;
	struct world *w = l->w;
	uint8_t *buf = blkdev_alloc(LANE);

	for (unsigned int i = 0; i < STEPS; i++) {
		switch (roll(w, 12)) {
		case 0:
			do_range(l, true);
			break;
		case 1:
			do_range(l, false);
			break;
		case 2:
			CU_ASSERT_EQUAL(blkdev_flush(w->rig.dev), 0);
			break;
		case 3: case 4: case 5: case 6:
			do_read(l, buf);
			break;
		default:
			do_write(l, buf);
			break;
		}
	}
	free(buf);
	running--;
}

/* ---- what is done from outside ---- */

static unsigned int snapshots, oldest;

static void do_snapshot(struct world *w)
{
	struct fs_attr attr;
	uint64_t pause_ns;
	char name[16];

	snprintf(name, sizeof(name), "snap-%u", snapshots++);
	CU_ASSERT_EQUAL(disk_snapshot(w->rig.disk, fs_root(w->c->fs), "disk", name, &attr,
				      &pause_ns), 0);
	CU_ASSERT_EQUAL(attr.id, id_of_disk(w));
}

/* Deletes the oldest one that is left, and moves it into the next. */
static void do_merge(struct world *w)
{
	struct merge m = { 0 };
	char name[16];
	int err;

	if (oldest >= snapshots)
		oldest = 0;
	snprintf(name, sizeof(name), "snap-%u", oldest++);
	if (fs_unlink(w->c->fs, fs_root(w->c->fs), name))
		return;
	while ((err = disk_merge_step(w->rig.disk, &m)) > 0)
		;
	CU_ASSERT_EQUAL(err, 0);
}

static void do_reopen(struct world *w)
{
	CU_ASSERT_EQUAL(disk_rig_close(&w->rig), 0);
	CU_ASSERT_EQUAL(disk_rig_open(&w->rig, w->c->hosts[0].env, w->c->fs, id_of_disk(w)), 0);
}

static void run_lanes(struct world *w, bool meddle)
{
	struct lane lanes[LANES];
	struct env_thread *threads[LANES];

	running = LANES;
	for (unsigned int i = 0; i < LANES; i++) {
		lanes[i] = (struct lane){ w, i };
		CU_ASSERT_EQUAL(env_thread_start(w->c->hosts[0].env, "lane", lane_main, &lanes[i],
						 &threads[i]), 0);
	}
	while (running) {
		cluster_sleep(w->c, 1 + roll(w, 20));
		if (!meddle)
			continue;
		if (roll(w, 3) == 0)
			do_snapshot(w);
		else if (roll(w, 2) == 0)
			do_merge(w);
	}
	for (unsigned int i = 0; i < LANES; i++)
		env_thread_join(w->c->hosts[0].env, threads[i]);
}

/* ---- tests ---- */

static void random_body(struct cluster *c)
{
	struct world w;

	snapshots = oldest = 0;
	world_begin(&w, c, DISK);
	for (unsigned int round = 0; round < 3; round++) {
		run_lanes(&w, round);
		compare_all(&w);
		do_reopen(&w);
		compare_all(&w);
	}
	world_end(&w);
}

static unsigned int seeds(void)
{
	const char *count = getenv("LUNFS_SEEDS");

	return count ? (unsigned int)atoi(count) : 6;
}

static void a_disk_shows_what_was_written_to_it(void)
{
	for (uint64_t seed = 1; seed <= seeds() && !CU_get_number_of_failures(); seed++)
		cluster_run(seed, VOLUME, random_body);
}

static void sole_body(struct cluster *c)
{
	struct fs_attr attr = { .size = 8 * MIB };
	struct fs_file *f;
	struct world w;
	uint64_t id;

	world_begin(&w, c, DISK);
	id = id_of_disk(&w);
	CU_ASSERT_EQUAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), -EBUSY);
	CU_ASSERT_EQUAL(fs_open(c->fs, id, 0, &cluster_cred, &f, NULL), -EBUSY);
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), -EBUSY);
	CU_ASSERT_EQUAL(disk_grow(w.rig.disk, 1 * MIB), -EINVAL);
	CU_ASSERT_EQUAL(disk_grow(w.rig.disk, 6 * MIB), 0);
	CU_ASSERT_EQUAL(w.rig.dev->info.size, 6 * MIB);
	w.model = realloc(w.model, 6 * MIB);
	memset(w.model + DISK, 0, 2 * MIB);
	w.size = 6 * MIB;
	world_end(&w);
	/* And once it is shut others may have it. */
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
}

/* Two who change one map would each believe their own memory of it. */
static void an_open_disk_has_its_file_alone(void)
{
	cluster_run(7, VOLUME, sole_body);
}

static void not_open_body(struct cluster *c)
{
	uint8_t *buf = blkdev_alloc(4096);
	struct world w;

	world_begin(&w, c, DISK);
	CU_ASSERT_EQUAL(blkdev_write(w.rig.dev, 0, buf, 4096), 0);
	CU_ASSERT_EQUAL(disk_shut(w.rig.disk), 0);
	CU_ASSERT_EQUAL(blkdev_read(w.rig.dev, 0, buf, 4096), -ENOMEDIUM);
	CU_ASSERT_EQUAL(disk_open(w.rig.disk, NULL, NULL), 0);
	CU_ASSERT_EQUAL(blkdev_read(w.rig.dev, 0, buf, 4096), 0);
	free(buf);
	world_end(&w);
}

static void a_disk_that_is_not_open_answers_nothing(void)
{
	cluster_run(8, VOLUME, not_open_body);
}

static void write_file(struct fs *fs, uint64_t id, const uint8_t *data, size_t len)
{
	struct fs_file *f;
	size_t done;

	CU_ASSERT_EQUAL_FATAL(fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(fs, f, 0, data, len, false, &done), 0);
	CU_ASSERT_EQUAL(done, len);
	CU_ASSERT_EQUAL(fs_close(fs, f), 0);
}

static void small_parent_body(struct cluster *c)
{
	struct world w = { .c = c, .size = DISK, .model = calloc(1, DISK) };
	uint8_t *buf = blkdev_alloc(UNIT_SIZE);
	struct merge m = { 0 };
	struct fs_attr attr;
	uint64_t pause_ns;
	int err;

	cluster_alone(c);
	memset(buf, 0x33, UNIT_SIZE);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	/* Small when it is frozen: its first unit has 32 KiB. */
	write_file(c->fs, attr.id, buf, 20000);
	memcpy(w.model, buf, 20000);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), "disk", "snap-0", NULL, &attr), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, attr.id), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "snap-0"), 0);
	while ((err = disk_merge_step(w.rig.disk, &m)) > 0)
		;
	CU_ASSERT_EQUAL(err, 0);
	CU_ASSERT_TRUE(m.units_moved > 0);
	memset(buf, 0x44, UNIT_SIZE);
	CU_ASSERT_EQUAL(blkdev_write(w.rig.dev, UNIT_SIZE - 8192, buf, 8192), 0);
	memcpy(w.model + UNIT_SIZE - 8192, buf, 8192);
	free(buf);
	/* What it leaves is read again, and cluster_run() checks the volume. */
	CU_ASSERT_EQUAL(blkdev_flush(w.rig.dev), 0);
	CU_ASSERT_EQUAL(disk_snapshot(w.rig.disk, fs_root(c->fs), "disk", "snap-1", &attr, &pause_ns), 0);
	world_end(&w);
}

/*
 * A file's first unit is small while the file is.  One that came to a disk by a merge was written
 * to beyond its end: over whatever else lay there.
 */
static void a_small_first_unit_that_a_merge_brings_is_made_whole(void)
{
	cluster_run(12, VOLUME, small_parent_body);
}

static void lost_body(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE | 1u << BLK_FLUSH };
	uint8_t *buf = blkdev_alloc(4096);
	struct world w;

	world_begin(&w, c, DISK);
	memset(buf, 1, 4096);
	CU_ASSERT_EQUAL(blkdev_write(w.rig.dev, 8192, buf, 4096), 0);
	rule.host = c->hosts[0].env;
	simdisk_inject(c->disk, &rule);
	CU_ASSERT_NOT_EQUAL(blkdev_discard(w.rig.dev, 4096, 4096), 0);
	CU_ASSERT_NOT_EQUAL(blkdev_zero(w.rig.dev, 0, 64 * KIB), 0);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_NOT_EQUAL(disk_rig_close(&w.rig), 0);
	CU_ASSERT_NOT_EQUAL(cluster_detach(c, 0), 0);
	free(buf);
	free(w.model);
}

/* The map cannot be told of first writes any more: an error, and no end of the process. */
static void a_discard_of_a_host_that_is_lost_fails(void)
{
	cluster_run(13, VOLUME, lost_body);
}

static void unreadable_map_body(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ };
	const uint64_t off = 140 * MIB;		/* behind what an inode's own map reaches */
	struct fs_attr attr = { .size = 150 * MIB };
	uint8_t *buf = blkdev_alloc(4096);
	struct disk_rig rig = { 0 };
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	id = attr.id;
	attr.size = 150 * MIB;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&rig, c->hosts[0].env, c->fs, id), 0);
	memset(buf, 7, 4096);
	CU_ASSERT_EQUAL(blkdev_write(rig.dev, off, buf, 4096), 0);
	CU_ASSERT_EQUAL(disk_rig_close(&rig), 0);
	/* So that nothing of the map is in memory. */
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&rig, c->hosts[0].env, c->fs, id), 0);
	rule.host = c->hosts[0].env;
	rule.off = c->fs->super.ag_addr;
	rule.len = c->fs->super.size - rule.off;
	simdisk_inject(c->disk, &rule);
	CU_ASSERT_EQUAL(blkdev_read(rig.dev, off, buf, 4096), -EIO);
	simdisk_clear_rules(c->disk);
	buf[0] = 0;
	CU_ASSERT_EQUAL(blkdev_read(rig.dev, off, buf, 4096), 0);
	CU_ASSERT_EQUAL(buf[0], 7);
	CU_ASSERT_EQUAL(disk_rig_close(&rig), 0);
	free(buf);
}

/* It was tried again at once, for ever, by a reactor that did nothing else any more. */
static void a_map_that_cannot_be_read_is_an_error(void)
{
	cluster_run(14, VOLUME, unreadable_map_body);
}

/* ---- the lease ---- */

struct hole_read {
	struct world	*w;
	struct fs_file	*file;	/* NULL: the disk is read */
	uint8_t		*buf;
	size_t		done;
	int		err;
	bool		answered;
};

static void hole_read_main(void *arg)
{
	struct hole_read *h = arg;

	if (h->file)
		h->err = fs_read(h->w->c->fs, h->file, 0, h->buf, 4096, &h->done);
	else
		h->err = blkdev_read(h->w->rig.dev, 0, h->buf, 4096);
	h->answered = true;
}

static void lapsed_body(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_HOLD, .ops = ~0u, .delay_ns = 9 * NSEC_PER_SEC };
	struct hole_read reads[2] = { 0 };
	struct env_thread *threads[2];
	struct lockd_status st;
	struct fs_attr attr;
	struct world w;

	world_begin(&w, c, DISK);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "f", S_IFREG | 0600, 0, &cluster_cred, &attr), 0);
	attr.size = MIB;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, 0, &cluster_cred, &reads[1].file, NULL), 0);
	for (unsigned int i = 0; i < 2; i++) {
		reads[i].w = &w;
		reads[i].buf = blkdev_alloc(4096);
		hole_read_main(&reads[i]);	/* the map is known from now on */
		CU_ASSERT(reads[i].answered && !reads[i].err);
		memset(reads[i].buf, 1, 4096);
		reads[i].answered = false;
	}
	rule.host = c->hosts[0].env;
	simdisk_inject(c->disk, &rule);
	cluster_sleep(c, 7000);
	lockd_status(c->fs->lockd, &st);
	CU_ASSERT(!st.lease_valid && !st.lost);
	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "hole", hole_read_main, &reads[i],
						 &threads[i]), 0);
	cluster_sleep(c, 1000);
	CU_ASSERT(!reads[0].answered && !reads[1].answered);
	simdisk_clear_rules(c->disk);
	for (unsigned int i = 0; i < 2; i++) {
		env_thread_join(c->hosts[0].env, threads[i]);
		CU_ASSERT(reads[i].answered && !reads[i].err && !reads[i].buf[0] && !reads[i].buf[4095]);
		free(reads[i].buf);
	}
	CU_ASSERT_EQUAL(fs_close(c->fs, reads[1].file), 0);
	world_end(&w);
}

/* R2: another host may have taken over and written there; nobody here knows yet. */
static void zeros_are_not_answered_without_a_lease(void)
{
	cluster_run(17, VOLUME, lapsed_body);
}

/* ---- what a lookup of the map brings ---- */

static void fragmented_body(struct cluster *c)
{
	uint8_t *buf = blkdev_alloc(4096);
	struct world w;
	uint64_t id;

	world_begin(&w, c, 2 * DISK);
	/*
	 * Every other block: 64 runs a unit, so that there is no room for all of unit 17; it begins as
	 * unit 16 ends, with space that the image has and nothing in it.
	 */
	for (uint64_t block = 0; block < 17 * UNIT_BLOCKS; block += 2)
		if (block < 8 || block >= 2 * UNIT_BLOCKS)
			write_block(&w, block * BLOCK_SIZE, 0x11);
	for (uint64_t i = 3; i < UNIT_BLOCKS; i += 2)
		write_block(&w, 17 * UNIT_SIZE + i * BLOCK_SIZE, 0x22);
	id = id_of_disk(&w);
	CU_ASSERT_EQUAL(disk_rig_close(&w.rig), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, id), 0);
	/* Not in the map yet when the next lookup comes from before it. */
	write_block(&w, 17 * UNIT_SIZE + 1 * BLOCK_SIZE, 0x33);
	CU_ASSERT_EQUAL(blkdev_read(w.rig.dev, 0, buf, 4096), 0);
	/* Alone: what is in many pieces a worker reads, by the map. */
	CU_ASSERT_EQUAL(blkdev_read(w.rig.dev, 17 * UNIT_SIZE + 1 * BLOCK_SIZE, buf, 4096), 0);
	CU_ASSERT_EQUAL(buf[0], 0x33);
	free(buf);
	compare_all(&w);
	world_end(&w);
}

/* The unit that a lookup has no more room for is not half known by it. */
static void a_lookup_says_nothing_of_what_it_has_no_room_for(void)
{
	cluster_run(21, VOLUME, fragmented_body);
}

UNIT_MAIN("fs/disk",
	UNIT_TEST(a_lookup_says_nothing_of_what_it_has_no_room_for),
	UNIT_TEST(a_map_that_cannot_be_read_is_an_error),
	UNIT_TEST(a_small_first_unit_that_a_merge_brings_is_made_whole),
	UNIT_TEST(a_discard_of_a_host_that_is_lost_fails),
	UNIT_TEST(zeros_are_not_answered_without_a_lease),
	UNIT_TEST(a_disk_shows_what_was_written_to_it),
	UNIT_TEST(an_open_disk_has_its_file_alone),
	UNIT_TEST(a_disk_that_is_not_open_answers_nothing));
