// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel can do and libfuse 3.14 does not know: it is agreed on beside libfuse, in the answer of INIT,
 * and such requests are made into those that libfuse knows, what is lost by that being kept with the thread.
 */
#include <linux/fuse.h>

#include "fuse/internal.h"

/*
 * A shared mapping of a file that is opened past the cache (O_DIRECT, O_APPEND); and reads and writes of that kind
 * look at what others have mapped.  Of flags2; kernel 6.6.
 */
#define DIRECT_IO_ALLOW_MMAP	(1u << (36 - 32))

/* FUSE_SETXATTR_EXT: the kernel says when setting an ACL takes the set-group-id bit away. */
static_assert(sizeof(struct fuse_setxattr_in) == 16 && FUSE_COMPAT_SETXATTR_IN_SIZE == 8,
	      "as the kernel sends it, and as libfuse reads it");

static void init_seen(struct mnt *m, const struct fuse_in_header *in, size_t n)
{
	const struct fuse_init_in *arg = (const void *)(in + 1);

	m->newer = (struct mnt_newer){ .unique = in->unique };
	if (n < offsetof(struct fuse_init_in, flags2) + sizeof(*in))
		return;
	m->newer.flags = arg->flags & FUSE_SETXATTR_EXT;
	if (arg->flags & FUSE_INIT_EXT && n >= sizeof(*in) + sizeof(*arg))
		m->newer.flags2 = arg->flags2 & DIRECT_IO_ALLOW_MMAP;
	m->newer.answer = true;
}

void mnt_newer_answer(struct mnt *m, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out *arg;

	if (!m->newer.answer || out->unique != m->newer.unique)
		return;
	m->newer.answer = false;
	if (out->error || count != 2 || iov[1].iov_len < sizeof(*arg)) {
		m->newer.flags = 0;
		return;
	}
	arg = iov[1].iov_base;
	arg->flags |= m->newer.flags;
	if (m->newer.flags2) {
		arg->flags |= FUSE_INIT_EXT;
		arg->flags2 |= m->newer.flags2;
	}
}

/* Its new fields go; returns the bytes that are left. */
static size_t setxattr_cut(struct mnt_thread *t, struct fuse_in_header *in, size_t n)
{
	struct fuse_setxattr_in *arg = (void *)(in + 1);
	const size_t old = FUSE_COMPAT_SETXATTR_IN_SIZE, extra = sizeof(*arg) - old;

	if (n < sizeof(*in) + sizeof(*arg))
		return n;
	t->acl_kills_sgid = arg->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	memmove((uint8_t *)arg + old, arg + 1, n - sizeof(*in) - sizeof(*arg));
	in->len -= (uint32_t)extra;
	return n - extra;
}

size_t mnt_newer_request(struct mnt_thread *t, void *request, size_t n)
{
	struct fuse_in_header *in = request;

	t->acl_kills_sgid = false;
	t->unnamed = false;
	if (n < sizeof(*in))
		return n;
	switch (in->opcode) {
	case FUSE_INIT:
		init_seen(t->mnt, in, n);
		break;
	case FUSE_SETXATTR:
		if (t->mnt->newer.flags & FUSE_SETXATTR_EXT)
			return setxattr_cut(t, in, n);
		break;
	case FUSE_TMPFILE:	/* the same as FUSE_CREATE but for the name, which means nothing */
		in->opcode = FUSE_CREATE;
		t->unnamed = true;
		break;
	default:
		break;
	}
	return n;
}
