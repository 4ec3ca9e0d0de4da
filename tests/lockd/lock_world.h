/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that share counters under cluster locks on a simulated LUN.
 *
 * Each lock covers one counter.  A host caches it, changes it in memory and writes it home
 * when lockd asks (settle), as fs/ does with metadata; every use checks that no other host
 * uses it in an excluding mode (R1) and that what is cached is current (R4).
 */
#ifndef LUNFS_TESTS_LOCKD_LOCK_WORLD_H
#define LUNFS_TESTS_LOCKD_LOCK_WORLD_H

#include <errno.h>

#include "block/simdev.h"
#include "lockd/internal.h"
#include "tests/unit.h"

#define SEC		NSEC_PER_SEC
#define MSEC		NSEC_PER_MSEC
#define WORLD_HOSTS	4
#define WORLD_SLOTS	6
#define WORLD_LOCKS	24
#define SLOTS_ADDR	(64 * KIB)
#define LOCKS_ADDR	MIB
#define LOCK_ADDR(i)	(LOCKS_ADDR + (uint64_t)(i) * 2 * META_BLOCK_SIZE)
#define LOCK_REGION	(WORLD_LOCKS * 2ull * META_BLOCK_SIZE)
#define OPS_RW		(1u << BLK_READ | 1u << BLK_CAW)

struct cell {
	bool	cached, dirty;
	uint64_t value;
	int	using[4];	/* by enum lock_mode */
};

struct host {
	struct world *w;
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct lockd *ld;
	struct lock locks[WORLD_LOCKS];
	struct cell cells[WORLD_LOCKS];
	void	(*body)(struct host *h);
	struct env_thread *thread;
	bool	running, done, lost;
	int	settle_err;
	uint64_t settle_ns;	/* how long settle() takes */
	unsigned int settles, forgets, replays;
	uint64_t lock_reads, lock_caws;	/* device commands on lock records */
	uint64_t wait_max_ns, waits_ns[512];
	unsigned int wait_count;
	unsigned int errors, ops;
};

struct world {
	struct sim *sim;
	struct simdisk *disk;
	uint8_t	volume[16];
	struct host hosts[WORLD_HOSTS];
	unsigned int host_count;
	uint64_t home[WORLD_LOCKS], truth[WORLD_LOCKS];
	unsigned int violations;
	int	stage;		/* for the bodies to agree on what comes next */
};

/* ---- what lockd asks of its client ---- */

static inline int world_settle(void *arg)
{
	struct host *h = arg;

	h->settles++;
	env_sleep_until(h->env, env_now_ns(h->env) + h->settle_ns);
	if (h->settle_err)
		return h->settle_err;
	for (int i = 0; i < WORLD_LOCKS; i++) {
		if (h->cells[i].dirty)
			h->w->home[i] = h->cells[i].value;
		h->cells[i].dirty = false;
	}
	env_sleep_until(h->env, env_now_ns(h->env) + h->settle_ns);
	return 0;
}

static inline void world_forget(void *arg, struct lock *lock)
{
	struct host *h = arg;
	struct cell *c = lock->owner;

	h->forgets++;
	if (!h->lost && (c->dirty || c->using[1] || c->using[2] || c->using[3]))
		h->w->violations++;
	c->cached = false;
	c->dirty = false;
}

static inline int world_replay(void *arg, struct blkdev *dev, uint32_t slot)
{
	struct host *by = arg;

	(void)dev;
	by->replays++;
	for (unsigned int n = 0; n < by->w->host_count; n++) {
		struct host *h = &by->w->hosts[n];

		if (h == by || !h->ld || lockd_slot(h->ld) != slot)
			continue;
		/* Its counters are as good as journalled. */
		for (int i = 0; i < WORLD_LOCKS; i++)
			if (h->cells[i].dirty)
				h->w->home[i] = h->cells[i].value;
		h->lost = true;
	}
	return 0;
}

static inline int world_adopt(void *arg, uint32_t slot)
{
	(void)arg;
	(void)slot;
	return 0;
}

static inline void world_lost(void *arg)
{
	struct host *h = arg;

	h->lost = true;
}

/* One machine: the silent process is killed. */
static inline int world_kill(void *arg, const struct slot *victim)
{
	struct world *w = arg;

	for (unsigned int n = 0; n < w->host_count; n++) {
		if (w->hosts[n].ld && lockd_slot(w->hosts[n].ld) == victim->index)
			sim_host_crash(w->hosts[n].env);
	}
	return 0;
}

static const struct lockd_client world_client = {
	.settle = world_settle,
	.forget = world_forget,
	.replay = world_replay,
	.adopt = world_adopt,
	.lost = world_lost,
};

/* ---- the LUN ---- */

static inline void world_count(void *arg, struct env *env, const struct blk_io *io)
{
	struct world *w = arg;

	for (unsigned int n = 0; n < w->host_count; n++) {
		struct host *h = &w->hosts[n];

		if (h->env != env || io->off < LOCKS_ADDR || io->off >= LOCKS_ADDR + LOCK_REGION)
			continue;
		h->lock_reads += io->op == BLK_READ;
		h->lock_caws += io->op == BLK_CAW;
	}
}

static inline void world_poke_record(struct world *w, int i, const struct lockrec *r)
{
	uint8_t block[META_BLOCK_SIZE];

	lockrec_encode(r, w->volume, LOCK_ADDR(i), block, sizeof(block));
	simdisk_poke(w->disk, LOCK_ADDR(i), block, sizeof(block));
}

static inline void world_peek_record(struct world *w, int i, struct lockrec *r)
{
	uint8_t block[META_BLOCK_SIZE];
	char why[200];

	simdisk_peek(w->disk, LOCK_ADDR(i), block, sizeof(block));
	CU_ASSERT_EQUAL(lockrec_decode(block, w->volume, LOCK_ADDR(i), r, why, sizeof(why)), 0);
}

static inline void world_poke_slot(struct world *w, const struct slot *s)
{
	uint64_t addr = SLOTS_ADDR + (uint64_t)s->index * META_BLOCK_SIZE;
	uint8_t block[META_BLOCK_SIZE];

	slot_encode(s, w->volume, addr, block, sizeof(block));
	simdisk_poke(w->disk, addr, block, sizeof(block));
}

static inline void world_format(struct world *w, struct env *env)
{
	struct lockrec r;

	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot s = { .index = i, .state = SLOT_FREE, .recoverer = SLOT_NONE,
				  .generation = 100 + i, .sequence = 1000 };

		world_poke_slot(w, &s);
	}
	for (int i = 0; i < WORLD_LOCKS; i++) {
		lockrec_init(env, &r);
		world_poke_record(w, i, &r);
	}
}

static inline struct world *world_new(uint64_t seed, unsigned int hosts, uint32_t sector)
{
	static const char *const names[WORLD_HOSTS] = { "alpha", "beta", "gamma", "delta" };
	struct world *w = calloc(1, sizeof(*w));
	struct simdisk_params p = { .size = 4 * MIB, .sector = sector,
				    .latency_min_ns = 100000, .latency_max_ns = 500000 };

	CU_ASSERT_PTR_NOT_NULL_FATAL(w);
	w->sim = sim_new(seed);
	w->disk = simdisk_new(w->sim, &p);
	memset(w->volume, 0x5a, sizeof(w->volume));
	w->host_count = hosts;
	for (unsigned int n = 0; n < hosts; n++) {
		struct host *h = &w->hosts[n];

		h->w = w;
		h->settle_ns = 2 * MSEC;
		h->env = sim_host(w->sim, names[n]);
		h->dev = simdisk_open(w->disk, h->env);
		h->hb_dev = simdisk_open(w->disk, h->env);
		for (int i = 0; i < WORLD_LOCKS; i++)
			lock_init(&h->locks[i], LOCK_ADDR(i), &h->cells[i]);
	}
	world_format(w, w->hosts[0].env);
	simdisk_observe(w->disk, world_count, w);
	return w;
}

/* What crashed hosts leave behind stays reachable for the leak checker. */
static void *world_graves[64];
static unsigned int world_grave_count;

static inline void world_free(struct world *w)
{
	bool graves = false;

	CU_ASSERT_EQUAL(w->violations, 0);
	for (unsigned int n = 0; n < w->host_count; n++) {
		struct host *h = &w->hosts[n];

		if (sim_host_crashed(h->env)) {
			graves = true;
			continue;
		}
		blkdev_close(h->dev);
		blkdev_close(h->hb_dev);
	}
	simdisk_free(w->disk);
	sim_free(w->sim);
	if (graves && world_grave_count < ARRAY_SIZE(world_graves))
		world_graves[world_grave_count++] = w;
	else
		free(w);
}

/* ---- hosts' lives ---- */

static inline void host_join(struct host *h)
{
	static const char *const names[WORLD_HOSTS] = { "alpha", "beta", "gamma", "delta" };
	struct lockd_params p = {
		.env = h->env, .dev = h->dev, .hb_dev = h->hb_dev, .datastore = "ds1",
		.slots_addr = SLOTS_ADDR, .slot_count = WORLD_SLOTS,
		.timing = { .beat_ms = 1000, .lease_ms = 5000, .margin_ms = 1000 },
		.kill = world_kill, .kill_arg = h->w,
		.client = &world_client, .client_arg = h,
	};
	unsigned int n = (unsigned int)(h - h->w->hosts);
	char why[200];
	int err;

	memcpy(p.volume, h->w->volume, sizeof(p.volume));
	memset(p.host_id, (int)n + 1, sizeof(p.host_id));
	memset(p.boot_id, 0x77, sizeof(p.boot_id));
	snprintf(p.host_name, sizeof(p.host_name), "%s", names[n]);
	p.pid = 1000 + n;
	p.pid_start = 5000 + n;
	err = lockd_join(&p, &h->ld, why, sizeof(why));
	if (err)
		fprintf(stderr, "%s\n", why);
	CU_ASSERT_EQUAL(err, 0);
}

static inline bool world_all_done(const struct world *w)
{
	for (unsigned int n = 0; n < w->host_count; n++) {
		const struct host *h = &w->hosts[n];

		if (h->body && !h->done && !sim_host_crashed(h->env))
			return false;
	}
	return true;
}

static inline void host_sleep(struct host *h, uint64_t ns)
{
	env_sleep_until(h->env, env_now_ns(h->env) + ns);
}

/* All bodies wait until the story has come so far. */
static inline void world_await(struct host *h, int stage)
{
	while (h->w->stage < stage)
		host_sleep(h, 5 * MSEC);
}

static inline void host_main(void *arg)
{
	struct host *h = arg;

	host_join(h);
	h->running = true;
	/* All are there before anything happens. */
	for (unsigned int n = 0; n < h->w->host_count; n++)
		while (h->w->hosts[n].body && !h->w->hosts[n].running)
			host_sleep(h, 10 * MSEC);
	host_sleep(h, 1100 * MSEC);
	h->body(h);
	h->done = true;
	while (!world_all_done(h->w))
		host_sleep(h, 50 * MSEC);
	lockd_leave(h->ld);
	h->ld = NULL;
}

/* Runs a body on each host to its end. */
static inline void world_run(struct world *w, uint64_t limit_ns)
{
	for (unsigned int n = 0; n < w->host_count; n++) {
		struct host *h = &w->hosts[n];

		if (h->body)
			CU_ASSERT_EQUAL_FATAL(env_thread_start(h->env, "main", host_main, h,
							       &h->thread), 0);
	}
	CU_ASSERT_TRUE_FATAL(sim_run(w->sim, limit_ns));
	for (unsigned int n = 0; n < w->host_count; n++)
		if (w->hosts[n].thread && !sim_host_crashed(w->hosts[n].env))
			env_thread_join(w->hosts[n].env, w->hosts[n].thread);
}

/* ---- using a lock ---- */

static inline void cell_check(struct host *h, int i, enum lock_mode mode)
{
	struct world *w = h->w;

	for (unsigned int n = 0; n < w->host_count; n++) {
		const struct host *o = &w->hosts[n];

		if (o == h || o->lost || sim_host_crashed(o->env))
			continue;
		for (enum lock_mode m = LOCK_SHARED; m <= LOCK_MULTI; m++)
			if (o->cells[i].using[m] && lock_modes_exclude(m, mode))
				w->violations++;
	}
	if (mode != LOCK_MULTI && (h->cells[i].cached ? h->cells[i].value : w->home[i]) !=
				  w->truth[i])
		w->violations++;
}

/* lock_get() and the checks; lock_put() is host_put(). */
static inline int host_get(struct host *h, int i, enum lock_mode mode, unsigned int flags,
			   struct lock_holder *holder)
{
	uint64_t start_ns = env_now_ns(h->env), ns;
	struct cell *c = &h->cells[i];
	int err = lock_get(h->ld, &h->locks[i], mode, flags, holder);

	ns = env_now_ns(h->env) - start_ns;
	/* Only those that met another host. */
	if (ns > 10 * MSEC && h->wait_count < ARRAY_SIZE(h->waits_ns))
		h->waits_ns[h->wait_count++] = ns;
	if (ns > h->wait_max_ns)
		h->wait_max_ns = ns;
	if (err) {
		h->errors++;
		return err;
	}
	h->ops++;
	cell_check(h, i, mode);
	if (!c->cached)
		c->value = h->w->home[i];
	c->cached = true;
	c->using[mode]++;
	if (mode == LOCK_EXCLUSIVE) {
		h->w->truth[i]++;
		c->value++;
		c->dirty = true;
	}
	return 0;
}

static inline void host_put(struct host *h, int i, enum lock_mode mode, unsigned int flags)
{
	cell_check(h, i, mode);
	h->cells[i].using[mode]--;
	lock_put(h->ld, &h->locks[i], mode, flags);
}

/* One operation that takes @ns. */
static inline int host_op(struct host *h, int i, enum lock_mode mode, uint64_t ns)
{
	int err = host_get(h, i, mode, 0, NULL);

	if (err)
		return err;
	host_sleep(h, ns);
	host_put(h, i, mode, 0);
	return 0;
}

static inline void world_inject(struct world *w, struct host *h, enum simdisk_fault fault,
				unsigned int ops, uint64_t skip, uint64_t count)
{
	struct simdisk_rule rule = { .fault = fault, .ops = ops, .host = h ? h->env : NULL,
				     .off = LOCKS_ADDR, .len = LOCK_REGION, .skip = skip,
				     .count = count, .delay_ns = 700 * MSEC };

	simdisk_inject(w->disk, &rule);
}

#endif
