// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated LUN: how commands travel, what befalls them, who may send them.
 *
 *   submit ──► (rules, latency) ──► apply ──► complete ──► done(), an interrupt of the host
 *                                     │  a crashed host's are applied or not; its completions
 *                                     │  are dropped
 *   TIMEOUT_LATE:  submit ──► complete with -ETIMEDOUT …… apply, unless aborted by then
 *
 * Data is copied at submission, and read data handed on at completion, so that a command
 * never touches memory of a host that has gone on without it.
 */
#include "block/simdev.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/simstore.h"

#define OP_COUNT	ARRAY_SIZE(((struct simdisk_stats *)NULL)->ops)
#define KEYS_MAX	ARRAY_SIZE(((struct blkdev_pr_state *)NULL)->keys)
#define POLL_NS_MAX	NSEC_PER_SEC

struct rule {
	struct list node;
	struct simdisk_rule is;
	uint64_t passed;	/* matching commands that were let through */
	uint64_t hit;
};

/* A host as the LUN knows it (an I_T nexus): all its paths share one registration. */
struct nexus {
	struct list node;
	struct env *host;
	bool registered;
	uint64_t key;
	uint64_t stall_ns;
	struct simdisk_stats stats;
};

struct path {
	struct blkdev dev;
	struct list node;
	struct simdisk *disk;
	struct nexus *nexus;
	unsigned int outstanding;	/* requests whose done() has not returned */
	bool closed;
};

struct cmd {
	struct list node;	/* disk->cmds */
	struct simdisk *disk;
	struct nexus *nexus;
	struct path *path;
	struct blk_io *io;	/* the submitter's, until done() is called */
	struct blk_io copy;	/* ours, for as long as the command lives */
	struct iovec iov[2];	/* into data */
	uint8_t *data;
	bool faulty, corrupt;	/* a rule struck */
	int err;		/* what the device says */
	int err_forced;		/* what a rule, or an abort, makes of it */
	bool apply_due;		/* its event is under way */
	bool applying;
	bool complete_due;	/* not answered yet */
	bool complete_under_way;	/* its event is under way */
	bool delivering;	/* the host's interrupt is under way */
	uint64_t apply_ns, complete_ns;
	uint64_t covers;	/* a flush: how many writes had completed when it was submitted */
	uint64_t write_number;	/* in the store; 0: none */
};

struct simdisk {
	struct sim *sim;
	struct simdisk_params params;
	struct simstore store;
	struct list cmds, paths, nexuses, rules;
	uint64_t stall_ns;
	bool reserved;
	uint32_t pr_generation;
	void (*observe)(void *arg, struct env *host, const struct blk_io *io);
	void *observe_arg;
};

struct simdisk_image {
	struct simstore store;
	uint64_t size;
};

static void *must_alloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	return p;
}

static struct path *path_of(struct blkdev *dev)
{
	return container_of(dev, struct path, dev);
}

/* ---- what a command does to the contents ---- */

static bool is_fenced(const struct cmd *c)
{
	return c->copy.op != BLK_READ && c->disk->reserved && !c->nexus->registered;
}

/* The LUN may have shrunk under a host that has not noticed. */
static bool is_beyond_end(const struct cmd *c)
{
	return c->copy.op != BLK_FLUSH && c->copy.off + c->copy.len > c->disk->params.size;
}

static void execute_caw(struct cmd *c)
{
	struct simstore *s = &c->disk->store;
	uint8_t found[4096];

	simstore_read(s, c->copy.off, found, c->copy.len);
	if (memcmp(found, c->iov[0].iov_base, c->copy.len))
		c->err = -EILSEQ;
	else
		c->write_number = simstore_write(s, c->copy.off, c->iov[1].iov_base, c->copy.len);
}

static void execute_read(struct cmd *c)
{
	uint64_t bit = c->corrupt ? sim_random(c->disk->sim) % (8 * c->copy.len) : 0;

	simstore_read(&c->disk->store, c->copy.off, c->data, c->copy.len);
	if (c->corrupt)
		c->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
}

static void execute_write(struct cmd *c)
{
	struct simstore *s = &c->disk->store;

	c->write_number = simstore_write(s, c->copy.off, c->data, c->copy.len);
	if (c->copy.flags & BLK_FUA)
		simstore_harden(s, c->write_number);
}

/* Leaves its result in c->err. */
static void execute(struct cmd *c)
{
	struct simdisk *disk = c->disk;

	if (is_fenced(c))
		c->err = -EBADE;
	else if (is_beyond_end(c))
		c->err = -EIO;
	else if (c->copy.op == BLK_READ)
		execute_read(c);
	else if (c->copy.op == BLK_WRITE || c->copy.op == BLK_ZERO)
		execute_write(c);
	else if (c->copy.op == BLK_FLUSH)
		simstore_flush(&disk->store, c->covers);
	else if (c->copy.op == BLK_DISCARD)
		simstore_discard(&disk->store, disk->sim, c->copy.off, c->copy.len);
	else
		execute_caw(c);
	if (!c->err && disk->observe)
		disk->observe(disk->observe_arg, c->nexus->host, &c->copy);
}

/* Some sectors of a write whose host died, or whose LUN lost power, in the middle of it. */
static void execute_torn(struct cmd *c)
{
	struct simdisk *disk = c->disk;
	uint32_t sector = disk->params.sector;

	if (is_fenced(c) || is_beyond_end(c))
		return;
	for (uint64_t i = 0; i < c->copy.len; i += sector) {
		uint8_t *data = c->data ? c->data + i : NULL;
		struct iovec iov = { data, sector };
		struct blk_io part = { .op = c->copy.op, .off = c->copy.off + i, .len = sector,
				       .iov = &iov, .iovcnt = 1, .dev = c->copy.dev };

		if (sim_random(disk->sim) % 2)
			continue;
		simstore_complete(&disk->store, simstore_write(&disk->store, part.off, data,
							       sector));
		if (disk->observe)
			disk->observe(disk->observe_arg, c->nexus->host, &part);
	}
}

/* Nobody waits for the answer any more: anything may have become of the command. */
static void execute_orphan(struct cmd *c)
{
	uint64_t fate = sim_random(c->disk->sim) % 3;

	if (fate == 0)
		execute(c);
	else if (fate == 1 && (c->copy.op == BLK_WRITE || c->copy.op == BLK_ZERO))
		execute_torn(c);
}

/* ---- the life of a command ---- */

static void cmd_free(struct cmd *c)
{
	list_del(&c->node);
	free(c->data);
	free(c);
}

static void cmd_free_if_over(struct cmd *c)
{
	if (!c->apply_due && !c->applying && !c->complete_due && !c->delivering)
		cmd_free(c);
}

/* When a stall that concerns @c ends; 0: there is none. */
static uint64_t stalled_until(const struct cmd *c)
{
	uint64_t disk_ns = c->disk->stall_ns, host_ns = c->nexus->stall_ns;
	uint64_t until = disk_ns > host_ns ? disk_ns : host_ns;

	return until > sim_now_ns(c->disk->sim) ? until : 0;
}

static void stats_add(struct cmd *c, int err)
{
	struct simdisk_stats *stats = &c->nexus->stats;

	stats->ops[c->copy.op]++;
	if (!err && c->copy.op == BLK_READ)
		stats->bytes_read += c->copy.len;
	else if (!err && (c->copy.op == BLK_WRITE || c->copy.op == BLK_CAW))
		stats->bytes_written += c->copy.len;
}

/* In a thread of the submitter's host. */
static void deliver(void *arg)
{
	struct cmd *c = arg;
	struct path *path = c->path;
	struct blk_io *io = c->io;
	int err = c->err_forced ? c->err_forced : c->err;
	const uint8_t *from = c->data;

	if (io->op == BLK_READ && !err) {
		for (int i = 0; i < io->iovcnt; i++) {
			memcpy(io->iov[i].iov_base, from, io->iov[i].iov_len);
			from += io->iov[i].iov_len;
		}
	}
	c->io = NULL;
	io->done(io, err);
	path->outstanding--;
	c->delivering = false;
	cmd_free_if_over(c);
}

static void complete_event(void *arg)
{
	struct cmd *c = arg;
	uint64_t until = stalled_until(c);

	if (until) {
		sim_at(c->disk->sim, until, complete_event, c);
		return;
	}
	c->complete_under_way = false;
	c->complete_due = false;
	stats_add(c, c->err_forced ? c->err_forced : c->err);
	if (c->write_number)
		simstore_complete(&c->disk->store, c->write_number);
	if (!sim_host_crashed(c->nexus->host)) {
		c->delivering = true;
		sim_interrupt(c->nexus->host, deliver, c);
	}
	cmd_free_if_over(c);
}

static void complete_at(struct cmd *c, uint64_t when_ns)
{
	c->complete_ns = when_ns;
	c->complete_under_way = true;
	sim_at(c->disk->sim, when_ns, complete_event, c);
}

static void apply_event(void *arg)
{
	struct cmd *c = arg;
	struct sim *sim = c->disk->sim;
	uint64_t until = stalled_until(c);

	/* What a stall holds back is the answers; some commands have got through before it. */
	if (until && sim_random(sim) % 2) {
		sim_at(sim, until, apply_event, c);
		return;
	}
	c->apply_due = false;
	c->applying = true;	/* an observer may abort it meanwhile, or cut the power */
	if (sim_host_crashed(c->nexus->host) && !c->faulty)
		execute_orphan(c);
	else
		execute(c);
	c->applying = false;
	/*
	 * Applied, but its host will never hear of it, or hear that it failed: it is in the
	 * cache like the rest, and a flush that comes later writes it back.
	 */
	if (c->write_number && (!c->complete_due || c->err_forced))
		simstore_complete(&c->disk->store, c->write_number);
	if (c->complete_due && !c->complete_under_way)
		complete_at(c, c->complete_ns);
	cmd_free_if_over(c);
}

static void apply_at(struct cmd *c, uint64_t when_ns)
{
	c->apply_ns = when_ns;
	c->apply_due = true;
	sim_at(c->disk->sim, when_ns, apply_event, c);
}

/* @c does nothing to the contents any more; a host that waits for it hears @err. */
static void cmd_abort(struct cmd *c, int err)
{
	if (c->apply_due)
		sim_cancel(c->disk->sim, apply_event, c);
	c->apply_due = false;
	if (c->complete_due && !c->complete_under_way) {
		c->err_forced = err;
		complete_at(c, sim_now_ns(c->disk->sim));
	}
	cmd_free_if_over(c);
}

/* ---- submission ---- */

static bool rule_matches(const struct simdisk_rule *r, const struct cmd *c)
{
	const struct blk_io *io = &c->copy;

	if (!(r->ops & 1u << io->op) || (r->host && r->host != c->nexus->host))
		return false;
	if (!r->len)
		return true;
	return io->op != BLK_FLUSH && io->off < r->off + r->len && r->off < io->off + io->len;
}

/* The rule that strikes @c, or NULL. */
static const struct simdisk_rule *rule_for(struct simdisk *disk, const struct cmd *c)
{
	struct rule *r, *tmp;

	list_for_each(r, tmp, &disk->rules, node) {
		if (!rule_matches(&r->is, c) || (r->is.count && r->hit == r->is.count))
			continue;
		if (r->passed < r->is.skip) {
			r->passed++;
			continue;
		}
		r->hit++;
		return &r->is;
	}
	return NULL;
}

static void start_faulty(struct cmd *c, const struct simdisk_rule *r, uint64_t latency_ns)
{
	uint64_t now = sim_now_ns(c->disk->sim), end = now + latency_ns;
	uint64_t late = r->delay_ns > latency_ns ? now + r->delay_ns : end;

	c->faulty = true;
	switch (r->fault) {
	case SIMDISK_FAIL:
	case SIMDISK_NOSPC:
		c->err_forced = r->fault == SIMDISK_FAIL ? -EIO : -ENOSPC;
		complete_at(c, end);
		break;
	case SIMDISK_TIMEOUT:
		c->err_forced = -ETIMEDOUT;
		complete_at(c, late);
		break;
	case SIMDISK_TIMEOUT_LATE:
		c->err_forced = -ETIMEDOUT;
		complete_at(c, end);
		apply_at(c, late);
		break;
	case SIMDISK_FAIL_APPLIED:
		c->err_forced = -EIO;
		c->complete_ns = end;
		apply_at(c, end);
		break;
	case SIMDISK_TIMEOUT_APPLIED:
		c->err_forced = -ETIMEDOUT;
		c->complete_ns = late;
		apply_at(c, end);
		break;
	case SIMDISK_DELAY:
		c->complete_ns = now + r->delay_ns + latency_ns;
		apply_at(c, now + r->delay_ns);
		break;
	case SIMDISK_CORRUPT:
		c->corrupt = c->copy.op == BLK_READ;
		c->complete_ns = end;
		apply_at(c, end);
		break;
	}
}

/* Gathers what the command carries; a read gets room for what it will find. */
static void cmd_copy_data(struct cmd *c, const struct blk_io *io)
{
	uint64_t len = io->op == BLK_CAW ? 2 * io->len : io->len;
	uint8_t *to;

	if (io->op != BLK_READ && io->op != BLK_WRITE && io->op != BLK_CAW)
		return;
	c->data = must_alloc(len);
	to = c->data;
	for (int i = 0; io->op != BLK_READ && i < io->iovcnt; i++) {
		memcpy(to, io->iov[i].iov_base, io->iov[i].iov_len);
		to += io->iov[i].iov_len;
	}
	c->copy.iov = c->iov;
	c->copy.iovcnt = io->op == BLK_CAW ? 2 : 1;
	c->iov[0] = (struct iovec){ c->data, io->len };
	c->iov[1] = (struct iovec){ c->data + len - io->len, io->len };
}

static void submit_one(struct path *path, struct blk_io *io)
{
	struct simdisk *disk = path->disk;
	const struct simdisk_params *p = &disk->params;
	struct cmd *c = must_alloc(sizeof(*c));
	uint64_t latency_ns, now = sim_now_ns(disk->sim);
	const struct simdisk_rule *r;

	c->disk = disk;
	c->nexus = path->nexus;
	c->path = path;
	c->io = io;
	c->copy = (struct blk_io){ .op = io->op, .flags = io->flags, .off = io->off,
				   .len = io->len, .dev = &path->dev };
	cmd_copy_data(c, io);
	c->covers = disk->store.completions;
	c->complete_due = true;
	path->outstanding++;
	list_add_tail(&disk->cmds, &c->node);
	latency_ns = p->latency_min_ns +
		     sim_random(disk->sim) % (p->latency_max_ns - p->latency_min_ns + 1);
	r = rule_for(disk, c);
	if (r) {
		start_faulty(c, r, latency_ns);
		return;
	}
	c->complete_ns = now + latency_ns;
	apply_at(c, now + sim_random(disk->sim) % (latency_ns + 1));
}

static void simdev_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	assert(!path_of(dev)->closed);
	for (unsigned int i = 0; i < count; i++)
		submit_one(path_of(dev), ios[i]);
}

/* Sleeps a little longer each time: what it waits for may take an hour. */
static void poll_wait(struct env *env, uint64_t *interval_ns)
{
	*interval_ns = *interval_ns ? 2 * *interval_ns : NSEC_PER_MSEC;
	if (*interval_ns > POLL_NS_MAX)
		*interval_ns = POLL_NS_MAX;
	env_sleep_until(env, env_now_ns(env) + *interval_ns);
}

static bool has_late_command(const struct path *path)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &path->disk->cmds, node) {
		if (c->nexus == path->nexus && c->apply_due && !c->complete_due)
			return true;
	}
	return false;
}

bool simdisk_is_busy(struct simdisk *disk, struct env *host)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &disk->cmds, node) {
		if (c->nexus->host == host && c->apply_due)
			return true;
	}
	return false;
}

static int simdev_drain(struct blkdev *dev)
{
	uint64_t interval_ns = 0;

	while (has_late_command(path_of(dev)))
		poll_wait(dev->env, &interval_ns);
	return 0;
}

static int simdev_refresh(struct blkdev *dev)
{
	dev->info.size = path_of(dev)->disk->params.size;
	return 0;
}

/* The path itself lives as long as the LUN: late commands still name it. */
static void simdev_close(struct blkdev *dev)
{
	struct path *path = path_of(dev);
	uint64_t interval_ns = 0;

	while (path->outstanding && !sim_host_crashed(dev->env))
		poll_wait(dev->env, &interval_ns);
	path->closed = true;
}

/* ---- persistent reservations: write exclusive, all registrants (SPC-4, 5.13) ---- */

/* A service action takes time too, and is stalled like any command. */
static void pr_travel(struct path *path)
{
	struct simdisk *disk = path->disk;
	struct env *env = path->dev.env;
	uint64_t interval_ns = 0;
	struct cmd probe = { .disk = disk, .nexus = path->nexus };

	if (disk->params.latency_max_ns)
		env_sleep_until(env, env_now_ns(env) + disk->params.latency_max_ns);
	while (stalled_until(&probe))
		poll_wait(env, &interval_ns);
}

static unsigned int pr_key_count(const struct simdisk *disk, uint64_t *keys)
{
	unsigned int count = 0;
	struct nexus *n, *tmp;

	list_for_each(n, tmp, &disk->nexuses, node) {
		if (n->registered && count < KEYS_MAX)
			keys[count++] = n->key;
	}
	return count;
}

static void pr_unregister(struct simdisk *disk, struct nexus *n)
{
	uint64_t keys[KEYS_MAX];

	n->registered = false;
	n->key = 0;
	if (!pr_key_count(disk, keys))
		disk->reserved = false;	/* the last registrant was the last holder */
}

static int simdev_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct path *path = path_of(dev);
	struct nexus *n = path->nexus;
	uint64_t keys[KEYS_MAX];

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (old_key != n->key)	/* an unregistered nexus has key 0 */
		return -EBADE;
	if (new_key && !n->registered && pr_key_count(path->disk, keys) == KEYS_MAX)
		return -ENOSPC;
	path->disk->pr_generation++;
	if (new_key) {
		n->registered = true;
		n->key = new_key;
	} else if (n->registered) {
		pr_unregister(path->disk, n);
	}
	return 0;
}

static int simdev_pr_reserve(struct blkdev *dev, uint64_t key)
{
	struct path *path = path_of(dev);

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (!path->nexus->registered || path->nexus->key != key)
		return -EBADE;
	path->disk->reserved = true;
	return 0;
}

static void abort_nexus(struct simdisk *disk, const struct nexus *n)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &disk->cmds, node) {
		if (c->nexus == n)
			cmd_abort(c, -EIO);
	}
}

static int simdev_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	struct path *path = path_of(dev);
	struct simdisk *disk = path->disk;
	struct nexus *n, *tmp;
	bool found = false;

	if (!disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (!path->nexus->registered || path->nexus->key != key)
		return -EBADE;
	if (!victim)
		return -EINVAL;
	list_for_each(n, tmp, &disk->nexuses, node) {
		if (n == path->nexus || !n->registered || n->key != victim)
			continue;
		found = true;
		n->registered = false;	/* we stay registered, so the reservation stays */
		n->key = 0;
		abort_nexus(disk, n);
	}
	if (!found)
		return -EBADE;
	disk->pr_generation++;
	return 0;
}

static int simdev_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct path *path = path_of(dev);

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	memset(state, 0, sizeof(*state));
	state->generation = path->disk->pr_generation;
	state->held = path->disk->reserved;
	state->key_count = pr_key_count(path->disk, state->keys);
	return 0;
}

static const struct blkdev_ops simdev_ops = {
	.submit = simdev_submit,
	.drain = simdev_drain,
	.refresh = simdev_refresh,
	.pr_register = simdev_pr_register,
	.pr_reserve = simdev_pr_reserve,
	.pr_preempt_abort = simdev_pr_preempt_abort,
	.pr_read = simdev_pr_read,
	.close = simdev_close,
};

/* ---- the LUN ---- */

struct simdisk *simdisk_new(struct sim *sim, const struct simdisk_params *p)
{
	struct simdisk *disk = must_alloc(sizeof(*disk));

	assert(p->sector == 512 || p->sector == 4096);
	assert(p->size % p->sector == 0 && p->latency_min_ns <= p->latency_max_ns);
	disk->sim = sim;
	disk->params = *p;
	simstore_init(&disk->store, p->sector, p->random_contents, sim_random(sim));
	list_init(&disk->cmds);
	list_init(&disk->paths);
	list_init(&disk->nexuses);
	list_init(&disk->rules);
	return disk;
}

void simdisk_free(struct simdisk *disk)
{
	struct nexus *n, *next_nexus;
	struct path *p, *next_path;
	struct cmd *c, *next_cmd;

	list_for_each(c, next_cmd, &disk->cmds, node) {
		/* A living host would get an answer from a LUN that is no more. */
		assert(!c->delivering || sim_host_crashed(c->nexus->host));
		sim_cancel(disk->sim, apply_event, c);
		sim_cancel(disk->sim, complete_event, c);
		cmd_free(c);
	}
	list_for_each(p, next_path, &disk->paths, node)
		free(p);
	list_for_each(n, next_nexus, &disk->nexuses, node)
		free(n);
	simdisk_clear_rules(disk);
	simstore_fini(&disk->store);
	free(disk);
}

static struct nexus *nexus_get(struct simdisk *disk, struct env *host)
{
	struct nexus *n, *tmp;

	list_for_each(n, tmp, &disk->nexuses, node) {
		if (n->host == host)
			return n;
	}
	n = must_alloc(sizeof(*n));
	n->host = host;
	list_add_tail(&disk->nexuses, &n->node);
	return n;
}

struct blkdev *simdisk_open(struct simdisk *disk, struct env *host)
{
	struct path *path = must_alloc(sizeof(*path));
	struct blkdev_info *info = &path->dev.info;

	path->disk = disk;
	path->nexus = nexus_get(disk, host);
	path->dev.ops = &simdev_ops;
	path->dev.env = host;
	list_add_tail(&disk->paths, &path->node);
	snprintf(info->name, sizeof(info->name), "sim");
	info->size = disk->params.size;
	info->sector = disk->params.sector;
	info->mem_align = disk->params.sector;
	info->io_max = MIB;
	info->discard_granularity = 4096;
	info->caw = BLK_CAW_SIM;
	info->reservations = disk->params.reservations;
	info->direct = true;
	info->inflight_ns_max = disk->params.inflight_ns_max;
	snprintf(info->identity, sizeof(info->identity), "sim:%016" PRIx64,
		 disk->store.garbage_seed);
	return &path->dev;
}

void simdisk_reconnect(struct simdisk *disk, struct env *from, struct env *to)
{
	struct nexus *old = nexus_get(disk, from), *new = nexus_get(disk, to);

	new->registered = old->registered;
	new->key = old->key;
	old->registered = false;
	old->key = 0;
	abort_nexus(disk, old);
}

void simdisk_inject(struct simdisk *disk, const struct simdisk_rule *rule)
{
	struct rule *r = must_alloc(sizeof(*r));

	r->is = *rule;
	list_add_tail(&disk->rules, &r->node);
}

void simdisk_clear_rules(struct simdisk *disk)
{
	struct rule *r, *tmp;

	list_for_each(r, tmp, &disk->rules, node) {
		list_del(&r->node);
		free(r);
	}
}

void simdisk_stall(struct simdisk *disk, struct env *host, uint64_t until_ns)
{
	struct cmd *c, *tmp;

	if (host)
		nexus_get(disk, host)->stall_ns = until_ns;
	else
		disk->stall_ns = until_ns;
	/* Those that an earlier stall put off look again. */
	list_for_each(c, tmp, &disk->cmds, node) {
		if (c->apply_due) {
			sim_cancel(disk->sim, apply_event, c);
			sim_at(disk->sim, c->apply_ns, apply_event, c);
		}
		if (c->complete_under_way) {
			sim_cancel(disk->sim, complete_event, c);
			sim_at(disk->sim, c->complete_ns, complete_event, c);
		}
	}
}

void simdisk_power_cut(struct simdisk *disk, enum simdisk_keep keep)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &disk->cmds, node) {
		if (keep == SIMDISK_KEEP_RANDOM && c->apply_due && c->copy.op != BLK_READ &&
		    c->copy.op != BLK_FLUSH)
			execute_orphan(c);
		cmd_abort(c, -EIO);
	}
	simstore_power_cut(&disk->store, disk->sim, keep);
}

struct simdisk_image *simdisk_snapshot(struct simdisk *disk)
{
	struct simdisk_image *image = must_alloc(sizeof(*image));

	simstore_copy(&image->store, &disk->store);
	image->size = disk->params.size;
	return image;
}

void simdisk_restore(struct simdisk *disk, const struct simdisk_image *image)
{
	assert(disk->store.sector == image->store.sector);
	simstore_fini(&disk->store);
	simstore_copy(&disk->store, &image->store);
	disk->params.size = image->size;
}

void simdisk_image_free(struct simdisk_image *image)
{
	if (image)
		simstore_fini(&image->store);
	free(image);
}

void simdisk_peek(struct simdisk *disk, uint64_t off, void *buf, size_t len)
{
	simstore_read(&disk->store, off, buf, len);
}

void simdisk_poke(struct simdisk *disk, uint64_t off, const void *buf, size_t len)
{
	simstore_poke(&disk->store, off, buf, len);
}

void simdisk_resize(struct simdisk *disk, uint64_t size)
{
	if (size < disk->params.size)
		simstore_truncate(&disk->store, size);
	disk->params.size = size;
}

void simdisk_stats(struct simdisk *disk, struct env *host, struct simdisk_stats *out)
{
	struct nexus *n, *tmp;

	memset(out, 0, sizeof(*out));
	list_for_each(n, tmp, &disk->nexuses, node) {
		if (host && n->host != host)
			continue;
		for (size_t i = 0; i < OP_COUNT; i++)
			out->ops[i] += n->stats.ops[i];
		out->bytes_read += n->stats.bytes_read;
		out->bytes_written += n->stats.bytes_written;
	}
}

void simdisk_observe(struct simdisk *disk,
		     void (*fn)(void *arg, struct env *host, const struct blk_io *io), void *arg)
{
	disk->observe = fn;
	disk->observe_arg = arg;
}
