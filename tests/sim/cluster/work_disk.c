// SPDX-License-Identifier: Apache-2.0
/*
 * Disks as guests have them (fs/disk.h): several requests at a time, discards, zeroes, FUA, growth
 * and snapshots under way, and a killed process whose disks its successor resumes.
 */
#include "tests/sim/cluster/work.h"

#define REQUESTS	5u		/* under way at a time */
#define DISK_BYTES	(131 * MIB)	/* all windows are in it */
#define DISK_SMALL	(1 * MIB)

struct batch;

struct request {
	struct blk_io	io;
	struct iovec	iov;
	struct batch	*b;
	unsigned int	cell, n;
	uint64_t	stamp;		/* of what it leaves there; 0: zeros */
	bool		counted;	/* the model knows of it */
};

/* Requests under way together. */
struct batch {
	struct session	*s;
	struct env	*env;
	struct request	r[REQUESTS];
	unsigned int	count, pending;
	int		err;
	struct env_mutex mutex;
	struct env_cond	changed;
};

static uint64_t disk_size(const struct session *s)
{
	return blkdev_size(s->disk->rig.dev);
}

/* ---- open and shut ---- */

/* Others must find it as it was, once it is shut. */
void vdisk_note(struct session *s)
{
	struct disk_note *n = &s->life->host->note;

	if (s->life->dead || n->life != s->life || n->image != s->image)
		return;
	n->id = disk_id(s->disk->rig.disk);
	n->open = !s->disk->left && !disk_claim(s->disk->rig.disk, &n->claim);
	n->shut = s->disk->left && disk_left(s->disk->rig.disk, &n->claim);
	n->next = (struct disk_claim){ 0 };
}

static bool note_take(struct session *s)
{
	struct disk_note *n = &s->life->host->note;

	if (n->open || n->shut || n->killed || (n->life == s->life && n->image))
		return false;
	if (!n->fresh)
		n->fresh = calloc(1, sizeof(*n->fresh));
	if (!n->fresh)
		abort();
	n->life = s->life;
	n->image = s->image;
	n->disk = s->disk;
	return true;
}

static void note_leave(struct session *s)
{
	struct disk_note *n = &s->life->host->note;

	if (n->disk != s->disk)
		return;
	n->open = n->shut = false;
	n->image = NULL;
	n->disk = NULL;
}

/*
 * A disk is at least so large; what is new of it reads as zeros, as it did before.  Open, for else
 * somebody could write behind that size meanwhile, and lose it.
 */
static int make_large(struct session *s, uint64_t id)
{
	struct fs *fs = s->life->fs;
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	int err = fs_open(fs, id, FS_OPEN_WRITE, &work_cred, &f, NULL);

	work_result(s->life, "open to enlarge", id, err);
	if (err)
		return err;
	err = fs_getattr(fs, id, &attr);
	if (!err && attr.size < DISK_SMALL) {
		attr.size = world_chance(s->life->w, 50) ? DISK_BYTES : DISK_SMALL;
		err = fs_setattr(fs, id, FS_SET_SIZE, &attr);
	}
	work_result(s->life, "enlarge", id, err);
	fs_close(fs, f);
	return err;
}

int vdisk_open(struct session *s, uint64_t id, bool write)
{
	int err = write && !s->resume && !s->incoming ? make_large(s, id) : 0;

	if (err)
		return err;
	s->disk = calloc(1, sizeof(*s->disk));
	if (!s->disk)
		abort();
	s->disk->rig.params.read_only = !write;
	s->disk->rig.params.enospc = DISK_ENOSPC_REPORT;
	s->disk->rig.resume = s->was_shut ? NULL : s->resume;
	s->disk->rig.shut = s->was_shut ? s->resume : NULL;
	s->disk->rig.next = s->resume ? &s->life->host->note.next : NULL;
	if (write && (s->resume || note_take(s)))
		s->disk->rig.params.fresh = s->life->host->note.fresh;
	err = disk_rig_open(&s->disk->rig, s->life->env, s->life->fs, id);
	work_result(s->life, s->resume ? "resume of a disk" : "open of a disk", id, err);
	s->life->w->counters[COUNT_vdisk_open] += !err;
	return err;
}

void vdisk_opened(struct session *s)
{
	vdisk_note(s);
}

/*
 * Who gives it up in order has made everything durable first (R4, R7); who only read has nothing to
 * give up, and what its own host has written and not synced is no more durable by that.
 */
void vdisk_close(struct session *s)
{
	struct disk_rig *rig = &s->disk->rig;
	bool was_open = rig->dev && !s->disk->left, wrote = was_open && !rig->params.read_only;
	int err = rig->disk ? disk_shut(rig->disk) : 0;

	if (s->disk->left)
		vdisk_free_left(s);
	work_result(s->life, "shut", s->f->id, err);
	for (unsigned int i = 0; wrote && !err && session_counts(s) && i < CELLS; i++)
		chance_durable(&s->f->cells[i]);
	note_leave(s);
	if (was_open && world_chance(s->life->w, 50))
		disk_let_go(rig->disk);
	disk_rig_close(rig);
	free(s->disk);
	s->disk = NULL;
}

int vdisk_read(struct session *s, unsigned int cell, unsigned int n, size_t *done)
{
	uint64_t off = cell_off(cell), size = disk_size(s), len = n * CELL;

	*done = 0;
	if (off >= size)
		return 0;
	*done = len < size - off ? len : size - off;
	return blkdev_read(s->disk->rig.dev, off, s->buf, *done);
}

/* ---- requests ---- */

/* What a request leaves is there now, or may be, or was not touched. */
static void request_done(struct blk_io *io, int err)
{
	struct request *r = io->arg;
	struct batch *b = r->b;
	struct session *s = b->s;

	for (unsigned int i = r->cell; i < r->cell + r->n; i++) {
		struct chance *c = &s->f->cells[i];

		s->disk->inflight[i] = false;
		if (!r->counted || !session_counts(s))
			continue;
		s->disk->discarded[i] = io->op == BLK_DISCARD;
		if (err)
			chance_doubt(c);
		else
			chance_ack(c, r->stamp);
		if (!err && io->flags & BLK_FUA)
			chance_durable(c);
	}
	if (!err && r->counted && !s->life->dead && s->f->writer && s->f->writer != s->life)
		world_violation(s->life->w, "R1: life %u has written to disk %#llx, which life %u has opened",
				s->life->pid, (unsigned long long)s->f->id, s->f->writer->pid);
	work_result(s->life, "disk request", s->f->id, err);
	/* Who waits may be gone once nothing is pending. */
	env_mutex_lock(b->env, &b->mutex);
	b->err = err && err != -ENOSPC ? err : b->err;
	b->pending--;
	env_cond_broadcast(b->env, &b->changed);
	env_mutex_unlock(b->env, &b->mutex);
}

/* Whole blocks of @r only: a discard promises nothing of others. */
static bool only_blocks(struct request *r)
{
	uint64_t off = cell_off(r->cell), end = ALIGN_DOWN(off + r->n * CELL, BLOCK_SIZE);
	uint64_t from = ALIGN_UP(off, BLOCK_SIZE);

	if (from >= end)
		return false;
	r->cell += (unsigned int)((from - off) / CELL);
	r->n = (unsigned int)((end - from) / CELL);
	return true;
}

static bool may_start(const struct session *s, const struct request *r)
{
	if (cell_off(r->cell) + r->n * CELL > disk_size(s))
		return false;
	for (unsigned int i = r->cell; i < r->cell + r->n; i++)
		if (s->disk->inflight[i])
			return false;
	return true;
}

static void pick_request(struct session *s, struct request *r)
{
	struct world *w = s->life->w;
	uint64_t dice = world_below(w, 100);

	r->n = session_pick(w, &r->cell);
	r->io.op = dice < 76 ? BLK_WRITE : dice < 88 ? BLK_DISCARD : BLK_ZERO;
	r->io.flags = r->io.op == BLK_WRITE && world_chance(w, 15) ? BLK_FUA : 0;
	if (r->io.op == BLK_WRITE)
		r->stamp = ++w->model->stamp;
}

/* Issued, to the model as well; false: not this one. */
static bool request_make(struct batch *b, struct request *r)
{
	struct session *s = b->s;
	uint8_t *data;

	pick_request(s, r);
	if ((r->io.op == BLK_DISCARD && !only_blocks(r)) || !may_start(s, r))
		return false;
	data = blkdev_alloc(r->n * CELL);
	r->b = b;
	r->counted = session_counts(s);
	for (unsigned int i = 0; i < r->n; i++) {
		struct chance *c = &s->f->cells[r->cell + i];

		cell_fill(s->f->tag, r->cell + i, r->stamp, data + i * CELL);
		s->disk->inflight[r->cell + i] = true;
		if (!r->counted)
			continue;
		chance_issue(c, r->stamp);
		c->by = s->life;
	}
	r->iov = (struct iovec){ data, r->n * CELL };
	r->io.off = cell_off(r->cell);
	r->io.len = r->n * CELL;
	r->io.iov = &r->iov;
	r->io.iovcnt = r->io.op == BLK_WRITE;
	r->io.done = request_done;
	r->io.arg = r;
	s->life->w->counters[r->io.op == BLK_DISCARD ? COUNT_vdisk_discard :
			     r->io.op == BLK_ZERO ? COUNT_vdisk_zero : COUNT_vdisk_write]++;
	return true;
}

static void batch_wait(struct batch *b)
{
	env_mutex_lock(b->env, &b->mutex);
	while (b->pending)
		env_cond_wait(b->env, &b->changed, &b->mutex, ENV_FOREVER);
	env_mutex_unlock(b->env, &b->mutex);
	for (unsigned int i = 0; i < b->count; i++)
		free(b->r[i].iov.iov_base);
	env_cond_fini(b->env, &b->changed);
	env_mutex_fini(b->env, &b->mutex);
}

/* Snapshots are made, and parts of merges, while requests are under way. */
static int do_batch(struct session *s)
{
	struct batch *b = calloc(1, sizeof(*b));
	unsigned int tries = 1 + (unsigned int)world_below(s->life->w, REQUESTS);
	struct blk_io *ios[REQUESTS];
	int err = 0;

	if (!b)
		abort();
	b->s = s;
	b->env = s->life->env;
	env_mutex_init(s->life->env, &b->mutex);
	env_cond_init(s->life->env, &b->changed);
	while (tries--) {
		struct request *r = &b->r[b->count];

		memset(r, 0, sizeof(*r));
		if (request_make(b, r))
			ios[b->count++] = &r->io;
	}
	b->pending = b->count;
	if (b->count)
		blkdev_submit(s->disk->rig.dev, ios, b->count);
	if (world_chance(s->life->w, 20))
		err = image_step(s);
	batch_wait(b);
	err = err ? err : b->err;
	free(b);
	return err;
}

static int do_flush(struct session *s)
{
	int err = blkdev_flush(s->disk->rig.dev);

	work_result(s->life, "disk flush", s->f->id, err);
	for (unsigned int i = 0; !err && session_counts(s) && i < CELLS; i++) {
		chance_durable(&s->f->cells[i]);
		s->disk->discarded[i] = false;
	}
	s->life->w->counters[COUNT_vdisk_flush] += !err;
	return err;
}

static int do_grow(struct session *s)
{
	int err = disk_grow(s->disk->rig.disk, DISK_BYTES);

	work_result(s->life, "growth of a disk", s->f->id, err);
	s->life->w->counters[COUNT_vdisk_grow] += !err;
	return err == -ENOSPC ? 0 : err;
}

int vdisk_step(struct session *s, bool write)
{
	struct world *w = s->life->w;
	uint64_t dice = world_below(w, 100);
	unsigned int cell, n;

	if (write && world_chance(w, 12))
		return vdisk_hand_over(s);
	if (!write || dice < 25) {
		n = session_pick(w, &cell);
		return session_read(s, cell, n, false);
	}
	if (dice < 40 && disk_size(s) < DISK_BYTES)
		return do_grow(s);
	return dice < 82 ? do_batch(s) : do_flush(s);
}

/* ---- what images need of a disk ---- */

int vdisk_snapshot(struct session *s, const char *name, struct mimage *snap, struct fs_attr *attr)
{
	struct disk_note *note = &s->life->host->note;
	uint64_t pause_ns = 0;
	int err;

	/* Either state of what is under way. */
	for (unsigned int i = 0; i < CELLS; i++) {
		const struct chance *c = &s->f->cells[i];

		if (!s->disk->inflight[i])
			continue;
		snap->file->cells[i] = *c;
		snap->file->cells[i].certain = false;
		snap->file->cells[i].by = NULL;
		s->life->w->counters[COUNT_vdisk_snapshot]++;
	}
	/* Whoever is killed here does not know which image he had. */
	if (note->disk == s->disk)
		note->open = false;
	err = disk_snapshot(s->disk->rig.disk, s->life->w->model->images_dir, name, snap->name, attr,
			    &pause_ns);
	vdisk_note(s);
	return err;
}

int vdisk_merge_step(struct session *s, struct merge *m)
{
	return disk_merge_step(s->disk->rig.disk, m);
}

uint64_t vdisk_id(const struct session *s)
{
	return disk_id(s->disk->rig.disk);
}

void vdisk_inflight(const struct session *s, bool inflight[CELLS])
{
	memcpy(inflight, s->disk->inflight, sizeof(s->disk->inflight));
}

/* ---- a killed process, and the next ---- */

void vdisk_killed(struct sim_host *h)
{
	struct disk_note *n = &h->note;
	bool again = n->resuming && n->resuming == h->life && !h->rebooted && !h->life->dead;

	n->resuming = NULL;
	if (again) {
		n->killed = true;	/* it has served nobody: what was certain is */
		return;
	}
	n->was_shut = n->shut;
	n->killed = (n->open || n->shut) && n->life == h->life && !h->rebooted && !h->life->dead &&
		    n->image->file->id == n->id;
	for (unsigned int i = 0; n->killed && i < CELLS; i++) {
		const struct chance *c = &n->image->file->cells[i];

		n->certain[i] = c->certain && !n->disk->inflight[i] && !n->disk->discarded[i];
		n->shown[i] = c->cur;
	}
	n->open = n->shut = false;
}

/*
 * What its guest was told is done is there, flushed or not: it never heard of the kill.  Nobody
 * else had it meanwhile.
 */
void vdisk_resumed(struct session *s)
{
	struct disk_note *n = &s->life->host->note;

	n->resuming = NULL;
	if (s->f->writer != n->life) {
		world_violation(s->life->w, "R1: disk %#llx is resumed by life %u, and life %u has had it",
				(unsigned long long)n->id, s->life->pid,
				s->f->writer ? s->f->writer->pid : 0);
		return;
	}
	s->life->w->counters[s->was_shut ? COUNT_handover_resumed : COUNT_vdisk_resume]++;
	n->life = s->life;
	n->disk = s->disk;
	for (unsigned int i = 0; i < CELLS; i++)
		if (n->certain[i])
			chance_settle(&s->f->cells[i], n->shown[i]);
}

static bool is_resumable(const struct mimage *im)
{
	return !im->busy || im->busy->dead;
}

void vdisks_resume(struct life *life)
{
	struct disk_note *n = &life->host->note;
	struct mimage *im = n->image;

	if (!n->killed)
		return;
	n->killed = false;
	if (im->file->id == n->id && is_resumable(im)) {
		n->resuming = life;
		work_disk_resume(life, im, n->id, &n->claim, n->was_shut);
		n->resuming = NULL;
	}
	n->image = NULL;
	n->disk = NULL;
}
