/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes: user., trusted., security. and the two POSIX ACLs of system. */
#ifndef LUNFS_FS_XATTR_H
#define LUNFS_FS_XATTR_H

#include "fs/inode.h"

/** xattr_get() - @size 0 asks for the length.  *@len receives it.  -ENODATA, -ERANGE. */
int xattr_get(struct fs *fs, uint64_t id, const char *name, void *value, size_t size, size_t *len);

#define XATTR_KILL_SGID	(1 << 16)	/* with an ACL: who sets it may not keep the file's set-group-id bit */

/** xattr_set() - @flags as setxattr(2) (XATTR_CREATE, XATTR_REPLACE), or XATTR_KILL_SGID; -ENOSPC over one block. */
int xattr_set(struct fs *fs, uint64_t id, const char *name, const void *value, size_t len,
	      int flags);

int xattr_list(struct fs *fs, uint64_t id, char *names, size_t size, size_t *len);
int xattr_remove(struct fs *fs, uint64_t id, const char *name);

/** xattr_drop() - within @txn: the attribute block goes, into the pinned group that holds it;
 * 4 credits, the inode's included. */
void xattr_drop(struct txn *txn, struct inode *ino, struct inode_disk *di,
		struct alloc_pin *pin);

/* trusted.lunfs.multiwriter = "1": several hosts may write the file at once (R1). */
#define XATTR_MULTI	"trusted.lunfs.multiwriter"

/* What a program may do beyond its user; goes with a write. */
#define XATTR_CAPABILITY "security.capability"

/** xattr_block() - the block number of the attribute block, 0: none (deletion frees it). */
uint64_t xattr_block(const struct inode *ino);

#endif
