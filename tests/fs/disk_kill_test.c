/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that serves a disk is killed under the guest, and its successor goes on with it: the guest
 * has everything that it was ever told or shown, and nobody else has had the disk.
 */
#include "fs/journal.h"
#include "fs/journal_internal.h"
#include "tests/fs/disk_world.h"

/* A world whose notes survive the process. */
static void noted_begin(struct world *w, struct cluster *c, uint64_t size)
{
	world_begin(w, c, size);
	CU_ASSERT_EQUAL(disk_rig_close(&w->rig), 0);
	w->rig.params.fresh = calloc(1, sizeof(*w->rig.params.fresh));
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w->rig, c->hosts[0].env, c->fs, id_of_disk(w)), 0);
}

/* The world's disk, opened by the next process of host 0 as the last one left it, and foresaw (@next, or NULL). */
static int open_again(struct world *w, uint64_t id, struct disk_claim *left, struct disk_claim *next)
{
	struct disk_params params = { .fresh = w->rig.params.fresh, .read_only = w->rig.params.read_only };

	w->rig = (struct disk_rig){ .params = params, .resume = left, .next = next };
	return disk_rig_open(&w->rig, w->c->hosts[0].env, w->c->fs, id);
}

/* The process is killed; what it had is gone, but for its notes.  Return: as open_again(). */
static int killed(struct world *w, uint64_t id, struct disk_claim *left, struct disk_claim *next)
{
	cluster_crash(w->c, 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(w->c, 0, 0), 0);
	return open_again(w, id, left, next);
}

static void killed_body(struct cluster *c)
{
	struct disk_fresh *fresh;
	struct disk_claim claim;
	struct world w;

	noted_begin(&w, c, DISK);
	fresh = w.rig.params.fresh;
	for (unsigned int life = 0; life < 4; life++) {
		write_some(&w, 30);
		if (roll(&w, 2))
			CU_ASSERT_EQUAL(blkdev_flush(w.rig.dev), 0);
		write_some(&w, 10);
		CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &claim), 0);
		CU_ASSERT_EQUAL(killed(&w, disk_id(w.rig.disk), &claim, NULL), 0);
		compare_all(&w);
	}
	w.rig.resume = NULL;
	world_end(&w);
	free(fresh);
}

/*
 * A guest that runs on when the daemon is killed relies on everything that was answered, flushed
 * or not: nobody tells it that its disk was without power.
 */
static void killed_under_a_guest_it_loses_nothing_that_was_answered(void)
{
	for (uint64_t seed = 1; seed <= 5 && !CU_get_number_of_failures(); seed++)
		cluster_run(seed, VOLUME, killed_body);
}

static void stranger_body(struct cluster *c)
{
	struct disk_claim claim;
	struct fs_file *f;
	struct world w;
	uint64_t id;

	world_begin(&w, c, DISK);
	id = id_of_disk(&w);
	write_some(&w, 3);
	CU_ASSERT_EQUAL(blkdev_flush(w.rig.dev), 0);
	CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &claim), 0);
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_close(c->hosts[1].fs, f), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	w.rig = (struct disk_rig){ .resume = &claim };
	CU_ASSERT_EQUAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, id), -ESTALE);
	CU_ASSERT_EQUAL(disk_rig_close(&w.rig), 0);
	/* A new user is another matter. */
	w.rig = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, id), 0);
	world_end(&w);
}

/* Another host had it meanwhile: what the guest remembers is of another time (R1). */
static void it_is_not_resumed_behind_a_stranger(void)
{
	cluster_run(11, VOLUME, stranger_body);
}

/* ---- what was there when it was opened ---- */

/* A file as a copy into the mount leaves it: grown and written to, and nothing of it synced. */
static void unsynced_begin(struct world *w, struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	size_t done;

	*w = (struct world){ .c = c, .size = DISK, .model = calloc(1, DISK) };
	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_fsync(c->fs, f, false), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	memset(w->model + MIB, 0x77, 64 * KIB);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, MIB, w->model + MIB, 64 * KIB, false, &done), 0);
	CU_ASSERT_EQUAL(done, 64 * KIB);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
}

static void shown_body(struct cluster *c, bool read_only)
{
	struct disk_claim claim;
	struct world w;
	uint64_t id;

	unsynced_begin(&w, c);
	id = id_of_disk(&w);
	w.rig.params.read_only = read_only;
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, id), 0);
	compare_all(&w);
	CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &claim), 0);
	CU_ASSERT_EQUAL_FATAL(killed(&w, id, &claim, NULL), 0);
	world_end(&w);
}

static void shown_to_write_body(struct cluster *c)
{
	shown_body(c, false);
}

static void shown_to_read_body(struct cluster *c)
{
	shown_body(c, true);
}

/* A guest has read what somebody copied to the mount before, and goes on: it must not change under it. */
static void what_was_not_synced_before_it_was_opened_survives_a_kill(void)
{
	cluster_run(22, VOLUME, shown_to_write_body);
	cluster_run(23, VOLUME, shown_to_read_body);
}

/* ---- space that a kill may take back ---- */

/* The end of a world: the disk is as its notes and its map say. */
static void noted_kill(struct world *w)
{
	struct disk_fresh *fresh = w->rig.params.fresh;
	struct disk_claim claim;

	CU_ASSERT_EQUAL(disk_claim(w->rig.disk, &claim), 0);
	simdisk_clear_rules(w->c->disk);	/* no time passes: what is held dies with the process */
	CU_ASSERT_EQUAL_FATAL(killed(w, disk_id(w->rig.disk), &claim, NULL), 0);
	compare_all(w);
	w->rig.resume = NULL;
	world_end(w);
	free(fresh);
}

static void hold_journal(struct cluster *c, uint64_t ns)
{
	struct journal *j = c->fs->journal;
	struct simdisk_rule rule = { .fault = SIMDISK_HOLD, .ops = 1u << BLK_WRITE,
				     .off = ring_addr(&j->ring, 0), .delay_ns = ns };

	rule.len = j->ring.blocks * BLOCK_SIZE;
	simdisk_inject(c->disk, &rule);
}

static void moved_body(struct cluster *c)
{
	struct merge m = { 0 };
	struct fs_attr attr;
	uint64_t pause_ns;
	struct world w;

	noted_begin(&w, c, DISK);
	/* All units that get their space together have some. */
	for (uint64_t unit = 0; unit < 8; unit++)
		write_block(&w, unit * UNIT_SIZE, 0x11);
	CU_ASSERT_EQUAL(disk_snapshot(w.rig.disk, fs_root(c->fs), "disk", "snap-0", &attr, &pause_ns), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "snap-0"), 0);
	while (!m.units_moved)
		CU_ASSERT_TRUE_FATAL(disk_merge_step(w.rig.disk, &m) > 0);
	hold_journal(c, 200 * NSEC_PER_MSEC);
	write_block(&w, 5 * BLOCK_SIZE, 0x22);
	noted_kill(&w);
}

/*
 * A merge brought the unit, and is not durable yet: a first write to the rest of it would be noted for
 * space that the disk does not have any more after a kill.
 */
static void a_first_write_behind_a_merge_survives_a_kill(void)
{
	cluster_run(15, VOLUME, moved_body);
}

struct late_write {
	struct world	*w;
	uint64_t	off;
};

static void late_write_main(void *arg)
{
	struct late_write *l = arg;

	write_block(l->w, l->off, 0x33);
}

static void loaded_body(struct cluster *c)
{
	uint8_t *buf = blkdev_alloc(4096);
	struct env_thread *thread;
	struct late_write late;
	struct world w;

	noted_begin(&w, c, 64 * MIB);
	/* The first load has units 120 to 247; written in turn, the next space is for 244 to 251. */
	write_block(&w, 120 * UNIT_SIZE, 0x11);
	write_block(&w, 240 * UNIT_SIZE, 0x11);
	CU_ASSERT_EQUAL(blkdev_flush(w.rig.dev), 0);
	late = (struct late_write){ &w, 244 * UNIT_SIZE };
	hold_journal(c, 200 * NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "late", late_write_main, &late, &thread), 0);
	cluster_sleep(c, 20);
	CU_ASSERT_EQUAL(blkdev_read(w.rig.dev, 248 * UNIT_SIZE, buf, 4096), 0);
	write_block(&w, 248 * UNIT_SIZE, 0x22);
	free(buf);
	/* If that one did not wait for its space it is killed before that is the disk's. */
	if (!w.model[late.off])
		memset(w.model + late.off, 0, 4096);
	noted_kill(&w);
}

/*
 * The map has the space, the device does not know of it yet: whoever looks it up meanwhile must not
 * write there, or a kill makes it nobody's.
 */
static void space_that_is_not_durable_is_not_written_to(void)
{
	cluster_run(16, VOLUME, loaded_body);
}

/* ---- killed between taking the lock and saying so ---- */

static void killed_twice_body(struct cluster *c)
{
	struct disk_claim left, next = { 0 };
	struct world w;
	uint64_t id;

	noted_begin(&w, c, DISK);
	id = disk_id(w.rig.disk);
	write_some(&w, 20);
	CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &left), 0);
	for (unsigned int life = 0; life < 3; life++) {
		/* It takes the lock, and dies before it can write that down. */
		CU_ASSERT_EQUAL_FATAL(killed(&w, id, &left, &next), 0);
		CU_ASSERT_NOT_EQUAL(next.generation, 0);
		compare_all(&w);
	}
	free(w.rig.params.fresh);
	w.rig.resume = NULL;
	world_end(&w);
}

/* Whoever is killed so early has served nobody: the guest goes on, however often that happens. */
static void killed_as_it_has_the_lock_it_is_resumed_all_the_same(void)
{
	cluster_run(18, VOLUME, killed_twice_body);
}

static void use_by_stranger(struct cluster *c, uint64_t id)
{
	struct fs_file *f;

	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	/* It dies with the file open: its record is taken over as it is. */
	cluster_crash(c, 1);
}

static void foreseen_stranger_body(struct cluster *c)
{
	struct disk_claim left, next = { 0 };
	struct world w;
	uint64_t id;

	noted_begin(&w, c, DISK);
	id = disk_id(w.rig.disk);
	write_some(&w, 20);
	CU_ASSERT_EQUAL(blkdev_flush(w.rig.dev), 0);
	CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &left), 0);
	cluster_crash(c, 0);
	use_by_stranger(c, id);
	/* Twice: that it was refused, and has the lock itself now, is nothing to go on from. */
	for (unsigned int life = 0; life < 2; life++) {
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
		CU_ASSERT_EQUAL(open_again(&w, id, &left, &next), -ESTALE);
		CU_ASSERT_EQUAL(next.generation, 0);
		cluster_crash(c, 0);
	}
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	free(w.rig.params.fresh);
	w.rig = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, id), 0);
	world_end(&w);
}

struct visit {
	struct cluster *c;
	uint64_t id;
};

static void visit_now(void *arg)
{
	struct visit *v = arg;

	use_by_stranger(v->c, v->id);
}

static void overtaken_body(struct cluster *c)
{
	struct disk_claim left, next = { 0 };
	struct world w;
	struct visit v = { c, 0 };

	noted_begin(&w, c, DISK);
	v.id = disk_id(w.rig.disk);
	CU_ASSERT_EQUAL(disk_claim(w.rig.disk, &left), 0);
	free(w.rig.params.fresh);
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL(disk_take_back(c->fs, v.id, &left, &next, visit_now, &v), 0);
	CU_ASSERT_NOT_EQUAL(next.generation, 0);
	/* It has the lock now, of a dead stranger, and dies. */
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	w.rig = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL(open_again(&w, v.id, &left, &next), -ESTALE);
	CU_ASSERT_EQUAL(next.generation, 0);
	CU_ASSERT_EQUAL(disk_rig_close(&w.rig), 0);
	w.rig = (struct disk_rig){ .resume = NULL };
	CU_ASSERT_EQUAL(disk_rig_open(&w.rig, c->hosts[0].env, c->fs, v.id), 0);
	world_end(&w);
}

/* R1: what was foreseen does not make good what a stranger had in between. */
static void foreseen_or_not_it_is_not_resumed_behind_a_stranger(void)
{
	cluster_run(19, VOLUME, foreseen_stranger_body);
	cluster_run(20, VOLUME, overtaken_body);
}

UNIT_MAIN("fs/disk_kill",
	UNIT_TEST(what_was_not_synced_before_it_was_opened_survives_a_kill),
	UNIT_TEST(killed_under_a_guest_it_loses_nothing_that_was_answered),
	UNIT_TEST(it_is_not_resumed_behind_a_stranger),
	UNIT_TEST(killed_as_it_has_the_lock_it_is_resumed_all_the_same),
	UNIT_TEST(foreseen_or_not_it_is_not_resumed_behind_a_stranger),
	UNIT_TEST(a_first_write_behind_a_merge_survives_a_kill),
	UNIT_TEST(space_that_is_not_durable_is_not_written_to));
