// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated LUN: how commands travel, what befalls them, who may send them.
 *
 *   submit ──► (rules, latency) ──► apply ──► complete ──► done(), an interrupt of the host
 *                                     │  a crashed host's are applied or not; its completions
 *                                     │  are dropped
 *   HOLD:  submit …… the host still lives ──► the way of any command
 *   TIMEOUT_LATE:  submit ──► complete with -ETIMEDOUT …… apply, unless aborted by then
 *
 * Data is copied at submission, and read data handed on at completion, so that a command
 * never touches memory of a host that has gone on without it.
 */
#include "block/simdev_internal.h"

#include <inttypes.h>

#define POLL_NS_MAX	NSEC_PER_SEC
#define CORRUPT_BLOCK	4096u

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

/* Whether @rule may flip a bit at @off of what a read found there; what it asks has whole blocks. */
static bool may_corrupt(const struct simdisk_rule *rule, uint64_t off, const uint8_t *found,
			uint64_t len)
{
	if (!rule->may_corrupt)
		return true;
	return off % CORRUPT_BLOCK == 0 && len >= CORRUPT_BLOCK &&
	       rule->may_corrupt(rule->arg, off, found);
}

/* Flips a bit of the first allowed block from a random one on. */
static void corrupt(struct cmd *c)
{
	uint64_t blocks = DIV_ROUND_UP(c->copy.len, CORRUPT_BLOCK);
	uint64_t first = sim_random(c->disk->sim) % blocks;

	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t at = (first + i) % blocks * CORRUPT_BLOCK, bit;
		uint64_t len = c->copy.len - at < CORRUPT_BLOCK ? c->copy.len - at : CORRUPT_BLOCK;

		if (!may_corrupt(&c->rule, c->copy.off + at, c->data + at, len))
			continue;
		bit = sim_random(c->disk->sim) % (8 * len);
		c->data[at + bit / 8] ^= (uint8_t)(1 << bit % 8);
		return;
	}
}

static void execute_read(struct cmd *c)
{
	simstore_read(&c->disk->store, c->copy.off, c->data, c->copy.len);
	if (c->corrupt)
		corrupt(c);
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

	disk->store.writer = c->copy.dev;
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
	disk->fates.torn++;
	disk->store.writer = c->copy.dev;
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
	if (!c->held && !c->apply_due && !c->applying && !c->complete_due && !c->delivering)
		cmd_free(c);
}

uint64_t simdev_stalled_until(const struct simdisk *disk, const struct nexus *n)
{
	uint64_t until = disk->stall_ns > n->stall_ns ? disk->stall_ns : n->stall_ns;

	return until > sim_now_ns(disk->sim) ? until : 0;
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

/* Flushes cover what it has written from now on. */
static void write_is_over(struct cmd *c)
{
	if (c->write_number)
		simstore_complete(&c->disk->store, c->write_number);
	c->write_number = 0;
}

static void complete_event(void *arg)
{
	struct cmd *c = arg;
	uint64_t until = simdev_stalled_until(c->disk, c->nexus);

	if (until) {
		sim_at(c->disk->sim, until, complete_event, c);
		return;
	}
	c->complete_under_way = false;
	c->complete_due = false;
	stats_add(c, c->err_forced ? c->err_forced : c->err);
	write_is_over(c);
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
	uint64_t until = simdev_stalled_until(c->disk, c->nexus);

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
	if (!c->complete_due || c->err_forced)
		write_is_over(c);
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

/*
 * @c does nothing to the contents any more; a host that waits for it hears @err.  What it has done is in the
 * cache, for the next flush.
 */
static void cmd_abort(struct cmd *c, int err)
{
	if (c->apply_due)
		sim_cancel(c->disk->sim, apply_event, c);
	c->apply_due = false;
	write_is_over(c);
	if (c->complete_due && !c->complete_under_way) {
		c->err_forced = err;
		complete_at(c, sim_now_ns(c->disk->sim));
	}
	cmd_free_if_over(c);
}

void simdev_abort_nexus(struct simdisk *disk, const struct nexus *n)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &disk->cmds, node) {
		if (c->nexus == n && !c->held)
			cmd_abort(c, -EIO);
	}
}

/* ---- submission ---- */

/* Is there anything in what a read would find now that @r may corrupt? */
static bool finds_to_corrupt(const struct simdisk_rule *r, const struct cmd *c)
{
	uint8_t block[CORRUPT_BLOCK];

	if (c->copy.op != BLK_READ)
		return false;
	if (!r->may_corrupt)
		return true;
	for (uint64_t i = 0; i + CORRUPT_BLOCK <= c->copy.len; i += CORRUPT_BLOCK) {
		simstore_read(&c->disk->store, c->copy.off + i, block, CORRUPT_BLOCK);
		if (may_corrupt(r, c->copy.off + i, block, CORRUPT_BLOCK))
			return true;
	}
	return false;
}

static bool rule_matches(const struct simdisk_rule *r, const struct cmd *c)
{
	const struct blk_io *io = &c->copy;

	if (!(r->ops & 1u << io->op) || (r->host && r->host != c->nexus->host))
		return false;
	if (r->len && (io->op == BLK_FLUSH || io->off >= r->off + r->len ||
		       r->off >= io->off + io->len))
		return false;
	return r->fault != SIMDISK_CORRUPT || finds_to_corrupt(r, c);
}

static bool rule_is_over(const struct rule *r, uint64_t now_ns)
{
	return (r->is.count && r->hit == r->is.count) || (r->is.until_ns && now_ns >= r->is.until_ns);
}

/* Fills in @c->rule with the one that strikes, if any does. */
static bool rule_strikes(struct simdisk *disk, struct cmd *c)
{
	struct rule *r, *tmp;

	list_for_each(r, tmp, &disk->rules, node) {
		if (rule_is_over(r, sim_now_ns(disk->sim))) {
			list_del(&r->node);
			free(r);
			continue;
		}
		if (!rule_matches(&r->is, c))
			continue;
		if (r->passed < r->is.skip) {
			r->passed++;
			continue;
		}
		r->hit++;
		c->rule = r->is;
		if (r->is.struck)
			r->is.struck(r->is.arg, &c->rule, c->copy.op);
		return true;
	}
	return false;
}

/* Takes the way of a command that nothing befalls. */
static void travel(struct cmd *c, uint64_t latency_ns)
{
	uint64_t now = sim_now_ns(c->disk->sim);

	c->covers = c->disk->store.completions;
	c->complete_ns = now + latency_ns;
	apply_at(c, now + sim_random(c->disk->sim) % (latency_ns + 1));
}

static uint64_t latency(struct simdisk *disk)
{
	const struct simdisk_params *p = &disk->params;

	return p->latency_min_ns +
	       sim_random(disk->sim) % (p->latency_max_ns - p->latency_min_ns + 1);
}

/* A command that was held leaves its host, if that still lives. */
static void send_event(void *arg)
{
	struct cmd *c = arg;

	c->held = false;
	if (sim_host_crashed(c->nexus->host)) {
		c->complete_due = false;
		cmd_free_if_over(c);
		return;
	}
	travel(c, latency(c->disk));
}

static void start_faulty(struct cmd *c, uint64_t latency_ns)
{
	const struct simdisk_rule *r = &c->rule;
	uint64_t now = sim_now_ns(c->disk->sim), end = now + latency_ns;
	uint64_t late = r->delay_ns > latency_ns ? now + r->delay_ns : end;

	c->faulty = r->fault != SIMDISK_HOLD;
	c->covers = c->disk->store.completions;
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
	case SIMDISK_TWICE:
		c->err_forced = -EILSEQ;
		c->complete_ns = late;
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
	case SIMDISK_HOLD:
		c->held = true;
		sim_at(c->disk->sim, late, send_event, c);
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
	c->data = malloc(len);	/* not zeroed: all of it is written before it is read */
	if (!c->data)
		abort();
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
	struct cmd *c = simdev_alloc(sizeof(*c));
	uint64_t latency_ns;

	c->disk = disk;
	c->nexus = path->nexus;
	c->path = path;
	c->io = io;
	c->copy = (struct blk_io){ .op = io->op, .flags = io->flags, .off = io->off,
				   .len = io->len, .dev = &path->dev };
	cmd_copy_data(c, io);
	c->complete_due = true;
	path->outstanding++;
	list_add_tail(&disk->cmds, &c->node);
	if (disk->observe_submit)
		disk->observe_submit(disk->observe_submit_arg, path->nexus->host, &c->copy);
	latency_ns = latency(disk);
	if (rule_strikes(disk, c))
		start_faulty(c, latency_ns);
	else
		travel(c, latency_ns);
}

static void simdev_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	assert(!path_of(dev)->closed);
	for (unsigned int i = 0; i < count; i++)
		submit_one(path_of(dev), ios[i]);
}

/* A little longer each time: what it waits for may take an hour. */
void simdev_poll_wait(struct env *env, uint64_t *interval_ns)
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
		if (c->nexus->host == host &&
		    (c->apply_due || c->write_number || (c->held && !sim_host_crashed(host))))
			return true;
	}
	return false;
}

static int simdev_drain(struct blkdev *dev)
{
	uint64_t interval_ns = 0;

	while (has_late_command(path_of(dev)))
		simdev_poll_wait(dev->env, &interval_ns);
	return 0;
}

static int simdev_refresh(struct blkdev *dev)
{
	blkdev_set_size(dev, path_of(dev)->disk->params.size);
	return 0;
}

/* The path itself lives as long as the LUN: late commands still name it. */
static void simdev_close(struct blkdev *dev)
{
	struct path *path = path_of(dev);
	uint64_t interval_ns = 0;

	while (path->outstanding && !sim_host_crashed(dev->env))
		simdev_poll_wait(dev->env, &interval_ns);
	path->closed = true;
}

static const struct blkdev_ops simdev_ops = {
	.submit = simdev_submit,
	.drain = simdev_drain,
	.refresh = simdev_refresh,
	.pr_register = simdev_pr_register,
	.pr_reserve = simdev_pr_reserve,
	.pr_preempt_abort = simdev_pr_preempt_abort,
	.pr_clear = simdev_pr_clear,
	.pr_read = simdev_pr_read,
	.close = simdev_close,
};

/* ---- the LUN ---- */

struct simdisk *simdisk_new(struct sim *sim, const struct simdisk_params *p)
{
	struct simdisk *disk = simdev_alloc(sizeof(*disk));

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
		sim_cancel(disk->sim, send_event, c);
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
	n = simdev_alloc(sizeof(*n));
	n->host = host;
	list_add_tail(&disk->nexuses, &n->node);
	return n;
}

struct blkdev *simdisk_open(struct simdisk *disk, struct env *host)
{
	struct path *path = simdev_alloc(sizeof(*path));
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
	simdev_abort_nexus(disk, old);
}

void simdisk_inject(struct simdisk *disk, const struct simdisk_rule *rule)
{
	struct rule *r = simdev_alloc(sizeof(*r));

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
		if (c->held)
			continue;
		if (keep == SIMDISK_KEEP_RANDOM && c->apply_due && c->copy.op != BLK_READ &&
		    c->copy.op != BLK_FLUSH)
			execute_orphan(c);
		cmd_abort(c, -EIO);
	}
	simstore_power_cut(&disk->store, disk->sim, keep);
}
