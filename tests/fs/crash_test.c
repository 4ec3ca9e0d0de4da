// SPDX-License-Identifier: Apache-2.0
/*
 * Hosts under load that stop anywhere: whatever was synced is there afterwards, and the volume
 * is without fault.  Each seed is another moment and another order.
 */
#include "fs/fs.h"

#include <stdio.h>

#include "tests/fs/attached.h"

#define SIZE	(256 * MIB)
#define FILES	24u
#define DIRS	3u

/* What a worker knows to be durable of one of its names. */
struct known {
	uint64_t synced;	/* stamp that a successful fsync covered; 0 none */
	bool	touched;	/* changed since: nothing is promised but a whole old or new state */
};

struct worker {
	struct cluster *c;
	unsigned int host;
	uint64_t dirs[DIRS];
	struct known files[FILES];
	uint64_t stamp;
	uint64_t pause_ms;	/* between operations, so that locks go back and forth */
	bool	done;
};

static uint64_t choose(struct worker *w, uint64_t below)
{
	return env_random_below(w->c->hosts[w->host].env, below);
}

static void file_name(const struct worker *w, unsigned int i, char *name, size_t size)
{
	snprintf(name, size, "%s-%u", cluster_names[w->host], i);
}

/* The stamp, many times over: enough to need units, and to see what is torn. */
#define COPIES	1500u

static void work_write(struct worker *w, struct fs *fs, unsigned int i, uint64_t id)
{
	static uint64_t data[HOSTS_MAX][COPIES];
	uint64_t stamp = ++w->stamp;
	struct fs_file *f;
	size_t done;
	unsigned int k;

	for (k = 0; k < COPIES; k++)
		data[w->host][k] = stamp;
	if (fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL))
		return;
	w->files[i].touched = true;
	if (!fs_write(fs, f, 0, data[w->host], sizeof(data[0]), false, &done) &&
	    done == sizeof(data[0]) && !fs_fsync(fs, f, choose(w, 2))) {
		w->files[i].synced = stamp;
		w->files[i].touched = false;
	}
	fs_close(fs, f);
}

/* A file that comes and goes, shared by all: nothing is promised of it but order. */
static void work_churn(struct worker *w, struct fs *fs)
{
	uint64_t dir = w->dirs[choose(w, DIRS)], other = w->dirs[choose(w, DIRS)];
	struct fs_attr attr = { .size = choose(w, 3 * MIB) };
	char name[32], to[32];

	snprintf(name, sizeof(name), "churn-%u", (unsigned int)choose(w, 12));
	snprintf(to, sizeof(to), "churn-%u", (unsigned int)choose(w, 12));
	switch (choose(w, 8)) {
	case 0: case 1:
		fs_create(fs, dir, name, S_IFREG | 0644, 0, &cluster_cred, &attr);
		break;
	case 2:
		fs_create(fs, dir, name, S_IFDIR | 0755, 0, &cluster_cred, &attr);
		break;
	case 3:
		if (fs_unlink(fs, dir, name))
			fs_rmdir(fs, dir, name);
		break;
	case 4: case 5:
		fs_rename(fs, dir, name, other, to, choose(w, 4) ? 0 : RENAME_EXCHANGE);
		break;
	case 6:
		if (!fs_lookup(fs, dir, name, &attr) && S_ISREG(attr.mode)) {
			attr.size = choose(w, 3 * MIB);
			fs_setattr(fs, attr.id, FS_SET_SIZE, &attr);
		}
		break;
	default:
		if (!fs_lookup(fs, dir, name, &attr))
			fs_link(fs, attr.id, other, to, &attr);
	}
}

static void work_own(struct worker *w, struct fs *fs)
{
	unsigned int i = (unsigned int)choose(w, FILES);
	struct fs_attr attr;
	char name[32];

	file_name(w, i, name, sizeof(name));
	if (fs_lookup(fs, w->dirs[i % DIRS], name, &attr) &&
	    fs_create(fs, w->dirs[i % DIRS], name, S_IFREG | 0644, 0, &cluster_cred, &attr))
		return;
	work_write(w, fs, i, attr.id);
}

static void work(void *arg)
{
	struct worker *w = arg;

	while (!w->done) {
		if (choose(w, 3))
			work_churn(w, w->c->hosts[w->host].fs);
		else
			work_own(w, w->c->hosts[w->host].fs);
		if (w->pause_ms)
			cluster_sleep(w->c, choose(w, w->pause_ms));
	}
}

static void verify_file(struct cluster *c, unsigned int h, const struct worker *w, unsigned int i)
{
	static uint64_t data[COPIES];
	struct fs_attr attr;
	struct fs_file *f;
	char name[32];
	unsigned int k;
	size_t done;
	int err;

	if (!w->files[i].synced)
		return;
	file_name(w, i, name, sizeof(name));
	err = fs_lookup(c->hosts[h].fs, w->dirs[i % DIRS], name, &attr);
	CU_ASSERT_EQUAL(err, 0);
	if (err || fs_open(c->hosts[h].fs, attr.id, 0, &cluster_cred, &f, NULL)) {
		CU_FAIL("a synced file cannot be opened");
		return;
	}
	CU_ASSERT_EQUAL(fs_read(c->hosts[h].fs, f, 0, data, sizeof(data), &done), 0);
	CU_ASSERT_EQUAL(done, sizeof(data));
	for (k = 0; k < COPIES && data[k] >= w->files[i].synced; k++)
		if (data[k] != w->files[i].synced && !w->files[i].touched)
			break;
	CU_ASSERT_EQUAL(k, COPIES);
	fs_close(c->hosts[h].fs, f);
}

static void start(struct cluster *c, struct worker *w, unsigned int n, struct env_thread **t)
{
	struct fs_attr attr;
	char name[16];
	unsigned int i, d;

	for (i = 0; i < n; i++)
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, i, 0), 0);
	for (d = 0; d < DIRS; d++) {
		snprintf(name, sizeof(name), "dir%u", d);
		CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), name, S_IFDIR | 0755, 0,
						&cluster_cred, &attr), 0);
		for (i = 0; i < n; i++)
			w[i].dirs[d] = attr.id;
	}
	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	for (i = 0; i < n; i++) {
		w[i].c = c;
		w[i].host = i;
		CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[i].env, "worker", work, &w[i],
						       &t[i]), 0);
	}
}

/* One of two stops; the other one goes on working, then finds all that was synced. */
static void crash_of_one(struct cluster *c)
{
	static struct worker w[2];
	struct env_thread *t[2];
	unsigned int i;

	memset(w, 0, sizeof(w));
	w[1].pause_ms = 50;
	start(c, w, 2, t);
	cluster_sleep(c, 200 + sim_random(c->sim) % 3000);
	cluster_crash(c, 0);
	cluster_sleep(c, 9000);
	w[1].done = true;
	env_thread_join(c->hosts[1].env, t[1]);
	for (i = 0; i < FILES; i++) {
		verify_file(c, 1, &w[0], i);
		verify_file(c, 1, &w[1], i);
	}
}

/* Power fails for hosts and LUN: of what was not flushed any part may be gone. */
static void power_cut(struct cluster *c)
{
	static struct worker w[2];
	struct env_thread *t[2];
	unsigned int i;

	memset(w, 0, sizeof(w));
	start(c, w, 2, t);
	cluster_sleep(c, 200 + sim_random(c->sim) % 3000);
	cluster_crash(c, 0);
	cluster_crash(c, 1);
	simdisk_power_cut(c->disk, SIMDISK_KEEP_RANDOM);
	cluster_check(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	cluster_sleep(c, 9000);
	for (i = 0; i < FILES; i++) {
		verify_file(c, 1, &w[0], i);
		verify_file(c, 1, &w[1], i);
	}
}

/* Nobody crashes: hosts that only work together leave a volume without fault. */
static void work_together(struct cluster *c)
{
	static struct worker w[3];
	struct env_thread *t[3];
	unsigned int i, k;

	memset(w, 0, sizeof(w));
	for (i = 0; i < 3; i++)
		w[i].pause_ms = 60;
	start(c, w, 3, t);
	cluster_sleep(c, 30000);
	for (i = 0; i < 3; i++)
		w[i].done = true;
	for (i = 0; i < 3; i++)
		env_thread_join(c->hosts[i].env, t[i]);
	for (i = 0; i < FILES; i++)
		for (k = 0; k < 3; k++)
			verify_file(c, (k + 1) % 3, &w[k], i);
}

#ifdef __SANITIZE_ADDRESS__
#define SEEDS	2u
#else
#define SEEDS	6u
#endif

static void each_seed(uint64_t first, void (*body)(struct cluster *c))
{
	uint64_t seed;
	unsigned int failures;

	for (seed = first; seed < first + SEEDS; seed++) {
		failures = CU_get_number_of_failures();
		cluster_run(seed, SIZE, body);
		if (CU_get_number_of_failures() != failures)
			fprintf(stderr, "  seed %llu failed\n", (unsigned long long)seed);
	}
}

static void test_crash_of_one_loses_nothing_synced(void)
{
	each_seed(100, crash_of_one);
}

static void test_power_cut_loses_nothing_synced(void)
{
	each_seed(200, power_cut);
}

static void test_hosts_working_together_leave_no_fault(void)
{
	each_seed(300, work_together);
}

UNIT_MAIN("crash",
	UNIT_TEST(test_hosts_working_together_leave_no_fault),
	UNIT_TEST(test_crash_of_one_loses_nothing_synced),
	UNIT_TEST(test_power_cut_loses_nothing_synced)
);
