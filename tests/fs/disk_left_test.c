// SPDX-License-Identifier: Apache-2.0
/*
 * A disk that was shut, and a host that has died since or ended: is it opened by the next one for a guest
 * that may remember it?  Only if nobody else has had it in between.
 */
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(256 * MIB)
#define SIZE	(4 * MIB)
#define IDLE_MS	40000	/* for a lock that nobody uses to be given up */

/* What the daemon writes down of it. */
struct noted {
	struct cluster *c;
	uint64_t id;
	struct disk_rig rig;
	struct disk_claim left, next;
};

static void begin(struct noted *n, struct cluster *c)
{
	struct fs_attr attr = { .size = SIZE };

	memset(n, 0, sizeof(*n));
	n->c = c;
	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	n->id = attr.id;
	attr.size = SIZE;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&n->rig, c->hosts[0].env, c->fs, n->id), 0);
}

/* Its front end has closed. */
static void shut(struct noted *n)
{
	CU_ASSERT_EQUAL(disk_shut(n->rig.disk), 0);
	CU_ASSERT(disk_left(n->rig.disk, &n->left));
	CU_ASSERT_NOT_EQUAL(n->left.generation, 0);
}

static void begin_shut(struct noted *n, struct cluster *c)
{
	begin(n, c);
	shut(n);
}

static int next_opens(struct noted *n)
{
	n->rig = (struct disk_rig){ .shut = &n->left, .next = &n->next };
	return disk_rig_open(&n->rig, n->c->hosts[0].env, n->c->fs, n->id);
}

static void next_comes(struct noted *n)
{
	CU_ASSERT_EQUAL_FATAL(cluster_attach(n->c, 0, 0), 0);
}

/* Killed, and started again. */
static int killed(struct noted *n)
{
	cluster_crash(n->c, 0);
	next_comes(n);
	return next_opens(n);
}

/* Its guest went on, or was refused; both hosts leave. */
static void end(struct noted *n)
{
	CU_ASSERT_EQUAL(disk_rig_close(&n->rig), 0);
}

static int use(struct noted *n, unsigned int host, unsigned int flags)
{
	struct fs *fs = n->c->hosts[host].fs;
	struct fs_file *f;
	int err = fs_open(fs, n->id, flags, &cluster_cred, &f, NULL);

	return err ? err : fs_close(fs, f);
}

static void nobody_body(struct cluster *c)
{
	struct noted n;

	begin_shut(&n, c);
	/* Killed each time as it has the lock, before it can say so. */
	for (unsigned int life = 0; life < 3; life++)
		CU_ASSERT_EQUAL_FATAL(killed(&n), 0);
	shut(&n);
	/* Given up meanwhile, for nobody. */
	cluster_sleep(c, IDLE_MS);
	CU_ASSERT_EQUAL_FATAL(killed(&n), 0);
	end(&n);
}

static void ended_body(struct cluster *c)
{
	struct noted n;

	begin_shut(&n, c);
	/* Read here, for a backup: the record has changed, but by nobody else. */
	cluster_sleep(c, IDLE_MS);
	CU_ASSERT_EQUAL(use(&n, 0, 0), 0);
	cluster_sleep(c, IDLE_MS);
	CU_ASSERT(disk_left(n.rig.disk, &n.left));
	end(&n);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	next_comes(&n);
	CU_ASSERT_EQUAL_FATAL(next_opens(&n), 0);
	end(&n);
}

/* An upgrade, or a crash of the daemon, is nothing that a guest has to be refused for. */
static void what_nobody_else_has_had_is_opened(void)
{
	cluster_run(1, VOLUME, nobody_body);
	cluster_run(2, VOLUME, ended_body);
}

static void stranger_body(struct cluster *c)
{
	struct noted n;

	begin_shut(&n, c);
	CU_ASSERT_EQUAL(use(&n, 1, FS_OPEN_WRITE), 0);
	/* Refused by this one, and by the one behind it. */
	for (unsigned int life = 0; life < 2; life++)
		CU_ASSERT_EQUAL(killed(&n), -ESTALE);
	end(&n);
}

static void and_back_body(struct cluster *c)
{
	struct noted n;

	begin_shut(&n, c);
	CU_ASSERT_EQUAL(use(&n, 1, FS_OPEN_WRITE), 0);
	/* The record names its last owner again, of the same life. */
	CU_ASSERT_EQUAL(use(&n, 0, FS_OPEN_WRITE), 0);
	CU_ASSERT(disk_left(n.rig.disk, &n.left));
	CU_ASSERT_EQUAL(killed(&n), -ESTALE);
	end(&n);
}

static void meanwhile_body(struct cluster *c)
{
	struct noted n;

	begin_shut(&n, c);
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL(use(&n, 1, FS_OPEN_WRITE), 0);
	next_comes(&n);
	CU_ASSERT_EQUAL(next_opens(&n), -ESTALE);
	end(&n);
}

/* The record that follows ours is a dead stranger's: nothing was given up. */
static void died_body(struct cluster *c)
{
	struct fs_file *f;
	struct noted n;

	begin_shut(&n, c);
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, n.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	cluster_crash(c, 1);
	next_comes(&n);
	CU_ASSERT_EQUAL(next_opens(&n), -ESTALE);
	end(&n);
}

/* The same of one that took it by one change of the record, as disks do: it is the very next one. */
static void died_at_once_body(struct cluster *c)
{
	struct disk_claim left, next = { 0 };
	struct noted n;

	begin_shut(&n, c);
	left = n.left;
	cluster_crash(c, 0);
	CU_ASSERT_EQUAL(disk_foretell(c->hosts[1].fs, n.id, &left, &next, disk_rig_note, NULL), 0);
	CU_ASSERT_EQUAL(next.sequence, n.left.sequence + 1);
	cluster_crash(c, 1);
	next_comes(&n);
	CU_ASSERT_EQUAL(next_opens(&n), -ESTALE);
	end(&n);
}

/* It is back, and a guest of the other host comes before ours does. */
static void afterwards_body(struct cluster *c)
{
	struct fs_file *f;
	struct noted n;

	begin_shut(&n, c);
	cluster_crash(c, 0);
	next_comes(&n);
	n.rig = (struct disk_rig){ .resume = NULL };
	sim_owner_start(&n.rig.owner, c->hosts[0].env);
	CU_ASSERT_EQUAL(workers_create(c->hosts[0].env, "disk", 4, &n.rig.workers), 0);
	n.rig.params = (struct disk_params){
		.fs = c->fs, .id = n.id, .name = "ds1:/disk", .owner = &n.rig.owner.owner,
		.workers = n.rig.workers, .lower = c->fs->dev,
	};
	CU_ASSERT_EQUAL_FATAL(disk_new(&n.rig.params, &n.rig.disk), 0);
	CU_ASSERT_EQUAL(disk_expect(n.rig.disk, &n.left), 0);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, n.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(disk_open(n.rig.disk, NULL, &n.rig.holder), -EBUSY);
	CU_ASSERT_EQUAL(fs_close(c->hosts[1].fs, f), 0);
	CU_ASSERT_EQUAL(disk_open(n.rig.disk, NULL, &n.rig.holder), -ESTALE);
	end(&n);
}

/*
 * R1: what a guest remembers of a disk that it gave up, in its caches and its in-flight requests, is of
 * another time once somebody else has written there.
 */
static void what_another_host_has_had_is_not(void)
{
	cluster_run(3, VOLUME, stranger_body);
	cluster_run(4, VOLUME, and_back_body);
	cluster_run(5, VOLUME, meanwhile_body);
	cluster_run(6, VOLUME, died_body);
	cluster_run(7, VOLUME, afterwards_body);
	cluster_run(10, VOLUME, died_at_once_body);
}

static bool heir_comes;

static void heir_body(struct cluster *c)
{
	struct disk_rig there = { .resume = NULL };
	struct lock_heir heir;
	struct noted n;

	begin(&n, c);
	heir = (struct lock_heir){ lockd_slot(c->hosts[1].fs->lockd),
				   lockd_generation(c->hosts[1].fs->lockd) };
	CU_ASSERT_EQUAL(disk_leave_to(n.rig.disk, &heir), 0);
	CU_ASSERT_EQUAL(disk_shut(n.rig.disk), 0);
	disk_let_go(n.rig.disk);
	CU_ASSERT(disk_left(n.rig.disk, &n.left));
	if (heir_comes) {
		CU_ASSERT_EQUAL(disk_rig_open(&there, c->hosts[1].env, c->hosts[1].fs, n.id), 0);
		CU_ASSERT_EQUAL(disk_rig_close(&there), 0);
	}
	CU_ASSERT_EQUAL(killed(&n), heir_comes ? -ESTALE : 0);
	end(&n);
}

/* Killed amid a migration, its source goes on only if the target has not had it. */
static void what_was_left_to_another_host_is_opened_if_that_has_not_had_it(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		heir_comes = i;
		cluster_run(8 + i, VOLUME, heir_body);
	}
}

UNIT_MAIN("fs/disk_left",
	  UNIT_TEST(what_nobody_else_has_had_is_opened),
	  UNIT_TEST(what_another_host_has_had_is_not),
	  UNIT_TEST(what_was_left_to_another_host_is_opened_if_that_has_not_had_it));
