/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/volume_open.h"

#include "fs/super.h"

int volume_open(const char *path, struct blkdev **dev, char *why, size_t why_size)
{
	unsigned int flags = BLKFILE_READ_ONLY;
	struct super s;
	int err = blkopen(env_posix(), path, flags, dev, why, why_size);

	if (err || !blkopen_is_path(path) || super_find(*dev, &s, NULL, 0))
		return err;
	if (s.sector == 4096)
		flags |= BLKFILE_SECTOR_4K;
	if (s.caw == BLK_CAW_LOCAL)
		flags |= BLKFILE_CAW_LOCAL;
	if (s.sector == (*dev)->info.sector && s.caw == (*dev)->info.caw)
		return 0;
	blkdev_close(*dev);
	return blkfile_open(env_posix(), path, flags, dev, why, why_size);
}
