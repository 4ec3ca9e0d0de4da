// SPDX-License-Identifier: Apache-2.0
/*
 * Reading directories without having their cluster lock first: under it where the answer has to
 * be certain, else by a seqlock on the inode's version.
 *
 * The home blocks are read from the inode down.  A block newer than the inode, one that does
 * not verify, or an inode whose version has changed in the meantime means that the directory
 * is being written home: start over.  A failure is believed only under the lock.
 */
#include <stdlib.h>

#include "base/mutant.h"
#include "fs/dir_tree.h"
#include "fs/internal.h"

#define SEQ_TRIES	4u
#define RESCUE_TRIES	64u	/* nobody can be asked to stand still: be patient */
#define NAMES_KEPT_NS	(250 * NSEC_PER_MSEC)

/* One reader's blocks. */
struct dir_seq {
	struct inode_disk *di;
	void	*block;		/* the block read last */
	uint64_t hi;		/* end of the leaf's hashes */
};

static int dir_seq_init(struct dir_seq *q)
{
	q->di = blkdev_alloc(BLOCK_SIZE);
	q->block = blkdev_alloc(BLOCK_SIZE);
	if (q->di && q->block)
		return 0;
	free(q->di);
	free(q->block);
	return -ENOMEM;
}

static void dir_seq_fini(struct dir_seq *q)
{
	free(q->di);
	free(q->block);
}

/* -EAGAIN: met a block of another time. */
static int dir_seq_walk(struct fs *fs, uint64_t id, uint64_t hash, struct dir_seq *q,
			struct dir_ents *out)
{
	uint64_t version, lo = 0, pointer;
	struct dir_index x;
	struct meta_expect e;
	unsigned int level;
	uint32_t at;
	int err;

	err = inode_read_unlocked(fs, id, q->di);
	if (err)
		return err;
	version = meta_version(q->di);
	err = dir_root_check(q->di);
	if (err)
		return err == -ENOTDIR ? err : -EAGAIN;
	q->hi = DIR_HASH_END;
	*out = dir_root_ents(q->di);
	x = dir_root_index(q->di);
	for (level = le32_to_cpu(q->di->depth); level > 0; level--) {
		at = dir_index_find(&x, hash);
		lo = le64_to_cpu(x.entries[at].hash);
		if (at + 1 < x.count)
			q->hi = le64_to_cpu(x.entries[at + 1].hash);
		pointer = le64_to_cpu(x.entries[at].pointer);
		e = dir_expect(fs, id, pointer, level - 1);
		if (e.addr > super_size(&fs->super) - BLOCK_SIZE)
			return -EAGAIN;
		err = buf_read_unlocked(fs, &e, q->block);
		if (err == -EUCLEAN || err == -EBADMSG)
			return -EAGAIN;
		if (err)
			return err;
		if (meta_version(q->block) > version ||
		    !dir_block_check(q->block, level - 1, lo, q->hi))
			return -EAGAIN;
		x = dir_node_index(q->block);
		*out = dir_leaf_ents(q->block);
	}
	return 0;
}

/* The inode block again: everything read since dir_seq_walk() began belongs together. */
static int dir_seq_still(struct fs *fs, uint64_t id, struct dir_seq *q)
{
	uint64_t version = meta_version(q->di);
	int err;

	if (le32_to_cpu(q->di->depth) == 0)
		return 0;	/* one block is always of one time */
	err = inode_read_unlocked(fs, id, q->di);
	if (err)
		return err;
	return meta_version(q->di) == version ? 0 : -EAGAIN;
}

static int dir_seq_lookup(struct fs *fs, uint64_t id, const char *name, size_t len,
			  struct dirent_info *out)
{
	uint64_t hash = dir_hash(&fs->super, name, len);
	struct dirent_info found;
	struct dir_seq q;
	struct dir_ents e;
	struct dir_pos pos;
	int err, still;

	err = dir_seq_init(&q);
	if (err)
		return err;
	err = dir_seq_walk(fs, id, hash, &q, &e);
	if (!err) {
		err = -ENOENT;
		found.until_ns = 0;
		if (dir_ents_find(&e, hash, name, len, &pos))
			err = dir_info(dir_ents_at(&e, pos.off), &found);
		still = dir_seq_still(fs, id, &q);
		if (still)
			err = still;
		if (!err)
			*out = found;
	}
	dir_seq_fini(&q);
	return err;
}

/* Whether a failure without the lock means nothing yet. */
static bool dir_seq_doubtful(int err)
{
	return err == -EAGAIN || err == -EUCLEAN || err == -EBADMSG || err == -ESTALE;
}

static int dir_seq_lookup_tries(struct fs *fs, uint64_t dir_id, const char *name, size_t len,
				struct dirent_info *out)
{
	unsigned int tries = fs->rescue ? RESCUE_TRIES : SEQ_TRIES, i;
	int err = -EAGAIN;

	for (i = 0; i < tries && dir_seq_doubtful(err); i++)
		err = dir_seq_lookup(fs, dir_id, name, len, out);
	return err;
}

uint64_t dir_names_keep(struct fs *fs, struct inode *dir)
{
	uint64_t until_ns = env_now_ns(fs->env) + NAMES_KEPT_NS;

	if (!__atomic_load_n(&fs->caches, __ATOMIC_RELAXED))
		return 0;
	return !fs->lockd || lock_keep(fs->lockd, &dir->cover.lock, until_ns) ? until_ns : 0;
}

static int dir_lookup_put(struct fs *fs, struct inode *dir, const char *name, size_t len,
			  struct dirent_info *out)
{
	int err = dir_lookup(fs, dir, name, len, out);

	if (!err)
		out->until_ns = dir_names_keep(fs, dir);
	inode_unlock_free(fs, dir);
	return err;
}

int dir_lookup_shared(struct fs *fs, uint64_t dir_id, const char *name, size_t len,
		      struct dirent_info *out)
{
	struct inode *dir;
	int err;

	if (fs->rescue)
		return dir_seq_lookup_tries(fs, dir_id, name, len, out);
	if (MUTANT("names-by-hint"))
		return dir_lookup_hint(fs, dir_id, name, len, out);
	/* Where the lock cannot be had -EBUSY is the truth; what lies at home might not be. */
	err = inode_lock_shared(fs, dir_id, &dir);
	return err ? err : dir_lookup_put(fs, dir, name, len, out);
}

int dir_lookup_hint(struct fs *fs, uint64_t dir_id, const char *name, size_t len,
		    struct dirent_info *out)
{
	struct inode *dir;
	int err;

	/* Alone on the volume, or reading only: cached from now on. */
	err = inode_lock_free(fs, dir_id, &dir);
	if (err == -EAGAIN) {
		err = dir_seq_lookup_tries(fs, dir_id, name, len, out);
		if (fs->rescue || (err != -ENOENT && !dir_seq_doubtful(err)))
			return err;
		err = inode_lock_shared(fs, dir_id, &dir);
	}
	return err ? err : dir_lookup_put(fs, dir, name, len, out);
}

/* ---- listing ---- */

/* One leaf's entries, copied, so that @emit sees only what is known to belong together. */
struct dir_batch {
	uint64_t next;		/* where to go on; DIR_HASH_END: nowhere */
	uint64_t until_ns;	/* dir_names_keep(); 0: read at home */
	uint32_t used;
	uint8_t	bytes[DIR_LEAF_BYTES];
};

static int dir_seq_batch(struct fs *fs, uint64_t id, uint64_t from, struct dir_batch *batch)
{
	struct dir_seq q;
	struct dir_ents e;
	int err;

	err = dir_seq_init(&q);
	if (err)
		return err;
	err = dir_seq_walk(fs, id, from, &q, &e);
	if (!err) {
		memcpy(batch->bytes, e.bytes, e.used);
		batch->used = e.used;
		batch->next = q.hi;
		batch->until_ns = 0;
		err = dir_seq_still(fs, id, &q);
	}
	dir_seq_fini(&q);
	return err;
}

static int dir_locked_batch(struct fs *fs, struct inode *dir, uint64_t from,
			    struct dir_batch *batch)
{
	struct dir_path path;
	struct dir_ents e;
	int err;

	err = dir_walk(fs, dir, from, &path);
	if (err)
		return err;
	e = dir_path_ents(dir, &path);
	memcpy(batch->bytes, e.bytes, e.used);
	batch->used = e.used;
	batch->next = path.hi;
	batch->until_ns = dir_names_keep(fs, dir);
	dir_path_put(fs, &path);
	return 0;
}

static int dir_seq_batch_tries(struct fs *fs, uint64_t id, uint64_t from, struct dir_batch *batch)
{
	unsigned int tries = fs->rescue ? RESCUE_TRIES : SEQ_TRIES, i;
	int err = -EAGAIN;

	for (i = 0; i < tries && dir_seq_doubtful(err); i++)
		err = dir_seq_batch(fs, id, from, batch);
	return err;
}

/* @certain: under the lock, whoever has it. */
static int dir_get_batch(struct fs *fs, uint64_t id, uint64_t from, bool certain,
			 struct dir_batch *batch)
{
	struct inode *dir;
	int err = certain && !fs->rescue ? -EAGAIN : inode_lock_free(fs, id, &dir);

	if (err == -EAGAIN && (!certain || fs->rescue)) {
		err = dir_seq_batch_tries(fs, id, from, batch);
		if (fs->rescue || !dir_seq_doubtful(err))
			return err;
		err = -EAGAIN;
	}
	if (err == -EAGAIN)
		err = inode_lock_shared(fs, id, &dir);
	/* A host that does not get on with what it changed: as fs_lookup_shown(). */
	if (err == -EBUSY && certain) {
		err = dir_seq_batch_tries(fs, id, from, batch);
		return dir_seq_doubtful(err) ? -EBUSY : err;
	}
	if (err)
		return err;
	err = dir_locked_batch(fs, dir, from, batch);
	inode_unlock_free(fs, dir);
	return err;
}

/* Return: 1 @emit wants no more; 0 go on; -EUCLEAN. */
static int dir_batch_emit(struct fs *fs, uint64_t id, const struct dir_batch *batch,
			  uint64_t from, dir_emit_fn emit, void *arg)
{
	struct dir_ents e = { batch->bytes, batch->used };
	struct dirent_info info;
	uint32_t off;

	for (off = 0; off < e.used; off += dir_entry_bytes(dir_ents_at(&e, off))) {
		if (le64_to_cpu(dir_ents_at(&e, off)->hash) < from)
			continue;
		if (dir_info(dir_ents_at(&e, off), &info))
			return dir_corrupt(fs, id, inode_block_addr(id), "a name is invalid");
		info.until_ns = batch->until_ns;
		if (emit(arg, &info))
			return 1;
	}
	return 0;
}

/* Unlike dir_list() it holds nothing while @emit runs, locked or not as each leaf comes. */
static int dir_list_from(struct fs *fs, uint64_t dir_id, uint64_t from, bool certain,
			 dir_emit_fn emit, void *arg)
{
	struct dir_batch *batch = malloc(sizeof(*batch));
	int err = 0;

	if (!batch)
		return -ENOMEM;
	while (from < DIR_HASH_END) {
		err = dir_get_batch(fs, dir_id, from, certain, batch);
		if (!err)
			err = dir_batch_emit(fs, dir_id, batch, from, emit, arg);
		if (err)
			break;
		from = batch->next;
		certain = false;
	}
	free(batch);
	return err < 0 ? err : 0;
}

int dir_list_unlocked(struct fs *fs, uint64_t dir_id, uint64_t from, dir_emit_fn emit, void *arg)
{
	return dir_list_from(fs, dir_id, from, false, emit, arg);
}

int dir_list_shared(struct fs *fs, uint64_t dir_id, uint64_t from, dir_emit_fn emit, void *arg)
{
	return dir_list_from(fs, dir_id, from, from == 0 && !MUTANT("names-by-hint"), emit, arg);
}
