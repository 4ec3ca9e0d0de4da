/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/mkfs.h"

#include <sys/stat.h>

#include "fs/check.h"
#include "tests/fs/volume.h"

/* ---- layout: no device needed ---- */

static int layout_of(uint64_t size, struct super *s)
{
	struct blkdev dev = { .info = { .size = size, .sector = 512, .caw = BLK_CAW_SIM,
					.name = "disk" } };
	struct mkfs_params p = { .dev = &dev, .label = "ds1" };
	char why[300];

	return mkfs_layout(&p, s, why, sizeof(why));
}

/* What an administrator pays for: under 0.1 % from 100 GiB on, at any size. */
static void metadata_is_under_a_thousandth_from_100_gib(void)
{
	uint64_t size = 100 * GIB;
	struct super s;

	while (size <= 64 * TIB) {
		CU_ASSERT_EQUAL_FATAL(layout_of(size, &s), 0);
		CU_ASSERT_TRUE((size - mkfs_free_bytes(&s)) * 1000 < size);
		size += size / 7 + 4096;
	}
	CU_ASSERT_EQUAL(layout_of(64 * TIB, &s), 0);
	CU_ASSERT_TRUE((64 * TIB - mkfs_free_bytes(&s)) * 1000 < 64 * TIB);
}

/* Every size has a layout that its own reader accepts. */
static void every_size_from_64_mib_to_64_tib_has_a_layout(void)
{
	uint64_t size = 64 * MIB;
	struct super s;

	while (size <= 64 * TIB) {
		CU_ASSERT_EQUAL_FATAL(layout_of(size, &s), 0);
		CU_ASSERT_TRUE(s.ag_count <= AG_COUNT_MAX);
		CU_ASSERT_TRUE(mkfs_free_bytes(&s) > size / 2);
		CU_ASSERT_EQUAL(s.copy_addr, super_copy_place(&s));
		size += size / 31 + 4096 + size % 8191;
	}
	CU_ASSERT_EQUAL(layout_of(64 * TIB, &s), 0);
	CU_ASSERT_EQUAL(s.ag_count, 1024);	/* of 64 GiB: it can grow to 256 TiB */
	CU_ASSERT_EQUAL(layout_of(256 * TIB, &s), 0);
	CU_ASSERT_EQUAL(layout_of(1024 * TIB, &s), -E2BIG);
	CU_ASSERT_EQUAL(layout_of(64 * MIB - 4096, &s), -ENOSPC);
}

static void slots_and_journals_follow_the_size(void)
{
	struct super s;

	layout_of(64 * MIB, &s);
	CU_ASSERT_EQUAL(s.slot_count, 4);
	CU_ASSERT_EQUAL(s.journal_size, 512 * KIB);
	CU_ASSERT_EQUAL(s.ag_count, 1);
	layout_of(GIB, &s);
	CU_ASSERT_EQUAL(s.slot_count, 16);
	CU_ASSERT_EQUAL(s.journal_size, MIB);
	layout_of(10 * GIB, &s);
	CU_ASSERT_EQUAL(s.slot_count, 64);
	layout_of(TIB, &s);
	CU_ASSERT_EQUAL(s.journal_size, 13 * MIB);
	layout_of(64 * TIB, &s);
	CU_ASSERT_EQUAL(s.journal_size, 64 * MIB);
}

/* The middle copy must not lie on a group's bitmap: 2 GiB has a group start near its middle. */
static void middle_copy_avoids_groups_metadata(void)
{
	unsigned int moved = 0;
	struct super s;

	for (uint64_t size = 2 * GIB; size < 2 * GIB + 64 * MIB; size += 256 * KIB) {
		uint32_t ag = 0;
		uint64_t block;

		CU_ASSERT_EQUAL_FATAL(layout_of(size, &s), 0);
		CU_ASSERT_EQUAL_FATAL(super_ag_of(&s, s.copy_addr, &ag), 0);
		block = (s.copy_addr - super_ag_addr(&s, ag)) >> BLOCK_SHIFT;
		CU_ASSERT_TRUE(block >= super_ag_meta(&s));
		moved += s.copy_addr != super_copy_candidate(s.size, 0);
	}
	CU_ASSERT_TRUE(moved > 0);	/* else this tests nothing */
}

static void impossible_wishes_are_refused(void)
{
	struct blkdev dev = { .info = { .size = GIB, .sector = 512, .caw = BLK_CAW_SIM,
					.name = "disk" } };
	struct mkfs_params good = { .dev = &dev, .label = "ds1" }, p;
	char why[300];
	struct super s;

	CU_ASSERT_EQUAL(mkfs_layout(&good, &s, why, sizeof(why)), 0);
	p = good; p.slot_count = 97;
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good; p.journal_size = 4096;
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good; p.journal_size = 64 * MIB;
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -ENOSPC);
	p = good; p.ag_size = 3 * GIB;
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good; p.label = "a/b";
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good; p.label = "a:b";
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good;
	p.label = "0123456789012345678901234567890123456789012345678901234567890123";
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	p = good; p.timing.lease_ms = 100;
	CU_ASSERT_EQUAL(mkfs_layout(&p, &s, why, sizeof(why)), -EINVAL);
	dev.info.caw = BLK_CAW_NONE;
	CU_ASSERT_EQUAL(mkfs_layout(&good, &s, why, sizeof(why)), -EOPNOTSUPP);
	dev.info.caw = BLK_CAW_SIM;
	dev.info.read_only = true;
	CU_ASSERT_EQUAL(mkfs_layout(&good, &s, why, sizeof(why)), -EROFS);
}

/* ---- on a device ---- */

struct interrupted { bool interrupted; uint64_t copy_addr; };

static void count_finding(void *arg, const struct check_finding *f)
{
	const struct interrupted *i = arg;

	/* The power may go when one copy is written, or two: the first superblock is the last. */
	if (i->interrupted && f->code == CHECK_SUPER_DAMAGED &&
	    (f->addr == SUPER_ADDR || f->addr == i->copy_addr))
		return;
	CU_FAIL("a finding");
	fprintf(stderr, "%s at 0x%llx: %s\n", check_code_info(f->code)->name,
		(unsigned long long)f->addr, f->text);
}

static void check_volume_of(struct volume *v, const struct super *s, bool interrupted)
{
	struct interrupted i = { interrupted, s->copy_addr };
	struct check_params p = { .env = v->host, .dev = v->dev, .report = count_finding,
				  .arg = &i };
	struct check_result r;

	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(r.directories, 1);
	CU_ASSERT_EQUAL((r.blocks - r.blocks_used) << BLOCK_SHIFT, mkfs_free_bytes(s));
}

static void check_is_clean(struct volume *v)
{
	check_volume_of(v, &v->s, false);
}

static void format_clean(struct volume *v)
{
	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	check_is_clean(v);
}

/* Nothing relies on old contents: LUNs come with whatever was on them. */
static void volume_on_random_bytes_is_clean(void)
{
	volume_run(1, 64 * MIB, 512, format_clean, 0);
	volume_run(2, 64 * MIB, 4096, format_clean, 0);
	volume_run(3, GIB + 123 * 4096, 512, format_clean, 0);
	volume_run(4, 2 * GIB + 6 * MIB, 512, format_clean, 0);
	volume_run(5, 300 * GIB, 4096, format_clean, 0);
}

/* An older volume of another size, other slots: nothing of it may be believed. */
static void format_over_older(struct volume *v)
{
	struct mkfs_params p = { .env = v->host, .dev = v->dev, .label = "old",
				 .slot_count = 9, .size = v->arg };
	struct super old, got;

	CU_ASSERT_EQUAL_FATAL(mkfs(&p, &old, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	check_is_clean(v);
	CU_ASSERT_NOT_EQUAL(memcmp(old.volume, v->s.volume, 16), 0);
	/* With the new superblocks gone there is no way back to the old volume. */
	memset(v->block, 0, BLOCK_SIZE);
	simdisk_poke(v->disk, SUPER_ADDR, v->block, BLOCK_SIZE);
	simdisk_poke(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
	simdisk_poke(v->disk, super_end_addr(&v->s), v->block, BLOCK_SIZE);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EUCLEAN);
	v->dev->info.size = old.size;
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EUCLEAN);
}

static void older_volume_is_not_believed_any_more(void)
{
	volume_run(6, 200 * MIB, 512, format_over_older, 200 * MIB);
	volume_run(7, 200 * MIB, 512, format_over_older, 100 * MIB);
}

/* Fails the write or flush number @v->arg of a format over an older volume. */
static void format_fails(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .skip = v->arg,
				     .ops = 1u << BLK_WRITE | 1u << BLK_FLUSH };
	struct super got, old;
	int err;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	old = v->s;
	simdisk_inject(v->disk, &rule);
	err = volume_format(v);
	simdisk_clear_rules(v->disk);
	simdisk_power_cut(v->disk, SIMDISK_KEEP_RANDOM);
	got = old;
	if (volume_read_super(v, &got) != 0) {
		CU_ASSERT_NOT_EQUAL(err, 0);
		return;
	}
	CU_ASSERT_TRUE(err || memcmp(got.volume, v->s.volume, 16) == 0);
	/* The old one may still be readable, if the very destruction of it failed. */
	if (memcmp(got.volume, old.volume, 16) != 0)
		check_volume_of(v, &got, err != 0);	/* the new one is complete */
}

/* Half a format must not look like a volume. */
static void interrupted_format_leaves_no_broken_volume(void)
{
	for (uint64_t n = 0; n < 40; n++)
		volume_run(n, 64 * MIB, 512, format_fails, n);
}

static void look_at_slots(struct volume *v)
{
	struct super first;
	struct slot a, b;
	uint64_t same = 0;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	first = v->s;
	for (uint32_t i = 0; i < first.slot_count; i++) {
		uint64_t addr = first.slots_addr + i * BLOCK_SIZE;

		simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
		CU_ASSERT_EQUAL(slot_decode(v->block, first.volume, addr, i, &a, NULL, 0), 0);
		CU_ASSERT_EQUAL(a.state, SLOT_FREE);
		CU_ASSERT_TRUE(a.generation >= 1 && a.generation < 1u << 31);
		CU_ASSERT_EQUAL(a.recoverer, SLOT_NONE);
	}
	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	simdisk_peek(v->disk, v->s.slots_addr, v->block, BLOCK_SIZE);
	CU_ASSERT_EQUAL(slot_decode(v->block, v->s.volume, v->s.slots_addr, 0, &b, NULL, 0), 0);
	same += a.generation == b.generation;
	same += a.sequence == b.sequence;
	same += memcmp(first.volume, v->s.volume, 16) == 0;
	CU_ASSERT_EQUAL(same, 0);
}

/* A command of the old volume's life that lands late must match nothing of the new (R5). */
static void slots_start_at_random_generations(void)
{
	volume_run(8, 64 * MIB, 512, look_at_slots, 0);
}

static void look_at_root(struct volume *v)
{
	struct meta_expect e = { META_INODE, v->s.volume, 0, 0, 0 };
	struct inode_disk *d = v->block;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	e.addr = inode_block_addr(v->s.root);
	e.owner = inode_id_number(v->s.root);
	simdisk_peek(v->disk, e.addr, d, BLOCK_SIZE);
	CU_ASSERT_EQUAL(meta_verify(d, &e, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(le32_to_cpu(d->mode), S_IFDIR | 0755);
	CU_ASSERT_EQUAL(le32_to_cpu(d->nlink), 2);
	CU_ASSERT_EQUAL(le64_to_cpu(d->parent), v->s.root);
	CU_ASSERT_EQUAL(le32_to_cpu(d->flags), INODE_INLINE);
}

static void root_directory_is_empty_and_its_own_parent(void)
{
	volume_run(9, 64 * MIB, 512, look_at_root, 0);
}

/* A middle group holds the copy: its free count and bitmap must know, or a file gets it. */
static void copy_is_allocated(struct volume *v)
{
	struct ag_disk *d = v->block;
	uint32_t ag = 0, index;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	CU_ASSERT_EQUAL_FATAL(super_ag_of(&v->s, v->s.copy_addr, &ag), 0);
	index = (uint32_t)((v->s.copy_addr - super_ag_addr(&v->s, ag)) >> BLOCK_SHIFT) /
		BITMAP_BITS;
	simdisk_peek(v->disk, super_ag_addr(&v->s, ag) + BLOCK_SIZE, d, BLOCK_SIZE);
	CU_ASSERT_TRUE(d->bitmap_ready[index / 8] & 1u << index % 8);
}

static void middle_copy_is_allocated(void)
{
	volume_run(10, 64 * MIB, 512, copy_is_allocated, 0);
	volume_run(10, 10 * GIB, 512, copy_is_allocated, 0);
}

static void count_commands(struct volume *v)
{
	struct simdisk_stats st;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	simdisk_stats(v->disk, v->host, &st);
	CU_ASSERT_TRUE(st.bytes_written < 8192 * KIB);
	CU_ASSERT_TRUE(st.ops[BLK_WRITE] < 2 * v->s.ag_count + 200);
}

/* Time to format follows from the bytes written: little, whatever the size. */
static void large_volume_is_formatted_with_few_writes(void)
{
	volume_run(11, 300 * GIB, 512, count_commands, 0);
}

UNIT_MAIN("fs/mkfs",
	  UNIT_TEST(metadata_is_under_a_thousandth_from_100_gib),
	  UNIT_TEST(every_size_from_64_mib_to_64_tib_has_a_layout),
	  UNIT_TEST(slots_and_journals_follow_the_size),
	  UNIT_TEST(middle_copy_avoids_groups_metadata),
	  UNIT_TEST(impossible_wishes_are_refused),
	  UNIT_TEST(volume_on_random_bytes_is_clean),
	  UNIT_TEST(older_volume_is_not_believed_any_more),
	  UNIT_TEST(interrupted_format_leaves_no_broken_volume),
	  UNIT_TEST(slots_start_at_random_generations),
	  UNIT_TEST(root_directory_is_empty_and_its_own_parent),
	  UNIT_TEST(middle_copy_is_allocated),
	  UNIT_TEST(large_volume_is_formatted_with_few_writes));
