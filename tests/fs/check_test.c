/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/check.h"

#include "fs/internal.h"
#include "fs/journal.h"
#include "tests/fs/attached.h"
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

/* What host 0 does with what it has changed when the check has read the indices, and no inode yet. */
enum meanwhile { LEAVES, WRITES_BACK, COMMITS_AND_DIES };

struct homecoming {
	struct findings found;
	struct cluster *c;
	enum meanwhile how;
	bool	done;
};

static void bring_home(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct homecoming *h = arg;

	if (h->done || strcmp(phase, "groups") != 0 || done != total)
		return;
	h->done = true;
	switch (h->how) {
	case LEAVES:
		CU_ASSERT_EQUAL(cluster_detach(h->c, 0), 0);
		break;
	case WRITES_BACK:
		cluster_sleep(h->c, 3 * WRITEBACK_MS);
		break;
	case COMMITS_AND_DIES:
		CU_ASSERT_EQUAL(fs_sync_names(h->c->fs), 0);
		cluster_crash(h->c, 0);
		break;
	}
}

static struct check_result check_amid(struct homecoming *h)
{
	struct check_params p = { .env = h->c->env, .report = note_finding, .progress = bring_home,
				  .arg = h };
	struct check_result r = { .errors = 99 };

	memset(&h->found, 0, sizeof(h->found));
	p.dev = simdisk_open(h->c->disk, h->c->env);
	CU_ASSERT_EQUAL(check_volume(&p, &r, h->c->why, sizeof(h->c->why)), 0);
	blkdev_close(p.dev);
	return r;
}

static enum meanwhile meanwhile;

static void comes_home(struct cluster *c)
{
	struct homecoming h = { .c = c, .how = meanwhile };
	bool dies = meanwhile == COMMITS_AND_DIES;
	struct fs_attr attr;
	struct check_result r;

	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
	/* The journal is empty, as it will be again. */
	cluster_sleep(c, 3 * WRITEBACK_MS);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "new", S_IFREG | 0644, 0, &cluster_cred,
				  &attr), 0);
	r = check_amid(&h);
	CU_ASSERT_TRUE(h.done);
	CU_ASSERT_EQUAL(r.transactions, 0);
	CU_ASSERT_TRUE(dies || r.hosts_live == 1);
	/* Nothing is wrong there. */
	CU_ASSERT_TRUE(dies || h.found.seen[CHECK_INODE_MASK] > 0);
	CU_ASSERT_FALSE(r.quiet);
	r = check_amid(&h);
	CU_ASSERT_EQUAL(r.hosts_live, meanwhile == WRITES_BACK ? 1 : 0);
	CU_ASSERT_EQUAL(r.transactions, dies ? 1 : 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_TRUE(r.quiet);
	if (meanwhile == WRITES_BACK)
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
}

/* An empty journal that was filled and written home meanwhile is empty again. */
static void what_came_home_meanwhile_is_a_change(void)
{
	for (meanwhile = LEAVES; meanwhile <= COMMITS_AND_DIES; meanwhile++)
		cluster_run(1 + meanwhile, 64 * MIB, comes_home);
}

/* Between the looks at both journals the second host takes what the first had changed. */
struct handover {
	struct findings found;
	struct cluster *c;
	unsigned int first;		/* host whose journal is looked at first */
	uint32_t slot;			/* it */
	bool	done;
};

static void hand_over(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct handover *h = arg;
	struct fs *fs = h->c->hosts[!h->first].fs;
	struct fs_attr attr;

	(void)total;
	if (h->done || strcmp(phase, "journals") != 0 || done != h->slot + 1)
		return;
	h->done = true;
	CU_ASSERT_EQUAL(fs_create(fs, fs_root(fs), "second", S_IFREG | 0644, 0, &cluster_cred,
				  &attr), 0);
	CU_ASSERT_EQUAL(fs_sync_names(fs), 0);
}

static void handed_over(struct cluster *c)
{
	struct handover h = { .c = c };
	struct check_params p = { .env = c->env, .report = note_finding, .progress = hand_over,
				  .arg = &h };
	struct check_result r = { .errors = 0 };
	struct fs_attr attr;
	struct fs *fs;

	CU_ASSERT_EQUAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL(cluster_attach(c, 1, 0), 0);
	if (!c->hosts[0].fs || !c->hosts[1].fs)
		return;
	h.first = lockd_slot(c->hosts[0].fs->lockd) > lockd_slot(c->hosts[1].fs->lockd);
	fs = c->hosts[h.first].fs;
	h.slot = lockd_slot(fs->lockd);
	CU_ASSERT_EQUAL(fs_create(fs, fs_root(fs), "first", S_IFREG | 0644, 0, &cluster_cred, &attr),
			0);
	CU_ASSERT_EQUAL(fs_sync_names(fs), 0);
	p.dev = simdisk_open(c->disk, c->env);
	CU_ASSERT_EQUAL(check_volume(&p, &r, c->why, sizeof(c->why)), 0);
	blkdev_close(p.dev);
	CU_ASSERT_TRUE(h.done);
	CU_ASSERT_EQUAL(r.hosts_live, 2);
	CU_ASSERT_TRUE(h.found.seen[CHECK_JOURNAL_TWICE] > 0);	/* it was not, at any time */
	CU_ASSERT_FALSE(r.quiet);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

/* Nothing was committed once both were seen, and yet they are not of one time. */
static void what_was_handed_over_meanwhile_is_a_change(void)
{
	cluster_run(4, 64 * MIB, handed_over);
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
	  UNIT_TEST(what_came_home_meanwhile_is_a_change),
	  UNIT_TEST(what_was_handed_over_meanwhile_is_a_change),
	  UNIT_TEST(codes_are_unique),
	  UNIT_TEST(manual_explains_every_code));
