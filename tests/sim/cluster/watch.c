// SPDX-License-Identifier: Apache-2.0
/*
 * An own check of R2: what the lease gate lets through, in both directions.
 *
 *   fs ──► watch ──► gate ──► simulated device
 *            ▲                   ▲
 *            │ handed on          │ submitted
 *
 * When a lease ends is computed from what the LUN saw: a heartbeat that landed gives no more
 * than the lease's time from its submission, by the clock of the host that sent it.  The
 * watch gets between the filesystem and the gate at link time (--wrap), so that neither knows.
 */
#include "tests/sim/cluster/rules.h"

#include "lockd/gate.h"

enum watch_priv { WATCH_DONE = 6, WATCH_SELF = 7 };	/* of blk_io.priv: the device uses none */

struct watch {
	struct list node;
	struct blkdev dev;		/* what the filesystem gets */
	struct blkdev_ops ops;
	struct blkdev *below;		/* the gate */
	struct gate *gate;
	struct life *life;
};

static struct list watches;
static struct world *watched;		/* there is one world a process */

struct blkdev *__real_gate_blkdev(struct gate *g);
void __real_gate_free(struct gate *g);
struct blkdev *__wrap_gate_blkdev(struct gate *g);
void __wrap_gate_free(struct gate *g);

/* ---- when the lease ends ---- */

void watch_beat(struct world *w, struct life *life, const struct slot *s)
{
	uint64_t until;

	for (unsigned int i = 0; i < ARRAY_SIZE(life->beats); i++) {
		if (life->beats[i].sequence != s->sequence || life->beats[i].slot != s->index)
			continue;
		until = life->beats[i].sent_ns + w->super.timing.lease_ms * MSEC;
		if (until > life->lease_ns)
			life->lease_ns = until;
	}
}

static void note_beat(struct world *w, struct life *life, const struct blk_io *io)
{
	struct slot s;
	uint32_t index = (uint32_t)((io->off - w->super.slots_addr) / BLOCK_SIZE);

	if (slot_decode(io->iov[1].iov_base, w->super.volume, io->off, index, &s, NULL, 0))
		return;
	life->beats[life->beat_count++ % ARRAY_SIZE(life->beats)] = (struct beat){
		.slot = index, .sequence = s.sequence, .sent_ns = env_now_ns(life->env) };
}

static void submitted(void *arg, struct env *env, const struct blk_io *io)
{
	struct world *w = arg;
	struct life *life = life_of_dev(w, io->dev);
	uint64_t now = env_now_ns(env);

	if (!life)
		return;
	if (io->op == BLK_CAW &&
	    in_region(io->off, w->super.slots_addr, (uint64_t)w->super.slot_count * BLOCK_SIZE))
		note_beat(w, life, io);
	/* Before it has a slot a host reads the superblock and the slots. */
	if (io->dev != life->dev || life->slot == SLOT_NONE)
		return;
	w->counters[COUNT_check_submitted]++;
	if (now >= life->lease_ns)
		world_violation(w, "R2: life %u submits command %d at %#llx %llu ms after its lease",
				life->pid, (int)io->op, (unsigned long long)io->off,
				(unsigned long long)((now - life->lease_ns) / MSEC));
}

/* ---- what is handed on ---- */

static void watch_done(struct blk_io *io, int err)
{
	struct watch *wa = (struct watch *)(uintptr_t)io->priv[WATCH_SELF];
	struct life *life = wa->life;
	struct world *w = life->w;
	uint64_t now = env_now_ns(life->env);

	io->done = (void (*)(struct blk_io *, int))(uintptr_t)io->priv[WATCH_DONE];
	io->dev = &wa->dev;
	w->counters[err == -ESTALE ? COUNT_check_refused : COUNT_check_handed]++;
	if (err != -ESTALE && now >= life->lease_ns)
		world_violation(w, "R2: life %u is handed the result of command %d at %#llx %llu ms after "
				"its lease", life->pid, (int)io->op, (unsigned long long)io->off,
				(unsigned long long)((now - life->lease_ns) / MSEC));
	if (err != -ESTALE && life->fenced)
		world_violation(w, "R2: life %u is handed the result of command %d at %#llx, and its "
				"locks may be anybody's", life->pid, (int)io->op,
				(unsigned long long)io->off);
	io->done(io, err);
}

static void watch_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct watch *wa = container_of(dev, struct watch, dev);

	for (unsigned int i = 0; i < count; i++) {
		ios[i]->priv[WATCH_DONE] = (uint64_t)(uintptr_t)ios[i]->done;
		ios[i]->priv[WATCH_SELF] = (uint64_t)(uintptr_t)wa;
		ios[i]->done = watch_done;
	}
	blkdev_submit(wa->below, ios, count);
}

/* ---- the rest goes straight through ---- */

static struct blkdev *below(struct blkdev *dev)
{
	return container_of(dev, struct watch, dev)->below;
}

static int watch_drain(struct blkdev *dev)
{
	return blkdev_drain(below(dev));
}

static int watch_refresh(struct blkdev *dev)
{
	int err = below(dev)->ops->refresh(below(dev));

	dev->info.size = below(dev)->info.size;
	return err;
}

static int watch_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	return below(dev)->ops->pr_register(below(dev), old_key, new_key);
}

static int watch_pr_reserve(struct blkdev *dev, uint64_t key)
{
	return below(dev)->ops->pr_reserve(below(dev), key);
}

static int watch_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	return below(dev)->ops->pr_preempt_abort(below(dev), key, victim);
}

static int watch_pr_clear(struct blkdev *dev, uint64_t key)
{
	return below(dev)->ops->pr_clear(below(dev), key);
}

static int watch_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	return below(dev)->ops->pr_read(below(dev), state);
}

static void watch_close(struct blkdev *dev)
{
	(void)dev;	/* goes with the gate */
}

static const struct blkdev_ops watch_ops = {
	.submit = watch_submit,
	.drain = watch_drain,
	.refresh = watch_refresh,
	.pr_register = watch_pr_register,
	.pr_reserve = watch_pr_reserve,
	.pr_preempt_abort = watch_pr_preempt_abort,
	.pr_clear = watch_pr_clear,
	.pr_read = watch_pr_read,
	.close = watch_close,
};

static struct watch *watch_new(struct gate *g)
{
	struct watch *wa = calloc(1, sizeof(*wa));
	struct blkdev *below_dev = __real_gate_blkdev(g);

	if (!wa)
		abort();
	wa->gate = g;
	wa->below = below_dev;
	wa->ops = watch_ops;
	wa->dev = *below_dev;
	wa->dev.ops = &wa->ops;
	wa->life = life_of_env(watched, below_dev->env);
	assert(wa->life && !below_dev->ops->run);
	list_add_tail(&watches, &wa->node);
	return wa;
}

struct blkdev *__wrap_gate_blkdev(struct gate *g)
{
	struct watch *wa, *tmp;

	if (!watched)
		return __real_gate_blkdev(g);
	list_for_each(wa, tmp, &watches, node) {
		if (wa->gate == g)
			return &wa->dev;
	}
	return &watch_new(g)->dev;
}

void __wrap_gate_free(struct gate *g)
{
	struct watch *wa, *tmp;

	__real_gate_free(g);
	if (!watched)
		return;
	list_for_each(wa, tmp, &watches, node) {
		if (wa->gate != g)
			continue;
		list_del(&wa->node);
		free(wa);
	}
}

void watch_start(struct world *w)
{
	watched = w;
	list_init(&watches);
	simdisk_observe_submit(w->disk, submitted, w);
}
