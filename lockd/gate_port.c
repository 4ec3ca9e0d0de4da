/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port: the gate as one reactor's polled device.  All but the two words that the gate's
 * threads read or write (inflight, stalled) belongs to the reactor's thread.
 *
 * No wake-up is lost: the port sets "stalled" and then looks at the lease once more; a
 * renewal sets the lease and then looks at "stalled".
 */
#include "lockd/gate_internal.h"

#include <errno.h>
#include <stdlib.h>

#define RELEASE_BATCH	64u

struct gate_port {
	struct blkdev	dev;
	struct blkdev_ops ops;
	struct gate	*gate;
	struct blkdev	*lower;
	struct list	node;		/* of gate->ports, under its mutex */
	_Atomic uint64_t inflight;	/* commands inside the lower device, or about to be */
	atomic_bool	stalled;	/* something waits that no renewal has called for yet */
	struct list	waiting;
};

static struct gate_port *gate_port(struct blkdev *dev)
{
	return container_of(dev, struct gate_port, dev);
}

void gate_wake_ports(struct gate *g)
{
	struct gate_port *p, *tmp;

	list_for_each(p, tmp, &g->ports, node) {
		gate_tell(p->lower, atomic_load(&g->until_ns));
		if (atomic_exchange(&p->stalled, false))
			blkdev_wake(p->lower);
	}
}

void gate_tell_ports(struct gate *g, uint64_t until_ns)
{
	struct gate_port *p, *tmp;

	list_for_each(p, tmp, &g->ports, node)
		gate_tell(p->lower, until_ns);
}

bool gate_port_at(struct gate *g, unsigned int index, struct blkdev **lower, uint64_t *inflight)
{
	struct gate_port *p, *tmp;

	list_for_each(p, tmp, &g->ports, node) {
		if (index--)
			continue;
		*lower = p->lower;
		*inflight = atomic_load(&p->inflight);
		return true;
	}
	return false;
}

/* Their handles are of the same device; a reactor does not stop to ask. */
void gate_ports_grew(struct gate *g, uint64_t size)
{
	struct gate_port *p, *tmp;

	env_mutex_lock(g->env, &g->mutex);
	list_for_each(p, tmp, &g->ports, node) {
		blkdev_set_size(p->lower, size);
		blkdev_set_size(&p->dev, size);
	}
	env_mutex_unlock(g->env, &g->mutex);
}

uint64_t gate_ports_inflight(struct gate *g)
{
	struct gate_port *p, *tmp;
	uint64_t sum = 0;

	env_mutex_lock(g->env, &g->mutex);
	list_for_each(p, tmp, &g->ports, node)
		sum += atomic_load(&p->inflight);
	env_mutex_unlock(g->env, &g->mutex);
	return sum;
}

/* Keeps @io until the lease is valid again, or ends it if that will never be. */
static void port_wait(struct gate_port *p, struct blk_io *io, enum gate_step step, int err)
{
	struct gate *g = p->gate;

	if (gate_has_failed(g)) {
		gate_finish(&p->dev, io, -ESTALE);
		return;
	}
	io->gate_priv[GATE_STEP] = step;
	io->gate_priv[GATE_ERR] = (uint64_t)(int64_t)err;
	atomic_fetch_add(&g->stalls, 1);
	list_add_tail(&p->waiting, &io->node);
	atomic_store(&p->stalled, true);
	if (gate_is_valid(g) || gate_has_failed(g))
		blkdev_wake(p->lower);
}

/* Completion from the lower device: within its poll or submit, so in the owner's thread. */
static void port_done(struct blk_io *io, int err)
{
	struct gate_port *p = (struct gate_port *)(uintptr_t)io->gate_priv[GATE_SELF];
	enum gate_step step;

	if (gate_judge(p->gate, io, err, &step))
		gate_finish(&p->dev, io, err);
	else
		port_wait(p, io, step, err);
	atomic_fetch_sub(&p->inflight, 1);
}

/* Submits prepared requests, or keeps them if the lease is not valid. */
static void port_start(struct gate_port *p, struct blk_io **ios, unsigned int count)
{
	/* Counted before looking: gate_drain() closes first and counts then. */
	atomic_fetch_add(&p->inflight, count);
	if (gate_is_open(p->gate)) {
		blkdev_submit(p->lower, ios, count);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		port_wait(p, ios[i], STEP_SUBMIT, 0);
	atomic_fetch_sub(&p->inflight, count);
}

static void port_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct gate_port *p = gate_port(dev);

	for (unsigned int i = 0; i < count; i++)
		gate_prepare(p, ios[i], port_done);
	port_start(p, ios, count);
}

/* Sends what waits on its way, once.  Return: how many requests. */
static unsigned int port_release(struct gate_port *p)
{
	struct blk_io *batch[RELEASE_BATCH];
	struct list ready;
	unsigned int n = 0, count = 0;

	list_init(&ready);
	list_splice_tail(&ready, &p->waiting);
	for (; !list_empty(&ready); count++) {
		struct blk_io *io = list_first(&ready, struct blk_io, node);
		int err = (int)(int64_t)io->gate_priv[GATE_ERR];

		list_del(&io->node);
		if (gate_has_failed(p->gate)) {
			gate_finish(&p->dev, io, -ESTALE);
		} else if (io->gate_priv[GATE_STEP] == STEP_SUBMIT) {
			batch[n++] = io;
		} else if (gate_is_valid(p->gate)) {
			gate_finish(&p->dev, io, err);
		} else {
			port_wait(p, io, STEP_RESULT, err);
		}
		if (n == RELEASE_BATCH || (n && list_empty(&ready))) {
			port_start(p, batch, n);
			n = 0;
		}
	}
	return count;
}

static unsigned int port_poll(struct blkdev *dev)
{
	struct gate_port *p = gate_port(dev);
	unsigned int count = blkdev_poll(p->lower);

	if (!list_empty(&p->waiting) && (gate_is_valid(p->gate) || gate_has_failed(p->gate)))
		count += port_release(p);
	return count;
}

static int port_poll_fd(struct blkdev *dev)
{
	return blkdev_poll_fd(gate_port(dev)->lower);
}

static void port_wake(struct blkdev *dev)
{
	blkdev_wake(gate_port(dev)->lower);
}

/* In the thread of somebody who waits: the gate's own way. */
static int port_run(struct blkdev *dev, struct blk_io *io)
{
	struct gate *g = gate_port(dev)->gate;

	return g->ops.run(&g->dev, io);
}

static int port_refresh(struct blkdev *dev)
{
	struct gate_port *p = gate_port(dev);
	int err = blkdev_refresh(p->lower);

	if (!err)
		blkdev_set_size(dev, blkdev_size(p->lower));
	return err;
}

static void port_close(struct blkdev *dev)
{
	struct gate_port *p = gate_port(dev);
	struct gate *g = p->gate;

	while (atomic_load(&p->inflight) || !list_empty(&p->waiting))
		if (!port_poll(dev))
			env_sleep_until(g->env, env_now_ns(g->env) + NSEC_PER_MSEC);
	env_mutex_lock(g->env, &g->mutex);
	list_del(&p->node);
	gate_tell(p->lower, UINT64_MAX);
	env_mutex_unlock(g->env, &g->mutex);
	free(p);
}

int gate_port_new(struct gate *g, struct blkdev *lower, struct blkdev **out)
{
	struct gate_port *p;

	if (lower->info.reservations)
		return -ENOTSUP;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->ops = (struct blkdev_ops){
		.submit = port_submit,
		.run = g->ops.run ? port_run : NULL,
		.refresh = lower->ops->refresh ? port_refresh : NULL,
		.poll_fd = port_poll_fd,
		.poll = port_poll,
		.wake = port_wake,
		.close = port_close,
	};
	p->dev = (struct blkdev){ .ops = &p->ops, .env = g->env, .info = lower->info };
	p->gate = g;
	p->lower = lower;
	list_init(&p->waiting);
	env_mutex_lock(g->env, &g->mutex);
	list_add_tail(&g->ports, &p->node);
	gate_tell(lower, atomic_load(&g->until_ns));
	env_mutex_unlock(g->env, &g->mutex);
	*out = &p->dev;
	return 0;
}
