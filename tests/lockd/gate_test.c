/* SPDX-License-Identifier: Apache-2.0 */
/* The lease gate in front of a device whose every command the test completes itself. */
#include "lockd/gate.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/env_sim.h"
#include "tests/unit.h"

#define MSEC	NSEC_PER_MSEC

/* The lower device: keeps what was submitted until the test completes it. */
struct fake {
	struct blkdev dev;
	struct list held;
	unsigned int submitted;
	unsigned int runs;
	int run_err;
	uint64_t run_ns;	/* how long a synchronous command takes */
	int run_err_once;
	uint64_t lease_ns;	/* as the gate told it last */
	bool silent;		/* nothing of what is held can be sent any more */
};

static void fake_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct fake *f = container_of(dev, struct fake, dev);

	for (unsigned int i = 0; i < count; i++) {
		list_add_tail(&f->held, &ios[i]->node);
		f->submitted++;
	}
}

static int fake_run(struct blkdev *dev, struct blk_io *io)
{
	struct fake *f = container_of(dev, struct fake, dev);
	int err = f->run_err_once ? f->run_err_once : f->run_err;

	(void)io;
	f->run_err_once = 0;
	f->runs++;
	env_sleep_until(dev->env, env_now_ns(dev->env) + f->run_ns);
	return err;
}

static void fake_lease(struct blkdev *dev, uint64_t until_ns)
{
	container_of(dev, struct fake, dev)->lease_ns = until_ns;
}

static bool fake_is_silent(struct blkdev *dev)
{
	return container_of(dev, struct fake, dev)->silent;
}

static void fake_close(struct blkdev *dev)
{
	(void)dev;
}

static const struct blkdev_ops fake_ops = {
	.submit = fake_submit, .lease = fake_lease, .is_silent = fake_is_silent,
	.close = fake_close,
};
static const struct blkdev_ops fake_run_ops = {
	.submit = fake_submit, .run = fake_run, .close = fake_close,
};

/* Completes the oldest command inside the device. */
static void fake_complete(struct fake *f, int err)
{
	struct blk_io *io;

	CU_ASSERT_FALSE_FATAL(list_empty(&f->held));
	io = list_first(&f->held, struct blk_io, node);
	list_del(&io->node);
	io->done(io, err);
}

struct request {
	struct blk_io io;
	struct iovec iov;
	unsigned int done;
	int err;
};

static void request_done(struct blk_io *io, int err)
{
	struct request *r = container_of(io, struct request, io);

	CU_ASSERT_EQUAL(io->arg, (void *)r);	/* the submitter's word is left alone */
	r->done++;
	r->err = err;
}

static uint8_t data[512] __attribute__((aligned(4096)));

static void request_submit(struct request *r, struct blkdev *dev, enum blk_op op)
{
	struct blk_io *io = &r->io;

	memset(r, 0, sizeof(*r));
	r->iov = (struct iovec){ .iov_base = data, .iov_len = sizeof(data) };
	*io = (struct blk_io){ .op = op, .len = sizeof(data), .iov = &r->iov, .iovcnt = 1,
			       .done = request_done, .arg = r };
	blkdev_submit(dev, &io, 1);
}

struct world {
	struct sim *sim;
	struct env *env;
	struct fake fake;
	struct gate *gate;
	struct blkdev *dev;
	void (*body)(struct world *w);
	bool ended;
};

static void world_thread(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL_FATAL(gate_new(w->env, &w->fake.dev, &w->gate), 0);
	w->dev = gate_blkdev(w->gate);
	w->body(w);
	gate_free(w->gate);
	w->ended = true;
}

static void world_run(void (*body)(struct world *w), bool run)
{
	struct world w = { .body = body };
	struct env_thread *thread;

	w.sim = sim_new(1);
	w.env = sim_host(w.sim, "alpha");
	w.fake.dev = (struct blkdev){
		.ops = run ? &fake_run_ops : &fake_ops, .env = w.env,
		.info = { .size = 1 << 20, .sector = 512, .mem_align = 512, .io_max = 1 << 20 },
	};
	list_init(&w.fake.held);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w.env, "test", world_thread, &w, &thread), 0);
	CU_ASSERT_TRUE(sim_run(w.sim, 3600 * NSEC_PER_SEC));
	env_thread_join(w.env, thread);
	CU_ASSERT_TRUE(w.ended);
	sim_free(w.sim);
}

static void sleep_ms(struct world *w, uint64_t ms)
{
	env_sleep_until(w->env, env_now_ns(w->env) + ms * MSEC);
}

static void renew_ms(struct world *w, uint64_t ms)
{
	gate_renew(w->gate, env_now_ns(w->env) + ms * MSEC);
}

static void body_closed_gate_holds(struct world *w)
{
	struct request a, b;

	CU_ASSERT_FALSE(gate_is_valid(w->gate));
	request_submit(&a, w->dev, BLK_WRITE);
	request_submit(&b, w->dev, BLK_READ);
	sleep_ms(w, 100);
	CU_ASSERT_EQUAL(w->fake.submitted, 0);
	CU_ASSERT_EQUAL(gate_stalls(w->gate), 2);
	renew_ms(w, 1000);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, -EIO);
	CU_ASSERT(a.done == 1 && a.err == 0);
	CU_ASSERT(b.done == 1 && b.err == -EIO);
}

/* R2: a command issued after the lease lapsed could land after another host took over. */
static void commands_wait_for_the_lease(void)
{
	world_run(body_closed_gate_holds, false);
}

static void body_until_is_exclusive(struct world *w)
{
	struct request a, b;

	renew_ms(w, 100);
	sleep_ms(w, 99);
	request_submit(&a, w->dev, BLK_WRITE);
	CU_ASSERT_EQUAL(w->fake.submitted, 1);
	sleep_ms(w, 1);
	CU_ASSERT_FALSE(gate_is_valid(w->gate));
	request_submit(&b, w->dev, BLK_WRITE);
	CU_ASSERT_EQUAL(w->fake.submitted, 1);
	renew_ms(w, 100);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, 0);
	CU_ASSERT(a.done == 1 && b.done == 1);
}

/* Nobody tells the gate that time has passed: it must look at each command. */
static void lease_lapses_by_itself(void)
{
	world_run(body_until_is_exclusive, false);
}

static void body_late_results(struct world *w)
{
	struct request rd, wr, fl, bad;

	renew_ms(w, 100);
	request_submit(&rd, w->dev, BLK_READ);
	request_submit(&wr, w->dev, BLK_WRITE);
	request_submit(&fl, w->dev, BLK_FLUSH);
	request_submit(&bad, w->dev, BLK_WRITE);
	sleep_ms(w, 200);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, -EIO);
	sleep_ms(w, 10);
	CU_ASSERT(!rd.done && !wr.done && !fl.done && !bad.done);
	CU_ASSERT_EQUAL(w->fake.submitted, 4);
	renew_ms(w, 100);
	sleep_ms(w, 1);
	/* The write, the flush and the error are handed on; only the read is executed again. */
	CU_ASSERT(wr.done == 1 && wr.err == 0);
	CU_ASSERT(fl.done == 1 && fl.err == 0);
	CU_ASSERT(bad.done == 1 && bad.err == -EIO);
	CU_ASSERT(!rd.done);
	CU_ASSERT_EQUAL(w->fake.submitted, 5);
	fake_complete(&w->fake, 0);
	CU_ASSERT(rd.done == 1 && rd.err == 0);
}

/* R2: data read under a lease that has lapsed meanwhile may be somebody else's by now; a
 * write told as done would let the guest act on a disk that it has lost. */
static void late_results_wait_and_reads_are_repeated(void)
{
	world_run(body_late_results, false);
}

static void body_read_repeated_twice(struct world *w)
{
	struct request rd;

	renew_ms(w, 100);
	request_submit(&rd, w->dev, BLK_READ);
	for (unsigned int i = 1; i <= 3; i++) {
		sleep_ms(w, 150);
		fake_complete(&w->fake, 0);
		sleep_ms(w, 1);
		CU_ASSERT_EQUAL(rd.done, 0);
		renew_ms(w, 100);
		sleep_ms(w, 1);
		CU_ASSERT_EQUAL(w->fake.submitted, i + 1);
	}
	fake_complete(&w->fake, 0);
	CU_ASSERT_EQUAL(rd.done, 1);
}

/* A lease that lapses again and again must not lose or double a request. */
static void read_is_repeated_until_the_lease_holds(void)
{
	world_run(body_read_repeated_twice, false);
}

static void body_fail(struct world *w)
{
	struct request inside, late, waiting, after;

	renew_ms(w, 100);
	request_submit(&inside, w->dev, BLK_READ);
	request_submit(&late, w->dev, BLK_WRITE);
	sleep_ms(w, 200);
	fake_complete(&w->fake, 0);	/* the read waits to be repeated */
	request_submit(&waiting, w->dev, BLK_WRITE);
	gate_fail(w->gate);
	sleep_ms(w, 1);
	CU_ASSERT(inside.done == 1 && inside.err == -ESTALE);
	CU_ASSERT(waiting.done == 1 && waiting.err == -ESTALE);
	CU_ASSERT_EQUAL(late.done, 0);	/* the device still has it */
	fake_complete(&w->fake, 0);
	CU_ASSERT(late.done == 1 && late.err == -ESTALE);
	request_submit(&after, w->dev, BLK_READ);
	CU_ASSERT(after.done == 1 && after.err == -ESTALE);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	renew_ms(w, 100);	/* a renewal that raced does not open it again */
	CU_ASSERT_FALSE(gate_is_valid(w->gate));
	CU_ASSERT_TRUE(gate_has_failed(w->gate));
}

/* A fenced host's guests must get an error, not hang, and nothing more may reach the LUN. */
static void after_failure_everything_is_stale(void)
{
	world_run(body_fail, false);
}

static void body_conflict(struct world *w)
{
	struct request wr;

	renew_ms(w, 1000);
	request_submit(&wr, w->dev, BLK_WRITE);
	fake_complete(&w->fake, -EBADE);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(wr.done, 0);
	CU_ASSERT_FALSE(gate_is_valid(w->gate));
	CU_ASSERT_TRUE(gate_take_conflict(w->gate));
	CU_ASSERT_FALSE(gate_take_conflict(w->gate));
	renew_ms(w, 1000);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, 0);
	CU_ASSERT(wr.done == 1 && wr.err == 0);
}

/* A reservation conflict means "perhaps fenced": the slot decides, a guest sees no EIO. */
static void reservation_conflict_closes_the_gate(void)
{
	world_run(body_conflict, false);
}

static void drain_thread(void *arg)
{
	struct world *w = arg;

	sleep_ms(w, 50);
	fake_complete(&w->fake, 0);
}

static void body_drain(struct world *w)
{
	struct env_thread *thread;
	struct request wr;
	uint64_t start;

	renew_ms(w, 1000);
	request_submit(&wr, w->dev, BLK_WRITE);
	gate_close(w->gate);
	CU_ASSERT_EQUAL(gate_drain(w->gate, env_now_ns(w->env) + 10 * MSEC), -ETIMEDOUT);
	start = env_now_ns(w->env);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "complete", drain_thread, w, &thread), 0);
	CU_ASSERT_EQUAL(gate_drain(w->gate, ENV_FOREVER), 0);
	CU_ASSERT(env_now_ns(w->env) >= start + 50 * MSEC);
	CU_ASSERT_EQUAL(wr.done, 0);	/* executed, but the lease is void */
	env_thread_join(w->env, thread);
	renew_ms(w, 1000);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(wr.done, 1);
}

/* Registering again while a command of before is under way would let that one land. */
static void drain_waits_for_the_device(void)
{
	world_run(body_drain, false);
}

static void renew_thread(void *arg)
{
	struct world *w = arg;

	sleep_ms(w, 500);
	renew_ms(w, 1000);
}

static void body_run(struct world *w)
{
	struct env_thread *thread;
	uint64_t start = env_now_ns(w->env);

	/* Waits for the lease; then a write that outlives it waits for the next. */
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "renew", renew_thread, w, &thread), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->dev, 0, data, sizeof(data)), 0);
	CU_ASSERT(env_now_ns(w->env) >= start + 500 * MSEC);
	CU_ASSERT_EQUAL(w->fake.runs, 1);
	env_thread_join(w->env, thread);

	renew_ms(w, 100);
	w->fake.run_ns = 200 * MSEC;
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "renew", renew_thread, w, &thread), 0);
	start = env_now_ns(w->env);
	CU_ASSERT_EQUAL(blkdev_write(w->dev, 0, data, sizeof(data)), 0);
	CU_ASSERT(env_now_ns(w->env) >= start + 500 * MSEC);
	CU_ASSERT_EQUAL(w->fake.runs, 2);
	env_thread_join(w->env, thread);

	renew_ms(w, 100);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "renew", renew_thread, w, &thread), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->dev, 0, data, sizeof(data)), 0);
	CU_ASSERT_EQUAL(w->fake.runs, 4);	/* the read was repeated */
	env_thread_join(w->env, thread);
}

/* The synchronous way must obey the same rules, or metadata would escape the lease. */
static void waiting_callers_obey_the_lease(void)
{
	world_run(body_run, true);
}

static void fail_thread(void *arg)
{
	struct world *w = arg;

	sleep_ms(w, 500);
	gate_fail(w->gate);
}

static void body_run_fail(struct world *w)
{
	struct env_thread *thread;

	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "fail", fail_thread, w, &thread), 0);
	CU_ASSERT_EQUAL(blkdev_flush(w->dev), -ESTALE);
	CU_ASSERT_EQUAL(w->fake.runs, 0);
	env_thread_join(w->env, thread);
}

static void waiting_callers_end_on_failure(void)
{
	world_run(body_run_fail, true);
}

static void body_run_conflict(struct world *w)
{
	struct env_thread *thread;

	renew_ms(w, 1000);
	w->fake.run_err_once = -EBADE;
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w->env, "renew", renew_thread, w, &thread), 0);
	CU_ASSERT_EQUAL(blkdev_write(w->dev, 0, data, sizeof(data)), 0);
	CU_ASSERT_EQUAL(w->fake.runs, 2);
	CU_ASSERT_TRUE(gate_take_conflict(w->gate));
	env_thread_join(w->env, thread);
	w->fake.run_err = -EIO;
	CU_ASSERT_EQUAL(blkdev_write(w->dev, 0, data, sizeof(data)), -EIO);
}

static void waiting_callers_sit_out_a_conflict(void)
{
	world_run(body_run_conflict, true);
}

static void body_faults(struct world *w)
{
	struct gate_fault f = { .count = 7 };
	struct request a, b, c;

	renew_ms(w, 1000);
	CU_ASSERT_FALSE(gate_take_fault(w->gate, &f));
	CU_ASSERT_EQUAL(f.count, 7);
	request_submit(&a, w->dev, BLK_WRITE);
	request_submit(&b, w->dev, BLK_READ);
	request_submit(&c, w->dev, BLK_ZERO);
	fake_complete(&w->fake, -EIO);
	fake_complete(&w->fake, -ETIMEDOUT);
	fake_complete(&w->fake, -ENOTSUP);
	CU_ASSERT_TRUE_FATAL(gate_take_fault(w->gate, &f));
	CU_ASSERT(f.count == 2 && f.op == BLK_WRITE && f.err == -EIO && f.len == sizeof(data));
	CU_ASSERT_FALSE(gate_take_fault(w->gate, &f));
	w->fake.run_err = -ENOSPC;
	CU_ASSERT_EQUAL(blkdev_write(w->dev, 512, data, sizeof(data)), -ENOSPC);
	CU_ASSERT_TRUE_FATAL(gate_take_fault(w->gate, &f));
	CU_ASSERT(f.count == 1 && f.off == 512 && f.err == -ENOSPC);
}

/* Programs saw EIO while the log said nothing of the device that had failed. */
static void faults_of_the_device_are_noted(void)
{
	world_run(body_faults, true);
}

static void body_lease_is_told(struct world *w)
{
	uint64_t until = env_now_ns(w->env) + 70 * MSEC;

	gate_renew(w->gate, until);
	CU_ASSERT_EQUAL(w->fake.lease_ns, until);
	gate_close(w->gate);	/* what is under way goes on */
	CU_ASSERT_EQUAL(w->fake.lease_ns, until);
	gate_cut(w->gate);
	CU_ASSERT_EQUAL(w->fake.lease_ns, 0);
	CU_ASSERT_FALSE(gate_is_valid(w->gate));
	gate_renew(w->gate, until);
	gate_fail(w->gate);
	CU_ASSERT_EQUAL(w->fake.lease_ns, 0);
	gate_renew(w->gate, until + 1);
	CU_ASSERT_EQUAL(w->fake.lease_ns, 0);	/* lost is lost */
}

/* A device behind a network cuts its connections by itself when the lease ends. */
static void the_device_is_told_the_lease(void)
{
	world_run(body_lease_is_told, false);
}

static void body_path_lost(struct world *w)
{
	struct request wr, flush;

	renew_ms(w, 100);
	request_submit(&wr, w->dev, BLK_WRITE);
	sleep_ms(w, 200);
	fake_complete(&w->fake, -ECONNRESET);
	sleep_ms(w, 50);
	CU_ASSERT_EQUAL(wr.done, 0);
	CU_ASSERT_EQUAL(w->fake.submitted, 1);	/* not without a lease */
	renew_ms(w, 1000);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, -ECONNRESET);	/* and once more, with a lease */
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.submitted, 3);
	fake_complete(&w->fake, 0);
	CU_ASSERT(wr.done == 1 && wr.err == 0);
	request_submit(&flush, w->dev, BLK_FLUSH);
	fake_complete(&w->fake, -ECONNRESET);
	gate_fail(w->gate);
	sleep_ms(w, 1);
	CU_ASSERT(flush.done == 1 && flush.err == -ESTALE);
	CU_ASSERT_EQUAL(w->fake.submitted, 4);
}

/* R2: after a reconnect nothing is sent again that has not passed the lease. */
static void a_command_whose_path_was_lost_passes_the_gate_again(void)
{
	world_run(body_path_lost, false);
}

static _Atomic uint64_t guard_word;

/* What is inside holds the word until it is out, or the backend says that nothing of it can be sent. */
static void body_guard(struct world *w)
{
	struct request wr;

	gate_set_guard(w->gate, &guard_word, 500 * MSEC);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), 0);
	renew_ms(w, 1000);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), gate_until_ns(w->gate) + 500 * MSEC);
	sleep_ms(w, 1100);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), 0);	/* lapsed, and nothing was inside */
	renew_ms(w, 1000);
	request_submit(&wr, w->dev, BLK_WRITE);
	sleep_ms(w, 1100);
	CU_ASSERT_EQUAL(w->fake.lease_ns, 0);		/* it was told to cut what it has */
	CU_ASSERT_NOT_EQUAL(atomic_load(&guard_word), 0);
	w->fake.silent = true;
	sleep_ms(w, 20);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), 0);
	w->fake.silent = false;
	renew_ms(w, 1000);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), gate_until_ns(w->gate) + 500 * MSEC);
	gate_fail(w->gate);
	sleep_ms(w, 1200);
	CU_ASSERT_NOT_EQUAL(atomic_load(&guard_word), 0);	/* lost is not the same as silent */
	fake_complete(&w->fake, 0);
	sleep_ms(w, 20);
	CU_ASSERT_EQUAL(atomic_load(&guard_word), 0);
	CU_ASSERT_EQUAL(wr.done, 1);
}

/* Rung B: who could still send something has its word standing; who merely waits has not. */
static void the_guard_is_told_until_when_commands_may_be_sent(void)
{
	world_run(body_guard, false);
}

UNIT_MAIN("lockd/gate",
	  UNIT_TEST(the_guard_is_told_until_when_commands_may_be_sent),
	  UNIT_TEST(faults_of_the_device_are_noted),
	  UNIT_TEST(the_device_is_told_the_lease),
	  UNIT_TEST(a_command_whose_path_was_lost_passes_the_gate_again),
	  UNIT_TEST(commands_wait_for_the_lease),
	  UNIT_TEST(lease_lapses_by_itself),
	  UNIT_TEST(late_results_wait_and_reads_are_repeated),
	  UNIT_TEST(read_is_repeated_until_the_lease_holds),
	  UNIT_TEST(after_failure_everything_is_stale),
	  UNIT_TEST(reservation_conflict_closes_the_gate),
	  UNIT_TEST(drain_waits_for_the_device),
	  UNIT_TEST(waiting_callers_obey_the_lease),
	  UNIT_TEST(waiting_callers_end_on_failure),
	  UNIT_TEST(waiting_callers_sit_out_a_conflict));
