/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a request travels:
 *
 *   submit ── lease valid ──► lower device ── completed, lease valid ──► done(result)
 *      │                         ▲   │
 *      │ lapsed            again │   │ lapsed: a read is repeated, any other result is kept
 *      └────► waiting list ──────┘◄──┘
 *                 │ released by the gate's own thread once the lease is valid again;
 *                 └ after gate_fail() with -ESTALE
 *
 * The heartbeat only sets a number and wakes that thread: submitting what has piled up may
 * take long and must not delay the next beat.
 */
#include "lockd/gate_internal.h"

#include <errno.h>
#include <stdlib.h>

bool gate_is_valid(struct gate *g)
{
	/* R2: "valid until" excludes the instant itself. */
	return env_now_ns(g->env) < atomic_load(&g->until_ns);
}

bool gate_has_failed(struct gate *g)
{
	return atomic_load(&g->failed);
}

uint64_t gate_until_ns(struct gate *g)
{
	return atomic_load(&g->until_ns);
}

uint64_t gate_stalls(struct gate *g)
{
	return atomic_load(&g->stalls);
}

bool gate_take_conflict(struct gate *g)
{
	return atomic_exchange(&g->conflict, false);
}

/* A reservation conflict was not executed: close, so that the heartbeat finds out why. */
static void gate_note_conflict(struct gate *g)
{
	atomic_store(&g->conflict, true);
	gate_close(g);
}

bool gate_take_fault(struct gate *g, struct gate_fault *fault)
{
	bool any;

	env_mutex_lock(g->env, &g->mutex);
	any = g->fault.count != 0;
	if (any)
		*fault = g->fault;
	g->fault.count = 0;
	env_mutex_unlock(g->env, &g->mutex);
	return any;
}

/* @err is what the device made of @io. */
static void gate_note_result(struct gate *g, const struct blk_io *io, int err)
{
	if (err != -EIO && err != -ETIMEDOUT && err != -ENOSPC && err != -EROFS)
		return;
	env_mutex_lock(g->env, &g->mutex);
	if (!g->fault.count++) {
		g->fault.op = io->op;
		g->fault.off = io->off;
		g->fault.len = io->len;
		g->fault.err = err;
	}
	env_mutex_unlock(g->env, &g->mutex);
}

/* ---- asynchronous requests ---- */

void gate_finish(struct blkdev *dev, struct blk_io *io, int err)
{
	io->done = (void (*)(struct blk_io *, int))(uintptr_t)io->gate_priv[GATE_DONE];
	io->dev = dev;
	io->done(io, err);
}

void gate_prepare(void *self, struct blk_io *io, void (*done)(struct blk_io *io, int err))
{
	io->gate_priv[GATE_DONE] = (uint64_t)(uintptr_t)io->done;
	io->gate_priv[GATE_SELF] = (uint64_t)(uintptr_t)self;
	io->done = done;
}

bool gate_judge(struct gate *g, const struct blk_io *io, int err, enum gate_step *step)
{
	/*
	 * A conflict was not executed.  Of a lost path the backend says so only when nothing of
	 * the command can land any more, and if doing it twice is the same as once (R1: nobody
	 * else writes there): it goes the way of every command again, lease first.
	 */
	bool again = err == -EBADE || err == -ECONNRESET;

	gate_note_result(g, io, err);
	if (err == -EBADE)
		gate_note_conflict(g);
	*step = again || io->op == BLK_READ ? STEP_SUBMIT : STEP_RESULT;
	return !again && gate_may_finish(g);
}

/* Puts @io on the waiting list, unless the gate has failed: then it is the caller's to end. */
static bool gate_wait(struct gate *g, struct blk_io *io, enum gate_step step, int err)
{
	bool failed;

	io->gate_priv[GATE_STEP] = step;
	io->gate_priv[GATE_ERR] = (uint64_t)(int64_t)err;
	env_mutex_lock(g->env, &g->mutex);
	failed = atomic_load(&g->failed);
	if (!failed) {
		atomic_fetch_add(&g->stalls, 1);
		list_add_tail(&g->waiting, &io->node);
		/* The lease may have been renewed since the caller looked. */
		env_cond_broadcast(g->env, &g->changed);
	}
	env_mutex_unlock(g->env, &g->mutex);
	return !failed;
}

/* Completion from the lower device. */
static void gate_done(struct blk_io *io, int err)
{
	struct gate *g = (struct gate *)(uintptr_t)io->gate_priv[GATE_SELF];
	enum gate_step step;

	if (gate_judge(g, io, err, &step))
		gate_finish(&g->dev, io, err);
	else if (!gate_wait(g, io, step, err))
		gate_finish(&g->dev, io, -ESTALE);
	/* Last: gate_free() waits for it. */
	atomic_fetch_sub(&g->inflight, 1);
}

static void gate_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct gate *g = container_of(dev, struct gate, dev);

	for (unsigned int i = 0; i < count; i++)
		gate_prepare(g, ios[i], gate_done);
	/* Counted before looking: gate_drain() closes first and counts then. */
	atomic_fetch_add(&g->inflight, count);
	if (gate_is_open(g)) {
		blkdev_submit(g->lower, ios, count);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		if (!gate_wait(g, ios[i], STEP_SUBMIT, 0))
			gate_finish(&g->dev, ios[i], -ESTALE);
	atomic_fetch_sub(&g->inflight, count);
}

/* Sends one request of the waiting list on its way. */
static void gate_release(struct gate *g, struct blk_io *io)
{
	int err = (int)(int64_t)io->gate_priv[GATE_ERR];

	if (gate_has_failed(g)) {
		gate_finish(&g->dev, io, -ESTALE);
		return;
	}
	if (io->gate_priv[GATE_STEP] == STEP_RESULT) {
		if (gate_is_valid(g))
			gate_finish(&g->dev, io, err);
		else if (!gate_wait(g, io, STEP_RESULT, err))
			gate_finish(&g->dev, io, -ESTALE);
		return;
	}
	atomic_fetch_add(&g->inflight, 1);
	if (gate_is_open(g)) {
		blkdev_submit(g->lower, &io, 1);
		return;
	}
	if (!gate_wait(g, io, STEP_SUBMIT, 0))
		gate_finish(&g->dev, io, -ESTALE);
	atomic_fetch_sub(&g->inflight, 1);
}

static void gate_thread(void *arg)
{
	struct gate *g = arg;
	struct list ready;
	struct blk_io *io, *tmp;

	list_init(&ready);
	env_mutex_lock(g->env, &g->mutex);
	for (;;) {
		bool go = gate_has_failed(g) || gate_is_valid(g);

		if (go && !list_empty(&g->waiting)) {
			list_splice_tail(&ready, &g->waiting);
			env_mutex_unlock(g->env, &g->mutex);
			list_for_each(io, tmp, &ready, node) {
				list_del(&io->node);
				gate_release(g, io);
			}
			env_mutex_lock(g->env, &g->mutex);
			continue;
		}
		if (g->ending)
			break;
		env_cond_wait(g->env, &g->changed, &g->mutex, gate_disarm(g));
	}
	env_mutex_unlock(g->env, &g->mutex);
}

/* ---- requests in the caller's thread ---- */

int gate_wait_valid(struct gate *g)
{
	int err = 0;

	if (gate_is_open(g))
		return 0;
	atomic_fetch_add(&g->stalls, 1);
	env_mutex_lock(g->env, &g->mutex);
	while (!gate_is_open(g)) {
		if (gate_has_failed(g)) {
			err = -ESTALE;
			break;
		}
		env_cond_wait(g->env, &g->changed, &g->mutex, ENV_FOREVER);
	}
	env_mutex_unlock(g->env, &g->mutex);
	return err;
}

/* One try with the lease valid before it.  Return: false if it lapsed and nothing was tried. */
static bool gate_run_once(struct gate *g, struct blk_io *io, int *err)
{
	bool valid;

	atomic_fetch_add(&g->inflight, 1);
	valid = gate_is_open(g);
	if (valid) {
		io->dev = g->lower;
		*err = g->lower->ops->run(g->lower, io);
		io->dev = &g->dev;
		gate_note_result(g, io, *err);
	}
	atomic_fetch_sub(&g->inflight, 1);
	return valid;
}

static int gate_run(struct blkdev *dev, struct blk_io *io)
{
	struct gate *g = container_of(dev, struct gate, dev);
	int err, lost;

	for (;;) {
		lost = gate_wait_valid(g);
		if (lost)
			return lost;
		if (!gate_run_once(g, io, &err))
			continue;
		if (err == -EBADE) {
			gate_note_conflict(g);
			continue;
		}
		if (gate_may_finish(g))
			return err;
		if (io->op == BLK_READ)
			continue;
		lost = gate_wait_valid(g);
		return lost ? lost : err;
	}
}

/* ---- the rest of the device ---- */

static int gate_drain_lower(struct blkdev *dev)
{
	return blkdev_drain(container_of(dev, struct gate, dev)->lower);
}

static int gate_refresh(struct blkdev *dev)
{
	struct gate *g = container_of(dev, struct gate, dev);
	int err;

	err = blkdev_refresh(g->lower);
	if (err)
		return err;
	blkdev_set_size(dev, blkdev_size(g->lower));
	gate_ports_grew(g, blkdev_size(g->lower));
	return 0;
}

static int gate_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct blkdev *lower = container_of(dev, struct gate, dev)->lower;

	return lower->ops->pr_register(lower, old_key, new_key);
}

static int gate_pr_reserve(struct blkdev *dev, uint64_t key)
{
	struct blkdev *lower = container_of(dev, struct gate, dev)->lower;

	return lower->ops->pr_reserve(lower, key);
}

static int gate_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	struct blkdev *lower = container_of(dev, struct gate, dev)->lower;

	return lower->ops->pr_preempt_abort(lower, key, victim);
}

static int gate_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct blkdev *lower = container_of(dev, struct gate, dev)->lower;

	return lower->ops->pr_read(lower, state);
}

static void gate_blkdev_close(struct blkdev *dev)
{
	(void)dev;	/* gate_free() ends it */
}

/* The gate can what the lower device can. */
static void gate_init_ops(struct gate *g)
{
	const struct blkdev_ops *lower = g->lower->ops;

	g->ops.submit = gate_submit;
	g->ops.run = lower->run ? gate_run : NULL;
	g->ops.drain = gate_drain_lower;
	g->ops.refresh = lower->refresh ? gate_refresh : NULL;
	if (lower->pr_register) {
		g->ops.pr_register = gate_pr_register;
		g->ops.pr_reserve = gate_pr_reserve;
		g->ops.pr_preempt_abort = gate_pr_preempt_abort;
		g->ops.pr_read = gate_pr_read;
	}
	g->ops.close = gate_blkdev_close;
}

/* ---- the lease ---- */

static void gate_wake(struct gate *g)
{
	env_mutex_lock(g->env, &g->mutex);
	env_cond_broadcast(g->env, &g->changed);
	env_mutex_unlock(g->env, &g->mutex);
}

void gate_renew(struct gate *g, uint64_t until_ns)
{
	env_mutex_lock(g->env, &g->mutex);
	/* Under the mutex: a gate that failed stays shut, whoever races. */
	if (!gate_has_failed(g)) {
		gate_arm(g, until_ns);
		atomic_store(&g->until_ns, until_ns);
		gate_tell(g->lower, until_ns);
	}
	gate_wake_ports(g);
	env_cond_broadcast(g->env, &g->changed);
	env_mutex_unlock(g->env, &g->mutex);
}

void gate_close(struct gate *g)
{
	atomic_store(&g->until_ns, 0);
}

void gate_cut(struct gate *g)
{
	env_mutex_lock(g->env, &g->mutex);
	gate_close(g);
	gate_tell(g->lower, 0);
	gate_wake_ports(g);
	env_mutex_unlock(g->env, &g->mutex);
}

void gate_fail(struct gate *g)
{
	env_mutex_lock(g->env, &g->mutex);
	atomic_store(&g->failed, true);
	atomic_store(&g->until_ns, 0);
	gate_tell(g->lower, 0);
	gate_wake_ports(g);
	env_cond_broadcast(g->env, &g->changed);
	env_mutex_unlock(g->env, &g->mutex);
}

int gate_drain(struct gate *g, uint64_t deadline_ns)
{
	uint64_t now;

	/* Completions do not signal (they would need the mutex): look again each millisecond. */
	while (atomic_load(&g->inflight) != 0 || gate_ports_inflight(g) != 0) {
		now = env_now_ns(g->env);
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		env_sleep_until(g->env, now + NSEC_PER_MSEC);
	}
	return 0;
}

struct blkdev *gate_blkdev(struct gate *g)
{
	return &g->dev;
}

int gate_new(struct env *env, struct blkdev *lower, struct gate **out)
{
	struct gate *g;
	int err;

	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->env = env;
	g->lower = lower;
	gate_init_ops(g);
	g->dev = (struct blkdev){ .ops = &g->ops, .env = env, .info = lower->info };
	env_mutex_init(env, &g->mutex);
	env_cond_init(env, &g->changed);
	list_init(&g->waiting);
	list_init(&g->ports);
	err = env_thread_start(env, "lunfs-gate", gate_thread, g, &g->thread);
	if (err)
		goto free_gate;
	*out = g;
	return 0;

free_gate:
	env_cond_fini(env, &g->changed);
	env_mutex_fini(env, &g->mutex);
	free(g);
	return err;
}

void gate_free(struct gate *g)
{
	struct env *env;

	if (!g)
		return;
	env = g->env;
	gate_fail(g);
	/* Nothing may come back from the lower device to a gate that is gone. */
	gate_drain(g, ENV_FOREVER);
	env_mutex_lock(env, &g->mutex);
	if (g->guard)
		atomic_store(g->guard, 0);
	g->ending = true;
	env_mutex_unlock(env, &g->mutex);
	gate_wake(g);
	env_thread_join(env, g->thread);
	assert(list_empty(&g->waiting) && list_empty(&g->ports));
	gate_tell(g->lower, UINT64_MAX);
	env_cond_fini(env, &g->changed);
	env_mutex_fini(env, &g->mutex);
	free(g);
}
