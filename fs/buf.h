/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata blocks in memory.
 *
 * Every buffer belongs to a cover: the object (inode, allocation group, superblock, own
 * orphan list) whose cluster lock covers the block.  When the lock is given up, all of the
 * cover's buffers are forgotten (R4).  Contents are read and changed only while the cover's
 * own in-memory lock is held; the cache's mutex guards only its own tables.
 *
 * A buffer may be evicted once its image is committed, even before the image is at home: the
 * journal keeps the image in memory until then, and buf_get() asks it before the device.
 */
#ifndef LUNFS_FS_BUF_H
#define LUNFS_FS_BUF_H

#include "base/table.h"
#include "fs/format.h"
#include "lockd/lock.h"

struct fs;
struct txn;

struct cover {
	struct lock	lock;		/* unused (mode free, addr 0) for the own orphan list */
	struct list	bufs;		/* struct buf.cover_node */
	bool		is_inode;	/* its buffer of type META_INODE goes home last (seqlock) */
};

struct buf {
	struct table_node node;		/* key: address */
	struct cover	*cover;
	struct list	cover_node;
	struct list	txn_node;	/* on the running transaction, if dirty */
	struct list	lru;		/* refs == 0 */
	struct list	kept;		/* in its inode's list of that name */
	uint64_t	addr;
	enum meta_type	type;
	uint64_t	owner;
	uint32_t	birth;
	uint64_t	version;	/* goes into the header at commit */
	unsigned int	refs;		/* the running transaction holds one on what is dirty */
	bool		dirty;		/* in the running transaction; guarded by the journal */
	bool		loading;	/* being read: wait */
	void		*data;		/* BLOCK_SIZE bytes, header included */
	struct bufmem_chunk *chunk;	/* that they lie in */
};

struct buf_cache;
struct bufmem_chunk;

int buf_cache_new(struct fs *fs, struct buf_cache **out);
void buf_cache_free(struct buf_cache *cache);

/**
 * buf_get() - the block at @e->addr under @cover, read and verified if it is not cached.
 *
 * A block that fails is logged (R6) and -EUCLEAN or -EBADMSG is returned.
 * Context: blocks on the device.  The caller holds the cover's cluster lock and in-memory lock.
 */
int buf_get(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **out);

/**
 * buf_new() - a buffer for a block just allocated: zeroed, nothing read, header to be made
 * from @e at commit.  The caller makes it dirty before it puts it.  What an earlier life of
 * the address left in the cache is forgotten.
 * Return: 0; -ENOMEM; -EUCLEAN the address is in use, which only damage explains.
 */
int buf_new(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **out);

/**
 * buf_room() - memory for a buffer to come: got before a transaction, so that making its new
 * blocks cannot fail.  NULL when out of memory.  buf_room_free() if it was not needed.
 */
struct buf *buf_room(struct fs *fs);
void buf_room_free(struct buf *room);	/* NULL is allowed */

/** buf_new_in() - buf_new() in *@room, which is NULL afterwards on success.  Return: 0; -EUCLEAN
 * the address is in use. */
int buf_new_in(struct fs *fs, struct cover *cover, const struct meta_expect *e, struct buf **room,
	       struct buf **out);

/** buf_ref() - one more reference to a buffer that the caller has one to. */
void buf_ref(struct fs *fs, struct buf *buf);
void buf_put(struct fs *fs, struct buf *buf);	/* NULL is allowed */

/** buf_drop() - the block was freed: forget the buffer, in the running transaction too (its
 * image must not be logged any more).  Takes over the caller's reference. */
void buf_drop(struct fs *fs, struct txn *txn, struct buf *buf);

/** buf_forget_cover() - after settle(): frees every buffer of @cover; none is in use or dirty. */
void buf_forget_cover(struct fs *fs, struct cover *cover);

/** buf_limit() - unused buffers may take @bytes from now on (64 MiB at first); what is in use
 * or dirty comes on top.  The oldest above that are freed. */
void buf_limit(struct fs *fs, size_t bytes);

/**
 * buf_read_unlocked() - reads and verifies into @data (BLOCK_SIZE, blkdev_alloc()ed), without
 * cache, lock or log: the caller re-checks its owner's version and starts over (seqlock).
 */
int buf_read_unlocked(struct fs *fs, const struct meta_expect *e, void *data);

#endif
