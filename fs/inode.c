/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/inode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/cluster.h"
#include "fs/grow.h"
#include "fs/icache.h"

#define UNLOCKED_TRIES		4	/* of reading a block that another host may be writing */
#define UNLOCKED_PAUSE_NS	(1 * NSEC_PER_MSEC)
#define DROP_TRIES		2000	/* pauses that giving a lock up may take */
#define KEPT_MAX		24u	/* two paths of the deepest tree, and to spare */
#define LOCK_MANY_MAX		6u

/* ---- believing what lies on disk ---- */

static struct meta_expect inode_expect(const struct fs *fs, uint64_t number)
{
	return (struct meta_expect){
		.type = META_INODE, .volume = fs->super.volume,
		.addr = (number << BLOCK_SHIFT) + BLOCK_SIZE, .owner = number,
	};
}

static bool bytes_are_zero(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

/* What the root area may hold, by type, depth and INODE_INLINE. */
static const char *check_root(const struct inode_disk *di, uint32_t mode)
{
	uint32_t depth = le32_to_cpu(di->depth), count = le32_to_cpu(di->root_count);
	bool is_inline = le32_to_cpu(di->flags) & INODE_INLINE;

	if (depth > DEPTH_MAX)
		return "depth";
	if (is_inline && depth)
		return "depth of an inline inode";
	switch (mode & S_IFMT) {
	case S_IFDIR:
		if (count > (depth ? INLINE_ENTRIES : INLINE_SIZE) || (depth && !count))
			return "root_count of a directory";
		return is_inline == !depth ? NULL : "depth of a directory that is not inline";
	case S_IFREG:
	case S_IFLNK:
		if (is_inline)
			return le64_to_cpu(di->size) > INLINE_SIZE || count ?
			       "size or root_count of an inline file" : NULL;
		return count > (depth ? INLINE_POINTERS : INLINE_ENTRIES) ?
		       "root_count of a file" : NULL;
	default:
		return depth || count || le64_to_cpu(di->size) ? "contents of a special file" : NULL;
	}
}

static const char *check_name(const struct inode_disk *di)
{
	uint32_t len = le16_to_cpu(di->name_len);

	if (len > NAME_BYTES_MAX)
		return "name_len";
	if (memchr(di->name, '/', len) || memchr(di->name, 0, len))
		return "name";
	return NULL;
}

/* Parents, children and what is frozen: see fs/image.h. */
static const char *check_image(const struct inode_disk *di, uint32_t mode)
{
	uint32_t flags = le32_to_cpu(di->flags);
	uint64_t limit = le64_to_cpu(di->image_limit);
	bool parent = le64_to_cpu(di->image_parent), frozen = flags & INODE_FROZEN;

	if (flags & INODE_CHILDREN)
		return S_ISDIR(mode) && !parent && !limit ? NULL : "list of children";
	if (!S_ISREG(mode))
		return parent || limit || frozen || le64_to_cpu(di->image_children) ||
		       le32_to_cpu(di->image_rank) ? "image fields" : NULL;
	if (parent && (flags & (INODE_INLINE | INODE_MULTI) || !le32_to_cpu(di->image_rank)))
		return "image_parent";
	if (limit % BLOCK_SIZE || limit > FILE_SIZE_MAX || (limit && !parent))
		return "image_limit";
	if (frozen != !!le64_to_cpu(di->image_children) || (frozen && flags & INODE_MULTI))
		return "image_children";
	return flags & INODE_MERGING && !frozen ? "merging" : NULL;
}

static const char *check_fields(const struct inode_disk *di)
{
	uint32_t mode = le32_to_cpu(di->mode);
	const char *bad;

	if (!mode)
		return NULL;	/* free: only its generation and version count */
	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFCHR: case S_IFBLK: case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return "mode";
	}
	if (mode & ~(uint32_t)(S_IFMT | 07777))
		return "mode";
	if (le32_to_cpu(di->flags) & ~(uint32_t)INODE_FLAGS_KNOWN)
		return "flags";
	if (le32_to_cpu(di->nlink) > LINK_COUNT_MAX)
		return "nlink";
	if (le64_to_cpu(di->size) > FILE_SIZE_MAX)
		return "size";
	bad = check_root(di, mode);
	if (!bad)
		bad = check_name(di);
	if (!bad)
		bad = check_image(di, mode);
	if (bad)
		return bad;
	if (!bytes_are_zero(di->reserved, sizeof(di->reserved)) ||
	    !bytes_are_zero(di->zero0, sizeof(di->zero0)))
		return "reserved fields";
	return NULL;
}

int inode_decode_check(const struct inode_disk *di, char *why, size_t why_size)
{
	const char *bad = check_fields(di);

	if (!bad)
		return 0;
	snprintf(why, why_size, "inode %llu at %#llx: %s is out of range (mode %#o, flags %#x, "
		 "size %llu, depth %u, root_count %u)",
		 (unsigned long long)le64_to_cpu(di->hdr.owner),
		 (unsigned long long)le64_to_cpu(di->hdr.addr), bad, le32_to_cpu(di->mode),
		 le32_to_cpu(di->flags), (unsigned long long)le64_to_cpu(di->size),
		 le32_to_cpu(di->depth), le32_to_cpu(di->root_count));
	return -EUCLEAN;
}

/* ---- loading and locking ---- */

/* Cluster lock in use, rwlock held for writing. */
static int load_locked(struct fs *fs, struct inode *ino)
{
	struct meta_expect e = inode_expect(fs, ino->number);
	const struct inode_disk *di;
	struct buf *buf;
	char why[256];
	int err;

	if (ino->loaded)
		return 0;
	err = buf_get(fs, &ino->cover, &e, &buf);
	if (err)
		return err;
	di = (const struct inode_disk *)buf->data;
	err = inode_decode_check(di, why, sizeof(why));
	if (err) {
		log_error(fs->env, fs->label, "%s: run fsck.lunfs", why);
		buf_put(fs, buf);
		return err;
	}
	ino->buf = buf;
	ino->id = inode_id_make(ino->number, le32_to_cpu(di->generation));
	ino->version = buf->version;
	ino->txn_id = 0;
	ino->data_txn_id = 0;
	ino->loaded = true;
	ino->no_capability = false;
	inode_stat_drop(fs, ino->number);
	return 0;
}

/* ---- blocks on the way to what is being changed ---- */

static void keep_no_longer(struct inode *ino, struct buf *buf)
{
	list_del(&buf->kept);
	ino->kept_count--;
	buf_put(ino->fs, buf);
}

void inode_keep(struct inode *ino, struct buf *buf)
{
	/* We hold rwlock in some way, so this does not change under us. */
	if (!ino->rwlock.writer)
		return;
	if (list_empty(&buf->kept)) {
		buf_ref(ino->fs, buf);
		ino->kept_count++;
	} else {
		list_del(&buf->kept);
	}
	list_add_tail(&ino->kept, &buf->kept);
	if (ino->kept_count > KEPT_MAX)
		keep_no_longer(ino, list_first(&ino->kept, struct buf, kept));
}

void inode_wrunlock(struct fs *fs, struct inode *ino)
{
	while (!list_empty(&ino->kept))
		keep_no_longer(ino, list_first(&ino->kept, struct buf, kept));
	env_rwlock_wrunlock(fs->env, &ino->rwlock);
}

int inode_load(struct fs *fs, struct inode *ino)
{
	int err;

	env_rwlock_wrlock(fs->env, &ino->rwlock);
	err = load_locked(fs, ino);
	inode_wrunlock(fs, ino);
	return err;
}

static void unlock_memory(struct fs *fs, struct inode *ino, enum lock_mode mode)
{
	if (mode == LOCK_EXCLUSIVE)
		inode_wrunlock(fs, ino);
	else
		env_rwlock_rdunlock(fs->env, &ino->rwlock);
}

/* The in-memory half of inode_lock(). */
static int lock_memory(struct fs *fs, struct inode *ino, enum lock_mode mode)
{
	int err;

	if (mode == LOCK_EXCLUSIVE) {
		env_rwlock_wrlock(fs->env, &ino->rwlock);
		err = load_locked(fs, ino);
		if (err)
			inode_wrunlock(fs, ino);
		return err;
	}
	env_rwlock_rdlock(fs->env, &ino->rwlock);
	if (ino->loaded)
		return 0;
	/* Loading is a change.  Between the locks nobody forgets it: the cluster lock is in use. */
	env_rwlock_rdunlock(fs->env, &ino->rwlock);
	err = inode_load(fs, ino);
	if (!err)
		env_rwlock_rdlock(fs->env, &ino->rwlock);
	return err;
}

int inode_lock(struct fs *fs, struct inode *ino, uint64_t id, enum lock_mode mode,
	       unsigned int lock_flags, struct lock_holder *holder)
{
	int err = cluster_get(fs, &ino->cover.lock, mode, lock_flags, holder);

	if (err)
		return err;
	err = lock_memory(fs, ino, mode);
	if (err)
		goto put;
	if (!le32_to_cpu(inode_disk(ino)->mode) || ino->id != id) {
		unlock_memory(fs, ino, mode);
		err = -ESTALE;
		goto put;
	}
	return 0;
put:
	cluster_put(fs, &ino->cover.lock, mode, lock_flags);
	return err;
}

void inode_unlock(struct fs *fs, struct inode *ino, enum lock_mode mode,
		  unsigned int lock_flags)
{
	unlock_memory(fs, ino, mode);
	cluster_put(fs, &ino->cover.lock, mode, lock_flags);
}

int inode_lock_new(struct fs *fs, struct inode *ino)
{
	int err = cluster_get(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0, NULL);

	if (err)
		return err;
	err = lock_memory(fs, ino, LOCK_EXCLUSIVE);
	if (err)
		goto put;
	if (!le32_to_cpu(inode_disk(ino)->mode))
		return 0;
	log_error(fs->env, fs->label, "inode %llu is in use but free in its group's index: "
		  "run fsck.lunfs", (unsigned long long)ino->number);
	inode_wrunlock(fs, ino);
	err = -EUCLEAN;
put:
	cluster_put(fs, &ino->cover.lock, LOCK_EXCLUSIVE, 0);
	return err;
}

/* @inos without NULLs and duplicates, by address; @ids may be NULL.  Returns how many. */
static unsigned int sort_inodes(struct inode **inos, const uint64_t *ids, unsigned int n,
				struct inode **sorted, uint64_t *sorted_ids)
{
	unsigned int count = 0, at;

	assert(n <= LOCK_MANY_MAX);
	for (unsigned int i = 0; i < n; i++) {
		if (!inos[i])
			continue;
		for (at = 0; at < count && sorted[at]->number < inos[i]->number; at++)
			;
		if (at < count && sorted[at] == inos[i])
			continue;
		memmove(sorted + at + 1, sorted + at, (count - at) * sizeof(*sorted));
		memmove(sorted_ids + at + 1, sorted_ids + at, (count - at) * sizeof(*sorted_ids));
		sorted[at] = inos[i];
		sorted_ids[at] = ids ? ids[i] : 0;
		count++;
	}
	return count;
}

int inode_lock_many(struct fs *fs, struct inode **inos, const uint64_t *ids, unsigned int n,
		    struct lock_holder *holder)
{
	struct inode *sorted[LOCK_MANY_MAX + 1];
	uint64_t sorted_ids[LOCK_MANY_MAX + 1];
	unsigned int count = sort_inodes(inos, ids, n, sorted, sorted_ids);
	int err;

	for (unsigned int i = 0; i < count; i++) {
		err = inode_lock(fs, sorted[i], sorted_ids[i], LOCK_EXCLUSIVE, 0, holder);
		if (err) {
			while (i--)
				inode_unlock(fs, sorted[i], LOCK_EXCLUSIVE, 0);
			return err;
		}
	}
	return 0;
}

void inode_unlock_many(struct fs *fs, struct inode **inos, unsigned int n)
{
	struct inode *sorted[LOCK_MANY_MAX + 1];
	uint64_t sorted_ids[LOCK_MANY_MAX + 1];
	unsigned int count = sort_inodes(inos, NULL, n, sorted, sorted_ids);

	while (count--)
		inode_unlock(fs, sorted[count], LOCK_EXCLUSIVE, 0);
}

void inode_forget(struct fs *fs, struct inode *ino)
{
	bool was_loaded = ino->loaded;
	uint64_t id = ino->id;

	if (was_loaded) {
		ino->loaded = false;
		buf_put(fs, ino->buf);
		ino->buf = NULL;
		inode_stat_drop(fs, ino->number);
	}
	__atomic_store_n(&ino->write_ns, 0, __ATOMIC_RELAXED);
	buf_forget_cover(fs, &ino->cover);
	if (was_loaded && fs->invalidate)
		fs->invalidate(fs->invalidate_arg, id);
}

/* ---- changing ---- */

static void put_times(struct inode *ino, struct inode_disk *di)
{
	uint64_t ns = __atomic_exchange_n(&ino->write_ns, 0, __ATOMIC_RELAXED);

	if (!ns)
		return;
	di->mtime = cpu_to_le64(ns);
	di->ctime = cpu_to_le64(ns);
	__atomic_store_n(&ino->times_put_ns, env_now_ns(ino->fs->env), __ATOMIC_RELAXED);
}

struct inode_disk *inode_change(struct txn *txn, struct inode *ino)
{
	struct inode_disk *di;

	assert(ino->loaded);
	txn_dirty(txn, ino->buf, ++ino->version);
	ino->txn_id = txn->id;
	ino->data_txn_id = txn->id;
	di = (struct inode_disk *)ino->buf->data;
	put_times(ino, di);
	return di;
}

struct inode_disk *inode_touch(struct txn *txn, struct inode *ino, bool mtime)
{
	struct inode_disk *di = inode_change(txn, ino);
	le64 now = cpu_to_le64(env_realtime_ns(ino->fs->env));

	di->ctime = now;
	if (mtime)
		di->mtime = now;
	return di;
}

/* The lock is in use for writing; rwlock not held. */
static int flush_times_locked(struct fs *fs, struct inode *ino)
{
	uint64_t data_txn_id;
	struct txn txn;
	int err = 0;

	env_rwlock_wrlock(fs->env, &ino->rwlock);
	if (!ino->loaded || !__atomic_load_n(&ino->write_ns, __ATOMIC_RELAXED))
		goto unlock;
	err = txn_begin(fs, 1, &txn);
	if (err)
		goto unlock;
	data_txn_id = ino->data_txn_id;
	inode_change(&txn, ino);
	ino->data_txn_id = data_txn_id;
	txn_end(&txn);
unlock:
	inode_wrunlock(fs, ino);
	return err;
}

int inode_flush_times(struct fs *fs, struct inode *ino)
{
	int err;

	if (!__atomic_load_n(&ino->write_ns, __ATOMIC_RELAXED) ||
	    cluster_held(fs, &ino->cover.lock) != LOCK_EXCLUSIVE)
		return 0;
	err = cluster_get(fs, &ino->cover.lock, LOCK_EXCLUSIVE, LOCK_TRY, NULL);
	if (err)
		return err == -EAGAIN || err == -EBUSY ? 0 : err;
	err = flush_times_locked(fs, ino);
	cluster_put(fs, &ino->cover.lock, LOCK_EXCLUSIVE, LOCK_TRY);
	return err;
}

uint32_t inode_birth(struct inode *ino, struct inode_disk *di)
{
	uint64_t counter = le64_to_cpu(di->birth_counter);

	(void)ino;
	do {
		counter++;
	} while (!(counter & 0xffff));
	di->birth_counter = cpu_to_le64(counter);
	return counter & 0xffff;
}

int inode_init(struct txn *txn, struct inode *ino, const struct inode_init *init)
{
	uint32_t generation = le32_to_cpu(inode_disk(ino)->generation) + 1;
	struct inode_disk *di;
	le64 now;

	assert(init->mode & S_IFMT && init->name_len <= NAME_BYTES_MAX);
	di = inode_change(txn, ino);
	now = cpu_to_le64(env_realtime_ns(ino->fs->env));
	memset((uint8_t *)di + sizeof(di->hdr), 0, sizeof(*di) - sizeof(di->hdr));
	di->generation = cpu_to_le32(generation);
	di->mode = cpu_to_le32(init->mode);
	di->uid = cpu_to_le32(init->uid);
	di->gid = cpu_to_le32(init->gid);
	di->nlink = cpu_to_le32(S_ISDIR(init->mode) ? 2 : 1);
	di->flags = cpu_to_le32(INODE_INLINE);
	di->rdev = cpu_to_le64(init->rdev);
	di->atime = di->mtime = di->ctime = di->btime = now;
	di->parent = cpu_to_le64(init->parent);
	di->name_len = cpu_to_le16((uint16_t)init->name_len);
	memcpy(di->name, init->name, init->name_len);
	ino->id = inode_id_make(ino->number, generation);
	return 0;
}

/* ---- attributes ---- */

static void attr_decode(const struct inode_disk *di, uint64_t number, uint64_t version,
			struct fs_attr *attr)
{
	uint32_t generation = le32_to_cpu(di->generation);

	*attr = (struct fs_attr){
		.id = inode_id_make(number, generation),
		.ino = number,
		.generation = generation,
		.mode = le32_to_cpu(di->mode),
		.uid = le32_to_cpu(di->uid),
		.gid = le32_to_cpu(di->gid),
		.nlink = le32_to_cpu(di->nlink),
		.rdev = le64_to_cpu(di->rdev),
		.size = le64_to_cpu(di->size),
		.blocks = le64_to_cpu(di->blocks),
		.atime_ns = (int64_t)le64_to_cpu(di->atime),
		.mtime_ns = (int64_t)le64_to_cpu(di->mtime),
		.ctime_ns = (int64_t)le64_to_cpu(di->ctime),
		.btime_ns = (int64_t)le64_to_cpu(di->btime),
		.version = version,
		.has_xattrs = le64_to_cpu(di->xattr) || le32_to_cpu(di->flags) & INODE_MULTI,
	};
}

void inode_attr(const struct inode *ino, struct fs_attr *attr)
{
	uint64_t ns = __atomic_load_n(&ino->write_ns, __ATOMIC_RELAXED);

	attr_decode(inode_disk(ino), ino->number, ino->version, attr);
	/* Loaded means locked; only with several writers the lock says little. */
	attr->covered = !(le32_to_cpu(inode_disk(ino)->flags) & INODE_MULTI);
	if (ns)
		attr->mtime_ns = attr->ctime_ns = (int64_t)ns;
}

/* One verified read of the block at home, or of the image that is on its way there. */
static int read_once(struct fs *fs, uint64_t id, void *data)
{
	uint64_t number = inode_id_number(id);
	struct meta_expect e = inode_expect(fs, number);
	const struct inode_disk *di = data;
	char why[256];
	int err;

	if (!fs->journal || !journal_lookup(fs, e.addr, data)) {
		err = buf_read_unlocked(fs, &e, data);
		if (err)
			return err;
	}
	err = inode_decode_check(di, why, sizeof(why));
	if (err)
		return err;
	if (!le32_to_cpu(di->mode) ||
	    inode_id_make(number, le32_to_cpu(di->generation)) != id)
		return -ESTALE;
	return 0;
}

int inode_read_unlocked(struct fs *fs, uint64_t id, void *data)
{
	int err;

	if (!fs_is_space(fs, inode_id_number(id), 2))
		return -ESTALE;
	for (unsigned int i = 0;; i++) {
		err = read_once(fs, id, data);
		if (err != -EUCLEAN && err != -EBADMSG)
			return err;
		if (i == UNLOCKED_TRIES)	/* not merely a write under way */
			return err;
		env_sleep_until(fs->env, env_now_ns(fs->env) + UNLOCKED_PAUSE_NS);
	}
}

/* Through the lock.  -EAGAIN: it would have to be fetched, which @lock_flags forbid. */
static int stat_locked(struct fs *fs, struct inode *ino, uint64_t id, unsigned int lock_flags,
		       struct fs_attr *attr)
{
	int err = inode_lock(fs, ino, id, LOCK_SHARED, lock_flags, NULL);

	if (err)
		return err;
	inode_attr(ino, attr);
	inode_unlock(fs, ino, LOCK_SHARED, lock_flags);
	return 0;
}

static int stat_unlocked(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	uint64_t now = env_now_ns(fs->env);
	struct inode_disk *di;
	int err;

	if (inode_stat_recall(fs, id, attr))
		return 0;
	di = blkdev_alloc(BLOCK_SIZE);
	if (!di)
		return -ENOMEM;
	err = inode_read_unlocked(fs, id, di);
	if (!err) {
		attr_decode(di, inode_id_number(id), meta_version(di), attr);
		inode_stat_remember(fs, attr, now);
	}
	free(di);
	return err;
}

/*
 * Through the lock while we hold it.  While it is being given up what we changed is still on
 * its way home: home must not be read before that has ended.  -EAGAIN: not ours.
 */
static int stat_held(struct fs *fs, struct inode *ino, uint64_t id, struct fs_attr *attr)
{
	int err = -EAGAIN;

	for (unsigned int i = 0; ino && i < DROP_TRIES && (err == -EAGAIN || err == -EBUSY); i++) {
		if (!inode_may_be_away(fs, ino))
			return -EAGAIN;
		err = stat_locked(fs, ino, id, LOCK_TRY, attr);
		if (err == -EAGAIN || err == -EBUSY)
			env_sleep_until(fs->env, env_now_ns(fs->env) + UNLOCKED_PAUSE_NS);
	}
	return err;
}

int inode_stat(struct fs *fs, uint64_t id, struct fs_attr *attr)
{
	struct inode *ino = inode_find(fs, inode_id_number(id));
	int err = stat_held(fs, ino, id, attr);

	inode_put(fs, ino);
	if (err != -EAGAIN && err != -EBUSY)
		return err;
	err = stat_unlocked(fs, id, attr);
	if ((err != -EUCLEAN && err != -EBADMSG) || fs->rescue)
		return err;
	/* Only a failure seen under the lock is corruption; who sees that logs it. */
	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return err;
	err = stat_locked(fs, ino, id, 0, attr);
	inode_put(fs, ino);
	return err;
}
