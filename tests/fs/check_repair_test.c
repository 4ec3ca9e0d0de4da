/* SPDX-License-Identifier: Apache-2.0 */
/* Repairs: whatever is wrong, one run makes the volume clean, and keeps what could be kept. */
#include "fs/check/fix.h"

#include "tests/fs/wrecks.h"

struct repairs {
	uint64_t found[CHECK_CODE_COUNT];
	bool show;
};

static void note(void *arg, const struct check_finding *f)
{
	struct repairs *r = arg;

	r->found[f->code]++;
	if (r->show)
		fprintf(stderr, "  %s%s at 0x%llx: %s\n", f->repaired ? "repaired: " : "",
			check_code_info(f->code)->name, (unsigned long long)f->addr, f->text);
}

static int run(struct volume *v, enum check_repair repair, struct repairs *rs,
	       struct check_result *r)
{
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = repair,
				  .own_slot = SLOT_NONE, .report = note, .arg = rs };

	return check_volume(&p, r, v->why, sizeof(v->why));
}

static uint32_t digest(struct volume *v)
{
	static uint8_t piece[MIB];
	uint32_t crc = 0;

	for (uint64_t addr = 0; addr < 64 * MIB; addr += sizeof(piece)) {
		simdisk_peek(v->disk, addr, piece, sizeof(piece));
		crc = crc32c(crc, piece, sizeof(piece));
	}
	return crc;
}

/* ---- every kind of damage ---- */

/* What is there after a repair: all that was there before, but for what was damaged itself. */
static void expect_kept(const struct volume *v, const struct check_result *r)
{
	void (*damage)(struct volume *) = cases[v->arg].damage;
	unsigned int files = 3, directories = 2, orphans = 1;

	if (damage == d_inode_damaged || damage == d_inode_invalid)
		files = 2;		/* the file of that inode */
	if (damage == d_inode_no_name)
		orphans = 0;		/* it has a name now */
	if (damage == d_dir_unreachable)
		directories = 3;	/* lost+found */
	if (r->files == files && r->directories == directories && r->orphans == orphans)
		return;
	fprintf(stderr, "case %u, %s: %llu files, %llu directories, %llu orphans\n",
		(unsigned int)v->arg, check_code_info(cases[v->arg].code)->name,
		(unsigned long long)r->files, (unsigned long long)r->directories,
		(unsigned long long)r->orphans);
	CU_FAIL("something was lost, or made up");
}

static bool is_repairable(enum check_code code)
{
	return check_code_info(code)->repair != CHECK_REPAIR_NONE || code == CHECK_JOURNAL_REPLAY;
}

static void expect_clean(struct volume *v)
{
	enum check_code code = cases[v->arg].code;
	struct repairs rs = { .show = false };
	struct check_result r;

	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.notes, 0);
	if (r.errors || r.notes)
		fprintf(stderr, "case %u: %s\n", (unsigned int)v->arg, check_code_info(code)->name);
	expect_kept(v, &r);
}

static void repaired(struct volume *v)
{
	enum check_code code = cases[v->arg].code;
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;

	if (!is_repairable(code))
		return;
	make_volume(v);
	cases[v->arg].damage(v);
	if (rs.show)
		fprintf(stderr, "case %u %s\n", (unsigned int)v->arg, check_code_info(code)->name);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_TRUE(rs.found[code] > 0 || code == CHECK_JOURNAL_REPLAY);
	CU_ASSERT_EQUAL(r.errors, 0);
	expect_clean(v);
}

/* A repair that leaves work for another one, or drops what it could have kept. */
static void every_damage_is_repaired_in_one_run(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++)
		volume_run(3, 64 * MIB, 512, repaired, i);
}

static void looked_before(struct volume *v)
{
	struct repairs rs = { .show = false };
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = CHECK_REPAIR_LOSS,
				  .looked = true, .own_slot = SLOT_NONE, .report = note,
				  .arg = &rs };
	struct check_result r;

	make_volume(v);
	d_inode_links(v);
	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(r.repaired, 1);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.rounds, 2);
	/* What a person would have to lose something for is not for -p to begin. */
	d_inode_damaged(v);
	p.repair = CHECK_REPAIR_SAFE;
	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(r.repaired, 0);
	CU_ASSERT_TRUE(r.errors > 0);
	CU_ASSERT_EQUAL(r.rounds, 1);
}

/* Who has looked already waits for two readings of a large volume, not for three. */
static void a_look_is_not_repeated(void)
{
	volume_run(3, 64 * MIB, 512, looked_before, 0);
}

/* ---- pointers to what is another's ---- */

static uint64_t pointer_to(const struct volume *v, uint32_t rel)
{
	return BPTR(block_of(v, rel), BIRTH);
}

static void others_leaf(struct volume *v)
{
	INODE(v, 1, {
		d->depth = cpu_to_le32(1);
		((le64 *)(void *)d->root)[0] = cpu_to_le64(pointer_to(v, LEAF_REL));
	});
}

static void others_xattr(struct volume *v)
{
	INODE(v, 0, d->xattr = cpu_to_le64(pointer_to(v, XATTR_REL)));
}

static void others_leaf_as_data(struct volume *v)
{
	INODE(v, 1, {
		entry_of(d)->unit = cpu_to_le64(block_of(v, LEAF_REL));
		entry_of(d)->valid = cpu_to_le64(1);
	});
}

/* The pointer behind the last index block, to what is not one. */
static void others_leaf_as_index(struct volume *v)
{
	ITABLE(v, d->next = cpu_to_le64(pointer_to(v, LEAF_REL)));
}

static void data_as_index(struct volume *v)
{
	ITABLE(v, d->next = cpu_to_le64(pointer_to(v, DATA_REL)));
}

static void inode_as_index(struct volume *v)
{
	AG(v, d->itable = cpu_to_le64(BPTR(inode_block_addr(number_of(v, 3)) >> BLOCK_SHIFT, 0)));
}

/* One cluster more than there is: the leaf, data and attributes as inodes. */
static void others_leaf_as_inode(struct volume *v)
{
	ITABLE(v, {
		d->entries[1].block = cpu_to_le32(LEAF_REL);
		d->entries[1].used = cpu_to_le16(3);
		d->entries[1].count = cpu_to_le16(2);
		d->count = cpu_to_le32(2);
	});
}

static void others_leaf_as_lock(struct volume *v)
{
	others_leaf_as_inode(v);
	ITABLE(v, {
		d->entries[1].block = cpu_to_le32(LEAF_REL - 1);
		d->entries[1].used = cpu_to_le16(0);
	});
}

static void data_as_inodes(struct volume *v)
{
	ITABLE(v, {
		d->entries[1].block = cpu_to_le32(UNIT_REL);
		d->entries[1].used = cpu_to_le16(0x5555);
		d->entries[1].count = cpu_to_le16(CLUSTER_INODES);
		d->count = cpu_to_le32(2);
	});
}

/* Two inodes are in no cluster; two that are in one are none. */
static void cluster_moved(struct volume *v)
{
	ITABLE(v, {
		d->entries[0].block = cpu_to_le32(le32_to_cpu(d->entries[0].block) + 4);
		d->entries[0].used = cpu_to_le16(0xc00f);
	});
}

static const struct {
	void (*damage)(struct volume *v);
	enum check_code code;
	uint64_t blocks;		/* of inode 1 afterwards */
} misleading[] = {
	{ others_leaf, CHECK_MAP_DAMAGED, 1 },
	{ others_xattr, CHECK_XATTR_DAMAGED, UNIT_BLOCKS + 1 },
	{ others_leaf_as_data, CHECK_BLOCK_TWICE, 2 },
	{ others_leaf_as_index, CHECK_ITABLE_DAMAGED, UNIT_BLOCKS + 1 },
	{ data_as_index, CHECK_ITABLE_DAMAGED, UNIT_BLOCKS + 1 },
	{ inode_as_index, CHECK_ITABLE_DAMAGED, UNIT_BLOCKS + 1 },
	{ others_leaf_as_inode, CHECK_INODE_DAMAGED, UNIT_BLOCKS + 1 },
	{ others_leaf_as_lock, CHECK_INODE_DAMAGED, UNIT_BLOCKS + 1 },
	{ data_as_inodes, CHECK_INODE_DAMAGED, UNIT_BLOCKS + 1 },
	{ cluster_moved, CHECK_INODE_DAMAGED, UNIT_BLOCKS + 1 },
};

#define BY_THE_INDEX	3u	/* from here on */

/* Of all that the files have. */
static uint32_t files_digest(struct volume *v)
{
	static uint8_t blocks[(DIR_REL + 1 - UNIT_REL) * BLOCK_SIZE];

	simdisk_peek(v->disk, addr_of(v, UNIT_REL), blocks, sizeof(blocks));
	return crc32c(0, blocks, sizeof(blocks));
}

static void misled(struct volume *v)
{
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;
	uint32_t before;

	make_volume(v);
	before = files_digest(v);
	misleading[v->arg].damage(v);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_TRUE(rs.found[misleading[v->arg].code] > 0);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	INODE(v, 0, CU_ASSERT_EQUAL(le64_to_cpu(d->xattr), 0));
	INODE(v, 3, {
		CU_ASSERT_EQUAL(le64_to_cpu(((le64 *)(void *)d->root)[0]),
				pointer_to(v, LEAF_REL));
		CU_ASSERT_EQUAL(le64_to_cpu(d->blocks), 2);
	});
	INODE(v, 1, {
		CU_ASSERT_EQUAL(le64_to_cpu(d->xattr), pointer_to(v, XATTR_REL));
		CU_ASSERT_EQUAL(le64_to_cpu(d->blocks), misleading[v->arg].blocks);
		CU_ASSERT_EQUAL(le64_to_cpu(entry_of(d)->valid), v->arg == 2 ? 0 : UINT64_MAX);
	});
	CU_ASSERT_TRUE(v->arg < BY_THE_INDEX || files_digest(v) == before);
	CU_ASSERT_EQUAL(r.files, 3);
	CU_ASSERT_EQUAL(r.directories, 2);
	CU_ASSERT_EQUAL(r.orphans, 1);
	if (r.files != 3 || files_digest(v) != before)
		fprintf(stderr, "pointer %u: %llu files\n", (unsigned int)v->arg,
			(unsigned long long)r.files);
}

/* Who comes first and is not believed would take an undamaged file's contents with it. */
static void a_wrong_pointer_takes_nothing_from_who_is_right(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(misleading); i++)
		volume_run(3, 64 * MIB, 512, misled, i);
}

/* ---- several writers ---- */

/* A frozen file, one on top of it, and one whose contents lie in its inode. */
static void many_writers(struct volume *v)
{
	static const unsigned int inodes[] = { 1, 3, 4 };
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;

	make_volume(v);
	for (unsigned int i = 0; i < ARRAY_SIZE(inodes); i++)
		INODE(v, inodes[i], d->flags = cpu_to_le32(le32_to_cpu(d->flags) | INODE_MULTI));
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_EQUAL(rs.found[CHECK_INODE_INVALID], 2 * ARRAY_SIZE(inodes));
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.files, 3);
	for (unsigned int i = 0; i < ARRAY_SIZE(inodes); i++)
		INODE(v, inodes[i], CU_ASSERT_EQUAL(le32_to_cpu(d->flags) & INODE_MULTI, 0));
}

/* They change a file without its lock: its map has to be such that none ever changes that. */
static void only_a_whole_file_has_several_writers(void)
{
	volume_run(3, 64 * MIB, 512, many_writers, 0);
}

/* ---- what may be done without asking ---- */

static void safe_only(struct volume *v)
{
	enum check_code code = cases[v->arg].code;
	struct repairs rs = { .show = false };
	struct check_result r;
	uint32_t before;

	make_volume(v);
	cases[v->arg].damage(v);
	before = digest(v);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_SAFE, &rs, &r), 0);
	if (r.lossy || r.unreadable) {
		CU_ASSERT_TRUE(r.errors > 0);
		CU_ASSERT_EQUAL(digest(v), before);
	} else if (is_repairable(code)) {
		CU_ASSERT_EQUAL(r.errors, 0);
		expect_clean(v);
	}
}

/* -p must not throw away what -y, or a person, could have saved; nor do half of it. */
static void safe_repairs_are_whole_or_none(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (cases[i].code != CHECK_UNWRITABLE)
			volume_run(3, 64 * MIB, 512, safe_only, i);
}

/* ---- a device that does not take it ---- */

/* Writes go into a cache that cannot be written back. */
static void fail_flushes(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_FLUSH };

	simdisk_clear_rules(v->disk);
	simdisk_inject(v->disk, &rule);
}

static void unwritable(struct volume *v)
{
	struct repairs rs = { .show = false };
	struct check_result r;

	make_volume(v);
	d_unwritable(v);
	if (v->arg)
		fail_flushes(v);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), -EIO);
	CU_ASSERT_TRUE(rs.found[CHECK_UNWRITABLE] > 0);
	simdisk_clear_rules(v->disk);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
}

/* Said with its code, and the repair ends: "repaired" alone would be a lie. */
static void a_write_that_fails_is_reported(void)
{
	for (uint64_t flush = 0; flush < 2; flush++)
		volume_run(3, 64 * MIB, 512, unwritable, flush);
}

/* ---- a repair that is cut off ---- */

struct cut {
	struct repairs rs;	/* first: report() gets it */
	uint64_t left;		/* writes that still succeed */
};

static int cut_off(void *arg, uint64_t addr, const void *old, size_t len)
{
	struct cut *cut = arg;

	(void)addr;
	(void)old;
	(void)len;
	if (!cut->left)
		return -EINTR;
	cut->left--;
	return 0;
}

#ifdef __SANITIZE_ADDRESS__
#define STRIDE	3u	/* the sanitizers look at a sample */
#define SEEDS	60u
#else
#define STRIDE	1u
#define SEEDS	300u
#endif

static bool cut_after;	/* whether the last one was cut off */

static void interrupted(struct volume *v)
{
	uint64_t n = v->arg >> 16;
	struct cut cut = { .left = n };
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = CHECK_REPAIR_LOSS,
				  .own_slot = SLOT_NONE, .report = note, .arg = &cut,
				  .before_write = cut_off };
	struct check_result r;
	int err;

	v->arg &= 0xffff;
	make_volume(v);
	cases[v->arg].damage(v);
	err = check_volume(&p, &r, v->why, sizeof(v->why));
	cut_after = err == -EINTR;
	CU_ASSERT_TRUE(!err || cut_after);
	if (!cut_after)
		return;
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &cut.rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	expect_clean(v);
}

/* Killed at any write and run again, it comes to the same end. */
static void repair_may_be_cut_off_at_any_write(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (!is_repairable(cases[i].code))
			continue;
		cut_after = true;
		for (uint64_t n = i % STRIDE; cut_after; n += STRIDE)
			volume_run(3, 64 * MIB, 512, interrupted, n << 16 | i);
	}
}

/* ---- taking it back ---- */

#define UNDO_MAX	4096u

struct undo {
	struct repairs rs;
	unsigned int count;
	struct { uint64_t addr; size_t len; void *old; } was[UNDO_MAX];
};

static int keep_old(void *arg, uint64_t addr, const void *old, size_t len)
{
	struct undo *u = arg;

	CU_ASSERT_FATAL(u->count < UNDO_MAX);
	u->was[u->count].addr = addr;
	u->was[u->count].len = len;
	u->was[u->count].old = malloc(len);
	memcpy(u->was[u->count++].old, old, len);
	return 0;
}

static void taken_back(struct volume *v)
{
	struct undo *u = calloc(1, sizeof(*u));
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = CHECK_REPAIR_LOSS,
				  .own_slot = SLOT_NONE, .report = note, .arg = u,
				  .before_write = keep_old };
	struct check_result r;
	uint32_t before;

	make_volume(v);
	cases[v->arg].damage(v);
	before = digest(v);
	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	while (u->count--) {
		simdisk_poke(v->disk, u->was[u->count].addr, u->was[u->count].old,
			     u->was[u->count].len);
		free(u->was[u->count].old);
	}
	CU_ASSERT_EQUAL(digest(v), before);
	free(u);
}

/* Every write is announced with what was there, or --undo would bring back a mixture. */
static void every_write_can_be_taken_back(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (cases[i].code != CHECK_UNREADABLE && cases[i].code != CHECK_UNWRITABLE)
			volume_run(3, 64 * MIB, 512, taken_back, i);
}

/* ---- what two repairs could undo for each other ---- */

static void lose_bitmap(struct volume *v) { spoil(v, v->s.ag_addr + 2 * BLOCK_SIZE); }

static void impossible_index(struct volume *v)
{
	ITABLE(v, d->count = cpu_to_le32(ITABLE_ENTRIES + 1));
	lose_bitmap(v);
}

/* And the orphan, which is found again, is found twice. */
static void no_index(struct volume *v)
{
	ORPHAN(v, 1, d->ids[7] = d->ids[5]);
	AG(v, d->itable = cpu_to_le64(0));
	lose_bitmap(v);
}

/* The root's inode proper where another inode's lock would be. */
static void cluster_across_root(struct volume *v)
{
	ITABLE(v, d->entries[0].block = cpu_to_le32(le32_to_cpu(d->entries[0].block) + 1));
}

static void cluster_across_root_before(struct volume *v)
{
	ITABLE(v, {
		d->entries[1] = d->entries[0];
		d->entries[0].block = cpu_to_le32(le32_to_cpu(d->entries[0].block) + 1);
		d->count = cpu_to_le32(2);
	});
}

/* As an earlier repair left it: the index has the root's lock block, and a cluster there. */
static void index_in_root(struct volume *v)
{
	uint64_t lock = inode_lock_addr(number_of(v, 0));

	EDIT(v, itable_disk, META_ITABLE, lock, 0, 0, {
		memset(d, 0, sizeof(*d));
		d->count = cpu_to_le32(1);
		d->entries[0].block = cpu_to_le32((uint32_t)(number_of(v, 0) - block_of(v, 0)));
		d->entries[0].used = cpu_to_le16(1);
		d->entries[0].count = cpu_to_le16(1);
	});
	AG(v, d->itable = cpu_to_le64(number_of(v, 0)));
	lose_bitmap(v);
}

/* An orphan whose inode would lie in the root's lock block. */
static void inode_across_root(struct volume *v)
{
	uint64_t number = number_of(v, 0) - 1;

	EDIT(v, inode_disk, META_INODE, inode_block_addr(number), number, 0, {
		memset(d, 0, sizeof(*d));
		fill_inode(d, S_IFREG | 0644, 0, INODE_INLINE | INODE_ORPHAN, id_of(v, 0), "no");
	});
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(inode_id_make(number, GENERATION)));
	no_index(v);
}

/* A group of which nothing says what is free, and the one inode in it: at its end. */
static void no_index_elsewhere(struct volume *v)
{
	uint64_t ag = super_ag_addr(&v->s, 1);
	uint64_t number = (ag >> BLOCK_SHIFT) + super_ag_blocks(&v->s, 1) - 2;

	CU_ASSERT_FATAL(v->s.ag_count > 1);
	INODE(v, 4, memset(d, 0, sizeof(*d)));
	EDIT(v, inode_disk, META_INODE, inode_block_addr(number), number, 0, {
		memset(d, 0, sizeof(*d));
		fill_inode(d, S_IFREG | 0644, 0, INODE_INLINE | INODE_ORPHAN, id_of(v, 0), "gone");
	});
	ORPHAN(v, 1, d->ids[5] = cpu_to_le64(inode_id_make(number, GENERATION)));
	EDIT(v, ag_disk, META_AG, ag + BLOCK_SIZE, 1, 0,
	     for (uint32_t i = 0; i < super_ag_bitmaps(&v->s); i++) {
		d->bitmap_ready[i / 8] |= (uint8_t)(1u << i % 8);
		spoil(v, ag + (AG_BITMAP_BLOCK + i) * BLOCK_SIZE);
	     });
}

/*
 * A group without header and bitmap: what a directory in it names lies where the first free block
 * seems to be, and is known only once the directory is found again.
 */
static void no_header_elsewhere(struct volume *v)
{
	uint64_t ag = super_ag_addr(&v->s, 1), first = (ag >> BLOCK_SHIFT) + super_ag_meta(&v->s);
	uint64_t dir = first + 100;

	CU_ASSERT_FATAL(v->s.ag_count > 1);
	INODE(v, 0, {
		uint32_t used = put_entry(v, d->root, 0, "file", id_of(v, 1), DT_REG);

		used = put_entry(v, d->root, used, "sub", inode_id_make(dir, GENERATION), DT_DIR);
		CU_ASSERT_EQUAL(le32_to_cpu(d->root_count), used);
	});
	INODE(v, 2, memset(d, 0, sizeof(*d)));
	INODE(v, 3, memset(d, 0, sizeof(*d)));
	EDIT(v, inode_disk, META_INODE, inode_block_addr(dir), dir, 0, {
		memset(d, 0, sizeof(*d));
		fill_inode(d, S_IFDIR | 0755, 2, INODE_INLINE, id_of(v, 0), "sub");
		d->root_count = cpu_to_le32(put_entry(v, d->root, 0, "x",
						      inode_id_make(first, GENERATION), DT_REG));
		d->size = cpu_to_le64(le32_to_cpu(d->root_count));
		d->entries = cpu_to_le64(1);
	});
	EDIT(v, inode_disk, META_INODE, inode_block_addr(first), first, 0, {
		memset(d, 0, sizeof(*d));
		fill_inode(d, S_IFREG | 0644, 1, INODE_INLINE, inode_id_make(dir, GENERATION), "x");
	});
	for (uint32_t i = 0; i <= super_ag_bitmaps(&v->s); i++)
		spoil(v, ag + (AG_HEADER_BLOCK + i) * BLOCK_SIZE);
}

/* The header of that group says that it ends before the inode, as one may before a volume grew. */
static void short_header_elsewhere(struct volume *v)
{
	no_index_elsewhere(v);
	EDIT(v, ag_disk, META_AG, super_ag_addr(&v->s, 1) + BLOCK_SIZE, 1, 0, {
		d->blocks = cpu_to_le32(1000);
		d->free_blocks = cpu_to_le32(500);
		memset(d->bitmap_ready, 0, sizeof(d->bitmap_ready));
	});
}

static void (*const knots[])(struct volume *) = {
	impossible_index, no_index, cluster_across_root, cluster_across_root_before, index_in_root,
	inode_across_root, no_index_elsewhere, no_header_elsewhere,
	short_header_elsewhere,
};

static void untied(struct volume *v)
{
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;
	uint64_t index;

	make_volume(v);
	knots[v->arg](v);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_TRUE(r.rounds <= 10);
	/* Nothing was called free before all was known, nor put back twice; mkfs's place is kept. */
	CU_ASSERT_EQUAL(rs.found[CHECK_BITMAP_FREE], 0);
	CU_ASSERT_EQUAL(rs.found[CHECK_BLOCK_TWICE], 0);
	AG(v, index = le64_to_cpu(d->itable));
	CU_ASSERT_EQUAL(index, number_of(v, 0) - 1);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.files, 3);
	CU_ASSERT_EQUAL(r.directories, 2);
	CU_ASSERT_EQUAL(r.orphans, 1);
	if (r.errors || r.files != 3 || r.directories != 2 || r.orphans != 1)
		fprintf(stderr, "knot %u: %llu errors, %llu files, %llu directories, %llu orphans\n",
			(unsigned int)v->arg, (unsigned long long)r.errors,
			(unsigned long long)r.files, (unsigned long long)r.directories,
			(unsigned long long)r.orphans);
}

/*
 * An index that was struck and found again must not lie where what it had lies, and what was struck
 * for the root's sake must not come back: rounds without end, and the root's lock overwritten.
 */
static void what_is_struck_stays_struck(void)
{
	for (uint64_t i = 0; i < ARRAY_SIZE(knots); i++)
		volume_run(3, 2 * GIB, 512, untied, i);
}

/* ---- what nothing leads to any more ---- */

static void unnamed(struct volume *v)
{
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;

	make_volume(v);
	for (uint64_t addr = inode_lock_addr(number_of(v, 2)), i = 0; i < 2; i++, addr += BLOCK_SIZE) {
		memset(v->block, 0x5a, BLOCK_SIZE);
		simdisk_poke(v->disk, addr, v->block, BLOCK_SIZE);
	}
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_TRUE(rs.found[CHECK_INODE_DAMAGED] > 0);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.files, 3);
	CU_ASSERT_EQUAL(r.orphans, 1);
	/* The root and lost+found, which has /sub/x. */
	CU_ASSERT_EQUAL(r.directories, 2);
	INODE(v, 3, {
		CU_ASSERT_TRUE(le16_to_cpu(d->name_len) > 0 && d->name[0] == '#');
		CU_ASSERT_NOT_EQUAL(le64_to_cpu(d->parent), id_of(v, 2));
		CU_ASSERT_EQUAL(le32_to_cpu(d->nlink), 1);
	});
}

/* Neither its inode nor its lock tells that it was one; what was in it is kept. */
static void a_directory_of_which_nothing_is_left(void)
{
	volume_run(3, 64 * MIB, 512, unnamed, 0);
}

/* ---- anything at all ---- */

/* Two to six places of sealed garbage, flipped bytes and blocks that lie elsewhere. */
static void spoil_anything(struct volume *v)
{
	uint64_t places[] = { v->s.ag_addr + BLOCK_SIZE, v->s.ag_addr + 2 * BLOCK_SIZE,
			      (number_of(v, 0) - 1) << BLOCK_SHIFT,
			      inode_block_addr(number_of(v, 0)), inode_block_addr(number_of(v, 1)),
			      inode_block_addr(number_of(v, 2)), inode_block_addr(number_of(v, 3)),
			      inode_block_addr(number_of(v, 4)), inode_block_addr(number_of(v, 5)),
			      addr_of(v, LEAF_REL), addr_of(v, DIR_REL), addr_of(v, XATTR_REL),
			      super_orphan_addr(&v->s, 1, 0), inode_lock_addr(number_of(v, 1)),
			      v->s.slots_addr, super_journal_addr(&v->s, 1) };
	unsigned int count = 2 + (unsigned int)env_random_below(v->host, 5);

	while (count--) {
		uint64_t addr = places[env_random_below(v->host, ARRAY_SIZE(places))];
		struct meta_hdr_disk *hdr = v->block;
		struct meta_expect e = { .volume = v->s.volume, .addr = addr };
		uint64_t other = places[env_random_below(v->host, ARRAY_SIZE(places))];
		uint8_t *bytes = v->block;

		simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
		e.type = (enum meta_type)le32_to_cpu(hdr->magic);
		e.owner = le64_to_cpu(hdr->owner);
		e.birth = le32_to_cpu(hdr->birth);
		for (unsigned int i = 0; i < 4; i++)
			bytes[64 + env_random_below(v->host, 600)] =
				(uint8_t)env_random_below(v->host, 256);
		switch (env_random_below(v->host, 4)) {
		case 0:		/* torn */
			break;
		case 1:		/* another block */
			simdisk_peek(v->disk, other, v->block, BLOCK_SIZE);
			break;
		case 2:		/* nothing */
			memset(v->block, 0, BLOCK_SIZE);
			break;
		default:
			meta_seal(v->block, &e, 3);
		}
		simdisk_poke(v->disk, addr, v->block, BLOCK_SIZE);
	}
}

static void anything(struct volume *v)
{
	struct repairs rs = { .show = getenv("SHOW") };
	struct check_result r;

	make_volume(v);
	spoil_anything(v);
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_LOSS, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	if (r.errors)
		fprintf(stderr, "seed %u: %llu errors left after %u rounds\n",
			(unsigned int)v->arg, (unsigned long long)r.errors, r.rounds);
	rs.show = false;
	CU_ASSERT_EQUAL(run(v, CHECK_REPAIR_NONE, &rs, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_TRUE(r.directories >= 1);
}

static void garbage_is_repaired_too(void)
{
	uint64_t from = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 1;
	uint64_t count = getenv("SEED") ? 1 : getenv("COUNT") ?
			 strtoull(getenv("COUNT"), NULL, 0) : SEEDS;

	for (uint64_t seed = from; seed < from + count; seed++)
		volume_run(seed, 64 * MIB, 512, anything, seed);
}

UNIT_MAIN("fs/check_repair",
	  UNIT_TEST(every_damage_is_repaired_in_one_run),
	  UNIT_TEST(a_wrong_pointer_takes_nothing_from_who_is_right),
	  UNIT_TEST(only_a_whole_file_has_several_writers),
	  UNIT_TEST(a_look_is_not_repeated),
	  UNIT_TEST(safe_repairs_are_whole_or_none),
	  UNIT_TEST(a_write_that_fails_is_reported),
	  UNIT_TEST(repair_may_be_cut_off_at_any_write),
	  UNIT_TEST(every_write_can_be_taken_back),
	  UNIT_TEST(what_is_struck_stays_struck),
	  UNIT_TEST(a_directory_of_which_nothing_is_left),
	  UNIT_TEST(garbage_is_repaired_too));
