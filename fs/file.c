/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, seeking and syncing of files. */
#include "fs/file.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/file_io.h"
#include "fs/image.h"

#define BOUNCE_MAX	(256 * KIB)
#define UNLOCKED_TRIES	5

/* ---- read ---- */

/* Through a buffer of our own: the caller's is not aligned, or the range is not. */
static int read_bounced(struct fs *fs, struct inode *ino, uint64_t off, uint8_t *to, size_t len)
{
	uint64_t start = ALIGN_DOWN(off, BLOCK_SIZE), end = ALIGN_UP(off + len, BLOCK_SIZE);
	size_t size = end - start < BOUNCE_MAX ? end - start : BOUNCE_MAX, skip, n;
	uint8_t *bounce = blkdev_alloc(size);
	int err = 0;

	if (!bounce)
		return -ENOMEM;
	while (len && !err) {
		start = ALIGN_DOWN(off, BLOCK_SIZE);
		n = end - start < size ? end - start : size;
		err = file_read_blocks(fs, ino, start, bounce, n);
		if (err)
			break;
		skip = off - start;
		n = n - skip < len ? n - skip : len;
		memcpy(to, bounce + skip, n);
		to += n;
		off += n;
		len -= n;
	}
	free(bounce);
	return err;
}

/* @len bytes at @off, all within the file; the buffer has room for @room bytes. */
static int read_range(struct fs *fs, struct inode *ino, uint64_t off, uint8_t *to, size_t len,
		      size_t room)
{
	size_t direct = 0;
	int err = 0;

	if (off % BLOCK_SIZE == 0 && file_buf_is_aligned(fs, to)) {
		/* The last block whole, where there is room, rather than copied. */
		direct = ALIGN_UP(len, BLOCK_SIZE);
		if (direct > room)
			direct = ALIGN_DOWN(len, BLOCK_SIZE);
		err = file_read_blocks(fs, ino, off, to, direct);
	}
	if (err || direct >= len)
		return err;
	return read_bounced(fs, ino, off + direct, to + direct, len - direct);
}

int file_read(struct fs *fs, struct inode *ino, uint64_t off, void *buf, size_t len,
	      size_t *done)
{
	uint64_t size;
	size_t n;
	int err = file_rdlock(fs, ino);

	if (err)
		return err;
	size = file_size(ino);
	n = off >= size ? 0 : size - off < len ? size - off : len;
	if (n && file_is_inline(ino))
		memcpy(buf, inode_disk(ino)->root + off, n);
	else if (n)
		err = read_range(fs, ino, off, buf, n, len);
	file_rdunlock(fs, ino);
	if (!err)
		*done = n;
	return err;
}

/* ---- seek ---- */

/* First byte >= @off whose block is valid (or, for @hole, is not); rwlock held. */
static int seek_data(struct fs *fs, struct inode *ino, uint64_t off, uint64_t *found)
{
	uint64_t unit = off / UNIT_SIZE, bits, at;
	uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE);
	struct map_entry e;
	int err;

	for (;; block = 0, unit++) {
		uint64_t asked = unit;

		err = map_next(fs, ino, &unit, &e);
		if (err)
			return err == -ENOENT ? -ENXIO : err;
		bits = unit == asked ? e.valid & block_mask(block, UNIT_BLOCKS) : e.valid;
		if (!bits)
			continue;
		at = unit * UNIT_SIZE + (uint64_t)__builtin_ctzll(bits) * BLOCK_SIZE;
		*found = at > off ? at : off;
		return 0;
	}
}

static int seek_hole(struct fs *fs, struct inode *ino, uint64_t off, uint64_t size,
		     uint64_t *found)
{
	uint64_t unit = off / UNIT_SIZE, bits, at;
	uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE);
	struct map_entry e;
	int err;

	for (; unit * UNIT_SIZE < size; block = 0, unit++) {
		err = map_get(fs, ino, unit, &e);
		if (err)
			return err;
		bits = ~e.valid & block_mask(block, UNIT_BLOCKS);
		if (!bits)
			continue;
		at = unit * UNIT_SIZE + (uint64_t)__builtin_ctzll(bits) * BLOCK_SIZE;
		at = at > off ? at : off;
		*found = at < size ? at : size;
		return 0;
	}
	*found = size;
	return 0;
}

/* The same of an image that shows its parent. */
static int seek_through(struct fs *fs, struct inode *ino, uint64_t off, uint64_t size, bool data,
			uint64_t *found)
{
	uint64_t unit = off / UNIT_SIZE, addr[UNIT_BLOCKS];
	uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE);
	struct map_entry e;
	int err;

	for (; unit * UNIT_SIZE < size; block = 0, unit++) {
		uint64_t asked = unit;

		err = data ? image_next(fs, ino, &unit) : 0;
		if (err)
			return err == -ENOENT ? -ENXIO : err;
		err = map_get(fs, ino, unit, &e);
		if (!err)
			err = image_resolve(fs, ino, unit, ~0ULL, &e, addr);
		if (err)
			return err;
		for (block = unit == asked ? block : 0; block < UNIT_BLOCKS; block++) {
			uint64_t at = unit * UNIT_SIZE + block * (uint64_t)BLOCK_SIZE;

			if (!!addr[block] != data)
				continue;
			*found = at < off ? off : at < size ? at : size;
			return 0;
		}
	}
	*found = size;
	return data ? -ENXIO : 0;
}

int file_seek(struct fs *fs, struct inode *ino, uint64_t off, int whence, uint64_t *found)
{
	uint64_t size, at = off;
	int err;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	err = file_rdlock(fs, ino);
	if (err)
		return err;
	size = file_size(ino);
	if (off >= size)
		err = -ENXIO;
	else if (file_is_inline(ino))
		at = whence == SEEK_DATA ? off : size;
	else if (inode_has_parent(ino))
		err = seek_through(fs, ino, off, size, whence == SEEK_DATA, &at);
	else if (whence == SEEK_HOLE)
		err = seek_hole(fs, ino, off, size, &at);
	else
		err = seek_data(fs, ino, off, &at);
	file_rdunlock(fs, ino);
	if (!err && whence == SEEK_DATA && at >= size)
		err = -ENXIO;
	if (!err)
		*found = at;
	return err;
}

/* ---- sync ---- */

int file_fsync(struct fs *fs, struct inode *ino, bool data_only)
{
	uint64_t id;
	int err;

	if (!data_only) {
		err = inode_flush_times(fs, ino);
		if (err)
			return err;
	}
	env_rwlock_rdlock(fs->env, &ino->rwlock);
	id = data_only ? ino->data_txn_id : ino->txn_id;
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return id ? journal_commit(fs, id) : journal_flush_data(fs);
}

/* ---- without locks ---- */

/* Blocks from @block on, before @stop, that lie together or are all zeros. */
static uint32_t addr_run(const uint64_t *addr, uint32_t block, uint32_t stop)
{
	uint32_t i = block + 1;

	while (i < stop && (addr[block] ? addr[i] == addr[i - 1] + BLOCK_SIZE : !addr[i]))
		i++;
	return i - block;
}

/* One unit's part of an unlocked read: @bounce takes whole blocks. */
static int read_unit_unlocked(struct fs *fs, uint64_t id, const struct inode_disk *di,
			      uint64_t off, uint8_t *to, size_t len, uint8_t *bounce)
{
	uint64_t start = ALIGN_DOWN(off, BLOCK_SIZE), end = ALIGN_UP(off + len, BLOCK_SIZE);
	uint32_t block = (uint32_t)(start % UNIT_SIZE / BLOCK_SIZE), run;
	uint32_t stop = block + (uint32_t)((end - start) / BLOCK_SIZE);
	uint64_t addr[UNIT_BLOCKS];
	uint8_t *at = bounce;
	int err = image_resolve_unlocked(fs, id, di, off / UNIT_SIZE, block_mask(block, stop),
					 addr);

	for (; !err && block < stop; block += run) {
		run = addr_run(addr, block, stop);
		if (addr[block])
			err = blkdev_read(fs->dev, addr[block], at, (size_t)run * BLOCK_SIZE);
		else
			memset(at, 0, (size_t)run * BLOCK_SIZE);
		at += (size_t)run * BLOCK_SIZE;
	}
	if (!err)
		memcpy(to, bounce + (off - start), len);
	return err;
}

/* The inode is as it was: everything read belonged to it. */
static int recheck(struct fs *fs, uint64_t id, const struct inode_disk *di, uint8_t *block)
{
	int err = inode_read_unlocked(fs, id, block);

	if (err)
		return err;
	return meta_version(block) == meta_version(di) ? 0 : -EAGAIN;
}

static int read_unlocked_once(struct fs *fs, uint64_t id, uint64_t off, uint8_t *to, size_t len,
			      struct inode_disk *di, uint8_t *bounce, size_t *done)
{
	uint64_t size;
	size_t n, left;
	int err = inode_read_unlocked(fs, id, di);

	if (err)
		return err;
	size = le64_to_cpu(di->size);
	*done = off >= size ? 0 : size - off < len ? size - off : len;
	if (le32_to_cpu(di->flags) & INODE_INLINE) {
		if (*done)
			memcpy(to, di->root + off, *done);
		return 0;
	}
	for (left = *done; left && !err; left -= n) {
		n = UNIT_SIZE - off % UNIT_SIZE;
		n = n < left ? n : left;
		err = read_unit_unlocked(fs, id, di, off, to, n, bounce);
		off += n;
		to += n;
	}
	return err ? err : recheck(fs, id, di, bounce);
}

int file_read_unlocked(struct fs *fs, uint64_t id, uint64_t off, void *buf, size_t len,
		       size_t *done)
{
	/* The inode, and a unit's blocks. */
	uint8_t *memory = blkdev_alloc(BLOCK_SIZE + UNIT_SIZE);
	int err = -ENOMEM;
	size_t n = 0;

	if (!memory)
		return err;
	for (unsigned int i = 0; i < UNLOCKED_TRIES; i++) {
		err = read_unlocked_once(fs, id, off, buf, len, (struct inode_disk *)memory,
					 memory + BLOCK_SIZE, &n);
		if (err != -EAGAIN && err != -EUCLEAN && err != -EBADMSG)
			break;
	}
	free(memory);
	if (!err)
		*done = n;
	return err == -EAGAIN ? -EIO : err;
}
