// SPDX-License-Identifier: Apache-2.0
/* The end of a run: everything crashes, one fresh host recovers, all is compared. */
#include "tests/sim/cluster/sim.h"

#include "fs/image.h"

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

/* The dead are recovered one after the other, on rung B with a wait of 25 s for each. */
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

static void compare_cells(struct world *w, const struct mfile *f, const char *what,
			  unsigned int window, const uint8_t *buf)
{
	for (unsigned int i = 0; i < WINDOW_CELLS; i++) {
		unsigned int cell = window * WINDOW_CELLS + i;
		const struct chance *c = &f->cells[cell];
		uint64_t stamp;

		if (!cell_parse(f->tag, cell, buf + i * CELL, &stamp))
			world_violation(w, "R8: at the end %s cell %u holds what was never written there",
					what, cell);
		else if (!chance_allows(c, stamp))
			world_violation(w, "R7: at the end %s cell %u holds write %llu; allowed is "
					"%s%llu of %u", what, cell, (unsigned long long)stamp,
					c->certain ? "only " : "not ", (unsigned long long)c->cur,
					c->count);
	}
}

/* Contents of inode @id, which is what the model calls @f. */
static void compare_contents(struct world *w, struct fs *fs, uint64_t id, const struct mfile *f,
			     const char *what)
{
	uint8_t *buf = blkdev_alloc(WINDOW_CELLS * CELL);
	struct fs_file *file;
	size_t done;
	int err = fs_open(fs, id, 0, &cred, &file, NULL);

	if (err) {
		world_violation(w, "at the end %s cannot be opened: %d", what, err);
		free(buf);
		return;
	}
	for (unsigned int i = 0; i < WINDOWS; i++) {
		memset(buf, 0, WINDOW_CELLS * CELL);
		err = fs_read(fs, file, cell_off(i * WINDOW_CELLS), buf, WINDOW_CELLS * CELL, &done);
		if (err) {
			world_violation(w, "at the end %s cannot be read: %d", what, err);
			break;
		}
		memset(buf + done, 0, WINDOW_CELLS * CELL - done);
		compare_cells(w, f, what, i, buf);
	}
	fs_close(fs, file);
	free(buf);
}

static void compare_xattrs(struct world *w, struct fs *fs, const struct mfile *f)
{
	for (unsigned int i = 0; i < XATTRS; i++) {
		uint8_t buf[XATTR_MAX];
		uint64_t stamp = 0;
		size_t len;
		int err = xattr_get(fs, f->id, xattr_name(i), buf, sizeof(buf), &len);

		w->counters[COUNT_final_xattrs]++;
		if (err && err != -ENODATA)
			world_violation(w, "at the end attribute %u of %#llx cannot be read: %d", i,
					(unsigned long long)f->id, err);
		else if (!err && !xattr_parse(f->id, i, buf, len, &stamp))
			world_violation(w, "R8: at the end attribute %u of %#llx holds what was never set "
					"there", i, (unsigned long long)f->id);
		else if (!chance_allows(&f->xattrs[i], stamp))
			world_violation(w, "R7: at the end attribute %u of %#llx is %llu; allowed is "
					"%s%llu of %u", i, (unsigned long long)f->id,
					(unsigned long long)stamp, f->xattrs[i].certain ? "only " : "not ",
					(unsigned long long)f->xattrs[i].cur, f->xattrs[i].count);
	}
}

static void compare_file(struct world *w, struct fs *fs, const struct mfile *f)
{
	char what[40];

	snprintf(what, sizeof(what), "file %#llx", (unsigned long long)f->id);
	compare_contents(w, fs, f->id, f, what);
	compare_xattrs(w, fs, f);
	w->counters[COUNT_final_files]++;
}

/* Whichever inode its name leads to. */
static void compare_image(struct world *w, struct fs *fs, const struct mimage *im)
{
	struct fs_attr attr = { 0 };
	struct image_info info;
	int err = fs_lookup(fs, w->model->images_dir, im->name, &attr);

	if (err && err != -ENOENT)
		world_violation(w, "at the end lookup of %s fails: %d", im->name, err);
	else if (!chance_allows(&im->there, !err))
		world_violation(w, "R7: at the end %s %s", im->name, err ? "is gone" : "is there");
	if (err)
		return;
	err = fs_image_info(fs, attr.id, &info);
	if (err || info.frozen != im->frozen)
		world_violation(w, "at the end %s is %sfrozen (%d)", im->name, info.frozen ? "" : "not ",
				err);
	compare_contents(w, fs, attr.id, im->file, im->name);
	w->counters[COUNT_final_images]++;
}

static void compare_multi(struct world *w, struct fs *fs, const struct mmulti *m)
{
	uint8_t *buf = blkdev_alloc(MULTI_BLOCKS * BLOCK_SIZE);
	struct fs_file *file;
	size_t done = 0;
	int err = fs_open(fs, m->id, 0, &cred, &file, NULL);

	if (!err) {
		err = fs_read(fs, file, 0, buf, MULTI_BLOCKS * BLOCK_SIZE, &done);
		fs_close(fs, file);
	}
	if (err || done != MULTI_BLOCKS * BLOCK_SIZE)
		world_violation(w, "at the end %s cannot be read: %d", m->name, err);
	for (unsigned int i = 0; !err && i < MULTI_CELLS; i++) {
		uint64_t stamp;

		w->counters[COUNT_final_multi] += i % (BLOCK_SIZE / CELL) == 0;
		if (!cell_parse(m->id, i, buf + i * CELL, &stamp) ||
		    !chance_allows(&m->cells[i], stamp))
			world_violation(w, "R7: at the end %s cell %u holds write %llu; allowed is "
					"%s%llu of %u", m->name, i, (unsigned long long)stamp,
					m->cells[i].certain ? "only " : "not ",
					(unsigned long long)m->cells[i].cur, m->cells[i].count);
	}
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
	for (unsigned int i = 0; i < FAMILIES * IMAGES; i++)
		compare_image(w, fs, &w->model->images[i]);
	for (unsigned int i = 0; i < MULTIS; i++)
		compare_multi(w, fs, &w->model->multis[i]);
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
