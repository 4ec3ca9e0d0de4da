// SPDX-License-Identifier: Apache-2.0
/* Hosts' lives: attach, work, detach, crash, come back. */
#include "tests/sim/cluster/rules.h"

#define PID_BASE	1000u
#define WATCHDOG_NS	(5 * SEC)

struct life *life_of_dev(struct world *w, const struct blkdev *dev)
{
	for (unsigned int i = w->life_count; dev && i-- > 0;)
		if (w->lives[i].dev == dev || w->lives[i].hb_dev == dev)
			return &w->lives[i];
	return NULL;
}

struct life *life_of_env(struct world *w, const struct env *env)
{
	for (unsigned int i = 0; i <= HOSTS_MAX; i++)
		if (w->hosts[i].env == env)
			return w->hosts[i].life;
	return NULL;
}

struct life *life_of_slot(struct world *w, uint32_t slot, uint32_t generation)
{
	for (unsigned int i = w->life_count; i-- > 0;)
		if (w->lives[i].slot == slot && w->lives[i].generation == generation)
			return &w->lives[i];
	return NULL;
}

struct life *life_of_pid(struct world *w, uint32_t pid)
{
	return pid - PID_BASE < w->life_count ? &w->lives[pid - PID_BASE] : NULL;
}

static void host_log(void *arg, enum log_level level, const char *line)
{
	struct sim_host *h = arg;

	if (level <= LOG_LEVEL_INFO)
		world_trace(h->w, "  host %u: %s", h->number, line);
	transitions_logged(line);
	if (strstr(line, "we hold it, and it names somebody else") || strstr(line, "a later owner of our own"))
		world_violation(h->w, "R1: host %u: %s", h->number, line);
}

struct life *life_new(struct sim_host *h)
{
	struct world *w = h->w;
	struct life *life;
	char name[16];

	if (w->life_count == LIVES_MAX)
		abort();
	if (!h->env) {
		snprintf(name, sizeof(name), "host-%u", h->number);
		h->env = sim_host(w->sim, name);
		sim_host_log(h->env, host_log, h);
		h->drift_ppm = (int64_t)world_below(w, 2 * w->drift_max_ppm + 1) -
			       (int64_t)w->drift_max_ppm;
		sim_host_drift(h->env, h->drift_ppm);
		w->counters[COUNT_drift]++;
	}
	life = &w->lives[w->life_count];
	*life = (struct life){ .w = w, .host = h, .env = h->env, .slot = SLOT_NONE,
			       .pid = PID_BASE + w->life_count };
	w->life_count++;
	h->life = life;
	return life;
}

/* One machine's fencing: the process is ended, and waited for until its commands are. */
static int life_kill(void *arg, const struct slot *victim)
{
	struct life *life = arg;
	struct world *w = life->w;
	uint64_t begin = sim_now_ns(w->sim);
	struct life *dead = life_of_pid(w, victim->pid);

	if (!dead)
		return -ESRCH;
	if (!sim_host_crashed(dead->env) && dead->host->life == dead) {
		w->counters[COUNT_killed]++;
		host_crash(dead->host, "killed by another host");
	}
	do {
		env_sleep_until(life->env, env_now_ns(life->env) + 20 * MSEC);
		if (sim_now_ns(w->sim) - begin > 10 * SEC)
			return -ETIMEDOUT;
	} while (simdisk_is_busy(w->disk, dead->env));
	return 0;
}

int life_attach(struct life *life)
{
	struct sim_host *h = life->host;
	struct world *w = life->w;
	struct fs_attach_params p = { .env = life->env, .pid = life->pid, .pid_start = 1 };
	char why[400];
	int err;

	life->dev = p.dev = simdisk_open(w->disk, life->env);
	life->hb_dev = p.hb_dev = simdisk_open(w->disk, life->env);
	memset(p.host_id, (int)h->number + 1, sizeof(p.host_id));
	memcpy(p.boot_id, h->boot_id, sizeof(p.boot_id));
	snprintf(p.host_name, sizeof(p.host_name), "host-%u", h->number);
	p.watchdog = w->rung == RUNG_WAIT;
	p.flags = w->rung == RUNG_UNSAFE ? FS_FORCE_UNSAFE : 0;
	if (w->rung == RUNG_KILL) {
		p.kill = life_kill;
		p.kill_arg = life;
	}
	/* The lock file of a process goes with it, and it goes after its last command. */
	p.own_slot_is_dead = !h->rebooted && !h->old_env;
	life->attaching = true;
	err = fs_attach(&p, &life->fs, why, sizeof(why));
	life->attaching = false;
	world_trace(w, "host %u life %u attaches: %d %s", h->number, life->pid, err, why);
	if (err) {
		blkdev_close(life->hb_dev);
		blkdev_close(life->dev);
		life->over = true;
		return err;
	}
	if (life->slot != lockd_slot(life->fs->lockd) ||
	    life->generation != lockd_generation(life->fs->lockd))
		world_violation(w, "life %u believes that it has slot %u/%u, the LUN saw %u/%u",
				life->pid, lockd_slot(life->fs->lockd),
				lockd_generation(life->fs->lockd), life->slot, life->generation);
	life->attached = true;
	return 0;
}

static void life_detach(struct life *life)
{
	struct world *w = life->w;
	bool was_lost = fs_is_lost(life->fs);
	int err;

	life->attached = false;
	err = fs_detach(life->fs);
	life->fs = NULL;
	blkdev_close(life->hb_dev);
	blkdev_close(life->dev);
	life->over = true;
	world_trace(w, "host %u life %u detaches: %d%s", life->host->number, life->pid, err,
		    was_lost ? " (lost)" : "");
	w->counters[was_lost ? COUNT_lost : COUNT_detach]++;
	if (!err && !life->dead)
		model_synced(w->model, life, w->model->changes);
	model_died(w->model, life);
}

static void life_work(struct life *life)
{
	struct env_thread *threads[WORKERS];
	unsigned int n = 0;

	for (unsigned int i = 0; i < WORKERS; i++)
		if (!env_thread_start(life->env, "worker", work_thread, life, &threads[n]))
			n++;
	while (n > 0)
		env_thread_join(life->env, threads[--n]);
}

static void host_thread(void *arg)
{
	struct sim_host *h = arg;
	struct world *w = h->w;
	int err;

	/* An old process's device handle is closed when its commands have ended. */
	while (h->old_env && !h->rebooted && simdisk_is_busy(w->disk, h->old_env))
		env_sleep_until(h->env, env_now_ns(h->env) + 50 * MSEC);
	if (h->old_env)
		simdisk_reconnect(w->disk, h->old_env, h->env);
	h->old_env = h->rebooted ? h->old_env : NULL;
	while (!w->stop) {
		struct life *life = h->life;

		if (life->dev)
			life = life_new(h);
		h->note.killed = h->note.killed && !h->rebooted;
		err = life_attach(life);
		h->rebooted = false;
		h->old_env = NULL;
		if (!err) {
			vdisks_resume(life);
			life_work(life);
			life_detach(life);
		} else {
			model_died(w->model, life);
		}
		if (w->life_count + 2 * HOSTS_MAX > LIVES_MAX)
			break;
		env_sleep_until(h->env, env_now_ns(h->env) + (100 + world_below(w, 2000)) * MSEC);
	}
}

void host_start(struct sim_host *h)
{
	struct env_thread *thread;

	h->crashed = false;
	h->env = NULL;
	life_new(h);
	if (env_thread_start(h->env, "host", host_thread, h, &thread))
		abort();
}

void host_crash(struct sim_host *h, const char *why)
{
	struct world *w = h->w;

	if (h->crashed || !h->env)
		return;
	world_trace(w, "host %u life %u crashes: %s", h->number, h->life->pid, why);
	w->counters[COUNT_crash]++;
	w->counters[COUNT_crash_joining] += h->life->attaching;
	h->crashed = true;
	h->old_env = h->env;
	rules_died(w, h->life);
	/* On one machine only processes die; elsewhere it is the machine, or the process. */
	h->rebooted = w->rung != RUNG_KILL && world_chance(w, 50);
	vdisk_killed(h);
	model_died(w->model, h->life);
	if (h->rebooted)
		h->boot_id[0]++;
	h->back_ns = sim_now_ns(w->sim) + (200 + world_below(w, 20000)) * MSEC;
	h->frozen_ns = 0;
	sim_host_crash(h->env);
}
