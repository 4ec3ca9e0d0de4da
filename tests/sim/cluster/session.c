// SPDX-License-Identifier: Apache-2.0
/* What hosts do with the contents of a file that they have open. */
#include "tests/sim/cluster/work.h"

#define RUN_MAX	40u	/* cells a request */

/* ---- results ---- */

/* @err as an operation gave it: anything that a user could not expect is a violation. */
void work_result(struct life *life, const char *what, uint64_t id, int err)
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
	/* Disks and files of several writers: frozen meanwhile, too deep, marked otherwise. */
	case -EPERM: case -ELOOP: case -EROFS: case -ENOMEDIUM:
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

bool session_counts(const struct session *s)
{
	return !s->life->dead && (!s->f->writer || s->f->writer == s->life);
}

/* For people: which cells the next result is about. */
static void show_run(const struct session *s, const char *what, unsigned int cell, unsigned int n,
		     uint64_t stamp)
{
	if (s->life->w->trace)
		world_trace(s->life->w, "  host %u: %s cells %u +%u of %#llx, write %llu",
			    s->life->host->number, what, cell, n, (unsigned long long)s->f->id,
			    (unsigned long long)stamp);
}

unsigned int session_pick(struct world *w, unsigned int *cell)
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
	unsigned int cell, n = session_pick(w, &cell);
	bool counted = session_counts(s);
	size_t done = 0;
	int err;

	for (unsigned int i = 0; i < n; i++) {
		cell_fill(s->f->tag, cell + i, stamp, s->buf + i * CELL);
		if (!counted)
			continue;
		chance_issue(&s->f->cells[cell + i], stamp);
		s->f->cells[cell + i].by = s->life;
	}
	show_run(s, "write", cell, n, stamp);
	err = fs_write(s->life->fs, s->file, cell_off(cell), s->buf, n * CELL, false, &done);
	work_result(s->life, "write", s->f->id, err);
	for (unsigned int i = 0; session_counts(s) && i < n; i++) {
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
	if (!cell_parse(s->f->tag, cell, buf, &stamp)) {
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
	else if (settle && !c->certain)
		chance_settle(c, stamp);
}

/* @settle: what is read is what it stays; else it may still change (a write's fate is open). */
int session_read(struct session *s, unsigned int cell, unsigned int n, bool settle)
{
	size_t done = 0;
	int err;

	memset(s->buf, 0, n * CELL);
	err = s->disk ? vdisk_read(s, cell, n, &done) :
	      fs_read(s->life->fs, s->file, cell_off(cell), s->buf, n * CELL, &done);
	work_result(s->life, "read", s->f->id, err);
	if (err)
		return err;
	memset(s->buf + done, 0, n * CELL - done);
	for (unsigned int i = 0; session_counts(s) && i < n; i++)
		check_cell(s, cell + i, s->buf + i * CELL, settle);
	return 0;
}

static int session_fsync(struct session *s)
{
	bool data_only = world_chance(s->life->w, 50);
	int err = fs_fsync(s->life->fs, s->file, data_only);

	work_result(s->life, "fsync", s->f->id, err);
	for (unsigned int i = 0; !err && session_counts(s) && i < CELLS; i++)
		chance_durable(&s->f->cells[i]);
	for (unsigned int i = 0; !err && !data_only && session_counts(s) && i < XATTRS; i++)
		if (s->f->xattr_writer == s->life && !s->f->xattr_busy)
			chance_durable(&s->f->xattrs[i]);
	return err;
}

/* Zeros from @cell on (@n of them): truncations and holes. */
static void zeros(struct session *s, unsigned int cell, unsigned int n, bool done, int err)
{
	for (unsigned int i = cell; session_counts(s) && i < cell + n && i < CELLS; i++) {
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

	show_run(s, "truncate to", cell, CELLS, 0);
	zeros(s, cell, CELLS, false, 0);
	err = fs_setattr(s->life->fs, s->file->id, FS_SET_SIZE, &attr);
	work_result(s->life, "truncate", s->f->id, err);
	zeros(s, cell, CELLS, true, err);
	return err;
}

static int session_allocate(struct session *s)
{
	struct world *w = s->life->w;
	unsigned int cell, n = session_pick(w, &cell), flags = (unsigned int)world_below(w, 3);
	bool clears = flags != 0;
	int err;

	flags = flags == 1 ? FILE_PUNCH | FILE_KEEP_SIZE : flags == 2 ? FILE_ZERO : 0;
	if (clears)
		zeros(s, cell, n, false, 0);
	show_run(s, flags == 0 ? "allocate" : clears && flags == FILE_ZERO ? "zero" : "punch", cell, n, 0);
	err = fs_fallocate(s->life->fs, s->file, flags, cell_off(cell), n * CELL);
	work_result(s->life, "fallocate", s->f->id, err);
	if (clears)
		zeros(s, cell, n, true, err);
	return err;
}

static int session_step(struct session *s, bool write)
{
	struct world *w = s->life->w;
	uint64_t dice = world_below(w, 100);
	unsigned int cell, n;

	if (write && s->image && world_chance(w, 25))
		return image_step(s);
	if (s->disk)
		return vdisk_step(s, write);
	if (!write || dice < 30) {
		n = session_pick(w, &cell);
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

/*
 * Is what was opened as @id what the model takes it for?  A crash undid its creation and somebody
 * got the same id again: another file by now.
 */
static bool session_is_right(const struct session *s, uint64_t id, bool write)
{
	return s->image ? image_opened(s, id, write) : s->f->id == id;
}

/* The file's lock is ours, and nothing of others is on its way: what is there, stays. */
static int session_begin(struct session *s, uint64_t id, bool write)
{
	struct life *life = s->life;
	bool other;
	int err;

	if (s->via_disk) {
		err = s->incoming ? vdisk_receive(s, id) : vdisk_open(s, id, write);
	} else {
		err = fs_open(life->fs, id, write ? FS_OPEN_WRITE : 0, &work_cred, &s->file, NULL);
		work_result(life, write ? "open to write" : "open to read", id, err);
	}
	if (!err && !session_is_right(s, id, write))
		return -ESTALE;
	if (err)
		return err;
	other = s->f->writer != life;
	if (life->dead)
		return 0;
	if (s->resume)
		vdisk_resumed(s);
	model_opened(s->f, life, write);
	if (s->disk)
		vdisk_opened(s);
	for (unsigned int i = 0; other && !err && i < WINDOWS; i++)
		err = session_read(s, i * WINDOW_CELLS, WINDOW_CELLS, true);
	return err;
}

static void work_session(struct session *s, uint64_t id, bool write)
{
	struct life *life = s->life, **busy = &s->f->busy[life->host->number];
	int err;

	if (*busy == life)
		return;
	*busy = life;
	s->buf = blkdev_alloc(WINDOW_CELLS * CELL);
	err = session_begin(s, id, write);
	if (!err)
		session_run(s, write);
	if (s->file)
		fs_close(life->fs, s->file);
	if (s->disk)
		vdisk_close(s);
	free(s->buf);
	*busy = NULL;
}

void work_file(struct life *life, struct mfile *f, uint64_t id, struct mimage *image, bool write)
{
	struct session s = { .life = life, .f = f, .image = image,
			     .change = image ? image->change : 0 };

	work_session(&s, id, write);
}

void work_disk(struct life *life, struct mimage *image, uint64_t id, bool write)
{
	struct session s = { .life = life, .f = image->file, .image = image,
			     .change = image->change, .via_disk = true };

	work_session(&s, id, write);
}

void work_disk_receive(struct life *life, struct mimage *image, uint64_t id)
{
	struct session s = { .life = life, .f = image->file, .image = image,
			     .change = image->change, .via_disk = true, .incoming = true };

	work_session(&s, id, true);
}

void work_disk_resume(struct life *life, struct mimage *image, uint64_t id,
		      struct disk_claim *claim, bool was_shut)
{
	struct session s = { .life = life, .f = image->file, .image = image,
			     .change = image->change, .via_disk = true, .resume = claim,
			     .was_shut = was_shut };

	work_session(&s, id, true);
}
