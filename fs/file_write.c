/* SPDX-License-Identifier: Apache-2.0 */
/* Writing to files. */
#include "fs/file.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/file_io.h"
#include "fs/image.h"

#define TIMES_LATE_NS	(200 * NSEC_PER_MSEC)	/* overwrites' times go into the inode that late */

/* ---- overwriting: nothing but data changes ---- */

/* Valid blocks from @off on, as many as @p has room for; returns their bytes in *@n. */
static int collect_valid(struct fs *fs, struct inode *ino, uint64_t off, uint8_t *from,
			 uint64_t len, struct pieces *p, size_t *n)
{
	struct map_entry e;
	int err;

	*n = 0;
	while (len) {
		uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE), run;
		uint64_t left = UNIT_SIZE - off % UNIT_SIZE;
		size_t bytes;
		bool valid;

		err = map_get(fs, ino, off / UNIT_SIZE, &e);
		if (err)
			return err;
		left = left < len ? left : len;
		run = entry_run(&e, block, (uint32_t)(left / BLOCK_SIZE), &valid);
		bytes = (size_t)run * BLOCK_SIZE;
		if (!valid || !pieces_add(p, entry_addr(&e, block), from, bytes))
			return 0;
		from += bytes;
		off += bytes;
		len -= bytes;
		*n += bytes;
	}
	return 0;
}

/*
 * Whole valid blocks within the file, straight from the caller's buffer, beside other
 * requests: *@n bytes from @off on, 0 where something else is to be done first.
 */
static int overwrite(struct fs *fs, struct inode *ino, uint64_t off, const uint8_t *buf,
		     size_t len, size_t *n)
{
	struct pieces p;
	uint64_t size;
	int err;

	*n = 0;
	if (off % BLOCK_SIZE || len < BLOCK_SIZE || !file_buf_is_aligned(fs, buf))
		return 0;
	err = file_rdlock(fs, ino);
	if (err)
		return err;
	size = file_size(ino);
	if (off < size && !file_is_inline(ino)) {
		uint64_t whole = ALIGN_DOWN(size - off < len ? size - off : len, BLOCK_SIZE);

		pieces_init(&p, fs, BLK_WRITE);
		err = collect_valid(fs, ino, off, (uint8_t *)(uintptr_t)buf, whole, &p, n);
		if (!err && *n)
			err = pieces_submit(&p);
		if (!err && *n)
			__atomic_store_n(&ino->write_ns, env_realtime_ns(fs->env),
					 __ATOMIC_RELAXED);
	}
	file_rdunlock(fs, ino);
	if (err)
		*n = 0;
	return err;
}

void file_overwritten(struct fs *fs, struct inode *ino, int err)
{
	file_data_written(fs, err);
	if (!err)
		__atomic_store_n(&ino->write_ns, env_realtime_ns(fs->env), __ATOMIC_RELAXED);
}

bool file_times_are_late(struct fs *fs, struct inode *ino)
{
	uint64_t last = __atomic_load_n(&ino->times_put_ns, __ATOMIC_RELAXED);

	return __atomic_load_n(&ino->write_ns, __ATOMIC_RELAXED) &&
	       env_now_ns(fs->env) - last > TIMES_LATE_NS;
}

/* A write must not cost a transaction for its times; now and then one does. */
static void flush_late_times(struct fs *fs, struct inode *ino)
{
	if (file_times_are_late(fs, ino))
		inode_flush_times(fs, ino);	/* a dead journal shows at the next fsync */
}

/* ---- everything else, rwlock held for writing ---- */

static int write_inline(struct fs *fs, struct inode *ino, uint64_t off, const uint8_t *buf,
			size_t len)
{
	uint64_t size = file_size(ino);
	struct inode_disk *di;
	struct txn txn;
	int err = txn_begin(fs, 1, &txn);

	if (err)
		return err;
	di = inode_touch(&txn, ino, true);
	if (off > size)
		memset(di->root + size, 0, off - size);
	memcpy(di->root + off, buf, len);
	if (off + len > size)
		di->size = cpu_to_le64(off + len);
	txn_end(&txn);
	return 0;
}

/* Into blocks of units that all have space, from an aligned buffer. */
static int write_units(struct fs *fs, const struct units *u, uint64_t off, uint8_t *buf,
		       size_t len)
{
	struct pieces p;

	pieces_init(&p, fs, BLK_WRITE);
	while (len) {
		size_t n = UNIT_SIZE - off % UNIT_SIZE;
		const struct map_entry *e = &u->e[off / UNIT_SIZE - u->first];

		n = n < len ? n : len;
		if (!pieces_add(&p, entry_addr(e, 0) + off % UNIT_SIZE, buf, n))
			assert(!"more units than pieces");
		buf += n;
		off += n;
		len -= n;
	}
	return pieces_submit(&p);
}

/* A block that is written in part: what is around it, from disk, a parent image, or zeros. */
static int read_around(struct fs *fs, struct inode *ino, const struct units *u, uint64_t off,
		       uint8_t *block)
{
	const struct map_entry *e = &u->e[off / UNIT_SIZE - u->first];
	uint32_t i = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE);
	uint64_t addr[UNIT_BLOCKS];
	int err = image_resolve(fs, ino, off / UNIT_SIZE, 1ULL << i, e, addr);

	if (!err && !addr[i] && e->block && MUTANT("no-zero-fill"))
		addr[i] = entry_addr(e, i);
	if (err || !addr[i])
		return err;	/* the buffer is zeroed */
	return blkdev_read(fs->dev, addr[i], block, BLOCK_SIZE);
}

static int write_bounced(struct fs *fs, struct inode *ino, const struct units *u, uint64_t off,
			 const uint8_t *buf, size_t len)
{
	uint64_t start = ALIGN_DOWN(off, BLOCK_SIZE), end = ALIGN_UP(off + len, BLOCK_SIZE);
	uint64_t last = end - BLOCK_SIZE;
	uint8_t *bounce = blkdev_alloc(end - start);
	int err = 0;

	if (!bounce)
		return -ENOMEM;
	if (off != start)
		err = read_around(fs, ino, u, start, bounce);
	if (!err && off + len != end && (last != start || off == start))
		err = read_around(fs, ino, u, last, bounce + (last - start));
	if (!err) {
		memcpy(bounce + (off - start), buf, len);
		err = write_units(fs, u, start, bounce, end - start);
	}
	free(bounce);
	return err;
}

/* Notes which validity bits the write sets.  Returns whether anything in the map changes. */
static bool mark_valid(struct units *u, uint64_t off, size_t len)
{
	bool any = false;

	for (unsigned int i = 0; i < u->count; i++) {
		uint64_t start = (u->first + i) * UNIT_SIZE, end = start + UNIT_SIZE, bits;

		start = off > start ? off : start;
		end = off + len < end ? off + len : end;
		if (start >= end)
			continue;
		bits = block_mask((uint32_t)(start % UNIT_SIZE / BLOCK_SIZE),
				  (uint32_t)DIV_ROUND_UP(end - (u->first + i) * UNIT_SIZE,
							 BLOCK_SIZE));
		if ((u->e[i].valid & bits) != bits)
			u->changed[i] = true;
		u->e[i].valid |= bits;
		any |= u->changed[i];
	}
	return any;
}

/* Up to UNITS_MAX units: data first, then one transaction that shows it (R8). */
static int write_chunk(struct fs *fs, struct inode *ino, uint64_t off, const uint8_t *buf,
		       size_t len, size_t *n)
{
	uint64_t end = off + len, first = off / UNIT_SIZE;
	struct units u;
	bool aligned;
	int err = units_load(fs, ino, first, (end - 1) / UNIT_SIZE - first + 1, &u);

	if (err)
		return err;
	if (off > file_size(ino))
		err = file_zero_tail(fs, ino, off);
	if (!err)
		err = units_reserve(fs, ino, &u, unit0_order(end, file_size(ino)));
	if (err)
		return err;
	if (end > (first + u.count) * UNIT_SIZE)
		end = (first + u.count) * UNIT_SIZE;
	len = end - off;
	aligned = off % BLOCK_SIZE == 0 && len % BLOCK_SIZE == 0 && file_buf_is_aligned(fs, buf);
	if (aligned)
		err = write_units(fs, &u, off, (uint8_t *)(uintptr_t)buf, len);
	else
		err = write_bounced(fs, ino, &u, off, buf, len);
	if (err) {
		units_cancel(fs, &u);
		return err;
	}
	if (mark_valid(&u, off, len) || end > file_size(ino))
		err = units_commit(fs, ino, &u, end);
	else
		__atomic_store_n(&ino->write_ns, env_realtime_ns(fs->env), __ATOMIC_RELAXED);
	if (!err)
		*n = len;
	return err;
}

/* One step of a write; *@n bytes of it are done. */
static int write_step(struct fs *fs, struct inode *ino, uint64_t off, const uint8_t *buf,
		      size_t len, size_t *n)
{
	uint64_t end = off + len;
	uint32_t order = unit0_order(end, file_size(ino));
	int err;

	if (file_is_inline(ino) && end <= INLINE_SIZE) {
		err = write_inline(fs, ino, off, buf, len);
		if (!err)
			*n = len;
		return err;
	}
	err = file_is_inline(ino) ? file_uninline(fs, ino, off < UNIT_SIZE ? order : 0) : 0;
	if (!err && off < UNIT_SIZE)
		err = unit0_grow(fs, ino, order);
	if (err)
		return err;
	return write_chunk(fs, ino, off, buf, len, n);
}

int file_write_within(struct fs *fs, struct inode *ino, uint64_t off, const void *buf, size_t len)
{
	const uint8_t *from = buf;
	size_t n;
	int err = 0;

	assert(off + len <= file_size(ino));
	for (; len && !err; off += n, from += n, len -= n) {
		n = 0;
		err = write_step(fs, ino, off, from, len, &n);
	}
	return err;
}

/* With rwlock for writing: one step, or for an appending write all. */
static int write_locked(struct fs *fs, struct inode *ino, uint64_t off, const uint8_t *buf,
			size_t len, bool append, size_t *n)
{
	int err = file_wrlock(fs, ino);
	size_t step;

	*n = 0;
	if (err)
		return err;
	if (append)
		off = file_size(ino);
	if (off > FILE_BYTES_MAX || len > FILE_BYTES_MAX - off)
		err = -EFBIG;
	else
		err = file_finish_shrink(fs, ino);
	do {
		if (err)
			break;
		err = write_step(fs, ino, off + *n, buf + *n, len - *n, &step);
		if (!err)
			*n += step;
	} while (append && *n < len);
	file_wrunlock(fs, ino);
	return err;
}

int file_write(struct fs *fs, struct inode *ino, uint64_t off, const void *buf, size_t len,
	       bool append, size_t *done)
{
	const uint8_t *from = buf;
	size_t total = 0, n;
	int err = 0;

	if (!append && (off > FILE_BYTES_MAX || len > FILE_BYTES_MAX - off))
		return -EFBIG;
	while (total < len && !err) {
		n = 0;
		if (!append)
			err = overwrite(fs, ino, off + total, from + total, len - total, &n);
		if (!err && !n)
			err = write_locked(fs, ino, off + total, from + total, len - total,
					   append, &n);
		total += n;
	}
	flush_late_times(fs, ino);
	if (!total && err)
		return err;
	*done = total;
	return 0;
}
