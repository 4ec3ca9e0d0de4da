/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check of a volume in use that runs out of memory says so, accuses nothing that is whole, and
 * leaves nothing locked: the next one finds what there is.
 */
#include "tests/fs/world.h"
#include "fs/check/internal.h"
#include "fs/check_online.h"
#include "tests/fs/wrecks.h"
#include "tests/nomem/each.h"

static uint64_t now_n, now_count, hits;
static enum check_code wanted;

struct seen { uint64_t wanted, all; };

static void note(void *arg, const struct check_finding *f)
{
	struct seen *s = arg;

	s->all++;
	s->wanted += f->code == wanted;
}

static void check_body(struct world *w)
{
	uint64_t which = *(const uint64_t *)w->arg;
	struct volume v = { .disk = w->disk, .host = w->host, .dev = w->dev };
	struct seen first = { 0 }, second = { 0 };
	struct check_online_params p = { .fs = &w->fs, .report = note };
	struct check_online_result r;
	int err;

	v.block = blkdev_alloc(BLOCK_SIZE);
	make_volume(&v);
	w->no_reaper = true;
	MUST(!world_mount(w));
	cases[which].damage(&v);
	p.arg = &first;
	nomem_arm(now_n, now_count);
	err = check_online(&p, &r);
	hits += nomem_disarm();
	CU_ASSERT_TRUE(err == 0 || err == -ENOMEM);
	p.arg = &second;
	CU_ASSERT_EQUAL(check_online(&p, &r), 0);
	CU_ASSERT_TRUE(second.wanted > 0);
	CU_ASSERT_TRUE(first.all <= second.all);
	if (!err && !r.unproved)
		CU_ASSERT_TRUE(first.wanted > 0);
	world_unmount(w);
	free(v.block);
}

static uint64_t run(void *arg, uint64_t n, uint64_t count)
{
	now_n = n;
	now_count = count;
	hits = 0;
	world_run(64 * MIB, check_body, arg);
	return hits;
}

/* The test's own blocks count as lost: always as many. */
static void a_check_without_memory_says_so_and_can_be_repeated(void)
{
	void (*const chosen[])(struct volume *) = {
		d_block_twice, d_map_damaged, d_inode_no_name, d_image_rank, d_lock_future,
	};

	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct each one = { .count = 1, .stride = 1, .run = run, .arg = &i,
				    .crashes = true };
		struct each all = { .count = EACH_ALL, .stride = 3, .run = run, .arg = &i,
				    .crashes = true };

		wanted = cases[i].code;
		for (unsigned int k = 0; k < ARRAY_SIZE(chosen); k++)
			if (cases[i].damage == chosen[k]) {
				each_allocation(&one);
				each_allocation(&all);
			}
	}
}

/* A set that is full is no memory of its own, until something is taken out of it. */
static uint64_t take_run(void *arg, uint64_t n, uint64_t count)
{
	struct chk_part *part = NULL;
	uint64_t failed;
	int err;

	(void)arg;
	for (uint32_t w = 0; w < PART_WORDS; w++)
		MUST(!chk_part_set(&part, w, UINT64_MAX));
	nomem_arm(n, count);
	err = chk_part_set(&part, 5, 1);
	failed = nomem_disarm();
	CU_ASSERT_EQUAL(err, failed ? -ENOMEM : 0);
	CU_ASSERT_EQUAL(chk_part_word(part, 5), err ? UINT64_MAX : 1);
	CU_ASSERT_EQUAL(chk_part_set(&part, 5, 1), 0);
	CU_ASSERT_EQUAL(chk_part_word(part, 5), 1);
	CU_ASSERT_EQUAL(chk_part_word(part, 6), UINT64_MAX);
	chk_part_free(part);
	return failed;
}

static void a_full_set_stays_full_without_memory(void)
{
	struct each e = { .count = 1, .stride = 1, .run = take_run };

	each_allocation(&e);
	nomem_note("check");
}

UNIT_MAIN("nomem check",
	  UNIT_TEST(a_check_without_memory_says_so_and_can_be_repeated),
	  UNIT_TEST(a_full_set_stays_full_without_memory));
