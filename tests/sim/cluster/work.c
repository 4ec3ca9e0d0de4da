// SPDX-License-Identifier: Apache-2.0
/* What hosts do with files, and what they tell the model about it. */
#include "tests/sim/cluster/work.h"

#include <linux/fs.h>

const struct fs_cred work_cred = { .uid = 1000, .gid = 100, .pid = 7, .comm = "worker" };

/* ---- names ---- */

struct mname *pick_name(struct life *life, struct mdir **dir)
{
	struct world *w = life->w;
	struct mname *n;

	*dir = &w->model->dirs[world_below(w, DIRS)];
	n = &(*dir)->names[world_below(w, NAMES)];
	if (n->busy && !n->busy->dead)
		return NULL;
	/* The dead hold nothing; what they were about to do is not known. */
	if (n->busy)
		n->past_count = ARRAY_SIZE(n->past) + 1;
	n->busy = NULL;
	n->creating = false;
	return n;
}

static void name_past(struct mname *n, uint64_t id)
{
	if (id && n->past_count < ARRAY_SIZE(n->past))
		n->past[n->past_count] = id;
	n->past_count += id != 0;
}

/* What a host does in memory after another has read its journal never comes to be. */
static void name_begin(struct life *life, struct mname *n, uint64_t value)
{
	if (life->dead)
		return;
	n->busy = life;
	chance_issue(&n->id, value);
	name_past(n, value);
}

bool work_is_refusal(int err)
{
	return err == -EBUSY || err == -EAGAIN || err == -EEXIST || err == -ENOTEMPTY ||
	       err == -ENOSPC || err == -EISDIR || err == -ENOTDIR || err == -EINVAL;
}

static void name_end(struct life *life, struct mname *n, uint64_t value, int err)
{
	/* It was dead when it began, or died since and somebody else has the name now. */
	if (n->busy != life)
		return;
	n->busy = NULL;
	if (life->dead || (err && !work_is_refusal(err)))
		chance_doubt(&n->id);
	else if (!err)
		chance_ack(&n->id, value);
	if (!err) {
		n->writer = life;
		n->change = ++life->w->model->changes;
	}
	world_trace(life->w, "  %.9s: %#llx, %s, %u", n->name, (unsigned long long)n->id.cur,
		    n->id.certain ? "certain" : "in doubt", n->id.count);
}

static void do_create(struct life *life, bool is_dir)
{
	struct fs_attr attr = { 0 };
	struct mdir *dir;
	struct mname *n = pick_name(life, &dir);
	bool certain_none;
	int err;

	if (!n)
		return;
	/* What others changed just now may not be at home yet, where lookups read it. */
	certain_none = n->id.certain && !n->id.cur && n->writer == life;
	if (!life->dead) {
		n->busy = life;
		n->creating = true;
	}
	err = fs_create(life->fs, dir->id, n->name, is_dir ? S_IFDIR | 0755 : S_IFREG | 0644, 0, &work_cred,
			&attr);
	work_result(life, is_dir ? "mkdir" : "create", attr.id, err);
	n->creating = n->creating && n->busy != life;
	/* Of the dead its id may be another file's by now, which is the one that exists. */
	if (!err && !life->dead)
		model_add(life->w->model, attr.id, is_dir);
	if (!err && n->id.certain && n->id.cur && !life->dead)
		world_violation(life->w, "%.9s exists as %#llx, and was created again", n->name,
				(unsigned long long)n->id.cur);
	if (err == -EEXIST && certain_none && !life->dead)
		world_violation(life->w, "%.9s does not exist, and cannot be created", n->name);
	if (n->busy != life)
		return;
	if (!err) {
		name_past(n, attr.id);
		chance_issue(&n->id, attr.id);
		name_end(life, n, attr.id, 0);
	} else {
		/* What it would have been called is not known: whatever has that name may be it. */
		if (!work_is_refusal(err)) {
			n->id.any = true;
			n->past_count = ARRAY_SIZE(n->past) + 1;
			chance_doubt(&n->id);
		}
		n->busy = NULL;
	}
}

static void do_remove(struct life *life)
{
	struct mdir *dir;
	struct mname *n = pick_name(life, &dir);
	struct mfile *f;
	bool own;
	int err;

	if (!n || (n->id.certain && !n->id.cur))
		return;
	f = n->id.certain ? model_file(life->w->model, n->id.cur) : NULL;
	own = n->writer == life;
	name_begin(life, n, 0);
	if (f && f->is_dir)
		err = fs_rmdir(life->fs, dir->id, n->name);
	else
		err = fs_unlink(life->fs, dir->id, n->name);
	if (err == -EISDIR)
		err = fs_rmdir(life->fs, dir->id, n->name);
	work_result(life, "remove", f ? f->id : 0, err);
	if (err == -ENOENT && f && own && n->id.certain && !life->dead && n->writer == life)
		world_violation(life->w, "name of %#llx is gone", (unsigned long long)f->id);
	name_end(life, n, 0, err);
}

static bool is_dir(struct world *w, uint64_t id)
{
	struct mfile *f = id ? model_file(w->model, id) : NULL;

	return f && f->is_dir;
}

/*
 * A name whose maker died while it was being moved may have led elsewhere by then: what that host
 * had not synced was undone first.
 */
static bool names_were_undone(struct mname *from, struct mname *to)
{
	if (from->id.certain && to->id.certain)
		return false;
	from->id.any = to->id.any = true;
	from->past_count = to->past_count = ARRAY_SIZE(from->past) + 1;
	return true;
}

static void do_rename(struct life *life)
{
	struct world *w = life->w;
	struct mdir *from_dir, *to_dir;
	struct mname *from = pick_name(life, &from_dir), *to = pick_name(life, &to_dir);
	uint64_t moved, over;
	unsigned int flags;
	bool own;
	int err;

	if (!from || !to || from == to || !from->id.certain || !to->id.certain || !from->id.cur ||
	    from->id.cur == to->id.cur)
		return;
	moved = from->id.cur;
	over = to->id.cur;
	flags = over && world_chance(w, 30) ? RENAME_EXCHANGE : world_chance(w, 20) ?
		RENAME_NOREPLACE : 0;
	own = from->writer == life;
	name_begin(life, from, flags & RENAME_EXCHANGE ? over : 0);
	name_begin(life, to, moved);
	err = fs_rename(life->fs, from_dir->id, from->name, to_dir->id, to->name, flags);
	work_result(life, "rename", moved, err);
	/* Of two that are exchanged the other one may have been undone, with the host that had made it. */
	if (err == -ENOENT && own && !life->dead && from->writer == life &&
	    (to->id.certain || !(flags & RENAME_EXCHANGE)))
		world_violation(w, "name of %#llx is gone", (unsigned long long)moved);
	w->counters[COUNT_rename_dir] += !err && from_dir != to_dir && is_dir(w, moved);
	if (!err && names_were_undone(from, to))
		err = -EIO;	/* to the model: nothing is known of either */
	name_end(life, from, flags & RENAME_EXCHANGE ? over : 0, err);
	name_end(life, to, moved, err);
}

/* What @n led to all the time: known before, and nobody came near it since. */
static bool name_stayed(const struct mname *n, const struct mname *before)
{
	return before->id.certain && !before->busy && n->id.certain && !n->busy &&
	       n->change == before->change && n->id.cur == before->id.cur;
}

/* A lookup by @life: whatever another host was told of is seen, at home or not (R4). */
static int look_up(struct life *life, const struct mdir *dir, const struct mname *n, uint64_t *id)
{
	struct mname before = *n;
	struct fs_attr attr;
	int err = fs_lookup(life->fs, dir->id, n->name, &attr);

	*id = err ? 0 : attr.id;
	work_result(life, "lookup", *id, err);
	if ((err && err != -ENOENT) || life->dead || !name_stayed(n, &before))
		return err;
	if (*id != n->id.cur)
		world_violation(life->w, "%.9s shows inode %#llx, and is %#llx", n->name,
				(unsigned long long)*id, (unsigned long long)n->id.cur);
	life->w->counters[COUNT_lookup_certain]++;
	return err;
}

bool name_leads_to(struct life *life, const struct mdir *dir, const struct mname *n,
			  uint64_t id)
{
	uint64_t found;

	return !look_up(life, dir, n, &found) && found == id;
}

static void do_link(struct life *life)
{
	struct world *w = life->w;
	struct mdir *from_dir, *to_dir;
	struct mname *from = pick_name(life, &from_dir), *to = pick_name(life, &to_dir);
	struct fs_attr attr;
	uint64_t id;
	int err;

	if (!from || !to || from == to || !from->id.certain || !to->id.certain || !from->id.cur ||
	    to->id.cur || is_dir(w, from->id.cur))
		return;
	id = from->id.cur;
	if (!name_leads_to(life, from_dir, from, id) || (to->busy && !to->busy->dead) ||
	    !to->id.certain || to->id.cur)
		return;
	name_begin(life, to, id);
	err = fs_link(life->fs, id, to_dir->id, to->name, &attr);
	work_result(life, "link", id, err);
	name_end(life, to, id, err);
}

static void do_lookup(struct life *life)
{
	struct world *w = life->w;
	struct mdir *dir = &w->model->dirs[world_below(w, DIRS)];
	struct mname *n = &dir->names[world_below(w, NAMES)];
	bool known = n->id.any || n->busy || n->past_count > ARRAY_SIZE(n->past);
	uint64_t id;
	int err = look_up(life, dir, n, &id);

	/* The dead still see what they made after they were given up. */
	if (err || known || life->dead || n->busy || n->id.any || n->past_count > ARRAY_SIZE(n->past))
		return;
	for (unsigned int i = 0; i < n->past_count; i++)
		known = known || n->past[i] == id;
	if (!known)
		world_violation(w, "a name shows inode %#llx, which never had it",
				(unsigned long long)id);
}

static int count_entry(void *arg, const struct dirent_info *d)
{
	unsigned int *n = arg;

	(void)d;
	++*n;
	return 0;
}

static void do_list(struct life *life)
{
	struct world *w = life->w;
	unsigned int n = 0;

	work_result(life, "readdir", 0, fs_readdir(life->fs, w->model->dirs[world_below(w, DIRS)].id, 0,
					      count_entry, &n));
	world_mix(w, n);
}

static void do_sync(struct life *life)
{
	uint64_t change = life->w->model->changes;
	int err = fs_sync(life->fs);

	work_result(life, "sync", 0, err);
	if (!err)
		model_synced(life->w->model, life, change);
}

static void do_one_file(struct life *life, bool write)
{
	struct mdir *dir;
	struct mname *n = pick_name(life, &dir);
	struct mfile *f;
	uint64_t id;

	if (!n || !n->id.certain || !n->id.cur)
		return;
	id = n->id.cur;
	/* A host knows files by their names: what only another's memory holds it cannot open. */
	if (!name_leads_to(life, dir, n, id))
		return;
	f = model_file(life->w->model, id);
	if (f && !f->is_dir)
		work_file(life, f, id, NULL, write);
}

static void do_write_file(struct life *life)
{
	do_one_file(life, true);
}

static void do_read_file(struct life *life)
{
	do_one_file(life, false);
}

static void do_create_file(struct life *life)
{
	do_create(life, false);
}

static void do_create_dir(struct life *life)
{
	do_create(life, true);
}

static void work_step(struct life *life)
{
	static const struct {
		unsigned int weight;
		void (*fn)(struct life *life);
	} kinds[] = {
		{ 27, do_write_file }, { 7, do_read_file }, { 11, do_create_file },
		{ 4, do_create_dir }, { 7, do_remove }, { 8, do_rename }, { 3, do_link },
		{ 4, do_lookup }, { 2, do_list }, { 5, do_sync }, { 4, xattr_step },
		{ 4, multi_step }, { 14, images_step } };
	unsigned int dice = (unsigned int)world_below(life->w, 100), i;

	for (i = 0; dice >= kinds[i].weight; i++)
		dice -= kinds[i].weight;
	kinds[i].fn(life);
}

void work_thread(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	while (!w->stop && !life->stop && !fs_is_lost(life->fs)) {
		work_receive(life);
		work_step(life);
		env_sleep_until(life->env, env_now_ns(life->env) + world_below(w, 300) * MSEC);
	}
}
