/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated LUN with a volume on it, hosts that attach it, and an observer who tells them
 * what to do: a test's body runs as the observer's thread and calls fs_*() of any host.
 */
#ifndef LUNFS_TESTS_FS_ATTACHED_H
#define LUNFS_TESTS_FS_ATTACHED_H

#include <errno.h>

#include "block/simdev.h"
#include "fs/check.h"
#include "fs/fs.h"
#include "fs/mkfs.h"
#include "tests/unit.h"

#define HOSTS_MAX	3u

struct member {
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct fs *fs;
	char log[8192];			/* what it logged */
	size_t log_len;
};

struct cluster {
	struct sim *sim;
	struct simdisk *disk;
	struct env *env;		/* the observer's */
	struct member hosts[HOSTS_MAX];
	struct fs *fs;			/* of host 0 */
	char why[400];
	const char *identity;		/* of the device as hosts see it; NULL: the simulated one's */
	enum blk_caw caw;		/* the same of its compare-and-write */
	uint8_t machine_id[16];
	unsigned int errors;		/* what check_volume() found */
	void (*body)(struct cluster *c);
};

static const char *const cluster_names[HOSTS_MAX] = { "alpha", "beta", "gamma" };
static const struct fs_cred cluster_cred = { .uid = 1000, .gid = 100, .pid = 77, .comm = "qemu" };

static inline void cluster_log(void *arg, enum log_level level, const char *line)
{
	struct member *m = arg;
	int n;

	if (level > LOG_LEVEL_INFO || m->log_len + 1 >= sizeof(m->log))
		return;
	n = snprintf(m->log + m->log_len, sizeof(m->log) - m->log_len, "%s\n", line);
	m->log_len += (size_t)n;
	if (m->log_len >= sizeof(m->log))
		m->log_len = sizeof(m->log) - 1;
}

/* Attaches host @i; a crashed one comes back as a new process after a reboot. */
static inline int cluster_attach(struct cluster *c, unsigned int i, unsigned int flags)
{
	struct member *m = &c->hosts[i];
	struct fs_attach_params p = { .flags = flags, .pid = 100 + i, .pid_start = 1 };
	int err;

	if (!m->env || sim_host_crashed(m->env)) {
		m->env = sim_host(c->sim, cluster_names[i]);
		m->log_len = 0;
		sim_host_log(m->env, cluster_log, m);
	}
	m->dev = simdisk_open(c->disk, m->env);
	m->hb_dev = simdisk_open(c->disk, m->env);
	if (c->identity)
		snprintf(m->dev->info.identity, sizeof(m->dev->info.identity), "%s", c->identity);
	if (c->caw)
		m->dev->info.caw = m->hb_dev->info.caw = c->caw;
	memcpy(p.machine_id, c->machine_id, sizeof(p.machine_id));
	p.env = m->env;
	p.dev = m->dev;
	p.hb_dev = m->hb_dev;
	memset(p.host_id, (int)i + 1, sizeof(p.host_id));
	env_random(c->env, p.boot_id, sizeof(p.boot_id));
	snprintf(p.host_name, sizeof(p.host_name), "%s", cluster_names[i]);
	err = fs_attach(&p, &m->fs, c->why, sizeof(c->why));
	if (err) {
		m->fs = NULL;
		blkdev_close(m->hb_dev);
		blkdev_close(m->dev);
	}
	c->fs = c->hosts[0].fs;
	return err;
}

static inline int cluster_detach(struct cluster *c, unsigned int i)
{
	struct member *m = &c->hosts[i];
	int err = fs_detach(m->fs);

	m->fs = NULL;
	blkdev_close(m->hb_dev);
	blkdev_close(m->dev);
	c->fs = c->hosts[0].fs;
	return err;
}

/* The host stops where it is; its memory is the world's. */
static inline void cluster_crash(struct cluster *c, unsigned int i)
{
	sim_host_crash(c->hosts[i].env);
	c->hosts[i].fs = NULL;
}

static inline void cluster_sleep(struct cluster *c, uint64_t ms)
{
	env_sleep_until(c->env, env_now_ns(c->env) + ms * NSEC_PER_MSEC);
}

static inline void cluster_finding(void *arg, const struct check_finding *f)
{
	struct cluster *c = arg;

	if (check_code_info(f->code)->severity != CHECK_ERROR)
		return;
	c->errors++;
	fprintf(stderr, "  check: %s: %s\n", check_code_info(f->code)->name, f->text);
}

/* Everybody has left: is the volume without fault? */
static inline void cluster_check(struct cluster *c)
{
	struct blkdev *dev = simdisk_open(c->disk, c->env);
	struct check_params p = { .env = c->env, .dev = dev, .report = cluster_finding, .arg = c };
	struct check_result r;

	CU_ASSERT_EQUAL(check_volume(&p, &r, c->why, sizeof(c->why)), 0);
	CU_ASSERT_EQUAL(c->errors, 0);
	blkdev_close(dev);
}

static inline void cluster_thread(void *arg)
{
	struct cluster *c = arg;
	struct mkfs_params p = { .env = c->env, .label = "ds1" };
	struct super s;
	unsigned int i;
	int err;

	p.dev = simdisk_open(c->disk, c->env);
	err = mkfs(&p, &s, c->why, sizeof(c->why));
	CU_ASSERT_EQUAL(err, 0);
	blkdev_close(p.dev);
	if (err)
		return;
	c->body(c);
	for (i = 0; i < HOSTS_MAX; i++)
		if (c->hosts[i].fs)
			CU_ASSERT_EQUAL(cluster_detach(c, i), 0);
	cluster_check(c);
}

/* Runs @body in a world of @seed on a fresh volume of @size bytes; then all detach, and check. */
static inline void cluster_run(uint64_t seed, uint64_t size, void (*body)(struct cluster *c))
{
	struct simdisk_params p = { .size = size, .sector = 512, .latency_min_ns = 20000,
				    .latency_max_ns = 200000, .reservations = true };
	struct cluster *c = calloc(1, sizeof(*c));
	struct env_thread *thread;

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	c->sim = sim_new(seed);
	c->disk = simdisk_new(c->sim, &p);
	c->env = sim_host(c->sim, "observer");
	c->body = body;
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->env, "test", cluster_thread, c, &thread), 0);
	if (sim_run(c->sim, 7200 * NSEC_PER_SEC)) {
		env_thread_join(c->env, thread);
		simdisk_free(c->disk);
		sim_free(c->sim);
	} else {
		CU_FAIL("the world did not end");
	}
	free(c);
}

/* One host, attached. */
static inline void cluster_alone(struct cluster *c)
{
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
}

#endif
