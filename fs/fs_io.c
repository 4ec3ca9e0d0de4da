/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fs_io.h"

#include <errno.h>
#include <sys/stat.h>

#include "fs/file_io.h"
#include "fs/internal.h"

/* Where [@off, @off + @len) lies, all of it valid and in one piece; rwlock held. */
static int find_run(struct fs *fs, struct inode *ino, uint64_t off, size_t len, uint64_t *addr)
{
	uint64_t start = 0, next = 0;
	struct map_entry e;

	while (len) {
		uint32_t block = (uint32_t)(off % UNIT_SIZE / BLOCK_SIZE), run;
		uint64_t left = UNIT_SIZE - off % UNIT_SIZE;
		bool valid;
		int err;

		left = left < len ? left : len;
		err = map_get(fs, ino, off / UNIT_SIZE, &e);
		if (err)
			return err;
		run = entry_run(&e, block, (uint32_t)(left / BLOCK_SIZE), &valid);
		if (!valid || run < left / BLOCK_SIZE)
			return -EAGAIN;
		if (!next)
			start = next = entry_addr(&e, block);
		if (entry_addr(&e, block) != next)
			return -EAGAIN;
		next += left;
		off += left;
		len -= left;
	}
	*addr = start;
	return 0;
}

static bool is_plain(struct fs *fs, const struct fs_file *f, enum blk_op op, uint64_t off,
		     const void *buf, size_t len)
{
	if (!len || off % BLOCK_SIZE || len % BLOCK_SIZE || !file_buf_is_aligned(fs, buf))
		return false;
	if (fs->rescue || fs_may_read(fs))
		return false;
	if (op == BLK_READ)
		return true;
	return !fs_may_write(fs) && (f->flags & FS_OPEN_WRITE) && f->mode != LOCK_MULTI &&
	       !fs_cache_is_elsewhere(fs, f) &&
	       !file_times_are_late(fs, f->ino);
}

int fs_io_prepare(struct fs *fs, struct fs_file *f, enum blk_op op, uint64_t off, void *buf,
		  size_t len, struct fs_io *fio)
{
	struct inode *ino = f->ino;
	uint64_t addr = 0, size;
	int err = -EAGAIN;

	if (!is_plain(fs, f, op, off, buf, len))
		return -EAGAIN;
	/* Not behind a writer, who may wait for a request that we have prepared. */
	if (!env_rwlock_try_rdlock(fs->env, &ino->rwlock))
		return -EAGAIN;
	if (ino->loaded && S_ISREG(le32_to_cpu(inode_disk(ino)->mode)) && !file_is_inline(ino)) {
		size = file_size(ino);
		if (off < size && len <= size - off)
			err = find_run(fs, ino, off, len, &addr);
	}
	if (err) {
		env_rwlock_rdunlock(fs->env, &ino->rwlock);
		return -EAGAIN;	/* an error too: whoever tries again reports it */
	}
	fio->fs = fs;
	fio->ino = ino;
	fio->iov = (struct iovec){ .iov_base = buf, .iov_len = len };
	fio->io = (struct blk_io){
		.op = op, .off = addr, .len = len, .iov = &fio->iov, .iovcnt = 1,
	};
	return 0;
}

void fs_io_drop(struct fs_io *fio)
{
	env_rwlock_rdunlock(fio->fs->env, &fio->ino->rwlock);
}

/* rwlock held, loaded. */
static bool has_privileges(const struct inode *ino, bool set_id)
{
	const struct inode_disk *di = inode_disk(ino);

	return (set_id && mode_set_id(le32_to_cpu(di->mode))) ||
	       (le64_to_cpu(di->xattr) && !ino->no_capability);
}

bool fs_io_has_privileges(const struct fs_io *fio, bool set_id)
{
	return has_privileges(fio->ino, set_id);
}

/* Whether there surely are none; rwlock not held. */
static bool is_unprivileged(struct fs *fs, struct inode *ino, bool set_id)
{
	bool none;

	if (!env_rwlock_try_rdlock(fs->env, &ino->rwlock))
		return false;
	none = ino->loaded && !has_privileges(ino, set_id);
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	return none;
}

int fs_drop_privileges(struct fs *fs, struct fs_file *f, bool set_id)
{
	struct fs_attr attr;
	int err;

	if (f->mode == LOCK_MULTI || is_unprivileged(fs, f->ino, set_id))
		return 0;
	err = fs_getattr(fs, f->id, &attr);
	/* Not the mode that was seen: somebody may be changing it. */
	if (!err && set_id && mode_set_id(attr.mode))
		err = fs_setattr(fs, f->id, FS_CLEAR_SET_ID, &attr);
	if (!err && attr.has_xattrs)
		err = xattr_remove(fs, f->id, XATTR_CAPABILITY);
	return err == -ENODATA ? 0 : err;
}

static void io_done(struct blk_io *io, int err)
{
	struct fs_io *fio = container_of(io, struct fs_io, io);

	fio->done(fio, err);
}

void fs_io_submit(struct fs *fs, struct fs_io **fios, unsigned int count)
{
	struct blk_io *ios[FS_IO_BATCH];

	assert(count <= FS_IO_BATCH);
	for (unsigned int i = 0; i < count; i++) {
		ios[i] = &fios[i]->io;
		ios[i]->done = io_done;
	}
	blkdev_submit(fs->dev, ios, count);
}

int fs_io_run(struct fs_io *fio)
{
	return blkdev_rwv(fio->fs->dev, fio->io.op, 0, fio->io.off, &fio->iov, 1);
}

int fs_io_end(struct fs_io *fio, int err)
{
	struct fs *fs = fio->fs;

	if (fio->io.op == BLK_WRITE)
		file_overwritten(fs, fio->ino, err);
	env_rwlock_rdunlock(fs->env, &fio->ino->rwlock);
	return fs_result(fs, err);
}
