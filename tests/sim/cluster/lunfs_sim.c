// SPDX-License-Identifier: Apache-2.0
/* One run of the simulator from its seed; soak.c makes many. */
#include "tests/sim/cluster/rules.h"
#include "tests/sim/cluster/soak.h"
#include "tests/sim/cluster/work.h"

#include <stdarg.h>
#include <unistd.h>

#include "base/crc32c.h"


#define TIME_MAX_NS	(3 * 3600 * SEC)

#define SIM_COUNTER_NAME(symbol, text)	[COUNT_##symbol] = text,
const char *const sim_counter_names[COUNTER_COUNT] = { SIM_COUNTERS(SIM_COUNTER_NAME) };
#undef SIM_COUNTER_NAME

void world_mix(struct world *w, uint64_t v)
{
	w->hash = (w->hash ^ v) * 0x9e3779b97f4a7c15ull;
	w->hash ^= w->hash >> 29;
}

void world_trace(struct world *w, const char *fmt, ...)
{
	char line[1200];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	world_mix(w, crc32c(0, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1));
	if (w->trace)
		printf("%10.4f %s\n", (double)sim_now_ns(w->sim) / 1e9, line);
}

void world_violation(struct world *w, const char *fmt, ...)
{
	char line[sizeof(w->first)];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (!w->violations++)
		memcpy(w->first, line, sizeof(line));
	world_trace(w, "VIOLATION: %s", line);
}

/* ---- the world before the first host ---- */

static enum rung pick_rung(struct world *w)
{
	uint64_t dice = world_below(w, 100);

	if (dice < 45)
		return RUNG_RESERVATION;
	if (dice < 75)
		return RUNG_KILL;
	return dice < 93 ? RUNG_WAIT : RUNG_UNSAFE;
}

static void world_make(struct world *w, const struct run_params *p)
{
	static const enum sim_counter rungs[] = {
		COUNT_rung_reservation, COUNT_rung_kill, COUNT_rung_wait, COUNT_rung_unsafe };
	struct simdisk_params dp = { .sector = 512, .latency_min_ns = 20000, .random_contents = true };

	w->seed = p->seed;
	w->steps = p->steps;
	w->trace = p->trace;
	w->watch = p->watch;
	w->sim = sim_new(p->seed);
	w->costs_fd = p->costs_fd;
	w->rung = w->costs_fd ? RUNG_RESERVATION : pick_rung(w);
	w->counters[rungs[w->rung]]++;
	/* By 9 % a lease of 5 s and a suspicion after 6 s would meet. */
	w->drift_max_ppm = world_chance(w, 50) ? 10000 : 80000;
	w->corrupts = world_chance(w, 25);
	w->host_count = 3 + (unsigned int)world_below(w, 6);
	if (p->hosts)
		w->host_count = p->hosts;
	else if (p->seed % MANY_HOSTS_EVERY == MANY_HOSTS_EVERY - 1)
		w->host_count = HOSTS_MAX;
	/* As many steps for each of them as there are for one of few. */
	if (w->host_count > MANY_HOSTS)
		w->steps *= w->host_count / MANY_HOSTS;
	dp.reservations = w->rung == RUNG_RESERVATION;
	dp.inflight_ns_max = w->rung == RUNG_WAIT ? 20 * SEC : 0;
	dp.latency_max_ns = 200000 + world_below(w, 3000000);
	dp.size = world_chance(w, 30) ? 80 * MIB : (1 + world_below(w, 4)) * GIB;
	w->disk = simdisk_new(w->sim, &dp);
	if (world_chance(w, 50))
		sim_preempt(w->sim, 1 + (unsigned int)world_below(w, 100));
	w->env = sim_host(w->sim, "observer");
	for (unsigned int i = 0; i <= HOSTS_MAX; i++) {
		w->hosts[i].w = w;
		w->hosts[i].number = i;
		memset(w->hosts[i].boot_id, w->rung == RUNG_KILL ? 0xb0 : 0x10 + (int)i, 16);
	}
}

static void make_volume(struct world *w)
{
	struct mkfs_params p = { .env = w->env, .label = "sim", .slot_count = w->host_count + 1,
				 .journal_size = JOURNAL_SIZE_MIN };
	char why[400] = "";
	int err;

	p.dev = simdisk_open(w->disk, w->env);
	err = mkfs(&p, &w->super, why, sizeof(why));
	if (err)
		world_violation(w, "mkfs: %d %s", err, why);
	blkdev_close(p.dev);
}

/* The directories that everything happens in, made by the first host before the others come. */
static void make_dirs(struct world *w, struct fs *fs)
{
	static const struct fs_cred cred = { .pid = 1, .comm = "make" };
	struct fs_attr attr;

	for (unsigned int i = 0; i < DIRS; i++) {
		if (fs_create(fs, fs_root(fs), w->model->dirs[i].name, S_IFDIR | 0755, 0, &cred, &attr))
			world_violation(w, "the first directories cannot be made");
		w->model->dirs[i].id = attr.id;
	}
	if (images_make(w, fs) || multi_make(w, fs))
		world_violation(w, "the first disks and shared files cannot be made");
}

static void first_thread(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	if (life_attach(life)) {
		world_violation(w, "the first host cannot attach");
		return;
	}
	make_dirs(w, life->fs);
	if (fs_detach(life->fs))
		world_violation(w, "the first host cannot detach");
	blkdev_close(life->hb_dev);
	blkdev_close(life->dev);
	life->dead = life->over = true;
}

static void world_thread(void *arg)
{
	struct world *w = arg;
	struct env_thread *thread;
	struct life *life;

	make_volume(w);
	model_start(w);
	rules_start(w);
	watch_start(w);
	transitions_start(w);
	life = life_new(&w->hosts[HOSTS_MAX]);
	if (env_thread_start(life->env, "first", first_thread, life, &thread))
		abort();
	env_thread_join(w->hosts[HOSTS_MAX].env, thread);
	w->hosts[HOSTS_MAX].env = NULL;
	if (w->costs_fd) {
		costs_run(w, w->costs_fd);
		w->over = true;
		return;
	}
	for (unsigned int i = 0; i < w->host_count && !w->violations; i++)
		host_start(&w->hosts[i]);
	chaos_run(w);
	finish_run(w);
	w->over = true;
}

static void count_fates(struct world *w)
{
	struct simdisk_fates f;

	simdisk_fates(w->disk, &f);
	w->counters[COUNT_torn] = f.torn;
	w->counters[COUNT_cut_kept] = f.cut_kept;
	w->counters[COUNT_cut_lost] = f.cut_lost;
	w->counters[COUNT_cut_torn] = f.cut_torn;
}

void run_seed(const struct run_params *p, struct run_result *r)
{
	struct world *w = calloc(1, sizeof(*w));
	struct env_thread *thread;

	if (!w)
		abort();
	world_make(w, p);
	world_trace(w, "seed %llu: %u hosts, rung %d, %u slots", (unsigned long long)p->seed,
		    w->host_count, (int)w->rung, w->host_count + 1);
	if (env_thread_start(w->env, "world", world_thread, w, &thread))
		abort();
	sim_run(w->sim, TIME_MAX_NS);
	if (!w->over)
		world_violation(w, "the run does not end: somebody waits for ever");
	count_fates(w);
	for (unsigned int i = 0; i < COUNTER_COUNT; i++)
		world_mix(w, w->counters[i]);
	r->violations = w->violations;
	r->unsafe = w->rung == RUNG_UNSAFE;
	r->hosts = w->host_count;
	r->hash = w->hash;
	r->commands = w->commands;
	r->ns = sim_now_ns(w->sim);
	memcpy(r->counters, w->counters, sizeof(r->counters));
	memcpy(r->struck, w->struck, sizeof(r->struck));
	memcpy(r->first, w->first, sizeof(r->first));
	/* The world is left to the end of the process: crashed hosts' memory is lost anyway. */
}
