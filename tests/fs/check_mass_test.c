/* SPDX-License-Identifier: Apache-2.0 */
/* Repairs of more damage than a round remembers: several rounds come to what one would. */
#include "fs/check/fix.h"

#include "tests/fs/wrecks.h"

#define FILES		160u
#define CLUSTERS_REL	1024u
#define UNITS_REL	2048u
#define UNITS		(FILES / 4)	/* files 0 to 79 have one each; two share one where that is wrong */
#define CHAIN		(FILES / 2 - 6)
#define FEW		16u		/* notes; of blocks UNIT_BLOCKS, the least */
#define NOT_THERE	12u		/* an inode that is free */
#define VOLUME		(128 * MIB)

enum { LOST, TWICE, UNINDEXED, KINDS };

#ifdef __SANITIZE_ADDRESS__
#define STRIDE		41u		/* the sanitizers look at a sample */
#else
#define STRIDE		7u
#endif

static uint64_t file_number(const struct volume *v, uint32_t i)
{
	return block_of(v, CLUSTERS_REL) + 2 * i;
}

static uint64_t file_id(const struct volume *v, uint32_t i)
{
	return inode_id_make(file_number(v, i), GENERATION);
}

#define FILE_INODE(v, i, ...)							\
	EDIT(v, inode_disk, META_INODE, inode_block_addr(file_number(v, i)),	\
	     file_number(v, i), 0, __VA_ARGS__)

/* Of a pair that shares a unit in turn the first and the second was changed last. */
static bool is_newer(uint32_t i)
{
	return i / 2 % 2 != i % 2;
}

/*
 * The unit of file @i, which has one.  The last one lies across two clusters of inodes; before it is a
 * chain: what one has of the next one must not make it move before it is known what else has its rest.
 */
static uint32_t unit_rel(uint32_t kind, uint32_t i)
{
	if (kind == TWICE && i == FILES / 2 - 1)
		return CLUSTERS_REL;
	if (kind == TWICE && i == CHAIN)
		return CLUSTERS_REL - 2 * UNIT_BLOCKS;
	if (kind == TWICE && i == CHAIN + 1)
		return CLUSTERS_REL - UNIT_BLOCKS - 8;
	if (kind == TWICE && i == CHAIN + 2)
		return CLUSTERS_REL - 16;
	return UNITS_REL + UNIT_BLOCKS * (kind == TWICE ? i / 2 : i);
}

/* ---- making it ---- */

/* Which file's name file @i states: two state the same, and one that of a file that has it. */
static uint32_t name_of(uint32_t kind, uint32_t i)
{
	return kind != LOST ? i : i == 2 ? 1 : i == 7 ? 10 : i;
}

static bool in_leaf(uint32_t kind, uint32_t i)
{
	return kind != LOST || i % 5 == 0;
}

static void make_file(struct volume *v, uint32_t kind, uint32_t i)
{
	bool nowhere = kind == LOST && i % 3 == 0;
	uint64_t dir = nowhere ? inode_id_make(number_of(v, NOT_THERE), GENERATION) : id_of(v, 2);
	uint8_t lock[BLOCK_SIZE] BLKDEV_ALIGNED = { 0 };
	struct lockrec r;
	char name[8];

	lockrec_init(v->host, &r);
	lockrec_encode(&r, v->s.volume, inode_lock_addr(file_number(v, i)), lock, BLOCK_SIZE);
	simdisk_poke(v->disk, inode_lock_addr(file_number(v, i)), lock, BLOCK_SIZE);
	snprintf(name, sizeof(name), "n%03u", name_of(kind, i));
	FILE_INODE(v, i, {
		memset(d, 0, sizeof(*d));
		fill_inode(d, S_IFREG | 0644, 1, i < FILES / 2 ? 0 : INODE_INLINE, dir, name);
		d->mtime = d->ctime = cpu_to_le64(is_newer(i) ? 2000 : 1000);
		if (i < FILES / 2) {
			d->size = cpu_to_le64(UNIT_SIZE);
			d->blocks = cpu_to_le64(UNIT_BLOCKS);
			d->root_count = cpu_to_le32(1);
			entry_of(d)->unit = cpu_to_le64(6ULL << ENTRY_ORDER_SHIFT |
							block_of(v, unit_rel(kind, i)));
			entry_of(d)->valid = cpu_to_le64(UINT64_MAX);
		}
	});
}

struct name {
	uint64_t hash, id;
	char text[8];
};

static int by_hash(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* /sub has all of them, in one leaf. */
static void make_names(struct volume *v, uint32_t kind)
{
	struct name names[FILES + 1];
	uint32_t count = 0, used = 0;

	names[count++] = (struct name){ hash_of(v, "x"), id_of(v, 3), "x" };
	for (uint32_t i = 0; i < FILES; i++) {
		struct name *n = &names[count];

		if (!in_leaf(kind, i))
			continue;
		count++;
		snprintf(n->text, sizeof(n->text), "n%03u", i);
		n->hash = hash_of(v, n->text);
		n->id = file_id(v, i);
	}
	qsort(names, count, sizeof(*names), by_hash);
	DIR_LEAF(v, {
		memset(d, 0, sizeof(*d));
		for (uint32_t i = 0; i < count; i++)
			used = put_entry(v, d->entries, used, names[i].text, names[i].id, DT_REG);
		d->used = cpu_to_le32(used);
		d->count = cpu_to_le32(count);
	});
	INODE(v, 2, {
		d->size = cpu_to_le64(used);
		d->entries = cpu_to_le64(count);
	});
}

static void make(struct volume *v, uint32_t kind)
{
	uint32_t units = kind == TWICE ? UNITS : FILES / 2, clusters = FILES / CLUSTER_INODES;
	uint32_t ends[][2] = { { CLUSTERS_REL - 2 * UNIT_BLOCKS, 2 * UNIT_BLOCKS + 2 * FILES }, { UNITS_REL, units * UNIT_BLOCKS } };

	make_volume(v);
	for (uint32_t i = 0; i < FILES; i++)
		make_file(v, kind, i);
	make_names(v, kind);
	BITMAP(v, {
		for (uint32_t r = 0; r < 2; r++)
			for (uint32_t i = ends[r][0]; i < ends[r][0] + ends[r][1]; i++)
				d->bits[i / 8] |= (uint8_t)(1u << i % 8);
	});
	AG(v, {
		d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) - ends[0][1] - ends[1][1]);
		d->inodes_used = cpu_to_le32(le32_to_cpu(d->inodes_used) +
					     (kind == UNINDEXED ? 0 : FILES));
	});
	if (kind == UNINDEXED)
		return;
	ITABLE(v, {
		for (uint32_t k = 1; k <= clusters; k++) {
			d->entries[k].block = cpu_to_le32(CLUSTERS_REL + CLUSTER_BLOCKS * (k - 1));
			d->entries[k].used = cpu_to_le16(0xffff);
			d->entries[k].count = cpu_to_le16(CLUSTER_INODES);
		}
		d->count = cpu_to_le32(1 + clusters);
	});
}

/* ---- what came of it ---- */

/* Of the files: names, places, contents.  Where their blocks lie does not matter. */
static uint32_t digest(struct volume *v)
{
	uint8_t data[BLOCK_SIZE];
	uint32_t crc = 0;

	for (uint32_t i = 0; i < FILES; i++) {
		uint64_t unit = 0, valid = 0;

		FILE_INODE(v, i, {
			crc = crc32c(crc, &d->parent, sizeof(d->parent));
			crc = crc32c(crc, &d->nlink, sizeof(d->nlink));
			crc = crc32c(crc, &d->blocks, sizeof(d->blocks));
			crc = crc32c(crc, d->name, le16_to_cpu(d->name_len));
			valid = le64_to_cpu(entry_of(d)->valid);
			crc = crc32c(crc, &valid, sizeof(valid));
			unit = le64_to_cpu(entry_of(d)->unit) & ((1ULL << ENTRY_BLOCK_BITS) - 1);
		});
		for (uint32_t b = 0; b < UNIT_BLOCKS; b++) {
			if (!(valid & 1ULL << b))
				continue;
			simdisk_peek(v->disk, (unit + b) << BLOCK_SHIFT, data, sizeof(data));
			crc = crc32c(crc, data, sizeof(data));
		}
	}
	return crc;
}

/* Of two files that shared a unit the newer one has it; what metadata has is nobody's data. */
static void expect_owners(struct volume *v)
{
	for (uint32_t i = 0; i < FILES / 2; i++) {
		uint32_t rel = unit_rel(TWICE, i);
		bool keeps = i == FILES / 2 - 2 || i == CHAIN + 3 ||
			     (is_newer(i) && i < FILES / 2 - 1 && i != CHAIN + 1 && i != CHAIN + 2);
		/* Blocks of inodes were never its data. */
		uint64_t valid = i == FILES / 2 - 1 ? 0 : i == CHAIN + 2 ? 0xffff : UINT64_MAX;

		FILE_INODE(v, i, {
			uint64_t unit = le64_to_cpu(entry_of(d)->unit) & ((1ULL << ENTRY_BLOCK_BITS) - 1);

			CU_ASSERT_EQUAL(unit == block_of(v, rel), keeps);
			CU_ASSERT_EQUAL(le64_to_cpu(entry_of(d)->valid), valid);
		});
	}
}

struct cut {
	bool	show;
	bool	limited;
	uint64_t left;		/* writes that still succeed */
	uint64_t twice;		/* findings of blocks that two have, said to be repaired */
};

static void note(void *arg, const struct check_finding *f)
{
	struct cut *cut = arg;

	cut->twice += f->repaired && f->code == CHECK_BLOCK_TWICE;
	if (cut->show)
		fprintf(stderr, "  %s%s at 0x%llx: %s\n", f->repaired ? "repaired: " : "",
			check_code_info(f->code)->name, (unsigned long long)f->addr, f->text);
}

static int cut_off(void *arg, uint64_t addr, const void *old, size_t len)
{
	struct cut *cut = arg;

	(void)addr;
	(void)old;
	(void)len;
	if (cut->limited && !cut->left)
		return -EINTR;
	cut->left--;
	return 0;
}

static int repair(struct volume *v, uint32_t notes, struct cut *cut, struct check_result *r)
{
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = CHECK_REPAIR_LOSS,
				  .own_slot = SLOT_NONE, .report = note, .arg = cut,
				  .before_write = cut_off, .notes = notes };

	cut->show = getenv("SHOW");
	return check_volume(&p, r, v->why, sizeof(v->why));
}

static uint32_t expect_clean(struct volume *v, uint32_t kind)
{
	struct cut cut = { .show = getenv("SHOW") };
	struct check_params p = { .env = v->host, .dev = v->dev, .own_slot = SLOT_NONE,
				  .report = note, .arg = &cut };
	struct check_result r;

	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.notes, 0);
	CU_ASSERT_EQUAL(r.files, FILES + 3);
	CU_ASSERT_EQUAL(r.directories, kind == LOST ? 3 : 2);
	if (kind == TWICE)
		expect_owners(v);
	return digest(v);
}

/* ---- the tests ---- */

static uint32_t whole[KINDS];		/* what a repair that remembers all comes to */
static unsigned int rounds[KINDS];

static void remembers_all(struct volume *v)
{
	struct cut cut = { .limited = false };
	struct check_result r;

	make(v, (uint32_t)v->arg);
	CU_ASSERT_EQUAL(repair(v, 0, &cut, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_TRUE(r.rounds <= 8);
	rounds[v->arg] = r.rounds;
	whole[v->arg] = expect_clean(v, (uint32_t)v->arg);
}

static void remembers_few(struct volume *v)
{
	struct cut cut = { .limited = false };
	struct check_result r;

	make(v, (uint32_t)v->arg);
	CU_ASSERT_EQUAL(repair(v, FEW, &cut, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	/* What is left to a later round is not said to be repaired. */
	CU_ASSERT_TRUE(cut.twice <= 4 * UNITS * UNIT_BLOCKS);
	if (getenv("SHOW"))
		fprintf(stderr, "rounds: %u, %u\n", rounds[v->arg], r.rounds);
	CU_ASSERT_TRUE(r.rounds >= rounds[v->arg] + 4);
	CU_ASSERT_EQUAL(expect_clean(v, (uint32_t)v->arg), whole[v->arg]);
}

/* What a round has no room for would be forgotten, or done by half of what is known of it. */
static void a_repair_in_parts_comes_to_the_same(void)
{
	for (uint64_t kind = 0; kind < KINDS; kind++) {
		volume_run(5, VOLUME, 512, remembers_all, kind);
		volume_run(5, VOLUME, 512, remembers_few, kind);
	}
}

static bool cut_after;	/* whether the last one was cut off */

static void interrupted(struct volume *v)
{
	struct cut cut = { .limited = true, .left = v->arg >> 16 };
	uint32_t kind = v->arg & 0xffff;
	struct check_result r;
	int err;

	make(v, kind);
	err = repair(v, FEW, &cut, &r);
	cut_after = err == -EINTR;
	CU_ASSERT_TRUE(!err || cut_after);
	if (!cut_after)
		return;
	cut.limited = false;
	CU_ASSERT_EQUAL(repair(v, 3 * FEW, &cut, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(expect_clean(v, kind), whole[kind]);
}

static void a_repair_in_parts_may_be_cut_off(void)
{
	for (uint64_t kind = 0; kind < KINDS; kind++) {
		cut_after = true;
		volume_run(5, VOLUME, 512, remembers_all, kind);
		for (uint64_t n = kind; cut_after; n += STRIDE)
			volume_run(5, VOLUME, 512, interrupted, n << 16 | kind);
	}
}

UNIT_MAIN("fs/check_mass",
	  UNIT_TEST(a_repair_in_parts_comes_to_the_same),
	  UNIT_TEST(a_repair_in_parts_may_be_cut_off));
