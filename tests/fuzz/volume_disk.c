// SPDX-License-Identifier: Apache-2.0
/* A file of a volume that may be damaged, as a virtual disk. */
#include "tests/fs/disk_rig.h"
#include "tests/fuzz/volume.h"

static void sane(int err)
{
	FUZZ_CHECK(err <= 0 && err > -4096);
}

static void use_blocks(struct blkdev *dev, uint8_t *buf)
{
	const uint64_t at[] = { 0, UNIT_SIZE + 4096, 7 * UNIT_SIZE, 22 * UNIT_SIZE, 70 * MIB };

	for (size_t i = 0; i < ARRAY_SIZE(at) && at[i] + 16384 <= dev->info.size; i++) {
		sane(blkdev_read(dev, at[i], buf, 16384));
		sane(blkdev_write(dev, at[i] + 8192, buf, 8192));
		if (i % 2)
			sane(blkdev_discard(dev, at[i], UNIT_SIZE));
		else
			sane(blkdev_zero(dev, at[i], 4096));
	}
	sane(blkdev_flush(dev));
}

void volume_use_disk(struct fs *fs, uint64_t dir, const char *name)
{
	/* Of a damaged volume nobody may get space back: a write that waited for some would wait for ever. */
	struct disk_rig rig = { .params = { .map_bytes = 1 * MIB, .enospc = DISK_ENOSPC_REPORT } };
	uint8_t *buf = blkdev_alloc(16384);
	struct merge merge = { 0 };
	struct fs_attr a;
	uint64_t pause_ns;
	int err;

	FUZZ_CHECK(buf);
	memset(buf, 'z', 16384);
	err = fs_lookup(fs, dir, name, &a);
	sane(err);
	/* Smaller ones are no disks; one is enough. */
	if (!err && a.size >= 4 * MIB) {
		err = disk_rig_open(&rig, fs->env, fs, a.id);
		sane(err);
		if (!err) {
			use_blocks(rig.dev, buf);
			sane(disk_snapshot(rig.disk, dir, name, "disk-snap", &a, &pause_ns));
			use_blocks(rig.dev, buf);
			sane(fs_unlink(fs, dir, "disk-snap"));
			for (int more = 1; more > 0;) {
				more = disk_merge_step(rig.disk, &merge);
				FUZZ_CHECK(more <= 1 && more > -4096);
			}
			sane(disk_grow(rig.disk, rig.dev->info.size + 1 * MIB));
		}
		sane(disk_rig_close(&rig));
	}
	free(buf);
}
