/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The selftest passes what is right and finds what is broken: each breakage that it is for is put between it
 * and a device.  Without that its verdict would be worth nothing.
 */
#include "tools/selftest/selftest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "lockd/lockd.h"
#include "tests/unit.h"

#define SIZE	(8 * MIB)
#define HANDLES	3u
#define PATIENCE_S	60u
#define RACE_MS_MAX	20000u	/* to meet in a race, on whatever machine */
#define BOARD_END	(4 * MIB + 256u * 1024)	/* of the area; behind it is what the victim writes to */

enum breakage {
	NONE, CAW_NOT_ATOMIC, CAW_ONLY_AMONG_CAWS, CAW_IGNORES_THE_END, CAW_WRITES_ANYWAY,
	FENCE_LETS_QUEUED_LAND, FENCE_LETS_GO_ON, UNMAP_TOO_MUCH, ZERO_NOT, FLUSH_FAILS,
	SLOW,	/* right, but hosts are late, the one that is preempted most */
};

/* A LUN in memory with handles that are initiators of their own. */
static struct lun {
	pthread_mutex_t	mutex, caws;
	uint8_t		*data;
	enum breakage	broken;
	uint64_t	keys[HANDLES];	/* 0: not registered */
	bool		held;
	bool		told[HANDLES];	/* of a CLEAR, by the next command: as a handle of several paths is */
	/* A broken compare-and-write has compared and not yet written; somebody has written since. */
	bool		comparing, overtaken;
	unsigned int	windows;	/* how often that was so */
	/* Somebody was preempted: by whom, how often that one has looked since, what has landed since. */
	const struct blkdev *fencer;
	unsigned int	looks, landed;
	pthread_cond_t	changed;
} lun = { .mutex = PTHREAD_MUTEX_INITIALIZER, .caws = PTHREAD_MUTEX_INITIALIZER,
	  .changed = PTHREAD_COND_INITIALIZER };

struct handle {
	struct blkdev	dev;
	unsigned int	index;
	pthread_mutex_t	mutex;
	pthread_cond_t	changed;
	struct list	queue;
	pthread_t	thread;
	bool		stopping;
};

static struct handle handles[HANDLES];

static struct handle *handle_of(struct blkdev *dev)
{
	return container_of(dev, struct handle, dev);
}

static void wait_ms(unsigned int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += (long)ms * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&lun.changed, &lun.mutex, &t);
}

/*
 * What a broken one has between comparing and writing: long enough that somebody else comes, for on a busy
 * machine they would hardly meet by themselves.  mutex held.
 */
static void let_others_in(void)
{
	/* One at a time: who comes meanwhile is the one that is let in. */
	if (lun.comparing)
		return;
	lun.windows++;
	lun.comparing = true;
	lun.overtaken = false;
	for (unsigned int i = 0; i < 5 && !lun.overtaken; i++)
		wait_ms(1);
	lun.comparing = false;
	pthread_cond_broadcast(&lun.changed);
}

/* Has written while a compare-and-write was under way; a plain write is overwritten before it is read. */
static void overtake(bool is_caw)
{
	unsigned int window = lun.windows;

	if (!lun.comparing)
		return;
	lun.overtaken = true;
	pthread_cond_broadcast(&lun.changed);
	while (!is_caw && lun.comparing && lun.windows == window)
		wait_ms(1000);
}

static int do_caw(const struct blk_io *io)
{
	uint64_t compared = lun.broken == CAW_IGNORES_THE_END ? io->len - 1 : io->len;
	bool equal;

	equal = !memcmp(lun.data + io->off, io->iov[0].iov_base, compared);
	if (lun.broken == CAW_NOT_ATOMIC || lun.broken == CAW_ONLY_AMONG_CAWS)
		let_others_in();
	if (equal || lun.broken == CAW_WRITES_ANYWAY) {
		memcpy(lun.data + io->off, io->iov[1].iov_base, io->len);
		overtake(true);
	}
	return equal ? 0 : -EILSEQ;
}

/*
 * After a preempt the first look comes before what lands late, the second one after it.  mutex held.
 */
static void look_around_landing(const struct blkdev *dev)
{
	if (lun.broken != FENCE_LETS_QUEUED_LAND || dev != lun.fencer)
		return;
	for (unsigned int i = 0; i < PATIENCE_S && lun.looks && !lun.landed; i++)
		wait_ms(1000);
	lun.looks++;
	pthread_cond_broadcast(&lun.changed);
}

/* It was in a cache of the array's, as it were. */
static void land_late(const struct blk_io *io)
{
	pthread_mutex_lock(&lun.mutex);
	for (unsigned int i = 0; i < PATIENCE_S && lun.fencer && !lun.looks; i++)
		wait_ms(1000);
	memcpy(lun.data + io->off, io->iov[0].iov_base, io->len);
	lun.landed++;
	pthread_cond_broadcast(&lun.changed);
	pthread_mutex_unlock(&lun.mutex);
}

/* Longer than a host that fences lets the other one write. */
static void be_late(const struct handle *h, const struct blk_io *io)
{
	uint64_t key;

	pthread_mutex_lock(&lun.mutex);
	key = lun.held && io->op == BLK_WRITE && io->len == 4096 ? lun.keys[h->index] : 0;
	pthread_mutex_unlock(&lun.mutex);
	if (key && key != fence_tool_key(1) && io->off < BOARD_END)
		usleep(key == fence_tool_key(2) ? 150000 : 70000);
}

static int execute(struct handle *h, struct blk_io *io)
{
	uint8_t *at = lun.data + io->off;
	bool writes = io->op != BLK_READ && io->op != BLK_FLUSH;
	bool alone = io->op == BLK_CAW && lun.broken == CAW_ONLY_AMONG_CAWS;
	int err = 0;

	if (lun.broken == SLOW)
		be_late(h, io);
	if (alone)
		pthread_mutex_lock(&lun.caws);
	pthread_mutex_lock(&lun.mutex);
	if (lun.told[h->index]) {
		lun.told[h->index] = false;
		err = -EBADE;
	} else if (writes && lun.held && !lun.keys[h->index] && lun.broken != FENCE_LETS_GO_ON) {
		err = -EBADE;
	} else if (io->op == BLK_READ) {
		look_around_landing(&h->dev);
		memcpy(io->iov[0].iov_base, at, io->len);
	} else if (io->op == BLK_WRITE) {
		memcpy(at, io->iov[0].iov_base, io->len);
		overtake(false);
	} else if (io->op == BLK_FLUSH) {
		err = lun.broken == FLUSH_FAILS ? -EIO : 0;
	} else if (io->op == BLK_CAW) {
		err = do_caw(io);
	} else if (io->op == BLK_DISCARD) {
		memset(at, 0, io->len + (lun.broken == UNMAP_TOO_MUCH ? 4096 : 0));
	} else if (lun.broken != ZERO_NOT) {
		memset(at, 0, io->len);
	}
	pthread_mutex_unlock(&lun.mutex);
	if (alone)
		pthread_mutex_unlock(&lun.caws);
	return err;
}

static int run(struct blkdev *dev, struct blk_io *io)
{
	return execute(handle_of(dev), io);
}

/* Queued requests, executed one after the other: what a preempt finds in the queue it aborts. */
static void *serve(void *arg)
{
	struct handle *h = arg;

	pthread_mutex_lock(&h->mutex);
	while (!h->stopping || !list_empty(&h->queue)) {
		struct blk_io *io;
		int err;

		if (list_empty(&h->queue)) {
			pthread_cond_wait(&h->changed, &h->mutex);
			continue;
		}
		io = list_first(&h->queue, struct blk_io, node);
		list_del(&io->node);
		pthread_mutex_unlock(&h->mutex);
		err = execute(h, io);
		if (err == -EBADE && lun.broken == FENCE_LETS_QUEUED_LAND)
			land_late(io);
		io->done(io, err);
		pthread_mutex_lock(&h->mutex);
	}
	pthread_mutex_unlock(&h->mutex);
	return NULL;
}

static void submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct handle *h = handle_of(dev);

	pthread_mutex_lock(&h->mutex);
	for (unsigned int i = 0; i < count; i++)
		list_add_tail(&h->queue, &ios[i]->node);
	pthread_cond_signal(&h->changed);
	pthread_mutex_unlock(&h->mutex);
}

static int pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	uint64_t *key = &lun.keys[handle_of(dev)->index];
	int err = 0;

	pthread_mutex_lock(&lun.mutex);
	lun.told[handle_of(dev)->index] = false;
	if (*key != old_key)
		err = -EBADE;
	else
		*key = new_key;
	pthread_mutex_unlock(&lun.mutex);
	return err;
}

static int pr_reserve(struct blkdev *dev, uint64_t key)
{
	(void)key;
	if (!lun.keys[handle_of(dev)->index])
		return -EBADE;
	lun.held = true;
	return 0;
}

static int pr_preempt(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	(void)key;
	pthread_mutex_lock(&lun.mutex);
	for (unsigned int i = 0; i < HANDLES; i++)
		if (lun.keys[i] == victim)
			lun.keys[i] = 0;
	lun.fencer = dev;
	lun.looks = lun.landed = 0;
	pthread_mutex_unlock(&lun.mutex);
	return 0;
}

static int pr_clear(struct blkdev *dev, uint64_t key)
{
	(void)dev;
	(void)key;
	pthread_mutex_lock(&lun.mutex);
	for (unsigned int i = 0; i < HANDLES; i++)
		lun.told[i] = lun.keys[i] != 0;
	memset(lun.keys, 0, sizeof(lun.keys));
	lun.held = false;
	lun.fencer = NULL;
	pthread_cond_broadcast(&lun.changed);
	pthread_mutex_unlock(&lun.mutex);
	return 0;
}

static const struct blkdev_ops ops = {
	.submit = submit, .run = run, .pr_register = pr_register, .pr_reserve = pr_reserve,
	.pr_preempt_abort = pr_preempt, .pr_clear = pr_clear,
};

static void start(enum breakage broken)
{
	lun.broken = broken;
	lun.data = calloc(1, SIZE);
	CU_ASSERT_FATAL(lun.data != NULL);
	for (unsigned int i = 0; i < HANDLES; i++) {
		struct handle *h = &handles[i];

		memset(h, 0, sizeof(*h));
		h->index = i;
		h->dev.ops = &ops;
		h->dev.env = env_posix();
		h->dev.info = (struct blkdev_info){ .name = "lun", .size = SIZE, .sector = 512,
			.mem_align = 1, .io_max = SIZE, .caw = BLK_CAW_SIM, .reservations = true,
			.discard_granularity = 4096 };
		list_init(&h->queue);
		pthread_mutex_init(&h->mutex, NULL);
		pthread_cond_init(&h->changed, NULL);
		CU_ASSERT_EQUAL_FATAL(pthread_create(&h->thread, NULL, serve, h), 0);
	}
}

static void stop(void)
{
	for (unsigned int i = 0; i < HANDLES; i++) {
		struct handle *h = &handles[i];

		pthread_mutex_lock(&h->mutex);
		h->stopping = true;
		pthread_cond_signal(&h->changed);
		pthread_mutex_unlock(&h->mutex);
		pthread_join(h->thread, NULL);
	}
	pr_clear(&handles[0].dev, 0);
	free(lun.data);
}

static void init_test(struct selftest *t, unsigned int first, unsigned int count, unsigned int hosts)
{
	*t = (struct selftest){ .env = env_posix(), .dev_count = count, .hosts = hosts, .off = 4 * MIB,
				.race_ms = lun.broken == CAW_NOT_ATOMIC || lun.broken == CAW_ONLY_AMONG_CAWS ?
				300 : 40, .wait_ms = 60000 };
	for (unsigned int i = 0; i < count; i++)
		t->devs[i] = &handles[first + i].dev;
}

static bool race_was_met(const struct selftest *t)
{
	const struct selftest_property *p = t->properties;

	if (lun.broken == CAW_ONLY_AMONG_CAWS)
		return p[SELFTEST_CAW_WRITE].verdict == SELFTEST_WEAK;
	/* What lands late has to do so between two looks at it, which are race_ms apart. */
	if (lun.broken == FENCE_LETS_QUEUED_LAND)
		return p[SELFTEST_FENCE].verdict == SELFTEST_FAIL;
	return lun.broken != CAW_NOT_ATOMIC ||
	       (p[SELFTEST_CAW_CAW].verdict == SELFTEST_FAIL && p[SELFTEST_CAW_WRITE].verdict == SELFTEST_WEAK);
}

/* How long it takes until two meet in a race is the machine's business: it gets more time, up to a bound. */
static void run_alone(struct selftest *t)
{
	uint32_t race_ms;
	char why[300];

	init_test(t, 0, 2, 1);
	CU_ASSERT_EQUAL(selftest_run(t, why, sizeof(why)), 0);
	while (!race_was_met(t) && t->race_ms < RACE_MS_MAX / 4) {
		race_ms = 4 * t->race_ms;
		init_test(t, 0, 2, 1);
		t->race_ms = race_ms;
		CU_ASSERT_EQUAL(selftest_run(t, why, sizeof(why)), 0);
	}
}

/* In one call: a sanitizer would look at each byte of a loop. */
static bool is_zero(const uint8_t *data, size_t len)
{
	return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* Every property that is not @bad passes; @bad has @verdict. */
static void finds(enum breakage broken, enum selftest_property_index bad, enum selftest_verdict wanted)
{
	struct selftest t;

	start(broken);
	run_alone(&t);
	for (unsigned int i = 0; i < SELFTEST_PROPERTIES; i++) {
		enum selftest_verdict v = t.properties[i].verdict;

		if (v != (i == bad ? wanted : SELFTEST_PASS))
			printf("  %s: %s: %s\n", t.properties[i].name, selftest_verdict_name(v),
			       t.properties[i].text);
		CU_ASSERT_EQUAL(v, i == bad ? wanted : SELFTEST_PASS);
		CU_ASSERT(t.properties[i].text[0] != '\0');
	}
	CU_ASSERT_EQUAL(selftest_failed(&t), wanted == SELFTEST_FAIL);
	/* Nothing is left behind but zeros, on a LUN that does not write what it likes. */
	CU_ASSERT_TRUE(broken == FENCE_LETS_QUEUED_LAND || is_zero(lun.data, SIZE));
	stop();
}

static void a_good_lun_passes(void)
{
	finds(NONE, SELFTEST_PROPERTIES, SELFTEST_PASS);
}

/* The one that would have two hosts hold one lock. */
static void a_caw_that_is_not_atomic_fails(void)
{
	struct selftest t;
	char why[300];

	start(CAW_NOT_ATOMIC);
	run_alone(&t);
	CU_ASSERT_EQUAL(t.properties[SELFTEST_CAW].verdict, SELFTEST_PASS);
	CU_ASSERT_EQUAL(t.properties[SELFTEST_CAW_CAW].verdict, SELFTEST_FAIL);
	CU_ASSERT_EQUAL(t.properties[SELFTEST_CAW_WRITE].verdict, SELFTEST_WEAK);
	CU_ASSERT(selftest_failed(&t));
	/* The quick round of mkfs.lunfs finds it too. */
	for (uint32_t race_ms = 300; race_ms < RACE_MS_MAX; race_ms *= 4) {
		init_test(&t, 0, 2, 1);
		t.race_ms = race_ms;
		t.flags = SELFTEST_QUICK;
		CU_ASSERT_EQUAL(selftest_run(&t, why, sizeof(why)), 0);
		if (selftest_failed(&t))
			break;
	}
	CU_ASSERT(selftest_failed(&t));
	CU_ASSERT_EQUAL(t.properties[SELFTEST_FENCE].verdict, SELFTEST_SKIPPED);
	stop();
}

/* As Linux LIO: harmless to LunFS, and said. */
static void one_that_is_atomic_among_its_like_only_is_weak(void)
{
	finds(CAW_ONLY_AMONG_CAWS, SELFTEST_CAW_WRITE, SELFTEST_WEAK);
}

static void one_that_compares_or_writes_wrongly_fails(void)
{
	struct selftest t;
	char why[300];

	for (enum breakage b = CAW_IGNORES_THE_END; b <= CAW_WRITES_ANYWAY; b++) {
		start(b);
		init_test(&t, 0, 2, 1);
		t.flags = SELFTEST_CAW_ONLY;
		selftest_run(&t, why, sizeof(why));
		CU_ASSERT_EQUAL(t.properties[SELFTEST_CAW].verdict, SELFTEST_FAIL);
		stop();
	}
}

static void fencing_that_lets_queued_writes_land_fails(void)
{
	finds(FENCE_LETS_QUEUED_LAND, SELFTEST_FENCE, SELFTEST_FAIL);
}

static void fencing_that_stops_nobody_fails(void)
{
	finds(FENCE_LETS_GO_ON, SELFTEST_FENCE, SELFTEST_FAIL);
}

static void unmap_and_zero_that_do_not_what_they_are_told_fail(void)
{
	finds(UNMAP_TOO_MUCH, SELFTEST_UNMAP, SELFTEST_FAIL);
	finds(ZERO_NOT, SELFTEST_UNMAP, SELFTEST_FAIL);
}

static void a_flush_that_fails_is_told(void)
{
	finds(FLUSH_FAILS, SELFTEST_FLUSH, SELFTEST_FAIL);
}

/* ---- several hosts ---- */

struct host {
	struct selftest	t;
	pthread_t	thread;
	int		err;
	char		why[300];
};

static void *host_main(void *arg)
{
	struct host *h = arg;

	h->err = selftest_run(&h->t, h->why, sizeof(h->why));
	return NULL;
}

/* @race_ms: 0 for what init_test() says. */
static void run_hosts(struct host *hosts, unsigned int n, uint32_t race_ms)
{
	for (unsigned int i = 0; i < n; i++) {
		init_test(&hosts[i].t, i, 1, n);
		if (race_ms)
			hosts[i].t.race_ms = race_ms;
		CU_ASSERT_EQUAL_FATAL(pthread_create(&hosts[i].thread, NULL, host_main, &hosts[i]), 0);
	}
	for (unsigned int i = 0; i < n; i++)
		pthread_join(hosts[i].thread, NULL);
}

static void hosts_meet_on_the_lun_and_agree(void)
{
	struct host hosts[HANDLES];

	for (enum breakage b = NONE; b <= CAW_NOT_ATOMIC; b++) {
		start(b);
		for (uint32_t race_ms = 0; race_ms < RACE_MS_MAX; race_ms = race_ms ? 4 * race_ms : 1200) {
			run_hosts(hosts, HANDLES, race_ms);
			if (b == NONE || selftest_failed(&hosts[0].t))
				break;
		}
		for (unsigned int i = 0; i < HANDLES; i++) {
			const struct selftest_property *p = hosts[i].t.properties;

			if (hosts[i].err)
				printf("  host %u: %s\n", i, hosts[i].why);
			CU_ASSERT_EQUAL(hosts[i].err, 0);
			CU_ASSERT_EQUAL(p[SELFTEST_CAW_CAW].verdict,
					b == NONE ? SELFTEST_PASS : SELFTEST_FAIL);
			CU_ASSERT_EQUAL(p[SELFTEST_FENCE].verdict, SELFTEST_PASS);
		}
		stop();
	}
}

/* A host that is on the board yet when its key is taken away could not go on. */
static void a_host_that_is_late_is_waited_for(void)
{
	struct host hosts[HANDLES];

	start(SLOW);
	run_hosts(hosts, HANDLES, 0);
	for (unsigned int i = 0; i < HANDLES; i++) {
		if (hosts[i].err)
			printf("  host %u: %s\n", i, hosts[i].why);
		CU_ASSERT_EQUAL(hosts[i].err, 0);
		CU_ASSERT_EQUAL(hosts[i].t.properties[SELFTEST_FENCE].verdict, SELFTEST_PASS);
	}
	stop();
}

/* Whoever is alone does not wait for ever, nor believe that it was two. */
static void a_host_that_does_not_come_is_missed(void)
{
	struct selftest t;
	char why[300];

	start(NONE);
	init_test(&t, 0, 1, 2);
	t.wait_ms = 500;
	CU_ASSERT_EQUAL(selftest_run(&t, why, sizeof(why)), -ETIMEDOUT);
	CU_ASSERT(strstr(why, "1 of 2 hosts") != NULL);
	stop();
}

UNIT_MAIN("selftest",
	  UNIT_TEST(a_good_lun_passes),
	  UNIT_TEST(a_caw_that_is_not_atomic_fails),
	  UNIT_TEST(one_that_is_atomic_among_its_like_only_is_weak),
	  UNIT_TEST(one_that_compares_or_writes_wrongly_fails),
	  UNIT_TEST(fencing_that_lets_queued_writes_land_fails),
	  UNIT_TEST(fencing_that_stops_nobody_fails),
	  UNIT_TEST(unmap_and_zero_that_do_not_what_they_are_told_fail),
	  UNIT_TEST(a_flush_that_fails_is_told),
	  UNIT_TEST(hosts_meet_on_the_lun_and_agree),
	  UNIT_TEST(a_host_that_is_late_is_waited_for),
	  UNIT_TEST(a_host_that_does_not_come_is_missed));
