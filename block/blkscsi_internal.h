/* SPDX-License-Identifier: Apache-2.0 */
/* What blkscsi.c and blkscsi_learn.c share. */
#ifndef LUNFS_BLOCK_BLKSCSI_INTERNAL_H
#define LUNFS_BLOCK_BLKSCSI_INTERNAL_H

#include "block/blkscsi.h"
#include "block/lu.h"

/* A logical unit that the kernel has; lu.h asks through SG_IO. */
struct scsi_lu {
	struct lu	lu;
	int		fd;
	uint32_t	timeout_ms;	/* 0: 30 s */
};

struct scsi_lu scsi_lu(int fd, uint32_t timeout_ms);

#endif
