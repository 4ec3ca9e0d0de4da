/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/super.h"

#include "tests/fs/volume.h"

#define SIZE	(64 * MIB)

static bool same(const struct super *a, const struct super *b)
{
	uint8_t x[BLOCK_SIZE], y[BLOCK_SIZE];

	super_encode(a, SUPER_ADDR, x);
	super_encode(b, SUPER_ADDR, y);
	return memcmp(x, y, BLOCK_SIZE) == 0;
}

/* A field that does not survive a round trip is lost at the next change of a label. */
static void encode_round_trip(struct volume *v)
{
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	v->s.compat = 5;
	memset(v->s.machine_id, 7, 16);
	snprintf(v->s.identity, sizeof(v->s.identity), "naa.600140512345");
	super_encode(&v->s, SUPER_ADDR, v->block);
	CU_ASSERT_EQUAL(super_decode(v->block, SUPER_ADDR, &got, v->why, sizeof(v->why)), 0);
	CU_ASSERT_TRUE(same(&v->s, &got));
	CU_ASSERT_EQUAL(got.compat, 5);
	CU_ASSERT_STRING_EQUAL(got.identity, "naa.600140512345");
}

static void decode_returns_what_encode_got(void)
{
	volume_run(1, SIZE, 512, encode_round_trip, 0);
}

/* A misdirected write leaves a valid superblock in the wrong place (R6). */
static void wrong_address(struct volume *v)
{
	struct super got = { .size = 1 };

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	super_encode(&v->s, v->s.copy_addr, v->block);
	CU_ASSERT_EQUAL(super_decode(v->block, SUPER_ADDR, &got, v->why, sizeof(v->why)),
			-EUCLEAN);
	CU_ASSERT_EQUAL(got.size, 1);	/* untouched */
	CU_ASSERT_NOT_EQUAL(v->why[0], 0);
}

static void decode_refuses_block_from_another_address(void)
{
	volume_run(2, SIZE, 512, wrong_address, 0);
}

static void bit_flips(struct volume *v)
{
	unsigned int believed = 0;
	uint8_t *b = v->block;
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	super_encode(&v->s, SUPER_ADDR, b);
	for (unsigned int i = 0; i < BLOCK_SIZE; i++) {
		b[i] ^= (uint8_t)(1u << i % 8);
		believed += super_decode(b, SUPER_ADDR, &got, NULL, 0) == 0;
		b[i] ^= (uint8_t)(1u << i % 8);
	}
	CU_ASSERT_EQUAL(believed, 0);
}

/* One wrong bit anywhere and the block is not believed (R6). */
static void decode_refuses_any_flipped_bit(void)
{
	volume_run(3, SIZE, 512, bit_flips, 0);
}

static int decode_changed(struct volume *v, const struct super *s)
{
	struct super got;

	super_encode(s, SUPER_ADDR, v->block);
	return super_decode(v->block, SUPER_ADDR, &got, v->why, sizeof(v->why));
}

#define REFUSED(field, value)							\
	do {									\
		struct super s_ = v->s;						\
		s_.field = (value);						\
		CU_ASSERT_EQUAL(decode_changed(v, &s_), -EUCLEAN);		\
	} while (0)

static void ranges(struct volume *v)
{
	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	CU_ASSERT_EQUAL(decode_changed(v, &v->s), 0);
	REFUSED(size, MIB);
	REFUSED(size, v->s.size + 1);
	REFUSED(size, UINT64_MAX & ~4095ULL);
	REFUSED(sector, 1024);
	REFUSED(caw, BLK_CAW_NONE);
	REFUSED(caw, 99);
	REFUSED(timing.beat_ms, 0);
	REFUSED(timing.lease_ms, 1000);
	REFUSED(timing.margin_ms, 0);
	REFUSED(slot_count, 0);
	REFUSED(slot_count, SLOT_COUNT_MAX + 1);
	REFUSED(lock_addr, SUPER_ADDR);
	REFUSED(scratch_addr, v->s.lock_addr);
	REFUSED(slots_addr, v->s.slots_addr + 1);
	REFUSED(orphans_addr, v->s.slots_addr);
	REFUSED(orphan_blocks, 7);
	REFUSED(journals_addr, UINT64_MAX - 4095);
	REFUSED(journal_size, UINT64_MAX - 4095);
	REFUSED(journal_size, 4096);
	REFUSED(ag_addr, v->s.ag_addr + BLOCK_SIZE);
	REFUSED(ag_addr, v->s.size);
	REFUSED(ag_count, 0);
	REFUSED(ag_count, 2);
	REFUSED(ag_count, AG_COUNT_MAX + 1);
	REFUSED(ag_size, 0);
	REFUSED(ag_size, 3 * GIB);
	REFUSED(ag_size, 1ULL << 62);
	REFUSED(root, 0);
	REFUSED(root, v->s.ag_addr >> BLOCK_SHIFT);
	REFUSED(root, UINT64_MAX);
	REFUSED(copy_addr, v->s.copy_addr + 512);
	REFUSED(copy_addr, v->s.ag_addr + BLOCK_SIZE);
	REFUSED(copy_addr, (v->s.root & 0xffffffff) << BLOCK_SHIFT);
	REFUSED(copy_addr, v->s.size / 2 + 8 * MIB);
	REFUSED(copy_addr, v->s.journals_addr);
}

/* A checksum does not make numbers sane: what is sealed may still be hostile (R9). */
static void decode_refuses_values_out_of_range(void)
{
	volume_run(4, SIZE, 512, ranges, 0);
}

static void newer(struct volume *v)
{
	struct meta_expect e = { META_SUPER, NULL, SUPER_ADDR, 0, 0 };
	struct super_disk *d = v->block;
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	v->s.incompat = INCOMPAT_KNOWN + 1;
	CU_ASSERT_EQUAL(decode_changed(v, &v->s), -EPROTONOSUPPORT);
	v->s.incompat = 0;
	v->s.ro_compat = 1;	/* attaching read-only is decided elsewhere */
	CU_ASSERT_EQUAL(decode_changed(v, &v->s), 0);
	super_encode(&v->s, SUPER_ADDR, d);
	d->format_version = cpu_to_le32(FORMAT_VERSION + 1);
	e.volume = v->s.volume;
	meta_seal(d, &e, 1);
	CU_ASSERT_EQUAL(super_decode(d, SUPER_ADDR, &got, v->why, sizeof(v->why)),
			-EPROTONOSUPPORT);
	/* The copies of the older format do not help: the volume was upgraded. */
	simdisk_poke(v->disk, SUPER_ADDR, d, BLOCK_SIZE);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EPROTONOSUPPORT);
}

/* An old program must not write to a volume that it only half understands. */
static void newer_formats_and_unknown_features_are_refused(void)
{
	volume_run(5, SIZE, 512, newer, 0);
}

static void damage(struct volume *v, uint64_t addr)
{
	static const uint8_t garbage[BLOCK_SIZE] = { 1, 2, 3 };

	simdisk_poke(v->disk, addr, garbage, BLOCK_SIZE);
}

static void copies(struct volume *v)
{
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_STRING_EQUAL(v->why, "");
	damage(v, SUPER_ADDR);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_NOT_EQUAL(v->why[0], 0);	/* a copy was used, and that is said */
	CU_ASSERT_TRUE(same(&got, &v->s));
	damage(v, super_end_addr(&v->s));
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_TRUE(same(&got, &v->s));
	damage(v, v->s.copy_addr);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EUCLEAN);
}

/* One bad block must not lose the volume. */
static void damaged_superblock_is_read_from_its_copies(void)
{
	volume_run(6, SIZE, 512, copies, 0);
	volume_run(6, 20 * GIB + 12345 * 4096, 4096, copies, 0);
}

static void unreadable_first(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ,
				     .off = SUPER_ADDR, .len = BLOCK_SIZE };
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	simdisk_inject(v->disk, &rule);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(v->why, "cannot be read"));
	rule.len = SIZE;
	rule.off = 0;
	simdisk_inject(v->disk, &rule);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EIO);
}

static void unreadable_superblock_is_read_from_its_copies(void)
{
	volume_run(7, SIZE, 512, unreadable_first, 0);
}

static void device_differs(struct volume *v)
{
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	v->dev->info.sector = 4096;
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EMEDIUMTYPE);
	v->dev->info.sector = 512;
	v->dev->info.caw = BLK_CAW_LOCAL;
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -EMEDIUMTYPE);
	CU_ASSERT_EQUAL(super_find(v->dev, &got, v->why, sizeof(v->why)), 0);
	v->dev->info.caw = BLK_CAW_SIM;
	v->dev->info.size -= BLOCK_SIZE;
	CU_ASSERT_EQUAL(volume_read_super(v, &got), -ENOSPC);
	v->dev->info.size += 10 * MIB;
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
}

/* Hosts with another primitive do not exclude each other; a shrunk LUN lost data. */
static void device_that_does_not_fit_is_refused(void)
{
	volume_run(8, SIZE, 512, device_differs, 0);
}

/* Writes version 2 and fails at write number @v->arg; then the power goes. */
static void interrupted(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .skip = v->arg,
				     .ops = 1u << BLK_WRITE | 1u << BLK_FLUSH };
	struct super got;
	int err;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	v->s.version = 2;
	snprintf(v->s.label, sizeof(v->s.label), "renamed");
	simdisk_inject(v->disk, &rule);
	err = super_write(v->dev, &v->s);
	CU_ASSERT_EQUAL(err, v->arg < 6 ? -EIO : 0);
	simdisk_clear_rules(v->disk);
	simdisk_power_cut(v->disk, SIMDISK_KEEP_RANDOM);
	CU_ASSERT_EQUAL_FATAL(volume_read_super(v, &got), 0);
	CU_ASSERT_TRUE(got.version == 1 || got.version == 2);
	CU_ASSERT_STRING_EQUAL(got.label, got.version == 2 ? "renamed" : "ds1");
	if (!err)
		CU_ASSERT_EQUAL(got.version, 2);
}

/* A power cut at any point of a change leaves the old volume or the new one. */
static void interrupted_write_leaves_a_readable_superblock(void)
{
	for (uint64_t n = 0; n <= 6; n++)
		for (uint64_t seed = 1; seed <= 8; seed++)
			volume_run(seed, SIZE, 512, interrupted, n);
}

/* A host that reads the copies after half a change must not go back to the old label. */
static void newest(struct volume *v)
{
	struct super got;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	v->s.version = 2;
	super_encode(&v->s, v->s.copy_addr, v->block);
	simdisk_poke(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_EQUAL(got.version, 2);
	/* Another volume's remains are newer still, and none of our business. */
	v->s.version = 3;
	v->s.volume[0] ^= 1;
	super_encode(&v->s, v->s.copy_addr, v->block);
	simdisk_poke(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
	CU_ASSERT_EQUAL(volume_read_super(v, &got), 0);
	CU_ASSERT_EQUAL(got.version, 1);
}

static void newest_copy_of_the_same_volume_wins(void)
{
	volume_run(9, SIZE, 512, newest, 0);
}

static void groups(struct volume *v)
{
	const struct super *s = &v->s;
	uint64_t blocks = 0;
	uint32_t ag;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	for (uint32_t i = 0; i < s->ag_count; i++) {
		blocks += super_ag_blocks(s, i);
		CU_ASSERT_EQUAL(super_ag_of(s, super_ag_addr(s, i), &ag), 0);
		CU_ASSERT_EQUAL(ag, i);
	}
	CU_ASSERT_EQUAL(super_ag_of(s, s->ag_addr - 1, &ag), -ERANGE);
	CU_ASSERT_EQUAL(super_ag_of(s, super_groups_end(s), &ag), -ERANGE);
	CU_ASSERT_EQUAL(super_ag_of(s, UINT64_MAX, &ag), -ERANGE);
	CU_ASSERT_TRUE(s->ag_addr + (blocks << BLOCK_SHIFT) <= super_groups_end(s));
	CU_ASSERT_TRUE(super_end_addr(s) - s->ag_addr - (blocks << BLOCK_SHIFT) <
		       MIB + (super_ag_meta(s) + 2) * BLOCK_SIZE);
}

/* A group that reached into the last copy would give its block to a file. */
static void groups_cover_the_volume_up_to_the_last_copy(void)
{
	volume_run(10, SIZE, 512, groups, 0);
	volume_run(10, 3 * GIB + 5 * MIB, 512, groups, 0);
	volume_run(10, 3 * GIB + 17 * MIB + 4096, 512, groups, 0);
}

UNIT_MAIN("fs/super",
	  UNIT_TEST(decode_returns_what_encode_got),
	  UNIT_TEST(decode_refuses_block_from_another_address),
	  UNIT_TEST(decode_refuses_any_flipped_bit),
	  UNIT_TEST(decode_refuses_values_out_of_range),
	  UNIT_TEST(newer_formats_and_unknown_features_are_refused),
	  UNIT_TEST(damaged_superblock_is_read_from_its_copies),
	  UNIT_TEST(unreadable_superblock_is_read_from_its_copies),
	  UNIT_TEST(device_that_does_not_fit_is_refused),
	  UNIT_TEST(interrupted_write_leaves_a_readable_superblock),
	  UNIT_TEST(newest_copy_of_the_same_volume_wins),
	  UNIT_TEST(groups_cover_the_volume_up_to_the_last_copy));
