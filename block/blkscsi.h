/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI disks of the kernel's: what the block layer has no call for.  COMPARE AND WRITE goes by SG_IO,
 * reservations by the ioctls of linux/pr.h (and SG_IO where these cannot read), a reset by SG_SCSI_RESET.
 *
 * All of it wants privilege at the moment of the call (Linux 6.1: scsi_cmd_allowed() lets neither command
 * pass without CAP_SYS_RAWIO, linux/pr.h wants CAP_SYS_ADMIN), whoever opened the descriptor; and who has
 * CAP_SYS_RAWIO and a descriptor may send a disk anything, new firmware included.  So lunfsd's worker
 * has neither: an agent, a privileged process that does nothing else, executes these requests for it,
 * checked, on the one device that it was started for (blkscsi_agent_serve()).  Tools, which root
 * runs, execute them themselves.
 */
#ifndef LUNFS_BLOCK_BLKSCSI_H
#define LUNFS_BLOCK_BLKSCSI_H

#include <pthread.h>
#include <sys/stat.h>

#include "block/blkdev.h"

#define BLKSCSI_LANES_MAX	3u
#define BLKSCSI_SECTOR_MAX	4096u

/* What was learned of the disk; plain data, travels with struct blkfile_handle. */
struct blkscsi {
	bool	used;		/* it is one, and has COMPARE AND WRITE */
	bool	fua;		/* it has a volatile cache: all that is written carries FUA (R7) */
	bool	unclear;	/* who used it before may have left commands under way */
	uint32_t timeout_ms;	/* of a command, the kernel's own */
};

/**
 * blkscsi_learn() - whether the block device @fd is a SCSI disk with COMPARE AND WRITE, or a
 * multipath device over such ones, and what else it has.
 * @info: receives caw, reservations, identity, inflight_ns_max; untouched if it is none.
 * @writes: it is to be written: then what stands in the way is an error.
 * Return: 0, s->used tells; -EBUSY used by another device; -EMEDIUMTYPE nothing to keep a datastore
 * on; with @why.  Context: privileged.
 */
int blkscsi_learn(int fd, const struct stat *st, const char *path, bool writes, struct blkscsi *s,
		  struct blkdev_info *info, char *why, size_t why_size);

/**
 * blkscsi_bound_ns() - the longest life of a command of the disk whose folder in sysfs is @device,
 * as far as the kernel's settings bound it; 0: not at all.  @sysfs: "/sys".
 *
 * A command is tried six times (SD_MAX_RETRIES), each for `timeout`; then error recovery, which has a
 * bound only if the host's eh_deadline is set; before each of them the transport may hold it back
 * (iscsi_session/recovery_tmo, fc_remote_ports/fast_io_fail_tmo).  LOCKING.md, "Fencing ladder".
 */
uint64_t blkscsi_bound_ns(const char *sysfs, const char *device);

enum blkscsi_op {
	BLKSCSI_CAW = 1,
	BLKSCSI_REGISTER,	/* @key becomes @other; key 0: not registered; other 0: unregister */
	BLKSCSI_REGISTER_IGNORE, /* whatever it was becomes @other */
	BLKSCSI_RESERVE,	/* for @key */
	BLKSCSI_PREEMPT_ABORT,	/* @other is thrown out, for @key */
	BLKSCSI_CLEAR,
	BLKSCSI_READ,
	BLKSCSI_RESET,		/* the LUN: nothing that was sent can land any more */
	BLKSCSI_BYE,		/* this handle ends in order; no command of it is unclear */
};

struct blkscsi_request {
	uint32_t op;		/* enum blkscsi_op */
	uint32_t sector;	/* BLKSCSI_CAW */
	uint64_t until_ns;	/* boot time: after it the request is not executed */
	uint64_t off;
	uint64_t key, other;
	uint8_t	data[2 * BLKSCSI_SECTOR_MAX];	/* BLKSCSI_CAW: expected, then desired */
};

struct blkscsi_reply {
	int32_t	err;		/* as struct blk_io says; -EBUSY: not executed */
	struct blkdev_pr_state pr;
};

/** blkscsi_execute() - one request, here and now.  Context: privileged; blocks. */
void blkscsi_execute(int fd, const struct blkscsi *s, const struct blkscsi_request *rq,
		     struct blkscsi_reply *reply);

/* ---- blkscsi_agent.c ---- */

/* The way to who executes: one request at a time goes through each lane. */
struct blkscsi_port {
	struct blkscsi	s;
	int		fd;		/* executed here, if there are no lanes */
	int		lanes[BLKSCSI_LANES_MAX];
	unsigned int	lane_count;
	pthread_mutex_t	mutex;
	pthread_cond_t	idle;
	unsigned int	free;		/* lanes, as bits */
};

void blkscsi_port_init(struct blkscsi_port *p, const struct blkscsi *s, int fd, const int *lanes,
		       unsigned int lane_count);
/** blkscsi_port_fini() - closes the lanes. */
void blkscsi_port_fini(struct blkscsi_port *p);

/** blkscsi_call() - executes @rq, whose until_ns it sets.  Return: reply->err.  Blocks. */
int blkscsi_call(struct blkscsi_port *p, struct blkscsi_request *rq, struct blkscsi_reply *reply);

/* What an agent may be asked of. */
struct blkscsi_agent {
	int		fd;
	struct blkscsi	s;
	uint64_t	size;		/* bytes; BLKSCSI_CAW beyond it is refused */
	uint32_t	sector;
	int		mark_fd;	/* emptied by BLKSCSI_BYE; -1 */
};

/**
 * blkscsi_agent_serve() - takes requests off @lane until its other end is closed.
 *
 * Believes nothing that it reads (R9): a request of another size or form is refused, and only what
 * blkscsi_op names can be had, on a's device.  What came too late (until_ns) is refused too: who
 * asked may have lost its lease meanwhile.
 */
void blkscsi_agent_serve(const struct blkscsi_agent *a, int lane);

#endif
