/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/reclaim.h"

#include <errno.h>

#include "fs/ag.h"
#include "fs/cluster.h"
#include "fs/grow.h"
#include "fs/internal.h"

/* The part of the run that whole granules of the device fill: others would do nothing. */
static void whole_granules(struct fs *fs, const struct alloc_run *run, uint64_t *off, uint64_t *len)
{
	uint64_t granule = fs->raw->info.discard_granularity;
	uint64_t start = run->block << BLOCK_SHIFT, end = (run->block + run->count) << BLOCK_SHIFT;

	*off = DIV_ROUND_UP(start, granule) * granule;
	end = end / granule * granule;
	*len = end > *off ? end - *off : 0;
}

/* The run is reserved by us, its group pinned. */
static int discard_run(struct fs *fs, struct reclaim *r, const struct alloc_run *run)
{
	uint64_t off, len;
	int err;

	whole_granules(fs, run, &off, &len);
	if (!len)
		return 0;
	err = blkdev_discard(fs->dev, off, len);
	/* It must not land when the block is somebody's (R4). */
	if (err && err != -ENOTSUP && blkdev_drain(fs->dev) && fs->lockd)
		lockd_fail(fs->lockd, "a discard that timed out can neither be ended nor waited for");
	if (!err)
		r->discarded += len;
	return err;
}

/* Free runs of one bitmap block, from relative block @at on.  *@at: where it ended. */
static int reclaim_bitmap(struct fs *fs, struct ag *ag, struct reclaim *r, uint64_t max, uint32_t *at)
{
	uint32_t end = (*at / BITMAP_BITS + 1) * BITMAP_BITS;
	uint64_t until = r->discarded + (max < BITMAP_BITS * BLOCK_SIZE ? max : BITMAP_BITS * BLOCK_SIZE);
	struct alloc_run run = { 0 };
	int err = 0;

	while (!err && *at < end && r->discarded < until) {
		uint64_t room = DIV_ROUND_UP(until - r->discarded, BLOCK_SIZE);

		env_mutex_lock(fs->env, &ag->mutex);
		err = ag_reserve_next(ag, *at, room < BITMAP_BITS ? (uint32_t)room : BITMAP_BITS, &run);
		env_mutex_unlock(fs->env, &ag->mutex);
		if (err == -ENOSPC) {
			*at = end;
			return 0;
		}
		if (err)
			break;
		err = discard_run(fs, r, &run);
		env_mutex_lock(fs->env, &ag->mutex);
		ag_unreserve(ag, &run);
		env_mutex_unlock(fs->env, &ag->mutex);
		*at = (uint32_t)(run.block - ag->start) + run.count;
	}
	return err;
}

static int reclaim_group(struct fs *fs, struct ag *ag, struct reclaim *r, uint64_t max, uint32_t *at)
{
	bool was_ours = cluster_held(fs, &ag->cover.lock) == LOCK_EXCLUSIVE;
	int err = ag_pin(fs, ag, 0);

	if (err)
		return err;
	err = reclaim_bitmap(fs, ag, r, max, at);
	ag_unpin(fs, ag);
	/* What we only came by for is not kept: neither the lock nor the bitmaps. */
	if (!was_ours && *at >= super_ag_blocks(&fs->super, ag->index))
		(void)cluster_evict(fs, &ag->cover.lock);
	return err;
}

int fs_reclaim_step(struct fs *fs, struct reclaim *r, uint64_t max)
{
	uint64_t addr = r->at > fs->super.ag_addr ? r->at : fs->super.ag_addr, start;
	uint32_t index, at, blocks;
	struct ag *ag;
	int err = fs_may_write(fs);

	if (err)
		return err;
	if (!fs->raw->info.discard_granularity)
		return -ENOTSUP;
	if (super_ag_of(&fs->super, addr, &index))
		return 0;
	err = ag_get(fs, index, &ag);
	if (err)
		return err;
	start = super_ag_addr(&fs->super, index);
	blocks = super_ag_blocks(&fs->super, index);
	at = (uint32_t)((addr - start) >> BLOCK_SHIFT);
	err = reclaim_group(fs, ag, r, max, &at);
	if (err == -EBUSY || err == -EAGAIN) {
		r->busy += (uint64_t)(blocks - at) << BLOCK_SHIFT;
		at = blocks;
		err = 0;
	}
	if (err)
		return fs_result(fs, err);
	/* The next group begins a whole group's size on, however short this one is. */
	r->at = at < blocks ? start + ((uint64_t)at << BLOCK_SHIFT) : start + fs->super.ag_size;
	return index + 1 < super_ag_count(&fs->super) || at < blocks;
}
