// SPDX-License-Identifier: Apache-2.0
#include "block/simdev.h"

#include <errno.h>

#include "tests/unit.h"

#define SEC	NSEC_PER_SEC
#define MSEC	NSEC_PER_MSEC
#define SIZE	(64 * MIB)

/* Two hosts on one LUN; a test's body runs as a thread of alpha, with beta beside it. */
struct world {
	struct sim *sim;
	struct env *alpha, *beta;
	struct simdisk *disk;
	struct blkdev *a, *b;	/* the hosts' paths */
	uint8_t *buf, *buf2;
	int err;
	uint64_t when_ns;
	unsigned int seen[6];
	struct env *seen_host;
};

static void world_begin(struct world *w, uint64_t seed, uint32_t sector)
{
	struct simdisk_params params = {
		.size = SIZE, .sector = sector, .reservations = true,
		.latency_min_ns = MSEC, .latency_max_ns = 3 * MSEC,
	};

	memset(w, 0, sizeof(*w));
	w->sim = sim_new(seed);
	w->alpha = sim_host(w->sim, "alpha");
	w->beta = sim_host(w->sim, "beta");
	w->disk = simdisk_new(w->sim, &params);
	w->a = simdisk_open(w->disk, w->alpha);
	w->b = simdisk_open(w->disk, w->beta);
	w->buf = blkdev_alloc(64 * KIB);
	w->buf2 = blkdev_alloc(64 * KIB);
	CU_ASSERT_TRUE_FATAL(w->buf && w->buf2);
}

static void world_end(struct world *w)
{
	if (!sim_host_crashed(w->alpha))
		blkdev_close(w->a);
	if (!sim_host_crashed(w->beta))
		blkdev_close(w->b);
	simdisk_free(w->disk);
	sim_free(w->sim);
	free(w->buf);
	free(w->buf2);
}

/* Runs @fn as a thread of @host to its end. */
static void world_run(struct world *w, struct env *host, void (*fn)(void *arg))
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(host, "test", fn, w, &thread), 0);
	CU_ASSERT_TRUE_FATAL(sim_run(w->sim, sim_now_ns(w->sim) + 10000 * SEC));
	env_thread_join(host, thread);
}

/* Starts @fn in @host, to be run by the next world_run(); for hosts that crash. */
static void world_start(struct world *w, struct env *host, void (*fn)(void *arg))
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(host, "test", fn, w, &thread), 0);
}

static void inject(struct world *w, enum simdisk_fault fault, enum blk_op op, uint64_t delay_ns)
{
	struct simdisk_rule rule = {
		.fault = fault, .ops = 1u << op, .count = 1, .delay_ns = delay_ns,
	};

	simdisk_inject(w->disk, &rule);
}

static int write_byte(struct blkdev *dev, uint64_t off, uint8_t *buf, uint8_t byte, size_t len)
{
	memset(buf, byte, len);
	return blkdev_write(dev, off, buf, len);
}

/* The byte that all of [@off, +@len) holds; -1 if they differ. */
static int peek_byte(struct world *w, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len);
	int byte;

	CU_ASSERT_PTR_NOT_NULL_FATAL(buf);
	simdisk_peek(w->disk, off, buf, len);
	byte = buf[0];
	for (size_t i = 0; i < len; i++) {
		if (buf[i] != byte)
			byte = -1;
	}
	free(buf);
	return byte;
}

static void write_and_read_body(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(write_byte(w->a, 4096 + 512, w->buf, 7, 8192), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->b, 4096, w->buf2, 16384), 0);
	for (unsigned int i = 0; i < 16384; i++)
		CU_ASSERT_EQUAL_FATAL(w->buf2[i], i >= 512 && i < 512 + 8192 ? 7 : 0);
	CU_ASSERT_EQUAL(blkdev_zero(w->a, 4096 + 512, 512), 0);
	CU_ASSERT_EQUAL(peek_byte(w, 4096 + 512, 512), 0);
	CU_ASSERT_EQUAL(peek_byte(w, 4096 + 1024, 8192 - 512), 7);
	CU_ASSERT_EQUAL(blkdev_flush(w->a), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->a, SIZE, w->buf, 512), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_read(w->a, 1, w->buf, 512), -EINVAL);
	CU_ASSERT_TRUE(sim_now_ns(w->sim) >= 4 * MSEC && sim_now_ns(w->sim) <= 12 * MSEC);
}

/* All else stands on it: one host reads what another wrote. */
static void hosts_share_contents(void)
{
	struct simdisk_stats stats;
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, write_and_read_body);
	simdisk_stats(w.disk, w.alpha, &stats);
	CU_ASSERT_EQUAL(stats.ops[BLK_WRITE], 1);
	CU_ASSERT_EQUAL(stats.ops[BLK_ZERO], 1);
	CU_ASSERT_EQUAL(stats.ops[BLK_READ], 0);
	CU_ASSERT_EQUAL(stats.bytes_written, 8192);
	simdisk_stats(w.disk, NULL, &stats);
	CU_ASSERT_EQUAL(stats.ops[BLK_READ], 1);
	CU_ASSERT_EQUAL(stats.bytes_read, 16384);
	world_end(&w);
}

/* mkfs must not rely on old contents being zero; and a replay must see the same garbage. */
static void unwritten_blocks_hold_garbage_from_the_seed(void)
{
	struct simdisk_params params = { .size = MIB, .sector = 512, .random_contents = true };
	uint8_t buf[2][8192];

	for (int i = 0; i < 2; i++) {
		struct sim *sim = sim_new(9);
		struct simdisk *disk = simdisk_new(sim, &params);

		simdisk_poke(disk, 4096, "x", 1);
		simdisk_peek(disk, 0, buf[i], 8192);
		simdisk_free(disk);
		sim_free(sim);
	}
	CU_ASSERT_EQUAL(memcmp(buf[0], buf[1], sizeof(buf[0])), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(buf[0], buf[0] + 4096, 4096), 0);
	CU_ASSERT_EQUAL(buf[0][4096], 'x');
}

static void caw_body(void *arg)
{
	struct world *w = arg;

	memset(w->buf, 0, 512);
	memset(w->buf2, 1, 512);
	CU_ASSERT_EQUAL(blkdev_caw(w->a, 512, w->buf, w->buf2), 0);
	CU_ASSERT_EQUAL(peek_byte(w, 512, 512), 1);
	memset(w->buf2, 2, 512);
	CU_ASSERT_EQUAL(blkdev_caw(w->b, 512, w->buf, w->buf2), -EILSEQ);
	CU_ASSERT_EQUAL(peek_byte(w, 512, 512), 1);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 512), 0);
	CU_ASSERT_EQUAL(peek_byte(w, 1024, 512), 0);
}

static void caw_writes_only_over_what_was_expected(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, caw_body);
	world_end(&w);
}

static void count_with_caw(struct world *w, struct blkdev *dev, struct env *env)
{
	uint8_t *old = blkdev_alloc(512), *new = blkdev_alloc(512);

	for (int done = 0; done < 50;) {
		int err;

		CU_ASSERT_EQUAL(blkdev_read(dev, 0, old, 512), 0);
		memcpy(new, old, 512);
		if (!++new[0])
			new[1]++;
		err = blkdev_caw(dev, 0, old, new);
		CU_ASSERT_TRUE(!err || err == -EILSEQ);
		done += !err;
		env_sleep_until(env, env_now_ns(env) + env_random_below(env, MSEC));
	}
	(void)w;
	free(old);
	free(new);
}

static void count_alpha(void *arg)
{
	struct world *w = arg;

	count_with_caw(w, w->a, w->alpha);
}

static void count_beta(void *arg)
{
	struct world *w = arg;

	count_with_caw(w, w->b, w->beta);
}

/* Two hosts must never both believe that they took a lock. */
static void caw_loses_no_update_between_hosts(void)
{
	struct env_thread *beta;
	struct world w;

	world_begin(&w, 5, 512);
	CU_ASSERT_EQUAL(env_thread_start(w.beta, "test", count_beta, &w, &beta), 0);
	world_run(&w, w.alpha, count_alpha);
	env_thread_join(w.beta, beta);
	simdisk_peek(w.disk, 0, w.buf, 512);
	CU_ASSERT_EQUAL(w.buf[0], 100);
	world_end(&w);
}

static void unflushed_body(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 1, 4096), 0);
	CU_ASSERT_EQUAL(blkdev_flush(w->a), 0);
	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 2, 4096), 0);
	memset(w->buf, 3, 4096);
	CU_ASSERT_EQUAL(blkdev_rw(w->a, BLK_WRITE, BLK_FUA, 8192, w->buf, 4096), 0);
	CU_ASSERT_EQUAL(write_byte(w->a, 16384, w->buf, 4, 4096), 0);
}

/* A filesystem that forgets a flush must fail its tests, whichever subset is lost. */
static void power_cut_loses_what_was_not_flushed(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, unflushed_body);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 2);
	simdisk_power_cut(w.disk, SIMDISK_KEEP_NONE);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 1);
	CU_ASSERT_EQUAL(peek_byte(&w, 8192, 4096), 3);
	CU_ASSERT_EQUAL(peek_byte(&w, 16384, 4096), 0);
	world_end(&w);
}

static void power_cut_may_keep_everything(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, unflushed_body);
	simdisk_power_cut(w.disk, SIMDISK_KEEP_ALL);
	simdisk_power_cut(w.disk, SIMDISK_KEEP_NONE);	/* nothing is volatile any more */
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 2);
	CU_ASSERT_EQUAL(peek_byte(&w, 16384, 4096), 4);
	world_end(&w);
}

/* Every fate of an unflushed write must come up: lost, kept, torn, one before the other. */
static void power_cut_keeps_any_subset_torn_at_sectors(void)
{
	unsigned int kept = 0, lost = 0, torn = 0, later_only = 0;

	for (uint64_t seed = 0; seed < 100; seed++) {
		struct world w;
		int first, later;

		world_begin(&w, seed, 512);
		world_run(&w, w.alpha, unflushed_body);
		simdisk_power_cut(w.disk, SIMDISK_KEEP_RANDOM);
		first = peek_byte(&w, 0, 4096);
		later = peek_byte(&w, 16384, 4096);
		kept += first == 2;
		lost += first == 1;
		torn += first == -1;
		later_only += first == 1 && later == 4;
		for (uint64_t off = 0; off < 4096; off += 512)
			CU_ASSERT_NOT_EQUAL(peek_byte(&w, off, 512), -1);
		CU_ASSERT_EQUAL(peek_byte(&w, 8192, 4096), 3);	/* FUA */
		world_end(&w);
	}
	CU_ASSERT_EQUAL(kept + lost + torn, 100);
	CU_ASSERT_TRUE(kept >= 5 && lost >= 5 && torn >= 5 && later_only >= 3);
}

static void never_done(struct blk_io *io, int err)
{
	*(int *)io->arg = err;
}

/* A write and a flush submitted together, and then time for both to complete. */
static void early_flush_body(void *arg)
{
	struct world *w = arg;
	int errs[2] = { 1, 1 };
	struct iovec iov = { w->buf, 4096 };
	struct blk_io write = { .op = BLK_WRITE, .len = 4096, .iov = &iov, .iovcnt = 1,
				.done = never_done, .arg = &errs[0] };
	struct blk_io flush = { .op = BLK_FLUSH, .done = never_done, .arg = &errs[1] };
	struct blk_io *ios[2] = { &write, &flush };

	memset(w->buf, 9, 4096);
	inject(w, SIMDISK_DELAY, BLK_FLUSH, 10 * MSEC);	/* executed long after the write */
	blkdev_submit(w->a, ios, 2);
	env_sleep_until(w->alpha, env_now_ns(w->alpha) + SEC);
	CU_ASSERT_EQUAL(errs[0], 0);
	CU_ASSERT_EQUAL(errs[1], 0);
}

/* A flush promises nothing for writes that had not completed when it was submitted. */
static void flush_covers_only_writes_completed_before(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, early_flush_body);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 9);
	simdisk_power_cut(w.disk, SIMDISK_KEEP_NONE);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 0);
	world_end(&w);
}

static void one_write_body(void *arg)
{
	struct world *w = arg;

	w->err = write_byte(w->a, 0, w->buf, 5, 4096);
	w->when_ns = sim_now_ns(w->sim);
}

/* Each fault: the error that the host sees, and whether the write landed all the same. */
static void faults_answer_and_apply_as_named(void)
{
	static const struct {
		enum simdisk_fault fault;
		int err, byte;
	} cases[] = {
		{ SIMDISK_FAIL, -EIO, 0 },
		{ SIMDISK_FAIL_APPLIED, -EIO, 5 },
		{ SIMDISK_TIMEOUT, -ETIMEDOUT, 0 },
		{ SIMDISK_TIMEOUT_APPLIED, -ETIMEDOUT, 5 },
		{ SIMDISK_TIMEOUT_LATE, -ETIMEDOUT, 0 },
		{ SIMDISK_DELAY, 0, 5 },
		{ SIMDISK_NOSPC, -ENOSPC, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world w;

		world_begin(&w, 1, 512);
		inject(&w, cases[i].fault, BLK_WRITE, 30 * SEC);
		world_run(&w, w.alpha, one_write_body);
		CU_ASSERT_EQUAL(w.err, cases[i].err);
		CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), cases[i].byte);
		CU_ASSERT_EQUAL(w.when_ns >= 30 * SEC, cases[i].fault == SIMDISK_DELAY ||
				cases[i].fault == SIMDISK_TIMEOUT ||
				cases[i].fault == SIMDISK_TIMEOUT_APPLIED);
		world_run(&w, w.alpha, one_write_body);	/* the rule is used up */
		CU_ASSERT_EQUAL(w.err, 0);
		world_end(&w);
	}
}

static void late_body(void *arg)
{
	struct world *w = arg;

	inject(w, SIMDISK_TIMEOUT_LATE, BLK_WRITE, 60 * SEC);
	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 5, 4096), -ETIMEDOUT);
	memset(w->buf, 6, 4096);	/* the buffer is the host's again */
	CU_ASSERT_TRUE(sim_now_ns(w->sim) < SEC);
	env_sleep_until(w->alpha, 59 * SEC);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 0);
	CU_ASSERT_EQUAL(blkdev_drain(w->a), 0);
	CU_ASSERT_TRUE(sim_now_ns(w->sim) >= 60 * SEC);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 5);
}

/* The worst that hardware does: a write given up for lost overwrites a newer one (R3, R4). */
static void timed_out_command_may_land_later_until_drained(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, late_body);
	world_end(&w);
}

static void corrupt_body(void *arg)
{
	struct world *w = arg;
	unsigned int bits = 0;

	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 0, 4096), 0);
	inject(w, SIMDISK_CORRUPT, BLK_READ, 0);
	CU_ASSERT_EQUAL(blkdev_read(w->a, 0, w->buf, 4096), 0);
	for (unsigned int i = 0; i < 4096; i++)
		bits += (unsigned int)__builtin_popcount(w->buf[i]);
	CU_ASSERT_EQUAL(bits, 1);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 0);
}

/* Silent corruption is what checksums are for. */
static void corruption_flips_one_bit_of_one_read(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, corrupt_body);
	world_end(&w);
}

static void rule_body(void *arg)
{
	struct world *w = arg;
	struct simdisk_rule rule = {
		.fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE, .host = w->alpha,
		.off = 8192, .len = 4096, .skip = 1, .count = 2,
	};

	simdisk_inject(w->disk, &rule);
	CU_ASSERT_EQUAL(write_byte(w->a, 4096, w->buf, 1, 4096), 0);	/* elsewhere */
	CU_ASSERT_EQUAL(write_byte(w->b, 8192, w->buf, 1, 4096), 0);	/* another host */
	CU_ASSERT_EQUAL(blkdev_read(w->a, 8192, w->buf, 4096), 0);	/* another command */
	CU_ASSERT_EQUAL(write_byte(w->a, 4096, w->buf, 2, 8192), 0);	/* skipped */
	CU_ASSERT_EQUAL(write_byte(w->a, 4096, w->buf, 3, 8192), -EIO);
	CU_ASSERT_EQUAL(write_byte(w->a, 11776, w->buf, 3, 512), -EIO);
	CU_ASSERT_EQUAL(write_byte(w->a, 8192, w->buf, 4, 4096), 0);	/* used up */
	rule.skip = 0;
	rule.count = 0;
	simdisk_inject(w->disk, &rule);
	CU_ASSERT_EQUAL(write_byte(w->a, 8192, w->buf, 5, 4096), -EIO);
	simdisk_clear_rules(w->disk);
	CU_ASSERT_EQUAL(write_byte(w->a, 8192, w->buf, 6, 4096), 0);
}

static void rule_hits_what_it_names(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, rule_body);
	world_end(&w);
}

/* A device that does not answer: latency, not an error (R2). */
static void stall_holds_answers_of_one_host_back(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	simdisk_stall(w.disk, w.beta, 100 * SEC);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_TRUE(w.when_ns < SEC);
	simdisk_stall(w.disk, w.alpha, 20 * SEC);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_EQUAL(w.err, 0);
	CU_ASSERT_EQUAL(w.when_ns, 20 * SEC);
	simdisk_stall(w.disk, NULL, 40 * SEC);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_EQUAL(w.when_ns, 40 * SEC);
	world_end(&w);
}

static void unstall(void *arg)
{
	struct world *w = arg;

	simdisk_stall(w->disk, NULL, 0);
}

static void stall_can_be_ended_early(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	simdisk_stall(w.disk, NULL, ENV_FOREVER);
	sim_at(w.sim, 7 * SEC, unstall, &w);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_EQUAL(w.err, 0);
	CU_ASSERT_EQUAL(w.when_ns, 7 * SEC);
	world_end(&w);
}

static void register_both(struct world *w)
{
	CU_ASSERT_EQUAL(w->a->ops->pr_register(w->a, 0, 0xa), 0);
	CU_ASSERT_EQUAL(w->b->ops->pr_register(w->b, 0, 0xb), 0);
	CU_ASSERT_EQUAL(w->a->ops->pr_reserve(w->a, 0xa), 0);
}

static void reservation_body(void *arg)
{
	struct world *w = arg;
	struct blkdev_pr_state state;

	CU_ASSERT_EQUAL(w->a->ops->pr_reserve(w->a, 0xa), -EBADE);	/* not registered */
	CU_ASSERT_EQUAL(w->a->ops->pr_register(w->a, 0x9, 0xa), -EBADE);
	register_both(w);
	CU_ASSERT_EQUAL(w->a->ops->pr_register(w->a, 0, 0xc), -EBADE);	/* it has 0xa */
	CU_ASSERT_EQUAL(w->b->ops->pr_reserve(w->b, 0xb), 0);	/* all registrants hold it */
	CU_ASSERT_EQUAL(w->a->ops->pr_read(w->a, &state), 0);
	CU_ASSERT_TRUE(state.held);
	CU_ASSERT_EQUAL(state.key_count, 2);
	CU_ASSERT_EQUAL(state.generation, 2);
	CU_ASSERT_EQUAL(write_byte(w->b, 0, w->buf, 1, 512), 0);

	CU_ASSERT_EQUAL(w->a->ops->pr_preempt_abort(w->a, 0xc, 0xb), -EBADE);
	CU_ASSERT_EQUAL(w->a->ops->pr_preempt_abort(w->a, 0xa, 0xd), -EBADE);
	CU_ASSERT_EQUAL(w->a->ops->pr_preempt_abort(w->a, 0xa, 0xb), 0);
	CU_ASSERT_EQUAL(w->a->ops->pr_read(w->a, &state), 0);
	CU_ASSERT_TRUE(state.held);
	CU_ASSERT_EQUAL(state.key_count, 1);
	CU_ASSERT_EQUAL(state.keys[0], 0xa);
	CU_ASSERT_EQUAL(state.generation, 3);

	CU_ASSERT_EQUAL(write_byte(w->b, 0, w->buf, 2, 512), -EBADE);
	CU_ASSERT_EQUAL(blkdev_zero(w->b, 0, 512), -EBADE);
	CU_ASSERT_EQUAL(blkdev_caw(w->b, 0, w->buf2, w->buf), -EBADE);
	CU_ASSERT_EQUAL(blkdev_discard(w->b, 0, 4096), -EBADE);
	CU_ASSERT_EQUAL(blkdev_read(w->b, 0, w->buf, 512), 0);	/* R2 stops reads, not this */
	CU_ASSERT_EQUAL(w->buf[0], 1);
	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 3, 512), 0);

	CU_ASSERT_EQUAL(w->a->ops->pr_register(w->a, 0xa, 0), 0);	/* the last one leaves */
	CU_ASSERT_EQUAL(w->a->ops->pr_read(w->a, &state), 0);
	CU_ASSERT_FALSE(state.held);
	CU_ASSERT_EQUAL(write_byte(w->b, 0, w->buf, 4, 512), 0);
}

/* Rung A of the fencing ladder. */
static void preempted_host_cannot_write(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, reservation_body);
	world_end(&w);
}

static void preempt_late_body(void *arg)
{
	struct world *w = arg;

	register_both(w);
	inject(w, SIMDISK_TIMEOUT_LATE, BLK_WRITE, 60 * SEC);
	CU_ASSERT_EQUAL(write_byte(w->b, 0, w->buf, 5, 4096), -ETIMEDOUT);
	CU_ASSERT_EQUAL(w->a->ops->pr_preempt_abort(w->a, 0xa, 0xb), 0);
	/* Were it registered again, only the abort would keep the late write out. */
	CU_ASSERT_EQUAL(w->b->ops->pr_register(w->b, 0, 0xb), 0);
	env_sleep_until(w->alpha, env_now_ns(w->alpha) + 100 * SEC);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 0);
}

/* Recovery replays the journal; a write of the dead host must not land on top of it. */
static void preempt_aborts_late_commands(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, preempt_late_body);
	world_end(&w);
}

static void beta_writes_body(void *arg)
{
	struct world *w = arg;

	w->err = write_byte(w->b, 0, w->buf, 5, 4096);
}

static void preempt_soon_body(void *arg)
{
	struct world *w = arg;
	struct env_thread *thread;

	register_both(w);
	inject(w, SIMDISK_DELAY, BLK_WRITE, 60 * SEC);
	CU_ASSERT_EQUAL(env_thread_start(w->beta, "writer", beta_writes_body, w, &thread), 0);
	env_sleep_until(w->alpha, env_now_ns(w->alpha) + SEC);
	CU_ASSERT_EQUAL(w->a->ops->pr_preempt_abort(w->a, 0xa, 0xb), 0);
	env_thread_join(w->alpha, thread);
	CU_ASSERT_EQUAL(w->err, -EIO);
	CU_ASSERT_TRUE(sim_now_ns(w->sim) < 2 * SEC);
	env_sleep_until(w->alpha, env_now_ns(w->alpha) + 100 * SEC);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 0);
}

static void preempt_aborts_commands_in_flight(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, preempt_soon_body);
	world_end(&w);
}

static void crash_beta(void *arg)
{
	struct world *w = arg;

	sim_host_crash(w->beta);
}

static void wait_body(void *arg)
{
	struct world *w = arg;

	env_sleep_until(w->alpha, SEC);
}

/* A host that dies with a write in flight: it may land whole, in part, or not at all. */
static void crashed_hosts_write_lands_or_not(void)
{
	unsigned int kept = 0, lost = 0, torn = 0;

	for (uint64_t seed = 0; seed < 60; seed++) {
		struct world w;
		int byte;

		world_begin(&w, seed, 512);
		w.err = 1;
		world_start(&w, w.beta, beta_writes_body);
		sim_at(w.sim, 1, crash_beta, &w);
		world_run(&w, w.alpha, wait_body);
		CU_ASSERT_EQUAL(w.err, 1);	/* it never heard */
		byte = peek_byte(&w, 0, 4096);
		kept += byte == 5;
		lost += byte == 0;
		torn += byte == -1;
		world_end(&w);
	}
	CU_ASSERT_TRUE(kept >= 5 && lost >= 5 && torn >= 5);
}

static void freeze_beta(void *arg)
{
	struct world *w = arg;

	sim_host_freeze(w->beta, 50 * SEC);
}

static void beta_when_body(void *arg)
{
	struct world *w = arg;

	w->err = write_byte(w->b, 0, w->buf, 5, 4096);
	w->when_ns = sim_now_ns(w->sim);
}

/* A frozen host's command lands while it stands still; it hears of it when it wakes (R2). */
static void frozen_host_hears_later(void)
{
	struct env_thread *thread;
	struct world w;

	world_begin(&w, 1, 512);
	CU_ASSERT_EQUAL(env_thread_start(w.beta, "writer", beta_when_body, &w, &thread), 0);
	sim_at(w.sim, 1, freeze_beta, &w);
	world_run(&w, w.alpha, wait_body);
	CU_ASSERT_EQUAL(w.when_ns, 50 * SEC);
	CU_ASSERT_EQUAL(w.err, 0);
	env_thread_join(w.beta, thread);
	world_end(&w);
}

/* Tests of takeover begin from one state, again and again. */
static void snapshot_keeps_durable_and_volatile_apart(void)
{
	struct simdisk_image *image;
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, unflushed_body);
	image = simdisk_snapshot(w.disk);
	world_run(&w, w.alpha, one_write_body);
	simdisk_poke(w.disk, 8192, "zz", 2);
	for (int i = 0; i < 2; i++) {
		simdisk_restore(w.disk, image);
		CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 2);
		CU_ASSERT_EQUAL(peek_byte(&w, 8192, 4096), 3);
		simdisk_power_cut(w.disk, SIMDISK_KEEP_NONE);
		CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 1);
	}
	simdisk_image_free(image);
	world_end(&w);
}

static void poke_byte(struct world *w, uint64_t off, uint8_t byte)
{
	simdisk_poke(w->disk, off, &byte, 1);
}

/* What is restored is copied only when it changes: neither the image nor a later LUN sees that. */
static void restored_luns_do_not_change_the_image(void)
{
	struct simdisk_image *image, *later;
	struct world w;

	world_begin(&w, 1, 512);
	for (uint64_t i = 0; i < 4; i++)
		poke_byte(&w, i * 4096, 1);
	image = simdisk_snapshot(w.disk);
	simdisk_restore(w.disk, image);
	poke_byte(&w, 4096 + 7, 2);
	world_run(&w, w.alpha, one_write_body);
	later = simdisk_snapshot(w.disk);
	simdisk_restore(w.disk, image);
	simdisk_image_free(image);	/* the LUN still is what it was */
	for (uint64_t i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(peek_byte(&w, i * 4096, 1), 1);
	CU_ASSERT_EQUAL(peek_byte(&w, 4096 + 7, 1), 0);
	simdisk_restore(w.disk, later);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 5);
	CU_ASSERT_EQUAL(peek_byte(&w, 4096, 1), 1);
	CU_ASSERT_EQUAL(peek_byte(&w, 4096 + 7, 1), 2);
	CU_ASSERT_EQUAL(peek_byte(&w, 3 * 4096, 1), 1);
	simdisk_resize(w.disk, 8192);
	simdisk_image_free(later);
	simdisk_resize(w.disk, SIZE);
	CU_ASSERT_EQUAL(peek_byte(&w, 4096, 1), 1);
	CU_ASSERT_EQUAL(peek_byte(&w, 8192, 1), 0);
	CU_ASSERT_EQUAL(peek_byte(&w, 3 * 4096, 1), 0);
	world_end(&w);
}

/* A test's own change of contents must survive like anything that lay there all along. */
static void poke_outlives_older_volatile_writes(void)
{
	uint8_t bytes[512];
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, unflushed_body);
	memset(bytes, 8, sizeof(bytes));
	simdisk_poke(w.disk, 512, bytes, sizeof(bytes));
	simdisk_power_cut(w.disk, SIMDISK_KEEP_ALL);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 512), 2);
	CU_ASSERT_EQUAL(peek_byte(&w, 512, 512), 8);
	CU_ASSERT_EQUAL(peek_byte(&w, 1024, 3072), 2);
	world_end(&w);
}

static void shrink_body(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL(write_byte(w->a, SIZE - 4096, w->buf, 1, 4096), 0);
	simdisk_resize(w->disk, SIZE / 2);
	CU_ASSERT_EQUAL(blkdev_read(w->a, SIZE - 4096, w->buf, 4096), -EIO);
	CU_ASSERT_EQUAL(w->a->ops->refresh(w->a), 0);
	CU_ASSERT_EQUAL(w->a->info.size, SIZE / 2);
	CU_ASSERT_EQUAL(blkdev_read(w->a, SIZE - 4096, w->buf, 4096), -EINVAL);
	simdisk_resize(w->disk, SIZE);
	CU_ASSERT_EQUAL(w->a->ops->refresh(w->a), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->a, SIZE - 4096, w->buf, 4096), 0);
	CU_ASSERT_EQUAL(w->buf[0], 0);
}

static void shrunk_lun_refuses_what_lay_beyond(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, shrink_body);
	world_end(&w);
}

static void observer(void *arg, struct env *host, const struct blk_io *io)
{
	struct world *w = arg;

	w->seen[io->op]++;
	w->seen_host = host;
	if (io->op == BLK_CAW)
		CU_ASSERT_EQUAL(*(uint8_t *)io->iov[1].iov_base, 1);
	if (io->op == BLK_WRITE)
		CU_ASSERT_EQUAL(*(uint8_t *)io->iov[0].iov_base, 5);
}

/* The simulator's checks of R1 to R8 hang on it. */
static void observer_sees_what_is_applied_and_nothing_else(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	simdisk_observe(w.disk, observer, &w);
	inject(&w, SIMDISK_FAIL, BLK_WRITE, 0);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_EQUAL(w.seen[BLK_WRITE], 0);
	world_run(&w, w.alpha, caw_body);	/* the second one miscompares */
	CU_ASSERT_EQUAL(w.seen[BLK_CAW], 1);
	world_run(&w, w.beta, one_write_body);	/* through alpha's path all the same */
	CU_ASSERT_EQUAL(w.seen[BLK_WRITE], 1);
	CU_ASSERT_PTR_EQUAL(w.seen_host, w.alpha);
	world_end(&w);
}

static void discard_body(void *arg)
{
	struct world *w = arg;
	unsigned int zeros = 0, old = 0;

	CU_ASSERT_EQUAL(write_byte(w->a, 0, w->buf, 5, 65536), 0);
	CU_ASSERT_EQUAL(blkdev_discard(w->a, 4096, 65536 - 8192), 0);
	for (uint64_t off = 4096; off < 65536 - 4096; off += 4096) {
		zeros += peek_byte(w, off, 4096) == 0;
		old += peek_byte(w, off, 4096) == 5;
	}
	CU_ASSERT_EQUAL(zeros + old, 14);
	CU_ASSERT_TRUE(zeros && old);
	CU_ASSERT_EQUAL(peek_byte(w, 0, 4096), 5);
	CU_ASSERT_EQUAL(peek_byte(w, 65536 - 4096, 4096), 5);
}

/* Nobody may rely on what a discarded block holds (R8). */
static void discarded_blocks_hold_zeros_or_old_data(void)
{
	struct world w;

	world_begin(&w, 1, 512);
	world_run(&w, w.alpha, discard_body);
	world_end(&w);
}

static void cut_power(void *arg)
{
	struct world *w = arg;

	simdisk_power_cut(w->disk, SIMDISK_KEEP_NONE);
}

/* The array reboots under living hosts: they get an error, and the command is gone. */
static void power_cut_ends_commands_in_flight(void)
{
	struct world w;

	world_begin(&w, 1, 4096);
	inject(&w, SIMDISK_DELAY, BLK_WRITE, 10 * SEC);
	sim_at(w.sim, SEC, cut_power, &w);
	world_run(&w, w.alpha, one_write_body);
	CU_ASSERT_EQUAL(w.err, -EIO);
	CU_ASSERT_EQUAL(w.when_ns, SEC);
	CU_ASSERT_EQUAL(peek_byte(&w, 0, 4096), 0);
	world_end(&w);
}

UNIT_MAIN("simdev",
	UNIT_TEST(hosts_share_contents),
	UNIT_TEST(unwritten_blocks_hold_garbage_from_the_seed),
	UNIT_TEST(caw_writes_only_over_what_was_expected),
	UNIT_TEST(caw_loses_no_update_between_hosts),
	UNIT_TEST(power_cut_loses_what_was_not_flushed),
	UNIT_TEST(power_cut_may_keep_everything),
	UNIT_TEST(power_cut_keeps_any_subset_torn_at_sectors),
	UNIT_TEST(flush_covers_only_writes_completed_before),
	UNIT_TEST(faults_answer_and_apply_as_named),
	UNIT_TEST(timed_out_command_may_land_later_until_drained),
	UNIT_TEST(corruption_flips_one_bit_of_one_read),
	UNIT_TEST(rule_hits_what_it_names),
	UNIT_TEST(stall_holds_answers_of_one_host_back),
	UNIT_TEST(stall_can_be_ended_early),
	UNIT_TEST(preempted_host_cannot_write),
	UNIT_TEST(preempt_aborts_late_commands),
	UNIT_TEST(preempt_aborts_commands_in_flight),
	UNIT_TEST(crashed_hosts_write_lands_or_not),
	UNIT_TEST(frozen_host_hears_later),
	UNIT_TEST(snapshot_keeps_durable_and_volatile_apart),
	UNIT_TEST(restored_luns_do_not_change_the_image),
	UNIT_TEST(poke_outlives_older_volatile_writes),
	UNIT_TEST(shrunk_lun_refuses_what_lay_beyond),
	UNIT_TEST(observer_sees_what_is_applied_and_nothing_else),
	UNIT_TEST(discarded_blocks_hold_zeros_or_old_data),
	UNIT_TEST(power_cut_ends_commands_in_flight));
