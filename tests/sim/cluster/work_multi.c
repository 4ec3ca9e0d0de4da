// SPDX-License-Identifier: Apache-2.0
/*
 * Files of several writers.  While a file is marked, block n is written by host n (modulo) and read
 * by all; in between it is marked for one writer, who may write all of it.
 */
#include "tests/sim/cluster/work.h"

#define BLOCK_CELLS	(BLOCK_SIZE / CELL)
#define STEPS_MAX	10u

struct shared {
	struct life *life;
	struct mmulti *m;
	struct fs_file *file;
	uint8_t *buf;			/* all of it */
	bool alone;			/* opened for one writer */
};

int multi_make(struct world *w, struct fs *fs)
{
	uint8_t *zeros = blkdev_alloc(MULTI_BLOCKS * BLOCK_SIZE);
	int err = 0;

	memset(zeros, 0, MULTI_BLOCKS * BLOCK_SIZE);
	for (unsigned int i = 0; i < MULTIS && !err; i++) {
		struct mmulti *m = &w->model->multis[i];
		struct fs_attr attr;
		struct fs_file *f;
		size_t done;

		err = fs_create(fs, fs_root(fs), m->name, S_IFREG | 0644, 0, &work_cred, &attr);
		if (!err)
			err = fs_open(fs, attr.id, FS_OPEN_WRITE, &work_cred, &f, NULL);
		if (err)
			break;
		m->id = attr.id;
		err = fs_write(fs, f, 0, zeros, MULTI_BLOCKS * BLOCK_SIZE, false, &done);
		fs_close(fs, f);
		if (!err)
			err = xattr_set(fs, m->id, XATTR_MULTI, "1", 1, 0);
	}
	free(zeros);
	return err;
}

/* ---- blocks ---- */

static bool is_own(const struct shared *s, unsigned int block)
{
	return block % s->life->w->host_count == s->life->host->number;
}

/* Others write meanwhile: what a block of theirs shows is known only if nobody was at it. */
static void check_block(struct shared *s, unsigned int block, uint64_t version, bool settle)
{
	struct mmulti *m = s->m;
	struct world *w = s->life->w;
	bool quiet = m->version[block] == version && !m->writing[block];

	for (unsigned int i = block * BLOCK_CELLS; i < (block + 1) * BLOCK_CELLS; i++) {
		struct chance *c = &m->cells[i];
		uint64_t stamp;

		w->counters[COUNT_reads]++;
		if (!cell_parse(m->id, i, s->buf + i * CELL, &stamp))
			world_violation(w, "R8: shared file %#llx cell %u holds what was never written "
					"there", (unsigned long long)m->id, i);
		else if (quiet && !chance_allows(c, stamp))
			world_violation(w, "R7: shared file %#llx cell %u reads as write %llu; allowed is "
					"%s%llu of %u", (unsigned long long)m->id, i,
					(unsigned long long)stamp, c->certain ? "only " : "not ",
					(unsigned long long)c->cur, c->count);
		else if (settle && quiet && !c->certain)
			chance_settle(c, stamp);
	}
}

static int read_blocks(struct shared *s, unsigned int first, unsigned int count, bool settle)
{
	uint64_t versions[MULTI_BLOCKS];
	size_t done = 0;
	int err;

	memcpy(versions, s->m->version, sizeof(versions));
	for (unsigned int i = first; i < first + count; i++)
		versions[i] -= s->m->writing[i] != 0;	/* not quiet */
	err = fs_read(s->life->fs, s->file, first * BLOCK_SIZE, s->buf + first * BLOCK_SIZE,
		      count * BLOCK_SIZE, &done);
	work_result(s->life, "read of a shared file", s->m->id, err);
	if (err || s->life->dead)
		return err;
	if (done != count * BLOCK_SIZE)
		world_violation(s->life->w, "shared file %#llx has become shorter",
				(unsigned long long)s->m->id);
	for (unsigned int i = first; i < first + count; i++)
		check_block(s, i, versions[i], settle && (s->alone || is_own(s, i)));
	return 0;
}

static int write_block(struct shared *s, unsigned int block)
{
	struct world *w = s->life->w;
	struct mmulti *m = s->m;
	uint64_t stamp = ++w->model->stamp;
	bool counted = !s->life->dead;
	size_t done = 0;
	int err;

	for (unsigned int i = block * BLOCK_CELLS; i < (block + 1) * BLOCK_CELLS; i++) {
		cell_fill(m->id, i, stamp, s->buf + i * CELL);
		if (!counted)
			continue;
		chance_issue(&m->cells[i], stamp);
		m->cells[i].by = s->life;
	}
	world_trace(w, "  host %u: write block %u of shared file %#llx%s, write %llu", s->life->host->number,
		    block, (unsigned long long)m->id, s->alone ? " alone" : "", (unsigned long long)stamp);
	m->writing[block]++;
	err = fs_write(s->life->fs, s->file, block * BLOCK_SIZE, s->buf + block * BLOCK_SIZE,
		       BLOCK_SIZE, false, &done);
	m->writing[block]--;
	m->version[block]++;
	work_result(s->life, "write of a shared file", m->id, err);
	w->counters[COUNT_multi_write] += !err && !s->alone;
	for (unsigned int i = block * BLOCK_CELLS; i < (block + 1) * BLOCK_CELLS; i++) {
		if (s->life->dead || m->cells[i].by != s->life)
			continue;
		if (!err && done == BLOCK_SIZE)
			chance_ack(&m->cells[i], stamp);
		else
			chance_doubt(&m->cells[i]);
	}
	return err;
}

/* What several writers may not do (R1). */
static void try_forbidden(struct shared *s)
{
	static const struct { uint64_t off, len; } bad[] = {
		{ 512, 512 }, { 0, 100 }, { MULTI_BLOCKS * BLOCK_SIZE, BLOCK_SIZE } };
	unsigned int i = (unsigned int)world_below(s->life->w, ARRAY_SIZE(bad));
	size_t done;
	int err = fs_write(s->life->fs, s->file, bad[i].off, s->buf, bad[i].len, false, &done);

	if (!err)
		world_violation(s->life->w, "R1: %llu bytes at %llu of a shared file are written",
				(unsigned long long)bad[i].len, (unsigned long long)bad[i].off);
}

static int sync_shared(struct shared *s)
{
	int err = fs_fsync(s->life->fs, s->file, world_chance(s->life->w, 50));

	work_result(s->life, "fsync of a shared file", s->m->id, err);
	for (unsigned int i = 0; !err && !s->life->dead && i < MULTI_CELLS; i++)
		if (s->m->cells[i].by == s->life)
			chance_durable(&s->m->cells[i]);
	return err;
}

static int shared_step(struct shared *s)
{
	struct world *w = s->life->w;
	unsigned int block = (unsigned int)world_below(w, MULTI_BLOCKS), count;
	uint64_t dice = world_below(w, 100);

	if (dice < 45 && (s->alone || is_own(s, block)))
		return write_block(s, block);
	if (dice < 88) {
		count = 1 + (unsigned int)world_below(w, MULTI_BLOCKS - block);
		return read_blocks(s, block, count, false);
	}
	if (dice < 94 && !s->alone)
		try_forbidden(s);
	return sync_shared(s);
}

/* Nobody else has it: whoever wrote before has brought it home, or is dead and fenced. */
static void take_over(struct shared *s)
{
	for (unsigned int i = 0; i < MULTI_CELLS; i++) {
		const struct life *by = s->m->cells[i].by;

		if (by && by != s->life && !by->dead)
			chance_durable(&s->m->cells[i]);
	}
}

static void work_shared(struct life *life, struct mmulti *m)
{
	struct shared s = { .life = life, .m = m };
	unsigned int steps = 1 + (unsigned int)world_below(life->w, STEPS_MAX);
	int err = fs_open(life->fs, m->id, FS_OPEN_WRITE, &work_cred, &s.file, NULL);

	work_result(life, "open of a shared file", m->id, err);
	if (err)
		return;
	s.alone = s.file->mode == LOCK_EXCLUSIVE;
	s.buf = blkdev_alloc(MULTI_BLOCKS * BLOCK_SIZE);
	/* What died in the middle of a write. */
	for (unsigned int i = 0; i < MULTI_BLOCKS; i++)
		if (s.alone || is_own(&s, i))
			m->writing[i] = 0;
	if (s.alone && !life->dead)
		take_over(&s);
	err = read_blocks(&s, 0, MULTI_BLOCKS, true);
	for (unsigned int i = 0; i < steps && !err; i++) {
		err = shared_step(&s);
		if (world_chance(life->w, 30))
			env_sleep_until(life->env, env_now_ns(life->env) +
					world_below(life->w, 1500) * MSEC);
	}
	fs_close(life->fs, s.file);
	free(s.buf);
}

static void mark(struct life *life, struct mmulti *m, bool on)
{
	int err = on ? xattr_set(life->fs, m->id, XATTR_MULTI, "1", 1, 0) :
		  xattr_remove(life->fs, m->id, XATTR_MULTI);

	work_result(life, on ? "mark" : "unmark", m->id, err == -ENODATA ? 0 : err);
	life->w->counters[on ? COUNT_multi_mark : COUNT_multi_unmark] += !err;
}

void multi_step(struct life *life)
{
	struct world *w = life->w;
	struct mmulti *m = &w->model->multis[world_below(w, MULTIS)];

	/* One thread of a host at a time: two would write the same blocks. */
	if (m->busy[life->host->number] == life)
		return;
	m->busy[life->host->number] = life;
	if (world_chance(w, 12))
		mark(life, m, world_chance(w, 60));
	else
		work_shared(life, m);
	m->busy[life->host->number] = NULL;
}
