/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_bench DEVICE COUNT: takes and gives up the superblock's lock COUNT times on a volume
 * that nobody else uses, and counts the device commands that it took.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "fs/super.h"
#include "lockd/lock.h"

/* A device in front of the real one that counts. */
struct counter {
	struct blkdev dev;
	struct blkdev *lower;
	atomic_ulong ops[BLK_CAW + 1];
};

static struct counter *counter_of(struct blkdev *dev)
{
	return container_of(dev, struct counter, dev);
}

static void count_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct counter *c = counter_of(dev);
	unsigned int i;

	for (i = 0; i < count; i++)
		atomic_fetch_add(&c->ops[ios[i]->op], 1);
	c->lower->ops->submit(c->lower, ios, count);
}

static int count_run(struct blkdev *dev, struct blk_io *io)
{
	struct counter *c = counter_of(dev);

	atomic_fetch_add(&c->ops[io->op], 1);
	return c->lower->ops->run(c->lower, io);
}

static const struct blkdev_ops count_ops = { .submit = count_submit, .run = count_run };

static int no_settle(void *arg)
{
	(void)arg;
	return 0;
}

static void no_forget(void *arg, struct lock *lock)
{
	(void)arg;
	(void)lock;
}

static int no_replay(void *arg, struct blkdev *dev, uint32_t slot)
{
	(void)arg;
	(void)dev;
	(void)slot;
	return 0;
}

static int no_adopt(void *arg, uint32_t slot)
{
	(void)arg;
	(void)slot;
	return 0;
}

static void no_lost(void *arg)
{
	(void)arg;
}

static const struct lockd_client client = {
	.settle = no_settle, .forget = no_forget, .replay = no_replay, .adopt = no_adopt,
	.lost = no_lost,
};

static int no_kill(void *arg, const struct slot *victim)
{
	(void)arg;
	(void)victim;
	return -EPERM;
}

static void params_init(struct lockd_params *p, const struct super *s)
{
	memset(p, 0, sizeof(*p));
	p->env = env_posix();
	p->datastore = s->label;
	memcpy(p->volume, s->volume, sizeof(p->volume));
	p->slots_addr = s->slots_addr;
	p->slot_count = s->slot_count;
	p->timing = s->timing;
	env_random(p->env, p->host_id, sizeof(p->host_id));
	env_random(p->env, p->boot_id, sizeof(p->boot_id));
	snprintf(p->host_name, sizeof(p->host_name), "bench");
	p->pid = (uint32_t)getpid();
	p->kill = no_kill;
	p->client = &client;
}

static void measure(struct lockd *ld, struct counter *c, uint64_t addr, unsigned long count)
{
	struct lock lock;
	uint64_t start, took;
	unsigned long i;

	lock_init(&lock, addr, NULL);
	for (i = 0; i <= BLK_CAW; i++)
		atomic_store(&c->ops[i], 0);
	start = env_now_ns(env_posix());
	for (i = 0; i < count; i++) {
		int err = lock_get(ld, &lock, LOCK_EXCLUSIVE, 0, NULL);

		if (err) {
			fprintf(stderr, "lock_bench: lock_get: %s\n", strerror(-err));
			exit(1);
		}
		lock_put(ld, &lock, LOCK_EXCLUSIVE, 0);
		err = lock_evict(ld, &lock);
		if (err) {
			fprintf(stderr, "lock_bench: lock_evict: %s\n", strerror(-err));
			exit(1);
		}
	}
	took = env_now_ns(env_posix()) - start;
	printf("%.0f acquire+release/s; device commands each: %.2f reads, %.2f compare-and-writes\n",
	       (double)count * 1e9 / (double)took, (double)c->ops[BLK_READ] / (double)count,
	       (double)c->ops[BLK_CAW] / (double)count);
}

int main(int argc, char **argv)
{
	struct counter c = { .dev.ops = &count_ops };
	struct blkdev *lower, *hb;
	struct lockd_params p;
	struct lockd *ld;
	struct super s;
	char why[512];

	if (argc != 3) {
		fprintf(stderr, "usage: lock_bench DEVICE COUNT\n");
		return 2;
	}
	if (blkfile_open(env_posix(), argv[1], 0, &lower, why, sizeof(why)) ||
	    blkfile_open(env_posix(), argv[1], 0, &hb, why, sizeof(why)) ||
	    super_read(lower, &s, why, sizeof(why))) {
		fprintf(stderr, "lock_bench: %s\n", why);
		return 1;
	}
	params_init(&p, &s);
	c.lower = lower;
	c.dev.env = lower->env;
	c.dev.info = lower->info;
	p.dev = &c.dev;
	p.hb_dev = hb;
	if (lockd_join(&p, &ld, why, sizeof(why))) {
		fprintf(stderr, "lock_bench: %s\n", why);
		return 1;
	}
	measure(ld, &c, s.lock_addr, strtoul(argv[2], NULL, 10));
	lockd_leave(ld);
	blkdev_close(hb);
	blkdev_close(lower);
	return 0;
}
