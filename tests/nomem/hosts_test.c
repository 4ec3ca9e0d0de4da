// SPDX-License-Identifier: Apache-2.0
/*
 * Hosts that run out of memory while they pass locks on, read what others hold, and take a dead
 * host's work over: an operation says -ENOMEM or waits a little longer; nobody is fenced for it,
 * nothing is lost.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/fs/attached.h"
#include "tests/nomem/each.h"

#define SIZE	(64 * MIB)
#define LONG	40000u		/* bytes of a file */

enum { ALPHA, BETA, GAMMA };

struct script {
	struct cluster *c;
	uint64_t n, count, hits;
	uint64_t dir, file, late;
	struct fs_file *open;
};

static uint8_t pattern[LONG];

static struct fs *fs_of(struct script *s, unsigned int host)
{
	return s->c->hosts[host].fs;
}

static int make(struct script *s, unsigned int host, const char *name, uint32_t mode, uint64_t *id)
{
	struct fs_attr attr = { 0 };
	int err = fs_create(fs_of(s, host), s->dir ? s->dir : fs_root(fs_of(s, host)), name, mode, 0,
			    &cluster_cred, &attr);

	if (!err && id)
		*id = attr.id;
	return err;
}

static int put(struct script *s, unsigned int host, uint64_t id, bool sync)
{
	struct fs_file *f;
	size_t done;
	int err, synced = 0;

	err = fs_open(fs_of(s, host), id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_write(fs_of(s, host), f, 0, pattern, sizeof(pattern), false, &done);
	if (!err && done != sizeof(pattern))
		err = -ENOMEM;
	if (sync)
		synced = fs_fsync(fs_of(s, host), f, false);
	fs_close(fs_of(s, host), f);
	return err ? err : synced;
}

static int get(struct script *s, unsigned int host, uint64_t id)
{
	static uint8_t buf[LONG];
	struct fs_file *f;
	size_t done = 0;
	int err;

	err = fs_open(fs_of(s, host), id, 0, &cluster_cred, &f, NULL);
	if (err)
		return err;
	err = fs_read(fs_of(s, host), f, 0, buf, sizeof(buf), &done);
	if (!err) {
		CU_ASSERT_EQUAL(done, sizeof(buf));
		CU_ASSERT_EQUAL(memcmp(buf, pattern, sizeof(buf)), 0);
	}
	fs_close(fs_of(s, host), f);
	return err;
}

/* ---- steps ---- */

static int attach_alpha(struct script *s) { return cluster_attach(s->c, ALPHA, 0); }
static int attach_beta(struct script *s) { return cluster_attach(s->c, BETA, 0); }
static int detach_alpha(struct script *s) { return cluster_detach(s->c, ALPHA); }
static int detach_beta(struct script *s) { return cluster_detach(s->c, BETA); }

static int alpha_makes(struct script *s)
{
	int err = 0;

	if (!s->dir)
		err = make(s, ALPHA, "dir", S_IFDIR | 0755, &s->dir);
	if (!err && !s->file)
		err = make(s, ALPHA, "file", S_IFREG | 0644, &s->file);
	if (!err)
		err = put(s, ALPHA, s->file, true);
	if (!err)
		err = xattr_set(fs_of(s, ALPHA), s->file, "user.a", "b", 1, 0);
	return err;
}

static int alpha_links(struct script *s)
{
	char target[3000];
	struct fs_attr attr;

	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	return fs_symlink(fs_of(s, ALPHA), s->dir, "link", target, &cluster_cred, &attr);
}

static int count_name(void *arg, const struct dirent_info *d)
{
	unsigned int *count = arg;

	(void)d;
	++*count;
	return 0;
}

static int beta_looks(struct script *s)
{
	struct fs *fs = fs_of(s, BETA);
	char value[BLOCK_SIZE];
	unsigned int names = 0;
	struct fs_attr attr;
	struct statvfs st;
	size_t len;
	int err;

	err = fs_resolve(fs, "/dir/link", &attr);
	if (!err)
		err = fs_readlink(fs, attr.id, value, sizeof(value));
	if (!err)
		err = fs_getattr(fs, s->file, &attr);
	if (!err)
		err = fs_readdir(fs, s->dir, 0, count_name, &names);
	if (!err)
		CU_ASSERT_EQUAL(names, 2);
	if (!err)
		err = xattr_get(fs, s->file, "user.a", value, sizeof(value), &len);
	if (!err)
		err = fs_statfs(fs, &st);
	if (!err)
		fs_path(fs, s->file, value, sizeof(value));
	return err;
}

static int beta_reads(struct script *s) { return get(s, BETA, s->file); }
static int beta_writes(struct script *s) { return put(s, BETA, s->file, true); }
static int beta_makes(struct script *s) { return make(s, BETA, "beta", S_IFREG | 0600, NULL); }
static int alpha_makes_more(struct script *s)
{
	return make(s, ALPHA, "alpha", S_IFDIR | 0700, NULL);
}

static int alpha_opens(struct script *s)
{
	return fs_open(fs_of(s, ALPHA), s->file, FS_OPEN_WRITE, &cluster_cred, &s->open, NULL);
}

static int beta_is_refused(struct script *s)
{
	struct lock_holder holder;
	struct fs_file *f;
	int err = fs_open(fs_of(s, BETA), s->file, 0, &cluster_cred, &f, &holder);

	CU_ASSERT_NOT_EQUAL(err, 0);
	return err == -EBUSY ? 0 : err;
}

static int alpha_closes(struct script *s)
{
	fs_close(fs_of(s, ALPHA), s->open);
	return 0;
}

static int beta_moves_directory(struct script *s)
{
	return fs_rename(fs_of(s, BETA), s->dir, "alpha", fs_root(fs_of(s, BETA)), "moved", 0);
}

static int alpha_removes(struct script *s) { return fs_unlink(fs_of(s, ALPHA), s->dir, "beta"); }

static int rest(struct script *s)
{
	cluster_sleep(s->c, 3000);
	return 0;
}

struct step { const char *name; int (*run)(struct script *s); };

static const struct step passing_on[] = {
	{ "attach alpha", attach_alpha }, { "attach beta", attach_beta },
	{ "alpha makes", alpha_makes }, { "alpha links", alpha_links },
	{ "beta looks", beta_looks }, { "beta reads", beta_reads },
	{ "beta writes", beta_writes }, { "beta makes", beta_makes },
	{ "alpha makes more", alpha_makes_more }, { "alpha opens", alpha_opens },
	{ "beta is refused", beta_is_refused }, { "alpha closes", alpha_closes },
	{ "beta moves a directory", beta_moves_directory }, { "alpha removes", alpha_removes },
	{ "rest", rest }, { "beta looks for alpha's", beta_reads },
	{ "detach alpha", detach_alpha }, { "detach beta", detach_beta }, { NULL, NULL },
};

/* ---- a dead host ---- */

static int attach_gamma(struct script *s) { return cluster_attach(s->c, GAMMA, 0); }

/* Its journal holds names, space and an unlinked open file when it stops. */
static int gamma_dies(struct script *s)
{
	struct fs_file *f;
	uint64_t id = 0;

	s->dir = 0;
	CU_ASSERT_EQUAL(make(s, GAMMA, "dir", S_IFDIR | 0755, &s->dir), 0);
	CU_ASSERT_EQUAL(make(s, GAMMA, "file", S_IFREG | 0644, &s->file), 0);
	CU_ASSERT_EQUAL(put(s, GAMMA, s->file, false), 0);
	CU_ASSERT_EQUAL(make(s, GAMMA, "orphan", S_IFREG | 0644, &id), 0);
	CU_ASSERT_EQUAL(put(s, GAMMA, id, false), 0);
	CU_ASSERT_EQUAL(fs_open(fs_of(s, GAMMA), id, 0, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_unlink(fs_of(s, GAMMA), s->dir, "orphan"), 0);
	CU_ASSERT_EQUAL(fs_sync(fs_of(s, GAMMA)), 0);
	cluster_crash(s->c, GAMMA);
	return 0;
}

/* However often the recovery has to begin again: in the end it is done. */
static int beta_takes_over(struct script *s)
{
	int err = -EBUSY;

	for (unsigned int i = 0; i < 60 && err && err != -ENOMEM; i++) {
		err = get(s, BETA, s->file);
		if (err)
			cluster_sleep(s->c, 1000);
	}
	return err;
}

static int beta_lists(struct script *s)
{
	unsigned int names = 0;
	int err = fs_readdir(fs_of(s, BETA), s->dir, 0, count_name, &names);

	if (!err)
		CU_ASSERT_EQUAL(names, 1);
	return err;
}

static const struct step before_taking_over[] = {
	{ "attach gamma", attach_gamma }, { "attach beta", attach_beta },
	{ "gamma dies", gamma_dies }, { NULL, NULL },
};

static const struct step taking_over[] = {
	{ "beta takes over", beta_takes_over }, { "beta lists", beta_lists },
	{ "rest", rest }, { "detach beta", detach_beta }, { NULL, NULL },
};

/* Nobody looks after gamma: who attaches in its place replays its journal. */
static const struct step before_coming_back[] = {
	{ "attach gamma", attach_gamma }, { "gamma dies", gamma_dies }, { NULL, NULL },
};

static int gamma_reads(struct script *s) { return get(s, GAMMA, s->file); }
static int detach_gamma(struct script *s) { return cluster_detach(s->c, GAMMA); }

static const struct step coming_back[] = {
	{ "attach gamma again", attach_gamma }, { "gamma reads", gamma_reads },
	{ "rest", rest }, { "detach gamma", detach_gamma }, { NULL, NULL },
};

/* ---- running them ---- */

struct story {
	const struct step *before, *armed;
};

static struct script *now;		/* cluster_run() has no argument for the body */
static const struct story *story;

static bool is_lost(struct script *s)
{
	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		if (fs_of(s, i) && fs_is_lost(fs_of(s, i)))
			return true;
	return false;
}

static void run_steps(struct script *s, const struct step *step)
{
	unsigned int before = CU_get_number_of_failures();

	for (; step->run && CU_get_number_of_failures() == before; step++) {
		int err = step->run(s);

		if (err == -ENOMEM && nomem_hits()) {
			s->hits += nomem_disarm();
			err = step->run(s);
		}
		if (!err && !is_lost(s))
			continue;
		fprintf(stderr, "  %s: %s\n", step->name, err ? strerror(-err) : "a slot is lost");
		CU_FAIL("a step failed for another reason, or twice");
		for (unsigned int i = 0; i < HOSTS_MAX; i++)
			fprintf(stderr, "%s", s->c->hosts[i].log);
	}
}

static void body(struct cluster *c)
{
	struct script *s = now;

	s->c = c;
	for (unsigned int i = 0; i < HOSTS_MAX; i++) {
		c->hosts[i].env = sim_host(c->sim, cluster_names[i]);
		sim_host_log(c->hosts[i].env, cluster_log, &c->hosts[i]);
		nomem_threads(c->hosts[i].env);
	}
	if (story->before)
		run_steps(s, story->before);
	nomem_arm(s->n, s->count);
	run_steps(s, story->armed);
	s->hits += nomem_disarm();
}

static uint64_t run_story(void *arg, uint64_t n, uint64_t count)
{
	struct script s = { .n = n, .count = count };

	story = arg;
	now = &s;
	cluster_run(9, SIZE, body);
	return s.hits;
}

static void each_of(const struct story *st, uint64_t count, uint64_t stride, const char *what)
{
	struct each each = { .count = count, .stride = stride, .crashes = st->before,
			     .run = run_story, .arg = (void *)(uintptr_t)st };

	each_allocation(&each);
	nomem_note(what);
}

static void locks_are_passed_on_without_memory(void)
{
	static const struct story st = { NULL, passing_on };

	memset(pattern, 0x5a, sizeof(pattern));
	each_of(&st, 1, 1, "one of two hosts'");
	each_of(&st, EACH_ALL, 3, "all of two hosts' from one on");
}

static void a_dead_host_is_taken_over_without_memory(void)
{
	static const struct story st = { before_taking_over, taking_over };

	each_of(&st, 1, 1, "one of who takes over");
	each_of(&st, 5, 3, "five of who takes over");
}

static void a_host_that_comes_back_needs_no_luck(void)
{
	static const struct story st = { before_coming_back, coming_back };

	each_of(&st, 1, 1, "one of who comes back");
}

UNIT_MAIN("nomem hosts",
	UNIT_TEST(locks_are_passed_on_without_memory),
	UNIT_TEST(a_dead_host_is_taken_over_without_memory),
	UNIT_TEST(a_host_that_comes_back_needs_no_luck)
);
