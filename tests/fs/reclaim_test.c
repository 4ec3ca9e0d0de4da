// SPDX-License-Identifier: Apache-2.0
/* Free space is given back while files come and go: nothing that is in use is hit. */
#include "fs/reclaim.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/fs/attached.h"

#define VOLUME	(160 * MIB)
#define FILES	12u
#define ROUNDS	40u

struct reclaimer {
	struct cluster *c;
	unsigned int host;
	bool stop;
	uint64_t discarded, passes;
};

static void reclaim_thread(void *arg)
{
	struct reclaimer *r = arg;
	struct fs *fs = r->c->hosts[r->host].fs;
	struct reclaim step = { 0 };
	int err;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		err = fs_reclaim_step(fs, &step, 3 * MIB + 77);
		CU_ASSERT_TRUE(err >= 0);
		if (err)
			continue;
		r->discarded += step.discarded;
		r->passes++;
		memset(&step, 0, sizeof(step));
		env_sleep_until(fs->env, env_now_ns(fs->env) + 50 * NSEC_PER_MSEC);
	}
}

static void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(1 + (i * 7 + seed * 31) % 255);
}

static void put(struct fs *fs, const char *name, size_t len, unsigned int seed)
{
	uint8_t *buf = blkdev_alloc(ALIGN_UP(len, BLOCK_SIZE));
	struct fs_attr attr;
	struct fs_file *f;
	size_t done = 0;

	fill(buf, len, seed);
	CU_ASSERT_EQUAL_FATAL(fs_create(fs, fs_root(fs), name, S_IFREG | 0600, 0, &cluster_cred,
					&attr), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(fs, f, 0, buf, len, false, &done), 0);
	CU_ASSERT_EQUAL(done, len);
	fs_close(fs, f);
	free(buf);
}

static void compare(struct fs *fs, const char *name, size_t len, unsigned int seed)
{
	uint8_t *buf = blkdev_alloc(ALIGN_UP(len, BLOCK_SIZE)), *want = malloc(len);
	struct fs_attr attr;
	struct fs_file *f;
	size_t done = 0;
	int err;

	fill(want, len, seed);
	/* A name that the other host has just given to another file may be an old one. */
	do {
		CU_ASSERT_EQUAL_FATAL(fs_lookup(fs, fs_root(fs), name, &attr), 0);
		err = fs_open(fs, attr.id, 0, &cluster_cred, &f, NULL);
	} while (err == -ESTALE);
	CU_ASSERT_EQUAL_FATAL(err, 0);
	CU_ASSERT_EQUAL(fs_read(fs, f, 0, buf, len, &done), 0);
	CU_ASSERT_TRUE(done == len && !memcmp(buf, want, len));
	fs_close(fs, f);
	free(want);
	free(buf);
}

static void files_come_and_go(struct cluster *c)
{
	struct reclaimer r[2] = { { .c = c, .host = 0 }, { .c = c, .host = 1 } };
	size_t len[FILES] = { 0 };
	struct env_thread *threads[2];
	unsigned int seed[FILES], i, h;
	char name[16];

	for (h = 0; h < 2; h++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, h, 0), 0);
	for (h = 0; h < 2; h++)
		CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[h].env, "reclaim", reclaim_thread,
						       &r[h], &threads[h]), 0);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct fs *fs = c->hosts[round % 2].fs;

		i = (unsigned int)env_random_below(c->env, FILES);
		snprintf(name, sizeof(name), "f%u", i);
		if (len[i]) {
			compare(fs, name, len[i], seed[i]);
			CU_ASSERT_EQUAL(fs_unlink(fs, fs_root(fs), name), 0);
		}
		len[i] = 1 + env_random_below(c->env, round % 3 ? 3 * MIB : 20000);
		seed[i] = round;
		put(fs, name, len[i], seed[i]);
	}
	for (h = 0; h < 2; h++) {
		__atomic_store_n(&r[h].stop, true, __ATOMIC_RELEASE);
		env_thread_join(c->hosts[h].env, threads[h]);
		CU_ASSERT_TRUE(r[h].passes > 0 && r[h].discarded > VOLUME / 2);
	}
	for (i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		if (len[i])
			compare(c->hosts[i % 2].fs, name, len[i], seed[i]);
	}
}

static void what_is_in_use_stays(void)
{
	for (uint64_t seed = 1; seed <= 5 && !CU_get_number_of_failures(); seed++)
		cluster_run(seed, VOLUME, files_come_and_go);
}

/* All free space is given back, all but that, in pieces of any size. */
static void amounts(struct cluster *c)
{
	struct reclaim step = { 0 };
	struct statvfs st;
	int more;

	cluster_alone(c);
	put(c->fs, "f", 5 * MIB, 3);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	CU_ASSERT_EQUAL(fs_statfs(c->fs, &st), 0);
	do {
		uint64_t before = step.discarded, max = 1 + env_random_below(c->env, 9 * MIB);

		more = fs_reclaim_step(c->fs, &step, max);
		CU_ASSERT_TRUE(step.discarded - before <= ALIGN_UP(max, BLOCK_SIZE));
	} while (more > 0);
	CU_ASSERT_EQUAL(more, 0);
	CU_ASSERT_EQUAL(step.discarded, (uint64_t)st.f_bfree * st.f_frsize);
	CU_ASSERT_EQUAL(step.busy, 0);
	compare(c->fs, "f", 5 * MIB, 3);
	c->fs->raw->info.discard_granularity = 0;
	step.at = 0;
	CU_ASSERT_EQUAL(fs_reclaim_step(c->fs, &step, MIB), -ENOTSUP);
}

static void free_space_and_nothing_else(void)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		cluster_run(seed, VOLUME, amounts);
}


static void late(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_DISCARD, .count = 1 };
	struct reclaim step = { 0 };

	cluster_alone(c);
	rule.host = c->hosts[0].env;
	simdisk_inject(c->disk, &rule);
	CU_ASSERT_EQUAL(fs_reclaim_step(c->fs, &step, MIB), -EIO);
	CU_ASSERT_EQUAL(step.at, 0);
	simdisk_clear_rules(c->disk);
	CU_ASSERT_TRUE(fs_reclaim_step(c->fs, &step, MIB) >= 0);
	CU_ASSERT_EQUAL(step.discarded, MIB);
	put(c->fs, "f", 5 * MIB, 3);
	compare(c->fs, "f", 5 * MIB, 3);
}

static void an_error_keeps_the_place(void)
{
	cluster_run(7, VOLUME, late);
}

UNIT_MAIN("fs/reclaim",
	UNIT_TEST(what_is_in_use_stays),
	UNIT_TEST(free_space_and_nothing_else),
	UNIT_TEST(an_error_keeps_the_place)
);
