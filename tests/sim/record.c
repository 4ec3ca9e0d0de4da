// SPDX-License-Identifier: Apache-2.0
/*
 * The recording: the LUN tells what is applied, and a device in front of each host's path when
 * a command was submitted and completed, which decides what a flush covers.
 */
#include "tests/sim/cut.h"

#define SEED		20260101u
#define RUN_NS_MAX	(4 * 3600 * NSEC_PER_SEC)

/* A host's path.  A request under way has: */
enum tap_priv { TAP_DONE, TAP_COVERS };

struct tap {
	struct blkdev dev;
	struct blkdev_ops ops;
	struct blkdev *lower;
	struct recording *r;
};

uint64_t mix64(uint64_t x)
{
	x ^= x >> 30;	/* the finisher of splitmix64 (Steele, Lea, Flood 2014) */
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static void *grown(void *array, size_t count, size_t *max, size_t item)
{
	if (count < *max)
		return array;
	*max = *max ? 2 * *max : 256;
	array = realloc(array, *max * item);
	MUST(array);
	return array;
}

size_t record_moment(struct recording *r, enum moment_kind kind, size_t index)
{
	r->moments = grown(r->moments, r->moment_count, &r->moment_max, sizeof(*r->moments));
	r->moments[r->moment_count] = (struct moment){ kind, index };
	return r->moment_count++;
}

/* ---- what is applied ---- */

static void write_complete(struct recording *r, size_t i)
{
	struct rec_write *w = &r->writes[i];

	w->completed = record_moment(r, MOMENT_COMPLETE, i);
	w->number = ++r->completions;
	if (w->fua)
		w->hardened = w->completed;
}

static void applied(void *arg, struct env *host, const struct blk_io *io)
{
	struct recording *r = arg;
	const struct iovec *iov = io->op == BLK_CAW ? &io->iov[1] : &io->iov[0];
	struct rec_write *w;

	if (io->op == BLK_READ || io->op == BLK_FLUSH)
		return;
	r->writes = grown(r->writes, r->write_count, &r->write_max, sizeof(*r->writes));
	w = &r->writes[r->write_count];
	*w = (struct rec_write){ .host = host, .off = io->off, .len = io->len,
				 .discard = io->op == BLK_DISCARD, .fua = io->flags & BLK_FUA,
				 .completed = NEVER, .hardened = NEVER, .dropped = NEVER };
	if (io->op == BLK_WRITE || io->op == BLK_CAW) {
		w->data = malloc(io->len);
		MUST(w->data);
		memcpy(w->data, iov->iov_base, io->len);
	}
	w->applied = record_moment(r, MOMENT_WRITE, r->write_count);
	r->write_count++;
	if (sim_host_crashed(host))
		write_complete(r, r->write_count - 1);
}

/* The write that @io was; the newest of those alike. */
static void completed(struct recording *r, struct env *host, const struct blk_io *io)
{
	for (size_t i = r->write_count; i-- > 0;) {
		const struct rec_write *w = &r->writes[i];

		if (w->host != host || w->off != io->off || w->len != io->len ||
		    w->completed != NEVER)
			continue;
		write_complete(r, i);
		return;
	}
	MUST(!"a write completed that was never applied");
}

void record_crash(struct recording *r, struct env *host)
{
	for (size_t i = 0; i < r->write_count; i++)
		if (r->writes[i].host == host && r->writes[i].completed == NEVER)
			write_complete(r, i);
}

void record_cut(struct recording *r)
{
	size_t now = record_moment(r, MOMENT_CUT, 0);

	for (size_t i = 0; i < r->write_count; i++)
		if (r->writes[i].hardened == NEVER)
			r->writes[i].dropped = now;
}

static void flushed(struct recording *r, uint64_t covers)
{
	size_t now = record_moment(r, MOMENT_FLUSH, 0);

	for (size_t i = 0; i < r->write_count; i++) {
		struct rec_write *w = &r->writes[i];

		if (w->completed != NEVER && w->number <= covers && w->hardened == NEVER &&
		    w->dropped == NEVER)
			w->hardened = now;
	}
}

/* ---- the device in front ---- */

static struct tap *tap_of(struct blkdev *dev)
{
	return container_of(dev, struct tap, dev);
}

static void tap_done(struct blk_io *io, int err)
{
	struct tap *t = tap_of(io->dev);

	t->r->flushes -= io->op == BLK_FLUSH;
	if (!err && io->op == BLK_FLUSH)
		flushed(t->r, io->priv[TAP_COVERS]);
	else if (!err && io->op != BLK_READ)
		completed(t->r, t->dev.env, io);
	io->done = (void (*)(struct blk_io *, int))(uintptr_t)io->priv[TAP_DONE];
	io->done(io, err);
}

static void tap_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct tap *t = tap_of(dev);

	for (unsigned int i = 0; i < count; i++) {
		ios[i]->priv[TAP_DONE] = (uint64_t)(uintptr_t)ios[i]->done;
		ios[i]->priv[TAP_COVERS] = t->r->completions;
		ios[i]->done = tap_done;
		t->r->flushes += ios[i]->op == BLK_FLUSH;
	}
	t->lower->ops->submit(t->lower, ios, count);
}

static int tap_drain(struct blkdev *dev)
{
	return blkdev_drain(tap_of(dev)->lower);
}

static int tap_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	return tap_of(dev)->lower->ops->pr_register(tap_of(dev)->lower, old_key, new_key);
}

static int tap_reserve(struct blkdev *dev, uint64_t key)
{
	return tap_of(dev)->lower->ops->pr_reserve(tap_of(dev)->lower, key);
}

static int tap_preempt(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	return tap_of(dev)->lower->ops->pr_preempt_abort(tap_of(dev)->lower, key, victim);
}

static int tap_pr_clear(struct blkdev *dev, uint64_t key)
{
	return tap_of(dev)->lower->ops->pr_clear(tap_of(dev)->lower, key);
}

static int tap_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	return tap_of(dev)->lower->ops->pr_read(tap_of(dev)->lower, state);
}

static void tap_close(struct blkdev *dev)
{
	struct tap *t = tap_of(dev);

	blkdev_close(t->lower);
	free(t);
}

struct blkdev *record_open(struct recording *r, struct env *host)
{
	struct tap *t = calloc(1, sizeof(*t));

	MUST(t);
	t->ops = (struct blkdev_ops){
		.submit = tap_submit, .drain = tap_drain, .pr_register = tap_register,
		.pr_reserve = tap_reserve, .pr_preempt_abort = tap_preempt,
		.pr_clear = tap_pr_clear, .pr_read = tap_pr_read, .close = tap_close,
	};
	t->lower = simdisk_open(r->disk, host);
	t->dev.info = t->lower->info;
	if (r->w->copied && r->moment_count)
		snprintf(t->dev.info.identity, sizeof(t->dev.info.identity), COPY_IDENTITY);
	t->dev.ops = &t->ops;
	t->dev.env = host;
	t->r = r;
	return &t->dev;
}

/* ---- a run ---- */

static void record_thread(void *arg)
{
	struct recording *r = arg;

	if (!r->w->mkfs) {
		do_mkfs(r);
		cut_from_here(r);
	}
	r->w->script(r);
	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		if (r->hosts[i].fs)
			do_detach(r, i);
}

void record_run(struct recording *r, const struct workload *w)
{
	struct env_thread *thread;

	memset(r, 0, sizeof(*r));
	r->w = w;
	r->disk_params = (struct simdisk_params){
		.size = w->size, .sector = w->sector, .latency_min_ns = 20000,
		.latency_max_ns = 200000, .reservations = true, .random_contents = true,
	};
	r->sim = sim_new(SEED);
	r->disk = simdisk_new(r->sim, &r->disk_params);
	simdisk_observe(r->disk, applied, r);
	r->env = sim_host(r->sim, "observer");
	MUST(!env_thread_start(r->env, "script", record_thread, r, &thread));
	MUST(sim_run(r->sim, RUN_NS_MAX));
	env_thread_join(r->env, thread);
	simdisk_free(r->disk);
	sim_free(r->sim);
	/* The same seed makes the same garbage: where the states will be built. */
	r->sim = sim_new(SEED);
	r->disk = simdisk_new(r->sim, &r->disk_params);
}
