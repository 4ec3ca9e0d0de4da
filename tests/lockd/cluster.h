/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several simulated hosts on one simulated LUN, for tests of lockd.
 *
 * Each host joins, writes to its own block all the time, and leaves when told to.  A write
 * applied on behalf of a host whose journal another host has begun to replay breaks R3: every
 * test fails on that, whatever else it is about.
 */
#ifndef LUNFS_TESTS_LOCKD_CLUSTER_H
#define LUNFS_TESTS_LOCKD_CLUSTER_H

#include <errno.h>

#include "block/simdev.h"
#include "lockd/internal.h"
#include "tests/unit.h"

#define MSEC		NSEC_PER_MSEC
#define SEC		NSEC_PER_SEC
#define HOSTS_MAX	8
#define SLOTS_ADDR	(1 * MIB)
#define DATA_ADDR	(8 * MIB)
#define PID_BASE	100u

static const uint8_t cluster_volume[16] = "cluster-volume-1";

struct host {
	struct cluster *c;
	unsigned int number;
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct lockd_params p;
	struct lockd *ld;
	struct env_thread *thread;
	int join_err, leave_err;
	char why[256];
	bool joined, stop, ended;
	bool fenced;			/* another host replays its journal: it must not write */
	uint64_t joined_ns, lost_ns, wrote, write_err_ns;
	int write_err;
	unsigned int replays[SLOT_COUNT_MAX], adopts[SLOT_COUNT_MAX], kills, losses, settles;
	uint64_t adopted_ns[SLOT_COUNT_MAX];
	int replay_err, kill_err, settle_err;
	uint64_t replay_takes_ns, stalled_ns;	/* true time until which its commands hang */
	bool no_beat;
};

struct cluster {
	struct sim *sim;
	struct simdisk *disk;
	struct host hosts[HOSTS_MAX];
	uint32_t slot_count;
	unsigned int violations;	/* writes of a fenced host */
};

static inline void cluster_saw(void *arg, struct env *env, const struct blk_io *io)
{
	struct cluster *c = arg;

	if (io->op != BLK_WRITE || io->off < DATA_ADDR)
		return;
	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		if (c->hosts[i].env == env && c->hosts[i].fenced)
			c->violations++;
}

/* What mkfs leaves: free slots at random generations. */
static inline void cluster_format(struct cluster *c, uint32_t generation)
{
	uint8_t block[META_BLOCK_SIZE];

	for (uint32_t i = 0; i < c->slot_count; i++) {
		struct slot s = { .index = i, .sequence = 1000 * i, .generation = generation + i,
				  .recoverer = SLOT_NONE };
		uint64_t addr = SLOTS_ADDR + (uint64_t)i * META_BLOCK_SIZE;

		slot_encode(&s, cluster_volume, addr, block, sizeof(block));
		simdisk_poke(c->disk, addr, block, sizeof(block));
	}
}

static inline struct cluster *cluster_new(uint64_t seed, uint32_t slot_count,
					  const struct simdisk_params *over)
{
	struct simdisk_params p = { .size = 64 * MIB, .sector = 512, .latency_min_ns = MSEC / 10,
				    .latency_max_ns = 2 * MSEC };
	struct cluster *c = calloc(1, sizeof(*c));

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	if (over) {
		p.reservations = over->reservations;
		p.inflight_ns_max = over->inflight_ns_max;
		p.sector = over->sector ? over->sector : 512;
	}
	c->sim = sim_new(seed);
	c->disk = simdisk_new(c->sim, &p);
	c->slot_count = slot_count;
	simdisk_observe(c->disk, cluster_saw, c);
	cluster_format(c, 5000);
	return c;
}

static inline struct slot cluster_slot(struct cluster *c, uint32_t index)
{
	uint64_t addr = SLOTS_ADDR + (uint64_t)index * META_BLOCK_SIZE;
	uint8_t sector[META_SECTOR_SIZE];
	struct slot s;

	memset(&s, 0, sizeof(s));
	simdisk_peek(c->disk, addr, sector, sizeof(sector));
	CU_ASSERT_EQUAL(slot_decode(sector, cluster_volume, addr, index, &s, NULL, 0), 0);
	return s;
}

/* ---- what a host's lockd asks of it ---- */

static inline struct host *cluster_host_by_pid(struct cluster *c, uint32_t pid)
{
	CU_ASSERT_FATAL(pid >= PID_BASE && pid < PID_BASE + HOSTS_MAX);
	return &c->hosts[pid - PID_BASE];
}

static inline int host_settle(void *arg)
{
	struct host *h = arg;

	h->settles++;
	return h->settle_err;
}

static inline void host_forget(void *arg, struct lock *lock)
{
	(void)arg;
	(void)lock;
}

static inline int host_replay(void *arg, struct blkdev *dev, uint32_t slot)
{
	struct host *h = arg;
	struct slot s = cluster_slot(h->c, slot);
	uint8_t *buf;
	int err;

	/* Whoever the slot names must be dead for the LUN from here on. */
	if (s.pid != h->p.pid && s.pid)
		cluster_host_by_pid(h->c, s.pid)->fenced = true;
	h->replays[slot]++;
	if (h->replay_err)
		return h->replay_err;
	if (h->replay_takes_ns)
		env_sleep_until(h->env, env_now_ns(h->env) + h->replay_takes_ns);
	buf = blkdev_alloc(4096);
	err = blkdev_write(dev, DATA_ADDR + MIB + slot * 4096ull, buf, 4096);
	free(buf);
	return err;
}

static inline int host_adopt(void *arg, uint32_t slot)
{
	struct host *h = arg;

	h->adopts[slot]++;
	h->adopted_ns[slot] = sim_now_ns(h->c->sim);
	return 0;
}

static inline void host_lost(void *arg)
{
	struct host *h = arg;

	h->losses++;
	h->lost_ns = sim_now_ns(h->c->sim);
}

static const struct lockd_client host_client = {
	.settle = host_settle, .forget = host_forget, .replay = host_replay,
	.adopt = host_adopt, .lost = host_lost,
};

static inline int host_kill(void *arg, const struct slot *victim)
{
	struct host *h = arg, *dead = cluster_host_by_pid(h->c, victim->pid);

	h->kills++;
	if (h->kill_err)
		return h->kill_err;
	sim_host_crash(dead->env);
	env_sleep_until(h->env, env_now_ns(h->env) + 20 * MSEC);	/* its I/O ends */
	/* A process is not gone before the kernel has its commands back. */
	return sim_now_ns(h->c->sim) < dead->stalled_ns + 20 * MSEC ? -ETIMEDOUT : 0;
}

static inline void host_stall(struct host *h, uint64_t until_ns)
{
	simdisk_stall(h->c->disk, h->env, until_ns);
	h->stalled_ns = until_ns;
}

/* ---- a host's life ---- */

static inline struct host *host_init(struct cluster *c, unsigned int number, const char *name)
{
	struct host *h = &c->hosts[number];

	h->c = c;
	h->number = number;
	h->env = sim_host(c->sim, name);
	h->dev = simdisk_open(c->disk, h->env);
	h->hb_dev = simdisk_open(c->disk, h->env);
	h->p = (struct lockd_params){
		.env = h->env, .dev = h->dev, .hb_dev = h->hb_dev, .datastore = "ds1",
		.slots_addr = SLOTS_ADDR, .slot_count = c->slot_count,
		.timing = { .beat_ms = 1000, .lease_ms = 5000, .margin_ms = 1000 },
		.pid = PID_BASE + number, .pid_start = 7, .kill = host_kill, .kill_arg = h,
		.client = &host_client, .client_arg = h,
	};
	memcpy(h->p.volume, cluster_volume, sizeof(h->p.volume));
	memset(h->p.host_id, (int)number + 1, sizeof(h->p.host_id));
	memset(h->p.boot_id, 0xb0, sizeof(h->p.boot_id));	/* all on one machine */
	snprintf(h->p.host_name, sizeof(h->p.host_name), "%s", name);
	return h;
}

/* Writes to its own block until told to stop or an error. */
static inline void host_write(struct host *h)
{
	uint8_t *buf = blkdev_alloc(4096);
	int err = 0;

	while (!h->stop && !err) {
		err = blkdev_write(lockd_dev(h->ld), DATA_ADDR + h->number * 4096ull, buf, 4096);
		h->wrote += !err;
		env_sleep_until(h->env, env_now_ns(h->env) + 20 * MSEC);
	}
	h->write_err = err;
	h->write_err_ns = err ? sim_now_ns(h->c->sim) : 0;
	free(buf);
	while (!h->stop)
		env_sleep_until(h->env, env_now_ns(h->env) + 20 * MSEC);
}

static inline void host_thread(void *arg)
{
	struct host *h = arg;

	h->join_err = lockd_join(&h->p, &h->ld, h->why, sizeof(h->why));
	h->joined = !h->join_err;
	h->joined_ns = sim_now_ns(h->c->sim);
	if (h->joined) {
		host_write(h);
		h->leave_err = lockd_leave(h->ld);
		h->ld = NULL;
	}
	blkdev_close(h->dev);
	blkdev_close(h->hb_dev);
	h->ended = true;
}

static inline void host_start(struct host *h)
{
	CU_ASSERT_EQUAL_FATAL(env_thread_start(h->env, "host", host_thread, h, &h->thread), 0);
}

static inline struct host *host_up(struct cluster *c, unsigned int number, const char *name)
{
	struct host *h = host_init(c, number, name);

	host_start(h);
	return h;
}

/* Runs the world up to @ns of true time. */
static inline void cluster_run(struct cluster *c, uint64_t ns)
{
	sim_run(c->sim, ns);
}

static inline void cluster_run_more(struct cluster *c, uint64_t ns)
{
	sim_run(c->sim, sim_now_ns(c->sim) + ns);
}

/* Everybody leaves; then the world ends.  No host may have written after it was fenced. */
static inline void cluster_end(struct cluster *c)
{
	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		c->hosts[i].stop = true;
	CU_ASSERT_TRUE(sim_run(c->sim, sim_now_ns(c->sim) + 600 * SEC));
	for (unsigned int i = 0; i < HOSTS_MAX; i++) {
		struct host *h = &c->hosts[i];

		if (!h->env || sim_host_crashed(h->env))
			continue;
		CU_ASSERT_TRUE(h->ended);
		if (h->ended && h->thread)
			env_thread_join(h->env, h->thread);
	}
	CU_ASSERT_EQUAL(c->violations, 0);
	simdisk_free(c->disk);
	sim_free(c->sim);
	free(c);
}

#endif
