// SPDX-License-Identifier: Apache-2.0
/* Orphan lists: what a crash leaves half deleted or half shrunk is finished. */
#include "fs/orphan.h"

#include <stdio.h>

#include "fs/image.h"
#include "fs/internal.h"
#include "fs/orphan_list.h"
#include "tests/fs/attached.h"

#define SIZE	(512 * MIB)

static uint64_t make(struct cluster *c, const char *name, size_t len)
{
	static char data[4 * MIB];
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	size_t done;

	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), name, S_IFREG | 0644, 0,
					&cluster_cred, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, len, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	return attr.id;
}

static uint64_t blocks_free(struct cluster *c, unsigned int h)
{
	struct statvfs st = { .f_bfree = 0 };

	/* Totals may be a second old, and quarantine ends with a checkpoint. */
	orphan_wait(c->hosts[h].fs, 10000);
	CU_ASSERT_EQUAL(journal_settle(c->hosts[h].fs), 0);
	cluster_sleep(c, STATFS_MS + 100);
	CU_ASSERT_EQUAL(fs_statfs(c->hosts[h].fs, &st), 0);
	return st.f_bfree;
}

/* Deleting gives back every block: data, map, attributes. */
static void deletion_frees_everything(struct cluster *c)
{
	uint64_t before, id;

	cluster_alone(c);
	make(c, "first", 10);		/* the first inode cluster stays */
	before = blocks_free(c, 0);
	id = make(c, "f", 4 * MIB);
	CU_ASSERT_EQUAL(xattr_set(c->fs, id, "user.a", "b", 1, 0), 0);
	CU_ASSERT_TRUE(blocks_free(c, 0) < before - 1000);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
	CU_ASSERT_EQUAL(blocks_free(c, 0), before);
}

/* More deletions than the list has places: they wait for the reaper, and none is refused. */
static void full_list_makes_deletions_wait(struct cluster *c)
{
	struct fs_attr attr;
	char name[32];
	unsigned int i, bad = 0;

	cluster_alone(c);
	for (i = 0; i < 4500; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		bad += fs_create(c->fs, fs_root(c->fs), name, S_IFREG, 0, &cluster_cred, &attr) != 0;
	}
	for (i = 0; i < 4500; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		bad += fs_unlink(c->fs, fs_root(c->fs), name) != 0;
	}
	CU_ASSERT_EQUAL(bad, 0);
	orphan_wait(c->fs, 60000);
	CU_ASSERT_EQUAL(c->fs->orphans->used, 0);
	CU_ASSERT_EQUAL(c->fs->orphans->reserved, 0);
}

/* An unlinked open file of a crashed host: its slot's next owner deletes it. */
static void next_owner_of_the_slot_deletes(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t before, id;

	cluster_alone(c);
	make(c, "first", 10);
	before = blocks_free(c, 0);
	id = make(c, "f", 1 * MIB);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, 0, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	cluster_crash(c, 0);
	cluster_alone(c);
	CU_ASSERT_EQUAL(blocks_free(c, 0), before);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), -ESTALE);
}

/* Puts @id on host 0's list as a truncation to @size would, and goes no further. */
static void begin_truncation(struct cluster *c, uint64_t id, uint64_t size)
{
	struct inode_disk *di;
	struct inode *ino;
	struct txn txn;

	CU_ASSERT_EQUAL_FATAL(orphan_reserve(c->fs), 0);
	CU_ASSERT_EQUAL_FATAL(inode_get(c->fs, inode_id_number(id), &ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(c->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(txn_begin(c->fs, 2, &txn), 0);
	di = inode_change(&txn, ino);
	di->size = cpu_to_le64(size);
	di->shrink_to = cpu_to_le64(size);
	orphan_add(&txn, ino, di);
	txn_end(&txn);
	inode_unlock(c->fs, ino, LOCK_EXCLUSIVE, 0);
	inode_put(c->fs, ino);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
}

/* A truncation that a crash cut short is finished by who recovers the slot. */
static void recoverer_finishes_truncations(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t id, before;

	cluster_alone(c);
	before = blocks_free(c, 0);
	id = make(c, "f", 4 * MIB);
	begin_truncation(c, id, 8192);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	cluster_crash(c, 0);
	cluster_sleep(c, 12000);
	CU_ASSERT_EQUAL(fs_getattr(c->hosts[1].fs, id, &attr), 0);
	CU_ASSERT_EQUAL(attr.size, 8192);
	CU_ASSERT_TRUE(attr.blocks < 200);
	CU_ASSERT_TRUE(blocks_free(c, 1) > before - 200);
}

/* What is written after the crash must not be cut off by the truncation before it. */
static void writer_finishes_the_truncation_first(struct cluster *c)
{
	struct fs_file *f;
	char buf[8] = "";
	uint64_t id;
	size_t done;

	cluster_alone(c);
	id = make(c, "f", 4 * MIB);
	begin_truncation(c, id, 8192);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 3 * MIB, "kept", 4, false, &done), 0);
	orphan_kick(c->fs, id);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 3 * MIB, buf, 4, &done), 0);
	CU_ASSERT_EQUAL(memcmp(buf, "kept", 4), 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 1 * MIB, buf, 4, &done), 0);
	CU_ASSERT_EQUAL(memcmp(buf, "\0\0\0\0", 4), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
}

/* @id stands in every block of crashed host 0's list, as a damaged or hostile volume may have it. */
static void list_everywhere(struct cluster *c, const struct super *s, uint32_t slot, uint64_t id)
{
	struct orphan_disk *d = blkdev_alloc(BLOCK_SIZE);
	uint32_t block;

	for (block = 0; block < ORPHAN_BLOCKS; block++) {
		struct meta_expect e = { .type = META_ORPHAN, .volume = s->volume, .owner = slot,
					 .addr = super_orphan_addr(s, slot, block) };

		simdisk_peek(c->disk, e.addr, d, BLOCK_SIZE);
		d->ids[7 + block] = cpu_to_le64(id);
		meta_seal(d, &e, meta_version(d) + 1);
		simdisk_poke(c->disk, e.addr, d, BLOCK_SIZE);
	}
	free(d);
}

/* Doubles are struck off together: more blocks of the list change than for one entry. */
static void doubles_do_not_stop_the_daemon(struct cluster *c, bool unlinked)
{
	struct fs_file *f;
	struct super s;
	uint32_t slot;
	uint64_t id;

	cluster_alone(c);
	id = make(c, "f", 4 * MIB);
	if (unlinked) {
		CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, 0, &cluster_cred, &f, NULL), 0);
		CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
	} else {
		begin_truncation(c, id, 8192);
	}
	CU_ASSERT_EQUAL(journal_settle(c->fs), 0);
	s = c->fs->super;
	slot = c->fs->orphans->slot;
	cluster_crash(c, 0);
	list_everywhere(c, &s, slot, id);
	cluster_alone(c);
	orphan_wait(c->fs, 10000);
	CU_ASSERT_EQUAL(c->fs->orphans->used, 0);
}

static void doubles_of_a_deletion(struct cluster *c)
{
	doubles_do_not_stop_the_daemon(c, true);
}

static void doubles_of_a_truncation(struct cluster *c)
{
	doubles_do_not_stop_the_daemon(c, false);
}

static uint64_t orphans_on_disk(struct cluster *c)
{
	struct check_params p = { .env = c->env, .report = cluster_finding, .arg = c };
	struct check_result r = { 0 };

	p.dev = simdisk_open(c->disk, c->env);
	CU_ASSERT_EQUAL(check_volume(&p, &r, c->why, sizeof(c->why)), 0);
	blkdev_close(p.dev);
	return r.orphans;
}

/* A slot that was left in order is nobody's to recover: its list would wait for its next owner. */
static void leaving_finishes_deletions(struct cluster *c)
{
	struct fs_attr attr = { 0 };
	char name[220];
	uint64_t dir;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "d", S_IFDIR | 0755, 0, &cluster_cred,
				  &attr), 0);
	dir = attr.id;
	for (unsigned int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "%u-%0200d", i, 0);
		CU_ASSERT_EQUAL(fs_create(c->fs, dir, name, S_IFREG, 0, &cluster_cred, &attr), 0);
	}
	make(c, "f", 4 * MIB);
	for (unsigned int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "%u-%0200d", i, 0);
		CU_ASSERT_EQUAL(fs_unlink(c->fs, dir, name), 0);
	}
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, fs_root(c->fs), "d"), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 0);
}

/* What others stand on cannot be deleted now: nobody waits for that when he leaves. */
static void leaving_does_not_wait_for_what_must_stay(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t begin;

	cluster_alone(c);
	make(c, "disk", 1 * MIB);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), "disk", "snap", NULL, &attr), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "snap"), 0);
	begin = env_now_ns(c->env);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_TRUE(env_now_ns(c->env) - begin < NSEC_PER_SEC);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 1);
	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "disk"), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 0);
}

/* A deletion that takes longer than a host may take to leave stops where it is, and goes on. */
static void leaving_interrupts_long_deletions(struct cluster *c)
{
	static char data[4096];
	struct simdisk_rule slow = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_READ,
				     .count = 1000000, .delay_ns = 500 * NSEC_PER_MSEC };
	struct fs_file *f;
	uint64_t id, begin;
	size_t done;

	cluster_alone(c);
	id = make(c, "f", 10);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	/* A map leaf for each: all have to be read. */
	for (uint64_t i = 1; i < 40; i++)
		CU_ASSERT_EQUAL(fs_write(c->fs, f, i * GIB, data, sizeof(data), false, &done), 0);
	fs_close(c->fs, f);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);
	slow.host = c->hosts[0].env;
	slow.off = c->fs->super.ag_addr;
	slow.len = c->fs->super.size - slow.off;
	simdisk_inject(c->disk, &slow);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "f"), 0);
	begin = env_now_ns(c->env);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_TRUE(env_now_ns(c->env) - begin < 8 * NSEC_PER_SEC);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 1);
	cluster_alone(c);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 0);
}

/* A field of @id's inode, as damage or a repair leaves it. */
static void set_image(struct cluster *c, uint64_t id, bool parent, uint64_t to)
{
	struct inode_disk *di;
	struct inode *ino;
	struct txn txn;

	CU_ASSERT_EQUAL_FATAL(inode_get(c->fs, inode_id_number(id), &ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(c->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(txn_begin(c->fs, 1, &txn), 0);
	di = inode_change(&txn, ino);
	*(parent ? &di->image_parent : &di->image_children) = cpu_to_le64(to);
	txn_end(&txn);
	inode_unlock(c->fs, ino, LOCK_EXCLUSIVE, 0);
	inode_put(c->fs, ino);
}

/* Its deletion cannot go on, and whoever looks at it waits for nobody. */
static void deleted_and_looked_at(struct cluster *c, const char *name, uint64_t id)
{
	struct image_info info;
	struct fs_attr attr;

	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), name), 0);
	cluster_sleep(c, 2000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	fs_image_info(c->fs, id, &info);
	CU_ASSERT(strstr(c->hosts[0].log, "is itself: run fsck.lunfs") != NULL);
}

/* An image that is its own parent, its own list of children, or its parent's: the reaper has it in hand. */
static void images_that_name_themselves(struct cluster *c)
{
	uint64_t base, top, list;
	struct image_info info;
	struct fs_attr attr;

	for (unsigned int i = 0; i < 3; i++) {
		cluster_alone(c);
		base = make(c, "disk", 1 * MIB);
		CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), "disk", "snap", NULL, &attr), 0);
		top = attr.id;
		CU_ASSERT_EQUAL(fs_image_info(c->fs, base, &info), 0);
		list = info.children_list;
		c->hosts[0].log_len = 0;
		set_image(c, i ? base : top, !i, i == 1 ? base : top);
		deleted_and_looked_at(c, i == 1 ? "snap" : "disk", i == 1 ? base : top);
		set_image(c, i ? base : top, !i, i ? list : base);
		CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), i == 1 ? "disk" : "snap"), 0);
		orphan_kick(c->fs, top);
		cluster_sleep(c, 2000);
		orphan_kick(c->fs, base);
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
		CU_ASSERT_EQUAL(orphans_on_disk(c), 0);
	}
}

/* A damaged image names a directory as its list, and who has that waits for the image, as a deletion there would. */
static void images_that_name_a_directory(struct cluster *c)
{
	uint64_t base, list, dir;
	struct image_info info;
	struct inode *dir_ino, *ino;
	struct fs_attr attr;

	cluster_alone(c);
	base = make(c, "disk", 1 * MIB);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "dir", S_IFDIR | 0755, 0, &cluster_cred, &attr), 0);
	dir = attr.id;
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), "disk", "snap", NULL, &attr), 0);
	CU_ASSERT_EQUAL(fs_image_info(c->fs, base, &info), 0);
	list = info.children_list;
	set_image(c, base, false, dir);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);	/* all is at home */
	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(inode_get(c->fs, inode_id_number(dir), &dir_ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(c->fs, dir_ino, dir, LOCK_EXCLUSIVE, 0, NULL), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "snap"), 0);
	cluster_sleep(c, 2000);
	CU_ASSERT_EQUAL_FATAL(inode_get(c->fs, inode_id_number(base), &ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(c->fs, ino, base, LOCK_SHARED, LOCK_TRY, NULL), 0);
	CU_ASSERT_TRUE(strstr(c->hosts[0].log, "cannot finish its deletion") != NULL);
	inode_unlock(c->fs, ino, LOCK_SHARED, LOCK_TRY);
	inode_put(c->fs, ino);
	inode_unlock(c->fs, dir_ino, LOCK_EXCLUSIVE, 0);
	inode_put(c->fs, dir_ino);
	set_image(c, base, false, list);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "disk"), 0);
	cluster_sleep(c, 2000);
	orphan_kick(c->fs, base);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(orphans_on_disk(c), 0);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(51, SIZE, fn); }

IN_CLUSTER(deletion_frees_everything)
IN_CLUSTER(full_list_makes_deletions_wait)
IN_CLUSTER(next_owner_of_the_slot_deletes)
IN_CLUSTER(recoverer_finishes_truncations)
IN_CLUSTER(writer_finishes_the_truncation_first)
IN_CLUSTER(doubles_of_a_deletion)
IN_CLUSTER(doubles_of_a_truncation)
IN_CLUSTER(leaving_finishes_deletions)
IN_CLUSTER(leaving_does_not_wait_for_what_must_stay)
IN_CLUSTER(leaving_interrupts_long_deletions)
IN_CLUSTER(images_that_name_themselves)
IN_CLUSTER(images_that_name_a_directory)

UNIT_MAIN("orphan",
	UNIT_TEST(test_deletion_frees_everything),
	UNIT_TEST(test_full_list_makes_deletions_wait),
	UNIT_TEST(test_next_owner_of_the_slot_deletes),
	UNIT_TEST(test_recoverer_finishes_truncations),
	UNIT_TEST(test_writer_finishes_the_truncation_first),
	UNIT_TEST(test_doubles_of_a_deletion),
	UNIT_TEST(test_doubles_of_a_truncation),
	UNIT_TEST(test_leaving_finishes_deletions),
	UNIT_TEST(test_leaving_does_not_wait_for_what_must_stay),
	UNIT_TEST(test_leaving_interrupts_long_deletions),
	UNIT_TEST(test_images_that_name_themselves),
	UNIT_TEST(test_images_that_name_a_directory)
);
