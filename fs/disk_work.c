/* SPDX-License-Identifier: Apache-2.0 */
/* A disk's slow operations on their worker threads: they see the file, and nothing of the owner's. */
#include "base/mutant.h"
#include "fs/disk_internal.h"

#define COMMIT_UNITS	32u	/* of one leaf, in one transaction */
#define FOUND_MAX	1024u	/* that a load brings */
#define RW_BYTES	MIB	/* memory for a request that goes through a buffer */

/* ---- the map ---- */

static bool run_add(struct disk_slow *s, uint64_t block, uint64_t len, enum extent_kind kind,
		    uint64_t at)
{
	struct extent *last = s->found_count ? &s->found[s->found_count - 1] : NULL;

	if (last && last->kind == kind && last->start + last->len == block &&
	    last->len + len <= EXTENT_LEN_MAX &&
	    (kind == EXTENT_ZERO || last->block + last->len == at)) {
		*last = extent_make(last->start, last->len + len, kind, last->block);
		return true;
	}
	if (s->found_count == FOUND_MAX)
		return false;
	s->found[s->found_count++] = extent_make(block, len, kind, at);
	return true;
}

/* What is not the image's own reads as zeros: with space for its first write, or without. */
static bool add_zeros(struct disk_slow *s, const struct map_entry *e, uint64_t unit, uint32_t i,
		      uint32_t run)
{
	bool room = e->block && e->order == UNIT_ORDER;

	return run_add(s, unit * UNIT_BLOCKS + i, run, room ? EXTENT_ROOM : EXTENT_ZERO,
		       room ? e->block + i : 0);
}

/* A unit of an image that shows its parent, block by block. */
static int load_through(struct disk_slow *s, struct fs *fs, struct inode *ino, uint64_t unit,
			const struct map_entry *e)
{
	uint64_t addr[UNIT_BLOCKS];
	int err = image_resolve(fs, ino, unit, ~0ULL, e, addr);

	for (uint32_t i = 0; !err && i < UNIT_BLOCKS; i++) {
		enum extent_kind kind = e->valid >> i & 1 ? EXTENT_OWN : EXTENT_BELOW;

		if (addr[i] ? !run_add(s, unit * UNIT_BLOCKS + i, 1, kind, addr[i] >> BLOCK_SHIFT) :
			      !add_zeros(s, e, unit, i, 1))
			return -E2BIG;
	}
	return err;
}

static int load_unit(struct disk_slow *s, struct fs *fs, struct inode *ino, uint64_t unit)
{
	struct map_entry e;
	uint32_t run;
	bool valid;
	int err = map_get(fs, ino, unit, &e);

	if (!err && inode_has_parent(ino))
		return load_through(s, fs, ino, unit, &e);
	for (uint32_t i = 0; !err && i < UNIT_BLOCKS; i += run) {
		run = entry_run(&e, i, UNIT_BLOCKS - i, &valid);
		if (valid ? !run_add(s, unit * UNIT_BLOCKS + i, run, EXTENT_OWN, e.block + i) :
			    !add_zeros(s, &e, unit, i, run))
			return -E2BIG;
	}
	return err;
}

/* Nothing of a unit that does not fit whole, nor what the last run before it was lengthened by. */
static int load_whole_unit(struct disk_slow *s, struct fs *fs, struct inode *ino, uint64_t unit)
{
	unsigned int before = s->found_count;
	struct extent last = before ? s->found[before - 1] : (struct extent){ 0 };
	int err = load_unit(s, fs, ino, unit);

	if (!err)
		return 0;
	s->found_count = before;
	if (before)
		s->found[before - 1] = last;
	return err;
}

static int work_load(struct disk_slow *s)
{
	struct fs *fs = s->d->fs;
	struct inode *ino = s->d->f->ino;
	uint64_t unit;
	int err;

	s->found = malloc(FOUND_MAX * sizeof(*s->found));
	if (!s->found)
		return -ENOMEM;
	err = file_rdlock(fs, ino);
	if (err)
		return err;
	for (unit = s->first; unit < s->end && !err; unit++)
		err = load_whole_unit(s, fs, ino, unit);
	if (err)
		unit--;
	file_rdunlock(fs, ino);
	/* One that did not fit, or cannot be read: those before it are something, too. */
	if (err && unit > s->first)
		err = 0;
	s->reached = unit;
	return err;
}

/* ---- space ---- */

static int space_once(struct fs *fs, struct inode *ino, struct disk_range *r, bool *allocated)
{
	struct units u;
	int err = file_wrlock(fs, ino);

	if (err)
		return err;
	err = units_load(fs, ino, r->first, r->end - r->first, &u);
	if (!err)
		err = units_reserve(fs, ino, &u, UNIT_ORDER);
	if (!err && u.fresh_count) {
		*allocated = true;
		err = units_commit(fs, ino, &u, 0);
	}
	if (!err) {
		r->reached = r->first + u.count;
		memcpy(r->e, u.e, sizeof(r->e));
	}
	file_wrunlock(fs, ino);
	return err;
}

static int work_space(struct disk_slow *s)
{
	struct fs *fs = s->d->fs;
	struct inode *ino = s->d->f->ino;
	bool allocated = false;
	int err = fs_may_write(fs);

	for (unsigned int i = 0; !err && i < s->space->count; i++) {
		struct disk_range *r = &s->space->ranges[i];

		r->err = space_once(fs, ino, r, &allocated);
		if (r->err == -ENOSPC && fs_make_space(fs))
			r->err = space_once(fs, ino, r, &allocated);
		r->err = fs_result(fs, r->err);
	}
	/* Whose blocks are written before the map has them may be killed: the space stays the file's. */
	if (!err && (allocated || (s->flush && !MUTANT("moved-undurable"))))
		err = file_fsync(fs, ino, true);
	for (unsigned int i = 0; err && i < s->space->count; i++)
		s->space->ranges[i].err = fs_result(fs, err);
	return err;
}

/* ---- commit ---- */

static int compare_bits(const void *a, const void *b)
{
	const struct disk_bits *x = a, *y = b;

	return x->unit < y->unit ? -1 : x->unit > y->unit;
}

/* Up to COMMIT_UNITS of one leaf; returns how many, or an error. */
static int commit_some(struct fs *fs, struct inode *ino, const struct disk_bits *bits,
		       unsigned int count)
{
	struct map_entry e;
	unsigned int n = 1;
	struct txn txn;
	int err = map_set_prepare(fs, ino, bits[0].unit);

	while (n < count && n < COMMIT_UNITS &&
	       bits[n].unit / LEAF_ENTRIES == bits[0].unit / LEAF_ENTRIES)
		n++;
	if (!err)
		err = txn_begin(fs, 1 + MAP_CREDITS, &txn);
	if (err)
		return err;
	inode_touch(&txn, ino, true);
	for (unsigned int i = 0; i < n && !err; i++) {
		err = map_get(fs, ino, bits[i].unit, &e);
		if (err)
			break;
		assert(e.block);
		e.valid |= bits[i].bits;
		err = map_set(&txn, ino, bits[i].unit, &e, NULL, 0);
	}
	txn_end(&txn);
	return err ? err : (int)n;
}

/*
 * R8: the blocks were written before, and the transaction that shows them is durable only after a
 * flush that covers them (journal_data_written()).
 */
int disk_work_commit(struct disk *d, struct disk_bits *bits, unsigned int count)
{
	struct fs *fs = d->fs;
	struct inode *ino = d->f->ino;
	int n = 0, err;

	if (!count)
		return 0;
	qsort(bits, count, sizeof(*bits), compare_bits);
	err = file_wrlock(fs, ino);
	if (err)
		return err;
	journal_data_written(fs);
	for (unsigned int i = 0; i < count && n >= 0; i += (unsigned int)n) {
		n = commit_some(fs, ino, bits + i, count - i);
		if (n < 0)
			err = n;
	}
	file_wrunlock(fs, ino);
	/* Durable: who is killed now has noted them in vain, who is killed before, for good. */
	return err ? err : file_fsync(fs, ino, true);
}

static int work_commit(struct disk_slow *s)
{
	struct disk *d = s->d;
	int err;

	if (s->flush)
		file_overwritten(d->fs, d->f->ino, 0);
	err = disk_work_commit(d, s->bits, s->bits_count);
	if (err || s->bits_count || !s->flush)
		return err;	/* that was a flush */
	return file_fsync(d->fs, d->f->ino, true);
}

/* ---- what timed out ---- */

static int work_drain(struct disk_slow *s)
{
	struct fs *fs = s->d->fs;
	int err = blkdev_drain(s->d->lower);

	if (err && fs->lockd)
		lockd_fail(fs->lockd, "a command that timed out can neither be ended nor waited for");
	journal_data_written(fs);
	return err;
}

/* ---- exclusive ones ---- */

/* Where in a request's buffers the next piece of it is. */
struct place_in_iov {
	const struct iovec *iov;
	size_t skip;
};

static void copy_iov(struct place_in_iov *at, uint8_t *flat, size_t len, bool to_iov)
{
	while (len) {
		uint8_t *part = (uint8_t *)at->iov->iov_base + at->skip;
		size_t n = at->iov->iov_len - at->skip;

		n = n < len ? n : len;
		if (to_iov)
			memcpy(part, flat, n);
		else
			memcpy(flat, part, n);
		flat += n;
		len -= n;
		at->skip += n;
		if (at->skip == at->iov->iov_len) {
			at->iov++;
			at->skip = 0;
		}
	}
}

/* All of @len bytes, or an error. */
static int rw_piece(struct disk_slow *s, uint64_t off, uint8_t *flat, size_t len)
{
	struct disk *d = s->d;
	size_t done = 0, n = 0;
	int err = 0;

	for (; !err && done < len; done += n) {
		if (s->kind == SLOW_WRITE)
			err = fs_write(d->fs, d->f, off + done, flat + done, len - done, false, &n);
		else
			err = fs_read(d->fs, d->f, off + done, flat + done, len - done, &n);
		if (!err && !n)
			err = -EIO;	/* the file is shorter than the disk */
	}
	return err;
}

/* By pieces: how long a request is its guest says, and our memory is everybody's. */
static int work_rw(struct disk_slow *s)
{
	struct place_in_iov at = { .iov = s->io->iov };
	uint64_t pos = s->off, end = s->off + s->len, n;
	uint8_t *flat = blkdev_alloc(s->len < RW_BYTES ? ALIGN_UP(s->len, BLOCK_SIZE) : RW_BYTES);
	int err = 0;

	if (!flat)
		return -ENOMEM;
	for (; !err && pos < end; pos += n) {
		n = RW_BYTES - pos % BLOCK_SIZE;
		n = n < end - pos ? n : end - pos;
		if (s->kind == SLOW_WRITE)
			copy_iov(&at, flat, n, false);
		err = rw_piece(s, pos, flat, n);
		if (!err && s->kind == SLOW_READ)
			copy_iov(&at, flat, n, true);
	}
	free(flat);
	return err;
}

static int work_exclusive(struct disk_slow *s)
{
	struct disk *d = s->d;
	int err = disk_work_commit(d, s->bits, s->bits_count);

	s->commit_err = err;
	if (err)
		return err;
	if (s->kind == SLOW_DISCARD)
		return fs_fallocate(d->fs, d->f, FILE_KEEP_SIZE | FILE_PUNCH, s->off, s->len);
	if (s->kind == SLOW_ZERO)
		err = fs_fallocate(d->fs, d->f, FILE_KEEP_SIZE | FILE_CLEAR, s->off, s->len);
	else
		err = work_rw(s);
	/* A guest that is told so goes on when this process is killed: the map must know. */
	return err || s->kind == SLOW_READ ? err : file_fsync(d->fs, d->f->ino, true);
}

/* ---- after a kill ---- */

int disk_work_resume(struct disk *d)
{
	struct fs *fs = d->fs;
	struct inode *ino = d->f->ino;
	struct map_entry e;
	unsigned int n = 0;
	int err = file_rdlock(fs, ino);

	if (err)
		return err;
	for (unsigned int i = 0; !err && i < DISK_FRESH_MAX; i++) {
		uint64_t unit = d->fresh->units[i].unit, bits = d->fresh->units[i].blocks;

		if (!unit || !bits || unit - 1 >= FILE_BYTES_MAX / UNIT_SIZE || MUTANT("notes-ignored"))
			continue;
		err = map_get(fs, ino, unit - 1, &e);
		/* Discarded or moved since: then the map knew them before. */
		if (!err && e.block && e.block == d->fresh->units[i].block && e.order == UNIT_ORDER)
			d->bits[n++] = (struct disk_bits){ unit - 1, bits };
	}
	file_rdunlock(fs, ino);
	return err ? err : disk_work_commit(d, d->bits, n);
}

void disk_work(struct work *work)
{
	struct disk_slow *s = container_of(work, struct disk_slow, work);
	struct disk *d = s->d;
	int err;

	switch (s->kind) {
	case SLOW_LOAD:
		err = work_load(s);
		break;
	case SLOW_SPACE:
		err = work_space(s);
		break;
	case SLOW_COMMIT:
		err = work_commit(s);
		break;
	case SLOW_DRAIN:
		err = work_drain(s);
		break;
	default:
		err = work_exclusive(s);
		break;
	}
	s->err = fs_result(d->fs, err);
	disk_post(d, &s->back);
}
