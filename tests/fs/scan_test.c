/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes are found by the copies of their superblocks, and no file's contents pass for one. */
#include "fs/scan.h"

#include "tests/fs/volume.h"

#define SIZE	(64 * MIB)
#define FORGED_SIZE	(192 * MIB)	/* files on both sides of the copy in the middle */

static void zero_first_mib(struct volume *v)
{
	void *zeros = blkdev_alloc(MIB);

	memset(zeros, 0, MIB);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, 0, zeros, MIB), 0);
	free(zeros);
}

/* @s as if its copy for @addr lay at @pos. */
static void plant(struct volume *v, const struct super *s, uint64_t pos, uint64_t addr)
{
	struct super got;

	super_encode(s, addr, v->block);
	CU_ASSERT_EQUAL(super_decode(v->block, addr, &got, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, pos, v->block, BLOCK_SIZE), 0);
}

static void scan(struct volume *v, struct scan_result *r)
{
	struct scan_params p = { .dev = v->dev };

	CU_ASSERT_EQUAL_FATAL(scan_device(&p, r), 0);
}

static bool chooses(struct volume *v, const struct scan_result *r, const struct super *s)
{
	const struct scan_volume *got;

	return scan_choose(r, v->dev, &got, v->why, sizeof(v->why)) == 0 && got->start == 0 &&
	       memcmp(got->super.volume, s->volume, 16) == 0 && got->super.size == s->size &&
	       got->super.copy_addr == s->copy_addr && got->super.root == s->root;
}

static void wiped(struct volume *v)
{
	struct scan_result r;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	zero_first_mib(v);
	scan(v, &r);
	CU_ASSERT_EQUAL_FATAL(r.count, 1);
	CU_ASSERT_EQUAL(r.volumes[0].copies[SCAN_FIRST], SCAN_DAMAGED);
	CU_ASSERT_EQUAL(r.volumes[0].copies[SCAN_MIDDLE], SCAN_GOOD);
	CU_ASSERT_EQUAL(r.volumes[0].copies[SCAN_END], SCAN_GOOD);
	CU_ASSERT_EQUAL(r.volumes[0].groups_seen, r.volumes[0].groups_tried);
	CU_ASSERT_TRUE(chooses(v, &r, &v->s));
	scan_free(&r);
}

/* A wiped partition table takes the first copy with it; the others are all there is. */
static void volume_is_found_by_what_is_left(void)
{
	volume_run(1, SIZE, 512, wiped, 0);
	volume_run(2, SIZE, 4096, wiped, 0);
}

/*
 * What a guest may write who knows everything of the volume that its disk is in, and where its
 * disk lies.
 */
static void forge(struct volume *v, unsigned int how, uint64_t pos)
{
	struct super f = v->s;

	f.version += 1000;
	f.root = v->s.root + 64;
	switch (how) {
	case 0:		/* the last copy of a smaller volume that begins where this one does */
		f.size = pos + BLOCK_SIZE;
		f.copy_addr = super_copy_place(&f);
		plant(v, &f, pos, super_end_addr(&f));
		break;
	case 1:		/* the first copy of a volume that reaches to the end of the device, … */
		f.size = FORGED_SIZE - (pos - SUPER_ADDR);
		f.copy_addr = super_copy_place(&f);
		plant(v, &f, pos, SUPER_ADDR);
		break;
	case 2:		/* … or beyond it */
		f.size = 4 * FORGED_SIZE;
		f.copy_addr = super_copy_place(&f);
		plant(v, &f, pos, SUPER_ADDR);
		break;
	case 3:		/* the middle copy of this very volume */
		f.copy_addr = pos < super_copy_place(&f) ? pos : super_copy_place(&f) + MIB;
		plant(v, &f, f.copy_addr, f.copy_addr);
		break;
	default:	/* the same of another volume */
		memset(f.volume, 0x5a, 16);
		f.size = pos + BLOCK_SIZE;
		f.copy_addr = super_copy_place(&f);
		plant(v, &f, pos, super_end_addr(&f));
	}
}

static void forged(struct volume *v)
{
	static const uint64_t places[] = { 80 * MIB, 90 * MIB + BLOCK_SIZE, 120 * MIB };
	struct scan_result r;

	for (unsigned int how = 0; how < 5; how++) {
		CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
		if (v->arg)
			zero_first_mib(v);
		for (size_t i = 0; i < ARRAY_SIZE(places); i++)
			forge(v, how, places[i]);
		scan(v, &r);
		CU_ASSERT_TRUE(chooses(v, &r, &v->s));
		for (size_t i = 0; i < r.count; i++)
			CU_ASSERT_TRUE(r.volumes[i].inside || !r.volumes[i].sure ||
				       r.volumes[i].super.version == v->s.version);
		scan_free(&r);
	}
}

/* A nested host's disk holds superblocks; restoring one of them would give its disk to all. */
static void forged_copies_are_a_files_contents(void)
{
	volume_run(3, FORGED_SIZE, 512, forged, 0);
	volume_run(3, FORGED_SIZE, 512, forged, 1);
}

/* With only a copy in the middle left nobody can tell it from a forged one. */
static void doubtful(struct volume *v)
{
	const struct scan_volume *got;
	struct scan_result r;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	zero_first_mib(v);
	memset(v->block, 0, BLOCK_SIZE);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, super_end_addr(&v->s), v->block, BLOCK_SIZE), 0);
	scan(v, &r);
	CU_ASSERT_EQUAL_FATAL(r.count, 1);
	CU_ASSERT_FALSE(r.volumes[0].sure);
	CU_ASSERT_EQUAL(scan_choose(&r, v->dev, &got, v->why, sizeof(v->why)), -ENOENT);
	scan_free(&r);
}

static void copy_in_the_middle_alone_is_not_restored_from(void)
{
	volume_run(6, SIZE, 512, doubtful, 0);
}

/* A crash while the superblock was written leaves the last copy the newest: it is the one. */
static void newest(struct volume *v)
{
	struct scan_result r;
	struct super s;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	s = v->s;
	s.version++;
	plant(v, &s, super_end_addr(&s), super_end_addr(&s));
	scan(v, &r);
	CU_ASSERT_EQUAL_FATAL(r.count, 1);
	CU_ASSERT_EQUAL(r.volumes[0].super.version, s.version);
	CU_ASSERT_EQUAL(r.volumes[0].copies[SCAN_FIRST], SCAN_OLD);
	CU_ASSERT_EQUAL(r.volumes[0].copies[SCAN_END], SCAN_GOOD);
	scan_free(&r);
}

static void newest_copy_is_the_one(void)
{
	volume_run(7, SIZE, 512, newest, 0);
}

/* A whole volume in a file, in one piece: true in all its parts, and somebody's disk. */
static void nested(struct volume *v)
{
	struct scan_result r;
	struct super s;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	s = v->s;
	memset(s.volume, 0x77, 16);
	s.size = SIZE;
	s.copy_addr = super_copy_place(&s);
	zero_first_mib(v);
	for (enum scan_place i = 0; i < SCAN_PLACES; i++) {
		uint64_t addr = i == SCAN_FIRST ? SUPER_ADDR : i == SCAN_MIDDLE ? s.copy_addr :
				super_end_addr(&s);

		plant(v, &s, 70 * MIB + addr, addr);
	}
	scan(v, &r);
	CU_ASSERT_TRUE(chooses(v, &r, &v->s));
	CU_ASSERT_EQUAL_FATAL(r.count, 2);
	CU_ASSERT_TRUE(r.volumes[1].inside && r.volumes[1].outer == 0);
	scan_free(&r);
}

/* The partition began at some sector; the volume is found, but nothing is written there. */
static void shifted(struct volume *v)
{
	const uint64_t start = 63 * 512;
	const struct scan_volume *got;
	struct scan_result r;
	struct super s;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	s = v->s;
	memset(v->block, 0, BLOCK_SIZE);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, SUPER_ADDR, v->block, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, v->s.copy_addr, v->block, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(blkdev_write(v->dev, super_end_addr(&v->s), v->block, BLOCK_SIZE), 0);
	s.size = v->s.size - MIB;
	s.copy_addr = super_copy_place(&s);
	plant(v, &s, start + s.copy_addr, s.copy_addr);
	plant(v, &s, start + super_end_addr(&s), super_end_addr(&s));
	scan(v, &r);
	CU_ASSERT_EQUAL_FATAL(r.count, 1);
	CU_ASSERT_EQUAL(r.volumes[0].start, start);
	CU_ASSERT_TRUE(r.volumes[0].sure);
	CU_ASSERT_EQUAL(scan_choose(&r, v->dev, &got, v->why, sizeof(v->why)), -ENOENT);
	scan_free(&r);
}

static void whole_volume_in_a_file_is_told_apart(void)
{
	volume_run(4, 2 * SIZE + 64 * MIB, 512, nested, 0);
}

static void volume_of_a_lost_partition_is_found_at_any_sector(void)
{
	volume_run(5, 2 * SIZE, 512, shifted, 0);
}

UNIT_MAIN("fs/scan",
	  UNIT_TEST(volume_is_found_by_what_is_left),
	  UNIT_TEST(forged_copies_are_a_files_contents),
	  UNIT_TEST(copy_in_the_middle_alone_is_not_restored_from),
	  UNIT_TEST(newest_copy_is_the_one),
	  UNIT_TEST(whole_volume_in_a_file_is_told_apart),
	  UNIT_TEST(volume_of_a_lost_partition_is_found_at_any_sector));
