/* SPDX-License-Identifier: Apache-2.0 */
/* An inode's attribute block in memory, and the POSIX ACLs among the attributes. */
#ifndef LUNFS_FS_ATTRS_H
#define LUNFS_FS_ATTRS_H

#include "fs/xattr.h"

#define ACL_ACCESS	"system.posix_acl_access"
#define ACL_DEFAULT	"system.posix_acl_default"

struct attrs {
	uint32_t used, count;
	uint8_t	bytes[XATTR_BYTES_MAX];
};

/** attrs_decode() - the contents of a verified attribute block (R9).  Return: 0 or -EUCLEAN. */
int attrs_decode(const void *block, struct attrs *a);
void attrs_encode(const struct attrs *a, void *block);

/** attrs_find() - @value points into @a.  -ENODATA. */
int attrs_find(const struct attrs *a, const char *name, const void **value, size_t *len);

/** attrs_put() - sets or replaces; -ENOSPC more than one block holds. */
int attrs_put(struct attrs *a, const char *name, const void *value, size_t len);
int attrs_del(struct attrs *a, const char *name);

/** attrs_names() - as listxattr(2), without @name's values.  -ERANGE. */
int attrs_names(const struct attrs *a, char *names, size_t size, size_t *len);

/** attrs_load() - of an inode locked in either mode; empty if it has none. */
int attrs_load(struct fs *fs, struct inode *ino, struct attrs *a);

/* What storing attributes takes: space for the block, or the group of the one that goes. */
struct attrs_change {
	struct alloc_hold hold;
	struct alloc_pin pin;
	unsigned int credits;
};

/** attrs_store_prepare() - exclusively locked; no handle open.  @ino NULL: a new inode, with groups
 * pinned: -EAGAIN as alloc_reserve_try(). */
int attrs_store_prepare(struct fs *fs, struct inode *ino, const struct attrs *a,
			struct attrs_change *c);
/** attrs_store() - within @txn, @di from inode_change(). */
int attrs_store(struct txn *txn, struct inode *ino, struct inode_disk *di, const struct attrs *a,
		struct attrs_change *c);
/** attrs_store_done() - after txn_end(), or when nothing came of it. */
void attrs_store_done(struct fs *fs, struct attrs_change *c);

/* ---- POSIX ACLs, in the form of the system.posix_acl_* attributes (acl.c) ---- */

#define ACL_BYTES_MAX	1024u

/** acl_check() - well formed: version, order, one of each class, a mask where it is needed. */
bool acl_check(const void *acl, size_t len);

/** acl_mode() - the permissions that an access ACL stands for, into @mode's low 9 bits.
 * Return: true if the mode says it all and the ACL need not be kept. */
bool acl_mode(const void *acl, size_t len, uint32_t *mode);

/** acl_chmod() - the access ACL follows a change of mode. */
void acl_chmod(void *acl, size_t len, uint32_t mode);

/** acl_inherit() - @acl, a copy of the directory's default ACL, becomes the new object's access
 * ACL; *@mode loses what it does not grant.  Return: as acl_mode(). */
bool acl_inherit(void *acl, size_t len, uint32_t *mode);

#endif
