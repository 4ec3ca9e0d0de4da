/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend for plain files and local block devices: O_DIRECT, libaio for asynchronous
 * requests, preadv2/pwritev2 for synchronous ones.
 */
#ifndef LUNFS_BLOCK_BLKFILE_H
#define LUNFS_BLOCK_BLKFILE_H

#include "block/blkdev.h"
#include "block/blkscsi.h"

enum blkfile_flags {
	BLKFILE_READ_ONLY	= 1 << 0,
	BLKFILE_BUFFERED	= 1 << 1,	/* do not even try O_DIRECT */
	BLKFILE_CAW_LOCAL	= 1 << 2,	/* a block device that only this machine uses (mkfs --caw=local) */
	BLKFILE_SECTOR_4K	= 1 << 3,	/* a file that plays a 4 KiB-sector device */
	BLKFILE_NO_LOCK		= 1 << 4,	/* no compare-and-write, and so no lock file */
};

/*
 * What must be opened with privilege and can be passed to a worker over a socket: the
 * descriptors and what the kernel says of the device.  Plain data.
 */
struct blkfile_handle {
	int	fd;		/* the device or file */
	int	lock_fd;	/* the machine's lock file for its compare-and-write, or -1 */
	struct blkdev_info info;
	struct blkscsi scsi;	/* what a SCSI disk of the kernel's has beside that */
	int	lanes[BLKSCSI_LANES_MAX];	/* to who executes it; none: this process may */
	unsigned int lane_count;
	/*
	 * Requests at the device at once, about; more wait here.  0: 256, and 1024 for an owner that
	 * polls.  All processes share fs.aio-max-nr of them, 65536 by default: whoever opens many
	 * devices asks for fewer each.
	 */
	unsigned int aio_depth;
};

/**
 * blkfile_handle_open() - opens @path and learns everything about it.
 * @why: receives one line on failure: object, cause, way out.
 *
 * Each call opens its own descriptions of device and lock file: a dup of a description
 * excludes nobody (design, section 5).  Network filesystems are refused (-EREMOTE).  The
 * lock file is BLKFILE_LOCK_DIR/BACKINGDEV-INODE; a loop device uses its backing file's.
 * Return: 0; -errno of open; -EREMOTE; -ENOTBLK neither file nor block device.
 */
int blkfile_handle_open(const char *path, unsigned int flags, struct blkfile_handle *h, char *why,
		     size_t why_size);

/** blkfile_handle_close() - closes the descriptors of a handle that became no blkdev. */
void blkfile_handle_close(struct blkfile_handle *h);

/**
 * blkfile_new() - a blkdev on @h, whose descriptors it takes over on success.
 * Needs no privilege.  Return: 0 or -errno; -EAGAIN, with a log line, if fs.aio-max-nr is used up.
 */
int blkfile_new(struct env *env, const struct blkfile_handle *h, struct blkdev **out);

/** blkfile_open() - both steps at once, for tools. */
int blkfile_open(struct env *env, const char *path, unsigned int flags,
		     struct blkdev **out, char *why, size_t why_size);

/*
 * Where the machine's lock files lie; LUNFS_LOCK_DIR in the environment overrides it, for
 * tests.  Not in /run/lock: everybody can write there, and make it before us.
 */
#define BLKFILE_LOCK_DIR	"/run/lunfs-locks"

/**
 * blkfile_lock_dir() - opens that directory, made if it is missing.
 * Return: a descriptor; -EPERM others could exchange its files; -errno; with @why.
 */
int blkfile_lock_dir(char *why, size_t why_size);

#endif
