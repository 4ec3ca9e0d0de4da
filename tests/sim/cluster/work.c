// SPDX-License-Identifier: Apache-2.0
/* What hosts do with files, and what they tell the model about it. */
#include "tests/sim/cluster/sim.h"

#include <linux/fs.h>

#define RUN_MAX	40u	/* cells a request */

static const struct fs_cred cred = { .uid = 1000, .gid = 100, .pid = 7, .comm = "worker" };

/* ---- results ---- */

/* @err as an operation gave it: anything that a user could not expect is a violation. */
static void result(struct life *life, const char *what, uint64_t id, int err)
{
	struct world *w = life->w;

	world_mix(w, (uint64_t)(int64_t)err);
	if (w->trace)
		world_trace(w, "host %u %s %#llx: %d", life->host->number, what,
			    (unsigned long long)id, err);
	switch (err) {
	case -ENOSPC:
		w->counters[COUNT_full]++;
		return;
	case 0: case -EBUSY: case -EAGAIN: case -EIO: case -ESTALE: case -ENOENT: case -EEXIST:
	case -ENOTEMPTY: case -ENOTDIR: case -EISDIR: case -EHOSTDOWN: case -EINVAL:
	case -ETIMEDOUT:
		return;
	case -EUCLEAN: case -EBADMSG:
		if (w->corrupts || w->rung == RUNG_UNSAFE)
			return;
		break;
	default:
		break;
	}
	if (!fs_is_lost(life->fs))
		world_violation(w, "%s of %#llx by life %u: error %d", what, (unsigned long long)id,
				life->pid, err);
}

/* ---- contents ---- */

struct session {
	struct life *life;
	struct mfile *f;
	struct fs_file *file;
	uint8_t *buf;
};

static bool counts(const struct session *s)
{
	return !s->life->dead && (!s->f->writer || s->f->writer == s->life);
}

static unsigned int pick_run(struct world *w, unsigned int *cell)
{
	unsigned int left, n;

	*cell = (unsigned int)world_below(w, CELLS);
	if (world_chance(w, 60))
		*cell = *cell / 8 * 8;
	left = WINDOW_CELLS - *cell % WINDOW_CELLS;
	n = 1 + (unsigned int)world_below(w, RUN_MAX);
	if (world_chance(w, 50))
		n = ALIGN_UP(n, 8u);
	return n < left ? n : left;
}

static int session_write(struct session *s)
{
	struct world *w = s->life->w;
	uint64_t stamp = ++w->model->stamp;
	unsigned int cell, n = pick_run(w, &cell);
	bool counted = counts(s);
	size_t done = 0;
	int err;

	for (unsigned int i = 0; i < n; i++) {
		cell_fill(s->f->id, cell + i, stamp, s->buf + i * CELL);
		if (!counted)
			continue;
		chance_issue(&s->f->cells[cell + i], stamp);
		s->f->cells[cell + i].by = s->life;
	}
	err = fs_write(s->life->fs, s->file, cell_off(cell), s->buf, n * CELL, false, &done);
	result(s->life, "write", s->f->id, err);
	for (unsigned int i = 0; counts(s) && i < n; i++) {
		if (!err && (i + 1) * CELL <= done)
			chance_ack(&s->f->cells[cell + i], stamp);
		else
			chance_doubt(&s->f->cells[cell + i]);
	}
	return err;
}

static void check_cell(struct session *s, unsigned int cell, const uint8_t *buf, bool settle)
{
	struct world *w = s->life->w;
	struct chance *c = &s->f->cells[cell];
	uint64_t stamp;

	w->counters[COUNT_reads]++;
	if (!cell_parse(s->f->id, cell, buf, &stamp)) {
		uint64_t words[4];

		memcpy(words, buf, sizeof(words));
		world_violation(w, "R8: file %#llx cell %u holds what was never written there: "
				"%llx %llx %llx %llx", (unsigned long long)s->f->id, cell,
				(unsigned long long)words[0], (unsigned long long)words[1],
				(unsigned long long)words[2], (unsigned long long)words[3]);
		return;
	}
	if (!chance_allows(c, stamp))
		world_violation(w, "R7: file %#llx cell %u reads as write %llu; allowed is %s%llu of %u",
				(unsigned long long)s->f->id, cell, (unsigned long long)stamp,
				c->certain ? "only " : "not ", (unsigned long long)c->cur, c->count);
	else if (settle && !c->certain) {
		c->cur = stamp;
		c->certain = true;
	}
}

/* @settle: what is read is what it stays; else it may still change (a write's fate is open). */
static int session_read(struct session *s, unsigned int cell, unsigned int n, bool settle)
{
	size_t done = 0;
	int err;

	memset(s->buf, 0, n * CELL);
	err = fs_read(s->life->fs, s->file, cell_off(cell), s->buf, n * CELL, &done);
	result(s->life, "read", s->f->id, err);
	if (err)
		return err;
	memset(s->buf + done, 0, n * CELL - done);
	for (unsigned int i = 0; counts(s) && i < n; i++)
		check_cell(s, cell + i, s->buf + i * CELL, settle);
	return 0;
}

static int session_fsync(struct session *s)
{
	int err = fs_fsync(s->life->fs, s->file, world_chance(s->life->w, 50));

	result(s->life, "fsync", s->f->id, err);
	for (unsigned int i = 0; !err && counts(s) && i < CELLS; i++)
		chance_durable(&s->f->cells[i]);
	return err;
}

/* Zeros from @cell on (@n of them): truncations and holes. */
static void zeros(struct session *s, unsigned int cell, unsigned int n, bool done, int err)
{
	for (unsigned int i = cell; counts(s) && i < cell + n && i < CELLS; i++) {
		s->f->cells[i].by = s->life;
		if (!done)
			chance_issue(&s->f->cells[i], 0);
		else if (!err)
			chance_ack(&s->f->cells[i], 0);
		else
			chance_doubt(&s->f->cells[i]);
	}
}

static int session_truncate(struct session *s)
{
	struct world *w = s->life->w;
	unsigned int cell = (unsigned int)world_below(w, CELLS);
	struct fs_attr attr = { .size = cell_off(cell) };
	int err;

	zeros(s, cell, CELLS, false, 0);
	err = fs_setattr(s->life->fs, s->f->id, FS_SET_SIZE, &attr);
	result(s->life, "truncate", s->f->id, err);
	zeros(s, cell, CELLS, true, err);
	return err;
}

static int session_allocate(struct session *s)
{
	struct world *w = s->life->w;
	unsigned int cell, n = pick_run(w, &cell), flags = (unsigned int)world_below(w, 3);
	bool clears = flags != 0;
	int err;

	flags = flags == 1 ? FILE_PUNCH | FILE_KEEP_SIZE : flags == 2 ? FILE_ZERO : 0;
	if (clears)
		zeros(s, cell, n, false, 0);
	err = fs_fallocate(s->life->fs, s->file, flags, cell_off(cell), n * CELL);
	result(s->life, "fallocate", s->f->id, err);
	if (clears)
		zeros(s, cell, n, true, err);
	return err;
}

static int session_step(struct session *s, bool write)
{
	struct world *w = s->life->w;
	uint64_t dice = world_below(w, 100);
	unsigned int cell, n;

	if (!write || dice < 30) {
		n = pick_run(w, &cell);
		return session_read(s, cell, n, false);
	}
	if (dice < 68)
		return session_write(s);
	if (dice < 83)
		return session_fsync(s);
	if (dice < 92)
		return session_truncate(s);
	return session_allocate(s);
}

static void session_run(struct session *s, bool write)
{
	struct life *life = s->life;
	struct world *w = life->w;
	unsigned int steps = 1 + (unsigned int)world_below(w, 8);
	int err = 0;

	for (unsigned int i = 0; i < steps && !err; i++) {
		err = session_step(s, write);
		if (world_chance(w, 20))
			env_sleep_until(life->env, env_now_ns(life->env) + world_below(w, 800) * MSEC);
	}
}

/* The file's lock is ours, and nothing of others is on its way: what is there, stays. */
static int session_begin(struct session *s, bool write)
{
	struct life *life = s->life;
	uint64_t id = s->f->id;
	bool other;
	int err;

	err = fs_open(life->fs, id, write ? FS_OPEN_WRITE : 0, &cred, &s->file, NULL);
	result(life, write ? "open to write" : "open to read", id, err);
	/* A crash undid its creation and somebody got the same id again: another file by now. */
	if (!err && s->f->id != id)
		return -ESTALE;
	if (err)
		return err;
	other = s->f->writer != life;
	if (life->dead)
		return 0;
	model_opened(s->f, life, write);
	for (unsigned int i = 0; other && !err && i < WINDOWS; i++)
		err = session_read(s, i * WINDOW_CELLS, WINDOW_CELLS, true);
	return err;
}

static void do_file(struct life *life, struct mfile *f, bool write)
{
	struct session s = { .life = life, .f = f };
	struct life **busy = &f->busy[life->host->number];
	int err;

	if (*busy == life)
		return;
	*busy = life;
	s.buf = blkdev_alloc(WINDOW_CELLS * CELL);
	err = session_begin(&s, write);
	if (!err)
		session_run(&s, write);
	if (s.file)
		fs_close(life->fs, s.file);
	free(s.buf);
	*busy = NULL;
}

/* ---- names ---- */

static struct mname *pick_name(struct life *life, struct mdir **dir)
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

/* Errors that say that nothing was changed. */
static bool is_refusal(int err)
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
	if (life->dead || (err && !is_refusal(err)))
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
	err = fs_create(life->fs, dir->id, n->name, is_dir ? S_IFDIR | 0755 : S_IFREG | 0644, 0, &cred,
			&attr);
	result(life, is_dir ? "mkdir" : "create", attr.id, err);
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
		if (!is_refusal(err)) {
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
	result(life, "remove", f ? f->id : 0, err);
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
	result(life, "rename", moved, err);
	if (err == -ENOENT && own && !life->dead && from->writer == life)
		world_violation(w, "name of %#llx is gone", (unsigned long long)moved);
	w->counters[COUNT_rename_dir] += !err && from_dir != to_dir && is_dir(w, moved);
	if (!err && names_were_undone(from, to))
		err = -EIO;	/* to the model: nothing is known of either */
	name_end(life, from, flags & RENAME_EXCHANGE ? over : 0, err);
	name_end(life, to, moved, err);
}

static bool name_leads_to(struct life *life, const struct mdir *dir, const struct mname *n,
			  uint64_t id)
{
	struct fs_attr attr;
	int err = fs_lookup(life->fs, dir->id, n->name, &attr);

	result(life, "lookup", err ? 0 : attr.id, err);
	return !err && attr.id == id;
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
	result(life, "link", id, err);
	name_end(life, to, id, err);
}

static void do_lookup(struct life *life)
{
	struct world *w = life->w;
	struct mdir *dir = &w->model->dirs[world_below(w, DIRS)];
	struct mname *n = &dir->names[world_below(w, NAMES)];
	struct fs_attr attr;
	bool known = n->id.any || n->busy || n->past_count > ARRAY_SIZE(n->past);
	int err = fs_lookup(life->fs, dir->id, n->name, &attr);

	result(life, "lookup", err ? 0 : attr.id, err);
	/* The dead still see what they made after they were given up. */
	if (err || known || life->dead || n->busy || n->id.any || n->past_count > ARRAY_SIZE(n->past))
		return;
	for (unsigned int i = 0; i < n->past_count; i++)
		known = known || n->past[i] == attr.id;
	if (!known)
		world_violation(w, "a name shows inode %#llx, which never had it",
				(unsigned long long)attr.id);
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

	result(life, "readdir", 0, fs_readdir(life->fs, w->model->dirs[world_below(w, DIRS)].id, 0,
					      count_entry, &n));
	world_mix(w, n);
}

static void do_sync(struct life *life)
{
	uint64_t change = life->w->model->changes;
	int err = fs_sync(life->fs);

	result(life, "sync", 0, err);
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
		do_file(life, f, write);
}

static void work_step(struct life *life)
{
	uint64_t dice = world_below(life->w, 100);

	if (dice < 42)
		do_one_file(life, true);
	else if (dice < 52)
		do_one_file(life, false);
	else if (dice < 66)
		do_create(life, false);
	else if (dice < 70)
		do_create(life, true);
	else if (dice < 77)
		do_remove(life);
	else if (dice < 85)
		do_rename(life);
	else if (dice < 88)
		do_link(life);
	else if (dice < 93)
		do_lookup(life);
	else if (dice < 95)
		do_list(life);
	else
		do_sync(life);
}

void work_thread(void *arg)
{
	struct life *life = arg;
	struct world *w = life->w;

	while (!w->stop && !life->stop && !fs_is_lost(life->fs)) {
		work_step(life);
		env_sleep_until(life->env, env_now_ns(life->env) + world_below(w, 300) * MSEC);
	}
}
