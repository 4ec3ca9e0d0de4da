/* SPDX-License-Identifier: Apache-2.0 */
/* Compare-and-write with the rule of LOCKING.md, "An unclear compare-and-write". */
#include <errno.h>

#include "base/mutant.h"
#include "lockd/internal.h"

#define BOUNCE_SIZE	META_BLOCK_SIZE	/* the largest sector, and enough alignment for any device */
#define READ_BACK_TRIES	3

/* Whether @err leaves open if the command was, or will yet be, carried out. */
static bool result_is_unclear(int err)
{
	return err == -EIO || err == -ETIMEDOUT;
}

/*
 * Reads the sector until it can be told what became of the command that ended with @caw_err.
 * 0: our image is there.  Nobody else writes those bytes: its sequence is one that only a
 * change of the old image has, and it names us, or nobody, at a time of ours.
 * -EAGAIN: not landed, but it may yet.
 */
static int read_back(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
		     const void *desired, void *buf, int caw_err)
{
	uint64_t pause_ns = ld->p.timing.beat_ms * NSEC_PER_MSEC / 16;
	int err = caw_err;

	for (unsigned int i = 0; i < READ_BACK_TRIES; i++) {
		if (i > 0)
			env_sleep_until(ld->p.env, env_now_ns(ld->p.env) + pause_ns);
		err = blkdev_read(dev, addr, buf, dev->info.sector);
		if (!result_is_unclear(err))
			break;
	}
	if (err)
		return result_is_unclear(err) ? caw_err : err;
	if (memcmp(buf, desired, dev->info.sector) == 0)
		return 0;
	if (MUTANT("believe-miscompare"))
		return 0;
	if (caw_err == -EILSEQ)
		return -EILSEQ;
	return memcmp(buf, expected, dev->info.sector) == 0 ? -EAGAIN : -EILSEQ;
}

static void count_caw(struct lockd *ld, int err, bool unclear)
{
	env_mutex_lock(ld->p.env, &ld->mutex);
	ld->caw_unclear += unclear;
	ld->caw_retries += err == -EAGAIN || err == -EILSEQ || err == -EBUSY;
	env_mutex_unlock(ld->p.env, &ld->mutex);
}

int caw_sector_told(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
		    const void *desired, bool *unclear)
{
	uint8_t old_image[BOUNCE_SIZE] BLKDEV_ALIGNED, new_image[BOUNCE_SIZE] BLKDEV_ALIGNED;
	uint8_t found[BOUNCE_SIZE] BLKDEV_ALIGNED;
	int err;

	assert(dev->info.sector <= BOUNCE_SIZE);
	memset(old_image, 0, dev->info.sector);
	memset(new_image, 0, dev->info.sector);
	memcpy(old_image, expected, META_SECTOR_SIZE);
	memcpy(new_image, desired, META_SECTOR_SIZE);
	err = blkdev_caw(dev, addr, old_image, new_image);
	*unclear = result_is_unclear(err);
	/* A miscompare too may be an echo: a command that a lower layer sent twice. */
	if (*unclear || err == -EILSEQ)
		err = read_back(ld, dev, addr, old_image, new_image, found, err);
	if (err)
		count_caw(ld, err, *unclear);
	return err;
}

int caw_sector(struct lockd *ld, struct blkdev *dev, uint64_t addr, const void *expected,
	       const void *desired)
{
	bool unclear;

	return caw_sector_told(ld, dev, addr, expected, desired, &unclear);
}
