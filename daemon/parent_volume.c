/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/super.h"

/* Takes what looks like a superblock at @addr as it is: the worker checks it in earnest. */
static bool probe(const struct blkfile_handle *h, uint64_t addr, struct super_disk *d)
{
	return addr + BLOCK_SIZE <= h->info.size &&
	       pread(h->fd, d, BLOCK_SIZE, (off_t)addr) == BLOCK_SIZE &&
	       le32_to_cpu(d->hdr.magic) == META_SUPER;
}

static bool probe_copies(const struct blkfile_handle *h, struct super_disk *d)
{
	uint64_t size = h->info.size;

	if (size < VOLUME_SIZE_MIN)
		return false;
	if (probe(h, ALIGN_DOWN(size, (uint64_t)BLOCK_SIZE) - BLOCK_SIZE, d))
		return true;
	for (unsigned int i = 0; i < SUPER_CANDIDATES; i++)
		if (probe(h, super_copy_candidate(size, i), d))
			return true;
	return false;
}

int parent_check_volume(const struct blkfile_handle *h, const char *dev, unsigned int *flags,
			struct rpc_reply *reply)
{
	struct super_disk *d = blkdev_alloc(sizeof(*d));
	bool found;

	if (!d)
		return -ENOMEM;
	found = probe(h, SUPER_ADDR, d) || probe_copies(h, d);
	if (found && le32_to_cpu(d->caw) == BLK_CAW_LOCAL)
		*flags |= BLKFILE_CAW_LOCAL;
	if (found && le32_to_cpu(d->sector) == 4096)
		*flags |= BLKFILE_SECTOR_4K;
	free(d);
	if (found)
		return 0;
	snprintf(reply->why, sizeof(reply->why),
		 "%.300s: not a LunFS volume (no superblock found); mkfs.lunfs makes one", dev);
	return -EUCLEAN;
}
