/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/check.h"

#include "tests/fs/wrecks.h"

/* ---- running the check ---- */

struct findings {
	uint64_t seen[CHECK_CODE_COUNT];
	bool show;
};

static void note_finding(void *arg, const struct check_finding *f)
{
	struct findings *fs = arg;

	fs->seen[f->code]++;
	if (fs->show)
		fprintf(stderr, "%s at 0x%llx: %s\n", check_code_info(f->code)->name,
			(unsigned long long)f->addr, f->text);
}

static struct check_result run_check(struct volume *v, struct findings *fs)
{
	struct check_params p = { .env = v->host, .dev = v->dev, .report = note_finding,
				  .arg = fs };
	struct check_result r;

	memset(fs->seen, 0, sizeof(fs->seen));
	CU_ASSERT_EQUAL_FATAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	return r;
}

static void sound(struct volume *v)
{
	struct findings fs = { .show = true };
	struct simdisk_stats before, after;
	struct check_result r;

	make_volume(v);
	simdisk_stats(v->disk, v->host, &before);
	r = run_check(v, &fs);
	simdisk_stats(v->disk, v->host, &after);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.notes, 0);
	CU_ASSERT_EQUAL(r.directories, 2);
	CU_ASSERT_EQUAL(r.files, 3);
	CU_ASSERT_EQUAL(r.orphans, 1);
	CU_ASSERT_TRUE(r.quiet);
	for (unsigned int op = BLK_WRITE; op <= BLK_CAW; op++)
		CU_ASSERT_EQUAL(before.ops[op], after.ops[op]);
}

/* A check that cries wolf, or that writes to a volume in use, is worse than none. */
static void sound_volume_is_clean_and_not_written_to(void)
{
	volume_run(1, 64 * MIB, 512, sound, 0);
	volume_run(2, 64 * MIB, 4096, sound, 0);
}

static void damaged(struct volume *v)
{
	struct findings fs = { 0 };
	enum check_code code = cases[v->arg].code;
	struct check_result r;

	make_volume(v);
	cases[v->arg].damage(v);
	r = run_check(v, &fs);
	CU_ASSERT_TRUE(fs.seen[code] > 0);
	if (!fs.seen[code])
		fprintf(stderr, "case %u: no %s\n", (unsigned int)v->arg,
			check_code_info(code)->name);
	if (check_code_info(code)->severity == CHECK_ERROR)
		CU_ASSERT_TRUE(r.errors > 0);
	if (check_code_info(code)->severity == CHECK_NOTE)
		CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.unreadable, fs.seen[CHECK_UNREADABLE]);
}

/* Each kind of damage that the manual lists is found. */
static void every_code_is_found_where_its_damage_is(void)
{
	bool covered[CHECK_CODE_COUNT] = { false };

	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].code != CHECK_UNWRITABLE)	/* only a repair writes */
			volume_run(3, 64 * MIB, 512, damaged, i);
		covered[cases[i].code] = true;
	}
	for (unsigned int i = 0; i < CHECK_CODE_COUNT; i++)
		CU_ASSERT_TRUE(covered[i]);
}

/* ---- hostile contents ---- */

/* Random bytes in a random metadata block, sealed: no crash, no endless loop (R9). */
static void fuzzed(struct volume *v)
{
	struct findings fs = { .show = false };
	uint64_t places[] = { (number_of(v, 0) - 1) << BLOCK_SHIFT, 0, 0, 0, 0, 0, 0, 0 };

	make_volume(v);
	places[0] = (number_of(v, 0) - 1) << BLOCK_SHIFT;
	places[1] = v->s.ag_addr + BLOCK_SIZE;
	places[2] = inode_block_addr(number_of(v, 0));
	places[3] = inode_block_addr(number_of(v, 1));
	places[4] = inode_block_addr(number_of(v, 2));
	places[5] = addr_of(v, LEAF_REL);
	places[6] = addr_of(v, DIR_REL);
	places[7] = addr_of(v, XATTR_REL);
	for (unsigned int round = 0; round < 40; round++) {
		uint64_t addr = places[env_random_below(v->host, ARRAY_SIZE(places))];
		struct meta_hdr_disk *hdr = v->block;
		struct meta_expect e = { .volume = v->s.volume, .addr = addr };

		simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
		e.type = (enum meta_type)le32_to_cpu(hdr->magic);
		e.owner = le64_to_cpu(hdr->owner);
		e.birth = le32_to_cpu(hdr->birth);
		for (unsigned int i = 0; i < 4; i++)
			((uint8_t *)v->block)[64 + env_random_below(v->host, 600)] =
				(uint8_t)env_random_below(v->host, 256);
		meta_seal(v->block, &e, 3);
		simdisk_poke(v->disk, addr, v->block, BLOCK_SIZE);
		run_check(v, &fs);
	}
}

static void sealed_garbage_is_survived(void)
{
	for (uint64_t seed = 1; seed <= 10; seed++)
		volume_run(seed, 64 * MIB, 512, fuzzed, 0);
}

/* Read number @v->arg fails: whatever it was, the volume is not called clean for it. */
static void one_read_fails(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ,
				     .skip = v->arg, .count = 1 };
	struct findings fs = { 0 };
	struct check_params p = { .env = v->host, .dev = v->dev, .report = note_finding,
				  .arg = &fs };
	struct simdisk_stats before, after;
	struct check_result r;
	int err;

	make_volume(v);
	simdisk_stats(v->disk, v->host, &before);
	simdisk_inject(v->disk, &rule);
	err = check_volume(&p, &r, v->why, sizeof(v->why));
	simdisk_stats(v->disk, v->host, &after);
	/* The first three only find a superblock, which any copy serves. */
	if (v->arg >= 3 && v->arg < after.ops[BLK_READ] - before.ops[BLK_READ])
		CU_ASSERT_TRUE(err || r.unreadable > 0);
}

static void volume_with_an_unreadable_block_is_not_called_clean(void)
{
	for (uint64_t n = 0; n < 80; n++)
		volume_run(6, 64 * MIB, 512, one_read_fails, n);
}

/* ---- hosts ---- */

static void beat(void *arg)
{
	struct volume *v = arg;

	put_slot(v, 1, SLOT_LIVE, 9, SLOT_NONE);
	if (sim_now_ns(v->sim) < 30 * NSEC_PER_SEC)
		sim_at(v->sim, sim_now_ns(v->sim) + NSEC_PER_SEC, beat, v);
}

static void hosts(struct volume *v)
{
	struct findings fs = { .show = true };
	struct check_result r;

	make_volume(v);
	put_slot(v, 0, SLOT_LIVE, 9, SLOT_NONE);
	r = run_check(v, &fs);
	CU_ASSERT_EQUAL(r.hosts_silent, 1);
	CU_ASSERT_EQUAL(r.hosts_live, 0);
}

static void live_hosts(struct volume *v)
{
	struct volume other = *v;
	struct findings fs = { .show = true };
	struct check_result r;

	make_volume(v);
	other.s = v->s;
	other.block = blkdev_alloc(BLOCK_SIZE);
	put_slot(v, 1, SLOT_LIVE, 9, SLOT_NONE);
	sim_at(v->sim, sim_now_ns(v->sim) + NSEC_PER_SEC, beat, &other);
	r = run_check(v, &fs);
	CU_ASSERT_EQUAL(r.hosts_live, 1);
	CU_ASSERT_EQUAL(r.hosts_silent, 0);
	CU_ASSERT_TRUE(r.quiet);	/* it beats, and changes nothing else */
	CU_ASSERT_EQUAL(r.errors, 0);
	env_sleep_until(v->host, env_now_ns(v->host) + 40 * NSEC_PER_SEC);
	free(other.block);
}

/* Who reads "damaged" must know whether a living host was changing things meanwhile. */
static void living_and_silent_hosts_are_told_apart(void)
{
	volume_run(4, 64 * MIB, 512, hosts, 0);
	volume_run(5, 64 * MIB, 512, live_hosts, 0);
}

/* ---- the table ---- */

/* Scripts match numbers and names: each is unique, and in order. */
static void codes_are_unique(void)
{
	for (unsigned int i = 0; i + 1 < CHECK_CODE_COUNT; i++) {
		CU_ASSERT_TRUE(check_code_info(i)->number < check_code_info(i + 1)->number);
		for (unsigned int k = i + 1; k < CHECK_CODE_COUNT; k++)
			CU_ASSERT_STRING_NOT_EQUAL(check_code_info(i)->name,
						   check_code_info(k)->name);
	}
}

/* Who gets a code looks it up in the manual. */
static void manual_explains_every_code(void)
{
	FILE *f = fopen("docs/man/fsck.lunfs.8", "r");	/* tests run from the top */
	static char page[64 * 1024];
	char item[100];

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	page[fread(page, 1, sizeof(page) - 1, f)] = 0;
	fclose(f);
	for (unsigned int i = 0; i < CHECK_CODE_COUNT; i++) {
		snprintf(item, sizeof(item), ".It \"LUN-%04u %s\"\n",
			 check_code_info(i)->number, check_code_info(i)->name);
		CU_ASSERT_PTR_NOT_NULL(strstr(page, item));
	}
}

UNIT_MAIN("fs/check",
	  UNIT_TEST(sound_volume_is_clean_and_not_written_to),
	  UNIT_TEST(every_code_is_found_where_its_damage_is),
	  UNIT_TEST(sealed_garbage_is_survived),
	  UNIT_TEST(volume_with_an_unreadable_block_is_not_called_clean),
	  UNIT_TEST(living_and_silent_hosts_are_told_apart),
	  UNIT_TEST(codes_are_unique),
	  UNIT_TEST(manual_explains_every_code));
