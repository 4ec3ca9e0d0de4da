/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/file.h"

#include <unistd.h>

#include "tests/fs/world.h"

#define VOLUME		(64 * MIB)
#define MODEL_MAX	(1536 * KIB)
#define OPS_MAX		256

/* ---- a file in memory, and what may have happened to it since it was last safe ---- */

enum op_kind { OP_WRITE, OP_TRUNCATE, OP_PUNCH, OP_ZERO, OP_ALLOCATE };

struct op {
	enum op_kind kind;
	uint64_t off, len;	/* a truncation: off is the size */
	uint8_t seed;
	bool keep_size;
};

struct model {
	uint8_t data[MODEL_MAX];
	uint64_t size;
};

struct file_model {
	struct model now;
	struct model safe;	/* when the last fsync returned */
	struct op since[OPS_MAX];	/* begun after that */
	unsigned int since_count;
};

static uint64_t rng;

static uint64_t roll(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* Never zero, so that written and unwritten differ. */
static uint8_t op_byte(const struct op *op, uint64_t at)
{
	return (uint8_t)(1 + (at * 31 + (at >> 9) * 7 + op->seed) % 255);
}

static void model_apply(struct model *m, const struct op *op)
{
	uint64_t end = op->off + op->len;

	switch (op->kind) {
	case OP_WRITE:
		for (uint64_t i = op->off; i < end; i++)
			m->data[i] = op_byte(op, i);
		break;
	case OP_TRUNCATE:
		if (op->off < m->size)
			memset(m->data + op->off, 0, m->size - op->off);
		m->size = op->off;
		return;
	case OP_PUNCH:
	case OP_ZERO:
		for (uint64_t i = op->off; i < end && i < m->size; i++)
			m->data[i] = 0;
		break;
	case OP_ALLOCATE:
		break;
	}
	if (op->kind != OP_PUNCH && !op->keep_size && end > m->size)
		m->size = end;
}

static int op_run(struct fs *fs, struct inode *ino, const struct op *op)
{
	unsigned int keep = op->keep_size ? FILE_KEEP_SIZE : 0;
	uint8_t *buf;
	size_t done = 0;
	int err;

	switch (op->kind) {
	case OP_TRUNCATE:
		return file_truncate(fs, ino, op->off);
	case OP_PUNCH:
		return file_allocate(fs, ino, FILE_PUNCH | FILE_KEEP_SIZE, op->off, op->len);
	case OP_ZERO:
		return file_allocate(fs, ino, FILE_ZERO | keep, op->off, op->len);
	case OP_ALLOCATE:
		return file_allocate(fs, ino, keep, op->off, op->len);
	case OP_WRITE:
		break;
	}
	/* Aligned or not, as the seed has it. */
	buf = blkdev_alloc(op->len + BLOCK_SIZE);
	for (uint64_t i = 0; i < op->len; i++)
		buf[i + op->seed % 2] = op_byte(op, op->off + i);
	err = file_write(fs, ino, op->off, buf + op->seed % 2, op->len, false, &done);
	free(buf);
	return err ? err : done == op->len ? 0 : -ENOSPC;
}

static struct op op_random(void)
{
	static const enum op_kind kinds[] = {
		OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_TRUNCATE, OP_PUNCH, OP_ZERO, OP_ALLOCATE,
	};
	struct op op = { .kind = kinds[roll(8)], .seed = (uint8_t)roll(256) };
	/* Small files are as interesting as those of several units. */
	uint64_t room = roll(3) ? MODEL_MAX : roll(2) ? 16 * KIB : 300 * KIB;

	op.off = roll(room);
	op.len = 1 + roll(roll(2) ? room - op.off : room - op.off < 9000 ? room - op.off : 9000);
	if (roll(2)) {
		op.off = ALIGN_DOWN(op.off, BLOCK_SIZE);
		op.len = ALIGN_UP(op.len, BLOCK_SIZE);
	}
	if (op.kind == OP_TRUNCATE && !roll(3))
		op.off = roll(2) ? 0 : roll(INLINE_SIZE);
	op.keep_size = op.kind == OP_PUNCH || (op.kind > OP_PUNCH && !roll(3));
	if (op.off + op.len > MODEL_MAX)
		op.len = MODEL_MAX - op.off;
	return op;
}

/* First byte that differs, or -1; @max bytes asked for at @off. */
static int64_t compare(struct fs *fs, struct inode *ino, const struct model *m, uint64_t off,
		       size_t max, unsigned int skew)
{
	uint64_t want = off >= m->size ? 0 : m->size - off < max ? m->size - off : max;
	uint8_t *buf = blkdev_alloc(max + BLOCK_SIZE);
	int64_t bad = -1;
	size_t done = 0;

	memset(buf, 0xee, max + BLOCK_SIZE);
	if (file_read(fs, ino, off, buf + skew, max, &done) || done != want) {
		fprintf(stderr, "read at %llu: %zu bytes, not %llu\n", (unsigned long long)off,
			done, (unsigned long long)want);
		bad = 0;
	}
	for (size_t i = 0; bad < 0 && i < want; i++)
		if (buf[i + skew] != m->data[off + i])
			bad = (int64_t)(off + i);
	free(buf);
	return bad;
}

static void compare_seek(struct fs *fs, struct inode *ino, const struct model *m)
{
	uint64_t off = roll(MODEL_MAX), found = 0, i;
	int err = file_seek(fs, ino, off, SEEK_DATA, &found);

	if (off >= m->size) {
		CU_ASSERT_EQUAL(err, -ENXIO);
		return;
	}
	if (err == -ENXIO)
		found = m->size;
	else
		CU_ASSERT_EQUAL(err, 0);
	CU_ASSERT_TRUE(found >= off && found <= m->size);
	for (i = off; i < found && !m->data[i]; i++)
		;
	CU_ASSERT_EQUAL(i, found);	/* no data before it */
	CU_ASSERT_EQUAL(file_seek(fs, ino, off, SEEK_HOLE, &found), 0);
	CU_ASSERT_TRUE(found >= off && found <= m->size);
	CU_ASSERT_TRUE(found == m->size || !m->data[found]);
}

static struct file_model *model_new(void)
{
	struct file_model *m = calloc(1, sizeof(*m));

	MUST(m);
	return m;
}

/* ---- random operations against the model ---- */

static uint64_t file_blocks(struct inode *ino)
{
	return le64_to_cpu(inode_disk(ino)->blocks);
}

static void remount(struct world *w, uint64_t id, struct inode **ino)
{
	inode_put(&w->fs, *ino);
	MUST(!world_unmount(w));
	MUST(!world_mount(w));
	*ino = world_open(w, id);
}

/* Contents stay; where a unit held only zeros there is nothing more to find. */
static void drop_zeros(struct fs *fs, struct inode *ino)
{
	void *buf = blkdev_alloc(UNIT_SIZE);
	uint64_t dropped = 0, blocks = file_blocks(ino);
	int err;

	for (int pass = 0; pass < 2; pass++) {
		uint64_t unit = 0, before = dropped;

		do {
			err = file_drop_zeros(fs, ino, &unit, buf, &dropped);
		} while (err > 0);
		CU_ASSERT_EQUAL(err, 0);
		CU_ASSERT_TRUE(!pass || dropped == before);
	}
	CU_ASSERT_TRUE(file_blocks(ino) + dropped <= blocks);
	free(buf);
}

static void random_body(struct world *w)
{
	struct file_model *m = model_new();
	struct inode *ino;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	for (unsigned int i = 0; i < 500; i++) {
		struct op op = op_random();
		uint64_t off = roll(2) ? 0 : roll(MODEL_MAX);
		int64_t bad;
		int err = op_run(&w->fs, ino, &op);

		MUST(!err);
		model_apply(&m->now, &op);
		if (!roll(8))
			drop_zeros(&w->fs, ino);
		CU_ASSERT_EQUAL(file_blocks(ino) > 2 * MODEL_MAX / BLOCK_SIZE, 0);
		if (roll(4) == 0)
			off = ALIGN_DOWN(off, BLOCK_SIZE);
		bad = compare(&w->fs, ino, &m->now, off, MODEL_MAX - off, roll(2) ? 0 : 3);
		if (bad >= 0)
			fprintf(stderr, "op %u: kind %d off %llu len %llu: byte %lld differs\n", i,
				op.kind, (unsigned long long)op.off, (unsigned long long)op.len,
				(long long)bad);
		MUST(bad == -1);
		compare_seek(&w->fs, ino, &m->now);
		if (!roll(10))
			CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, roll(2)), 0);
		if (!roll(60))
			remount(w, id, &ino);
	}
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, 0), 0);
	CU_ASSERT_EQUAL(file_blocks(ino), 0);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
	free(m);
}

/* Wrong data, read back without an error, is the worst that a file system can do. */
static void random_operations_match_a_model_in_memory(void)
{
	rng = 88172645463325252ULL;
	world_run(VOLUME, random_body, NULL);
}

/* ---- power cuts ---- */

#define CUTS_MAX	40

/* The disk at some moment, and what a reader may find on it. */
struct cut {
	struct simdisk_image *image;
	struct model safe;
	struct op since[OPS_MAX];
	unsigned int since_count;
};

struct cuts {
	struct simdisk *disk;
	struct file_model *m;
	struct cut *cuts[CUTS_MAX];
	unsigned int count;
	unsigned int stride, writes;
	uint64_t id;
};

static void cut_here(void *arg, struct env *host, const struct blk_io *io)
{
	struct cuts *c = arg;
	struct cut *cut;

	(void)host;
	if (io->op != BLK_WRITE || !c->id || c->writes++ % c->stride || c->count == CUTS_MAX)
		return;
	cut = calloc(1, sizeof(*cut));
	MUST(cut);
	cut->image = simdisk_snapshot(c->disk);
	cut->safe = c->m->safe;
	memcpy(cut->since, c->m->since, sizeof(cut->since));
	cut->since_count = c->m->since_count;
	c->cuts[c->count++] = cut;
}

static void cut_record_body(struct world *w)
{
	struct cuts *c = w->arg;
	struct file_model *m = c->m;
	struct inode *ino;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	MUST(!file_fsync(&w->fs, ino, false));
	c->disk = w->disk;
	c->id = ino->id;
	simdisk_observe(w->disk, cut_here, c);
	for (unsigned int i = 0; i < 120; i++) {
		struct op op = op_random();

		m->since[m->since_count++] = op;
		MUST(!op_run(&w->fs, ino, &op));
		model_apply(&m->now, &op);
		if (roll(6) && m->since_count < OPS_MAX)
			continue;
		CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, roll(2)), 0);
		m->safe = m->now;
		m->since_count = 0;
	}
	simdisk_observe(w->disk, NULL, NULL);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

/* Whether @value may be found at @at: safe, or of something begun later. */
static bool cut_allows(const struct cut *cut, uint64_t at, uint8_t value)
{
	if (at < cut->safe.size ? value == cut->safe.data[at] : !value)
		return true;
	for (unsigned int i = 0; i < cut->since_count; i++) {
		const struct op *op = &cut->since[i];
		bool covers = at >= op->off && at < op->off + op->len;

		if (op->kind == OP_WRITE ? covers && value == op_byte(op, at) :
		    op->kind == OP_TRUNCATE ? at >= op->off && !value : covers && !value)
			return true;
	}
	return false;
}

/* Sizes that the file had or went through since it was safe. */
static void cut_sizes(const struct cut *cut, uint64_t *min, uint64_t *max)
{
	struct model *m = malloc(sizeof(*m));

	MUST(m);
	*m = cut->safe;
	*min = *max = m->size;
	for (unsigned int i = 0; i < cut->since_count; i++) {
		model_apply(m, &cut->since[i]);
		*min = m->size < *min ? m->size : *min;
		*max = m->size > *max ? m->size : *max;
	}
	free(m);
}

static void cut_verify(struct world *w, const struct cut *cut, struct inode *ino)
{
	uint8_t *buf = blkdev_alloc(MODEL_MAX);
	uint64_t min, max, bad = 0, size;
	size_t done = 0;

	cut_sizes(cut, &min, &max);
	CU_ASSERT_EQUAL(file_read(&w->fs, ino, 0, buf, MODEL_MAX, &done), 0);
	size = done;
	CU_ASSERT_TRUE(size >= min && size <= max);
	for (uint64_t i = 0; i < size; i++)
		if (!cut_allows(cut, i, buf[i]) && !bad++)
			fprintf(stderr, "after a power cut: byte %llu is %#x\n",
				(unsigned long long)i, buf[i]);
	CU_ASSERT_EQUAL(bad, 0);
	/* What lay beyond the end does not come back (R8). */
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, MODEL_MAX), 0);
	CU_ASSERT_EQUAL(file_read(&w->fs, ino, 0, buf, MODEL_MAX, &done), 0);
	for (bad = 0; size < MODEL_MAX; size++)
		bad += buf[size] != 0;
	CU_ASSERT_EQUAL(bad, 0);
	free(buf);
}

static void cut_verify_body(struct world *w)
{
	struct cuts *c = w->arg;
	struct inode *ino;

	for (unsigned int i = 0; i < c->count; i++) {
		simdisk_restore(w->disk, c->cuts[i]->image);
		simdisk_power_cut(w->disk, (enum simdisk_keep)(i % 3));
		MUST(!world_mount(w));
		ino = world_open(w, c->id);
		cut_verify(w, c->cuts[i], ino);
		inode_put(&w->fs, ino);
		CU_ASSERT_EQUAL(world_unmount(w), 0);
		CU_ASSERT_EQUAL(world_check(w), 0);
	}
}

/* A guest's flushed data lost, or another's old data shown, when the power fails (R7, R8). */
static void a_power_cut_loses_nothing_synced_and_shows_nothing_old(void)
{
	rng = 1234567890123ULL;
	for (unsigned int round = 0; round < 2; round++) {
		struct cuts *c = calloc(1, sizeof(*c));

		MUST(c);
		c->m = model_new();
		c->stride = 3 + 2 * round;
		world_run(VOLUME, cut_record_body, c);
		CU_ASSERT_TRUE(c->count > CUTS_MAX / 3);
		world_run(VOLUME, cut_verify_body, c);
		for (unsigned int i = 0; i < c->count; i++) {
			simdisk_image_free(c->cuts[i]->image);
			free(c->cuts[i]);
		}
		free(c->m);
		free(c);
	}
}

/* ---- overwriting, then fsync, then a power cut ---- */

static void overwrite_body(struct world *w)
{
	static const struct op first = { .kind = OP_WRITE, .len = 64 * KIB, .seed = 2 };
	static const struct op second = { .kind = OP_WRITE, .len = 8 * KIB, .seed = 4 };
	struct simdisk_image *image;
	struct model *m = calloc(1, sizeof(*m));
	struct inode *ino;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	CU_ASSERT_EQUAL(op_run(&w->fs, ino, &first), 0);
	CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, false), 0);
	CU_ASSERT_EQUAL(op_run(&w->fs, ino, &second), 0);
	CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, true), 0);
	image = simdisk_snapshot(w->disk);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	simdisk_restore(w->disk, image);
	simdisk_power_cut(w->disk, SIMDISK_KEEP_NONE);
	MUST(!world_mount(w));
	ino = world_open(w, id);
	model_apply(m, &first);
	model_apply(m, &second);
	CU_ASSERT_EQUAL(compare(&w->fs, ino, m, 0, MODEL_MAX, 0), -1);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	simdisk_image_free(image);
	free(m);
}

/* A database's commit record, written in place, must be there after fdatasync (R7). */
static void an_overwrite_is_durable_after_fdatasync(void)
{
	world_run(VOLUME, overwrite_body, NULL);
}

/* ---- a long truncation, cut ---- */

#define LEAVES		24u
#define LEAF_BYTES	(LEAF_ENTRIES * UNIT_SIZE)

struct shrink {
	struct cuts c;
	struct world *w;
	bool done;
};

/* Blocks spread so that freeing them takes a chain of transactions. */
static const struct op *shrink_op(unsigned int i)
{
	static struct op op;

	op = (struct op){ .kind = OP_WRITE, .off = i / 3 * LEAF_BYTES + i % 3 * 8 * UNIT_SIZE,
			  .len = BLOCK_SIZE, .seed = (uint8_t)(2 * i + 2) };
	return &op;
}

static void shrink_committer(void *arg)
{
	struct shrink *s = arg;

	while (!s->done) {
		CU_ASSERT_EQUAL(journal_settle(&s->w->fs), 0);
		env_sleep_until(s->w->host, env_now_ns(s->w->host) + 10000);
	}
}

static void shrink_record_body(struct world *w)
{
	struct shrink *s = w->arg;
	struct env_thread *thread = NULL;
	struct inode *ino;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (unsigned int i = 0; i < 3 * LEAVES; i++)
		CU_ASSERT_EQUAL(op_run(&w->fs, ino, shrink_op(i)), 0);
	s->w = w;
	s->c.disk = w->disk;
	s->c.id = ino->id;
	/* Nothing is cached then: reading each leaf lets the committer in between. */
	remount(w, s->c.id, &ino);
	simdisk_observe(w->disk, cut_here, &s->c);
	MUST(!env_thread_start(w->host, "committer", shrink_committer, s, &thread));
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, 100), 0);
	s->done = true;
	env_thread_join(w->host, thread);
	simdisk_observe(w->disk, NULL, NULL);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
}

/* The file is as it was, or what was cut off stays away though the file grows again. */
static void shrink_verify(struct world *w, struct inode *ino, unsigned int how)
{
	uint64_t end = LEAVES * LEAF_BYTES;
	bool cut = le64_to_cpu(inode_disk(ino)->size) == 100;
	uint8_t *buf = blkdev_alloc(BLOCK_SIZE);
	size_t done;
	int err;

	if (how == 0)
		err = file_truncate(&w->fs, ino, end);
	else if (how == 1)
		err = file_write(&w->fs, ino, end, buf, 1, false, &done);
	else
		err = file_allocate(&w->fs, ino, 0, end, 1);
	CU_ASSERT_EQUAL(err, 0);
	for (unsigned int i = 0; i < 3 * LEAVES; i++) {
		const struct op *op = shrink_op(i);

		CU_ASSERT_EQUAL(file_read(&w->fs, ino, op->off, buf, BLOCK_SIZE, &done), 0);
		CU_ASSERT_EQUAL(done, BLOCK_SIZE);
		for (unsigned int k = 0; k < BLOCK_SIZE; k++)
			if (buf[k] != (cut && op->off + k >= 100 ? 0 : op_byte(op, op->off + k))) {
				CU_FAIL("a truncated file shows what it must not");
				break;
			}
	}
	free(buf);
}

static void shrink_verify_body(struct world *w)
{
	struct cuts *c = w->arg;
	unsigned int chained = 0;
	struct inode *ino;

	for (unsigned int i = 0; i < c->count; i++) {
		simdisk_restore(w->disk, c->cuts[i]->image);
		simdisk_power_cut(w->disk, (enum simdisk_keep)(i % 3));
		/* Whether the reaper or the next change comes first. */
		w->no_reaper = i % 2;
		MUST(!world_mount(w));
		ino = world_open(w, c->id);
		chained += (le32_to_cpu(inode_disk(ino)->flags) & INODE_ORPHAN) != 0;
		shrink_verify(w, ino, i / 2 % 3);
		inode_put(&w->fs, ino);
		CU_ASSERT_EQUAL(world_unmount(w), 0);
		CU_ASSERT_EQUAL(world_check(w), 0);
	}
	CU_ASSERT_TRUE(chained > 1);
}

/* Half of a deleted disk coming back when its file grows again. */
static void a_truncation_cut_half_way_is_finished(void)
{
	struct shrink *s = calloc(1, sizeof(*s));

	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	s->c.m = model_new();
	s->c.stride = 1;
	world_run(VOLUME, shrink_record_body, s);
	CU_ASSERT_TRUE(s->c.count > 4);
	world_run(VOLUME, shrink_verify_body, &s->c);
	for (unsigned int i = 0; i < s->c.count; i++) {
		simdisk_image_free(s->c.cuts[i]->image);
		free(s->c.cuts[i]);
	}
	free(s->c.m);
	free(s);
}

/* ---- failing devices ---- */

struct failures {
	uint64_t at;		/* this command fails */
	bool hit;
	unsigned int ops;
};

/* What a small file, a growing one and a shrinking one go through. */
static const struct op fail_script[] = {
	{ .kind = OP_WRITE, .off = 0, .len = 100, .seed = 1 },
	{ .kind = OP_WRITE, .off = 3000, .len = 5000, .seed = 2 },
	{ .kind = OP_WRITE, .off = 16384, .len = 8192, .seed = 4 },
	{ .kind = OP_WRITE, .off = 4096, .len = 4096, .seed = 6 },
	{ .kind = OP_WRITE, .off = 300000, .len = 70000, .seed = 7 },
	{ .kind = OP_PUNCH, .off = 5000, .len = 20000, .keep_size = true },
	{ .kind = OP_ALLOCATE, .off = 500000, .len = 300000 },
	{ .kind = OP_ZERO, .off = 290000, .len = 30001, .keep_size = true },
	{ .kind = OP_TRUNCATE, .off = 301111 },
	{ .kind = OP_WRITE, .off = 301111, .len = 70000, .seed = 9 },
	{ .kind = OP_TRUNCATE, .off = 1 },
};

static void fail_check_contents(struct world *w, struct inode *ino, struct cut *cut)
{
	uint8_t *buf = blkdev_alloc(MODEL_MAX);
	uint64_t bad = 0;
	size_t done = 0;

	CU_ASSERT_EQUAL(file_read(&w->fs, ino, 0, buf, MODEL_MAX, &done), 0);
	for (uint64_t i = 0; i < done; i++)
		bad += !cut_allows(cut, i, buf[i]);
	CU_ASSERT_EQUAL(bad, 0);
	free(buf);
}

static void fail_body(struct world *w)
{
	struct failures *f = w->arg;
	struct simdisk_rule rule = {
		.fault = SIMDISK_FAIL, .ops = f->ops, .skip = f->at, .count = 1,
	};
	struct cut *cut = calloc(1, sizeof(*cut));
	struct inode *ino;
	int err = 0;
	uint64_t id;

	MUST(cut);
	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	MUST(!file_fsync(&w->fs, ino, false));
	id = ino->id;
	simdisk_inject(w->disk, &rule);
	for (unsigned int i = 0; i < ARRAY_SIZE(fail_script); i++) {
		int e = op_run(&w->fs, ino, &fail_script[i]);

		cut->since[cut->since_count++] = fail_script[i];
		err = e ? e : err;
		e = file_fsync(&w->fs, ino, false);
		err = e ? e : err;
	}
	f->hit = err != 0;
	inode_put(&w->fs, ino);
	err = world_unmount(w);
	f->hit |= err != 0;
	simdisk_clear_rules(w->disk);
	MUST(!world_mount(w));
	ino = world_open(w, id);
	fail_check_contents(w, ino, cut);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
	free(cut);
}

static void fail_each(unsigned int ops)
{
	struct failures f = { .ops = ops };
	unsigned int missed = 0;

	/* Background commits may take a failure that no caller sees; several in a row: the end. */
	for (f.at = 0; missed < 3 && f.at < 400; f.at++) {
		f.hit = false;
		world_run(VOLUME, fail_body, &f);
		missed = f.hit ? 0 : missed + 1;
	}
	CU_ASSERT_TRUE(f.at > 6);
}

/* One bad sector must cost one request, not the volume. */
static void each_failing_write_leaves_a_sound_volume(void)
{
	fail_each(1 << BLK_WRITE);
}

static void each_failing_read_leaves_a_sound_volume(void)
{
	fail_each(1 << BLK_READ);
}

/* ---- a full volume ---- */

static void full_body(struct world *w)
{
	static const struct op small = { .kind = OP_WRITE, .len = 20000, .seed = 5 };
	uint8_t *buf = blkdev_alloc(MIB);
	struct model *m = calloc(1, sizeof(*m));
	struct inode *big, *ino;
	uint64_t off = 0;
	size_t done;
	int err = 0;

	memset(buf, 0x5a, MIB);
	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	big = world_create(w);
	CU_ASSERT_EQUAL(op_run(&w->fs, ino, &small), 0);
	model_apply(m, &small);
	for (; !err && off < 2 * VOLUME; off += done) {
		done = 0;
		err = file_write(&w->fs, big, off, buf, MIB, false, &done);
	}
	CU_ASSERT_EQUAL(err, -ENOSPC);
	CU_ASSERT_TRUE(off > VOLUME / 2);
	CU_ASSERT_EQUAL(compare(&w->fs, ino, m, 0, MODEL_MAX, 0), -1);
	/* What fits into space that there is still works, and what does not says so. */
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, 100, buf, 100, false, &done), 0);
	memset(m->data + 100, 0x5a, 100);
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, MIB, buf, MIB, false, &done), -ENOSPC);
	CU_ASSERT_EQUAL(compare(&w->fs, ino, m, 0, MODEL_MAX, 0), -1);
	CU_ASSERT_EQUAL(file_truncate(&w->fs, big, 0), 0);
	CU_ASSERT_EQUAL(file_fsync(&w->fs, big, false), 0);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	CU_ASSERT_EQUAL(file_write(&w->fs, big, 0, buf, MIB, false, &done), 0);
	inode_put(&w->fs, ino);
	inode_put(&w->fs, big);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	CU_ASSERT_EQUAL(world_check(w), 0);
	free(buf);
	free(m);
}

/* A full volume that loses what it holds, or cannot be emptied, is lost. */
static void a_full_volume_keeps_its_data_and_can_be_emptied(void)
{
	world_run(VOLUME, full_body, NULL);
}

/* ---- several at once ---- */

#define WRITERS	4

struct writer {
	struct world *w;
	struct inode *ino;
	unsigned int index;
	struct env_thread *thread;
};

/* Each its own 512-byte sectors of the same blocks. */
static void writer_thread(void *arg)
{
	struct writer *wr = arg;
	uint8_t buf[512];
	size_t done;

	for (unsigned int i = 0; i < 60; i++) {
		memset(buf, (int)(wr->index + 1), sizeof(buf));
		CU_ASSERT_EQUAL(file_write(&wr->w->fs, wr->ino,
					   (i * WRITERS + wr->index) * sizeof(buf), buf,
					   sizeof(buf), false, &done), 0);
	}
}

static void writers_body(struct world *w)
{
	struct writer wr[WRITERS];
	struct inode *ino;
	uint64_t bad = 0;
	uint8_t *buf = blkdev_alloc(60 * WRITERS * 512);
	size_t done;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (unsigned int i = 0; i < WRITERS; i++) {
		wr[i] = (struct writer){ .w = w, .ino = ino, .index = i };
		MUST(!env_thread_start(w->host, "writer", writer_thread, &wr[i],
						       &wr[i].thread));
	}
	for (unsigned int i = 0; i < WRITERS; i++)
		env_thread_join(w->host, wr[i].thread);
	CU_ASSERT_EQUAL(file_read(&w->fs, ino, 0, buf, 60 * WRITERS * 512, &done), 0);
	CU_ASSERT_EQUAL(done, 60 * WRITERS * 512);
	for (size_t i = 0; i < done; i++)
		bad += buf[i] != i / 512 % WRITERS + 1;
	CU_ASSERT_EQUAL(bad, 0);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(buf);
}

/* Two guests' sectors in one block: the read-modify-write of one must not undo the other's. */
static void writers_of_neighbouring_sectors_do_not_undo_each_other(void)
{
	world_run(VOLUME, writers_body, NULL);
}

/* ---- what is and is not written ---- */

static void quiet_body(struct world *w)
{
	struct journal_status before, after;
	uint8_t *buf = blkdev_alloc(64 * KIB);
	struct fs_attr attr;
	struct inode *ino;
	uint64_t t0;
	size_t done;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, 0, buf, 64 * KIB, false, &done), 0);
	/* The first overwrite puts its times in at once; those shortly after do not. */
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, 0, buf, 4096, false, &done), 0);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	journal_status(&w->fs, &before);
	t0 = env_realtime_ns(w->host);
	for (unsigned int i = 0; i < 16; i++)
		CU_ASSERT_EQUAL(file_write(&w->fs, ino, i * 4096, buf, 4096, false, &done), 0);
	CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, true), 0);
	journal_status(&w->fs, &after);
	CU_ASSERT_EQUAL(after.blocks_logged, before.blocks_logged);
	CU_ASSERT_EQUAL(inode_stat(&w->fs, ino->id, &attr), 0);
	CU_ASSERT_TRUE((uint64_t)attr.mtime_ns >= t0);
	/* fsync, unlike fdatasync, makes them durable. */
	CU_ASSERT_EQUAL(file_fsync(&w->fs, ino, false), 0);
	journal_status(&w->fs, &after);
	CU_ASSERT_EQUAL(after.blocks_logged, before.blocks_logged + 1);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(buf);
}

/* A guest's random writes would each cost a journal commit, and be an order slower. */
static void overwriting_commits_nothing(void)
{
	world_run(VOLUME, quiet_body, NULL);
}

static void append_body(struct world *w)
{
	struct inode *ino;
	char buf[64];
	size_t done;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (unsigned int i = 0; i < 300; i++)
		CU_ASSERT_EQUAL(file_write(&w->fs, ino, 0, "a line of log\n", 14, true, &done), 0);
	CU_ASSERT_EQUAL(file_read(&w->fs, ino, 14 * 299, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(done, 14);
	CU_ASSERT_EQUAL(memcmp(buf, "a line of log\n", 14), 0);
	/* A log of 4 KiB must not take 256. */
	CU_ASSERT_EQUAL(file_blocks(ino), 2);
	CU_ASSERT_EQUAL(file_write(&w->fs, ino, 7ULL << 50, buf, 1, false, &done), -EFBIG);
	CU_ASSERT_EQUAL(file_truncate(&w->fs, ino, 7ULL << 50), -EFBIG);
	CU_ASSERT_EQUAL(file_allocate(&w->fs, ino, FILE_KEEP_SIZE, 0, 0), -EINVAL);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
}

static void a_log_appended_to_stays_small_and_whole(void)
{
	world_run(VOLUME, append_body, NULL);
}

static void tail_body(struct world *w)
{
	static const struct op ops[] = {
		{ .kind = OP_WRITE, .len = 10000, .seed = 2 },
		{ .kind = OP_TRUNCATE, .off = 8300 },
		/* Over the end, within the last block. */
		{ .kind = OP_WRITE, .off = 8250, .len = 100, .seed = 5 },
		{ .kind = OP_TRUNCATE, .off = 20000 },
		{ .kind = OP_TRUNCATE, .off = 8200 },
		/* Behind the end, in the last block and in another. */
		{ .kind = OP_WRITE, .off = 8240, .len = 10, .seed = 7 },
		{ .kind = OP_TRUNCATE, .off = 8201 },
		{ .kind = OP_WRITE, .off = 30000, .len = 10, .seed = 9 },
		{ .kind = OP_TRUNCATE, .off = 5 },
		{ .kind = OP_ALLOCATE, .off = 0, .len = 5000 },
		{ .kind = OP_TRUNCATE, .off = 3 },
		{ .kind = OP_ZERO, .off = 4096, .len = 5000 },
	};
	struct model *m = calloc(1, sizeof(*m));
	struct inode *ino;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		CU_ASSERT_EQUAL(op_run(&w->fs, ino, &ops[i]), 0);
		model_apply(m, &ops[i]);
		CU_ASSERT_EQUAL(compare(&w->fs, ino, m, 0, MODEL_MAX, 0), -1);
	}
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(m);
}

/* A log cut and grown again would show lines that were cut off. */
static void what_was_cut_off_is_zero_when_the_file_grows(void)
{
	world_run(VOLUME, tail_body, NULL);
}

/* ---- rescue ---- */

static void rescue_body(struct world *w)
{
	static const struct op op = { .kind = OP_WRITE, .off = 5000, .len = 700000, .seed = 3 };
	struct model *m = calloc(1, sizeof(*m));
	uint8_t *buf = malloc(MODEL_MAX);
	struct inode *ino;
	size_t done = 0;
	uint64_t id;

	world_format(w);
	MUST(!world_mount(w));
	ino = world_create(w);
	id = ino->id;
	CU_ASSERT_EQUAL(op_run(&w->fs, ino, &op), 0);
	model_apply(m, &op);
	CU_ASSERT_EQUAL(journal_settle(&w->fs), 0);
	CU_ASSERT_EQUAL(file_read_unlocked(&w->fs, id, 123, buf, MODEL_MAX, &done), 0);
	CU_ASSERT_EQUAL(done, m->size - 123);
	CU_ASSERT_EQUAL(memcmp(buf, m->data + 123, done), 0);
	CU_ASSERT_EQUAL(file_read_unlocked(&w->fs, id ^ 1ULL << 41, 0, buf, 1, &done), -ESTALE);
	inode_put(&w->fs, ino);
	CU_ASSERT_EQUAL(world_unmount(w), 0);
	free(buf);
	free(m);
}

/* When no host works any more, the data must still be had. */
static void a_rescue_reads_without_locks(void)
{
	world_run(VOLUME, rescue_body, NULL);
}

UNIT_MAIN("fs/file",
	UNIT_TEST(random_operations_match_a_model_in_memory),
	UNIT_TEST(a_power_cut_loses_nothing_synced_and_shows_nothing_old),
	UNIT_TEST(an_overwrite_is_durable_after_fdatasync),
	UNIT_TEST(a_truncation_cut_half_way_is_finished),
	UNIT_TEST(what_was_cut_off_is_zero_when_the_file_grows),
	UNIT_TEST(each_failing_write_leaves_a_sound_volume),
	UNIT_TEST(each_failing_read_leaves_a_sound_volume),
	UNIT_TEST(a_full_volume_keeps_its_data_and_can_be_emptied),
	UNIT_TEST(writers_of_neighbouring_sectors_do_not_undo_each_other),
	UNIT_TEST(overwriting_commits_nothing),
	UNIT_TEST(a_log_appended_to_stays_small_and_whole),
	UNIT_TEST(a_rescue_reads_without_locks));
