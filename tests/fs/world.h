/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume in a simulated world, attached without lockd, for the tests of fs/: a test's body
 * runs as a thread of one simulated host.
 */
#ifndef LUNFS_TESTS_FS_WORLD_H
#define LUNFS_TESTS_FS_WORLD_H

#include <errno.h>

#include "block/simdev.h"
#include "fs/check.h"
#include "fs/cluster.h"
#include "fs/mkfs.h"
#include "fs/orphan_list.h"
#include "tests/unit.h"

/* In place of CU_ASSERT_…_FATAL(), which cannot leave a simulated thread. */
#define MUST(claim) do {								\
	if (!(claim)) {									\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #claim);		\
		abort();								\
	}										\
} while (0)

struct world {
	struct sim *sim;
	struct simdisk *disk;
	struct env *host;
	struct blkdev *dev;
	struct fs fs;
	void (*body)(struct world *w);
	void *arg;		/* the test's */
	bool no_reaper;		/* world_mount() leaves what is on the orphan list there */
	uint64_t check_errors;	/* of world_check() */
	char check_text[512];	/* the first of them */
};

static inline void world_format(struct world *w)
{
	struct mkfs_params p = {
		.env = w->host, .dev = w->dev, .label = "test", .slot_count = 2,
		.timing = { 1000, 5000, 1000 },
	};
	struct super s;
	char why[256] = "";
	int err = mkfs(&p, &s, why, sizeof(why));

	if (err)
		fprintf(stderr, "mkfs: %d %s\n", err, why);
	MUST(!err);
}

/* Attaches; replays first, as lockd would. */
static inline int world_mount(struct world *w)
{
	struct fs *fs = &w->fs;
	char why[256];
	int err;

	memset(fs, 0, sizeof(*fs));
	fs->env = w->host;
	env_mutex_init(fs->env, &fs->super_mutex);
	fs->raw = fs->dev = w->dev;
	snprintf(fs->label, sizeof(fs->label), "test");
	err = super_read(w->dev, &fs->super, why, sizeof(why));
	if (!err)
		err = journal_replay(w->host, w->dev, &fs->super, 0, NULL);
	if (!err)
		err = buf_cache_new(fs, &fs->bufs);
	if (!err)
		err = inode_cache_new(fs, &fs->inodes);
	if (!err)
		err = journal_open(fs, &fs->journal);
	if (!err)
		err = alloc_open(fs, &fs->alloc);
	if (!err)
		err = orphan_open(fs, &fs->orphans);
	if (!err && w->no_reaper)
		orphan_stop(fs->orphans);
	return err;
}

static inline int world_unmount(struct world *w)
{
	struct fs *fs = &w->fs;
	int err = 0;

	orphan_stop(fs->orphans);
	if (fs->journal)
		err = journal_close(fs->journal);
	fs->journal = NULL;
	orphan_close(fs->orphans);
	if (fs->inodes)
		inode_cache_free(fs->inodes);
	if (fs->alloc)
		alloc_close(fs->alloc);
	if (fs->bufs)
		buf_cache_free(fs->bufs);
	env_mutex_fini(fs->env, &fs->super_mutex);
	return err;
}

static inline void world_check_report(void *arg, const struct check_finding *f)
{
	struct world *w = arg;

	/* Test inodes have no names. */
	if ((check_code_info(f->code)->severity == CHECK_NOTE &&
	     f->code != CHECK_ORPHAN_UNMARKED && f->code != CHECK_ORPHAN_VOID) || f->code == CHECK_INODE_NO_NAME ||
	    f->code == CHECK_INODE_LINKS || f->code == CHECK_INODE_NAME_BACK)
		return;
	if (!w->check_errors++)
		snprintf(w->check_text, sizeof(w->check_text), "%s at %#llx: %s",
			 check_code_info(f->code)->name, (unsigned long long)f->addr, f->text);
}

/* Structural errors on the (unmounted) volume. */
static inline uint64_t world_check(struct world *w)
{
	struct check_params p = {
		.env = w->host, .dev = w->dev, .report = world_check_report, .arg = w,
	};
	struct check_result r;
	char why[256] = "";
	int err;

	w->check_errors = 0;
	err = check_volume(&p, &r, why, sizeof(why));
	if (err) {
		fprintf(stderr, "check: %d %s\n", err, why);
		return UINT64_MAX;
	}
	if (w->check_errors)
		fprintf(stderr, "check: %llu errors, first: %s\n",
			(unsigned long long)w->check_errors, w->check_text);
	return w->check_errors;
}

/* A new regular file without a name; inode locks as of an open for writing are implied. */
static inline struct inode *world_create(struct world *w)
{
	struct inode_init init = { .mode = S_IFREG | 0644, .parent = w->fs.super.root,
				   .name = "f", .name_len = 1 };
	struct fs *fs = &w->fs;
	struct alloc_hold hold;
	struct inode *ino = NULL;
	uint64_t number = 0;
	struct txn txn;

	MUST(!itable_reserve(fs, fs->super.root, &hold, &number));
	MUST(!inode_get(fs, number, &ino));
	MUST(!inode_lock_new(fs, ino));
	MUST(!txn_begin(fs, 4, &txn));
	MUST(!itable_take(&txn, &hold, number));
	MUST(!inode_init(&txn, ino, &init));
	txn_end(&txn);
	inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	itable_put(fs, &hold, number);
	return ino;
}

/* The file @id again, after a new mount. */
static inline struct inode *world_open(struct world *w, uint64_t id)
{
	struct inode *ino = NULL;

	MUST(!inode_get(&w->fs, inode_id_number(id), &ino));
	MUST(!inode_lock(&w->fs, ino, id, LOCK_EXCLUSIVE, 0, NULL));
	inode_unlock(&w->fs, ino, LOCK_EXCLUSIVE, 0);
	return ino;
}

static inline void world_thread(void *arg)
{
	struct world *w = arg;

	w->body(w);
}

/* Runs @body on a disk of @size bytes full of garbage. */
static inline void world_run(uint64_t size, void (*body)(struct world *w), void *arg)
{
	struct simdisk_params p = {
		.size = size, .sector = 512, .latency_min_ns = 10000, .latency_max_ns = 200000,
		.random_contents = true,
	};
	struct world *w = calloc(1, sizeof(*w));
	struct env_thread *thread;

	MUST(w);
	w->sim = sim_new(4711);
	w->host = sim_host(w->sim, "alpha");
	w->disk = simdisk_new(w->sim, &p);
	w->dev = simdisk_open(w->disk, w->host);
	w->body = body;
	w->arg = arg;
	MUST(!env_thread_start(w->host, "test", world_thread, w, &thread));
	MUST(sim_run(w->sim, 24 * 3600 * NSEC_PER_SEC));
	env_thread_join(w->host, thread);
	blkdev_close(w->dev);
	simdisk_free(w->disk);
	sim_free(w->sim);
	free(w);
}

#endif
