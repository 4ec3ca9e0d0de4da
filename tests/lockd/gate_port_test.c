/* SPDX-License-Identifier: Apache-2.0 */
/* A polled port of the lease gate, on a device whose every command the test completes. */
#include "lockd/gate.h"

#include <errno.h>

#include "base/env_sim.h"
#include "tests/unit.h"

#define MSEC	NSEC_PER_MSEC

struct fake {
	struct blkdev dev;
	struct list held;	/* inside the device */
	struct list completed;	/* to be collected by poll */
	unsigned int submitted;
	unsigned int wakes;
};

static struct fake *fake_of(struct blkdev *dev)
{
	return container_of(dev, struct fake, dev);
}

static void fake_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct fake *f = fake_of(dev);

	for (unsigned int i = 0; i < count; i++) {
		list_add_tail(&f->held, &ios[i]->node);
		f->submitted++;
	}
}

static void fake_complete(struct fake *f, int err)
{
	struct blk_io *io;

	CU_ASSERT_FALSE_FATAL(list_empty(&f->held));
	io = list_first(&f->held, struct blk_io, node);
	list_del(&io->node);
	io->priv[0] = (uint64_t)(int64_t)err;
	list_add_tail(&f->completed, &io->node);
}

static unsigned int fake_poll(struct blkdev *dev)
{
	struct fake *f = fake_of(dev);
	unsigned int count = 0;

	for (; !list_empty(&f->completed); count++) {
		struct blk_io *io = list_first(&f->completed, struct blk_io, node);

		list_del(&io->node);
		io->done(io, (int)(int64_t)io->priv[0]);
	}
	return count;
}

static int fake_poll_fd(struct blkdev *dev)
{
	(void)dev;
	return 77;
}

static void fake_wake(struct blkdev *dev)
{
	fake_of(dev)->wakes++;
}

static void fake_close(struct blkdev *dev)
{
	(void)dev;
}

static const struct blkdev_ops fake_ops = {
	.submit = fake_submit, .poll = fake_poll, .poll_fd = fake_poll_fd, .wake = fake_wake,
	.close = fake_close,
};

struct request {
	struct blk_io io;
	struct iovec iov;
	unsigned int done;
	int err;
};

static bool collecting;
static unsigned int misplaced;

static void request_done(struct blk_io *io, int err)
{
	struct request *r = container_of(io, struct request, io);

	CU_ASSERT_EQUAL(io->arg, (void *)r);
	misplaced += !collecting;
	r->done++;
	r->err = err;
}

static uint8_t data[512] __attribute__((aligned(4096)));

struct world {
	struct sim *sim;
	struct env *env;
	struct fake main_fake;
	struct fake fake;
	struct gate *gate;
	struct blkdev *dev;	/* the port */
	void (*body)(struct world *w);
	bool ended;
};

static void request_submit(struct world *w, struct request *r, enum blk_op op)
{
	struct blk_io *io = &r->io;

	memset(r, 0, sizeof(*r));
	r->iov = (struct iovec){ .iov_base = data, .iov_len = sizeof(data) };
	*io = (struct blk_io){ .op = op, .len = sizeof(data), .iov = &r->iov, .iovcnt = 1,
			       .done = request_done, .arg = r };
	collecting = true;
	blkdev_submit(w->dev, &io, 1);
	collecting = false;
}

static unsigned int poll_port(struct world *w)
{
	unsigned int n;

	collecting = true;
	n = blkdev_poll(w->dev);
	collecting = false;
	return n;
}

static void sleep_ms(struct world *w, uint64_t ms)
{
	env_sleep_until(w->env, env_now_ns(w->env) + ms * MSEC);
}

static void renew_ms(struct world *w, uint64_t ms)
{
	gate_renew(w->gate, env_now_ns(w->env) + ms * MSEC);
}

static void world_thread(void *arg)
{
	struct world *w = arg;

	CU_ASSERT_EQUAL_FATAL(gate_new(w->env, &w->main_fake.dev, &w->gate), 0);
	CU_ASSERT_EQUAL_FATAL(gate_port_new(w->gate, &w->fake.dev, &w->dev), 0);
	CU_ASSERT_EQUAL(blkdev_poll_fd(w->dev), 77);
	misplaced = 0;
	w->body(w);
	CU_ASSERT_EQUAL(misplaced, 0);	/* never by the gate's own threads */
	blkdev_close(w->dev);
	gate_free(w->gate);
	w->ended = true;
}

static void fake_init(struct fake *f, struct env *env)
{
	f->dev = (struct blkdev){
		.ops = &fake_ops, .env = env,
		.info = { .size = 1 << 20, .sector = 512, .mem_align = 512, .io_max = 1 << 20 },
	};
	list_init(&f->held);
	list_init(&f->completed);
}

static void world_run(void (*body)(struct world *w))
{
	struct world w = { .body = body };
	struct env_thread *thread;

	w.sim = sim_new(1);
	w.env = sim_host(w.sim, "alpha");
	fake_init(&w.main_fake, w.env);
	fake_init(&w.fake, w.env);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(w.env, "test", world_thread, &w, &thread), 0);
	CU_ASSERT_TRUE(sim_run(w.sim, 3600 * NSEC_PER_SEC));
	env_thread_join(w.env, thread);
	CU_ASSERT_TRUE(w.ended);
	sim_free(w.sim);
}

static void body_waits(struct world *w)
{
	struct request a, b;

	request_submit(w, &a, BLK_WRITE);
	request_submit(w, &b, BLK_READ);
	CU_ASSERT_EQUAL(poll_port(w), 0);
	CU_ASSERT_EQUAL(w->fake.submitted, 0);
	CU_ASSERT_EQUAL(w->fake.wakes, 0);
	CU_ASSERT_EQUAL(gate_stalls(w->gate), 2);
	renew_ms(w, 1000);
	sleep_ms(w, 1);
	CU_ASSERT_EQUAL(w->fake.wakes, 1);	/* the owner is called, nobody does it for it */
	CU_ASSERT_EQUAL(w->fake.submitted, 0);
	CU_ASSERT_EQUAL(poll_port(w), 2);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, 0);
	fake_complete(&w->fake, -EIO);
	CU_ASSERT_EQUAL(poll_port(w), 2);
	CU_ASSERT(a.done == 1 && a.err == 0);
	CU_ASSERT(b.done == 1 && b.err == -EIO);
	renew_ms(w, 1000);
	CU_ASSERT_EQUAL(w->fake.wakes, 1);	/* nothing waits: an idle reactor sleeps on */
	CU_ASSERT_EQUAL(w->main_fake.submitted, 0);
}

/* R2, and that a stalled request goes on after the stall although the owner sleeps. */
static void port_waits_for_the_lease_and_is_woken(void)
{
	world_run(body_waits);
}

static void body_late(struct world *w)
{
	struct request rd, wr, bad;

	renew_ms(w, 100);
	request_submit(w, &rd, BLK_READ);
	request_submit(w, &wr, BLK_WRITE);
	request_submit(w, &bad, BLK_WRITE);
	sleep_ms(w, 200);
	for (int i = 0; i < 3; i++)
		fake_complete(&w->fake, i == 2 ? -EIO : 0);
	CU_ASSERT_EQUAL(poll_port(w), 3);
	CU_ASSERT(!rd.done && !wr.done && !bad.done);
	renew_ms(w, 100);
	poll_port(w);
	CU_ASSERT(wr.done == 1 && wr.err == 0);
	CU_ASSERT(bad.done == 1 && bad.err == -EIO);
	CU_ASSERT(!rd.done);
	CU_ASSERT_EQUAL(w->fake.submitted, 4);
	sleep_ms(w, 200);
	fake_complete(&w->fake, 0);
	poll_port(w);
	CU_ASSERT(!rd.done);	/* lapsed once more */
	renew_ms(w, 100);
	poll_port(w);
	fake_complete(&w->fake, 0);
	poll_port(w);
	CU_ASSERT(rd.done == 1 && rd.err == 0);
}

static void late_results_of_a_port_wait_and_reads_are_repeated(void)
{
	world_run(body_late);
}

static void body_failed(struct world *w)
{
	struct request waiting, inside, after;

	renew_ms(w, 100);
	request_submit(w, &inside, BLK_WRITE);
	sleep_ms(w, 200);
	request_submit(w, &waiting, BLK_WRITE);
	gate_fail(w->gate);
	CU_ASSERT_EQUAL(w->fake.wakes, 1);
	CU_ASSERT_EQUAL(waiting.done, 0);
	poll_port(w);
	CU_ASSERT(waiting.done == 1 && waiting.err == -ESTALE);
	fake_complete(&w->fake, 0);
	poll_port(w);
	CU_ASSERT(inside.done == 1 && inside.err == -ESTALE);
	request_submit(w, &after, BLK_READ);
	CU_ASSERT(after.done == 1 && after.err == -ESTALE);
	CU_ASSERT_EQUAL(w->fake.submitted, 1);
}

static void after_failure_everything_of_a_port_is_stale(void)
{
	world_run(body_failed);
}

static void body_drain(struct world *w)
{
	struct request wr;

	renew_ms(w, 1000);
	request_submit(w, &wr, BLK_WRITE);
	gate_close(w->gate);
	CU_ASSERT_EQUAL(gate_drain(w->gate, env_now_ns(w->env) + 10 * MSEC), -ETIMEDOUT);
	fake_complete(&w->fake, -EBADE);
	poll_port(w);
	CU_ASSERT_EQUAL(gate_drain(w->gate, env_now_ns(w->env) + 10 * MSEC), 0);
	CU_ASSERT_TRUE(gate_take_conflict(w->gate));
	CU_ASSERT_EQUAL(wr.done, 0);
	renew_ms(w, 1000);
	poll_port(w);
	CU_ASSERT_EQUAL(w->fake.submitted, 2);
	fake_complete(&w->fake, 0);
	poll_port(w);
	CU_ASSERT(wr.done == 1 && wr.err == 0);
}

/* A host that registers again must know of the commands of all its paths. */
static void drain_waits_for_the_ports(void)
{
	world_run(body_drain);
}

static void body_reservations(struct world *w)
{
	struct blkdev *dev = NULL;

	w->fake.dev.info.reservations = true;
	CU_ASSERT_EQUAL(gate_port_new(w->gate, &w->fake.dev, &dev), -ENOTSUP);
	CU_ASSERT_PTR_NULL(dev);
}

/* Its path would not be registered, and its writes refused by the LUN. */
static void device_with_reservations_gets_no_port(void)
{
	world_run(body_reservations);
}

UNIT_MAIN("lockd/gate_port",
	  UNIT_TEST(port_waits_for_the_lease_and_is_woken),
	  UNIT_TEST(late_results_of_a_port_wait_and_reads_are_repeated),
	  UNIT_TEST(after_failure_everything_of_a_port_is_stale),
	  UNIT_TEST(drain_waits_for_the_ports),
	  UNIT_TEST(device_with_reservations_gets_no_port));
