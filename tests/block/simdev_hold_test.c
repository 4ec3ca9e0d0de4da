// SPDX-License-Identifier: Apache-2.0
/* Faults of the simulated LUN that the cluster simulator leans on. */
#include "block/simdev.h"

#include <errno.h>

#include "tests/unit.h"

#define SEC	NSEC_PER_SEC
#define MSEC	NSEC_PER_MSEC
#define SIZE	(64 * MIB)
#define LANDED_NS	(10 * SEC + MSEC / 2)	/* of a write with DELAY: its answer takes a millisecond */

struct world {
	struct sim *sim;
	struct env *host;
	struct simdisk *disk;
	struct blkdev *dev;
	uint8_t *buf;
	int err;
	unsigned int struck, submitted, pending;
	uint64_t volatile_bytes;
};

static void world_begin(struct world *w)
{
	struct simdisk_params params = {
		.size = SIZE, .sector = 512, .reservations = true,
		.latency_min_ns = MSEC, .latency_max_ns = MSEC };

	memset(w, 0, sizeof(*w));
	w->sim = sim_new(1);
	w->host = sim_host(w->sim, "host");
	w->disk = simdisk_new(w->sim, &params);
	w->dev = simdisk_open(w->disk, w->host);
	w->buf = blkdev_alloc(64 * KIB);
	CU_ASSERT_PTR_NOT_NULL_FATAL(w->buf);
}

static void world_run(struct world *w, void (*fn)(void *arg))
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->host, "test", fn, w, &thread), 0);
	CU_ASSERT_TRUE_FATAL(sim_run(w->sim, sim_now_ns(w->sim) + 1000 * SEC));
	if (!sim_host_crashed(w->host))
		env_thread_join(w->host, thread);
}

static void world_end(struct world *w)
{
	if (!sim_host_crashed(w->host))
		blkdev_close(w->dev);
	simdisk_free(w->disk);
	sim_free(w->sim);
	free(w->buf);
}

static uint8_t peek(struct world *w, uint64_t off)
{
	uint8_t byte;

	simdisk_peek(w->disk, off, &byte, 1);
	return byte;
}

static void write_body(void *arg)
{
	struct world *w = arg;

	memset(w->buf, 7, 4096);
	w->err = blkdev_write(w->dev, 0, w->buf, 4096);
}

static void count_strike(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	struct world *w = arg;

	w->struck += rule->fault == SIMDISK_HOLD && op == BLK_WRITE;
}

static void inject(struct world *w, enum simdisk_fault fault)
{
	struct simdisk_rule rule = { .fault = fault, .ops = 1u << BLK_WRITE, .count = 1,
				     .delay_ns = 10 * SEC, .struck = count_strike, .arg = w };

	simdisk_inject(w->disk, &rule);
}

static void look_at_5s(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(peek(w, 0), 0);
	CU_ASSERT_TRUE(simdisk_is_busy(w->disk, w->host));
}

/* The worst moment for a host to stand still: after the lease check, before the write. */
static void held_command_reaches_the_lun_when_its_host_goes_on(void)
{
	struct world w;

	world_begin(&w);
	inject(&w, SIMDISK_HOLD);
	sim_at(w.sim, 5 * SEC, look_at_5s, &w);
	world_run(&w, write_body);
	CU_ASSERT_EQUAL(w.err, 0);
	CU_ASSERT_EQUAL(w.struck, 1);
	CU_ASSERT_EQUAL(peek(&w, 0), 7);
	CU_ASSERT_TRUE(sim_now_ns(w.sim) >= 10 * SEC);
	world_end(&w);
}

static void crash(void *arg)
{
	struct world *w = arg;

	sim_host_crash(w->host);
	CU_ASSERT_FALSE(simdisk_is_busy(w->disk, w->host));
}

static void held_command_dies_with_its_host(void)
{
	struct world w;

	world_begin(&w);
	inject(&w, SIMDISK_HOLD);
	sim_at(w.sim, 5 * SEC, crash, &w);
	world_run(&w, write_body);
	CU_ASSERT_EQUAL(peek(&w, 0), 0);
	world_end(&w);
}

/* ---- landed, and not answered ---- */

static void look_at_landed(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(peek(w, 0), 7);
	CU_ASSERT_TRUE(simdisk_is_busy(w->disk, w->host));
}

/* Whoever waits for a process to end, and flushes then, would else flush too early. */
static void landed_write_keeps_its_host_busy_until_it_ends(void)
{
	struct world w;

	world_begin(&w);
	inject(&w, SIMDISK_DELAY);
	sim_at(w.sim, LANDED_NS, look_at_landed, &w);
	world_run(&w, write_body);
	CU_ASSERT_EQUAL(w.err, 0);
	CU_ASSERT_FALSE(simdisk_is_busy(w.disk, w.host));
	world_end(&w);
}

/* Another host has its commands aborted, and flushes. */
static void abort_body(void *arg)
{
	struct world *w = arg;
	struct env *other = sim_host(w->sim, "other");
	struct blkdev *dev = simdisk_open(w->disk, other);

	env_sleep_until(w->host, env_now_ns(w->host) + LANDED_NS);
	look_at_landed(w);
	simdisk_reconnect(w->disk, w->host, other);
	CU_ASSERT_FALSE(simdisk_is_busy(w->disk, w->host));
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);
	blkdev_close(dev);
	simdisk_power_cut(w->disk, SIMDISK_KEEP_NONE);
	CU_ASSERT_EQUAL(peek(w, 0), 7);
}

static void aborting_body(void *arg)
{
	struct world *w = arg;
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->host, "abort", abort_body, w, &thread), 0);
	write_body(w);
	env_thread_join(w->host, thread);
}

/* An aborted command has ended: what it has written is the next flush's, however late its answer is. */
static void flush_covers_what_was_aborted_before(void)
{
	struct world w;

	world_begin(&w);
	inject(&w, SIMDISK_DELAY);
	world_run(&w, aborting_body);
	world_end(&w);
}

static bool is_second(void *arg, uint64_t off, const void *block)
{
	(void)arg;
	(void)block;
	return off == 4096;
}

static void corrupt_body(void *arg)
{
	struct world *w = arg;
	struct simdisk_rule rule = { .fault = SIMDISK_CORRUPT, .ops = 1u << BLK_READ, .count = 1,
				     .may_corrupt = is_second };
	unsigned int bits[3] = { 0 };

	memset(w->buf, 0, 12 * KIB);
	CU_ASSERT_EQUAL(blkdev_write(w->dev, 0, w->buf, 12 * KIB), 0);
	simdisk_inject(w->disk, &rule);
	/* Nothing here may be: the rule waits. */
	CU_ASSERT_EQUAL(blkdev_read(w->dev, 0, w->buf, 4096), 0);
	CU_ASSERT_EQUAL(w->buf[0], 0);
	CU_ASSERT_EQUAL(blkdev_read(w->dev, 0, w->buf, 12 * KIB), 0);
	for (unsigned int i = 0; i < 12 * KIB; i++)
		bits[i / 4096] += (unsigned int)__builtin_popcount(w->buf[i]);
	CU_ASSERT_EQUAL(bits[0] + bits[2], 0);
	CU_ASSERT_EQUAL(bits[1], 1);
}

static void corruption_keeps_to_what_it_may(void)
{
	struct world w;

	world_begin(&w);
	world_run(&w, corrupt_body);
	world_end(&w);
}

static void until_body(void *arg)
{
	struct world *w = arg;
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE,
				     .until_ns = sim_now_ns(w->sim) + SEC };

	simdisk_inject(w->disk, &rule);
	write_body(w);
	CU_ASSERT_EQUAL(w->err, -EIO);
	env_sleep_until(w->host, env_now_ns(w->host) + SEC);
	write_body(w);
	CU_ASSERT_EQUAL(w->err, 0);
}

/* A path that is lost comes back. */
static void rule_ends_at_its_time(void)
{
	struct world w;

	world_begin(&w);
	world_run(&w, until_body);
	world_end(&w);
}

static void count_submit(void *arg, struct env *host, const struct blk_io *io)
{
	struct world *w = arg;

	(void)host;
	w->submitted += io->op == BLK_WRITE;
}

static void count_pending(void *arg, const struct blk_io *io)
{
	struct world *w = arg;

	w->pending += io->op == BLK_WRITE;
}

static void count_volatile(void *arg, uint64_t off, const void *data, uint64_t len)
{
	struct world *w = arg;

	(void)off;
	(void)data;
	w->volatile_bytes += len;
}

static void look_for_pending(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(w->submitted, 1);
	simdisk_each_pending(w->disk, w->host, count_pending, w);
}

static void look_body(void *arg)
{
	struct world *w = arg;
	struct simdisk_rule rule = { .fault = SIMDISK_TIMEOUT_LATE, .ops = 1u << BLK_WRITE,
				     .count = 1, .delay_ns = SEC };

	simdisk_inject(w->disk, &rule);
	write_body(w);
	CU_ASSERT_EQUAL(w->err, -ETIMEDOUT);
	look_for_pending(w);
	CU_ASSERT_EQUAL(w->pending, 1);
	CU_ASSERT_EQUAL(blkdev_drain(w->dev), 0);
	simdisk_each_pending(w->disk, w->host, count_pending, w);
	CU_ASSERT_EQUAL(w->pending, 1);
	simdisk_each_volatile(w->disk, w->dev, count_volatile, w);
	CU_ASSERT_EQUAL(w->volatile_bytes, 4096);
	CU_ASSERT_EQUAL(blkdev_flush(w->dev), 0);
	simdisk_each_volatile(w->disk, w->dev, count_volatile, w);
	CU_ASSERT_EQUAL(w->volatile_bytes, 4096);
}

/* What a rule checker asks: what may still land, and what a power cut may still take. */
static void pending_and_volatile_writes_are_seen(void)
{
	struct world w;

	world_begin(&w);
	simdisk_observe_submit(w.disk, count_submit, &w);
	world_run(&w, look_body);
	world_end(&w);
}

UNIT_MAIN("simdev_hold",
	UNIT_TEST(held_command_reaches_the_lun_when_its_host_goes_on),
	UNIT_TEST(held_command_dies_with_its_host),
	UNIT_TEST(landed_write_keeps_its_host_busy_until_it_ends),
	UNIT_TEST(flush_covers_what_was_aborted_before),
	UNIT_TEST(corruption_keeps_to_what_it_may),
	UNIT_TEST(rule_ends_at_its_time),
	UNIT_TEST(pending_and_volatile_writes_are_seen));
