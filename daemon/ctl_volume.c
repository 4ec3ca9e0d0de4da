/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl_volume.h"

#include <errno.h>

#include "base/text.h"
#include "daemon/ctl_json.h"
#include "fs/grow.h"
#include "fs/reclaim.h"

#define PIECE_NS	(300 * NSEC_PER_MSEC)	/* of work in one request */

int ctl_volume_grow(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		    size_t why_size)
{
	uint64_t old = 0, now = 0;
	int err = fs_grow(s->fs, rq->size, &old, &now, why, why_size);

	if (err == -EBUSY)
		return text_refuse(err, why, why_size, "%.100s: other hosts keep the superblock's lock; "
				   "try again", s->fs->label);
	if (err)
		return err;
	*out = json_object();
	put_int(*out, "old_size", old);
	put_int(*out, "size", now);
	put_int(*out, "device_size", blkdev_size(s->fs->raw));
	return 0;
}

int ctl_volume_reclaim(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		       size_t why_size)
{
	uint64_t end = env_now_ns(s->fs->env) + PIECE_NS, max = rq->size ? rq->size : UINT64_MAX;
	struct reclaim r = { .at = rq->from };
	int more = 1;

	while (more > 0 && r.discarded < max && env_now_ns(s->fs->env) < end)
		more = fs_reclaim_step(s->fs, &r, max - r.discarded);
	if (more == -ENOTSUP)
		return text_refuse(more, why, why_size, "%.100s: %.200s takes no space back (no discard)",
				   s->fs->label, s->fs->raw->info.name);
	if (more < 0)
		return more;
	*out = json_object();
	put_bool(*out, "more", more);
	put_int(*out, "next", r.at);
	put_int(*out, "size", super_size(&s->fs->super));
	put_int(*out, "discarded", r.discarded);
	put_int(*out, "busy", r.busy);
	return 0;
}
