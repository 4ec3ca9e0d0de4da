/* SPDX-License-Identifier: Apache-2.0 */
#include "block/blkopen.h"

#include "block/blkiscsi.h"

bool blkopen_is_path(const char *name)
{
	return !blkiscsi_is_url(name);
}

int blkopen(struct env *env, const char *name, unsigned int flags, struct blkdev **out, char *why,
	    size_t why_size)
{
	struct blkiscsi_options o = {
		.flags = (flags & BLKFILE_READ_ONLY ? BLKISCSI_READ_ONLY : 0u) |
			 (flags & BLKOPEN_HEARTBEAT ? BLKISCSI_HEARTBEAT : 0u),
	};
	struct blkiscsi_target t;
	int err;

	if (blkopen_is_path(name))
		return blkfile_open(env, name, flags & ~BLKOPEN_HEARTBEAT, out, why, why_size);
	err = blkiscsi_parse(name, &t, why, why_size);
	if (!err)
		err = blkiscsi_load(&t, why, why_size);
	if (!err)
		err = blkiscsi_resolve(&t, why, why_size);
	if (!err)
		err = blkiscsi_open(env, &t, &o, out, why, why_size);
	explicit_bzero(&t, sizeof(t));
	return err;
}
