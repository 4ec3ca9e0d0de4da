// SPDX-License-Identifier: Apache-2.0
/*
 * Opens for a moment (FS_OPEN_BRIEF), as the background merger's: nobody is refused because of one.
 * Before there were any, a guest that was started in that moment found its disk in use.
 */
#include "base/env_sim.h"
#include "fs/image.h"
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(256 * MIB)
#define SIZE	(4 * MIB)

/* Who wants the file while it is open briefly. */
struct wanter {
	struct fs	*fs;
	uint64_t	id;
	unsigned int	flags;
	struct fs_file	*f;
	int		err;
	bool		done;
};

static void want(void *arg)
{
	struct wanter *w = arg;

	w->err = fs_open(w->fs, w->id, w->flags, &cluster_cred, &w->f, NULL);
	w->done = true;
}

static uint64_t make_file(struct cluster *c, const char *name)
{
	struct fs_attr attr = { .size = SIZE };

	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), name, S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	attr.size = SIZE;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	return attr.id;
}

static void wait_done(struct cluster *c, const struct wanter *w, unsigned int seconds)
{
	for (unsigned int i = 0; i < seconds * 100 && !w->done; i++)
		cluster_sleep(c, 10);
}

/* The one on host @host waits while the brief one lasts, and has the file then. */
static void waits(struct cluster *c, uint64_t id, unsigned int host, unsigned int flags)
{
	struct wanter w = { .fs = c->hosts[host].fs, .id = id, .flags = flags };
	struct env_thread *thread;
	struct fs_file *brief, *again;

	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE | FS_OPEN_BRIEF, &cluster_cred,
				      &brief, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[host].env, "wanter", want, &w, &thread), 0);
	cluster_sleep(c, 1500);
	CU_ASSERT_FALSE(w.done);
	CU_ASSERT_EQUAL(fs_close(c->fs, brief), 0);
	wait_done(c, &w, 10);
	CU_ASSERT(w.done);
	CU_ASSERT_EQUAL(w.err, 0);
	/* Now it is the brief one that gives way. */
	CU_ASSERT_EQUAL(fs_open(c->fs, id, FS_OPEN_WRITE | FS_OPEN_BRIEF, &cluster_cred, &again,
				NULL), -EBUSY);
	if (!w.err)
		CU_ASSERT_EQUAL(fs_close(w.fs, w.f), 0);
	env_thread_join(c->hosts[host].env, thread);
}

static void cut(void *arg)
{
	struct wanter *w = arg;
	struct fs_attr attr = { .size = SIZE / 2 };

	w->err = fs_setattr(w->fs, w->id, FS_SET_SIZE, &attr);
	w->done = true;
}

/* So does who changes its size without opening it. */
static void cut_waits(struct cluster *c, uint64_t id)
{
	struct wanter w = { .fs = c->fs, .id = id };
	struct env_thread *thread;
	struct fs_file *brief;

	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, FS_OPEN_WRITE | FS_OPEN_SOLE | FS_OPEN_BRIEF,
				      &cluster_cred, &brief, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[0].env, "wanter", cut, &w, &thread), 0);
	cluster_sleep(c, 1500);
	CU_ASSERT_FALSE(w.done);
	CU_ASSERT_EQUAL(fs_close(c->fs, brief), 0);
	wait_done(c, &w, 10);
	CU_ASSERT(w.done && !w.err);
	env_thread_join(c->hosts[0].env, thread);
}

static void opens_body(struct cluster *c)
{
	uint64_t id;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	id = make_file(c, "disk");
	waits(c, id, 0, FS_OPEN_WRITE | FS_OPEN_SOLE);
	waits(c, id, 0, FS_OPEN_WRITE | FS_OPEN_DENY_WRITE);
	waits(c, id, 1, FS_OPEN_WRITE | FS_OPEN_SOLE);
	waits(c, id, 1, FS_OPEN_WRITE);
	cut_waits(c, id);
	CU_ASSERT_EQUAL(cluster_detach(c, 1), 0);
}

static void who_wants_a_file_that_is_open_briefly_waits(void)
{
	cluster_run(1, VOLUME, opens_body);
}

/* One open after the other with a rest in between, as the merger does. */
struct merging {
	struct fs	*fs;
	struct env	*env;
	uint64_t	id;
	bool		stop;
	unsigned int	steps, gave_way;
};

static void merge(void *arg)
{
	struct merging *m = arg;
	struct fs_file *f;

	while (!m->stop) {
		if (fs_open(m->fs, m->id, FS_OPEN_WRITE | FS_OPEN_BRIEF, &cluster_cred, &f, NULL)) {
			m->gave_way++;
			env_sleep_until(m->env, env_now_ns(m->env) + 50 * NSEC_PER_MSEC);
			continue;
		}
		m->steps++;
		env_sleep_until(m->env, env_now_ns(m->env) + 300 * NSEC_PER_MSEC);
		fs_close(m->fs, f);
	}
}

static void every_body(struct cluster *c)
{
	struct merging m = { .env = c->hosts[0].env };
	struct disk_rig rig = { .resume = NULL };
	struct fs_attr attr;
	struct env_thread *thread;
	uint64_t base;

	cluster_alone(c);
	m.env = c->hosts[0].env;
	m.fs = c->fs;
	m.id = make_file(c, "disk");
	CU_ASSERT_EQUAL_FATAL(env_thread_start(m.env, "merger", merge, &m, &thread), 0);
	cluster_sleep(c, 100);
	/* A guest's disk, twice, a snapshot of it and a revert to that. */
	for (unsigned int i = 0; i < 2; i++) {
		rig = (struct disk_rig){ .resume = NULL };
		CU_ASSERT_EQUAL(disk_rig_open(&rig, m.env, m.fs, m.id), 0);
		CU_ASSERT_EQUAL(disk_rig_close(&rig), 0);
		cluster_sleep(c, 200);
	}
	CU_ASSERT_EQUAL(fs_snapshot(m.fs, fs_root(m.fs), "disk", "disk@a", NULL, &attr), 0);
	base = m.id;
	m.id = attr.id;
	cluster_sleep(c, 500);
	CU_ASSERT_EQUAL(fs_clone(m.fs, base, fs_root(m.fs), "disk", true, NULL, &attr), 0);
	m.stop = true;
	env_thread_join(m.env, thread);
	CU_ASSERT(m.steps > 0);
	CU_ASSERT(m.gave_way > 0);
}

static void nothing_is_refused_for_what_is_open_briefly_again_and_again(void)
{
	cluster_run(2, VOLUME, every_body);
}

UNIT_MAIN("fs/brief",
	UNIT_TEST(who_wants_a_file_that_is_open_briefly_waits),
	UNIT_TEST(nothing_is_refused_for_what_is_open_briefly_again_and_again));
