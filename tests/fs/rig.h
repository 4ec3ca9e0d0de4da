/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One simulated host on a simulated LUN with a fresh volume, without lockd: what the tests
 * of journal, buffers and allocation stand on.
 */
#ifndef LUNFS_TESTS_FS_RIG_H
#define LUNFS_TESTS_FS_RIG_H

#include <errno.h>

#include "base/env_sim.h"
#include "block/simdev.h"
#include "fs/fs.h"
#include "fs/mkfs.h"
#include "tests/unit.h"

/* In place of CU_ASSERT_EQUAL_FATAL(), which cannot leave a simulated thread. */
#define MUST_EQUAL(a, b) do {								\
	if ((a) != (b)) {								\
		fprintf(stderr, "%s:%d: %s is not %s\n", __FILE__, __LINE__, #a, #b);	\
		abort();								\
	}										\
} while (0)

struct rig {
	struct sim *sim;
	struct simdisk *disk;
	struct env *env;
	struct fs fs;
	struct cover cover;		/* of blocks that tests make up */
	void (*body)(struct rig *rig);
	bool done;
	char log[8192];			/* error and warning lines */
};

static inline void rig_log(void *arg, enum log_level level, const char *line)
{
	struct rig *rig = arg;
	size_t len = strlen(rig->log);

	if (level <= LOG_LEVEL_WARNING)
		snprintf(rig->log + len, sizeof(rig->log) - len, "%s\n", line);
}

/* Attaches to the volume as it is on the LUN, replaying the journal of slot 0. */
static inline void rig_open(struct rig *rig)
{
	struct fs *fs = &rig->fs;
	char why[200];

	memset(fs, 0, sizeof(*fs));
	fs->env = rig->env;
	env_mutex_init(fs->env, &fs->super_mutex);
	fs->raw = fs->dev = simdisk_open(rig->disk, rig->env);
	strcpy(fs->label, "ds1");
	MUST_EQUAL(super_read(fs->dev, &fs->super, why, sizeof(why)), 0);
	MUST_EQUAL(journal_replay(fs->env, fs->dev, &fs->super, 0, NULL), 0);
	MUST_EQUAL(buf_cache_new(fs, &fs->bufs), 0);
	MUST_EQUAL(alloc_open(fs, &fs->alloc), 0);
	MUST_EQUAL(journal_open(fs, &fs->journal), 0);
	memset(&rig->cover, 0, sizeof(rig->cover));
	list_init(&rig->cover.bufs);
}

/* Returns what journal_close() says. */
static inline int rig_close(struct rig *rig)
{
	struct fs *fs = &rig->fs;
	int err = journal_close(fs->journal);

	fs->journal = NULL;
	alloc_close(fs->alloc);
	buf_forget_cover(fs, &rig->cover);
	buf_cache_free(fs->bufs);
	blkdev_close(fs->dev);
	env_mutex_fini(fs->env, &fs->super_mutex);
	return err;
}

static inline void rig_mkfs(struct rig *rig)
{
	struct mkfs_params p = { .env = rig->env, .label = "ds1", .slot_count = 2 };
	struct super s;
	char why[200];

	p.dev = simdisk_open(rig->disk, rig->env);
	MUST_EQUAL(mkfs(&p, &s, why, sizeof(why)), 0);
	blkdev_close(p.dev);
}

static inline void rig_main(void *arg)
{
	struct rig *rig = arg;

	rig_mkfs(rig);
	rig->body(rig);
	rig->done = true;
}

/* Runs @body in a thread of a world of its own, on a volume of @size bytes. */
static inline void rig_run(uint64_t size, void (*body)(struct rig *rig))
{
	struct simdisk_params p = { .size = size, .sector = 512, .random_contents = true,
		.latency_min_ns = 50000, .latency_max_ns = 200000 };
	struct rig *rig = calloc(1, sizeof(*rig));
	struct env_thread *t;

	rig->sim = sim_new(4711);
	rig->env = sim_host(rig->sim, "alpha");
	sim_host_log(rig->env, rig_log, rig);
	rig->disk = simdisk_new(rig->sim, &p);
	rig->body = body;
	MUST_EQUAL(env_thread_start(rig->env, "test", rig_main, rig, &t), 0);
	CU_ASSERT_TRUE(sim_run(rig->sim, 3600 * NSEC_PER_SEC));
	CU_ASSERT_TRUE(rig->done);
	env_thread_join(rig->env, t);
	simdisk_free(rig->disk);
	sim_free(rig->sim);
	free(rig);
}

/* ---- blocks that tests make up: directory leaves at the end of group 0 ---- */

#define RIG_OWNER	77u

static inline uint64_t rig_addr(struct rig *rig, unsigned int i)
{
	struct super *s = &rig->fs.super;

	return super_ag_addr(s, 0) + (super_ag_blocks(s, 0) - 1 - i) * (uint64_t)BLOCK_SIZE;
}

static inline struct meta_expect rig_expect(struct rig *rig, unsigned int i)
{
	return (struct meta_expect){ .type = META_DIR_LEAF, .addr = rig_addr(rig, i),
		.owner = RIG_OWNER, .birth = 5 };
}

static inline uint64_t *rig_value(void *block)
{
	return (uint64_t *)((uint8_t *)block + 128);
}

/* Block @i holds @value from now on, within @txn; made if it was not there. */
static inline void rig_set(struct rig *rig, struct txn *txn, unsigned int i, uint64_t value,
			   bool make)
{
	struct meta_expect e = rig_expect(rig, i);
	struct buf *b;

	if (make)
		MUST_EQUAL(buf_new(&rig->fs, &rig->cover, &e, &b), 0);
	if (!make)
		MUST_EQUAL(buf_get(&rig->fs, &rig->cover, &e, &b), 0);
	txn_dirty(txn, b, value + 1);
	*rig_value(b->data) = value;
	buf_put(&rig->fs, b);
}

/* The value at home, or UINT64_MAX if what is there is not block @i. */
static inline uint64_t rig_home(struct rig *rig, unsigned int i)
{
	struct meta_expect e = rig_expect(rig, i);
	static uint64_t block[BLOCK_SIZE / 8];

	e.volume = rig->fs.super.volume;
	simdisk_peek(rig->disk, e.addr, block, BLOCK_SIZE);
	return meta_verify(block, &e, NULL, 0) ? UINT64_MAX : *rig_value(block);
}

#endif
