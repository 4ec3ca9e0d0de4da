/* SPDX-License-Identifier: Apache-2.0 */
/* What a check reads ahead is what the device has, its own writes included. */
#include "fs/check/fix.h"

#include "tests/fs/volume.h"

#define CLUSTERS	300u		/* some windows of them */
#define DISK_SIZE	(64 * MIB)

static void found(void *arg, const struct check_finding *f)
{
	unsigned int *count = arg;

	CU_ASSERT_EQUAL(f->code, CHECK_UNREADABLE);
	(*count)++;
}

/* Clusters of all sizes, some of them neighbours; every block says where it is. */
static void place(struct volume *v, struct chk_cluster *clusters, size_t count)
{
	uint64_t block = 16;

	for (size_t k = 0; k < count; k++) {
		clusters[k] = (struct chk_cluster){ .first = block,
						    .count = (uint16_t)(1 + k * 7 % CLUSTER_INODES) };
		for (uint32_t i = 0; i < 2u * clusters[k].count; i++) {
			memset(v->block, 0, BLOCK_SIZE);
			*(uint64_t *)v->block = block + i;
			CU_ASSERT_EQUAL(blkdev_write(v->dev, (block + i) << BLOCK_SHIFT, v->block,
						     BLOCK_SIZE), 0);
		}
		block += 2u * clusters[k].count + (k % 5 == 0);
	}
}

static uint64_t at(const uint8_t *blocks, uint32_t i)
{
	return *(const uint64_t *)(const void *)(blocks + (size_t)i * BLOCK_SIZE);
}

static bool next_of(struct check *c, void *arg, struct chk_place *p)
{
	const le64 **next = arg;
	uint64_t block = le64_to_cpu(*(*next)++);

	(void)c;
	*p = (struct chk_place){ block << BLOCK_SHIFT, 1 };
	return block != 0;
}

static uint8_t *look_at(struct check *c, size_t k)
{
	return chk_at(c, c->clusters[k].first << BLOCK_SHIFT, c->cluster, 2u * c->clusters[k].count);
}

static void with_check(struct volume *v, size_t count, void (*use)(struct volume *, struct check *))
{
	struct check *c = calloc(1, sizeof(*c));
	unsigned int findings = 0;
	struct check_params p = { .env = v->host, .dev = v->dev, .report = found,
				  .arg = &findings };
	struct check_result r = { .errors = 0 };
	size_t next = 0;
	struct chk_source source = { chk_next_cluster, &next, NULL, false };

	c->p = &p;
	c->r = &r;
	c->dev = v->dev;
	c->cluster = blkdev_alloc((size_t)CLUSTER_BLOCKS * BLOCK_SIZE);
	c->clusters = calloc(CLUSTERS, sizeof(*c->clusters));
	c->cluster_count = count;
	table_init(&c->images);
	place(v, c->clusters, count);
	chk_ahead_begin(c, CHK_LANE_MAIN, &source);
	CU_ASSERT_FALSE(c->no_memory);
	use(v, c);
	chk_ahead_free(c);
	table_fini(&c->images);
	free(c->clusters);
	free(c->cluster);
	free(c);
}

static void use_all(struct volume *v, struct check *c)
{
	(void)v;
	for (size_t k = 0; k < c->cluster_count; k++) {
		const uint8_t *blocks = look_at(c, k);

		CU_ASSERT_PTR_NOT_NULL_FATAL(blocks);
		for (uint32_t i = 0; i < 2u * c->clusters[k].count; i++)
			CU_ASSERT_EQUAL(at(blocks, i), c->clusters[k].first + i);
	}
}

static void all_counts(struct volume *v)
{
	static const size_t counts[] = { 0, 1, 2, 59, 60, 61, 119, 120, 181, CLUSTERS };

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		with_check(v, counts[i], use_all);
}

/* A cluster skipped, or given twice, at a window's edge: inodes lost by a repair. */
static void every_cluster_comes_in_order(void)
{
	volume_run(1, DISK_SIZE, 512, all_counts, 0);
}

/*
 * Half of the clusters are passed over; a tree's level, in places out of order and some of them
 * twice, is read beside them; none is read from a window that has gone on.
 */
static void use_some(struct volume *v, struct check *c)
{
	le64 pointers[400];
	const le64 *next = pointers;
	struct chk_source source = { next_of, &next, NULL, false };

	(void)v;
	for (size_t k = 0; k < c->cluster_count; k++) {
		const uint8_t *blocks = k / 100 % 2 ? NULL : look_at(c, k);

		CU_ASSERT_TRUE(!blocks || at(blocks, 0) == c->clusters[k].first);
		if (k % 50)
			continue;
		for (size_t i = 0; i < 400; i++)
			pointers[i] = cpu_to_le64(i == 399 ? 0 : c->clusters[i * 7 % 300].first + 1);
		next = pointers;
		chk_ahead_begin(c, CHK_LANE_LEVEL + 1, &source);
		for (size_t i = 0; i < 399; i++) {
			uint64_t block = le64_to_cpu(pointers[i]);

			CU_ASSERT_EQUAL(chk_read(c, block << BLOCK_SHIFT, v->block, 1), 0);
			CU_ASSERT_EQUAL(at(v->block, 0), block);
		}
		chk_ahead_end(c, CHK_LANE_LEVEL + 1);
	}
}

static void some(struct volume *v)
{
	with_check(v, CLUSTERS, use_some);
}

/* A block taken for another's gets that one's findings, and its repairs. */
static void what_is_read_is_what_was_asked_for(void)
{
	volume_run(1, DISK_SIZE, 512, some, 0);
}

static void use_pointed_at(struct volume *v, struct check *c)
{
	for (size_t k = 0; k + 70 < c->cluster_count; k++) {
		uint64_t first = c->clusters[k + 70].first;
		const uint8_t *blocks = look_at(c, k);

		CU_ASSERT_PTR_NOT_NULL_FATAL(blocks);
		CU_ASSERT_EQUAL(chk_read(c, first << BLOCK_SHIFT, v->block, 1), 0);
		CU_ASSERT_EQUAL(at(v->block, 0), first);
		/* What was begun ends. */
		env_sleep_until(c->p->env, env_now_ns(c->p->env) + 100 * NSEC_PER_MSEC);
		for (uint32_t i = 0; i < 2u * c->clusters[k].count; i++)
			CU_ASSERT_EQUAL(at(blocks, i), c->clusters[k].first + i);
	}
}

static void pointed_at(struct volume *v)
{
	with_check(v, CLUSTERS, use_pointed_at);
}

/* A map that leads to where later inodes are: without claims it is followed, and inodes are in use. */
static void a_pointer_to_a_later_place_leaves_the_present_one(void)
{
	volume_run(1, DISK_SIZE, 512, pointed_at, 0);
}

/* Each cluster is changed before it comes, by as far as two windows. */
static void use_changed(struct volume *v, struct check *c)
{
	struct fix fix = { .err = 0 };

	c->fix = &fix;
	for (size_t k = 0; k < c->cluster_count; k++) {
		size_t later = k + k % 130 < c->cluster_count ? k + k % 130 : c->cluster_count - 1;
		const struct chk_cluster *cl = &c->clusters[later];
		uint64_t addr = (cl->first + 1) << BLOCK_SHIFT;
		const uint8_t *blocks = look_at(c, k);

		if (later > k) {
			memset(v->block, 0, BLOCK_SIZE);
			*(uint64_t *)v->block = ~cl->first;
			CU_ASSERT_EQUAL(fix_write(c, addr, v->block, BLOCK_SIZE), 0);
		}
		CU_ASSERT_PTR_NOT_NULL_FATAL(blocks);
		CU_ASSERT_EQUAL(at(blocks, 0), c->clusters[k].first);
		CU_ASSERT_EQUAL(blkdev_read(c->dev, (c->clusters[k].first + 1) << BLOCK_SHIFT,
					    v->block, BLOCK_SIZE), 0);
		CU_ASSERT_EQUAL(at(blocks, 1), *(uint64_t *)v->block);
	}
	c->fix = NULL;
}

static void changed(struct volume *v)
{
	with_check(v, CLUSTERS, use_changed);
}

/* A repair that seals a block as it was before its own write takes that write back. */
static void what_was_written_meanwhile_is_seen(void)
{
	for (uint64_t seed = 1; seed <= 10; seed++)
		volume_run(seed, DISK_SIZE, 512, changed, 0);
}

static unsigned int clusters_missing, findings_seen;

static void use_failed(struct volume *v, struct check *c)
{
	(void)v;
	for (size_t k = 0; k < c->cluster_count; k++)
		clusters_missing += !look_at(c, k);
	findings_seen = (unsigned int)c->r->unreadable;
}

static void one_block_fails(struct volume *v)
{
	/* Within the first request, which has several clusters. */
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ,
				     .off = 19 * BLOCK_SIZE, .len = BLOCK_SIZE };

	simdisk_inject(v->disk, &rule);
	with_check(v, CLUSTERS, use_failed);
}

/* One bad block must not hide its neighbours' inodes, nor be forgotten. */
static void bad_block_costs_its_own_cluster(void)
{
	clusters_missing = findings_seen = 0;
	volume_run(1, DISK_SIZE, 512, one_block_fails, 0);
	CU_ASSERT_EQUAL(clusters_missing, 1);
	CU_ASSERT_EQUAL(findings_seen, 2);
}

UNIT_MAIN("fs/ahead",
	  UNIT_TEST(every_cluster_comes_in_order),
	  UNIT_TEST(what_is_read_is_what_was_asked_for),
	  UNIT_TEST(a_pointer_to_a_later_place_leaves_the_present_one),
	  UNIT_TEST(bad_block_costs_its_own_cluster),
	  UNIT_TEST(what_was_written_meanwhile_is_seen));
