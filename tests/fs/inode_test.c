/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/inode.h"

#include <stddef.h>

#include "fs/icache.h"
#include "tests/fs/world.h"

#define VOLUME	(64 * MIB)

/* ---- what is believed ---- */

static struct inode_disk good(uint32_t mode)
{
	struct inode_disk d = {
		.mode = cpu_to_le32(mode), .nlink = cpu_to_le32(1),
		.flags = cpu_to_le32(INODE_INLINE), .name_len = cpu_to_le16(3), .name = "abc",
	};

	return d;
}

static int check(const struct inode_disk *d)
{
	char why[256] = "";
	int err = inode_decode_check(d, why, sizeof(why));

	CU_ASSERT_EQUAL(err == 0, why[0] == 0);
	return err;
}

/* Each field out of its range; R9: whoever wrote the block may know how to seal it. */
static void hostile_fields_are_refused(void)
{
	static const struct { uint32_t mode; size_t off; uint32_t value; } bad[] = {
		{ S_IFREG, offsetof(struct inode_disk, mode), 0170000 },
		{ S_IFREG, offsetof(struct inode_disk, mode), S_IFREG | 1 << 20 },
		{ S_IFREG, offsetof(struct inode_disk, flags), 1 << 9 },
		{ S_IFREG, offsetof(struct inode_disk, nlink), LINK_COUNT_MAX + 1 },
		{ S_IFREG, offsetof(struct inode_disk, size), INLINE_SIZE + 1 },
		{ S_IFREG, offsetof(struct inode_disk, size) + 4, 1U << 31 },
		{ S_IFREG, offsetof(struct inode_disk, depth), 1 },
		{ S_IFREG, offsetof(struct inode_disk, root_count), 1 },
		{ S_IFDIR, offsetof(struct inode_disk, root_count), INLINE_SIZE + 1 },
		{ S_IFDIR, offsetof(struct inode_disk, depth), DEPTH_MAX + 1 },
		{ S_IFCHR, offsetof(struct inode_disk, size), 1 },
		{ S_IFREG, offsetof(struct inode_disk, name_len), NAME_BYTES_MAX + 1 },
		{ S_IFREG, offsetof(struct inode_disk, name), '/' },
		{ S_IFREG, offsetof(struct inode_disk, name), 0 },
		{ S_IFREG, offsetof(struct inode_disk, reserved), 1 },
		{ S_IFREG, offsetof(struct inode_disk, image_parent), 1 },
	};
	static const uint32_t modes[] = {
		S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK,
	};
	struct inode_disk d;

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		d = good(modes[i] | 07777);
		CU_ASSERT_EQUAL(check(&d), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		le32 v = cpu_to_le32(bad[i].value);

		d = good(bad[i].mode | 0644);
		memcpy((uint8_t *)&d + bad[i].off, &v, sizeof(v));
		CU_ASSERT_EQUAL(check(&d), -EUCLEAN);
	}
	/* A free one is whatever its last life left. */
	memset(&d, 0xff, sizeof(d));
	d.mode = cpu_to_le32(0);
	CU_ASSERT_EQUAL(check(&d), 0);
}

/* ---- identity ---- */

static void identity_body(struct world *w)
{
	struct fs_attr attr, again;
	struct inode *ino;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	CU_ASSERT_EQUAL(inode_id_number(id), ino->number);
	/* Another generation of the same number is another file, gone or to come. */
	CU_ASSERT_EQUAL(inode_lock(&w->fs, ino, id + (1ULL << INODE_NUMBER_BITS), LOCK_SHARED, 0,
				   NULL), -ESTALE);
	CU_ASSERT_EQUAL(inode_stat(&w->fs, id + (1ULL << INODE_NUMBER_BITS), &attr), -ESTALE);
	CU_ASSERT_EQUAL(inode_stat(&w->fs, id, &attr), 0);
	CU_ASSERT_EQUAL(attr.id, id);
	CU_ASSERT_EQUAL(attr.mode, S_IFREG | 0644);
	CU_ASSERT_EQUAL(attr.nlink, 1);
	CU_ASSERT_EQUAL(attr.mtime_ns, attr.btime_ns);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	MUST(!world_mount(w));
	/* Without the object: from home, without a lock. */
	CU_ASSERT_EQUAL(inode_stat(&w->fs, id, &again), 0);
	/* All but who vouches for it: the one was read under the lock, the other at home. */
	CU_ASSERT(attr.covered != again.covered);
	again.covered = attr.covered;
	CU_ASSERT_EQUAL(memcmp(&attr, &again, sizeof(attr)), 0);
	CU_ASSERT_EQUAL(inode_stat(&w->fs, 1, &again), -ESTALE);
	CU_ASSERT_EQUAL(inode_stat(&w->fs, (1ULL << 40) - 1, &again), -ESTALE);
	CU_ASSERT_EQUAL(inode_get(&w->fs, 1, &ino), -EUCLEAN);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

/* A stale handle of a deleted file must never reach the file that now lives there. */
static void an_id_names_one_life_of_an_inode(void)
{
	world_run(VOLUME, identity_body, NULL);
}

static void damage_body(struct world *w)
{
	struct fs_attr attr;
	struct inode *ino;
	uint8_t byte;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	simdisk_peek(w->disk, inode_block_addr(id) + 700, &byte, 1);
	byte ^= 4;
	simdisk_poke(w->disk, inode_block_addr(id) + 700, &byte, 1);
	MUST(!world_mount(w));
	CU_ASSERT_EQUAL(inode_stat(&w->fs, id, &attr), -EBADMSG);
	MUST(!inode_get(&w->fs, inode_id_number(id), &ino));
	CU_ASSERT_EQUAL(inode_lock(&w->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL), -EBADMSG);
	/* Nothing is left locked: the next attempt answers too. */
	byte ^= 4;
	simdisk_poke(w->disk, inode_block_addr(id) + 700, &byte, 1);
	CU_ASSERT_EQUAL(inode_lock(&w->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL), 0);
	inode_unlock(&w->fs, ino, LOCK_EXCLUSIVE, 0);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

static void a_damaged_inode_is_an_error_and_not_a_file(void)
{
	world_run(VOLUME, damage_body, NULL);
}

/* ---- changing ---- */

static void version_body(struct world *w)
{
	struct inode_disk *home = blkdev_alloc(BLOCK_SIZE);
	struct inode *ino;
	uint64_t before;
	struct txn txn;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	before = ino->version;
	MUST(!txn_begin(&w->fs, 1, &txn));
	inode_change(&txn, ino)->uid = cpu_to_le32(7);
	txn_end(&txn);
	CU_ASSERT_TRUE(ino->version > before);
	CU_ASSERT_EQUAL(ino->txn_id, txn.id);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	CU_ASSERT_EQUAL(inode_read_unlocked(&w->fs, ino->id, home), 0);
	CU_ASSERT_EQUAL(meta_version(home), ino->version);
	CU_ASSERT_EQUAL(le32_to_cpu(home->uid), 7);
	/* Forgotten (the lock went) and loaded again, it goes on from there. */
	before = ino->version;
	inode_forget(&w->fs, ino);
	CU_ASSERT_FALSE(ino->loaded);
	MUST(!inode_lock(&w->fs, ino, inode_id_make(ino->number, le32_to_cpu(home->generation)),
			 LOCK_EXCLUSIVE, 0, NULL));
	CU_ASSERT_EQUAL(ino->version, before);
	inode_unlock(&w->fs, ino, LOCK_EXCLUSIVE, 0);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(home);
}

/* Readers without the lock tell a changed inode by its version alone. */
static void every_change_raises_the_version(void)
{
	world_run(VOLUME, version_body, NULL);
}

static void birth_body(struct world *w)
{
	struct inode *ino;
	uint32_t last = 0;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (unsigned int i = 0; i < 70000; i++) {
		uint32_t b = inode_birth(ino, ino->buf->data);

		if (b == last || !b || b > 65535) {
			CU_FAIL("a birth stamp is repeated or out of range");
			break;
		}
		last = b;
	}
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

static void birth_stamps_differ_and_are_never_zero(void)
{
	world_run(VOLUME, birth_body, NULL);
}

static void many_body(struct world *w)
{
	struct inode *a, *b;

	world_format(w);
	MUST(!world_mount(w));
	a = world_create(w);
	b = world_create(w);
	for (unsigned int i = 0; i < 2; i++) {
		struct inode *inos[4] = { i ? a : b, NULL, i ? b : a, a };
		uint64_t ids[4] = { inos[0]->id, 0, inos[2]->id, a->id };

		MUST(!inode_lock_many(&w->fs, inos, ids, 4, NULL));
		CU_ASSERT_TRUE(a->rwlock.writer && b->rwlock.writer);
		inode_unlock_many(&w->fs, inos, 4);
		CU_ASSERT_FALSE(a->rwlock.writer || b->rwlock.writer);
		ids[2] ^= 1ULL << INODE_NUMBER_BITS;
		CU_ASSERT_EQUAL(inode_lock_many(&w->fs, inos, ids, 3, NULL), -ESTALE);
		CU_ASSERT_FALSE(a->rwlock.writer || b->rwlock.writer);
	}
	inode_put(&w->fs, a);
	inode_put(&w->fs, b);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

/* rename("a/x", "a/y") names one directory twice; locking it twice would be for ever. */
static void many_inodes_lock_once_each_or_not_at_all(void)
{
	world_run(VOLUME, many_body, NULL);
}

#define CROWD	60

static void crowd_body(struct world *w)
{
	uint64_t ids[CROWD];
	struct inode *ino;
	unsigned int buf[2] = { 0 };
	size_t done;

	world_format(w);
	MUST(!world_mount(w));
	w->fs.inodes->max = 8;
	for (unsigned int i = 0; i < CROWD; i++) {
		ino = world_create(w);
		ids[i] = ino->id;
		CU_ASSERT_EQUAL(file_write(&w->fs, ino, 0, &i, sizeof(i), false, &done), 0);
		inode_put(&w->fs, ino);
		CU_ASSERT_TRUE(w->fs.inodes->table.count <= 8);
	}
	for (unsigned int i = 0; i < CROWD; i++) {
		ino = world_open(w, ids[i * 7 % CROWD]);
		CU_ASSERT_EQUAL(file_read(&w->fs, ino, 0, buf, sizeof(buf), &done), 0);
		CU_ASSERT_EQUAL(buf[0], i * 7 % CROWD);
		inode_put(&w->fs, ino);
	}
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
}

/* Looking at a million files must not take memory for a million, nor lose a change. */
static void a_full_cache_gives_up_objects_and_loses_nothing(void)
{
	world_run(VOLUME, crowd_body, NULL);
}

UNIT_MAIN("fs/inode",
	UNIT_TEST(hostile_fields_are_refused),
	UNIT_TEST(an_id_names_one_life_of_an_inode),
	UNIT_TEST(a_damaged_inode_is_an_error_and_not_a_file),
	UNIT_TEST(every_change_raises_the_version),
	UNIT_TEST(birth_stamps_differ_and_are_never_zero),
	UNIT_TEST(a_full_cache_gives_up_objects_and_loses_nothing),
	UNIT_TEST(many_inodes_lock_once_each_or_not_at_all));
