/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claiming and repairing a volume without memory: it ends with -ENOMEM, and the next repair comes
 * to the same end as if there had been none before.
 */
#include <errno.h>
#include <stdio.h>

#include "fs/check/fix.h"
#include "fs/claim.h"
#include "tests/fs/wrecks.h"
#include "tests/nomem/each.h"

static uint64_t now_n, now_count, hits;

static void ignore(void *arg, const struct check_finding *f)
{
	(void)arg;
	(void)f;
}

static int nothing(void *arg, uint64_t addr, const void *old, size_t len)
{
	(void)arg;
	(void)addr;
	(void)old;
	(void)len;
	return 0;
}

/* ---- repairs ---- */

static void repair_body(struct volume *v)
{
	struct check_params p = { .env = v->host, .dev = v->dev, .repair = CHECK_REPAIR_LOSS,
				  .own_slot = SLOT_NONE, .report = ignore,
				  .before_write = nothing };
	struct check_result r;
	int err;

	make_volume(v);
	cases[v->arg].damage(v);
	nomem_arm(now_n, now_count);
	err = check_volume(&p, &r, v->why, sizeof(v->why));
	hits += nomem_disarm();
	CU_ASSERT_TRUE(err == 0 || err == -ENOMEM);
	CU_ASSERT_EQUAL(check_volume(&p, &r, v->why, sizeof(v->why)), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.directories, 2 + (cases[v->arg].damage == d_dir_unreachable));
	CU_ASSERT_EQUAL(r.files, 3);
}

static uint64_t run_repair(void *arg, uint64_t n, uint64_t count)
{
	now_n = n;
	now_count = count;
	hits = 0;
	volume_run(3, 64 * MIB, 512, repair_body, *(const uint64_t *)arg);
	return hits;
}

/* Of each way to repair one case.  The test's own blocks count as lost: always as many. */
static void a_repair_without_memory_can_be_repeated(void)
{
	void (*const chosen[])(struct volume *) = {
		d_journal_twice, d_dir_damaged, d_dir_unreachable, d_itable_pointer,
		d_block_twice, d_image_no_list, d_children_lost, d_slot_damaged,
	};

	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct each one = { .count = 1, .stride = 1, .run = run_repair, .arg = &i,
				    .crashes = true };

		for (unsigned int k = 0; k < ARRAY_SIZE(chosen); k++)
			if (cases[i].damage == chosen[k])
				each_allocation(&one);
	}
	nomem_note("repair");
}

/* ---- claims ---- */

static int is_dead(void *arg, const struct slot *victim)
{
	(void)arg;
	(void)victim;
	return 0;
}

static int claim_once(struct volume *v)
{
	struct claim_params p = { .env = v->host, .dev = v->dev, .hb_dev = v->dev, .pid = 7,
				  .pid_start = 1, .host_name = "fsck", .kill = is_dead };
	struct claim *claim;
	int err;

	memset(p.host_id, 1, sizeof(p.host_id));
	memset(p.boot_id, 1, sizeof(p.boot_id));
	err = claim_take(&p, &claim, v->why, sizeof(v->why));
	return err ? err : claim_release(claim, true);
}

static void claim_body(struct volume *v)
{
	struct super s;
	int err;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	nomem_threads(v->host);
	nomem_arm(now_n, now_count);
	err = claim_once(v);
	hits += nomem_disarm();
	if (!err)
		return;
	CU_ASSERT_TRUE(err == -ENOMEM || err == -EAGAIN);
	CU_ASSERT_EQUAL(claim_once(v), 0);
	CU_ASSERT_EQUAL(volume_read_super(v, &s), 0);
	CU_ASSERT_FALSE(s.incompat & INCOMPAT_REPAIR);
}

static uint64_t run_claim(void *arg, uint64_t n, uint64_t count)
{
	(void)arg;
	now_n = n;
	now_count = count;
	hits = 0;
	volume_run(3, 64 * MIB, 512, claim_body, 0);
	return hits;
}

static void a_claim_without_memory_can_be_repeated(void)
{
	struct each one = { .count = 1, .stride = 1, .run = run_claim, .crashes = true };

	each_allocation(&one);
	nomem_note("claim");
}

UNIT_MAIN("nomem repair",
	UNIT_TEST(a_repair_without_memory_can_be_repeated),
	UNIT_TEST(a_claim_without_memory_can_be_repeated)
);
