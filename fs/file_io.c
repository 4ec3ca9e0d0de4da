/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/file_io.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/cluster.h"
#include "fs/image.h"
#include "fs/internal.h"

/* ---- locks ---- */

static int check_kind(const struct inode *ino)
{
	uint32_t mode = le32_to_cpu(inode_disk(ino)->mode);

	if (!mode)
		return -ESTALE;
	if (S_ISDIR(mode))
		return -EISDIR;
	return S_ISREG(mode) || S_ISLNK(mode) ? 0 : -EINVAL;
}

int file_rdlock(struct fs *fs, struct inode *ino)
{
	int err;

	env_rwlock_rdlock(fs->env, &ino->rwlock);
	if (!ino->loaded) {
		env_rwlock_rdunlock(fs->env, &ino->rwlock);
		err = inode_load(fs, ino);
		if (err)
			return err;
		env_rwlock_rdlock(fs->env, &ino->rwlock);
	}
	err = check_kind(ino);
	if (err)
		env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return err;
}

int file_wrlock(struct fs *fs, struct inode *ino)
{
	int err;

	env_rwlock_wrlock(fs->env, &ino->rwlock);
	if (!ino->loaded) {
		inode_wrunlock(fs, ino);
		err = inode_load(fs, ino);
		if (err)
			return err;
		env_rwlock_wrlock(fs->env, &ino->rwlock);
	}
	err = check_kind(ino);
	/* Opened for reading, or by several writers with a frozen map: nothing may change (R1). */
	if (!err && cluster_held(fs, &ino->cover.lock) != LOCK_EXCLUSIVE)
		err = -EBADF;
	if (err)
		inode_wrunlock(fs, ino);
	return err;
}

void file_rdunlock(struct fs *fs, struct inode *ino)
{
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
}

void file_wrunlock(struct fs *fs, struct inode *ino)
{
	inode_wrunlock(fs, ino);
}

/* ---- pieces ---- */

void pieces_init(struct pieces *p, struct fs *fs, enum blk_op op)
{
	p->fs = fs;
	p->op = op;
	p->count = 0;
}

bool pieces_add(struct pieces *p, uint64_t addr, void *buf, size_t len)
{
	struct iovec *iov;
	struct blk_io *io;

	if (p->count) {
		iov = &p->iov[p->count - 1];
		io = &p->ios[p->count - 1];
		if (io->off + io->len == addr && (uint8_t *)iov->iov_base + iov->iov_len == buf) {
			iov->iov_len += len;
			io->len += len;
			return true;
		}
	}
	if (p->count == PIECES_MAX)
		return false;
	iov = &p->iov[p->count];
	*iov = (struct iovec){ .iov_base = buf, .iov_len = len };
	p->ios[p->count++] = (struct blk_io){
		.op = p->op, .off = addr, .len = len, .iov = iov, .iovcnt = 1,
	};
	return true;
}

void file_data_written(struct fs *fs, int err)
{
	if (err == -ENOSPC)
		fs_note_device_full(fs);
	if (err && !MUTANT("no-drain") && blkdev_drain(fs->dev) && fs->lockd)
		lockd_fail(fs->lockd, "a write that timed out can neither be ended nor "
			   "waited for");
	/* Failed or not: part of it may have landed, and a later flush must cover it. */
	journal_data_written(fs);
}

int pieces_submit(struct pieces *p)
{
	struct fs *fs = p->fs;
	int err = 0;

	if (p->count == 1)
		err = blkdev_rwv(fs->dev, p->op, 0, p->ios[0].off, p->iov, 1);
	else if (p->count)
		err = blkdev_rw_batch(fs->dev, p->ios, p->count);
	if (p->op == BLK_WRITE && p->count)
		file_data_written(fs, err);
	p->count = 0;
	return err;
}

bool file_buf_is_aligned(const struct fs *fs, const void *buf)
{
	uint32_t align = fs->dev->info.mem_align;

	return (uintptr_t)buf % (align ? align : BLOCK_SIZE) == 0;
}

/* ---- blocks ---- */

uint32_t entry_run(const struct map_entry *e, uint32_t block, uint32_t max, bool *valid)
{
	uint64_t bits = e->valid >> block, other;
	uint32_t run;

	*valid = bits & 1;
	other = *valid ? ~bits : bits;
	run = other ? (uint32_t)__builtin_ctzll(other) : UNIT_BLOCKS;
	return run < max ? run : max;
}

/* Of an image with a parent: blocks [@block, +@count) of one unit. */
static int read_through(struct fs *fs, struct inode *ino, uint64_t unit,
			const struct map_entry *own, uint32_t block, uint32_t count, uint8_t *to,
			struct pieces *p)
{
	uint64_t addr[UNIT_BLOCKS];
	int err = image_resolve(fs, ino, unit, block_mask(block, block + count), own, addr);

	for (uint32_t i = block; !err && i < block + count; i++, to += BLOCK_SIZE) {
		if (!addr[i]) {
			memset(to, 0, BLOCK_SIZE);
		} else if (!pieces_add(p, addr[i], to, BLOCK_SIZE)) {
			err = pieces_submit(p);
			if (!err)
				pieces_add(p, addr[i], to, BLOCK_SIZE);
		}
	}
	return err;
}

int file_read_blocks(struct fs *fs, struct inode *ino, uint64_t off, void *buf, size_t len)
{
	bool through = inode_has_parent(ino);
	struct pieces p;
	struct map_entry e;
	uint8_t *to = buf;
	int err;

	pieces_init(&p, fs, BLK_READ);
	while (len) {
		uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE), run;
		size_t left = UNIT_SIZE - off % UNIT_SIZE, bytes;
		bool valid;

		err = map_get(fs, ino, off / UNIT_SIZE, &e);
		if (err)
			return err;
		if (through) {
			bytes = left < len ? left : len;
			err = read_through(fs, ino, off / UNIT_SIZE, &e, block,
					   (uint32_t)(bytes / BLOCK_SIZE), to, &p);
			if (err)
				return err;
			to += bytes;
			off += bytes;
			len -= bytes;
			continue;
		}
		for (left = left < len ? left : len; left; left -= bytes) {
			run = entry_run(&e, block, (uint32_t)(left / BLOCK_SIZE), &valid);
			bytes = (size_t)run * BLOCK_SIZE;
			if (!valid) {
				memset(to, 0, bytes);
			} else if (!pieces_add(&p, entry_addr(&e, block), to, bytes)) {
				err = pieces_submit(&p);
				if (err)
					return err;
				pieces_add(&p, entry_addr(&e, block), to, bytes);
			}
			block += run;
			to += bytes;
			off += bytes;
			len -= bytes;
		}
	}
	return pieces_submit(&p);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/*
 * A block of the parent image that shows: this image gets one of its own.  What lies beyond the
 * size is zero there already, see fs_snapshot().
 */
static int zero_through(struct fs *fs, struct inode *ino, uint64_t from, uint64_t to,
			const struct map_entry *own)
{
	static const uint8_t zeros[BLOCK_SIZE];
	uint32_t block = (uint32_t)(from % UNIT_SIZE / BLOCK_SIZE);
	uint64_t addr[UNIT_BLOCKS];
	int err;

	to = to < file_size(ino) ? to : file_size(ino);
	if (from >= to)
		return 0;
	err = image_below(fs, ino, from / UNIT_SIZE, 1ULL << block, own, addr);
	if (err || !addr[block])
		return err;
	return file_write_within(fs, ino, from, zeros, to - from);
}

int file_zero_within(struct fs *fs, struct inode *ino, uint64_t from, uint64_t to)
{
	uint32_t block = (uint32_t)(from % UNIT_SIZE / BLOCK_SIZE);
	struct map_entry e;
	struct pieces p;
	uint8_t *bounce;
	int err;

	assert(from < to && from / BLOCK_SIZE == (to - 1) / BLOCK_SIZE);
	err = map_get(fs, ino, from / UNIT_SIZE, &e);
	if (err)
		return err;
	if (!(e.valid >> block & 1))
		return inode_has_parent(ino) ? zero_through(fs, ino, from, to, &e) : 0;
	bounce = blkdev_alloc(BLOCK_SIZE);
	if (!bounce)
		return -ENOMEM;
	err = file_read_blocks(fs, ino, ALIGN_DOWN(from, BLOCK_SIZE), bounce, BLOCK_SIZE);
	if (err)
		goto out;
	if (is_zero(bounce + from % BLOCK_SIZE, to - from))
		goto out;
	memset(bounce + from % BLOCK_SIZE, 0, to - from);
	pieces_init(&p, fs, BLK_WRITE);
	pieces_add(&p, entry_addr(&e, block), bounce, BLOCK_SIZE);
	err = pieces_submit(&p);
out:
	free(bounce);
	return err;
}

int file_zero_tail(struct fs *fs, struct inode *ino, uint64_t end)
{
	uint64_t size = file_size(ino), stop = ALIGN_UP(size, BLOCK_SIZE);

	stop = end < stop ? end : stop;
	if (file_is_inline(ino) || stop <= size || MUTANT("no-zero-tail"))
		return 0;
	return file_zero_within(fs, ino, size, stop);
}
