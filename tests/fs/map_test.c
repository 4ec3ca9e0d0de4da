/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/map.h"

#include <unistd.h>

#include "fs/map_path.h"
#include "tests/fs/world.h"

#define VOLUME	(64 * MIB)

static uint32_t file_depth(struct inode *ino)
{
	return le32_to_cpu(inode_disk(ino)->depth);
}

static uint64_t file_blocks(struct inode *ino)
{
	return le64_to_cpu(inode_disk(ino)->blocks);
}

/* Offsets around each capacity of the tree, and the depth that the file then has. */
static const struct place { uint64_t off; uint32_t depth; } places[] = {
	{ 0, 0 },
	{ 223 * UNIT_SIZE, 0 },
	{ 224 * UNIT_SIZE, 1 },
	{ 251 * UNIT_SIZE, 1 },
	{ 252 * UNIT_SIZE + 8192, 1 },
	{ 448ULL * 252 * UNIT_SIZE - BLOCK_SIZE, 1 },
	{ 448ULL * 252 * UNIT_SIZE, 2 },
	{ 504ULL * 252 * UNIT_SIZE, 2 },
	{ 448ULL * 504 * 252 * UNIT_SIZE - BLOCK_SIZE, 2 },
	{ 448ULL * 504 * 252 * UNIT_SIZE, 3 },
	{ 62 * TIB - BLOCK_SIZE, 3 },
};

static void fill(uint8_t *buf, uint64_t off)
{
	for (size_t i = 0; i < BLOCK_SIZE; i++)
		buf[i] = (uint8_t)(off / BLOCK_SIZE * 13 + off / TIB + i + 1);
}

static void expect_block(struct world *w, struct inode *ino, uint64_t off, bool there)
{
	uint8_t *buf = blkdev_alloc(2 * BLOCK_SIZE), *want = buf + BLOCK_SIZE;
	size_t done = 0;

	if (there)
		fill(want, off);
	CU_ASSERT_EQUAL(file_read(&w->fs, ino, off, buf, BLOCK_SIZE, &done), 0);
	CU_ASSERT_EQUAL(done, BLOCK_SIZE);
	CU_ASSERT_EQUAL(memcmp(buf, want, BLOCK_SIZE), 0);
	free(buf);
}

static void write_block(struct world *w, struct inode *ino, uint64_t off)
{
	uint8_t *buf = blkdev_alloc(BLOCK_SIZE);
	size_t done = 0;

	fill(buf, off);
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, off, buf, BLOCK_SIZE, false, &done), 0);
	CU_ASSERT_EQUAL(done, BLOCK_SIZE);
	free(buf);
}

/* map_blocks_needed() told the truth: the file has grown by a unit and so many map blocks. */
static void write_counted(struct world *w, struct inode *ino, uint64_t off)
{
	unsigned int need = 99;
	uint64_t before = file_blocks(ino);
	struct map_entry e;

	CU_ASSERT_EQUAL(map_blocks_needed(&w->fs, ino, off / UNIT_SIZE, &need), 0);
	CU_ASSERT_EQUAL(map_get(&w->fs, ino, off / UNIT_SIZE, &e), 0);
	CU_ASSERT_EQUAL(e.block, 0);
	write_block(w, ino, off);
	CU_ASSERT_EQUAL(map_get(&w->fs, ino, off / UNIT_SIZE, &e), 0);
	CU_ASSERT_EQUAL(file_blocks(ino), before + need + (1u << e.order));
	CU_ASSERT_EQUAL(map_blocks_needed(&w->fs, ino, off / UNIT_SIZE, &need), 0);
	CU_ASSERT_EQUAL(need, 0);
}

static void expect_seek(struct world *w, struct inode *ino)
{
	uint64_t at = 0, found = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		CU_ASSERT_EQUAL(file_seek(&w->fs, ino, at, SEEK_DATA, &found), 0);
		CU_ASSERT_EQUAL(found, places[i].off);
		CU_ASSERT_EQUAL(file_seek(&w->fs, ino, found, SEEK_HOLE, &at), 0);
		/* Two of them are neighbours. */
		if (at != places[i].off + BLOCK_SIZE)
			CU_ASSERT_EQUAL(at, places[++i].off + BLOCK_SIZE);
	}
	CU_ASSERT_EQUAL(at, 62 * TIB);
}

static void sparse_body(struct world *w)
{
	struct inode *ino;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		write_counted(w, ino, places[i].off);
		CU_ASSERT_EQUAL(file_depth(ino), places[i].depth);
		for (size_t k = 0; k <= i; k++)
			expect_block(w, ino, places[k].off, true);
	}
	expect_seek(w, ino);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
	MUST(!world_mount(w));
	ino = world_open(w, id);
	expect_seek(w, ino);
	for (size_t i = ARRAY_SIZE(places); i--; ) {
		for (size_t k = 0; k <= i; k++)
			expect_block(w, ino, places[k].off, true);
		CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, places[i].off), 0);
	}
	CU_ASSERT_EQUAL(file_depth(ino), 0);
	CU_ASSERT_EQUAL(file_blocks(ino), 0);
	CU_ASSERT_TRUE(le32_to_cpu(inode_disk(ino)->flags) & INODE_INLINE);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
}

/* A disk of 62 TiB, thinly used: each level of the tree holds what was written there. */
static void offsets_up_to_62_tib_map_and_unmap(void)
{
	world_run(VOLUME, sparse_body, NULL);
}

static void backward_body(struct world *w)
{
	struct inode *ino;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (size_t i = ARRAY_SIZE(places); i--; ) {
		write_counted(w, ino, places[i].off);
		CU_ASSERT_EQUAL(file_depth(ino), 3);
	}
	expect_seek(w, ino);
	/* Holes again, from the front; then nothing is left but the last. */
	for (size_t i = 0; i + 1 < ARRAY_SIZE(places); i++) {
		CU_ASSERT_EQUAL(file_allocate(&w->fs, ino, FILE_PUNCH | FILE_KEEP_SIZE,
					      ALIGN_DOWN(places[i].off, UNIT_SIZE), UNIT_SIZE), 0);
		expect_block(w, ino, places[i].off, false);
	}
	expect_block(w, ino, 62 * TIB - BLOCK_SIZE, true);
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, 62 * TIB - BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, 0), 0);
	CU_ASSERT_EQUAL(file_blocks(ino), 0);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
}

/* Installers write a disk's end first. */
static void a_file_written_from_its_end_maps_the_same(void)
{
	world_run(VOLUME, backward_body, NULL);
}

static void unlocked_body(struct world *w)
{
	struct inode_disk *di = blkdev_alloc(BLOCK_SIZE);
	struct map_entry locked, unlocked;
	struct inode *ino;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		write_block(w, ino, places[i].off);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	CU_ASSERT_EQUAL(inode_read_unlocked(&w->fs, ino->id, di), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint64_t unit = places[i].off / UNIT_SIZE;

		CU_ASSERT_EQUAL(map_get(&w->fs, ino, unit, &locked), 0);
		CU_ASSERT_EQUAL(map_get_unlocked(&w->fs, ino->id, di, unit, &unlocked), 0);
		CU_ASSERT_TRUE(unlocked.block != 0);
		CU_ASSERT_EQUAL(unlocked.block, locked.block);
		CU_ASSERT_EQUAL(unlocked.valid, locked.valid);
	}
	/* A map block newer than the inode that led to it: start over. */
	write_block(w, ino, places[10].off - 2 * BLOCK_SIZE);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	CU_ASSERT_EQUAL(map_get_unlocked(&w->fs, ino->id, di, places[10].off / UNIT_SIZE,
					 &unlocked), -EAGAIN);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(di);
}

/* Readers without the lock must notice that the map moved under them. */
static void an_unlocked_reader_sees_one_version_or_starts_over(void)
{
	world_run(VOLUME, unlocked_body, NULL);
}

/* What no host of ours writes into an entry. */
static const struct { uint64_t unit, word, valid; } hostile[] = {
	{ 0, 1, 1 },				/* in front of all groups */
	{ 0, (1ULL << 48) - 1, 1 },		/* behind the volume */
	{ 0, 0, 1 },				/* data without space */
	{ 0, 7ULL << 48 | 12000, 1 },		/* more than a unit */
	{ 0, 1ULL << 48 | 12000, 4 },		/* valid beyond the run */
	{ 1, 12000, 1 },			/* small, and not the first */
	{ 0, 1ULL << 63 | 6ULL << 48 | 12000, 1 },	/* a flag of the future */
};

static void hostile_body(struct world *w)
{
	uint8_t *buf = blkdev_alloc(BLOCK_SIZE);
	struct map_entry_disk *d;
	struct inode_disk *di;
	struct inode *ino;
	size_t done;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	write_block(w, ino, 0);
	write_block(w, ino, UNIT_SIZE);
	/* Into the copy in memory: checksums keep accidents out, not malice. */
	di = ino->buf->data;
	d = (struct map_entry_disk *)di->root;
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		struct map_entry_disk saved = d[hostile[i].unit];

		d[hostile[i].unit].unit = cpu_to_le64(hostile[i].word);
		d[hostile[i].unit].valid = cpu_to_le64(hostile[i].valid);
		CU_ASSERT_EQUAL(file_read(&w->fs, ino, hostile[i].unit * UNIT_SIZE, buf,
					  BLOCK_SIZE, &done), -EUCLEAN);
		CU_ASSERT_EQUAL(file_write(&w->fs, ino, hostile[i].unit * UNIT_SIZE, buf,
					   BLOCK_SIZE, false, &done), -EUCLEAN);
		d[hostile[i].unit] = saved;
	}
	expect_block(w, ino, 0, true);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(buf);
}

/* A forged entry would let a guest write over a group's bitmap, or another's disk (R9). */
static void impossible_entries_are_refused(void)
{
	world_run(VOLUME, hostile_body, NULL);
}

UNIT_MAIN("fs/map",
	UNIT_TEST(offsets_up_to_62_tib_map_and_unmap),
	UNIT_TEST(a_file_written_from_its_end_maps_the_same),
	UNIT_TEST(an_unlocked_reader_sees_one_version_or_starts_over),
	UNIT_TEST(impossible_entries_are_refused));
