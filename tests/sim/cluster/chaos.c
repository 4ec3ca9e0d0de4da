// SPDX-License-Identifier: Apache-2.0
/* What befalls hosts, commands and the LUN. */
#include "tests/sim/cluster/sim.h"

#define LEASE_NS	(5 * SEC)

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

static void chaos_command(struct world *w)
{
	static const enum sim_counter counters[] = {
		[SIMDISK_FAIL] = COUNT_fail, [SIMDISK_FAIL_APPLIED] = COUNT_fail_applied,
		[SIMDISK_TIMEOUT] = COUNT_timeout, [SIMDISK_TIMEOUT_APPLIED] = COUNT_timeout_applied,
		[SIMDISK_TIMEOUT_LATE] = COUNT_timeout_late, [SIMDISK_DELAY] = COUNT_delay,
		[SIMDISK_NOSPC] = COUNT_nospc,
	};
	static const enum simdisk_fault faults[] = {
		SIMDISK_FAIL, SIMDISK_FAIL_APPLIED, SIMDISK_TIMEOUT, SIMDISK_TIMEOUT_APPLIED,
		SIMDISK_TIMEOUT_LATE, SIMDISK_DELAY, SIMDISK_DELAY, SIMDISK_NOSPC };
	struct simdisk_rule rule = { .ops = 1u << BLK_READ | 1u << BLK_WRITE | 1u << BLK_CAW };
	struct sim_host *h = pick_host(w);

	if (!h)
		return;
	rule.host = world_chance(w, 70) ? h->env : NULL;
	rule.fault = faults[world_below(w, ARRAY_SIZE(faults))];
	rule.skip = world_below(w, 6);
	rule.count = 1 + world_below(w, 3);
	rule.delay_ns = delay_ns(w);
	if (world_chance(w, 40))
		rule.ops = 1u << BLK_CAW;
	else if (world_chance(w, 50))
		rule.ops = 1u << BLK_WRITE;
	if (rule.fault == SIMDISK_NOSPC)
		rule.ops = 1u << BLK_WRITE;
	aim(w, &rule);
	world_trace(w, "rule: fault %d for ops %#x of host %d, %llu after %llu at %#llx, %llu ms",
		    (int)rule.fault, rule.ops, rule.host ? (int)h->number : -1,
		    (unsigned long long)rule.count, (unsigned long long)rule.skip,
		    (unsigned long long)rule.off, (unsigned long long)(rule.delay_ns / MSEC));
	w->counters[counters[rule.fault]]++;
	simdisk_inject(w->disk, &rule);
}

/* Only where a checksum shows it: slots and group headers. */
static void chaos_corrupt(struct world *w)
{
	struct simdisk_rule rule = { .fault = SIMDISK_CORRUPT, .ops = 1u << BLK_READ, .count = 1 };

	if (!w->corrupts)
		return;
	rule.off = world_chance(w, 50) ? w->super.slots_addr : w->super.ag_addr + BLOCK_SIZE;
	rule.len = BLOCK_SIZE;
	w->counters[COUNT_corrupt]++;
	world_trace(w, "rule: corrupt read at %#llx", (unsigned long long)rule.off);
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
	if (w->counters[COUNT_power_cut] || !world_chance(w, 30))
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

static void chaos_step(struct world *w)
{
	uint64_t dice = world_below(w, 100);

	if (dice < 16)
		chaos_crash(w);
	else if (dice < 30)
		chaos_freeze(w);
	else if (dice < 40)
		chaos_freeze_write(w);
	else if (dice < 76)
		chaos_command(w);
	else if (dice < 84)
		chaos_stall(w);
	else if (dice < 88)
		chaos_jump(w);
	else if (dice < 92)
		chaos_corrupt(w);
	else if (dice < 95)
		chaos_power_cut(w);
	else if (w->hosts[dice % w->host_count].life)
		w->hosts[dice % w->host_count].life->stop = true;	/* it detaches */
}

void chaos_run(struct world *w)
{
	uint64_t pause = 500 + world_below(w, 4000), next = 0;
	uint64_t end_ns = sim_now_ns(w->sim) + 2 * 3600 * SEC;

	/* Takeovers take longer there. */
	pause *= w->rung == RUNG_WAIT ? 3 : 1;
	while (w->commands < w->steps && !w->violations && sim_now_ns(w->sim) < end_ns) {
		come_back(w);
		if (sim_now_ns(w->sim) >= next) {
			chaos_step(w);
			next = sim_now_ns(w->sim) + world_below(w, 2 * pause) * MSEC;
		}
		world_sleep(w, 100 * MSEC);
	}
}
