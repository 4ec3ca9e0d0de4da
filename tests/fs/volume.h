/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated LUN and one host: a test's body runs as a thread of that host. */
#ifndef LUNFS_TESTS_FS_VOLUME_H
#define LUNFS_TESTS_FS_VOLUME_H

#include <errno.h>

#include "block/simdev.h"
#include "fs/mkfs.h"
#include "fs/super.h"
#include "tests/unit.h"

struct volume {
	struct sim *sim;
	struct simdisk *disk;
	struct env *host;
	struct blkdev *dev;
	struct super s;
	char why[400];
	void *block;			/* BLOCK_SIZE bytes for the test */
	void (*body)(struct volume *v);
	uint64_t arg;			/* the test's */
};

static inline void volume_thread(void *arg)
{
	struct volume *v = arg;

	v->dev = simdisk_open(v->disk, v->host);
	v->body(v);
	blkdev_close(v->dev);
}

/* Runs @body on a device of @p, in a world of @seed. */
static inline void volume_run_on(uint64_t seed, const struct simdisk_params *p,
				 void (*body)(struct volume *v), uint64_t arg)
{
	struct volume v = { .sim = sim_new(seed), .body = body, .arg = arg };
	struct env_thread *thread;

	v.disk = simdisk_new(v.sim, p);
	v.host = sim_host(v.sim, "host");
	v.block = blkdev_alloc(BLOCK_SIZE);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(v.host, "test", volume_thread, &v, &thread), 0);
	CU_ASSERT_TRUE(sim_run(v.sim, 3600 * NSEC_PER_SEC));
	env_thread_join(v.host, thread);
	free(v.block);
	simdisk_free(v.disk);
	sim_free(v.sim);
}

/* On a device of @size bytes that holds random bytes. */
static inline void volume_run(uint64_t seed, uint64_t size, uint32_t sector,
			      void (*body)(struct volume *v), uint64_t arg)
{
	struct simdisk_params p = { .size = size, .sector = sector, .latency_min_ns = 1000,
				    .latency_max_ns = 50000, .random_contents = true };

	volume_run_on(seed, &p, body, arg);
}

static inline int volume_format(struct volume *v)
{
	struct mkfs_params p = { .env = v->host, .dev = v->dev, .label = "ds1" };

	return mkfs(&p, &v->s, v->why, sizeof(v->why));
}

static inline int volume_read_super(struct volume *v, struct super *s)
{
	return super_read(v->dev, s, v->why, sizeof(v->why));
}

#endif
