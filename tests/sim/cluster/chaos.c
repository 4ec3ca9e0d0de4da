// SPDX-License-Identifier: Apache-2.0
/* What befalls hosts, commands and the LUN. */
#include "tests/sim/cluster/sim.h"

#define LEASE_NS	(5 * SEC)
#define OPS_ALL		((1u << OPS) - 1)
#define CALM_NS		(300 * SEC)	/* of chaos; then it lets up a little */
#define RUN_NS		(2 * 3600 * SEC)
#define POWER_CUTS_MAX	3u	/* before the end, which is one too */

static struct sim_host *pick_host(struct world *w)
{
	struct sim_host *h = &w->hosts[world_below(w, w->host_count)];

	return h->crashed ? NULL : h;
}

/* ---- hosts ---- */

static void recoverer_dies(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	if (w->ending || life->host->life != life || life->host->crashed)
		return;
	w->counters[COUNT_crash_recoverer]++;
	host_crash(life->host, "while recovering another host");
}

void chaos_saw_recovery(struct life *life)
{
	struct world *w = life->w;

	if (w->ending || !w->hunts)
		return;
	w->hunts--;
	sim_at(w->sim, sim_now_ns(w->sim) + world_below(w, 200) * MSEC, recoverer_dies, life);
}

static void watchdog_fires(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	if (w->ending || life->host->life != life || life->host->crashed)
		return;
	w->counters[COUNT_watchdog]++;
	host_crash(life->host, "its watchdog fired");
}

static void freeze(struct sim_host *h, uint64_t ns)
{
	struct world *w = h->w;
	uint64_t now = sim_now_ns(w->sim);

	world_trace(w, "host %u is frozen for %llu ms", h->number, (unsigned long long)(ns / MSEC));
	w->counters[ns > LEASE_NS ? COUNT_freeze_long : COUNT_freeze]++;
	h->frozen_ns = now + ns;
	sim_host_freeze(h->env, h->frozen_ns);
	if (w->rung == RUNG_WAIT && ns > LEASE_NS)
		sim_at(w->sim, now + LEASE_NS, watchdog_fires, h->life);
}

/* ---- the moments of a hand-over ---- */

static void handover_crash(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	if (w->ending || life->host->life != life || life->host->crashed)
		return;
	w->counters[COUNT_crash_handover]++;
	host_crash(life->host, "amid a hand-over");
}

static void handover_freeze(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	if (w->ending || life->host->life != life || life->host->crashed)
		return;
	w->counters[COUNT_freeze_handover]++;
	freeze(life->host, (world_chance(w, 50) ? world_below(w, 4500) : 5000 + world_below(w, 10000)) * MSEC);
}

void chaos_saw_handover(struct life *from, struct life *to)
{
	struct world *w = from->w;
	uint64_t dice = world_below(w, 100), at = sim_now_ns(w->sim);
	struct life *life = world_chance(w, 60) ? from : to;

	/* Soon after it has begun, or when the receiver has it by now. */
	at += world_chance(w, 60) ? world_below(w, 60) * MSEC : world_below(w, 2000) * MSEC;
	if (dice < 20)
		sim_at(w->sim, at, handover_crash, life);
	else if (dice < 30)
		sim_at(w->sim, at, handover_freeze, life);
}

static void chaos_freeze(struct world *w)
{
	struct sim_host *h = pick_host(w);

	if (h)
		freeze(h, (world_chance(w, 40) ? 200 + world_below(w, 4500) :
			   5000 + world_below(w, 15000)) * MSEC);
}

static uint64_t delay_ns(struct world *w)
{
	uint64_t max = w->rung == RUNG_WAIT ? 6000 : 14000;

	return (world_chance(w, 50) ? world_below(w, 1500) : world_below(w, max)) * MSEC;
}

/* A write has left the gate and is under way when the host stops, and lands after its lease. */
static void chaos_freeze_write(struct world *w)
{
	struct sim_host *h = pick_host(w);
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 2 };
	unsigned int busy = 0;

	if (!h)
		return;
	rule.host = h->env;
	rule.delay_ns = (w->rung == RUNG_WAIT ? 3000 + world_below(w, 3000) :
			 5000 + world_below(w, 9000)) * MSEC;
	simdisk_inject(w->disk, &rule);
	for (unsigned int i = 0; i < 200 && busy < 3 && !h->crashed; i++) {
		world_sleep(w, 5 * MSEC);
		busy = simdisk_is_busy(w->disk, h->env) ? busy + 1 : 0;
	}
	if (h->crashed || h->env != rule.host)
		return;
	w->counters[COUNT_freeze_write]++;
	freeze(h, 4000 * MSEC + world_below(w, 12000) * MSEC);
}

static void chaos_crash(struct world *w)
{
	struct sim_host *h = pick_host(w);

	if (!h)
		return;
	if (world_chance(w, 30))
		w->hunts = 1 + world_chance(w, 50);
	host_crash(h, "chaos");
}

static void chaos_jump(struct world *w)
{
	struct sim_host *h = pick_host(w);

	if (!h)
		return;
	w->counters[COUNT_jump]++;
	world_trace(w, "real time of host %u jumps", h->number);
	sim_host_jump(h->env, (int64_t)(world_below(w, 20000) * MSEC) - (int64_t)(5 * SEC));
}

/* ---- commands ---- */

static void aim(struct world *w, struct simdisk_rule *rule)
{
	const struct super *s = &w->super;

	switch (world_below(w, 5)) {
	case 0:
		rule->off = s->slots_addr;
		rule->len = s->slot_count * (uint64_t)BLOCK_SIZE;
		break;
	case 1:
		rule->off = s->journals_addr;
		rule->len = s->slot_count * s->journal_size;
		break;
	case 2:
		rule->off = s->ag_addr;
		rule->len = s->size - s->ag_addr;
		break;
	default:
		break;
	}
}

const char *const sim_fault_names[FAULTS] = {
	[SIMDISK_FAIL] = "failed, not applied", [SIMDISK_FAIL_APPLIED] = "failed, applied",
	[SIMDISK_TIMEOUT] = "timed out, not applied",
	[SIMDISK_TIMEOUT_APPLIED] = "timed out, applied",
	[SIMDISK_TIMEOUT_LATE] = "timed out, applied later", [SIMDISK_DELAY] = "delayed",
	[SIMDISK_CORRUPT] = "bit flipped", [SIMDISK_NOSPC] = "refused for want of space",
	[SIMDISK_TWICE] = "sent twice",
	[SIMDISK_HOLD] = "held by a frozen host",
};
const char *const sim_op_names[OPS] = {
	[BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_FLUSH] = "flush",
	[BLK_DISCARD] = "discard", [BLK_ZERO] = "zero", [BLK_CAW] = "caw",
};

bool sim_fault_can(enum simdisk_fault fault, enum blk_op op)
{
	/* A unit test's: lockd/caw.c is told what it did. */
	if (fault == SIMDISK_TWICE)
		return false;
	if (fault == SIMDISK_NOSPC || fault == SIMDISK_CORRUPT)
		return op == (fault == SIMDISK_NOSPC ? BLK_WRITE : BLK_READ);
	/* The filesystem writes its zeros itself. */
	return op != BLK_ZERO && (fault != SIMDISK_HOLD || op != BLK_FLUSH);
}

static void struck(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	struct world *w = arg;

	w->struck[rule->fault][op]++;
}

/* A few commands of one kind meet one fault. */
static void chaos_command(struct world *w)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT, SIMDISK_TIMEOUT_APPLIED,
		SIMDISK_TIMEOUT_LATE, SIMDISK_DELAY, SIMDISK_DELAY, SIMDISK_NOSPC };
	static const unsigned int ops[] = {
		1u << BLK_CAW, 1u << BLK_CAW, 1u << BLK_CAW, 1u << BLK_WRITE, 1u << BLK_WRITE,
		1u << BLK_READ, 1u << BLK_FLUSH, 1u << BLK_DISCARD,
		1u << BLK_READ | 1u << BLK_WRITE | 1u << BLK_CAW, OPS_ALL };
	struct simdisk_rule rule = { .struck = struck, .arg = w };
	struct sim_host *h = pick_host(w);

	if (!h)
		return;
	rule.host = world_chance(w, 70) ? h->env : NULL;
	rule.fault = faults[world_below(w, ARRAY_SIZE(faults))];
	rule.skip = world_below(w, 6);
	rule.count = 1 + world_below(w, 3);
	rule.delay_ns = delay_ns(w);
	rule.ops = rule.fault == SIMDISK_NOSPC ? 1u << BLK_WRITE :
		   ops[world_below(w, ARRAY_SIZE(ops))];
	if (!(rule.ops & (1u << BLK_FLUSH | 1u << BLK_DISCARD)))
		aim(w, &rule);
	world_trace(w, "rule: %s for ops %#x of host %d, %llu after %llu at %#llx, %llu ms",
		    sim_fault_names[rule.fault], rule.ops, rule.host ? (int)h->number : -1,
		    (unsigned long long)rule.count, (unsigned long long)rule.skip,
		    (unsigned long long)rule.off, (unsigned long long)(rule.delay_ns / MSEC));
	simdisk_inject(w->disk, &rule);
}

/* What the filesystem can notice: blocks with a checksum, by their header. */
static bool has_checksum(void *arg, uint64_t off, const void *block)
{
	struct world *w = arg;
	const struct meta_hdr_disk *h = block;

	(void)off;
	return memcmp(h->volume, w->super.volume, sizeof(h->volume)) == 0;
}

static void chaos_corrupt(struct world *w)
{
	struct simdisk_rule rule = { .fault = SIMDISK_CORRUPT, .ops = 1u << BLK_READ, .count = 1,
				     .may_corrupt = has_checksum, .struck = struck, .arg = w };

	if (!w->corrupts)
		return;
	rule.skip = world_below(w, 4);
	aim(w, &rule);
	world_trace(w, "rule: corrupt read at %#llx", (unsigned long long)rule.off);
	simdisk_inject(w->disk, &rule);
}

/* ---- the worst moment to stand still ---- */

static void hold_freezes(void *arg)
{
	struct sim_host *h = arg;
	struct world *w = h->w;

	if (w->ending || h->crashed || !h->life)
		return;
	w->counters[COUNT_hold]++;
	freeze(h, h->hold_ns);
}

/* A command is past the lease check; its host freezes before it is sent. */
static void hold_strikes(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	struct sim_host *h = arg;
	struct world *w = h->w;

	w->struck[rule->fault][op]++;
	if (h->crashed || h->env != rule->host)
		return;
	/* Not here: the rest of the batch is on its way as well. */
	h->hold_ns = rule->delay_ns;
	sim_at(w->sim, sim_now_ns(w->sim), hold_freezes, h);
}

static void chaos_hold(struct world *w)
{
	static const enum blk_op ops[] = { BLK_WRITE, BLK_WRITE, BLK_WRITE, BLK_CAW, BLK_CAW,
					   BLK_READ, BLK_DISCARD };
	struct sim_host *h = pick_host(w);
	struct simdisk_rule rule = { .fault = SIMDISK_HOLD, .count = 1, .struck = hold_strikes };

	if (!h)
		return;
	rule.arg = h;
	rule.host = h->env;
	rule.ops = 1u << ops[world_below(w, ARRAY_SIZE(ops))];
	rule.skip = world_below(w, 8);
	rule.delay_ns = (world_chance(w, 20) ? 300 + world_below(w, 5000) :
			 6000 + world_below(w, 14000)) * MSEC;
	simdisk_inject(w->disk, &rule);
}

/* A lock is taken or given up, nobody knows if, and the record cannot be read for a while. */
static void unclear_strikes(void *arg, const struct simdisk_rule *rule, enum blk_op op)
{
	struct sim_host *h = arg;
	struct world *w = h->w;
	struct simdisk_rule blind = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ, .host = rule->host,
				      .off = rule->off, .len = rule->len, .struck = struck, .arg = w };

	w->struck[rule->fault][op]++;
	w->counters[COUNT_unclear]++;
	blind.until_ns = sim_now_ns(w->sim) + (300 + world_below(w, 2500)) * MSEC;
	simdisk_inject(w->disk, &blind);
}

static void chaos_unclear(struct world *w)
{
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT, SIMDISK_TIMEOUT_APPLIED,
		SIMDISK_TIMEOUT_LATE };
	struct sim_host *h = pick_host(w);
	struct simdisk_rule rule = { .struck = unclear_strikes, .ops = 1u << BLK_CAW, .count = 1 };

	if (!h)
		return;
	rule.arg = h;
	rule.host = h->env;
	rule.off = w->super.ag_addr;
	rule.len = w->super.size - w->super.ag_addr;
	rule.fault = faults[world_below(w, ARRAY_SIZE(faults))];
	rule.skip = world_below(w, 8);
	rule.delay_ns = world_below(w, 1500) * MSEC;
	simdisk_inject(w->disk, &rule);
}

/* A write that everybody has given up lands when somebody else may hold what it is addressed to. */
static void chaos_late_write(struct world *w)
{
	struct sim_host *h = pick_host(w);
	struct simdisk_rule rule = { .fault = SIMDISK_TIMEOUT_LATE, .ops = 1u << BLK_WRITE, .count = 1,
				     .struck = struck, .arg = w };

	if (!h)
		return;
	rule.host = h->env;
	rule.off = w->super.ag_addr;
	rule.len = w->super.size - w->super.ag_addr;
	rule.skip = world_below(w, 4);
	rule.delay_ns = delay_ns(w);
	simdisk_inject(w->disk, &rule);
}

/*
 * Every command of a host fails at once, until its path is back; or all are carried out, and only
 * the answers are lost.
 */
static void chaos_path_loss(struct world *w)
{
	struct sim_host *h = pick_host(w);
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = OPS_ALL, .struck = struck,
				     .arg = w };
	uint64_t ns = (world_chance(w, 60) ? world_below(w, 4000) : world_below(w, 20000)) * MSEC;

	if (!h)
		return;
	if (world_chance(w, 40))
		rule.fault = SIMDISK_FAIL_APPLIED;
	w->counters[COUNT_path_lost]++;
	world_trace(w, "host %u loses its path for %llu ms", h->number,
		    (unsigned long long)(ns / MSEC));
	rule.host = h->env;
	rule.until_ns = sim_now_ns(w->sim) + ns;
	simdisk_inject(w->disk, &rule);
}

static void chaos_stall(struct world *w)
{
	struct sim_host *h = world_chance(w, 70) ? pick_host(w) : NULL;
	uint64_t ns = (world_chance(w, 50) ? world_below(w, 3000) :
		       world_below(w, w->rung == RUNG_WAIT ? 6000 : 15000)) * MSEC;

	w->counters[h ? COUNT_stall_one : COUNT_stall_all]++;
	world_trace(w, "stall of %d for %llu ms", h ? (int)h->number : -1,
		    (unsigned long long)(ns / MSEC));
	simdisk_stall(w->disk, h ? h->env : NULL, sim_now_ns(w->sim) + ns);
}

static void chaos_power_cut(struct world *w)
{
	if (w->counters[COUNT_power_cut] >= POWER_CUTS_MAX)
		return;
	w->counters[COUNT_power_cut]++;
	for (unsigned int i = 0; i < w->host_count; i++) {
		host_crash(&w->hosts[i], "power cut");
		w->hosts[i].rebooted = true;
	}
	/* On one machine all see the same new boot. */
	for (unsigned int i = 0; i <= w->host_count; i++)
		w->hosts[i].boot_id[1]++;
	simdisk_power_cut(w->disk, SIMDISK_KEEP_RANDOM);
	rules_power_cut(w);
}

static void come_back(struct world *w)
{
	for (unsigned int i = 0; i < w->host_count; i++) {
		struct sim_host *h = &w->hosts[i];

		if (h->crashed && sim_now_ns(w->sim) >= h->back_ns &&
		    w->life_count + 2 * HOSTS_MAX < LIVES_MAX) {
			world_trace(w, "host %u comes back", i);
			host_start(h);
		}
	}
}

static void chaos_detach(struct world *w)
{
	struct sim_host *h = pick_host(w);

	if (h && h->life)
		h->life->stop = true;
}

static void chaos_step(struct world *w)
{
	static const struct {
		unsigned int weight;
		void (*fn)(struct world *w);
	} kinds[] = {
		{ 15, chaos_crash }, { 12, chaos_freeze }, { 6, chaos_freeze_write },
		{ 9, chaos_hold }, { 25, chaos_command }, { 3, chaos_unclear }, { 4, chaos_late_write }, { 8, chaos_stall },
		{ 4, chaos_path_loss }, { 4, chaos_jump }, { 4, chaos_corrupt },
		{ 2, chaos_power_cut }, { 4, chaos_detach } };
	unsigned int dice = (unsigned int)world_below(w, 100), i = 0;

	while (dice >= kinds[i].weight)
		dice -= kinds[i++].weight;
	kinds[i].fn(w);
}

static uint64_t takeovers(const struct world *w)
{
	return w->counters[COUNT_slot_retire] + w->counters[COUNT_slot_self_live];
}

/* Each run has its share of everything that matters. */
static bool is_enough(const struct world *w)
{
	return w->commands >= w->steps && w->counters[COUNT_detach] &&
	       w->counters[COUNT_crash] >= CRASHES_MIN && takeovers(w) >= TAKEOVERS_MIN;
}

static void chaos_missing(struct world *w)
{
	if (!w->counters[COUNT_detach])
		chaos_detach(w);
	else
		chaos_crash(w);
}

void chaos_run(struct world *w)
{
	uint64_t pause = 500 + world_below(w, 4000), next = 0;
	uint64_t start_ns = sim_now_ns(w->sim), calm_ns = start_ns + CALM_NS;

	/* Takeovers take longer there. */
	pause *= w->rung == RUNG_WAIT ? 3 : 1;
	while (!w->violations && sim_now_ns(w->sim) < start_ns + RUN_NS && !is_enough(w)) {
		come_back(w);
		if (sim_now_ns(w->sim) >= next) {
			if (w->commands < w->steps)
				chaos_step(w);
			else
				chaos_missing(w);
			next = sim_now_ns(w->sim) + world_below(w, 2 * pause) * MSEC;
		}
		/* Hosts that are never left alone get nothing done. */
		if (sim_now_ns(w->sim) >= calm_ns) {
			pause += pause / 2;
			calm_ns += CALM_NS;
		}
		world_sleep(w, 100 * MSEC);
	}
}
