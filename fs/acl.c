// SPDX-License-Identifier: Apache-2.0
/*
 * POSIX.1e access control lists as the kernel hands them over: a little-endian version 2,
 * then entries of tag, permissions and id, in the order of the tags.
 *
 * With FUSE's posix_acl the kernel checks permissions by them, but leaves to the filesystem
 * what follows from a change: mode bits from the access ACL, the ACL from chmod(), and the
 * default ACL of a directory handed down to what is created in it (then in place of the umask).
 */
#include "fs/attrs.h"

enum acl_tag {
	ACL_USER_OBJ	= 0x01,
	ACL_USER	= 0x02,
	ACL_GROUP_OBJ	= 0x04,
	ACL_GROUP	= 0x08,
	ACL_MASK	= 0x10,
	ACL_OTHER	= 0x20,
};

struct acl_header_disk { le32 version; };
struct acl_entry_disk { le16 tag, perm; le32 id; };

#define ACL_VERSION	2u
#define ACL_PERMS	7u

static size_t acl_count(size_t len)
{
	return (len - sizeof(struct acl_header_disk)) / sizeof(struct acl_entry_disk);
}

static const struct acl_entry_disk *acl_entries(const void *acl)
{
	return (const void *)((const uint8_t *)acl + sizeof(struct acl_header_disk));
}

/* The (first) entry of @tag, or NULL.  The caller may own the bytes. */
static struct acl_entry_disk *acl_entry(const void *acl, size_t len, enum acl_tag tag)
{
	const struct acl_entry_disk *e = acl_entries(acl);
	size_t i;

	for (i = 0; i < acl_count(len); i++)
		if (le16_to_cpu(e[i].tag) == tag)
			return (struct acl_entry_disk *)(uintptr_t)&e[i];
	return NULL;
}

static bool acl_is_named(unsigned int tag)
{
	return tag == ACL_USER || tag == ACL_GROUP;
}

bool acl_check(const void *acl, size_t len)
{
	const struct acl_header_disk *h = acl;
	const struct acl_entry_disk *e;
	unsigned int tag, last = 0, seen = 0;
	size_t i;

	if (len < sizeof(*h) || len > ACL_BYTES_MAX ||
	    (len - sizeof(*h)) % sizeof(*e) || le32_to_cpu(h->version) != ACL_VERSION)
		return false;
	e = acl_entries(acl);
	for (i = 0; i < acl_count(len); i++) {
		tag = le16_to_cpu(e[i].tag);
		if (tag == 0 || tag > ACL_OTHER || (tag & (tag - 1)))
			return false;
		if (tag < last || (tag == last && !acl_is_named(tag)))
			return false;
		if (le16_to_cpu(e[i].perm) > ACL_PERMS)
			return false;
		last = tag;
		seen |= tag;
	}
	if ((seen & (ACL_USER | ACL_GROUP)) && !(seen & ACL_MASK))
		return false;
	return (seen & ACL_USER_OBJ) && (seen & ACL_GROUP_OBJ) && (seen & ACL_OTHER);
}

/* The entry whose permissions show as the mode's group bits. */
static struct acl_entry_disk *acl_group_class(const void *acl, size_t len)
{
	struct acl_entry_disk *mask = acl_entry(acl, len, ACL_MASK);

	return mask ? mask : acl_entry(acl, len, ACL_GROUP_OBJ);
}

bool acl_mode(const void *acl, size_t len, uint32_t *mode)
{
	uint32_t user = le16_to_cpu(acl_entry(acl, len, ACL_USER_OBJ)->perm);
	uint32_t group = le16_to_cpu(acl_group_class(acl, len)->perm);
	uint32_t other = le16_to_cpu(acl_entry(acl, len, ACL_OTHER)->perm);

	*mode = (*mode & ~0777u) | user << 6 | group << 3 | other;
	return acl_count(len) == 3;
}

void acl_chmod(void *acl, size_t len, uint32_t mode)
{
	acl_entry(acl, len, ACL_USER_OBJ)->perm = cpu_to_le16(mode >> 6 & ACL_PERMS);
	acl_group_class(acl, len)->perm = cpu_to_le16(mode >> 3 & ACL_PERMS);
	acl_entry(acl, len, ACL_OTHER)->perm = cpu_to_le16(mode & ACL_PERMS);
}

/* An object gets at most what both its creator's mode and the default ACL allow. */
static uint32_t acl_limit(struct acl_entry_disk *e, uint32_t mode, unsigned int shift)
{
	uint32_t perm = le16_to_cpu(e->perm) & (mode >> shift & ACL_PERMS);

	e->perm = cpu_to_le16((uint16_t)perm);
	return (mode & ~(ACL_PERMS << shift)) | perm << shift;
}

bool acl_inherit(void *acl, size_t len, uint32_t *mode)
{
	*mode = acl_limit(acl_entry(acl, len, ACL_USER_OBJ), *mode, 6);
	*mode = acl_limit(acl_group_class(acl, len), *mode, 3);
	*mode = acl_limit(acl_entry(acl, len, ACL_OTHER), *mode, 0);
	return acl_count(len) == 3;
}
