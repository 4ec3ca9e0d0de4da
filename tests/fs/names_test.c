// SPDX-License-Identifier: Apache-2.0
/*
 * Names between two hosts: what one was told that it changed, the other sees at once, though
 * nothing of it is at home yet; and neither answers from memory without a lease.
 */
#include <stdio.h>
#include <string.h>

#include "fs/image.h"
#include "fs/journal.h"
#include "fs/journal_internal.h"
#include "fs/xattr.h"
#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)

static struct fs *alpha(struct cluster *c)
{
	return c->hosts[0].fs;
}

static struct fs *beta(struct cluster *c)
{
	return c->hosts[1].fs;
}

static uint64_t make(struct fs *fs, uint64_t dir, const char *name, uint32_t mode)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_create(fs, dir, name, mode, 0, &cluster_cred, &attr), 0);
	return attr.id;
}

/* The id that @name leads to on @fs; 0: there is none. */
static uint64_t leads_to(struct fs *fs, uint64_t dir, const char *name)
{
	struct fs_attr attr = { 0 };
	int err = fs_lookup(fs, dir, name, &attr);

	CU_ASSERT(err == 0 || err == -ENOENT);
	return err ? 0 : attr.id;
}

/* Both hosts, and a directory of files "old", "new" and "other" that both have just read. */
static uint64_t two_hosts(struct cluster *c)
{
	uint64_t dir;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	dir = make(alpha(c), fs_root(alpha(c)), "d", S_IFDIR | 0755);
	make(alpha(c), dir, "old", S_IFREG | 0644);
	make(alpha(c), dir, "new", S_IFREG | 0644);
	make(alpha(c), dir, "other", S_IFREG | 0644);
	CU_ASSERT_EQUAL(fs_sync(alpha(c)), 0);
	CU_ASSERT(leads_to(beta(c), dir, "old") && leads_to(beta(c), dir, "new"));
	return dir;
}

/*
 * Without the lock beta reads the directory as it lies at home, and takes for the disk what a
 * rename on alpha has just deleted, and for there what alpha has removed.
 */
static void replaced_names_are_seen_at_once(struct cluster *c)
{
	uint64_t dir = two_hosts(c), id = leads_to(alpha(c), dir, "new"), now;

	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "new", dir, "old", 0), 0);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "old"), id);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "new"), 0);
	CU_ASSERT_EQUAL(fs_unlink(alpha(c), dir, "old"), 0);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "old"), 0);
	now = make(alpha(c), dir, "old", S_IFREG | 0600);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "old"), now);
}

/* The disk that was attached on beta just after a snapshot on alpha was the snapshot. */
static void name_leads_to_the_disk_not_to_its_snapshot(struct cluster *c)
{
	uint64_t dir = two_hosts(c), before = leads_to(alpha(c), dir, "old");
	struct image_info info;
	struct fs_attr attr;

	CU_ASSERT_EQUAL(fs_snapshot(alpha(c), dir, "old", "old@1", NULL, &attr), 0);
	CU_ASSERT_EQUAL(fs_resolve(beta(c), "/d/old", &attr), 0);
	CU_ASSERT_NOT_EQUAL(attr.id, before);
	CU_ASSERT_EQUAL(fs_image_info(beta(c), attr.id, &info), 0);
	CU_ASSERT_FALSE(info.frozen);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "old@1"), before);
	CU_ASSERT_EQUAL(fs_image_info(beta(c), before, &info), 0);
	CU_ASSERT_TRUE(info.frozen);
}

struct names {
	char text[256];
};

static int add_name(void *arg, const struct dirent_info *d)
{
	struct names *n = arg;

	strcat(strcat(n->text, d->name), " ");
	return 0;
}

static void listings_begin_with_what_is(struct cluster *c)
{
	uint64_t dir = two_hosts(c);
	struct names n = { "" };

	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "new", dir, "newer", 0), 0);
	CU_ASSERT_EQUAL(fs_unlink(alpha(c), dir, "old"), 0);
	CU_ASSERT_EQUAL(fs_readdir(beta(c), dir, 0, add_name, &n), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(n.text, "newer "));
	CU_ASSERT_PTR_NOT_NULL(strstr(n.text, "other "));
	CU_ASSERT_PTR_NULL(strstr(n.text, "new "));
	CU_ASSERT_PTR_NULL(strstr(n.text, "old "));
}

static void parent_of_a_moved_directory_is_the_new_one(struct cluster *c)
{
	uint64_t root = fs_root(two_hosts(c) ? alpha(c) : NULL), from, to, moved;

	from = make(alpha(c), root, "from", S_IFDIR | 0755);
	to = make(alpha(c), root, "to", S_IFDIR | 0755);
	moved = make(alpha(c), from, "moved", S_IFDIR | 0755);
	CU_ASSERT_EQUAL(leads_to(beta(c), moved, ".."), from);
	CU_ASSERT_EQUAL(fs_rename(alpha(c), from, "moved", to, "moved", 0), 0);
	CU_ASSERT_EQUAL(leads_to(beta(c), moved, ".."), to);
	CU_ASSERT_EQUAL(leads_to(beta(c), moved, "."), moved);
}

/* A removal or a rename looks at home first: what it finds there is not what it may act on. */
static void hints_are_looked_at_again(struct cluster *c)
{
	uint64_t dir = two_hosts(c), id = leads_to(alpha(c), dir, "new");

	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "new", dir, "old", 0), 0);
	CU_ASSERT_EQUAL(fs_unlink(beta(c), dir, "new"), -ENOENT);
	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "other", dir, "third", 0), 0);
	CU_ASSERT_EQUAL(fs_rename(beta(c), dir, "other", dir, "fourth", 0), -ENOENT);
	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "old", dir, "fifth", 0), 0);
	make(alpha(c), dir, "old", S_IFREG | 0600);
	CU_ASSERT_EQUAL(fs_unlink(beta(c), dir, "old"), 0);
	CU_ASSERT_EQUAL(leads_to(alpha(c), dir, "fifth"), id);
	CU_ASSERT_EQUAL(leads_to(alpha(c), dir, "old"), 0);
}

/* ---- names that somebody has been told, and believes for a moment ---- */

struct renaming {
	struct cluster *c;
	uint64_t	dir, ended_ns;
	int		err;
};

static void rename_main(void *arg)
{
	struct renaming *r = arg;

	r->err = fs_rename(alpha(r->c), r->dir, "new", r->dir, "old", 0);
	r->ended_ns = env_now_ns(r->c->env);
}

/* Until when a mount of beta may believe its answer for "old". */
static uint64_t believed_until(struct cluster *c, uint64_t dir)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_lookup(beta(c), dir, "old", &attr), 0);
	return attr.name_until_ns;
}

/*
 * The kernel of a host does not ask again for a name that it was told a moment ago: until then
 * nobody may change it.  But who asks all the time keeps nobody waiting.
 */
static void names_stay_while_they_are_believed(struct cluster *c)
{
	uint64_t dir = two_hosts(c), until, began = env_now_ns(c->env);
	struct renaming r = { .c = c, .dir = dir };
	struct fs_attr made = { 0 };
	struct env_thread *thread;
	unsigned int doubts = 0;

	CU_ASSERT_EQUAL(believed_until(c, dir), 0);	/* nobody caches */
	__atomic_fetch_add(&beta(c)->caches, 1, __ATOMIC_RELAXED);
	CU_ASSERT_EQUAL(fs_create(beta(c), dir, "made", S_IFREG | 0600, 0, &cluster_cred, &made), 0);
	CU_ASSERT(made.name_until_ns > env_now_ns(c->env));
	until = believed_until(c, dir);
	CU_ASSERT(until > env_now_ns(c->env));
	CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "mv", rename_main, &r, &thread), 0);
	while (!r.ended_ns && env_now_ns(c->env) < began + 5 * NSEC_PER_SEC) {
		uint64_t told = believed_until(c, dir);

		doubts += !told;
		if (told > until && !r.ended_ns)
			until = told;
		cluster_sleep(c, 10);
	}
	env_thread_join(c->hosts[0].env, thread);
	CU_ASSERT_EQUAL(r.err, 0);
	CU_ASSERT(r.ended_ns >= until);
	CU_ASSERT(r.ended_ns < began + 2 * NSEC_PER_SEC);
	CU_ASSERT(doubts > 0);
	__atomic_fetch_sub(&beta(c)->caches, 1, __ATOMIC_RELAXED);
}

/* ---- what it costs ---- */

struct counting {
	struct env	*host;
	uint64_t	slots_end;
	unsigned int	commands;	/* not of the heartbeat, nor scans */
};

static void count_command(void *arg, struct env *host, const struct blk_io *io)
{
	struct counting *n = arg;

	n->commands += host == n->host && io->off >= n->slots_end;
}

/* Device commands of a lookup of "old" on beta. */
static unsigned int lookup_costs(struct cluster *c, struct counting *n, uint64_t dir)
{
	n->commands = 0;
	CU_ASSERT_NOT_EQUAL(leads_to(beta(c), dir, "old"), 0);
	return n->commands;
}

static void lookups_under_a_lock_that_is_there_cost_nothing(struct cluster *c)
{
	uint64_t dir = two_hosts(c), began;
	const struct super *s = &beta(c)->super;
	struct counting n = { .host = c->hosts[1].env,
			      .slots_end = s->slots_addr + s->slot_count * BLOCK_SIZE };

	simdisk_observe_submit(c->disk, count_command, &n);
	lookup_costs(c, &n, dir);
	CU_ASSERT_EQUAL(lookup_costs(c, &n, dir), 0);	/* attributes, too, for a moment */
	cluster_sleep(c, 1000);
	CU_ASSERT(lookup_costs(c, &n, dir) <= 3);	/* those of the file, at most with its lock */
	/* Alpha has it exclusively and has written it home: only alpha knows that. */
	CU_ASSERT_EQUAL(fs_unlink(alpha(c), dir, "other"), 0);
	CU_ASSERT_EQUAL(fs_sync(alpha(c)), 0);
	cluster_sleep(c, 2000);
	began = env_now_ns(c->env);
	CU_ASSERT(lookup_costs(c, &n, dir) <= 16);
	CU_ASSERT(env_now_ns(c->env) - began < 1000 * NSEC_PER_MSEC);
	if (getenv("NAMES_SHOW"))
		printf("taken from another host: %u commands, %.1f ms\n", n.commands,
		       (double)(env_now_ns(c->env) - began) / 1e6);
	/* Gone from memory and free: its record, the lock, the inode, and the file's. */
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	n.host = c->hosts[1].env;
	CU_ASSERT(lookup_costs(c, &n, dir) <= 6);
	if (getenv("NAMES_SHOW"))
		printf("free: %u commands\n", n.commands);
	simdisk_observe_submit(c->disk, NULL, NULL);
}

/* ---- the lease ---- */

enum question { GETATTR, LOOKUP, LOOKUP_NONE, DOTS, READDIR, READLINK, XATTR, XATTR_NONE, XATTR_LIST,
		STATFS, RENAME, SETATTR, QUESTIONS };

struct asking {
	struct fs	*fs;
	uint64_t	dir, file, link;
	enum question	what;
	int		err;
	bool		answered;
};

static int ask(struct asking *q)
{
	struct names names = { "" };
	struct statvfs st;
	struct fs_attr attr = { .mode = 0640 };
	char buf[4096];
	size_t len;

	switch (q->what) {
	case GETATTR:
		return fs_getattr(q->fs, q->file, &attr);
	case LOOKUP:
		return fs_lookup(q->fs, q->dir, "f", &attr);
	case LOOKUP_NONE:
		return fs_lookup(q->fs, q->dir, "none", &attr) == -ENOENT ? 0 : -EIO;
	case DOTS:
		return fs_lookup(q->fs, q->dir, "..", &attr);
	case READDIR:
		return fs_readdir(q->fs, q->dir, 0, add_name, &names);
	case READLINK:
		return fs_readlink(q->fs, q->link, buf, sizeof(buf));
	case XATTR:
		return xattr_get(q->fs, q->file, "user.a", buf, sizeof(buf), &len);
	case XATTR_NONE:
		return xattr_get(q->fs, q->file, "user.b", buf, sizeof(buf), &len) == -ENODATA ? 0 : -EIO;
	case XATTR_LIST:
		return xattr_list(q->fs, q->file, buf, sizeof(buf), &len);
	case STATFS:
		return fs_statfs(q->fs, &st);
	case RENAME:
		return fs_rename(q->fs, q->dir, "f", q->dir, "f2", 0);
	default:
		return fs_setattr(q->fs, q->file, FS_SET_MODE, &attr);
	}
}

static void ask_main(void *arg)
{
	struct asking *q = arg;

	q->err = ask(q);
	q->answered = true;
}

static void asking_begin(struct cluster *c, struct asking *q)
{
	struct fs_attr attr;

	cluster_alone(c);
	q->fs = c->fs;
	q->dir = make(c->fs, fs_root(c->fs), "d", S_IFDIR | 0755);
	q->file = make(c->fs, q->dir, "f", S_IFREG | 0644);
	CU_ASSERT_EQUAL(fs_symlink(c->fs, q->dir, "l", "f", &cluster_cred, &attr), 0);
	q->link = attr.id;
	CU_ASSERT_EQUAL(xattr_set(c->fs, q->file, "user.a", "1", 1, 0), 0);
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	/* What changes something goes last, and once. */
	for (q->what = 0; q->what < RENAME; q->what++)
		CU_ASSERT_EQUAL(ask(q), 0);
}

/* All is known, and the device holds every command back until the lease is over. */
static void lapse(struct cluster *c)
{
	struct simdisk_rule rule = { .fault = SIMDISK_HOLD, .ops = ~0u, .delay_ns = 9 * NSEC_PER_SEC,
				     .host = c->hosts[0].env };
	struct lockd_status st;

	simdisk_inject(c->disk, &rule);
	cluster_sleep(c, 7000);
	lockd_status(c->fs->lockd, &st);
	CU_ASSERT(!st.lease_valid && !st.lost);
}

static void no_lease_no_answer(struct cluster *c)
{
	struct asking questions[QUESTIONS] = { 0 };
	struct env_thread *threads[QUESTIONS];

	asking_begin(c, &questions[0]);
	lapse(c);
	for (unsigned int i = 0; i < QUESTIONS; i++) {
		questions[i] = questions[0];
		questions[i].answered = false;
		questions[i].what = i;
	}
	for (unsigned int i = 0; i < QUESTIONS; i++)
		CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "ask", ask_main, &questions[i],
						 &threads[i]), 0);
	cluster_sleep(c, 1000);
	for (unsigned int i = 0; i < QUESTIONS; i++) {
		CU_ASSERT_FALSE(questions[i].answered);
		if (questions[i].answered)
			fprintf(stderr, "  question %u was answered without a lease\n", i);
	}
	simdisk_clear_rules(c->disk);
	for (unsigned int i = 0; i < QUESTIONS; i++) {
		env_thread_join(c->hosts[0].env, threads[i]);
		/* The renaming may have come between a question and its answer. */
		CU_ASSERT(questions[i].answered && (!questions[i].err || i == LOOKUP));
	}
}

/* Another host takes over meanwhile: what memory had is void, and says nothing any more. */
static void lost_slots_answer_nothing(struct cluster *c)
{
	struct asking q = { 0 };
	struct env_thread *thread;

	asking_begin(c, &q);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	simdisk_stall(c->disk, c->hosts[0].env, env_now_ns(c->env) + 30 * NSEC_PER_SEC);
	cluster_sleep(c, 6000);
	q.what = LOOKUP;
	q.answered = false;
	CU_ASSERT_EQUAL(env_thread_start(c->hosts[0].env, "ask", ask_main, &q, &thread), 0);
	CU_ASSERT_EQUAL(fs_unlink(beta(c), q.dir, "f"), 0);
	CU_ASSERT_FALSE(q.answered);
	env_thread_join(c->hosts[0].env, thread);
	CU_ASSERT_EQUAL(q.err, -EIO);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), -EIO);
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(71, SIZE, fn); }

IN_CLUSTER(replaced_names_are_seen_at_once)
IN_CLUSTER(name_leads_to_the_disk_not_to_its_snapshot)
IN_CLUSTER(listings_begin_with_what_is)
IN_CLUSTER(parent_of_a_moved_directory_is_the_new_one)
IN_CLUSTER(hints_are_looked_at_again)
IN_CLUSTER(names_stay_while_they_are_believed)
IN_CLUSTER(lookups_under_a_lock_that_is_there_cost_nothing)
IN_CLUSTER(no_lease_no_answer)
IN_CLUSTER(lost_slots_answer_nothing)

/* alpha lives, but nothing of what it changed comes home. */
static void stuck_body(struct cluster *c)
{
	uint64_t dir = two_hosts(c), old = leads_to(alpha(c), dir, "old");
	struct journal *j = alpha(c)->journal;
	struct simdisk_rule rule = { .fault = SIMDISK_HOLD, .ops = 1u << BLK_WRITE,
				     .off = ring_addr(&j->ring, 0), .delay_ns = 30 * NSEC_PER_SEC };
	struct names n = { "" };
	struct fs_attr attr;

	rule.len = j->ring.blocks * BLOCK_SIZE;
	simdisk_inject(c->disk, &rule);
	CU_ASSERT_EQUAL(fs_rename(alpha(c), dir, "old", dir, "moved", 0), 0);
	CU_ASSERT_EQUAL(fs_lookup(beta(c), dir, "old", &attr), -EBUSY);
	CU_ASSERT_EQUAL(fs_lookup_shown(beta(c), dir, "old", &attr), 0);
	CU_ASSERT_EQUAL(attr.id, old);
	CU_ASSERT_EQUAL(attr.name_until_ns, 0);
	CU_ASSERT_EQUAL(fs_readdir(beta(c), dir, 0, add_name, &n), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(n.text, "old "));
	simdisk_clear_rules(c->disk);
	cluster_sleep(c, 35000);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "old"), 0);
	CU_ASSERT_EQUAL(leads_to(beta(c), dir, "moved"), old);
}

static void test_a_host_that_does_not_get_on_keeps_nobody_from_reading(void)
{
	cluster_run(9, SIZE, stuck_body);
}

UNIT_MAIN("names",
	UNIT_TEST(test_a_host_that_does_not_get_on_keeps_nobody_from_reading),
	UNIT_TEST(test_replaced_names_are_seen_at_once),
	UNIT_TEST(test_name_leads_to_the_disk_not_to_its_snapshot),
	UNIT_TEST(test_listings_begin_with_what_is),
	UNIT_TEST(test_parent_of_a_moved_directory_is_the_new_one),
	UNIT_TEST(test_hints_are_looked_at_again),
	UNIT_TEST(test_names_stay_while_they_are_believed),
	UNIT_TEST(test_lookups_under_a_lock_that_is_there_cost_nothing),
	UNIT_TEST(test_no_lease_no_answer),
	UNIT_TEST(test_lost_slots_answer_nothing)
);
