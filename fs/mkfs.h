/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a volume. */
#ifndef LUNFS_FS_MKFS_H
#define LUNFS_FS_MKFS_H

#include "fs/format.h"

struct mkfs_params {
	struct env *env;
	struct blkdev *dev;
	uint64_t size;			/* 0: all of the device; else at most that */
	const char *label;		/* at most LABEL_MAX bytes of UTF-8 */
	const uint8_t *volume_id;	/* NULL: random */
	uint32_t slot_count;		/* 0: by size: 64, fewer below 10 GiB */
	uint64_t journal_size;		/* 0: by size */
	uint64_t ag_size;		/* 0: by size */
	struct lockd_timing timing;	/* zeros: defaults 1000/5000/1000 */
	uint8_t machine_id[16];		/* recorded when the primitive is BLK_CAW_LOCAL */
	bool discard;			/* discard the whole device first, where it can */
};

/**
 * mkfs_layout() - where everything will lie; touches nothing.
 * Return: 0; -EINVAL/-ENOSPC/-E2BIG with @why.
 */
int mkfs_layout(const struct mkfs_params *p, struct super *s, char *why, size_t why_size);

/** mkfs_free_bytes() - what files can have of a new volume laid out like @s. */
uint64_t mkfs_free_bytes(const struct super *s);

/** mkfs_groups() - writes the allocation groups from @from on, empty; flushes nothing. */
int mkfs_groups(struct env *env, struct blkdev *dev, const struct super *s, uint32_t from);

/**
 * mkfs() - writes an empty volume; relies on nothing that the device held before.  The
 * superblock is destroyed first and written last, so an interrupted run leaves no volume
 * or, once one of its copies is written, the whole new one.
 */
int mkfs(const struct mkfs_params *p, struct super *s, char *why, size_t why_size);

/**
 * mkfs_clear_reservation() - what hosts of a former volume left behind: under their reservation
 * nothing of ours could be written, and their keys mean nothing on the new one.  mkfs() does it.
 * Return: 0; -errno.
 */
int mkfs_clear_reservation(struct blkdev *dev);

#endif
