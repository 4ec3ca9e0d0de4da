// SPDX-License-Identifier: Apache-2.0
/*
 * Disks: created, snapshotted while they are open, cloned, reverted, deleted and merged.  What a
 * name shows is the model's, whichever inode it leads to: a crash may leave the one or the other.
 */
#include "tests/sim/cluster/work.h"

#include "fs/image.h"

#define MERGE_STEPS	6u

static unsigned int slot_of(const struct model *m, const struct mimage *im)
{
	return (unsigned int)(im - m->images);
}

/* Nobody is at it, on any host; the dead do not count. */
static bool is_idle(struct life *life, struct mimage *im)
{
	if (im->busy && im->busy->dead)
		im->busy = NULL;
	return !im->busy && im->file->busy[life->host->number] != life;
}

static bool is_there(const struct mimage *im)
{
	return im->there.certain && im->there.cur;
}

/* Certainly nothing, also after a crash: what is made there is not confused with what was. */
static bool is_vacant(struct life *life, struct mimage *im)
{
	return is_idle(life, im) && im->there.certain && !im->there.cur && !im->there.count;
}

static struct mimage *pick(struct life *life)
{
	struct world *w = life->w;

	return &w->model->images[world_below(w, ARRAY_SIZE(w->model->images))];
}

/* Another one of @im's family. */
static struct mimage *pick_relative(struct life *life, const struct mimage *im)
{
	struct world *w = life->w;
	unsigned int family = slot_of(w->model, im) / IMAGES;

	return &w->model->images[family * IMAGES + world_below(w, IMAGES)];
}

static void trace(const struct life *life, const struct mimage *im)
{
	world_trace(life->w, "  %s: %llu, %s, %u%s", im->name, (unsigned long long)im->there.cur,
		    im->there.certain ? "certain" : "in doubt", im->there.count,
		    im->there.any ? ", or any" : "");
}

/* Under the directory's lock @im's name leads nowhere: what others did with it is home (R4). */
static void saw_none(struct life *life, struct mimage *im)
{
	if (im->there.certain && im->there.cur)
		world_violation(life->w, "R4: host %u finds %s gone", life->host->number, im->name);
	else
		chance_settle(&im->there, 0);
	image_home(im, life);
}

/* The inode that @im's name leads to; 0: none. */
static uint64_t look_up(struct life *life, struct mimage *im)
{
	struct fs_attr attr;
	uint64_t change = im->change;
	bool idle = is_idle(life, im);
	int err = fs_lookup(life->fs, life->w->model->images_dir, im->name, &attr);

	work_result(life, "lookup of a disk", err ? 0 : attr.id, err);
	if (err == -ENOENT && !life->dead && idle && is_idle(life, im) && im->change == change)
		saw_none(life, im);
	trace(life, im);
	return err ? 0 : attr.id;
}

int images_make(struct world *w, struct fs *fs)
{
	struct fs_attr attr;
	int err = fs_create(fs, fs_root(fs), "disks", S_IFDIR | 0755, 0, &work_cred, &attr);

	w->model->images_dir = err ? 0 : attr.id;
	return err;
}

/* ---- operations that make or remove a name ---- */

/* What the dead do in memory never comes to be. */
static void begin(struct life *life, struct mimage *im, uint64_t there)
{
	if (life->dead)
		return;
	im->busy = life;
	im->before = im->there;
	im->change = ++life->w->model->changes;
	chance_issue(&im->there, there);
}

/* It is as it was, whoever made it that, and may still be lost with him. */
static void refused(struct mimage *im)
{
	bool doubted = im->before.certain && !im->there.certain;

	im->there = im->before;
	if (doubted)
		chance_doubt(&im->there);
}

/* Returns whether the model is to know what came of it. */
static bool end(struct life *life, struct mimage *im, uint64_t there, int err)
{
	if (im->busy != life)
		return false;
	im->busy = NULL;
	im->change = ++life->w->model->changes;
	if (life->dead) {
		chance_doubt(&im->there);
	} else if (err && work_is_refusal(err)) {
		refused(im);
	} else if (err) {
		chance_doubt(&im->there);
		im->unsynced[life->host->number] = life;
	} else {
		chance_ack(&im->there, there);
		image_changed(im, life);
	}
	trace(life, im);
	return !life->dead && !err;
}

/* What @im will show if it comes to be: zeros, or what @from shows now. */
static void show(struct mimage *im, const struct mimage *from)
{
	struct mfile *f = im->file;

	f->id = 0;
	f->writer = NULL;
	for (unsigned int i = 0; i < CELLS; i++) {
		const struct chance *c = from ? &from->file->cells[i] : NULL;

		if (c && !c->certain)
			f->cells[i] = *c;
		else
			chance_set(&f->cells[i], c ? c->cur : 0);
		f->cells[i].by = NULL;
	}
}

static void do_create(struct life *life, struct mimage *im)
{
	struct world *w = life->w;
	struct fs_attr attr = { 0 };
	int err;

	if (!is_vacant(life, im))
		return;
	begin(life, im, 1);
	im->frozen = false;
	show(im, NULL);
	err = fs_create(life->fs, w->model->images_dir, im->name, S_IFREG | 0644, 0, &work_cred,
			&attr);
	work_result(life, "create of a disk", attr.id, err);
	w->counters[COUNT_image_create] += !err;
	if (end(life, im, 1, err))
		model_claim(w->model, im->file, attr.id);
}

static void do_delete(struct life *life, struct mimage *im)
{
	int err;

	if (!is_idle(life, im) || (im->there.certain && !im->there.cur))
		return;
	begin(life, im, 0);
	err = fs_unlink(life->fs, life->w->model->images_dir, im->name);
	work_result(life, "delete of a disk", im->file->id, err);
	life->w->counters[COUNT_image_delete] += !err;
	if (err == -ENOENT && im->busy == life && !life->dead && is_there(im))
		world_violation(life->w, "R4: host %u finds %s gone", life->host->number, im->name);
	end(life, im, 0, err);
}

static void do_clone(struct life *life, struct mimage *base)
{
	struct world *w = life->w;
	struct mimage *im = pick_relative(life, base);
	struct fs_attr attr = { 0 };
	uint64_t id;
	int err;

	if (!is_there(base) || !base->frozen || !is_vacant(life, im))
		return;
	id = look_up(life, base);
	if (!id || !is_there(base) || !base->frozen || !is_vacant(life, im))
		return;
	begin(life, im, 1);
	im->frozen = false;
	show(im, base);
	err = fs_clone(life->fs, id, w->model->images_dir, im->name, false, &work_cred, &attr);
	work_result(life, "clone of a disk", attr.id, err);
	w->counters[COUNT_image_clone] += !err;
	if (!end(life, im, 1, err))
		return;
	image_durable(im);
	model_claim(w->model, im->file, attr.id);
}

/* ---- back to a snapshot ---- */

static void revert_begin(struct mimage *im, const struct mimage *base)
{
	for (unsigned int i = 0; i < CELLS; i++) {
		struct chance *c = &im->file->cells[i];

		chance_issue(c, base->file->cells[i].cur);
		c->any = c->any || !base->file->cells[i].certain;
		c->certain = false;
	}
}

static void do_revert(struct life *life, struct mimage *base)
{
	struct world *w = life->w;
	struct mimage *im = pick_relative(life, base);
	struct fs_attr attr = { 0 };
	uint64_t id;
	int err;

	if (im == base || !is_there(base) || !base->frozen || !is_there(im) || im->frozen)
		return;
	id = look_up(life, base);
	if (!id || !is_there(base) || !base->frozen || !is_there(im) || im->frozen ||
	    !is_idle(life, im) || life->dead)
		return;
	im->busy = life;
	revert_begin(im, base);
	err = fs_clone(life->fs, id, w->model->images_dir, im->name, true, &work_cred, &attr);
	work_result(life, "revert of a disk", attr.id, err);
	w->counters[COUNT_image_revert] += !err;
	if (im->busy != life)
		return;
	im->busy = NULL;
	im->change = ++w->model->changes;
	if (life->dead || (err && !work_is_refusal(err))) {
		/* Somebody may have had it before, and written. */
		revert_begin(im, base);
	} else if (!err) {
		show(im, base);
		model_claim(w->model, im->file, attr.id);
	}
}

/* ---- in a session ---- */

bool image_opened(const struct session *s, uint64_t id, bool write)
{
	struct mimage *im = s->image;
	struct model *m = s->life->w->model;

	if (s->life->dead)
		return true;
	/*
	 * A disk that was snapshotted meanwhile is another inode now: the old one cannot be opened for
	 * writing, being frozen, but for reading.
	 */
	if (!write && !im->frozen && im->file->id != id)
		return false;
	if ((im->busy && !im->busy->dead) || im->change != s->change ||
	    (im->there.certain && !im->there.cur))
		return false;
	chance_settle(&im->there, 1);
	model_claim(m, im->file, id);
	return true;
}

static int do_snapshot(struct session *s)
{
	struct life *life = s->life;
	struct world *w = life->w;
	struct mimage *im = s->image, *snap = pick_relative(life, im);
	uint64_t old = s->disk ? vdisk_id(s) : s->file->id;
	bool inflight[CELLS] = { false };
	struct fs_attr attr = { 0 };
	int err;

	if (!session_counts(s) || !is_vacant(life, snap) || im->busy)
		return 0;
	begin(life, snap, 1);
	snap->frozen = true;
	show(snap, im);
	if (s->disk) {
		vdisk_inflight(s, inflight);
		err = vdisk_snapshot(s, im->name, snap, &attr);
	} else {
		err = fs_snapshot(life->fs, w->model->images_dir, im->name, snap->name, s->file, &attr);
	}
	work_result(life, "snapshot of a disk", old, err);
	w->counters[COUNT_image_snapshot] += !err;
	if (!end(life, snap, 1, err))
		return err && !work_is_refusal(err) ? err : 0;
	image_durable(snap);
	for (unsigned int i = 0; i < CELLS; i++)
		if (!inflight[i])
			chance_durable(&im->file->cells[i]);
	model_claim(w->model, im->file, attr.id);
	model_claim(w->model, snap->file, old);
	return 0;
}

static int do_merge(struct session *s)
{
	unsigned int steps = 1 + (unsigned int)world_below(s->life->w, MERGE_STEPS);
	struct merge m = { 0 };
	int err = 1;

	while (steps-- && err > 0) {
		uint64_t units = m.units_moved + m.blocks_copied;

		err = s->disk ? vdisk_merge_step(s, &m) : fs_merge_step(s->life->fs, s->file, &m);
		work_result(s->life, "merge", s->f->id, err > 0 ? 0 : err);
		s->life->w->counters[COUNT_image_merge] += err >= 0 && m.units_moved + m.blocks_copied > units;
		s->life->w->counters[COUNT_image_merged] += err == 1 && !m.unit;
	}
	return err < 0 && !work_is_refusal(err) ? err : 0;
}

int image_step(struct session *s)
{
	return world_chance(s->life->w, 45) ? do_snapshot(s) : do_merge(s);
}

static void do_session(struct life *life, struct mimage *im)
{
	uint64_t id, change = im->change;

	if (!is_idle(life, im) || (im->there.certain && !im->there.cur))
		return;
	id = look_up(life, im);
	if (!id || !is_idle(life, im) || im->change != change)
		return;
	if (world_chance(life->w, 50))
		work_disk(life, im, id, !im->frozen && world_chance(life->w, 85));
	else
		work_file(life, im->file, id, im, !im->frozen && world_chance(life->w, 85));
}

void images_step(struct life *life)
{
	uint64_t dice = world_below(life->w, 100);

	if (dice < 60)
		do_session(life, pick(life));
	else if (dice < 70)
		do_create(life, pick(life));
	else if (dice < 80)
		do_delete(life, pick(life));
	else if (dice < 92)
		do_clone(life, pick(life));
	else
		do_revert(life, pick(life));
}
