/* SPDX-License-Identifier: Apache-2.0 */
/* A directory's contents: a B+tree of names by their hash. */
#ifndef LUNFS_FS_DIR_H
#define LUNFS_FS_DIR_H

#include "fs/inode.h"

struct dirent_info {
	uint64_t id;
	uint64_t hash;		/* readdir position; continue with hash + 1 */
	uint64_t until_ns;	/* dir_names_keep(), where names were read for somebody */
	uint8_t	type;		/* DT_* */
	uint8_t	name_len;
	char	name[NAME_BYTES_MAX + 1];
};

/** dir_lookup() - inode locked in either mode.  -ENOENT. */
int dir_lookup(struct fs *fs, struct inode *dir, const char *name, size_t len,
	       struct dirent_info *out);

/**
 * dir_lookup_shared() - under the directory's lock, which is taken shared: waits for another
 * host that has it exclusively to write home what it changed.  The answer, a name or -ENOENT,
 * is as new as every change that was told to anybody before the call: whoever shows it, or
 * decides by it, looks up in this way (docs/LOCKING.md, "Names").  Costs nothing on the device
 * while this host has the lock and the blocks.  No lock of an inode is held, and no handle open.
 * A rescue mount, which never locks, reads what lies at home.
 * Return: 0; -ENOENT; -ESTALE no such directory any more; -EBUSY the lock is not to be had.
 */
int dir_lookup_shared(struct fs *fs, uint64_t dir_id, const char *name, size_t len,
		      struct dirent_info *out);

/**
 * dir_lookup_hint() - as the name lies at home, if another host has the lock: it may have been
 * moved or removed since.  Only for who takes the directory's lock next and looks the name up
 * again under it, so that it is known which other inode to lock.  -ENOENT is certain.
 */
int dir_lookup_hint(struct fs *fs, uint64_t dir_id, const char *name, size_t len,
		    struct dirent_info *out);

/**
 * dir_names_keep() - until when what is said of the names of @dir, locked in either mode, stays
 * so, for a front end that caches it (fs->caches): no other host gets the lock to change them
 * before.  0: for no moment.  What this host itself changes it knows.
 */
uint64_t dir_names_keep(struct fs *fs, struct inode *dir);

/**
 * dir_list() - entries with hash >= @from, in hash order, through @emit until it returns
 * non-zero.  Names of equal hash are emitted one after the other.
 * dir_list_unlocked(): each leaf under the lock if that is free, else by seqlock; holds nothing
 * while it emits.
 * dir_list_shared(): the same, but a listing that begins (@from 0) takes the lock, waiting (some 5 s
 * for a host that does not get on, then home is read as with fs_lookup_shown()): from
 * then on home shows whatever anybody was told of before.
 */
typedef int (*dir_emit_fn)(void *arg, const struct dirent_info *d);
int dir_list(struct fs *fs, struct inode *dir, uint64_t from, dir_emit_fn emit, void *arg);
int dir_list_unlocked(struct fs *fs, uint64_t dir_id, uint64_t from, dir_emit_fn emit, void *arg);
int dir_list_shared(struct fs *fs, uint64_t dir_id, uint64_t from, dir_emit_fn emit, void *arg);

/** dir_insert_prepare() - exclusively locked: reserves what an insertion may need (blocks for
 * splits) in @hold; *@credits says how many blocks it may change beside the allocator's. */
int dir_insert_prepare(struct fs *fs, struct inode *dir, const char *name, size_t len,
		       struct alloc_hold *hold, unsigned int *credits);

/** dir_insert() - within @txn, dir inode_change()d; the name is not there yet (the caller
 * looked).  Updates entries, size, blocks. */
int dir_insert(struct txn *txn, struct inode *dir, const char *name, size_t len, uint64_t id,
	       uint8_t type, struct alloc_hold *hold);

/** dir_remove_prepare() - pins the group of a leaf that removal empties (pin->ag may stay
 * NULL: nothing to free). */
int dir_remove_prepare(struct fs *fs, struct inode *dir, const char *name, size_t len,
		       struct alloc_pin *pin, unsigned int *credits);
int dir_remove(struct txn *txn, struct inode *dir, const char *name, size_t len,
	       struct alloc_pin *pin);

/** dir_replace() - the existing entry @name points to @id from now on; 3 credits. */
int dir_replace(struct txn *txn, struct inode *dir, const char *name, size_t len, uint64_t id,
		uint8_t type);

/** dir_is_empty() - no names (there are no entries for . and ..). */
bool dir_is_empty(const struct inode *dir);

/** dir_hash() - SipHash of the name under the volume's key, top bit clear. */
uint64_t dir_hash(const struct super *s, const char *name, size_t len);

#endif
