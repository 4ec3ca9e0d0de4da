// SPDX-License-Identifier: Apache-2.0
/* The end of a run: everything crashes, one fresh host recovers, all is compared. */
#include "tests/sim/cluster/sim.h"

static const struct fs_cred cred = { .pid = 1, .comm = "finish" };

static void finding(void *arg, const struct check_finding *f)
{
	struct world *w = arg;

	world_trace(w, "check: %s: %s", check_code_info(f->code)->name, f->text);
	if (check_code_info(f->code)->severity == CHECK_ERROR)
		world_violation(w, "check: %s at %#llx: %s", check_code_info(f->code)->name,
				(unsigned long long)f->addr, f->text);
}

static void check_all(struct world *w)
{
	struct check_params p = { .env = w->env, .report = finding, .arg = w };
	struct check_result r;
	char why[400] = "";
	int err;

	p.dev = simdisk_open(w->disk, w->env);
	err = check_volume(&p, &r, why, sizeof(why));
	if (err)
		world_violation(w, "check: cannot be done: %d %s", err, why);
	blkdev_close(p.dev);
}

/* Everything stops at once; what was not flushed may be lost. */
static void stop_all(struct world *w)
{
	w->stop = true;
	w->ending = true;
	simdisk_clear_rules(w->disk);
	simdisk_stall(w->disk, NULL, 0);
	for (unsigned int i = 0; i < w->host_count; i++) {
		host_crash(&w->hosts[i], "the end");
		w->hosts[i].boot_id[1]++;
	}
	w->hosts[HOSTS_MAX].boot_id[1]++;
	w->counters[COUNT_power_cut]++;
	simdisk_power_cut(w->disk, SIMDISK_KEEP_RANDOM);
	rules_power_cut(w);
}

static unsigned int slots_taken(struct world *w, uint32_t self)
{
	uint8_t sector[META_SECTOR_SIZE];
	unsigned int n = 0;
	struct slot s;

	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		uint64_t addr = w->super.slots_addr + (uint64_t)i * BLOCK_SIZE;

		simdisk_peek(w->disk, addr, sector, sizeof(sector));
		if (slot_decode(sector, w->super.volume, addr, i, &s, NULL, 0))
			world_violation(w, "slot %u is damaged at the end", i);
		n += i != self && s.state != SLOT_FREE;
	}
	return n;
}

/* The dead are recovered one after the other, on rung B with a wait of 20 s for each. */
static void wait_recovered(struct world *w, struct life *life)
{
	unsigned int eights = (w->host_count + MANY_HOSTS - 1) / MANY_HOSTS;
	uint64_t end_ns = sim_now_ns(w->sim) + eights * 600 * SEC;

	while (slots_taken(w, life->slot) && sim_now_ns(w->sim) < end_ns && !w->violations)
		world_sleep(w, 500 * MSEC);
	if (sim_now_ns(w->sim) >= end_ns)
		world_violation(w, "%u slots were never recovered", slots_taken(w, life->slot));
}

/* ---- comparison with the model ---- */

static void compare_cells(struct world *w, struct mfile *f, unsigned int window,
			  const uint8_t *buf)
{
	for (unsigned int i = 0; i < WINDOW_CELLS; i++) {
		unsigned int cell = window * WINDOW_CELLS + i;
		const struct chance *c = &f->cells[cell];
		uint64_t stamp;

		if (!cell_parse(f->id, cell, buf + i * CELL, &stamp))
			world_violation(w, "R8: at the end file %#llx cell %u holds what was never "
					"written there", (unsigned long long)f->id, cell);
		else if (!chance_allows(c, stamp))
			world_violation(w, "R7: at the end file %#llx cell %u holds write %llu; allowed "
					"is %s%llu of %u", (unsigned long long)f->id, cell,
					(unsigned long long)stamp, c->certain ? "only " : "not ",
					(unsigned long long)c->cur, c->count);
	}
}

static void compare_file(struct world *w, struct fs *fs, struct mfile *f)
{
	uint8_t *buf = blkdev_alloc(WINDOW_CELLS * CELL);
	struct fs_file *file;
	size_t done;
	int err = fs_open(fs, f->id, 0, &cred, &file, NULL);

	if (err) {
		world_violation(w, "at the end file %#llx cannot be opened: %d",
				(unsigned long long)f->id, err);
		free(buf);
		return;
	}
	for (unsigned int i = 0; i < WINDOWS; i++) {
		memset(buf, 0, WINDOW_CELLS * CELL);
		err = fs_read(fs, file, cell_off(i * WINDOW_CELLS), buf, WINDOW_CELLS * CELL, &done);
		if (err)
			world_violation(w, "at the end file %#llx cannot be read: %d",
					(unsigned long long)f->id, err);
		else
			memset(buf + done, 0, WINDOW_CELLS * CELL - done);
		if (!err)
			compare_cells(w, f, i, buf);
	}
	w->counters[COUNT_final_files]++;
	fs_close(fs, file);
	free(buf);
}

static void compare_name(struct world *w, struct fs *fs, struct mdir *dir, struct mname *n)
{
	struct fs_attr attr = { 0 };
	struct mfile *f;
	int err = fs_lookup(fs, dir->id, n->name, &attr);
	uint64_t id = err ? 0 : attr.id;

	w->counters[COUNT_final_names]++;
	if (err && err != -ENOENT) {
		world_violation(w, "at the end lookup fails: %d", err);
		return;
	}
	if (!chance_allows(&n->id, id))
		world_violation(w, "R7: at the end %s/%.12s is inode %#llx; allowed is %s%#llx of %u",
				dir->name, n->name, (unsigned long long)id,
				n->id.certain ? "only " : "not ", (unsigned long long)n->id.cur,
				n->id.count);
	f = id ? model_file(w->model, id) : NULL;
	/* An object whose creation was cut off may have the id of one that was undone before. */
	if (n->id.any && !n->id.certain)
		return;
	if (f && !f->is_dir)
		compare_file(w, fs, f);
}

static void compare_all(struct world *w, struct fs *fs)
{
	for (unsigned int i = 0; i < DIRS * NAMES; i++)
		compare_name(w, fs, &w->model->dirs[i / NAMES],
			     &w->model->dirs[i / NAMES].names[i % NAMES]);
}

static void fresh_thread(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;
	int err = life_attach(life);

	if (err) {
		world_violation(w, "at the end no host can attach: %d", err);
		return;
	}
	wait_recovered(w, life);
	if (!w->violations)
		compare_all(w, life->fs);
	err = fs_detach(life->fs);
	if (err)
		world_violation(w, "at the end the fresh host cannot detach: %d", err);
	blkdev_close(life->hb_dev);
	blkdev_close(life->dev);
}

void finish_run(struct world *w)
{
	struct sim_host *h = &w->hosts[HOSTS_MAX];
	struct env_thread *thread;
	struct life *life;

	stop_all(w);
	if (w->violations)
		return;
	h->rebooted = true;
	life = life_new(h);
	if (env_thread_start(life->env, "fresh", fresh_thread, life, &thread))
		abort();
	env_thread_join(h->env, thread);
	if (!w->violations)
		check_all(w);
	w->end_ns = sim_now_ns(w->sim);
}
