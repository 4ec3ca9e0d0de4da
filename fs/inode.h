/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes in memory: a cache by inode number, each with its cluster lock, its in-memory lock
 * and the decoded attributes.
 */
#ifndef LUNFS_FS_INODE_H
#define LUNFS_FS_INODE_H

#include <sys/stat.h>

#include "fs/alloc.h"

struct inode {
	struct cover	cover;		/* first: lock.owner is the inode */
	struct fs	*fs;
	struct table_node node;		/* in the cache, by inode number */
	struct list	lru;
	unsigned int	refs;
	uint64_t	uses;		/* references ever taken: was it used meanwhile? */
	uint64_t	number;
	struct env_rwlock rwlock;	/* contents; taken by inode_lock() with the cluster lock */

	/* Valid while loaded; guarded by rwlock. */
	bool		loaded;
	struct buf	*buf;		/* the inode block, referenced while loaded */
	uint64_t	id;
	uint64_t	version;
	uint64_t	txn_id;		/* newest transaction that changed it: fsync */
	struct list	kept;		/* struct buf, referenced: see inode_keep() */
	unsigned int	kept_count;
	bool		no_capability;	/* its attributes were looked at: XATTR_CAPABILITY is not among them */
	uint64_t	data_txn_id;	/* the same without changes of times only: fdatasync */

	/* Times of writes that changed nothing else go into the inode late; atomic. */
	uint64_t	write_ns;	/* realtime of the newest such write; 0: none */
	uint64_t	times_put_ns;	/* env_now_ns() when they last went in */
	uint64_t	times_pass;	/* of inode_flush_times_all(); guarded by the cache's mutex */

	/*
	 * The chain of images below (fs/image.h); guarded by fs->image_mutex.  While in use it
	 * changes only under the rwlock as well, so that holders of that may read through it.
	 */
	unsigned int	image_users;	/* opens, if there is a parent, and images on top */
	enum image_link { IMAGE_UNLINKED, IMAGE_LINKING, IMAGE_LINKED } image_link;
	bool		image_merging;	/* somebody is merging below it: one at a time */
	struct inode	*image;		/* linked: the parent image, referenced, its lock in use */
	struct inode_disk *frozen;	/* copy of this inode, which is somebody's parent image */

	/* Opens of this host; guarded by fs->open_mutex. */
	unsigned int	opens;
	unsigned int	writers, write_denied;	/* opens with FS_OPEN_WRITE, _DENY_WRITE */
	bool		sole;		/* one with FS_OPEN_SOLE */
	unsigned int	briefs;		/* of opens and writers, with FS_OPEN_BRIEF */
	unsigned int	brief_waiters;	/* who waits for their end: no other begins */
	uint64_t	writers_ever;	/* since it is in memory: has another been at it? */
	bool		delete_on_close;	/* nlink 0: the last close deletes it */
	uint64_t	unnamed_id;	/* if it is ->id: never had a name, may get one; guarded by rwlock */
	const void	*cache;		/* front end whose cache of the contents may be right … */
	bool		cache_known;	/* … because it has dropped what was older … */
	uint64_t	cache_gen;	/* … than the last time that they were doubted */
};

/* What stat shows. */
struct fs_attr {
	uint64_t id;		/* inode id */
	uint64_t ino;		/* st_ino: the inode number */
	uint32_t generation;
	uint32_t mode, uid, gid, nlink;
	uint64_t rdev, size, blocks;	/* blocks of 4096 */
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint64_t version;
	bool	covered;	/* read under our cluster lock: nobody else changed it meanwhile */
	bool	has_xattrs;	/* something for xattr_get() to find */
	uint64_t name_until_ns;	/* dir_names_keep() of the name by which it was found or made; 0 */
};

struct inode_cache;
int inode_cache_new(struct fs *fs, struct inode_cache **out);
void inode_cache_free(struct inode_cache *c);

/**
 * inode_get() - a reference to the object for @number, not locked, perhaps not loaded.
 * No handle may be open: a full cache gives another inode's lock up.  -EUCLEAN a number
 * that no inode can have.
 */
int inode_get(struct fs *fs, uint64_t number, struct inode **out);
void inode_put(struct fs *fs, struct inode *ino);

/**
 * inode_lock() - cluster lock in @mode (SHARED or EXCLUSIVE; @lock_flags as lock_get()), the
 * in-memory lock for reading or writing, contents loaded, generation compared with @id.
 * @id: as a directory entry or open file names it.
 * Return: 0; -ESTALE the inode is free or another generation; as lock_get().
 */
int inode_lock(struct fs *fs, struct inode *ino, uint64_t id, enum lock_mode mode,
	       unsigned int lock_flags, struct lock_holder *holder);
void inode_unlock(struct fs *fs, struct inode *ino, enum lock_mode mode,
		  unsigned int lock_flags);

/**
 * inode_lock_many() - locks up to 6 distinct inodes exclusively, in address order, whatever
 * the order given; duplicates and NULLs in @inos are allowed and locked once.
 */
int inode_lock_many(struct fs *fs, struct inode **inos, const uint64_t *ids, unsigned int n,
		    struct lock_holder *holder);
void inode_unlock_many(struct fs *fs, struct inode **inos, unsigned int n);

/**
 * inode_keep() - @buf, a block of @ino that was just looked at, stays in memory until the inode
 * is unlocked, or until KEPT_MAX others were kept since: within a transaction no block has to be
 * read again, which could fail half-way.  Does nothing where rwlock is held for reading only.
 */
void inode_keep(struct inode *ino, struct buf *buf);

/** inode_wrunlock() - rwlock, held for writing; what was kept is let go. */
void inode_wrunlock(struct fs *fs, struct inode *ino);

/** inode_disk() - the inode's contents, for reading; rwlock held. */
static inline const struct inode_disk *inode_disk(const struct inode *ino)
{
	return (const struct inode_disk *)ino->buf->data;
}

/**
 * inode_change() - within @txn, exclusively locked: raises the version and returns the
 * contents for changing.  Costs one credit, however often.  Every change of any block of the
 * inode in @txn goes with it, at ino->version.
 */
struct inode_disk *inode_change(struct txn *txn, struct inode *ino);

/** inode_touch() - inode_change() plus ctime (and mtime if @mtime) of now. */
struct inode_disk *inode_touch(struct txn *txn, struct inode *ino, bool mtime);

/**
 * inode_flush_times() - mtime and ctime of overwrites, kept in memory so far, go into the inode
 * (a transaction, not committed).  Before an open for write is closed; not inode_lock()ed.
 * inode_flush_times_all(): of every inode of this host, for sync and about once a second.
 */
int inode_flush_times(struct fs *fs, struct inode *ino);
int inode_flush_times_all(struct fs *fs);

/** inode_load() - contents of an inode whose cluster lock is in use, rwlock not held. */
int inode_load(struct fs *fs, struct inode *ino);

/** inode_birth() - a new birth stamp for a block of @ino, 1…65535; inode_change()d before. */
uint32_t inode_birth(struct inode *ino, struct inode_disk *di);

/** inode_attr() - attributes of a loaded inode; rwlock held. */
void inode_attr(const struct inode *ino, struct fs_attr *attr);

/** inode_init() - within @txn: a reserved, exclusively locked inode becomes a new object.
 * Fills ino->id.  mode/uid/gid/rdev set, times now, nlink 1 (2 for directories), inline. */
struct inode_init { uint32_t mode, uid, gid; uint64_t rdev, parent; const char *name; size_t name_len; };
int inode_init(struct txn *txn, struct inode *ino, const struct inode_init *init);

/**
 * inode_lock_new() - as inode_lock(EXCLUSIVE) for an inode that itable_reserve() gave: it is
 * free on disk.  Never contended; may be called while a group is pinned.
 */
int inode_lock_new(struct fs *fs, struct inode *ino);

/**
 * inode_stat() - attributes without the cluster lock if we do not hold it: one verified read
 * of the inode block, from the cache if we do.  -ESTALE as inode_lock().
 */
int inode_stat(struct fs *fs, uint64_t id, struct fs_attr *attr);

/** inode_read_unlocked() - the inode block as it is at home, verified, into @data; for
 * seqlock readers and rescue mounts.  -ESTALE if free or another generation than @id. */
int inode_read_unlocked(struct fs *fs, uint64_t id, void *data);

/** inode_may_be_away() - whether changes of this host may not be at home yet: it has the lock
 * and has not given it up.  Under LOCK_MULTI nothing changes. */
bool inode_may_be_away(struct fs *fs, struct inode *ino);

/** inode_forget() - the cluster lock goes: drop buffers and contents.  From lockd's forget(),
 * for locks whose cover is_inode.  Tells fs->invalidate. */
void inode_forget(struct fs *fs, struct inode *ino);

/** inode_decode_check() - ranges of a verified inode block (R9): flags, depth, counts, names.
 * Return: 0 or -EUCLEAN with @why. */
int inode_decode_check(const struct inode_disk *di, char *why, size_t why_size);

#endif
