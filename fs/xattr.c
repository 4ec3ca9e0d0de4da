// SPDX-License-Identifier: Apache-2.0
#include "fs/xattr.h"

#include <stdio.h>
#include <stdlib.h>

#include <sys/xattr.h>

#include "base/mutant.h"
#include "fs/attrs.h"
#include "fs/icache.h"
#include "fs/internal.h"

#define SEQ_TRIES	4u

/* Attributes with what their meaning depends on. */
struct attrs_seen {
	struct attrs attrs;
	uint32_t mode, flags;
};

static int xattr_name_check(const char *name)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security." };
	size_t i, len = strlen(name);

	if (len > 255)
		return -ERANGE;
	if (strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0)
		return 0;
	for (i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

/* ---- reading: under the lock if it is free, else by seqlock ---- */

static int xattr_read_held(struct fs *fs, struct inode *ino, struct attrs_seen *seen)
{
	seen->mode = le32_to_cpu(inode_disk(ino)->mode);
	seen->flags = le32_to_cpu(inode_disk(ino)->flags);
	return attrs_load(fs, ino, &seen->attrs);
}

static int xattr_read_locked(struct fs *fs, uint64_t id, struct attrs_seen *seen)
{
	struct inode *ino;
	int err;

	err = inode_lock_shared(fs, id, &ino);
	if (err)
		return err;
	err = xattr_read_held(fs, ino, seen);
	inode_unlock_free(fs, ino);
	return err;
}

static int xattr_read_home(struct fs *fs, uint64_t id, struct inode_disk *di, void *block,
			   struct attrs_seen *seen)
{
	struct meta_expect e = { .type = META_XATTR, .volume = fs->super.volume, .owner = id };
	uint64_t version, pointer;
	int err;

	seen->attrs.used = 0;
	seen->attrs.count = 0;
	err = inode_read_unlocked(fs, id, di);
	if (err)
		return err;
	seen->mode = le32_to_cpu(di->mode);
	seen->flags = le32_to_cpu(di->flags);
	pointer = le64_to_cpu(di->xattr);
	if (!pointer)
		return 0;
	version = meta_version(di);
	e.addr = bptr_addr(pointer);
	e.birth = bptr_birth(pointer);
	err = buf_read_unlocked(fs, &e, block);
	if (!err && (meta_version(block) > version || attrs_decode(block, &seen->attrs)))
		err = -EAGAIN;
	if (!err)
		err = inode_read_unlocked(fs, id, di);
	if (!err && meta_version(di) != version)
		err = -EAGAIN;
	return err;
}

static int xattr_read(struct fs *fs, uint64_t id, struct attrs_seen *seen)
{
	unsigned int tries = fs->rescue ? 16 * SEQ_TRIES : SEQ_TRIES;
	struct inode_disk *di;
	struct inode *ino;
	void *block;
	int err;

	err = inode_lock_held(fs, id, &ino);
	if (!err) {
		err = xattr_read_held(fs, ino, seen);
		inode_unlock_free(fs, ino);
	}
	if (err != -EAGAIN)
		return err;
	di = blkdev_alloc(BLOCK_SIZE);
	block = blkdev_alloc(BLOCK_SIZE);
	err = di && block ? -EAGAIN : -ENOMEM;
	while (tries-- && (err == -EAGAIN || err == -EUCLEAN || err == -EBADMSG ||
			   err == -ESTALE))
		err = xattr_read_home(fs, id, di, block, seen);
	free(di);
	free(block);
	if (!fs->rescue && (err == -EAGAIN || err == -EUCLEAN || err == -EBADMSG ||
			    err == -ESTALE))
		err = xattr_read_locked(fs, id, seen);
	return err;
}

static int xattr_copy(const void *value, size_t value_len, void *out, size_t size, size_t *len)
{
	if (size && size < value_len)
		return -ERANGE;
	if (size)
		memcpy(out, value, value_len);
	*len = value_len;
	return 0;
}

/* A moment ago its attributes were read at home (ls -l), and it had none of these. */
static bool xattr_known_absent(struct fs *fs, uint64_t id)
{
	struct fs_attr attr;

	return inode_stat_recall(fs, id, &attr) && !attr.has_xattrs;
}

int xattr_get(struct fs *fs, uint64_t id, const char *name, void *value, size_t size, size_t *len)
{
	struct attrs_seen *seen;
	const void *found;
	size_t found_len;
	int err;

	err = fs_may_read(fs);
	if (!err)
		err = xattr_name_check(name);
	if (err)
		return err;
	if (xattr_known_absent(fs, id))
		return fs_answer(fs, -ENODATA);
	seen = malloc(sizeof(*seen));
	if (!seen)
		return -ENOMEM;
	err = xattr_read(fs, id, seen);
	if (!err && strcmp(name, XATTR_MULTI) == 0)
		err = seen->flags & INODE_MULTI ? xattr_copy("1", 1, value, size, len) : -ENODATA;
	else if (!err) {
		err = attrs_find(&seen->attrs, name, &found, &found_len);
		if (!err)
			err = xattr_copy(found, found_len, value, size, len);
	}
	free(seen);
	return fs_answer(fs, err);
}

int xattr_list(struct fs *fs, uint64_t id, char *names, size_t size, size_t *len)
{
	struct attrs_seen *seen;
	size_t extra = 0;
	int err;

	err = fs_may_read(fs);
	if (err)
		return err;
	seen = malloc(sizeof(*seen));
	if (!seen)
		return -ENOMEM;
	err = xattr_read(fs, id, seen);
	if (!err && (seen->flags & INODE_MULTI)) {
		extra = sizeof(XATTR_MULTI);
		if (size && size < extra)
			err = -ERANGE;
		else if (size)
			memcpy(names, XATTR_MULTI, extra);
	}
	/* size == extra would ask for the length only: nothing must be left to list then. */
	if (!err && size && size == extra && seen->attrs.count)
		err = -ERANGE;
	if (!err)
		err = attrs_names(&seen->attrs, size ? names + extra : NULL, size ? size - extra : 0,
				  len);
	if (!err)
		*len += extra;
	free(seen);
	return fs_answer(fs, err);
}

/* ---- several writers ---- */

/* R1: every block of it allocated and valid, so that no writer ever needs to change the map. */
static int multi_check_map(struct fs *fs, struct inode *ino)
{
	uint64_t size = le64_to_cpu(inode_disk(ino)->size), unit, blocks, want;
	struct map_entry e;
	int err;

	for (unit = 0; unit * UNIT_SIZE < size; unit++) {
		err = map_get(fs, ino, unit, &e);
		if (err)
			return err;
		blocks = DIV_ROUND_UP(size - unit * UNIT_SIZE, BLOCK_SIZE);
		if (blocks > UNIT_BLOCKS)
			blocks = UNIT_BLOCKS;
		want = blocks == UNIT_BLOCKS ? UINT64_MAX : (1ULL << blocks) - 1;
		if ((!e.block || (e.valid & want) != want) && !MUTANT("multi-with-holes"))
			return -EINVAL;
	}
	return 0;
}

static int multi_check(struct fs *fs, struct inode *ino)
{
	const struct inode_disk *di = inode_disk(ino);
	char object[LABEL_MAX + 64];
	int err = -EINVAL;

	if (S_ISREG(le32_to_cpu(di->mode)) && le64_to_cpu(di->image_parent) == 0 &&
	    le64_to_cpu(di->size) % BLOCK_SIZE == 0 &&
	    !(le32_to_cpu(di->flags) & (INODE_INLINE | INODE_ORPHAN | INODE_FROZEN)))
		err = multi_check_map(fs, ino);
	if (err == -EINVAL) {
		snprintf(object, sizeof(object), "%s: inode %llu", fs->label,
			 (unsigned long long)ino->number);
		log_error(fs->env, object, "several writers need a regular file of whole 4 KiB "
			  "blocks, without parent or child images, all of it written: write zeros "
			  "first");
	}
	return err;
}

static int multi_set_locked(struct fs *fs, struct inode *ino, bool on)
{
	struct inode_disk *di;
	struct txn txn;
	bool is_on = le32_to_cpu(inode_disk(ino)->flags) & INODE_MULTI, open;
	int err = 0;

	if (is_on == on)
		return 0;
	/* An open's lock mode follows the flag: it may not change under one. */
	env_mutex_lock(fs->env, &fs->open_mutex);
	open = ino->opens > 0;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	if (open)
		return -EBUSY;
	if (on)
		err = multi_check(fs, ino);
	if (!err)
		err = txn_begin(fs, 1, &txn);
	if (err)
		return err;
	di = inode_touch(&txn, ino, false);
	di->flags = cpu_to_le32(on ? le32_to_cpu(di->flags) | INODE_MULTI :
				le32_to_cpu(di->flags) & ~(uint32_t)INODE_MULTI);
	txn_end(&txn);
	return 0;
}

/* ---- changing ---- */

/* A set ACL shows in the mode; one that says no more than the mode is not kept. */
static int xattr_apply_acl(struct attrs *a, const char *name, const void *value, size_t len,
			   uint32_t *mode)
{
	if (!acl_check(value, len))
		return -EINVAL;
	if (strcmp(name, ACL_DEFAULT) == 0) {
		if (!S_ISDIR(*mode))
			return -EACCES;
		return attrs_put(a, name, value, len);
	}
	if (acl_mode(value, len, mode)) {
		attrs_del(a, name);
		return 0;
	}
	return attrs_put(a, name, value, len);
}

static int xattr_apply(struct attrs *a, const char *name, const void *value, size_t len, int flags,
		       uint32_t *mode)
{
	bool acl = strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
	const void *old;
	size_t old_len;
	bool found = attrs_find(a, name, &old, &old_len) == 0;

	if (!value) {
		/* removexattr() of an ACL that is not there succeeds, as in every filesystem. */
		if (!found)
			return acl ? 0 : -ENODATA;
		return attrs_del(a, name);
	}
	if ((flags & XATTR_CREATE) && found)
		return -EEXIST;
	if ((flags & XATTR_REPLACE) && !found)
		return -ENODATA;
	return acl ? xattr_apply_acl(a, name, value, len, mode) :
		     attrs_put(a, name, value, len);
}

/* So that the next write need not look.  rwlock held for writing. */
static void note_capability(struct inode *ino, const struct attrs *a)
{
	const void *value;
	size_t len;

	ino->no_capability = attrs_find(a, XATTR_CAPABILITY, &value, &len) != 0;
}

static int xattr_change_locked(struct fs *fs, struct inode *ino, const char *name,
			       const void *value, size_t len, int flags, struct attrs *a)
{
	uint32_t mode = le32_to_cpu(inode_disk(ino)->mode);
	struct attrs_change change;
	struct inode_disk *di;
	struct txn txn;
	int err;

	err = attrs_load(fs, ino, a);
	if (err)
		return err;
	note_capability(ino, a);
	err = xattr_apply(a, name, value, len, flags, &mode);
	if (err)
		return err;
	if (flags & XATTR_KILL_SGID)
		mode &= ~(uint32_t)S_ISGID;
	err = attrs_store_prepare(fs, ino, a, &change);
	if (err)
		return err;
	err = txn_begin(fs, change.credits, &txn);
	if (!err) {
		di = inode_touch(&txn, ino, false);
		err = attrs_store(&txn, ino, di, a, &change);
		if (!err) {
			di->mode = cpu_to_le32(mode);
			note_capability(ino, a);
		}
		txn_end(&txn);
	}
	attrs_store_done(fs, &change);
	return err;
}

/* @value NULL: remove. */
static int xattr_change(struct fs *fs, uint64_t id, const char *name, const void *value,
			size_t len, int flags)
{
	bool multi = strcmp(name, XATTR_MULTI) == 0;
	struct inode *ino;
	struct attrs *a;
	int err;

	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return err;
	a = malloc(sizeof(*a));
	err = a ? inode_lock(fs, ino, id, LOCK_EXCLUSIVE, 0, NULL) : -ENOMEM;
	if (!err) {
		if (multi)
			err = multi_set_locked(fs, ino, value != NULL);
		else
			err = xattr_change_locked(fs, ino, name, value, len, flags, a);
		inode_unlock(fs, ino, LOCK_EXCLUSIVE, 0);
	}
	free(a);
	inode_put(fs, ino);
	/* Others look at the home block to know in which mode to ask for the lock. */
	return multi && !err ? journal_settle(fs) : err;
}

static int xattr_change_checked(struct fs *fs, uint64_t id, const char *name, const void *value,
				size_t len, int flags)
{
	int err;

	err = fs_may_write(fs);
	if (!err)
		err = xattr_name_check(name);
	if (err)
		return err;
	err = xattr_change(fs, id, name, value, len, flags);
	if (err == -ENOSPC && fs_make_space(fs))
		err = xattr_change(fs, id, name, value, len, flags);
	return fs_answer(fs, err);
}

int xattr_set(struct fs *fs, uint64_t id, const char *name, const void *value, size_t len,
	      int flags)
{
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE | XATTR_KILL_SGID))
		return -EINVAL;
	if (strcmp(name, XATTR_MULTI) == 0 && (len != 1 || memcmp(value, "1", 1) != 0))
		return -EINVAL;
	return xattr_change_checked(fs, id, name, value ? value : "", len, flags);
}

int xattr_remove(struct fs *fs, uint64_t id, const char *name)
{
	return xattr_change_checked(fs, id, name, NULL, 0, 0);
}
