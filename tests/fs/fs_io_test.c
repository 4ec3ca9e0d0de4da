/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fs_io.h"

#include "fs/file.h"
#include "tests/fs/world.h"

#define VOLUME	(64 * MIB)
#define SIZE	(2 * MIB)
#define COUNT	8u	/* requests of a batch */

/* ---- a file of SIZE bytes, and completions ---- */

struct rig {
	struct world	*w;
	struct fs_file	f;
	uint8_t		*buf;	/* SIZE bytes */
	struct fs_io	ios[COUNT];
	int		errs[COUNT];
	struct env_mutex mutex;
	struct env_cond	changed;
	unsigned int	done;
	bool		truncated;
};

static struct rig *rig_of_done;	/* done() has no argument of ours; one test at a time */

static void on_done(struct fs_io *fio, int err)
{
	struct rig *r = rig_of_done;
	struct env *env = r->w->host;

	env_mutex_lock(env, &r->mutex);
	r->errs[fio - r->ios] = err;
	r->done++;
	env_cond_broadcast(env, &r->changed);
	env_mutex_unlock(env, &r->mutex);
}

static void submit_and_wait(struct rig *r, unsigned int count)
{
	struct fs_io *fios[COUNT];
	struct env *env = r->w->host;

	rig_of_done = r;
	r->done = 0;
	for (unsigned int i = 0; i < count; i++) {
		fios[i] = &r->ios[i];
		fios[i]->done = on_done;
	}
	fs_io_submit(&r->w->fs, fios, count);
	env_mutex_lock(env, &r->mutex);
	while (r->done < count)
		env_cond_wait(env, &r->changed, &r->mutex, ENV_FOREVER);
	env_mutex_unlock(env, &r->mutex);
}

static void rig_open(struct rig *r, struct world *w)
{
	size_t done;

	memset(r, 0, sizeof(*r));
	r->w = w;
	env_mutex_init(w->host, &r->mutex);
	env_cond_init(w->host, &r->changed);
	r->buf = blkdev_alloc(SIZE);
	world_format(w);
	MUST(!world_mount(w));
	r->f.ino = world_create(w);
	r->f.id = r->f.ino->id;
	r->f.flags = FS_OPEN_WRITE;
	r->f.mode = LOCK_EXCLUSIVE;
	memset(r->buf, 'o', SIZE);
	MUST(!file_write(&w->fs, r->f.ino, 0, r->buf, SIZE, false, &done) && done == SIZE);
}

static void rig_close(struct rig *r)
{
	struct world *w = r->w;

	inode_put(&w->fs, r->f.ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
	free(r->buf);
	env_cond_fini(w->host, &r->changed);
	env_mutex_fini(w->host, &r->mutex);
}

static int prepare(struct rig *r, unsigned int i, enum blk_op op, uint64_t off, uint8_t *buf,
		   size_t len)
{
	return fs_io_prepare(&r->w->fs, &r->f, op, off, buf, len, &r->ios[i]);
}

/* ---- what is written is what is read ---- */

static uint64_t place(unsigned int i)
{
	return i * 37 % 64 * 8 * BLOCK_SIZE;
}

static void batch_body(struct world *w)
{
	uint8_t *back = blkdev_alloc(SIZE);
	struct rig r;
	size_t done;

	rig_open(&r, w);
	for (unsigned int i = 0; i < COUNT; i++) {
		uint8_t *from = r.buf + place(i);

		memset(from, 'a' + (int)i, (i + 1) * BLOCK_SIZE);
		CU_ASSERT_EQUAL(prepare(&r, i, BLK_WRITE, place(i), from, (i + 1) * BLOCK_SIZE), 0);
	}
	submit_and_wait(&r, COUNT);
	for (unsigned int i = 0; i < COUNT; i++)
		CU_ASSERT_EQUAL(fs_io_end(&r.ios[i], r.errs[i]), 0);
	CU_ASSERT_EQUAL(file_read(&w->fs, r.f.ino, 0, back, SIZE, &done), 0);
	CU_ASSERT_EQUAL(memcmp(back, r.buf, SIZE), 0);
	memset(back, 0, SIZE);
	for (unsigned int i = 0; i < COUNT; i++)
		CU_ASSERT_EQUAL(prepare(&r, i, BLK_READ, place(i), back + place(i),
					(i + 1) * BLOCK_SIZE), 0);
	submit_and_wait(&r, COUNT);
	for (unsigned int i = 0; i < COUNT; i++) {
		CU_ASSERT_EQUAL(fs_io_end(&r.ios[i], r.errs[i]), 0);
		CU_ASSERT_EQUAL(memcmp(back + place(i), r.buf + place(i), (i + 1) * BLOCK_SIZE), 0);
	}
	free(back);
	rig_close(&r);
}

/* Another way to a file's blocks that led elsewhere would be silent corruption. */
static void a_batch_of_requests_reads_and_writes_the_files_blocks(void)
{
	world_run(VOLUME, batch_body, NULL);
}

/* ---- what is not plain is refused ---- */

static void refused_body(struct world *w)
{
	struct rig r;

	rig_open(&r, w);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 512, r.buf, BLOCK_SIZE), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 0, r.buf, 512), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 0, r.buf, 0), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 0, r.buf + 1, BLOCK_SIZE), -EAGAIN);
	/* Beyond the end, in part, and far beyond what can be added. */
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, SIZE, r.buf, BLOCK_SIZE), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, SIZE - BLOCK_SIZE, r.buf, 2 * BLOCK_SIZE), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, ALIGN_DOWN(UINT64_MAX, BLOCK_SIZE), r.buf,
				BLOCK_SIZE), -EAGAIN);
	r.f.flags = 0;
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, 0, r.buf, BLOCK_SIZE), -EAGAIN);
	r.f.flags = FS_OPEN_WRITE;
	r.f.mode = LOCK_MULTI;
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, 0, r.buf, BLOCK_SIZE), -EAGAIN);
	r.f.mode = LOCK_EXCLUSIVE;
	/* A hole holds zeros, and writing to one changes the map. */
	CU_ASSERT_EQUAL(file_allocate(&w->fs, r.f.ino, FILE_PUNCH, BLOCK_SIZE, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 0, r.buf, 2 * BLOCK_SIZE), -EAGAIN);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, BLOCK_SIZE, r.buf, BLOCK_SIZE), -EAGAIN);
	/* Inline. */
	CU_ASSERT_EQUAL(file_truncate(&w->fs, r.f.ino, 0), 0);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_READ, 0, r.buf, BLOCK_SIZE), -EAGAIN);
	/* Nothing of all that has left the file locked. */
	CU_ASSERT_TRUE(env_rwlock_try_rdlock(w->host, &r.f.ino->rwlock));
	CU_ASSERT_EQUAL(r.f.ino->rwlock.readers, 1);
	env_rwlock_rdunlock(w->host, &r.f.ino->rwlock);
	rig_close(&r);
}

static void only_whole_valid_blocks_of_open_files_are_plain(void)
{
	world_run(VOLUME, refused_body, NULL);
}

/* ---- the map stands still meanwhile ---- */

static void truncate_main(void *arg)
{
	struct rig *r = arg;

	CU_ASSERT_EQUAL(file_truncate(&r->w->fs, r->f.ino, BLOCK_SIZE), 0);
	r->truncated = true;
}

static void truncate_body(struct world *w)
{
	struct env_thread *thread;
	struct rig r;

	rig_open(&r, w);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, MIB, r.buf, BLOCK_SIZE), 0);
	MUST(!env_thread_start(w->host, "truncate", truncate_main, &r, &thread));
	env_sleep_until(w->host, env_now_ns(w->host) + NSEC_PER_SEC);
	/* Blocks must not be freed under a write: another file would be hit (R8). */
	CU_ASSERT_FALSE(r.truncated);
	/* Who has prepared one must not wait behind who waits for it. */
	CU_ASSERT_EQUAL(prepare(&r, 1, BLK_READ, 0, r.buf, BLOCK_SIZE), -EAGAIN);
	CU_ASSERT_EQUAL(fs_io_end(&r.ios[0], fs_io_run(&r.ios[0])), 0);
	env_thread_join(w->host, thread);
	CU_ASSERT_TRUE(r.truncated);
	CU_ASSERT_EQUAL(prepare(&r, 1, BLK_READ, 0, r.buf, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(fs_io_end(&r.ios[1], fs_io_run(&r.ios[1])), 0);
	rig_close(&r);
}

static void a_truncation_waits_for_requests_and_holds_new_ones_off(void)
{
	world_run(VOLUME, truncate_body, NULL);
}

/* ---- durability ---- */

static void durable_body(struct world *w)
{
	uint8_t *back = blkdev_alloc(BLOCK_SIZE);
	struct rig r;
	size_t done;
	uint64_t id;

	rig_open(&r, w);
	id = r.f.id;
	CU_ASSERT_EQUAL(file_fsync(&w->fs, r.f.ino, false), 0);
	memset(r.buf, 'n', BLOCK_SIZE);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, MIB, r.buf, BLOCK_SIZE), 0);
	submit_and_wait(&r, 1);
	CU_ASSERT_EQUAL(fs_io_end(&r.ios[0], r.errs[0]), 0);
	CU_ASSERT_EQUAL(file_fsync(&w->fs, r.f.ino, true), 0);
	simdisk_power_cut(w->disk, SIMDISK_KEEP_NONE);
	CU_ASSERT_EQUAL(blkdev_read(w->dev, r.ios[0].io.off, back, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(memcmp(back, r.buf, BLOCK_SIZE), 0);
	CU_ASSERT_EQUAL(file_read(&w->fs, r.f.ino, MIB, back, BLOCK_SIZE, &done), 0);
	CU_ASSERT_EQUAL(id, r.f.ino->id);
	free(back);
	rig_close(&r);
}

/* fdatasync() must know of writes that went this way (R7). */
static void an_overwrite_is_durable_after_fdatasync(void)
{
	world_run(VOLUME, durable_body, NULL);
}

static void late_body(struct world *w)
{
	struct simdisk_rule rule = {
		.fault = SIMDISK_TIMEOUT_LATE, .ops = 1 << BLK_WRITE, .count = 1,
		.delay_ns = NSEC_PER_SEC,
	};
	uint8_t *back = blkdev_alloc(BLOCK_SIZE);
	struct rig r;
	size_t done;

	rig_open(&r, w);
	memset(r.buf, 'l', BLOCK_SIZE);
	CU_ASSERT_EQUAL(prepare(&r, 0, BLK_WRITE, 0, r.buf, BLOCK_SIZE), 0);
	rule.off = r.ios[0].io.off;
	rule.len = BLOCK_SIZE;
	simdisk_inject(w->disk, &rule);
	submit_and_wait(&r, 1);
	CU_ASSERT_EQUAL(r.errs[0], -ETIMEDOUT);
	CU_ASSERT_NOT_EQUAL(fs_io_end(&r.ios[0], r.errs[0]), 0);
	simdisk_clear_rules(w->disk);
	memset(r.buf, 'n', BLOCK_SIZE);
	CU_ASSERT_EQUAL(file_write(&w->fs, r.f.ino, 0, r.buf, BLOCK_SIZE, false, &done), 0);
	env_sleep_until(w->host, env_now_ns(w->host) + 3 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(file_read(&w->fs, r.f.ino, 0, back, BLOCK_SIZE, &done), 0);
	CU_ASSERT_EQUAL(memcmp(back, r.buf, BLOCK_SIZE), 0);
	free(back);
	rig_close(&r);
}

/* A write that timed out must not land on what was written after it (R4). */
static void a_write_that_timed_out_is_waited_for(void)
{
	world_run(VOLUME, late_body, NULL);
}

UNIT_MAIN("fs/fs_io",
	UNIT_TEST(a_batch_of_requests_reads_and_writes_the_files_blocks),
	UNIT_TEST(only_whole_valid_blocks_of_open_files_are_plain),
	UNIT_TEST(a_truncation_waits_for_requests_and_holds_new_ones_off),
	UNIT_TEST(an_overwrite_is_durable_after_fdatasync),
	UNIT_TEST(a_write_that_timed_out_is_waited_for));
