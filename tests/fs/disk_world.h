/* SPDX-License-Identifier: Apache-2.0 */
/* A disk on host 0 of a cluster of simulated hosts, and what it has to show. */
#ifndef LUNFS_TESTS_FS_DISK_WORLD_H
#define LUNFS_TESTS_FS_DISK_WORLD_H

#include <stdio.h>

#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME		(256 * MIB)
#define DISK		(4 * MIB)
#define SECTOR		512u

struct world {
	struct cluster	*c;
	struct disk_rig	rig;
	uint64_t	size;
	uint8_t		*model;		/* what the disk shows */
	unsigned int	wrong;		/* reads that showed something else */
};

static inline uint64_t roll(struct world *w, uint64_t below)
{
	return env_random_below(w->c->env, below);
}

static inline uint64_t id_of_disk(struct world *w)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_lookup(w->c->fs, fs_root(w->c->fs), "disk", &attr), 0);
	return attr.id;
}

static inline void compare_all(struct world *w)
{
	uint8_t *buf = blkdev_alloc(w->size);
	uint64_t at;

	CU_ASSERT_EQUAL(blkdev_read(w->rig.dev, 0, buf, w->size), 0);
	for (at = 0; at < w->size && buf[at] == w->model[at]; at++)
		;
	CU_ASSERT_EQUAL(at, w->size);
	if (at < w->size)
		fprintf(stderr, "  byte %llu is %u, expected %u\n", (unsigned long long)at, buf[at],
			w->model[at]);
	free(buf);
}

static inline void world_begin(struct world *w, struct cluster *c, uint64_t size)
{
	struct fs_attr attr;

	memset(w, 0, sizeof(*w));
	w->c = c;
	w->size = size;
	w->model = calloc(1, size);
	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	attr.size = size;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL(disk_rig_open(&w->rig, c->hosts[0].env, c->fs, attr.id), 0);
}

static inline void world_end(struct world *w)
{
	compare_all(w);
	CU_ASSERT_EQUAL(disk_rig_close(&w->rig), 0);
	CU_ASSERT_EQUAL(w->wrong, 0);
	free(w->model);
}

static inline void write_some(struct world *w, unsigned int count)
{
	uint8_t *buf = blkdev_alloc(64 * KIB);

	for (unsigned int i = 0; i < count; i++) {
		uint64_t off = ALIGN_DOWN(roll(w, w->size - 64 * KIB), SECTOR);
		uint64_t len = SECTOR * (1 + roll(w, 127));
		uint8_t seed = (uint8_t)(1 + roll(w, 255));

		if (roll(w, 4)) {
			off = ALIGN_DOWN(off, 4096);
			len = ALIGN_UP(len, 4096);
		}
		memset(buf, seed, len);
		if (roll(w, 10) == 0) {
			CU_ASSERT_EQUAL(blkdev_zero(w->rig.dev, off, len), 0);
			memset(w->model + off, 0, len);
			continue;
		}
		CU_ASSERT_EQUAL(blkdev_write(w->rig.dev, off, buf, len), 0);
		memcpy(w->model + off, buf, len);
	}
	free(buf);
}

static inline void write_block(struct world *w, uint64_t off, uint8_t value)
{
	uint8_t *buf = blkdev_alloc(4096);

	memset(buf, value, 4096);
	CU_ASSERT_EQUAL(blkdev_write(w->rig.dev, off, buf, 4096), 0);
	memcpy(w->model + off, buf, 4096);
	free(buf);
}

#endif
