/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a volume while hosts use it: lunfs check, and the scrub. */
#ifndef LUNFS_FS_CHECK_ONLINE_H
#define LUNFS_FS_CHECK_ONLINE_H

#include "fs/check.h"
#include "fs/fs.h"

struct check_online_params {
	struct fs *fs;			/* attached, by a host that takes part in locking */
	/* Only what each object's blocks tell by themselves; memory: 24 bytes a directory. */
	bool shallow;
	/* A finding that was proved; severity ERROR only.  Must not block for long. */
	void (*report)(void *arg, const struct check_finding *f);
	/* Optional: @phase began, or went on to @done of @total. */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	/*
	 * Optional: @blocks blocks are about to be read.  May wait, so as to hold a rate: no lock is
	 * held then.  Non-zero ends the check, which returns it.
	 */
	int (*pace)(void *arg, uint32_t blocks);
	void *arg;
};

struct check_online_result {
	uint64_t errors;		/* findings reported */
	uint64_t unreadable;		/* of these: the device failed */
	uint64_t looked_again;		/* objects that seemed wrong at first, as they do while they change */
	/*
	 * Of these, such as kept changing, or are open on another host, whenever they were looked at:
	 * they may be right or wrong.
	 */
	uint64_t unproved;
	uint64_t directories, files, others;	/* in use, as they were met */
	uint64_t blocks_read;
};

/** check_online_proves() - whether an online check can prove @code; the others are left to one on a
 * quiet volume (fsck.lunfs). */
bool check_online_proves(enum check_code code);

/**
 * check_online() - reads every metadata block of the volume and reports real damage only.
 *
 * What seems wrong is looked at again, each object by itself: under its cluster lock where that can
 * be had, and reported only if all blocks that show it stayed what they are meanwhile, at home and
 * in all journals (LOCKING.md, "Checking while others write").  Nothing is written but lock records.
 * Context: blocks; takes inode locks (shared), waits for settles.  Memory as check_volume(), or see @p.
 * Return: 0 the check is complete, see @r; -ENOMEM; -EIO our slot is lost; what pace() returned.
 */
int check_online(const struct check_online_params *p, struct check_online_result *r);

#endif
